// SPDX-License-Identifier: Apache-2.0
/* What `loam host` prints: a table for people, one object for programs. */
#ifndef LOAM_LIBVIRT_HOST_REPORT_H
#define LOAM_LIBVIRT_HOST_REPORT_H

#include "tools/libvirt/host_facts.h"
#include "tools/libvirt/reserve.h"

#include <jansson.h>
#include <stdio.h>

void host_report_print(FILE *out, const char *uri, const struct host_facts *facts);

/* A new reference; NULL: no memory. What is not known is null. */
json_t *host_report_json(const char *uri, const struct host_facts *facts);

/* One line for each pool. */
void host_report_print_reserve(FILE *out, const struct reserve_request *request, const struct reserve_outcome *outcome);
json_t *host_report_json_reserve(const struct reserve_request *request, const struct reserve_outcome *outcome);

#endif
