// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_decode.h"

#define OPCODE_FWAIT     0x9bu
#define OPCODE_INT3      0xccu
#define OPCODE_X87_FIRST 0xd8u
#define OPCODE_X87_LAST  0xdfu

#define PREFIX_OPERAND_SIZE 0x66u
#define PREFIX_ADDRESS_SIZE 0x67u

#define REX_FIRST 0x40u
#define REX_LAST  0x4fu
#define REX_B     1u
#define REX_X     2u

/* taken <= count <= ASSIST_DECODE_BYTES_MAX */
struct cursor {
    const uint8_t *bytes;
    size_t count;
    size_t taken;
};

struct prefixes {
    enum assist_segment segment; /* ASSIST_SEGMENT_COUNT: none */
    bool has_address_size;
    uint8_t rex;
};

static bool take(struct cursor *cursor, uint8_t *byte)
{
    if (cursor->taken == cursor->count) {
        return false;
    }
    *byte = cursor->bytes[cursor->taken++];
    return true;
}

/* Little-endian, and signed. */
static bool take_displacement(struct cursor *cursor, unsigned int bytes, int32_t *displacement)
{
    uint32_t value = 0;

    for (unsigned int i = 0; i < bytes; i++) {
        uint8_t byte;

        if (!take(cursor, &byte)) {
            return false;
        }
        value |= (uint32_t)byte << 8 * i;
    }
    *displacement = bytes == 1 ? (int8_t)value : (int32_t)value;
    return true;
}

/* The segment that an override names; ASSIST_SEGMENT_COUNT: the byte is none. */
static enum assist_segment override_segment(uint8_t byte)
{
    switch (byte) {
    case 0x26:
        return ASSIST_SEGMENT_ES;
    case 0x2e:
        return ASSIST_SEGMENT_CS;
    case 0x36:
        return ASSIST_SEGMENT_SS;
    case 0x3e:
        return ASSIST_SEGMENT_DS;
    case 0x64:
        return ASSIST_SEGMENT_FS;
    case 0x65:
        return ASSIST_SEGMENT_GS;
    default:
        return ASSIST_SEGMENT_COUNT;
    }
}

/* Up to the opcode. REX counts only right before it (Intel SDM volume 2, section 2.2.1). */
static enum assist_decoded take_prefixes(struct cursor *cursor, enum assist_mode mode, struct prefixes *prefixes,
                                         uint8_t *opcode)
{
    *prefixes = (struct prefixes){.segment = ASSIST_SEGMENT_COUNT};
    while (take(cursor, opcode)) {
        enum assist_segment segment = override_segment(*opcode);

        if (segment != ASSIST_SEGMENT_COUNT) {
            if (prefixes->segment != ASSIST_SEGMENT_COUNT) {
                return ASSIST_UNKNOWN;
            }
            prefixes->segment = segment;
        } else if (*opcode == PREFIX_ADDRESS_SIZE) {
            prefixes->has_address_size = true;
        } else if (mode == ASSIST_MODE_64 && *opcode >= REX_FIRST && *opcode <= REX_LAST) {
            prefixes->rex = *opcode;
            continue;
        } else if (*opcode != PREFIX_OPERAND_SIZE) {
            return ASSIST_DECODED;
        }
        prefixes->rex = 0;
    }
    return ASSIST_TRUNCATED;
}

static uint8_t extended(unsigned int low, uint8_t rex, unsigned int bit)
{
    return (uint8_t)((low & 7u) | ((rex & bit) != 0 ? 8u : 0u));
}

/* SIB: rsp as an index is none; rbp or r13 as a base under mod 0 is none, with a displacement in its place. */
static bool take_sib(struct cursor *cursor, uint8_t rex, struct assist_instruction *instruction, bool *is_absolute)
{
    uint8_t sib;

    if (!take(cursor, &sib)) {
        return false;
    }
    instruction->scale = (uint8_t)(sib >> 6);
    instruction->index = extended(sib >> 3, rex, REX_X);
    if (instruction->index == ASSIST_REGISTER_RSP) {
        instruction->index = ASSIST_REGISTER_NONE;
    }
    *is_absolute = instruction->modrm >> 6 == 0 && (sib & 7u) == ASSIST_REGISTER_RBP;
    instruction->base = *is_absolute ? ASSIST_REGISTER_NONE : extended(sib, rex, REX_B);
    return true;
}

