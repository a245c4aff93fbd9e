// SPDX-License-Identifier: Apache-2.0
/*
 * A crew: the threads of a machine's vCPUs, started, called back from wherever they wait, parked, and joined.
 *
 * A member works in rounds, each of which may wait in a system call (KVM_RUN). To have it back the crew first holds it,
 * which is the owner's to do and makes every such call return at once, and then sends it a kick (kick.h), which ends one
 * that has begun. What holds a member for a pause is taken back afterwards; what holds it for the end stands.
 *
 *     crew_init -> crew_start -> [crew_pause -> crew_resume] ... -> crew_end -> crew_join -> crew_destroy
 *
 * Threads: crew_end, crew_is_pausing and crew_pause_fd from any; crew_rest from a member; all else from one, or from others
 * one after the other.
 */
#ifndef LOAM_VMM_CREW_H
#define LOAM_VMM_CREW_H

#include "loam/error.h"
#include "vmm/kick.h"
#include "vmm/lasting.h"
#include "vmm/park.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct crew_work {
    /* On the member's thread; false: it leaves. */
    bool (*round)(void *self, uint32_t member);
    /* Have every call in which the member could wait return at once, or no more. Under the crew's lock. */
    void (*hold)(void *self, uint32_t member, bool is_held);
    void *self;
    struct lasting *threads; /* as many at least as there are members, who run on them; NULL: on threads of their own */
};

struct crew_member {
    struct crew *crew;
    bool has_thread; /* to be joined; the starter's */
    struct kick_thread thread;
    bool is_working; /* under the crew's lock */
    pthread_t self;  /* with is_working */
    pid_t thread_id; /* 0: none; written under the crew's lock, and by crew_join */
};

struct crew {
    struct crew_work work;
    struct park park;
    pthread_mutex_t lock; /* before the park's */
    pthread_cond_t arrived;
    bool has_ended; /* under lock */
    uint32_t count;
    struct crew_member *members; /* NULL: there is no crew */
};

/* count members, none of whom is there yet. On failure *crew is as crew_destroy leaves it. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error crew_init(struct crew *crew, const struct crew_work *work, uint32_t count,
                                        struct loam_diag *diag);

/* All have been joined. No effect on one that is destroyed, or filled with zeros. */
void crew_destroy(struct crew *crew);

/* Start each, and return when all are there. On failure the caller ends the crew, and joins who has come. */
LOAM_MUST_USE enum loam_error crew_start(struct crew *crew, struct loam_diag *diag);

/* Wait until each has left. */
void crew_join(struct crew *crew);

/* Held from now on: a round that ends by it, or that finds the end by itself, is to be the last. */
void crew_end(struct crew *crew);

/*
 * Hold all, and wait until each rests or has left; who comes later rests first. false: they are paused already, or the crew
 * has ended, and nothing has changed.
 */
bool crew_pause(struct crew *crew);
void crew_resume(struct crew *crew);

/* From crew_pause to crew_resume. */
bool crew_is_pausing(const struct crew *crew);

/* Readable while it is, and once the crew has ended: for a round that waits elsewhere. The crew's. */
int crew_pause_fd(const struct crew *crew);

/* In a round, where the member may be parked: rest as long as there is a pause. */
void crew_rest(struct crew *crew);

/* One kick, which finds a member in its call or does nothing. */
void crew_kick(struct crew *crew, uint32_t member);

/* Processor time that the members who are there have taken, which stands still while all of them wait. */
uint64_t crew_taken_nanoseconds(struct crew *crew);

/* As gettid(2) gives it; 0: it was not started, or has been joined. */
pid_t crew_thread(const struct crew *crew, uint32_t member);

#endif
