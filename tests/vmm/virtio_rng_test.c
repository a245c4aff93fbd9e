// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_rng.h"

#include "tests/vmm/random.h"
#include "tests/vmm/virtio_guest.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIZE = 16 };

static struct virtio_guest guest;
static struct virtio_driver driver;
static struct virtio_rng rng;
static bool level;

/* A source that counts up from 1, and fails at its fail_at-th call. */
static struct source {
    uint8_t next;
    uint32_t call_count;
    uint32_t fail_at;
} source;

static bool count_up(void *self, void *buffer, size_t bytes)
{
    cr_assert_eq(self, &source);
    if (++source.call_count == source.fail_at) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)buffer)[i] = source.next++;
    }
    return true;
}

/*
 * getrandom(2) as a signal, or an early boot, answers it: bytes that count up as far as each step says, or an error (its
 * number, negative). Without steps it is the system's own.
 */
static struct {
    int steps[4];
    uint32_t step_count, at;
    uint8_t next;
} host;

ssize_t getrandom(void *buffer, size_t bytes, unsigned int flags)
{
    int step;

    cr_assert_eq(flags, 0);
    if (host.step_count == 0) {
        return (ssize_t)syscall(SYS_getrandom, buffer, bytes, flags);
    }
    cr_assert_lt(host.at, host.step_count);
    step = host.steps[host.at++];
    if (step < 0) {
        errno = -step;
        return -1;
    }
    cr_assert_leq((size_t)step, bytes);
    for (int i = 0; i < step; i++) {
        ((uint8_t *)buffer)[i] = ++host.next;
    }
    return step;
}

static void set_line(void *controller, unsigned int number, bool new_level)
{
    (void)controller;
    (void)number;
    level = new_level;
}

static void out(uint64_t offset, uint32_t value)
{
    struct bus_access access = {.offset = offset, .bytes = 4, .is_write = true, .value = value};

    virtio_mmio_access(&rng.mmio, &access);
}

static uint32_t in(uint64_t offset)
{
    struct bus_access access = {.offset = offset, .bytes = 4};

    virtio_mmio_access(&rng.mmio, &access);
    return (uint32_t)access.value;
}

/* Section 3.1.1, with the rings of config. */
static void bring_up(const struct virtqueue_config *config)
{
    out(VIRTIO_MMIO_STATUS, 0);
    out(VIRTIO_MMIO_STATUS, 0x01);
    out(VIRTIO_MMIO_STATUS, 0x03);
    out(VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 1);
    out(VIRTIO_MMIO_DRIVER_FEATURES, 1);
    out(VIRTIO_MMIO_STATUS, 0x0b);
    out(VIRTIO_MMIO_QUEUE_SELECT, 0);
    out(VIRTIO_MMIO_QUEUE_SIZE, config->size);
    out(VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW, (uint32_t)config->descriptors.value);
    out(VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH, (uint32_t)(config->descriptors.value >> 32));
    out(VIRTIO_MMIO_QUEUE_AVAILABLE_LOW, (uint32_t)config->available.value);
    out(VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH, (uint32_t)(config->available.value >> 32));
    out(VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)config->used.value);
    out(VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(config->used.value >> 32));
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    out(VIRTIO_MMIO_STATUS, 0x0f);
}

static void init_rng(virtio_rng_source_fn *function)
{
    source = (struct source){.next = 1};
    cr_assert_eq(virtio_rng_init(&rng, guest.map, (struct irq_line){.set = set_line}, function, &source), LOAM_OK);
    virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
    bring_up(&driver.config);
}

static void set_up(void)
{
    level = false;
    virtio_guest_init(&guest);
    init_rng(count_up);
}

static void tear_down(void)
{
    virtio_rng_destroy(&rng);
    virtio_guest_destroy(&guest);
}

static uint16_t add(const struct virtio_buffer *buffers, uint16_t count)
{
    uint16_t head = 0;

    cr_assert(virtio_driver_add(&driver, buffers, count, &head));
    return head;
}

