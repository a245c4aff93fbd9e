// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_notes.h"

#include "guest/abi.h"
#include "vmm/boot_file.h"

#include <assert.h>
#include <elf.h>
#include <inttypes.h>
#include <string.h>

#define NOTE_HEADER_BYTES sizeof(Elf64_Nhdr)

/* Xen's public/elfnote.h. */
#define XEN_NAME         "Xen"
#define XEN_GUEST_OS     6u  /* XEN_ELFNOTE_GUEST_OS */
#define XEN_PHYS32_ENTRY 18u /* XEN_ELFNOTE_PHYS32_ENTRY */
#define LINUX            "linux"

#define NOWHERE UINT64_MAX

static_assert(sizeof(Elf64_Nhdr) == sizeof(Elf32_Nhdr), "notes are laid out alike in both classes");

/* A note within its segment: offsets are from the segment's start. */
struct note {
    Elf64_Nhdr header;
    uint64_t name_offset;
    uint64_t descriptor_offset;
    uint64_t next_offset;
};

/* One way to read a segment. */
struct reading {
    uint32_t pad_bytes; /* names and descriptors are padded to it */
    bool skips_zeros;   /* a note without a name is a gap */
};

/* By how often they are right. The last is for segments that claim as much. */
static const struct reading readings[] = {{4, true}, {4, false}, {8, true}};

/* --- Steps -------------------------------------------------------------------------------------------------------- */

static bool fetch(const struct boot_file *file, const struct boot_notes_segment *segment, uint64_t offset, void *target,
                  size_t bytes)
{
    return loam_fits(offset, bytes, segment->bytes) && boot_file_read(file, segment->offset + offset, target, bytes);
}

/* Whether a whole note lies at offset. The last one's padding may be missing. */
static bool read_note(const struct boot_file *file, const struct boot_notes_segment *segment, uint32_t pad_bytes,
                      uint64_t offset, struct note *note)
{
    if (!fetch(file, segment, offset, &note->header, sizeof note->header)) {
        return false;
    }
    note->name_offset = offset + NOTE_HEADER_BYTES;
    note->descriptor_offset = loam_align_up(note->name_offset + note->header.n_namesz, pad_bytes);
    note->next_offset = loam_align_up(note->descriptor_offset + note->header.n_descsz, pad_bytes);
    return loam_fits(note->name_offset, note->header.n_namesz, segment->bytes) &&
           (note->header.n_descsz == 0 || loam_fits(note->descriptor_offset, note->header.n_descsz, segment->bytes));
}

/* The offset, or that behind the zeros there: a gap between notes, or the segment's rest. */
static uint64_t skip_zeros(const struct boot_file *file, const struct boot_notes_segment *segment,
                           const struct reading *reading, uint64_t offset)
{
    while (offset < segment->bytes) {
        uint64_t rest = segment->bytes - offset;
        size_t bytes = rest < reading->pad_bytes ? (size_t)rest : reading->pad_bytes;
        uint8_t found[8], zeros[8] = {0};

        if (!fetch(file, segment, offset, found, bytes) || memcmp(found, zeros, bytes) != 0 ||
            (!reading->skips_zeros && rest >= NOTE_HEADER_BYTES)) {
            return offset;
        }
        offset += bytes;
    }
    return offset;
}

/* --- What notes say ------------------------------------------------------------------------------------------------ */

/* name is that of a note with its zero, name_bytes long. */
static bool note_is(const struct boot_file *file, const struct boot_notes_segment *segment, const struct note *note,
                    const char *name, size_t name_bytes, uint32_t type)
{
    char found[8];

    return note->header.n_type == type && note->header.n_namesz == name_bytes && name_bytes <= sizeof found &&
           fetch(file, segment, note->name_offset, found, name_bytes) && memcmp(found, name, name_bytes) == 0;
}

static enum loam_error take_without(const struct boot_file *file, const struct boot_notes_segment *segment,
                                    const struct note *note, struct boot_notes *notes, struct loam_diag *diag)
{
    uint32_t without = 0;

    if (note->header.n_descsz != sizeof without) {
        return boot_file_refuse(file, diag, "Loam note: n_descsz is %" PRIu32 " bytes, and its word has 4",
                                note->header.n_descsz);
    }
    fetch(file, segment, note->descriptor_offset, &without, sizeof without);
    notes->without_interrupts = (without & LOAM_ABI_WITHOUT_INTERRUPTS) != 0;
    return LOAM_OK;
}

