// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_worker.h"

#include "tests/support/sanitizer.h"
#include "tests/support/waiter.h"
#include "tests/vmm/virtio_station.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

enum { SIZE = 16, QUEUES = 2, SERVED_MAX = 64 };

static struct virtio_guest guest;
static struct virtio_station station;
static struct virtio_mmio mmio;
static struct virtio_worker worker;
static struct virtio_driver drivers[QUEUES];

/* What the device does, as a test wants it: every chain is served by writing its own number to its first byte. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_closed; /* chains wait at the door */
    bool is_held;   /* one does */
    bool ignores_stop;
    bool sleeps_in_system;       /* at the door, where a signal ends it */
    uint32_t served[SERVED_MAX]; /* queues, in their order */
    uint32_t served_count;
    bool saw_stop;
    uint64_t features; /* of the last chain */
    int error;
} device = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void wait_at_door(void)
{
    pthread_mutex_lock(&device.lock);
    device.is_held = device.is_closed;
    pthread_cond_broadcast(&device.changed);
    while (device.is_closed) {
        pthread_cond_wait(&device.changed, &device.lock);
    }
    device.is_held = false;
    pthread_mutex_unlock(&device.lock);
}

static void sleep_in_system(void)
{
    pthread_mutex_lock(&device.lock);
    device.is_held = true;
    pthread_cond_broadcast(&device.changed);
    pthread_mutex_unlock(&device.lock);
    /* Also where the stop comes before the call: it is called back until it has ended. */
    do {
        device.error = poll(NULL, 0, -1) < 0 ? errno : 0;
    } while (!virtio_worker_must_stop(&worker));
}

static uint32_t serve(void *self, const struct virtio_job *job)
{
    uint8_t number;

    cr_assert_eq(self, &device);
    if (device.sleeps_in_system) {
        sleep_in_system();
    } else {
        wait_at_door();
    }
    pthread_mutex_lock(&device.lock);
    cr_assert_lt(device.served_count, SERVED_MAX);
    device.served[device.served_count++] = job->queue;
    device.features = job->features;
    device.saw_stop |= virtio_worker_must_stop(&worker);
    number = (uint8_t)device.served_count;
    pthread_mutex_unlock(&device.lock);
    cr_assert_eq(loam_gpa_view_write(job->view, job->chain.pieces[0].start, &number, 1), LOAM_OK);
    return 1;
}

static void notify(void *self, uint32_t queue)
{
    (void)self;
    virtio_worker_ring(&worker, queue);
}

static void stop(void *self, uint32_t queue)
{
    (void)self;
    virtio_worker_drop(&worker, queue);
}

static void close_door(void)
{
    pthread_mutex_lock(&device.lock);
    device.is_closed = true;
    pthread_mutex_unlock(&device.lock);
}

static void open_door(void)
{
    pthread_mutex_lock(&device.lock);
    device.is_closed = false;
    pthread_cond_broadcast(&device.changed);
    pthread_mutex_unlock(&device.lock);
}

static void await_held(void)
{
    pthread_mutex_lock(&device.lock);
    while (!device.is_held) {
        pthread_cond_wait(&device.changed, &device.lock);
    }
    pthread_mutex_unlock(&device.lock);
}

/* The interrupt of a chain may come after the chain was found to be used. */
static void await_config(void)
{
    while ((virtio_station_await(&station) & VIRTIO_INTERRUPT_CONFIG) == 0) {
    }
}

static uint32_t served_count(void)
{
    uint32_t count;

    pthread_mutex_lock(&device.lock);
    count = device.served_count;
    pthread_mutex_unlock(&device.lock);
    return count;
}

static void await_served(uint32_t count)
{
    while (served_count() < count) {
        sched_yield();
    }
}

static void bring_up(void)
{
    struct virtqueue_config configs[QUEUES];

    for (uint32_t i = 0; i < QUEUES; i++) {
        virtio_driver_init(&drivers[i], &guest, SIZE, GUEST_LOW + UINT64_C(0x1000) * i);
        configs[i] = drivers[i].config;
    }
    virtio_station_bring_up(&station, 0, configs, QUEUES);
}

