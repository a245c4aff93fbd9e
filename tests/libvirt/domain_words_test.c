// SPDX-License-Identifier: Apache-2.0
/* Domains as words, as loam's own reader of options understands them, and as bash reads them back. */
#include "tools/libvirt/domain_words.h"

#include "tests/support/process.h"
#include "vmm/options.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct domain domain;
static struct domain_words words;
static char line[DOMAIN_WORDS_SHELL_BYTES];

static void set_up(void)
{
    domain = (struct domain){.memory = {.bytes = 64 * LOAM_MIB}, .vcpu_count = 1};
}

TestSuite(domain_words, .init = set_up);

static const char *shown(void)
{
    domain_words_make(&domain, &words);
    cr_expect_eq(domain_words_shell(&words, &domain.serial, line), strlen(line));
    return line;
}

/* loam reads its own options. */
static struct options options_of_words(void)
{
    struct options options;

    domain_words_make(&domain, &words);
    cr_assert_null(words.argv[words.count]);
    options_read((int)words.count - 1, words.argv + 1, &options);
    return options;
}

Test(domain_words, the_least)
{
    cr_expect_str_eq(shown(), "loam run --memory 64M --vcpus 1");
}

Test(domain_words, what_needs_no_part)
{
    domain.memory.pages = LOAM_PAGES_4K;
    domain.memory.commit = LOAM_COMMIT_LAZY;
    cr_expect_str_eq(shown(), "loam run --memory 64M --pages 4K --lazy --vcpus 1");
    domain.memory.commit = LOAM_COMMIT_POPULATE;
    domain.memory.lock = true;
    domain.memory.thread_count = 3;
    cr_expect_str_eq(shown(), "loam run --memory 64M --pages 4K --populate --lock --populate-threads 3 --vcpus 1");
}

Test(domain_words, sizes_in_their_largest_unit)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{3 * 1024 * LOAM_GIB, "3T"},
                 {1025 * LOAM_GIB, "1025G"},
                 {LOAM_GIB + LOAM_MIB, "1025M"},
                 {LOAM_MIB + 4096, "1028K"},
                 {4097, "4097"},
                 {UINT64_MAX - 4095, "18014398509481980K"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[128];

        domain.memory.bytes = cases[i].bytes;
        snprintf(expected, sizeof expected, "loam run --memory %s --vcpus 1", cases[i].text);
        cr_expect_str_eq(shown(), expected);
        cr_expect_eq(options_of_words().memory.bytes, cases[i].bytes);
    }
}

Test(domain_words, one_part)
{
    domain.memory.pages = LOAM_PAGES_2M;
    domain.memory.sharing = LOAM_SHARING_SHARED;
    domain.memory.commit = LOAM_COMMIT_POPULATE;
    domain.memory.placement = LOAM_PLACEMENT_INTERLEAVE;
    domain.memory.node_mask = 0x800000000000003b;
    domain.memory.lock = true;
    cr_expect_str_eq(shown(), "loam run --memory size=64M,pages=2M,node=0-1+3-5+63,policy=interleave,share=on,"
                              "populate=on,lock=on --vcpus 1");
    domain.memory = (struct loam_memory_request){.bytes = 4096 * 513, .sharing = LOAM_SHARING_PRIVATE};
    cr_expect_str_eq(shown(), "loam run --memory size=2052K,share=off --vcpus 1");
    domain.memory.commit = LOAM_COMMIT_LAZY;
    cr_expect_str_eq(shown(), "loam run --memory size=2052K,share=off,populate=off --vcpus 1");
}

