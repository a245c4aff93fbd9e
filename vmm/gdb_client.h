// SPDX-License-Identifier: Apache-2.0
/*
 * One debugger's connection: packets in and out, with their acknowledgements. Nothing grows, whatever it sends, and nobody waits
 * for it but who speaks to it.
 *
 *     gdb_client_init -> [fd readable] gdb_client_receive, gdb_client_next ... , gdb_client_say -> gdb_client_end
 *
 * Threads: one at a time.
 */
#ifndef LOAM_VMM_GDB_CLIENT_H
#define LOAM_VMM_GDB_CLIENT_H

#include "vmm/gdb_packet.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_CLIENT_CHUNK_BYTES 4096u

struct gdb_client {
    int fd;      /* its own; -1: none */
    int stop_fd; /* readable when it is not to be waited for any more */
    bool has_no_ack;
    bool is_gone; /* nothing can be sent to it any more */
    struct gdb_reader reader;
    uint8_t chunk[GDB_CLIENT_CHUNK_BYTES];
    size_t chunk_at, chunk_bytes;
    char sent[GDB_PACKET_SENT_BYTES_MAX]; /* last, to be sent again if it asks for it */
    size_t sent_bytes;
};

/* fd, a connected socket that does not block, becomes the client's; stop_fd stays the caller's. */
void gdb_client_init(struct gdb_client *client, int fd, int stop_fd);

/* No effect on one that has ended. */
void gdb_client_end(struct gdb_client *client);

/* Take what has come; what came before is used up. false: it has hung up. */
bool gdb_client_receive(struct gdb_client *client);

/*
 * The next of what has come: GDB_HEARD_PACKET, which is acknowledged and lies in reader; GDB_HEARD_INTERRUPT; GDB_HEARD_NOTHING: all
 * is used up; GDB_HEARD_JUNK or GDB_HEARD_TOO_LONG: it does not keep to the protocol, and is to be left. Acknowledgements, and packets
 * that were damaged on their way, are dealt with here.
 */
enum gdb_heard gdb_client_next(struct gdb_client *client);

/* Send a packet. Waits for a client that does not read, until stop_fd is readable. */
void gdb_client_say(struct gdb_client *client, const char *text, size_t count);

#endif
