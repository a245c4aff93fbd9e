// SPDX-License-Identifier: Apache-2.0
/*
 * The whole recounted from the bitmaps up. Nothing that is read is believed before it is checked: no index is followed
 * unless it is in bounds, no list further than there are units.
 */
#include "allocator/slab/slab_pool.h"

#include <inttypes.h>

struct slab_recount {
    const struct loam_slab *slab;
    const struct loam_slab_shared *shared;
    struct slab_unit *units;
    struct loam_diag *diag;
    uint32_t heads, free, current, queued;
    uint32_t partial[LOAM_SLAB_CLASS_COUNT], orphans[LOAM_SLAB_CLASS_COUNT], kept[LOAM_SLAB_CLASS_COUNT];
};

#define DAMAGED(recount, ...)                                                                                          \
    do {                                                                                                               \
        return loam_fail((recount)->diag, LOAM_ERROR_CORRUPT, "slab: " __VA_ARGS__);                                   \
    } while (0)

static bool is_head(const struct slab_recount *recount, uint32_t index)
{
    return index != SLAB_UNIT_NONE && index < recount->shared->unit_top &&
           shared_load(recount->units[index].kind) == SLAB_UNIT_HEAD;
}

static uint32_t class_at(const struct slab_unit *head)
{
    return (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK);
}

/* --- A slab ------------------------------------------------------------------------------------------------------ */

static enum loam_error check_place(const struct slab_recount *recount, uint32_t index)
{
    const struct slab_unit *head = &recount->units[index];
    uint64_t key = shared_load(head->key), gpa = slab_key_gpa(key);
    const struct loam_slab_view *window = slab_window(recount->slab, gpa);
    uint64_t limit = recount->shared->sealed.limit;
    struct loam_frame_info info;

    if (class_at(head) >= LOAM_SLAB_CLASS_COUNT || (key & (LOAM_SLAB_BYTES - 1)) != class_at(head)) {
        DAMAGED(recount, "unit %" PRIu32 " is of class %" PRIu64, index, key & (LOAM_SLAB_BYTES - 1));
    }
    if (window == NULL || head->window != (uint32_t)(window - recount->slab->windows) ||
        (limit != 0 && !loam_fits(gpa, LOAM_SLAB_BYTES, limit))) {
        DAMAGED(recount, "the slab at 0x%" PRIx64 " lies in another window, or beyond the limit", gpa);
    }
    if (shared_load(*slab_table_entry(recount->slab, window, gpa)) != index) {
        DAMAGED(recount, "the table leads from 0x%" PRIx64 " to unit %" PRIu32 ", not %" PRIu32, gpa,
                shared_load(*slab_table_entry(recount->slab, window, gpa)), index);
    }
    info =
        loam_frame_query(recount->slab->frame, loam_pfn_from_gpa(loam_gpa_from_u64(gpa), recount->slab->frame_shift));
    if (info.state != LOAM_FRAME_ALLOCATED || info.tag != LOAM_FRAME_TAG_SLAB ||
        info.block.start.value << recount->slab->frame_shift != gpa ||
        info.block.count_frames << recount->slab->frame_shift != LOAM_SLAB_BYTES) {
        DAMAGED(recount, "the frames of the slab at 0x%" PRIx64 " are not a block of its own", gpa);
    }
    return LOAM_OK;
}

static enum loam_error check_extras(const struct slab_recount *recount, uint32_t index)
{
    const struct slab_unit *head = &recount->units[index];

    for (uint32_t i = 0; i < SLAB_UNIT_EXTRA_MAX; i++) {
        uint32_t extra = shared_load(head->extra[i]);

        if (i + 1 >= slab_class_units(class_at(head))) {
            if (extra != SLAB_UNIT_NONE) {
                DAMAGED(recount, "unit %" PRIu32 " has an extra that its class does not need", index);
            }
        } else if (extra == SLAB_UNIT_NONE || extra >= recount->shared->unit_top ||
                   shared_load(recount->units[extra].kind) != SLAB_UNIT_EXTRA ||
                   shared_load(recount->units[extra].extra[0]) != index) {
            DAMAGED(recount, "extra %" PRIu32 " of unit %" PRIu32 " is none of its own", i, index);
        }
    }
    return LOAM_OK;
}

