// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_linux.h"

#include "loam/dma.h"
#include "vmm/boot_file.h"
#include "vmm/boot_memory.h"

#include <inttypes.h>
#include <string.h>

#define SECTOR_BYTES      512u
#define PARAGRAPH_BYTES   16u
#define BOOT_FLAG         0xaa55u
#define HEADER_MAGIC      0x53726448u /* "HdrS" */
#define JUMP_SHORT        0xebu
#define JUMP_OFFSET       0x200u /* a two-byte jump over the rest of the header: its distance gives the header's end */
#define JUMP_END_OFFSET   0x202u
#define SETUP_SECTORS_OLD 4u /* what setup_sects 0 means */

/* The last field that is read here; the protocol's later ones are copied if the header has them. */
#define HEADER_END_MIN (BOOT_LINUX_HEADER_OFFSET + offsetof(struct setup_header, handover_offset))

/* --- The file ----------------------------------------------------------------------------------------------------- */

static enum loam_error check_version(const struct boot_file *file, const struct setup_header *header,
                                     struct loam_diag *diag)
{
    if (header->header == HEADER_MAGIC && header->version < BOOT_LINUX_VERSION_MIN) {
        return boot_file_refuse(
            file, diag,
            "version: boot protocol %u.%02u, and the 32-bit entry needs 2.10, the 64-bit entry 2.12: "
            "it is too old an image, or one that only looks like Linux (memdisk, a boot loader)",
            header->version >> 8, header->version & 0xffu);
    }
    return LOAM_OK;
}

static enum loam_error check_identity(const struct boot_file *file, const struct setup_header *header,
                                      struct loam_diag *diag)
{
    if (header->header != HEADER_MAGIC) {
        return boot_file_refuse(file, diag, "header: no HdrS at 0x202: no Linux image");
    }
    if (header->boot_flag != BOOT_FLAG) {
        return boot_file_refuse(file, diag, "boot_flag: 0x%04x, and a Linux image has 0xaa55", header->boot_flag);
    }
    if ((header->loadflags & LOADED_HIGH) == 0) {
        return boot_file_refuse(file, diag, "loadflags: 0x%02x lacks LOADED_HIGH: a zImage cannot be loaded",
                                header->loadflags);
    }
    return LOAM_OK;
}

/* Fetch the header, by its own length, once. */
static enum loam_error read_header(const struct boot_file *file, struct boot_linux_image *image, struct loam_diag *diag)
{
    const size_t jump = JUMP_OFFSET - BOOT_LINUX_HEADER_OFFSET;
    size_t there = file->bytes > BOOT_LINUX_HEADER_OFFSET ? file->bytes - BOOT_LINUX_HEADER_OFFSET : 0;
    struct setup_header header = {0};
    enum loam_error error;
    uint32_t end;

    there = there < sizeof image->header ? there : sizeof image->header; /* its room at most */
    if (there < HEADER_END_MIN - BOOT_LINUX_HEADER_OFFSET) {
        return boot_file_refuse(file, diag, "setup header: the file ends after %zu bytes, within it", file->bytes);
    }
    boot_file_read(file, BOOT_LINUX_HEADER_OFFSET, image->header, there);
    memcpy(&header, image->header, there < sizeof header ? there : sizeof header);
    error = check_version(file, &header, diag); /* an old header is short, too, and that is not what is wrong with it */
    if (error != LOAM_OK) {
        return error;
    }
    if (image->header[jump] != JUMP_SHORT) {
        return boot_file_refuse(file, diag, "jump: 0x%02x at 0x200 is no short jump", image->header[jump]);
    }
    end = JUMP_END_OFFSET + image->header[jump + 1];
    if (end < HEADER_END_MIN || end - BOOT_LINUX_HEADER_OFFSET > there) {
        return boot_file_refuse(
            file, diag,
            "jump: the setup header ends at 0x%x, not between 0x%zx (init_size) and 0x%zx (its room, or the file)", end,
            HEADER_END_MIN, BOOT_LINUX_HEADER_OFFSET + there);
    }
    image->header_bytes = end - BOOT_LINUX_HEADER_OFFSET;
    memset(image->header + image->header_bytes, 0, sizeof image->header - image->header_bytes);
    return LOAM_OK;
}

