// SPDX-License-Identifier: Apache-2.0
/*
 * Damaged metadata. In a world of several sections, caches, and chunks in every state, bits are flipped, bytes and pages
 * overwritten: validate finds what matters, and neither it nor attach crashes, runs for ever or touches what is outside.
 * The other calls trust metadata, which no guest can reach: of them nothing is asked.
 *
 * Each piece of metadata ends at a page without access and starts behind one. A timer ends what takes too long, and
 * says, like any deadly signal, where the test was.
 *
 * WHAT MATTERS. A bit matters if, in the state the world is in, an operation on the otherwise undamaged metadata may read
 * it before the allocator writes it anew, and may then do more than lose time. So by exact rules over the layout:
 *   - padding and members named zero do not;
 *   - of a section's record: all that describes it, its counter, `used`; free_top where the flip takes it below the
 *     highest free frame or above the section's end (else it only costs time); of one that went: `used`, next_unused;
 *     of ids never given: nothing. Of the index: the entries in use;
 *   - of a cache that was never made, or is no more: that it says so. Of one that is there: its constants, busy,
 *     forbidden, its counters, the lists that a cache has, the kept chunks within its count, where others freed; of
 *     what it takes from: all that means something while nothing is made, and where there is nothing, what would make
 *     it look as if there were; of its memo likewise;
 *   - of a descriptor: state, owner and lock; with an owner the set and where others freed; and
 *         FREE      links, order, list, released; with an owner: released, list
 *         WHOLE     where its block starts and how long it is, order, released, and where the block ends the tag;
 *                   with an owner: list
 *         PARTIAL   count, list, released; on a list its links, and with a free frame fit, unless others freed in it;
 *                   with an owner crossed; where a cache takes from it, order
 *   - of bitmaps: all of those of PARTIAL chunks;
 *   - of the allocator: constants, counters, masks and heads of lists that exist, and the rest but `stopped` (which
 *     undamaged caches make harmless), `sharing` (which costs time at most) and released_ever once it is set.
 * Two things are left out because others wait for them for ever: the lock, and of a cache's busy the lowest bit.
 */
#include "allocator/frame_cache/frame_cache.h"
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

/* --- Where the test is, for whoever must find out why it died -------------------------------------------------- */

static struct {
    uint64_t seed;
    uint64_t round;
    uint64_t step;
} where;

enum { LIMIT_SECONDS = 60 };

