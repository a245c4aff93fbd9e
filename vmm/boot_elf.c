// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_elf.h"

#include "loam/dma.h"
#include "vmm/boot_file.h"
#include "vmm/boot_kind.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

/* The fields of an ELF header that matter, whatever its class. */
struct elf_header {
    bool is_64;
    uint16_t type;
    uint16_t machine;
    uint32_t version;
    uint64_t entry;
    uint64_t table_offset;
    uint16_t entry_bytes;
    uint16_t entry_count;
};

/* Likewise of a program header; index is for messages. */
struct program_header {
    uint32_t index;
    uint32_t type;
    uint64_t offset;
    uint64_t address; /* physical */
    uint64_t virtual_address;
    uint64_t file_bytes;
    uint64_t memory_bytes;
    uint64_t align;
};

/* --- The ELF header ----------------------------------------------------------------------------------------------- */

/* The class decides how long the header is; the bytes are fetched once, whatever it says. */
union raw_header {
    unsigned char ident[EI_NIDENT];
    Elf32_Ehdr class_32;
    Elf64_Ehdr class_64;
};

static struct elf_header header_from_raw(const union raw_header *raw)
{
    if (raw->ident[EI_CLASS] == ELFCLASS64) {
        const Elf64_Ehdr *h = &raw->class_64;

        return (struct elf_header){true,       h->e_type,  h->e_machine,   h->e_version,
                                   h->e_entry, h->e_phoff, h->e_phentsize, h->e_phnum};
    } else {
        const Elf32_Ehdr *h = &raw->class_32;

        return (struct elf_header){false,      h->e_type,  h->e_machine,   h->e_version,
                                   h->e_entry, h->e_phoff, h->e_phentsize, h->e_phnum};
    }
}

static enum loam_error check_ident(const struct boot_file *file, const unsigned char *ident, struct loam_diag *diag)
{
    if (memcmp(ident, ELFMAG, SELFMAG) != 0) {
        return boot_file_refuse(file, diag, "e_ident: no ELF file");
    }
    if (ident[EI_CLASS] != ELFCLASS64 && ident[EI_CLASS] != ELFCLASS32) {
        return boot_file_refuse(file, diag, "e_ident: class %u is neither ELF32 nor ELF64", ident[EI_CLASS]);
    }
    if (ident[EI_DATA] != ELFDATA2LSB) {
        return boot_file_refuse(file, diag, "e_ident: data encoding %u is not little-endian", ident[EI_DATA]);
    }
    if (ident[EI_VERSION] != EV_CURRENT) {
        return boot_file_refuse(file, diag, "e_ident: version %u, and only 1 is known", ident[EI_VERSION]);
    }
    return LOAM_OK;
}

static enum loam_error check_kind(const struct boot_file *file, const struct elf_header *header, struct loam_diag *diag)
{
    bool is_machine = header->machine == EM_X86_64 || (!header->is_64 && header->machine == EM_386);

    if (header->type == ET_DYN) {
        return boot_file_refuse(file, diag,
                                "e_type: a position-independent file (ET_DYN) says not where to load it: link it with "
                                "-no-pie at a fixed address");
    }
    if (header->type != ET_EXEC) {
        return boot_file_refuse(file, diag, "e_type: %u is no executable (ET_EXEC, 2)", header->type);
    }
    if (!is_machine) {
        return boot_file_refuse(file, diag, "e_machine: %u, but an %s kernel for this machine has %s", header->machine,
                                header->is_64 ? "ELF64" : "ELF32", header->is_64 ? "62" : "3, or 62");
    }
    if (header->version != EV_CURRENT) {
        return boot_file_refuse(file, diag, "e_version: %" PRIu32 ", and only 1 is known", header->version);
    }
    return LOAM_OK;
}

static enum loam_error check_table(const struct boot_file *file, const struct elf_header *header,
                                   struct loam_diag *diag)
{
    size_t entry_bytes = header->is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

    if (header->entry_count == 0 || header->entry_count > BOOT_ELF_SEGMENT_MAX) {
        return boot_file_refuse(file, diag, "e_phnum: %u program headers, and 1 to %u are taken", header->entry_count,
                                BOOT_ELF_SEGMENT_MAX);
    }
    if (header->entry_bytes != entry_bytes) {
        return boot_file_refuse(file, diag, "e_phentsize: %u bytes, and a program header has %zu", header->entry_bytes,
                                entry_bytes);
    }
    if (!loam_fits(header->table_offset, header->entry_count * entry_bytes, file->bytes)) {
        return boot_file_refuse(file, diag,
                                "e_phoff: %u program headers from 0x%" PRIx64 " do not lie within the file's %zu bytes",
                                header->entry_count, header->table_offset, file->bytes);
    }
    return LOAM_OK;
}

