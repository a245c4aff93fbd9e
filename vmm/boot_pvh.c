// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_pvh.h"

#include "loam/dma.h"
#include "loam/gpa_map.h"
#include "vmm/boot_file.h"
#include "vmm/boot_kind.h"
#include "vmm/boot_memory.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

/*
 * Linux reads start_info's tables through the page tables it was built with, which map its first GiB
 * (arch/x86/platform/pvh: level2_ident_pgt).
 */
#define START_INFO_LIMIT_BYTES LOAM_GIB

/* The fields of an ELF header that matter, whatever its class. */
struct elf_header {
    bool is_64;
    uint16_t type;
    uint16_t machine;
    uint32_t version;
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

        return (struct elf_header){true, h->e_type, h->e_machine, h->e_version, h->e_phoff, h->e_phentsize, h->e_phnum};
    } else {
        const Elf32_Ehdr *h = &raw->class_32;

        return (struct elf_header){false,      h->e_type,      h->e_machine, h->e_version,
                                   h->e_phoff, h->e_phentsize, h->e_phnum};
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
    unsigned machine = header->is_64 ? EM_X86_64 : EM_386;

    if (header->type == ET_DYN) {
        return boot_file_refuse(file, diag,
                                "e_type: a position-independent file (ET_DYN) says not where to load it: link it with "
                                "-no-pie at a fixed address");
    }
    if (header->type != ET_EXEC) {
        return boot_file_refuse(file, diag, "e_type: %u is no executable (ET_EXEC, 2)", header->type);
    }
    if (header->machine != machine) {
        return boot_file_refuse(file, diag, "e_machine: %u, but an %s kernel for this machine has %u", header->machine,
                                header->is_64 ? "ELF64" : "ELF32", machine);
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

    if (header->entry_count == 0 || header->entry_count > BOOT_PVH_SEGMENT_MAX) {
        return boot_file_refuse(file, diag, "e_phnum: %u program headers, and 1 to %u are taken", header->entry_count,
                                BOOT_PVH_SEGMENT_MAX);
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
        return (struct program_header){index, p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align};
    } else {
        Elf32_Phdr p;

        boot_file_read(file, header->table_offset + index * sizeof p, &p, sizeof p);
        return (struct program_header){index, p.p_type, p.p_offset, p.p_paddr, p.p_filesz, p.p_memsz, p.p_align};
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
static enum loam_error insert_segment(const struct boot_file *file, struct boot_pvh_image *image,
                                      const struct program_header *p, struct loam_diag *diag)
{
    uint32_t at = image->segment_count;

    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct boot_pvh_segment *other = &image->segments[i];

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
    image->segments[at] =
        (struct boot_pvh_segment){loam_gpa_from_u64(p->address), p->memory_bytes, p->offset, p->file_bytes};
    image->segment_count++;
    return LOAM_OK;
}

static enum loam_error add_segment(const struct boot_file *file, struct boot_pvh_image *image,
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
                                            struct boot_pvh_image *image, struct loam_diag *diag)
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

static enum loam_error check_entry(const struct boot_file *file, const struct boot_pvh_image *image,
                                   struct loam_diag *diag)
{
    if (image->segment_count == 0) {
        return boot_file_refuse(file, diag,
                                "e_phnum: no program header is a PT_LOAD segment: there is nothing to load");
    }
    if (image->notes.entry == BOOT_NOTES_NO_ENTRY) {
        return boot_file_refuse(file, diag, "PVH note: there is none (PT_NOTE, name Xen, type 18): %s",
                                boot_kind_of_elf(file));
    }
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct boot_pvh_segment *s = &image->segments[i];

        if (image->notes.entry >= s->start.value && image->notes.entry - s->start.value < s->memory_bytes) {
            return LOAM_OK;
        }
    }
    return boot_file_refuse(file, diag, "PVH note: the entry 0x%" PRIx64 " lies in no segment", image->notes.entry);
}

enum loam_error boot_pvh_inspect(const struct boot_file *file, struct boot_pvh_image *image, struct loam_diag *diag)
{
    struct elf_header header;
    enum loam_error error;

    memset(image, 0, sizeof *image);
    image->notes.entry = BOOT_NOTES_NO_ENTRY;
    error = read_header(file, &header, diag);
    if (error == LOAM_OK) {
        error = scan_program_headers(file, &header, image, diag);
    }
    if (error == LOAM_OK) {
        error = check_entry(file, image, diag);
    }
    if (error != LOAM_OK) {
        memset(image, 0, sizeof *image);
    }
    return error;
}

/* --- Loading the segments ----------------------------------------------------------------------------------------- */

static uint64_t first_frame_of(const struct boot_pvh_segment *segment)
{
    return loam_align_down(segment->start.value, LOAM_FRAME_BYTES);
}

/* The end of its last frame. */
static uint64_t end_of(const struct boot_pvh_segment *segment)
{
    return loam_align_up(segment->start.value + segment->memory_bytes, LOAM_FRAME_BYTES);
}

static void copy_segment(const struct boot_file *file, const struct boot_pvh_segment *segment,
                         const struct loam_dma_buffer *buffer)
{
    boot_file_read(file, segment->file_offset, (uint8_t *)buffer->hva + (segment->start.value - buffer->gpa.value),
                   segment->file_bytes);
}

/* Segments whose frames touch are carved as one, since two may share a frame. The ledger zeroes what it carves. */
static enum loam_error load_segments(struct boot_memory *carved, const struct boot_file *file,
                                     const struct boot_pvh_image *image, struct loam_diag *diag)
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
    return error;
}

/* --- hvm_start_info ----------------------------------------------------------------------------------------------- */

/* All that start_info points to; written behind it into one buffer. */
struct start_info_parts {
    uint32_t module_count; /* with the initrd */
    struct boot_module modules[BOOT_PVH_MODULE_MAX];
    uint32_t memory_count;
    struct loam_e820_entry memory[BOOT_MEMORY_E820_MAX];
    const char *command_line;
};

/* Appends to a buffer whose size was computed from the same parts. */
struct writer {
    uint8_t *hva;
    uint64_t gpa;
    uint64_t used_bytes;
};

static uint64_t append(struct writer *writer, const void *bytes, size_t count)
{
    uint64_t gpa = writer->gpa + writer->used_bytes;

    memcpy(writer->hva + writer->used_bytes, bytes, count);
    writer->used_bytes += count;
    return gpa;
}

static uint64_t append_text(struct writer *writer, const char *text)
{
    return text == NULL ? 0 : append(writer, text, strlen(text) + 1);
}

static uint64_t parts_bytes(const struct start_info_parts *parts)
{
    uint64_t bytes = sizeof(struct boot_pvh_start_info) + parts->module_count * sizeof(struct boot_pvh_module) +
                     parts->memory_count * sizeof(struct boot_pvh_memory) + strlen(parts->command_line) + 1;

    for (uint32_t i = 0; i < parts->module_count; i++) {
        bytes += parts->modules[i].command_line != NULL ? strlen(parts->modules[i].command_line) + 1 : 0;
    }
    return bytes;
}

/* The tables first, at multiples of 8; then the texts. */
static void write_start_info(const struct start_info_parts *parts, const struct loam_dma_buffer *buffer)
{
    struct boot_pvh_module modules[BOOT_PVH_MODULE_MAX] = {0};
    struct writer tables = {buffer->hva, buffer->gpa.value, sizeof(struct boot_pvh_start_info)};
    struct writer texts = tables;
    struct boot_pvh_start_info info = {.magic = BOOT_PVH_MAGIC, .version = BOOT_PVH_VERSION};

    texts.used_bytes += parts->module_count * sizeof modules[0] + parts->memory_count * sizeof(struct boot_pvh_memory);
    for (uint32_t i = 0; i < parts->module_count; i++) {
        modules[i].start = parts->modules[i].start.value;
        modules[i].bytes = parts->modules[i].bytes;
        modules[i].command_line = append_text(&texts, parts->modules[i].command_line);
    }
    info.module_count = parts->module_count;
    info.modules = append(&tables, modules, parts->module_count * sizeof modules[0]);
    info.modules = parts->module_count > 0 ? info.modules : 0;
    info.memory_count = parts->memory_count;
    info.memory_map = tables.gpa + tables.used_bytes;
    for (uint32_t i = 0; i < parts->memory_count; i++) {
        const struct loam_e820_entry *e = &parts->memory[i];

        append(&tables, &(struct boot_pvh_memory){e->start, e->bytes, e->type, 0}, sizeof(struct boot_pvh_memory));
    }
    info.command_line = append_text(&texts, parts->command_line);
    memcpy(buffer->hva, &info, sizeof info);
}

/* --- Linux --------------------------------------------------------------------------------------------------------- */

/* A note says so or says another; without one, the banner lies in a segment. */
static bool is_linux(const struct boot_file *file, const struct boot_pvh_image *image)
{
    bool has_banner = false;

    for (uint32_t i = 0; !image->notes.has_system && !has_banner && i < image->segment_count; i++) {
        has_banner = boot_kind_has_banner(file, image->segments[i].file_offset, image->segments[i].file_bytes);
    }
    return image->notes.is_linux || has_banner;
}

/* Whose kernel it is, is asked only where it matters: the file may be long. */
static uint32_t kept_of(const struct boot_request *request, const struct boot_pvh_image *image)
{
    uint32_t length = request->command_line != NULL ? (uint32_t)strlen(request->command_line) : 0;

    return length > BOOT_PVH_LINUX_COMMAND_LINE && is_linux(&request->kernel, image) ? BOOT_PVH_LINUX_COMMAND_LINE
                                                                                     : length;
}

/* --- Requests ------------------------------------------------------------------------------------------------------ */

static enum loam_error check_text(const char *owner, const char *text, struct loam_diag *diag)
{
    if (text != NULL && strlen(text) > BOOT_PVH_COMMAND_LINE_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "command line of the %s: %zu characters, and %u are handed on at most: shorten it", owner,
                         strlen(text), BOOT_PVH_COMMAND_LINE_MAX);
    }
    return LOAM_OK;
}

