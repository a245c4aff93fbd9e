// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_pvh.h"

#include "tests/vmm/boot_fixture.h"
#include "tests/vmm/elf_builder.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a field of the good ELF64 file lies, and how wide it is: the start of a fixture_poke. */
#define EHDR(field)  offsetof(Elf64_Ehdr, field), sizeof((Elf64_Ehdr *)0)->field
#define IDENT(index) (index), 1
#define PHDR(which, field)                                                                                             \
    (sizeof(Elf64_Ehdr) + ELF_GOOD_INDEX_##which * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field)),                  \
        sizeof((Elf64_Phdr *)0)->field
#define GNU_NOTE(field) (ELF_GOOD_NOTES_OFFSET + offsetof(Elf64_Nhdr, field)), 4
#define XEN_NOTE(field) (ELF_GOOD_XEN_OFFSET + offsetof(Elf64_Nhdr, field)), 4
#define XEN_NAME        (ELF_GOOD_XEN_OFFSET + 12), 4
#define XEN_ENTRY       (ELF_GOOD_XEN_OFFSET + 16), 4

static enum loam_error inspect(const void *bytes, size_t size, struct boot_elf_image *image, struct loam_diag *diag)
{
    struct boot_file file = fixture_file(bytes, size, "test.elf");
    enum loam_error error = boot_pvh_inspect(&file, image, diag);

    fixture_file_free(&file);
    return error;
}

/* The equations above struct boot_elf_image, each checked against every other segment. */
static void check_image(const struct boot_elf_image *image, size_t file_bytes)
{
    bool entry_found = false;

    cr_assert(image->segment_count >= 1 && image->segment_count <= BOOT_ELF_SEGMENT_MAX);
    cr_assert_lt(image->notes.entry, LOAM_DMA32_END_BYTES);
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct boot_elf_segment *s = &image->segments[i];

        cr_assert_gt(s->memory_bytes, 0);
        cr_assert_leq(s->file_bytes, s->memory_bytes);
        cr_assert(s->file_bytes == 0 || loam_fits(s->file_offset, s->file_bytes, file_bytes));
        cr_assert(loam_gpa_range_valid(s->start, s->memory_bytes));
        entry_found |= image->notes.entry >= s->start.value && image->notes.entry < s->start.value + s->memory_bytes;
        for (uint32_t k = i + 1; k < image->segment_count; k++) {
            cr_assert_leq(s->start.value + s->memory_bytes, image->segments[k].start.value);
        }
    }
    cr_assert(entry_found);
}

/* --- Inspection --------------------------------------------------------------------------------------------------- */

Test(boot_pvh, inspect_finds_segments_in_order_and_the_entry)
{
    uint8_t file[ELF_GOOD_BYTES];
    struct boot_elf_image image;
    struct loam_diag diag = {0};

    elf_builder_good(file, true);
    cr_assert_eq(inspect(file, sizeof file, &image, &diag), LOAM_OK, "%s", diag.text);
    check_image(&image, sizeof file);
    cr_assert_eq(image.notes.entry, ELF_GOOD_ENTRY);
    cr_assert_eq(image.segment_count, 3);
    cr_assert_eq(image.segments[0].start.value, ELF_GOOD_TEXT);
    cr_assert_eq(image.segments[0].file_offset, ELF_GOOD_TEXT_OFFSET);
    cr_assert_eq(image.segments[0].file_bytes, ELF_GOOD_TEXT_BYTES);
    cr_assert_eq(image.segments[1].start.value, ELF_GOOD_DATA);
    cr_assert_eq(image.segments[1].memory_bytes, ELF_GOOD_DATA_MEMORY);
    cr_assert_eq(image.segments[2].start.value, ELF_GOOD_ZEROS);
    cr_assert_eq(image.segments[2].file_bytes, 0);
}

Test(boot_pvh, inspect_takes_elf32_alike)
{
    uint8_t file[ELF_GOOD_BYTES];
    struct boot_elf_image image, image_64;
    struct loam_diag diag = {0};

    elf_builder_good(file, true);
    cr_assert_eq(inspect(file, sizeof file, &image_64, &diag), LOAM_OK, "%s", diag.text);
    elf_builder_good(file, false);
    cr_assert_eq(inspect(file, sizeof file, &image, &diag), LOAM_OK, "%s", diag.text);
    cr_assert(image_64.is_64 && !image.is_64);
    image.is_64 = true;
    cr_assert_eq(memcmp(&image, &image_64, sizeof image), 0);
}

/* As GRUB's image for PVH has it: code that begins in 32 bits, of a processor of 64. */
Test(boot_pvh, inspect_takes_elf32_of_x86_64)
{
    uint8_t file[ELF_GOOD_BYTES];
    struct boot_elf_image image;
    struct loam_diag diag = {0};

    elf_builder_good(file, false);
    fixture_poke(file, &(struct fixture_poke){offsetof(Elf32_Ehdr, e_machine), 2, EM_X86_64});
    cr_assert_eq(inspect(file, sizeof file, &image, &diag), LOAM_OK, "%s", diag.text);
}

/* The note as Linux and Xen write it, in all widths and alignments. */
Test(boot_pvh, inspect_takes_notes_of_4_and_8_bytes_at_4_and_8)
{
    static const struct elf_builder_segment text = {PT_LOAD, 0x200, 0x100000, 0x10, 0x10, 16};
    uint64_t entry = 0x100004;

    for (uint32_t width = 4; width <= 8; width += 4) {
        for (uint64_t align = 0; align <= 8; align = align == 0 ? 1 : 2 * align) {
            struct elf_builder_segment segments[2] = {text, {PT_NOTE, 0x100, 0, 0, 0, align}};
            size_t padding = align == 8 ? 8 : 4, bytes;
            struct boot_elf_image image;
            struct loam_diag diag = {0};
            uint8_t file[0x210] = {0};

            bytes = elf_builder_note(file + 0x100, "GNU", 5, "abcd", 4, padding);
            bytes += elf_builder_note(file + 0x100 + bytes, "Xen", 18, &entry, width, padding);
            segments[1].file_bytes = bytes;
            elf_builder_headers(file, true, segments, 2);
            cr_assert_eq(inspect(file, sizeof file, &image, &diag), LOAM_OK, "%s", diag.text);
            cr_assert_eq(image.notes.entry, entry);
        }
    }
}