static void tell(int signal_number)
{
    char text[160];
    int length = snprintf(text, sizeof text, "signal %d: seed %" PRIu64 ", round %" PRIu64 ", step %" PRIu64 "\n",
                          signal_number, where.seed, where.round, where.step);

    if (write(STDERR_FILENO, text, (size_t)length) == length) {
        signal(signal_number, SIG_DFL);
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static bool no_barrier(void)
{
    return true;
}

/* From now on: of the processor, so that a busy machine is no hang. */
static void limit_time(void)
{
    struct itimerval limit = {.it_value = {.tv_sec = LIMIT_SECONDS}};

    cr_assert_eq(setitimer(ITIMER_PROF, &limit, NULL), 0);
}

static void prepare(void)
{
    int deadly[] = {SIGPROF, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
        signal(deadly[i], tell);
    }
    loam_frame_set_barrier(no_barrier);
    limit_time();
}

/* --- The world ------------------------------------------------------------------------------------------------- */

enum { PIECES = 4, CACHES = 3, LIVE = 4000, PAGE = 4096, SLACK = 0x5a };

/* Metadata that ends at a guard page. */
struct piece {
    char *memory;
    size_t bytes;
    char *pristine; /* a copy of it */
    char *matters;  /* a mask of bits that do, worked out from the copy */
};

struct world {
    struct piece pieces[PIECES]; /* the allocator's, then the sections' */
    struct loam_frame *frame;
    struct loam_frame_cache *caches[CACHES];
    uint64_t seed;
    uint64_t random;
    struct frame_span live[LIVE];
    size_t live_count;
};

static const struct loam_frame_range areas[PIECES - 1] = {
    {{511}, 3400}, {{ZONE_END - 5 * 512 - 100}, 10 * 512 + 300}, {{ZONE_END + 8192}, 40 * 512}};

static const struct loam_frame_config config = {.section_capacity = 6,
                                                .cache_capacity = CACHES + 2,
                                                .dma32_reserve_frames = 200,
                                                .watermarks = {{600, 1200}, {3000, 6000}}};

static uint64_t random_below(struct world *world, uint64_t limit)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return world->random % limit;
}

static void *map_guarded(size_t bytes)
{
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    char *memory = mmap(NULL, pages + 32 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq((void *)memory, MAP_FAILED);
    memory += 16 * PAGE;
    cr_assert_eq(mprotect(memory, pages, PROT_READ | PROT_WRITE), 0);
    memset(memory, SLACK, pages);
    return memory + pages - bytes;
}

/* Nothing was written between the guard page and the piece. */
static void assert_slack(const struct piece *piece)
{
    const char *at = (const char *)((uintptr_t)piece->memory / PAGE * PAGE);

    for (; at < piece->memory; at++) {
        cr_assert_eq(*at, SLACK, "written below its metadata");
    }
}

static void piece_make(struct piece *piece, size_t bytes)
{
    piece->bytes = (bytes + 63) / 64 * 64;
    piece->memory = map_guarded(piece->bytes);
    piece->pristine = keep(malloc(piece->bytes));
    piece->matters = keep(malloc(piece->bytes));
}

static void world_drop(struct world *world)
{
    for (size_t i = 0; i < PIECES; i++) {
        size_t pages = (world->pieces[i].bytes + PAGE - 1) / PAGE * PAGE;

        assert_slack(&world->pieces[i]);
        cr_assert_eq(munmap((char *)((uintptr_t)world->pieces[i].memory / PAGE * PAGE) - 16 * PAGE, pages + 32 * PAGE),
                     0);
    }
}

static void lives(struct world *world, uint64_t start, uint64_t count)
{
    if (world->live_count < LIVE) {
        world->live[world->live_count++] = (struct frame_span){start, count};
    }
}

static struct frame_span any_live(struct world *world)
{
    struct frame_span none = {areas[0].start.value + random_below(world, 3000), 1 + random_below(world, 3)};

    return world->live_count == 0 ? none : world->live[random_below(world, world->live_count)];
}

static struct loam_frame_cache *any_cache(struct world *world)
{
    return world->caches[random_below(world, CACHES)];
}

static uint64_t any_pfn(struct world *world)
{
    const struct loam_frame_range *area = &areas[random_below(world, PIECES - 1)];

    return area->start.value + random_below(world, area->count_frames);
}

/* --- Operations ------------------------------------------------------------------------------------------------ */

/* Each returns what its call said. */

static enum loam_error act_alloc(struct world *world)
{
    struct loam_frame_request request = {.count_frames = 1 + random_below(world, random_below(world, 4) ? 40 : 1500),
                                         .align_frames = random_below(world, 2) ? 512 : 0,
                                         .boundary_frames = random_below(world, 5) ? 0 : 2048,
                                         .limit = {random_below(world, 3) ? 0 : ZONE_END}};
    struct loam_frame_block block;
    enum loam_error error;

    switch (random_below(world, 8)) {
    case 0:
        request = (struct loam_frame_request){.count_frames = 3, .flags = LOAM_FRAME_AT, .at = {any_pfn(world)}};
        break;
    case 1:
        request.flags = LOAM_FRAME_IN_SECTION;
        request.section = (uint32_t)random_below(world, 5);
        break;
    case 2:
        request.flags = random_below(world, 2) ? LOAM_FRAME_BACKED : LOAM_FRAME_RELEASED;
        break;
    default:
        break;
    }
    error = loam_frame_alloc(world->frame, &request, &block);
    if (error == LOAM_OK) {
        lives(world, block.start.value, block.count_frames);
    }
    return error;
}

static enum loam_error act_cache_alloc(struct world *world)
{
    uint32_t order = (uint32_t)random_below(world, random_below(world, 4) ? 4 : 11);
    uint64_t limit = random_below(world, 3) ? 0 : random_below(world, 8) ? ZONE_END : any_pfn(world);
    loam_pfn start;
    enum loam_error error = loam_frame_cache_alloc(any_cache(world), order, pfn(limit), &start);

    if (error == LOAM_OK) {
        lives(world, start.value, UINT64_C(1) << order);
    }
    return error;
}

static enum loam_error act_batch(struct world *world)
{
    uint32_t order = (uint32_t)random_below(world, 3);
    size_t count = 1 + random_below(world, 64), done;
    loam_pfn starts[64];
    enum loam_error error;

    if (random_below(world, 4) == 0) {
        error = loam_frame_alloc_batch(world->frame, order, pfn(0), starts, count);
    } else {
        error = loam_frame_cache_alloc_batch(any_cache(world), order, pfn(0), starts, count);
    }
    if (error == LOAM_OK && random_below(world, 2)) {
        error = random_below(world, 4) ? loam_frame_cache_free_batch(any_cache(world), order, starts, count, &done)
                                       : loam_frame_free_batch(world->frame, order, starts, count, &done);
        return error;
    }
    for (size_t n = 0; error == LOAM_OK && n < count; n++) {
        lives(world, starts[n].value, UINT64_C(1) << order);
    }
    return error;
}

static enum loam_error act_free(struct world *world)
{
    size_t n = world->live_count == 0 ? 0 : random_below(world, world->live_count);
    struct frame_span block = world->live_count == 0 ? any_live(world) : world->live[n];
    enum loam_error error = random_below(world, 4)
                                ? loam_frame_cache_free(any_cache(world), pfn(block.start), block.count)
                                : loam_frame_free(world->frame, pfn(block.start), block.count);

    if (world->live_count > 0) {
        world->live[n] = world->live[--world->live_count];
    }
    return error;
}

static enum loam_error act_change(struct world *world)
{
    size_t n = world->live_count == 0 ? 0 : random_below(world, world->live_count);
    struct frame_span *block = &world->live[n];
    uint64_t other = 1 + random_below(world, block->count + 20);
    enum loam_error error;

    if (world->live_count == 0) {
        return LOAM_OK;
    }
    switch (random_below(world, 5)) {
    case 0:
        error = loam_frame_split(world->frame, pfn(block->start), block->count, other);
        if (error == LOAM_OK) {
            lives(world, block->start + other, block->count - other);
            block->count = other;
        }
        return error;
    case 1:
        error = loam_frame_trim(world->frame, pfn(block->start), block->count, other);
        block->count = error == LOAM_OK ? other : block->count;
        return error;
    case 2:
        error = loam_frame_grow(world->frame, pfn(block->start), block->count, other, NULL);
        block->count = error == LOAM_OK ? other : block->count;
        return error;
    case 3:
        return loam_frame_tag_set(world->frame, pfn(block->start), LOAM_FRAME_TAG_SLAB);
    default:
        return loam_frame_set_backed(world->frame, pfn(block->start), block->count);
    }
}

static enum loam_error act_release(struct world *world)
{
    struct loam_frame_request request = {
        .count_frames = 512 * (1 + random_below(world, 3)), .align_frames = 512, .flags = LOAM_FRAME_BACKED};
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(world->frame, &request, &block);

    return error == LOAM_OK ? loam_frame_free_released(world->frame, block.start, block.count_frames) : error;
}

static enum loam_error act_cache(struct world *world)
{
    uint64_t n = random_below(world, CACHES);
    enum loam_error error;

    if (random_below(world, 2)) {
        return loam_frame_cache_drain(world->caches[n]);
    }
    error = loam_frame_cache_destroy(world->caches[n]);
    return error == LOAM_OK ? loam_frame_cache_make(world->frame, &world->caches[n]) : error;
}

static enum loam_error act_look(struct world *world)
{
    struct frame_span block = any_live(world);
    struct loam_frame_section section;
    struct loam_frame_range range;
    char text[300];
    bool released;

    switch (random_below(world, 10)) {
    case 0:
        (void)loam_frame_query(world->frame, pfn(any_pfn(world)));
        return LOAM_OK;
    case 1:
        (void)loam_frame_get_stats(world->frame);
        return LOAM_OK;
    case 2:
        return loam_frame_next_free(world->frame, pfn(any_pfn(world)), &range);
    case 3:
        return loam_frame_next_free_chunks(world->frame, pfn(any_pfn(world)), &range, &released);
    case 4:
        return loam_frame_largest_free(world->frame, pfn(random_below(world, 2) ? 0 : any_pfn(world)), &range);
    case 5:
        (void)loam_frame_get_fragmentation(world->frame);
        return LOAM_OK;
    case 6:
        (void)loam_frame_describe(world->frame, pfn(any_pfn(world)), text, sizeof text);
        return LOAM_OK;
    case 7:
        return loam_frame_section_at(world->frame, (uint32_t)random_below(world, 5), &section);
    case 8:
        return loam_frame_section_find(world->frame, pfn(any_pfn(world)), &section);
    default:
        return loam_frame_check(world->frame, pfn(block.start), block.count, &(struct loam_diag){0});
    }
}

static enum loam_error act_any(struct world *world)
{
    switch (random_below(world, 16)) {
    case 0:
    case 1:
        return act_alloc(world);
    case 2:
    case 3:
    case 4:
        return act_cache_alloc(world);
    case 5:
        return act_batch(world);
    case 6:
    case 7:
    case 8:
    case 9:
        return act_free(world);
    case 10:
        return act_change(world);
    case 11:
        return random_below(world, 20) ? LOAM_OK : act_release(world);
    case 12:
        return random_below(world, 50) ? LOAM_OK : act_cache(world);
    default:
        return act_look(world);
    }
}

/* --- Making a world ------------------------------------------------------------------------------------------- */

static void add_sections(struct world *world)
{
    char *passing = map_guarded(1 << 12);
    uint32_t section;

    for (uint32_t i = 1; i < PIECES; i++) {
        piece_make(&world->pieces[i],
                   loam_frame_section_bytes(world->frame, areas[i - 1].start, areas[i - 1].count_frames));
        cr_assert_eq(loam_frame_section_add(world->frame, areas[i - 1].start, areas[i - 1].count_frames,
                                            world->pieces[i].memory, world->pieces[i].bytes, &section),
                     LOAM_OK);
        cr_assert_eq(section, i - 1);
    }
    /* One that went, so that an id is free. */
    cr_assert_eq(loam_frame_section_add(world->frame, pfn(500000), 100, passing, 1 << 12, &section), LOAM_OK);
    cr_assert_eq(loam_frame_section_remove(world->frame, section, NULL), LOAM_OK);
}

/* Chunks that stay whole while the rest is cut up. */
static const struct loam_frame_request calm = {
    .count_frames = 13 * 512, .flags = LOAM_FRAME_AT, .at = {ZONE_END + 8192 + 27 * 512}};

static void world_make(struct world *world, uint64_t seed)
{
    struct loam_frame_cache *passing;
    struct loam_frame_block block;

    *world = (struct world){.seed = seed, .random = seed * UINT64_C(0x9e3779b97f4a7c15)};
    piece_make(&world->pieces[0], loam_frame_bytes(&config));
    cr_assert_eq(loam_frame_init(world->pieces[0].memory, world->pieces[0].bytes, &config, &world->frame), LOAM_OK);
    add_sections(world);
    for (size_t n = 0; n < CACHES; n++) {
        cr_assert_eq(loam_frame_cache_make(world->frame, &world->caches[n]), LOAM_OK);
    }
    cr_assert_eq(loam_frame_cache_make(world->frame, &passing), LOAM_OK);
    cr_assert_eq(loam_frame_cache_destroy(passing), LOAM_OK);
    cr_assert_eq(loam_frame_alloc(world->frame, &calm, &block), LOAM_OK);
}

/* --- What matters ---------------------------------------------------------------------------------------------- */

/* A place in a piece, in the piece's other shape. */
static void *shape_at(const struct world *world, const void *place, bool matters)
{
    for (size_t i = 0; i < PIECES; i++) {
        const struct piece *piece = &world->pieces[i];
        uintptr_t offset = (uintptr_t)place - (uintptr_t)piece->memory;

        if (offset < piece->bytes) {
            return (matters ? piece->matters : piece->pristine) + offset;
        }
    }
    return NULL;
}

static void mark(const struct world *world, const void *place, size_t bytes)
{
    memset(shape_at(world, place, true), 0xff, bytes);
}

#define MARK(member) mark(world, &(member), sizeof(member))

static void mark_lists(const struct world *world, const struct frame_lists *lists, bool cache)
{
    mark(world, lists->head, FRAME_LIST_FULL * sizeof lists->head[0]);
    mark(world, &lists->mask[0], sizeof lists->mask[0]);
    if (cache) {
        MARK(lists->head[FRAME_LIST_FULL]);
    } else {
        mark(world, &lists->head[FRAME_LIST_FREE], FRAME_BIG_ORDERS * sizeof lists->head[0]);
        MARK(lists->mask[1]);
    }
}

/* What a cache takes from: all of it. If there is nothing, only what would make it look as if there were. */
static void mark_window(const struct world *world, const struct frame_window *window)
{
    MARK(window->ready);
    MARK(window->made);
    MARK(window->link);
    if (window->link == FRAME_LINK_NONE) {
        MARK(window->back);
        return;
    }
    MARK(window->chunk_base);
    MARK(window->chunk_offset_bytes);
    MARK(window->map_offset_bytes);
}

static void mark_allocator(const struct world *world)
{
    const struct loam_frame *frame = world->frame;

    mark(world, &frame->magic, (size_t)((const char *)(&frame->seal + 1) - (const char *)&frame->magic));
    MARK(frame->suspect);
    MARK(frame->top_zone);
    MARK(frame->section_count);
    MARK(frame->id_top);
    MARK(frame->unused_id);
    MARK(frame->lender_top);
    MARK(frame->lent_frames);
    MARK(frame->pressure);
    MARK(frame->free_frames);
    MARK(frame->free_chunks);
    MARK(frame->released_chunks);
    MARK(frame->spare);
    if (frame->released_ever == 0) {
        MARK(frame->released_ever);
    }
    MARK(frame->front.live);
    MARK(frame->front.chunk_count);
    for (uint32_t i = 0; i < FRAME_WINDOWS * LOAM_FRAME_ZONE_COUNT; i++) {
        mark_window(world, &frame->front.window[i / LOAM_FRAME_ZONE_COUNT][i % LOAM_FRAME_ZONE_COUNT]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        mark_lists(world, &frame->lists[i / 2][i % 2], false);
    }
}

static void mark_cache_set(const struct world *world, const struct loam_frame_cache *cache, uint32_t set)
{
    MARK(cache->kept_count[set]);
    mark(world, cache->kept[set], cache->kept_count[set] * sizeof cache->kept[set][0]);
    mark_lists(world, &cache->lists[set], true);
}

static void mark_cache(const struct world *world, const struct loam_frame_cache *cache)
{
    MARK(cache->forbidden);
    if (cache->forbidden == FRAME_UNUSED) {
        return;
    }
    MARK(cache->free_frames);
    MARK(cache->freed);
    MARK(cache->whole_count);
    MARK(cache->busy);
    *(char *)shape_at(world, &cache->busy, true) &= (char)0xfe;
    MARK(cache->owner);
    MARK(cache->zone_end);
    MARK(cache->offset_bytes);
    MARK(cache->memo.count);
    if (cache->memo.count != 0) {
        MARK(cache->memo);
    }
    for (uint32_t i = 0; i < FRAME_CHUNK_ORDER * LOAM_FRAME_ZONE_COUNT; i++) {
        mark_window(world, &cache->window[i / LOAM_FRAME_ZONE_COUNT][i % LOAM_FRAME_ZONE_COUNT]);
    }
    mark_cache_set(world, cache, FRAME_SET_LOW);
    mark_cache_set(world, cache, FRAME_SET_ANY);
}

static void mark_records(const struct world *world)
{
    const struct loam_frame *frame = world->frame;

    for (uint32_t id = 0; id < frame->id_top; id++) {
        const struct frame_section *section = &frame_sections(frame)[id];

        MARK(section->used);
        if (section->used) {
            mark(world, section, offsetof(struct frame_section, used));
        } else {
            MARK(section->next_unused);
        }
    }
    for (uint32_t n = 0; n < frame->section_count; n++) {
        MARK(frame_indexes(frame)[n].start);
        MARK(frame_indexes(frame)[n].id);
    }
}

static void mark_links(const struct world *world, const struct frame_chunk *chunk)
{
    MARK(chunk->previous_chunk);
    MARK(chunk->next_chunk);
    MARK(chunk->previous_section);
    MARK(chunk->next_section);
}

static void mark_partial(const struct world *world, const struct frame_chunk *chunk)
{
    MARK(chunk->count);
    MARK(chunk->list);
    MARK(chunk->released);
    if (chunk->list < FRAME_LISTS) {
        mark_links(world, chunk);
    }
    if (chunk->list < FRAME_LIST_FULL) {
        if (chunk->owner == 0 || chunk->freed_chunk == 0) {
            MARK(chunk->fit);
        }
    }
    if (chunk->owner != 0) {
        MARK(chunk->crossed);
    }
    if (chunk->list == FRAME_LIST_CURRENT) {
        MARK(chunk->order);
    }
}

static void mark_whole(const struct world *world, const struct frame_chunk *chunk)
{
    if (chunk->owner != 0) {
        MARK(chunk->list);
        return;
    }
    MARK(chunk->before_frames);
    MARK(chunk->block_frames);
    MARK(chunk->order);
    MARK(chunk->released);
    if (chunk->before_frames + (1u << chunk->order) == chunk->block_frames) {
        MARK(chunk->tag);
    }
}

static void mark_free(const struct world *world, const struct frame_chunk *chunk)
{
    MARK(chunk->released);
    if (chunk->owner != 0) {
        MARK(chunk->list);
        return;
    }
    mark_links(world, chunk);
    MARK(chunk->order);
    MARK(chunk->list);
}

static void mark_section(const struct world *world, const struct frame_section *section)
{
    for (uint64_t n = 0; n < section->chunk_count; n++) {
        const struct frame_chunk *chunk = &frame_chunks(world->frame, section)[n];

        MARK(chunk->state);
        MARK(chunk->owner);
        MARK(chunk->lock);
        if (chunk->owner != 0) {
            MARK(chunk->set);
            MARK(chunk->freed_chunk);
        }
        if (chunk->owner != 0 && chunk->freed_chunk > FRAME_FREED_LAST) {
            MARK(chunk->freed_section);
        }
        if (chunk->state == FRAME_CHUNK_PARTIAL) {
            mark_partial(world, chunk);
            mark(world, frame_map(world->frame, section, n), sizeof(struct frame_map));
        } else if (chunk->state == FRAME_CHUNK_WHOLE) {
            mark_whole(world, chunk);
        } else if (chunk->state == FRAME_CHUNK_FREE) {
            mark_free(world, chunk);
        }
    }
}

/* Keep a copy of the metadata, and work out what matters in it. */
static void remember(struct world *world)
{
    struct loam_diag diag = {0};

    /* Nothing is in the front then: which of its blocks are free no one else knows. */
    (void)loam_frame_get_stats(world->frame);
    cr_assert_eq(loam_frame_validate(world->frame, &diag), LOAM_OK, "seed %" PRIu64 ": %s", world->seed, diag.text);
    for (size_t i = 0; i < PIECES; i++) {
        memcpy(world->pieces[i].pristine, world->pieces[i].memory, world->pieces[i].bytes);
        memset(world->pieces[i].matters, 0, world->pieces[i].bytes);
    }
    mark_allocator(world);
    for (uint32_t id = 0; id < config.cache_capacity; id++) {
        mark_cache(world, frame_cache_at(world->frame, id));
    }
    mark_records(world);
    for (uint32_t id = 0; id < PIECES - 1; id++) {
        mark_section(world, &frame_sections(world->frame)[id]);
    }
}

static void restore(struct world *world)
{
    for (size_t i = 0; i < PIECES; i++) {
        memcpy(world->pieces[i].memory, world->pieces[i].pristine, world->pieces[i].bytes);
    }
}

/* One above the highest free frame outside of caches, frame by frame. */
static uint64_t free_end(const struct world *world, const struct frame_section *section)
{
    for (uint64_t at = section->end; at > section->start; at--) {
        struct loam_frame_info info = loam_frame_query(world->frame, pfn(at - 1));

        if (info.state == LOAM_FRAME_FREE && !info.cached) {
            return at;
        }
    }
    return section->start;
}

/* --- Flips ----------------------------------------------------------------------------------------------------- */

struct flip {
    size_t piece;
    size_t byte;
    uint32_t bit;
};

static char *flip_place(const struct world *world, struct flip flip)
{
    return &world->pieces[flip.piece].memory[flip.byte];
}

static void flip_bit(const struct world *world, struct flip flip)
{
    *flip_place(world, flip) ^= (char)(1u << flip.bit);
}

/* A hint that is raised within bounds only costs time; the flip is made. */
static bool hint_only(const struct world *world, struct flip flip, const uint64_t ends[PIECES - 1])
{
    for (uint32_t id = 0; id < PIECES - 1; id++) {
        const struct frame_section *section = &frame_sections(world->frame)[id];
        uintptr_t offset = (uintptr_t)flip_place(world, flip) - (uintptr_t)&section->free_top;

        if (offset < sizeof section->free_top) {
            return section->free_top >= ends[id] && section->free_top <= section->end;
        }
    }
    return false;
}

static bool matters(const struct world *world, struct flip flip)
{
    return (world->pieces[flip.piece].matters[flip.byte] >> flip.bit) & 1;
}

/* Others wait for these. */
static bool waited_for(const struct world *world, struct flip flip)
{
    if (flip.piece == 0 && flip.byte < offsetof(struct loam_frame, magic)) {
        return true;
    }
    for (uint32_t id = 0; id < config.cache_capacity; id++) {
        if (flip_place(world, flip) == (char *)&frame_cache_at(world->frame, id)->busy) {
            return flip.bit == 0;
        }
    }
    return false;
}

static struct flip any_flip(struct world *world)
{
    struct flip flip;
    uint64_t at;

    do {
        size_t total = 0;

        for (size_t i = 0; i < PIECES; i++) {
            total += world->pieces[i].bytes;
        }
        at = random_below(world, total);
        for (flip.piece = 0; at >= world->pieces[flip.piece].bytes; flip.piece++) {
            at -= world->pieces[flip.piece].bytes;
        }
        flip.byte = at;
        flip.bit = (uint32_t)random_below(world, 8);
    } while (waited_for(world, flip));
    return flip;
}

struct score {
    uint64_t flips;
    uint64_t mattered;
    uint64_t found;
    uint64_t found_other; /* of those that do not matter */
    uint64_t missed_in_maps;
};

/* What lies at the place of a miss, for whoever sets FRAME_FLIP_TELL to close it. */
static void tell_miss(const struct world *world, struct flip flip)
{
    if (getenv("FRAME_FLIP_TELL") == NULL) {
        return;
    }
    if (flip.piece == 0) {
        size_t caches = sizeof(struct loam_frame),
               sections = caches + config.cache_capacity * sizeof(struct loam_frame_cache);

        printf("missed: %s + %zu, bit %u\n",
               flip.byte < caches     ? "allocator"
               : flip.byte < sections ? "cache"
                                      : "section",
               flip.byte < caches     ? flip.byte
               : flip.byte < sections ? (flip.byte - caches) % sizeof(struct loam_frame_cache)
                                      : (flip.byte - sections) % sizeof(struct frame_section),
               flip.bit);
    } else {
        const struct frame_chunk *chunk = (struct frame_chunk *)world->pieces[flip.piece].memory + flip.byte / 32;

        printf("missed: section %zu, chunk %zu + %zu, bit %u, state %u, owner %u, list %u\n", flip.piece - 1,
               flip.byte / 32, flip.byte % 32, flip.bit, chunk->state, chunk->owner, chunk->list);
    }
}

/* One flip, made, judged and undone. */
static void try_flip(struct world *world, struct flip flip, const uint64_t ends[PIECES - 1], struct score *score)
{
    bool found, mattered = matters(world, flip);
    struct loam_diag diag = {0};

    flip_bit(world, flip);
    mattered = mattered && !hint_only(world, flip, ends);
    found = loam_frame_validate(world->frame, &diag) != LOAM_OK;
    cr_assert_eq(found, diag.error == LOAM_ERROR_CORRUPT);
    cr_assert_eq(found, diag.text[0] != '\0');
    score->flips++;
    score->mattered += mattered;
    score->found += mattered && found;
    score->found_other += !mattered && found;
    if (mattered && !found) {
        tell_miss(world, flip);
    }
    flip_bit(world, flip);
    if (found || score->flips % 8 == 0) {
        cr_assert_eq(loam_frame_validate(world->frame, &diag), LOAM_OK, "seed %" PRIu64 ", undone: %s", where.seed,
                     diag.text);
    }
}

static void find_ends(const struct world *world, uint64_t ends[PIECES - 1])
{
    for (uint32_t id = 0; id < PIECES - 1; id++) {
        ends[id] = free_end(world, &frame_sections(world->frame)[id]);
    }
}

/* Half full on the whole, so that nothing is exhausted, and what caches hold is theirs for a while. */
static void age(struct world *world, uint64_t turns)
{
    for (uint64_t turn = 0; turn < turns; turn++) {
        cr_assert_neq(act_any(world), LOAM_ERROR_CORRUPT);
        for (int n = 0; n < 10 && turn % 16 == 0; n++) {
            struct loam_frame_stats stats = loam_frame_get_stats(world->frame);

            if (stats.free_frames * 2 < stats.managed_frames) {
                cr_assert_neq(act_free(world), LOAM_ERROR_CORRUPT);
            }
        }
    }
}

/* Free chunks, some without backing, and blocks of a cache that others have freed since. */
static void enrich(struct world *world)
{
    loam_pfn starts[40], whole[2], singles[600];
    size_t done;

    cr_assert_eq(loam_frame_trim(world->frame, calm.at, calm.count_frames, 512), LOAM_OK);
    cr_assert_eq(act_release(world), LOAM_OK);
    cr_assert_eq(act_release(world), LOAM_OK);
    for (uint32_t n = 0; n < 40; n++) {
        cr_assert_eq(loam_frame_cache_alloc(world->caches[n % 2], n % 4, pfn(n % 5 ? 0 : ZONE_END), &starts[n]),
                     LOAM_OK);
    }
    for (uint32_t n = 0; n < 40; n += 3) {
        cr_assert_eq(loam_frame_free(world->frame, starts[n], UINT64_C(1) << n % 4), LOAM_OK);
    }
    /* In chunks that nobody takes from. */
    for (uint32_t n = 0; n < 2; n++) {
        cr_assert_eq(loam_frame_cache_alloc(world->caches[0], 9, pfn(0), &whole[n]), LOAM_OK);
    }
    cr_assert_eq(loam_frame_free(world->frame, whole[0], 512), LOAM_OK);
    cr_assert_eq(loam_frame_cache_alloc_batch(world->caches[2], 0, pfn(0), singles, 600), LOAM_OK);
    cr_assert_eq(loam_frame_free_batch(world->frame, 0, singles, 50, &done), LOAM_OK);
}

/* The world holds something of everything. */
static void assert_rich(const struct world *world)
{
    uint64_t kinds[4][2] = {{0}}, released = 0, freed = 0, shared = 0;

    for (uint32_t id = 0; id < PIECES - 1; id++) {
        const struct frame_section *section = &frame_sections(world->frame)[id];

        for (uint64_t n = 0; n < section->chunk_count; n++) {
            const struct frame_chunk *chunk = &frame_chunks(world->frame, section)[n];

            kinds[chunk->state % 4][chunk->owner != 0]++;
            released += chunk->state != FRAME_CHUNK_INNER && chunk->released != 0;
            freed += chunk->owner != 0 && chunk->freed_chunk != 0;
            shared += chunk->owner != 0 && chunk->lock == FRAME_LOCK_FREE;
        }
    }
    cr_assert(kinds[FRAME_CHUNK_PARTIAL][0] > 0 && kinds[FRAME_CHUNK_PARTIAL][1] > 0 &&
                  kinds[FRAME_CHUNK_WHOLE][0] + kinds[FRAME_CHUNK_WHOLE][1] > 0 &&
                  kinds[FRAME_CHUNK_FREE][0] + kinds[FRAME_CHUNK_FREE][1] > 0,
              "partial %" PRIu64 " and %" PRIu64 " owned, whole %" PRIu64 " and %" PRIu64 ", free %" PRIu64
              " and %" PRIu64,
              kinds[3][0], kinds[3][1], kinds[2][0], kinds[2][1], kinds[1][0], kinds[1][1]);
    cr_assert(freed > 0 && shared > 0 && released > 0,
              "%" PRIu64 " that others freed in, %" PRIu64 " shared, %" PRIu64 " released", freed, shared, released);
}

TestSuite(frame_flip, .init = prepare, .fini = free_kept);

enum { SEEDS = 10, FLIPS = 20000 };

Test(frame_flip, validate_finds_99_of_100_flips_that_matter)
{
    uint64_t ends[PIECES - 1];
    struct score all = {0};

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct score score = {0};
        static struct world world;

        limit_time();
        where.seed = seed;
        world_make(&world, seed);
        age(&world, 1000 + seed * 300);
        enrich(&world);
        remember(&world);
        assert_rich(&world);
        find_ends(&world, ends);
        for (where.round = 0; where.round < FLIPS; where.round++) {
            try_flip(&world, any_flip(&world), ends, &score);
        }
        cr_assert_geq(score.found * 100, score.mattered * 99, "seed %" PRIu64 ": %" PRIu64 " of %" PRIu64 " found",
                      seed, score.found, score.mattered);
        all.flips += score.flips;
        all.mattered += score.mattered;
        all.found += score.found;
        all.found_other += score.found_other;
        world_drop(&world);
    }
    printf("%" PRIu64 " flips: %" PRIu64 " matter, %" PRIu64 " of them found (%.3f %%); of the others %" PRIu64
           " found\n",
           all.flips, all.mattered, all.found, 100.0 * (double)all.found / (double)all.mattered, all.found_other);
    cr_assert_gt(all.mattered, all.flips / 4);
}

/* Not at random, but all of them: the figure is exact for this world. */
Test(frame_flip, validate_finds_99_of_100_of_all_bits_that_matter)
{
    static struct world world;
    uint64_t ends[PIECES - 1];
    struct score score = {0};

    where.seed = 77;
    world_make(&world, where.seed);
    age(&world, 3001);
    enrich(&world);
    remember(&world);
    assert_rich(&world);
    find_ends(&world, ends);
    for (struct flip flip = {0}; flip.piece < PIECES; flip.piece++) {
        limit_time();
        for (flip.byte = 0; flip.byte < world.pieces[flip.piece].bytes; flip.byte++) {
            for (flip.bit = 0; flip.bit < 8; flip.bit++) {
                where.round++;
                if (!waited_for(&world, flip)) {
                    try_flip(&world, flip, ends, &score);
                }
            }
        }
    }
    world_drop(&world);
    printf("all %" PRIu64 " bits: %" PRIu64 " matter, %" PRIu64 " of them found (%.3f %%)\n", score.flips,
           score.mattered, score.found, 100.0 * (double)score.found / (double)score.mattered);
    cr_assert_geq(score.found * 100, score.mattered * 99, "%" PRIu64 " of %" PRIu64 " found", score.found,
                  score.mattered);
}

/* --- Heavy damage ---------------------------------------------------------------------------------------------- */

/* What others wait for stays as it was: without holder, and not busy. */
static void spare_waited_for(struct world *world)
{
    memcpy(world->pieces[0].memory, world->pieces[0].pristine, offsetof(struct loam_frame, magic));
    for (uint32_t id = 0; id < config.cache_capacity; id++) {
        *(char *)((uintptr_t)world->pieces[0].memory + sizeof(struct loam_frame) + id * (size_t)FRAME_LENDER_BYTES +
                  offsetof(struct loam_frame_cache, busy)) &= (char)0xfe;
    }
}

/*
 * Zeros, ones, noise, or what lies elsewhere in the piece; but no cache's head just where another's belongs: that is as
 * sound as it was, and leads its owner to wait for a lock where there is none.
 */
static void damage_bytes(struct world *world, const struct piece *piece, uint64_t at, uint64_t bytes)
{
    uint64_t kind = random_below(world, 4), from = random_below(world, piece->bytes);

    from += from % FRAME_LENDER_BYTES == at % FRAME_LENDER_BYTES;
    for (uint64_t n = 0; n < bytes && at + n < piece->bytes && from + n < piece->bytes; n++) {
        piece->memory[at + n] = kind == 0   ? 0
                                : kind == 1 ? (char)0xff
                                : kind == 2 ? piece->pristine[from + n]
                                            : (char)random_below(world, 256);
    }
}

enum { DAMAGE_FLIP, DAMAGE_FLIPS, DAMAGE_MANY, DAMAGE_BYTES, DAMAGE_PAGE, DAMAGES };

static void damage(struct world *world, uint64_t kind)
{
    const struct piece *piece = &world->pieces[random_below(world, PIECES)];
    uint64_t at = random_below(world, piece->bytes);
    uint64_t flips = kind == DAMAGE_FLIP ? 1 : 1 + random_below(world, kind == DAMAGE_FLIPS ? 8 : 2000);

    switch (kind) {
    case DAMAGE_BYTES:
        damage_bytes(world, piece, at, 1 + random_below(world, 64));
        spare_waited_for(world);
        return;
    case DAMAGE_PAGE:
        damage_bytes(world, piece, at / PAGE * PAGE, PAGE);
        spare_waited_for(world);
        return;
    default:
        for (uint64_t n = 0; n < flips; n++) {
            flip_bit(world, any_flip(world));
        }
        return;
    }
}

Test(frame_flip, validate_survives_heavy_damage)
{
    static struct world world;
    uint64_t found[DAMAGES] = {0};

    for (uint64_t seed = 1; seed <= 4; seed++) {
        where.seed = seed;
        world_make(&world, seed);
        age(&world, 1500 * seed);
        enrich(&world);
        remember(&world);
        for (where.round = 0; where.round < 10000; where.round++) {
            struct loam_diag diag = {0};

            if (where.round % 1000 == 0) {
                limit_time();
            }
            damage(&world, where.round % DAMAGES);
            found[where.round % DAMAGES] += loam_frame_validate(world.frame, &diag) != LOAM_OK;
            cr_assert(diag.error == LOAM_OK || diag.error == LOAM_ERROR_CORRUPT);
            (void)!loam_frame_attach(world.pieces[0].memory, world.pieces[0].bytes, &(struct loam_frame *){NULL}, NULL);
            restore(&world);
        }
        assert_valid(world.frame);
        world_drop(&world);
    }
    printf("of 8000 each found: %" PRIu64 " single flips, %" PRIu64 " of a few, %" PRIu64 " of many, %" PRIu64
           " runs of bytes, %" PRIu64 " pages\n",
           found[0], found[1], found[2], found[3], found[4]);
    /* Of many flips at once, and of pages, hardly anything goes unseen. */
    cr_assert_gt(found[DAMAGE_MANY], 7920);
}
