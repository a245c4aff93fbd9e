// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memory is shared with a guest that runs. So that it shows when an access is made of several, the code under test
 * runs one instruction at a time (the processor's trap flag), and between any two of them memory is changed, or looked
 * at, as a guest's processor might. What the two-thread test at the end meets once in a long while, this meets each time.
 */
#include "loam/gpa_map.h"

#include "tests/support/sanitizer.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE     UINT64_C(4096)
#define TRAP     UINT64_C(0x100)
#define RAM      UINT64_C(0x10000) /* two regions of a page, which lie elsewhere in host memory; then a page to read */
#define READONLY (RAM + 2 * PAGE)
#define HOLE     (RAM + 3 * PAGE)
#define DEVICE   (RAM + 4 * PAGE)

#define STEP_BYTES_MAX 304

static uint8_t *pages; /* the second region first, then the first, then the one to read */
static void *map_memory;
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;

static void insert(uint64_t start, void *hva, uint32_t backing, enum loam_access access)
{
    struct loam_region region = {.start = {start}, .bytes = PAGE, .hva = hva, .backing = backing, .access = access};

    region.type = access == LOAM_ACCESS_NONE ? LOAM_REGION_DEVICE : LOAM_REGION_RAM;
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
}

static void set_up(void)
{
    size_t bytes = loam_align_up(loam_gpa_map_bytes(NULL), 64);

    map_memory = aligned_alloc(64, bytes);
    pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq((void *)pages, MAP_FAILED);
    cr_assert_eq(loam_gpa_map_init(map_memory, bytes, NULL, &map), LOAM_OK);
    insert(RAM, pages + PAGE, 1, LOAM_ACCESS_WRITE);
    insert(RAM + PAGE, pages, 2, LOAM_ACCESS_WRITE);
    insert(READONLY, pages + 2 * PAGE, 3, LOAM_ACCESS_READ);
    insert(DEVICE, NULL, 0, LOAM_ACCESS_NONE);
    view = loam_gpa_map_acquire(map);
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
    munmap(pages, 3 * PAGE);
    free(map_memory);
}

TestSuite(gpa_view, .init = set_up, .fini = tear_down);

static uint8_t *at(uint64_t gpa)
{
    return pages + (gpa < RAM + PAGE ? gpa - RAM + PAGE : gpa < READONLY ? gpa - RAM - PAGE : gpa - RAM);
}

/* --- One instruction at a time ----------------------------------------------------------------------------------- */

static uint64_t step_gpa,
    step_bytes; /* what the trap's handler changes or looks at: whole words, in one region or two */
static uint64_t step_count;
static bool step_torn;

/* Of the words of step's range, the one at gpa. */
static uint64_t *word_at(uint64_t gpa)
{
    return (uint64_t *)(void *)at(gpa);
}

static void flip(int signal_number)
{
    step_count++;
    for (uint64_t i = 0; i < step_bytes; i += 8) {
        __atomic_store_n(word_at(step_gpa + i), step_count % 2 == 0 ? 0 : UINT64_MAX, __ATOMIC_RELAXED);
    }
    (void)signal_number;
}

static void start_stepping(void (*between)(int))
{
    struct sigaction action = {.sa_handler = between};

    sigemptyset(&action.sa_mask);
    cr_assert_eq(sigaction(SIGTRAP, &action, NULL), 0);
    step_count = 0;
    step_torn = false;
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | TRAP);
}

static void stop_stepping(void)
{
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~TRAP);
}

/* Whether bytes are all alike: what was fetched or stored by one access, since between two all memory changes. */
static bool is_whole(const uint8_t *bytes, uint64_t count)
{
    bool whole = true;

    for (uint64_t i = 1; i < count; i++) {
        whole = whole && bytes[i] == bytes[0];
    }
    return whole;
}

/* Every aligned value inside the range [gpa, gpa + bytes), which was copied to or from buffer. */
static void assert_whole(uint64_t gpa, uint64_t bytes, const uint8_t *buffer, const char *what)
{
    for (uint64_t size = 2; size <= 8; size *= 2) {
        for (uint64_t value = loam_align_up(gpa, size); value + size <= gpa + bytes; value += size) {
            cr_assert(is_whole(buffer + (value - gpa), size),
                      "%s of %" PRIu64 " bytes at GPA %#" PRIx64 " tears the %" PRIu64 " bytes at %#" PRIx64, what,
                      bytes, gpa, size, value);
        }
    }
}

