// SPDX-License-Identifier: Apache-2.0
/*
 * References: KVM API, KVM_INTERRUPT, KVM_SET_GSI_ROUTING, KVM_SIGNAL_MSI, KVM_CAP_SPLIT_IRQCHIP; in struct kvm_run
 * ready_for_interrupt_injection, request_interrupt_window, KVM_EXIT_IOAPIC_EOI.
 *
 * Whatever changes the controllers does so between lock and finish, which sends what is due. An interrupt of the 8259As that
 * comes while vCPU 0 looks whether one is there is not lost: is_raised stands before the vCPU is called back, and it looks again
 * before it enters the guest.
 */
#include "vmm/irqchip.h"

#include "vmm/kvm.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>

/* Where the I/O APIC has the timer as well: where the PC's tables say that it is. */
#define TIMER_PIN 2u

/* struct kvm_irq_routing with room for its entries. */
struct route_table {
    uint32_t count;
    uint32_t flags;
    struct kvm_irq_routing_entry entries[IOAPIC_PINS];
};

static_assert(offsetof(struct route_table, entries) == sizeof(struct kvm_irq_routing), "laid out as KVM reads it");

/* --- To KVM ------------------------------------------------------------------------------------------------------ */

static void fail(const struct irqchip *chip, const char *call)
{
    struct loam_diag diag = {0};

    (void)!loam_fail(&diag, LOAM_ERROR_SYSTEM, "interrupts: %s", call);
    chip->owner.failed(chip->owner.self, &diag);
}

static bool is_same(const struct ioapic_message *one, const struct ioapic_message *other)
{
    return one->address == other->address && one->data == other->data;
}

static bool is_timers(unsigned int pin)
{
    return pin == IRQCHIP_TIMER_LINE || pin == TIMER_PIN;
}

/*
 * What KVM is told of a pin, so that ends of its interrupt come back; false: they need not. The timer's do, although it is an
 * edge: a route may say level, whatever is sent.
 */
static bool find_route(const struct irqchip *chip, unsigned int pin, struct ioapic_message *route)
{
    *route = ioapic_message(&chip->ioapic, pin);
    if (is_timers(pin) && ioapic_is_open(&chip->ioapic, pin)) {
        route->data |= IOAPIC_MESSAGE_LEVEL;
        return true;
    }
    return route->is_level;
}

static void tell_routes(struct irqchip *chip)
{
    struct route_table table = {.count = 0};

    for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
        struct ioapic_message *route = &chip->routes[pin];

        if (find_route(chip, pin, route)) {
            table.entries[table.count++] = (struct kvm_irq_routing_entry){
                .gsi = pin, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {.address_lo = route->address, .data = route->data}};
        }
    }
    if (kvm_ioctl(chip->vm_fd, KVM_SET_GSI_ROUTING, &table) < 0) {
        fail(chip, "KVM_SET_GSI_ROUTING");
    }
}

/* Nobody at its address is no error of anybody's: KVM answers with one, as a bus with silence. */
static void send(struct irqchip *chip, const struct ioapic_message *message)
{
    struct kvm_msi msi = {.address_lo = message->address, .data = message->data};
    struct ioapic_message route;

    if (find_route(chip, message->pin, &route) && !is_same(&route, &chip->routes[message->pin])) {
        tell_routes(chip);
    }
    (void)kvm_ioctl(chip->vm_fd, KVM_SIGNAL_MSI, &msi);
}

/* --- Changes ----------------------------------------------------------------------------------------------------- */

static void begin(struct irqchip *chip)
{
    pthread_mutex_lock(&chip->lock);
}

static bool is_timer_heard(const struct irqchip *chip)
{
    return pic_is_open(&chip->pic, IRQCHIP_TIMER_LINE) || ioapic_is_open(&chip->ioapic, IRQCHIP_TIMER_LINE) ||
           ioapic_is_open(&chip->ioapic, TIMER_PIN);
}

static void finish(struct irqchip *chip)
{
    const bool is_raised = pic_is_raised(&chip->pic), is_heard = is_timer_heard(chip);
    struct ioapic_message message;
    bool was_raised, is_news;

    while (ioapic_take(&chip->ioapic, &message)) {
        send(chip, &message);
    }
    was_raised = atomic_exchange(&chip->is_raised, is_raised);
    is_news = atomic_exchange(&chip->is_heard, is_heard) != is_heard;
    pthread_mutex_unlock(&chip->lock);
    if (is_raised && !was_raised) {
        chip->owner.call_back(chip->owner.self);
    }
    if (is_news) {
        chip->owner.attend(chip->owner.self);
    }
}

