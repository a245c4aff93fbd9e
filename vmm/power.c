// SPDX-License-Identifier: Apache-2.0
/* References: ACPI 6.5, sections 4.8.3.1.1 (PM1_STS), 4.8.3.1.2 (PM1_EN), 4.8.3.2.1 (PM1_CNT), 4.8.2.2.1 (power button). */
#include "vmm/power.h"

/* TMR_EN, GBL_EN, PWRBTN_EN, SLPBTN_EN, RTC_EN: a driver reads back what it enables, whether it ever comes or not. */
#define ENABLE_MASK 0x0721u

/* Where the registers lie in the 8 bytes, read as one number. */
#define ENABLE_BIT  16u
#define CONTROL_BIT 32u

void power_init(struct power *power, struct irq_line irq, void (*off)(void *self), void *self)
{
    *power = (struct power){.irq = irq, .off = off, .self = self};
    pthread_mutex_init(&power->lock, NULL);
}

void power_destroy(struct power *power)
{
    pthread_mutex_destroy(&power->lock);
}

static void settle_line(struct power *power)
{
    bool is_high = (power->status & power->enable) != 0;

    if (is_high != power->is_high) {
        power->is_high = is_high;
        irq_set(&power->irq, is_high);
    }
}

static uint64_t read_all(const struct power *power)
{
    return (uint64_t)power->status | (uint64_t)power->enable << ENABLE_BIT |
           (uint64_t)(power->sleep_type | POWER_SCI_ENABLED) << CONTROL_BIT;
}

/* The bits of mask, of which value has those that are written. Returns whether the guest enters S5. */
static bool write_all(struct power *power, uint64_t value, uint64_t mask)
{
    const uint32_t enable_mask = (uint32_t)(mask >> ENABLE_BIT) & ENABLE_MASK;
    const uint32_t type_mask = (uint32_t)(mask >> CONTROL_BIT) & POWER_SLEEP_TYPE_MASK;
    const uint32_t control = (uint32_t)(value >> CONTROL_BIT);

    power->status = (uint16_t)(power->status & ~value);
    power->enable = (uint16_t)((power->enable & ~enable_mask) | ((uint32_t)(value >> ENABLE_BIT) & enable_mask));
    power->sleep_type = (uint16_t)((power->sleep_type & ~type_mask) | (control & type_mask));
    settle_line(power);
    return (control & POWER_SLEEP) != 0 && power->sleep_type == POWER_SLEEP_TYPE_OFF << POWER_SLEEP_TYPE_BIT;
}

void power_access(void *self, struct bus_access *access)
{
    struct power *power = self;
    const uint32_t shift = 8 * (uint32_t)access->offset;
    const uint64_t mask = (access->bytes < 8 ? (UINT64_C(1) << 8 * access->bytes) - 1 : UINT64_MAX) << shift;
    bool is_off = false;

    pthread_mutex_lock(&power->lock);
    if (access->is_write) {
        is_off = write_all(power, access->value << shift & mask, mask);
    } else {
        access->value = (read_all(power) & mask) >> shift;
    }
    pthread_mutex_unlock(&power->lock);
    if (is_off) {
        power->off(power->self);
    }
}

bool power_press(struct power *power)
{
    bool is_told;

    pthread_mutex_lock(&power->lock);
    power->status |= POWER_BUTTON;
    is_told = (power->enable & POWER_BUTTON) != 0;
    settle_line(power);
    pthread_mutex_unlock(&power->lock);
    return is_told;
}
