// SPDX-License-Identifier: Apache-2.0
/* RAM is taken away from the guest, and stays the backing's. */
#include "loam/memory.h"

#include "allocator/gpa_map_keeper.h"
#include "allocator/memory_block.h"

#include <inttypes.h>

/* Whether the range can be RAM of one block at all, and is all there still. */
static enum loam_error check_range(struct loam_memory *memory, loam_gpa start, uint64_t bytes, struct loam_diag *diag)
{
    const struct loam_gpa_view *view;
    struct loam_piece piece;
    const struct memory_block *block;
    uint32_t count;
    bool within;

    if (!loam_gpa_range_valid(start, bytes) || !loam_is_aligned(start.value | bytes, LOAM_REGION_ALIGN_BYTES)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%#" PRIx64 " bytes at GPA %#" PRIx64
                         " to be removed: ask for multiples of 4 KiB, at least one",
                         bytes, start.value);
    }
    loam_memory_block_lock(memory);
    block = loam_memory_block_holding(memory, start);
    within = block != NULL && block->state == MEMORY_BLOCK_THERE &&
             loam_fits(start.value - block->start.value, bytes, block->bytes);
    loam_memory_block_unlock(memory);
    view = loam_gpa_map_acquire(memory->map);
    within = within && loam_gpa_view_pieces(view, start, bytes, LOAM_ACCESS_READ, &piece, 1, &count) == LOAM_OK;
    loam_gpa_map_release(memory->map, view);
    return within
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                           "%#" PRIx64 " bytes at GPA %#" PRIx64 " to be removed: not all of that is RAM of one part",
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
                       ? loam_memory_block_held(memory, start, bytes, "to be removed", diag)
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
