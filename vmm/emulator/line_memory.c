// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line_memory.h"

#include "vmm/emulator/line_table.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PART_MIN_BYTES (2 * LOAM_MIB)

/* What all parts have in common. */
struct shared {
    bool lock;
    bool merges, dumps; /* of the machine, for the backends that do not say it */
    enum loam_pages pages;
};

/* --- One backend --------------------------------------------------------------------------------------------------- */

static enum loam_error read_hugetlb(const struct words *words, enum loam_pages *pages, struct loam_diag *diag)
{
    uint64_t bytes = words_number(words, "hugetlbsize", 0);

    if (!words_is_on(words, "hugetlb", false)) {
        return words_get(words, "hugetlbsize") == NULL
                   ? LOAM_OK
                   : words_refuse(words, "hugetlbsize", diag, "it goes with hugetlb=on only: give both");
    }
    for (*pages = LOAM_PAGES_1G; *pages <= LOAM_PAGES_2M; ++*pages) {
        if (bytes == loam_pages_bytes(*pages)) {
            return LOAM_OK;
        }
    }
    return words_refuse(words, bytes != 0 ? "hugetlbsize" : "hugetlb", diag,
                        "huge pages have 2 MiB or 1 GiB: give hugetlbsize=2097152 or hugetlbsize=1073741824");
}

/* What RAM of these pages is a multiple of. */
static uint64_t least_bytes(enum loam_pages pages)
{
    return loam_pages_bytes(pages == LOAM_PAGES_1G || pages == LOAM_PAGES_2M ? pages : LOAM_PAGES_4K);
}

static enum loam_error read_size(const struct words *words, struct loam_backing_request *part, struct loam_diag *diag)
{
    uint64_t page_bytes = least_bytes(part->pages);

    part->bytes = words_number(words, "size", 0);
    if (part->bytes < PART_MIN_BYTES) {
        return words_refuse(words, "size", diag, "RAM has at least %" PRIu64 " bytes (2 MiB): give more",
                            (uint64_t)PART_MIN_BYTES);
    }
    if (part->bytes % page_bytes != 0) {
        return words_refuse(words, "size", diag,
                            "%" PRIu64 " pages of %" PRIu64 " bytes and %" PRIu64 " bytes: give whole pages%s",
                            part->bytes / page_bytes, page_bytes, part->bytes % page_bytes,
                            page_bytes > LOAM_FRAME_BYTES ? ", or smaller ones" : "");
    }
    return LOAM_OK;
}

static enum loam_error read_nodes(const struct words *words, struct loam_backing_request *part, struct loam_diag *diag)
{
    static const struct {
        const char *name;
        enum loam_placement placement;
    } policies[] = {{"bind", LOAM_PLACEMENT_STRICT},
                    {"preferred", LOAM_PLACEMENT_PREFERRED},
                    {"interleave", LOAM_PLACEMENT_INTERLEAVE}};

    part->node_mask = words_mask(words, "host-nodes");
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        if (words_is(words, "policy", policies[i].name)) {
            part->placement = policies[i].placement;
        }
    }
    if ((part->placement == LOAM_PLACEMENT_ANY) != (part->node_mask == 0)) {
        return words_refuse(words, part->node_mask != 0 ? "host-nodes" : "policy", diag,
                            "host-nodes=N goes with policy=bind|preferred|interleave only: give both");
    }
    if (part->placement == LOAM_PLACEMENT_PREFERRED && (part->node_mask & (part->node_mask - 1)) != 0) {
        return words_refuse(words, "policy", diag, "%d nodes: give one with host-nodes=N",
                            __builtin_popcountll(part->node_mask));
    }
    return LOAM_OK;
}

/* What is not said is prealloc=off, which leaves memory to be found at its first touch. */
static enum loam_error read_commit(const struct words *words, bool is_hugetlb, struct loam_backing_request *part,
                                   struct loam_diag *diag)
{
    bool lazy = words_is(words, "reserve", "off");

