// SPDX-License-Identifier: Apache-2.0
/*
 * Every sequence of operations on a section of at most 16 frames, as long as the time allows: from each state that can
 * be reached, each operation of an alphabet is carried out once and judged by frame_oracle.
 *
 * The allocator has no memory but its metadata, and calls nobody: so what follows from equal metadata is equal, and a
 * state is the bytes of the metadata with the oracle's cells. A state seen before need not be gone through again. All
 * operations can be tried in every state (one that names no block is a misuse), so depth d with an alphabet of a
 * operations covers a^d sequences; and where no new state comes up any more, sequences of every length are covered.
 *
 * States are told apart by 64 bits of hash: among the ten million of a long run, two are confused with a probability
 * of 3 in a million.
 *
 * LOAM_EXHAUSTIVE_SECONDS: processor time that a case may take; 1.25 unless told. What was reached is printed.
 */
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tests/allocator/frame_oracle.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ZONE_END (UINT64_C(1) << 20)

enum { LINE_BYTES = 64, FRAMES_MAX = 16, OPS_MAX = 160, CACHES = 2, ARENA_MAX = 32768, NODES_MAX = 30000000 };

/* --- The world: allocator and oracle, which a copy of the struct takes back to where they were ------------------ */

struct world {
    struct frame_oracle oracle;
    uint32_t block[FRAMES_MAX];
    uint8_t tag[FRAMES_MAX];
    bool released[FRAMES_MAX];
    bool cache_used[CACHES];
    _Alignas(64) char arena[ARENA_MAX];
};

struct setup {
    const char *name;
    uint64_t base;
    uint64_t frames;
    uint64_t reserve;
    struct loam_frame_watermarks watermarks;
    uint32_t cache_count;
    void (*alphabet)(const struct setup *setup);
};

enum kind { ALLOC, ALLOC_ORDER, CACHE_ALLOC, CACHE_BATCH, DRAIN, FREE, CACHE_FREE, GROW, TRIM, SPLIT, TAG };

struct op {
    enum kind kind;
    uint32_t cache;
    uint32_t order;
    uint64_t limit;
    uint64_t frame; /* where the block starts that is meant, counted from the section's first frame */
    struct loam_frame_request request;
};

static struct world world; /* its oracle's cells lie in it: so it stays where it is */
static struct loam_frame_cache *caches[CACHES];
static size_t arena_bytes, world_bytes;
static struct op ops[OPS_MAX];
static size_t op_count;

static struct loam_frame *frame_of_world(void)
{
    return (struct loam_frame *)world.arena;
}

static loam_pfn pfn(uint64_t value)
{
    return loam_pfn_from_u64(value);
}

static bool query_cached(void *context, uint64_t at)
{
    (void)context;
    return loam_frame_query(frame_of_world(), pfn(at)).cached;
}

/* Only one thread is here. */
static bool pass_no_barrier(void)
{
    return true;
}

static void world_make(const struct setup *setup)
{
    struct loam_frame_config config = {.section_capacity = 1,
                                       .cache_capacity = setup->cache_count == 0 ? 1 : setup->cache_count,
                                       .dma32_reserve_frames = setup->reserve,
                                       .watermarks = {setup->watermarks, setup->watermarks}};
    size_t bytes = (loam_frame_bytes(&config) + 63) / 64 * 64, section_bytes;
    struct loam_frame *frame;

    memset(&world, 0, sizeof world);
    memset(world.arena, 0xa5, sizeof world.arena);
    frame_oracle_init(&world.oracle, &config);
    world.oracle.cached = query_cached;
    cr_assert_leq(bytes, sizeof world.arena);
    cr_assert_eq(loam_frame_init(world.arena, bytes, &config, &frame), LOAM_OK);
    section_bytes = loam_frame_section_bytes(frame, pfn(setup->base), setup->frames);
    arena_bytes = bytes + (section_bytes + 63) / 64 * 64;
    cr_assert_leq(arena_bytes, sizeof world.arena);
    world_bytes = offsetof(struct world, arena) + arena_bytes;
    cr_assert_eq(
        loam_frame_section_add(frame, pfn(setup->base), setup->frames, world.arena + bytes, section_bytes, NULL),
        LOAM_OK);
    world.oracle.sections[0] = (struct frame_oracle_section){.used = true,
                                                             .start = setup->base,
                                                             .count = setup->frames,
                                                             .block = world.block,
                                                             .tag = world.tag,
                                                             .released = world.released};
    loam_frame_set_barrier(pass_no_barrier);
    for (uint32_t i = 0; i < setup->cache_count; i++) {
        enum loam_error error = loam_frame_cache_make(frame, &caches[i]);

        cr_assert(frame_oracle_cache_make(&world.oracle, error), "%s", world.oracle.why);
    }
}

