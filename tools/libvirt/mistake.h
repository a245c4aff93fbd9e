// SPDX-License-Identifier: Apache-2.0
/*
 * What is wrong, said as it is said everywhere in Loam: one line on standard error, and for who reads JSON an object too.
 *
 * Threads: the main one.
 */
#ifndef LOAM_LIBVIRT_MISTAKE_H
#define LOAM_LIBVIRT_MISTAKE_H

#include "loam/error.h"

#include <jansson.h>
#include <stdbool.h>

/*
 * From here to mistake_stop_listening: what argp says of the command line when it ends the process goes to standard error
 * as text that is fit to be shown, and if --json is among the words its first line is an object's "error" too.
 */
void mistake_listen(int argc, char *const argv[]);
void mistake_stop_listening(void);

/*
 * "NAME: " and the line on standard error; as_json: an object with "error" and "exit" on standard output, into which what
 * is in object goes as well (the caller's reference becomes this one's; NULL: nothing). Returns status.
 */
LOAM_PRINTF(5, 6)
int mistake_say(const char *name, bool as_json, json_t *object, int status, const char *format, ...);

/* The first thing that main does: standard descriptors that are closed are opened on /dev/null. */
void mistake_open_standard(void);

#endif
