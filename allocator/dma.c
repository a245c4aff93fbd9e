// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants, under the lock:
 *   by_gpa and by_id hold the same count entries, ascending by GPA and by id; count <= capacity
 *   1 <= id <= last_id for each entry, and no two ids are alike
 *   entries do not overlap, since each is one allocated block of the frame allocator:
 *     start == gpa >> frame shift, count_frames == bytes >> frame shift
 *
 * A buffer's frames are allocated before it is entered and freed before it is struck out, with the lock held over the
 * latter two: what the ledger shows is allocated, whenever one looks.
 *
 * Locks: the ledger's, then the frame allocator's own. The map's views are taken with or without it.
 */
#include "loam/dma.h"

#include "allocator/lock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST          16u
#define DESCRIPTOR_BYTES        16u
#define AVAILABLE_FIXED_BYTES   6u /* flags, idx, used_event */
#define AVAILABLE_ELEMENT_BYTES 2u
#define USED_FIXED_BYTES        6u /* flags, idx, avail_event */
#define USED_ELEMENT_BYTES      8u
#define USED_ALIGN_BYTES        4u
#define ALIGN_MAX_BYTES         (4 * LOAM_GIB)

struct loam_dma {
    struct loam_frame *frame;
    struct loam_gpa_map *map;
    struct loam_dma_supply supply; /* populate is NULL: none */
    uint32_t frame_shift;
    struct loam_lock lock; /* guards what follows */
    bool suspect;          /* a holder died: nothing is changed until it is found to be in order */
    uint32_t count;
    uint32_t capacity;
    uint64_t last_id;
    struct loam_dma_entry **by_gpa;
    struct loam_dma_entry **by_id;
};

/* --- The ledger's arrays; the lock is held ----------------------------------------------------------------------- */

/* The ledger is const to those who only look; its lock never is. */
static struct loam_dma *lock(const struct loam_dma *dma)
{
    struct loam_dma *locked = (struct loam_dma *)(uintptr_t)dma;

    if (!loam_lock_take(&locked->lock)) {
        locked->suspect = true;
    }
    return locked;
}

static void unlock(struct loam_dma *dma)
{
    loam_lock_give(&dma->lock);
}

static uint64_t gpa_of(const struct loam_dma_entry *entry)
{
    return entry->buffer.gpa.value;
}

static uint64_t id_of(const struct loam_dma_entry *entry)
{
    return entry->buffer.id;
}

/* How many of count ascending entries have a key of at most key. */
static uint32_t rank_of(struct loam_dma_entry *const *entries, uint32_t count, uint64_t key,
                        uint64_t (*key_of)(const struct loam_dma_entry *))
{
    uint32_t low = 0;

    while (low < count) {
        uint32_t middle = low + (count - low) / 2;

        if (key_of(entries[middle]) <= key) {
            low = middle + 1;
        } else {
            count = middle;
        }
    }
    return low;
}

static struct loam_dma_entry *entry_with_id(const struct loam_dma *dma, uint64_t id)
{
    uint32_t rank = rank_of(dma->by_id, dma->count, id, id_of);

    return rank > 0 && id_of(dma->by_id[rank - 1]) == id ? dma->by_id[rank - 1] : NULL;
}

/* The last entry that meets [start, start + bytes); NULL if none does. bytes is not 0. */
static struct loam_dma_entry *entry_in(const struct loam_dma *dma, uint64_t start, uint64_t bytes)
{
    uint32_t rank = rank_of(dma->by_gpa, dma->count, start + (bytes - 1), gpa_of);
    struct loam_dma_entry *last = rank > 0 ? dma->by_gpa[rank - 1] : NULL;

    /* Above start it is within the range; else it has to reach it. */
    return last != NULL && (gpa_of(last) >= start || start - gpa_of(last) < last->buffer.bytes) ? last : NULL;
}

