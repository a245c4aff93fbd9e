// SPDX-License-Identifier: Apache-2.0
#include "vmm/capture.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES UINT64_C(4096)

static enum loam_error no_memory(struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "snapshot: no memory for pages that are written while it is taken");
}

static enum loam_error make_pending(struct capture *capture, struct loam_diag *diag)
{
    const struct loam_plan *plan = loam_memory_plan(capture->memory);
    const struct loam_plan_part *last = &plan->parts[plan->part_count - 1];
    const struct loam_dirty_config config = {.bytes = last->start.value + last->bytes};
    const size_t bytes = loam_dirty_bytes(&config);

    capture->pending_memory = calloc(1, bytes);
    return capture->pending_memory != NULL &&
                   loam_dirty_init(capture->pending_memory, bytes, &config, &capture->pending) == LOAM_OK
               ? LOAM_OK
               : no_memory(diag);
}

enum loam_error capture_begin(struct capture *capture, struct machine *machine, struct loam_memory *memory,
                              struct image *image, const atomic_bool *must_end, struct loam_diag *diag)
{
    enum loam_error error;

    *capture = (struct capture){.machine = machine, .memory = memory, .image = image, .must_end = must_end};
    error = resident_open(memory, &capture->resident, diag);
    if (error == LOAM_OK) {
        error = make_pending(capture, diag);
    }
    if (error == LOAM_OK && !image_has_parent(image)) {
        error = machine_log_start(machine, diag);
    }
    capture->is_logging = error == LOAM_OK;
    if (error != LOAM_OK) {
        capture_end(capture, false);
    }
    return error;
}

static enum loam_error add_pending(void *self, uint64_t gpa, uint64_t bytes, struct loam_diag *diag)
{
    const struct capture *capture = self;

    (void)diag;
    (void)loam_dirty_mark(capture->pending, loam_gpa_from_u64(gpa), bytes);
    return LOAM_OK;
}

static enum loam_error gather(struct capture *capture, struct loam_diag *diag)
{
    uint64_t page_count;

    return machine_log_harvest(capture->machine, add_pending, capture, &page_count, diag);
}

/* --- Rounds --------------------------------------------------------------------------------------------------------- */

/* The pending pages of one chunk, which holds the first of them; their copies go to buffer. *count 0: nothing is pending. */
static void copy_chunk(struct capture *capture, loam_gpa *at, uint8_t *buffer,
                       struct image_page pages[IMAGE_CHUNK_PAGES], uint32_t *count)
{
    uint64_t end = 0, bytes;
    loam_gpa start;

    for (*count = 0; loam_dirty_take(capture->pending, *at, PAGE_BYTES, &start, &bytes) == LOAM_OK; ++*count) {
        const uint8_t *hva = resident_hva(capture->resident, start.value, PAGE_BYTES);

        if (*count == 0) {
            end = loam_align_down(start.value, IMAGE_CHUNK_BYTES) + IMAGE_CHUNK_BYTES;
        }
        if (hva == NULL || start.value >= end) {
            (void)loam_dirty_mark(capture->pending, start, PAGE_BYTES);
            break;
        }
        pages[*count] = (struct image_page){start.value, buffer + *count * PAGE_BYTES};
        resident_take(buffer + *count * PAGE_BYTES, hva, PAGE_BYTES);
        at->value = start.value + PAGE_BYTES;
    }
}

static enum loam_error write_pending(struct capture *capture, uint8_t *buffers, struct loam_diag *diag)
{
    struct image_page pages[IMAGE_CHUNK_PAGES];
    enum loam_error error = LOAM_OK;
    loam_gpa at = {0};
    uint32_t count = 1;

    while (error == LOAM_OK && count > 0) {
        if (capture->must_end != NULL && atomic_load(capture->must_end)) {
            return loam_fail(diag, LOAM_ERROR_CANCELLED, "snapshot: the guest has ended before all was written");
        }
        copy_chunk(capture, &at, buffers, pages, &count);
        capture->patched_bytes += count * PAGE_BYTES;
        error = count > 0 ? image_patch(capture->image, pages, count, buffers + IMAGE_CHUNK_BYTES, diag) : LOAM_OK;
    }
    return error;
}

