// SPDX-License-Identifier: Apache-2.0
/*
 * Requests and frees with the allocator's lock held. Private to frame*.c. The public functions of loam/frame.h and the
 * slow paths of caches are these between a lock and an unlock; errors are those of loam/frame.h.
 */
#ifndef LOAM_FRAME_BLOCK_H
#define LOAM_FRAME_BLOCK_H

#include "allocator/frame/frame_spot.h"

/* 2^order frames at their natural alignment, backed; order too large: a request that is refused. */
static inline struct loam_frame_request frame_request_of_order(uint32_t order, loam_pfn limit)
{
    uint64_t count = order <= LOAM_FRAME_ORDER_MAX ? UINT64_C(1) << order : 0;

    return (struct loam_frame_request){
        .count_frames = count, .align_frames = count, .limit = limit, .flags = LOAM_FRAME_BACKED};
}

/* *block is zero on failure. */
enum loam_error loam_frame_block_alloc(struct loam_frame *frame, const struct loam_frame_request *request,
                                       struct loam_frame_block *block);

enum loam_error loam_frame_block_free(struct loam_frame *frame, uint64_t start, uint64_t count);

/*
 * Free blocks of 2^order frames from starts[*done] on, until all count are freed or one is at fault. *done counts on.
 */
enum loam_error loam_frame_block_free_many(struct loam_frame *frame, uint32_t order, const loam_pfn *starts,
                                           size_t count, size_t *done);

/* Free the first done of starts, blocks of a batch that was not served as a whole, and zero them. */
void loam_frame_block_free_again(struct loam_frame *frame, uint32_t order, loam_pfn *starts, size_t done);

/*
 * The section in which exactly [start, start + count) is an allocated block; none of its chunks is lent from now on.
 * Errors also as loam_frame_lend_recall.
 */
enum loam_error loam_frame_block_find(struct loam_frame *frame, uint64_t start, uint64_t count,
                                      struct frame_section **section);

/*
 * Whether pfn is allocated, what lies ready in a lender's hands not counted, and the block that holds it. spot: the
 * head of its piece.
 */
bool loam_frame_block_at(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t pfn,
                         struct frame_span *block);

/*
 * Make [start, start + first) and, unless second is 0, the second frames behind it of the block [start, start + count),
 * which was found; all bear its tag. What is left over is freed, what comes to it is free. Cannot fail.
 */
void loam_frame_block_reshape(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count,
                              uint64_t first, uint64_t second);

/* Free frames below 4 GiB that a request which may not enter the reserve may take. */
uint64_t loam_frame_block_budget(const struct loam_frame *frame);

/* What a block says of itself: LOAM_FRAME_BLOCK_.... */
uint32_t loam_frame_block_flags(const struct loam_frame *frame, uint64_t start, bool released);

#endif