/* Loam's own note; a word with other bits, another type or another name says nothing. */
Test(boot_pvh, inspect_reads_what_the_guest_does_without)
{
    static const struct {
        const char *name;
        uint32_t type, word;
        bool without_interrupts;
    } notes[] = {{"Loam", 1, 1, true},  {"Loam", 1, 3, true},  {"Loam", 1, 2, false},
                 {"Loam", 2, 1, false}, {"Lime", 1, 1, false}, {"Loa", 1, 1, false}};
    uint32_t entry = 0x100004;

    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        struct elf_builder_segment segments[2] = {{PT_LOAD, 0x200, 0x100000, 0x10, 0x10, 16},
                                                  {PT_NOTE, 0x100, 0, 0, 0, 4}};
        struct boot_elf_image image;
        uint8_t file[0x210] = {0};
        size_t bytes = elf_builder_note(file + 0x100, "Xen", 18, &entry, 4, 4);

        bytes += elf_builder_note(file + 0x100 + bytes, notes[i].name, notes[i].type, &notes[i].word, 4, 4);
        segments[1].file_bytes = bytes;
        elf_builder_headers(file, true, segments, 2);
        cr_assert_eq(inspect(file, sizeof file, &image, NULL), LOAM_OK);
        cr_expect_eq(image.notes.without_interrupts, notes[i].without_interrupts, "note %zu", i);
    }
}

Test(boot_pvh, inspect_refuses_a_note_of_loam_of_another_size)
{
    struct elf_builder_segment segments[2] = {{PT_LOAD, 0x200, 0x100000, 0x10, 0x10, 16}, {PT_NOTE, 0x100, 0, 0, 0, 4}};
    uint64_t word = 1;
    struct boot_elf_image image;
    struct loam_diag diag = {0};
    uint8_t file[0x210] = {0};

    segments[1].file_bytes = elf_builder_note(file + 0x100, "Loam", 1, &word, 8, 4);
    elf_builder_headers(file, true, segments, 2);
    cr_assert_eq(inspect(file, sizeof file, &image, &diag), LOAM_ERROR_INVALID);
    cr_assert_not_null(strstr(diag.text, "n_descsz"), "%s", diag.text);
}

Test(boot_pvh, inspect_takes_the_same_entry_twice)
{
    struct elf_builder_segment segments[3] = {
        {PT_LOAD, 0x200, 0x100000, 0x10, 0x10, 16}, {PT_NOTE, 0x100, 0, 20, 20, 4}, {PT_NOTE, 0x100, 0, 20, 20, 4}};
    uint32_t entry = 0x100004;
    struct boot_elf_image image;
    uint8_t file[0x210] = {0};

    cr_assert_leq(elf_builder_headers(file, true, segments, 3), 0x100);
    elf_builder_note(file + 0x100, "Xen", 18, &entry, 4, 4);
    cr_assert_eq(inspect(file, sizeof file, &image, NULL), LOAM_OK);
}

