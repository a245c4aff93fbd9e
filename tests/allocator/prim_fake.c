// SPDX-License-Identifier: Apache-2.0
/*
 * One lock guards everything here. It is held over the real calls that make or end a mapping or a descriptor, so that
 * the account never disagrees with the kernel while another thread reuses the same address or number; it is not held
 * over calls that only work on what is there, so that workers populate in parallel.
 *
 * ranges: sorted, disjoint, and not adjacent: ranges[i].value < ranges[i + 1].key, where key is the start and value the
 * end.
 */
#include "tests/allocator/prim_fake.h"

/* The header twice: the real functions under their other names, then those that are defined here. */
#define LOAM_PRIM(name) loam_prim_real_##name
#include "allocator/host/prim.h"
#undef LOAM_PRIM
#undef LOAM_PRIM_H
#include "allocator/host/prim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define RULE_MAX   16

struct item {
    uint64_t key;
    uint64_t value;
};

struct bag {
    struct item *items;
    uint32_t count;
    uint32_t capacity;
};

struct rule {
    enum prim_kind kind;
    uint32_t first;
    uint32_t count;
    uint32_t seen;
    int error_number;
};

struct script {
    char *path;
    char *text; /* NULL: error_number instead */
    int error_number;
    struct script *next;
};

static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;

static struct bag ranges;
static struct bag descriptors; /* key: number */
static struct bag heap;        /* key: address, value: bytes */
static struct bag threads;     /* key: pthread_t */
static struct bag keys;        /* key: pthread_key_t */

static struct rule rules[RULE_MAX];
static uint32_t rule_count;
static uint32_t failed_count;

static struct script *scripts;
static bool script_only;
static uint32_t script_cpus;
static struct {
    bool on;
    uint64_t bytes;
    int error_number;
} script_limits[LOAM_PRIM_LIMIT_COUNT];
static uint64_t script_threads;

static struct prim_fake_record *records;
static uint32_t record_count;
static uint32_t record_capacity;

static const char *const kind_names[PRIM_KIND_COUNT + 1] = {
    [PRIM_RESERVE] = "reserve",
    [PRIM_MAP_FD] = "map_fd",
    [PRIM_MAP_ANONYMOUS] = "map_anonymous",
    [PRIM_UNMAP] = "unmap",
    [PRIM_POPULATE] = "populate",
    [PRIM_DISCARD] = "discard",
    [PRIM_ADVISE_HUGE] = "advise_huge",
    [PRIM_KEEP_FROM_CHILDREN] = "keep_from_children",
    [PRIM_KEEP_FROM_DUMPS] = "keep_from_dumps",
    [PRIM_BIND_NODES] = "bind_nodes",
    [PRIM_LOCK] = "lock",
    [PRIM_MEMFD] = "memfd",
    [PRIM_DUPLICATE] = "duplicate",
    [PRIM_FILE_SIZE] = "file_size",
    [PRIM_CLOSE] = "close",
    [PRIM_READ_VECTORS] = "read_vectors",
    [PRIM_WRITE_VECTORS] = "write_vectors",
    [PRIM_THREAD_START] = "thread_start",
    [PRIM_KEY_MAKE] = "key_make",
    [PRIM_KEY_SET] = "key_set",
    [PRIM_HEAP_ALLOC] = "heap_alloc",
    [PRIM_READ_TEXT] = "read_text",
    [PRIM_LIMIT] = "limit",
    [PRIM_USER_THREADS] = "user_threads",
    [PRIM_THREAD_JOIN] = "thread_join",
    [PRIM_KEY_DROP] = "key_drop",
    [PRIM_HEAP_FREE] = "heap_free",
    [PRIM_CPU_COUNT] = "cpu_count",
    [PRIM_ANY] = "any",
};

const char *prim_kind_name(enum prim_kind kind)
{
    return (unsigned)kind <= PRIM_KIND_COUNT ? kind_names[kind] : "unknown";
}

