// SPDX-License-Identifier: Apache-2.0
/* Notes as linkers have laid them out, and as nobody should. */
#include "vmm/boot_notes.h"

#include "tests/vmm/elf_builder.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#define ENTRY UINT32_C(0x00100020)

static uint8_t bytes[4096];
static size_t count; /* of bytes */
static struct boot_notes notes;
static struct loam_diag diag;

static void add(const char *name, uint32_t type, const void *descriptor, uint32_t descriptor_bytes, size_t pad)
{
    count += elf_builder_note(bytes + count, name, type, descriptor, descriptor_bytes, pad);
}

static void add_entry(uint64_t entry, uint32_t width, size_t pad)
{
    add("Xen", 18, &entry, width, pad);
}

static void begin(void)
{
    memset(bytes, 0, sizeof bytes);
    memset(&diag, 0, sizeof diag);
    count = 0;
    notes = (struct boot_notes){.entry = BOOT_NOTES_NO_ENTRY};
}

TestSuite(boot_notes, .init = begin);

/* The file is the segment, so that nothing is read behind it; offset is where in the file it begins. */
static enum loam_error read_at(uint64_t align, uint64_t offset)
{
    struct boot_file file = {bytes, count, "notes"};
    struct boot_notes_segment segment = {.index = 3, .offset = offset, .bytes = count - offset, .align = align};

    return boot_notes_read(&file, &segment, &notes, &diag);
}

static void expect_entry(uint64_t align, const char *what)
{
    cr_expect_eq(read_at(align, 0), LOAM_OK, "%s: %s", what, diag.text);
    cr_expect_eq(notes.entry, ENTRY, "%s, p_align %" PRIu64 ": entry 0x%" PRIx64, what, align, notes.entry);
}

static void expect_refusal(uint64_t align, const char *text)
{
    struct boot_notes before = notes;

    cr_expect_eq(read_at(align, 0), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, text), "%s wanted, found: %s", text, diag.text);
    cr_expect_eq(memcmp(&before, &notes, sizeof notes), 0, "changed by what was refused");
}

/* --- Layouts ------------------------------------------------------------------------------------------------------ */

static const uint64_t aligns[] = {0, 1, 2, 4, 8, 16, 64, 4096};

#define EACH_ALIGN(align) for (size_t align##_i = 0; align##_i < sizeof aligns / sizeof aligns[0]; align##_i++)

Test(boot_notes, padded_to_4_whatever_the_alignment)
{
    EACH_ALIGN(align)
    {
        begin();
        add("Xen", 6, "osv", 4, 4);
        add("Xen", 5, "xen-3.0", 8, 4);
        add_entry(ENTRY, 4, 4);
        expect_entry(aligns[align_i], "after two of Xen's");
        begin();
        add_entry(ENTRY, 8, 4);
        add("GNU", 3, "twenty bytes of hash", 20, 4);
        expect_entry(aligns[align_i], "before a build id");
    }
}

/* .note.gnu.property comes first, and is aligned to 8 with its contents. */
Test(boot_notes, behind_a_merged_property)
{
    const uint32_t property[] = {0xc0010002, 4, 1, 0};

    for (uint64_t align = 4; align <= 4096; align *= 2) {
        begin();
        add("GNU", 5, property, sizeof property, 8);
        add("GNU", 3, "twenty bytes of hash", 20, 4);
        add_entry(ENTRY, 8, 4);
        expect_entry(align, "behind a property");
    }
}

Test(boot_notes, padded_to_8)
{
    const uint32_t without = 1;

    for (uint64_t align = 8; align <= 16; align *= 2) {
        begin();
        add("Xen", 6, "osv", 4, 8);
        add_entry(ENTRY, 4, 8);
        expect_entry(align, "padded to 8");
        begin();
        add("Loam", 1, &without, 4, 8);
        cr_expect_eq(read_at(align, 0), LOAM_OK, "%s", diag.text);
        cr_expect(notes.without_interrupts, "its name is padded, too");
    }
}

