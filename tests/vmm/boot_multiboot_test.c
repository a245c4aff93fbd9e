// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_multiboot.h"

#include "loam/dma.h"
#include "loam/gpa_map.h"
#include "tests/vmm/boot_fixture.h"
#include "tests/vmm/elf_builder.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>

#define PHDR(which, field)                                                                                             \
    (sizeof(Elf64_Ehdr) + ELF_GOOD_INDEX_##which * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field)),                  \
        sizeof((Elf64_Phdr *)0)->field

/* A file of zeros with a header that has the address fields, 0x20 bytes from its start. */
#define RAW_BYTES  0x1234u
#define RAW_HEADER 0x20u
#define RAW_LOAD   0x200000u

struct header {
    uint32_t magic, flags, checksum;
    uint32_t header_address, load_address, load_end, bss_end, entry;
    uint32_t video[4];
};

static void put_header(uint8_t *at, struct header header, size_t bytes)
{
    header.magic = 0x1badb002;
    header.checksum = 0 - (header.magic + header.flags);
    memcpy(at, &header, bytes);
}

static const struct header good_header = {.flags = 0x10003,
                                          .header_address = RAW_LOAD + RAW_HEADER,
                                          .load_address = RAW_LOAD,
                                          .load_end = RAW_LOAD + 0x1000,
                                          .bss_end = RAW_LOAD + 0x3000,
                                          .entry = RAW_LOAD + 0x100};

static void build_raw(uint8_t bytes[RAW_BYTES], const struct header *header)
{
    for (size_t i = 0; i < RAW_BYTES; i++) {
        bytes[i] = fixture_byte(i);
    }
    put_header(bytes + RAW_HEADER, *header, sizeof *header);
}

static void build_elf(uint8_t bytes[ELF_GOOD_BYTES], bool is_64, uint32_t flags)
{
    elf_builder_good(bytes, is_64);
    bytes[ELF_GOOD_XEN_OFFSET + 8] = 0; /* the note is another */
    put_header(bytes + ELF_GOOD_TEXT_OFFSET + 4, (struct header){.flags = flags}, 12);
    fixture_poke(bytes, &(struct fixture_poke){is_64 ? offsetof(Elf64_Ehdr, e_entry) : offsetof(Elf32_Ehdr, e_entry), 4,
                                               ELF_GOOD_ENTRY});
}

static enum loam_error inspect(const void *bytes, size_t count, struct boot_multiboot_image *image,
                               struct loam_diag *diag)
{
    struct boot_file file = fixture_file(bytes, count, "kernel");
    enum loam_error error = boot_multiboot_inspect(&file, image, diag);

    fixture_file_free(&file);
    return error;
}

/* --- What is taken -------------------------------------------------------------------------------------------------- */

Test(boot_multiboot, address_fields_say_where_all_goes)
{
    struct boot_multiboot_image image;
    struct loam_diag diag = {0};
    uint8_t bytes[RAW_BYTES];

    build_raw(bytes, &good_header);
    cr_assert_eq(inspect(bytes, sizeof bytes, &image, &diag), LOAM_OK, "%s", diag.text);
    cr_expect(image.has_addresses && !image.wants_video);
    cr_assert_eq(image.image.segment_count, 1);
    cr_expect_eq(image.image.segments[0].start.value, RAW_LOAD);
    cr_expect_eq(image.image.segments[0].file_offset, 0);
    cr_expect_eq(image.image.segments[0].file_bytes, 0x1000);
    cr_expect_eq(image.image.segments[0].memory_bytes, 0x3000);
    cr_expect_eq(image.entry, RAW_LOAD + 0x100);
}

/* load_end_addr 0: all that follows; bss_end_addr 0: no zeros behind it; the file may begin before what is loaded. */
Test(boot_multiboot, address_fields_may_be_left_open)
{
    struct header header = good_header;
    struct boot_multiboot_image image;
    struct loam_diag diag = {0};
    uint8_t bytes[RAW_BYTES];

    header.header_address = RAW_LOAD + 0x10;
    header.load_end = header.bss_end = 0;
    header.flags |= 4;
    build_raw(bytes, &header);
    cr_assert_eq(inspect(bytes, sizeof bytes, &image, &diag), LOAM_OK, "%s", diag.text);
    cr_expect(image.wants_video);
    cr_expect_eq(image.image.segments[0].file_offset, 0x10);
    cr_expect_eq(image.image.segments[0].file_bytes, RAW_BYTES - 0x10);
    cr_expect_eq(image.image.segments[0].memory_bytes, RAW_BYTES - 0x10);
}

Test(boot_multiboot, elf_of_both_classes)
{
    for (int is_64 = 0; is_64 < 2; is_64++) {
        struct boot_multiboot_image image;
        struct loam_diag diag = {0};
        uint8_t bytes[ELF_GOOD_BYTES];

        build_elf(bytes, is_64 != 0, 3);
        cr_assert_eq(inspect(bytes, sizeof bytes, &image, &diag), LOAM_OK, "%s", diag.text);
        cr_expect(!image.has_addresses && image.image.is_64 == (is_64 != 0));
        cr_expect_eq(image.image.segment_count, 3);
        cr_expect_eq(image.entry, ELF_GOOD_ENTRY);
    }
}

/* Kernels that are linked high have a virtual entry. */
Test(boot_multiboot, a_virtual_entry_is_made_physical)
{
    struct boot_multiboot_image image;
    struct loam_diag diag = {0};
    uint8_t bytes[ELF_GOOD_BYTES];

    build_elf(bytes, true, 3);
    fixture_poke(bytes, &(struct fixture_poke){PHDR(TEXT, p_vaddr), UINT64_C(0xffffffff80200000)});
    fixture_poke(bytes, &(struct fixture_poke){offsetof(Elf64_Ehdr, e_entry), 8, UINT64_C(0xffffffff80200010)});
    cr_assert_eq(inspect(bytes, sizeof bytes, &image, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(image.entry, ELF_GOOD_TEXT + 0x10);
}

/* The last place at which a header may begin is 12 bytes before 8 KiB. */
Test(boot_multiboot, the_header_lies_in_the_first_8_kib)
{
    static uint8_t bytes[9000];

    for (size_t at = 8192 - 16; at <= 8192; at += 4) {
        struct boot_file file = {bytes, sizeof bytes, "kernel"};

        memset(bytes, 0, sizeof bytes);
        put_header(bytes + at, (struct header){.flags = 3}, 12);
        cr_expect_eq(boot_multiboot_is(&file), at + 12 <= 8192, "at %zu", at);
        memset(bytes, 0, sizeof bytes);
        put_header(bytes + at + 2, (struct header){.flags = 3}, 12);
        cr_expect_not(boot_multiboot_is(&file), "a header lies at a multiple of 4");
    }
}

/* --- What is refused ------------------------------------------------------------------------------------------------ */

#define AT(member) RAW_HEADER + offsetof(struct header, member), 4

static const struct fixture_case hostile[] = {
    {"no header", "multiboot header", {{AT(magic), 0}}, 0},
    {"a wrong checksum", "multiboot header", {{AT(checksum), 0}}, 0},
    {"cut within the address fields", "multiboot header", {{0}}, RAW_HEADER + 20},
    {"flags of another version",
     "multiboot flags",
     {{AT(flags), 0x10008}, {AT(checksum), 0 - (0x1badb002 + 0x10008u)}},
     0},
    {"a header before what is loaded", "header_addr", {{AT(header_address), RAW_LOAD - 4}}, 0},
    {"what is loaded begins before the file", "header_addr", {{AT(header_address), RAW_LOAD + RAW_HEADER + 1}}, 0},
    {"an end before the start", "load_end_addr", {{AT(load_end), RAW_LOAD}}, 0},
    {"an end beyond the file", "load_end_addr", {{AT(load_end), RAW_LOAD + RAW_BYTES + 1}}, 0},
    {"zeros that end before the rest", "bss_end_addr", {{AT(bss_end), RAW_LOAD + 0xfff}}, 0},
    {"an entry before", "multiboot entry", {{AT(entry), RAW_LOAD - 1}}, 0},
    {"an entry behind", "multiboot entry", {{AT(entry), RAW_LOAD + 0x3000}}, 0},
    {"beyond 4 GiB",
     "beyond 4 GiB",
     {{AT(header_address), 0xffffff20},
      {AT(load_address), 0xffffff00},
      {AT(load_end), 0},
      {AT(bss_end), 0},
      {AT(entry), 0xffffff00}},
     0},
    {"cut", "load_end_addr", {{0}}, 0xfff},
};

Test(boot_multiboot, hostile_headers_are_refused)
{
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        struct boot_multiboot_image image;
        struct loam_diag diag = {0};
        uint8_t bytes[RAW_BYTES];
        size_t count = sizeof bytes;

        build_raw(bytes, &good_header);
        fixture_apply(bytes, &count, &hostile[i]);
        fixture_check_refusal(hostile[i].name, inspect(bytes, count, &image, &diag), &diag, hostile[i].expected);
        cr_expect(image.image.segment_count == 0 && image.entry == 0, "%s", hostile[i].name);
    }
}

/* --- Loading -------------------------------------------------------------------------------------------------------- */

static struct loam_memory *memory;

static void set_up(void)
{
    memory = fixture_memory();
}

static void tear_down(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
    loam_memory_destroy(memory);
}

TestSuite(boot_multiboot_load, .init = set_up, .fini = tear_down);

static void check_memory_map(const struct boot_multiboot_info *info)
{
    const struct boot_multiboot_memory *entries = fixture_hva(memory, info->memory_map, info->memory_map_bytes);
    uint32_t count = info->memory_map_bytes / (uint32_t)sizeof *entries;
    uint64_t ram = 0;

    for (uint32_t i = 0; i < count; i++) {
        cr_expect_eq(entries[i].bytes, 20);
        ram += entries[i].type == 1 ? entries[i].length : 0;
    }
    cr_expect_eq(ram, FIXTURE_LOW_BYTES + FIXTURE_HIGH_BYTES - (UINT64_C(0x100000) - 0xa0000));
    cr_expect_eq(info->lower_kib, 640);
    cr_expect_eq(info->upper_kib, (FIXTURE_LOW_BYTES - LOAM_MIB) / 1024);
}

Test(boot_multiboot_load, all_is_handed_over)
{
    static const struct boot_module given = {{0x900000}, 0x123, "given"};
    uint8_t bytes[ELF_GOOD_BYTES], initrd[5000];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "/some/where/kernel.elf"},
                                   .initrd = {initrd, sizeof initrd, "initrd"},
                                   .command_line = "one two",
                                   .modules = &given,
                                   .module_count = 1};
    const struct boot_multiboot_module *modules;
    const struct boot_multiboot_info *info;
    struct loam_diag diag = {0};
    struct boot_state state;

    build_elf(bytes, false, 7);
    for (size_t i = 0; i < sizeof initrd; i++) {
        initrd[i] = fixture_byte(i + 3);
    }
    cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
    cr_expect(state.protocol == BOOT_MULTIBOOT && state.entry == ELF_GOOD_ENTRY && state.wants_video);
    cr_expect_lt(state.parameters.value, 0xa0000, "where kernels map first");
    info = fixture_hva(memory, state.parameters.value, sizeof *info);
    cr_expect_eq(info->flags, 0x24d);
    cr_expect_str_eq(fixture_hva(memory, info->command_line, 19), "kernel.elf one two");
    cr_expect_str_eq(fixture_hva(memory, info->loader, 5), "Loam");
    check_memory_map(info);
    cr_assert_eq(info->module_count, 2);
    modules = fixture_hva(memory, info->modules, 2 * sizeof *modules);
    cr_expect(modules[0].start == 0x900000 && modules[0].end == 0x900123);
    cr_expect_str_eq(fixture_hva(memory, modules[0].text, 6), "given");
    cr_expect_eq(modules[1].end - modules[1].start, sizeof initrd);
    cr_expect_eq(modules[1].start % LOAM_FRAME_BYTES, 0);
    cr_expect_eq(modules[1].start, state.image_start.value + state.image_bytes, "the next frame behind the kernel");
    cr_expect_arr_eq(fixture_hva(memory, modules[1].start, sizeof initrd), initrd, sizeof initrd);
}

Test(boot_multiboot_load, what_cannot_be_loaded_leaves_nothing)
{
    char line[4097];
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_module modules[17] = {{{0x900000}, 1, NULL}};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "k"}, .command_line = line};

    build_elf(bytes, false, 3);
    memset(line, 'x', 4096);
    line[4096] = '\0';
    fixture_refused_load(memory, &request, "a long command line", "command line: 4096 characters");
    request.command_line = NULL;
    request.modules = modules;
    request.module_count = 17;
    fixture_refused_load(memory, &request, "many modules", "17 given, and 16 have room");
    request.module_count = 1;
    modules[0].start = loam_gpa_from_u64(LOAM_DMA32_END_BYTES);
    fixture_refused_load(memory, &request, "a module above 4 GiB", "do not lie below 4 GiB");
    request.module_count = 0;
    request.initrd = (struct boot_file){"", 0, "empty"};
    fixture_refused_load(memory, &request, "an empty initrd", "initrd: the file is empty");
}
