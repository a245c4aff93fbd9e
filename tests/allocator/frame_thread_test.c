// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator under threads and between processes. No frame is given to two at once: each frame has a cell that
 * whoever got it marks, and a word of content written without atomics, so that ThreadSanitizer sees it if what one frees
 * is not ordered before the same place given to another. The marks themselves order nothing.
 *
 * All loops are bounded by operations. The barrier in all threads is membarrier(2).
 */
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_ulong barriers;

static bool membarrier_private(void)
{
    atomic_fetch_add_explicit(&barriers, 1, memory_order_relaxed);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
        abort();
    }
    return true;
}

static void set_barrier(void)
{
    cr_assert_eq(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0), 0);
    loam_frame_set_barrier(membarrier_private);
}

TestSuite(frame_thread, .init = set_barrier, .fini = free_kept);

static uint64_t random_below(uint64_t *random, uint64_t limit)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % limit;
}

static struct loam_frame_cache *cache_make(struct loam_frame *frame)
{
    struct loam_frame_cache *cache;

    cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_OK);
    return cache;
}

static void start_thread(pthread_t *thread, void *(*run)(void *), void *argument)
{
    cr_assert_eq(pthread_create(thread, NULL, run, argument), 0);
}

/* Threads do not assert, they tell: 0, or the line of the first thing that was wrong. */
static void join_thread(pthread_t thread)
{
    void *line = NULL;

    cr_assert_eq(pthread_join(thread, &line), 0);
    cr_assert_null(line, "a thread found line %" PRIuPTR " to be wrong", (uintptr_t)line);
}

#define EXPECT(wrong, condition)                                                                                       \
    do {                                                                                                               \
        if (!(condition) && *(wrong) == 0) {                                                                           \
            *(wrong) = __LINE__;                                                                                       \
        }                                                                                                              \
    } while (0)

/* --- Who has which frame --------------------------------------------------------------------------------------- */

/* One section that stays, and some that come and go. */
enum { FIXED = 40000, FIXED_LOW = 20000, GUESTS = 4, GUEST = 1500, CELLS = FIXED + GUESTS * GUEST };

static const uint64_t guest_start[GUESTS] = {100000, 101500, ZONE_END + 100100, ZONE_END + 200000};

static atomic_uchar marks[CELLS];
static unsigned contents[CELLS]; /* not atomic: belongs to who has the frame */

/* The cell of a frame, CELLS if there is none. */
static uint64_t cell_of(uint64_t at)
{
    if (at >= ZONE_END - FIXED_LOW && at - (ZONE_END - FIXED_LOW) < FIXED) {
        return at - (ZONE_END - FIXED_LOW);
    }
    for (uint64_t i = 0; i < GUESTS; i++) {
        if (at >= guest_start[i] && at - guest_start[i] < GUEST) {
            return FIXED + i * GUEST + at - guest_start[i];
        }
    }
    return CELLS;
}

/* Say that the frames are had, or are had no more. False: they were so already, or there are no such frames. */
static bool mark(uint64_t start, uint64_t count, bool had, unsigned id)
{
    uint64_t cell = cell_of(start), last = cell_of(start + count - 1);
    bool right = count > 0 && cell < CELLS && last - cell == count - 1;

    for (uint64_t n = cell; right && n <= last; n++) {
        right = atomic_exchange_explicit(&marks[n], had, memory_order_relaxed) != had;
        contents[n] = id;
    }
    return right;
}

/* --- Everything at once ---------------------------------------------------------------------------------------- */

enum { THREADS = 4, TURNS = 15000, HELD = 48, POST = 32, WAVES = 2 };

static struct loam_frame *shared;
static struct loam_frame_cache *caches[THREADS];
static _Atomic uint64_t mail[THREADS][POST]; /* blocks for others to free: start << 12 | count; 0: none */
static atomic_uint running;
static atomic_uint closing; /* a guest that is to go: what is had there is freed; GUESTS: none */
static atomic_uint removed; /* sections that went */

struct worker {
    unsigned id; /* from 1 */
    uint64_t random;
    struct loam_frame_cache *cache;
    uint64_t start[HELD];
    uint64_t count[HELD]; /* 0: nothing held */
    uint64_t served;
    uintptr_t wrong;
};

static bool is_closing(uint64_t start)
{
    uint64_t cell = cell_of(start);

    return cell >= FIXED && (cell - FIXED) / GUEST == atomic_load_explicit(&closing, memory_order_relaxed);
}

static void got(struct worker *this, uint32_t slot, uint64_t start, uint64_t count)
{
    EXPECT(&this->wrong, mark(start, count, true, this->id));
    this->start[slot] = start;
    this->count[slot] = count;
    this->served++;
}

static void work_request(struct worker *this, uint32_t slot)
{
    struct loam_frame_request request = {.count_frames = 1 + random_below(&this->random, 700)};
    struct loam_frame_block block;
    enum loam_error error;

    switch (random_below(&this->random, 4)) {
    case 0:
        request.flags = LOAM_FRAME_AT;
        request.at.value = ZONE_END - FIXED_LOW + random_below(&this->random, FIXED);
        request.count_frames = 1 + random_below(&this->random, 4);
        break;
    case 1:
        request.flags = LOAM_FRAME_AT;
        request.at.value = guest_start[random_below(&this->random, GUESTS)] + random_below(&this->random, GUEST);
        request.count_frames = 1 + random_below(&this->random, 4);
        break;
    case 2:
        request.flags = LOAM_FRAME_IN_SECTION;
        request.section = (uint32_t)random_below(&this->random, GUESTS + 1);
        break;
    default:
        request.limit.value = random_below(&this->random, 2) ? ZONE_END : 0;
        break;
    }
    error = loam_frame_alloc(shared, &request, &block);
    if (error == LOAM_OK) {
        EXPECT(&this->wrong, block.count_frames == request.count_frames);
        got(this, slot, block.start.value, block.count_frames);
    } else {
        EXPECT(&this->wrong, error == LOAM_ERROR_EXHAUSTED || (request.flags != 0 && error == LOAM_ERROR_NOT_FOUND) ||
                                 (request.flags == LOAM_FRAME_AT && error == LOAM_ERROR_BUSY));
    }
}

static void work_alloc(struct worker *this, uint32_t slot)
{
    uint32_t order = (uint32_t)random_below(&this->random, random_below(&this->random, 10) == 0 ? 10 : 4);
    uint64_t limit = random_below(&this->random, 3) == 0 ? ZONE_END : 0;
    loam_pfn start;
    enum loam_error error;

    if (random_below(&this->random, 50) == 0) {
        limit = ZONE_END - random_below(&this->random, FIXED_LOW - 1);
    }
    error = loam_frame_cache_alloc(this->cache, order, pfn(limit), &start);
    if (error == LOAM_OK) {
        EXPECT(&this->wrong, limit == 0 || start.value + (UINT64_C(1) << order) <= limit);
        got(this, slot, start.value, UINT64_C(1) << order);
    } else {
        EXPECT(&this->wrong, error == LOAM_ERROR_EXHAUSTED);
    }
}

