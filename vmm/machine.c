// SPDX-License-Identifier: Apache-2.0
/*
 * How a run ends. Whoever first changes reason from MACHINE_STOP_NONE owns the end: it alone writes exit_code,
 * stop_vcpu and report, and then calls everybody back. They are read when every vCPU thread has been joined.
 *
 * Calling back cannot be missed: a vCPU's request to exit stands from then on, so that a KVM_RUN which begins later
 * returns at once, and the signal ends one that has begun.
 *
 * A pause calls back in the same way. KVM completes an access when KVM_RUN is entered again, and only then looks at the
 * request (KVM API, section 5, KVM_EXIT_IO): a vCPU whose KVM_RUN was interrupted has nothing left to complete, and that
 * is where it is parked.
 *
 * Lock order: a device's on the bus (bus.h), then the device's own or that of output, then the crew's: a device asks for
 * the end from inside an access. No two of the bus's are held at once.
 */
#include "vmm/machine.h"

#include "loam/kvm.h"
#include "loam/slots.h"
#include "vmm/crew.h"
#include "vmm/decode.h"
#include "vmm/guest_clock.h"
#include "vmm/irqchip.h"
#include "vmm/kvm.h"
#include "vmm/lookout.h"
#include "vmm/lost_memory.h"
#include "vmm/lost_reason.h"
#include "vmm/pit.h"
#include "vmm/platform.h"
#include "vmm/power.h"
#include "vmm/pvpanic.h"
#include "vmm/rest.h"
#include "vmm/serial.h"
#include "vmm/stand.h"
#include "vmm/state_vcpu.h"
#include "vmm/vcpu.h"
#include "vmm/virtio_mmio.h"
#include "vmm/virtio_rng.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/*
 * Four pages that KVM keeps for itself on VT-x without unrestricted guests, where no RAM ever is: a page table,
 * and after it a TSS of three pages (KVM API, sections 4.36 and 4.41).
 */
#define IDENTITY_MAP_ADDRESS UINT64_C(0xfffbc000)
#define TSS_ADDRESS          UINT64_C(0xfffbd000)

#define EXIT_PORT_BYTES         4u
#define RESET_CONTROL_PROCESSOR 0x04u

static_assert(MACHINE_VIRTIO_BYTES == VIRTIO_MMIO_BYTES, "a transport fills its range");

struct machine {
    struct kvm kvm;
    int vm_fd;
    int stop_fd;
    struct loam_memory *memory;
    struct loam_gpa_map *map; /* of memory */
    struct loam_slots *slots; /* NULL: none were made yet */
    struct bus bus;
    struct serial serial;
    enum loam_error (*vcpu_begins)(struct loam_diag *diag);
    pthread_mutex_t output_lock; /* serial and debug console are devices each for itself, and have one output */
    void (*serial_output)(void *self, const uint8_t *bytes, size_t count);
    void (*serial_pace)(void *self);
    void *serial_self;
    struct irqchip irqchip; /* with has_irqchip */
    struct pit pit;         /* with has_pit */
    struct power power;
    struct pvpanic pvpanic;
    struct platform platform;
    struct virtio_rng rng;
    struct guest_clock clock;
    struct write_log log;
    struct loam_dirty *dirty; /* config's, or in dirty_memory */
    void *dirty_memory;
    struct crew crew;
    struct lookout lookout;
    pthread_mutex_t pausing;          /* pauses begin and end one after the other; before the crew's */
    bool is_held, stands_after;       /* machine_hold; whether it goes on when it is let go; by pausing */
    struct machine_debugger debugger; /* stopped NULL: none */
    bool has_interrupts;              /* it is to have interrupt controllers and a PIT */
    bool has_irqchip;
    bool has_pit;
    bool has_virtio_range; /* in the map */
    bool has_rng;
    atomic_uint reason;       /* enum machine_stop_reason */
    atomic_uint pacing_count; /* vCPUs that wait for the reader of their output, and are not to be woken for a look */
    uint32_t exit_code;
    uint32_t stop_vcpu;
    char cause[640];
    char report[4096];
    uint32_t vcpu_count;
    struct vcpu vcpus[];
};

static_assert(sizeof((struct machine *)0)->report == sizeof((struct machine_result *)0)->report, "copied whole");
static_assert(sizeof((struct machine *)0)->cause == sizeof((struct machine_result *)0)->cause, "copied whole");

/* Which vCPU this thread runs: for devices, which are told of an access but not by whom. NULL: none. */
static _Thread_local const struct vcpu *current_vcpu;

/* Whether this thread has been told that it runs vCPUs. */
static _Thread_local bool has_begun;

/* Whether the guest has written to COM1 in the exit that this thread carries out. */
static _Thread_local bool has_output;

/* --- The end of a run ----------------------------------------------------------------------------------------- */

static bool is_stopping(struct machine *machine)
{
    /* Pairs with claim_stop: a thread that sees the end leaves; what the owner writes is read after the join. */
    return atomic_load_explicit(&machine->reason, memory_order_acquire) != MACHINE_STOP_NONE;
}

/* Whether the end is the caller's to describe, and then to announce. */
static bool claim_stop(struct machine *machine, enum machine_stop_reason reason)
{
    unsigned int none = MACHINE_STOP_NONE;

    return atomic_compare_exchange_strong(&machine->reason, &none, (unsigned int)reason);
}

/* Whoever hears of it finds that no pause begins any more. */
static void announce_stop(struct machine *machine)
{
    crew_end(&machine->crew);
    /* It can only fail when the counter is full, and then it is readable already. */
    (void)eventfd_write(machine->stop_fd, 1);
}

