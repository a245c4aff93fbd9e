// SPDX-License-Identifier: Apache-2.0
/*
 * What the frame allocator's metadata looks like. Private to allocator/frame and allocator/frame_cache.
 *
 *     allocator memory:  struct loam_frame | room for lenders x cache_capacity | struct frame_section x capacity |
 *                        struct frame_index x capacity
 *     section metadata:  struct frame_chunk x chunks | struct frame_map x chunks
 *
 * Nothing here is a pointer: a section's metadata is found by its offset from the allocator, a chunk by a link, which
 * is its section's id and its index there. So the whole may lie at different addresses in different processes.
 *
 * Whoever calls a function of allocator/frame other than those of loam/frame.h holds the allocator's lock. A chunk with
 * an owner is lent: what stands there is asked of its lender (frame_lend.h). Members that others read or write without the
 * allocator's lock are marked (shared) and go through shared_load, shared_store and their like (atomic.h).
 */
#ifndef LOAM_FRAME_LAYOUT_H
#define LOAM_FRAME_LAYOUT_H

#include "allocator/frame/frame_bits.h"
#include "allocator/lock.h"
#include "loam/frame.h"

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#define LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define FRAME_HOT           static inline __attribute__((always_inline))

#define FRAME_CHUNK_ORDER 9
#define FRAME_BIG_ORDERS  (LOAM_FRAME_ORDER_MAX - FRAME_CHUNK_ORDER + 1) /* orders of whole chunks */

static_assert(LOAM_FRAME_CHUNK_FRAMES == 1 << FRAME_CHUNK_ORDER, "a chunk is one block of its order");

/*
 * Lists of chunks, in sets. 0 to 62: partly used chunks by fullness bucket and, within it, by the largest order that
 * may fit (bucket * FRAME_FITS + fit): the lowest list that will do is the fullest. 63: lent chunks without a free
 * frame; others are on no list then. From 64: free blocks of whole chunks by order; a lender has none.
 */
#define FRAME_BUCKETS      7
#define FRAME_FEW          16 /* free frames that a lent chunk has at least when it is taken from again */
#define FRAME_FITS         9
#define FRAME_LIST_WHOLE   (FRAME_FITS - 1) /* lent chunks that are wholly free and not kept, and a few others */
#define FRAME_LIST_FULL    63
#define FRAME_LIST_FREE    64
#define FRAME_LISTS        (FRAME_LIST_FREE + FRAME_BIG_ORDERS)
#define FRAME_LIST_KEPT    253 /* none: a chunk that came back whole, and is kept for the next who wants one */
#define FRAME_LIST_CURRENT 254 /* none: it is what a lender takes from */
#define FRAME_LIST_NONE    255
#define FRAME_LINK_NONE    UINT64_MAX

static_assert(FRAME_BUCKETS * FRAME_FITS <= FRAME_LIST_FULL, "a bit a list in one word");

enum frame_chunk_state {
    FRAME_CHUNK_INNER,   /* not the first chunk of a FREE or WHOLE piece; the rest of the descriptor means nothing */
    FRAME_CHUNK_FREE,    /* first of 2^(order - 9) free chunks, naturally aligned */
    FRAME_CHUNK_WHOLE,   /* first of 2^(order - 9) chunks, naturally aligned, that one allocated block covers */
    FRAME_CHUNK_PARTIAL, /* its bitmaps say what stands where; in other states they mean nothing */
};

/*
 * count == frame_bits_count(its bitmaps)       (PARTIAL; free frames: 0 to 511 but in a lent chunk)
 * no naturally aligned free block of an order above fit exists   (PARTIAL, on a list, nothing freed by others since)
 * the piece lies in [start - before_frames, start - before_frames + block_frames)    (WHOLE)
 * owner != 0  =>  it is PARTIAL, or FREE or WHOLE of order 9; a WHOLE one is a block of its own
 */
struct frame_chunk {
    union {
        struct {
            uint32_t previous_chunk;
            uint32_t next_chunk;
            uint16_t previous_section;
            uint16_t next_section;
        }; /* on a list */
        struct {
            uint32_t before_frames;
            uint32_t block_frames;
        }; /* WHOLE: of the block that the piece belongs to */
    };
    uint16_t owner;         /* whom it is lent to, a number from 1; 0: nobody (shared) */
    uint16_t freed_section; /* with freed_chunk */
    uint32_t count;         /* PARTIAL: free frames, blocks, tags (shared) */
    uint32_t freed_chunk;   /* lent: 0: nobody freed here of late; FRAME_FREED_LAST, or the next chunk like it */
    uint8_t state;          /* enum frame_chunk_state (shared) */
    uint8_t order;          /* FREE, WHOLE: 9 to 20; lent, FRAME_ORDER_LENT; current: FRAME_TAKING (shared) */
    uint8_t fit;            /* PARTIAL: 0 to 8 */
    uint8_t list;           /* (shared) */
    union {
        uint8_t tag; /* WHOLE, not lent: FRAME_YES: the block is tagged, and its last frame lies in this piece */
        uint8_t set; /* lent: the lender's (shared) */
    };
    uint8_t released; /* FRAME_YES: no backing; lent: 0 */
    uint8_t crossed;  /* lent: FRAME_ENTERED, FRAME_LEFT; that cannot change meanwhile */
    uint8_t lock;     /* lent: held by who changes what stands there (shared) */
};

