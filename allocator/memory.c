// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants, for each part i of the plan, from the end of creation on:
 *   backings[i] holds parts[i], byte for byte: same GPA, same bytes, the plan's page kind
 *   every region of the map whose backing is i + 1: hva == backings[i].hva + backing_offset,
 *                                                   start == parts[i].start + backing_offset
 *   one section of the frame allocator is parts[i], frame for frame
 *   every buffer of the ledger is allocated frames of one section, in one region
 *
 * Creation goes from top to bottom of struct loam_memory, destruction from bottom to top; what is NULL was not reached.
 */
#include "loam/memory.h"

#include "allocator/gpa_map_keeper.h"
#include "allocator/host/prim.h"
#include "allocator/memory_fork.h"
#include "allocator/plan_layout.h"

#include <inttypes.h>
#include <stdio.h>

struct loam_memory {
    struct loam_plan plan;
    struct loam_backing *backings[LOAM_PLAN_PART_MAX];
    void *map_memory;
    struct loam_gpa_map *map;
    void *frame_memory;
    struct loam_frame *frame;
    void *section_memory[LOAM_PLAN_PART_MAX];
    struct loam_dma *dma;
    struct memory_fork fork; /* its dma is NULL: not reached */
};

/* --- The steps of create ---------------------------------------------------------------------------------------- */

static enum loam_error check_plan(const struct loam_plan *plan, struct loam_diag *diag)
{
    const struct loam_plan_check *shortfall = loam_plan_shortfall(plan);
    enum loam_error error = loam_plan_layout_verify(plan, diag);

    if (error == LOAM_OK && shortfall != NULL) {
        error = loam_fail(diag, LOAM_ERROR_EXHAUSTED, "%.*s", (int)sizeof shortfall->text, shortfall->text);
    }
    return error;
}

static enum loam_error allocate(size_t bytes, const char *what, void **memory, struct loam_diag *diag)
{
    return loam_prim_heap_alloc(bytes, memory)
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "%zu bytes of heap wanted for %s", bytes, what);
}

static enum loam_error back_part(struct loam_memory *memory, uint32_t part, struct loam_diag *diag)
{
    static const char *const names[LOAM_PLAN_PART_MAX] = {"loam-low", "loam-high"};
    const struct loam_memory_request *wanted = &memory->plan.request;
    struct loam_backing_request request = {
        .bytes = memory->plan.parts[part].bytes,
        .gpa = memory->plan.parts[part].start,
        .pages = memory->plan.pages,
        .sharing = wanted->sharing,
        .commit = memory->plan.charged_at_touch ? LOAM_COMMIT_POPULATE : wanted->commit,
        .bind_node = wanted->bind_node,
        .node = (int32_t)wanted->node,
        .lock = wanted->lock,
        .keep_from_children = wanted->keep_from_children,
        .keep_from_dumps = wanted->keep_from_dumps,
        .thread_count = wanted->thread_count,
        .cancel = wanted->cancel,
        .name = wanted->sharing != LOAM_SHARING_PRIVATE ? names[part] : NULL,
    };

    return loam_backing_create(&request, &memory->backings[part], diag);
}

static enum loam_error back_parts(struct loam_memory *memory, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t part = 0; error == LOAM_OK && part < memory->plan.part_count; part++) {
        error = back_part(memory, part, diag);
    }
    return error;
}

static enum loam_error map_region(struct loam_memory *memory, struct loam_region region, struct loam_diag *diag)
{
    enum loam_error error;

    region.hva = (char *)loam_backing_get_info(memory->backings[region.backing - 1]).hva + region.backing_offset;
    error = loam_gpa_map_keeper_insert(memory->map, &region);
    return error == LOAM_OK ? LOAM_OK
                            : loam_fail(diag, error, "the GPA map refuses %#" PRIx64 " bytes at GPA %#" PRIx64 ": %s",
                                        region.bytes, region.start.value, loam_error_name(error));
}

