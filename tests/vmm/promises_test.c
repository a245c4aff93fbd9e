// SPDX-License-Identifier: Apache-2.0
/* What the self-test promises: each kind is there in full, or the host says why it cannot promise it. */
#include "vmm/promises.h"

#include "tests/support/heap.h"
#include "vmm/machine.h"

#include <criterion/criterion.h>
#include <string.h>

#define PAGE UINT64_C(4096)

static struct loam_memory *memory;
static struct promises promises;
static uint32_t carved_before, block_count_before;

/* --- Carving that fails when told to; linked with --wrap ---------------------------------------------------------- */

enum loam_error __real_loam_dma_alloc(struct loam_dma *dma, const struct loam_dma_request *request,
                                      struct loam_dma_buffer *buffer, struct loam_diag *diag);
enum loam_error __wrap_loam_dma_alloc(struct loam_dma *dma, const struct loam_dma_request *request,
                                      struct loam_dma_buffer *buffer, struct loam_diag *diag);

static uint32_t carve_call_count, carve_failing; /* fails the call of that number; 0: none */

enum loam_error __wrap_loam_dma_alloc(struct loam_dma *dma, const struct loam_dma_request *request,
                                      struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    if (++carve_call_count == carve_failing) {
        *buffer = (struct loam_dma_buffer){0};
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "no memory for the ledger");
    }
    return __real_loam_dma_alloc(dma, request, buffer, diag);
}

static void set_up(void)
{
    struct loam_memory_request request = {
        .bytes = 64 * LOAM_MIB, .low_limit_bytes = 32 * LOAM_MIB, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct loam_diag diag = {0};
    struct loam_plan plan;

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    carved_before = loam_dma_count(loam_memory_dma(memory));
    block_count_before = heap_block_count();
}

static void tear_down(void)
{
    loam_memory_destroy(memory);
}

TestSuite(promises, .init = set_up, .fini = tear_down);

static void make(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(promises_make(&promises, memory, &diag), LOAM_OK, "%s", diag.text);
}

/* Range number index of a kind. */
static struct loam_abi_range nth(uint32_t kind, uint32_t index)
{
    for (uint32_t i = 0; i < promises.listed.range_count; i++) {
        if (promises.listed.ranges[i].kind == kind && index-- == 0) {
            return promises.listed.ranges[i];
        }
    }
    cr_assert(false, "kind %u has no such range", kind);
    return (struct loam_abi_range){0};
}

static const void *hva_of(const struct loam_abi_range *range)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    void *hva;

    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){range->start}, range->bytes, LOAM_ACCESS_READ, &hva),
                 LOAM_OK);
    loam_gpa_map_release(loam_memory_map(memory), view);
    return hva;
}

static void check_pattern(const struct loam_abi_range *range)
{
    const uint64_t *words = hva_of(range);

    for (uint64_t i = 0; i < range->bytes / 8; i++) {
        cr_assert_eq(words[i], loam_abi_pattern(range->argument, range->start + 8 * i), "at GPA 0x%lx",
                     range->start + 8 * i);
    }
}

static void protect(uint64_t gpa, uint64_t bytes, enum loam_access access)
{
    cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){gpa}, bytes, access), LOAM_OK);
}

/* What is promised below 640 KiB, from 1 to 32 MiB, and from 4 GiB up, alike. */
Test(promises, patterns_and_echoes_lie_spread_over_each_range_of_ram)
{
    static const struct {
        uint64_t start, bytes;
    } ram[] = {{0, 640 * LOAM_KIB}, {LOAM_MIB, 31 * LOAM_MIB}, {4 * LOAM_GIB, 32 * LOAM_MIB}};
    static const uint64_t patterns[] = {2, 4, 6, 8}, echoes[] = {1, 5};

    make();
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_PATTERN), 12);
    cr_expect_eq(promises_bytes(&promises, LOAM_ABI_KIND_PATTERN), 12 * PAGE);
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_ECHO), 6);
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t k = 0; k < 4; k++) {
            struct loam_abi_range range = nth(LOAM_ABI_KIND_PATTERN, 4 * i + k);
            uint64_t end = ram[i].start + ram[i].bytes, expected = ram[i].start + ram[i].bytes / 8 * patterns[k];

            cr_expect_eq(range.start, expected == end ? end - PAGE : expected, "range %u, pattern %u", i, k);
            check_pattern(&range);
        }
        for (uint32_t k = 0; k < 2; k++) {
            struct loam_abi_range range = nth(LOAM_ABI_KIND_ECHO, 2 * i + k);

            cr_expect_eq(range.start, ram[i].start + ram[i].bytes / 8 * echoes[k]);
            cr_expect_eq(*(const uint64_t *)hva_of(&range), 0, "what the guest is to write is not there yet");
        }
    }
    promises_release(&promises);
}

