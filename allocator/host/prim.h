// SPDX-License-Identifier: Apache-2.0
/*
 * The system calls that the allocator makes, each behind one function, so that a test can link a fake which records
 * them and fails any chosen one. Nothing else under allocator/ calls the system.
 *
 * Blanket pre-conditions: addresses and sizes are multiples of the page size that the call works with, sizes are not
 * zero, pointers are not NULL, descriptors are open. A function returns true on success; on failure it returns false
 * with errno set, outputs zero, and nothing done. Any thread.
 */
#ifndef LOAM_PRIM_H
#define LOAM_PRIM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The test fake includes this header twice: types stand behind a guard of their own. */
#ifndef LOAM_PRIM_TYPES
#define LOAM_PRIM_TYPES

/* getrlimit(2). In bytes, but for THREADS. */
enum loam_prim_limit {
    LOAM_PRIM_LIMIT_ADDRESS_SPACE, /* RLIMIT_AS */
    LOAM_PRIM_LIMIT_DATA,          /* RLIMIT_DATA: private memory that can be written */
    LOAM_PRIM_LIMIT_FILE_SIZE,     /* RLIMIT_FSIZE: of each file */
    LOAM_PRIM_LIMIT_STACK,         /* RLIMIT_STACK: what a new thread gets */
    LOAM_PRIM_LIMIT_LOCKED,        /* RLIMIT_MEMLOCK */
    LOAM_PRIM_LIMIT_THREADS,       /* RLIMIT_NPROC: threads of this user, wherever they run */
    LOAM_PRIM_LIMIT_COUNT
};

/* mbind(2). */
enum loam_prim_policy {
    LOAM_PRIM_POLICY_BIND,      /* MPOL_BIND: from these nodes, and no others */
    LOAM_PRIM_POLICY_PREFERRED, /* MPOL_PREFERRED: one node, and others once it has no more */
    LOAM_PRIM_POLICY_INTERLEAVE /* MPOL_INTERLEAVE: these nodes in turn */
};

#endif

/* The test fake compiles the real functions under other names beside its own. */
#ifndef LOAM_PRIM
#define LOAM_PRIM(name) loam_prim_##name
#endif

/* --- Address space: mmap(2), munmap(2), madvise(2), mbind(2), mlock2(2) ---------------------------------------- */

/* Reserve address space without memory or access. */
bool LOAM_PRIM(reserve)(size_t bytes, void **address);

/*
 * Map fd from offset on at [address, address + bytes); shared, readable and writable. Nothing is ever replaced: errno
 * is EEXIST where something is mapped there. (A call that replaces would, when it fails on kernels before 6.12, leave a
 * hole that another thread may have filled before its caller could clean up.)
 */
bool LOAM_PRIM(map_fd)(void *address, size_t bytes, int fd, off_t offset);

/*
 * The same with private anonymous memory. huge_shift: 0 for ordinary pages, else log2 of the hugetlb page, whose pages
 * are reserved in the pool at once. no_reserve: ordinary pages are not counted against the commit limit; false for
 * hugetlb.
 */
bool LOAM_PRIM(map_anonymous)(void *address, size_t bytes, uint32_t huge_shift, bool no_reserve);

bool LOAM_PRIM(unmap)(void *address, size_t bytes);

/*
 * Give every page of the range its memory, as if written; contents stay. The calling thread's node and policy decide
 * where. Part may be populated on failure. EFAULT: a write would have raised SIGBUS. Needs Linux 5.14; EINVAL before
 * it.
 */
bool LOAM_PRIM(populate)(void *address, size_t bytes);

/*
 * Give the memory of the range back, that of the file behind a shared mapping with it; it reads as zero afterwards, and
 * has memory again once it is written or populated. EINVAL: it is locked, or private hugetlb pages before Linux 5.18.
 */
bool LOAM_PRIM(discard)(void *address, size_t bytes, bool shared);

/* Ask for transparent huge pages in the range, or forbid them. */
bool LOAM_PRIM(advise_huge)(void *address, size_t bytes, bool huge);

/* Children of fork(2) do not have the range: nothing is mapped there. */
bool LOAM_PRIM(keep_from_children)(void *address, size_t bytes);

/* Core dumps leave the range out. */
bool LOAM_PRIM(keep_from_dumps)(void *address, size_t bytes);

/*
 * Say which NUMA nodes the range's memory comes from, present and future; bit n of node_mask: node n. EINVAL: none of
 * them is there; those that are not are left out where others are.
 */
bool LOAM_PRIM(bind_nodes)(void *address, size_t bytes, enum loam_prim_policy policy, uint64_t node_mask);

/* Lock the range in memory; pages not there yet are populated. */
bool LOAM_PRIM(lock)(void *address, size_t bytes);

/* --- Files: memfd_create(2), ftruncate(2), close(2), readv(2), writev(2) and with an offset --------------------- */

