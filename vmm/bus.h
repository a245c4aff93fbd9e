// SPDX-License-Identifier: Apache-2.0
/*
 * The bus: which device answers at an I/O port or at an address that is no memory.
 *
 * A vCPU thread hands each exit to bus_dispatch, which calls the device's access function on that thread, under a lock
 * that is the device's alone: a device sees one access at a time, and holds up none of another while it carries it out.
 * What is added with the same `device`, at however many places, is one device and has one lock. What devices share
 * beyond that has a lock of its own, which its owner takes; no device calls the bus.
 *
 *     bus_init -> bus_add ... -> bus_seal -> bus_dispatch, bus_missed -> bus_destroy
 *
 * Threads: bus_dispatch and bus_missed from any. All else from one thread, before the first vCPU runs and after the last
 * has ended: what answers where does not change in between, so that looking it up takes no lock.
 */
#ifndef LOAM_VMM_BUS_H
#define LOAM_VMM_BUS_H

#include "loam/error.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum bus_space {
    BUS_PIO,  /* I/O ports, 0 to 0xffff */
    BUS_MMIO, /* guest-physical addresses without memory */
    BUS_SPACE_COUNT
};

/* One access within a device. The guest chose offset and bytes: a device answers any, and asserts nothing. */
struct bus_access {
    uint64_t offset; /* from the device's base; offset + bytes lies within the device */
    uint32_t bytes;  /* 1, 2, 4 or 8 */
    bool is_write;
    uint64_t value; /* little-endian; what is written, or what the device answers (all ones before it is asked) */
};

typedef void bus_access_fn(void *device, struct bus_access *access);

#define BUS_DEVICE_MAX 32
#define BUS_MISSED_MAX 8 /* places that are remembered: a power of two */

/* A place where nobody answered. */
struct bus_missed {
    enum bus_space space;
    uint64_t address;
    uint32_t bytes;
    bool is_write;
    uint64_t value; /* the last that was written; reads: all ones */
    uint64_t count; /* of such accesses, one after the other with no other place between */
};

struct bus_device {
    const char *name; /* static */
    enum bus_space space;
    uint64_t base;
    uint64_t bytes;
    bus_access_fn *access;
    void *device; /* handed to access; outlives the bus */
};

/* A lock in lines of the processor's caches that no other has, wherever it lies. */
struct bus_lock {
    pthread_mutex_t mutex;
    uint8_t padding[128 - sizeof(pthread_mutex_t)];
};

static_assert(sizeof(struct bus_lock) >= sizeof(pthread_mutex_t) + 64, "whatever the lines begin with");

struct bus_entry {
    struct bus_device device;
    uint32_t lock; /* of locks; entries of the same device have the same */
};

/* Where nobody answered, under lock. */
struct bus_unclaimed {
    pthread_mutex_t lock;
    uint64_t count;        /* accesses that no device claimed */
    uint32_t missed_count; /* entries that were begun in missed, from 0 on and round again */
    struct bus_missed missed[BUS_MISSED_MAX];
};

/* Up to `unclaimed`, constant once sealed, but for the locks themselves. */
struct bus {
    bool is_sealed;
    uint32_t entry_count;
    uint32_t lock_count;
    struct bus_entry entries[BUS_DEVICE_MAX]; /* ascending by space and base, disjoint */
    struct bus_lock locks[BUS_DEVICE_MAX];
    struct bus_unclaimed unclaimed;
};

/* The bus stays where it is. */
void bus_init(struct bus *bus);
void bus_destroy(struct bus *bus);

/*
 * LOAM_ERROR_OVERLAP: another device answers there. LOAM_ERROR_EXHAUSTED: BUS_DEVICE_MAX. LOAM_ERROR_INVALID: range.
 * LOAM_ERROR_BUSY: the bus is sealed.
 */
LOAM_MUST_USE enum loam_error bus_add(struct bus *bus, const struct bus_device *device);

/* Nothing is added any more: before the first vCPU runs. */
void bus_seal(struct bus *bus);

/*
 * Carry out one access of 1, 2, 4 or 8 bytes at data, which is read or written in place. Where no device answers, or
 * the access goes beyond one, reads give all ones and writes are lost, as on a PC. Returns whether a device answered.
 */
bool bus_dispatch(struct bus *bus, enum bus_space space, uint64_t address, void *data, uint32_t bytes, bool is_write);

/*
 * The name of the device that answers for all of [address, address + bytes); NULL: none. Once the first vCPU runs, when no
 * device is added any more. Any thread, and no lock is taken.
 */
const char *bus_device_name(const struct bus *bus, enum bus_space space, uint64_t address, uint32_t bytes);

/* The last places at which nobody answered, the latest first. Returns how many there are. */
uint32_t bus_missed(struct bus *bus, struct bus_missed missed[BUS_MISSED_MAX]);

#endif