/* --- Misuse ------------------------------------------------------------------------------------------------------- */

static void print_record(const struct prim_fake_record *call)
{
    fprintf(stderr, "%s: address %p, bytes %" PRIu64 ", fd %d, offset %" PRIu64 ", huge_shift %" PRIu32,
            prim_kind_name(call->kind), call->address, call->bytes, call->fd, call->offset, call->huge_shift);
    fprintf(stderr, ", flag %d, value %" PRIu32 ", \"%s\"", call->flag, call->value, call->text);
    fprintf(stderr, ": %s%s%s\n", call->ok ? "ok" : "", call->error_number ? strerror(call->error_number) : "",
            call->on_purpose ? " (on purpose)" : "");
}

static void require(bool condition, const struct prim_fake_record *call, const char *rule)
{
    if (!condition) {
        fprintf(stderr, "prim misused, %s: ", rule);
        print_record(call);
        abort();
    }
}

/* A test that has run out of memory has nothing to say about the code under test. */
static void *grown(void *array, uint32_t count, uint32_t *capacity, size_t item_bytes)
{
    if (count == *capacity) {
        *capacity = *capacity == 0 ? 64 : *capacity * 2;
        array = realloc(array, *capacity * item_bytes);
        if (array == NULL) {
            abort();
        }
    }
    return array;
}

/* --- The account -------------------------------------------------------------------------------------------------- */

static void bag_insert(struct bag *bag, uint32_t at, struct item item)
{
    bag->items = grown(bag->items, bag->count, &bag->capacity, sizeof *bag->items);
    memmove(&bag->items[at + 1], &bag->items[at], (bag->count - at) * sizeof *bag->items);
    bag->items[at] = item;
    bag->count++;
}

static void bag_delete(struct bag *bag, uint32_t at)
{
    bag->count--;
    memmove(&bag->items[at], &bag->items[at + 1], (bag->count - at) * sizeof *bag->items);
}

/* The item's index, or count. */
static uint32_t bag_find(const struct bag *bag, uint64_t key)
{
    uint32_t i = 0;

    while (i < bag->count && bag->items[i].key != key) {
        i++;
    }
    return i;
}

/* The range that holds all of [start, start + bytes), or count. */
static uint32_t range_find(uint64_t start, uint64_t bytes)
{
    uint32_t i = 0;

    while (i < ranges.count && !(ranges.items[i].key <= start && start + bytes <= ranges.items[i].value)) {
        i++;
    }
    return i;
}

static void range_add(uint64_t start, uint64_t bytes)
{
    struct item new_range = {start, start + bytes};
    uint32_t i = 0;

    while (i < ranges.count && ranges.items[i].value < start) {
        i++;
    }
    while (i < ranges.count && ranges.items[i].key <= new_range.value) {
        new_range.key = ranges.items[i].key < new_range.key ? ranges.items[i].key : new_range.key;
        new_range.value = ranges.items[i].value > new_range.value ? ranges.items[i].value : new_range.value;
        bag_delete(&ranges, i);
    }
    bag_insert(&ranges, i, new_range);
}

/* The range lies within range number i. */
static void range_remove(uint32_t i, uint64_t start, uint64_t bytes)
{
    struct item whole = ranges.items[i];

    bag_delete(&ranges, i);
    if (start + bytes < whole.value) {
        bag_insert(&ranges, i, (struct item){start + bytes, whole.value});
    }
    if (whole.key < start) {
        bag_insert(&ranges, i, (struct item){whole.key, start});
    }
}

static struct prim_fake_live live_locked(void)
{
    struct prim_fake_live live = {
        .mapping_count = ranges.count,
        .fd_count = descriptors.count,
        .heap_count = heap.count,
        .thread_count = threads.count,
        .key_count = keys.count,
    };

