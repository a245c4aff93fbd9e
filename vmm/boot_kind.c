// SPDX-License-Identifier: Apache-2.0
/*
 * References: Multiboot specification 0.6.96, section 3.1; Multiboot2 specification 2.0, section 3.1; Solo5,
 * include/elf_abi.h.
 */
#include "vmm/boot_kind.h"

#include "loam/types.h"
#include "vmm/boot_file.h"

#include <stdint.h>
#include <string.h>

#define BANNER "Linux version "
#define SOLO5  "Solo5"

/* A header is a magic number, words that count, and a checksum that makes them 0; it lies within the first bytes. */
struct header {
    uint32_t magic;
    uint32_t search_bytes, step_bytes;
    uint32_t words; /* that are added up */
};

static const struct header multiboot = {0x1badb002, 8192, 4, 3};
static const struct header multiboot2 = {0xe85250d6, 32768, 8, 4};

bool boot_kind_has_banner(const struct boot_file *file, uint64_t offset, uint64_t bytes)
{
    const char *at, *found;

    if (!loam_fits(offset, bytes, file->bytes)) {
        return false;
    }
    at = (const char *)file->data + offset;
    while (bytes >= sizeof BANNER && (found = memmem(at, bytes - 1, BANNER, sizeof BANNER - 1)) != NULL) {
        const char *figure = found + sizeof BANNER - 1;

        if (*figure >= '0' && *figure <= '9') {
            return true;
        }
        bytes -= (uint64_t)(figure - at);
        at = figure;
    }
    return false;
}

static bool has_header(const struct boot_file *file, const struct header *header)
{
    uint32_t words[4], sum;

    for (uint32_t at = 0; at < header->search_bytes; at += header->step_bytes) {
        if (!boot_file_read(file, at, words, header->words * sizeof words[0])) {
            return false;
        }
        sum = 0;
        for (uint32_t i = 0; i < header->words; i++) {
            sum += words[i];
        }
        if (words[0] == header->magic && sum == 0) {
            return true;
        }
    }
    return false;
}

const char *boot_kind_of_elf(const struct boot_file *file)
{
    uint64_t head = file->bytes < 65536 ? file->bytes : 65536;

    if (has_header(file, &multiboot) || has_header(file, &multiboot2)) {
        return "it is a multiboot image, which GRUB boots and Loam does not: add the note";
    }
    if (memmem(file->data, head, SOLO5, sizeof SOLO5) != NULL) {
        return "it is a unikernel of Solo5: run it by solo5-hvt, or build it for a target with PVH entry";
    }
    if (boot_kind_has_banner(file, 0, file->bytes)) {
        return "it is a Linux kernel without PVH entry: build it with CONFIG_PVH=y, or use its bzImage";
    }
    return "build a Linux kernel with CONFIG_PVH=y, or use a bzImage; what Firecracker enters at e_entry is entered "
           "here by a PVH note only";
}
