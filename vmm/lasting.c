// SPDX-License-Identifier: Apache-2.0
#include "vmm/lasting.h"

#include "vmm/kick.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Under the lock but for what says otherwise. */
struct member {
    struct lasting *lasting;
    struct kick_thread thread; /* the owner's */
    char name[16];             /* constant */
    pid_t thread_id;           /* constant once it is not 0 */
    void (*work)(void *self);  /* NULL: nothing to do */
    void *self;
};

struct lasting {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_leaving;
    uint32_t count; /* who have a thread */
    struct member members[];
};

static void serve(void *self)
{
    struct member *member = self;
    struct lasting *lasting = member->lasting;

    (void)prctl(PR_SET_NAME, member->name);
    pthread_mutex_lock(&lasting->lock);
    member->thread_id = gettid();
    pthread_cond_broadcast(&lasting->changed);
    while (!lasting->is_leaving) {
        if (member->work == NULL) {
            pthread_cond_wait(&lasting->changed, &lasting->lock);
            continue;
        }
        pthread_mutex_unlock(&lasting->lock);
        member->work(member->self);
        pthread_mutex_lock(&lasting->lock);
        member->work = NULL;
        pthread_cond_broadcast(&lasting->changed);
    }
    pthread_mutex_unlock(&lasting->lock);
}

static enum loam_error add_member(struct lasting *lasting, const char *before, const char *after,
                                  struct loam_diag *diag)
{
    struct member *member = &lasting->members[lasting->count];
    enum loam_error error;

    member->lasting = lasting;
    snprintf(member->name, sizeof member->name, "%s%" PRIu32 "%s", before, lasting->count, after);
    error = kick_start(&member->thread, serve, member, member->name, diag);
    if (error != LOAM_OK) {
        return error;
    }
    lasting->count++;
    pthread_mutex_lock(&lasting->lock);
    while (member->thread_id == 0) {
        pthread_cond_wait(&lasting->changed, &lasting->lock);
    }
    pthread_mutex_unlock(&lasting->lock);
    return LOAM_OK;
}

enum loam_error lasting_create(uint32_t count, const char *before, const char *after, struct lasting **lasting,
                               struct loam_diag *diag)
{
    struct lasting *made = calloc(1, sizeof *made + count * sizeof made->members[0]);
    enum loam_error error = LOAM_OK;

    *lasting = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "threads");
    }
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->changed, NULL);
    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        error = add_member(made, before, after, diag);
    }
    if (error != LOAM_OK) {
        lasting_destroy(made);
        return error;
    }
    *lasting = made;
    return LOAM_OK;
}

void lasting_destroy(struct lasting *lasting)
{
    if (lasting == NULL) {
        return;
    }
    pthread_mutex_lock(&lasting->lock);
    lasting->is_leaving = true;
    pthread_cond_broadcast(&lasting->changed);
    pthread_mutex_unlock(&lasting->lock);
    for (uint32_t i = 0; i < lasting->count; i++) {
        kick_join(&lasting->members[i].thread);
    }
    pthread_cond_destroy(&lasting->changed);
    pthread_mutex_destroy(&lasting->lock);
    free(lasting);
}

uint32_t lasting_count(const struct lasting *lasting)
{
    return lasting->count;
}

pid_t lasting_thread(const struct lasting *lasting, uint32_t member)
{
    return lasting->members[member].thread_id;
}

void lasting_start(struct lasting *lasting, uint32_t member, void (*work)(void *self), void *self)
{
    pthread_mutex_lock(&lasting->lock);
    lasting->members[member].self = self;
    lasting->members[member].work = work;
    pthread_cond_broadcast(&lasting->changed);
    pthread_mutex_unlock(&lasting->lock);
}

void lasting_join(struct lasting *lasting, uint32_t member)
{
    pthread_mutex_lock(&lasting->lock);
    while (lasting->members[member].work != NULL) {
        pthread_cond_wait(&lasting->changed, &lasting->lock);
    }
    pthread_mutex_unlock(&lasting->lock);
}
