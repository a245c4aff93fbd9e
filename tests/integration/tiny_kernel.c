// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/tiny_kernel.h"

#include "tests/integration/kernel_guests.h"
#include "tests/vmm/elf_builder.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <stdio.h>
#include <string.h>

/* ELF header, two program headers, a note; the code follows in a page of its own. */
#define NOTES_OFFSET 0x200u
#define CODE_OFFSET  0x1000u
#define CODE_BYTES   4096u
#define NAMES_BYTES  4096u /* symbols and sections, behind the code */

#define NOTE_ENTRY  18u /* XEN_ELFNOTE_PHYS32_ENTRY */
#define NOTE_SYSTEM 6u  /* XEN_ELFNOTE_GUEST_OS */

void tiny_kernel_write_file(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "w");

    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, count, file), count);
    cr_assert_eq(fclose(file), 0);
}

void tiny_kernel_write(const char *path, const char *system, const uint8_t *code, const uint8_t *end)
{
    static uint8_t file[CODE_OFFSET + CODE_BYTES + NAMES_BYTES];
    size_t bytes = (size_t)(end - code);
    const struct elf_builder_symbol symbol = {"guest", GUEST_BASE, bytes, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE};
    uint32_t entry = GUEST_BASE;
    size_t notes = elf_builder_note(file + NOTES_OFFSET, "Xen", NOTE_SYSTEM, system, (uint32_t)strlen(system) + 1, 4);

    notes += elf_builder_note(file + NOTES_OFFSET + notes, "Xen", NOTE_ENTRY, &entry, sizeof entry, 4);
    const struct elf_builder_segment segments[] = {
        {PT_LOAD, CODE_OFFSET, GUEST_BASE, bytes, bytes, 0x1000},
        {PT_NOTE, NOTES_OFFSET, 0, notes, notes, 4},
    };

    cr_assert_leq(bytes, CODE_BYTES);
    elf_builder_headers(file, false, segments, 2);
    memcpy(file + CODE_OFFSET, code, bytes);
    tiny_kernel_write_file(path, file,
                           elf_builder_symbols(file, CODE_OFFSET + bytes, false, GUEST_BASE, bytes, &symbol, 1));
}
