// SPDX-License-Identifier: Apache-2.0
/*
 * What a program that used rust-vmm's vm-memory asks of guest memory, row by row: their operation, the call of Loam for
 * it, what that answers, and a play that sees it answer so. Each play has a guest of its own, over one memfd. The rows
 * stand in allocator/README.md too, and a test holds the two against each other.
 */
#include "loam/backing.h"
#include "loam/dirty.h"
#include "loam/gpa_io.h"
#include "loam/gpa_map.h"
#include "loam/types.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)

/* Where things are: NEXT follows LOW for the guest, and not in the file. Between NEXT and HIGH is a hole. */
#define LOW      UINT64_C(0x10000)
#define NEXT     UINT64_C(0x14000)
#define HOLE     UINT64_C(0x16000)
#define HIGH     UINT64_C(0x100000)
#define READONLY UINT64_C(0x102000)
#define DEVICE   UINT64_C(0x110000)
#define TOP      UINT64_C(0x111000)

enum { FILE_PAGES = 16, NEXT_PAGE = 8, HIGH_PAGE = 12, READONLY_PAGE = 15, BACKING = 1, READERS = 4 };

static struct guest {
    struct loam_gpa_map *map;
    const struct loam_gpa_view *view;
    uint8_t *host;
    void *memory;
    int fd;
} guest;

static struct loam_region region_at(uint64_t start, uint64_t pages, uint64_t file_page, enum loam_access access)
{
    return (struct loam_region){.start = {start},
                                .bytes = pages * PAGE,
                                .hva = guest.host + file_page * PAGE,
                                .backing = BACKING,
                                .backing_offset = file_page * PAGE,
                                .type = LOAM_REGION_RAM,
                                .access = access};
}

static void make_guest(void)
{
    size_t bytes = loam_gpa_map_bytes(NULL);
    const struct loam_region regions[] = {region_at(LOW, 4, 0, LOAM_ACCESS_WRITE),
                                          region_at(NEXT, 2, NEXT_PAGE, LOAM_ACCESS_WRITE),
                                          region_at(HIGH, 2, HIGH_PAGE, LOAM_ACCESS_WRITE),
                                          region_at(READONLY, 1, READONLY_PAGE, LOAM_ACCESS_READ),
                                          {.start = {DEVICE}, .bytes = PAGE, .type = LOAM_REGION_DEVICE}};

    cr_assert_eq(loam_gpa_map_init(guest.memory, bytes, NULL, &guest.map), LOAM_OK);
    for (size_t i = 0; i < sizeof regions / sizeof *regions; i++) {
        struct loam_region region = regions[i];

        region.hva = region.type == LOAM_REGION_DEVICE ? NULL : guest.host + region.backing_offset;
        cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
    }
    for (uint64_t i = 0; i < FILE_PAGES * PAGE; i++) {
        guest.host[i] = (uint8_t)(i * 7 + i / PAGE);
    }
    guest.view = loam_gpa_map_acquire(guest.map);
}

static void set_up(void)
{
    guest.fd = memfd_create("guest", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(guest.fd, FILE_PAGES * (off_t)PAGE), 0);
    guest.host = mmap(NULL, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, guest.fd, 0);
    guest.memory = aligned_alloc(64, loam_align_up(loam_gpa_map_bytes(NULL), 64));
}

static void tear_down(void)
{
    munmap(guest.host, FILE_PAGES * PAGE);
    close(guest.fd);
    free(guest.memory);
}

TestSuite(vm_memory, .init = set_up, .fini = tear_down, .timeout = 120);

/* --- What plays share ------------------------------------------------------------------------------------------------ */

/* Ends a play with what was not so. */
#define SEE(condition)                                                                                                 \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            return #condition;                                                                                         \
        }                                                                                                              \
    } while (0)

static loam_gpa at(uint64_t gpa)
{
    return loam_gpa_from_u64(gpa);
}

/* A view of the map as it has become. */
static void look_again(void)
{
    loam_gpa_map_release(guest.map, guest.view);
    guest.view = loam_gpa_map_acquire(guest.map);
}

static enum loam_error translate(uint64_t gpa, uint64_t bytes, void **hva)
{
    return loam_gpa_view_translate(guest.view, at(gpa), bytes, LOAM_ACCESS_READ, hva);
}

static enum loam_error find(uint64_t gpa, struct loam_region *region)
{
    return loam_gpa_view_find(guest.view, at(gpa), region);
}

static bool is_filled(const uint8_t *bytes, uint8_t value, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (bytes[i] != value) {
            return false;
        }
    }
    return true;
}

/* --- Addresses --------------------------------------------------------------------------------------------------------- */

static const char *play_checked_add(void)
{
    SEE(loam_gpa_range_valid(at(LOAM_GPA_END - 1), 1));
    SEE(!loam_gpa_range_valid(at(LOAM_GPA_END - 1), 2));
    SEE(!loam_gpa_range_valid(at(UINT64_MAX), 1));
    SEE(!loam_gpa_range_valid(at(1), UINT64_MAX));
    return NULL;
}

static const char *play_checked_offset_from(void)
{
    SEE(loam_fits(UINT64_C(0x150) - 0x100, 1, 0x51));
    SEE(!loam_fits(UINT64_C(0x150) - 0x100, 1, 0x50));
    SEE(!loam_fits(UINT64_C(0x100) - 0x150, 1, UINT64_C(1) << 52));
    return NULL;
}

static const char *play_align(void)
{
    SEE(loam_align_up(0x1001, PAGE) == 0x2000 && loam_align_up(0x1000, PAGE) == 0x1000);
    SEE(loam_align_down(0x1fff, PAGE) == 0x1000);
    SEE(loam_is_aligned(0x2000, PAGE) && !loam_is_aligned(0x2001, PAGE));
    return NULL;
}

static const char *play_overflowing_add(void)
{
    void *hva = guest.host;

    SEE(translate(LOW + UINT64_MAX - LOW, 2, &hva) == LOAM_ERROR_INVALID && hva == NULL);
    SEE(translate(LOAM_GPA_END, 1, &hva) == LOAM_ERROR_INVALID);
    return NULL;
}

