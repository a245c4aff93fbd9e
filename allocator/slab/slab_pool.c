// SPDX-License-Identifier: Apache-2.0
/*
 * Units, under the lock: unit_free_count are on the list from unit_first_free on, linked by previous, and those from
 * unit_top on were never used; all others are parts of slabs, or reserved by who makes or unmakes one.
 *
 * Lock order: the slab allocator's, then nothing. Frames are taken and given back without it.
 */
#include "allocator/slab/slab_pool.h"

/* --- The lock -------------------------------------------------------------------------------------------------- */

void loam_slab_pool_lock(struct loam_slab_shared *shared)
{
    if (!loam_lock_take(&shared->lock)) {
        shared->suspect = 1;
    }
}

void loam_slab_pool_unlock(struct loam_slab_shared *shared)
{
    loam_lock_give(&shared->lock);
}

/* --- Units; locked --------------------------------------------------------------------------------------------- */

static bool take_units(struct loam_slab_shared *shared, uint32_t *taken, uint32_t count)
{
    struct slab_unit *units = slab_units(shared);

    if (count > shared->unit_free_count + (shared->sealed.unit_capacity + 1 - shared->unit_top)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (shared->unit_free_count > 0) {
            taken[i] = shared->unit_first_free;
            shared->unit_first_free = units[taken[i]].previous;
            shared->unit_free_count--;
        } else {
            taken[i] = shared->unit_top++;
            shared_store(units[taken[i]].key, SLAB_KEY_NONE);
            shared_store(units[taken[i]].notice, SLAB_NOTICE_NONE);
            shared_store(units[taken[i]].held_word, 0);
            shared_store(units[taken[i]].owner, SLAB_OWNER_NONE);
        }
        shared_store(units[taken[i]].kind, SLAB_UNIT_RESERVED);
    }
    return true;
}

static void give_units(struct loam_slab_shared *shared, const uint32_t *given, uint32_t count)
{
    struct slab_unit *units = slab_units(shared);

    for (uint32_t i = count; i > 0; i--) {
        struct slab_unit *unit = &units[given[i - 1]];

        shared_store(unit->kind, SLAB_UNIT_FREE);
        unit->previous = shared->unit_first_free;
        shared->unit_first_free = given[i - 1];
        shared->unit_free_count++;
    }
}

/* --- Lists ----------------------------------------------------------------------------------------------------- */

void loam_slab_pool_push(struct slab_unit *units, struct slab_list *list, uint32_t slab)
{
    units[slab].previous = list->last;
    units[slab].next = SLAB_UNIT_NONE;
    if (list->last == SLAB_UNIT_NONE) {
        list->first = slab;
    } else {
        units[list->last].next = slab;
    }
    list->last = slab;
}

void loam_slab_pool_unlink(struct slab_unit *units, struct slab_list *list, uint32_t slab)
{
    const struct slab_unit *unit = &units[slab];

    if (unit->previous == SLAB_UNIT_NONE) {
        list->first = unit->next;
    } else {
        units[unit->previous].next = unit->next;
    }
    if (unit->next == SLAB_UNIT_NONE) {
        list->last = unit->previous;
    } else {
        units[unit->next].previous = unit->previous;
    }
}

/* --- Bits ------------------------------------------------------------------------------------------------------ */

void loam_slab_pool_look(const struct loam_slab_shared *shared, struct slab_unit *head, uint32_t word, uint64_t *free,
                         uint64_t *held)
{
    const _Atomic uint64_t *bits = &slab_word_unit(slab_units(shared), head, word)->free[word % SLAB_UNIT_WORDS];
    uint32_t class = (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK), before, owner;

    do {
        /* Each acquires what the owner released when it changed the held word: if one is new, so is the last look. */
        before = shared_load_acquire(head->held_word);
        *free = shared_load_acquire(*bits);
        *held = 0;
        owner = shared_load_acquire(head->owner);
        if (slab_held_word_is(before, word) && owner != SLAB_OWNER_NONE && owner <= shared->sealed.cache_capacity) {
            *held = shared_load_acquire(slab_cache_at(shared, owner)->hot[class].held);
        }
    } while (shared_load(head->held_word) != before);
}

uint32_t loam_slab_pool_collect(const struct loam_slab_shared *shared, struct slab_unit *head)
{
    struct slab_unit *units = slab_units(shared);
    uint32_t class = (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK), count = 0;

    for (uint32_t word = 0; word < slab_class_words(class); word++) {
        struct slab_unit *bits = slab_word_unit(units, head, word);
        uint32_t slot = word % SLAB_UNIT_WORDS;
        /*
         * It acquires what the freer released: its accesses to the objects come before their next life. And it comes
         * after the caller's store to notice or owner, in the one order of all that is sequentially consistent.
         */
        uint64_t remote = shared_load_ordered(bits->remote[slot]) & slab_class_word_mask(class);
        uint64_t free = shared_load(bits->free[slot]);

        if (remote != 0) {
            /* First F, then R, which releases it: at no time does a free object look live. */
            shared_store(bits->free[slot], free | remote);
            shared_and_both(bits->remote[slot], ~remote);
            count += slab_popcount(remote & ~free);
        }
    }
    head->until -= count;
    return count;
}

