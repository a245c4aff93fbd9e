// SPDX-License-Identifier: Apache-2.0
/*
 * References: ACPI 6.5, sections 4.8.3.1.1 (PM1_STS), 4.8.3.1.2 (PM1_EN), 4.8.3.2.1 (PM1_CNT), 4.8.3.7 (sleep registers),
 * 4.8.2.2.1 (power button).
 */
#include "vmm/power.h"

/* TMR_EN, GBL_EN, PWRBTN_EN, SLPBTN_EN, RTC_EN: a driver reads back what it enables, whether it ever comes or not. */
#define ENABLE_MASK 0x0721u

/* The registers are two words of 8 bytes, each read and written as one number, in which they lie: */
#define WORD_COUNT  2
#define WORD_BITS   64
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

static uint64_t read_word(const struct power *power, int word)
{
    if (word > 0) {
        return power->reduced_type;
    }
    return (uint64_t)power->status | (uint64_t)power->enable << ENABLE_BIT |
           (uint64_t)(power->sleep_type | POWER_SCI_ENABLED) << CONTROL_BIT;
}

/* Those bits of a word that mask has are written. Returns whether the guest enters S5. */
static bool write_fixed(struct power *power, uint64_t value, uint64_t mask)
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

static bool write_reduced(struct power *power, uint64_t value, uint64_t mask)
{
    const uint32_t type_mask = (uint32_t)mask & POWER_REDUCED_TYPE_MASK;

    power->reduced_type = (uint8_t)((power->reduced_type & ~type_mask) | ((uint32_t)value & type_mask));
    return (value & POWER_REDUCED_SLEEP) != 0 && power->reduced_type == POWER_SLEEP_TYPE_OFF;
}

static bool write_word(struct power *power, int word, uint64_t value, uint64_t mask)
{
    return word > 0 ? write_reduced(power, value, mask) : write_fixed(power, value, mask);
}

/* Up by so many bits, down if they are negative. */
static uint64_t shift(uint64_t value, int bits)
{
    if (bits <= -WORD_BITS || bits >= WORD_BITS) {
        return 0;
    }
    return bits < 0 ? value >> -bits : value << bits;
}

void power_access(void *self, struct bus_access *access)
{
    struct power *power = self;
    const uint64_t whole = access->bytes < 8 ? (UINT64_C(1) << 8 * access->bytes) - 1 : UINT64_MAX;
    uint64_t answer = 0;
    bool is_off = false;

    pthread_mutex_lock(&power->lock);
    for (int word = 0; word < WORD_COUNT; word++) {
        const int place = 8 * (int)access->offset - WORD_BITS * word;
        const uint64_t mask = shift(whole, place);

        if (access->is_write && mask != 0) {
            is_off = write_word(power, word, shift(access->value & whole, place), mask) || is_off;
        } else if (!access->is_write) {
            answer |= shift(read_word(power, word) & mask, -place);
        }
    }
    pthread_mutex_unlock(&power->lock);
    access->value = access->is_write ? access->value : answer;
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

/* --- Written down --------------------------------------------------------------------------------------------------- */

static const struct state_field fields[] = {
    STATE_ANY(struct power, status),
    STATE_ANY(struct power, enable),
    STATE_FIELD(struct power, sleep_type, POWER_SLEEP_TYPE_MASK),
    STATE_FIELD(struct power, reduced_type, POWER_REDUCED_TYPE_MASK),
    STATE_BOOL(struct power, is_high),
};

void power_save(struct power *power, struct state_writer *writer)
{
    pthread_mutex_lock(&power->lock);
    state_begin(writer, STATE_POWER, 0);
    state_put_fields(writer, STATE_FIELDS(fields), power);
    state_end(writer);
    pthread_mutex_unlock(&power->lock);
}

enum loam_error power_load(struct power *power, struct state_reader *reader, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_POWER, 0, &record, diag);

    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(fields), power, diag);
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}
