// SPDX-License-Identifier: Apache-2.0
/* The real system calls, reached through the fake, and the fake itself. */
#include "allocator/host/prim.h"
#include "tests/allocator/host_state.h"
#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB       1024u
#define MIB       (1024u * KIB)
#define PAGE      4096u
#define NO_SEALS  0x0002u /* MFD_ALLOW_SEALING */
#define NO_NOEXEC 0x0008u /* MFD_NOEXEC_SEAL */

static struct host_state before;

static void take(void)
{
    before = host_state_take_process();
}

static void check(void)
{
    cr_assert(prim_fake_clean());
    cr_assert(host_state_unchanged(&before));
}

TestSuite(prim, .init = take, .fini = check);

/* From now on the kernel answers error_number to system call number, where (argument & mask) != 0. */
static void refuse(uint32_t number, uint32_t argument, uint32_t mask, uint32_t error_number)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args) + 8 * argument),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, mask, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error_number),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};

    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* --- Calls that fail at first; linked with --wrap ----------------------------------------------------------------- */

int __real_madvise(void *address, size_t bytes, int advice);
int __real_mlock2(const void *address, size_t bytes, unsigned int flags);
int __real_ftruncate(int fd, off_t bytes);
ssize_t __real_read(int fd, void *bytes, size_t count);
int __real_sched_yield(void);
int __real_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *argument);
int __wrap_madvise(void *address, size_t bytes, int advice);
int __wrap_mlock2(const void *address, size_t bytes, unsigned int flags);
int __wrap_ftruncate(int fd, off_t bytes);
ssize_t __wrap_read(int fd, void *bytes, size_t count);
int __wrap_sched_yield(void);
int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *argument);

static uint32_t failures_to_come;
static int failure;
static atomic_uint yield_count;

static void fail_next(uint32_t count, int error_number)
{
    failures_to_come = count;
    failure = error_number;
}

static bool fails(void)
{
    if (failures_to_come == 0) {
        return false;
    }
    failures_to_come--;
    errno = failure;
    return true;
}

int __wrap_madvise(void *address, size_t bytes, int advice)
{
    return fails() ? -1 : __real_madvise(address, bytes, advice);
}

int __wrap_mlock2(const void *address, size_t bytes, unsigned int flags)
{
    return fails() ? -1 : __real_mlock2(address, bytes, flags);
}

int __wrap_ftruncate(int fd, off_t bytes)
{
    return fails() ? -1 : __real_ftruncate(fd, bytes);
}

static const char *next_read; /* what the next call of read finds; NULL: what there is */

ssize_t __wrap_read(int fd, void *bytes, size_t count)
{
    if (next_read != NULL) {
        size_t length = strlen(next_read);

        cr_assert_leq(length, count);
        memcpy(bytes, next_read, length);
        next_read = length == 0 ? NULL : "";
        return (ssize_t)length;
    }
    return fails() ? -1 : __real_read(fd, bytes, count);
}

int __wrap_sched_yield(void)
{
    atomic_fetch_add(&yield_count, 1);
    return __real_sched_yield();
}

static size_t kernel_set_bytes; /* the kernel's own set of processors is at least as large */

int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set)
{
    if (bytes < kernel_set_bytes) {
        errno = EINVAL;
        return -1;
    }
    return __real_sched_getaffinity(process, bytes, set);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *argument)
{
    if (fails()) {
        errno = 0; /* pthread_create says it by its result alone */
        return failure;
    }
    return __real_pthread_create(thread, how, run, argument);
}

/* Address space with nothing in it. */
static char *free_space(size_t bytes)
{
    void *address;

    cr_assert(loam_prim_reserve(bytes, &address));
    cr_assert(loam_prim_unmap(address, bytes));
    return address;
}

static char *anonymous(size_t bytes)
{
    char *address = free_space(bytes);

    cr_assert(loam_prim_map_anonymous(address, bytes, 0, false));
    return address;
}

static size_t resident_pages(void *address, size_t bytes)
{
    unsigned char *present = calloc(bytes / PAGE, 1);
    size_t count = 0;

    cr_assert_eq(mincore(address, bytes, present), 0);
    for (size_t i = 0; i < bytes / PAGE; i++) {
        count += present[i] & 1;
    }
    free(present);
    return count;
}

/* --- Address space ------------------------------------------------------------------------------------------------ */

Test(prim, memory_is_never_mapped_over_anything)
{
    char *address = anonymous(3 * PAGE);
    int fd;

    address[PAGE] = 7;
    cr_assert(loam_prim_memfd("test", 0, PAGE, &fd));
    cr_assert(!loam_prim_map_fd(address + PAGE, PAGE, fd, 0));
    cr_assert_eq(errno, EEXIST);
    cr_assert(!loam_prim_map_anonymous(address + PAGE, PAGE, 0, false));
    cr_assert_eq(errno, EEXIST);
    cr_assert_eq(address[PAGE], 7);
    cr_assert(loam_prim_close(fd));
    cr_assert(loam_prim_unmap(address, 3 * PAGE));
}

Test(prim, populate_gives_every_page_and_keeps_contents)
{
    char *address = anonymous(MIB);

    cr_assert(loam_prim_advise_huge(address, MIB, false));
    address[5 * PAGE] = 42;
    cr_assert_eq(resident_pages(address, MIB), 1);
    cr_assert(loam_prim_populate(address, MIB));
    cr_assert_eq(resident_pages(address, MIB), MIB / PAGE);
    cr_assert_eq(address[5 * PAGE], 42);
    cr_assert(loam_prim_unmap(address, MIB));
}

Test(prim, populate_answers_where_a_touch_would_kill)
{
    char *address = free_space(2 * PAGE);
    int fd;

    cr_assert(loam_prim_memfd("test", 0, PAGE, &fd));
    cr_assert(loam_prim_map_fd(address, 2 * PAGE, fd, 0), "one page more than the file has");
    cr_assert(!loam_prim_populate(address, 2 * PAGE));
    cr_assert_eq(errno, EFAULT);
    cr_assert(loam_prim_close(fd));
    cr_assert(loam_prim_unmap(address, 2 * PAGE));
}

