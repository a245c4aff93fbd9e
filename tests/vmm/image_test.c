// SPDX-License-Identifier: Apache-2.0
/* RAM of each kind of pages goes into a file and comes back; whatever is changed in the file on the way is seen. */
#include "vmm/image.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED       UINT64_C(86)
#define PAGE_BYTES UINT64_C(4096)
#define RAM_BYTES  (10 * LOAM_MIB + 3 * PAGE_BYTES)
#define LOW_BYTES  (4 * LOAM_MIB + 5 * PAGE_BYTES)

static struct loam_plan plan;

static struct loam_memory *make_memory(enum loam_pages pages, enum loam_sharing sharing)
{
    struct loam_memory_request request = {.bytes = RAM_BYTES,
                                          .low_limit_bytes = LOW_BYTES,
                                          .pages = pages,
                                          .sharing = sharing,
                                          .commit = LOAM_COMMIT_LAZY};
    struct loam_memory *memory;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    return memory;
}

static uint64_t page_count(void)
{
    return RAM_BYTES / PAGE_BYTES;
}

/* Page number index of RAM, on either side of the hole. */
static uint8_t *page_at(struct loam_memory *memory, uint64_t index)
{
    uint64_t offset = index * PAGE_BYTES;
    uint64_t gpa = offset < LOW_BYTES ? offset : 4 * LOAM_GIB + offset - LOW_BYTES;
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    struct loam_region region;

    cr_assert_eq(loam_gpa_view_find(view, loam_gpa_from_u64(gpa), &region), LOAM_OK, "GPA 0x%" PRIx64, gpa);
    loam_gpa_map_release(loam_memory_map(memory), view);
    return (uint8_t *)region.hva + (gpa - region.start.value);
}

static void fill(uint8_t *page, struct random *random)
{
    for (uint32_t i = 0; i < PAGE_BYTES; i += 8) {
        uint64_t word = random_u64(random);

        memcpy(page + i, &word, sizeof word);
    }
}

/* Some pages, among them the first and the last of each side; returns how many. */
static uint64_t fill_some(struct loam_memory *memory)
{
    struct random random = {SEED};
    uint64_t count = 0;

    for (uint64_t i = 0; i < page_count(); i++) {
        uint64_t low = LOW_BYTES / PAGE_BYTES;

        if (i == 0 || i == low - 1 || i == low || i == page_count() - 1 || random_one_in(&random, 7)) {
            fill(page_at(memory, i), &random);
            count++;
        }
    }
    return count;
}

static int temporary_file(void)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    cr_assert_geq(fd, 0);
    return fd;
}

/* An image of memory, and what is known of it as the state has it. */
struct saved {
    struct state_writer writer;
    struct state_reader reader;
    struct image image;
    struct image_tally tally;
    int fd;
};