/* --- Operations ------------------------------------------------------------------------------------------------ */

/* The length of the block that starts there; 1 where none does, which makes the operation a misuse. */
static uint64_t length_at(uint64_t start)
{
    uint64_t first, count = frame_oracle_block(&world.oracle, start, &first);

    return count != 0 && first == start ? count : 1;
}

static bool judge_alloc(const struct op *op)
{
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(frame_of_world(), &op->request, &block);

    return frame_oracle_alloc(&world.oracle, &op->request, error, &block);
}

static void use_cache(uint32_t cache)
{
    world.cache_used[cache] = true;
    frame_oracle_caches_used(&world.oracle);
}

static bool judge_order(const struct op *op)
{
    loam_pfn starts[2] = {{0}, {0}};
    size_t count = op->kind == CACHE_BATCH ? 2 : 1;
    enum loam_error error;

    if (op->kind == ALLOC_ORDER) {
        error = loam_frame_alloc_order_below(frame_of_world(), op->order, pfn(op->limit), starts);
    } else if (op->kind == CACHE_ALLOC) {
        use_cache(op->cache);
        error = loam_frame_cache_alloc(caches[op->cache], op->order, pfn(op->limit), starts);
    } else {
        use_cache(op->cache);
        error = loam_frame_cache_alloc_batch(caches[op->cache], op->order, pfn(op->limit), starts, count);
    }
    return frame_oracle_alloc_batch(&world.oracle, op->order, op->limit, error, starts, count);
}

static bool judge_drain(const struct op *op)
{
    enum loam_error error = loam_frame_cache_drain(caches[op->cache]);

    world.cache_used[op->cache] = false;
    if (!world.cache_used[0] && !world.cache_used[1]) {
        frame_oracle_caches_drained(&world.oracle);
    }
    return frame_oracle_same(&world.oracle, error, LOAM_OK);
}

static bool judge_block(const struct op *op)
{
    struct frame_oracle *oracle = &world.oracle;
    struct loam_frame *frame = frame_of_world();
    uint64_t start = oracle->sections[0].start + op->frame, count = length_at(start);
    uint64_t grown = count + 1 + op->frame % 3;
    uint32_t flags = 0;
    enum loam_error error;

    switch (op->kind) {
    case FREE:
        return frame_oracle_free(oracle, start, count, loam_frame_free(frame, pfn(start), count));
    case CACHE_FREE:
        use_cache(op->cache);
        return frame_oracle_free(oracle, start, count, loam_frame_cache_free(caches[op->cache], pfn(start), count));
    case GROW:
        error = loam_frame_grow(frame, pfn(start), count, grown, &flags);
        return frame_oracle_grow(oracle, start, count, grown, error, flags);
    case TRIM:
        error = loam_frame_trim(frame, pfn(start), count, count - 1);
        return frame_oracle_trim(oracle, start, count, count - 1, error);
    case SPLIT:
        return frame_oracle_split(oracle, start, count, 1, loam_frame_split(frame, pfn(start), count, 1));
    default:
        error = loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB);
        return frame_oracle_tag(oracle, start, LOAM_FRAME_TAG_SLAB, error);
    }
}

static bool carry_out(const struct op *op)
{
    switch (op->kind) {
    case ALLOC:
        return judge_alloc(op);
    case ALLOC_ORDER:
    case CACHE_ALLOC:
    case CACHE_BATCH:
        return judge_order(op);
    case DRAIN:
        return judge_drain(op);
    default:
        return judge_block(op);
    }
}

/* --- Alphabets ------------------------------------------------------------------------------------------------- */

static void add_op(struct op op)
{
    cr_assert_lt(op_count, OPS_MAX);
    ops[op_count++] = op;
}

static void add_for_each_frame(const struct setup *setup, enum kind kind, uint32_t cache)
{
    for (uint64_t n = 0; n < setup->frames; n++) {
        add_op((struct op){.kind = kind, .cache = cache, .frame = n});
    }
}

