// SPDX-License-Identifier: Apache-2.0
/*
 * The balloon: how much of its memory the guest shall have, over all lives, and virtio-balloon on each machine.
 *
 * A guest may change its mind as often as it likes: BALLOON_CHANGE tells of it once a second at most, and of the last
 * change always.
 *
 * Threads: as devices.h says; the queries also while another attaches or detaches.
 */
#ifndef LOAM_VMM_EMULATOR_DEVICE_BALLOON_H
#define LOAM_VMM_EMULATOR_DEVICE_BALLOON_H

#include "vmm/emulator/device.h"
#include "vmm/emulator/line.h"

#include <poll.h>

/* line outlives the balloon. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error device_balloon_open(const struct line *line, const struct device_news *news,
                                                  struct device *device, struct loam_diag *diag);

/* Bytes that the guest has outside the balloon; and how many it shall have, all of its memory at most. */
uint64_t device_balloon_bytes(const struct device *device);
void device_balloon_set(const struct device *device, uint64_t bytes);

/* What to wait for before the next turn, which tells what there is to tell: as chardev_poll. */
size_t device_balloon_poll(const struct device *device, struct pollfd *fd, int *timeout_milliseconds);
void device_balloon_turn(const struct device *device);

#endif
