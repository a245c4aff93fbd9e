// SPDX-License-Identifier: Apache-2.0
/*
 * Backing on the real host, through the fake that accounts for its system calls. Where the host has too few hugepages
 * the pool is raised for the test that needs them and put back after it.
 */
#include "allocator/host/prim.h"
#include "loam/backing.h"
#include "tests/allocator/host_state.h"
#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GUARD_BYTES   (64 * LOAM_KIB)
#define POOL_2M_PAGES 8
#define SHMEM_SWITCH  "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define THP_SWITCH    "/sys/kernel/mm/transparent_hugepage/enabled"
#define POOL_2M       "/sys/kernel/mm/hugepages/hugepages-2048kB"

static struct host_setting pool_2m, pool_1g, thp_shmem;
static bool has_2m, has_1g, has_thp_shmem;
static struct host_state before;

static void take(void)
{
    before = host_state_take();
}

static void check(void)
{
    cr_assert(prim_fake_clean());
    cr_assert(host_state_unchanged(&before));
}

static void take_with_pools(void)
{
    has_2m = host_pool_raise(&pool_2m, 2 * LOAM_MIB, POOL_2M_PAGES);
    has_1g = host_pool_raise(&pool_1g, LOAM_GIB, 1);
    has_thp_shmem = host_setting_change(&thp_shmem, SHMEM_SWITCH, "advise");
    take();
}

static void check_with_pools(void)
{
    check();
    host_setting_restore(&pool_2m);
    host_setting_restore(&pool_1g);
    host_setting_restore(&thp_shmem);
}

/* Neither pools nor switches are touched. */
TestSuite(backing, .init = take, .fini = check);
/* With pages in both pools, and transparent huge pages in shared memory. */
TestSuite(backing_pool, .init = take_with_pools, .fini = check_with_pools);

/* --- Helpers ------------------------------------------------------------------------------------------------------ */

static uint64_t test_bytes(enum loam_pages pages)
{
    return pages == LOAM_PAGES_1G ? LOAM_GIB : 4 * LOAM_MIB;
}

static struct loam_backing_request request_of(enum loam_pages pages)
{
    return (struct loam_backing_request){
        .bytes = test_bytes(pages),
        .gpa = {4 * LOAM_GIB},
        .pages = pages,
    };
}

/* Whether the host has what the combination needs. A kind that is left out is named in the log. */
static bool host_has(enum loam_pages pages, enum loam_sharing sharing)
{
    bool has = (pages != LOAM_PAGES_2M || has_2m) && (pages != LOAM_PAGES_1G || has_1g) &&
               (pages != LOAM_PAGES_THP || sharing != LOAM_SHARING_SHARED || has_thp_shmem);

    if (!has) {
        fprintf(stderr, "left out: %s pages, sharing %d: %s %s %s\n", loam_pages_name(pages), sharing, pool_2m.reason,
                pool_1g.reason, thp_shmem.reason);
    }
    return has;
}

static struct loam_backing *create(const struct loam_backing_request *request)
{
    struct loam_backing *backing;
    struct loam_diag diag = {0};
    enum loam_error error = loam_backing_create(request, &backing, &diag);

    cr_assert_eq(error, LOAM_OK, "%s: %s", loam_error_name(error), diag.text);
    cr_assert_not_null(backing);
    cr_assert_str_eq(diag.text, "", "diag is written on failure only");
    return backing;
}

static struct loam_diag refused(const struct loam_backing_request *request, enum loam_error expected)
{
    struct loam_backing *backing = (struct loam_backing *)&before;
    struct loam_diag diag = {0};
    enum loam_error error = loam_backing_create(request, &backing, &diag);

    cr_assert_eq(error, expected, "%s: %s", loam_error_name(error), diag.text);
    cr_assert_eq(diag.error, expected);
    cr_assert_null(backing);
    cr_assert_neq(diag.text[0], '\0');
    cr_assert_null(strchr(diag.text, '\n'));
    cr_assert(prim_fake_clean());
    return diag;
}

static void assert_text(const struct loam_diag *diag, const char *part)
{
    cr_assert_not_null(strstr(diag->text, part), "\"%s\" is not in \"%s\"", part, diag->text);
}

/* The mapping of /proc/self/maps that holds address: its bounds and access; false: none. */
static bool find_mapping(const void *address, uintptr_t *start, uintptr_t *end, char access[5])
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4096];
    bool found = false;

    while (!found && fgets(line, sizeof line, maps) != NULL) {
        found = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", start, end, access) == 3 &&
                *start <= (uintptr_t)address && (uintptr_t)address < *end;
    }
    fclose(maps);
    return found;
}

/* A figure of /proc/self/smaps in KiB, added over the mappings that lie within the backing. */
static uint64_t smaps_kib(const struct loam_backing_info *info, const char *figure)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    uintptr_t start, end, hva = (uintptr_t)info->hva;
    uint64_t sum = 0, kib;
    bool inside = false;
    char line[4096];

    while (fgets(line, sizeof line, smaps) != NULL) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
            inside = start >= hva && end <= hva + info->bytes;
        } else if (inside && strncmp(line, figure, strlen(figure)) == 0 &&
                   sscanf(line + strlen(figure), ": %" SCNu64, &kib) == 1) {
            sum += kib;
        }
    }
    fclose(smaps);
    return sum;
}

static bool is_hugetlb(enum loam_pages pages)
{
    return pages == LOAM_PAGES_1G || pages == LOAM_PAGES_2M;
}

/* Memory that is there, whatever its kind. */
static uint64_t present_bytes(const struct loam_backing_info *info)
{
    return LOAM_KIB * (smaps_kib(info, "Rss") + smaps_kib(info, "Shared_Hugetlb") + smaps_kib(info, "Private_Hugetlb"));
}

static void assert_guarded(const struct loam_backing_info *info)
{
    const char *hva = info->hva;
    uintptr_t start, end;
    char access[5];

    cr_assert(find_mapping(hva, &start, &end, access));
    cr_assert_str_eq(access, info->sharing == LOAM_SHARING_SHARED ? "rw-s" : "rw-p");
    cr_assert_eq(start, (uintptr_t)hva);
    cr_assert_eq(end, (uintptr_t)hva + info->bytes);
    cr_assert(find_mapping(hva - 1, &start, &end, access));
    cr_assert_str_eq(access, "---p");
    cr_assert_leq(start, (uintptr_t)hva - GUARD_BYTES);
    cr_assert(find_mapping(hva + info->bytes, &start, &end, access));
    cr_assert_str_eq(access, "---p");
    cr_assert_geq(end, (uintptr_t)hva + info->bytes + GUARD_BYTES);
}

static void assert_congruent(const struct loam_backing_info *info)
{
    uint64_t modulus = is_hugetlb(info->pages)       ? info->page_bytes
                       : info->bytes >= 2 * LOAM_MIB ? 2 * LOAM_MIB
                                                     : 4 * LOAM_KIB;

    cr_assert_eq(((uintptr_t)info->hva - info->gpa.value) % modulus, 0, "HVA %p, GPA %#" PRIx64, info->hva,
                 info->gpa.value);
}

/* Reads, so it also finds pages for what is lazy. */
static void assert_zero(const struct loam_backing_info *info)
{
    const char *hva = info->hva;

    for (uint64_t offset = 0; offset < info->bytes; offset += 4 * LOAM_KIB) {
        cr_assert_eq(*(const uint64_t *)(hva + offset), 0);
        cr_assert_eq(hva[offset + 4 * LOAM_KIB - 1], 0);
    }
}

/* What smaps says before the test touches anything. */
static void assert_commit(const struct loam_backing_info *info)
{
    bool reserved_only = is_hugetlb(info->pages) && info->commit == LOAM_COMMIT_RESERVE;
    bool populated = info->commit != LOAM_COMMIT_LAZY && !reserved_only;

    cr_assert_eq(info->populated, populated);
    cr_assert_eq(present_bytes(info), populated ? info->bytes : 0, "%" PRIu64 " bytes present", present_bytes(info));
    cr_assert_eq(smaps_kib(info, "KernelPageSize") * LOAM_KIB,
                 is_hugetlb(info->pages) ? info->page_bytes : 4 * LOAM_KIB);
}

/* With free memory about, the kernel joins all of an aligned range when it is populated; 4 KiB pages are never joined. */
static void assert_joined(const struct loam_backing_info *info)
{
    uint64_t joined = LOAM_KIB * (smaps_kib(info, "AnonHugePages") + smaps_kib(info, "ShmemPmdMapped"));

    if (info->pages == LOAM_PAGES_THP && info->commit != LOAM_COMMIT_LAZY) {
        cr_assert_eq(joined, info->bytes, "%" PRIu64 " bytes joined", joined);
    } else {
        cr_assert_eq(joined, 0);
    }
}

