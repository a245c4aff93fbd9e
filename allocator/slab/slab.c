// SPDX-License-Identifier: Apache-2.0
/*
 * What a thread does with its cache: allocate, free, take back, and give the whole up. slab_layout.h says what the bits
 * mean, who writes them, and which orders of memory belong together.
 *
 * The cache of a class holds one word H of its current slab, 64 objects at most. An allocation takes the lowest bit of
 * H; a free sets a bit of F. So the two never write one word in turn, and a pair does not wait for itself.
 */
#include "allocator/slab/slab_pool.h"

static struct loam_slab_shared *shared_of(const struct loam_slab_cache *cache)
{
    return cache->slab->shared;
}

static void set_state(struct slab_unit *head, enum slab_state state)
{
    shared_store(head->state, state);
}

/* --- The held word ----------------------------------------------------------------------------------------------- */

/* Take a word's free objects in hand. H is empty, and no word of the slab counts as held. */
static bool hold_word(struct loam_slab_cache *cache, uint32_t class, uint32_t word)
{
    struct slab_hot *hot = &cache->hot[class];
    struct slab_unit *head = &cache->units[hot->slab];
    _Atomic uint64_t *free = &slab_word_unit(cache->units, head, word)->free[word % SLAB_UNIT_WORDS];
    const struct loam_slab_view *window = &cache->slab->windows[head->window];
    uint64_t bits = shared_load(*free);

    if (bits == 0) {
        return false;
    }
    hot->word = (uint8_t)word;
    hot->free = free;
    hot->gpa = slab_key_gpa(shared_load(head->key)) + ((uint64_t)word * 64 << slab_class_shift(class));
    hot->hva = window->hva + (hot->gpa - window->start);
    head->until += slab_popcount(bits);
    /* In this order: who sees an object not in F sees that it is in H, and never sees H beside another's word. */
    shared_store_release(head->held_word, slab_held_word_make(shared_load(head->held_word), true, word));
    shared_store_release(hot->held, bits);
    shared_store_release(*free, 0);
    return true;
}

/* No word is held any more; what was held is in F. The cache may be another process's. */
static void let_go(const struct loam_slab_shared *shared, struct loam_slab_cache *cache, uint32_t class)
{
    struct slab_hot *hot = &cache->hot[class];
    struct slab_unit *units = slab_units(shared);
    struct slab_unit *head = &units[hot->slab];
    uint32_t held_word = shared_load(head->held_word);
    _Atomic uint64_t *free = &slab_word_unit(units, head, hot->word)->free[hot->word % SLAB_UNIT_WORDS];

    if ((held_word & 255u) == 0) {
        return;
    }
    shared_store(*free, shared_load(*free) | shared_load(hot->held));
    head->until -= slab_popcount(shared_load(*free));
    /* Release, twice: who sees an object not in H any more sees it in F, or that the word changed. */
    shared_store_release(head->held_word, slab_held_word_make(held_word, false, 0));
    shared_store_release(hot->held, 0);
    hot->free = &cache->units[SLAB_UNIT_NONE].free[0];
}

/* What was freed in the held word while it was used up, if it is enough: the word stays the held one. */
static bool hold_again(struct loam_slab_cache *cache, uint32_t class)
{
    struct slab_hot *hot = &cache->hot[class];
    struct slab_unit *head = &cache->units[hot->slab];
    uint64_t bits = shared_load(*hot->free);
    uint32_t held_word = shared_load(head->held_word);

    if (slab_popcount(bits) < SLAB_WORD_REUSE_COUNT || (held_word & 255u) == 0) {
        return false;
    }
    /* As in hold_word. */
    shared_store_release(head->held_word, held_word + (1u << 8));
    shared_store_release(hot->held, bits);
    shared_store_release(*hot->free, 0);
    return true;
}

/* The next word of the current slab that has a free object. */
static bool hold_next(struct loam_slab_cache *cache, uint32_t class)
{
    struct slab_hot *hot = &cache->hot[class];
    uint32_t from = hot->word, count = slab_class_words(class);

    let_go(shared_of(cache), cache, class);
    if (slab_used_of(&cache->units[hot->slab]) == slab_class_objects(class)) {
        return false;
    }
    for (uint32_t i = 1; i <= count; i++) {
        if (hold_word(cache, class, (from + i) & (count - 1))) {
            return true;
        }
    }
    return false;
}