static void read_stepped(uint64_t gpa, uint64_t bytes)
{
    uint8_t buffer[STEP_BYTES_MAX];
    enum loam_error error;

    step_gpa = loam_align_down(gpa, 8);
    step_bytes = loam_align_up(gpa + bytes, 8) - step_gpa;
    start_stepping(flip);
    error = loam_gpa_view_read(view, (loam_gpa){gpa}, buffer, bytes);
    stop_stepping();
    cr_assert_eq(error, LOAM_OK);
    cr_assert_gt(step_count, 10, "the processor does not trap");
    assert_whole(gpa, bytes, buffer, "a read");
}

/* Few, since a trap costs microseconds: each size alone, and with what is around it, on either side of a region's end. */
static const struct range {
    uint64_t gpa;
    uint64_t bytes;
} ranges[] = {
    {RAM + 18, 2},
    {RAM + 20, 4},
    {RAM + 16, 8},
    {RAM + 17, 7},
    {RAM + 22, 2},
    {RAM + 20, 12},
    {RAM + 23, 19},
    {RAM + 16, 16},
    {RAM + PAGE - 2, 4},
    {RAM + PAGE - 8, 16},
    {RAM + PAGE - 5, 14},
    /* Long enough for blocks, from every kind of start. */
    {RAM + 16, 192},
    {RAM + 24, 200},
    {RAM + 21, 222},
    {RAM + PAGE - 131, 300},
};

/* The first region alone, so that it has all memory and lookups try it first. */
static void leave_one_region(void)
{
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){RAM + PAGE}, 2 * PAGE), LOAM_OK);
    loam_gpa_map_release(map, view);
    view = loam_gpa_map_acquire(map);
}

/* Each range, found by a search; and each that lies in the first region, found there at once. */
static void for_each_range(void (*step)(uint64_t gpa, uint64_t bytes))
{
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        step(ranges[i].gpa, ranges[i].bytes);
    }
    leave_one_region();
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (ranges[i].gpa + ranges[i].bytes <= RAM + PAGE) {
            step(ranges[i].gpa, ranges[i].bytes);
        }
    }
}

Test(gpa_view, reads_tear_no_aligned_value)
{
    SKIP_WHERE_A_SANITIZER_CALLS();
    for_each_range(read_stepped);
}

/* Memory is zero, and what is written is not: every aligned value of the range is at any moment one or the other. */
static uint64_t write_gpa, write_bytes;

static void look(int signal_number)
{
    step_count++;
    for (uint64_t size = 2; size <= 8; size *= 2) {
        for (uint64_t value = loam_align_up(write_gpa, size); value + size <= write_gpa + write_bytes; value += size) {
            step_torn = step_torn || !is_whole(at(value), size);
        }
    }
    (void)signal_number;
}

static void write_stepped(uint64_t gpa, uint64_t bytes)
{
    uint8_t buffer[STEP_BYTES_MAX];
    enum loam_error error;

    memset(buffer, 0xff, sizeof buffer);
    memset(pages, 0, 2 * PAGE);
    write_gpa = gpa;
    write_bytes = bytes;
    start_stepping(look);
    error = loam_gpa_view_write(view, (loam_gpa){gpa}, buffer, bytes);
    stop_stepping();
    cr_assert_eq(error, LOAM_OK);
    cr_assert_gt(step_count, 10, "the processor does not trap");
    cr_assert_not(step_torn, "a write of %" PRIu64 " bytes at GPA %#" PRIx64 " tears", bytes, gpa);
    for (uint64_t i = gpa - 16; i < gpa + bytes + 16; i++) {
        cr_assert_eq(*at(i), i >= gpa && i < gpa + bytes ? 0xff : 0, "GPA %#" PRIx64, i);
    }
}

Test(gpa_view, writes_tear_no_aligned_value)
{
    SKIP_WHERE_A_SANITIZER_CALLS();
    for_each_range(write_stepped);
}

/* --- Copies of every length -------------------------------------------------------------------------------------- */

