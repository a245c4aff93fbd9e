// SPDX-License-Identifier: Apache-2.0
/* An account of a machine that is none: it says where its vCPUs stand, and has a bus. */
#include "vmm/account.h"

#include "tests/vmm/elf_builder.h"
#include "vmm/kvm.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define CODE UINT64_C(0x200000)

enum { VCPU_COUNT = 2 };

struct machine {
    struct bus bus;
    struct stand stands[VCPU_COUNT];
};

static struct machine machine;
static struct machine_result result;
static struct loam_plan plan;
static struct boot_file kernel;
static struct account account;
static char line[ACCOUNT_LINE_BYTES];

uint32_t machine_vcpu_count(const struct machine *self)
{
    cr_assert_eq(self, &machine);
    return VCPU_COUNT;
}

void machine_stand(const struct machine *self, uint32_t vcpu, struct stand *stand)
{
    *stand = self->stands[vcpu];
}

struct bus *machine_bus(struct machine *self)
{
    return &self->bus;
}

static void set_up(void)
{
    static const struct elf_builder_symbol symbols[] = {
        {"start", CODE, 0x10, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE},
        {"idle", CODE + 0x10, 0x10, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE},
    };
    static const struct elf_builder_segment segment = {PT_LOAD, 0, CODE, 0x1000, 0x1000, 4096};
    static uint8_t bytes[4096];

    elf_builder_headers(bytes, true, &segment, 1);
    kernel = (struct boot_file){bytes, elf_builder_symbols(bytes, 512, true, CODE, 0x1000, symbols, 2), "kernel"};
    bus_init(&machine.bus);
    machine.stands[0] = (struct stand){.activity = STAND_RUNNING,
                                       .mode = STAND_LONG,
                                       .paging = STAND_PAGING_4,
                                       .rip = CODE + 4,
                                       .code = {0x48, 0x0f, 0xae, 0x2f},
                                       .code_bytes = 4,
                                       .lacks_instruction = true,
                                       .sregs = {.idt = {.limit = 0xfff}}};
    machine.stands[1] = (struct stand){.activity = STAND_HALTED, .mode = STAND_PROTECTED, .rip = CODE + 0x20};
    plan = (struct loam_plan){.hole_start = {16 * LOAM_MIB}};
    plan.request.bytes = 16 * LOAM_MIB;
    result = (struct machine_result){.reason = MACHINE_STOP_BROKEN};
}

static void tear_down(void)
{
    account_release(&account);
    bus_destroy(&machine.bus);
}

TestSuite(account, .init = set_up, .fini = tear_down);

static void make(void)
{
    account_release(&account);
    account_make(&machine, &result, &plan, &kernel, &account);
}

static void check_vcpu(uint32_t vcpu, const char *wanted)
{
    account_vcpu_line(&account, vcpu, line, sizeof line);
    cr_expect_str_eq(line, wanted);
}

static void check_missed(const char *wanted)
{
    account_missed_line(&account, line, sizeof line);
    cr_expect_str_eq(line, wanted);
}

Test(account, tells_where_each_vcpu_stood)
{
    make();
    check_vcpu(0, "vCPU 0 stood at 0x200004 (start+0x4), xrstor64 ptr [rdi], in long mode with 4-level paging");
    check_vcpu(1, "vCPU 1 was halted with interrupts off at 0x200020 (idle+0x10), in protected mode without paging");
    machine.stands[0].rip = 0x123456;
    machine.stands[0].code_bytes = 0;
    machine.stands[1].activity = STAND_WAITING;
    machine.stands[1].mode = STAND_COMPATIBILITY;
    machine.stands[1].paging = STAND_PAGING_5;
    make();
    check_vcpu(0, "vCPU 0 stood at 0x123456, in long mode with 4-level paging");
    check_vcpu(1, "vCPU 1 waited for an interrupt at 0x200020 (idle+0x10), in compatibility mode with 5-level paging");
    machine.stands[0].activity = STAND_UNKNOWN;
    machine.stands[1].activity = STAND_UNSTARTED;
    make();
    check_vcpu(0, "vCPU 0 stood where KVM does not say");
    check_vcpu(1, "vCPU 1 was never started");
}

