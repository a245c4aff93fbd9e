// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU's registers as GDB numbers and sizes them, and the description that tells GDB so.
 *
 * The description is always that of a 64-bit processor (i386:x86-64), in whatever mode the vCPU is: GDB reads it once, and a
 * guest changes its mode as it boots. In 32-bit code the registers are right, in their low halves, and only the disassembly
 * is not.
 *
 * Sources: Debugging with GDB, appendix G, "Target Descriptions" (i386 features); Intel SDM volume 1, sections 8.1 and 13.4
 * (the x87 registers, the XSAVE image). Threads: any.
 */
#ifndef LOAM_VMM_GDB_REGISTERS_H
#define LOAM_VMM_GDB_REGISTERS_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_REGISTER_RIP        16u
#define GDB_REGISTER_COUNT      71u
#define GDB_REGISTER_BYTES_MAX  16u
#define GDB_REGISTERS_BYTES_MAX 1024u /* of all, one after the other */
#define GDB_XSAVE_BYTES         4096u

#define GDB_DESCRIPTION_BYTES_MAX 8192u

/* All that registers are made of, as KVM has it. */
struct gdb_registers {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    _Alignas(8) uint8_t xsave[GDB_XSAVE_BYTES]; /* the image of XSAVE in its standard form: struct kvm_xsave */
    uint64_t kernel_gs_base;                    /* an MSR */
};

/* The description in XML, and its length without the zero. Static. */
const char *gdb_registers_description(size_t *bytes);

/* Bytes of register number; 0: there is none. */
size_t gdb_register_bytes(unsigned int number);

/* Write register number, which there is, in the guest's byte order. Returns its size. */
size_t gdb_register_read(const struct gdb_registers *registers, unsigned int number,
                         uint8_t bytes[GDB_REGISTER_BYTES_MAX]);

/*
 * Change register number, which there is, to gdb_register_bytes of bytes. false: it cannot be changed from outside, and is
 * not what these bytes say: a segment's selector, which without its descriptor would be half a register.
 */
bool gdb_register_write(struct gdb_registers *registers, unsigned int number, const uint8_t *bytes);

#endif