    for (uint32_t i = 0; i < ranges.count; i++) {
        live.mapped_bytes += ranges.items[i].value - ranges.items[i].key;
    }
    for (uint32_t i = 0; i < heap.count; i++) {
        live.heap_bytes += heap.items[i].value;
    }
    return live;
}

struct prim_fake_live prim_fake_live(void)
{
    struct prim_fake_live live;

    pthread_mutex_lock(&fake_lock);
    live = live_locked();
    pthread_mutex_unlock(&fake_lock);
    return live;
}

static void print_bag(const char *name, const struct bag *bag)
{
    for (uint32_t i = 0; i < bag->count; i++) {
        fprintf(stderr, "still live: %s %#" PRIx64 ", %#" PRIx64 "\n", name, bag->items[i].key, bag->items[i].value);
    }
}

bool prim_fake_clean(void)
{
    bool clean;

    pthread_mutex_lock(&fake_lock);
    clean = ranges.count + descriptors.count + heap.count + threads.count + keys.count == 0;
    print_bag("mapping from, to", &ranges);
    print_bag("descriptor", &descriptors);
    print_bag("heap block, bytes", &heap);
    print_bag("thread", &threads);
    print_bag("key", &keys);
    pthread_mutex_unlock(&fake_lock);
    return clean;
}

/* --- Failures ----------------------------------------------------------------------------------------------------- */

void prim_fake_fail_none(void)
{
    pthread_mutex_lock(&fake_lock);
    rule_count = 0;
    failed_count = 0;
    pthread_mutex_unlock(&fake_lock);
}

void prim_fake_fail_also(enum prim_kind kind, uint32_t first, uint32_t count, int error_number)
{
    pthread_mutex_lock(&fake_lock);
    if (rule_count == RULE_MAX || first == 0 || error_number == 0) {
        fprintf(stderr, "prim_fake_fail: at most %d rules, calls count from 1, errno is not 0\n", RULE_MAX);
        abort();
    }
    rules[rule_count++] = (struct rule){kind, first, count, 0, error_number};
    pthread_mutex_unlock(&fake_lock);
}

void prim_fake_fail(enum prim_kind kind, uint32_t first, uint32_t count, int error_number)
{
    prim_fake_fail_none();
    prim_fake_fail_also(kind, first, count, error_number);
}

uint32_t prim_fake_failed_count(void)
{
    uint32_t count;

    pthread_mutex_lock(&fake_lock);
    count = failed_count;
    pthread_mutex_unlock(&fake_lock);
    return count;
}

/* Every rule counts the call, also when an earlier one has chosen it. */
static bool chosen_to_fail(struct prim_fake_record *call)
{
    for (uint32_t i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];

        if (rule->kind != PRIM_ANY && rule->kind != call->kind) {
            continue;
        }
        rule->seen++;
        if (!call->on_purpose && rule->seen >= rule->first && rule->seen - rule->first < rule->count) {
            call->on_purpose = true;
            call->error_number = rule->error_number;
        }
    }
    failed_count += call->on_purpose;
    return call->on_purpose;
}

/* --- The record --------------------------------------------------------------------------------------------------- */

/* Begin a call: from here to finish the lock is held. */
static struct prim_fake_record begin(enum prim_kind kind)
{
    pthread_mutex_lock(&fake_lock);
    return (struct prim_fake_record){.kind = kind, .fd = -1, .thread = pthread_self()};
}

static bool settle(struct prim_fake_record *call, bool ok)
{
    call->ok = ok;
    call->error_number = ok ? 0 : errno;
    return ok;
}

/* Record the call, and return its result with its errno. */
static bool finish(const struct prim_fake_record *call)
{
    records = grown(records, record_count, &record_capacity, sizeof *records);
    records[record_count++] = *call;
    pthread_mutex_unlock(&fake_lock);
    if (!call->ok) {
        errno = call->error_number;
    }
    return call->ok;
}

