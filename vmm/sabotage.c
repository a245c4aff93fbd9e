// SPDX-License-Identifier: Apache-2.0
#include "vmm/sabotage.h"

#include "vmm/machine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STUCK_MASK        (UINT64_C(1) << 40) /* clear in what an address test writes */
#define STUCK_NANOSECONDS 20000               /* between two strikes of the stuck bit */

typedef void strike_fn(struct loam_memory *memory, struct loam_abi_table *table);

/* --- Ways to strike ---------------------------------------------------------------------------------------------- */

static struct loam_abi_range *range_of(struct loam_abi_table *table, uint32_t kind)
{
    for (uint32_t i = 0; i < table->range_count; i++) {
        if (table->ranges[i].kind == kind) {
            return &table->ranges[i];
        }
    }
    abort(); /* the self-test lists at least one of each kind */
}

static void *hva_of(struct loam_memory *memory, uint64_t gpa)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    void *hva;

    if (loam_gpa_view_translate(view, (loam_gpa){gpa}, sizeof(uint64_t), LOAM_ACCESS_READ, &hva) != LOAM_OK) {
        abort();
    }
    loam_gpa_map_release(map, view);
    return hva;
}

/* A page of RAM that the guest does not keep for itself: the last of the last range. */
static uint64_t ram_page(const struct loam_abi_table *table)
{
    uint64_t gpa = 0;

    for (uint32_t i = 0; i < table->range_count; i++) {
        const struct loam_abi_range *range = &table->ranges[i];

        if (range->kind == LOAM_ABI_KIND_RAM && range->start + range->bytes > gpa) {
            gpa = range->start + range->bytes;
        }
    }
    return gpa - 4096;
}

static void flip_bit(struct loam_memory *memory, uint64_t gpa)
{
    *(volatile uint64_t *)hva_of(memory, gpa) ^= UINT64_C(1) << 17;
}

static void strike_flip(struct loam_memory *memory, struct loam_abi_table *table)
{
    flip_bit(memory, ram_page(table));
}

static void strike_swap(struct loam_memory *memory, struct loam_abi_table *table)
{
    uint8_t *one = hva_of(memory, ram_page(table)), *other = one - 4096, page[4096];

    memcpy(page, one, sizeof page);
    memcpy(one, other, sizeof page);
    memcpy(other, page, sizeof page);
}

/* A page that takes no writes, though the table lists it as RAM. */
static void strike_ram(struct loam_memory *memory, struct loam_abi_table *table)
{
    if (loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){ram_page(table)}, 4096, LOAM_ACCESS_READ) != LOAM_OK) {
        abort();
    }
}

static void strike_pattern(struct loam_memory *memory, struct loam_abi_table *table)
{
    flip_bit(memory, range_of(table, LOAM_ABI_KIND_PATTERN)->start + 2048);
}

static void strike_echo(struct loam_memory *memory, struct loam_abi_table *table)
{
    flip_bit(memory, range_of(table, LOAM_ABI_KIND_ECHO)->start + 1024);
}

/* A buffer above 4 GiB in the place of one below: the guest must have high RAM. */
static void strike_dma_high(struct loam_memory *memory, struct loam_abi_table *table)
{
    struct loam_abi_range *range = range_of(table, LOAM_ABI_KIND_DMA32);
    struct loam_dma_request request = {.owner = "sabotage", .bytes = range->bytes};
    struct loam_dma_buffer buffer;

    if (loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, NULL) != LOAM_OK ||
        buffer.gpa.value < LOAM_DMA32_END_BYTES) {
        abort();
    }
    range->start = buffer.gpa.value;
}

static void strike_dma_dirty(struct loam_memory *memory, struct loam_abi_table *table)
{
    struct loam_abi_range *range = range_of(table, LOAM_ABI_KIND_DMA32);

    flip_bit(memory, range->start + range->bytes - sizeof(uint64_t));
}

/* Two owners of one buffer. */
static void strike_dma_shared(struct loam_memory *memory, struct loam_abi_table *table)
{
    struct loam_abi_range *range = range_of(table, LOAM_ABI_KIND_DMA32);

    (void)memory;
    for (uint32_t i = 0; i < table->range_count; i++) {
        if (table->ranges[i].kind == LOAM_ABI_KIND_DMA32 && &table->ranges[i] != range) {
            table->ranges[i].start = range->start;
            return;
        }
    }
}

