// SPDX-License-Identifier: Apache-2.0
/* libFuzzer: whatever program the file holds, the frame allocator answers as the oracle allows, and stays whole. */
#include "tests/fuzz/frame_fuzz.h"

#include "tests/allocator/frame_play.h"

#include <stdio.h>
#include <string.h>

#define ZONE_END (UINT64_C(1) << 20)
#define PFN_END  (UINT64_C(1) << 40)

enum { VALIDATE_TURNS = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Small, so that a short program fills them, and so that the oracle is quick. */
static const struct frame_play_geometry geometries[] = {
    {.name = "around 4 GiB", .sections = {{{ZONE_END - 700}, 1400}}},
    {.name = "around 4 GiB, caches", .sections = {{{ZONE_END - 700}, 1400}, {{300}, 80}}, .cache_count = 2},
    {.name = "reserve, caches",
     .config = {.dma32_reserve_frames = 400},
     .sections = {{{ZONE_END - 1024}, 1100}, {{40}, 300}},
     .cache_count = 3},
    {.name = "watermarks",
     .config = {.watermarks = {{100, 400}, {300, 300}}, .dma32_reserve_frames = 60},
     .sections = {{{ZONE_END - 512}, 1024}}},
    {.name = "watermarks, caches, sections come and go",
     .config = {.watermarks = {{100, 400}, {1, 512}}},
     .sections = {{{ZONE_END - 512}, 600}, {{1000}, 300}, {{1300}, 1}, {{ZONE_END + 100}, 500}, {{1301}, 700}},
     .dynamic = true,
     .cache_count = 2},
    {.name = "whole chunks", .sections = {{{ZONE_END}, 2048}, {{ZONE_END - 1024}, 1024}}, .cache_count = 2},
    {.name = "16 KiB frames, the last frames there are",
     .config = {.frame_shift = 14},
     .sections = {{{ZONE_END / 4 - 300}, 600}, {{PFN_END / 4 - 600}, 600}},
     .cache_count = 1},
    {.name = "tiny sections, 64 KiB frames",
     .config = {.frame_shift = 16, .dma32_reserve_frames = 2},
     .sections = {{{0}, 1}, {{5}, 16}, {{511}, 2}, {{ZONE_END / 16 - 3}, 6}, {{ZONE_END / 16 + 9}, 40}},
     .dynamic = true,
     .cache_count = 2},
};

/* As many bytes as the limit takes; zeros when the program is at its end. */
static uint64_t choose_from_bytes(struct frame_play *play, uint64_t limit)
{
    size_t bytes = limit <= 256 ? 1 : limit <= 65536 ? 2 : 8;
    uint64_t value = 0;

    for (; bytes > 0 && play->byte_count > 0; bytes--) {
        value = value << 8 | *play->bytes++;
        play->byte_count--;
    }
    return value % limit;
}

static bool take_turn(struct frame_play *play)
{
    uint64_t choice = choose_from_bytes(play, 64);

    if (choice == 0) {
        return frame_play_move(play);
    }
    if (choice < 4 && play->geometry->dynamic) {
        return frame_play_section(play);
    }
    if (choice < 7 && play->geometry->cache_count > 0) {
        return frame_play_cache(play);
    }
    return frame_play_turn(play, 60);
}

static bool run(struct frame_play *play, const struct frame_play_geometry *geometry)
{
    if (!frame_play_make(play, geometry)) {
        return false;
    }
    for (uint64_t turn = 1; play->byte_count > 0; turn++) {
        if (!take_turn(play) || (turn % VALIDATE_TURNS == 0 && !frame_play_validate(play))) {
            return false;
        }
    }
    return frame_play_validate(play) && frame_play_end(play);
}

const char *frame_fuzz_run(const uint8_t *data, size_t size)
{
    static char why[sizeof((struct frame_play *)0)->why];
    struct frame_play play = {.choose = choose_from_bytes};
    bool good;

    if (size == 0) {
        return NULL;
    }
    play.bytes = data + 1;
    play.byte_count = size - 1;
    good = run(&play, &geometries[data[0] % (sizeof geometries / sizeof geometries[0])]);
    memcpy(why, play.why, sizeof why);
    frame_play_drop(&play);
    return good ? NULL : why;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *why = frame_fuzz_run(data, size);

    if (why != NULL) {
        fprintf(stderr, "%s\n", why);
        __builtin_trap();
    }
    return 0;
}
