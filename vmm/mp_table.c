// SPDX-License-Identifier: Apache-2.0
/* References: MultiProcessor Specification 1.4, sections 4.1 (pointer), 4.2 (header), 4.3 (entries). */
#include "vmm/mp_table.h"

#include "vmm/machine.h"
#include "vmm/table.h"

#define VERSION             4u /* 1.4 */
#define PARAGRAPH_BYTES     16u
#define HEADER_BYTES        44u
#define CHECKSUM_OFFSET     7u  /* of the header */
#define POINTER_SUM_OFFSET  10u /* of the floating pointer */
#define PROCESSOR_BYTES     20u
#define ENTRY_BYTES         8u /* all others */
#define PROCESSORS_MOST     255u
#define BUS_COUNT           1u
#define IO_APIC_COUNT       1u
#define INTERRUPT_COUNT     16u
#define LOCAL_COUNT         2u
#define LOCAL_APIC_VERSION  0x14u
#define IO_APIC_VERSION     0x11u
#define PROCESSOR_ENABLED   1u
#define PROCESSOR_BOOT      2u
#define PROCESSOR_SIGNATURE 0x600u /* family 6; which model, the processor says */
#define PROCESSOR_FEATURES  0x201u /* a floating-point unit and a local APIC */
#define ISA_BUS             0u
#define ALL_LOCAL_APICS     0xffu
#define AS_THE_BUS          0u
#define LEVEL_HIGH          0xdu

enum entry { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IO_APIC, ENTRY_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum interrupt { INTERRUPT_VECTORED, INTERRUPT_NMI, INTERRUPT_SMI, INTERRUPT_EXTERNAL };

static uint32_t named_count(uint32_t vcpu_count)
{
    return vcpu_count < PROCESSORS_MOST ? vcpu_count : PROCESSORS_MOST;
}

size_t mp_table_bytes(uint32_t vcpu_count)
{
    return MP_TABLE_POINTER_BYTES + HEADER_BYTES + named_count(vcpu_count) * PROCESSOR_BYTES +
           (BUS_COUNT + IO_APIC_COUNT + INTERRUPT_COUNT + LOCAL_COUNT) * ENTRY_BYTES;
}

static void put_pointer(struct table *table, loam_gpa gpa)
{
    table_put_text(table, "_MP_", 4);
    table_put(table, gpa.value + MP_TABLE_POINTER_BYTES, 4);
    table_put(table, MP_TABLE_POINTER_BYTES / PARAGRAPH_BYTES, 1);
    table_put(table, VERSION, 1);
    table_put_zeros(table, 6); /* checksum; there is a table; interrupts begin in virtual wire mode */
    table_patch(table, POINTER_SUM_OFFSET, table_checksum(table, 0, MP_TABLE_POINTER_BYTES), 1);
}

static void put_header(struct table *table, uint32_t processor_count)
{
    table_put_text(table, "PCMP", 4);
    table_put(table, mp_table_bytes(processor_count) - MP_TABLE_POINTER_BYTES, 2);
    table_put(table, VERSION, 1);
    table_put(table, 0, 1); /* checksum */
    table_put_text(table, "LOAM", 8);
    table_put_text(table, "MICROVM", 12);
    table_put_zeros(table, 6); /* no table of the maker's */
    table_put(table, processor_count + BUS_COUNT + IO_APIC_COUNT + INTERRUPT_COUNT + LOCAL_COUNT, 2);
    table_put(table, MACHINE_LOCAL_APIC_BASE, 4);
    table_put_zeros(table, 4); /* no extended table */
}

static void put_processor(struct table *table, uint32_t id)
{
    table_put(table, ENTRY_PROCESSOR, 1);
    table_put(table, id, 1);
    table_put(table, LOCAL_APIC_VERSION, 1);
    table_put(table, PROCESSOR_ENABLED | (id == 0 ? PROCESSOR_BOOT : 0), 1);
    table_put(table, PROCESSOR_SIGNATURE, 4);
    table_put(table, PROCESSOR_FEATURES, 4);
    table_put_zeros(table, 8);
}

static void put_bus(struct table *table)
{
    table_put(table, ENTRY_BUS, 1);
    table_put(table, ISA_BUS, 1);
    table_put_text(table, "ISA", 6);
}

static void put_io_apic(struct table *table)
{
    table_put(table, ENTRY_IO_APIC, 1);
    table_put(table, MACHINE_IO_APIC_ID, 1);
    table_put(table, IO_APIC_VERSION, 1);
    table_put(table, 1, 1); /* usable */
    table_put(table, MACHINE_IO_APIC_BASE, 4);
}

static void put_interrupt(struct table *table, unsigned int line)
{
    table_put(table, ENTRY_INTERRUPT, 1);
    table_put(table, INTERRUPT_VECTORED, 1);
    table_put(table, machine_line_is_level(line) ? LEVEL_HIGH : AS_THE_BUS, 2);
    table_put(table, ISA_BUS, 1);
    table_put(table, line, 1);
    table_put(table, MACHINE_IO_APIC_ID, 1);
    table_put(table, line, 1);
}

static void put_local(struct table *table, enum interrupt kind, uint32_t input)
{
    table_put(table, ENTRY_LOCAL_INTERRUPT, 1);
    table_put(table, kind, 1);
    table_put(table, AS_THE_BUS, 2);
    table_put(table, ISA_BUS, 1);
    table_put(table, 0, 1);
    table_put(table, ALL_LOCAL_APICS, 1);
    table_put(table, input, 1);
}

size_t mp_table_write(uint32_t vcpu_count, loam_gpa gpa, void *bytes, size_t room_bytes)
{
    uint32_t processor_count = named_count(vcpu_count);
    struct table table;

    table_init(&table, bytes, room_bytes);
    put_pointer(&table, gpa);
    put_header(&table, processor_count);
    for (uint32_t i = 0; i < processor_count; i++) {
        put_processor(&table, i);
    }
    put_bus(&table);
    put_io_apic(&table);
    for (unsigned int line = 0; line < INTERRUPT_COUNT; line++) {
        put_interrupt(&table, line);
    }
    put_local(&table, INTERRUPT_EXTERNAL, 0);
    put_local(&table, INTERRUPT_NMI, 1);
    table_patch(&table, MP_TABLE_POINTER_BYTES + CHECKSUM_OFFSET,
                table_checksum(&table, MP_TABLE_POINTER_BYTES, table.used_bytes), 1);
    return table.used_bytes;
}
