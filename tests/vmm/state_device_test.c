// SPDX-License-Identifier: Apache-2.0
/*
 * Devices written down: one that has been driven at random, and one that was made from its record, give the same record, and
 * answer alike from then on. A record with any value too large, or cut, is refused.
 */
#include "vmm/irqchip.h"
#include "vmm/kvm.h"
#include "vmm/pit.h"
#include "vmm/platform.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/state.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEED      UINT64_C(612)
#define ROUNDS    200u
#define ACCESSES  400u
#define PROBES    200u
#define LOADS_MAX 40000u

static struct random chances, *const chance = &chances;

static bool is_compared; /* two are driven alike: no time passes between */

static void nothing(void *self)
{
    (void)self;
}

static void no_output(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    (void)bytes;
    (void)count;
}

static void no_line(void *controller, unsigned int number, bool is_high)
{
    (void)controller;
    (void)number;
    (void)is_high;
}

static const struct irq_line no_irq = {.set = no_line};

/* --- What a device is to this test ---------------------------------------------------------------------------------- */

struct subject {
    const char *name;
    void *(*make)(void);
    void (*unmake)(void *self);
    void (*drive)(void *self, struct bus_access *access); /* offset is random */
    uint64_t ports;
    void (*save)(void *self, struct state_writer *writer);
    enum loam_error (*load)(void *self, struct state_reader *reader, struct loam_diag *diag);
    bool has_clock; /* what it answers depends on the time, and is not compared */
};

#define SUBJECT_FUNCTIONS(type)                                                                                        \
    static void save_##type(void *self, struct state_writer *writer)                                                   \
    {                                                                                                                  \
        type##_save(self, writer);                                                                                     \
    }                                                                                                                  \
    static enum loam_error load_##type(void *self, struct state_reader *reader, struct loam_diag *diag)                \
    {                                                                                                                  \
        return type##_load(self, reader, diag);                                                                        \
    }

SUBJECT_FUNCTIONS(serial)
SUBJECT_FUNCTIONS(power)
SUBJECT_FUNCTIONS(platform)
SUBJECT_FUNCTIONS(pit)

static void *make_serial(void)
{
    struct serial *serial = malloc(sizeof *serial);

    serial_init(serial, no_irq, no_output, NULL);
    return serial;
}

static void unmake_serial(void *self)
{
    serial_destroy(self);
    free(self);
}

static void drive_serial(void *self, struct bus_access *access)
{
    if (random_one_in(chance, 8)) {
        uint8_t bytes[40];

        memset(bytes, 'x', sizeof bytes);
        (void)serial_receive(self, bytes, random_below(chance, sizeof bytes));
    }
    access->bytes = 1;
    serial_access(self, access);
}

static void *make_power(void)
{
    struct power *power = malloc(sizeof *power);

    power_init(power, no_irq, nothing, NULL);
    return power;
}

static void unmake_power(void *self)
{
    power_destroy(self);
    free(self);
}

static void drive_power(void *self, struct bus_access *access)
{
    if (random_one_in(chance, 20)) {
        (void)power_press(self);
    }
    access->bytes = 1;
    power_access(self, access);
}

static void *make_platform(void)
{
    static struct loam_plan plan = {.part_count = 1, .hole_start = {LOAM_GIB}};
    const struct platform_config config = {.plan = &plan, .vcpu_count = 1, .reset = nothing, .output = no_output};
    struct platform *platform = malloc(sizeof *platform);

    plan.parts[0].bytes = LOAM_GIB;
    platform_init(platform, &config);
    return platform;
}

static void drive_platform(void *self, struct bus_access *access)
{
    struct platform *platform = self;

    access->bytes = 1;
    switch (random_below(chance, 3)) {
    case 0:
        access->offset %= CMOS_BYTES;
        cmos_access(&platform->cmos, access);
        break;
    case 1:
        access->offset = 0;
        access->bytes = access->is_write ? 2 : 1;
        access->offset = access->is_write ? 0 : 1;
        access->value %= 32;
        fw_cfg_access(&platform->fw_cfg, access);
        break;
    default:
        access->offset = 0;
        i8042_status_access(&platform->i8042, access);
        break;
    }
}