Test(prim, memory_binds_to_a_node_that_is_there)
{
    static const int modes[] = {[LOAM_PRIM_POLICY_BIND] = MPOL_BIND,
                                [LOAM_PRIM_POLICY_PREFERRED] = MPOL_PREFERRED,
                                [LOAM_PRIM_POLICY_INTERLEAVE] = MPOL_INTERLEAVE};
    char *address = anonymous(PAGE);
    unsigned long nodes = 0;
    int mode = -1;

    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        cr_assert(loam_prim_bind_nodes(address, PAGE, (enum loam_prim_policy)i, 1) || errno == ENOSYS);
        if (syscall(SYS_get_mempolicy, &mode, &nodes, sizeof nodes * 8, address, MPOL_F_ADDR) == 0) {
            cr_expect_eq(mode, modes[i]);
            cr_expect_eq(nodes, 1);
        }
    }
    for (uint32_t node = 1; node < 64; node++) {
        char path[64];

        snprintf(path, sizeof path, "/sys/devices/system/node/node%" PRIu32, node);
        cr_expect(!loam_prim_bind_nodes(address, PAGE, LOAM_PRIM_POLICY_BIND, UINT64_C(1) << node) ||
                      access(path, F_OK) == 0,
                  "there is no %s", path);
    }
    cr_assert(!loam_prim_bind_nodes(address, PAGE, LOAM_PRIM_POLICY_INTERLEAVE, UINT64_C(1) << 63));
    cr_assert_eq(errno, EINVAL);
    cr_assert(loam_prim_populate(address, PAGE));
    cr_assert(loam_prim_unmap(address, PAGE));
}

Test(prim, lock_populates)
{
    char *address = anonymous(4 * PAGE);

    cr_assert(loam_prim_lock(address, 4 * PAGE));
    cr_assert_eq(resident_pages(address, 4 * PAGE), 4);
    cr_assert(loam_prim_unmap(address, 4 * PAGE));
}

static void assert_done_after_three_failures(bool done, const char *call)
{
    cr_expect(done, "%s: %s", call, strerror(errno));
    cr_expect_eq(failures_to_come, 0, "%s was made %" PRIu32 " times too few", call, failures_to_come);
    fail_next(3, failure);
}

Test(prim, a_call_that_is_interrupted_or_told_to_come_back_is_made_again)
{
    static const int errors[] = {EINTR, EAGAIN};
    char *address = anonymous(PAGE), text[128];
    int fd;

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        atomic_store(&yield_count, 0);
        fail_next(3, errors[i]);
        assert_done_after_three_failures(loam_prim_populate(address, PAGE), "populate");
        assert_done_after_three_failures(loam_prim_lock(address, PAGE), "lock");
        assert_done_after_three_failures(loam_prim_memfd("test", 0, PAGE, &fd), "memfd");
        assert_done_after_three_failures(loam_prim_read_text("/proc/self/uid_map", text, sizeof text), "read_text");
        fail_next(0, 0);
        cr_expect_eq(atomic_load(&yield_count), errors[i] == EAGAIN ? 4 * 3 : 0, "%s", strerror(errors[i]));
        cr_assert(loam_prim_close(fd));
    }
    cr_assert(loam_prim_unmap(address, PAGE));
}

Test(prim, a_call_that_fails_otherwise_is_not_made_again)
{
    char *address = anonymous(PAGE);

    fail_next(2, ENOMEM);
    cr_assert_not(loam_prim_populate(address, PAGE));
    cr_expect_eq(errno, ENOMEM);
    cr_expect_eq(failures_to_come, 1);
    fail_next(0, 0);
    cr_assert(loam_prim_unmap(address, PAGE));
}

Test(prim, a_call_that_is_always_told_to_come_back_ends)
{
    char *address = anonymous(PAGE);

    fail_next(2000, EINTR);
    cr_assert_not(loam_prim_populate(address, PAGE));
    cr_expect_eq(errno, EINTR);
    cr_expect_eq(failures_to_come, 1000, "a thousand attempts, not %" PRIu32, 2000 - failures_to_come);
    fail_next(0, 0);
    refuse(SYS_madvise, 2, ~0u, EAGAIN);
    cr_assert(!loam_prim_populate(address, PAGE));
    cr_assert_eq(errno, EAGAIN);
    cr_assert(loam_prim_unmap(address, PAGE));
}

/* --- Files -------------------------------------------------------------------------------------------------------- */

static int test_memfd(void)
{
    int fd;

    cr_assert(loam_prim_memfd("test", 0, 4 * PAGE, &fd));
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    return fd;
}

Test(prim, a_duplicate_is_a_descriptor_of_the_same_file)
{
    uint64_t bytes = 1, page_bytes = 1;
    int fd = test_memfd(), copy;

    cr_assert(loam_prim_duplicate(fd, &copy));
    cr_assert_neq(copy, fd);
    cr_expect_eq(fcntl(copy, F_GETFD), FD_CLOEXEC);
    cr_assert(loam_prim_close(fd));
    cr_assert(loam_prim_file_size(copy, &bytes, &page_bytes));
    cr_expect_eq(bytes, 4 * PAGE);
    cr_expect_eq(page_bytes, PAGE);
    cr_assert(loam_prim_close(copy));
    cr_expect_not(loam_prim_duplicate(copy, &fd));
    cr_expect_eq(fd, -1);
    cr_expect_eq(errno, EBADF);
    cr_expect_not(loam_prim_file_size(copy, &bytes, &page_bytes));
    cr_expect_eq(errno, EBADF);
    cr_expect_eq(bytes + page_bytes, 0);
}

Test(prim, a_memfd_is_sealed_against_a_change_of_size)
{
    int fd = test_memfd();

    cr_assert_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
    cr_assert_eq(ftruncate(fd, PAGE), -1);
    cr_assert_eq(ftruncate(fd, 5 * PAGE), -1);
    cr_assert(loam_prim_close(fd));
}

/* Whether a seal that forbids writing is refused, by the file's owner and by a process that opened it. */
static void assert_no_seal_can_be_added(int fd)
{
    char path[64];
    pid_t other;
    int status;

    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    cr_assert_eq(errno, EPERM);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    other = fork();
    cr_assert_geq(other, 0);
    if (other == 0) {
        int opened = open(path, O_RDWR | O_CLOEXEC);

        _exit(opened >= 0 && fcntl(opened, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == -1 && errno == EPERM ? 0 : 1);
    }
    cr_assert_eq(waitpid(other, &status, 0), other);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "another process could seal %s", path);
}

