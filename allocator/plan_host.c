// SPDX-License-Identifier: Apache-2.0
#include "allocator/plan_host.h"

#include "allocator/plan_text.h"
#include "allocator/prim.h"
#include "loam/types.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- Pools of hugepages ---------------------------------------------------------------------------------------- */

#define POOL_1G "hugepages-1048576kB"
#define POOL_2M "hugepages-2048kB"

static const char *pool_name(enum loam_pages pages)
{
    return pages == LOAM_PAGES_1G ? POOL_1G : POOL_2M;
}

const char *loam_plan_host_pool_path(enum loam_pages pages)
{
    return pages == LOAM_PAGES_1G ? "/sys/kernel/mm/hugepages/" POOL_1G : "/sys/kernel/mm/hugepages/" POOL_2M;
}

static enum loam_error pool_figure(enum loam_pages pages, const char *name, uint64_t *value, bool *present,
                                   struct loam_diag *diag)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", loam_plan_host_pool_path(pages), name);
    return loam_plan_text_figure(path, value, present, diag);
}

enum loam_error loam_plan_host_pool(enum loam_pages pages, struct loam_plan_host_pool *pool, struct loam_diag *diag)
{
    static const char *const names[] = {"nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages",
                                        "nr_overcommit_hugepages"};
    enum { TOTAL, FREE, PROMISED, SURPLUS, SURPLUS_LIMIT, FIGURE_COUNT };
    uint64_t figures[FIGURE_COUNT] = {0};
    bool present[FIGURE_COUNT] = {false};

    *pool = (struct loam_plan_host_pool){0};
    for (size_t i = 0; i < FIGURE_COUNT; i++) {
        enum loam_error error = pool_figure(pages, names[i], &figures[i], &present[i], diag);

        if (error != LOAM_OK) {
            return error;
        }
    }
    pool->present = present[FREE];
    if (pool->present) {
        pool->total_pages = figures[TOTAL];
        pool->free_pages = loam_subtract_floored(figures[FREE], figures[PROMISED]);
        pool->surplus_pages = loam_subtract_floored(figures[SURPLUS_LIMIT], figures[SURPLUS]);
    }
    return LOAM_OK;
}

/* --- NUMA nodes ------------------------------------------------------------------------------------------------ */

#define NODE_PATH "/sys/devices/system/node/node%" PRIu32

void loam_plan_host_node_path(uint32_t node, enum loam_pages pages, char *path, size_t bytes)
{
    snprintf(path, bytes, NODE_PATH "/hugepages/%s", node, pool_name(pages));
}

static enum loam_error node_pool(uint32_t node, enum loam_pages pages, struct loam_plan_host_node *found,
                                 struct loam_diag *diag)
{
    char dir[96], path[128];
    bool present;
    enum loam_error error;

    loam_plan_host_node_path(node, pages, dir, sizeof dir);
    snprintf(path, sizeof path, "%s/nr_hugepages", dir);
    error = loam_plan_text_figure(path, &found->total_pages, &present, diag);
    if (error == LOAM_OK) {
        snprintf(path, sizeof path, "%s/free_hugepages", dir);
        error = loam_plan_text_figure(path, &found->free_pages, &present, diag);
    }
    return error;
}

/* A strict binding makes the kernel drop the node's cached files before it gives up, so they count as free. */
static enum loam_error node_memory(const char *path, const char *text, uint64_t *bytes, struct loam_diag *diag)
{
    static const char *const labels[] = {"MemFree:", "Active(file):", "Inactive(file):"};

    *bytes = 0;
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++) {
        uint64_t part_bytes;
        enum loam_error error = loam_plan_text_labelled(path, text, labels[i], LOAM_KIB, i == 0, &part_bytes, diag);

        if (error != LOAM_OK) {
            return error;
        }
        *bytes = loam_add_capped(*bytes, part_bytes);
    }
    return LOAM_OK;
}

