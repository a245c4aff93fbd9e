// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_blk.h"

#include "tests/support/waiter.h"
#include "tests/vmm/random.h"
#include "tests/vmm/virtio_station.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    SIZE = 64,
    SECTORS = 512,
    FILE_BYTES = SECTORS * 512,
    DATA = 0x1000, /* GPA of data that a simple request has */
    ALL_FEATURES = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 13 | 1 << 14,
};

static struct virtio_guest guest;
static struct virtio_station station;
static struct virtio_driver driver;
static struct virtio_blk blk;
static int fd;

/* --- The host's calls, counted, held up and made to fail ---------------------------------------------------------- */

enum call { CALL_READ, CALL_WRITE, CALL_SYNC, CALL_ALLOCATE, CALL_COUNT };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned counts[CALL_COUNT];
    int errors[CALL_COUNT]; /* of the next such call; 0: none */
    bool errors_stay;       /* of all that come */
    size_t part_bytes;      /* of one read or write at most; 0: any */
    int allocate_mode;      /* of the last one that went on */
    bool is_closed;
    bool is_held;
} host = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Whether the call goes on. */
static bool enter(enum call call)
{
    int error;

    pthread_mutex_lock(&host.lock);
    host.counts[call]++;
    error = host.errors[call];
    host.errors[call] = host.errors_stay ? error : 0;
    while (host.is_closed) {
        host.is_held = true;
        pthread_cond_broadcast(&host.changed);
        pthread_cond_wait(&host.changed, &host.lock);
    }
    host.is_held = false;
    pthread_mutex_unlock(&host.lock);
    errno = error;
    return error == 0;
}

ssize_t __real_preadv(int file, const struct iovec *vectors, int count, off_t offset);
ssize_t __wrap_preadv(int file, const struct iovec *vectors, int count, off_t offset);
ssize_t __real_pwritev(int file, const struct iovec *vectors, int count, off_t offset);
ssize_t __wrap_pwritev(int file, const struct iovec *vectors, int count, off_t offset);
int __real_fdatasync(int file);
int __wrap_fdatasync(int file);
int __real_fallocate(int file, int mode, off_t offset, off_t bytes);
int __wrap_fallocate(int file, int mode, off_t offset, off_t bytes);

/* The first vector alone, and no more than part_bytes of it. */
static struct iovec part_of(const struct iovec *vectors)
{
    return (struct iovec){vectors[0].iov_base,
                          vectors[0].iov_len < host.part_bytes ? vectors[0].iov_len : host.part_bytes};
}

ssize_t __wrap_preadv(int file, const struct iovec *vectors, int count, off_t offset)
{
    struct iovec part = part_of(vectors);

    if (!enter(CALL_READ)) {
        return -1;
    }
    return host.part_bytes == 0 ? __real_preadv(file, vectors, count, offset) : __real_preadv(file, &part, 1, offset);
}

ssize_t __wrap_pwritev(int file, const struct iovec *vectors, int count, off_t offset)
{
    struct iovec part = part_of(vectors);

    if (!enter(CALL_WRITE)) {
        return -1;
    }
    return host.part_bytes == 0 ? __real_pwritev(file, vectors, count, offset) : __real_pwritev(file, &part, 1, offset);
}

int __wrap_fdatasync(int file)
{
    return enter(CALL_SYNC) ? __real_fdatasync(file) : -1;
}

int __wrap_fallocate(int file, int mode, off_t offset, off_t bytes)
{
    if (!enter(CALL_ALLOCATE)) {
        return -1;
    }
    host.allocate_mode = mode;
    return __real_fallocate(file, mode, offset, bytes);
}

static unsigned calls(enum call call)
{
    unsigned count;

    pthread_mutex_lock(&host.lock);
    count = host.counts[call];
    pthread_mutex_unlock(&host.lock);
    return count;
}

static void close_gate(void)
{
    pthread_mutex_lock(&host.lock);
    host.is_closed = true;
    pthread_mutex_unlock(&host.lock);
}

static void await_held(void)
{
    pthread_mutex_lock(&host.lock);
    while (!host.is_held) {
        pthread_cond_wait(&host.changed, &host.lock);
    }
    pthread_mutex_unlock(&host.lock);
}

static void open_gate(void)
{
    pthread_mutex_lock(&host.lock);
    host.is_closed = false;
    pthread_cond_broadcast(&host.changed);
    pthread_mutex_unlock(&host.lock);
}

/* --- A disk, and a driver ------------------------------------------------------------------------------------------ */

/* Sector n is full of bytes that name it. */
static uint8_t pattern(uint64_t offset)
{
    return (uint8_t)(offset / 512 * 7 + offset % 512 / 64 + 1);
}

static void fill_file(void)
{
    uint8_t bytes[512];

    for (uint64_t offset = 0; offset < FILE_BYTES; offset += sizeof bytes) {
        for (uint64_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = pattern(offset + i);
        }
        cr_assert_eq(pwrite(fd, bytes, sizeof bytes, (off_t)offset), (ssize_t)sizeof bytes);
    }
}

static void make_blk(const struct virtio_blk_config *config, uint64_t features)
{
    struct loam_diag diag = {0};

    cr_assert_eq(virtio_blk_init(&blk, guest.map, virtio_station_irq(&station), config, &diag), LOAM_OK, "%s",
                 diag.text);
    virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
    virtio_station_bring_up(&station, features, &driver.config, 1);
    cr_assert_eq(virtio_station_in(&station, VIRTIO_MMIO_STATUS), 0x0f);
}

static void remake_blk(const struct virtio_blk_config *config, uint64_t features)
{
    cr_assert(virtio_blk_destroy(&blk));
    make_blk(config, features);
}

static struct virtio_blk_config config(void)
{
    return (struct virtio_blk_config){.name = "disk0", .fd = fd, .discard = true, .serial = "loam-0123456789"};
}

static void set_up(void)
{
    struct virtio_blk_config usual;

    fd = memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_geq(fd, 0);
    fill_file();
    virtio_guest_init(&guest);
    virtio_station_init(&station, &blk.mmio);
    usual = config();
    make_blk(&usual, ALL_FEATURES);
}

static void tear_down(void)
{
    open_gate();
    cr_expect(virtio_blk_destroy(&blk));
    virtio_station_destroy(&station);
    virtio_guest_destroy(&guest);
    close(fd);
}

TestSuite(virtio_blk, .init = set_up, .fini = tear_down, .timeout = 300);

#define HEADER_GPA (GUEST_LOW + 0x0f00)
#define STATUS_GPA (GUEST_LOW + 0x0f40)
#define NO_STATUS  0xeeu

static uint8_t *at(uint64_t gpa)
{
    return virtio_guest_at(&guest, gpa);
}

/* As a guest's processor stores it, word by word: the disk may be at a request before, which has the same header. */
static void put_header(uint32_t type, uint64_t sector)
{
    const struct virtio_blk_header header = {.type = type, .sector = sector};
    uint64_t words[sizeof header / sizeof(uint64_t)];

    memcpy(words, &header, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        __atomic_store_n((uint64_t *)at(HEADER_GPA) + i, words[i], __ATOMIC_RELAXED);
    }
    __atomic_store_n(at(STATUS_GPA), NO_STATUS, __ATOMIC_RELAXED);
}

