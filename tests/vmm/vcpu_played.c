// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/vcpu_played.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>

struct vcpu_played played;

static void set_sregs(const struct kvm_sregs *sregs)
{
    if (sregs->cr4 != played.sregs.cr4) {
        played.cr4_before = played.sregs.cr4;
    }
    played.sregs = *sregs;
    played.sregs_writes++;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    cr_assert_eq(fd, VCPU_PLAYED_FD);
    if (request == played.failing) {
        errno = EIO;
        return -1;
    }
    played.write_count += request == KVM_SET_REGS || request == KVM_SET_VCPU_EVENTS || request == KVM_SET_XSAVE ||
                          request == KVM_SET_SREGS;
    switch (request) {
    case KVM_GET_REGS:
        *(struct kvm_regs *)argument = played.regs;
        break;
    case KVM_SET_REGS:
        played.regs = *(struct kvm_regs *)argument;
        break;
    case KVM_GET_SREGS:
        *(struct kvm_sregs *)argument = played.sregs;
        break;
    case KVM_SET_SREGS:
        set_sregs(argument);
        break;
    case KVM_GET_XCRS:
        *(struct kvm_xcrs *)argument = played.xcrs;
        break;
    case KVM_GET_VCPU_EVENTS:
        *(struct kvm_vcpu_events *)argument = played.events;
        break;
    case KVM_SET_VCPU_EVENTS:
        played.events = *(struct kvm_vcpu_events *)argument;
        break;
    case KVM_GET_XSAVE:
        *(struct kvm_xsave *)argument = played.xsave;
        break;
    case KVM_SET_XSAVE:
        played.xsave = *(struct kvm_xsave *)argument;
        played.xsave_writes++;
        break;
    default:
        cr_assert(false, "request 0x%lx", request);
    }
    return 0;
}