/* --- Slabs of the cache ------------------------------------------------------------------------------------------ */

static uint32_t collect(struct loam_slab_cache *cache, uint32_t class, uint32_t slab_index)
{
    struct slab_hot *hot = &cache->hot[class];
    uint32_t count = loam_slab_pool_collect(shared_of(cache), &cache->units[slab_index]);

    shared_store(hot->remote_frees, shared_load(hot->remote_frees) + count);
    return count;
}

static void make_partial(struct loam_slab_cache *cache, uint32_t class, uint32_t slab_index)
{
    struct slab_unit *head = &cache->units[slab_index];

    set_state(head, SLAB_PARTIAL);
    slab_set_notify(head, 0);
    loam_slab_pool_push(cache->units, &cache->hot[class].partial, slab_index);
}

static bool any_remote(struct loam_slab_cache *cache, struct slab_unit *head, uint32_t class)
{
    for (uint32_t word = 0; word < slab_class_words(class); word++) {
        if ((shared_load_ordered(slab_word_unit(cache->units, head, word)->remote[word % SLAB_UNIT_WORDS]) &
             slab_class_word_mask(class)) != 0) {
            return true;
        }
    }
    return false;
}

/* Whether nobody is about to queue the slab any more; if not, it comes by the inbox. */
static bool call_off_notice(struct slab_unit *head)
{
    uint32_t waiting = SLAB_NOTICE_WAITING;

    /* Relaxed: one of the two that change a waiting notice does, and nothing hangs on it. */
    return shared_swap(head->notice, &waiting, SLAB_NOTICE_NONE);
}

/* The slab has nothing free: leave it alone until the first free by another, or enough by this thread. */
static void make_full(struct loam_slab_cache *cache, uint32_t class, uint32_t slab_index)
{
    struct slab_unit *head = &cache->units[slab_index];

    set_state(head, SLAB_FULL);
    slab_set_notify(head, slab_class_objects(class) - slab_class_refill_count(class));
    /* A store and then a load: with the freer's two it makes sure that one sees the other. */
    shared_exchange_ordered(head->notice, SLAB_NOTICE_WAITING);
    if (any_remote(cache, head, class) && call_off_notice(head)) {
        make_partial(cache, class, slab_index);
    }
}

/* The current slab has run dry, but for taken_count objects that are not worth staying for. */
static void leave_current(struct loam_slab_cache *cache, uint32_t class, uint32_t taken_count)
{
    struct slab_hot *hot = &cache->hot[class];
    uint32_t slab_index = hot->slab;

    let_go(shared_of(cache), cache, class);
    hot->slab = SLAB_UNIT_NONE;
    if (taken_count > 0) {
        make_partial(cache, class, slab_index);
    } else {
        make_full(cache, class, slab_index);
    }
}

/* Take the slabs that others freed into and see what they hold. */
static void empty_inbox(struct loam_slab_cache *cache)
{
    /* Acquire pairs with queue's release: the links. */
    uint32_t slab_index = shared_exchange_acquire(cache->inbox, SLAB_UNIT_NONE);

    while (slab_index != SLAB_UNIT_NONE) {
        struct slab_unit *head = &cache->units[slab_index];
        uint32_t class = (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK);
        uint32_t next = shared_load(head->inbox_next);

        shared_store(head->notice, SLAB_NOTICE_NONE);
        collect(cache, class, slab_index);
        if (slab_used_of(head) == 0 && cache->hot[class].partial.first != SLAB_UNIT_NONE) {
            loam_slab_pool_retire(cache->slab, slab_index);
        } else {
            make_partial(cache, class, slab_index);
        }
        slab_index = next;
    }
}

