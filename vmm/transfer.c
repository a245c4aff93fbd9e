// SPDX-License-Identifier: Apache-2.0
#include "vmm/transfer.h"

#include "vmm/resident.h"
#include "vmm/state_memory.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_BYTES UINT64_C(4096)
#define PIECE_MAX  (UINT64_C(256) << 10) /* of pages in one frame */

enum frame_kind { FRAME_HELLO = 1, FRAME_PLAN, FRAME_PAGES, FRAME_ZEROS, FRAME_STATE, FRAME_WORD };

/* Before each piece of the stream; little-endian, as the host is. */
struct frame {
    uint8_t magic[4];
    uint32_t kind;
    uint64_t gpa;   /* FRAME_HELLO: the version */
    uint64_t bytes; /* that follow; of FRAME_ZEROS none do */
    uint64_t sum;   /* of them, begun from gpa */
};

static_assert(sizeof(struct frame) == 32, "as STATE.md lays it out");

static const uint8_t magic[4] = "LoMv";

/* --- Bytes -------------------------------------------------------------------------------------------------------- */

static enum loam_error cancelled(struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_CANCELLED, "transfer: it was called off");
}

static bool must_end(const struct transfer *transfer)
{
    return transfer->must_end != NULL && atomic_load(transfer->must_end);
}

static enum loam_error put(const struct transfer *transfer, const void *bytes, size_t count, struct loam_diag *diag)
{
    const char *at = bytes;

    while (count > 0) {
        ssize_t done = must_end(transfer) ? 0 : write(transfer->fd, at, count);

        if (must_end(transfer)) {
            return cancelled(diag);
        }
        if (done < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "transfer: the other end takes no more");
        }
        at += done > 0 ? done : 0;
        count -= done > 0 ? (size_t)done : 0;
    }
    return LOAM_OK;
}

static enum loam_error get(const struct transfer *transfer, void *bytes, size_t count, struct loam_diag *diag)
{
    char *at = bytes;

    while (count > 0) {
        ssize_t done = must_end(transfer) ? 0 : read(transfer->fd, at, count);

        if (must_end(transfer)) {
            return cancelled(diag);
        }
        if (done == 0) {
            return loam_fail(diag, LOAM_ERROR_INVALID,
                             "transfer: it ends before the guest is all there: the other end has gone, or the file was "
                             "cut");
        }
        if (done < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "transfer: the other end cannot be read");
        }
        at += done > 0 ? done : 0;
        count -= done > 0 ? (size_t)done : 0;
    }
    return LOAM_OK;
}

/* --- Sending -------------------------------------------------------------------------------------------------------- */

static enum loam_error send_frame(const struct transfer *transfer, enum frame_kind kind, uint64_t gpa,
                                  const void *bytes, uint64_t count, struct loam_diag *diag)
{
    struct frame frame = {.kind = kind, .gpa = gpa, .bytes = count, .sum = XXH3_64bits_withSeed(bytes, count, gpa)};
    enum loam_error error;

    memcpy(frame.magic, magic, sizeof magic);
    error = put(transfer, &frame, sizeof frame, diag);
    return error == LOAM_OK ? put(transfer, bytes, count, diag) : error;
}

static enum loam_error send_zeros(const struct transfer *transfer, uint64_t gpa, uint64_t count, struct loam_diag *diag)
{
    struct frame frame = {.kind = FRAME_ZEROS, .gpa = gpa, .bytes = count};

    memcpy(frame.magic, magic, sizeof magic);
    return put(transfer, &frame, sizeof frame, diag);
}

static enum loam_error send_writer(const struct transfer *transfer, enum frame_kind kind, struct state_writer *writer,
                                   struct loam_diag *diag)
{
    enum loam_error error = state_finish(writer, diag);

    return error == LOAM_OK ? send_frame(transfer, kind, 0, writer->bytes, writer->count, diag) : error;
}