static enum loam_error map_regions(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_gpa_map_config config = loam_plan_layout_map_config();
    size_t bytes = loam_gpa_map_bytes(&config);
    struct loam_region regions[LOAM_PLAN_REGION_MAX];
    uint32_t count = loam_plan_regions(&memory->plan, regions);
    enum loam_error error = allocate(bytes, "the GPA map", &memory->map_memory, diag);

    if (error != LOAM_OK) {
        return error;
    }
    error = loam_gpa_map_init(memory->map_memory, bytes, &config, &memory->map);
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "the GPA map refuses its configuration: %s", loam_error_name(error));
    }
    loam_gpa_map_keep(memory->map, memory->plan.part_count);
    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        error = map_region(memory, regions[i], diag);
    }
    return error;
}

static enum loam_error add_section(struct loam_memory *memory, uint32_t part, struct loam_diag *diag)
{
    loam_pfn start = loam_pfn_from_gpa(memory->plan.parts[part].start, LOAM_FRAME_SHIFT);
    uint64_t count_frames = memory->plan.parts[part].bytes / LOAM_FRAME_BYTES;
    size_t bytes = loam_frame_section_bytes(memory->frame, start, count_frames);
    enum loam_error error = allocate(bytes, "a section's metadata", &memory->section_memory[part], diag);

    if (error != LOAM_OK) {
        return error;
    }
    error = loam_frame_section_add(memory->frame, start, count_frames, memory->section_memory[part], bytes, NULL);
    return error == LOAM_OK
               ? LOAM_OK
               : loam_fail(diag, error, "the frame allocator refuses %" PRIu64 " frames from %#" PRIx64 " on: %s",
                           count_frames, start.value, loam_error_name(error));
}

static enum loam_error add_sections(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_frame_config config = loam_plan_layout_frame_config(&memory->plan);
    size_t bytes = loam_frame_bytes(&config);
    enum loam_error error = allocate(bytes, "the frame allocator", &memory->frame_memory, diag);

    if (error != LOAM_OK) {
        return error;
    }
    error = loam_frame_init(memory->frame_memory, bytes, &config, &memory->frame);
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "the frame allocator refuses its configuration: %s", loam_error_name(error));
    }
    if (loam_prim_barrier_register()) {
        loam_frame_set_barrier(loam_prim_barrier);
    }
    for (uint32_t part = 0; error == LOAM_OK && part < memory->plan.part_count; part++) {
        error = add_section(memory, part, diag);
    }
    return error;
}

/* What no one shall get: a null pointer's target, and what the E820 map gives as reserved. Fresh memory is zero. */
static enum loam_error carve_kept(struct loam_memory *memory, struct loam_diag *diag)
{
    static const struct loam_dma_request kept[] = {
        {.owner = "null", .bytes = LOAM_FRAME_BYTES, .flags = LOAM_DMA_AT | LOAM_DMA_NO_ZERO | LOAM_DMA_KEEP},
        {.owner = "legacy",
         .bytes = LOAM_LEGACY_END_BYTES - LOAM_LEGACY_START_BYTES,
         .at = {LOAM_LEGACY_START_BYTES},
         .flags = LOAM_DMA_AT | LOAM_DMA_NO_ZERO | LOAM_DMA_KEEP},
    };
    struct loam_dma_buffer buffer;
    enum loam_error error = LOAM_OK;

    for (size_t i = 0; error == LOAM_OK && i < sizeof kept / sizeof kept[0]; i++) {
        error = loam_dma_alloc(memory->dma, &kept[i], &buffer, diag);
    }
    return error;
}

static struct loam_backing *backing_of(const struct loam_memory *memory, loam_gpa gpa, uint64_t *offset_bytes)
{
    uint32_t part = memory->plan.part_count - 1;

    while (part > 0 && gpa.value < memory->plan.parts[part].start.value) {
        part--;
    }
    *offset_bytes = gpa.value - memory->plan.parts[part].start.value;
    return memory->backings[part];
}

/* What was given back to the host is asked for again in whole chunks, as the frame allocator counts it. */
static enum loam_error populate_again(void *self, loam_gpa gpa, uint64_t bytes, struct loam_diag *diag)
{
    const struct loam_memory *memory = self;
    uint64_t unit = LOAM_FRAME_CHUNK_FRAMES * LOAM_FRAME_BYTES, start, end;
    struct loam_backing *backing = backing_of(memory, gpa, &start);

