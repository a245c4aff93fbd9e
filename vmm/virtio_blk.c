// SPDX-License-Identifier: Apache-2.0
/*
 * A request is parsed and carried out on the worker's thread, without a lock; of the device it reads only what stays as it
 * was made. What is left over of a request's bytes says where it stands: `out` after the header is the driver's data,
 * `in` without its last byte, the status, is the room for the device's.
 */
#include "vmm/virtio_blk.h"

#include "vmm/virtio_pieces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define VECTOR_MAX   128u
#define ZEROES_BYTES (64u * 1024)

typedef ssize_t move_fn(int fd, const struct iovec *vectors, int count, off_t offset);

struct request {
    struct virtio_blk *blk;
    const struct virtio_job *job;
    struct virtio_blk_header header;
    struct virtio_pieces out;
    struct virtio_pieces in;
    uint64_t filled_bytes; /* of in, from the first on */
};

/* --- Tallies ----------------------------------------------------------------------------------------------------- */

static uint64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void count(struct virtio_blk *blk, struct virtio_blk_tally *tally, uint8_t status, uint64_t bytes,
                  uint64_t started_nanoseconds)
{
    const uint64_t nanoseconds = now_nanoseconds() - started_nanoseconds;

    virtio_mmio_lock(&blk->mmio);
    tally->total_nanoseconds += nanoseconds;
    if (status == VIRTIO_BLK_S_OK) {
        tally->operation_count++;
        tally->bytes += bytes;
    } else {
        tally->failed_count++;
    }
    virtio_mmio_unlock(&blk->mmio);
}

static uint8_t refuse(struct virtio_blk *blk, uint8_t status)
{
    virtio_mmio_lock(&blk->mmio);
    blk->stats.invalid_count++;
    virtio_mmio_unlock(&blk->mmio);
    return status;
}

/* --- The file ---------------------------------------------------------------------------------------------------- */

/* In each of these a signal is no end, but where the worker is to stop. */
static bool go_on(const struct virtio_blk *blk, bool has_failed)
{
    return has_failed && errno == EINTR && !virtio_worker_must_stop(&blk->worker);
}

/*
 * The bytes of pieces from or to the file at offset, by preadv or pwritev. false: not all of them. *moved_bytes counts
 * those that were.
 */
static bool move(const struct virtio_blk *blk, struct virtio_pieces pieces, uint64_t offset, move_fn *call,
                 uint64_t *moved_bytes)
{
    struct iovec vectors[VECTOR_MAX];

    *moved_bytes = 0;
    while (pieces.left_bytes > 0 && !virtio_worker_must_stop(&blk->worker)) {
        const uint32_t vector_count = virtio_pieces_vectors(&pieces, VIRTIO_BLK_CALL_BYTES, vectors, VECTOR_MAX);
        const ssize_t moved = call(blk->fd, vectors, (int)vector_count, (off_t)(offset + *moved_bytes));

        if (moved > 0) {
            virtio_pieces_skip(&pieces, (uint64_t)moved);
            *moved_bytes += (uint64_t)moved;
        } else if (!go_on(blk, moved < 0)) {
            return false;
        }
    }
    return pieces.left_bytes == 0;
}

static bool flush(const struct virtio_blk *blk)
{
    int error;

    if (blk->no_flush) {
        return true;
    }
    do {
        error = fdatasync(blk->fd);
    } while (go_on(blk, error != 0));
    return error == 0;
}

