// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_zero_page.h"

#include "loam/dma.h"
#include "loam/gpa_map.h"
#include "vmm/boot_file.h"
#include "vmm/boot_memory.h"

#include <inttypes.h>
#include <string.h>

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
#define DESCRIPTOR_CODE_32  UINT64_C(0x00cf9b000000ffff)
#define DESCRIPTOR_DATA     UINT64_C(0x00cf93000000ffff)
#define DESCRIPTOR_COUNT    6u /* of 8 bytes; the TSS takes two */
#define TSS_OFFSET_BYTES    64u
#define TSS_BYTES           104u
#define TSS_IO_MAP_OFFSET   102u
#define DESCRIPTOR_TSS_BUSY UINT64_C(0x00008b0000000000)

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
static enum loam_error load_descriptors(struct boot_memory *carved, bool is_long, struct boot_state *state,
                                        struct loam_diag *diag)
{
    struct loam_dma_buffer buffer;
    enum loam_error error = carve(carved, "descriptors", LOAM_FRAME_BYTES, 0, &buffer, diag);
    uint64_t *descriptors = buffer.hva, tss = buffer.gpa.value + TSS_OFFSET_BYTES;
    uint16_t io_map = TSS_BYTES;

    if (error != LOAM_OK) {
        return error;
    }
    descriptors[2] = is_long ? DESCRIPTOR_CODE_64 : DESCRIPTOR_CODE_32;
    descriptors[3] = DESCRIPTOR_DATA;
    /* Below 4 GiB: the upper half, in the next descriptor, stays 0. */
    descriptors[4] = DESCRIPTOR_TSS_BUSY | (TSS_BYTES - 1) | (tss & 0xffffff) << 16 | tss >> 24 << 56;
    memcpy((uint8_t *)buffer.hva + TSS_OFFSET_BYTES + TSS_IO_MAP_OFFSET, &io_map, sizeof io_map);
    state->descriptors = buffer.gpa;
    state->descriptor_count = DESCRIPTOR_COUNT;
    return LOAM_OK;
}

/* *length is within what the kernel takes and what can be carved. */
static enum loam_error check_command_line(const struct boot_request *request, const struct boot_zero_page *wanted,
                                          size_t *length, struct loam_diag *diag)
{
    *length = request->command_line != NULL ? strlen(request->command_line) : 0;
    if (*length > wanted->command_line_max) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "command line: %zu characters, and the kernel's cmdline_size allows %" PRIu32 ": shorten it",
                         *length, wanted->command_line_max);
    }
    return LOAM_OK;
}

static enum loam_error load_command_line(struct boot_memory *carved, const struct boot_request *request,
                                         const struct boot_zero_page *wanted, struct setup_header *header,
                                         struct loam_diag *diag)
{
    struct loam_dma_buffer buffer;
    size_t length;
    enum loam_error error = check_command_line(request, wanted, &length, diag);

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
                                   const struct boot_zero_page *wanted, struct setup_header *header,
                                   struct loam_diag *diag)
{
    loam_gpa limit = {loam_align_down(wanted->initrd_limit, LOAM_FRAME_BYTES)}, start;
    enum loam_error error;

    if (request->initrd.data == NULL) {
        return LOAM_OK;
    }
    if (limit.value == 0) {
        return boot_file_refuse(&request->kernel, diag, "initrd_addr_max: 0x%" PRIx64 " leaves no room for an initrd",
                                wanted->initrd_limit - 1);
    }
    error = boot_memory_load_initrd(carved, &request->initrd, limit, &start, diag);
    if (error == LOAM_OK) {
        header->ramdisk_image = (uint32_t)start.value;
        header->ramdisk_size = (uint32_t)request->initrd.bytes; /* it lies below 4 GiB */
    }
    return error;
}

/* --- Boot parameters ---------------------------------------------------------------------------------------------- */

static enum loam_error load_parameters(struct boot_memory *carved, const struct boot_request *request,
                                       const struct boot_zero_page *wanted, const struct setup_header *header,
                                       struct boot_state *state, struct loam_diag *diag)
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
    memcpy((uint8_t *)&parameters + BOOT_LINUX_HEADER_OFFSET, wanted->header, wanted->header_bytes);
    parameters.hdr = *header;
    parameters.acpi_rsdp_addr = request->rsdp.value;
    parameters.e820_entries = (uint8_t)count;
    error = loam_e820_write(entries, count, parameters.e820_table, sizeof parameters.e820_table);
    memcpy(buffer.hva, &parameters, sizeof parameters);
    state->parameters = buffer.gpa;
    return error;
}

/* The file's header with what is the loader's to say: nothing else of the file's is believed in those fields. */
static struct setup_header header_for_kernel(const struct boot_zero_page *wanted)
{
    struct setup_header header;

    memcpy(&header, wanted->header, sizeof header);
    header.type_of_loader = BOOT_LINUX_LOADER_UNKNOWN;
    header.ramdisk_image = 0;
    header.ramdisk_size = 0;
    header.setup_data = 0;
    return header;
}

enum loam_error boot_zero_page_load(struct boot_memory *carved, const struct boot_request *request,
                                    const struct boot_zero_page *wanted, struct boot_state *state,
                                    struct loam_diag *diag)
{
    struct setup_header header = header_for_kernel(wanted);
    enum loam_error error =
        load_initrd(carved, request, wanted, &header, diag); /* the largest gets the highest place */

    if (error == LOAM_OK && wanted->is_long) {
        error = load_page_tables(carved, state, diag);
    }
    if (error == LOAM_OK) {
        error = load_descriptors(carved, wanted->is_long, state, diag);
    }
    if (error == LOAM_OK) {
        error = load_command_line(carved, request, wanted, &header, diag);
    }
    return error == LOAM_OK ? load_parameters(carved, request, wanted, &header, state, diag) : error;
}
