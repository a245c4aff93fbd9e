// SPDX-License-Identifier: Apache-2.0
/* Ports, interrupt controllers, MSRs, and memory at its edges. What would end the machine is left out. */
#include "tests/adversary/adversary.h"

#include <stddef.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#define PIC_PORTS  0x20u
#define IO_APIC    UINT64_C(0xfec00000)
#define LOCAL_APIC UINT64_C(0xfee00000)

#define IO_APIC_SELECT 0x00u
#define IO_APIC_WINDOW 0x10u
#define IO_APIC_PINS   24u

#define APIC_TASK_PRIORITY 0x80u
#define APIC_SPURIOUS      0xf0u
#define APIC_COMMAND       0x300u
#define APIC_TIMER         0x320u
#define APIC_INITIAL_COUNT 0x380u
#define APIC_DIVIDE        0x3e0u
#define APIC_ENABLED       0x100u

#define TO_SELF   0x40000u
#define TO_OTHERS 0xc0000u

#define VECTOR_FIRST 0x20u

/* --- Ports ------------------------------------------------------------------------------------------------------------ */

static const struct {
    uint16_t port, count;
} ports[] = {
    {0x20, 2},  {0xa0, 2},  {0x40, 4},  {0x60, 5},  {0x70, 2},  {0x80, 1},  {0x92, 1},   {0xe9, 1},
    {0xf4, 4},  {0x3f8, 8}, {0x3f8, 8}, {0x4d0, 2}, {0x501, 4}, {0x505, 1}, {0x510, 2},  {0x514, 8},
    {0x600, 6}, {0x606, 7}, {0xb2, 2},  {0xc10, 4}, {0xcf8, 8}, {0x1f0, 8}, {0, 0xffff},
};

static uint16_t any_port(struct random *random)
{
    uint32_t i = random_below(random, COUNT_OF(ports));

    return (uint16_t)(ports[i].port + random_below(random, ports[i].count));
}

/* vmm/machine.h, power.h, i8042.h: exits, resets and sleep, and the command that makes a reset of the next byte. */
static bool byte_ends(uint32_t port, uint8_t value)
{
    switch (port) {
    case 0x64:
        return value == 0xd1 || (value >= 0xf0 && (value & 1) == 0);
    case 0x92:
        return (value & 1) != 0;
    case 0xcf9:
        return (value & 4) != 0;
    case 0x605:
    case 0x608:
        return (value & 0x20) != 0;
    default:
        return (port >= 0xf4 && port < 0xf8) || (port >= 0x501 && port < 0x506);
    }
}

static bool would_end(uint32_t port, uint32_t bytes, uint32_t value)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (byte_ends(port + i, (uint8_t)(value >> (8 * i)))) {
            return true;
        }
    }
    return false;
}

static void write_port(uint16_t port, uint32_t bytes, uint32_t value)
{
    if (bytes == 1) {
        platform_out8(port, (uint8_t)value);
    } else if (bytes == 2) {
        __asm__ volatile("outw %0, %1" : : "a"((uint16_t)value), "Nd"(port) : "memory");
    } else {
        platform_out32(port, value);
    }
}

static void read_port(uint16_t port, uint32_t bytes)
{
    uint32_t value;

    if (bytes == 1) {
        (void)platform_in8(port);
    } else if (bytes == 2) {
        __asm__ volatile("inw %w1, %w0" : "=a"(value) : "Nd"(port) : "memory");
    } else {
        __asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(port) : "memory");
    }
}

void act_port(struct adversary *self)
{
    uint16_t port = any_port(&self->random);
    uint32_t bytes = 1u << random_below(&self->random, 3), value = (uint32_t)hostile_value(self);

    if (random_one_in(&self->random, 3)) {
        read_port(port, bytes);
    } else if (!would_end(port, bytes, value)) {
        write_port(port, bytes, value);
    }
}