/* F, R and H against used; the place and the extras are checked. */
static enum loam_error check_bits(const struct slab_recount *recount, uint32_t index)
{
    struct slab_unit *head = &recount->units[index];
    uint32_t class = class_at(head), owner = shared_load(head->owner), used = 0;
    bool waits = shared_load(head->notice) == SLAB_NOTICE_WAITING;
    uint32_t held_word = (shared_load(head->held_word) & 255u) - 1; /* UINT32_MAX: none */
    uint64_t held = held_word != UINT32_MAX && owner != SLAB_OWNER_NONE
                        ? shared_load(slab_cache_at(recount->shared, owner)->hot[class].held)
                        : 0;

    if (held_word != UINT32_MAX && (held_word >= slab_class_words(class) || shared_load(head->state) != SLAB_CURRENT)) {
        DAMAGED(recount, "unit %" PRIu32 " says that word %" PRIu32 " is held", index, held_word);
    }
    for (uint32_t word = 0; word < slab_class_units(class) * SLAB_UNIT_WORDS; word++) {
        struct slab_unit *bits = slab_word_unit(recount->units, head, word);
        uint64_t mask = word < slab_class_words(class) ? slab_class_word_mask(class) : 0;
        uint64_t free = shared_load(bits->free[word % SLAB_UNIT_WORDS]);
        uint64_t remote = shared_load(bits->remote[word % SLAB_UNIT_WORDS]);
        uint64_t in_hand = word == held_word ? held : 0;

        if (((free | in_hand) & ~mask) != 0 || (free & in_hand) != 0 ||
            (remote & ~mask) != (word < slab_class_words(class) ? ~mask : 0)) {
            DAMAGED(recount, "word %" PRIu32 " of unit %" PRIu32 " says that an object is free twice, or that is none",
                    word, index);
        }
        if (waits && (remote & mask) != 0) {
            DAMAGED(recount, "unit %" PRIu32 " waits for a first free, and word %" PRIu32 " has one", index, word);
        }
        used += word == held_word ? slab_popcount(mask) : slab_popcount(mask & ~free);
    }
    if (used != slab_used_of(head)) {
        DAMAGED(recount, "unit %" PRIu32 " counts %" PRIu32 " objects as used, its bits say %" PRIu32, index,
                slab_used_of(head), used);
    }
    return LOAM_OK;
}

static enum loam_error check_state(struct slab_recount *recount, uint32_t index)
{
    const struct slab_unit *head = &recount->units[index];
    uint32_t class = class_at(head), state = shared_load(head->state), notice = shared_load(head->notice);
    uint32_t notify = state == SLAB_FULL && notice == SLAB_NOTICE_WAITING
                          ? slab_class_objects(class) - slab_class_refill_count(class)
                          : 0;
    bool owned = shared_load(head->owner) != SLAB_OWNER_NONE;

    if (state < SLAB_CURRENT || state > SLAB_ORPHAN || owned != (state < SLAB_KEPT)) {
        DAMAGED(recount, "unit %" PRIu32 " is in state %" PRIu32 " with owner %" PRIu32, index, state,
                shared_load(head->owner));
    }
    if (state == SLAB_FULL ? notice != SLAB_NOTICE_WAITING && notice != SLAB_NOTICE_QUEUED
                           : notice != SLAB_NOTICE_NONE) {
        DAMAGED(recount, "unit %" PRIu32 " is in state %" PRIu32 " with notice %" PRIu32, index, state, notice);
    }
    /* One that was queued may still have the threshold of a full one. */
    if (head->notify != notify &&
        !(notice == SLAB_NOTICE_QUEUED && head->notify == slab_class_objects(class) - slab_class_refill_count(class))) {
        DAMAGED(recount, "unit %" PRIu32 " notifies at %" PRIu32 ", not at %" PRIu32, index, head->notify, notify);
    }
    if (state >= SLAB_KEPT && (state == SLAB_KEPT) != (slab_used_of(head) == 0)) {
        DAMAGED(recount, "unit %" PRIu32 " has no owner, state %" PRIu32 " and %" PRIu32 " used objects", index, state,
                slab_used_of(head));
    }
    recount->current += state == SLAB_CURRENT;
    recount->queued += notice == SLAB_NOTICE_QUEUED;
    recount->partial[class] += state == SLAB_PARTIAL;
    recount->kept[class] += state == SLAB_KEPT;
    recount->orphans[class] += state == SLAB_ORPHAN && slab_used_of(head) < slab_class_objects(class);
    return LOAM_OK;
}

