// SPDX-License-Identifier: Apache-2.0
/*
 * What lies where in a slab allocator's metadata, and the small functions that all its files use. Private to slab*.c.
 *
 *   shared │ caches x cache_capacity │ table: 4 B a slab's place in the windows │ units x (slab_capacity + 1)
 *
 * A slab has one unit (a head, 384 B) with the bits of its first 1,024 objects, and for the classes of 32, 16 and 8
 * bytes 1, 3 or 7 more (extras), which only bear bits. Unit 0 is nobody's: "none" in every index, and its key matches no
 * address.
 *
 * Three bits an object: F (free, in the unit), R (remote: freed by another thread, not yet taken back), H (held: at
 * hand in the owner's cache, for the one word of the slab that the cache allocates from).
 *   live(object)  ==  !F && !R && !H
 *   used(slab)    ==  objects(slab) - slab_popcount(F of all words but the held one): as its owner knows it, so what is not
 *                     yet taken back is used, and so is the whole held word: frees into it need not count
 *   until(slab)   ==  used(slab) - notify(slab): the free that makes it 0 has more to do
 *   R of what is no object, in the one word of a slab of 32, is set, so that nothing is freed there
 *   F & H == 0; held_word(slab) names the word of H, and is nobody's when no cache allocates from the slab
 *
 * Who writes what:
 *   F, until, held_word, state, lists   the owner; under the lock if there is none (owner == 0)
 *   H                                  the cache's owner
 *   R                                  anyone sets a bit (fetch_or), the owner clears it (fetch_and)
 *   notice                             the owner: NONE -> WAITING; who frees: WAITING -> QUEUED, once; the owner: -> NONE
 *   owner, kind                        the owner or, without one, who holds the lock; read by all
 *
 * Orders of memory, by pairs:
 *   freer sets R (release)          -> owner loads R (acquire): the freer is done with the object's bytes
 *   owner sets F, clears R (release)-> another loads R (acquire), then F: one of the two is seen set
 *   owner sets held_word, H, clears F (each release) -> another loads held_word, F, H (each acquire), and held_word again
 *   owner sets F, clears held_word, H (each release) -> the same: what it saw counts if held_word stayed as it was
 *   owner sets notice, loads R  |  freer sets R, loads notice   (all sequentially consistent): one sees the other
 *   drain clears owner, loads R |  freer sets R, loads owner    (the same)
 *   freer pushes on inbox (release) -> owner takes inbox (acquire): the link
 *   kind, table (release)           -> any (acquire): the unit's contents
 *
 * State of a slab and where it is linked:
 *   CURRENT  hot.slab of its owner
 *   PARTIAL  on the owner's list of its class; notice NONE
 *   FULL     nowhere, notice WAITING; or with notice QUEUED in the owner's inbox, or about to be
 *   KEPT     kept[class]; owner 0, used 0
 *   ORPHAN   owner 0: on orphans[class] if an object is free (F), else nowhere
 */
#ifndef LOAM_SLAB_LAYOUT_H
#define LOAM_SLAB_LAYOUT_H

#include "allocator/atomic.h"
#include "allocator/lock.h"
#include "loam/slab.h"

#define LIKELY(condition)   __builtin_expect((condition), 1)
#define UNLIKELY(condition) __builtin_expect((condition), 0)

#define SLAB_MAGIC           UINT64_C(0x326261736d616f6c) /* "loamsab2": with the layout's version */
#define SLAB_SHIFT           16
#define SLAB_OBJECT_SHIFT    3  /* log2 of the smallest object */
#define SLAB_UNIT_WORDS      16 /* of 64 objects */
#define SLAB_UNIT_WORD_SHIFT 4
#define SLAB_UNIT_EXTRA_MAX  7
#define SLAB_UNIT_NONE       0u
#define SLAB_OWNER_NONE      0u
#define SLAB_CLASS_MASK      15u /* of a key */
#define SLAB_CLASS_SLOTS     16  /* every value under the mask has its line in a cache */
#define SLAB_CLASS_NEVER     15  /* its line never holds anything: of sizes that are refused */
#define SLAB_SIZE_STEPS      (LOAM_SLAB_OBJECT_MAX / LOAM_SLAB_OBJECT_MIN + 1)
#define SLAB_KEY_NONE        UINT64_MAX

/* A free word with so many free objects is taken again before its neighbours: it is warm. */
#define SLAB_WORD_REUSE_COUNT 16

enum slab_unit_kind { SLAB_UNIT_FREE, SLAB_UNIT_RESERVED, SLAB_UNIT_HEAD, SLAB_UNIT_EXTRA };