static bool reserve_entry(struct loam_dma *dma)
{
    uint32_t capacity = dma->capacity == 0 ? CAPACITY_FIRST : dma->capacity * 2;
    struct loam_dma_entry **entries;

    if (dma->count < dma->capacity) {
        return true;
    }
    if (dma->capacity > UINT32_MAX / 2) {
        return false;
    }
    entries = realloc(dma->by_gpa, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    dma->by_gpa = entries;
    entries = realloc(dma->by_id, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    dma->by_id = entries;
    dma->capacity = capacity;
    return true;
}

static void array_insert(struct loam_dma_entry **entries, uint32_t count, uint32_t index, struct loam_dma_entry *entry)
{
    memmove(&entries[index + 1], &entries[index], (count - index) * sizeof *entries);
    entries[index] = entry;
}

static void array_remove(struct loam_dma_entry **entries, uint32_t count, uint32_t index)
{
    memmove(&entries[index], &entries[index + 1], (count - index - 1) * sizeof *entries);
}

/* Room is reserved. */
static void enter(struct loam_dma *dma, struct loam_dma_entry *entry)
{
    entry->buffer.id = ++dma->last_id;
    array_insert(dma->by_gpa, dma->count, rank_of(dma->by_gpa, dma->count, gpa_of(entry), gpa_of), entry);
    dma->by_id[dma->count] = entry;
    dma->count++;
}

static void strike_out(struct loam_dma *dma, const struct loam_dma_entry *entry)
{
    array_remove(dma->by_gpa, dma->count, rank_of(dma->by_gpa, dma->count, gpa_of(entry), gpa_of) - 1);
    array_remove(dma->by_id, dma->count, rank_of(dma->by_id, dma->count, id_of(entry), id_of) - 1);
    dma->count--;
}

static enum loam_error free_frames(struct loam_dma *dma, const struct loam_dma_buffer *buffer)
{
    return loam_frame_free(dma->frame, loam_pfn_from_gpa(buffer->gpa, dma->frame_shift),
                           buffer->bytes >> dma->frame_shift);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

/* Printable ASCII: the name stands in lines of text, and may be printed anywhere. */
static bool owner_valid(const char *owner)
{
    size_t length = owner != NULL ? strnlen(owner, LOAM_DMA_OWNER_MAX + 1) : 0;

    for (size_t i = 0; i < length; i++) {
        if (owner[i] < ' ' || owner[i] > '~') {
            return false;
        }
    }
    return length >= 1 && length <= LOAM_DMA_OWNER_MAX;
}

/* What is wrong with the request as such; NULL: nothing. */
static const char *fault_of(const struct loam_dma_request *request, uint32_t frame_shift)
{
    if (!owner_valid(request->owner)) {
        return "the owner's name has to be 1 to 63 printable ASCII characters";
    }
    if (request->bytes == 0 || request->bytes > LOAM_FRAME_COUNT_MAX << frame_shift) {
        return "the size has to be from 1 byte to 2^20 frames";
    }
    if (request->align_bytes != 0 &&
        (!loam_is_power_of_two(request->align_bytes) || request->align_bytes > ALIGN_MAX_BYTES)) {
        return "the alignment has to be a power of two up to 4 GiB";
    }
    if (request->boundary_bytes != 0 &&
        (!loam_is_power_of_two(request->boundary_bytes) || request->boundary_bytes < request->bytes)) {
        return "the boundary has to be a power of two and at least the size";
    }
    if ((request->flags & ~(uint32_t)(LOAM_DMA_AT | LOAM_DMA_NO_ZERO | LOAM_DMA_KEEP)) != 0) {
        return "a flag is not known";
    }
    if ((request->flags & LOAM_DMA_AT) == 0 && request->at.value != 0) {
        return "a place is named in at, which counts only with the flag LOAM_DMA_AT: set it, or leave at 0";
    }
    if (!loam_is_aligned(request->at.value, UINT64_C(1) << frame_shift)) {
        return "the place has to be a multiple of the frame size";
    }
    return NULL;
}

/* The request, which has no fault, in frames. */
static struct loam_frame_request frames_from(const struct loam_dma_request *request, uint32_t frame_shift)
{
    uint64_t frame_mask = (UINT64_C(1) << frame_shift) - 1;
    struct loam_frame_request frames = {
        .count_frames = (request->bytes >> frame_shift) + ((request->bytes & frame_mask) != 0),
        .align_frames = request->align_bytes >> frame_shift,
        .boundary_frames = request->boundary_bytes >> frame_shift,
        .limit = loam_pfn_from_gpa(request->limit, frame_shift),
    };

    if ((request->flags & LOAM_DMA_AT) != 0) {
        frames.flags = LOAM_FRAME_AT;
        frames.at = loam_pfn_from_gpa(request->at, frame_shift);
    }
    return frames;
}

/* "RNG": 8192 bytes, aligned to 0x1000, ... Append to text what the request says; cut at size. */
static void describe(const struct loam_dma_request *request, char *text, size_t size)
{
    const struct {
        const char *words;
        uint64_t value;
        bool said;
    } parts[] = {
        {", aligned to", request->align_bytes, request->align_bytes != 0},
        {", crossing no multiple of", request->boundary_bytes, request->boundary_bytes != 0},
        {", ending at or below GPA", request->limit.value, request->limit.value != 0},
        {", at GPA", request->at.value, (request->flags & LOAM_DMA_AT) != 0},
    };
    size_t used;

    snprintf(text, size, "\"%s\": %" PRIu64 " bytes", request->owner, request->bytes);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        used = strlen(text);
        if (parts[i].said) {
            snprintf(text + used, size - used, "%s %#" PRIx64, parts[i].words, parts[i].value);
        }
    }
}

/* Who has what LOAM_DMA_AT asked for; cut at size. */
static void describe_holder(struct loam_dma *dma, const struct loam_dma_request *request, char *text, size_t size)
{
    const struct loam_dma_entry *holder;

    lock(dma);
    holder = entry_in(dma, request->at.value, request->bytes);
    if (holder != NULL) {
        snprintf(text, size, "taken by \"%s\" at GPA %#" PRIx64 ": release it or choose another place", holder->owner,
                 gpa_of(holder));
    } else {
        snprintf(text, size, "taken by a block outside the ledger: choose another place");
    }
    unlock(dma);
}

static bool is_suspect(const struct loam_dma *dma)
{
    struct loam_dma *locked = lock(dma);
    bool suspect = locked->suspect;

    unlock(locked);
    return suspect;
}

/* Why a request without fault was refused; cause: what the supply said, NULL: it was not asked. */
static enum loam_error refuse(struct loam_dma *dma, const struct loam_dma_request *request, enum loam_error error,
                              const struct loam_diag *cause, struct loam_diag *diag)
{
    char wanted[256], reason[160] = "";
    bool suspect;

    if (cause != NULL) {
        describe(request, wanted, sizeof wanted);
        if (diag != NULL) {
            *diag = *cause;
            snprintf(diag->text, sizeof diag->text, "dma buffer %s: %.240s", wanted, cause->text);
        }
        return error;
    }
    switch (error) {
    case LOAM_ERROR_INVALID:
        snprintf(reason, sizeof reason, "the place contradicts the alignment, the boundary or the limit");
        break;
    case LOAM_ERROR_NOT_FOUND:
        snprintf(reason, sizeof reason, "not all of that is RAM in one piece");
        break;
    case LOAM_ERROR_BUSY:
        describe_holder(dma, request, reason, sizeof reason);
        break;
    case LOAM_ERROR_EXHAUSTED:
        snprintf(reason, sizeof reason, "no free range fits: release buffers, ask for less or give the guest more RAM");
        break;
    case LOAM_ERROR_NOT_PERMITTED:
        snprintf(reason, sizeof reason, "the frames found are not writable memory in one region of the GPA map");
        break;
    case LOAM_ERROR_SYSTEM:
        snprintf(reason, sizeof reason, "heap memory for the ledger wanted");
        errno = ENOMEM; /* whatever has happened to it since */
        break;
    default:
        suspect = is_suspect(dma);
        snprintf(reason, sizeof reason, "the %s says %s: loam_%s_validate knows more",
                 suspect ? "ledger" : "frame allocator", loam_error_name(error), suspect ? "dma" : "frame");
        break;
    }
    describe(request, wanted, sizeof wanted);
    return loam_fail(diag, error, "dma buffer %s: %s", wanted, reason);
}

/* --- Carving ----------------------------------------------------------------------------------------------------- */

/* Where the map has the buffer, zeroed on the way if wanted: the view is held until the last byte is written. */
static enum loam_error place(struct loam_dma *dma, struct loam_dma_buffer *buffer, bool zero)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(dma->map);
    enum loam_error error = loam_gpa_view_translate(view, buffer->gpa, buffer->bytes, LOAM_ACCESS_WRITE, &buffer->hva);

    if (error == LOAM_OK && zero) {
        memset(buffer->hva, 0, buffer->bytes);
    }
    loam_gpa_map_release(dma->map, view);
    return error == LOAM_OK ? LOAM_OK : LOAM_ERROR_NOT_PERMITTED;
}

/* Memory behind all of the block, which is the caller's. */
static enum loam_error supply(struct loam_dma *dma, const struct loam_frame_block *block, struct loam_diag *cause)
{
    loam_gpa start = loam_gpa_from_pfn(block->start, dma->frame_shift);
    enum loam_error error =
        dma->supply.populate(dma->supply.self, start, block->count_frames << dma->frame_shift, cause);

    return error == LOAM_OK ? loam_frame_set_backed(dma->frame, block->start, block->count_frames) : error;
}

/* Frames for the request, with memory, placed. On failure none are taken. */
static enum loam_error carve(struct loam_dma *dma, const struct loam_dma_request *request,
                             struct loam_dma_buffer *buffer, struct loam_diag *cause)
{
    struct loam_frame_request frames = frames_from(request, dma->frame_shift);
    struct loam_frame_block block;
    enum loam_error error;

    /* Rounded down, a limit may leave no room; it must not become the 0 that means none. */
    if (request->limit.value != 0 && frames.limit.value < frames.count_frames) {
        return (request->flags & LOAM_DMA_AT) != 0 ? LOAM_ERROR_INVALID : LOAM_ERROR_EXHAUSTED;
    }
    frames.flags |= dma->supply.populate == NULL ? (uint32_t)LOAM_FRAME_BACKED : 0;
    error = loam_frame_alloc(dma->frame, &frames, &block);
    if (error != LOAM_OK) {
        return error;
    }
    buffer->gpa = loam_gpa_from_pfn(block.start, dma->frame_shift);
    buffer->bytes = block.count_frames << dma->frame_shift;
    if ((block.flags & LOAM_FRAME_BLOCK_RELEASED) != 0) {
        error = supply(dma, &block, cause);
    }
    if (error == LOAM_OK) {
        error = place(dma, buffer, (request->flags & LOAM_DMA_NO_ZERO) == 0);
    }
    if (error != LOAM_OK) {
        /* If it fails, somebody has freed the frames past the ledger: there is nothing left to undo. */
        enum loam_error ignored = free_frames(dma, buffer);

        (void)ignored;
    }
    return error;
}

/* Enter a carved buffer. *buffer is copied under the lock: once it is gone, another thread may release the entry. */
static enum loam_error record(struct loam_dma *dma, struct loam_dma_entry *entry, struct loam_dma_buffer *buffer)
{
    enum loam_error error;

    lock(dma);
    error = dma->suspect ? LOAM_ERROR_CORRUPT : reserve_entry(dma) ? LOAM_OK : LOAM_ERROR_SYSTEM;
    if (error == LOAM_OK) {
        enter(dma, entry);
        *buffer = entry->buffer;
    }
    unlock(dma);
    return error;
}

/* --- Lifecycle --------------------------------------------------------------------------------------------------- */

enum loam_error loam_dma_create(struct loam_frame *frame, struct loam_gpa_map *map, struct loam_dma **dma)
{
    struct loam_dma *made;

    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *dma = NULL;
    if (frame == NULL || map == NULL) {
        return LOAM_ERROR_INVALID;
    }
    made = calloc(1, sizeof *made);
    if (made == NULL) {
        return LOAM_ERROR_SYSTEM;
    }
    made->frame = frame;
    made->map = map;
    made->frame_shift = loam_frame_shift(frame);
    *dma = made;
    return LOAM_OK;
}

void loam_dma_set_supply(struct loam_dma *dma, struct loam_dma_supply supply)
{
    if (dma != NULL) {
        dma->supply = supply;
    }
}

uint32_t loam_dma_destroy(struct loam_dma *dma)
{
    uint32_t count = dma != NULL ? dma->count : 0;

    if (dma == NULL) {
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        /* If it fails, the frames were freed past the ledger already. */
        enum loam_error ignored = free_frames(dma, &dma->by_gpa[i]->buffer);

        (void)ignored;
        free(dma->by_gpa[i]);
    }
    free(dma->by_gpa);
    free(dma->by_id);
    free(dma);
    return count;
}

void loam_dma_freeze(struct loam_dma *dma)
{
    if (dma != NULL) {
        lock(dma);
    }
}

void loam_dma_thaw(struct loam_dma *dma)
{
    if (dma != NULL) {
        loam_lock_give_after_fork(&dma->lock);
    }
}

/* --- Buffers ----------------------------------------------------------------------------------------------------- */

enum loam_error loam_dma_alloc(struct loam_dma *dma, const struct loam_dma_request *request,
                               struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_diag cause = {.error = LOAM_OK};
    struct loam_dma_entry *entry;
    enum loam_error error;
    const char *fault;

    if (buffer != NULL) {
        *buffer = (struct loam_dma_buffer){0};
    }
    if (dma == NULL || request == NULL || buffer == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "dma buffer: NULL given where a ledger, a request and a place are wanted");
    }
    fault = fault_of(request, dma->frame_shift);
    if (fault != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "dma buffer \"%.63s\" of %" PRIu64 " bytes: %s",
                         owner_valid(request->owner) ? request->owner : "?", request->bytes, fault);
    }
    entry = calloc(1, sizeof *entry);
    if (entry == NULL) {
        return refuse(dma, request, LOAM_ERROR_SYSTEM, NULL, diag);
    }
    memcpy(entry->owner, request->owner, strlen(request->owner));
    entry->kept = (request->flags & LOAM_DMA_KEEP) != 0;
    error = carve(dma, request, &entry->buffer, &cause);
    if (error == LOAM_OK) {
        error = record(dma, entry, buffer);
        if (error != LOAM_OK) {
            enum loam_error ignored = free_frames(dma, &entry->buffer); /* as in carve */

            (void)ignored;
        }
    }
    if (error != LOAM_OK) {
        error = refuse(dma, request, error, cause.error != LOAM_OK ? &cause : NULL, diag);
        free(entry);
    }
    return error;
}

