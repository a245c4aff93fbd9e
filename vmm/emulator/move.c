// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/move.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES    UINT64_C(4096)
#define PENDING_PIECE (UINT64_C(1) << 20)

static const char *const status_names[MOVE_STATUS_COUNT] = {
    [MOVE_NONE] = "none",           [MOVE_ACTIVE] = "active",       [MOVE_PRE_SWITCHOVER] = "pre-switchover",
    [MOVE_DEVICE] = "device",       [MOVE_COMPLETED] = "completed", [MOVE_FAILED] = "failed",
    [MOVE_CANCELLED] = "cancelled",
};

const char *move_status_name(enum move_status status)
{
    return status_names[status];
}

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- The thread ----------------------------------------------------------------------------------------------------- */

static struct transfer transfer_of(struct move *move)
{
    return (struct transfer){.fd = move->fd, .must_end = &move->must_end, .progress = &move->progress};
}

static void done(struct move *move, enum loam_error error)
{
    move->error = error;
    (void)eventfd_write(move->done_fd, 1);
}

static enum loam_error add_pending(void *self, uint64_t gpa, uint64_t bytes, struct loam_diag *diag)
{
    const struct move *move = self;

    (void)diag;
    (void)loam_dirty_mark(move->pending, loam_gpa_from_u64(gpa), bytes);
    return LOAM_OK;
}

/* What was written is pending. */
static enum loam_error gather(struct move *move)
{
    uint64_t page_count;

    return machine_log_harvest(move->source.machine, add_pending, move, &page_count, &move->diag);
}

static enum loam_error send_pending(struct move *move, const struct transfer *transfer)
{
    enum loam_error error = LOAM_OK;
    loam_gpa at = {0}, start;
    uint64_t bytes;

    atomic_fetch_add(&move->round_count, 1);
    for (; error == LOAM_OK && loam_dirty_take(move->pending, at, PENDING_PIECE, &start, &bytes) == LOAM_OK;
         at.value = start.value + bytes) {
        error = transfer_send_pages(transfer, move->source.memory, start.value, bytes, &move->diag);
    }
    return error;
}

/* Whether what is pending would be sent in the time for which the guest may stand, as fast as all before was. */
static bool is_little(const struct move *move)
{
    const uint64_t moved = atomic_load(&move->progress.moved_bytes) + PAGE_BYTES;
    const int64_t elapsed = now_milliseconds() - move->begun_milliseconds + 1;

    return loam_dirty_count(move->pending) * PAGE_BYTES <= moved / (uint64_t)elapsed * move->downtime_milliseconds;
}

static enum loam_error send_rounds(struct move *move, const struct transfer *transfer)
{
    enum loam_error error = machine_log_start(move->source.machine, &move->diag);

    if (error == LOAM_OK) {
        error = transfer_send_memory(transfer, move->source.memory, &move->diag);
    }
    for (uint32_t round = 0; error == LOAM_OK; round++) {
        error = gather(move);
        if (error != LOAM_OK || is_little(move)) {
            return error;
        }
        if (round == MOVE_ROUND_MAX) {
            return loam_fail(
                &move->diag, LOAM_ERROR_EXHAUSTED,
                "the guest writes %llu MiB of memory in the time that it takes to send as much: suspend it, "
                "or let it stand longer than %u ms (virsh migrate-setmaxdowntime)",
                (unsigned long long)(loam_dirty_count(move->pending) * PAGE_BYTES >> 20), move->downtime_milliseconds);
        }
        error = send_pending(move, transfer);
    }
    return error;
}

static void send_memory(void *self)
{
    struct move *move = self;
    const struct transfer transfer = transfer_of(move);
    enum loam_error error = transfer_send_plan(&transfer, &move->source, &move->diag);

    if (error == LOAM_OK) {
        error = move->is_live ? send_rounds(move, &transfer)
                              : transfer_send_memory(&transfer, move->source.memory, &move->diag);
    }
    done(move, error);
}

static void send_rest(void *self)
{
    struct move *move = self;
    const struct transfer transfer = transfer_of(move);
    enum loam_error error = move->is_live ? gather(move) : LOAM_OK;

    if (error == LOAM_OK && move->is_live) {
        error = send_pending(move, &transfer);
    }
    done(move, error);
}

