// SPDX-License-Identifier: Apache-2.0
/* The whole of a guest's memory is made, asked, checked and given back. What it consists of: allocator/memory_block.h. */
#include "loam/memory.h"

#include "allocator/gpa_map_keeper.h"
#include "allocator/host/prim.h"
#include "allocator/memory_block.h"
#include "allocator/memory_thread.h"
#include "allocator/plan_layout.h"

#include <inttypes.h>
#include <stdio.h>

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

static enum loam_error make_blocks(struct loam_memory *memory, struct loam_diag *diag)
{
    void *blocks;
    enum loam_error error;

    memory->block_capacity = loam_plan_layout_frame_config(&memory->plan).section_capacity;
    error = loam_memory_block_heap(memory->block_capacity * sizeof *memory->blocks, "blocks", &blocks, diag);
    memory->blocks = (struct memory_block *)blocks;
    return error;
}

static enum loam_error make_frame(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_frame_config config = loam_plan_layout_frame_config(&memory->plan);
    size_t bytes = loam_frame_bytes(&config);
    enum loam_error error = loam_memory_block_heap(bytes, "the frame allocator", &memory->frame_memory, diag);

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
    return LOAM_OK;
}

static enum loam_error make_map(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_gpa_map_config config = loam_plan_layout_map_config(&memory->plan);
    size_t bytes = loam_gpa_map_bytes(&config);
    enum loam_error error = loam_memory_block_heap(bytes, "the GPA map", &memory->map_memory, diag);

    if (error != LOAM_OK) {
        return error;
    }
    error = loam_gpa_map_init(memory->map_memory, bytes, &config, &memory->map);
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "the GPA map refuses its configuration: %s", loam_error_name(error));
    }
    loam_gpa_map_keep(memory->map, memory->block_capacity);
    return LOAM_OK;
}

static enum loam_error back_part(struct loam_memory *memory, uint32_t index, struct loam_diag *diag)
{
    const struct loam_memory_request *wanted = &memory->plan.request;
    const struct loam_plan_part *part = &memory->plan.parts[index];
    struct loam_backing_request request = wanted->parts[part->asked];
    struct memory_block *block = &memory->blocks[index];
    enum loam_error error;

    request.bytes = part->bytes;
    request.gpa = part->start;
    request.pages = part->pages;
    request.fd_offset += request.adoption == LOAM_ADOPTION_FD ? part->asked_offset : 0;
    request.hva = request.adoption == LOAM_ADOPTION_MAPPING ? (char *)request.hva + part->asked_offset : request.hva;
    request.commit = part->charged_at_touch ? LOAM_COMMIT_POPULATE : request.commit;
    if (request.adoption != LOAM_ADOPTION_MAPPING) {
        request.keep_from_children = wanted->keep_from_children;
        request.keep_from_dumps = wanted->keep_from_dumps;
        request.thread_count = wanted->thread_count;
    }
    request.cancel = wanted->cancel;
    if (request.name == NULL && request.sharing != LOAM_SHARING_PRIVATE && request.adoption == LOAM_ADOPTION_NONE) {
        request.name = part->start.value < memory->plan.hole_start.value ? "loam-low" : "loam-high";
    }
    block->start = part->start;
    block->bytes = part->bytes;
    error = loam_memory_block_make(memory, block, &request, diag);
    if (error == LOAM_OK) {
        block->state = MEMORY_BLOCK_THERE;
        error = loam_frame_section_set_use(memory->frame, block->section, LOAM_FRAME_USE_OPEN);
    }
    return error;
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
    const struct memory_block *block = &memory->blocks[region.backing - 1];
    enum loam_error error;

    region.hva = (char *)loam_backing_get_info(block->backing).hva + region.backing_offset;
    error = loam_gpa_map_keeper_insert(memory->map, &region);
    return error == LOAM_OK ? LOAM_OK
                            : loam_fail(diag, error, "the GPA map refuses %#" PRIx64 " bytes at GPA %#" PRIx64 ": %s",
                                        region.bytes, region.start.value, loam_error_name(error));
}

