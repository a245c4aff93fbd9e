// SPDX-License-Identifier: Apache-2.0
/*
 * Lock order: stack, the transport, lock. The guest's thread, which has the transport locked, only appends to sent; all
 * else is the thread's own.
 *
 *     waiting.count > 0 => the device has refused its first frame, and calls wake once that may have changed
 */
#include "vmm/emulator/net_user.h"

#include "vmm/emulator/net_flow.h"
#include "vmm/kick.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <slirp/libslirp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS_A_MILLISECOND 1000000
#define SOCKET_COUNT_MAX          (NET_USER_SOCKET_MAX + NET_USER_QUEUE_FRAMES) /* one a frame under way */
#define DESCRIPTOR_MAX            65536 /* above all of them: the kernel gives the lowest that is free */
#define TIMER_COUNT               4u

struct frame {
    size_t bytes;
    uint8_t data[VIRTIO_NET_FRAME_BYTES_MAX];
};

struct queue {
    struct frame frames[NET_USER_QUEUE_FRAMES];
    uint32_t first;
    uint32_t count;
};

struct timer {
    SlirpTimerCb call; /* NULL: free */
    void *self;
    int64_t end_milliseconds; /* INT64_MAX: it does not run */
};

struct net_user {
    struct virtio_net *net;
    Slirp *slirp;
    struct kick_thread thread;
    atomic_bool leaving;
    int wake_fd;          /* there is a frame of the guest's or room in it, or the thread is to leave */
    pthread_mutex_t lock; /* of sent */
    struct queue sent;    /* from the guest */
    struct queue waiting; /* for the guest */
    struct timer timers[TIMER_COUNT];
    struct pollfd fds[1 + SOCKET_COUNT_MAX];
    uint32_t fd_count;
    uint64_t is_socket[DESCRIPTOR_MAX / 64];
    atomic_uint socket_count; /* bits set in is_socket */
};

/* The library keeps the time, and the name servers, once for all networks. */
static pthread_mutex_t stack = PTHREAD_MUTEX_INITIALIZER;

static int64_t now_nanoseconds(void *user)
{
    struct timespec now;

    (void)user;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 * NANOSECONDS_A_MILLISECOND + now.tv_nsec;
}

static int64_t now_milliseconds(void)
{
    return now_nanoseconds(NULL) / NANOSECONDS_A_MILLISECOND;
}

/* --- Queues ------------------------------------------------------------------------------------------------------- */

static bool append(struct queue *queue, const void *data, size_t bytes)
{
    struct frame *frame = &queue->frames[(queue->first + queue->count) % NET_USER_QUEUE_FRAMES];

    if (queue->count == NET_USER_QUEUE_FRAMES || bytes > sizeof frame->data) {
        return false;
    }
    frame->bytes = bytes;
    memcpy(frame->data, data, bytes);
    queue->count++;
    return true;
}

static void remove_first(struct queue *queue)
{
    queue->first = (queue->first + 1) % NET_USER_QUEUE_FRAMES;
    queue->count--;
}

/* --- What the guest sends: with the transport locked -------------------------------------------------------------- */

static void wake(void *self)
{
    struct net_user *user = self;

    (void)eventfd_write(user->wake_fd, 1);
}

/* Fragments are not: reassembly in libslirp 4.7.0 crashes on a last one that comes first. */
static bool is_let_in(const struct net_user *user, const uint8_t *frame, size_t bytes)
{
    switch (net_flow_of(frame, bytes)) {
    case NET_FLOW_KNOWN:
        return true;
    case NET_FLOW_NEW:
        return atomic_load(&user->socket_count) < NET_USER_SOCKET_MAX;
    default:
        return false;
    }
}

static bool send_frame(void *self, const void *frame, size_t bytes)
{
    struct net_user *user = self;
    bool is_first, is_taken;

    if (!is_let_in(user, frame, bytes)) {
        return false;
    }
    pthread_mutex_lock(&user->lock);
    is_first = user->sent.count == 0;
    is_taken = append(&user->sent, frame, bytes);
    pthread_mutex_unlock(&user->lock);
    if (is_first) {
        wake(user); /* else it has been woken, and has not come to an end of them since */
    }
    return is_taken;
}

/* --- What the stack calls ----------------------------------------------------------------------------------------- */

/* A frame for the guest. What is dropped is told of as sent, as on a wire. */
static ssize_t send_packet(const void *frame, size_t bytes, void *self)
{
    struct net_user *user = self;

    if ((user->waiting.count > 0 || !virtio_net_receive(user->net, frame, bytes)) &&
        !append(&user->waiting, frame, bytes)) {
        virtio_net_lose(user->net);
    }
    return (ssize_t)bytes;
}

/* The guest's own affair. */
static void guest_error(const char *text, void *self)
{
    (void)text;
    (void)self;
}