static void add_requests(const struct setup *setup)
{
    const struct loam_frame_request requests[] = {
        {.count_frames = 1},
        {.count_frames = 2, .align_frames = 2},
        {.count_frames = 3},
        {.count_frames = 4, .align_frames = 4},
        {.count_frames = 7},
        {.count_frames = 8, .align_frames = 8},
        {.count_frames = setup->frames},
        {.count_frames = 1, .align_frames = 8},
        {.count_frames = 2, .boundary_frames = 2},
        {.count_frames = 3, .limit = {ZONE_END}},
        {.count_frames = 5, .limit = {setup->base + 11}},
        {.count_frames = 2, .flags = LOAM_FRAME_AT, .at = {setup->base + setup->frames / 2 - 1}},
        {.count_frames = 1, .flags = LOAM_FRAME_AT, .at = {setup->base + setup->frames - 1}},
        {.count_frames = 1, .flags = LOAM_FRAME_RELEASED},
    };

    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        add_op((struct op){.kind = ALLOC, .request = requests[i]});
    }
}

/* Requests of all shapes, and whatever can be done to a block. */
static void all_operations(const struct setup *setup)
{
    add_requests(setup);
    add_for_each_frame(setup, FREE, 0);
    add_for_each_frame(setup, GROW, 0);
    add_for_each_frame(setup, TRIM, 0);
    add_for_each_frame(setup, SPLIT, 0);
}

static void all_operations_and_tags(const struct setup *setup)
{
    all_operations(setup);
    add_for_each_frame(setup, TAG, 0);
}

static void orders_alone(const struct setup *setup)
{
    for (uint32_t order = 0; order <= 4; order++) {
        add_op((struct op){.kind = ALLOC_ORDER, .order = order});
    }
    add_op((struct op){.kind = ALLOC_ORDER, .limit = ZONE_END});
    add_for_each_frame(setup, FREE, 0);
}

/* Orders by the allocator and by two caches; frees by the allocator and by the caches, whosever the block. */
static void caches_and_orders(const struct setup *setup)
{
    add_op((struct op){.kind = ALLOC_ORDER});
    add_op((struct op){.kind = ALLOC_ORDER, .order = 2});
    for (uint32_t cache = 0; cache < setup->cache_count; cache++) {
        add_op((struct op){.kind = CACHE_ALLOC, .cache = cache});
        add_op((struct op){.kind = CACHE_ALLOC, .cache = cache, .order = 1});
        add_op((struct op){.kind = CACHE_ALLOC, .cache = cache, .limit = ZONE_END});
        add_op((struct op){.kind = CACHE_BATCH, .cache = cache, .order = 1});
        add_op((struct op){.kind = DRAIN, .cache = cache});
        add_for_each_frame(setup, CACHE_FREE, cache);
    }
    add_for_each_frame(setup, FREE, 0);
}

static void caches_and_all_operations(const struct setup *setup)
{
    caches_and_orders(setup);
    add_for_each_frame(setup, GROW, 0);
    add_for_each_frame(setup, TRIM, 0);
    add_for_each_frame(setup, SPLIT, 0);
}

/* --- The search: a level is what one operation more reaches ------------------------------------------------------ */

struct search {
    const struct setup *setup;
    uint32_t *parents; /* of each state: the one it was reached from, */
    uint8_t *steps;    /* and by which operation */
    size_t count, room;
    uint64_t *table; /* hashes of the states; 0: none */
    size_t table_bits;
    uint64_t judged;
    uint64_t here_sum, here_hashes[ARENA_MAX / LINE_BYTES];
    uint16_t changed[ARENA_MAX / LINE_BYTES]; /* lines of the arena in which the world differs from here */
    size_t changed_count;
    struct world root, here; /* the first state; the one that is gone on from */
};

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

/* Both halves of a product: each bit of it hangs on all bits of a and b. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Four products that do not wait for each other, for speed. */
static uint64_t hash_line(size_t line, const char *arena)
{
    static const uint64_t keys[] = {UINT64_C(0xa0761d6478bd642f), UINT64_C(0xe7037ed1a0b428db),
                                    UINT64_C(0x8ebc6af09c88c6e3), UINT64_C(0x589965cc75374cc3)};
    uint64_t words[LINE_BYTES / sizeof(uint64_t)], hash = 0;

    memcpy(words, arena + line * LINE_BYTES, sizeof words);
    for (size_t i = 0; i < 4; i++) {
        hash += fold(words[i] ^ keys[i], words[i + 4] ^ (line + 1) * UINT64_C(0x9e3779b97f4a7c15));
    }
    return fold(hash ^ keys[0], keys[1] ^ line);
}

