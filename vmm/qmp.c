// SPDX-License-Identifier: Apache-2.0
/*
 * The lock guards what qmp_event shares with the owner: which clients there are, which of them are ready, what goes out to
 * them and whether they have missed any of it. The owner alone changes the first two, and reads them without it.
 *
 * One epoll descriptor watches all: a slot for each client, one for each listener, an eventfd by which qmp_event wakes the
 * owner, and a timer by which listeners come back that were left alone because no descriptor was to be had.
 */
#include "vmm/qmp.h"

#include "vmm/qmp_client.h"
#include "vmm/qmp_line.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define LINE_END          "\r\n"
#define AGAIN_NANOSECONDS 100000000L /* until a connection is tried again that there was no descriptor for */

/* What epoll says has something to do: a client's slot, and behind those, a listener's. */
enum { AT_LISTENERS = QMP_CLIENT_MAX, AT_EVENT = AT_LISTENERS + QMP_LISTENER_MAX, AT_TIMER, AT_COUNT };

struct slot {
    struct qmp_client client;
    bool is_ready; /* has said qmp_capabilities */
    bool is_gone;  /* has hung up, or is to be hung up on: the owner's alone */
    bool is_lost;  /* has missed something that could not be kept for it */
    uint32_t watched;
};

struct qmp {
    struct qmp_config config;
    int epoll_fd, event_fd, timer_fd;
    int listeners[QMP_LISTENER_MAX];
    size_t listener_count;
    pthread_mutex_t lock;
    struct slot *slots[QMP_CLIENT_MAX]; /* NULL: free */
    size_t client_count;
};

static int watch(const struct qmp *qmp, int operation, int fd, uint32_t events, uint32_t at)
{
    struct epoll_event event = {.events = events, .data = {.u32 = at}};

    return epoll_ctl(qmp->epoll_fd, operation, fd, &event);
}

/* --- Clients ------------------------------------------------------------------------------------------------------- */

/* The lock is held. */
static void say(struct slot *slot, const char *line)
{
    if (line == NULL || !qmp_client_say(&slot->client, line, strlen(line)) ||
        !qmp_client_say(&slot->client, LINE_END, sizeof LINE_END - 1)) {
        slot->is_lost = true;
    }
}

/* With the reply to qmp_capabilities, not before it, come events. */
static void reply(struct qmp *qmp, struct slot *slot, char *line, bool is_ready)
{
    pthread_mutex_lock(&qmp->lock);
    say(slot, line);
    slot->is_ready = is_ready;
    slot->is_gone |= slot->is_lost;
    pthread_mutex_unlock(&qmp->lock);
    free(line);
}

/* Returns whether it is JSON. */
static bool carry_out(struct qmp *qmp, struct slot *slot)
{
    struct qmp_session session = {
        .commands = qmp->config.commands,
        .command_count = qmp->config.command_count,
        .self = qmp->config.self,
        .is_ready = slot->is_ready,
        .descriptors = &slot->client.descriptors,
    };
    bool is_json;
    char *line = qmp_call_text(&session, slot->client.split.text, slot->client.split.bytes, &is_json);

    reply(qmp, slot, line, session.is_ready);
    return is_json;
}

/* What was found is no text. */
static void refuse(struct qmp *qmp, struct slot *slot, enum qmp_split_found found)
{
    char text[128];

    switch (found) {
    case QMP_SPLIT_LONG:
        snprintf(text, sizeof text, "JSON parse error, longer than %u bytes", QMP_LINE_BYTES_MAX);
        break;
    case QMP_SPLIT_DEEP:
        snprintf(text, sizeof text, "JSON parse error, nested deeper than %u levels", QMP_DEPTH_MAX);
        break;
    case QMP_SPLIT_MANY:
        snprintf(text, sizeof text, "JSON parse error, more than %u brackets, commas and colons", QMP_TOKEN_MAX);
        break;
    default:
        snprintf(text, sizeof text, "JSON parse error, no memory is left to keep it");
        break;
    }
    reply(qmp, slot, qmp_line_error(QMP_GENERIC_ERROR, text, NULL), slot->is_ready);
}

static void serve(struct qmp *qmp, struct slot *slot)
{
    enum qmp_split_found found;

    slot->is_gone |= !qmp_client_receive(&slot->client);
    while (!slot->is_gone && (found = qmp_client_next(&slot->client)) != QMP_SPLIT_NOTHING) {
        bool is_json = found == QMP_SPLIT_TEXT && carry_out(qmp, slot);

        if (found != QMP_SPLIT_TEXT) {
            refuse(qmp, slot, found);
        }
        qmp_client_done(&slot->client, !is_json);
    }
}

