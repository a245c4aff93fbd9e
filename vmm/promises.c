// SPDX-License-Identifier: Apache-2.0
#include "vmm/promises.h"

#include "vmm/machine.h"
#include "vmm/sabotage.h"

#include <inttypes.h>
#include <string.h>

#define PAGE_BYTES        UINT64_C(4096)
#define RING_QUEUE_SIZE   8
#define HOLE_FAR_BYTES    UINT64_C(0xe0000000) /* a page of the hole that no machine here puts a device in */
#define SEED              UINT64_C(0x6c6f616d) /* fixed, so that a failure can be seen again */
#define IMAGE_START_BYTES LOAM_MIB             /* where the guest is linked; left free for it */
#define IMAGE_END_BYTES   (LOAM_MIB + LOAM_MIB / 2)

static enum loam_error promise(struct promises *promises, uint32_t kind, uint64_t start, uint64_t bytes,
                               uint64_t argument, struct loam_diag *diag)
{
    struct loam_abi_table *table = &promises->listed;

    if (table->range_count == LOAM_ABI_RANGE_MAX) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "self-test: the table holds %u ranges, and one more is needed",
                         LOAM_ABI_RANGE_MAX);
    }
    table->ranges[table->range_count++] = (struct loam_abi_range){start, bytes, argument, kind, 0};
    return LOAM_OK;
}

static enum loam_error check_room(const struct promises *promises, struct loam_diag *diag)
{
    return promises->buffer_count < PROMISES_BUFFER_MAX
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_EXHAUSTED, "self-test: %d buffers are carved, and one more is needed",
                           PROMISES_BUFFER_MAX);
}

static enum loam_error carve(struct promises *promises, const struct loam_dma_request *request,
                             struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    enum loam_error error = check_room(promises, diag);

    if (error == LOAM_OK) {
        error = loam_dma_alloc(loam_memory_dma(promises->memory), request, buffer, diag);
    }
    if (error == LOAM_OK) {
        promises->buffers[promises->buffer_count++] = buffer->id;
    }
    return error;
}

static void fill_pattern(const struct loam_dma_buffer *buffer, uint64_t seed)
{
    uint64_t *words = buffer->hva;

    for (uint64_t i = 0; i < buffer->bytes / sizeof *words; i++) {
        words[i] = loam_abi_pattern(seed, buffer->gpa.value + i * sizeof *words);
    }
}

/* Carve one page at gpa and promise it; a page that is taken already, or that the guest's image needs, is
 * left out. */
static enum loam_error promise_page(struct promises *promises, uint32_t kind, const char *owner, uint64_t gpa,
                                    struct loam_diag *diag)
{
    uint64_t seed = SEED + promises->listed.range_count;
    struct loam_dma_request request = {.owner = owner, .bytes = PAGE_BYTES, .flags = LOAM_DMA_AT, .at = {gpa}};
    struct loam_dma_buffer buffer;
    enum loam_error error;

    if (gpa >= IMAGE_START_BYTES && gpa < IMAGE_END_BYTES) {
        return LOAM_OK;
    }
    error = carve(promises, &request, &buffer, diag);
    if (error == LOAM_ERROR_BUSY) {
        return LOAM_OK;
    }
    if (error == LOAM_OK && kind == LOAM_ABI_KIND_PATTERN) {
        fill_pattern(&buffer, seed);
    }
    return error != LOAM_OK ? error : promise(promises, kind, gpa, PAGE_BYTES, seed, diag);
}

/* Patterns and echoes lie spread over every range of RAM, the last page of each among them. */
static enum loam_error promise_spread(struct promises *promises, const struct loam_e820_entry *ram,
                                      struct loam_diag *diag)
{
    static const struct {
        uint32_t eighths, kind;
        const char *owner;
    } places[] = {
        {1, LOAM_ABI_KIND_ECHO, "self-test echo"},       {2, LOAM_ABI_KIND_PATTERN, "self-test pattern"},
        {4, LOAM_ABI_KIND_PATTERN, "self-test pattern"}, {5, LOAM_ABI_KIND_ECHO, "self-test echo"},
        {6, LOAM_ABI_KIND_PATTERN, "self-test pattern"}, {8, LOAM_ABI_KIND_PATTERN, "self-test pattern"},
    };
    enum loam_error error = LOAM_OK;

    for (size_t i = 0; i < sizeof places / sizeof places[0] && error == LOAM_OK; i++) {
        uint64_t offset = loam_align_down(ram->bytes / 8 * places[i].eighths, PAGE_BYTES);

        offset -= offset + PAGE_BYTES > ram->bytes ? PAGE_BYTES : 0;
        error = promise_page(promises, places[i].kind, places[i].owner, ram->start + offset, diag);
    }
    return error;
}

