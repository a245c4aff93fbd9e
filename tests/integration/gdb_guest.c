// SPDX-License-Identifier: Apache-2.0
/* A guest for gdb_run_test: it counts on two vCPUs until its debugger tells it to end, and has symbols. */
#include "guest/guest.h"

#include <stdbool.h>

#define APIC_PAGE     UINT64_C(0xfee00000)
#define APIC_COMMAND  0x300u
#define APIC_TARGET   0x310u
#define COMMAND_INIT  0x4500u
#define COMMAND_START 0x4600u
#define OTHER_PAGE    UINT64_C(0x8000) /* where the second vCPU begins: below 1 MiB, for it is in real mode */

extern const unsigned char other_code[], other_code_end[];

/* Real mode: counts at OTHER_PAGE + 0x800. */
__asm__(".section .rodata\n"
        ".globl other_code, other_code_end\n"
        "other_code:\n"
        ".code16\n"
        "movw %cs, %ax\n"
        "movw %ax, %ds\n"
        "1: incl 0x800\n"
        "jmp 1b\n"
        ".code64\n"
        "other_code_end:\n"
        ".text\n");

volatile uint64_t rounds;
volatile bool is_to_end;

uint64_t next_round(uint64_t round);

__attribute__((noinline)) uint64_t next_round(uint64_t round)
{
    rounds = round + 1;
    return rounds;
}

static void command_other(uint32_t command)
{
    *(volatile uint32_t *)(APIC_PAGE + APIC_TARGET) = 1u << 24;
    *(volatile uint32_t *)(APIC_PAGE + APIC_COMMAND) = command;
}

static void start_other(void)
{
    memcpy((void *)OTHER_PAGE, other_code, (size_t)(other_code_end - other_code));
    command_other(COMMAND_INIT);
    command_other(COMMAND_START | OTHER_PAGE >> 12);
}

_Noreturn void guest_main(uint64_t start_info)
{
    uint64_t round = 0;

    (void)start_info;
    exceptions_install("gdb_guest");
    paging_init();
    if (!paging_map(APIC_PAGE, 4096)) {
        platform_exit(LOAM_ABI_EXIT_FAIL);
    }
    start_other();
    console_text("ready\r\n");
    while (!is_to_end) {
        round = next_round(round);
    }
    platform_exit(7);
}
