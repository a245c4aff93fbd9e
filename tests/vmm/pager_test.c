// SPDX-License-Identifier: Apache-2.0
/* Memory that comes out of an image while it is read: what is seen is what was written, or nothing is. */
#include "vmm/pager.h"

#include "tests/vmm/random.h"
#include "vmm/resident.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEED       UINT64_C(31)
#define PAGE_BYTES UINT64_C(4096)
#define RAM_BYTES  (40 * LOAM_MIB)
#define LOW_BYTES  (16 * LOAM_MIB)

static struct loam_plan plan;
static struct loam_memory *source, *memory;
static struct resident *from, *to;
static struct image image;
static struct pager *pager;
static int order_fd, image_fd;
static atomic_uint failed_count;
static char failed_text[512];

static struct loam_memory *make_memory(enum loam_pages pages, enum loam_sharing sharing)
{
    struct loam_memory_request request = {.bytes = RAM_BYTES,
                                          .low_limit_bytes = LOW_BYTES,
                                          .pages = pages,
                                          .sharing = sharing,
                                          .commit = LOAM_COMMIT_LAZY};
    struct loam_memory *made;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &made, &diag), LOAM_OK, "%s", diag.text);
    return made;
}

/* Page number index of RAM, which is in chunk index / 512. */
static uint64_t gpa_of(uint64_t index)
{
    uint64_t offset = index * PAGE_BYTES;

    return offset < LOW_BYTES ? offset : 4 * LOAM_GIB + offset - LOW_BYTES;
}