static enum loam_error check_module(const struct boot_module *module, struct loam_diag *diag)
{
    if (!loam_gpa_range_valid(module->start, module->bytes)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "boot module: 0x%" PRIx64 " bytes at 0x%" PRIx64 " are no memory range", module->bytes,
                         module->start.value);
    }
    return check_text("boot module", module->command_line, diag);
}

static enum loam_error check_request(const struct boot_request *request, struct loam_diag *diag)
{
    uint32_t room = BOOT_PVH_MODULE_MAX - (request->initrd.data != NULL ? 1u : 0u);
    enum loam_error error = check_text("kernel", request->command_line, diag);

    if (error == LOAM_OK && request->module_count > room) {
        error = loam_fail(diag, LOAM_ERROR_INVALID, "boot modules: %" PRIu32 " given, and %" PRIu32 " have room",
                          request->module_count, room);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < request->module_count; i++) {
        error = check_module(&request->modules[i], diag);
    }
    return error;
}

static enum loam_error load_initrd(struct boot_memory *carved, const struct boot_request *request,
                                   struct start_info_parts *parts, struct loam_diag *diag)
{
    struct boot_module *module = &parts->modules[parts->module_count];
    enum loam_error error;

    if (request->initrd.data == NULL) {
        return LOAM_OK;
    }
    error = boot_memory_load_initrd(carved, &request->initrd, loam_gpa_from_u64(LOAM_DMA32_END_BYTES), &module->start,
                                    diag);
    module->bytes = request->initrd.bytes;
    module->command_line = NULL;
    parts->module_count++;
    return error;
}

