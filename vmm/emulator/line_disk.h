// SPDX-License-Identifier: Apache-2.0
/* Disks: -device virtio-blk-device, the -blockdev that it names, and the file below that. */
#ifndef LOAM_VMM_EMULATOR_LINE_DISK_H
#define LOAM_VMM_EMULATOR_LINE_DISK_H

#include "vmm/emulator/arguments.h"
#include "vmm/emulator/line.h"

/* Fill in the line's disks, of whose fdsets it makes use. */
LOAM_MUST_USE enum loam_error line_disk_read(const struct arguments *arguments, struct line *line,
                                             struct loam_diag *diag);

#endif