static void send_state(void *self)
{
    struct move *move = self;
    const struct transfer transfer = transfer_of(move);

    enum loam_error error = transfer_send_state(&transfer, &move->source, &move->diag);

    if (error == LOAM_OK && move->awaits_word) {
        error = transfer_await_word(&transfer, &move->diag);
    }
    done(move, error);
}

static void forget_path(struct move *move)
{
    if (move->path[0] != '\0') {
        (void)unlink(move->path);
        move->path[0] = '\0';
    }
}

/* Whoever connects first is the sender; there is one. */
static enum loam_error await_sender(struct move *move)
{
    struct pollfd waiting = {.fd = move->fd, .events = POLLIN};
    int fd = -1;

    while (fd < 0 && !atomic_load(&move->must_end)) {
        if (poll(&waiting, 1, -1) > 0) {
            fd = accept4(move->fd, NULL, NULL, SOCK_CLOEXEC);
        }
        if (fd < 0 && errno != EINTR && errno != EAGAIN) {
            return loam_fail(&move->diag, LOAM_ERROR_SYSTEM, "migrate-incoming: accept");
        }
    }
    if (fd < 0) {
        return loam_fail(&move->diag, LOAM_ERROR_CANCELLED, "migrate-incoming: it was called off");
    }
    close(move->fd);
    move->fd = fd;
    forget_path(move);
    return LOAM_OK;
}

static void receive(void *self)
{
    struct move *move = self;
    enum loam_error error = move->is_listening ? await_sender(move) : LOAM_OK;
    struct transfer transfer = transfer_of(move);

    if (error == LOAM_OK) {
        error = transfer_receive(&transfer, move->memory, &move->received, &move->diag);
    }
    done(move, error);
}

static enum loam_error begin(struct move *move, void (*work)(void *self), enum move_news step, struct loam_diag *diag)
{
    enum loam_error error;

    move->step = step;
    move->diag = (struct loam_diag){.text = ""};
    error = kick_start(&move->thread, work, move, "migration", diag);
    move->has_thread = error == LOAM_OK;
    return error;
}

/* --- Where it comes from ----------------------------------------------------------------------------------------------- */

static enum loam_error no_uri(const char *uri, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_INVALID, "migrate-incoming %s: fd:NUMBER, unix:PATH or tcp:HOST:PORT wanted",
                     uri);
}

static enum loam_error listen_at(struct move *move, int family, const struct sockaddr *address, socklen_t bytes,
                                 const char *uri, struct loam_diag *diag)
{
    int yes = 1;

    move->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (family != AF_UNIX) {
        (void)setsockopt(move->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    }
    if (move->fd < 0 || bind(move->fd, address, bytes) < 0 || listen(move->fd, 1) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "migrate-incoming %s: cannot listen there", uri);
    }
    move->is_listening = true;
    return LOAM_OK;
}

static enum loam_error listen_at_path(struct move *move, const char *path, const char *uri, struct loam_diag *diag)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (path[0] == '\0' || strlen(path) >= sizeof address.sun_path) {
        return no_uri(uri, diag);
    }
    memcpy(address.sun_path, path, strlen(path));
    (void)unlink(path); /* stale; who names it means it to be made anew */
    snprintf(move->path, sizeof move->path, "%s", path);
    return listen_at(move, AF_UNIX, (const struct sockaddr *)&address, sizeof address, uri, diag);
}

/* HOST:PORT, [HOST]:PORT. */
static bool split_host(const char *text, char host[NI_MAXHOST], char port[NI_MAXSERV])
{
    const char *colon = strrchr(text, ':');
    size_t length = colon != NULL ? (size_t)(colon - text) : 0;

    if (colon == NULL || strlen(colon + 1) >= NI_MAXSERV || length >= NI_MAXHOST) {
        return false;
    }
    snprintf(port, NI_MAXSERV, "%s", colon + 1);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    }
    memcpy(host, text, length);
    host[length] = '\0';
    return true;
}

static enum loam_error listen_at_port(struct move *move, const char *text, const char *uri, struct loam_diag *diag)
{
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    char host[NI_MAXHOST], port[NI_MAXSERV];
    struct addrinfo *found = NULL;
    enum loam_error error;

    if (!split_host(text, host, port) || getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &found) != 0) {
        return no_uri(uri, diag);
    }
    error = listen_at(move, found->ai_family, found->ai_addr, found->ai_addrlen, uri, diag);
    freeaddrinfo(found);
    return error;
}

