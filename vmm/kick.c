// SPDX-License-Identifier: Apache-2.0
#include "vmm/kick.h"

#include <errno.h>
#include <time.h>

#define AGAIN_NANOSECONDS 200000L /* from one kick to the next */
#define END_KICKS         5000u

static void ignore_kick(int number)
{
    (void)number;
}

/* Without SA_RESTART, or the call would begin anew. */
static void install(void)
{
    struct sigaction action = {.sa_handler = ignore_kick};

    sigemptyset(&action.sa_mask);
    sigaction(KICK_SIGNAL, &action, NULL);
}

static void blocked_signals(sigset_t *set)
{
    const int open_signals[] = {KICK_SIGNAL, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};

    sigfillset(set);
    for (size_t i = 0; i < sizeof open_signals / sizeof open_signals[0]; i++) {
        sigdelset(set, open_signals[i]);
    }
}

static void *run_work(void *argument)
{
    struct kick_thread *thread = argument;

    thread->work(thread->self);
    atomic_store_explicit(&thread->left, true, memory_order_release); /* pairs with kick_end */
    return NULL;
}

enum loam_error kick_start(struct kick_thread *thread, void (*work)(void *self), void *self, const char *name,
                           struct loam_diag *diag)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigset_t blocked, before;
    int error;

    pthread_once(&once, install);
    thread->work = work;
    thread->self = self;
    atomic_init(&thread->left, false);
    blocked_signals(&blocked);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    error = pthread_create(&thread->thread, NULL, run_work, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        errno = error;
        return loam_fail(diag, LOAM_ERROR_SYSTEM,
                         "%s: a thread is wanted, and none can be started: raise the limit on processes and threads "
                         "(ulimit -u, pids.max of the control group)",
                         name);
    }
    return LOAM_OK;
}

void kick_send(const struct kick_thread *thread)
{
    pthread_kill(thread->thread, KICK_SIGNAL);
}

bool kick_end(struct kick_thread *thread)
{
    const struct timespec pause = {.tv_nsec = AGAIN_NANOSECONDS};

    for (unsigned i = 0; !atomic_load_explicit(&thread->left, memory_order_acquire); i++) {
        if (i == END_KICKS) {
            pthread_detach(thread->thread);
            return false;
        }
        kick_send(thread);
        nanosleep(&pause, NULL);
    }
    kick_join(thread);
    return true;
}

void kick_join(struct kick_thread *thread)
{
    pthread_join(thread->thread, NULL);
}