/* What was not worth looking for in better times. Whether anything came of it. */
static bool scrape_together(struct loam_slab_cache *cache)
{
    struct loam_slab_shared *shared = shared_of(cache);
    uint32_t id = shared_load(cache->id), top;
    bool any = false;

    loam_slab_pool_lock(shared);
    top = shared->unit_top;
    loam_slab_pool_unlock(shared);
    for (uint32_t i = 1; i < top; i++) {
        struct slab_unit *head = &cache->units[i];
        uint32_t class = (uint32_t)(shared_load(head->key) & SLAB_CLASS_MASK);

        if (shared_load(head->kind) != SLAB_UNIT_HEAD || shared_load(head->owner) != id) {
            continue;
        }
        if (shared_load(head->state) == SLAB_FULL && slab_used_of(head) < slab_class_objects(class) &&
            call_off_notice(head)) {
            make_partial(cache, class, i);
            any = true;
        }
        if (shared_load(head->state) == SLAB_PARTIAL) {
            collect(cache, class, i);
            if (slab_used_of(head) == 0) {
                loam_slab_pool_unlink(cache->units, &cache->hot[class].partial, i);
                loam_slab_pool_retire(cache->slab, i);
                any = true;
            }
        }
    }
    return any;
}

/* Allocate from the slab, its first word first. */
static void set_current(struct loam_slab_cache *cache, uint32_t class, uint32_t slab_index)
{
    cache->hot[class].slab = slab_index;
    cache->hot[class].word = (uint8_t)(slab_class_words(class) - 1);
    slab_set_notify(&cache->units[slab_index], 0);
    set_state(&cache->units[slab_index], SLAB_CURRENT);
}

/* The first slab of the list that has a free object is the current one. */
static bool take_partial(struct loam_slab_cache *cache, uint32_t class)
{
    struct slab_hot *hot = &cache->hot[class];
    uint32_t slab_index;

    while ((slab_index = hot->partial.first) != SLAB_UNIT_NONE) {
        loam_slab_pool_unlink(cache->units, &hot->partial, slab_index);
        collect(cache, class, slab_index);
        set_current(cache, class, slab_index);
        if (slab_used_of(&cache->units[slab_index]) < slab_class_objects(class)) {
            return true;
        }
        leave_current(cache, class, 0);
    }
    return false;
}

/* Another current slab. */
static enum loam_error next_slab(struct loam_slab_cache *cache, uint32_t class)
{
    const struct slab_hot *hot = &cache->hot[class];
    enum loam_error error;
    uint32_t slab_index;

    if (hot->partial.first == SLAB_UNIT_NONE) {
        empty_inbox(cache);
    }
    if (take_partial(cache, class)) {
        return LOAM_OK;
    }
    error = loam_slab_pool_acquire(cache->slab, class, shared_load(cache->id), &slab_index);
    if (error == LOAM_ERROR_EXHAUSTED && scrape_together(cache)) {
        if (take_partial(cache, class)) {
            return LOAM_OK;
        }
        error = loam_slab_pool_acquire(cache->slab, class, shared_load(cache->id), &slab_index);
    }
    if (error == LOAM_OK) {
        set_current(cache, class, slab_index);
    }
    return error;
}

/* --- Allocation -------------------------------------------------------------------------------------------------- */

/* The line of the class of bytes; that of SLAB_CLASS_NEVER for what is no size. */
static inline struct slab_hot *hot_of(struct loam_slab_cache *cache, size_t bytes)
{
    size_t step = (bytes + (LOAM_SLAB_OBJECT_MIN - 1)) / LOAM_SLAB_OBJECT_MIN;

    /* 0 and what wraps to it are step 0. */
    step = LIKELY(step < SLAB_SIZE_STEPS) ? step : 0;
    return (struct slab_hot *)((char *)cache + cache->hot_offset[step]);
}

/* held is H, and not 0. */
static inline void take_object(struct slab_hot *hot, uint64_t held, struct loam_slab_object *object)
{
    uint32_t offset = (uint32_t)__builtin_ctzll(held) << hot->shift;

    /* Release, as in hold_word, of which this goes on: who reads it must not take it for H of the word before. */
    shared_store_release(hot->held, held & (held - 1));
    object->gpa.value = hot->gpa + offset;
    object->hva = (void *)(hot->hva + offset);
}

static __attribute__((noinline)) enum loam_error alloc_slowly(struct loam_slab_cache *cache, struct slab_hot *hot,
                                                              struct loam_slab_object *object)
{
    uint32_t class = (uint32_t)(hot - cache->hot);

