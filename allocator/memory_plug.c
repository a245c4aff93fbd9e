// SPDX-License-Identifier: Apache-2.0
/*
 * Memory that comes and goes while the guest runs. Everything that can be refused comes first: backing, metadata, a
 * closed section, the table of the map, the slots that it leads to. Then the hypervisor is asked, and what follows cannot
 * fail.
 */
#include "loam/memory.h"

#include "allocator/gpa_map_keeper.h"
#include "allocator/memory_block.h"

#include <inttypes.h>

#define PLUG_ALIGN_BYTES (128 * LOAM_MIB) /* what Linux on x86-64 brings online at once, at least */

/* --- The map and the hypervisor ----------------------------------------------------------------------------------- */

static enum loam_error map_refuses(const struct loam_gpa_change *change, enum loam_error error, struct loam_diag *diag)
{
    return loam_fail(diag, error, "%#" PRIx64 " bytes at GPA %#" PRIx64 ": the GPA map refuses them: %s",
                     change->region.bytes, change->region.start.value,
                     error == LOAM_ERROR_BUSY        ? "readers hold every other table: try again"
                     : error == LOAM_ERROR_EXHAUSTED ? "it has no room for more rows"
                     : error == LOAM_ERROR_OVERLAP   ? "something is there already"
                                                     : loam_error_name(error));
}

/* Change the map and the slots (NULL: none) together, or neither. *generation: of the map with the change. */
static enum loam_error carry_out(struct loam_memory *memory, const struct loam_gpa_change *change,
                                 struct loam_slots *slots, uint64_t *generation, struct loam_diag *diag)
{
    struct loam_slots_change *slots_change = NULL;
    const struct loam_gpa_view *view;
    enum loam_error error = loam_gpa_map_keeper_prepare(memory->map, change, &view);

    if (error != LOAM_OK) {
        return map_refuses(change, error, diag);
    }
    if (slots != NULL && (error = loam_slots_prepare(slots, view, &slots_change, diag)) == LOAM_OK) {
        error = loam_slots_commit(slots, &slots_change, diag);
    }
    if (error == LOAM_OK) {
        *generation = loam_gpa_view_generation(view);
        loam_gpa_map_keeper_publish(memory->map, view);
    } else {
        loam_gpa_map_keeper_abandon(memory->map);
    }
    return error;
}

static struct loam_gpa_change change_of(const struct loam_memory *memory, const struct memory_block *block,
                                        enum loam_change_kind kind)
{
    return (struct loam_gpa_change){.kind = kind,
                                    .region = {.start = block->start,
                                               .bytes = block->bytes,
                                               .hva = loam_backing_get_info(block->backing).hva,
                                               .backing = (uint32_t)(block - memory->blocks) + 1,
                                               .type = LOAM_REGION_RAM,
                                               .access = LOAM_ACCESS_WRITE}};
}

static void set_state(struct loam_memory *memory, struct memory_block *block, enum memory_block_state state)
{
    loam_memory_block_lock(memory);
    block->state = state;
    loam_memory_block_unlock(memory);
}

/* Of a closed section. Metadata that a dead thread left behind is refused, as by every other call; it stays closed then. */
static void set_use(struct loam_memory *memory, const struct memory_block *block, enum loam_frame_use use)
{
    enum loam_error ignored = loam_frame_section_set_use(memory->frame, block->section, use);

    (void)ignored;
}

/* --- Plug --------------------------------------------------------------------------------------------------------- */

static uint64_t plug_align(const struct loam_backing_request *wanted)
{
    bool gigantic = wanted->pages == LOAM_PAGES_1G ||
                    (wanted->pages == LOAM_PAGES_AUTO && loam_is_aligned(wanted->bytes, LOAM_GIB));

    return gigantic ? LOAM_GIB : PLUG_ALIGN_BYTES;
}

