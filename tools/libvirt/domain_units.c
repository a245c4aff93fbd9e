// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/domain_units.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define NUMBER_MAX 63u /* of a set */

bool domain_units_scale(const char *unit, uint64_t *bytes)
{
    static const char prefixes[] = "kmgtpe";
    const char *prefix;
    uint64_t base;

    *bytes = 1;
    if (strcasecmp(unit, "b") == 0 || strcasecmp(unit, "byte") == 0 || strcasecmp(unit, "bytes") == 0) {
        return true;
    }
    prefix = *unit != '\0' ? strchr(prefixes, tolower((unsigned char)*unit)) : NULL;
    base = prefix == NULL                                       ? 0
           : unit[1] == '\0' || strcasecmp(unit + 1, "iB") == 0 ? 1024
           : strcasecmp(unit + 1, "B") == 0                     ? 1000
                                                                : 0;
    for (const char *at = prefixes; base != 0 && at <= prefix; at++) {
        *bytes *= base;
    }
    *bytes = base != 0 ? *bytes : 0;
    return base != 0;
}

bool domain_units_number(const char *text, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;

    *number = 0;
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value)) {
            return false;
        }
    }
    *number = value <= most ? value : 0;
    return value <= most;
}

static bool read_number(const char **text, uint32_t *number)
{
    const char *at = *text;

    for (*number = 0; *at >= '0' && *at <= '9' && *number <= NUMBER_MAX; at++) {
        *number = *number * 10 + (uint32_t)(*at - '0');
    }
    if (at == *text || *number > NUMBER_MAX) {
        return false;
    }
    *text = at;
    return true;
}

/* "5", "0-3" or "^2", which is added to the set or taken from it. */
static bool read_range(const char **text, uint64_t *mask)
{
    bool takes = **text == '^';
    uint32_t first, last;
    uint64_t bits;

    *text += takes;
    if (!read_number(text, &first)) {
        return false;
    }
    last = first;
    if (**text == '-' && !takes) {
        ++*text;
        if (!read_number(text, &last) || last < first) {
            return false;
        }
    }
    bits = UINT64_MAX << first & UINT64_MAX >> (NUMBER_MAX - last);
    *mask = takes ? *mask & ~bits : *mask | bits;
    return true;
}

bool domain_units_set(const char *text, uint64_t *mask)
{
    uint64_t found = 0;

    *mask = 0;
    for (;; text++) {
        if (!read_range(&text, &found)) {
            return false;
        }
        if (*text != ',') {
            break;
        }
    }
    if (*text != '\0') {
        return false;
    }
    *mask = found;
    return found != 0;
}
