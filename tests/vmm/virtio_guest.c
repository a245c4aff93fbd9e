// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/virtio_guest.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 4096, ARENA_PAGES = 44 };

/* Where the arena has which region: canary pages before, between and behind. */
static const struct {
    uint64_t start;
    uint64_t bytes;
    ptrdiff_t offset;
    bool writable;
} regions[GUEST_REGION_COUNT] = {
    {GUEST_LOW, 0x4000, 39 * PAGE_BYTES, true},
    {GUEST_NEXT, 0x2000, 1 * PAGE_BYTES, true},
    {GUEST_READONLY, 0x1000, 37 * PAGE_BYTES, false},
    {GUEST_HIGH, 0x20000, 4 * PAGE_BYTES, true},
};

static void insert(struct loam_gpa_map *map, const struct loam_region *region)
{
    cr_assert_eq(loam_gpa_map_insert(map, region), LOAM_OK);
}

static void fill_map(struct virtio_guest *guest)
{
    for (uint32_t i = 0; i < GUEST_REGION_COUNT; i++) {
        memset(guest->arena + regions[i].offset, 0, regions[i].bytes);
        insert(guest->map, &(struct loam_region){
                               .start = loam_gpa_from_u64(regions[i].start),
                               .bytes = regions[i].bytes,
                               .hva = guest->arena + regions[i].offset,
                               .backing_offset = (uint64_t)regions[i].offset,
                               .backing = 1,
                               .type = LOAM_REGION_RAM,
                               .access = regions[i].writable ? LOAM_ACCESS_WRITE : LOAM_ACCESS_READ,
                           });
    }
    insert(guest->map, &(struct loam_region){
                           .start = loam_gpa_from_u64(GUEST_DEVICE),
                           .bytes = GUEST_DEVICE_END - GUEST_DEVICE,
                           .type = LOAM_REGION_DEVICE,
                       });
}

void virtio_guest_init(struct virtio_guest *guest)
{
    const size_t map_bytes = loam_gpa_map_bytes(NULL);

    guest->arena_bytes = (size_t)ARENA_PAGES * PAGE_BYTES;
    guest->arena = aligned_alloc(PAGE_BYTES, guest->arena_bytes);
    guest->map_memory = aligned_alloc(64, (size_t)loam_align_up(map_bytes, 64));
    cr_assert_not_null(guest->arena);
    cr_assert_not_null(guest->map_memory);
    memset(guest->arena, GUEST_CANARY, guest->arena_bytes);
    cr_assert_eq(loam_gpa_map_init(guest->map_memory, map_bytes, NULL, &guest->map), LOAM_OK);
    fill_map(guest);
}

void virtio_guest_destroy(struct virtio_guest *guest)
{
    free(guest->map_memory);
    free(guest->arena);
}

ptrdiff_t virtio_guest_offset(uint64_t gpa, bool write)
{
    for (uint32_t i = 0; i < GUEST_REGION_COUNT; i++) {
        if (gpa >= regions[i].start && gpa - regions[i].start < regions[i].bytes && (regions[i].writable || !write)) {
            return regions[i].offset + (ptrdiff_t)(gpa - regions[i].start);
        }
    }
    return -1;
}

void virtio_guest_init_over(struct virtio_guest *guest, struct loam_gpa_map *map)
{
    *guest = (struct virtio_guest){.map = map};
}

void *virtio_guest_at(const struct virtio_guest *guest, uint64_t gpa)
{
    const ptrdiff_t offset = virtio_guest_offset(gpa, false);
    void *hva;

    if (guest->arena == NULL) {
        cr_assert_eq(loam_gpa_map_translate(guest->map, loam_gpa_from_u64(gpa), 1, LOAM_ACCESS_READ, &hva), LOAM_OK);
        return hva;
    }
    cr_assert_geq(offset, 0);
    return guest->arena + offset;
}

void virtio_guest_put_16(const struct virtio_guest *guest, uint64_t gpa, uint16_t value)
{
    memcpy(virtio_guest_at(guest, gpa), &value, sizeof value);
}

uint16_t virtio_guest_get_16(const struct virtio_guest *guest, uint64_t gpa)
{
    uint16_t value;

    memcpy(&value, virtio_guest_at(guest, gpa), sizeof value);
    return value;
}

