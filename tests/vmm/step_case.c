// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/step_case.h"

#include <string.h>

#define REX       0x40u
#define REX_B     1u
#define REX_X     2u
#define REX_R     4u
#define REX_W     8u
#define MXCSR_ALL 0xffffu /* but for the one that only some processors have */
#define MASKS     0x1f80u

struct cursor {
    uint8_t *code;
    uint8_t length;
};

static void put(struct cursor *cursor, uint8_t byte)
{
    cursor->code[cursor->length++] = byte;
}

static void put_32(struct cursor *cursor, uint32_t value)
{
    for (unsigned int i = 0; i < 4; i++) {
        put(cursor, (uint8_t)(value >> 8 * i));
    }
}

static __u64 *register_of(struct kvm_regs *regs, unsigned int number)
{
    __u64 *const registers[16] = {&regs->rax, &regs->rcx, &regs->rdx, &regs->rbx, &regs->rsp, &regs->rbp,
                                  &regs->rsi, &regs->rdi, &regs->r8,  &regs->r9,  &regs->r10, &regs->r11,
                                  &regs->r12, &regs->r13, &regs->r14, &regs->r15};

    return registers[number];
}

/* --- Numbers ------------------------------------------------------------------------------------------------- */

static const uint32_t singles[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000,
                                   0x7fa00000, 0x00000001, 0x807fffff, 0x00800000, 0x00800001, 0x7f7fffff, 0xff7fffff,
                                   0x4f000000, 0xcf000000, 0x3f000000, 0x40490fdb, 0x34000000, 0x5f000000};

static const uint64_t doubles[] = {
    0,
    UINT64_C(0x8000000000000000),
    UINT64_C(0x3ff0000000000000),
    UINT64_C(0xbff8000000000000),
    UINT64_C(0x7ff0000000000000),
    UINT64_C(0xfff0000000000000),
    UINT64_C(0x7ff8000000000000),
    UINT64_C(0x7ff4000000000000),
    UINT64_C(0x0000000000000001),
    UINT64_C(0x800fffffffffffff),
    UINT64_C(0x0010000000000000),
    UINT64_C(0x0010000000000001),
    UINT64_C(0x7fefffffffffffff),
    UINT64_C(0x41e0000000000000),
    UINT64_C(0xc1e0000000000000),
    UINT64_C(0x43e0000000000000),
    UINT64_C(0x3fe0000000000000),
    UINT64_C(0x3cb0000000000000),
    UINT64_C(0x3800000000000000), /* tiny as a single number */
    UINT64_C(0x47f0000000000000), /* and too large for one */
};

#define PICK(random, numbers) (numbers)[random_below(random, sizeof(numbers) / sizeof(numbers)[0])]

void step_case_numbers(struct random *random, uint8_t bytes[16])
{
    uint32_t narrow;
    uint64_t wide;

    for (unsigned int i = 0; i < 16; i += 8) {
        wide = random_u64(random);
        memcpy(bytes + i, &wide, sizeof wide);
    }
    switch (random_below(random, 4)) {
    case 0:
        for (unsigned int i = 0; i < 16; i += 4) {
            narrow = PICK(random, singles) ^ (random_one_in(random, 4) ? random_below(random, 4) : 0);
            memcpy(bytes + i, &narrow, sizeof narrow);
        }
        break;
    case 1:
        for (unsigned int i = 0; i < 16; i += 8) {
            wide = PICK(random, doubles) ^ (random_one_in(random, 4) ? random_below(random, 4) : 0);
            memcpy(bytes + i, &wide, sizeof wide);
        }
        break;
    case 2: /* single numbers around 1 */
        for (unsigned int i = 0; i < 16; i += 4) {
            narrow = (uint32_t)random_u64(random) & UINT32_C(0x83ffffff);
            narrow |= UINT32_C(0x3c000000);
            memcpy(bytes + i, &narrow, sizeof narrow);
        }
        break;
    default:
        break;
    }
}

/* --- Addresses ----------------------------------------------------------------------------------------------- */

static uint64_t address_in(struct random *random, enum step_place place)
{
    switch (place) {
    case STEP_PLACE_ALIGNED:
        return STEP_WRITABLE + 16u * (1 + random_below(random, 500));
    case STEP_PLACE_READ_ONLY:
        return STEP_READ_ONLY - 15 + random_below(random, 64);
    case STEP_PLACE_ABSENT:
        return STEP_ABSENT - 15 + random_below(random, 64);
    case STEP_PLACE_NOT_CANONICAL:
        return UINT64_C(0x0000800000000000) + random_u64(random) % UINT64_C(0xff00000000000000);
    case STEP_PLACE_ANY:
    default:
        return random_one_in(random, 3) ? STEP_WRITABLE + STEP_PAGE - 16 + random_below(random, 32)
                                        : STEP_WRITABLE + 16 + random_below(random, 2 * STEP_PAGE - 64);
    }
}