uint32_t prim_fake_record_count(void)
{
    uint32_t count;

    pthread_mutex_lock(&fake_lock);
    count = record_count;
    pthread_mutex_unlock(&fake_lock);
    return count;
}

struct prim_fake_record prim_fake_record(uint32_t index)
{
    struct prim_fake_record record;

    pthread_mutex_lock(&fake_lock);
    if (index >= record_count) {
        fprintf(stderr, "prim_fake_record: number %" PRIu32 " of %" PRIu32 "\n", index, record_count);
        abort();
    }
    record = records[index];
    pthread_mutex_unlock(&fake_lock);
    return record;
}

uint32_t prim_fake_call_count(enum prim_kind kind)
{
    uint32_t count = 0;

    pthread_mutex_lock(&fake_lock);
    for (uint32_t i = 0; i < record_count; i++) {
        count += kind == PRIM_ANY || records[i].kind == kind;
    }
    pthread_mutex_unlock(&fake_lock);
    return count;
}

void prim_fake_print(void)
{
    pthread_mutex_lock(&fake_lock);
    for (uint32_t i = 0; i < record_count; i++) {
        print_record(&records[i]);
    }
    pthread_mutex_unlock(&fake_lock);
}

void prim_fake_forget(void)
{
    pthread_mutex_lock(&fake_lock);
    free(records);
    records = NULL;
    record_count = 0;
    record_capacity = 0;
    pthread_mutex_unlock(&fake_lock);
}

/* --- Scripts ------------------------------------------------------------------------------------------------------ */

static struct script *script_find(const char *path)
{
    struct script *script = scripts;

    while (script != NULL && strcmp(script->path, path) != 0) {
        script = script->next;
    }
    return script;
}

static void script_set(const char *path, const char *text, int error_number)
{
    struct script *script;

    pthread_mutex_lock(&fake_lock);
    script = script_find(path);
    if (script == NULL) {
        script = calloc(1, sizeof *script);
        if (script == NULL) {
            abort();
        }
        script->path = strdup(path);
        script->next = scripts;
        scripts = script;
    }
    free(script->text);
    script->text = text != NULL ? strdup(text) : NULL;
    script->error_number = error_number;
    pthread_mutex_unlock(&fake_lock);
}

void prim_fake_script_text(const char *path, const char *text)
{
    script_set(path, text, 0);
}

void prim_fake_script_text_error(const char *path, int error_number)
{
    script_set(path, NULL, error_number);
}

void prim_fake_script_only(bool only)
{
    pthread_mutex_lock(&fake_lock);
    script_only = only;
    pthread_mutex_unlock(&fake_lock);
}

static void script_limit_set(int which, bool on, uint64_t value, int error_number)
{
    pthread_mutex_lock(&fake_lock);
    script_limits[which].on = on;
    script_limits[which].bytes = value;
    script_limits[which].error_number = error_number;
    pthread_mutex_unlock(&fake_lock);
}

void prim_fake_script_limit(int which, uint64_t value)
{
    script_limit_set(which, true, value, 0);
}

void prim_fake_script_limit_error(int which, int error_number)
{
    script_limit_set(which, true, 0, error_number);
}

void prim_fake_script_user_threads(uint64_t count)
{
    pthread_mutex_lock(&fake_lock);
    script_threads = count;
    pthread_mutex_unlock(&fake_lock);
}

void prim_fake_script_cpu_count(uint32_t count)
{
    pthread_mutex_lock(&fake_lock);
    script_cpus = count;
    pthread_mutex_unlock(&fake_lock);
}

void prim_fake_script_none(void)
{
    prim_fake_script_only(false);
    prim_fake_script_cpu_count(0);
    prim_fake_script_user_threads(0);
    for (int which = 0; which < LOAM_PRIM_LIMIT_COUNT; which++) {
        script_limit_set(which, false, 0, 0);
    }
    pthread_mutex_lock(&fake_lock);
    while (scripts != NULL) {
        struct script *next = scripts->next;

        free(scripts->path);
        free(scripts->text);
        free(scripts);
        scripts = next;
    }
    pthread_mutex_unlock(&fake_lock);
}