static void ring(void)
{
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

/* The next chain that comes back must be this one, with so many bytes. */
static void expect_used(uint16_t head, uint32_t bytes)
{
    uint32_t found_head, found_bytes;

    cr_assert(virtio_driver_take(&driver, &found_head, &found_bytes));
    cr_assert_eq(found_head, head);
    cr_assert_eq(found_bytes, bytes);
}

TestSuite(virtio_rng, .init = set_up, .fini = tear_down);

Test(virtio_rng, is_an_entropy_device_with_one_queue)
{
    cr_assert_eq(in(VIRTIO_MMIO_DEVICE_ID), 4);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0f);
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_SIZE_MAX), VIRTIO_RNG_QUEUE_SIZE_MAX);
    out(VIRTIO_MMIO_QUEUE_SELECT, 1);
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_SIZE_MAX), 0);
    cr_assert_eq(in(VIRTIO_MMIO_CONFIG), 0);
    out(VIRTIO_MMIO_DEVICE_FEATURES_SELECT, 0);
    cr_assert_eq(in(VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

Test(virtio_rng, fills_what_it_may_write_and_interrupts)
{
    const struct virtio_buffer buffers[] = {
        {GUEST_LOW + 0x1000, 5, false}, {GUEST_HIGH + 3, 7, true}, {GUEST_NEXT - 2, 4, true}};
    const uint8_t *high = virtio_guest_at(&guest, GUEST_HIGH);
    const uint16_t head = add(buffers, 3);

    ring();
    expect_used(head, 11);
    cr_assert_arr_eq(high, ((uint8_t[]){0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 0}), 11);
    cr_assert_arr_eq(virtio_guest_at(&guest, GUEST_NEXT - 3), ((uint8_t[]){0, 8, 9}), 3);
    cr_assert_arr_eq(virtio_guest_at(&guest, GUEST_NEXT), ((uint8_t[]){10, 11, 0}), 3);
    cr_assert_arr_eq(virtio_guest_at(&guest, GUEST_LOW + 0x1000), ((uint8_t[]){0, 0, 0, 0, 0}), 5);
    cr_assert(level);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_USED);
    cr_assert_eq(rng.chain_count, 1);
}

Test(virtio_rng, serves_all_that_is_there_at_one_ring)
{
    uint16_t heads[SIZE];

    for (uint32_t i = 0; i < SIZE; i++) {
        heads[i] = add(&(struct virtio_buffer){GUEST_HIGH + 64 * i, 64, true}, 1);
    }
    ring();
    for (uint32_t i = 0; i < SIZE; i++) {
        expect_used(heads[i], 64);
    }
    cr_assert_eq(source.call_count, SIZE);
}

Test(virtio_rng, gives_no_more_than_its_limit_to_one_chain)
{
    const struct virtio_buffer whole = {GUEST_HIGH, 0x20000, true};
    const struct virtio_buffer parts[] = {{GUEST_HIGH, 0xfff0, true}, {GUEST_HIGH + 0x10000, 0x100, true}};
    const uint8_t *high = virtio_guest_at(&guest, GUEST_HIGH);
    uint16_t head = add(&whole, 1);

    ring();
    expect_used(head, VIRTIO_RNG_BYTES_MAX);
    for (uint32_t i = 0; i < 0x20000; i++) {
        cr_assert_eq(high[i], i < VIRTIO_RNG_BYTES_MAX ? (uint8_t)(i + 1) : 0);
    }
    head = add(parts, 2);
    ring();
    expect_used(head, VIRTIO_RNG_BYTES_MAX);
    cr_assert_neq(high[0x1000e], 0);
    cr_assert_eq(high[0x10010], 0);
    source.call_count = 0;
    head = add((const struct virtio_buffer[]){{GUEST_HIGH, 0x10000, true}, {GUEST_LOW + 0x1000, 8, true}}, 2);
    ring();
    expect_used(head, VIRTIO_RNG_BYTES_MAX);
    cr_assert_eq(source.call_count, 1, "nothing is asked for beyond");
}

Test(virtio_rng, respects_a_driver_that_wants_no_interrupt)
{
    const uint16_t head = add(&(struct virtio_buffer){GUEST_HIGH, 8, true}, 1);

    virtio_guest_put_16(&guest, driver.config.available.value, VIRTQ_AVAIL_F_NO_INTERRUPT);
    ring();
    expect_used(head, 8);
    cr_assert_not(level);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

Test(virtio_rng, a_source_that_fails_gives_back_what_was_filled)
{
    const struct virtio_buffer buffers[] = {{GUEST_HIGH, 8, true}, {GUEST_HIGH + 8, 8, true}};
    uint16_t head;

    source.fail_at = 2;
    head = add(buffers, 2);
    ring();
    expect_used(head, 8);
    source.fail_at = 3;
    head = add(buffers, 2);
    ring();
    expect_used(head, 0);
    head = add(buffers, 2);
    ring();
    expect_used(head, 16);
    cr_assert_eq(rng.failure_count, 2);
    cr_assert_eq(rng.chain_count, 3);
}

Test(virtio_rng, a_chain_with_nothing_to_write_comes_back_empty)
{
    const uint16_t head = add(&(struct virtio_buffer){GUEST_HIGH, 8, false}, 1);

    ring();
    expect_used(head, 0);
    cr_assert_eq(source.call_count, 0);
}

Test(virtio_rng, a_chain_may_be_as_long_as_the_queue)
{
    struct virtio_buffer buffers[VIRTIO_RNG_QUEUE_SIZE_MAX];
    uint16_t head;

    virtio_driver_init(&driver, &guest, VIRTIO_RNG_QUEUE_SIZE_MAX, GUEST_HIGH);
    bring_up(&driver.config);
    for (uint32_t i = 0; i < VIRTIO_RNG_QUEUE_SIZE_MAX; i++) {
        buffers[i] = (struct virtio_buffer){GUEST_NEXT - 1, 2, true}; /* each in two pieces */
    }
    head = add(buffers, VIRTIO_RNG_QUEUE_SIZE_MAX);
    ring();
    expect_used(head, 2 * VIRTIO_RNG_QUEUE_SIZE_MAX);
}

Test(virtio_rng, what_came_before_a_malformed_chain_is_served)
{
    const uint16_t head = add(&(struct virtio_buffer){GUEST_HIGH, 8, true}, 1);

    (void)add(&(struct virtio_buffer){GUEST_READONLY, 8, true}, 1);
    ring();
    expect_used(head, 8);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x4f);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS)&VIRTIO_INTERRUPT_CONFIG, VIRTIO_INTERRUPT_CONFIG);
    cr_assert_eq(source.call_count, 1);
}

