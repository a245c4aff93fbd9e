// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_decode.h"

#define OPCODE_FWAIT     0x9bu
#define OPCODE_INT3      0xccu
#define OPCODE_INT       0xcdu
#define OPCODE_X87_FIRST 0xd8u
#define OPCODE_X87_LAST  0xdfu
#define OPCODE_INVPCID   0x82u /* behind 0x0f 0x38 */

#define ESCAPE_0F   0x0fu
#define ESCAPE_0F38 0x38u

#define PREFIX_ADDRESS_SIZE 0x67u
#define PREFIX_LOCK         0xf0u

#define REX_FIRST 0x40u
#define REX_LAST  0x4fu
#define REX_B     1u
#define REX_X     2u
#define REX_R     4u
#define REX_W     8u

/* taken <= count <= ASSIST_DECODE_BYTES_MAX */
struct cursor {
    const uint8_t *bytes;
    size_t count;
    size_t taken;
};

struct prefixes {
    enum assist_segment segment; /* ASSIST_SEGMENT_COUNT: none */
    bool has_address_size, has_operand_size, has_lock;
    uint8_t repeat; /* ASSIST_PREFIX_F2, ASSIST_PREFIX_F3 or none */
    uint8_t rex;
};

/* What follows an opcode. */
enum layout { LAYOUT_UNKNOWN, LAYOUT_BARE, LAYOUT_IMMEDIATE, LAYOUT_MODRM, LAYOUT_MODRM_IMMEDIATE };

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

/* A prefix other than REX. false: it contradicts one before it. */
static bool note_prefix(struct prefixes *prefixes, uint8_t byte)
{
    enum assist_segment segment = override_segment(byte);
    bool is_fresh = true;

    switch (byte) {
    case PREFIX_ADDRESS_SIZE:
        prefixes->has_address_size = true;
        break;
    case ASSIST_PREFIX_66:
        prefixes->has_operand_size = true;
        break;
    case PREFIX_LOCK:
        prefixes->has_lock = true;
        break;
    case ASSIST_PREFIX_F2:
    case ASSIST_PREFIX_F3:
        is_fresh = prefixes->repeat == ASSIST_PREFIX_NONE || prefixes->repeat == byte;
        prefixes->repeat = byte;
        break;
    default:
        is_fresh = prefixes->segment == ASSIST_SEGMENT_COUNT;
        prefixes->segment = segment;
        break;
    }
    return is_fresh;
}

static bool is_prefix(uint8_t byte)
{
    return byte == PREFIX_ADDRESS_SIZE || byte == ASSIST_PREFIX_66 || byte == PREFIX_LOCK || byte == ASSIST_PREFIX_F2 ||
           byte == ASSIST_PREFIX_F3 || override_segment(byte) != ASSIST_SEGMENT_COUNT;
}

/* Up to the first byte of the opcode. REX counts only right before it (Intel SDM volume 2, section 2.2.1). */
static enum assist_decoded take_prefixes(struct cursor *cursor, enum assist_mode mode, struct prefixes *prefixes,
                                         uint8_t *opcode)
{
    *prefixes = (struct prefixes){.segment = ASSIST_SEGMENT_COUNT};
    while (take(cursor, opcode)) {
        if (mode == ASSIST_MODE_64 && *opcode >= REX_FIRST && *opcode <= REX_LAST) {
            prefixes->rex = *opcode;
        } else if (is_prefix(*opcode)) {
            prefixes->rex = 0;
            if (!note_prefix(prefixes, *opcode)) {
                return ASSIST_UNKNOWN;
            }
        } else {
            return ASSIST_DECODED;
        }
    }
    return ASSIST_TRUNCATED;
}

/* The rest of the opcode; its first byte is in *opcode. */
static enum assist_decoded take_map(struct cursor *cursor, enum assist_map *map, uint8_t *opcode)
{
    *map = ASSIST_MAP_ONE;
    if (*opcode == ESCAPE_0F) {
        *map = ASSIST_MAP_0F;
        if (!take(cursor, opcode)) {
            return ASSIST_TRUNCATED;
        }
        if (*opcode == ESCAPE_0F38) {
            *map = ASSIST_MAP_0F38;
            return take(cursor, opcode) ? ASSIST_DECODED : ASSIST_TRUNCATED;
        }
    }
    return ASSIST_DECODED;
}

static enum layout layout_of_one(uint8_t opcode)
{
    switch (opcode) {
    case OPCODE_FWAIT:
    case OPCODE_INT3:
        return LAYOUT_BARE;
    case OPCODE_INT:
        return LAYOUT_IMMEDIATE;
    default:
        return opcode >= OPCODE_X87_FIRST && opcode <= OPCODE_X87_LAST ? LAYOUT_MODRM : LAYOUT_UNKNOWN;
    }
}

