// SPDX-License-Identifier: Apache-2.0
#include "vmm/image.h"

#include "vmm/kick.h"
#include "vmm/resident.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES  UINT64_C(4096)
#define PIECE_BYTES UINT64_C(262144)
#define THREAD_MAX  4u
#define CHUNKS_MAX  (UINT64_C(1) << 20) /* 2 TiB of RAM */

static const uint8_t zeros[64 * 1024];

/* --- Places ------------------------------------------------------------------------------------------------------- */

static uint64_t chunks_of(const struct state_range *range)
{
    return (range->bytes + IMAGE_CHUNK_BYTES - 1) / IMAGE_CHUNK_BYTES;
}

struct image_place image_place(const struct image *image, uint64_t index)
{
    const struct state_range *range = image->ranges;
    uint64_t offset, left;

    for (; index >= chunks_of(range); range++) {
        index -= chunks_of(range);
    }
    offset = index * IMAGE_CHUNK_BYTES;
    left = range->bytes - offset;
    return (struct image_place){range->start + offset, left < IMAGE_CHUNK_BYTES ? left : IMAGE_CHUNK_BYTES};
}

uint64_t image_index(const struct image *image, uint64_t gpa)
{
    const struct state_range *range = image->ranges;
    uint64_t index = 0;

    for (; gpa - range->start >= range->bytes; range++) {
        index += chunks_of(range);
    }
    return index + (gpa - range->start) / IMAGE_CHUNK_BYTES;
}

bool image_has_parent(const struct image *image)
{
    return image->parent_name[0] != '\0';
}

static uint64_t end_of(const struct image *image)
{
    const struct state_range *last = &image->ranges[image->range_count - 1];

    return last->start + last->bytes;
}

static enum loam_error make_chunks(struct image *image, struct loam_diag *diag)
{
    for (uint32_t i = 0; i < image->range_count; i++) {
        image->chunk_count += chunks_of(&image->ranges[i]);
    }
    image->chunks = image->chunk_count <= CHUNKS_MAX ? calloc(image->chunk_count, sizeof *image->chunks) : NULL;
    return image->chunks != NULL
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "image: no memory for %" PRIu64 " chunks", image->chunk_count);
}

enum loam_error image_init(struct image *image, const struct loam_plan *plan, int fd, struct loam_diag *diag)
{
    *image = (struct image){.fd = fd};
    image->range_count = state_memory_ranges(plan, image->ranges);
    if (getrandom(image->id, sizeof image->id, 0) != (ssize_t)sizeof image->id) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "image: getrandom");
    }
    return make_chunks(image, diag);
}

void image_set_parent(struct image *image, const uint8_t id[IMAGE_ID_BYTES], const char *name)
{
    memcpy(image->parent_id, id, sizeof image->parent_id);
    snprintf(image->parent_name, sizeof image->parent_name, "%s", name);
    for (uint64_t i = 0; i < image->chunk_count; i++) {
        image->chunks[i].kind = IMAGE_PARENT;
    }
}

enum loam_error image_make_file(const struct image *image, struct loam_diag *diag)
{
    return ftruncate(image->fd, (off_t)end_of(image)) == 0
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "image: ftruncate to %" PRIu64 " bytes", end_of(image));
}

void image_release(struct image *image)
{
    free(image->chunks);
    image->chunks = NULL;
}

/* --- Many at once --------------------------------------------------------------------------------------------------- */

/* Each chunk in turn, by some threads; the first that fails ends them all. */
struct crowd {
    enum loam_error (*work)(void *self, uint64_t index, struct loam_diag *diag);
    void *self;
    uint64_t count;
    atomic_uint_fast64_t next;
    pthread_mutex_t lock;
    enum loam_error error; /* this and what follows: under lock */
    struct loam_diag diag;
};

static void fail_crowd(struct crowd *crowd, enum loam_error error, const struct loam_diag *diag)
{
    pthread_mutex_lock(&crowd->lock);
    if (crowd->error == LOAM_OK) {
        crowd->error = error;
        crowd->diag = *diag;
    }
    pthread_mutex_unlock(&crowd->lock);
    atomic_store(&crowd->next, crowd->count);
}

