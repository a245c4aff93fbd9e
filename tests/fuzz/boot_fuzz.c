// SPDX-License-Identifier: Apache-2.0
/* libFuzzer: whatever the file holds, it is inspected without a crash, and what inspection promises is so. */
#include "vmm/boot_linux.h"
#include "vmm/boot_multiboot.h"
#include "vmm/boot_pvh.h"
#include "vmm/boot_vmlinux.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

static void check_elf(const struct boot_elf_image *image, size_t file_bytes)
{
    REQUIRE(image->segment_count >= 1 && image->segment_count <= BOOT_ELF_SEGMENT_MAX);
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct boot_elf_segment *s = &image->segments[i];

        REQUIRE(s->file_bytes <= s->memory_bytes && loam_gpa_range_valid(s->start, s->memory_bytes));
        REQUIRE(s->file_bytes == 0 || loam_fits(s->file_offset, s->file_bytes, file_bytes));
        REQUIRE(i == 0 || s[-1].start.value + s[-1].memory_bytes <= s->start.value);
    }
}

static void check_multiboot(const struct boot_multiboot_image *image, size_t file_bytes)
{
    const struct boot_elf_segment *last = &image->image.segments[image->image.segment_count - 1];

    check_elf(&image->image, file_bytes);
    REQUIRE(boot_elf_holds(&image->image, image->entry));
    REQUIRE(last->start.value + last->memory_bytes <= LOAM_DMA32_END_BYTES);
}

static void check_linux(const struct boot_linux_image *image, size_t file_bytes)
{
    REQUIRE(loam_fits(image->payload_offset, image->payload_bytes, file_bytes));
    REQUIRE(image->payload_bytes <= image->init_bytes && image->header_bytes <= sizeof image->header);
    REQUIRE(loam_fits(image->pref_address, image->init_bytes, LOAM_DMA32_END_BYTES));
    REQUIRE(loam_is_power_of_two(image->align_bytes) && image->align_bytes >= LOAM_FRAME_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct boot_file file = {data, size, "fuzz"};
    struct boot_linux_image linux_image;
    struct boot_multiboot_image multiboot_image;
    struct boot_elf_image elf_image;
    struct boot_way way;
    struct loam_diag diag = {0};
    uint64_t entry;
    bool is_taken = false;

    if (boot_pvh_inspect(&file, &elf_image, &diag) == LOAM_OK) {
        check_elf(&elf_image, size);
        is_taken = true;
    }
    if (boot_vmlinux_inspect(&file, &elf_image, &entry, &diag) == LOAM_OK) {
        check_elf(&elf_image, size);
        REQUIRE(boot_elf_holds(&elf_image, entry) && entry < LOAM_DMA32_END_BYTES);
        is_taken = true;
    }
    if (boot_multiboot_inspect(&file, &multiboot_image, &diag) == LOAM_OK) {
        check_multiboot(&multiboot_image, size);
        is_taken = true;
    }
    if (boot_linux_inspect(&file, &linux_image, &diag) == LOAM_OK) {
        check_linux(&linux_image, size);
        is_taken = true;
    }
    REQUIRE(boot_detect(&file, &way, &diag) != LOAM_OK || is_taken);
    return 0;
}
