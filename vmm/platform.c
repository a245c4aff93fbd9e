// SPDX-License-Identifier: Apache-2.0
#include "vmm/platform.h"

#include <inttypes.h>

void platform_init(struct platform *platform, const struct platform_config *config)
{
    const struct loam_plan *plan = config->plan;
    struct cmos_config cmos = {.vcpu_count = config->vcpu_count};

    for (uint32_t i = 0; i < plan->part_count; i++) {
        bool is_low = plan->parts[i].start.value < plan->hole_start.value;

        *(is_low ? &cmos.low_bytes : &cmos.high_bytes) += plan->parts[i].bytes;
    }
    cmos_init(&platform->cmos, &cmos);
    fw_cfg_init(&platform->fw_cfg, cmos.low_bytes + cmos.high_bytes, config->vcpu_count);
    i8042_init(&platform->i8042, config->reset, config->self);
    debug_console_init(&platform->debug_console, config->output, config->self);
}

enum loam_error platform_add(struct platform *platform, struct bus *bus, struct loam_diag *diag)
{
    const struct bus_device devices[] = {
        {"i8042 data", BUS_PIO, I8042_DATA_PORT, 1, i8042_data_access, &platform->i8042},
        {"i8042", BUS_PIO, I8042_STATUS_PORT, 1, i8042_status_access, &platform->i8042},
        {"cmos", BUS_PIO, CMOS_PORT, CMOS_BYTES, cmos_access, &platform->cmos},
        {"debug console", BUS_PIO, DEBUG_CONSOLE_PORT, 1, debug_console_access, &platform->debug_console},
        {"fw_cfg", BUS_PIO, FW_CFG_PORT, FW_CFG_BYTES, fw_cfg_access, &platform->fw_cfg},
    };

    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        enum loam_error error = bus_add(bus, &devices[i]);

        if (error != LOAM_OK) {
            return loam_fail(diag, error, "bus: no place for %s at 0x%" PRIx64, devices[i].name, devices[i].base);
        }
    }
    return LOAM_OK;
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

/* Seconds of a clock that is right: a thousand years and more. */
#define SECOND_MAX (UINT64_C(1) << 36)

static const struct state_field fields[] = {
    STATE_FIELD(struct platform, cmos.index, CMOS_REGISTER_COUNT - 1),
    STATE_ARRAY(struct platform, cmos.registers, UINT64_MAX),
    STATE_FIELD(struct platform, cmos.kept_second, SECOND_MAX),
    STATE_FIELD(struct platform, cmos.told_second, SECOND_MAX),
    STATE_ANY(struct platform, fw_cfg.key),
    STATE_FIELD(struct platform, fw_cfg.offset, FW_CFG_ITEM_BYTES_MAX),
    STATE_BOOL(struct platform, i8042.awaits_output_port),
};

void platform_save(struct platform *platform, struct state_writer *writer)
{
    state_begin(writer, STATE_PLATFORM, 0);
    state_put_fields(writer, STATE_FIELDS(fields), platform);
    state_end(writer);
}

enum loam_error platform_load(struct platform *platform, struct state_reader *reader, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_PLATFORM, 0, &record, diag);

    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(fields), platform, diag);
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}
