// SPDX-License-Identifier: Apache-2.0
/* A network card: its way outside, and virtio-net on each machine. Threads: as devices.h says. */
#ifndef LOAM_VMM_EMULATOR_DEVICE_NET_H
#define LOAM_VMM_EMULATOR_DEVICE_NET_H

#include "vmm/emulator/device.h"
#include "vmm/emulator/line.h"

/* line outlives the card; a descriptor in it is the card's from here on. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error device_net_open(const struct line_net *line, struct device *device,
                                              struct loam_diag *diag);

#endif
