// SPDX-License-Identifier: Apache-2.0
#include "allocator/host/prim.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* Newer than Debian 12's headers, or hidden by some C library. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26 /* MFD_HUGE_SHIFT is the same */
#endif

/* How often a call is tried that was interrupted or told to come back: a stuck system must end in an error.
 */
#define ATTEMPT_MAX 1000

#define HEAP_ALIGN 64

static bool try_again(unsigned int *attempts)
{
    if ((errno != EINTR && errno != EAGAIN) || ++*attempts >= ATTEMPT_MAX) {
        return false;
    }
    if (errno == EAGAIN) {
        sched_yield();
    }
    return true;
}

static bool map_at(void *address, size_t bytes, int flags, int fd, off_t offset)
{
    return mmap(address, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd, offset) != MAP_FAILED;
}

static bool advise(void *address, size_t bytes, int advice)
{
    unsigned int attempts = 0;
    int result;

    do {
        result = madvise(address, bytes, advice);
    } while (result != 0 && try_again(&attempts));
    return result == 0;
}

bool LOAM_PRIM(reserve)(size_t bytes, void **address)
{
    void *mapped = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    *address = mapped == MAP_FAILED ? NULL : mapped;
    return mapped != MAP_FAILED;
}

bool LOAM_PRIM(map_fd)(void *address, size_t bytes, int fd, off_t offset)
{
    return map_at(address, bytes, MAP_SHARED, fd, offset);
}

bool LOAM_PRIM(map_anonymous)(void *address, size_t bytes, uint32_t huge_shift, bool no_reserve)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;

    if (huge_shift != 0) {
        flags |= (int)(MAP_HUGETLB | huge_shift << MAP_HUGE_SHIFT);
    }
    if (no_reserve) {
        flags |= MAP_NORESERVE;
    }
    return map_at(address, bytes, flags, -1, 0);
}

bool LOAM_PRIM(unmap)(void *address, size_t bytes)
{
    return munmap(address, bytes) == 0;
}

bool LOAM_PRIM(populate)(void *address, size_t bytes)
{
    return advise(address, bytes, MADV_POPULATE_WRITE);
}

bool LOAM_PRIM(discard)(void *address, size_t bytes, bool shared)
{
    return advise(address, bytes, shared ? MADV_REMOVE : MADV_DONTNEED);
}