enum loam_error transfer_send_plan(const struct transfer *transfer, const struct snapshot_source *source,
                                   struct loam_diag *diag)
{
    struct state_writer writer;
    enum loam_error error = send_frame(transfer, FRAME_HELLO, TRANSFER_VERSION, "", 0, diag);

    atomic_store(&transfer->progress->total_bytes, loam_memory_plan(source->memory)->request.bytes);
    if (error != LOAM_OK) {
        return error;
    }
    state_writer_init(&writer);
    machine_shape_save(source->machine, &writer);
    state_memory_save_plan(loam_memory_plan(source->memory), &writer);
    error = send_writer(transfer, FRAME_PLAN, &writer, diag);
    state_writer_release(&writer);
    return error;
}

static bool is_zero_page(const uint8_t *page)
{
    static const uint8_t zeros[PAGE_BYTES];

    return memcmp(page, zeros, PAGE_BYTES) == 0;
}

/* Pages that are copied before they are summed and sent: the guest may write to them meanwhile. */
struct sending {
    const struct transfer *transfer;
    uint8_t *piece;
};

static enum loam_error send_pages(const struct sending *sending, uint64_t gpa, const uint8_t *bytes, uint64_t count,
                                  struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint64_t at = 0, here; error == LOAM_OK && at < count; at += here) {
        here = count - at < PIECE_MAX ? count - at : PIECE_MAX;
        resident_take(sending->piece, bytes + at, here);
        error = send_frame(sending->transfer, FRAME_PAGES, gpa + at, sending->piece, here, diag);
        atomic_fetch_add(&sending->transfer->progress->moved_bytes, here);
    }
    return error;
}

static enum loam_error send_run(void *self, uint64_t gpa, const uint8_t *bytes, uint64_t count, struct loam_diag *diag)
{
    const struct sending *sending = self;
    enum loam_error error = LOAM_OK;
    uint64_t first = 0;

    for (uint64_t at = 0; error == LOAM_OK && at <= count; at += PAGE_BYTES) {
        if (at == count || is_zero_page(bytes + at)) {
            if (at > first) {
                error = send_pages(sending, gpa + first, bytes + first, at - first, diag);
            }
            first = at + PAGE_BYTES;
        }
    }
    atomic_fetch_add(&sending->transfer->progress->looked_bytes, count);
    return error;
}

static enum loam_error send_ranges(const struct sending *sending, struct loam_memory *memory, struct loam_diag *diag)
{
    struct state_range ranges[STATE_RANGE_MAX];
    const uint32_t count = state_memory_ranges(loam_memory_plan(memory), ranges);
    struct resident *resident;
    enum loam_error error = resident_open(memory, &resident, diag);

    if (error != LOAM_OK) {
        return error;
    }
    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        error = resident_walk(resident, ranges[i].start, ranges[i].bytes, send_run, (void *)sending, diag);
    }
    resident_close(resident);
    return error;
}

enum loam_error transfer_send_memory(const struct transfer *transfer, struct loam_memory *memory,
                                     struct loam_diag *diag)
{
    const struct sending sending = {transfer, malloc(PIECE_MAX)};
    enum loam_error error = sending.piece != NULL ? send_ranges(&sending, memory, diag)
                                                  : loam_fail(diag, LOAM_ERROR_SYSTEM, "transfer: no memory");

    free(sending.piece);
    return error;
}

/* In runs of pages that are zeros and of others. */
static enum loam_error send_again(const struct sending *sending, uint64_t gpa, const uint8_t *bytes, uint64_t count,
                                  struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint64_t at = 0, end; error == LOAM_OK && at < count; at = end) {
        const bool is_zero = is_zero_page(bytes + at);

        for (end = at + PAGE_BYTES; end < count && is_zero_page(bytes + end) == is_zero; end += PAGE_BYTES) {
        }
        error = is_zero ? send_zeros(sending->transfer, gpa + at, end - at, diag)
                        : send_pages(sending, gpa + at, bytes + at, end - at, diag);
    }
    return error;
}

