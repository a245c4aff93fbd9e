// SPDX-License-Identifier: Apache-2.0
/*
 * The ACPI tables of this machine (ACPI 6.5): RSDP, RSDT, XSDT, FADT, FACS, MADT and DSDT, in one piece.
 *
 * The FADT names the power button and the way into S5 as fixed hardware, the sleep registers, which do the same, and the
 * reset register (power.h, machine.h). It does not say that ACPI is hardware-reduced: Linux takes that to mean that there
 * are no 8259As and no PIT, and is then without the PIT's rate, against which it measures the TSC where neither CPUID nor
 * kvmclock tells of it, and hangs; its lines 0 to 15 are gone, too, for devices that its command line names.
 *
 * The DSDT has the serial port, each virtio-mmio transport that there is, and the port of panics. Interrupt n is line n.
 *
 * Pure: guest memory is its caller's affair.
 */
#ifndef LOAM_VMM_ACPI_H
#define LOAM_VMM_ACPI_H

#include "loam/types.h"

#include <stddef.h>
#include <stdint.h>

#define ACPI_RSDP_BYTES 36u

struct acpi_config {
    uint32_t vcpu_count;        /* APIC ids are 0 to vcpu_count - 1 */
    uint32_t virtio_transports; /* bit n: there is a device at transport n */
    uint8_t century_register;   /* where the CMOS has the century; 0: there is no clock and no CMOS */
};

/*
 * Write the tables for a guest that finds them from gpa on, a multiple of 64 below 4 GiB; the RSDP is the first of them.
 * Returns how many bytes they are; if that is more than room_bytes, they are not whole.
 */
size_t acpi_write(const struct acpi_config *config, loam_gpa gpa, void *bytes, size_t room_bytes);

#endif
