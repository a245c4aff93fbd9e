// SPDX-License-Identifier: Apache-2.0
#include "allocator/host/host.h"

#include "allocator/host/host_text.h"
#include "loam/types.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- Pools of hugepages ---------------------------------------------------------------------------------------- */

#define POOL_NAME "hugepages-%" PRIu64 "kB"

void loam_host_pool_path(uint64_t page_bytes, char path[LOAM_HOST_POOL_PATH_MAX])
{
    snprintf(path, LOAM_HOST_POOL_PATH_MAX, "/sys/kernel/mm/hugepages/" POOL_NAME, page_bytes / LOAM_KIB);
}

static enum loam_error pool_figure(const char *folder, const char *name, uint64_t *value, bool *present,
                                   struct loam_diag *diag)
{
    char path[LOAM_HOST_POOL_PATH_MAX + 32];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return loam_host_text_figure(path, value, present, diag);
}

enum loam_error loam_host_pool(uint64_t page_bytes, struct loam_host_pool *pool, struct loam_diag *diag)
{
    static const char *const names[] = {"nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages",
                                        "nr_overcommit_hugepages"};
    enum { TOTAL, FREE, PROMISED, SURPLUS, SURPLUS_LIMIT, FIGURE_COUNT };
    uint64_t figures[FIGURE_COUNT] = {0};
    bool present[FIGURE_COUNT] = {false};
    char folder[LOAM_HOST_POOL_PATH_MAX];

    loam_host_pool_path(page_bytes, folder);
    *pool = (struct loam_host_pool){0};
    for (size_t i = 0; i < FIGURE_COUNT; i++) {
        enum loam_error error = pool_figure(folder, names[i], &figures[i], &present[i], diag);

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

void loam_host_node_pool_path(uint32_t node, uint64_t page_bytes, char path[LOAM_HOST_POOL_PATH_MAX])
{
    snprintf(path, LOAM_HOST_POOL_PATH_MAX, NODE_PATH "/hugepages/" POOL_NAME, node, page_bytes / LOAM_KIB);
}

static enum loam_error node_pool(uint32_t node, uint64_t page_bytes, struct loam_host_node *found,
                                 struct loam_diag *diag)
{
    char folder[LOAM_HOST_POOL_PATH_MAX];
    bool present;
    enum loam_error error;

    loam_host_node_pool_path(node, page_bytes, folder);
    error = pool_figure(folder, "nr_hugepages", &found->total_pages, &present, diag);
    return error == LOAM_OK ? pool_figure(folder, "free_hugepages", &found->free_pages, &present, diag) : error;
}

/* A strict binding makes the kernel drop the node's cached files before it gives up, so they count as free. */
static enum loam_error node_memory(const char *path, const char *text, struct loam_host_node *found,
                                   struct loam_diag *diag)
{
    static const char *const labels[] = {"MemFree:", "Active(file):", "Inactive(file):"};

    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++) {
        uint64_t part_bytes;
        enum loam_error error = loam_host_text_labelled(path, text, labels[i], LOAM_KIB, i == 0, &part_bytes, diag);

        if (error != LOAM_OK) {
            return error;
        }
        found->free_bytes = loam_add_capped(found->free_bytes, part_bytes);
    }
    return LOAM_OK;
}

enum loam_error loam_host_node(uint32_t node, uint64_t page_bytes, struct loam_host_node *found, struct loam_diag *diag)
{
    char path[128], text[LOAM_HOST_TEXT_TABLE_MAX];
    enum loam_error error;

    *found = (struct loam_host_node){0};
    snprintf(path, sizeof path, NODE_PATH "/meminfo", node);
    error = loam_host_text_file(path, text, sizeof text, &found->present, diag);
    if (error == LOAM_OK && found->present) {
        error = node_memory(path, text, found, diag);
    }
    if (error == LOAM_OK && found->present && page_bytes != 0) {
        error = node_pool(node, page_bytes, found, diag);
    }
    return error;
}

enum loam_error loam_host_nodes(uint64_t node_mask, uint64_t page_bytes, struct loam_host_node *found,
                                struct loam_diag *diag)
{
    struct loam_host_node sum = {.present = true}, node = {.present = true};
    enum loam_error error = LOAM_OK;

    for (uint64_t left = node_mask; left != 0 && error == LOAM_OK && node.present; left &= left - 1) {
        error = loam_host_node((uint32_t)__builtin_ctzll(left), page_bytes, &node, diag);
        sum.free_bytes = loam_add_capped(sum.free_bytes, node.free_bytes);
        sum.total_pages = left == node_mask ? node.total_pages : sum.total_pages;
        sum.free_pages = loam_add_capped(sum.free_pages, node.free_pages);
    }
    *found = error == LOAM_OK && node.present ? sum : (struct loam_host_node){0};
    return error;
}

#define NODE_LIST_SHOWN_MAX 24

struct loam_host_nodes_name loam_host_nodes_name(uint64_t node_mask)
{
    struct loam_host_nodes_name name;
    const char *lead = (node_mask & (node_mask - 1)) == 0 ? "node " : "nodes ";
    char list[NODE_LIST_SHOWN_MAX + 8] = "";
    size_t used = 0;

