// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_linux.h"

#include "loam/dma.h"
#include "loam/frame.h"
#include "loam/gpa_map.h"
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

static_assert(sizeof(struct setup_header) <= BOOT_LINUX_HEADER_ROOM, "the header has room in boot_params");
static_assert(BOOT_MEMORY_E820_MAX == E820_MAX_ENTRIES_ZEROPAGE, "every row has room in boot_params");

/* Page tables of x86-64: Intel SDM volume 3A, section 4.5. */
#define TABLE_ENTRIES   512u
#define DIRECTORY_COUNT 4u                    /* of 1 GiB each */
#define TABLE_COUNT     (2 + DIRECTORY_COUNT) /* with the PML4 and the directory pointers */
#define ENTRY_TABLE     UINT64_C(0x03)        /* present, writable */
#define ENTRY_LARGE     UINT64_C(0x83)        /* and a 2 MiB page */
#define LARGE_BYTES     (2 * LOAM_MIB)

/*
 * Before it has page tables of its own, Linux parks a page table and code in the two pages below the legacy
 * window (arch/x86/boot/compressed/pgtable_64.c). Ours take 24 KiB from a multiple of 64 KiB on, so they
 * are never there, not even when nothing is free above 1 MiB.
 */
#define TABLES_ALIGN_BYTES (64 * LOAM_KIB)

/* Segment descriptors: Intel SDM volume 3A, sections 3.4.5 and 7.2.3. Accessed and busy: none is ever written. */
#define DESCRIPTOR_CODE_64  UINT64_C(0x00af9b000000ffff)
#define DESCRIPTOR_DATA     UINT64_C(0x00cf93000000ffff)
#define DESCRIPTOR_COUNT    6u /* of 8 bytes; the TSS takes two */
#define TSS_OFFSET_BYTES    64u
#define TSS_BYTES           104u
#define TSS_IO_MAP_OFFSET   102u
#define DESCRIPTOR_TSS_BUSY UINT64_C(0x00008b0000000000)

/* --- The file ----------------------------------------------------------------------------------------------------- */