#define FRAME_YES        0xff /* more than one bit away from 0 */
#define FRAME_ENTERED    0x35 /* the block of the chunk's first frame starts in the chunk before */
#define FRAME_LEFT       0xca /* the block of its last frame goes on in the chunk behind */
#define FRAME_FREED_LAST 1u   /* of freed_chunk; above it: an index + 2 */
#define FRAME_ORDER_LENT 0x59

static_assert(sizeof(struct frame_chunk) == 32, "with its bitmaps at most 0.32 bytes a frame");
static_assert(LOAM_FRAME_COUNT_MAX <= UINT32_MAX, "a block's length fits");

/* bit l of mask[l / 64] is set  <=>  head[l] != FRAME_LINK_NONE */
struct frame_lists {
    uint64_t mask[2];
    uint64_t head[FRAME_LISTS];
};

/* What the allocator knows of a section. Those above the blank line never change while it is there. */
struct frame_section {
    uint64_t range_start; /* first frame, those of the prefix included */
    uint64_t start;       /* first managed frame */
    uint64_t end;
    uint64_t first_chunk; /* start / 512: chunk numbers are absolute, indexes count from here */
    uint64_t chunk_count;
    uint64_t metadata_offset_bytes; /* from the allocator; wraps */
    uint64_t metadata_bytes;
    uint64_t seal; /* a sum over the above, for validate */

    uint64_t free_frames; /* those in lent chunks not counted */
    uint64_t free_top;    /* no frame at or above it is free, but in lent chunks */
    uint32_t id;
    uint32_t used;        /* 1: there; 0: the id may be given again */
    uint32_t next_unused; /* with used == 0: the next such id, or UINT32_MAX */
    uint32_t use;         /* FRAME_OPEN, FRAME_APART, FRAME_CLOSED */
};

#define FRAME_OPEN   0u
#define FRAME_APART  0x35u /* more than one bit away from either */
#define FRAME_CLOSED 0xcau

/* Sections in ascending order; index[n].start == section[index[n].id].range_start. */
struct frame_index {
    uint64_t start;
    uint32_t id;
    uint32_t zero;
};

/*
 * What blocks of one order, 0 to 6, are taken from: of one word of a chunk's bitmaps, all free blocks of the order are
 * marked as allocated at once: they are made. Those still to be had are ready. The others were handed out; those that
 * came back since are back, without a look at the chunk, and ready again when nothing else is. A bit for the first frame
 * of each.
 *
 * ready and back are disjoint; blocks in made and in neither are allocated
 */
struct frame_window {
    uint64_t ready;              /* (shared) */
    uint64_t back;               /* (shared) */
    uint64_t made;               /* (shared) */
    uint64_t base;               /* the frame of bit 0 (shared) */
    uint64_t link;               /* of the chunk; FRAME_LINK_NONE: there is none, and all else is 0 (shared) */
    uint64_t chunk_base;         /* its first frame */
    uint64_t chunk_offset_bytes; /* from the allocator; wraps */
    uint64_t map_offset_bytes;
};

#define FRAME_WINDOWS     7 /* orders whose blocks fit a word */
#define FRAME_KEPT_CHUNKS 8 /* chunks that came back whole, and are kept at hand */

/* What suspect may be, but for 0; see there. */
#define FRAME_SUSPECT 0xff00u

#define FRAME_ZONE_NONE LOAM_FRAME_ZONE_COUNT

/* Room for what a lender keeps of itself; its first word is 0 as long as nobody has it. */
#define FRAME_LENDER_BYTES 3008

static_assert(FRAME_LENDER_BYTES % 64 == 0, "each on lines of its own");

/* A chunk that is kept. */
struct frame_kept {
    uint64_t start;
    uint64_t chunk_offset_bytes; /* from the allocator; wraps */
    uint64_t link;
};

/* The cache behind plain calls: frame_front.h. */
struct frame_front {
    uint32_t live; /* a bit for each window in which something is made, and what is below */
    uint32_t chunk_count[LOAM_FRAME_ZONE_COUNT]; /* WHOLE chunks on FRAME_LIST_KEPT */
    struct frame_kept chunk[LOAM_FRAME_ZONE_COUNT][FRAME_KEPT_CHUNKS];
    struct frame_window window[FRAME_WINDOWS][LOAM_FRAME_ZONE_COUNT]; /* of links, base and bits alone */
};

