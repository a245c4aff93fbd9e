// SPDX-License-Identifier: Apache-2.0
/*
 * Text of others as a JSON string: what is no UTF-8 in it becomes the replacement character, where jansson would give
 * no string at all, and its key would be missing. Threads: any.
 */
#ifndef LOAM_VMM_JSON_TEXT_H
#define LOAM_VMM_JSON_TEXT_H

#include <jansson.h>

/* A new reference; NULL: no memory. */
json_t *json_text(const char *text);

#endif