/* By vectors, for speed: most of the time goes into this. */
static bool same_line(size_t line, const char *a, const char *b)
{
    typedef uint64_t vector __attribute__((vector_size(16), may_alias));
    const vector *left = (const vector *)(a + line * LINE_BYTES), *right = (const vector *)(b + line * LINE_BYTES);
    vector differences = (left[0] ^ right[0]) | (left[1] ^ right[1]) | (left[2] ^ right[2]) | (left[3] ^ right[3]);

    return (differences[0] | differences[1]) == 0;
}

/* The sum of the lines' hashes, from that of the state before, and which lines differ from it. */
static uint64_t hash_arena(struct search *search)
{
    uint64_t sum = search->here_sum;

    search->changed_count = 0;
    for (size_t line = 0; line < arena_bytes / LINE_BYTES; line++) {
        if (!same_line(line, world.arena, search->here.arena)) {
            search->changed[search->changed_count++] = (uint16_t)line;
            sum += hash_line(line, world.arena) - search->here_hashes[line];
        }
    }
    return sum;
}

/* Blocks are numbered anew, since their numbers never come again. */
static uint64_t hash_world(struct search *search)
{
    const struct frame_oracle_section *section = &world.oracle.sections[0];
    uint64_t hash = mix(hash_arena(search), world.oracle.caches_hold);

    for (uint64_t n = 0; n < section->count; n++) {
        bool joined = n > 0 && section->block[n] == section->block[n - 1];

        hash = mix(hash, (uint64_t)(section->block[n] != 0) << 9 | (uint64_t)joined << 8 | section->tag[n]);
    }
    hash = mix(hash, (uint64_t)world.oracle.pressure[0] << 4 | world.oracle.pressure[1]);
    return hash == 0 ? 1 : hash;
}

/* Back to the state that is gone on from; hash_arena has found what differs. */
static void go_back(const struct search *search)
{
    memcpy(&world, &search->here, offsetof(struct world, arena));
    for (size_t i = 0; i < search->changed_count; i++) {
        size_t at = (size_t)search->changed[i] * LINE_BYTES;

        memcpy(world.arena + at, search->here.arena + at, LINE_BYTES);
    }
}

static bool insert_hash(uint64_t *table, size_t bits, uint64_t hash)
{
    size_t mask = ((size_t)1 << bits) - 1, at = hash & mask;

    while (table[at] != 0 && table[at] != hash) {
        at = (at + 1) & mask;
    }
    if (table[at] == hash) {
        return false;
    }
    table[at] = hash;
    return true;
}

static void grow_table(struct search *search)
{
    size_t bits = search->table_bits + 2, old = search->table == NULL ? 0 : (size_t)1 << search->table_bits;
    uint64_t *table = calloc((size_t)1 << bits, sizeof *table);

    cr_assert_not_null(table);
    for (size_t i = 0; i < old; i++) {
        if (search->table[i] != 0) {
            insert_hash(table, bits, search->table[i]);
        }
    }
    free(search->table);
    search->table = table;
    search->table_bits = bits;
}

/* Put the state that the world is in down, unless it is known. */
static bool note_state(struct search *search, uint64_t hash, uint32_t parent, uint8_t step)
{
    if (search->table == NULL || search->count * 2 > (size_t)1 << search->table_bits) {
        grow_table(search);
    }
    if (!insert_hash(search->table, search->table_bits, hash)) {
        return false;
    }
    if (search->count == search->room) {
        search->room = search->room == 0 ? 65536 : search->room * 2;
        search->parents = realloc(search->parents, search->room * sizeof *search->parents);
        search->steps = realloc(search->steps, search->room * sizeof *search->steps);
        cr_assert(search->parents != NULL && search->steps != NULL);
    }
    search->parents[search->count] = parent;
    search->steps[search->count] = step;
    search->count++;
    return true;
}

