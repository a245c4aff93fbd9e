// SPDX-License-Identifier: Apache-2.0
/*
 * An I/O APIC (Intel 82093AA data sheet, 290566), with the register for ends of interrupts of its successors (ICH9 data sheet,
 * 316972, section 13.5.1.4), and therefore their version: 0x20.
 *
 * It sends nothing: whoever changes it takes the messages that are due then, and sends them to the local APICs.
 *
 *     ioapic_set_line, ioapic_write or ioapic_end -> { ioapic_take -> send } ... until nothing is due
 *
 * A line is asserted or not. Which voltage that is, the polarity in its entry says, and is kept and has no effect:
 * whatever a guest was told of a line, it hears of it when the device asserts it. An edge is the begin of an assertion; one that
 * comes while its entry is masked is lost, as on the chip.
 *
 * What is not modelled: interrupts of an 8259A that come through an entry (ExtINT). KVM has its local APICs take them from
 * LINT0 alone.
 *
 * The state is plain, and no number in it leads outside it. Threads: the caller's lock; pure but for *ioapic.
 */
#ifndef LOAM_VMM_IOAPIC_H
#define LOAM_VMM_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#define IOAPIC_BASE    UINT64_C(0xfec00000)
#define IOAPIC_BYTES   0x100u
#define IOAPIC_PINS    24u
#define IOAPIC_VERSION 0x20u

/* Offsets of registers, each of 32 bits; at all others there is nothing. */
#define IOAPIC_SELECT 0x00u
#define IOAPIC_WINDOW 0x10u
#define IOAPIC_END    0x40u

struct ioapic {
    uint32_t id;      /* as in its register: bits 24 to 27 */
    uint32_t lines;   /* that are asserted */
    uint32_t edges;   /* that are due */
    uint8_t selected; /* register behind the window */
    uint64_t entries[IOAPIC_PINS];
};

#define IOAPIC_MESSAGE_LEVEL (UINT32_C(1) << 15) /* in a message's data */

/* As a device would write it to send an MSI (Intel SDM volume 3A, section 11.11), level and trigger mode included. */
struct ioapic_message {
    unsigned int pin;
    bool is_level; /* the local APIC's EOI is to be handed to ioapic_end */
    uint32_t address;
    uint32_t data;
};

/* Every entry is masked. */
void ioapic_reset(struct ioapic *ioapic);

/* No effect beyond IOAPIC_PINS. */
void ioapic_set_line(struct ioapic *ioapic, unsigned int pin, bool is_asserted);

/* A local APIC has ended vector, which it took as a level. */
void ioapic_end(struct ioapic *ioapic, uint8_t vector);

/* The next message that is due counts as sent from now on; false: none is. */
bool ioapic_take(struct ioapic *ioapic, struct ioapic_message *message);

/* What a pin's message is, whether it is due or not. pin < IOAPIC_PINS. */
struct ioapic_message ioapic_message(const struct ioapic *ioapic, unsigned int pin);

/* Whether an edge of pin would be sent. */
bool ioapic_is_open(const struct ioapic *ioapic, unsigned int pin);

/* Whether no pin, once asserted, sends more than an interrupt, which a processor takes only while it lets interrupts. */
bool ioapic_is_quiet(const struct ioapic *ioapic);

/* Registers at offset. */
uint32_t ioapic_read(const struct ioapic *ioapic, uint64_t offset);
void ioapic_write(struct ioapic *ioapic, uint64_t offset, uint32_t value);

#endif