    if (memory->plan.page_bytes > unit) {
        unit = memory->plan.page_bytes;
    }
    end = loam_align_down(start + bytes - 1, unit) + unit;
    start = loam_align_down(start, unit);
    if (end > loam_backing_get_info(backing).bytes) {
        end = loam_backing_get_info(backing).bytes;
    }
    return loam_backing_populate(backing, start, end - start, diag);
}

static enum loam_error open_ledger(struct loam_memory *memory, struct loam_diag *diag)
{
    enum loam_error error = loam_dma_create(memory->frame, memory->map, &memory->dma);

    loam_dma_set_supply(memory->dma, (struct loam_dma_supply){.populate = populate_again, .self = memory});
    return error == LOAM_OK ? carve_kept(memory, diag) : loam_fail(diag, error, "heap wanted for the ledger");
}

/* The last step: from here on a child of fork(2) gets all of the above whole. */
static enum loam_error watch_forks(struct loam_memory *memory, struct loam_diag *diag)
{
    enum loam_error error;

    memory->fork = (struct memory_fork){.dma = memory->dma, .map = memory->map, .frame = memory->frame};
    error = loam_memory_fork_add(&memory->fork);
    if (error != LOAM_OK) {
        memory->fork.dma = NULL;
        return loam_fail(diag, error, "pthread_atfork: wanted for guest memory");
    }
    return LOAM_OK;
}

/* --- Lifecycle -------------------------------------------------------------------------------------------------- */

enum loam_error loam_memory_create(const struct loam_plan *plan, struct loam_memory **memory, struct loam_diag *diag)
{
    static enum loam_error (*const steps[])(struct loam_memory *, struct loam_diag *) = {
        back_parts, map_regions, add_sections, open_ledger, watch_forks};
    struct loam_memory *made;
    void *object = NULL;
    enum loam_error error;

    if (memory != NULL) {
        *memory = NULL;
    }
    if (plan == NULL || memory == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "memory: NULL given where a plan and a place for it are wanted");
    }
    error = check_plan(plan, diag);
    if (error != LOAM_OK || (error = allocate(sizeof *made, "guest memory", &object, diag)) != LOAM_OK) {
        return error;
    }
    made = (struct loam_memory *)object;
    made->plan = *plan;
    for (size_t i = 0; error == LOAM_OK && i < sizeof steps / sizeof steps[0]; i++) {
        error = steps[i](made, diag);
    }
    if (error != LOAM_OK) {
        loam_memory_destroy(made);
        return error;
    }
    *memory = made;
    return LOAM_OK;
}

void loam_memory_destroy(struct loam_memory *memory)
{
    if (memory == NULL) {
        return;
    }
    if (memory->fork.dma != NULL) {
        loam_memory_fork_remove(&memory->fork);
    }
    loam_dma_destroy(memory->dma);
    for (uint32_t part = LOAM_PLAN_PART_MAX; part-- > 0;) {
        loam_prim_heap_free(memory->section_memory[part]);
    }
    loam_prim_heap_free(memory->frame_memory);
    loam_prim_heap_free(memory->map_memory);
    for (uint32_t part = LOAM_PLAN_PART_MAX; part-- > 0;) {
        loam_backing_destroy(memory->backings[part]);
    }
    loam_prim_heap_free(memory);
}

/* --- Taking RAM away -------------------------------------------------------------------------------------------- */

/* Whether the range can be RAM of one part at all, and is all there still. */
static enum loam_error check_range(struct loam_memory *memory, loam_gpa start, uint64_t bytes, struct loam_diag *diag)
{
    const struct loam_gpa_view *view;
    struct loam_piece piece;
    bool within = false;
    uint32_t count;

    if (!loam_gpa_range_valid(start, bytes) || !loam_is_aligned(start.value | bytes, LOAM_REGION_ALIGN_BYTES)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%#" PRIx64 " bytes at GPA %#" PRIx64
                         " to be removed: ask for multiples of 4 KiB, at least one",
                         bytes, start.value);
    }
    for (uint32_t i = 0; i < memory->plan.part_count; i++) {
        const struct loam_plan_part *part = &memory->plan.parts[i];

        within = within || loam_fits(start.value - part->start.value, bytes, part->bytes);
    }
    view = loam_gpa_map_acquire(memory->map);
    within = within && loam_gpa_view_pieces(view, start, bytes, LOAM_ACCESS_READ, &piece, 1, &count) == LOAM_OK;
    loam_gpa_map_release(memory->map, view);
    return within
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                           "%#" PRIx64 " bytes at GPA %#" PRIx64 " to be removed: not all of that is RAM of one part",
                           bytes, start.value);
}