Test(prim, a_memfd_takes_no_further_seal_from_anybody)
{
    char *address = free_space(4 * PAGE);
    int fd = test_memfd();

    assert_no_seal_can_be_added(fd);
    cr_assert(loam_prim_map_fd(address, 4 * PAGE, fd, 0));
    address[0] = 1;
    cr_assert(loam_prim_unmap(address, 4 * PAGE));
    cr_assert(loam_prim_close(fd));
}

Test(prim, a_memfd_of_huge_pages_takes_no_further_seal_from_anybody)
{
    int fd;

    if (!loam_prim_memfd("test", 21, 2 * MIB, &fd)) {
        cr_skip("hugepages: the kernel has no files of 2 MiB pages: %s", strerror(errno));
    }
    cr_assert_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
    assert_no_seal_can_be_added(fd);
    cr_assert(loam_prim_close(fd));
}

Test(prim, a_memfd_comes_also_from_a_kernel_that_cannot_forbid_execution)
{
    refuse(SYS_memfd_create, 1, NO_NOEXEC, EINVAL);
    int fd = test_memfd();

    cr_assert_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
    cr_assert(loam_prim_close(fd));
}

Test(prim, a_memfd_comes_also_from_a_kernel_that_cannot_seal)
{
    refuse(SYS_memfd_create, 1, NO_SEALS | NO_NOEXEC, EINVAL);
    cr_assert(loam_prim_close(test_memfd()));
}

Test(prim, a_memfd_too_large_leaves_no_descriptor)
{
    int fd = 7;

    cr_assert(!loam_prim_memfd("test", 0, SIZE_MAX - PAGE + 1, &fd));
    cr_assert_eq(errno, EFBIG);
    cr_assert_eq(fd, -1);
}

Test(prim, discarded_pages_of_a_file_are_gone_and_read_as_zero)
{
    char *address = free_space(4 * PAGE);
    struct stat status;
    int fd = test_memfd();

    cr_assert(loam_prim_map_fd(address, 4 * PAGE, fd, 0));
    memset(address, 1, 4 * PAGE);
    cr_assert(loam_prim_discard(address + PAGE, 2 * PAGE, true));
    cr_assert_eq(address[0], 1);
    cr_assert_eq(address[PAGE], 0);
    cr_assert_eq(address[3 * PAGE - 1], 0);
    cr_assert_eq(address[3 * PAGE], 1);
    cr_assert(loam_prim_discard(address, 4 * PAGE, true));
    cr_assert_eq(fstat(fd, &status), 0);
    cr_assert_eq(status.st_blocks, 0);
    cr_assert(loam_prim_unmap(address, 4 * PAGE));
    cr_assert(loam_prim_close(fd));
}

Test(prim, discarded_private_pages_are_gone_and_read_as_zero)
{
    char *address = free_space(4 * PAGE);
    unsigned char present[4];

    cr_assert(loam_prim_map_anonymous(address, 4 * PAGE, 0, false));
    memset(address, 1, 4 * PAGE);
    cr_assert(loam_prim_discard(address + PAGE, 2 * PAGE, false));
    cr_assert_eq(mincore(address, 4 * PAGE, present), 0);
    cr_expect_eq(present[0] & 1, 1);
    cr_expect_eq(present[1] & 1, 0);
    cr_expect_eq(present[2] & 1, 0);
    cr_expect_eq(present[3] & 1, 1);
    cr_expect_eq(address[PAGE], 0);
    cr_expect_eq(address[3 * PAGE], 1);
    cr_assert(loam_prim_unmap(address, 4 * PAGE));
}

Test(prim, locked_pages_are_not_discarded)
{
    char *address = free_space(PAGE);

    cr_assert(loam_prim_map_anonymous(address, PAGE, 0, false));
    *address = 1;
    cr_assert(loam_prim_lock(address, PAGE));
    cr_assert_not(loam_prim_discard(address, PAGE, false));
    cr_expect_eq(errno, EINVAL);
    cr_expect_eq(*address, 1);
    cr_assert(loam_prim_unmap(address, PAGE));
}

/* --- Threads, heap, figures --------------------------------------------------------------------------------------- */

static void *blocked_signals(void *argument)
{
    pthread_sigmask(SIG_SETMASK, NULL, argument);
    return NULL;
}

Test(prim, a_thread_takes_no_signals_and_its_starter_keeps_its_own)
{
    sigset_t in_thread, mine;
    pthread_t thread;

    sigemptyset(&in_thread);
    cr_assert(loam_prim_thread_start(&thread, blocked_signals, &in_thread));
    loam_prim_thread_join(thread);
    cr_assert(sigismember(&in_thread, SIGINT) && sigismember(&in_thread, SIGTERM));
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    cr_assert(!sigismember(&mine, SIGINT));
}

Test(prim, a_thread_that_does_not_start_changes_nothing)
{
    pthread_t thread, none = {0};
    sigset_t mine;

    memset(&thread, 0xa5, sizeof thread);
    fail_next(1, EPERM);
    errno = 0;
    cr_assert_not(loam_prim_thread_start(&thread, blocked_signals, &mine));
    cr_expect_eq(errno, EPERM);
    cr_expect_eq(memcmp(&thread, &none, sizeof thread), 0, "it is no thread");
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    cr_expect_not(sigismember(&mine, SIGINT));
}

Test(prim, heap_blocks_are_zeroed_and_aligned)
{
    void *blocks[64];

    for (size_t i = 0; i < 64; i++) {
        size_t bytes = i * i * 37 + 1;
        unsigned char *block;

        cr_assert(loam_prim_heap_alloc(bytes, &blocks[i]));
        block = blocks[i];
        cr_assert_eq((uintptr_t)block % 64, 0);
        for (size_t j = 0; j < bytes; j++) {
            cr_assert_eq(block[j], 0, "byte %zu of %zu", j, bytes);
        }
        memset(block, 0xff, bytes);
        if (i % 3 == 0) {
            loam_prim_heap_free(block);
            blocks[i] = NULL;
        }
    }
    for (size_t i = 0; i < 64; i++) {
        loam_prim_heap_free(blocks[i]);
    }
}

