// SPDX-License-Identifier: Apache-2.0
/*
 * A naive model of the frame allocator, to hold the real one against: one cell a frame, every question answered by
 * looking at every cell. It does not predict where a block will lie. It judges: whether the answer is one that
 * loam/frame.h allows, and keeps the books of what was answered.
 *
 * It does not know which chunks caches hold, but asks for it where the header makes a difference of it. Where the
 * header leaves open which of several errors a call with several faults gets, each of them will do.
 *
 * A judgement that is false leaves the reason in oracle.why. One thread.
 */
#ifndef LOAM_FRAME_ORACLE_H
#define LOAM_FRAME_ORACLE_H

#include "loam/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_ORACLE_SECTIONS 8

struct frame_oracle_section {
    bool used;
    enum loam_frame_use use;
    uint64_t start;
    uint64_t count;
    uint32_t *block; /* a cell a frame: the number of its block, 0: free */
    uint8_t *tag;    /* a cell a frame */
    bool *released;  /* a cell a frame; equal in a chunk */
};

/* Whether a zone is short of frames: between the watermarks that depends on what caches held meanwhile. */
enum frame_oracle_pressure { FRAME_ORACLE_CALM, FRAME_ORACLE_SHORT, FRAME_ORACLE_UNKNOWN };

struct frame_oracle {
    struct frame_oracle_section sections[FRAME_ORACLE_SECTIONS]; /* by id */
    struct loam_frame_config config;                             /* no zero stands for a default */
    uint64_t zone_end;
    uint64_t pfn_end;
    uint32_t next_block;
    uint32_t cache_count;
    bool caches_hold; /* caches may hold chunks */
    enum frame_oracle_pressure pressure[LOAM_FRAME_ZONE_COUNT];

    /* Whether the free frame pfn lies in a cache, as the allocator says; asked only while caches hold chunks. */
    bool (*cached)(void *context, uint64_t pfn);
    void *context;

    char why[256];
};

/* For tests with a section_capacity of at most FRAME_ORACLE_SECTIONS. */
void frame_oracle_init(struct frame_oracle *oracle, const struct loam_frame_config *config);
void frame_oracle_destroy(struct frame_oracle *oracle);

/* --- Judgements that change the books -------------------------------------------------------------------------- */

bool frame_oracle_add(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error,
                      uint32_t section);
bool frame_oracle_remove(struct frame_oracle *oracle, uint32_t section, enum loam_error error, loam_pfn blocker);
bool frame_oracle_set_use(struct frame_oracle *oracle, uint32_t section, enum loam_frame_use use,
                          enum loam_error error);

bool frame_oracle_alloc(struct frame_oracle *oracle, const struct loam_frame_request *request, enum loam_error error,
                        const struct loam_frame_block *block);

/* loam_frame_alloc_order, _below and _batch, by a cache or not: count blocks in starts. */
bool frame_oracle_alloc_batch(struct frame_oracle *oracle, uint32_t order, uint64_t limit, enum loam_error error,
                              const loam_pfn *starts, size_t count);

bool frame_oracle_free(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error);
bool frame_oracle_free_batch(struct frame_oracle *oracle, uint32_t order, const loam_pfn *starts, size_t count,
                             enum loam_error error, size_t done_count);
bool frame_oracle_free_released(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error);
bool frame_oracle_set_backed(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error);
bool frame_oracle_grow(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint64_t new_count,
                       enum loam_error error, uint32_t flags);
bool frame_oracle_trim(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint64_t new_count,
                       enum loam_error error);
bool frame_oracle_split(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint64_t first_count,
                        enum loam_error error);
bool frame_oracle_tag(struct frame_oracle *oracle, uint64_t start, enum loam_frame_tag tag, enum loam_error error);

bool frame_oracle_cache_make(struct frame_oracle *oracle, enum loam_error error);
bool frame_oracle_cache_destroy(struct frame_oracle *oracle, bool there, enum loam_error error);

/* A cache was called that may have taken chunks; all caches were drained. */
void frame_oracle_caches_used(struct frame_oracle *oracle);
void frame_oracle_caches_drained(struct frame_oracle *oracle);

/*
 * Whether a block fills a chunk. Such a chunk stays with its cache until the block is freed, drained or not, and the
 * cache may hold it then.
 */
bool frame_oracle_whole_chunk_taken(const struct frame_oracle *oracle);

/* --- Judgements of what was asked: frame_oracle_ask.c ---------------------------------------------------------- */

bool frame_oracle_check(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error);
bool frame_oracle_query(struct frame_oracle *oracle, uint64_t pfn, const struct loam_frame_info *info);
bool frame_oracle_section(struct frame_oracle *oracle, uint64_t pfn, enum loam_error error,
                          const struct loam_frame_section *section);
bool frame_oracle_pressure(struct frame_oracle *oracle, enum loam_frame_zone zone, bool pressure);
bool frame_oracle_next_free(struct frame_oracle *oracle, uint64_t from, enum loam_error error,
                            const struct loam_frame_range *range);
bool frame_oracle_next_free_chunks(struct frame_oracle *oracle, uint64_t from, enum loam_error error,
                                   const struct loam_frame_range *range, bool released);
bool frame_oracle_largest_free(struct frame_oracle *oracle, uint64_t limit, enum loam_error error,
                               const struct loam_frame_range *range);
bool frame_oracle_fragmentation(struct frame_oracle *oracle, const struct loam_frame_fragmentation *fragmentation);
bool frame_oracle_stats(struct frame_oracle *oracle, const struct loam_frame_stats *stats);

/* --- The books ------------------------------------------------------------------------------------------------- */

/* The block that holds pfn: its first frame, and its length; 0: pfn is free or not managed. */
uint64_t frame_oracle_block(const struct frame_oracle *oracle, uint64_t pfn, uint64_t *start);

/* The section that manages pfn, or NULL. */
const struct frame_oracle_section *frame_oracle_section_of(const struct frame_oracle *oracle, uint64_t pfn);

bool frame_oracle_is_free(const struct frame_oracle *oracle, uint64_t pfn);

/* Free frames in [from, to). */
uint64_t frame_oracle_count_free(const struct frame_oracle *oracle, uint64_t from, uint64_t to);

/* Those of them in open sections. */
uint64_t frame_oracle_count_open(const struct frame_oracle *oracle, uint64_t from, uint64_t to);

/* Why a judgement is false; returns false. */
bool frame_oracle_wrong(struct frame_oracle *oracle, const char *what, uint64_t a, uint64_t b);

/* Whether error is the expected one. */
bool frame_oracle_same(struct frame_oracle *oracle, enum loam_error error, enum loam_error expected);

#endif
