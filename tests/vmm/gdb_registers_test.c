// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_registers.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct gdb_registers registers;
static uint8_t bytes[GDB_REGISTER_BYTES_MAX];

TestSuite(gdb_registers, .timeout = 30);

static unsigned int number_of(const char *name)
{
    size_t total;
    const char *text = gdb_registers_description(&total), *end;
    char wanted[64];
    unsigned int number = 0;

    snprintf(wanted, sizeof wanted, "<reg name=\"%s\"", name);
    end = strstr(text, wanted);
    cr_assert_not_null(end, "%s", name);
    for (const char *at = text; (at = strstr(at, "<reg ")) != NULL && at < end; at++) {
        number++;
    }
    return number;
}

static uint64_t value_of(const char *name)
{
    uint64_t value = 0;
    size_t count = gdb_register_read(&registers, number_of(name), bytes);

    memcpy(&value, bytes, count < sizeof value ? count : sizeof value);
    return value;
}

static bool set(const char *name, uint64_t value)
{
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, &value, sizeof value);
    return gdb_register_write(&registers, number_of(name), bytes);
}

/* GDB takes numbers and sizes from the description alone. */
Test(gdb_registers, are_as_the_description_says)
{
    size_t total, sum = 0;
    const char *at = gdb_registers_description(&total);
    unsigned int number = 0, bits;

    cr_expect_eq(strlen(at), total);
    cr_expect_not_null(strstr(at, "<architecture>i386:x86-64</architecture>"));
    for (; (at = strstr(at, "<reg ")) != NULL; at++, number++) {
        cr_assert_eq(sscanf(strstr(at, "bitsize="), "bitsize=\"%u\"", &bits), 1);
        cr_expect_eq(gdb_register_bytes(number), bits / 8, "register %u", number);
        cr_expect_eq(gdb_register_read(&registers, number, bytes), bits / 8);
        sum += bits / 8;
    }
    cr_expect_eq(number, GDB_REGISTER_COUNT);
    cr_expect_eq(gdb_register_bytes(number), 0);
    cr_expect_eq(number_of("rip"), GDB_REGISTER_RIP);
    cr_expect_leq(sum, GDB_REGISTERS_BYTES_MAX);
}

/* What GDB's own numbers of i386 registers say, for a client that does not read the description. */
Test(gdb_registers, have_the_numbers_that_they_always_had)
{
    static const struct {
        const char *name;
        unsigned int number;
    } known[] = {{"rax", 0}, {"rbx", 1},  {"rsi", 4},  {"rsp", 7},   {"r15", 15},   {"eflags", 17},
                 {"gs", 23}, {"st0", 24}, {"fop", 39}, {"xmm0", 40}, {"mxcsr", 56}, {"fs_base", 57}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        cr_expect_eq(number_of(known[i].name), known[i].number, "%s", known[i].name);
    }
}

Test(gdb_registers, come_from_where_kvm_has_them)
{
    registers.regs.rax = 0x1122334455667788;
    registers.regs.rsi = 4;
    registers.regs.rflags = 0x246;
    registers.sregs.cs.selector = 0x10;
    registers.sregs.gs.base = 0xffff888000000000;
    registers.sregs.cr3 = 0x146000;
    registers.sregs.gdt.limit = 0x7f;
    registers.kernel_gs_base = 0xffff;
    cr_expect_eq(value_of("rax"), 0x1122334455667788);
    cr_expect_eq(value_of("rsi"), 4);
    cr_expect_eq(value_of("eflags"), 0x246);
    cr_expect_eq(value_of("cs"), 0x10);
    cr_expect_eq(value_of("gs_base"), 0xffff888000000000);
    cr_expect_eq(value_of("k_gs_base"), 0xffff);
    cr_expect_eq(value_of("cr3"), 0x146000);
    cr_expect_eq(value_of("gdt_limit"), 0x7f);
}

Test(gdb_registers, go_where_kvm_has_them)
{
    cr_expect(set("r8", 8) && set("rip", 0x100000) && set("eflags", 2) && set("fs_base", 7) && set("efer", 0x500));
    cr_expect_eq(registers.regs.r8, 8);
    cr_expect_eq(registers.regs.rip, 0x100000);
    cr_expect_eq(registers.regs.rflags, 2);
    cr_expect_eq(registers.sregs.fs.base, 7);
    cr_expect_eq(registers.sregs.efer, 0x500);
}