static void assert_shared_through_fd(const struct loam_backing_info *info)
{
    uint64_t *memory = info->hva, *other;
    uint64_t last = info->bytes / sizeof *memory - 1;

    other = mmap(NULL, info->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, info->fd, 0);
    cr_assert_neq(other, MAP_FAILED);
    memory[0] = 0x1111;
    other[last] = 0x2222;
    cr_assert_eq(other[0], 0x1111);
    cr_assert_eq(memory[last], 0x2222);
    munmap(other, info->bytes);
    cr_assert_eq(ftruncate(info->fd, 0), -1, "the file must keep its size");
    cr_assert_eq(fcntl(info->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1, "the file must take no further seal");
}

/* --- What is asked for is got --------------------------------------------------------------------------------------- */

static void try_combination(enum loam_pages pages, enum loam_sharing sharing, enum loam_commit commit)
{
    struct loam_backing_request request = request_of(pages);
    struct loam_backing_info info;
    struct loam_backing *backing;

    request.sharing = sharing;
    request.commit = commit;
    backing = create(&request);
    info = loam_backing_get_info(backing);
    cr_assert(info.pages == pages && info.sharing == sharing && info.commit == commit);
    cr_assert(info.bytes == request.bytes && info.gpa.value == request.gpa.value);
    cr_assert_eq(info.page_bytes, loam_pages_bytes(pages));
    cr_assert(info.placement == LOAM_PLACEMENT_ANY && info.node_mask == 0);
    cr_assert_not(info.locked);
    cr_assert_eq(info.fd >= 0, sharing == LOAM_SHARING_SHARED);
    assert_guarded(&info);
    assert_congruent(&info);
    assert_commit(&info);
    assert_joined(&info);
    assert_zero(&info);
    if (info.fd >= 0) {
        assert_shared_through_fd(&info);
    }
    loam_backing_destroy(backing);
    cr_assert(prim_fake_clean());
    cr_assert(host_state_unchanged(&before));
}

static void try_kind(enum loam_pages pages)
{
    for (int sharing = LOAM_SHARING_SHARED; sharing <= LOAM_SHARING_PRIVATE; sharing++) {
        for (int commit = 0; host_has(pages, (enum loam_sharing)sharing) && commit < LOAM_COMMIT_COUNT; commit++) {
            try_combination(pages, (enum loam_sharing)sharing, (enum loam_commit)commit);
        }
    }
}

Test(backing_pool, gives_1g_pages)
{
    if (!has_1g) {
        cr_skip("%s", pool_1g.reason);
    }
    try_kind(LOAM_PAGES_1G);
}

Test(backing_pool, gives_2m_pages)
{
    if (!has_2m) {
        cr_skip("%s", pool_2m.reason);
    }
    try_kind(LOAM_PAGES_2M);
}

Test(backing_pool, gives_transparent_huge_pages)
{
    try_kind(LOAM_PAGES_THP);
}

Test(backing_pool, gives_4k_pages)
{
    try_kind(LOAM_PAGES_4K);
}

Test(backing, kinds_have_names_and_sizes)
{
    cr_assert_str_eq(loam_pages_name(LOAM_PAGES_AUTO), "auto");
    cr_assert_str_eq(loam_pages_name(LOAM_PAGES_1G), "1G");
    cr_assert_str_eq(loam_pages_name(LOAM_PAGES_2M), "2M");
    cr_assert_str_eq(loam_pages_name(LOAM_PAGES_THP), "thp");
    cr_assert_str_eq(loam_pages_name(LOAM_PAGES_4K), "4K");
    cr_assert_str_eq(loam_pages_name(LOAM_PAGES_COUNT), "unknown");
    cr_assert_str_eq(loam_pages_name((enum loam_pages) - 1), "unknown");
    cr_assert_eq(loam_pages_bytes(LOAM_PAGES_AUTO), 0);
    cr_assert_eq(loam_pages_bytes(LOAM_PAGES_1G), LOAM_GIB);
    cr_assert_eq(loam_pages_bytes(LOAM_PAGES_2M), 2 * LOAM_MIB);
    cr_assert_eq(loam_pages_bytes(LOAM_PAGES_THP), 2 * LOAM_MIB);
    cr_assert_eq(loam_pages_bytes(LOAM_PAGES_4K), 4 * LOAM_KIB);
    cr_assert_eq(loam_pages_bytes(LOAM_PAGES_COUNT), 0);
}

Test(backing, addresses_are_congruent_wherever_the_guest_has_them)
{
    uint64_t seed = 20240901;

    for (int i = 0; i < 300; i++) {
        struct loam_backing_request request = request_of(i % 2 ? LOAM_PAGES_4K : LOAM_PAGES_THP);
        struct loam_backing_info info;
        struct loam_backing *backing;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        request.bytes = (1 + (seed >> 33) % 1024) * 4 * LOAM_KIB;
        request.gpa.value = (seed >> 20) % (LOAM_GPA_END - request.bytes) & ~(4 * LOAM_KIB - 1);
        request.commit = LOAM_COMMIT_LAZY;
        backing = create(&request);
        info = loam_backing_get_info(backing);
        assert_congruent(&info);
        assert_guarded(&info);
        loam_backing_destroy(backing);
    }
}

static void touch_outside(uint64_t bytes, ptrdiff_t offset)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    volatile char *hva;

    request.bytes = bytes;
    hva = loam_backing_get_info(create(&request)).hva;
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would answer it otherwise */
    (void)hva[offset];
}

Test(backing_guard, below, .signal = SIGSEGV)
{
    touch_outside(LOAM_MIB, -1);
}

Test(backing_guard, far_below, .signal = SIGSEGV)
{
    touch_outside(LOAM_MIB, -(ptrdiff_t)GUARD_BYTES);
}

Test(backing_guard, above, .signal = SIGSEGV)
{
    touch_outside(LOAM_MIB, (ptrdiff_t)LOAM_MIB);
}

Test(backing_guard, far_above, .signal = SIGSEGV)
{
    touch_outside(LOAM_MIB, (ptrdiff_t)(LOAM_MIB + GUARD_BYTES) - 1);
}

Test(backing, locked_memory_is_populated_and_locked)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing_info info;
    struct loam_backing *backing;

    request.lock = true;
    request.bytes = LOAM_MIB;
    backing = create(&request);
    info = loam_backing_get_info(backing);
    cr_assert(info.locked && info.populated);
    cr_assert_eq(smaps_kib(&info, "Locked"), LOAM_MIB / LOAM_KIB);
    loam_backing_destroy(backing);
}

/* More than is locked at a time: all of it is, and the last piece ends where the memory does. */
Test(backing, memory_is_locked_to_its_end)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing_info info;
    struct loam_backing *backing;

    request.lock = true;
    request.bytes = 33 * LOAM_MIB;
    backing = create(&request);
    info = loam_backing_get_info(backing);
    cr_expect_eq(prim_fake_call_count(PRIM_LOCK), 2);
    cr_expect_eq(smaps_kib(&info, "Locked"), 33 * LOAM_MIB / LOAM_KIB);
    loam_backing_destroy(backing);
}

/* The VmFlags that smaps gives the backing's mapping. */
static void vm_flags(const struct loam_backing_info *info, char *flags, size_t size)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    uintptr_t start = 0, end = 0, low, high;
    char line[4096];

    flags[0] = '\0';
    while (fgets(line, sizeof line, smaps) != NULL) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &low, &high) == 2) {
            start = low;
            end = high;
        }
        if (strncmp(line, "VmFlags:", 8) == 0 && start <= (uintptr_t)info->hva && (uintptr_t)info->hva < end) {
            snprintf(flags, size, "%.*s", (int)size - 1, line);
        }
    }
    fclose(smaps);
}

Test(backing_pool, memory_is_kept_from_children_and_dumps_when_asked)
{
    for (int pages = LOAM_PAGES_2M; pages <= LOAM_PAGES_4K; pages++) {
        for (int sharing = LOAM_SHARING_SHARED; sharing <= LOAM_SHARING_PRIVATE; sharing++) {
            struct loam_backing_request request = request_of((enum loam_pages)pages);
            struct loam_backing *ordinary, *kept;
            struct loam_backing_info info;
            char flags[256];

            request.sharing = (enum loam_sharing)sharing;
            request.bytes = 2 * LOAM_MIB;
            if (!host_has((enum loam_pages)pages, (enum loam_sharing)sharing)) {
                continue;
            }
            ordinary = create(&request);
            request.keep_from_children = true;
            request.keep_from_dumps = true;
            kept = create(&request);
            info = loam_backing_get_info(ordinary);
            vm_flags(&info, flags, sizeof flags);
            cr_expect(strstr(flags, " dc") == NULL && strstr(flags, " dd") == NULL, "%s", flags);
            info = loam_backing_get_info(kept);
            vm_flags(&info, flags, sizeof flags);
            cr_expect(strstr(flags, " dc") != NULL && strstr(flags, " dd") != NULL, "%s", flags);
            loam_backing_destroy(ordinary);
            loam_backing_destroy(kept);
        }
    }
}

/* The child has not the memory, and what it has mapped in its place stays. The parent's stays too. */
Test(backing, a_child_destroys_its_own_part_only)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing *backings[2];
    char *memory[2];
    int status;
    pid_t child;

    for (int i = 0; i < 2; i++) {
        request.keep_from_children = i == 1;
        backings[i] = create(&request);
        memory[i] = loam_backing_get_info(backings[i]).hva;
        memory[i][0] = 'm';
    }
    child = fork();
    if (child == 0) {
        unsigned char there;
        char *own;

        if (memory[0][0] != 'm' || mincore(memory[1], 4096, &there) == 0 || errno != ENOMEM) {
            _exit(1);
        }
        own = mmap(memory[1], 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        loam_backing_destroy(backings[0]);
        loam_backing_destroy(backings[1]);
        _exit(own != memory[1] || mincore(own, 4096, &there) != 0 ? 2 : mincore(memory[0], 4096, &there) == 0 ? 3 : 0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "status %#x", (unsigned)status);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(memory[i][0], 'm');
        loam_backing_destroy(backings[i]);
    }
}