    *object = (struct loam_slab_object){{0}, NULL};
    if (shared_load(cache->id) == 0) {
        return LOAM_ERROR_UNINITIALISED;
    }
    if (class == SLAB_CLASS_NEVER) {
        return LOAM_ERROR_INVALID;
    }
    for (;;) {
        enum loam_error error;

        if (hot->slab != SLAB_UNIT_NONE) {
            uint32_t taken_count;

            if (hold_again(cache, class) || hold_next(cache, class)) {
                take_object(hot, shared_load(hot->held), object);
                return LOAM_OK;
            }
            taken_count = collect(cache, class, hot->slab);
            if (taken_count >= slab_class_refill_count(class)) {
                continue;
            }
            leave_current(cache, class, taken_count);
        }
        error = next_slab(cache, class);
        if (error != LOAM_OK) {
            return error;
        }
    }
}

static __attribute__((noinline)) enum loam_error refuse_null(struct loam_slab_object *object)
{
    if (object != NULL) {
        *object = (struct loam_slab_object){0};
    }
    return LOAM_ERROR_INVALID;
}

enum loam_error loam_slab_alloc(struct loam_slab_cache *cache, size_t bytes, struct loam_slab_object *object)
{
    struct slab_hot *hot;
    uint64_t held;

    if (UNLIKELY(cache == NULL || object == NULL)) {
        return refuse_null(object);
    }
    hot = hot_of(cache, bytes);
    held = shared_load(hot->held);
    if (UNLIKELY(held == 0)) {
        return alloc_slowly(cache, hot, object);
    }
    take_object(hot, held, object);
    return LOAM_OK;
}

/* --- Free -------------------------------------------------------------------------------------------------------- */

/* Put a slab that waited, and got its first free object, into its owner's inbox. */
static void queue(struct loam_slab_cache *cache, struct slab_unit *head, uint32_t slab_index)
{
    uint32_t waiting = SLAB_NOTICE_WAITING, owner, first;
    _Atomic uint32_t *inbox;

    /* Relaxed: see call_off_notice. */
    if (!shared_swap(head->notice, &waiting, SLAB_NOTICE_QUEUED)) {
        return;
    }
    /* It stays its owner's until the owner, or who drains it, has taken it out of the inbox. */
    owner = shared_load(head->owner);
    if (UNLIKELY(owner == SLAB_OWNER_NONE || owner > shared_of(cache)->sealed.cache_capacity)) {
        return;
    }
    inbox = &slab_cache_at(shared_of(cache), owner)->inbox;
    first = shared_load(*inbox);
    do {
        shared_store(head->inbox_next, first);
    } while (!shared_swap_release(*inbox, &first, slab_index));
}

static bool is_free(struct loam_slab_cache *cache, struct slab_unit *head, uint32_t word, uint64_t bit)
{
    uint64_t free, held;

    loam_slab_pool_look(shared_of(cache), head, word, &free, &held);
    return ((free | held) & bit) != 0;
}

/* Free an object of a slab that is not, or was not a moment ago, this cache's. */
static __attribute__((noinline)) enum loam_error free_remotely(struct loam_slab_cache *cache, uint32_t slab_index,
                                                               uint64_t key, uint32_t word, uint64_t bit)
{
    struct slab_unit *head = &cache->units[slab_index];
    struct slab_unit *bits = slab_word_unit(cache->units, head, word);
    _Atomic uint64_t *remote = &bits->remote[word % SLAB_UNIT_WORDS];
    enum loam_error error;

    while (UNLIKELY(shared_load_acquire(head->owner) == SLAB_OWNER_NONE)) {
        if (loam_slab_pool_free_unowned(cache->slab, slab_index, key, word, bit, &error)) {
            return error;
        }
    }
    /* R before F: it acquires what the owner released when it took the object back. */
    if (UNLIKELY((shared_load_acquire(*remote) & bit) != 0 || is_free(cache, head, word, bit))) {
        return LOAM_ERROR_INVALID;
    }
    if (UNLIKELY((shared_or_ordered(*remote, bit) & bit) != 0)) {
        return LOAM_ERROR_INVALID;
    }
    if (UNLIKELY(shared_load_ordered(head->notice) == SLAB_NOTICE_WAITING)) {
        queue(cache, head, slab_index);
    }
    if (UNLIKELY(shared_load_ordered(head->owner) == SLAB_OWNER_NONE)) {
        loam_slab_pool_settle(cache->slab, slab_index);
    }
    return LOAM_OK;
}