/* Buffers below 4 GiB, each under another constraint. */
static enum loam_error promise_dma32(struct promises *promises, struct loam_diag *diag)
{
    static const struct {
        uint64_t bytes, align_bytes, boundary_bytes, limit_bytes;
    } wanted[] = {
        {4096, 0, 0, LOAM_DMA32_END_BYTES},
        {8192, 8192, 0, LOAM_DMA32_END_BYTES},
        {12288, 0, 16384, LOAM_DMA32_END_BYTES},
        {65536, 65536, 65536, LOAM_DMA32_END_BYTES},
        {4096, 512 * LOAM_KIB, 0, LOAM_DMA32_END_BYTES},
        {16384, 0, 0, 16 * LOAM_MIB},
    };
    enum loam_error error = LOAM_OK;

    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0] && error == LOAM_OK; i++) {
        struct loam_dma_request request = {.owner = "self-test DMA32",
                                           .bytes = wanted[i].bytes,
                                           .align_bytes = wanted[i].align_bytes,
                                           .boundary_bytes = wanted[i].boundary_bytes,
                                           .limit = {wanted[i].limit_bytes}};
        struct loam_dma_buffer buffer;

        error = carve(promises, &request, &buffer, diag);
        if (error == LOAM_OK) {
            error = promise(promises, LOAM_ABI_KIND_DMA32, buffer.gpa.value, buffer.bytes, 0, diag);
        }
    }
    return error;
}

static enum loam_error promise_ring(struct promises *promises, struct loam_diag *diag)
{
    struct loam_dma_request data_request = {
        .owner = "self-test ring data", .bytes = PAGE_BYTES, .limit = {LOAM_DMA32_END_BYTES}};
    struct loam_virtqueue_rings rings;
    struct loam_dma_buffer data;
    enum loam_error error;

    if ((error = check_room(promises, diag)) != LOAM_OK ||
        (error = loam_dma_alloc_virtqueue(loam_memory_dma(promises->memory), "self-test rings", RING_QUEUE_SIZE,
                                          (loam_gpa){LOAM_DMA32_END_BYTES}, &rings, diag)) != LOAM_OK) {
        return error;
    }
    promises->buffers[promises->buffer_count++] = rings.buffer.id;
    if ((error = carve(promises, &data_request, &data, diag)) != LOAM_OK ||
        (error = promise(promises, LOAM_ABI_KIND_DESCRIPTORS, rings.descriptors.value, UINT64_C(16) * RING_QUEUE_SIZE,
                         RING_QUEUE_SIZE, diag)) != LOAM_OK ||
        (error = promise(promises, LOAM_ABI_KIND_AVAILABLE, rings.available.value, 6 + 2 * RING_QUEUE_SIZE, 0, diag)) !=
            LOAM_OK ||
        (error = promise(promises, LOAM_ABI_KIND_USED, rings.used.value, 6 + 8 * RING_QUEUE_SIZE, 0, diag)) !=
            LOAM_OK ||
        (error = promise(promises, LOAM_ABI_KIND_RING_DATA, data.gpa.value, data.bytes, 0, diag)) != LOAM_OK) {
        return error;
    }
    return promise(promises, LOAM_ABI_KIND_VIRTIO_RNG, MACHINE_VIRTIO_BASE, MACHINE_VIRTIO_BYTES, 0, diag);
}

static enum loam_error promise_readonly(struct promises *promises, struct loam_diag *diag)
{
    struct loam_dma_request request = {.owner = "self-test read-only", .bytes = 2 * PAGE_BYTES};
    struct loam_dma_buffer *buffer = &promises->readonly;
    enum loam_error error = carve(promises, &request, buffer, diag);

    if (error != LOAM_OK) {
        return error;
    }
    fill_pattern(buffer, SEED);
    error = loam_gpa_map_protect(loam_memory_map(promises->memory), buffer->gpa, buffer->bytes, LOAM_ACCESS_READ);
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "self-test: no read-only range at GPA 0x%" PRIx64 ": %s", buffer->gpa.value,
                         loam_error_name(error));
    }
    promises->is_protected = true;
    return promise(promises, LOAM_ABI_KIND_READONLY, buffer->gpa.value, buffer->bytes, SEED, diag);
}

static enum loam_error promise_holes(struct promises *promises, struct loam_diag *diag)
{
    uint64_t start = loam_memory_plan(promises->memory)->hole_start.value;
    enum loam_error error = promise(promises, LOAM_ABI_KIND_HOLE, start, PAGE_BYTES, SEED, diag);

    return error != LOAM_OK ? error : promise(promises, LOAM_ABI_KIND_HOLE, HOLE_FAR_BYTES, PAGE_BYTES, SEED + 1, diag);
}

