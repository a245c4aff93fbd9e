// SPDX-License-Identifier: Apache-2.0
/*
 * What stands where, and the figures: reads only, beside owners who go on.
 */
#include "allocator/slab/slab_pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- An address -------------------------------------------------------------------------------------------------- */

enum finding { NO_WINDOW, NO_SLAB, INSIDE, FREE, UNCOLLECTED, HELD, LIVE };

struct place {
    enum finding finding;
    uint64_t slab_gpa; /* and what follows: from INSIDE on */
    uint32_t slab_index, class, owner;
    uint32_t inside_bytes; /* into the object */
};

static enum finding finding_of(const struct loam_slab_shared *shared, struct slab_unit *head, uint32_t object)
{
    struct slab_unit *bits = slab_word_unit(slab_units(shared), head, object / 64);
    uint64_t bit = UINT64_C(1) << (object % 64), free, held;

    /* R before F, as free_remotely. */
    if ((shared_load_acquire(bits->remote[object / 64 % SLAB_UNIT_WORDS]) & bit) != 0) {
        return UNCOLLECTED;
    }
    loam_slab_pool_look(shared, head, object / 64, &free, &held);
    return (free & bit) != 0 ? FREE : (held & bit) != 0 ? HELD : LIVE;
}

static struct place place_of(const struct loam_slab *slab, uint64_t gpa)
{
    const struct loam_slab_view *window = slab_window(slab, gpa);
    struct place place = {.finding = NO_WINDOW};
    struct slab_unit *head;
    uint64_t key, inside = gpa & (LOAM_SLAB_BYTES - 1);

    if (window == NULL) {
        return place;
    }
    place.slab_index = shared_load_acquire(*slab_table_entry(slab, window, gpa));
    place.finding = NO_SLAB;
    if (place.slab_index > slab->shared->sealed.unit_capacity) {
        return place;
    }
    head = &slab_units(slab->shared)[place.slab_index];
    key = shared_load(head->key);
    place.class = (uint32_t)(key & SLAB_CLASS_MASK);
    if ((key ^ gpa) >> SLAB_SHIFT != 0 || place.class >= LOAM_SLAB_CLASS_COUNT) {
        return place;
    }
    place.slab_gpa = slab_key_gpa(key);
    place.owner = shared_load(head->owner);
    place.inside_bytes = (uint32_t)(inside & ((UINT64_C(1) << slab_class_shift(place.class)) - 1));
    place.finding = place.inside_bytes != 0
                        ? INSIDE
                        : finding_of(slab->shared, head, (uint32_t)(inside >> slab_class_shift(place.class)));
    return place;
}

enum loam_error loam_slab_check(const struct loam_slab *slab, loam_gpa gpa, size_t bytes, struct loam_diag *diag)
{
    static const char *const states[] = {
        [FREE] = "is free",
        [UNCOLLECTED] = "is free: another thread than its owner's freed it",
        [HELD] = "is free: a cache holds it and has not handed it out",
    };
    struct place place;

    if (slab == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "slab: NULL given");
    }
    if (slab->shared == NULL) {
        return loam_fail(diag, LOAM_ERROR_UNINITIALISED, "slab: there is no slab allocator: init it first");
    }
    place = place_of(slab, gpa.value);
    switch (place.finding) {
    case NO_WINDOW:
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "0x%" PRIx64 ", %zu bytes: no window holds the address", gpa.value,
                         bytes);
    case NO_SLAB:
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "0x%" PRIx64 ", %zu bytes: no slab stands there", gpa.value,
                         bytes);
    case INSIDE:
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "0x%" PRIx64 ", %zu bytes: lies %" PRIu32 " bytes inside the object of %u bytes at 0x%" PRIx64,
                         gpa.value, bytes, place.inside_bytes, 1u << slab_class_shift(place.class),
                         gpa.value - place.inside_bytes);
    default:
        break;
    }
    if (slab_class_of(bytes) != place.class) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "0x%" PRIx64 ", %zu bytes: the object is one of %u bytes", gpa.value,
                         bytes, 1u << slab_class_shift(place.class));
    }
    if (place.finding != LIVE) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "0x%" PRIx64 ", %zu bytes: the object %s", gpa.value, bytes,
                         states[place.finding]);
    }
    return LOAM_OK;
}