/* Header, data, status, rung. */
static uint16_t send(uint32_t type, uint64_t sector, uint64_t data, uint32_t bytes)
{
    const struct virtio_buffer buffers[] = {{HEADER_GPA, sizeof(struct virtio_blk_header), false},
                                            {data, bytes, type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID},
                                            {STATUS_GPA, 1, true}};
    uint16_t head;

    put_header(type, sector);
    cr_assert(virtio_driver_add(&driver, buffers, 3, &head));
    virtio_station_ring(&station, 0);
    return head;
}

static uint32_t take(uint16_t head)
{
    uint32_t found_head, written;

    virtio_station_take(&station, &driver, &found_head, &written);
    cr_assert_eq(found_head, head);
    return written;
}

/* Returns the status. */
static uint8_t ask(uint32_t type, uint64_t sector, uint64_t data, uint32_t bytes)
{
    take(send(type, sector, data, bytes));
    return *at(STATUS_GPA);
}

static uint16_t used_index(void)
{
    return virtio_guest_get_16(&guest, driver.config.used.value + 2);
}

static bool file_is(uint64_t offset, uint64_t bytes, const uint8_t *expected)
{
    static uint8_t found[FILE_BYTES];

    return pread(fd, found, bytes, (off_t)offset) == (ssize_t)bytes && memcmp(found, expected, bytes) == 0;
}

static bool file_is_zero(uint64_t offset, uint64_t bytes)
{
    static const uint8_t zeroes[FILE_BYTES];

    return file_is(offset, bytes, zeroes);
}

static bool memory_is_sectors(uint64_t gpa, uint64_t sector, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (*at(gpa + i) != pattern(sector * 512 + i)) {
            return false;
        }
    }
    return true;
}

static struct virtio_blk_stats stats(void)
{
    struct virtio_blk_stats found;

    virtio_blk_get_stats(&blk, &found);
    return found;
}

/* --- What it is --------------------------------------------------------------------------------------------------- */

static uint64_t layout_64(uint64_t offset)
{
    return virtio_station_in(&station, VIRTIO_MMIO_CONFIG + offset) |
           (uint64_t)virtio_station_in(&station, VIRTIO_MMIO_CONFIG + offset + 4) << 32;
}

static uint32_t layout_32(uint64_t offset)
{
    return virtio_station_in(&station, VIRTIO_MMIO_CONFIG + offset);
}

Test(virtio_blk, is_a_block_device_with_one_queue)
{
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_DEVICE_ID), 2);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_QUEUE_SIZE_MAX), VIRTIO_BLK_QUEUE_SIZE_MAX);
    cr_expect_eq(virtio_station_offered(&station), VIRTIO_F_VERSION_1 | ALL_FEATURES);
    cr_expect_eq(layout_64(0), SECTORS);
    cr_expect_eq(layout_32(8), 0);
    cr_expect_eq(layout_32(12), VIRTIO_BLK_SEG_MAX);
    cr_expect_eq(layout_32(20), 512);
    cr_expect_eq(layout_32(36), VIRTIO_BLK_DISCARD_SECTORS_MAX);
    cr_expect_eq(layout_32(40), VIRTIO_BLK_RANGE_MAX);
    cr_expect_eq(layout_32(44), 1);
    cr_expect_eq(layout_32(48), VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX);
    cr_expect_eq(layout_32(52), VIRTIO_BLK_RANGE_MAX);
    cr_expect_eq(layout_32(56), 1);
    cr_expect_eq(layout_32(60), 0);
    cr_expect_eq(virtio_blk_capacity_bytes(&blk), FILE_BYTES);
    virtio_station_out(&station, VIRTIO_MMIO_CONFIG, 1);
    cr_expect_eq(layout_64(0), SECTORS, "the driver writes nothing of it");
}

Test(virtio_blk, offers_what_it_was_given)
{
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd}, 0);
    cr_expect_eq(virtio_station_offered(&station), VIRTIO_F_VERSION_1 | (ALL_FEATURES & ~(1u << 13)));
    cr_expect_eq(layout_32(36), 0);
    cr_expect_eq(layout_32(48), VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX);
    cr_expect_eq(layout_32(56), 0);
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd, .read_only = true, .discard = true}, 0);
    cr_expect_eq(virtio_station_offered(&station), VIRTIO_F_VERSION_1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9);
    cr_expect_eq(layout_32(48), 0);
}

/* --- Requests ----------------------------------------------------------------------------------------------------- */

Test(virtio_blk, reads_sectors)
{
    const uint16_t head = send(VIRTIO_BLK_T_IN, 17, GUEST_HIGH, 8 * 512);

    cr_expect_eq(take(head), 8 * 512 + 1);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(GUEST_HIGH, 17, 8 * 512));
    cr_expect_eq(*at(GUEST_HIGH + 8 * 512), 0);
    cr_expect_eq(calls(CALL_READ), 1);
    cr_expect_eq(stats().read.bytes, 8 * 512);
    cr_expect_eq(stats().read.operation_count, 1);
    cr_expect_gt(stats().read.total_nanoseconds, 0);
}

Test(virtio_blk, writes_sectors)
{
    uint16_t head;

    memset(at(GUEST_HIGH), 0x5a, 3 * 512);
    head = send(VIRTIO_BLK_T_OUT, SECTORS - 3, GUEST_HIGH, 3 * 512);
    cr_expect_eq(take(head), 1);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_OK);
    cr_expect(file_is(FILE_BYTES - 3 * 512, 3 * 512, at(GUEST_HIGH)));
    cr_expect_eq(calls(CALL_SYNC), 0, "the driver flushes");
    cr_expect_eq(stats().write.bytes, 3 * 512);
    cr_expect_eq(stats().write.operation_count, 1);
    cr_expect_gt(stats().write.total_nanoseconds, 0);
}

Test(virtio_blk, moves_no_more_than_its_limit_at_a_time)
{
    struct virtio_buffer buffers[SIZE];
    uint16_t head;

    cr_assert_eq(ftruncate(fd, 4 << 20), 0);
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd}, ALL_FEATURES & ~(1 << 13));
    put_header(VIRTIO_BLK_T_IN, 0);
    buffers[0] = (struct virtio_buffer){HEADER_GPA, 16, false};
    for (uint32_t i = 1; i < 26; i++) {
        buffers[i] = (struct virtio_buffer){GUEST_HIGH, 0x20000, true}; /* one over the other: 3.125 MiB */
    }
    buffers[26] = (struct virtio_buffer){STATUS_GPA, 1, true};
    cr_assert(virtio_driver_add(&driver, buffers, 27, &head));
    virtio_station_ring(&station, 0);
    cr_expect_eq(take(head), 25 * 0x20000 + 1);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_READ), 4);
    cr_expect_eq(*at(GUEST_HIGH), 0);
}

Test(virtio_blk, flushes)
{
    cr_expect_eq(ask(VIRTIO_BLK_T_FLUSH, 0, DATA, 0), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_SYNC), 1);
    cr_expect_eq(stats().flush.operation_count, 1);
    cr_expect_gt(stats().flush.total_nanoseconds, 0);
    host.errors[CALL_SYNC] = EIO;
    cr_expect_eq(ask(VIRTIO_BLK_T_FLUSH, 0, DATA, 0), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(stats().flush.operation_count, 1);
    cr_expect_eq(stats().flush.failed_count, 1);
}

