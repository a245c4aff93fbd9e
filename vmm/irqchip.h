// SPDX-License-Identifier: Apache-2.0
/*
 * The interrupt controllers of a PC: two 8259As (pic.h) and an I/O APIC (ioapic.h) in this process, in front of the local APICs
 * that KVM keeps (KVM_CAP_SPLIT_IRQCHIP).
 *
 * Why not KVM's: a VM's end waits for grace periods of the kernel if it has any (Linux 6.18: 12 to 25 ms, with local APICs
 * alone less than 1 ms), and a kernel may be built without them.
 *
 *     a line -> 8259As  -> LINT0 of vCPU 0: KVM_INTERRUPT, whenever that vCPU can take it
 *            -> I/O APIC -> any local APIC: KVM_SIGNAL_MSI, from whichever thread set the line
 *
 * A level's EOI has to come back to the I/O APIC, so KVM is told of it as a route (KVM_SET_GSI_ROUTING), before the first
 * interrupt that is sent by it: a vCPU that ends one comes back with KVM_EXIT_IOAPIC_EOI. Those of the timer's interrupt do
 * too, as far as KVM sees them: not where a processor carries out EOIs of edges itself (AVIC). A guest without either costs KVM
 * nothing. Only the first vCPU hears the 8259As.
 *
 * Lines are those of a PC: line n is input n of both, but for 0, the timer's, which is at inputs 0 and 2 of the I/O APIC,
 * where one or the other table tells of it. There is one device at a line. A line is asserted or not (ioapic.h).
 *
 * Threads: irqchip_set_line from any, and so the accesses, as the bus has them; irqchip_enter and irqchip_end from the vCPU's.
 * The owner's functions are called with no lock of this module held, but for failed, which must not call back.
 */
#ifndef LOAM_VMM_IRQCHIP_H
#define LOAM_VMM_IRQCHIP_H

#include "loam/error.h"
#include "vmm/bus.h"
#include "vmm/ioapic.h"
#include "vmm/pic.h"
#include "vmm/state.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define IRQCHIP_LINES      IOAPIC_PINS
#define IRQCHIP_TIMER_LINE 0u

struct irqchip_owner {
    /* vCPU 0 is wanted back from KVM_RUN: an interrupt of the 8259As waits. From any thread, its own included. */
    void (*call_back)(void *self);
    /* KVM refuses what interrupts need: diag says what. */
    void (*failed)(void *self, const struct loam_diag *diag);
    /* The guest looks at a controller: what the timer's line has come to by now is to be set. */
    void (*catch_up)(void *self);
    /* irqchip_hears_timer has changed, and may have changed again. */
    void (*attend)(void *self);
    /* An interrupt of the timer's has been taken by an 8259A's processor, or ended at a local APIC. */
    void (*taken)(void *self);
    void *self;
};

/* Of the state, pic and ioapic are all that a guest can tell. */
struct irqchip {
    int vm_fd; /* the caller's */
    struct irqchip_owner owner;
    pthread_mutex_t lock;
    struct pic pic;
    struct ioapic ioapic;
    struct ioapic_message routes[IOAPIC_PINS]; /* of levels, as KVM knows them */
    atomic_bool is_heard;                      /* the timer's line; written under lock, and so is_raised */
    atomic_bool is_raised;                     /* the 8259As want vCPU 0 */
};

/*
 * Before there are vCPUs. vm_fd outlives it. LOAM_ERROR_SYSTEM: KVM refuses it, and there is nothing to destroy.
 */
LOAM_MUST_USE enum loam_error irqchip_init(struct irqchip *chip, int vm_fd, const struct irqchip_owner *owner,
                                           struct loam_diag *diag);
void irqchip_destroy(struct irqchip *chip);

/* Their ports and registers, on bus. LOAM_ERROR_OVERLAP, LOAM_ERROR_EXHAUSTED: as bus_add. */
LOAM_MUST_USE enum loam_error irqchip_add(struct irqchip *chip, struct bus *bus, struct loam_diag *diag);

/* irq_line's set, for lines below IRQCHIP_LINES. */
void irqchip_set_line(void *chip, unsigned int line, bool is_asserted);

/* Whether an edge of the timer's line would interrupt the guest, now or once it lets it. Any thread. */
bool irqchip_hears_timer(const struct irqchip *chip);

/* Whether a vCPU that has interrupts off sleeps through whatever lines do (ioapic_is_quiet). Any thread. */
bool irqchip_is_quiet(struct irqchip *chip);

/*
 * Before each KVM_RUN of vCPU 0, with the run that its last one left: hand in what waits, if it can be taken, and have KVM come
 * back when the rest can be.
 */
void irqchip_enter(struct irqchip *chip, int vcpu_fd, struct kvm_run *run);

/* KVM_EXIT_IOAPIC_EOI. */
void irqchip_end(struct irqchip *chip, uint8_t vector);

/*
 * Written down, and read again: state.h. While no vCPU runs; loading is for one that was just made, after the local APICs.
 * Errors as state_take_fields.
 */
void irqchip_save(struct irqchip *chip, struct state_writer *writer);
LOAM_MUST_USE enum loam_error irqchip_load(struct irqchip *chip, struct state_reader *reader, struct loam_diag *diag);

#endif
