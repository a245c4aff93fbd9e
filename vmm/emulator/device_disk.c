// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/device_disk.h"

#include "vmm/json_text.h"
#include "vmm/virtio_blk.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct disk {
    const struct line_disk *line;
    int fd;
    unsigned int transport;       /* where it is attached */
    pthread_mutex_t lock;         /* between who attaches and detaches, and who asks */
    struct virtio_blk *blk;       /* NULL: detached; under lock */
    struct virtio_blk_stats past; /* of former lives; under lock */
};

/* --- On a machine ------------------------------------------------------------------------------------------------------ */

static void set_blk(struct disk *disk, struct virtio_blk *blk)
{
    pthread_mutex_lock(&disk->lock);
    disk->blk = blk;
    pthread_mutex_unlock(&disk->lock);
}

static enum loam_error attach(void *self, struct launch *launch, unsigned int transport, struct loam_diag *diag)
{
    struct disk *disk = self;
    const struct line_disk *line = disk->line;
    const struct virtio_blk_config config = {.name = "disk",
                                             .fd = disk->fd,
                                             .read_only = line->read_only,
                                             .discard = line->discard,
                                             .no_flush = line->no_flush,
                                             .serial = line->serial};
    struct irq_line irq = machine_irq(launch->machine, machine_virtio_irq(transport));
    struct virtio_blk *blk = calloc(1, sizeof *blk);
    struct loam_diag why = {0};
    enum loam_error error;

    if (blk == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "disk %s", line->id);
    }
    error = virtio_blk_init(blk, loam_memory_map(launch->memory), irq, &config, &why);
    if (error != LOAM_OK) {
        free(blk);
        return loam_fail(diag, LOAM_ERROR_INVALID, "disk %s: %s", line->id, why.text);
    }
    set_blk(disk, blk);
    disk->transport = transport;
    return machine_add_virtio(launch->machine, transport, line->id, &blk->mmio, diag);
}

static void add_tally(struct virtio_blk_tally *sum, const struct virtio_blk_tally *more)
{
    sum->operation_count += more->operation_count;
    sum->failed_count += more->failed_count;
    sum->bytes += more->bytes;
    sum->total_nanoseconds += more->total_nanoseconds;
}

static void add_stats(struct virtio_blk_stats *sum, struct virtio_blk *blk)
{
    struct virtio_blk_stats more;

    virtio_blk_get_stats(blk, &more);
    add_tally(&sum->read, &more.read);
    add_tally(&sum->write, &more.write);
    add_tally(&sum->flush, &more.flush);
}

/* What it has counted stays; the device itself is asked no more. */
static struct virtio_blk *take_blk(struct disk *disk)
{
    struct virtio_blk *blk;

    pthread_mutex_lock(&disk->lock);
    blk = disk->blk;
    if (blk != NULL) {
        add_stats(&disk->past, blk);
        disk->blk = NULL;
    }
    pthread_mutex_unlock(&disk->lock);
    return blk;
}

/* A device whose thread is left behind stays, with all that it uses. */
static bool detach(void *self)
{
    struct virtio_blk *blk = take_blk(self);

    if (blk != NULL && !virtio_blk_destroy(blk)) {
        return false;
    }
    free(blk);
    return true;
}

static void quiesce(void *self)
{
    struct disk *disk = self;

    if (disk->blk != NULL) {
        virtio_blk_quiesce(disk->blk);
    }
}

static void resume(void *self)
{
    struct disk *disk = self;

    if (disk->blk != NULL) {
        virtio_blk_resume(disk->blk);
    }
}

static void save(void *self, struct state_writer *writer)
{
    const struct disk *disk = self;

    virtio_blk_save(disk->blk, writer, disk->transport);
}

static enum loam_error load(void *self, struct state_reader *reader, struct loam_diag *diag)
{
    const struct disk *disk = self;
    enum loam_error error = virtio_blk_load(disk->blk, reader, disk->transport, diag);

    if (error == LOAM_OK) {
        virtio_mmio_replay(&disk->blk->mmio);
    }
    return error;
}

/* --- Opening -------------------------------------------------------------------------------------------------------------- */