Test(prim, a_large_heap_block_is_not_touched)
{
    void *memory;
    char *page;

    mallopt(M_PERTURB, 0); /* the rule for tests fills fresh blocks, which touches them */
    cr_assert(loam_prim_heap_alloc(64 * MIB, &memory));
    page = (char *)(((uintptr_t)memory + PAGE) & ~(uintptr_t)(PAGE - 1));
    if (host_state_counts_private()) { /* a sanitizer's calloc touches what it likes */
        cr_assert_lt(resident_pages(page, 63 * MIB), 63 * MIB / PAGE / 10);
    }
    loam_prim_heap_free(memory);
}

/* What the kernel says of the file itself, not of the descriptor that there is none of. */
Test(prim, a_memfd_that_is_refused_says_why)
{
    char name[300];
    int fd = 0;

    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    errno = 0;
    cr_expect_not(loam_prim_memfd(name, 0, 4096, &fd));
    cr_expect_eq(errno, EINVAL, "the name is too long");
    cr_expect_eq(fd, -1);
}

Test(prim, a_heap_block_beyond_all_memory_is_refused)
{
    /* The last two get as far as calloc, which sanitizers do not let fail. */
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX - 71, SIZE_MAX - 72, SIZE_MAX / 2 + 1};
    size_t count = host_state_counts_private() ? 5 : 3;

    for (size_t i = 0; i < count; i++) {
        void *memory = &before;

        cr_assert(!loam_prim_heap_alloc(sizes[i], &memory));
        cr_assert_eq(errno, ENOMEM);
        cr_assert_null(memory);
    }
}

Test(prim, processors_are_those_that_the_thread_may_use)
{
    cpu_set_t all, one;
    size_t first = 0;

    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    cr_assert_eq(loam_prim_cpu_count(), (uint32_t)CPU_COUNT(&all));
    while (!CPU_ISSET(first, &all)) {
        first++;
    }
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_assert_eq(loam_prim_cpu_count(), 1);
    refuse(SYS_sched_getaffinity, 1, ~0u, EINVAL);
    cr_assert_eq(loam_prim_cpu_count(), 1, "at least 1, whatever the kernel says");
}

Test(prim, processors_are_counted_on_a_host_that_may_have_many)
{
    uint32_t count = loam_prim_cpu_count();

    if (count == 1) {
        cr_skip("one processor is what is said without asking, too");
    }
    kernel_set_bytes = 65536 / 8;
    cr_expect_eq(loam_prim_cpu_count(), count);
    kernel_set_bytes = 65536 / 8 + 1;
    cr_expect_eq(loam_prim_cpu_count(), 1);
}

Test(prim, a_text_fits_with_its_end_or_is_refused)
{
    char path[] = "/tmp/loam-prim-XXXXXX", text[9];
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "12345678", 8), 8);
    cr_assert(loam_prim_read_text(path, text, 9));
    cr_assert_str_eq(text, "12345678");
    cr_assert(!loam_prim_read_text(path, text, 8));
    cr_assert_eq(errno, EFBIG);
    cr_assert_str_eq(text, "");
    close(fd);
    unlink(path);
    cr_assert(!loam_prim_read_text(path, text, 9));
    cr_assert_eq(errno, ENOENT);
    cr_assert_str_eq(text, "");
    cr_assert(!loam_prim_read_text("/", text, 9));
    cr_assert_eq(errno, EISDIR);
}

/* --- Limits ------------------------------------------------------------------------------------------------------- */

/* Take a capability out of what this process may use now. */
static void drop_capability(unsigned capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    cr_assert_eq(syscall(SYS_capget, &header, data), 0);
    data[CAP_TO_INDEX(capability)].effective &= ~CAP_TO_MASK(capability);
    cr_assert_eq(syscall(SYS_capset, &header, data), 0);
}

static uint64_t limit_of(enum loam_prim_limit which)
{
    uint64_t value = 7;

    cr_assert(loam_prim_limit(which, &value));
    return value;
}

Test(prim, a_limit_is_the_soft_one)
{
    static const struct {
        enum loam_prim_limit which;
        __rlimit_resource_t resource;
    } kinds[] = {
        {LOAM_PRIM_LIMIT_DATA, RLIMIT_DATA},
        {LOAM_PRIM_LIMIT_ADDRESS_SPACE, RLIMIT_AS},
        {LOAM_PRIM_LIMIT_FILE_SIZE, RLIMIT_FSIZE},
        {LOAM_PRIM_LIMIT_STACK, RLIMIT_STACK},
    };

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const uint64_t bytes = (UINT64_C(1) << 50) + i; /* beyond what a sanitizer maps */
        struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};

        cr_assert_eq(setrlimit(kinds[i].resource, &limit), 0, "kind %zu", i);
        cr_expect_eq(limit_of(kinds[i].which), bytes, "kind %zu", i);
        limit.rlim_cur = RLIM_INFINITY;
        cr_assert_eq(setrlimit(kinds[i].resource, &limit), 0, "kind %zu", i);
        cr_expect_eq(limit_of(kinds[i].which), UINT64_MAX, "kind %zu", i);
    }
}

Test(prim, memlock_is_the_soft_limit_unless_the_caller_is_above_it)
{
    struct rlimit limit = {.rlim_cur = 64 * KIB, .rlim_max = 64 * KIB};

    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    cr_assert_eq(limit_of(LOAM_PRIM_LIMIT_LOCKED), geteuid() == 0 ? UINT64_MAX : 64 * KIB);
    refuse(SYS_capget, 0, ~0u, EPERM);
    cr_assert_eq(limit_of(LOAM_PRIM_LIMIT_LOCKED), 64 * KIB);
}

/* What /proc/self/uid_map says in the host's own namespace, and in others. */
Test(prim, a_capability_counts_where_every_user_has_the_number_it_has_outside)
{
    static const struct {
        const char *map;
        bool counts;
    } cases[] = {
        {"         0          0 4294967295\n", true},
        {"0 1 4294967295\n", false},
        {"1 0 4294967295\n", false},
        {"0 0 4294967294\n", false},
        {"0 0 1\n", false},
        {"0 0\n", false},
    };
    struct rlimit limit = {.rlim_cur = 64 * KIB, .rlim_max = 64 * KIB};

    if (geteuid() != 0) {
        cr_skip("only root has capabilities");
    }
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        next_read = cases[i].map;
        cr_expect_eq(limit_of(LOAM_PRIM_LIMIT_LOCKED), cases[i].counts ? UINT64_MAX : 64 * KIB, "%s", cases[i].map);
    }
}

