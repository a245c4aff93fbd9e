// SPDX-License-Identifier: Apache-2.0
/*
 * Files and standard output are outlets. For terminals and sockets, what waits lies in a ring that grows by whole halves of
 * itself: the owner's thread writes it, a little after its first byte, so that a guest that prints byte by byte costs one
 * write for many.
 *
 * fd is the owner's alone: -1 while no client is there; a terminal's stays, and has_reader says whether anybody has opened
 * it. Under lock: the ring, and all that depends on it.
 */
#include "vmm/emulator/chardev.h"

#include "vmm/intake.h"
#include "vmm/outlet.h"
#include "vmm/standard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_BYTES         4096u /* as many are written at once */
#define GATHER_MILLISECONDS 2     /* how long the first byte of few waits for more */
#define RETRY_MILLISECONDS  5     /* until the guest's receiver is asked again whether it has room */
#define LOOK_MILLISECONDS   250   /* until a terminal is looked at whose opening nobody tells of */
#define WRITE_COUNT_MAX     16u   /* writes of one turn: a reader that is faster than the guest holds up nobody */

struct ring {
    uint8_t *at;
    size_t room, first, count;
};

struct chardev {
    const struct line_chardev *line;
    char filename[PATH_MAX + 32];
    int fd;        /* terminal's master, or client; -1 */
    int listen_fd; /* -1 */
    int opened_fd; /* an inotify of the terminal's openings; -1 */
    bool has_outlet, has_log, has_intake;
    struct outlet outlet, log;
    int outlet_fd, log_fd; /* -1 */
    struct intake intake;
    uint8_t input[INTAKE_BYTES];
    size_t input_taken, input_count;
    bool is_left_behind; /* input of a terminal that nobody has open any more */
    int news_fd;         /* readable when there is something to write */
    int room_fd;         /* readable while is_roomy */
    int64_t due_milliseconds;
    pthread_mutex_t lock;
    struct ring ring;
    uint64_t written_bytes;
    bool has_reader;
    bool is_stalled;
    bool is_roomy;
};

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- The ring, under lock ---------------------------------------------------------------------------------------- */

static bool is_read(const struct chardev *chardev)
{
    return chardev->has_reader && !chardev->is_stalled;
}

/* Each change of the ring or of who reads ends here. */
static void show_room(struct chardev *chardev)
{
    bool is_roomy = chardev->ring.count <= CHARDEV_HIGH_BYTES || !is_read(chardev);
    eventfd_t value;

    if (is_roomy != chardev->is_roomy) {
        chardev->is_roomy = is_roomy;
        (void)!(is_roomy ? eventfd_write(chardev->room_fd, 1) : eventfd_read(chardev->room_fd, &value));
    }
}

static void drop_first(struct ring *ring, size_t count)
{
    ring->first = ring->room == 0 ? 0 : (ring->first + count) % ring->room;
    ring->count -= count;
}

/* Only the latest is kept of what nobody reads. */
static void trim(struct chardev *chardev)
{
    if (!is_read(chardev) && chardev->ring.count > CHARDEV_HIGH_BYTES) {
        drop_first(&chardev->ring, chardev->ring.count - CHARDEV_HIGH_BYTES);
    }
}

static void make_room(struct ring *ring, size_t count)
{
    size_t room = ring->room == 0 ? FLUSH_BYTES : ring->room, tail = ring->room - ring->first;
    uint8_t *at;

    while (room - ring->count < count) {
        room *= 2;
    }
    at = room == ring->room ? NULL : malloc(room);
    if (at != NULL) {
        if (ring->count > 0) {
            memcpy(at, ring->at + ring->first, ring->count < tail ? ring->count : tail);
            memcpy(at + tail, ring->at, ring->count < tail ? 0 : ring->count - tail);
        }
        free(ring->at);
        *ring = (struct ring){.at = at, .room = room, .count = ring->count};
    }
}