/* The owner freed into its slab until used met notify. */
static __attribute__((noinline)) enum loam_error free_slowly(struct loam_slab_cache *cache, uint32_t class,
                                                             uint32_t slab_index)
{
    struct slab_unit *head = &cache->units[slab_index];

    if (shared_load(head->state) == SLAB_FULL) {
        slab_set_notify(head, 0);
        if (call_off_notice(head)) {
            make_partial(cache, class, slab_index);
        } else {
            empty_inbox(cache);
        }
    }
    /* One that is full still is about to come into the inbox: it is found empty there. One without owner was found. */
    if (shared_load(head->owner) == shared_load(cache->id) && slab_used_of(head) == 0 &&
        shared_load(head->state) == SLAB_PARTIAL) {
        loam_slab_pool_unlink(cache->units, &cache->hot[class].partial, slab_index);
        loam_slab_pool_retire(cache->slab, slab_index);
    }
    return LOAM_OK;
}

/* Free the object at gpa, which is not a live one of the held word. */
static __attribute__((noinline)) enum loam_error free_anywhere(struct loam_slab_cache *cache, uint64_t gpa,
                                                               const struct slab_hot *hot)
{
    uint32_t class = (uint32_t)(hot - cache->hot);
    uint64_t offset = gpa - cache->window.start;
    uint32_t inside = (uint32_t)(gpa & (LOAM_SLAB_BYTES - 1)), slab_index, word;
    const _Atomic uint32_t *entry = &cache->table[offset >> SLAB_SHIFT];
    struct slab_unit *head, *unit;
    uint64_t key, bit, free;

    if (UNLIKELY(offset >= cache->window.bytes)) {
        const struct loam_slab_view *window;

        if (shared_load(cache->id) == 0) {
            return LOAM_ERROR_UNINITIALISED;
        }
        window = slab_window(cache->slab, gpa);
        if (window == NULL) {
            return LOAM_ERROR_NOT_FOUND;
        }
        entry = slab_table_entry(cache->slab, window, gpa);
    }
    slab_index = shared_load_acquire(*entry);
    if (UNLIKELY(slab_index > cache->unit_capacity)) {
        return LOAM_ERROR_CORRUPT;
    }
    head = &cache->units[slab_index];
    key = shared_load(head->key);
    if (UNLIKELY(key != (gpa - inside) + class)) {
        return (key ^ gpa) >> SLAB_SHIFT != 0 ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_INVALID;
    }
    /* Bits below the class's shift turn up at the top. */
    inside = inside >> slab_class_shift(class) | inside << (32 - slab_class_shift(class));
    if (UNLIKELY(inside >= LOAM_SLAB_BYTES)) {
        return LOAM_ERROR_INVALID;
    }
    word = inside >> 6;
    bit = UINT64_C(1) << (inside & 63);
    /* Relaxed: nobody else makes a slab this cache's, or takes it away while the owner is in a call. */
    if (shared_load(head->owner) != shared_load(cache->id)) {
        return free_remotely(cache, slab_index, key, word, bit);
    }
    unit = slab_word_unit(cache->units, head, word);
    free = shared_load(unit->free[word % SLAB_UNIT_WORDS]);
    if (UNLIKELY(((free | shared_load(unit->remote[word % SLAB_UNIT_WORDS])) & bit) != 0 ||
                 slab_held_word_is(shared_load(head->held_word), word))) {
        return LOAM_ERROR_INVALID;
    }
    /* Relaxed: who sees it set refuses, and looks no further. */
    shared_store(unit->free[word % SLAB_UNIT_WORDS], free | bit);
    return UNLIKELY(--head->until == 0) ? free_slowly(cache, class, slab_index) : LOAM_OK;
}

/*
 * Free the object that lies distance behind the held word's first, if it is a live one of that word: distance, rotated,
 * is below 64 for those and, if a slab is less than a word, for what lies behind it and stands in R for ever.
 */