/* From a vCPU's thread. */
static void stop_here(struct machine *machine, enum machine_stop_reason reason, uint32_t exit_code)
{
    if (claim_stop(machine, reason)) {
        machine->exit_code = exit_code;
        machine->stop_vcpu = current_vcpu->index;
        announce_stop(machine);
    }
}

/*
 * lost: what the vCPU missed, NULL if nothing says that it missed any memory. An error of KVM's own, and whatever a guest
 * does without its page tables or its stack, may come of missed memory too: then a register leads there.
 */
static void describe_cause(struct machine *machine, const struct vcpu *vcpu, const struct lost_memory *lost)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(machine->map);
    struct lost_memory found;

    if (lost == NULL || !lost->is_known) {
        if (vcpu_find_lost(vcpu, view, &found)) {
            lost = &found;
        } else if (lost != NULL) {
            found.is_known = lost_memory_find(view, &found.gpa);
            snprintf(found.how, sizeof found.how, "the first that is missing");
            lost = &found;
        }
    }
    if (lost != NULL) {
        lost_reason(view, loam_memory_plan(machine->memory), lost, machine->cause, sizeof machine->cause);
    } else if (vcpu->run_errno != 0) {
        snprintf(machine->cause, sizeof machine->cause, "KVM_RUN failed: %s: %s", strerror(vcpu->run_errno),
                 decode_run_error(vcpu->run_errno));
    }
    loam_gpa_map_release(machine->map, view);
}

static void stop_with_report(struct machine *machine, enum machine_stop_reason reason, const struct vcpu *vcpu,
                             const struct lost_memory *lost)
{
    if (claim_stop(machine, reason)) {
        machine->stop_vcpu = vcpu->index;
        describe_cause(machine, vcpu, lost);
        vcpu_describe(vcpu, machine->map, machine->report, sizeof machine->report);
        announce_stop(machine);
    }
}

static void stop_broken(struct machine *machine, uint32_t vcpu, const struct loam_diag *diag)
{
    if (claim_stop(machine, MACHINE_STOP_BROKEN)) {
        machine->stop_vcpu = vcpu;
        snprintf(machine->report, sizeof machine->report, "vCPU %" PRIu32 ": %s\n", vcpu, diag->text);
        announce_stop(machine);
    }
}

/* --- Devices of the machine itself ---------------------------------------------------------------------------- */

static void keep_output(void *self, const uint8_t *bytes, size_t count)
{
    struct machine *machine = self;

    has_output = true;
    if (machine->serial_output != NULL) {
        pthread_mutex_lock(&machine->output_lock);
        machine->serial_output(machine->serial_self, bytes, count);
        pthread_mutex_unlock(&machine->output_lock);
    }
}

static void exit_access(void *self, struct bus_access *access)
{
    if (access->is_write && access->offset == 0) {
        stop_here(self, MACHINE_STOP_EXIT, (uint32_t)access->value);
    }
}

static void reset(void *self)
{
    stop_here(self, MACHINE_STOP_RESET, 0);
}

/* The chipset's reset control register: bit 2 resets, whatever kind of reset the others ask for. */
static void reset_control_access(void *self, struct bus_access *access)
{
    if (!access->is_write) {
        access->value = 0;
    } else if ((access->value & RESET_CONTROL_PROCESSOR) != 0) {
        reset(self);
    }
}

static void power_off(void *self)
{
    stop_here(self, MACHINE_STOP_POWER_OFF, 0);
}

static void panicked(void *self, uint8_t events)
{
    stop_here(self, MACHINE_STOP_PANIC, events);
}

/* --- Interrupts ----------------------------------------------------------------------------------------------- */

/* Within its own exit it comes back by itself. What is asked for here it takes back when it has come: settle(). */
static void call_first_vcpu(void *self)
{
    struct machine *machine = self;

    if (current_vcpu != &machine->vcpus[0]) {
        vcpu_request_exit(&machine->vcpus[0]);
        crew_kick(&machine->crew, 0);
    }
}

static void interrupts_failed(void *self, const struct loam_diag *diag)
{
    struct machine *machine = self;

    if (claim_stop(machine, MACHINE_STOP_BROKEN)) {
        snprintf(machine->report, sizeof machine->report, "%s\n", diag->text);
        announce_stop(machine);
    }
}

static void catch_timer_up(void *self)
{
    pit_catch_up(&((struct machine *)self)->pit);
}

static void attend_timer(void *self)
{
    pit_attend(&((struct machine *)self)->pit);
}

static void tick_taken(void *self)
{
    pit_taken(&((struct machine *)self)->pit);
}

static bool is_timer_heard(void *self)
{
    return irqchip_hears_timer(&((struct machine *)self)->irqchip);
}

static enum loam_error add_interrupts(struct machine *machine, struct loam_diag *diag)
{
    const struct irqchip_owner owner = {call_first_vcpu, interrupts_failed, catch_timer_up,
                                        attend_timer,    tick_taken,        machine};
    enum loam_error error = irqchip_init(&machine->irqchip, machine->vm_fd, &owner, diag);

    if (error != LOAM_OK) {
        return error;
    }
    machine->has_irqchip = machine->has_pit = true;
    pit_init(&machine->pit, machine_irq(machine, IRQCHIP_TIMER_LINE), is_timer_heard, machine);
    return irqchip_add(&machine->irqchip, &machine->bus, diag);
}