Test(prim, a_limit_that_the_kernel_does_not_tell_is_an_error)
{
    uint64_t value = 7;
    int fd;

    refuse(SYS_prlimit64, 1, ~0u, EPERM);
    cr_assert_not(loam_prim_limit(LOAM_PRIM_LIMIT_ADDRESS_SPACE, &value));
    cr_expect_eq(errno, EPERM);
    cr_expect_eq(value, 0);
    cr_assert(loam_prim_memfd("test", 0, PAGE, &fd), "a limit on files that is not known is none");
    cr_assert(loam_prim_close(fd));
}

Test(prim, who_has_other_capabilities_than_that_of_locking_has_a_limit)
{
    struct rlimit limit = {.rlim_cur = 64 * KIB, .rlim_max = 64 * KIB};

    if (geteuid() != 0) {
        cr_skip("only root has capabilities to drop");
    }
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    drop_capability(CAP_NET_ADMIN);
    cr_assert_eq(limit_of(LOAM_PRIM_LIMIT_LOCKED), UINT64_MAX);
    drop_capability(CAP_IPC_LOCK);
    cr_assert_eq(limit_of(LOAM_PRIM_LIMIT_LOCKED), 64 * KIB);
}

/* Root of a user namespace of its own has every capability there, and none that the kernel asks for here. */
Test(prim, a_capability_of_another_user_namespace_does_not_lift_a_limit)
{
    struct rlimit limit = {.rlim_cur = 64 * KIB, .rlim_max = 64 * KIB};
    int status = -1;
    pid_t child = fork(); /* with one thread, as unshare(2) wants it */

    if (child == 0) {
        if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || setrlimit(RLIMIT_NPROC, &limit) != 0 ||
            unshare(CLONE_NEWUSER) != 0) {
            _exit(77);
        }
        _exit(limit_of(LOAM_PRIM_LIMIT_LOCKED) == 64 * KIB && limit_of(LOAM_PRIM_LIMIT_THREADS) == 64 * KIB ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        cr_skip("no user namespace can be made here");
    }
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
}

static void *wait_for_byte(void *argument)
{
    char byte;

    (void)!read(*(int *)argument, &byte, 1);
    return NULL;
}

Test(prim, threads_are_those_of_the_user_and_root_is_above_their_limit)
{
    struct rlimit limit = {.rlim_cur = 50, .rlim_max = 50};
    const uid_t user = 1000000 + (uid_t)getpid(); /* nobody's, or the count is another's too */
    pthread_t threads[3];
    uint64_t before = 7, count = 7;
    int pipes[2];

    if (geteuid() != 0) {
        cr_skip("needs root to become another user");
    }
    cr_assert_eq(setrlimit(RLIMIT_NPROC, &limit), 0);
    cr_assert_eq(limit_of(LOAM_PRIM_LIMIT_THREADS), UINT64_MAX);
    cr_assert_eq(setresuid(user, user, user), 0);
    cr_assert_eq(limit_of(LOAM_PRIM_LIMIT_THREADS), 50);
    cr_assert(loam_prim_user_threads(&before));
    cr_assert(before >= 1 && before <= 3, "%" PRIu64 ": this one, and perhaps a sanitizer's", before);
    cr_assert_eq(pipe(pipes), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert(loam_prim_thread_start(&threads[i], wait_for_byte, &pipes[0]));
    }
    cr_assert(loam_prim_user_threads(&count));
    cr_expect_eq(count, before + 3, "%" PRIu64 " threads instead of %" PRIu64, count, before + 3);
    close(pipes[1]);
    for (int i = 0; i < 3; i++) {
        loam_prim_thread_join(threads[i]);
    }
    close(pipes[0]);
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) != -1;
    }
    return count;
}

/* Whatever ftruncate answers: no descriptor is handed out or left, and the reason is told. */
Test(prim, a_memfd_that_cannot_be_sized_is_none)
{
    static const uint32_t errors[] = {ENOSPC, EFBIG, EINTR, EPERM};
    unsigned before = open_descriptors();

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        int fd = 7;

        refuse(SYS_ftruncate, 1, ~0u, errors[i]);
        errno = 0;
        cr_assert_not(loam_prim_memfd("test", 0, 4 * PAGE, &fd));
        cr_expect_eq((uint32_t)errno, errors[i], "%s", strerror(errno));
        cr_expect_eq(fd, -1);
        cr_expect_eq(open_descriptors(), before);
    }
}

/* As in a daemon that has closed its standard input. */
Test(prim, descriptor_0_is_as_good_as_any)
{
    int input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), fd;
    unsigned count;
    char text[128];

    cr_assert_geq(input, 3);
    close(STDIN_FILENO);
    count = open_descriptors();
    cr_assert(loam_prim_memfd("test", 0, PAGE, &fd));
    cr_assert_eq(fd, 0);
    cr_assert(loam_prim_close(fd));
    cr_assert_not(loam_prim_memfd("test", 0, SIZE_MAX - PAGE + 1, &fd));
    cr_expect_eq(open_descriptors(), count);
    cr_expect(loam_prim_read_text("/proc/self/uid_map", text, sizeof text));
    cr_expect_eq(open_descriptors(), count);
    cr_assert_eq(dup2(input, STDIN_FILENO), STDIN_FILENO);
    close(input);
}

/* The kernel would kill with SIGXFSZ whoever made a file grow beyond the limit. */
Test(prim, a_memfd_beyond_the_limit_on_files_is_refused_and_kills_nobody)
{
    struct rlimit limit = {.rlim_cur = 4 * PAGE, .rlim_max = 4 * PAGE};
    unsigned before = open_descriptors();
    int fd;

    signal(SIGXFSZ, SIG_DFL);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_not(loam_prim_memfd("test", 0, 5 * PAGE, &fd));
    cr_assert_eq(errno, EFBIG);
    cr_assert_eq(open_descriptors(), before);
    cr_assert(loam_prim_memfd("test", 0, 4 * PAGE, &fd));
    cr_assert(loam_prim_close(fd));
}

