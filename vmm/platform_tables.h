// SPDX-License-Identifier: Apache-2.0
/*
 * Where a guest's firmware tables lie: all of them in the legacy window, which is backed, which the E820 map gives as
 * reserved, and which the ledger holds for as long as there is guest memory. So nothing is carved for them and nothing can
 * collide, the E820 map is that of the plan, and whoever scans finds them:
 *
 *     [0xe0000, 0xf0000)   the RSDP, and the other ACPI tables behind it   (ACPI 6.5, section 5.2.5.1)
 *     [0xf0000, 0x100000)  the MP floating pointer, and its table          (MultiProcessor Specification 1.4, chapter 4)
 *
 * The guest may write to them, as to all of the window.
 */
#ifndef LOAM_VMM_PLATFORM_TABLES_H
#define LOAM_VMM_PLATFORM_TABLES_H

#include "loam/error.h"
#include "loam/memory.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stdint.h>

#define PLATFORM_TABLES_ACPI_BASE 0xe0000ul
#define PLATFORM_TABLES_MP_BASE   0xf0000ul
#define PLATFORM_TABLES_END       0x100000ul

struct platform_tables_config {
    uint32_t vcpu_count;
    uint32_t virtio_transports; /* bit n: there is a device at transport n */
    bool without_acpi;          /* the MP table alone; whatever was at the RSDP's place is none any more */
};

/*
 * Write them for a guest that does not run yet. *rsdp is where the RSDP is; 0 without ACPI, and on failure.
 * LOAM_ERROR_EXHAUSTED: there are too many vCPUs for the window. LOAM_ERROR_NOT_FOUND: the window is no memory.
 */
LOAM_MUST_USE enum loam_error platform_tables_write(struct loam_memory *memory,
                                                    const struct platform_tables_config *config, loam_gpa *rsdp,
                                                    struct loam_diag *diag);

#endif
