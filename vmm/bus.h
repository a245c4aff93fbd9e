// SPDX-License-Identifier: Apache-2.0
/*
 * The bus: which device answers at an I/O port or at an address that is no memory.
 *
 * A vCPU thread hands each exit to bus_dispatch, which calls the device's access function on that thread, under the
 * bus's own lock: devices see one access at a time. Devices are added before the first vCPU runs.
 */
#ifndef LOAM_VMM_BUS_H
#define LOAM_VMM_BUS_H

#include "loam/error.h"

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

struct bus {
    pthread_mutex_t lock;
    uint32_t device_count;
    struct bus_device devices[BUS_DEVICE_MAX]; /* ascending by space and base, disjoint */
    uint64_t unclaimed_count;                  /* accesses that no device claimed */
    uint32_t missed_count;                     /* entries that were begun in missed, from 0 on and round again */
    struct bus_missed missed[BUS_MISSED_MAX];
};

void bus_init(struct bus *bus);
void bus_destroy(struct bus *bus);

/* LOAM_ERROR_OVERLAP: another device answers there. LOAM_ERROR_EXHAUSTED: BUS_DEVICE_MAX. LOAM_ERROR_INVALID: range. */
LOAM_MUST_USE enum loam_error bus_add(struct bus *bus, const struct bus_device *device);

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