static enum layout layout_of_0f(uint8_t opcode)
{
    switch (opcode) {
    case 0x70: /* PSHUFD and its like */
    case 0x71: /* shifts by a constant */
    case 0x72:
    case 0x73:
    case 0xc2: /* CMPPS and its like */
    case 0xc4: /* PINSRW */
    case 0xc5: /* PEXTRW */
    case 0xc6: /* SHUFPS, SHUFPD */
        return LAYOUT_MODRM_IMMEDIATE;
    case 0x01: /* CLAC, XGETBV and more, by ModRM */
    case 0x7e: /* MOVD, MOVQ */
    case 0xae: /* LDMXCSR, STMXCSR */
    case 0xb8: /* POPCNT */
    case 0xc7: /* CMPXCHG16B */
        return LAYOUT_MODRM;
    default:
        return (opcode >= 0x10 && opcode <= 0x17) || (opcode >= 0x2a && opcode <= 0x2f) ||
                       (opcode >= 0x50 && opcode <= 0x76) || opcode >= 0xd1
                   ? LAYOUT_MODRM
                   : LAYOUT_UNKNOWN;
    }
}

static enum layout layout_of(enum assist_map map, uint8_t opcode)
{
    switch (map) {
    case ASSIST_MAP_ONE:
        return layout_of_one(opcode);
    case ASSIST_MAP_0F:
        return layout_of_0f(opcode);
    case ASSIST_MAP_0F38:
    default:
        return opcode == OPCODE_INVPCID ? LAYOUT_MODRM : LAYOUT_UNKNOWN;
    }
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

/*
 * Offsets from the stack's registers are in the stack's segment, unless an override says otherwise. In 64-bit mode only
 * those of FS and GS say anything (Intel SDM volume 1, section 3.4.2.1).
 */
static enum assist_segment operand_segment(const struct prefixes *prefixes,
                                           const struct assist_instruction *instruction)
{
    bool is_heeded = instruction->mode == ASSIST_MODE_32 || prefixes->segment == ASSIST_SEGMENT_FS ||
                     prefixes->segment == ASSIST_SEGMENT_GS;

    if (prefixes->segment != ASSIST_SEGMENT_COUNT && is_heeded) {
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
    instruction->reg = extended(instruction->modrm >> 3, prefixes->rex, REX_R);
    instruction->rm = extended(instruction->modrm, prefixes->rex, REX_B);
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

static enum assist_decoded take_layout(struct cursor *cursor, const struct prefixes *prefixes,
                                       struct assist_instruction *instruction)
{
    enum layout layout = layout_of(instruction->map, instruction->opcode);
    enum assist_decoded decoded = ASSIST_DECODED;

    if (layout == LAYOUT_UNKNOWN || (instruction->map == ASSIST_MAP_ONE && prefixes->repeat != ASSIST_PREFIX_NONE)) {
        return ASSIST_UNKNOWN;
    }
    if (layout == LAYOUT_MODRM || layout == LAYOUT_MODRM_IMMEDIATE) {
        decoded = take_modrm(cursor, prefixes, instruction);
    }
    if (decoded == ASSIST_DECODED && (layout == LAYOUT_IMMEDIATE || layout == LAYOUT_MODRM_IMMEDIATE) &&
        !take(cursor, &instruction->immediate)) {
        return ASSIST_TRUNCATED;
    }
    return decoded;
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
    if (decoded == ASSIST_DECODED) {
        decoded = take_map(&cursor, &instruction->map, &instruction->opcode);
    }
    if (decoded == ASSIST_DECODED) {
        instruction->has_operand_size = prefixes.has_operand_size;
        instruction->has_lock = prefixes.has_lock;
        instruction->is_wide = (prefixes.rex & REX_W) != 0;
        instruction->prefix = prefixes.repeat != ASSIST_PREFIX_NONE ? prefixes.repeat
                              : prefixes.has_operand_size           ? ASSIST_PREFIX_66
                                                                    : ASSIST_PREFIX_NONE;
        decoded = take_layout(&cursor, &prefixes, instruction);
    }
    instruction->length = (uint8_t)cursor.taken;
    /* An instruction that goes on beyond the longest is none, however many bytes follow. */
    return decoded == ASSIST_TRUNCATED && cursor.taken == ASSIST_DECODE_BYTES_MAX ? ASSIST_UNKNOWN : decoded;
}

static __u64 *register_of(struct kvm_regs *regs, unsigned int number)
{
    __u64 *const registers[] = {&regs->rax, &regs->rcx, &regs->rdx, &regs->rbx, &regs->rsp, &regs->rbp,
                                &regs->rsi, &regs->rdi, &regs->r8,  &regs->r9,  &regs->r10, &regs->r11,
                                &regs->r12, &regs->r13, &regs->r14, &regs->r15};

    return registers[number & 15u];
}

uint64_t assist_decode_get(const struct kvm_regs *regs, unsigned int number)
{
    struct kvm_regs copy = *regs;

    return *register_of(&copy, number);
}

void assist_decode_set(struct kvm_regs *regs, unsigned int number, uint64_t value)
{
    *register_of(regs, number) = value;
}

static uint64_t register_value(unsigned int number, const struct kvm_regs *regs)
{
    return number < ASSIST_REGISTER_NONE ? assist_decode_get(regs, number) : 0;
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
