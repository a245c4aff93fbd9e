// SPDX-License-Identifier: Apache-2.0
/*
 * Once memory and caches are there, the library makes the system calls that allocator/README.md lists, and no other: all
 * of it runs under a filter that ends the process at any other call. The list is read from README.md.
 */
#include "loam/gpa_io.h"
#include "loam/memory.h"
#include "loam/slab.h"
#include "loam/slots.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEADING "## System calls after creation"

enum { BUFFERS = 1500, OBJECTS = 4000 };

/* What the process under the filter leaves to be read. */
static struct outcome {
    atomic_int refused; /* a system call that is not on the list */
    atomic_int line;    /* a call of the library that answered what it should not */
    atomic_int forbid;  /* a call to take off the list, to see that the test can fail */
} * outcome;

static void make_outcome(void)
{
    outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    outcome->refused = -1;
    outcome->forbid = -1;
}

TestSuite(system_calls, .init = make_outcome, .timeout = 120);

static void note_refused(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    (void)context;
    outcome->refused = info->si_syscall;
    _exit(1);
}

static void require(bool condition, int line)
{
    if (!condition) {
        outcome->line = line;
        _exit(2);
    }
}

#define REQUIRE(condition) require(condition, __LINE__)

/* --- The filter ---------------------------------------------------------------------------------------------------------- */

static void allow(scmp_filter_ctx filter, const char *name)
{
    int number = seccomp_syscall_resolve_name(name);

    REQUIRE(number != __NR_SCMP_ERROR);
    REQUIRE(number == outcome->forbid || seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0) == 0);
}

/* The second column of the table's rows: names between back quotes. */
static unsigned allow_row(scmp_filter_ctx filter, char *row)
{
    char *calls = strchr(row + 1, '|'), *end = calls != NULL ? strchr(calls + 1, '|') : NULL, *rest, *name;
    unsigned count = 0;

    if (row[0] != '|' || end == NULL) {
        return 0;
    }
    *end = '\0';
    strtok_r(calls, "`", &rest);
    while ((name = strtok_r(NULL, "`", &rest)) != NULL) {
        allow(filter, name);
        count++;
        strtok_r(NULL, "`", &rest);
    }
    return count;
}

static void put_on_filter(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    FILE *readme = fopen("allocator/README.md", "re");
    bool within = false;
    unsigned count = 0;
    char line[1024];

    REQUIRE(filter != NULL && readme != NULL);
    while (fgets(line, sizeof line, readme) != NULL) {
        within = line[0] == '#' ? strncmp(line, HEADING, strlen(HEADING)) == 0 : within;
        count += within ? allow_row(filter, line) : 0;
    }
    fclose(readme);
    REQUIRE(count >= 10);
    /* The test's own: its threads end, and the handler ends it. */
    allow(filter, "exit");
    allow(filter, "exit_group");
    allow(filter, "rt_sigprocmask");
    REQUIRE(seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) == 0 && seccomp_load(filter) == 0);
}

/* --- The library --------------------------------------------------------------------------------------------------------- */

static struct loam_memory *memory;
static struct loam_slab slab;
static pthread_barrier_t ready, filtered;

static void make_memory(void)
{
    struct loam_memory_request request = {.bytes = 64 * LOAM_MIB, .pages = LOAM_PAGES_4K, .keep_from_children = true};
    struct loam_diag diag = {0};
    struct loam_plan plan;

    REQUIRE(loam_plan_make(&request, &plan, &diag) == LOAM_OK);
    REQUIRE(loam_memory_create(&plan, &memory, &diag) == LOAM_OK);
}

/* On all of the guest's RAM from 1 MiB on; what lies below is taken, so that no slab gets there. */
static void make_slab(void)
{
    loam_pfn low;

    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    struct loam_slab_config config = {.window_count = 1, .windows = {{.start = {LOAM_MIB}, .bytes = 63 * LOAM_MIB}}};
    size_t bytes = loam_slab_bytes(&config);

    while (loam_frame_alloc_order_below(loam_memory_frame(memory), 0, loam_pfn_from_u64(256), &low) == LOAM_OK) {
    }
    REQUIRE(loam_gpa_view_translate(view, config.windows[0].start, config.windows[0].bytes, LOAM_ACCESS_WRITE,
                                    &config.windows[0].hva) == LOAM_OK);
    loam_gpa_map_release(loam_memory_map(memory), view);
    REQUIRE(loam_slab_init(aligned_alloc(64, loam_align_up(bytes, 64)), bytes, &config, loam_memory_frame(memory),
                           &slab) == LOAM_OK);
}

