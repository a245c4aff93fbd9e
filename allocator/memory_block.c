// SPDX-License-Identifier: Apache-2.0
#include "allocator/memory_block.h"

#include "allocator/host/prim.h"

#include <inttypes.h>

/* It lies in no shared memory, and what it guards is whole between any two stores. */
void loam_memory_block_lock(struct loam_memory *memory)
{
    bool in_order = loam_lock_take(&memory->lock);

    (void)in_order;
}

void loam_memory_block_unlock(struct loam_memory *memory)
{
    loam_lock_give(&memory->lock);
}

enum loam_error loam_memory_block_heap(size_t bytes, const char *what, void **memory, struct loam_diag *diag)
{
    return loam_prim_heap_alloc(bytes, memory)
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "%zu bytes of heap wanted for %s", bytes, what);
}

struct memory_block *loam_memory_block_holding(struct loam_memory *memory, loam_gpa gpa)
{
    for (uint32_t i = 0; i < memory->block_capacity; i++) {
        struct memory_block *block = &memory->blocks[i];

        if (block->state != MEMORY_BLOCK_NONE && gpa.value - block->start.value < block->bytes) {
            return block;
        }
    }
    return NULL;
}

/* --- Making and unmaking ----------------------------------------------------------------------------------------- */

static enum loam_error add_section(struct loam_memory *memory, struct memory_block *block, struct loam_diag *diag)
{
    loam_pfn start = loam_pfn_from_gpa(block->start, LOAM_FRAME_SHIFT);
    uint64_t count_frames = block->bytes / LOAM_FRAME_BYTES;
    size_t bytes = loam_frame_section_bytes(memory->frame, start, count_frames);
    enum loam_error error = loam_memory_block_heap(bytes, "a section's metadata", &block->section_memory, diag);

    if (error != LOAM_OK) {
        return error;
    }
    error = loam_frame_section_add_closed(memory->frame, start, count_frames, block->section_memory, bytes,
                                          &block->section);
    block->has_section = error == LOAM_OK;
    return error == LOAM_OK
               ? LOAM_OK
               : loam_fail(diag, error, "the frame allocator refuses %" PRIu64 " frames from %#" PRIx64 " on: %s",
                           count_frames, start.value, loam_error_name(error));
}

/* Others, and a child of fork(2), see what is there or nothing: what goes is no longer named when it goes. */
static void empty(struct loam_memory *memory, struct memory_block *block)
{
    struct memory_block gone;

    loam_memory_block_lock(memory);
    gone = *block;
    block->section_memory = NULL;
    block->backing = NULL;
    block->has_section = false;
    loam_memory_block_unlock(memory);
    loam_memory_block_drop(&gone);
}

enum loam_error loam_memory_block_make(struct loam_memory *memory, struct memory_block *block,
                                       const struct loam_backing_request *request, struct loam_diag *diag)
{
    struct loam_backing *backing;
    enum loam_error error = loam_backing_create(request, &backing, diag);

    if (error != LOAM_OK) {
        return error;
    }
    loam_memory_block_lock(memory);
    block->backing = backing;
    loam_memory_block_unlock(memory);
    error = add_section(memory, block, diag);
    if (error != LOAM_OK) {
        empty(memory, block);
    }
    return error;
}

enum loam_error loam_memory_block_unmake(struct loam_memory *memory, struct memory_block *block, struct loam_diag *diag)
{
    enum loam_error error =
        block->has_section ? loam_frame_section_remove(memory->frame, block->section, NULL) : LOAM_OK;

    if (error != LOAM_OK) {
        return loam_fail(diag, error,
                         "%#" PRIx64 " bytes at GPA %#" PRIx64
                         ": the frame allocator keeps their section: %s: try again",
                         block->bytes, block->start.value, loam_error_name(error));
    }
    empty(memory, block);
    return LOAM_OK;
}

void loam_memory_block_drop(struct memory_block *block)
{
    loam_prim_heap_free(block->section_memory);
    loam_backing_destroy(block->backing);
    block->section_memory = NULL;
    block->backing = NULL;
    block->has_section = false;
}

/* --- Who holds it ------------------------------------------------------------------------------------------------ */

/* What others release meanwhile is not found any more. */
enum loam_error loam_memory_block_held(struct loam_memory *memory, loam_gpa start, uint64_t bytes, const char *what,
                                       struct loam_diag *diag)
{
    struct loam_dma_entry entry;

    if (loam_dma_next(memory->dma, start, &entry) == LOAM_OK && entry.buffer.gpa.value < start.value + bytes) {
        return loam_fail(diag, LOAM_ERROR_BUSY,
                         "%#" PRIx64 " bytes at GPA %#" PRIx64 " %s: a buffer of \"%s\", %#" PRIx64
                         " bytes at GPA %#" PRIx64 ", lies there: %s",
                         bytes, start.value, what, entry.owner, entry.buffer.bytes, entry.buffer.gpa.value,
                         entry.kept ? "it is never released" : "release it first");
    }
    return loam_fail(diag, LOAM_ERROR_BUSY,
                     "%#" PRIx64 " bytes at GPA %#" PRIx64 " %s: frames of it are allocated past the ledger: "
                     "free them first",
                     bytes, start.value, what);
}
