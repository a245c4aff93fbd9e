// SPDX-License-Identifier: Apache-2.0
#include "vmm/bus.h"

#include "loam/types.h"
#include "tests/support/waiter.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdint.h>
#include <string.h>

/* A device that notes the last access and answers with a value of its own. */
struct probe {
    struct bus_access seen;
    uint32_t count;
    uint64_t answer;
};

static struct bus bus;

static void probe_access(void *device, struct bus_access *access)
{
    struct probe *probe = device;

    probe->seen = *access;
    probe->count++;
    access->value = probe->answer; /* of a write too, where it is to reach nobody */
}

static enum loam_error add(struct probe *probe, enum bus_space space, uint64_t base, uint64_t bytes)
{
    return bus_add(
        &bus,
        &(struct bus_device){
            .name = "probe", .space = space, .base = base, .bytes = bytes, .access = probe_access, .device = probe});
}

static void set_up(void)
{
    bus_init(&bus);
}

static void tear_down(void)
{
    bus_destroy(&bus);
}

TestSuite(bus, .init = set_up, .fini = tear_down, .timeout = 60); /* a lock that is taken twice would hang */

Test(bus, hands_an_access_to_the_device_with_its_offset)
{
    struct probe probe = {.answer = UINT64_C(0x1122334455667788)};
    uint64_t data = UINT64_C(0xaaaaaaaaaaaaaaaa);

    cr_assert_eq(add(&probe, BUS_MMIO, 0xd0000000, 0x1000), LOAM_OK);
    cr_assert(bus_dispatch(&bus, BUS_MMIO, 0xd0000ff8, &data, 8, false));
    cr_assert_eq(data, probe.answer);
    cr_assert_eq(probe.seen.offset, 0xff8);
    cr_assert_eq(probe.seen.bytes, 8);
    cr_assert_eq(probe.seen.value, UINT64_MAX);
    cr_assert_not(probe.seen.is_write);

    data = UINT64_C(0x0102030405060708);
    cr_assert(bus_dispatch(&bus, BUS_MMIO, 0xd0000004, &data, 2, true));
    cr_assert(probe.seen.is_write);
    cr_assert_eq(probe.seen.offset, 4);
    cr_assert_eq(probe.seen.bytes, 2);
    cr_assert_eq(probe.seen.value, 0x0708);
    cr_assert_eq(data, UINT64_C(0x0102030405060708), "a write leaves its data alone");
    cr_assert_eq(bus.unclaimed.count, 0);
}

Test(bus, a_read_writes_its_own_bytes_only)
{
    struct probe probe = {.answer = 0};

    cr_assert_eq(add(&probe, BUS_PIO, 0x100, 8), LOAM_OK);
    for (uint32_t bytes = 1; bytes <= 8; bytes *= 2) {
        uint8_t data[9], expected[9];

        memset(data, 0x5a, sizeof data);
        memset(expected, 0x5a, sizeof expected);
        memset(expected, 0, bytes);
        cr_assert(bus_dispatch(&bus, BUS_PIO, 0x100, data, bytes, false));
        cr_assert_arr_eq(data, expected, sizeof data);
    }
}

Test(bus, where_nothing_answers_reads_give_all_ones_and_writes_are_lost)
{
    struct probe probe = {.answer = 0};
    uint8_t data[9];

    cr_assert_eq(add(&probe, BUS_PIO, 0x100, 8), LOAM_OK);
    memset(data, 0x5a, sizeof data);
    cr_assert_not(bus_dispatch(&bus, BUS_PIO, 0x200, data, 4, false));
    cr_assert_arr_eq(data, ((uint8_t[]){0xff, 0xff, 0xff, 0xff, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a}), sizeof data);
    data[0] = 0;
    cr_assert_not(bus_dispatch(&bus, BUS_PIO, 0x200, data, 4, true));
    cr_assert_eq(data[0], 0, "a write leaves its data alone");
    cr_assert_not(bus_dispatch(&bus, BUS_MMIO, 0x100, data, 4, true), "the spaces are apart");
    cr_assert_eq(probe.count, 0);
    cr_assert_eq(bus.unclaimed.count, 3);
}

