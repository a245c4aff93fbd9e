// SPDX-License-Identifier: Apache-2.0
/* A guest that speaks by hand what it says: ARP, DHCP, UDP, TCP, neighbour discovery. The stack is the real one. */
#include "vmm/emulator/net_user.h"

#include "tests/support/lock_watch.h"
#include "tests/vmm/call_gate.h"
#include "tests/vmm/net_guest.h"
#include "tests/vmm/random.h"
#include "vmm/sandbox.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME_MAX = VIRTIO_NET_FRAME_BYTES_MAX,
    ETHERNET = 14,
    IPV4 = 20,
    UDP = 8,
    TCP = 20,
    PROTOCOL_ICMP = 1,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    GUEST_ADDRESS = 0x0a00020f,
    HOST_ADDRESS = 0x0a000202,
    NAME_SERVER = 0x0a000203
};

static const uint8_t host_mac[] = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x02};
static const uint8_t everybody[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static struct net_guest guest;
static struct net_user *user;

/* --- Threads and a clock as the test wants them ------------------------------------------------------------------- */

static int refusal; /* what pthread_create answers; 0: it goes on */
static _Atomic int64_t ahead_seconds;

int __real_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);
int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self)
{
    return refusal != 0 ? refusal : __real_pthread_create(made, attributes, work, self);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    const int answer = __real_clock_gettime(clock, now);

    now->tv_sec += atomic_load(&ahead_seconds);
    return answer;
}

static void offer(struct net_guest *to, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        net_guest_offer(to, i);
    }
}

static void open_network(void)
{
    struct loam_diag diag = {0};

    refusal = 0;
    atomic_store(&ahead_seconds, 0);
    net_guest_init(&guest);
    cr_assert_eq(net_user_open(&guest.net, &user, &diag), LOAM_OK, "%s", diag.text);
}

/* As a domain has it: what libslirp asks of the system has to be among what is left. */
static void set_up(void)
{
    const struct sandbox_needs needs = {.is_domain = true, .has_network = true};
    struct loam_diag diag = {0};

    cr_assert_eq(sandbox_enter(&needs, &diag), LOAM_OK, "%s", diag.text);
    open_network();
}

static void tear_down(void)
{
    net_user_close(user);
    net_guest_destroy(&guest);
}

TestSuite(net_user, .init = set_up, .fini = tear_down, .timeout = 120);
TestSuite(net_user_alone, .init = open_network, .fini = tear_down, .timeout = 120);

/* --- Frames ------------------------------------------------------------------------------------------------------- */

static void put_16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_32(uint8_t *at, uint32_t value)
{
    put_16(at, value >> 16);
    put_16(at + 2, value);
}

static uint32_t get_16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get_32(const uint8_t *at)
{
    return get_16(at) << 16 | get_16(at + 2);
}

/* RFC 1071, without the complement; bytes is even but for the last part. */
static uint32_t sum(uint32_t before, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        before += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
    }
    while (before >> 16 != 0) {
        before = (before & 0xffff) + (before >> 16);
    }
    return before;
}

static void put_ethernet(uint8_t *frame, const uint8_t *to, uint16_t type)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, net_guest_mac, 6);
    put_16(frame + 12, type);
}

static size_t make_arp(uint8_t *frame, uint32_t address)
{
    uint8_t *arp = frame + ETHERNET;

    memset(frame, 0, 42);
    put_ethernet(frame, everybody, 0x0806);
    put_32(arp, 0x00010800);
    put_32(arp + 4, 0x06040001);
    memcpy(arp + 8, net_guest_mac, 6);
    put_32(arp + 14, GUEST_ADDRESS);
    put_32(arp + 24, address);
    return 42;
}

/* Headers for what lies behind them already. Returns the frame's size. */
static size_t make_ipv4(uint8_t *frame, uint8_t protocol, uint32_t from, uint32_t to, size_t bytes)
{
    uint8_t *ip = frame + ETHERNET;

    put_ethernet(frame, to == UINT32_MAX ? everybody : host_mac, 0x0800);
    memset(ip, 0, IPV4);
    ip[0] = 0x45;
    put_16(ip + 2, (uint32_t)(IPV4 + bytes));
    ip[8] = 64;
    ip[9] = protocol;
    put_32(ip + 12, from);
    put_32(ip + 16, to);
    put_16(ip + 10, ~sum(0, ip, IPV4));
    return ETHERNET + IPV4 + bytes;
}