static enum loam_error read_header(const struct boot_file *file, struct elf_header *header, struct loam_diag *diag)
{
    union raw_header raw = {0};
    size_t there = file->bytes < sizeof raw ? file->bytes : sizeof raw;
    enum loam_error error = LOAM_OK;

    boot_file_read(file, 0, &raw, there);
    error = check_ident(file, raw.ident, diag);
    if (error != LOAM_OK) {
        return error;
    }
    *header = header_from_raw(&raw);
    if (there < (header->is_64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr))) {
        return boot_file_refuse(file, diag, "ELF header: the file ends after %zu bytes, within it", file->bytes);
    }
    error = check_kind(file, header, diag);
    return error != LOAM_OK ? error : check_table(file, header, diag);
}

/* --- Program headers ---------------------------------------------------------------------------------------------- */

/* index < header->entry_count, and check_table has passed. */
static struct program_header read_program_header(const struct boot_file *file, const struct elf_header *header,
                                                 uint32_t index)
{
    if (header->is_64) {
        Elf64_Phdr p;

        boot_file_read(file, header->table_offset + index * sizeof p, &p, sizeof p);
        return (struct program_header){index,     p.p_type,   p.p_offset, p.p_paddr,
                                       p.p_vaddr, p.p_filesz, p.p_memsz,  p.p_align};
    } else {
        Elf32_Phdr p;

        boot_file_read(file, header->table_offset + index * sizeof p, &p, sizeof p);
        return (struct program_header){index,     p.p_type,   p.p_offset, p.p_paddr,
                                       p.p_vaddr, p.p_filesz, p.p_memsz,  p.p_align};
    }
}

static enum loam_error check_in_file(const struct boot_file *file, const struct program_header *p,
                                     struct loam_diag *diag)
{
    /* Linkers give segments without contents any offset they like. */
    if (p->file_bytes > 0 && !loam_fits(p->offset, p->file_bytes, file->bytes)) {
        return boot_file_refuse(file, diag,
                                "program header %" PRIu32 ": p_filesz 0x%" PRIx64 " from p_offset 0x%" PRIx64
                                " does not lie within the file's %zu bytes: is it cut?",
                                p->index, p->file_bytes, p->offset, file->bytes);
    }
    return LOAM_OK;
}

/* Keep the segments ascending; those before have been checked against each other. */
static enum loam_error insert_segment(const struct boot_file *file, struct boot_elf_image *image,
                                      const struct program_header *p, struct loam_diag *diag)
{
    uint32_t at = image->segment_count;

    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct boot_elf_segment *other = &image->segments[i];

        if (p->address < other->start.value + other->memory_bytes &&
            other->start.value < p->address + p->memory_bytes) {
            return boot_file_refuse(file, diag,
                                    "program header %" PRIu32 ": p_paddr [0x%" PRIx64 ", 0x%" PRIx64
                                    ") overlaps the segment [0x%" PRIx64 ", 0x%" PRIx64 ")",
                                    p->index, p->address, p->address + p->memory_bytes, other->start.value,
                                    other->start.value + other->memory_bytes);
        }
        if (at == image->segment_count && p->address < other->start.value) {
            at = i;
        }
    }
    memmove(&image->segments[at + 1], &image->segments[at], (image->segment_count - at) * sizeof image->segments[0]);
    image->segments[at] = (struct boot_elf_segment){loam_gpa_from_u64(p->address), p->memory_bytes, p->offset,
                                                    p->file_bytes, p->virtual_address};
    image->segment_count++;
    return LOAM_OK;
}

static enum loam_error add_segment(const struct boot_file *file, struct boot_elf_image *image,
                                   const struct program_header *p, struct loam_diag *diag)
{
    enum loam_error error = check_in_file(file, p, diag);

    if (error != LOAM_OK) {
        return error;
    }
    if (p->file_bytes > p->memory_bytes) {
        return boot_file_refuse(file, diag,
                                "program header %" PRIu32 ": p_filesz 0x%" PRIx64 " is more than p_memsz 0x%" PRIx64,
                                p->index, p->file_bytes, p->memory_bytes);
    }
    if (p->memory_bytes == 0) {
        return LOAM_OK;
    }
    if (!loam_gpa_range_valid(loam_gpa_from_u64(p->address), p->memory_bytes)) {
        return boot_file_refuse(file, diag,
                                "program header %" PRIu32 ": p_memsz 0x%" PRIx64 " from p_paddr 0x%" PRIx64
                                " goes beyond the last physical address",
                                p->index, p->memory_bytes, p->address);
    }
    return insert_segment(file, image, p, diag);
}

/* --- The whole file ----------------------------------------------------------------------------------------------- */

static enum loam_error read_notes(const struct boot_file *file, const struct program_header *p,
                                  struct boot_notes *notes, struct loam_diag *diag)
{
    struct boot_notes_segment segment = {
        .index = p->index, .offset = p->offset, .bytes = p->file_bytes, .align = p->align};
    enum loam_error error = check_in_file(file, p, diag);

