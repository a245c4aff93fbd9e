// SPDX-License-Identifier: Apache-2.0
/* What is refused, what KVM is asked, and what it refuses; assist_ring0_test runs each in a guest. */
#include "vmm/assist_system.h"

#include "tests/vmm/vcpu_played.h"

#include <criterion/criterion.h>
#include <string.h>

#define PGE UINT64_C(0x80)

static _Alignas(64) uint8_t map_memory[1 << 16];
static _Alignas(4096) uint8_t ram[4096];
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;
static struct assist_vcpu vcpu;

/* In 32-bit code without paging; the IDT is at 0x800, with gates of 8 bytes. */
static void set_up(void)
{
    struct loam_region region = {.bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    memset(&played, 0, sizeof played);
    memset(ram, 0, sizeof ram);
    played.sregs.cr0 = 1;
    played.sregs.cr4 = 0x40000 | PGE;
    played.sregs.cs = (struct kvm_segment){.limit = UINT32_MAX, .type = 11, .present = 1, .s = 1, .db = 1};
    played.sregs.ds = played.sregs.ss = played.sregs.cs;
    played.sregs.ds.type = played.sregs.ss.type = 3;
    played.sregs.idt = (struct kvm_dtable){.base = 0x800, .limit = 0x7ff};
    played.regs.rip = 0x1000;
    played.regs.rflags = 2;
    played.xcrs.nr_xcrs = 1;
    played.xcrs.xcrs[0].value = UINT64_C(0x8000000000000207);
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
}

TestSuite(assist_system, .init = set_up, .fini = tear_down);

static bool run(const char *bytes, size_t count)
{
    struct assist_instruction instruction;

    cr_assert(assist_vcpu_read(&vcpu, VCPU_PLAYED_FD, view, NULL));
    cr_assert_eq(assist_decode((const uint8_t *)bytes, count, assist_vcpu_mode(&vcpu), &instruction), ASSIST_DECODED);
    if (instruction.map == ASSIST_MAP_ONE) {
        return assist_int(&vcpu, &instruction);
    }
    return instruction.map == ASSIST_MAP_0F ? assist_group7(&vcpu, &instruction) : assist_invpcid(&vcpu, &instruction);
}

#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

static void check_raised(unsigned int vector, uint32_t error_code)
{
    cr_expect_eq(played.events.exception.injected, 1);
    cr_expect_eq(played.events.exception.nr, vector, "%u", played.events.exception.nr);
    cr_expect_eq(played.events.exception.error_code, error_code, "0x%x", played.events.exception.error_code);
    cr_expect_eq(played.regs.rip, 0x1000);
    played.events.exception.injected = 0;
}

Test(assist_system, takes_no_other_instruction)
{
    cr_expect_not(RUN("\x0f\x01\xd1"), "XSETBV");
    cr_expect_not(RUN("\x0f\x01\xc1"), "VMCALL");
    cr_expect_not(RUN("\x66\x0f\x01\xca"), "CLAC takes no prefix");
    cr_expect_not(RUN("\x0f\x38\x82\x03"), "INVPCID wants one");
    cr_expect_eq(played.write_count, 0);
}

Test(assist_system, xgetbv_takes_the_register_that_is_asked_for)
{
    played.regs.rcx = UINT64_C(0x100000000);
    cr_assert(RUN("\x0f\x01\xd0"));
    cr_expect_eq(played.regs.rax, 0x207);
    cr_expect_eq(played.regs.rdx, 0x80000000);
    cr_expect_eq(played.regs.rip, 0x1003);
    played.regs.rip = 0x1000;
    played.regs.rcx = 1;
    cr_expect_not(RUN("\x0f\x01\xd0"), "what is in use is the processor's own affair");
    played.regs.rcx = 0;
    played.failing = KVM_GET_XCRS;
    cr_expect_not(RUN("\x0f\x01\xd0"));
    played.failing = 0;
    played.xcrs.nr_xcrs = 0;
    cr_expect_not(RUN("\x0f\x01\xd0"));
    played.xcrs.nr_xcrs = UINT32_MAX;
    played.xcrs.xcrs[0].xcr = 7;
    memset(played.xcrs.xcrs, 7, sizeof played.xcrs.xcrs);
    cr_expect_not(RUN("\x0f\x01\xd0"), "no more than there are");
}

/* Twice, and as before in the end. */
Test(assist_system, invpcid_flushes_by_cr4)
{
    played.regs.rbx = 0x100;
    played.regs.rax = 2;
    cr_assert(RUN("\x66\x0f\x38\x82\x03"));
    cr_expect_eq(played.sregs_writes, 2);
    cr_expect_eq(played.cr4_before, 0x40000, "PGE was off meanwhile");
    cr_expect_eq(played.sregs.cr4, 0x40000 | PGE);
    cr_expect_eq(played.regs.rip, 0x1005);
    played.regs.rip = 0x1000;
    played.failing = KVM_SET_SREGS;
    cr_expect_not(RUN("\x66\x0f\x38\x82\x03"));
    cr_expect_eq(played.regs.rip, 0x1000);
}

/* Contexts have numbers only where CR4 says so. */
Test(assist_system, invpcid_takes_a_context_where_there_are_contexts)
{
    played.regs.rbx = 0x100;
    ram[0x100] = 5;
    for (unsigned int i = 0; i < 8; i++) {
        bool has_contexts = (i & 4) != 0;

        played.regs.rip = 0x1000;
        played.events.exception.injected = 0;
        played.sregs.cr4 = PGE | (has_contexts ? UINT64_C(0x20000) : 0);
        played.regs.rax = i & 3;
        cr_assert(RUN("\x66\x0f\x38\x82\x03"));
        cr_expect_eq(played.events.exception.injected, !has_contexts && (i & 3) < 2, "case %u", i);
    }
}

static void put_gate(unsigned int vector, uint8_t access)
{
    ram[0x800 + 8 * vector + 5] = access;
}

Test(assist_system, int_wants_a_gate_of_32_bit_code)
{
    for (unsigned int access = 0; access < 256; access++) {
        unsigned int type = access & 0x1f;
        bool is_gate = type == 5 || type == 6 || type == 7 || type == 14 || type == 15;

        played.regs.rip = 0x1000;
        played.events.interrupt.injected = 0;
        put_gate(0x40, (uint8_t)access);
        cr_assert(RUN("\xcd\x40"));
        if (is_gate && (access & 0x80) != 0) {
            cr_expect_eq(played.events.interrupt.injected, 1, "0x%02x", access);
            cr_expect_eq(played.events.interrupt.nr, 0x40);
            cr_expect_eq(played.events.interrupt.soft, 1);
            cr_expect_eq(played.regs.rip, 0x1002);
        } else {
            cr_expect_eq(played.events.interrupt.injected, 0, "0x%02x", access);
            check_raised(is_gate ? 11 : 13, 0x202);
        }
    }
}

Test(assist_system, int_heeds_privilege)
{
    for (uint8_t level = 0; level <= 3; level++) {
        for (uint8_t dpl = 0; dpl <= 3; dpl++) {
            played.regs.rip = 0x1000;
            memset(&played.events, 0, sizeof played.events);
            played.sregs.cs.dpl = played.sregs.ss.dpl = level;
            put_gate(0x41, (uint8_t)(0x8e | dpl << 5));
            cr_expect_eq(RUN("\xcd\x41"), level < 3, "level %u", level);
            if (level < 3 && dpl < level) {
                check_raised(13, 0x20a);
            } else {
                cr_expect_eq(played.events.interrupt.injected, level < 3, "level %u, DPL %u", level, dpl);
            }
        }
    }
}

Test(assist_system, int_stays_within_the_table)
{
    put_gate(0xff, 0x8e);
    cr_assert(RUN("\xcd\xff"));
    cr_expect_eq(played.events.interrupt.nr, 0xff);
    set_up();
    put_gate(0xff, 0x8e);
    played.sregs.idt.limit--;
    cr_assert(RUN("\xcd\xff"));
    check_raised(13, 0x7fa);
    played.sregs.idt = (struct kvm_dtable){.base = 0x10000, .limit = 0x7ff};
    cr_expect_not(RUN("\xcd\xff"), "no memory is there");
    cr_expect_eq(played.events.interrupt.injected, 0);
}
