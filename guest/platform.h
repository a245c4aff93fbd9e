// SPDX-License-Identifier: Apache-2.0
/*
 * What a guest needs of the processor: ports, memory by address, cpuid.
 *
 * Addresses are guest-physical and mapped one to one. Memory under test is touched only through the functions here, one
 * plain MOV each: the compiler can then neither drop nor merge an access, nor make anything of a page at address 0.
 */
#ifndef LOAM_GUEST_PLATFORM_H
#define LOAM_GUEST_PLATFORM_H

#include "guest/abi.h"

#include <stdbool.h>
#include <stdint.h>

#define PLATFORM_PAGE_BYTES UINT64_C(4096)

static inline void platform_out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void platform_out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t platform_in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint8_t platform_load8(uint64_t gpa)
{
    uint8_t value;

    __asm__ volatile("movb (%1), %0" : "=q"(value) : "r"(gpa) : "memory");
    return value;
}

static inline uint16_t platform_load16(uint64_t gpa)
{
    uint16_t value;

    __asm__ volatile("movw (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
    return value;
}

static inline uint32_t platform_load32(uint64_t gpa)
{
    uint32_t value;

    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
    return value;
}

static inline uint64_t platform_load64(uint64_t gpa)
{
    uint64_t value;

    __asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
    return value;
}

static inline void platform_store8(uint64_t gpa, uint8_t value)
{
    __asm__ volatile("movb %0, (%1)" : : "q"(value), "r"(gpa) : "memory");
}

static inline void platform_store16(uint64_t gpa, uint16_t value)
{
    __asm__ volatile("movw %0, (%1)" : : "r"(value), "r"(gpa) : "memory");
}

static inline void platform_store32(uint64_t gpa, uint32_t value)
{
    __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(gpa) : "memory");
}

static inline void platform_store64(uint64_t gpa, uint64_t value)
{
    __asm__ volatile("movq %0, (%1)" : : "r"(value), "r"(gpa) : "memory");
}

/* EDX of a CPUID leaf; 0 where the processor does not have the leaf. */
static inline uint32_t platform_cpuid_edx(uint32_t leaf)
{
    uint32_t eax = leaf & UINT32_C(0x80000000), ebx, ecx = 0, edx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (eax < leaf) {
        return 0;
    }
    eax = leaf;
    ecx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return edx;
}

/* Loading CR3 drops every translation that is not global (SDM volume 3A, section 4.10.4.1). */
static inline void platform_flush_translations(void)
{
    uint64_t cr3;

    __asm__ volatile("movq %%cr3, %0\n\tmovq %0, %%cr3" : "=r"(cr3) : : "memory");
}

/* Stores before come before stores after, as the device sees them: x86 keeps their order, the compiler has to as well.
 */
static inline void platform_store_barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

static inline void platform_pause(void)
{
    __asm__ volatile("pause");
}

_Noreturn static inline void platform_halt(void)
{
    for (;;) {
        __asm__ volatile("cli\n\thlt");
    }
}

/*
 * End the machine; where nothing listens at the exit port, stop for good. code is an enum loam_abi_exit, or a failure
 * code of the guest's own.
 */
_Noreturn static inline void platform_exit(uint32_t code)
{
    platform_out32(LOAM_ABI_PORT_EXIT, code);
    platform_halt();
}

/*
 * Whether a read at gpa comes back (start.S): false if it faults, which is not reported. Not to be called while another
 * call runs.
 */
bool platform_probe(uint64_t gpa);

#endif
