// SPDX-License-Identifier: Apache-2.0
/*
 * The XML of a domain that a libvirt daemon has, by its name.
 *
 * libvirt is loaded (dlopen) when it is asked, and not before: who reads a file needs none installed, and does not wait
 * for the thirty libraries that come with it. The connection is read-only, and the document the one that the next start
 * would take.
 */
#ifndef LOAM_LIBVIRT_DOMAIN_FETCH_H
#define LOAM_LIBVIRT_DOMAIN_FETCH_H

#include "loam/error.h"

/*
 * uri NULL: as virsh (VIRSH_DEFAULT_CONNECT_URI, LIBVIRT_DEFAULT_URI, or what libvirt finds). On success *xml is to be
 * freed by free(3); NULL on failure. LOAM_ERROR_NOT_FOUND: no domain of that name; LOAM_ERROR_NOT_PERMITTED: no
 * libvirt, no connection, or what libvirt says. Takes as long as libvirt does.
 */
LOAM_MUST_USE enum loam_error domain_fetch(const char *uri, const char *name, char **xml, struct loam_diag *diag);

#endif
