// SPDX-License-Identifier: Apache-2.0
/* What is read from a vCPU and written back to it, against one that is played: real guests run in assist_test. */
#include "vmm/assist_vcpu.h"

#include "tests/vmm/vcpu_played.h"

#include <criterion/criterion.h>
#include <string.h>

static struct assist_vcpu vcpu;
static const struct loam_gpa_view *const view = (const void *)&vcpu; /* handed on, and not looked into */

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
    return assist_vcpu_read(&vcpu, VCPU_PLAYED_FD, view);
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
    played.failing = KVM_SET_VCPU_EVENTS;
    cr_expect_not(assist_vcpu_raise(&vcpu, 16));
}
