// SPDX-License-Identifier: Apache-2.0
#include "vmm/platform_tables.h"

#include "loam/gpa_map.h"
#include "loam/plan.h"
#include "vmm/acpi.h"
#include "vmm/mp_table.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define ACPI_BYTES_MOST (PLATFORM_TABLES_MP_BASE - PLATFORM_TABLES_ACPI_BASE)
#define MP_BYTES_MOST   (PLATFORM_TABLES_END - PLATFORM_TABLES_MP_BASE)

static_assert(PLATFORM_TABLES_ACPI_BASE >= LOAM_LEGACY_START_BYTES && PLATFORM_TABLES_END <= LOAM_LEGACY_END_BYTES,
              "in the window");

static enum loam_error check_room(const char *what, size_t bytes, size_t room,
                                  const struct platform_tables_config *config, struct loam_diag *diag)
{
    return bytes <= room ? LOAM_OK
                         : loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                                     "%s: %zu bytes for %" PRIu32 " vCPUs, and there is room for %zu: take fewer", what,
                                     bytes, config->vcpu_count, room);
}

/* window: the host's side of [PLATFORM_TABLES_ACPI_BASE, PLATFORM_TABLES_END). */
static enum loam_error write_all(uint8_t *window, const struct platform_tables_config *config, loam_gpa *rsdp,
                                 struct loam_diag *diag)
{
    const struct acpi_config acpi = {.vcpu_count = config->vcpu_count, .virtio_transports = config->virtio_transports};
    loam_gpa start = loam_gpa_from_u64(PLATFORM_TABLES_ACPI_BASE), mp = loam_gpa_from_u64(PLATFORM_TABLES_MP_BASE);
    size_t bytes = mp_table_write(config->vcpu_count, mp, window + ACPI_BYTES_MOST, MP_BYTES_MOST);
    enum loam_error error = check_room("MP table", bytes, MP_BYTES_MOST, config, diag);

    if (error == LOAM_OK && config->without_acpi) {
        memset(window, 0, ACPI_RSDP_BYTES);
    } else if (error == LOAM_OK) {
        bytes = acpi_write(&acpi, start, window, ACPI_BYTES_MOST);
        error = check_room("ACPI tables", bytes, ACPI_BYTES_MOST, config, diag);
        *rsdp = error == LOAM_OK ? start : *rsdp;
    }
    return error;
}

enum loam_error platform_tables_write(struct loam_memory *memory, const struct platform_tables_config *config,
                                      loam_gpa *rsdp, struct loam_diag *diag)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    void *window;
    enum loam_error error =
        loam_gpa_view_translate(view, loam_gpa_from_u64(PLATFORM_TABLES_ACPI_BASE),
                                PLATFORM_TABLES_END - PLATFORM_TABLES_ACPI_BASE, LOAM_ACCESS_WRITE, &window);

    *rsdp = loam_gpa_from_u64(0);
    error = error == LOAM_OK ? write_all(window, config, rsdp, diag)
                             : loam_fail(diag, error, "firmware tables: no memory at [0x%lx, 0x%lx)",
                                         PLATFORM_TABLES_ACPI_BASE, PLATFORM_TABLES_END);
    loam_gpa_map_release(map, view);
    return error;
}
