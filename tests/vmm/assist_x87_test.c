// SPDX-License-Identifier: Apache-2.0
/*
 * Every encoding of an x87 instruction, compared with what the processor does when it is run natively: by FRSTOR, the
 * instruction in an executable page, and FNSAVE, where the module goes by FXRSTOR, a thunk, and FXSAVE. An illegal
 * instruction is caught, so that the processor itself says which encodings are none.
 */
#include "vmm/assist_x87.h"

#include "tests/vmm/random.h"

#include <assert.h>
#include <criterion/criterion.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define SEED  UINT64_C(0x5eed0087)
#define FLAGS UINT64_C(0x8d5) /* CF PF AF ZF SF OF */

#define EXCEPTION_INVALID   0x01u
#define EXCEPTION_DENORMAL  0x02u
#define EXCEPTION_ZERO      0x04u
#define EXCEPTION_OVERFLOW  0x08u
#define EXCEPTION_UNDERFLOW 0x10u
#define EXCEPTION_PRECISION 0x20u
#define STATUS_STACK        0x40u
#define STATUS_SUMMARY      0x8080u

/* --- The module under test --------------------------------------------------------------------------------------- */

static struct kvm_fpu fpu;
static uint64_t flags;
static uint8_t operand[16];

static struct assist_instruction memory_form(unsigned int opcode, unsigned int reg)
{
    return (struct assist_instruction){.mode = ASSIST_MODE_64,
                                       .length = 2,
                                       .opcode = (uint8_t)opcode,
                                       .modrm = (uint8_t)(reg << 3),
                                       .has_memory = true};
}

static struct assist_instruction register_form(unsigned int opcode, unsigned int modrm)
{
    return (struct assist_instruction){
        .mode = ASSIST_MODE_64, .length = 2, .opcode = (uint8_t)opcode, .modrm = (uint8_t)modrm};
}

static bool run_memory(unsigned int opcode, unsigned int reg)
{
    struct assist_instruction instruction = memory_form(opcode, reg);

    return assist_x87_execute(&instruction, &fpu, &flags, operand);
}

static bool run_register(unsigned int opcode, unsigned int modrm)
{
    struct assist_instruction instruction = register_form(opcode, modrm);

    return assist_x87_execute(&instruction, &fpu, &flags, operand);
}

static void reset(void)
{
    memset(&fpu, 0, sizeof fpu);
    fpu.fcw = 0x37f;
    fpu.mxcsr = 0x1f80;
}

static unsigned int top(void)
{
    return fpu.fsw >> 11 & 7u;
}

static void push(long double value)
{
    fpu.fsw = (uint16_t)((fpu.fsw & ~0x3800u) | ((top() - 1) & 7u) << 11);
    memmove(fpu.fpr[1], fpu.fpr[0], 7 * sizeof fpu.fpr[0]);
    memcpy(fpu.fpr[0], &value, 10);
    fpu.ftwx |= (uint8_t)(1u << top());
}

static long double st(unsigned int i)
{
    long double value = 0;

    memcpy(&value, fpu.fpr[i], 10);
    return value;
}

/* --- The processor itself ----------------------------------------------------------------------------------------- */

/* The image of FNSAVE, 32-bit format (Intel SDM volume 1, figure 8-9). */
struct native {
    uint16_t control, gap0, status, gap1, tags, gap2;
    uint32_t pointers[4];
    uint8_t registers[8][10];
    uint64_t flags; /* in and out */
    void *operand;
    void *code;
};

static_assert(offsetof(struct native, flags) == 112, "the assembler knows it");

void native_run(struct native *native);

__asm__(".text\n"
        ".globl native_run\n"
        "native_run:\n"
        "    pushq %rbx\n"
        "    movq %rdi, %rbx\n"
        "    frstor (%rbx)\n"
        "    movq 120(%rbx), %rax\n"
        "    pushq 112(%rbx)\n"
        "    popfq\n"
        "    call *128(%rbx)\n"
        "    pushfq\n"
        "    popq 112(%rbx)\n"
        "    fnsave (%rbx)\n"
        "    popq %rbx\n"
        "    ret\n");