static enum loam_error add_rng(struct machine *machine, struct loam_diag *diag)
{
    struct irq_line irq = machine_irq(machine, machine_virtio_irq(0));
    enum loam_error error = virtio_rng_init(&machine->rng, machine->map, irq, NULL, NULL);

    machine->has_rng = error == LOAM_OK;
    return error == LOAM_OK ? machine_add_virtio(machine, 0, "virtio-rng", &machine->rng.mmio, diag)
                            : loam_fail(diag, error, "virtio-rng: cannot be set up");
}

static enum loam_error add_device(struct machine *machine, const struct bus_device *device, struct loam_diag *diag)
{
    enum loam_error error = bus_add(&machine->bus, device);

    return error == LOAM_OK ? LOAM_OK
                            : loam_fail(diag, error, "bus: no place for %s at 0x%" PRIx64, device->name, device->base);
}

static enum loam_error add_platform(struct machine *machine, uint32_t vcpu_count, struct loam_diag *diag)
{
    const struct platform_config config = {.plan = loam_memory_plan(machine->memory),
                                           .vcpu_count = vcpu_count,
                                           .reset = reset,
                                           .output = keep_output,
                                           .self = machine};

    platform_init(&machine->platform, &config);
    return platform_add(&machine->platform, &machine->bus, diag);
}

static enum loam_error add_devices(struct machine *machine, const struct machine_config *config, struct loam_diag *diag)
{
    const struct bus_device devices[] = {
        {"serial", BUS_PIO, MACHINE_SERIAL_PORT, SERIAL_BYTES, serial_access, &machine->serial},
        {"exit", BUS_PIO, MACHINE_EXIT_PORT, EXIT_PORT_BYTES, exit_access, machine},
        {"isa exit", BUS_PIO, MACHINE_ISA_EXIT_PORT, EXIT_PORT_BYTES, exit_access, machine},
        {"reset control", BUS_PIO, MACHINE_RESET_PORT, 1, reset_control_access, machine},
        {"power", BUS_PIO, MACHINE_POWER_PORT, POWER_BYTES, power_access, &machine->power},
        {"pvpanic", BUS_PIO, MACHINE_PANIC_PORT, PVPANIC_BYTES, pvpanic_access, &machine->pvpanic},
        {"pit", BUS_PIO, PIT_PORT, PIT_BYTES, pit_access, &machine->pit},
        {"speaker", BUS_PIO, PIT_SPEAKER_PORT, 1, pit_speaker_access, &machine->pit},
    };
    size_t count = sizeof devices / sizeof devices[0] - (machine->has_pit ? 0 : 2); /* without PIT and speaker */
    enum loam_error error = LOAM_OK;

    pvpanic_init(&machine->pvpanic, panicked, machine);
    for (size_t i = 0; error == LOAM_OK && i < count; i++) {
        error = add_device(machine, &devices[i], diag);
    }
    if (error == LOAM_OK) {
        error = add_platform(machine, config->vcpu_count, diag);
    }
    return error == LOAM_OK && !config->without_rng ? add_rng(machine, diag) : error;
}

/* --- A vCPU's rounds ------------------------------------------------------------------------------------------ */

static void settle(struct machine *machine, struct vcpu *vcpu, enum vcpu_event event)
{
    switch (event) {
    case VCPU_RESET:
        stop_here(machine, MACHINE_STOP_RESET, 0);
        break;
    case VCPU_HALTED:
        stop_here(machine, MACHINE_STOP_HALT, 0);
        break;
    case VCPU_END_OF_INTERRUPT:
        irqchip_end(&machine->irqchip, vcpu->run->eoi.vector);
        break;
    case VCPU_INTERRUPTED:
        vcpu_withdraw_exit(vcpu);
        if (crew_is_pausing(&machine->crew)) {
            crew_rest(&machine->crew);
        }
        break;
    case VCPU_SHUTDOWN:
        stop_with_report(machine, MACHINE_STOP_SHUTDOWN, vcpu, NULL);
        break;
    case VCPU_LOST_MEMORY:
        stop_with_report(machine, MACHINE_STOP_BROKEN, vcpu, &vcpu->lost);
        break;
    case VCPU_BROKEN:
    case VCPU_DEBUG:
        stop_with_report(machine, MACHINE_STOP_BROKEN, vcpu, NULL);
        break;
    default:
        break;
    }
}

/*
 * Here no lock is held: a guest whose output nobody reads waits, and hinders no other vCPU that does not print. One that
 * came back to be parked waits for its reader again, once it has been.
 */
static void pace(struct machine *machine)
{
    if (has_output && machine->serial_pace != NULL) {
        atomic_fetch_add(&machine->pacing_count, 1);
        machine->serial_pace(machine->serial_self);
        atomic_fetch_sub(&machine->pacing_count, 1);
    }
    has_output = has_output && crew_is_pausing(&machine->crew);
}

/* What a debugger is to see does not come to pass before it lets the vCPU go on. */
static enum vcpu_event show(struct machine *machine, struct vcpu *vcpu, enum vcpu_event event)
{
    const struct machine_debugger *debugger = &machine->debugger;
    bool is_end = event == VCPU_SHUTDOWN || event == VCPU_BROKEN || event == VCPU_LOST_MEMORY || event == VCPU_HALTED;

    if (debugger->stopped == NULL || (event != VCPU_DEBUG && !is_end)) {
        return event;
    }
    if (debugger->stopped(debugger->self, vcpu, is_end)) {
        vcpu->is_held = true;
        vcpu->left = is_end ? event : VCPU_RAN;
        return VCPU_RAN;
    }
    return event == VCPU_DEBUG ? vcpu_pass_debug(vcpu, &machine->bus, machine->map) : event;
}