static enum loam_error map_regions(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_region regions[LOAM_PLAN_REGION_MAX];
    uint32_t count = loam_plan_regions(&memory->plan, regions);
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        error = map_region(memory, regions[i], diag);
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

/* The backing of what is allocated at gpa, so that it stays; NULL: the caller's own frames lie there. */
static struct loam_backing *backing_of(struct loam_memory *memory, loam_gpa gpa, uint64_t *offset_bytes)
{
    const struct memory_block *block;

    loam_memory_block_lock(memory);
    block = loam_memory_block_holding(memory, gpa);
    loam_memory_block_unlock(memory);
    *offset_bytes = block != NULL ? gpa.value - block->start.value : 0;
    return block != NULL ? block->backing : NULL;
}

/* What is given back to the host, or asked for again: whole chunks, as the frame allocator counts it, and whole pages. */
static uint64_t unit_bytes_of(const struct loam_backing *backing)
{
    uint64_t page_bytes = loam_backing_get_info(backing).page_bytes;
    uint64_t chunk_bytes = LOAM_FRAME_CHUNK_FRAMES * LOAM_FRAME_BYTES;

    return page_bytes > chunk_bytes ? page_bytes : chunk_bytes;
}

static enum loam_error populate_again(void *self, loam_gpa gpa, uint64_t bytes, struct loam_diag *diag)
{
    struct loam_memory *memory = self;
    uint64_t start, end, unit_bytes;
    struct loam_backing *backing = backing_of(memory, gpa, &start);

    if (backing == NULL) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "GPA %#" PRIx64 " has no memory, and is not the library's",
                         gpa.value);
    }
    unit_bytes = unit_bytes_of(backing);
    end = loam_align_down(start + bytes - 1, unit_bytes) + unit_bytes;
    start = loam_align_down(start, unit_bytes);
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

    memory->fork =
        (struct memory_fork){.blocks = &memory->lock, .dma = memory->dma, .map = memory->map, .frame = memory->frame};
    error = loam_memory_fork_add(&memory->fork);
    if (error != LOAM_OK) {
        memory->fork.dma = NULL;
        return loam_fail(diag, error, "pthread_atfork: wanted for guest memory");
    }
    loam_memory_thread_add(&memory->threads, memory->frame);
    return LOAM_OK;
}

/* --- Lifecycle -------------------------------------------------------------------------------------------------- */

enum loam_error loam_memory_create(const struct loam_plan *plan, struct loam_memory **memory, struct loam_diag *diag)
{
    static enum loam_error (*const steps[])(struct loam_memory *, struct loam_diag *) = {
        make_blocks, make_frame, back_parts, make_map, map_regions, open_ledger, watch_forks};
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
    if (error != LOAM_OK || (error = loam_memory_block_heap(sizeof *made, "guest memory", &object, diag)) != LOAM_OK) {
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
    loam_memory_thread_remove(&memory->threads);
    if (memory->fork.dma != NULL) {
        loam_memory_fork_remove(&memory->fork);
    }
    loam_dma_destroy(memory->dma);
    loam_prim_heap_free(memory->map_memory);
    for (uint32_t i = memory->blocks != NULL ? memory->block_capacity : 0; i-- > 0;) {
        loam_memory_block_drop(&memory->blocks[i]);
    }
    loam_prim_heap_free(memory->frame_memory);
    loam_prim_heap_free(memory->blocks);
    loam_prim_heap_free(memory);
}

/* --- Giving memory back to the host ------------------------------------------------------------------------------- */

/* The frames are the caller's, and are nobody's afterwards. */
static enum loam_error give_frames(struct loam_memory *memory, const struct loam_frame_block *frames,
                                   struct loam_diag *diag)
{
    uint64_t offset_bytes;
    struct loam_backing *backing =
        backing_of(memory, loam_gpa_from_pfn(frames->start, LOAM_FRAME_SHIFT), &offset_bytes);
    enum loam_error error = loam_backing_release(backing, offset_bytes, frames->count_frames * LOAM_FRAME_BYTES, diag);
    enum loam_error freed = error == LOAM_OK
                                ? loam_frame_free_released(memory->frame, frames->start, frames->count_frames)
                                : loam_frame_free(memory->frame, frames->start, frames->count_frames);