static void set_up(void)
{
    const struct virtio_device made = {
        .self = &device,
        .id = 42,
        .queue_count = QUEUES,
        .queue_size_max = SIZE,
        .features = 1,
        .notify = notify,
        .stop = stop,
    };
    struct loam_diag diag = {0};

    virtio_guest_init(&guest);
    virtio_station_init(&station, &mmio);
    cr_assert_eq(virtio_mmio_init(&mmio, guest.map, virtio_station_irq(&station), &made), LOAM_OK);
    cr_assert_eq(virtio_worker_start(&worker, &mmio, serve, &device, "the test", &diag), LOAM_OK, "%s", diag.text);
    bring_up();
}

static void tear_down(void)
{
    open_door();
    cr_expect(virtio_worker_end(&worker));
    virtio_mmio_destroy(&mmio);
    virtio_station_destroy(&station);
    virtio_guest_destroy(&guest);
}

TestSuite(virtio_worker, .init = set_up, .fini = tear_down, .timeout = 120);

static uint16_t add(uint32_t queue, uint64_t gpa)
{
    uint16_t head;

    cr_assert(virtio_driver_add(&drivers[queue], &(struct virtio_buffer){gpa, 8, true}, 1, &head));
    return head;
}

static uint8_t byte_at(uint64_t gpa)
{
    return *(uint8_t *)virtio_guest_at(&guest, gpa);
}

static void expect_used(uint32_t queue, uint16_t head)
{
    uint32_t found_head, found_bytes;

    virtio_station_take(&station, &drivers[queue], &found_head, &found_bytes);
    cr_assert_eq(found_head, head);
    cr_assert_eq(found_bytes, 1);
}

static uint16_t used_index(uint32_t queue)
{
    return virtio_guest_get_16(&guest, drivers[queue].config.used.value + 2);
}

Test(virtio_worker, serves_what_was_rung_in_order)
{
    uint16_t heads[SIZE];

    for (uint32_t i = 0; i < SIZE; i++) {
        heads[i] = add(0, GUEST_HIGH + i);
    }
    virtio_station_ring(&station, 0);
    for (uint32_t i = 0; i < SIZE; i++) {
        expect_used(0, heads[i]);
        cr_assert_eq(byte_at(GUEST_HIGH + i), i + 1);
    }
}

/* The driver's thread takes the lock of the transport, and is not held up. */
Test(virtio_worker, no_lock_is_held_while_a_chain_is_served)
{
    uint16_t heads[2];

    close_door();
    heads[0] = add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    await_held();
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_STATUS), 0x0f);
    cr_expect_eq(used_index(0), 0);
    heads[1] = add(0, GUEST_HIGH + 1);
    virtio_station_ring(&station, 0);
    open_door();
    expect_used(0, heads[0]);
    expect_used(0, heads[1]);
}

Test(virtio_worker, queues_take_turns)
{
    uint16_t heads[QUEUES][4];

    virtio_worker_hold(&worker);
    for (uint32_t i = 0; i < 4 * QUEUES; i++) {
        heads[i % QUEUES][i / QUEUES] = add(i % QUEUES, GUEST_HIGH + i);
    }
    virtio_station_ring(&station, 1);
    virtio_station_ring(&station, 0);
    virtio_worker_resume(&worker);
    for (uint32_t i = 0; i < 4 * QUEUES; i++) {
        expect_used(i % QUEUES, heads[i % QUEUES][i / QUEUES]);
    }
    for (uint32_t i = 1; i < 4 * QUEUES; i++) {
        cr_expect_neq(device.served[i], device.served[i - 1], "chain %u", i);
    }
}

static void hold(void *self)
{
    virtio_worker_hold(self);
}