static void print_step(const struct op *op)
{
    static const char *const names[] = {"alloc", "alloc_order", "cache_alloc", "cache_alloc_batch",
                                        "drain", "free",        "cache_free",  "grow",
                                        "trim",  "split",       "tag"};

    fprintf(stderr,
            "  %s cache %" PRIu32 " order %" PRIu32 " limit 0x%" PRIx64 " frame %" PRIu64 " count %" PRIu64
            " align %" PRIu64 " boundary %" PRIu64 " flags %" PRIu32 " at 0x%" PRIx64 "\n",
            names[op->kind], op->cache, op->order, op->kind == ALLOC ? op->request.limit.value : op->limit, op->frame,
            op->request.count_frames, op->request.align_frames, op->request.boundary_frames, op->request.flags,
            op->request.at.value);
}

/* The operations that lead to a state, the first first. */
static size_t path_of(const struct search *search, size_t node, uint8_t *path, size_t room)
{
    size_t length = 0;

    for (size_t at = node; at != 0; at = search->parents[at]) {
        cr_assert_lt(length, room);
        path[length++] = search->steps[at];
    }
    for (size_t i = 0; i < length / 2; i++) {
        uint8_t step = path[i];

        path[i] = path[length - 1 - i];
        path[length - 1 - i] = step;
    }
    return length;
}

static void fail_at(const struct search *search, size_t node, size_t step, const char *why)
{
    uint8_t path[1024];
    size_t length = path_of(search, node, path, sizeof path);

    fprintf(stderr, "%s: these operations, the last of them wrong: %s\n", search->setup->name, why);
    for (size_t i = 0; i < length; i++) {
        print_step(&ops[path[i]]);
    }
    print_step(&ops[step]);
    cr_assert_fail("%s: %s", search->setup->name, why);
}

/* Here is where the world is. */
static void set_here(struct search *search)
{
    memcpy(&search->here, &world, world_bytes);
    search->here_sum = 0;
    for (size_t line = 0; line < arena_bytes / LINE_BYTES; line++) {
        search->here_hashes[line] = hash_line(line, world.arena);
        search->here_sum += search->here_hashes[line];
    }
}

/* Take the world to a state, by the operations that led there. */
static void go_to(struct search *search, size_t node)
{
    uint8_t path[1024];
    size_t length = path_of(search, node, path, sizeof path);

    memcpy(&world, &search->root, world_bytes);
    for (size_t i = 0; i < length; i++) {
        cr_assert(carry_out(&ops[path[i]]), "%s", world.oracle.why);
    }
    set_here(search);
}

/* What the allocator says of the state that it is in: every frame, and the figures. */
static bool judge_state(const struct setup *setup)
{
    struct loam_frame *frame = frame_of_world();
    struct loam_frame_stats stats = loam_frame_get_stats(frame);
    struct loam_frame_fragmentation fragmentation = loam_frame_get_fragmentation(frame);
    struct loam_frame_range range;
    enum loam_error error = loam_frame_largest_free(frame, pfn(ZONE_END), &range);

    for (uint64_t n = 0; n < setup->frames; n++) {
        struct loam_frame_info info = loam_frame_query(frame, pfn(setup->base + n));

        if (!frame_oracle_query(&world.oracle, setup->base + n, &info)) {
            return false;
        }
    }
    return frame_oracle_stats(&world.oracle, &stats) && frame_oracle_fragmentation(&world.oracle, &fragmentation) &&
           frame_oracle_largest_free(&world.oracle, ZONE_END, error, &range);
}

static void expand(struct search *search, size_t node)
{
    struct loam_diag diag = {0};

    go_to(search, node);
    for (size_t step = 0; step < op_count; step++) {
        if (!carry_out(&ops[step])) {
            fail_at(search, node, step, world.oracle.why);
        }
        if (note_state(search, hash_world(search), (uint32_t)node, (uint8_t)step)) {
            if (!judge_state(search->setup)) {
                fail_at(search, node, step, world.oracle.why);
            }
            if (loam_frame_validate(frame_of_world(), &diag) != LOAM_OK) {
                fail_at(search, node, step, diag.text);
            }
            hash_arena(search); /* to look may have moved something in caches */
        }
        go_back(search);
    }
    search->judged += op_count;
}

static double processor_seconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double seconds_a_case(void)
{
    const char *text = getenv("LOAM_EXHAUSTIVE_SECONDS");
    double seconds = text == NULL ? 0 : strtod(text, NULL);

    return seconds > 0 ? seconds : 1.25;
}