Test(promises, no_two_ranges_have_the_same_seed)
{
    make();
    for (uint32_t i = 0; i < promises.listed.range_count; i++) {
        const struct loam_abi_range *one = &promises.listed.ranges[i];

        for (uint32_t j = 0; j < i; j++) {
            const struct loam_abi_range *other = &promises.listed.ranges[j];

            cr_expect(one->argument != other->argument || one->kind != other->kind || one->argument == 0);
        }
    }
    promises_release(&promises);
}

Test(promises, dma32_buffers_keep_to_their_constraints)
{
    static const struct {
        uint64_t bytes, align_bytes, boundary_bytes, end;
    } wanted[] = {
        {PAGE, PAGE, 4 * LOAM_GIB, 4 * LOAM_GIB},       {2 * PAGE, 2 * PAGE, 4 * LOAM_GIB, 4 * LOAM_GIB},
        {3 * PAGE, PAGE, 4 * PAGE, 4 * LOAM_GIB},       {16 * PAGE, 16 * PAGE, 16 * PAGE, 4 * LOAM_GIB},
        {PAGE, 128 * PAGE, 4 * LOAM_GIB, 4 * LOAM_GIB}, {4 * PAGE, PAGE, 4 * LOAM_GIB, 16 * LOAM_MIB},
    };

    make();
    cr_assert_eq(promises_count(&promises, LOAM_ABI_KIND_DMA32), 6);
    for (uint32_t i = 0; i < 6; i++) {
        struct loam_abi_range range = nth(LOAM_ABI_KIND_DMA32, i);

        cr_expect_eq(range.bytes, wanted[i].bytes, "buffer %u", i);
        cr_expect(loam_is_aligned(range.start, wanted[i].align_bytes), "buffer %u", i);
        cr_expect_eq(range.start / wanted[i].boundary_bytes, (range.start + range.bytes - 1) / wanted[i].boundary_bytes,
                     "buffer %u", i);
        cr_expect_leq(range.start + range.bytes, wanted[i].end, "buffer %u", i);
    }
    promises_release(&promises);
}

Test(promises, one_queue_with_its_buffer_and_its_device)
{
    struct loam_virtqueue_layout layout;

    make();
    cr_assert_eq(loam_virtqueue_get_layout(8, &layout), LOAM_OK);
    for (uint32_t kind = LOAM_ABI_KIND_DESCRIPTORS; kind <= LOAM_ABI_KIND_VIRTIO_RNG; kind++) {
        cr_expect_eq(promises_count(&promises, kind), 1, "kind %u", kind);
    }
    cr_expect_eq(nth(LOAM_ABI_KIND_DESCRIPTORS, 0).argument, 8, "the queue's size");
    cr_expect_eq(nth(LOAM_ABI_KIND_DESCRIPTORS, 0).bytes, 16 * 8);
    cr_expect_eq(nth(LOAM_ABI_KIND_AVAILABLE, 0).bytes, 6 + 2 * 8);
    cr_expect_eq(nth(LOAM_ABI_KIND_USED, 0).bytes, 6 + 8 * 8);
    cr_expect_eq(nth(LOAM_ABI_KIND_AVAILABLE, 0).start - nth(LOAM_ABI_KIND_DESCRIPTORS, 0).start,
                 layout.available_offset_bytes);
    cr_expect_eq(nth(LOAM_ABI_KIND_USED, 0).start - nth(LOAM_ABI_KIND_DESCRIPTORS, 0).start, layout.used_offset_bytes);
    cr_expect_lt(nth(LOAM_ABI_KIND_USED, 0).start, 4 * LOAM_GIB);
    cr_expect_eq(nth(LOAM_ABI_KIND_RING_DATA, 0).bytes, PAGE);
    cr_expect_lt(nth(LOAM_ABI_KIND_RING_DATA, 0).start, 4 * LOAM_GIB);
    cr_expect_eq(nth(LOAM_ABI_KIND_VIRTIO_RNG, 0).start, MACHINE_VIRTIO_BASE);
    cr_expect_eq(nth(LOAM_ABI_KIND_VIRTIO_RNG, 0).bytes, MACHINE_VIRTIO_BYTES);
    promises_release(&promises);
}