/* Without a checksum (RFC 768 allows it). */
static size_t make_udp(uint8_t *frame, uint16_t port, uint32_t to, uint16_t to_port, const void *data, size_t bytes)
{
    uint8_t *udp = frame + ETHERNET + IPV4;

    put_16(udp, port);
    put_16(udp + 2, to_port);
    put_16(udp + 4, (uint32_t)(UDP + bytes));
    put_16(udp + 6, 0);
    memcpy(udp + UDP, data, bytes);
    return make_ipv4(frame, PROTOCOL_UDP, GUEST_ADDRESS, to, UDP + bytes);
}

static void ask_arp(uint32_t address)
{
    uint8_t frame[FRAME_MAX];

    net_guest_send(&guest, frame, make_arp(frame, address));
}

/* The next answer; returns whose. */
static uint32_t await_arp(void)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    size_t bytes;

    do {
        net_guest_await(&guest, frame, &bytes);
    } while (bytes < 42 || get_16(frame + 12) != 0x0806 || get_16(frame + ETHERNET + 6) != 2);
    cr_assert_eq(get_32(frame + 8), get_32(frame + ETHERNET + 10), "the sender is who says so");
    cr_assert_eq(get_32(frame + ETHERNET + 10), get_32(frame + ETHERNET + 14), "its address is made of that of IP");
    return get_32(frame + ETHERNET + 14);
}

static void expect_arp(uint32_t address)
{
    const uint32_t found = await_arp();

    cr_assert_eq(found, address, "%08x", found);
}

/* The guest makes itself known, and knows the host. */
static void join_network(void)
{
    offer(&guest, 8);
    ask_arp(HOST_ADDRESS);
    expect_arp(HOST_ADDRESS);
}

/* The next frame of this protocol; its payload begins at ETHERNET + IPV4. */
static size_t await_ipv4(uint8_t *frame, uint8_t protocol)
{
    size_t bytes;

    do {
        net_guest_await(&guest, frame, &bytes);
    } while (bytes < ETHERNET + IPV4 || get_16(frame + 12) != 0x0800 || frame[ETHERNET + 9] != protocol);
    cr_assert_arr_eq(frame + 6, host_mac, 6);
    cr_assert_eq(frame[ETHERNET], 0x45);
    cr_assert_eq(sum(0, frame + ETHERNET, IPV4), 0xffff);
    cr_assert_geq(bytes, ETHERNET + get_16(frame + ETHERNET + 2));
    return ETHERNET + get_16(frame + ETHERNET + 2);
}

static struct virtio_net_counts counts(void)
{
    struct virtio_net_counts now;

    virtio_net_read_counts(&guest.net, &now);
    return now;
}

static unsigned descriptor_count(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned count = 0;

    cr_assert_not_null(folder);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* Between the wakes that it gets, the thread sleeps, but for the stack's own timers. */
static void expect_rest(void)
{
    enum { WAKES = 400 };

    call_gate_reset();
    for (uint32_t i = 0; i < WAKES; i++) {
        const unsigned before = call_gate_count(CALL_POLL);

        virtio_mmio_lock(&guest.net.mmio);
        guest.net.outside.room(guest.net.outside.self);
        virtio_mmio_unlock(&guest.net.mmio);
        while (call_gate_count(CALL_POLL) == before) {
            sched_yield();
        }
    }
    cr_assert_leq(call_gate_count(CALL_POLL), WAKES + 40, "%u polls", call_gate_count(CALL_POLL));
}

/* --- Who is there ------------------------------------------------------------------------------------------------- */

Test(net_user, answers_for_its_own_addresses)
{
    join_network();
    ask_arp(0x0a000242); /* nobody's */
    ask_arp(NAME_SERVER);
    expect_arp(NAME_SERVER);
    expect_rest();
}

Test(net_user, the_host_answers_a_ping)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES], *icmp = frame + ETHERNET + IPV4;

    join_network();
    memset(icmp, 0, 64);
    icmp[0] = 8;
    put_32(icmp + 4, 0x12340001);
    icmp[40] = 0x77;
    put_16(icmp + 2, ~sum(0, icmp, 64));
    net_guest_send(&guest, frame, make_ipv4(frame, PROTOCOL_ICMP, GUEST_ADDRESS, HOST_ADDRESS, 64));
    cr_assert_eq(await_ipv4(frame, PROTOCOL_ICMP), ETHERNET + IPV4 + 64);
    cr_assert_eq(icmp[0], 0);
    cr_assert_eq(get_32(icmp + 4), 0x12340001);
    cr_assert_eq(icmp[40], 0x77);
}