/* false: errno. */
static bool allocate(const struct virtio_blk *blk, int mode, uint64_t offset, uint64_t bytes)
{
    int error;

    do {
        error = fallocate(blk->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    } while (go_on(blk, error != 0));
    return error == 0;
}

static bool write_zeroes(const struct virtio_blk *blk, uint64_t offset, uint64_t bytes)
{
    static const uint8_t zeroes[ZEROES_BYTES];

    while (bytes > 0 && !virtio_worker_must_stop(&blk->worker)) {
        const struct iovec vector = {(void *)(uintptr_t)zeroes, bytes < sizeof zeroes ? bytes : sizeof zeroes};
        const ssize_t written = pwritev(blk->fd, &vector, 1, (off_t)offset);

        if (written > 0) {
            offset += (uint64_t)written;
            bytes -= (uint64_t)written;
        } else if (!go_on(blk, written < 0)) {
            return false;
        }
    }
    return bytes == 0;
}

/* What was written is stable at once for a driver that does not flush (section 5.2.6.2). */
static bool settle_write(const struct request *request)
{
    return (request->job->features & VIRTIO_BLK_F_FLUSH) != 0 || flush(request->blk);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static bool fits(const struct virtio_blk *blk, uint64_t sector, uint64_t bytes)
{
    return loam_is_aligned(bytes, VIRTIO_BLK_SECTOR_BYTES) &&
           loam_fits(sector, bytes / VIRTIO_BLK_SECTOR_BYTES, blk->layout.capacity_sectors);
}

static uint8_t status_of(bool is_done)
{
    return (uint8_t)(is_done ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
}

static uint8_t read_sectors(struct request *request)
{
    struct virtio_blk *blk = request->blk;
    const uint64_t started = now_nanoseconds();
    uint8_t status;

    if (request->out.left_bytes > 0 || !fits(blk, request->header.sector, request->in.left_bytes)) {
        return refuse(blk, VIRTIO_BLK_S_IOERR);
    }
    status = status_of(
        move(blk, request->in, request->header.sector * VIRTIO_BLK_SECTOR_BYTES, preadv, &request->filled_bytes));
    count(blk, &blk->stats.read, status, request->in.left_bytes, started);
    return status;
}

static uint8_t write_sectors(struct request *request)
{
    struct virtio_blk *blk = request->blk;
    const uint64_t started = now_nanoseconds();
    uint64_t moved_bytes;
    uint8_t status;

    if ((blk->mmio.device.features & VIRTIO_BLK_F_RO) != 0 || request->in.left_bytes > 0 ||
        !fits(blk, request->header.sector, request->out.left_bytes)) {
        return refuse(blk, VIRTIO_BLK_S_IOERR);
    }
    status =
        status_of(move(blk, request->out, request->header.sector * VIRTIO_BLK_SECTOR_BYTES, pwritev, &moved_bytes) &&
                  settle_write(request));
    count(blk, &blk->stats.write, status, request->out.left_bytes, started);
    return status;
}

static uint8_t carry_out_flush(struct request *request)
{
    struct virtio_blk *blk = request->blk;
    const uint64_t started = now_nanoseconds();
    const uint8_t status = status_of(flush(blk));

    count(blk, &blk->stats.flush, status, 0, started);
    return status;
}

static uint8_t give_id(struct request *request)
{
    const uint64_t room = request->in.left_bytes;
    const uint64_t bytes = room < VIRTIO_BLK_SERIAL_BYTES ? room : VIRTIO_BLK_SERIAL_BYTES;

    if (!virtio_pieces_write(&request->in, request->job->view, request->blk->serial, bytes)) {
        return refuse(request->blk, VIRTIO_BLK_S_IOERR);
    }
    request->filled_bytes = bytes;
    return VIRTIO_BLK_S_OK;
}

/* --- Ranges ------------------------------------------------------------------------------------------------------ */

/* Section 5.2.6.2: of both types, what is wrong with one range. */
static uint8_t check_range(const struct request *request, const struct virtio_blk_range *range)
{
    const bool is_discard = request->header.type == VIRTIO_BLK_T_DISCARD;
    const uint32_t sectors_max = is_discard ? VIRTIO_BLK_DISCARD_SECTORS_MAX : VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX;

    if ((range->flags & ~(is_discard ? 0 : VIRTIO_BLK_RANGE_UNMAP)) != 0) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    return status_of(range->sector_count <= sectors_max &&
                     fits(request->blk, range->sector, (uint64_t)range->sector_count * VIRTIO_BLK_SECTOR_BYTES));
}

/* All of a request's ranges, once, and whether all may be carried out. */
static uint8_t load_ranges(struct request *request, struct virtio_blk_range ranges[VIRTIO_BLK_RANGE_MAX],
                           uint32_t *range_count)
{
    const uint64_t bytes = request->out.left_bytes;

    *range_count = (uint32_t)(bytes / sizeof ranges[0]);
    if (request->in.left_bytes > 0 || bytes == 0 || bytes % sizeof ranges[0] != 0 ||
        bytes > VIRTIO_BLK_RANGE_MAX * sizeof ranges[0] ||
        !virtio_pieces_read(&request->out, request->job->view, ranges, bytes)) {
        return VIRTIO_BLK_S_IOERR;
    }
    for (uint32_t i = 0; i < *range_count; i++) {
        const uint8_t status = check_range(request, &ranges[i]);

        if (status != VIRTIO_BLK_S_OK) {
            return status;
        }
    }
    return VIRTIO_BLK_S_OK;
}

static uint8_t discard_range(const struct request *request, const struct virtio_blk_range *range)
{
    const bool is_done = allocate(request->blk, FALLOC_FL_PUNCH_HOLE, range->sector * VIRTIO_BLK_SECTOR_BYTES,
                                  (uint64_t)range->sector_count * VIRTIO_BLK_SECTOR_BYTES);

    return !is_done && errno == EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : status_of(is_done);
}

static uint8_t zero_range(const struct request *request, const struct virtio_blk_range *range)
{
    const struct virtio_blk *blk = request->blk;
    const bool may_unmap = (range->flags & VIRTIO_BLK_RANGE_UNMAP) != 0 && blk->layout.write_zeroes_may_unmap != 0;
    const uint64_t offset = range->sector * VIRTIO_BLK_SECTOR_BYTES;
    const uint64_t bytes = (uint64_t)range->sector_count * VIRTIO_BLK_SECTOR_BYTES;

    return status_of(allocate(blk, may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, offset, bytes) ||
                     (errno == EOPNOTSUPP && write_zeroes(blk, offset, bytes)));
}

/* Discard, or write zeroes: one after the other, up to the first that fails. */
static uint8_t change_ranges(struct request *request, struct virtio_blk_tally *tally,
                             uint8_t (*change)(const struct request *, const struct virtio_blk_range *))
{
    struct virtio_blk_range ranges[VIRTIO_BLK_RANGE_MAX];
    const uint64_t started = now_nanoseconds();
    uint64_t bytes = 0;
    uint32_t range_count;
    uint8_t status = load_ranges(request, ranges, &range_count);

    if (status != VIRTIO_BLK_S_OK) {
        return refuse(request->blk, status);
    }
    for (uint32_t i = 0; i < range_count && status == VIRTIO_BLK_S_OK; i++) {
        /* fallocate(2) refuses a range of nothing. */
        status = ranges[i].sector_count > 0 ? change(request, &ranges[i]) : VIRTIO_BLK_S_OK;
        bytes += (uint64_t)ranges[i].sector_count * VIRTIO_BLK_SECTOR_BYTES;
    }
    if (status == VIRTIO_BLK_S_OK) {
        status = status_of(settle_write(request));
    }
    count(request->blk, tally, status, bytes, started);
    return status;
}

/* --- The queue --------------------------------------------------------------------------------------------------- */

static uint8_t carry_out(struct request *request)
{
    struct virtio_blk_stats *stats = &request->blk->stats;
    const uint64_t features = request->job->features;

    switch (request->header.type) {
    case VIRTIO_BLK_T_IN:
        return read_sectors(request);
    case VIRTIO_BLK_T_OUT:
        return write_sectors(request);
    case VIRTIO_BLK_T_FLUSH:
        return carry_out_flush(request);
    case VIRTIO_BLK_T_GET_ID:
        return give_id(request);
    case VIRTIO_BLK_T_DISCARD:
        if ((features & VIRTIO_BLK_F_DISCARD) != 0) {
            return change_ranges(request, &stats->discard, discard_range);
        }
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        if ((features & VIRTIO_BLK_F_WRITE_ZEROES) != 0) {
            return change_ranges(request, &stats->write, zero_range);
        }
        break;
    default:
        break;
    }
    return refuse(request->blk, VIRTIO_BLK_S_UNSUPP);
}

/* The status is the last byte that the device may write, and counts as written where all before it was. */
static uint32_t answer(const struct request *request, uint8_t status)
{
    const uint64_t writable_bytes = request->job->chain.writable_bytes;
    struct virtio_pieces last = virtio_pieces_writable(&request->job->chain);

    virtio_pieces_skip(&last, writable_bytes - 1);
    if (!virtio_pieces_write(&last, request->job->view, &status, 1)) {
        return 0;
    }
    return (uint32_t)(request->filled_bytes == writable_bytes - 1 ? writable_bytes : request->filled_bytes);
}

static uint32_t serve(void *self, const struct virtio_job *job)
{
    struct request request = {
        .blk = self,
        .job = job,
        .out = virtio_pieces_readable(&job->chain),
        .in = virtio_pieces_writable(&job->chain),
    };

    if (request.in.left_bytes == 0) {
        (void)refuse(request.blk, VIRTIO_BLK_S_IOERR);
        return 0;
    }
    request.in.left_bytes--;
    if (!virtio_pieces_read(&request.out, job->view, &request.header, sizeof request.header)) {
        return answer(&request, refuse(request.blk, VIRTIO_BLK_S_IOERR));
    }
    return answer(&request, carry_out(&request));
}

static void notify(void *self, uint32_t queue)
{
    struct virtio_blk *blk = self;

    virtio_worker_ring(&blk->worker, queue);
}

static void stop(void *self, uint32_t queue)
{
    struct virtio_blk *blk = self;

    virtio_worker_drop(&blk->worker, queue);
}

static void config_read(void *self, uint32_t offset, uint8_t *data, uint32_t bytes)
{
    const struct virtio_blk *blk = self;

    memcpy(data, (const uint8_t *)&blk->layout + offset, bytes);
}

/* --- What the file is --------------------------------------------------------------------------------------------- */

static enum loam_error ask_device(const struct virtio_blk_config *config, uint64_t *bytes, uint32_t *block_bytes,
                                  struct loam_diag *diag)
{
    int block;

    if (ioctl(config->fd, BLKGETSIZE64, bytes) != 0 || ioctl(config->fd, BLKSSZGET, &block) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: the size of the block device", config->name);
    }
    *block_bytes = (uint32_t)block;
    return LOAM_OK;
}

static enum loam_error ask_size(const struct virtio_blk_config *config, uint64_t *bytes, uint32_t *block_bytes,
                                struct loam_diag *diag)
{
    struct stat status;

    if (fstat(config->fd, &status) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: descriptor %d", config->name, config->fd);
    }
    if (S_ISBLK(status.st_mode)) {
        return ask_device(config, bytes, block_bytes, diag);
    }
    if (!S_ISREG(status.st_mode)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%s: it is neither a regular file nor a block device: give a raw image, or a device",
                         config->name);
    }
    *bytes = (uint64_t)status.st_size;
    *block_bytes = VIRTIO_BLK_SECTOR_BYTES;
    return LOAM_OK;
}

static enum loam_error check_size(const struct virtio_blk_config *config, uint64_t bytes, struct loam_diag *diag)
{
    const uint64_t rest = bytes % VIRTIO_BLK_SECTOR_BYTES;

    return rest == 0
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID,
                           "%s: it has %ju bytes, no multiple of %u: the guest would not reach the last %ju; fill "
                           "the sector up (truncate -s %%%u), or cut it off",
                           config->name, (uintmax_t)bytes, VIRTIO_BLK_SECTOR_BYTES, (uintmax_t)rest,
                           VIRTIO_BLK_SECTOR_BYTES);
}

static enum loam_error check_open(const struct virtio_blk_config *config, struct loam_diag *diag)
{
    const int flags = fcntl(config->fd, F_GETFL);

    if (flags < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: descriptor %d", config->name, config->fd);
    }
    if ((flags & (O_APPEND | O_DIRECT)) != 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: it is open with O_APPEND or O_DIRECT: open it without",
                         config->name);
    }
    if ((flags & O_PATH) != 0 || (flags & O_ACCMODE) == O_WRONLY) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: it is not open for reading: open it for reading too",
                         config->name);
    }
    if (!config->read_only && (flags & O_ACCMODE) != O_RDWR) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%s: it is not open for writing: open it so, or give it to the guest read-only", config->name);
    }
    return LOAM_OK;
}