enum loam_error transfer_send_pages(const struct transfer *transfer, struct loam_memory *memory, uint64_t gpa,
                                    uint64_t bytes, struct loam_diag *diag)
{
    const struct sending sending = {transfer, malloc(PIECE_MAX)};
    struct resident *resident = NULL;
    enum loam_error error = sending.piece != NULL ? resident_open(memory, &resident, diag)
                                                  : loam_fail(diag, LOAM_ERROR_SYSTEM, "transfer: no memory");

    for (uint64_t end = gpa + bytes, next; error == LOAM_OK && gpa < end; gpa = next) {
        const uint8_t *hva = resident_hva(resident, gpa, PAGE_BYTES);

        for (next = gpa + PAGE_BYTES; next < end && resident_hva(resident, gpa, next + PAGE_BYTES - gpa) != NULL;
             next += PAGE_BYTES) {
        }
        error = hva != NULL ? send_again(&sending, gpa, hva, next - gpa, diag) : LOAM_OK;
    }
    if (resident != NULL) {
        resident_close(resident);
    }
    free(sending.piece);
    return error;
}

enum loam_error transfer_send_state(const struct transfer *transfer, const struct snapshot_source *source,
                                    struct loam_diag *diag)
{
    struct state_writer writer;
    enum loam_error error;

    state_writer_init(&writer);
    error = snapshot_save_state(source, &writer, diag);
    if (error == LOAM_OK) {
        error = send_writer(transfer, FRAME_STATE, &writer, diag);
    }
    state_writer_release(&writer);
    return error;
}

/* --- Receiving ------------------------------------------------------------------------------------------------------ */

static enum loam_error damaged(struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_INVALID, "transfer: what comes is no guest of Loam's, or is damaged");
}

static enum loam_error get_frame(const struct transfer *transfer, struct frame *frame, struct loam_diag *diag)
{
    enum loam_error error = get(transfer, frame, sizeof *frame, diag);

    return error == LOAM_OK && memcmp(frame->magic, magic, sizeof magic) != 0 ? damaged(diag) : error;
}

static enum loam_error get_body(const struct transfer *transfer, const struct frame *frame, void *to,
                                struct loam_diag *diag)
{
    enum loam_error error = get(transfer, to, frame->bytes, diag);

    return error == LOAM_OK && XXH3_64bits_withSeed(to, frame->bytes, frame->gpa) != frame->sum ? damaged(diag) : error;
}

static enum loam_error get_hello(const struct transfer *transfer, struct loam_diag *diag)
{
    struct frame frame;
    enum loam_error error = get_frame(transfer, &frame, diag);

    if (error == LOAM_OK && (frame.kind != FRAME_HELLO || frame.bytes != 0)) {
        return damaged(diag);
    }
    if (error == LOAM_OK && frame.gpa != TRANSFER_VERSION) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "transfer: version %u wanted, which this program reads, and %" PRIu64
                         " found: have both ends of one version",
                         TRANSFER_VERSION, frame.gpa);
    }
    return error;
}

/* A file of records. There is nothing to release on failure. */
static enum loam_error get_state(const struct transfer *transfer, const struct frame *frame,
                                 struct transfer_state *state, struct loam_diag *diag)
{
    enum loam_error error;

    *state = (struct transfer_state){.bytes = NULL};
    if (frame->bytes > STATE_BYTES_MAX) {
        return damaged(diag);
    }
    state->bytes = malloc(frame->bytes + 1);
    if (state->bytes == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "transfer: no memory");
    }
    error = get_body(transfer, frame, state->bytes, diag);
    if (error == LOAM_OK) {
        error = state_open(&state->reader, state->bytes, frame->bytes, diag);
    }
    if (error != LOAM_OK) {
        free(state->bytes);
        state->bytes = NULL;
    }
    return error;
}

static enum loam_error get_plan(const struct transfer *transfer, const struct loam_plan *plan, struct loam_diag *diag)
{
    struct transfer_state state;
    struct frame frame;
    enum loam_error error = get_frame(transfer, &frame, diag);

