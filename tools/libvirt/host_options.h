// SPDX-License-Identifier: Apache-2.0
/* The command line of `loam host`, read by argp into a value. */
#ifndef LOAM_LIBVIRT_HOST_OPTIONS_H
#define LOAM_LIBVIRT_HOST_OPTIONS_H

#include "tools/libvirt/reserve.h"

#include <stdbool.h>
#include <stdint.h>

struct host_options {
    const char *uri;
    const char *emulator; /* NULL: not named */
    bool json;
    bool reserve;                   /* the command: */
    struct reserve_request request; /* with uri */
    int64_t timeout_milliseconds;
};

/*
 * Read argv[1..]; argv[0] is "loam host". Strings stay in argv and in the environment. On bad usage the process ends with
 * status 2, after --help with 0.
 */
void host_options_read(int argc, char *argv[], struct host_options *options);

#endif