/* Descending, each goes before all others; ascending, behind them. */
static void check_most_program_headers(bool is_descending)
{
    struct elf_builder_segment segments[BOOT_ELF_SEGMENT_MAX] = {{PT_NOTE, 0x1d00, 0, 20, 20, 4}};
    uint8_t file[0x1d00 + 20];
    uint32_t entry = 0x100000;
    struct boot_elf_image image;
    struct loam_diag diag = {0};

    for (uint32_t i = 1; i < BOOT_ELF_SEGMENT_MAX; i++) {
        uint32_t place = is_descending ? BOOT_ELF_SEGMENT_MAX - 1 - i : i - 1;

        segments[i] = (struct elf_builder_segment){PT_LOAD, 0, entry + place * 0x1000, 1, 0x1000, 0};
    }
    cr_assert_leq(elf_builder_headers(file, true, segments, BOOT_ELF_SEGMENT_MAX), 0x1d00);
    elf_builder_note(file + 0x1d00, "Xen", 18, &entry, 4, 4);
    cr_assert_eq(inspect(file, sizeof file, &image, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(image.segment_count, BOOT_ELF_SEGMENT_MAX - 1);
    check_image(&image, sizeof file);
}

Test(boot_pvh, inspect_takes_the_most_program_headers)
{
    check_most_program_headers(true);
    check_most_program_headers(false);
}

/* --- Hostile files ------------------------------------------------------------------------------------------------ */

/* Refused by inspection, without any memory. */
static const struct fixture_case hostile[] = {
    {"one byte", "e_ident", {{0}}, 1},
    {"magic cut", "e_ident", {{0}}, 3},
    {"ident only", "ELF header", {{0}}, EI_NIDENT},
    {"header cut by a byte", "ELF header", {{0}}, sizeof(Elf64_Ehdr) - 1},
    {"header alone", "e_phoff", {{0}}, sizeof(Elf64_Ehdr)},
    {"program headers cut by a byte", "e_phoff", {{0}}, sizeof(Elf64_Ehdr) + 4 * sizeof(Elf64_Phdr) - 1},
    {"notes cut", "p_filesz", {{0}}, ELF_GOOD_NOTES_OFFSET + ELF_GOOD_NOTES_BYTES - 1},
    {"text cut", "p_filesz", {{0}}, ELF_GOOD_TEXT_OFFSET + ELF_GOOD_TEXT_BYTES - 1},
    {"data cut by a byte", "p_filesz", {{0}}, ELF_GOOD_BYTES - 1},
    {"magic bent", "e_ident", {{IDENT(0), 0x7e}}, 0},
    {"class 0", "class 0", {{IDENT(EI_CLASS), 0}}, 0},
    {"class 3", "class 3", {{IDENT(EI_CLASS), 3}}, 0},
    {"class 32 in a 64-bit file", "e_", {{IDENT(EI_CLASS), ELFCLASS32}}, 0},
    {"big-endian", "little-endian", {{IDENT(EI_DATA), ELFDATA2MSB}}, 0},
    {"ident version 0", "version 0", {{IDENT(EI_VERSION), 0}}, 0},
    {"relocatable object", "e_type", {{EHDR(e_type), ET_REL}}, 0},
    {"position-independent", "ET_DYN", {{EHDR(e_type), ET_DYN}}, 0},
    {"core dump", "e_type", {{EHDR(e_type), ET_CORE}}, 0},
    {"aarch64", "e_machine", {{EHDR(e_machine), EM_AARCH64}}, 0},
    {"i386 in ELF64", "e_machine", {{EHDR(e_machine), EM_386}}, 0},
    {"version 2", "e_version", {{EHDR(e_version), 2}}, 0},
    {"no program headers", "e_phnum", {{EHDR(e_phnum), 0}}, 0},
    {"129 program headers", "e_phnum", {{EHDR(e_phnum), BOOT_ELF_SEGMENT_MAX + 1}}, 0},
    {"extended numbering", "e_phnum", {{EHDR(e_phnum), PN_XNUM}}, 0},
    {"more program headers than the file holds", "e_phoff", {{EHDR(e_phnum), 128}}, 0},
    {"program headers of 55 bytes", "e_phentsize", {{EHDR(e_phentsize), 55}}, 0},
    {"program headers of 0 bytes", "e_phentsize", {{EHDR(e_phentsize), 0}}, 0},
    {"program headers at the file's end", "e_phoff", {{EHDR(e_phoff), ELF_GOOD_BYTES}}, 0},
    {"program headers that wrap", "e_phoff", {{EHDR(e_phoff), UINT64_MAX - 55}}, 0},
    {"program headers one byte too far", "e_phoff", {{EHDR(e_phoff), ELF_GOOD_BYTES - 4 * 56 + 1}}, 0},
    {"segment beyond the file", "p_filesz", {{PHDR(TEXT, p_offset), ELF_GOOD_BYTES}}, 0},
    {"segment one byte beyond the file", "p_filesz", {{PHDR(DATA, p_offset), ELF_GOOD_DATA_OFFSET + 1}}, 0},
    {"segment offset wraps", "p_filesz", {{PHDR(TEXT, p_offset), UINT64_MAX - 0x2ff}}, 0},
    {"segment size wraps", "p_filesz", {{PHDR(TEXT, p_filesz), UINT64_MAX}, {PHDR(TEXT, p_memsz), UINT64_MAX}}, 0},
    {"more in the file than in memory", "p_memsz", {{PHDR(DATA, p_memsz), ELF_GOOD_DATA_BYTES - 1}}, 0},
    {"contents without memory", "p_memsz", {{PHDR(TEXT, p_memsz), 0}}, 0},
    {"address at the end of space", "p_paddr", {{PHDR(TEXT, p_paddr), LOAM_GPA_END - 0x2ff}}, 0},
    {"address wraps", "p_paddr", {{PHDR(TEXT, p_paddr), UINT64_MAX - 0xff}}, 0},
    {"memory wraps", "p_memsz", {{PHDR(ZEROS, p_memsz), UINT64_MAX - ELF_GOOD_ZEROS + 1}}, 0},
    {"memory of all space", "p_memsz", {{PHDR(ZEROS, p_memsz), UINT64_MAX}}, 0},
    {"two segments at one place",
     "p_paddr [0x200000, 0x201000) overlaps the segment [0x200000, 0x200300)",
     {{PHDR(ZEROS, p_paddr), ELF_GOOD_TEXT}},
     0},
    {"overlap by a byte from below", "overlap", {{PHDR(TEXT, p_paddr), ELF_GOOD_DATA - 0x2ff}}, 0},
    {"overlap by a byte from above", "overlap", {{PHDR(ZEROS, p_paddr), ELF_GOOD_DATA + ELF_GOOD_DATA_MEMORY - 1}}, 0},
    {"one segment inside another", "overlap", {{PHDR(ZEROS, p_paddr), 0x100000}, {PHDR(ZEROS, p_memsz), 0x400000}}, 0},
    {"nothing to load",
     "PT_LOAD",
     {{PHDR(TEXT, p_type), PT_NULL}, {PHDR(DATA, p_type), PT_NULL}, {PHDR(ZEROS, p_type), PT_NULL}},
     0},
    {"only empty segments",
     "PT_LOAD",
     {{PHDR(TEXT, p_filesz), 0},
      {PHDR(TEXT, p_memsz), 0},
      {PHDR(DATA, p_filesz), 0},
      {PHDR(DATA, p_memsz), 0},
      {PHDR(ZEROS, p_memsz), 0}},
     0},
    {"no notes", "PVH note", {{PHDR(NOTES, p_type), PT_NULL}}, 0},
    {"empty notes", "PVH note", {{PHDR(NOTES, p_filesz), 0}}, 0},
    {"notes without Xen's", "PVH note", {{PHDR(NOTES, p_filesz), 36}}, 0},
    {"Xen note of another type", "PVH note", {{XEN_NOTE(n_type), 17}}, 0},
    {"note of another name", "PVH note", {{XEN_NAME, 0x006e6559}}, 0},
    {"name without its end", "PVH note", {{XEN_NAME, 0x216e6558}}, 0},
    {"notes beyond the file", "p_filesz", {{PHDR(NOTES, p_offset), ELF_GOOD_BYTES - 8}}, 0},
    {"notes wrap", "p_filesz", {{PHDR(NOTES, p_offset), UINT64_MAX - 7}}, 0},
    {"notes of 2 MiB", "p_filesz", {{PHDR(NOTES, p_filesz), 2 * LOAM_MIB}}, 0},
    {"note alignment 3", "p_align", {{PHDR(NOTES, p_align), 3}}, 0},
    {"note header cut", "n_namesz", {{PHDR(NOTES, p_filesz), 36 + 11}}, 0},
    {"descriptor cut", "n_descsz", {{PHDR(NOTES, p_filesz), ELF_GOOD_NOTES_BYTES - 1}}, 0},
    {"name of 4 GiB", "n_namesz", {{GNU_NOTE(n_namesz), UINT32_MAX}}, 0},
    {"name cut, without descriptor", "n_namesz", {{XEN_NOTE(n_namesz), 0x100}, {XEN_NOTE(n_descsz), 0}}, 0},
    {"descriptor of 4 GiB", "n_descsz", {{GNU_NOTE(n_descsz), UINT32_MAX}}, 0},
    {"both of 4 GiB", "n_descsz", {{GNU_NOTE(n_namesz), UINT32_MAX}, {GNU_NOTE(n_descsz), UINT32_MAX}}, 0},
    {"entry of 0 bytes", "n_descsz", {{XEN_NOTE(n_descsz), 0}}, 0},
    {"entry of 2 bytes", "n_descsz", {{XEN_NOTE(n_descsz), 2}}, 0},
    {"entry of 16 bytes",
     "n_descsz",
     {{XEN_NOTE(n_descsz), 16}, {PHDR(NOTES, p_filesz), ELF_GOOD_NOTES_BYTES + 12}},
     0},
    {"entry above 4 GiB",
     "below 4 GiB",
     {{XEN_NOTE(n_descsz), 8}, {ELF_GOOD_XEN_OFFSET + 20, 4, 1}, {PHDR(NOTES, p_filesz), ELF_GOOD_NOTES_BYTES + 4}},
     0},
    {"entry at 0", "in no segment", {{XEN_ENTRY, 0}}, 0},
    {"entry below the text", "in no segment", {{XEN_ENTRY, ELF_GOOD_TEXT - 1}}, 0},
    {"entry between segments", "in no segment", {{XEN_ENTRY, ELF_GOOD_TEXT + ELF_GOOD_TEXT_BYTES}}, 0},
    {"entry behind the last segment", "in no segment", {{XEN_ENTRY, ELF_GOOD_ZEROS + ELF_GOOD_ZEROS_MEMORY}}, 0},
};

/* Well formed, and refused by loading into the fixture's memory. */
static const struct fixture_case misplaced[] = {
    {"text at the null frame", "[0x0, ", {{PHDR(TEXT, p_paddr), 0}, {XEN_ENTRY, 0x10}}, 0},
    {"text in the legacy window", "[0xa0000, ", {{PHDR(TEXT, p_paddr), 0xa0000}, {XEN_ENTRY, 0xa0010}}, 0},
    {"text at the end of low RAM",
     "[0x1800000, ",
     {{PHDR(TEXT, p_paddr), FIXTURE_LOW_BYTES}, {XEN_ENTRY, FIXTURE_LOW_BYTES}},
     0},
    {"text across the end of low RAM",
     "[0x17ff000, 0x1801000)",
     {{PHDR(TEXT, p_paddr), FIXTURE_LOW_BYTES - 0x100}, {XEN_ENTRY, FIXTURE_LOW_BYTES - 0x100}},
     0},
    {"text in the hole", "[0xd0000000, ", {{PHDR(TEXT, p_paddr), 0xd0000000}, {XEN_ENTRY, 0xd0000010}}, 0},
    {"data beyond all RAM", "0x200000000", {{PHDR(DATA, p_paddr), 0x200000400}}, 0},
    {"zeros at the last address", "kernel", {{PHDR(ZEROS, p_paddr), LOAM_GPA_END - ELF_GOOD_ZEROS_MEMORY}}, 0},
    {"zeros of 1 GiB", "kernel", {{PHDR(ZEROS, p_memsz), LOAM_GIB}}, 0},
    {"zeros of 3 PiB", "kernel", {{PHDR(ZEROS, p_memsz), UINT64_C(3) << 50}}, 0},
    {"zeros over both parts of RAM", "kernel", {{PHDR(ZEROS, p_memsz), 4 * LOAM_GIB + LOAM_MIB}}, 0},
    {"zeros over all of low RAM", "kernel", {{PHDR(ZEROS, p_memsz), FIXTURE_LOW_BYTES}}, 0},
    {"data over the null frame's neighbour", "[0x0, ", {{PHDR(DATA, p_paddr), 0x800}}, 0},
};

Test(boot_pvh, inspect_refuses_hostile_files)
{
    static_assert(sizeof hostile / sizeof hostile[0] >= 40, "enough of them");

    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        uint8_t bytes[ELF_GOOD_BYTES];
        size_t size = sizeof bytes;
        struct loam_diag diag = {0};
        struct boot_elf_image image;

        elf_builder_good(bytes, true);
        fixture_apply(bytes, &size, &hostile[i]);
        fixture_check_refusal(hostile[i].name, inspect(bytes, size, &image, &diag), &diag, hostile[i].expected);
        cr_assert_eq(inspect(bytes, size, &image, NULL), LOAM_ERROR_INVALID);
        cr_assert(image.segment_count == 0 && image.notes.entry == 0, "%s", hostile[i].name);
    }
}

Test(boot_pvh, inspect_refuses_an_empty_file)
{
    struct boot_file file = {NULL, 0, NULL};
    struct loam_diag diag = {0};
    struct boot_elf_image image;

    fixture_check_refusal("empty", boot_pvh_inspect(&file, &image, &diag), &diag, "e_ident");
}

Test(boot_pvh, a_refusal_is_one_line_whatever_the_name)
{
    struct boot_file file = {NULL, 0, "a\nb\tc\x7f"};
    struct loam_diag diag = {0};
    struct boot_elf_image image;
    char name[1000];

    fixture_check_refusal("control", boot_pvh_inspect(&file, &image, &diag), &diag, "a?b?c?");
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    file.name = name;
    fixture_check_refusal("long", boot_pvh_inspect(&file, &image, &diag), &diag, "e_ident");
}

Test(boot_pvh, inspect_refuses_every_truncation)
{
    uint8_t bytes[ELF_GOOD_BYTES];

    elf_builder_good(bytes, true);
    for (size_t size = 0; size < sizeof bytes; size++) {
        struct loam_diag diag = {0};
        struct boot_elf_image image;

        fixture_check_refusal("cut", inspect(bytes, size, &image, &diag), &diag, "kernel test.elf: ");
    }
}

/* Accepted or refused: if accepted, then what it says holds. */
static enum loam_error judge(const uint8_t *bytes, size_t size)
{
    struct loam_diag diag = {0};
    struct boot_elf_image image;
    enum loam_error error = inspect(bytes, size, &image, &diag);

    if (error == LOAM_OK) {
        check_image(&image, size);
    } else {
        fixture_check_refusal("mutated", error, &diag, "kernel test.elf: ");
    }
    return error;
}

static void flip_every_bit(bool is_64)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    uint32_t accepted = 0, refused = 0;

    elf_builder_good(bytes, is_64);
    for (size_t bit = 0; bit < ELF_GOOD_HEADERS_BYTES * 8; bit++) {
        enum loam_error error;

        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
        error = judge(bytes, sizeof bytes);
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
        accepted += error == LOAM_OK;
        refused += error != LOAM_OK;
    }
    cr_assert(accepted > 0 && refused > 0);
}

