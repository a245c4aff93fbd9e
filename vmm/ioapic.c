// SPDX-License-Identifier: Apache-2.0
/* An entry of a level is sent once, and REMOTE_IRR stands until it has been ended: then again, if it is asserted still. */
#include "vmm/ioapic.h"

#include <stddef.h>

/* Registers behind the window. */
#define REGISTER_ID          0x00u
#define REGISTER_VERSION     0x01u
#define REGISTER_ARBITRATION 0x02u
#define REGISTER_ENTRIES     0x10u /* two for each pin: low half, high half */

#define ID_MASK             0x0f000000u
#define VERSION_ENTRIES_BIT 16u

/* An entry of the redirection table. */
#define ENTRY_VECTOR          UINT64_C(0xff)
#define ENTRY_DELIVERY_BIT    8u
#define ENTRY_DELIVERY_MASK   7u
#define ENTRY_LOGICAL         (UINT64_C(1) << 11)
#define ENTRY_REMOTE_IRR      (UINT64_C(1) << 14)
#define ENTRY_LEVEL           (UINT64_C(1) << 15)
#define ENTRY_MASKED          (UINT64_C(1) << 16)
#define ENTRY_DESTINATION_BIT 56u
#define ENTRY_WRITABLE        UINT64_C(0xff0000000001afff) /* all but delivery status and remote IRR */

#define DELIVERY_SMI  2u
#define DELIVERY_NMI  4u
#define DELIVERY_INIT 5u

/* A message's address and data. */
#define MESSAGE_ADDRESS         0xfee00000u
#define MESSAGE_DESTINATION_BIT 12u
#define MESSAGE_LOGICAL         (1u << 2)
#define MESSAGE_ASSERTED        (1u << 14)

static uint32_t bit(unsigned int pin)
{
    return UINT32_C(1) << pin;
}

static unsigned int delivery(uint64_t entry)
{
    return (unsigned int)(entry >> ENTRY_DELIVERY_BIT) & ENTRY_DELIVERY_MASK;
}

/* Fixed, lowest priority, SMI, NMI and INIT. */
static bool is_sent(uint64_t entry)
{
    unsigned int mode = delivery(entry);

    return mode <= DELIVERY_SMI || mode == DELIVERY_NMI || mode == DELIVERY_INIT;
}

/* All modes but the first two are edges, whatever the entry says (82093AA, section 3.2.4). */
static bool is_level(uint64_t entry)
{
    return (entry & ENTRY_LEVEL) != 0 && delivery(entry) < DELIVERY_SMI;
}

static bool is_due(const struct ioapic *ioapic, unsigned int pin)
{
    uint64_t entry = ioapic->entries[pin];

    if ((entry & ENTRY_MASKED) != 0 || !is_sent(entry)) {
        return false;
    }
    return is_level(entry) ? (ioapic->lines & bit(pin)) != 0 && (entry & ENTRY_REMOTE_IRR) == 0
                           : (ioapic->edges & bit(pin)) != 0;
}

static struct ioapic_message message_of(uint64_t entry, unsigned int pin)
{
    uint32_t destination = (uint32_t)(entry >> ENTRY_DESTINATION_BIT) << MESSAGE_DESTINATION_BIT;
    uint32_t mode = delivery(entry) << ENTRY_DELIVERY_BIT; /* in the same place */

    return (struct ioapic_message){
        .pin = pin,
        .is_level = is_level(entry),
        .address = MESSAGE_ADDRESS | destination | ((entry & ENTRY_LOGICAL) != 0 ? MESSAGE_LOGICAL : 0),
        .data =
            (uint32_t)(entry & ENTRY_VECTOR) | mode | MESSAGE_ASSERTED | (is_level(entry) ? IOAPIC_MESSAGE_LEVEL : 0),
    };
}

void ioapic_reset(struct ioapic *ioapic)
{
    *ioapic = (struct ioapic){.id = 0};
    for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
        ioapic->entries[pin] = ENTRY_MASKED;
    }
}

bool ioapic_is_open(const struct ioapic *ioapic, unsigned int pin)
{
    return pin < IOAPIC_PINS && (ioapic->entries[pin] & ENTRY_MASKED) == 0 && is_sent(ioapic->entries[pin]);
}