    return error != LOAM_OK || freed == LOAM_OK
               ? error
               : loam_fail(diag, freed, "the frame allocator refuses frames of its own: %s", loam_error_name(freed));
}

/* Free frames of a section with memory behind them, of the largest order up to *order, unit_order at least. */
static enum loam_error take_frames(struct loam_memory *memory, uint32_t section, uint32_t *order, uint32_t unit_order,
                                   struct loam_frame_block *frames)
{
    enum loam_error error;

    for (;; --*order) {
        struct loam_frame_request request = {.count_frames = UINT64_C(1) << *order,
                                             .align_frames = UINT64_C(1) << *order,
                                             .flags = LOAM_FRAME_BACKED | LOAM_FRAME_IN_SECTION,
                                             .section = section};

        error = loam_frame_alloc(memory->frame, &request, frames);
        if (error != LOAM_ERROR_EXHAUSTED || *order == unit_order) {
            return error;
        }
    }
}

static uint32_t order_of(uint64_t frames)
{
    return 63 - (uint32_t)__builtin_clzll(frames);
}

/* Nothing is to be had of a section that has no more, that is closed, or is gone. */
static bool is_used_up(enum loam_error error)
{
    return error == LOAM_ERROR_EXHAUSTED || error == LOAM_ERROR_NOT_PERMITTED || error == LOAM_ERROR_NOT_FOUND;
}

/* A block as reclaim goes by it. */
struct reclaimed {
    loam_gpa start;
    uint64_t bytes;
    uint32_t section;
    uint32_t unit_order; /* of what comes and goes together */
    bool locked;
};

/* The block of the library's own memory that starts highest below a GPA. False: there is none. */
static bool next_below(struct loam_memory *memory, uint64_t below, struct reclaimed *next)
{
    bool found = false;

    loam_memory_block_lock(memory);
    for (uint32_t i = 0; i < memory->block_capacity; i++) {
        const struct memory_block *block = &memory->blocks[i];
        struct loam_backing_info info = loam_backing_get_info(block->backing);

        if (block->state == MEMORY_BLOCK_THERE && info.adoption == LOAM_ADOPTION_NONE && block->start.value < below &&
            (!found || block->start.value > next->start.value)) {
            *next = (struct reclaimed){.start = block->start,
                                       .bytes = block->bytes,
                                       .section = block->section,
                                       .unit_order = order_of(unit_bytes_of(block->backing) / LOAM_FRAME_BYTES),
                                       .locked = info.locked};
            found = true;
        }
    }
    loam_memory_block_unlock(memory);
    return found;
}

/* As take_frames, of the block: one that came since, and has its section's id, is another. */
static enum loam_error take_frames_of(struct loam_memory *memory, const struct reclaimed *block, uint32_t *order,
                                      struct loam_frame_block *frames)
{
    enum loam_error error = take_frames(memory, block->section, order, block->unit_order, frames);
    uint64_t start = frames->start.value << LOAM_FRAME_SHIFT;

    if (error == LOAM_OK && start - block->start.value >= block->bytes) {
        enum loam_error ignored = loam_frame_free(memory->frame, frames->start, frames->count_frames);

        (void)ignored;
        error = LOAM_ERROR_NOT_FOUND;
    }
    return error;
}

/* Give back what is free of a block. */
static enum loam_error reclaim_block(struct loam_memory *memory, const struct reclaimed *block, uint64_t bytes,
                                     uint64_t *given_bytes, struct loam_diag *diag)
{
    uint32_t order = LOAM_FRAME_ORDER_MAX;
    struct loam_frame_block frames;
    enum loam_error error = LOAM_OK;

    for (uint64_t left;
         error == LOAM_OK && (left = (bytes - *given_bytes) / LOAM_FRAME_BYTES) >> block->unit_order != 0;) {
        order = order_of(left) < order ? order_of(left) : order;
        error = take_frames_of(memory, block, &order, &frames);
        if (is_used_up(error)) {
            return LOAM_OK;
        }
        error = error == LOAM_OK
                    ? give_frames(memory, &frames, diag)
                    : loam_fail(diag, error, "reclaim: no free frames can be had: %s", loam_error_name(error));
        *given_bytes += error == LOAM_OK ? frames.count_frames * LOAM_FRAME_BYTES : 0;
    }
    return error;
}

enum loam_error loam_memory_reclaim(struct loam_memory *memory, uint64_t bytes, uint64_t *given_bytes,
                                    struct loam_diag *diag)
{
    bool any_locked = false, any_loose = false;
    enum loam_error error = LOAM_OK;
    struct reclaimed block = {0};