static void save(struct loam_memory *memory, struct saved *saved)
{
    struct loam_diag diag = {0};
    struct image image;

    saved->fd = temporary_file();
    cr_assert_eq(image_init(&image, &plan, saved->fd, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(image_write(&image, memory, NULL, 2, &saved->tally, &diag), LOAM_OK, "%s", diag.text);
    state_writer_init(&saved->writer);
    image_save(&image, &saved->writer);
    image_release(&image);
    cr_assert_eq(state_finish(&saved->writer, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(state_open(&saved->reader, saved->writer.bytes, saved->writer.count, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(image_load(&saved->image, &saved->reader, saved->fd, &diag), LOAM_OK, "%s", diag.text);
}

static void discard(struct saved *saved)
{
    image_release(&saved->image);
    state_close(&saved->reader);
    state_writer_release(&saved->writer);
    close(saved->fd);
}

static void expect_same(struct loam_memory *one, struct loam_memory *other)
{
    for (uint64_t i = 0; i < page_count(); i++) {
        cr_assert_eq(memcmp(page_at(one, i), page_at(other, i), PAGE_BYTES), 0, "page %" PRIu64, i);
    }
}

struct kind {
    enum loam_pages pages;
    enum loam_sharing sharing;
};

ParameterizedTestParameters(image, comes_back)
{
    static struct kind kinds[] = {{LOAM_PAGES_4K, LOAM_SHARING_SHARED},
                                  {LOAM_PAGES_4K, LOAM_SHARING_PRIVATE},
                                  {LOAM_PAGES_THP, LOAM_SHARING_PRIVATE}};

    return cr_make_param_array(struct kind, kinds, sizeof kinds / sizeof kinds[0]);
}

ParameterizedTest(struct kind *kind, image, comes_back, .timeout = 60)
{
    struct loam_memory *memory = make_memory(kind->pages, kind->sharing), *other;
    uint64_t filled = fill_some(memory);
    struct loam_diag diag = {0};
    struct saved saved;
    struct stat status;

    save(memory, &saved);
    cr_expect_eq(saved.tally.written_bytes, filled * PAGE_BYTES, "pages of zeros are not written");
    cr_assert_eq(fstat(saved.fd, &status), 0);
    cr_expect_leq((uint64_t)status.st_blocks * 512, (filled + 64) * PAGE_BYTES, "and take no room");
    other = make_memory(LOAM_PAGES_4K, LOAM_SHARING_ANY);
    cr_assert_eq(image_restore(&saved.image, other, 2, &diag), LOAM_OK, "%s", diag.text);
    expect_same(memory, other);
    discard(&saved);
    loam_memory_destroy(memory);
    loam_memory_destroy(other);
}

/* Looking at what was never touched takes no memory for it. */
Test(image, leaves_untouched_memory_alone, .timeout = 60)
{
    struct loam_memory *memory = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    struct loam_backing_info info;
    struct stat before, after;
    struct saved saved;

    memset(page_at(memory, 1), 1, PAGE_BYTES);
    cr_assert_eq(loam_memory_backing(memory, 0, &info), LOAM_OK);
    cr_assert_eq(fstat(info.fd, &before), 0);
    save(memory, &saved);
    cr_assert_eq(fstat(info.fd, &after), 0);
    cr_expect_eq(before.st_blocks, after.st_blocks);
    cr_expect_eq(saved.tally.written_bytes, PAGE_BYTES);
    discard(&saved);
    loam_memory_destroy(memory);
}

static enum loam_error restore(struct saved *saved, struct loam_diag *diag)
{
    struct loam_memory *other = make_memory(LOAM_PAGES_4K, LOAM_SHARING_ANY);
    enum loam_error error = image_restore(&saved->image, other, 1, diag);

    loam_memory_destroy(other);
    return error;
}

static void flip(int fd, uint64_t offset)
{
    uint8_t byte;

    cr_assert_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 4;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

static void swap_pages(int fd, uint64_t one, uint64_t other, uint64_t bytes)
{
    uint8_t *first = malloc(bytes), *second = malloc(bytes);

    cr_assert_eq(pread(fd, first, bytes, (off_t)one), (ssize_t)bytes);
    cr_assert_eq(pread(fd, second, bytes, (off_t)other), (ssize_t)bytes);
    cr_assert_eq(pwrite(fd, first, bytes, (off_t)other), (ssize_t)bytes);
    cr_assert_eq(pwrite(fd, second, bytes, (off_t)one), (ssize_t)bytes);
    free(first);
    free(second);
}

Test(image, whatever_is_changed_in_the_file_is_seen, .timeout = 60)
{
    struct loam_memory *memory = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    const uint64_t high = 4 * LOAM_GIB;
    struct loam_diag diag = {0};
    struct saved saved;

    fill_some(memory);
    save(memory, &saved);
    cr_assert_eq(restore(&saved, &diag), LOAM_OK, "%s", diag.text);
    flip(saved.fd, 0);
    cr_expect_eq(restore(&saved, &diag), LOAM_ERROR_INVALID, "a bit of the first page");
    cr_expect(strstr(diag.text, "sum") != NULL, "%s", diag.text);
    flip(saved.fd, 0);
    flip(saved.fd, high + RAM_BYTES - LOW_BYTES - 1);
    cr_expect_eq(restore(&saved, &diag), LOAM_ERROR_INVALID, "a bit of the last page");
    flip(saved.fd, high + RAM_BYTES - LOW_BYTES - 1);
    swap_pages(saved.fd, 0, LOW_BYTES - PAGE_BYTES, PAGE_BYTES);
    cr_expect_eq(restore(&saved, &diag), LOAM_ERROR_INVALID, "a swapped pair of pages");
    swap_pages(saved.fd, 0, LOW_BYTES - PAGE_BYTES, PAGE_BYTES);
    swap_pages(saved.fd, 0, high, IMAGE_CHUNK_BYTES);
    cr_expect_eq(restore(&saved, &diag), LOAM_ERROR_INVALID, "a swapped pair of chunks");
    swap_pages(saved.fd, 0, high, IMAGE_CHUNK_BYTES);
    cr_expect_eq(restore(&saved, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(ftruncate(saved.fd, (off_t)(high + PAGE_BYTES)), 0);
    cr_expect_eq(restore(&saved, &diag), LOAM_ERROR_INVALID);
    cr_expect(strstr(diag.text, "cut") != NULL, "%s", diag.text);
    discard(&saved);
    loam_memory_destroy(memory);
}

/* Equal chunks at different GPAs are different all the same. */
Test(image, a_sum_is_of_its_place, .timeout = 60)
{
    struct loam_memory *memory = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    struct saved saved;

    for (uint64_t i = 0; i < 2 * IMAGE_CHUNK_PAGES; i++) {
        memset(page_at(memory, i), 7, PAGE_BYTES);
    }
    save(memory, &saved);
    cr_expect_neq(saved.image.chunks[0].sum, saved.image.chunks[1].sum);
    discard(&saved);
    loam_memory_destroy(memory);
}

Test(image, a_file_that_cannot_be_written_is_told_of, .timeout = 60)
{
    struct loam_memory *memory = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct loam_diag diag = {0};
    struct image_tally tally;
    struct image image;

    cr_assert_eq(image_init(&image, &plan, fd, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(image_write(&image, memory, NULL, 1, &tally, &diag), LOAM_ERROR_SYSTEM);
    image_release(&image);
    close(fd);
    loam_memory_destroy(memory);
}

Test(image, ends_when_it_has_to, .timeout = 60)
{
    struct loam_memory *memory = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    const atomic_bool must_end = true;
    struct loam_diag diag = {0};
    struct image_tally tally;
    struct image image;
    int fd = temporary_file();

    cr_assert_eq(image_init(&image, &plan, fd, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(image_write(&image, memory, &must_end, 1, &tally, &diag), LOAM_ERROR_CANCELLED);
    image_release(&image);
    close(fd);
    loam_memory_destroy(memory);
}

/* --- Differences ------------------------------------------------------------------------------------------------------ */

/* Pages that were written since, some of them to zeros, into an image that has the first for its parent. */
static void save_difference(struct loam_memory *memory, const struct image *parent, struct saved *saved)
{
    static uint8_t buffer[IMAGE_CHUNK_BYTES];
    struct random random = {SEED + 1};
    struct loam_diag diag = {0};
    struct image image;

    saved->fd = temporary_file();
    cr_assert_eq(image_init(&image, &plan, saved->fd, &diag), LOAM_OK);
    image_set_parent(&image, parent->id, "../parent");
    cr_assert_eq(image_make_file(&image, &diag), LOAM_OK);
    for (uint64_t i = 0; i < page_count(); i += 1 + random_below(&random, 300)) {
        const uint64_t offset = i * PAGE_BYTES;
        const struct image_page page = {offset < LOW_BYTES ? offset : 4 * LOAM_GIB + offset - LOW_BYTES,
                                        page_at(memory, i)};

        if (random_one_in(&random, 3)) {
            memset(page_at(memory, i), 0, PAGE_BYTES);
        } else {
            fill(page_at(memory, i), &random);
        }
        cr_assert_eq(image_patch(&image, &page, 1, buffer, &diag), LOAM_OK, "%s", diag.text);
    }
    state_writer_init(&saved->writer);
    image_save(&image, &saved->writer);
    image_release(&image);
    cr_assert_eq(state_finish(&saved->writer, &diag), LOAM_OK);
    cr_assert_eq(state_open(&saved->reader, saved->writer.bytes, saved->writer.count, &diag), LOAM_OK);
    cr_assert_eq(image_load(&saved->image, &saved->reader, saved->fd, &diag), LOAM_OK, "%s", diag.text);
    cr_expect(image_has_parent(&saved->image));
    saved->image.parent = (struct image *)parent;
}

Test(image, a_difference_and_what_it_follows_are_one, .timeout = 60)
{
    struct loam_memory *memory = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED), *other;
    struct saved first, second, third;
    struct loam_diag diag = {0};
    struct stat status;

    fill_some(memory);
    save(memory, &first);
    save_difference(memory, &first.image, &second);
    save_difference(memory, &second.image, &third);
    cr_assert_eq(fstat(second.fd, &status), 0);
    cr_expect_lt(status.st_blocks * 512, 1 << 20, "it has its own pages alone");
    other = make_memory(LOAM_PAGES_4K, LOAM_SHARING_ANY);
    cr_assert_eq(image_restore(&third.image, other, 2, &diag), LOAM_OK, "%s", diag.text);
    expect_same(memory, other);
    loam_memory_destroy(other);
    flip(first.fd, LOW_BYTES - 1);
    cr_expect_eq(restore(&third, &diag), LOAM_ERROR_INVALID, "a bit of the first of three");
    flip(first.fd, LOW_BYTES - 1);
    flip(second.fd, 0);
    cr_expect_eq(restore(&third, &diag), LOAM_ERROR_INVALID, "a bit of the second");
    discard(&third);
    discard(&second);
    discard(&first);
    loam_memory_destroy(memory);
}

/* Every chunk is found by its GPA, and lies where it is found. */
Test(image, places_are_of_ram_alone)
{
    struct loam_memory *memory = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    uint64_t end = 0, bytes = 0;
    struct image image;

    cr_assert_eq(image_init(&image, &plan, -1, NULL), LOAM_OK);
    for (uint64_t i = 0; i < image.chunk_count; i++) {
        struct image_place place = image_place(&image, i);

        cr_expect_geq(place.gpa, end);
        cr_expect_eq(place.gpa % IMAGE_CHUNK_BYTES, 0);
        cr_expect_eq(image_index(&image, place.gpa), i);
        cr_expect_eq(image_index(&image, place.gpa + place.bytes - 1), i);
        end = place.gpa + place.bytes;
        bytes += place.bytes;
    }
    cr_expect_eq(bytes, RAM_BYTES);
    image_release(&image);
    loam_memory_destroy(memory);
}
