// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot.h"

#include "tests/vmm/boot_fixture.h"
#include "tests/vmm/elf_builder.h"

#include <criterion/criterion.h>
#include <string.h>

static void check_unknown(const void *bytes, size_t size, const char *expected)
{
    struct boot_file file = fixture_file(bytes, size, "what");
    enum boot_protocol protocol;
    struct loam_diag diag = {0};

    fixture_check_refusal(expected, boot_detect(&file, &protocol, &diag), &diag, expected);
    fixture_check_refusal(expected, boot_detect(&file, &protocol, &diag), &diag, "neither an ELF file");
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
    check_unknown("once upon a time", 16, "something else");
}

Test(boot, detect_knows_pvh)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_file file = {bytes, sizeof bytes, "good"};
    enum boot_protocol protocol = BOOT_LINUX;
    struct loam_diag diag = {0};

    elf_builder_good(bytes, true);
    cr_assert_eq(boot_detect(&file, &protocol, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(protocol, BOOT_PVH);
    bytes[ELF_GOOD_XEN_OFFSET + 8] = 0;
    fixture_check_refusal("no note", boot_detect(&file, &protocol, &diag), &diag, "PVH note");
}

Test(boot, detect_knows_linux_and_checks_it)
{
    uint8_t bytes[0x1000] = {0};
    struct boot_file file = {bytes, sizeof bytes, "bad"};
    enum boot_protocol protocol = BOOT_PVH;
    struct loam_diag diag = {0};

    memcpy(bytes + 0x202, "HdrS", 4);
    fixture_check_refusal("header", boot_detect(&file, &protocol, &diag), &diag, "version");
    cr_assert_eq(protocol, BOOT_LINUX);
}

Test(boot, load_refuses_an_unknown_file)
{
    struct loam_memory *memory = fixture_memory();
    struct boot_request request = {.kernel = {"MZ", 2, "what"}};

    fixture_refused_load(memory, &request, "MZ", "EFI");
    loam_memory_destroy(memory);
}
