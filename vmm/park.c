// SPDX-License-Identifier: Apache-2.0
/* fd is readable if and only if is_closed || has_ended. */
#include "vmm/park.h"

#include <sys/eventfd.h>
#include <unistd.h>

enum loam_error park_init(struct park *park, struct loam_diag *diag)
{
    *park = (struct park){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (park->fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "park: eventfd");
    }
    pthread_mutex_init(&park->lock, NULL);
    pthread_cond_init(&park->changed, NULL);
    return LOAM_OK;
}

void park_destroy(struct park *park)
{
    close(park->fd);
    pthread_cond_destroy(&park->changed);
    pthread_mutex_destroy(&park->lock);
}

static void change_busy(struct park *park, uint32_t difference)
{
    park->busy_count += difference;
    pthread_cond_broadcast(&park->changed);
}

static void wait_while_closed(struct park *park)
{
    while (atomic_load(&park->is_closed) && !park->has_ended) {
        pthread_cond_wait(&park->changed, &park->lock);
    }
}

void park_come(struct park *park)
{
    pthread_mutex_lock(&park->lock);
    wait_while_closed(park);
    change_busy(park, 1);
    pthread_mutex_unlock(&park->lock);
}

void park_rest(struct park *park)
{
    pthread_mutex_lock(&park->lock);
    change_busy(park, UINT32_MAX);
    wait_while_closed(park);
    change_busy(park, 1);
    pthread_mutex_unlock(&park->lock);
}

void park_go(struct park *park)
{
    pthread_mutex_lock(&park->lock);
    change_busy(park, UINT32_MAX);
    pthread_mutex_unlock(&park->lock);
}

bool park_close(struct park *park)
{
    bool is_change;

    pthread_mutex_lock(&park->lock);
    is_change = !atomic_load(&park->is_closed) && !park->has_ended;
    if (is_change) {
        atomic_store(&park->is_closed, true);
        (void)eventfd_write(park->fd, 1);
    }
    pthread_mutex_unlock(&park->lock);
    return is_change;
}

void park_await(struct park *park)
{
    pthread_mutex_lock(&park->lock);
    while (park->busy_count > 0) {
        pthread_cond_wait(&park->changed, &park->lock);
    }
    pthread_mutex_unlock(&park->lock);
}

void park_open(struct park *park)
{
    eventfd_t count;

    pthread_mutex_lock(&park->lock);
    atomic_store(&park->is_closed, false);
    if (!park->has_ended) {
        (void)eventfd_read(park->fd, &count);
    }
    pthread_cond_broadcast(&park->changed);
    pthread_mutex_unlock(&park->lock);
}

void park_end(struct park *park)
{
    pthread_mutex_lock(&park->lock);
    park->has_ended = true;
    (void)eventfd_write(park->fd, 1);
    pthread_cond_broadcast(&park->changed);
    pthread_mutex_unlock(&park->lock);
}

bool park_is_closed(const struct park *park)
{
    return atomic_load(&park->is_closed);
}

int park_fd(const struct park *park)
{
    return park->fd;
}