static void use_frames(struct loam_frame_cache *cache)
{
    struct loam_frame_request request = {.count_frames = 700};
    struct loam_frame_block block;
    loam_pfn start;

    for (int i = 0; i < 300; i++) {
        REQUIRE(loam_frame_cache_alloc(cache, (uint32_t)i % 10, loam_pfn_from_u64(0), &start) == LOAM_OK);
        REQUIRE(loam_frame_alloc(loam_memory_frame(memory), &request, &block) == LOAM_OK);
        REQUIRE(loam_frame_query(loam_memory_frame(memory), start).state == LOAM_FRAME_ALLOCATED);
        REQUIRE(loam_frame_free(loam_memory_frame(memory), block.start, 700) == LOAM_OK);
        REQUIRE(loam_frame_cache_free(cache, start, UINT64_C(1) << i % 10) == LOAM_OK);
    }
}

static void use_ledger(void)
{
    static _Thread_local struct loam_dma_buffer buffers[BUFFERS];
    struct loam_dma_request request = {.owner = "ledger", .bytes = 4096};
    struct loam_dma_entry entry;
    struct loam_diag diag;

    for (size_t i = 0; i < BUFFERS; i++) {
        REQUIRE(loam_dma_alloc(loam_memory_dma(memory), &request, &buffers[i], NULL) == LOAM_OK);
        REQUIRE(loam_dma_pin(loam_memory_dma(memory), buffers[i].id) == LOAM_OK);
    }
    REQUIRE(loam_dma_next(loam_memory_dma(memory), buffers[BUFFERS - 1].gpa, &entry) == LOAM_OK);
    for (size_t i = 0; i < BUFFERS; i++) {
        REQUIRE(loam_dma_unpin(loam_memory_dma(memory), buffers[i].id) == LOAM_OK);
        REQUIRE(loam_dma_release(loam_memory_dma(memory), buffers[i].id) == LOAM_OK);
    }
    request.bytes = LOAM_GIB;
    REQUIRE(loam_dma_alloc(loam_memory_dma(memory), &request, &buffers[0], &diag) == LOAM_ERROR_EXHAUSTED);
}

static void use_map(uint64_t number)
{
    struct loam_region device = {.start = {(64 + number) * LOAM_GIB}, .bytes = 4096, .type = LOAM_REGION_DEVICE};
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    uint64_t value = 0;

    REQUIRE(loam_gpa_view_read(view, loam_gpa_from_u64(2 * LOAM_MIB), &value, sizeof value) == LOAM_OK);
    loam_gpa_map_release(loam_memory_map(memory), view);
    while (loam_gpa_map_insert(loam_memory_map(memory), &device) == LOAM_ERROR_BUSY) {
    }
    while (loam_gpa_map_remove(loam_memory_map(memory), device.start, 4096) == LOAM_ERROR_BUSY) {
    }
}

static int set_slot(void *count, const struct loam_slots_row *row)
{
    *(uint64_t *)count += row->bytes > 0;
    return 0;
}

static void use_slots(void)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    uint64_t count = 0;
    struct loam_slots_config config = {set_slot, &count, 1000, 0};
    struct loam_slots *slots;

    REQUIRE(loam_slots_create(&config, &slots, NULL) == LOAM_OK);
    REQUIRE(loam_slots_update(slots, view, NULL) == LOAM_OK);
    REQUIRE(count > 0 && loam_slots_clear(slots, NULL) == LOAM_OK);
    loam_slots_destroy(slots);
    loam_gpa_map_release(loam_memory_map(memory), view);
}

static void use_slab(struct loam_slab_cache *cache)
{
    static _Thread_local struct loam_slab_object objects[OBJECTS];

    for (size_t i = 0; i < OBJECTS; i++) {
        REQUIRE(loam_slab_alloc(cache, 8 + i % 1000, &objects[i]) == LOAM_OK);
    }
    for (size_t i = 0; i < OBJECTS; i++) {
        REQUIRE(loam_slab_free(cache, objects[i].gpa, 8 + i % 1000) == LOAM_OK);
    }
    REQUIRE(loam_slab_cache_drain(&slab, cache) == LOAM_OK);
    REQUIRE(loam_slab_trim(&slab) == LOAM_OK);
}

