// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that means harm to its devices, and not to itself: what its parts share.
 *
 * Guest memory, which has 64 MiB:
 *
 *     1 MiB   the guest itself: named in no descriptor
 *    16 MiB   canaries, 64 KiB beyond it: likewise; they and the code are looked at in the end
 *    24 MiB   tables of descriptors: read by devices, and by chance only as addresses that are meant to be tried
 *             then the open arena: rings, requests, and whatever else
 *
 * So that a device which does as it is told never hurts the guest: what may be read as an address or as a frame's number does
 * not fall on the guest or its canaries, whichever bytes of it come from where.
 *
 * Threads: one struct adversary for each virtual processor; all else that is written is the devices' own, on purpose.
 */
#ifndef LOAM_TESTS_ADVERSARY_H
#define LOAM_TESTS_ADVERSARY_H

#include "guest/guest.h"
#include "tests/vmm/random.h"

#define ADVERSARY_COUNT 2u /* of processors */

#define CANARY_START UINT64_C(0x1010000)
#define TABLES_START UINT64_C(0x1800000)
#define TABLES_BYTES UINT64_C(0x4000)
#define OPEN_START   (TABLES_START + TABLES_BYTES)
#define RAM_END      UINT64_C(0x4000000)

struct adversary {
    struct random random;
    uint32_t number; /* of the processor */
};

/* One step: an action chosen by chance, with values chosen by chance. */
void adversary_step(struct adversary *self);

/* --- Values --- */

/* Of any kind that a device may stumble over: small, a power of two or beside it, all ones, an address, anything. */
uint64_t hostile_value(struct adversary *self);

/* In the open arena, or where no device may write: at edges, in holes, at devices, beyond all. */
uint64_t hostile_gpa(struct adversary *self);

/* The same of a table of descriptors, which stays out of the open arena. */
uint64_t hostile_table(struct adversary *self);

/* Of a buffer. */
uint32_t hostile_length(struct adversary *self);

/* 1, 2, 4 or 8 bytes at an address that is mapped. */
void hostile_store(struct adversary *self, uint64_t gpa, uint64_t value);
void hostile_load(struct adversary *self, uint64_t gpa);

/* --- Actions: each of them is one --- */

/* adversary_virtio.c */
void act_bring_up(struct adversary *self);
void act_request(struct adversary *self); /* as a driver would, or nearly so */
void act_descriptor(struct adversary *self);
void act_ring(struct adversary *self);
void act_register(struct adversary *self);

/* adversary_platform.c */
void act_port(struct adversary *self);
void act_port_string(struct adversary *self);
void act_interrupt_controller(struct adversary *self);
void act_local_apic(struct adversary *self);
void act_msr(struct adversary *self);
void act_memory(struct adversary *self);
void act_listen(struct adversary *self); /* take what interrupts there are */
void act_nap(struct adversary *self);    /* halt until the timer of the local APIC wakes it */

/* --- Devices --- */

#define DEVICE_NET     1u
#define DEVICE_DISK    2u
#define DEVICE_RNG     4u
#define DEVICE_BALLOON 5u
#define DEVICE_LIMIT   8u /* of their numbers */

/* Find them, before the first step. Returns how many there are. */
uint32_t virtio_find(void);

/* Requests that devices with this number have completed. */
uint64_t virtio_completed(uint32_t device);

/* --- Processors: adversary_cpu.S --- */

/* Start the second processor, which calls second_main once it is in 64-bit mode. */
void cpu_start_second(void);
_Noreturn void second_main(void);

/* Load an IDT in which every vector acknowledges and counts, and leaves interrupts off. */
void cpu_load_gates(void);

/* Interrupts taken, and MSRs refused by #GP: so many or more, for two processors count without a lock. */
extern volatile uint64_t cpu_interrupts, cpu_refusals;

/* They go on where the processor refuses. */
uint64_t cpu_read_msr(uint32_t msr);
void cpu_write_msr(uint32_t msr, uint64_t value);

/* An exception that no action expects. */
_Noreturn void cpu_fault(uint64_t rip, uint64_t address, uint64_t error_code);

#endif
