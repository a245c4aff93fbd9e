// SPDX-License-Identifier: Apache-2.0
/*
 * The lock is held for copying and counting only, never in a call that waits for the outside: the thread takes all that
 * is gathered with it, and writes that while others gather anew.
 */
#include "vmm/outlet.h"

#include "vmm/printable.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Of one write(2). One that waits returns only when a reader has taken all of it, and until then nothing has moved. */
#define WRITE_BYTES 4096u

static size_t waiting(const struct outlet *outlet)
{
    return outlet->gathered.count + outlet->going.count - outlet->gone;
}

/* Each change of waiting or mark ends here. */
static void show_level(struct outlet *outlet)
{
    bool is_low = waiting(outlet) <= outlet->mark;
    eventfd_t value;

    if (is_low != outlet->is_low) {
        outlet->is_low = is_low;
        (void)!(is_low ? eventfd_write(outlet->low_fd, 1) : eventfd_read(outlet->low_fd, &value));
    }
}

/* --- Writing ---------------------------------------------------------------------------------------------------- */

static void await_writable(int fd)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};

    (void)poll(&writable, 1, -1);
}

static void forget(struct outlet_bytes *bytes)
{
    bytes->count = 0;
}

/* Everything that waits is lost, and so is what comes. */
static void lose(struct outlet *outlet)
{
    outlet->lost_bytes += waiting(outlet);
    forget(&outlet->gathered);
    forget(&outlet->going);
    outlet->gone = 0;
    show_level(outlet);
}

static void tell(struct outlet *outlet, int error)
{
    char text[256];
    int length = snprintf(text, sizeof text, "loam: %s: cannot be written: %s: what comes from here on is lost\n",
                          outlet->name, strerror(error));

    if (outlet->teller != NULL && outlet->teller != outlet) {
        outlet_append(outlet->teller, text, (size_t)length);
    }
}

static void give_up(struct outlet *outlet, int error)
{
    pthread_mutex_lock(&outlet->lock);
    outlet->error = error;
    lose(outlet);
    pthread_mutex_unlock(&outlet->lock);
    tell(outlet, error);
}

/* One write(2) of what is going. false: nothing more can be written. */
static bool write_some(struct outlet *outlet)
{
    size_t left = outlet->going.count - outlet->gone;
    ssize_t written = write(outlet->fd, outlet->going.at + outlet->gone, left < WRITE_BYTES ? left : WRITE_BYTES);

    if (written > 0) {
        pthread_mutex_lock(&outlet->lock);
        outlet->gone += (size_t)written;
        show_level(outlet);
        pthread_mutex_unlock(&outlet->lock);
        return true;
    }
    if (written < 0 && errno == EAGAIN) {
        await_writable(outlet->fd);
        return true;
    }
    if (written < 0 && errno == EINTR) {
        return true;
    }
    give_up(outlet, written == 0 ? EIO : errno);
    return false;
}

/* Called by the one thread that writes; going is that thread's alone to read. */
static void write_going(struct outlet *outlet)
{
    while (outlet->gone < outlet->going.count && !atomic_load(&outlet->leaving) && write_some(outlet)) {
    }
}

