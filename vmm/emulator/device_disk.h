// SPDX-License-Identifier: Apache-2.0
/*
 * A disk: its file, which is opened once, and virtio-blk on each machine. What it has done is counted over all lives.
 * Threads: as devices.h says; the queries also while another attaches or detaches.
 */
#ifndef LOAM_VMM_EMULATOR_DEVICE_DISK_H
#define LOAM_VMM_EMULATOR_DEVICE_DISK_H

#include "vmm/emulator/device.h"
#include "vmm/emulator/line.h"

/* line outlives the disk. LOAM_ERROR_INVALID, LOAM_ERROR_SYSTEM: diag names the disk and its file. */
LOAM_MUST_USE enum loam_error device_disk_open(const struct line_disk *line, struct device *device,
                                               struct loam_diag *diag);

/* The disk as a row of query-block; one of its nodes, as one of query-named-block-nodes; what it has done. */
json_t *device_disk_block(const struct device *device);
json_t *device_disk_node(const struct device *device, bool is_storage);
json_t *device_disk_stats(const struct device *device);

#endif
