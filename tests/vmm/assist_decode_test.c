// SPDX-License-Identifier: Apache-2.0
/* Addresses are checked against the processor's own LEA, which takes the same ModRM, SIB, REX and displacement. */
#include "vmm/assist_decode.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SEED UINT64_C(0x5eed0001)

static struct assist_instruction instruction;

/* The bytes lie at the end of an allocation of their size, so that a sanitizer sees any read beyond. */
static enum assist_decoded decode(const uint8_t *bytes, size_t count, enum assist_mode mode)
{
    uint8_t *copy = malloc(count > 0 ? count : 1);
    enum assist_decoded decoded;

    memcpy(copy, bytes, count);
    memset(&instruction, 0xee, sizeof instruction);
    decoded = assist_decode(copy, count, mode, &instruction);
    free(copy);
    return decoded;
}

#define DECODE(mode, ...) decode((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), mode)
#define DECODE_64(...)    DECODE(ASSIST_MODE_64, __VA_ARGS__)
#define DECODE_32(...)    DECODE(ASSIST_MODE_32, __VA_ARGS__)

/* --- What is decoded ------------------------------------------------------------------------------------------- */

Test(assist_decode, knows_instructions_of_one_byte)
{
    cr_assert_eq(DECODE_64(0x9b), ASSIST_DECODED);
    cr_assert_eq(instruction.length, 1);
    cr_assert_eq(instruction.opcode, 0x9b);
    cr_assert_not(instruction.has_memory);
    cr_assert_eq(DECODE_32(0xcc, 0x90), ASSIST_DECODED);
    cr_assert_eq(instruction.length, 1, "what follows is not its own");
    cr_assert_eq(DECODE_64(0x66, 0x48, 0x9b), ASSIST_DECODED);
    cr_assert_eq(instruction.length, 3);
}

Test(assist_decode, knows_register_forms)
{
    cr_assert_eq(DECODE_64(0xd9, 0xee), ASSIST_DECODED);
    cr_assert_eq(instruction.length, 2);
    cr_assert_eq(instruction.modrm, 0xee);
    cr_assert_eq(assist_decode_reg(&instruction), 5);
    cr_assert_not(instruction.has_memory);
    cr_assert_eq(DECODE_32(0x67, 0xd9, 0xee), ASSIST_DECODED, "no address, and so none of 16 bits");
}