/* RFC 2131, figure 1; the options of RFC 2132 that follow are ended by 255. */
static void send_dhcp(uint8_t message)
{
    uint8_t frame[FRAME_MAX], dhcp[300] = {1, 1, 6};

    put_32(dhcp + 4, 0x4c4f414d);
    memcpy(dhcp + 28, net_guest_mac, 6);
    put_32(dhcp + 236, 0x63825363);
    memcpy(dhcp + 240, (const uint8_t[]){53, 1, message, 50, 4, 10, 0, 2, 15, 255}, 10);
    make_udp(frame, 68, UINT32_MAX, 67, dhcp, sizeof dhcp);
    net_guest_send(&guest, frame, make_ipv4(frame, PROTOCOL_UDP, 0, UINT32_MAX, UDP + sizeof dhcp));
}

/* The value of an option; NULL: it is not there. */
static const uint8_t *dhcp_option(const uint8_t *dhcp, const uint8_t *end, uint8_t code)
{
    const uint8_t *at = dhcp + 240;

    while (at + 2 <= end && *at != 255) {
        if (*at == code && at + 2 + at[1] <= end) {
            return at + 2;
        }
        at += *at == 0 ? 1 : 2 + at[1];
    }
    return NULL;
}

static void expect_dhcp(uint8_t message)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    const uint8_t *end = frame + await_ipv4(frame, PROTOCOL_UDP);
    const uint8_t *udp = frame + ETHERNET + IPV4, *dhcp = udp + UDP;

    cr_assert_eq(get_32(udp), 67 << 16 | 68);
    cr_assert_eq(dhcp[0], 2);
    cr_assert_eq(get_32(dhcp + 4), 0x4c4f414d);
    cr_assert_eq(get_32(dhcp + 16), GUEST_ADDRESS);
    cr_assert_eq(*dhcp_option(dhcp, end, 53), message);
    cr_assert_eq(get_32(dhcp_option(dhcp, end, 1)), 0xffffff00);
    cr_assert_eq(get_32(dhcp_option(dhcp, end, 3)), HOST_ADDRESS);
    cr_assert_eq(get_32(dhcp_option(dhcp, end, 6)), NAME_SERVER);
}

Test(net_user, lends_an_address)
{
    offer(&guest, 4);
    send_dhcp(1);
    expect_dhcp(2);
    send_dhcp(3);
    expect_dhcp(5);
}

/* RFC 4861, sections 4.3 and 4.4, of fec0::2. */
Test(net_user, answers_for_its_neighbour)
{
    static const uint8_t to[] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2};
    static const uint8_t target[] = {0xfe, 0xc0, [15] = 2};
    static const uint8_t from[] = {0xfe, 0xc0, [15] = 0x0f};
    uint8_t frame[NET_GUEST_BUFFER_BYTES] = {0}, pseudo[40] = {0}, *ip = frame + ETHERNET, *icmp = ip + 40;
    size_t bytes;

    offer(&guest, 4);
    put_ethernet(frame, (const uint8_t[]){0x33, 0x33, 0xff, 0, 0, 2}, 0x86dd);
    put_32(ip, 0x60000000);
    put_32(ip + 4, 32 << 16 | 58 << 8 | 255);
    memcpy(ip + 8, from, 16);
    memcpy(ip + 24, to, 16);
    icmp[0] = 135;
    memcpy(icmp + 8, target, 16);
    put_16(icmp + 24, 1 << 8 | 1);
    memcpy(icmp + 26, net_guest_mac, 6);
    memcpy(pseudo, ip + 8, 32);
    put_32(pseudo + 32, 32);
    pseudo[39] = 58;
    put_16(icmp + 2, ~sum(sum(0, pseudo, 40), icmp, 32));
    net_guest_send(&guest, frame, ETHERNET + 40 + 32);
    do {
        net_guest_await(&guest, frame, &bytes);
    } while (get_16(frame + 12) != 0x86dd || icmp[0] != 136);
    cr_assert_arr_eq(frame, net_guest_mac, 6);
    cr_assert_arr_eq(icmp + 8, target, 16);
}

