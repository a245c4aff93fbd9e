// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/launch.h"

#include "tools/libvirt/connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void undefine(virDomainPtr domain, struct launch *launch)
{
    if (virDomainUndefine(domain) != 0) {
        size_t length = strlen(launch->error);

        snprintf(launch->error + length, sizeof launch->error - length,
                 "; and it stays defined, to be undefined by hand");
    }
}

static void start(virConnectPtr connection, const char *xml, struct launch *launch)
{
    virDomainPtr domain = virDomainDefineXML(connection, xml);

    if (domain == NULL) {
        connection_last_error(launch->error, sizeof launch->error);
        return;
    }
    if (virDomainCreate(domain) != 0) {
        connection_last_error(launch->error, sizeof launch->error);
        undefine(domain, launch);
    } else {
        virDomainGetUUIDString(domain, launch->uuid);
    }
    virDomainFree(domain);
}

void launch_run(virConnectPtr connection, const struct domain_xml_wish *wish, struct launch *launch)
{
    struct loam_diag diag = {0};
    char *xml;

    *launch = (struct launch){0};
    if (domain_xml_write(wish, &xml, &diag) != LOAM_OK) {
        snprintf(launch->error, sizeof launch->error, "%s", diag.text);
        return;
    }
    start(connection, xml, launch);
    free(xml);
}