enum slab_state { SLAB_CURRENT = 1, SLAB_PARTIAL, SLAB_FULL, SLAB_KEPT, SLAB_ORPHAN };

enum slab_notice { SLAB_NOTICE_NONE, SLAB_NOTICE_WAITING, SLAB_NOTICE_QUEUED };

struct slab_unit {
    /* What all who free read; written once in 64 allocations or more rarely. */
    _Atomic uint64_t key;       /* a head's: the slab's GPA and, in its low bits, the class; SLAB_KEY_NONE: no head */
    _Atomic uint32_t owner;     /* number of a cache, or SLAB_OWNER_NONE */
    _Atomic uint32_t held_word; /* slab_held_word_make: which word is H, and the how-manieth */
    _Atomic uint32_t notice;
    _Atomic uint32_t kind;
    _Atomic uint32_t inbox_next;
    _Atomic uint32_t
        extra[SLAB_UNIT_EXTRA_MAX]; /* units of the words from SLAB_UNIT_WORDS on; of an extra, its head in [0] */
    uint64_t spare;
    /* What its owner writes. */
    uint32_t until;
    uint32_t notify;
    _Atomic uint32_t state;
    uint32_t previous; /* on the list; a free unit's next */
    uint32_t next;
    uint32_t window;
    uint32_t spare_line[10];
    _Atomic uint64_t free[SLAB_UNIT_WORDS];
    _Atomic uint64_t remote[SLAB_UNIT_WORDS];
};

static_assert(sizeof(struct slab_unit) == 384 && offsetof(struct slab_unit, until) == 64 &&
                  offsetof(struct slab_unit, free) == 128,
              "lines of the owner and of the others do not meet");

struct slab_list {
    uint32_t first, last;
};

/* One class of a cache: one line. What a pair of alloc and free needs, if the object is of the held word. */
struct slab_hot {
    _Atomic uint64_t held;  /* H */
    uint64_t gpa;           /* of the held word's first object */
    uintptr_t hva;          /* the same, in the owner's process */
    _Atomic uint64_t *free; /* the held word's F, in the owner's process; R follows at SLAB_FREE_TO_REMOTE */
    uint8_t shift;          /* log2 of an object's bytes */
    uint8_t word;           /* the held one, or where to look from */
    uint32_t slab;          /* CURRENT */
    struct slab_list partial;
    _Atomic uint64_t remote_frees; /* taken back so far */
    uint64_t spare;
};

#define SLAB_FREE_TO_REMOTE SLAB_UNIT_WORDS

static_assert(sizeof(struct slab_hot) == 64 && offsetof(struct slab_unit, remote) - offsetof(struct slab_unit, free) ==
                                                   SLAB_FREE_TO_REMOTE * sizeof(uint64_t),
              "one line a class; R lies behind F");

struct loam_slab_cache {
    /* The owner's process's: pointers; only the owner follows them. */
    struct loam_slab_view window; /* the first of slab->windows */
    const struct loam_slab *slab;
    struct slab_unit *units;
    _Atomic uint32_t *table; /* from the first window's first entry */
    uint32_t unit_capacity;
    _Atomic uint32_t id; /* 0: no cache is here */
    struct slab_hot hot[SLAB_CLASS_SLOTS];
    uint16_t hot_offset[SLAB_SIZE_STEPS]; /* of (bytes + 7) / 8: from the cache to the line of its class */
    /* What others write. */
    _Alignas(64) _Atomic uint32_t inbox;
};

static_assert(sizeof(struct loam_slab_cache) % 64 == 0 && offsetof(struct loam_slab_cache, hot) == 64,
              "caches begin at lines");

/* Constants, sealed by a sum. */
struct slab_sealed {
    uint64_t magic;
    uint64_t bytes;
    uint64_t limit;
    uint64_t caches_offset, table_offset, units_offset;
    uint64_t table_count;
    uint32_t frame_shift;
    uint32_t cache_capacity;
    uint32_t unit_capacity; /* units 1 to unit_capacity */
    uint32_t window_count;
    struct sealed_window {
        uint64_t start, bytes;
    } windows[LOAM_SLAB_WINDOW_MAX]; /* as given, not rounded */
    uint64_t sum;
};

struct loam_slab_shared {
    struct slab_sealed sealed;
    _Alignas(64) struct loam_lock lock; /* guards what follows, and all that has no owner */
    uint32_t suspect;                   /* 1: a holder died; nothing is taken from here until it is found in order */
    uint32_t unit_top;                  /* units from here on were never used */
    uint32_t unit_first_free;
    uint32_t unit_free_count;
    uint32_t kept[LOAM_SLAB_CLASS_COUNT];
    struct slab_list orphans[LOAM_SLAB_CLASS_COUNT];
    _Atomic uint64_t remote_frees[LOAM_SLAB_CLASS_COUNT]; /* of caches that are gone, and of orphans */
    _Atomic uint64_t frame_failures;                      /* slabs whose frames the frame allocator would not take */
};