static enum loam_error take_inherited(struct move *move, const char *text, const char *uri, struct loam_diag *diag)
{
    char *end;
    long number = strtol(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || number > INT_MAX || fcntl((int)number, F_GETFD) < 0) {
        return no_uri(uri, diag);
    }
    move->fd = (int)number;
    return LOAM_OK;
}

static enum loam_error open_uri(struct move *move, const char *uri, struct loam_diag *diag)
{
    if (strncmp(uri, "fd:", 3) == 0) {
        return take_inherited(move, uri + 3, uri, diag);
    }
    if (strncmp(uri, "unix:", 5) == 0) {
        return listen_at_path(move, uri + 5, uri, diag);
    }
    return strncmp(uri, "tcp:", 4) == 0 ? listen_at_port(move, uri + 4, uri, diag) : no_uri(uri, diag);
}

/* --- Public ------------------------------------------------------------------------------------------------------- */

enum loam_error move_init(struct move *move, struct loam_diag *diag)
{
    *move = (struct move){.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fd = -1};
    return move->done_fd >= 0 ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "eventfd");
}

static void close_stream(struct move *move)
{
    if (move->fd >= 0) {
        close(move->fd);
        move->fd = -1;
    }
    forget_path(move);
    move->is_listening = false;
}

/* Nothing is sent any more, to whatever end it came. */
static void stop_log(struct move *move)
{
    if (move->is_live) {
        machine_log_stop(move->source.machine);
        move->is_live = false;
    }
}

void move_abort(struct move *move)
{
    eventfd_t value;

    if (move->has_thread) {
        atomic_store(&move->must_end, true);
        (void)kick_end(&move->thread);
        move->has_thread = false;
    }
    (void)eventfd_read(move->done_fd, &value);
    close_stream(move);
    stop_log(move);
}

void move_end(struct move *move)
{
    if (move->done_fd < 0) {
        return;
    }
    move_abort(move);
    free(move->pending_memory);
    move->pending_memory = NULL;
    transfer_state_release(&move->received);
    close(move->done_fd);
    move->done_fd = -1;
}

bool move_is_idle(const struct move *move)
{
    return move->status != MOVE_ACTIVE && move->status != MOVE_PRE_SWITCHOVER && move->status != MOVE_DEVICE;
}

static void reset(struct move *move)
{
    atomic_store(&move->must_end, false);
    atomic_store(&move->progress.total_bytes, 0);
    atomic_store(&move->progress.looked_bytes, 0);
    atomic_store(&move->progress.moved_bytes, 0);
    atomic_store(&move->round_count, 0);
    move->begun_milliseconds = now_milliseconds();
    move->stood_milliseconds = move->ended_milliseconds = 0;
}

static enum loam_error make_pending(struct move *move, struct loam_diag *diag)
{
    const struct loam_plan *plan = loam_memory_plan(move->source.memory);
    const struct loam_plan_part *last = &plan->parts[plan->part_count - 1];
    const struct loam_dirty_config config = {.bytes = last->start.value + last->bytes};
    const size_t bytes = loam_dirty_bytes(&config);

    free(move->pending_memory);
    move->pending_memory = calloc(1, bytes);
    return move->pending_memory != NULL &&
                   loam_dirty_init(move->pending_memory, bytes, &config, &move->pending) == LOAM_OK
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "migrate: no memory");
}

/* A move that cannot go on leaves nothing open. */
static enum loam_error begin_next(struct move *move, void (*work)(void *self), enum move_news news,
                                  struct loam_diag *diag)
{
    enum loam_error error = begin(move, work, news, diag);

    if (error != LOAM_OK) {
        close_stream(move);
        stop_log(move);
    }
    return error;
}

enum loam_error move_send_rest(struct move *move, struct loam_diag *diag)
{
    return begin_next(move, send_rest, MOVE_NEWS_REST_SENT, diag);
}

