// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/boot_play.h"

#include "loam/memory.h"
#include "vmm/boot_linux.h"
#include "vmm/boot_multiboot.h"
#include "vmm/boot_pvh.h"
#include "vmm/boot_vmlinux.h"

#include <string.h>

enum { CHOICE_BYTES = 4, OWN_MAX = 8 };

#define LOW_BYTES  (24 * LOAM_MIB)
#define HIGH_BYTES (8 * LOAM_MIB)

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

/* --- Inspection ------------------------------------------------------------------------------------------------------- */

/* Returns the way that is taken; NULL: it is refused. */
static const char *inspect(const struct boot_file *file)
{
    const size_t size = file->bytes;
    struct boot_linux_image linux_image;
    struct boot_multiboot_image multiboot_image;
    struct boot_elf_image elf_image;
    struct boot_way way;
    struct loam_diag diag = {0};
    uint64_t entry;
    bool is_taken = false;

    if (boot_pvh_inspect(file, &elf_image, &diag) == LOAM_OK) {
        check_elf(&elf_image, size);
        is_taken = true;
    }
    if (boot_vmlinux_inspect(file, &elf_image, &entry, &diag) == LOAM_OK) {
        check_elf(&elf_image, size);
        REQUIRE(boot_elf_holds(&elf_image, entry) && entry < LOAM_DMA32_END_BYTES);
        is_taken = true;
    }
    if (boot_multiboot_inspect(file, &multiboot_image, &diag) == LOAM_OK) {
        check_multiboot(&multiboot_image, size);
        is_taken = true;
    }
    if (boot_linux_inspect(file, &linux_image, &diag) == LOAM_OK) {
        check_linux(&linux_image, size);
        is_taken = true;
    }
    if (boot_detect(file, &way, &diag) != LOAM_OK) {
        return NULL;
    }
    REQUIRE(is_taken);
    return way.text;
}

/* --- Loading: into 24 MiB below 4 GiB and 8 MiB above, which start out without buffers ------------------------------------- */

static struct loam_memory *make_memory(void)
{
    const struct loam_memory_request request = {.bytes = LOW_BYTES + HIGH_BYTES,
                                                .low_limit_bytes = LOW_BYTES,
                                                .pages = LOAM_PAGES_4K,
                                                .commit = LOAM_COMMIT_LAZY};
    struct loam_memory *memory;
    struct loam_plan plan;

    REQUIRE(loam_plan_make(&request, &plan, NULL) == LOAM_OK);
    REQUIRE(loam_memory_create(&plan, &memory, NULL) == LOAM_OK);
    return memory;
}

static bool has_owner(struct loam_dma *dma, loam_gpa gpa)
{
    struct loam_dma_entry entry;

    return loam_dma_find(dma, gpa, &entry) == LOAM_OK;
}

/* Whatever the first vCPU begins with lies in what was carved. */
static void check_state(struct loam_dma *dma, const struct boot_state *state)
{
    loam_gpa entry = {state->entry};

    REQUIRE(state->protocol < BOOT_PROTOCOL_COUNT && has_owner(dma, entry) && has_owner(dma, state->parameters));
    REQUIRE(state->protocol != BOOT_LINUX || has_owner(dma, state->page_tables));
    REQUIRE((state->protocol != BOOT_LINUX && state->protocol != BOOT_LINUX_32) || has_owner(dma, state->descriptors));
    REQUIRE(state->image_bytes > 0 && entry.value - state->image_start.value < state->image_bytes);
}

/* What belongs to the memory itself, before anything is loaded. */
static struct {
    uint32_t count;
    uint64_t ids[OWN_MAX];
} own;

static bool is_own(uint64_t id)
{
    uint32_t i = 0;

    while (i < own.count && own.ids[i] != id) {
        i++;
    }
    return i < own.count;
}

static void note_own(struct loam_dma *dma)
{
    struct loam_dma_entry entry;

    for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        REQUIRE(own.count < OWN_MAX);
        own.ids[own.count++] = entry.buffer.id;
    }
}

static void release_loaded(struct loam_dma *dma)
{
    struct loam_dma_entry entry;

    for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        if (!is_own(entry.buffer.id)) {
            REQUIRE(loam_dma_release(dma, entry.buffer.id) == LOAM_OK);
        }
    }
    REQUIRE(loam_dma_count(dma) == own.count);
}

/* Lengths of an initrd and of a command line, how many modules, and where the tables are. */
static bool load(const struct boot_file *kernel, const uint8_t choices[CHOICE_BYTES])
{
    static struct loam_memory *memory;
    static char command_line[256 * 32 + 1], initrd[256 * 256];
    const struct boot_module modules[] = {{{0x1000}, 0x1000, "module"}, {{0x3000}, 1, NULL}};
    struct boot_request request = {.kernel = *kernel, .modules = modules, .module_count = choices[2] % 3u};
    struct boot_state state;
    struct loam_dma *dma;
    bool is_loaded;

    if (memory == NULL) {
        memory = make_memory();
        note_own(loam_memory_dma(memory));
    }
    dma = loam_memory_dma(memory);
    memset(command_line, 'x', sizeof command_line - 1);
    request.command_line = command_line + sizeof command_line - 1 - 32 * (size_t)choices[1];
    request.initrd = (struct boot_file){choices[0] > 0 ? initrd : NULL, 256 * (size_t)choices[0], "initrd"};
    request.rsdp = (loam_gpa){choices[3]};
    is_loaded = boot_load(memory, &request, &state, NULL) == LOAM_OK;
    if (is_loaded) {
        check_state(dma, &state);
    }
    REQUIRE(is_loaded || loam_dma_count(dma) == own.count);
    release_loaded(dma);
    return is_loaded;
}

const char *boot_play(const uint8_t *data, size_t size)
{
    uint8_t choices[CHOICE_BYTES] = {0};
    const char *way;
    struct boot_file file = {data, size, "fuzz"};

    if (size > CHOICE_BYTES) {
        file.bytes -= CHOICE_BYTES;
        memcpy(choices, data + file.bytes, CHOICE_BYTES);
    }
    way = inspect(&file);
    return load(&file, choices) ? way : NULL;
}