/* --- Frames ---------------------------------------------------------------------------------------------------- */

static uint64_t slab_frames(const struct loam_slab *slab)
{
    return LOAM_SLAB_BYTES >> slab->frame_shift;
}

/* On success *window holds the whole slab. */
static enum loam_error take_frames(const struct loam_slab *slab, uint64_t *gpa, const struct loam_slab_view **window)
{
    loam_pfn limit = loam_pfn_from_u64(slab->shared->sealed.limit >> slab->frame_shift);
    loam_pfn start;
    enum loam_error error = loam_frame_alloc_order_below(slab->frame, SLAB_SHIFT - slab->frame_shift, limit, &start);

    if (error != LOAM_OK) {
        return error;
    }
    *gpa = loam_gpa_from_pfn(start, slab->frame_shift).value;
    *window = slab_window(slab, *gpa);
    error = *window == NULL ? LOAM_ERROR_NOT_FOUND : loam_frame_tag_set(slab->frame, start, LOAM_FRAME_TAG_SLAB);
    if (error != LOAM_OK && loam_frame_free(slab->frame, start, slab_frames(slab)) != LOAM_OK) {
        error = LOAM_ERROR_CORRUPT;
    }
    return error;
}

/* A unit's bits as those of a new slab: all is free, and what is no object is not to be freed. */
static void fill_bits(struct slab_unit *unit, uint32_t class)
{
    for (uint32_t slot = 0; slot < SLAB_UNIT_WORDS; slot++) {
        bool any = slot < slab_class_words(class);

        shared_store(unit->remote[slot], any ? ~slab_class_word_mask(class) : 0);
        shared_store(unit->free[slot], any ? slab_class_word_mask(class) : 0);
    }
}

/* Make a slab of the units, which are reserved, and the frames at gpa; others may see it once it returns. */
static void assemble(const struct loam_slab *slab, const uint32_t *unit_indexes, uint32_t class, uint64_t gpa,
                     const struct loam_slab_view *window, uint32_t owner)
{
    struct slab_unit *units = slab_units(slab->shared);
    struct slab_unit *head = &units[unit_indexes[0]];

    fill_bits(head, class);
    for (uint32_t i = 0; i < SLAB_UNIT_EXTRA_MAX; i++) {
        uint32_t extra_index = i + 1 < slab_class_units(class) ? unit_indexes[i + 1] : SLAB_UNIT_NONE;

        shared_store(head->extra[i], extra_index);
        if (extra_index != SLAB_UNIT_NONE) {
            struct slab_unit *extra = &units[extra_index];

            fill_bits(extra, class);
            shared_store(extra->extra[0], unit_indexes[0]);
            shared_store(extra->kind, SLAB_UNIT_EXTRA);
        }
    }
    shared_store(head->inbox_next, SLAB_UNIT_NONE);
    head->until = head->notify = 0;
    head->window = (uint32_t)(window - slab->windows);
    head->previous = head->next = SLAB_UNIT_NONE;
    shared_store(head->owner, owner);
    shared_store(head->key, gpa | class);
    /* Release pairs with the acquire of who finds the slab, here by walking the units, below by an address. */
    shared_store_release(head->kind, SLAB_UNIT_HEAD);
    shared_store_release(*slab_table_entry(slab, window, gpa), unit_indexes[0]);
}

static enum loam_error make_slab(const struct loam_slab *slab, uint32_t class, uint32_t owner, uint32_t *made)
{
    struct loam_slab_shared *shared = slab->shared;
    uint32_t unit_indexes[SLAB_UNIT_EXTRA_MAX + 1] = {0};
    const struct loam_slab_view *window;
    enum loam_error error;
    uint64_t gpa;

    loam_slab_pool_lock(shared);
    error = shared->suspect                                             ? LOAM_ERROR_CORRUPT
            : take_units(shared, unit_indexes, slab_class_units(class)) ? LOAM_OK
                                                                        : LOAM_ERROR_EXHAUSTED;
    loam_slab_pool_unlock(shared);
    if (error != LOAM_OK) {
        return error;
    }
    error = take_frames(slab, &gpa, &window);
    if (error != LOAM_OK) {
        loam_slab_pool_lock(shared);
        give_units(shared, unit_indexes, slab_class_units(class));
        loam_slab_pool_unlock(shared);
        return error;
    }
    assemble(slab, unit_indexes, class, gpa, window, owner);
    *made = unit_indexes[0];
    return LOAM_OK;
}