/* Every member that says something arrives, in each of eight parts with the longest texts. */
Test(domain_words, loam_reads_what_was_meant)
{
    for (unsigned i = 0; i < LOAM_MEMORY_PART_MAX; i++) {
        domain.memory.parts[i] = (struct loam_backing_request){
            .bytes = LOAM_MIB * (i + 2),
            .pages = i % LOAM_PAGES_COUNT,
            .sharing = i % LOAM_SHARING_COUNT,
            .commit = i % 2 != 0 ? LOAM_COMMIT_POPULATE : LOAM_COMMIT_RESERVE,
            .placement = i % 2 != 0 ? LOAM_PLACEMENT_STRICT : LOAM_PLACEMENT_INTERLEAVE,
            .node_mask = UINT64_C(0xaaaaaaaaaaaaaaaa),
            .lock = i % 3 == 0,
        };
    }
    domain.memory.part_count = LOAM_MEMORY_PART_MAX;
    domain.memory.thread_count = 256;
    domain.vcpu_count = 1024;
    memset(domain.kernel, 'k', sizeof domain.kernel - 1);
    memset(domain.initrd, '\'', sizeof domain.initrd - 1);
    memset(domain.command_line, '\n', sizeof domain.command_line - 1);
    domain.serial.kind = DOMAIN_SERIAL_FILE;
    memset(domain.serial.path, '\x7f', sizeof domain.serial.path - 1);
    struct options options = options_of_words();

    cr_assert_eq(options.memory.part_count, LOAM_MEMORY_PART_MAX);
    for (unsigned i = 0; i < LOAM_MEMORY_PART_MAX; i++) {
        const struct loam_backing_request *wanted = &domain.memory.parts[i], *found = &options.memory.parts[i];

        cr_expect(found->bytes == wanted->bytes && found->pages == wanted->pages && found->sharing == wanted->sharing &&
                      found->commit == wanted->commit && found->placement == wanted->placement &&
                      found->node_mask == wanted->node_mask && found->lock == wanted->lock,
                  "part %u: %s", i, words.argv[3 + 2 * i]);
    }
    cr_expect_eq(options.memory.thread_count, 256);
    cr_expect_eq(options.vcpu_count, 1024);
    cr_expect_str_eq(options.kernel, domain.kernel);
    cr_expect_str_eq(options.initrd, domain.initrd);
    cr_expect_str_eq(options.command_line, domain.command_line);
    cr_expect_eq(options.on_reset, ON_RESET_RESTART);
    cr_expect_lt(strlen(shown()), sizeof line);
}

Test(domain_words, a_kernel)
{
    strcpy(domain.kernel, "/boot/k");
    cr_expect_str_eq(shown(), "loam run --memory 64M --vcpus 1 --kernel /boot/k --on-reset restart");
    domain.ends_at_reset = true;
    strcpy(domain.initrd, "/boot/my initrd");
    strcpy(domain.command_line, "-a 'b' \"$c\" \\");
    cr_expect_str_eq(shown(), "loam run --memory 64M --vcpus 1 --kernel /boot/k --initrd '/boot/my initrd' --cmdline "
                              "'-a '\\''b'\\'' \"$c\" \\' --on-reset pass");
    cr_expect_eq(options_of_words().on_reset, ON_RESET_PASS);
}

Test(domain_words, where_the_serial_port_goes)
{
    domain.serial.kind = DOMAIN_SERIAL_NULL;
    cr_expect_str_eq(shown(), "loam run --memory 64M --vcpus 1 </dev/null >/dev/null");
    domain.serial.kind = DOMAIN_SERIAL_FILE;
    strcpy(domain.serial.path, "/var/log/a b");
    cr_expect_str_eq(shown(), "loam run --memory 64M --vcpus 1 </dev/null >'/var/log/a b'");
    domain.serial.append = true;
    cr_expect_str_eq(shown(), "loam run --memory 64M --vcpus 1 </dev/null >>'/var/log/a b'");
}

/* Whatever an XML document can hold: bash prints it back, and the line itself is fit to be shown. */
Test(domain_words, bash_reads_it_back)
{
    static const char *const texts[] = {
        "plain",        "two words",
        "it's",         "$HOME `id` $(id)",
        "tab\there",    "line\nend\n",
        "\\n \\",       "\xc3\xa4",
        "\xc2\x9bm",    "\x7f",
        "*?[a]{b,c}",   "~root",
        "#no",          "a;b&c|d<e",
        "!!",           "'\t'",
        "\xe2\x82\xac", "\n'\\\"$x\xc2\x85\xf0\x9f\x98\x80",
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char script[sizeof line + 64];
        char *argv[] = {"/bin/bash", "-c", script, NULL};
        struct process process;

        strcpy(domain.kernel, "/k");
        strcpy(domain.command_line, texts[i]);
        snprintf(script, sizeof script, "loam() { printf '%%s' \"${9}\"; }; %s", shown());
        cr_expect_eq(process_run(&process, argv, 10000), 0, "%s", process.err);
        cr_expect_str_eq(process.out, texts[i], "%s", line);
        for (const unsigned char *at = (const unsigned char *)line; *at != '\0'; at++) {
            cr_expect(*at >= ' ' && *at != 0x7f && !(*at == 0xc2 && at[1] < 0xa0), "%#x in the line of %zu", *at, i);
        }
        process_end(&process);
    }
}
