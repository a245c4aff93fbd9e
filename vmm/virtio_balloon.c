// SPDX-License-Identifier: Apache-2.0
/*
 * Page numbers are gathered into runs, for a call of the kernel's costs more than a page. A run becomes ranges of one region
 * each, a range becomes ranges without pinned buffers, and those are given back. What falls out on the way is kept.
 */
#include "vmm/virtio_balloon.h"

#include "vmm/virtio_pieces.h"

#include <string.h>
#include <sys/mman.h>

#define NUMBER_BATCH 256u /* page numbers read at once: what Linux puts into one buffer */

/* Bytes given back by one call of the kernel's at most: some milliseconds. */
#define CALL_BYTES (64 * LOAM_MIB)

/* A chain whose pages are given back. */
struct giving {
    struct virtio_balloon *balloon;
    const struct virtio_job *job;
    uint64_t named_pages;
    uint64_t given_pages;
};

/* --- Ranges ------------------------------------------------------------------------------------------------------ */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Whether memory of a backing can be given back in pages of 4 KiB, and got again by touching it. */
static bool gives(const struct loam_backing_info *info)
{
    return (info->pages == LOAM_PAGES_4K || info->pages == LOAM_PAGES_THP) && info->adoption == LOAM_ADOPTION_NONE &&
           !info->locked;
}

/* [start, end) lies in the region, which is of the backing, and is pinned nowhere. */
static void give(struct giving *giving, const struct loam_region *region, const struct loam_backing_info *info,
                 uint64_t start, uint64_t end)
{
    const int advice = info->sharing == LOAM_SHARING_SHARED ? MADV_REMOVE : MADV_DONTNEED;

    while (start < end && !virtio_worker_must_stop(&giving->balloon->worker)) {
        const uint64_t bytes = smaller(end - start, CALL_BYTES);

        if (madvise((char *)region->hva + (start - region->start.value), bytes, advice) == 0) {
            giving->given_pages += bytes >> VIRTIO_BALLOON_PAGE_SHIFT;
        }
        start += bytes;
    }
}

/* The first pinned buffer in [start, end), as far as it lies there; *pin_start is end if there is none. */
static void find_pinned(struct loam_dma *dma, uint64_t start, uint64_t end, uint64_t *pin_start, uint64_t *pin_end)
{
    struct loam_dma_entry entry;
    uint64_t at = start;

    *pin_start = end;
    *pin_end = end;
    while (at < end && loam_dma_next(dma, loam_gpa_from_u64(at), &entry) == LOAM_OK && entry.buffer.gpa.value < end) {
        at = loam_dma_entry_end(&entry).value;
        if (entry.pin_count > 0) {
            *pin_start = entry.buffer.gpa.value > start ? entry.buffer.gpa.value : start;
            *pin_end = smaller(at, end);
            return;
        }
    }
}

static void give_in_region(struct giving *giving, const struct loam_region *region, uint64_t start, uint64_t end)
{
    struct loam_memory *memory = giving->balloon->config.memory;
    struct loam_backing_info info;

    if (region->type != LOAM_REGION_RAM || region->access != LOAM_ACCESS_WRITE ||
        loam_memory_backing(memory, region->backing - 1, &info) != LOAM_OK || !gives(&info)) {
        return;
    }
    while (start < end) {
        uint64_t pin_start, pin_end;

        find_pinned(loam_memory_dma(memory), start, end, &pin_start, &pin_end);
        give(giving, region, &info, start, pin_start);
        start = pin_end;
    }
}

/* Whole pages, which may lie anywhere. */
static void give_range(struct giving *giving, uint64_t start, uint64_t end)
{
    giving->named_pages += (end - start) >> VIRTIO_BALLOON_PAGE_SHIFT;
    while (start < end && !virtio_worker_must_stop(&giving->balloon->worker)) {
        struct loam_region region;
        uint64_t part_end = start + VIRTIO_BALLOON_PAGE_BYTES;

        if (loam_gpa_view_find(giving->job->view, loam_gpa_from_u64(start), &region) == LOAM_OK) {
            part_end = smaller(end, region.start.value + region.bytes);
            give_in_region(giving, &region, start, part_end);
        }
        start = part_end;
    }
}

/* --- Chains ------------------------------------------------------------------------------------------------------ */

/* Pages one after the other, upwards or downwards; empty if start == end. */
struct run {
    uint64_t start;
    uint64_t end;
};

static void end_run(struct giving *giving, struct run *run)
{
    give_range(giving, run->start << VIRTIO_BALLOON_PAGE_SHIFT, run->end << VIRTIO_BALLOON_PAGE_SHIFT);
    *run = (struct run){0};
}