enum loam_error loam_dma_release(struct loam_dma *dma, uint64_t id)
{
    struct loam_dma_entry *entry;
    enum loam_error error = LOAM_OK;

    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    lock(dma);
    entry = dma->suspect ? NULL : entry_with_id(dma, id);
    if (entry == NULL) {
        error = dma->suspect ? LOAM_ERROR_CORRUPT : LOAM_ERROR_NOT_FOUND;
    } else if (entry->kept) {
        error = LOAM_ERROR_NOT_PERMITTED;
    } else if (entry->pin_count > 0) {
        error = LOAM_ERROR_BUSY;
    } else if ((error = free_frames(dma, &entry->buffer)) != LOAM_OK) {
        error = error == LOAM_ERROR_BUSY ? LOAM_ERROR_BUSY : LOAM_ERROR_CORRUPT;
    } else {
        strike_out(dma, entry);
        free(entry);
    }
    unlock(dma);
    return error;
}

enum loam_error loam_dma_pin(struct loam_dma *dma, uint64_t id)
{
    struct loam_dma_entry *entry;
    enum loam_error error = LOAM_OK;

    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    lock(dma);
    entry = dma->suspect ? NULL : entry_with_id(dma, id);
    if (entry == NULL) {
        error = dma->suspect ? LOAM_ERROR_CORRUPT : LOAM_ERROR_NOT_FOUND;
    } else if (entry->pin_count == UINT32_MAX) {
        error = LOAM_ERROR_EXHAUSTED;
    } else {
        entry->pin_count++;
    }
    unlock(dma);
    return error;
}

