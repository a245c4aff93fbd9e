// SPDX-License-Identifier: Apache-2.0
/*
 * What the frame allocator's metadata looks like. Private to frame*.c.
 *
 *     allocator memory:  struct loam_frame | struct frame_section x capacity | struct frame_index x capacity
 *     section metadata:  struct frame_chunk x chunks | struct frame_map x chunks
 *
 * Nothing here is a pointer: a section's metadata is found by its offset from the allocator, a chunk by a link, which
 * is its section's id and its index there. So the whole may lie at different addresses in different processes.
 *
 * Whoever calls a function of frame*.c other than those of loam/frame.h holds the allocator's lock.
 */
#ifndef LOAM_FRAME_LAYOUT_H
#define LOAM_FRAME_LAYOUT_H

#include "allocator/frame_bits.h"
#include "loam/frame.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_CHUNK_ORDER 9
#define FRAME_BIG_ORDERS  (LOAM_FRAME_ORDER_MAX - FRAME_CHUNK_ORDER + 1) /* orders of whole chunks */

static_assert(LOAM_FRAME_CHUNK_FRAMES == 1 << FRAME_CHUNK_ORDER, "a chunk is one block of its order");

/*
 * Lists of chunks, one set a zone. 0 to 62: partly used chunks by fullness bucket and, within it, by the largest order
 * that may fit (bucket * FRAME_FITS + fit): the lowest list that will do is the fullest. From 64: free blocks of whole
 * chunks by order.
 */
#define FRAME_BUCKETS   7
#define FRAME_FITS      9
#define FRAME_LIST_FREE 64
#define FRAME_LISTS     (FRAME_LIST_FREE + FRAME_BIG_ORDERS)
#define FRAME_LIST_NONE 255
#define FRAME_LINK_NONE UINT64_MAX

static_assert(FRAME_BUCKETS * FRAME_FITS < FRAME_LIST_FREE, "a bit a list in one word");

enum frame_chunk_state {
    FRAME_CHUNK_INNER,   /* not the first chunk of a FREE or WHOLE piece; the rest of the descriptor means nothing */
    FRAME_CHUNK_FREE,    /* first of 2^(order - 9) free chunks, naturally aligned */
    FRAME_CHUNK_WHOLE,   /* first of 2^(order - 9) chunks, naturally aligned, that one allocated block covers */
    FRAME_CHUNK_PARTIAL, /* its bitmaps say what stands where; in other states they mean nothing */
};

/*
 * free_frames == free bits of the chunk's bitmaps, in 0 to 511     (PARTIAL)
 * list != FRAME_LIST_NONE  <=>  state == FREE, or state == PARTIAL and free_frames > 0
 * no naturally aligned free block of an order above fit exists in the chunk     (PARTIAL)
 * block_start <= the piece < block_start + block_frames     (WHOLE)
 */
struct frame_chunk {
    union {
        struct {
            uint64_t previous;
            uint64_t next;
        }; /* on a list */
        struct {
            uint64_t block_start;
            uint64_t block_frames;
        }; /* WHOLE: the block that the piece belongs to */
    };
    uint16_t free_frames; /* PARTIAL */
    uint8_t state;        /* enum frame_chunk_state */
    uint8_t order;        /* FREE, WHOLE: 9 to 20 */
    uint8_t fit;          /* PARTIAL: 0 to 8 */
    uint8_t list;
    uint8_t tag; /* WHOLE: of the block, if its last frame lies in this piece */
    uint8_t zero[9];
};

static_assert(sizeof(struct frame_chunk) == 32, "with its bitmaps at most 0.32 bytes a frame");

/* What the allocator knows of a section. Those above the blank line never change while it is there. */
struct frame_section {
    uint64_t range_start; /* first frame, those of the prefix included */
    uint64_t start;       /* first managed frame */
    uint64_t end;
    uint64_t first_chunk; /* start / 512: chunk numbers are absolute, indexes count from here */
    uint64_t chunk_count;
    int64_t metadata_offset_bytes; /* from the allocator */
    uint64_t metadata_bytes;
    uint64_t seal; /* a sum over the above, so that validation need not trust them */

    uint64_t free_frames;
    uint64_t free_top; /* no frame at or above it is free */
    uint32_t id;
    uint32_t used;        /* 1: there; 0: the id may be given again */
    uint32_t next_unused; /* with used == 0: the next such id, or UINT32_MAX */
    uint32_t zero;
};

/* Sections in ascending order; index[n].start == section[index[n].id].range_start. */
struct frame_index {
    uint64_t start;
    uint32_t id;
    uint32_t zero;
};

/*
 * free_frames[z] == sum over sections of their free frames in zone z
 * free_chunks == sum over free blocks of whole chunks of their chunks
 * bit l of list_mask[z][l / 64] is set  <=>  list[z][l] != FRAME_LINK_NONE
 * no two free pieces of chunks that would make one larger piece stand apart, unless one of them is spare[zone]
 * section_count == sections in use == entries of the index; unused ids form a list, those from id_top up are untouched
 */
struct loam_frame {
    alignas(64) atomic_uint lock; /* 0: free */

    alignas(64) uint64_t magic;
    uint64_t zone_end; /* first frame of zone NORMAL; a multiple of 512 */
    uint64_t pfn_end;  /* one above the last frame there can be */
    uint64_t dma32_reserve_frames;
    uint64_t metadata_bytes;
    uint32_t frame_shift;
    uint32_t section_capacity;
    uint64_t seal; /* a sum over the above */

