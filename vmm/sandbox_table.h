// SPDX-License-Identifier: Apache-2.0
/*
 * What a program of Loam's may still ask of the system while its guest runs: a row for each call and each kind of argument, with
 * the reason. Whatever has no row ends the process.
 *
 * sandbox_compile makes the filters of it when Loam is built, so that nothing has to be computed at a launch. Pure.
 */
#ifndef LOAM_VMM_SANDBOX_TABLE_H
#define LOAM_VMM_SANDBOX_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Whose filter has the row. */
enum sandbox_who {
    SANDBOX_VCPU = 1 << 0,      /* a vCPU's thread */
    SANDBOX_REST = 1 << 1,      /* every other thread; a vCPU's has to pass both filters */
    SANDBOX_ANEW = 1 << 2,      /* every other thread of a program that makes another machine for its guest */
    SANDBOX_DEBUGGER = 1 << 3,  /* every other thread of a program to which a debugger comes */
    SANDBOX_DOMAIN = 1 << 4,    /* every other thread of a libvirt domain */
    SANDBOX_NETWORK = 1 << 5,   /* the same of one whose guest has a network by sockets of the process */
    SANDBOX_CONTROL = 1 << 6,   /* every other thread of a program that is told by others what to do with its guest */
    SANDBOX_SANITIZER = 1 << 7, /* all, in a build with a sanitizer */
};

/* (argument & mask) == value; mask 0: whatever it is. Arguments of 32 bits are masked as such. */
struct sandbox_argument {
    unsigned int index; /* 0 to 5 */
    uint64_t mask, value;
};

struct sandbox_rule {
    const char *call; /* its name, as in the manual */
    unsigned int who; /* enum sandbox_who, or of several */
    struct sandbox_argument argument;
    const char *reason;
};

extern const struct sandbox_rule sandbox_rules[];
extern const size_t sandbox_rule_count;

#endif