/* Section 5.2.6.2: a driver without VIRTIO_BLK_F_FLUSH has nothing to make its writes stable by. */
Test(virtio_blk, what_a_driver_without_flush_writes_is_stable_at_once)
{
    virtio_station_bring_up(&station, ALL_FEATURES & ~(1 << 9), &driver.config, 1);
    virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_SYNC), 1);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_SYNC), 1);
    host.errors[CALL_SYNC] = EIO;
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
}

Test(virtio_blk, no_flush_is_none)
{
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd, .no_flush = true}, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_OK);
    cr_expect_eq(ask(VIRTIO_BLK_T_FLUSH, 0, DATA, 0), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_SYNC), 0);
    cr_expect_eq(stats().flush.operation_count, 1);
}

Test(virtio_blk, says_its_serial_number)
{
    uint16_t head;

    memset(at(DATA), 0xff, 32);
    head = send(VIRTIO_BLK_T_GET_ID, 0, DATA, 20);
    cr_expect_eq(take(head), 21);
    cr_expect_arr_eq(at(DATA), "loam-0123456789\0\0\0\0\0\xff", 21);
    memset(at(DATA), 0xff, 32);
    head = send(VIRTIO_BLK_T_GET_ID, 0, DATA, 7);
    cr_expect_eq(take(head), 8);
    cr_expect_arr_eq(at(DATA), "loam-01\xff", 8);
    head = send(VIRTIO_BLK_T_GET_ID, 0, DATA, 32);
    cr_expect_eq(take(head), 20, "the status lies beyond what was not written");
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_OK);
    cr_expect_eq(*at(DATA + 20), 0xff);
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd, .serial = "01234567890123456789"}, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_GET_ID, 0, DATA, 20), VIRTIO_BLK_S_OK);
    cr_expect_arr_eq(at(DATA), "01234567890123456789", 20);
}

Test(virtio_blk, a_disk_that_is_read_only_is_not_written)
{
    int reader;
    char path[64];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    reader = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(reader, 0);
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = reader, .read_only = true}, 1 << 5);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(calls(CALL_WRITE), 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 3, DATA, 512), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(DATA, 3, 512));
    cr_expect_eq(ask(VIRTIO_BLK_T_FLUSH, 0, DATA, 0), VIRTIO_BLK_S_OK);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    close(reader);
}

Test(virtio_blk, a_driver_may_lay_a_request_out_as_it_likes)
{
    struct virtio_buffer buffers[SIZE];
    uint16_t count = 0, head;

    put_header(VIRTIO_BLK_T_IN, 40);
    for (uint32_t i = 0; i < 16; i++) {
        buffers[count++] = (struct virtio_buffer){HEADER_GPA + i, 1, false};
        buffers[count++] = (struct virtio_buffer){HEADER_GPA, 0, false};
    }
    /* Across two regions, an odd number of bytes, and the last of the data together with the status. */
    buffers[count++] = (struct virtio_buffer){GUEST_NEXT - 5, 507, true};
    buffers[count++] = (struct virtio_buffer){GUEST_HIGH, 6, true};
    *at(GUEST_HIGH + 5) = NO_STATUS;
    cr_assert(virtio_driver_add(&driver, buffers, count, &head));
    virtio_station_ring(&station, 0);
    cr_expect_eq(take(head), 513);
    cr_expect(memory_is_sectors(GUEST_NEXT - 5, 40, 507));
    for (uint32_t i = 0; i < 5; i++) {
        cr_expect_eq(*at(GUEST_HIGH + i), pattern(40 * 512 + 507 + i));
    }
    cr_expect_eq(*at(GUEST_HIGH + 5), VIRTIO_BLK_S_OK);
}

/* --- Ranges ------------------------------------------------------------------------------------------------------- */

static void put_range(uint32_t index, uint64_t sector, uint32_t sector_count, uint32_t flags)
{
    const struct virtio_blk_range range = {sector, sector_count, flags};

    memcpy(at(DATA + sizeof range * index), &range, sizeof range);
}

static uint64_t file_blocks(void)
{
    struct stat status;

    cr_assert_eq(fstat(fd, &status), 0);
    return (uint64_t)status.st_blocks;
}

Test(virtio_blk, what_is_discarded_goes_back_to_the_file_system)
{
    const uint64_t before = file_blocks();

    put_range(0, 0, 64, 0);
    put_range(1, 128, 0, 0);
    put_range(2, 256, 64, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 48), VIRTIO_BLK_S_OK);
    cr_expect_eq(before - file_blocks(), 128);
    cr_expect(file_is_zero(0, 64 * 512));
    cr_expect(file_is_zero(256 * 512, 64 * 512));
    cr_expect_eq(stats().discard.operation_count, 1);
    cr_expect_eq(stats().discard.bytes, 128 * 512);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 64, GUEST_HIGH, 512), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(GUEST_HIGH, 64, 512));
    host.errors[CALL_ALLOCATE] = EOPNOTSUPP;
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 48), VIRTIO_BLK_S_UNSUPP);
    host.errors[CALL_ALLOCATE] = EIO;
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 48), VIRTIO_BLK_S_IOERR);
    host.errors[CALL_ALLOCATE] = EINTR;
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 48), VIRTIO_BLK_S_OK);
}

/* A memfd cannot have zeroes put into it but by writing them. */
Test(virtio_blk, writes_zeroes_by_hand_where_the_file_system_cannot)
{
    const uint64_t before = file_blocks();

    put_range(0, 8, 400, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_OK);
    cr_expect(file_is_zero(8 * 512, 400 * 512));
    cr_expect_eq(file_blocks(), before);
    cr_expect_eq(calls(CALL_WRITE), (400 * 512 + 65535) / 65536);
    cr_expect_eq(stats().write.bytes, 400 * 512);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 408, GUEST_HIGH, 512), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(GUEST_HIGH, 408, 512));
    host.errors[CALL_WRITE] = EIO;
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_IOERR);
}

Test(virtio_blk, zeroes_may_be_a_hole_where_driver_and_config_allow)
{
    uint64_t before = file_blocks();

    put_range(0, 0, 64, VIRTIO_BLK_RANGE_UNMAP);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_OK);
    cr_expect_eq(before - file_blocks(), 64);
    cr_expect_eq(calls(CALL_WRITE), 0);
    cr_expect(file_is_zero(0, 64 * 512));
    fill_file();
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd}, 1 << 14);
    before = file_blocks();
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_OK);
    cr_expect_eq(file_blocks(), before, "the config does not");
    cr_expect(file_is_zero(0, 64 * 512));
}

/* A file system that has it. */
Test(virtio_blk, writes_zeroes_in_one_call_where_the_file_system_can)
{
    char path[] = "/tmp/loam-blk-XXXXXX";
    const int memory = fd;

    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    unlink(path);
    fill_file();
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd, .discard = true}, ALL_FEATURES);
    put_range(0, 8, 400, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_OK);
    cr_expect(file_is_zero(8 * 512, 400 * 512));
    if (calls(CALL_WRITE) == 0) {
        cr_expect_eq(host.allocate_mode, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
    }
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 408, GUEST_HIGH, 512), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(GUEST_HIGH, 408, 512));
    cr_expect_eq(virtio_blk_capacity_bytes(&blk), FILE_BYTES);
    close(memory);
}