/* As the thread does, with its signals blocked: a limit on file sizes, or a reader that is gone, ends nobody. */
static void write_here(struct outlet *outlet)
{
    const struct timespec at_once = {0};
    sigset_t raised, before;

    sigemptyset(&raised);
    sigaddset(&raised, SIGPIPE);
    sigaddset(&raised, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &raised, &before);
    write_going(outlet);
    while (sigtimedwait(&raised, NULL, &at_once) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* What was going is gone; what is gathered goes next. */
static void take_gathered(struct outlet *outlet)
{
    struct outlet_bytes empty = outlet->going;

    forget(&empty);
    outlet->going = outlet->gathered;
    outlet->gathered = empty;
    outlet->gone = 0;
}

static int64_t now_microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void await_news(struct outlet *outlet, int64_t until_microseconds)
{
    const struct timespec until = {until_microseconds / 1000000, until_microseconds % 1000000 * 1000};

    (void)pthread_cond_timedwait(&outlet->news, &outlet->lock, &until);
}

/* From the first byte on, wait for the others: until there are enough, or none has come for a while. */
static void gather(struct outlet *outlet)
{
    int64_t now = now_microseconds(), latest = now + OUTLET_GATHER_MICROSECONDS;
    size_t seen;

    do {
        seen = outlet->gathered.count;
        await_news(outlet, now + OUTLET_QUIET_MICROSECONDS);
        now = now_microseconds();
    } while (outlet->gathered.count != seen && outlet->gathered.count < OUTLET_FLUSH_BYTES && !outlet->is_urgent &&
             !atomic_load(&outlet->leaving) && now < latest);
}

static void write_as_it_comes(void *self)
{
    struct outlet *outlet = self;

    pthread_mutex_lock(&outlet->lock);
    while (!atomic_load(&outlet->leaving)) {
        if (outlet->gathered.count == 0) {
            pthread_cond_wait(&outlet->news, &outlet->lock);
            continue;
        }
        if (outlet->gathered.count < OUTLET_FLUSH_BYTES && !outlet->is_urgent) {
            gather(outlet);
        }
        take_gathered(outlet);
        pthread_mutex_unlock(&outlet->lock);
        write_going(outlet);
        pthread_mutex_lock(&outlet->lock);
    }
    pthread_mutex_unlock(&outlet->lock);
}

/* --- Lifecycle -------------------------------------------------------------------------------------------------- */

static void init_lock(struct outlet *outlet)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&outlet->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&outlet->news, &attributes);
    pthread_condattr_destroy(&attributes);
}

enum loam_error outlet_open(struct outlet *outlet, int fd, const char *name, struct loam_diag *diag)
{
    *outlet = (struct outlet){.fd = fd, .name = name, .mark = OUTLET_HIGH_BYTES, .is_low = true};
    outlet->low_fd = eventfd(1, EFD_CLOEXEC);
    if (outlet->low_fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: eventfd", name);
    }
    init_lock(outlet);
    return LOAM_OK;
}

enum loam_error outlet_start(struct outlet *outlet, struct loam_diag *diag)
{
    enum loam_error error = kick_start(&outlet->thread, write_as_it_comes, outlet, outlet->name, diag);

    outlet->has_thread = error == LOAM_OK;
    return error;
}

void outlet_stop(struct outlet *outlet)
{
    pthread_mutex_lock(&outlet->lock);
    outlet->is_stopped = true;
    atomic_store(&outlet->leaving, true);
    pthread_cond_signal(&outlet->news);
    pthread_mutex_unlock(&outlet->lock);
    if (outlet->has_thread) {
        outlet->is_abandoned = !kick_end(&outlet->thread);
    }
    pthread_mutex_lock(&outlet->lock);
    outlet->has_thread = false;
    lose(outlet);
    pthread_mutex_unlock(&outlet->lock);
}

void outlet_close(struct outlet *outlet)
{
    outlet_stop(outlet);
    if (outlet->is_abandoned) {
        return;
    }
    free(outlet->gathered.at);
    free(outlet->going.at);
    close(outlet->low_fd);
    pthread_cond_destroy(&outlet->news);
    pthread_mutex_destroy(&outlet->lock);
}

/* --- Appending -------------------------------------------------------------------------------------------------- */

static bool grow(struct outlet_bytes *bytes, size_t count)
{
    size_t room = bytes->room > 0 ? bytes->room : OUTLET_FLUSH_BYTES;
    uint8_t *at;

    while (room - bytes->count < count) {
        if (__builtin_mul_overflow(room, 2, &room)) {
            return false;
        }
    }
    if (room == bytes->room) {
        return true;
    }
    at = realloc(bytes->at, room);
    if (at == NULL) {
        return false;
    }
    bytes->at = at;
    bytes->room = room;
    return true;
}

/* The thread is told of the first byte, which begins the gathering; then it looks by itself. */
static void gather_bytes(struct outlet *outlet, const void *bytes, size_t count)
{
    size_t before = outlet->gathered.count;

    if (outlet->error != 0 || outlet->is_stopped || !grow(&outlet->gathered, count)) {
        outlet->lost_bytes += count;
        return;
    }
    memcpy(outlet->gathered.at + before, bytes, count);
    outlet->gathered.count += count;
    show_level(outlet);
    if (before == 0) {
        pthread_cond_signal(&outlet->news);
    }
}