    for (uint32_t first = 0, end; first < 64 && used <= NODE_LIST_SHOWN_MAX; first = end + 1) {
        for (end = first; end < 64 && (node_mask >> end & 1) != 0; end++) {
        }
        if (end > first) {
            used += (size_t)snprintf(list + used, sizeof list - used, end - first > 1 ? "%s%u-%u" : "%s%u",
                                     used > 0 ? "," : "", first, end - 1);
        }
    }
    if (used <= NODE_LIST_SHOWN_MAX) {
        snprintf(name.text, sizeof name.text, "%s%s", lead, list);
    } else {
        snprintf(name.text, sizeof name.text, "%sof mask %#" PRIx64, lead, node_mask);
    }
    return name;
}

/* --- Memory of the host ---------------------------------------------------------------------------------------- */

/* 2 in overcommit_memory: the kernel refuses whatever would exceed the commit limit. */
static enum loam_error commit_room(const char *path, const char *text, uint64_t *bytes, struct loam_diag *diag)
{
    uint64_t mode, limit_bytes, used_bytes;
    bool present;
    enum loam_error error = loam_host_text_figure("/proc/sys/vm/overcommit_memory", &mode, &present, diag);

    *bytes = UINT64_MAX;
    if (error != LOAM_OK || mode != 2) {
        return error;
    }
    if ((error = loam_host_text_labelled(path, text, "CommitLimit:", LOAM_KIB, true, &limit_bytes, diag)) == LOAM_OK &&
        (error = loam_host_text_labelled(path, text, "Committed_AS:", LOAM_KIB, true, &used_bytes, diag)) == LOAM_OK) {
        *bytes = loam_subtract_floored(limit_bytes, used_bytes);
    }
    return error;
}

enum loam_error loam_host_available(uint64_t *bytes, struct loam_diag *diag)
{
    static const char path[] = "/proc/meminfo";
    char text[LOAM_HOST_TEXT_TABLE_MAX];
    uint64_t commit_bytes;
    bool present;
    enum loam_error error = loam_host_text_file(path, text, sizeof text, &present, diag);

    if (error != LOAM_OK ||
        (error = loam_host_text_labelled(path, text, "MemAvailable:", LOAM_KIB, true, bytes, diag)) != LOAM_OK ||
        (error = commit_room(path, text, &commit_bytes, diag)) != LOAM_OK) {
        *bytes = 0;
        return error;
    }
    *bytes = *bytes < commit_bytes ? *bytes : commit_bytes;
    return LOAM_OK;
}

enum loam_error loam_host_swap(uint64_t *bytes, struct loam_diag *diag)
{
    static const char path[] = "/proc/meminfo";
    char text[LOAM_HOST_TEXT_TABLE_MAX];
    bool present;
    enum loam_error error = loam_host_text_file(path, text, sizeof text, &present, diag);

    *bytes = 0;
    return error == LOAM_OK ? loam_host_text_labelled(path, text, "SwapFree:", LOAM_KIB, false, bytes, diag) : error;
}

/* The choice in force stands in brackets: "always [madvise] never". */
enum loam_error loam_host_thp(bool shared, bool *given, struct loam_diag *diag)
{
    char text[128];
    bool present;
    enum loam_error error =
        loam_host_text_file(shared ? LOAM_HOST_THP_SHARED : LOAM_HOST_THP_PRIVATE, text, sizeof text, &present, diag);

    *given = strchr(text, '[') != NULL && strstr(text, "[never]") == NULL && strstr(text, "[deny]") == NULL;
    return error;
}

/* --- KVM ------------------------------------------------------------------------------------------------------- */

enum loam_error loam_host_kvm_walks(bool *walks, struct loam_diag *diag)
{
    static const char *const switches[] = {"/sys/module/kvm_intel/parameters/ept",
                                           "/sys/module/kvm_amd/parameters/npt"};
    enum loam_error error = LOAM_OK;

    *walks = false;
    for (size_t i = 0; error == LOAM_OK && i < sizeof switches / sizeof switches[0]; i++) {
        char text[LOAM_HOST_TEXT_FIGURE_MAX];
        bool present;

        error = loam_host_text_file(switches[i], text, sizeof text, &present, diag);
        *walks |= text[0] == 'Y' || text[0] == '1';
    }
    return error;
}
