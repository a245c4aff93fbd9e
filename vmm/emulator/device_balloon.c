// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/device_balloon.h"

#include "vmm/virtio_balloon.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define GAP_MILLISECONDS 1000 /* from one BALLOON_CHANGE to the next */

struct balloon {
    const struct line *line;
    struct device_news news;
    int changed_fd;                  /* an eventfd: the guest has changed what is in the balloon; -1 */
    bool is_due;                     /* it has, and nobody was told yet; the owner's, as is the next */
    int64_t next_milliseconds;       /* not before may it be told */
    atomic_uint actual_pages;        /* as the guest says */
    pthread_mutex_t lock;            /* between who attaches and detaches, and who sets */
    struct virtio_balloon *attached; /* NULL: detached; under lock */
    uint32_t target_pages;           /* under lock */
    unsigned int transport;          /* where it is attached */
};

static void changed(void *self, uint32_t actual_pages)
{
    struct balloon *balloon = self;

    atomic_store(&balloon->actual_pages, actual_pages);
    (void)eventfd_write(balloon->changed_fd, 1);
}

/* --- On a machine ------------------------------------------------------------------------------------------------------ */

static enum loam_error attach(void *self, struct launch *launch, unsigned int transport, struct loam_diag *diag)
{
    struct balloon *balloon = self;
    const struct virtio_balloon_config config = {.memory = launch->memory,
                                                 .deflate_on_oom = balloon->line->balloon_deflates_on_oom,
                                                 .reporting = balloon->line->balloon_reports_free,
                                                 .changed = changed,
                                                 .self = balloon};
    struct irq_line irq = machine_irq(launch->machine, machine_virtio_irq(transport));
    struct virtio_balloon *made = calloc(1, sizeof *made);
    struct loam_diag why = {0};

    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "balloon");
    }
    if (virtio_balloon_init(made, irq, &config, &why) != LOAM_OK) {
        free(made);
        return loam_fail(diag, LOAM_ERROR_INVALID, "balloon %s: %s", balloon->line->balloon_id, why.text);
    }
    pthread_mutex_lock(&balloon->lock);
    balloon->attached = made;
    balloon->transport = transport;
    virtio_balloon_set_target(made, balloon->target_pages);
    pthread_mutex_unlock(&balloon->lock);
    return machine_add_virtio(launch->machine, transport, balloon->line->balloon_id, &made->mmio, diag);
}

/* One whose thread is left behind stays, with all that it uses. */
static bool detach(void *self)
{
    struct balloon *balloon = self;
    struct virtio_balloon *attached;

    pthread_mutex_lock(&balloon->lock);
    attached = balloon->attached;
    balloon->attached = NULL;
    pthread_mutex_unlock(&balloon->lock);
    if (attached != NULL && !virtio_balloon_destroy(attached)) {
        return false;
    }
    free(attached);
    if (attached != NULL && atomic_load(&balloon->actual_pages) != 0) {
        changed(balloon, 0);
    }
    return true;
}

static void save(void *self, struct state_writer *writer)
{
    struct balloon *balloon = self;

    virtio_balloon_save(balloon->attached, writer, balloon->transport);
}

static enum loam_error load(void *self, struct state_reader *reader, struct loam_diag *diag)
{
    struct balloon *balloon = self;
    enum loam_error error = virtio_balloon_load(balloon->attached, reader, balloon->transport, diag);

    if (error == LOAM_OK) {
        balloon->target_pages = balloon->attached->layout.num_pages;
        virtio_mmio_replay(&balloon->attached->mmio);
    }
    return error;
}

static void quiesce(void *self)
{
    struct balloon *balloon = self;

    if (balloon->attached != NULL) {
        virtio_balloon_quiesce(balloon->attached);
    }
}

static void resume(void *self)
{
    struct balloon *balloon = self;

    if (balloon->attached != NULL) {
        virtio_balloon_resume(balloon->attached);
    }
}

static void close_balloon(void *self)
{
    struct balloon *balloon = self;

    if (balloon->changed_fd >= 0) {
        close(balloon->changed_fd);
    }
    pthread_mutex_destroy(&balloon->lock);
    free(balloon);
}

enum loam_error device_balloon_open(const struct line *line, const struct device_news *news, struct device *device,
                                    struct loam_diag *diag)
{
    static const struct device_operations operations = {
        "virtio-balloon-device", attach, detach, quiesce, resume, save, load, close_balloon};
    struct balloon *balloon = calloc(1, sizeof *balloon);

    if (balloon == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "balloon %s", line->balloon_id);
    }
    balloon->line = line;
    balloon->news = *news;
    pthread_mutex_init(&balloon->lock, NULL);
    balloon->changed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (balloon->changed_fd < 0) {
        enum loam_error error = loam_fail(diag, LOAM_ERROR_SYSTEM, "balloon %s: eventfd", line->balloon_id);

        close_balloon(balloon);
        return error;
    }
    *device = (struct device){&operations, balloon, line->balloon_id};
    return LOAM_OK;
}

/* --- Its size -------------------------------------------------------------------------------------------------------------- */

/* What a guest says is more than it has, it has not. */
uint64_t device_balloon_bytes(const struct device *device)
{
    struct balloon *balloon = device->self;
    uint64_t whole = balloon->line->memory.bytes;
    uint64_t inside = (uint64_t)atomic_load(&balloon->actual_pages) << VIRTIO_BALLOON_PAGE_SHIFT;

    return inside < whole ? whole - inside : 0;
}

void device_balloon_set(const struct device *device, uint64_t bytes)
{
    struct balloon *balloon = device->self;
    uint64_t whole = balloon->line->memory.bytes;
    uint64_t pages = bytes < whole ? (whole - bytes) >> VIRTIO_BALLOON_PAGE_SHIFT : 0;

    pthread_mutex_lock(&balloon->lock);
    balloon->target_pages = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
    if (balloon->attached != NULL) {
        virtio_balloon_set_target(balloon->attached, balloon->target_pages);
    }
    pthread_mutex_unlock(&balloon->lock);
}

/* --- Telling of it ---------------------------------------------------------------------------------------------------------- */

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

size_t device_balloon_poll(const struct device *device, struct pollfd *fd, int *timeout_milliseconds)
{
    const struct balloon *balloon = device->self;
    int64_t left = balloon->next_milliseconds - now_milliseconds();

    if (balloon->is_due && (*timeout_milliseconds < 0 || left < *timeout_milliseconds)) {
        *timeout_milliseconds = left < 0 ? 0 : (int)left;
    }
    *fd = (struct pollfd){.fd = balloon->changed_fd, .events = POLLIN};
    return 1;
}

void device_balloon_turn(const struct device *device)
{
    struct balloon *balloon = device->self;
    int64_t now = now_milliseconds();
    eventfd_t value;

    balloon->is_due = eventfd_read(balloon->changed_fd, &value) == 0 || balloon->is_due;
    if (balloon->is_due && now >= balloon->next_milliseconds) {
        balloon->is_due = false;
        balloon->next_milliseconds = now + GAP_MILLISECONDS;
        balloon->news.event(balloon->news.self, "BALLOON_CHANGE",
                            json_pack("{sI}", "actual", (json_int_t)device_balloon_bytes(device)));
    }
}