static enum loam_error check_slab(struct slab_recount *recount, uint32_t index)
{
    const struct slab_unit *head = &recount->units[index];
    uint32_t owner = shared_load(head->owner);
    enum loam_error error;

    if (owner > recount->shared->sealed.cache_capacity ||
        (owner != SLAB_OWNER_NONE && shared_load(slab_cache_at(recount->shared, owner)->id) != owner)) {
        DAMAGED(recount, "unit %" PRIu32 " is owned by cache %" PRIu32 ", which is not there", index, owner);
    }
    error = check_place(recount, index);
    if (error == LOAM_OK) {
        error = check_extras(recount, index);
    }
    if (error == LOAM_OK) {
        error = check_bits(recount, index);
    }
    return error == LOAM_OK ? check_state(recount, index) : error;
}

/* --- All units ----------------------------------------------------------------------------------------------------- */

static bool is_extra_of(const struct slab_recount *recount, uint32_t index)
{
    uint32_t head = shared_load(recount->units[index].extra[0]);

    for (uint32_t i = 0; is_head(recount, head) && i < SLAB_UNIT_EXTRA_MAX; i++) {
        if (shared_load(recount->units[head].extra[i]) == index) {
            return true;
        }
    }
    return false;
}

static enum loam_error check_units(struct slab_recount *recount)
{
    const struct loam_slab_shared *shared = recount->shared;

    if (shared->unit_top == 0 || shared->unit_top > shared->sealed.unit_capacity + 1) {
        DAMAGED(recount, "unit_top is %" PRIu32 " of %" PRIu32, shared->unit_top, shared->sealed.unit_capacity + 1);
    }
    if (shared_load(recount->units[SLAB_UNIT_NONE].key) != SLAB_KEY_NONE ||
        shared_load(recount->units[SLAB_UNIT_NONE].free[0]) != UINT64_MAX) {
        DAMAGED(recount, "the unit that is nobody's is written to");
    }
    for (uint32_t i = 1; i < shared->unit_top; i++) {
        const struct slab_unit *unit = &recount->units[i];
        enum loam_error error = LOAM_OK;

        switch (shared_load(unit->kind)) {
        case SLAB_UNIT_FREE:
            recount->free++;
            break;
        case SLAB_UNIT_HEAD:
            recount->heads++;
            error = check_slab(recount, i);
            break;
        case SLAB_UNIT_EXTRA:
            if (!is_extra_of(recount, i)) {
                DAMAGED(recount, "unit %" PRIu32 " is an extra of no slab", i);
            }
            break;
        default:
            DAMAGED(recount, "unit %" PRIu32 " is of kind %" PRIu32, i, shared_load(unit->kind));
        }
        if (error == LOAM_OK && shared_load(unit->kind) != SLAB_UNIT_HEAD &&
            (shared_load(unit->key) != SLAB_KEY_NONE || shared_load(unit->notice) != SLAB_NOTICE_NONE ||
             shared_load(unit->owner) != SLAB_OWNER_NONE)) {
            DAMAGED(recount, "unit %" PRIu32 " is no slab's head, and has a key, a notice or an owner", i);
        }
        if (error != LOAM_OK) {
            return error;
        }
    }
    return LOAM_OK;
}

static enum loam_error check_free_units(const struct slab_recount *recount)
{
    uint32_t i = recount->shared->unit_first_free, count = 0;

    for (; count < recount->shared->unit_free_count; count++) {
        if (i == SLAB_UNIT_NONE || i >= recount->shared->unit_top ||
            shared_load(recount->units[i].kind) != SLAB_UNIT_FREE) {
            DAMAGED(recount, "unit %" PRIu32 " is on the list of free units", i);
        }
        i = recount->units[i].previous;
    }
    if (count != recount->free || i != SLAB_UNIT_NONE) {
        DAMAGED(recount, "%" PRIu32 " units are free, %" PRIu32 " are listed, and then unit %" PRIu32, recount->free,
                count, i);
    }
    return LOAM_OK;
}

/* --- Lists, caches, table ---------------------------------------------------------------------------------------- */

/* All on the list are of the class, state and owner, and the links agree; *count grows by how many they are. */
static enum loam_error check_list(const struct slab_recount *recount, const struct slab_list *list, uint32_t class,
                                  enum slab_state state, uint32_t owner, uint32_t *count)
{
    uint32_t previous = SLAB_UNIT_NONE, steps = 0;

