// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/ioctl_fake.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint32_t count;
static uint32_t fail_index = UINT32_MAX;
static int fail_error;
static bool has_answer;
static unsigned long answered_request, answered_argument;
static int given_answer;
static void (*run_hook)(void);

void ioctl_fake_reset(void)
{
    count = 0;
    fail_index = UINT32_MAX;
    has_answer = false;
    run_hook = NULL;
}

uint32_t ioctl_fake_count(void)
{
    return count;
}

void ioctl_fake_fail(uint32_t index, int error)
{
    fail_index = index;
    fail_error = error;
}

void ioctl_fake_answer(unsigned long request, unsigned long argument, int answer)
{
    has_answer = true;
    answered_request = request;
    answered_argument = argument;
    given_answer = answer;
}

void ioctl_fake_before_run(void (*hook)(void))
{
    run_hook = hook;
}

/* KVM_RUN and KVM_IRQ_LINE come from vCPU threads, and are not counted. */
static bool is_counted(unsigned long request)
{
    return _IOC_TYPE(request) == KVMIO && request != KVM_RUN && request != KVM_IRQ_LINE;
}

int ioctl(int fd, unsigned long request, ...)
{
    unsigned long argument;
    va_list arguments;

    va_start(arguments, request);
    argument = va_arg(arguments, unsigned long);
    va_end(arguments);
    if (request == KVM_RUN && run_hook != NULL) {
        void (*hook)(void) = run_hook;

        run_hook = NULL;
        hook();
    }
    if (is_counted(request)) {
        if (count++ == fail_index) {
            errno = fail_error;
            return -1;
        }
        if (has_answer && request == answered_request && argument == answered_argument) {
            return given_answer;
        }
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
