// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/net_flow.h"

#include <stdbool.h>

/* Ethernet; RFC 791, section 3.1; RFC 8200, section 3; RFC 9293, section 3.1. */
enum {
    ETHERNET_BYTES = 14,
    ETHERNET_TYPE = 12,
    TYPE_IPV4 = 0x0800,
    TYPE_IPV6 = 0x86dd,
    IPV4_BYTES = 20,
    IPV4_FRAGMENT = 6,
    IPV4_DO_NOT_FRAGMENT = 0x4000,
    IPV4_PROTOCOL = 9,
    IPV6_BYTES = 40,
    IPV6_NEXT = 6,
    PROTOCOL_TCP = 6,
    PROTOCOL_ICMPV6 = 58,
    TCP_FLAGS = 13,
    TCP_SYN = 0x02
};

static uint32_t two_bytes(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

/* A segment from offset on. */
static enum net_flow flow_of_tcp(const uint8_t *packet, size_t bytes, size_t offset)
{
    const bool begins = offset + TCP_FLAGS >= bytes || (packet[offset + TCP_FLAGS] & TCP_SYN) != 0;

    return begins ? NET_FLOW_NEW : NET_FLOW_KNOWN;
}

static enum net_flow flow_of_ipv4(const uint8_t *packet, size_t bytes)
{
    if (bytes < IPV4_BYTES) {
        return NET_FLOW_NEW;
    }
    if ((two_bytes(packet + IPV4_FRAGMENT) & ~(uint32_t)IPV4_DO_NOT_FRAGMENT) != 0) {
        return NET_FLOW_FRAGMENT;
    }
    if (packet[IPV4_PROTOCOL] != PROTOCOL_TCP) {
        return NET_FLOW_NEW;
    }
    return flow_of_tcp(packet, bytes, (size_t)(packet[0] & 0x0f) * 4);
}

static enum net_flow flow_of_ipv6(const uint8_t *packet, size_t bytes)
{
    if (bytes < IPV6_BYTES) {
        return NET_FLOW_NEW;
    }
    if (packet[IPV6_NEXT] == PROTOCOL_ICMPV6) {
        return NET_FLOW_KNOWN;
    }
    return packet[IPV6_NEXT] == PROTOCOL_TCP ? flow_of_tcp(packet, bytes, IPV6_BYTES) : NET_FLOW_NEW;
}

enum net_flow net_flow_of(const uint8_t *frame, size_t bytes)
{
    if (bytes < ETHERNET_BYTES) {
        return NET_FLOW_NEW;
    }
    switch (two_bytes(frame + ETHERNET_TYPE)) {
    case TYPE_IPV4:
        return flow_of_ipv4(frame + ETHERNET_BYTES, bytes - ETHERNET_BYTES);
    case TYPE_IPV6:
        return flow_of_ipv6(frame + ETHERNET_BYTES, bytes - ETHERNET_BYTES);
    default:
        return NET_FLOW_KNOWN;
    }
}
