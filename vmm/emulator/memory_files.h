// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memory in files that the command line names (memory-backend-file), as a whole or part by part. What others shall
 * see lies in the file of that name; all else, and whatever goes into a folder (hugetlbfs), in a file without a name.
 *
 * Threads: one.
 */
#ifndef LOAM_VMM_EMULATOR_MEMORY_FILES_H
#define LOAM_VMM_EMULATOR_MEMORY_FILES_H

#include "loam/error.h"
#include "loam/plan.h"
#include "vmm/emulator/line.h"

#include <stdint.h>

/* Those that there are, in the order of the request's parts. */
struct memory_files {
    uint32_t count;
    struct {
        int fd;
        uint64_t bytes;
    } list[LOAM_MEMORY_PART_MAX];
};

/*
 * Make the files that line names as large as *request, which is line's memory, wants them, and have it adopt them: as
 * parts. Where there are none it stays as it is. LOAM_ERROR_SYSTEM: diag names path and call, and there is none.
 */
LOAM_MUST_USE enum loam_error memory_files_open(const struct line *line, struct loam_memory_request *request,
                                                struct memory_files *files, struct loam_diag *diag);

/* Nothing that was written to them is left. Nobody has them mapped. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error memory_files_clear(const struct memory_files *files, struct loam_diag *diag);

void memory_files_close(struct memory_files *files);

#endif
