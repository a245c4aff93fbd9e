// SPDX-License-Identifier: Apache-2.0
/* Character devices, and who has them: -chardev, -mon, -device isa-serial. Each has one at most. */
#ifndef LOAM_VMM_EMULATOR_LINE_CHARDEV_H
#define LOAM_VMM_EMULATOR_LINE_CHARDEV_H

#include "vmm/emulator/arguments.h"
#include "vmm/emulator/line.h"

/* Fill in the line's chardevs, monitors and serial, of whose fdsets it makes use. */
LOAM_MUST_USE enum loam_error line_chardev_read(const struct arguments *arguments, struct line *line,
                                                struct loam_diag *diag);

#endif