/* From memory that holds nothing but zeros, or into it. */
void act_port_string(struct adversary *self)
{
    static uint8_t scrap[ADVERSARY_COUNT][256];
    uint16_t port = any_port(&self->random);
    void *at = scrap[self->number];
    uint64_t count = 1 + random_below(&self->random, 64);

    switch (random_below(&self->random, 3)) {
    case 0:
        __asm__ volatile("cld\n\trep insb" : "+D"(at), "+c"(count) : "d"(port) : "memory");
        break;
    case 1:
        __asm__ volatile("cld\n\trep insl" : "+D"(at), "+c"(count) : "d"(port) : "memory");
        break;
    default:
        if (!would_end(port, 1, 0)) {
            __asm__ volatile("cld\n\trep outsb" : "+S"(at), "+c"(count) : "d"(port) : "memory");
        }
        return;
    }
    memset(scrap[self->number], 0, sizeof scrap[0]);
}

/* --- Interrupt controllers: no delivery as INIT or SMI, which would take a processor away ------------------------------- */

static uint32_t any_delivery(struct random *random)
{
    static const uint8_t modes[] = {0, 0, 0, 0, 1, 4, 7}; /* fixed, lowest priority, NMI, ExtINT */

    return (uint32_t)modes[random_below(random, sizeof modes)] << 8;
}

/* ICW1 to ICW4, and a mask. */
static void set_up_controller(struct adversary *self, uint16_t port)
{
    platform_out8(port, (uint8_t)(0x10 | random_below(&self->random, 16)));
    platform_out8(port + 1, (uint8_t)random_below(&self->random, 256));
    platform_out8(port + 1, (uint8_t)hostile_value(self));
    platform_out8(port + 1, (uint8_t)random_below(&self->random, 32));
    platform_out8(port + 1, (uint8_t)random_u64(&self->random));
}

static void set_pin(struct adversary *self)
{
    struct random *random = &self->random;
    uint32_t index = 0x10 + 2 * random_below(random, IO_APIC_PINS + 2);
    uint32_t low = random_below(random, 256) | any_delivery(random) | (random_below(random, 32) << 11);

    platform_store32(IO_APIC + IO_APIC_SELECT, index + 1);
    platform_store32(IO_APIC + IO_APIC_WINDOW, random_below(random, 4) << 24);
    platform_store32(IO_APIC + IO_APIC_SELECT, index);
    platform_store32(IO_APIC + IO_APIC_WINDOW, low);
}

/* Whatever is selected by then: a low half has no delivery but fixed. */
static void write_window(struct adversary *self)
{
    platform_store32(IO_APIC + IO_APIC_SELECT, (uint32_t)hostile_value(self));
    platform_store32(IO_APIC + IO_APIC_WINDOW, (uint32_t)hostile_value(self) & ~0x700u);
}

void act_interrupt_controller(struct adversary *self)
{
    switch (random_below(&self->random, 4)) {
    case 0:
        set_up_controller(self, random_one_in(&self->random, 2) ? PIC_PORTS : PIC_PORTS + 0x80);
        break;
    case 1:
        write_window(self);
        break;
    case 2:
        hostile_load(self, IO_APIC + random_below(&self->random, 0x400));
        break;
    default:
        set_pin(self);
        break;
    }
}

void act_local_apic(struct adversary *self)
{
    struct random *random = &self->random;
    uint32_t vector = random_below(random, 256);

    switch (random_below(random, 5)) {
    case 0:
        platform_store32(LOCAL_APIC + APIC_COMMAND, vector | (random_one_in(random, 2) ? TO_SELF : TO_OTHERS) |
                                                        (random_one_in(random, 8) ? 0x400u : 0));
        break;
    case 1:
        platform_store32(LOCAL_APIC + APIC_TIMER + 0x10 * random_below(random, 6),
                         vector | any_delivery(random) | random_below(random, 4) << 16);
        break;
    case 2:
        platform_store32(LOCAL_APIC + APIC_INITIAL_COUNT, (uint32_t)hostile_value(self));
        break;
    case 3:
        platform_store32(LOCAL_APIC + APIC_TASK_PRIORITY, vector);
        break;
    default:
        (void)platform_load32(LOCAL_APIC + 0x10 * random_below(random, 64));
        break;
    }
}