static void end_client(struct qmp *qmp, uint32_t at)
{
    struct slot *slot = qmp->slots[at];

    pthread_mutex_lock(&qmp->lock);
    qmp->slots[at] = NULL;
    qmp->client_count--;
    pthread_mutex_unlock(&qmp->lock);
    (void)watch(qmp, EPOLL_CTL_DEL, slot->client.fd, 0, at); /* another process may hold the socket as well */
    qmp_client_end(&slot->client);
    free(slot);
}

/* Send what waits, and watch for what is to come. Returns whether the client stays. */
static bool settle(struct qmp *qmp, uint32_t at)
{
    struct slot *slot = qmp->slots[at];
    uint32_t wanted;
    bool stays;

    pthread_mutex_lock(&qmp->lock);
    stays = !slot->is_lost && qmp_client_flush(&slot->client) && !slot->is_gone;
    wanted = EPOLLIN | (slot->client.waiting_bytes > 0 ? (uint32_t)EPOLLOUT : 0);
    pthread_mutex_unlock(&qmp->lock);
    if (stays && wanted != slot->watched) {
        stays = watch(qmp, EPOLL_CTL_MOD, slot->client.fd, wanted, at) == 0;
        slot->watched = wanted;
    }
    return stays;
}

static void settle_all(struct qmp *qmp)
{
    for (uint32_t at = 0; at < QMP_CLIENT_MAX; at++) {
        if (qmp->slots[at] != NULL && !settle(qmp, at)) {
            end_client(qmp, at);
            if (qmp->config.hung_up != NULL) {
                qmp->config.hung_up(qmp->config.self, qmp->client_count);
            }
        }
    }
}

/* A slot with a greeting that waits; fd is its own. NULL: no memory, and fd is open. */
static struct slot *make_slot(const struct qmp_config *config, int fd)
{
    struct slot *slot = calloc(1, sizeof *slot);
    char *line;

    if (slot == NULL) {
        return NULL;
    }
    qmp_client_init(&slot->client, fd);
    line = qmp_line_greeting(config->major, config->minor, config->micro, config->package);
    say(slot, line);
    free(line);
    slot->watched = EPOLLIN | EPOLLOUT;
    return slot;
}

/* On failure fd is left open. */
static enum loam_error add_client(struct qmp *qmp, int fd, struct loam_diag *diag)
{
    struct slot *slot;
    uint32_t at = 0;

    while (at < QMP_CLIENT_MAX && qmp->slots[at] != NULL) {
        at++;
    }
    if (at == QMP_CLIENT_MAX) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "qmp: %u clients are served already: let one hang up",
                         QMP_CLIENT_MAX);
    }
    if (watch(qmp, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT, at) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "qmp: descriptor %d cannot be watched", fd);
    }
    slot = make_slot(&qmp->config, fd);
    if (slot == NULL) {
        (void)loam_fail(diag, LOAM_ERROR_SYSTEM, "qmp: %zu bytes for a client", sizeof *slot);
        (void)watch(qmp, EPOLL_CTL_DEL, fd, 0, at);
        return LOAM_ERROR_SYSTEM;
    }
    pthread_mutex_lock(&qmp->lock);
    qmp->slots[at] = slot;
    qmp->client_count++;
    pthread_mutex_unlock(&qmp->lock);
    return LOAM_OK;
}

/* --- Listeners ----------------------------------------------------------------------------------------------------- */

/* Nobody asks them while there is no descriptor for who connects: epoll would say so again at once, and for ever. */
static void rest(struct qmp *qmp, bool rests)
{
    const struct itimerspec again = {.it_value = {.tv_nsec = rests ? AGAIN_NANOSECONDS : 0}};

    for (uint32_t i = 0; i < qmp->listener_count; i++) {
        (void)watch(qmp, EPOLL_CTL_MOD, qmp->listeners[i], rests ? 0 : (uint32_t)EPOLLIN, AT_LISTENERS + i);
    }
    (void)timerfd_settime(qmp->timer_fd, 0, &again, NULL);
}

/* One connection a turn. A listener that was shut down by another who holds it would say so for ever, and is left alone. */
static void take_connection(struct qmp *qmp, uint32_t listener, bool has_ended)
{
    int fd = accept4(qmp->listeners[listener], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0) {
        if (add_client(qmp, fd, NULL) != LOAM_OK) {
            close(fd);
        }
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        rest(qmp, true);
    } else if (has_ended) {
        (void)watch(qmp, EPOLL_CTL_DEL, qmp->listeners[listener], 0, 0);
    }
}