/* Where all memory and all devices end; 4 GiB at least. With the lock. */
static uint64_t top_of(struct loam_memory *memory)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(memory->map);
    uint64_t top = LOAM_DMA32_END_BYTES;
    struct loam_region last;

    if (loam_gpa_view_count(view) > 0 && loam_gpa_view_region(view, loam_gpa_view_count(view) - 1, &last) == LOAM_OK &&
        last.start.value + last.bytes > top) {
        top = last.start.value + last.bytes;
    }
    loam_gpa_map_release(memory->map, view);
    for (uint32_t i = 0; i < memory->block_capacity; i++) {
        const struct memory_block *block = &memory->blocks[i];

        if (block->state != MEMORY_BLOCK_NONE && block->start.value + block->bytes > top) {
            top = block->start.value + block->bytes;
        }
    }
    return top;
}

static bool overlaps(const struct loam_memory *memory, loam_gpa start, uint64_t bytes)
{
    bool any = false;

    for (uint32_t i = 0; i < memory->block_capacity; i++) {
        const struct memory_block *block = &memory->blocks[i];

        any = any || (block->state != MEMORY_BLOCK_NONE && start.value < block->start.value + block->bytes &&
                      block->start.value < start.value + bytes);
    }
    return any;
}

static enum loam_error check_place(const struct loam_memory *memory, loam_gpa start, uint64_t bytes,
                                   struct loam_diag *diag)
{
    if (!loam_gpa_range_valid(start, bytes) || start.value < LOAM_DMA32_END_BYTES) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%#" PRIx64 " bytes at GPA %#" PRIx64
                         " to be plugged: ask for a range from 4 GiB up to 2^%d, not empty",
                         bytes, start.value, LOAM_GPA_BITS);
    }
    return overlaps(memory, start, bytes)
               ? loam_fail(diag, LOAM_ERROR_OVERLAP,
                           "%#" PRIx64 " bytes at GPA %#" PRIx64 " to be plugged: something is there already", bytes,
                           start.value)
               : LOAM_OK;
}

/* A place among the blocks, and one in the guest's address space, that nobody else gets. */
static enum loam_error reserve_place(struct loam_memory *memory, const struct loam_backing_request *wanted,
                                     struct memory_block **reserved, struct loam_diag *diag)
{
    uint32_t i = memory->plan.part_count;
    loam_gpa start = wanted->gpa;
    enum loam_error error;
    bool full = false;

    loam_memory_block_lock(memory);
    if (start.value == 0) {
        start.value = loam_align_up(top_of(memory), plug_align(wanted));
        full = wanted->bytes > 0 && !loam_fits(start.value, wanted->bytes, LOAM_GPA_END);
    }
    error = full ? loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                             "%#" PRIx64 " bytes to be plugged: nothing is left between GPA %#" PRIx64
                             ", where all else ends, and 2^%d: name a place",
                             wanted->bytes, start.value, LOAM_GPA_BITS)
                 : check_place(memory, start, wanted->bytes, diag);
    while (i < memory->block_capacity && memory->blocks[i].state != MEMORY_BLOCK_NONE) {
        i++;
    }
    if (error == LOAM_OK && i == memory->block_capacity) {
        error = loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                          "%#" PRIx64 " bytes to be plugged: there are %" PRIu32
                          " blocks already: unplug some, or plug larger ones",
                          wanted->bytes, memory->block_capacity);
    }
    if (error == LOAM_OK) {
        *reserved = &memory->blocks[i];
        **reserved = (struct memory_block){.state = MEMORY_BLOCK_COMING, .start = start, .bytes = wanted->bytes};
    }
    loam_memory_block_unlock(memory);
    return error;
}