Test(backing, who_cannot_keep_memory_says_so)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    request.keep_from_children = true;
    request.keep_from_dumps = true;
    prim_fake_fail(PRIM_KEEP_FROM_CHILDREN, 1, 1, EINVAL);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    assert_text(&diag, "madvise(MADV_DONTFORK)");
    prim_fake_fail(PRIM_KEEP_FROM_DUMPS, 1, 1, EINVAL);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    assert_text(&diag, "madvise(MADV_DONTDUMP)");
}

Test(backing, a_limit_on_locked_memory_is_named)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    request.lock = true;
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 2 * LOAM_MIB);
    prim_fake_script_text("/proc/self/status", "VmLck:\t     1024 kB\n");
    prim_fake_fail(PRIM_LOCK, 1, 1, ENOMEM);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "mlock: 4 MiB wanted, RLIMIT_MEMLOCK is 2048 KiB, of which 1024 KiB are in use: raise the limit "
                       "with: ulimit -l 5120");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, UINT64_MAX);
    prim_fake_fail(PRIM_LOCK, 1, 1, EPERM);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    assert_text(&diag, "mlock");
    cr_assert_eq(diag.system_errno, EPERM);
}

Test(backing, only_what_a_limit_refuses_is_said_to_be_refused_by_it)
{
    static const int of_limits[] = {EPERM, ENOMEM, EAGAIN};
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    request.lock = true;
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 2 * LOAM_MIB);
    for (size_t i = 0; i < sizeof of_limits / sizeof of_limits[0]; i++) {
        prim_fake_fail(PRIM_LOCK, 1, 1, of_limits[i]);
        diag = refused(&request, LOAM_ERROR_EXHAUSTED);
        assert_text(&diag, "RLIMIT_MEMLOCK is 2048 KiB");
    }
    prim_fake_fail(PRIM_LOCK, 1, 1, EIO);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    cr_expect_null(strstr(diag.text, "RLIMIT_MEMLOCK"), "%s", diag.text);
    cr_expect_eq(diag.system_errno, EIO);
}

Test(backing, the_file_bears_the_name)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing *backing;
    char path[64], target[128] = "";

    request.name = "backing-test";
    backing = create(&request);
    snprintf(path, sizeof path, "/proc/self/fd/%d", loam_backing_get_info(backing).fd);
    cr_assert_gt(readlink(path, target, sizeof target - 1), 0);
    cr_assert_not_null(strstr(target, "memfd:backing-test"));
    loam_backing_destroy(backing);
}

/* --- Refusals ------------------------------------------------------------------------------------------------------ */

static void refused_unseen(const struct loam_backing_request *request)
{
    refused(request, LOAM_ERROR_INVALID);
    cr_assert_eq(prim_fake_record_count(), 0, "refused before any system call");
}

Test(backing, what_is_no_multiple_of_the_page_is_refused)
{
    static const uint64_t units[LOAM_PAGES_COUNT] = {4 * LOAM_KIB, LOAM_GIB, 2 * LOAM_MIB, 4 * LOAM_KIB, 4 * LOAM_KIB};

    for (int pages = 0; pages < LOAM_PAGES_COUNT; pages++) {
        for (uint64_t off = 1; off < units[pages]; off *= 2) {
            struct loam_backing_request request = request_of((enum loam_pages)pages);

            request.bytes = LOAM_GIB + off;
            refused_unseen(&request);
            request.bytes = LOAM_GIB;
            request.gpa.value = LOAM_GIB + off;
            refused_unseen(&request);
        }
    }
}

Test(backing, numbers_at_the_edge)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);

    request.commit = LOAM_COMMIT_LAZY;
    for (int pages = 0; pages < LOAM_PAGES_COUNT; pages++) {
        static const uint64_t sizes[] = {0, LOAM_GPA_END + LOAM_GIB, UINT64_MAX, UINT64_MAX - LOAM_GIB + 1};

        request.pages = (enum loam_pages)pages;
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            request.gpa.value = 0;
            request.bytes = sizes[i];
            refused_unseen(&request);
            request.gpa.value = UINT64_MAX - LOAM_GIB + 1;
            refused_unseen(&request);
        }
        request.bytes = 2 * LOAM_GIB;
        request.gpa.value = LOAM_GPA_END - LOAM_GIB;
        refused_unseen(&request);
    }
    request.pages = LOAM_PAGES_4K;
    request.bytes = 4 * LOAM_KIB;
    request.gpa.value = LOAM_GPA_END - 4 * LOAM_KIB;
    loam_backing_destroy(create(&request));
    request.gpa.value = LOAM_GPA_END;
    refused(&request, LOAM_ERROR_INVALID);
    request.gpa.value = 0;
    request.bytes = LOAM_GPA_END; /* a guest may have it; a host has not so much address space */
    refused(&request, LOAM_ERROR_EXHAUSTED);
}

Test(backing, a_member_out_of_its_range_is_refused)
{
    struct loam_backing_request good = request_of(LOAM_PAGES_4K), bad;
    char name[LOAM_BACKING_NAME_BYTES_MAX + 2];

    for (int value = -1; value <= LOAM_PAGES_COUNT; value += LOAM_PAGES_COUNT + 1) {
        bad = good;
        bad.pages = (enum loam_pages)value;
        refused_unseen(&bad);
    }
    bad = good;
    bad.sharing = LOAM_SHARING_COUNT;
    refused_unseen(&bad);
    bad = good;
    bad.commit = LOAM_COMMIT_COUNT;
    refused_unseen(&bad);
    bad = good;
    bad.placement = LOAM_PLACEMENT_COUNT;
    bad.node_mask = 1;
    refused_unseen(&bad);
    bad = good;
    bad.thread_count = LOAM_BACKING_THREAD_MAX + 1;
    refused_unseen(&bad);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    bad = good;
    bad.name = name;
    refused_unseen(&bad);
    name[sizeof name - 2] = '\0';
    good.name = name;
    loam_backing_destroy(create(&good));
}

Test(backing, null_is_refused_and_outputs_are_defined)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing *backing = (struct loam_backing *)&request;
    struct loam_backing_info info = loam_backing_get_info(NULL);
    struct loam_diag diag = {0};

    cr_expect_eq(loam_backing_create(NULL, &backing, &diag), LOAM_ERROR_INVALID);
    cr_expect_null(backing);
    cr_expect_str_eq(diag.text, "backing: NULL given where a request and a place for it are wanted");
    cr_expect_eq(loam_backing_create(&request, NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_backing_populate(NULL, 0, 4096, &diag), LOAM_ERROR_INVALID);
    cr_expect(info.bytes == 0 && info.hva == NULL && info.fd == -1 && info.node_mask == 0);
    cr_expect_eq(prim_fake_record_count(), 0);
}

/* Nothing but the bytes: ordinary memory, wherever the kernel puts it. */
Test(backing, a_zeroed_request_is_the_ordinary_one)
{
    struct loam_backing_request request = {.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    struct loam_backing *backing = create(&request);
    struct loam_backing_info info = loam_backing_get_info(backing);
    int mode = -1;

    cr_expect_eq(prim_fake_call_count(PRIM_BIND_NODES), 0);
    cr_expect(info.placement == LOAM_PLACEMENT_ANY && info.node_mask == 0);
    if (syscall(SYS_get_mempolicy, &mode, NULL, 0, info.hva, MPOL_F_ADDR) == 0) {
        cr_expect_neq(mode, MPOL_BIND);
    }
    loam_backing_destroy(backing);
    request.pages = LOAM_PAGES_AUTO;
    loam_backing_destroy(create(&request));
    cr_expect_eq(prim_fake_call_count(PRIM_BIND_NODES), 0);
}

Test(backing, a_member_without_effect_is_refused_by_name)
{
    const struct loam_backing_request good = {.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    struct loam_backing_request node = good, lazy = good, private = good;
    struct loam_diag diag;

    node.node_mask = 2;
    refused_unseen(&node);
    diag = refused(&node, LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text,
                     "backing: placement 0, node mask 0x2 wanted: nodes go with a placement: ask for strict, "
                     "preferred or interleave");
    node.placement = LOAM_PLACEMENT_PREFERRED;
    node.node_mask = 3;
    diag = refused(&node, LOAM_ERROR_INVALID);
    assert_text(&diag, "one node is preferred: name one");
    node.placement = LOAM_PLACEMENT_INTERLEAVE;
    node.node_mask = 0;
    diag = refused(&node, LOAM_ERROR_INVALID);
    assert_text(&diag, "on which nodes: name one at least");
    lazy.lock = true;
    lazy.commit = LOAM_COMMIT_LAZY;
    refused_unseen(&lazy);
    diag = refused(&lazy, LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text,
                     "backing: lock and LOAM_COMMIT_LAZY wanted: what is locked is populated: ask for one of "
                     "them");
    private.sharing = LOAM_SHARING_PRIVATE;
    loam_backing_destroy(create(&private));
    private.name = "unseen";
    diag = refused(&private, LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "backing: a name wanted for private memory: only a memfd has one: leave it NULL");
}

Test(backing, without_diag_a_refusal_is_only_an_error)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing *backing;

    for (int kind = 0; kind < PRIM_FALLIBLE_COUNT; kind++) {
        prim_fake_fail((enum prim_kind)kind, 1, 1, kind % 2 ? EIO : ENOMEM);
        if (loam_backing_create(&request, &backing, NULL) == LOAM_OK) {
            loam_backing_destroy(backing);
        }
        prim_fake_fail_none();
        cr_assert(prim_fake_clean());
    }
    request.bytes = 1;
    cr_assert_eq(loam_backing_create(&request, &backing, NULL), LOAM_ERROR_INVALID);
    loam_backing_destroy(NULL);
}

Test(backing, memory_that_the_host_has_not_is_refused_before_it_is_touched)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    prim_fake_script_text("/proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    3000 kB\nSwapFree:  1095 kB\n");
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "memory: 4 MiB of 4 KiB pages wanted, 3 MiB available");
    cr_assert_eq(prim_fake_call_count(PRIM_POPULATE), 0);
    prim_fake_script_text("/proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    3000 kB\nSwapFree:  1096 kB\n");
    loam_backing_destroy(create(&request));
    request.lock = true;
    refused(&request, LOAM_ERROR_EXHAUSTED);
    request.lock = false;
    request.commit = LOAM_COMMIT_LAZY;
    prim_fake_script_text("/proc/meminfo", "MemAvailable: 0 kB\n");
    loam_backing_destroy(create(&request));
    request.commit = LOAM_COMMIT_POPULATE;
    prim_fake_script_text("/proc/meminfo", "unreadable");
    loam_backing_destroy(create(&request));
}