    if (lazy && words_is_on(words, "prealloc", false)) {
        return words_refuse(words, "reserve", diag, "prealloc=on takes all memory at once: give one of them");
    }
    if (lazy && part->lock) {
        return words_refuse(words, "reserve", diag,
                            "-overcommit mem-lock=on contradicts it (what is locked is populated): give one of them");
    }
    if (lazy && is_hugetlb) {
        return words_refuse(words, "reserve", diag, "huge pages are always reserved here: give reserve=on");
    }
    if (words_get(words, "prealloc-threads") != NULL && !words_is_on(words, "prealloc", false)) {
        return words_refuse(words, "prealloc-threads", diag, "it goes with prealloc=on only: give both");
    }
    part->commit = words_is_on(words, "prealloc", false)                          ? LOAM_COMMIT_POPULATE
                   : part->lock || is_hugetlb || words_is(words, "reserve", "on") ? LOAM_COMMIT_RESERVE
                                                                                  : LOAM_COMMIT_LAZY;
    return LOAM_OK;
}

static void read_sharing(const struct argument *backend, struct loam_backing_request *part)
{
    const char *share = words_get(&backend->words, "share");

    if (share != NULL && strcmp(share, "on") == 0) {
        part->sharing = LOAM_SHARING_SHARED;
    } else if (share != NULL && backend->type != LINE_OBJECT_MEMORY_FILE) {
        part->sharing = LOAM_SHARING_PRIVATE;
    }
}

static enum loam_error read_pages(const struct argument *backend, enum loam_pages otherwise,
                                  struct loam_backing_request *part, struct loam_diag *diag)
{
    part->pages = backend->type == LINE_OBJECT_MEMORY_FILE ? LOAM_PAGES_AUTO : otherwise;
    return backend->type == LINE_OBJECT_MEMORY_MEMFD ? read_hugetlb(&backend->words, &part->pages, diag) : LOAM_OK;
}

static enum loam_error read_part(const struct argument *backend, const struct shared *shared,
                                 struct loam_backing_request *part, struct loam_diag *diag)
{
    enum loam_error error;

    part->lock = shared->lock;
    error = read_pages(backend, shared->pages, part, diag);
    if (error == LOAM_OK) {
        error = read_size(&backend->words, part, diag);
    }
    if (error == LOAM_OK) {
        error = read_nodes(&backend->words, part, diag);
    }
    if (error == LOAM_OK) {
        error = read_commit(&backend->words, words_is_on(&backend->words, "hugetlb", false), part, diag);
    }
    read_sharing(backend, part);
    return error;
}

/* --- All of them --------------------------------------------------------------------------------------------------- */

/* Of members that the request has once, what this backend says has to be what the others say. */
static enum loam_error join(const struct words *words, const struct shared *shared, struct line *line,
                            struct loam_diag *diag)
{
    struct loam_memory_request *memory = &line->memory;
    uint32_t threads = (uint32_t)words_number(words, "prealloc-threads", 0);
    bool no_merge = !words_is_on(words, "merge", shared->merges), no_dump = !words_is_on(words, "dump", shared->dumps);

    if (memory->part_count > 0 && (no_merge != line->no_merge || no_dump != memory->keep_from_dumps)) {
        return words_refuse(words, NULL, diag, "merge= and dump= are for all RAM here: give each backend the same");
    }
    line->no_merge = no_merge;
    memory->keep_from_dumps = no_dump;
    memory->thread_count = threads > memory->thread_count ? threads : memory->thread_count;
    return LOAM_OK;
}

static enum loam_error add_part(const struct argument *backend, const struct shared *shared, struct line *line,
                                struct loam_diag *diag)
{
    struct loam_memory_request *memory = &line->memory;
    uint32_t index = memory->part_count;
    enum loam_error error;

    if (index == LOAM_MEMORY_PART_MAX) {
        return words_refuse(&backend->words, NULL, diag, "more than %d of them: give fewer", LOAM_MEMORY_PART_MAX);
    }
    error = read_part(backend, shared, &memory->parts[index], diag);
    if (error == LOAM_OK) {
        error = join(&backend->words, shared, line, diag);
    }
    if (error == LOAM_OK) {
        error = words_copy(&backend->words, "mem-path", &line->memory_paths[index], diag);
    }
    memory->part_count++;
    return error;
}

static bool is_memory(const struct argument *object)
{
    return object->type <= LINE_OBJECT_MEMORY_FILE;
}

/* The backend that words name by key. */
static enum loam_error find_backend(const struct arguments *arguments, const struct words *words, const char *key,
                                    const struct argument **backend, struct loam_diag *diag)
{
    *backend = arguments_find_by(arguments, "-object", "id", words_get(words, key));
    return *backend != NULL && is_memory(*backend)
               ? LOAM_OK
               : words_refuse(words, key, diag, "there is no -object memory-backend-... of that id");
}