/* From every kind of start to every kind of end, on either side of where words become blocks, with the buffer anywhere. */
Test(gpa_view, copies_are_exact_whatever_their_start_and_length)
{
    uint8_t buffer[2 * PAGE + 64], before[2 * PAGE];

    for (uint64_t i = 0; i < 2 * PAGE; i++) {
        *at(RAM + i) = (uint8_t)(i * 7 + i / 256);
    }
    for (uint64_t bytes = 1; bytes < 2 * PAGE - 64; bytes = bytes < 300 ? bytes + 1 : bytes * 3 / 2) {
        for (uint64_t off = 0; off < 32; off++) {
            loam_gpa gpa = {bytes % 2 == 0 ? RAM + off : RAM + 2 * PAGE - 32 - bytes + off};
            uint8_t *to = buffer + off * 5 % 16 + 1;

            memset(buffer, 0x5a, bytes + 32);
            cr_assert_eq(loam_gpa_view_read(view, gpa, to, bytes), LOAM_OK);
            cr_assert(to[-1] == 0x5a && to[bytes] == 0x5a, "%" PRIu64 " bytes from %" PRIu64, bytes, off);
            for (uint64_t i = 0; i < bytes; i++) {
                cr_assert_eq(to[i], *at(gpa.value + i), "byte %" PRIu64 " of %" PRIu64 " from %" PRIu64, i, bytes, off);
            }
            memcpy(before, pages, sizeof before);
            memset(to, (int)(0x80 + off), bytes);
            cr_assert_eq(loam_gpa_view_write(view, gpa, to, bytes), LOAM_OK);
            for (uint64_t i = 0; i < 2 * PAGE; i++) {
                bool inside = i >= gpa.value - RAM && i - (gpa.value - RAM) < bytes;
                uint8_t *byte = at(RAM + i);

                cr_assert_eq(*byte, inside ? 0x80 + off : before[byte - pages],
                             "byte %" PRIu64 " of %" PRIu64 " to %" PRIu64, i, bytes, off);
            }
            memcpy(pages, before, sizeof before);
        }
    }
}

/* --- Loads and stores -------------------------------------------------------------------------------------------- */

static enum loam_error load(uint64_t gpa, uint32_t bytes, enum loam_order order, uint64_t *value)
{
    uint8_t value8 = 1;
    uint16_t value16 = 1;
    uint32_t value32 = 1;
    enum loam_error error;

    switch (bytes) {
    case 1:
        error = loam_gpa_view_load8(view, (loam_gpa){gpa}, order, &value8);
        *value = value8;
        return error;
    case 2:
        error = loam_gpa_view_load16(view, (loam_gpa){gpa}, order, &value16);
        *value = value16;
        return error;
    case 4:
        error = loam_gpa_view_load32(view, (loam_gpa){gpa}, order, &value32);
        *value = value32;
        return error;
    default:
        *value = 1;
        return loam_gpa_view_load64(view, (loam_gpa){gpa}, order, value);
    }
}

static enum loam_error store(uint64_t gpa, uint32_t bytes, enum loam_order order, uint64_t value)
{
    switch (bytes) {
    case 1:
        return loam_gpa_view_store8(view, (loam_gpa){gpa}, order, (uint8_t)value);
    case 2:
        return loam_gpa_view_store16(view, (loam_gpa){gpa}, order, (uint16_t)value);
    case 4:
        return loam_gpa_view_store32(view, (loam_gpa){gpa}, order, (uint32_t)value);
    default:
        return loam_gpa_view_store64(view, (loam_gpa){gpa}, order, value);
    }
}

static uint64_t mask_of(uint32_t bytes)
{
    return UINT64_MAX >> (64 - 8 * bytes);
}