Test(assist_decode, names_the_segment)
{
    static const struct {
        uint8_t bytes[9];
        enum assist_mode mode;
        enum assist_segment segment;
    } cases[] = {
        {{0xd9, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_DS},
        {{0xd9, 0x45, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_SS},       /* ebp + 0 */
        {{0xd9, 0x04, 0x24}, ASSIST_MODE_32, ASSIST_SEGMENT_SS},       /* esp */
        {{0xd9, 0x05}, ASSIST_MODE_32, ASSIST_SEGMENT_DS},             /* disp32: not ebp */
        {{0xd9, 0x04, 0x25}, ASSIST_MODE_32, ASSIST_SEGMENT_DS},       /* disp32 by SIB: not ebp */
        {{0xd9, 0x44, 0x28, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_DS}, /* ebp as an index */
        {{0xd9, 0x44, 0x25, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_SS}, /* ebp as a base by SIB */
        {{0x41, 0xd9, 0x45, 0x00}, ASSIST_MODE_64, ASSIST_SEGMENT_DS}, /* r13: not rbp */
        {{0x41, 0xd9, 0x04, 0x24}, ASSIST_MODE_64, ASSIST_SEGMENT_DS}, /* r12: not rsp */
        {{0x26, 0xd9, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_ES},
        {{0x2e, 0xd9, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_CS},
        {{0x36, 0xd9, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_SS},
        {{0x3e, 0xd9, 0x45, 0x00}, ASSIST_MODE_32, ASSIST_SEGMENT_DS},
        {{0x64, 0xd9, 0x00}, ASSIST_MODE_64, ASSIST_SEGMENT_FS},
        {{0x65, 0xd9, 0x04, 0x24}, ASSIST_MODE_64, ASSIST_SEGMENT_GS},
        {{0x3e, 0xd9, 0x04, 0x24}, ASSIST_MODE_64, ASSIST_SEGMENT_SS}, /* ignored there */
        {{0x36, 0xd9, 0x00}, ASSIST_MODE_64, ASSIST_SEGMENT_DS},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert_eq(decode(cases[i].bytes, 9, cases[i].mode), ASSIST_DECODED, "case %zu", i);
        cr_assert_eq(instruction.segment, cases[i].segment, "case %zu: segment %d", i, instruction.segment);
    }
}

Test(assist_decode, heeds_rex_only_right_before_the_opcode)
{
    cr_assert_eq(DECODE_64(0x41, 0xd9, 0x00), ASSIST_DECODED);
    cr_assert_eq(instruction.base, 8);
    cr_assert_eq(DECODE_64(0x41, 0x66, 0xd9, 0x00), ASSIST_DECODED);
    cr_assert_eq(instruction.base, 0);
    cr_assert_eq(DECODE_64(0x41, 0x40, 0xd9, 0x00), ASSIST_DECODED);
    cr_assert_eq(instruction.base, 0, "the last one counts");
    cr_assert_eq(DECODE_32(0x41, 0xd9, 0x00), ASSIST_UNKNOWN, "INC ECX");
}

Test(assist_decode, refuses_what_it_does_not_know)
{
    cr_assert_eq(DECODE_64(0xf2, 0xd9, 0xee), ASSIST_UNKNOWN);
    cr_assert_eq(DECODE_64(0xf3, 0xd9, 0xee), ASSIST_UNKNOWN);
    cr_assert_eq(DECODE_64(0xf3, 0xf2, 0x0f, 0x58, 0xc1), ASSIST_UNKNOWN, "both");
    cr_assert_eq(DECODE_64(0x64, 0x65, 0xd9, 0x00), ASSIST_UNKNOWN, "two segments");
    cr_assert_eq(DECODE_32(0x67, 0xd9, 0x00), ASSIST_UNKNOWN, "an address of 16 bits");
    for (unsigned int opcode = 0; opcode < 256; opcode++) {
        bool is_prefix =
            (opcode & 0xe7) == 0x26 || (opcode >= 0x64 && opcode <= 0x67) || (opcode & 0xf0) == 0x40 || opcode == 0xf0;
        bool is_known = (opcode & 0xf8) == 0xd8 || opcode == 0x9b || opcode == 0xcc || opcode == 0xcd;
        enum assist_decoded wanted = is_prefix || is_known ? ASSIST_DECODED : ASSIST_UNKNOWN;

        if (opcode != 0x0f) {
            cr_assert_eq(DECODE_64((uint8_t)opcode, 0xd9, 0xc0, 0, 0, 0, 0), wanted, "0x%02x", opcode);
        }
    }
}

/* Those with ModRM end behind it, those with an immediate byte one further on. */
Test(assist_decode, knows_opcodes_behind_0f)
{
    for (unsigned int opcode = 0; opcode < 256; opcode++) {
        bool has_immediate = (opcode >= 0x70 && opcode <= 0x73) || (opcode >= 0xc4 && opcode <= 0xc6) || opcode == 0xc2;
        bool is_known = has_immediate || opcode == 0x01 || opcode == 0xae || opcode == 0xb8 || opcode == 0xc7 ||
                        (opcode >= 0x10 && opcode <= 0x17) || (opcode >= 0x2a && opcode <= 0x2f) ||
                        (opcode >= 0x50 && opcode <= 0x76) || opcode == 0x7e || opcode >= 0xd1;

        if (opcode == 0x38) {
            continue;
        }
        cr_assert_eq(DECODE_64(0x0f, (uint8_t)opcode, 0xc1, 0x5a, 0x5a), is_known ? ASSIST_DECODED : ASSIST_UNKNOWN,
                     "0x0f 0x%02x", opcode);
        if (is_known) {
            cr_assert_eq(instruction.map, ASSIST_MAP_0F);
            cr_assert_eq(instruction.opcode, opcode);
            cr_assert_eq(instruction.length, has_immediate ? 4 : 3, "0x0f 0x%02x", opcode);
            cr_assert_eq(instruction.immediate, has_immediate ? 0x5a : 0);
        }
        cr_assert_eq(DECODE_64(0x66, 0x0f, 0x38, (uint8_t)opcode, 0x03),
                     opcode == 0x82 ? ASSIST_DECODED : ASSIST_UNKNOWN, "0x0f 0x38 0x%02x", opcode);
    }
    cr_assert_eq(DECODE_64(0xcd, 0x80, 0x90), ASSIST_DECODED);
    cr_assert_eq(instruction.length, 2);
    cr_assert_eq(instruction.immediate, 0x80);
    cr_assert_eq(DECODE_64(0x66, 0x0f, 0x70, 0x44, 0x8b, 0x10, 0x1b), ASSIST_DECODED, "SIB, displacement, immediate");
    cr_assert_eq(instruction.length, 7);
    cr_assert_eq(instruction.displacement, 0x10);
    cr_assert_eq(instruction.immediate, 0x1b);
}

Test(assist_decode, tells_prefixes_apart)
{
    static const struct {
        uint8_t bytes[7];
        uint8_t prefix;
        bool has_operand_size, has_lock, is_wide;
        uint8_t reg, rm;
    } cases[] = {
        {{0x0f, 0x58, 0xca}, 0, false, false, false, 1, 2},
        {{0x66, 0x0f, 0x58, 0xca}, 0x66, true, false, false, 1, 2},
        {{0xf2, 0x0f, 0x58, 0xca}, 0xf2, false, false, false, 1, 2},
        {{0xf3, 0xf3, 0x0f, 0x58, 0xca}, 0xf3, false, false, false, 1, 2},
        {{0xf3, 0x66, 0x0f, 0xb8, 0xca}, 0xf3, true, false, false, 1, 2},
        {{0x66, 0xf3, 0x0f, 0xb8, 0xca}, 0xf3, true, false, false, 1, 2},
        {{0xf0, 0x48, 0x0f, 0xc7, 0x0a}, 0, false, true, true, 1, 2},
        {{0xf2, 0x4f, 0x0f, 0x2d, 0xca}, 0xf2, false, false, true, 9, 10},
        {{0xf2, 0x44, 0x0f, 0x2d, 0xca}, 0xf2, false, false, false, 9, 2},
        {{0xf2, 0x41, 0x0f, 0x2d, 0xca}, 0xf2, false, false, false, 1, 10},
        {{0x4f, 0xf2, 0x0f, 0x2d, 0xca}, 0xf2, false, false, false, 1, 2},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert_eq(decode(cases[i].bytes, 7, ASSIST_MODE_64), ASSIST_DECODED, "case %zu", i);
        cr_expect_eq(instruction.prefix, cases[i].prefix, "case %zu", i);
        cr_expect_eq(instruction.has_operand_size, cases[i].has_operand_size, "case %zu", i);
        cr_expect_eq(instruction.has_lock, cases[i].has_lock, "case %zu", i);
        cr_expect_eq(instruction.is_wide, cases[i].is_wide, "case %zu", i);
        cr_expect_eq(instruction.reg, cases[i].reg, "case %zu", i);
        cr_expect_eq(instruction.rm, cases[i].rm, "case %zu", i);
    }
    cr_assert_eq(DECODE_64(0xf0, 0xd9, 0xee), ASSIST_DECODED);
    cr_expect(instruction.has_lock);
}

Test(assist_decode, reads_and_writes_each_register)
{
    struct kvm_regs regs = {0};

    for (unsigned int i = 0; i < 16; i++) {
        assist_decode_set(&regs, i, 0x100 + i);
    }
    cr_expect_eq(regs.rax, 0x100);
    cr_expect_eq(regs.rsp, 0x104);
    cr_expect_eq(regs.rdi, 0x107);
    cr_expect_eq(regs.r8, 0x108);
    cr_expect_eq(regs.r15, 0x10f);
    for (unsigned int i = 0; i < 16; i++) {
        cr_expect_eq(assist_decode_get(&regs, i), 0x100 + i);
    }
}

Test(assist_decode, keeps_to_fifteen_bytes)
{
    uint8_t bytes[32];

    memset(bytes, 0x66, sizeof bytes);
    cr_assert_eq(decode(bytes, 14, ASSIST_MODE_64), ASSIST_TRUNCATED);
    cr_assert_eq(decode(bytes, 15, ASSIST_MODE_64), ASSIST_UNKNOWN);
    cr_assert_eq(decode(bytes, 32, ASSIST_MODE_64), ASSIST_UNKNOWN);
    bytes[14] = 0x9b;
    cr_assert_eq(decode(bytes, 32, ASSIST_MODE_64), ASSIST_DECODED);
    cr_assert_eq(instruction.length, 15);
    bytes[14] = 0x66;
    bytes[15] = 0x9b;
    cr_assert_eq(decode(bytes, 32, ASSIST_MODE_64), ASSIST_UNKNOWN);
}

/* --- Cut and random -------------------------------------------------------------------------------------------- */

Test(assist_decode, notices_where_bytes_are_missing)
{
    static const uint8_t longest[] = {0x65, 0x66, 0x67, 0x43, 0xd9, 0x84, 0x75, 0x78, 0x56, 0x34, 0x12};

    for (size_t count = 0; count < sizeof longest; count++) {
        cr_assert_eq(decode(longest, count, ASSIST_MODE_64), ASSIST_TRUNCATED, "%zu bytes", count);
    }
    cr_assert_eq(decode(longest, sizeof longest, ASSIST_MODE_64), ASSIST_DECODED);
    cr_assert_eq(instruction.length, sizeof longest);
    cr_assert_eq(instruction.segment, ASSIST_SEGMENT_GS);
    cr_assert_eq(instruction.address_bits, 32);
    cr_assert_eq(instruction.base, 13);
    cr_assert_eq(instruction.index, 14);
    cr_assert_eq(instruction.scale, 1);
    cr_assert_eq(instruction.displacement, 0x12345678);
}

/* Whatever the bytes: an instruction is the same with no byte more than its own, and incomplete with one less. */
Test(assist_decode, takes_random_bytes_for_what_they_are)
{
    struct random random = {.state = SEED};
    uint32_t decoded_count = 0;

    for (uint32_t i = 0; i < 300000; i++) {
        enum assist_mode mode = random_below(&random, 2) == 0 ? ASSIST_MODE_32 : ASSIST_MODE_64;
        size_t count = random_below(&random, 20);
        struct assist_instruction first;
        uint8_t bytes[20];

        for (size_t k = 0; k < sizeof bytes; k++) {
            bytes[k] = (uint8_t)random_u64(&random);
        }
        if (random_one_in(&random, 2)) {
            bytes[random_below(&random, 4)] = (uint8_t)(0xd8 + random_below(&random, 8));
        } else {
            bytes[random_below(&random, 4)] = 0x0f;
        }
        if (decode(bytes, count, mode) != ASSIST_DECODED) {
            continue;
        }
        decoded_count++;
        first = instruction;
        cr_assert(first.length >= 1 && first.length <= 15 && first.length <= count, "seed 0x%" PRIx64, SEED);
        cr_assert_eq(decode(bytes, first.length, mode), ASSIST_DECODED);
        cr_assert_eq(instruction.length, first.length);
        cr_assert_eq(instruction.displacement, first.displacement);
        cr_assert_eq(decode(bytes, first.length - 1u, mode), ASSIST_TRUNCATED);
    }
    cr_assert_gt(decoded_count, 30000);
}

/* --- Addresses --------------------------------------------------------------------------------------------------- */

/*
 * uint64_t lea_run(const uint64_t registers[16], const uint8_t *code): run code with these registers; it leaves its
 * result in rax and jumps to lea_back. The stack's register is one of them, so nothing may use the stack meanwhile.
 */
uint64_t lea_run(const uint64_t *registers, const uint8_t *code);
void lea_back(void);

__asm__(".text\n"
        ".globl lea_run, lea_back\n"
        "lea_run:\n"
        "    pushq %rbx\n    pushq %rbp\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, lea_stack(%rip)\n"
        "    movq %rsi, lea_code(%rip)\n"
        "    movq 0(%rdi), %rax\n    movq 8(%rdi), %rcx\n    movq 16(%rdi), %rdx\n    movq 24(%rdi), %rbx\n"
        "    movq 32(%rdi), %rsp\n    movq 40(%rdi), %rbp\n    movq 48(%rdi), %rsi\n"
        "    movq 64(%rdi), %r8\n    movq 72(%rdi), %r9\n    movq 80(%rdi), %r10\n    movq 88(%rdi), %r11\n"
        "    movq 96(%rdi), %r12\n    movq 104(%rdi), %r13\n    movq 112(%rdi), %r14\n    movq 120(%rdi), %r15\n"
        "    movq 56(%rdi), %rdi\n"
        "    jmpq *lea_code(%rip)\n"
        "lea_back:\n"
        "    movq lea_stack(%rip), %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbp\n    popq %rbx\n"
        "    ret\n"
        ".local lea_stack, lea_code\n"
        ".comm lea_stack, 8, 8\n"
        ".comm lea_code, 8, 8\n");

static uint64_t registers[16];
static uint8_t *code;

/* What the processor's LEA of 64-bit mode gives for a memory operand: rex, ModRM and what follows. */
static uint64_t lea(bool has_prefix, uint8_t rex, const uint8_t *modrm, size_t rest)
{
    void (*back)(void) = lea_back;
    size_t at = 0;

    if (has_prefix) {
        code[at++] = 0x67;
    }
    code[at++] = (uint8_t)(0x48u | (rex & 3u));
    code[at++] = 0x8d;
    memcpy(code + at, modrm, rest);
    code[at] &= 0xc7;
    at += rest;
    memcpy(code + at, "\xff\x25\0\0\0\0", 6);
    memcpy(code + at + 6, &back, sizeof back);
    return lea_run(registers, code);
}

static struct kvm_regs as_regs(uint64_t rip)
{
    return (struct kvm_regs){
        .rax = registers[0],
        .rcx = registers[1],
        .rdx = registers[2],
        .rbx = registers[3],
        .rsp = registers[4],
        .rbp = registers[5],
        .rsi = registers[6],
        .rdi = registers[7],
        .r8 = registers[8],
        .r9 = registers[9],
        .r10 = registers[10],
        .r11 = registers[11],
        .r12 = registers[12],
        .r13 = registers[13],
        .r14 = registers[14],
        .r15 = registers[15],
        .rip = rip,
    };
}

static void fill_registers(struct random *random)
{
    for (size_t i = 0; i < 16; i++) {
        registers[i] = random_u64(random);
    }
}

static void check_address(struct random *random, uint8_t modrm, uint8_t sib, uint8_t rex, bool has_prefix)
{
    uint8_t bytes[16], *at = bytes;
    struct kvm_regs regs;
    uint64_t wanted;
    size_t start;

    fill_registers(random);
    if (has_prefix) {
        *at++ = 0x67;
    }
    *at++ = (uint8_t)(0x40u | rex);
    *at++ = 0xdd;
    start = (size_t)(at - bytes);
    *at++ = modrm;
    *at++ = sib;
    while (at < bytes + sizeof bytes) {
        *at++ = (uint8_t)random_u64(random);
    }
    cr_assert_eq(decode(bytes, 15, ASSIST_MODE_64), ASSIST_DECODED);
    wanted = lea(has_prefix, rex, bytes + start, instruction.length - start);
    regs = as_regs((uint64_t)(uintptr_t)code); /* the instruction is as long as LEA, and lies where it lay */
    cr_assert_eq(assist_decode_offset(&instruction, &regs), wanted,
                 "modrm 0x%02x sib 0x%02x rex 0x%x prefix %d: 0x%" PRIx64 " wanted, seed 0x%" PRIx64, modrm, sib, rex,
                 has_prefix, wanted, SEED);
}

static void map_code(void)
{
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(code, MAP_FAILED);
}

Test(assist_decode, finds_addresses_where_the_processor_does)
{
    struct random random = {.state = SEED};

    map_code();
    for (unsigned int modrm = 0; modrm < 0xc0; modrm++) {
        bool has_sib = (modrm & 7) == 4;

        for (unsigned int sib = 0; sib < (has_sib ? 256u : 1u); sib++) {
            for (unsigned int rex = 0; rex < 16; rex++) {
                check_address(&random, (uint8_t)modrm, (uint8_t)sib, (uint8_t)rex, false);
                check_address(&random, (uint8_t)modrm, (uint8_t)sib, (uint8_t)rex, true);
            }
        }
    }
    munmap(code, 4096);
}

/* 32-bit code addresses as 64-bit code does with the prefix and without REX; only disp32 alone is not relative to RIP.
 */
Test(assist_decode, finds_addresses_of_32_bit_code)
{
    struct random random = {.state = SEED};

    map_code();
    for (unsigned int i = 0; i < 0xc0 * 256; i++) {
        uint8_t modrm = (uint8_t)(i >> 8), bytes[16] = {0xdd, modrm, (uint8_t)i};
        struct kvm_regs regs;
        uint32_t disp32;
        uint64_t wanted;

        fill_registers(&random);
        for (size_t k = 3; k < sizeof bytes; k++) {
            bytes[k] = (uint8_t)random_u64(&random);
        }
        cr_assert_eq(decode(bytes, 15, ASSIST_MODE_32), ASSIST_DECODED);
        memcpy(&disp32, bytes + 2, sizeof disp32);
        wanted = (modrm & 0xc7) == 5 ? disp32 : lea(true, 0, bytes + 1, instruction.length - 1u);
        regs = as_regs(random_u64(&random));
        cr_assert_eq(assist_decode_offset(&instruction, &regs), wanted, "modrm 0x%02x sib 0x%02x", modrm, bytes[2]);
    }
    munmap(code, 4096);
}