size_t loam_slab_describe(const struct loam_slab *slab, loam_gpa gpa, char *text, size_t bytes)
{
    static const char *const states[] = {
        [INSIDE] = "lies inside an",
        [FREE] = "starts a free",
        [UNCOLLECTED] = "starts a free and not yet collected",
        [HELD] = "starts a free, cached",
        [LIVE] = "starts a live",
    };
    struct place place = {.finding = NO_WINDOW};
    char owner[32] = "no cache";
    int length;

    bytes = text != NULL ? bytes : 0;
    if (slab != NULL && slab->shared != NULL) {
        place = place_of(slab, gpa.value);
    }
    if (place.owner != SLAB_OWNER_NONE) {
        snprintf(owner, sizeof owner, "cache %" PRIu32, place.owner);
    }
    if (place.finding == NO_WINDOW || place.finding == NO_SLAB) {
        length = snprintf(text, bytes, "0x%" PRIx64 " lies in no %s", gpa.value,
                          place.finding == NO_SLAB ? "slab" : "window");
    } else {
        length = snprintf(text, bytes, "0x%" PRIx64 " %s object of %u bytes in the slab at 0x%" PRIx64 " of %s",
                          gpa.value, states[place.finding], 1u << slab_class_shift(place.class), place.slab_gpa, owner);
    }
    return length < 0 ? 0 : (size_t)length;
}

/* --- Figures ----------------------------------------------------------------------------------------------------- */

static void count_slab(const struct loam_slab_shared *shared, struct slab_unit *head, uint32_t class,
                       struct loam_slab_class_stats *stats)
{
    stats->slab_count++;
    stats->kept_count += shared_load(head->state) == SLAB_KEPT;
    stats->unowned_count += shared_load(head->owner) == SLAB_OWNER_NONE && shared_load(head->state) == SLAB_ORPHAN;
    for (uint32_t word = 0; word < slab_class_words(class); word++) {
        struct slab_unit *bits = slab_word_unit(slab_units(shared), head, word);
        uint64_t remote = shared_load_acquire(bits->remote[word % SLAB_UNIT_WORDS]), free, held;

        remote &= slab_class_word_mask(class);
        loam_slab_pool_look(shared, head, word, &free, &held);
        stats->live_count += slab_popcount(slab_class_word_mask(class) & ~free & ~remote & ~held);
        stats->held_count += slab_popcount(held & ~free & ~remote);
        stats->uncollected_count += slab_popcount(remote & ~free);
    }
}

enum loam_error loam_slab_stats(const struct loam_slab *slab, uint32_t class_index, struct loam_slab_class_stats *stats)
{
    struct loam_slab_shared *shared = slab != NULL ? slab->shared : NULL;
    struct slab_unit *units;

    if (stats == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *stats = (struct loam_slab_class_stats){0};
    if (slab == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (shared == NULL) {
        return LOAM_ERROR_UNINITIALISED;
    }
    if (class_index >= LOAM_SLAB_CLASS_COUNT) {
        return LOAM_ERROR_INVALID;
    }
    units = slab_units(shared);
    loam_slab_pool_lock(shared);
    for (uint32_t i = 1; i < shared->unit_top; i++) {
        if (shared_load_acquire(units[i].kind) == SLAB_UNIT_HEAD &&
            (shared_load(units[i].key) & SLAB_CLASS_MASK) == class_index) {
            count_slab(shared, &units[i], class_index, stats);
        }
    }
    stats->remote_free_count = shared_load(shared->remote_frees[class_index]);
    for (uint32_t id = 1; id <= shared->sealed.cache_capacity; id++) {
        stats->remote_free_count += shared_load(slab_cache_at(shared, id)->hot[class_index].remote_frees);
    }
    loam_slab_pool_unlock(shared);
    stats->object_bytes = 1u << slab_class_shift(class_index);
    stats->free_count = (uint64_t)stats->slab_count * slab_class_objects(class_index) - stats->live_count;
    stats->remote_free_count += stats->uncollected_count;
    stats->frame_bytes = (uint64_t)stats->slab_count * LOAM_SLAB_BYTES;
    return LOAM_OK;
}