/* ModRM, SIB and displacement for made->operand, by base and index; the base is set so that it is reached. */
static void put_address(struct random *random, struct cursor *cursor, struct step_case *made, unsigned int reg,
                        unsigned int base, unsigned int index)
{
    bool has_sib = (base & 7u) == 4 || index != 4;
    unsigned int scale = has_sib ? random_below(random, 4) : 0;
    int32_t displacement = random_one_in(random, 2) ? (int8_t)random_u64(random) : (int32_t)random_u64(random) >> 4;
    unsigned int mod = displacement == (int8_t)displacement ? 1 : 2;
    uint64_t offset = (uint64_t)(int64_t)displacement;

    if (random_one_in(random, 4) && (base & 7u) != 5) {
        mod = 0;
        offset = 0;
    }
    put(cursor, (uint8_t)(mod << 6 | (reg & 7u) << 3 | (has_sib ? 4 : base & 7u)));
    if (has_sib) {
        put(cursor, (uint8_t)(scale << 6 | (index & 7u) << 3 | (base & 7u)));
        if (index != 4) {
            *register_of(&made->state.regs, index) = random_below(random, 1000);
            offset += *register_of(&made->state.regs, index) << scale;
        }
    }
    *register_of(&made->state.regs, base) = made->operand - offset;
    if (mod == 1) {
        put(cursor, (uint8_t)displacement);
    } else if (mod == 2) {
        put_32(cursor, (uint32_t)displacement);
    }
}

/* The same relative to RIP, for an operand in the window. */
static void put_relative(struct cursor *cursor, const struct step_case *made, unsigned int reg, unsigned int behind)
{
    put(cursor, (uint8_t)((reg & 7u) << 3 | 5));
    put_32(cursor, (uint32_t)(made->operand - (made->state.regs.rip + cursor->length + 4u + behind)));
}

/* --- Cases --------------------------------------------------------------------------------------------------- */

static uint32_t random_mxcsr(struct random *random)
{
    uint32_t mxcsr = (uint32_t)random_u64(random) & MXCSR_ALL;

    return random_one_in(random, 4) ? mxcsr : mxcsr | MASKS;
}

static void fill_state(struct random *random, struct step_state *state)
{
    memset(state, 0, sizeof *state);
    for (unsigned int i = 0; i < 16; i++) {
        step_case_numbers(random, state->registers[i]);
        *register_of(&state->regs, i) = random_one_in(random, 3) ? random_below(random, 5) : random_u64(random);
    }
    state->mxcsr = random_mxcsr(random);
    state->regs.rflags = random_u64(random) & STEP_FLAGS;
    state->regs.rip = STEP_CODE + random_below(random, 4000);
}

static uint8_t rex_of(struct random *random, const struct step_opcode *opcode)
{
    uint8_t rex = (uint8_t)(REX | (random_u64(random) & (REX_B | REX_X | REX_R)));
    bool is_wide = opcode->is_wide < 0 ? random_one_in(random, 3) : opcode->is_wide != 0;

    if (opcode->reg >= 0) {
        rex &= (uint8_t)~REX_R;
    }
    return (uint8_t)(rex | (is_wide ? REX_W : 0));
}

static void put_operands(struct random *random, const struct step_opcode *opcode, enum step_place place, uint8_t rex,
                         struct cursor *cursor, struct step_case *made)
{
    unsigned int reg = opcode->reg >= 0 ? (unsigned int)opcode->reg : random_below(random, 8);
    unsigned int base = random_below(random, 8) | ((rex & REX_B) != 0 ? 8 : 0);
    unsigned int index = random_below(random, 8) | ((rex & REX_X) != 0 ? 8 : 0);

    if (!opcode->has_memory) {
        put(cursor, (uint8_t)(0xc0 | reg << 3 | (base & 7u)));
    } else if (place != STEP_PLACE_NOT_CANONICAL && random_one_in(random, 6)) {
        put_relative(cursor, made, reg, opcode->has_immediate ? 1 : 0);
    } else {
        index = index == base ? 4u | (rex & REX_X ? 8u : 0u) : index;
        base = base == index ? 3 : base; /* r12 by both: the base becomes rbx, or r11 */
        base = base == 3 && (rex & REX_B) != 0 ? 11 : base;
        put_address(random, cursor, made, reg, base, index);
    }
}

void step_case_make(struct random *random, const struct step_opcode *opcode, enum step_place place,
                    struct step_case *made)
{
    struct cursor cursor = {made->code, 0};
    uint8_t rex = rex_of(random, opcode);

    memset(made, 0, sizeof *made);
    fill_state(random, &made->state);
    made->operand = address_in(random, place);
    for (unsigned int i = 0; i < 2; i++) {
        if (opcode->prefixes[i] != 0) {
            put(&cursor, opcode->prefixes[i]);
        }
    }
    if (rex != REX || random_one_in(random, 4)) {
        put(&cursor, rex);
    }
    for (unsigned int i = 0; i < opcode->opcode_bytes; i++) {
        put(&cursor, opcode->opcode[i]);
    }
    put_operands(random, opcode, place, rex, &cursor, made);
    if (opcode->has_immediate) {
        put(&cursor, (uint8_t)random_u64(random));
    }
    made->length = cursor.length;
    step_case_numbers(random, made->data);
    step_case_numbers(random, made->data + 16);
    if (random_one_in(random, 2)) { /* the operand is a number as a whole */
        memmove(made->data + 8, made->data, 16);
    }
}
