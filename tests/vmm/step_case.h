// SPDX-License-Identifier: Apache-2.0
/*
 * Random cases of one instruction: its bytes with any registers and any way to address memory, registers that lead to the
 * window of step_state.h, and numbers close to the limits of their kinds. The same seed gives the same cases.
 */
#ifndef LOAM_TESTS_VMM_STEP_CASE_H
#define LOAM_TESTS_VMM_STEP_CASE_H

#include "tests/vmm/random.h"
#include "tests/vmm/step_state.h"

#include <stdbool.h>
#include <stdint.h>

#define STEP_CODE_MAX 15u

/* What is to be run. */
struct step_opcode {
    uint8_t prefixes[2]; /* before REX; 0: none */
    uint8_t opcode[3];   /* 0x0f and what follows it; opcode_bytes of them */
    uint8_t opcode_bytes;
    bool has_immediate;
    int reg;     /* bits 5 to 3 of ModRM where they are fixed; -1: any */
    int is_wide; /* REX.W; -1: either */
    bool has_memory;
};

struct step_case {
    uint8_t code[STEP_CODE_MAX];
    uint8_t length;
    struct step_state state; /* before it */
    uint64_t operand;        /* linear address, if it has one in memory */
    uint8_t data[32];        /* what memory has from operand - 8 on, where it is in the window and is data */
};

/* Where an operand lies. */
enum step_place {
    STEP_PLACE_ALIGNED,   /* by 16, in a writable page */
    STEP_PLACE_ANY,       /* in writable pages, also across them */
    STEP_PLACE_READ_ONLY, /* also partly */
    STEP_PLACE_ABSENT,    /* also partly */
    STEP_PLACE_NOT_CANONICAL,
    STEP_PLACE_COUNT
};

void step_case_make(struct random *random, const struct step_opcode *opcode, enum step_place place,
                    struct step_case *made);

/* A number for the tests' own use: of one kind or another, or arbitrary bits. */
void step_case_numbers(struct random *random, uint8_t bytes[16]);

#endif