static bool hears(void *self)
{
    (void)self;
    return true;
}

static void *make_pit(void)
{
    struct pit *pit = malloc(sizeof *pit);

    pit_init(pit, no_irq, hears, NULL);
    pit_hold(pit);
    return pit;
}

static void unmake_pit(void *self)
{
    pit_destroy(self);
    free(self);
}

static void drive_pit(void *self, struct bus_access *access)
{
    access->bytes = 1;
    if (random_one_in(chance, 10) && !is_compared) {
        pit_go_on(self);
        pit_hold(self);
    }
    if (random_one_in(chance, 6)) {
        pit_speaker_access(self, access);
    } else {
        pit_access(self, access);
    }
}

static const struct subject subjects[] = {
    {"serial", make_serial, unmake_serial, drive_serial, SERIAL_BYTES, save_serial, load_serial, false},
    {"power", make_power, unmake_power, drive_power, POWER_BYTES, save_power, load_power, false},
    {"platform", make_platform, free, drive_platform, 2, save_platform, load_platform, true},
    {"pit", make_pit, unmake_pit, drive_pit, PIT_BYTES, save_pit, load_pit, false},
};
#define SUBJECT_COUNT (sizeof subjects / sizeof subjects[0])

/* --- The property ----------------------------------------------------------------------------------------------------- */

static struct bus_access random_access(const struct subject *subject)
{
    return (struct bus_access){.offset = random_below(chance, (uint32_t)subject->ports),
                               .is_write = random_one_in(chance, 2),
                               .value = random_below(chance, 256)};
}

static void write_down(const struct subject *subject, void *self, struct state_writer *writer)
{
    state_writer_init(writer);
    subject->save(self, writer);
    cr_assert_eq(state_finish(writer, NULL), LOAM_OK);
}

static enum loam_error read_into(const struct subject *subject, void *self, const struct state_writer *writer,
                                 struct loam_diag *diag)
{
    struct state_reader reader;
    enum loam_error error = state_open(&reader, writer->bytes, writer->count, diag);

    if (error == LOAM_OK) {
        error = subject->load(self, &reader, diag);
        cr_assert(error != LOAM_OK || state_all_done(&reader, NULL) == LOAM_OK);
        state_close(&reader);
    }
    return error;
}

/* Both are asked the same, and say the same; driving takes the same chances for both. */
static void compare_answers(const struct subject *subject, void *one, void *other, uint32_t round)
{
    is_compared = true;
    for (uint32_t i = 0; i < PROBES && !subject->has_clock; i++) {
        struct bus_access access = random_access(subject), same = access;
        struct random again = *chance;

        subject->drive(one, &access);
        *chance = again;
        subject->drive(other, &same);
        cr_assert_eq(access.value, same.value, "%s, seed %" PRIu64 ", round %" PRIu32 ": %s at %" PRIu64, subject->name,
                     SEED, round, access.is_write ? "write" : "read", access.offset);
    }
    is_compared = false;
}

Test(state_device, what_is_read_is_what_was_written, .timeout = 120)
{
    chances = (struct random){SEED};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const struct subject *subject = &subjects[round % SUBJECT_COUNT];
        void *driven = subject->make(), *made = subject->make();
        struct state_writer first, second;
        struct loam_diag diag = {0};

        for (uint32_t i = 0; i < ACCESSES; i++) {
            struct bus_access access = random_access(subject);

            subject->drive(driven, &access);
        }
        write_down(subject, driven, &first);
        cr_assert_eq(read_into(subject, made, &first, &diag), LOAM_OK, "%s: %s", subject->name, diag.text);
        write_down(subject, made, &second);
        cr_assert_eq(first.count, second.count);
        cr_assert_eq(memcmp(first.bytes, second.bytes, first.count), 0, "%s, seed %" PRIu64 ", round %" PRIu32,
                     subject->name, SEED, round);
        compare_answers(subject, driven, made, round);
        state_writer_release(&first);
        state_writer_release(&second);
        subject->unmake(driven);
        subject->unmake(made);
    }
}