Test(gdb_registers, selectors_stay_as_they_are)
{
    registers.sregs.ss.selector = 0x18;
    cr_expect(set("ss", 0x18), "as in a packet of all registers");
    cr_expect_not(set("ss", 0x20));
    cr_expect_eq(registers.sregs.ss.selector, 0x18);
}

/* --- x87 and SSE -------------------------------------------------------------------------------------------------- */

static void mark(uint64_t components)
{
    memcpy(registers.xsave + 512, &components, sizeof components);
}

/* What an image holds of a component that it does not mark is left over from before. */
Test(gdb_registers, in_their_initial_state_are_shown_so)
{
    memset(registers.xsave, 0xa5, 512);
    mark(0);
    cr_expect_eq(value_of("fctrl"), 0x37f);
    cr_expect_eq(value_of("fstat"), 0);
    cr_expect_eq(value_of("ftag"), 0xffff);
    cr_expect_eq(value_of("st0"), 0);
    cr_expect_eq(value_of("xmm3"), 0);
    cr_expect_eq(value_of("mxcsr"), 0x1f80);
    mark(4);
    cr_expect_eq(value_of("mxcsr"), 0xa5a5a5a5, "AVX has it too");
}

static void put(size_t offset, uint64_t value, size_t count)
{
    memcpy(registers.xsave + offset, &value, count);
}

/* 1.0, 0.0 and an infinity pushed one after the other: ST0 lies in physical register 5. */
Test(gdb_registers, of_the_x87_are_shown_as_fsave_would)
{
    mark(1);
    put(0, 0x27f, 2);
    put(2, 5 << 11, 2);
    put(4, 0xe0, 1);
    put(6, 0x1e8, 2);
    put(8, 0x123456789abc, 8);
    put(16, 0xfedc00001000, 8);
    put(32, 0x8000000000000000, 8); /* ST0: an infinity */
    put(40, 0x7fff, 2);
    put(64, 0x8000000000000000, 8); /* ST2: 1.0; ST1 is 0.0 */
    put(72, 0x3fff, 2);
    cr_expect_eq(value_of("fctrl"), 0x27f);
    cr_expect_eq(value_of("fstat"), 5 << 11);
    cr_expect_eq(value_of("ftag"), 0x1bff, "0x%lx: 5 special, 6 zero, 7 valid", value_of("ftag"));
    cr_expect_eq(value_of("fop"), 0x1e8);
    cr_expect_eq(value_of("fioff"), 0x56789abc);
    cr_expect_eq(value_of("fiseg"), 0x1234);
    cr_expect_eq(value_of("fooff"), 0x1000);
    cr_expect_eq(value_of("foseg"), 0xfedc);
    (void)value_of("st2");
    cr_expect_arr_eq(bytes, "\0\0\0\0\0\0\0\x80\xff\x3f", 10);
}

Test(gdb_registers, of_the_x87_can_be_set)
{
    memset(registers.xsave, 0xa5, 512);
    mark(0);
    cr_expect(set("ftag", 0xffff));
    cr_expect_eq(registers.xsave[512], 0, "what is as it was marks nothing");
    cr_expect(set("ftag", 0x1bff) && set("fioff", 0x1000) && set("st1", 5));
    cr_expect_eq(registers.xsave[512], 1);
    cr_expect_eq(registers.xsave[4], 0xe0);
    cr_expect_eq(registers.xsave[8 + 1], 0x10);
    cr_expect_eq(registers.xsave[48], 5);
    cr_expect_eq(value_of("fctrl"), 0x37f, "the rest has begun as it should");
    cr_expect_eq(registers.xsave[160], 0xa5, "and SSE is not touched");
}

Test(gdb_registers, of_sse_can_be_set)
{
    memset(registers.xsave, 0xa5, 512);
    mark(1);
    cr_expect(set("xmm15", 0x77));
    cr_expect_eq(registers.xsave[512], 3);
    cr_expect_eq(value_of("xmm15"), 0x77);
    cr_expect_eq(value_of("xmm14"), 0);
    cr_expect_eq(value_of("mxcsr"), 0x1f80);
    cr_expect(set("mxcsr", 0x1fa0));
    cr_expect_eq(value_of("mxcsr"), 0x1fa0);
    cr_expect_eq(value_of("st0"), 0xa5a5a5a5a5a5a5a5);
}
