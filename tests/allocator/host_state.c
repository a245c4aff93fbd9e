// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/host_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define GUARD_BYTES_MIN   (UINT64_C(64) << 10)
#define MALLOC_HEAP_BYTES (UINT64_C(64) << 20) /* HEAP_MAX_SIZE of glibc */
#define PATIENCE_MS       1000

static const uint64_t pool_page_bytes[HOST_POOL_COUNT] = {UINT64_C(2) << 20, UINT64_C(1) << 30};

/* A mapping of /proc/self/smaps. */
struct mapping {
    uint64_t start;
    uint64_t end;
    char access[5];
    uint64_t inode;
    char name[128];
    bool hugetlb;
    bool advised;
    bool is_stack; /* a guard of a page lies right below */
};

static bool parse_header(const char *line, struct mapping *mapping)
{
    struct mapping parsed = {0};

    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %" SCNu64 " %127s", &parsed.start, &parsed.end, parsed.access,
               &parsed.inode, parsed.name) < 4) {
        return false;
    }
    /* mapping is still the one below */
    if (mapping->end == parsed.start && strncmp(mapping->access, "---p", 4) == 0 &&
        mapping->end - mapping->start < GUARD_BYTES_MIN) {
        parsed.is_stack = true;
    }
    *mapping = parsed;
    return true;
}

static void parse_flags(const char *line, struct mapping *mapping)
{
    mapping->hugetlb = strstr(line, " ht") != NULL;
    mapping->advised = strstr(line, " hg") != NULL || strstr(line, " nh") != NULL;
}

/* Since 6.7 the kernel itself advises against huge pages in the stacks of threads. */
static bool is_advised(const struct mapping *mapping)
{
    return mapping->advised && strncmp(mapping->access, "rw-", 3) == 0 && !mapping->is_stack;
}

/* Without access, nobody's file, and neither the guard of a stack (4 KiB) nor the unused end of an arena of malloc. */
static bool is_reservation(const struct mapping *mapping)
{
    return strncmp(mapping->access, "---p", 4) == 0 && mapping->inode == 0 &&
           mapping->end - mapping->start >= GUARD_BYTES_MIN && mapping->end % MALLOC_HEAP_BYTES != 0;
}

static bool is_counted(const struct mapping *mapping)
{
    return mapping->hugetlb || strncmp(mapping->name, "/memfd:", 7) == 0 ||
           (!SANITIZED && (is_advised(mapping) || is_reservation(mapping)));
}

/* VmFlags is the last line of a mapping. */
static void count_mappings(struct host_state *state)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    struct mapping mapping = {0};
    char line[4096];

    while (smaps != NULL && fgets(line, sizeof line, smaps) != NULL) {
        if (strncmp(line, "VmFlags:", 8) != 0) {
            parse_header(line, &mapping);
            continue;
        }
        parse_flags(line, &mapping);
        if (is_counted(&mapping)) {
            state->mapping_count++;
            state->mapping_bytes += mapping.end - mapping.start;
        }
    }
    if (smaps != NULL) {
        fclose(smaps);
    }
}

static uint32_t count_entries(const char *path)
{
    DIR *directory = opendir(path);
    uint32_t count = 0;

    while (directory != NULL && readdir(directory) != NULL) {
        count++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}

static void pool_path(char path[128], uint64_t page_bytes, const char *figure)
{
    snprintf(path, 128, "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/%s_hugepages", page_bytes / 1024, figure);
}

static uint64_t pool_figure(uint64_t page_bytes, const char *figure)
{
    char path[128];
    uint64_t value = 0;
    FILE *file;

    pool_path(path, page_bytes, figure);
    file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%" SCNu64, &value) != 1) {
            value = 0;
        }
        fclose(file);
    }
    return value;
}

static struct host_pool_state take_pool(uint64_t page_bytes)
{
    return (struct host_pool_state){
        .total = pool_figure(page_bytes, "nr"),
        .free = pool_figure(page_bytes, "free"),
        .reserved = pool_figure(page_bytes, "resv"),
        .surplus = pool_figure(page_bytes, "surplus"),
    };
}

bool host_state_counts_private(void)
{
    return !SANITIZED;
}

struct host_state host_state_take_process(void)
{
    struct host_state state = {
        .fd_count = count_entries("/proc/self/fd"),
        .thread_count = count_entries("/proc/self/task"),
        .process_only = true,
    };

    count_mappings(&state);
    return state;
}

struct host_state host_state_take(void)
{
    struct host_state state = host_state_take_process();

    state.process_only = false;
    for (int i = 0; i < HOST_POOL_COUNT; i++) {
        state.pools[i] = take_pool(pool_page_bytes[i]);
    }
    return state;
}

static bool same(const char *what, uint64_t before, uint64_t after, bool print)
{
    if (before != after && print) {
        fprintf(stderr, "host: %s: %" PRIu64 " before, %" PRIu64 " after\n", what, before, after);
    }
    return before == after;
}