/* The -numa of this nodeid. */
static const struct argument *find_node(const struct arguments *arguments, uint32_t nodeid)
{
    const char digit[2] = {(char)('0' + nodeid), '\0'};

    static_assert(LOAM_MEMORY_PART_MAX <= 10, "a nodeid is one digit");
    return arguments_find_by(arguments, "-numa", "nodeid", digit);
}

static enum loam_error add_nodes(const struct arguments *arguments, const struct shared *shared, struct line *line,
                                 struct loam_diag *diag)
{
    const struct argument *backend, *node = NULL, *other;
    enum loam_error error = LOAM_OK;
    uint32_t count = 0;

    while ((node = arguments_next(arguments, "-numa", node)) != NULL) {
        other = arguments_find_by(arguments, "-numa", "memdev", words_get(&node->words, "memdev"));
        if (other != node) {
            return words_refuse(&node->words, "memdev", diag, "another node has it: give each its own");
        }
        count++;
    }
    for (uint32_t i = 0; i < count && error == LOAM_OK; i++) {
        node = find_node(arguments, i);
        if (node == NULL) {
            return loam_fail(diag, LOAM_ERROR_INVALID,
                             "-numa node: %" PRIu32 " nodes, and none has nodeid=%" PRIu32 ": number them from 0",
                             count, i);
        }
        error = find_backend(arguments, &node->words, "memdev", &backend, diag);
        error = error == LOAM_OK ? add_part(backend, shared, line, diag) : error;
    }
    return error;
}

/* Every memory backend is RAM: by -machine memory-backend=, or by -numa. */
static enum loam_error check_used(const struct arguments *arguments, const char *ram_id, struct loam_diag *diag)
{
    for (const struct argument *at = NULL; (at = arguments_next(arguments, "-object", at)) != NULL;) {
        const char *id = words_get(&at->words, "id");

        if (is_memory(at) && (ram_id == NULL || strcmp(ram_id, id) != 0) &&
            arguments_find_by(arguments, "-numa", "memdev", id) == NULL) {
            return words_refuse(&at->words, NULL, diag,
                                "nothing names it: give -machine microvm,memory-backend=%s or -numa node,memdev=%s",
                                words_show(id).text, words_show(id).text);
        }
    }
    return LOAM_OK;
}

static enum loam_error add_parts(const struct arguments *arguments, const struct shared *shared, struct line *line,
                                 struct loam_diag *diag)
{
    const struct words *machine = &arguments_find(arguments, "-machine")->words;
    const char *ram_id = words_get(machine, "memory-backend");
    const struct argument *backend;
    enum loam_error error;

    if (ram_id != NULL && arguments_find(arguments, "-numa") != NULL) {
        return words_refuse(machine, "memory-backend", diag,
                            "-numa node,memdev=ID says where RAM is: give one of them");
    }
    error = ram_id != NULL ? find_backend(arguments, machine, "memory-backend", &backend, diag)
                           : add_nodes(arguments, shared, line, diag);
    if (error == LOAM_OK && ram_id != NULL) {
        error = add_part(backend, shared, line, diag);
    }
    return error == LOAM_OK ? check_used(arguments, ram_id, diag) : error;
}

/* One backend is what the request itself says. */
static void fold(struct line *line)
{
    struct loam_memory_request *memory = &line->memory;
    const struct loam_backing_request *part = &memory->parts[0];

    memory->bytes = part->bytes;
    memory->pages = part->pages;
    memory->sharing = part->sharing;
    memory->commit = part->commit;
    memory->placement = part->placement;
    memory->node_mask = part->node_mask;
    memory->lock = part->lock;
    memory->part_count = 0;
    memory->parts[0] = (struct loam_backing_request){0};
    line->memory_path = line->memory_paths[0];
    line->memory_paths[0] = NULL;
}

/* Without a backend -m says it all. */
static void make_plain(const struct shared *shared, struct line *line)
{
    struct loam_memory_request *memory = &line->memory;

    memory->pages = shared->pages;
    memory->lock = shared->lock;
    memory->commit = shared->lock ? LOAM_COMMIT_RESERVE : LOAM_COMMIT_LAZY;
    memory->keep_from_dumps = !shared->dumps;
    line->no_merge = !shared->merges;
}