Test(virtio_worker, holding_waits_for_the_chain_that_is_served_and_keeps_all_others)
{
    struct waiter waiter;
    uint16_t heads[2];

    close_door();
    heads[0] = add(0, GUEST_HIGH);
    heads[1] = add(1, GUEST_HIGH + 1);
    virtio_station_ring(&station, 0);
    await_held();
    virtio_station_ring(&station, 1);
    waiter_start(&waiter, hold, &worker);
    cr_expect(waiter_sleeps(&waiter));
    open_door();
    waiter_join(&waiter);
    cr_expect_eq(used_index(0), 1, "what was served has gone back");
    virtio_worker_hold(&worker); /* held is held */
    cr_expect_eq(served_count(), 1);
    expect_used(0, heads[0]);
    virtio_worker_resume(&worker);
    expect_used(1, heads[1]);
}

Test(virtio_worker, nothing_begins_while_held)
{
    uint16_t head;

    virtio_worker_hold(&worker);
    head = add(0, GUEST_HIGH);
    for (uint32_t i = 0; i < 200; i++) {
        virtio_station_ring(&station, 0);
        sched_yield();
    }
    cr_expect_eq(served_count(), 0);
    cr_expect_eq(used_index(0), 0);
    virtio_worker_resume(&worker);
    expect_used(0, head);
}

static void reset(void *self)
{
    virtio_station_out(self, VIRTIO_MMIO_STATUS, 0);
}

Test(virtio_worker, a_reset_waits_for_the_chain_and_nothing_goes_back)
{
    struct waiter waiter;
    uint16_t head;

    close_door();
    add(0, GUEST_HIGH);
    add(0, GUEST_HIGH + 1);
    virtio_station_ring(&station, 0);
    await_held();
    waiter_start(&waiter, reset, &station);
    cr_expect(waiter_sleeps(&waiter));
    open_door();
    waiter_join(&waiter);
    cr_expect(device.saw_stop);
    cr_expect_eq(used_index(0), 0);
    cr_expect_eq(served_count(), 1);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    bring_up();
    head = add(0, GUEST_HIGH + 2);
    virtio_station_ring(&station, 0);
    expect_used(0, head);
    cr_expect_eq(byte_at(GUEST_HIGH + 1), 0);
}

static void stop_queue_0(void *self)
{
    virtio_station_out(self, VIRTIO_MMIO_QUEUE_SELECT, 0);
    virtio_station_out(self, VIRTIO_MMIO_QUEUE_READY, 0);
}

/* The other queue's chain goes on. */
Test(virtio_worker, a_queue_that_stops_waits_for_its_own_chain_alone)
{
    uint16_t head;

    close_door();
    head = add(1, GUEST_HIGH);
    add(0, GUEST_HIGH + 1);
    virtio_station_ring(&station, 1);
    await_held();
    virtio_station_ring(&station, 0);
    stop_queue_0(&station);
    open_door();
    expect_used(1, head);
    virtio_worker_hold(&worker);
    cr_expect_not(device.saw_stop);
    cr_expect_eq(served_count(), 1);
    cr_expect_eq(used_index(0), 0);
    virtio_worker_resume(&worker);
}

Test(virtio_worker, a_call_that_a_signal_ends_is_ended)
{
    device.sleeps_in_system = true;
    add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    await_held();
    reset(&station);
    await_served(1);
    cr_expect_eq(device.error, EINTR);
    cr_expect_eq(used_index(0), 0);
}

/* As a file system that hangs, and goes on much later: the driver has set the queue up anew by then. */
Test(virtio_worker, one_that_does_not_end_is_waited_for_no_longer_than_patience)
{
    uint16_t head;

    worker.patience_milliseconds = 30;
    close_door();
    add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    await_held();
    reset(&station);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_STATUS), 0);
    bring_up();
    head = add(0, GUEST_HIGH + 1);
    virtio_station_ring(&station, 0);
    cr_expect_eq(served_count(), 0);
    open_door();
    expect_used(0, head);
    cr_expect_eq(used_index(0), 1, "the first is not given back to the new queue");
    cr_expect_eq(byte_at(GUEST_HIGH + 1), 2);
}