    uint64_t free_frames[LOAM_FRAME_ZONE_COUNT];
    uint64_t free_chunks;
    uint32_t section_count;
    uint32_t id_top;
    uint32_t unused_id; /* UINT32_MAX: none */
    uint32_t zero;
    uint64_t spare[LOAM_FRAME_ZONE_COUNT]; /* the piece freed last, not merged yet; FRAME_LINK_NONE: none */
    uint64_t list_mask[LOAM_FRAME_ZONE_COUNT][2];
    uint64_t list[LOAM_FRAME_ZONE_COUNT][FRAME_LISTS];
};

#define FRAME_MAGIC UINT64_C(0x656d617266204c31)

static_assert(sizeof(struct loam_frame) % 64 == 0, "section records follow");
static_assert(ATOMIC_INT_LOCK_FREE == 2, "the lock works between processes");

/* A range of frames. */
struct frame_span {
    uint64_t start;
    uint64_t count;
};

static inline struct frame_section *frame_sections(const struct loam_frame *frame)
{
    return (struct frame_section *)((uintptr_t)frame + sizeof *frame);
}

static inline struct frame_index *frame_indexes(const struct loam_frame *frame)
{
    return (struct frame_index *)(frame_sections(frame) + frame->section_capacity);
}

static inline struct frame_chunk *frame_chunks(const struct loam_frame *frame, const struct frame_section *section)
{
    return (struct frame_chunk *)((uintptr_t)frame + (uintptr_t)section->metadata_offset_bytes);
}

static inline size_t frame_chunks_bytes(uint64_t chunk_count)
{
    return (chunk_count * sizeof(struct frame_chunk) + 63) / 64 * 64;
}

static inline struct frame_map *frame_map(const struct loam_frame *frame, const struct frame_section *section,
                                          uint64_t chunk)
{
    uintptr_t maps = (uintptr_t)frame_chunks(frame, section) + frame_chunks_bytes(section->chunk_count);

    return (struct frame_map *)maps + chunk;
}

static inline uint64_t frame_link(const struct frame_section *section, uint64_t chunk)
{
    return (uint64_t)section->id << 32 | chunk;
}

/* First frame of a chunk; below section->start where that lies inside the chunk. */
static inline uint64_t frame_chunk_start(const struct frame_section *section, uint64_t chunk)
{
    return (section->first_chunk + chunk) << FRAME_CHUNK_ORDER;
}

static inline uint64_t frame_chunk_index(const struct frame_section *section, uint64_t pfn)
{
    return (pfn >> FRAME_CHUNK_ORDER) - section->first_chunk;
}

static inline uint32_t frame_offset(uint64_t pfn)
{
    return (uint32_t)(pfn % LOAM_FRAME_CHUNK_FRAMES);
}

static inline enum loam_frame_zone frame_zone(const struct loam_frame *frame, uint64_t pfn)
{
    return pfn < frame->zone_end ? LOAM_FRAME_ZONE_DMA32 : LOAM_FRAME_ZONE_NORMAL;
}

static inline uint64_t frame_piece_chunks(uint32_t order)
{
    return UINT64_C(1) << (order - FRAME_CHUNK_ORDER);
}

static inline uint32_t frame_log2_floor(uint64_t value)
{
    return 63 - (uint32_t)__builtin_clzll(value);
}

static inline uint32_t frame_log2_ceil(uint64_t value)
{
    return value == 1 ? 0 : frame_log2_floor(value - 1) + 1;
}

static inline uint64_t frame_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t frame_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The list of a partly used chunk that has free frames. */
static inline uint32_t frame_partial_list(const struct frame_chunk *chunk)
{
    uint32_t bucket = chunk->free_frames * (uint32_t)FRAME_BUCKETS / LOAM_FRAME_CHUNK_FRAMES;

    return bucket * FRAME_FITS + chunk->fit;
}

/* How many frames of [start, start + count) lie below 4 GiB. */
static inline uint64_t frame_dma32_part(const struct loam_frame *frame, uint64_t start, uint64_t count)
{
    return start >= frame->zone_end ? 0 : frame_min(frame->zone_end - start, count);
}

/* A checksum (splitmix64's finaliser, chained): any one bit changed changes it. */
static inline uint64_t frame_seal(const uint64_t *values, size_t count)
{
    uint64_t sum = FRAME_MAGIC;

    for (size_t i = 0; i < count; i++) {
        sum ^= values[i];
        sum = (sum ^ (sum >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        sum = (sum ^ (sum >> 27)) * UINT64_C(0x94d049bb133111eb);
        sum ^= sum >> 31;
    }
    return sum;
}

static inline uint64_t frame_seal_of_section(const struct frame_section *section)
{
    uint64_t values[] = {section->range_start,   section->start,       section->end,
                         section->first_chunk,   section->chunk_count, (uint64_t)section->metadata_offset_bytes,
                         section->metadata_bytes};

    return frame_seal(values, sizeof values / sizeof values[0]);
}

static inline uint64_t frame_seal_of_allocator(const struct loam_frame *frame)
{
    uint64_t values[] = {frame->magic,          frame->zone_end,
                         frame->pfn_end,        frame->dma32_reserve_frames,
                         frame->metadata_bytes, (uint64_t)frame->frame_shift << 32 | frame->section_capacity};

    return frame_seal(values, sizeof values / sizeof values[0]);
}

#endif