    return error == LOAM_OK ? boot_notes_read(file, &segment, notes, diag) : error;
}

static enum loam_error scan_program_headers(const struct boot_file *file, const struct elf_header *header,
                                            struct boot_elf_image *image, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < header->entry_count; i++) {
        struct program_header p = read_program_header(file, header, i);

        if (p.type == PT_LOAD) {
            error = add_segment(file, image, &p, diag);
        } else if (p.type == PT_NOTE) {
            error = read_notes(file, &p, &image->notes, diag);
        }
    }
    return error;
}

enum loam_error boot_elf_inspect(const struct boot_file *file, struct boot_elf_image *image, struct loam_diag *diag)
{
    struct elf_header header;
    enum loam_error error;

    memset(image, 0, sizeof *image);
    image->notes.entry = BOOT_NOTES_NO_ENTRY;
    error = read_header(file, &header, diag);
    if (error == LOAM_OK) {
        image->is_64 = header.is_64;
        image->entry = header.entry;
        error = scan_program_headers(file, &header, image, diag);
    }
    if (error == LOAM_OK && image->segment_count == 0) {
        error =
            boot_file_refuse(file, diag, "e_phnum: no program header is a PT_LOAD segment: there is nothing to load");
    }
    if (error != LOAM_OK) {
        memset(image, 0, sizeof *image);
    }
    return error;
}

bool boot_elf_is(const struct boot_file *file)
{
    unsigned char magic[SELFMAG];

    return boot_file_read(file, 0, magic, sizeof magic) && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

bool boot_elf_holds(const struct boot_elf_image *image, uint64_t address)
{
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct boot_elf_segment *s = &image->segments[i];

        if (address >= s->start.value && address - s->start.value < s->memory_bytes) {
            return true;
        }
    }
    return false;
}

bool boot_elf_entry(const struct boot_elf_image *image, uint64_t *entry)
{
    *entry = image->entry;
    if (image->entry == 0) { /* says that there is none (System V ABI, chapter 4) */
        return false;
    }
    if (boot_elf_holds(image, image->entry)) {
        return true;
    }
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct boot_elf_segment *s = &image->segments[i];

        if (image->entry >= s->virtual_address && image->entry - s->virtual_address < s->memory_bytes) {
            *entry = s->start.value + (image->entry - s->virtual_address);
            return true;
        }
    }
    return false;
}

/* --- Loading the segments ----------------------------------------------------------------------------------------- */

static uint64_t first_frame_of(const struct boot_elf_segment *segment)
{
    return loam_align_down(segment->start.value, LOAM_FRAME_BYTES);
}

/* The end of its last frame. */
static uint64_t end_of(const struct boot_elf_segment *segment)
{
    return loam_align_up(segment->start.value + segment->memory_bytes, LOAM_FRAME_BYTES);
}

static void copy_segment(const struct boot_file *file, const struct boot_elf_segment *segment,
                         const struct loam_dma_buffer *buffer)
{
    boot_file_read(file, segment->file_offset, (uint8_t *)buffer->hva + (segment->start.value - buffer->gpa.value),
                   segment->file_bytes);
}

/* Segments whose frames touch are carved as one, since two may share a frame. The ledger zeroes what it carves. */
enum loam_error boot_elf_load(struct boot_memory *carved, const struct boot_file *file,
                              const struct boot_elf_image *image, struct boot_state *state, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0, next; error == LOAM_OK && i < image->segment_count; i = next) {
        uint64_t start = first_frame_of(&image->segments[i]), end = end_of(&image->segments[i]);
        struct loam_dma_request request = {.owner = "kernel", .at = {start}, .flags = LOAM_DMA_AT};
        struct loam_dma_buffer buffer;

        for (next = i + 1; next < image->segment_count && first_frame_of(&image->segments[next]) <= end; next++) {
            end = end_of(&image->segments[next]);
        }
        request.bytes = end - start;
        error = boot_memory_carve(carved, &request, &buffer, diag);
        for (uint32_t k = i; error == LOAM_OK && k < next; k++) {
            copy_segment(file, &image->segments[k], &buffer);
        }
    }
    if (error == LOAM_OK) {
        state->image_start = loam_gpa_from_u64(first_frame_of(&image->segments[0]));
        state->image_bytes = end_of(&image->segments[image->segment_count - 1]) - state->image_start.value;
    }
    return error;
}

/* --- Linux --------------------------------------------------------------------------------------------------------- */

/* A note says so or says another; without one, the banner lies in a segment. */
bool boot_elf_is_linux(const struct boot_file *file, const struct boot_elf_image *image)
{
    bool has_banner = false;

    for (uint32_t i = 0; !image->notes.has_system && !has_banner && i < image->segment_count; i++) {
        has_banner = boot_kind_has_banner(file, image->segments[i].file_offset, image->segments[i].file_bytes);
    }
    return image->notes.is_linux || has_banner;
}