/* Sections of other alignments are merged with zeros between them, and linkers fill up the end. */
Test(boot_notes, with_gaps_of_zeros)
{
    for (size_t gap = 4; gap <= 64; gap += 4) {
        EACH_ALIGN(align)
        {
            begin();
            count = gap;
            add("GNU", 3, "twenty bytes of hash", 20, 4);
            count += gap;
            add_entry(ENTRY, 4, 4);
            count += gap;
            expect_entry(aligns[align_i], "between zeros");
        }
    }
    for (size_t rest = 1; rest <= 40; rest++) {
        begin();
        add_entry(ENTRY, 4, 4);
        count += rest;
        expect_entry(4, "before zeros of any number");
    }
}

Test(boot_notes, nothing_and_nothing_but_zeros_say_nothing)
{
    for (count = 0; count < 40; count++) {
        cr_expect_eq(read_at(8, 0), LOAM_OK, "%zu zeros: %s", count, diag.text);
        cr_expect_eq(notes.entry, BOOT_NOTES_NO_ENTRY);
        cr_expect_eq(notes.known_count, 0);
    }
}

/* A note may be nameless: it is stepped over, by its size. */
Test(boot_notes, behind_a_note_without_a_name)
{
    const uint32_t nameless[] = {0, 8, 77, 1, 2};

    memcpy(bytes, nameless, sizeof nameless);
    count = sizeof nameless;
    add_entry(ENTRY, 4, 4);
    expect_entry(4, "behind a nameless note");
}

Test(boot_notes, the_last_padding_may_be_missing)
{
    add("Xen", 6, "linux", 5, 4);
    count -= 3;
    cr_expect_eq(read_at(4, 0), LOAM_OK, "%s", diag.text);
    cr_expect(notes.is_linux);
}

Test(boot_notes, anywhere_in_the_file_and_in_any_segment)
{
    count = 1000;
    add_entry(ENTRY, 4, 4);
    cr_expect_eq(read_at(4, 1000), LOAM_OK, "%s", diag.text);
    cr_expect_eq(notes.entry, ENTRY);
    begin();
    add("GNU", 3, "twenty bytes of hash", 20, 4);
    cr_expect_eq(read_at(4, 0), LOAM_OK);
    cr_expect_eq(notes.entry, BOOT_NOTES_NO_ENTRY);
    count = 0;
    add_entry(ENTRY, 4, 4);
    expect_entry(4, "in the second segment");
}

/* --- What is said -------------------------------------------------------------------------------------------------- */

Test(boot_notes, whose_kernel_it_is)
{
    static const struct {
        const char *name;
        uint32_t bytes;
        bool is_linux;
    } systems[] = {{"linux", 5, true},    {"linux", 6, true},    {"linu", 5, false}, {"linuxx", 6, false},
                   {"linux\0", 7, false}, {"FreeBSD", 8, false}, {"", 0, false},     {"Linux", 6, false}};

    for (size_t i = 0; i < sizeof systems / sizeof systems[0]; i++) {
        begin();
        add("Xen", 6, systems[i].name, systems[i].bytes, 4);
        cr_expect_eq(read_at(4, 0), LOAM_OK, "%s", diag.text);
        cr_expect(notes.has_system);
        cr_expect_eq(notes.is_linux, systems[i].is_linux, "%s, %" PRIu32 " bytes", systems[i].name, systems[i].bytes);
    }
}

Test(boot_notes, the_same_entry_twice_and_never_two)
{
    add_entry(ENTRY, 4, 4);
    add_entry(ENTRY, 8, 4);
    expect_entry(4, "twice");
    begin();
    add_entry(ENTRY, 4, 4);
    add_entry(ENTRY + 0x10, 4, 4);
    expect_refusal(4, "two of them, with the entries 0x100020 and 0x100030");
    for (uint64_t align = 8; align <= 4096; align *= 2) {
        expect_refusal(align, "two of them, with the entries 0x100020 and 0x100030");
    }
    begin();
    add_entry(ENTRY, 4, 4);
    expect_entry(4, "in one segment");
    count = 0;
    add_entry(ENTRY + 0x10, 4, 4);
    expect_refusal(4, "two of them, with the entries 0x100020 and 0x100030");
}