/* The stack tells of itself every few minutes, by its timer (RFC 4861, section 6.2.1: at most 1800 s). */
Test(net_user, tells_of_itself_when_the_time_has_come)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    size_t bytes;

    join_network();
    for (uint32_t i = 0; i < 3; i++) {
        atomic_fetch_add(&ahead_seconds, 1800);
        ask_arp(HOST_ADDRESS); /* so that it looks at the clock */
        do {
            net_guest_await(&guest, frame, &bytes);
        } while (get_16(frame + 12) != 0x86dd || frame[ETHERNET + 40] != 134);
    }
}

/* --- Through to the host ------------------------------------------------------------------------------------------ */

static int serve_on(int type, uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, bytes), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    cr_assert(type != SOCK_STREAM || listen(fd, 16) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

Test(net_user, datagrams_go_to_the_host_and_come_back)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES], data[1400], found[2000];
    struct sockaddr_in peer;
    socklen_t peer_bytes;
    uint16_t port;
    const int server = serve_on(SOCK_DGRAM, &port);

    join_network();
    for (uint32_t i = 0; i < 50; i++) {
        const size_t bytes = 1 + (i * 113) % sizeof data;

        memset(data, (int)(i + 1), bytes);
        net_guest_send(&guest, frame, make_udp(frame, 5000, HOST_ADDRESS, port, data, bytes));
        peer_bytes = sizeof peer;
        cr_assert_eq(recvfrom(server, found, sizeof found, 0, (struct sockaddr *)&peer, &peer_bytes), (ssize_t)bytes);
        cr_assert_eq(memcmp(found, data, bytes), 0);
        data[0] = 0xee;
        cr_assert_eq(sendto(server, data, bytes, 0, (struct sockaddr *)&peer, peer_bytes), (ssize_t)bytes);
        cr_assert_eq(await_ipv4(frame, PROTOCOL_UDP), ETHERNET + IPV4 + UDP + bytes);
        cr_assert_eq(get_32(frame + ETHERNET + 12), HOST_ADDRESS);
        cr_assert_eq(get_32(frame + ETHERNET + IPV4), (uint32_t)port << 16 | 5000);
        cr_assert_eq(memcmp(frame + ETHERNET + IPV4 + UDP, data, bytes), 0);
    }
    close(server);
}

/* They stay in the socket: nothing is lost, and the thread sleeps. */
Test(net_user, datagrams_wait_for_a_guest_without_buffers)
{
    enum { ANSWERS = 200, DATAGRAMS = 100 };
    uint8_t frame[NET_GUEST_BUFFER_BYTES], data[8];
    struct sockaddr_in peer;
    socklen_t peer_bytes = sizeof peer;
    uint16_t port;
    const int server = serve_on(SOCK_DGRAM, &port);

    net_guest_offer(&guest, 0);
    ask_arp(HOST_ADDRESS);
    expect_arp(HOST_ADDRESS);
    net_guest_send(&guest, frame, make_udp(frame, 5000, HOST_ADDRESS, port, "x", 1));
    cr_assert_eq(recvfrom(server, data, sizeof data, 0, (struct sockaddr *)&peer, &peer_bytes), 1);
    virtio_net_quiesce(&guest.net);
    for (uint32_t i = 0; i < ANSWERS; i++) {
        ask_arp(HOST_ADDRESS);
    }
    expect_rest(); /* the answers are there, and nothing is read any more */
    for (uint32_t i = 0; i < DATAGRAMS; i++) {
        put_32(data, i);
        cr_assert_eq(sendto(server, data, sizeof data, 0, (struct sockaddr *)&peer, peer_bytes), (ssize_t)sizeof data);
    }
    expect_rest();
    virtio_net_resume(&guest.net);
    for (uint32_t i = 0; i < ANSWERS; i++) {
        expect_arp(HOST_ADDRESS);
    }
    for (uint32_t i = 0; i < DATAGRAMS; i++) {
        (void)await_ipv4(frame, PROTOCOL_UDP);
        cr_assert_eq(get_32(frame + ETHERNET + IPV4 + UDP), i, "%u in place of %u",
                     get_32(frame + ETHERNET + IPV4 + UDP), i);
    }
    cr_assert_eq(counts().received.dropped_frames, 0);
    close(server);
}

