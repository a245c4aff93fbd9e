// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/domain_xml.h"

#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <libxml/xpathInternals.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct domain_xml_wish ordinary(void)
{
    return (struct domain_xml_wish){.type = "kvm",
                                    .name = "one",
                                    .emulator = "/usr/bin/loam-emulator",
                                    .kernel = "/srv/vmlinux",
                                    .initrd = "/srv/initrd",
                                    .command_line = "console=ttyS0",
                                    .memory_bytes = UINT64_C(256) << 20,
                                    .vcpu_count = 2,
                                    .kind = {PAGE_SOURCE_POOL, 2 << 20},
                                    .node = 1,
                                    .node_strict = true};
}

static char *write_wish(const struct domain_xml_wish *wish)
{
    struct loam_diag diag = {0};
    char *text;

    cr_assert_eq(domain_xml_write(wish, &text, &diag), LOAM_OK, "%s", diag.text);
    return text;
}

/* What an XPath expression, such as string(/domain/name), says of the text. To be freed. */
static char *ask(const char *text, const char *path)
{
    xmlDoc *document = xmlReadMemory(text, (int)strlen(text), "x.xml", NULL, XML_PARSE_NONET);
    xmlXPathContext *context = xmlXPathNewContext(document);
    xmlXPathObject *object;
    char *answer;

    cr_assert_not_null(document, "%s", text);
    xmlXPathRegisterNs(context, BAD_CAST "qemu", BAD_CAST "http://libvirt.org/schemas/domain/qemu/1.0");
    object = xmlXPathEval(BAD_CAST path, context);
    cr_assert_not_null(object, "%s", path);
    answer = (char *)xmlXPathCastToString(object);
    xmlXPathFreeObject(object);
    xmlXPathFreeContext(context);
    xmlFreeDoc(document);
    return answer;
}

static void expect(const char *text, const char *path, const char *wanted)
{
    char *found = ask(text, path);

    cr_expect_str_eq(found, wanted, "%s is %s in %s", path, found, text);
    xmlFree(found);
}

/* As libvirt's own schema sees it. */
static void validate(const char *text)
{
    char path[] = "/tmp/loam-domain.XXXXXX";
    char *argv[] = {"virt-xml-validate", path, "domain", NULL};
    struct process process;
    int fd = mkstemp(path);

    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    cr_expect_eq(process_run(&process, argv, 60000), 0, "%s%s%s", process.out, process.err, text);
    process_end(&process);
    unlink(path);
}

Test(domain_xml, what_was_wished_is_there)
{
    struct domain_xml_wish wish = ordinary();
    char *text = write_wish(&wish);

    expect(text, "string(/domain/@type)", "kvm");
    expect(text, "string(/domain/name)", "one");
    expect(text, "concat(/domain/memory, /domain/memory/@unit)", "256MiB");
    expect(text, "string(/domain/vcpu)", "2");
    expect(text, "concat(/domain/memoryBacking/hugepages/page/@size, //page/@unit)", "2048KiB");
    expect(text, "string(/domain/memoryBacking/source/@type)", "memfd");
    expect(text, "concat(/domain/numatune/memory/@mode, //numatune/memory/@nodeset)", "strict1");
    expect(text, "concat(/domain/os/type, /domain/os/type/@machine)", "hvmmicrovm");
    expect(text, "string(/domain/os/kernel)", "/srv/vmlinux");
    expect(text, "string(/domain/os/initrd)", "/srv/initrd");
    expect(text, "string(/domain/os/cmdline)", "console=ttyS0");
    expect(text, "string(/domain/devices/emulator)", "/usr/bin/loam-emulator");
    expect(text, "string(//controller[@type='usb']/@model)", "none");
    expect(text, "string(//memballoon/@model)", "none");
    expect(text, "string(//serial/@type)", "pty");
    expect(text, "count(//*[namespace-uri() != ''])", "0");
    free(text);
}

Test(domain_xml, what_was_not_wished_is_not)
{
    struct domain_xml_wish wish = ordinary();
    char *text;

    wish.initrd = wish.command_line = NULL;
    wish.node = WORDS_NODE_ANY;
    wish.kind = (struct page_kind){PAGE_SOURCE_BASE, WORDS_BASE_BYTES};
    text = write_wish(&wish);
    expect(text, "count(//initrd | //cmdline | //numatune | //hugepages)", "0");
    free(text);
    wish.node = 3;
    wish.node_strict = false;
    wish.kind = (struct page_kind){PAGE_SOURCE_THP, WORDS_BASE_BYTES};
    text = write_wish(&wish);
    expect(text, "string(//numatune/memory/@mode)", "preferred");
    expect(text, "count(//hugepages)", "0");
    expect(text, "concat(//qemu:arg[1]/@value, ' ', //qemu:arg[2]/@value)", "-x-loam pages=thp");
    free(text);
}

