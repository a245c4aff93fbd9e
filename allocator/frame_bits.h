// SPDX-License-Identifier: Apache-2.0
/*
 * The two bitmaps of one chunk of 512 frames, as pure functions over them. Two bits stand for each frame:
 *
 *     allocated last
 *         0      0    free
 *         1      0    allocated; its block goes on with the next frame
 *         1      1    the last frame of an untagged block, or a frame that the section does not manage
 *         0      1    the last frame of a tagged block
 *
 *     free       == ~(allocated | last)
 *     ends       == ~allocated | last        a block that holds the next frame starts there
 *
 * Positions are 0 to 511; 512 says that there is none. Any thread that owns the chunk; no state of its own.
 */
#ifndef LOAM_FRAME_BITS_H
#define LOAM_FRAME_BITS_H

#include "loam/frame.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define FRAME_MAP_WORDS (LOAM_FRAME_CHUNK_FRAMES / 64)

struct frame_map {
    uint64_t allocated[FRAME_MAP_WORDS];
    uint64_t last[FRAME_MAP_WORDS];
};

static_assert(sizeof(struct frame_map) == 128, "two cache lines a chunk");

enum frame_bits_kind { FRAME_BITS_FREE, FRAME_BITS_USED, FRAME_BITS_LAST, FRAME_BITS_ENDS };

static inline uint64_t frame_bits_word(const struct frame_map *map, enum frame_bits_kind kind, uint32_t word)
{
    switch (kind) {
    case FRAME_BITS_FREE:
        return ~(map->allocated[word] | map->last[word]);
    case FRAME_BITS_USED:
        return map->allocated[word] | map->last[word];
    case FRAME_BITS_LAST:
        return map->last[word];
    case FRAME_BITS_ENDS:
        return ~map->allocated[word] | map->last[word];
    }
    return 0;
}

static inline bool frame_bits_at(const struct frame_map *map, enum frame_bits_kind kind, uint32_t position)
{
    return (frame_bits_word(map, kind, position / 64) >> (position % 64)) & 1;
}

/* The lowest position of the kind at or above from; 512: none. */
static inline uint32_t frame_bits_next(const struct frame_map *map, enum frame_bits_kind kind, uint32_t from)
{
    uint64_t mask = UINT64_MAX << (from % 64);

    for (uint32_t word = from / 64; word < FRAME_MAP_WORDS; word++, mask = UINT64_MAX) {
        uint64_t bits = frame_bits_word(map, kind, word) & mask;

        if (bits != 0) {
            return word * 64 + (uint32_t)__builtin_ctzll(bits);
        }
    }
    return LOAM_FRAME_CHUNK_FRAMES;
}

/* One above the highest position of the kind below end; 0: none. */
static inline uint32_t frame_bits_previous_end(const struct frame_map *map, enum frame_bits_kind kind, uint32_t end)
{
    uint32_t word = end / 64;
    uint64_t bits = end % 64 == 0 ? 0 : frame_bits_word(map, kind, word) & ~(UINT64_MAX << (end % 64));

    while (bits == 0) {
        if (word == 0) {
            return 0;
        }
        word--;
        bits = frame_bits_word(map, kind, word);
    }
    return word * 64 + 64 - (uint32_t)__builtin_clzll(bits);
}

/* The bits of word that lie in [from, from + count); count is at least 1. */
static inline uint64_t frame_bits_mask(uint32_t word, uint32_t from, uint32_t count)
{
    uint32_t low = from > word * 64 ? from - word * 64 : 0;
    uint32_t high = from + count - word * 64 < 64 ? from + count - word * 64 : 64;

    return (UINT64_MAX << low) & (UINT64_MAX >> (64 - high));
}

/* Mark [from, from + count) as allocated, the last frame as the last of its block where ends says so. */
static inline void frame_bits_take(struct frame_map *map, uint32_t from, uint32_t count, bool ends)
{
    uint32_t last = from + count - 1;

    for (uint32_t word = from / 64; word <= last / 64; word++) {
        map->allocated[word] |= frame_bits_mask(word, from, count);
    }
    map->last[last / 64] |= (uint64_t)ends << (last % 64);
}

static inline void frame_bits_release(struct frame_map *map, uint32_t from, uint32_t count)
{
    for (uint32_t word = from / 64; word <= (from + count - 1) / 64; word++) {
        uint64_t keep = ~frame_bits_mask(word, from, count);

        map->allocated[word] &= keep;
        map->last[word] &= keep;
    }
}

static inline bool frame_bits_all_free(const struct frame_map *map, uint32_t from, uint32_t count)
{
    for (uint32_t word = from / 64; word <= (from + count - 1) / 64; word++) {
        if ((frame_bits_word(map, FRAME_BITS_USED, word) & frame_bits_mask(word, from, count)) != 0) {
            return false;
        }
    }
    return true;
}

static inline uint32_t frame_bits_count_free(const struct frame_map *map)
{
    uint32_t count = 0;

    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        count += (uint32_t)__builtin_popcountll(frame_bits_word(map, FRAME_BITS_FREE, word));
    }
    return count;
}

/* The lowest naturally aligned free block of 2^order frames, order 0 to 8; 512: none. */
static inline uint32_t frame_bits_find_order(const struct frame_map *map, uint32_t order)
{
    /* Bit n: a multiple of 2^order. */
    static const uint64_t starts[] = {
        UINT64_MAX,
        UINT64_C(0x5555555555555555),
        UINT64_C(0x1111111111111111),
        UINT64_C(0x0101010101010101),
        UINT64_C(0x0001000100010001),
        UINT64_C(0x0000000100000001),
    };

    if (order >= 6) {
        for (uint32_t from = 0; from < LOAM_FRAME_CHUNK_FRAMES; from += 1u << order) {
            if (frame_bits_all_free(map, from, 1u << order)) {
                return from;
            }
        }
        return LOAM_FRAME_CHUNK_FRAMES;
    }
    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        uint64_t bits = frame_bits_word(map, FRAME_BITS_FREE, word);

        for (uint32_t step = 0; step < order; step++) {
            bits &= bits >> (1u << step);
        }
        bits &= starts[order];
        if (bits != 0) {
            return word * 64 + (uint32_t)__builtin_ctzll(bits);
        }
    }
    return LOAM_FRAME_CHUNK_FRAMES;
}

#endif
