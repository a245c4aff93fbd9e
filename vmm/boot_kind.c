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

    if (has_header(file, &multiboot2)) {
        return "it is a multiboot2 image, which GRUB boots: give it a multiboot 1 header as well, or the note";
    }
    if (memmem(file->data, head, SOLO5, sizeof SOLO5) != NULL) {
        return "it is a unikernel of Solo5 for hvt or spt: run it by solo5-hvt, or build it for virtio, whose "
               "multiboot "
               "header is booted";
    }
    return NULL;
}

/* --- Files that are no kernel at all ------------------------------------------------------------------------------- */

struct sign {
    uint64_t offset;
    const char *bytes;
    uint32_t count;
    const char *what;
};

#define SIGN(offset, text, what)                                                                                       \
    {                                                                                                                  \
        offset, text, sizeof(text) - 1, what                                                                           \
    }

/* What people hand over by mistake. The first that fits. */
static const struct sign signs[] = {
    SIGN(0, "\x1f\x8b", "a gzip file: gunzip it first"),
    SIGN(0,
         "\xfd"
         "7zXZ",
         "an xz file: unxz it first"),
    SIGN(0, "\x28\xb5\x2f\xfd", "a zstd file: unzstd it first"),
    SIGN(0, "BZh", "a bzip2 file: bunzip2 it first"),
    SIGN(0, "\x04\x22\x4d\x18", "an lz4 file: unlz4 it first"),
    SIGN(0, "\x02\x21\x4c\x18", "an lz4 file: unlz4 it first"),
    SIGN(0, "\x89LZO", "an lzop file: unpack it with lzop -d first"),
    SIGN(0, "\x5d\0\0", "an lzma file: unlzma it first"),
    SIGN(0, "PK\x03\x04", "a zip file: unzip it first"),
    SIGN(0, "070701", "an initrd (a cpio archive): give it with --initrd, beside a kernel"),
    SIGN(0, "#!", "a script"),
    SIGN(0, "QFI\xfb", "a QCOW2 disk image: give the kernel that is in it"),
    SIGN(0, "MZ", "an EFI program, and there is no firmware: give a kernel that is booted without"),
    SIGN(0x8001, "CD001", "an image of a CD (ISO 9660): give the kernel that is in it"),
    SIGN(257, "ustar", "a tar archive: unpack it first"),
    SIGN(512, "EFI PART", "a disk image: give the kernel that is in it"),
    SIGN(510, "\x55\xaa",
         "a boot sector or a disk image, which a BIOS would start, and there is none: give the kernel that "
         "is in it"),
};

/* Firmware ends where the processor begins after a reset: with a jump, 16 bytes before its end. */
static bool is_firmware(const struct boot_file *file)
{
    uint8_t jump = 0;

    return file->bytes >= 65536 && file->bytes % 65536 == 0 && boot_file_read(file, file->bytes - 16, &jump, 1) &&
           (jump == 0xea || jump == 0xe9 || jump == 0xeb);
}

const char *boot_kind_of_other(const struct boot_file *file)
{
    char bytes[16];

    if (file->bytes == 0) {
        return "an empty file";
    }
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (boot_file_read(file, signs[i].offset, bytes, signs[i].count) &&
            memcmp(bytes, signs[i].bytes, signs[i].count) == 0) {
            return signs[i].what;
        }
    }
    return is_firmware(file) ? "firmware (a BIOS image), and what is booted here is a kernel" : "something else";
}
