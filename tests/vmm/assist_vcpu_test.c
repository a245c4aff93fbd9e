// SPDX-License-Identifier: Apache-2.0
/* What is read from a vCPU and written back to it, against one that is played: real guests run in assist_test. */
#include "vmm/assist_vcpu.h"

#include "tests/vmm/vcpu_played.h"

#include <criterion/criterion.h>
#include <string.h>

static struct assist_vcpu vcpu;
static const struct loam_gpa_view *const view = (const void *)&vcpu; /* handed on, and not looked into */
static struct loam_dirty *const dirty = (void *)&vcpu;

/* In 64-bit mode, at 0x1000. */
static void set_up(void)
{
    memset(&played, 0, sizeof played);
    memset(&vcpu, 0xa5, sizeof vcpu);
    played.regs.rip = 0x1000;
    played.regs.rflags = 0x2;
    played.sregs.cr0 = 0x80000001;
    played.sregs.efer = 0x500;
    played.sregs.cs.l = 1;
}

static bool read_vcpu(void)
{
    return assist_vcpu_read(&vcpu, VCPU_PLAYED_FD, view, dirty);
}

TestSuite(assist_vcpu, .init = set_up);

Test(assist_vcpu, is_read_in_64_bit_and_in_32_bit_code)
{
    struct assist_memory memory;

    cr_expect(read_vcpu());
    cr_expect_eq(vcpu.fd, VCPU_PLAYED_FD);
    cr_expect_eq(vcpu.view, view);
    cr_expect_eq(assist_vcpu_mode(&vcpu), ASSIST_MODE_64);
    memory = assist_vcpu_memory(&vcpu);
    cr_expect_eq(memory.view, view);
    cr_expect_eq(memory.dirty, dirty);
    cr_expect_eq(memory.sregs, &vcpu.sregs);
    cr_expect_eq(memory.rflags, 0x2);
    played.sregs.cs.l = 0;
    played.sregs.cs.db = 1;
    cr_expect(read_vcpu());
    cr_expect_eq(assist_vcpu_mode(&vcpu), ASSIST_MODE_32);
    played.sregs.efer = 0;
    played.sregs.cr0 = 0x1;
    cr_expect(read_vcpu(), "protected mode without paging");
}

Test(assist_vcpu, is_left_alone_where_nothing_is_assisted)
{
    played.sregs.cs.l = 0;
    cr_expect_not(read_vcpu(), "16-bit code");
    played.sregs.cs.db = 1;
    played.sregs.efer = 0;
    played.sregs.cr0 = 0x60000010;
    cr_expect_not(read_vcpu(), "real mode");
    played.sregs.cr0 |= 1;
    cr_expect(read_vcpu());
    for (uint32_t bit = 0; bit < 22; bit++) {
        bool is_refused = bit == 8 || bit == 17; /* TF, VM */

        played.regs.rflags = 0x2 | UINT64_C(1) << bit;
        cr_expect_eq(read_vcpu(), !is_refused, "bit %u of RFLAGS", bit);
    }
    played.regs.rflags = 0x2;
    played.events.exception.injected = 1;
    cr_expect_not(read_vcpu());
    played.events.exception.injected = 0;
    played.events.exception.pending = 1;
    cr_expect_not(read_vcpu());
    played.events.exception.pending = 0;
    cr_expect(read_vcpu());
}

Test(assist_vcpu, is_not_read_if_kvm_refuses)
{
    static const unsigned long requests[] = {KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_VCPU_EVENTS};

    for (uint32_t i = 0; i < 3; i++) {
        played.failing = requests[i];
        cr_expect_not(read_vcpu(), "request %u", i);
    }
}

/* Offsets of the image: Intel SDM volume 1, tables 10-2 and 13.4.2. Each byte there has a value of its own. */
Test(assist_vcpu, the_fpu_is_found_in_the_image_of_xsave)
{
    uint8_t *image = (uint8_t *)&played.xsave;
    struct kvm_fpu fpu;

    for (uint32_t i = 0; i < 512; i++) {
        image[i] = (uint8_t)(i ^ i >> 8);
    }
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_read_fpu(&vcpu, &fpu));
    cr_expect_eq(fpu.fcw, 0x0100);
    cr_expect_eq(fpu.fsw, 0x0302);
    cr_expect_eq(fpu.ftwx, 0x04);
    cr_expect_eq(fpu.last_opcode, 0x0706);
    cr_expect_eq(fpu.last_ip, UINT64_C(0x0f0e0d0c0b0a0908));
    cr_expect_eq(fpu.last_dp, UINT64_C(0x1716151413121110));
    cr_expect_eq(memcmp(fpu.fpr, image + 32, 128), 0);
    played.failing = KVM_GET_XSAVE;
    cr_expect_not(assist_vcpu_read_fpu(&vcpu, &fpu));
}