static bool same_pool(uint64_t page_bytes, const struct host_pool_state *before, const struct host_pool_state *after,
                      bool print)
{
    bool equal = true;
    char what[4][64];
    const char *figures[4] = {"total", "free", "reserved", "surplus"};

    for (int i = 0; i < 4; i++) {
        snprintf(what[i], sizeof what[i], "hugepages of %" PRIu64 " KiB, %s", page_bytes / 1024, figures[i]);
    }
    equal &= same(what[0], before->total, after->total, print);
    equal &= same(what[1], before->free, after->free, print);
    equal &= same(what[2], before->reserved, after->reserved, print);
    equal &= same(what[3], before->surplus, after->surplus, print);
    return equal;
}

static bool same_state(const struct host_state *before, bool print)
{
    struct host_state after = before->process_only ? host_state_take_process() : host_state_take();
    bool equal = true;

    equal &= same("mappings", before->mapping_count, after.mapping_count, print);
    equal &= same("bytes mapped", before->mapping_bytes, after.mapping_bytes, print);
    equal &= same("open descriptors", before->fd_count, after.fd_count, print);
    equal &= same("threads", before->thread_count, after.thread_count, print);
    for (int i = 0; i < HOST_POOL_COUNT; i++) {
        equal &= same_pool(pool_page_bytes[i], &before->pools[i], &after.pools[i], print);
    }
    return equal;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool host_state_unchanged(const struct host_state *before)
{
    static const struct timespec tick = {.tv_nsec = 1000 * 1000};
    int64_t deadline = now_ms() + PATIENCE_MS;

    while (now_ms() < deadline) {
        if (same_state(before, false)) {
            return true;
        }
        nanosleep(&tick, NULL);
    }
    return same_state(before, true);
}

uint64_t host_pool_available(uint64_t page_bytes)
{
    struct host_pool_state state = take_pool(page_bytes);

    return state.free > state.reserved ? state.free - state.reserved : 0;
}

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t bytes = strlen(text);
    bool ok;

    if (fd < 0) {
        return false;
    }
    ok = write(fd, text, bytes) == (ssize_t)bytes;
    close(fd);
    return ok;
}

/* The value of a setting: the word in brackets where there are several, else the first line. */
static bool read_setting(const char *path, char value[256])
{
    FILE *file = fopen(path, "re");
    char line[256] = "";
    const char *start = line;
    bool ok;

    if (file == NULL) {
        return false;
    }
    ok = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    if (strchr(line, '[') != NULL) {
        start = strchr(line, '[') + 1;
    }
    snprintf(value, 256, "%.*s", (int)strcspn(start, "]\n"), start);
    return ok;
}

/*
 * The keeper: sleeps until the test closes its end of the pipe or dies, then restores. It outlives signals of a
 * terminal, and holds no descriptor but its end: not the output that somebody reads to its end, and not the pipe of
 * another keeper.
 */
static void keep(int pipe_fd, const char *path, const char *value)
{
    char byte;

    dup2(pipe_fd, STDIN_FILENO);
    close_range(STDIN_FILENO + 1, ~0u, 0);
    prctl(PR_SET_NAME, "setting-keeper");
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR) {
    }
    write_file(path, value);
    _exit(0);
}

static bool start_keeper(struct host_setting *setting, const char *path, const char *value)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0) {
        return false;
    }
    setting->keeper = fork();
    if (setting->keeper == 0) {
        close(ends[1]);
        keep(ends[0], path, value);
    }
    close(ends[0]);
    if (setting->keeper < 0) {
        setting->keeper = 0;
        close(ends[1]);
        return false;
    }
    setting->pipe = ends[1];
    return true;
}

bool host_setting_change(struct host_setting *setting, const char *path, const char *text)
{
    char value[256];

    *setting = (struct host_setting){.pipe = -1};
    if (read_setting(path, value) && start_keeper(setting, path, value) && write_file(path, text)) {
        return true;
    }
    snprintf(setting->reason, sizeof setting->reason, "%s could not be written to %s: %s", text, path, strerror(errno));
    host_setting_restore(setting);
    return false;
}

void host_setting_restore(struct host_setting *setting)
{
    if (setting->keeper != 0) {
        close(setting->pipe);
        waitpid(setting->keeper, NULL, 0);
    }
    setting->keeper = 0;
    setting->pipe = -1;
}

bool host_pool_raise(struct host_setting *pool, uint64_t page_bytes, uint64_t page_count)
{
    uint64_t available = host_pool_available(page_bytes);
    char path[128], total[32];

    *pool = (struct host_setting){.pipe = -1};
    if (available >= page_count) {
        return true;
    }
    pool_path(path, page_bytes, "nr");
    snprintf(total, sizeof total, "%" PRIu64, pool_figure(page_bytes, "nr") + page_count - available);
    if (!host_setting_change(pool, path, total)) {
        return false;
    }
    available = host_pool_available(page_bytes);
    if (available < page_count) {
        host_setting_restore(pool);
        snprintf(pool->reason, sizeof pool->reason,
                 "hugepages: %" PRIu64 " x %" PRIu64 " KiB wanted, %" PRIu64 " could be had: memory is too fragmented",
                 page_count, page_bytes / 1024, available);
        return false;
    }
    return true;
}