Test(virtio_blk, bad_ranges_change_nothing)
{
    put_range(0, 0, 8, 0);
    put_range(1, 0, 8, VIRTIO_BLK_RANGE_UNMAP);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 32), VIRTIO_BLK_S_UNSUPP, "no flag of discards");
    put_range(1, 0, 8, 2);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 32), VIRTIO_BLK_S_UNSUPP);
    put_range(1, SECTORS - 1, 2, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 32), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 32), VIRTIO_BLK_S_IOERR);
    put_range(1, UINT64_MAX - 1, 8, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 32), VIRTIO_BLK_S_IOERR);
    put_range(1, 1, UINT32_MAX, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 32), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 0), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 15), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 24), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, GUEST_HIGH, 16 * (VIRTIO_BLK_RANGE_MAX + 1)), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(calls(CALL_ALLOCATE) + calls(CALL_WRITE), 0);
    cr_expect_eq(stats().invalid_count, 10);
    cr_expect_eq(stats().discard.failed_count, 0);
    for (uint32_t i = 0; i < VIRTIO_BLK_RANGE_MAX; i++) {
        put_range(i, i, 1, 0);
    }
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 16 * VIRTIO_BLK_RANGE_MAX), VIRTIO_BLK_S_OK);
}

Test(virtio_blk, more_than_the_limit_of_one_range_is_refused)
{
    cr_assert_eq(ftruncate(fd, INT64_C(512) * 2 * VIRTIO_BLK_DISCARD_SECTORS_MAX), 0);
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd, .discard = true}, ALL_FEATURES);
    put_range(0, 0, VIRTIO_BLK_DISCARD_SECTORS_MAX + 1, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_IOERR);
    put_range(0, 0, VIRTIO_BLK_DISCARD_SECTORS_MAX, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_OK);
    put_range(0, 0, VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX + 1, VIRTIO_BLK_RANGE_UNMAP);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_IOERR);
}

Test(virtio_blk, what_was_not_agreed_upon_is_not_supported)
{
    virtio_station_bring_up(&station, 0, &driver.config, 1);
    virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
    put_range(0, 0, 8, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    cr_expect_eq(ask(2, 0, DATA, 512), VIRTIO_BLK_S_UNSUPP);
    cr_expect_eq(ask(14, 0, DATA, 16), VIRTIO_BLK_S_UNSUPP);
    cr_expect_eq(ask(UINT32_MAX, 0, DATA, 512), VIRTIO_BLK_S_UNSUPP);
    cr_expect_eq(calls(CALL_ALLOCATE) + calls(CALL_WRITE) + calls(CALL_READ), 0);
}

/* --- Hostile requests --------------------------------------------------------------------------------------------- */

Test(virtio_blk, sectors_beyond_the_end)
{
    static const struct {
        uint64_t sector;
        uint32_t bytes;
        uint8_t status;
    } cases[] = {
        {SECTORS - 1, 512, VIRTIO_BLK_S_OK},
        {SECTORS, 0, VIRTIO_BLK_S_OK},
        {SECTORS, 512, VIRTIO_BLK_S_IOERR},
        {SECTORS - 1, 1024, VIRTIO_BLK_S_IOERR},
        {SECTORS + 1, 0, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX, 512, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX / 512 + 1, 512, VIRTIO_BLK_S_IOERR}, /* 0 again, times 512 */
        {INT64_MAX / 512 + 1, 512, VIRTIO_BLK_S_IOERR},
        {0, 511, VIRTIO_BLK_S_IOERR},
        {0, 513, VIRTIO_BLK_S_IOERR},
        {0, 1, VIRTIO_BLK_S_IOERR},
        {0, 0, VIRTIO_BLK_S_OK},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect_eq(ask(VIRTIO_BLK_T_IN, cases[i].sector, DATA, cases[i].bytes), cases[i].status, "read %zu", i);
        cr_expect_eq(ask(VIRTIO_BLK_T_OUT, cases[i].sector, DATA, cases[i].bytes), cases[i].status, "write %zu", i);
    }
}

static uint32_t ask_with(const struct virtio_buffer *buffers, uint16_t count)
{
    uint16_t head;

    cr_assert(virtio_driver_add(&driver, buffers, count, &head));
    virtio_station_ring(&station, 0);
    return take(head);
}

Test(virtio_blk, directions_that_do_not_fit_the_type)
{
    const struct virtio_buffer out[] = {{HEADER_GPA, 16, false}, {DATA, 512, false}, {STATUS_GPA, 1, true}};
    const struct virtio_buffer in[] = {{HEADER_GPA, 16, false}, {DATA, 512, true}, {STATUS_GPA, 1, true}};
    const struct virtio_buffer both[] = {
        {HEADER_GPA, 16, false}, {DATA, 512, false}, {GUEST_HIGH, 512, true}, {STATUS_GPA, 1, true}};

    put_header(VIRTIO_BLK_T_IN, 0);
    cr_expect_eq(ask_with(out, 3), 1);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    put_header(VIRTIO_BLK_T_IN, 0);
    cr_expect_eq(ask_with(both, 4), 0);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    put_header(VIRTIO_BLK_T_OUT, 0);
    cr_expect_eq(ask_with(in, 3), 0);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    put_header(VIRTIO_BLK_T_OUT, 0);
    cr_expect_eq(ask_with(both, 4), 0);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    put_header(VIRTIO_BLK_T_DISCARD, 0);
    cr_expect_eq(ask_with(in, 3), 0);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    put_header(VIRTIO_BLK_T_GET_ID, 0);
    cr_expect_eq(ask_with(out, 3), 1, "no room for any of it");
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_READ) + calls(CALL_WRITE) + calls(CALL_ALLOCATE), 0);
}

Test(virtio_blk, requests_that_are_too_short)
{
    const struct virtio_buffer header_alone[] = {{HEADER_GPA, 16, false}};
    const struct virtio_buffer half[] = {{HEADER_GPA, 15, false}, {STATUS_GPA, 1, true}};
    const struct virtio_buffer status_alone[] = {{STATUS_GPA, 1, true}};
    const struct virtio_buffer nothing[] = {{HEADER_GPA, 0, false}, {STATUS_GPA, 0, true}};

    put_header(VIRTIO_BLK_T_OUT, 0);
    cr_expect_eq(ask_with(header_alone, 1), 0);
    cr_expect_eq(*at(STATUS_GPA), NO_STATUS);
    cr_expect_eq(ask_with(half, 2), 1);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    *at(STATUS_GPA) = NO_STATUS;
    cr_expect_eq(ask_with(status_alone, 1), 1);
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    *at(STATUS_GPA) = NO_STATUS;
    cr_expect_eq(ask_with(nothing, 2), 0);
    cr_expect_eq(*at(STATUS_GPA), NO_STATUS);
    cr_expect_eq(stats().invalid_count, 4);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_OK, "the device works on");
}

/* --- Files that fail ---------------------------------------------------------------------------------------------- */

Test(virtio_blk, errors_of_the_file_are_the_requests)
{
    host.errors[CALL_READ] = EIO;
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
    host.errors[CALL_WRITE] = ENOSPC;
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
    host.errors[CALL_READ] = EAGAIN;
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(stats().read.failed_count, 2);
    cr_expect_eq(stats().write.failed_count, 1);
    cr_expect_eq(stats().read.bytes + stats().write.bytes, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_OK);
}