/* A debugger has the vCPU, or has left something behind that was to come of it. */
static void hold_back(struct machine *machine, struct vcpu *vcpu)
{
    struct pollfd pause = {.fd = crew_pause_fd(&machine->crew), .events = POLLIN};

    if (vcpu->is_held) {
        (void)poll(&pause, 1, -1);
        crew_rest(&machine->crew);
    } else {
        settle(machine, vcpu, vcpu->left);
    }
}

static void begin(struct machine *machine, uint32_t index)
{
    struct loam_diag diag = {0};

    if (!has_begun && machine->vcpu_begins != NULL && machine->vcpu_begins(&diag) != LOAM_OK) {
        stop_broken(machine, index, &diag);
    }
    has_begun = true;
}

static bool run_round(void *self, uint32_t index)
{
    struct machine *machine = self;
    struct vcpu *vcpu = &machine->vcpus[index];

    current_vcpu = vcpu;
    begin(machine, index);
    if (is_stopping(machine)) {
        return false;
    }
    if (__builtin_expect(vcpu->is_held || vcpu->left != VCPU_RAN, false)) {
        hold_back(machine, vcpu);
        return true;
    }
    /* This vCPU may hear of a pause before the pause has come to it: from then on it does not enter the guest. */
    if (crew_is_pausing(&machine->crew)) {
        vcpu_request_exit(vcpu);
    }
    if (index == 0 && machine->has_irqchip) {
        irqchip_enter(&machine->irqchip, vcpu->fd, vcpu->run);
    }
    settle(machine, vcpu, show(machine, vcpu, vcpu_run(vcpu, &machine->bus, machine->map)));
    pace(machine);
    return true;
}

static void hold_vcpu(void *self, uint32_t index, bool is_held)
{
    struct machine *machine = self;

    if (is_held) {
        vcpu_request_exit(&machine->vcpus[index]);
    } else {
        vcpu_withdraw_exit(&machine->vcpus[index]);
    }
}

/* --- Creation ------------------------------------------------------------------------------------------------- */

static enum loam_error check_config(const struct machine_config *config, struct loam_diag *diag)
{
    if (config->memory == NULL || (config->boot == NULL) == (config->state == NULL) || config->vcpu_count == 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "machine: it needs memory, a boot state or what is written down, and at least one vCPU");
    }
    if (config->threads != NULL && lasting_count(config->threads) < config->vcpu_count) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "machine: %" PRIu32 " vCPUs, and %" PRIu32 " threads for them",
                         config->vcpu_count, lasting_count(config->threads));
    }
    if (config->boot != NULL && (unsigned int)config->boot->protocol >= BOOT_PROTOCOL_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "machine: boot protocol %u is none",
                         (unsigned int)config->boot->protocol);
    }
    return LOAM_OK;
}

static enum loam_error open_kvm(struct kvm *kvm, uint32_t vcpu_count, struct loam_diag *diag)
{
    enum loam_error error = kvm_open(KVM_DEVICE, kvm, diag);

    if (error == LOAM_OK && vcpu_count > kvm->vcpu_limit) {
        error = loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                          "vCPUs: %" PRIu32 " wanted, KVM has at most %" PRIu32 " for one machine: ask for fewer",
                          vcpu_count, kvm->vcpu_limit);
        kvm_close(kvm);
    }
    return error;
}

static enum loam_error open_vm(struct machine *machine, struct loam_diag *diag)
{
    const struct loam_slots_config config = {loam_kvm_set_slot, &machine->vm_fd, machine->kvm.slot_limit, 0};
    enum loam_error error;

    machine->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (machine->stop_fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "eventfd");
    }
    error = loam_slots_create(&config, &machine->slots, diag);
    return error == LOAM_OK ? kvm_create_vm(&machine->kvm, &machine->vm_fd, diag) : error;
}

/* Of all RAM up to its end; what is never marked takes no memory. */
static enum loam_error make_dirty(struct machine *machine, struct loam_dirty *given, struct loam_diag *diag)
{
    const struct loam_plan *plan = loam_memory_plan(machine->memory);
    const struct loam_plan_part *last = &plan->parts[plan->part_count - 1];
    const struct loam_dirty_config config = {.bytes = last->start.value + last->bytes};
    const size_t bytes = loam_dirty_bytes(&config);

    machine->dirty = given;
    if (given != NULL) {
        return LOAM_OK;
    }
    machine->dirty_memory = calloc(1, bytes);
    return machine->dirty_memory != NULL &&
                   loam_dirty_init(machine->dirty_memory, bytes, &config, &machine->dirty) == LOAM_OK
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "machine: no memory for marks");
}

/* Devices' addresses are kept free of memory for as long as the machine is there. */
static enum loam_error reserve_range(struct machine *machine, struct loam_diag *diag)
{
    struct loam_region region = {
        .start = loam_gpa_from_u64(MACHINE_VIRTIO_BASE),
        .bytes = MACHINE_VIRTIO_MAX * MACHINE_VIRTIO_BYTES,
        .type = LOAM_REGION_DEVICE,
        .access = LOAM_ACCESS_NONE,
    };
    enum loam_error error = loam_gpa_map_insert(machine->map, &region);

    machine->has_virtio_range = error == LOAM_OK;
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "GPA map: no place for virtio-mmio at 0x%lx: %s", MACHINE_VIRTIO_BASE,
                         loam_error_name(error));
    }
    return LOAM_OK;
}