/* Undo make_slab: the slab is empty, without an owner, on no list, and known to the caller alone. */
static void unmake_slab(const struct loam_slab *slab, uint32_t slab_index)
{
    struct loam_slab_shared *shared = slab->shared;
    struct slab_unit *head = &slab_units(shared)[slab_index];
    uint64_t key = shared_load(head->key);
    uint32_t class = (uint32_t)(key & SLAB_CLASS_MASK);
    loam_pfn start = loam_pfn_from_gpa(loam_gpa_from_u64(slab_key_gpa(key)), slab->frame_shift);
    uint32_t unit_indexes[SLAB_UNIT_EXTRA_MAX + 1] = {slab_index};

    for (uint32_t i = 1; i < slab_class_units(class); i++) {
        unit_indexes[i] = shared_load(head->extra[i - 1]);
    }
    shared_store(*slab_table_entry(slab, &slab->windows[head->window], slab_key_gpa(key)), SLAB_UNIT_NONE);
    shared_store(head->kind, SLAB_UNIT_RESERVED);
    shared_store(head->key, SLAB_KEY_NONE);
    /* Before the units are anybody's again: the frames could come back at once, for another slab. */
    if (loam_frame_free(slab->frame, start, slab_frames(slab)) != LOAM_OK) {
        shared_add(shared->frame_failures, 1);
    }
    loam_slab_pool_lock(shared);
    give_units(shared, unit_indexes, slab_class_units(class));
    loam_slab_pool_unlock(shared);
}

/* --- Slabs without an owner ------------------------------------------------------------------------------------ */

static void set_state(struct slab_unit *head, enum slab_state state)
{
    shared_store(head->state, state);
}

/* Locked. Whether the slab, empty and on no list, is the one kept of its class; else it is the caller's to unmake. */
static bool keep_slab(struct loam_slab_shared *shared, uint32_t slab_index)
{
    struct slab_unit *head = &slab_units(shared)[slab_index];
    uint32_t *kept = &shared->kept[shared_load(head->key) & SLAB_CLASS_MASK];

    if (*kept != SLAB_UNIT_NONE) {
        return false;
    }
    *kept = slab_index;
    set_state(head, SLAB_KEPT);
    return true;
}

/*
 * Locked. An orphan got objects free, from before_count used ones: put it where it belongs. True: it is empty, on no
 * list, and the caller's to unmake without the lock.
 */
static bool refile_orphan(struct loam_slab_shared *shared, uint32_t slab_index, uint32_t before_count)
{
    struct slab_unit *units = slab_units(shared);
    struct slab_unit *head = &units[slab_index];
    uint32_t class = (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK);
    uint32_t used = slab_used_of(head);
    bool listed = before_count < slab_class_objects(class);

    if (used == 0) {
        if (listed) {
            loam_slab_pool_unlink(units, &shared->orphans[class], slab_index);
        }
        return !keep_slab(shared, slab_index);
    }
    if (!listed && used < slab_class_objects(class)) {
        loam_slab_pool_push(units, &shared->orphans[class], slab_index);
    }
    return false;
}

/* Locked. Collect an orphan; as refile_orphan. */
static bool collect_orphan(struct loam_slab_shared *shared, uint32_t slab_index)
{
    struct slab_unit *head = &slab_units(shared)[slab_index];
    uint32_t class = (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK);
    uint32_t before_count = slab_used_of(head);
    uint32_t count = loam_slab_pool_collect(shared, head);

    shared_add(shared->remote_frees[class], count);
    return count > 0 && refile_orphan(shared, slab_index, before_count);
}

static bool is_orphan(const struct slab_unit *head)
{
    return shared_load(head->kind) == SLAB_UNIT_HEAD && shared_load(head->owner) == SLAB_OWNER_NONE &&
           shared_load(head->state) == SLAB_ORPHAN;
}

/* Locked. An orphan with something free, or else the slab kept, is the owner's now; SLAB_UNIT_NONE: there is none. */
static uint32_t adopt(struct loam_slab_shared *shared, uint32_t class, uint32_t owner)
{
    struct slab_unit *units = slab_units(shared);
    uint32_t slab_index = shared->orphans[class].first;

    if (slab_index != SLAB_UNIT_NONE) {
        loam_slab_pool_unlink(units, &shared->orphans[class], slab_index);
    } else {
        slab_index = shared->kept[class];
        shared->kept[class] = SLAB_UNIT_NONE;
    }
    if (slab_index != SLAB_UNIT_NONE) {
        set_state(&units[slab_index], SLAB_CURRENT);
        shared_store_release(units[slab_index].owner, owner);
    }
    return slab_index;
}