Test(boot_pvh, inspect_survives_every_bit_flip_in_the_headers)
{
    flip_every_bit(true);
    flip_every_bit(false);
}

/* One to four bytes of the headers at random, favouring the values that break sums. */
static void mutate(uint8_t *bytes, struct random *random)
{
    static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff};
    uint64_t count = 1 + random_u64(random) % 4;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t r = random_u64(random);
        size_t at = r % ELF_GOOD_HEADERS_BYTES;

        bytes[at] = (r >> 32 & 1) != 0 ? edges[(r >> 33) % sizeof edges] : (uint8_t)(r >> 40);
    }
}

Test(boot_pvh, inspect_survives_100000_random_mutations)
{
    uint64_t seed = UINT64_C(0x70766831);
    struct random random = {seed};
    uint8_t good[ELF_GOOD_BYTES], bytes[ELF_GOOD_BYTES];
    uint32_t accepted = 0;

    elf_builder_good(good, true);
    for (uint32_t i = 0; i < 100000; i++) {
        memcpy(bytes, good, sizeof bytes);
        mutate(bytes, &random);
        accepted += judge(bytes, sizeof bytes) == LOAM_OK;
    }
    cr_assert(accepted > 1000 && accepted < 99000, "seed %" PRIu64 ": %u accepted", seed, accepted);
}