/* --- The pool ------------------------------------------------------------------------------------------------------ */

static void fall_short(enum loam_pages pages, enum loam_sharing sharing, const char *unit, const char *folder)
{
    uint64_t available = host_pool_available(loam_pages_bytes(pages));
    struct loam_backing_request request = request_of(pages);
    char text[512];
    struct loam_diag diag;
    uint64_t total = before.pools[pages == LOAM_PAGES_1G].total;

    request.sharing = sharing;
    request.bytes = (available + 3) * loam_pages_bytes(pages);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    snprintf(text, sizeof text,
             "hugepages: %" PRIu64 " x %s wanted, %" PRIu64 " free: raise the pool with: echo %" PRIu64
             " > %s/nr_hugepages",
             available + 3, unit, available, total + 3, folder);
    cr_assert_str_eq(diag.text, text);
    cr_assert(host_state_unchanged(&before));
}

Test(backing_pool, a_shortfall_is_an_error_and_leaves_the_pool_as_it_was)
{
    if (!has_2m || !has_1g) {
        cr_skip("%s %s", pool_2m.reason, pool_1g.reason);
    }
    for (int sharing = LOAM_SHARING_ANY; sharing < LOAM_SHARING_COUNT; sharing++) {
        fall_short(LOAM_PAGES_2M, (enum loam_sharing)sharing, "2 MiB", POOL_2M);
        fall_short(LOAM_PAGES_1G, (enum loam_sharing)sharing, "1 GiB", "/sys/kernel/mm/hugepages/hugepages-1048576kB");
    }
}

/* All pages are promised to the first, though none is touched, so the second gets none: a SIGBUS later cannot be. */
Test(backing_pool, reserved_pages_are_not_promised_twice)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);
    struct loam_backing *first;

    if (!has_2m) {
        cr_skip("%s", pool_2m.reason);
    }
    for (int sharing = LOAM_SHARING_SHARED; sharing <= LOAM_SHARING_PRIVATE; sharing++) {
        for (int commit = 0; commit < LOAM_COMMIT_COUNT; commit++) {
            request.sharing = (enum loam_sharing)sharing;
            request.commit = (enum loam_commit)commit;
            request.bytes = host_pool_available(2 * LOAM_MIB) * 2 * LOAM_MIB;
            first = create(&request);
            cr_assert_eq(host_pool_available(2 * LOAM_MIB), 0);
            request.bytes = 2 * LOAM_MIB;
            struct loam_backing *second;
            cr_assert_eq(loam_backing_create(&request, &second, NULL), LOAM_ERROR_EXHAUSTED);
            memset(loam_backing_get_info(first).hva, 1, loam_backing_get_info(first).bytes);
            loam_backing_destroy(first);
        }
    }
}

static void script_pool(const char *folder, const char *total, const char *free_pages, const char *reserved)
{
    char path[256];

    snprintf(path, sizeof path, "%s/nr_hugepages", folder);
    prim_fake_script_text(path, total);
    snprintf(path, sizeof path, "%s/free_hugepages", folder);
    prim_fake_script_text(path, free_pages);
    snprintf(path, sizeof path, "%s/resv_hugepages", folder);
    if (reserved != NULL) {
        prim_fake_script_text(path, reserved);
    }
}

Test(backing, a_shortfall_says_how_far_to_raise_the_pool)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);
    struct loam_diag diag;

    request.bytes = 256 * LOAM_MIB;
    script_pool(POOL_2M, "80\n", "50\n", "10\n");
    prim_fake_fail(PRIM_MAP_FD, 1, 1, ENOMEM);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    cr_assert_str_eq(diag.text, "hugepages: 128 x 2 MiB wanted, 40 free: raise the pool with: echo 168 > " POOL_2M
                                "/nr_hugepages");
    script_pool(POOL_2M, "800\n", "800\n", "0\n");
    prim_fake_fail(PRIM_MAP_FD, 1, 1, ENOMEM);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "mmap: 256 MiB of 2 MiB pages, shared: Cannot allocate memory");
    prim_fake_fail(PRIM_MEMFD, 1, 1, EMFILE);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    assert_text(&diag, "memfd_create: 256 MiB of 2 MiB pages, shared");
    cr_assert_eq(diag.system_errno, EMFILE);
}

/* Pages that the kernel may add count as free; a pool that has all that is wanted is not what is short. */
Test(backing, a_pool_that_has_enough_is_not_to_be_raised)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);
    struct loam_diag diag;

    request.bytes = 256 * LOAM_MIB;
    script_pool(POOL_2M, "128\n", "128\n", "0\n");
    prim_fake_fail(PRIM_MAP_FD, 1, 1, ENOMEM);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "shared: Cannot allocate memory");
    script_pool(POOL_2M, "110\n", "100\n", "0\n");
    prim_fake_script_text(POOL_2M "/surplus_hugepages", "10\n");
    prim_fake_script_text(POOL_2M "/nr_overcommit_hugepages", "38\n");
    prim_fake_fail(PRIM_MAP_FD, 1, 1, ENOMEM);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "shared: Cannot allocate memory");
    prim_fake_script_text(POOL_2M "/nr_overcommit_hugepages", "37\n");
    prim_fake_fail(PRIM_MAP_FD, 1, 1, ENOMEM);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "128 x 2 MiB wanted, 100 free: raise the pool with: echo 138 > ");
}

/* By these errors the kernel says that it has not such pages, or not so many; by others, something else. */
Test(backing, a_pool_is_blamed_for_what_it_can_cause_only)
{
    static const int of_pools[] = {ENOMEM, ENOSPC, EFAULT, EFBIG, ENODEV, EINVAL};
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);
    struct loam_diag diag;

    script_pool(POOL_2M, "1\n", "1\n", "0\n");
    for (size_t i = 0; i < sizeof of_pools / sizeof of_pools[0]; i++) {
        prim_fake_fail(PRIM_MEMFD, 1, 1, of_pools[i]);
        diag = refused(&request, LOAM_ERROR_EXHAUSTED);
        assert_text(&diag, "hugepages: 2 x 2 MiB wanted, 1 free");
    }
    prim_fake_fail(PRIM_MEMFD, 1, 1, EPERM);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    assert_text(&diag, "memfd_create: 4 MiB of 2 MiB pages, shared");
    cr_expect_eq(diag.system_errno, EPERM);
}

Test(backing, pages_of_a_size_that_the_host_lacks_are_named)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_1G);
    struct loam_diag diag;

    prim_fake_script_only(true);
    prim_fake_fail(PRIM_MEMFD, 1, 1, ENODEV);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "1 x 1 GiB wanted, but this host has no pages of that size");
}

/* --- Nodes --------------------------------------------------------------------------------------------------------- */

Test(backing_pool, pages_bound_to_a_node_are_there_when_the_call_returns)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);
    struct loam_backing_info info;
    struct loam_backing *backing;

    if (!has_2m) {
        cr_skip("%s", pool_2m.reason);
    }
    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    backing = create(&request);
    info = loam_backing_get_info(backing);
    cr_assert(info.placement == LOAM_PLACEMENT_STRICT && info.node_mask == 1);
    cr_assert(info.populated);
    cr_assert_eq(present_bytes(&info), info.bytes);
    loam_backing_destroy(backing);
}

Test(backing_pool, a_node_with_too_few_pages_is_named)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);
    struct loam_diag diag;

    if (!has_2m) {
        cr_skip("%s", pool_2m.reason);
    }
    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    script_pool("/sys/devices/system/node/node0/hugepages/hugepages-2048kB", "5\n", "1\n", NULL);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    cr_assert_str_eq(diag.text, "hugepages: 2 x 2 MiB wanted, 1 free on node 0: raise the pool with: echo 6 > "
                                "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages");
}

Test(backing, memory_is_bound_before_it_is_populated)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing *backing;
    uint32_t bound = UINT32_MAX, populated = UINT32_MAX;

    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    backing = create(&request);
    for (uint32_t i = prim_fake_record_count(); i-- > 0;) {
        bound = prim_fake_record(i).kind == PRIM_BIND_NODES ? i : bound;
        populated = prim_fake_record(i).kind == PRIM_POPULATE ? i : populated;
    }
    cr_assert_lt(bound, populated);
    cr_assert_lt(populated, UINT32_MAX);
    loam_backing_destroy(backing);
}

