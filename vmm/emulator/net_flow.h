// SPDX-License-Identifier: Apache-2.0
/*
 * What a frame that a guest sends may cost a network stack that holds a socket for each of the guest's connections, and
 * the fragments of IP packets until they are whole. A guest must not be able to use up either.
 *
 * What cannot be told is called new. Threads: any.
 */
#ifndef LOAM_VMM_EMULATOR_NET_FLOW_H
#define LOAM_VMM_EMULATOR_NET_FLOW_H

#include <stddef.h>
#include <stdint.h>

enum net_flow {
    NET_FLOW_KNOWN, /* no more than it costs: ARP, neighbour discovery, TCP that begins no connection, what is no IP */
    NET_FLOW_NEW,   /* perhaps a socket */
    NET_FLOW_FRAGMENT, /* of an IPv4 packet: to be kept until the others are there */
};

/* Of an Ethernet frame, of any size. */
enum net_flow net_flow_of(const uint8_t *frame, size_t bytes);

#endif