Test(bus, names_who_would_answer)
{
    struct probe probe;

    cr_assert_eq(add(&probe, BUS_PIO, 0x100, 8), LOAM_OK);
    cr_expect_str_eq(bus_device_name(&bus, BUS_PIO, 0x104, 4), "probe");
    cr_expect_null(bus_device_name(&bus, BUS_PIO, 0x105, 4));
    cr_expect_null(bus_device_name(&bus, BUS_MMIO, 0x104, 4));
}

Test(bus, remembers_where_nobody_answered)
{
    struct bus_missed missed[BUS_MISSED_MAX];
    uint32_t data = 0x12345678;

    cr_assert_eq(bus_missed(&bus, missed), 0);
    bus_dispatch(&bus, BUS_PIO, 0xe9, &data, 1, true);
    bus_dispatch(&bus, BUS_PIO, 0xe9, &data, 1, true);
    bus_dispatch(&bus, BUS_MMIO, 0xd0000000, &data, 4, false);
    cr_assert_eq(bus_missed(&bus, missed), 2);
    cr_expect(missed[0].space == BUS_MMIO && missed[0].address == 0xd0000000 && missed[0].bytes == 4);
    cr_expect(!missed[0].is_write && missed[0].count == 1);
    cr_expect(missed[1].space == BUS_PIO && missed[1].address == 0xe9 && missed[1].value == 0x78);
    cr_expect(missed[1].is_write && missed[1].count == 2);
    for (uint64_t port = 0; port < 2 * BUS_MISSED_MAX; port++) {
        bus_dispatch(&bus, BUS_PIO, port, &data, 1, true);
    }
    cr_assert_eq(bus_missed(&bus, missed), BUS_MISSED_MAX);
    cr_expect_eq(missed[0].address, 2 * BUS_MISSED_MAX - 1);
    cr_expect_eq(missed[BUS_MISSED_MAX - 1].address, BUS_MISSED_MAX);
}

Test(bus, an_access_beyond_a_devices_end_reaches_nobody)
{
    struct probe low = {.answer = 1}, high = {.answer = 2};
    uint64_t data = 0;

    cr_assert_eq(add(&low, BUS_PIO, 0x100, 8), LOAM_OK);
    cr_assert_eq(add(&high, BUS_PIO, 0x108, 8), LOAM_OK);
    cr_assert_not(bus_dispatch(&bus, BUS_PIO, 0x106, &data, 4, false), "across two devices");
    cr_assert_not(bus_dispatch(&bus, BUS_PIO, 0x10e, &data, 4, false), "across the last one's end");
    cr_assert_not(bus_dispatch(&bus, BUS_PIO, 0xfe, &data, 4, false), "across the first one's base");
    cr_assert_eq(low.count + high.count, 0);
    cr_assert(bus_dispatch(&bus, BUS_PIO, 0x104, &data, 4, false));
    cr_assert(bus_dispatch(&bus, BUS_PIO, 0x108, &data, 8, false));
    cr_assert_eq(low.count, 1);
    cr_assert_eq(high.count, 1);
}

Test(bus, the_last_port_and_the_end_of_the_address_space)
{
    struct probe port = {.answer = 0x42}, memory = {.answer = 0x43};
    uint64_t data = 0;

    cr_assert_eq(add(&port, BUS_PIO, 0xffff, 1), LOAM_OK);
    cr_assert_eq(add(&memory, BUS_MMIO, LOAM_GPA_END - 8, 8), LOAM_OK);
    cr_assert(bus_dispatch(&bus, BUS_PIO, 0xffff, &data, 1, false));
    cr_assert_eq(data, 0x42);
    cr_assert_not(bus_dispatch(&bus, BUS_PIO, 0xffff, &data, 2, false));
    cr_assert(bus_dispatch(&bus, BUS_MMIO, LOAM_GPA_END - 8, &data, 8, false));
    cr_assert_eq(data, 0x43);
    cr_assert_not(bus_dispatch(&bus, BUS_MMIO, LOAM_GPA_END - 4, &data, 8, false));
    cr_assert_not(bus_dispatch(&bus, BUS_MMIO, LOAM_GPA_END, &data, 1, false));
    cr_assert_not(bus_dispatch(&bus, BUS_MMIO, UINT64_MAX, &data, 1, false));
    cr_assert_not(bus_dispatch(&bus, BUS_MMIO, UINT64_MAX - 3, &data, 8, false), "a sum that wraps");
}