enum loam_error loam_dma_unpin(struct loam_dma *dma, uint64_t id)
{
    struct loam_dma_entry *entry;
    enum loam_error error = LOAM_OK;

    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    lock(dma);
    entry = dma->suspect ? NULL : entry_with_id(dma, id);
    if (entry == NULL) {
        error = dma->suspect ? LOAM_ERROR_CORRUPT : LOAM_ERROR_NOT_FOUND;
    } else if (entry->pin_count == 0) {
        error = LOAM_ERROR_INVALID;
    } else {
        entry->pin_count--;
    }
    unlock(dma);
    return error;
}

/* --- Virtqueue rings --------------------------------------------------------------------------------------------- */

enum loam_error loam_virtqueue_layout(uint32_t queue_size, struct loam_virtqueue_layout *layout)
{
    uint64_t available_end;

    if (layout == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *layout = (struct loam_virtqueue_layout){0};
    if (!loam_is_power_of_two(queue_size) || queue_size > LOAM_VIRTQUEUE_SIZE_MAX) {
        return LOAM_ERROR_INVALID;
    }
    /* The descriptors end at a multiple of 16, which is aligned enough for the available ring. */
    layout->available_offset_bytes = (uint64_t)queue_size * DESCRIPTOR_BYTES;
    available_end =
        layout->available_offset_bytes + AVAILABLE_FIXED_BYTES + (uint64_t)queue_size * AVAILABLE_ELEMENT_BYTES;
    layout->used_offset_bytes = loam_align_up(available_end, USED_ALIGN_BYTES);
    layout->bytes = layout->used_offset_bytes + USED_FIXED_BYTES + (uint64_t)queue_size * USED_ELEMENT_BYTES;
    return LOAM_OK;
}

enum loam_error loam_dma_alloc_virtqueue(struct loam_dma *dma, const char *owner, uint32_t queue_size, loam_gpa limit,
                                         struct loam_virtqueue_rings *rings, struct loam_diag *diag)
{
    struct loam_virtqueue_layout layout;
    struct loam_dma_request request = {.owner = owner, .limit = limit};
    enum loam_error error = loam_virtqueue_layout(queue_size, &layout);