void irqchip_set_line(void *self, unsigned int line, bool is_asserted)
{
    struct irqchip *chip = self;

    begin(chip);
    pic_set_line(&chip->pic, line, is_asserted);
    ioapic_set_line(&chip->ioapic, line, is_asserted);
    if (line == IRQCHIP_TIMER_LINE) {
        ioapic_set_line(&chip->ioapic, TIMER_PIN, is_asserted);
    }
    finish(chip);
}

bool irqchip_hears_timer(const struct irqchip *chip)
{
    return atomic_load(&chip->is_heard);
}

bool irqchip_is_quiet(struct irqchip *chip)
{
    bool is_quiet;

    pthread_mutex_lock(&chip->lock);
    is_quiet = ioapic_is_quiet(&chip->ioapic);
    pthread_mutex_unlock(&chip->lock);
    return is_quiet;
}

static bool is_timers_vector(const struct irqchip *chip, uint8_t vector)
{
    const unsigned int pins[] = {IRQCHIP_TIMER_LINE, TIMER_PIN};
    bool is_one = false;

    for (size_t i = 0; i < sizeof pins / sizeof pins[0]; i++) {
        is_one = is_one || (ioapic_is_open(&chip->ioapic, pins[i]) &&
                            (uint8_t)ioapic_message(&chip->ioapic, pins[i]).data == vector);
    }
    return is_one;
}

void irqchip_end(struct irqchip *chip, uint8_t vector)
{
    bool is_timer;

    begin(chip);
    is_timer = is_timers_vector(chip, vector);
    ioapic_end(&chip->ioapic, vector);
    finish(chip);
    if (is_timer) {
        chip->owner.taken(chip->owner.self);
    }
}

/* --- vCPU 0 ------------------------------------------------------------------------------------------------------ */

static bool acknowledge(struct irqchip *chip, uint8_t *vector)
{
    bool is_raised, is_timer;

    begin(chip);
    is_raised = pic_is_raised(&chip->pic);
    *vector = is_raised ? pic_acknowledge(&chip->pic) : 0;
    is_timer = is_raised && *vector == pic_vector(&chip->pic, IRQCHIP_TIMER_LINE);
    finish(chip);
    if (is_timer) {
        chip->owner.taken(chip->owner.self);
    }
    return is_raised;
}

void irqchip_enter(struct irqchip *chip, int vcpu_fd, struct kvm_run *run)
{
    struct kvm_interrupt interrupt;
    uint8_t vector;

    if (atomic_load(&chip->is_raised) && run->ready_for_interrupt_injection != 0 && acknowledge(chip, &vector)) {
        interrupt.irq = vector;
        run->ready_for_interrupt_injection = 0;
        if (kvm_ioctl(vcpu_fd, KVM_INTERRUPT, &interrupt) < 0) {
            fail(chip, "KVM_INTERRUPT");
        }
    }
    run->request_interrupt_window = atomic_load(&chip->is_raised);
}

/* --- The guest's accesses ---------------------------------------------------------------------------------------- */

/* Bytes of a wide access go to registers one after the other. */
static void access_chip(struct irqchip *chip, unsigned int number, struct bus_access *access)
{
    uint64_t value = 0;

    chip->owner.catch_up(chip->owner.self);
    begin(chip);
    for (uint32_t i = 0; i < access->bytes; i++) {
        if (access->is_write) {
            pic_write(&chip->pic, number, (unsigned int)access->offset + i, (uint8_t)(access->value >> 8 * i));
        } else {
            value |= (uint64_t)pic_read(&chip->pic, number, (unsigned int)access->offset + i) << 8 * i;
        }
    }
    finish(chip);
    access->value = access->is_write ? access->value : value;
}

static void access_first(void *chip, struct bus_access *access)
{
    access_chip(chip, 0, access);
}

static void access_second(void *chip, struct bus_access *access)
{
    access_chip(chip, 1, access);
}

static void access_trigger(void *self, struct bus_access *access)
{
    struct irqchip *chip = self;
    uint64_t value = 0;

    begin(chip);
    for (uint32_t i = 0; i < access->bytes; i++) {
        unsigned int number = (unsigned int)access->offset + i;

        if (access->is_write) {
            pic_write_trigger(&chip->pic, number, (uint8_t)(access->value >> 8 * i));
        } else {
            value |= (uint64_t)pic_read_trigger(&chip->pic, number) << 8 * i;
        }
    }
    finish(chip);
    access->value = access->is_write ? access->value : value;
}

static void access_ioapic(void *self, struct bus_access *access)
{
    struct irqchip *chip = self;

    chip->owner.catch_up(chip->owner.self);
    begin(chip);
    if (access->is_write) {
        ioapic_write(&chip->ioapic, access->offset, (uint32_t)access->value);
    } else {
        access->value = ioapic_read(&chip->ioapic, access->offset);
    }
    finish(chip);
}