/* Without memory for them, the oldest go. */
static void add(struct ring *ring, const uint8_t *bytes, size_t count)
{
    make_room(ring, count);
    if (count > ring->room) {
        bytes += count - ring->room;
        count = ring->room;
    }
    if (count > ring->room - ring->count) {
        drop_first(ring, count - (ring->room - ring->count));
    }
    for (size_t i = 0; i < count; i++) {
        ring->at[(ring->first + ring->count + i) % ring->room] = bytes[i];
    }
    ring->count += count;
}

static void set_reader(struct chardev *chardev, bool has_reader)
{
    pthread_mutex_lock(&chardev->lock);
    if (has_reader != chardev->has_reader) {
        chardev->has_reader = has_reader;
        chardev->is_stalled = false;
        trim(chardev);
        show_room(chardev);
    }
    pthread_mutex_unlock(&chardev->lock);
}

/* --- Opening ----------------------------------------------------------------------------------------------------- */

static enum loam_error bind_socket(const struct line_chardev *line, int fd, struct loam_diag *diag)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(line->path);
    struct stat status;

    if (length >= sizeof address.sun_path) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "chardev %s: path=%s has %zu characters, and a socket's path has at most %zu: shorten it",
                         line->id, line->path, length, sizeof address.sun_path - 1);
    }
    memcpy(address.sun_path, line->path, length);
    /* Left behind by a process that was killed; no other kind of file is touched. */
    if (lstat(line->path, &status) == 0 && S_ISSOCK(status.st_mode)) {
        (void)unlink(line->path);
    }
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: path=%s: bind", line->id, line->path);
    }
    return listen(fd, 1) == 0 ? LOAM_OK
                              : loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: path=%s: listen", line->id, line->path);
}

static enum loam_error check_listening(const struct line_chardev *line, struct loam_diag *diag)
{
    int is_listening = 0;
    socklen_t length = sizeof is_listening;

    if (getsockopt(line->fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &length) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: fd=%d", line->id, line->fd);
    }
    if (is_listening == 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "chardev %s: fd=%d is a socket that does not listen: hand on one that does, for server=on",
                         line->id, line->fd);
    }
    return LOAM_OK;
}

enum loam_error chardev_listen(const struct line_chardev *line, int *fd, struct loam_diag *diag)
{
    enum loam_error error;

    *fd = line->path == NULL ? line->fd : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: socket", line->id);
    }
    error = line->path == NULL ? check_listening(line, diag) : bind_socket(line, *fd, diag);
    if (error == LOAM_OK &&
        (fcntl(*fd, F_SETFL, fcntl(*fd, F_GETFL) | O_NONBLOCK) < 0 || fcntl(*fd, F_SETFD, FD_CLOEXEC) < 0)) {
        error = loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: fcntl", line->id);
    }
    if (error != LOAM_OK) {
        close(*fd);
        *fd = -1;
    }
    return error;
}

/* The name is asked of the kernel; that somebody opens the terminal too, or else it is looked at now and then. */
static enum loam_error open_terminal(struct chardev *chardev, struct loam_diag *diag)
{
    char path[64] = "";
    struct termios settings;
    int slave = -1;

    if (openpty(&chardev->fd, &slave, NULL, NULL, NULL) < 0) {
        chardev->fd = -1;
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: openpty", chardev->line->id);
    }
    if (tcgetattr(slave, &settings) == 0) {
        cfmakeraw(&settings);
    }
    if (tcsetattr(slave, TCSAFLUSH, &settings) < 0 || ttyname_r(slave, path, sizeof path) != 0 ||
        fcntl(chardev->fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0 || fcntl(chardev->fd, F_SETFD, FD_CLOEXEC) < 0) {
        close(slave);
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: terminal", chardev->line->id);
    }
    close(slave);
    snprintf(chardev->filename, sizeof chardev->filename, "pty:%s", path);
    chardev->opened_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (chardev->opened_fd >= 0 && inotify_add_watch(chardev->opened_fd, path, IN_OPEN) < 0) {
        close(chardev->opened_fd);
        chardev->opened_fd = -1;
    }
    return LOAM_OK;
}

static enum loam_error start_outlet(int fd, struct outlet *outlet, const char *name, bool *has_outlet,
                                    struct loam_diag *diag)
{
    enum loam_error error = outlet_open(outlet, fd, name, diag);