/* --- Regions ------------------------------------------------------------------------------------------------------------ */

static const char *play_num_regions(void)
{
    SEE(loam_gpa_view_count(guest.view) == 5);
    return NULL;
}

static const char *play_find_region(void)
{
    struct loam_region region;

    SEE(find(LOW, &region) == LOAM_OK && region.start.value == LOW);
    SEE(find(NEXT - 1, &region) == LOAM_OK && region.start.value == LOW);
    SEE(find(NEXT, &region) == LOAM_OK && region.start.value == NEXT);
    SEE(find(LOW - 1, &region) == LOAM_ERROR_NOT_FOUND);
    SEE(find(HOLE, &region) == LOAM_ERROR_NOT_FOUND);
    SEE(find(TOP, &region) == LOAM_ERROR_NOT_FOUND);
    return NULL;
}

static const char *play_iter(void)
{
    static const uint64_t starts[] = {LOW, NEXT, HIGH, READONLY, DEVICE};
    struct loam_region region;

    for (uint32_t i = 0; i < 5; i++) {
        SEE(loam_gpa_view_region(guest.view, i, &region) == LOAM_OK && region.start.value == starts[i]);
    }
    SEE(loam_gpa_view_region(guest.view, 5, &region) == LOAM_ERROR_NOT_FOUND);
    return NULL;
}

static const char *play_last_addr(void)
{
    struct loam_region region;

    SEE(loam_gpa_view_region(guest.view, loam_gpa_view_count(guest.view) - 1, &region) == LOAM_OK);
    SEE(region.start.value + region.bytes == TOP);
    return NULL;
}

static const char *play_to_region_addr(void)
{
    struct loam_region region;

    SEE(find(NEXT + 0x1234, &region) == LOAM_OK && NEXT + 0x1234 - region.start.value == 0x1234);
    return NULL;
}

static const char *play_check_address(void)
{
    void *hva;

    SEE(translate(HIGH, 1, &hva) == LOAM_OK);
    SEE(translate(HOLE, 1, &hva) == LOAM_ERROR_NOT_FOUND);
    SEE(translate(DEVICE, 1, &hva) == LOAM_ERROR_NOT_FOUND);
    SEE(loam_gpa_view_translate(guest.view, at(READONLY), 1, LOAM_ACCESS_WRITE, &hva) == LOAM_ERROR_NOT_PERMITTED);
    return NULL;
}

static const char *play_check_range(void)
{
    uint64_t reached;

    SEE(loam_gpa_io_reach(guest.view, at(LOW + 5), 6 * PAGE - 5, LOAM_ACCESS_READ, &reached) == LOAM_OK);
    SEE(reached == 6 * PAGE - 5);
    SEE(loam_gpa_io_reach(guest.view, at(LOW + 5), 6 * PAGE, LOAM_ACCESS_READ, &reached) == LOAM_OK);
    SEE(reached == 6 * PAGE - 5);
    SEE(loam_gpa_io_reach(guest.view, at(HOLE), 0, LOAM_ACCESS_READ, &reached) == LOAM_OK && reached == 0);
    return NULL;
}

static const char *play_checked_offset(void)
{
    struct loam_region region;

    SEE(find(LOW + (HIGH - LOW), &region) == LOAM_OK && region.start.value == HIGH);
    SEE(find(LOW + (HOLE - LOW), &region) == LOAM_ERROR_NOT_FOUND);
    SEE(find(LOW + UINT64_MAX, &region) == LOAM_ERROR_NOT_FOUND);
    return NULL;
}

static const char *play_try_access(void)
{
    struct loam_piece pieces[2];
    uint32_t count;

    SEE(loam_gpa_view_pieces(guest.view, at(NEXT - 8), 16, LOAM_ACCESS_WRITE, pieces, 2, &count) == LOAM_OK);
    SEE(count == 2 && pieces[0].bytes == 8 && pieces[1].bytes == 8);
    SEE(pieces[0].hva == guest.host + 4 * PAGE - 8 && pieces[1].hva == guest.host + NEXT_PAGE * PAGE);
    SEE(loam_gpa_view_pieces(guest.view, at(NEXT - 8), 16, LOAM_ACCESS_WRITE, pieces, 1, &count) ==
            LOAM_ERROR_EXHAUSTED &&
        count == 2);
    SEE(loam_gpa_view_pieces(guest.view, at(HOLE - 8), 16, LOAM_ACCESS_READ, pieces, 2, &count) ==
            LOAM_ERROR_NOT_FOUND &&
        count == 0);
    return NULL;
}

static const char *play_get_host_address(void)
{
    void *hva;

    SEE(translate(NEXT + 5, 1, &hva) == LOAM_OK && hva == guest.host + NEXT_PAGE * PAGE + 5);
    SEE(translate(HOLE, 1, &hva) == LOAM_ERROR_NOT_FOUND && hva == NULL);
    return NULL;
}

static const char *play_get_slice(void)
{
    void *hva;

    SEE(translate(LOW + 1, 4 * PAGE - 1, &hva) == LOAM_OK && hva == guest.host + 1);
    SEE(translate(LOW + 1, 4 * PAGE, &hva) == LOAM_ERROR_OVERLAP);
    SEE(translate(HIGH - 1, 2, &hva) == LOAM_ERROR_NOT_FOUND);
    SEE(translate(LOW, 0, &hva) == LOAM_ERROR_INVALID);
    return NULL;
}

static const char *play_get_slices(void)
{
    struct iovec vectors[4];
    uint32_t count;

    SEE(loam_gpa_io_vectors(guest.view, at(NEXT - 1), PAGE, LOAM_ACCESS_READ, vectors, 4, &count) == LOAM_OK);
    SEE(count == 2 && vectors[0].iov_len == 1 && vectors[1].iov_len == PAGE - 1);
    SEE(loam_gpa_io_vectors(guest.view, at(HOLE), 0, LOAM_ACCESS_READ, vectors, 4, &count) == LOAM_OK && count == 0);
    return NULL;
}

