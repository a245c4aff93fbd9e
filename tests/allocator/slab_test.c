// SPDX-License-Identifier: Apache-2.0
#include "allocator/slab/slab_pool.h"
#include "loam/slab.h"
#include "tests/allocator/slab_fixture.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLAB_FRAMES (LOAM_SLAB_BYTES / LOAM_FRAME_BYTES)

static loam_gpa gpa_at(uint64_t value)
{
    return loam_gpa_from_u64(value);
}

/* Where the object's HVA lies in the window. */
static uint64_t offset_of(const struct world *world, uint32_t window, struct loam_slab_object object)
{
    return (uintptr_t)object.hva - (uintptr_t)world->memory[window];
}

/* All of a world's figures, to show that nothing changed. */
struct figures {
    struct loam_slab_class_stats classes[LOAM_SLAB_CLASS_COUNT];
    uint64_t taken_frames;
};

static struct figures figures_of(const struct world *world)
{
    struct figures figures;

    memset(&figures, 0, sizeof figures);
    for (uint32_t i = 0; i < LOAM_SLAB_CLASS_COUNT; i++) {
        cr_assert_eq(loam_slab_stats(&world->slab, i, &figures.classes[i]), LOAM_OK);
    }
    figures.taken_frames = world_taken(world);
    return figures;
}

