// SPDX-License-Identifier: Apache-2.0
/* The devices that are neither serial ports nor disks: networks, generators, balloons, panics. */
#ifndef LOAM_VMM_EMULATOR_LINE_DEVICE_H
#define LOAM_VMM_EMULATOR_LINE_DEVICE_H

#include "vmm/emulator/arguments.h"
#include "vmm/emulator/line.h"

/* Fill in the line's nets, rng, balloon and panic. */
LOAM_MUST_USE enum loam_error line_device_read(const struct arguments *arguments, struct line *line,
                                               struct loam_diag *diag);

#endif