    if (given_bytes != NULL) {
        *given_bytes = 0;
    }
    if (memory == NULL || given_bytes == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "reclaim: NULL given where memory and a figure are wanted");
    }
    for (uint64_t below = LOAM_GPA_END; error == LOAM_OK && next_below(memory, below, &block);
         below = block.start.value) {
        any_locked |= block.locked;
        any_loose |= !block.locked;
        error = block.locked ? LOAM_OK : reclaim_block(memory, &block, bytes, given_bytes, diag);
    }
    return error == LOAM_OK && any_locked && !any_loose
               ? loam_fail(diag, LOAM_ERROR_INVALID, "reclaim: all memory is locked: it stays")
               : error;
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

/* Whatever its state: one that comes is in the map before it is THERE. With the lock. */
static bool has_backing(const struct memory_block *block)
{
    return block->backing != NULL;
}

enum loam_error loam_memory_backing(struct loam_memory *memory, uint32_t index, struct loam_backing_info *info)
{
    enum loam_error error = LOAM_ERROR_NOT_FOUND;

    if (info == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *info = loam_backing_get_info(NULL);
    if (memory == NULL) {
        return LOAM_ERROR_INVALID;
    }
    loam_memory_block_lock(memory);
    if (index < memory->block_capacity && has_backing(&memory->blocks[index])) {
        *info = loam_backing_get_info(memory->blocks[index].backing);
        error = LOAM_OK;
    }
    loam_memory_block_unlock(memory);
    return error;
}

/* From where the backing starts in its file on. */
static void add_file_offsets(const struct loam_memory *memory, struct loam_share *shares, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = shares[i].backing - 1;

        if (index < memory->block_capacity) {
            shares[i].backing_offset += loam_backing_get_info(memory->blocks[index].backing).fd_offset;
        }
    }
}

/* With the lock, so that no backing goes meanwhile. */
static enum loam_error shares_of(struct loam_memory *memory, const struct loam_gpa_view *view, int *fds,
                                 struct loam_share *shares, uint32_t capacity, uint32_t *count)
{
    enum loam_error error;

    for (uint32_t i = 0; i < memory->block_capacity; i++) {
        fds[i] = has_backing(&memory->blocks[i]) ? loam_backing_get_info(memory->blocks[i].backing).fd : -1;
    }
    error = loam_gpa_view_shares(view, fds, memory->block_capacity, shares, capacity, count);
    add_file_offsets(memory, shares, *count < capacity ? *count : capacity);
    return error;
}

enum loam_error loam_memory_shares(struct loam_memory *memory, struct loam_share *shares, uint32_t capacity,
                                   uint32_t *count)
{
    const struct loam_gpa_view *view;
    enum loam_error error;
    void *fds;

    if (memory == NULL || count == NULL) {
        return loam_gpa_view_shares(NULL, NULL, 0, shares, capacity, count);
    }
    if (!loam_prim_heap_alloc(memory->block_capacity * sizeof(int), &fds)) {
        return LOAM_ERROR_SYSTEM;
    }
    loam_memory_block_lock(memory);
    view = loam_gpa_map_acquire(memory->map);
    error = shares_of(memory, view, fds, shares, capacity, count);
    loam_gpa_map_release(memory->map, view);
    loam_memory_block_unlock(memory);
    loam_prim_heap_free(fds);
    return error;
}

enum loam_error loam_memory_update_slots(struct loam_memory *memory, struct loam_slots *slots, struct loam_diag *diag)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    enum loam_error error = loam_slots_update(slots, view, diag);
    enum loam_error ignored = loam_gpa_map_release(loam_memory_map(memory), view);

    (void)ignored; /* of NULL there is no view, and the first call has said so */
    return error;
}

/* *count entries or fewer are to be expected. */
static enum loam_error write_e820(const struct loam_gpa_view *view, uint32_t *count, void *rows, uint64_t room_bytes)
{
    struct loam_e820_entry *entries;
    enum loam_error error;
    void *memory;