/* A connection of the guest's, RFC 9293: nothing is lost on this way, so nothing is sent twice. */
struct connection {
    uint16_t port;
    uint16_t to_port;
    uint32_t next_sent;     /* sequence numbers */
    uint32_t next_received; /* 0 before the peer has said its first */
    uint32_t acknowledged;
};

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16, WINDOW = 20000 };

static void send_segment(struct connection *c, uint8_t flags, const void *data, size_t bytes)
{
    uint8_t frame[FRAME_MAX] = {0}, pseudo[12] = {0}, *tcp = frame + ETHERNET + IPV4;

    put_16(tcp, c->port);
    put_16(tcp + 2, c->to_port);
    put_32(tcp + 4, c->next_sent);
    put_32(tcp + 8, (flags & ACK) != 0 ? c->next_received : 0);
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    put_16(tcp + 14, WINDOW);
    if (bytes > 0) {
        memcpy(tcp + TCP, data, bytes);
    }
    put_32(pseudo, GUEST_ADDRESS);
    put_32(pseudo + 4, HOST_ADDRESS);
    put_32(pseudo + 8, PROTOCOL_TCP << 16 | (uint32_t)(TCP + bytes));
    put_16(tcp + 16, ~sum(sum(0, pseudo, 12), tcp, TCP + bytes));
    net_guest_send(&guest, frame, make_ipv4(frame, PROTOCOL_TCP, GUEST_ADDRESS, HOST_ADDRESS, TCP + bytes));
    c->next_sent += (uint32_t)bytes + ((flags & (SYN | FIN)) != 0 ? 1 : 0);
}

/* The next segment of this connection. What it carries in order goes to data. Returns its flags. */
static uint8_t await_segment(struct connection *c, uint8_t *data, size_t *bytes)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    const uint8_t *tcp = frame + ETHERNET + IPV4;
    size_t end, header;
    uint8_t flags;

    do {
        end = await_ipv4(frame, PROTOCOL_TCP);
    } while (get_32(tcp) != ((uint32_t)c->to_port << 16 | c->port));
    flags = tcp[13];
    header = (size_t)(tcp[12] >> 4) * 4;
    *bytes = 0;
    if ((flags & SYN) != 0) {
        c->next_received = get_32(tcp + 4) + 1;
    } else if (get_32(tcp + 4) == c->next_received) { /* else it was sent once more */
        *bytes = end - ETHERNET - IPV4 - header;
        memcpy(data, tcp + header, *bytes);
        c->next_received += (uint32_t)*bytes + ((flags & FIN) != 0 ? 1 : 0);
    }
    c->acknowledged = get_32(tcp + 8);
    return flags;
}

static struct connection connect_to(uint16_t to_port, uint16_t port)
{
    struct connection c = {.port = port, .to_port = to_port, .next_sent = 1000};
    uint8_t data[FRAME_MAX];
    size_t bytes;

    send_segment(&c, SYN, NULL, 0);
    cr_assert_eq(await_segment(&c, data, &bytes) & (SYN | ACK | RST), SYN | ACK);
    cr_assert_eq(c.acknowledged, c.next_sent);
    send_segment(&c, ACK, NULL, 0);
    return c;
}

static uint8_t byte_of(size_t at)
{
    return (uint8_t)(at * 7 + (at >> 8) + (at >> 16));
}

