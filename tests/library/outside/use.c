// SPDX-License-Identifier: Apache-2.0
#include "loam/memory.h"
#include "loam/version.h"

#include <stdio.h>

int main(void)
{
    struct loam_memory_request request = {.bytes = 2 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    struct loam_memory *memory = NULL;
    struct loam_diag diag = {0};
    struct loam_plan plan;

    if (loam_plan_make(&request, &plan, &diag) != LOAM_OK || loam_memory_create(&plan, &memory, &diag) != LOAM_OK) {
        fprintf(stderr, "use: %s\n", diag.text);
        return 1;
    }
    printf("2 MiB by loam %s\n", loam_version());
    loam_memory_destroy(memory);
    return 0;
}
