// SPDX-License-Identifier: Apache-2.0
/*
 * A connection to libvirt, which prints nothing and asks nobody for a password.
 *
 * A call to libvirt may wait without end for a daemon that does not answer, so only a process that can be killed makes
 * one: see aside.h.
 */
#ifndef LOAM_LIBVIRT_CONNECTION_H
#define LOAM_LIBVIRT_CONNECTION_H

#include "loam/error.h"

#include <libvirt/libvirt.h>
#include <stdbool.h>
#include <stddef.h>

/* Where virsh connects to as well: LIBVIRT_DEFAULT_URI, or root's daemon for root and the user's own for others. */
const char *connection_default_uri(void);

/*
 * Open uri; close with virConnectClose. is_read_only, unless NULL: to read will do if nothing else is allowed, and whether
 * it has to. NULL: diag has libvirt's own line.
 */
virConnectPtr connection_open(const char *uri, bool *is_read_only, struct loam_diag *diag);

/* What the last call to libvirt of this thread failed for, as one line without a newline. */
void connection_last_error(char *text, size_t room);

/* LOAM_ERROR_NOT_PERMITTED with connection_last_error behind a few words: libvirt refused what they say. */
LOAM_PRINTF(2, 3)
enum loam_error connection_fail(struct loam_diag *diag, const char *format, ...);

#endif
