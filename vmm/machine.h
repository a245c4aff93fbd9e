// SPDX-License-Identifier: Apache-2.0
/*
 * The machine: one VM on a guest memory, with its vCPUs, interrupt controllers and devices.
 *
 *     machine_create -> bus_add(machine_bus(m), ...) -> machine_start -> [machine_stop_fd readable] -> machine_wait
 *                    -> machine_destroy
 *
 * Each vCPU runs on a thread of its own. Whatever ends the run (the guest writes the exit port, resets, halts without
 * interrupts or breaks; the caller calls machine_stop) makes machine_stop_fd readable; the first reason counts. A guest
 * can stop itself, but cannot stop, corrupt or slow the host.
 *
 * Threads: machine_stop and machine_serial_input from any; all else from the creating thread.
 */
#ifndef LOAM_VMM_MACHINE_H
#define LOAM_VMM_MACHINE_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/irq.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Where things are: the map of an x86-64 PC as far as this machine has it. */
#define MACHINE_SERIAL_PORT   0x3f8u
#define MACHINE_SERIAL_IRQ    4u
#define MACHINE_EXIT_PORT     0xf4u        /* as QEMU's isa-debug-exit,iobase=0xf4,iosize=4 */
#define MACHINE_KEYBOARD_PORT 0x64u        /* i8042 command port: 0xfe is a reset */
#define MACHINE_RESET_PORT    0xcf9u       /* reset control register: a 1 in bit 2 is a reset */
#define MACHINE_VIRTIO_BASE   0xd0000000ul /* virtio-mmio transport n at + n * MACHINE_VIRTIO_BYTES */
#define MACHINE_VIRTIO_BYTES  0x1000ul
#define MACHINE_VIRTIO_IRQ    5u /* transport n at + n */

/* Opaque. */
struct machine;

struct machine_config {
    struct loam_memory *memory; /* outlives the machine */
    uint32_t vcpu_count;        /* 1 up to what KVM recommends */
    const struct boot_state *boot;
    /* Called on a vCPU thread, under the bus's lock, with what the guest writes to COM1: it does not wait. */
    void (*serial_output)(void *self, const uint8_t *bytes, size_t count);
    /*
     * Called on a vCPU thread after an exit with output, with no lock held, before the guest goes on: the place to wait
     * for a slow reader, until machine_stop_fd is readable at the latest. NULL: nothing to wait for.
     */
    void (*serial_pace)(void *self);
    void *serial_self;
};

enum machine_stop_reason {
    MACHINE_STOP_NONE,
    MACHINE_STOP_EXIT,      /* the guest wrote exit_code to the exit port */
    MACHINE_STOP_RESET,     /* the guest asked for a reset: i8042 or reset control register */
    MACHINE_STOP_HALT,      /* HLT, and nothing can end it: no interrupts, or they are off (see machine_look) */
    MACHINE_STOP_SHUTDOWN,  /* triple fault */
    MACHINE_STOP_BROKEN,    /* KVM cannot go on */
    MACHINE_STOP_REQUESTED, /* machine_stop */
    MACHINE_STOP_COUNT
};

struct machine_result {
    enum machine_stop_reason reason;
    uint32_t exit_code; /* MACHINE_STOP_EXIT */
    uint32_t vcpu;      /* the vCPU that ended it */
    char cause
        [640]; /* SHUTDOWN, BROKEN, HALT: in one line why, and what to do; REQUESTED: that it waited in vain; or empty */
    char report[4096];   /* SHUTDOWN, BROKEN: what KVM said, the registers and the bytes at RIP; several lines */
    uint64_t exit_count; /* VM exits, of all vCPUs */
};

/*
 * Open /dev/kvm, ask for every capability that is needed, and set up VM, slots, irqchip, PIT, vCPUs and devices. A
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

/* Start the vCPU threads. */
LOAM_MUST_USE enum loam_error machine_start(struct machine *machine, struct loam_diag *diag);

/* Readable once the run has ended or is about to; owned by the machine. */
int machine_stop_fd(const struct machine *machine);

/* Ask the run to end. No effect once another reason stands. */
void machine_stop(struct machine *machine);

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