Test(gpa_view, loads_and_stores_of_every_size_and_order)
{
    static const enum loam_order load_orders[] = {LOAM_ORDER_RELAXED, LOAM_ORDER_ACQUIRE, LOAM_ORDER_SEQ_CST};
    static const enum loam_order store_orders[] = {LOAM_ORDER_RELAXED, LOAM_ORDER_RELEASE, LOAM_ORDER_SEQ_CST};
    const uint64_t pattern = UINT64_C(0x8877665544332211);
    uint64_t found;

    for (uint32_t bytes = 1; bytes <= 8; bytes *= 2) {
        for (int i = 0; i < 3; i++) {
            uint64_t gpa = RAM + PAGE - bytes;

            memset(pages, 0xa5, 3 * PAGE);
            cr_assert_eq(store(gpa, bytes, store_orders[i], pattern), LOAM_OK);
            cr_expect_eq(memcmp(at(gpa), &pattern, bytes), 0, "little-endian, as the guest is");
            cr_expect_eq(*at(gpa - 1), 0xa5);
            cr_expect_eq(*at(gpa + bytes), 0xa5);
            cr_assert_eq(load(gpa, bytes, load_orders[i], &found), LOAM_OK);
            cr_expect_eq(found, pattern & mask_of(bytes));
            cr_assert_eq(load(READONLY, bytes, load_orders[i], &found), LOAM_OK);
            cr_expect_eq(found, UINT64_C(0xa5a5a5a5a5a5a5a5) & mask_of(bytes));
        }
    }
}

static void assert_refused(uint64_t gpa, uint32_t bytes, enum loam_error loading, enum loam_error storing)
{
    uint64_t found;

    cr_expect_eq(load(gpa, bytes, LOAM_ORDER_ACQUIRE, &found), loading, "load%u at %#" PRIx64, 8 * bytes, gpa);
    cr_expect(loading == LOAM_OK || found == 0, "an output is 0 on failure");
    cr_expect_eq(store(gpa, bytes, LOAM_ORDER_RELEASE, 0), storing, "store%u at %#" PRIx64, 8 * bytes, gpa);
}

Test(gpa_view, loads_and_stores_refuse_what_translate_refuses)
{
    memset(pages, 0xa5, 3 * PAGE);
    for (uint32_t bytes = 1; bytes <= 8; bytes *= 2) {
        uint64_t found;

        for (uint64_t off = 1; off < bytes; off++) {
            assert_refused(RAM + off, bytes, LOAM_ERROR_INVALID, LOAM_ERROR_INVALID);
            assert_refused(RAM + PAGE - off, bytes, LOAM_ERROR_INVALID, LOAM_ERROR_INVALID); /* across two regions */
            assert_refused(HOLE + off, bytes, LOAM_ERROR_INVALID, LOAM_ERROR_INVALID);
        }
        assert_refused(HOLE, bytes, LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_FOUND);
        assert_refused(DEVICE, bytes, LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_FOUND);
        assert_refused(RAM - bytes, bytes, LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_FOUND);
        assert_refused(LOAM_GPA_END, bytes, LOAM_ERROR_INVALID, LOAM_ERROR_INVALID);
        assert_refused(UINT64_MAX - bytes + 1, bytes, LOAM_ERROR_INVALID, LOAM_ERROR_INVALID);
        assert_refused(READONLY, bytes, LOAM_OK, LOAM_ERROR_NOT_PERMITTED);
        for (int order = -1; order <= LOAM_ORDER_COUNT; order++) {
            bool known = order >= 0 && order < LOAM_ORDER_COUNT;

            cr_expect_eq(load(RAM, bytes, (enum loam_order)order, &found),
                         known && order != LOAM_ORDER_RELEASE ? LOAM_OK : LOAM_ERROR_INVALID, "order %d", order);
            cr_expect_eq(store(HOLE - PAGE, bytes, (enum loam_order)order, 0),
                         known && order != LOAM_ORDER_ACQUIRE ? LOAM_ERROR_NOT_PERMITTED : LOAM_ERROR_INVALID,
                         "order %d", order);
        }
    }
    for (uint64_t i = 0; i < 3 * PAGE; i++) {
        cr_assert_eq(pages[i], 0xa5, "a refused store has written");
    }
}

Test(gpa_view, loads_and_stores_tear_nothing)
{
    for (uint32_t bytes = 1; bytes <= 8; bytes *= 2) {
        uint64_t found, gpa = RAM + 8 + (8 - bytes);
        enum loam_error error;

        step_gpa = RAM + 8;
        step_bytes = 8;
        start_stepping(flip);
        error = load(gpa, bytes, LOAM_ORDER_RELAXED, &found);
        stop_stepping();
        cr_assert_eq(error, LOAM_OK);
        cr_expect(found == 0 || found == mask_of(bytes), "load%u gives %#" PRIx64, 8 * bytes, found);
        memset(at(step_gpa), 0, 8);
        write_gpa = gpa;
        write_bytes = bytes;
        start_stepping(look);
        error = store(gpa, bytes, LOAM_ORDER_RELAXED, UINT64_MAX);
        stop_stepping();
        cr_assert_eq(error, LOAM_OK);
        cr_expect_not(step_torn, "store%u tears", 8 * bytes);
    }
}

