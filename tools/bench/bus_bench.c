// SPDX-License-Identifier: Apache-2.0
/*
 * What an exit costs on the bus: two vCPUs at two devices, and at one. An access is a read of a serial line's scratch
 * register, as bus_dispatch carries it out for a vCPU's thread, without KVM: where KVM emulates every instruction, an
 * exit costs so much that nothing else would show. The reference is one thread at one device.
 */
#include "tools/bench/bench.h"
#include "vmm/bus.h"
#include "vmm/serial.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define LINES    2u
#define ACCESSES 1000000u
#define SCRATCH  7u /* PC16550D: the register that does nothing */

static const uint64_t ports[LINES] = {0x3f8, 0x2f8};

struct world {
    struct bus bus;
    struct serial *lines[LINES]; /* each in memory of its own: no line of the processor's caches is shared */
};

struct worker {
    struct bus *bus;
    uint64_t port;
};

static void make(struct world *world)
{
    bus_init(&world->bus);
    for (unsigned i = 0; i < LINES; i++) {
        world->lines[i] = bench_map(sizeof *world->lines[i], true);
        serial_init(world->lines[i], (struct irq_line){.set = NULL}, NULL, NULL);
        bench_expect(bus_add(&world->bus, &(struct bus_device){"serial", BUS_PIO, ports[i], SERIAL_BYTES, serial_access,
                                                               world->lines[i]}),
                     "a place on the bus");
    }
    bus_seal(&world->bus);
}

static void unmake(struct world *world)
{
    for (unsigned i = 0; i < LINES; i++) {
        serial_destroy(world->lines[i]);
        bench_unmap(world->lines[i], sizeof *world->lines[i]);
    }
    bus_destroy(&world->bus);
}

static void work(void *argument)
{
    const struct worker *worker = argument;
    uint8_t byte = 0;

    for (uint32_t i = 0; i < ACCESSES; i++) {
        bus_dispatch(worker->bus, BUS_PIO, worker->port + SCRATCH, &byte, 1, false);
        bench_keep(byte);
    }
}

/* Millions of accesses a second by count threads, the n-th at line n, or all at the first. */
static double measure(unsigned count, bool at_one)
{
    struct bench_thread threads[LINES];
    struct worker workers[LINES];
    struct world world;
    uint64_t taken;

    if (sysconf(_SC_NPROCESSORS_ONLN) < count) {
        bench_note("bus: two processors wanted, one found: no figures");
        return NAN;
    }
    make(&world);
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){&world.bus, ports[at_one ? 0 : i]};
        threads[i] = (struct bench_thread){.run = work, .argument = &workers[i]};
    }
    taken = bench_threads(threads, count);
    unmake(&world);
    return (double)ACCESSES * count * 1e3 / (double)taken;
}

/* parameter: whether at one device. */
static double two(const struct bench_case *bench)
{
    return measure(2, bench->parameter != 0);
}

static double one(const struct bench_case *bench)
{
    (void)bench;
    return measure(1, true);
}

const struct bench_case bus_cases[] = {
    {.name = "bus.threads2",
     .what = "accesses a second by two threads at a device each; reference: by one thread at one",
     .unit = "M/s",
     .better = BENCH_MORE,
     .goal = 1.8,
     .loam = two,
     .reference = one},
    {.name = "bus.threads2.same",
     .what = "accesses a second by two threads at the same device; reference: by one thread",
     .unit = "M/s",
     .better = BENCH_MORE,
     .parameter = 1,
     .loam = two,
     .reference = one},
    {.name = NULL},
};