/*
 * A source that makes the guest's next request while it works: the guest would keep the host busy for ever.
 */
static bool feed_more(void *self, void *buffer, size_t bytes)
{
    const uint64_t available = driver.config.available.value;

    (void)self;
    source.call_count++;
    cr_assert_leq(source.call_count, SIZE, "more than its share of one ring");
    memset(buffer, 1, bytes);
    virtio_guest_put_16(&guest, available + 2, (uint16_t)(virtio_guest_get_16(&guest, available + 2) + 1));
    return true;
}

Test(virtio_rng, one_ring_is_bounded_work)
{
    uint16_t head;

    virtio_rng_destroy(&rng);
    init_rng(feed_more);
    head = add(&(struct virtio_buffer){GUEST_HIGH, 8, true}, 1);
    for (uint32_t i = 0; i < SIZE; i++) {
        virtio_guest_put_16(&guest, driver.config.available.value + 4 + UINT64_C(2) * i, head);
    }
    ring();
    cr_assert_eq(source.call_count, SIZE);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0f);
}

Test(virtio_rng, the_hosts_own_bytes_are_random)
{
    const struct virtio_buffer buffer = {GUEST_HIGH, 0x10000, true};
    uint32_t seen[256] = {0};
    uint16_t head;

    virtio_rng_destroy(&rng);
    init_rng(NULL);
    head = add(&buffer, 1);
    ring();
    expect_used(head, 0x10000);
    for (uint32_t i = 0; i < 0x10000; i++) {
        seen[*(uint8_t *)virtio_guest_at(&guest, GUEST_HIGH + i)]++;
    }
    /* Each value is expected 256 times, with a standard deviation of 16. */
    for (uint32_t i = 0; i < 256; i++) {
        cr_assert(seen[i] > 100 && seen[i] < 500, "value %u: %u times", i, seen[i]);
    }
}

/* --- Hostile ------------------------------------------------------------------------------------------------------ */

/* Rings at random places, full of random things; what the guest may not write never changes. */
enum { FUZZ_ROUNDS = 200000 };

