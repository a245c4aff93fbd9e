// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/seconds.h"

#include <stdlib.h>

bool seconds_parse(const char *text, int64_t *milliseconds)
{
    char *end;
    double seconds = strtod(text, &end);

    *milliseconds = 0;
    if (end == text || *end != '\0' || !(seconds >= 0.001 && seconds <= SECONDS_MAX)) {
        return false;
    }
    *milliseconds = (int64_t)(seconds * 1000);
    return true;
}
