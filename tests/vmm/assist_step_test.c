// SPDX-License-Identifier: Apache-2.0
/*
 * Every instruction of the assists that user mode has, in random cases: as a whole, from its bytes to registers, memory and
 * exceptions, on a vCPU that is played, compared with what the processor does with the same bytes. Which encodings there
 * are at all is the processor's word, too.
 */
#include "vmm/assist.h"

#include "tests/vmm/native_step.h"
#include "tests/vmm/step_case.h"
#include "tests/vmm/vcpu_played.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SEED UINT64_C(0x5eed0011)

#define ROUNDS 40u /* of each encoding and place */

#define UNDEFINED 6

/* Guest memory: page tables, then the pages of the window. */
#define TABLE_PAGES 4u
#define RAM_BYTES   ((TABLE_PAGES + STEP_PAGES) * STEP_PAGE)

#define IMAGE_MXCSR     24
#define IMAGE_REGISTERS 160

static _Alignas(64) uint8_t map_memory[1 << 16];
static _Alignas(4096) uint8_t ram[RAM_BYTES];
static struct loam_gpa_map *map;
static struct random random_numbers = {.state = SEED};
static uint32_t refused_count, raised_count, done_count;

/* --- The vCPU that is played --------------------------------------------------------------------------------- */

static void put_entry(unsigned int table, unsigned int index, uint64_t entry)
{
    memcpy(ram + table * STEP_PAGE + 8 * index, &entry, sizeof entry);
}

/* The window by four levels, for user mode; STEP_WINDOW is at the start of what a page directory maps. */
static void map_window(void)
{
    const uint64_t rights[STEP_PAGES] = {5, 7, 7, 5};

    put_entry(0, STEP_WINDOW >> 39 & 511, 1 * STEP_PAGE | 7);
    put_entry(1, STEP_WINDOW >> 30 & 511, 2 * STEP_PAGE | 7);
    put_entry(2, STEP_WINDOW >> 21 & 511, 3 * STEP_PAGE | 7);
    for (unsigned int i = 0; i < STEP_PAGES; i++) {
        put_entry(3, (STEP_WINDOW >> 12 & 511) + i, (TABLE_PAGES + i) * STEP_PAGE | rights[i]);
    }
}