static enum loam_error locate_payload(const struct boot_file *file, const struct setup_header *header,
                                      struct boot_linux_image *image, struct loam_diag *diag)
{
    uint32_t sectors = header->setup_sects != 0 ? header->setup_sects : SETUP_SECTORS_OLD;
    uint64_t wanted = (uint64_t)header->syssize * PARAGRAPH_BYTES, found;

    image->payload_offset = (sectors + UINT64_C(1)) * SECTOR_BYTES;
    if (image->payload_offset >= file->bytes) {
        return boot_file_refuse(file, diag, "setup_sects: %u sectors of setup code fill the file's %zu bytes", sectors,
                                file->bytes);
    }
    found = file->bytes - image->payload_offset;
    if (wanted > loam_align_up(found, PARAGRAPH_BYTES)) {
        return boot_file_refuse(
            file, diag, "syssize: %" PRIu64 " bytes of kernel wanted, and the file holds %" PRIu64 ": is it cut?",
            wanted, found);
    }
    image->payload_bytes = wanted < found ? wanted : found;
    if (image->payload_bytes <= BOOT_LINUX_ENTRY_OFFSET) {
        return boot_file_refuse(file, diag, "syssize: %" PRIu64 " bytes of kernel do not reach its entry at 0x%x",
                                image->payload_bytes, BOOT_LINUX_ENTRY_OFFSET);
    }
    return LOAM_OK;
}

static enum loam_error check_placement(const struct boot_file *file, const struct setup_header *header,
                                       struct boot_linux_image *image, struct loam_diag *diag)
{
    if (image->init_bytes < image->payload_bytes) {
        return boot_file_refuse(file, diag, "init_size: 0x%" PRIx64 " bytes are less than the kernel's 0x%" PRIx64,
                                image->init_bytes, image->payload_bytes);
    }
    if (!loam_fits(image->pref_address, image->init_bytes, LOAM_DMA32_END_BYTES)) {
        return boot_file_refuse(file, diag, "pref_address: 0x%" PRIx64 " and init_size 0x%" PRIx64 " go beyond 4 GiB",
                                image->pref_address, image->init_bytes);
    }
    if (!image->relocatable && !loam_is_aligned(image->pref_address, LOAM_FRAME_BYTES)) {
        return boot_file_refuse(file, diag, "pref_address: 0x%" PRIx64 " is no multiple of 4 KiB", image->pref_address);
    }
    if (image->relocatable && !loam_is_power_of_two(header->kernel_alignment)) {
        return boot_file_refuse(file, diag, "kernel_alignment: 0x%" PRIx32 " is no power of two",
                                header->kernel_alignment);
    }
    return LOAM_OK;
}

static enum loam_error take_fields(const struct boot_file *file, const struct setup_header *header,
                                   struct boot_linux_image *image, struct loam_diag *diag)
{
    enum loam_error error = locate_payload(file, header, image, diag);

    if (error != LOAM_OK) {
        return error;
    }
    image->is_long = header->version >= BOOT_LINUX_VERSION_64 && (header->xloadflags & XLF_KERNEL_64) != 0;
    image->pref_address = header->pref_address;
    image->init_bytes = header->init_size;
    image->relocatable = header->relocatable_kernel != 0;
    image->command_line_max = header->cmdline_size;
    image->initrd_limit = (uint64_t)header->initrd_addr_max + 1;
    error = check_placement(file, header, image, diag);
    image->align_bytes = LOAM_FRAME_BYTES;
    if (image->relocatable && header->kernel_alignment > LOAM_FRAME_BYTES) {
        image->align_bytes = header->kernel_alignment;
    }
    return error;
}

enum loam_error boot_linux_inspect(const struct boot_file *file, struct boot_linux_image *image, struct loam_diag *diag)
{
    struct setup_header header;
    enum loam_error error;

    memset(image, 0, sizeof *image);
    error = read_header(file, image, diag);
    if (error == LOAM_OK) {
        memcpy(&header, image->header, sizeof header);
        error = check_identity(file, &header, diag);
    }
    if (error == LOAM_OK) {
        error = take_fields(file, &header, image, diag);
    }
    if (error != LOAM_OK) {
        memset(image, 0, sizeof *image);
    }
    return error;
}

