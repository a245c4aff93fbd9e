// SPDX-License-Identifier: Apache-2.0
/*
 * No signal meets a thread that is gone: a member enters and leaves is_working under lock, and is kicked under it.
 * Nobody is held for the end and let go for a pause: has_ended is looked at under the lock under which it was written.
 */
#include "vmm/crew.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum loam_error crew_init(struct crew *crew, const struct crew_work *work, uint32_t count, struct loam_diag *diag)
{
    enum loam_error error;

    *crew = (struct crew){.work = *work, .count = count};
    error = park_init(&crew->park, diag);
    if (error != LOAM_OK) {
        return error;
    }
    crew->members = calloc(count, sizeof crew->members[0]);
    if (crew->members == NULL) {
        park_destroy(&crew->park);
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "vCPU threads: no memory");
    }
    for (uint32_t i = 0; i < count; i++) {
        crew->members[i].crew = crew;
    }
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->arrived, NULL);
    return LOAM_OK;
}

void crew_destroy(struct crew *crew)
{
    if (crew->members != NULL) {
        pthread_cond_destroy(&crew->arrived);
        pthread_mutex_destroy(&crew->lock);
        park_destroy(&crew->park);
        free(crew->members);
        crew->members = NULL;
    }
}

/* --- A member's life ---------------------------------------------------------------------------------------------- */

static void arrive(struct crew_member *member)
{
    pthread_mutex_lock(&member->crew->lock);
    member->self = pthread_self();
    member->thread_id = gettid();
    member->is_working = true;
    pthread_cond_signal(&member->crew->arrived);
    pthread_mutex_unlock(&member->crew->lock);
    park_come(&member->crew->park);
}

static void leave_work(struct crew_member *member)
{
    park_go(&member->crew->park);
    pthread_mutex_lock(&member->crew->lock);
    member->is_working = false;
    pthread_mutex_unlock(&member->crew->lock);
}

static void work_in_rounds(void *self)
{
    struct crew_member *member = self;
    const struct crew_work *work = &member->crew->work;
    uint32_t index = (uint32_t)(member - member->crew->members);

    arrive(member);
    while (work->round(work->self, index)) {
    }
    leave_work(member);
}

static void await_arrivals(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    for (uint32_t i = 0; i < crew->count; i++) {
        while (crew->members[i].thread_id == 0) {
            pthread_cond_wait(&crew->arrived, &crew->lock);
        }
    }
    pthread_mutex_unlock(&crew->lock);
}

static enum loam_error start_member(struct crew_member *member, uint32_t index, struct loam_diag *diag)
{
    struct lasting *threads = member->crew->work.threads;
    char name[32];

    if (threads != NULL) {
        lasting_start(threads, index, work_in_rounds, member);
        return LOAM_OK;
    }
    snprintf(name, sizeof name, "vCPU %" PRIu32, index);
    return kick_start(&member->thread, work_in_rounds, member, name, diag);
}

enum loam_error crew_start(struct crew *crew, struct loam_diag *diag)
{
    for (uint32_t i = 0; i < crew->count; i++) {
        struct crew_member *member = &crew->members[i];
        enum loam_error error = start_member(member, i, diag);

        if (error != LOAM_OK) {
            return error;
        }
        member->has_thread = true;
    }
    await_arrivals(crew);
    return LOAM_OK;
}

static void join_member(struct crew_member *member, uint32_t index)
{
    if (member->crew->work.threads != NULL) {
        lasting_join(member->crew->work.threads, index);
    } else {
        kick_join(&member->thread);
    }
}

void crew_join(struct crew *crew)
{
    for (uint32_t i = 0; i < crew->count; i++) {
        struct crew_member *member = &crew->members[i];

        if (member->has_thread) {
            join_member(member, i);
            member->has_thread = false;
            member->thread_id = 0;
        }
    }
}

/* --- Calling back ------------------------------------------------------------------------------------------------- */

/* Locked. */
static void call_back(struct crew *crew)
{
    for (uint32_t i = 0; i < crew->count; i++) {
        struct crew_member *member = &crew->members[i];

        crew->work.hold(crew->work.self, i, true);
        if (member->is_working && !pthread_equal(member->self, pthread_self())) {
            pthread_kill(member->self, KICK_SIGNAL);
        }
    }
}

void crew_end(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    crew->has_ended = true;
    park_end(&crew->park);
    call_back(crew);
    pthread_mutex_unlock(&crew->lock);
}

bool crew_pause(struct crew *crew)
{
    if (!park_close(&crew->park)) {
        return false;
    }
    pthread_mutex_lock(&crew->lock);
    call_back(crew);
    pthread_mutex_unlock(&crew->lock);
    park_await(&crew->park);
    return true;
}

void crew_resume(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    for (uint32_t i = 0; i < crew->count && !crew->has_ended; i++) {
        crew->work.hold(crew->work.self, i, false);
    }
    pthread_mutex_unlock(&crew->lock);
    park_open(&crew->park);
}

bool crew_is_pausing(const struct crew *crew)
{
    return park_is_closed(&crew->park);
}

int crew_pause_fd(const struct crew *crew)
{
    return park_fd(&crew->park);
}

void crew_rest(struct crew *crew)
{
    park_rest(&crew->park);
}

void crew_kick(struct crew *crew, uint32_t member)
{
    pthread_mutex_lock(&crew->lock);
    if (crew->members[member].is_working) {
        pthread_kill(crew->members[member].self, KICK_SIGNAL);
    }
    pthread_mutex_unlock(&crew->lock);
}

uint64_t crew_taken_nanoseconds(struct crew *crew)
{
    uint64_t taken = 0;

    pthread_mutex_lock(&crew->lock);
    for (uint32_t i = 0; i < crew->count; i++) {
        struct timespec time;
        clockid_t clock;

        if (crew->members[i].is_working && pthread_getcpuclockid(crew->members[i].self, &clock) == 0 &&
            clock_gettime(clock, &time) == 0) {
            taken += (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
        }
    }
    pthread_mutex_unlock(&crew->lock);
    return taken;
}

pid_t crew_thread(const struct crew *crew, uint32_t member)
{
    return member < crew->count ? crew->members[member].thread_id : 0;
}
