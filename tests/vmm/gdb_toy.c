// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/gdb_toy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void require(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "gdb_toy: %s\n", what);
        abort();
    }
}

static bool read_registers(void *self, uint32_t vcpu, struct gdb_registers *registers)
{
    struct gdb_toy *toy = self;

    require(vcpu < GDB_TOY_VCPUS, "a vCPU that there is");
    *registers = toy->registers[vcpu];
    return vcpu != GDB_TOY_BROKEN;
}

static bool write_registers(void *self, uint32_t vcpu, const struct gdb_registers *before,
                            const struct gdb_registers *registers)
{
    struct gdb_toy *toy = self;

    require(vcpu < GDB_TOY_VCPUS, "a vCPU that there is");
    require(memcmp(before, &toy->registers[vcpu], sizeof *before) == 0, "what was read before");
    if (!toy->has_registers_refused) {
        toy->registers[vcpu] = *registers;
    }
    return !toy->has_registers_refused;
}

/* How many of count bytes from address on there are, and where. */
static size_t find(struct gdb_toy *toy, bool is_physical, uint64_t address, size_t count, uint8_t **at)
{
    uint64_t offset = is_physical ? address : address - GDB_TOY_BASE;

    require(count <= GDB_PACKET_BYTES_MAX / 2, "no more than fits into a packet");
    if (offset >= GDB_TOY_BYTES) {
        return 0;
    }
    *at = toy->memory + offset;
    return count < GDB_TOY_BYTES - offset ? count : GDB_TOY_BYTES - (size_t)offset;
}

static size_t read_memory(void *self, uint32_t vcpu, bool is_physical, uint64_t address, uint8_t *bytes, size_t count)
{
    uint8_t *at;
    size_t got = find(self, is_physical, address, count, &at);

    require(vcpu < GDB_TOY_VCPUS, "a vCPU that there is");
    if (got > 0) {
        memcpy(bytes, at, got);
    }
    return got;
}

static size_t write_memory(void *self, uint32_t vcpu, bool is_physical, uint64_t address, const uint8_t *bytes,
                           size_t count)
{
    uint8_t *at;
    size_t got = find(self, is_physical, address, count, &at);

    require(vcpu < GDB_TOY_VCPUS, "a vCPU that there is");
    if (got > 0) {
        memcpy(at, bytes, got);
    }
    return got;
}

static enum gdb_insert insert(void *self, uint32_t vcpu, enum gdb_point_kind kind, uint64_t address, uint32_t bytes)
{
    const struct gdb_point point = {.kind = kind, .address = address, .bytes = bytes};
    struct gdb_toy *toy = self;
    uint8_t *at;

    require(vcpu < GDB_TOY_VCPUS, "a vCPU that there is");
    require(bytes > 0, "a length");
    require(kind <= GDB_POINT_EXECUTE || gdb_points_can_hold(kind, address, bytes), "what a register can hold");
    if (kind > GDB_POINT_EXECUTE && !toy->has_watch) {
        return GDB_INSERT_ABSENT;
    }
    if (kind == GDB_POINT_SOFTWARE && find(toy, false, address, 1, &at) == 0) {
        return GDB_INSERT_NO_MEMORY;
    }
    if (gdb_points_find(&toy->points, kind, address, bytes) != NULL) {
        return GDB_INSERT_DONE;
    }
    return gdb_points_add(&toy->points, &point) ? GDB_INSERT_DONE : GDB_INSERT_NO_ROOM;
}

static void remove_one(void *self, enum gdb_point_kind kind, uint64_t address, uint32_t bytes)
{
    struct gdb_toy *toy = self;
    const struct gdb_point *point = gdb_points_find(&toy->points, kind, address, bytes);

    if (point != NULL) {
        gdb_points_remove(&toy->points, point);
    }
}

static void describe(void *self, uint32_t vcpu, char *text, size_t bytes)
{
    (void)self;
    require(vcpu < GDB_TOY_VCPUS, "a vCPU that there is");
    snprintf(text, bytes, "toy");
}

void gdb_toy_init(struct gdb_toy *toy)
{
    memset(toy, 0, sizeof *toy);
    toy->registers[1].regs.rax = 1;
    toy->target = (struct gdb_target){
        .vcpu_count = GDB_TOY_VCPUS,
        .read_registers = read_registers,
        .write_registers = write_registers,
        .read_memory = read_memory,
        .write_memory = write_memory,
        .insert = insert,
        .remove = remove_one,
        .describe = describe,
        .has_step = true,
        .self = toy,
    };
}