/* --- Address space ------------------------------------------------------------------------------------------------ */

static bool is_page_range(const void *address, uint64_t bytes)
{
    return (uintptr_t)address % PAGE_BYTES == 0 && bytes % PAGE_BYTES == 0 && bytes != 0 &&
           bytes <= UINT64_MAX - (uintptr_t)address;
}

/* Begin a call on a range; with is_live, on one that is mapped. */
static struct prim_fake_record begin_range(enum prim_kind kind, const void *address, size_t bytes, bool is_live)
{
    struct prim_fake_record call = begin(kind);

    call.address = address;
    call.bytes = bytes;
    require(is_page_range(address, bytes), &call, "address and bytes are whole pages, and not none");
    require(!is_live || range_find((uintptr_t)address, bytes) < ranges.count, &call, "the range is mapped");
    return call;
}

bool loam_prim_reserve(size_t bytes, void **address)
{
    struct prim_fake_record call = begin_range(PRIM_RESERVE, NULL, bytes, false);

    *address = NULL;
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_reserve(bytes, address))) {
        call.address = *address;
        range_add((uintptr_t)*address, bytes);
    }
    return finish(&call);
}

bool loam_prim_map_fd(void *address, size_t bytes, int fd, off_t offset)
{
    struct prim_fake_record call = begin_range(PRIM_MAP_FD, address, bytes, false);

    call.fd = fd;
    call.offset = (uint64_t)offset;
    require(bag_find(&descriptors, (uint64_t)fd) < descriptors.count, &call, "the descriptor is open");
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_map_fd(address, bytes, fd, offset))) {
        range_add((uintptr_t)address, bytes);
    }
    return finish(&call);
}

bool loam_prim_map_anonymous(void *address, size_t bytes, uint32_t huge_shift, bool no_reserve)
{
    struct prim_fake_record call = begin_range(PRIM_MAP_ANONYMOUS, address, bytes, false);

    call.huge_shift = huge_shift;
    call.flag = no_reserve;
    require(huge_shift == 0 || !no_reserve, &call, "hugetlb memory is reserved");
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_map_anonymous(address, bytes, huge_shift, no_reserve))) {
        range_add((uintptr_t)address, bytes);
    }
    return finish(&call);
}

bool loam_prim_unmap(void *address, size_t bytes)
{
    struct prim_fake_record call = begin_range(PRIM_UNMAP, address, bytes, true);

    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_unmap(address, bytes))) {
        range_remove(range_find((uintptr_t)address, bytes), (uintptr_t)address, bytes);
    }
    return finish(&call);
}

/* Populating takes long, and workers do it beside each other: the lock is let go meanwhile. */
bool loam_prim_populate(void *address, size_t bytes)
{
    struct prim_fake_record call = begin_range(PRIM_POPULATE, address, bytes, true);

    if (!chosen_to_fail(&call)) {
        pthread_mutex_unlock(&fake_lock);
        settle(&call, loam_prim_real_populate(address, bytes));
        pthread_mutex_lock(&fake_lock);
    }
    return finish(&call);
}

/* The lock is let go as in populate. */
bool loam_prim_discard(void *address, size_t bytes, bool shared)
{
    struct prim_fake_record call = begin_range(PRIM_DISCARD, address, bytes, true);

    call.flag = shared;
    if (!chosen_to_fail(&call)) {
        pthread_mutex_unlock(&fake_lock);
        settle(&call, loam_prim_real_discard(address, bytes, shared));
        pthread_mutex_lock(&fake_lock);
    }
    return finish(&call);
}

