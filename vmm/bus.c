// SPDX-License-Identifier: Apache-2.0
/*
 * entries[0 .. entry_count) ascends by space, then by base, and no two of them overlap: the only candidate for an
 * address is the last device that does not begin after it. locks[0 .. lock_count) are made.
 *
 * Lock order: a device's, then whatever the device takes. That of unclaimed is taken alone.
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
    uint32_t high = bus->entry_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (begins_after(&bus->entries[middle].device, space, address)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* The device that answers for all of [address, address + bytes); NULL: none. */
static const struct bus_entry *find(const struct bus *bus, enum bus_space space, uint64_t address, uint32_t bytes)
{
    uint32_t index = rank(bus, space, address);
    const struct bus_device *device;

    if (index == 0) {
        return NULL;
    }
    device = &bus->entries[index - 1].device;
    return device->space == space && loam_fits(address - device->base, bytes, device->bytes) ? &bus->entries[index - 1]
                                                                                             : NULL;
}

static bool device_valid(const struct bus_device *device)
{
    return (device->space == BUS_PIO || device->space == BUS_MMIO) && device->access != NULL && device->bytes > 0 &&
           loam_fits(device->base, device->bytes, space_end(device->space));
}

/* Whether device meets the neighbours that it would have at index. */
static bool overlaps(const struct bus *bus, const struct bus_device *device, uint32_t index)
{
    const struct bus_device *before = index > 0 ? &bus->entries[index - 1].device : NULL;
    const struct bus_device *after = index < bus->entry_count ? &bus->entries[index].device : NULL;

    return (before != NULL && before->space == device->space && device->base - before->base < before->bytes) ||
           (after != NULL && after->space == device->space && after->base - device->base < device->bytes);
}

/* The lock of what was added with the same device, or one of its own. */
static uint32_t lock_for(struct bus *bus, const void *device)
{
    for (uint32_t i = 0; i < bus->entry_count; i++) {
        if (bus->entries[i].device.device == device) {
            return bus->entries[i].lock;
        }
    }
    pthread_mutex_init(&bus->locks[bus->lock_count].mutex, NULL);
    return bus->lock_count++;
}

void bus_init(struct bus *bus)
{
    *bus = (struct bus){.entry_count = 0};
    pthread_mutex_init(&bus->unclaimed.lock, NULL);
}

void bus_destroy(struct bus *bus)
{
    for (uint32_t i = 0; i < bus->lock_count; i++) {
        pthread_mutex_destroy(&bus->locks[i].mutex);
    }
    pthread_mutex_destroy(&bus->unclaimed.lock);
}

enum loam_error bus_add(struct bus *bus, const struct bus_device *device)
{
    struct bus_entry entry;
    uint32_t index;

    if (!device_valid(device)) {
        return LOAM_ERROR_INVALID;
    }
    if (bus->is_sealed) {
        return LOAM_ERROR_BUSY;
    }
    index = rank(bus, device->space, device->base);
    if (overlaps(bus, device, index)) {
        return LOAM_ERROR_OVERLAP;
    }
    if (bus->entry_count == BUS_DEVICE_MAX) {
        return LOAM_ERROR_EXHAUSTED;
    }
    entry = (struct bus_entry){.device = *device, .lock = lock_for(bus, device->device)};
    memmove(&bus->entries[index + 1], &bus->entries[index], (bus->entry_count - index) * sizeof bus->entries[0]);
    bus->entries[index] = entry;
    bus->entry_count++;
    return LOAM_OK;
}

const char *bus_device_name(const struct bus *bus, enum bus_space space, uint64_t address, uint32_t bytes)
{
    const struct bus_entry *entry = find(bus, space, address, bytes);

    return entry != NULL ? entry->device.name : NULL;
}

void bus_seal(struct bus *bus)
{
    bus->is_sealed = true;
}

static void note_missed(struct bus_unclaimed *unclaimed, enum bus_space space, uint64_t address,
                        const struct bus_access *access)
{
    struct bus_missed *last;

    pthread_mutex_lock(&unclaimed->lock);
    last = &unclaimed->missed[(unclaimed->missed_count - 1) % BUS_MISSED_MAX];
    unclaimed->count++;
    if (unclaimed->missed_count == 0 || last->space != space || last->address != address ||
        last->bytes != access->bytes || last->is_write != access->is_write) {
        last = &unclaimed->missed[unclaimed->missed_count++ % BUS_MISSED_MAX];
        *last = (struct bus_missed){space, address, access->bytes, access->is_write, 0, 0};
    }
    last->value = access->value;
    last->count++;
    pthread_mutex_unlock(&unclaimed->lock);
}

uint32_t bus_missed(struct bus *bus, struct bus_missed missed[BUS_MISSED_MAX])
{
    struct bus_unclaimed *unclaimed = &bus->unclaimed;
    uint32_t count;

    pthread_mutex_lock(&unclaimed->lock);
    count = unclaimed->missed_count < BUS_MISSED_MAX ? unclaimed->missed_count : BUS_MISSED_MAX;
    for (uint32_t i = 0; i < count; i++) {
        missed[i] = unclaimed->missed[(unclaimed->missed_count - 1 - i) % BUS_MISSED_MAX];
    }
    pthread_mutex_unlock(&unclaimed->lock);
    return count;
}

bool bus_dispatch(struct bus *bus, enum bus_space space, uint64_t address, void *data, uint32_t bytes, bool is_write)
{
    const bool bytes_valid = bytes <= 8 && loam_is_power_of_two(bytes);
    const struct bus_entry *entry = bytes_valid ? find(bus, space, address, bytes) : NULL;
    struct bus_access access = {.bytes = bytes, .is_write = is_write, .value = is_write ? 0 : UINT64_MAX};

    if (is_write && bytes_valid) {
        memcpy(&access.value, data, bytes);
    }
    if (entry != NULL) {
        access.offset = address - entry->device.base;
        pthread_mutex_lock(&bus->locks[entry->lock].mutex);
        entry->device.access(entry->device.device, &access);
        pthread_mutex_unlock(&bus->locks[entry->lock].mutex);
    } else {
        note_missed(&bus->unclaimed, space, address, &access);
    }
    if (!is_write && entry != NULL) {
        memcpy(data, &access.value, bytes);
    } else if (!is_write) {
        memset(data, 0xff, bytes);
    }
    return entry != NULL;
}