static void add_page(struct giving *giving, struct run *run, uint64_t page)
{
    if (run->start < run->end && page == run->end) {
        run->end++;
    } else if (run->start < run->end && page + 1 == run->start) {
        run->start--;
    } else {
        end_run(giving, run);
        *run = (struct run){page, page + 1};
    }
}

/* The next numbers of a chain; 0: no more whole ones. */
static uint32_t read_numbers(const struct virtio_job *job, struct virtio_pieces *pieces, uint32_t numbers[NUMBER_BATCH])
{
    const uint64_t bytes =
        smaller(pieces->left_bytes - pieces->left_bytes % sizeof numbers[0], NUMBER_BATCH * sizeof numbers[0]);

    return virtio_pieces_read(pieces, job->view, numbers, bytes) ? (uint32_t)(bytes / sizeof numbers[0]) : 0;
}

static void inflate(struct giving *giving)
{
    struct virtio_pieces pieces = virtio_pieces_readable(&giving->job->chain);
    uint32_t numbers[NUMBER_BATCH];
    struct run run = {0};
    const uint64_t named = pieces.left_bytes / sizeof numbers[0];

    pieces.left_bytes = smaller(pieces.left_bytes, VIRTIO_BALLOON_CHAIN_PAGES * sizeof numbers[0]);
    for (uint32_t count; (count = read_numbers(giving->job, &pieces, numbers)) > 0;) {
        for (uint32_t i = 0; i < count; i++) {
            add_page(giving, &run, numbers[i]);
        }
    }
    end_run(giving, &run);
    giving->named_pages = named;
}

/* Of each buffer the whole pages. */
static void report(struct giving *giving)
{
    const struct virtqueue_chain *chain = &giving->job->chain;

    for (uint32_t i = 0; i < chain->writable_count; i++) {
        const struct loam_piece *piece = &chain->pieces[chain->readable_count + i];
        const uint64_t start = loam_align_up(piece->start.value, VIRTIO_BALLOON_PAGE_BYTES);
        const uint64_t end = loam_align_down(piece->start.value + piece->bytes, VIRTIO_BALLOON_PAGE_BYTES);

        if (start < end) {
            give_range(giving, start, end);
        }
    }
}

static void count(struct virtio_balloon *balloon, uint64_t *named_pages, const struct giving *giving)
{
    virtio_mmio_lock(&balloon->mmio);
    *named_pages += giving->named_pages;
    balloon->stats.given_pages += giving->given_pages;
    balloon->stats.kept_pages += giving->named_pages - giving->given_pages;
    virtio_mmio_unlock(&balloon->mmio);
}

/* The guest's affair: pages come with the first touch. */
static void deflate(struct virtio_balloon *balloon, const struct virtio_job *job)
{
    virtio_mmio_lock(&balloon->mmio);
    balloon->stats.deflated_pages += job->chain.readable_bytes / sizeof(uint32_t);
    virtio_mmio_unlock(&balloon->mmio);
}

static uint32_t serve(void *self, const struct virtio_job *job)
{
    struct virtio_balloon *balloon = self;
    struct giving giving = {.balloon = balloon, .job = job};

    if (job->queue == VIRTIO_BALLOON_INFLATE) {
        inflate(&giving);
        count(balloon, &balloon->stats.inflated_pages, &giving);
    } else if (job->queue == VIRTIO_BALLOON_DEFLATE) {
        deflate(balloon, job);
    } else if ((job->features & VIRTIO_BALLOON_F_REPORTING) != 0) {
        report(&giving);
        count(balloon, &balloon->stats.reported_pages, &giving);
    }
    return 0;
}

/* --- The transport ----------------------------------------------------------------------------------------------- */

static void notify(void *self, uint32_t queue)
{
    struct virtio_balloon *balloon = self;

    virtio_worker_ring(&balloon->worker, queue);
}

static void stop(void *self, uint32_t queue)
{
    struct virtio_balloon *balloon = self;

    virtio_worker_drop(&balloon->worker, queue);
}

static void set_actual(struct virtio_balloon *balloon, uint32_t actual)
{
    if (balloon->layout.actual == actual) {
        return;
    }
    balloon->layout.actual = actual;
    if (balloon->config.changed != NULL) {
        balloon->config.changed(balloon->config.self, actual);
    }
}

static void reset(void *self)
{
    set_actual(self, 0);
}

static void config_read(void *self, uint32_t offset, uint8_t *data, uint32_t bytes)
{
    const struct virtio_balloon *balloon = self;

    memcpy(data, (const uint8_t *)&balloon->layout + offset, bytes);
}