enum loam_error move_send(struct move *move, int fd, const struct snapshot_source *source, bool is_live,
                          uint32_t downtime_milliseconds, struct loam_diag *diag)
{
    enum loam_error error;

    reset(move);
    move->is_live = is_live;
    move->downtime_milliseconds = downtime_milliseconds;
    move->fd = fd;
    move->source = *source;
    move->source.must_end = &move->must_end;
    /* A pipe or socket may have come as one that does not block: its thread waits. */
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    error = make_pending(move, diag);
    if (error == LOAM_OK) {
        error = begin(move, send_memory, MOVE_NEWS_MEMORY_SENT, diag);
    }
    if (error != LOAM_OK) {
        move->is_live = false;
        close_stream(move);
    }
    return error;
}

enum loam_error move_finish(struct move *move, bool awaits_word, struct loam_diag *diag)
{
    move->awaits_word = awaits_word;
    return begin_next(move, send_state, MOVE_NEWS_SENT, diag);
}

enum loam_error move_receive(struct move *move, const char *uri, struct loam_memory *memory, struct loam_diag *diag)
{
    enum loam_error error;

    reset(move);
    move->memory = memory;
    error = open_uri(move, uri, diag);
    if (error == LOAM_OK) {
        error = begin(move, receive, MOVE_NEWS_RECEIVED, diag);
    }
    if (error != LOAM_OK) {
        close_stream(move);
    }
    return error;
}

enum loam_error move_give_word(struct move *move, struct loam_diag *diag)
{
    const struct transfer transfer = transfer_of(move);

    return transfer_give_word(&transfer, diag);
}

struct state_reader *move_received(struct move *move)
{
    return &move->received.reader;
}

void move_cancel(struct move *move)
{
    if (move->has_thread) {
        atomic_store(&move->must_end, true);
        kick_send(&move->thread);
    } else {
        close_stream(move);
        stop_log(move);
    }
}

int move_fd(const struct move *move)
{
    return move->done_fd;
}

enum move_news move_turn(struct move *move, struct loam_diag *diag)
{
    enum move_news news = MOVE_NEWS_NONE;
    eventfd_t value;

    /* A kick that came between the thread's look at must_end and its call is sent again. */
    if (move->has_thread && atomic_load(&move->must_end)) {
        kick_send(&move->thread);
    }
    if (eventfd_read(move->done_fd, &value) != 0 || !move->has_thread) {
        return news;
    }
    kick_join(&move->thread);
    move->has_thread = false;
    news = move->error == LOAM_OK ? move->step : MOVE_NEWS_FAILED;
    *diag = move->diag;
    if (news == MOVE_NEWS_FAILED || news == MOVE_NEWS_SENT) {
        close_stream(move);
        stop_log(move);
    }
    if (news != MOVE_NEWS_MEMORY_SENT && news != MOVE_NEWS_REST_SENT) {
        move->ended_milliseconds = now_milliseconds();
    }
    return news;
}

json_t *move_json(const struct move *move, const char *error)
{
    const int64_t end = move->ended_milliseconds != 0 ? move->ended_milliseconds : now_milliseconds();
    const uint64_t total = atomic_load(&move->progress.total_bytes), moved = atomic_load(&move->progress.moved_bytes);
    const uint64_t looked = atomic_load(&move->progress.looked_bytes);
    const uint64_t remaining = move_is_idle(move) || looked > total ? 0 : total - looked;
    json_t *answer;

    if (move->status == MOVE_NONE) {
        return json_object();
    }
    answer = json_pack("{sssIsIsI}", "status", move_status_name(move->status), "total-time",
                       (json_int_t)(end - move->begun_milliseconds), "downtime",
                       (json_int_t)(move->stood_milliseconds != 0 ? end - move->stood_milliseconds : 0), "setup-time",
                       (json_int_t)0);
    json_object_set_new(
        answer, "ram",
        json_pack(
            "{sIsIsIsIsIsIsIsIsfsIsI}", "total", (json_int_t)total, "transferred", (json_int_t)moved, "remaining",
            (json_int_t)remaining, "duplicate", (json_int_t)0, "skipped", (json_int_t)0, "normal",
            (json_int_t)(moved / 4096), "normal-bytes", (json_int_t)moved, "dirty-pages-rate", (json_int_t)0, "mbps",
            end > move->begun_milliseconds ? (double)moved * 8 / 1000 / (double)(end - move->begun_milliseconds) : 0.0,
            "dirty-sync-count", (json_int_t)atomic_load(&move->round_count), "page-size", (json_int_t)4096));
    if (error != NULL && error[0] != '\0') {
        json_object_set_new(answer, "error-desc", json_string(error));
    }
    return answer;
}
