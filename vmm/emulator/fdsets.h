// SPDX-License-Identifier: Apache-2.0
/*
 * Descriptors that came from elsewhere and wait for their use: in sets (-add-fd, add-fd), and by name (getfd). Bounded.
 * Threads: one.
 */
#ifndef LOAM_VMM_EMULATOR_FDSETS_H
#define LOAM_VMM_EMULATOR_FDSETS_H

#include "loam/error.h"
#include "vmm/emulator/line.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define FDSETS_MAX            32u  /* descriptors, of both kinds */
#define FDSETS_TEXT_BYTES_MAX 127u /* of a name, or of what is remembered with a descriptor */

struct fdsets_entry {
    int fd;
    bool is_named; /* text is its name; else it is in a set */
    int64_t set;
    char text[FDSETS_TEXT_BYTES_MAX + 1];
};

struct fdsets {
    struct fdsets_entry entries[FDSETS_MAX];
    uint32_t count;
};

/*
 * With those of the command line, which are the sets' from here on. LOAM_ERROR_INVALID: one was not inherited; those before
 * it are the sets' even so.
 */
enum loam_error fdsets_init(struct fdsets *fdsets, const struct line *line, struct loam_diag *diag);

void fdsets_close(struct fdsets *fdsets);

/*
 * Put fd into a set; *set -1: into a new one, whose number is left there. The descriptor is the sets' on success.
 * LOAM_ERROR_INVALID: a number below -1, or text is too long; LOAM_ERROR_EXHAUSTED: there are FDSETS_MAX.
 */
LOAM_MUST_USE enum loam_error fdsets_add(struct fdsets *fdsets, int fd, int64_t *set, const char *text,
                                         struct loam_diag *diag);

/* Close one of a set; fd -1: all. LOAM_ERROR_NOT_FOUND. */
LOAM_MUST_USE enum loam_error fdsets_remove(struct fdsets *fdsets, int64_t set, int fd, struct loam_diag *diag);

/* Keep fd by name; one that has the name already is closed. Errors as fdsets_add. */
LOAM_MUST_USE enum loam_error fdsets_name(struct fdsets *fdsets, int fd, const char *name, struct loam_diag *diag);

/* The descriptor of that name, which is the caller's from here on; -1: none. */
int fdsets_take(struct fdsets *fdsets, const char *name);

/* The sets, as QEMU's query-fdsets shows them. */
json_t *fdsets_json(const struct fdsets *fdsets);

#endif
