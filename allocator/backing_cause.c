// SPDX-License-Identifier: Apache-2.0
#include "allocator/backing_cause.h"

#include "allocator/host/host.h"
#include "allocator/host/host_cgroup.h"
#include "allocator/host/host_limit.h"
#include "allocator/host/host_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PATH_SHOWN_MAX 160 /* beyond it, a file is described and not named: the command that mends must stand whole */

static enum loam_error hugetlb_limit(uint64_t page_bytes, struct loam_host_cgroup_limit *limit, struct loam_diag *diag)
{
    struct loam_host_cgroups cgroups = {0};
    enum loam_error error = loam_host_cgroup_limit(
        &cgroups, page_bytes == LOAM_GIB ? LOAM_HOST_CGROUP_HUGETLB_1G : LOAM_HOST_CGROUP_HUGETLB_2M, limit, diag);

    loam_host_cgroups_drop(&cgroups);
    return error;
}

enum loam_error loam_backing_charged_at_touch(uint64_t page_bytes, bool *charged, struct loam_diag *diag)
{
    struct loam_host_cgroup_limit limit;
    enum loam_error error = hugetlb_limit(page_bytes, &limit, diag);

    *charged = error == LOAM_OK && limit.at_touch;
    return error;
}

/* --- Hugepages ---------------------------------------------------------------------------------------------------- */

/* "2 MiB": a size of hugepages, of which there are two. */
static const char *unit_of(uint64_t page_bytes)
{
    return page_bytes == LOAM_GIB ? "1 GiB" : "2 MiB";
}

bool loam_backing_cause_pool(uint64_t bytes, uint64_t page_bytes, uint64_t node_mask, char text[BACKING_CAUSE_MAX])
{
    uint64_t wanted = bytes / page_bytes, total_pages, free_pages, surplus_pages = 0;
    char path[LOAM_HOST_POOL_PATH_MAX], where[48] = "";
    struct loam_host_node part;
    struct loam_host_pool pool;

    text[0] = '\0';
    if (node_mask != 0) {
        if (loam_host_nodes(node_mask, page_bytes, &part, NULL) != LOAM_OK || !part.present) {
            return false;
        }
        total_pages = part.total_pages;
        free_pages = part.free_pages;
        loam_host_node_pool_path((uint32_t)__builtin_ctzll(node_mask), page_bytes, path);
        snprintf(where, sizeof where, " on %s", loam_host_nodes_name(node_mask).text);
    } else {
        if (loam_host_pool(page_bytes, &pool, NULL) != LOAM_OK) {
            return false;
        }
        if (!pool.present) {
            snprintf(text, BACKING_CAUSE_MAX,
                     "hugepages: %" PRIu64 " x %s wanted, but this host has no pages of that size: ask for others",
                     wanted, unit_of(page_bytes));
            return true;
        }
        total_pages = pool.total_pages;
        free_pages = pool.free_pages;
        surplus_pages = pool.surplus_pages;
        loam_host_pool_path(page_bytes, path);
    }
    if (loam_add_capped(free_pages, surplus_pages) >= wanted) {
        return false;
    }
    snprintf(text, BACKING_CAUSE_MAX,
             "hugepages: %" PRIu64 " x %s wanted, %" PRIu64 " free%s: raise the pool with: echo %" PRIu64
             " > %s/nr_hugepages",
             wanted, unit_of(page_bytes), free_pages, where, total_pages + wanted - free_pages, path);
    return true;
}

/* Once memory is mapped, what it has reserved or taken itself is in use too. */
static bool is_group_short(const struct backing_cause_wanted *wanted, char *text)
{
    bool mapped = wanted->call == BACKING_CAUSE_POPULATE || wanted->call == BACKING_CAUSE_LOCK;
    struct loam_host_cgroup_limit limit;
    uint64_t missing;
    bool named;

    if (hugetlb_limit(wanted->page_bytes, &limit, NULL) != LOAM_OK || limit.room == UINT64_MAX ||
        (!mapped && limit.room >= wanted->bytes)) {
        return false;
    }
    missing = mapped ? wanted->bytes : wanted->bytes - limit.room;
    named = strlen(limit.path) <= PATH_SHOWN_MAX;
    snprintf(text, BACKING_CAUSE_MAX,
             "its control group may have %" PRIu64 " MiB of hugepages, and %" PRIu64
             " MiB are in use or promised: raise the limit with: echo %" PRIu64 " > %.160s",
             limit.limit / LOAM_MIB, limit.used / LOAM_MIB, loam_add_capped(limit.limit, missing),
             named ? limit.path : "the hugetlb limit of this process's control group");
    return true;
}