Test(assist_vcpu, the_fpu_is_written_into_the_image_and_the_rest_stays)
{
    uint8_t *image = (uint8_t *)&played.xsave, expected[sizeof played.xsave];
    struct kvm_fpu fpu = {.fcw = 0x1122,
                          .fsw = 0x3344,
                          .ftwx = 0x55,
                          .last_opcode = 0x0667,
                          .last_ip = UINT64_C(0x7788990011223344),
                          .last_dp = UINT64_C(0x5566778899aabbcc)};
    struct kvm_fpu before;

    memset(image, 0x5a, sizeof played.xsave);
    image[512] = 0x06;
    memset(fpu.fpr, 0x77, sizeof fpu.fpr);
    memcpy(expected, image, sizeof expected);
    memcpy(expected, "\x22\x11\x44\x33\x55\x5a\x67\x06\x44\x33\x22\x11\x00\x99\x88\x77\xcc\xbb\xaa\x99\x88\x77\x66\x55",
           24);
    memset(expected + 32, 0x77, 128);
    expected[512] = 0x07; /* the x87 part counts from now on */
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_read_fpu(&vcpu, &before));
    cr_assert(assist_vcpu_write_fpu(&vcpu, &fpu));
    cr_expect_eq(memcmp(image, expected, sizeof expected), 0);
    played.failing = KVM_SET_XSAVE;
    cr_expect_not(assist_vcpu_write_fpu(&vcpu, &fpu));
}

Test(assist_vcpu, commit_goes_on_behind_the_instruction)
{
    played.regs.rflags = 0x10002;
    played.regs.rip = UINT64_C(0xfffffffe);
    cr_assert(read_vcpu());
    vcpu.regs.rax = 7;
    cr_assert(assist_vcpu_commit(&vcpu, 3));
    cr_expect_eq(played.regs.rip, UINT64_C(0x100000001));
    cr_expect_eq(played.regs.rflags, 0x2, "RF is for one instruction");
    cr_expect_eq(played.regs.rax, 7);
    cr_expect_eq(played.write_count, 1, "without a shadow there is none to end");

    played.sregs.cs.l = 0;
    played.sregs.cs.db = 1;
    played.regs.rip = UINT64_C(0xfffffffe);
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_commit(&vcpu, 3));
    cr_expect_eq(played.regs.rip, 1, "32-bit code wraps");
}

Test(assist_vcpu, commit_ends_the_shadow_of_interrupts)
{
    played.events.interrupt.shadow = 2;
    played.events.nmi.masked = 1;
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_commit(&vcpu, 1));
    cr_expect_eq(played.events.interrupt.shadow, 0);
    cr_expect_eq(played.events.flags, KVM_VCPUEVENT_VALID_SHADOW);
    cr_expect_eq(played.events.nmi.masked, 1);
    cr_expect_eq(played.regs.rip, 0x1001);
    set_up();
    played.events.interrupt.shadow = 1;
    cr_assert(read_vcpu());
    played.failing = KVM_SET_VCPU_EVENTS;
    cr_expect_not(assist_vcpu_commit(&vcpu, 1));
    cr_expect_eq(played.write_count, 0, "nothing has changed");
    played.failing = KVM_SET_REGS;
    cr_expect_not(assist_vcpu_commit(&vcpu, 1));
    cr_expect_eq(played.regs.rip, 0x1000);
}

Test(assist_vcpu, raise_puts_an_exception_on_its_way)
{
    played.events.interrupt.shadow = 1;
    played.events.exception.has_error_code = 1;
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_raise(&vcpu, 16));
    cr_expect_eq(played.events.exception.injected, 1);
    cr_expect_eq(played.events.exception.nr, 16);
    cr_expect_eq(played.events.exception.has_error_code, 0);
    cr_expect_eq(played.events.interrupt.shadow, 0);
    cr_expect_eq(played.events.flags, KVM_VCPUEVENT_VALID_SHADOW);
    cr_expect_eq(played.regs.rip, 0x1000);
    cr_expect_eq(played.regs.rflags, 0x10002, "RF for the handler of a fault");
    played.failing = KVM_SET_VCPU_EVENTS;
    cr_expect_not(assist_vcpu_raise(&vcpu, 16));
    played.failing = KVM_SET_REGS;
    cr_expect_not(assist_vcpu_raise(&vcpu, 16));
    set_up();
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_raise(&vcpu, ASSIST_BREAKPOINT));
    cr_expect_eq(played.regs.rflags, 0x2, "not for that of a trap");
}