static void work_in_crowd(void *self)
{
    struct crowd *crowd = self;
    struct loam_diag diag = {0};
    uint64_t index;

    while ((index = atomic_fetch_add(&crowd->next, 1)) < crowd->count) {
        enum loam_error error = crowd->work(crowd->self, index, &diag);

        if (error != LOAM_OK) {
            fail_crowd(crowd, error, &diag);
        }
    }
}

static uint32_t processor_count(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

/* This thread takes part; others that cannot be had are done without. */
static enum loam_error run_crowd(struct crowd *crowd, uint32_t thread_count, struct loam_diag *diag)
{
    struct kick_thread threads[THREAD_MAX];
    uint32_t wanted = thread_count != 0 ? thread_count : processor_count(), started = 0;

    pthread_mutex_init(&crowd->lock, NULL);
    wanted = wanted < THREAD_MAX ? wanted : THREAD_MAX;
    while (started + 1 < wanted && started + 1 < crowd->count &&
           kick_start(&threads[started], work_in_crowd, crowd, "image", NULL) == LOAM_OK) {
        started++;
    }
    work_in_crowd(crowd);
    for (uint32_t i = 0; i < started; i++) {
        kick_join(&threads[i]);
    }
    pthread_mutex_destroy(&crowd->lock);
    if (crowd->error != LOAM_OK && diag != NULL) {
        *diag = crowd->diag;
    }
    return crowd->error;
}

/* --- Writing ------------------------------------------------------------------------------------------------------ */

struct writing {
    struct image *image;
    struct resident *resident;
    const atomic_bool *must_end;
    atomic_uint_fast64_t written_bytes, zero_bytes;
};

/* What is behind a chunk, from one end to the other. */
struct walk {
    struct writing *writing;
    struct image_chunk *chunk;
    XXH3_state_t sum;
    uint64_t start;
    uint8_t *copy; /* of a piece of memory, which may be written to meanwhile */
    bool has_data;
};

/* Pages have 4096 bytes, and so has all that is compared. */
static bool is_zero_page(const uint8_t *page)
{
    return memcmp(page, zeros, PAGE_BYTES) == 0;
}

static enum loam_error put(struct walk *walk, uint64_t gpa, const uint8_t *bytes, uint64_t count,
                           struct loam_diag *diag)
{
    struct writing *writing = walk->writing;

    for (uint64_t i = (gpa - walk->start) / PAGE_BYTES, end = i + count / PAGE_BYTES; i < end; i++) {
        walk->chunk->pages[i / 64] |= UINT64_C(1) << i % 64;
    }
    walk->has_data = true;
    XXH3_64bits_update(&walk->sum, bytes, count);
    atomic_fetch_add(&writing->written_bytes, count);
    while (count > 0) {
        ssize_t done = pwrite(writing->image->fd, bytes, count, (off_t)gpa);

        if (done < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "image: write of %" PRIu64 " bytes at 0x%" PRIx64, count, gpa);
        }
        bytes += done > 0 ? done : 0;
        gpa += done > 0 ? (uint64_t)done : 0;
        count -= done > 0 ? (uint64_t)done : 0;
    }
    return LOAM_OK;
}

/* A piece, which nobody writes to: its pages that are not zero, as many at once as follow each other. */
static enum loam_error walk_piece(struct walk *walk, uint64_t gpa, const uint8_t *bytes, uint64_t count,
                                  struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    uint64_t first = 0;

    for (uint64_t at = 0; error == LOAM_OK && at <= count; at += PAGE_BYTES) {
        if (at == count || is_zero_page(bytes + at)) {
            if (at > first) {
                error = put(walk, gpa + first, bytes + first, at - first, diag);
            }
            atomic_fetch_add(&walk->writing->zero_bytes, at < count ? PAGE_BYTES : 0);
            first = at + PAGE_BYTES;
        }
    }
    return error;
}

/* A run of memory that is there, piece by piece, each of which stays in the processor's cache. */
static enum loam_error walk_run(void *self, uint64_t gpa, const uint8_t *bytes, uint64_t count, struct loam_diag *diag)
{
    struct walk *walk = self;
    enum loam_error error = LOAM_OK;