static bool take_address(struct cursor *cursor, const struct prefixes *prefixes, struct assist_instruction *instruction)
{
    unsigned int mod = instruction->modrm >> 6, rm = instruction->modrm & 7u;
    bool is_absolute = false;

    instruction->index = ASSIST_REGISTER_NONE;
    instruction->base = extended(rm, prefixes->rex, REX_B);
    if (rm == ASSIST_REGISTER_RSP) {
        if (!take_sib(cursor, prefixes->rex, instruction, &is_absolute)) {
            return false;
        }
    } else if (mod == 0 && rm == ASSIST_REGISTER_RBP) {
        is_absolute = true;
        instruction->base = instruction->mode == ASSIST_MODE_64 ? ASSIST_REGISTER_RIP : ASSIST_REGISTER_NONE;
    }
    return take_displacement(cursor, mod == 1 ? 1 : mod == 2 || is_absolute ? 4 : 0, &instruction->displacement);
}

/* Offsets from the stack's registers are in the stack's segment, unless an override says otherwise. */
static enum assist_segment operand_segment(const struct prefixes *prefixes,
                                           const struct assist_instruction *instruction)
{
    if (prefixes->segment != ASSIST_SEGMENT_COUNT) {
        return prefixes->segment;
    }
    return instruction->base == ASSIST_REGISTER_RSP || instruction->base == ASSIST_REGISTER_RBP ? ASSIST_SEGMENT_SS
                                                                                                : ASSIST_SEGMENT_DS;
}

static enum assist_decoded take_modrm(struct cursor *cursor, const struct prefixes *prefixes,
                                      struct assist_instruction *instruction)
{
    if (!take(cursor, &instruction->modrm)) {
        return ASSIST_TRUNCATED;
    }
    instruction->has_memory = instruction->modrm >> 6 != 3;
    if (!instruction->has_memory) {
        return ASSIST_DECODED;
    }
    if (prefixes->has_address_size && instruction->mode == ASSIST_MODE_32) {
        return ASSIST_UNKNOWN;
    }
    instruction->address_bits = instruction->mode == ASSIST_MODE_64 && !prefixes->has_address_size ? 64 : 32;
    if (!take_address(cursor, prefixes, instruction)) {
        return ASSIST_TRUNCATED;
    }
    instruction->segment = operand_segment(prefixes, instruction);
    return ASSIST_DECODED;
}

enum assist_decoded assist_decode(const uint8_t *bytes, size_t count, enum assist_mode mode,
                                  struct assist_instruction *instruction)
{
    bool is_cut = count > ASSIST_DECODE_BYTES_MAX;
    struct cursor cursor = {.bytes = bytes, .count = is_cut ? ASSIST_DECODE_BYTES_MAX : count};
    struct prefixes prefixes;
    enum assist_decoded decoded;

    *instruction = (struct assist_instruction){.mode = mode};
    decoded = take_prefixes(&cursor, mode, &prefixes, &instruction->opcode);
    if (decoded == ASSIST_DECODED && instruction->opcode >= OPCODE_X87_FIRST &&
        instruction->opcode <= OPCODE_X87_LAST) {
        decoded = take_modrm(&cursor, &prefixes, instruction);
    } else if (decoded == ASSIST_DECODED && instruction->opcode != OPCODE_FWAIT && instruction->opcode != OPCODE_INT3) {
        decoded = ASSIST_UNKNOWN;
    }
    instruction->length = (uint8_t)cursor.taken;
    /* An instruction that goes on beyond the longest is none, however many bytes follow. */
    return decoded == ASSIST_TRUNCATED && cursor.taken == ASSIST_DECODE_BYTES_MAX ? ASSIST_UNKNOWN : decoded;
}

static uint64_t register_value(unsigned int number, const struct kvm_regs *regs)
{
    const uint64_t values[] = {regs->rax, regs->rcx, regs->rdx, regs->rbx, regs->rsp, regs->rbp, regs->rsi, regs->rdi,
                               regs->r8,  regs->r9,  regs->r10, regs->r11, regs->r12, regs->r13, regs->r14, regs->r15};

    return number < sizeof values / sizeof values[0] ? values[number] : 0;
}

uint64_t assist_decode_offset(const struct assist_instruction *instruction, const struct kvm_regs *regs)
{
    uint64_t offset = (uint64_t)(int64_t)instruction->displacement;

    if (instruction->base == ASSIST_REGISTER_RIP) {
        offset += regs->rip + instruction->length;
    } else {
        offset += register_value(instruction->base, regs);
    }
    offset += register_value(instruction->index, regs) << instruction->scale;
    return instruction->address_bits == 32 ? offset & UINT32_MAX : offset;
}