static enum loam_error check_serial(const struct virtio_blk_config *config, struct loam_diag *diag)
{
    const size_t length = config->serial != NULL ? strlen(config->serial) : 0;

    return length <= VIRTIO_BLK_SERIAL_BYTES
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID, "%s: a serial number of %zu bytes: %u fit, give a shorter one",
                           config->name, length, VIRTIO_BLK_SERIAL_BYTES);
}

/* --- Lifecycle ---------------------------------------------------------------------------------------------------- */

static uint64_t features_of(const struct virtio_blk_config *config)
{
    const uint64_t always = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH;

    if (config->read_only) {
        return always | VIRTIO_BLK_F_RO;
    }
    return always | VIRTIO_BLK_F_WRITE_ZEROES | (config->discard ? VIRTIO_BLK_F_DISCARD : 0);
}

static struct virtio_blk_layout layout_of(uint64_t features, uint64_t bytes, uint32_t block_bytes)
{
    struct virtio_blk_layout layout = {
        .capacity_sectors = bytes / VIRTIO_BLK_SECTOR_BYTES,
        .seg_max = VIRTIO_BLK_SEG_MAX,
        .blk_size_bytes = block_bytes,
    };

    if ((features & VIRTIO_BLK_F_DISCARD) != 0) {
        layout.max_discard_sectors = VIRTIO_BLK_DISCARD_SECTORS_MAX;
        layout.max_discard_seg = VIRTIO_BLK_RANGE_MAX;
        layout.discard_sector_alignment = block_bytes / VIRTIO_BLK_SECTOR_BYTES;
        layout.write_zeroes_may_unmap = 1;
    }
    if ((features & VIRTIO_BLK_F_WRITE_ZEROES) != 0) {
        layout.max_write_zeroes_sectors = VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX;
        layout.max_write_zeroes_seg = VIRTIO_BLK_RANGE_MAX;
    }
    return layout;
}