    if (!loam_prim_heap_alloc((*count + 1) * sizeof *entries, &memory)) {
        *count = 0;
        return LOAM_ERROR_SYSTEM;
    }
    entries = (struct loam_e820_entry *)memory;
    error = loam_gpa_view_e820(view, entries, *count + 1, count);
    if (error == LOAM_OK) {
        error = loam_e820_write(entries, *count, rows, room_bytes);
    }
    loam_prim_heap_free(memory);
    return error;
}

enum loam_error loam_memory_e820(struct loam_memory *memory, void *rows, uint64_t room_bytes, uint32_t *count)
{
    const struct loam_gpa_view *view;
    enum loam_error error;

    if (count != NULL) {
        *count = 0;
    }
    if (memory == NULL || count == NULL || (rows == NULL && room_bytes > 0)) {
        return LOAM_ERROR_INVALID;
    }
    view = loam_gpa_map_acquire(memory->map);
    error = loam_gpa_view_e820(view, NULL, 0, count);
    error = error == LOAM_OK || error == LOAM_ERROR_EXHAUSTED ? write_e820(view, count, rows, room_bytes) : error;
    loam_gpa_map_release(memory->map, view);
    return error;
}

struct loam_frame_cache *loam_memory_thread_cache(struct loam_memory *memory)
{
    return memory != NULL ? loam_memory_thread_find(&memory->threads) : NULL;
}

/* --- Validation ------------------------------------------------------------------------------------------------- */

static enum loam_error validate_block(struct loam_memory *memory, uint32_t index, struct loam_diag *diag)
{
    const struct memory_block *block = &memory->blocks[index];
    struct loam_backing_info info = loam_backing_get_info(block->backing);
    loam_pfn start = loam_pfn_from_gpa(block->start, LOAM_FRAME_SHIFT);
    struct loam_frame_section section;

    if (block->state != MEMORY_BLOCK_THERE && block->state != MEMORY_BLOCK_LEFT) {
        return LOAM_OK;
    }
    if (info.gpa.value != block->start.value || info.bytes != block->bytes) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "backing %" PRIu32 " is not what was wanted", index);
    }
    if (block->has_section &&
        (loam_frame_section_find(memory->frame, start, &section) != LOAM_OK || section.id != block->section ||
         section.start.value != start.value || section.managed_frames != block->bytes / LOAM_FRAME_BYTES)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "the frames of backing %" PRIu32 " are not one section", index);
    }
    return LOAM_OK;
}

static enum loam_error validate_part(const struct loam_memory *memory, uint32_t part, struct loam_diag *diag)
{
    const struct loam_plan_part *planned = &memory->plan.parts[part];
    const struct memory_block *block = &memory->blocks[part];

    return block->state == MEMORY_BLOCK_THERE && block->start.value == planned->start.value &&
                   block->bytes == planned->bytes && loam_backing_get_info(block->backing).pages == planned->pages
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_CORRUPT, "the backing of part %" PRIu32 " is not what was planned", part);
}

/* Regions with other backings are the caller's own. */
static enum loam_error validate_region(const struct loam_memory *memory, const struct loam_region *region,
                                       struct loam_diag *diag)
{
    uint32_t index = region->backing - 1; /* of no block where backing is 0, a device's too */
    const struct memory_block *block;

    if (index >= memory->block_capacity) {
        return LOAM_OK;
    }
    block = &memory->blocks[index];
    if (!has_backing(block) || !loam_fits(region->backing_offset, region->bytes, block->bytes) ||
        region->start.value != block->start.value + region->backing_offset ||
        region->hva != (char *)loam_backing_get_info(block->backing).hva + region->backing_offset) {
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

static enum loam_error validate_blocks(struct loam_memory *memory, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    loam_memory_block_lock(memory);
    for (uint32_t part = 0; error == LOAM_OK && part < memory->plan.part_count; part++) {
        error = validate_part(memory, part, diag);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < memory->block_capacity; i++) {
        error = validate_block(memory, i, diag);
    }
    if (error == LOAM_OK) {
        error = validate_regions(memory, diag);
    }
    loam_memory_block_unlock(memory);
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
    return error == LOAM_OK ? validate_blocks(memory, diag) : error;
}