static inline bool free_held(struct slab_hot *hot, uint64_t distance)
{
    uint64_t index = distance >> (hot->shift & 63) | distance << (-hot->shift & 63);
    _Atomic uint64_t *free = hot->free;
    uint64_t bits = shared_load(*free);

    if (UNLIKELY(index >= 64 ||
                 ((bits | shared_load(free[SLAB_FREE_TO_REMOTE]) | shared_load(hot->held)) >> index & 1) != 0)) {
        return false;
    }
    /* Relaxed: who sees it set refuses, and looks no further. */
    shared_store(*free, bits | UINT64_C(1) << index);
    return true;
}

enum loam_error loam_slab_free(struct loam_slab_cache *cache, loam_gpa gpa, size_t bytes)
{
    struct slab_hot *hot;

    if (UNLIKELY(cache == NULL)) {
        return LOAM_ERROR_INVALID;
    }
    hot = hot_of(cache, bytes);
    return LIKELY(free_held(hot, gpa.value - hot->gpa)) ? LOAM_OK : free_anywhere(cache, gpa.value, hot);
}

static __attribute__((noinline)) enum loam_error free_hva_anywhere(struct loam_slab_cache *cache, uintptr_t hva,
                                                                   const struct slab_hot *hot)
{
    uint64_t offset = hva - cache->window.hva;

    if (LIKELY(offset < cache->window.bytes)) {
        return free_anywhere(cache, cache->window.start + offset, hot);
    }
    if (shared_load(cache->id) == 0) {
        return LOAM_ERROR_UNINITIALISED;
    }
    for (uint32_t i = 0; i < cache->slab->window_count; i++) {
        const struct loam_slab_view *window = &cache->slab->windows[i];

        if (hva - window->hva < window->bytes) {
            return free_anywhere(cache, window->start + (hva - window->hva), hot);
        }
    }
    return LOAM_ERROR_NOT_FOUND;
}

enum loam_error loam_slab_free_hva(struct loam_slab_cache *cache, const void *hva, size_t bytes)
{
    struct slab_hot *hot;

    if (UNLIKELY(cache == NULL)) {
        return LOAM_ERROR_INVALID;
    }
    hot = hot_of(cache, bytes);
    return LIKELY(free_held(hot, (uintptr_t)hva - hot->hva)) ? LOAM_OK : free_hva_anywhere(cache, (uintptr_t)hva, hot);
}

/* --- Caches ------------------------------------------------------------------------------------------------------ */

/* Nothing is held; sizes lead to their classes. */
static void lay_out_cache(struct loam_slab_cache *cache)
{
    for (uint32_t class = 0; class < SLAB_CLASS_SLOTS; class ++) {
        struct slab_hot *hot = &cache->hot[class];

        hot->free = &cache->units[SLAB_UNIT_NONE].free[0];
        hot->shift = (uint8_t)slab_class_shift(class);
    }
    for (size_t step = 0; step < SLAB_SIZE_STEPS; step++) {
        uint32_t class = step == 0 ? SLAB_CLASS_NEVER : slab_class_of(step * LOAM_SLAB_OBJECT_MIN);

        cache->hot_offset[step] = (uint16_t)((uintptr_t)&cache->hot[class] - (uintptr_t)cache);
    }
}

enum loam_error loam_slab_cache_make(struct loam_slab *slab, struct loam_slab_cache **cache)
{
    struct loam_slab_shared *shared = slab != NULL ? slab->shared : NULL;
    struct loam_slab_cache *made = NULL;