Test(promises, a_read_only_range_and_two_holes)
{
    struct loam_abi_range readonly, hole;
    struct loam_region region;
    const struct loam_gpa_view *view;

    make();
    view = loam_gpa_map_acquire(loam_memory_map(memory));
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_READONLY), 1);
    readonly = nth(LOAM_ABI_KIND_READONLY, 0);
    cr_expect_eq(readonly.bytes, 2 * PAGE);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){readonly.start}, &region), LOAM_OK);
    cr_expect_eq(region.access, LOAM_ACCESS_READ);
    cr_expect_eq(region.bytes, 2 * PAGE);
    check_pattern(&readonly);
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_HOLE), 2);
    for (uint32_t i = 0; i < 2; i++) {
        hole = nth(LOAM_ABI_KIND_HOLE, i);
        cr_expect_eq(hole.bytes, PAGE);
        cr_expect(loam_is_aligned(hole.start, PAGE));
        cr_expect(loam_gpa_view_find(view, (loam_gpa){hole.start}, &region) != LOAM_OK ||
                      region.type == LOAM_REGION_DEVICE,
                  "hole %u is memory", i);
    }
    cr_expect_eq(nth(LOAM_ABI_KIND_HOLE, 0).start, 32 * LOAM_MIB, "where low RAM ends");
    loam_gpa_map_release(loam_memory_map(memory), view);
    promises_release(&promises);
}

/* A page that another has is left out; the rest is promised. So is a page where the image of the guest will lie. */
Test(promises, a_page_that_is_taken_is_left_out)
{
    struct loam_dma_request taken = {.owner = "other", .bytes = PAGE, .flags = LOAM_DMA_AT, .at = {4 * LOAM_GIB}};
    struct loam_dma_buffer buffer;

    taken.at.value += 32 * LOAM_MIB / 8;
    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &taken, &buffer, NULL), LOAM_OK);
    /* RAM of one page at the first that the image may need, and of one at the first that it does not. */
    protect(LOAM_MIB + PAGE, LOAM_MIB / 2 - PAGE, LOAM_ACCESS_READ);
    protect(LOAM_MIB + LOAM_MIB / 2 + PAGE, LOAM_MIB / 2 - PAGE, LOAM_ACCESS_READ);
    make();
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_ECHO), 2 + 0 + 1 + 2 + 1);
    for (uint32_t i = 0; i < promises.listed.range_count; i++) {
        const struct loam_abi_range *range = &promises.listed.ranges[i];

        cr_expect_not(range->start >= LOAM_MIB && range->start < LOAM_MIB + LOAM_MIB / 2, "0x%lx", range->start);
    }
    promises_release(&promises);
}

/* --- What fails --------------------------------------------------------------------------------------------- */

static void check_nothing_is_left(void)
{
    struct loam_diag diag = {0};
    struct loam_region region;
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));

    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), carved_before);
    for (uint64_t gpa = 4 * LOAM_GIB; gpa < 4 * LOAM_GIB + 32 * LOAM_MIB; gpa += region.bytes) {
        cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){gpa}, &region), LOAM_OK);
        cr_expect_eq(region.access, LOAM_ACCESS_WRITE, "read-only at 0x%lx", region.start.value);
    }
    loam_gpa_map_release(loam_memory_map(memory), view);
    cr_expect_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
}