Test(domain_xml, others_words_stay_words)
{
    static const char nasty[] =
        "</cmdline><kernel>/etc/shadow</kernel> \"quoted\" 'too' & &amp; ]]> a=b gr\xc3\xbc\xc3\x9f";
    struct domain_xml_wish wish = ordinary();
    char *text;

    wish.name = wish.command_line = nasty + strlen("</cmdline><kernel>/etc/shadow</kernel>");
    text = write_wish(&wish);
    expect(text, "string(/domain/name)", wish.name);
    free(text);
    wish.name = "one";
    wish.command_line = nasty;
    wish.kernel = wish.initrd = wish.emulator = "/srv/<a> & 'b' \"c\"";
    text = write_wish(&wish);
    expect(text, "string(/domain/os/cmdline)", nasty);
    expect(text, "string(/domain/os/kernel)", wish.kernel);
    expect(text, "string(/domain/os/initrd)", wish.kernel);
    expect(text, "string(/domain/devices/emulator)", wish.kernel);
    expect(text, "count(//kernel)", "1");
    free(text);
}

Test(domain_xml, what_xml_has_no_form_for_is_refused)
{
    static const char *const bad[] = {"a\nb", "a\tb", "a\x1b[31m", "\xff", "\xef\xbf\xbf", "\xed\xa0\x80", "a\x01"};
    char long_text[DOMAIN_XML_TEXT_MAX + 2], *text = (char *)1;

    memset(long_text, 'a', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    for (size_t i = 0; i <= sizeof bad / sizeof bad[0]; i++) {
        struct domain_xml_wish wish = ordinary();
        struct loam_diag diag = {0};

        wish.command_line = i == sizeof bad / sizeof bad[0] ? long_text : bad[i];
        cr_expect_eq(domain_xml_write(&wish, &text, &diag), LOAM_ERROR_INVALID, "%zu", i);
        cr_expect_null(text);
        cr_expect_eq(strncmp(diag.text, "--append", 8), 0, "%s", diag.text);
    }
}

Test(domain_xml, what_libvirt_has_no_form_for_is_refused)
{
    struct domain_xml_wish wishes[] = {ordinary(), ordinary(), ordinary(), ordinary(), ordinary(), ordinary()};
    static const char *const says[] = {"--name", "--name", "--kernel vmlinux", "--emulator", "--memory", "--initrd"};

    wishes[0].name = "a/b";
    wishes[1].name = "";
    wishes[2].kernel = "vmlinux";
    wishes[3].emulator = "";
    wishes[4].memory_bytes = 4096;
    wishes[5].initrd = "./initrd";
    for (size_t i = 0; i < sizeof says / sizeof says[0]; i++) {
        struct loam_diag diag = {0};

        cr_expect_eq(domain_xml_check(&wishes[i], &diag), LOAM_ERROR_INVALID, "%zu", i);
        cr_expect_eq(strncmp(diag.text, says[i], strlen(says[i])), 0, "%s", diag.text);
    }
}

Test(domain_xml, libvirt_takes_it)
{
    static const struct page_kind kinds[] = {
        {PAGE_SOURCE_POOL, 2 << 20}, {PAGE_SOURCE_POOL, 1 << 30}, {PAGE_SOURCE_THP, 4096}, {PAGE_SOURCE_BASE, 4096}};

    if (access("/usr/bin/virt-xml-validate", X_OK) != 0) {
        cr_skip_test("virt-xml-validate is not installed");
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct domain_xml_wish wish = ordinary();
        char *text;

        wish.kind = kinds[i];
        wish.node_strict = i % 2 == 0;
        text = write_wish(&wish);
        validate(text);
        free(text);
    }
}

Test(domain_xml, the_one_to_start_from_is_valid)
{
    char *path = getenv("DOMAIN_XML");
    char *argv[] = {"virt-xml-validate", path == NULL ? "tools/libvirt/domain.xml" : path, "domain", NULL};
    struct process process;

    if (access("/usr/bin/virt-xml-validate", X_OK) != 0) {
        cr_skip_test("virt-xml-validate is not installed");
    }
    cr_expect_eq(process_run(&process, argv, 60000), 0, "%s%s", process.out, process.err);
    process_end(&process);
}