static void *timer_new(SlirpTimerCb call, void *call_self, void *self)
{
    struct net_user *user = self;

    for (uint32_t i = 0; i < TIMER_COUNT; i++) {
        if (user->timers[i].call == NULL) {
            user->timers[i] = (struct timer){call, call_self, INT64_MAX};
            return &user->timers[i];
        }
    }
    return NULL;
}

static void timer_free(void *timer, void *self)
{
    (void)self;
    if (timer != NULL) {
        *(struct timer *)timer = (struct timer){.call = NULL};
    }
}

static void timer_mod(void *timer, int64_t end_milliseconds, void *self)
{
    (void)self;
    if (timer != NULL) {
        ((struct timer *)timer)->end_milliseconds = end_milliseconds;
    }
}

/* The stack may say so twice, or of a socket that could not be had. */
static void note_socket(struct net_user *user, int fd, bool is_socket)
{
    const uint64_t bit = UINT64_C(1) << (fd & 63);
    uint64_t *word;

    if (fd < 0 || fd >= DESCRIPTOR_MAX) {
        return;
    }
    word = &user->is_socket[fd / 64];
    if (((*word & bit) != 0) != is_socket) {
        *word ^= bit;
        atomic_fetch_add(&user->socket_count, is_socket ? 1u : -1u);
    }
}

static void register_poll_fd(int fd, void *self)
{
    note_socket(self, fd, true);
}

static void unregister_poll_fd(int fd, void *self)
{
    note_socket(self, fd, false);
}

/* It is the thread itself that is told, which looks at all before it waits. */
static void notify(void *self)
{
    (void)self;
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = now_nanoseconds,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = register_poll_fd,
    .unregister_poll_fd = unregister_poll_fd,
    .notify = notify,
};

/* --- The thread: with the stack locked ---------------------------------------------------------------------------- */

static const struct {
    int slirp;
    short system;
} poll_events[] = {
    {SLIRP_POLL_IN, POLLIN},   {SLIRP_POLL_OUT, POLLOUT}, {SLIRP_POLL_PRI, POLLPRI},
    {SLIRP_POLL_ERR, POLLERR}, {SLIRP_POLL_HUP, POLLHUP},
};

#define POLL_EVENT_COUNT (sizeof poll_events / sizeof poll_events[0])

/* Returns its index; -1: nobody looks at it this time. */
static int add_poll(int fd, int events, void *self)
{
    struct net_user *user = self;
    short wanted = 0;

    if (user->waiting.count > 0 || user->fd_count == 1 + SOCKET_COUNT_MAX) {
        return -1;
    }
    for (size_t i = 0; i < POLL_EVENT_COUNT; i++) {
        wanted = (short)(wanted | ((events & poll_events[i].slirp) != 0 ? poll_events[i].system : 0));
    }
    user->fds[user->fd_count] = (struct pollfd){.fd = fd, .events = wanted};
    return (int)user->fd_count++;
}

static int get_revents(int index, void *self)
{
    const struct net_user *user = self;
    const short found = user->fds[index].revents;
    int events = 0;

    for (size_t i = 0; i < POLL_EVENT_COUNT; i++) {
        events |= (found & poll_events[i].system) != 0 ? poll_events[i].slirp : 0;
    }
    return events;
}

static bool take_sent(struct net_user *user, struct frame *frame)
{
    bool is_there;

    pthread_mutex_lock(&user->lock);
    is_there = user->sent.count > 0;
    if (is_there) {
        *frame = user->sent.frames[user->sent.first];
        remove_first(&user->sent);
    }
    pthread_mutex_unlock(&user->lock);
    return is_there;
}

/* Returns whether there may be more: a guest that sends without end does not keep the stack from all else. */
static bool take_in(struct net_user *user)
{
    struct frame frame;

    for (uint32_t i = 0; i < NET_USER_QUEUE_FRAMES; i++) {
        if (!take_sent(user, &frame)) {
            return false;
        }
        slirp_input(user->slirp, frame.data, (int)frame.bytes);
    }
    return true;
}

static void hand_on(struct net_user *user)
{
    struct queue *waiting = &user->waiting;

    while (waiting->count > 0) {
        const struct frame *frame = &waiting->frames[waiting->first];

        if (!virtio_net_receive(user->net, frame->data, frame->bytes)) {
            return;
        }
        remove_first(waiting);
    }
}

/* Returns when the next one is due. */
static int64_t run_timers(struct net_user *user)
{
    const int64_t now = now_milliseconds();
    int64_t next = INT64_MAX;

    for (uint32_t i = 0; i < TIMER_COUNT; i++) {
        struct timer *timer = &user->timers[i];

        if (timer->call != NULL && timer->end_milliseconds <= now) {
            timer->end_milliseconds = INT64_MAX;
            timer->call(timer->self);
        }
        if (timer->call != NULL && timer->end_milliseconds < next) {
            next = timer->end_milliseconds;
        }
    }
    return next;
}

