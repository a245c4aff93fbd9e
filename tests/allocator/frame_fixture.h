// SPDX-License-Identifier: Apache-2.0
/*
 * Frame allocators to test, with memory that is freed after the test. For frame_test.c and frame_random_test.c, each of
 * which names free_kept as the end of its suite. One thread, but for assert_valid. What cannot be had fails the test.
 */
#ifndef LOAM_FRAME_FIXTURE_H
#define LOAM_FRAME_FIXTURE_H

#include "loam/frame.h"

#include <stddef.h>
#include <stdint.h>

#define ZONE_END (UINT64_C(1) << 20) /* with frames of 4 KiB */
#define PFN_END  (UINT64_C(1) << 40)

static inline loam_pfn pfn(uint64_t value)
{
    return loam_pfn_from_u64(value);
}

/* Free memory after the test, with all that was kept before; gives memory back. */
void *keep(void *memory);

void free_kept(void);

/* Memory for metadata, filled with what is not zero; the caller's to keep or free. */
void *metadata_alloc(size_t bytes);

/* An allocator without sections. */
struct loam_frame *make(const struct loam_frame_config *config);

/* Its new section [start, start + count). */
uint32_t add(struct loam_frame *frame, uint64_t start, uint64_t count);

/* An allocator of the default config with one section. */
struct loam_frame *make_with(uint64_t start, uint64_t count);

void assert_valid(const struct loam_frame *frame);

#endif