bool loam_prim_advise_huge(void *address, size_t bytes, bool huge)
{
    struct prim_fake_record call = begin_range(PRIM_ADVISE_HUGE, address, bytes, true);

    call.flag = huge;
    if (!chosen_to_fail(&call)) {
        settle(&call, loam_prim_real_advise_huge(address, bytes, huge));
    }
    return finish(&call);
}

bool loam_prim_keep_from_children(void *address, size_t bytes)
{
    struct prim_fake_record call = begin_range(PRIM_KEEP_FROM_CHILDREN, address, bytes, true);

    if (!chosen_to_fail(&call)) {
        settle(&call, loam_prim_real_keep_from_children(address, bytes));
    }
    return finish(&call);
}

bool loam_prim_keep_from_dumps(void *address, size_t bytes)
{
    struct prim_fake_record call = begin_range(PRIM_KEEP_FROM_DUMPS, address, bytes, true);

    if (!chosen_to_fail(&call)) {
        settle(&call, loam_prim_real_keep_from_dumps(address, bytes));
    }
    return finish(&call);
}

bool loam_prim_bind_nodes(void *address, size_t bytes, enum loam_prim_policy policy, uint64_t node_mask)
{
    struct prim_fake_record call = begin_range(PRIM_BIND_NODES, address, bytes, true);

    call.value = (uint32_t)policy;
    call.node_mask = node_mask;
    require(node_mask != 0, &call, "a node at least");
    if (!chosen_to_fail(&call)) {
        settle(&call, loam_prim_real_bind_nodes(address, bytes, policy, node_mask));
    }
    return finish(&call);
}

bool loam_prim_lock(void *address, size_t bytes)
{
    struct prim_fake_record call = begin_range(PRIM_LOCK, address, bytes, true);

    if (!chosen_to_fail(&call)) {
        settle(&call, loam_prim_real_lock(address, bytes));
    }
    return finish(&call);
}

/* --- Files -------------------------------------------------------------------------------------------------------- */

bool loam_prim_memfd(const char *name, uint32_t huge_shift, size_t bytes, int *fd)
{
    struct prim_fake_record call = begin(PRIM_MEMFD);

    call.huge_shift = huge_shift;
    call.bytes = bytes;
    snprintf(call.text, sizeof call.text, "%s", name);
    require(bytes != 0 && bytes % PAGE_BYTES == 0, &call, "bytes are whole pages, and not none");
    *fd = -1;
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_memfd(name, huge_shift, bytes, fd))) {
        call.fd = *fd;
        bag_insert(&descriptors, descriptors.count, (struct item){(uint64_t)*fd, 0});
    }
    return finish(&call);
}

bool loam_prim_duplicate(int fd, int *copy)
{
    struct prim_fake_record call = begin(PRIM_DUPLICATE);

    *copy = -1;
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_duplicate(fd, copy))) {
        call.fd = *copy;
        bag_insert(&descriptors, descriptors.count, (struct item){(uint64_t)*copy, 0});
    }
    return finish(&call);
}

bool loam_prim_file_size(int fd, uint64_t *bytes, uint64_t *page_bytes)
{
    struct prim_fake_record call = begin(PRIM_FILE_SIZE);

    call.fd = fd;
    *bytes = 0;
    *page_bytes = 0;
    if (!chosen_to_fail(&call)) {
        settle(&call, loam_prim_real_file_size(fd, bytes, page_bytes));
    }
    call.bytes = *bytes;
    return finish(&call);
}

bool loam_prim_close(int fd)
{
    struct prim_fake_record call = begin(PRIM_CLOSE);
    uint32_t at = bag_find(&descriptors, (uint64_t)fd);
    bool closed;

    call.fd = fd;
    require(at < descriptors.count, &call, "the descriptor is open");
    bag_delete(&descriptors, at);
    closed = loam_prim_real_close(fd);
    if (!chosen_to_fail(&call)) {
        settle(&call, closed);
    }
    return finish(&call);
}

typedef bool move_vectors(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes);