static enum loam_error show_memory(struct machine *machine, struct loam_diag *diag)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(machine->map);
    enum loam_error error = loam_slots_update(machine->slots, view, diag);

    loam_gpa_map_release(machine->map, view);
    return error;
}

static enum loam_error furnish_vm(struct machine *machine, struct loam_diag *diag)
{
    uint64_t identity_map = IDENTITY_MAP_ADDRESS;
    enum loam_error error;

    if (kvm_ioctl_number(machine->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_SET_TSS_ADDR 0x%" PRIx64, TSS_ADDRESS);
    }
    if (kvm_ioctl(machine->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_SET_IDENTITY_MAP_ADDR 0x%" PRIx64, identity_map);
    }
    error = show_memory(machine, diag);
    return error == LOAM_OK && machine->has_interrupts ? add_interrupts(machine, diag) : error;
}

static enum loam_error add_vcpus(struct machine *machine, const struct machine_config *config, struct loam_diag *diag)
{
    uint32_t count = config->vcpu_count;
    struct vcpu_cpuid cpuid;
    enum loam_error error = config->state != NULL ? LOAM_OK : vcpu_cpuid_supported(&machine->kvm, &cpuid, diag);

    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        if (config->state == NULL) {
            vcpu_cpuid_adapt(&cpuid, i, count, machine->kvm.has_deadline_timer);
        } else {
            error = state_vcpu_cpuid(config->state, i, &cpuid, diag);
        }
        if (error != LOAM_OK) {
            return error;
        }
        error = vcpu_create(&machine->kvm, machine->vm_fd, i, &cpuid, &machine->vcpus[i], diag);
        machine->vcpus[i].dirty = machine->dirty;
        machine->vcpu_count += error == LOAM_OK;
    }
    return error == LOAM_OK && config->state == NULL
               ? vcpu_boot(&machine->vcpus[0], config->boot, machine->has_interrupts, diag)
               : error;
}

static void attach_trace(struct machine *machine, struct trace *trace)
{
    for (uint32_t i = 0; trace != NULL && i < machine->vcpu_count; i++) {
        vcpu_set_trace(&machine->vcpus[i], trace_lane(trace, i), crew_pause_fd(&machine->crew));
    }
}

static enum loam_error set_up(struct machine *machine, const struct machine_config *config, struct loam_diag *diag)
{
    const struct crew_work work = {run_round, hold_vcpu, machine, config->threads};
    enum loam_error error = open_vm(machine, diag);

    if (error == LOAM_OK) {
        error = make_dirty(machine, config->dirty, diag);
    }
    if (error == LOAM_OK) {
        write_log_init(&machine->log, machine->vm_fd, machine->slots, machine->map, machine->dirty);
        error = reserve_range(machine, diag);
    }
    if (error == LOAM_OK) {
        error = furnish_vm(machine, diag);
    }
    if (error == LOAM_OK) {
        error = add_devices(machine, config, diag);
    }
    if (error == LOAM_OK) {
        error = add_vcpus(machine, config, diag);
    }
    if (error == LOAM_OK) {
        error = crew_init(&machine->crew, &work, config->vcpu_count, diag);
    }
    if (error == LOAM_OK) {
        attach_trace(machine, config->trace);
    }
    return error;
}

/* Everything that needs no undoing; kvm is the machine's from here on. */
static struct machine *make_empty(const struct machine_config *config, const struct kvm *kvm, bool has_interrupts)
{
    struct machine *machine = calloc(1, sizeof *machine + config->vcpu_count * sizeof machine->vcpus[0]);

    if (machine != NULL) {
        machine->kvm = *kvm;
        machine->vm_fd = machine->stop_fd = -1;
        machine->memory = config->memory;
        machine->map = loam_memory_map(config->memory);
        machine->has_interrupts = has_interrupts;
        bus_init(&machine->bus);
        machine->vcpu_begins = config->vcpu_begins;
        pthread_mutex_init(&machine->output_lock, NULL);
        pthread_mutex_init(&machine->pausing, NULL);
        machine->serial_output = config->serial_output;
        machine->serial_pace = config->serial_pace;
        machine->serial_self = config->serial_self;
        serial_init(&machine->serial, machine_irq(machine, MACHINE_SERIAL_IRQ), keep_output, machine);
        power_init(&machine->power, machine_irq(machine, MACHINE_POWER_IRQ), power_off, machine);
    }
    return machine;
}

/* What is written down is of a machine such as config wants it. */
static enum loam_error check_shape(const struct machine_config *config, bool *has_interrupts, struct loam_diag *diag)
{
    struct machine_shape shape;
    enum loam_error error;

    if (config->state == NULL) {
        *has_interrupts = !config->boot->without_interrupts || config->vcpu_count > 1;
        return LOAM_OK;
    }
    error = machine_shape_load(config->state, &shape, diag);
    *has_interrupts = error == LOAM_OK && shape.has_interrupts;
    if (error == LOAM_OK && (shape.vcpu_count != config->vcpu_count || shape.has_rng == config->without_rng)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "state: a machine with %" PRIu32 " vCPUs %s virtio-rng wanted there, and %" PRIu32
                         " %s it here: give it as many",
                         shape.vcpu_count, shape.has_rng ? "and" : "without", config->vcpu_count,
                         config->without_rng ? "without" : "and");
    }
    return error;
}

enum loam_error machine_create(const struct machine_config *config, struct machine **machine, struct loam_diag *diag)
{
    struct machine *made;
    struct kvm kvm;
    enum loam_error error;
    bool has_interrupts;

