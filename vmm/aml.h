// SPDX-License-Identifier: Apache-2.0
/*
 * ACPI machine language (ACPI 6.5, section 20.2), as much of it as a list of devices takes, and the resource descriptors
 * that say where they are (section 6.4). It goes into a table (table.h).
 *
 *     size_t device = aml_open_device(table, "COM1");
 *     aml_name(table, "_HID");
 *     aml_eisa_id(table, "PNP0501");
 *     aml_close(table, device);
 *
 * A name is that of one object: one to four of A to Z, 0 to 9 and _, in what it stands in; it is this program's own text.
 * What is opened is closed in the opposite order.
 */
#ifndef LOAM_VMM_AML_H
#define LOAM_VMM_AML_H

#include "vmm/table.h"

#include <stddef.h>
#include <stdint.h>

/* --- Objects that hold others; each returns what aml_close wants ------------------------------------------------- */

size_t aml_open_scope(struct table *table, const char *name);
size_t aml_open_device(struct table *table, const char *name);

/* An object of element_count others, which follow. */
size_t aml_open_package(struct table *table, uint8_t element_count);

void aml_close(struct table *table, size_t opened);

/* --- Objects ------------------------------------------------------------------------------------------------------ */

/* What follows is called so. */
void aml_name(struct table *table, const char *name);
void aml_integer(struct table *table, uint64_t value);
void aml_string(struct table *table, const char *text);
void aml_eisa_id(struct table *table, const char *id); /* three capital letters and four hexadecimal digits */

/* --- _CRS: where a device is ----------------------------------------------------------------------------------- */

/* Closed by aml_close_resources. */
struct aml_resources {
    size_t buffer, size, start;
};
struct aml_resources aml_open_resources(struct table *table);
void aml_close_resources(struct table *table, const struct aml_resources *resources);

void aml_ports(struct table *table, uint16_t first, uint8_t count);
void aml_isa_irq(struct table *table, unsigned int number); /* below 16: an edge, high when it is asserted */
void aml_memory(struct table *table, uint32_t base, uint32_t bytes);
void aml_interrupt(struct table *table, uint32_t number); /* a level, high when it is asserted */

#endif