bool ioapic_is_quiet(const struct ioapic *ioapic)
{
    bool is_quiet = true;

    for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
        is_quiet = is_quiet && (!ioapic_is_open(ioapic, pin) || delivery(ioapic->entries[pin]) < DELIVERY_SMI);
    }
    return is_quiet;
}

void ioapic_set_line(struct ioapic *ioapic, unsigned int pin, bool is_asserted)
{
    if (pin >= IOAPIC_PINS) {
        return;
    }
    if (!is_asserted) {
        ioapic->lines &= ~bit(pin);
        return;
    }
    if ((ioapic->lines & bit(pin)) == 0 && ioapic_is_open(ioapic, pin)) {
        ioapic->edges |= bit(pin);
    }
    ioapic->lines |= bit(pin);
}

void ioapic_end(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((ioapic->entries[pin] & ENTRY_VECTOR) == vector) {
            ioapic->entries[pin] &= ~ENTRY_REMOTE_IRR;
        }
    }
}

bool ioapic_take(struct ioapic *ioapic, struct ioapic_message *message)
{
    for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
        if (is_due(ioapic, pin)) {
            *message = message_of(ioapic->entries[pin], pin);
            ioapic->entries[pin] |= message->is_level ? ENTRY_REMOTE_IRR : 0;
            ioapic->edges &= ~bit(pin);
            return true;
        }
    }
    return false;
}

struct ioapic_message ioapic_message(const struct ioapic *ioapic, unsigned int pin)
{
    return message_of(ioapic->entries[pin], pin);
}

/* Pin and half of a register behind the window; NULL: it is no entry's. */
static const uint64_t *find_entry(const struct ioapic *ioapic, unsigned int *shift)
{
    unsigned int pin = (ioapic->selected - REGISTER_ENTRIES) / 2;

    *shift = ioapic->selected % 2 * 32;
    return ioapic->selected >= REGISTER_ENTRIES && pin < IOAPIC_PINS ? &ioapic->entries[pin] : NULL;
}

static uint32_t read_window(const struct ioapic *ioapic)
{
    unsigned int shift;
    const uint64_t *entry = find_entry(ioapic, &shift);

    if (entry != NULL) {
        return (uint32_t)(*entry >> shift);
    }
    switch (ioapic->selected) {
    case REGISTER_ID:
    case REGISTER_ARBITRATION:
        return ioapic->id;
    case REGISTER_VERSION:
        return IOAPIC_VERSION | (IOAPIC_PINS - 1) << VERSION_ENTRIES_BIT;
    default:
        return 0;
    }
}

/* An edge has no remote IRR: to make an entry one and a level again is how a driver ends what nobody else ended. */
static void write_entry(struct ioapic *ioapic, unsigned int pin, unsigned int shift, uint32_t value)
{
    const uint64_t mask = (UINT64_C(0xffffffff) << shift) & ENTRY_WRITABLE;
    uint64_t entry = (ioapic->entries[pin] & ~mask) | ((uint64_t)value << shift & mask);

    if (!is_level(entry)) {
        entry &= ~ENTRY_REMOTE_IRR;
    }
    ioapic->entries[pin] = entry;
    ioapic->edges &= ~bit(pin);
}

static void write_window(struct ioapic *ioapic, uint32_t value)
{
    unsigned int shift;
    const uint64_t *entry = find_entry(ioapic, &shift);

    if (entry != NULL) {
        write_entry(ioapic, (unsigned int)(entry - ioapic->entries), shift, value);
    } else if (ioapic->selected == REGISTER_ID) {
        ioapic->id = value & ID_MASK;
    }
}

uint32_t ioapic_read(const struct ioapic *ioapic, uint64_t offset)
{
    switch (offset) {
    case IOAPIC_SELECT:
        return ioapic->selected;
    case IOAPIC_WINDOW:
        return read_window(ioapic);
    default:
        return 0;
    }
}

void ioapic_write(struct ioapic *ioapic, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case IOAPIC_SELECT:
        ioapic->selected = (uint8_t)value;
        break;
    case IOAPIC_WINDOW:
        write_window(ioapic, value);
        break;
    case IOAPIC_END:
        ioapic_end(ioapic, (uint8_t)value);
        break;
    default:
        break;
    }
}