    if (rings == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "virtqueue: NULL given where a place for its rings is wanted");
    }
    *rings = (struct loam_virtqueue_rings){0};
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "virtqueue of \"%.63s\": a size of %" PRIu32 ", not a power of two up to %u",
                         owner_valid(owner) ? owner : "?", queue_size, LOAM_VIRTQUEUE_SIZE_MAX);
    }
    request.bytes = layout.bytes;
    error = loam_dma_alloc(dma, &request, &rings->buffer, diag);
    if (error != LOAM_OK) {
        return error;
    }
    rings->queue_size = queue_size;
    rings->descriptors.value = rings->buffer.gpa.value + layout.descriptors_offset_bytes;
    rings->available.value = rings->buffer.gpa.value + layout.available_offset_bytes;
    rings->used.value = rings->buffer.gpa.value + layout.used_offset_bytes;
    return LOAM_OK;
}

/* --- The ledger -------------------------------------------------------------------------------------------------- */

uint32_t loam_dma_count(const struct loam_dma *dma)
{
    struct loam_dma *locked = dma != NULL ? lock(dma) : NULL;
    uint32_t count = locked != NULL ? locked->count : 0;

    if (locked != NULL) {
        unlock(locked);
    }
    return count;
}

enum loam_error loam_dma_entry_at(const struct loam_dma *dma, uint32_t index, struct loam_dma_entry *entry)
{
    struct loam_dma *locked;
    bool found;

