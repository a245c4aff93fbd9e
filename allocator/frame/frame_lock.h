// SPDX-License-Identifier: Apache-2.0
/*
 * The allocator's one lock, and the checks that everybody who takes it makes. Private to allocator/frame and to lenders.
 *
 * Held for the length of a public call at most; nobody waits for anything under it but for lenders to leave the call
 * under way, or a chunk.
 */
#ifndef LOAM_FRAME_LOCK_H
#define LOAM_FRAME_LOCK_H

#include "allocator/frame/frame_front.h"
#include "allocator/frame/frame_lend.h"

/* Give the lock up; lenders that stood still go on. Returns error. */
static inline enum loam_error frame_unlock(struct loam_frame *frame, enum loam_error error)
{
    if (UNLIKELY(frame->stopped != 0)) {
        loam_frame_lend_resume(frame);
    }
    loam_lock_give(&frame->lock);
    return error;
}

/*
 * Take the lock, and leave the front as it is: for plain calls, and for validate. Questions take it too, so the allocator
 * is not const to the one who has it.
 */
static inline struct loam_frame *frame_lock_bare(const struct loam_frame *frame)
{
    struct loam_frame *locked = (struct loam_frame *)(uintptr_t)frame;

    if (UNLIKELY(!loam_lock_take(&locked->lock))) {
        locked->suspect = FRAME_SUSPECT;
    }
    return locked;
}

/*
 * The same for who will change something; locked: the lock is taken already. False, and no lock: a holder died, and
 * validate has not looked since.
 */
static inline bool frame_lock_plainly(struct loam_frame *frame, bool locked)
{
    if (!locked) {
        frame_lock_bare(frame);
    }
    if (UNLIKELY(frame->suspect != 0)) {
        loam_lock_give(&frame->lock);
        return false;
    }
    return true;
}

/* Take the lock; nothing is in the front. */
static inline struct loam_frame *frame_lock(const struct loam_frame *frame)
{
    struct loam_frame *locked = frame_lock_bare(frame);

    if (locked->front.live != 0 && locked->suspect == 0) {
        loam_frame_front_flush(locked);
    }
    return locked;
}

static inline bool frame_lock_to_change(struct loam_frame *frame)
{
    bool locked = frame_lock_plainly(frame, false);

    if (locked && frame->front.live != 0) {
        loam_frame_front_flush(frame);
    }
    return locked;
}

#endif
