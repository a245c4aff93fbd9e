// SPDX-License-Identifier: Apache-2.0
/*
 * is_asked hands the answer's fields to and fro: true, they are the thread's, false, the owner's. The owner learns from
 * done_fd that they are his again.
 */
#include "vmm/intake.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Linux: Documentation/admin-guide/devices.txt, /dev/null. */
#define NULL_MAJOR 1u
#define NULL_MINOR 3u

static bool await_question(struct intake *intake)
{
    bool is_leaving;

    pthread_mutex_lock(&intake->lock);
    while (!intake->is_asked && !atomic_load(&intake->leaving)) {
        pthread_cond_wait(&intake->asked, &intake->lock);
    }
    is_leaving = atomic_load(&intake->leaving);
    pthread_mutex_unlock(&intake->lock);
    return !is_leaving;
}

static void answer_questions(void *self)
{
    struct intake *intake = self;

    while (await_question(intake)) {
        do {
            intake->got = read(intake->fd, intake->bytes, sizeof intake->bytes);
            intake->error = errno;
        } while (intake->got < 0 && intake->error == EINTR && !atomic_load(&intake->leaving));
        pthread_mutex_lock(&intake->lock);
        intake->is_asked = false;
        pthread_mutex_unlock(&intake->lock);
        (void)eventfd_write(intake->done_fd, 1);
    }
}

/* A regular file has what it has, and the null device nothing. */
static bool may_wait(int fd)
{
    struct stat status;

    return fstat(fd, &status) != 0 ||
           !(S_ISREG(status.st_mode) || (S_ISCHR(status.st_mode) && status.st_rdev == makedev(NULL_MAJOR, NULL_MINOR)));
}

enum loam_error intake_open(struct intake *intake, int fd, struct loam_diag *diag)
{
    *intake = (struct intake){.fd = fd, .may_wait = may_wait(fd)};
    intake->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (intake->done_fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "input: eventfd");
    }
    pthread_mutex_init(&intake->lock, NULL);
    pthread_cond_init(&intake->asked, NULL);
    return LOAM_OK;
}

void intake_close(struct intake *intake)
{
    pthread_mutex_lock(&intake->lock);
    atomic_store(&intake->leaving, true);
    pthread_cond_signal(&intake->asked);
    pthread_mutex_unlock(&intake->lock);
    if (intake->has_thread && !kick_end(&intake->thread)) {
        return; /* its read does not end: what it uses stays */
    }
    intake->has_thread = false;
    close(intake->done_fd);
    pthread_cond_destroy(&intake->asked);
    pthread_mutex_destroy(&intake->lock);
}

int intake_poll_fd(const struct intake *intake)
{
    return intake->is_reading ? intake->done_fd : intake->fd;
}

static ssize_t ask(struct intake *intake)
{
    if (!intake->has_thread) {
        if (kick_start(&intake->thread, answer_questions, intake, "input", NULL) != LOAM_OK) {
            errno = ENOMEM; /* and not EAGAIN, as pthread_create has it: asking again would not help */
            return -1;
        }
        intake->has_thread = true;
    }
    pthread_mutex_lock(&intake->lock);
    intake->is_asked = true;
    pthread_cond_signal(&intake->asked);
    pthread_mutex_unlock(&intake->lock);
    intake->is_reading = true;
    errno = EAGAIN;
    return -1;
}

ssize_t intake_take(struct intake *intake, uint8_t bytes[INTAKE_BYTES])
{
    eventfd_t count;

    if (!intake->may_wait) {
        return read(intake->fd, bytes, INTAKE_BYTES);
    }
    if (!intake->is_reading) {
        return ask(intake);
    }
    if (eventfd_read(intake->done_fd, &count) != 0) {
        return -1;
    }
    intake->is_reading = false;
    if (intake->got > 0) {
        memcpy(bytes, intake->bytes, (size_t)intake->got);
    }
    errno = intake->error;
    return intake->got;
}