static void work_batch(struct worker *this)
{
    size_t count = 1 + random_below(&this->random, 64), done;
    uint32_t order = (uint32_t)random_below(&this->random, 3);
    loam_pfn starts[64];

    if (loam_frame_cache_alloc_batch(this->cache, order, pfn(0), starts, count) != LOAM_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        EXPECT(&this->wrong, mark(starts[i].value, UINT64_C(1) << order, true, this->id));
    }
    for (size_t i = 0; i < count; i++) {
        EXPECT(&this->wrong, mark(starts[i].value, UINT64_C(1) << order, false, 0));
    }
    EXPECT(&this->wrong, loam_frame_cache_free_batch(this->cache, order, starts, count, &done) == LOAM_OK);
    EXPECT(&this->wrong, done == count);
}

static void work_free(struct worker *this, uint64_t start, uint64_t count)
{
    EXPECT(&this->wrong, loam_frame_check(shared, pfn(start), count, NULL) == LOAM_OK);
    EXPECT(&this->wrong, mark(start, count, false, 0));
    EXPECT(&this->wrong, (random_below(&this->random, 8) ? loam_frame_cache_free(this->cache, pfn(start), count)
                                                         : loam_frame_free(shared, pfn(start), count)) == LOAM_OK);
}

/* Leave the block for another to free; what lay there comes back. */
static void work_post(struct worker *this, uint32_t slot)
{
    _Atomic uint64_t *box = &mail[random_below(&this->random, THREADS)][random_below(&this->random, POST)];
    uint64_t letter = this->start[slot] << 12 | this->count[slot];

    letter = atomic_exchange_explicit(box, letter, memory_order_acq_rel);
    this->start[slot] = letter >> 12;
    this->count[slot] = letter & 4095;
}

static void work_mail(struct worker *this)
{
    for (size_t i = 0; i < POST; i++) {
        uint64_t letter = atomic_exchange_explicit(&mail[this->id - 1][i], 0, memory_order_acq_rel);

        if (letter != 0) {
            work_free(this, letter >> 12, letter & 4095);
        }
    }
}

/* Make the block longer or shorter, or two of it, of which one is freed. */
static void work_change(struct worker *this, uint32_t slot)
{
    uint64_t start = this->start[slot], count = this->count[slot], other = 1 + random_below(&this->random, 2 * count);
    enum loam_error error;

    if (other < count && random_below(&this->random, 2)) {
        EXPECT(&this->wrong, loam_frame_split(shared, pfn(start), count, other) == LOAM_OK);
        work_free(this, start + other, count - other);
        this->count[slot] = other;
    } else if (other < count) {
        EXPECT(&this->wrong, mark(start + other, count - other, false, 0));
        EXPECT(&this->wrong, loam_frame_trim(shared, pfn(start), count, other) == LOAM_OK);
        this->count[slot] = other;
    } else if (other > count && other < 2000) {
        error = loam_frame_grow(shared, pfn(start), count, other, NULL);
        EXPECT(&this->wrong, error == LOAM_OK || error == LOAM_ERROR_BUSY || error == LOAM_ERROR_NOT_FOUND);
        if (error == LOAM_OK) {
            EXPECT(&this->wrong, mark(start + count, other - count, true, this->id));
            this->count[slot] = other;
        }
    }
}

static void work_look(struct worker *this)
{
    struct loam_frame_stats stats = loam_frame_get_stats(shared);
    struct loam_frame_range range = {0};
    uint64_t from = 0;
    bool released;
    char text[200];

    EXPECT(&this->wrong, stats.allocated_frames + stats.free_frames == stats.managed_frames);
    EXPECT(&this->wrong, stats.free_frames <= stats.managed_frames);
    while (loam_frame_next_free(shared, pfn(from), &range) == LOAM_OK) {
        EXPECT(&this->wrong, range.count_frames > 0 && range.start.value >= from);
        from = range.start.value + range.count_frames + random_below(&this->random, 3000);
    }
    from = 0;
    while (loam_frame_next_free_chunks(shared, pfn(from), &range, &released) == LOAM_OK) {
        EXPECT(&this->wrong, range.count_frames >= 512 && range.start.value % 512 == 0);
        from = range.start.value + range.count_frames;
    }
    EXPECT(&this->wrong, loam_frame_largest_free(shared, pfn(0), &range) != LOAM_ERROR_CORRUPT);
    EXPECT(&this->wrong, loam_frame_get_fragmentation(shared).free_frames <= CELLS);
    for (size_t slot = 0; slot < HELD; slot++) {
        if (this->count[slot] != 0) {
            struct loam_frame_info info = loam_frame_query(shared, pfn(this->start[slot] + this->count[slot] - 1));

            EXPECT(&this->wrong, info.state == LOAM_FRAME_ALLOCATED);
            EXPECT(&this->wrong, info.block.start.value == this->start[slot]);
            EXPECT(&this->wrong, info.block.count_frames == this->count[slot]);
            EXPECT(&this->wrong, loam_frame_describe(shared, info.block.start, text, sizeof text) > 0);
        }
    }
}

/* What a caller does wrong is refused also while others work. */
static void work_misuse(struct worker *this, uint32_t slot)
{
    uint64_t start = this->start[slot], count = this->count[slot];

    EXPECT(&this->wrong, loam_frame_cache_free(this->cache, pfn(start), count + 1) == LOAM_ERROR_INVALID);
    EXPECT(&this->wrong, count == 1 || loam_frame_free(shared, pfn(start + 1), count - 1) == LOAM_ERROR_INVALID);
    EXPECT(&this->wrong, count == 1 || loam_frame_cache_free(this->cache, pfn(start), 1) == LOAM_ERROR_INVALID);
}

/* Free what is held in the section that is to go. */
static void work_close(struct worker *this)
{
    for (uint32_t slot = 0; slot < HELD; slot++) {
        if (this->count[slot] != 0 && is_closing(this->start[slot])) {
            work_free(this, this->start[slot], this->count[slot]);
            this->count[slot] = 0;
        }
    }
}