/* --- Limits of the process ---------------------------------------------------------------------------------------- */

static bool is_limit_short(enum loam_prim_limit which, uint64_t bytes, char *text)
{
    struct loam_host_limit limit;
    char mend[64];

    if (loam_host_limit(which, bytes, &limit, NULL) != LOAM_OK || limit.room >= bytes) {
        return false;
    }
    loam_host_limit_mend(which, &limit, bytes, mend, sizeof mend);
    snprintf(text, BACKING_CAUSE_MAX, "%s is %" PRIu64 " KiB, of which %" PRIu64 " KiB are in use: %s",
             loam_host_limit_name(which), limit.limit / LOAM_KIB, limit.used / LOAM_KIB, mend);
    return true;
}

/* Each mapping is a line of maps; a call may split one in three. */
static bool are_mappings_short(char *text)
{
    static const char path[] = "/proc/sys/vm/max_map_count";
    uint64_t most, count = 0;
    char *maps = NULL;
    bool present;

    if (loam_host_text_figure(path, &most, &present, NULL) == LOAM_OK && present &&
        loam_host_text_list("/proc/self/maps", &maps, NULL) == LOAM_OK) {
        for (const char *line = maps; (line = strchr(line, '\n')) != NULL; line++) {
            count++;
        }
    }
    loam_prim_heap_free(maps);
    if (maps == NULL || count + 2 < most) {
        return false;
    }
    snprintf(text, BACKING_CAUSE_MAX,
             "this process has %" PRIu64 " mappings of the %" PRIu64 " that it may have: raise it with: echo %" PRIu64
             " > %s",
             count, most, 2 * most, path);
    return true;
}

static bool is_memory_short(uint64_t bytes, char *text)
{
    uint64_t available_bytes;

    if (loam_host_available(&available_bytes, NULL) != LOAM_OK || available_bytes >= bytes) {
        return false;
    }
    snprintf(text, BACKING_CAUSE_MAX,
             "the host can give %" PRIu64 " MiB (see vm.overcommit_memory): ask for less, or free some",
             available_bytes / LOAM_MIB);
    return true;
}

/* --- The search --------------------------------------------------------------------------------------------------- */

static bool file_cause(const struct backing_cause_wanted *wanted, char *text)
{
    switch (wanted->error_number) {
    case EFBIG:
        return is_limit_short(LOAM_PRIM_LIMIT_FILE_SIZE, wanted->bytes, text);
    case EMFILE:
        snprintf(text, BACKING_CAUSE_MAX,
                 "this process has as many files open as RLIMIT_NOFILE allows: raise the limit with: ulimit -n");
        return true;
    case ENFILE:
        snprintf(text, BACKING_CAUSE_MAX, "the host has as many files open as it may: raise fs.file-max");
        return true;
    default:
        return false;
    }
}

/* MCL_FUTURE (mlockall(2)) makes each new mapping a locked one, and EAGAIN says that the limit does not allow it. */
static bool map_cause(const struct backing_cause_wanted *wanted, char *text)
{
    if (wanted->error_number == EAGAIN) {
        return is_limit_short(LOAM_PRIM_LIMIT_LOCKED, wanted->bytes, text);
    }
    return is_limit_short(LOAM_PRIM_LIMIT_ADDRESS_SPACE, wanted->bytes, text) ||
           (!wanted->shared && is_limit_short(LOAM_PRIM_LIMIT_DATA, wanted->bytes, text)) ||
           (wanted->page_bytes != 0 && is_group_short(wanted, text)) || are_mappings_short(text) ||
           (wanted->page_bytes == 0 && is_memory_short(wanted->bytes, text));
}

bool loam_backing_cause_find(const struct backing_cause_wanted *wanted, char text[BACKING_CAUSE_MAX])
{
    int saved = errno;
    bool found = false;

    text[0] = '\0';
    switch (wanted->call) {
    case BACKING_CAUSE_FILE:
        found = file_cause(wanted, text);
        break;
    case BACKING_CAUSE_MAP:
        found = (wanted->error_number == ENOMEM || wanted->error_number == EAGAIN) && map_cause(wanted, text);
        break;
    case BACKING_CAUSE_POPULATE:
        found = wanted->page_bytes != 0 && is_group_short(wanted, text);
        break;
    case BACKING_CAUSE_LOCK:
        found = is_limit_short(LOAM_PRIM_LIMIT_LOCKED, wanted->bytes, text);
        break;
    }
    errno = saved;
    return found;
}