static uint64_t word_of(uint64_t index)
{
    return index * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

/* Each page of three chunks of four says which it is; every fourth is zeros. */
static bool is_filled(uint64_t index)
{
    return index / IMAGE_CHUNK_PAGES % 4 != 3;
}

static void set_up(void)
{
    struct loam_diag diag = {0};
    struct image_tally tally;

    source = make_memory(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    cr_assert_eq(resident_open(source, &from, &diag), LOAM_OK);
    for (uint64_t i = 0; i < RAM_BYTES / PAGE_BYTES; i++) {
        uint64_t word = word_of(i);

        if (is_filled(i)) {
            memcpy(resident_hva(from, gpa_of(i), PAGE_BYTES), &word, sizeof word);
        }
    }
    image_fd = memfd_create("image", MFD_CLOEXEC);
    order_fd = memfd_create("order", MFD_CLOEXEC);
    cr_assert_eq(image_init(&image, &plan, image_fd, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(image_write(&image, source, NULL, 2, &tally, &diag), LOAM_OK, "%s", diag.text);
}

static void end_pager(void)
{
    pager_destroy(pager);
    pager = NULL;
    if (memory != NULL) {
        resident_close(to);
        loam_memory_destroy(memory);
        memory = NULL;
    }
}

static void tear_down(void)
{
    end_pager();
    image_release(&image);
    resident_close(from);
    loam_memory_destroy(source);
    close(image_fd);
    close(order_fd);
}

TestSuite(pager, .init = set_up, .fini = tear_down, .timeout = 60);

static void failed(void *self, const struct loam_diag *diag)
{
    (void)self;
    strcpy(failed_text, diag->text);
    atomic_fetch_add(&failed_count, 1);
}

static void start(enum loam_pages pages, enum loam_sharing sharing)
{
    struct pager_config config = {.image = &image, .order_fd = order_fd, .failed = failed};
    struct loam_diag diag = {0};
    enum loam_error error;

    memory = make_memory(pages, sharing);
    cr_assert_eq(resident_open(memory, &to, &diag), LOAM_OK);
    config.memory = memory;
    error = pager_create(&config, &pager, &diag);
    if (error == LOAM_ERROR_NOT_PERMITTED) {
        cr_skip("no userfaultfd for this user");
    }
    cr_assert_eq(error, LOAM_OK, "%s", diag.text);
}

static uint64_t look(uint64_t index)
{
    return *(const volatile uint64_t *)resident_hva(to, gpa_of(index), PAGE_BYTES);
}

static void expect_all(void)
{
    for (uint64_t i = 0; i < RAM_BYTES / PAGE_BYTES; i++) {
        cr_assert_eq(look(i), is_filled(i) ? word_of(i) : 0, "page %" PRIu64, i);
    }
}

static struct pager_figures figures(void)
{
    struct pager_figures figures;

    pager_get_figures(pager, &figures);
    return figures;
}

struct kind {
    enum loam_pages pages;
    enum loam_sharing sharing;
};

ParameterizedTestParameters(pager, all_is_seen)
{
    static struct kind kinds[] = {{LOAM_PAGES_4K, LOAM_SHARING_SHARED},
                                  {LOAM_PAGES_4K, LOAM_SHARING_PRIVATE},
                                  {LOAM_PAGES_THP, LOAM_SHARING_PRIVATE}};

    return cr_make_param_array(struct kind, kinds, sizeof kinds / sizeof kinds[0]);
}

ParameterizedTest(struct kind *kind, pager, all_is_seen, .timeout = 60)
{
    start(kind->pages, kind->sharing);
    expect_all();
    cr_expect(pager_wait(pager));
    cr_expect_eq(figures().chunk_count, 15);
    cr_expect(figures().is_done);
    cr_expect_gt(figures().demand_count, 0);
    expect_all();
}

/* Without anybody who touches it, it comes all the same. */
Test(pager, comes_unasked)
{
    start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    cr_expect(pager_wait(pager));
    cr_expect_eq(figures().demand_count, 0);
    cr_expect_gt(figures().all_nanoseconds, 0);
    expect_all();
}

/* What is touched first is known the next time, and brought before it is. */
Test(pager, learns_what_is_touched_first)
{
    static const uint64_t chunks[] = {9, 2, 14};

    start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    for (size_t i = 0; i < 3; i++) {
        (void)look(chunks[i] * IMAGE_CHUNK_PAGES + 5);
    }
    cr_expect_not(figures().has_order);
    cr_expect(pager_wait(pager));
    cr_expect_geq(figures().order_count, 3);
    end_pager();
    start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    cr_expect(figures().has_order);
    cr_expect(pager_wait(pager));
    cr_expect_eq(figures().order_count, 3);
    cr_expect_gt(figures().order_nanoseconds, 0);
    cr_expect_leq(figures().order_nanoseconds, figures().all_nanoseconds);
    expect_all();
}

/* An order that somebody has made up, or that is of another image, is none. */
Test(pager, an_order_that_is_none_is_passed_over)
{
    uint8_t bytes[512];
    ssize_t count;

    start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    (void)look(0);
    cr_expect(pager_wait(pager));
    end_pager();
    count = pread(order_fd, bytes, sizeof bytes, 0);
    cr_assert_gt(count, 40);
    for (ssize_t i = 0; i < count; i += 3) {
        bytes[i] ^= 0xff;
        cr_assert_eq(pwrite(order_fd, bytes, (size_t)count, 0), count);
        start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
        cr_expect_not(figures().has_order, "byte %zd", i);
        pager_destroy(pager); /* while it learns */
        pager = NULL;
        end_pager();
        bytes[i] ^= 0xff;
    }
}

/* What was given back to the host is zeros then, and nobody waits for it. */
Test(pager, what_is_given_back_is_zeros)
{
    const struct kind kinds[] = {{LOAM_PAGES_4K, LOAM_SHARING_SHARED}, {LOAM_PAGES_4K, LOAM_SHARING_PRIVATE}};

    for (size_t i = 0; i < 2; i++) {
        start(kinds[i].pages, kinds[i].sharing);
        cr_expect_eq(look(0), word_of(0));
        cr_assert_eq(madvise(resident_hva(to, 0, PAGE_BYTES), PAGE_BYTES,
                             kinds[i].sharing == LOAM_SHARING_SHARED ? MADV_REMOVE : MADV_DONTNEED),
                     0);
        cr_expect_eq(look(0), 0, "while others are still to come");
        cr_expect_eq(look(1), word_of(1));
        cr_expect(pager_wait(pager));
        cr_assert_eq(madvise(resident_hva(to, gpa_of(1), PAGE_BYTES), PAGE_BYTES,
                             kinds[i].sharing == LOAM_SHARING_SHARED ? MADV_REMOVE : MADV_DONTNEED),
                     0);
        cr_expect_eq(look(1), 0, "when all are there");
        end_pager();
    }
}

/* --- What cannot be had ------------------------------------------------------------------------------------------------- */

static sigjmp_buf back;

static void jump_back(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

/* Whether touching it ends in a memory fault; it is never seen as anything else than what was written. */
static bool faults(uint64_t index)
{
    struct sigaction action = {.sa_handler = jump_back}, before;
    bool has_faulted = true;

    sigaction(SIGBUS, &action, &before);
    if (sigsetjmp(back, 1) == 0) {
        cr_expect_eq(look(index), word_of(index));
        has_faulted = false;
    }
    sigaction(SIGBUS, &before, NULL);
    return has_faulted;
}

Test(pager, a_file_that_is_cut_is_no_zeros)
{
    start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    cr_expect_eq(look(0), word_of(0));
    cr_assert_eq(ftruncate(image_fd, 8 * LOAM_MIB), 0);
    cr_expect(faults(5 * IMAGE_CHUNK_PAGES));
    cr_expect_not(pager_wait(pager));
    cr_expect_eq(atomic_load(&failed_count), 1, "it is said once");
    cr_expect(strstr(failed_text, "cut") != NULL, "%s", failed_text);
    cr_expect(faults(6 * IMAGE_CHUNK_PAGES), "nor is any other that cannot be had");
}

Test(pager, a_changed_page_is_no_page)
{
    const uint8_t other = 0x55;

    cr_assert_eq(pwrite(image_fd, &other, 1, (off_t)(2 * IMAGE_CHUNK_BYTES + 77)), 1);
    start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    cr_expect(faults(2 * IMAGE_CHUNK_PAGES));
    cr_expect_eq(atomic_load(&failed_count), 1);
    cr_expect(strstr(failed_text, "sum") != NULL, "%s", failed_text);
}

/* Whoever was to be told may be gone: a page that cannot be had is one of no memory, and nothing more is said. */
Test(pager, is_silent_when_muted)
{
    start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    cr_expect_eq(look(0), word_of(0));
    pager_mute(pager);
    cr_assert_eq(ftruncate(image_fd, 8 * LOAM_MIB), 0);
    cr_expect(faults(5 * IMAGE_CHUNK_PAGES));
    cr_expect_not(pager_wait(pager));
    cr_expect_eq(atomic_load(&failed_count), 0);
}

Test(pager, ends_at_any_time)
{
    struct random random = {SEED};

    for (int i = 0; i < 50; i++) {
        start(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
        for (uint32_t looks = random_below(&random, 6); looks > 0; looks--) {
            uint64_t index = random_below(&random, RAM_BYTES / PAGE_BYTES);

            cr_expect_eq(look(index), is_filled(index) ? word_of(index) : 0);
        }
        end_pager();
    }
}
