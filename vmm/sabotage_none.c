// SPDX-License-Identifier: Apache-2.0
#include "vmm/sabotage.h"

bool sabotage_available(void)
{
    return false;
}

bool sabotage_select(const char *name)
{
    (void)name;
    return false;
}

void sabotage_strike(enum sabotage_point point, struct loam_memory *memory, struct loam_abi_table *table)
{
    (void)point;
    (void)memory;
    (void)table;
}

void sabotage_end(void)
{
}
