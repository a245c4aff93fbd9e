// SPDX-License-Identifier: Apache-2.0
/*
 * Chunks that are lent: all that the allocator knows of who borrows from it. Private to allocator/frame and to lenders;
 * the allocator's lock is held, unless it says otherwise.
 *
 * A chunk with an owner is lent. It is on none of the allocator's lists and in none of its counters; what stands there
 * is the lender's to say, and everybody may free there with the chunk's lock alone. A lender is a number: its index in
 * the room that the allocator has for lenders, plus one.
 *
 * The allocator calls its lender by way of one table, so that nothing here depends on who that is. Where the program has
 * none, chunks that another process has lent out are left alone.
 */
#ifndef LOAM_FRAME_LEND_H
#define LOAM_FRAME_LEND_H

#include "allocator/frame/frame_spot.h"

struct frame_recount;

/* Errors: LOAM_ERROR_BUSY, an owner cannot be stopped; LOAM_ERROR_UNINITIALISED, and the process has set no barrier. */
struct frame_lender {
    /* Free exactly the block [start, start + count), which starts in a lent chunk. Errors also as loam_frame_free. */
    enum loam_error (*free)(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start, uint64_t count);

    /* The chunk is everybody's from now on. */
    enum loam_error (*share)(struct loam_frame *frame, const struct frame_spot *spot);

    /* Whether the block that starts there, marked as allocated in a lent chunk, lies free in the lender's hands. */
    bool (*holds)(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start);

    /* The chunk comes back, and is lent no more. */
    enum loam_error (*recall)(struct loam_frame *frame, const struct frame_spot *spot);

    /* All chunks with free frames come back; all lenders stand still until resume. */
    enum loam_error (*recall_all)(struct loam_frame *frame);

    /*
     * All lenders stand still until resume, and bitmaps say all there is to say. False: but for one. Unless stop is
     * wanted in any case, not where bitmaps say it all as it is.
     */
    bool (*settle)(struct loam_frame *frame, bool stop);
    void (*resume)(struct loam_frame *frame);

    /* All lenders stand still, and know no section that they did not borrow from. */
    enum loam_error (*forget)(struct loam_frame *frame);

    /* Free frames of a zone in lent chunks, as of a moment; with what lent_frames counts. */
    uint64_t (*free_frames)(const struct loam_frame *frame, enum loam_frame_zone zone);
    uint32_t (*count)(const struct loam_frame *frame);

    /* For validate, in this order: records; what they have at hand; what they hold, once the sections are counted. */
    enum loam_error (*validate_records)(const struct loam_frame *frame, struct loam_diag *diag);
    enum loam_error (*validate_hands)(struct frame_recount *recount);
    enum loam_error (*validate_chunks)(struct frame_recount *recount);
};

extern const struct frame_lender loam_frame_lender __attribute__((weak));

/* --- What the allocator asks ----------------------------------------------------------------------------------- */

bool loam_frame_lend_holds(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start);

/* The lock of a lent chunk, which is everybody's from now on. False: it cannot be had. */
bool loam_frame_lend_lock(struct loam_frame *frame, const struct frame_spot *spot);

enum loam_error loam_frame_lend_free(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                     uint64_t count);

/* No chunk that the managed range touches is lent any more. */
enum loam_error loam_frame_lend_recall(struct loam_frame *frame, struct frame_section *section, uint64_t start,
                                       uint64_t count);

/* Whether frames came back that were lent. */
bool loam_frame_lend_recall_all(struct loam_frame *frame);

bool loam_frame_lend_settle(struct loam_frame *frame, bool stop);
void loam_frame_lend_resume(struct loam_frame *frame);
enum loam_error loam_frame_lend_forget(struct loam_frame *frame);
uint64_t loam_frame_lend_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone);
uint32_t loam_frame_lend_count(const struct loam_frame *frame);
enum loam_error loam_frame_lend_validate_records(const struct loam_frame *frame, struct loam_diag *diag);
enum loam_error loam_frame_lend_validate_hands(struct frame_recount *recount);
enum loam_error loam_frame_lend_validate_chunks(struct frame_recount *recount);

/* --- What a lender asks ---------------------------------------------------------------------------------------- */

/* How many whole chunks of a zone can be lent; reserved: what the DMA32 reserve wants is left there. */
uint64_t loam_frame_lend_room(const struct loam_frame *frame, enum loam_frame_zone zone, bool reserved);

/*
 * Take out a backed, partly used chunk with a free block of the order, 0 to 8: the fullest. False: there is none. It is
 * on no list, and its frames are the lender's to count.
 */
bool loam_frame_lend_take_partial(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order,
                                  struct frame_spot *spot);

/* Take out wholly free chunks, one behind the other, backed: up to count. Returns how many; *first is the first. */
uint64_t loam_frame_lend_take_free(struct loam_frame *frame, enum loam_frame_zone zone, uint64_t count,
                                   struct frame_spot *first);

/* Put back a chunk without an owner, PARTIAL or FREE, on no list, its free frames counted by nobody. */
void loam_frame_lend_give(struct loam_frame *frame, const struct frame_spot *spot);

/* --- The lock of a lent chunk ---------------------------------------------------------------------------------- */

/*
 * A chunk that comes on loan is its owner's: he, or who has stopped him, does with it as he likes and takes no lock.
 * Before others may free there he is stopped once and the lock is FREE; from then on it is everybody's, his too, until
 * the chunk goes back. So who keeps his blocks to himself pays nothing for those who do not.
 */
#define FRAME_LOCK_FREE   0u
#define FRAME_LOCK_HELD   0x33u
#define FRAME_LOCK_OWNERS 0x5au

/* Wait for the lock while it is held. False: who has it does not give it up. */
bool loam_frame_lend_wait(struct frame_chunk *chunk);

/* By anybody. Who has the lock sees whether the chunk is lent, and to whom. False: it is its owner's, or cannot be had. */
FRAME_HOT bool frame_lend_lock(struct frame_chunk *chunk)
{
    uint8_t free = FRAME_LOCK_FREE;

    /* Acquire: pairs with the release in frame_lend_unlock. */
    return LIKELY(shared_swap_acquire(chunk->lock, &free, FRAME_LOCK_HELD)) || loam_frame_lend_wait(chunk);
}

/* By its owner, or who has stopped him. */
FRAME_HOT bool frame_lend_hold(struct frame_chunk *chunk)
{
    return LIKELY(shared_load(chunk->lock) == FRAME_LOCK_OWNERS) || frame_lend_lock(chunk);
}

/* After either. */
FRAME_HOT void frame_lend_unlock(struct frame_chunk *chunk)
{
    if (UNLIKELY(shared_load(chunk->lock) != FRAME_LOCK_OWNERS)) {
        shared_store_release(chunk->lock, FRAME_LOCK_FREE);
    }
}

#endif
