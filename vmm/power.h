// SPDX-License-Identifier: Apache-2.0
/*
 * ACPI's fixed hardware (ACPI 6.5, section 4.8.3), as much of it as there is: a power button, and the way into S5. The
 * FADT tells of it (acpi.h).
 *
 *     0x600  PM1_STS  2 bytes  bit 8 PWRBTN_STS: the button was pressed; a 1 clears it
 *     0x602  PM1_EN   2 bytes  bit 8 PWRBTN_EN: the SCI is raised while both are set
 *     0x604  PM1_CNT  2 bytes  bit 0 SCI_EN: 1, for there is no other mode; bits 10 to 12 SLP_TYP; bit 13 SLP_EN
 *     0x606  reserved, so that accesses of 4 bytes to PM1_CNT find their place
 *     0x608  SLEEP_CONTROL_REG  1 byte  bits 2 to 4 SLP_TYP; bit 5 SLP_EN
 *     0x60c  SLEEP_STATUS_REG   1 byte  bit 7 WAK_STS: 0, for the machine never wakes
 *
 * S5 is SLP_TYP 0, as in QEMU's machines of PCs: 0x2000 written to PM1_CNT turns the machine off, and so does 0x20 written to
 * SLEEP_CONTROL_REG; \_S5 is {0, 0, 0, 0}.
 * There is no other sleeping state: SLP_EN with another type does nothing.
 *
 * Accesses are of any size and place, as the processor makes them; each byte is its register's.
 *
 * Threads: power_access comes from the bus, power_press from any. The interrupt line is set under the device's own lock.
 */
#ifndef LOAM_VMM_POWER_H
#define LOAM_VMM_POWER_H

#include "loam/error.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/state.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define POWER_BYTES                16u
#define POWER_EVENT_BYTES          4u  /* FADT: PM1_EVT_LEN, at the first port */
#define POWER_CONTROL_OFFSET       4u  /* FADT: PM1a_CNT_BLK */
#define POWER_CONTROL_BYTES        2u  /* FADT: PM1_CNT_LEN */
#define POWER_SLEEP_CONTROL_OFFSET 8u  /* FADT: SLEEP_CONTROL_REG */
#define POWER_SLEEP_STATUS_OFFSET  12u /* FADT: SLEEP_STATUS_REG */
#define POWER_SLEEP_TYPE_OFF       0u  /* \_S5 */
#define POWER_BUTTON               (1u << 8)
#define POWER_SCI_ENABLED          (1u << 0)
#define POWER_SLEEP_TYPE_BIT       10u
#define POWER_SLEEP_TYPE_MASK      (7u << POWER_SLEEP_TYPE_BIT)
#define POWER_SLEEP                (1u << 13)

/* In SLEEP_CONTROL_REG. */
#define POWER_REDUCED_TYPE_MASK (7u << 2)
#define POWER_REDUCED_SLEEP     (1u << 5)

/* The line is high if and only if status & enable != 0. */
struct power {
    pthread_mutex_t lock;
    struct irq_line irq;
    uint16_t status;
    uint16_t enable;
    uint16_t sleep_type;  /* within POWER_SLEEP_TYPE_MASK */
    uint8_t reduced_type; /* within POWER_REDUCED_TYPE_MASK */
    bool is_high;
    void (*off)(void *self);
    void *self;
};

/* off: the guest enters S5; from within an access, with no lock of the device held. */
void power_init(struct power *power, struct irq_line irq, void (*off)(void *self), void *self);
void power_destroy(struct power *power);

/* A bus_access_fn for POWER_BYTES. */
void power_access(void *power, struct bus_access *access);

/* Returns whether the guest is told: PWRBTN_EN is set. */
bool power_press(struct power *power);

/* Written down, and read again: state.h. While no vCPU runs; loading is for one that was just made. Errors as state_take_fields. */
void power_save(struct power *power, struct state_writer *writer);
LOAM_MUST_USE enum loam_error power_load(struct power *power, struct state_reader *reader, struct loam_diag *diag);

#endif