Test(prim, vectors_move_at_the_position_or_at_an_offset)
{
    struct iovec vectors[2] = {{&(char[3]){"abc"}, 3}, {&(char[4]){"defg"}, 4}};
    int fd = memfd_create("file", MFD_CLOEXEC), ends[2];
    char found[8] = "";
    size_t moved;

    cr_assert(loam_prim_write_vectors(fd, vectors, 2, -1, &moved));
    cr_assert_eq(moved, 7);
    cr_assert(loam_prim_write_vectors(fd, vectors, 1, 5, &moved));
    cr_assert_eq(lseek(fd, 0, SEEK_CUR), 7, "an offset leaves the position alone");
    cr_assert_eq(pread(fd, found, 8, 0), 8);
    cr_assert_eq(memcmp(found, "abcdeabc", 8), 0);
    cr_assert(loam_prim_read_vectors(fd, vectors, 2, -1, &moved));
    cr_assert(moved == 1 && *(char *)vectors[0].iov_base == 'c');
    cr_assert(loam_prim_read_vectors(fd, vectors, 2, -1, &moved) && moved == 0);
    cr_assert(loam_prim_read_vectors(fd, vectors, 2, 1, &moved));
    cr_assert(moved == 7 && memcmp(vectors[1].iov_base, "eabc", 4) == 0);
    close(fd);
    cr_assert_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    moved = 7;
    cr_assert(!loam_prim_read_vectors(ends[0], vectors, 2, -1, &moved));
    cr_assert(errno == EAGAIN && moved == 0);
    prim_fake_fail(PRIM_WRITE_VECTORS, 1, 1, ENOSPC);
    cr_assert(!loam_prim_write_vectors(ends[1], vectors, 1, -1, &moved));
    cr_assert(errno == ENOSPC && moved == 0);
    prim_fake_fail_none();
    cr_assert(!loam_prim_write_vectors(ends[1], vectors, 1, 0, &moved));
    cr_assert(errno == ESPIPE && moved == 0);
    close(ends[0]);
    close(ends[1]);
}

static void *set_key(void *key)
{
    cr_assert(loam_prim_key_set(*(pthread_key_t *)key, key));
    return NULL;
}

static _Atomic(void *) ended_with;

static void note_end(void *value)
{
    ended_with = value;
}

Test(prim, the_end_of_a_thread_is_told)
{
    pthread_key_t key, other;
    pthread_t thread;

    prim_fake_fail(PRIM_KEY_MAKE, 1, 1, EAGAIN);
    cr_assert(!loam_prim_key_make(note_end, &key));
    cr_assert_eq(errno, EAGAIN);
    cr_assert(loam_prim_key_make(note_end, &key) && loam_prim_key_make(note_end, &other));
    cr_assert_eq(prim_fake_live().key_count, 2);
    pthread_create(&thread, NULL, set_key, &key);
    pthread_join(thread, NULL);
    cr_assert_eq(ended_with, &key);
    pthread_create(&thread, NULL, set_key, &other);
    pthread_join(thread, NULL);
    cr_assert_eq(ended_with, &other);
    loam_prim_key_drop(other);
    cr_assert(!prim_fake_clean());
    loam_prim_key_drop(key);
    prim_fake_fail(PRIM_KEY_SET, 1, 1, ENOMEM);
    cr_assert(loam_prim_key_make(note_end, &key));
    cr_assert(!loam_prim_key_set(key, &key) && errno == ENOMEM);
    loam_prim_key_drop(key);
    prim_fake_fail_none();
}

/* --- The fake ----------------------------------------------------------------------------------------------------- */

Test(prim, the_chosen_calls_fail_and_no_others)
{
    void *memory;

    prim_fake_fail(PRIM_HEAP_ALLOC, 2, 2, ENOMEM);
    for (int i = 1; i <= 5; i++) {
        bool chosen = i == 2 || i == 3;

        errno = 0;
        cr_assert_eq(loam_prim_heap_alloc(8, &memory), !chosen, "call %d", i);
        cr_assert_eq(errno, chosen ? ENOMEM : 0);
        cr_assert_eq(memory == NULL, chosen);
        loam_prim_heap_free(memory);
    }
    cr_assert_eq(prim_fake_failed_count(), 2);
    cr_assert_eq(prim_fake_call_count(PRIM_HEAP_ALLOC), 5);
}

Test(prim, the_nth_call_of_all_counts_those_that_can_fail)
{
    void *memory, *address;
    int fd;

    prim_fake_fail(PRIM_ANY, 3, 1, EIO);
    prim_fake_fail_also(PRIM_RESERVE, 1, 1, EPERM);
    cr_assert(loam_prim_heap_alloc(8, &memory));
    loam_prim_heap_free(memory);
    loam_prim_cpu_count();
    cr_assert(!loam_prim_reserve(PAGE, &address));
    cr_assert_eq(errno, EPERM);
    cr_assert(!loam_prim_memfd("x", 0, PAGE, &fd));
    cr_assert_eq(errno, EIO);
    cr_assert_eq(fd, -1);
    cr_assert_eq(prim_fake_failed_count(), 2);
    prim_fake_fail_none();
    cr_assert(loam_prim_memfd("x", 0, PAGE, &fd));
    cr_assert(loam_prim_close(fd));
}

Test(prim, a_close_that_fails_has_closed)
{
    int fd = test_memfd();

    prim_fake_fail(PRIM_CLOSE, 1, 1, EIO);
    cr_assert(!loam_prim_close(fd));
    cr_assert_eq(errno, EIO);
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
}

/* In the middle of so much that the C library, which maps from the top, does not get there. */
static char *secluded_space(void)
{
    return free_space((size_t)64 << 30) + ((size_t)32 << 30);
}