/* --- Loading ------------------------------------------------------------------------------------------------------ */

static struct loam_memory *memory;

static void setup(void)
{
    memory = fixture_memory();
}

static void teardown(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
    loam_memory_destroy(memory);
}

TestSuite(boot_pvh_load, .init = setup, .fini = teardown);

static bool all_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Fill free RAM, so that what ought to be zero is so because it was zeroed. */
static void dirty_free_memory(void)
{
    struct loam_frame_range range;
    loam_pfn from = {0};

    while (loam_frame_next_free(loam_memory_frame(memory), from, &range) == LOAM_OK) {
        for (uint64_t i = 0; i < range.count_frames; i++) {
            memset(fixture_hva(memory, (range.start.value + i) * LOAM_FRAME_BYTES, LOAM_FRAME_BYTES), 0xee,
                   LOAM_FRAME_BYTES);
        }
        from.value = range.start.value + range.count_frames;
    }
}

static void check_good_image(const uint8_t *file)
{
    const uint8_t *image = fixture_hva(memory, ELF_GOOD_TEXT, 0x4000);
    const uint8_t *zeros = fixture_hva(memory, ELF_GOOD_ZEROS & ~UINT64_C(0xfff), 0x2000);
    size_t data = ELF_GOOD_DATA - ELF_GOOD_TEXT;

    cr_assert_arr_eq(image, file + ELF_GOOD_TEXT_OFFSET, ELF_GOOD_TEXT_BYTES);
    cr_assert(all_zero(image + ELF_GOOD_TEXT_BYTES, data - ELF_GOOD_TEXT_BYTES));
    cr_assert_arr_eq(image + data, file + ELF_GOOD_DATA_OFFSET, ELF_GOOD_DATA_BYTES);
    cr_assert(all_zero(image + data + ELF_GOOD_DATA_BYTES, 0x4000 - data - ELF_GOOD_DATA_BYTES));
    cr_assert(all_zero(zeros, 0x2000));
}

static void check_memory_map(const struct boot_pvh_start_info *info)
{
    const struct boot_pvh_memory *rows = fixture_hva(memory, info->memory_map, info->memory_count * sizeof *rows);
    static const struct boot_pvh_memory expected[] = {{0, 0xa0000, 1, 0},
                                                      {0xa0000, 0x60000, 2, 0},
                                                      {0x100000, FIXTURE_LOW_BYTES - 0x100000, 1, 0},
                                                      {4 * LOAM_GIB, FIXTURE_HIGH_BYTES, 1, 0}};

    cr_assert_eq(info->memory_count, 4);
    cr_assert_eq(memcmp(rows, expected, sizeof expected), 0);
}

static void check_start_info(const struct boot_state *state, const struct boot_request *request)
{
    const struct boot_pvh_start_info *info = fixture_hva(memory, state->parameters.value, sizeof *info);
    uint32_t modules = request->module_count + (request->initrd.data != NULL ? 1u : 0u);
    const char *line = request->command_line != NULL ? request->command_line : "";
    struct loam_dma_entry entry;

    cr_assert_eq(loam_dma_find(loam_memory_dma(memory), state->parameters, &entry), LOAM_OK);
    cr_assert_str_eq(entry.owner, "pvh boot");
    cr_assert_leq(entry.buffer.gpa.value + entry.buffer.bytes, LOAM_GIB);
    cr_assert_eq(info->magic, 0x336ec578);
    cr_assert_eq(info->version, 1);
    cr_assert_eq(info->flags, 0);
    cr_assert_eq(info->rsdp, request->rsdp.value);
    cr_assert_eq(info->reserved, 0);
    cr_assert_eq(info->module_count, modules);
    cr_assert_eq(info->modules == 0, modules == 0);
    cr_assert_str_eq(fixture_hva(memory, info->command_line, strlen(line) + 1), line);
    check_memory_map(info);
}

static const struct boot_pvh_module *module_at(const struct boot_state *state, uint32_t index)
{
    const struct boot_pvh_start_info *info = fixture_hva(memory, state->parameters.value, sizeof *info);
    const struct boot_pvh_module *modules = fixture_hva(memory, info->modules, info->module_count * sizeof *modules);

    cr_assert_eq(info->modules % 8, 0);
    cr_assert_eq(info->memory_map % 8, 0);
    return &modules[index];
}