static enum loam_error take_entry(const struct boot_file *file, const struct boot_notes_segment *segment,
                                  const struct note *note, struct boot_notes *notes, struct loam_diag *diag)
{
    uint64_t entry = 0; /* a 4-byte descriptor fills its lower half */

    if (note->header.n_descsz != 4 && note->header.n_descsz != 8) {
        return boot_file_refuse(file, diag, "PVH note: n_descsz is %" PRIu32 " bytes, and an entry has 4 or 8",
                                note->header.n_descsz);
    }
    fetch(file, segment, note->descriptor_offset, &entry, note->header.n_descsz);
    if (entry >= LOAM_DMA32_END_BYTES) {
        return boot_file_refuse(file, diag, "PVH note: the entry 0x%" PRIx64 " is not below 4 GiB", entry);
    }
    if (notes->entry != BOOT_NOTES_NO_ENTRY && notes->entry != entry) {
        return boot_file_refuse(file, diag, "PVH note: two of them, with the entries 0x%" PRIx64 " and 0x%" PRIx64,
                                notes->entry, entry);
    }
    notes->entry = entry;
    return LOAM_OK;
}

/* With or without a zero at its end. */
static void take_system(const struct boot_file *file, const struct boot_notes_segment *segment, const struct note *note,
                        struct boot_notes *notes)
{
    char name[sizeof LINUX] = "";
    uint32_t bytes = note->header.n_descsz;

    notes->has_system = true;
    notes->is_linux = (bytes == sizeof LINUX || bytes == sizeof LINUX - 1) &&
                      fetch(file, segment, note->descriptor_offset, name, bytes) &&
                      memcmp(name, LINUX, sizeof LINUX) == 0;
}

static enum loam_error take(const struct boot_file *file, const struct boot_notes_segment *segment,
                            const struct note *note, struct boot_notes *notes, struct loam_diag *diag)
{
    notes->known_count++;
    if (note_is(file, segment, note, XEN_NAME, sizeof XEN_NAME, XEN_PHYS32_ENTRY)) {
        return take_entry(file, segment, note, notes, diag);
    }
    if (note_is(file, segment, note, LOAM_ABI_NOTE_NAME, sizeof LOAM_ABI_NOTE_NAME, LOAM_ABI_NOTE_WITHOUT)) {
        return take_without(file, segment, note, notes, diag);
    }
    if (note_is(file, segment, note, XEN_NAME, sizeof XEN_NAME, XEN_GUEST_OS)) {
        take_system(file, segment, note, notes);
    } else {
        notes->known_count--;
    }
    return LOAM_OK;
}

/* --- A segment ----------------------------------------------------------------------------------------------------- */

/* *bad_offset: where a note begins that does not lie within the segment, or NOWHERE. An error: a known note is bad. */
static enum loam_error read_as(const struct boot_file *file, const struct boot_notes_segment *segment,
                               const struct reading *reading, struct boot_notes *notes, uint64_t *bad_offset,
                               struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    struct note note;

    *bad_offset = NOWHERE;
    for (uint64_t offset = skip_zeros(file, segment, reading, 0); error == LOAM_OK && offset < segment->bytes;
         offset = skip_zeros(file, segment, reading, note.next_offset)) {
        if (!read_note(file, segment, reading->pad_bytes, offset, &note)) {
            *bad_offset = offset;
            return LOAM_OK;
        }
        error = take(file, segment, &note, notes, diag);
    }
    return error;
}

static enum loam_error check_segment(const struct boot_file *file, const struct boot_notes_segment *segment,
                                     struct loam_diag *diag)
{
    if (segment->align != 0 && !loam_is_power_of_two(segment->align)) {
        return boot_file_refuse(file, diag,
                                "program header %" PRIu32 ": p_align of notes is 0x%" PRIx64 ", no power of two",
                                segment->index, segment->align);
    }
    if (segment->bytes > BOOT_NOTES_MAX_BYTES) {
        return boot_file_refuse(file, diag,
                                "program header %" PRIu32 ": p_filesz 0x%" PRIx64 " of notes is more than 0x%" PRIx64,
                                segment->index, segment->bytes, BOOT_NOTES_MAX_BYTES);
    }
    return LOAM_OK;
}

/* Of the readings that find whole notes, the first that knows one of them, or else the first. */
enum loam_error boot_notes_read(const struct boot_file *file, const struct boot_notes_segment *segment,
                                struct boot_notes *notes, struct loam_diag *diag)
{
    size_t count = sizeof readings / sizeof readings[0] - (segment->align < 8 ? 1 : 0);
    uint64_t first_bad = NOWHERE, bad;
    struct boot_notes best = *notes;
    bool is_whole = false;
    enum loam_error error = check_segment(file, segment, diag);

    for (size_t i = 0; error == LOAM_OK && i < count && best.known_count == notes->known_count; i++) {
        struct boot_notes found = *notes;

        error = read_as(file, segment, &readings[i], &found, &bad, diag);
        first_bad = i == 0 ? bad : first_bad;
        if (bad == NOWHERE) {
            best = found;
            is_whole = true;
        }
    }
    if (error == LOAM_OK && !is_whole) {
        error = boot_file_refuse(file, diag,
                                 "program header %" PRIu32 ": the note at 0x%" PRIx64
                                 " (n_namesz, n_descsz) does not lie within its segment of 0x%" PRIx64 " bytes",
                                 segment->index, first_bad, segment->bytes);
    }
    if (error == LOAM_OK) {
        *notes = best;
    }
    return error;
}