Test(slab, null_is_refused_and_outputs_are_defined)
{
    struct loam_slab_class_stats stats = {.live_count = 7};
    struct loam_slab_object object = {.gpa = {7}};
    struct loam_slab_config spare;
    struct loam_slab_cache *cache = (void *)&stats, *mine;
    struct loam_slab none = {.window_count = 7};
    struct loam_diag diag = {0};
    struct figures before, after;
    struct world world;
    char text[64];

    world_make(&world, 4, 0, NULL);
    mine = world_cache(&world);
    before = figures_of(&world);
    cr_expect_eq(loam_slab_bytes(NULL), 0);
    cr_expect_eq(loam_slab_init(world.metadata, world.metadata_bytes, NULL, world.frame, &none), LOAM_ERROR_INVALID);
    cr_expect_eq(none.window_count, 0);
    cr_expect_eq(loam_slab_init(NULL, 1 << 20, &world.config, world.frame, &none), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_init(world.metadata, world.metadata_bytes, &world.config, NULL, &none), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_init(world.metadata, world.metadata_bytes, &world.config, world.frame, NULL),
                 LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_attach(world.metadata, world.metadata_bytes, NULL, world.frame, &none, &diag),
                 LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_attach(world.metadata, world.metadata_bytes, &world.config, world.frame, NULL, &diag),
                 LOAM_ERROR_INVALID);
    spare = world.config;
    spare.windows[1] = (struct loam_slab_window){{HIGH_START}, LOAM_SLAB_BYTES, world.metadata};
    cr_expect_eq(loam_slab_bytes(&spare), 0, "a window that does not count");
    cr_expect_eq(loam_slab_destroy(NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_destroy(&none, NULL), LOAM_ERROR_UNINITIALISED);
    cr_expect_eq(loam_slab_trim(NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_trim(&none), LOAM_ERROR_UNINITIALISED);
    cr_expect_eq(loam_slab_cache_make(NULL, &cache), LOAM_ERROR_INVALID);
    cr_expect_null(cache);
    cr_expect_eq(loam_slab_cache_make(&world.slab, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_cache_make(&none, &cache), LOAM_ERROR_UNINITIALISED);
    cr_expect_eq(loam_slab_cache_drain(NULL, mine), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_cache_drain(&world.slab, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_cache_destroy(NULL, mine), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_cache_destroy(&world.slab, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_alloc(NULL, 64, &object), LOAM_ERROR_INVALID);
    cr_expect_eq(object.gpa.value, 0);
    cr_expect_eq(loam_slab_alloc(mine, 64, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_free(NULL, gpa_at(LOW_START), 64), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_free_hva(NULL, text, 64), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_free_hva(mine, NULL, 64), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_slab_stats(NULL, 0, &stats), LOAM_ERROR_INVALID);
    cr_expect_eq(stats.live_count, 0);
    cr_expect_eq(loam_slab_stats(&world.slab, 0, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slab_check(NULL, gpa_at(LOW_START), 64, &diag), LOAM_ERROR_INVALID);
    cr_expect_gt(loam_slab_describe(NULL, gpa_at(LOW_START), text, sizeof text), 0);
    cr_expect_str_eq(text, "0x1000000 lies in no window");
    cr_expect_eq(loam_slab_describe(&world.slab, gpa_at(LOW_START), NULL, 99), strlen("0x1000000 lies in no slab"));
    loam_slab_freeze(NULL);
    loam_slab_thaw(NULL);
    cr_expect_eq(loam_slab_validate(NULL, &diag), LOAM_ERROR_INVALID);
    after = figures_of(&world);
    cr_expect_eq(memcmp(&before, &after, sizeof before), 0, "something has changed");
    world_cache_end(&world, mine);
    world_end(&world);
}

/* A free by GPA and one by HVA are refused, nothing changes, and the line holds part. */
static void assert_refused(const struct world *world, struct loam_slab_cache *cache, loam_gpa gpa, size_t bytes,
                           enum loam_error error, const char *part)
{
    struct figures before = figures_of(world), after;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_slab_free(cache, gpa, bytes), error, "0x%llx, %zu bytes", (unsigned long long)gpa.value, bytes);
    for (uint32_t i = 0; i < world->config.window_count; i++) {
        const struct loam_slab_window *window = &world->config.windows[i];

        if (gpa.value - window->start.value < window->bytes) {
            cr_assert_eq(loam_slab_free_hva(cache, (char *)window->hva + (gpa.value - window->start.value), bytes),
                         error);
        }
    }
    after = figures_of(world);
    cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
    cr_assert_eq(loam_slab_check(&world->slab, gpa, bytes, &diag), error);
    cr_assert_not_null(strstr(diag.text, part), "%s", diag.text);
    world_validate(world);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

Test(slab, refuses_what_is_no_config)
{
    struct loam_slab_config good = {.window_count = 1, .windows = {{{LOW_START}, LOAM_MIB, NULL}}}, config;

    cr_assert_gt(loam_slab_bytes(&good), 0);
    config = good;
    config.window_count = 0;
    cr_assert_eq(loam_slab_bytes(&config), 0);
    config = good;
    config.window_count = LOAM_SLAB_WINDOW_MAX + 1;
    cr_assert_eq(loam_slab_bytes(&config), 0);
    config = good;
    config.slab_capacity = LOAM_SLAB_CAPACITY_MAX + 1;
    cr_assert_eq(loam_slab_bytes(&config), 0);
    config = good;
    config.cache_capacity = LOAM_SLAB_CACHE_MAX + 1;
    cr_assert_eq(loam_slab_bytes(&config), 0);
    config = good;
    config.limit = gpa_at(LOAM_SLAB_BYTES - 1);
    cr_assert_eq(loam_slab_bytes(&config), 0);
    config = good;
    config.windows[0].bytes = LOAM_GPA_END;
    cr_assert_eq(loam_slab_bytes(&config), 0);
    config = good;
    config.windows[0].start.value += 1;
    config.windows[0].bytes = 2 * LOAM_SLAB_BYTES - 2;
    cr_assert_eq(loam_slab_bytes(&config), 0, "no whole slab lies in it");
    config = good;
    config.window_count = 2;
    config.windows[1] = (struct loam_slab_window){{LOW_START + LOAM_MIB - 1}, LOAM_MIB, NULL};
    cr_assert_eq(loam_slab_bytes(&config), 0, "the windows overlap");
    config.windows[1].start.value++;
    cr_assert_gt(loam_slab_bytes(&config), 0);
}

Test(slab, init_refuses_memory_that_does_not_do)
{
    struct world world;
    struct loam_slab slab;

    world_make(&world, 4, 0, NULL);
    cr_assert_eq(loam_slab_init(world.metadata, world.metadata_bytes - 1, &world.config, world.frame, &slab),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_slab_init((char *)world.metadata + 8, world.metadata_bytes, &world.config, world.frame, &slab),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_slab_init(NULL, world.metadata_bytes, &world.config, world.frame, &slab), LOAM_ERROR_INVALID);
    cr_assert_null(slab.shared);
    world_end(&world);
}

Test(slab, nothing_works_without_an_allocator)
{
    struct loam_slab slab = {0};
    struct loam_slab_cache *cache;
    struct loam_slab_class_stats stats;
    struct loam_diag diag = {0};
    char text[80];

    cr_assert_eq(loam_slab_cache_make(&slab, &cache), LOAM_ERROR_UNINITIALISED);
    cr_assert_null(cache);
    cr_assert_eq(loam_slab_destroy(&slab, NULL), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_trim(&slab), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_stats(&slab, 0, &stats), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_validate(&slab, &diag), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_check(&slab, gpa_at(0), 8, &diag), LOAM_ERROR_UNINITIALISED);
    loam_slab_describe(&slab, gpa_at(0), text, sizeof text);
    cr_assert_str_eq(text, "0x0 lies in no window");
}

Test(slab, caches_are_as_many_as_config_says_and_end)
{
    struct world world;
    struct loam_slab_cache *caches[2], *none;
    struct loam_slab_object object;
    char foreign[64];

    world_make(&world, 4, 0, &(struct loam_slab_config){.cache_capacity = 2});
    caches[0] = world_cache(&world);
    caches[1] = world_cache(&world);
    cr_assert_eq(loam_slab_cache_make(&world.slab, &none), LOAM_ERROR_EXHAUSTED);
    cr_assert_null(none);
    world_cache_end(&world, caches[0]);
    cr_assert_eq(loam_slab_cache_destroy(&world.slab, caches[0]), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_cache_drain(&world.slab, caches[0]), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_cache_drain(&world.slab, (struct loam_slab_cache *)(void *)foreign),
                 LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_alloc(caches[0], 64, &object), LOAM_ERROR_UNINITIALISED);
    cr_assert_null(object.hva);
    cr_assert_eq(loam_slab_free(caches[0], gpa_at(LOW_START), 64), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_slab_free_hva(caches[0], world.memory[0], 64), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(world_cache(&world), caches[0], "its place is free again");
    world_cache_end(&world, caches[0]);
    world_cache_end(&world, caches[1]);
    world_end(&world);
}

Test(slab, destroy_names_what_is_in_the_way)
{
    struct world world;
    struct loam_slab_cache *cache;
    struct loam_slab_object objects[3];
    loam_gpa blocker = gpa_at(1);

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    cr_assert_eq(loam_slab_destroy(&world.slab, &blocker), LOAM_ERROR_BUSY);
    cr_assert_eq(blocker.value, 0);
    for (size_t i = 0; i < 3; i++) {
        objects[i] = take(cache, 64);
    }
    give(cache, objects[0], 64);
    world_cache_end(&world, cache);
    cr_assert_eq(loam_slab_destroy(&world.slab, &blocker), LOAM_ERROR_BUSY);
    cr_assert_eq(blocker.value, objects[1].gpa.value);
    cache = world_cache(&world);
    give(cache, objects[1], 64);
    give(cache, objects[2], 64);
    world_cache_end(&world, cache);
    world_end(&world);
}

/* --- Objects --------------------------------------------------------------------------------------------------- */

Test(slab, every_size_gets_an_aligned_object_of_its_class)
{
    struct world world;
    struct loam_slab_cache *cache;

    world_make(&world, 16, 0, NULL);
    cache = world_cache(&world);
    for (size_t bytes = 1, class_bytes = 8; bytes <= LOAM_SLAB_OBJECT_MAX; bytes++) {
        struct loam_slab_object object = take(cache, bytes);

        class_bytes = bytes > class_bytes ? class_bytes * 2 : class_bytes;
        cr_assert_eq(object.gpa.value % class_bytes, 0);
        cr_assert_eq(offset_of(&world, 0, object), object.gpa.value - LOW_START);
        cr_assert_eq(stats_of(&world, bytes).live_count, 1);
        cr_assert_eq(stats_of(&world, bytes).object_bytes, class_bytes);
        memset(object.hva, 0xff, class_bytes);
        cr_assert_eq(bytes % 2 == 0 ? loam_slab_free(cache, object.gpa, bytes)
                                    : loam_slab_free_hva(cache, object.hva, bytes),
                     LOAM_OK);
    }
    world_cache_end(&world, cache);
    world_end(&world);
}

Test(slab, refuses_sizes_that_are_none)
{
    static const size_t sizes[] = {0, 2049, 4096, SIZE_MAX, SIZE_MAX - 6, SIZE_MAX / 2};
    struct world world;
    struct loam_slab_cache *cache;
    struct loam_slab_object object;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        object.hva = &object;
        cr_assert_eq(loam_slab_alloc(cache, sizes[i], &object), LOAM_ERROR_INVALID);
        cr_assert_null(object.hva);
        cr_assert_eq(object.gpa.value, 0);
    }
    world_cache_end(&world, cache);
    world_end(&world);
}

/* For each class: three slabs full of objects, each where no other is, and nothing of them is written to. */
Test(slab, full_slabs_hold_each_place_once)
{
    for (size_t bytes = 8; bytes <= LOAM_SLAB_OBJECT_MAX; bytes *= 2) {
        uint32_t count = 3 * slab_objects(bytes);
        unsigned char *seen = calloc(4, LOAM_SLAB_BYTES / bytes);
        struct loam_slab_object *objects = calloc(count, sizeof *objects);
        struct world world;
        struct loam_slab_cache *cache;

        world_make(&world, 4, 0, NULL);
        cache = world_cache(&world);
        for (uint32_t i = 0; i < count; i++) {
            objects[i] = take(cache, bytes);
            cr_assert_eq(seen[(objects[i].gpa.value - LOW_START) / bytes]++, 0);
            cr_assert_eq(*(unsigned char *)objects[i].hva, 0x5a, "objects are not the allocator's to write");
        }
        cr_assert_eq(stats_of(&world, bytes).slab_count, 3);
        cr_assert_eq(stats_of(&world, bytes).live_count, count);
        cr_assert_eq(stats_of(&world, bytes).free_count, 0);
        cr_assert_eq(stats_of(&world, bytes).frame_bytes, 3 * LOAM_SLAB_BYTES);
        world_validate(&world);
        for (uint32_t i = 0; i < count; i++) {
            give(cache, objects[i], bytes);
        }
        cr_assert_eq(stats_of(&world, bytes).live_count, 0);
        world_validate(&world);
        world_cache_end(&world, cache);
        world_end(&world);
        free(objects);
        free(seen);
    }
}

Test(slab, what_was_freed_is_used_again_before_new_frames_are)
{
    struct world world;
    struct loam_slab_cache *cache;
    struct loam_slab_object objects[256];

    world_make(&world, 8, 0, NULL);
    cache = world_cache(&world);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 256; i++) {
            objects[i] = take(cache, 512);
        }
        for (unsigned i = 0; i < 256; i++) {
            give(cache, objects[round % 2 == 0 ? i : 255 - i], 512);
        }
        cr_assert_leq(stats_of(&world, 512).slab_count, 3);
    }
    world_cache_end(&world, cache);
    world_end(&world);
}

Test(slab, the_limit_is_kept_and_without_one_high_memory_goes_first)
{
    struct world world;
    struct loam_slab_cache *cache;
    struct loam_slab_object object;

    world_make(&world, 4, 4, &(struct loam_slab_config){.limit = {LOAM_DMA32_END_BYTES}});
    cache = world_cache(&world);
    for (unsigned i = 0; i < 4 * slab_objects(2048); i++) {
        object = take(cache, 2048);
        cr_assert_lt(object.gpa.value, LOAM_DMA32_END_BYTES);
    }
    cr_assert_eq(loam_slab_alloc(cache, 2048, &object), LOAM_ERROR_EXHAUSTED);
    world_drop(&world);

    world_make(&world, 4, 4, NULL);
    cache = world_cache(&world);
    object = take(cache, 2048);
    cr_assert_geq(object.gpa.value, HIGH_START);
    cr_assert_eq(offset_of(&world, 1, object), object.gpa.value - HIGH_START);
    assert_refused(&world, cache, gpa_at(object.gpa.value + 8), 2048, LOAM_ERROR_INVALID, "8 bytes inside");
    cr_assert_eq(loam_slab_free_hva(cache, object.hva, 2048), LOAM_OK);
    assert_refused(&world, cache, object.gpa, 2048, LOAM_ERROR_INVALID, "free");
    world_cache_end(&world, cache);
    world_end(&world);
}

/* --- Misuse ---------------------------------------------------------------------------------------------------- */

Test(slab, refuses_what_the_owner_must_not_free)
{
    struct world world;
    struct loam_slab_cache *cache;
    struct loam_slab_object first, second;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    first = take(cache, 64);
    second = take(cache, 64);
    assert_refused(&world, cache, gpa_at(first.gpa.value + 1), 64, LOAM_ERROR_INVALID, "1 bytes inside");
    assert_refused(&world, cache, gpa_at(first.gpa.value + 32), 64, LOAM_ERROR_INVALID, "32 bytes inside");
    assert_refused(&world, cache, first.gpa, 32, LOAM_ERROR_INVALID, "one of 64 bytes");
    assert_refused(&world, cache, first.gpa, 65, LOAM_ERROR_INVALID, "one of 64 bytes");
    assert_refused(&world, cache, first.gpa, 0, LOAM_ERROR_INVALID, "one of 64 bytes");
    assert_refused(&world, cache, first.gpa, SIZE_MAX, LOAM_ERROR_INVALID, "one of 64 bytes");
    assert_refused(&world, cache, gpa_at(second.gpa.value + 64), 64, LOAM_ERROR_INVALID, "a cache holds it");
    assert_refused(&world, cache, gpa_at(first.gpa.value + 64 * 64), 64, LOAM_ERROR_INVALID, "is free");
    assert_refused(&world, cache, gpa_at(LOW_START + 4 * LOAM_SLAB_BYTES), 64, LOAM_ERROR_NOT_FOUND, "no window");
    assert_refused(&world, cache, gpa_at(0), 64, LOAM_ERROR_NOT_FOUND, "no window");
    assert_refused(&world, cache, gpa_at(UINT64_MAX), 64, LOAM_ERROR_NOT_FOUND, "no window");
    assert_refused(&world, cache, gpa_at(first.gpa.value ^ LOAM_SLAB_BYTES), 64, LOAM_ERROR_NOT_FOUND, "no slab");
    cr_assert_eq(loam_slab_free_hva(cache, &world, 64), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_slab_free_hva(cache, NULL, 64), LOAM_ERROR_NOT_FOUND);
    give(cache, first, 64);
    assert_refused(&world, cache, first.gpa, 64, LOAM_ERROR_INVALID, "is free");
    give(cache, second, 33);
    world_cache_end(&world, cache);
    cache = world_cache(&world);
    assert_refused(&world, cache, first.gpa, 64, LOAM_ERROR_INVALID, "is free");
    cr_assert_eq(loam_slab_trim(&world.slab), LOAM_OK);
    assert_refused(&world, cache, first.gpa, 64, LOAM_ERROR_NOT_FOUND, "no slab");
    world_cache_end(&world, cache);
    world_end(&world);
}

Test(slab, refuses_a_double_free_in_words_that_are_not_held)
{
    for (size_t bytes = 8; bytes <= 64; bytes *= 2) {
        uint32_t count = slab_objects(bytes) + 1;
        struct loam_slab_object *objects = calloc(count, sizeof *objects);
        struct world world;
        struct loam_slab_cache *cache;

        world_make(&world, 4, 0, NULL);
        cache = world_cache(&world);
        for (uint32_t i = 0; i < count; i++) {
            objects[i] = take(cache, bytes);
        }
        for (uint32_t i = 0; i < count; i += count / 7) {
            give(cache, objects[i], bytes);
            assert_refused(&world, cache, objects[i].gpa, bytes, LOAM_ERROR_INVALID, "is free");
        }
        world_drop(&world);
        free(objects);
    }
}

Test(slab, refuses_what_another_must_not_free)
{
    struct world world;
    struct loam_slab_cache *owner, *other;
    struct loam_slab_object objects[slab_objects(1024) + 1];

    world_make(&world, 4, 0, NULL);
    owner = world_cache(&world);
    other = world_cache(&world);
    objects[0] = take(owner, 64);
    objects[1] = take(owner, 64);
    assert_refused(&world, other, gpa_at(objects[1].gpa.value + 64), 64, LOAM_ERROR_INVALID, "a cache holds it");
    assert_refused(&world, other, gpa_at(objects[0].gpa.value + 64 * 64), 64, LOAM_ERROR_INVALID, "is free");
    assert_refused(&world, other, gpa_at(objects[0].gpa.value + 8), 64, LOAM_ERROR_INVALID, "8 bytes inside");
    assert_refused(&world, other, objects[0].gpa, 128, LOAM_ERROR_INVALID, "one of 64 bytes");
    give(other, objects[0], 64);
    cr_assert_eq(stats_of(&world, 64).uncollected_count, 1);
    assert_refused(&world, other, objects[0].gpa, 64, LOAM_ERROR_INVALID, "another thread");
    assert_refused(&world, owner, objects[0].gpa, 64, LOAM_ERROR_INVALID, "another thread");
    give(owner, objects[1], 64);
    assert_refused(&world, other, objects[1].gpa, 64, LOAM_ERROR_INVALID, "is free");

    for (unsigned i = 0; i <= slab_objects(1024); i++) {
        objects[i] = take(owner, 1024);
    }
    give(other, objects[3], 1024);
    give(owner, objects[4], 1024);
    assert_refused(&world, other, objects[3].gpa, 1024, LOAM_ERROR_INVALID, "another thread");
    assert_refused(&world, other, objects[4].gpa, 1024, LOAM_ERROR_INVALID, "is free");
    world_cache_end(&world, owner);
    assert_refused(&world, other, objects[3].gpa, 1024, LOAM_ERROR_INVALID, "is free");
    assert_refused(&world, other, objects[4].gpa, 1024, LOAM_ERROR_INVALID, "is free");
    give(other, objects[5], 1024);
    assert_refused(&world, other, objects[5].gpa, 1024, LOAM_ERROR_INVALID, "is free");
    world_drop(&world);
}

/* --- Remote frees, slabs that come and go ---------------------------------------------------------------------- */

Test(slab, the_owner_takes_back_what_another_freed)
{
    uint32_t count = slab_objects(512);
    struct loam_slab_object objects[slab_objects(512)];
    struct world world;
    struct loam_slab_cache *owner, *other;

    world_make(&world, 8, 0, NULL);
    owner = world_cache(&world);
    other = world_cache(&world);
    for (unsigned round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < count; i++) {
            objects[i] = take(owner, 512);
        }
        for (uint32_t i = 0; i < count; i++) {
            give(other, objects[i], 512);
        }
        cr_assert_eq(stats_of(&world, 512).live_count, 0);
        cr_assert_leq(stats_of(&world, 512).slab_count, 2);
        cr_assert_eq(stats_of(&world, 512).remote_free_count, (round + 1) * count);
        world_validate(&world);
    }
    world_cache_end(&world, owner);
    world_cache_end(&world, other);
    world_end(&world);
}

Test(slab, one_empty_slab_a_class_is_kept_and_the_rest_goes_back)
{
    uint32_t count = 5 * slab_objects(256);
    struct loam_slab_object objects[5 * slab_objects(256)];
    struct world world;
    struct loam_slab_cache *cache;

    world_make(&world, 8, 0, NULL);
    cache = world_cache(&world);
    for (uint32_t i = 0; i < count; i++) {
        objects[i] = take(cache, 256);
    }
    cr_assert_eq(world_taken(&world), 5 * SLAB_FRAMES);
    for (uint32_t i = 0; i < count; i++) {
        give(cache, objects[i], 256);
    }
    cr_assert_eq(stats_of(&world, 256).kept_count, 1);
    cr_assert_eq(world_taken(&world), 2 * SLAB_FRAMES, "the one kept, and the cache's current one");
    world_validate(&world);
    cr_assert_eq(loam_slab_cache_drain(&world.slab, cache), LOAM_OK);
    cr_assert_eq(world_taken(&world), SLAB_FRAMES);
    cr_assert_eq(loam_slab_trim(&world.slab), LOAM_OK);
    cr_assert_eq(world_taken(&world), 0);
    objects[0] = take(cache, 256);
    give(cache, objects[0], 256);
    world_cache_end(&world, cache);
    world_end(&world);
}

Test(slab, a_full_slab_comes_back_once_enough_is_free)
{
    uint32_t count = slab_objects(512);
    struct loam_slab_object objects[slab_objects(512)], more;
    struct world world;
    struct loam_slab_cache *cache;
    unsigned found = 0;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    for (uint32_t i = 0; i < count; i++) {
        objects[i] = take(cache, 512);
    }
    more = take(cache, 512);
    for (uint32_t i = 0; i < count / 8; i++) {
        give(cache, objects[i], 512);
    }
    for (uint32_t i = 0; i < count - 1 + count / 8; i++) {
        struct loam_slab_object object = take(cache, 512);

        found += object.gpa.value / LOAM_SLAB_BYTES == objects[0].gpa.value / LOAM_SLAB_BYTES;
    }
    cr_assert_eq(found, count / 8);
    cr_assert_eq(stats_of(&world, 512).slab_count, 2);
    cr_assert_neq(more.gpa.value / LOAM_SLAB_BYTES, objects[0].gpa.value / LOAM_SLAB_BYTES);
    world_validate(&world);
    world_drop(&world);
}

Test(slab, what_a_dead_cache_leaves_is_freed_and_taken_up_by_others)
{
    uint32_t count = 2 * slab_objects(128) + 7;
    struct loam_slab_object objects[2 * slab_objects(128) + 7];
    struct world world;
    struct loam_slab_cache *dead, *other;

    world_make(&world, 8, 0, NULL);
    dead = world_cache(&world);
    other = world_cache(&world);
    for (uint32_t i = 0; i < count; i++) {
        objects[i] = take(dead, 128);
    }
    give(other, objects[0], 128);
    world_cache_end(&world, dead);
    cr_assert_eq(stats_of(&world, 128).unowned_count, 3);
    cr_assert_eq(stats_of(&world, 128).live_count, count - 1);
    cr_assert_eq(stats_of(&world, 128).uncollected_count, 0);
    world_validate(&world);
    /* One that is full lets go of an object: it is there to be taken up. */
    give(other, objects[slab_objects(128)], 128);
    world_validate(&world);
    objects[0] = take(other, 128);
    objects[slab_objects(128)] = take(other, 128);
    cr_assert_eq(stats_of(&world, 128).slab_count, 3);
    cr_assert_lt(stats_of(&world, 128).unowned_count, 3);
    world_validate(&world);
    for (uint32_t i = 0; i < count; i++) {
        give(other, objects[i], 128);
    }
    cr_assert_leq(stats_of(&world, 128).slab_count, 2);
    world_cache_end(&world, other);
    cr_assert_eq(world_taken(&world), SLAB_FRAMES);
    world_end(&world);
}

/* --- Rarely taken ways, forced --------------------------------------------------------------------------------- */

/* What another thread does when the owner has looked what was freed, and found nothing. */
static struct {
    struct loam_slab_cache *cache; /* NULL: nothing */
    struct loam_slab_object object;
    size_t bytes;
} after_collect;

uint32_t __real_loam_slab_pool_collect(const struct loam_slab_shared *shared, struct slab_unit *head);
uint32_t __wrap_loam_slab_pool_collect(const struct loam_slab_shared *shared, struct slab_unit *head);

uint32_t __wrap_loam_slab_pool_collect(const struct loam_slab_shared *shared, struct slab_unit *head)
{
    uint32_t count = __real_loam_slab_pool_collect(shared, head);

    if (after_collect.cache != NULL) {
        struct loam_slab_cache *cache = after_collect.cache;

        after_collect.cache = NULL;
        give(cache, after_collect.object, after_collect.bytes);
    }
    return count;
}

Test(slab, a_free_between_the_last_look_and_the_notice_is_not_lost)
{
    struct loam_slab_object objects[slab_objects(2048)];
    struct world world;
    struct loam_slab_cache *owner, *other;

    world_make(&world, 4, 0, NULL);
    owner = world_cache(&world);
    other = world_cache(&world);
    for (unsigned i = 0; i < slab_objects(2048); i++) {
        objects[i] = take(owner, 2048);
    }
    after_collect.object = objects[7];
    after_collect.bytes = 2048;
    after_collect.cache = other;
    cr_assert_eq(take(owner, 2048).gpa.value, objects[7].gpa.value);
    cr_assert_null(after_collect.cache);
    world_validate(&world);
    world_drop(&world);
}

struct draining {
    struct world *world;
    struct loam_slab_cache *cache;
    _Atomic bool ended;
};

static void *drain(void *argument)
{
    struct draining *draining = argument;
    enum loam_error error = loam_slab_cache_drain(&draining->world->slab, draining->cache);

    atomic_store(&draining->ended, true);
    return error == LOAM_OK ? draining : NULL;
}

/* Who frees first into a full slab has said that it will queue it, and has not yet: a drain waits for that. */
Test(slab, a_drain_waits_for_a_slab_that_is_being_queued)
{
    struct world world;
    struct draining draining = {.world = &world};
    struct slab_unit *head;
    pthread_t thread;
    void *done;

    world_make(&world, 4, 0, NULL);
    draining.cache = world_cache(&world);
    for (unsigned i = 0; i <= slab_objects(2048); i++) {
        (void)take(draining.cache, 2048);
    }
    head = &slab_units(world.slab.shared)[1];
    cr_assert_eq(head->state, SLAB_FULL);
    cr_assert_eq(head->notice, SLAB_NOTICE_WAITING);
    head->notice = SLAB_NOTICE_QUEUED;
    cr_assert_eq(pthread_create(&thread, NULL, drain, &draining), 0);
    for (unsigned i = 0; i < 200; i++) {
        sched_yield();
        cr_assert(!atomic_load(&draining.ended));
    }
    head->inbox_next = SLAB_UNIT_NONE;
    atomic_store(&draining.cache->inbox, 1);
    pthread_join(thread, &done);
    cr_assert_not_null(done);
    cr_assert_eq(stats_of(&world, 2048).unowned_count, 2);
    world_validate(&world);
    world_drop(&world);
}

/* The same, and the one who would queue it is stopped, or dead: the slab stays the cache's, and nothing is lost. */
Test(slab, a_drain_does_not_wait_for_ever)
{
    struct world world;
    struct loam_slab_cache *cache;
    struct slab_unit *head;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    for (unsigned i = 0; i <= slab_objects(2048); i++) {
        (void)take(cache, 2048);
    }
    head = &slab_units(world.slab.shared)[1];
    head->notice = SLAB_NOTICE_QUEUED;
    cr_assert_eq(loam_slab_cache_destroy(&world.slab, cache), LOAM_ERROR_BUSY);
    cr_assert_eq(head->owner, cache->id);
    cr_assert_eq(stats_of(&world, 2048).unowned_count, 1);
    /* It goes on after all. */
    head->inbox_next = SLAB_UNIT_NONE;
    atomic_store(&cache->inbox, 1);
    cr_assert_eq(loam_slab_cache_destroy(&world.slab, cache), LOAM_OK);
    cr_assert_eq(stats_of(&world, 2048).unowned_count, 2);
    world_validate(&world);
    world_drop(&world);
}

/* The slab changed hands while a free was under way that has marked its object, and not yet looked at the owner. */
Test(slab, a_free_that_finds_no_owner_any_more_settles_the_slab)
{
    struct world world;
    struct loam_slab_cache *cache;
    struct slab_unit *head;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    (void)take(cache, 2048);
    world_cache_end(&world, cache);
    head = &slab_units(world.slab.shared)[1];
    cr_assert_eq(head->state, SLAB_ORPHAN);
    head->remote[0] |= 1;
    loam_slab_pool_settle(&world.slab, 1);
    cr_assert_eq(head->state, SLAB_KEPT);
    world_validate(&world);
    /* It may be somebody else's by then, or nobody's: that is left alone. */
    loam_slab_pool_settle(&world.slab, 1);
    cr_assert_eq(loam_slab_trim(&world.slab), LOAM_OK);
    loam_slab_pool_settle(&world.slab, 1);
    cr_assert_eq(world_taken(&world), 0);
    world_end(&world);
}

/* --- Exhaustion ------------------------------------------------------------------------------------------------ */

/* Take until no more is there; how many. */
static uint32_t take_all(struct loam_slab_cache *cache, size_t bytes, struct loam_slab_object *objects, uint32_t most)
{
    uint32_t count = 0;

    while (count < most && loam_slab_alloc(cache, bytes, &objects[count]) == LOAM_OK) {
        count++;
    }
    return count;
}

Test(slab, nothing_is_lost_when_frames_run_out)
{
    static struct loam_slab_object objects[8 * LOAM_SLAB_BYTES / 8 + 1];

    for (size_t bytes = 8; bytes <= LOAM_SLAB_OBJECT_MAX; bytes *= 2) {
        for (uint32_t slabs = 1; slabs <= 8; slabs *= 2) {
            struct world world;
            struct loam_slab_cache *cache, *other;
            uint32_t count;

            world_make(&world, slabs, 0, NULL);
            cache = world_cache(&world);
            other = world_cache(&world);
            count = take_all(cache, bytes, objects, sizeof objects / sizeof objects[0]);
            cr_assert_eq(count, slabs * slab_objects(bytes));
            cr_assert_eq(loam_slab_alloc(other, bytes == 8 ? 16 : 8, &objects[count]), LOAM_ERROR_EXHAUSTED);
            world_validate(&world);
            /* One object, wherever it lies and whoever freed it, is enough for the next. */
            for (uint32_t i = 0; i < count; i += count / 5) {
                give(i % 2 == 0 ? cache : other, objects[i], bytes);
                objects[i] = take(cache, bytes);
                cr_assert_eq(loam_slab_alloc(cache, bytes, &objects[count]), LOAM_ERROR_EXHAUSTED);
            }
            world_validate(&world);
            for (uint32_t i = 0; i < count; i++) {
                give(i % 3 == 0 ? other : cache, objects[i], bytes);
            }
            world_cache_end(&world, cache);
            world_cache_end(&world, other);
            world_end(&world);
        }
    }
}

Test(slab, nothing_is_lost_when_units_run_out)
{
    struct world world;
    struct loam_slab_cache *cache;
    static struct loam_slab_object objects[3 * LOAM_SLAB_BYTES / 8];

    world_make(&world, 16, 0, &(struct loam_slab_config){.slab_capacity = 9});
    cache = world_cache(&world);
    cr_assert_eq(take_all(cache, 8, objects, sizeof objects / sizeof objects[0]), slab_objects(8));
    objects[0] = take(cache, 2048);
    cr_assert_eq(world_taken(&world), 2 * SLAB_FRAMES);
    cr_assert_eq(loam_slab_alloc(cache, 1024, &objects[1]), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(world_taken(&world), 2 * SLAB_FRAMES);
    give(cache, objects[0], 2048);
    cr_assert_eq(loam_slab_cache_drain(&world.slab, cache), LOAM_OK);
    cr_assert_eq(stats_of(&world, 2048).kept_count, 1);
    objects[1] = take(cache, 1024);
    cr_assert_eq(stats_of(&world, 2048).kept_count, 0, "what is kept of one class serves another in need");
    world_validate(&world);
    world_drop(&world);
}

Test(slab, frames_outside_the_windows_are_given_back)
{
    struct world world;
    struct loam_slab slab;
    struct loam_slab_cache *cache;
    struct loam_slab_object object;
    size_t bytes;
    void *metadata;

    world_make(&world, 4, 4, NULL);
    world.config.window_count = 1;
    world.config.windows[1] = (struct loam_slab_window){0};
    bytes = loam_slab_bytes(&world.config);
    metadata = aligned_alloc(64, bytes);
    cr_assert_eq(loam_slab_init(metadata, bytes, &world.config, world.frame, &slab), LOAM_OK);
    cr_assert_eq(loam_slab_cache_make(&slab, &cache), LOAM_OK);
    cr_assert_eq(loam_slab_alloc(cache, 64, &object), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(world_taken(&world), 0);
    cr_assert_eq(loam_slab_cache_destroy(&slab, cache), LOAM_OK);
    cr_assert_eq(loam_slab_destroy(&slab, NULL), LOAM_OK);
    free(metadata);
    world.config.window_count = 2;
    world_end(&world);
}

/* --- Two mappings ---------------------------------------------------------------------------------------------- */

Test(slab, works_at_two_addresses_at_once)
{
    uint32_t count = 2 * slab_objects(32) + 5;
    static struct loam_slab_object objects[2 * LOAM_SLAB_BYTES / 32 + 5];
    struct world world;
    struct loam_slab first, second;
    struct loam_slab_config config;
    struct loam_slab_cache *caches[2];
    struct loam_diag diag = {0};
    size_t bytes;
    void *maps[2];
    int fd = memfd_create("slab", 0);

    world_make(&world, 8, 0, NULL);
    config = world.config;
    bytes = loam_slab_bytes(&config);
    cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
    for (unsigned i = 0; i < 2; i++) {
        maps[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        cr_assert_neq(maps[i], MAP_FAILED);
    }
    cr_assert_eq(loam_slab_init(maps[0], bytes, &config, world.frame, &first), LOAM_OK);
    /* Elsewhere the guest's memory lies elsewhere too. */
    config.windows[0].hva = (char *)config.windows[0].hva + 4096;
    cr_assert_eq(loam_slab_attach(maps[1], bytes, &config, world.frame, &second, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_slab_cache_make(&first, &caches[0]), LOAM_OK);
    cr_assert_eq(loam_slab_cache_make(&second, &caches[1]), LOAM_OK);
    for (uint32_t i = 0; i < count; i++) {
        objects[i] = take(caches[0], 32);
    }
    for (uint32_t i = 0; i < count; i += 2) {
        cr_assert_eq(loam_slab_free_hva(caches[1], (char *)objects[i].hva + 4096, 32), LOAM_OK);
    }
    cr_assert_eq(loam_slab_validate(&second, &diag), LOAM_OK, "%s", diag.text);
    /* The first mapping's cache is drained through the second, and what it left is taken up there. */
    cr_assert_eq(
        loam_slab_cache_drain(
            &second, (struct loam_slab_cache *)(void *)((char *)maps[1] + ((char *)caches[0] - (char *)maps[0]))),
        LOAM_OK);
    cr_assert_eq(loam_slab_validate(&first, &diag), LOAM_OK, "%s", diag.text);
    for (uint32_t i = 0; i < count; i += 2) {
        objects[i] = take(caches[1], 32);
        cr_assert_eq(offset_of(&world, 0, objects[i]), objects[i].gpa.value - LOW_START + 4096);
    }
    for (uint32_t i = 0; i < count; i++) {
        give(caches[i % 3 == 0], objects[i], 32);
    }
    cr_assert_eq(loam_slab_cache_destroy(&first, caches[0]), LOAM_OK);
    cr_assert_eq(loam_slab_cache_destroy(&second, caches[1]), LOAM_OK);
    cr_assert_eq(loam_slab_validate(&first, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_slab_destroy(&second, NULL), LOAM_OK);
    munmap(maps[0], bytes);
    munmap(maps[1], bytes);
    close(fd);
    world_end(&world);
}

Test(slab, attach_refuses_what_is_not_the_same)
{
    struct world world;
    struct loam_slab slab;
    struct loam_slab_config config;
    struct loam_diag diag = {0};
    struct slab_sealed *sealed;

    world_make(&world, 4, 0, NULL);
    sealed = &world.slab.shared->sealed;
    config = world.config;
    cr_assert_eq(loam_slab_attach(world.metadata, world.metadata_bytes, &config, world.frame, &slab, &diag), LOAM_OK);
    cr_assert_eq(loam_slab_attach(world.metadata, world.metadata_bytes - 1, &config, world.frame, &slab, &diag),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_slab_attach((char *)world.metadata + 4, world.metadata_bytes, &config, world.frame, &slab, &diag),
                 LOAM_ERROR_INVALID);
    config.windows[0].start.value += LOAM_SLAB_BYTES;
    cr_assert_eq(loam_slab_attach(world.metadata, world.metadata_bytes, &config, world.frame, &slab, &diag),
                 LOAM_ERROR_INVALID);
    config = world.config;
    config.limit.value = LOAM_DMA32_END_BYTES;
    cr_assert_eq(loam_slab_attach(world.metadata, world.metadata_bytes, &config, world.frame, &slab, &diag),
                 LOAM_ERROR_INVALID);
    cr_assert_null(slab.shared);
    config = world.config;
    sealed->magic ^= UINT64_C(1) << 56;
    cr_assert_eq(loam_slab_attach(world.metadata, world.metadata_bytes, &config, world.frame, &slab, &diag),
                 LOAM_ERROR_INVALID);
    cr_assert_not_null(strstr(diag.text, "version '3', wanted '2'"), "%s", diag.text);
    sealed->magic ^= 1 | UINT64_C(1) << 56;
    cr_assert_eq(loam_slab_attach(world.metadata, world.metadata_bytes, &config, world.frame, &slab, &diag),
                 LOAM_ERROR_UNINITIALISED);
    sealed->magic ^= 1;
    sealed->table_offset ^= 64;
    cr_assert_eq(loam_slab_attach(world.metadata, world.metadata_bytes, &config, world.frame, &slab, &diag),
                 LOAM_ERROR_CORRUPT);
    cr_assert_eq(loam_slab_validate(&world.slab, &diag), LOAM_ERROR_CORRUPT);
    sealed->table_offset ^= 64;
    world_end(&world);
}

/* --- Lines ----------------------------------------------------------------------------------------------------- */

Test(slab, describes_what_stands_at_an_address)
{
    struct world world;
    struct loam_slab_cache *cache, *other;
    struct loam_slab_object objects[2];
    char text[128], wanted[128];
    size_t length;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    other = world_cache(&world);
    objects[0] = take(cache, 64);
    objects[1] = take(cache, 64);
    length = loam_slab_describe(&world.slab, objects[0].gpa, text, sizeof text);
    snprintf(wanted, sizeof wanted, "0x%llx starts a live object of 64 bytes in the slab at 0x%llx of cache 1",
             (unsigned long long)objects[0].gpa.value, (unsigned long long)objects[0].gpa.value);
    cr_assert_str_eq(text, wanted);
    cr_assert_eq(length, strlen(wanted));
    cr_assert_eq(loam_slab_describe(&world.slab, objects[0].gpa, text, 8), length, "cut");
    cr_assert_eq(strlen(text), 7);
    loam_slab_describe(&world.slab, gpa_at(objects[0].gpa.value + 3), text, sizeof text);
    cr_assert_not_null(strstr(text, "lies inside an object of 64 bytes"), "%s", text);
    loam_slab_describe(&world.slab, gpa_at(objects[0].gpa.value + 128), text, sizeof text);
    cr_assert_not_null(strstr(text, "starts a free, cached object"), "%s", text);
    give(other, objects[0], 64);
    loam_slab_describe(&world.slab, objects[0].gpa, text, sizeof text);
    cr_assert_not_null(strstr(text, "starts a free and not yet collected object"), "%s", text);
    give(cache, objects[1], 64);
    loam_slab_describe(&world.slab, objects[1].gpa, text, sizeof text);
    cr_assert_not_null(strstr(text, "starts a free object"), "%s", text);
    objects[0].gpa.value ^= LOAM_SLAB_BYTES;
    loam_slab_describe(&world.slab, objects[0].gpa, text, sizeof text);
    cr_assert_not_null(strstr(text, "lies in no slab"), "%s", text);
    cr_assert_eq(loam_slab_check(&world.slab, objects[0].gpa, 64, NULL), LOAM_ERROR_NOT_FOUND);
    world_cache_end(&world, cache);
    loam_slab_describe(&world.slab, objects[1].gpa, text, sizeof text);
    cr_assert_not_null(strstr(text, "of no cache"), "%s", text);
    world_cache_end(&world, other);
    world_end(&world);
}

Test(slab, stats_refuse_a_class_that_is_none)
{
    struct world world;
    struct loam_slab_class_stats stats;

    world_make(&world, 4, 0, NULL);
    cr_assert_eq(loam_slab_stats(&world.slab, LOAM_SLAB_CLASS_COUNT, &stats), LOAM_ERROR_INVALID);
    cr_assert_eq(stats.object_bytes, 0);
    world_end(&world);
}

/* --- Damage ---------------------------------------------------------------------------------------------------- */

struct flips {
    const struct world *world;
    unsigned flipped, missed;
};

/* Flip each bit of the value in turn: validate ends, and finds it. */
static void flip_all(struct flips *flips, void *value, size_t bytes, const char *name)
{
    unsigned char *at = value;

    for (size_t bit = 0; bit < bytes * 8; bit++) {
        struct loam_diag diag = {0};

        at[bit / 8] ^= (unsigned char)(1u << bit % 8);
        flips->flipped++;
        if (loam_slab_validate(&flips->world->slab, &diag) == LOAM_OK) {
            flips->missed++;
            fprintf(stderr, "validate missed bit %zu of %s\n", bit, name);
        }
        at[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

#define FLIP(object, member) flip_all(flips, &(object)->member, sizeof(object)->member, #member)

Test(slab, a_table_that_leads_nowhere_is_not_followed)
{
    struct world world;
    struct loam_slab_cache *cache, *other;
    struct loam_slab_object object;
    _Atomic uint32_t *entry;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    other = world_cache(&world);
    object = take(cache, 64);
    entry = slab_table_entry(&world.slab, &world.slab.windows[0], object.gpa.value);
    *entry ^= UINT32_C(1) << 31;
    cr_assert_eq(loam_slab_free(other, object.gpa, 64), LOAM_ERROR_CORRUPT);
    *entry = SLAB_UNIT_NONE;
    cr_assert_eq(loam_slab_free(other, object.gpa, 64), LOAM_ERROR_NOT_FOUND);
    *entry = 1;
    give(other, object, 64);
    world_cache_end(&world, cache);
    world_cache_end(&world, other);
    world_end(&world);
}

Test(slab, frames_that_are_freed_behind_its_back_are_noticed)
{
    struct world world;
    struct loam_slab_cache *cache;
    struct loam_slab_object object;
    struct loam_diag diag = {0};
    loam_pfn start;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    object = take(cache, 64);
    start = loam_pfn_from_u64((object.gpa.value & ~(uint64_t)(LOAM_SLAB_BYTES - 1)) / LOAM_FRAME_BYTES);
    cr_assert_eq(loam_frame_free(world.frame, start, SLAB_FRAMES), LOAM_OK);
    cr_assert_eq(loam_slab_validate(&world.slab, &diag), LOAM_ERROR_CORRUPT);
    cr_assert_not_null(strstr(diag.text, "not a block of its own"), "%s", diag.text);
    give(cache, object, 64);
    cr_assert_eq(loam_slab_cache_drain(&world.slab, cache), LOAM_OK);
    cr_assert_eq(loam_slab_trim(&world.slab), LOAM_OK);
    cr_assert_eq(loam_slab_validate(&world.slab, &diag), LOAM_ERROR_CORRUPT);
    cr_assert_not_null(strstr(diag.text, "refused the frames of 1 slabs"), "%s", diag.text);
    world_drop(&world);
}

static void flip_unit(struct flips *flips, struct slab_unit *unit)
{
    uint32_t held_word = shared_load(unit->held_word) & 255u;

    FLIP(unit, key);
    FLIP(unit, owner);
    FLIP(unit, notice);
    FLIP(unit, kind);
    if (shared_load(unit->kind) == SLAB_UNIT_HEAD) {
        FLIP(unit, extra);
        FLIP(unit, until);
        FLIP(unit, notify);
        FLIP(unit, state);
        FLIP(unit, window);
        flip_all(flips, &unit->held_word, 1, "held_word");
        for (uint32_t word = 0; word < SLAB_UNIT_WORDS; word++) {
            /* The held word's F changes with every free and is not counted. */
            if (held_word != word + 1) {
                FLIP(unit, free[word]);
            }
        }
    }
}

static void assert_damaged(const struct world *world, const char *text)
{
    struct loam_diag diag = {0};

    cr_expect_eq(loam_slab_validate(&world->slab, &diag), LOAM_ERROR_CORRUPT, "%s: not seen", text);
    cr_expect_not_null(strstr(diag.text, text), "%s instead of: %s", diag.text, text);
}

/* What single bits do not come to: a list in good order that lacks a slab, and a unit that nobody may write to. */
Test(slab, validate_misses_no_slab_that_is_partly_used)
{
    struct loam_slab_object objects[slab_objects(512)];
    uint32_t count = slab_objects(512);
    struct loam_slab_cache *cache;
    struct slab_unit *nobody;
    struct slab_list *partial, saved;
    struct world world;

    world_make(&world, 4, 0, NULL);
    cache = world_cache(&world);
    for (uint32_t i = 0; i < count; i++) {
        objects[i] = take(cache, 512);
    }
    (void)take(cache, 512);
    for (uint32_t i = 0; i < count / 2; i++) {
        give(cache, objects[i], 512);
    }
    partial = &cache->hot[slab_class_of(512)].partial;
    saved = *partial;
    cr_assert_neq(saved.first, SLAB_UNIT_NONE);
    *partial = (struct slab_list){SLAB_UNIT_NONE, SLAB_UNIT_NONE};
    assert_damaged(&world, "are partly used, 0 are listed");
    *partial = saved;
    nobody = &slab_units(world.slab.shared)[SLAB_UNIT_NONE];
    nobody->key ^= 1;
    assert_damaged(&world, "the unit that is nobody's is written to");
    nobody->key ^= 1;
    world_validate(&world);
    world_drop(&world);
}

/* Slabs in all states, with extras; each field of theirs that others depend on. */
Test(slab, validate_finds_damage, .timeout = 60)
{
    struct world world;
    struct loam_slab_shared *shared;
    struct loam_slab_cache *cache, *other, *dead;
    struct loam_slab_object object, full[2 * slab_objects(1024)];
    struct flips all = {.world = &world}, *flips = &all;

    world_make(&world, 16, 0, &(struct loam_slab_config){.slab_capacity = 40});
    cache = world_cache(&world);
    other = world_cache(&world);
    dead = world_cache(&world);
    for (unsigned i = 0; i < 2 * slab_objects(1024); i++) {
        full[i] = take(cache, 1024);
    }
    object = take(cache, 2048);
    give(cache, object, 2048);
    (void)take(cache, 16);
    (void)take(dead, 512);
    (void)take(dead, 32);
    object = take(other, 64);
    give(other, object, 64);
    cr_assert_eq(loam_slab_cache_drain(&world.slab, other), LOAM_OK);
    cr_assert_eq(loam_slab_cache_drain(&world.slab, dead), LOAM_OK);
    give(other, full[0], 1024);
    (void)take(other, 256);
    world_validate(&world);
    shared = world.slab.shared;
    for (uint32_t i = 1; i < shared->unit_top; i++) {
        flip_unit(flips, &slab_units(shared)[i]);
    }
    FLIP(shared, sealed);
    FLIP(shared, unit_top);
    FLIP(shared, unit_first_free);
    FLIP(shared, unit_free_count);
    FLIP(shared, kept);
    FLIP(shared, orphans);
    for (uint32_t class = 0; class < LOAM_SLAB_CLASS_COUNT; class ++) {
        FLIP(cache, hot[class].shift);
        FLIP(cache, hot[class].slab);
        FLIP(cache, hot[class].partial);
        if (cache->hot[class].slab != SLAB_UNIT_NONE) {
            FLIP(cache, hot[class].word);
            FLIP(cache, hot[class].gpa);
        }
    }
    FLIP(cache, hot_offset);
    FLIP(cache, id);
    FLIP(cache, inbox);
    flip_all(flips, (void *)(uintptr_t)slab_table(shared), 16 * sizeof(uint32_t), "table");
    world_validate(&world);
    cr_assert_leq(flips->missed * 100, flips->flipped, "%u of %u flips missed", flips->missed, flips->flipped);
    world_drop(&world);
}