Test(virtio_blk, calls_that_are_interrupted_or_do_less_go_on)
{
    host.errors[CALL_READ] = EINTR;
    host.part_bytes = 100;
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 5, GUEST_HIGH, 1024), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_READ), 12);
    cr_expect(memory_is_sectors(GUEST_HIGH, 5, 1024));
    host.errors[CALL_WRITE] = EINTR;
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 50, GUEST_HIGH, 1024), VIRTIO_BLK_S_OK);
    cr_expect(file_is(50 * 512, 1024, at(GUEST_HIGH)));
    host.errors[CALL_SYNC] = EINTR;
    cr_expect_eq(ask(VIRTIO_BLK_T_FLUSH, 0, DATA, 0), VIRTIO_BLK_S_OK);
    cr_expect_eq(calls(CALL_SYNC), 2);
}

Test(virtio_blk, a_file_that_became_shorter)
{
    uint16_t head;

    cr_assert_eq(ftruncate(fd, 10 * 512 + 100), 0);
    head = send(VIRTIO_BLK_T_IN, 9, GUEST_HIGH, 4 * 512);
    cr_expect_eq(take(head), 612, "what was there is written");
    cr_expect_eq(*at(STATUS_GPA), VIRTIO_BLK_S_IOERR);
    cr_expect(memory_is_sectors(GUEST_HIGH, 9, 612));
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 100, DATA, 512), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, SECTORS - 1, DATA, 512), VIRTIO_BLK_S_OK, "it grows again");
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 100, DATA, 512), VIRTIO_BLK_S_OK);
}

Test(virtio_blk, a_file_that_must_not_be_written)
{
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    put_range(0, 0, 8, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 3, DATA, 512), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(DATA, 3, 512));
}

/* The limit raises a signal that ends a process, in a thread that does not block it. */
Test(virtio_blk, a_write_beyond_the_processs_limit_on_files_is_an_error)
{
    char path[] = "/tmp/loam-blk-XXXXXX";
    const int memory = fd;
    struct rlimit before;

    fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    unlink(path);
    cr_assert_eq(ftruncate(fd, FILE_BYTES), 0);
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd}, 1 << 9);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, before.rlim_max}), 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 100, DATA, 512), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 6, GUEST_HIGH, 2048), VIRTIO_BLK_S_IOERR, "half of it fits");
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_OK);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    close(memory);
}

/* --- Resets and pauses -------------------------------------------------------------------------------------------- */

static void reset(void *self)
{
    virtio_station_out(self, VIRTIO_MMIO_STATUS, 0);
}

static void stop_queue(void *self)
{
    virtio_station_out(self, VIRTIO_MMIO_QUEUE_SELECT, 0);
    virtio_station_out(self, VIRTIO_MMIO_QUEUE_READY, 0);
}

static void expect_dropped(void (*how)(void *self))
{
    struct waiter waiter;

    close_gate();
    (void)send(VIRTIO_BLK_T_IN, 0, GUEST_HIGH, 2 * 512);
    await_held();
    waiter_start(&waiter, how, &station);
    cr_expect(waiter_sleeps(&waiter), "what is read late must not come after it");
    open_gate();
    waiter_join(&waiter);
    cr_expect_eq(used_index(), 0);
    memset(at(GUEST_HIGH), 0x77, 1024);
    *at(STATUS_GPA) = NO_STATUS;
    virtio_blk_quiesce(&blk);
    cr_expect_eq(*at(GUEST_HIGH), 0x77);
    cr_expect_eq(*at(GUEST_HIGH + 1023), 0x77);
    cr_expect_eq(*at(STATUS_GPA), NO_STATUS);
    cr_expect_eq(used_index(), 0);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    virtio_blk_resume(&blk);
    virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
    virtio_station_bring_up(&station, ALL_FEATURES, &driver.config, 1);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 9, GUEST_HIGH, 512), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(GUEST_HIGH, 9, 512));
}

Test(virtio_blk, a_reset_waits_for_a_request_and_drops_it)
{
    expect_dropped(reset);
}

Test(virtio_blk, a_queue_that_stops_waits_for_a_request_and_drops_it)
{
    expect_dropped(stop_queue);
}

/* Of a long request, no more than the call that has begun. */
Test(virtio_blk, a_reset_does_not_wait_for_the_rest_of_a_request)
{
    struct waiter waiter;

    host.part_bytes = 1;
    close_gate();
    (void)send(VIRTIO_BLK_T_IN, 0, GUEST_HIGH, 0x20000);
    await_held();
    waiter_start(&waiter, reset, &station);
    while (!virtio_worker_must_stop(&blk.worker)) {
        sched_yield();
    }
    open_gate();
    waiter_join(&waiter);
    cr_expect_eq(calls(CALL_READ), 1);
    cr_expect_eq(stats().read.failed_count, 1);
}

static bool is_serving(void)
{
    bool serving;

    virtio_mmio_lock(&blk.mmio);
    serving = blk.worker.is_serving;
    virtio_mmio_unlock(&blk.mmio);
    return serving;
}

static void set_interrupted(enum call call, bool stays)
{
    pthread_mutex_lock(&host.lock);
    host.errors[call] = stays ? EINTR : 0;
    host.errors_stay = stays;
    pthread_mutex_unlock(&host.lock);
}

/* As a file system whose calls signals end, and which gets nowhere. */
Test(virtio_blk, a_reset_ends_calls_that_are_interrupted_again_and_again)
{
    static const struct {
        enum call call;
        uint32_t type;
        uint32_t bytes;
    } cases[] = {{CALL_READ, VIRTIO_BLK_T_IN, 512},
                 {CALL_WRITE, VIRTIO_BLK_T_OUT, 512},
                 {CALL_SYNC, VIRTIO_BLK_T_FLUSH, 0},
                 {CALL_ALLOCATE, VIRTIO_BLK_T_DISCARD, 16},
                 {CALL_WRITE, VIRTIO_BLK_T_WRITE_ZEROES, 16}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const unsigned before = calls(cases[i].call);

        blk.worker.patience_milliseconds = 2000;
        put_range(0, 0, 8, 0);
        set_interrupted(cases[i].call, true);
        (void)send(cases[i].type, 0, DATA, cases[i].bytes);
        while (calls(cases[i].call) < before + 3) {
            sched_yield();
        }
        reset(&station);
        cr_expect_not(is_serving(), "case %zu", i);
        set_interrupted(cases[i].call, false);
        cr_expect_eq(used_index(), 0);
        virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
        virtio_station_bring_up(&station, ALL_FEATURES, &driver.config, 1);
    }
}

Test(virtio_blk, its_end_drops_a_request)
{
    struct virtio_blk_config again = config();

    for (int i = 0; i < 20; i++) {
        for (int j = 0; j < SIZE / 4; j++) {
            (void)send(VIRTIO_BLK_T_IN, 0, GUEST_HIGH, 0x20000);
        }
        remake_blk(&again, ALL_FEATURES);
    }
}

/* Requests without end from one thread; another stops them again and again. */
static struct {
    atomic_bool is_over;
    atomic_uint count;
} load;

static void *keep_busy(void *self)
{
    (void)self;
    while (!atomic_load(&load.is_over)) {
        cr_assert_eq(ask(VIRTIO_BLK_T_OUT, atomic_load(&load.count) % SECTORS, GUEST_HIGH, 512), VIRTIO_BLK_S_OK);
        atomic_fetch_add(&load.count, 1);
    }
    return NULL;
}