Test(virtio_worker, a_queue_that_a_driver_breaks_ends_all_work)
{
    virtio_worker_hold(&worker);
    (void)add(0, GUEST_READONLY);
    virtio_station_ring(&station, 0);
    add(1, GUEST_HIGH);
    virtio_worker_resume(&worker);
    await_config();
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_STATUS), 0x4f);
    virtio_station_ring(&station, 1);
    virtio_worker_hold(&worker);
    cr_expect_eq(served_count(), 0);
    virtio_worker_resume(&worker);
}

/* The driver gives up between ringing and serving. */
Test(virtio_worker, a_device_that_failed_does_nothing)
{
    virtio_worker_hold(&worker);
    add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    virtio_station_out(&station, VIRTIO_MMIO_STATUS, 0x8f);
    virtio_worker_resume(&worker);
    for (bool is_rung = true; is_rung;) {
        virtio_mmio_lock(&mmio);
        is_rung = worker.rung != 0;
        virtio_mmio_unlock(&mmio);
    }
    cr_expect_eq(served_count(), 0);
    cr_expect_eq(used_index(0), 0);
}

/* What a chain's pieces say stays so until it is done, whatever the map says by then. */
Test(virtio_worker, a_view_is_held_while_a_chain_is_served)
{
    uint16_t head;

    close_door();
    head = add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    await_held();
    cr_assert_eq(loam_gpa_map_remove(guest.map, loam_gpa_from_u64(GUEST_HIGH), GUEST_HIGH_END - GUEST_HIGH), LOAM_OK);
    open_door();
    expect_used(0, head);
    cr_expect_eq(byte_at(GUEST_HIGH), 1);
    add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    await_config();
    cr_expect_eq(loam_gpa_map_validate(guest.map, NULL), LOAM_OK);
}

Test(virtio_worker, the_agreed_features_come_with_the_chain)
{
    uint16_t head;

    virtio_station_bring_up(&station, 1, &drivers[0].config, 1);
    head = add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    expect_used(0, head);
    pthread_mutex_lock(&device.lock);
    cr_expect_eq(device.features, VIRTIO_F_VERSION_1 | 1);
    pthread_mutex_unlock(&device.lock);
}

static void end(void *self)
{
    cr_expect(virtio_worker_end(self));
}

Test(virtio_worker, its_end_drops_what_is_served)
{
    struct waiter waiter;

    close_door();
    add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    await_held();
    waiter_start(&waiter, end, &worker);
    while (!virtio_worker_must_stop(&worker)) {
        sched_yield();
    }
    open_door();
    waiter_join(&waiter);
    cr_expect_eq(used_index(0), 0);
    cr_assert_eq(virtio_worker_start(&worker, &mmio, serve, &device, "the test", NULL), LOAM_OK);
}

Test(virtio_worker, a_thread_that_does_not_end_is_left_behind)
{
    close_door();
    add(0, GUEST_HIGH);
    virtio_station_ring(&station, 0);
    await_held();
    cr_expect_not(virtio_worker_end(&worker));
    open_door();
    while (!atomic_load(&worker.thread.left)) {
        sched_yield();
    }
    cr_expect_eq(used_index(0), 0);
    cr_assert_eq(virtio_worker_start(&worker, &mmio, serve, &device, "the test", NULL), LOAM_OK);
}

Test(virtio_worker, without_a_thread_to_be_had_there_is_none)
{
    static struct virtio_worker second;
    struct loam_diag diag = {0};

    SKIP_WHERE_A_SANITIZER_MAPS();
    cr_assert_eq(setrlimit(RLIMIT_AS, &(struct rlimit){0, RLIM_INFINITY}), 0); /* no room for a stack */
    cr_expect_eq(virtio_worker_start(&second, &mmio, serve, &device, "the disk", &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_AS, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
    cr_expect_not_null(strstr(diag.text, "the disk: a thread is wanted"), "%s", diag.text);
}
