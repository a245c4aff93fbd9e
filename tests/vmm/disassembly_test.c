// SPDX-License-Identifier: Apache-2.0
#include "vmm/disassembly.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <string.h>

#define CODE(bytes) (const uint8_t *)(bytes), sizeof(bytes) - 1

static void check(const uint8_t *code, size_t count, enum disassembly_width width, const char *name, const char *text)
{
    struct disassembly found;

    cr_assert(disassembly_of(code, count, 0x100000, width, &found), "%s", text);
    cr_expect_str_eq(found.name, name);
    cr_expect_str_eq(found.text, text);
    cr_expect_eq(found.bytes, count, "%s: %u bytes", text, found.bytes);
}

Test(disassembly, names_what_emulators_lack)
{
    check(CODE("\x48\x0f\xae\x2f"), DISASSEMBLY_64, "xrstor64", "xrstor64 ptr [rdi]");
    check(CODE("\x0f\xae\x6f\x40"), DISASSEMBLY_32, "xrstor", "xrstor ptr [edi + 0x40]");
    check(CODE("\x48\x0f\xae\x27"), DISASSEMBLY_64, "xsave64", "xsave64 ptr [rdi]");
    check(CODE("\x0f\x01\xca"), DISASSEMBLY_64, "clac", "clac");
    check(CODE("\x0f\x01\xcb"), DISASSEMBLY_64, "stac", "stac");
    check(CODE("\xf3\x48\x0f\xb8\xc7"), DISASSEMBLY_64, "popcnt", "popcnt rax, rdi");
    check(CODE("\xf0\x48\x0f\xc7\x4d\x00"), DISASSEMBLY_64, "cmpxchg16b", "lock cmpxchg16b xmmword ptr [rbp]");
    check(CODE("\x66\x0f\x38\x82\x06"), DISASSEMBLY_64, "invpcid", "invpcid rax, xmmword ptr [rsi]");
    check(CODE("\xf3\x48\x0f\xae\xc0"), DISASSEMBLY_64, "rdfsbase", "rdfsbase rax");
    check(CODE("\x0f\x01\xd0"), DISASSEMBLY_64, "xgetbv", "xgetbv");
    check(CODE("\x0f\x01\xc1"), DISASSEMBLY_64, "vmcall", "vmcall");
    check(CODE("\xf3\xa4"), DISASSEMBLY_64, "movsb", "rep movsb byte ptr [rdi], byte ptr [rsi]");
}

Test(disassembly, reads_code_as_the_processor_does)
{
    check(CODE("\xb8\x34\x12"), DISASSEMBLY_16, "mov", "mov ax, 0x1234");
    check(CODE("\xb8\x78\x56\x34\x12"), DISASSEMBLY_32, "mov", "mov eax, 0x12345678");
    check(CODE("\x0f\x22\xc0"), DISASSEMBLY_32, "mov", "mov cr0, eax");
    check(CODE("\xeb\xfe"), DISASSEMBLY_32, "jmp", "jmp 0x100000");
}

Test(disassembly, says_nothing_of_what_is_none)
{
    struct disassembly found;

    cr_expect_not(disassembly_of(CODE("\x0f\x01"), 0, DISASSEMBLY_64, &found), "cut");
    cr_expect_str_empty(found.text);
    cr_expect_not(disassembly_of(CODE(""), 0, DISASSEMBLY_64, &found));
    cr_expect_not(disassembly_of(CODE("\x06"), 0, DISASSEMBLY_64, &found), "PUSH ES is none in 64-bit mode");
    cr_expect(disassembly_of(CODE("\x06"), 0, DISASSEMBLY_32, &found));
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~') {
            return false;
        }
    }
    return true;
}

Test(disassembly, bears_any_bytes)
{
    struct random random = {20262};

    for (uint32_t i = 0; i < 30000; i++) {
        struct disassembly found;
        uint8_t code[16];

        for (uint32_t k = 0; k < sizeof code; k++) {
            code[k] = (uint8_t)random_u64(&random);
        }
        disassembly_of(code, random_below(&random, 17), random_u64(&random), (enum disassembly_width)(i % 3), &found);
        cr_assert_leq(found.bytes, 15);
        cr_assert_eq(found.bytes == 0, found.text[0] == '\0');
        cr_assert(is_printable(found.text), "%s", found.text);
    }
}
