// SPDX-License-Identifier: Apache-2.0
/*
 * The MP table, for kernels without ACPI (Intel MultiProcessor Specification 1.4, chapter 4): the floating pointer, and behind
 * it the configuration table, which for two vCPUs has 244 bytes: the processors, one ISA bus, the I/O APIC, 16 interrupts, and
 * LINT0 and LINT1 of every local APIC.
 *
 * Interrupt n of the bus is input n of the I/O APIC. Those of virtio transports, and the SCI, are levels, high when they
 * are asserted; the others are as the bus has them. Processors from the 256th on have no room in it, and are not named.
 *
 * Pure: guest memory is its caller's affair.
 */
#ifndef LOAM_VMM_MP_TABLE_H
#define LOAM_VMM_MP_TABLE_H

#include "loam/types.h"

#include <stddef.h>
#include <stdint.h>

#define MP_TABLE_POINTER_BYTES 16u

/* As many bytes as count vCPUs take, with the floating pointer. */
size_t mp_table_bytes(uint32_t vcpu_count);

/*
 * Write it for a guest that finds it from gpa on, a multiple of 16 below 4 GiB. APIC ids are 0 to vcpu_count - 1. Returns how
 * many bytes it is; if that is more than room_bytes, it is not whole.
 */
size_t mp_table_write(uint32_t vcpu_count, loam_gpa gpa, void *bytes, size_t room_bytes);

#endif
