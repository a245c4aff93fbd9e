// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_pvh.h"

#include "loam/dma.h"
#include "loam/gpa_map.h"
#include "vmm/boot_file.h"
#include "vmm/boot_kind.h"
#include "vmm/boot_memory.h"

#include <inttypes.h>
#include <string.h>

/*
 * Linux reads start_info's tables through the page tables it was built with, which map its first GiB
 * (arch/x86/platform/pvh: level2_ident_pgt).
 */
#define START_INFO_LIMIT_BYTES LOAM_GIB

/* --- The file ------------------------------------------------------------------------------------------------------ */

static enum loam_error check_entry(const struct boot_file *file, const struct boot_elf_image *image,
                                   struct loam_diag *diag)
{
    if (image->notes.entry == BOOT_NOTES_NO_ENTRY) {
        return boot_file_refuse(file, diag, "PVH note: there is none (PT_NOTE, name Xen, type 18)");
    }
    if (!boot_elf_holds(image, image->notes.entry)) {
        return boot_file_refuse(file, diag, "PVH note: the entry 0x%" PRIx64 " lies in no segment", image->notes.entry);
    }
    return LOAM_OK;
}

enum loam_error boot_pvh_inspect(const struct boot_file *file, struct boot_elf_image *image, struct loam_diag *diag)
{
    enum loam_error error = boot_elf_inspect(file, image, diag);

    if (error == LOAM_OK) {
        error = check_entry(file, image, diag);
    }
    if (error != LOAM_OK) {
        memset(image, 0, sizeof *image);
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
    loam_gpa rsdp;
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
    struct boot_pvh_start_info info = {.magic = BOOT_PVH_MAGIC, .version = BOOT_PVH_VERSION, .rsdp = parts->rsdp.value};

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

/* Whose kernel it is, is asked only where it matters: the file may be long. */
static uint32_t kept_of(const struct boot_request *request, const struct boot_elf_image *image)
{
    uint32_t length = request->command_line != NULL ? (uint32_t)strlen(request->command_line) : 0;

    return length > BOOT_PVH_LINUX_COMMAND_LINE && boot_elf_is_linux(&request->kernel, image)
               ? BOOT_PVH_LINUX_COMMAND_LINE
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
                                     .command_line = request->command_line != NULL ? request->command_line : "",
                                     .rsdp = request->rsdp};
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
    struct boot_elf_image image;
    enum loam_error error;

    *state = (struct boot_state){0};
    boot_memory_begin(&carved, memory);
    error = check_request(request, diag);
    if (error == LOAM_OK) {
        error = boot_pvh_inspect(&request->kernel, &image, diag);
    }
    if (error == LOAM_OK) {
        error = boot_elf_load(&carved, &request->kernel, &image, state, diag);
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
    return LOAM_OK;
}