uint32_t virtio_guest_get_32(const struct virtio_guest *guest, uint64_t gpa)
{
    uint32_t value;

    memcpy(&value, virtio_guest_at(guest, gpa), sizeof value);
    return value;
}

void virtio_guest_put_descriptor(const struct virtio_guest *guest, uint64_t table, uint16_t index, uint64_t address,
                                 uint32_t bytes, uint16_t flags, uint16_t next)
{
    uint8_t *at = virtio_guest_at(guest, table + UINT64_C(16) * index);

    memcpy(at, &address, 8);
    memcpy(at + 8, &bytes, 4);
    memcpy(at + 12, &flags, 2);
    memcpy(at + 14, &next, 2);
}

/* --- A correct driver ------------------------------------------------------------------------------------------- */

void virtio_driver_init(struct virtio_driver *driver, const struct virtio_guest *guest, uint32_t size, uint64_t start)
{
    const uint64_t available = start + UINT64_C(16) * size;
    const uint64_t used = loam_align_up(available + 6 + UINT64_C(2) * size, 4);
    const uint64_t end = used + 6 + UINT64_C(8) * size;

    cr_assert_leq(size, GUEST_QUEUE_SIZE_MAX);
    memset(driver, 0, sizeof *driver);
    driver->guest = guest;
    driver->config =
        (struct virtqueue_config){.size = size, .descriptors = {start}, .available = {available}, .used = {used}};
    for (uint64_t gpa = start; gpa < end; gpa += 2) {
        virtio_guest_put_16(guest, gpa, 0);
    }
    for (uint32_t i = 0; i < size; i++) {
        driver->free[driver->free_count++] = (uint16_t)i;
    }
}

bool virtio_driver_add(struct virtio_driver *driver, const struct virtio_buffer *buffers, uint16_t count,
                       uint16_t *head)
{
    const uint64_t available = driver->config.available.value;
    const uint64_t slot = driver->available_index % driver->config.size;
    uint16_t next = 0;

    if (count == 0 || count > driver->free_count) {
        return false;
    }
    /* From the last one to the first, so that each knows its successor. */
    for (uint16_t i = count; i > 0; i--) {
        const struct virtio_buffer *buffer = &buffers[i - 1];
        const uint16_t index = driver->free[--driver->free_count];
        const uint32_t flags = (i < count ? VIRTQ_DESC_F_NEXT : 0u) | (buffer->writable ? VIRTQ_DESC_F_WRITE : 0u);

        virtio_guest_put_descriptor(driver->guest, driver->config.descriptors.value, index, buffer->gpa, buffer->bytes,
                                    (uint16_t)flags, next);
        driver->chain_next[index] = next;
        next = index;
    }
    driver->chain_count[next] = count;
    virtio_guest_put_16(driver->guest, available + 4 + 2 * slot, next);
    __atomic_store_n((uint16_t *)virtio_guest_at(driver->guest, available + 2), ++driver->available_index,
                     __ATOMIC_RELEASE);
    *head = next;
    return true;
}

bool virtio_driver_take(struct virtio_driver *driver, uint32_t *head, uint32_t *written_bytes)
{
    const uint64_t used = driver->config.used.value;
    const uint64_t slot = used + 4 + UINT64_C(8) * (driver->used_index % driver->config.size);
    uint16_t index;

    if (__atomic_load_n((uint16_t *)virtio_guest_at(driver->guest, used + 2), __ATOMIC_ACQUIRE) == driver->used_index) {
        return false;
    }
    *head = virtio_guest_get_32(driver->guest, slot);
    *written_bytes = virtio_guest_get_32(driver->guest, slot + 4);
    cr_assert_lt(*head, driver->config.size);
    cr_assert_gt(driver->chain_count[*head], 0, "chain %u was not with the device", *head);
    index = (uint16_t)*head;
    for (uint16_t i = driver->chain_count[*head]; i > 0; i--) {
        driver->free[driver->free_count++] = index;
        index = driver->chain_next[index];
    }
    driver->chain_count[*head] = 0;
    driver->used_index++;
    return true;
}