Test(virtio_blk, nothing_happens_while_quiesced_and_nothing_is_lost)
{
    pthread_t thread;
    unsigned count, held = 0;

    cr_assert_eq(pthread_create(&thread, NULL, keep_busy, NULL), 0);
    for (unsigned round = 0; round < 200; round++) {
        struct virtio_blk_stats before, after;
        unsigned calls_before;

        for (count = atomic_load(&load.count); atomic_load(&load.count) == count;) {
            sched_yield();
        }
        virtio_blk_quiesce(&blk);
        before = stats();
        calls_before = calls(CALL_WRITE);
        for (int i = 0; i < 20; i++) {
            sched_yield();
        }
        after = stats();
        cr_assert_eq(memcmp(&before, &after, sizeof after), 0);
        cr_assert_eq(calls(CALL_WRITE), calls_before);
        cr_assert_eq(before.write.operation_count, calls_before, "none is half done");
        virtio_mmio_lock(&blk.mmio);
        held += blk.worker.rung != 0;
        virtio_mmio_unlock(&blk.mmio);
        virtio_blk_resume(&blk);
    }
    atomic_store(&load.is_over, true);
    pthread_join(thread, NULL);
    cr_expect_eq(stats().write.operation_count, atomic_load(&load.count));
    cr_expect_gt(held, 0, "some request came while it was quiesced");
}

/* --- Files that are refused --------------------------------------------------------------------------------------- */

static void expect_refused(const struct virtio_blk_config *refused, enum loam_error error, const char *text)
{
    static struct virtio_blk second;
    struct loam_diag diag = {0};

    cr_expect_eq(virtio_blk_init(&second, guest.map, (struct irq_line){.set = NULL}, refused, &diag), error, "%s",
                 text);
    cr_expect_not_null(strstr(diag.text, text), "%s, not: %s", text, diag.text);
    cr_expect_not_null(strstr(diag.text, "disk1: "), "%s", diag.text);
}

static int reopened(int flags)
{
    char path[64];
    int made;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    made = open(path, flags | O_CLOEXEC);
    cr_assert_geq(made, 0);
    return made;
}

Test(virtio_blk, what_cannot_be_a_disk_is_refused)
{
    struct virtio_blk_config refused = {.name = "disk1"};
    static const struct {
        const char *path;
        int flags;
    } others[] = {{"/dev/full", O_RDWR}, {"/tmp", O_RDONLY}};
    int fds[2];

    for (size_t i = 0; i < 2; i++) {
        refused.fd = open(others[i].path, others[i].flags | O_CLOEXEC);
        expect_refused(&refused, LOAM_ERROR_INVALID, "neither a regular file nor a block device");
        close(refused.fd);
    }
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    refused.fd = fds[0];
    expect_refused(&refused, LOAM_ERROR_INVALID, "neither a regular file nor a block device");
    close(fds[0]);
    close(fds[1]);
    expect_refused(&refused, LOAM_ERROR_SYSTEM, "descriptor");
    refused.fd = -1;
    expect_refused(&refused, LOAM_ERROR_SYSTEM, "descriptor -1");
}

Test(virtio_blk, a_file_that_is_open_in_a_way_that_does_not_serve_is_refused)
{
    static const struct {
        int flags;
        bool read_only;
        const char *text;
    } cases[] = {
        {O_RDONLY, false, "not open for writing"},          {O_WRONLY, false, "not open for reading"},
        {O_WRONLY, true, "not open for reading"},           {O_PATH, true, "not open for reading"},
        {O_RDWR | O_APPEND, false, "O_APPEND or O_DIRECT"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct virtio_blk_config refused = {
            .name = "disk1", .fd = reopened(cases[i].flags), .read_only = cases[i].read_only};

        expect_refused(&refused, LOAM_ERROR_INVALID, cases[i].text);
        close(refused.fd);
    }
}

Test(virtio_blk, a_size_or_serial_number_that_does_not_fit_is_refused)
{
    struct virtio_blk_config refused = {.name = "disk1", .fd = fd, .serial = "012345678901234567890"};

    expect_refused(&refused, LOAM_ERROR_INVALID, "a serial number of 21 bytes: 20 fit");
    refused.serial = NULL;
    cr_assert_eq(ftruncate(fd, 1000), 0);
    expect_refused(&refused, LOAM_ERROR_INVALID,
                   "it has 1000 bytes, no multiple of 512: the guest would not reach the "
                   "last 488");
}

Test(virtio_blk, without_a_map_there_is_no_disk)
{
    static struct virtio_blk second;
    struct virtio_blk_config usual = config();

    cr_expect_eq(virtio_blk_init(&second, NULL, (struct irq_line){.set = NULL}, &usual, NULL), LOAM_ERROR_INVALID);
}

Test(virtio_blk, an_empty_file_is_a_disk_without_sectors)
{
    cr_assert_eq(ftruncate(fd, 0), 0);
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd}, 0);
    cr_expect_eq(layout_64(0), 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 0, DATA, 512), VIRTIO_BLK_S_IOERR);
}

/* --- A block device ----------------------------------------------------------------------------------------------- */

/* A loop device over the file; -1: the host gives none. */
static int loop_device(uint32_t block_bytes)
{
    const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    const struct loop_config wanted = {
        .fd = (uint32_t)fd, .block_size = block_bytes, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    char path[32];
    int number, device;

    if (control < 0) {
        return -1;
    }
    number = ioctl(control, LOOP_CTL_GET_FREE);
    close(control);
    snprintf(path, sizeof path, "/dev/loop%d", number);
    device = number < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (device >= 0 && ioctl(device, LOOP_CONFIGURE, &wanted) != 0) {
        close(device);
        return -1;
    }
    return device;
}

Test(virtio_blk, a_block_device_has_its_own_size_and_blocks)
{
    const int device = loop_device(4096);

    if (device < 0) {
        cr_skip("the host gives no loop device: %s", strerror(errno));
    }
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = device, .discard = true}, ALL_FEATURES);
    cr_expect_eq(layout_64(0), SECTORS);
    cr_expect_eq(layout_32(20), 4096);
    cr_expect_eq(layout_32(44), 8);
    cr_expect_eq(ask(VIRTIO_BLK_T_IN, 8, GUEST_HIGH, 4096), VIRTIO_BLK_S_OK);
    cr_expect(memory_is_sectors(GUEST_HIGH, 8, 4096));
    memset(at(GUEST_HIGH), 0x3c, 4096);
    cr_expect_eq(ask(VIRTIO_BLK_T_OUT, 16, GUEST_HIGH, 4096), VIRTIO_BLK_S_OK);
    cr_expect_eq(ask(VIRTIO_BLK_T_FLUSH, 0, DATA, 0), VIRTIO_BLK_S_OK);
    cr_expect(file_is(16 * 512, 4096, at(GUEST_HIGH)));
    put_range(0, 64, 64, 0);
    cr_expect_eq(ask(VIRTIO_BLK_T_DISCARD, 0, DATA, 16), VIRTIO_BLK_S_OK);
    cr_expect(file_is_zero(64 * 512, 64 * 512));
    remake_blk(&(struct virtio_blk_config){.name = "disk0", .fd = fd}, 0);
    close(device);
}

/* --- Random requests, against a model ----------------------------------------------------------------------------- */