    *machine = NULL;
    error = check_config(config, diag);
    if (error == LOAM_OK) {
        error = check_shape(config, &has_interrupts, diag);
    }
    if (error == LOAM_OK) {
        error = open_kvm(&kvm, config->vcpu_count, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    made = make_empty(config, &kvm, has_interrupts);
    if (made == NULL) {
        error = loam_fail(diag, LOAM_ERROR_SYSTEM, "machine: no memory");
        kvm_close(&kvm);
        return error;
    }
    error = set_up(made, config, diag);
    if (error == LOAM_OK) {
        *machine = made;
    } else {
        machine_destroy(made);
    }
    return error;
}

/* --- Destruction ---------------------------------------------------------------------------------------------- */

/* KVM forgets a VM when its last descriptor and the last mapping of a vCPU are gone. */
static void close_vm(struct machine *machine)
{
    for (uint32_t i = 0; i < machine->vcpu_count; i++) {
        vcpu_destroy(&machine->vcpus[i]);
    }
    if (machine->vm_fd >= 0) {
        close(machine->vm_fd);
    }
    loam_slots_destroy(machine->slots);
    kvm_close(&machine->kvm);
}

static void release_range(struct machine *machine)
{
    loam_gpa start = loam_gpa_from_u64(MACHINE_VIRTIO_BASE);

    /* BUSY is the only error there can be, while a reader holds each of the map's tables: readers never do for long. */
    while (machine->has_virtio_range &&
           loam_gpa_map_remove(machine->map, start, MACHINE_VIRTIO_MAX * MACHINE_VIRTIO_BYTES) == LOAM_ERROR_BUSY) {
        sched_yield();
    }
}

void machine_destroy(struct machine *machine)
{
    if (machine == NULL) {
        return;
    }
    if (machine->crew.members != NULL) {
        machine_stop(machine);
        crew_join(&machine->crew);
        crew_destroy(&machine->crew);
    }
    write_log_stop(&machine->log);
    if (machine->has_pit) {
        pit_destroy(&machine->pit);
    }
    close_vm(machine);
    if (machine->has_irqchip) {
        irqchip_destroy(&machine->irqchip);
    }
    if (machine->has_rng) {
        virtio_rng_destroy(&machine->rng);
    }
    serial_destroy(&machine->serial);
    power_destroy(&machine->power);
    pthread_mutex_destroy(&machine->output_lock);
    bus_destroy(&machine->bus);
    pthread_mutex_destroy(&machine->pausing);
    release_range(machine);
    free(machine->dirty_memory);
    if (machine->stop_fd >= 0) {
        close(machine->stop_fd);
    }
    free(machine);
}

/* --- What callers add ----------------------------------------------------------------------------------------- */

struct bus *machine_bus(struct machine *machine)
{
    return &machine->bus;
}

struct irq_line machine_irq(struct machine *machine, unsigned int number)
{
    return (struct irq_line){
        .set = machine->has_interrupts ? irqchip_set_line : NULL, .controller = &machine->irqchip, .number = number};
}

unsigned int machine_virtio_irq(unsigned int transport)
{
    static const uint8_t numbers[MACHINE_VIRTIO_MAX] = {5, 6, 7, 10, 11, 12, 14, 15};

    return numbers[transport];
}

bool machine_line_is_level(unsigned int number)
{
    bool is_level = number == MACHINE_POWER_IRQ;

    for (unsigned int i = 0; i < MACHINE_VIRTIO_MAX; i++) {
        is_level = is_level || number == machine_virtio_irq(i);
    }
    return is_level;
}

enum loam_error machine_add_virtio(struct machine *machine, unsigned int transport, const char *name,
                                   struct virtio_mmio *mmio, struct loam_diag *diag)
{
    const struct bus_device device = {.name = name,
                                      .space = BUS_MMIO,
                                      .base = MACHINE_VIRTIO_BASE + transport * MACHINE_VIRTIO_BYTES,
                                      .bytes = MACHINE_VIRTIO_BYTES,
                                      .access = virtio_mmio_access,
                                      .device = mmio};

    if (transport >= MACHINE_VIRTIO_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: virtio transport %u wanted, and there are 0 to %u", name,
                         transport, MACHINE_VIRTIO_MAX - 1);
    }
    mmio->dirty = machine->dirty;
    return add_device(machine, &device, diag);
}

void machine_set_debugger(struct machine *machine, const struct machine_debugger *debugger)
{
    machine->debugger = *debugger;
}

struct vcpu *machine_vcpu(struct machine *machine, uint32_t index)
{
    return &machine->vcpus[index];
}

uint32_t machine_vcpu_count(const struct machine *machine)
{
    return machine->vcpu_count;
}

pid_t machine_vcpu_thread(const struct machine *machine, uint32_t vcpu)
{
    return crew_thread(&machine->crew, vcpu);
}

/* --- The run -------------------------------------------------------------------------------------------------- */

enum loam_error machine_start(struct machine *machine, struct loam_diag *diag)
{
    enum loam_error error = machine->has_pit ? pit_start(&machine->pit, diag) : LOAM_OK;

