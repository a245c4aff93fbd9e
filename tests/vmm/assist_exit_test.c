// SPDX-License-Identifier: Apache-2.0
/* Which exits are assisted, and what is written back, on a vCPU that is played: real guests run in assist_test. */
#include "vmm/assist.h"

#include "tests/vmm/vcpu_played.h"
#include "vmm/assist_vcpu.h"

#include <criterion/criterion.h>
#include <string.h>

#define PAGE UINT64_C(4096)

enum { FWAIT = 0x9b, INT3 = 0xcc, X87 = 0xd9, FLD1 = 0xe8 };

static _Alignas(64) uint8_t map_memory[1 << 16];
static _Alignas(4096) uint8_t ram[3 * PAGE];
static struct loam_gpa_map *map;
static struct kvm_run run;
static uint64_t rip; /* before the instruction */

/* In 32-bit code without paging, at 0x1000. */
static void set_up(void)
{
    const struct loam_gpa_map_config config = {.region_capacity = 8};
    struct loam_region region = {.bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    memset(&played, 0, sizeof played);
    played.regs.rip = 0x1000;
    played.regs.rflags = 0x2;
    played.sregs.cr0 = 1;
    played.sregs.cs = (struct kvm_segment){.limit = UINT32_MAX, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1};
    played.sregs.ss = played.sregs.ds = played.sregs.cs;
    played.sregs.ss.type = played.sregs.ds.type = 3;
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, &config, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
}

TestSuite(assist_exit, .init = set_up);

static bool assist(const void *code, uint8_t count)
{
    memset(&run, 0, sizeof run);
    run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.emulation_failure.ndata = 3;
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.insn_size = count;
    memcpy(run.emulation_failure.insn_bytes, code, count);
    rip = played.regs.rip;
    return assist_instruction(VCPU_PLAYED_FD, &run, map, NULL);
}

static bool assist_byte(uint8_t code)
{
    return assist(&code, 1);
}

/* RF is what a fault's handler finds set; it may stand already where KVM refuses the fault. */
static void check_unchanged(void)
{
    cr_expect_eq(played.regs.rflags & ~UINT64_C(0x10000), 0x2);
    cr_expect_eq(played.regs.rip, rip);
    cr_expect_eq(played.sregs.cr2, 0);
    cr_expect_eq(played.xsave_writes, 0);
    cr_expect_eq(played.events.exception.injected, 0);
}

Test(assist_exit, fwait_goes_on)
{
    cr_assert(assist_byte(FWAIT));
    cr_expect_eq(played.regs.rip, 0x1001);
    cr_expect_eq(played.events.exception.injected, 0);
}

Test(assist_exit, an_instruction_may_be_told_with_all_the_bytes_that_follow)
{
    uint8_t code[15];

    memset(code, FWAIT, sizeof code);
    cr_assert(assist(code, sizeof code));
    cr_expect_eq(played.regs.rip, 0x1001, "one is carried out");
}

Test(assist_exit, fwait_without_a_device_raises_only_if_both_bits_say_so)
{
    for (uint64_t bits = 0; bits < 16; bits++) {
        bool is_due = (bits & (1 << 1 | 1 << 3)) == (1 << 1 | 1 << 3); /* MP, TS */

        set_up();
        played.sregs.cr0 = (bits & ~UINT64_C(1)) | 1;
        cr_assert(assist_byte(FWAIT));
        cr_expect_eq(played.events.exception.injected, is_due, "CR0 0x%lx", (unsigned long)played.sregs.cr0);
        cr_expect_eq(played.events.exception.nr, is_due ? 7 : 0);
        cr_expect_eq(played.regs.rip, is_due ? 0x1000 : 0x1001);
    }
}

static void set_pending(void)
{
    uint8_t *image = (uint8_t *)&played.xsave;

    image[0] = 0x7e; /* FCW: invalid operations are not masked */
    image[1] = 0x03;
    image[2] = 0x81; /* FSW: and there was one */
}

Test(assist_exit, fwait_raises_what_is_pending)
{
    set_pending();
    cr_expect_not(assist_byte(FWAIT), "without CR0.NE it would go by an interrupt line");
    check_unchanged();
    played.sregs.cr0 |= 1 << 5;
    cr_assert(assist_byte(FWAIT));
    cr_expect_eq(played.events.exception.nr, 16);
    cr_expect_eq(played.regs.rip, 0x1000);
}

Test(assist_exit, int3_is_a_trap_for_kernels)
{
    cr_assert(assist_byte(INT3));
    cr_expect_eq(played.regs.rip, 0x1001);
    cr_expect_eq(played.events.exception.nr, 3);
    for (uint8_t level = 0; level <= 3; level++) {
        set_up();
        played.sregs.cs.dpl = played.sregs.ss.dpl = level;
        cr_expect_eq(assist_byte(INT3), level < 3, "privilege %u", level);
        cr_expect_eq(played.events.exception.injected, level < 3);
    }
}

/* --- The x87's own -------------------------------------------------------------------------------------------- */

#define OPERAND 0x2010 /* where the codes below have theirs */

static const uint8_t fld_float[] = {0xd9, 0x05, 0x10, 0x20, 0, 0}, fstp_float[] = {0xd9, 0x1d, 0x10, 0x20, 0, 0},
                     fnstsw_ax[] = {0xdf, 0xe0}, fnstcw[] = {0xd9, 0x3d, 0x10, 0x20, 0, 0}, fucomip[] = {0xdf, 0xe9},
                     fldcw[] = {0xd9, 0x2d, 0x10, 0x20, 0, 0};

static uint8_t *image(void)
{
    return (uint8_t *)&played.xsave;
}

/* FNINIT, and 1.0 on the stack. */
static void set_fpu(void)
{
    memcpy(image(), "\x7f\x03\x00\x38\x80", 5);
    memcpy(image() + 32, "\x00\x00\x00\x00\x00\x00\x00\x80\xff\x3f", 10);
}

static void check_trace(uint16_t opcode, uint32_t operand)
{
    cr_expect_eq(memcmp(image() + 6, &opcode, 2), 0, "opcode 0x%02x%02x", image()[7], image()[6]);
    cr_expect_eq(memcmp(image() + 8, &(uint64_t){0x1000}, 8), 0);
    cr_expect_eq(memcmp(image() + 16, &(uint64_t){operand}, 8), 0);
}

Test(assist_exit, x87_reads_memory_and_leaves_a_trace)
{
    memcpy(image(), "\x7f\x03", 2);
    memcpy(ram + OPERAND, "\x00\x00\x80\x3f", 4);
    cr_assert(assist(fld_float, sizeof fld_float));
    cr_expect_eq(memcmp(image() + 32, "\x00\x00\x00\x00\x00\x00\x00\x80\xff\x3f", 10), 0, "1.0");
    check_trace(0x105, OPERAND);
    cr_expect_eq(played.regs.rip, 0x1006);
}

Test(assist_exit, x87_writes_memory_and_no_more_than_its_operand)
{
    memset(ram + OPERAND - 1, 0x5a, 6);
    set_fpu();
    cr_assert(assist(fstp_float, sizeof fstp_float));
    cr_expect_eq(memcmp(ram + OPERAND - 1, "\x5a\x00\x00\x80\x3f\x5a", 6), 0);
    cr_expect_eq(image()[4], 0, "the stack is empty again");
    check_trace(0x11d, OPERAND);
}

Test(assist_exit, x87_writes_ax_and_flags)
{
    set_fpu();
    played.regs.rax = UINT64_C(0x1122334455667788);
    cr_assert(assist(fnstsw_ax, sizeof fnstsw_ax));
    cr_expect_eq(played.regs.rax, UINT64_C(0x1122334455663800));
    for (uint32_t i = 6; i < 24; i++) {
        cr_expect_eq(image()[i], 0, "a control instruction leaves no trace");
    }
}

Test(assist_exit, x87_compares_into_flags_and_keeps_the_others)
{
    set_fpu();
    image()[4] = 0xc0; /* two values, and equal */
    image()[3] = 0x30;
    memcpy(image() + 48, image() + 32, 10);
    played.regs.rflags = 0x603; /* DF, IF, CF */
    cr_assert(assist(fucomip, sizeof fucomip));
    cr_expect_eq(played.regs.rflags, 0x642, "ZF, and neither CF nor PF");
}

/* Memory is written last: whatever fails before leaves it alone. */
Test(assist_exit, x87_that_fails_changes_nothing)
{
    static const unsigned long requests[] = {KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_SET_REGS};

    for (uint32_t i = 0; i < 3; i++) {
        set_fpu();
        played.failing = requests[i];
        cr_expect_not(assist(fstp_float, sizeof fstp_float), "request %u", i);
        cr_expect_eq(ram[OPERAND + 3], 0, "request %u", i);
        cr_expect_eq(played.regs.rip, 0x1000);
    }
    set_up();
    set_fpu();
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){2 * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_expect_not(assist(fstp_float, sizeof fstp_float), "read-only memory");
    check_unchanged();
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){2 * PAGE}, PAGE), LOAM_OK);
    cr_expect_not(assist(fld_float, sizeof fld_float), "no memory");
    check_unchanged();
}

