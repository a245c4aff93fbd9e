// SPDX-License-Identifier: Apache-2.0
/*
 * The instruction format of x86-64 as far as Loam's assists need it: prefixes, opcode, ModRM, SIB and displacement
 * (Intel SDM volume 2, chapter 2).
 *
 * What is decoded is a guest's: every byte is bounded by the count given, and whatever is not understood in full is
 * refused.
 *
 * Pure; any thread.
 */
#ifndef LOAM_VMM_ASSIST_DECODE_H
#define LOAM_VMM_ASSIST_DECODE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest instruction (Intel SDM volume 2, section 2.3.11). */
#define ASSIST_DECODE_BYTES_MAX 15u

/* Registers by their numbers in ModRM, SIB and REX: 0 (rax) to 15 (r15); and those that are none of them. */
#define ASSIST_REGISTER_RSP  4u
#define ASSIST_REGISTER_RBP  5u
#define ASSIST_REGISTER_NONE 16u
#define ASSIST_REGISTER_RIP  17u /* as a base: the end of the instruction */

/* Segments, numbered as in the ModRM of MOV Sreg. */
enum assist_segment {
    ASSIST_SEGMENT_ES,
    ASSIST_SEGMENT_CS,
    ASSIST_SEGMENT_SS,
    ASSIST_SEGMENT_DS,
    ASSIST_SEGMENT_FS,
    ASSIST_SEGMENT_GS,
    ASSIST_SEGMENT_COUNT
};

/* What the processor is in: 16-bit code is not decoded. */
enum assist_mode { ASSIST_MODE_32, ASSIST_MODE_64 };

/* 1 <= length <= ASSIST_DECODE_BYTES_MAX; what follows modrm counts only where has_memory is set */
struct assist_instruction {
    enum assist_mode mode;
    uint8_t length;
    uint8_t opcode;
    uint8_t modrm; /* 0 where the opcode has none */
    bool has_memory;
    enum assist_segment segment; /* of the operand, defaults applied */
    uint8_t address_bits;        /* 32 or 64 */
    uint8_t base, index, scale;  /* registers; index << scale */
    int32_t displacement;
};

enum assist_decoded {
    ASSIST_DECODED,
    ASSIST_TRUNCATED, /* the bytes end before the instruction does */
    ASSIST_UNKNOWN,   /* nothing that is assisted */
};

/*
 * Decode FWAIT, INT3 or an x87 instruction (opcodes 0xd8 to 0xdf) from count bytes. *instruction is defined only if it
 * is ASSIST_DECODED. Refused beside the unknown: LOCK, REP, more than one segment override, and 16-bit addresses.
 */
enum assist_decoded assist_decode(const uint8_t *bytes, size_t count, enum assist_mode mode,
                                  struct assist_instruction *instruction);

/* Bits 5 to 3 of modrm, which here are part of the opcode. */
static inline unsigned int assist_decode_reg(const struct assist_instruction *instruction)
{
    return instruction->modrm >> 3 & 7u;
}

/* The operand's offset in its segment; for a memory form. regs are those before the instruction. */
uint64_t assist_decode_offset(const struct assist_instruction *instruction, const struct kvm_regs *regs);

#endif