/* As numa_maps says it of the mapping at hva; false: this kernel has no nodes. */
static bool read_policy(const struct loam_backing_info *info, char *policy, size_t bytes)
{
    char line[512], start[32];
    FILE *maps = fopen("/proc/self/numa_maps", "r");
    bool found = false;

    snprintf(start, sizeof start, "%" PRIxPTR " ", (uintptr_t)info->hva);
    while (maps != NULL && !found && fgets(line, sizeof line, maps) != NULL) {
        found = strncmp(line, start, strlen(start)) == 0;
    }
    if (maps != NULL) {
        fclose(maps);
    }
    snprintf(policy, bytes, "%.*s", (int)strcspn(found ? line + strlen(start) : "", " \n"),
             found ? line + strlen(start) : "");
    return found;
}

static void assert_policy(enum loam_pages pages, enum loam_sharing sharing, enum loam_placement placement)
{
    static const char *const expected[] = {[LOAM_PLACEMENT_ANY] = "default",
                                           [LOAM_PLACEMENT_STRICT] = "bind:0",
                                           [LOAM_PLACEMENT_PREFERRED] = "prefer:0",
                                           [LOAM_PLACEMENT_INTERLEAVE] = "interleave:0"};
    struct loam_backing_request request = request_of(pages);
    struct loam_backing_info info;
    struct loam_backing *backing;
    char policy[64];

    request.sharing = sharing;
    request.placement = placement;
    request.node_mask = placement != LOAM_PLACEMENT_ANY;
    backing = create(&request);
    info = loam_backing_get_info(backing);
    cr_expect(info.placement == placement && info.node_mask == request.node_mask);
    if (read_policy(&info, policy, sizeof policy)) {
        cr_expect_str_eq(policy, expected[placement], "%s: %s", loam_placement_name(placement), policy);
    }
    cr_expect(pages != LOAM_PAGES_2M || info.populated == (placement == LOAM_PLACEMENT_STRICT));
    loam_backing_destroy(backing);
}

Test(backing_pool, each_placement_is_the_kernels_policy)
{
    for (int placement = 0; placement < LOAM_PLACEMENT_COUNT; placement++) {
        for (int sharing = LOAM_SHARING_SHARED; sharing <= LOAM_SHARING_PRIVATE; sharing++) {
            assert_policy(LOAM_PAGES_4K, (enum loam_sharing)sharing, (enum loam_placement)placement);
            if (has_2m) {
                assert_policy(LOAM_PAGES_2M, (enum loam_sharing)sharing, (enum loam_placement)placement);
            }
        }
    }
    cr_expect_str_eq(loam_placement_name(LOAM_PLACEMENT_PREFERRED), "preferred");
    cr_expect_str_eq(loam_placement_name(LOAM_PLACEMENT_COUNT), "unknown");
}

/* The kernel would leave out the one that is missing. */
Test(backing, each_of_several_nodes_has_to_be_there)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    prim_fake_script_text("/sys/devices/system/node/has_memory", "0\n");
    for (int placement = LOAM_PLACEMENT_STRICT; placement < LOAM_PLACEMENT_COUNT; placement++) {
        request.placement = (enum loam_placement)placement;
        request.node_mask = UINT64_C(1) << 60 | (placement != LOAM_PLACEMENT_PREFERRED);
        diag = refused(&request, LOAM_ERROR_INVALID);
        cr_expect_str_eq(diag.text, "node 60 wanted: the nodes with memory are 0");
    }
}

Test(backing, a_node_that_is_not_there_is_refused)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    prim_fake_script_text("/sys/devices/system/node/has_memory", "0-1,3\n");
    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = UINT64_C(1) << 60;
    diag = refused(&request, LOAM_ERROR_INVALID);
    cr_assert_str_eq(diag.text, "node 60 wanted: the nodes with memory are 0-1,3");
    request.node_mask |= 1;
    diag = refused(&request, LOAM_ERROR_INVALID);
    assert_text(&diag, "node 60 wanted: the nodes with memory are 0-1,3");
    prim_fake_script_text_error("/sys/devices/system/node/has_memory", ENOENT);
    diag = refused(&request, LOAM_ERROR_INVALID);
    assert_text(&diag, "the nodes with memory are unknown");
}

Test(backing, a_kernel_without_nodes_has_all_memory_on_node_0)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    prim_fake_fail(PRIM_BIND_NODES, 1, 100, ENOSYS);
    loam_backing_destroy(create(&request));
    request.node_mask = 2;
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    assert_text(&diag, "mbind");
    prim_fake_fail(PRIM_BIND_NODES, 1, 100, EPERM);
    request.node_mask = 1;
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    cr_expect_eq(diag.system_errno, EPERM);
}

/* --- Why it was refused ---------------------------------------------------------------------------------------------- */

#define GROUP_V2 "/sys/fs/cgroup/unified/g/"

/* A host of scripts: one group, no limit anywhere, plenty of everything. */
static void script_host(void)
{
    prim_fake_script_none();
    prim_fake_script_only(true);
    script_pool(POOL_2M, "800\n", "800\n", "0\n");
    prim_fake_script_text("/proc/meminfo", "MemAvailable: 9000000 kB\nSwapFree: 0 kB\n");
    prim_fake_script_text("/proc/self/status", "VmSize:\t 10240 kB\nVmLck:\t 0 kB\nVmData:\t 2048 kB\n");
    prim_fake_script_text("/proc/self/cgroup", "0::/g\n");
    prim_fake_script_text("/proc/self/mountinfo", "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
}

/* A call of this kind fails with error_number: what is short has to be in the line, and nothing that is not. */
static void assert_cause(enum loam_pages pages, enum loam_sharing sharing, enum prim_kind kind, int error_number,
                         const char *cause)
{
    struct loam_backing_request request = request_of(pages);
    struct loam_diag diag;

    request.sharing = sharing;
    request.name = NULL;
    prim_fake_fail(kind, 1, 1000, error_number);
    diag = refused(&request, error_number == EMFILE || error_number == ENFILE || error_number == EAGAIN
                                 ? LOAM_ERROR_SYSTEM
                                 : LOAM_ERROR_EXHAUSTED);
    prim_fake_fail_none();
    assert_text(&diag, cause);
    cr_expect(strstr(cause, "group") != NULL || strstr(diag.text, "group") == NULL, "%s", diag.text);
}

Test(backing, the_limit_that_is_short_is_named)
{
    script_host();
    prim_fake_script_limit(LOAM_PRIM_LIMIT_ADDRESS_SPACE, 13 * LOAM_MIB);
    assert_cause(LOAM_PAGES_2M, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM,
                 "mmap: 4 MiB of 2 MiB pages, shared: RLIMIT_AS is 13312 KiB, of which 10240 KiB are in use: raise the "
                 "limit with: ulimit -v 14336");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_RESERVE, ENOMEM, "RLIMIT_AS is 13312 KiB");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_ADDRESS_SPACE, 14 * LOAM_MIB);
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_RESERVE, ENOMEM, "shared: Cannot allocate memory");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_DATA, 5 * LOAM_MIB);
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_PRIVATE, PRIM_MAP_ANONYMOUS, ENOMEM, "RLIMIT_DATA is 5120 KiB");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, "shared: Cannot allocate memory");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_FILE_SIZE, 3 * LOAM_MIB);
    assert_cause(
        LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MEMFD, EFBIG,
        "memfd_create: 4 MiB of 4 KiB pages, shared: RLIMIT_FSIZE is 3072 KiB, of which 0 KiB are in use: raise "
        "the limit with: ulimit -f 4096");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MEMFD, EMFILE, "RLIMIT_NOFILE");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MEMFD, ENFILE, "fs.file-max");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 3 * LOAM_MIB);
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_PRIVATE, PRIM_MAP_ANONYMOUS, EAGAIN, "RLIMIT_MEMLOCK is 3072 KiB");
}

Test(backing, a_process_with_too_many_mappings_is_told_so)
{
    script_host();
    prim_fake_script_text("/proc/self/maps", "a\nb\nc\n");
    prim_fake_script_text("/proc/sys/vm/max_map_count", "5\n");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM,
                 "this process has 3 mappings of the 5 that it may have: raise it with: echo 10 > "
                 "/proc/sys/vm/max_map_count");
    prim_fake_script_text("/proc/sys/vm/max_map_count", "6\n");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, "shared: Cannot allocate memory");
    prim_fake_script_text("/proc/meminfo", "MemAvailable: 3072 kB\n");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, "the host can give 3 MiB");
    assert_cause(LOAM_PAGES_2M, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, "shared: Cannot allocate memory");
    prim_fake_script_text("/proc/meminfo", "MemAvailable: 4096 kB\n");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, "shared: Cannot allocate memory");
}

/* Whatever is short: an error that does not speak of it has another reason. */
Test(backing, no_limit_is_named_for_an_error_that_is_none_of_its_own)
{
    script_host();
    prim_fake_script_limit(LOAM_PRIM_LIMIT_ADDRESS_SPACE, 13 * LOAM_MIB);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_FILE_SIZE, 3 * LOAM_MIB);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 3 * LOAM_MIB);
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOSPC, "shared: No space left on device");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MEMFD, ENOSPC, "shared: No space left on device");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_POPULATE, ENOMEM, "GPA 0x100000000: Cannot allocate memory");
}