/* The account against an oracle with a flag a page. */
Test(prim, the_account_of_mappings_is_exact)
{
    enum { PAGES = 64 };
    bool mapped[PAGES + 1] = {false};
    uint64_t seed = 20240607;
    char *base = secluded_space();

    for (int step = 0; step < 4000; step++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t first = (uint32_t)(seed >> 40) % PAGES, count = 1 + (uint32_t)(seed >> 50) % 8, runs = 0;
        uint64_t bytes = 0;

        count = first + count > PAGES ? PAGES - first : count;
        bool any = false, all = true;
        for (uint32_t i = first; i < first + count; i++) {
            any |= mapped[i];
            all &= mapped[i];
        }
        if (all) {
            cr_assert(loam_prim_unmap(base + first * PAGE, count * PAGE));
        } else {
            cr_assert_eq(loam_prim_map_anonymous(base + first * PAGE, count * PAGE, 0, true), !any);
        }
        for (uint32_t i = first; i < first + count && (all || !any); i++) {
            mapped[i] = !all;
        }
        for (uint32_t i = 0; i < PAGES; i++) {
            runs += mapped[i] && !mapped[i + 1];
            bytes += mapped[i] ? PAGE : 0;
        }
        cr_assert_eq(prim_fake_live().mapping_count, runs, "step %d", step);
        cr_assert_eq(prim_fake_live().mapped_bytes, bytes, "step %d", step);
    }
    for (uint32_t i = 0; i < PAGES; i++) {
        cr_assert(!mapped[i] || loam_prim_unmap(base + i * PAGE, PAGE));
    }
}

Test(prim, the_account_names_what_is_left)
{
    struct prim_fake_live live;
    void *address, *memory;
    int fd = test_memfd();

    cr_assert(loam_prim_reserve(2 * PAGE, &address));
    cr_assert(loam_prim_heap_alloc(100, &memory));
    live = prim_fake_live();
    cr_assert_eq(live.mapping_count, 1);
    cr_assert_eq(live.mapped_bytes, 2 * PAGE);
    cr_assert_eq(live.fd_count, 1);
    cr_assert_eq(live.heap_count, 1);
    cr_assert_eq(live.heap_bytes, 100);
    cr_assert_eq(live.thread_count, 0);
    cr_assert(!prim_fake_clean());
    loam_prim_heap_free(memory);
    cr_assert(loam_prim_close(fd));
    cr_assert(loam_prim_unmap(address, 2 * PAGE));
}

Test(prim, a_call_is_recorded_with_its_arguments_and_result)
{
    struct prim_fake_record record;
    void *address;

    cr_assert(loam_prim_reserve(2 * PAGE, &address));
    cr_assert(loam_prim_unmap(address, PAGE));
    prim_fake_fail(PRIM_ANY, 1, 1, EINVAL);
    cr_assert(!loam_prim_advise_huge((char *)address + PAGE, PAGE, true));
    cr_assert(loam_prim_unmap((char *)address + PAGE, PAGE));
    cr_assert_eq(prim_fake_record_count(), 4);
    record = prim_fake_record(0);
    cr_assert(record.kind == PRIM_RESERVE && record.ok && record.address == address && record.bytes == 2 * PAGE);
    record = prim_fake_record(2);
    cr_assert(record.kind == PRIM_ADVISE_HUGE && !record.ok && record.on_purpose && record.flag);
    cr_assert_eq(record.error_number, EINVAL);
    cr_assert(pthread_equal(record.thread, pthread_self()));
    prim_fake_forget();
    cr_assert_eq(prim_fake_record_count(), 0);
}

Test(prim, scripts_stand_for_the_host)
{
    char text[64];
    uint64_t bytes;

    prim_fake_script_text("/proc/meminfo", "MemFree: 1 kB\n");
    prim_fake_script_text_error("/proc/self/maps", EACCES);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 12345);
    prim_fake_script_cpu_count(48);
    cr_assert(loam_prim_read_text("/proc/meminfo", text, sizeof text));
    cr_assert_str_eq(text, "MemFree: 1 kB\n");
    cr_assert(!loam_prim_read_text("/proc/meminfo", text, 14));
    cr_assert_eq(errno, EFBIG);
    cr_assert(!loam_prim_read_text("/proc/self/maps", text, sizeof text));
    cr_assert_eq(errno, EACCES);
    cr_assert(loam_prim_read_text("/proc/sys/kernel/ostype", text, sizeof text));
    prim_fake_script_only(true);
    cr_assert(!loam_prim_read_text("/proc/sys/kernel/ostype", text, sizeof text));
    cr_assert_eq(errno, ENOENT);
    cr_assert(loam_prim_limit(LOAM_PRIM_LIMIT_LOCKED, &bytes));
    cr_assert_eq(bytes, 12345);
    prim_fake_script_limit_error(LOAM_PRIM_LIMIT_LOCKED, EPERM);
    cr_assert(!loam_prim_limit(LOAM_PRIM_LIMIT_LOCKED, &bytes));
    cr_assert_eq(loam_prim_cpu_count(), 48);
    prim_fake_script_none();
    cr_assert(loam_prim_read_text("/proc/sys/kernel/ostype", text, sizeof text));
    cr_assert_neq(loam_prim_cpu_count(), 48);
}

static void *many_calls(void *argument)
{
    for (int i = 0; i < 200; i++) {
        void *memory, *address;

        if (loam_prim_heap_alloc(64, &memory) && loam_prim_reserve(PAGE, &address)) {
            atomic_fetch_add((_Atomic uint32_t *)argument, loam_prim_unmap(address, PAGE));
        }
        loam_prim_heap_free(memory);
    }
    return NULL;
}

Test(prim, the_fake_keeps_count_of_many_threads)
{
    _Atomic uint32_t done = 0;
    pthread_t threads[8];

    for (int i = 0; i < 8; i++) {
        cr_assert(loam_prim_thread_start(&threads[i], many_calls, &done));
    }
    for (int i = 0; i < 8; i++) {
        loam_prim_thread_join(threads[i]);
    }
    cr_assert_eq(done, 1600);
    cr_assert_eq(prim_fake_call_count(PRIM_UNMAP), 1600);
    cr_assert_eq(prim_fake_call_count(PRIM_ANY), 4 * 1600 + 16);
}

/* --- Misuse ends the test ----------------------------------------------------------------------------------------- */

Test(prim_misuse, unmapping_what_is_not_mapped, .signal = SIGABRT)
{
    loam_prim_unmap(free_space(PAGE), PAGE);
}

Test(prim_misuse, unmapping_beyond_the_end, .signal = SIGABRT)
{
    loam_prim_unmap(anonymous(PAGE), 2 * PAGE);
}

Test(prim_misuse, populating_a_part_of_a_page, .signal = SIGABRT)
{
    loam_prim_populate(anonymous(PAGE), 100);
}

