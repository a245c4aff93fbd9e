// SPDX-License-Identifier: Apache-2.0
/*
 * The other end of a QMP server's socket, as tests hold it: nothing here waits.
 * Threads: one socket is used by one.
 */
#ifndef LOAM_TESTS_VMM_QMP_PEER_H
#define LOAM_TESTS_VMM_QMP_PEER_H

#include <stdbool.h>
#include <stddef.h>

#define QMP_PEER_DESCRIPTOR_MAX 253u /* the kernel's own limit */

/* Send count bytes, with descriptors, which stay the caller's. false: not all of it was taken, and errno is why. */
bool qmp_peer_send(int fd, const char *bytes, size_t count, const int *descriptors, size_t descriptor_count);

/* What has come, up to room - 1 bytes, with a zero byte behind it. Returns the length. */
size_t qmp_peer_receive(int fd, char *text, size_t room);

/* Whether the other side has hung up, and all it said has been received. */
bool qmp_peer_is_hung_up(int fd);

/* Descriptors that this process has open. */
unsigned qmp_peer_count_descriptors(void);

/* A file of memory with this text in it, at its beginning. -1: none could be had. */
int qmp_peer_file(const char *text);

#endif