Test(assist_exit, x87_without_a_device_raises)
{
    for (uint32_t bit = 2; bit <= 3; bit++) { /* EM, TS */
        set_up();
        set_fpu();
        played.sregs.cr0 = 1 | 1u << bit;
        cr_assert(assist(fstp_float, sizeof fstp_float));
        cr_expect_eq(played.events.exception.nr, 7);
        cr_expect_eq(played.regs.rip, 0x1000);
        cr_expect_eq(ram[OPERAND + 3], 0);
    }
}

Test(assist_exit, x87_raises_what_is_pending_unless_it_does_not_wait)
{
    set_pending();
    cr_expect_not(assist(fld_float, sizeof fld_float), "without CR0.NE it would go by an interrupt line");
    check_unchanged();
    cr_expect_not(assist(fldcw, sizeof fldcw));
    check_unchanged();
    cr_assert(assist(fnstcw, sizeof fnstcw), "it waits for nothing");
    cr_expect_eq(memcmp(ram + OPERAND, "\x7e\x03", 2), 0);
    played.sregs.cr0 |= 1 << 5;
    cr_assert(assist(fld_float, sizeof fld_float));
    cr_expect_eq(played.events.exception.nr, 16);
    cr_expect_eq(played.regs.rip, 0x1006, "behind FNSTCW");
}

