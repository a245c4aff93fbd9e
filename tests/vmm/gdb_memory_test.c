// SPDX-License-Identifier: Apache-2.0
/* By physical address; linear ones are gdb_vcpu's to find, and gdb_test reads by them. */
#include "vmm/gdb_memory.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

#define RAM       UINT64_C(0x100000)
#define READ_ONLY UINT64_C(0x110000)
#define DEVICE    UINT64_C(0x120000)
#define EACH      UINT64_C(0x10000)

static _Alignas(64) uint8_t map_memory[65536];
static struct loam_gpa_map *map;
static uint8_t *ram, *rom;
static struct gdb_memory memory;
static uint8_t bytes[2 * EACH];

static uint8_t *host_memory(void)
{
    void *at = mmap(NULL, EACH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(at, MAP_FAILED);
    return at;
}

static void set_up(void)
{
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    ram = host_memory();
    rom = host_memory();
    const struct loam_region regions[] = {
        {.start = {RAM}, .bytes = EACH, .hva = ram, .access = LOAM_ACCESS_WRITE},
        {.start = {READ_ONLY}, .bytes = EACH, .hva = rom, .access = LOAM_ACCESS_READ},
        {.start = {DEVICE}, .bytes = EACH, .type = LOAM_REGION_DEVICE},
    };
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(loam_gpa_map_insert(map, &regions[i]), LOAM_OK);
    }
    memory = (struct gdb_memory){.map = map, .vcpu_fd = -1, .is_physical = true};
}

TestSuite(gdb_memory, .init = set_up, .timeout = 30);

Test(gdb_memory, is_read_as_far_as_there_is_any)
{
    memset(ram, 0x11, EACH);
    memset(rom, 0x22, EACH);
    cr_expect_eq(gdb_memory_read(&memory, RAM + 0xffe, bytes, 4), 4);
    cr_expect_arr_eq(bytes, "\x11\x11\x11\x11", 4);
    cr_expect_eq(gdb_memory_read(&memory, READ_ONLY - 1, bytes, 2), 2, "across regions");
    cr_expect_arr_eq(bytes, "\x11\x22", 2);
    cr_expect_eq(gdb_memory_read(&memory, RAM, bytes, sizeof bytes), 2 * EACH);
    cr_expect_eq(gdb_memory_read(&memory, DEVICE - 3, bytes, 8), 3);
    cr_expect_eq(gdb_memory_read(&memory, DEVICE, bytes, 1), 0);
    cr_expect_eq(gdb_memory_read(&memory, RAM - 1, bytes, 1), 0);
    cr_expect_eq(gdb_memory_read(&memory, UINT64_MAX, bytes, 8), 0);
    cr_expect_eq(gdb_memory_read(&memory, UINT64_MAX - 0xfff, bytes, 0x2000), 0);
}

Test(gdb_memory, is_written_where_the_guest_may_write)
{
    cr_expect_eq(gdb_memory_write(&memory, RAM + 0xfff, (const uint8_t *)"ab", 2), 2);
    cr_expect_arr_eq(ram + 0xfff, "ab", 2);
    cr_expect_eq(gdb_memory_write(&memory, READ_ONLY, (const uint8_t *)"ab", 2), 0);
    cr_expect_eq(rom[0], 0);
    cr_expect_eq(gdb_memory_write(&memory, READ_ONLY - 1, (const uint8_t *)"ab", 2), 1);
    cr_expect_eq(gdb_memory_write(&memory, DEVICE, (const uint8_t *)"ab", 2), 0);
}

/* Or a snapshot that is the difference to another would not have it. */
Test(gdb_memory, what_is_written_is_marked)
{
    static _Alignas(64) uint8_t dirty_memory[65536];
    const struct loam_dirty_config config = {.bytes = 2 * RAM};

    cr_assert_eq(loam_dirty_init(dirty_memory, sizeof dirty_memory, &config, &memory.dirty), LOAM_OK);
    cr_expect_eq(gdb_memory_read(&memory, RAM, bytes, EACH), EACH);
    cr_expect_eq(gdb_memory_write(&memory, READ_ONLY, (const uint8_t *)"ab", 2), 0);
    cr_expect_eq(loam_dirty_count(memory.dirty), 0);
    cr_expect_eq(gdb_memory_write(&memory, RAM + 0x1fff, (const uint8_t *)"ab", 2), 2);
    cr_expect_eq(loam_dirty_count(memory.dirty), 2);
}

/* The vCPU is asked where a linear address lies; this one answers nothing. */
Test(gdb_memory, that_the_page_tables_do_not_have_is_none)
{
    memory.is_physical = false;
    cr_expect_eq(gdb_memory_read(&memory, RAM, bytes, 1), 0);
    cr_expect_eq(gdb_memory_write(&memory, RAM, bytes, 1), 0);
}
