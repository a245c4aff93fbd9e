// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot.h"

#include "vmm/boot_file.h"
#include "vmm/boot_linux.h"
#include "vmm/boot_pvh.h"

#include <elf.h>
#include <string.h>

#define LINUX_MAGIC        "HdrS"
#define LINUX_MAGIC_BYTES  4
#define LINUX_MAGIC_OFFSET 0x202u

static bool is_elf(const struct boot_file *file)
{
    unsigned char magic[SELFMAG];

    return boot_file_read(file, 0, magic, sizeof magic) && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static bool is_linux(const struct boot_file *file)
{
    char magic[LINUX_MAGIC_BYTES];

    return boot_file_read(file, LINUX_MAGIC_OFFSET, magic, sizeof magic) &&
           memcmp(magic, LINUX_MAGIC, sizeof magic) == 0;
}

/* What people hand over by mistake. */
static const struct {
    const char *bytes;
    const char *what;
} known_files[] = {
    {"\x1f\x8b", "a gzip file: unpack it first"},
    {"\xfd"
     "7zXZ",
     "an xz file: unpack it first"},
    {"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"},
    {"MZ", "an EFI program without a Linux header"},
    {"#!", "a script"},
    {"QFI\xfb", "a QCOW2 disk image"},
};

static enum loam_error refuse_unknown(const struct boot_file *file, struct loam_diag *diag)
{
    unsigned char head[8] = {0};
    const char *what = "something else";

    boot_file_read(file, 0, head, file->bytes < sizeof head ? file->bytes : sizeof head);
    for (size_t i = 0; i < sizeof known_files / sizeof known_files[0]; i++) {
        if (memcmp(head, known_files[i].bytes, strlen(known_files[i].bytes)) == 0) {
            what = known_files[i].what;
        }
    }
    if (file->bytes == 0) {
        what = "an empty file";
    }
    return boot_file_refuse(file, diag,
                            "neither an ELF file with a PVH note nor a Linux image, but %s (%zu bytes that start "
                            "%02x %02x %02x %02x)",
                            what, file->bytes, head[0], head[1], head[2], head[3]);
}

enum loam_error boot_detect(const struct boot_file *kernel, enum boot_protocol *protocol, struct loam_diag *diag)
{
    struct boot_pvh_image pvh;
    struct boot_linux_image linux_image;

    *protocol = BOOT_PVH;
    if (is_elf(kernel)) {
        return boot_pvh_inspect(kernel, &pvh, diag);
    }
    if (is_linux(kernel)) {
        *protocol = BOOT_LINUX;
        return boot_linux_inspect(kernel, &linux_image, diag);
    }
    return refuse_unknown(kernel, diag);
}

bool boot_is_without_interrupts(const struct boot_file *kernel)
{
    struct boot_pvh_image pvh;

    return is_elf(kernel) && boot_pvh_inspect(kernel, &pvh, NULL) == LOAM_OK && pvh.notes.without_interrupts;
}

enum loam_error boot_load(struct loam_memory *memory, const struct boot_request *request, struct boot_state *state,
                          struct loam_diag *diag)
{
    *state = (struct boot_state){0};
    if (is_elf(&request->kernel)) {
        return boot_pvh_load(memory, request, state, diag);
    }
    if (is_linux(&request->kernel)) {
        return boot_linux_load(memory, request, state, diag);
    }
    return refuse_unknown(&request->kernel, diag);
}
