// SPDX-License-Identifier: Apache-2.0
/* What `loam place` prints: lines for people, one object for programs. */
#ifndef LOAM_LIBVIRT_PLACE_REPORT_H
#define LOAM_LIBVIRT_PLACE_REPORT_H

#include "tools/libvirt/choose.h"
#include "tools/libvirt/launch.h"
#include "tools/libvirt/place_options.h"

#include <jansson.h>
#include <stdio.h>

/* What came of one host. */
struct place_row {
    const char *uri;
    bool answered;
    char silence[512]; /* why not */
    int64_t milliseconds;
    struct verdict verdict; /* of one that answered */
};

struct place_report {
    const struct place_options *options;
    struct place_row rows[PLACE_HOST_MAX];
    uint32_t best; /* CHOOSE_NONE: nobody */
    char why[256];
    const struct launch *launch; /* NULL: it was not asked for, or nobody can */
};

void place_report_print(FILE *out, const struct place_report *report);

/* A new reference; NULL: no memory. */
json_t *place_report_json(const struct place_report *report, int status);

#endif