    if (entry == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *entry = (struct loam_dma_entry){0};
    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    locked = lock(dma);
    found = index < dma->count;
    *entry = found ? *dma->by_gpa[index] : (struct loam_dma_entry){0};
    unlock(locked);
    return found ? LOAM_OK : LOAM_ERROR_NOT_FOUND;
}

enum loam_error loam_dma_find(const struct loam_dma *dma, loam_gpa gpa, struct loam_dma_entry *entry)
{
    const struct loam_dma_entry *found;
    struct loam_dma *locked;

    if (entry == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *entry = (struct loam_dma_entry){0};
    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    locked = lock(dma);
    found = entry_in(dma, gpa.value, 1);
    *entry = found != NULL ? *found : (struct loam_dma_entry){0};
    unlock(locked);
    return found != NULL ? LOAM_OK : LOAM_ERROR_NOT_FOUND;
}

/* One entry against the allocator, and against the map as it is. */
static enum loam_error validate_entry(const struct loam_dma *dma, const struct loam_gpa_view *view,
                                      const struct loam_dma_entry *entry, struct loam_diag *diag)
{
    const struct loam_dma_buffer *buffer = &entry->buffer;
    loam_pfn start = loam_pfn_from_gpa(buffer->gpa, dma->frame_shift);
    struct loam_frame_info info = loam_frame_query(dma->frame, start);
    struct loam_piece piece = {0};
    char text[160];
    uint32_t count;

    if (info.state != LOAM_FRAME_ALLOCATED || info.block.start.value != start.value ||
        info.block.count_frames != buffer->bytes >> dma->frame_shift) {
        loam_frame_describe(dma->frame, start, text, sizeof text);
        return loam_fail(diag, LOAM_ERROR_CORRUPT,
                         "dma ledger: \"%s\" has %" PRIu64 " bytes at GPA %#" PRIx64 ", but %s", entry->owner,
                         buffer->bytes, gpa_of(entry), text);
    }
    if (loam_gpa_view_pieces(view, buffer->gpa, buffer->bytes, LOAM_ACCESS_READ, &piece, 1, &count) != LOAM_OK ||
        piece.hva != buffer->hva) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT,
                         "dma ledger: \"%s\" has %" PRIu64 " bytes at GPA %#" PRIx64
                         " and HVA %p, but the GPA map has them at %p, in %" PRIu32 " pieces",
                         entry->owner, buffer->bytes, gpa_of(entry), buffer->hva, piece.hva, count);
    }
    return LOAM_OK;
}

