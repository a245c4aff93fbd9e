// SPDX-License-Identifier: Apache-2.0
/*
 * User-mode networking as a network device's way outside: a guest's connections become sockets of this process, by
 * libslirp. The network is the one that QEMU has:
 *
 *     10.0.2.0/24     the guest by DHCP from 10.0.2.15 on   fec0::/64
 *     10.0.2.2        gateway; the host itself, 127.0.0.1   fec0::2
 *     10.0.2.3        the host's name servers               fec0::3
 *
 * One thread of its own runs the stack and waits for its sockets. As long as the guest has no buffers, or stands still,
 * sockets are not read, so that senders wait; up to NET_USER_QUEUE_FRAMES that are under way are kept, others are
 * dropped. The stack's clock goes on meanwhile.
 *
 * Frames in either direction and sockets are bounded. Fragments of IPv4 packets that the guest sends are dropped: its
 * datagrams have at most 1472 bytes. Nothing but this module uses libslirp, or glib.
 *
 * Threads: net_user_open and net_user_close from one, with no lock held.
 */
#ifndef LOAM_VMM_EMULATOR_NET_USER_H
#define LOAM_VMM_EMULATOR_NET_USER_H

#include "loam/error.h"
#include "vmm/virtio_net.h"

#define NET_USER_QUEUE_FRAMES 256u /* in each direction */
#define NET_USER_SOCKET_MAX   256u /* with more, nothing that may open another is let in: but what is under way may */

/* Opaque. */
struct net_user;

/* Connect net with a network of its own. LOAM_ERROR_SYSTEM: a call failed, and net is as it was. */
LOAM_MUST_USE enum loam_error net_user_open(struct virtio_net *net, struct net_user **user, struct loam_diag *diag);

/* Disconnect net, end the thread, and close every socket. NULL is allowed. */
void net_user_close(struct net_user *user);

#endif
