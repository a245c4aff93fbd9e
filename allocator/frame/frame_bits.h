// SPDX-License-Identifier: Apache-2.0
/*
 * The two bitmaps of one chunk of 512 frames, as functions over them. Two bits stand for each frame:
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
 * The words of both lie side by side, so that a frame's two bits are in one cache line.
 *
 * One thread at a time writes a chunk's bitmaps, but others may read what stands at blocks of their own meanwhile. So
 * words are read and written as a whole, and in an order in which a block's neighbours never look different: `last` is
 * set before `allocated`, and cleared after it. Either way a frame that ends a block is seen to end one all along.
 *
 * Positions are 0 to 511; 512 says that there is none.
 *
 * A chunk keeps count of its free frames, of its blocks (frames that are last) and of those with a tag: three figures
 * that no one bit of the bitmaps can change without changing one of them. They lie in one word, so that who changes the
 * bitmaps adds one sum.
 */
#ifndef LOAM_FRAME_BITS_H
#define LOAM_FRAME_BITS_H

#include "allocator/atomic.h"
#include "loam/frame.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define FRAME_MAP_WORDS (LOAM_FRAME_CHUNK_FRAMES / 64)

struct frame_word {
    uint64_t allocated;
    uint64_t last;
};

struct frame_map {
    struct frame_word word[FRAME_MAP_WORDS];
};

static_assert(sizeof(struct frame_map) == 128, "two cache lines a chunk");

enum frame_bits_kind { FRAME_BITS_FREE, FRAME_BITS_USED, FRAME_BITS_LAST, FRAME_BITS_ENDS };

/* As by one load: what was read of the two bitmaps. */
static inline struct frame_word frame_bits_read(const struct frame_map *map, uint32_t word)
{
    return (struct frame_word){shared_load(map->word[word].allocated), shared_load(map->word[word].last)};
}

static inline uint64_t frame_bits_of(struct frame_word word, enum frame_bits_kind kind)
{
    switch (kind) {
    case FRAME_BITS_FREE:
        return ~(word.allocated | word.last);
    case FRAME_BITS_USED:
        return word.allocated | word.last;
    case FRAME_BITS_LAST:
        return word.last;
    case FRAME_BITS_ENDS:
        return ~word.allocated | word.last;
    }
    return 0;
}

static inline uint64_t frame_bits_word(const struct frame_map *map, enum frame_bits_kind kind, uint32_t word)
{
    return frame_bits_of(frame_bits_read(map, word), kind);
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

/* The bits of word that lie in [from, from + count); count is at least 1, and the word meets the range. */
static inline uint64_t frame_bits_mask(uint32_t word, uint32_t from, uint32_t count)
{
    uint32_t low = from > word * 64 ? from - word * 64 : 0;
    uint32_t high = from + count - word * 64 < 64 ? from + count - word * 64 : 64;

    return (UINT64_MAX << low) & (UINT64_MAX >> (64 - high));
}

/* One more of each in a chunk's count. */
#define FRAME_COUNT_FREE  1u
#define FRAME_COUNT_BLOCK (1u << 10)
#define FRAME_COUNT_TAG   (1u << 20)

static inline uint32_t frame_bits_count(const struct frame_map *map)
{
    uint32_t count = 0;

    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        struct frame_word bits = frame_bits_read(map, word);

        count += (uint32_t)__builtin_popcountll(~(bits.allocated | bits.last)) * FRAME_COUNT_FREE +
                 (uint32_t)__builtin_popcountll(bits.last) * FRAME_COUNT_BLOCK +
                 (uint32_t)__builtin_popcountll(bits.last & ~bits.allocated) * FRAME_COUNT_TAG;
    }
    return count;
}

/* What the last frame of a block, or of a part of one, adds to the count as such: nothing if the block goes on. */
static inline uint32_t frame_bits_count_end(const struct frame_map *map, uint32_t position)
{
    struct frame_word bits = frame_bits_read(map, position / 64);
    uint32_t last = bits.last >> position % 64 & 1, tagged = last & ~(uint32_t)(bits.allocated >> position % 64);

    return last * FRAME_COUNT_BLOCK + tagged * FRAME_COUNT_TAG;
}

/* Set bits of one word that are clear. */
static inline void frame_bits_set(struct frame_map *map, uint32_t word, uint64_t allocated, uint64_t last)
{
    struct frame_word old = frame_bits_read(map, word);

    /* Release: a reader who sees allocated sees last; it takes part in no other order. */
    shared_store(map->word[word].last, old.last | last);
    shared_store_release(map->word[word].allocated, old.allocated | allocated);
}

static inline void frame_bits_clear(struct frame_map *map, uint32_t word, uint64_t mask)
{
    struct frame_word old = frame_bits_read(map, word);

    /* Release: likewise, the other way round. */
    shared_store(map->word[word].allocated, old.allocated & ~mask);
    shared_store_release(map->word[word].last, old.last & ~mask);
}

/* All frames are free. */
static inline void frame_bits_zero(struct frame_map *map)
{
    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        shared_store(map->word[word].allocated, 0);
        shared_store(map->word[word].last, 0);
    }
}