static enum loam_error load_start_info(struct boot_memory *carved, const struct boot_request *request,
                                       struct boot_state *state, struct loam_diag *diag)
{
    struct start_info_parts parts = {.module_count = request->module_count,
                                     .command_line = request->command_line != NULL ? request->command_line : ""};
    struct loam_dma_request wanted = {.owner = "pvh boot", .limit = {START_INFO_LIMIT_BYTES}};
    struct loam_dma_buffer buffer;
    enum loam_error error;

    for (uint32_t i = 0; i < request->module_count; i++) {
        parts.modules[i] = request->modules[i];
    }
    error = load_initrd(carved, request, &parts, diag);
    if (error == LOAM_OK) {
        error = boot_memory_e820(carved, parts.memory, &parts.memory_count, diag);
    }
    if (error == LOAM_OK) {
        wanted.bytes = parts_bytes(&parts);
        error = boot_memory_carve_high(carved, &wanted, &buffer, diag);
    }
    if (error == LOAM_OK) {
        write_start_info(&parts, &buffer);
        state->parameters = buffer.gpa;
    }
    return error;
}

enum loam_error boot_pvh_load(struct loam_memory *memory, const struct boot_request *request, struct boot_state *state,
                              struct loam_diag *diag)
{
    struct boot_memory carved;
    struct boot_pvh_image image;
    enum loam_error error;

    *state = (struct boot_state){0};
    boot_memory_begin(&carved, memory);
    error = check_request(request, diag);
    if (error == LOAM_OK) {
        error = boot_pvh_inspect(&request->kernel, &image, diag);
    }
    if (error == LOAM_OK) {
        error = load_segments(&carved, &request->kernel, &image, diag);
    }
    if (error == LOAM_OK) {
        error = load_start_info(&carved, request, state, diag);
    }
    if (error != LOAM_OK) {
        boot_memory_undo(&carved);
        *state = (struct boot_state){0};
        return error;
    }
    state->protocol = BOOT_PVH;
    state->command_line_kept = kept_of(request, &image);
    state->entry = image.notes.entry;
    state->without_interrupts = image.notes.without_interrupts;
    state->image_start = loam_gpa_from_u64(first_frame_of(&image.segments[0]));
    state->image_bytes = end_of(&image.segments[image.segment_count - 1]) - state->image_start.value;
    return LOAM_OK;
}