    bus_seal(&machine->bus);
    if (error == LOAM_OK) {
        error = crew_start(&machine->crew, diag);
    }
    if (error != LOAM_OK) {
        machine_stop(machine);
        crew_join(&machine->crew);
    }
    return error;
}

int machine_stop_fd(const struct machine *machine)
{
    return machine->stop_fd;
}

void machine_stop(struct machine *machine)
{
    if (claim_stop(machine, MACHINE_STOP_REQUESTED)) {
        announce_stop(machine);
    }
}

void machine_break(struct machine *machine, const struct loam_diag *diag)
{
    if (claim_stop(machine, MACHINE_STOP_BROKEN)) {
        snprintf(machine->cause, sizeof machine->cause, "%s", diag->text);
        announce_stop(machine);
    }
}

bool machine_press_power(struct machine *machine)
{
    return power_press(&machine->power);
}

/* --- Pauses --------------------------------------------------------------------------------------------------- */

static void stand(struct machine *machine)
{
    if (crew_pause(&machine->crew)) {
        if (machine->has_pit) {
            pit_hold(&machine->pit);
        }
        guest_clock_hold(&machine->clock, machine->vm_fd);
    }
}

void machine_pause(struct machine *machine)
{
    pthread_mutex_lock(&machine->pausing);
    machine->stands_after = true;
    stand(machine);
    pthread_mutex_unlock(&machine->pausing);
}

static void let_go_on(struct machine *machine)
{
    guest_clock_go_on(&machine->clock, machine->vm_fd);
    for (uint32_t i = 0; i < machine->vcpu_count; i++) {
        guest_clock_go_on_vcpu(&machine->clock, machine->vcpus[i].fd);
    }
    if (machine->has_pit) {
        pit_go_on(&machine->pit);
    }
    crew_resume(&machine->crew);
}

void machine_resume(struct machine *machine)
{
    pthread_mutex_lock(&machine->pausing);
    machine->stands_after = false;
    if (!machine->is_held && crew_is_pausing(&machine->crew)) {
        let_go_on(machine);
    }
    pthread_mutex_unlock(&machine->pausing);
}

bool machine_hold(struct machine *machine)
{
    bool is_held;

    pthread_mutex_lock(&machine->pausing);
    machine->stands_after = crew_is_pausing(&machine->crew);
    stand(machine);
    is_held = crew_is_pausing(&machine->crew) && atomic_load(&machine->reason) == MACHINE_STOP_NONE;
    machine->is_held = is_held;
    pthread_mutex_unlock(&machine->pausing);
    return is_held;
}

void machine_let_go(struct machine *machine)
{
    pthread_mutex_lock(&machine->pausing);
    machine->is_held = false;
    if (!machine->stands_after && crew_is_pausing(&machine->crew)) {
        let_go_on(machine);
    }
    pthread_mutex_unlock(&machine->pausing);
}

bool machine_is_pausing(const struct machine *machine)
{
    return crew_is_pausing(&machine->crew);
}

int machine_pause_fd(const struct machine *machine)
{
    return crew_pause_fd(&machine->crew);
}

/* --- The end ---------------------------------------------------------------------------------------------------- */

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* No vCPU is in KVM_RUN. */
static bool is_at_rest(struct machine *machine, struct rest *rest)
{
    return machine->has_interrupts && rest_is_for_good(machine->vcpus, machine->vcpu_count, rest) &&
           irqchip_is_quiet(&machine->irqchip);
}

/* With every vCPU parked, as rest.h wants it; the guest's clocks go on, for this takes no longer than an exit of each. */
static void look(struct machine *machine)
{
    struct rest rest;

    if (atomic_load(&machine->pacing_count) > 0 || pthread_mutex_trylock(&machine->pausing) != 0) {
        return;
    }
    if (!crew_pause(&machine->crew)) {
        pthread_mutex_unlock(&machine->pausing);
        return;
    }
    if (is_at_rest(machine, &rest) && claim_stop(machine, MACHINE_STOP_HALT)) {
        machine->stop_vcpu = rest.vcpu;
        strcpy(machine->cause, "the guest ");
        rest_describe(&rest, machine->cause + strlen(machine->cause), sizeof machine->cause - strlen(machine->cause));
        announce_stop(machine);
    }
    crew_resume(&machine->crew);
    pthread_mutex_unlock(&machine->pausing);
}

int machine_look(struct machine *machine)
{
    int64_t now = now_milliseconds();

    if (!machine->has_interrupts || is_stopping(machine) || crew_is_pausing(&machine->crew)) {
        return LOOKOUT_MAX_MILLISECONDS;
    }
    if (lookout_is_due(&machine->lookout, now) &&
        lookout_turn(&machine->lookout, now, crew_taken_nanoseconds(&machine->crew))) {
        look(machine);
    }
    return lookout_wait_milliseconds(&machine->lookout, now);
}

/* Of a machine that was asked to stop: that it would never have ended by itself. */
static void describe_rest(struct machine *machine, char *text, size_t bytes)
{
    struct rest rest;

    if (is_at_rest(machine, &rest)) {
        snprintf(text, bytes, "it ");
        rest_describe(&rest, text + strlen(text), bytes - strlen(text));
    }
}

void machine_wait(struct machine *machine, struct machine_result *result)
{
    crew_join(&machine->crew);
    *result = (struct machine_result){
        .reason = (enum machine_stop_reason)atomic_load(&machine->reason),
        .exit_code = machine->exit_code,
        .vcpu = machine->stop_vcpu,
    };
    memcpy(result->cause, machine->cause, sizeof result->cause);
    if (result->reason == MACHINE_STOP_REQUESTED) {
        describe_rest(machine, result->cause, sizeof result->cause);
    }
    memcpy(result->report, machine->report, sizeof result->report);
    for (uint32_t i = 0; i < machine->vcpu_count; i++) {
        result->exit_count += machine->vcpus[i].exit_count;
    }
}

void machine_stand(const struct machine *machine, uint32_t vcpu, struct stand *stand)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(machine->map);