/* The block is reserved, and stays so if this fails. */
static enum loam_error fill_place(struct loam_memory *memory, struct memory_block *block,
                                  const struct loam_plug_request *request, struct loam_diag *diag)
{
    enum loam_frame_use use = request->open ? LOAM_FRAME_USE_OPEN : LOAM_FRAME_USE_APART;
    struct loam_backing_request wanted = request->backing;
    struct loam_gpa_change change;
    uint64_t ignored_generation;
    enum loam_error error;

    wanted.gpa = block->start;
    if (wanted.name == NULL && wanted.sharing != LOAM_SHARING_PRIVATE && wanted.adoption == LOAM_ADOPTION_NONE) {
        wanted.name = "loam-plugged";
    }
    error = loam_memory_block_make(memory, block, &wanted, diag);
    if (error != LOAM_OK) {
        return error;
    }
    change = change_of(memory, block, LOAM_CHANGE_INSERT);
    error = carry_out(memory, &change, request->slots, &ignored_generation, diag);
    if (error != LOAM_OK) {
        enum loam_error ignored = loam_memory_block_unmake(memory, block, NULL);

        (void)ignored; /* what is left of it is there to be unplugged */
        return error;
    }
    set_use(memory, block, use);
    return LOAM_OK;
}

enum loam_error loam_memory_plug(struct loam_memory *memory, const struct loam_plug_request *request,
                                 struct loam_backing_info *info, struct loam_diag *diag)
{
    struct memory_block *block = NULL;
    enum loam_error error;

    if (info != NULL) {
        *info = loam_backing_get_info(NULL);
    }
    if (memory == NULL || request == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "plug: NULL given where memory and a request are wanted");
    }
    error = reserve_place(memory, &request->backing, &block, diag);
    if (error != LOAM_OK) {
        return error;
    }
    error = fill_place(memory, block, request, diag);
    if (error == LOAM_OK && info != NULL) {
        *info = loam_backing_get_info(block->backing);
    }
    set_state(memory, block,
              error == LOAM_OK         ? MEMORY_BLOCK_THERE
              : block->backing != NULL ? MEMORY_BLOCK_LEFT
                                       : MEMORY_BLOCK_NONE);
    return error;
}

/* --- Unplug ------------------------------------------------------------------------------------------------------- */

/* The block that starts there is this thread's alone from now on. *left: it is out of the map already. */
static enum loam_error begin_unplug(struct loam_memory *memory, loam_gpa start, struct memory_block **begun, bool *left,
                                    struct loam_diag *diag)
{
    enum loam_error error = LOAM_ERROR_NOT_FOUND;
    struct memory_block *block;

    loam_memory_block_lock(memory);
    block = loam_memory_block_holding(memory, start);
    if (block != NULL && block->start.value == start.value) {
        bool at_work = block->state == MEMORY_BLOCK_COMING || block->state == MEMORY_BLOCK_GOING;

        error = (uint32_t)(block - memory->blocks) < memory->plan.part_count ? LOAM_ERROR_NOT_PERMITTED
                : at_work                                                    ? LOAM_ERROR_BUSY
                                                                             : LOAM_OK;
    }
    if (error == LOAM_OK) {
        *left = block->state == MEMORY_BLOCK_LEFT;
        block->state = MEMORY_BLOCK_GOING;
        *begun = block;
    }
    loam_memory_block_unlock(memory);
    return error == LOAM_OK
               ? LOAM_OK
               : loam_fail(diag, error, "GPA %#" PRIx64 " to be unplugged: %s", start.value,
                           error == LOAM_ERROR_NOT_FOUND       ? "no block that was plugged starts there"
                           : error == LOAM_ERROR_NOT_PERMITTED ? "it is a part of the plan: use loam_memory_remove"
                                                               : "another thread plugs or unplugs it");
}

/* Whether the map has all of the block. */
static bool is_whole(struct loam_memory *memory, const struct memory_block *block)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(memory->map);
    uint32_t ignored;
    enum loam_error error = loam_gpa_view_pieces(view, block->start, block->bytes, LOAM_ACCESS_READ, NULL, 0, &ignored);

    loam_gpa_map_release(memory->map, view);
    return error == LOAM_OK || error == LOAM_ERROR_EXHAUSTED;
}