bool LOAM_PRIM(advise_huge)(void *address, size_t bytes, bool huge)
{
    return advise(address, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

bool LOAM_PRIM(keep_from_children)(void *address, size_t bytes)
{
    return advise(address, bytes, MADV_DONTFORK);
}

bool LOAM_PRIM(keep_from_dumps)(void *address, size_t bytes)
{
    return advise(address, bytes, MADV_DONTDUMP);
}

bool LOAM_PRIM(bind_nodes)(void *address, size_t bytes, enum loam_prim_policy policy, uint64_t node_mask)
{
    static const int modes[] = {[LOAM_PRIM_POLICY_BIND] = MPOL_BIND,
                                [LOAM_PRIM_POLICY_PREFERRED] = MPOL_PREFERRED,
                                [LOAM_PRIM_POLICY_INTERLEAVE] = MPOL_INTERLEAVE};
    unsigned long nodes[] = {node_mask};

    static_assert(sizeof nodes == sizeof node_mask, "a word of the kernel's holds all nodes");
    /* The kernel reads one bit less than maxnode says. */
    return syscall(SYS_mbind, address, bytes, modes[policy], nodes, sizeof nodes * CHAR_BIT + 1,
                   MPOL_MF_MOVE | MPOL_MF_STRICT) == 0;
}

bool LOAM_PRIM(lock)(void *address, size_t bytes)
{
    unsigned int attempts = 0;
    int result;

    do {
        result = mlock2(address, bytes, 0); /* not mlock, which sanitizers turn into nothing */
    } while (result != 0 && try_again(&attempts));
    return result == 0;
}

/* The best that the kernel knows: MFD_NOEXEC_SEAL came with 6.3, sealing of hugetlb files with 4.16. */
static int create_memfd(const char *name, uint32_t huge_shift)
{
    static const unsigned int wishes[] = {MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL, MFD_ALLOW_SEALING, 0};
    unsigned int flags = MFD_CLOEXEC | (huge_shift != 0 ? MFD_HUGETLB | huge_shift << MAP_HUGE_SHIFT : 0);
    int fd = -1;

    for (size_t i = 0; fd < 0 && i < sizeof wishes / sizeof wishes[0]; i++) {
        fd = memfd_create(name, flags | wishes[i]);
        if (fd < 0 && errno != EINVAL) {
            break;
        }
    }
    return fd;
}

/* A file that grows beyond RLIMIT_FSIZE is refused with a signal that kills whoever does not expect it: so ask first. */
static bool may_have_file_of(size_t bytes)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur;
}

static bool size_and_seal(int fd, size_t bytes)
{
    unsigned int attempts = 0;
    int result;

    if (bytes > (size_t)INT64_MAX || !may_have_file_of(bytes)) {
        errno = EFBIG;
        return false;
    }
    do {
        result = ftruncate(fd, (off_t)bytes);
    } while (result != 0 && try_again(&attempts));
    if (result != 0) {
        return false;
    }
    /*
     * Not against seals to come either, a process that is lent the file could forbid writing to whoever maps it next.
     * EINVAL, EPERM: the file was made without sealing.
     */
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 || errno == EINVAL || errno == EPERM;
}

bool LOAM_PRIM(memfd)(const char *name, uint32_t huge_shift, size_t bytes, int *fd)
{
    int created = create_memfd(name, huge_shift);
    int saved;

    *fd = -1;
    if (created >= 0 && size_and_seal(created, bytes)) {
        *fd = created;
        return true;
    }
    saved = errno;
    if (created >= 0) {
        close(created);
    }
    errno = saved;
    return false;
}

bool LOAM_PRIM(duplicate)(int fd, int *copy)
{
    *copy = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* not where a program expects its standard streams */
    return *copy >= 0;
}

bool LOAM_PRIM(file_size)(int fd, uint64_t *bytes, uint64_t *page_bytes)
{
    struct statfs system;
    struct stat file;

    *bytes = 0;
    *page_bytes = 0;
    if (fstat(fd, &file) != 0 || fstatfs(fd, &system) != 0) {
        return false;
    }
    *bytes = file.st_size > 0 ? (uint64_t)file.st_size : 0;
    *page_bytes = system.f_type == HUGETLBFS_MAGIC ? (uint64_t)system.f_bsize : 4096;
    return true;
}

bool LOAM_PRIM(close)(int fd)
{
    return close(fd) == 0;
}

static bool moved(ssize_t result, size_t *moved_bytes)
{
    *moved_bytes = result > 0 ? (size_t)result : 0;
    return result >= 0;
}

bool LOAM_PRIM(read_vectors)(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes)
{
    return moved(offset == -1 ? readv(fd, vectors, (int)count) : preadv(fd, vectors, (int)count, offset), moved_bytes);
}

bool LOAM_PRIM(write_vectors)(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes)
{
    return moved(offset == -1 ? writev(fd, vectors, (int)count) : pwritev(fd, vectors, (int)count, offset),
                 moved_bytes);
}

bool LOAM_PRIM(thread_start)(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        *thread = (pthread_t){0};
        errno = error;
    }
    return error == 0;
}

void LOAM_PRIM(thread_join)(pthread_t thread)
{
    pthread_join(thread, NULL);
}

bool LOAM_PRIM(key_make)(void (*ended)(void *value), pthread_key_t *key)
{
    errno = pthread_key_create(key, ended);
    if (errno != 0) {
        *key = 0;
    }
    return errno == 0;
}

bool LOAM_PRIM(key_set)(pthread_key_t key, const void *value)
{
    errno = pthread_setspecific(key, value);
    return errno == 0;
}

void LOAM_PRIM(key_drop)(pthread_key_t key)
{
    pthread_key_delete(key);
}

/*
 * calloc, not posix_memalign and memset: it takes large blocks from the kernel, zeroed, and touches none of
 * them. What it returned stands in the word before the aligned block.
 */
bool LOAM_PRIM(heap_alloc)(size_t bytes, void **memory)
{
    char *block =
        bytes > SIZE_MAX - HEAP_ALIGN - sizeof(void *) ? NULL : (char *)calloc(1, bytes + HEAP_ALIGN + sizeof(void *));
    size_t start = sizeof(void *);

    *memory = NULL;
    if (block == NULL) {
        errno = ENOMEM;
        return false;
    }
    start += -((uintptr_t)block + start) % HEAP_ALIGN;
    memcpy(block + start - sizeof(void *), &block, sizeof(void *));
    *memory = block + start;
    return true;
}