void outlet_append(struct outlet *outlet, const void *bytes, size_t count)
{
    bool is_own_write;

    pthread_mutex_lock(&outlet->lock);
    gather_bytes(outlet, bytes, count);
    is_own_write = !outlet->has_thread && outlet->gathered.count > 0;
    if (is_own_write) {
        take_gathered(outlet);
    }
    pthread_mutex_unlock(&outlet->lock);
    if (is_own_write) {
        write_here(outlet);
    }
}

size_t outlet_waiting(struct outlet *outlet)
{
    size_t bytes;

    pthread_mutex_lock(&outlet->lock);
    bytes = waiting(outlet);
    pthread_mutex_unlock(&outlet->lock);
    return bytes;
}

uint64_t outlet_lost(struct outlet *outlet, int *error)
{
    uint64_t bytes;

    pthread_mutex_lock(&outlet->lock);
    bytes = outlet->lost_bytes;
    *error = outlet->error;
    pthread_mutex_unlock(&outlet->lock);
    return bytes;
}

/* --- Waiting ---------------------------------------------------------------------------------------------------- */

/* Until low_fd or stop_fd is readable, a signal has come, or the time has passed. Returns whether stop_fd is readable. */
static bool await_low(struct outlet *outlet, int stop_fd, int milliseconds)
{
    struct pollfd fds[] = {{.fd = stop_fd, .events = POLLIN}, {.fd = outlet->low_fd, .events = POLLIN}};

    (void)poll(fds, 2, milliseconds);
    return fds[0].revents != 0;
}

void outlet_wait_room(struct outlet *outlet, int stop_fd)
{
    if (outlet_waiting(outlet) > OUTLET_HIGH_BYTES) {
        (void)await_low(outlet, stop_fd, -1);
    }
}

static void hurry(struct outlet *outlet, bool is_urgent)
{
    pthread_mutex_lock(&outlet->lock);
    outlet->mark = is_urgent ? 0 : OUTLET_HIGH_BYTES;
    outlet->is_urgent = is_urgent;
    show_level(outlet);
    pthread_cond_signal(&outlet->news);
    pthread_mutex_unlock(&outlet->lock);
}

bool outlet_drain(struct outlet *outlet, int stop_fd, int64_t patience_milliseconds)
{
    int64_t end = patience_milliseconds < 0 ? INT64_MAX : now_microseconds() / 1000 + patience_milliseconds;
    bool is_stop = false;

    hurry(outlet, true);
    while (outlet_waiting(outlet) > 0 && !is_stop) {
        int64_t left = end == INT64_MAX ? -1 : end - now_microseconds() / 1000;

        if (end != INT64_MAX && left <= 0) {
            break;
        }
        is_stop = await_low(outlet, stop_fd, left > 1000000 ? 1000000 : (int)left);
    }
    hurry(outlet, false);
    return outlet_waiting(outlet) == 0;
}

/* --- Streams ---------------------------------------------------------------------------------------------------- */

static ssize_t append_raw(void *cookie, const char *text, size_t count)
{
    outlet_append(cookie, text, count);
    return (ssize_t)count;
}

static ssize_t append_text(void *cookie, const char *text, size_t count)
{
    char *escaped = printable_is_clean(text, count) ? NULL : malloc(count * PRINTABLE_GROWTH + 1);

    if (escaped == NULL && !printable_is_clean(text, count)) {
        return 0;
    }
    outlet_append(cookie, escaped != NULL ? escaped : text,
                  escaped != NULL ? printable_escape(text, count, escaped) : count);
    free(escaped);
    return (ssize_t)count;
}

FILE *outlet_text_stream(struct outlet *outlet)
{
    FILE *stream = fopencookie(outlet, "w", (cookie_io_functions_t){.write = append_text});

    if (stream != NULL) {
        setvbuf(stream, NULL, _IONBF, 0);
    }
    return stream;
}

FILE *outlet_raw_stream(struct outlet *outlet)
{
    return fopencookie(outlet, "w", (cookie_io_functions_t){.write = append_raw});
}