enum loam_error loam_slab_pool_acquire(const struct loam_slab *slab, uint32_t class, uint32_t owner,
                                       uint32_t *slab_index)
{
    enum loam_error error;

    loam_slab_pool_lock(slab->shared);
    *slab_index = slab->shared->suspect ? SLAB_UNIT_NONE : adopt(slab->shared, class, owner);
    loam_slab_pool_unlock(slab->shared);
    if (*slab_index != SLAB_UNIT_NONE) {
        return LOAM_OK;
    }
    error = make_slab(slab, class, owner, slab_index);
    /* What is kept of other classes is not worth a refusal. */
    if (error == LOAM_ERROR_EXHAUSTED && loam_slab_pool_trim(slab) > 0) {
        error = make_slab(slab, class, owner, slab_index);
    }
    return error;
}

void loam_slab_pool_retire(const struct loam_slab *slab, uint32_t slab_index)
{
    struct slab_unit *head = &slab_units(slab->shared)[slab_index];
    bool kept;

    loam_slab_pool_lock(slab->shared);
    set_state(head, SLAB_ORPHAN);
    /* Relaxed: who sees it takes the lock. */
    shared_store(head->owner, SLAB_OWNER_NONE);
    kept = keep_slab(slab->shared, slab_index);
    loam_slab_pool_unlock(slab->shared);
    if (!kept) {
        unmake_slab(slab, slab_index);
    }
}

void loam_slab_pool_abandon(const struct loam_slab *slab, uint32_t slab_index)
{
    struct loam_slab_shared *shared = slab->shared;
    struct slab_unit *head = &slab_units(shared)[slab_index];
    uint32_t class = (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK);
    uint32_t count;
    bool empty;

    loam_slab_pool_lock(shared);
    set_state(head, SLAB_ORPHAN);
    slab_set_notify(head, 0);
    /* A full barrier before R is read: who frees after that sees that there is no owner, and settles. */
    shared_exchange_ordered(head->owner, SLAB_OWNER_NONE);
    count = loam_slab_pool_collect(shared, head);
    shared_add(shared->remote_frees[class], count);
    empty = refile_orphan(shared, slab_index, slab_class_objects(class));
    loam_slab_pool_unlock(shared);
    if (empty) {
        unmake_slab(slab, slab_index);
    }
}

bool loam_slab_pool_free_unowned(const struct loam_slab *slab, uint32_t slab_index, uint64_t key, uint32_t word,
                                 uint64_t bit, enum loam_error *error)
{
    struct loam_slab_shared *shared = slab->shared;
    struct slab_unit *units = slab_units(shared);
    struct slab_unit *head = &units[slab_index];
    uint32_t class = (uint32_t)(key & SLAB_CLASS_MASK);
    struct slab_unit *bits = slab_word_unit(units, head, word);
    _Atomic uint64_t *free = &bits->free[word % SLAB_UNIT_WORDS];
    bool unowned, empty = false;

    loam_slab_pool_lock(shared);
    unowned = shared_load(head->owner) == SLAB_OWNER_NONE || shared_load(head->key) != key;
    *error = LOAM_ERROR_INVALID;
    if (is_orphan(head) && shared_load(head->key) == key &&
        ((shared_load(*free) | shared_load(bits->remote[word % SLAB_UNIT_WORDS])) & bit) == 0) {
        shared_store(*free, shared_load(*free) | bit);
        head->until--;
        shared_add(shared->remote_frees[class], 1);
        empty = refile_orphan(shared, slab_index, slab_used_of(head) + 1);
        *error = LOAM_OK;
    }
    loam_slab_pool_unlock(shared);
    if (empty) {
        unmake_slab(slab, slab_index);
    }
    return unowned;
}

void loam_slab_pool_settle(const struct loam_slab *slab, uint32_t slab_index)
{
    struct loam_slab_shared *shared = slab->shared;
    bool empty;

    loam_slab_pool_lock(shared);
    empty = is_orphan(&slab_units(shared)[slab_index]) && collect_orphan(shared, slab_index);
    loam_slab_pool_unlock(shared);
    if (empty) {
        unmake_slab(slab, slab_index);
    }
}

uint32_t loam_slab_pool_trim(const struct loam_slab *slab)
{
    struct loam_slab_shared *shared = slab->shared;
    uint32_t count = 0;

    for (uint32_t class = 0; class < LOAM_SLAB_CLASS_COUNT; class ++) {
        uint32_t slab_index;

        loam_slab_pool_lock(shared);
        slab_index = shared->kept[class];
        shared->kept[class] = SLAB_UNIT_NONE;
        loam_slab_pool_unlock(shared);
        if (slab_index != SLAB_UNIT_NONE) {
            unmake_slab(slab, slab_index);
            count++;
        }
    }
    return count;
}