    if (error == LOAM_OK) {
        outlet->teller = standard_err();
        *has_outlet = true;
        error = outlet_start(outlet, diag);
    }
    return error;
}

/* A descriptor of one's own: of path, or of what was inherited, which others may close. */
static enum loam_error open_file(const struct line_chardev *line, const char *path, int inherited, bool append, int *fd,
                                 struct loam_diag *diag)
{
    *fd = path == NULL ? fcntl(inherited, F_DUPFD_CLOEXEC, 3)
                       : open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | (append ? O_APPEND : O_TRUNC), 0600);
    if (*fd >= 0) {
        return LOAM_OK;
    }
    if (path != NULL && errno == ENXIO) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "chardev %s: %s: a pipe that nobody reads: start its reader first",
                         line->id, path);
    }
    return path == NULL ? loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: descriptor %d", line->id, inherited)
                        : loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: %s", line->id, path);
}

static enum loam_error open_output(struct chardev *chardev, struct loam_diag *diag)
{
    const struct line_chardev *line = chardev->line;
    enum loam_error error = open_file(line, line->path, line->fd, line->append, &chardev->outlet_fd, diag);

    snprintf(chardev->filename, sizeof chardev->filename, "file");
    return error != LOAM_OK ? error
                            : start_outlet(chardev->outlet_fd, &chardev->outlet, "the serial line's file",
                                           &chardev->has_outlet, diag);
}

static enum loam_error open_standard(struct chardev *chardev, struct loam_diag *diag)
{
    enum loam_error error = intake_open(&chardev->intake, STDIN_FILENO, diag);

    chardev->has_intake = error == LOAM_OK;
    snprintf(chardev->filename, sizeof chardev->filename, "stdio");
    return error;
}

static enum loam_error open_socket(struct chardev *chardev, struct loam_diag *diag)
{
    const struct line_chardev *line = chardev->line;

    if (line->path != NULL) {
        snprintf(chardev->filename, sizeof chardev->filename, "unix:%s,server=on", line->path);
    } else {
        snprintf(chardev->filename, sizeof chardev->filename, "unix:fd=%d,server=on", line->fd);
    }
    return chardev_listen(line, &chardev->listen_fd, diag);
}

static enum loam_error open_kind(struct chardev *chardev, struct loam_diag *diag)
{
    switch (chardev->line->kind) {
    case LINE_CHARDEV_PTY:
        return open_terminal(chardev, diag);
    case LINE_CHARDEV_FILE:
        return open_output(chardev, diag);
    case LINE_CHARDEV_SOCKET:
        return open_socket(chardev, diag);
    case LINE_CHARDEV_STDIO:
        return open_standard(chardev, diag);
    case LINE_CHARDEV_NULL:
    default:
        snprintf(chardev->filename, sizeof chardev->filename, "null");
        return LOAM_OK;
    }
}

static enum loam_error open_log(struct chardev *chardev, struct loam_diag *diag)
{
    const struct line_chardev *line = chardev->line;
    enum loam_error error;

    if (line->log_path == NULL && line->log_fd < 0) {
        return LOAM_OK;
    }
    error = open_file(line, line->log_path, line->log_fd, line->log_append, &chardev->log_fd, diag);
    return error != LOAM_OK
               ? error
               : start_outlet(chardev->log_fd, &chardev->log, "the serial line's log", &chardev->has_log, diag);
}

enum loam_error chardev_open(const struct line_chardev *line, struct chardev **chardev, struct loam_diag *diag)
{
    struct chardev *made = calloc(1, sizeof *made);
    enum loam_error error;