static void work_turn(struct worker *this, uint64_t turn)
{
    uint32_t slot = (uint32_t)random_below(&this->random, HELD);
    uint64_t choice = random_below(&this->random, 100);

    if (this->count[slot] == 0 && choice < 80) {
        work_alloc(this, slot);
    } else if (this->count[slot] == 0) {
        work_request(this, slot);
    } else if (choice < 60) {
        work_free(this, this->start[slot], this->count[slot]);
        this->count[slot] = 0;
    } else if (choice < 90) {
        work_post(this, slot);
    } else if (choice < 95) {
        work_change(this, slot);
    } else {
        work_misuse(this, slot);
    }
    if (turn % 16 == 0) {
        work_mail(this);
        work_close(this);
    }
    if (turn % 64 == 0) {
        work_batch(this);
    }
    if (turn % 256 == 0) {
        EXPECT(&this->wrong, loam_frame_cache_drain(caches[random_below(&this->random, THREADS)]) == LOAM_OK);
    }
    if (turn % 1024 == 0) {
        work_look(this);
    }
}

static void *work(void *argument)
{
    struct worker *this = argument;

    for (uint64_t turn = 0; turn < TURNS || (turn < 200 * TURNS && atomic_load(&removed) < 3); turn++) {
        work_turn(this, turn);
    }
    for (uint32_t slot = 0; slot < HELD; slot++) {
        if (this->count[slot] != 0) {
            work_free(this, this->start[slot], this->count[slot]);
        }
    }
    atomic_fetch_sub(&running, 1);
    return (void *)this->wrong;
}

struct guest {
    _Alignas(64) unsigned char metadata[4096];
    bool there;
    uint32_t id;
};

/* Nobody has a frame of a section that went, and its metadata may be overwritten at once. */
static void guest_remove(struct guest *guest, uint64_t i, uintptr_t *wrong)
{
    enum loam_error error = loam_frame_section_remove(shared, guest->id, NULL);

    EXPECT(wrong, error == LOAM_OK || error == LOAM_ERROR_BUSY);
    if (error == LOAM_OK) {
        for (uint64_t n = 0; n < GUEST; n++) {
            EXPECT(wrong, atomic_load_explicit(&marks[FIXED + i * GUEST + n], memory_order_relaxed) == 0);
        }
        memset(guest->metadata, 0xdb, sizeof guest->metadata);
        atomic_fetch_add(&removed, 1);
        guest->there = false;
    }
}

/* Sections come and go. */
static void *come_and_go(void *argument)
{
    struct guest *guests = argument;
    uint64_t random = 77;
    uintptr_t wrong = 0;

    for (uint64_t i = 0; atomic_load(&running) > 0; i = random_below(&random, GUESTS)) {
        struct guest *guest = &guests[i];

        if (!guest->there) {
            guest->there = loam_frame_section_add(shared, pfn(guest_start[i]), GUEST, guest->metadata,
                                                  sizeof guest->metadata, &guest->id) == LOAM_OK;
            EXPECT(&wrong, guest->there);
        } else {
            atomic_store(&closing, (unsigned)i);
            for (int attempt = 0; guest->there && attempt < 200; attempt++) {
                guest_remove(guest, i, &wrong);
                sched_yield();
            }
            atomic_store(&closing, GUESTS);
        }
    }
    return (void *)wrong;
}

static void run_wave(uint64_t seed)
{
    static struct worker workers[THREADS];
    static struct guest guests[GUESTS];
    pthread_t threads[THREADS + 1];

    memset(guests, 0, sizeof guests);
    atomic_store(&running, THREADS);
    atomic_store(&removed, 0);
    atomic_store(&closing, GUESTS);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.id = i + 1, .random = seed + i, .cache = caches[i]};
        start_thread(&threads[i], work, &workers[i]);
    }
    start_thread(&threads[THREADS], come_and_go, guests);
    for (int i = 0; i < 100; i++) {
        assert_valid(shared);
    }
    for (unsigned i = 0; i <= THREADS; i++) {
        join_thread(threads[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        cr_assert_gt(workers[i].served, TURNS / 8);
    }
    cr_assert_geq(atomic_load(&removed), 3);
}

static void free_mail(void)
{
    for (size_t i = 0; i < THREADS * POST; i++) {
        uint64_t letter = atomic_exchange(&mail[i / POST][i % POST], 0);

        if (letter != 0) {
            cr_assert(mark(letter >> 12, letter & 4095, false, 0));
            cr_assert_eq(loam_frame_free(shared, pfn(letter >> 12), letter & 4095), LOAM_OK);
        }
    }
}

Test(frame_thread, no_frame_is_given_twice_whatever_happens_at_once)
{
    shared = make(&(struct loam_frame_config){.cache_capacity = THREADS});
    add(shared, ZONE_END - FIXED_LOW, FIXED);
    for (uint64_t wave = 0; wave < WAVES; wave++) {
        for (unsigned i = 0; i < THREADS; i++) {
            caches[i] = cache_make(shared);
        }
        run_wave(wave * 100 + 1);
        free_mail();
        assert_valid(shared);
        cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
        /* The owners are dead. */
        for (unsigned i = 0; i < THREADS; i++) {
            cr_assert_eq(loam_frame_cache_destroy(caches[i]), LOAM_OK);
        }
        cr_assert_eq(loam_frame_get_stats(shared).cached_frames, 0);
        while (loam_frame_section_count(shared) > 1) {
            struct loam_frame_section section;

            cr_assert_eq(loam_frame_section_at(shared, 0, &section), LOAM_OK);
            if (section.managed_frames == FIXED) {
                cr_assert_eq(loam_frame_section_at(shared, 1, &section), LOAM_OK);
            }
            cr_assert_eq(loam_frame_section_remove(shared, section.id, NULL), LOAM_OK);
        }
        assert_valid(shared);
    }
    for (uint64_t n = 0; n < CELLS; n++) {
        cr_assert_eq(atomic_load(&marks[n]), 0);
    }
    cr_assert_gt(atomic_load(&barriers), 0);
}

/* --- A thread that dies ---------------------------------------------------------------------------------------- */

struct legacy {
    struct loam_frame_cache *cache;
    uint64_t starts[700];
    uintptr_t wrong;
};

static void *live_and_die(void *argument)
{
    struct legacy *legacy = argument;
    loam_pfn start;

    EXPECT(&legacy->wrong, loam_frame_cache_make(shared, &legacy->cache) == LOAM_OK);
    for (size_t n = 0; n < 700; n++) {
        EXPECT(&legacy->wrong, loam_frame_cache_alloc(legacy->cache, 0, pfn(0), &start) == LOAM_OK);
        legacy->starts[n] = start.value;
    }
    return (void *)legacy->wrong;
}

Test(frame_thread, what_a_dead_thread_left_is_had_back)
{
    static struct legacy legacy;

    shared = make_with(ZONE_END - FIXED_LOW, FIXED);
    for (int round = 0; round < 5; round++) {
        pthread_t thread;

        start_thread(&thread, live_and_die, &legacy);
        join_thread(thread);
        cr_assert_gt(loam_frame_get_stats(shared).cached_frames, 0);
        for (size_t n = 0; n < 350; n++) {
            cr_assert_eq(loam_frame_free(shared, pfn(legacy.starts[n]), 1), LOAM_OK);
        }
        if (round % 2) {
            cr_assert_eq(loam_frame_cache_drain(legacy.cache), LOAM_OK);
            cr_assert_eq(loam_frame_get_stats(shared).cached_frames, 0);
        }
        cr_assert_eq(loam_frame_cache_destroy(legacy.cache), LOAM_OK);
        cr_assert_eq(loam_frame_get_stats(shared).cache_count, 0);
        for (size_t n = 350; n < 700; n++) {
            cr_assert_eq(loam_frame_free(shared, pfn(legacy.starts[n]), 1), LOAM_OK);
        }
        cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
        assert_valid(shared);
    }
}

/* A cache changes hands: it belongs to whoever uses it, one thread after another. */
static void *use_cache(void *argument)
{
    struct legacy *legacy = argument;
    loam_pfn start;

    for (size_t n = 0; n < 700; n++) {
        EXPECT(&legacy->wrong, loam_frame_cache_free(legacy->cache, pfn(legacy->starts[n]), 1) == LOAM_OK);
        EXPECT(&legacy->wrong, loam_frame_cache_alloc(legacy->cache, 0, pfn(0), &start) == LOAM_OK);
        legacy->starts[n] = start.value;
    }
    return (void *)legacy->wrong;
}

Test(frame_thread, a_cache_may_be_handed_on)
{
    static struct legacy legacy;
    pthread_t thread;

    shared = make_with(ZONE_END - FIXED_LOW, FIXED);
    start_thread(&thread, live_and_die, &legacy);
    join_thread(thread);
    for (int round = 0; round < 3; round++) {
        start_thread(&thread, use_cache, &legacy);
        join_thread(thread);
    }
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 700);
    assert_valid(shared);
}