/* Sends back what comes until the guest has said all, then ends the connection. */
static void *echo(void *listener)
{
    uint8_t bytes[4096];
    const int fd = accept(*(const int *)listener, NULL, NULL);
    ssize_t count;

    while ((count = read(fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t done = 0; done < count;) {
            const ssize_t now = write(fd, bytes + done, (size_t)(count - done));

            if (now <= 0) {
                break;
            }
            done += now;
        }
    }
    close(fd);
    return NULL;
}

/* Until bytes have come, each acknowledged. */
static void expect_stream(struct connection *c, size_t *at, size_t end)
{
    uint8_t data[FRAME_MAX];
    size_t bytes;

    while (*at < end) {
        cr_assert_eq(await_segment(c, data, &bytes) & (SYN | RST), 0);
        for (size_t i = 0; i < bytes; i++) {
            cr_assert_eq(data[i], byte_of(*at + i), "byte %zu", *at + i);
        }
        *at += bytes;
        if (bytes > 0) {
            send_segment(c, ACK, NULL, 0);
        }
    }
}

Test(net_user, a_connection_goes_to_the_host_and_back)
{
    enum { SEGMENTS = 60, SEGMENT = 1000 };
    uint8_t data[SEGMENT];
    size_t received = 0, bytes;
    uint16_t port;
    int listener = serve_on(SOCK_STREAM, &port);
    struct connection c;
    pthread_t server;
    uint8_t flags;

    join_network();
    cr_assert_eq(pthread_create(&server, NULL, echo, &listener), 0);
    c = connect_to(port, 6000);
    for (size_t i = 0; i < SEGMENTS; i++) {
        for (size_t at = 0; at < SEGMENT; at++) {
            data[at] = byte_of(i * SEGMENT + at);
        }
        send_segment(&c, ACK, data, SEGMENT);
        expect_stream(&c, &received, (i + 1) * SEGMENT);
    }
    cr_assert_eq(received, SEGMENTS * SEGMENT);
    send_segment(&c, FIN | ACK, NULL, 0);
    do {
        flags = await_segment(&c, data, &bytes);
        cr_assert_eq(flags & RST, 0);
    } while ((flags & FIN) == 0);
    send_segment(&c, ACK, NULL, 0);
    pthread_join(server, NULL);
    close(listener);
}

Test(net_user, a_port_where_nobody_listens_refuses)
{
    struct connection c = {.port = 6000, .next_sent = 1000};
    uint8_t data[FRAME_MAX];
    size_t bytes;
    int listener = serve_on(SOCK_STREAM, &c.to_port);

    close(listener);
    join_network();
    send_segment(&c, SYN, NULL, 0);
    cr_assert_neq(await_segment(&c, data, &bytes) & RST, 0);
}

enum { STREAM = 300000 };

/* Writes the stream as fast as it is taken. */
static void *pour(void *listener)
{
    static uint8_t bytes[STREAM];
    const int fd = accept(*(const int *)listener, NULL, NULL);
    size_t done = 0;

    for (size_t i = 0; i < STREAM; i++) {
        bytes[i] = byte_of(i);
    }
    while (done < STREAM) {
        const ssize_t now = write(fd, bytes + done, STREAM - done);

        if (now <= 0) {
            break;
        }
        done += (size_t)now;
    }
    close(fd);
    return NULL;
}

/* With few buffers, and a guest that stands still now and then: frames wait, and none is lost. */
Test(net_user, a_stream_waits_for_a_slow_guest)
{
    size_t received = 0;
    uint16_t port;
    int listener = serve_on(SOCK_STREAM, &port);
    struct connection c;
    pthread_t server;

    net_guest_offer(&guest, 0);
    net_guest_offer(&guest, 1);
    ask_arp(HOST_ADDRESS);
    expect_arp(HOST_ADDRESS);
    cr_assert_eq(pthread_create(&server, NULL, pour, &listener), 0);
    c = connect_to(port, 6000);
    for (uint32_t i = 1; received < STREAM; i++) {
        virtio_net_quiesce(&guest.net);
        ask_arp(NAME_SERVER); /* whose answer waits with the rest */
        virtio_net_resume(&guest.net);
        expect_stream(&c, &received, received + 10000 < STREAM ? received + 10000 : STREAM);
    }
    pthread_join(server, NULL);
    close(listener);
    cr_assert_eq(counts().received.dropped_frames, 0);
}

/* --- Bounds ------------------------------------------------------------------------------------------------------- */

/* Answers that nobody takes. */
Test(net_user, frames_for_the_guest_are_kept_up_to_a_bound)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    uint32_t taken = 0;
    size_t bytes;

    while (counts().received.dropped_frames < 10) {
        ask_arp(HOST_ADDRESS);
    }
    offer(&guest, 8);
    while (taken < NET_USER_QUEUE_FRAMES) {
        net_guest_await(&guest, frame, &bytes);
        cr_assert_eq(get_16(frame + 12), 0x0806);
        taken++;
    }
    ask_arp(NAME_SERVER);
    while (await_arp() != NAME_SERVER) {
    }
}