/*
 * An anonymous file, close-on-exec, not executable, and sealed against shrinking, growing and any further seal once
 * sized, as far as the kernel can. huge_shift as above. The name is of at most 249 bytes. EFBIG: RLIMIT_FSIZE is
 * smaller; the SIGXFSZ that goes with it is not raised.
 */
bool LOAM_PRIM(memfd)(const char *name, uint32_t huge_shift, size_t bytes, int *fd);

/* Another descriptor of the same open file, close-on-exec. */
bool LOAM_PRIM(duplicate)(int fd, int *copy);

/* How large the file is that fd is open on, and the pages that mapping it maps: those of hugetlbfs, else 4,096 bytes. */
bool LOAM_PRIM(file_size)(int fd, uint64_t *bytes, uint64_t *page_bytes);

/* The descriptor is gone even when this fails: never call it twice. */
bool LOAM_PRIM(close)(int fd);

/*
 * Move bytes from fd to memory, or from memory to fd, once: as many as the system takes. offset: where in the file; -1: at
 * the descriptor's position, which moves on. count is 1 to 1024. *moved_bytes is 0 where a file ends. EINTR, EAGAIN: as
 * the system says.
 */
bool LOAM_PRIM(read_vectors)(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes);
bool LOAM_PRIM(write_vectors)(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes);

/* --- Threads and the host's figures ---------------------------------------------------------------------------- */

/* The thread blocks all signals: they are for the threads of the program. */
bool LOAM_PRIM(thread_start)(pthread_t *thread, void *(*run)(void *), void *argument);

/* Never fails. */
void LOAM_PRIM(thread_join)(pthread_t thread);

/*
 * A key under which each thread has a value, NULL at first. Who ends with another has ended called with it, and once more
 * where it was set again meanwhile. EAGAIN: the process has no more keys.
 */
bool LOAM_PRIM(key_make)(void (*ended)(void *value), pthread_key_t *key);
/* The calling thread's value. ENOMEM: none. */
bool LOAM_PRIM(key_set)(pthread_key_t key, const void *value);
/* Nobody's end is told any more, but where that is under way. Never fails. */
void LOAM_PRIM(key_drop)(pthread_key_t key);

/* Heap, zeroed, aligned to 64; for objects and metadata, never for guest memory. */
bool LOAM_PRIM(heap_alloc)(size_t bytes, void **memory);
/* NULL is allowed. */
void LOAM_PRIM(heap_free)(void *memory);

/* Processors that this thread may run on; at least 1. */
uint32_t LOAM_PRIM(cpu_count)(void);

/* A small file, such as one under /proc or /sys, as a string of at most bytes - 1 characters; more are an error
 * (EFBIG). */
bool LOAM_PRIM(read_text)(const char *path, char *text, size_t bytes);

/* The soft limit; UINT64_MAX when there is none, or when the caller has a right to go beyond it. */
bool LOAM_PRIM(limit)(enum loam_prim_limit which, uint64_t *value);

/* Threads of this process's user, as far as /proc shows them: one file a process is read. ENOENT: there is no /proc. */
bool LOAM_PRIM(user_threads)(uint64_t *count);

/* --- Threads of this process: membarrier(2), private expedited -------------------------------------------------- */

/* Make barrier possible; may be called again. ENOSYS, EINVAL: the kernel lacks it (Linux 4.14 has it). */
bool LOAM_PRIM(barrier_register)(void);

/*
 * Every thread of the process passes a full memory barrier before this returns true. After barrier_register. Errno is
 * whatever a filter of system calls answers that the program has set since.
 */
bool LOAM_PRIM(barrier)(void);

/* --- Waiting for other threads: futex(2), gettid(2), tgkill(2) --------------------------------------------------- */

/*
 * Sleep while the 32 bits at word are value, until woken, at most so long. True: woken, or they were not value, or for
 * no reason at all. False: time has passed. A system that refuses to wait lets the time pass. Between processes too.
 */
bool LOAM_PRIM(wait)(const void *word, uint32_t value, uint64_t nanoseconds);

/* Wake one thread that waits at word, of those with the highest priority the one that came first. Never fails. */
void LOAM_PRIM(wake)(const void *word);

/* The process's number, another in a child of fork(2). */
uint32_t LOAM_PRIM(process_id)(void);

/* The calling thread's number in its PID namespace: 1 to 2^22. */
uint32_t LOAM_PRIM(thread_id)(void);

/* A number that threads of one PID namespace have in common, and those of two seldom. */
bool LOAM_PRIM(thread_space)(uint64_t *space);

/*
 * Whether a thread that wrote its number at memory has ended, or is not in this copy of the memory's process: private
 * memory is used by this process alone. same_space: its number is one of this thread's PID namespace. False if there
 * is no telling.
 */
bool LOAM_PRIM(thread_gone)(uint32_t thread, bool same_space, const void *memory);

/* Call them around fork(2), as pthread_atfork; NULL: nothing. */
bool LOAM_PRIM(at_fork)(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