Test(promises, release_leaves_the_ledger_and_the_map_as_they_were)
{
    make();
    promises_release(&promises);
    check_nothing_is_left();
}

/* No promise is left out for want of memory: whichever carving fails, all fail, and nothing stays. */
Test(promises, without_memory_for_any_one_of_them_none_is_made)
{
    uint32_t call_count;

    carve_call_count = 0;
    make();
    call_count = carve_call_count;
    promises_release(&promises);
    cr_assert_geq(call_count, 12 + 6 + 6 + 2 + 1 + 1, "each buffer is carved");
    for (uint32_t failing = 1; failing <= call_count; failing++) {
        struct loam_diag diag = {0};
        uint32_t block_count = heap_block_count();

        carve_call_count = 0;
        carve_failing = failing;
        cr_expect_eq(promises_make(&promises, memory, &diag), LOAM_ERROR_SYSTEM, "carving %u", failing);
        carve_failing = 0;
        cr_expect_str_not_empty(diag.text);
        cr_expect_eq(heap_block_count(), block_count, "carving %u", failing);
        check_nothing_is_left();
    }
}

/* RAM in more ranges than there are buffers for: a page in each MiB is read-only. */
Test(promises, more_buffers_than_are_kept_is_an_error)
{
    struct loam_diag diag = {0};

    for (uint64_t i = 0; i < 12; i++) {
        protect(4 * LOAM_GIB + i * LOAM_MIB, PAGE, LOAM_ACCESS_READ);
    }
    cr_expect_eq(promises_make(&promises, memory, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_not_null(strstr(diag.text, "64 buffers are carved, and one more is needed"), "%s", diag.text);
    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), carved_before);
}

Test(promises, an_e820_map_that_is_too_long_is_an_error)
{
    struct loam_diag diag = {0};

    for (uint64_t i = 0; i < 16; i++) {
        protect(4 * LOAM_GIB + (2 * i + 1) * PAGE, PAGE, LOAM_ACCESS_READ);
    }
    cr_expect_eq(promises_make(&promises, memory, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_not_null(strstr(diag.text, "no E820 map"), "%s", diag.text);
}

/* Each kind of buffer below 4 GiB that finds no place there. */
Test(promises, memory_that_is_taken_is_an_error)
{
    struct loam_dma_request all = {.owner = "other", .bytes = PAGE, .limit = {LOAM_DMA32_END_BYTES}};
    uint64_t ids[8192], count = 0, released = 0;
    struct loam_diag diag = {0};
    struct loam_dma_buffer buffer;

    while (loam_dma_alloc(loam_memory_dma(memory), &all, &buffer, NULL) == LOAM_OK) {
        ids[count++] = buffer.id;
    }
    while (released < count && promises_make(&promises, memory, &diag) != LOAM_OK) {
        cr_assert_str_not_empty(diag.text);
        cr_assert_eq(loam_dma_count(loam_memory_dma(memory)), carved_before + count - released);
        cr_assert_eq(loam_dma_release(loam_memory_dma(memory), ids[released++]), LOAM_OK);
    }
    cr_expect_geq(released, 10, "one page after another, until there was room for all");
    cr_expect_lt(released, count);
    promises_release(&promises);
}

/* --- The table ---------------------------------------------------------------------------------------------- */

Test(promises, publish_lists_ram_and_what_the_guest_keeps_of_it)
{
    struct boot_state boot = {.image_start = {LOAM_MIB + 0x123}, .image_bytes = 0x2edd + 1};
    struct loam_diag diag = {0};
    struct loam_abi_range image, table;

    make();
    cr_assert_eq(promises_publish(&promises, &boot, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_RAM), 4, "the read-only range splits one of three");
    cr_expect_eq(promises_bytes(&promises, LOAM_ABI_KIND_RAM), 64 * LOAM_MIB - 384 * LOAM_KIB - 2 * PAGE);
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_KEPT), 2);
    image = nth(LOAM_ABI_KIND_KEPT, 0);
    table = nth(LOAM_ABI_KIND_KEPT, 1);
    cr_expect_eq(image.start, LOAM_MIB, "whole pages");
    cr_expect_eq(image.bytes, 4 * PAGE);
    cr_expect_eq(table.start, promises.table.gpa.value);
    cr_expect_eq(table.bytes, PAGE);
    cr_expect_lt(table.start, 4 * LOAM_GIB);
    cr_expect_eq(promises.listed.magic, LOAM_ABI_MAGIC);
    cr_expect_eq(promises.listed.version, LOAM_ABI_VERSION);
    cr_expect_eq(memcmp(promises.table.hva, &promises.listed, sizeof promises.listed), 0);
    promises_release(&promises);
}

