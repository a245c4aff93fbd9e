// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/frame_play_choose.h"

#include <stdio.h>

bool frame_play_judged(struct frame_play *play, bool judgement)
{
    if (!judgement) {
        snprintf(play->why, sizeof play->why, "%s: %s: %s", play->geometry->name, play->doing, play->oracle.why);
    }
    return judgement;
}

uint64_t frame_play_choose(struct frame_play *play, uint64_t limit)
{
    return play->choose(play, limit == 0 ? UINT64_MAX : limit);
}

bool frame_play_one_in(struct frame_play *play, uint64_t count)
{
    return frame_play_choose(play, count) == count - 1;
}

uint64_t frame_play_choose_pfn(struct frame_play *play)
{
    const struct loam_frame_range *range = &play->geometry->sections[frame_play_choose(play, FRAME_PLAY_SECTIONS)];
    uint64_t odd = frame_play_choose(play, 128);

    if (range->count_frames == 0) {
        range = &play->geometry->sections[0];
    }
    if (odd == 127) {
        return frame_play_choose(play, UINT64_MAX);
    }
    if (odd > 124) {
        return range->start.value + range->count_frames + frame_play_choose(play, 3);
    }
    return range->start.value + frame_play_choose(play, range->count_frames);
}

uint64_t frame_play_choose_count(struct frame_play *play)
{
    switch (frame_play_choose(play, 16)) {
    case 0:
    case 1:
        return 1 + frame_play_choose(play, 40);
    case 2:
    case 3:
        return 1 + frame_play_choose(play, 700);
    case 4:
        return 1 + frame_play_choose(play, 2500);
    case 5:
        return UINT64_C(1) << frame_play_choose(play, 12);
    case 6:
        return LOAM_FRAME_CHUNK_FRAMES * (1 + frame_play_choose(play, 3));
    case 7:
        return frame_play_one_in(play, 20) ? frame_play_choose(play, UINT64_MAX) : 2 + frame_play_choose(play, 2);
    default:
        return UINT64_C(1) << frame_play_choose(play, 5);
    }
}

uint32_t frame_play_choose_order(struct frame_play *play)
{
    switch (frame_play_choose(play, 32)) {
    case 0:
        return (uint32_t)frame_play_choose(play, 24);
    case 1:
    case 2:
        return 9;
    case 3:
    case 4:
        return (uint32_t)frame_play_choose(play, 9);
    default:
        return (uint32_t)frame_play_choose(play, frame_play_one_in(play, 3) ? 1 : 5);
    }
}

uint64_t frame_play_choose_limit(struct frame_play *play)
{
    switch (frame_play_choose(play, 6)) {
    case 0:
        return play->oracle.zone_end;
    case 1:
        return frame_play_choose_pfn(play);
    default:
        return 0;
    }
}

void frame_play_choose_shape(struct frame_play *play, struct loam_frame_request *request)
{
    bool natural = loam_is_power_of_two(request->count_frames) && request->count_frames <= LOAM_FRAME_ALIGN_MAX;

    switch (frame_play_choose(play, 8)) {
    case 0:
        request->align_frames = UINT64_C(1) << frame_play_choose(play, 10);
        break;
    case 1:
        request->align_frames = UINT64_C(1) << frame_play_choose(play, 21);
        break;
    case 2:
    case 3:
    case 4:
        request->align_frames = natural ? request->count_frames : 0;
        break;
    default:
        break;
    }
    if (frame_play_one_in(play, 6)) {
        request->boundary_frames = UINT64_C(1) << frame_play_choose(play, 14);
        while (request->boundary_frames < request->count_frames && request->boundary_frames < LOAM_FRAME_COUNT_MAX &&
               !frame_play_one_in(play, 50)) {
            request->boundary_frames *= 2;
        }
    }
}

void frame_play_choose_flags(struct frame_play *play, struct loam_frame_request *request)
{
    uint64_t odd = frame_play_choose(play, 64);

    if (odd < 6) {
        request->flags |= LOAM_FRAME_AT;
        request->at.value = frame_play_choose_pfn(play);
        request->align_frames = frame_play_one_in(play, 4) ? request->align_frames : 0;
        request->limit.value = frame_play_one_in(play, 4) ? request->limit.value : 0;
    }
    if (odd > 3 && odd < 10) {
        request->flags |= LOAM_FRAME_IN_SECTION;
        request->section = (uint32_t)frame_play_choose(play, FRAME_PLAY_SECTIONS + 1);
    }
    request->flags |= odd > 48 && odd < 56 ? LOAM_FRAME_BACKED : 0;
    request->flags |= odd > 54 && odd < 60 ? LOAM_FRAME_RELEASED : 0;
    request->flags |= odd == 60 ? 1u << frame_play_choose(play, 32) : 0;
    request->align_frames = odd == 61 ? frame_play_choose(play, UINT64_MAX) : request->align_frames;
    request->boundary_frames = odd == 62 ? frame_play_choose(play, UINT64_MAX) : request->boundary_frames;
    request->count_frames = odd == 63 && frame_play_one_in(play, 2) ? 0 : request->count_frames;
}

struct frame_play_place frame_play_choose_block(struct frame_play *play)
{
    uint64_t at = frame_play_choose_pfn(play);
    struct frame_play_place place = {0};

    place.count = frame_oracle_block(&play->oracle, at, &place.start);
    if (place.count == 0) {
        place.start = at;
    }
    return place;
}

struct frame_play_place frame_play_choose_wrong(struct frame_play *play)
{
    struct frame_play_place place = frame_play_choose_block(play);

    switch (frame_play_choose(play, 8)) {
    case 0:
        place.count = frame_play_choose(play, UINT64_MAX);
        break;
    case 1:
        place.start = frame_play_choose(play, UINT64_MAX);
        break;
    case 2:
        place.start += 1;
        place.count -= 1;
        break;
    case 3:
        place.count += frame_play_choose(play, 40);
        break;
    case 4:
        place.count *= 2;
        break;
    case 5:
        place = (struct frame_play_place){frame_play_choose_pfn(play), frame_play_choose_count(play)};
        break;
    default:
        place.count += frame_play_choose(play, 3) - 1;
        break;
    }
    return place;
}

struct loam_frame_cache *frame_play_choose_cache(struct frame_play *play)
{
    uint64_t i = frame_play_choose(play, 2 * FRAME_PLAY_CACHES + 2);

    /* One of them most often, so that it comes to hold whole chunks. */
    i = i >= FRAME_PLAY_CACHES + 2 ? play->favourite : i;

    if (i >= FRAME_PLAY_CACHES || play->caches[i] == NULL) {
        return NULL;
    }
    play->cache_used[i] = true;
    frame_oracle_caches_used(&play->oracle);
    return play->caches[i];
}
