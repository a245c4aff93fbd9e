// SPDX-License-Identifier: Apache-2.0
#include "guest/exceptions.h"

#include "guest/abi.h"
#include "guest/console.h"
#include "guest/platform.h"

#include <stdbool.h>

#define EXCEPTION_COUNT      32
#define EXCEPTION_STUB_BYTES 16 /* as in start.S */
#define SELECTOR_CODE        0x08
#define INTERRUPT_GATE       0x8e00 /* present, ring 0, 64-bit interrupt gate, no stack of its own */

/* SDM volume 3A, section 6.14.1. */
struct gate {
    uint16_t offset_low;
    uint16_t selector;
    uint16_t attributes;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

_Static_assert(sizeof(struct gate) == 16, "as the processor has it");
_Static_assert(sizeof(struct table_pointer) == 10, "as the processor has it");

extern const char exception_stubs[];

static struct gate gates[EXCEPTION_COUNT];
static const char *program_name = "guest", *context = "start";
static bool reporting;

void exceptions_install(const char *program)
{
    struct table_pointer pointer = {sizeof gates - 1, (uintptr_t)gates};
    uint64_t stub = (uintptr_t)exception_stubs;

    program_name = program;
    for (uint32_t i = 0; i < EXCEPTION_COUNT; i++, stub += EXCEPTION_STUB_BYTES) {
        gates[i] = (struct gate){.offset_low = (uint16_t)stub,
                                 .selector = SELECTOR_CODE,
                                 .attributes = INTERRUPT_GATE,
                                 .offset_middle = (uint16_t)(stub >> 16)};
    }
    __asm__ volatile("lidt %0" : : "m"(pointer), "m"(gates));
}

void exceptions_context(const char *text)
{
    context = text;
}

_Noreturn void exception_report(uint64_t vector, uint64_t error_code, uint64_t rip, uint64_t cr2)
{
    if (!reporting) {
        reporting = true;
        console_text(program_name);
        console_text(": ");
        console_text(context);
        console_text(": unexpected exception ");
        console_hex(vector);
        console_text(", error code ");
        console_hex(error_code);
        console_text(", at ");
        console_hex(rip);
        console_text(", address ");
        console_hex(cr2);
        console_text("\r\n");
    }
    platform_exit(LOAM_ABI_EXIT_FAIL);
}