/* The target is not the driver's to write. */
static void config_write(void *self, uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    struct virtio_balloon *balloon = self;
    struct virtio_balloon_layout written = balloon->layout;

    memcpy((uint8_t *)&written + offset, data, bytes);
    set_actual(balloon, written.actual);
}

/* --- Public ------------------------------------------------------------------------------------------------------ */

static enum loam_error start(struct virtio_balloon *balloon, struct irq_line irq, struct loam_diag *diag)
{
    const struct virtio_device device = {
        .self = balloon,
        .id = VIRTIO_BALLOON_DEVICE_ID,
        .queue_count = VIRTIO_BALLOON_QUEUE_COUNT,
        .queue_size_max = VIRTIO_BALLOON_QUEUE_SIZE_MAX,
        .config_bytes = sizeof balloon->layout,
        .features = (balloon->config.deflate_on_oom ? VIRTIO_BALLOON_F_DEFLATE_ON_OOM : 0) |
                    (balloon->config.reporting ? VIRTIO_BALLOON_F_REPORTING : 0),
        .notify = notify,
        .stop = stop,
        .reset = reset,
        .config_read = config_read,
        .config_write = config_write,
    };
    enum loam_error error = virtio_mmio_init(&balloon->mmio, loam_memory_map(balloon->config.memory), irq, &device);

    if (error != LOAM_OK) {
        return loam_fail(diag, error, "balloon: the guest's memory is wanted");
    }
    error = virtio_worker_start(&balloon->worker, &balloon->mmio, serve, balloon, "balloon", diag);
    if (error != LOAM_OK) {
        virtio_mmio_destroy(&balloon->mmio);
    }
    return error;
}

enum loam_error virtio_balloon_init(struct virtio_balloon *balloon, struct irq_line irq,
                                    const struct virtio_balloon_config *config, struct loam_diag *diag)
{
    balloon->config = *config;
    balloon->layout = (struct virtio_balloon_layout){.num_pages = 0};
    balloon->stats = (struct virtio_balloon_stats){.given_pages = 0};
    return start(balloon, irq, diag);
}

bool virtio_balloon_destroy(struct virtio_balloon *balloon)
{
    if (!virtio_worker_end(&balloon->worker)) {
        return false;
    }
    virtio_mmio_destroy(&balloon->mmio);
    return true;
}

void virtio_balloon_set_target(struct virtio_balloon *balloon, uint32_t pages)
{
    virtio_mmio_lock(&balloon->mmio);
    if (balloon->layout.num_pages != pages) {
        balloon->layout.num_pages = pages;
        virtio_mmio_config_changed(&balloon->mmio);
    }
    virtio_mmio_unlock(&balloon->mmio);
}

uint32_t virtio_balloon_actual(struct virtio_balloon *balloon)
{
    uint32_t actual;

    virtio_mmio_lock(&balloon->mmio);
    actual = balloon->layout.actual;
    virtio_mmio_unlock(&balloon->mmio);
    return actual;
}

void virtio_balloon_get_stats(struct virtio_balloon *balloon, struct virtio_balloon_stats *stats)
{
    virtio_mmio_lock(&balloon->mmio);
    *stats = balloon->stats;
    virtio_mmio_unlock(&balloon->mmio);
}

void virtio_balloon_quiesce(struct virtio_balloon *balloon)
{
    virtio_worker_hold(&balloon->worker);
}

void virtio_balloon_resume(struct virtio_balloon *balloon)
{
    virtio_worker_resume(&balloon->worker);
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

static const struct state_field state_fields[] = {
    STATE_ANY(struct virtio_balloon, layout.num_pages),
    STATE_ANY(struct virtio_balloon, layout.actual),
};

void virtio_balloon_save(struct virtio_balloon *balloon, struct state_writer *writer, uint32_t index)
{
    virtio_mmio_save(&balloon->mmio, writer, index);
    state_begin(writer, STATE_VIRTIO_BALLOON, index);
    state_put_fields(writer, STATE_FIELDS(state_fields), balloon);
    state_end(writer);
}

enum loam_error virtio_balloon_load(struct virtio_balloon *balloon, struct state_reader *reader, uint32_t index,
                                    struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = virtio_mmio_load(&balloon->mmio, reader, index, diag);

    if (error == LOAM_OK) {
        error = state_find(reader, STATE_VIRTIO_BALLOON, index, &record, diag);
    }
    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(state_fields), balloon, diag);
    }
    if (error == LOAM_OK && balloon->config.changed != NULL) {
        balloon->config.changed(balloon->config.self, balloon->layout.actual);
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}