/* --- MSRs: no address of an asynchronous page fault, which would come as an exception ----------------------------------- */

void act_msr(struct adversary *self)
{
    static const uint32_t numbers[] = {
        0x10,       0x11,       0x12,       0x17,       0x1b,       0x3b,       0x48,       0xfe,       0x174,
        0x1a0,      0x200,      0x277,      0x6e0,      0x800,      0x830,      0x4b564d00, 0x4b564d01, 0x4b564d02,
        0x4b564d03, 0x4b564d04, 0x4b564d05, 0xc0000080, 0xc0000103, 0xc0010015, 0x40000000, 0x40000020};
    static const uint32_t written[] = {0x11,       0x12,       0x174,      0x200,      0x277,
                                       0x6e0,      0x800,      0x830,      0x4b564d00, 0x4b564d01,
                                       0x4b564d03, 0x4b564d05, 0xc0000103, 0x40000000, 0x40000020};
    struct random *random = &self->random;

    if (random_one_in(random, 2)) {
        (void)cpu_read_msr(random_one_in(random, 4) ? (uint32_t)random_u64(random)
                                                    : numbers[random_below(random, COUNT_OF(numbers))]);
    } else {
        cpu_write_msr(written[random_below(random, COUNT_OF(written))], hostile_gpa(self));
    }
}

/* --- Memory ------------------------------------------------------------------------------------------------------------- */

static void copy(uint64_t to, uint64_t from, uint64_t count)
{
    __asm__ volatile("cld\n\trep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

void act_memory(struct adversary *self)
{
    struct random *random = &self->random;
    uint64_t hole = RAM_END + random_below(random, 0x3c000000 - 0x1000);
    uint64_t device = UINT64_C(0xd0000000) + UINT64_C(0x1000) * random_below(random, 9);

    switch (random_below(random, 6)) {
    case 0:
        hostile_store(self, RAM_END - random_below(random, 8), hostile_value(self));
        hostile_load(self, RAM_END - random_below(random, 8));
        break;
    case 1:
        hostile_store(self, UINT64_C(0xa0000) - random_below(random, 8), hostile_value(self));
        hostile_load(self, UINT64_C(0xa0000) + random_below(random, 0x60000 - 8));
        break;
    case 2:
        hostile_store(self, hole, hostile_value(self));
        hostile_load(self, hole);
        break;
    case 3: /* across two devices */
        hostile_load(self, device + 0xff8 + random_below(random, 8));
        hostile_store(self, device + 0xff8 + random_below(random, 8), hostile_value(self));
        break;
    case 4: /* what is executed as one access after another */
        copy(OPEN_START + random_below(random, 0x100000), device, 1 + random_below(random, 64));
        break;
    default:
        hostile_store(self, OPEN_START + random_below(random, RAM_END - OPEN_START - 8), hostile_value(self));
        break;
    }
}

/* --- Interrupts: between actions they are off, so that a storm of them takes no more than its share ------------------------ */

void act_listen(struct adversary *self)
{
    (void)self;
    __asm__ volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
}

void act_nap(struct adversary *self)
{
    platform_store32(LOCAL_APIC + APIC_SPURIOUS, APIC_ENABLED | 0xff);
    platform_store32(LOCAL_APIC + APIC_TASK_PRIORITY, 0);
    platform_store32(LOCAL_APIC + APIC_DIVIDE, 0xb);
    platform_store32(LOCAL_APIC + APIC_TIMER, VECTOR_FIRST + random_below(&self->random, 0xd0));
    platform_store32(LOCAL_APIC + APIC_INITIAL_COUNT, 1 + random_below(&self->random, 100000));
    __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
}
