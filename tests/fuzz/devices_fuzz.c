// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: a guest's accesses, of any size and place, to every device that answers at a port, and to the models of the interrupt
 * controllers and of the timer's counters. Nothing crashes, nothing hangs, and what each promises holds after each access.
 *
 * Four bytes an access: what, where, how, and a byte of the value, which is made longer by the one before.
 */
#include "vmm/bus.h"
#include "vmm/ioapic.h"
#include "vmm/pic.h"
#include "vmm/pit_counter.h"
#include "vmm/platform.h"
#include "vmm/power.h"
#include "vmm/pvpanic.h"
#include "vmm/serial.h"

#include "loam/plan.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

#define SERIAL_PORT 0x3f8u
#define PANIC_PORT  0x505u
#define POWER_PORT  0x600u

static const uint16_t ports[] = {0x3f8, 0x3f8, 0x60, 0x64, 0x70, 0x71, 0xe9, 0x510, 0x511, 0x505, 0x600, 0x604, 0x608};

/* One guest's devices, and what came of them. */
static struct {
    struct bus bus;
    struct serial serial;
    struct power power;
    struct pvpanic pvpanic;
    struct platform platform;
    struct pic pic;
    struct ioapic ioapic;
    struct pit_counter counter;
    int64_t now;
    bool levels[2]; /* of the serial line's interrupt, and of the power button's */
} guest;

static void set_level(void *self, unsigned int number, bool level)
{
    (void)self;
    guest.levels[number] = level;
}

static void say(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    REQUIRE(bytes != NULL && count > 0);
}

static void end(void *self)
{
    (void)self;
}

static void panic(void *self, uint8_t events)
{
    (void)self;
    REQUIRE(events != 0);
}

static void add(const char *name, uint64_t base, uint64_t bytes, bus_access_fn *access, void *device)
{
    REQUIRE(bus_add(&guest.bus, &(struct bus_device){name, BUS_PIO, base, bytes, access, device}) == LOAM_OK);
}

static void make_devices(const struct loam_plan *plan)
{
    const struct platform_config config = {.plan = plan, .vcpu_count = 2, .reset = end, .output = say};

    memset(&guest, 0, sizeof guest);
    bus_init(&guest.bus);
    serial_init(&guest.serial, (struct irq_line){set_level, NULL, 0}, say, NULL);
    power_init(&guest.power, (struct irq_line){set_level, NULL, 1}, end, NULL);
    pvpanic_init(&guest.pvpanic, panic, NULL);
    platform_init(&guest.platform, &config);
    add("serial", SERIAL_PORT, SERIAL_BYTES, serial_access, &guest.serial);
    add("power", POWER_PORT, POWER_BYTES, power_access, &guest.power);
    add("pvpanic", PANIC_PORT, PVPANIC_BYTES, pvpanic_access, &guest.pvpanic);
    REQUIRE(platform_add(&guest.platform, &guest.bus, NULL) == LOAM_OK);
    bus_seal(&guest.bus);
    pic_reset(&guest.pic);
    ioapic_reset(&guest.ioapic);
    pit_counter_reset(&guest.counter, true);
}

static void remove_devices(void)
{
    bus_destroy(&guest.bus);
    serial_destroy(&guest.serial);
    power_destroy(&guest.power);
}

/* --- Accesses ------------------------------------------------------------------------------------------------------- */

static void access_port(uint8_t where, uint8_t how, uint64_t value)
{
    static const uint32_t sizes[] = {1, 2, 4, 1};
    uint16_t port = (uint16_t)(ports[where % (sizeof ports / sizeof ports[0])] + (how >> 4 & 7));
    uint32_t bytes = sizes[how & 3];
    bool is_write = (how & 4) != 0;

    bus_dispatch(&guest.bus, BUS_PIO, port, &value, bytes, is_write);
    REQUIRE(guest.serial.line_count <= SERIAL_LINE_BYTES);
    REQUIRE(guest.serial.looped_count <= SERIAL_FIFO_BYTES);
    REQUIRE(guest.levels[0] == guest.serial.irq_level);
    REQUIRE(guest.levels[1] == ((guest.power.status & guest.power.enable) != 0));
}