    if (cache != NULL) {
        *cache = NULL;
    }
    if (slab == NULL || cache == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (shared == NULL) {
        return LOAM_ERROR_UNINITIALISED;
    }
    loam_slab_pool_lock(shared);
    for (uint32_t id = 1; id <= shared->sealed.cache_capacity && made == NULL; id++) {
        if (shared_load(slab_cache_at(shared, id)->id) == 0) {
            made = slab_cache_at(shared, id);
            made->window = slab->windows[0];
            made->slab = slab;
            made->units = slab_units(shared);
            made->table = slab_table(shared);
            made->unit_capacity = shared->sealed.unit_capacity;
            lay_out_cache(made);
            shared_store(made->id, id);
        }
    }
    loam_slab_pool_unlock(shared);
    *cache = made;
    return made == NULL ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

static bool is_cache(const struct loam_slab *slab, const struct loam_slab_cache *cache)
{
    uintptr_t offset;

    if (slab->shared == NULL) {
        return false;
    }
    offset = (uintptr_t)cache - (uintptr_t)slab_cache_at(slab->shared, 1);
    return offset / sizeof *cache < slab->shared->sealed.cache_capacity && offset % sizeof *cache == 0 &&
           shared_load(cache->id) != 0;
}

/*
 * No slab of the cache waits for a first free any more, or has been queued for one. False: some thread has said that it
 * will queue one, and has not for seconds.
 */
static bool call_off_notices(const struct loam_slab *slab, struct loam_slab_cache *cache, uint32_t top)
{
    struct slab_unit *units = slab_units(slab->shared);
    struct loam_lock_patience patience = {0};
    uint32_t id = shared_load(cache->id);
    bool queued;

    do {
        /* Acquire pairs with queue's release: the links. */
        uint32_t slab_index = shared_exchange_acquire(cache->inbox, SLAB_UNIT_NONE);

        while (slab_index != SLAB_UNIT_NONE) {
            uint32_t next = shared_load(units[slab_index].inbox_next);

            shared_store(units[slab_index].notice, SLAB_NOTICE_NONE);
            slab_index = next;
        }
        queued = false;
        for (uint32_t i = 1; i < top; i++) {
            if (shared_load(units[i].owner) == id && shared_load(units[i].notice) != SLAB_NOTICE_NONE) {
                queued |= !call_off_notice(&units[i]);
            }
        }
    } while (queued && loam_lock_pass_time(&patience));
    return !queued;
}

/* As loam_slab_cache_drain; slab is that of the calling process, cache may be another's. False: a slab is left. */
static bool drain(const struct loam_slab *slab, struct loam_slab_cache *cache)
{
    struct loam_slab_shared *shared = slab->shared;
    struct slab_unit *units = slab_units(shared);
    uint32_t id = shared_load(cache->id), top;
    bool all;

    loam_slab_pool_lock(shared);
    top = shared->unit_top;
    loam_slab_pool_unlock(shared);
    for (uint32_t class = 0; class < LOAM_SLAB_CLASS_COUNT; class ++) {
        struct slab_hot *hot = &cache->hot[class];

        if (hot->slab != SLAB_UNIT_NONE) {
            let_go(shared, cache, class);
        }
        hot->slab = SLAB_UNIT_NONE;
        hot->partial = (struct slab_list){SLAB_UNIT_NONE, SLAB_UNIT_NONE};
        shared_add(shared->remote_frees[class], shared_load(hot->remote_frees));
        shared_store(hot->remote_frees, 0);
    }
    all = call_off_notices(slab, cache, top);
    for (uint32_t i = 1; i < top; i++) {
        if (shared_load(units[i].kind) == SLAB_UNIT_HEAD && shared_load(units[i].owner) == id &&
            (all || shared_load(units[i].notice) == SLAB_NOTICE_NONE)) {
            loam_slab_pool_abandon(slab, i);
        }
    }
    return all;
}

enum loam_error loam_slab_cache_drain(struct loam_slab *slab, struct loam_slab_cache *cache)
{
    if (slab == NULL || cache == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!is_cache(slab, cache)) {
        return LOAM_ERROR_UNINITIALISED;
    }
    return drain(slab, cache) ? LOAM_OK : LOAM_ERROR_BUSY;
}

enum loam_error loam_slab_cache_destroy(struct loam_slab *slab, struct loam_slab_cache *cache)
{
    if (slab == NULL || cache == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!is_cache(slab, cache)) {
        return LOAM_ERROR_UNINITIALISED;
    }
    if (!drain(slab, cache)) {
        return LOAM_ERROR_BUSY;
    }
    loam_slab_pool_lock(slab->shared);
    cache->window = (struct loam_slab_view){0};
    cache->slab = NULL;
    shared_store(cache->id, 0);
    loam_slab_pool_unlock(slab->shared);
    return LOAM_OK;
}
