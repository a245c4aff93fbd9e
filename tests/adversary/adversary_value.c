// SPDX-License-Identifier: Apache-2.0
#include "tests/adversary/adversary.h"

/* Neither a frame nor an address of the guest's own: not 2^8 to 2^11, not 2^19 to 2^23. */
static uint64_t beside_a_power(struct random *random)
{
    uint32_t power = random_below(random, 55);

    power += power < 8 ? 0 : power < 15 ? 4 : 9;
    return (UINT64_C(1) << power) - 1 + random_below(random, 3);
}

uint64_t hostile_value(struct adversary *self)
{
    struct random *random = &self->random;

    switch (random_below(random, 8)) {
    case 0:
        return UINT64_MAX - random_below(random, 2);
    case 1:
        return beside_a_power(random);
    case 2:
        return hostile_gpa(self);
    case 3:
        return random_u64(random);
    case 4:
        return random_below(random, 256);
    default:
        return random_below(random, 16);
    }
}

uint64_t hostile_gpa(struct adversary *self)
{
    struct random *random = &self->random;

    switch (random_below(random, 16)) {
    case 0:
        return RAM_END - 16 + random_below(random, 32);
    case 1:
        return UINT64_C(0xa0000) - 16 + random_below(random, 32);
    case 2:
        return UINT64_C(0xd0000000) + random_below(random, 0x9000);
    case 3:
        return UINT64_C(0xfec00000) + UINT64_C(0x200000) * random_below(random, 2) + random_below(random, 0x1000);
    case 4:
        return UINT64_MAX - random_below(random, 0x2000);
    case 5:
        return random_u64(random) | UINT64_C(1) << 40;
    default:
        return OPEN_START + random_below(random, RAM_END - OPEN_START);
    }
}

uint64_t hostile_table(struct adversary *self)
{
    uint64_t gpa = hostile_gpa(self);

    return gpa >= OPEN_START && gpa < RAM_END - 16 ? TABLES_START + gpa % (TABLES_BYTES / 2) : gpa;
}

uint32_t hostile_length(struct adversary *self)
{
    struct random *random = &self->random;

    switch (random_below(random, 8)) {
    case 0:
        return UINT32_MAX - random_below(random, 2);
    case 1:
        return (uint32_t)random_u64(random);
    case 2:
        return 0;
    default:
        return random_below(random, 0x2000);
    }
}

void hostile_store(struct adversary *self, uint64_t gpa, uint64_t value)
{
    switch (random_below(&self->random, 4)) {
    case 0:
        platform_store8(gpa, (uint8_t)value);
        break;
    case 1:
        platform_store16(gpa, (uint16_t)value);
        break;
    case 2:
        platform_store32(gpa, (uint32_t)value);
        break;
    default:
        platform_store64(gpa, value);
        break;
    }
}

void hostile_load(struct adversary *self, uint64_t gpa)
{
    switch (random_below(&self->random, 4)) {
    case 0:
        (void)platform_load8(gpa);
        break;
    case 1:
        (void)platform_load16(gpa);
        break;
    case 2:
        (void)platform_load32(gpa);
        break;
    default:
        (void)platform_load64(gpa);
        break;
    }
}
