// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/native_step.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define RFLAGS_TF    UINT64_C(0x100)
#define RFLAGS_FIXED UINT64_C(0x202)
#define VECTOR_DEBUG 1
#define STACK_BYTES  65536u
#define FXSAVE_BYTES 512u

static struct step_state *volatile current; /* NULL: nothing is run */
static gregset_t kept_registers;
static uint8_t kept_fpu[FXSAVE_BYTES];
static uint8_t *pages, *alternate;

static greg_t *register_of(greg_t *gregs, unsigned int number)
{
    static const int places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

    return &gregs[places[number]];
}

static __u64 *member_of(struct kvm_regs *regs, unsigned int number)
{
    __u64 *const members[16] = {&regs->rax, &regs->rcx, &regs->rdx, &regs->rbx, &regs->rsp, &regs->rbp,
                                &regs->rsi, &regs->rdi, &regs->r8,  &regs->r9,  &regs->r10, &regs->r11,
                                &regs->r12, &regs->r13, &regs->r14, &regs->r15};

    return members[number];
}

/* Into the instruction: the context that is returned to becomes its. */
static void enter(int number, siginfo_t *info, void *context)
{
    struct step_state *state = current;
    ucontext_t *interrupted = context;
    greg_t *gregs = interrupted->uc_mcontext.gregs;

    (void)number;
    (void)info;
    memcpy(kept_registers, gregs, sizeof kept_registers);
    memcpy(kept_fpu, interrupted->uc_mcontext.fpregs, sizeof kept_fpu);
    for (unsigned int i = 0; i < 16; i++) {
        *register_of(gregs, i) = (greg_t)*member_of(&state->regs, i);
    }
    gregs[REG_RIP] = (greg_t)state->regs.rip;
    gregs[REG_EFL] = (greg_t)((state->regs.rflags & STEP_FLAGS) | RFLAGS_FIXED | RFLAGS_TF);
    memcpy(interrupted->uc_mcontext.fpregs->_xmm, state->registers, sizeof state->registers);
    interrupted->uc_mcontext.fpregs->mxcsr = state->mxcsr;
}

/* And back again, after it or at its exception. */
static void leave(int number, siginfo_t *info, void *context)
{
    struct step_state *state = current;
    ucontext_t *interrupted = context;
    greg_t *gregs = interrupted->uc_mcontext.gregs;

    (void)info;
    if (state == NULL) {
        signal(number, SIG_DFL); /* not of the instruction: it comes again, and ends the process */
        return;
    }
    for (unsigned int i = 0; i < 16; i++) {
        *member_of(&state->regs, i) = (uint64_t)*register_of(gregs, i);
    }
    state->regs.rip = (uint64_t)gregs[REG_RIP];
    state->regs.rflags = (uint64_t)gregs[REG_EFL] & STEP_FLAGS;
    memcpy(state->registers, interrupted->uc_mcontext.fpregs->_xmm, sizeof state->registers);
    state->mxcsr = interrupted->uc_mcontext.fpregs->mxcsr;
    state->vector = gregs[REG_TRAPNO] == VECTOR_DEBUG ? 0 : (uint8_t)gregs[REG_TRAPNO];
    state->error_code = state->vector != 0 ? (uint32_t)gregs[REG_ERR] : 0;
    state->address = state->vector == 14 ? (uint64_t)gregs[REG_CR2] : 0;
    current = NULL;
    memcpy(gregs, kept_registers, sizeof kept_registers);
    memcpy(interrupted->uc_mcontext.fpregs, kept_fpu, sizeof kept_fpu);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGTRAP, SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction action = {.sa_sigaction = enter, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t stack = {.ss_size = STACK_BYTES};

    alternate = malloc(STACK_BYTES);
    stack.ss_sp = alternate;
    cr_assert_eq(sigaltstack(&stack, NULL), 0);
    sigemptyset(&action.sa_mask);
    cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
    action.sa_sigaction = leave;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cr_assert_eq(sigaction(numbers[i], &action, NULL), 0);
    }
}

/* The same memory twice: in the window as it grants, and where this process can always write it. */
void native_step_open(void)
{
    static const int grants[STEP_PAGES] = {PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                                           PROT_READ};
    int fd = memfd_create("window", MFD_CLOEXEC);

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, STEP_PAGES * STEP_PAGE), 0);
    pages = mmap(NULL, STEP_PAGES * STEP_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(pages, MAP_FAILED);
    for (unsigned int i = 0; i < STEP_PAGES; i++) {
        void *place = (void *)(STEP_WINDOW + i * STEP_PAGE);

        cr_assert_eq(mmap(place, STEP_PAGE, grants[i], MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd,
                          (off_t)(i * STEP_PAGE)),
                     place);
    }
    close(fd);
    catch_signals();
}

void native_step_close(void)
{
    const stack_t none = {.ss_flags = SS_DISABLE};

    munmap((void *)STEP_WINDOW, STEP_PAGES * STEP_PAGE);
    munmap(pages, STEP_PAGES * STEP_PAGE);
    sigaltstack(&none, NULL);
    free(alternate);
}

uint8_t *native_step_page(unsigned int n)
{
    return pages + n * STEP_PAGE;
}

void native_step(struct step_state *state)
{
    current = state;
    raise(SIGUSR1);
    __asm__ volatile("" : : : "memory"); /* raise is declared to run nothing of this file */
    cr_assert_null(current);
}
