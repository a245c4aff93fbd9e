// SPDX-License-Identifier: Apache-2.0
/*
 * An exit of a vCPU as a trace keeps it, and as one line of JSON:
 *
 *     {"time":81920,"vcpu":0,"reason":"KVM_EXIT_IO","port":"0x3f8","size":1,"direction":"write","value":"0x4c","device":"serial"}
 *
 * Numbers that the guest chose are text in base 16, because many readers of JSON hold no more than 53 bits. A string
 * instruction, whose many accesses are one exit, has "count" and an array "values" in place of "value". device is null
 * where nobody answered.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_TRACE_EXIT_H
#define LOAM_VMM_TRACE_EXIT_H

#include "vmm/kvm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_DATA_BYTES_MAX 4096u       /* of one exit: KVM has a page for string instructions */
#define TRACE_LINE_BYTES_MAX (32u << 10) /* of one line, its newline included */

/* What became of an instruction that KVM's emulator gave up on. */
enum trace_assist {
    TRACE_ASSIST_NONE, /* this exit is of another kind */
    TRACE_ASSIST_REFUSED,
    TRACE_ASSIST_DONE,
    TRACE_ASSIST_RAISED, /* done, and vector is on its way to the guest */
};

/* What applies to reason; all else is zero. size * count == data_bytes for accesses that KVM reports as it should. */
struct trace_exit {
    uint64_t nanoseconds; /* since the trace began */
    uint32_t vcpu;
    uint32_t reason;     /* KVM_EXIT_... */
    int error;           /* errno of a KVM_RUN that failed; 0: it returned an exit */
    uint64_t place;      /* port, address, sub-error, hardware's reason, type of event */
    const char *device;  /* who answered an access; NULL: nobody. Static */
    uint32_t size;       /* of one access */
    uint32_t count;      /* of accesses */
    uint32_t data_bytes; /* TRACE_DATA_BYTES_MAX at most */
    bool is_write;
    uint8_t assist; /* enum trace_assist */
    uint8_t vector; /* TRACE_ASSIST_RAISED */
    uint64_t rip;   /* of the instruction that was given up on, or at which a debugger's exit stands */
};

/*
 * What run, the last exit, says of itself: what it read or wrote too, so after it has been carried out. *data is where
 * exit->data_bytes bytes of it lie in run. Does not touch nanoseconds, vcpu, error, device, assist, vector.
 */
void trace_exit_read(struct trace_exit *exit, const struct kvm_run *run, size_t run_bytes, const uint8_t **data);

/* One line, with its newline and no zero. Returns its length. */
size_t trace_exit_line(const struct trace_exit *exit, const uint8_t *data, char line[TRACE_LINE_BYTES_MAX]);

#endif