Test(backing, the_limit_of_a_control_group_is_named)
{
    script_host();
    prim_fake_script_text(GROUP_V2 "hugetlb.2MB.rsvd.max", "6291456\n");
    prim_fake_script_text(GROUP_V2 "hugetlb.2MB.rsvd.current", "4194304\n");
    assert_cause(LOAM_PAGES_2M, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM,
                 "shared: its control group may have 6 MiB of hugepages, and 4 MiB are in use or promised: raise the "
                 "limit with: echo 8388608 > " GROUP_V2 "hugetlb.2MB.rsvd.max");
    prim_fake_script_text(GROUP_V2 "hugetlb.2MB.rsvd.current", "2097152\n");
    assert_cause(LOAM_PAGES_2M, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, "shared: Cannot allocate memory");
    prim_fake_script_text(GROUP_V2 "hugetlb.2MB.rsvd.max", "max\n");
    prim_fake_script_text(GROUP_V2 "hugetlb.2MB.max", "6291456\n");
    prim_fake_script_text(GROUP_V2 "hugetlb.2MB.current", "6291456\n");
    assert_cause(LOAM_PAGES_4K, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, "shared: Cannot allocate memory");
}

/* The command that mends has to stand whole in the line: a longer path is described. */
Test(backing, a_path_of_a_group_is_named_as_far_as_it_fits)
{
    for (size_t length = 159; length <= 162; length++) {
        const size_t group = length - strlen("/sys/fs/cgroup/unified//hugetlb.2MB.rsvd.max");
        char text[256], path[256], cause[512];

        script_host();
        snprintf(text, sizeof text, "0::/%0*d\n", (int)group, 0);
        prim_fake_script_text("/proc/self/cgroup", text);
        snprintf(path, sizeof path, "/sys/fs/cgroup/unified/%0*d/hugetlb.2MB.rsvd.max", (int)group, 0);
        cr_assert_eq(strlen(path), length);
        prim_fake_script_text(path, "2097152\n");
        snprintf(cause, sizeof cause, "raise the limit with: echo 4194304 > %s",
                 length <= 160 ? path : "the hugetlb limit of this process's control group");
        assert_cause(LOAM_PAGES_2M, LOAM_SHARING_SHARED, PRIM_MAP_FD, ENOMEM, cause);
    }
}

/* Reserved pages that a group charges when they are touched: all are touched at creation, whatever was asked. */
Test(backing_pool, pages_that_a_group_charges_at_touch_are_populated)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);
    struct loam_backing *backing;
    struct loam_diag diag;

    if (!has_2m) {
        cr_skip("%s", pool_2m.reason);
    }
    for (int commit = 0; commit < LOAM_COMMIT_COUNT; commit++) {
        script_host();
        request.commit = (enum loam_commit)commit;
        backing = create(&request);
        cr_expect_eq(loam_backing_get_info(backing).populated, commit == LOAM_COMMIT_POPULATE);
        loam_backing_destroy(backing);
        prim_fake_script_text(GROUP_V2 "hugetlb.2MB.max", "16777216\n");
        backing = create(&request);
        cr_expect(loam_backing_get_info(backing).populated);
        loam_backing_destroy(backing);
        prim_fake_fail(PRIM_POPULATE, 1, 1, EFAULT);
        diag = refused(&request, LOAM_ERROR_EXHAUSTED);
        assert_text(&diag, "its control group may have 16 MiB of hugepages");
        assert_text(&diag, GROUP_V2 "hugetlb.2MB.max");
        cr_expect_null(strstr(diag.text, "Bad address"), "%s", diag.text);
        prim_fake_fail_none();
    }
    prim_fake_script_none();
}

/* --- Cancelling ------------------------------------------------------------------------------------------------------- */

struct canceller {
    uint32_t asked;
    uint32_t limit; /* the answer is yes from this question on */
    pthread_t thread;
};

static bool asks(void *self)
{
    struct canceller *canceller = self;

    cr_expect(pthread_equal(canceller->thread, pthread_self()), "asked on a thread that did not make the call");
    return ++canceller->asked >= canceller->limit;
}

Test(backing, a_caller_cancels_between_any_two_pieces)
{
    struct canceller canceller = {.limit = UINT32_MAX, .thread = pthread_self()};
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;
    uint32_t questions;

    request.bytes = 32 * LOAM_MIB;
    request.thread_count = 1;
    request.lock = true;
    request.cancel = (struct loam_cancel){asks, &canceller};
    loam_backing_destroy(create(&request));
    questions = canceller.asked;
    cr_expect_geq(questions, 32 / 2 + 2, "%" PRIu32 " questions", questions);
    for (uint32_t limit = 1; limit <= questions; limit++) {
        canceller.asked = 0;
        canceller.limit = limit;
        diag = refused(&request, LOAM_ERROR_CANCELLED);
        cr_expect_eq(canceller.asked, limit, "asked again after the answer");
        assert_text(&diag, "cancelled by the caller");
    }
}

Test(backing, a_cancelled_call_ends_its_workers_too)
{
    struct canceller canceller = {.limit = 3, .thread = pthread_self()};
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);

    request.bytes = 64 * LOAM_MIB;
    request.thread_count = 4;
    request.cancel = (struct loam_cancel){asks, &canceller};
    prim_fake_forget();
    refused(&request, LOAM_ERROR_CANCELLED);
    cr_expect_lt(prim_fake_call_count(PRIM_POPULATE), 32, "all of it was populated all the same");
    cr_expect_eq(prim_fake_call_count(PRIM_THREAD_START), prim_fake_call_count(PRIM_THREAD_JOIN));
    request.pages = LOAM_PAGES_AUTO;
    canceller.asked = 0;
    canceller.limit = 1;
    refused(&request, LOAM_ERROR_CANCELLED);
    cr_expect_eq(canceller.asked, 1, "other kinds of pages were tried");
}

/* --- Auto and transparent huge pages --------------------------------------------------------------------------------- */

static void script_thp(const char *anonymous, const char *shmem)
{
    prim_fake_script_text(THP_SWITCH, anonymous);
    prim_fake_script_text(SHMEM_SWITCH, shmem);
}

/* Each attempt makes a file or an anonymous mapping: they show the order. */
Test(backing, auto_tries_the_larger_pages_first)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_AUTO);
    uint32_t shifts[4], attempts = 0;
    struct loam_diag diag;

    request.bytes = LOAM_GIB;
    request.commit = LOAM_COMMIT_LAZY;
    script_thp("always [madvise] never", "always advise [never]");
    prim_fake_fail(PRIM_MEMFD, 1, 10, ENFILE);
    prim_fake_fail_also(PRIM_MAP_ANONYMOUS, 1, 10, EIO);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    cr_assert_eq(diag.system_errno, ENFILE, "the error is that of the last kind");
    assert_text(&diag, "4 KiB pages");
    for (uint32_t i = 0; i < prim_fake_record_count(); i++) {
        struct prim_fake_record record = prim_fake_record(i);

        if (record.kind == PRIM_MEMFD || record.kind == PRIM_MAP_ANONYMOUS) {
            cr_assert_lt(attempts, 4);
            cr_assert_eq(record.kind == PRIM_MAP_ANONYMOUS, attempts == 2, "THP is private here");
            shifts[attempts++] = record.huge_shift;
        }
    }
    cr_assert_eq(attempts, 4);
    cr_assert(shifts[0] == 30 && shifts[1] == 21 && shifts[2] == 0 && shifts[3] == 0);
}

static enum loam_pages auto_gives(uint64_t bytes, uint64_t gpa)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_AUTO);
    struct loam_backing *backing;
    enum loam_pages pages;

    request.bytes = bytes;
    request.gpa.value = gpa;
    backing = create(&request);
    pages = loam_backing_get_info(backing).pages;
    loam_backing_destroy(backing);
    return pages;
}

Test(backing_pool, auto_gives_the_largest_pages_that_fit)
{
    if (!has_2m || !has_1g) {
        cr_skip("%s %s", pool_2m.reason, pool_1g.reason);
    }
    cr_assert_eq(auto_gives(LOAM_GIB, 3 * LOAM_GIB), LOAM_PAGES_1G);
    cr_assert_eq(auto_gives(4 * LOAM_MIB, 3 * LOAM_GIB), LOAM_PAGES_2M);
    cr_assert_eq(auto_gives((host_pool_available(2 * LOAM_MIB) + 1) * 2 * LOAM_MIB, 0), LOAM_PAGES_THP);
    cr_assert_eq(auto_gives(4 * LOAM_MIB, 4 * LOAM_KIB), LOAM_PAGES_4K);
    cr_assert_eq(auto_gives(3 * LOAM_MIB, 0), LOAM_PAGES_4K);
    script_thp("always madvise [never]", "always advise [never]");
    cr_assert_eq(auto_gives((host_pool_available(2 * LOAM_MIB) + 1) * 2 * LOAM_MIB, 0), LOAM_PAGES_4K);
}

/* Which sharing THP comes with, or LOAM_SHARING_COUNT when it is refused. */
static enum loam_sharing thp_sharing(enum loam_sharing wanted, uint64_t gpa)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_THP);
    enum loam_sharing sharing = LOAM_SHARING_COUNT;
    struct loam_backing *backing;
    struct loam_diag diag = {0};

    request.sharing = wanted;
    request.gpa.value = gpa;
    request.commit = LOAM_COMMIT_LAZY;
    if (loam_backing_create(&request, &backing, &diag) == LOAM_OK) {
        sharing = loam_backing_get_info(backing).sharing;
        loam_backing_destroy(backing);
    } else {
        cr_assert_eq(diag.error, LOAM_ERROR_EXHAUSTED);
        assert_text(&diag, wanted == LOAM_SHARING_SHARED ? SHMEM_SWITCH : THP_SWITCH);
    }
    return sharing;
}