    *chardev = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s", line->id);
    }
    made->line = line;
    made->fd = made->listen_fd = made->opened_fd = made->outlet_fd = made->log_fd = -1;
    made->is_roomy = true;
    pthread_mutex_init(&made->lock, NULL);
    made->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    made->room_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    error = made->news_fd < 0 || made->room_fd < 0 ? loam_fail(diag, LOAM_ERROR_SYSTEM, "chardev %s: eventfd", line->id)
                                                   : open_kind(made, diag);
    if (error == LOAM_OK) {
        error = open_log(made, diag);
    }
    if (error != LOAM_OK) {
        chardev_close(made);
        return error;
    }
    *chardev = made;
    return LOAM_OK;
}

static void close_one(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static void end_outlet(struct outlet *outlet)
{
    (void)outlet_drain(outlet, -1, CHARDEV_STALL_MILLISECONDS);
    outlet_close(outlet);
}

const char *chardev_filename(const struct chardev *chardev)
{
    return chardev->filename;
}

/* --- Output ------------------------------------------------------------------------------------------------------ */

static void gather(struct chardev *chardev, const uint8_t *bytes, size_t count)
{
    size_t before;

    pthread_mutex_lock(&chardev->lock);
    before = chardev->ring.count;
    add(&chardev->ring, bytes, count);
    trim(chardev);
    show_room(chardev);
    if (chardev->has_reader && (before == 0 || (before < FLUSH_BYTES && chardev->ring.count >= FLUSH_BYTES))) {
        (void)eventfd_write(chardev->news_fd, 1);
    }
    pthread_mutex_unlock(&chardev->lock);
}

void chardev_write(struct chardev *chardev, const uint8_t *bytes, size_t count)
{
    if (chardev->has_log) {
        outlet_append(&chardev->log, bytes, count);
    }
    if (chardev->has_outlet) {
        outlet_append(&chardev->outlet, bytes, count);
    } else if (chardev->line->kind == LINE_CHARDEV_STDIO) {
        outlet_append(standard_out(), bytes, count);
    } else if (chardev->line->kind != LINE_CHARDEV_NULL) {
        gather(chardev, bytes, count);
    }
}

/* Whether the reader has taken anything since *written_bytes; if not, it counts as gone until it does. */
static bool has_moved(struct chardev *chardev, uint64_t *written_bytes)
{
    bool has;

    pthread_mutex_lock(&chardev->lock);
    has = chardev->written_bytes != *written_bytes;
    *written_bytes = chardev->written_bytes;
    if (!has) {
        chardev->is_stalled = true;
        trim(chardev);
        show_room(chardev);
    }
    pthread_mutex_unlock(&chardev->lock);
    return has;
}

static void await_reader(struct chardev *chardev, int stop_fd)
{
    struct pollfd fds[] = {{.fd = chardev->room_fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    uint64_t written_bytes;
    int found;

    pthread_mutex_lock(&chardev->lock);
    written_bytes = chardev->written_bytes;
    pthread_mutex_unlock(&chardev->lock);
    do {
        found = poll(fds, 2, CHARDEV_STALL_MILLISECONDS);
    } while (found == 0 && has_moved(chardev, &written_bytes));
}

void chardev_pace(struct chardev *chardev, int stop_fd)
{
    if (chardev->has_log) {
        outlet_wait_room(&chardev->log, stop_fd);
    }
    if (chardev->has_outlet) {
        outlet_wait_room(&chardev->outlet, stop_fd);
    } else if (chardev->line->kind == LINE_CHARDEV_STDIO) {
        outlet_wait_room(standard_out(), stop_fd);
    } else {
        await_reader(chardev, stop_fd);
    }
}

/* --- The owner's turns ------------------------------------------------------------------------------------------- */

static bool is_terminal(const struct chardev *chardev)
{
    return chardev->line->kind == LINE_CHARDEV_PTY;
}

/* All that the client ever said has been read: while input waits for the guest, no read tells of it. */
static bool has_said_all(const struct chardev *chardev)
{
    char byte;

    return !is_terminal(chardev) && chardev->fd >= 0 && recv(chardev->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* The client is gone; or nobody has the terminal open any more. */
static void lose_reader(struct chardev *chardev)
{
    set_reader(chardev, false);
    if (!is_terminal(chardev)) {
        close_one(chardev->fd);
        chardev->fd = -1;
    }
}

static void find_reader(struct chardev *chardev)
{
    struct pollfd hung_up = {.fd = chardev->fd};
    char events[512];

    if (is_terminal(chardev)) {
        while (chardev->opened_fd >= 0 && read(chardev->opened_fd, events, sizeof events) > 0) {
        }
        set_reader(chardev, poll(&hung_up, 1, 0) >= 0 && (hung_up.revents & POLLHUP) == 0);
    } else if (chardev->listen_fd >= 0 && chardev->fd < 0) {
        chardev->fd = accept4(chardev->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        set_reader(chardev, chardev->fd >= 0);
    }
}

static ssize_t read_more(struct chardev *chardev)
{
    if (!chardev->has_intake) {
        return chardev->fd >= 0 ? read(chardev->fd, chardev->input, sizeof chardev->input) : (errno = EAGAIN, -1);
    }
    if (poll(&(struct pollfd){.fd = intake_poll_fd(&chardev->intake), .events = POLLIN}, 1, 0) <= 0) {
        return errno = EAGAIN, -1;
    }
    return intake_take(&chardev->intake, chardev->input);
}

static void take_input(struct chardev *chardev)
{
    ssize_t count = read_more(chardev);

    /* What was typed before a terminal was closed can be read still, and nothing tells of it. */
    chardev->is_left_behind = count > 0 && is_terminal(chardev) && !chardev->has_reader;
    if (count > 0) {
        chardev->input_taken = 0;
        chardev->input_count = (size_t)count;
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        if (chardev->has_intake) {
            intake_close(&chardev->intake);
            chardev->has_intake = false;
        } else {
            lose_reader(chardev);
        }
    }
}

static bool has_input(const struct chardev *chardev)
{
    return chardev->input_taken < chardev->input_count;
}

static void hand_over(struct chardev *chardev, chardev_sink_fn *sink, void *self)
{
    if (!has_input(chardev)) {
        take_input(chardev);
    }
    if (has_input(chardev)) {
        chardev->input_taken +=
            sink(self, chardev->input + chardev->input_taken, chardev->input_count - chardev->input_taken);
    }
    if (has_input(chardev) && has_said_all(chardev)) {
        lose_reader(chardev);
    }
}

/* One write of what waits. false: no more for now. */
static bool write_some(struct chardev *chardev)
{
    uint8_t bytes[FLUSH_BYTES];
    size_t count = 0;
    ssize_t written;

    pthread_mutex_lock(&chardev->lock);
    for (; count < sizeof bytes && count < chardev->ring.count; count++) {
        bytes[count] = chardev->ring.at[(chardev->ring.first + count) % chardev->ring.room];
    }
    written = count == 0             ? 0
              : is_terminal(chardev) ? write(chardev->fd, bytes, count)
                                     : send(chardev->fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (written > 0) {
        drop_first(&chardev->ring, (size_t)written);
        chardev->written_bytes += (uint64_t)written;
        chardev->is_stalled = false;
        show_room(chardev);
    }
    pthread_mutex_unlock(&chardev->lock);
    if (written < 0 && errno != EAGAIN && errno != EINTR) {
        lose_reader(chardev);
    }
    return written > 0;
}

static size_t waiting(struct chardev *chardev)
{
    size_t count;

    pthread_mutex_lock(&chardev->lock);
    count = chardev->ring.count;
    pthread_mutex_unlock(&chardev->lock);
    return count;
}

static void write_waiting(struct chardev *chardev)
{
    int64_t now = now_milliseconds();
    eventfd_t value;
    size_t count;

    (void)eventfd_read(chardev->news_fd, &value);
    count = waiting(chardev);
    if (count > 0 && count < FLUSH_BYTES && chardev->due_milliseconds == 0) {
        chardev->due_milliseconds = now + GATHER_MILLISECONDS;
    } else if (count >= FLUSH_BYTES || (count > 0 && now >= chardev->due_milliseconds)) {
        for (unsigned i = 0; i < WRITE_COUNT_MAX && chardev->has_reader && write_some(chardev); i++) {
        }
        chardev->due_milliseconds = 0;
    }
}

static void lower(int *timeout, int64_t milliseconds)
{
    int wanted = milliseconds < 0 ? 0 : (int)milliseconds;

    *timeout = *timeout < 0 || *timeout > wanted ? wanted : *timeout;
}

/* Whether the reader has no room is seen only when it is written to: so it is asked for after a write, not before. */
static short events_of(struct chardev *chardev, bool takes_input)
{
    bool writes = waiting(chardev) > 0 && chardev->due_milliseconds == 0;

    return (short)((takes_input && !has_input(chardev) ? POLLIN : 0) | (writes ? POLLOUT : 0));
}

size_t chardev_poll(struct chardev *chardev, struct pollfd fds[CHARDEV_POLL_MAX], bool takes_input,
                    int *timeout_milliseconds)
{
    size_t count = 0;

    if (takes_input && has_input(chardev)) {
        lower(timeout_milliseconds, RETRY_MILLISECONDS);
    } else if (takes_input && chardev->is_left_behind) {
        lower(timeout_milliseconds, 0);
    }
    if (chardev->has_intake && takes_input && !has_input(chardev)) {
        fds[count++] = (struct pollfd){.fd = intake_poll_fd(&chardev->intake), .events = POLLIN};
    }
    if (chardev->has_reader) {
        if (chardev->due_milliseconds != 0) {
            lower(timeout_milliseconds, chardev->due_milliseconds - now_milliseconds());
        }
        short events = events_of(chardev, takes_input);

        if (events != 0 || !has_input(chardev)) { /* poll(2) would tell of an end at once, and again and again */
            fds[count++] = (struct pollfd){.fd = chardev->fd, .events = events};
        }
        fds[count++] = (struct pollfd){.fd = chardev->news_fd, .events = POLLIN};
    } else if (is_terminal(chardev) && chardev->opened_fd < 0) {
        lower(timeout_milliseconds, LOOK_MILLISECONDS);
    } else if (is_terminal(chardev) || chardev->listen_fd >= 0) {
        fds[count++] =
            (struct pollfd){.fd = is_terminal(chardev) ? chardev->opened_fd : chardev->listen_fd, .events = POLLIN};
    }
    return count;
}

void chardev_turn(struct chardev *chardev, chardev_sink_fn *sink, void *self)
{
    find_reader(chardev);
    if (sink != NULL) {
        hand_over(chardev, sink, self);
    } else if (chardev->fd >= 0 && chardev->has_reader &&
               poll(&(struct pollfd){.fd = chardev->fd, .events = POLLRDHUP}, 1, 0) > 0) {
        lose_reader(chardev);
    }
    if (chardev->has_reader) {
        write_waiting(chardev);
    }
}

void chardev_close(struct chardev *chardev)
{
    if (chardev == NULL) {
        return;
    }
    while (chardev->has_reader && write_some(chardev)) {
    }
    if (chardev->has_outlet) {
        end_outlet(&chardev->outlet);
    }
    if (chardev->has_log) {
        end_outlet(&chardev->log);
    }
    if (chardev->has_intake) {
        intake_close(&chardev->intake);
    }
    if (chardev->listen_fd >= 0 && chardev->line->path != NULL) {
        (void)unlink(chardev->line->path);
    }
    close_one(chardev->fd);
    close_one(chardev->listen_fd);
    close_one(chardev->opened_fd);
    close_one(chardev->outlet_fd);
    close_one(chardev->log_fd);
    close_one(chardev->news_fd);
    close_one(chardev->room_fd);
    free(chardev->ring.at);
    pthread_mutex_destroy(&chardev->lock);
    free(chardev);
}