static const char *play_region_bounds(void)
{
    struct loam_region region;

    SEE(find(HIGH + 1, &region) == LOAM_OK);
    SEE(region.start.value == HIGH && region.bytes == 2 * PAGE);
    SEE(region.start.value + region.bytes - 1 == READONLY - 1);
    return NULL;
}

static const char *play_as_volatile_slice(void)
{
    struct loam_region region;

    SEE(find(NEXT, &region) == LOAM_OK && region.hva == guest.host + NEXT_PAGE * PAGE);
    SEE(find(DEVICE, &region) == LOAM_OK && region.hva == NULL);
    return NULL;
}

/* What lies there in the file is what the guest has. */
static const char *play_file_offset(void)
{
    struct loam_share shares[8];
    uint8_t byte;
    uint32_t count;

    SEE(loam_gpa_view_shares(guest.view, &guest.fd, 1, shares, 8, &count) == LOAM_OK && count == 4);
    SEE(shares[1].start.value == NEXT && shares[1].fd == guest.fd && shares[1].backing_offset == NEXT_PAGE * PAGE);
    SEE(pread(shares[1].fd, &byte, 1, (off_t)shares[1].backing_offset + 3) == 1);
    SEE(byte == guest.host[NEXT_PAGE * PAGE + 3]);
    SEE(loam_gpa_view_shares(guest.view, NULL, 0, shares, 8, &count) == LOAM_OK && shares[0].fd == -1);
    return NULL;
}