    for (uint64_t at = 0, here; error == LOAM_OK && at < count; at += here) {
        here = count - at < PIECE_BYTES ? count - at : PIECE_BYTES;
        resident_take(walk->copy, bytes + at, here);
        error = walk_piece(walk, gpa + at, walk->copy, here, diag);
    }
    return error;
}

static enum loam_error write_chunk(void *self, uint64_t index, struct loam_diag *diag)
{
    struct writing *writing = self;
    const struct image_place place = image_place(writing->image, index);
    struct image_chunk *chunk = &writing->image->chunks[index];
    struct walk walk = {.writing = writing, .chunk = chunk, .start = place.gpa, .copy = malloc(PIECE_BYTES)};
    enum loam_error error;

    if (writing->must_end != NULL && atomic_load(writing->must_end)) {
        free(walk.copy);
        return loam_fail(diag, LOAM_ERROR_CANCELLED, "image: the guest has ended before all of it was written");
    }
    XXH3_64bits_reset_withSeed(&walk.sum, place.gpa);
    error = walk.copy != NULL ? resident_walk(writing->resident, place.gpa, place.bytes, walk_run, &walk, diag)
                              : loam_fail(diag, LOAM_ERROR_SYSTEM, "image: no memory");
    free(walk.copy);
    if (error == LOAM_OK && walk.has_data) {
        chunk->sum = XXH3_64bits_digest(&walk.sum);
        chunk->kind = IMAGE_HERE;
    }
    return error;
}

enum loam_error image_write(struct image *image, struct loam_memory *memory, const atomic_bool *must_end,
                            uint32_t thread_count, struct image_tally *tally, struct loam_diag *diag)
{
    struct writing writing = {.image = image, .must_end = must_end};
    struct crowd crowd = {.work = write_chunk, .self = &writing, .count = image->chunk_count};
    enum loam_error error;

    *tally = (struct image_tally){0};
    error = image_make_file(image, diag);
    if (error == LOAM_OK) {
        error = resident_open(memory, &writing.resident, diag);
    }
    if (error == LOAM_OK) {
        error = run_crowd(&crowd, thread_count, diag);
        resident_close(writing.resident);
    }
    tally->written_bytes = atomic_load(&writing.written_bytes);
    tally->zero_bytes = atomic_load(&writing.zero_bytes);
    return error;
}

/* --- Pages in the file ---------------------------------------------------------------------------------------------- */

static enum loam_error get(const struct image *image, uint64_t gpa, uint8_t *to, uint64_t count, struct loam_diag *diag)
{
    while (count > 0) {
        ssize_t done = pread(image->fd, to, count, (off_t)gpa);

        if (done == 0) {
            return loam_fail(diag, LOAM_ERROR_INVALID,
                             "image: %" PRIu64 " bytes wanted at 0x%" PRIx64 ", and the file ends before: it was cut",
                             count, gpa);
        }
        if (done < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "image: read of %" PRIu64 " bytes at 0x%" PRIx64, count, gpa);
        }
        to += done > 0 ? done : 0;
        gpa += done > 0 ? (uint64_t)done : 0;
        count -= done > 0 ? (uint64_t)done : 0;
    }
    return LOAM_OK;
}

static bool has_page(const struct image_chunk *chunk, uint64_t page)
{
    return (chunk->pages[page / 64] >> page % 64 & 1) != 0;
}

/* The chunk's own pages, from its file, to where they lie in it; and their sum. */
static enum loam_error get_pages(const struct image *image, const struct image_chunk *chunk, struct image_place place,
                                 uint8_t *to, uint64_t *sum, struct loam_diag *diag)
{
    const uint64_t page_count = place.bytes / PAGE_BYTES;
    enum loam_error error = LOAM_OK;
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, place.gpa);
    for (uint64_t page = 0, end; error == LOAM_OK && page < page_count; page = end) {
        const bool is_own = has_page(chunk, page);
        uint8_t *at = to + page * PAGE_BYTES;

        for (end = page + 1; end < page_count && has_page(chunk, end) == is_own; end++) {
        }
        if (is_own) {
            error = get(image, place.gpa + page * PAGE_BYTES, at, (end - page) * PAGE_BYTES, diag);
            XXH3_64bits_update(&state, at, (end - page) * PAGE_BYTES);
        }
    }
    *sum = XXH3_64bits_digest(&state);
    return error;
}

