// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/ioctl_fake.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_uint count;
static uint32_t fail_index = UINT32_MAX;
static int fail_error;
static unsigned long failed_request, failed_argument;
static atomic_uint runs_to_fail;
static int run_error;
static bool has_answer, answers_all;
static unsigned long answered_request, answered_argument;
static int given_answer, given_error;
static void (*run_hook)(void);

void ioctl_fake_reset(void)
{
    atomic_store(&count, 0);
    fail_index = UINT32_MAX;
    failed_request = failed_argument = 0;
    atomic_store(&runs_to_fail, 0);
    has_answer = answers_all = false;
    run_hook = NULL;
}

uint32_t ioctl_fake_count(void)
{
    return atomic_load(&count);
}

void ioctl_fake_fail(uint32_t index, int error)
{
    fail_index = index;
    fail_error = error;
}

unsigned long ioctl_fake_failed_request(void)
{
    return failed_request;
}

unsigned long ioctl_fake_failed_argument(void)
{
    return failed_argument;
}

void ioctl_fake_fail_runs(uint32_t runs, int error)
{
    run_error = error;
    atomic_store(&runs_to_fail, runs);
}

uint32_t ioctl_fake_runs_left(void)
{
    return atomic_load(&runs_to_fail);
}

void ioctl_fake_answer_all(unsigned long request, int answer)
{
    ioctl_fake_answer(request, 0, answer);
    answers_all = true;
}

void ioctl_fake_refuse_all(unsigned long request, int error)
{
    ioctl_fake_answer_all(request, -1);
    given_error = error;
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

static bool is_counted(unsigned long request)
{
    return _IOC_TYPE(request) == KVMIO && request != KVM_RUN;
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
    if (request == KVM_RUN && atomic_load(&runs_to_fail) > 0) {
        atomic_fetch_sub(&runs_to_fail, 1);
        errno = run_error;
        return -1;
    }
    if (is_counted(request)) {
        if (atomic_fetch_add(&count, 1) == fail_index) {
            failed_request = request;
            failed_argument = argument;
            errno = fail_error;
            return -1;
        }
        if (has_answer && request == answered_request && (answers_all || argument == answered_argument)) {
            errno = given_answer < 0 ? given_error : errno;
            return given_answer;
        }
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
