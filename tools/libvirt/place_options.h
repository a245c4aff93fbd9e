// SPDX-License-Identifier: Apache-2.0
/* The command line of `loam place`, read by argp into a value. */
#ifndef LOAM_LIBVIRT_PLACE_OPTIONS_H
#define LOAM_LIBVIRT_PLACE_OPTIONS_H

#include "tools/libvirt/aside.h"
#include "tools/libvirt/choose.h"

#include <stdbool.h>
#include <stdint.h>

#define PLACE_HOST_MAX ASIDE_MAX

struct place_options {
    struct choose_request request; /* needs_emulator: an emulator was named */
    uint32_t uri_count;
    const char *uris[PLACE_HOST_MAX];
    int64_t timeout_milliseconds;
    bool json;
    bool run;                                               /* name and kernel are there then */
    const char *name, *kernel, *initrd, *append, *emulator; /* NULL: not given */
};

/*
 * Read argv[1..]; argv[0] is "loam place". Strings stay in argv and in the environment. On bad usage the process ends with
 * status 2, after --help with 0.
 */
void place_options_read(int argc, char *argv[], struct place_options *options);

#endif
