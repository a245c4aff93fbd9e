// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_vmlinux.h"

#include "loam/dma.h"
#include "tests/vmm/boot_fixture.h"
#include "tests/vmm/elf_builder.h"
#include "vmm/boot_zero_page.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>

#define PHDR(which, field)                                                                                             \
    (sizeof(Elf64_Ehdr) + ELF_GOOD_INDEX_##which * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field)),                  \
        sizeof((Elf64_Phdr *)0)->field

static void build(uint8_t bytes[ELF_GOOD_BYTES], uint64_t entry)
{
    elf_builder_good(bytes, true);
    bytes[ELF_GOOD_XEN_OFFSET + 8] = 0; /* the note is another */
    fixture_poke(bytes, &(struct fixture_poke){offsetof(Elf64_Ehdr, e_entry), 8, entry});
}

static void check_entry(uint64_t entry, const char *expected)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_file file = {bytes, sizeof bytes, "kernel"};
    struct boot_elf_image image;
    struct loam_diag diag = {0};
    uint64_t found;

    build(bytes, entry);
    fixture_check_refusal(expected, boot_vmlinux_inspect(&file, &image, &found, &diag), &diag, expected);
    cr_expect(found == 0 && image.segment_count == 0);
}

Test(boot_vmlinux, entries_are_checked)
{
    check_entry(0, "and e_entry is 0");
    check_entry(ELF_GOOD_TEXT - 1, "lies in no segment");
    check_entry(ELF_GOOD_ZEROS + ELF_GOOD_ZEROS_MEMORY, "lies in no segment");
}

Test(boot_vmlinux, an_entry_that_is_not_mapped_is_refused)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_file file = {bytes, sizeof bytes, "kernel"};
    struct boot_elf_image image;
    struct loam_diag diag = {0};
    uint64_t found;

    build(bytes, 5 * LOAM_GIB);
    fixture_poke(bytes, &(struct fixture_poke){PHDR(ZEROS, p_paddr), 5 * LOAM_GIB});
    fixture_check_refusal("high", boot_vmlinux_inspect(&file, &image, &found, &diag), &diag, "beyond 4 GiB");
}

Test(boot_vmlinux, all_is_handed_over)
{
    struct loam_memory *memory = fixture_memory();
    static const char line[] = "console=ttyS0";
    uint8_t bytes[ELF_GOOD_BYTES], initrd[5000] = {7};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "kernel"},
                                   .initrd = {initrd, sizeof initrd, "initrd"},
                                   .command_line = line,
                                   .rsdp = {0x9f000}};
    const struct boot_params *parameters;
    struct loam_diag diag = {0};
    struct boot_state state;

    build(bytes, ELF_GOOD_ENTRY);
    cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
    cr_expect(state.protocol == BOOT_LINUX && state.entry == ELF_GOOD_ENTRY);
    cr_expect_eq(state.image_start.value, ELF_GOOD_TEXT);
    cr_expect_eq(state.descriptor_count, 6);
    cr_expect_neq(state.page_tables.value, 0);
    parameters = fixture_hva(memory, state.parameters.value, sizeof *parameters);
    cr_expect_eq(parameters->hdr.header, 0x53726448);
    cr_expect_eq(parameters->hdr.boot_flag, 0xaa55);
    cr_expect_eq(parameters->hdr.type_of_loader, 0xff);
    cr_expect_eq(parameters->acpi_rsdp_addr, 0x9f000);
    cr_expect_gt(parameters->e820_entries, 2);
    cr_expect_str_eq(fixture_hva(memory, parameters->hdr.cmd_line_ptr, sizeof line), line);
    cr_expect_eq(parameters->hdr.ramdisk_size, sizeof initrd);
    cr_expect_eq(*(uint8_t *)fixture_hva(memory, parameters->hdr.ramdisk_image, 1), 7);
    loam_memory_destroy(memory);
}

Test(boot_vmlinux, there_are_no_modules)
{
    struct loam_memory *memory = fixture_memory();
    static const struct boot_module module = {{0x900000}, 1, NULL};
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "kernel"}, .modules = &module, .module_count = 1};

    build(bytes, ELF_GOOD_ENTRY);
    fixture_refused_load(memory, &request, "modules", "the Linux boot protocol has none");
    loam_memory_destroy(memory);
}
