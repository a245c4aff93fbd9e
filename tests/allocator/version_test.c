// SPDX-License-Identifier: Apache-2.0
#include "loam/version.h"

#include <criterion/criterion.h>
#include <stdio.h>

Test(version, text_and_numbers_say_the_same)
{
    char text[32];

    snprintf(text, sizeof text, "%d.%d.%d", LOAM_VERSION_MAJOR, LOAM_VERSION_MINOR, LOAM_VERSION_PATCH);
    cr_expect_str_eq(text, LOAM_VERSION);
    cr_expect_str_eq(loam_version(), LOAM_VERSION);
}