/* Both ways, at the position and at an offset. */
static void use_file(int fd)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    loam_gpa gpa = {2 * LOAM_MIB};
    uint64_t done;

    for (int64_t offset = LOAM_GPA_IO_POSITION; offset <= 0; offset++) {
        REQUIRE(loam_gpa_io_write_to_fd(view, gpa, 4096, fd, offset, &done) == LOAM_OK && done == 4096);
        REQUIRE(loam_gpa_io_read_from_fd(view, gpa, 4096, fd, offset, &done) == LOAM_OK);
    }
    loam_gpa_map_release(loam_memory_map(memory), view);
}

/* Everything, in two threads at once. */
static void *work(void *number)
{
    struct loam_frame_cache *frame_cache;
    struct loam_slab_cache *slab_cache;
    int fd = memfd_create("file", MFD_CLOEXEC);

    REQUIRE(loam_frame_cache_make(loam_memory_frame(memory), &frame_cache) == LOAM_OK);
    REQUIRE(loam_slab_cache_make(&slab, &slab_cache) == LOAM_OK);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&filtered);
    for (int i = 0; i < 5; i++) {
        use_frames(frame_cache);
        REQUIRE(loam_memory_thread_cache(memory) != NULL);
        use_frames(loam_memory_thread_cache(memory));
        use_ledger();
        use_map((uintptr_t)number);
        use_slots();
        use_slab(slab_cache);
        use_file(fd);
    }
    REQUIRE(loam_frame_cache_destroy(frame_cache) == LOAM_OK);
    REQUIRE(loam_slab_cache_destroy(&slab, slab_cache) == LOAM_OK);
    return NULL;
}

/* Two threads meet at a lock that is held for longer than a waiter leaves its holder unasked for. */
static void *hold_ledger(void *unused)
{
    loam_dma_freeze(loam_memory_dma(memory));
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&filtered);
    for (struct timespec now, begun = {0}; begun.tv_sec == 0 || now.tv_sec < begun.tv_sec + 2;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        begun = begun.tv_sec == 0 ? now : begun;
    }
    loam_dma_thaw(loam_memory_dma(memory));
    return unused;
}

static void run(void *(*first)(void *), void *(*second)(void *), void (*last)(void))
{
    struct sigaction action = {.sa_sigaction = note_refused, .sa_flags = SA_SIGINFO};
    pthread_t threads[2];
    struct loam_diag diag = {0};

    sigaction(SIGSYS, &action, NULL);
    make_memory();
    make_slab();
    pthread_barrier_init(&ready, NULL, 3);
    pthread_barrier_init(&filtered, NULL, 3);
    REQUIRE(pthread_create(&threads[0], NULL, first, (void *)1) == 0);
    REQUIRE(pthread_create(&threads[1], NULL, second, (void *)2) == 0);
    pthread_barrier_wait(&ready);
    put_on_filter();
    pthread_barrier_wait(&filtered);
    if (last != NULL) {
        last();
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    REQUIRE(loam_memory_validate(memory, &diag) == LOAM_OK);
    REQUIRE(loam_slab_validate(&slab, &diag) == LOAM_OK);
    REQUIRE(loam_slab_destroy(&slab, NULL) == LOAM_OK);
    loam_memory_destroy(memory);
    _exit(0);
}

static void *only_wait(void *unused)
{
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&filtered);
    return unused;
}

static void ask_ledger(void)
{
    REQUIRE(loam_dma_count(loam_memory_dma(memory)) == 2);
}

static void assert_ended_well(pid_t child)
{
    char *name;
    int status;

    cr_assert_eq(waitpid(child, &status, 0), child);
    name = outcome->refused < 0 ? NULL : seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, outcome->refused);
    cr_assert_null(name, "%s is not among the calls that allocator/README.md lists", name);
    cr_assert_eq(outcome->line, 0, "line %d is wrong", outcome->line);
    cr_assert_eq(status, 0, "status %#x", (unsigned)status);
}

Test(system_calls, all_of_the_library_makes_only_those_listed)
{
    pid_t child = fork();

    if (child == 0) {
        run(work, work, NULL);
    }
    assert_ended_well(child);
}

Test(system_calls, a_long_wait_makes_only_those_listed)
{
    pid_t child = fork();

    if (child == 0) {
        run(hold_ledger, only_wait, ask_ledger);
    }
    assert_ended_well(child);
}

/* The test can fail: without membarrier on the list, it names it. */
Test(system_calls, a_call_that_is_not_listed_is_named)
{
    pid_t child;
    int status;

    outcome->forbid = seccomp_syscall_resolve_name("membarrier");
    child = fork();
    if (child == 0) {
        run(work, work, NULL);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(outcome->refused, outcome->forbid);
}
