// SPDX-License-Identifier: Apache-2.0
#include "vmm/advice.h"

#include "loam/types.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct stand stand;
static struct disassembly instruction;
static struct bus_missed missed[BUS_MISSED_MAX];
static struct advice_facts facts;
static char text[320];

static void set_up(void)
{
    stand = (struct stand){.activity = STAND_RUNNING, .mode = STAND_PROTECTED, .rip = 0x100000, .code_bytes = 15};
    instruction = (struct disassembly){.name = "paddb", .text = "paddb mm0, mm0", .bytes = 3};
    facts = (struct advice_facts){
        .stand = &stand, .instruction = &instruction, .missed = missed, .low_bytes = 16 * LOAM_MIB};
}

TestSuite(advice, .init = set_up);

static void check(const char *wanted)
{
    memset(text, 'x', sizeof text);
    advice_of(&facts, text, sizeof text);
    cr_expect_str_eq(text, wanted);
}

Test(advice, is_none_where_nothing_is_known)
{
    check("");
    facts = (struct advice_facts){.low_bytes = LOAM_MIB};
    check("");
}

static void check_word(const char *name, const char *shown, const char *word)
{
    char wanted[200];

    snprintf(instruction.name, sizeof instruction.name, "%s", name);
    snprintf(wanted, sizeof wanted, "its emulator lacks %s: a Linux kernel leaves it out with %s on its command line",
             shown, word);
    check(wanted);
}

Test(advice, has_the_word_that_avoids_an_instruction)
{
    stand.lacks_instruction = true;
    check_word("xrstor", "XRSTOR", "noxsave");
    check_word("xrstor64", "XRSTOR64", "noxsave");
    check_word("xsaveopt", "XSAVEOPT", "noxsave");
    check_word("xgetbv", "XGETBV", "noxsave");
    check_word("clac", "CLAC", "clearcpuid=308");
    check_word("stac", "STAC", "clearcpuid=308");
    check_word("popcnt", "POPCNT", "clearcpuid=151");
    check_word("cmpxchg16b", "CMPXCHG16B", "clearcpuid=141");
    check_word("wrfsbase", "WRFSBASE", "clearcpuid=288");
    check_word("invpcid", "INVPCID", "nopcid noinvpcid");
    check_word("vmcall", "VMCALL", "nopv");
    cr_expect_null(advice_linux_word("nop"));
    cr_expect_null(advice_linux_word(""));
}

Test(advice, names_what_no_word_avoids)
{
    stand.lacks_instruction = true;
    facts.kvm_emulates = true;
    check("its emulator lacks PADDB, and there is no hardware virtualization under it: a host with VT-x or AMD-V "
          "carries it out");
    facts.kvm_emulates = false;
    check("its emulator lacks PADDB, which it meets at devices and in real mode only");
    facts.instruction = NULL;
    check("");
    stand.code_bytes = 0;
    stand.rip = 0xe0000000;
    check("the guest went to 0xe0000000, where there is no code");
}

/* PG, and PE with it, from a register. */
static void turn_paging_on(uint8_t number, uint64_t value)
{
    stand.is_triple_fault = true;
    stand.regs = (struct kvm_regs){0};
    stand.sregs = (struct kvm_sregs){.cr0 = 0x11, .idt = {.limit = 0x7ff}};
    memcpy(stand.code, "\x0f\x22", 2);
    stand.code[2] = (uint8_t)(0xc0 | number);
    *(__u64 *[]){&stand.regs.rax, &stand.regs.rcx, &stand.regs.rdx, &stand.regs.rbx,
                 &stand.regs.rsp, &stand.regs.rbp, &stand.regs.rsi, &stand.regs.rdi}[number] = value;
}

#define NO_LEGACY_PAGING                                                                                               \
    "it turned paging on outside long mode, which this KVM, without hardware virtualization under it, does not have: " \
    "use a 64-bit guest, or a host with VT-x or AMD-V"

