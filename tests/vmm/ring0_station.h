// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU of KVM's in 64-bit mode at privilege level 0, on which one instruction is run at a time, with every exception
 * caught: the instruction ends in a HLT behind it or in the handler's. No interrupt controllers. For one thread.
 */
#ifndef LOAM_TESTS_VMM_RING0_STATION_H
#define LOAM_TESTS_VMM_RING0_STATION_H

#include "loam/dirty.h"
#include "tests/vmm/step_state.h"
#include "vmm/vcpu.h"

#include <stddef.h>
#include <stdint.h>

/* Guest-physical: page n of the window, and two pages that nothing uses and that are mapped where they are. */
#define RING0_WINDOW    UINT64_C(0x10000)
#define RING0_SPARE     UINT64_C(0x20000)
#define RING0_RAM_BYTES (2ul << 20)

/* Rights of a page of the window: bits of its page-table entry. */
#define RING0_PRESENT  1u
#define RING0_WRITABLE 2u
#define RING0_USER     4u

struct ring0_station {
    int vm_fd;
    struct vcpu vcpu;
    struct bus bus;
    struct loam_gpa_map *map;
    struct kvm_sregs sregs; /* what the next run begins with; station's own at first */
    uint64_t frame_rflags;  /* those that the last exception pushed */
    uint32_t exits;         /* of the last run, of emulation that failed and was assisted, or other */
};

/* Skips the test without KVM. is_logged: KVM logs which pages the guest writes. */
void ring0_open(struct ring0_station *station, bool is_logged);
void ring0_close(struct ring0_station *station);

/* Host memory of a guest-physical address. */
uint8_t *ring0_ram(uint64_t gpa);

/* Page n of the window from now on has these rights, at gpa; tables only: no TLB is told. */
void ring0_map(unsigned int n, uint64_t gpa, unsigned int rights);

/* The gate of a vector, as it is to be; *bytes are 16. */
uint8_t *ring0_gate(unsigned int vector);

/*
 * Run count bytes of code at state->regs.rip, which lies in the window. Registers, MXCSR and RFLAGS go in and come out;
 * what is raised comes out. How the run ended: VCPU_HALTED, if all was well.
 */
enum vcpu_event ring0_run(struct ring0_station *station, const uint8_t *code, size_t count, struct step_state *state);

#endif
