// SPDX-License-Identifier: Apache-2.0
/*
 * The firmware configuration device of QEMU (QEMU: docs/specs/fw_cfg.rst), as much as a guest without firmware asks it:
 * how many processors there are, and how much RAM.
 *
 *     0x510  2 bytes  written: the key of an item, which is read from its first byte on
 *     0x511  1 byte   read: the item's next byte; zeros after its last, and of a key that is no item
 *
 * Items: the signature "QEMU", the revision (1: this interface and no more), RAM in bytes, processors, their greatest
 * number, and a directory of no files. Absent: access by DMA, files, and whatever else QEMU has.
 *
 * Threads: fw_cfg_access comes from the bus, one at a time.
 */
#ifndef LOAM_VMM_FW_CFG_H
#define LOAM_VMM_FW_CFG_H

#include "vmm/bus.h"

#include <stdint.h>

#define FW_CFG_PORT  0x510u
#define FW_CFG_BYTES 2u

#define FW_CFG_ITEM_BYTES_MAX 8u

/* Keys. */
#define FW_CFG_SIGNATURE      0x00u /* 4 bytes */
#define FW_CFG_ID             0x01u /* 4 bytes, as all numbers but the directory's with the lowest byte first */
#define FW_CFG_RAM_SIZE       0x03u /* 8 bytes */
#define FW_CFG_NB_CPUS        0x05u /* 2 bytes */
#define FW_CFG_MAX_CPUS       0x0fu /* 2 bytes */
#define FW_CFG_FILE_DIRECTORY 0x19u /* 4 bytes: how many files there are */

struct fw_cfg {
    uint64_t ram_bytes;
    uint16_t vcpu_count;
    uint16_t key;
    uint32_t offset; /* of the next byte; no further than the largest item */
};

/* There is nothing to destroy. */
void fw_cfg_init(struct fw_cfg *fw_cfg, uint64_t ram_bytes, uint32_t vcpu_count);

/* A bus_access_fn for FW_CFG_BYTES ports. */
void fw_cfg_access(void *fw_cfg, struct bus_access *access);

#endif