/* Level by level, until no new state comes up, or time or room is out. */
static void explore(const struct setup *setup)
{
    static struct search search;
    double start = processor_seconds(), end = start + seconds_a_case();
    size_t node = 0, level_end = 1, depth = 0;

    memset(&search, 0, sizeof search);
    search.setup = setup;
    op_count = 0;
    setup->alphabet(setup);
    world_make(setup);
    memcpy(&search.root, &world, world_bytes);
    set_here(&search);
    note_state(&search, hash_world(&search), 0, 0);
    while (node < search.count && (depth < 3 || processor_seconds() < end) && search.count < NODES_MAX) {
        expand(&search, node++);
        if (node == level_end) {
            level_end = search.count;
            depth++;
        }
    }
    fprintf(stderr, "%s: %zu operations, every sequence %s%zu, %zu states, %" PRIu64 " operations judged in %.1f s\n",
            setup->name, op_count, node == search.count ? "of any length: closed at depth " : "up to length ", depth,
            search.count, search.judged, processor_seconds() - start);
    cr_assert(depth >= 3 && search.count > 100, "%s: only depth %zu", setup->name, depth);
    free(search.parents);
    free(search.steps);
    free(search.table);
}

/* --- The cases ------------------------------------------------------------------------------------ */

/*
 * Given ten minutes: every sequence up to length 10, 30 million states, as many as the search holds. Blocks stand in
 * some three and a half million ways, and each of them comes with all that the windows of plain calls may hold: so it
 * does not close, as it did at 18 million states before there were windows. Worlds of 10 frames and fewer do.
 */
Test(frame_exhaustive, all_on_16_frames_around_4_gib)
{
    explore(&(struct setup){"16 frames around 4 GiB", ZONE_END - 8, 16, .alphabet = all_operations});
}

Test(frame_exhaustive, all_on_16_frames_around_4_gib_with_reserve)
{
    explore(&(struct setup){"16 frames around 4 GiB, reserve and watermarks", ZONE_END - 8, 16, .reserve = 3,
                            .watermarks = {3, 6}, .alphabet = all_operations});
}

Test(frame_exhaustive, all_on_16_frames_around_a_chunk_border)
{
    explore(&(struct setup){"16 frames around a chunk's end", ZONE_END + 512 - 5, 16, .alphabet = all_operations});
}

/* It closes, given twenty seconds. */
Test(frame_exhaustive, all_on_10_frames_around_4_gib)
{
    explore(&(struct setup){"10 frames around 4 GiB", ZONE_END - 5, 10, .alphabet = all_operations});
}

Test(frame_exhaustive, all_on_8_frames_around_4_gib)
{
    explore(
        &(struct setup){"8 frames around 4 GiB, reserve", ZONE_END - 4, 8, .reserve = 1, .alphabet = all_operations});
}

/* It closes, given two minutes: 3.6 million states. */
Test(frame_exhaustive, all_on_10_frames_around_a_chunk_border)
{
    explore(&(struct setup){"10 frames around a chunk's end", ZONE_END + 512 - 5, 10, .alphabet = all_operations});
}

/* It closes, given ten seconds. */
Test(frame_exhaustive, orders_on_8_frames)
{
    explore(&(struct setup){"orders on 8 frames", ZONE_END, 8, .alphabet = orders_alone});
}

Test(frame_exhaustive, orders_on_16_frames)
{
    explore(&(struct setup){"orders on 16 frames", ZONE_END, 16, .alphabet = orders_alone});
}

Test(frame_exhaustive, tags_on_6_frames)
{
    explore(&(struct setup){"6 frames around a chunk's end, with tags", 512 - 3, 6, .reserve = 1,
                            .alphabet = all_operations_and_tags});
}

Test(frame_exhaustive, caches_on_16_frames_around_4_gib)
{
    explore(&(struct setup){"2 caches on 16 frames around 4 GiB", ZONE_END - 8, 16, .cache_count = 2,
                            .alphabet = caches_and_orders});
}

Test(frame_exhaustive, caches_on_16_frames_around_a_chunk_border)
{
    explore(&(struct setup){"2 caches on 16 frames around a chunk's end", ZONE_END + 512 - 5, 16, .cache_count = 2,
                            .alphabet = caches_and_orders});
}

Test(frame_exhaustive, caches_and_all_on_5_frames_around_4_gib)
{
    explore(&(struct setup){"2 caches on 5 frames around 4 GiB", ZONE_END - 3, 5, .reserve = 1, .cache_count = 2,
                            .alphabet = caches_and_all_operations});
}
