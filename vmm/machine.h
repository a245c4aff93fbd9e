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
 * Threads: machine_stop, machine_press_power and machine_serial_input from any; all else from the creating thread, or from
 * others one after the other.
 */
#ifndef LOAM_VMM_MACHINE_H
#define LOAM_VMM_MACHINE_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/lasting.h"
#include "vmm/virtio_mmio.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Where things are: the map of an x86-64 PC as far as this machine has it. */
#define MACHINE_SERIAL_PORT   0x3f8u
#define MACHINE_SERIAL_IRQ    4u
#define MACHINE_EXIT_PORT     0xf4u  /* as QEMU's isa-debug-exit,iobase=0xf4,iosize=4 */
#define MACHINE_KEYBOARD_PORT 0x64u  /* i8042 command port: 0xfe is a reset */
#define MACHINE_RESET_PORT    0xcf9u /* reset control register: a 1 in bit 2 is a reset */
#define MACHINE_PANIC_PORT    0x505u /* as QEMU's pvpanic: reads say what is understood, a write is what happened */
#define MACHINE_POWER_PORT    0x600u /* ACPI's PM1a event and control registers: power.h */
#define MACHINE_POWER_IRQ     9u     /* the SCI, a level */
#define MACHINE_VIRTIO_BASE   0xd0000000ul /* virtio-mmio transport n at + n * MACHINE_VIRTIO_BYTES */
#define MACHINE_VIRTIO_BYTES  0x1000ul
#define MACHINE_VIRTIO_MAX    8u

/* Opaque. */
struct machine;

struct machine_config {
    struct loam_memory *memory; /* outlives the machine */
    uint32_t vcpu_count;        /* 1 up to what KVM recommends */
    const struct boot_state *boot;
    bool without_rng;        /* else virtio-rng is transport 0 */
    struct lasting *threads; /* vCPU n runs on the n-th of these; NULL: on one of its own */
    /* Called on a vCPU thread, under the bus's lock, with what the guest writes to COM1: it does not wait. */
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
    MACHINE_STOP_EXIT,      /* the guest wrote exit_code to the exit port */
    MACHINE_STOP_POWER_OFF, /* the guest entered ACPI's S5 */
    MACHINE_STOP_PANIC,     /* the guest said that it has panicked: exit_code is what it wrote */
    MACHINE_STOP_RESET,     /* the guest asked for a reset: i8042 or reset control register */
    MACHINE_STOP_HALT,      /* HLT, and nothing can end it: no interrupts, or they are off (see machine_look) */
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

/*
 * Put a device of the caller's at transport n (MACHINE_VIRTIO_BASE + n * MACHINE_VIRTIO_BYTES), before machine_start;
 * it was made with machine_irq(machine, machine_virtio_irq(n)) and outlives the machine. LOAM_ERROR_OVERLAP: taken;
 * LOAM_ERROR_INVALID: n.
 */
LOAM_MUST_USE enum loam_error machine_add_virtio(struct machine *machine, unsigned int transport, const char *name,
                                                 struct virtio_mmio *mmio, struct loam_diag *diag);

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

/* Let them go on. No effect on one that is not paused. */
void machine_resume(struct machine *machine);

/* From machine_pause to machine_resume; for serial_pace, from any thread. */
bool machine_is_pausing(const struct machine *machine);

/* Readable from machine_pause to machine_resume, and once the machine stops: what serial_pace polls. The machine's. */
int machine_pause_fd(const struct machine *machine);

/*
 * Press the power button: what a guest does that listens (ACPI: PM1_EN, bit 8) is its own affair. Returns whether it
 * listens.
 */
bool machine_press_power(struct machine *machine);

/*
 * Look whether anything can still wake the guest's only vCPU, which KVM itself does not tell of; if nothing can, the run
 * ends with MACHINE_STOP_HALT. A look costs the guest one exit, may miss once, and is no more than asked for here.
 */
void machine_look(struct machine *machine);

/* Wait for the vCPU threads to end, and say why. */
void machine_wait(struct machine *machine, struct machine_result *result);

/* Hand bytes to COM1's receiver; returns how many it took. */
size_t machine_serial_input(struct machine *machine, const uint8_t *bytes, size_t count);

#endif