/* The descriptor is the test's own. It may block: the lock is let go meanwhile. */
static bool move_faked(enum prim_kind kind, move_vectors *real, int fd, const struct iovec *vectors, uint32_t count,
                       off_t offset, size_t *moved_bytes)
{
    struct prim_fake_record call = begin(kind);

    call.fd = fd;
    call.offset = (uint64_t)offset;
    call.value = count;
    require(count != 0 && count <= 1024, &call, "there are 1 to 1024 vectors");
    *moved_bytes = 0;
    if (!chosen_to_fail(&call)) {
        pthread_mutex_unlock(&fake_lock);
        settle(&call, real(fd, vectors, count, offset, moved_bytes));
        pthread_mutex_lock(&fake_lock);
    }
    call.bytes = *moved_bytes;
    return finish(&call);
}

bool loam_prim_read_vectors(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes)
{
    return move_faked(PRIM_READ_VECTORS, loam_prim_real_read_vectors, fd, vectors, count, offset, moved_bytes);
}

bool loam_prim_write_vectors(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes)
{
    return move_faked(PRIM_WRITE_VECTORS, loam_prim_real_write_vectors, fd, vectors, count, offset, moved_bytes);
}

/* --- Threads, heap, figures --------------------------------------------------------------------------------------- */

bool loam_prim_thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    struct prim_fake_record call = begin(PRIM_THREAD_START);

    *thread = (pthread_t){0};
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_thread_start(thread, run, argument))) {
        bag_insert(&threads, threads.count, (struct item){(uint64_t)*thread, 0});
    }
    return finish(&call);
}

/* The thread is off the account before it is joined: its number may be reused at once afterwards. */
void loam_prim_thread_join(pthread_t thread)
{
    struct prim_fake_record call = begin(PRIM_THREAD_JOIN);
    uint32_t at = bag_find(&threads, (uint64_t)thread);

    require(at < threads.count, &call, "the thread runs and was not joined");
    bag_delete(&threads, at);
    pthread_mutex_unlock(&fake_lock);
    loam_prim_real_thread_join(thread);
    pthread_mutex_lock(&fake_lock);
    call.ok = true;
    finish(&call);
}

bool loam_prim_key_make(void (*ended)(void *value), pthread_key_t *key)
{
    struct prim_fake_record call = begin(PRIM_KEY_MAKE);

    *key = 0;
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_key_make(ended, key))) {
        call.value = *key;
        bag_insert(&keys, keys.count, (struct item){*key, 0});
    }
    return finish(&call);
}

bool loam_prim_key_set(pthread_key_t key, const void *value)
{
    struct prim_fake_record call = begin(PRIM_KEY_SET);

    call.value = key;
    call.address = value;
    require(bag_find(&keys, key) < keys.count, &call, "the key is there");
    if (!chosen_to_fail(&call)) {
        settle(&call, loam_prim_real_key_set(key, value));
    }
    return finish(&call);
}

void loam_prim_key_drop(pthread_key_t key)
{
    struct prim_fake_record call = begin(PRIM_KEY_DROP);
    uint32_t at = bag_find(&keys, key);

    call.value = key;
    call.ok = true;
    require(at < keys.count, &call, "the key is there");
    bag_delete(&keys, at);
    loam_prim_real_key_drop(key);
    finish(&call);
}

bool loam_prim_heap_alloc(size_t bytes, void **memory)
{
    struct prim_fake_record call = begin(PRIM_HEAP_ALLOC);

    call.bytes = bytes;
    require(bytes != 0, &call, "bytes are not none");
    *memory = NULL;
    if (!chosen_to_fail(&call) && settle(&call, loam_prim_real_heap_alloc(bytes, memory))) {
        call.address = *memory;
        bag_insert(&heap, heap.count, (struct item){(uintptr_t)*memory, bytes});
    }
    return finish(&call);
}