Test(backing, transparent_huge_pages_come_where_the_host_allows_them)
{
    static const char *const shmem_on[] = {"[always] within_size advise never", "always [within_size] advise never",
                                           "always within_size [advise] never", "always never deny [force]"};
    static const char *const shmem_off[] = {"always advise [never] deny", "always advise never [deny] force"};

    for (size_t i = 0; i < 4; i++) {
        script_thp("always [madvise] never", shmem_on[i]);
        cr_assert_eq(thp_sharing(LOAM_SHARING_ANY, 0), LOAM_SHARING_SHARED);
        cr_assert_eq(thp_sharing(LOAM_SHARING_ANY, 4096), LOAM_SHARING_PRIVATE, "a file's pages would not be joined");
        cr_assert_eq(thp_sharing(LOAM_SHARING_SHARED, 0), LOAM_SHARING_SHARED);
        cr_assert_eq(thp_sharing(LOAM_SHARING_PRIVATE, 0), LOAM_SHARING_PRIVATE);
    }
    for (size_t i = 0; i < 2; i++) {
        script_thp("[always] madvise never", shmem_off[i]);
        cr_assert_eq(thp_sharing(LOAM_SHARING_ANY, 0), LOAM_SHARING_PRIVATE);
        cr_assert_eq(thp_sharing(LOAM_SHARING_SHARED, 0), LOAM_SHARING_COUNT);
        cr_assert_eq(thp_sharing(LOAM_SHARING_PRIVATE, 0), LOAM_SHARING_PRIVATE);
    }
    script_thp("always madvise [never]", shmem_off[0]);
    for (int wanted = 0; wanted < LOAM_SHARING_COUNT; wanted++) {
        cr_assert_eq(thp_sharing((enum loam_sharing)wanted, 0), LOAM_SHARING_COUNT);
    }
    prim_fake_script_only(true);
    prim_fake_script_text_error(THP_SWITCH, ENOENT);
    prim_fake_script_text_error(SHMEM_SWITCH, ENOENT);
    cr_assert_eq(thp_sharing(LOAM_SHARING_ANY, 0), LOAM_SHARING_COUNT, "a kernel without them");
}

Test(backing, a_kernel_without_transparent_huge_pages_still_gives_4k_pages)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);

    prim_fake_fail(PRIM_ADVISE_HUGE, 1, 1, EINVAL);
    loam_backing_destroy(create(&request));
    cr_assert_eq(prim_fake_failed_count(), 1);
    prim_fake_fail(PRIM_ADVISE_HUGE, 1, 1, EIO);
    refused(&request, LOAM_ERROR_SYSTEM);
}

/* --- Populating ---------------------------------------------------------------------------------------------------- */

static struct loam_backing *lazy(uint64_t bytes, uint32_t thread_count)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);

    request.bytes = bytes;
    request.commit = LOAM_COMMIT_LAZY;
    request.thread_count = thread_count;
    return create(&request);
}

/* The calls of populate cover the range, each byte once: sorted by address, each begins where the one before ends. */
static void assert_covered(const char *start, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes;) {
        uint64_t found = 0;

        for (uint32_t i = 0; i < prim_fake_record_count(); i++) {
            struct prim_fake_record record = prim_fake_record(i);

            if (record.kind == PRIM_POPULATE && record.address == start + done) {
                cr_assert_eq(found, 0, "populated twice");
                found = record.bytes;
            }
        }
        cr_assert_neq(found, 0, "nothing populates from %#" PRIx64 " on", done);
        done += found;
        cr_assert_leq(done, bytes);
    }
}

Test(backing, workers_populate_all_of_a_range_and_nothing_else)
{
    struct loam_backing *backing = lazy(8 * LOAM_MIB, 3);
    struct loam_backing_info info = loam_backing_get_info(backing);
    char *hva = info.hva;

    hva[LOAM_MIB] = 7;
    prim_fake_forget();
    cr_assert_eq(loam_backing_populate(backing, LOAM_MIB, 5 * LOAM_MIB + 4 * LOAM_KIB, NULL), LOAM_OK);
    cr_assert_eq(prim_fake_call_count(PRIM_THREAD_START), 2, "and the caller is the third");
    assert_covered(hva + LOAM_MIB, 5 * LOAM_MIB + 4 * LOAM_KIB);
    cr_assert_eq(present_bytes(&info), 5 * LOAM_MIB + 4 * LOAM_KIB);
    cr_assert_eq(hva[LOAM_MIB], 7);
    cr_assert_not(loam_backing_get_info(backing).populated);
    cr_assert_eq(loam_backing_populate(backing, 0, 8 * LOAM_MIB, NULL), LOAM_OK);
    cr_assert(loam_backing_get_info(backing).populated);
    cr_assert_eq(present_bytes(&info), 8 * LOAM_MIB);
    loam_backing_destroy(backing);
}

Test(backing, a_range_to_populate_lies_within)
{
    static const uint64_t ranges[][2] = {
        {0, 0},
        {0, 4097},
        {1, 4096},
        {LOAM_MIB, 4096},
        {0, LOAM_MIB * 2},
        {4096, LOAM_MIB},
        {UINT64_MAX - 4095, 4096},
        {4096, UINT64_MAX - 4095},
    };
    struct loam_backing *backing = lazy(LOAM_MIB, 0);
    struct loam_diag diag;

    prim_fake_forget();
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        cr_assert_eq(loam_backing_populate(backing, ranges[i][0], ranges[i][1], &diag), LOAM_ERROR_INVALID);
    }
    cr_assert_eq(prim_fake_record_count(), 0);
    cr_assert_eq(loam_backing_populate(backing, LOAM_MIB - 4096, 4096, &diag), LOAM_OK);
    loam_backing_destroy(backing);
}

/* Populate all of the backing; what is reported is held against the record of the calls. Failures are set up. */
static void populate_with_failures(struct loam_backing *backing, enum loam_error expected)
{
    struct loam_backing_info info = loam_backing_get_info(backing);
    const char *lowest = (const char *)UINTPTR_MAX;
    struct loam_diag diag = {0};
    uint64_t missing = 0;
    int error_number = 0;
    char text[128];

    prim_fake_forget();
    cr_assert_eq(loam_backing_populate(backing, 0, info.bytes, &diag), expected);
    for (uint32_t i = 0; i < prim_fake_record_count(); i++) {
        struct prim_fake_record record = prim_fake_record(i);

        missing += record.on_purpose ? record.bytes : 0;
        if (record.on_purpose && (const char *)record.address < lowest) {
            lowest = record.address;
            error_number = record.error_number;
        }
    }
    snprintf(text, sizeof text, "%" PRIu32 " of %" PRIu32 " parts failed, the first at HVA %p, GPA %#" PRIx64,
             prim_fake_failed_count(), prim_fake_call_count(PRIM_POPULATE), (const void *)lowest,
             info.gpa.value + (uint64_t)(lowest - (char *)info.hva));
    assert_text(&diag, text);
    cr_assert_eq(diag.system_errno, error_number);
    assert_text(&diag, strerror(error_number));
    assert_covered(info.hva, info.bytes);
    cr_assert_eq(present_bytes(&info), info.bytes - missing, "the other parts are populated");
    cr_assert_not(loam_backing_get_info(backing).populated);
    prim_fake_fail_none();
}

static void fail_parts(uint32_t first, uint32_t count, int error_number, enum loam_error expected)
{
    struct loam_backing *backing = lazy(16 * LOAM_MIB, 4);

    prim_fake_fail(PRIM_POPULATE, first, count, error_number);
    populate_with_failures(backing, expected);
    loam_backing_destroy(backing);
}

Test(backing, every_part_that_fails_is_reported)
{
    fail_parts(1, 1, EIO, LOAM_ERROR_SYSTEM);
    fail_parts(4, 1, ENOMEM, LOAM_ERROR_EXHAUSTED);
    fail_parts(2, 2, EFAULT, LOAM_ERROR_EXHAUSTED);
    fail_parts(2, 1, ENOSPC, LOAM_ERROR_EXHAUSTED);
    fail_parts(2, 1, EFBIG, LOAM_ERROR_EXHAUSTED);
    fail_parts(1, 100, EHWPOISON, LOAM_ERROR_SYSTEM);
}

/* Failures fall to whichever worker meets them: often enough repeated, the lowest is met by the first and by the last. */
Test(backing, of_the_failures_of_many_workers_the_lowest_is_the_first)
{
    for (int i = 0; i < 40; i++) {
        struct loam_backing *backing = lazy(32 * LOAM_MIB, 8);

        prim_fake_fail(PRIM_POPULATE, 1, 1, EIO);
        prim_fake_fail_also(PRIM_POPULATE, 3, 1, EHWPOISON);
        prim_fake_fail_also(PRIM_POPULATE, 4, 1, EINTR);
        prim_fake_fail_also(PRIM_POPULATE, 6, 1, EPERM);
        prim_fake_fail_also(PRIM_POPULATE, 8, 1, EBUSY);
        populate_with_failures(backing, LOAM_ERROR_SYSTEM);
        loam_backing_destroy(backing);
    }
}

Test(backing, a_failed_part_fails_the_creation)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    request.thread_count = 2;
    prim_fake_fail(PRIM_POPULATE, 1, 1, ENOMEM);
    diag = refused(&request, LOAM_ERROR_EXHAUSTED);
    assert_text(&diag, "populate: 4 MiB of 4 KiB pages: 1 of 2 parts failed");
}

