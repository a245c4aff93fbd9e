// SPDX-License-Identifier: Apache-2.0
/*
 * The machine: one VM on a guest memory, with its vCPUs, interrupt controllers and devices.
 *
 *     machine_create -> bus_add(machine_bus(m), ...) -> machine_start -> [machine_stop_fd readable] -> machine_wait
 *                    -> machine_destroy
 *
 * A machine that has been started can be paused and goes on: machine_pause returns when every vCPU stands between two
 * instructions, with the access that its last exit asked for carried out, and no device is entered by a vCPU until
 * machine_resume. The guest's clocks stand still meanwhile: the PIT, and kvmclock's; the TSC where KVM can have it do so, and
 * the host's own clock is the TSC (Linux 5.16). A timer of a local APIC goes on, and interrupts the guest when it does
 * (guest_clock.h, pit.h).
 *
 * Each vCPU runs on a thread of its own. Whatever ends the run (the guest writes the exit port, resets, halts without
 * interrupts or breaks; the caller calls machine_stop) makes machine_stop_fd readable; the first reason counts. A guest
 * can stop itself, but cannot stop, corrupt or slow the host.
 *
 * Threads: machine_stop, machine_break, machine_press_power, machine_serial_input, machine_pause, machine_resume, machine_hold
 * and machine_let_go from any; all else from the creating thread, or from others one after the other.
 */
#ifndef LOAM_VMM_MACHINE_H
#define LOAM_VMM_MACHINE_H

#include "loam/dirty.h"
#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/guest_clock.h"
#include "vmm/irq.h"
#include "vmm/lasting.h"
#include "vmm/state.h"
#include "vmm/trace.h"
#include "vmm/virtio_mmio.h"
#include "vmm/write_log.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Where things are: the map of an x86-64 PC as far as this machine has it; platform.h has more. */
#define MACHINE_SERIAL_PORT   0x3f8u
#define MACHINE_SERIAL_IRQ    4u
#define MACHINE_EXIT_PORT     0xf4u  /* as QEMU's isa-debug-exit,iobase=0xf4,iosize=4 */
#define MACHINE_ISA_EXIT_PORT 0x501u /* the same where that device is by default */
#define MACHINE_RESET_PORT    0xcf9u /* reset control register: a 1 in bit 2 is a reset */
#define MACHINE_RESET_VALUE   0x06u  /* a reset of the processors: FADT, RESET_VALUE */
#define MACHINE_PANIC_PORT    0x505u /* as QEMU's pvpanic: reads say what is understood, a write is what happened */
#define MACHINE_POWER_PORT    0x600u /* ACPI's registers: power.h */
#define MACHINE_POWER_IRQ     9u     /* the SCI, a level */
#define MACHINE_VIRTIO_BASE   0xd0000000ul /* virtio-mmio transport n at + n * MACHINE_VIRTIO_BYTES */
#define MACHINE_VIRTIO_BYTES  0x1000ul
#define MACHINE_VIRTIO_MAX    8u

/* The interrupt controllers, where a PC has them; line n is input n of the I/O APIC. */
#define MACHINE_IO_APIC_BASE    0xfec00000ul
#define MACHINE_IO_APIC_ID      0u
#define MACHINE_LOCAL_APIC_BASE 0xfee00000ul
struct stand; /* stand.h */

/* Opaque. */
struct machine;

struct vcpu;

/* Who looks into a guest while it runs. */
struct machine_debugger {
    /*
     * vcpu has met what may be a debugger's (VCPU_DEBUG), or with is_end what is about to end the run; called on its thread with
     * no lock held. true: it is held from now on (struct vcpu, is_held) until that is taken back during a pause, which is the
     * debugger's to make; then it goes on, or ends the run.
     */
    bool (*stopped)(void *self, struct vcpu *vcpu, bool is_end);
    void *self;
};

struct machine_config {
    struct loam_memory *memory; /* outlives the machine */
    uint32_t vcpu_count;        /* 1 up to what KVM recommends */
    const struct boot_state *boot;
    /* In place of boot, which is NULL then: vCPUs and controllers are made as machine_save has written them down. */
    struct state_reader *state;
    bool without_rng; /* else virtio-rng is transport 0 */
    /*
     * Marked where a store of a vCPU's is made by assist.h, and where devices write, which KVM's dirty log does not see. Outlives the
     * machine. NULL: the machine has one of its own.
     */
    struct loam_dirty *dirty;
    struct lasting *threads; /* vCPU n runs on the n-th of these; NULL: on one of its own */
    struct trace *trace;     /* each exit is told there, in lane n of vCPU n; it outlives the machine; NULL: none is */
    /* On each vCPU's thread before its first instruction, once a thread. Failure ends the run. NULL: nothing to do. */
    enum loam_error (*vcpu_begins)(struct loam_diag *diag);
    /*
     * Called on vCPU threads, one at a time, under a device's lock and one of output, with what the guest writes to
     * COM1 and to the debug console: it does not wait.
     */
    void (*serial_output)(void *self, const uint8_t *bytes, size_t count);
    /*
     * Called on a vCPU thread after an exit with output, with no lock held, before the guest goes on: the place to wait
     * for a slow reader, until machine_pause_fd is readable at the latest. After a pause it is called again. NULL:
     * nothing to wait for.
     */
    void (*serial_pace)(void *self);
    void *serial_self;
};