/* --- Refusals ------------------------------------------------------------------------------------------------------ */

Test(boot_notes, what_does_not_lie_within_is_refused)
{
    EACH_ALIGN(align)
    {
        begin();
        add_entry(ENTRY, 4, 4);
        memset(bytes, 0xff, 4);
        expect_refusal(aligns[align_i], "program header 3: the note at 0x0 (n_namesz, n_descsz)");
        begin();
        add("GNU", 3, "twenty bytes of hash", 20, 4);
        add("GNU", 3, "twenty bytes of hash", 20, 4);
        memset(bytes + 36 + 4, 0xff, 4);
        expect_refusal(aligns[align_i],
                       "the note at 0x24 (n_namesz, n_descsz) does not lie within its segment of 0x48");
        begin();
        add_entry(ENTRY, 4, 4);
        memcpy(bytes + count, "the rest", 8);
        count += 8;
        cr_expect_neq(read_at(aligns[align_i], 0), LOAM_OK, "a rest that is no note");
    }
}

Test(boot_notes, known_ones_that_are_malformed_are_refused)
{
    static const uint32_t sizes[] = {0, 1, 3, 5, 7, 9, 12, 16};
    const uint8_t descriptor[16] = {1};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        EACH_ALIGN(align)
        {
            begin();
            add("Xen", 18, descriptor, sizes[i], 4);
            expect_refusal(aligns[align_i], "PVH note: n_descsz is");
        }
    }
    begin();
    add_entry(LOAM_DMA32_END_BYTES, 8, 4);
    expect_refusal(4, "PVH note: the entry 0x100000000 is not below 4 GiB");
    begin();
    add("Loam", 1, descriptor, 8, 4);
    expect_refusal(4, "Loam note: n_descsz is 8 bytes");
}

Test(boot_notes, segments_that_are_none_are_refused)
{
    struct boot_file file = {bytes, sizeof bytes, "notes"};
    struct boot_notes_segment segment = {.index = 3, .bytes = BOOT_NOTES_MAX_BYTES + 1, .align = 4};

    cr_expect_eq(boot_notes_read(&file, &segment, &notes, &diag), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, "p_filesz 0x100001"), "%s", diag.text);
    for (uint64_t align = 3; align <= 7; align++) {
        if (align != 4) {
            expect_refusal(align, "p_align");
        }
    }
    expect_refusal(UINT64_MAX, "p_align");
}

/* What comes behind a bad note does not make up for it. */
Test(boot_notes, a_bad_note_before_a_good_one)
{
    const uint32_t without = 1;

    add_entry(ENTRY, 5, 4);
    add("Loam", 1, &without, 4, 4);
    add("GNU", 3, "hash", 4, 4);
    expect_refusal(4, "PVH note: n_descsz is 5 bytes");
}

/* A descriptor of one byte is one; without any there is nothing to lie anywhere. */
Test(boot_notes, the_last_byte_of_the_segment)
{
    add_entry(ENTRY, 4, 4);
    add("X", 1, "", 1, 4);
    count -= 3; /* its padding */
    expect_entry(4, "the last byte is a descriptor");
    count -= 1;
    begin();
    add_entry(ENTRY, 4, 4);
    add("X", 1, "", 1, 4);
    count -= 4;
    expect_refusal(4, "does not lie within its segment");
    begin();
    add_entry(ENTRY, 4, 4);
    add("X", 1, "", 0, 4);
    count -= 2; /* the padding of its name */
    expect_entry(4, "the last byte is a name's");
}
