// SPDX-License-Identifier: Apache-2.0
/*
 * A domain defined and started through a host's libvirtd. Calls libvirt: see connection.h.
 *
 * It is persistent: it can be started again once it has ended, until somebody undefines it. One that does not start is
 * undefined at once, so that a failure leaves nothing.
 */
#ifndef LOAM_LIBVIRT_LAUNCH_H
#define LOAM_LIBVIRT_LAUNCH_H

#include "tools/libvirt/domain_xml.h"

#include <libvirt/libvirt.h>

/* What came of it; without a pointer, as aside.h wants it. */
struct launch {
    char error[512]; /* libvirt's line; "": it runs */
    char uuid[VIR_UUID_STRING_BUFLEN];
};

void launch_run(virConnectPtr connection, const struct domain_xml_wish *wish, struct launch *launch);

#endif
