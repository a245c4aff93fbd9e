// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_file.h"

#include <criterion/criterion.h>
#include <string.h>

Test(boot_file, reads_what_lies_within_the_file_and_nothing_else)
{
    static const struct {
        uint64_t offset;
        size_t bytes;
        bool is_there;
    } cases[] = {
        {0, 8, true},  {7, 1, true},  {8, 0, true},           {1, 8, false},
        {8, 1, false}, {9, 0, false}, {UINT64_MAX, 2, false}, {0, SIZE_MAX, false},
    };
    struct boot_file file = {"01234567", 8, "file"};

    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char target[9] = "........", expected[9] = "........";

        if (cases[i].is_there) {
            memcpy(expected, (const char *)file.data + cases[i].offset, cases[i].bytes);
        }
        cr_expect_eq(boot_file_read(&file, cases[i].offset, target, cases[i].bytes), cases[i].is_there, "case %u", i);
        cr_expect_str_eq(target, expected, "case %u", i);
    }
    file = (struct boot_file){NULL, 0, "file"};
    cr_expect(boot_file_read(&file, 0, NULL, 0));
}

/* What a file is called is the file's owner's to choose. */
Test(boot_file, refuses_in_one_line_whatever_the_name)
{
    static const struct {
        const char *name, *text;
    } cases[] = {
        {"my kernel", "kernel my kernel: 7 is wrong"},
        {"a\nb\x1b[2J\x7f", "kernel a?b?[2J?: 7 is wrong"},
        {NULL, "kernel (unnamed): 7 is wrong"},
    };

    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct boot_file file = {"", 0, cases[i].name};
        struct loam_diag diag = {0};

        cr_expect_eq(boot_file_refuse(&file, &diag, "%d is %s", 7, "wrong"), LOAM_ERROR_INVALID);
        cr_expect_eq(diag.error, LOAM_ERROR_INVALID);
        cr_expect_str_eq(diag.text, cases[i].text);
    }
}
