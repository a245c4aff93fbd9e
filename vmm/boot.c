// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot.h"

#include "vmm/boot_elf.h"
#include "vmm/boot_file.h"
#include "vmm/boot_kind.h"
#include "vmm/boot_linux.h"
#include "vmm/boot_multiboot.h"
#include "vmm/boot_pvh.h"
#include "vmm/boot_vmlinux.h"

#include <string.h>

#define LINUX_MAGIC        "HdrS"
#define LINUX_MAGIC_BYTES  4
#define LINUX_MAGIC_OFFSET 0x202u

static bool is_linux(const struct boot_file *file)
{
    char magic[LINUX_MAGIC_BYTES];

    return boot_file_read(file, LINUX_MAGIC_OFFSET, magic, sizeof magic) &&
           memcmp(magic, LINUX_MAGIC, sizeof magic) == 0;
}

static enum loam_error refuse_unknown(const struct boot_file *file, struct loam_diag *diag)
{
    unsigned char head[4] = {0};

    boot_file_read(file, 0, head, file->bytes < sizeof head ? file->bytes : sizeof head);
    return boot_file_refuse(file, diag,
                            "neither an ELF file, a multiboot image nor a Linux image, but %s (%zu bytes that start "
                            "%02x %02x %02x %02x)",
                            boot_kind_of_other(file), file->bytes, head[0], head[1], head[2], head[3]);
}

/* --- Ways ----------------------------------------------------------------------------------------------------------- */

static enum loam_error detect_multiboot(const struct boot_file *kernel, struct boot_way *way, struct loam_diag *diag)
{
    struct boot_multiboot_image image;
    enum loam_error error = boot_multiboot_inspect(kernel, &image, diag);

    *way = (struct boot_way){BOOT_MULTIBOOT, image.has_addresses ? "multiboot, address fields"
                                             : image.image.is_64 ? "multiboot, ELF64"
                                                                 : "multiboot, ELF32"};
    return error;
}

static enum loam_error detect_vmlinux(const struct boot_file *kernel, struct boot_way *way, struct loam_diag *diag)
{
    struct boot_elf_image image;
    uint64_t entry;

    *way = (struct boot_way){BOOT_LINUX, "ELF64, 64-bit Linux entry"};
    return boot_vmlinux_inspect(kernel, &image, &entry, diag);
}

static enum loam_error detect_linux(const struct boot_file *kernel, struct boot_way *way, struct loam_diag *diag)
{
    struct boot_linux_image image;
    enum loam_error error = boot_linux_inspect(kernel, &image, diag);

    *way = image.is_long ? (struct boot_way){BOOT_LINUX, "Linux image, 64-bit entry"}
                         : (struct boot_way){BOOT_LINUX_32, "Linux image, 32-bit entry"};
    return error;
}

/* A file that is ELF, and well-formed as far as its notes: by the note, if there is one. */
static enum loam_error detect_elf(const struct boot_file *kernel, struct boot_way *way, struct loam_diag *diag)
{
    struct boot_elf_image image;
    enum loam_error error = boot_elf_inspect(kernel, &image, diag);

    if (error != LOAM_OK) {
        return error;
    }
    if (image.notes.entry != BOOT_NOTES_NO_ENTRY) {
        *way = (struct boot_way){BOOT_PVH, image.is_64 ? "PVH, ELF64" : "PVH, ELF32"};
        return boot_pvh_inspect(kernel, &image, diag);
    }
    return boot_multiboot_is(kernel) ? detect_multiboot(kernel, way, diag) : detect_vmlinux(kernel, way, diag);
}

enum loam_error boot_detect(const struct boot_file *kernel, struct boot_way *way, struct loam_diag *diag)
{
    *way = (struct boot_way){BOOT_PVH, "none"};
    if (boot_elf_is(kernel)) {
        return detect_elf(kernel, way, diag);
    }
    if (is_linux(kernel)) {
        return detect_linux(kernel, way, diag);
    }
    return boot_multiboot_is(kernel) ? detect_multiboot(kernel, way, diag) : refuse_unknown(kernel, diag);
}

bool boot_is_without_interrupts(const struct boot_file *kernel)
{
    struct boot_elf_image image;

    return boot_elf_is(kernel) && boot_pvh_inspect(kernel, &image, NULL) == LOAM_OK && image.notes.without_interrupts;
}

enum loam_error boot_load(struct loam_memory *memory, const struct boot_request *request, struct boot_state *state,
                          struct loam_diag *diag)
{
    struct boot_way way;
    enum loam_error error = boot_detect(&request->kernel, &way, diag);

    *state = (struct boot_state){0};
    if (error != LOAM_OK) {
        return error;
    }
    switch (way.protocol) {
    case BOOT_PVH:
        return boot_pvh_load(memory, request, state, diag);
    case BOOT_MULTIBOOT:
        return boot_multiboot_load(memory, request, state, diag);
    default:
        return boot_elf_is(&request->kernel) ? boot_vmlinux_load(memory, request, state, diag)
                                             : boot_linux_load(memory, request, state, diag);
    }
}