Test(prim_misuse, closing_twice, .signal = SIGABRT)
{
    int fd = test_memfd();

    cr_assert(loam_prim_close(fd));
    loam_prim_close(fd);
}

Test(prim_misuse, freeing_twice, .signal = SIGABRT)
{
    void *memory;

    cr_assert(loam_prim_heap_alloc(8, &memory));
    loam_prim_heap_free(memory);
    loam_prim_heap_free(memory);
}

Test(prim_misuse, hugetlb_memory_without_reservation, .signal = SIGABRT)
{
    loam_prim_map_anonymous(free_space(2 * MIB), 2 * MIB, 21, true);
}

/* --- Waiting for other threads ------------------------------------------------------------------------------------ */

static uint32_t word;

static void *wake_when_asked(void *unused)
{
    while (__atomic_load_n(&word, __ATOMIC_ACQUIRE) != 2) {
        loam_prim_wake(&word);
    }
    return unused;
}

Test(prim, a_wait_ends_by_a_change_by_time_or_by_a_wake)
{
    const uint64_t forever = UINT64_C(1000000000) * 3600;
    pthread_t thread;

    cr_assert(loam_prim_wait(&word, 1, forever), "the word was another");
    cr_assert_not(loam_prim_wait(&word, 0, 1000000), "nobody came");
    cr_assert_eq(pthread_create(&thread, NULL, wake_when_asked, NULL), 0);
    cr_assert(loam_prim_wait(&word, 0, forever));
    __atomic_store_n(&word, 2, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
}

/* Who waits and is refused must not come back at once for ever: time passes all the same. */
Test(prim, a_refused_wait_lets_time_pass)
{
    struct timespec begun, ended;

    refuse(SYS_futex, 3, UINT32_MAX, EPERM);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    cr_assert_not(loam_prim_wait(&word, 0, 20000000));
    clock_gettime(CLOCK_MONOTONIC, &ended);
    cr_assert_geq((ended.tv_sec - begun.tv_sec) * 1000000000 + ended.tv_nsec - begun.tv_nsec, 20000000);
}

Test(prim, a_refused_barrier_is_an_error)
{
    cr_assert(loam_prim_barrier_register());
    cr_assert(loam_prim_barrier());
    refuse(SYS_membarrier, 0, UINT32_MAX, EPERM);
    cr_assert_not(loam_prim_barrier());
    cr_assert_eq(errno, EPERM);
}

static atomic_uint number;
static atomic_bool enough;

static void *say_number(void *unused)
{
    atomic_store(&number, loam_prim_thread_id());
    while (!atomic_load(&enough)) {
        sched_yield();
    }
    return unused;
}

static pid_t fork_pausing(void)
{
    pid_t child = fork();

    if (child == 0) {
        for (;;) {
            pause();
        }
    }
    return child;
}

Test(prim, threads_that_have_ended_are_known)
{
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork_pausing();
    pthread_t thread;
    siginfo_t ended;
    uint64_t space;

    cr_assert(loam_prim_thread_space(&space));
    cr_assert_neq(space, 0);
    cr_assert_eq(loam_prim_thread_id(), (uint32_t)syscall(SYS_gettid));
    cr_assert_not(loam_prim_thread_gone(loam_prim_thread_id(), true, memory));
    cr_assert_eq(pthread_create(&thread, NULL, say_number, NULL), 0);
    while (atomic_load(&number) == 0) {
        sched_yield();
    }
    cr_assert_not(loam_prim_thread_gone(number, true, memory));
    cr_assert_not(loam_prim_thread_gone(number, true, &word));
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
    while (!loam_prim_thread_gone(number, true, memory)) {
        sched_yield(); /* who has joined a thread may see it in /proc for a moment more */
    }

    /* Another process: memory that both have, and a copy that is this process's own. */
    cr_assert_not(loam_prim_thread_gone((uint32_t)child, true, memory));
    cr_assert(loam_prim_thread_gone((uint32_t)child, true, &word));
    kill(child, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0);
    cr_assert(loam_prim_thread_gone((uint32_t)child, true, memory), "a zombie");
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert(loam_prim_thread_gone((uint32_t)child, true, memory));
    cr_assert_not(loam_prim_thread_gone((uint32_t)child, false, memory), "another namespace's number");
    munmap(memory, PAGE);
}

/* Who may not be asked about is taken to be there. */
Test(prim, a_thread_that_cannot_be_asked_about_is_there)
{
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();

    if (child == 0) {
        _exit(0);
    }
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert(loam_prim_thread_gone((uint32_t)child, true, memory));
    refuse(SYS_tgkill, 0, UINT32_MAX, EPERM);
    cr_assert_not(loam_prim_thread_gone((uint32_t)child, true, memory));
    munmap(memory, PAGE);
}

static atomic_uint prepared, in_parent, in_child;

static void prepare(void)
{
    prepared++;
}

static void after_in_parent(void)
{
    in_parent++;
}

static void after_in_child(void)
{
    in_child++;
}

Test(prim, both_sides_of_a_fork_are_told)
{
    int status;
    pid_t child;

    cr_assert(loam_prim_at_fork(prepare, after_in_parent, after_in_child));
    child = fork();
    if (child == 0) {
        _exit(prepared != 1 || in_parent != 0 || in_child != 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(prepared, 1);
    cr_assert_eq(in_parent, 1);
    cr_assert_eq(in_child, 0);
}

/* --- The helper that watches the host ----------------------------------------------------------------------------- */

Test(host_state, a_leak_of_each_kind_is_seen)
{
    struct host_state start = host_state_take_process();
    void *reserved = mmap(NULL, 64 * KIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd;

    if (host_state_counts_private()) {
        cr_assert(!host_state_unchanged(&start), "a reservation");
    }
    munmap(reserved, 64 * KIB);
    cr_assert(host_state_unchanged(&start));
    fd = memfd_create("leak", 0);
    cr_assert(!host_state_unchanged(&start), "a descriptor");
    cr_assert_eq(ftruncate(fd, PAGE), 0);
    reserved = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    cr_assert(!host_state_unchanged(&start), "a mapping of a memfd");
    munmap(reserved, PAGE);
    cr_assert(host_state_unchanged(&start));
}
