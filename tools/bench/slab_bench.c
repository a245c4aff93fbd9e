// SPDX-License-Identifier: Apache-2.0
/*
 * slab against the general allocators of Debian: jemalloc and mimalloc, each loaded into this program as its package
 * ships it. Both sides run the same loop, call through pointers, and write eight bytes into each object. Loam's objects
 * carry their GPA besides, and every free is checked.
 */
#include "loam/frame.h"
#include "loam/slab.h"
#include "tools/bench/bench.h"

#include <assert.h>
#include <dlfcn.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAIR_COUNT    2000000u
#define REMOTE_COUNT  1024000u
#define RING_SLOTS    1024u /* objects on their way from one thread to the other, at most */
#define RING_BATCH    64u   /* of them are shown to the other thread at once */
#define SPINS_MAX     2000u
#define GUEST_BYTES   (32 * LOAM_MIB)
#define GUEST_START   (16 * LOAM_MIB)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* --- The peers --------------------------------------------------------------------------------------------------- */

enum { PEER_JEMALLOC, PEER_MIMALLOC, PEER_COUNT };

static struct peer {
    const char *library, *package, *alloc_name, *free_name;
    void *(*alloc)(size_t bytes);
    void (*free)(void *object);
} peers[PEER_COUNT] = {
    {"libjemalloc.so.2", "libjemalloc2", "malloc", "free", NULL, NULL},
    {"libmimalloc.so.2", "libmimalloc2.0", "mi_malloc", "mi_free", NULL, NULL},
};

/*
 * jemalloc wants 2.6 KiB of static thread-local storage, more than glibc keeps for libraries that come late unless it
 * is told so before the program starts.
 */
static __attribute__((constructor)) void reserve_static_tls(int argc, char **argv)
{
    (void)argc;
    if (getenv("GLIBC_TUNABLES") == NULL) {
        setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=16384", 1);
        execv("/proc/self/exe", argv);
    }
}