/* All that there is to do now. Returns for how many milliseconds to wait then; -1: without end. */
static int prepare(struct net_user *user)
{
    uint32_t patience = UINT32_MAX;
    bool is_more;
    int64_t next;

    hand_on(user);
    is_more = take_in(user);
    next = run_timers(user);
    user->fds[0] = (struct pollfd){.fd = user->wake_fd, .events = POLLIN};
    user->fd_count = 1;
    slirp_pollfds_fill(user->slirp, &patience, add_poll, user);
    next = next == INT64_MAX ? INT32_MAX : next - now_milliseconds();
    next = next < patience ? next : (int64_t)patience;
    if (is_more || next < 0) {
        return 0;
    }
    return next < INT32_MAX ? (int)next : -1;
}

static void serve(void *self)
{
    struct net_user *user = self;

    while (!atomic_load(&user->leaving)) {
        eventfd_t count;
        int patience, ready;

        pthread_mutex_lock(&stack);
        patience = prepare(user);
        pthread_mutex_unlock(&stack);
        ready = poll(user->fds, user->fd_count, patience);
        if (ready > 0 && user->fds[0].revents != 0) {
            (void)eventfd_read(user->wake_fd, &count);
        }
        pthread_mutex_lock(&stack);
        slirp_pollfds_poll(user->slirp, ready < 0, get_revents, user);
        pthread_mutex_unlock(&stack);
    }
}

/* --- Public ------------------------------------------------------------------------------------------------------- */

static struct in_addr ipv4(uint32_t address)
{
    return (struct in_addr){htonl(address)};
}

static struct in6_addr ipv6(uint8_t last)
{
    return (struct in6_addr){.s6_addr = {[0] = 0xfe, [1] = 0xc0, [15] = last}};
}

static Slirp *make_stack(struct net_user *user)
{
    const SlirpConfig config = {
        .version = 1,
        .in_enabled = true,
        .vnetwork = ipv4(0x0a000200),
        .vnetmask = ipv4(0xffffff00),
        .vhost = ipv4(0x0a000202),
        .vnameserver = ipv4(0x0a000203),
        .vdhcp_start = ipv4(0x0a00020f),
        .in6_enabled = true,
        .vprefix_addr6 = ipv6(0),
        .vprefix_len = 64,
        .vhost6 = ipv6(2),
        .vnameserver6 = ipv6(3),
    };
    Slirp *slirp;

    pthread_mutex_lock(&stack);
    slirp = slirp_new(&config, &callbacks, user);
    pthread_mutex_unlock(&stack);
    return slirp;
}

static void destroy(struct net_user *user)
{
    if (user->slirp != NULL) {
        pthread_mutex_lock(&stack);
        slirp_cleanup(user->slirp);
        pthread_mutex_unlock(&stack);
    }
    if (user->wake_fd >= 0) {
        close(user->wake_fd);
    }
    pthread_mutex_destroy(&user->lock);
    free(user);
}

/* The device before the thread: whoever is told to wait for room has been connected. */
static enum loam_error start(struct net_user *user, struct loam_diag *diag)
{
    const struct virtio_net_outside outside = {.self = user, .send = send_frame, .room = wake};

    user->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (user->wake_fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: eventfd");
    }
    user->slirp = make_stack(user);
    if (user->slirp == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: libslirp %s refuses its settings", slirp_version_string());
    }
    virtio_net_connect(user->net, &outside);
    if (kick_start(&user->thread, serve, user, "network", diag) != LOAM_OK) {
        virtio_net_connect(user->net, NULL);
        return LOAM_ERROR_SYSTEM;
    }
    return LOAM_OK;
}

enum loam_error net_user_open(struct virtio_net *net, struct net_user **user, struct loam_diag *diag)
{
    enum loam_error error;

    *user = calloc(1, sizeof **user);
    if (*user == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: %zu bytes", sizeof **user);
    }
    (*user)->net = net;
    atomic_init(&(*user)->leaving, false);
    atomic_init(&(*user)->socket_count, 0);
    pthread_mutex_init(&(*user)->lock, NULL);
    error = start(*user, diag);
    if (error != LOAM_OK) {
        destroy(*user);
        *user = NULL;
    }
    return error;
}

void net_user_close(struct net_user *user)
{
    if (user == NULL) {
        return;
    }
    virtio_net_connect(user->net, NULL);
    atomic_store(&user->leaving, true);
    wake(user);
    if (!kick_end(&user->thread)) {
        return; /* it is in a call that does not end: what it uses stays */
    }
    destroy(user);
}