static const char *play_is_hugetlbfs(void)
{
    struct loam_backing_request request = {
        .bytes = PAGE, .gpa = {0}, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct loam_backing *backing;
    struct loam_backing_info info;

    SEE(loam_backing_create(&request, &backing, NULL) == LOAM_OK);
    info = loam_backing_get_info(backing);
    loam_backing_destroy(backing);
    SEE(info.pages == LOAM_PAGES_4K && info.bytes == PAGE);
    return NULL;
}

static const char *play_mmap_region_new(void)
{
    struct loam_backing_request request = {.bytes = 0, .pages = LOAM_PAGES_4K, .name = "guest"};
    struct loam_backing *backing;
    struct loam_backing_info info;

    SEE(loam_backing_create(&request, &backing, NULL) == LOAM_ERROR_INVALID && backing == NULL);
    request.bytes = 2 * PAGE;
    SEE(loam_backing_create(&request, &backing, NULL) == LOAM_OK);
    info = loam_backing_get_info(backing);
    SEE(info.fd >= 0 && is_filled(info.hva, 0, 2 * PAGE));
    loam_backing_destroy(backing);
    return NULL;
}

static const char *play_build_raw(void)
{
    struct loam_region region = region_at(HOLE, 1, 6, LOAM_ACCESS_WRITE);

    region.hva = guest.host + 6 * PAGE + 8;
    SEE(loam_gpa_map_insert(guest.map, &region) == LOAM_ERROR_INVALID);
    region.hva = guest.host + 6 * PAGE;
    SEE(loam_gpa_map_insert(guest.map, &region) == LOAM_OK);
    return NULL;
}

static const char *play_fds_overlap(void)
{
    struct loam_region region = region_at(HOLE, 1, 0, LOAM_ACCESS_WRITE);
    loam_gpa gpa;

    SEE(loam_gpa_map_insert(guest.map, &region) == LOAM_OK);
    look_again();
    SEE(loam_gpa_view_gpa_from_hva(guest.view, guest.host, 8, &gpa) == LOAM_OK && gpa.value == LOW);
    SEE(find(HOLE, &region) == LOAM_OK && region.backing == BACKING && region.backing_offset == 0);
    return NULL;
}

/* --- Collections of regions --------------------------------------------------------------------------------------------- */

static enum loam_error insert_pair(uint64_t first, uint64_t second, uint32_t *refused)
{
    const struct loam_gpa_change changes[] = {{LOAM_CHANGE_INSERT, region_at(first, 2, 4, LOAM_ACCESS_WRITE)},
                                              {LOAM_CHANGE_INSERT, region_at(second, 1, 6, LOAM_ACCESS_WRITE)}};

    return loam_gpa_map_change(guest.map, changes, 2, refused);
}

static const char *play_from_ranges(void)
{
    uint32_t refused;

    SEE(insert_pair(HOLE, HOLE + 4 * PAGE, &refused) == LOAM_OK);
    look_again();
    SEE(loam_gpa_view_count(guest.view) == 7);
    return NULL;
}

static const char *play_from_ranges_overlap(void)
{
    uint32_t refused;

    SEE(insert_pair(HOLE, HOLE + PAGE, &refused) == LOAM_ERROR_OVERLAP && refused == 1);
    SEE(insert_pair(NEXT, HOLE, &refused) == LOAM_ERROR_OVERLAP && refused == 0);
    look_again();
    SEE(loam_gpa_view_count(guest.view) == 5);
    return NULL;
}

static const char *play_from_ranges_unsorted(void)
{
    struct loam_region region;
    uint32_t refused;

    SEE(insert_pair(HOLE + 4 * PAGE, HOLE, &refused) == LOAM_OK);
    look_again();
    SEE(loam_gpa_view_region(guest.view, 2, &region) == LOAM_OK && region.start.value == HOLE);
    SEE(loam_gpa_view_region(guest.view, 3, &region) == LOAM_OK && region.start.value == HOLE + 4 * PAGE);
    return NULL;
}

static const char *play_from_ranges_empty(void)
{
    struct loam_region region = region_at(HOLE, 0, 6, LOAM_ACCESS_WRITE);

    SEE(loam_gpa_map_remove(guest.map, at(LOW), HOLE - LOW) == LOAM_OK);
    SEE(loam_gpa_map_remove(guest.map, at(HIGH), 3 * PAGE) == LOAM_OK);
    SEE(loam_gpa_map_remove(guest.map, at(DEVICE), PAGE) == LOAM_OK);
    look_again();
    SEE(loam_gpa_view_count(guest.view) == 0);
    SEE(loam_gpa_map_insert(guest.map, &region) == LOAM_ERROR_INVALID);
    region = region_at(LOAM_GPA_END - PAGE, 2, 6, LOAM_ACCESS_WRITE);
    SEE(loam_gpa_map_insert(guest.map, &region) == LOAM_ERROR_INVALID);
    return NULL;
}

static const char *play_insert_region(void)
{
    struct loam_region region = region_at(HOLE, 1, 6, LOAM_ACCESS_WRITE), found;

    SEE(loam_gpa_map_insert(guest.map, &region) == LOAM_OK);
    SEE(loam_gpa_map_insert(guest.map, &region) == LOAM_ERROR_OVERLAP);
    SEE(find(HOLE, &found) == LOAM_ERROR_NOT_FOUND);
    look_again();
    SEE(find(HOLE, &found) == LOAM_OK);
    return NULL;
}

static const char *play_remove_region(void)
{
    struct loam_region region;

    SEE(loam_gpa_map_remove(guest.map, at(HOLE), PAGE) == LOAM_ERROR_NOT_FOUND);
    SEE(loam_gpa_map_remove(guest.map, at(HIGH), 4 * PAGE) == LOAM_ERROR_NOT_FOUND);
    SEE(loam_gpa_map_remove(guest.map, at(LOW + PAGE), PAGE) == LOAM_OK);
    SEE(find(LOW + PAGE, &region) == LOAM_OK);
    look_again();
    SEE(find(LOW + PAGE, &region) == LOAM_ERROR_NOT_FOUND && loam_gpa_view_count(guest.view) == 6);
    return NULL;
}

/* --- Bytes -------------------------------------------------------------------------------------------------------------- */

static const char *play_write(void)
{
    uint8_t bytes[64];
    uint64_t done;

    memset(bytes, 0xee, sizeof bytes);
    SEE(loam_gpa_io_write_some(guest.view, at(HOLE - 10), bytes, 64, &done) == LOAM_OK && done == 10);
    SEE(is_filled(guest.host + (NEXT_PAGE + 2) * PAGE - 10, 0xee, 10));
    SEE(loam_gpa_io_write_some(guest.view, at(HOLE), bytes, 64, &done) == LOAM_ERROR_NOT_FOUND && done == 0);
    SEE(loam_gpa_io_write_some(guest.view, at(READONLY), bytes, 1, &done) == LOAM_ERROR_NOT_PERMITTED);
    SEE(loam_gpa_io_write_some(guest.view, at(UINT64_MAX), bytes, 2, &done) == LOAM_ERROR_INVALID);
    return NULL;
}

static const char *play_read(void)
{
    uint8_t bytes[64];
    uint64_t done;

    SEE(loam_gpa_io_read_some(guest.view, at(HOLE - 10), bytes, 64, &done) == LOAM_OK && done == 10);
    SEE(memcmp(bytes, guest.host + (NEXT_PAGE + 2) * PAGE - 10, 10) == 0);
    SEE(loam_gpa_io_read_some(guest.view, at(HOLE), bytes, 64, &done) == LOAM_ERROR_NOT_FOUND && done == 0);
    return NULL;
}

static const char *play_zero_length(void)
{
    uint64_t done = 7;
    uint8_t byte;

    SEE(loam_gpa_io_read_some(guest.view, at(HOLE), &byte, 0, &done) == LOAM_OK && done == 0);
    SEE(loam_gpa_io_write_some(guest.view, at(UINT64_MAX), &byte, 0, &done) == LOAM_OK && done == 0);
    SEE(loam_gpa_view_read(guest.view, at(LOW), &byte, 0) == LOAM_ERROR_INVALID);
    return NULL;
}

static const char *play_write_slice(void)
{
    uint8_t bytes[32];

    memset(bytes, 0xdd, sizeof bytes);
    SEE(loam_gpa_view_write(guest.view, at(NEXT - 16), bytes, 32) == LOAM_OK);
    SEE(is_filled(guest.host + 4 * PAGE - 16, 0xdd, 16) && is_filled(guest.host + NEXT_PAGE * PAGE, 0xdd, 16));
    memset(bytes, 0xcc, sizeof bytes);
    SEE(loam_gpa_view_write(guest.view, at(HOLE - 16), bytes, 32) == LOAM_ERROR_NOT_FOUND);
    SEE(guest.host[(NEXT_PAGE + 2) * PAGE - 16] != 0xcc);
    return NULL;
}

static const char *play_read_slice(void)
{
    uint8_t bytes[32];

    SEE(loam_gpa_view_read(guest.view, at(NEXT - 16), bytes, 32) == LOAM_OK);
    SEE(memcmp(bytes, guest.host + 4 * PAGE - 16, 16) == 0);
    SEE(memcmp(bytes + 16, guest.host + NEXT_PAGE * PAGE, 16) == 0);
    SEE(loam_gpa_view_read(guest.view, at(HOLE - 16), bytes, 32) == LOAM_ERROR_NOT_FOUND);
    return NULL;
}

static const char *play_objects(void)
{
    struct {
        uint64_t a;
        uint32_t b, c;
    } written = {UINT64_C(0x1122334455667788), 9, 10}, found = {0};

    SEE(loam_gpa_view_write(guest.view, at(NEXT - 5), &written, sizeof written) == LOAM_OK);
    SEE(loam_gpa_view_read(guest.view, at(NEXT - 5), &found, sizeof found) == LOAM_OK);
    SEE(memcmp(&written, &found, sizeof found) == 0);
    SEE(loam_gpa_view_read(guest.view, at(TOP - 5), &found, sizeof found) == LOAM_ERROR_NOT_FOUND);
    return NULL;
}

static const char *play_store_load(void)
{
    uint32_t value = 1;
    uint64_t wide;

    SEE(loam_gpa_view_store32(guest.view, at(HIGH + 4), LOAM_ORDER_RELEASE, 100) == LOAM_OK);
    SEE(loam_gpa_view_load32(guest.view, at(HIGH + 4), LOAM_ORDER_ACQUIRE, &value) == LOAM_OK && value == 100);
    SEE(loam_gpa_view_load32(guest.view, at(HOLE), LOAM_ORDER_RELAXED, &value) == LOAM_ERROR_NOT_FOUND && value == 0);
    SEE(loam_gpa_view_store32(guest.view, at(HOLE), LOAM_ORDER_RELAXED, 1) == LOAM_ERROR_NOT_FOUND);
    SEE(loam_gpa_view_load64(guest.view, at(LOW + 4), LOAM_ORDER_SEQ_CST, &wide) == LOAM_ERROR_INVALID);
    return NULL;
}

static const char *play_read_volatile_from(void)
{
    int file = memfd_create("file", MFD_CLOEXEC);
    uint64_t done;

    SEE(write(file, "twelve bytes", 12) == 12);
    SEE(loam_gpa_io_read_from_fd(guest.view, at(NEXT - 6), 100, file, 0, &done) == LOAM_OK && done == 12);
    SEE(memcmp(guest.host + 4 * PAGE - 6, "twelve", 6) == 0);
    SEE(memcmp(guest.host + NEXT_PAGE * PAGE, " bytes", 6) == 0);
    SEE(loam_gpa_io_read_from_fd(guest.view, at(HOLE), 4, file, 0, &done) == LOAM_ERROR_NOT_FOUND && done == 0);
    SEE(loam_gpa_io_read_from_fd(guest.view, at(HOLE - 3), 4, file, 0, &done) == LOAM_OK && done == 3);
    close(file);
    return NULL;
}

static const char *play_write_volatile_to(void)
{
    int file = memfd_create("file", MFD_CLOEXEC);
    uint8_t bytes[16];
    uint64_t done;

    SEE(loam_gpa_io_write_to_fd(guest.view, at(NEXT - 8), 16, file, LOAM_GPA_IO_POSITION, &done) == LOAM_OK);
    SEE(done == 16 && pread(file, bytes, 16, 0) == 16);
    SEE(memcmp(bytes, guest.host + 4 * PAGE - 8, 8) == 0);
    SEE(memcmp(bytes + 8, guest.host + NEXT_PAGE * PAGE, 8) == 0);
    SEE(loam_gpa_io_write_to_fd(guest.view, at(HOLE - 3), 8, file, 0, &done) == LOAM_OK && done == 3);
    close(file);
    return NULL;
}

/* --- Slices ------------------------------------------------------------------------------------------------------------- */

static const char *play_subslice(void)
{
    void *whole, *part;

    SEE(translate(LOW, 4 * PAGE, &whole) == LOAM_OK);
    SEE(translate(LOW + 0x100, 0x20, &part) == LOAM_OK && part == (char *)whole + 0x100);
    SEE(loam_fits(0x100, 0x20, 4 * PAGE) && !loam_fits(0x100, 4 * PAGE, 4 * PAGE));
    SEE(!loam_fits(1, UINT64_MAX, 4 * PAGE));
    return NULL;
}

static const char *play_split_at(void)
{
    struct loam_piece piece;
    void *hva;
    uint32_t count;

    SEE(loam_gpa_view_pieces(guest.view, at(HIGH), PAGE, LOAM_ACCESS_READ, &piece, 1, &count) == LOAM_OK);
    SEE(translate(HIGH + 0x800, piece.bytes - 0x800, &hva) == LOAM_OK && hva == (char *)piece.hva + 0x800);
    SEE(translate(HIGH + piece.bytes, 0, &hva) == LOAM_ERROR_INVALID);
    return NULL;
}

static const char *play_copy(void)
{
    uint16_t found[4], written[4] = {1, 2, 3, 4};

    SEE(loam_gpa_view_write(guest.view, at(LOW), written, sizeof written) == LOAM_OK);
    SEE(loam_gpa_view_read(guest.view, at(LOW), found, sizeof found) == LOAM_OK);
    SEE(memcmp(found, written, sizeof found) == 0);
    return NULL;
}

static const char *play_copy_to_slice(void)
{
    uint8_t bytes[PAGE];

    SEE(loam_gpa_view_read(guest.view, at(LOW), bytes, PAGE) == LOAM_OK);
    SEE(loam_gpa_view_write(guest.view, at(NEXT - 100), bytes, PAGE) == LOAM_OK);
    SEE(memcmp(guest.host + 4 * PAGE - 100, guest.host, 100) == 0);
    SEE(memcmp(guest.host + NEXT_PAGE * PAGE, guest.host + 100, PAGE - 100) == 0);
    return NULL;
}

static const char *play_array_ref(void)
{
    uint64_t value;

    for (uint64_t i = 0; i < 4; i++) {
        SEE(loam_gpa_view_store64(guest.view, at(HIGH + 8 * i), LOAM_ORDER_RELAXED, i * i) == LOAM_OK);
    }
    SEE(loam_gpa_view_load64(guest.view, at(HIGH + 8 * 3), LOAM_ORDER_RELAXED, &value) == LOAM_OK && value == 9);
    SEE(loam_gpa_view_load64(guest.view, at(READONLY + PAGE), LOAM_ORDER_RELAXED, &value) == LOAM_ERROR_NOT_FOUND);
    return NULL;
}

static const char *play_atomic_ref(void)
{
    void *hva;
    uint32_t value;

    SEE(loam_gpa_view_translate(guest.view, at(HIGH + 8), 4, LOAM_ACCESS_WRITE, &hva) == LOAM_OK);
    SEE(loam_is_aligned((uintptr_t)hva, 4));
    *(volatile uint32_t *)hva = 5;
    SEE(atomic_fetch_add((_Atomic uint32_t *)hva, 2) == 5);
    SEE(loam_gpa_view_load32(guest.view, at(HIGH + 8), LOAM_ORDER_SEQ_CST, &value) == LOAM_OK && value == 7);
    return NULL;
}

static const char *play_misaligned(void)
{
    uint16_t half = 1;
    uint8_t byte;

    SEE(loam_gpa_view_load16(guest.view, at(LOW + 1), LOAM_ORDER_RELAXED, &half) == LOAM_ERROR_INVALID && half == 0);
    SEE(loam_gpa_view_store16(guest.view, at(LOW + 1), LOAM_ORDER_RELAXED, 1) == LOAM_ERROR_INVALID);
    SEE(loam_gpa_view_load8(guest.view, at(LOW + 1), LOAM_ORDER_RELAXED, &byte) == LOAM_OK && byte == guest.host[1]);
    return NULL;
}

/* --- Dirty pages -------------------------------------------------------------------------------------------------------- */

static _Alignas(8) char dirty_memory[256];

/* Over LOW and NEXT, which are six pages. */
static struct loam_dirty *make_dirty(void)
{
    const struct loam_dirty_config config = {.start = {LOW}, .bytes = HOLE - LOW};
    struct loam_dirty *dirty;

    return loam_dirty_init(dirty_memory, sizeof dirty_memory, &config, &dirty) == LOAM_OK ? dirty : NULL;
}

static const char *play_bitmap_new(void)
{
    struct loam_dirty_config config = {.bytes = 1025, .page_bytes = 128};
    struct loam_dirty *dirty;

    SEE(loam_dirty_bytes(&config) <= sizeof dirty_memory);
    SEE(loam_dirty_init(dirty_memory, sizeof dirty_memory, &config, &dirty) == LOAM_OK);
    SEE(loam_dirty_mark(dirty, at(0), 9 * 128) == LOAM_OK && loam_dirty_count(dirty) == 9);
    config.page_bytes = 100;
    SEE(loam_dirty_bytes(&config) == 0);
    return NULL;
}

static const char *play_mark_dirty(void)
{
    struct loam_dirty *dirty = make_dirty();

    SEE(loam_dirty_mark(dirty, at(LOW + PAGE), PAGE + 1) == LOAM_OK);
    SEE(!loam_dirty_test(dirty, at(LOW)) && loam_dirty_test(dirty, at(LOW + PAGE)));
    SEE(loam_dirty_test(dirty, at(LOW + 2 * PAGE)) && !loam_dirty_test(dirty, at(LOW + 3 * PAGE)));
    SEE(loam_dirty_mark(dirty, at(HOLE - 1), 2) == LOAM_ERROR_NOT_FOUND && loam_dirty_test(dirty, at(HOLE - 1)));
    SEE(!loam_dirty_test(dirty, at(HOLE)));
    return NULL;
}

static const char *play_get_and_reset(void)
{
    struct loam_dirty *dirty = make_dirty();
    loam_gpa start;
    uint64_t word, bytes;

    SEE(loam_dirty_mark(dirty, at(LOW + PAGE), PAGE + 1) == LOAM_OK);
    SEE(loam_dirty_take_all(dirty, &word, 1) == LOAM_OK && word == 6);
    SEE(loam_dirty_count(dirty) == 0);
    SEE(loam_dirty_mark(dirty, at(NEXT - 1), 2) == LOAM_OK);
    SEE(loam_dirty_take(dirty, at(LOW), 0, &start, &bytes) == LOAM_OK);
    SEE(start.value == NEXT - PAGE && bytes == 2 * PAGE);
    return NULL;
}

static const char *play_reset(void)
{
    struct loam_dirty *dirty = make_dirty();

    SEE(loam_dirty_mark(dirty, at(LOW), 6 * PAGE) == LOAM_OK);
    SEE(loam_dirty_reset(dirty, at(LOW + PAGE), PAGE + 1) == LOAM_OK && loam_dirty_count(dirty) == 4);
    SEE(loam_dirty_reset(dirty, at(LOW), 6 * PAGE) == LOAM_OK && loam_dirty_count(dirty) == 0);
    return NULL;
}

/* Their Bytes marks what it writes; here the caller does, as far as the call says that it went. */
static const char *play_tracked_write(void)
{
    struct loam_dirty *dirty = make_dirty();
    uint8_t bytes[64] = {0};
    uint64_t done;

    SEE(loam_gpa_io_write_some(guest.view, at(HOLE - 10), bytes, 64, &done) == LOAM_OK);
    SEE(loam_dirty_mark(dirty, at(HOLE - 10), done) == LOAM_OK);
    SEE(loam_dirty_count(dirty) == 1 && loam_dirty_test(dirty, at(HOLE - 1)));
    return NULL;
}

/* --- Tables that change --------------------------------------------------------------------------------------------------- */

static const char *play_memory(void)
{
    const struct loam_gpa_view *second = loam_gpa_map_acquire(guest.map);

    SEE(loam_gpa_view_generation(second) == loam_gpa_view_generation(guest.view));
    SEE(loam_gpa_map_release(guest.map, second) == LOAM_OK);
    SEE(loam_gpa_view_count(guest.view) == 5);
    return NULL;
}

static const char *play_replace(void)
{
    uint64_t before = loam_gpa_map_generation(guest.map);
    uint32_t refused;

    SEE(insert_pair(HOLE, HOLE + 4 * PAGE, &refused) == LOAM_OK);
    SEE(loam_gpa_map_generation(guest.map) == before + 1);
    SEE(loam_gpa_view_count(guest.view) == 5);
    look_again();
    SEE(loam_gpa_view_count(guest.view) == 7);
    return NULL;
}

static atomic_bool enough;
static atomic_uint mixtures;

/* The pair is there, or it is not: one without the other is a mixture of two tables. */
static void *read_on(void *unused)
{
    struct loam_region region;

    while (!enough) {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(guest.map);
        bool first = loam_gpa_view_find(view, at(HOLE), &region) == LOAM_OK;
        bool second = loam_gpa_view_find(view, at(HOLE + 4 * PAGE), &region) == LOAM_OK;

        mixtures += first != second || loam_gpa_view_count(view) != (first ? 7 : 5);
        loam_gpa_map_release(guest.map, view);
    }
    return unused;
}

static const char *play_many_readers(void)
{
    const struct loam_gpa_change away[] = {{LOAM_CHANGE_REMOVE, region_at(HOLE, 2, 4, LOAM_ACCESS_WRITE)},
                                           {LOAM_CHANGE_REMOVE, region_at(HOLE + 4 * PAGE, 1, 6, LOAM_ACCESS_WRITE)}};
    pthread_t readers[READERS];
    uint32_t made = 0, refused;
    enum loam_error error;

    enough = false;
    mixtures = 0;
    for (int i = 0; i < READERS; i++) {
        SEE(pthread_create(&readers[i], NULL, read_on, NULL) == 0);
    }
    while (made < 400) {
        error = made % 2 == 0 ? insert_pair(HOLE, HOLE + 4 * PAGE, &refused)
                              : loam_gpa_map_change(guest.map, away, 2, &refused);
        made += error == LOAM_OK;
        if (error != LOAM_OK && error != LOAM_ERROR_BUSY) {
            break;
        }
    }
    enough = true;
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i], NULL);
    }
    SEE(made == 400 && mixtures == 0);
    return NULL;
}

