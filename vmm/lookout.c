// SPDX-License-Identifier: Apache-2.0
#include "vmm/lookout.h"

static int twice(int milliseconds)
{
    return milliseconds > LOOKOUT_MAX_MILLISECONDS / 2 ? LOOKOUT_MAX_MILLISECONDS : 2 * milliseconds;
}

bool lookout_is_due(const struct lookout *lookout, int64_t now_milliseconds)
{
    return now_milliseconds >= lookout->next_milliseconds;
}

bool lookout_turn(struct lookout *lookout, int64_t now_milliseconds, uint64_t taken_nanoseconds)
{
    uint64_t taken = taken_nanoseconds - lookout->taken_nanoseconds;
    bool is_asleep = taken == 0 && lookout->wait_milliseconds > 0;

    lookout->taken_nanoseconds = taken_nanoseconds;
    if (lookout->wait_milliseconds == 0 || taken > LOOKOUT_RUN_NANOSECONDS) {
        lookout->wait_milliseconds = LOOKOUT_MIN_MILLISECONDS;
    } else if (is_asleep) {
        lookout->wait_milliseconds = twice(lookout->wait_milliseconds);
    }
    lookout->next_milliseconds = now_milliseconds + lookout->wait_milliseconds;
    return is_asleep;
}

int lookout_wait_milliseconds(const struct lookout *lookout, int64_t now_milliseconds)
{
    int64_t left = lookout->next_milliseconds - now_milliseconds;

    return left < 0 ? 0 : left < lookout->wait_milliseconds ? (int)left : lookout->wait_milliseconds;
}
