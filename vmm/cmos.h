// SPDX-License-Identifier: Apache-2.0
/*
 * The real-time clock of a PC and the bytes beside it that firmware leaves (Motorola MC146818A data sheet; ports and
 * places of bytes: IBM Personal System/2 Hardware Interface Technical Reference, and what Bochs and QEMU added to them).
 *
 *     0x70  which register the next access to 0x71 means, in bits 0 to 6; bit 7 (NMI) has no effect; reads all ones
 *     0x71  that register
 *
 * The time is the host's in UTC, as BCD and with 24 hours after a reset; status register B turns it into binary and 12
 * hours. Status register A says for the last 244 us of each second that an update is near, and a guest that sees it
 * clear has so long to read. SET in register B keeps the time as it is meanwhile. UF in register C says that a second
 * began since it was last read.
 *
 * Firmware's bytes: the memory below 640 KiB, below 64 MiB, below the hole and above 4 GiB, and the number of
 * processors but one. The other bytes are memory, and zero at first.
 *
 * Absent: alarms, the periodic interrupt, and every other interrupt of the chip: what is written to enable them reads
 * back, and nothing comes. The time cannot be set: what is written to it is lost.
 *
 * Threads: cmos_access comes from the bus, one at a time.
 */
#ifndef LOAM_VMM_CMOS_H
#define LOAM_VMM_CMOS_H

#include "vmm/bus.h"

#include <stdbool.h>
#include <stdint.h>

#define CMOS_PORT           0x70u
#define CMOS_BYTES          2u
#define CMOS_REGISTER_COUNT 128u
#define CMOS_CENTURY        0x32u /* FADT: CENTURY */

struct cmos_config {
    uint64_t low_bytes;  /* of RAM from 0 up to the hole */
    uint64_t high_bytes; /* of RAM from 4 GiB on */
    uint32_t vcpu_count;
    int64_t (*now)(void); /* nanoseconds since 1970, UTC; NULL: as the host's clock has it */
};

struct cmos {
    int64_t (*now)(void);
    uint8_t index;
    uint8_t registers[CMOS_REGISTER_COUNT]; /* those of the time are made when they are read */
    int64_t kept_second;                    /* with SET: the time that is shown */
    int64_t told_second;                    /* the latest that a read of register C may have told of */
};

/* As firmware leaves it, with no alarm. There is nothing to destroy. */
void cmos_init(struct cmos *cmos, const struct cmos_config *config);

/* A bus_access_fn for CMOS_BYTES ports. An access of 2 bytes is one to each port, in ascending order. */
void cmos_access(void *cmos, struct bus_access *access);

/*
 * What register `number` of the time (0, 2, 4, 6 to 9, CMOS_CENTURY) shows at a second since 1970, under status register
 * B. From 1970 to 9999. Pure.
 */
uint8_t cmos_time_register(uint32_t number, int64_t second, uint8_t status_b);

#endif
