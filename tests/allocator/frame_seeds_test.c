// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator against the two versions of the module that it was built after: one test for each function there,
 * under that function's name, on what the function is for. allocator/README.md has the table, with each difference and
 * its reason.
 */
#include "loam/frame.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define DMA32_END (UINT64_C(1) << 20) /* in frames of 4 KiB */

static loam_pfn pfn(uint64_t value)
{
    return loam_pfn_from_u64(value);
}

/* Memory that a test leaves behind is freed after it. */
static void *kept[128];
static size_t kept_count;

static void *keep_aligned(size_t align, size_t bytes)
{
    void *memory = aligned_alloc(align, bytes);

    cr_assert_not_null(memory);
    cr_assert_lt(kept_count, sizeof kept / sizeof kept[0]);
    kept[kept_count++] = memory;
    return memory;
}

static void free_kept(void)
{
    while (kept_count > 0) {
        free(kept[--kept_count]);
    }
}

TestSuite(frame_seeds, .fini = free_kept);

static struct loam_frame *make(void)
{
    size_t bytes = loam_frame_bytes(NULL);
    struct loam_frame *frame;

    cr_assert_eq(loam_frame_init(keep_aligned(64, (bytes + 63) / 64 * 64), bytes, NULL, &frame), LOAM_OK);
    return frame;
}

static enum loam_error try_add(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    size_t bytes = loam_frame_section_bytes(frame, pfn(start), count);

    return loam_frame_section_add(frame, pfn(start), count, keep_aligned(64, (bytes + 63) / 64 * 64), bytes, NULL);
}

static struct loam_frame *make_with(uint64_t start, uint64_t count)
{
    struct loam_frame *frame = make();

    cr_assert_eq(try_add(frame, start, count), LOAM_OK);
    return frame;
}

static enum loam_error alloc(struct loam_frame *frame, uint64_t count, uint64_t align, uint64_t limit, uint64_t *start)
{
    struct loam_frame_request request = {.count_frames = count, .align_frames = align, .limit = {limit}};
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(frame, &request, &block);

    *start = block.start.value;
    return error;
}

static uint64_t free_frames(const struct loam_frame *frame)
{
    return loam_frame_get_stats(frame).free_frames;
}

static void assert_valid(const struct loam_frame *frame)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_frame_validate(frame, &diag), LOAM_OK, "%s", diag.text);
}

/* --- Size and layout of metadata ------------------------------------------------------------------------------- */

Test(frame_seeds, required_meta_size)
{
    struct loam_frame *frame = make();

    /* 160 bytes a chunk of 512 frames, where the seeds take 12 bytes a frame; ragged ends count as chunks. */
    cr_assert_eq(loam_frame_section_bytes(frame, pfn(512), 5120), 1600);
    cr_assert_eq(loam_frame_section_bytes(frame, pfn(511), 5120), 1792);
    cr_assert_eq(loam_frame_section_bytes(frame, pfn(0), 0), 0);
}

Test(frame_seeds, metadata_align)
{
    struct loam_frame *frame = make();
    size_t bytes = loam_frame_section_bytes(frame, pfn(0), 512);
    char *metadata = keep_aligned(64, 512);

    /* The seeds round a misaligned region up; here it is refused. */
    cr_assert_eq(loam_frame_section_add(frame, pfn(0), 512, metadata + 32, bytes, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add(frame, pfn(0), 512, metadata, bytes, NULL), LOAM_OK);
}

Test(frame_seeds, metadata_layout_for_pages)
{
    struct loam_frame *frame = make();

    cr_assert_eq(loam_frame_section_bytes(frame, pfn(0), UINT64_MAX), 0, "a size that would wrap is none");
    for (uint64_t count = 1; count < 3000; count++) {
        cr_assert_geq(loam_frame_section_bytes(frame, pfn(7), count + 1),
                      loam_frame_section_bytes(frame, pfn(7), count));
    }
}

/* The prefix is the smallest that holds the metadata of what it leaves, for every size of region. */
Test(frame_seeds, compute_region_layout)
{
    char *region = keep_aligned(4096, 60 * 4096);

    for (uint64_t count = 2; count <= 60; count++) {
        struct loam_frame *frame = make();
        struct loam_frame_section section;

        cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(500), count, NULL), LOAM_OK);
        cr_assert_eq(loam_frame_section_at(frame, 0, &section), LOAM_OK);
        cr_assert_eq(section.total_frames, count);
        cr_assert_eq(section.start.value, 501, "one frame holds the metadata of so few");
        cr_assert_eq(section.managed_frames, count - 1);
    }
}