static enum loam_error read_e820(const struct promises *promises, struct loam_e820_entry *entries, uint32_t capacity,
                                 uint32_t *count, struct loam_diag *diag)
{
    struct loam_gpa_map *map = loam_memory_map(promises->memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    enum loam_error error = loam_gpa_view_e820(view, entries, capacity, count);

    loam_gpa_map_release(map, view);
    return error == LOAM_OK ? error : loam_fail(diag, error, "self-test: no E820 map: %s", loam_error_name(error));
}

#define E820_MAX 32

static enum loam_error promise_all(struct promises *promises, struct loam_diag *diag)
{
    struct loam_dma_request request = {
        .owner = "self-test table", .bytes = LOAM_ABI_BYTES, .limit = {LOAM_DMA32_END_BYTES}};
    struct loam_e820_entry entries[E820_MAX];
    uint32_t count;
    enum loam_error error = read_e820(promises, entries, E820_MAX, &count, diag);

    for (uint32_t i = 0; i < count && error == LOAM_OK; i++) {
        if (entries[i].type == LOAM_E820_RAM) {
            error = promise_spread(promises, &entries[i], diag);
        }
    }
    if (error != LOAM_OK || (error = promise_dma32(promises, diag)) != LOAM_OK ||
        (error = promise_ring(promises, diag)) != LOAM_OK || (error = promise_readonly(promises, diag)) != LOAM_OK ||
        (error = promise_holes(promises, diag)) != LOAM_OK) {
        return error;
    }
    return carve(promises, &request, &promises->table, diag);
}

/* --- Public ---------------------------------------------------------------------------------------------------- */

enum loam_error promises_make(struct promises *promises, struct loam_memory *memory, struct loam_diag *diag)
{
    enum loam_error error;

    *promises = (struct promises){.memory = memory};
    error = promise_all(promises, diag);
    if (error != LOAM_OK) {
        promises_release(promises);
    }
    return error;
}

void promises_release(struct promises *promises)
{
    if (promises->is_protected) {
        enum loam_error ignored = loam_gpa_map_protect(loam_memory_map(promises->memory), promises->readonly.gpa,
                                                       promises->readonly.bytes, LOAM_ACCESS_WRITE);

        (void)ignored; /* the range stays read-only, which harms nobody */
    }
    while (promises->buffer_count > 0) {
        enum loam_error ignored =
            loam_dma_release(loam_memory_dma(promises->memory), promises->buffers[--promises->buffer_count]);

        (void)ignored; /* it was carved here and is pinned by nobody */
    }
}

enum loam_error promises_publish(struct promises *promises, const struct boot_state *boot, struct loam_diag *diag)
{
    uint64_t image_start = loam_align_down(boot->image_start.value, PAGE_BYTES);
    uint64_t image_end = loam_align_up(boot->image_start.value + boot->image_bytes, PAGE_BYTES);
    struct loam_e820_entry entries[E820_MAX];
    uint32_t count;
    enum loam_error error = read_e820(promises, entries, E820_MAX, &count, diag);

    for (uint32_t i = 0; i < count && error == LOAM_OK; i++) {
        if (entries[i].type == LOAM_E820_RAM) {
            error = promise(promises, LOAM_ABI_KIND_RAM, entries[i].start, entries[i].bytes, 0, diag);
        }
    }
    if (error != LOAM_OK ||
        (error = promise(promises, LOAM_ABI_KIND_KEPT, image_start, image_end - image_start, 0, diag)) != LOAM_OK ||
        (error = promise(promises, LOAM_ABI_KIND_KEPT, promises->table.gpa.value, LOAM_ABI_BYTES, 0, diag)) !=
            LOAM_OK) {
        return error;
    }
    promises->listed.magic = LOAM_ABI_MAGIC;
    promises->listed.version = LOAM_ABI_VERSION;
    sabotage_strike(SABOTAGE_PUBLISH, promises->memory, &promises->listed);
    memcpy(promises->table.hva, &promises->listed, sizeof promises->listed);
    return LOAM_OK;
}

uint64_t promises_count(const struct promises *promises, uint32_t kind)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < promises->listed.range_count; i++) {
        count += promises->listed.ranges[i].kind == kind;
    }
    return count;
}

uint64_t promises_bytes(const struct promises *promises, uint32_t kind)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < promises->listed.range_count; i++) {
        bytes += promises->listed.ranges[i].kind == kind ? promises->listed.ranges[i].bytes : 0;
    }
    return bytes;
}

const struct loam_abi_range *promises_find(const struct promises *promises, uint32_t kind)
{
    for (uint32_t i = 0; i < promises->listed.range_count; i++) {
        if (promises->listed.ranges[i].kind == kind) {
            return &promises->listed.ranges[i];
        }
    }
    return NULL;
}

uint64_t promises_skip_kept(const struct promises *promises, uint64_t gpa)
{
    for (uint32_t i = 0; i < promises->listed.range_count; i++) {
        const struct loam_abi_range *range = &promises->listed.ranges[i];

        if (range->kind == LOAM_ABI_KIND_KEPT && gpa >= range->start && gpa - range->start < range->bytes) {
            return range->start + range->bytes;
        }
    }
    return gpa;
}
