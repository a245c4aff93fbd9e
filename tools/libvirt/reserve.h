// SPDX-License-Identifier: Apache-2.0
/*
 * Pools of hugepages set through libvirt, and given back.
 *
 * "2M:512@0" sets the pool to 512 pages: it does not add 512 to what is there, so that it can be said twice. What a pool
 * had before is written down first (record.h), and what it has afterwards is read back from the host, whatever libvirt
 * answered: it calls a pool that got less than was asked for a failure.
 *
 * Calls libvirt: see connection.h.
 */
#ifndef LOAM_LIBVIRT_RESERVE_H
#define LOAM_LIBVIRT_RESERVE_H

#include "tools/libvirt/record.h"
#include "tools/libvirt/words.h"

#include <libvirt/libvirt.h>
#include <stdbool.h>
#include <stdint.h>

#define RESERVE_POOL_MAX RECORD_ENTRY_MAX

struct reserve_request {
    const char *uri;
    bool give_back;
    uint32_t count; /* 0, with give_back: all that is written down */
    struct pool_wish wishes[RESERVE_POOL_MAX];
};

/* What became of one pool. */
struct reserve_line {
    struct pool_wish pool; /* count: what was asked for, or is to be had again */
    uint64_t had, got;
    bool is_in_use; /* what is left above the count goes when its users let go of it */
    char why[256];  /* libvirt's line, if it had one */
};

/* Without a pointer, as aside.h wants it. */
struct reserve_outcome {
    struct loam_diag diag; /* its error is not LOAM_OK: what comes after the lines was not done */
    uint32_t count;
    struct reserve_line lines[RESERVE_POOL_MAX];
};

/* Do it, pool by pool. Before the first change, every pool asked for is looked for. */
void reserve_run(virConnectPtr connection, const struct reserve_request *request, struct reserve_outcome *outcome);

/* Whether the pool has what it should have: what was asked for, or, given back, no more than that but in use. Pure. */
bool reserve_is_met(const struct reserve_line *line);

#endif