    if (error == LOAM_OK) {
        error = frame.kind == FRAME_PLAN ? get_state(transfer, &frame, &state, diag) : damaged(diag);
    }
    if (error == LOAM_OK) {
        error = state_memory_check(&state.reader, plan, diag);
        transfer_state_release(&state);
    }
    return error;
}

/* Where RAM is that a frame names; NULL: nowhere, or in more than one piece. */
static uint8_t *find_pages(const struct resident *resident, const struct frame *frame)
{
    return frame->bytes == 0 || !loam_is_aligned(frame->gpa | frame->bytes, PAGE_BYTES)
               ? NULL
               : resident_hva(resident, frame->gpa, frame->bytes);
}

static enum loam_error get_pages(const struct transfer *transfer, const struct resident *resident,
                                 const struct frame *frame, struct loam_diag *diag)
{
    uint8_t *hva = find_pages(resident, frame);

    if (hva == NULL || (frame->kind == FRAME_PAGES && frame->bytes > PIECE_MAX)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "transfer: 0x%" PRIx64 " bytes at GPA 0x%" PRIx64 " came, and are no pages of RAM here",
                         frame->bytes, frame->gpa);
    }
    atomic_fetch_add(&transfer->progress->moved_bytes, frame->kind == FRAME_PAGES ? frame->bytes : 0);
    if (frame->kind == FRAME_ZEROS) {
        memset(hva, 0, frame->bytes);
        return LOAM_OK;
    }
    return get_body(transfer, frame, hva, diag);
}

static enum loam_error get_guest(const struct transfer *transfer, const struct resident *resident,
                                 struct transfer_state *state, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    struct frame frame;

    while (error == LOAM_OK) {
        error = get_frame(transfer, &frame, diag);
        if (error == LOAM_OK && frame.kind == FRAME_STATE) {
            return get_state(transfer, &frame, state, diag);
        }
        if (error == LOAM_OK) {
            error = frame.kind == FRAME_PAGES || frame.kind == FRAME_ZEROS ? get_pages(transfer, resident, &frame, diag)
                                                                           : damaged(diag);
        }
    }
    return error;
}

enum loam_error transfer_receive(const struct transfer *transfer, struct loam_memory *memory,
                                 struct transfer_state *state, struct loam_diag *diag)
{
    const struct loam_plan *plan = loam_memory_plan(memory);
    struct resident *resident;
    enum loam_error error = get_hello(transfer, diag);

    *state = (struct transfer_state){.bytes = NULL};
    atomic_store(&transfer->progress->total_bytes, plan->request.bytes);
    if (error == LOAM_OK) {
        error = get_plan(transfer, plan, diag);
    }
    if (error == LOAM_OK) {
        error = resident_open(memory, &resident, diag);
    }
    if (error == LOAM_OK) {
        error = get_guest(transfer, resident, state, diag);
        resident_close(resident);
    }
    return error;
}

void transfer_state_release(struct transfer_state *state)
{
    if (state->bytes != NULL) {
        state_close(&state->reader);
        free(state->bytes);
        state->bytes = NULL;
    }
}

/* --- The word at the end ----------------------------------------------------------------------------------------------- */

enum loam_error transfer_give_word(const struct transfer *transfer, struct loam_diag *diag)
{
    return send_frame(transfer, FRAME_WORD, 0, "", 0, diag);
}

enum loam_error transfer_await_word(const struct transfer *transfer, struct loam_diag *diag)
{
    struct loam_diag why = {0};
    struct frame frame;
    enum loam_error error = get_frame(transfer, &frame, &why);

    if (error == LOAM_ERROR_CANCELLED) {
        return cancelled(diag);
    }
    return error == LOAM_OK && frame.kind == FRAME_WORD && frame.bytes == 0
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID,
                           "transfer: all was sent, and the other end has not taken the guest in: it stays here");
}