static enum loam_error put_page(const struct image *image, const struct image_page *page, struct loam_diag *diag)
{
    return pwrite(image->fd, page->bytes, PAGE_BYTES, (off_t)page->gpa) == (ssize_t)PAGE_BYTES
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "image: write of a page at 0x%" PRIx64, page->gpa);
}

enum loam_error image_patch(struct image *image, const struct image_page *pages, uint32_t count, uint8_t *buffer,
                            struct loam_diag *diag)
{
    const uint64_t index = image_index(image, pages[0].gpa);
    const struct image_place place = image_place(image, index);
    struct image_chunk *chunk = &image->chunks[index];
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        const uint64_t number = (pages[i].gpa - place.gpa) / PAGE_BYTES;

        chunk->pages[number / 64] |= UINT64_C(1) << number % 64;
        error = put_page(image, &pages[i], diag);
    }
    chunk->kind = IMAGE_HERE;
    return error == LOAM_OK ? get_pages(image, chunk, place, buffer, &chunk->sum, diag) : error;
}

/* --- What is known of it -------------------------------------------------------------------------------------------- */

void image_save(const struct image *image, struct state_writer *writer)
{
    state_begin(writer, STATE_MEMORY, 0);
    state_put(writer, image->id, sizeof image->id);
    state_put(writer, image->parent_id, sizeof image->parent_id);
    state_put_text(writer, image->parent_name, strlen(image->parent_name));
    state_put_u32(writer, image->range_count);
    state_put(writer, image->ranges, image->range_count * sizeof image->ranges[0]);
    for (uint64_t i = 0; i < image->chunk_count; i++) {
        state_put(writer, &image->chunks[i].kind, 1);
    }
    for (uint64_t i = 0; i < image->chunk_count; i++) {
        const struct image_chunk *chunk = &image->chunks[i];

        if (chunk->kind == IMAGE_HERE) {
            state_put_u64(writer, chunk->sum);
            state_put(writer, chunk->pages, sizeof chunk->pages);
        }
    }
    state_end(writer);
}

/* Ascending, apart from each other, in whole pages: and each begins a chunk. */
static bool are_ranges(const struct image *image)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < image->range_count; i++) {
        const struct state_range *range = &image->ranges[i];

        if (range->start < end || range->bytes == 0 || !loam_is_aligned(range->start, IMAGE_CHUNK_BYTES) ||
            !loam_is_aligned(range->bytes, PAGE_BYTES) || !loam_fits(range->start, range->bytes, LOAM_GPA_END)) {
            return false;
        }
        end = loam_align_down(range->start + range->bytes - 1, IMAGE_CHUNK_BYTES) + IMAGE_CHUNK_BYTES;
    }
    return image->range_count > 0;
}

static enum loam_error take_chunks(struct image *image, struct state_record *record, struct loam_diag *diag)
{
    const bool has_parent = image_has_parent(image);

    for (uint64_t i = 0; i < image->chunk_count; i++) {
        state_take(record, &image->chunks[i].kind, 1);
        if (image->chunks[i].kind >= (has_parent ? IMAGE_KIND_COUNT : IMAGE_PARENT)) {
            return state_refuse(record, diag, "chunk %" PRIu64 " is of kind %u", i, image->chunks[i].kind);
        }
    }
    for (uint64_t i = 0; i < image->chunk_count; i++) {
        struct image_chunk *chunk = &image->chunks[i];

        if (chunk->kind == IMAGE_HERE) {
            chunk->sum = state_take_u64(record);
            state_take(record, chunk->pages, sizeof chunk->pages);
        }
    }
    return state_done(record, diag);
}

