// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/slab_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void *memory_make(size_t bytes, size_t align, int filling)
{
    void *memory = aligned_alloc(align, (bytes + align - 1) / align * align);

    cr_assert_not_null(memory);
    memset(memory, filling, bytes);
    return memory;
}

static void add_window(struct world *world, uint64_t start, uint32_t slabs)
{
    uint32_t i = world->config.window_count++;
    uint64_t count_frames = (uint64_t)slabs * LOAM_SLAB_BYTES / LOAM_FRAME_BYTES;
    loam_pfn first = loam_pfn_from_u64(start / LOAM_FRAME_BYTES);
    size_t bytes = loam_frame_section_bytes(world->frame, first, count_frames);

    world->memory[i] = memory_make((size_t)slabs * LOAM_SLAB_BYTES, 4096, 0x5a);
    world->config.windows[i] = (struct loam_slab_window){{start}, (uint64_t)slabs * LOAM_SLAB_BYTES, world->memory[i]};
    world->frame_sections[i] = memory_make(bytes, LOAM_FRAME_METADATA_ALIGN, 0xa5);
    cr_assert_eq(loam_frame_section_add(world->frame, first, count_frames, world->frame_sections[i], bytes, NULL),
                 LOAM_OK);
}

void world_make(struct world *world, uint32_t low_slabs, uint32_t high_slabs, const struct loam_slab_config *config)
{
    *world = (struct world){0};
    if (config != NULL) {
        world->config = *config;
        world->config.window_count = 0;
    }
    cr_assert_eq(loam_frame_init(memory_make(loam_frame_bytes(NULL), LOAM_FRAME_METADATA_ALIGN, 0xa5),
                                 loam_frame_bytes(NULL), NULL, &world->frame),
                 LOAM_OK);
    add_window(world, LOW_START, low_slabs);
    if (high_slabs > 0) {
        add_window(world, HIGH_START, high_slabs);
    }
    world->free_frames = loam_frame_get_stats(world->frame).free_frames;
    world->metadata_bytes = loam_slab_bytes(&world->config);
    cr_assert_gt(world->metadata_bytes, 0);
    world->metadata = memory_make(world->metadata_bytes, LOAM_SLAB_METADATA_ALIGN, 0xa5);
    cr_assert_eq(loam_slab_init(world->metadata, world->metadata_bytes, &world->config, world->frame, &world->slab),
                 LOAM_OK);
}

void world_drop(struct world *world)
{
    for (uint32_t i = 0; i < world->config.window_count; i++) {
        free(world->memory[i]);
        free(world->frame_sections[i]);
    }
    free(world->metadata);
    free(world->frame);
}

void world_end(struct world *world)
{
    world_validate(world);
    cr_assert_eq(loam_slab_destroy(&world->slab, NULL), LOAM_OK);
    cr_assert_eq(world_taken(world), 0);
    world_drop(world);
}

void world_validate(const struct world *world)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_slab_validate(&world->slab, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_frame_validate(world->frame, &diag), LOAM_OK, "%s", diag.text);
}

struct loam_slab_cache *world_cache(struct world *world)
{
    struct loam_slab_cache *cache;

    cr_assert_eq(loam_slab_cache_make(&world->slab, &cache), LOAM_OK);
    return cache;
}

void world_cache_end(struct world *world, struct loam_slab_cache *cache)
{
    cr_assert_eq(loam_slab_cache_destroy(&world->slab, cache), LOAM_OK);
}

uint64_t world_taken(const struct world *world)
{
    return world->free_frames - loam_frame_get_stats(world->frame).free_frames;
}

struct loam_slab_object take(struct loam_slab_cache *cache, size_t bytes)
{
    struct loam_slab_object object;

    cr_assert_eq(loam_slab_alloc(cache, bytes, &object), LOAM_OK);
    cr_assert_not_null(object.hva);
    return object;
}

void give(struct loam_slab_cache *cache, struct loam_slab_object object, size_t bytes)
{
    cr_assert_eq(loam_slab_free(cache, object.gpa, bytes), LOAM_OK);
}

struct loam_slab_class_stats stats_of(const struct world *world, size_t bytes)
{
    struct loam_slab_class_stats stats;
    uint32_t class_index = 0;

    while ((size_t)LOAM_SLAB_OBJECT_MIN << class_index < bytes) {
        class_index++;
    }
    cr_assert_eq(loam_slab_stats(&world->slab, class_index, &stats), LOAM_OK);
    cr_assert_eq((uint64_t)stats.slab_count * slab_objects(stats.object_bytes), stats.live_count + stats.free_count);
    return stats;
}

uint32_t slab_objects(size_t bytes)
{
    return (uint32_t)(LOAM_SLAB_BYTES / bytes);
}
