// SPDX-License-Identifier: Apache-2.0
/*
 * What is refused, what KVM refuses, and what the host keeps; assist_step_test compares each form with the processor.
 */
#include "vmm/assist_sse.h"

#include "tests/vmm/vcpu_played.h"
#include "vmm/assist_sse_move.h"

#include <criterion/criterion.h>
#include <string.h>

#define MXCSR_RESET 0x1f80u

static struct assist_sse sse;
static struct kvm_regs regs;

static struct assist_instruction decoded(const char *bytes, size_t count)
{
    struct assist_instruction instruction;

    cr_assert_eq(assist_decode((const uint8_t *)bytes, count, ASSIST_MODE_64, &instruction), ASSIST_DECODED);
    return instruction;
}

static enum assist_sse_end execute(const char *bytes, size_t count)
{
    const struct assist_instruction instruction = decoded(bytes, count);
    const struct assist_sse_form *form = assist_sse_form(&instruction);
    static const uint8_t memory[16];

    cr_assert_not_null(form);
    return assist_sse_execute(form, &instruction, memory, &sse, &regs);
}

#define EXECUTE(bytes) execute(bytes, sizeof(bytes) - 1)

static void set_double(unsigned int number, double value)
{
    memcpy(sse.registers[number], &value, sizeof value);
}

static double get_double(unsigned int number)
{
    double value;

    memcpy(&value, sse.registers[number], sizeof value);
    return value;
}

static void set_up(void)
{
    memset(&sse, 0, sizeof sse);
    memset(&regs, 0, sizeof regs);
    sse.mxcsr = MXCSR_RESET;
}

TestSuite(assist_sse, .init = set_up);

Test(assist_sse, calculates)
{
    set_double(1, 1.5);
    set_double(9, 2.25);
    cr_assert_eq(EXECUTE("\xf2\x41\x0f\x58\xc9"), ASSIST_SSE_DONE); /* ADDSD xmm1, xmm9 */
    cr_expect_eq(get_double(1), 3.75);
    cr_expect_eq(get_double(9), 2.25);
    cr_expect_eq(sse.mxcsr, MXCSR_RESET);
    cr_assert_eq(EXECUTE("\xf2\x48\x0f\x2c\xf9"), ASSIST_SSE_DONE); /* CVTTSD2SI rdi, xmm1 */
    cr_expect_eq(regs.rdi, 3);
    cr_expect_eq(sse.mxcsr, MXCSR_RESET | 0x20);
    regs.rflags = 0x200 | 0x8d5;
    cr_assert_eq(EXECUTE("\x66\x41\x0f\x2e\xc9"), ASSIST_SSE_DONE); /* UCOMISD xmm1, xmm9 */
    cr_expect_eq(regs.rflags, 0x200, "larger: no flag, and no other one is lost");
}

/* An overflow that rounds: whether it would do so with an unbounded exponent is not known. */
Test(assist_sse, refuses_where_the_inexact_flag_is_not_known)
{
    struct assist_sse before;

    set_double(0, 0x1.8p1023);
    set_double(1, 0x1.8p1023);
    sse.mxcsr = MXCSR_RESET & ~0x400u;
    before = sse;
    cr_expect_eq(EXECUTE("\xf2\x0f\x58\xc1"), ASSIST_SSE_REFUSED);
    cr_expect_eq(memcmp(&before, &sse, sizeof sse), 0);
    sse.mxcsr |= 0x20;
    cr_expect_eq(EXECUTE("\xf2\x0f\x58\xc1"), ASSIST_SSE_RAISES, "it stands already");
    cr_expect_eq(sse.mxcsr, (MXCSR_RESET & ~0x400u) | 0x28);
    cr_expect_eq(get_double(0), 0x1.8p1023);
}

/* Exact and tiny: an underflow only where it is not masked. */
Test(assist_sse, raises_an_exact_underflow_that_is_not_masked)
{
    set_double(0, 0x1p-1022);
    set_double(1, 0.5);
    cr_expect_eq(EXECUTE("\xf2\x0f\x59\xc1"), ASSIST_SSE_DONE);
    cr_expect_eq(get_double(0), 0x1p-1023);
    cr_expect_eq(sse.mxcsr, MXCSR_RESET);
    set_double(0, 0x1p-1022);
    sse.mxcsr = MXCSR_RESET & ~0x800u;
    cr_expect_eq(EXECUTE("\xf2\x0f\x59\xc1"), ASSIST_SSE_RAISES);
    cr_expect_eq(sse.mxcsr, (MXCSR_RESET & ~0x800u) | 0x10);
    cr_expect_eq(get_double(0), 0x1p-1022);
}

