// SPDX-License-Identifier: Apache-2.0
/*
 * Threads that wait in a system call for the world outside (a guest, a reader, a person), and how to call them back.
 *
 * The kick is a signal that does nothing but make such a call return with EINTR. It ends only a call that has begun, so
 * whoever sends it first says by a flag of his own that the thread is to leave, and kicks until it has left: a kick that
 * falls between the thread's look at the flag and its call is followed by another.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_KICK_H
#define LOAM_VMM_KICK_H

#include "loam/error.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#define KICK_SIGNAL SIGRTMIN

struct kick_thread {
    pthread_t thread;
    void (*work)(void *self);
    void *self;
    atomic_bool left; /* work has returned */
    sem_t leaving;    /* posted then */
};

/*
 * Run work(self) on a thread of its own, which blocks every signal but the kick and what its own faults raise. thread
 * stays where it is until kick_end. LOAM_ERROR_SYSTEM: no thread could be started, and none is there; name says whose.
 */
LOAM_MUST_USE enum loam_error kick_start(struct kick_thread *thread, void (*work)(void *self), void *self,
                                         const char *name, struct loam_diag *diag);

/* One kick, to a thread that has not been ended. */
void kick_send(const struct kick_thread *thread);

/*
 * Kick the thread until work has returned, and join it. The caller has told work to return. false: it did not within a
 * second, because it is in a call that no signal ends (a file system that hangs); it is left behind, and with it all
 * that it uses.
 */
bool kick_end(struct kick_thread *thread);

/* Wait for work to return by itself, and join. */
void kick_join(struct kick_thread *thread);

#endif