Test(bus, refuses_ranges_that_are_none)
{
    struct probe probe = {.answer = 0};

    cr_assert_eq(add(&probe, BUS_PIO, 0x100, 0), LOAM_ERROR_INVALID);
    cr_assert_eq(add(&probe, BUS_PIO, 0xffff, 2), LOAM_ERROR_INVALID);
    cr_assert_eq(add(&probe, BUS_PIO, 0x10000, 1), LOAM_ERROR_INVALID);
    cr_assert_eq(add(&probe, BUS_MMIO, LOAM_GPA_END - 1, 2), LOAM_ERROR_INVALID);
    cr_assert_eq(add(&probe, BUS_MMIO, UINT64_MAX, UINT64_MAX), LOAM_ERROR_INVALID);
    cr_assert_eq(add(&probe, BUS_SPACE_COUNT, 0, 1), LOAM_ERROR_INVALID);
    cr_assert_eq(bus_add(&bus, &(struct bus_device){.space = BUS_PIO, .bytes = 1}), LOAM_ERROR_INVALID);
    cr_assert_eq(bus.entry_count, 0);
}

Test(bus, refuses_overlaps_and_a_device_too_many)
{
    struct probe probe = {.answer = 0};

    cr_assert_eq(add(&probe, BUS_PIO, 0x100, 8), LOAM_OK);
    for (uint64_t base = 0xf9; base <= 0x107; base++) {
        cr_assert_eq(add(&probe, BUS_PIO, base, 8), LOAM_ERROR_OVERLAP, "base 0x%" PRIx64, base);
    }
    cr_assert_eq(add(&probe, BUS_PIO, 0, 0x10000), LOAM_ERROR_OVERLAP);
    cr_assert_eq(add(&probe, BUS_MMIO, 0x100, 8), LOAM_OK);
    for (uint64_t i = 2; i < BUS_DEVICE_MAX; i++) {
        cr_assert_eq(add(&probe, BUS_PIO, 0x100 + 8 * i, 8), LOAM_OK);
    }
    cr_assert_eq(add(&probe, BUS_PIO, 0x4000, 8), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(bus.entry_count, BUS_DEVICE_MAX);
}

Test(bus, refuses_widths_that_no_processor_has)
{
    struct probe probe = {.answer = 0};
    uint8_t data[16], expected[16];
    static uint8_t large[1 << 20];

    cr_assert_eq(add(&probe, BUS_PIO, 0x100, 0x100), LOAM_OK);
    cr_assert_not(bus_dispatch(&bus, BUS_PIO, 0x100, large, sizeof large, true));
    for (uint32_t bytes = 0; bytes <= sizeof data; bytes++) {
        const bool valid = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;

        memset(data, 0x5a, sizeof data);
        memset(expected, 0x5a, sizeof expected);
        memset(expected, valid ? 0 : 0xff, bytes);
        cr_assert_eq(bus_dispatch(&bus, BUS_PIO, 0x100, data, bytes, true), valid, "%u bytes", bytes);
        cr_assert_eq(bus_dispatch(&bus, BUS_PIO, 0x100, data, bytes, false), valid, "%u bytes", bytes);
        cr_assert_arr_eq(data, expected, sizeof data);
    }
}

Test(bus, is_not_added_to_once_it_is_sealed)
{
    struct probe probe = {.answer = 0};
    uint8_t data = 0;

    cr_assert_eq(add(&probe, BUS_PIO, 0x100, 1), LOAM_OK);
    bus_seal(&bus);
    cr_expect_eq(add(&probe, BUS_PIO, 0x200, 1), LOAM_ERROR_BUSY);
    cr_expect(bus_dispatch(&bus, BUS_PIO, 0x100, &data, 1, true));
    cr_expect_not(bus_dispatch(&bus, BUS_PIO, 0x200, &data, 1, true));
}

/* --- Several at once -------------------------------------------------------------------------------------------- */

/* A device in whose access a thread waits until the test lets it go on. */
struct gate {
    sem_t entered, open;
    uint32_t count;
};

static void gate_access(void *device, struct bus_access *access)
{
    struct gate *gate = device;

    gate->count++;
    access->value = gate->count;
    sem_post(&gate->entered);
    sem_wait(&gate->open);
}

static void add_gate(struct gate *gate, uint64_t port)
{
    const struct bus_device device = {"gate", BUS_PIO, port, 1, gate_access, gate};

    cr_assert_eq(bus_add(&bus, &device), LOAM_OK);
}

static void make_gate(struct gate *gate)
{
    gate->count = 0;
    sem_init(&gate->entered, 0, 0);
    sem_init(&gate->open, 0, 0);
}

/* self: the port */
static void read_port(void *self)
{
    uint8_t data = 0;

    cr_assert(bus_dispatch(&bus, BUS_PIO, (uintptr_t)self, &data, 1, false));
}

/* While a device waits, every other answers, and so does nobody. */
Test(bus, a_device_that_waits_holds_up_no_other)
{
    struct gate gate;
    struct probe probe = {.answer = 0x42};
    struct bus_missed missed[BUS_MISSED_MAX];
    struct waiter waiter;
    uint8_t data = 0;

    make_gate(&gate);
    add_gate(&gate, 0x100);
    cr_assert_eq(add(&probe, BUS_PIO, 0x101, 1), LOAM_OK);
    cr_assert_eq(add(&probe, BUS_MMIO, 0x100, 1), LOAM_OK);
    waiter_start(&waiter, read_port, (void *)0x100);
    sem_wait(&gate.entered);
    cr_expect(bus_dispatch(&bus, BUS_PIO, 0x101, &data, 1, false));
    cr_expect_eq(data, 0x42);
    cr_expect(bus_dispatch(&bus, BUS_MMIO, 0x100, &data, 1, true));
    cr_expect_not(bus_dispatch(&bus, BUS_PIO, 0x102, &data, 1, false));
    cr_expect_eq(bus_missed(&bus, missed), 1);
    sem_post(&gate.open);
    waiter_join(&waiter);
    cr_expect_eq(probe.count, 2);
}

/* A device sees one access at a time, at whichever of its places they come. */
Test(bus, accesses_to_one_device_wait_for_each_other)
{
    const uintptr_t ports[] = {0x100, 0x200};
    struct gate gate;
    struct waiter first, second;

    make_gate(&gate);
    add_gate(&gate, 0x100);
    add_gate(&gate, 0x200);
    for (uint32_t i = 0; i < 4; i++) {
        waiter_start(&first, read_port, (void *)ports[i % 2]);
        sem_wait(&gate.entered);
        waiter_start(&second, read_port, (void *)ports[i / 2]);
        cr_expect(waiter_sleeps(&second));
        cr_expect_eq(gate.count, 2 * i + 1);
        sem_post(&gate.open);
        sem_post(&gate.open);
        waiter_join(&first);
        waiter_join(&second);
        sem_wait(&gate.entered);
    }
}

#define CROWD_ACCESSES 20000u

/* Two devices at two places each, nobody at another, from threads that begin at one of them each. */
static void crowd(void *self)
{
    for (uint32_t i = 0; i < CROWD_ACCESSES; i++) {
        const uint64_t port = 0x100 + ((uintptr_t)self + i) % 5;
        uint8_t data = 0;

        cr_assert_eq(bus_dispatch(&bus, BUS_PIO, port, &data, 1, i % 2 == 0), port != 0x104);
    }
}

/* No access is lost, and under ThreadSanitizer none meets another. */
Test(bus, counts_right_with_many_threads)
{
    enum { THREADS = 4 };
    struct probe probes[2] = {{.answer = 1}, {.answer = 2}};
    struct bus_missed missed[BUS_MISSED_MAX];
    struct waiter waiters[THREADS];

    for (uint64_t i = 0; i < 4; i++) {
        cr_assert_eq(add(&probes[i % 2], BUS_PIO, 0x100 + i, 1), LOAM_OK);
    }
    bus_seal(&bus);
    for (uintptr_t i = 0; i < THREADS; i++) {
        waiter_start(&waiters[i], crowd, (void *)i);
    }
    for (uint32_t i = 0; i < 1000; i++) {
        cr_assert_leq(bus_missed(&bus, missed), BUS_MISSED_MAX);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        waiter_join(&waiters[i]);
    }
    cr_expect_eq(probes[0].count, THREADS * CROWD_ACCESSES * 2 / 5);
    cr_expect_eq(probes[1].count, THREADS * CROWD_ACCESSES * 2 / 5);
    cr_expect_eq(bus.unclaimed.count, THREADS * CROWD_ACCESSES / 5);
}

/* Against an oracle that owns each address by itself. */
Test(bus, agrees_with_an_owner_for_each_address)
{
    enum { SPACE_BYTES = 256, ROUNDS = 2000 };
    struct probe probes[BUS_DEVICE_MAX];
    struct random random = {20240601};

    for (uint32_t round = 0; round < ROUNDS; round++) {
        int owner[BUS_SPACE_COUNT][SPACE_BYTES];
        uint64_t base_of[BUS_DEVICE_MAX] = {0};
        int device_count = 0;

        memset(owner, 0xff, sizeof owner);
        memset(probes, 0, sizeof probes);
        bus_destroy(&bus);
        bus_init(&bus);
        for (uint32_t i = 0; i < 24; i++) {
            const uint32_t space = random_below(&random, BUS_SPACE_COUNT);
            const uint32_t base = random_below(&random, SPACE_BYTES);
            const uint32_t bytes = 1 + random_below(&random, SPACE_BYTES - base < 24 ? SPACE_BYTES - base : 24);
            bool taken = false;

            for (uint32_t at = base; at < base + bytes; at++) {
                taken |= owner[space][at] >= 0;
            }
            cr_assert_eq(add(&probes[device_count], space, base, bytes), taken ? LOAM_ERROR_OVERLAP : LOAM_OK,
                         "round %u: base %u, %u bytes", round, base, bytes);
            for (uint32_t at = base; !taken && at < base + bytes; at++) {
                owner[space][at] = device_count;
            }
            base_of[device_count] = taken ? 0 : base;
            device_count += !taken;
        }
        for (uint32_t address = 0; address < BUS_SPACE_COUNT * (SPACE_BYTES - 8); address++) {
            const uint32_t space = address % BUS_SPACE_COUNT;
            const uint32_t at = address / BUS_SPACE_COUNT;
            const uint32_t bytes = 1u << random_below(&random, 4);
            uint64_t data = 0;
            int who = owner[space][at];

            for (uint32_t i = 0; i < bytes; i++) {
                who = owner[space][at + i] == who ? who : -1;
            }
            cr_assert_eq(bus_dispatch(&bus, space, at, &data, bytes, true), who >= 0,
                         "round %u: space %u, address %u, %u bytes", round, space, at, bytes);
            if (who >= 0) {
                cr_assert_eq(probes[who].count, 1);
                cr_assert_eq(probes[who].seen.offset, at - base_of[who]);
                probes[who].count = 0;
            }
        }
        for (int i = 0; i < device_count; i++) {
            cr_assert_eq(probes[i].count, 0);
        }
    }
}
