// SPDX-License-Identifier: Apache-2.0
/*
 * What a test holds of the real host, so that it can prove that nothing leaks; and a hugepage pool raised for a test.
 *
 *     struct host_state before = host_state_take();
 *     ... create, use and destroy ...
 *     cr_assert(host_state_unchanged(&before));
 *
 * Mappings counted are those that Loam makes and that a C library does not: of memfds, of hugetlb pages, without access
 * and of at least 64 KiB (guards and reservations), and with advice on transparent huge pages. Heap, stacks and arenas
 * of malloc are not. Under a sanitizer, which reserves and advises memory of its own, only memfds and hugetlb pages
 * are.
 *
 * Threads: one at a time, and while nothing else changes the process. Figures of the pools are the whole machine's:
 * tests that look at them run alone (tag "exclusive").
 */
#ifndef LOAM_TESTS_HOST_STATE_H
#define LOAM_TESTS_HOST_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The pools: 2 MiB and 1 GiB. */
#define HOST_POOL_COUNT 2

/* Pages of one pool; all 0 where the host has no such pool. */
struct host_pool_state {
    uint64_t total;
    uint64_t free;     /* of them; those reserved too */
    uint64_t reserved; /* promised to mappings and not yet given */
    uint64_t surplus;
};

struct host_state {
    uint32_t mapping_count;
    uint64_t mapping_bytes;
    uint32_t fd_count;
    uint32_t thread_count;
    bool process_only; /* the pools are all 0 */
    struct host_pool_state pools[HOST_POOL_COUNT];
};

struct host_state host_state_take(void);

/* The same without the pools, for tests that take no hugepages and may run beside others that do. */
struct host_state host_state_take_process(void);

/* Whether private memory and reservations are counted: not under a sanitizer. */
bool host_state_counts_private(void);

/*
 * Whether the host is as it was. The kernel takes its time to bury a thread that was joined and to free huge pages, so
 * a difference counts when it has lasted a second; then it goes to stderr, one line a figure.
 */
bool host_state_unchanged(const struct host_state *before);

/* Pages that a new mapping can reserve: free - reserved. page_bytes: 2 MiB or 1 GiB. */
uint64_t host_pool_available(uint64_t page_bytes);

/*
 * A file under /proc or /sys that holds a setting, changed for a test. A process of its own holds the old value and
 * writes it back when the test ends, however it ends: the host is as it was also after a crash. Start it as {0}.
 */
struct host_setting {
    pid_t keeper; /* 0: nothing to restore */
    int pipe;     /* closed: the keeper restores */
    char reason[256];
};

/*
 * Write text to the file at path. False: it cannot be done, nothing is changed, and reason says why in one line, for
 * cr_skip. Call it before anything is mapped.
 */
bool host_setting_change(struct host_setting *setting, const char *path, const char *text);

/* Back to the old value. Harmless where nothing was changed. */
void host_setting_restore(struct host_setting *setting);

/*
 * See to it that at least page_count pages of page_bytes are available: raise the pool if need be. False: they cannot
 * be had (no such pages, not root, memory too fragmented), the pool is as it was, and pool->reason says why. Pages in
 * use when the pool is restored become surplus: give everything back first.
 */
bool host_pool_raise(struct host_setting *pool, uint64_t page_bytes, uint64_t page_count);

#endif