Test(frame_seeds, compute_region_layout_with_heap_align)
{
    struct loam_frame *frame = make();
    char *region = keep_aligned(4096, 2048 * 4096);
    uint64_t start;

    /* The heap need not start aligned: frame numbers are absolute, so that blocks in it are aligned all the same. */
    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(1024), 2048, NULL), LOAM_OK);
    cr_assert_eq(alloc(frame, 512, 512, 0, &start), LOAM_OK);
    cr_assert_eq(start % 512, 0);
}

Test(frame_seeds, available_heap_pages)
{
    struct loam_frame *frame = make();
    char *region = keep_aligned(4096, 4096);

    /* Metadata would fill all of it. */
    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(8), 1, NULL), LOAM_ERROR_INVALID);
}

Test(frame_seeds, can_manage_pages)
{
    struct loam_frame *frame = make();
    struct loam_frame_section section;
    uint64_t count = 65536;
    char *region = keep_aligned(4096, count * 4096);

    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(0), count, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_section_at(frame, 0, &section), LOAM_OK);
    /* 128 chunks of 160 bytes are 5 frames exactly. */
    cr_assert_eq(section.managed_frames, count - 5);
}

Test(frame_seeds, normalize_region)
{
    struct loam_frame *frame = make();

    /* The second seed trims a region to whole pages; here a range is counted in frames, and a bad one is refused. */
    cr_assert_eq(loam_frame_section_add(frame, pfn(3), 0, keep_aligned(64, 512), 512, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(try_add(frame, 3, 5), LOAM_OK);
    cr_assert_eq(free_frames(frame), 5, "nothing is trimmed");
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

Test(frame_seeds, new)
{
    struct loam_frame *frame = make();
    uint64_t start;

    cr_assert_eq(loam_frame_section_count(frame), 0);
    cr_assert_eq(alloc(frame, 1, 0, 0, &start), LOAM_ERROR_EXHAUSTED);
    assert_valid(frame);
}

Test(frame_seeds, default)
{
    cr_assert_eq(loam_frame_shift(make()), 12);
}

Test(frame_seeds, reset)
{
    size_t bytes = loam_frame_bytes(NULL);
    void *memory = keep_aligned(64, (bytes + 63) / 64 * 64);
    struct loam_frame *frame;

    cr_assert_eq(loam_frame_init(memory, bytes, NULL, &frame), LOAM_OK);
    cr_assert_eq(try_add(frame, 0, 100), LOAM_OK);
    cr_assert_eq(loam_frame_init(memory, bytes, NULL, &frame), LOAM_OK);
    cr_assert_eq(loam_frame_section_count(frame), 0);
    cr_assert_eq(try_add(frame, 50, 100), LOAM_OK);
}

Test(frame_seeds, init)
{
    struct loam_frame *frame = make_with(1000, 1000);

    cr_assert_eq(loam_frame_section_count(frame), 1);
    cr_assert_eq(free_frames(frame), 1000);
}

/* A new section consists of the largest aligned blocks: each can be had at once, and no larger one. */
Test(frame_seeds, init_at)
{
    struct loam_frame *frame = make_with(DMA32_END + 1, 4096 + 2048 - 1);
    loam_pfn start;

    cr_assert_eq(loam_frame_alloc_order(frame, 13, &start), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_alloc_order(frame, 12, &start), LOAM_ERROR_EXHAUSTED, "frame 0 of it is not managed");
    cr_assert_eq(loam_frame_alloc_order(frame, 11, &start), LOAM_OK);
    cr_assert_eq(loam_frame_alloc_order(frame, 11, &start), LOAM_OK);
    for (uint32_t order = 0; order <= 10; order++) {
        cr_assert_eq(loam_frame_alloc_order(frame, order, &start), LOAM_OK);
    }
    cr_assert_eq(free_frames(frame), 0);
    assert_valid(frame);
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

Test(frame_seeds, add_region)
{
    struct loam_frame *frame = make_with(0, 100);

    cr_assert_eq(try_add(frame, 1000, 100), LOAM_OK);
    cr_assert_eq(loam_frame_section_count(frame), 2);
    cr_assert_eq(free_frames(frame), 200);
}

Test(frame_seeds, add_region_raw)
{
    struct loam_frame *frame = make_with(100, 100);
    void *metadata = keep_aligned(64, 4096);

    cr_assert_eq(try_add(frame, 99, 2), LOAM_ERROR_OVERLAP);
    cr_assert_eq(try_add(frame, 199, 1), LOAM_ERROR_OVERLAP);
    cr_assert_eq(try_add(frame, 50, 200), LOAM_ERROR_OVERLAP);
    cr_assert_eq(try_add(frame, 120, 10), LOAM_ERROR_OVERLAP);
    cr_assert_eq(try_add(frame, 200, 1), LOAM_OK);
    cr_assert_eq(try_add(frame, 99, 1), LOAM_OK);
    cr_assert_eq(loam_frame_section_add(frame, pfn(UINT64_MAX), 2, metadata, 4096, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add(frame, pfn(300), UINT64_MAX, metadata, 4096, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add(frame, pfn(300), 100, metadata, 191, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_count(frame), 3);
}

Test(frame_seeds, section_count)
{
    struct loam_frame *frame = make();

    for (uint32_t i = 0; i < 16; i++) {
        cr_assert_eq(loam_frame_section_count(frame), i);
        cr_assert_eq(try_add(frame, i * 1000, 10), LOAM_OK);
    }
    cr_assert_eq(try_add(frame, 50000, 10), LOAM_ERROR_EXHAUSTED);
}

Test(frame_seeds, section)
{
    struct loam_frame *frame = make_with(5000, 10);
    struct loam_frame_section section;

    cr_assert_eq(try_add(frame, 1000, 20), LOAM_OK);
    cr_assert_eq(loam_frame_section_at(frame, 0, &section), LOAM_OK);
    cr_assert_eq(section.start.value, 1000, "by address, where the seeds go by the order of registration");
    cr_assert_eq(section.id, 1);
    cr_assert_eq(loam_frame_section_at(frame, 2, &section), LOAM_ERROR_NOT_FOUND);
}

Test(frame_seeds, summary)
{
    struct loam_frame *frame = make_with(5000, 10);
    struct loam_frame_section section;
    uint64_t start;

    cr_assert_eq(alloc(frame, 3, 0, 0, &start), LOAM_OK);
    cr_assert_eq(loam_frame_section_at(frame, 0, &section), LOAM_OK);
    cr_assert_eq(section.start.value, 5000);
    cr_assert_eq(section.managed_frames, 10);
    cr_assert_eq(section.free_frames, 7);
    cr_assert_eq(section.total_frames, 10);
}

Test(frame_seeds, contains_heap_addr)
{
    struct loam_frame *frame = make_with(100, 10);

    cr_assert_eq(loam_frame_query(frame, pfn(99)).state, LOAM_FRAME_UNMANAGED);
    cr_assert_eq(loam_frame_query(frame, pfn(100)).state, LOAM_FRAME_FREE);
    cr_assert_eq(loam_frame_query(frame, pfn(109)).state, LOAM_FRAME_FREE);
    cr_assert_eq(loam_frame_query(frame, pfn(110)).state, LOAM_FRAME_UNMANAGED);
}

Test(frame_seeds, find_section_by_addr)
{
    struct loam_frame *frame = make();
    struct loam_frame_section section;

    for (uint64_t i = 0; i < 16; i++) {
        cr_assert_eq(try_add(frame, (i * 7 % 16) * 100, 50), LOAM_OK);
    }
    for (uint64_t i = 0; i < 16; i++) {
        cr_assert_eq(loam_frame_section_find(frame, pfn(i * 100 + 49), &section), LOAM_OK);
        cr_assert_eq(section.start.value, i * 100);
        cr_assert_eq(loam_frame_section_find(frame, pfn(i * 100 + 50), &section), LOAM_ERROR_NOT_FOUND);
    }
}

/* --- Figures --------------------------------------------------------------------------------------------------- */

Test(frame_seeds, total_pages)
{
    struct loam_frame *frame = make_with(0, 300);
    char *region = keep_aligned(4096, 20 * 4096);

    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(1000), 20, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).total_frames, 320, "with the prefix, which the seeds leave out");
    cr_assert_eq(loam_frame_get_stats(frame).managed_frames, 319);
}

Test(frame_seeds, managed_bytes)
{
    struct loam_frame *frame = make_with(0, 300);

    cr_assert_eq(try_add(frame, 700, 5), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).managed_frames << loam_frame_shift(frame), 305 * 4096);
}

Test(frame_seeds, free_pages)
{
    struct loam_frame *frame = make_with(0, 300);
    uint64_t start;

    cr_assert_eq(alloc(frame, 7, 0, 0, &start), LOAM_OK);
    cr_assert_eq(free_frames(frame), 293);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 7), LOAM_OK);
    cr_assert_eq(free_frames(frame), 300);
}

Test(frame_seeds, allocated_bytes)
{
    struct loam_frame *frame = make_with(0, 3000);
    uint64_t start;

    cr_assert_eq(alloc(frame, 5, 64, 0, &start), LOAM_OK);
    /* Neither the count nor the alignment adds anything. */
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames << loam_frame_shift(frame), 5 * 4096);
}

/* --- Allocation ------------------------------------------------------------------------------------------------ */

Test(frame_seeds, alloc_pages)
{
    struct loam_frame *frame = make_with(0, 4096);
    uint64_t start;

    cr_assert_eq(alloc(frame, 0, 0, 0, &start), LOAM_ERROR_INVALID);
    cr_assert_eq(alloc(frame, 1, 3, 0, &start), LOAM_ERROR_INVALID);
    cr_assert_eq(alloc(frame, (1 << 20) + 1, 0, 0, &start), LOAM_ERROR_INVALID);
    cr_assert_eq(alloc(frame, 4097, 0, 0, &start), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(alloc(frame, 5, 0, 0, &start), LOAM_OK);
    cr_assert_eq(free_frames(frame), 4091, "five frames, where the seeds take eight");
    cr_assert_eq(alloc(frame, 4, 1024, 0, &start), LOAM_OK);
    cr_assert_eq(start % 1024, 0);
    cr_assert_eq(free_frames(frame), 4087);
}

Test(frame_seeds, alloc_from_section)
{
    struct loam_frame *frame = make_with(0, 16);
    uint64_t seen = 0;
    loam_pfn start;

    for (uint32_t order = 0; order < 4; order++) {
        cr_assert_eq(loam_frame_alloc_order(frame, order, &start), LOAM_OK);
        cr_assert_eq(start.value % (UINT64_C(1) << order), 0);
        seen |= ((UINT64_C(1) << (1u << order)) - 1) << start.value;
    }
    cr_assert_eq(__builtin_popcountll(seen), 15, "split without overlap");
    cr_assert_eq(loam_frame_alloc_order(frame, 1, &start), LOAM_ERROR_EXHAUSTED);
}

Test(frame_seeds, alloc_from_section_aligned)
{
    struct loam_frame *frame = make_with(0, 4096);
    uint64_t start;

    for (uint64_t i = 0; i < 4; i++) {
        cr_assert_eq(alloc(frame, 1, 1024, 0, &start), LOAM_OK);
        cr_assert_eq(start % 1024, 0);
    }
    cr_assert_eq(alloc(frame, 1, 1024, 0, &start), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(free_frames(frame), 4092);
}

Test(frame_seeds, find_aligned_pfn_in_block)
{
    struct loam_frame *frame = make_with(1000, 2000);
    uint64_t start;

    /* Aligned frames in the middle of free memory that starts at none. */
    cr_assert_eq(alloc(frame, 3, 256, 0, &start), LOAM_OK);
    cr_assert_eq(start % 256, 0);
    cr_assert_eq(alloc(frame, 3, 2048, 0, &start), LOAM_OK);
    cr_assert_eq(start, 2048);
    cr_assert_eq(alloc(frame, 3, 4096, 0, &start), LOAM_ERROR_EXHAUSTED);
    /* A 2 MiB-aligned block, though the section does not start at 2 MiB. */
    cr_assert_eq(alloc(frame, 512, 512, 0, &start), LOAM_OK);
    cr_assert_eq(start % 512, 0);
}

Test(frame_seeds, alloc_pages_lowmem)
{
    struct loam_frame *frame = make_with(0, 2 * DMA32_END);
    uint64_t start;

    cr_assert_eq(alloc(frame, 0, 0, DMA32_END, &start), LOAM_ERROR_INVALID);
    cr_assert_eq(alloc(frame, 1, 0, DMA32_END, &start), LOAM_OK, "on a fresh section of 8 GiB");
    cr_assert_lt(start, DMA32_END);
    cr_assert_eq(alloc(frame, 100, 4096, DMA32_END, &start), LOAM_OK);
    cr_assert_leq(start + 100, DMA32_END);
    cr_assert_eq(start % 4096, 0);
    cr_assert_eq(loam_frame_alloc_order_below(frame, 19, pfn(DMA32_END), &(loam_pfn){0}), LOAM_OK);
    cr_assert_eq(loam_frame_alloc_order_below(frame, 20, pfn(DMA32_END), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
}

Test(frame_seeds, alloc_lowmem_from_section)
{
    struct loam_frame *frame = make_with(DMA32_END - 10, 2000);
    uint64_t start;

    /* Only the part that is taken has to lie below, not the whole free range that it comes from. */
    for (uint64_t i = 0; i < 10; i++) {
        cr_assert_eq(alloc(frame, 1, 0, DMA32_END, &start), LOAM_OK);
        cr_assert_lt(start, DMA32_END);
    }
    cr_assert_eq(alloc(frame, 1, 0, DMA32_END, &start), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(alloc(frame, 1, 0, 0, &start), LOAM_OK);
}

/* --- Free ------------------------------------------------------------------------------------------------------ */

Test(frame_seeds, dealloc_pages)
{
    struct loam_frame *frame = make_with(100, 1000);
    uint64_t start;

    cr_assert_eq(alloc(frame, 6, 0, 0, &start), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, pfn(99), 6), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 0), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 5), LOAM_ERROR_INVALID, "the seeds would free all six");
    cr_assert_eq(loam_frame_free(frame, pfn(start), 8), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_free(frame, pfn(start + 1), 5), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 6), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 6), LOAM_ERROR_INVALID);
    cr_assert_eq(free_frames(frame), 1000);
}

/* Buddies merge, whatever the order of the frees, up to the largest block. */
Test(frame_seeds, dealloc_in_section)
{
    struct loam_frame *frame = make_with(0, 4096);
    loam_pfn starts[4096], start;

    for (size_t i = 0; i < 4096; i++) {
        cr_assert_eq(loam_frame_alloc_order(frame, 0, &starts[i]), LOAM_OK);
    }
    for (size_t i = 0; i < 4096; i++) {
        cr_assert_eq(loam_frame_free(frame, starts[i * 1597 % 4096], 1), LOAM_OK);
    }
    assert_valid(frame);
    cr_assert_eq(loam_frame_alloc_order(frame, 12, &start), LOAM_OK);
    cr_assert_eq(start.value, 0);
}

/* --- Flags ----------------------------------------------------------------------------------------------------- */

Test(frame_seeds, set_page_flags)
{
    struct loam_frame *frame = make_with(0, 1000);
    uint64_t start;

    cr_assert_eq(alloc(frame, 4, 0, 0, &start), LOAM_OK);
    cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_OK);
    cr_assert_eq(loam_frame_tag_set(frame, pfn(start + 1), LOAM_FRAME_TAG_SLAB), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_tag_set(frame, pfn(start + 4), LOAM_FRAME_TAG_SLAB), LOAM_ERROR_INVALID, "it is free");
    cr_assert_eq(loam_frame_tag_set(frame, pfn(5000), LOAM_FRAME_TAG_SLAB), LOAM_ERROR_INVALID);
}