Test(boot_pvh_load, fills_memory_with_the_file_and_zeros)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct boot_state state;
    struct loam_diag diag = {0};

    elf_builder_good(bytes, true);
    dirty_free_memory();
    cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
    check_good_image(bytes);
    check_start_info(&state, &request);
    cr_assert_eq(state.protocol, BOOT_PVH);
    cr_assert_eq(state.entry, ELF_GOOD_ENTRY);
    cr_assert_eq(state.image_start.value, 0x200000);
    cr_assert_eq(state.image_bytes, 0x102000);
    cr_assert(state.page_tables.value == 0 && state.descriptors.value == 0 && state.descriptor_count == 0);
    cr_assert_eq(fixture_owned(memory, "kernel"), 2);
    cr_assert_eq(fixture_owned(memory, "pvh boot"), 1);
    cr_assert_eq(fixture_owned(memory, "initrd"), 0);
}

Test(boot_pvh_load, hands_over_command_line_modules_and_initrd)
{
    static const struct boot_module modules[2] = {{{0x400000}, 0x1234, "loam-abi"}, {{0x500000}, 0x1000, NULL}};
    uint8_t bytes[ELF_GOOD_BYTES], initrd[5000];
    struct boot_request request = {
        {bytes, sizeof bytes, "good"}, {initrd, sizeof initrd, "initrd"}, "console=ttyS0 quiet", modules, 2, {0xe0000}};
    const struct boot_pvh_module *module;
    struct boot_state state;
    struct loam_diag diag = {0};

    elf_builder_good(bytes, true);
    for (size_t i = 0; i < sizeof initrd; i++) {
        initrd[i] = fixture_byte(i + 7);
    }
    dirty_free_memory();
    cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
    check_good_image(bytes);
    check_start_info(&state, &request);
    module = module_at(&state, 0);
    cr_assert(module->start == 0x400000 && module->bytes == 0x1234 && module->reserved == 0);
    cr_assert_str_eq(fixture_hva(memory, module->command_line, 9), "loam-abi");
    module = module_at(&state, 1);
    cr_assert(module->start == 0x500000 && module->bytes == 0x1000 && module->command_line == 0);
    module = module_at(&state, 2);
    cr_assert(module->bytes == sizeof initrd && module->command_line == 0);
    cr_assert_leq(module->start + module->bytes, LOAM_DMA32_END_BYTES);
    cr_assert_arr_eq(fixture_hva(memory, module->start, sizeof initrd), initrd, sizeof initrd);
    cr_assert(
        all_zero(fixture_hva(memory, module->start + sizeof initrd, 0x2000 - sizeof initrd), 0x2000 - sizeof initrd));
    cr_assert_eq(fixture_owned(memory, "initrd"), 1);
}

Test(boot_pvh_load, places_segments_above_4_gib_too)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct fixture_poke high = {PHDR(ZEROS, p_paddr), 4 * LOAM_GIB + 0x800};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct boot_state state;
    struct loam_diag diag = {0};

    elf_builder_good(bytes, true);
    fixture_poke(bytes, &high);
    cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(state.image_bytes, 4 * LOAM_GIB + 0x2000 - ELF_GOOD_TEXT);
}

Test(boot_pvh_load, the_image_begins_with_its_lowest_segment)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct boot_state state;

    elf_builder_good(bytes, true);
    fixture_poke(bytes, &(struct fixture_poke){PHDR(ZEROS, p_paddr), 0x180800});
    cr_assert_eq(boot_load(memory, &request, &state, NULL), LOAM_OK);
    cr_expect_eq(state.image_start.value, 0x180000);
    cr_expect_eq(state.image_bytes, 0x204000 - 0x180000);
}

/* boot_load knows files without the magic for no ELF files. */
static void refuse_all(const struct fixture_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[ELF_GOOD_BYTES];
        struct boot_request request = {.kernel = {bytes, sizeof bytes, "test.elf"}};
        bool is_elf;

        elf_builder_good(bytes, true);
        fixture_apply(bytes, &request.kernel.bytes, &cases[i]);
        is_elf = request.kernel.bytes >= SELFMAG && memcmp(bytes, ELFMAG, SELFMAG) == 0;
        fixture_refused_load(memory, &request, cases[i].name, is_elf ? cases[i].expected : "neither");
    }
}

Test(boot_pvh_load, refuses_what_is_misplaced_and_keeps_nothing)
{
    refuse_all(misplaced, sizeof misplaced / sizeof misplaced[0]);
}

Test(boot_pvh_load, refuses_hostile_files_and_keeps_nothing)
{
    refuse_all(hostile, sizeof hostile / sizeof hostile[0]);
}

Test(boot_pvh_load, refuses_a_place_that_is_taken)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct loam_dma_request squatter = {.owner = "squatter", .bytes = 1, .at = {0x301000}, .flags = LOAM_DMA_AT};
    struct loam_dma_buffer buffer;

    elf_builder_good(bytes, true);
    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &squatter, &buffer, NULL), LOAM_OK);
    cr_assert_eq(fixture_refused_load(memory, &request, "taken", "[0x300000, 0x302000)"), LOAM_ERROR_EXHAUSTED);
}

Test(boot_pvh_load, refuses_memory_that_is_read_only)
{
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};

    elf_builder_good(bytes, true);
    cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), loam_gpa_from_u64(0x301000), 0x1000, LOAM_ACCESS_READ),
                 LOAM_OK);
    cr_assert_eq(fixture_refused_load(memory, &request, "read-only", "[0x300000, 0x302000)"), LOAM_ERROR_INVALID);
}

Test(boot_pvh_load, refuses_an_initrd_that_does_not_fit)
{
    static uint8_t initrd[FIXTURE_LOW_BYTES];
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"},
                                   .initrd = {initrd, sizeof initrd, "initrd"}};

    elf_builder_good(bytes, true);
    cr_assert_eq(fixture_refused_load(memory, &request, "large initrd",
                                      "initrd: 24576 KiB of guest memory wanted below 0x100000000, and the largest "
                                      "free range there has 21496 KiB: RAM below 4 GiB ends at 24 MiB: raise "
                                      "--low-limit to 29M, or give a smaller initrd"),
                 LOAM_ERROR_EXHAUSTED);
    request.initrd.bytes = 0;
    cr_assert_eq(fixture_refused_load(memory, &request, "empty initrd", "initrd"), LOAM_ERROR_INVALID);
}