/*
 * A store and a load of the strongest order are a store and a load that do not pass each other: of two threads that do
 * both crosswise, one sees the other. On two processors; on one there is nothing to pass.
 */
enum { CROSS_ROUNDS = 100000 };

static atomic_uint cross_turn[2];
static uint32_t cross_seen[2];

static void wait_for(atomic_uint *turn, uint32_t round)
{
    for (uint32_t i = 0; atomic_load_explicit(turn, memory_order_acquire) < round; i++) {
        if (i % 1024 == 1023) {
            sched_yield();
        }
    }
}

static void *cross(void *which)
{
    const uint32_t me = which != NULL, other = 1 - me;

    for (uint32_t round = 1; round <= CROSS_ROUNDS; round++) {
        loam_gpa mine = {RAM + 64 * me}, others = {RAM + 64 * other};

        atomic_store_explicit(&cross_turn[me], 2 * round - 1, memory_order_release);
        wait_for(&cross_turn[other], 2 * round - 1);
        if (loam_gpa_view_store32(view, mine, LOAM_ORDER_SEQ_CST, round) != LOAM_OK ||
            loam_gpa_view_load32(view, others, LOAM_ORDER_SEQ_CST, &cross_seen[me]) != LOAM_OK) {
            abort();
        }
        atomic_store_explicit(&cross_turn[me], 2 * round, memory_order_release);
        wait_for(&cross_turn[other], 2 * round);
        if (cross_seen[0] != round && cross_seen[1] != round) {
            return (void *)(uintptr_t)round;
        }
    }
    return NULL;
}

Test(gpa_view, the_strongest_stores_and_loads_do_not_pass_each_other, .timeout = 300)
{
    pthread_t thread;
    void *mine, *others;

    cr_assert_eq(pthread_create(&thread, NULL, cross, cross_seen), 0);
    mine = cross(NULL);
    cr_assert_eq(pthread_join(thread, &others), 0);
    cr_assert_null(mine, "in round %" PRIuPTR " neither saw the other", (uintptr_t)mine);
    cr_assert_null(others);
}

/* --- Two threads ------------------------------------------------------------------------------------------------- */

static atomic_bool two_stop;

static void *store_index(void *unused)
{
    while (!atomic_load_explicit(&two_stop, memory_order_relaxed)) {
        if (loam_gpa_view_write(view, (loam_gpa){RAM + 2}, &(uint16_t){0x00ff}, 2) != LOAM_OK ||
            loam_gpa_view_store16(view, (loam_gpa){RAM + 2}, LOAM_ORDER_RELEASE, 0x0100) != LOAM_OK) {
            abort();
        }
    }
    return unused;
}