/* Lists of a zone: of its chunks in open sections, backed or released; and of all others. */
enum { FRAME_LISTS_BACKED, FRAME_LISTS_RELEASED, FRAME_LISTS_WITHHELD, FRAME_LISTS_COUNT };

/*
 * free_frames[z] == sum over open sections of their free frames in zone z, and what is ready or back in the front
 * withheld_frames[z] == the same of other sections, of which nothing is in the front, nor lent
 * open_end == the end of the highest open section; 0: there is none
 * free_chunks == sum over free blocks of whole chunks of their chunks; released_chunks of those released
 * no two free pieces of chunks that would make one larger piece stand apart, unless one of them is spare[zone]
 * section_count == sections in use == entries of the index; unused ids form a list, those from id_top up are untouched
 */
struct loam_frame {
    alignas(64) struct loam_lock lock;

    alignas(64) uint64_t magic;
    uint64_t zone_end; /* first frame of zone NORMAL; a multiple of 512 */
    uint64_t pfn_end;  /* one above the last frame there can be */
    uint64_t dma32_reserve_frames;
    struct loam_frame_watermarks watermarks[LOAM_FRAME_ZONE_COUNT];
    uint64_t metadata_bytes;
    uint32_t version;
    uint32_t frame_shift;
    uint32_t section_capacity;
    uint32_t cache_capacity;
    uint64_t seal; /* a sum over the above, for attach and validate */

    uint32_t suspect; /* FRAME_SUSPECT: a holder of the lock died, and nothing is changed until all is found in order */
    uint32_t top_zone; /* NORMAL if open_end lies above zone_end, else DMA32 (shared) */
    uint32_t section_count;
    uint32_t id_top;
    uint32_t unused_id;                       /* UINT32_MAX: none */
    uint32_t memo;                            /* id of the section that was asked for last, a hint */
    uint32_t stopped;                         /* lenders that are stopped until the lock is given up */
    uint32_t lender_top;                      /* no lender of this index or above was ever there */
    uint32_t sharing;                         /* 1: an owner could not be stopped once; what is lent is everybody's */
    uint32_t pressure[LOAM_FRAME_ZONE_COUNT]; /* 1: between the watermarks (shared) */
    uint64_t free_frames[LOAM_FRAME_ZONE_COUNT];
    uint64_t lent_frames[LOAM_FRAME_ZONE_COUNT]; /* with what lenders count: free frames in lent chunks; wraps */
    uint64_t free_chunks;
    uint64_t released_chunks;
    uint64_t released_ever;                /* 1: a chunk was released once */
    uint64_t spare[LOAM_FRAME_ZONE_COUNT]; /* the piece freed last, not merged yet; FRAME_LINK_NONE: none */
    uint64_t withheld_frames[LOAM_FRAME_ZONE_COUNT];
    uint64_t open_end;
    struct frame_lists lists[LOAM_FRAME_ZONE_COUNT][FRAME_LISTS_COUNT];
    struct frame_front front;
};

#define FRAME_MAGIC   UINT64_C(0x656d617266204c31)
#define FRAME_VERSION 6

static_assert(sizeof(struct loam_frame) % 64 == 0, "lenders follow");
static_assert(sizeof(struct frame_window) == 64, "a line each");

/* A range of frames. */
struct frame_span {
    uint64_t start;
    uint64_t count;
};

/* --- Where things lie ------------------------------------------------------------------------------------------ */

static inline void *frame_address(const struct loam_frame *frame, uint64_t offset_bytes)
{
    return (void *)((uintptr_t)frame + offset_bytes);
}

/* The room of a lender, n below cache_capacity. */
static inline void *frame_lender_room(const struct loam_frame *frame, uint64_t n)
{
    return (void *)((uintptr_t)frame + sizeof *frame + n * FRAME_LENDER_BYTES);
}

static inline struct frame_section *frame_sections(const struct loam_frame *frame)
{
    return frame_lender_room(frame, frame->cache_capacity);
}

static inline struct frame_index *frame_indexes(const struct loam_frame *frame)
{
    return (struct frame_index *)(frame_sections(frame) + frame->section_capacity);
}

