// SPDX-License-Identifier: Apache-2.0
#include "vmm/fw_cfg.h"

#define SIGNATURE       UINT64_C(0x554d4551) /* "QEMU" */
#define REVISION        1u                   /* bit 0: selector and data ports; bit 1, DMA, is clear */
#define SELECTOR_OFFSET 0u
#define DATA_OFFSET     1u

void fw_cfg_init(struct fw_cfg *fw_cfg, uint64_t ram_bytes, uint32_t vcpu_count)
{
    *fw_cfg = (struct fw_cfg){
        .ram_bytes = ram_bytes,
        .vcpu_count = (uint16_t)(vcpu_count < UINT16_MAX ? vcpu_count : UINT16_MAX),
    };
}

/* An item is a number, and zeros after it: so are the bytes of a directory without files, and of what is no item. */
static uint64_t item(const struct fw_cfg *fw_cfg)
{
    switch (fw_cfg->key) {
    case FW_CFG_SIGNATURE:
        return SIGNATURE;
    case FW_CFG_ID:
        return REVISION;
    case FW_CFG_RAM_SIZE:
        return fw_cfg->ram_bytes;
    case FW_CFG_NB_CPUS:
    case FW_CFG_MAX_CPUS:
        return fw_cfg->vcpu_count;
    case FW_CFG_FILE_DIRECTORY:
    default:
        return 0;
    }
}

static uint8_t next_byte(struct fw_cfg *fw_cfg)
{
    if (fw_cfg->offset == FW_CFG_ITEM_BYTES_MAX) {
        return 0;
    }
    return (uint8_t)(item(fw_cfg) >> 8 * fw_cfg->offset++);
}

void fw_cfg_access(void *self, struct bus_access *access)
{
    struct fw_cfg *fw_cfg = self;

    if (access->is_write && access->offset == SELECTOR_OFFSET && access->bytes == 2) {
        fw_cfg->key = (uint16_t)access->value;
        fw_cfg->offset = 0;
    } else if (!access->is_write) {
        access->value = access->offset == DATA_OFFSET ? next_byte(fw_cfg) : 0;
    }
}
