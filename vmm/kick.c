// SPDX-License-Identifier: Apache-2.0
#include "vmm/kick.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#define SECOND            1000000000L
#define AGAIN_NANOSECONDS 200000L /* from one kick to the next */
#define END_KICKS         5000u

static void ignore_kick(int number)
{
    (void)number;
}

/* Without SA_RESTART, or the call would begin anew. */
static void install(void)
{
    const struct sigaction action = {.sa_handler = ignore_kick};

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
    sem_post(&thread->leaving);
    return NULL;
}

/* pthread_create answers EAGAIN where a stack cannot be mapped, as it does where a thread cannot be had. */
static bool has_room_for_stack(size_t *bytes)
{
    pthread_attr_t attributes;
    void *stack;

    pthread_attr_init(&attributes);
    pthread_attr_getstacksize(&attributes, bytes);
    pthread_attr_destroy(&attributes);
    stack = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        return false;
    }
    munmap(stack, *bytes);
    return true;
}

static enum loam_error no_thread(const char *name, int error, struct loam_diag *diag)
{
    size_t stack_bytes;
    bool has_room = has_room_for_stack(&stack_bytes);

    errno = error;
    if (!has_room) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM,
                         "%s: a thread is wanted, and there is no room for its stack of %zu KiB: raise the limit on "
                         "address space or on data (ulimit -v, ulimit -d), or lower the one on stacks (ulimit -s)",
                         name, stack_bytes / 1024);
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM,
                     "%s: a thread is wanted, and none can be started: raise the limit on processes and threads "
                     "(ulimit -u, pids.max of the control group)",
                     name);
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
    sem_init(&thread->leaving, 0, 0);
    blocked_signals(&blocked);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    error = pthread_create(&thread->thread, NULL, run_work, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0 ? LOAM_OK : no_thread(name, error, diag);
}

void kick_send(const struct kick_thread *thread)
{
    pthread_kill(thread->thread, KICK_SIGNAL);
}

/* Until the next kick, or until it has left. */
static void await_leaving(struct kick_thread *thread)
{
    struct timespec end;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += AGAIN_NANOSECONDS;
    if (end.tv_nsec >= SECOND) {
        end.tv_sec++;
        end.tv_nsec -= SECOND;
    }
    (void)sem_clockwait(&thread->leaving, CLOCK_MONOTONIC, &end);
}

bool kick_end(struct kick_thread *thread)
{
    for (unsigned i = 0; !atomic_load_explicit(&thread->left, memory_order_acquire); i++) {
        if (i == END_KICKS) {
            pthread_detach(thread->thread);
            return false;
        }
        kick_send(thread);
        await_leaving(thread);
    }
    kick_join(thread);
    return true;
}

void kick_join(struct kick_thread *thread)
{
    pthread_join(thread->thread, NULL);
}
