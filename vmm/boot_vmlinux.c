// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_vmlinux.h"

#include "vmm/boot_file.h"
#include "vmm/boot_kind.h"
#include "vmm/boot_memory.h"
#include "vmm/boot_zero_page.h"

#include <inttypes.h>
#include <string.h>

#define BOOT_FLAG        0xaa55u
#define HEADER_MAGIC     0x53726448u /* "HdrS" */
#define HEADER_VERSION   0x020cu
#define KERNEL_ALIGNMENT 0x1000000u /* what Linux is built with by itself */

/* Why a file without note and header is not entered at e_entry; NULL: it is. */
static const char *other_kind(const struct boot_file *file, const struct boot_elf_image *image)
{
    const char *other = boot_kind_of_elf(file);

    if (other != NULL) {
        return other;
    }
    if (!image->is_64) {
        return boot_elf_is_linux(file, image) ? "it is a 32-bit Linux kernel: give its bzImage"
                                              : "nothing says how 32-bit code is entered: give it one of the two";
    }
    return image->entry == 0 ? "and e_entry is 0, which is none: give it an entry" : NULL;
}

static enum loam_error check_entry(const struct boot_file *file, const struct boot_elf_image *image, uint64_t *entry,
                                   struct loam_diag *diag)
{
    const char *other = other_kind(file, image);

    if (other != NULL) {
        return boot_file_refuse(file, diag,
                                "ELF%u without PVH note (PT_NOTE, name Xen, type 18) and without multiboot header: %s",
                                image->is_64 ? 64 : 32, other);
    }
    if (!boot_elf_entry(image, entry)) {
        return boot_file_refuse(file, diag, "e_entry: 0x%" PRIx64 " lies in no segment", image->entry);
    }
    if (*entry >= LOAM_DMA32_END_BYTES) {
        return boot_file_refuse(file, diag,
                                "e_entry: 0x%" PRIx64 " lies beyond 4 GiB, which is all that is mapped there", *entry);
    }
    return LOAM_OK;
}

enum loam_error boot_vmlinux_inspect(const struct boot_file *file, struct boot_elf_image *image, uint64_t *entry,
                                     struct loam_diag *diag)
{
    enum loam_error error = boot_elf_inspect(file, image, diag);

    *entry = 0;
    if (error == LOAM_OK) {
        error = check_entry(file, image, entry, diag);
    }
    if (error != LOAM_OK) {
        memset(image, 0, sizeof *image);
        *entry = 0;
    }
    return error;
}

/* The header of a bzImage that is not there: what a kernel still reads of it. */
static struct boot_zero_page zero_page_of(void)
{
    struct boot_zero_page zero_page = {.is_long = true,
                                       .header_bytes = sizeof(struct setup_header),
                                       .command_line_max = BOOT_VMLINUX_COMMAND_LINE_MAX,
                                       .initrd_limit = LOAM_DMA32_END_BYTES};
    struct setup_header header = {.boot_flag = BOOT_FLAG,
                                  .header = HEADER_MAGIC,
                                  .version = HEADER_VERSION,
                                  .loadflags = LOADED_HIGH,
                                  .kernel_alignment = KERNEL_ALIGNMENT,
                                  .cmdline_size = BOOT_VMLINUX_COMMAND_LINE_MAX,
                                  .xloadflags = XLF_KERNEL_64};

    memcpy(zero_page.header, &header, sizeof header);
    return zero_page;
}

enum loam_error boot_vmlinux_load(struct loam_memory *memory, const struct boot_request *request,
                                  struct boot_state *state, struct loam_diag *diag)
{
    struct boot_zero_page zero_page = zero_page_of();
    struct boot_elf_image image;
    struct boot_memory carved;
    enum loam_error error = LOAM_OK;
    uint64_t entry = 0;

    *state = (struct boot_state){0};
    boot_memory_begin(&carved, memory);
    if (request->module_count > 0) {
        error =
            loam_fail(diag, LOAM_ERROR_INVALID, "boot modules: %" PRIu32 " given, and the Linux boot protocol has none",
                      request->module_count);
    }
    if (error == LOAM_OK) {
        error = boot_vmlinux_inspect(&request->kernel, &image, &entry, diag);
    }
    if (error == LOAM_OK) {
        error = boot_elf_load(&carved, &request->kernel, &image, state, diag);
    }
    if (error == LOAM_OK) {
        error = boot_zero_page_load(&carved, request, &zero_page, state, diag);
    }
    if (error != LOAM_OK) {
        boot_memory_undo(&carved);
        *state = (struct boot_state){0};
        return error;
    }
    state->protocol = BOOT_LINUX;
    state->entry = entry;
    state->command_line_kept = request->command_line != NULL ? (uint32_t)strlen(request->command_line) : 0;
    return LOAM_OK;
}
