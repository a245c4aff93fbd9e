// SPDX-License-Identifier: Apache-2.0
#include "vmm/table.h"

#include <string.h>

void table_init(struct table *table, void *bytes, size_t room_bytes)
{
    *table = (struct table){.bytes = bytes, .room_bytes = room_bytes};
}

bool table_is_whole(const struct table *table)
{
    return table->used_bytes <= table->room_bytes;
}

/* How many of count bytes at offset have room. */
static size_t room_at(const struct table *table, size_t offset, size_t count)
{
    size_t left = offset < table->room_bytes ? table->room_bytes - offset : 0;

    return count < left ? count : left;
}

void table_put_bytes(struct table *table, const void *bytes, size_t count)
{
    size_t room = room_at(table, table->used_bytes, count);

    if (room > 0) {
        memcpy(table->bytes + table->used_bytes, bytes, room);
    }
    table->used_bytes += count;
}

void table_put_zeros(struct table *table, size_t count)
{
    size_t room = room_at(table, table->used_bytes, count);

    if (room > 0) {
        memset(table->bytes + table->used_bytes, 0, room);
    }
    table->used_bytes += count;
}

void table_put(struct table *table, uint64_t value, uint32_t bytes)
{
    size_t offset = table->used_bytes;

    table_put_zeros(table, bytes);
    table_patch(table, offset, value, bytes);
}

void table_put_text(struct table *table, const char *text, size_t width)
{
    size_t length = strnlen(text, width);

    table_put_bytes(table, text, length);
    for (; length < width; length++) {
        table_put(table, ' ', 1);
    }
}

void table_align(struct table *table, size_t align)
{
    table_put_zeros(table, (align - table->used_bytes % align) % align);
}

void table_patch(struct table *table, size_t offset, uint64_t value, uint32_t bytes)
{
    size_t room = room_at(table, offset, bytes);

    for (size_t i = 0; i < room; i++) {
        table->bytes[offset + i] = (uint8_t)(value >> 8 * i);
    }
}

void table_make_way(struct table *table, size_t offset, size_t count)
{
    size_t room = room_at(table, offset + count, table->used_bytes - offset);

    if (room > 0) {
        memmove(table->bytes + offset + count, table->bytes + offset, room);
    }
    table->used_bytes += count;
}

uint8_t table_checksum(const struct table *table, size_t start, size_t end)
{
    size_t room = room_at(table, start, end - start);
    unsigned int sum = 0;

    for (size_t i = 0; i < room; i++) {
        sum += table->bytes[start + i];
    }
    return (uint8_t)(0u - sum);
}