enum loam_error image_load(struct image *image, struct state_reader *reader, int fd, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_MEMORY, 0, &record, diag);

    *image = (struct image){.fd = fd};
    if (error != LOAM_OK) {
        return error;
    }
    state_take(record, image->id, sizeof image->id);
    state_take(record, image->parent_id, sizeof image->parent_id);
    state_take_text(record, image->parent_name, sizeof image->parent_name);
    image->range_count = state_take_u32(record);
    if (image->range_count > STATE_RANGE_MAX) {
        return state_refuse(record, diag, "%" PRIu32 " ranges, at most %u", image->range_count, STATE_RANGE_MAX);
    }
    state_take(record, image->ranges, image->range_count * sizeof image->ranges[0]);
    if (record->is_short || !are_ranges(image)) {
        return state_refuse(record, diag, "its ranges are none of RAM");
    }
    error = make_chunks(image, diag);
    if (error == LOAM_OK) {
        error = take_chunks(image, record, diag);
    }
    if (error != LOAM_OK) {
        image_release(image);
    }
    return error;
}

enum loam_error image_check_file(const struct image *image, struct loam_diag *diag)
{
    struct stat status;

    if (fstat(image->fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "image: its memory is no file");
    }
    return (uint64_t)status.st_size == end_of(image)
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID,
                           "image: memory of %" PRIu64 " bytes wanted, and %" PRIu64 " found: it was cut, or added to",
                           end_of(image), (uint64_t)status.st_size);
}

/* --- Reading ------------------------------------------------------------------------------------------------------ */

bool image_is_zero(const struct image *image, uint64_t index)
{
    while (image->chunks[index].kind == IMAGE_PARENT) {
        image = image->parent;
    }
    return image->chunks[index].kind == IMAGE_ZERO;
}

enum loam_error image_read(const struct image *image, uint64_t index, void *to, bool is_zero, struct loam_diag *diag)
{
    const struct image_place place = image_place(image, index);
    const struct image_chunk *chunk;
    enum loam_error error = LOAM_OK;
    uint64_t sum;

    while (image->chunks[index].kind == IMAGE_PARENT) {
        image = image->parent;
    }
    chunk = &image->chunks[index];
    if (chunk->kind == IMAGE_HERE && image_has_parent(image)) {
        error = image_read(image->parent, index, to, is_zero, diag);
    } else if (!is_zero) {
        memset(to, 0, place.bytes);
    }
    if (error != LOAM_OK || chunk->kind == IMAGE_ZERO) {
        return error;
    }
    error = get_pages(image, chunk, place, to, &sum, diag);
    return error != LOAM_OK || sum == chunk->sum ? error
                                                 : loam_fail(diag, LOAM_ERROR_INVALID,
                                                             "image: the sum of 0x%" PRIx64 " bytes at GPA 0x%" PRIx64
                                                             " is wrong: the file is not the one that was written",
                                                             place.bytes, place.gpa);
}

/* --- All of it ------------------------------------------------------------------------------------------------------ */

struct restoring {
    const struct image *image;
    struct resident *resident;
};

/* One that goes across the end of a backing. */
static enum loam_error restore_pieces(struct restoring *restoring, uint64_t index, struct loam_diag *diag)
{
    const struct image_place place = image_place(restoring->image, index);
    uint8_t *bytes = malloc(place.bytes);
    enum loam_error error = bytes != NULL ? image_read(restoring->image, index, bytes, false, diag)
                                          : loam_fail(diag, LOAM_ERROR_SYSTEM, "image: no memory for a chunk");

    if (error == LOAM_OK) {
        resident_copy(restoring->resident, place.gpa, bytes, place.bytes);
    }
    free(bytes);
    return error;
}

static enum loam_error restore_chunk(void *self, uint64_t index, struct loam_diag *diag)
{
    struct restoring *restoring = self;
    const struct image_place place = image_place(restoring->image, index);
    uint8_t *hva;

    if (image_is_zero(restoring->image, index)) {
        return LOAM_OK;
    }
    hva = resident_hva(restoring->resident, place.gpa, place.bytes);
    return hva != NULL ? image_read(restoring->image, index, hva, true, diag) : restore_pieces(restoring, index, diag);
}

enum loam_error image_restore(const struct image *image, struct loam_memory *memory, uint32_t thread_count,
                              struct loam_diag *diag)
{
    struct restoring restoring = {.image = image};
    struct crowd crowd = {.work = restore_chunk, .self = &restoring, .count = image->chunk_count};
    enum loam_error error = resident_open(memory, &restoring.resident, diag);

    if (error == LOAM_OK) {
        error = run_crowd(&crowd, thread_count, diag);
        resident_close(restoring.resident);
    }
    return error;
}
