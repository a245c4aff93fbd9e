// SPDX-License-Identifier: Apache-2.0
/*
 * A guest's driver for the memory balloon behind a virtio-mmio transport (virtio 1.2, section 5.5), polled. It trusts the
 * device: it is there to have something to be ballooned, and not to test the transport.
 */
#ifndef LOAM_TESTS_EMULATOR_BALLOON_DRIVER_H
#define LOAM_TESTS_EMULATOR_BALLOON_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

/* Look for a balloon at each transport, and start it. false: there is none. first: the page frame that it takes first. */
bool balloon_start(uint32_t first);

/* Give up or take back as many pages as the device wants. Returns whether anything changed. */
bool balloon_follow(void);

#endif
