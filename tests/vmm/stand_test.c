// SPDX-License-Identifier: Apache-2.0
/* A vCPU that is played; machine_test and kernel_test have real ones. */
#include "vmm/stand.h"

#include "vmm/vcpu.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

enum { VCPU_FD = 1000 };

static struct kvm_regs regs;
static struct kvm_sregs sregs;
static uint32_t mp_state;
static unsigned long failing;
static struct kvm_run run;
static struct vcpu vcpu = {.fd = VCPU_FD, .run = &run};
static struct stand stand;

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    cr_assert_eq(fd, VCPU_FD);
    if (request == failing) {
        errno = EIO;
        return -1;
    }
    switch (request) {
    case KVM_GET_REGS:
        *(struct kvm_regs *)argument = regs;
        return 0;
    case KVM_GET_SREGS:
        *(struct kvm_sregs *)argument = sregs;
        return 0;
    default:
        cr_assert_eq(request, KVM_GET_MP_STATE);
        ((struct kvm_mp_state *)argument)->mp_state = mp_state;
        return 0;
    }
}

#define PE   (UINT64_C(1) << 0)
#define PG   (UINT64_C(1) << 31)
#define PAE  (UINT64_C(1) << 5)
#define LA57 (UINT64_C(1) << 12)
#define LMA  (UINT64_C(1) << 10)
#define VM   (UINT64_C(1) << 17)

Test(stand, tells_modes_and_how_code_is_read_in_them)
{
    static const struct {
        uint64_t cr0, efer, rflags;
        uint8_t l, db;
        enum stand_mode mode;
        enum disassembly_width width;
    } cases[] = {
        {0, 0, 2, 0, 0, STAND_REAL, DISASSEMBLY_16},
        {PE | PG, 0, 2 | VM, 0, 0, STAND_VIRTUAL_8086, DISASSEMBLY_16},
        {PE, 0, 2, 0, 0, STAND_PROTECTED_16, DISASSEMBLY_16},
        {PE, 0, 2, 0, 1, STAND_PROTECTED, DISASSEMBLY_32},
        {PE, 0, 2, 1, 1, STAND_PROTECTED, DISASSEMBLY_32}, /* L means nothing before long mode */
        {PE | PG, LMA, 2, 0, 1, STAND_COMPATIBILITY, DISASSEMBLY_32},
        {PE | PG, LMA, 2, 0, 0, STAND_COMPATIBILITY, DISASSEMBLY_16},
        {PE | PG, LMA, 2, 1, 0, STAND_LONG, DISASSEMBLY_64},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        regs = (struct kvm_regs){.rflags = cases[i].rflags};
        sregs = (struct kvm_sregs){
            .cr0 = cases[i].cr0, .efer = cases[i].efer, .cs = {.l = cases[i].l & 1, .db = cases[i].db & 1}};
        stand_ask(&vcpu, NULL, &stand);
        cr_expect_eq(stand.mode, cases[i].mode, "case %zu: mode %d", i, stand.mode);
        cr_expect_eq(stand_width(&stand), cases[i].width, "case %zu", i);
    }
}

Test(stand, tells_paging)
{
    static const struct {
        uint64_t cr0, cr4, efer;
        enum stand_paging paging;
    } cases[] = {
        {PE, PAE | LA57, 0, STAND_PAGING_NONE},     {PE | PG, 0, 0, STAND_PAGING_32},
        {PE | PG, PAE, 0, STAND_PAGING_PAE},        {PE | PG, PAE, LMA, STAND_PAGING_4},
        {PE | PG, PAE | LA57, LMA, STAND_PAGING_5},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sregs = (struct kvm_sregs){.cr0 = cases[i].cr0, .cr4 = cases[i].cr4, .efer = cases[i].efer};
        cr_expect_eq(stand_paging(&sregs), cases[i].paging, "case %zu", i);
    }
}

static void check_activity(uint32_t state, uint64_t rflags, enum stand_activity activity)
{
    mp_state = state;
    regs = (struct kvm_regs){.rflags = rflags};
    stand_ask(&vcpu, NULL, &stand);
    cr_expect_eq(stand.activity, activity, "state %u: %d", state, stand.activity);
}

Test(stand, tells_what_the_vcpu_does)
{
    run.exit_reason = KVM_EXIT_IO;
    check_activity(KVM_MP_STATE_RUNNABLE, 0x202, STAND_RUNNING);
    check_activity(KVM_MP_STATE_SIPI_RECEIVED, 2, STAND_RUNNING);
    check_activity(KVM_MP_STATE_HALTED, 0x202, STAND_WAITING);
    check_activity(KVM_MP_STATE_HALTED, 2, STAND_HALTED);
    check_activity(KVM_MP_STATE_UNINITIALIZED, 2, STAND_UNSTARTED);
    check_activity(KVM_MP_STATE_INIT_RECEIVED, 2, STAND_UNSTARTED);
    run.exit_reason = KVM_EXIT_HLT; /* there are no interrupt controllers */
    check_activity(KVM_MP_STATE_RUNNABLE, 2, STAND_HALTED);
    vcpu.run_errno = EINTR; /* the exit is an old one */
    check_activity(KVM_MP_STATE_RUNNABLE, 2, STAND_RUNNING);
}

Test(stand, knows_nothing_where_kvm_tells_nothing)
{
    static const unsigned long requests[] = {KVM_GET_REGS, KVM_GET_SREGS};

    for (size_t i = 0; i < 2; i++) {
        failing = requests[i];
        stand_ask(&vcpu, NULL, &stand);
        cr_expect_eq(stand.activity, STAND_UNKNOWN);
    }
    failing = KVM_GET_MP_STATE;
    stand_ask(&vcpu, NULL, &stand);
    cr_expect_eq(stand.activity, STAND_RUNNING);
}

Test(stand, tells_how_it_came_to_a_bad_end)
{
    run.exit_reason = KVM_EXIT_SHUTDOWN;
    stand_ask(&vcpu, NULL, &stand);
    cr_expect(stand.is_triple_fault && !stand.lacks_instruction && !stand_is_reset(&stand));
    regs.rip = 0xfff0;
    sregs.cs.base = 0xffff0000;
    stand_ask(&vcpu, NULL, &stand);
    cr_expect(stand_is_reset(&stand));
    cr_expect_eq(stand.rip, 0xfffffff0);
    run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run.internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
    stand_ask(&vcpu, NULL, &stand);
    cr_expect(!stand.is_triple_fault && !stand.lacks_instruction && !stand_is_reset(&stand));
    run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.emulation_failure.ndata = 3;
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.insn_size = 2;
    memcpy(run.emulation_failure.insn_bytes, "\x0f\x77", 2);
    stand_ask(&vcpu, NULL, &stand);
    cr_expect(stand.lacks_instruction);
    cr_expect_eq(stand.code_bytes, 2, "the code itself is not to be had: KVM's word for it");
    cr_expect_arr_eq(stand.code, "\x0f\x77", 2);
    vcpu.run_errno = EFAULT;
    stand_ask(&vcpu, NULL, &stand);
    cr_expect(!stand.is_triple_fault && !stand.lacks_instruction, "the exit is an old one");
    run.exit_reason = KVM_EXIT_SHUTDOWN;
    stand_ask(&vcpu, NULL, &stand);
    cr_expect(!stand.is_triple_fault && !stand.lacks_instruction, "the exit is an old one");
}
