// SPDX-License-Identifier: Apache-2.0
/*
 * One client of the QMP server: its socket, the texts that come in, the descriptors that came with them, and what goes
 * out and waits until the socket takes it. Nothing here waits, and nothing grows beyond qmp_limits.h.
 *
 *     qmp_client_init -> [socket readable] qmp_client_receive, (qmp_client_next, qmp_client_done) ... -> qmp_client_end
 *                        [something to say] qmp_client_say, qmp_client_flush
 *
 * Threads: what comes in and what goes out are two halves that share nothing but fd: qmp_client_say and
 * qmp_client_flush may run beside the others, and need a lock among themselves.
 */
#ifndef LOAM_VMM_QMP_CLIENT_H
#define LOAM_VMM_QMP_CLIENT_H

#include "vmm/qmp_descriptors.h"
#include "vmm/qmp_split.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes taken at once: what one client can have done before the others get their turn. */
#define QMP_CLIENT_CHUNK_BYTES 4096u

struct qmp_client {
    int fd; /* its own */

    /* In. */
    struct qmp_split split; /* whose text is the one that qmp_client_next has found */
    char chunk[QMP_CLIENT_CHUNK_BYTES];
    size_t chunk_bytes, chunk_at;
    uint64_t taken_bytes; /* of the stream, up to chunk_at */
    struct qmp_descriptors descriptors;

    /* Out. */
    char *waiting; /* a ring */
    size_t waiting_at, waiting_bytes, waiting_room;
};

/* fd, a connected stream socket, becomes the client's. */
void qmp_client_init(struct qmp_client *client, int fd);

/* Close all there is. */
void qmp_client_end(struct qmp_client *client);

/* Take what has come, up to a chunk; the one before has been used up. false: it has hung up. */
bool qmp_client_receive(struct qmp_client *client);

/* The next text of the chunk, or why there is none; never QMP_SPLIT_PASSED. */
enum qmp_split_found qmp_client_next(struct qmp_client *client);

/* What was found has been dealt with: close the descriptors that came with it. If it was nonsense, pass over its line. */
void qmp_client_done(struct qmp_client *client, bool was_nonsense);

/* Keep count bytes for it. false: they would be more than QMP_WAITING_BYTES_MAX, or there is no memory for them. */
bool qmp_client_say(struct qmp_client *client, const char *bytes, size_t count);

/* Send what the socket takes. false: it takes nothing any more. */
bool qmp_client_flush(struct qmp_client *client);

#endif
