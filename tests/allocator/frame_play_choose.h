// SPDX-License-Identifier: Apache-2.0
/* What the play's own files share: how arguments are chosen, good ones and bad ones. */
#ifndef LOAM_FRAME_PLAY_CHOOSE_H
#define LOAM_FRAME_PLAY_CHOOSE_H

#include "tests/allocator/frame_play.h"

struct frame_play_place {
    uint64_t start, count;
};

static inline loam_pfn pfn(uint64_t value)
{
    return loam_pfn_from_u64(value);
}

/* Hands the judgement on; where it is false, says in why what was going on. */
bool frame_play_judged(struct frame_play *play, bool judgement);

/* A value below limit; any but the last, if limit is 0. */
uint64_t frame_play_choose(struct frame_play *play, uint64_t limit);

/* True once in count times. */
bool frame_play_one_in(struct frame_play *play, uint64_t count);

/* A frame in a section of the geometry, now and then right beside it, or anywhere. */
uint64_t frame_play_choose_pfn(struct frame_play *play);

uint64_t frame_play_choose_count(struct frame_play *play);

/* Of a block: small ones most often, and those of a chunk. */
uint32_t frame_play_choose_order(struct frame_play *play);

uint64_t frame_play_choose_limit(struct frame_play *play);

/* Alignment and boundary of a request; then its flags, and what makes it malformed. */
void frame_play_choose_shape(struct frame_play *play, struct loam_frame_request *request);
void frame_play_choose_flags(struct frame_play *play, struct loam_frame_request *request);

/* A block that stands, or, where none does, a free place of no frames. */
struct frame_play_place frame_play_choose_block(struct frame_play *play);

/* What is probably no block: another start, another count. */
struct frame_play_place frame_play_choose_wrong(struct frame_play *play);

/* A cache, or NULL: the allocator itself. Whoever asks for one uses it. */
struct loam_frame_cache *frame_play_choose_cache(struct frame_play *play);

#endif
