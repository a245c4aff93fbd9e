// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_multiboot.h"

#include "loam/dma.h"
#include "loam/gpa_map.h"
#include "vmm/boot_file.h"
#include "vmm/boot_memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The header (section 3.1). */
#define HEADER_MAGIC        0x1badb002u
#define HEADER_SEARCH_BYTES 8192u
#define HEADER_STEP_BYTES   4u
#define WANTS_VIDEO         (1u << 2)
#define WANTS_KNOWN         0x7u    /* modules on whole pages, a memory map, video */
#define WANTS_MASK          0xffffu /* what a loader has to know, or refuse */
#define HAS_ADDRESSES       (1u << 16)

#define LOWER_MEMORY_BYTES UINT64_C(0xa0000)
#define UPPER_MEMORY_BYTES LOAM_MIB
#define INFO_LIMIT_BYTES   LOAM_GIB
#define E820_RAM           1u

#define LOADER_NAME "Loam"

struct header {
    uint32_t magic, flags, checksum;
    uint32_t header_address, load_address, load_end, bss_end, entry; /* with HAS_ADDRESSES */
};

/* --- The file ------------------------------------------------------------------------------------------------------- */

/* Fetched once, wherever it lies. */
static bool find_header(const struct boot_file *file, struct header *header, uint32_t *offset)
{
    const size_t least = offsetof(struct header, header_address);

    for (*offset = 0; *offset + least <= HEADER_SEARCH_BYTES; *offset += HEADER_STEP_BYTES) {
        memset(header, 0, sizeof *header);
        if (!boot_file_read(file, *offset, header, least)) {
            return false;
        }
        if (header->magic == HEADER_MAGIC && header->magic + header->flags + header->checksum == 0) {
            return (header->flags & HAS_ADDRESSES) == 0 ||
                   boot_file_read(file, *offset + least, &header->header_address, sizeof *header - least);
        }
    }
    return false;
}

bool boot_multiboot_is(const struct boot_file *file)
{
    struct header header;
    uint32_t offset;

    return find_header(file, &header, &offset);
}

static enum loam_error check_addresses(const struct boot_file *file, const struct header *h, uint32_t offset,
                                       struct loam_diag *diag)
{
    uint32_t before = h->header_address - h->load_address;

    if (h->header_address < h->load_address || before > offset) {
        return boot_file_refuse(file, diag,
                                "multiboot header_addr: 0x%" PRIx32 " with load_addr 0x%" PRIx32
                                ", and the header lies 0x%" PRIx32 " bytes from the file's start",
                                h->header_address, h->load_address, offset);
    }
    if (h->load_end != 0 &&
        (h->load_end <= h->load_address || !loam_fits(offset - before, h->load_end - h->load_address, file->bytes))) {
        return boot_file_refuse(file, diag,
                                "multiboot load_end_addr: 0x%" PRIx32 " with load_addr 0x%" PRIx32
                                " is more than the file's %zu bytes have: is it cut?",
                                h->load_end, h->load_address, file->bytes);
    }
    return LOAM_OK;
}

/* One segment, from load_addr to the end of what is loaded and of the zeros behind it. */
static enum loam_error read_addresses(const struct boot_file *file, const struct header *h, uint32_t offset,
                                      struct boot_multiboot_image *image, struct loam_diag *diag)
{
    struct boot_elf_segment *segment = &image->image.segments[0];
    enum loam_error error = check_addresses(file, h, offset, diag);
    uint64_t end;

    if (error != LOAM_OK) {
        return error;
    }
    segment->start = loam_gpa_from_u64(h->load_address);
    segment->virtual_address = h->load_address;
    segment->file_offset = offset - (h->header_address - h->load_address);
    segment->file_bytes = h->load_end != 0 ? h->load_end - h->load_address : file->bytes - segment->file_offset;
    end = h->load_address + segment->file_bytes;
    if (h->bss_end != 0 && h->bss_end < end) {
        return boot_file_refuse(file, diag,
                                "multiboot bss_end_addr: 0x%" PRIx32 " lies before the loaded part's end 0x%" PRIx64,
                                h->bss_end, end);
    }
    segment->memory_bytes = (h->bss_end != 0 ? h->bss_end : end) - h->load_address;
    image->image.segment_count = 1;
    image->image.entry = h->entry;
    return LOAM_OK;
}

