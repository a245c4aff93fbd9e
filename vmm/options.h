// SPDX-License-Identifier: Apache-2.0
/* The command line of `loam run` and `loam plan`, read by argp into a value. */
#ifndef LOAM_VMM_OPTIONS_H
#define LOAM_VMM_OPTIONS_H

#include "loam/plan.h"
#include "vmm/privilege.h"

#include <stdbool.h>
#include <stdint.h>

/* What a process of loam ends with. Stopped by signal N, it ends with 128 + N. */
enum exit_code {
    EXIT_CODE_PASS = 0,         /* also of a kernel that turned itself off */
    EXIT_CODE_GUEST_FAILED = 1, /* a check failed, the guest reset itself or panicked, or its code does not fit below */
    EXIT_CODE_USAGE = 2,        /* the command line, or a file that it names */
    EXIT_CODE_HOST = 3,         /* the host lacks something, or what was printed could not be written */
    EXIT_CODE_BROKEN = 4,       /* KVM or the guest broke, or the timeout passed */
    EXIT_CODE_GUEST_FIRST = 5,  /* from here to the last: the code with which the guest stopped itself */
    EXIT_CODE_GUEST_LAST = 123, /* 124 to 127 are timeout(1)'s and the shell's */
};

/* What becomes of a guest that resets itself. */
enum on_reset {
    ON_RESET_FAIL,    /* EXIT_CODE_GUEST_FAILED */
    ON_RESET_PASS,    /* EXIT_CODE_PASS */
    ON_RESET_RESTART, /* it starts again, on fresh memory */
    ON_RESET_COUNT
};

struct options {
    struct loam_memory_request memory;
    uint32_t vcpu_count;
    const char *kernel;            /* NULL: the embedded self-test */
    const char *initrd;            /* NULL: none */
    const char *restore;           /* a snapshot's directory, in place of a guest that begins; NULL: none */
    bool clock_jumps;              /* with restore: the guest's clocks leap over the time for which it was not there */
    const char *command_line;      /* "" unless given */
    bool without_tune;             /* nothing is added to command_line */
    uint64_t timeout_milliseconds; /* 0: none */
    enum on_reset on_reset;
    bool without_sandbox;
    struct privilege privilege; /* what becomes of the process before the guest starts */
    const char *trace;          /* NULL: none */
    const char *control;        /* the socket at which others tell the run what to do; NULL: none */
    const char *gdb;            /* where a debugger comes to; NULL: none does */
    bool json;
};

/*
 * Read argv[1..] of a command into *options; argv[0] is "loam run" or "loam plan". Strings stay in argv. On bad usage
 * one line goes to stderr and the process ends with EXIT_CODE_USAGE; after --help it ends with EXIT_CODE_PASS.
 */
void options_read(int argc, char *argv[], struct options *options);

/*
 * The exit status that stands for a guest's own code: the code itself from EXIT_CODE_GUEST_FIRST to
 * EXIT_CODE_GUEST_LAST, EXIT_CODE_PASS for 0, and EXIT_CODE_GUEST_FAILED for all others. Pure.
 */
int options_exit_status(uint32_t guest_code);

/*
 * Bytes from a number with an optional suffix K, M, G or T (binary). false: not such a number, or beyond 64 bits.
 * Pure.
 */
bool options_parse_bytes(const char *text, uint64_t *bytes);

#endif