/* --- The last frames ------------------------------------------------------------------------------------------- */

/*
 * Blocks of one order only, so that nothing is lost between them. `wanted` counts the blocks that are had or asked for:
 * it rises before an allocation and falls after a free. While a thread that raised it to at most `capacity` allocates,
 * the others have or take capacity - 1 blocks at most, so there is a free block at every moment of the call: it must be
 * served.
 */
struct contest {
    uint32_t order;
    uint64_t limit;
    uint64_t capacity;
    uint64_t hold; /* blocks that one thread wants at most */
    atomic_ulong wanted;
    atomic_ulong full; /* how often all was had */
    pthread_barrier_t start;
};

struct contender {
    struct contest *contest;
    uint64_t random;
    unsigned id;
    uint64_t starts[HELD * 32];
    uintptr_t wrong;
};

enum { CONTEST_TURNS = 20000 };

static void contend_free(struct contender *this, struct loam_frame_cache *cache, uint64_t *had)
{
    uint64_t frames = UINT64_C(1) << this->contest->order, n = random_below(&this->random, *had);

    EXPECT(&this->wrong, mark(this->starts[n], frames, false, 0));
    EXPECT(&this->wrong, loam_frame_cache_free(cache, pfn(this->starts[n]), frames) == LOAM_OK);
    this->starts[n] = this->starts[--*had];
    atomic_fetch_sub(&this->contest->wanted, 1);
}

/* A thread with an odd id asks past its cache now and then. */
static enum loam_error contend_alloc(struct contender *this, struct loam_frame_cache *cache, loam_pfn *start)
{
    struct contest *contest = this->contest;

    if (this->id % 2 && random_below(&this->random, 4) == 0) {
        return loam_frame_alloc_order_below(shared, contest->order, pfn(contest->limit), start);
    }
    return loam_frame_cache_alloc(cache, contest->order, pfn(contest->limit), start);
}

/* Until all was had at once, but not for ever. */
static bool contest_goes_on(const struct contest *contest, uint64_t turn)
{
    return turn < CONTEST_TURNS || (turn < 50 * CONTEST_TURNS && atomic_load(&contest->full) == 0);
}

static void *contend(void *argument)
{
    struct contender *this = argument;
    struct contest *contest = this->contest;
    struct loam_frame_cache *cache = NULL;
    uint64_t had = 0;

    EXPECT(&this->wrong, loam_frame_cache_make(shared, &cache) == LOAM_OK);
    pthread_barrier_wait(&contest->start);
    for (uint64_t turn = 0; this->wrong == 0 && contest_goes_on(contest, turn); turn++) {
        loam_pfn start;

        if (turn % 32 == 0) {
            sched_yield();
        }
        if (had > 0 && (had == contest->hold || random_below(&this->random, 8) == 0)) {
            contend_free(this, cache, &had);
        } else if (atomic_fetch_add(&contest->wanted, 1) >= contest->capacity) {
            atomic_fetch_sub(&contest->wanted, 1);
            atomic_fetch_add(&contest->full, 1);
        } else if (contend_alloc(this, cache, &start) == LOAM_OK) {
            EXPECT(&this->wrong, mark(start.value, UINT64_C(1) << contest->order, true, this->id));
            this->starts[had++] = start.value;
        } else {
            /* A block was free all the time. */
            EXPECT(&this->wrong, false);
        }
    }
    while (this->wrong == 0 && had > 0) {
        contend_free(this, cache, &had);
    }
    EXPECT(&this->wrong, loam_frame_cache_destroy(cache) == LOAM_OK);
    return (void *)this->wrong;
}

