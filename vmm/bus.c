// SPDX-License-Identifier: Apache-2.0
/*
 * devices[0 .. device_count) ascends by space, then by base, and no two of them overlap: the only candidate for an
 * address is the last device that does not begin after it.
 */
#include "vmm/bus.h"

#include "loam/types.h"

#include <string.h>

#define BUS_PORT_END UINT64_C(0x10000)

static uint64_t space_end(enum bus_space space)
{
    return space == BUS_PIO ? BUS_PORT_END : LOAM_GPA_END;
}

static bool begins_after(const struct bus_device *device, enum bus_space space, uint64_t address)
{
    return device->space > space || (device->space == space && device->base > address);
}

/* How many devices begin at or before address. */
static uint32_t rank(const struct bus *bus, enum bus_space space, uint64_t address)
{
    uint32_t low = 0;
    uint32_t high = bus->device_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (begins_after(&bus->devices[middle], space, address)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* The device that answers for all of [address, address + bytes); NULL: none. */
static const struct bus_device *find(const struct bus *bus, enum bus_space space, uint64_t address, uint32_t bytes)
{
    uint32_t index = rank(bus, space, address);
    const struct bus_device *device;

    if (index == 0) {
        return NULL;
    }
    device = &bus->devices[index - 1];
    return device->space == space && loam_fits(address - device->base, bytes, device->bytes) ? device : NULL;
}

static bool device_valid(const struct bus_device *device)
{
    return (device->space == BUS_PIO || device->space == BUS_MMIO) && device->access != NULL && device->bytes > 0 &&
           loam_fits(device->base, device->bytes, space_end(device->space));
}

/* Whether device meets the neighbours that it would have at index. */
static bool overlaps(const struct bus *bus, const struct bus_device *device, uint32_t index)
{
    const struct bus_device *before = index > 0 ? &bus->devices[index - 1] : NULL;
    const struct bus_device *after = index < bus->device_count ? &bus->devices[index] : NULL;

    return (before != NULL && before->space == device->space && device->base - before->base < before->bytes) ||
           (after != NULL && after->space == device->space && after->base - device->base < device->bytes);
}

void bus_init(struct bus *bus)
{
    *bus = (struct bus){.device_count = 0};
    pthread_mutex_init(&bus->lock, NULL);
}

void bus_destroy(struct bus *bus)
{
    pthread_mutex_destroy(&bus->lock);
}

enum loam_error bus_add(struct bus *bus, const struct bus_device *device)
{
    enum loam_error error = LOAM_OK;
    uint32_t index;

    if (!device_valid(device)) {
        return LOAM_ERROR_INVALID;
    }
    pthread_mutex_lock(&bus->lock);
    index = rank(bus, device->space, device->base);
    if (overlaps(bus, device, index)) {
        error = LOAM_ERROR_OVERLAP;
    } else if (bus->device_count == BUS_DEVICE_MAX) {
        error = LOAM_ERROR_EXHAUSTED;
    } else {
        memmove(&bus->devices[index + 1], &bus->devices[index], (bus->device_count - index) * sizeof bus->devices[0]);
        bus->devices[index] = *device;
        bus->device_count++;
    }
    pthread_mutex_unlock(&bus->lock);
    return error;
}

const char *bus_device_name(const struct bus *bus, enum bus_space space, uint64_t address, uint32_t bytes)
{
    const struct bus_device *device = find(bus, space, address, bytes);

    return device != NULL ? device->name : NULL;
}

/* Under the lock. */
static void note_missed(struct bus *bus, enum bus_space space, uint64_t address, const struct bus_access *access)
{
    struct bus_missed *last = &bus->missed[(bus->missed_count - 1) % BUS_MISSED_MAX];

    bus->unclaimed_count++;
    if (bus->missed_count == 0 || last->space != space || last->address != address || last->bytes != access->bytes ||
        last->is_write != access->is_write) {
        last = &bus->missed[bus->missed_count++ % BUS_MISSED_MAX];
        *last = (struct bus_missed){space, address, access->bytes, access->is_write, 0, 0};
    }
    last->value = access->value;
    last->count++;
}

uint32_t bus_missed(struct bus *bus, struct bus_missed missed[BUS_MISSED_MAX])
{
    uint32_t count;

    pthread_mutex_lock(&bus->lock);
    count = bus->missed_count < BUS_MISSED_MAX ? bus->missed_count : BUS_MISSED_MAX;
    for (uint32_t i = 0; i < count; i++) {
        missed[i] = bus->missed[(bus->missed_count - 1 - i) % BUS_MISSED_MAX];
    }
    pthread_mutex_unlock(&bus->lock);
    return count;
}

bool bus_dispatch(struct bus *bus, enum bus_space space, uint64_t address, void *data, uint32_t bytes, bool is_write)
{
    const bool bytes_valid = bytes <= 8 && loam_is_power_of_two(bytes);
    struct bus_access access = {.bytes = bytes, .is_write = is_write, .value = is_write ? 0 : UINT64_MAX};
    const struct bus_device *device;

    if (is_write && bytes_valid) {
        memcpy(&access.value, data, bytes);
    }
    pthread_mutex_lock(&bus->lock);
    device = bytes_valid ? find(bus, space, address, bytes) : NULL;
    if (device != NULL) {
        access.offset = address - device->base;
        device->access(device->device, &access);
    } else {
        note_missed(bus, space, address, &access);
    }
    pthread_mutex_unlock(&bus->lock);
    if (!is_write && device != NULL) {
        memcpy(data, &access.value, bytes);
    } else if (!is_write) {
        memset(data, 0xff, bytes);
    }
    return device != NULL;
}