/* Nobody gets a frame of the block any more, and nobody has one. *use is what the section was for. */
static enum loam_error close_block(struct loam_memory *memory, const struct memory_block *block,
                                   enum loam_frame_use *use, struct loam_diag *diag)
{
    loam_pfn start = loam_pfn_from_gpa(block->start, LOAM_FRAME_SHIFT);
    struct loam_frame_section section;
    enum loam_error error = loam_frame_section_find(memory->frame, start, &section);

    *use = section.use;
    if (error == LOAM_OK) {
        error = loam_frame_section_set_use(memory->frame, block->section, LOAM_FRAME_USE_CLOSED);
    }
    if (error == LOAM_OK) {
        error = loam_frame_section_find(memory->frame, start, &section);
    }
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "%#" PRIx64 " bytes at GPA %#" PRIx64 " to be unplugged: the frame allocator: %s",
                         block->bytes, block->start.value, loam_error_name(error));
    }
    if (section.free_frames == section.managed_frames) {
        return LOAM_OK;
    }
    return is_whole(memory, block)
               ? loam_memory_block_held(memory, block->start, block->bytes, "to be unplugged", diag)
               : loam_fail(diag, LOAM_ERROR_BUSY,
                           "%#" PRIx64 " bytes at GPA %#" PRIx64
                           " to be unplugged: part of it was taken away by loam_memory_remove: the rest stays",
                           block->bytes, block->start.value);
}

/* Out of the map and the hypervisor, or as it was. */
static enum loam_error leave(struct loam_memory *memory, struct memory_block *block, struct loam_slots *slots,
                             struct loam_diag *diag)
{
    struct loam_gpa_change change = change_of(memory, block, LOAM_CHANGE_REMOVE);
    enum loam_frame_use use;
    enum loam_error error = close_block(memory, block, &use, diag);

    if (error == LOAM_OK) {
        error = carry_out(memory, &change, slots, &block->left_generation, diag);
    }
    if (error != LOAM_OK) {
        set_use(memory, block, use);
    }
    return error;
}

/* The host's memory, of a block that is out of the map, once nobody reads what the map said before. */
static enum loam_error give_back(struct loam_memory *memory, struct memory_block *block, struct loam_diag *diag)
{
    struct loam_lock_patience patience = {0};

    while (!loam_gpa_map_keeper_settled(memory->map, block->left_generation)) {
        if (!loam_lock_pass_time(&patience)) {
            return loam_fail(diag, LOAM_ERROR_BUSY,
                             "%#" PRIx64 " bytes at GPA %#" PRIx64
                             ": the guest has them no more, but somebody holds a view of the map from before: release "
                             "it, and unplug again",
                             block->bytes, block->start.value);
        }
    }
    return loam_memory_block_unmake(memory, block, diag);
}

enum loam_error loam_memory_unplug(struct loam_memory *memory, loam_gpa start, struct loam_slots *slots,
                                   struct loam_diag *diag)
{
    struct memory_block *block = NULL;
    bool left = false;
    enum loam_error error;

    if (memory == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "unplug: NULL given where memory is wanted");
    }
    error = begin_unplug(memory, start, &block, &left, diag);
    if (error != LOAM_OK) {
        return error;
    }
    if (!left && (error = leave(memory, block, slots, diag)) != LOAM_OK) {
        set_state(memory, block, MEMORY_BLOCK_THERE);
        return error;
    }
    /* Whatever was shown in between: the block is no slot when its memory goes. */
    if (left && slots != NULL) {
        error = loam_memory_update_slots(memory, slots, diag);
    }
    error = error == LOAM_OK ? give_back(memory, block, diag) : error;
    set_state(memory, block, error == LOAM_OK ? MEMORY_BLOCK_NONE : MEMORY_BLOCK_LEFT);
    return error;
}
