// SPDX-License-Identifier: Apache-2.0
/*
 * The other end of the guest's serial line: a terminal of the host's (pty), a file, a UNIX socket, this process's standard
 * descriptors, or nothing; and a log beside it.
 *
 *     chardev_open -> [poll, with what chardev_poll names] -> chardev_turn ... -> chardev_close
 *
 * Nobody who writes waits, but in chardev_pace. Terminals and sockets have readers who come and go. While there is none,
 * and while one does not read for CHARDEV_STALL_MILLISECONDS, the guest goes on, and the latest CHARDEV_HIGH_BYTES are kept
 * for who reads next. A file that takes no more is said on standard error, once.
 *
 * Threads: chardev_write and chardev_pace from any; all else from one, the owner's.
 */
#ifndef LOAM_VMM_EMULATOR_CHARDEV_H
#define LOAM_VMM_EMULATOR_CHARDEV_H

#include "loam/error.h"
#include "vmm/emulator/line.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHARDEV_HIGH_BYTES         (64u << 10) /* more is waiting than a writer that can wait should add to */
#define CHARDEV_STALL_MILLISECONDS 1000        /* so long without a byte read, and a reader counts as gone */
#define CHARDEV_POLL_MAX           3u

/* Opaque. */
struct chardev;

/*
 * Open what line asks for; its strings outlive the chardev. A terminal is raw, so that nothing that the guest writes comes
 * back to it. An inherited socket is the chardev's from here on, also on failure; of a file's descriptor it takes a copy.
 * LOAM_ERROR_SYSTEM, LOAM_ERROR_INVALID: diag names id and path, and there is nothing.
 */
LOAM_MUST_USE enum loam_error chardev_open(const struct line_chardev *line, struct chardev **chardev,
                                           struct loam_diag *diag);

/* What can be written without waiting is. NULL is allowed. */
void chardev_close(struct chardev *chardev);

/* A socket that listens where line says: at its path, or at its descriptor as it is. *fd is the caller's; -1 on failure. */
LOAM_MUST_USE enum loam_error chardev_listen(const struct line_chardev *line, int *fd, struct loam_diag *diag);

/* As QEMU's query-chardev calls it: "pty:/dev/pts/3", "file", "unix:/run/x,server=on", "stdio", "null". */
const char *chardev_filename(const struct chardev *chardev);

/* count bytes for whoever reads. Never waits. */
void chardev_write(struct chardev *chardev, const uint8_t *bytes, size_t count);

/* Wait until no more than CHARDEV_HIGH_BYTES wait, or nobody reads, or stop_fd is readable. Holds no lock. */
void chardev_pace(struct chardev *chardev, int stop_fd);

/* Where bytes go that have come from the other end; returns how many it took. */
typedef size_t chardev_sink_fn(void *self, const uint8_t *bytes, size_t count);

/*
 * What to wait for before the next chardev_turn: fds receives up to CHARDEV_POLL_MAX descriptors with their events, and
 * *timeout_milliseconds is lowered where it is longer than this may wait (-1: for ever). takes_input: whether somebody
 * wants what comes in. Returns how many.
 */
size_t chardev_poll(struct chardev *chardev, struct pollfd fds[CHARDEV_POLL_MAX], bool takes_input,
                    int *timeout_milliseconds);

/* Do what there is to do, without waiting: connect, read, hand to sink (NULL: nobody wants it), write. */
void chardev_turn(struct chardev *chardev, chardev_sink_fn *sink, void *self);

#endif
