// SPDX-License-Identifier: Apache-2.0
/* Opcodes and their operands: ACPI 6.5, section 20.3, table 20.2; resource descriptors: section 6.4. */
#include "vmm/aml.h"

#include <string.h>

enum opcode {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_EXTENDED = 0x5b,
    OP_EXTENDED_DEVICE = 0x82
};

#define SEGMENT_BYTES       4u
#define RESOURCE_IRQ        0x22u /* 2 bytes: a mask of lines */
#define RESOURCE_PORTS      0x47u /* 7 bytes */
#define RESOURCE_END        0x79u
#define RESOURCE_MEMORY     0x86u
#define RESOURCE_INTERRUPT  0x89u
#define PORTS_DECODE_16     0x01u
#define MEMORY_WRITABLE     0x01u
#define INTERRUPT_CONSUMER  0x01u /* a level, asserted high, not shared */
#define LENGTH_ONE_BYTE_MAX 63u   /* section 20.2.4 */

/* --- Names and lengths -------------------------------------------------------------------------------------------- */

static void put_name(struct table *table, const char *name)
{
    for (size_t i = 0, length = strlen(name); i < SEGMENT_BYTES; i++) {
        table_put(table, (uint8_t)(i < length ? name[i] : '_'), 1);
    }
}

/* Its length is not known yet: it is made way for when it is (PkgLength, section 20.2.4: it counts itself as well). */
void aml_close(struct table *table, size_t opened)
{
    size_t content = table->used_bytes - opened, length = content + 1;
    uint32_t more = 0;

    for (uint64_t most = LENGTH_ONE_BYTE_MAX; length > most; length = content + 1 + more) {
        more++;
        most = (UINT64_C(1) << (4 + 8 * more)) - 1;
    }
    table_make_way(table, opened, 1 + more);
    table_patch(table, opened, more == 0 ? length : more << 6 | (length & 0xf), 1);
    table_patch(table, opened + 1, length >> 4, more);
}

static size_t open_object(struct table *table, enum opcode opcode)
{
    if (opcode == OP_EXTENDED_DEVICE) {
        table_put(table, OP_EXTENDED, 1);
    }
    table_put(table, opcode, 1);
    return table->used_bytes;
}

static size_t open_named(struct table *table, enum opcode opcode, const char *name)
{
    size_t opened = open_object(table, opcode);

    put_name(table, name);
    return opened;
}

size_t aml_open_scope(struct table *table, const char *name)
{
    return open_named(table, OP_SCOPE, name);
}

size_t aml_open_device(struct table *table, const char *name)
{
    return open_named(table, OP_EXTENDED_DEVICE, name);
}

size_t aml_open_package(struct table *table, uint8_t element_count)
{
    size_t opened = open_object(table, OP_PACKAGE);

    table_put(table, element_count, 1);
    return opened;
}

/* --- Objects ------------------------------------------------------------------------------------------------------ */

void aml_name(struct table *table, const char *name)
{
    table_put(table, OP_NAME, 1);
    put_name(table, name);
}

void aml_integer(struct table *table, uint64_t value)
{
    static const struct {
        uint8_t opcode, bytes;
        uint64_t most;
    } forms[] = {
        {OP_BYTE, 1, UINT8_MAX}, {OP_WORD, 2, UINT16_MAX}, {OP_DWORD, 4, UINT32_MAX}, {OP_QWORD, 8, UINT64_MAX}};
    size_t form = 0;

    if (value <= OP_ONE) {
        table_put(table, value, 1); /* OP_ZERO, OP_ONE */
        return;
    }
    while (value > forms[form].most) {
        form++;
    }
    table_put(table, forms[form].opcode, 1);
    table_put(table, value, forms[form].bytes);
}

void aml_string(struct table *table, const char *text)
{
    table_put(table, OP_STRING, 1);
    table_put_bytes(table, text, strlen(text) + 1);
}

/* Five bits a letter and four a digit, the first of them highest, and the bytes of that in the opposite order. */
void aml_eisa_id(struct table *table, const char *id)
{
    uint32_t value = 0;

    for (size_t i = 0; i < 3; i++) {
        value = value << 5 | ((uint32_t)id[i] - '@');
    }
    for (size_t i = 3; i < 7; i++) {
        value = value << 4 | ((uint32_t)id[i] - (id[i] <= '9' ? '0' : 'A' - 10));
    }
    table_put(table, OP_DWORD, 1);
    table_put(table, __builtin_bswap32(value), sizeof value);
}

/* --- Resources ---------------------------------------------------------------------------------------------------- */

struct aml_resources aml_open_resources(struct table *table)
{
    struct aml_resources resources;

    aml_name(table, "_CRS");
    resources.buffer = open_object(table, OP_BUFFER);
    table_put(table, OP_BYTE, 1);
    resources.size = table->used_bytes;
    table_put(table, 0, 1);
    resources.start = table->used_bytes;
    return resources;
}

/* The end's checksum is 0, which counts as right (section 6.4.2.9). */
void aml_close_resources(struct table *table, const struct aml_resources *resources)
{
    table_put(table, RESOURCE_END, 1);
    table_put(table, 0, 1);
    table_patch(table, resources->size, table->used_bytes - resources->start, 1);
    aml_close(table, resources->buffer);
}

void aml_ports(struct table *table, uint16_t first, uint8_t count)
{
    table_put(table, RESOURCE_PORTS, 1);
    table_put(table, PORTS_DECODE_16, 1);
    table_put(table, first, 2); /* the lowest place, and the highest */
    table_put(table, first, 2);
    table_put(table, 1, 1);
    table_put(table, count, 1);
}

void aml_isa_irq(struct table *table, unsigned int number)
{
    table_put(table, RESOURCE_IRQ, 1);
    table_put(table, UINT64_C(1) << number, 2);
}

void aml_memory(struct table *table, uint32_t base, uint32_t bytes)
{
    table_put(table, RESOURCE_MEMORY, 1);
    table_put(table, 9, 2);
    table_put(table, MEMORY_WRITABLE, 1);
    table_put(table, base, 4);
    table_put(table, bytes, 4);
}

void aml_interrupt(struct table *table, uint32_t number)
{
    table_put(table, RESOURCE_INTERRUPT, 1);
    table_put(table, 6, 2);
    table_put(table, INTERRUPT_CONSUMER, 1);
    table_put(table, 1, 1); /* of them */
    table_put(table, number, 4);
}