/* No device where the guest is sent. */
static void strike_ring(struct loam_memory *memory, struct loam_abi_table *table)
{
    (void)memory;
    range_of(table, LOAM_ABI_KIND_VIRTIO_RNG)->start += MACHINE_VIRTIO_BYTES;
}

static void strike_readonly(struct loam_memory *memory, struct loam_abi_table *table)
{
    struct loam_abi_range *range = range_of(table, LOAM_ABI_KIND_READONLY);

    if (loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){range->start}, range->bytes, LOAM_ACCESS_WRITE) !=
        LOAM_OK) {
        abort();
    }
}

/* A hole that answers otherwise than the guest's table says: this table is the host's own. */
static void strike_hole(struct loam_memory *memory, struct loam_abi_table *table)
{
    (void)memory;
    range_of(table, LOAM_ABI_KIND_HOLE)->argument ^= 1;
}

/* --- A bit that is stuck at one ---------------------------------------------------------------------------------- */

static struct {
    pthread_t thread;
    atomic_bool runs; /* relaxed: it orders nothing but the thread's own end */
    _Atomic uint64_t *word;
} stuck;

static void *hold_bit(void *unused)
{
    static const struct timespec pause = {.tv_nsec = STUCK_NANOSECONDS};

    (void)unused;
    while (atomic_load_explicit(&stuck.runs, memory_order_relaxed)) {
        atomic_fetch_or_explicit(stuck.word, STUCK_MASK, memory_order_relaxed);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* In the last page of all RAM, where no kernel is loaded. */
static void strike_stuck(struct loam_memory *memory, struct loam_abi_table *table)
{
    const struct loam_plan *plan = loam_memory_plan(memory);
    const struct loam_plan_part *part = &plan->parts[plan->part_count - 1];

    (void)table;
    stuck.word = hva_of(memory, part->start.value + part->bytes - 2048);
    atomic_store_explicit(&stuck.runs, true, memory_order_relaxed);
    if (pthread_create(&stuck.thread, NULL, hold_bit, NULL) != 0) {
        abort();
    }
}

void sabotage_end(void)
{
    if (atomic_exchange_explicit(&stuck.runs, false, memory_order_relaxed)) {
        pthread_join(stuck.thread, NULL);
    }
}

/* --- The choice -------------------------------------------------------------------------------------------------- */

static const struct sabotage {
    const char *name;
    enum sabotage_point point;
    strike_fn *strike;
} sabotages[] = {
    {"flip", SABOTAGE_STAGE, strike_flip},
    {"swap", SABOTAGE_STAGE, strike_swap},
    {"ram", SABOTAGE_PUBLISH, strike_ram},
    {"pattern", SABOTAGE_PUBLISH, strike_pattern},
    {"echo", SABOTAGE_ECHOED, strike_echo},
    {"dma-high", SABOTAGE_PUBLISH, strike_dma_high},
    {"dma-dirty", SABOTAGE_PUBLISH, strike_dma_dirty},
    {"dma-shared", SABOTAGE_PUBLISH, strike_dma_shared},
    {"ring", SABOTAGE_PUBLISH, strike_ring},
    {"readonly", SABOTAGE_PUBLISH, strike_readonly},
    {"hole", SABOTAGE_ATTACH, strike_hole},
    {"stuck", SABOTAGE_ATTACH, strike_stuck},
};

static const struct sabotage *chosen;

bool sabotage_available(void)
{
    return true;
}

bool sabotage_select(const char *name)
{
    for (size_t i = 0; i < sizeof sabotages / sizeof sabotages[0]; i++) {
        if (strcmp(name, sabotages[i].name) == 0) {
            chosen = &sabotages[i];
            return true;
        }
    }
    return false;
}

void sabotage_strike(enum sabotage_point point, struct loam_memory *memory, struct loam_abi_table *table)
{
    if (chosen != NULL && chosen->point == point) {
        chosen->strike(memory, table);
    }
}