Test(assist_vcpu, fault_has_its_error_code_and_cr2_only_of_a_page_fault)
{
    const struct assist_fault none = {.error_code = 7, .address = 9};
    struct assist_fault fault = {
        .vector = ASSIST_PAGE_FAULT, .error_code = 0x1f, .address = UINT64_C(0xffff800012345678)};

    played.events.interrupt.shadow = 1;
    played.sregs.cr2 = 0x77;
    cr_assert(read_vcpu());
    cr_expect_not(assist_vcpu_fault(&vcpu, &none), "a refusal");
    cr_expect_eq(played.write_count, 0);
    cr_assert(assist_vcpu_protect(&vcpu));
    cr_expect_eq(played.events.exception.nr, 13);
    cr_expect_eq(played.events.exception.has_error_code, 1);
    cr_expect_eq(played.events.exception.error_code, 0);
    cr_expect_eq(played.events.interrupt.shadow, 0);
    cr_expect_eq(played.sregs.cr2, 0x77);
    cr_expect_eq(played.sregs_writes, 0);
    cr_assert(assist_vcpu_fault(&vcpu, &fault));
    cr_expect_eq(played.events.exception.nr, 14);
    cr_expect_eq(played.events.exception.error_code, 0x1f);
    cr_expect_eq(played.sregs.cr2, fault.address);
    cr_expect_eq(played.regs.rflags, 0x10002);
    cr_expect_eq(played.regs.rip, 0x1000);
}

Test(assist_vcpu, fault_fails_where_kvm_refuses_a_part_of_it)
{
    static const unsigned long requests[] = {KVM_SET_REGS, KVM_SET_SREGS, KVM_SET_VCPU_EVENTS};
    const struct assist_fault fault = {.vector = ASSIST_PAGE_FAULT, .address = 0x123};

    cr_assert(read_vcpu());
    for (uint32_t i = 0; i < 3; i++) {
        played.failing = requests[i];
        cr_expect_not(assist_vcpu_fault(&vcpu, &fault), "request %u", i);
        cr_expect_eq(played.events.exception.injected, 0);
    }
}

Test(assist_vcpu, interrupt_goes_on_behind_the_instruction_as_a_software_interrupt)
{
    played.regs.rflags = 0x10202;
    played.events.interrupt.shadow = 1;
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_interrupt(&vcpu, 2, 0x80));
    cr_expect_eq(played.regs.rip, 0x1002);
    cr_expect_eq(played.regs.rflags, 0x202);
    cr_expect_eq(played.events.interrupt.injected, 1);
    cr_expect_eq(played.events.interrupt.soft, 1);
    cr_expect_eq(played.events.interrupt.nr, 0x80);
    cr_expect_eq(played.events.interrupt.shadow, 0);
    cr_expect_eq(played.events.exception.injected, 0);
    cr_assert(read_vcpu());
    cr_expect_not(assist_vcpu_interrupt(&vcpu, 2, 0x80), "one is on its way");
    cr_expect_eq(played.regs.rip, 0x1002);
    set_up();
    cr_assert(read_vcpu());
    played.failing = KVM_SET_VCPU_EVENTS;
    cr_expect_not(assist_vcpu_interrupt(&vcpu, 2, 0x80));
}

/* Offsets: Intel SDM volume 1, table 10-2. */
Test(assist_vcpu, registers_of_sse_are_found_in_the_image_and_written_there)
{
    uint8_t *image = (uint8_t *)&played.xsave, expected[sizeof played.xsave];
    struct assist_sse sse;

    for (uint32_t i = 0; i < 512; i++) {
        image[i] = (uint8_t)(i ^ i >> 8);
    }
    image[512] = 0x04;
    memcpy(expected, image, sizeof expected);
    cr_assert(read_vcpu());
    cr_assert(assist_vcpu_read_sse(&vcpu, &sse));
    cr_expect_eq(sse.mxcsr, 0x1b1a1918);
    cr_expect_eq(memcmp(sse.registers, image + 160, 256), 0);
    sse.mxcsr = 0x11223344;
    memset(sse.registers, 0x66, sizeof sse.registers);
    memcpy(expected + 24, "\x44\x33\x22\x11", 4);
    memset(expected + 160, 0x66, 256);
    expected[512] = 0x06; /* they count from now on */
    cr_assert(assist_vcpu_write_sse(&vcpu, &sse));
    cr_expect_eq(memcmp(image, expected, sizeof expected), 0);
    played.failing = KVM_SET_XSAVE;
    cr_expect_not(assist_vcpu_write_sse(&vcpu, &sse));
    played.failing = KVM_GET_XSAVE;
    cr_expect_not(assist_vcpu_read_sse(&vcpu, &sse));
}

/* Intel SDM volume 2, "Exceptions" of any instruction of SSE. */
Test(assist_vcpu, sse_is_lacking_where_control_registers_say_so)
{
    for (uint32_t bits = 0; bits < 8; bits++) {
        bool em = (bits & 1) != 0, ts = (bits & 2) != 0, osfxsr = (bits & 4) != 0;

        played.sregs.cr0 = 0x80000001 | (em ? 4u : 0) | (ts ? 8u : 0);
        played.sregs.cr4 = osfxsr ? 0x200 : ~UINT64_C(0x200);
        cr_assert(read_vcpu());
        cr_expect_eq(assist_vcpu_lacks_sse(&vcpu), em || !osfxsr ? 6 : ts ? 7 : 0, "case %u", bits);
    }
}