/* Frames of the range are allocated: say whose. What others release meanwhile is not found any more. */
static enum loam_error say_who_holds(struct loam_memory *memory, loam_gpa start, uint64_t bytes, struct loam_diag *diag)
{
    struct loam_dma_entry entry;

    if (loam_dma_next(memory->dma, start, &entry) == LOAM_OK && entry.buffer.gpa.value < start.value + bytes) {
        return loam_fail(diag, LOAM_ERROR_BUSY,
                         "%#" PRIx64 " bytes at GPA %#" PRIx64 " to be removed: a buffer of \"%s\", %#" PRIx64
                         " bytes at GPA %#" PRIx64 ", lies there: %s",
                         bytes, start.value, entry.owner, entry.buffer.bytes, entry.buffer.gpa.value,
                         entry.kept ? "it is never released" : "release it first");
    }
    return loam_fail(diag, LOAM_ERROR_BUSY,
                     "%#" PRIx64 " bytes at GPA %#" PRIx64
                     " to be removed: frames of it are allocated past the ledger: "
                     "free them first",
                     bytes, start.value);
}

/* Free the first bytes of the range, which claim_frames allocated in this order. */
static void give_frames_back(struct loam_memory *memory, loam_gpa start, uint64_t bytes)
{
    const uint64_t block_bytes = LOAM_FRAME_COUNT_MAX * LOAM_FRAME_BYTES;

    for (uint64_t done = 0; done < bytes; done += block_bytes) {
        uint64_t left = bytes - done < block_bytes ? bytes - done : block_bytes;
        /* If it fails, somebody has freed the frames meanwhile: there is nothing left to undo. */
        enum loam_error ignored =
            loam_frame_free(memory->frame, loam_pfn_from_gpa(loam_gpa_from_u64(start.value + done), LOAM_FRAME_SHIFT),
                            left / LOAM_FRAME_BYTES);

        (void)ignored;
    }
}

/* All frames of the range, so that nobody else gets one; in blocks as large as can be. All or none. */
static enum loam_error claim_frames(struct loam_memory *memory, loam_gpa start, uint64_t bytes, struct loam_diag *diag)
{
    const uint64_t block_bytes = LOAM_FRAME_COUNT_MAX * LOAM_FRAME_BYTES;

    for (uint64_t done = 0; done < bytes; done += block_bytes) {
        uint64_t left = bytes - done < block_bytes ? bytes - done : block_bytes;
        struct loam_frame_request request = {
            .count_frames = left / LOAM_FRAME_BYTES,
            .at = loam_pfn_from_gpa(loam_gpa_from_u64(start.value + done), LOAM_FRAME_SHIFT),
            .flags = LOAM_FRAME_AT};
        struct loam_frame_block block;
        enum loam_error error = loam_frame_alloc(memory->frame, &request, &block);

        if (error != LOAM_OK) {
            give_frames_back(memory, start, done);
            return error == LOAM_ERROR_BUSY
                       ? say_who_holds(memory, start, bytes, diag)
                       : loam_fail(diag, error, "%#" PRIx64 " bytes at GPA %#" PRIx64 " to be removed: %s", bytes,
                                   start.value, loam_error_name(error));
        }
    }
    return LOAM_OK;
}

enum loam_error loam_memory_remove(struct loam_memory *memory, loam_gpa start, uint64_t bytes, struct loam_diag *diag)
{
    enum loam_error error = memory != NULL
                                ? check_range(memory, start, bytes, diag)
                                : loam_fail(diag, LOAM_ERROR_INVALID, "memory: NULL given where one is wanted");

