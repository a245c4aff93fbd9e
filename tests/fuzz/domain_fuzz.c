// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: whatever the document holds, it is read without a crash, a refusal has its words, and what is not refused is a
 * domain whose words and line keep their promises. The first byte chooses what is passed over.
 */
#include "tools/libvirt/domain_read.h"
#include "tools/libvirt/domain_words.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

static const char *const ignores[] = {"/domain/devices/interface", "/domain/devices/serial[1]", "/domain/vcpu/@current",
                                      "/domain/cpu/numa/cell[2]"};

static void check_refusals(const struct xml_walk_refusals *refusals, bool was_read)
{
    REQUIRE(was_read == (refusals->count == 0));
    for (uint32_t i = 0; i < refusals->count && i < XML_WALK_REFUSAL_MAX; i++) {
        size_t length = strnlen(refusals->texts[i], XML_WALK_REFUSAL_BYTES);

        REQUIRE(length > 0 && length < XML_WALK_REFUSAL_BYTES);
    }
}

static void check_domain(const struct domain *domain)
{
    const struct loam_memory_request *memory = &domain->memory;

    REQUIRE(memory->bytes > 0 && memory->bytes % LOAM_FRAME_BYTES == 0);
    REQUIRE(domain->vcpu_count >= 1 && domain->vcpu_count <= DOMAIN_VCPU_MAX);
    REQUIRE(domain->kernel[0] == '\0' || domain->kernel[0] == '/');
    REQUIRE(domain->kernel[0] != '\0' || (domain->initrd[0] == '\0' && domain->command_line[0] == '\0'));
    REQUIRE((domain->serial.path[0] == '/') == (domain->serial.kind == DOMAIN_SERIAL_FILE));
    REQUIRE(memory->part_count <= LOAM_MEMORY_PART_MAX);
    for (uint32_t i = 0; i < memory->part_count; i++) {
        REQUIRE(memory->parts[i].bytes > 0);
        REQUIRE((memory->parts[i].placement == LOAM_PLACEMENT_ANY) == (memory->parts[i].node_mask == 0));
    }
}

static void check_words(const struct domain *domain)
{
    static struct domain_words words;
    static char line[DOMAIN_WORDS_SHELL_BYTES];
    size_t length;

    domain_words_make(domain, &words);
    REQUIRE(words.count >= 6 && words.argv[words.count] == NULL);
    length = domain_words_shell(&words, &domain->serial, line);
    REQUIRE(length == strlen(line));
    for (size_t i = 0; i < length; i++) {
        REQUIRE((unsigned char)line[i] >= ' ' && line[i] != 0x7f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct xml_walk_refusals refusals;
    static struct domain domain;
    size_t ignore_count = size > 0 ? data[0] % (sizeof ignores / sizeof ignores[0] + 1) : 0;
    bool was_read;

    data += size > 0;
    size -= size > 0;
    was_read = domain_read((const char *)data, size, ignores, ignore_count, &domain, &refusals);
    check_refusals(&refusals, was_read);
    if (was_read) {
        check_domain(&domain);
        check_words(&domain);
    }
    return 0;
}