static enum loam_error check_image(const struct boot_file *file, struct boot_multiboot_image *image,
                                   struct loam_diag *diag)
{
    const struct boot_elf_segment *last = &image->image.segments[image->image.segment_count - 1];
    uint64_t entry;

    if (last->start.value + last->memory_bytes > LOAM_DMA32_END_BYTES) {
        return boot_file_refuse(file, diag, "multiboot: a segment ends at 0x%" PRIx64 ", beyond 4 GiB",
                                last->start.value + last->memory_bytes);
    }
    if (!boot_elf_entry(&image->image, &entry)) {
        return boot_file_refuse(file, diag, "multiboot entry: 0x%" PRIx64 " lies in no segment", image->image.entry);
    }
    image->entry = (uint32_t)entry;
    return LOAM_OK;
}

static enum loam_error read_image(const struct boot_file *file, struct boot_multiboot_image *image,
                                  struct loam_diag *diag)
{
    struct header header;
    uint32_t offset;
    enum loam_error error;

    if (!find_header(file, &header, &offset)) {
        return boot_file_refuse(file, diag, "multiboot header: there is none in its first 8 KiB");
    }
    if ((header.flags & WANTS_MASK & ~WANTS_KNOWN) != 0) {
        return boot_file_refuse(file, diag,
                                "multiboot flags: 0x%04" PRIx32 " ask for what Multiboot 0.6.96 does not know",
                                header.flags & WANTS_MASK);
    }
    image->wants_video = (header.flags & WANTS_VIDEO) != 0;
    image->has_addresses = (header.flags & HAS_ADDRESSES) != 0;
    error = image->has_addresses ? read_addresses(file, &header, offset, image, diag)
                                 : boot_elf_inspect(file, &image->image, diag);
    return error == LOAM_OK ? check_image(file, image, diag) : error;
}

enum loam_error boot_multiboot_inspect(const struct boot_file *file, struct boot_multiboot_image *image,
                                       struct loam_diag *diag)
{
    enum loam_error error;

    memset(image, 0, sizeof *image);
    error = read_image(file, image, diag);
    if (error != LOAM_OK) {
        memset(image, 0, sizeof *image);
    }
    return error;
}

/* --- Modules -------------------------------------------------------------------------------------------------------- */

/* What stands beside the kernel in guest memory. */
struct parts {
    uint32_t module_count;
    struct boot_module modules[BOOT_MULTIBOOT_MODULE_MAX];
    uint32_t memory_count;
    struct loam_e820_entry memory[BOOT_MEMORY_E820_MAX];
    const char *name; /* of the kernel's file */
    const char *command_line;
};

static enum loam_error check_request(const struct boot_request *request, struct loam_diag *diag)
{
    uint32_t room = BOOT_MULTIBOOT_MODULE_MAX - (request->initrd.data != NULL ? 1u : 0u);

    if (request->command_line != NULL && strlen(request->command_line) > BOOT_MULTIBOOT_COMMAND_LINE_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "command line: %zu characters, and %u are handed on at most: shorten it",
                         strlen(request->command_line), BOOT_MULTIBOOT_COMMAND_LINE_MAX);
    }
    if (request->module_count > room) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "boot modules: %" PRIu32 " given, and %" PRIu32 " have room",
                         request->module_count, room);
    }
    for (uint32_t i = 0; i < request->module_count; i++) {
        const struct boot_module *module = &request->modules[i];

        if (!loam_fits(module->start.value, module->bytes, LOAM_DMA32_END_BYTES)) {
            return loam_fail(diag, LOAM_ERROR_INVALID,
                             "boot module: 0x%" PRIx64 " bytes at 0x%" PRIx64 " do not lie below 4 GiB", module->bytes,
                             module->start.value);
        }
    }
    return LOAM_OK;
}