    if (error != LOAM_OK || (error = claim_frames(memory, start, bytes, diag)) != LOAM_OK) {
        return error;
    }
    error = loam_gpa_map_keeper_remove(memory->map, start, bytes);
    if (error != LOAM_OK) {
        give_frames_back(memory, start, bytes);
        return loam_fail(diag, error, "%#" PRIx64 " bytes at GPA %#" PRIx64 " to be removed: %s", bytes, start.value,
                         error == LOAM_ERROR_BUSY ? "readers hold every other table of the map: try again"
                                                  : "the map has no room for more rows: remove larger ranges");
    }
    return LOAM_OK;
}

/* --- Giving memory back to the host ------------------------------------------------------------------------------- */

/* The block is the caller's, and is nobody's afterwards. */
static enum loam_error give_block(struct loam_memory *memory, const struct loam_frame_block *block,
                                  struct loam_diag *diag)
{
    uint64_t offset_bytes;
    struct loam_backing *backing = backing_of(memory, loam_gpa_from_pfn(block->start, LOAM_FRAME_SHIFT), &offset_bytes);
    enum loam_error error = loam_backing_release(backing, offset_bytes, block->count_frames * LOAM_FRAME_BYTES, diag);
    enum loam_error freed = error == LOAM_OK
                                ? loam_frame_free_released(memory->frame, block->start, block->count_frames)
                                : loam_frame_free(memory->frame, block->start, block->count_frames);

    return error != LOAM_OK || freed == LOAM_OK
               ? error
               : loam_fail(diag, freed, "the frame allocator refuses a block of its own: %s", loam_error_name(freed));
}

/* A free block of the largest order up to *order, unit_order at least, that there is with memory behind it. */
static enum loam_error take_block(struct loam_memory *memory, uint32_t *order, uint32_t unit_order,
                                  struct loam_frame_block *block)
{
    enum loam_error error;

    for (;; --*order) {
        struct loam_frame_request request = {
            .count_frames = UINT64_C(1) << *order, .align_frames = UINT64_C(1) << *order, .flags = LOAM_FRAME_BACKED};

        error = loam_frame_alloc(memory->frame, &request, block);
        if (error != LOAM_ERROR_EXHAUSTED || *order == unit_order) {
            return error;
        }
    }
}

static uint32_t order_of(uint64_t frames)
{
    return 63 - (uint32_t)__builtin_clzll(frames);
}

/* The smallest block that can be given back. */
static uint32_t unit_order_of(const struct loam_memory *memory)
{
    uint64_t page_frames = memory->plan.page_bytes / LOAM_FRAME_BYTES;

    return order_of(page_frames > LOAM_FRAME_CHUNK_FRAMES ? page_frames : LOAM_FRAME_CHUNK_FRAMES);
}

enum loam_error loam_memory_reclaim(struct loam_memory *memory, uint64_t bytes, uint64_t *given_bytes,
                                    struct loam_diag *diag)
{
    struct loam_frame_block block;
    enum loam_error error = LOAM_OK;
    uint32_t order = LOAM_FRAME_ORDER_MAX, unit_order;

    if (given_bytes != NULL) {
        *given_bytes = 0;
    }
    if (memory == NULL || given_bytes == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "reclaim: NULL given where memory and a figure are wanted");
    }
    unit_order = unit_order_of(memory);
    for (uint64_t left; error == LOAM_OK && (left = (bytes - *given_bytes) / LOAM_FRAME_BYTES) >> unit_order != 0;) {
        order = order_of(left) < order ? order_of(left) : order;
        error = take_block(memory, &order, unit_order, &block);
        if (error == LOAM_ERROR_EXHAUSTED) {
            return LOAM_OK;
        }
        error = error == LOAM_OK
                    ? give_block(memory, &block, diag)
                    : loam_fail(diag, error, "reclaim: no free frames can be had: %s", loam_error_name(error));
        *given_bytes += error == LOAM_OK ? block.count_frames * LOAM_FRAME_BYTES : 0;
    }
    return error;
}

/* --- Its parts -------------------------------------------------------------------------------------------------- */

struct loam_frame *loam_memory_frame(struct loam_memory *memory)
{
    return memory != NULL ? memory->frame : NULL;
}

struct loam_gpa_map *loam_memory_map(struct loam_memory *memory)
{
    return memory != NULL ? memory->map : NULL;
}

struct loam_dma *loam_memory_dma(struct loam_memory *memory)
{
    return memory != NULL ? memory->dma : NULL;
}

