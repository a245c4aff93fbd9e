// SPDX-License-Identifier: Apache-2.0
/*
 * SIGBUS on guest memory: a page that this process touches and the host does not supply. A loader, a device or the
 * library does, and none of them can go on. So the process ends, and says why.
 *
 * Threads: watch and forget from one, with none other in guest memory; the signal may come on any.
 */
#ifndef LOAM_VMM_BUS_ERROR_H
#define LOAM_VMM_BUS_ERROR_H

#include "loam/gpa_map.h"

#include <stdbool.h>

/* What the handler does. */
struct bus_error_end {
    void (*clean_up)(
        void); /* first, whosever the signal is: brings the terminal back; async-signal-safe; NULL: nothing */
    bool json; /* also one JSON object on standard output: "error" and "exit" */
    int exit_status;
};

/*
 * From now on a SIGBUS in memory of map prints one line on standard error that names the GPA and its region, and ends
 * the process. SIGBUS of anything else goes to whoever had it before. map lives until bus_error_forget. One map at a
 * time: the last one given.
 */
void bus_error_watch(struct loam_gpa_map *map, const struct bus_error_end *end);

/* Why memory will be missing from now on, which is said instead of a guess; copied; the first counts. Any thread. */
void bus_error_explain(const char *reason);

/* SIGBUS is whose it was. No effect without bus_error_watch before. */
void bus_error_forget(void);

#endif
