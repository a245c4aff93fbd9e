// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/net_flow.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <string.h>

enum { FRAME = 128, IPV4 = 14, TCP_IN_IPV4 = IPV4 + 20, TCP_IN_IPV6 = 14 + 40 };

static uint8_t frame[FRAME];

static void make(uint16_t type, uint8_t first, uint32_t protocol_at, uint8_t protocol)
{
    memset(frame, 0, sizeof frame);
    frame[12] = (uint8_t)(type >> 8);
    frame[13] = (uint8_t)type;
    frame[14] = first;
    frame[protocol_at] = protocol;
}

static void make_ipv4(uint8_t protocol)
{
    make(0x0800, 0x45, IPV4 + 9, protocol);
}

static void make_ipv6(uint8_t next)
{
    make(0x86dd, 0x60, 14 + 6, next);
}

static void expect(enum net_flow flow, size_t bytes)
{
    cr_expect_eq(net_flow_of(frame, bytes), flow, "%d in place of %d, of %zu bytes", net_flow_of(frame, bytes), flow,
                 bytes);
}

Test(net_flow, what_is_no_ip_costs_nothing)
{
    make(0x0806, 0, 0, 0);
    expect(NET_FLOW_KNOWN, 42);
    expect(NET_FLOW_KNOWN, 14);
    make(0x8100, 0, 0, 0);
    expect(NET_FLOW_KNOWN, FRAME);
}

Test(net_flow, datagrams_and_what_nobody_knows_are_new)
{
    static const uint8_t protocols[] = {0, 1, 17, 47, 58, 132, 255};

    for (size_t i = 0; i < sizeof protocols; i++) {
        make_ipv4(protocols[i]);
        expect(NET_FLOW_NEW, FRAME);
        make_ipv6(protocols[i]);
        expect(protocols[i] == 58 ? NET_FLOW_KNOWN : NET_FLOW_NEW, FRAME);
    }
}

/* All combinations of flags; SYN is the second one (RFC 9293, section 3.1). */
Test(net_flow, only_a_syn_begins_a_connection)
{
    for (uint32_t flags = 0; flags < 256; flags++) {
        const enum net_flow flow = (flags & 2) != 0 ? NET_FLOW_NEW : NET_FLOW_KNOWN;

        make_ipv4(6);
        frame[TCP_IN_IPV4 + 13] = (uint8_t)flags;
        expect(flow, FRAME);
        make_ipv6(6);
        frame[TCP_IN_IPV6 + 13] = (uint8_t)flags;
        expect(flow, FRAME);
    }
}

Test(net_flow, a_header_with_options_is_longer)
{
    make_ipv4(6);
    frame[IPV4] = 0x4f;
    frame[TCP_IN_IPV4 + 13] = 2;
    expect(NET_FLOW_KNOWN, FRAME);
    frame[IPV4 + 60 + 13] = 2;
    expect(NET_FLOW_NEW, FRAME);
}

Test(net_flow, fragments_are_told)
{
    static const uint16_t fields[] = {0x2000, 0x0001, 0x1fff, 0x3fff, 0x8000, 0x6000};

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        make_ipv4(6);
        frame[IPV4 + 6] = (uint8_t)(fields[i] >> 8);
        frame[IPV4 + 7] = (uint8_t)fields[i];
        expect(NET_FLOW_FRAGMENT, FRAME);
    }
    make_ipv4(6);
    frame[IPV4 + 6] = 0x40; /* do not fragment */
    expect(NET_FLOW_KNOWN, FRAME);
}

Test(net_flow, what_is_cut_off_is_new)
{
    make_ipv4(6);
    for (size_t bytes = 0; bytes < TCP_IN_IPV4 + 14; bytes++) {
        expect(NET_FLOW_NEW, bytes);
    }
    expect(NET_FLOW_KNOWN, TCP_IN_IPV4 + 14);
    make_ipv6(6);
    for (size_t bytes = 0; bytes < TCP_IN_IPV6 + 14; bytes++) {
        expect(NET_FLOW_NEW, bytes);
    }
    expect(NET_FLOW_KNOWN, TCP_IN_IPV6 + 14);
    make_ipv6(58);
    expect(NET_FLOW_NEW, 14 + 39);
    expect(NET_FLOW_KNOWN, 14 + 40);
}

/* Each in memory of its own size, for a sanitizer to see. */
Test(net_flow, looks_at_nothing_beyond_the_frame)
{
    struct random random = {7};

    for (uint32_t i = 0; i < 100000; i++) {
        const size_t bytes = random_below(&random, FRAME);
        uint8_t *exact = malloc(bytes + 1);

        for (size_t at = 0; at < bytes; at++) {
            exact[at] = (uint8_t)(random_one_in(&random, 3) ? random_u64(&random) : 0);
        }
        if (bytes > 14 && random_one_in(&random, 2)) {
            memcpy(exact + 12, (const uint8_t[]){0x08, 0x00, 0x4f}, 3);
        } else if (bytes > 14) {
            memcpy(exact + 12, (const uint8_t[]){0x86, 0xdd, 0x60}, 3);
        }
        exact = realloc(exact, bytes > 0 ? bytes : 1);
        cr_assert_leq(net_flow_of(exact, bytes), NET_FLOW_FRAGMENT);
        free(exact);
    }
}