void loam_prim_heap_free(void *memory)
{
    struct prim_fake_record call = begin(PRIM_HEAP_FREE);
    uint32_t at = bag_find(&heap, (uintptr_t)memory);

    call.address = memory;
    call.ok = true;
    require(memory == NULL || at < heap.count, &call, "the block is live");
    if (memory != NULL) {
        call.bytes = heap.items[at].value;
        bag_delete(&heap, at);
    }
    loam_prim_real_heap_free(memory);
    finish(&call);
}

uint32_t loam_prim_cpu_count(void)
{
    struct prim_fake_record call = begin(PRIM_CPU_COUNT);

    call.value = script_cpus != 0 ? script_cpus : loam_prim_real_cpu_count();
    call.ok = true;
    finish(&call);
    return call.value;
}

static bool read_scripted(const char *path, char *text, size_t bytes)
{
    const struct script *script = script_find(path);

    if (script == NULL && !script_only) {
        return loam_prim_real_read_text(path, text, bytes);
    }
    if (script == NULL || script->text == NULL) {
        errno = script == NULL ? ENOENT : script->error_number;
        return false;
    }
    if (strlen(script->text) >= bytes) {
        errno = EFBIG;
        return false;
    }
    strcpy(text, script->text);
    return true;
}

bool loam_prim_read_text(const char *path, char *text, size_t bytes)
{
    struct prim_fake_record call = begin(PRIM_READ_TEXT);

    call.bytes = bytes;
    snprintf(call.text, sizeof call.text, "%s", path);
    require(bytes != 0, &call, "there is room for the end of the string");
    text[0] = '\0';
    if (!chosen_to_fail(&call)) {
        settle(&call, read_scripted(path, text, bytes));
    }
    return finish(&call);
}

static bool limit_scripted(enum loam_prim_limit which, uint64_t *value)
{
    if (!script_limits[which].on && !script_only) {
        return loam_prim_real_limit(which, value);
    }
    *value = script_limits[which].on ? script_limits[which].bytes : UINT64_MAX;
    errno = script_limits[which].error_number;
    return script_limits[which].error_number == 0;
}

bool loam_prim_limit(enum loam_prim_limit which, uint64_t *value)
{
    struct prim_fake_record call = begin(PRIM_LIMIT);

    call.value = (uint32_t)which;
    require(which < LOAM_PRIM_LIMIT_COUNT, &call, "there is such a limit");
    *value = 0;
    if (!chosen_to_fail(&call)) {
        settle(&call, limit_scripted(which, value));
    }
    call.bytes = *value;
    return finish(&call);
}

bool loam_prim_user_threads(uint64_t *count)
{
    struct prim_fake_record call = begin(PRIM_USER_THREADS);

    *count = 0;
    if (!chosen_to_fail(&call)) {
        *count = script_threads;
        settle(&call, script_threads != 0 || loam_prim_real_user_threads(count));
    }
    call.bytes = *count;
    return finish(&call);
}

/* Neither takes nor leaves anything: not recorded. */
bool loam_prim_barrier_register(void)
{
    return loam_prim_real_barrier_register();
}

bool loam_prim_barrier(void)
{
    return loam_prim_real_barrier();
}

bool loam_prim_wait(const void *word, uint32_t value, uint64_t nanoseconds)
{
    return loam_prim_real_wait(word, value, nanoseconds);
}

void loam_prim_wake(const void *word)
{
    loam_prim_real_wake(word);
}

uint32_t loam_prim_process_id(void)
{
    return loam_prim_real_process_id();
}

uint32_t loam_prim_thread_id(void)
{
    return loam_prim_real_thread_id();
}

bool loam_prim_thread_space(uint64_t *space)
{
    return loam_prim_real_thread_space(space);
}

bool loam_prim_thread_gone(uint32_t thread, bool same_space, const void *memory)
{
    return loam_prim_real_thread_gone(thread, same_space, memory);
}

bool loam_prim_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return loam_prim_real_at_fork(prepare, parent, child);
}