    for (uint32_t i = list->first; i != SLAB_UNIT_NONE; i = recount->units[i].next) {
        if (!is_head(recount, i) || class_at(&recount->units[i]) != class ||
            shared_load(recount->units[i].state) != state || shared_load(recount->units[i].owner) != owner ||
            recount->units[i].previous != previous || ++steps > recount->shared->unit_top) {
            DAMAGED(recount, "unit %" PRIu32 " is on a list of class %" PRIu32 " of cache %" PRIu32, i, class, owner);
        }
        previous = i;
    }
    if (list->last != previous) {
        DAMAGED(recount, "a list of class %" PRIu32 " of cache %" PRIu32 " ends at unit %" PRIu32 ", not %" PRIu32,
                class, owner, previous, list->last);
    }
    *count += steps;
    return LOAM_OK;
}

/* What the cache has in hand of the class. */
static enum loam_error check_hand(const struct slab_recount *recount, uint32_t id, uint32_t class)
{
    const struct slab_hot *hot = &slab_cache_at(recount->shared, id)->hot[class];
    const struct slab_unit *head = &recount->units[hot->slab];

    if (hot->slab == SLAB_UNIT_NONE) {
        if (shared_load(hot->held) != 0) {
            DAMAGED(recount, "cache %" PRIu32 " holds objects of class %" PRIu32 " of no slab", id, class);
        }
        return LOAM_OK;
    }
    if (!is_head(recount, hot->slab) || class_at(head) != class || shared_load(head->owner) != id ||
        shared_load(head->state) != SLAB_CURRENT) {
        DAMAGED(recount, "cache %" PRIu32 " allocates class %" PRIu32 " from unit %" PRIu32, id, class, hot->slab);
    }
    if ((shared_load(head->held_word) & 255u) == 0
            ? shared_load(hot->held) != 0
            : !slab_held_word_is(shared_load(head->held_word), hot->word) ||
                  hot->gpa !=
                      slab_key_gpa(shared_load(head->key)) + ((uint64_t)hot->word * 64 << slab_class_shift(class))) {
        DAMAGED(recount, "cache %" PRIu32 " holds another word of unit %" PRIu32 " than that says", id, hot->slab);
    }
    return LOAM_OK;
}

static enum loam_error check_sizes(const struct slab_recount *recount, const struct loam_slab_cache *cache, uint32_t id)
{
    for (uint32_t class = 0; class < SLAB_CLASS_SLOTS; class ++) {
        if (cache->hot[class].shift != slab_class_shift(class)) {
            DAMAGED(recount, "cache %" PRIu32 " takes objects of class %" PRIu32 " for others", id, class);
        }
    }
    for (size_t step = 0; step < SLAB_SIZE_STEPS; step++) {
        uint32_t class = step == 0 ? SLAB_CLASS_NEVER : slab_class_of(step * LOAM_SLAB_OBJECT_MIN);

        if (cache->hot_offset[step] != offsetof(struct loam_slab_cache, hot) + class * sizeof(struct slab_hot)) {
            DAMAGED(recount, "cache %" PRIu32 " takes %zu bytes for another class", id, step * LOAM_SLAB_OBJECT_MIN);
        }
    }
    return LOAM_OK;
}

static enum loam_error check_inbox(const struct slab_recount *recount, uint32_t id, uint32_t *count)
{
    uint32_t steps = 0;

    for (uint32_t i = shared_load(slab_cache_at(recount->shared, id)->inbox); i != SLAB_UNIT_NONE;
         i = shared_load(recount->units[i].inbox_next)) {
        if (!is_head(recount, i) || shared_load(recount->units[i].owner) != id ||
            shared_load(recount->units[i].notice) != SLAB_NOTICE_QUEUED || ++steps > recount->shared->unit_top) {
            DAMAGED(recount, "unit %" PRIu32 " is in the inbox of cache %" PRIu32, i, id);
        }
    }
    *count += steps;
    return LOAM_OK;
}

static enum loam_error check_caches(const struct slab_recount *recount)
{
    uint32_t current = 0, queued = 0, partial[LOAM_SLAB_CLASS_COUNT] = {0};

