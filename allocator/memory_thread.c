// SPDX-License-Identifier: Apache-2.0
/*
 * Lock order: the list's, then the frame allocator's. Forks take them so, too: the handlers here are registered after those
 * of memory_fork, whenever there is a memory to ask, and what is registered last is called first before a fork.
 *
 * Invariants:
 *   a slot's thread is one that lives in this process, and list.key has a value in it: when it ends, end_thread is called
 *   recent names a cache only if its serial's memory is there, and the slot of this thread there names the same
 */
#include "allocator/memory_thread.h"

#include "allocator/host/prim.h"
#include "allocator/lock.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define RECENT_COUNT 4

static struct {
    struct loam_lock lock; /* guards what follows, and the slots of all memories */
    bool watched;          /* forks */
    bool has_key;
    pthread_key_t key;
    uint64_t serial;
    struct memory_thread *first;
} list;

/*
 * What the thread found last, of the memories whose serials end so: a memory that is gone is not asked for again. Its
 * address is the thread's name among those that live.
 */
static _Thread_local struct {
    uint64_t serial;
    struct loam_frame_cache *cache;
} recent[RECENT_COUNT] __attribute__((tls_model("initial-exec")));

/* It lies in no shared memory, and no thread of this process dies with it alone. */
static void lock_list(void)
{
    bool in_order = loam_lock_take(&list.lock);

    (void)in_order;
}

/* --- Threads that end, and processes that fork -------------------------------------------------------------------- */

/* A cache that cannot be ended stays for the next who asks. */
static void give_back(struct memory_thread_slot *slot)
{
    slot->thread = NULL;
    if (loam_frame_cache_destroy(slot->cache) == LOAM_OK) {
        slot->cache = NULL;
    }
}

static void end_thread(void *thread)
{
    lock_list();
    for (struct memory_thread *threads = list.first; threads != NULL; threads = threads->next) {
        for (size_t i = 0; i < MEMORY_THREAD_CACHE_MAX; i++) {
            if (threads->slots[i].thread == thread) {
                give_back(&threads->slots[i]);
            }
        }
    }
    loam_lock_give(&list.lock);
    /* Something else that ends with the thread may ask again: then this is called once more. */
    memset(recent, 0, sizeof recent);
}

static void go_on_in_parent(void)
{
    loam_lock_give_after_fork(&list.lock);
}

/* Of all threads the child has the one that forked. */
static void go_on_in_child(void)
{
    for (struct memory_thread *threads = list.first; threads != NULL; threads = threads->next) {
        for (size_t i = 0; i < MEMORY_THREAD_CACHE_MAX; i++) {
            if (threads->slots[i].thread != recent) {
                threads->slots[i].thread = NULL;
            }
        }
    }
    loam_lock_give_after_fork(&list.lock);
}

/* Whether this thread's end will be told, and forks of the process. The list is locked. */
static bool watch(void)
{
    if (!list.watched) {
        list.watched = loam_prim_at_fork(lock_list, go_on_in_parent, go_on_in_child);
    }
    if (list.watched && !list.has_key) {
        list.has_key = loam_prim_key_make(end_thread, &list.key);
    }
    return list.watched && list.has_key && loam_prim_key_set(list.key, recent);
}

/* --- Memories ------------------------------------------------------------------------------------------------------ */

void loam_memory_thread_add(struct memory_thread *threads, struct loam_frame *frame)
{
    threads->frame = frame;
    lock_list();
    threads->serial = ++list.serial;
    threads->previous = NULL;
    threads->next = list.first;
    if (list.first != NULL) {
        list.first->previous = threads;
    }
    list.first = threads;
    loam_lock_give(&list.lock);
}

/* Without a memory there is nothing to give back: the key goes, so that the library can. */
void loam_memory_thread_remove(struct memory_thread *threads)
{
    if (threads->frame == NULL) {
        return;
    }
    lock_list();
    if (threads->previous != NULL) {
        threads->previous->next = threads->next;
    } else {
        list.first = threads->next;
    }
    if (threads->next != NULL) {
        threads->next->previous = threads->previous;
    }
    if (list.first == NULL && list.has_key) {
        loam_prim_key_drop(list.key);
        list.has_key = false;
    }
    loam_lock_give(&list.lock);
}

/* --- Caches -------------------------------------------------------------------------------------------------------- */

static struct memory_thread_slot *slot_of_thread(struct memory_thread *threads)
{
    for (size_t i = 0; i < MEMORY_THREAD_CACHE_MAX; i++) {
        if (threads->slots[i].thread == recent) {
            return &threads->slots[i];
        }
    }
    return NULL;
}

/* One with a cache that is nobody's, else an empty one; NULL: all are in use. */
static struct memory_thread_slot *free_slot(struct memory_thread *threads)
{
    struct memory_thread_slot *found = NULL;

    for (size_t i = 0; i < MEMORY_THREAD_CACHE_MAX; i++) {
        struct memory_thread_slot *slot = &threads->slots[i];

        if (slot->thread == NULL && (found == NULL || (found->cache == NULL && slot->cache != NULL))) {
            found = slot;
        }
    }
    return found;
}

static struct memory_thread_slot *take_slot(struct memory_thread *threads)
{
    struct memory_thread_slot *slot = watch() ? free_slot(threads) : NULL;

    if (slot == NULL || (slot->cache == NULL && loam_frame_cache_make(threads->frame, &slot->cache) != LOAM_OK)) {
        return NULL;
    }
    slot->thread = recent;
    return slot;
}

struct loam_frame_cache *loam_memory_thread_find(struct memory_thread *threads)
{
    size_t place = threads->serial % RECENT_COUNT;
    struct loam_frame_cache *cache = NULL;
    struct memory_thread_slot *slot;

    if (recent[place].serial == threads->serial) {
        return recent[place].cache;
    }
    lock_list();
    slot = slot_of_thread(threads);
    if (slot == NULL) {
        slot = take_slot(threads);
    }
    if (slot != NULL) {
        cache = slot->cache;
        recent[place].serial = threads->serial;
        recent[place].cache = cache;
    }
    loam_lock_give(&list.lock);
    return cache;
}