Test(advice, knows_a_kvm_without_paging_outside_long_mode)
{
    facts.kvm_emulates = true;
    for (uint8_t i = 0; i < 8; i++) {
        turn_paging_on(i, 0x80000011);
        check(NO_LEGACY_PAGING);
    }
    turn_paging_on(0, 0x80010011);
    check(NO_LEGACY_PAGING);
}

Test(advice, does_not_take_other_triple_faults_for_that)
{
    turn_paging_on(0, 0x80000011);
    check(""); /* with hardware virtualization it is the guest's tables */
    facts.kvm_emulates = true;
    turn_paging_on(0, 0x80000010);
    check(""); /* PG without PE: #GP on any processor */
    turn_paging_on(0, 0x11);
    check("");
    turn_paging_on(0, 0x80000011);
    stand.sregs.efer = 1 << 8;
    check(""); /* into long mode */
    turn_paging_on(0, 0x80000011);
    stand.sregs.cr0 |= UINT64_C(1) << 31;
    check("");
    turn_paging_on(0, 0x80000011);
    stand.code[2] = 0xd8;
    check(""); /* MOV CR3 */
    turn_paging_on(0, 0x80000011);
    stand.code_bytes = 2;
    check("");
    turn_paging_on(0, 0x80000011);
    stand.is_triple_fault = false;
    check("");
    facts.stand = NULL;
    check("");
}

Test(advice, knows_a_guest_without_handlers)
{
    snprintf(instruction.name, sizeof instruction.name, "ud2");
    stand.is_triple_fault = true;
    check("an exception came at UD2, and the guest has no handlers yet: its IDT is empty");
    facts.instruction = NULL;
    check("an exception came, and the guest has no handlers yet: its IDT is empty");
    stand.sregs.idt.limit = 0xfff;
    check("");
    stand.sregs.idt.limit = 0;
    stand.mode = STAND_REAL;
    check("");
    stand.mode = STAND_PROTECTED;
    stand.regs.rip = 0xfff0;
    stand.sregs.cs.base = 0xffff0000;
    check("");
}

static void check_missed(uint64_t address, const char *wanted)
{
    missed[0] = (struct bus_missed){BUS_PIO, 0xe9, 1, true, 0x21, 1};
    missed[1] = (struct bus_missed){BUS_MMIO, address, 4, true, 0, 1};
    facts.missed_count = 2;
    check(wanted);
}

Test(advice, knows_where_more_memory_would_be)
{
    facts.stand = NULL;
    check_missed(16 * LOAM_MIB,
                 "it reached for 0x1000000, where no RAM is: if it needs some there, raise --memory to 32M");
    check_missed(31 * LOAM_MIB,
                 "it reached for 0x1f00000, where no RAM is: if it needs some there, raise --memory to 32M");
    facts.high_bytes = LOAM_MIB;
    facts.low_bytes = 12 * LOAM_MIB;
    check_missed(16 * LOAM_MIB,
                 "it reached for 0x1000000, where no RAM is: if it needs some there, raise --low-limit to 32M");
    check_missed(LOAM_GIB,
                 "it reached for 0x40000000, where no RAM is: if it needs some there, raise --low-limit to 1536M");
    check_missed(3 * LOAM_GIB - 1,
                 "it reached for 0xbfffffff, where no RAM is: if it needs some there, raise --low-limit to 3072M");
    check_missed(3 * LOAM_GIB, "");
    check_missed(0xa0000, ""); /* below, a PC's own hole */
    facts.stand = &stand;
    stand.lacks_instruction = true;
    stand.code_bytes = 0;
    stand.rip = 20 * LOAM_MIB;
    facts.instruction = NULL;
    check_missed(0xa0000,
                 "it reached for 0x1400000, where no RAM is: if it needs some there, raise --low-limit to 32M");
}

Test(advice, is_cut_where_its_place_ends)
{
    stand.lacks_instruction = true;
    for (size_t bytes = 1; bytes < 40; bytes++) {
        memset(text, 'x', sizeof text);
        advice_of(&facts, text, bytes);
        cr_expect_eq(strlen(text), bytes - 1);
    }
}