/* As AMD's processors do; but a guest that stops itself there has a place. */
Test(account, tells_of_a_vcpu_that_was_reset)
{
    result.reason = MACHINE_STOP_SHUTDOWN;
    machine.stands[0] = (struct stand){.activity = STAND_RUNNING,
                                       .rip = 0xfffffff0,
                                       .is_triple_fault = true,
                                       .regs = {.rip = 0xfff0},
                                       .sregs = {.cs = {.base = 0xffff0000}}};
    make();
    check_vcpu(0, "vCPU 0 was reset: this processor keeps nothing of a guest that ends in a triple fault");
    cr_expect_str_empty(account.advice);
    result.vcpu = 1;
    make();
    check_vcpu(0, "vCPU 0 stood at 0xfffffff0, in real mode without paging");
    result.vcpu = 0;
    result.reason = MACHINE_STOP_REQUESTED;
    make();
    check_vcpu(0, "vCPU 0 stood at 0xfffffff0, in real mode without paging");
}

static void access_bus(enum bus_space space, uint64_t address, uint32_t bytes, bool is_write, uint64_t value,
                       uint32_t times)
{
    for (uint32_t i = 0; i < times; i++) {
        cr_assert_not(bus_dispatch(&machine.bus, space, address, &value, bytes, is_write));
    }
}

Test(account, tells_what_nobody_answered)
{
    make();
    check_missed("");
    access_bus(BUS_PIO, 0xe9, 1, true, 0x21, 3);
    make();
    check_missed("nobody answered at port 0xe9 (3 writes of 1 byte, the last 0x21)");
    access_bus(BUS_MMIO, 0xfed00000, 4, false, 0, 1);
    access_bus(BUS_PIO, 0xe9, 1, true, 0x22, 1);
    access_bus(BUS_PIO, 0x501, 2, true, 0x31, 1);
    access_bus(BUS_MMIO, 0xfed00000, 4, false, 0, 1);
    make();
    check_missed("nobody answered at address 0xfed00000 (2 reads of 4 bytes), port 0x501 (a write of 2 bytes: 0x31), "
                 "port 0xe9 (4 writes of 1 byte, the last 0x22)");
    for (uint64_t port = 0x10; port < 0x15; port++) {
        access_bus(BUS_PIO, port, 1, false, 0, 1);
    }
    make();
    cr_expect_geq(account.missed_count, 6);
    check_missed(
        "nobody answered at port 0x14 (a read of 1 byte), port 0x13 (a read of 1 byte), port 0x12 (a read of 1 "
        "byte), port 0x11 (a read of 1 byte), and before that elsewhere");
}

static void check_end(const char *end, const char *wanted)
{
    make();
    account_end(&account, end, line, sizeof line);
    cr_expect_str_eq(line, wanted);
}

Test(account, advises_by_the_vcpu_that_ended_the_run)
{
    check_end("it broke",
              "it broke: its emulator lacks XRSTOR64: a Linux kernel leaves it out with noxsave on its command line");
    result.vcpu = 1;
    check_end("it broke", "it broke");
    result.vcpu = 0;
    result.reason = MACHINE_STOP_REQUESTED;
    check_end("it was stopped", "it was stopped");
    result.reason = MACHINE_STOP_BROKEN;
    strcpy(result.cause, "memory is missing");
    check_end("memory is missing", "memory is missing");
}

Test(account, advises_by_what_nobody_answered)
{
    result.reason = MACHINE_STOP_REQUESTED;
    access_bus(BUS_MMIO, 16 * LOAM_MIB, 4, true, 0, 1);
    check_end("late", "late: it reached for 0x1000000, where no RAM is: if it needs some there, raise --memory to 32M");
    plan.request.bytes = 64 * LOAM_MIB;
    check_end("late",
              "late: it reached for 0x1000000, where no RAM is: if it needs some there, raise --low-limit to 32M");
}

Test(account, prints_a_line_for_each)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    access_bus(BUS_PIO, 0x80, 1, true, 0, 1);
    make();
    account_print(&account, out);
    fclose(out);
    cr_expect_str_eq(text,
                     "vCPU 0 stood at 0x200004 (start+0x4), xrstor64 ptr [rdi], in long mode with 4-level paging\n"
                     "vCPU 1 was halted with interrupts off at 0x200020 (idle+0x10), in protected mode without "
                     "paging\n"
                     "nobody answered at port 0x80 (a write of 1 byte: 0x0)\n");
    free(text);
}

Test(account, has_a_word_for_everything)
{
    for (uint32_t i = 0; i < STAND_ACTIVITY_COUNT; i++) {
        cr_expect_not_null(account_activity_name((enum stand_activity)i));
    }
    for (uint32_t i = 0; i < STAND_MODE_COUNT; i++) {
        cr_expect_not_null(account_mode_name((enum stand_mode)i));
    }
    for (uint32_t i = 0; i < STAND_PAGING_COUNT; i++) {
        cr_expect_not_null(account_paging_name((enum stand_paging)i));
    }
}
