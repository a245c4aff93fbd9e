// SPDX-License-Identifier: Apache-2.0
/*
 * How blocks in lent chunks are freed, by whoever frees them. Private to allocator/frame_cache.
 *
 * The block is free in its chunk's bitmaps at once. A chunk that is filed where it does not belong after that is filed
 * anew: by its owner at once if it was he, or else when he needs more, by way of the list `freed` of his cache.
 */
#ifndef LOAM_FRAME_LOAN_FREE_H
#define LOAM_FRAME_LOAN_FREE_H

#include "allocator/frame_cache/frame_cache.h"

/* --- By the owner of a cache, entered or with the allocator's lock --------------------------------------------- */

/*
 * Free exactly the block [start, start + count) in a lent chunk, whoever's. LOAM_ERROR_INVALID: there is none.
 * LOAM_ERROR_NOT_FOUND: the allocator knows, with its lock.
 */
enum loam_error loam_frame_loan_give(struct loam_frame_cache *cache, uint64_t start, uint64_t count);

/* A chunk of the cache's own that is one block is kept. False: it is none, or there is no room. */
bool loam_frame_loan_give_whole(struct loam_frame_cache *cache, uint64_t start, uint64_t count);

/* Free count blocks of one frame each from start on, within a word of a lent chunk. False: not so, whatever the reason. */
bool loam_frame_loan_give_run(struct loam_frame_cache *cache, uint64_t start, uint32_t count);

/* --- By anybody, with the allocator's lock --------------------------------------------------------------------- */

/*
 * Free exactly the block [start, start + count) in a lent chunk that is everybody's. LOAM_ERROR_BUSY: its lock cannot be
 * had. LOAM_ERROR_INVALID: there is no such block.
 */
enum loam_error loam_frame_loan_free(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                     uint64_t count);

/* Whether the block that starts there, in a lent chunk, is ready or back. */
bool loam_frame_loan_holds(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start);

/* --- With the chunk's lock --------------------------------------------------------------------------------------- */

/* Put the chunk, whose freed_chunk is 0, on the list of those in which others freed. */
void loam_frame_loan_note(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t link);

#endif
