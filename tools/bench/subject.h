// SPDX-License-Identifier: Apache-2.0
/*
 * What is measured, Loam's frame allocator through a cache, the same without one, the reference, and the same under a
 * spin lock, behind one set of calls: each loop that is timed is written once. The calls are static inline and their tables constants, so that a
 * loop that is inlined with a table calls the allocator directly.
 *
 * A place is where a block starts, as the allocator says it: a frame number for Loam, an address for the reference.
 * Threads: a subject belongs to one, except as thread_bench.c uses its allocator.
 */
#ifndef LOAM_BENCH_SUBJECT_H
#define LOAM_BENCH_SUBJECT_H

#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tools/bench/bench.h"
#include "tools/bench/seed.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SUBJECT_INLINE static inline __attribute__((always_inline))
#define SUBJECT_LIMIT  (LOAM_DMA32_END_BYTES >> LOAM_FRAME_SHIFT) /* of requests below 4 GiB */

struct subject {
    struct loam_frame *frame;       /* Loam */
    struct loam_frame_cache *cache; /* Loam, one for the thread that made the subject */
    struct seed seed;               /* the reference */
    atomic_bool locked;             /* its lock, where it has one */
    void *memory;                   /* all metadata */
    size_t bytes;
};

/* Sections of equal size at equal distances, all of them multiples of a chunk. */
struct subject_sections {
    uint64_t start_frame;
    uint64_t frames;         /* of each */
    uint32_t count;          /* 0: 1; added in a random order */
    uint64_t every_frames;   /* from the start of one to the start of the next */
    uint64_t reserve_frames; /* Loam only: below 4 GiB */
    bool in_prefix;          /* the reference only: its metadata takes frames of the section, as it was designed */
};

struct subject_calls {
    void (*make)(struct subject *subject, const struct subject_sections *sections);
    void (*unmake)(struct subject *subject);
    /* false: refused. low: below 4 GiB. */
    bool (*alloc)(struct subject *subject, uint32_t order, bool low, uint64_t *place);
    bool (*free)(struct subject *subject, uint32_t order, uint64_t place);
    bool (*alloc_batch)(struct subject *subject, uint64_t *places, uint32_t count); /* of order 0 */
    bool (*free_batch)(struct subject *subject, const uint64_t *places, uint32_t count);
    uint64_t (*frame_of)(uint64_t place);
};

/* Make an allocator with all its metadata in memory, every page of it there, and one cache; or the reference. */
void subject_make_loam(struct subject *subject, const struct subject_sections *sections);
void subject_make_seed(struct subject *subject, const struct subject_sections *sections);
void subject_unmake(struct subject *subject);

static_assert(sizeof(loam_pfn) == sizeof(uint64_t), "an array of places is an array of frame numbers");

static inline loam_pfn subject_limit(bool low)
{
    return (loam_pfn){low ? SUBJECT_LIMIT : 0};
}

static inline bool cached_alloc(struct subject *subject, uint32_t order, bool low, uint64_t *place)
{
    loam_pfn start;
    enum loam_error error = loam_frame_cache_alloc(subject->cache, order, subject_limit(low), &start);

    *place = start.value;
    return error == LOAM_OK;
}

static inline bool cached_free(struct subject *subject, uint32_t order, uint64_t place)
{
    return loam_frame_cache_free(subject->cache, (loam_pfn){place}, UINT64_C(1) << order) == LOAM_OK;
}

static inline bool cached_alloc_batch(struct subject *subject, uint64_t *places, uint32_t count)
{
    return loam_frame_cache_alloc_batch(subject->cache, 0, (loam_pfn){0}, (loam_pfn *)places, count) == LOAM_OK;
}

static inline bool cached_free_batch(struct subject *subject, const uint64_t *places, uint32_t count)
{
    size_t done;

    return loam_frame_cache_free_batch(subject->cache, 0, (const loam_pfn *)places, count, &done) == LOAM_OK;
}

static inline uint64_t loam_frame_of(uint64_t place)
{
    return place;
}

static const struct subject_calls subject_loam = {
    subject_make_loam, subject_unmake, cached_alloc, cached_free, cached_alloc_batch, cached_free_batch, loam_frame_of,
};

static inline bool shared_alloc(struct subject *subject, uint32_t order, bool low, uint64_t *place)
{
    loam_pfn start;
    enum loam_error error = loam_frame_alloc_order_below(subject->frame, order, subject_limit(low), &start);

    *place = start.value;
    return error == LOAM_OK;
}

static inline bool shared_free(struct subject *subject, uint32_t order, uint64_t place)
{
    return loam_frame_free(subject->frame, (loam_pfn){place}, UINT64_C(1) << order) == LOAM_OK;
}

static inline bool shared_alloc_batch(struct subject *subject, uint64_t *places, uint32_t count)
{
    return loam_frame_alloc_batch(subject->frame, 0, (loam_pfn){0}, (loam_pfn *)places, count) == LOAM_OK;
}

static inline bool shared_free_batch(struct subject *subject, const uint64_t *places, uint32_t count)
{
    size_t done;

    return loam_frame_free_batch(subject->frame, 0, (const loam_pfn *)places, count, &done) == LOAM_OK;
}

/* Without a cache: every call takes the lock. */
static const struct subject_calls subject_shared = {
    subject_make_loam, subject_unmake, shared_alloc, shared_free, shared_alloc_batch, shared_free_batch, loam_frame_of,
};

static inline bool plain_alloc(struct subject *subject, uint32_t order, bool low, uint64_t *place)
{
    uint64_t count = UINT64_C(1) << order;

    return (low ? seed_alloc_low(&subject->seed, count, 0, place) : seed_alloc(&subject->seed, count, 0, place)) ==
           LOAM_OK;
}

static inline bool plain_free(struct subject *subject, uint32_t order, uint64_t place)
{
    seed_free(&subject->seed, place, UINT64_C(1) << order);
    return true;
}

/* It has no batches: one call a frame. */
static inline bool plain_alloc_batch(struct subject *subject, uint64_t *places, uint32_t count)
{
    bool served = true;

    for (uint32_t i = 0; i < count; i++) {
        served &= plain_alloc(subject, 0, false, &places[i]);
    }
    return served;
}

static inline bool plain_free_batch(struct subject *subject, const uint64_t *places, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        seed_free(&subject->seed, places[i], 1);
    }
    return true;
}

static inline uint64_t plain_frame_of(uint64_t place)
{
    return place / SEED_FRAME_BYTES;
}

static const struct subject_calls subject_seed = {
    subject_make_seed, subject_unmake, plain_alloc, plain_free, plain_alloc_batch, plain_free_batch, plain_frame_of,
};

static inline void locked_take(struct subject *subject)
{
    while (atomic_exchange_explicit(&subject->locked, true, memory_order_acquire)) {
    }
}

static inline void locked_give(struct subject *subject)
{
    atomic_store_explicit(&subject->locked, false, memory_order_release);
}

static inline bool locked_alloc(struct subject *subject, uint32_t order, bool low, uint64_t *place)
{
    bool served;

    locked_take(subject);
    served = plain_alloc(subject, order, low, place);
    locked_give(subject);
    return served;
}

static inline bool locked_free(struct subject *subject, uint32_t order, uint64_t place)
{
    locked_take(subject);
    plain_free(subject, order, place);
    locked_give(subject);
    return true;
}

/* The reference as more than one thread could use it. */
static const struct subject_calls subject_locked = {
    subject_make_seed, subject_unmake, locked_alloc, locked_free, plain_alloc_batch, plain_free_batch, plain_frame_of,
};

#endif
