// SPDX-License-Identifier: Apache-2.0
/* What loaders carve: the highest place that fits, one way back, and advice that helps. */
#include "vmm/boot_memory.h"

#include "tests/support/heap.h"
#include "tests/vmm/boot_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PAGE UINT64_C(4096)

static struct loam_memory *memory;
static struct boot_memory carved;
static struct loam_dma_buffer buffer;
static uint32_t count_before;

static void set_up(void)
{
    memory = fixture_memory();
    count_before = loam_dma_count(loam_memory_dma(memory));
    memset(&carved, 0xff, sizeof carved);
    boot_memory_begin(&carved, memory);
}

static void tear_down(void)
{
    loam_memory_destroy(memory);
}

TestSuite(boot_memory, .init = set_up, .fini = tear_down);

/* Another owner's buffer, which no undo releases. */
static void take(uint64_t gpa, uint64_t bytes)
{
    struct loam_dma_request request = {
        .owner = "other", .bytes = bytes, .flags = LOAM_DMA_AT | LOAM_DMA_NO_ZERO, .at = {gpa}};
    struct loam_dma_buffer taken;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &taken, &diag), LOAM_OK, "%s", diag.text);
    count_before++;
}

static enum loam_error carve_at(uint64_t gpa, uint64_t bytes, struct loam_diag *diag)
{
    struct loam_dma_request request = {.owner = "part", .bytes = bytes, .flags = LOAM_DMA_AT, .at = {gpa}};

    memset(&buffer, 0xff, sizeof buffer);
    return boot_memory_carve(&carved, &request, &buffer, diag);
}

/* Where it was put; UINT64_MAX where it was refused. */
static uint64_t carve_high(uint64_t bytes, uint64_t align_bytes, uint64_t limit, struct loam_diag *diag)
{
    struct loam_dma_request request = {
        .owner = "part", .bytes = bytes, .align_bytes = align_bytes, .limit = {limit}, .flags = LOAM_DMA_NO_ZERO};

    memset(&buffer, 0xff, sizeof buffer);
    return boot_memory_carve_high(&carved, &request, &buffer, diag) == LOAM_OK ? buffer.gpa.value : UINT64_MAX;
}

static void check_nothing_is_left(void)
{
    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), count_before);
    cr_expect_null(buffer.hva);
    cr_expect_eq(buffer.bytes + buffer.id + buffer.gpa.value, 0);
}

/* --- Fixed places ----------------------------------------------------------------------------------------------- */

Test(boot_memory, undo_releases_what_was_carved_and_nothing_else)
{
    take(2 * LOAM_MIB, PAGE);
    for (uint32_t i = 0; i < BOOT_MEMORY_BUFFER_MAX; i++) {
        cr_assert_eq(carve_at(4 * LOAM_MIB + i * PAGE, PAGE, NULL), LOAM_OK);
        cr_assert_eq(buffer.gpa.value, 4 * LOAM_MIB + i * PAGE);
    }
    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), count_before + BOOT_MEMORY_BUFFER_MAX);
    boot_memory_undo(&carved);
    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), count_before);
    cr_expect_eq(fixture_owned(memory, "other"), 1);
    cr_assert_eq(carve_at(4 * LOAM_MIB, PAGE, NULL), LOAM_OK, "it may begin again");
}

Test(boot_memory, more_ranges_than_a_load_may_have_are_refused)
{
    struct loam_diag diag = {0};

    for (uint32_t i = 0; i < BOOT_MEMORY_BUFFER_MAX; i++) {
        cr_assert_eq(carve_at(4 * LOAM_MIB + i * PAGE, PAGE, NULL), LOAM_OK);
    }
    cr_expect_eq(carve_at(8 * LOAM_MIB, PAGE, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_str_eq(diag.text, "part: more than 136 separate ranges of guest memory wanted");
    diag = (struct loam_diag){0};
    cr_expect_eq(carve_high(PAGE, 0, 8 * LOAM_MIB, &diag), UINT64_MAX);
    cr_expect_str_eq(diag.text, "part: more than 136 separate ranges of guest memory wanted");
    boot_memory_undo(&carved);
    check_nothing_is_left();
}

Test(boot_memory, says_why_a_fixed_range_cannot_be_had)
{
    static const struct {
        uint64_t start, bytes;
        enum loam_error error;
        const char *text;
    } cases[] = {
        {8 * LOAM_MIB - PAGE, 2 * PAGE, LOAM_ERROR_EXHAUSTED,
         "part: guest memory [0x7ff000, 0x801000) wanted, but it cannot be had: "},
        {12 * LOAM_MIB, PAGE, LOAM_ERROR_INVALID,
         "part: guest memory [0xc00000, 0xc01000) wanted, but it cannot be had: "},
        {24 * LOAM_MIB - PAGE, 2 * PAGE, LOAM_ERROR_INVALID,
         "part: guest memory [0x17ff000, 0x1801000) wanted, and not all of that is RAM: RAM below 4 GiB ends at 24 "
         "MiB: "
         "raise --low-limit to 25M"},
    };

    take(8 * LOAM_MIB, PAGE);
    cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){12 * LOAM_MIB}, PAGE, LOAM_ACCESS_READ),
                 LOAM_OK);
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_diag diag = {0};

        cr_expect_eq(carve_at(cases[i].start, cases[i].bytes, &diag), cases[i].error, "case %u", i);
        cr_expect_eq(strncmp(diag.text, cases[i].text, strlen(cases[i].text)), 0, "%s", diag.text);
        cr_expect_eq(diag.error, cases[i].error);
        cr_expect_gt(strlen(diag.text), strlen(cases[i].text) - (i == 2), "and the ledger's own reason");
        check_nothing_is_left();
    }
}