    stand_ask(&machine->vcpus[vcpu], view, stand);
    loam_gpa_map_release(machine->map, view);
}

size_t machine_serial_input(struct machine *machine, const uint8_t *bytes, size_t count)
{
    return serial_receive(&machine->serial, bytes, count);
}

/* --- What is written ---------------------------------------------------------------------------------------------- */

enum loam_error machine_log_start(struct machine *machine, struct loam_diag *diag)
{
    return write_log_start(&machine->log, diag);
}

enum loam_error machine_log_harvest(struct machine *machine, write_log_run_fn *run, void *self, uint64_t *page_count,
                                    struct loam_diag *diag)
{
    return write_log_harvest(&machine->log, run, self, page_count, diag);
}

struct loam_dirty *machine_dirty(const struct machine *machine)
{
    return machine->dirty;
}

void machine_log_stop(struct machine *machine)
{
    write_log_stop(&machine->log);
}

/* --- Written down ------------------------------------------------------------------------------------------------ */

static const struct state_field shape_fields[] = {
    STATE_ANY(struct machine_shape, vcpu_count),
    STATE_BOOL(struct machine_shape, has_interrupts),
    STATE_BOOL(struct machine_shape, has_rng),
};

void machine_shape_save(const struct machine *machine, struct state_writer *writer)
{
    const struct machine_shape shape = {machine->vcpu_count, machine->has_interrupts, machine->has_rng};

    state_begin(writer, STATE_MACHINE, 0);
    state_put_fields(writer, STATE_FIELDS(shape_fields), &shape);
    state_end(writer);
}

enum loam_error machine_shape_load(struct state_reader *reader, struct machine_shape *shape, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_MACHINE, 0, &record, diag);

    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(shape_fields), shape, diag);
    }
    if (error == LOAM_OK && (shape->vcpu_count == 0 || (shape->vcpu_count > 1 && !shape->has_interrupts))) {
        return state_refuse(record, diag, "%" PRIu32 " vCPUs %s interrupt controllers", shape->vcpu_count,
                            shape->has_interrupts ? "with" : "without");
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}

enum loam_error machine_state_check(struct state_reader *reader, struct loam_diag *diag)
{
    struct machine_shape shape;
    struct kvm kvm;
    enum loam_error error = machine_shape_load(reader, &shape, diag);

    if (error == LOAM_OK) {
        error = open_kvm(&kvm, shape.vcpu_count, diag);
    }
    if (error == LOAM_OK) {
        for (uint32_t i = 0; error == LOAM_OK && i < shape.vcpu_count; i++) {
            error = state_vcpu_check(&kvm, reader, i, diag);
        }
        kvm_close(&kvm);
    }
    return error;
}

enum loam_error machine_save(struct machine *machine, struct state_writer *writer, struct loam_diag *diag)
{
    const uint64_t elapsed = guest_clock_elapsed(&machine->clock, machine->vm_fd);
    enum loam_error error = LOAM_OK;

    machine_shape_save(machine, writer);
    guest_clock_save(&machine->clock, writer);
    for (uint32_t i = 0; error == LOAM_OK && i < machine->vcpu_count; i++) {
        error = state_vcpu_save(&machine->kvm, &machine->vcpus[i], machine->has_interrupts, elapsed, writer, diag);
    }
    if (machine->has_irqchip) {
        irqchip_save(&machine->irqchip, writer);
        pit_save(&machine->pit, writer);
    }
    serial_save(&machine->serial, writer);
    power_save(&machine->power, writer);
    platform_save(&machine->platform, writer);
    if (machine->has_rng) {
        virtio_mmio_save(&machine->rng.mmio, writer, 0);
    }
    return error;
}

static enum loam_error load_vcpus(struct machine *machine, struct state_reader *reader, enum guest_clock_jump jump,
                                  struct loam_diag *diag)
{
    struct guest_clock_base base;
    enum loam_error error = guest_clock_load(&machine->clock, machine->vm_fd, jump, reader, &base, diag);

    for (uint32_t i = 0; error == LOAM_OK && i < machine->vcpu_count; i++) {
        error = state_vcpu_load(&machine->kvm, &machine->vcpus[i], machine->has_interrupts, &base, reader, diag);
    }
    return error;
}

static enum loam_error load_interrupts(struct machine *machine, struct state_reader *reader, struct loam_diag *diag)
{
    enum loam_error error = pit_load(&machine->pit, reader, diag);

    return error == LOAM_OK ? irqchip_load(&machine->irqchip, reader, diag) : error;
}

/* Lines as their controllers have them are the devices' too: nobody sets one here. */
enum loam_error machine_load(struct machine *machine, struct state_reader *reader, enum guest_clock_jump jump,
                             struct loam_diag *diag)
{
    enum loam_error error = load_vcpus(machine, reader, jump, diag);

    if (error == LOAM_OK && machine->has_irqchip) {
        error = load_interrupts(machine, reader, diag);
    }
    if (error == LOAM_OK) {
        error = serial_load(&machine->serial, reader, diag);
    }
    if (error == LOAM_OK) {
        error = power_load(&machine->power, reader, diag);
    }
    if (error == LOAM_OK) {
        error = platform_load(&machine->platform, reader, diag);
    }
    return error == LOAM_OK && machine->has_rng ? virtio_mmio_load(&machine->rng.mmio, reader, 0, diag) : error;
}

void machine_replay(struct machine *machine)
{
    if (machine->has_rng) {
        virtio_mmio_replay(&machine->rng.mmio);
    }
}