/* Kernels take what follows their last module for free. */
static enum loam_error load_initrd(struct boot_memory *carved, const struct boot_request *request,
                                   const struct boot_state *state, struct parts *parts, struct loam_diag *diag)
{
    const struct boot_file *initrd = &request->initrd;
    struct boot_module *module = &parts->modules[parts->module_count];
    struct loam_dma_request wanted = {.owner = BOOT_MEMORY_INITRD,
                                      .bytes = initrd->bytes,
                                      .limit = {LOAM_DMA32_END_BYTES},
                                      .flags = LOAM_DMA_NO_ZERO};
    struct loam_dma_buffer buffer;
    enum loam_error error;

    if (initrd->data == NULL) {
        return LOAM_OK;
    }
    parts->module_count++;
    *module = (struct boot_module){.bytes = initrd->bytes};
    error = initrd->bytes == 0
                ? LOAM_ERROR_EXHAUSTED
                : boot_memory_carve_above(
                      carved, &wanted, loam_gpa_from_u64(state->image_start.value + state->image_bytes), &buffer, diag);
    if (error == LOAM_ERROR_EXHAUSTED) {
        return boot_memory_load_initrd(carved, initrd, wanted.limit, &module->start, diag); /* or it says why not */
    }
    if (error == LOAM_OK) {
        memcpy(buffer.hva, initrd->data, initrd->bytes);
        memset((uint8_t *)buffer.hva + initrd->bytes, 0, buffer.bytes - initrd->bytes);
        module->start = buffer.gpa;
    }
    return error;
}

/* --- Multiboot information ------------------------------------------------------------------------------------------ */

/* Appends to a buffer whose size was computed from the same parts; below 4 GiB. */
struct writer {
    uint8_t *hva;
    uint32_t gpa;
    uint32_t used_bytes;
};

static uint32_t append(struct writer *writer, const void *bytes, size_t count)
{
    uint32_t gpa = writer->gpa + writer->used_bytes;

    memcpy(writer->hva + writer->used_bytes, bytes, count);
    writer->used_bytes += (uint32_t)count;
    return gpa;
}

static uint32_t append_text(struct writer *writer, const char *text)
{
    return append(writer, text, strlen(text) + 1);
}

static const char *text_of(const struct boot_module *module)
{
    return module->command_line != NULL ? module->command_line : "";
}

static uint64_t parts_bytes(const struct parts *parts)
{
    uint64_t bytes = sizeof(struct boot_multiboot_info) + parts->module_count * sizeof(struct boot_multiboot_module) +
                     parts->memory_count * sizeof(struct boot_multiboot_memory) + sizeof LOADER_NAME +
                     strlen(parts->name) + 1 + strlen(parts->command_line) + 1;

    for (uint32_t i = 0; i < parts->module_count; i++) {
        bytes += strlen(text_of(&parts->modules[i])) + 1;
    }
    return bytes;
}

/* KiB of RAM from start on without a gap, up to end. */
static uint32_t ram_kib(const struct parts *parts, uint64_t start, uint64_t end)
{
    uint64_t at = start;

    for (uint32_t i = 0; i < parts->memory_count; i++) {
        const struct loam_e820_entry *e = &parts->memory[i];

        if (e->type == E820_RAM && e->start <= at && e->start + e->bytes > at) {
            at = e->start + e->bytes < end ? e->start + e->bytes : end;
        }
    }
    return (uint32_t)((at - start) / LOAM_KIB);
}

static void write_modules(struct writer *writer, const struct parts *parts, struct boot_multiboot_info *info)
{
    struct boot_multiboot_module modules[BOOT_MULTIBOOT_MODULE_MAX] = {{0}};

    info->module_count = parts->module_count;
    info->modules = writer->gpa + writer->used_bytes;
    writer->used_bytes += parts->module_count * (uint32_t)sizeof modules[0];
    for (uint32_t i = 0; i < parts->module_count; i++) {
        modules[i].start = (uint32_t)parts->modules[i].start.value;
        modules[i].end = (uint32_t)(parts->modules[i].start.value + parts->modules[i].bytes);
        modules[i].text = append_text(writer, text_of(&parts->modules[i]));
    }
    memcpy(writer->hva + (info->modules - writer->gpa), modules, parts->module_count * sizeof modules[0]);
}

