// SPDX-License-Identifier: Apache-2.0
/*
 * A naive model of the frame allocator, to hold the real one against: one cell a frame, every question answered by
 * looking at every cell. It does not predict where a block will lie. It judges: whether the answer is one that
 * loam/frame.h allows, and keeps the books of what was answered.
 *
 * A judgement that is false leaves the reason in oracle.why. One thread.
 */
#ifndef LOAM_FRAME_ORACLE_H
#define LOAM_FRAME_ORACLE_H

#include "loam/frame.h"

#include <stdbool.h>
#include <stdint.h>

#define FRAME_ORACLE_SECTIONS 8
#define FRAME_ORACLE_FRAMES   16384 /* in one section */

struct frame_oracle_section {
    bool used;
    uint64_t start;
    uint64_t count;
    uint32_t *block; /* a cell a frame: the number of its block, 0: free */
    uint8_t *tag;    /* a cell a frame */
};

struct frame_oracle {
    struct frame_oracle_section sections[FRAME_ORACLE_SECTIONS]; /* by id */
    uint32_t section_capacity;
    uint64_t zone_end;
    uint64_t pfn_end;
    uint64_t reserve;
    uint32_t next_block;
    char why[256];
};

void frame_oracle_init(struct frame_oracle *oracle, const struct loam_frame_config *config);
void frame_oracle_destroy(struct frame_oracle *oracle);

bool frame_oracle_add(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error,
                      uint32_t section);
bool frame_oracle_remove(struct frame_oracle *oracle, uint32_t section, enum loam_error error, loam_pfn blocker);
bool frame_oracle_alloc(struct frame_oracle *oracle, const struct loam_frame_request *request, enum loam_error error,
                        const struct loam_frame_block *block);
bool frame_oracle_free(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error);
bool frame_oracle_tag(struct frame_oracle *oracle, uint64_t start, enum loam_frame_tag tag, enum loam_error error);
bool frame_oracle_query(struct frame_oracle *oracle, uint64_t pfn, const struct loam_frame_info *info);
bool frame_oracle_next_free(struct frame_oracle *oracle, uint64_t from, enum loam_error error,
                            const struct loam_frame_range *range);
bool frame_oracle_stats(struct frame_oracle *oracle, const struct loam_frame_stats *stats);

/* The block that holds pfn: its first frame, and its length; 0: pfn is free or not managed. */
uint64_t frame_oracle_block(const struct frame_oracle *oracle, uint64_t pfn, uint64_t *start);

#endif