/* --- Fetching --------------------------------------------------------------------------------------------------- */

Test(assist_exit, the_byte_behind_a_page_is_fetched)
{
    ram[2 * PAGE] = FLD1;
    played.regs.rip = 2 * PAGE - 1;
    cr_assert(assist_byte(X87));
    cr_expect_eq(played.regs.rip, 2 * PAGE + 1);
    set_up();
    ram[2 * PAGE] = FLD1;
    played.regs.rip = 2 * PAGE - 1;
    played.sregs.cs.limit = 2 * PAGE - 1;
    cr_expect(assist_byte(X87), "beyond the segment");
    cr_expect_eq(played.events.exception.nr, 13);
    cr_expect_eq(played.events.exception.has_error_code, 1);
    cr_expect_eq(played.regs.rip, 2 * PAGE - 1);
    set_up();
    played.regs.rip = sizeof ram - 1;
    cr_expect_not(assist_byte(X87), "no memory is there");
    check_unchanged();
    ram[sizeof ram - 1] = FLD1;
    played.regs.rip = sizeof ram - 2;
    played.sregs.cs.limit = sizeof ram - 1;
    cr_expect(assist_byte(X87), "the last byte of memory and segment is there");
}

Test(assist_exit, no_more_is_fetched_than_an_instruction_has)
{
    uint8_t prefixes[15];

    memset(prefixes, 0x66, sizeof prefixes);
    memset(ram, 0x66, sizeof ram);
    cr_expect_not(assist(prefixes, sizeof prefixes));
    cr_expect_not(assist(prefixes, 1));
    check_unchanged();
}

Test(assist_exit, what_kvm_does_not_say_is_not_assisted)
{
    static const struct {
        uint32_t exit_reason, suberror, ndata;
        uint64_t flags;
        uint8_t size;
    } cases[] = {
        {KVM_EXIT_UNKNOWN, 1, 3, 1, 1},
        {17, 2, 3, 1, 1},
        {17, 1, 2, 1, 1},
        {17, 1, 3, 2, 1},
        {17, 1, 3, 1, 0},
        {17, 1, 3, 1, 16},
    };

    ram[PAGE] = FWAIT;
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert(assist_byte(FWAIT), "what it leaves behind is not to be taken for an instruction");
        set_up();
        memset(&run, 0, sizeof run);
        run.exit_reason = cases[i].exit_reason;
        run.emulation_failure.suberror = cases[i].suberror;
        run.emulation_failure.ndata = cases[i].ndata;
        run.emulation_failure.flags = cases[i].flags;
        run.emulation_failure.insn_size = cases[i].size;
        run.emulation_failure.insn_bytes[0] = FWAIT;
        rip = played.regs.rip;
        cr_expect_not(assist_instruction(VCPU_PLAYED_FD, &run, map, NULL), "case %u", i);
        check_unchanged();
    }
    cr_assert(assist_byte(FWAIT));
    set_up();
    cr_expect_not(assist_byte(0x90), "an instruction that is none of these");
    check_unchanged();
}

Test(assist_exit, nothing_is_done_where_kvm_refuses)
{
    static const unsigned long requests[] = {KVM_GET_REGS, KVM_GET_XSAVE, KVM_SET_REGS};

    for (uint32_t i = 0; i < 3; i++) {
        played.failing = requests[i];
        cr_expect_not(assist_byte(FWAIT), "request %u", i);
        check_unchanged();
    }
    cr_expect_not(assist_byte(INT3));
    check_unchanged();
    played.failing = KVM_SET_XSAVE;
    cr_expect_not(assist("\xd9\xe8", 2));
    check_unchanged();
    played.failing = KVM_SET_VCPU_EVENTS;
    cr_expect_not(assist_byte(INT3));
    set_up();
    played.failing = KVM_SET_VCPU_EVENTS;
    played.sregs.cr0 |= 1 << 1 | 1 << 3;
    cr_expect_not(assist_byte(FWAIT));
    played.sregs.cr0 = 1 | 1 << 5;
    set_pending();
    cr_expect_not(assist_byte(FWAIT));
    check_unchanged();
}

/* A view that stayed held would soon keep the map from any change. */
Test(assist_exit, no_view_is_kept)
{
    for (uint32_t i = 0; i < 32; i++) {
        cr_assert(assist_byte(FWAIT));
        cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){0}, PAGE, i % 2 == 0 ? LOAM_ACCESS_READ : LOAM_ACCESS_WRITE),
                     LOAM_OK, "change %u", i);
    }
}