Test(frame_seeds, page_flags)
{
    struct loam_frame *frame = make_with(0, 1000);
    uint64_t start;

    cr_assert_eq(alloc(frame, 4, 0, 0, &start), LOAM_OK);
    cr_assert_eq(loam_frame_query(frame, pfn(start)).tag, LOAM_FRAME_TAG_NONE);
    cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_OK);
    cr_assert_eq(loam_frame_query(frame, pfn(start + 3)).state, LOAM_FRAME_ALLOCATED);
    cr_assert_eq(loam_frame_query(frame, pfn(start + 3)).tag, LOAM_FRAME_TAG_SLAB, "of every frame of the block");
    cr_assert_eq(loam_frame_query(frame, pfn(start + 3)).block.count_frames, 4);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 4), LOAM_OK, "a tagged block is freed like any other");
    cr_assert_eq(loam_frame_query(frame, pfn(start)).state, LOAM_FRAME_FREE);
}

/* --- Free lists ------------------------------------------------------------------------------------------------ */

/* Pushed, popped and removed from the middle: blocks of every order, in and out, and each list is whole after each
 * step. */
Test(frame_seeds, free_list)
{
    struct loam_frame *frame = make_with(0, 65536);
    loam_pfn starts[32];

    for (uint32_t i = 0; i < 32; i++) {
        cr_assert_eq(loam_frame_alloc_order(frame, i % 12, &starts[i]), LOAM_OK);
        assert_valid(frame);
    }
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t n = i * 13 % 32;

        cr_assert_eq(loam_frame_free(frame, starts[n], UINT64_C(1) << (n % 12)), LOAM_OK);
        assert_valid(frame);
    }
    cr_assert_eq(loam_frame_alloc_order(frame, 16, &starts[0]), LOAM_OK);
}
