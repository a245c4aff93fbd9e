// SPDX-License-Identifier: Apache-2.0
/*
 * What one instruction is run on, and what has become of it: the same for the processor itself (native_step.h), for an
 * assist on a vCPU that is played, and for a guest of KVM's (ring0_station.h), so that they can be compared.
 */
#ifndef LOAM_TESTS_VMM_STEP_STATE_H
#define LOAM_TESTS_VMM_STEP_STATE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

/* CF PF AF ZF SF OF */
#define STEP_FLAGS UINT64_C(0x8d5)

/*
 * Linear addresses of a window of pages that all of them have: code, two pages that may be written, one that may only be
 * read, and none. Sanitizers keep no memory of their own there.
 */
#define STEP_PAGE      UINT64_C(4096)
#define STEP_WINDOW    UINT64_C(0x550000000000)
#define STEP_CODE      STEP_WINDOW
#define STEP_WRITABLE  (STEP_WINDOW + STEP_PAGE)
#define STEP_READ_ONLY (STEP_WINDOW + 3 * STEP_PAGE)
#define STEP_ABSENT    (STEP_WINDOW + 4 * STEP_PAGE)
#define STEP_PAGES     4u /* that there are */

/* vector 0: nothing was raised; else error_code and, of a page fault, address say more. regs.rip is in the window. */
struct step_state {
    struct kvm_regs regs;
    uint8_t registers[16][16];
    uint32_t mxcsr;
    uint8_t vector;
    uint32_t error_code;
    uint64_t address;
};

#endif
