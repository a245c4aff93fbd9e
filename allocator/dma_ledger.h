// SPDX-License-Identifier: Apache-2.0
/*
 * The ledger of carved buffers: found by id at once, and in order of GPA. For dma.
 *
 * It is striped, so that threads do not wait for each other: an entry lies in the stripe of the thread that made it,
 * under that stripe's lock, and an id says in which stripe and which slot of it. Entries never move. What orders them by
 * GPA is one index for all stripes, which is read without a lock. Who strikes an entry out leaves it there: the index has
 * each entry where it starts, and slots where none starts any more, which whoever comes upon them takes out.
 *
 * Threads: every call from any thread, unless it says otherwise. Locks: one stripe's, or all in ascending order.
 */
#ifndef LOAM_DMA_LEDGER_H
#define LOAM_DMA_LEDGER_H

#include "allocator/dma_index.h"
#include "allocator/lock.h"
#include "loam/dma.h"

#include <stdbool.h>
#include <stdint.h>

#define DMA_LEDGER_STRIPES       8u
#define DMA_LEDGER_SEGMENTS      22u
#define DMA_LEDGER_SEGMENT_FIRST 64u /* slots in a stripe's first segment; each further one has twice as many */
#define DMA_LEDGER_SLOTS_MAX     (DMA_LEDGER_SEGMENT_FIRST * ((1u << DMA_LEDGER_SEGMENTS) - 1)) /* of a stripe */
#define DMA_LEDGER_ID_STEP       (UINT64_C(1) << 32) /* between two ids of one slot */

/*
 * A place for one entry after another.
 *   low half of entry.buffer.id - 1 == index in the stripe x DMA_LEDGER_STRIPES + index of the stripe: never changes
 *   high half: how many entries the slot has had before
 *   entry.buffer.bytes == 0: free, entry.buffer.hva is the next free slot, entry.buffer.id that of the next entry
 * The first cache line holds all that is read and written when a buffer with a short name comes and goes.
 */
struct dma_slot {
    _Alignas(64) struct loam_dma_entry entry;
};

/* Empty when all zero. made == count + free slots + slots whose ids are used up. */
struct dma_stripe {
    char apart[48]; /* from what is before: a lock, at a multiple of its 16 bytes, shares its line with none of it */
    struct loam_lock lock; /* guards what follows, and the entries */
    uint32_t count;
    uint32_t made; /* slots; those from here on were never used */
    struct dma_slot *free;
    void *segments[DMA_LEDGER_SEGMENTS]; /* from calloc; the slots begin at the first cache line */
};

struct dma_ledger {
    struct dma_index index; /* pointers to slots; key: GPA / LOAM_FRAME_BYTES */
    bool suspect;           /* (shared) a thread died holding a lock: nothing is changed until all was found in order */
    struct dma_stripe stripes[DMA_LEDGER_STRIPES];
};

/*
 * Enter a buffer, whose id is set. owner is a valid name of so many characters, flags are the request's. On failure the ledger is as it was.
 * LOAM_ERROR_SYSTEM: no heap memory, or ids are used up. LOAM_ERROR_CORRUPT: the ledger is suspect.
 */
LOAM_MUST_USE enum loam_error loam_dma_ledger_enter(struct dma_ledger *ledger, struct loam_dma_buffer *buffer,
                                                    const char *owner, size_t length, uint32_t flags);

/*
 * The entry with that id, held: no other thread sees or changes it until loam_dma_ledger_give. *entry is NULL on failure.
 * LOAM_ERROR_NOT_FOUND; LOAM_ERROR_CORRUPT: the ledger is suspect.
 */
LOAM_MUST_USE enum loam_error loam_dma_ledger_take(struct dma_ledger *ledger, uint64_t id,
                                                   struct loam_dma_entry **entry);
void loam_dma_ledger_give(struct dma_ledger *ledger, const struct loam_dma_entry *entry);

/* Strike out an entry that is held, which gives it up too. Its frames may be another's by now, even entered again. */
void loam_dma_ledger_strike(struct dma_ledger *ledger, struct loam_dma_entry *entry);

/* Copy the entry that starts lowest at or above gpa. LOAM_ERROR_NOT_FOUND: there is none, and *entry is untouched. */
LOAM_MUST_USE enum loam_error loam_dma_ledger_next(struct dma_ledger *ledger, loam_gpa gpa,
                                                   struct loam_dma_entry *entry);

/* Whether a thread died with a lock of the ledger, and nothing has been found in order since. */
bool loam_dma_ledger_suspect(const struct dma_ledger *ledger);

uint32_t loam_dma_ledger_count(struct dma_ledger *ledger);

/* Hold the whole ledger. */
void loam_dma_ledger_take_all(struct dma_ledger *ledger);

/* in_order: all of it was found in order, so it is not suspect any more. */
void loam_dma_ledger_give_all(struct dma_ledger *ledger, bool in_order);
void loam_dma_ledger_give_all_after_fork(struct dma_ledger *ledger);

/* The same as next, where the caller holds the whole ledger: the entry itself, or NULL. */
struct loam_dma_entry *loam_dma_ledger_held_next(const struct dma_ledger *ledger, loam_gpa gpa);

/*
 * Hold ids, index and counts against each other; the caller holds the whole ledger. LOAM_ERROR_CORRUPT: diag says what
 * disagrees.
 */
LOAM_MUST_USE enum loam_error loam_dma_ledger_validate(const struct dma_ledger *ledger, struct loam_diag *diag);

/* Free what the ledger has on the heap. */
void loam_dma_ledger_clear(struct dma_ledger *ledger);

#endif
