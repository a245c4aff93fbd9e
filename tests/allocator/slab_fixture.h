// SPDX-License-Identifier: Apache-2.0
/*
 * A slab allocator to test, on real memory: a window below 4 GiB and one above. One thread makes and unmakes it. What
 * cannot be had fails the test.
 */
#ifndef LOAM_SLAB_FIXTURE_H
#define LOAM_SLAB_FIXTURE_H

#include "loam/slab.h"

#define LOW_START  (UINT64_C(16) << 20)
#define HIGH_START LOAM_DMA32_END_BYTES

struct world {
    struct loam_frame *frame;
    void *frame_sections[2];
    struct loam_slab_config config;
    struct loam_slab slab;
    void *metadata;
    size_t metadata_bytes;
    void *memory[2];      /* of the windows */
    uint64_t free_frames; /* while no slab is there */
};

/* Each window holds so many slabs; 0: there is no second. config's figures count, its windows are filled in. */
void world_make(struct world *world, uint32_t low_slabs, uint32_t high_slabs, const struct loam_slab_config *config);

/* Destroy the slab allocator, see that all frames are free again, and free the memory. */
void world_end(struct world *world);

/* Free the memory, whatever is live. */
void world_drop(struct world *world);

/* The slab allocator and the frames are sound. */
void world_validate(const struct world *world);

struct loam_slab_cache *world_cache(struct world *world);
void world_cache_end(struct world *world, struct loam_slab_cache *cache);

/* Frames that slabs hold. */
uint64_t world_taken(const struct world *world);

struct loam_slab_object take(struct loam_slab_cache *cache, size_t bytes);
void give(struct loam_slab_cache *cache, struct loam_slab_object object, size_t bytes);

struct loam_slab_class_stats stats_of(const struct world *world, size_t bytes);

/* Objects of bytes in a slab. */
uint32_t slab_objects(size_t bytes);

#endif
