// SPDX-License-Identifier: Apache-2.0
/* How long to wait, as an option says it. Pure; any thread. */
#ifndef LOAM_LIBVIRT_SECONDS_H
#define LOAM_LIBVIRT_SECONDS_H

#include <stdbool.h>
#include <stdint.h>

#define SECONDS_MAX    86400
#define SECONDS_WANTED "--timeout %s: not a number of seconds from 0.001 to 86400"

/* Milliseconds out of a number of seconds such as 2.5. false: none, or beyond a millisecond to a day. */
bool seconds_parse(const char *text, int64_t *milliseconds);

#endif