static uint8_t *code;
static sigjmp_buf fault;

static void on_fault(int number)
{
    siglongjmp(fault, number);
}

static void set_up(void)
{
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};

    sigaction(SIGILL, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(code, MAP_FAILED);
    reset();
}

static void tear_down(void)
{
    munmap(code, 4096);
}

TestSuite(assist_x87, .init = set_up, .fini = tear_down);

/* Tags of FNSAVE from those of FXSAVE: only whether a register is empty counts when they are loaded. */
static uint16_t wide_tags(uint8_t tags)
{
    unsigned int wide = 0;

    for (unsigned int i = 0; i < 8; i++) {
        wide |= (((unsigned int)tags >> i & 1u) != 0 ? 0u : 3u) << 2 * i;
    }
    return (uint16_t)wide;
}

static uint8_t narrow_tags(uint16_t wide)
{
    unsigned int tags = 0;

    for (unsigned int i = 0; i < 8; i++) {
        tags |= (((unsigned int)wide >> 2 * i & 3u) != 3 ? 1u : 0u) << i;
    }
    return (uint8_t)tags;
}

/* Run it on the state of fpu, with every exception masked. false: no such instruction, or it cannot reach its operand.
 */
static bool run_native(unsigned int opcode, unsigned int modrm, struct native *native, void *native_operand)
{
    *native = (struct native){.control = fpu.fcw | 0x3f,
                              .status = fpu.fsw,
                              .tags = wide_tags(fpu.ftwx),
                              .flags = flags | 2,
                              .operand = native_operand,
                              .code = code};
    for (unsigned int i = 0; i < 8; i++) {
        memcpy(native->registers[i], fpu.fpr[i], 10);
    }
    code[0] = (uint8_t)opcode;
    code[1] = (uint8_t)modrm;
    code[2] = 0xc3;
    if (sigsetjmp(fault, 1) != 0) {
        __asm__ volatile("fninit");
        return false;
    }
    native_run(native);
    return true;
}

/* --- Which encodings there are --------------------------------------------------------------------------------------
 */

/* What processors run and no manual documents, or documents as doing nothing; and what is refused for its layout. */
static bool is_left_out(unsigned int opcode, unsigned int modrm)
{
    if (modrm < 0xc0) {
        unsigned int reg = modrm >> 3;

        return (opcode == 0xd9 && (reg == 4 || reg == 6)) || (opcode == 0xdd && (reg == 4 || reg == 6));
    }
    switch (opcode) {
    case 0xd9:
        return modrm >= 0xd8 && modrm <= 0xdf;
    case 0xdb:
        return modrm == 0xe0 || modrm == 0xe1 || modrm == 0xe4;
    case 0xdc:
        return modrm >= 0xd0 && modrm <= 0xdf;
    case 0xdd:
        return modrm >= 0xc8 && modrm <= 0xcf;
    case 0xde:
        return modrm >= 0xd0 && modrm <= 0xd7;
    case 0xdf:
        return modrm >= 0xc0 && modrm <= 0xdf;
    default:
        return false;
    }
}

Test(assist_x87, knows_the_encodings_that_the_processor_knows)
{
    static _Alignas(16) uint8_t room[128];
    struct native native;

    for (unsigned int opcode = 0xd8; opcode <= 0xdf; opcode++) {
        for (unsigned int n = 0; n < 8 + 64; n++) {
            unsigned int modrm = n < 8 ? n << 3 : 0xc0 + n - 8;
            struct assist_instruction instruction = n < 8 ? memory_form(opcode, n) : register_form(opcode, modrm);
            bool is_known = assist_x87_form(&instruction).kind != ASSIST_X87_REFUSED;
            bool is_there = run_native(opcode, modrm, &native, room);

            cr_expect_eq(is_known, is_there && !is_left_out(opcode, modrm), "%02x %02x: %s, the processor %s it",
                         opcode, modrm, is_known ? "known" : "refused", is_there ? "has" : "lacks");
        }
    }
}

