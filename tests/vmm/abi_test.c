// SPDX-License-Identifier: Apache-2.0
/* The contract between host and guest: where everything lies, and what the shared functions promise. */
#include "guest/abi.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <stddef.h>
#include <string.h>

#define SEED UINT64_C(0x10a3)

/* A guest that was built apart reads the same bytes. */
_Static_assert(offsetof(struct loam_abi_range, start) == 0, "");
_Static_assert(offsetof(struct loam_abi_range, bytes) == 8, "");
_Static_assert(offsetof(struct loam_abi_range, argument) == 16, "");
_Static_assert(offsetof(struct loam_abi_range, kind) == 24, "");
_Static_assert(offsetof(struct loam_abi_result, status) == 0, "");
_Static_assert(offsetof(struct loam_abi_result, item_count) == 8, "");
_Static_assert(offsetof(struct loam_abi_result, bytes) == 16, "");
_Static_assert(offsetof(struct loam_abi_result, error_count) == 24, "");
_Static_assert(offsetof(struct loam_abi_result, first_gpa) == 32, "");
_Static_assert(offsetof(struct loam_abi_result, first_expected) == 40, "");
_Static_assert(offsetof(struct loam_abi_result, first_found) == 48, "");
_Static_assert(offsetof(struct loam_abi_table, magic) == 0, "");
_Static_assert(offsetof(struct loam_abi_table, version) == 8, "");
_Static_assert(offsetof(struct loam_abi_table, range_count) == 12, "");
_Static_assert(offsetof(struct loam_abi_table, ranges) == 32, "");
_Static_assert(offsetof(struct loam_abi_table, results) == 32 + 96 * 32, "");
_Static_assert(sizeof(struct loam_abi_table) == 32 + 96 * 32 + 8 * 56, "");
_Static_assert(LOAM_ABI_CHECK_COUNT == 8 && LOAM_ABI_KIND_COUNT == 13, "a new one needs a new version");

Test(abi, magic_reads_as_text)
{
    const uint64_t magic = LOAM_ABI_MAGIC;

    cr_assert_eq(memcmp(&magic, "LOAMABI1", sizeof magic), 0);
}

Test(abi, order_names_each_check_once)
{
    static const uint32_t order[] = LOAM_ABI_ORDER;
    uint32_t seen = 0;

    cr_assert_eq(sizeof order / sizeof order[0], LOAM_ABI_CHECK_COUNT);
    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        seen |= UINT32_C(1) << order[i];
    }
    cr_assert_eq(seen, (UINT32_C(1) << LOAM_ABI_CHECK_COUNT) - 1);
}

static uint32_t place_of(uint32_t check)
{
    static const uint32_t order[] = LOAM_ABI_ORDER;
    uint32_t place = 0;

    while (order[place] != check) {
        place++;
    }
    return place;
}

Test(abi, what_overwrites_ram_comes_last)
{
    for (uint32_t check = 0; check < LOAM_ABI_CHECK_COUNT; check++) {
        if (check != LOAM_ABI_CHECK_RAM && check != LOAM_ABI_CHECK_ALIAS) {
            cr_assert_lt(place_of(check), place_of(LOAM_ABI_CHECK_RAM));
            cr_assert_lt(place_of(check), place_of(LOAM_ABI_CHECK_ALIAS));
        }
    }
}

Test(abi, ring_carries_event_and_check)
{
    for (uint32_t event = 0; event < LOAM_ABI_EVENT_COUNT; event++) {
        for (uint32_t check = 0; check < LOAM_ABI_CHECK_COUNT; check++) {
            uint32_t value = LOAM_ABI_RING(event, check);

            cr_assert_eq(value >> 8, event);
            cr_assert_eq(value & 0xff, check);
        }
    }
}

/* Naive: aligned, inside, ascending, and different wherever there is room for it. */
static void expect_probes(const struct loam_abi_range *range)
{
    for (uint32_t i = 0; i < LOAM_ABI_PROBE_COUNT; i++) {
        uint64_t gpa = loam_abi_probe(range, i);

        cr_assert_eq(gpa % 8, 0);
        cr_assert_geq(gpa, range->start);
        cr_assert_leq(gpa - range->start, range->bytes - 8, "probe %u of 0x%lx bytes", i, range->bytes);
        if (i > 0 && range->bytes >= 8 * LOAM_ABI_PROBE_COUNT) {
            cr_assert_gt(gpa, loam_abi_probe(range, i - 1));
        }
    }
}

Test(abi, probes_lie_in_their_range)
{
    struct random random = {SEED};

    for (uint64_t bytes = 8; bytes <= 4096; bytes += 8) {
        expect_probes(&(struct loam_abi_range){.start = 0x1000, .bytes = bytes});
    }
    for (uint32_t i = 0; i < 10000; i++) {
        uint64_t start = (random_u64(&random) >> 12) & ~UINT64_C(7),
                 bytes = (random_u64(&random) >> 14 | 8) & ~UINT64_C(7);

        expect_probes(&(struct loam_abi_range){.start = start, .bytes = bytes});
    }
}

/* The first outputs of splitmix64 seeded with 0, as published with it: the k-th is the pattern at gpa k. */
Test(abi, pattern_is_the_generator_that_it_says)
{
    static const uint64_t published[] = {UINT64_C(0xe220a8397b1dcdaf), UINT64_C(0x6e789e6aa1b965f4),
                                         UINT64_C(0x06c45d188009454f), UINT64_C(0xf88bb8a8724c81ec)};

    for (uint64_t i = 0; i < 4; i++) {
        cr_assert_eq(loam_abi_pattern(0, i + 1), published[i]);
    }
}

/* Undo the finaliser step by step: it can be undone, so no two words of a seed are alike. */
static uint64_t unshift(uint64_t value, unsigned shift)
{
    uint64_t x = value;

    for (unsigned known = shift; known < 64; known += shift) {
        x = value ^ x >> shift;
    }
    return x;
}

/* The inverse of an odd number modulo 2^64, by Newton: each step doubles the bits that are right. */
static uint64_t inverse(uint64_t odd)
{
    uint64_t x = odd;

    for (int i = 0; i < 6; i++) {
        x *= 2 - odd * x;
    }
    return x;
}

Test(abi, pattern_is_different_everywhere)
{
    struct random random = {SEED};

    for (uint32_t i = 0; i < 100000; i++) {
        uint64_t seed = random_u64(&random), gpa = (random_u64(&random) >> 12) & ~UINT64_C(7);
        uint64_t x = unshift(loam_abi_pattern(seed, gpa), 31);

        x = unshift(x * inverse(UINT64_C(0x94d049bb133111eb)), 27);
        x = unshift(x * inverse(UINT64_C(0xbf58476d1ce4e5b9)), 30);
        cr_assert_eq((x - seed) * inverse(UINT64_C(0x9e3779b97f4a7c15)), gpa);
    }
}

Test(abi, probe_value_is_no_likely_memory)
{
    cr_assert_neq(LOAM_ABI_PROBE_VALUE, 0);
    cr_assert_neq(LOAM_ABI_PROBE_VALUE, UINT64_MAX);
}