    for (uint32_t id = 1; id <= recount->shared->sealed.cache_capacity; id++) {
        const struct loam_slab_cache *cache = slab_cache_at(recount->shared, id);
        enum loam_error error = LOAM_OK;

        if (shared_load(cache->id) != id && shared_load(cache->id) != 0) {
            DAMAGED(recount, "cache %" PRIu32 " takes itself for %" PRIu32, id, shared_load(cache->id));
        }
        for (uint32_t class = 0; class < LOAM_SLAB_CLASS_COUNT && error == LOAM_OK; class ++) {
            current += cache->hot[class].slab != SLAB_UNIT_NONE;
            error = check_hand(recount, id, class);
            if (error == LOAM_OK) {
                error = check_list(recount, &cache->hot[class].partial, class, SLAB_PARTIAL, id, &partial[class]);
            }
        }
        if (error == LOAM_OK && shared_load(cache->id) != 0) {
            error = check_sizes(recount, cache, id);
        }
        if (error == LOAM_OK) {
            error = check_inbox(recount, id, &queued);
        }
        if (error != LOAM_OK) {
            return error;
        }
    }
    for (uint32_t class = 0; class < LOAM_SLAB_CLASS_COUNT; class ++) {
        if (partial[class] != recount->partial[class]) {
            DAMAGED(recount, "%" PRIu32 " slabs of class %" PRIu32 " are partly used, %" PRIu32 " are listed",
                    recount->partial[class], class, partial[class]);
        }
    }
    if (current != recount->current || queued != recount->queued) {
        DAMAGED(recount,
                "%" PRIu32 " slabs are allocated from and %" PRIu32 " queued, but %" PRIu32 " and %" PRIu32 " known",
                recount->current, recount->queued, current, queued);
    }
    return LOAM_OK;
}

static enum loam_error check_unowned(const struct slab_recount *recount)
{
    for (uint32_t class = 0; class < LOAM_SLAB_CLASS_COUNT; class ++) {
        uint32_t count = 0, kept = recount->shared->kept[class];
        enum loam_error error =
            check_list(recount, &recount->shared->orphans[class], class, SLAB_ORPHAN, SLAB_OWNER_NONE, &count);

        if (error != LOAM_OK) {
            return error;
        }
        if (count != recount->orphans[class] || recount->kept[class] != (kept != SLAB_UNIT_NONE) ||
            (kept != SLAB_UNIT_NONE && (!is_head(recount, kept) || class_at(&recount->units[kept]) != class ||
                                        shared_load(recount->units[kept].state) != SLAB_KEPT))) {
            DAMAGED(recount,
                    "class %" PRIu32 " lists %" PRIu32 " slabs of %" PRIu32 " without owner, and keeps %" PRIu32, class,
                    count, recount->orphans[class], kept);
        }
    }
    return LOAM_OK;
}

static enum loam_error check_table(const struct slab_recount *recount)
{
    uint32_t count = 0;

    for (uint64_t i = 0; i < recount->shared->sealed.table_count; i++) {
        count += shared_load(slab_table(recount->shared)[i]) != SLAB_UNIT_NONE;
    }
    if (count != recount->heads) {
        DAMAGED(recount, "the table leads to %" PRIu32 " slabs, there are %" PRIu32, count, recount->heads);
    }
    if (shared_load(recount->shared->frame_failures) != 0) {
        DAMAGED(recount, "the frame allocator refused the frames of %" PRIu64 " slabs",
                shared_load(recount->shared->frame_failures));
    }
    return LOAM_OK;
}

enum loam_error loam_slab_validate(const struct loam_slab *slab, struct loam_diag *diag)
{
    struct slab_recount recount = {.slab = slab, .diag = diag};
    enum loam_error error;

    if (slab == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "slab: NULL given");
    }
    if (slab->shared == NULL) {
        return loam_fail(diag, LOAM_ERROR_UNINITIALISED, "slab: there is no slab allocator: init it first");
    }
    if (!loam_slab_pool_sealed(slab->shared)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "slab: the constants do not match their sum");
    }
    recount.shared = slab->shared;
    recount.units = slab_units(slab->shared);
    loam_slab_pool_lock(slab->shared);
    error = check_units(&recount);
    if (error == LOAM_OK) {
        error = check_free_units(&recount);
    }
    if (error == LOAM_OK) {
        error = check_caches(&recount);
    }
    if (error == LOAM_OK) {
        error = check_unowned(&recount);
    }
    if (error == LOAM_OK) {
        error = check_table(&recount);
    }
    if (error == LOAM_OK) {
        slab->shared->suspect = 0;
    }
    loam_slab_pool_unlock(slab->shared);
    return error;
}