void LOAM_PRIM(heap_free)(void *memory)
{
    void *block = NULL;

    if (memory != NULL) {
        memcpy(&block, (char *)memory - sizeof(void *), sizeof(void *));
    }
    free(block);
}

/* sched_getaffinity(2) refuses a set smaller than the kernel's own with EINVAL. */
uint32_t LOAM_PRIM(cpu_count)(void)
{
    uint32_t count = 0;

    for (size_t cpus = CPU_SETSIZE; count == 0 && cpus <= CPU_SETSIZE * 64; cpus *= 4) {
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        cpu_set_t *set = CPU_ALLOC(cpus);

        if (set == NULL) {
            break;
        }
        if (sched_getaffinity(0, bytes, set) == 0) {
            count = (uint32_t)CPU_COUNT_S(bytes, set);
        }
        CPU_FREE(set);
    }
    return count > 0 ? count : 1;
}

/* Fill text, whose last byte is kept for the end of the string. EFBIG when there is more. */
static bool read_all(int fd, char *text, size_t bytes)
{
    unsigned int attempts = 0;
    size_t used = 0;

    for (;;) {
        ssize_t got = read(fd, text + used, bytes - used);

        if (got < 0 && try_again(&attempts)) {
            continue;
        }
        if (got <= 0) {
            text[got < 0 ? 0 : used] = '\0';
            return got == 0;
        }
        used += (size_t)got;
        if (used == bytes) {
            text[0] = '\0';
            errno = EFBIG;
            return false;
        }
    }
}

bool LOAM_PRIM(read_text)(const char *path, char *text, size_t bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int saved;
    bool ok;

    text[0] = '\0';
    if (fd < 0) {
        return false;
    }
    ok = read_all(fd, text, bytes);
    saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

/* --- Limits ------------------------------------------------------------------------------------------------------ */

/* A capability goes beyond limits only in the host's own user namespace, where every user has the number it has outside. */
static bool in_first_user_namespace(void)
{
    char text[128];
    unsigned int inside, outside, count;
    int fields = LOAM_PRIM(read_text)("/proc/self/uid_map", text, sizeof text)
                     ? sscanf(text, "%u %u %u", &inside, &outside, &count)
                     : 0;

    return fields == 0 || (fields == 3 && inside == 0 && outside == 0 && count == UINT32_MAX);
}

static bool has_capability(unsigned int capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    return syscall(SYS_capget, &header, data) == 0 &&
           (data[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability)) != 0 && in_first_user_namespace();
}

/* Whether the kernel lets this process go beyond (mlock(2); fork(2), EAGAIN). */
static bool goes_beyond(enum loam_prim_limit which)
{
    if (which == LOAM_PRIM_LIMIT_LOCKED) {
        return has_capability(CAP_IPC_LOCK);
    }
    return which == LOAM_PRIM_LIMIT_THREADS && ((getuid() == 0 && in_first_user_namespace()) ||
                                                has_capability(CAP_SYS_RESOURCE) || has_capability(CAP_SYS_ADMIN));
}

bool LOAM_PRIM(limit)(enum loam_prim_limit which, uint64_t *value)
{
    static const int resources[LOAM_PRIM_LIMIT_COUNT] = {
        [LOAM_PRIM_LIMIT_ADDRESS_SPACE] = RLIMIT_AS, [LOAM_PRIM_LIMIT_DATA] = RLIMIT_DATA,
        [LOAM_PRIM_LIMIT_FILE_SIZE] = RLIMIT_FSIZE,  [LOAM_PRIM_LIMIT_STACK] = RLIMIT_STACK,
        [LOAM_PRIM_LIMIT_LOCKED] = RLIMIT_MEMLOCK,   [LOAM_PRIM_LIMIT_THREADS] = RLIMIT_NPROC,
    };
    struct rlimit limit;

    *value = 0;
    if (getrlimit((__rlimit_resource_t)resources[which], &limit) != 0) {
        return false;
    }
    *value = limit.rlim_cur == RLIM_INFINITY || goes_beyond(which) ? UINT64_MAX : limit.rlim_cur;
    return true;
}

/* Threads of a process, if its real user is this one; 0 where it is gone meanwhile. */
static uint64_t threads_of(const char *process, uid_t user)
{
    char path[64], text[8192];
    const char *uid, *threads;

    snprintf(path, sizeof path, "/proc/%.20s/status", process);
    if (!LOAM_PRIM(read_text)(path, text, sizeof text) || (uid = strstr(text, "\nUid:\t")) == NULL ||
        (threads = strstr(text, "\nThreads:\t")) == NULL || strtoul(uid + 6, NULL, 10) != user) {
        return 0;
    }
    return strtoull(threads + 10, NULL, 10);
}

bool LOAM_PRIM(user_threads)(uint64_t *count)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;

    *count = 0;
    if (processes == NULL) {
        return false;
    }
    while ((entry = readdir(processes)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0])) {
            *count += threads_of(entry->d_name, getuid());
        }
    }
    closedir(processes);
    return true;
}