static bool send_datagram_from(uint16_t port, uint16_t to_port)
{
    const uint64_t dropped = counts().sent.dropped_frames;
    uint8_t frame[FRAME_MAX];

    net_guest_send(&guest, frame, make_udp(frame, port, HOST_ADDRESS, to_port, "x", 1));
    return counts().sent.dropped_frames == dropped;
}

/* Each datagram comes from another port, and costs a socket until it is old. */
Test(net_user, sockets_are_bounded)
{
    uint16_t port;
    const int server = serve_on(SOCK_DGRAM, &port);
    uint32_t refused = 0;
    unsigned before;

    join_network();
    before = descriptor_count();
    for (uint32_t i = 0; i < 2000; i++) {
        refused += !send_datagram_from((uint16_t)(10000 + i), port);
        if (i % 64 == 0) {
            ask_arp(HOST_ADDRESS); /* known flows go through: what was sent before has been looked at */
            expect_arp(HOST_ADDRESS);
        }
    }
    cr_assert_geq(refused, 2000 - NET_USER_SOCKET_MAX - NET_USER_QUEUE_FRAMES);
    cr_assert_leq(descriptor_count(), before + NET_USER_SOCKET_MAX + NET_USER_QUEUE_FRAMES);
    cr_assert_geq(descriptor_count(), before + NET_USER_SOCKET_MAX);
    atomic_fetch_add(&ahead_seconds, 600);
    do { /* the stack looks at the clock at the end of a turn, and at its sockets in the next one */
        ask_arp(HOST_ADDRESS);
        expect_arp(HOST_ADDRESS);
    } while (!send_datagram_from(9999, port));
    close(server);
}

/* Each of them, alone, and a last one that comes first above all. */
Test(net_user, fragments_are_dropped)
{
    static const uint16_t fields[] = {0x2000, 0x0001, 0x0041, 0x2001, 0x8000};
    uint8_t frame[FRAME_MAX] = {0}, *ip = frame + ETHERNET;

    join_network();
    for (uint32_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const size_t bytes = make_ipv4(frame, PROTOCOL_UDP, GUEST_ADDRESS, HOST_ADDRESS, 1400);

        put_16(ip + 6, fields[i]);
        put_16(ip + 10, 0);
        put_16(ip + 10, ~sum(0, ip, IPV4));
        net_guest_send(&guest, frame, bytes);
        cr_assert_eq(counts().sent.dropped_frames, i + 1);
    }
    ask_arp(HOST_ADDRESS);
    expect_arp(HOST_ADDRESS);
}

/* --- Beginnings and ends ------------------------------------------------------------------------------------------ */

Test(net_user, leaves_nothing_behind)
{
    struct loam_diag diag = {0};
    unsigned before;
    uint16_t port;
    const int server = serve_on(SOCK_DGRAM, &port);

    join_network(); /* so that the thread has begun */
    before = descriptor_count();
    for (uint16_t i = 0; i < 20; i++) {
        for (uint16_t flow = 0; flow < 5; flow++) {
            send_datagram_from((uint16_t)(10000 + flow), port);
        }
        ask_arp(HOST_ADDRESS);
        expect_arp(HOST_ADDRESS);
        cr_assert_geq(descriptor_count(), before + 5);
        net_user_close(user);
        cr_assert_null(guest.net.outside.send);
        cr_assert_eq(net_user_open(&guest.net, &user, &diag), LOAM_OK, "%s", diag.text);
    }
    cr_assert_eq(descriptor_count(), before);
    close(server);
}