static void squat(uint64_t start, uint64_t bytes)
{
    struct loam_dma_request request = {.owner = "squatter", .bytes = bytes, .at = {start}, .flags = LOAM_DMA_AT};
    struct loam_dma_buffer buffer;

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, NULL), LOAM_OK);
}

/* All that the file does not place lies as high as it can, the initrd highest: nothing of it is below 1 MiB. */
Test(boot_pvh_load, leaves_low_memory_to_the_kernel)
{
    static uint8_t initrd[700 * 1024];
    static const size_t sizes[] = {1, 4096, 4097, 612 * 1024, 632 * 1024, sizeof initrd};
    uint8_t bytes[ELF_GOOD_BYTES];
    struct fixture_ids before_ids = fixture_ids(memory);

    elf_builder_good(bytes, true);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct boot_request request = {
            .kernel = {bytes, sizeof bytes, "good"}, .initrd = {initrd, sizes[i], "initrd"}, .command_line = "words"};
        const struct boot_pvh_module *module;
        struct boot_state state;
        struct loam_diag diag = {0};

        cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
        module = module_at(&state, 0);
        cr_assert_eq(module->start % 4096, 0);
        cr_assert_eq(loam_align_up(module->start + sizes[i], 4096), FIXTURE_LOW_BYTES);
        cr_assert_lt(state.parameters.value, module->start);
        cr_assert_gt(state.parameters.value, FIXTURE_LOW_BYTES - 2 * LOAM_MIB);
        cr_assert_eq(state.command_line_kept, 5);
        fixture_release_beyond(memory, &before_ids);
    }
}

/* A frame that is just filled, then a byte more; what lies behind is another's. */
Test(boot_pvh_load, start_info_takes_the_frames_that_it_needs)
{
    static const struct boot_module module = {{0x400000}, 0x1000, "abi"};
    const size_t whole = LOAM_FRAME_BYTES - sizeof(struct boot_pvh_start_info) - sizeof(struct boot_pvh_module) -
                         4 * sizeof(struct boot_pvh_memory) - sizeof "abi" - 1;
    const uint8_t *others = fixture_hva(memory, FIXTURE_LOW_BYTES - LOAM_FRAME_BYTES, LOAM_FRAME_BYTES);
    char line[LOAM_FRAME_BYTES] = {0};
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {{bytes, sizeof bytes, "good"}, {0}, line, &module, 1, {0}};
    struct fixture_ids before_ids;

    elf_builder_good(bytes, true);
    memset(line, 'x', whole);
    squat(FIXTURE_LOW_BYTES - LOAM_FRAME_BYTES, LOAM_FRAME_BYTES);
    memset(fixture_hva(memory, FIXTURE_LOW_BYTES - LOAM_FRAME_BYTES, LOAM_FRAME_BYTES), 0xee, LOAM_FRAME_BYTES);
    before_ids = fixture_ids(memory);
    for (uint64_t frames = 1; frames <= 2; frames++) {
        struct loam_dma_entry entry;
        struct boot_state state;

        cr_assert_eq(boot_load(memory, &request, &state, NULL), LOAM_OK);
        check_start_info(&state, &request);
        cr_assert_eq(loam_dma_find(loam_memory_dma(memory), state.parameters, &entry), LOAM_OK);
        cr_expect_eq(entry.buffer.bytes, frames * LOAM_FRAME_BYTES, "%zu characters", strlen(line));
        cr_expect_eq(state.parameters.value, FIXTURE_LOW_BYTES - (frames + 1) * LOAM_FRAME_BYTES);
        cr_expect_eq(others[0], 0xee, "%zu characters", strlen(line));
        fixture_release_beyond(memory, &before_ids);
        line[whole] = 'x';
    }
}

/* Around what is taken, into the highest range with room; below 1 MiB when there is no other. */
Test(boot_pvh_load, takes_low_memory_when_there_is_no_other)
{
    static uint8_t initrd[64 * 1024];
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"},
                                   .initrd = {initrd, sizeof initrd, "initrd"}};
    struct fixture_ids before_ids;
    struct boot_state state;

    elf_builder_good(bytes, true);
    squat(FIXTURE_LOW_BYTES - 4096, 4096);
    squat(FIXTURE_LOW_BYTES - 4096 - sizeof initrd, sizeof initrd - 4096);
    before_ids = fixture_ids(memory);
    cr_assert_eq(boot_load(memory, &request, &state, NULL), LOAM_OK);
    cr_assert_eq(module_at(&state, 0)->start, FIXTURE_LOW_BYTES - 4096 - 2 * sizeof initrd);
    cr_assert_eq(state.parameters.value, FIXTURE_LOW_BYTES - 2 * 4096, "the hole between the two is large enough");
    fixture_release_beyond(memory, &before_ids);
    squat(LOAM_MIB, ELF_GOOD_TEXT - LOAM_MIB);
    squat(0x204000, 0x300000 - 0x204000);
    squat(0x302000, FIXTURE_LOW_BYTES - 4096 - sizeof initrd - 0x302000);
    squat(FIXTURE_LOW_BYTES - 2 * 4096, 4096);
    cr_assert_eq(boot_load(memory, &request, &state, NULL), LOAM_OK);
    cr_assert_lt(module_at(&state, 0)->start, LOAM_LEGACY_START_BYTES);
    cr_assert_lt(state.parameters.value, LOAM_LEGACY_START_BYTES);
}

/* The good file with another system's note instead of the first (NULL: as it is), and a banner at offset. */
static void build_named(uint8_t bytes[ELF_GOOD_BYTES], const char *system, const char *banner, size_t offset)
{
    elf_builder_good(bytes, true);
    if (system != NULL) {
        size_t length = strlen(system) + 1, end = 16 + length;

        elf_builder_note(bytes + ELF_GOOD_NOTES_OFFSET, "Xen", 6, system, (uint32_t)length, 4);
        memset(bytes + ELF_GOOD_NOTES_OFFSET + end, 0, ELF_GOOD_XEN_OFFSET - ELF_GOOD_NOTES_OFFSET - end);
    }
    memcpy(bytes + offset, banner, strlen(banner));
}