bool LOAM_PRIM(barrier_register)(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

bool LOAM_PRIM(barrier)(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

/* --- Waiting for other threads ---------------------------------------------------------------------------------- */

bool LOAM_PRIM(wait)(const void *word, uint32_t value, uint64_t nanoseconds)
{
    struct timespec limit = {(time_t)(nanoseconds / 1000000000), (long)(nanoseconds % 1000000000)};

    if (syscall(SYS_futex, word, FUTEX_WAIT, value, &limit, NULL, 0) == 0 || errno == EAGAIN || errno == EINTR) {
        return true;
    }
    if (errno != ETIMEDOUT) {
        nanosleep(&limit, NULL);
    }
    return false;
}

void LOAM_PRIM(wake)(const void *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

uint32_t LOAM_PRIM(process_id)(void)
{
    return (uint32_t)getpid();
}

uint32_t LOAM_PRIM(thread_id)(void)
{
    return (uint32_t)syscall(SYS_gettid);
}

bool LOAM_PRIM(thread_space)(uint64_t *space)
{
    struct stat found;

    *space = 0;
    if (stat("/proc/self/ns/pid", &found) != 0) {
        return false;
    }
    *space = found.st_ino;
    return true;
}

/* A line of /proc/self/maps, "START-END PERMISSIONS ...": whether it is of a private mapping with address in it. */
static bool is_private_at(const char *line, uintptr_t address)
{
    unsigned long start, end;
    char permissions[5];

    return sscanf(line, "%lx-%lx %4s", &start, &end, permissions) == 3 && start <= address && address < end &&
           permissions[3] == 'p';
}

/* False if there is no telling. A line's beginning is all that is looked at, so that its length does not matter. */
static bool memory_is_private(const void *memory)
{
    char text[512], line[64];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    bool is_private = false;
    size_t used = 0;
    ssize_t got;

    while (fd >= 0 && !is_private && (got = read(fd, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < got && !is_private; i++) {
            if (text[i] != '\n') {
                line[used] = text[i];
                used += used < sizeof line - 1;
                continue;
            }
            line[used] = '\0';
            is_private = is_private_at(line, (uintptr_t)memory);
            used = 0;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return is_private;
}

/* Ended, and not yet waited for by its parent: "NUMBER (NAME) STATE ...". */
static bool is_zombie(uint32_t thread)
{
    char path[32], text[512];
    const char *name_end;

    snprintf(path, sizeof path, "/proc/%u/stat", thread);
    if (!LOAM_PRIM(read_text)(path, text, sizeof text)) {
        return false;
    }
    name_end = strrchr(text, ')');
    return name_end != NULL && name_end[1] == ' ' && (name_end[2] == 'Z' || name_end[2] == 'X');
}

bool LOAM_PRIM(thread_gone)(uint32_t thread, bool same_space, const void *memory)
{
    /* EPERM: it is there, and another user's; or a filter refuses the question. */
    bool ours = syscall(SYS_tgkill, getpid(), thread, 0) == 0 || errno != ESRCH;

    if (!ours && memory_is_private(memory)) {
        return true;
    }
    if (!ours && !same_space) {
        return false;
    }
    return (!ours && syscall(SYS_tkill, thread, 0) != 0 && errno == ESRCH) || is_zombie(thread);
}

bool LOAM_PRIM(at_fork)(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    errno = pthread_atfork(prepare, parent, child);
    return errno == 0;
}
