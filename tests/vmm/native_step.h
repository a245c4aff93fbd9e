// SPDX-License-Identifier: Apache-2.0
/*
 * One instruction run by the processor itself, in this process: its registers are those of a signal's context, and its
 * trap flag ends it after one instruction. For one thread. Signals USR1, TRAP, ILL, SEGV, BUS and FPE are taken.
 */
#ifndef LOAM_TESTS_VMM_NATIVE_STEP_H
#define LOAM_TESTS_VMM_NATIVE_STEP_H

#include "tests/vmm/step_state.h"

/* Map the window of step_state.h: its writable pages come up as zeros. */
void native_step_open(void);
void native_step_close(void);

/* Where page n of the window can be written from here, whatever it grants: 0 is code. */
uint8_t *native_step_page(unsigned int n);

/* Run the instruction at state->regs.rip. Of RFLAGS only STEP_FLAGS go in and come out. */
void native_step(struct step_state *state);

#endif