Test(net_user, without_a_thread_nothing_is_connected)
{
    struct loam_diag diag = {0};
    unsigned before;

    net_user_close(user);
    before = descriptor_count();
    refusal = EAGAIN;
    cr_assert_eq(net_user_open(&guest.net, &user, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_null(user);
    cr_assert_not_null(strstr(diag.text, "network: a thread is wanted"), "%s", diag.text);
    cr_assert_null(guest.net.outside.send);
    cr_assert_eq(descriptor_count(), before);
}

static void *ask_all_the_time(void *self)
{
    struct net_guest *other = self;
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    size_t bytes;

    for (uint32_t i = 0; i < 300; i++) {
        net_guest_send(other, frame, make_arp(frame, HOST_ADDRESS));
        net_guest_await(other, frame, &bytes);
        cr_assert_eq(get_16(frame + 12), 0x0806);
    }
    return NULL;
}

Test(net_user, two_networks_do_not_meet)
{
    static struct net_guest other;
    struct loam_diag diag = {0};
    struct net_user *other_user;
    pthread_t thread;

    net_guest_init(&other);
    offer(&other, 4);
    offer(&guest, 4);
    cr_assert_eq(net_user_open(&other.net, &other_user, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(pthread_create(&thread, NULL, ask_all_the_time, &other), 0);
    ask_all_the_time(&guest);
    pthread_join(thread, NULL);
    net_user_close(other_user);
    net_guest_destroy(&other);
    cr_assert_eq(counts().received.frames, 300);
}

/* --- Hostile ------------------------------------------------------------------------------------------------------ */

/* A frame that is right but for some bytes, in a network that has no way to anywhere. */
static size_t make_hostile(struct random *random, uint8_t *frame)
{
    const uint32_t kind = random_below(random, 4);
    uint8_t data[1400];
    size_t bytes;

    memset(data, 0, sizeof data);
    if (kind == 0) {
        bytes = make_arp(frame, HOST_ADDRESS + random_below(random, 3));
    } else if (kind == 1) {
        bytes = make_udp(frame, (uint16_t)random_below(random, 100), HOST_ADDRESS + random_below(random, 3),
                         (uint16_t)(random_one_in(random, 2) ? 67 + random_below(random, 3) : random_u64(random)), data,
                         random_below(random, sizeof data));
    } else if (kind == 2) {
        memset(frame + ETHERNET + IPV4, 0, 60);
        frame[ETHERNET + IPV4 + 12] = (uint8_t)random_u64(random);
        frame[ETHERNET + IPV4 + 13] = (uint8_t)random_u64(random);
        bytes = make_ipv4(frame, (uint8_t)(random_one_in(random, 2) ? PROTOCOL_TCP : PROTOCOL_ICMP), GUEST_ADDRESS,
                          HOST_ADDRESS, 20 + random_below(random, 40));
    } else {
        memset(frame, 0, 200);
        put_ethernet(frame, host_mac, 0x86dd);
        frame[ETHERNET] = 0x60;
        frame[ETHERNET + 5] = 80;
        frame[ETHERNET + 6] = (uint8_t)(random_one_in(random, 2) ? 58 : random_one_in(random, 2) ? 6 : 17);
        frame[ETHERNET + 40] = (uint8_t)(128 + random_below(random, 10));
        bytes = ETHERNET + 40 + random_below(random, 100);
    }
    for (uint32_t i = random_below(random, 6); i > 0; i--) {
        frame[12 + random_below(random, 50)] = (uint8_t)random_u64(random);
    }
    if (random_one_in(random, 3)) { /* right in the first place that is looked at */
        put_16(frame + ETHERNET + 10, 0);
        put_16(frame + ETHERNET + 10, ~sum(0, frame + ETHERNET, IPV4));
    }
    return random_one_in(random, 8) ? 14 + random_below(random, (uint32_t)bytes) : bytes;
}

Test(net_user_alone, whatever_the_guest_sends_the_network_goes_on)
{
    enum { SEED = 1027, FRAMES = 20000 };
    struct random random = {SEED};
    uint8_t frame[NET_GUEST_BUFFER_BYTES] = {0};
    struct loam_diag diag = {0};
    size_t bytes;

    net_user_close(user);
    user = NULL;
    if (unshare(CLONE_NEWNET) != 0) {
        cr_skip("a network of its own is not to be had (CAP_SYS_ADMIN): %s", strerror(errno));
    }
    cr_assert_eq(net_user_open(&guest.net, &user, &diag), LOAM_OK, "%s", diag.text);
    offer(&guest, 8);
    for (uint32_t i = 0; i < FRAMES; i++) {
        bytes = make_hostile(&random, frame);
        net_guest_send(&guest, frame, bytes);
        while (net_guest_take(&guest, frame, &bytes)) {
        }
        if (i % 1000 == 0) {
            atomic_fetch_add(&ahead_seconds, 100);
        }
        if (i % 100 == 0) {
            ask_arp(HOST_ADDRESS);
            while (await_arp() != HOST_ADDRESS) {
            }
        }
    }
    cr_assert_gt(counts().received.frames, FRAMES / 100, "seed %d", SEED);
}
