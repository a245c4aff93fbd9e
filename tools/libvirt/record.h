// SPDX-License-Identifier: Apache-2.0
/*
 * What `loam host reserve` has changed and not yet given back, kept in a file, so that it can be undone by a later process.
 *
 * The file is $XDG_STATE_HOME/loam/reserved.json, or ~/.local/state/loam/reserved.json: one object, by URI. It is replaced
 * whole, and only by whoever holds the folder's lock. Each entry is one pool of one node: what it had before the first
 * change that stands, and what it had after the last. While a change is under way, "after" is null: if the process dies
 * then, all that the pool has gained is taken for its doing.
 *
 * Threads: one record is used by one thread.
 */
#ifndef LOAM_LIBVIRT_RECORD_H
#define LOAM_LIBVIRT_RECORD_H

#include "loam/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define RECORD_ENTRY_MAX 128u       /* of one URI */
#define RECORD_BYTES_MAX (1u << 20) /* of the file */

struct record_entry {
    uint64_t page_bytes;
    uint32_t node;
    uint64_t before, after; /* pages */
    bool is_settled;        /* after is known */
};

/* The open file, with the lock, and the entries of one URI. */
struct record {
    int folder;
    char path[4096]; /* for messages */
    const char *uri;
    json_t *all;
    uint32_t count;
    struct record_entry entries[RECORD_ENTRY_MAX];
};

/*
 * Lock the folder, made if need be, and read uri's entries; uri stays the caller's, for as long. Close with record_close.
 * LOAM_ERROR_BUSY: another process has the lock; LOAM_ERROR_CORRUPT: the file is none of ours; LOAM_ERROR_INVALID: no
 * folder can be named, or uri is no UTF-8; LOAM_ERROR_SYSTEM. Nothing is open then.
 */
LOAM_MUST_USE enum loam_error record_open(struct record *record, const char *uri, struct loam_diag *diag);

/* Have it on the disk as it is. */
LOAM_MUST_USE enum loam_error record_store(struct record *record, struct loam_diag *diag);

void record_close(struct record *record);

/* --- Entries: pure ---------------------------------------------------------------------------------------------- */

/* A change begins on a pool that has so many pages now. LOAM_ERROR_EXHAUSTED: more pools than it can hold. */
LOAM_MUST_USE enum loam_error record_begin(struct record *record, uint64_t page_bytes, uint32_t node, uint64_t now);

/* It has ended, with so many. An entry that stands for no change goes. */
void record_settle(struct record *record, uint64_t page_bytes, uint32_t node, uint64_t now);

/*
 * What a pool that has so many pages now is to have when the entry's change is undone: as many less as it brought, so that
 * what others added meanwhile stays; never less than before, for they may have been given back already.
 */
uint64_t record_target(const struct record_entry *entry, uint64_t now);

void record_drop(struct record *record, uint32_t index);

#endif