/* The host's own rounding and flags are none of the guest's business. */
Test(assist_sse, leaves_the_host_as_it_was)
{
    uint32_t before = __builtin_ia32_stmxcsr();

    sse.mxcsr = MXCSR_RESET | 0x6000;
    set_double(0, 1);
    set_double(1, 3);
    cr_assert_eq(EXECUTE("\xf2\x0f\x5e\xc1"), ASSIST_SSE_DONE);
    cr_expect_neq(sse.mxcsr & 0x20, 0);
    cr_expect_eq(__builtin_ia32_stmxcsr(), before);
}

Test(assist_sse, knows_no_form_that_is_none)
{
    static const char *const codes[] = {
        "\x66\xf2\x0f\x58\xc1", /* two prefixes */
        "\x0f\xef\xc1\x90\x90", /* MMX */
        "\x66\x0f\x50\x03\x90", /* of memory */
        "\x66\x0f\x71\xc1\x01", /* a shift that there is not */
        "\x66\x0f\xf7\xc1\x90", /* MASKMOVDQU */
    };

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        const struct assist_instruction instruction = decoded(codes[i], 5);

        cr_expect_null(assist_sse_form(&instruction), "case %zu", i);
        cr_expect_null(assist_sse_move_find(&instruction), "case %zu", i);
    }
}

/* --- For a vCPU ------------------------------------------------------------------------------------------------ */

static struct assist_vcpu vcpu;

static void read_vcpu(void)
{
    memset(&played, 0, sizeof played);
    played.sregs.cr0 = 1;
    played.sregs.cr4 = 0x600;
    played.sregs.efer = 0x400;
    played.sregs.cs.l = 1;
    played.regs.rip = 0x1000;
    memcpy((uint8_t *)&played.xsave + 24, &(uint32_t){MXCSR_RESET}, 4);
    cr_assert(assist_vcpu_read(&vcpu, VCPU_PLAYED_FD, NULL, NULL));
}

Test(assist_sse, nothing_is_done_where_kvm_refuses)
{
    static const unsigned long requests[] = {KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_SET_REGS};
    const struct assist_instruction paddb = decoded("\x66\x0f\xfc\xc1", 4), movss = decoded("\xf3\x0f\x10\xc1", 4);

    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        read_vcpu();
        played.failing = requests[i];
        cr_expect_not(assist_sse(&vcpu, &paddb), "request %zu", i);
        cr_expect_not(assist_sse_move(&vcpu, &movss), "request %zu", i);
        cr_expect_eq(played.regs.rip, 0x1000);
    }
    read_vcpu();
    cr_expect(assist_sse(&vcpu, &paddb));
    cr_expect_eq(played.regs.rip, 0x1004);
}

/* AMD's processors can be told not to mind (APM volume 1, section 4.2.2). */
Test(assist_sse, alignment_counts_unless_mxcsr_says_otherwise)
{
    const struct assist_instruction paddb = decoded("\x66\x0f\xfc\x03", 4);
    static _Alignas(64) uint8_t map_memory[1 << 16];
    static _Alignas(4096) uint8_t ram[4096];
    struct loam_region region = {.bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};
    struct loam_gpa_map *map;

    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    for (unsigned int i = 0; i < 2; i++) {
        uint32_t mxcsr = MXCSR_RESET | (i != 0 ? 0x20000 : 0);

        read_vcpu();
        memcpy((uint8_t *)&played.xsave + 24, &mxcsr, 4);
        vcpu.view = loam_gpa_map_acquire(map);
        vcpu.regs.rbx = 8;
        cr_expect(assist_sse(&vcpu, &paddb));
        cr_expect_eq(played.events.exception.injected, i == 0);
        cr_expect_eq(played.regs.rip, i == 0 ? 0x1000 : 0x1004);
        loam_gpa_map_release(map, vcpu.view);
    }
}