/* --- The kernel's place ------------------------------------------------------------------------------------------- */

static enum loam_error carve_at(struct boot_memory *carved, const struct boot_linux_image *image, uint64_t start,
                                struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_dma_request request = {
        .owner = "kernel", .bytes = image->init_bytes, .at = {start}, .flags = LOAM_DMA_AT};

    return boot_memory_carve(carved, &request, buffer, diag);
}

/* The lowest free place at or above the preferred address and below 4 GiB. */
static enum loam_error carve_above(struct boot_memory *carved, const struct boot_linux_image *image,
                                   struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_dma_request request = {.owner = "kernel",
                                       .bytes = image->init_bytes,
                                       .align_bytes = image->align_bytes,
                                       .limit = {LOAM_DMA32_END_BYTES}};
    struct boot_memory_advice advice;
    enum loam_error error =
        boot_memory_carve_above(carved, &request, loam_gpa_from_u64(image->pref_address), buffer, diag);

    if (error != LOAM_ERROR_EXHAUSTED) {
        return error;
    }
    boot_memory_advise(carved->memory, loam_align_up(image->pref_address, image->align_bytes) + image->init_bytes,
                       &advice);
    return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                     "kernel: init_size 0x%" PRIx64 " bytes of free memory wanted, aligned to 0x%" PRIx64
                     ", from pref_address 0x%" PRIx64 " to 4 GiB, and there are none: %s",
                     image->init_bytes, image->align_bytes, image->pref_address, advice.text);
}

static enum loam_error load_kernel(struct boot_memory *carved, const struct boot_file *file,
                                   const struct boot_linux_image *image, struct boot_state *state,
                                   struct loam_diag *diag)
{
    struct loam_dma_buffer buffer;
    enum loam_error error = LOAM_ERROR_EXHAUSTED;

    if (loam_is_aligned(image->pref_address, image->align_bytes)) {
        error = carve_at(carved, image, image->pref_address, &buffer, diag);
    }
    if (error != LOAM_OK && error != LOAM_ERROR_SYSTEM && image->relocatable) {
        error = carve_above(carved, image, &buffer, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    boot_file_read(file, image->payload_offset, buffer.hva, image->payload_bytes);
    state->entry = buffer.gpa.value + (image->is_long ? BOOT_LINUX_ENTRY_OFFSET : 0);
    state->image_start = buffer.gpa;
    state->image_bytes = buffer.bytes;
    return LOAM_OK;
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

static enum loam_error load_all(struct boot_memory *carved, const struct boot_request *request,
                                const struct boot_linux_image *image, struct boot_state *state, struct loam_diag *diag)
{
    struct boot_zero_page zero_page = {.is_long = image->is_long,
                                       .header_bytes = image->header_bytes,
                                       .command_line_max = image->command_line_max,
                                       .initrd_limit = image->initrd_limit};
    enum loam_error error = load_kernel(carved, &request->kernel, image, state, diag);

    memcpy(zero_page.header, image->header, sizeof zero_page.header);
    return error == LOAM_OK ? boot_zero_page_load(carved, request, &zero_page, state, diag) : error;
}

enum loam_error boot_linux_load(struct loam_memory *memory, const struct boot_request *request,
                                struct boot_state *state, struct loam_diag *diag)
{
    struct boot_memory carved;
    struct boot_linux_image image;
    enum loam_error error;

    *state = (struct boot_state){0};
    boot_memory_begin(&carved, memory);
    if (request->module_count > 0) {
        error =
            loam_fail(diag, LOAM_ERROR_INVALID, "boot modules: %" PRIu32 " given, and the Linux boot protocol has none",
                      request->module_count);
    } else {
        error = boot_linux_inspect(&request->kernel, &image, diag);
    }
    if (error == LOAM_OK) {
        error = load_all(&carved, request, &image, state, diag);
    }
    if (error != LOAM_OK) {
        boot_memory_undo(&carved);
        *state = (struct boot_state){0};
        return error;
    }
    state->protocol = image.is_long ? BOOT_LINUX : BOOT_LINUX_32;
    state->command_line_kept = request->command_line != NULL ? (uint32_t)strlen(request->command_line) : 0;
    return LOAM_OK;
}