static void hold_contest(unsigned threads, uint32_t order, uint64_t limit, uint64_t start, uint64_t capacity)
{
    static struct contender contenders[THREADS];
    static struct contest contest;
    pthread_t ids[THREADS];

    contest = (struct contest){.order = order, .limit = limit, .capacity = capacity};
    contest.hold = capacity / threads + 2;
    cr_assert_leq(contest.hold, HELD * 32);
    shared = make_with(start, capacity << order);
    cr_assert_eq(pthread_barrier_init(&contest.start, NULL, threads), 0);
    for (unsigned i = 0; i < threads; i++) {
        contenders[i] = (struct contender){.contest = &contest, .random = i + 1 + order, .id = i + 1};
        start_thread(&ids[i], contend, &contenders[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        join_thread(ids[i]);
    }
    cr_assert_eq(pthread_barrier_destroy(&contest.start), 0);
    cr_assert_gt(atomic_load(&contest.full), 0);
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
    cr_assert_eq(loam_frame_get_stats(shared).cached_frames, 0);
    assert_valid(shared);
}

Test(frame_thread, nobody_is_refused_the_last_frames_of_a_chunk)
{
    for (unsigned threads = 2; threads <= THREADS; threads++) {
        hold_contest(threads, 0, 0, ZONE_END, threads);
        hold_contest(threads, 0, ZONE_END, ZONE_END - 40, 40);
        hold_contest(threads, 3, 0, ZONE_END, 9);
    }
}

Test(frame_thread, nobody_is_refused_the_last_frames_of_many_chunks)
{
    hold_contest(4, 0, 0, ZONE_END + 8, 1600);
    hold_contest(3, 2, 0, ZONE_END + 8, 700);
}

Test(frame_thread, nobody_is_refused_the_last_chunks)
{
    hold_contest(4, 9, 0, ZONE_END, 7);
    hold_contest(2, 8, ZONE_END, ZONE_END - 4096, 16);
    hold_contest(3, 9, ZONE_END, ZONE_END - 1024, 2);
}

/* With limits that no cache serves, so that every request takes the lock and stops whoever holds frames there. */
Test(frame_thread, nobody_is_refused_the_last_frames_below_a_limit)
{
    hold_contest(3, 0, ZONE_END - 1, ZONE_END - 41, 40);
}

/*
 * Two chunks. One thread has one of them at most, and moves it: it frees into one cache, then takes from another. Another
 * thread has the other at most. Both are always served, however the caches are looked through: many lie between the two.
 */
enum { MOVER_CACHES = 256, MOVER_ATTEMPTS = 1000 };

struct mover {
    struct loam_frame_cache *caches[2];
    atomic_ulong moves;
    atomic_bool enough;
    uintptr_t wrong;
};

static void *move(void *argument)
{
    struct mover *mover = argument;

    for (uint32_t turn = 0; !atomic_load(&mover->enough); turn++) {
        struct loam_frame_cache *cache = mover->caches[turn % 2];
        loam_pfn start;

        EXPECT(&mover->wrong, loam_frame_cache_alloc(cache, 9, pfn(0), &start) == LOAM_OK);
        EXPECT(&mover->wrong, mark(start.value, 512, true, 1));
        EXPECT(&mover->wrong, mark(start.value, 512, false, 0));
        EXPECT(&mover->wrong, loam_frame_cache_free(cache, start, 512) == LOAM_OK);
        atomic_fetch_add(&mover->moves, 1);
    }
    return (void *)mover->wrong;
}

Test(frame_thread, a_chunk_that_moves_between_caches_is_found)
{
    static struct mover mover;
    pthread_t thread;

    shared = make(&(struct loam_frame_config){.cache_capacity = MOVER_CACHES});
    add(shared, ZONE_END, 1024);
    for (int n = 0; n < MOVER_CACHES; n++) {
        mover.caches[n > 0] = cache_make(shared);
    }
    start_thread(&thread, move, &mover);
    for (int i = 0; i < MOVER_ATTEMPTS; i++) {
        unsigned long moves = atomic_load(&mover.moves);
        loam_pfn start;

        while (atomic_load(&mover.moves) < moves + 5) {
            sched_yield();
        }
        cr_assert_eq(loam_frame_alloc_order(shared, 9, &start), LOAM_OK, "attempt %d", i);
        cr_assert(mark(start.value, 512, true, 2));
        cr_assert(mark(start.value, 512, false, 0));
        cr_assert_eq(loam_frame_free(shared, start, 512), LOAM_OK);
    }
    atomic_store(&mover.enough, true);
    join_thread(thread);
    assert_valid(shared);
}

/* --- Looking on ------------------------------------------------------------------------------------------------ */

/* Chunks go through all their states in a cache, while another looks at them: none is ever in no state at all. */
static void *change_states(void *argument)
{
    struct mover *mover = argument;
    loam_pfn starts[6];

    for (uint32_t turn = 0; !atomic_load(&mover->enough); turn++) {
        uint32_t order = 9 - turn % 3 / 2;

        for (size_t n = 0; n < 6; n++) {
            EXPECT(&mover->wrong, loam_frame_cache_alloc(mover->caches[0], order, pfn(0), &starts[n]) == LOAM_OK);
        }
        for (size_t n = 0; n < 6; n++) {
            EXPECT(&mover->wrong, loam_frame_cache_free(mover->caches[0], starts[n], UINT64_C(1) << order) == LOAM_OK);
        }
        atomic_fetch_add(&mover->moves, 1);
    }
    return (void *)mover->wrong;
}

Test(frame_thread, chunks_are_looked_at_while_they_change)
{
    static struct mover mover;
    struct loam_frame_range range;
    uint64_t random = 3, seen[2] = {0};
    pthread_t thread;

    shared = make_with(ZONE_END + 512, 7 * 512);
    mover.caches[0] = cache_make(shared);
    start_thread(&thread, change_states, &mover);
    for (int i = 0; i < 200000 || (i < 20000000 && atomic_load(&mover.moves) < 20000); i++) {
        uint64_t at = ZONE_END + 512 + random_below(&random, 7 * 512);
        struct loam_frame_info info = loam_frame_query(shared, pfn(at));

        cr_assert_neq(info.state, LOAM_FRAME_UNMANAGED);
        seen[info.state == LOAM_FRAME_FREE]++;
        if (info.state == LOAM_FRAME_ALLOCATED) {
            cr_assert(info.block.count_frames == 256 || info.block.count_frames == 512);
            cr_assert(at - info.block.start.value < info.block.count_frames);
        }
        cr_assert_neq(loam_frame_check(shared, pfn(at), 256, NULL), LOAM_ERROR_CORRUPT);
        cr_assert_neq(loam_frame_next_free(shared, pfn(at), &range), LOAM_ERROR_CORRUPT);
    }
    atomic_store(&mover.enough, true);
    join_thread(thread);
    cr_assert(seen[0] > 0 && seen[1] > 0);
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
    assert_valid(shared);
}

/* --- Misuse by two at once ------------------------------------------------------------------------------------- */

/*
 * Two free the same block at the same moment, its cache's owner and another. At least one is served; whoever is late is
 * refused; and whatever they are told, the block is free once.
 */
struct race {
    struct loam_frame_cache *cache;
    pthread_barrier_t start;
    loam_pfn block;
    uint64_t count;
    uintptr_t wrong;
};

enum { RACES = 10000 };

static void *race_owner(void *argument)
{
    struct race *race = argument;

    for (int i = 0; i < RACES; i++) {
        uint32_t order = (uint32_t)i % 10;
        loam_pfn filler;

        EXPECT(&race->wrong, loam_frame_cache_alloc(race->cache, order, pfn(0), &race->block) == LOAM_OK);
        EXPECT(&race->wrong, loam_frame_cache_alloc(race->cache, 0, pfn(0), &filler) == LOAM_OK);
        race->count = UINT64_C(1) << order;
        pthread_barrier_wait(&race->start);
        (void)!loam_frame_cache_free(race->cache, race->block, race->count);
        pthread_barrier_wait(&race->start);
        EXPECT(&race->wrong, loam_frame_cache_free(race->cache, filler, 1) == LOAM_OK);
        EXPECT(&race->wrong, loam_frame_cache_free(race->cache, race->block, race->count) == LOAM_ERROR_INVALID);
    }
    return (void *)race->wrong;
}

Test(frame_thread, a_block_that_two_free_at_once_is_free_once)
{
    static struct race race;
    pthread_t thread;

    shared = make_with(ZONE_END, 64 * 512);
    race.cache = cache_make(shared);
    cr_assert_eq(pthread_barrier_init(&race.start, NULL, 2), 0);
    start_thread(&thread, race_owner, &race);
    for (int i = 0; i < RACES; i++) {
        enum loam_error error;

        pthread_barrier_wait(&race.start);
        switch (i % 4) {
        case 0:
            error = loam_frame_trim(shared, race.block, race.count, race.count / 2 + 1);
            error = error == LOAM_OK ? loam_frame_free(shared, race.block, race.count / 2 + 1) : error;
            break;
        default:
            error = loam_frame_free(shared, race.block, race.count);
            break;
        }
        cr_assert(error == LOAM_OK || error == LOAM_ERROR_INVALID);
        pthread_barrier_wait(&race.start);
        if (i % 100 == 0) {
            assert_valid(shared);
        }
    }
    join_thread(thread);
    cr_assert_eq(pthread_barrier_destroy(&race.start), 0);
    assert_valid(shared);
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
}

/*
 * Two others free the same block of a third at the same moment, through caches of their own or past them: one of them is
 * served, the other is told.
 */
struct rivals {
    pthread_barrier_t start;
    loam_pfn block;
    uint64_t count;
    atomic_uint served;
    atomic_uint told;
};

static struct rivals rivals;

static void *race_rival(void *argument)
{
    struct loam_frame_cache *cache = argument;
    uintptr_t wrong = 0;

    for (int i = 0; i < RACES; i++) {
        enum loam_error error;

        pthread_barrier_wait(&rivals.start);
        error = cache != NULL ? loam_frame_cache_free(cache, rivals.block, rivals.count)
                              : loam_frame_free(shared, rivals.block, rivals.count);
        atomic_fetch_add(error == LOAM_OK ? &rivals.served : &rivals.told, 1);
        EXPECT(&wrong, error == LOAM_OK || error == LOAM_ERROR_INVALID);
        pthread_barrier_wait(&rivals.start);
    }
    return (void *)wrong;
}

static void hold_race(struct loam_frame_cache *owners, struct loam_frame_cache *first, struct loam_frame_cache *second)
{
    pthread_t threads[2];

    atomic_store(&rivals.served, 0);
    atomic_store(&rivals.told, 0);
    cr_assert_eq(pthread_barrier_init(&rivals.start, NULL, 3), 0);
    start_thread(&threads[0], race_rival, first);
    start_thread(&threads[1], race_rival, second);
    for (uint32_t i = 0; i < RACES; i++) {
        loam_pfn filler[2];

        cr_assert_eq(loam_frame_cache_alloc(owners, i % 10, pfn(0), &rivals.block), LOAM_OK);
        cr_assert_eq(loam_frame_cache_alloc(owners, i % 10, pfn(0), &filler[0]), LOAM_OK);
        rivals.count = UINT64_C(1) << i % 10;
        pthread_barrier_wait(&rivals.start);
        /* The owner works on in the same chunk. */
        cr_assert_eq(loam_frame_cache_alloc(owners, 0, pfn(0), &filler[1]), LOAM_OK);
        cr_assert_eq(loam_frame_cache_free(owners, filler[0], rivals.count), LOAM_OK);
        pthread_barrier_wait(&rivals.start);
        cr_assert_eq(loam_frame_cache_free(owners, filler[1], 1), LOAM_OK);
        cr_assert_eq(atomic_load(&rivals.served), i + 1);
        cr_assert_eq(atomic_load(&rivals.told), i + 1);
    }
    join_thread(threads[0]);
    join_thread(threads[1]);
    cr_assert_eq(pthread_barrier_destroy(&rivals.start), 0);
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
    assert_valid(shared);
}

Test(frame_thread, of_two_others_who_free_a_block_at_once_one_is_told)
{
    struct loam_frame_cache *all[3];

    shared = make_with(ZONE_END, 64 * 512);
    for (int i = 0; i < 3; i++) {
        all[i] = cache_make(shared);
    }
    hold_race(all[0], all[1], all[2]);
    hold_race(all[0], all[1], NULL);
    hold_race(all[0], NULL, NULL);
}

/* --- Retries that are rare ------------------------------------------------------------------------------------- */

/*
 * An owner that allocates and frees without end, and what others do to it meanwhile. The barrier is where a thread stands
 * that has forbidden the owner its cache and has not looked yet whether it is busy: there it waits until the owner has
 * begun another call, which meets the prohibition.
 */
struct owner {
    struct loam_frame_cache *cache;
    atomic_ulong begun;
    atomic_bool enough;
    _Atomic uint64_t last; /* where it had a block */
    bool scarce;
    uintptr_t wrong;
};

static struct owner owner;
static atomic_bool ambush;
static atomic_ulong met, ambushes;

static bool membarrier_and_wait(void)
{
    unsigned long begun = atomic_load(&owner.begun);

    membarrier_private();
    if (!atomic_load(&ambush)) {
        return true;
    }
    atomic_fetch_add(&ambushes, 1);
    /* Bounded: an owner who waits for the lock already begins nothing. */
    for (int i = 0; i < 100 && atomic_load(&owner.begun) == begun; i++) {
        sched_yield();
    }
    atomic_fetch_add(&met, atomic_load(&owner.begun) != begun);
    return true;
}

/* Whether the owner got what it asked for. It always must, but where others take all but a little. */
static bool own_served(enum loam_error error)
{
    EXPECT(&owner.wrong, error == LOAM_OK || (owner.scarce && error == LOAM_ERROR_EXHAUSTED));
    atomic_fetch_add(&owner.begun, 1);
    return error == LOAM_OK;
}

static void own_batch(uint32_t order, uint64_t limit)
{
    loam_pfn starts[8];
    size_t done;

    if (own_served(loam_frame_cache_alloc_batch(owner.cache, order, pfn(limit), starts, 8))) {
        EXPECT(&owner.wrong, loam_frame_cache_free_batch(owner.cache, order, starts, 8, &done) == LOAM_OK);
    }
}

static void own_block(uint32_t order, uint64_t limit)
{
    uint64_t count = UINT64_C(1) << order;
    loam_pfn start;

    if (own_served(loam_frame_cache_alloc(owner.cache, order, pfn(limit), &start))) {
        atomic_store(&owner.last, start.value);
        EXPECT(&owner.wrong, mark(start.value, count, true, 1));
        EXPECT(&owner.wrong, mark(start.value, count, false, 0));
        EXPECT(&owner.wrong, loam_frame_cache_free(owner.cache, start, count) == LOAM_OK);
    }
}

static void *own(void *argument)
{
    uint64_t random = 99;

    (void)argument;
    for (uint64_t turn = 0; !atomic_load(&owner.enough); turn++) {
        uint32_t order = (uint32_t)random_below(&random, 4);
        uint64_t limit = turn % 5 == 0 ? ZONE_END : 0;

        atomic_fetch_add(&owner.begun, 1);
        if (turn % 7 == 0) {
            own_batch(order, limit);
        } else {
            own_block(order, limit);
        }
    }
    return (void *)owner.wrong;
}

/* Let the owner work for a while. */
static void await_owner(unsigned long calls)
{
    unsigned long begun = atomic_load(&owner.begun);

    while (atomic_load(&owner.begun) < begun + calls) {
        sched_yield();
    }
}

static void start_owner(pthread_t *thread, bool scarce)
{
    loam_frame_set_barrier(membarrier_and_wait);
    shared = make_with(ZONE_END - FIXED_LOW, FIXED);
    owner = (struct owner){.cache = cache_make(shared), .scarce = scarce};
    start_thread(thread, own, NULL);
    await_owner(100);
    atomic_store(&ambush, true);
}

static void end_owner(pthread_t thread)
{
    atomic_store(&ambush, false);
    atomic_store(&owner.enough, true);
    join_thread(thread);
    cr_assert_eq(loam_frame_cache_destroy(owner.cache), LOAM_OK);
    assert_valid(shared);
}

enum { MEETINGS = 300, ATTEMPTS = 30000 };

/* Its cache is drained again and again; in between it works without anybody being stopped. */
Test(frame_thread, an_owner_that_is_stopped_in_the_middle_goes_on)
{
    pthread_t thread;

    start_owner(&thread, false);
    for (int i = 0; i < ATTEMPTS && atomic_load(&met) < MEETINGS; i++) {
        unsigned long before = atomic_load(&barriers);

        await_owner(i % 10 == 0 ? 500 : 5);
        cr_assert_eq(atomic_load(&barriers), before);
        cr_assert_eq(loam_frame_cache_drain(owner.cache), LOAM_OK);
    }
    end_owner(thread);
    cr_assert_eq(atomic_load(&met), MEETINGS, "met %lu of %lu", atomic_load(&met), atomic_load(&ambushes));
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
}

Test(frame_thread, an_owner_is_stopped_for_a_frame_that_it_holds)
{
    uint64_t random = 5, taken = 0;
    pthread_t thread;

    start_owner(&thread, false);
    for (uint64_t i = 0; i < ATTEMPTS && atomic_load(&met) < MEETINGS; i++) {
        uint64_t at = loam_align_down(atomic_load(&owner.last), 512) + random_below(&random, 510);
        struct loam_frame_request request = {.count_frames = 1 + i % 3, .flags = LOAM_FRAME_AT, .at = {at}};
        struct loam_frame_block block;
        enum loam_error error;

        await_owner(5);
        error = loam_frame_alloc(shared, &request, &block);
        cr_assert(error == LOAM_OK || error == LOAM_ERROR_BUSY || error == LOAM_ERROR_NOT_FOUND);
        if (error == LOAM_OK) {
            cr_assert(mark(block.start.value, block.count_frames, true, 2));
            cr_assert(mark(block.start.value, block.count_frames, false, 0));
            cr_assert_eq(loam_frame_free(shared, block.start, block.count_frames), LOAM_OK);
            taken++;
        }
    }
    end_owner(thread);
    cr_assert_gt(taken, MEETINGS / 2);
    cr_assert_geq(atomic_load(&met), MEETINGS, "met %lu of %lu", atomic_load(&met), atomic_load(&ambushes));
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
}

/*
 * Blocks in many chunks of the owner. First the owner's own thread takes them; then it works on while this thread frees
 * them, in a chunk after another. The owner is stopped once a chunk for that, and by who validates.
 */
Test(frame_thread, others_free_in_many_chunks_and_stop_the_owner_once_in_each)
{
    enum { CHUNKS = 64 };
    static uint64_t starts[CHUNKS * 512];
    pthread_t thread;
    unsigned long before;
    loam_pfn start;

    loam_frame_set_barrier(membarrier_and_wait);
    shared = make_with(ZONE_END - FIXED_LOW, FIXED);
    owner = (struct owner){.cache = cache_make(shared)};
    for (size_t n = 0; n < CHUNKS * 512; n++) {
        cr_assert_eq(loam_frame_cache_alloc(owner.cache, 0, pfn(0), &start), LOAM_OK);
        starts[n] = start.value;
    }
    before = atomic_load(&barriers);
    start_thread(&thread, own, NULL);
    for (size_t n = 0; n < CHUNKS * 512; n++) {
        cr_assert_eq(loam_frame_free(shared, pfn(starts[n % CHUNKS * 512 + n / CHUNKS]), 1), LOAM_OK);
        if (n % 5000 == 0) {
            assert_valid(shared);
        }
    }
    cr_assert_leq(atomic_load(&barriers), before + 2 * CHUNKS);
    end_owner(thread);
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
}

/* All that is free lies in a cache whose owner works on; whoever asks gets it on the second attempt. */
Test(frame_thread, what_lies_in_the_cache_of_a_running_owner_is_fetched_back)
{
    enum { KEPT = 600 };
    static loam_pfn starts[FIXED];
    pthread_t thread;
    uint64_t fetched = 0;
    size_t done, rest = FIXED - KEPT;

    start_owner(&thread, true);
    cr_assert_eq(loam_frame_alloc_batch(shared, 0, pfn(0), starts, rest), LOAM_OK);
    for (int i = 0; i < ATTEMPTS && fetched < 50; i++) {
        unsigned long before;
        loam_pfn more[64];

        await_owner(20);
        before = atomic_load(&barriers);
        cr_assert_eq(loam_frame_alloc_batch(shared, 0, pfn(0), more, 64), LOAM_OK);
        for (size_t n = 0; n < 64; n++) {
            cr_assert(mark(more[n].value, 1, true, 2));
            cr_assert(mark(more[n].value, 1, false, 0));
        }
        fetched += atomic_load(&barriers) != before;
        cr_assert_eq(loam_frame_free_batch(shared, 0, more, 64, &done), LOAM_OK);
    }
    cr_assert_eq(loam_frame_free_batch(shared, 0, starts, rest, &done), LOAM_OK);
    end_owner(thread);
    cr_assert_eq(fetched, 50);
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
}

/* --- Two processes --------------------------------------------------------------------------------------------- */

enum { PAIR_FRAMES = 20000, PAIR_TURNS = 60000, PAIR_POST = 64, PAIR_ROOM = 1 << 20 };

/* What both processes map, each at its own place: the allocator at the start of memory. */
struct pair {
    _Alignas(4096) char memory[PAIR_ROOM];
    atomic_uchar marks[PAIR_FRAMES];
    _Atomic uint64_t mail[2][PAIR_POST];
    atomic_ulong line[2];        /* what was wrong */
    atomic_ulong left;           /* where in memory the child's cache lies */
    atomic_ulong served[2];      /* blocks */
    atomic_ulong freed_other[2]; /* blocks that the other process had allocated */
};

#define PAIR_START (ZONE_END - 9000)

static bool membarrier_global(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0) {
        abort();
    }
    return true;
}

static bool enter_barrier(void)
{
    loam_frame_set_barrier(membarrier_global);
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

static bool pair_mark(struct pair *pair, uint64_t start, uint64_t count, bool had)
{
    bool right = start >= PAIR_START && loam_fits(start - PAIR_START, count, PAIR_FRAMES);

    for (uint64_t n = 0; right && n < count; n++) {
        right = atomic_exchange(&pair->marks[start - PAIR_START + n], had) != had;
    }
    return right;
}

static void pair_free(struct pair *pair, struct loam_frame_cache *cache, uintptr_t *wrong, uint64_t letter)
{
    EXPECT(wrong, pair_mark(pair, letter >> 12, letter & 4095, false));
    EXPECT(wrong, loam_frame_cache_free(cache, pfn(letter >> 12), letter & 4095) == LOAM_OK);
}

/* Each process allocates, leaves half of its blocks to the other, and frees what the other left to it. */
static uintptr_t pair_work(struct pair *pair, struct loam_frame *frame, struct loam_frame_cache *cache, unsigned me)
{
    uint64_t random = me + 7;
    uintptr_t wrong = 0;

    for (uint64_t turn = 0; wrong == 0 && turn < PAIR_TURNS; turn++) {
        uint32_t order = (uint32_t)random_below(&random, turn % 50 == 0 ? 11 : 5);
        uint64_t limit = turn % 3 == 0 ? ZONE_END : 0, letter;
        uint64_t other = random_below(&random, 2) ? me : 1 - me;
        enum loam_error error;
        loam_pfn start;

        error = loam_frame_cache_alloc(cache, order, pfn(limit), &start);
        EXPECT(&wrong, error == LOAM_OK || error == LOAM_ERROR_EXHAUSTED);
        if (error == LOAM_OK) {
            EXPECT(&wrong, pair_mark(pair, start.value, UINT64_C(1) << order, true));
            letter = start.value << 12 | UINT64_C(1) << order;
            letter = atomic_exchange(&pair->mail[other][random_below(&random, PAIR_POST)], letter);
            atomic_fetch_add(&pair->served[me], 1);
            if (letter != 0) {
                pair_free(pair, cache, &wrong, letter);
            }
        }
        letter = atomic_exchange(&pair->mail[me][random_below(&random, PAIR_POST)], 0);
        if (letter != 0) {
            pair_free(pair, cache, &wrong, letter);
            atomic_fetch_add(&pair->freed_other[me], 1);
        }
        if (turn % 4096 == 5) {
            EXPECT(&wrong, loam_frame_validate(frame, NULL) == LOAM_OK);
        }
    }
    return wrong;
}

/* The child's life; it never returns. It leaves its cache and its blocks behind. */
static void pair_child(struct pair *pair, int fd, size_t bytes)
{
    struct pair *mine = mmap(NULL, sizeof *mine, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct loam_frame_cache *cache = NULL;
    struct loam_frame *frame = NULL;
    uintptr_t wrong = 0;

    if (mine == MAP_FAILED || mine == pair || munmap(pair, sizeof *pair) != 0) {
        _exit(2);
    }
    EXPECT(&wrong, enter_barrier());
    EXPECT(&wrong, loam_frame_attach(mine->memory, bytes, &frame, NULL) == LOAM_OK);
    EXPECT(&wrong, wrong == 0 && loam_frame_cache_make(frame, &cache) == LOAM_OK);
    if (wrong == 0) {
        atomic_store(&mine->left, (unsigned long)((char *)cache - mine->memory));
        wrong = pair_work(mine, frame, cache, 1);
    }
    atomic_store(&mine->line[1], wrong);
    _exit(wrong != 0);
}

static void pair_end(struct pair *pair, struct loam_frame *frame, struct loam_frame_cache *cache)
{
    uintptr_t wrong = 0;

    for (size_t i = 0; i < 2 * PAIR_POST; i++) {
        uint64_t letter = atomic_exchange(&pair->mail[i / PAIR_POST][i % PAIR_POST], 0);

        if (letter != 0) {
            pair_free(pair, cache, &wrong, letter);
        }
    }
    cr_assert_eq(wrong, 0);
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 0);
    assert_valid(frame);
    cr_assert_eq(loam_frame_cache_destroy((struct loam_frame_cache *)(pair->memory + atomic_load(&pair->left))),
                 LOAM_OK);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).cached_frames, 0);
    assert_valid(frame);
}

