// SPDX-License-Identifier: Apache-2.0
/*
 * The instruction format of x86-64 as far as Loam's assists need it: prefixes, opcode, ModRM, SIB, displacement and an
 * immediate byte (Intel SDM volume 2, chapter 2).
 *
 * What is decoded is a guest's: every byte is bounded by the count given, and whatever is not understood in full is
 * refused. What is decoded need not be an instruction: that is for those to say who carry it out.
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

/* Opcodes of one byte, and those behind 0x0f and behind 0x0f 0x38 (Intel SDM volume 2, appendix A). */
enum assist_map { ASSIST_MAP_ONE, ASSIST_MAP_0F, ASSIST_MAP_0F38 };

#define ASSIST_PREFIX_NONE 0u
#define ASSIST_PREFIX_66   0x66u
#define ASSIST_PREFIX_F2   0xf2u
#define ASSIST_PREFIX_F3   0xf3u

/* 1 <= length <= ASSIST_DECODE_BYTES_MAX; what follows has_memory counts only where it is set */
struct assist_instruction {
    enum assist_mode mode;
    enum assist_map map;
    uint8_t length;
    uint8_t opcode;
    uint8_t prefix;        /* ASSIST_PREFIX_...: F2 or F3, if there is one, else 66, if there is one */
    bool has_operand_size; /* 66, also beside F2 or F3 */
    bool has_lock;
    bool is_wide;      /* REX.W */
    uint8_t modrm;     /* 0 where the opcode has none */
    uint8_t reg, rm;   /* registers of modrm with their bits of REX; rm: without has_memory */
    uint8_t immediate; /* 0 where there is none */
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
 * Decode one instruction from count bytes. *instruction is defined only if it is ASSIST_DECODED. Known are FWAIT, INT3,
 * INT n and x87 (0xd8 to 0xdf) among the opcodes of one byte; those behind 0x0f that SSE and SSE2 have, and 01, ae, b8
 * and c7; and INVPCID (0x0f 0x38 0x82). Refused beside the unknown: F2 or F3 before an opcode of one byte, both of them
 * before any, more than one segment override, and 16-bit addresses.
 */
enum assist_decoded assist_decode(const uint8_t *bytes, size_t count, enum assist_mode mode,
                                  struct assist_instruction *instruction);

/* Bits 5 to 3 of modrm, where they are part of the opcode. */
static inline unsigned int assist_decode_reg(const struct assist_instruction *instruction)
{
    return instruction->modrm >> 3 & 7u;
}

/* A general register by its number, 0 to 15; all of its 64 bits. */
uint64_t assist_decode_get(const struct kvm_regs *regs, unsigned int number);
void assist_decode_set(struct kvm_regs *regs, unsigned int number, uint64_t value);

/* The operand's offset in its segment; for a memory form. regs are those before the instruction. */
uint64_t assist_decode_offset(const struct assist_instruction *instruction, const struct kvm_regs *regs);

#endif