static void spoil(struct random *random, const struct virtqueue_config *config)
{
    static const uint64_t places[] = {GUEST_LOW + 0x2000, GUEST_NEXT - 8, GUEST_READONLY - 8, GUEST_GAP,
                                      GUEST_DEVICE,       GUEST_HIGH,     GUEST_HIGH_END - 8, UINT64_MAX - 8};

    for (uint16_t i = 0; i < config->size; i++) {
        const uint64_t address = places[random_below(random, random_one_in(random, 8) ? 8 : 3)];
        const uint16_t flags = (uint16_t)(random_one_in(random, 16) ? random_u64(random) : VIRTQ_DESC_F_WRITE);

        virtio_guest_put_descriptor(&guest, config->descriptors.value, i, address + random_below(random, 16),
                                    random_one_in(random, 64) ? (uint32_t)random_u64(random) : random_below(random, 32),
                                    flags | (random_one_in(random, 3) ? VIRTQ_DESC_F_NEXT : 0),
                                    (uint16_t)random_below(random, config->size + random_one_in(random, 32)));
        virtio_guest_put_16(&guest, config->available.value + 4 + UINT64_C(2) * i,
                            (uint16_t)random_below(random, config->size + random_one_in(random, 32)));
    }
    virtio_guest_put_16(&guest, config->available.value + 2,
                        (uint16_t)(rng.mmio.queues[0].next_available + random_below(random, config->size + 1)));
}

/* Everything in the arena that the guest itself may not write, against how it was. */
static bool untouched(const uint8_t *before)
{
    static const struct {
        uint64_t start;
        uint64_t end;
    } writable[] = {{GUEST_LOW, GUEST_READONLY}, {GUEST_HIGH, GUEST_HIGH_END}};
    bool same = true;

    for (size_t offset = 0; offset < guest.arena_bytes; offset += 4096) {
        bool may_write = false;

        for (uint32_t i = 0; i < 2; i++) {
            for (uint64_t gpa = writable[i].start; gpa < writable[i].end; gpa += 4096) {
                may_write |= virtio_guest_offset(gpa, true) == (ptrdiff_t)offset;
            }
        }
        same &= may_write || memcmp(guest.arena + offset, before + offset, 4096) == 0;
    }
    return same;
}

Test(virtio_rng, the_hosts_own_bytes_may_come_in_parts)
{
    uint16_t head;

    virtio_rng_destroy(&rng);
    init_rng(NULL);
    host.step_count = 4;
    memcpy(host.steps, (int[]){3, -EINTR, 4, 1}, sizeof host.steps);
    head = add(&(struct virtio_buffer){GUEST_HIGH, 8, true}, 1);
    ring();
    expect_used(head, 8);
    cr_assert_arr_eq(virtio_guest_at(&guest, GUEST_HIGH), ((uint8_t[]){1, 2, 3, 4, 5, 6, 7, 8, 0}), 9);
    cr_assert_eq(host.at, 4);
    cr_assert_eq(rng.failure_count, 0);
}

Test(virtio_rng, a_host_without_bytes_is_a_source_that_fails)
{
    static const int errors[] = {0, -ENOSYS, -EAGAIN};

    virtio_rng_destroy(&rng);
    init_rng(NULL);
    host.step_count = 2;
    for (uint32_t i = 0; i < 3; i++) {
        uint16_t head = add(&(struct virtio_buffer){GUEST_HIGH, 8, true}, 1);

        host.at = 0;
        host.steps[0] = 1;
        host.steps[1] = errors[i];
        errno = EINTR;
        ring();
        expect_used(head, 0);
        cr_assert_eq(rng.failure_count, i + 1);
    }
}

Test(virtio_rng, hostile_rings_write_nothing_that_the_guest_may_not)
{
    static uint8_t before[64 * 4096];
    struct random random = {20240605};
    uint64_t reset_count = 0;

    cr_assert_leq(guest.arena_bytes, sizeof before);
    memcpy(before, guest.arena, guest.arena_bytes);
    for (uint32_t round = 0; round < FUZZ_ROUNDS; round++) {
        if (in(VIRTIO_MMIO_STATUS) != 0x0f) {
            driver.config.size = 1u << random_below(&random, 5);
            bring_up(&driver.config);
            reset_count++;
        }
        spoil(&random, &driver.config);
        ring();
        out(VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
        if (round % 64 == 0) {
            cr_assert(untouched(before), "seed 20240605, by round %u", round);
        }
    }
    cr_assert(untouched(before));
    cr_assert_gt(reset_count, FUZZ_ROUNDS / 16);
    cr_assert_gt(rng.chain_count, FUZZ_ROUNDS / 4);
    cr_assert_eq(rng.failure_count, 0);
}
