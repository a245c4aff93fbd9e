// SPDX-License-Identifier: Apache-2.0
#include "vmm/write_log.h"

#include "vmm/kvm.h"

#include <inttypes.h>
#include <stdlib.h>

#define PAGE_BYTES  UINT64_C(4096)
#define CHANGES_MAX 256u
#define WORD_PAGES  64u

/* --- On and off ----------------------------------------------------------------------------------------------------- */

void write_log_init(struct write_log *log, int vm_fd, struct loam_slots *slots, struct loam_gpa_map *map,
                    struct loam_dirty *dirty)
{
    *log = (struct write_log){.vm_fd = vm_fd, .slots = slots, .map = map, .dirty = dirty};
}

/* A KVM without it clears marks as it tells of them. */
static void ask_for_clearing_by_hand(struct write_log *log)
{
    struct kvm_enable_cap manual = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                    .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE}};

    log->clears_by_hand = (kvm_ioctl_number(log->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) &
                           KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) > 0 &&
                          kvm_ioctl(log->vm_fd, KVM_ENABLE_CAP, &manual) == 0;
}

/* What a guest can write of the map is logged, or is no more; one change. */
static enum loam_error mark_regions(struct write_log *log, bool is_logged, struct loam_diag *diag)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(log->map);
    struct loam_gpa_change *changes = calloc(CHANGES_MAX, sizeof *changes);
    enum loam_error error = LOAM_OK;
    struct loam_region region;
    uint32_t count = 0;

    for (uint32_t i = 0; changes != NULL && count < CHANGES_MAX && loam_gpa_view_region(view, i, &region) == LOAM_OK;
         i++) {
        if (region.type != LOAM_REGION_DEVICE) {
            region.log_dirty = is_logged;
            changes[count++] = (struct loam_gpa_change){LOAM_CHANGE_LOG, region};
        }
    }
    loam_gpa_map_release(log->map, view);
    error = changes != NULL ? loam_gpa_map_change(log->map, changes, count, NULL) : LOAM_ERROR_SYSTEM;
    free(changes);
    return error == LOAM_OK ? LOAM_OK : loam_fail(diag, error, "write log: GPA map: %s", loam_error_name(error));
}

static enum loam_error show(struct write_log *log, struct loam_diag *diag)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(log->map);
    enum loam_error error = loam_slots_update(log->slots, view, diag);

    loam_gpa_map_release(log->map, view);
    return error;
}

static uint64_t words_of(uint64_t bytes)
{
    return (bytes / PAGE_BYTES + WORD_PAGES - 1) / WORD_PAGES;
}

static enum loam_error make_words(struct write_log *log, struct loam_diag *diag)
{
    struct loam_slots_row row;

    log->word_count = 0;
    for (uint32_t i = 0; loam_slots_at(log->slots, i, &row) == LOAM_OK; i++) {
        log->word_count = words_of(row.bytes) > log->word_count ? words_of(row.bytes) : log->word_count;
    }
    free(log->words); /* of a log that is begun again */
    log->words = calloc(log->word_count + 1, sizeof log->words[0]);
    return log->words != NULL ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "write log: no memory");
}

static void forget_marks(struct write_log *log)
{
    loam_gpa at = {0}, start;
    uint64_t bytes;

    while (loam_dirty_take(log->dirty, at, 0, &start, &bytes) == LOAM_OK) {
        at.value = start.value + bytes;
    }
}

enum loam_error write_log_start(struct write_log *log, struct loam_diag *diag)
{
    enum loam_error error;

    ask_for_clearing_by_hand(log);
    forget_marks(log);
    log->is_started = true;
    error = mark_regions(log, true, diag);
    if (error == LOAM_OK) {
        error = show(log, diag);
    }
    if (error == LOAM_OK) {
        error = make_words(log, diag);
    }
    if (error != LOAM_OK) {
        write_log_stop(log);
    }
    return error;
}

void write_log_stop(struct write_log *log)
{
    if (log->is_started) {
        if (mark_regions(log, false, NULL) == LOAM_OK) {
            (void)!show(log, NULL);
        }
        free(log->words);
        log->words = NULL;
        log->is_started = false;
    }
}

/* --- The harvest ----------------------------------------------------------------------------------------------------- */

/* Marks that are taken, and watched for again, before the pages are told of: what is written from here on is marked anew. */
static bool take_marks(struct write_log *log, const struct loam_slots_row *row)
{
    struct kvm_dirty_log get = {.slot = row->number, .dirty_bitmap = log->words};
    struct kvm_clear_dirty_log clear = {
        .slot = row->number, .num_pages = (uint32_t)(row->bytes / PAGE_BYTES), .dirty_bitmap = log->words};

    return kvm_ioctl(log->vm_fd, KVM_GET_DIRTY_LOG, &get) == 0 &&
           (!log->clears_by_hand || kvm_ioctl(log->vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) == 0);
}

/* The first page from page on whose mark is as wanted; page_count if there is none. */
static uint64_t next_page(const uint64_t *words, uint64_t page, uint64_t page_count, bool is_marked)
{
    while (page < page_count) {
        uint64_t word = (is_marked ? words[page / WORD_PAGES] : ~words[page / WORD_PAGES]) >> page % WORD_PAGES;

        if (word != 0) {
            page += (uint64_t)__builtin_ctzll(word);
            return page < page_count ? page : page_count;
        }
        page = (page / WORD_PAGES + 1) * WORD_PAGES;
    }
    return page_count;
}

static enum loam_error harvest_slot(struct write_log *log, const struct loam_slots_row *row, write_log_run_fn *run,
                                    void *self, uint64_t *page_count, struct loam_diag *diag)
{
    const uint64_t count = row->bytes / PAGE_BYTES;
    enum loam_error error = LOAM_OK;

    if (!take_marks(log, row)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_GET_DIRTY_LOG of slot %" PRIu32, row->number);
    }
    for (uint64_t first = next_page(log->words, 0, count, true), end; error == LOAM_OK && first < count;
         first = next_page(log->words, end, count, true)) {
        end = next_page(log->words, first, count, false);
        *page_count += end - first;
        error = run(self, row->start.value + first * PAGE_BYTES, (end - first) * PAGE_BYTES, diag);
    }
    return error;
}

static enum loam_error harvest_marks(struct write_log *log, write_log_run_fn *run, void *self, uint64_t *page_count,
                                     struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    loam_gpa at = {0}, start;
    uint64_t bytes;

    for (; error == LOAM_OK && loam_dirty_take(log->dirty, at, 0, &start, &bytes) == LOAM_OK;
         at.value = start.value + bytes) {
        *page_count += bytes / PAGE_BYTES;
        error = run(self, start.value, bytes, diag);
    }
    return error;
}

enum loam_error write_log_harvest(struct write_log *log, write_log_run_fn *run, void *self, uint64_t *page_count,
                                  struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    struct loam_slots_row row;

    *page_count = 0;
    for (uint32_t i = 0; error == LOAM_OK && loam_slots_at(log->slots, i, &row) == LOAM_OK; i++) {
        if (row.log_dirty) {
            error = harvest_slot(log, &row, run, self, page_count, diag);
        }
    }
    return error == LOAM_OK ? harvest_marks(log, run, self, page_count, diag) : error;
}