static enum loam_error add_listener(struct qmp *qmp, int fd, struct loam_diag *diag)
{
    int listens = 0, flags = fcntl(fd, F_GETFL);
    socklen_t bytes = sizeof listens;

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || listens == 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "qmp: descriptor %d is no listening socket: give one that is", fd);
    }
    if (qmp->listener_count == QMP_LISTENER_MAX) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "qmp: %u sockets are listened at already: name no more",
                         QMP_LISTENER_MAX);
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        watch(qmp, EPOLL_CTL_ADD, fd, EPOLLIN, AT_LISTENERS + (uint32_t)qmp->listener_count) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "qmp: the listening socket at descriptor %d", fd);
    }
    qmp->listeners[qmp->listener_count++] = fd;
    return LOAM_OK;
}

/* --- Public -------------------------------------------------------------------------------------------------------- */

/* Until the first that fails, whose errno is told. */
static bool open_descriptors(struct qmp *qmp)
{
    return (qmp->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) >= 0 &&
           (qmp->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0 &&
           (qmp->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) >= 0 &&
           watch(qmp, EPOLL_CTL_ADD, qmp->event_fd, EPOLLIN, AT_EVENT) == 0 &&
           watch(qmp, EPOLL_CTL_ADD, qmp->timer_fd, EPOLLIN, AT_TIMER) == 0;
}

enum loam_error qmp_create(const struct qmp_config *config, struct qmp **qmp, struct loam_diag *diag)
{
    struct qmp *made = calloc(1, sizeof *made);

    *qmp = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "qmp: %zu bytes of memory", sizeof *made);
    }
    *made = (struct qmp){
        .config = *config, .epoll_fd = -1, .event_fd = -1, .timer_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};
    if (!open_descriptors(made)) {
        (void)loam_fail(diag, LOAM_ERROR_SYSTEM, "qmp: descriptors to wait at");
        qmp_destroy(made);
        return LOAM_ERROR_SYSTEM;
    }
    *qmp = made;
    return LOAM_OK;
}

static void close_one(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void qmp_destroy(struct qmp *qmp)
{
    if (qmp == NULL) {
        return;
    }
    for (uint32_t at = 0; at < QMP_CLIENT_MAX; at++) {
        if (qmp->slots[at] != NULL) {
            (void)settle(qmp, at);
            end_client(qmp, at);
        }
    }
    for (size_t i = 0; i < qmp->listener_count; i++) {
        close(qmp->listeners[i]);
    }
    close_one(qmp->timer_fd);
    close_one(qmp->event_fd);
    close_one(qmp->epoll_fd);
    pthread_mutex_destroy(&qmp->lock);
    free(qmp);
}

enum loam_error qmp_listen(struct qmp *qmp, int fd, struct loam_diag *diag)
{
    enum loam_error error = add_listener(qmp, fd, diag);

    if (error != LOAM_OK) {
        close(fd);
    }
    return error;
}

enum loam_error qmp_serve(struct qmp *qmp, int fd, struct loam_diag *diag)
{
    enum loam_error error = add_client(qmp, fd, diag);

    if (error != LOAM_OK) {
        close(fd);
    } else {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return error;
}

int qmp_fd(const struct qmp *qmp)
{
    return qmp->epoll_fd;
}

static void look_at(struct qmp *qmp, uint32_t at)
{
    eventfd_t count;
    uint64_t expired;

    if (at < QMP_CLIENT_MAX) {
        serve(qmp, qmp->slots[at]);
    } else if (at == AT_EVENT) {
        (void)eventfd_read(qmp->event_fd, &count);
    } else if (at == AT_TIMER) {
        (void)!read(qmp->timer_fd, &expired, sizeof expired);
        rest(qmp, false);
    }
}

/* Clients before listeners: one that hangs up makes room for one that comes. */
void qmp_turn(struct qmp *qmp)
{
    struct epoll_event events[AT_COUNT];
    int count = epoll_wait(qmp->epoll_fd, events, AT_COUNT, 0);

    for (int i = 0; i < count; i++) {
        look_at(qmp, events[i].data.u32);
    }
    settle_all(qmp);
    for (int i = 0; i < count; i++) {
        uint32_t at = events[i].data.u32;

        if (at >= AT_LISTENERS && at < AT_EVENT) {
            take_connection(qmp, at - AT_LISTENERS, (events[i].events & (EPOLLHUP | EPOLLERR)) != 0);
        }
    }
}

void qmp_event(struct qmp *qmp, const char *name, json_t *data)
{
    char *line = qmp_line_event(name, data);

    pthread_mutex_lock(&qmp->lock);
    for (uint32_t at = 0; at < QMP_CLIENT_MAX; at++) {
        if (qmp->slots[at] != NULL && qmp->slots[at]->is_ready) {
            say(qmp->slots[at], line);
        }
    }
    pthread_mutex_unlock(&qmp->lock);
    free(line);
    (void)eventfd_write(qmp->event_fd, 1);
}