static void close_disk(void *self)
{
    struct disk *disk = self;

    close(disk->fd);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

/* With O_DSYNC a write is stable before it is answered; one's own descriptor of what was inherited has it for itself. */
static int open_inherited(const struct line_disk *line, int flags)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/self/fd/%d", line->fd);
    return line->write_through ? open(path, flags) : fcntl(line->fd, F_DUPFD_CLOEXEC, 3);
}

static enum loam_error open_file(const struct line_disk *line, int *fd, struct loam_diag *diag)
{
    /* A pipe is refused later, and not waited for. */
    int flags =
        (line->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (line->write_through ? O_DSYNC : 0);

    *fd = line->path == NULL ? open_inherited(line, flags) : open(line->path, flags);
    if (*fd >= 0) {
        return LOAM_OK;
    }
    return line->path == NULL ? loam_fail(diag, LOAM_ERROR_SYSTEM, "disk %s: descriptor %d", line->id, line->fd)
                              : loam_fail(diag, LOAM_ERROR_SYSTEM, "disk %s: %s", line->id, line->path);
}

enum loam_error device_disk_open(const struct line_disk *line, struct device *device, struct loam_diag *diag)
{
    static const struct device_operations operations = {
        "virtio-blk-device", attach, detach, quiesce, resume, save, load, close_disk};
    struct disk *disk;
    enum loam_error error;

    if (line->direct) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "disk %s: cache.direct=on: Loam reads and writes through the host's cache: leave it out "
                         "(<driver cache='writeback'/>)",
                         line->id);
    }
    disk = calloc(1, sizeof *disk);
    if (disk == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "disk %s", line->id);
    }
    error = open_file(line, &disk->fd, diag);
    if (error != LOAM_OK) {
        free(disk);
        return error;
    }
    disk->line = line;
    pthread_mutex_init(&disk->lock, NULL);
    *device = (struct device){&operations, disk, line->id};
    return LOAM_OK;
}

/* --- In words of QMP ------------------------------------------------------------------------------------------------------ */

json_t *device_disk_block(const struct device *device)
{
    char path[512];

    snprintf(path, sizeof path, "/machine/peripheral/%s/virtio-backend", device->id);
    return json_pack("{sssosssbsbss}", "device", "", "qdev", json_text(path), "type", "unknown", "locked", 0,
                     "removable", 0, "io-status", "ok");
}

json_t *device_disk_node(const struct device *device, bool is_storage)
{
    const struct disk *disk = device->self;
    const char *path = disk->line->path != NULL ? disk->line->path : "", *driver = is_storage ? "file" : "raw";
    struct stat status = {0};
    off_t size = lseek(disk->fd, 0, SEEK_END);
    json_t *image;

    (void)fstat(disk->fd, &status);
    image = json_pack("{sosssIsI}", "filename", json_text(path), "format", driver, "virtual-size",
                      (json_int_t)(size > 0 ? size : 0), "actual-size", (json_int_t)status.st_blocks * 512);
    return json_pack("{sssssbsosisisisisisisiso}", "node-name", is_storage ? disk->line->storage : disk->line->node,
                     "drv", driver, "ro", disk->line->read_only, "file", json_text(path), "iops", 0, "iops_rd", 0,
                     "iops_wr", 0, "bps", 0, "bps_rd", 0, "bps_wr", 0, "write_threshold", 0, "image", image);
}

json_t *device_disk_stats(const struct device *device)
{
    struct disk *disk = device->self;
    struct virtio_blk_stats stats;

    pthread_mutex_lock(&disk->lock);
    stats = disk->past;
    if (disk->blk != NULL) {
        add_stats(&stats, disk->blk);
    }
    pthread_mutex_unlock(&disk->lock);
    return json_pack("{sIsIsIsIsIsIsIsIsIsI}", "rd_bytes", (json_int_t)stats.read.bytes, "rd_operations",
                     (json_int_t)stats.read.operation_count, "rd_total_time_ns",
                     (json_int_t)stats.read.total_nanoseconds, "wr_bytes", (json_int_t)stats.write.bytes,
                     "wr_operations", (json_int_t)stats.write.operation_count, "wr_total_time_ns",
                     (json_int_t)stats.write.total_nanoseconds, "flush_operations",
                     (json_int_t)stats.flush.operation_count, "flush_total_time_ns",
                     (json_int_t)stats.flush.total_nanoseconds, "failed_rd_operations",
                     (json_int_t)stats.read.failed_count, "failed_wr_operations", (json_int_t)stats.write.failed_count);
}