/* The arrays against each other. */
static enum loam_error validate_order(const struct loam_dma *dma, uint32_t index, struct loam_diag *diag)
{
    const struct loam_dma_entry *entry = dma->by_gpa[index];
    const struct loam_dma_entry *before = index > 0 ? dma->by_gpa[index - 1] : NULL;

    if (before != NULL && gpa_of(before) + before->buffer.bytes > gpa_of(entry)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "dma ledger: \"%s\" at GPA %#" PRIx64 " overlaps \"%s\"",
                         entry->owner, gpa_of(entry), before->owner);
    }
    if (id_of(entry) == 0 || id_of(entry) > dma->last_id || entry_with_id(dma, id_of(entry)) != entry) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "dma ledger: \"%s\" is not found by its id %" PRIu64, entry->owner,
                         id_of(entry));
    }
    return LOAM_OK;
}

enum loam_error loam_dma_validate(const struct loam_dma *dma, struct loam_diag *diag)
{
    const struct loam_gpa_view *view;
    struct loam_dma *locked;
    enum loam_error error = LOAM_OK;

    if (dma == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "dma ledger: NULL given where one is wanted");
    }
    locked = lock(dma);
    view = loam_gpa_map_acquire(dma->map);
    for (uint32_t i = 0; error == LOAM_OK && i < dma->count; i++) {
        error = validate_order(dma, i, diag);
        if (error == LOAM_OK) {
            error = validate_entry(dma, view, dma->by_gpa[i], diag);
        }
    }
    loam_gpa_map_release(dma->map, view);
    locked->suspect = locked->suspect && error != LOAM_OK;
    unlock(locked);
    return error;
}