Test(frame_thread, two_processes_share_an_allocator_at_different_addresses)
{
    int fd = memfd_create("pair", MFD_CLOEXEC), status = 0;
    size_t bytes = (loam_frame_bytes(NULL) + 63) / 64 * 64;
    struct loam_frame_cache *cache;
    struct loam_frame *frame;
    struct pair *pair;
    pid_t child;

    cr_assert_eq(ftruncate(fd, sizeof *pair), 0);
    pair = mmap(NULL, sizeof *pair, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq((void *)pair, MAP_FAILED);
    cr_assert(enter_barrier());
    cr_assert_eq(loam_frame_init(pair->memory, bytes, NULL, &frame), LOAM_OK);
    cr_assert_eq(
        loam_frame_section_add(frame, pfn(PAIR_START), PAIR_FRAMES, pair->memory + bytes, PAIR_ROOM - bytes, NULL),
        LOAM_OK);
    child = fork();
    if (child == 0) {
        pair_child(pair, fd, bytes);
    }
    cr_assert_gt(child, 0);
    cache = cache_make(frame);
    atomic_store(&pair->line[0], pair_work(pair, frame, cache, 0));
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x, line %lu", (unsigned)status,
              atomic_load(&pair->line[1]));
    cr_assert_eq(atomic_load(&pair->line[0]), 0);
    cr_assert(atomic_load(&pair->served[0]) > 1000 && atomic_load(&pair->served[1]) > 1000);
    cr_assert(atomic_load(&pair->freed_other[0]) > 100 && atomic_load(&pair->freed_other[1]) > 100);
    pair_end(pair, frame, cache);
    cr_assert_eq(munmap(pair, sizeof *pair), 0);
    cr_assert_eq(close(fd), 0);
}
