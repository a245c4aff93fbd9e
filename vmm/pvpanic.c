// SPDX-License-Identifier: Apache-2.0
#include "vmm/pvpanic.h"

void pvpanic_init(struct pvpanic *pvpanic, void (*panicked)(void *self, uint8_t events), void *self)
{
    *pvpanic = (struct pvpanic){.panicked = panicked, .self = self};
}

void pvpanic_access(void *self, struct bus_access *access)
{
    struct pvpanic *pvpanic = self;

    if (!access->is_write) {
        access->value = PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
    } else if ((access->value & PVPANIC_PANICKED) != 0) {
        pvpanic->panicked(pvpanic->self, (uint8_t)access->value);
    }
}
