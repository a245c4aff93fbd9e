// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot.h"

#include "tests/vmm/boot_fixture.h"
#include "tests/vmm/elf_builder.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <stddef.h>
#include <string.h>

static void check_unknown(const void *bytes, size_t size, const char *expected)
{
    struct boot_file file = fixture_file(bytes, size, "what");
    struct boot_way way;
    struct loam_diag diag = {0};

    fixture_check_refusal(expected, boot_detect(&file, &way, &diag), &diag, expected);
    fixture_check_refusal(expected, boot_detect(&file, &way, &diag), &diag, "neither an ELF file");
    fixture_file_free(&file);
}

Test(boot, detect_says_what_an_unknown_file_is)
{
    check_unknown("", 0, "an empty file");
    check_unknown("\x7f", 1, "1 bytes");
    check_unknown("\x7f"
                  "EL",
                  3, "7f 45 4c 00");
    check_unknown("\x1f\x8b\x08", 3, "gzip");
    check_unknown("\xfd"
                  "7zXZ\0",
                  6, "xz");
    check_unknown("\x28\xb5\x2f\xfd", 4, "zstd");
    check_unknown("MZ", 2, "EFI");
    check_unknown("#!/bin/sh\n", 10, "script");
    check_unknown("QFI\xfb", 4, "QCOW2");
    check_unknown("BZh9", 4, "bunzip2");
    check_unknown("\x04\x22\x4d\x18", 4, "unlz4");
    check_unknown("\x02\x21\x4c\x18", 4, "unlz4");
    check_unknown("070701", 6, "--initrd");
    check_unknown("PK\x03\x04", 4, "unzip");
    check_unknown("once upon a time", 16, "something else");
}

Test(boot, detect_knows_disks_and_firmware)
{
    static uint8_t bytes[65536];

    bytes[510] = 0x55;
    bytes[511] = 0xaa;
    check_unknown(bytes, 512, "a boot sector or a disk image");
    memcpy(bytes + 512, "EFI PART", 8);
    check_unknown(bytes, 1024, "a disk image: give the kernel");
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes + 0x8001, "CD001", 5);
    check_unknown(bytes, 40000, "ISO 9660");
    memset(bytes, 0, sizeof bytes);
    bytes[sizeof bytes - 16] = 0xea;
    check_unknown(bytes, sizeof bytes, "firmware");
    check_unknown(bytes, sizeof bytes - 1, "something else");
}

/* What else an ELF file may be, where its note is none. */
static void check_elf(bool is_64, const void *bytes, size_t count, size_t offset, const char *expected)
{
    uint8_t file_bytes[ELF_GOOD_BYTES];
    struct boot_file file = {file_bytes, sizeof file_bytes, "kernel"};
    struct boot_way way;
    struct loam_diag diag = {0};
    enum loam_error error;

    elf_builder_good(file_bytes, is_64);
    file_bytes[ELF_GOOD_XEN_OFFSET + 8] = 0;
    memcpy(file_bytes + offset, bytes, count);
    error = boot_detect(&file, &way, &diag);
    if (error == LOAM_OK) {
        cr_expect_str_eq(way.text, expected);
    } else {
        cr_expect_not_null(strstr(diag.text, expected), "%s: %s", expected, diag.text);
    }
}

Test(boot, detect_knows_the_other_kinds_of_elf)
{
    static const char header[] = "\x02\xb0\xad\x1b\x03\x00\x00\x00\xfb\x4f\x52\xe4";
    static const char header_2[] = "\xd6\x50\x52\xe8\0\0\0\0\x18\0\0\0\x12\xaf\xad\x17";
    static const uint32_t entry = ELF_GOOD_TEXT;

    check_elf(true, "", 0, 0x300, "and e_entry is 0");
    check_elf(true, &entry, sizeof entry, offsetof(Elf64_Ehdr, e_entry), "ELF64, 64-bit Linux entry");
    check_elf(false, &entry, sizeof entry, offsetof(Elf32_Ehdr, e_entry), "nothing says how 32-bit code is entered");
    check_elf(false, "Linux version 5.10", 18, 0x300, "give its bzImage");
    check_elf(true, header_2, 16, 0x208, "multiboot2");
    check_elf(true, header_2, 16, 0x204, "and e_entry is 0");
    check_elf(true, "Solo5", 6, 0x300, "it is a unikernel of Solo5");
    check_elf(true, header, 12, 0x204, "multiboot entry: 0x0 lies in no segment");
    check_elf(true, header, 12, 0x206, "and e_entry is 0");
}

Test(boot, detect_knows_multiboot)
{
    static const uint32_t header[] = {0x1badb002, 0x3, (uint32_t) - (0x1badb002 + 0x3)};
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_file file = {bytes, sizeof bytes, "good"};
    struct boot_way way;
    struct loam_diag diag = {0};

    elf_builder_good(bytes, false);
    bytes[ELF_GOOD_XEN_OFFSET + 8] = 0;
    fixture_poke(bytes, &(struct fixture_poke){offsetof(Elf32_Ehdr, e_entry), 4, ELF_GOOD_TEXT});
    memcpy(bytes + ELF_GOOD_TEXT_OFFSET, header, sizeof header);
    cr_assert_eq(boot_detect(&file, &way, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(way.protocol, BOOT_MULTIBOOT);
    cr_expect_str_eq(way.text, "multiboot, ELF32");
}

Test(boot, detect_knows_pvh)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_file file = {bytes, sizeof bytes, "good"};
    struct boot_way way;
    struct loam_diag diag = {0};

    elf_builder_good(bytes, true);
    cr_assert_eq(boot_detect(&file, &way, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(way.protocol, BOOT_PVH);
    bytes[ELF_GOOD_XEN_OFFSET + 8] = 0;
    fixture_check_refusal("no note", boot_detect(&file, &way, &diag), &diag, "PVH note");
}

Test(boot, detect_knows_linux_and_checks_it)
{
    uint8_t bytes[0x1000] = {0};
    struct boot_file file = {bytes, sizeof bytes, "bad"};
    struct boot_way way;
    struct loam_diag diag = {0};

    memcpy(bytes + 0x202, "HdrS", 4);
    fixture_check_refusal("header", boot_detect(&file, &way, &diag), &diag, "version");
}

Test(boot, load_refuses_an_unknown_file)
{
    struct loam_memory *memory = fixture_memory();
    struct boot_request request = {.kernel = {"MZ", 2, "what"}};

    fixture_refused_load(memory, &request, "MZ", "EFI");
    loam_memory_destroy(memory);
}