/*
 * Mark [from, from + count), which is free, as allocated, the last frame as the last of its block where ends says so.
 * Returns what that adds to the count; it wraps.
 */
static inline uint32_t frame_bits_take(struct frame_map *map, uint32_t from, uint32_t count, bool ends)
{
    uint32_t last = from + count - 1;

    for (uint32_t word = last / 64 + 1; word-- > from / 64;) {
        uint64_t end = word == last / 64 ? (uint64_t)ends << (last % 64) : 0;

        frame_bits_set(map, word, frame_bits_mask(word, from, count), end);
    }
    return ends * FRAME_COUNT_BLOCK - count * FRAME_COUNT_FREE;
}

/* Free a block, or the part of one that lies in the chunk. Returns what that adds to the count. */
static inline uint32_t frame_bits_release(struct frame_map *map, uint32_t from, uint32_t count)
{
    uint32_t change = count * FRAME_COUNT_FREE - frame_bits_count_end(map, from + count - 1);

    if (from % 64 + count <= 64) {
        frame_bits_clear(map, from / 64, UINT64_MAX >> (64 - count) << from % 64);
        return change;
    }
    for (uint32_t word = from / 64; word <= (from + count - 1) / 64; word++) {
        frame_bits_clear(map, word, frame_bits_mask(word, from, count));
    }
    return change;
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

/* Of free bits, the first of each naturally aligned run of 2^order, order 0 to 6. */
static inline uint64_t frame_bits_starts(uint64_t free_bits, uint32_t order)
{
    /* Bit n: a multiple of 2^order. */
    static const uint64_t starts[] = {
        UINT64_MAX,
        UINT64_C(0x5555555555555555),
        UINT64_C(0x1111111111111111),
        UINT64_C(0x0101010101010101),
        UINT64_C(0x0001000100010001),
        UINT64_C(0x0000000100000001),
        1,
    };

    for (uint32_t step = 0; step < order; step++) {
        free_bits &= free_bits >> (1u << step);
    }
    return free_bits & starts[order];
}

/* The lowest naturally aligned free block of 2^order frames, order 0 to 8; 512: none. */
static inline uint32_t frame_bits_find_order(const struct frame_map *map, uint32_t order)
{
    if (order > 6) {
        for (uint32_t from = 0; from < LOAM_FRAME_CHUNK_FRAMES; from += 1u << order) {
            if (frame_bits_all_free(map, from, 1u << order)) {
                return from;
            }
        }
        return LOAM_FRAME_CHUNK_FRAMES;
    }
    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        uint64_t bits = frame_bits_starts(frame_bits_word(map, FRAME_BITS_FREE, word), order);

        if (bits != 0) {
            return word * 64 + (uint32_t)__builtin_ctzll(bits);
        }
    }
    return LOAM_FRAME_CHUNK_FRAMES;
}

/* The order of the free, naturally aligned run of a word that holds bit; 6: all of the word is free. */
static inline uint32_t frame_bits_order_at(uint64_t free_bits, uint32_t bit)
{
    uint64_t ones = free_bits & free_bits >> 1, twos = ones & ones >> 2, threes = twos & twos >> 4;
    uint64_t fours = threes & threes >> 8, fives = fours & fours >> 16;

    /* A run of one order holds a run of each below, so that they can be counted instead of compared. */
    return (uint32_t)((ones >> (bit & 62) & 1) + (twos >> (bit & 60) & 1) + (threes >> (bit & 56) & 1) +
                      (fours >> (bit & 48) & 1) + (fives >> (bit & 32) & 1) + (free_bits == UINT64_MAX));
}

/* Whether the frames of one word at mask are one block, or the part of one in that word: its end at end, or 0. */
static inline bool frame_bits_is_part(struct frame_word bits, uint64_t mask, uint64_t end)
{
    return (bits.last & mask) == end && ((bits.allocated | end) & mask) == mask;
}

/*
 * Whether [from, from + count) is exactly one block, count at least 1. entered: the block that holds the chunk's first
 * frame started in the chunk before. O(words of the block).
 */
static inline bool frame_bits_is_block(const struct frame_map *map, uint32_t from, uint32_t count, bool entered)
{
    uint32_t last = from + count - 1;
    bool starts = from == 0 ? !entered : frame_bits_at(map, FRAME_BITS_ENDS, from - 1);

    if (!starts || last >= LOAM_FRAME_CHUNK_FRAMES) {
        return false;
    }
    if (from / 64 == last / 64) {
        return frame_bits_is_part(frame_bits_read(map, from / 64), UINT64_MAX >> (64 - count) << from % 64,
                                  UINT64_C(1) << last % 64);
    }
    for (uint32_t word = from / 64; word <= last / 64; word++) {
        uint64_t end = word == last / 64 ? UINT64_C(1) << (last % 64) : 0;

        if (!frame_bits_is_part(frame_bits_read(map, word), frame_bits_mask(word, from, count), end)) {
            return false;
        }
    }
    return true;
}

#endif
