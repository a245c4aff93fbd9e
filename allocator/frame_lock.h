// SPDX-License-Identifier: Apache-2.0
/*
 * The allocator's one lock, and the checks that everybody who takes it makes. Private to frame*.c.
 *
 * Held for the length of a public call at most; nobody waits for anything under it but for owners of caches to leave the
 * call under way.
 */
#ifndef LOAM_FRAME_LOCK_H
#define LOAM_FRAME_LOCK_H

#include "allocator/frame_stop.h"

/* What is needed to find anything is as it was made. */
static inline bool frame_sound(const struct loam_frame *frame)
{
    return frame->seal == frame_seal_of_allocator(frame) && frame->magic == FRAME_MAGIC &&
           frame->id_top <= frame->section_capacity && frame->section_count <= frame->id_top &&
           frame->cache_top <= frame->cache_capacity;
}

/* Give the lock up; owners that were stopped go on. Returns error, or LOAM_ERROR_CORRUPT if damage was met. */
static inline enum loam_error frame_unlock(struct loam_frame *frame, enum loam_error error)
{
    bool damaged = frame_read(frame->damaged) != 0;

    frame_write(frame->holder, 0);
    if (frame->stopped != 0 && !damaged) {
        loam_frame_stop_resume(frame);
    }
    loam_lock_give(&frame->lock);
    return damaged ? LOAM_ERROR_CORRUPT : error;
}

/*
 * Take the lock. Questions take it too, so the allocator is not const to the one who has it. NULL, and no lock: there
 * is no telling where anything lies.
 */
static inline struct loam_frame *frame_lock(const struct loam_frame *frame)
{
    struct loam_frame *locked = (struct loam_frame *)(uintptr_t)frame;
    bool in_order = loam_lock_take(&locked->lock);

    if (!frame_sound(locked)) {
        loam_lock_give(&locked->lock);
        return NULL;
    }
    /* Its last holder died in the middle of a call. */
    if (!in_order && frame_read(locked->damaged) == 0) {
        frame_write(locked->damaged, FRAME_SUSPECT);
    }
    frame_write(locked->holder, 0);
    return locked;
}

/* The same for who will change something: NULL also once damage was met. */
static inline struct loam_frame *frame_lock_to_change(const struct loam_frame *frame)
{
    struct loam_frame *locked = frame_lock(frame);

    if (locked != NULL && frame_read(locked->damaged)) {
        frame_unlock(locked, LOAM_OK);
        return NULL;
    }
    return locked;
}

#endif