/* NULL: it is not installed. */
static const struct peer *peer_at(unsigned index)
{
    struct peer *peer = &peers[index];
    void *library;

    if (peer->alloc != NULL) {
        return peer;
    }
    library = dlopen(peer->library, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (library == NULL) {
        bench_note("slab: %s: %s: install %s to compare with it", peer->library, dlerror(), peer->package);
        return NULL;
    }
    *(void **)&peer->alloc = dlsym(library, peer->alloc_name);
    *(void **)&peer->free = dlsym(library, peer->free_name);
    if (peer->alloc == NULL || peer->free == NULL) {
        bench_fail("slab: %s has no %s or no %s", peer->library, peer->alloc_name, peer->free_name);
    }
    return peer;
}

/* --- Loam -------------------------------------------------------------------------------------------------------- */

struct guest {
    struct loam_frame *frame;
    struct loam_slab slab;
    size_t frame_bytes, section_bytes, slab_bytes;
    void *section, *metadata;
    char *memory;
};

static void guest_make(struct guest *guest)
{
    struct loam_slab_config config = {.limit = {LOAM_DMA32_END_BYTES}, .window_count = 1};
    loam_pfn start = loam_pfn_from_u64(GUEST_START >> LOAM_FRAME_SHIFT);
    uint64_t count_frames = GUEST_BYTES >> LOAM_FRAME_SHIFT;
    void *memory;

    guest->memory = bench_map(GUEST_BYTES, true);
    config.windows[0] = (struct loam_slab_window){{GUEST_START}, GUEST_BYTES, guest->memory};
    guest->frame_bytes = loam_frame_bytes(NULL);
    memory = bench_map(guest->frame_bytes, true);
    bench_expect(loam_frame_init(memory, guest->frame_bytes, NULL, &guest->frame), "frame init");
    guest->section_bytes = loam_frame_section_bytes(guest->frame, start, count_frames);
    guest->section = bench_map(guest->section_bytes, true);
    bench_expect(loam_frame_section_add(guest->frame, start, count_frames, guest->section, guest->section_bytes, NULL),
                 "section");
    guest->slab_bytes = loam_slab_bytes(&config);
    guest->metadata = bench_map(guest->slab_bytes, true);
    bench_expect(loam_slab_init(guest->metadata, guest->slab_bytes, &config, guest->frame, &guest->slab), "slab init");
}

static void guest_unmake(struct guest *guest)
{
    bench_expect(loam_slab_destroy(&guest->slab, NULL), "slab destroy");
    bench_unmap(guest->metadata, guest->slab_bytes);
    bench_unmap(guest->section, guest->section_bytes);
    bench_unmap(guest->frame, guest->frame_bytes);
    bench_unmap(guest->memory, GUEST_BYTES);
}

/* --- The two sides of each loop ---------------------------------------------------------------------------------- */

/* One of the two; the compiler makes a loop of its own for each. */
struct side {
    const struct peer *peer; /* NULL: Loam */
    struct loam_slab_cache *cache;
    enum loam_error (*alloc)(struct loam_slab_cache *cache, size_t bytes, struct loam_slab_object *object);
    enum loam_error (*free)(struct loam_slab_cache *cache, const void *hva, size_t bytes);
};

static struct side side_of(const struct peer *peer, struct loam_slab_cache *cache)
{
    return (struct side){peer, cache, loam_slab_alloc, loam_slab_free_hva};
}

ALWAYS_INLINE void *side_alloc(const struct side *side, bool loam, size_t bytes)
{
    struct loam_slab_object object;

    if (!loam) {
        return side->peer->alloc(bytes);
    }
    return side->alloc(side->cache, bytes, &object) == LOAM_OK ? object.hva : NULL;
}

ALWAYS_INLINE void side_free(const struct side *side, bool loam, void *object, size_t bytes)
{
    if (!loam) {
        side->peer->free(object);
    } else if (side->free(side->cache, object, bytes) != LOAM_OK) {
        bench_fail("slab: a free was refused");
    }
}

/* --- Allocate and free at once ----------------------------------------------------------------------------------- */

ALWAYS_INLINE double pair_loop(const struct side *side, bool loam, size_t bytes)
{
    uint64_t start = bench_now();

    for (uint64_t i = 0; i < PAIR_COUNT; i++) {
        void *object = side_alloc(side, loam, bytes);

        if (object == NULL) {
            bench_fail("slab: an allocation of %zu bytes failed", bytes);
        }
        *(volatile uint64_t *)object = i;
        side_free(side, loam, object, bytes);
    }
    return (double)(bench_now() - start) / PAIR_COUNT;
}

static double pair_loam(const struct bench_case *bench)
{
    struct guest guest;
    struct loam_slab_cache *cache;
    struct side side;
    double figure;

    guest_make(&guest);
    bench_expect(loam_slab_cache_make(&guest.slab, &cache), "cache");
    side = side_of(NULL, cache);
    figure = pair_loop(&side, true, bench->parameter);
    bench_expect(loam_slab_cache_destroy(&guest.slab, cache), "cache destroy");
    guest_unmake(&guest);
    return figure;
}

static double pair_peer(const struct bench_case *bench, unsigned index)
{
    const struct peer *peer = peer_at(index);
    struct side side = side_of(peer, NULL);

    return peer == NULL ? NAN : pair_loop(&side, false, bench->parameter);
}

static double pair_jemalloc(const struct bench_case *bench)
{
    return pair_peer(bench, PEER_JEMALLOC);
}

static double pair_mimalloc(const struct bench_case *bench)
{
    return pair_peer(bench, PEER_MIMALLOC);
}

/* --- One thread allocates, the other frees ----------------------------------------------------------------------- */

/* Objects from one thread to the other; the counts only grow. */
struct ring {
    _Alignas(64) _Atomic uint64_t written;
    _Alignas(64) _Atomic uint64_t read;
    _Alignas(64) void *slots[RING_SLOTS];
    size_t bytes;
};

struct end {
    struct ring *ring;
    struct side side;
};

/* Acquire pairs with the other end's release: the slots. A thread that waits long lets others have the processor. */
static void wait_above(const _Atomic uint64_t *count, uint64_t least)
{
    for (unsigned spins = 0; atomic_load_explicit(count, memory_order_acquire) < least; spins++) {
        if (spins < SPINS_MAX) {
            __builtin_ia32_pause();
        } else {
            sched_yield();
        }
    }
}

ALWAYS_INLINE void produce(const struct end *end, bool loam)
{
    struct ring *ring = end->ring;

    for (uint64_t i = 0; i < REMOTE_COUNT; i += RING_BATCH) {
        if (i >= RING_SLOTS) {
            wait_above(&ring->read, i + RING_BATCH - RING_SLOTS);
        }
        for (uint64_t j = i; j < i + RING_BATCH; j++) {
            void *object = side_alloc(&end->side, loam, ring->bytes);

            if (object == NULL) {
                bench_fail("slab: an allocation of %zu bytes failed", ring->bytes);
            }
            *(volatile uint64_t *)object = j;
            ring->slots[j % RING_SLOTS] = object;
        }
        atomic_store_explicit(&ring->written, i + RING_BATCH, memory_order_release);
    }
}

ALWAYS_INLINE void consume(const struct end *end, bool loam)
{
    struct ring *ring = end->ring;

    for (uint64_t i = 0; i < REMOTE_COUNT; i += RING_BATCH) {
        wait_above(&ring->written, i + RING_BATCH);
        for (uint64_t j = i; j < i + RING_BATCH; j++) {
            side_free(&end->side, loam, ring->slots[j % RING_SLOTS], ring->bytes);
        }
        atomic_store_explicit(&ring->read, i + RING_BATCH, memory_order_release);
    }
}

static void produce_loam(void *argument)
{
    produce(argument, true);
}

static void produce_peer(void *argument)
{
    produce(argument, false);
}

static void consume_loam(void *argument)
{
    consume(argument, true);
}

static void consume_peer(void *argument)
{
    consume(argument, false);
}

/* What both ends together take for an object. */
static double remote_run(size_t bytes, struct end *producer, struct end *consumer)
{
    static struct ring ring;
    bool loam = producer->side.peer == NULL;
    struct bench_thread threads[2] = {{.run = loam ? produce_loam : produce_peer, .argument = producer},
                                      {.run = loam ? consume_loam : consume_peer, .argument = consumer}};

    static_assert(REMOTE_COUNT % RING_BATCH == 0 && RING_SLOTS % RING_BATCH == 0, "whole batches");
    memset(&ring, 0, sizeof ring);
    ring.bytes = bytes;
    producer->ring = consumer->ring = &ring;
    return (double)bench_threads(threads, 2) / REMOTE_COUNT;
}

static double remote_loam(const struct bench_case *bench)
{
    struct guest guest;
    struct loam_slab_cache *caches[2];
    struct end producer, consumer;
    double figure;

    guest_make(&guest);
    for (unsigned i = 0; i < 2; i++) {
        bench_expect(loam_slab_cache_make(&guest.slab, &caches[i]), "cache");
    }
    producer.side = side_of(NULL, caches[0]);
    consumer.side = side_of(NULL, caches[1]);
    figure = remote_run(bench->parameter, &producer, &consumer);
    for (unsigned i = 0; i < 2; i++) {
        bench_expect(loam_slab_cache_destroy(&guest.slab, caches[i]), "cache destroy");
    }
    guest_unmake(&guest);
    return figure;
}

static double remote_peer(const struct bench_case *bench, unsigned index)
{
    const struct peer *peer = peer_at(index);
    struct end producer = {.side = side_of(peer, NULL)}, consumer = producer;

    return peer == NULL ? NAN : remote_run(bench->parameter, &producer, &consumer);
}

static double remote_jemalloc(const struct bench_case *bench)
{
    return remote_peer(bench, PEER_JEMALLOC);
}

static double remote_mimalloc(const struct bench_case *bench)
{
    return remote_peer(bench, PEER_MIMALLOC);
}

#define CASE(kind, size, peer_name, text)                                                                              \
    {                                                                                                                  \
        .name = "slab." #kind "." #size "." #peer_name, .what = text " of " #size " bytes, against " #peer_name,       \
        .unit = "ns", .better = BENCH_LESS, .goal = 1, .parameter = size, .loam = kind##_loam,                         \
        .reference = kind##_##peer_name,                                                                               \
    }

#define PAIR(size, peer_name)   CASE(pair, size, peer_name, "allocate and free at once, objects")
#define REMOTE(size, peer_name) CASE(remote, size, peer_name, "one thread allocates, another frees, objects")

const struct bench_case slab_cases[] = {
    PAIR(64, jemalloc),   PAIR(64, mimalloc),    PAIR(512, jemalloc),   PAIR(512, mimalloc), REMOTE(64, jemalloc),
    REMOTE(64, mimalloc), REMOTE(512, jemalloc), REMOTE(512, mimalloc), {.name = NULL},
};
