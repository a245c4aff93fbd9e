// SPDX-License-Identifier: Apache-2.0
#include "allocator/host/host_limit.h"

#include "allocator/host/host_text.h"
#include "loam/types.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct limit_kind {
    const char *name;
    char option;          /* of ulimit, in bash */
    uint64_t option_unit; /* in which it counts */
    const char *used;     /* label in /proc/self/status, in KiB; NULL: another figure, or none */
} limit_kinds[LOAM_PRIM_LIMIT_COUNT] = {
    [LOAM_PRIM_LIMIT_ADDRESS_SPACE] = {"RLIMIT_AS", 'v', LOAM_KIB, "VmSize:"},
    [LOAM_PRIM_LIMIT_DATA] = {"RLIMIT_DATA", 'd', LOAM_KIB, "VmData:"},
    [LOAM_PRIM_LIMIT_FILE_SIZE] = {"RLIMIT_FSIZE", 'f', LOAM_KIB, NULL},
    [LOAM_PRIM_LIMIT_STACK] = {"RLIMIT_STACK", 's', LOAM_KIB, NULL},
    [LOAM_PRIM_LIMIT_LOCKED] = {"RLIMIT_MEMLOCK", 'l', LOAM_KIB, "VmLck:"},
    [LOAM_PRIM_LIMIT_THREADS] = {"RLIMIT_NPROC", 'u', 1, NULL},
};

const char *loam_host_limit_name(enum loam_prim_limit which)
{
    return limit_kinds[which].name;
}

/* The kernel counts all threads in the fourth figure of loadavg, "1/234" (proc(5)). */
static enum loam_error threads_of_all(uint64_t *count, struct loam_diag *diag)
{
    static const char path[] = "/proc/loadavg";
    char text[128];
    bool present;
    enum loam_error error = loam_host_text_file(path, text, sizeof text, &present, diag);
    const char *figure = strchr(text, '/');

    *count = UINT64_MAX;
    if (error == LOAM_OK && present && (figure == NULL || !loam_host_text_parse(figure + 1, count))) {
        *count = UINT64_MAX;
        error = loam_host_text_malformed(path, diag);
    }
    return error;
}

static enum loam_error threads_used(uint64_t room_wanted, const struct loam_host_limit *limit, uint64_t *used,
                                    struct loam_diag *diag)
{
    enum loam_error error = threads_of_all(used, diag);

    if (error != LOAM_OK || loam_subtract_floored(limit->limit, *used) >= room_wanted) {
        return error;
    }
    return loam_prim_user_threads(used)
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "counting the threads of this user in /proc");
}

static enum loam_error memory_used(const char *label, uint64_t *used, struct loam_diag *diag)
{
    static const char path[] = "/proc/self/status";
    char text[LOAM_HOST_TEXT_TABLE_MAX];
    bool present;
    enum loam_error error = loam_host_text_file(path, text, sizeof text, &present, diag);

    *used = 0;
    return error == LOAM_OK ? loam_host_text_labelled(path, text, label, LOAM_KIB, false, used, diag) : error;
}

enum loam_error loam_host_limit(enum loam_prim_limit which, uint64_t wanted, struct loam_host_limit *limit,
                                struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    *limit = (struct loam_host_limit){.room = UINT64_MAX};
    if (!loam_prim_limit(which, &limit->limit)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "reading %s", limit_kinds[which].name);
    }
    if (limit->limit == UINT64_MAX) {
        return LOAM_OK;
    }
    if (which == LOAM_PRIM_LIMIT_THREADS) {
        error = threads_used(wanted, limit, &limit->used, diag);
    } else if (limit_kinds[which].used != NULL) {
        error = memory_used(limit_kinds[which].used, &limit->used, diag);
    }
    limit->room = loam_subtract_floored(limit->limit, limit->used);
    return error;
}

void loam_host_limit_mend(enum loam_prim_limit which, const struct loam_host_limit *limit, uint64_t wanted, char *text,
                          size_t bytes)
{
    const struct limit_kind *kind = &limit_kinds[which];
    uint64_t enough = loam_add_capped(limit->used, wanted);

    snprintf(text, bytes, "raise the limit with: ulimit -%c %" PRIu64, kind->option,
             enough / kind->option_unit + (enough % kind->option_unit != 0));
}