/* All of it; or, of a difference, nothing yet. */
static enum loam_error write_first(struct capture *capture, struct image_tally *tally, struct loam_diag *diag)
{
    *tally = (struct image_tally){0};
    return image_has_parent(capture->image)
               ? image_make_file(capture->image, diag)
               : image_write(capture->image, capture->memory, capture->must_end, 0, tally, diag);
}

enum loam_error capture_rounds(struct capture *capture, struct image_tally *tally, struct loam_diag *diag)
{
    uint8_t *buffers = malloc(2 * IMAGE_CHUNK_BYTES);
    enum loam_error error = buffers != NULL ? write_first(capture, tally, diag) : no_memory(diag);

    for (; error == LOAM_OK && capture->round_count < CAPTURE_ROUND_MAX; capture->round_count++) {
        error = gather(capture, diag);
        if (error != LOAM_OK || loam_dirty_count(capture->pending) * PAGE_BYTES <= CAPTURE_LITTLE_BYTES) {
            break;
        }
        error = write_pending(capture, buffers, diag);
    }
    free(buffers);
    return error;
}

/* --- The moment ------------------------------------------------------------------------------------------------------- */

static enum loam_error make_copies(struct capture *capture, struct loam_diag *diag)
{
    capture->page_count = loam_dirty_count(capture->pending);
    capture->copies = malloc(capture->page_count * PAGE_BYTES + 1);
    capture->pages = calloc(capture->page_count + 1, sizeof *capture->pages);
    return capture->copies != NULL && capture->pages != NULL ? LOAM_OK : no_memory(diag);
}

enum loam_error capture_moment(struct capture *capture, struct loam_diag *diag)
{
    enum loam_error error = gather(capture, diag);
    loam_gpa at = {0}, start;
    uint64_t count = 0, bytes;

    if (error == LOAM_OK) {
        error = make_copies(capture, diag);
    }
    for (; error == LOAM_OK && loam_dirty_take(capture->pending, at, PAGE_BYTES, &start, &bytes) == LOAM_OK;
         at.value = start.value + PAGE_BYTES) {
        const uint8_t *hva = resident_hva(capture->resident, start.value, PAGE_BYTES);
        uint8_t *copy = capture->copies + count * PAGE_BYTES;

        if (hva != NULL) {
            memcpy(copy, hva, PAGE_BYTES);
            capture->pages[count++] = (struct image_page){start.value, copy};
        }
    }
    capture->page_count = count;
    return error;
}

static uint64_t chunk_of(const struct image_page *page)
{
    return page->gpa / IMAGE_CHUNK_BYTES;
}

enum loam_error capture_finish(struct capture *capture, struct loam_diag *diag)
{
    uint8_t *buffer = malloc(IMAGE_CHUNK_BYTES);
    enum loam_error error = buffer != NULL ? LOAM_OK : no_memory(diag);

    for (uint64_t first = 0, end; error == LOAM_OK && first < capture->page_count; first = end) {
        for (end = first + 1;
             end < capture->page_count && chunk_of(&capture->pages[end]) == chunk_of(&capture->pages[first]); end++) {
        }
        capture->patched_bytes += (end - first) * PAGE_BYTES;
        error = image_patch(capture->image, capture->pages + first, (uint32_t)(end - first), buffer, diag);
    }
    free(buffer);
    return error;
}

void capture_end(struct capture *capture, bool keeps_log)
{
    if (capture->is_logging && !keeps_log) {
        machine_log_stop(capture->machine);
    }
    if (capture->resident != NULL) {
        resident_close(capture->resident);
    }
    free(capture->pending_memory);
    free(capture->copies);
    free(capture->pages);
    *capture = (struct capture){.is_logging = false};
}