const struct loam_plan *loam_memory_plan(const struct loam_memory *memory)
{
    return memory != NULL ? &memory->plan : NULL;
}

enum loam_error loam_memory_backing(const struct loam_memory *memory, uint32_t index, struct loam_backing_info *info)
{
    bool found = memory != NULL && index < memory->plan.part_count;

    if (info == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!found) {
        *info = loam_backing_get_info(NULL);
        return memory != NULL ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_INVALID;
    }
    *info = loam_backing_get_info(memory->backings[index]);
    return LOAM_OK;
}

enum loam_error loam_memory_shares(struct loam_memory *memory, struct loam_share *shares, uint32_t capacity,
                                   uint32_t *count)
{
    const struct loam_gpa_view *view;
    int fds[LOAM_PLAN_PART_MAX];
    enum loam_error error;

    if (memory == NULL) {
        return loam_gpa_view_shares(NULL, NULL, 0, shares, capacity, count);
    }
    for (uint32_t part = 0; part < memory->plan.part_count; part++) {
        fds[part] = loam_backing_get_info(memory->backings[part]).fd;
    }
    view = loam_gpa_map_acquire(memory->map);
    error = loam_gpa_view_shares(view, fds, memory->plan.part_count, shares, capacity, count);
    loam_gpa_map_release(memory->map, view);
    return error;
}

/* --- Validation ------------------------------------------------------------------------------------------------- */

static enum loam_error validate_part(const struct loam_memory *memory, uint32_t part, struct loam_diag *diag)
{
    const struct loam_plan_part *planned = &memory->plan.parts[part];
    struct loam_backing_info info = loam_backing_get_info(memory->backings[part]);
    loam_pfn start = loam_pfn_from_gpa(planned->start, LOAM_FRAME_SHIFT);
    struct loam_frame_section section;

    if (info.gpa.value != planned->start.value || info.bytes != planned->bytes || info.pages != memory->plan.pages) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "the backing of part %" PRIu32 " is not what was planned", part);
    }
    if (loam_frame_section_find(memory->frame, start, &section) != LOAM_OK || section.start.value != start.value ||
        section.managed_frames != planned->bytes / LOAM_FRAME_BYTES) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "the frames of part %" PRIu32 " are not one section", part);
    }
    return LOAM_OK;
}

/* Regions with other backings are the caller's own. */
static enum loam_error validate_region(const struct loam_memory *memory, const struct loam_region *region,
                                       struct loam_diag *diag)
{
    uint32_t index = region->backing - 1; /* of no part where backing is 0, a device's too */
    const struct loam_plan_part *part;

    if (index >= memory->plan.part_count) {
        return LOAM_OK;
    }
    part = &memory->plan.parts[index];
    if (!loam_fits(region->backing_offset, region->bytes, part->bytes) ||
        region->start.value != part->start.value + region->backing_offset ||
        region->hva != (char *)loam_backing_get_info(memory->backings[index]).hva + region->backing_offset) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "the region at GPA %#" PRIx64 " does not lie in backing %" PRIu32,
                         region->start.value, region->backing);
    }
    return LOAM_OK;
}

static enum loam_error validate_regions(struct loam_memory *memory, struct loam_diag *diag)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(memory->map);
    struct loam_region region;
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && loam_gpa_view_region(view, i, &region) == LOAM_OK; i++) {
        error = validate_region(memory, &region, diag);
    }
    loam_gpa_map_release(memory->map, view);
    return error;
}

enum loam_error loam_memory_validate(struct loam_memory *memory, struct loam_diag *diag)
{
    enum loam_error error = memory != NULL
                                ? loam_gpa_map_validate(memory->map, diag)
                                : loam_fail(diag, LOAM_ERROR_INVALID, "memory: NULL given where one is wanted");

    if (error == LOAM_OK) {
        error = loam_frame_validate(memory->frame, diag);
    }
    if (error == LOAM_OK) {
        error = loam_dma_validate(memory->dma, diag);
    }
    for (uint32_t part = 0; error == LOAM_OK && part < memory->plan.part_count; part++) {
        error = validate_part(memory, part, diag);
    }
    return error == LOAM_OK ? validate_regions(memory, diag) : error;
}