Test(backing, threads_that_do_not_start_are_done_without)
{
    for (uint32_t working = 0; working < 4; working++) {
        struct loam_backing *backing = lazy(4 * LOAM_MIB, 5);
        struct loam_backing_info info = loam_backing_get_info(backing);

        prim_fake_fail(PRIM_THREAD_START, 1 + working, 100, EAGAIN);
        cr_assert_eq(loam_backing_populate(backing, 0, info.bytes, NULL), LOAM_OK);
        cr_assert_eq(prim_fake_failed_count(), 1);
        cr_assert_eq(present_bytes(&info), info.bytes);
        prim_fake_fail_none();
        loam_backing_destroy(backing);
    }
}

/* Zero means one a processor, but no more than one for each 64 MiB. */
Test(backing, workers_are_as_many_as_are_of_use)
{
    static const struct {
        uint32_t thread_count, cpus;
        uint64_t bytes;
        uint32_t started;
    } cases[] = {
        {0, 8, 63 * LOAM_MIB, 0},  {0, 8, 128 * LOAM_MIB, 1}, {0, 8, 256 * LOAM_MIB, 3},
        {0, 2, 256 * LOAM_MIB, 1}, {0, 1, 256 * LOAM_MIB, 0}, {1, 8, 256 * LOAM_MIB, 0},
        {6, 1, LOAM_MIB, 5},       {8, 1, 8 * LOAM_KIB, 1},   {256, 1, LOAM_MIB, 255},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_backing *backing = lazy(cases[i].bytes, cases[i].thread_count);

        prim_fake_script_cpu_count(cases[i].cpus);
        prim_fake_forget();
        cr_assert_eq(loam_backing_populate(backing, 0, cases[i].bytes, NULL), LOAM_OK);
        cr_assert_eq(prim_fake_call_count(PRIM_THREAD_START), cases[i].started, "case %zu", i);
        loam_backing_destroy(backing);
    }
}

/* --- Nothing is left behind ---------------------------------------------------------------------------------------- */

/* Create and destroy with call number n failing. Returns whether there was a call number n. */
static bool fail_call(const struct loam_backing_request *request, uint32_t n, int error_number)
{
    struct loam_backing *backing = (struct loam_backing *)&before;
    struct loam_diag diag = {0};
    enum loam_error error;
    uint32_t failed;

    prim_fake_fail(PRIM_ANY, n, 1, error_number);
    error = loam_backing_create(request, &backing, &diag);
    cr_assert_eq(error == LOAM_OK, backing != NULL);
    cr_assert_eq(error == LOAM_OK, diag.text[0] == '\0');
    cr_assert_eq(error, diag.error);
    if (error == LOAM_OK) {
        memset(loam_backing_get_info(backing).hva, 1, 4096);
    }
    loam_backing_destroy(backing);
    failed = prim_fake_failed_count();
    cr_assert(prim_fake_clean(), "call %" PRIu32 ", %s", n, strerror(error_number));
    cr_assert(host_state_unchanged(&before), "call %" PRIu32 ", %s", n, strerror(error_number));
    return failed != 0;
}

static void fail_each_call(struct loam_backing_request request)
{
    static const int errors[] = {ENOMEM, EINVAL, EEXIST, EIO, ENODEV};

    request.thread_count = 2;
    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    request.lock = request.commit != LOAM_COMMIT_LAZY;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        uint32_t n = 1;

        while (fail_call(&request, n, errors[i])) {
            n++;
        }
        cr_assert_gt(n, 8, "a creation is more than %" PRIu32 " calls", n);
    }
}

static void fail_each_call_of(enum loam_pages pages)
{
    for (int sharing = LOAM_SHARING_SHARED; sharing <= LOAM_SHARING_PRIVATE; sharing++) {
        struct loam_backing_request request = request_of(pages);

        request.sharing = (enum loam_sharing)sharing;
        if (host_has(pages, request.sharing)) {
            fail_each_call(request);
        }
    }
}

Test(backing_pool, any_call_may_fail_with_4k_pages)
{
    fail_each_call_of(LOAM_PAGES_4K);
}

Test(backing_pool, any_call_may_fail_with_transparent_huge_pages)
{
    fail_each_call_of(LOAM_PAGES_THP);
}

Test(backing_pool, any_call_may_fail_with_2m_pages)
{
    fail_each_call_of(LOAM_PAGES_2M);
}

Test(backing_pool, any_call_may_fail_with_1g_pages)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_1G);

    if (!has_1g) {
        cr_skip("%s", pool_1g.reason);
    }
    for (uint32_t n = 1; fail_call(&request, n, ENOMEM); n++) {
    }
}

Test(backing_pool, any_call_may_fail_with_auto)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_AUTO);

    fail_each_call(request);
    request.commit = LOAM_COMMIT_LAZY;
    request.sharing = LOAM_SHARING_PRIVATE;
    fail_each_call(request);
}

/* Pairs of failures reach the clean-up of a clean-up. */
Test(backing_pool, any_two_calls_may_fail)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_2M);

    for (uint32_t first = 1; has_2m && first < 16; first++) {
        for (uint32_t second = first + 1; second < 20; second++) {
            struct loam_backing *backing;

            prim_fake_fail(PRIM_ANY, first, 1, ENOMEM);
            prim_fake_fail_also(PRIM_ANY, second, 1, EEXIST);
            if (loam_backing_create(&request, &backing, NULL) == LOAM_OK) {
                loam_backing_destroy(backing);
            }
            prim_fake_fail_none();
            cr_assert(prim_fake_clean(), "calls %" PRIu32 " and %" PRIu32, first, second);
        }
    }
}

/* Another thread maps into the gap: look elsewhere; if it goes on for ever, give up. */
Test(backing, a_place_that_is_taken_meanwhile_is_left_to_the_other)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_diag diag;

    prim_fake_fail(PRIM_MAP_FD, 1, 3, EEXIST);
    loam_backing_destroy(create(&request));
    cr_assert_eq(prim_fake_call_count(PRIM_RESERVE), 4);
    cr_assert(prim_fake_clean());
    prim_fake_forget();
    prim_fake_fail(PRIM_MAP_FD, 1, UINT32_MAX, EEXIST);
    diag = refused(&request, LOAM_ERROR_SYSTEM);
    cr_assert_eq(diag.system_errno, EEXIST);
    cr_assert_eq(prim_fake_call_count(PRIM_RESERVE), 16, "so often another place is looked for");
}

/* With too many mappings in the process for a moment, munmap fails: try again. */
Test(backing, memory_is_given_back_though_it_takes_attempts)
{
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);
    struct loam_backing *backing = create(&request);

    prim_fake_fail(PRIM_UNMAP, 1, 2, ENOMEM);
    loam_backing_destroy(backing);
    cr_expect_eq(prim_fake_failed_count(), 2);
    cr_expect(prim_fake_clean());
}

static void *create_and_destroy(void *argument)
{
    static _Atomic uint32_t numbers;
    uint32_t number = atomic_fetch_add(&numbers, 1) + 1, wrong = 0;
    struct loam_backing_request request = request_of(LOAM_PAGES_4K);

    request.commit = LOAM_COMMIT_LAZY;
    request.sharing = number % 2 ? LOAM_SHARING_SHARED : LOAM_SHARING_PRIVATE;
    for (int i = 0; i < 300; i++) {
        struct loam_backing *backing;
        uint32_t *memory;

        if (loam_backing_create(&request, &backing, NULL) != LOAM_OK) {
            wrong++;
            continue;
        }
        memory = loam_backing_get_info(backing).hva;
        wrong += memory[0] != 0;
        memory[0] = number;
        sched_yield();
        wrong += memory[0] != number;
        loam_backing_destroy(backing);
    }
    atomic_fetch_add((_Atomic uint32_t *)argument, wrong);
    return NULL;
}

Test(backing, threads_make_backings_beside_each_other)
{
    _Atomic uint32_t wrong = 0;
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, create_and_destroy, &wrong), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(wrong, 0);
}

/* --- For information ----------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void print_speed(enum loam_pages pages, enum loam_sharing sharing, uint32_t thread_count)
{
    struct loam_backing_request request = request_of(pages);
    struct loam_backing *backing;
    double start;

    request.bytes = LOAM_GIB / 4;
    request.sharing = sharing;
    request.thread_count = thread_count;
    request.commit = LOAM_COMMIT_POPULATE;
    start = now();
    backing = create(&request);
    fprintf(stderr, "populate 256 MiB of %s pages, %s, %" PRIu32 " threads: %.1f GiB/s\n", loam_pages_name(pages),
            sharing == LOAM_SHARING_SHARED ? "shared" : "private", thread_count, 0.25 / (now() - start));
    loam_backing_destroy(backing);
}

Test(backing_speed, is_printed)
{
    struct host_setting pool;

    for (uint32_t threads = 1; threads <= 2; threads++) {
        print_speed(LOAM_PAGES_4K, LOAM_SHARING_SHARED, threads);
        print_speed(LOAM_PAGES_4K, LOAM_SHARING_PRIVATE, threads);
        print_speed(LOAM_PAGES_THP, LOAM_SHARING_PRIVATE, threads);
    }
    for (int sharing = LOAM_SHARING_SHARED; host_pool_raise(&pool, 2 * LOAM_MIB, 128) && sharing < LOAM_SHARING_COUNT;
         sharing++) {
        print_speed(LOAM_PAGES_2M, (enum loam_sharing)sharing, 1);
        print_speed(LOAM_PAGES_2M, (enum loam_sharing)sharing, 2);
        host_setting_restore(&pool);
    }
    host_setting_restore(&pool);
}
