// SPDX-License-Identifier: Apache-2.0
/*
 * A descriptor that reads and writes whole Ethernet frames, as a network device's way outside: that of a tap interface,
 * as libvirt hands it over, with or without headers before the frames (IFF_VNET_HDR), but opened with IFF_NO_PI, which
 * the kernel does not tell; or a socket of packets (SOCK_DGRAM, SOCK_SEQPACKET).
 *
 * What comes is read by a thread of its own, as long as the guest has buffers for it; the rest stays in the kernel's
 * queue, which is bounded and drops what is too much. What the guest sends is written at once, on the guest's own
 * thread, and is lost if that would wait. When the other end is gone, so is the link.
 *
 * Threads: net_tap_open and net_tap_close from one, with no lock held.
 */
#ifndef LOAM_VMM_EMULATOR_NET_TAP_H
#define LOAM_VMM_EMULATOR_NET_TAP_H

#include "loam/error.h"
#include "vmm/virtio_net.h"

/* Opaque. */
struct net_tap;

/*
 * Connect net with fd, which stays the caller's, and open until net_tap_close. A tap becomes O_NONBLOCK, its offloads
 * are turned off. LOAM_ERROR_INVALID: fd does not keep frames apart, or is a tun interface. LOAM_ERROR_SYSTEM: a call
 * failed. diag says what is wanted; net and fd are as they were then, but for what was turned off.
 */
LOAM_MUST_USE enum loam_error net_tap_open(int fd, struct virtio_net *net, struct net_tap **tap,
                                           struct loam_diag *diag);

/* Disconnect net, and end the thread. NULL is allowed. */
void net_tap_close(struct net_tap *tap);

#endif