/* --- Hostile records --------------------------------------------------------------------------------------------------- */

/* Any byte of a payload may be anything: what is not refused can be driven. */
Test(state_device, rubbish_is_refused_or_harmless, .timeout = 120)
{
    uint32_t taken_count = 0;

    chances = (struct random){SEED};
    for (uint32_t load = 0; load < LOADS_MAX; load++) {
        const struct subject *subject = &subjects[load % SUBJECT_COUNT];
        void *self = subject->make();
        struct state_writer writer;

        write_down(subject, self, &writer);
        for (uint32_t i = 1 + random_below(chance, 8); i > 0; i--) {
            const size_t payload = STATE_HEADER_BYTES + STATE_RECORD_BYTES;

            writer.bytes[payload + random_below(chance, (uint32_t)(writer.count - payload))] =
                (uint8_t)(random_one_in(chance, 2) ? random_below(chance, 4) : random_below(chance, 256));
        }
        cr_assert_eq(state_finish(&writer, NULL), LOAM_OK);
        if (read_into(subject, self, &writer, NULL) == LOAM_OK) {
            taken_count++;
            for (uint32_t i = 0; i < 50; i++) {
                struct bus_access access = random_access(subject);

                subject->drive(self, &access);
            }
        }
        state_writer_release(&writer);
        subject->unmake(self);
    }
    cr_expect_gt(taken_count, LOADS_MAX / 20, "records of random values can be taken too");
}

/* --- Interrupt controllers ------------------------------------------------------------------------------------------------ */

static void refuse(void *self, const struct loam_diag *diag)
{
    (void)self;
    cr_assert_fail("%s", diag->text);
}

/* KVM is told of routes when a record is read, so there has to be one. */
Test(state_device, interrupt_controllers_are_the_same_again, .timeout = 60)
{
    const struct irqchip_owner owner = {nothing, refuse, nothing, nothing, nothing, NULL};
    struct loam_diag diag = {0};
    struct state_writer first, second;
    struct state_reader reader;
    struct irqchip driven, made;
    int vm_fds[2];
    struct kvm kvm;

    if (kvm_open(KVM_DEVICE, &kvm, NULL) != LOAM_OK) {
        cr_skip("no KVM");
    }
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fds[0], NULL), LOAM_OK);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fds[1], NULL), LOAM_OK);
    cr_assert_eq(irqchip_init(&driven, vm_fds[0], &owner, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(irqchip_init(&made, vm_fds[1], &owner, &diag), LOAM_OK, "%s", diag.text);
    chances = (struct random){SEED};
    for (uint32_t i = 0; i < ACCESSES; i++) {
        pic_write(&driven.pic, random_below(chance, PIC_CHIPS), random_below(chance, PIC_BYTES),
                  (uint8_t)random_below(chance, 256));
        ioapic_write(&driven.ioapic, random_one_in(chance, 2) ? IOAPIC_SELECT : IOAPIC_WINDOW,
                     random_below(chance, 64) | (uint32_t)random_one_in(chance, 2) << 16);
        pic_set_line(&driven.pic, random_below(chance, PIC_LINES), random_one_in(chance, 2));
    }
    state_writer_init(&first);
    irqchip_save(&driven, &first);
    cr_assert_eq(state_finish(&first, NULL), LOAM_OK);
    cr_assert_eq(state_open(&reader, first.bytes, first.count, NULL), LOAM_OK);
    cr_assert_eq(irqchip_load(&made, &reader, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(state_all_done(&reader, NULL), LOAM_OK);
    state_writer_init(&second);
    irqchip_save(&made, &second);
    cr_assert_eq(state_finish(&second, NULL), LOAM_OK);
    cr_expect_eq(memcmp(&driven.pic, &made.pic, sizeof made.pic), 0);
    cr_expect_eq(first.count, second.count);
    state_close(&reader);
    state_writer_release(&first);
    state_writer_release(&second);
    irqchip_destroy(&driven);
    irqchip_destroy(&made);
    close(vm_fds[0]);
    close(vm_fds[1]);
    kvm_close(&kvm);
}