enum machine_stop_reason {
    MACHINE_STOP_NONE,
    MACHINE_STOP_EXIT,      /* the guest wrote exit_code to an exit port */
    MACHINE_STOP_POWER_OFF, /* the guest entered ACPI's S5 */
    MACHINE_STOP_PANIC,     /* the guest said that it has panicked: exit_code is what it wrote */
    MACHINE_STOP_RESET,     /* the guest asked for a reset: i8042 or reset control register */
    MACHINE_STOP_HALT,      /* it can never go on: no interrupts, or they are off on every vCPU (see machine_look) */
    MACHINE_STOP_SHUTDOWN,  /* triple fault */
    MACHINE_STOP_BROKEN,    /* KVM cannot go on */
    MACHINE_STOP_REQUESTED, /* machine_stop */
    MACHINE_STOP_COUNT
};

struct machine_result {
    enum machine_stop_reason reason;
    uint32_t exit_code; /* MACHINE_STOP_EXIT, MACHINE_STOP_PANIC */
    uint32_t vcpu;      /* the vCPU that ended it */
    char cause
        [640]; /* SHUTDOWN, BROKEN, HALT: in one line why, and what to do; REQUESTED: that it waited in vain; or empty */
    char report[4096];   /* SHUTDOWN, BROKEN: what KVM said, the registers and the bytes at RIP; several lines */
    uint64_t exit_count; /* VM exits, of all vCPUs */
};

/*
 * Open /dev/kvm, ask for every capability that is needed, and set up VM, slots, interrupts, PIT, vCPUs and devices. A
 * guest of one vCPU that does without interrupts (boot_state) gets no interrupt controllers and no PIT.
 * LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_PERMITTED: no /dev/kvm, or no right to it. LOAM_ERROR_EXHAUSTED: more vCPUs or
 * slots than KVM offers. LOAM_ERROR_SYSTEM: a call failed. diag names the capability or the call, and what mends it.
 */
LOAM_MUST_USE enum loam_error machine_create(const struct machine_config *config, struct machine **machine,
                                             struct loam_diag *diag);

/* Stops and joins what runs still. NULL is allowed. */
void machine_destroy(struct machine *machine);

/* For devices of the caller's own, before machine_start. */
struct bus *machine_bus(struct machine *machine);
struct irq_line machine_irq(struct machine *machine, unsigned int number);

/* The thread of a vCPU that was started and has not been waited for, as gettid(2) gives it; 0: there is none. */
pid_t machine_vcpu_thread(const struct machine *machine, uint32_t vcpu);

/*
 * Transport n's interrupt, n below MACHINE_VIRTIO_MAX: 5, 6, 7, 10, 11, 12, 14, 15, which nothing else on a PC without
 * its old devices has.
 */
unsigned int machine_virtio_irq(unsigned int transport);

/* Whether an interrupt line is a level, high while it is asserted: the SCI, and those of virtio transports. */
bool machine_line_is_level(unsigned int number);

/*
 * Put a device of the caller's at transport n (MACHINE_VIRTIO_BASE + n * MACHINE_VIRTIO_BYTES), before machine_start;
 * it was made with machine_irq(machine, machine_virtio_irq(n)) and outlives the machine. LOAM_ERROR_OVERLAP: taken;
 * LOAM_ERROR_INVALID: n.
 */
LOAM_MUST_USE enum loam_error machine_add_virtio(struct machine *machine, unsigned int transport, const char *name,
                                                 struct virtio_mmio *mmio, struct loam_diag *diag);

/* From now on, before machine_start; *debugger is copied. */
void machine_set_debugger(struct machine *machine, const struct machine_debugger *debugger);

/*
 * vCPU index, below machine_vcpu_count: for a debugger, to be asked and changed while the machine is paused, or before
 * machine_start. The machine's.
 */
struct vcpu *machine_vcpu(struct machine *machine, uint32_t index);
uint32_t machine_vcpu_count(const struct machine *machine);

/* Start the vCPU threads. After machine_pause they are made, and stand before their first instruction. */
LOAM_MUST_USE enum loam_error machine_start(struct machine *machine, struct loam_diag *diag);

/* Readable once the run has ended or is about to; owned by the machine. */
int machine_stop_fd(const struct machine *machine);

/* Ask the run to end. No effect once another reason stands. */
void machine_stop(struct machine *machine);