/* --- Lifecycle --------------------------------------------------------------------------------------------------- */

enum loam_error irqchip_init(struct irqchip *chip, int vm_fd, const struct irqchip_owner *owner, struct loam_diag *diag)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IOAPIC_PINS}};

    *chip = (struct irqchip){.vm_fd = vm_fd, .owner = *owner};
    if (kvm_ioctl(vm_fd, KVM_ENABLE_CAP, &split) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_ENABLE_CAP: KVM_CAP_SPLIT_IRQCHIP with %u routes", IOAPIC_PINS);
    }
    pthread_mutex_init(&chip->lock, NULL);
    pic_reset(&chip->pic);
    ioapic_reset(&chip->ioapic);
    return LOAM_OK;
}

void irqchip_destroy(struct irqchip *chip)
{
    pthread_mutex_destroy(&chip->lock);
}

enum loam_error irqchip_add(struct irqchip *chip, struct bus *bus, struct loam_diag *diag)
{
    const struct bus_device devices[] = {
        {"8259A", BUS_PIO, PIC_FIRST_PORT, PIC_BYTES, access_first, chip},
        {"second 8259A", BUS_PIO, PIC_SECOND_PORT, PIC_BYTES, access_second, chip},
        {"8259A trigger", BUS_PIO, PIC_TRIGGER_PORT, PIC_BYTES, access_trigger, chip},
        {"I/O APIC", BUS_MMIO, IOAPIC_BASE, IOAPIC_BYTES, access_ioapic, chip},
    };

    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        enum loam_error error = bus_add(bus, &devices[i]);

        if (error != LOAM_OK) {
            return loam_fail(diag, error, "bus: no place for %s at 0x%" PRIx64, devices[i].name, devices[i].base);
        }
    }
    return LOAM_OK;
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

static const struct state_field pic_fields[] = {
    STATE_ANY(struct pic_chip, lines),
    STATE_ANY(struct pic_chip, latched),
    STATE_ANY(struct pic_chip, in_service),
    STATE_ANY(struct pic_chip, mask),
    STATE_ANY(struct pic_chip, levels),
    STATE_ANY(struct pic_chip, base),
    STATE_FIELD(struct pic_chip, lowest, PIC_LINES / PIC_CHIPS - 1),
    STATE_FIELD(struct pic_chip, awaited_word, 4),
    STATE_BOOL(struct pic_chip, is_single),
    STATE_BOOL(struct pic_chip, has_fourth_word),
    STATE_BOOL(struct pic_chip, ends_by_itself),
    STATE_BOOL(struct pic_chip, rotates_by_itself),
    STATE_BOOL(struct pic_chip, has_special_mask),
    STATE_BOOL(struct pic_chip, is_specially_nested),
    STATE_BOOL(struct pic_chip, shows_in_service),
    STATE_BOOL(struct pic_chip, is_polled),
};

static const struct state_field ioapic_fields[] = {
    STATE_FIELD(struct ioapic, id, UINT32_MAX),
    STATE_FIELD(struct ioapic, lines, (1u << IOAPIC_PINS) - 1),
    STATE_FIELD(struct ioapic, edges, (1u << IOAPIC_PINS) - 1),
    STATE_ANY(struct ioapic, selected),
    STATE_ARRAY(struct ioapic, entries, UINT64_MAX),
};

void irqchip_save(struct irqchip *chip, struct state_writer *writer)
{
    begin(chip);
    state_begin(writer, STATE_IRQCHIP, 0);
    for (uint32_t i = 0; i < PIC_CHIPS; i++) {
        state_put_fields(writer, STATE_FIELDS(pic_fields), &chip->pic.chips[i]);
    }
    state_put_fields(writer, STATE_FIELDS(ioapic_fields), &chip->ioapic);
    state_end(writer);
    pthread_mutex_unlock(&chip->lock);
}

/* KVM has to know of levels that are in service, whose ends come back. */
enum loam_error irqchip_load(struct irqchip *chip, struct state_reader *reader, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_IRQCHIP, 0, &record, diag);

    begin(chip);
    for (uint32_t i = 0; error == LOAM_OK && i < PIC_CHIPS; i++) {
        error = state_take_fields(record, STATE_FIELDS(pic_fields), &chip->pic.chips[i], diag);
    }
    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(ioapic_fields), &chip->ioapic, diag);
    }
    if (error == LOAM_OK) {
        error = state_done(record, diag);
    }
    if (error != LOAM_OK) {
        pthread_mutex_unlock(&chip->lock);
        return error;
    }
    tell_routes(chip);
    finish(chip);
    return LOAM_OK;
}