enum { REQUESTS = 20000, SEED = 20250712, TRANSFER_MAX = 8 * 512, FRAGMENT_MAX = 24 };

static uint8_t model[FILE_BYTES];

/* A request as the driver's program would see it, before it is cut into descriptors. */
struct asked {
    uint32_t type;
    uint64_t sector;
    uint32_t out_bytes; /* of out: the header, or part of it, and data */
    uint32_t in_bytes;  /* of room, with the status */
    uint8_t out[16 + TRANSFER_MAX + 64];
    /* What the model says: */
    uint8_t status;
    uint8_t in[TRANSFER_MAX + 64];
    uint32_t filled;
};

static bool model_fits(uint64_t sector, uint64_t sector_count)
{
    for (uint64_t i = 0; i < sector_count; i++) {
        if (sector + i >= SECTORS || sector + i < i) {
            return false;
        }
    }
    return sector <= SECTORS;
}

static void model_in(struct asked *asked)
{
    const uint32_t room = asked->in_bytes - 1;

    if (asked->out_bytes != 16 || room % 512 != 0 || !model_fits(asked->sector, room / 512)) {
        asked->status = VIRTIO_BLK_S_IOERR;
        return;
    }
    memcpy(asked->in, model + asked->sector * 512, room);
    asked->filled = room;
}

static void model_out(struct asked *asked)
{
    const uint32_t bytes = asked->out_bytes - 16;

    if (asked->in_bytes != 1 || bytes % 512 != 0 || !model_fits(asked->sector, bytes / 512)) {
        asked->status = VIRTIO_BLK_S_IOERR;
        return;
    }
    memcpy(model + asked->sector * 512, asked->out + 16, bytes);
}

static void model_id(struct asked *asked)
{
    static const uint8_t serial[20] = "loam-0123456789";

    asked->filled = asked->in_bytes - 1 < 20 ? asked->in_bytes - 1 : 20;
    memcpy(asked->in, serial, asked->filled);
}

static void model_ranges(struct asked *asked, uint32_t allowed_flags)
{
    const uint32_t bytes = asked->out_bytes - 16;
    struct virtio_blk_range ranges[VIRTIO_BLK_RANGE_MAX];

    asked->status = VIRTIO_BLK_S_IOERR;
    if (asked->in_bytes != 1 || bytes == 0 || bytes % 16 != 0 || bytes / 16 > VIRTIO_BLK_RANGE_MAX) {
        return;
    }
    memcpy(ranges, asked->out + 16, bytes);
    for (uint32_t i = 0; i < bytes / 16; i++) {
        if ((ranges[i].flags | allowed_flags) != allowed_flags) {
            asked->status = VIRTIO_BLK_S_UNSUPP;
            return;
        }
        if (ranges[i].sector_count > SECTORS || !model_fits(ranges[i].sector, ranges[i].sector_count)) {
            return;
        }
    }
    for (uint32_t i = 0; i < bytes / 16; i++) {
        memset(model + ranges[i].sector * 512, 0, ranges[i].sector_count * 512);
    }
    asked->status = VIRTIO_BLK_S_OK;
}

static void ask_model(struct asked *asked)
{
    asked->status = VIRTIO_BLK_S_OK;
    asked->filled = 0;
    if (asked->in_bytes == 0) {
        return;
    }
    if (asked->out_bytes < 16) {
        asked->status = VIRTIO_BLK_S_IOERR;
        return;
    }
    switch (asked->type) {
    case 0:
        model_in(asked);
        break;
    case 1:
        model_out(asked);
        break;
    case 4:
        break;
    case 8:
        model_id(asked);
        break;
    case 11:
        model_ranges(asked, 0);
        break;
    case 13:
        model_ranges(asked, 1);
        break;
    default:
        asked->status = VIRTIO_BLK_S_UNSUPP;
        break;
    }
}

static uint64_t random_sector(struct random *random)
{
    static const uint64_t odd[] = {SECTORS - 1, SECTORS, SECTORS + 1, UINT64_MAX, UINT64_MAX / 512 + 1, INT64_MAX};

    return random_one_in(random, 12) ? odd[random_below(random, 6)] : random_below(random, SECTORS);
}

static void random_ranges(struct random *random, struct asked *asked)
{
    const uint32_t count = random_below(random, random_one_in(random, 16) ? VIRTIO_BLK_RANGE_MAX + 2 : 4);

    for (uint32_t i = 0; i < count; i++) {
        const struct virtio_blk_range range = {
            .sector = random_sector(random),
            .sector_count = random_one_in(random, 32) ? (uint32_t)random_u64(random) : random_below(random, 12),
            .flags = random_one_in(random, 16) ? (uint32_t)random_u64(random) : random_below(random, 2),
        };

        memcpy(asked->out + 16 + 16 * i, &range, sizeof range);
    }
    asked->out_bytes = 16 + 16 * count + (random_one_in(random, 32) ? random_below(random, 16) : 0);
    asked->in_bytes = 1;
}

static void random_data(struct random *random, struct asked *asked)
{
    const uint32_t bytes = random_below(random, 9) * 512 + (random_one_in(random, 24) ? random_below(random, 64) : 0);

    for (uint32_t i = 0; i < bytes; i++) {
        asked->out[16 + i] = (uint8_t)random_u64(random);
    }
    if (random_one_in(random, 24) != (asked->type == 1)) {
        asked->out_bytes = 16 + bytes;
        asked->in_bytes = 1;
    } else {
        asked->out_bytes = 16;
        asked->in_bytes = bytes + 1;
    }
}

static void random_request(struct random *random, struct asked *asked)
{
    static const uint32_t types[] = {0, 0, 0, 1, 1, 1, 11, 13, 4, 8};
    struct virtio_blk_header header;

    asked->type = random_one_in(random, 32) ? (uint32_t)random_u64(random) : types[random_below(random, 10)];
    asked->sector = random_sector(random);
    if (asked->type == 11 || asked->type == 13) {
        random_ranges(random, asked);
    } else {
        random_data(random, asked);
    }
    if (asked->type == 8) {
        asked->in_bytes = random_below(random, 40);
    }
    if (random_one_in(random, 64)) {
        asked->out_bytes = random_below(random, 17);
    }
    if (random_one_in(random, 64)) {
        asked->in_bytes = random_below(random, 3);
    }
    header = (struct virtio_blk_header){asked->type, (uint32_t)random_u64(random), asked->sector};
    memcpy(asked->out, &header, sizeof header);
}

/* Where the next fragment of a request lies: apart from each other, over two regions and a gap in host memory. */
struct room {
    uint64_t next;
};

static uint64_t take_room(struct room *room, struct random *random, uint32_t bytes)
{
    uint64_t gpa = room->next + random_below(random, 32);

    if (gpa < GUEST_HIGH && gpa + bytes > GUEST_READONLY) {
        gpa = GUEST_HIGH;
    }
    room->next = gpa + bytes;
    cr_assert_leq(room->next, GUEST_HIGH_END);
    return gpa;
}

/* Bytes in up to FRAGMENT_MAX buffers, some of them empty. Returns how many. */
static uint16_t cut(struct random *random, struct room *room, struct virtio_buffer *buffers, uint32_t bytes,
                    bool writable)
{
    uint16_t count = 0;

    while (bytes > 0) {
        uint32_t part = random_below(random, random_one_in(random, 2) ? bytes + 1 : 40);

        if (part > bytes || count == FRAGMENT_MAX - 1) {
            part = bytes;
        }
        buffers[count++] = (struct virtio_buffer){take_room(room, random, part), part, writable};
        bytes -= part;
    }
    return count;
}