/* --- The table ------------------------------------------------------------------------------------------------------------ */

static const struct row {
    const char *theirs;
    const char *ours;
    const char *answer;
    const char *(*play)(void); /* NULL: Loam has none */
} rows[] = {
    {"`Address::checked_add`", "`loam_gpa_range_valid`", "true up to 2^52; no sum is made that could wrap",
     play_checked_add},
    {"`Address::checked_offset_from`", "`loam_fits`", "false where the base lies above", play_checked_offset_from},
    {"`Address::mask`, `checked_align_up`", "`loam_align_down`, `loam_align_up`, `loam_is_aligned`",
     "values, for powers of two", play_align},
    {"`Address::overflowing_add`, `unchecked_add`", "`loam_gpa_from_u64` of a sum",
     "what wrapped is `INVALID` to whoever is given it", play_overflowing_add},
    {"`GuestMemory::num_regions`", "`loam_gpa_view_count`", "devices are regions too", play_num_regions},
    {"`GuestMemory::find_region`", "`loam_gpa_view_find`", "`NOT_FOUND` in a hole", play_find_region},
    {"`GuestMemory::iter`", "`loam_gpa_view_region`", "ascending; `NOT_FOUND` after the last", play_iter},
    {"`GuestMemory::last_addr`", "`loam_gpa_view_region` of the last", "start and bytes", play_last_addr},
    {"`GuestMemory::to_region_addr`", "`loam_gpa_view_find`", "the region, whose start is subtracted",
     play_to_region_addr},
    {"`GuestMemory::address_in_range`, `check_address`", "`loam_gpa_view_translate` of a byte",
     "`NOT_FOUND` in a hole and in a device, `NOT_PERMITTED` to write what is read-only", play_check_address},
    {"`GuestMemory::check_range`", "`loam_gpa_io_reach`", "how many bytes are there, across regions", play_check_range},
    {"`GuestMemory::checked_offset`", "`loam_gpa_view_find` of the sum",
     "whether something is there; a hole between is no matter", play_checked_offset},
    {"`GuestMemory::try_access`", "`loam_gpa_view_pieces`", "all pieces, or `NOT_FOUND` and none; no callback",
     play_try_access},
    {"`GuestMemory::get_host_address`", "`loam_gpa_view_translate`", "the HVA", play_get_host_address},
    {"`GuestMemory::get_slice`", "`loam_gpa_view_translate`", "`OVERLAP` beyond the region, `INVALID` for no bytes",
     play_get_slice},
    {"`GuestMemory::get_slices`", "`loam_gpa_io_vectors`", "a vector a piece; no bytes are no vectors",
     play_get_slices},
    {"`GuestMemoryRegion::len`, `start_addr`, `last_addr`", "`struct loam_region`", "`start`, `bytes`",
     play_region_bounds},
    {"`GuestMemoryRegion::as_volatile_slice`, `get_slice`", "`struct loam_region`", "`hva`, NULL of a device",
     play_as_volatile_slice},
    {"`GuestMemoryRegion::file_offset`", "`loam_gpa_view_shares`", "descriptor and offset; -1 where none is named",
     play_file_offset},
    {"`GuestMemoryRegion::is_hugetlbfs`", "`loam_backing_get_info`", "which pages", play_is_hugetlbfs},
    {"`MmapRegion::new`, `from_file`, `build`", "`loam_backing_create`",
     "zeroed memory; `INVALID` for no bytes; the file is sized and sealed by Loam", play_mmap_region_new},
    {"`MmapRegion::build_raw`", "`loam_gpa_map_insert` of the caller's memory", "`INVALID` where the HVA is misaligned",
     play_build_raw},
    {"`MmapRegion::fds_overlap`", "`backing`, `backing_offset` in `struct loam_region`",
     "memory may be mapped twice; `loam_gpa_view_gpa_from_hva` gives the lower GPA", play_fds_overlap},
    {"`GuestRegionCollection::from_regions`, `from_ranges`", "`loam_gpa_map_change`", "all regions, published once",
     play_from_ranges},
    {"`MemoryRegionOverlap`", "`loam_gpa_map_change`", "`OVERLAP`, and which; nothing has changed",
     play_from_ranges_overlap},
    {"`UnsortedMemoryRegions`", "`loam_gpa_map_change`", "no error: the map sorts", play_from_ranges_unsorted},
    {"`NoMemoryRegion`, `InvalidGuestRegion`", "`loam_gpa_map_insert`",
     "an empty map is one; a region without bytes, or beyond 2^52, is `INVALID`", play_from_ranges_empty},
    {"`GuestRegionCollection::insert_region`", "`loam_gpa_map_insert`", "views from before do not see it; `OVERLAP`",
     play_insert_region},
    {"`GuestRegionCollection::remove_region`", "`loam_gpa_map_remove`",
     "any range of what is there, not whole regions only; else `NOT_FOUND`", play_remove_region},
    {"`Bytes::write`", "`loam_gpa_io_write_some`",
     "as many bytes as there are; `NOT_FOUND`, `NOT_PERMITTED` or `INVALID` if none", play_write},
    {"`Bytes::read`", "`loam_gpa_io_read_some`", "the same", play_read},
    {"`Bytes::read`, `write` of no bytes", "`loam_gpa_io_read_some`, `loam_gpa_io_write_some`",
     "OK wherever it points; a range of `loam_gpa_view_read` has bytes", play_zero_length},
    {"`Bytes::write_slice`", "`loam_gpa_view_write`",
     "all, across regions, or an error with nothing written (theirs may have written part)", play_write_slice},
    {"`Bytes::read_slice`", "`loam_gpa_view_read`", "the same", play_read_slice},
    {"`Bytes::write_obj`, `read_obj`", "`loam_gpa_view_write`, `loam_gpa_view_read` of an object",
     "at any address, across regions", play_objects},
    {"`Bytes::store`, `load`", "`loam_gpa_view_store32`, `loam_gpa_view_load32` and their like",
     "by one access; `INVALID` where misaligned", play_store_load},
    {"`Bytes::read_volatile_from`, `read_exact_volatile_from`", "`loam_gpa_io_read_from_fd`",
     "repeated until all is there or the file ends, and how many", play_read_volatile_from},
    {"`Bytes::write_volatile_to`, `write_all_volatile_to`", "`loam_gpa_io_write_to_fd`", "the same",
     play_write_volatile_to},
    {"`VolatileSlice::subslice`, `offset`, `compute_end_offset`", "`loam_gpa_view_translate` of the part; `loam_fits`",
     "no sum that wraps", play_subslice},
    {"`VolatileSlice::split_at`", "`loam_gpa_view_translate` of either part", "an empty part is `INVALID`",
     play_split_at},
    {"`VolatileSlice::copy_to`, `copy_from`", "`loam_gpa_view_read`, `loam_gpa_view_write`",
     "aligned values are never torn", play_copy},
    {"`VolatileSlice::copy_to_volatile_slice`", "`loam_gpa_view_read`, then `loam_gpa_view_write`",
     "by way of a buffer, so the two may overlap", play_copy_to_slice},
    {"`get_ref`, `get_array_ref`, `VolatileRef`, `VolatileArrayRef`",
     "`loam_gpa_view_load64`, `loam_gpa_view_store64` and their like", "element by element", play_array_ref},
    {"`get_atomic_ref`, `aligned_as_ref`, `ptr_guard`", "`loam_gpa_view_translate`",
     "a pointer, aligned as the GPA is up to a page", play_atomic_ref},
    {"`VolatileMemory` misaligned", "`loam_gpa_view_load16` and their like", "`INVALID`, value 0", play_misaligned},
    {"`GuestAddressSpace::memory`, `GuestMemoryLoadGuard::clone`, `into_inner`",
     "`loam_gpa_map_acquire`, `loam_gpa_map_release`", "the table of the moment, for as long as it is held",
     play_memory},
    {"`GuestMemoryAtomic::lock`, `replace`", "`loam_gpa_map_change`", "several changes, one new table; views held stay",
     play_replace},
    {"`GuestMemoryAtomic`, many readers while one changes", "the same",
     "no reader sees a mixture; `BUSY` while every other table is held", play_many_readers},
    {"`AtomicBitmap::new`, `len`, `GuestMemoryRegion::bitmap`", "`loam_dirty_bytes`, `loam_dirty_init`",
     "over any range of GPAs, for pages of any power of two from 64 on", play_bitmap_new},
    {"`Bitmap::mark_dirty`, `dirty_at`, `slice_at`", "`loam_dirty_mark`, `loam_dirty_test`",
     "by GPA, so there are no slices; `NOT_FOUND` beyond its end, where theirs is silent", play_mark_dirty},
    {"`AtomicBitmap::get_and_reset`", "`loam_dirty_take_all`, `loam_dirty_take`",
     "bits as KVM_GET_DIRTY_LOG has them, or run by run", play_get_and_reset},
    {"`AtomicBitmap::reset`, `reset_addr_range`", "`loam_dirty_reset`", "also a part", play_reset},
    {"`Bytes` with a `Bitmap`", "the call, then `loam_dirty_mark`",
     "the caller marks what it wrote; what the guest writes is in KVM's log", play_tracked_write},
    {"`Iommu`, `IommuMemory`, `Iotlb`", "none", "translation of I/O addresses is the device model's", NULL},
    {"`MmapRegion` of Xen: `MmapXenFlags`, grants", "none", "Loam is for KVM", NULL},
};