/* Linux keeps 2,047 characters, and says nothing of the rest: known by its note, or by its banner where no note speaks. */
Test(boot_pvh_load, knows_how_much_of_the_command_line_linux_keeps)
{
    static const struct {
        const char *system, *banner;
        uint32_t length, kept;
    } cases[] = {
        {"linux", "", 2048, 2047},
        {"linux", "", 4095, 2047},
        {"linux", "", 2047, 2047},
        {"linux", "", 10, 10},
        {NULL, "Linux version 6.1", 2048, 2047},
        {NULL, "Linux version Linux version 6", 2048, 2047},
        {NULL, "Linux version %s", 2048, 2048},
        {NULL, "Linux version ", 2048, 2048},
        {"FreeBSD", "Linux version 2.6", 4095, 4095},
        {NULL, "", 4095, 4095},
    };

    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        const char *banner = cases[i / 2].banner;
        size_t at_the_end = ELF_GOOD_BYTES - strlen(banner); /* of the second segment; else in the first */
        uint8_t bytes[ELF_GOOD_BYTES];
        char line[BOOT_PVH_COMMAND_LINE_MAX + 1] = {0};
        struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}, .command_line = line};
        struct fixture_ids before_ids = fixture_ids(memory);
        struct boot_state state;

        build_named(bytes, cases[i / 2].system, banner, i % 2 == 0 ? ELF_GOOD_TEXT_OFFSET : at_the_end);
        memset(line, 'x', cases[i / 2].length);
        cr_assert_eq(boot_load(memory, &request, &state, NULL), LOAM_OK);
        cr_expect_eq(state.command_line_kept, cases[i / 2].kept, "case %zu: %" PRIu32, i, state.command_line_kept);
        fixture_release_beyond(memory, &before_ids);
    }
}

Test(boot_pvh_load, refuses_requests_out_of_bounds)
{
    static const struct boot_module nowhere = {{LOAM_GPA_END}, 1, NULL}, empty = {{0x400000}, 0, NULL};
    struct boot_module modules[BOOT_PVH_MODULE_MAX + 1];
    char line[BOOT_PVH_COMMAND_LINE_MAX + 2] = {0};
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}, .command_line = line};

    elf_builder_good(bytes, true);
    memset(line, 'x', BOOT_PVH_COMMAND_LINE_MAX + 1);
    fixture_refused_load(memory, &request, "long line", "command line");
    request.command_line = NULL;
    request.modules = &nowhere;
    request.module_count = 1;
    fixture_refused_load(memory, &request, "module nowhere", "boot module");
    request.modules = &empty;
    fixture_refused_load(memory, &request, "empty module", "boot module");
    for (size_t i = 0; i <= BOOT_PVH_MODULE_MAX; i++) {
        modules[i] = (struct boot_module){{0x400000}, 1, NULL};
    }
    request.modules = modules;
    request.module_count = BOOT_PVH_MODULE_MAX + 1;
    fixture_refused_load(memory, &request, "too many modules", "boot modules");
    request.module_count = BOOT_PVH_MODULE_MAX;
    request.initrd = (struct boot_file){bytes, sizeof bytes, "initrd"};
    fixture_refused_load(memory, &request, "no room for the initrd", "boot modules");
    modules[0].command_line = line;
    request.module_count = 1;
    fixture_refused_load(memory, &request, "long module line", "command line");
}

Test(boot_pvh_load, takes_the_longest_line_and_the_most_modules)
{
    struct boot_module modules[BOOT_PVH_MODULE_MAX];
    char line[BOOT_PVH_COMMAND_LINE_MAX + 1] = {0};
    uint8_t bytes[ELF_GOOD_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"},
                                   .command_line = line,
                                   .modules = modules,
                                   .module_count = BOOT_PVH_MODULE_MAX};
    struct boot_state state;
    struct loam_diag diag = {0};

    elf_builder_good(bytes, true);
    memset(line, 'x', BOOT_PVH_COMMAND_LINE_MAX);
    for (size_t i = 0; i < BOOT_PVH_MODULE_MAX; i++) {
        modules[i] = (struct boot_module){{0x400000 + i}, 1, line};
    }
    cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
    check_start_info(&state, &request);
    for (uint32_t i = 0; i < BOOT_PVH_MODULE_MAX; i++) {
        cr_assert_str_eq(fixture_hva(memory, module_at(&state, i)->command_line, sizeof line), line);
    }
}

/* Mutations that inspection lets through, loaded: refused cleanly or loaded where the file says. */
Test(boot_pvh_load, survives_random_mutations)
{
    struct fixture_ids before_ids = fixture_ids(memory);
    uint64_t seed = UINT64_C(0x70766832);
    struct random random = {seed};
    uint8_t good[ELF_GOOD_BYTES], bytes[ELF_GOOD_BYTES];
    uint32_t before = loam_dma_count(loam_memory_dma(memory)), loaded = 0, refused = 0;

    elf_builder_good(good, true);
    for (uint32_t i = 0; i < 5000; i++) {
        struct boot_request request = {.kernel = {bytes, sizeof bytes, "mutated"}};
        struct boot_state state;
        struct loam_diag diag = {0};
        enum loam_error error;

        memcpy(bytes, good, sizeof bytes);
        mutate(bytes, &random);
        error = boot_load(memory, &request, &state, &diag);
        loaded += error == LOAM_OK;
        refused += error != LOAM_OK;
        if (error != LOAM_OK) {
            fixture_check_refusal("mutated", error, &diag, "");
            cr_assert_eq(loam_dma_count(loam_memory_dma(memory)), before, "seed %" PRIu64 ", round %u", seed, i);
        }
        fixture_release_beyond(memory, &before_ids);
    }
    cr_assert(loaded > 100 && refused > 100, "seed %" PRIu64 ": %u loaded, %u refused", seed, loaded, refused);
}