/* -m against what the backends have, if there are any. */
static enum loam_error read_total(const struct words *size, struct line *line, struct loam_diag *diag)
{
    struct loam_memory_request *memory = &line->memory;
    uint64_t page_bytes = least_bytes(memory->pages), sum = 0;

    words_parse_bytes(words_get(size, "size"), LOAM_MIB, &memory->bytes);
    for (uint32_t i = 0; i < memory->part_count; i++) {
        if (__builtin_add_overflow(sum, memory->parts[i].bytes, &sum)) {
            return words_refuse(size, NULL, diag, "the memory backends are more than 64 bits of bytes: give less");
        }
    }
    if (memory->part_count > 0 && sum != memory->bytes) {
        return words_refuse(size, NULL, diag,
                            "%" PRIu64 " bytes, and the memory backends have %" PRIu64 ": give them the same",
                            memory->bytes, sum);
    }
    if (memory->part_count == 0 && (memory->bytes < PART_MIN_BYTES || memory->bytes % page_bytes != 0)) {
        return words_refuse(size, NULL, diag,
                            "%" PRIu64 " bytes: RAM is at least 2 MiB, and whole pages of %" PRIu64 " bytes: give such",
                            memory->bytes, page_bytes);
    }
    return LOAM_OK;
}

/* --- What the request is made of ----------------------------------------------------------------------------------- */

static enum loam_error read_x_pages(const struct arguments *arguments, struct shared *shared, struct line *line,
                                    struct loam_diag *diag)
{
    const struct argument *loam = arguments_find(arguments, "-x-loam");

    shared->pages = LOAM_PAGES_4K;
    if (loam == NULL || words_get(&loam->words, "pages") == NULL) {
        return LOAM_OK;
    }
    for (const struct argument *at = NULL; (at = arguments_next(arguments, "-object", at)) != NULL;) {
        if (words_is_on(&at->words, "hugetlb", false) || at->type == LINE_OBJECT_MEMORY_FILE) {
            return words_refuse(&loam->words, "pages", diag,
                                "-object %s,id=%s says what RAM is made of: give one of them",
                                words_get(&at->words, "qom-type"), words_show(words_get(&at->words, "id")).text);
        }
    }
    for (shared->pages = LOAM_PAGES_AUTO; !words_is(&loam->words, "pages", loam_pages_name(shared->pages));) {
        shared->pages++;
    }
    return words_copy(&loam->words, "pages", &line->x_pages, diag);
}

enum loam_error line_memory_read(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *size = arguments_find(arguments, "-m");
    const struct argument *overcommit = arguments_find(arguments, "-overcommit");
    const struct words *machine = &arguments_find(arguments, "-machine")->words;
    struct shared shared = {.lock = overcommit != NULL && words_is_on(&overcommit->words, "mem-lock", false),
                            .merges = words_is_on(machine, "mem-merge", true),
                            .dumps = words_is_on(machine, "dump-guest-core", true)};
    enum loam_error error;

    if (size == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "-m: it is missing: give -m SIZE in MiB");
    }
    error = read_x_pages(arguments, &shared, line, diag);
    if (error == LOAM_OK) {
        error = add_parts(arguments, &shared, line, diag);
    }
    if (error == LOAM_OK && line->memory.part_count == 0) {
        make_plain(&shared, line);
    }
    if (error == LOAM_OK) {
        error = read_total(&size->words, line, diag);
    }
    if (error == LOAM_OK && line->memory.part_count == 1) {
        fold(line);
    }
    return error;
}

bool line_memory_thp(const struct line *line, struct loam_memory_request *thp)
{
    bool differs = false;

    *thp = line->memory;
    if (line->x_pages == NULL && thp->part_count == 0) {
        differs = thp->pages == LOAM_PAGES_4K;
        thp->pages = LOAM_PAGES_THP;
    }
    for (uint32_t i = 0; line->x_pages == NULL && i < thp->part_count; i++) {
        if (thp->parts[i].pages == LOAM_PAGES_4K) {
            thp->parts[i].pages = LOAM_PAGES_THP;
            differs = true;
        }
    }
    if (!differs) {
        *thp = (struct loam_memory_request){0};
    }
    return differs;
}
