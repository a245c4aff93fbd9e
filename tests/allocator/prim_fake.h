// SPDX-License-Identifier: Apache-2.0
/*
 * The test's own loam_prim_*: each hands on to the real system call, keeps an account of what is live, records the
 * call, and fails any that the test chose. Link //tests/allocator:prim_fake in place of //allocator:prim.
 *
 *     for (uint32_t n = 1;; n++) {
 *         prim_fake_fail(PRIM_ANY, n, 1, ENOMEM);
 *         error = thing_create(&thing, &diag);
 *         if (prim_fake_failed_count() == 0) break;      // fewer than n calls were made: all points have been tried
 *         cr_assert(error != LOAM_OK && prim_fake_clean());
 *     }
 *
 * Misuse ends the test with abort() and a line on stderr: a range unmapped, populated, discarded, advised, bound or locked that is
 * not mapped, a descriptor that is not open, memory freed twice, a thread joined twice, arguments outside prim.h's
 * pre-conditions.
 *
 * Threads: the loam_prim_* from any, as the real ones. The prim_fake_* queries from any; what sets up (fail, script,
 * forget) while no call is under way.
 */
#ifndef LOAM_TESTS_PRIM_FAKE_H
#define LOAM_TESTS_PRIM_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The calls of prim.h. Those after PRIM_FALLIBLE_COUNT cannot fail: they are recorded, but no failure counts or meets
 * them. */
enum prim_kind {
    PRIM_RESERVE,
    PRIM_MAP_FD,
    PRIM_MAP_ANONYMOUS,
    PRIM_UNMAP,
    PRIM_POPULATE,
    PRIM_DISCARD,
    PRIM_ADVISE_HUGE,
    PRIM_KEEP_FROM_CHILDREN,
    PRIM_KEEP_FROM_DUMPS,
    PRIM_BIND_NODES,
    PRIM_LOCK,
    PRIM_MEMFD,
    PRIM_DUPLICATE,
    PRIM_FILE_SIZE,
    PRIM_CLOSE, /* a failed close has closed, as on Linux */
    PRIM_READ_VECTORS,
    PRIM_WRITE_VECTORS,
    PRIM_THREAD_START,
    PRIM_KEY_MAKE,
    PRIM_KEY_SET,
    PRIM_HEAP_ALLOC,
    PRIM_READ_TEXT,
    PRIM_LIMIT,
    PRIM_USER_THREADS,
    PRIM_FALLIBLE_COUNT,
    PRIM_THREAD_JOIN = PRIM_FALLIBLE_COUNT,
    PRIM_KEY_DROP,
    PRIM_HEAP_FREE,
    PRIM_CPU_COUNT,
    PRIM_KIND_COUNT,
    PRIM_ANY = PRIM_KIND_COUNT /* for prim_fake_fail: every kind that can fail */
};

/* "reserve", "map_fd", ... */
const char *prim_kind_name(enum prim_kind kind);

/* --- Failures --------------------------------------------------------------------------------------------------- */

/*
 * From now on, fail the calls of this kind whose number is in [first, first + count), counted from 1 at this call. They
 * do nothing (close: closes), set errno to error_number, and return false with their outputs zero. Replaces all earlier
 * failures.
 */
void prim_fake_fail(enum prim_kind kind, uint32_t first, uint32_t count, int error_number);

/* The same beside earlier failures, at most 16 in all; their counts go on, and prim_fake_failed_count too. */
void prim_fake_fail_also(enum prim_kind kind, uint32_t first, uint32_t count, int error_number);

/* No more failures. */
void prim_fake_fail_none(void);

/* Calls failed on purpose since the last prim_fake_fail. */
uint32_t prim_fake_failed_count(void);

/* --- Scripts: what the host is said to be ------------------------------------------------------------------------- */

/* read_text of path answers text, which is copied; EFBIG where it does not fit. Replaces an earlier answer for the
 * path. */
void prim_fake_script_text(const char *path, const char *text);

/* read_text of path fails with error_number. */
void prim_fake_script_text_error(const char *path, int error_number);

/* Paths without a script: read from the host (false, the start), or ENOENT (true), so that a test depends on no host.
 */
void prim_fake_script_only(bool only);

/*
 * limit of that kind answers value, or fails with error_number (0: answers). Limits without a script: the process's own,
 * or none at all with script_only. which is an enum loam_prim_limit.
 */
void prim_fake_script_limit(int which, uint64_t value);
void prim_fake_script_limit_error(int which, int error_number);

/* user_threads answers count; 0: counts again. */
void prim_fake_script_user_threads(uint64_t count);

/* cpu_count answers count; 0: the host's own again. */
void prim_fake_script_cpu_count(uint32_t count);

/* Forget all scripts. */
void prim_fake_script_none(void);

/* --- The account of what is live ---------------------------------------------------------------------------------- */

struct prim_fake_live {
    uint32_t mapping_count; /* maximal runs of mapped or reserved address space */
    uint64_t mapped_bytes;  /* in them */
    uint32_t fd_count;
    uint32_t heap_count;
    uint64_t heap_bytes;
    uint32_t thread_count; /* started and not joined */
    uint32_t key_count;
};

struct prim_fake_live prim_fake_live(void);

/* Whether nothing is live; if not, what is goes to stderr. */
bool prim_fake_clean(void);

/* --- The record of the calls -------------------------------------------------------------------------------------- */

/* One call. Members that the call has no argument for are 0; fd is then -1. */
struct prim_fake_record {
    enum prim_kind kind;
    bool ok;
    bool on_purpose;  /* failed by prim_fake_fail */
    int error_number; /* 0 when ok */
    const void *
        address; /* argument or result: reserve, map_*, unmap, populate, discard, advise_huge, bind_nodes, lock, heap_* */
    uint64_t bytes;      /* argument; limit, user_threads, read_vectors, write_vectors: the result */
    int fd;              /* argument; memfd: its result */
    uint64_t offset;     /* map_fd, read_vectors, write_vectors */
    uint32_t huge_shift; /* map_anonymous, memfd */
    bool flag;           /* map_anonymous: no_reserve; advise_huge: huge; discard: shared */
    uint32_t value;      /* key_*: key; bind_nodes: policy; cpu_count: its result; limit: which; *_vectors: count */
    uint64_t node_mask;  /* bind_nodes */
    pthread_t thread;    /* that called */
    char text[96];       /* memfd: name; read_text: path; cut if longer */
};

uint32_t prim_fake_record_count(void);

/* A copy of record number index < prim_fake_record_count(), in the order in which the calls ended. */
struct prim_fake_record prim_fake_record(uint32_t index);

/* Calls of this kind recorded, failed or not; PRIM_ANY: of all kinds. */
uint32_t prim_fake_call_count(enum prim_kind kind);

/* All records to stderr, one a line. */
void prim_fake_print(void);

/* Empty the record; account, failures and scripts stay. */
void prim_fake_forget(void);

#endif