/* Natively with an operand amid canaries: what is read or written is what the form says. */
Test(assist_x87, knows_the_length_of_each_operand)
{
    for (unsigned int opcode = 0xd8; opcode <= 0xdf; opcode++) {
        for (unsigned int reg = 0; reg < 8; reg++) {
            struct assist_instruction instruction = memory_form(opcode, reg);
            struct assist_x87_form form = assist_x87_form(&instruction);
            uint8_t room[64];
            unsigned int changed = 0;
            struct native native;

            if (form.kind == ASSIST_X87_REFUSED) {
                continue;
            }
            for (unsigned int canary = 0; canary < 256; canary += 0x55) {
                reset();
                push(3.14159265358979323846L);
                memset(room, (int)canary, sizeof room);
                cr_assert(run_native(opcode, reg << 3, &native, room));
                for (unsigned int i = 0; i < sizeof room; i++) {
                    changed = room[i] != canary && i + 1 > changed ? i + 1 : changed;
                }
            }
            cr_expect_eq(changed, form.is_write ? form.bytes : 0, "%02x /%u: %u bytes written", opcode, reg, changed);
            cr_expect(form.bytes >= 2 && form.bytes <= ASSIST_X87_OPERAND_MAX);
        }
    }
}

/* Natively its operand fits below a page that nobody may touch, and does not one byte further up. */
Test(assist_x87, touches_what_it_says_and_no_more)
{
    uint8_t *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_eq(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    for (unsigned int opcode = 0xd8; opcode <= 0xdf; opcode++) {
        for (unsigned int reg = 0; reg < 8; reg++) {
            struct assist_instruction instruction = memory_form(opcode, reg);
            struct assist_x87_form form = assist_x87_form(&instruction);
            struct native native;

            if (form.kind != ASSIST_X87_REFUSED) {
                reset();
                cr_assert(run_native(opcode, reg << 3, &native, pages + 4096 - form.bytes));
                cr_assert_not(run_native(opcode, reg << 3, &native, pages + 4097 - form.bytes), "%02x /%u", opcode,
                              reg);
            }
        }
    }
    munmap(pages, 8192);
}

/* --- What they do ---------------------------------------------------------------------------------------------------
 */

static const long double values[] = {
    0.0L, -0.0L, 1.0L, -1.0L, 2.0L, 0.5L, -3.75L, 1e10L, -1e-10L, 32767.5L, 2147483648.0L, 9.3e18L, 1e400L, -1e-400L,
};

/* A value, an arbitrary one of 80 bits, or one that is close to the limits of its kind. */
static void random_register(struct random *random, uint8_t bytes[16])
{
    uint64_t significand = random_u64(random);
    uint16_t exponent = (uint16_t)random_u64(random);
    const uint16_t edges[] = {0, 1, 0x3ffe, 0x3fff, 0x4000, 0x403e, 0x7ffe, 0x7fff};

    memset(bytes, 0, 16);
    switch (random_below(random, 4)) {
    case 0:
        memcpy(bytes, &values[random_below(random, sizeof values / sizeof values[0])], 10);
        return;
    case 1:
        exponent = (uint16_t)((exponent & 0x8000) | edges[random_below(random, 8)]);
        significand |= random_below(random, 4) == 0 ? 0 : UINT64_C(1) << 63;
        break;
    case 2:
        exponent = (uint16_t)((exponent & 0x8000) | (0x3fc0 + random_below(random, 0x80)));
        significand |= UINT64_C(1) << 63;
        break;
    default:
        break;
    }
    memcpy(bytes, &significand, 8);
    memcpy(bytes + 8, &exponent, 2);
}

static void random_state(struct random *random)
{
    reset();
    fpu.fcw = (uint16_t)(0x7f | random_below(random, 4) << 10 | (random_below(random, 3) + 1) % 4 << 8);
    if ((fpu.fcw >> 8 & 3) == 1) {
        fpu.fcw ^= 0x300; /* that precision is reserved */
    }
    fpu.fsw = (uint16_t)(random_u64(random) & 0x7f7f);
    fpu.ftwx = random_one_in(random, 2) ? 0xff : (uint8_t)random_u64(random);
    for (unsigned int i = 0; i < 8; i++) {
        random_register(random, fpu.fpr[i]);
    }
    flags = random_u64(random) & FLAGS;
    for (size_t i = 0; i < sizeof operand; i++) {
        operand[i] = (uint8_t)random_u64(random);
    }
    if (random_one_in(random, 3)) {
        random_register(random, operand);
    } else if (random_one_in(random, 2)) {
        float narrow = (float)values[random_below(random, 12)];

        memcpy(operand, &narrow, sizeof narrow);
    }
}

static void compare(unsigned int opcode, unsigned int modrm, const struct native *native, const uint8_t *native_operand)
{
    cr_assert_eq(fpu.fsw, native->status, "%02x %02x: status 0x%04x wanted, 0x%04x found, seed 0x%" PRIx64, opcode,
                 modrm, native->status, fpu.fsw, SEED);
    cr_assert_eq(fpu.ftwx, narrow_tags(native->tags), "%02x %02x: tags", opcode, modrm);
    cr_assert_eq(flags, native->flags & FLAGS, "%02x %02x: flags", opcode, modrm);
    for (unsigned int i = 0; i < 8; i++) {
        cr_assert_eq(memcmp(fpu.fpr[i], native->registers[i], 10), 0, "%02x %02x: st(%u)", opcode, modrm, i);
    }
    cr_assert_eq(memcmp(operand, native_operand, sizeof operand), 0, "%02x %02x: operand", opcode, modrm);
}

static void check_against_processor(struct random *random, unsigned int opcode, unsigned int modrm,
                                    const struct assist_instruction *instruction)
{
    for (unsigned int i = 0; i < 300; i++) {
        uint8_t native_operand[sizeof operand];
        uint16_t control;
        struct native native;

        random_state(random);
        control = fpu.fcw;
        memcpy(native_operand, operand, sizeof operand);
        cr_assert(run_native(opcode, modrm, &native, native_operand));
        cr_assert(assist_x87_execute(instruction, &fpu, &flags, operand), "%02x %02x", opcode, modrm);
        cr_assert_eq(fpu.fcw, control);
        compare(opcode, modrm, &native, native_operand);
    }
}

Test(assist_x87, does_what_the_processor_does)
{
    struct random random = {.state = SEED};
    unsigned int count = 0;

    for (unsigned int opcode = 0xd8; opcode <= 0xdf; opcode++) {
        for (unsigned int n = 0; n < 8 + 64; n++) {
            unsigned int modrm = n < 8 ? n << 3 : 0xc0 + n - 8;
            struct assist_instruction instruction = n < 8 ? memory_form(opcode, n) : register_form(opcode, modrm);

            if (assist_x87_form(&instruction).kind == ASSIST_X87_HOST_RUNS) {
                check_against_processor(&random, opcode, modrm, &instruction);
                count++;
            }
        }
    }
    cr_assert_eq(count, 395, "%u instructions", count);
}

Test(assist_x87, calculates)
{
    long double value;
    int16_t integer = -7;
    float single = 0.25f;

    push(1.5L);
    push(2.5L);
    cr_assert(run_register(0xde, 0xc1)); /* FADDP */
    cr_assert_eq(st(0), 4.0L);
    cr_assert(run_register(0xd9, 0xfa)); /* FSQRT */
    cr_assert_eq(st(0), 2.0L);
    memcpy(operand, &integer, sizeof integer);
    cr_assert(run_memory(0xde, 1)); /* FIMUL m16 */
    cr_assert_eq(st(0), -14.0L);
    memcpy(operand, &single, sizeof single);
    cr_assert(run_memory(0xd9, 0)); /* FLD m32 */
    cr_assert_eq(st(0), 0.25L);
    cr_assert_eq(st(1), -14.0L);
    cr_assert(run_register(0xd9, 0xeb)); /* FLDPI */
    cr_assert(fabsl(st(0) - 3.14159265358979323846L) <= LDBL_EPSILON * 2);
    cr_assert(run_memory(0xdb, 7)); /* FSTP m80 */
    memset(&value, 0, sizeof value);
    memcpy(&value, operand, 10);
    cr_assert(fabsl(value - 3.14159265358979323846L) <= LDBL_EPSILON * 2);
    cr_assert_eq(fpu.ftwx, 0xc0);
    cr_assert_eq(top(), 6);
}

Test(assist_x87, takes_the_carry_from_and_gives_it_to_the_flags)
{
    push(7.0L);
    push(1.0L);
    flags = 0;
    cr_assert(run_register(0xda, 0xc1)); /* FCMOVB st, st(1) */
    cr_assert_eq(st(0), 1.0L);
    flags = 1;
    cr_assert(run_register(0xda, 0xc1));
    cr_assert_eq(st(0), 7.0L);
    push(1.0L);
    flags = UINT64_C(0x200) | FLAGS;
    cr_assert(run_register(0xdb, 0xf1)); /* FCOMI: 1 < 7 */
    cr_assert_eq(flags & 0x45, 1);
    cr_assert_eq(flags & 0x200, 0x200, "no other flag");
}

/* The stack of the host's own FPU and its control word are none of the guest's business. */
Test(assist_x87, leaves_the_host_as_it_was)
{
    uint16_t control = 0, status = 0;
    volatile long double two = 2.0L;

    fpu.fcw = 0xc7f;
    for (unsigned int i = 0; i < 8; i++) {
        push(i);
    }
    cr_assert(run_register(0xd9, 0xe8), "a ninth one");
    __asm__ volatile("fnstcw %0\n fnstsw %1" : "=m"(control), "=m"(status));
    cr_assert_eq(control, 0x37f);
    cr_assert_eq(status & 0x7f, 0);
    cr_assert_eq(two * two, 4.0L);
}

/* --- Exceptions
 * -------------------------------------------------------------------------------------------------------- */

struct exception_case {
    const char *name;
    long double below, above; /* st(1), st(0) */
    uint8_t opcode, modrm;
    unsigned int raised;
};

static const struct exception_case exception_cases[] = {
    {"square root of -1", 0.0L, -1.0L, 0xd9, 0xfa, EXCEPTION_INVALID},
    {"1 / 0", 0.0L, 1.0L, 0xd8, 0xf1, EXCEPTION_ZERO},
    {"0 / 0", 0.0L, 0.0L, 0xd8, 0xf1, EXCEPTION_INVALID},
    {"1 / 3", 3.0L, 1.0L, 0xd8, 0xf1, EXCEPTION_PRECISION},
    {"too large", LDBL_MAX, LDBL_MAX, 0xd8, 0xc1, EXCEPTION_OVERFLOW | EXCEPTION_PRECISION},
    {"too small", LDBL_MIN, LDBL_MIN, 0xd8, 0xc9, EXCEPTION_UNDERFLOW | EXCEPTION_PRECISION},
    {"denormal operand", LDBL_TRUE_MIN, 1.0L, 0xd8, 0xc1, EXCEPTION_DENORMAL | EXCEPTION_PRECISION},
};

static void prepare_case(const struct exception_case *item, unsigned int unmasked)
{
    reset();
    fpu.fcw = (uint16_t)(0x37f & ~unmasked);
    push(item->below);
    push(item->above);
    flags = 0;
}

Test(assist_x87, gives_the_masked_result_where_the_guest_masks)
{
    for (size_t i = 0; i < sizeof exception_cases / sizeof exception_cases[0]; i++) {
        const struct exception_case *item = &exception_cases[i];

        prepare_case(item, 0);
        cr_assert(run_register(item->opcode, item->modrm), "%s", item->name);
        cr_assert_eq(fpu.fsw & 0x3f, item->raised, "%s: 0x%x", item->name, fpu.fsw & 0x3fu);
        cr_assert_eq(fpu.fsw & STATUS_SUMMARY, 0);
        cr_assert_not(assist_x87_is_pending(&fpu));
    }
}

/* Each exception by itself: refused if it comes, and nothing has changed; carried out if another one comes. */
Test(assist_x87, refuses_what_raises_an_exception_that_is_not_masked)
{
    for (size_t i = 0; i < sizeof exception_cases / sizeof exception_cases[0]; i++) {
        const struct exception_case *item = &exception_cases[i];

        for (unsigned int unmasked = 1; unmasked <= EXCEPTION_PRECISION; unmasked <<= 1) {
            struct kvm_fpu before;
            bool is_done;

            prepare_case(item, unmasked);
            before = fpu;
            is_done = run_register(item->opcode, item->modrm);
            /* A tiny number in a register is reason enough where underflow is not masked. */
            if (unmasked == EXCEPTION_UNDERFLOW && item->below == LDBL_TRUE_MIN) {
                cr_assert_not(is_done);
            } else {
                cr_assert_eq(is_done, (item->raised & unmasked) == 0, "%s, unmasked 0x%x", item->name, unmasked);
            }
            cr_assert(is_done || memcmp(&before, &fpu, sizeof fpu) == 0, "%s", item->name);
            cr_assert_eq(flags, 0);
        }
    }
}

Test(assist_x87, tells_a_new_exception_from_an_old_one)
{
    prepare_case(&exception_cases[3], 0);
    fpu.fsw |= EXCEPTION_ZERO | STATUS_STACK;
    cr_assert(run_register(0xd8, 0xf1));
    cr_assert_eq(fpu.fsw & 0x7f, EXCEPTION_ZERO | STATUS_STACK | EXCEPTION_PRECISION, "old ones stay");
    prepare_case(&exception_cases[3], EXCEPTION_PRECISION);
    fpu.fsw |= EXCEPTION_PRECISION;
    cr_assert_not(run_register(0xd8, 0xf1), "raised once more");
}

/* Exact and tiny: an underflow only where it is not masked, so that the masked run does not show it. */
Test(assist_x87, refuses_an_exact_underflow_that_is_not_masked)
{
    const struct exception_case exact = {"exact", LDBL_MIN, 0.5L, 0xd8, 0xc9, 0};
    double least = DBL_TRUE_MIN;
    float narrow = FLT_TRUE_MIN;

    prepare_case(&exact, 0);
    cr_assert(run_register(0xd8, 0xc9));
    cr_assert_eq(fpu.fsw & 0x3f, 0);
    prepare_case(&exact, EXCEPTION_UNDERFLOW);
    cr_assert_not(run_register(0xd8, 0xc9));
    reset();
    push(least);
    cr_assert(run_memory(0xdd, 3)); /* FSTP m64 */
    cr_assert_eq(memcmp(operand, &least, sizeof least), 0);
    reset();
    fpu.fcw = 0x37f & ~EXCEPTION_UNDERFLOW;
    push(least);
    cr_assert_not(run_memory(0xdd, 3));
    cr_assert(run_memory(0xdb, 7), "as it is, in 80 bits");
    push(narrow);
    cr_assert_not(run_memory(0xd9, 3)); /* FSTP m32 */
    cr_assert(run_memory(0xdd, 2), "no longer tiny in 64 bits");
}

/* Zero is not tiny, what an empty register holds is nothing, and a tiny number deep in the stack is one all the same. */
Test(assist_x87, calls_tiny_what_is_tiny_and_there)
{
    const long double tiny = LDBL_MIN / 2;

    reset();
    fpu.fcw = 0x37f & ~EXCEPTION_UNDERFLOW;
    push(0);
    cr_expect(run_memory(0xdd, 2)); /* FST m64 */
    cr_expect(run_memory(0xd9, 2)); /* FST m32 */
    memcpy(fpu.fpr[5], &tiny, 10);
    cr_expect(run_register(0xd9, 0xe0), "FCHS; register 5 is empty");
    reset();
    fpu.fcw = 0x37f & ~EXCEPTION_UNDERFLOW;
    push(1);
    push(tiny);
    push(1);
    fpu.ftwx &= 0x7f; /* of the three the lowest is empty */
    cr_expect_not(run_register(0xd9, 0xe0));
}

Test(assist_x87, knows_a_full_and_an_empty_stack)
{
    cr_assert(run_register(0xd9, 0xc0)); /* FLD st(0) of an empty stack */
    cr_assert_eq(fpu.fsw & 0x7f, EXCEPTION_INVALID | STATUS_STACK);
    reset();
    fpu.fcw = 0x37f & ~EXCEPTION_INVALID;
    cr_assert_not(run_register(0xd9, 0xc0));
}

/* --- Control instructions
 * ----------------------------------------------------------------------------------------------- */

Test(assist_x87, loads_control_words_as_the_processor_does)
{
    for (unsigned int word = 0; word <= UINT16_MAX; word++) {
        uint16_t wanted = (uint16_t)word;

        memcpy(operand, &wanted, sizeof wanted);
        __asm__ volatile("fldcw %0\n fnstcw %0\n fninit" : "+m"(wanted));
        cr_assert(run_memory(0xd9, 5));
        cr_assert_eq(fpu.fcw, wanted, "0x%04x: 0x%04x wanted, 0x%04x found", word, wanted, fpu.fcw);
        cr_assert(run_memory(0xd9, 7));
        cr_assert_eq(memcmp(operand, &wanted, sizeof wanted), 0);
    }
}

Test(assist_x87, sums_up_what_a_control_word_unmasks)
{
    fpu.fsw = EXCEPTION_ZERO;
    memcpy(operand, "\x7b\x03", 2);
    cr_assert(run_memory(0xd9, 5));
    cr_assert(assist_x87_is_pending(&fpu));
    cr_assert_eq(fpu.fsw, EXCEPTION_ZERO | STATUS_SUMMARY);
    memcpy(operand, "\x7f\x03", 2);
    cr_assert(run_memory(0xd9, 5));
    cr_assert_not(assist_x87_is_pending(&fpu));
    cr_assert_eq(fpu.fsw, EXCEPTION_ZERO);
}

Test(assist_x87, stores_and_clears_the_status)
{
    uint16_t status = 0xffff;

    fpu.fsw = status;
    cr_assert(run_memory(0xdd, 7));
    cr_assert_eq(memcmp(operand, &status, sizeof status), 0);
    memset(operand, 0, sizeof operand);
    cr_assert(run_register(0xdf, 0xe0));
    cr_assert_eq(memcmp(operand, &status, sizeof status), 0);
    cr_assert(run_register(0xdb, 0xe2)); /* FNCLEX */
    cr_assert_eq(fpu.fsw, 0x7f00);
    fpu.ftwx = 0xff;
    fpu.fcw = 0;
    fpu.last_ip = fpu.last_dp = fpu.last_opcode = 1;
    fpu.fpr[3][5] = 0xaa;
    cr_assert(run_register(0xdb, 0xe3)); /* FNINIT */
    cr_assert_eq(fpu.fcw, 0x37f);
    cr_assert_eq(fpu.fsw, 0);
    cr_assert_eq(fpu.ftwx, 0);
    cr_assert_eq(fpu.last_ip + fpu.last_dp + fpu.last_opcode, 0);
    cr_assert_eq(fpu.fpr[3][5], 0xaa);
}