Test(promises, publish_says_when_the_table_is_full)
{
    struct boot_state boot = {.image_start = {LOAM_MIB}, .image_bytes = PAGE};
    uint32_t made;

    make();
    made = promises.listed.range_count;
    for (uint32_t room = 0; room < 4 + 2; room++) {
        struct loam_diag diag = {0};

        promises.listed.range_count = LOAM_ABI_RANGE_MAX - room;
        cr_expect_eq(promises_publish(&promises, &boot, &diag), LOAM_ERROR_EXHAUSTED, "room for %u", room);
        cr_expect_not_null(strstr(diag.text, "the table holds 96 ranges, and one more is needed"), "%s", diag.text);
        cr_expect_eq(promises.listed.range_count, LOAM_ABI_RANGE_MAX);
    }
    promises.listed.range_count = made;
    promises_release(&promises);
}

Test(promises, publish_says_when_ram_is_in_too_many_pieces)
{
    struct boot_state boot = {.image_start = {LOAM_MIB}, .image_bytes = PAGE};
    struct loam_diag diag = {0};

    make();
    for (uint64_t i = 0; i < 16; i++) {
        protect(4 * LOAM_GIB + (2 * i + 1) * PAGE, PAGE, LOAM_ACCESS_READ);
    }
    cr_expect_eq(promises_publish(&promises, &boot, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_not_null(strstr(diag.text, "no E820 map"), "%s", diag.text);
    cr_expect_eq(promises_count(&promises, LOAM_ABI_KIND_RAM) + promises_count(&promises, LOAM_ABI_KIND_KEPT), 0);
    cr_expect_neq(promises.listed.magic, LOAM_ABI_MAGIC, "it is not handed over");
    promises_release(&promises);
}

Test(promises, kept_ranges_are_skipped_from_their_first_byte_to_their_last)
{
    promises.listed.range_count = 3;
    promises.listed.ranges[0] = (struct loam_abi_range){.start = 0, .bytes = 16 * PAGE, .kind = LOAM_ABI_KIND_RAM};
    promises.listed.ranges[1] = (struct loam_abi_range){.start = PAGE, .bytes = PAGE, .kind = LOAM_ABI_KIND_KEPT};
    promises.listed.ranges[2] = (struct loam_abi_range){.start = 5 * PAGE, .bytes = PAGE, .kind = LOAM_ABI_KIND_KEPT};
    cr_expect_eq(promises_skip_kept(&promises, PAGE - 1), PAGE - 1);
    cr_expect_eq(promises_skip_kept(&promises, PAGE), 2 * PAGE);
    cr_expect_eq(promises_skip_kept(&promises, 2 * PAGE - 1), 2 * PAGE);
    cr_expect_eq(promises_skip_kept(&promises, 2 * PAGE), 2 * PAGE);
    cr_expect_eq(promises_skip_kept(&promises, 5 * PAGE + 8), 6 * PAGE);
    cr_expect_eq(promises_find(&promises, LOAM_ABI_KIND_KEPT), &promises.listed.ranges[1]);
    cr_expect_null(promises_find(&promises, LOAM_ABI_KIND_HOLE));
}