/* Tables at multiples of 4, then texts. */
static void write_info(const struct parts *parts, const struct loam_dma_buffer *buffer)
{
    struct writer writer = {buffer->hva, (uint32_t)buffer->gpa.value, sizeof(struct boot_multiboot_info)};
    struct boot_multiboot_info info = {.flags = BOOT_MULTIBOOT_INFO_MEMORY | BOOT_MULTIBOOT_INFO_COMMAND_LINE |
                                                BOOT_MULTIBOOT_INFO_MODULES | BOOT_MULTIBOOT_INFO_MEMORY_MAP |
                                                BOOT_MULTIBOOT_INFO_LOADER};

    info.lower_kib = ram_kib(parts, 0, LOWER_MEMORY_BYTES);
    info.upper_kib = ram_kib(parts, UPPER_MEMORY_BYTES, LOAM_DMA32_END_BYTES);
    info.memory_map = writer.gpa + writer.used_bytes;
    info.memory_map_bytes = parts->memory_count * (uint32_t)sizeof(struct boot_multiboot_memory);
    for (uint32_t i = 0; i < parts->memory_count; i++) {
        const struct loam_e820_entry *e = &parts->memory[i];

        append(&writer,
               &(struct boot_multiboot_memory){sizeof(struct boot_multiboot_memory) - sizeof(uint32_t), e->start,
                                               e->bytes, e->type},
               sizeof(struct boot_multiboot_memory));
    }
    write_modules(&writer, parts, &info);
    info.loader = append_text(&writer, LOADER_NAME);
    info.command_line = append(&writer, parts->name, strlen(parts->name));
    append(&writer, " ", 1);
    append_text(&writer, parts->command_line);
    memcpy(buffer->hva, &info, sizeof info);
}

/* Where loaders have always put it, which kernels map first. */
static enum loam_error carve_info(struct boot_memory *carved, uint64_t bytes, struct loam_dma_buffer *buffer,
                                  struct loam_diag *diag)
{
    struct loam_dma_request wanted = {.owner = "multiboot", .bytes = bytes, .limit = {LOWER_MEMORY_BYTES}};
    enum loam_error error = boot_memory_carve_above(carved, &wanted, loam_gpa_from_u64(LOAM_FRAME_BYTES), buffer, diag);

    wanted.limit = loam_gpa_from_u64(INFO_LIMIT_BYTES);
    return error == LOAM_ERROR_EXHAUSTED ? boot_memory_carve_high(carved, &wanted, buffer, diag) : error;
}

static enum loam_error load_info(struct boot_memory *carved, const struct boot_request *request,
                                 struct boot_state *state, struct loam_diag *diag)
{
    const char *slash = strrchr(request->kernel.name, '/');
    struct parts parts = {.module_count = request->module_count,
                          .name = slash != NULL ? slash + 1 : request->kernel.name,
                          .command_line = request->command_line != NULL ? request->command_line : ""};
    struct loam_dma_buffer buffer;
    enum loam_error error;

    for (uint32_t i = 0; i < request->module_count; i++) {
        parts.modules[i] = request->modules[i];
    }
    error = load_initrd(carved, request, state, &parts, diag);
    if (error == LOAM_OK) {
        error = boot_memory_e820(carved, parts.memory, &parts.memory_count, diag);
    }
    if (error == LOAM_OK) {
        error = carve_info(carved, parts_bytes(&parts), &buffer, diag);
    }
    if (error == LOAM_OK) {
        write_info(&parts, &buffer);
        state->parameters = buffer.gpa;
    }
    return error;
}

/* --- All of it ------------------------------------------------------------------------------------------------------ */

enum loam_error boot_multiboot_load(struct loam_memory *memory, const struct boot_request *request,
                                    struct boot_state *state, struct loam_diag *diag)
{
    struct boot_multiboot_image image;
    struct boot_memory carved;
    enum loam_error error;

    *state = (struct boot_state){0};
    boot_memory_begin(&carved, memory);
    error = check_request(request, diag);
    if (error == LOAM_OK) {
        error = boot_multiboot_inspect(&request->kernel, &image, diag);
    }
    if (error == LOAM_OK) {
        error = boot_elf_load(&carved, &request->kernel, &image.image, state, diag);
    }
    if (error == LOAM_OK) {
        error = load_info(&carved, request, state, diag);
    }
    if (error != LOAM_OK) {
        boot_memory_undo(&carved);
        *state = (struct boot_state){0};
        return error;
    }
    state->protocol = BOOT_MULTIBOOT;
    state->entry = image.entry;
    state->wants_video = image.wants_video;
    state->command_line_kept = request->command_line != NULL ? (uint32_t)strlen(request->command_line) : 0;
    return LOAM_OK;
}