enum loam_error loam_plan_host_node(uint32_t node, enum loam_pages pages, struct loam_plan_host_node *found,
                                    struct loam_diag *diag)
{
    char path[128], text[LOAM_PLAN_TEXT_TABLE_MAX];
    enum loam_error error;

    *found = (struct loam_plan_host_node){0};
    snprintf(path, sizeof path, NODE_PATH "/meminfo", node);
    error = loam_plan_text_file(path, text, sizeof text, &found->present, diag);
    if (error == LOAM_OK && found->present) {
        error = node_memory(path, text, &found->free_bytes, diag);
    }
    if (error == LOAM_OK && found->present && (pages == LOAM_PAGES_1G || pages == LOAM_PAGES_2M)) {
        error = node_pool(node, pages, found, diag);
    }
    if (error != LOAM_OK) {
        *found = (struct loam_plan_host_node){0};
    }
    return error;
}

/* --- Memory of the host ---------------------------------------------------------------------------------------- */

/* 2 in overcommit_memory: the kernel refuses whatever would exceed the commit limit. */
static enum loam_error commit_room(const char *path, const char *text, uint64_t *bytes, struct loam_diag *diag)
{
    uint64_t mode, limit_bytes, used_bytes;
    bool present;
    enum loam_error error = loam_plan_text_figure("/proc/sys/vm/overcommit_memory", &mode, &present, diag);

    *bytes = UINT64_MAX;
    if (error != LOAM_OK || mode != 2) {
        return error;
    }
    if ((error = loam_plan_text_labelled(path, text, "CommitLimit:", LOAM_KIB, true, &limit_bytes, diag)) == LOAM_OK &&
        (error = loam_plan_text_labelled(path, text, "Committed_AS:", LOAM_KIB, true, &used_bytes, diag)) == LOAM_OK) {
        *bytes = loam_subtract_floored(limit_bytes, used_bytes);
    }
    return error;
}

enum loam_error loam_plan_host_available(uint64_t *bytes, struct loam_diag *diag)
{
    static const char path[] = "/proc/meminfo";
    char text[LOAM_PLAN_TEXT_TABLE_MAX];
    uint64_t commit_bytes;
    bool present;
    enum loam_error error = loam_plan_text_file(path, text, sizeof text, &present, diag);

    *bytes = 0;
    if (error != LOAM_OK ||
        (error = loam_plan_text_labelled(path, text, "MemAvailable:", LOAM_KIB, true, bytes, diag)) != LOAM_OK ||
        (error = commit_room(path, text, &commit_bytes, diag)) != LOAM_OK) {
        *bytes = 0;
        return error;
    }
    *bytes = *bytes < commit_bytes ? *bytes : commit_bytes;
    return LOAM_OK;
}

/* The choice in force stands in brackets: "always [madvise] never". */
enum loam_error loam_plan_host_thp(bool shared, bool *given, struct loam_diag *diag)
{
    char text[128];
    bool present;
    enum loam_error error = loam_plan_text_file(shared ? "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
                                                       : "/sys/kernel/mm/transparent_hugepage/enabled",
                                                text, sizeof text, &present, diag);

    *given = error == LOAM_OK && present && strchr(text, '[') != NULL && strstr(text, "[never]") == NULL &&
             strstr(text, "[deny]") == NULL;
    return error;
}

enum loam_error loam_plan_host_memlock(uint64_t *limit_bytes, uint64_t *locked_bytes, struct loam_diag *diag)
{
    static const char path[] = "/proc/self/status";
    char text[LOAM_PLAN_TEXT_TABLE_MAX];
    bool present;
    enum loam_error error;

    *locked_bytes = 0;
    if (!loam_prim_memlock_limit(limit_bytes)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "reading the limit on locked memory");
    }
    if (*limit_bytes == UINT64_MAX) {
        return LOAM_OK;
    }
    error = loam_plan_text_file(path, text, sizeof text, &present, diag);
    return error != LOAM_OK ? error
                            : loam_plan_text_labelled(path, text, "VmLck:", LOAM_KIB, false, locked_bytes, diag);
}