Test(boot_memory, says_why_any_place_at_all_cannot_be_had)
{
    struct loam_dma_request request = {.owner = "part", .bytes = 64 * LOAM_MIB, .flags = LOAM_DMA_NO_ZERO};
    const char *expected = "part: 67108864 bytes of guest memory wanted: ";
    struct loam_diag diag = {0};

    memset(&buffer, 0xff, sizeof buffer);
    cr_expect_eq(boot_memory_carve(&carved, &request, &buffer, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(strncmp(diag.text, expected, strlen(expected)), 0, "%s", diag.text);
    cr_expect_gt(strlen(diag.text), strlen(expected));
    check_nothing_is_left();
}

Test(boot_memory, an_error_of_the_host_is_handed_on_as_it_is)
{
    struct loam_diag diag = {0};

    for (uint32_t with_diag = 0; with_diag < 2; with_diag++) {
        heap_fail(1);
        cr_expect_eq(carve_at(8 * LOAM_MIB, PAGE, with_diag ? &diag : NULL), LOAM_ERROR_SYSTEM);
        heap_fail(0);
        check_nothing_is_left();
    }
    cr_expect_eq(diag.error, LOAM_ERROR_SYSTEM);
    cr_expect_eq(diag.system_errno, ENOMEM);
    cr_expect_null(strstr(diag.text, "guest memory ["), "%s", diag.text);
}

/* --- As high as may be ------------------------------------------------------------------------------------------ */

Test(boot_memory, the_highest_place_below_the_limit_is_taken)
{
    cr_expect_eq(carve_high(1, 0, 4 * LOAM_GIB, NULL), 24 * LOAM_MIB - PAGE);
    cr_expect_eq(carve_high(PAGE, 0, 24 * LOAM_MIB, NULL), 24 * LOAM_MIB - 2 * PAGE, "below the one before");
    cr_expect_eq(carve_high(PAGE + 1, 0, 16 * LOAM_MIB + 4095, NULL), 16 * LOAM_MIB - 2 * PAGE);
    cr_expect_eq(carve_high(PAGE, LOAM_MIB, 16 * LOAM_MIB, NULL), 15 * LOAM_MIB);
    cr_expect_eq(carve_high(PAGE, 1, 16 * LOAM_MIB, NULL), 16 * LOAM_MIB - 3 * PAGE);
    cr_expect_eq(carve_high(LOAM_MIB, 0, 4 * LOAM_GIB + 2 * LOAM_MIB, NULL), 4 * LOAM_GIB + LOAM_MIB);
    cr_expect_eq(carve_high(PAGE, 0, LOAM_MIB + PAGE, NULL), LOAM_MIB);
}

/* Free: [1, 4) MiB, [5, 6) MiB, [7, 8) MiB, and what is above the limit. */
Test(boot_memory, a_range_between_two_others_is_used_to_its_last_page)
{
    take(4 * LOAM_MIB, LOAM_MIB);
    take(6 * LOAM_MIB, LOAM_MIB);
    cr_expect_eq(carve_high(LOAM_MIB, 2 * LOAM_MIB, 8 * LOAM_MIB, NULL), 2 * LOAM_MIB, "the others hold no multiple");
    boot_memory_undo(&carved);
    cr_expect_eq(carve_high(LOAM_MIB, 0, 8 * LOAM_MIB, NULL), 7 * LOAM_MIB, "all of it");
    cr_expect_eq(carve_high(LOAM_MIB + 1, 0, 8 * LOAM_MIB, NULL), 3 * LOAM_MIB - PAGE, "a page more than the next has");
    cr_expect_eq(carve_high(LOAM_MIB, 2 * LOAM_MIB, 8 * LOAM_MIB, NULL), UINT64_MAX,
                 "what is left is at no multiple of 2 MiB, but 1 MiB below it");
}

Test(boot_memory, low_memory_is_taken_when_there_is_no_other)
{
    take(LOAM_MIB, 23 * LOAM_MIB);
    cr_expect_lt(carve_high(PAGE, 0, 24 * LOAM_MIB, NULL), 640 * LOAM_KIB);
}

Test(boot_memory, zeroes_what_it_carves_high_unless_told_not_to)
{
    struct loam_dma_request request = {.owner = "part", .bytes = PAGE, .limit = {8 * LOAM_MIB}};

    memset(fixture_hva(memory, 8 * LOAM_MIB - PAGE, PAGE), 0x77, PAGE);
    request.flags = LOAM_DMA_NO_ZERO;
    cr_assert_eq(boot_memory_carve_high(&carved, &request, &buffer, NULL), LOAM_OK);
    cr_expect_eq(*(uint8_t *)buffer.hva, 0x77);
    boot_memory_undo(&carved);
    request.flags = 0;
    cr_assert_eq(boot_memory_carve_high(&carved, &request, &buffer, NULL), LOAM_OK);
    cr_expect_eq(*(uint8_t *)buffer.hva, 0);
}

Test(boot_memory, says_the_largest_free_range_where_nothing_fits)
{
    struct loam_diag diag = {0};

    take(12 * LOAM_MIB, PAGE);
    cr_expect_eq(carve_high(20 * LOAM_MIB + 1, 0, 24 * LOAM_MIB, &diag), UINT64_MAX);
    cr_expect_str_eq(diag.text, "part: 20481 KiB of guest memory wanted below 0x1800000, and the largest free range "
                                "there has 12284 KiB: RAM below 4 GiB ends at 24 MiB: raise --low-limit to 34M, and "
                                "--memory to as much");
    check_nothing_is_left();
}

Test(boot_memory, says_that_nothing_at_all_is_free)
{
    struct loam_diag diag = {0};

    take(LOAM_MIB, 23 * LOAM_MIB);
    while (loam_dma_alloc(loam_memory_dma(memory),
                          &(struct loam_dma_request){.owner = "other", .bytes = PAGE, .limit = {24 * LOAM_MIB}},
                          &buffer, NULL) == LOAM_OK) {
        count_before++;
    }
    cr_expect_eq(carve_high(PAGE, 0, 24 * LOAM_MIB, &diag), UINT64_MAX);
    cr_expect_not_null(strstr(diag.text, "the largest free range there has 0 KiB: "), "%s", diag.text);
    check_nothing_is_left();
}

/* --- Advice ----------------------------------------------------------------------------------------------------- */

static void check_advice(struct loam_memory *of, uint64_t end, const char *expected)
{
    struct boot_memory_advice advice;

    boot_memory_advise(of, end, &advice);
    cr_expect_str_eq(advice.text, expected, "end 0x%" PRIx64 ": %s", end, advice.text);
}

Test(boot_memory, advises_what_to_raise_and_to_what)
{
    static const char more[] = "give the guest more memory";
    static const char hole[] = "from 3 to 4 GiB devices have their addresses, and there is no RAM";

    check_advice(memory, 24 * LOAM_MIB, more);
    check_advice(memory, 24 * LOAM_MIB + 1, "RAM below 4 GiB ends at 24 MiB: raise --low-limit to 25M");
    check_advice(memory, 25 * LOAM_MIB, "RAM below 4 GiB ends at 24 MiB: raise --low-limit to 25M");
    check_advice(memory, 32 * LOAM_MIB, "RAM below 4 GiB ends at 24 MiB: raise --low-limit to 32M");
    check_advice(memory, 32 * LOAM_MIB + 1,
                 "RAM below 4 GiB ends at 24 MiB: raise --low-limit to 33M, and --memory to as much");
    check_advice(memory, 3 * LOAM_GIB,
                 "RAM below 4 GiB ends at 24 MiB: raise --low-limit to 3072M, and --memory to as much");
    check_advice(memory, 3 * LOAM_GIB + 1, hole);
    check_advice(memory, 4 * LOAM_GIB, hole);
    check_advice(memory, 4 * LOAM_GIB + 1, more);
}

Test(boot_memory, advises_more_memory_where_only_that_is_missing)
{
    struct loam_memory_request request = {.bytes = 16 * LOAM_MIB, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct loam_memory *small;
    struct loam_plan plan;

    cr_assert_eq(loam_plan_make(&request, &plan, NULL), LOAM_OK);
    cr_assert_eq(loam_memory_create(&plan, &small, NULL), LOAM_OK);
    check_advice(small, 16 * LOAM_MIB, "give the guest more memory");
    check_advice(small, 16 * LOAM_MIB + 1, "the guest has 16 MiB: raise --memory to 17M");
    check_advice(small, 3 * LOAM_GIB, "the guest has 16 MiB: raise --memory to 3072M");
    check_advice(small, 4 * LOAM_GIB + 1, "give the guest more memory");
    loam_memory_destroy(small);
}

/* --- What both loaders place ------------------------------------------------------------------------------------ */

Test(boot_memory, an_initrd_is_copied_and_its_last_page_is_filled_with_zeros)
{
    static uint8_t contents[PAGE + 5];
    struct boot_file file = {contents, sizeof contents, "initrd"};
    struct loam_diag diag = {0};
    const uint8_t *there;
    loam_gpa start;

    for (uint32_t i = 0; i < sizeof contents; i++) {
        contents[i] = fixture_byte(i);
    }
    memset(fixture_hva(memory, 8 * LOAM_MIB - 2 * PAGE, 4 * PAGE), 0x77, 4 * PAGE);
    cr_assert_eq(boot_memory_load_initrd(&carved, &file, (loam_gpa){8 * LOAM_MIB}, &start, &diag), LOAM_OK, "%s",
                 diag.text);
    cr_expect_eq(start.value, 8 * LOAM_MIB - 2 * PAGE);
    there = fixture_hva(memory, start.value, 2 * PAGE);
    cr_expect_arr_eq(there, contents, sizeof contents);
    for (uint32_t i = sizeof contents; i < 2 * PAGE; i++) {
        cr_assert_eq(there[i], 0, "byte %u", i);
    }
    cr_expect_eq(*(const uint8_t *)fixture_hva(memory, 8 * LOAM_MIB, 1), 0x77, "what follows is another's");
    cr_expect_eq(fixture_owned(memory, "initrd"), 1);
}

Test(boot_memory, an_initrd_that_is_empty_or_too_large_is_refused)
{
    static uint8_t contents[2 * LOAM_MIB];
    struct boot_file file = {contents, 0, "initrd"};
    struct loam_diag diag = {0};
    loam_gpa start = {1};

    buffer = (struct loam_dma_buffer){0};
    cr_expect_eq(boot_memory_load_initrd(&carved, &file, (loam_gpa){8 * LOAM_MIB}, &start, &diag), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "initrd: the file is empty: give one with contents, or none");
    cr_expect_eq(start.value, 0);
    start.value = 1;
    file.bytes = sizeof contents;
    cr_expect_eq(boot_memory_load_initrd(&carved, &file, (loam_gpa){2 * LOAM_MIB}, &start, &diag),
                 LOAM_ERROR_EXHAUSTED);
    cr_expect_not_null(strstr(diag.text, ", or give a smaller initrd"), "%s", diag.text);
    cr_expect_eq(start.value, 0);
    check_nothing_is_left();
}

/* A row more for each page that becomes read-only; and a view that stayed held would soon keep the map from that. */
Test(boot_memory, the_e820_map_is_handed_on_whole)
{
    struct loam_e820_entry entries[BOOT_MEMORY_E820_MAX];
    uint32_t count, first_count;

    cr_assert_eq(boot_memory_e820(&carved, entries, &first_count, NULL), LOAM_OK);
    for (uint32_t i = 1; i <= 16; i++) {
        cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){4 * LOAM_GIB + 2 * i * PAGE}, PAGE,
                                          LOAM_ACCESS_READ),
                     LOAM_OK);
        cr_assert_eq(boot_memory_e820(&carved, entries, &count, NULL), LOAM_OK);
        cr_expect_eq(count, first_count + 2 * i);
        cr_expect_eq(entries[count - 1].start, 4 * LOAM_GIB + (2 * i + 1) * PAGE);
        cr_expect_eq(entries[count - 1].start + entries[count - 1].bytes, 4 * LOAM_GIB + 8 * LOAM_MIB);
    }
}
