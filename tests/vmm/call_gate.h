// SPDX-License-Identifier: Apache-2.0
/*
 * read(2), write(2) and poll(2) as a test wants them: those of what is linked statically come here, are counted, and can be held up
 * at the door, so that what else happens at that moment is the test's to choose. They go on to the system.
 *
 * Threads: any; the calls of the test itself are counted too.
 */
#ifndef LOAM_TESTS_VMM_CALL_GATE_H
#define LOAM_TESTS_VMM_CALL_GATE_H

enum call { CALL_READ, CALL_WRITE, CALL_POLL, CALL_COUNT };

/* Counts are 0, nothing is held up. */
void call_gate_reset(void);

/* Calls that have begun since the reset. */
unsigned call_gate_count(enum call call);

/* poll(2)s since the reset that found nothing. */
unsigned call_gate_vain_polls(void);

/* Wait until one has begun since the reset. */
void call_gate_await(enum call call);

/* Wait until one is held up. */
void call_gate_await_held(void);

/* The next such call on fd (-1: any) waits at its door, until the gate is opened; signals do not open it. */
void call_gate_close(enum call call, int fd);
void call_gate_open(void);

/* What is held up fails with this errno when the gate is opened, in place of going on. */
void call_gate_fail(int error);

/* Wait until a signal has come to the thread that waits at the door. */
void call_gate_await_signal(void);

#endif