static enum loam_error check_version(const struct boot_file *file, const struct setup_header *header,
                                     struct loam_diag *diag)
{
    if (header->header == HEADER_MAGIC && header->version < BOOT_LINUX_VERSION_MIN) {
        return boot_file_refuse(file, diag,
                                "version: boot protocol %u.%02u, and the 64-bit entry needs 2.12: it is too old an "
                                "image, or one that only looks like Linux (memdisk, a boot loader)",
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
    if ((header->xloadflags & XLF_KERNEL_64) == 0) {
        return boot_file_refuse(file, diag,
                                "xloadflags: 0x%04x lacks XLF_KERNEL_64: it is a 32-bit kernel: take the 64-bit one",
                                header->xloadflags);
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
    const struct loam_frame *frame = loam_memory_frame(carved->memory);
    uint32_t shift = loam_frame_shift(frame);
    uint64_t from = loam_align_up(image->pref_address, image->align_bytes);
    struct boot_memory_advice advice;
    struct loam_frame_range range;

    while (from < LOAM_DMA32_END_BYTES &&
           loam_frame_next_free(frame, loam_pfn_from_gpa(loam_gpa_from_u64(from), shift), &range) == LOAM_OK) {
        uint64_t start = loam_align_up(loam_gpa_from_pfn(range.start, shift).value, image->align_bytes);

        if (loam_fits(start, image->init_bytes, LOAM_DMA32_END_BYTES) &&
            carve_at(carved, image, start, buffer, NULL) == LOAM_OK) {
            return LOAM_OK;
        }
        from = loam_gpa_from_pfn(loam_pfn_from_u64(range.start.value + range.count_frames), shift).value;
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
    state->entry = buffer.gpa.value + BOOT_LINUX_ENTRY_OFFSET;
    state->image_start = buffer.gpa;
    state->image_bytes = buffer.bytes;
    return LOAM_OK;
}

/* --- What lies beside it ------------------------------------------------------------------------------------------ */

static enum loam_error carve(struct boot_memory *carved, const char *owner, uint64_t bytes, uint64_t align_bytes,
                             struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_dma_request request = {
        .owner = owner, .bytes = bytes, .align_bytes = align_bytes, .limit = {LOAM_DMA32_END_BYTES}};

    return boot_memory_carve_high(carved, &request, buffer, diag);
}

/* One PML4 entry, four directories of 2 MiB pages: GPA = virtual address for the first 4 GiB. */
static enum loam_error load_page_tables(struct boot_memory *carved, struct boot_state *state, struct loam_diag *diag)
{
    struct loam_dma_buffer buffer;
    enum loam_error error =
        carve(carved, "page tables", TABLE_COUNT * LOAM_FRAME_BYTES, TABLES_ALIGN_BYTES, &buffer, diag);
    uint64_t(*tables)[TABLE_ENTRIES] = buffer.hva;

    if (error != LOAM_OK) {
        return error;
    }
    tables[0][0] = (buffer.gpa.value + LOAM_FRAME_BYTES) | ENTRY_TABLE;
    for (uint32_t i = 0; i < DIRECTORY_COUNT; i++) {
        tables[1][i] = (buffer.gpa.value + (2 + i) * LOAM_FRAME_BYTES) | ENTRY_TABLE;
    }
    for (uint32_t i = 0; i < DIRECTORY_COUNT * TABLE_ENTRIES; i++) {
        tables[2 + i / TABLE_ENTRIES][i % TABLE_ENTRIES] = i * LARGE_BYTES | ENTRY_LARGE;
    }
    state->page_tables = buffer.gpa;
    return LOAM_OK;
}

/* The TSS is empty: it is there because a processor in long mode has to have one. */
static enum loam_error load_descriptors(struct boot_memory *carved, struct boot_state *state, struct loam_diag *diag)
{
    struct loam_dma_buffer buffer;
    enum loam_error error = carve(carved, "descriptors", LOAM_FRAME_BYTES, 0, &buffer, diag);
    uint64_t *descriptors = buffer.hva, tss = buffer.gpa.value + TSS_OFFSET_BYTES;
    uint16_t io_map = TSS_BYTES;

    if (error != LOAM_OK) {
        return error;
    }
    descriptors[2] = DESCRIPTOR_CODE_64;
    descriptors[3] = DESCRIPTOR_DATA;
    /* Below 4 GiB: the upper half, in the next descriptor, stays 0. */
    descriptors[4] = DESCRIPTOR_TSS_BUSY | (TSS_BYTES - 1) | (tss & 0xffffff) << 16 | tss >> 24 << 56;
    memcpy((uint8_t *)buffer.hva + TSS_OFFSET_BYTES + TSS_IO_MAP_OFFSET, &io_map, sizeof io_map);
    state->descriptors = buffer.gpa;
    state->descriptor_count = DESCRIPTOR_COUNT;
    return LOAM_OK;
}

/* *length is within what the kernel takes and what can be carved. */
static enum loam_error check_command_line(const struct boot_request *request, const struct boot_linux_image *image,
                                          size_t *length, struct loam_diag *diag)
{
    *length = request->command_line != NULL ? strlen(request->command_line) : 0;
    if (*length > image->command_line_max) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "command line: %zu characters, and the kernel's cmdline_size allows %" PRIu32 ": shorten it",
                         *length, image->command_line_max);
    }
    return LOAM_OK;
}

static enum loam_error load_command_line(struct boot_memory *carved, const struct boot_request *request,
                                         const struct boot_linux_image *image, struct setup_header *header,
                                         struct loam_diag *diag)
{
    struct loam_dma_buffer buffer;
    size_t length;
    enum loam_error error = check_command_line(request, image, &length, diag);

    if (error == LOAM_OK) {
        error = carve(carved, "command line", length + 1, 0, &buffer, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    /* The buffer is zeroed: the line's end is there. */
    memcpy(buffer.hva, request->command_line != NULL ? request->command_line : "", length);
    header->cmd_line_ptr = (uint32_t)buffer.gpa.value;
    return LOAM_OK;
}

static enum loam_error load_initrd(struct boot_memory *carved, const struct boot_request *request,
                                   const struct boot_linux_image *image, struct setup_header *header,
                                   struct loam_diag *diag)
{
    loam_gpa limit = {loam_align_down(image->initrd_limit, LOAM_FRAME_BYTES)}, start;
    enum loam_error error;

    if (request->initrd.data == NULL) {
        return LOAM_OK;
    }
    if (limit.value == 0) {
        return boot_file_refuse(&request->kernel, diag, "initrd_addr_max: 0x%" PRIx64 " leaves no room for an initrd",
                                image->initrd_limit - 1);
    }
    error = boot_memory_load_initrd(carved, &request->initrd, limit, &start, diag);
    if (error == LOAM_OK) {
        header->ramdisk_image = (uint32_t)start.value;
        header->ramdisk_size = (uint32_t)request->initrd.bytes; /* it lies below 4 GiB */
    }
    return error;
}

/* --- Boot parameters ---------------------------------------------------------------------------------------------- */

static enum loam_error load_parameters(struct boot_memory *carved, const struct boot_linux_image *image,
                                       const struct setup_header *header, struct boot_state *state,
                                       struct loam_diag *diag)
{
    struct loam_e820_entry entries[BOOT_MEMORY_E820_MAX];
    struct boot_params parameters = {0};
    struct loam_dma_buffer buffer;
    uint32_t count;
    enum loam_error error = boot_memory_e820(carved, entries, &count, diag);

    if (error == LOAM_OK) {
        error = carve(carved, "boot parameters", sizeof parameters, 0, &buffer, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    memcpy((uint8_t *)&parameters + BOOT_LINUX_HEADER_OFFSET, image->header, image->header_bytes);
    parameters.hdr = *header;
    parameters.e820_entries = (uint8_t)count;
    error = loam_e820_write(entries, count, parameters.e820_table, sizeof parameters.e820_table);
    memcpy(buffer.hva, &parameters, sizeof parameters);
    state->parameters = buffer.gpa;
    return error;
}

/* The file's header with what is the loader's to say: nothing else of the file's is believed in those fields. */
static struct setup_header header_for_kernel(const struct boot_linux_image *image)
{
    struct setup_header header;

    memcpy(&header, image->header, sizeof header);
    header.type_of_loader = BOOT_LINUX_LOADER_UNKNOWN;
    header.ramdisk_image = 0;
    header.ramdisk_size = 0;
    header.setup_data = 0;
    return header;
}

static enum loam_error load_all(struct boot_memory *carved, const struct boot_request *request,
                                const struct boot_linux_image *image, struct boot_state *state, struct loam_diag *diag)
{
    struct setup_header header = header_for_kernel(image);
    enum loam_error error = load_kernel(carved, &request->kernel, image, state, diag);

    if (error == LOAM_OK) {
        error = load_initrd(carved, request, image, &header, diag); /* the largest gets the highest place */
    }
    if (error == LOAM_OK) {
        error = load_page_tables(carved, state, diag);
    }
    if (error == LOAM_OK) {
        error = load_descriptors(carved, state, diag);
    }
    if (error == LOAM_OK) {
        error = load_command_line(carved, request, image, &header, diag);
    }
    return error == LOAM_OK ? load_parameters(carved, image, &header, state, diag) : error;
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
    state->protocol = BOOT_LINUX;
    state->command_line_kept = request->command_line != NULL ? (uint32_t)strlen(request->command_line) : 0;
    return LOAM_OK;
}
