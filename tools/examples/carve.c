// SPDX-License-Identifier: Apache-2.0
/* The library in twenty lines: guest RAM on both sides of the hole, and a virtqueue's rings where 32-bit devices reach.
 */
#include "loam/memory.h"

#include <inttypes.h>
#include <stdio.h>

int main(void)
{
    struct loam_memory_request request = {.bytes = 64 * LOAM_MIB, .low_limit_bytes = 32 * LOAM_MIB};
    struct loam_virtqueue_rings rings;
    struct loam_memory *memory = NULL;
    struct loam_diag diag = {0};
    struct loam_plan plan;

    if (loam_plan_make(&request, &plan, &diag) != LOAM_OK || loam_memory_create(&plan, &memory, &diag) != LOAM_OK ||
        loam_dma_alloc_virtqueue(loam_memory_dma(memory), "example rings", 256, loam_gpa_from_u64(LOAM_DMA32_END_BYTES),
                                 &rings, &diag) != LOAM_OK) {
        fprintf(stderr, "carve: %s\n", diag.text);
        loam_memory_destroy(memory);
        return 1;
    }
    printf("%" PRIu64 " MiB of RAM on %s pages\n", plan.request.bytes / LOAM_MIB, loam_pages_name(plan.pages));
    printf("rings of %" PRIu32 " descriptors at GPA %#" PRIx64 ", HVA %p\n", rings.queue_size, rings.descriptors.value,
           rings.buffer.hva);
    loam_memory_destroy(memory);
    return 0;
}