static void put_bytes(const struct virtio_buffer *buffers, uint16_t count, const uint8_t *bytes)
{
    for (uint16_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < buffers[i].bytes; j++) {
            *at(buffers[i].gpa + j) = bytes != NULL ? *bytes++ : NO_STATUS;
        }
    }
}

/* What came into the room that the request had. */
static void check_room(const struct asked *asked, const struct virtio_buffer *buffers, uint16_t count, uint32_t request)
{
    uint32_t place = 0;

    for (uint16_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < buffers[i].bytes; j++, place++) {
            const uint8_t expected = place == asked->in_bytes - 1 ? asked->status
                                     : place < asked->filled      ? asked->in[place]
                                                                  : NO_STATUS;

            cr_assert_eq(*at(buffers[i].gpa + j), expected, "seed %u, request %u, byte %u", SEED, request, place);
        }
    }
}

static void play(struct random *random, struct asked *asked, uint32_t request)
{
    struct virtio_buffer buffers[2 * FRAGMENT_MAX];
    struct room room = {GUEST_LOW + 0x1000};
    const uint16_t out_count = cut(random, &room, buffers, asked->out_bytes, false);
    uint16_t count = out_count, head;
    uint32_t written;

    count = (uint16_t)(count + cut(random, &room, buffers + count, asked->in_bytes, true));
    if (count == 0) {
        return;
    }
    put_bytes(buffers, out_count, asked->out);
    put_bytes(buffers + out_count, (uint16_t)(count - out_count), NULL);
    ask_model(asked);
    cr_assert(virtio_driver_add(&driver, buffers, count, &head));
    virtio_station_ring(&station, 0);
    written = take(head);
    check_room(asked, buffers + out_count, (uint16_t)(count - out_count), request);
    cr_assert_eq(written,
                 asked->in_bytes == 0                   ? 0
                 : asked->filled == asked->in_bytes - 1 ? asked->in_bytes
                                                        : asked->filled,
                 "seed %u, request %u", SEED, request);
}

Test(virtio_blk, random_requests_do_what_a_model_says)
{
    static struct asked asked;
    struct random random = {SEED};
    uint32_t statuses[3] = {0};

    for (uint64_t i = 0; i < FILE_BYTES; i++) {
        model[i] = pattern(i);
    }
    for (uint32_t request = 0; request < REQUESTS; request++) {
        random_request(&random, &asked);
        play(&random, &asked, request);
        statuses[asked.status]++;
        if (request % 64 == 0) {
            cr_assert(file_is(0, FILE_BYTES, model), "seed %u, by request %u", SEED, request);
        }
    }
    cr_assert(file_is(0, FILE_BYTES, model));
    cr_expect_gt(statuses[VIRTIO_BLK_S_OK], REQUESTS / 2);
    cr_expect_gt(statuses[VIRTIO_BLK_S_IOERR], REQUESTS / 16);
    cr_expect_gt(statuses[VIRTIO_BLK_S_UNSUPP], REQUESTS / 64);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_STATUS), 0x0f);
}

/* --- Hostile rings ------------------------------------------------------------------------------------------------ */

enum { RING_ROUNDS = 20000, RING_SEED = 20250713 };

static void spoil(struct random *random)
{
    static const uint64_t places[] = {GUEST_LOW + 0x2000, GUEST_NEXT - 8, HEADER_GPA,         GUEST_READONLY - 8,
                                      GUEST_GAP,          GUEST_HIGH,     GUEST_HIGH_END - 8, UINT64_MAX - 8};
    const uint32_t size = driver.config.size;

    for (uint32_t i = 0; i < size; i++) {
        const uint64_t address = places[random_below(random, random_one_in(random, 32) ? 8 : 3)];
        const uint32_t flags = random_one_in(random, 64) ? (uint32_t)random_u64(random) : 2u * random_below(random, 2);

        virtio_guest_put_descriptor(&guest, driver.config.descriptors.value, (uint16_t)i, address,
                                    random_one_in(random, 128) ? (uint32_t)random_u64(random)
                                                               : random_below(random, 3) * 8,
                                    (uint16_t)(flags | (random_one_in(random, 3) ? 0 : VIRTQ_DESC_F_NEXT)),
                                    (uint16_t)random_below(random, size + random_one_in(random, 64)));
        virtio_guest_put_16(&guest, driver.config.available.value + 4 + UINT64_C(2) * i,
                            (uint16_t)random_below(random, size + random_one_in(random, 64)));
    }
}

static void await_idle(void)
{
    bool is_idle = false;

    while (!is_idle) {
        virtio_mmio_lock(&blk.mmio);
        is_idle = blk.worker.rung == 0 && !blk.worker.is_serving;
        virtio_mmio_unlock(&blk.mmio);
        sched_yield();
    }
}

/* Everything that the guest itself may not write stays as it was. */
static bool is_untouched(const uint8_t *before)
{
    for (size_t offset = 0; offset < guest.arena_bytes; offset += 4096) {
        bool may_write = false;

        for (uint64_t gpa = GUEST_LOW; gpa < GUEST_READONLY; gpa += 4096) {
            may_write |= virtio_guest_offset(gpa, true) == (ptrdiff_t)offset;
        }
        for (uint64_t gpa = GUEST_HIGH; gpa < GUEST_HIGH_END; gpa += 4096) {
            may_write |= virtio_guest_offset(gpa, true) == (ptrdiff_t)offset;
        }
        if (!may_write && memcmp(guest.arena + offset, before + offset, 4096) != 0) {
            return false;
        }
    }
    return true;
}

Test(virtio_blk, hostile_rings_touch_nothing_that_the_guest_may_not)
{
    static uint8_t before[64 * 4096];
    struct random random = {RING_SEED};
    uint32_t reset_count = 0;

    cr_assert_leq(guest.arena_bytes, sizeof before);
    memcpy(before, guest.arena, guest.arena_bytes);
    for (uint32_t round = 0; round < RING_ROUNDS; round++) {
        if (virtio_station_in(&station, VIRTIO_MMIO_STATUS) != 0x0f || random_one_in(&random, 256)) {
            driver.config.size = 1u << random_below(&random, 5);
            virtio_station_bring_up(&station, ALL_FEATURES, &driver.config, 1);
            reset_count++;
        }
        put_header(random_below(&random, 16), random_below(&random, SECTORS));
        spoil(&random);
        virtio_guest_put_16(
            &guest, driver.config.available.value + 2,
            (uint16_t)(blk.mmio.queues[0].next_available + random_below(&random, driver.config.size + 1)));
        virtio_station_ring(&station, 0);
        await_idle();
        virtio_station_out(&station, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
        if (round % 256 == 0) {
            cr_assert(is_untouched(before), "seed %u, by round %u", RING_SEED, round);
        }
    }
    cr_assert(is_untouched(before));
    cr_expect_gt(reset_count, RING_ROUNDS / 64);
    cr_expect_gt(stats().invalid_count, RING_ROUNDS / 4);
    cr_expect_gt(stats().read.operation_count + stats().flush.operation_count, 0);
}
