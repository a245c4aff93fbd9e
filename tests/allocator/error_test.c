// SPDX-License-Identifier: Apache-2.0
#include "loam/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(error, every_error_has_a_name_of_its_own)
{
    for (int i = 0; i < LOAM_ERROR_COUNT; i++) {
        cr_assert_str_neq(loam_error_name((enum loam_error)i), "unknown", "error %d", i);
        for (int j = 0; j < i; j++) {
            cr_assert_str_neq(loam_error_name((enum loam_error)i), loam_error_name((enum loam_error)j));
        }
    }
}

Test(error, a_value_that_is_no_error_is_unknown)
{
    cr_assert_str_eq(loam_error_name(LOAM_ERROR_COUNT), "unknown");
    cr_assert_str_eq(loam_error_name((enum loam_error) - 1), "unknown");
}

Test(error, a_failure_is_written_and_handed_on)
{
    struct loam_diag diag = {0};

    errno = EBUSY;
    cr_assert_eq(loam_fail(&diag, LOAM_ERROR_OVERLAP, "range %d of %s", 3, "seven"), LOAM_ERROR_OVERLAP);
    cr_assert_eq(diag.error, LOAM_ERROR_OVERLAP);
    cr_assert_eq(diag.system_errno, 0, "errno belongs to no call here");
    cr_assert_str_eq(diag.text, "range 3 of seven");
}

Test(error, a_failed_call_brings_its_errno_and_text)
{
    struct loam_diag diag = {0};
    char expected[128] = "mmap: ";

    strcat(expected, strerror(ENOMEM));
    errno = ENOMEM;
    cr_assert_eq(loam_fail(&diag, LOAM_ERROR_SYSTEM, "mmap"), LOAM_ERROR_SYSTEM);
    cr_assert_eq(diag.system_errno, ENOMEM);
    cr_assert_str_eq(diag.text, expected);
}

Test(error, without_diag_only_the_error_is_handed_on)
{
    errno = ENOMEM;
    cr_assert_eq(loam_fail(NULL, LOAM_ERROR_SYSTEM, "%s", "nobody reads this"), LOAM_ERROR_SYSTEM);
}

/* The bytes around the text are checked too: nothing may be written beyond it. */
Test(error, a_line_too_long_is_cut)
{
    struct {
        struct loam_diag diag;
        char after[16];
    } space = {0};
    char line[2 * sizeof space.diag.text];

    for (size_t length = sizeof space.diag.text - 4; length < sizeof space.diag.text + 4; length++) {
        memset(line, 'x', sizeof line);
        line[length] = '\0';
        memset(space.after, 0x5a, sizeof space.after);
        errno = EIO;
        cr_assert_eq(loam_fail(&space.diag, LOAM_ERROR_SYSTEM, "%s", line), LOAM_ERROR_SYSTEM);
        cr_assert_eq(strlen(space.diag.text), sizeof space.diag.text - 1, "length %zu", length);
        cr_assert_eq(memcmp(space.diag.text, line, sizeof space.diag.text - 4), 0);
        cr_assert_eq(space.after[0], 0x5a);
    }
}
