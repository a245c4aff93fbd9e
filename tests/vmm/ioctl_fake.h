// SPDX-License-Identifier: Apache-2.0
/*
 * ioctl(2) as a test wants it: it stands before the C library's, counts KVM's requests, and fails or answers any chosen
 * one; all else goes to the system. For one thread, but for the count and the running vCPUs' requests.
 */
#ifndef LOAM_TESTS_VMM_IOCTL_FAKE_H
#define LOAM_TESTS_VMM_IOCTL_FAKE_H

#include <stdint.h>

/* Everything goes to the system, and counting starts anew. */
void ioctl_fake_reset(void);

/* KVM's requests since the reset, KVM_RUN not among them. */
uint32_t ioctl_fake_count(void);

/* The index-th request from the reset on, from 0, fails with error and does nothing. */
void ioctl_fake_fail(uint32_t index, int error);

/* The request that failed so, and its argument; 0: none has. */
unsigned long ioctl_fake_failed_request(void);
unsigned long ioctl_fake_failed_argument(void);

/* The next count KVM_RUNs, of whichever vCPU, fail with error and enter nothing. */
void ioctl_fake_fail_runs(uint32_t count, int error);
uint32_t ioctl_fake_runs_left(void);

/* Requests with this number are answered so, whatever their argument. */
void ioctl_fake_answer_all(unsigned long request, int answer);

/* Requests with this number and argument are answered so, and the system is not asked. */
void ioctl_fake_answer(unsigned long request, unsigned long argument, int answer);

/* Requests with this number fail with error and do nothing, whatever their argument. */
void ioctl_fake_refuse_all(unsigned long request, int error);

/* The next KVM_RUN calls hook first, on its own thread, and then goes on. */
void ioctl_fake_before_run(void (*hook)(void));

#endif