static uint64_t native_xcr0(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static void set_up(void)
{
    const struct loam_gpa_map_config config = {.region_capacity = 8};
    struct loam_region region = {.bytes = RAM_BYTES, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    native_step_open();
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, &config, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    map_window();
    memset(&played, 0, sizeof played);
    played.sregs.cr0 = 0x80010033;
    played.sregs.cr4 = 0x40620;
    played.sregs.efer = 0xd00;
    played.sregs.cs = (struct kvm_segment){.limit = UINT32_MAX, .type = 11, .present = 1, .s = 1, .l = 1, .dpl = 3};
    played.sregs.ss = played.sregs.ds = played.sregs.cs;
    played.sregs.ss.type = 3;
    played.xcrs.nr_xcrs = 1;
    played.xcrs.xcrs[0].value = native_xcr0();
}

TestSuite(assist_step, .init = set_up, .fini = native_step_close, .timeout = 120);

static void set_played(const struct step_state *state)
{
    uint8_t *image = (uint8_t *)&played.xsave;

    played.regs = state->regs;
    played.regs.rflags |= 2;
    memset(&played.events, 0, sizeof played.events);
    memcpy(image + IMAGE_MXCSR, &state->mxcsr, 4);
    memcpy(image + IMAGE_REGISTERS, state->registers, sizeof state->registers);
}

static void get_played(struct step_state *state)
{
    const uint8_t *image = (const uint8_t *)&played.xsave;

    state->regs = played.regs;
    state->regs.rflags &= STEP_FLAGS;
    memcpy(&state->mxcsr, image + IMAGE_MXCSR, 4);
    memcpy(state->registers, image + IMAGE_REGISTERS, sizeof state->registers);
    if (played.events.exception.injected != 0) {
        state->vector = played.events.exception.nr;
        state->error_code = played.events.exception.has_error_code != 0 ? played.events.exception.error_code : 0;
        state->address = state->vector == 14 ? played.sregs.cr2 : 0;
    }
}

/* false: refused. */
static bool assist(const struct step_case *made, struct step_state *state)
{
    struct kvm_run run = {.exit_reason = KVM_EXIT_INTERNAL_ERROR};

    run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.emulation_failure.ndata = 3;
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.insn_size = made->length;
    memcpy(run.emulation_failure.insn_bytes, made->code, made->length);
    set_played(state);
    if (!assist_instruction(VCPU_PLAYED_FD, &run, map, NULL)) {
        return false;
    }
    get_played(state);
    return true;
}

/* --- Comparison ---------------------------------------------------------------------------------------------- */

static void load_case(const struct step_case *made)
{
    uint64_t at = made->operand - 8 - STEP_WINDOW;

    memset(native_step_page(0), 0xcc, STEP_PAGE);
    memcpy(native_step_page(0) + (made->state.regs.rip - STEP_CODE), made->code,
           made->state.regs.rip - STEP_CODE + made->length <= STEP_PAGE ? made->length : 0);
    if (at >= STEP_PAGE && at <= STEP_PAGES * STEP_PAGE - sizeof made->data) {
        memcpy(native_step_page(0) + at, made->data, sizeof made->data);
    }
    memcpy(ram + TABLE_PAGES * STEP_PAGE, native_step_page(0), STEP_PAGES * STEP_PAGE);
}

static const char *in_hex(const struct step_case *made)
{
    static char text[STEP_CODE_MAX * 3 + 1];

    text[0] = '\0';
    for (unsigned int i = 0; i < made->length; i++) {
        snprintf(text + 3 * i, 4, "%02x ", made->code[i]);
    }
    return text;
}

static void compare(const struct step_case *made, const struct step_state *wanted, const struct step_state *found)
{
    const char *code = in_hex(made);

    cr_assert_eq(found->vector, wanted->vector, "%s: exception %u wanted, %u found, MXCSR 0x%x, operand 0x%" PRIx64,
                 code, wanted->vector, found->vector, made->state.mxcsr, made->operand);
    cr_assert_eq(found->error_code, wanted->error_code, "%s: error 0x%x wanted, 0x%x found", code, wanted->error_code,
                 found->error_code);
    cr_assert_eq(found->address, wanted->address, "%s: address 0x%" PRIx64 " wanted, 0x%" PRIx64 " found", code,
                 wanted->address, found->address);
    cr_assert_eq(found->mxcsr, wanted->mxcsr, "%s: MXCSR 0x%x: 0x%x wanted, 0x%x found", code, made->state.mxcsr,
                 wanted->mxcsr, found->mxcsr);
    cr_assert_eq(memcmp(&found->regs, &wanted->regs, sizeof found->regs), 0,
                 "%s: registers: rip 0x%llx wanted, 0x%llx found; flags 0x%llx, 0x%llx", code, wanted->regs.rip,
                 found->regs.rip, wanted->regs.rflags, found->regs.rflags);
    for (unsigned int i = 0; i < 16; i++) {
        cr_assert_eq(memcmp(found->registers[i], wanted->registers[i], 16), 0, "%s: xmm%u, MXCSR 0x%x", code, i,
                     made->state.mxcsr);
    }
    cr_assert_eq(memcmp(ram + TABLE_PAGES * STEP_PAGE, native_step_page(0), STEP_PAGES * STEP_PAGE), 0,
                 "%s: memory, operand 0x%" PRIx64, code, made->operand);
}

/* Where an exception that is not masked rounds, the processor alone knows its inexact flag. */
static bool may_be_refused(const struct step_state *before, const struct step_state *wanted)
{
    uint32_t raised = wanted->mxcsr & ~before->mxcsr;

    return wanted->vector == 19 && (before->mxcsr & 0x20) == 0 &&
           ((wanted->mxcsr & ~(before->mxcsr >> 7)) & 0x18) != 0 && (raised & 0x07 & ~(before->mxcsr >> 7)) == 0;
}

/* What the processor does; false: it is refused here, as it may be. */
static bool run_case(const struct step_case *made, struct step_state *wanted)
{
    struct step_state found = made->state;

    load_case(made);
    *wanted = made->state;
    native_step(wanted);
    if (!assist(made, &found)) {
        refused_count++;
        return false;
    }
    compare(made, wanted, &found);
    raised_count += wanted->vector != 0;
    done_count += wanted->vector == 0;
    return true;
}

/* --- Encodings ----------------------------------------------------------------------------------------------- */

static bool is_mmx(unsigned int prefix, unsigned int opcode)
{
    if (prefix == 0) {
        return (opcode >= 0x60 && opcode <= 0x7f) || opcode == 0x2a || opcode == 0x2c || opcode == 0x2d ||
               opcode == 0xc4 || opcode == 0xc5 || opcode >= 0xd1;
    }
    return (prefix == 0x66 && (opcode == 0x2a || opcode == 0x2c || opcode == 0x2d)) ||
           (opcode == 0xd6 && prefix != 0x66); /* MOVQ2DQ, MOVDQ2Q */
}

/* Moves of 16 bytes, which KVM's emulator has. */
static bool is_whole_move(unsigned int prefix, unsigned int opcode)
{
    return ((prefix == 0 || prefix == 0x66) && (opcode == 0x10 || opcode == 0x11 || opcode == 0x2b)) ||
           ((prefix == 0x66 || prefix == 0xf3) && (opcode == 0x6f || opcode == 0x7f)) ||
           (prefix == 0x66 && opcode == 0xe7);
}

/* SSE3 and SSE4a, and MASKMOVDQU. */
static bool is_left_out(unsigned int prefix, unsigned int opcode)
{
    return is_mmx(prefix, opcode) || is_whole_move(prefix, opcode) || (prefix == 0xf2 && opcode == 0x12) ||
           (prefix == 0xf3 && (opcode == 0x12 || opcode == 0x16)) || (prefix == 0xf2 && opcode == 0xf0) ||
           ((prefix == 0xf2 || prefix == 0xf3) && opcode == 0x2b) || (prefix == 0x66 && opcode == 0xf7);
}

/* Opcodes behind 0x0f in which SSE and SSE2 are. */
static bool is_candidate(unsigned int opcode)
{
    return (opcode >= 0x10 && opcode <= 0x17) || (opcode >= 0x2a && opcode <= 0x2f) ||
           (opcode >= 0x50 && opcode <= 0x76) || opcode == 0x7e || opcode == 0xc2 ||
           (opcode >= 0xc4 && opcode <= 0xc6) || (opcode >= 0xd1 && opcode <= 0xfe);
}

static bool has_immediate(unsigned int opcode)
{
    return (opcode >= 0x70 && opcode <= 0x73) || opcode == 0xc2 || (opcode >= 0xc4 && opcode <= 0xc6);
}

static struct step_opcode encoding(unsigned int prefix, unsigned int opcode, int reg, bool has_memory)
{
    return (struct step_opcode){.prefixes = {(uint8_t)prefix},
                                .opcode = {0x0f, (uint8_t)opcode},
                                .opcode_bytes = 2,
                                .has_immediate = has_immediate(opcode),
                                .reg = reg,
                                .is_wide = -1,
                                .has_memory = has_memory};
}

/* Returns whether the processor has it. */
static bool check_encoding(unsigned int prefix, unsigned int opcode, int reg, bool has_memory)
{
    struct step_opcode wanted = encoding(prefix, opcode, reg, has_memory);
    unsigned int places = has_memory ? STEP_PLACE_COUNT : 1;
    bool is_there = false;

    for (unsigned int i = 0; i < ROUNDS * places; i++) {
        struct step_case made;
        struct step_state end;
        bool is_assisted;

        step_case_make(&random_numbers, &wanted, (enum step_place)(i % places), &made);
        is_assisted = run_case(&made, &end);
        is_there = is_there || end.vector != UNDEFINED;
        if (is_left_out(prefix, opcode)) {
            cr_assert_not(is_assisted, "%s", in_hex(&made));
        } else if (!is_assisted) {
            cr_assert(end.vector == UNDEFINED || may_be_refused(&made.state, &end), "%sis refused, MXCSR 0x%x to 0x%x",
                      in_hex(&made), made.state.mxcsr, end.mxcsr);
        }
    }
    return is_there && !is_left_out(prefix, opcode);
}

static unsigned int check_opcode(unsigned int prefix, unsigned int opcode)
{
    unsigned int count = 0;

    for (unsigned int has_memory = 0; has_memory < 2; has_memory++) {
        if (opcode >= 0x71 && opcode <= 0x73) {
            for (int reg = 0; reg < 8; reg++) {
                count += check_encoding(prefix, opcode, reg, has_memory != 0);
            }
        } else {
            count += check_encoding(prefix, opcode, -1, has_memory != 0);
        }
    }
    return count;
}

Test(assist_step, sse_does_what_the_processor_does)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    unsigned int count = 0;

    for (size_t i = 0; i < sizeof prefixes; i++) {
        for (unsigned int opcode = 0; opcode < 256; opcode++) {
            if (is_candidate(opcode)) {
                count += check_opcode(prefixes[i], opcode);
            }
        }
    }
    cr_assert_eq(count, 302, "%u encodings", count);
    cr_assert_gt(done_count, 10000);
    cr_assert_gt(raised_count, 10000);
}

/* --- The others ---------------------------------------------------------------------------------------------- */

/* Each round as it comes, and none is refused. */
static void check_others(const struct step_opcode *opcode)
{
    unsigned int places = opcode->has_memory ? STEP_PLACE_COUNT : 1;

    for (unsigned int i = 0; i < 400 * places; i++) {
        struct step_case made;
        struct step_state end;

        step_case_make(&random_numbers, opcode, (enum step_place)(i % places), &made);
        cr_assert(run_case(&made, &end), "%sis refused", in_hex(&made));
    }
}

Test(assist_step, popcnt_does_what_the_processor_does)
{
    for (unsigned int i = 0; i < 4; i++) {
        const struct step_opcode opcode = {.prefixes = {0xf3, (i & 1) != 0 ? 0x66 : 0},
                                           .opcode = {0x0f, 0xb8},
                                           .opcode_bytes = 2,
                                           .reg = -1,
                                           .is_wide = -1,
                                           .has_memory = (i & 2) != 0};

        check_others(&opcode);
    }
}

/* Half of the cases find what they expect. */
Test(assist_step, cmpxchg16b_does_what_the_processor_does)
{
    const struct step_opcode plain = {
        .opcode = {0x0f, 0xc7}, .opcode_bytes = 2, .reg = 1, .is_wide = 1, .has_memory = true};
    struct step_opcode opcode = plain;
    unsigned int equal_count = 0;

    for (unsigned int i = 0; i < 3000; i++) {
        struct step_case made;
        struct step_state end;

        opcode.prefixes[0] = random_one_in(&random_numbers, 2) ? 0xf0 : 0;
        step_case_make(&random_numbers, &opcode, (enum step_place)(i % STEP_PLACE_COUNT), &made);
        if (random_one_in(&random_numbers, 2) && made.state.regs.rax != made.operand) {
            memcpy(made.data + 8, &made.state.regs.rax, 8);
            memcpy(made.data + 16, &made.state.regs.rdx, 8);
        }
        cr_assert(run_case(&made, &end), "%sis refused", in_hex(&made));
        equal_count += end.vector == 0 && (end.regs.rflags & 0x40) != 0;
    }
    cr_assert_gt(equal_count, 100);
    opcode.has_memory = false;
    check_others(&opcode);
}

Test(assist_step, moves_of_mxcsr_do_what_the_processor_does)
{
    for (int reg = 2; reg <= 3; reg++) {
        const struct step_opcode opcode = {
            .opcode = {0x0f, 0xae}, .opcode_bytes = 2, .reg = reg, .is_wide = -1, .has_memory = true};

        check_others(&opcode);
        for (unsigned int i = 0; i < 500; i++) { /* words that may be loaded */
            struct step_case made;
            struct step_state end;

            step_case_make(&random_numbers, &opcode, STEP_PLACE_ANY, &made);
            made.data[10] = made.data[11] = 0;
            cr_assert(run_case(&made, &end), "%sis refused", in_hex(&made));
            cr_assert_eq(end.vector, 0);
        }
    }
}

/* In user mode CLAC and STAC are undefined, and INVPCID is protected. */
Test(assist_step, instructions_of_kernels_raise_what_they_do_in_user_mode)
{
    struct step_opcode opcode = {.opcode_bytes = 3, .opcode = {0x0f, 0x01}, .reg = -1, .is_wide = -1};
    static const uint8_t modrm[] = {0xca, 0xcb, 0xd0};
    const struct step_opcode invpcid = {.prefixes = {0x66},
                                        .opcode = {0x0f, 0x38, 0x82},
                                        .opcode_bytes = 3,
                                        .reg = -1,
                                        .is_wide = -1,
                                        .has_memory = true};

    for (size_t i = 0; i < 3 * 300; i++) {
        struct step_case made;
        struct step_state end;
        bool is_in_use;

        opcode.opcode[2] = modrm[i % 3];
        step_case_make(&random_numbers, &opcode, STEP_PLACE_ANY, &made);
        made.length--; /* ModRM stands for the last byte of the opcode */
        is_in_use = i % 3 == 2 && (uint32_t)made.state.regs.rcx == 1;
        cr_assert_eq(run_case(&made, &end), !is_in_use, "%s", in_hex(&made));
    }
    check_others(&invpcid);
}

/* But for CMPXCHG16B in memory, whatever is said under LOCK is undefined. */
Test(assist_step, lock_is_undefined)
{
    static const uint8_t opcodes[][2] = {{0, 0x58}, {0xf2, 0x10}, {0x66, 0xef}, {0xf3, 0xb8}, {0, 0xae}, {0x66, 0x73}};

    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++) {
        for (unsigned int has_memory = 0; has_memory < 2; has_memory++) {
            struct step_opcode opcode = encoding(opcodes[i][0], opcodes[i][1], -1, has_memory != 0);
            struct step_case made;
            struct step_state end;

            opcode.prefixes[1] = 0xf0;
            step_case_make(&random_numbers, &opcode, STEP_PLACE_ALIGNED, &made);
            cr_assert(run_case(&made, &end), "%sis refused", in_hex(&made));
            cr_assert_eq(end.vector, UNDEFINED, "%s", in_hex(&made));
        }
    }
}