/* As a driver's index in a virtqueue: read alone, in the middle of what is around it, and loaded. */
Test(gpa_view, two_threads_see_whole_values, .timeout = 300)
{
    pthread_t thread;
    uint16_t header[4], alone, loaded;

    cr_assert_eq(store(RAM + 2, 2, LOAM_ORDER_RELAXED, 0x00ff), LOAM_OK);
    cr_assert_eq(pthread_create(&thread, NULL, store_index, NULL), 0);
    for (uint32_t i = 0; i < 1000000; i++) {
        cr_assert_eq(loam_gpa_view_read(view, (loam_gpa){RAM + 2}, &alone, 2), LOAM_OK);
        cr_assert_eq(loam_gpa_view_read(view, (loam_gpa){RAM + 1}, (char *)header + 1, 7), LOAM_OK);
        cr_assert_eq(loam_gpa_view_load16(view, (loam_gpa){RAM + 2}, LOAM_ORDER_ACQUIRE, &loaded), LOAM_OK);
        cr_assert(alone == 0x00ff || alone == 0x0100, "%#x", alone);
        cr_assert(header[1] == 0x00ff || header[1] == 0x0100, "%#x", header[1]);
        cr_assert(loaded == 0x00ff || loaded == 0x0100, "%#x", loaded);
    }
    atomic_store(&two_stop, true);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* --- Careless callers -------------------------------------------------------------------------------------------- */

Test(gpa_view, null_is_refused_and_outputs_are_defined)
{
    const loam_gpa ram = {RAM};
    struct loam_region region = {.bytes = 1};
    struct loam_piece piece = {.bytes = 1};
    uint32_t count = 1, value32 = 1;
    uint16_t value16 = 1;
    uint64_t value64 = 1;
    uint8_t value8 = 1;
    void *hva = &hva;
    loam_gpa gpa = {1};

    memset(pages, 0xa5, 3 * PAGE);
    cr_expect_eq(loam_gpa_view_generation(NULL), 0);
    cr_expect_eq(loam_gpa_view_count(NULL), 0);
    cr_expect_eq(loam_gpa_view_region(NULL, 0, &region), LOAM_ERROR_INVALID);
    cr_expect_eq(region.bytes, 0);
    region.bytes = 1;
    cr_expect_eq(loam_gpa_view_find(NULL, ram, &region), LOAM_ERROR_INVALID);
    cr_expect_eq(region.bytes, 0);
    cr_expect_eq(loam_gpa_view_region(view, 0, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_find(view, ram, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_translate(NULL, ram, 1, LOAM_ACCESS_READ, &hva), LOAM_ERROR_INVALID);
    cr_expect_null(hva);
    cr_expect_eq(loam_gpa_view_translate(view, ram, 1, LOAM_ACCESS_READ, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_pieces(NULL, ram, 1, LOAM_ACCESS_READ, &piece, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(count, 0);
    cr_expect_eq(loam_gpa_view_pieces(view, ram, 1, LOAM_ACCESS_READ, NULL, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_pieces(view, ram, 1, LOAM_ACCESS_READ, &piece, 1, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_pieces(view, ram, 1, LOAM_ACCESS_COUNT, &piece, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_gpa_from_hva(NULL, pages, 1, &gpa), LOAM_ERROR_INVALID);
    cr_expect_eq(gpa.value, 0);
    cr_expect_eq(loam_gpa_view_gpa_from_hva(view, pages, 1, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_read(NULL, ram, &value8, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_read(view, ram, NULL, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_write(NULL, ram, &value8, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_write(view, ram, NULL, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(value8, 1);
    cr_expect_eq(loam_gpa_view_load8(NULL, ram, LOAM_ORDER_RELAXED, &value8), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_load16(NULL, ram, LOAM_ORDER_RELAXED, &value16), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_load32(NULL, ram, LOAM_ORDER_RELAXED, &value32), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_load64(NULL, ram, LOAM_ORDER_RELAXED, &value64), LOAM_ERROR_INVALID);
    cr_expect_eq(value8 + value16 + value32 + value64, 0);
    cr_expect_eq(loam_gpa_view_load8(view, ram, LOAM_ORDER_RELAXED, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_load16(view, ram, LOAM_ORDER_RELAXED, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_load32(view, ram, LOAM_ORDER_RELAXED, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_load64(view, ram, LOAM_ORDER_RELAXED, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_store8(NULL, ram, LOAM_ORDER_RELAXED, 0), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_store16(NULL, ram, LOAM_ORDER_RELAXED, 0), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_store32(NULL, ram, LOAM_ORDER_RELAXED, 0), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_store64(NULL, ram, LOAM_ORDER_RELAXED, 0), LOAM_ERROR_INVALID);
    count = 1;
    cr_expect_eq(loam_gpa_view_slots(NULL, NULL, 0, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(count, 0);
    cr_expect_eq(loam_gpa_view_slots(view, NULL, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_slots(view, NULL, 0, NULL), LOAM_ERROR_INVALID);
    count = 1;
    cr_expect_eq(loam_gpa_view_e820(NULL, NULL, 0, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(count, 0);
    cr_expect_eq(loam_gpa_view_e820(view, NULL, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_e820(view, NULL, 0, NULL), LOAM_ERROR_INVALID);
    for (uint64_t i = 0; i < 3 * PAGE; i++) {
        cr_assert_eq(pages[i], 0xa5);
    }
}

/* --- Ranges that are refused, rows that are found ------------------------------------------------------------------ */

/* All of a range is looked at before its first byte is copied. */
Test(gpa_view, a_range_that_is_refused_is_not_begun)
{
    struct loam_piece pieces[4], untouched[4];
    uint8_t buffer[16], before[16];
    uint32_t count = 1;

    memset(pages, 0xa5, 3 * PAGE);
    memset(buffer, 0x5a, sizeof buffer);
    memset(before, 0x5a, sizeof before);
    memset(pieces, 0x5a, sizeof pieces);
    memset(untouched, 0x5a, sizeof untouched);
    cr_expect_eq(loam_gpa_view_read(view, (loam_gpa){HOLE - 8}, buffer, 16), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_gpa_view_read(view, (loam_gpa){RAM}, buffer, 0), LOAM_ERROR_INVALID);
    cr_expect_eq(memcmp(buffer, before, sizeof buffer), 0);
    cr_expect_eq(loam_gpa_view_write(view, (loam_gpa){READONLY - 8}, buffer, 16), LOAM_ERROR_NOT_PERMITTED);
    cr_expect_eq(loam_gpa_view_write(view, (loam_gpa){HOLE - 8}, buffer, 16), LOAM_ERROR_NOT_PERMITTED);
    cr_expect_eq(loam_gpa_view_write(view, (loam_gpa){RAM}, buffer, 0), LOAM_ERROR_INVALID);
    for (uint64_t i = 0; i < 3 * PAGE; i++) {
        cr_assert_eq(pages[i], 0xa5, "a refused write has written");
    }
    cr_expect_eq(loam_gpa_view_pieces(view, (loam_gpa){RAM}, 4 * PAGE, LOAM_ACCESS_READ, pieces, 4, &count),
                 LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(count, 0);
    cr_expect_eq(memcmp(pieces, untouched, sizeof pieces), 0);
}

/* One far region makes the buckets so wide that all others lie in the first: what is left is a search among them. */
Test(gpa_view, rows_that_crowd_at_one_end_are_found)
{
    struct loam_region region;
    uint32_t rows;

    insert(UINT64_C(1) << 40, pages + 16 * PAGE, 4, LOAM_ACCESS_WRITE);
    for (uint64_t i = 1; i <= 16; i++) {
        insert(DEVICE + 2 * i * PAGE, NULL, 0, LOAM_ACCESS_NONE);
    }
    loam_gpa_map_release(map, view);
    view = loam_gpa_map_acquire(map);
    rows = loam_gpa_view_count(view);
    cr_assert_eq(rows, 21);
    for (uint32_t row = 0; row < rows; row++) {
        struct loam_region found;

        cr_assert_eq(loam_gpa_view_region(view, row, &region), LOAM_OK);
        for (uint64_t at = 0; at < PAGE; at += PAGE - 1) {
            cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){region.start.value + at}, &found), LOAM_OK, "row %u", row);
            cr_assert_eq(found.start.value, region.start.value, "row %u", row);
        }
        cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){region.start.value + PAGE}, &found),
                     row < 2 ? LOAM_OK : LOAM_ERROR_NOT_FOUND);
    }
}

/* --- Tables with just enough room -------------------------------------------------------------------------------- */

/*
 * With room for capacity of count rows: those rows are as with room for all, nothing behind them is touched, and the
 * count is told whatever the room.
 */
#define ASSERT_EXACT_ROOM(type, count_expected, call)                                                                  \
    do {                                                                                                               \
        type all[8], rows[8], untouched;                                                                               \
        uint32_t count = 0, capacity = 8;                                                                              \
                                                                                                                       \
        memset(all, 0x5a, sizeof all);                                                                                 \
        memset(&untouched, 0x5a, sizeof untouched);                                                                    \
        {                                                                                                              \
            type *into = all;                                                                                          \
            cr_assert_eq(call, LOAM_OK);                                                                               \
        }                                                                                                              \
        cr_assert_eq(count, (count_expected));                                                                         \
        for (capacity = 0; capacity <= count + 1; capacity++) {                                                        \
            type *into = capacity > 0 ? rows : NULL;                                                                   \
                                                                                                                       \
            memset(rows, 0x5a, sizeof rows);                                                                           \
            cr_assert_eq(call, capacity < (count_expected) ? LOAM_ERROR_EXHAUSTED : LOAM_OK, "room for %u", capacity); \
            cr_assert_eq(count, (count_expected));                                                                     \
            for (uint32_t i = 0; i < 8; i++) {                                                                         \
                bool written = i < capacity && i < count;                                                              \
                                                                                                                       \
                cr_assert_eq(memcmp(&rows[i], written ? &all[i] : &untouched, sizeof rows[i]), 0, "row %u of room %u", \
                             i, capacity);                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

Test(gpa_view, tables_are_written_to_the_last_row_and_not_beyond)
{
    struct loam_e820_entry entries[8];
    struct loam_slot slots[8];
    uint32_t found;

    insert(HOLE, pages + 16 * PAGE, 4, LOAM_ACCESS_WRITE);
    loam_gpa_map_release(map, view);
    view = loam_gpa_map_acquire(map);
    ASSERT_EXACT_ROOM(struct loam_e820_entry, 3u, loam_gpa_view_e820(view, into, capacity, &count));
    ASSERT_EXACT_ROOM(struct loam_slot, 4u, loam_gpa_view_slots(view, into, capacity, &count));
    ASSERT_EXACT_ROOM(
        struct loam_piece, 4u,
        loam_gpa_view_pieces(view, (loam_gpa){RAM + 8}, 4 * PAGE - 16, LOAM_ACCESS_READ, into, capacity, &count));
    cr_assert_eq(loam_gpa_view_e820(view, entries, 8, &found), LOAM_OK);
    cr_expect(entries[0].start == RAM && entries[0].bytes == 2 * PAGE && entries[0].type == LOAM_E820_RAM);
    cr_expect(entries[1].start == READONLY && entries[1].bytes == PAGE && entries[1].type == LOAM_E820_RESERVED);
    cr_expect(entries[2].start == HOLE && entries[2].bytes == PAGE && entries[2].type == LOAM_E820_RAM);
    cr_assert_eq(loam_gpa_view_slots(view, slots, 8, &found), LOAM_OK);
    for (uint32_t i = 0; i < found; i++) {
        cr_expect_eq(slots[i].start.value, RAM + i * PAGE);
        cr_expect_eq(slots[i].bytes, PAGE);
        cr_expect_eq(slots[i].hva, i == 3 ? pages + 16 * PAGE : at(RAM + i * PAGE));
        cr_expect_eq(slots[i].read_only, i == 2);
    }
}

/* Rows as firmware reads them, at an odd address, held against their bytes. */
Test(gpa_view, e820_rows_have_no_room_between_them)
{
    static const struct loam_e820_entry entries[] = {{UINT64_C(0x1122334455667788), UINT64_C(0x99aabbccddeeff10), 1},
                                                     {3, 4, UINT32_C(0xa1b2c3d4)}};
    static const uint8_t expected[2 * LOAM_E820_ROW_BYTES] = {
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x10, 0xff, 0xee, 0xdd, 0xcc, 0xbb,
        0xaa, 0x99, 1,    0,    0,    0,    3,    0,    0,    0,    0,    0,    0,    0,
        4,    0,    0,    0,    0,    0,    0,    0,    0xd4, 0xc3, 0xb2, 0xa1};
    uint8_t room[1 + sizeof expected + 4], untouched[sizeof room];

    memset(room, 0x5a, sizeof room);
    memset(untouched, 0x5a, sizeof untouched);
    cr_assert_eq(loam_e820_write(entries, 2, room + 1, sizeof expected - 1), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_e820_write(entries, UINT32_MAX, room + 1, sizeof expected), LOAM_ERROR_EXHAUSTED, "no sum wraps");
    cr_assert_eq(loam_e820_write(NULL, 1, room + 1, sizeof expected), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_e820_write(entries, 1, NULL, sizeof expected), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_e820_write(NULL, 0, NULL, 0), LOAM_OK);
    cr_assert_eq(memcmp(room, untouched, sizeof room), 0);
    cr_assert_eq(loam_e820_write(entries, 2, room + 1, sizeof expected), LOAM_OK);
    cr_expect_eq(memcmp(room + 1, expected, sizeof expected), 0);
    cr_expect(room[0] == 0x5a && memcmp(room + 1 + sizeof expected, untouched, 4) == 0);
}
