// SPDX-License-Identifier: Apache-2.0
/* Each move by example, and words that MXCSR may not have; assist_step_test compares each with the processor. */
#include "vmm/assist_sse_move.h"

#include "tests/vmm/vcpu_played.h"

#include <criterion/criterion.h>
#include <string.h>

#define MXCSR_RESET 0x1f80u

static _Alignas(64) uint8_t map_memory[1 << 16];
static _Alignas(4096) uint8_t ram[4096];
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;
static struct assist_sse sse;
static struct kvm_regs regs;
static uint8_t memory[16];

/* xmm1 is 10 11 12 ..., xmm2 is 20 21 22 ..., memory is 30 31 32 ... */
static void set_up(void)
{
    struct loam_region region = {.bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    for (uint8_t i = 0; i < 16; i++) {
        sse.registers[1][i] = (uint8_t)(0x10 + i);
        sse.registers[2][i] = (uint8_t)(0x20 + i);
        memory[i] = (uint8_t)(0x30 + i);
    }
    sse.mxcsr = MXCSR_RESET;
    memset(&played, 0, sizeof played);
    played.sregs.cr0 = 1;
    played.sregs.cr4 = 0x200;
    played.sregs.efer = 0x400;
    played.sregs.cs.l = 1;
    played.regs.rip = 0x1000;
    memcpy((uint8_t *)&played.xsave + 24, &sse.mxcsr, 4);
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(map);
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
}

TestSuite(assist_sse_move, .init = set_up, .fini = tear_down);

static struct assist_instruction decoded(const char *bytes)
{
    struct assist_instruction instruction;

    cr_assert_eq(assist_decode((const uint8_t *)bytes, 5, ASSIST_MODE_64, &instruction), ASSIST_DECODED);
    return instruction;
}

/* What is in xmm1 afterwards, or what else moved is. */
Test(assist_sse_move, moves_what_it_names)
{
    static const struct {
        const char *code;
        const void *where;
        uint8_t wanted[16];
    } cases[] = {
        {"\xf3\x0f\x10\x0b", sse.registers[1], {0x30, 0x31, 0x32, 0x33}},
        {"\xf3\x0f\x10\xca",
         sse.registers[1],
         {0x20, 0x21, 0x22, 0x23, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}},
        {"\x0f\x12\xca\x90",
         sse.registers[1],
         {0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}},
        {"\x0f\x16\xca\x90",
         sse.registers[1],
         {0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27}},
        {"\x66\x0f\x17\x0b",
         memory,
         {0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f}},
        {"\xf3\x0f\x7e\xca", sse.registers[1], {0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27}},
        {"\x66\x0f\xd6\xca", sse.registers[2], {0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17}},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct assist_instruction instruction = decoded(cases[i].code);

        tear_down();
        set_up();
        assist_sse_move_execute(assist_sse_move_find(&instruction), &instruction, memory, &sse, &regs);
        cr_expect_eq(memcmp(cases[i].where, cases[i].wanted, 16), 0, "case %zu", i);
    }
}

Test(assist_sse_move, general_registers_are_filled_up_with_zeros)
{
    struct assist_instruction movd = decoded("\x66\x0f\x7e\xc8\x90"), movq = decoded("\x66\x48\x0f\x7e\xc8");

    regs.rax = UINT64_MAX;
    assist_sse_move_execute(assist_sse_move_find(&movd), &movd, memory, &sse, &regs);
    cr_expect_eq(regs.rax, 0x13121110);
    assist_sse_move_execute(assist_sse_move_find(&movq), &movq, memory, &sse, &regs);
    cr_expect_eq(regs.rax, UINT64_C(0x1716151413121110));
}

/* The masks of no processor have a bit above 17. */
Test(assist_sse_move, mxcsr_takes_no_reserved_bit)
{
    const struct assist_instruction ldmxcsr = decoded("\x0f\xae\x13\x90\x90");
    struct assist_vcpu vcpu;

    for (unsigned int bit = 0; bit < 32; bit++) {
        uint32_t value = MXCSR_RESET ^ UINT32_C(1) << bit, found;
        bool is_raised;

        if (bit == 16 || bit == 17) {
            continue;
        }
        memcpy(ram, &value, sizeof value);
        memset(&played.events, 0, sizeof played.events);
        cr_assert(assist_vcpu_read(&vcpu, VCPU_PLAYED_FD, view, NULL));
        cr_assert(assist_mxcsr(&vcpu, &ldmxcsr));
        is_raised = played.events.exception.injected != 0;
        memcpy(&found, (uint8_t *)&played.xsave + 24, sizeof found);
        cr_expect_eq(is_raised, bit > 17, "bit %u", bit);
        cr_expect(is_raised || found == value, "bit %u: 0x%x", bit, found);
    }
}

/* Memory is written last: whatever fails before leaves it alone. */
Test(assist_sse_move, memory_is_left_alone_where_kvm_refuses)
{
    const struct assist_instruction movss = decoded("\xf3\x0f\x11\x0b\x90"), stmxcsr = decoded("\x0f\xae\x1b\x90\x90");
    struct assist_vcpu vcpu;

    cr_assert(assist_vcpu_read(&vcpu, VCPU_PLAYED_FD, view, NULL));
    played.failing = KVM_SET_REGS;
    memset(ram, 0x5a, 8);
    cr_expect_not(assist_sse_move(&vcpu, &movss));
    cr_expect_not(assist_mxcsr(&vcpu, &stmxcsr));
    cr_expect_eq(ram[0], 0x5a);
    played.failing = 0;
    cr_expect(assist_mxcsr(&vcpu, &stmxcsr));
    cr_expect_eq(memcmp(ram, "\x80\x1f\x00\x00\x5a", 5), 0);
}