/* --- Places ---------------------------------------------------------------------------------------------------- */

static inline struct slab_unit *slab_units(const struct loam_slab_shared *shared)
{
    return (struct slab_unit *)((uintptr_t)shared + shared->sealed.units_offset);
}

static inline _Atomic uint32_t *slab_table(const struct loam_slab_shared *shared)
{
    return (_Atomic uint32_t *)((uintptr_t)shared + shared->sealed.table_offset);
}

/* id is 1 to cache_capacity. */
static inline struct loam_slab_cache *slab_cache_at(const struct loam_slab_shared *shared, uint32_t id)
{
    return (struct loam_slab_cache *)((uintptr_t)shared + shared->sealed.caches_offset) + (id - 1);
}

/* --- Classes, words -------------------------------------------------------------------------------------------- */

/* Of bytes from 1 on; LOAM_SLAB_CLASS_COUNT or more for 0 and for what is too large. */
static inline uint32_t slab_class_of(size_t bytes)
{
    return (uint32_t)(63 - __builtin_clzll((bytes - 1) | 7)) - 2;
}

static inline uint32_t slab_class_shift(uint32_t class)
{
    return class + SLAB_OBJECT_SHIFT;
}

static inline uint32_t slab_class_objects(uint32_t class)
{
    return (uint32_t)LOAM_SLAB_BYTES >> slab_class_shift(class);
}

/* Words of a slab of the class; the last is the only one, where it is not whole. */
static inline uint32_t slab_class_words(uint32_t class)
{
    return (slab_class_objects(class) + 63) / 64;
}

/* Units of a slab of the class. */
static inline uint32_t slab_class_units(uint32_t class)
{
    return (slab_class_words(class) + SLAB_UNIT_WORDS - 1) / SLAB_UNIT_WORDS;
}

static inline uint64_t slab_class_word_mask(uint32_t class)
{
    return slab_class_objects(class) >= 64 ? UINT64_MAX : (UINT64_C(1) << slab_class_objects(class)) - 1;
}

/* A full slab is looked at again once so many of its objects are free. */
static inline uint32_t slab_class_refill_count(uint32_t class)
{
    return slab_class_objects(class) / 8;
}

static inline uint64_t slab_key_gpa(uint64_t key)
{
    return key & ~(uint64_t)(LOAM_SLAB_BYTES - 1);
}

/* The count tells two times apart that a word is held, so that H is not read for another. */
static inline uint32_t slab_held_word_make(uint32_t before, bool any, uint32_t word)
{
    return (((before >> 8) + 1) << 8) | (any ? word + 1 : 0);
}

static inline bool slab_held_word_is(uint32_t held_word, uint32_t word)
{
    return (held_word & 255u) == word + 1;
}

static inline uint32_t slab_popcount(uint64_t word)
{
    return (uint32_t)__builtin_popcountll(word);
}

/* The unit that bears the word's bits: at [word % SLAB_UNIT_WORDS]. */
static inline struct slab_unit *slab_word_unit(struct slab_unit *units, struct slab_unit *head, uint32_t word)
{
    return LIKELY(word < SLAB_UNIT_WORDS) ? head : &units[shared_load(head->extra[(word >> SLAB_UNIT_WORD_SHIFT) - 1])];
}

static inline uint32_t slab_used_of(const struct slab_unit *head)
{
    return head->until + head->notify;
}

static inline void slab_set_notify(struct slab_unit *head, uint32_t notify)
{
    head->until = slab_used_of(head) - notify;
    head->notify = notify;
}

/* --- The table ------------------------------------------------------------------------------------------------- */

/* The window that holds gpa as a part of a whole slab; NULL if none does. */
static inline const struct loam_slab_view *slab_window(const struct loam_slab *slab, uint64_t gpa)
{
    for (uint32_t i = 0; i < slab->window_count; i++) {
        if (gpa - slab->windows[i].start < slab->windows[i].bytes) {
            return &slab->windows[i];
        }
    }
    return NULL;
}

static inline _Atomic uint32_t *slab_table_entry(const struct loam_slab *slab, const struct loam_slab_view *window,
                                                 uint64_t gpa)
{
    return &slab_table(slab->shared)[window->first + ((gpa - window->start) >> SLAB_SHIFT)];
}

#endif