/*
 * Park every vCPU, and return when all of them are, or have left because the machine stops. Counted by nobody: paused is
 * paused. No effect on one that has stopped. A vCPU that waits for a slow reader of its output (serial_pace) has to return
 * from there first, so serial_pace ends early once machine_is_pausing. Interrupts that devices raise meanwhile wait for
 * the guest. Stopping and destroying a paused machine is as that of any other.
 */
void machine_pause(struct machine *machine);

/* Let them go on, but for those that a debugger holds. No effect on one that is not paused. */
void machine_resume(struct machine *machine);

/*
 * As a pause, whoever else pauses it or lets it go on: what they ask for meanwhile happens at machine_let_go. Held by one at a time.
 * false: it has stopped, and is not held.
 */
LOAM_MUST_USE bool machine_hold(struct machine *machine);
void machine_let_go(struct machine *machine);

/* From machine_pause to machine_resume; for serial_pace, from any thread. */
bool machine_is_pausing(const struct machine *machine);

/* Readable from machine_pause to machine_resume, and once the machine stops: what serial_pace polls. The machine's. */
int machine_pause_fd(const struct machine *machine);

/* The run cannot go on, for a reason outside of the guest, which diag has; as if KVM could not. Any thread. */
void machine_break(struct machine *machine, const struct loam_diag *diag);

/*
 * Press the power button: what a guest does that listens (ACPI: PM1_EN, bit 8) is its own affair.
 * Returns whether it listens.
 */
bool machine_press_power(struct machine *machine);

/*
 * Look whether anything can still wake the guest, which KVM itself does not tell of; if nothing can, the run ends with
 * MACHINE_STOP_HALT. To be called again and again while the guest runs, first after MACHINE_LOOK_MILLISECONDS and then after as
 * many as it returns: most calls ask for clocks alone, and vCPUs are called out of the guest only where they have been
 * asleep (lookout.h), so that a guest that halts for good ends some 40 ms later, and one that runs is not disturbed.
 * Called earlier, it does nothing. Where nobody calls it, such a guest goes on for ever.
 */
#define MACHINE_LOOK_MILLISECONDS 20
int machine_look(struct machine *machine);

/* Wait for the vCPU threads to end, and say why. */
void machine_wait(struct machine *machine, struct machine_result *result);

/* Where a vCPU stands, after machine_wait. */
void machine_stand(const struct machine *machine, uint32_t vcpu, struct stand *stand);

/* Hand bytes to COM1's receiver; returns how many it took. */
size_t machine_serial_input(struct machine *machine, const uint8_t *bytes, size_t count);

/* --- What is written ---------------------------------------------------------------------------------------------- */

/*
 * As write_log.h, of all who write to the guest's memory but those who write by its HVAs behind the machine's back. One thread at a
 * time, while the machine runs or is paused; the slots are nobody else's meanwhile.
 */
LOAM_MUST_USE enum loam_error machine_log_start(struct machine *machine, struct loam_diag *diag);
LOAM_MUST_USE enum loam_error machine_log_harvest(struct machine *machine, write_log_run_fn *run, void *self,
                                                  uint64_t *page_count, struct loam_diag *diag);
void machine_log_stop(struct machine *machine);

/* Where whoever writes to guest memory marks what he has written. The machine's; NULL: it has no log. */
struct loam_dirty *machine_dirty(const struct machine *machine);

/* --- Written down ------------------------------------------------------------------------------------------------ */

/* What has to be known of a machine before it is made. */
struct machine_shape {
    uint32_t vcpu_count;
    bool has_interrupts;
    bool has_rng;
};

/* Record machine, of a machine that may run. */
void machine_shape_save(const struct machine *machine, struct state_writer *writer);

/* Errors of the record. */
LOAM_MUST_USE enum loam_error machine_shape_load(struct state_reader *reader, struct machine_shape *shape,
                                                 struct loam_diag *diag);

/*
 * Whether this host's KVM can run what is written down, before anything of it is made. LOAM_ERROR_NOT_FOUND: diag names what is
 * missing. Errors as kvm_open and of records.
 */
LOAM_MUST_USE enum loam_error machine_state_check(struct state_reader *reader, struct loam_diag *diag);

/*
 * All of a machine but its memory and its caller's devices, as it stands in a pause. Devices of the caller's are at rest, and
 * write themselves down. LOAM_ERROR_SYSTEM.
 */
LOAM_MUST_USE enum loam_error machine_save(struct machine *machine, struct state_writer *writer,
                                           struct loam_diag *diag);

/*
 * The reverse, of a machine that was made with config.state and is paused, before machine_start; the caller's devices are there,
 * and loaded after it. Errors as state_vcpu_load, and of records; the machine is fit to be destroyed then.
 */
LOAM_MUST_USE enum loam_error machine_load(struct machine *machine, struct state_reader *reader,
                                           enum guest_clock_jump jump, struct loam_diag *diag);

/* Devices look for what the driver has left them. After machine_load, and those of the caller's. */
void machine_replay(struct machine *machine);

#endif
