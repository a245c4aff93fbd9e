// SPDX-License-Identifier: Apache-2.0
#include "allocator/host/host_size.h"

#include "loam/types.h"

#include <criterion/criterion.h>

Test(host_size, what_is_wanted_is_rounded_up_and_what_is_found_down)
{
    static const struct {
        uint64_t bytes;
        const char *down, *up, *exact;
    } sizes[] = {
        {0, "0 KiB", "0 KiB", "0 KiB"},
        {1, "0 KiB", "1 KiB", "1 bytes"},
        {LOAM_KIB, "1 KiB", "1 KiB", "1 KiB"},
        {LOAM_KIB + 1, "1 KiB", "2 KiB", "1025 bytes"},
        {LOAM_MIB - 1, "1023 KiB", "1024 KiB", "1048575 bytes"},
        {LOAM_MIB, "1 MiB", "1 MiB", "1 MiB"},
        {LOAM_MIB + LOAM_KIB, "1 MiB", "2 MiB", "1025 KiB"},
        {LOAM_GIB - LOAM_MIB, "1023 MiB", "1023 MiB", "1023 MiB"},
        {LOAM_GIB, "1 GiB", "1 GiB", "1 GiB"},
        {LOAM_GIB + LOAM_MIB, "1025 MiB", "1025 MiB", "1025 MiB"},
        {UINT64_MAX, "17592186044415 MiB", "17592186044416 MiB", "18446744073709551615 bytes"},
    };

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        cr_expect_str_eq(loam_host_size(sizes[i].bytes, false).text, sizes[i].down);
        cr_expect_str_eq(loam_host_size(sizes[i].bytes, true).text, sizes[i].up);
        cr_expect_str_eq(loam_host_size_exact(sizes[i].bytes).text, sizes[i].exact);
    }
}
