// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator in play with its oracle: a turn chooses an operation, its arguments and its misuse, carries it
 * out and has it judged. What chooses is the caller's: a random generator, or the bytes that a fuzzer made. One thread.
 *
 * All metadata lies in one arena, so that the whole can be copied elsewhere.
 */
#ifndef LOAM_FRAME_PLAY_H
#define LOAM_FRAME_PLAY_H

#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tests/allocator/frame_oracle.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_PLAY_SECTIONS   6
#define FRAME_PLAY_CACHES     3
#define FRAME_PLAY_BATCH      150   /* blocks at most: more than two words of a bitmap */
#define FRAME_PLAY_SLOT_BYTES 16384 /* for one section's metadata */

struct frame_play_geometry {
    const char *name;
    struct loam_frame_config config;                       /* capacities are set by the play */
    struct loam_frame_range sections[FRAME_PLAY_SECTIONS]; /* count_frames 0: none */
    bool dynamic;                                          /* sections come and go */
    uint32_t cache_count;                                  /* at most FRAME_PLAY_CACHES */
};

struct frame_play {
    const struct frame_play_geometry *geometry;
    struct frame_oracle oracle;
    char *arena;
    size_t arena_bytes;
    struct loam_frame *frame;
    struct loam_frame_cache *caches[FRAME_PLAY_CACHES]; /* NULL: not made */
    uint32_t favourite;                                 /* among the caches */
    bool cache_used[FRAME_PLAY_CACHES];                 /* since it was drained */
    bool slot_used[FRAME_PLAY_SECTIONS];
    uint32_t slot_of_section[FRAME_PLAY_SECTIONS];
    uint64_t served, refused;         /* requests */
    loam_pfn batch[FRAME_PLAY_BATCH]; /* what the last batch brought */
    size_t batch_count;
    uint32_t batch_order;
    const char *doing; /* the operation under way */
    char why[700];     /* what a turn that failed was at, and what was wrong with it */

    uint64_t (*choose)(struct frame_play *play, uint64_t limit); /* a value below limit, which is not 0 */
    uint64_t state;                                              /* the chooser's own */
    const uint8_t *bytes;                                        /* likewise */
    size_t byte_count;
};

/* Make the allocator and the sections of the geometry; choose and its state are the caller's to set, before. */
bool frame_play_make(struct frame_play *play, const struct frame_play_geometry *geometry);

/* Free what frame_play_make made. */
void frame_play_drop(struct frame_play *play);

/* One operation, judged. fill_percent: how likely an allocation is before a free. */
bool frame_play_turn(struct frame_play *play, uint64_t fill_percent);

/* Add or remove a section, or empty one. */
bool frame_play_section(struct frame_play *play);

/* Make, drain or destroy a cache. */
bool frame_play_cache(struct frame_play *play);

/* loam_frame_validate, and the figures. */
bool frame_play_validate(struct frame_play *play);

/* Carry the metadata to another address. */
bool frame_play_move(struct frame_play *play);

/* Everything can be freed, everything merges again, every section can go. */
bool frame_play_end(struct frame_play *play);

#endif
