// SPDX-License-Identifier: Apache-2.0
/* What the oracle's own files share: its cells, and what a call with several faults may answer. */
#ifndef LOAM_FRAME_ORACLE_CELLS_H
#define LOAM_FRAME_ORACLE_CELLS_H

#include "tests/allocator/frame_oracle.h"

/* The errors that a call may get, as a set. */
#define FAULT(condition, error) ((condition) ? 1u << (error) : 0)

/* Whether error is in the set, or LOAM_OK where the set is empty. */
bool frame_oracle_one_of(struct frame_oracle *oracle, enum loam_error error, unsigned faults);

/* Write the cells of [start, start + count), which lie in one section; block 0: free. */
void frame_oracle_fill(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint32_t block, uint8_t tag);

/* Whether one of the frames lies in a released chunk; all are in one section. */
bool frame_oracle_touches_released(const struct frame_oracle *oracle, uint64_t start, uint64_t count);

/* The frames of [start, start + count) below 4 GiB. */
uint64_t frame_oracle_count_low(const struct frame_oracle *oracle, uint64_t start, uint64_t count);

/* Whether the flags of a block are right, after it was taken. A block across 4 GiB may speak for either zone. */
bool frame_oracle_judge_flags(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint32_t flags);

#endif