static enum loam_error check(const struct virtio_blk_config *config, uint64_t *bytes, uint32_t *block_bytes,
                             struct loam_diag *diag)
{
    enum loam_error error = ask_size(config, bytes, block_bytes, diag);

    if (error == LOAM_OK) {
        error = check_size(config, *bytes, diag);
    }
    if (error == LOAM_OK) {
        error = check_open(config, diag);
    }
    return error == LOAM_OK ? check_serial(config, diag) : error;
}

/* The transport, then the thread, which uses it. */
static enum loam_error start(struct virtio_blk *blk, struct loam_gpa_map *map, struct irq_line irq,
                             const struct virtio_blk_config *config, struct loam_diag *diag)
{
    const struct virtio_device device = {
        .self = blk,
        .id = VIRTIO_BLK_DEVICE_ID,
        .queue_count = 1,
        .queue_size_max = VIRTIO_BLK_QUEUE_SIZE_MAX,
        .config_bytes = sizeof blk->layout,
        .features = features_of(config),
        .notify = notify,
        .stop = stop,
        .config_read = config_read,
    };
    enum loam_error error = virtio_mmio_init(&blk->mmio, map, irq, &device);

    if (error != LOAM_OK) {
        return loam_fail(diag, error, "%s: a map of the guest's memory is wanted", config->name);
    }
    error = virtio_worker_start(&blk->worker, &blk->mmio, serve, blk, config->name, diag);
    if (error != LOAM_OK) {
        virtio_mmio_destroy(&blk->mmio);
    }
    return error;
}