static void access_pic(uint8_t where, uint8_t how, uint8_t value)
{
    unsigned int chip = where & 1, offset = where >> 1 & 1;

    switch (how % 6) {
    case 0:
        pic_write(&guest.pic, chip, offset, value);
        break;
    case 1:
        (void)pic_read(&guest.pic, chip, offset);
        break;
    case 2:
        pic_write_trigger(&guest.pic, chip, value);
        REQUIRE((pic_read_trigger(&guest.pic, chip) & (chip == 0 ? 0x07 : 0x21)) == 0);
        break;
    case 3:
        if (pic_is_raised(&guest.pic)) {
            (void)pic_acknowledge(&guest.pic);
        }
        break;
    default:
        pic_set_line(&guest.pic, value & 31, (how & 1) != 0);
        break;
    }
}

static void access_ioapic(uint8_t where, uint8_t how, uint64_t value)
{
    struct ioapic_message message;

    switch (how % 5) {
    case 0:
        ioapic_write(&guest.ioapic, IOAPIC_SELECT, where);
        break;
    case 1:
        ioapic_write(&guest.ioapic, IOAPIC_WINDOW, (uint32_t)value);
        (void)ioapic_read(&guest.ioapic, where);
        break;
    case 2:
        ioapic_set_line(&guest.ioapic, where, (value & 1) != 0);
        break;
    case 3:
        ioapic_end(&guest.ioapic, (uint8_t)value);
        break;
    default:
        for (unsigned int taken = 0; ioapic_take(&guest.ioapic, &message); taken++) {
            REQUIRE(taken < IOAPIC_PINS && message.pin < IOAPIC_PINS && ioapic_is_open(&guest.ioapic, message.pin));
        }
        break;
    }
}

static void access_counter(uint8_t where, uint8_t how, uint8_t value)
{
    int64_t when;

    guest.now += where;
    switch (how % 6) {
    case 0:
        pit_counter_control(&guest.counter, (uint8_t)(value | 0x10)); /* a latch is not this call's */
        break;
    case 1:
        pit_counter_write(&guest.counter, guest.now, value);
        break;
    case 2:
        (void)pit_counter_read(&guest.counter, guest.now);
        break;
    case 3:
        pit_counter_latch(&guest.counter, guest.now);
        pit_counter_latch_status(&guest.counter, guest.now);
        break;
    case 4:
        pit_counter_set_gate(&guest.counter, guest.now, (value & 1) != 0);
        break;
    default:
        (void)pit_counter_out(&guest.counter, guest.now);
        if (pit_counter_next_rise(&guest.counter, guest.now, &when)) {
            REQUIRE(when > guest.now); /* else a thread that waits for it would never sleep */
        }
        break;
    }
}

static void play(const uint8_t step[4], uint64_t value)
{
    switch (step[0] % 6) {
    case 0:
        access_pic(step[1], step[2], step[3]);
        break;
    case 1:
        access_ioapic(step[1], step[2], value);
        break;
    case 2:
        access_counter(step[1], step[2], step[3]);
        break;
    case 3:
        (void)power_press(&guest.power);
        (void)serial_receive(&guest.serial, &step[3], 1);
        break;
    default:
        access_port(step[1], step[2], value);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct loam_plan plan;
    uint64_t value = 0;

    if (plan.request.bytes == 0) {
        const struct loam_memory_request request = {
            .bytes = 16 * LOAM_MIB, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};

        REQUIRE(loam_plan_make(&request, &plan, NULL) == LOAM_OK);
    }
    make_devices(&plan);
    for (size_t at = 0; at + 4 <= size; at += 4) {
        value = value << 8 | data[at + 3];
        play(data + at, value);
    }
    remove_devices();
    return 0;
}
