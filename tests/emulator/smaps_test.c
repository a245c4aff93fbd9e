// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/smaps.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

static bool sum_text(const char *text, uint64_t start, uint64_t bytes, struct smaps *sum)
{
    FILE *file = fmemopen((char *)text, strlen(text), "r");
    bool is_read;

    cr_assert_not_null(file);
    is_read = smaps_sum(file, start, bytes, sum);
    fclose(file);
    return is_read;
}

static const char two[] = "10000000-10200000 rw-s 00000000 00:01 123    /memfd:loam (deleted)\n"
                          "Size:               2048 kB\n"
                          "KernelPageSize:     2048 kB\n"
                          "Rss:                   0 kB\n"
                          "Shared_Hugetlb:        0 kB\n"
                          "Private_Hugetlb:    2048 kB\n"
                          "Locked:                0 kB\n"
                          "VmFlags: rd wr sh\n"
                          "10200000-10400000 rw-p 00000000 00:00 0\n"
                          "Size:               2048 kB\n"
                          "KernelPageSize:        4 kB\n"
                          "Rss:                1024 kB\n"
                          "AnonHugePages:       512 kB\n"
                          "Locked:             1024 kB\n";

Test(smaps, figures_are_added_over_what_lies_within)
{
    struct smaps sum;

    cr_assert(sum_text(two, 0x10000000, 0x400000, &sum));
    cr_expect_eq(sum.mapped, 4096 * 1024);
    cr_expect_eq(sum.resident, (2048 + 1024) * 1024);
    cr_expect_eq(sum.resident_huge, (2048 + 512) * 1024);
    cr_expect_eq(sum.page, 2048 * 1024);
    cr_expect_eq(sum.locked, 1024 * 1024);
    cr_assert(sum_text(two, 0x10200000, 0x200000, &sum));
    cr_expect_eq(sum.mapped, 2048 * 1024);
    cr_expect_eq(sum.page, 4096);
    cr_assert(sum_text(two, 0x10200001, 0x200000, &sum));
    cr_expect_eq(sum.mapped, 0, "a mapping that begins before the range is none of its");
}

Test(smaps, what_makes_no_sense_is_passed_over)
{
    struct smaps sum;

    cr_assert(sum_text("nonsense\n-\nRss: 7 kB\n10-20\nRss: x kB\nSize:\n", 0, 4096, &sum));
    cr_expect_eq(sum.resident, 0);
    cr_expect_eq(sum.mapped, 0);
}

Test(smaps, a_range_of_ones_own_is_as_it_was_made)
{
    const size_t bytes = 64 * 4096;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct smaps sum;

    cr_assert_neq(memory, MAP_FAILED);
    memset(memory, 1, bytes / 2);
    cr_assert(smaps_of(memory, bytes, &sum));
    cr_expect_eq(sum.mapped, bytes);
    cr_expect_eq(sum.resident, bytes / 2);
    cr_expect_eq(sum.page, 4096);
    munmap(memory, bytes);
}