static inline struct frame_chunk *frame_chunks(const struct loam_frame *frame, const struct frame_section *section)
{
    return frame_address(frame, section->metadata_offset_bytes);
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

/* The neighbours of a chunk on its list. */
static inline uint64_t frame_chunk_previous(const struct frame_chunk *chunk)
{
    return chunk->previous_section == UINT16_MAX && chunk->previous_chunk == UINT32_MAX
               ? FRAME_LINK_NONE
               : (uint64_t)chunk->previous_section << 32 | chunk->previous_chunk;
}

static inline uint64_t frame_chunk_next(const struct frame_chunk *chunk)
{
    return chunk->next_section == UINT16_MAX && chunk->next_chunk == UINT32_MAX
               ? FRAME_LINK_NONE
               : (uint64_t)chunk->next_section << 32 | chunk->next_chunk;
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

static inline enum loam_frame_zone frame_zone_of_chunk(const struct loam_frame *frame,
                                                       const struct frame_section *section, uint64_t chunk)
{
    return frame_zone(frame, frame_chunk_start(section, chunk));
}

/* Of a PARTIAL chunk. */
static inline uint32_t frame_free_frames(const struct frame_chunk *chunk)
{
    return shared_load(chunk->count) & (FRAME_COUNT_BLOCK - 1);
}

static inline void frame_count(struct frame_chunk *chunk, uint32_t change)
{
    shared_store(chunk->count, chunk->count + change);
}

static inline uint64_t frame_piece_chunks(uint32_t order)
{
    return UINT64_C(1) << (order - FRAME_CHUNK_ORDER);
}

/* --- Sums ------------------------------------------------------------------------------------------------------ */

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

/*
 * The list of a partly used chunk that has free frames. Bucket 0 is for those that are hardly worth the trouble, and its
 * last list also for lent ones that are wholly free.
 */
static inline uint32_t frame_partial_list(uint32_t free_frames, uint32_t fit)
{
    /* By the largest order that fits: so many free frames that there are some blocks of it to be had. */
    static const uint16_t few[16] = {FRAME_FEW, FRAME_FEW, 32, 64, 192, 256, 256, 256, 256};
    uint32_t above = free_frames - FRAME_FEW;
    uint32_t bucket = free_frames < few[fit % 16] || free_frames == LOAM_FRAME_CHUNK_FRAMES
                          ? 0
                          : 1 + above * (FRAME_BUCKETS - 1) / (LOAM_FRAME_CHUNK_FRAMES - FRAME_FEW + 1);

    return bucket * FRAME_FITS + fit;
}

/* How many frames of [start, start + count) lie below 4 GiB. */
static inline uint64_t frame_dma32_part(const struct loam_frame *frame, uint64_t start, uint64_t count)
{
    return start >= frame->zone_end ? 0 : frame_min(frame->zone_end - start, count);
}

/* A value scattered over a word, by both halves of a product. */
static inline uint64_t frame_scatter(uint64_t value, uint64_t odd)
{
    unsigned __int128 product = (unsigned __int128)value * odd;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* A sum that any one bit changed changes, and other damage but for one time in 2^60. */
static inline uint64_t frame_seal(const uint64_t *values, size_t count)
{
    uint64_t sum = FRAME_MAGIC, odd = UINT64_C(0x9e3779b97f4a7c15);

#pragma GCC unroll 16
    for (size_t i = 0; i < count; i++, odd = odd * UINT64_C(0xbf58476d1ce4e5b9) + 2) {
        sum += frame_scatter(values[i], odd);
    }
    return sum;
}

static inline uint64_t frame_seal_of_section(const struct frame_section *section)
{
    uint64_t values[] = {section->range_start,   section->start,       section->end,
                         section->first_chunk,   section->chunk_count, section->metadata_offset_bytes,
                         section->metadata_bytes};

    return frame_seal(values, sizeof values / sizeof values[0]);
}

static inline uint64_t frame_seal_of_allocator(const struct loam_frame *frame)
{
    uint64_t values[] = {frame->magic,
                         frame->zone_end,
                         frame->pfn_end,
                         frame->dma32_reserve_frames,
                         frame->watermarks[0].low_frames,
                         frame->watermarks[0].high_frames,
                         frame->watermarks[1].low_frames,
                         frame->watermarks[1].high_frames,
                         frame->metadata_bytes,
                         (uint64_t)frame->version << 32 | frame->frame_shift,
                         (uint64_t)frame->section_capacity << 32 | frame->cache_capacity};

    return frame_seal(values, sizeof values / sizeof values[0]);
}

static const struct frame_window frame_window_none = {.link = FRAME_LINK_NONE};

/* Nothing is made. Member by member: others read it meanwhile. */
static inline void frame_window_reset(struct frame_window *window)
{
    shared_store(window->ready, 0);
    shared_store(window->back, 0);
    shared_store(window->made, 0);
    shared_store(window->base, 0);
}

/* The frames of the blocks of an order, 0 to 6, that start at the bits of a word. */
static inline uint64_t frame_spread(uint64_t starts, uint32_t order)
{
    return starts * (UINT64_MAX >> (64 - (1u << order)));
}

/* Of those frames, the last of each block. */
static inline uint64_t frame_ends(uint64_t starts, uint32_t order)
{
    return starts << ((1u << order) - 1);
}

#endif