enum { ROW_COUNT = sizeof rows / sizeof *rows };

Test(vm_memory, every_operation_answers_as_the_table_says)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        struct loam_diag diag = {0};
        const char *wrong;

        if (rows[i].play == NULL) {
            continue;
        }
        make_guest();
        wrong = rows[i].play();
        loam_gpa_map_release(guest.map, guest.view);
        cr_expect_null(wrong, "%s: %s, %s; but not: %s", rows[i].theirs, rows[i].ours, rows[i].answer, wrong);
        cr_expect_eq(loam_gpa_map_validate(guest.map, &diag), LOAM_OK, "%s: %s", rows[i].theirs, diag.text);
    }
}

Test(vm_memory, nothing_lacks_a_counterpart_but_iommu_and_xen)
{
    unsigned without = 0;

    for (size_t i = 0; i < ROW_COUNT; i++) {
        without += rows[i].play == NULL;
        cr_expect(rows[i].play != NULL || strstr(rows[i].theirs, "Iommu") != NULL ||
                      strstr(rows[i].theirs, "Xen") != NULL,
                  "%s", rows[i].theirs);
    }
    cr_expect_eq(without, 2);
}

/* Each row is a line of allocator/README.md, and there is no other line in that table. */
Test(vm_memory, the_readme_has_the_same_rows)
{
    static char text[1 << 17];
    char line[1024];
    FILE *readme = fopen("allocator/README.md", "re");
    const char *table;
    unsigned lines = 0;

    cr_assert_not_null(readme);
    text[fread(text, 1, sizeof text - 1, readme)] = '\0';
    fclose(readme);
    table = strstr(text, "\n| vm-memory | Loam | answer |\n| --- | --- | --- |\n");
    cr_assert_not_null(table);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        snprintf(line, sizeof line, "\n| %s | %s | %s |\n", rows[i].theirs, rows[i].ours, rows[i].answer);
        cr_expect_not_null(strstr(table, line), "%s", line + 1);
    }
    for (table = strstr(table + 1, "\n| ---") + 1; (table = strchr(table, '\n')) != NULL && table[1] == '|'; table++) {
        lines++;
    }
    cr_expect_eq(lines, (unsigned)ROW_COUNT);
}