enum loam_error virtio_blk_init(struct virtio_blk *blk, struct loam_gpa_map *map, struct irq_line irq,
                                const struct virtio_blk_config *config, struct loam_diag *diag)
{
    uint64_t bytes = 0;
    uint32_t block_bytes = 0;
    enum loam_error error = check(config, &bytes, &block_bytes, diag);

    if (error != LOAM_OK) {
        return error;
    }
    blk->fd = config->fd;
    blk->no_flush = config->no_flush;
    blk->layout = layout_of(features_of(config), bytes, block_bytes);
    blk->stats = (struct virtio_blk_stats){.invalid_count = 0};
    memset(blk->serial, 0, sizeof blk->serial);
    if (config->serial != NULL) {
        memcpy(blk->serial, config->serial, strlen(config->serial));
    }
    return start(blk, map, irq, config, diag);
}

bool virtio_blk_destroy(struct virtio_blk *blk)
{
    if (!virtio_worker_end(&blk->worker)) {
        return false;
    }
    virtio_mmio_destroy(&blk->mmio);
    return true;
}

void virtio_blk_quiesce(struct virtio_blk *blk)
{
    virtio_worker_hold(&blk->worker);
}

void virtio_blk_resume(struct virtio_blk *blk)
{
    virtio_worker_resume(&blk->worker);
}

uint64_t virtio_blk_capacity_bytes(const struct virtio_blk *blk)
{
    return blk->layout.capacity_sectors * VIRTIO_BLK_SECTOR_BYTES;
}

void virtio_blk_get_stats(struct virtio_blk *blk, struct virtio_blk_stats *stats)
{
    virtio_mmio_lock(&blk->mmio);
    *stats = blk->stats;
    virtio_mmio_unlock(&blk->mmio);
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

static const struct state_field state_fields[] = {
    STATE_ANY(struct virtio_blk, layout.capacity_sectors),
};

void virtio_blk_save(struct virtio_blk *blk, struct state_writer *writer, uint32_t index)
{
    virtio_mmio_save(&blk->mmio, writer, index);
    state_begin(writer, STATE_VIRTIO_BLK, index);
    state_put_fields(writer, STATE_FIELDS(state_fields), blk);
    state_end(writer);
}

enum loam_error virtio_blk_load(struct virtio_blk *blk, struct state_reader *reader, uint32_t index,
                                struct loam_diag *diag)
{
    const uint64_t sectors = blk->layout.capacity_sectors;
    struct state_record *record;
    enum loam_error error = virtio_mmio_load(&blk->mmio, reader, index, diag);

    if (error == LOAM_OK) {
        error = state_find(reader, STATE_VIRTIO_BLK, index, &record, diag);
    }
    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(state_fields), blk, diag);
    }
    if (error == LOAM_OK && blk->layout.capacity_sectors != sectors) {
        return state_refuse(record, diag, "a disk of %llu sectors wanted, and one of %llu found here",
                            (unsigned long long)blk->layout.capacity_sectors, (unsigned long long)sectors);
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}
