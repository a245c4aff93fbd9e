// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_linux.h"

#include "tests/support/heap.h"
#include "tests/vmm/boot_fixture.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMTEST "/boot/memtest86+x64.bin"

/* The good image: two setup sectors, a kernel, and 8 bytes behind it that syssize leaves out. */
#define SETUP_BYTES      0x600u
#define KERNEL_BYTES     0x958u
#define SYSSIZE          0x95u /* paragraphs */
#define IMAGE_BYTES      (SETUP_BYTES + KERNEL_BYTES)
#define LOADED_BYTES     (SYSSIZE * 16u)
#define HEADER_END       0x26cu /* version 2.15 */
#define PREF             0x400000u
#define INIT_BYTES       0x20000u
#define ALIGN            0x200000u
#define COMMAND_LINE_MAX 64u

#define FIELD(name) (0x1f1 + offsetof(struct setup_header, name)), sizeof((struct setup_header *)0)->name
#define JUMP_END    0x201, 1

static void build_image(uint8_t image[IMAGE_BYTES])
{
    struct setup_header header = {.setup_sects = SETUP_BYTES / 512 - 1,
                                  .syssize = SYSSIZE,
                                  .boot_flag = 0xaa55,
                                  .jump = (HEADER_END - 0x202) << 8 | 0xeb,
                                  .header = 0x53726448,
                                  .version = 0x20f,
                                  .loadflags = LOADED_HIGH,
                                  .ramdisk_image = 0x11111111,
                                  .ramdisk_size = 0x22222222,
                                  .cmd_line_ptr = 0x33333333,
                                  .setup_data = 0x4444444444444444,
                                  .initrd_addr_max = 0x7fffffff,
                                  .kernel_alignment = ALIGN,
                                  .relocatable_kernel = 1,
                                  .xloadflags = XLF_KERNEL_64,
                                  .cmdline_size = COMMAND_LINE_MAX,
                                  .pref_address = PREF,
                                  .init_size = INIT_BYTES,
                                  .kernel_info_offset = 0x55555555};

    for (size_t i = 0; i < IMAGE_BYTES; i++) {
        image[i] = fixture_byte(i);
    }
    memcpy(image + 0x1f1, &header, sizeof header);
}

static enum loam_error inspect(const void *bytes, size_t size, struct boot_linux_image *image, struct loam_diag *diag)
{
    struct boot_file file = fixture_file(bytes, size, "test.bin");
    enum loam_error error = boot_linux_inspect(&file, image, diag);

    fixture_file_free(&file);
    return error;
}

/* The equations above struct boot_linux_image. */
static void check_image(const struct boot_linux_image *image, size_t file_bytes)
{
    cr_assert(loam_fits(image->payload_offset, image->payload_bytes, file_bytes));
    cr_assert(image->payload_bytes > 0x200 && image->payload_bytes <= image->init_bytes);
    cr_assert(loam_fits(image->pref_address, image->init_bytes, LOAM_DMA32_END_BYTES));
    cr_assert(loam_is_power_of_two(image->align_bytes) && image->align_bytes >= LOAM_FRAME_BYTES);
    cr_assert(image->relocatable || image->pref_address % LOAM_FRAME_BYTES == 0);
    cr_assert(image->header_bytes >= 0x264 - 0x1f1 && image->header_bytes <= sizeof image->header);
}

/* --- Inspection --------------------------------------------------------------------------------------------------- */

Test(boot_linux, inspect_reads_the_header)
{
    uint8_t bytes[IMAGE_BYTES];
    struct boot_linux_image image;
    struct loam_diag diag = {0};

    build_image(bytes);
    cr_assert_eq(inspect(bytes, sizeof bytes, &image, &diag), LOAM_OK, "%s", diag.text);
    check_image(&image, sizeof bytes);
    cr_assert_eq(image.header_bytes, HEADER_END - 0x1f1);
    cr_assert_arr_eq(image.header, bytes + 0x1f1, HEADER_END - 0x1f1);
    cr_assert_eq(image.header[HEADER_END - 0x1f1], 0);
    cr_assert_eq(image.payload_offset, SETUP_BYTES);
    cr_assert_eq(image.payload_bytes, LOADED_BYTES);
    cr_assert_eq(image.pref_address, PREF);
    cr_assert_eq(image.init_bytes, INIT_BYTES);
    cr_assert_eq(image.align_bytes, ALIGN);
    cr_assert(image.relocatable);
    cr_assert_eq(image.command_line_max, COMMAND_LINE_MAX);
    cr_assert_eq(image.initrd_limit, 0x80000000);
}

/* A header as short and as long as there may be; 0 setup sectors for 4; syssize rounded up; odd but harmless fields. */
static const struct fixture_case accepted[] = {
    {"header up to init_size", "", {{JUMP_END, 0x264 - 0x202}}, 0},
    {"header that fills its room", "", {{JUMP_END, 0x290 - 0x202}}, 0},
    {"version 2.12", "", {{FIELD(version), 0x20c}}, 0},
    {"setup_sects 0 is 4", "", {{FIELD(setup_sects), 0}, {FIELD(syssize), (IMAGE_BYTES - 0xa00 + 15) / 16}}, 0},
    {"syssize rounded up", "", {{FIELD(syssize), SYSSIZE + 1}}, 0},
    {"file cut in the last paragraph", "", {{FIELD(syssize), SYSSIZE}}, IMAGE_BYTES - 8 - 15},
    {"fixed, and alignment 0", "", {{FIELD(relocatable_kernel), 0}, {FIELD(kernel_alignment), 0}}, 0},
    {"relocatable, and pref_address odd", "", {{FIELD(pref_address), 0x400001}}, 0},
    {"up to 4 GiB exactly", "", {{FIELD(pref_address), 0x100000000 - INIT_BYTES}}, 0},
    {"init_size of the kernel exactly", "", {{FIELD(init_size), LOADED_BYTES}}, 0},
    {"alignment of a byte", "", {{FIELD(kernel_alignment), 1}}, 0},
};

Test(boot_linux, inspect_takes_odd_but_sound_images)
{
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        uint8_t bytes[IMAGE_BYTES];
        size_t size = sizeof bytes;
        struct boot_linux_image image;
        struct loam_diag diag = {0};

        build_image(bytes);
        fixture_apply(bytes, &size, &accepted[i]);
        cr_assert_eq(inspect(bytes, size, &image, &diag), LOAM_OK, "%s: %s", accepted[i].name, diag.text);
        check_image(&image, size);
    }
}

static const struct fixture_case hostile[] = {
    {"one byte", "setup header", {{0}}, 1},
    {"cut before the header", "setup header", {{0}}, 0x1f1},
    {"cut before the magic", "setup header", {{0}}, 0x202},
    {"cut within init_size", "setup header", {{0}}, 0x263},
    {"cut within the header's tail", "jump", {{0}}, HEADER_END - 1},
    {"no magic", "HdrS", {{FIELD(header), 0x53726449}}, 0},
    {"no boot flag", "boot_flag", {{FIELD(boot_flag), 0x55aa}}, 0},
    {"version 0", "version", {{FIELD(version), 0}}, 0},
    {"version 2.09", "version", {{FIELD(version), 0x209}}, 0},
    {"no jump", "jump", {{0x200, 1, 0xe9}}, 0},
    {"header of no bytes", "jump", {{JUMP_END, 0}}, 0},
    {"header that ends within init_size", "jump", {{JUMP_END, 0x263 - 0x202}}, 0},
    {"header beyond its room", "jump", {{JUMP_END, 0x291 - 0x202}}, 0},
    {"header of 255 bytes", "jump", {{JUMP_END, 0xff}}, 0},
    {"memdisk: old, and its header is short for that",
     "version: boot protocol 2.03",
     {{FIELD(version), 0x203}, {JUMP_END, 0x20}},
     0},
    {"zImage", "LOADED_HIGH", {{FIELD(loadflags), 0xfe}}, 0},
    {"setup code of 255 sectors", "setup_sects", {{FIELD(setup_sects), 255}}, 0},
    {"setup code that fills the file", "setup_sects", {{FIELD(setup_sects), 2}}, SETUP_BYTES},
    {"cut within the setup code", "setup_sects", {{FIELD(setup_sects), 2}}, SETUP_BYTES - 1},
    {"kernel of no bytes", "syssize", {{FIELD(syssize), 0}}, 0},
    {"kernel that does not reach its entry", "syssize", {{FIELD(syssize), 0x20}}, 0},
    {"kernel of 64 GiB", "syssize", {{FIELD(syssize), UINT32_MAX}}, 0},
    {"kernel a paragraph longer than the file", "syssize", {{FIELD(syssize), SYSSIZE + 2}}, 0},
    {"kernel cut by a paragraph", "syssize", {{0}}, IMAGE_BYTES - 8 - 16},
    {"kernel cut at its entry", "syssize", {{0}}, SETUP_BYTES + 0x200},
    {"init_size 0", "init_size", {{FIELD(init_size), 0}}, 0},
    {"init_size below the kernel's", "init_size", {{FIELD(init_size), LOADED_BYTES - 1}}, 0},
    {"init_size of 4 GiB", "init_size", {{FIELD(init_size), UINT32_MAX}}, 0},
    {"pref_address a byte too high", "pref_address", {{FIELD(pref_address), 0x100000001 - INIT_BYTES}}, 0},
    {"pref_address above 4 GiB", "pref_address", {{FIELD(pref_address), 0x100000000}}, 0},
    {"pref_address wraps", "pref_address", {{FIELD(pref_address), UINT64_MAX - INIT_BYTES + 1}}, 0},
    {"fixed at an odd address", "pref_address", {{FIELD(relocatable_kernel), 0}, {FIELD(pref_address), 0x400800}}, 0},
    {"kernel_alignment 0", "kernel_alignment", {{FIELD(kernel_alignment), 0}}, 0},
    {"kernel_alignment 3", "kernel_alignment", {{FIELD(kernel_alignment), 3}}, 0},
    {"kernel_alignment of all ones", "kernel_alignment", {{FIELD(kernel_alignment), UINT32_MAX}}, 0},
};

/* Well formed, and refused by loading into the fixture's memory. */
static const struct fixture_case misplaced[] = {
    {"fixed at the null frame", "[0x0, ", {{FIELD(relocatable_kernel), 0}, {FIELD(pref_address), 0}}, 0},
    {"fixed over the legacy window", "[0x90000, ", {{FIELD(relocatable_kernel), 0}, {FIELD(pref_address), 0x90000}}, 0},
    {"fixed beyond low RAM", "[0x1800000, ", {{FIELD(relocatable_kernel), 0}, {FIELD(pref_address), 0x1800000}}, 0},
    {"fixed across the end of RAM",
     "[0x17f0000, ",
     {{FIELD(relocatable_kernel), 0}, {FIELD(pref_address), 0x17f0000}},
     0},
    {"fixed in the hole", "[0xd0000000, ", {{FIELD(relocatable_kernel), 0}, {FIELD(pref_address), 0xd0000000}}, 0},
    {"relocatable, from beyond low RAM", "pref_address", {{FIELD(pref_address), 0x1800000}}, 0},
    {"relocatable, and too large",
     "init_size 0x1800000 bytes of free memory wanted, aligned to 0x200000, from pref_address 0x400000 to 4 GiB, and "
     "there are none: RAM below 4 GiB ends at 24 MiB: raise --low-limit to 28M",
     {{FIELD(init_size), 0x1800000}},
     0},
    {"relocatable, and aligned to 1 GiB", "aligned to 0x40000000", {{FIELD(kernel_alignment), 0x40000000}}, 0},
};

Test(boot_linux, inspect_refuses_hostile_images)
{
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        uint8_t bytes[IMAGE_BYTES];
        size_t size = sizeof bytes;
        struct boot_linux_image image;
        struct loam_diag diag = {0};

        build_image(bytes);
        fixture_apply(bytes, &size, &hostile[i]);
        fixture_check_refusal(hostile[i].name, inspect(bytes, size, &image, &diag), &diag, hostile[i].expected);
        cr_assert_eq(inspect(bytes, size, &image, NULL), LOAM_ERROR_INVALID);
        cr_assert(image.payload_bytes == 0 && image.header_bytes == 0, "%s", hostile[i].name);
    }
}

/* All that is needed is there from the last whole paragraph on. */
Test(boot_linux, inspect_refuses_every_truncation)
{
    uint8_t bytes[IMAGE_BYTES];

    build_image(bytes);
    for (size_t size = 0; size < sizeof bytes; size++) {
        struct loam_diag diag = {0};
        struct boot_linux_image image;
        enum loam_error error = inspect(bytes, size, &image, &diag);

        if (size > SETUP_BYTES + (SYSSIZE - 1) * 16) {
            cr_assert_eq(error, LOAM_OK, "%zu: %s", size, diag.text);
        } else {
            fixture_check_refusal("cut", error, &diag, "kernel test.bin: ");
        }
    }
}

static enum loam_error judge(const uint8_t *bytes, size_t size)
{
    struct loam_diag diag = {0};
    struct boot_linux_image image;
    enum loam_error error = inspect(bytes, size, &image, &diag);

    if (error == LOAM_OK) {
        check_image(&image, size);
    } else {
        fixture_check_refusal("mutated", error, &diag, "kernel test.bin: ");
    }
    return error;
}

Test(boot_linux, inspect_survives_every_bit_flip_in_the_header)
{
    uint8_t bytes[IMAGE_BYTES];
    uint32_t count = 0;

    build_image(bytes);
    for (size_t bit = 0x1f1 * 8; bit < 0x290 * 8; bit++) {
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
        count += judge(bytes, sizeof bytes) == LOAM_OK;
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
    }
    cr_assert(count > 100 && count < (0x290 - 0x1f1) * 8);
}

static void mutate(uint8_t *bytes, struct random *random)
{
    static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff};
    uint64_t count = 1 + random_u64(random) % 4;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t r = random_u64(random);
        size_t at = 0x1f1 + r % (0x270 - 0x1f1);

        bytes[at] = (r >> 32 & 1) != 0 ? edges[(r >> 33) % sizeof edges] : (uint8_t)(r >> 40);
    }
}

Test(boot_linux, inspect_survives_100000_random_mutations)
{
    uint64_t seed = UINT64_C(0x6c696e31);
    struct random random = {seed};
    uint8_t good[IMAGE_BYTES], bytes[IMAGE_BYTES];
    uint32_t count = 0;

    build_image(good);
    for (uint32_t i = 0; i < 100000; i++) {
        memcpy(bytes, good, sizeof bytes);
        mutate(bytes, &random);
        count += judge(bytes, sizeof bytes) == LOAM_OK;
    }
    cr_assert(count > 1000 && count < 99000, "seed %" PRIu64 ": %u accepted", seed, count);
}

/* --- A stranger's image ------------------------------------------------------------------------------------------- */

/* data NULL where Debian's package is not installed. */
static struct boot_file read_memtest(void)
{
    struct boot_file file = {NULL, 0, MEMTEST};
    int fd = open(MEMTEST, O_RDONLY | O_CLOEXEC);
    struct stat status;

    if (fd >= 0 && fstat(fd, &status) == 0) {
        void *bytes = malloc((size_t)status.st_size);

        cr_assert_not_null(bytes);
        cr_assert_eq(read(fd, bytes, (size_t)status.st_size), status.st_size);
        file.data = bytes;
        file.bytes = (size_t)status.st_size;
    }
    if (fd >= 0) {
        close(fd);
    }
    return file;
}

Test(boot_linux, inspect_takes_memtest86)
{
    struct boot_file file = read_memtest();
    struct boot_linux_image image;
    struct loam_diag diag = {0};

    if (file.data == NULL) {
        cr_skip("no " MEMTEST);
    }
    cr_assert_eq(boot_linux_inspect(&file, &image, &diag), LOAM_OK, "%s", diag.text);
    check_image(&image, file.bytes);
    cr_assert_eq(image.pref_address, LOAM_MIB);
    cr_assert_not(image.relocatable);
    fixture_file_free(&file);
}

/* --- Loading ------------------------------------------------------------------------------------------------------ */

static struct loam_memory *memory;

static void setup(void)
{
    memory = fixture_memory();
}

static void teardown(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
    loam_memory_destroy(memory);
}

TestSuite(boot_linux_load, .init = setup, .fini = teardown);

static bool all_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

static uint64_t read_entry(uint64_t table, uint64_t index)
{
    return *(const uint64_t *)fixture_hva(memory, table + index * 8, 8);
}

/* What a processor would make of an address; UINT64_MAX: not mapped for writing. */
static uint64_t walk(uint64_t pml4, uint64_t address)
{
    uint64_t entry = read_entry(pml4, address >> 39 & 511);

    if ((entry & 3) != 3) {
        return UINT64_MAX;
    }
    entry = read_entry(entry & UINT64_C(0xffffffffff000), address >> 30 & 511);
    if ((entry & 3) != 3 || (entry & 0x80) != 0) {
        return UINT64_MAX;
    }
    entry = read_entry(entry & UINT64_C(0xffffffffff000), address >> 21 & 511);
    if ((entry & 0x83) != 0x83) {
        return UINT64_MAX;
    }
    return (entry & UINT64_C(0xfffffffe00000)) | (address & 0x1fffff);
}

static void check_page_tables(const struct boot_state *state)
{
    uint64_t pml4 = state->page_tables.value;

    cr_assert_eq(pml4 % 4096, 0);
    for (uint64_t address = 0; address < 4 * LOAM_GIB; address += LOAM_MIB) {
        cr_assert_eq(walk(pml4, address), address);
        cr_assert_eq(walk(pml4, address + 0xfffff), address + 0xfffff);
    }
    cr_assert_eq(walk(pml4, state->entry), state->entry);
    cr_assert_eq(walk(pml4, 4 * LOAM_GIB), UINT64_MAX);
    cr_assert_eq(walk(pml4, UINT64_C(1) << 39), UINT64_MAX);
    cr_assert_eq(walk(pml4, UINT64_C(0xffff800000000000)), UINT64_MAX);
}

static void check_descriptors(const struct boot_state *state)
{
    const uint64_t *gdt = fixture_hva(memory, state->descriptors.value, 8 * 6);
    uint64_t tss = (gdt[4] >> 16 & 0xffffff) | (gdt[4] >> 56) << 24 | gdt[5] << 32;
    const uint8_t *bytes = fixture_hva(memory, tss, 104);

    cr_assert_eq(state->descriptor_count, 6);
    cr_assert(gdt[0] == 0 && gdt[1] == 0);
    cr_assert_eq(gdt[2], 0x00af9b000000ffff, "present, ring 0, code, 64 bits");
    cr_assert_eq(gdt[3], 0x00cf93000000ffff, "present, ring 0, writable data");
    cr_assert_eq(gdt[4] & 0xffff, 103, "limit");
    cr_assert_eq(gdt[4] >> 40 & 0xff, 0x8b, "present, busy 64-bit TSS");
    cr_assert_eq(gdt[4] >> 48 & 0xff, 0);
    cr_assert_eq(tss, state->descriptors.value + 64);
    cr_assert(all_zero(bytes, 102) && bytes[102] == 104 && bytes[103] == 0, "no I/O map");
}

static void check_e820(const struct boot_params *parameters)
{
    static const struct boot_e820_entry expected[] = {{0, 0xa0000, 1},
                                                      {0xa0000, 0x60000, 2},
                                                      {0x100000, FIXTURE_LOW_BYTES - 0x100000, 1},
                                                      {4 * LOAM_GIB, FIXTURE_HIGH_BYTES, 1}};

    cr_assert_eq(parameters->e820_entries, 4);
    cr_assert_eq(memcmp(parameters->e820_table, expected, sizeof expected), 0);
}

/* boot_params: the file's header except what is the loader's to say, E820, and zeros everywhere else. */
static void check_parameters(const struct boot_state *state, const uint8_t *file, uint32_t header_end,
                             const struct boot_request *request)
{
    const struct boot_params *found = fixture_hva(memory, state->parameters.value, sizeof *found);
    const char *line = request->command_line != NULL ? request->command_line : "";
    struct boot_params expected = {0};

    memcpy((uint8_t *)&expected + 0x1f1, file + 0x1f1, header_end - 0x1f1);
    expected.hdr.type_of_loader = 0xff;
    expected.hdr.setup_data = 0;
    expected.hdr.cmd_line_ptr = found->hdr.cmd_line_ptr;
    expected.hdr.ramdisk_image = request->initrd.data != NULL ? found->hdr.ramdisk_image : 0;
    expected.hdr.ramdisk_size = (uint32_t)request->initrd.bytes;
    expected.e820_entries = 4;
    memcpy(expected.e820_table, found->e820_table, 4 * sizeof expected.e820_table[0]);
    check_e820(found);
    cr_assert_eq(memcmp(&expected, found, sizeof expected), 0);
    cr_assert_str_eq(fixture_hva(memory, found->hdr.cmd_line_ptr, strlen(line) + 1), line);
}

static void check_owners(const struct boot_state *state)
{
    static const char *const owners[] = {"kernel", "boot parameters", "command line", "page tables", "descriptors"};
    struct loam_dma_entry entry;

    for (size_t i = 0; i < sizeof owners / sizeof owners[0]; i++) {
        cr_assert_eq(fixture_owned(memory, owners[i]), 1, "%s", owners[i]);
    }
    for (loam_gpa at = {0}; loam_dma_next(loam_memory_dma(memory), at, &entry) == LOAM_OK;
         at = loam_dma_entry_end(&entry)) {
        cr_assert_leq(entry.buffer.gpa.value + entry.buffer.bytes, LOAM_DMA32_END_BYTES);
    }
    cr_assert_eq(loam_dma_find(loam_memory_dma(memory), loam_gpa_from_u64(state->entry), &entry), LOAM_OK);
    cr_assert_str_eq(entry.owner, "kernel");
}

static struct boot_state load(const struct boot_request *request)
{
    struct boot_state state;
    struct loam_diag diag = {0};

    cr_assert_eq(boot_load(memory, request, &state, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(state.protocol, BOOT_LINUX);
    cr_assert_eq(state.entry, state.image_start.value + 0x200);
    cr_assert_eq(state.command_line_kept, request->command_line != NULL ? strlen(request->command_line) : 0);
    check_page_tables(&state);
    check_descriptors(&state);
    check_owners(&state);
    return state;
}

/* A kernel without a 64-bit entry: entered at its beginning, by a flat segment of 32 bits, without page tables. */
Test(boot_linux_load, a_32_bit_kernel_has_its_own_entry)
{
    static const struct fixture_poke pokes[] = {{FIELD(xloadflags), 0xfe}, {FIELD(version), 0x20b}};

    for (size_t i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        uint8_t image[IMAGE_BYTES];
        struct boot_request request = {.kernel = {image, sizeof image, "test.bin"}};
        struct boot_state state;
        struct loam_diag diag = {0};
        const uint64_t *descriptors;

        build_image(image);
        fixture_poke(image, &pokes[i]);
        cr_assert_eq(boot_load(memory, &request, &state, &diag), LOAM_OK, "%s", diag.text);
        cr_expect_eq(state.protocol, BOOT_LINUX_32);
        cr_expect_eq(state.entry, state.image_start.value);
        cr_expect_eq(state.page_tables.value, 0);
        cr_assert_eq(state.descriptor_count, 6);
        descriptors = fixture_hva(memory, state.descriptors.value, 48);
        cr_expect_eq(descriptors[2], UINT64_C(0x00cf9b000000ffff));
    }
}

static void check_kernel(const struct boot_state *state, const uint8_t *file)
{
    const uint8_t *kernel = fixture_hva(memory, state->image_start.value, state->image_bytes);

    cr_assert_eq(state->image_bytes, INIT_BYTES);
    cr_assert_arr_eq(kernel, file + SETUP_BYTES, LOADED_BYTES);
    cr_assert(all_zero(kernel + LOADED_BYTES, INIT_BYTES - LOADED_BYTES));
}

Test(boot_linux_load, fills_memory_and_boot_parameters)
{
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct boot_state state;

    build_image(bytes);
    memset(fixture_hva(memory, PREF, INIT_BYTES), 0xee, INIT_BYTES);
    state = load(&request);
    cr_assert_eq(state.image_start.value, PREF);
    check_kernel(&state, bytes);
    check_parameters(&state, bytes, HEADER_END, &request);
}

Test(boot_linux_load, hands_over_command_line_and_initrd)
{
    uint8_t bytes[IMAGE_BYTES], initrd[5000];
    char line[COMMAND_LINE_MAX + 1] = {0};
    struct boot_request request = {
        .kernel = {bytes, sizeof bytes, "good"}, .initrd = {initrd, sizeof initrd, "initrd"}, .command_line = line};
    const struct boot_params *parameters;
    struct boot_state state;

    build_image(bytes);
    memset(line, 'x', COMMAND_LINE_MAX);
    for (size_t i = 0; i < sizeof initrd; i++) {
        initrd[i] = fixture_byte(i + 7);
    }
    state = load(&request);
    check_kernel(&state, bytes);
    check_parameters(&state, bytes, HEADER_END, &request);
    parameters = fixture_hva(memory, state.parameters.value, sizeof *parameters);
    cr_assert_arr_eq(fixture_hva(memory, parameters->hdr.ramdisk_image, sizeof initrd), initrd, sizeof initrd);
    cr_assert_eq(fixture_owned(memory, "initrd"), 1);
}

/* Only as much of the header as it says itself: the code behind it is no field. */
Test(boot_linux_load, copies_the_header_by_its_own_length)
{
    uint8_t bytes[IMAGE_BYTES];
    struct fixture_poke pokes[] = {{JUMP_END, 0x264 - 0x202}, {JUMP_END, 0x290 - 0x202}};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct fixture_ids before_ids = fixture_ids(memory);
    struct boot_state state;

    build_image(bytes);
    for (size_t i = 0; i < 2; i++) {
        fixture_poke(bytes, &pokes[i]);
        state = load(&request);
        check_parameters(&state, bytes, (uint32_t)pokes[i].value + 0x202, &request);
        fixture_release_beyond(memory, &before_ids);
    }
}

static void squat(uint64_t start, uint64_t bytes)
{
    struct loam_dma_request request = {.owner = "squatter", .bytes = bytes, .at = {start}, .flags = LOAM_DMA_AT};
    struct loam_dma_buffer buffer;

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, NULL), LOAM_OK);
}

Test(boot_linux_load, moves_a_relocatable_kernel_up)
{
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct boot_state state;

    build_image(bytes);
    squat(PREF + INIT_BYTES - 1 - 0xfff, 0x1000);
    squat(PREF + ALIGN, 0x1000);
    squat(PREF + 2 * ALIGN + 0x10000, 0x1000);
    state = load(&request);
    cr_assert_eq(state.image_start.value, PREF + 3 * ALIGN, "0x%" PRIx64, state.image_start.value);
    check_kernel(&state, bytes);
}

/* check_descriptors puts the TSS's address together from all of its parts. */
Test(boot_linux_load, finds_room_above_16_mib_for_what_lies_beside_the_kernel)
{
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct boot_state state;

    build_image(bytes);
    squat(0x1000, LOAM_LEGACY_START_BYTES - 0x1000);
    squat(LOAM_MIB, PREF - LOAM_MIB);
    squat(PREF + INIT_BYTES, 16 * LOAM_MIB - PREF - INIT_BYTES);
    state = load(&request);
    cr_assert_eq(state.image_start.value, PREF);
    cr_assert_geq(state.descriptors.value, 16 * LOAM_MIB);
}

Test(boot_linux_load, leaves_low_memory_to_the_kernel)
{
    static uint8_t initrd[632 * 1024];
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {
        .kernel = {bytes, sizeof bytes, "good"}, .initrd = {initrd, sizeof initrd, "initrd"}, .command_line = "words"};
    struct loam_dma *dma = loam_memory_dma(memory);
    struct fixture_ids before_ids = fixture_ids(memory);
    struct loam_dma_entry entry;
    uint32_t seen = 0;

    build_image(bytes);
    load(&request);
    for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        if (!fixture_ids_hold(&before_ids, entry.buffer.id)) {
            cr_assert_geq(entry.buffer.gpa.value, LOAM_MIB, "%s", entry.owner);
            seen++;
        }
    }
    cr_assert_eq(seen, 6, "kernel, initrd, page tables, descriptors, command line, boot parameters");
}

Test(boot_linux_load, moves_a_relocatable_kernel_to_its_alignment)
{
    uint8_t bytes[IMAGE_BYTES];
    struct fixture_poke poke = {FIELD(pref_address), PREF + 0x1000};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};

    build_image(bytes);
    fixture_poke(bytes, &poke);
    cr_assert_eq(load(&request).image_start.value, PREF + ALIGN);
}

Test(boot_linux_load, moves_a_relocatable_kernel_into_a_gap_that_just_holds_it)
{
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};

    build_image(bytes);
    squat(PREF, ALIGN);
    squat(PREF + ALIGN + INIT_BYTES, FIXTURE_LOW_BYTES - PREF - ALIGN - INIT_BYTES);
    cr_assert_eq(load(&request).image_start.value, PREF + ALIGN);
}

/* The allocation that fails is the only one that does: elsewhere there would be room. */
Test(boot_linux_load, heap_that_runs_out_is_no_reason_to_move)
{
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};
    struct boot_state state;

    build_image(bytes);
    heap_fail(1);
    cr_expect_eq(boot_load(memory, &request, &state, NULL), LOAM_ERROR_SYSTEM);
    cr_expect_eq(state.image_bytes, 0);
}

Test(boot_linux_load, never_goes_below_the_preferred_address)
{
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};

    build_image(bytes);
    squat(PREF, FIXTURE_LOW_BYTES - PREF);
    cr_assert_eq(fixture_refused_load(memory, &request, "full above", "pref_address"), LOAM_ERROR_EXHAUSTED);
}

Test(boot_linux_load, leaves_a_fixed_kernel_where_it_belongs)
{
    uint8_t bytes[IMAGE_BYTES];
    struct fixture_poke poke = {FIELD(relocatable_kernel), 0};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}};

    build_image(bytes);
    fixture_poke(bytes, &poke);
    squat(PREF + INIT_BYTES, 0x1000);
    cr_assert_eq(load(&request).image_start.value, PREF);
    cr_assert_eq(fixture_refused_load(memory, &request, "taken", "[0x400000, 0x420000)"), LOAM_ERROR_EXHAUSTED);
}

static void refuse_all(const struct fixture_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[IMAGE_BYTES];
        struct boot_request request = {.kernel = {bytes, sizeof bytes, "test.bin"}};
        bool has_magic;

        build_image(bytes);
        fixture_apply(bytes, &request.kernel.bytes, &cases[i]);
        has_magic = request.kernel.bytes >= 0x206 && memcmp(bytes + 0x202, "HdrS", 4) == 0;
        fixture_refused_load(memory, &request, cases[i].name, has_magic ? cases[i].expected : "neither");
    }
}

Test(boot_linux_load, refuses_what_is_misplaced_and_keeps_nothing)
{
    refuse_all(misplaced, sizeof misplaced / sizeof misplaced[0]);
}

Test(boot_linux_load, refuses_hostile_images_and_keeps_nothing)
{
    refuse_all(hostile, sizeof hostile / sizeof hostile[0]);
}

Test(boot_linux_load, refuses_requests_out_of_bounds)
{
    static const struct boot_module module = {{0x500000}, 1, NULL};
    static uint8_t initrd[FIXTURE_LOW_BYTES];
    char line[COMMAND_LINE_MAX + 2] = {0};
    uint8_t bytes[IMAGE_BYTES];
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"}, .command_line = line};

    build_image(bytes);
    memset(line, 'x', COMMAND_LINE_MAX + 1);
    fixture_refused_load(memory, &request, "long line", "cmdline_size");
    request.command_line = NULL;
    request.initrd = (struct boot_file){initrd, sizeof initrd, "initrd"};
    cr_assert_eq(fixture_refused_load(memory, &request, "large initrd", "initrd"), LOAM_ERROR_EXHAUSTED);
    request.initrd.bytes = 0;
    cr_assert_eq(fixture_refused_load(memory, &request, "empty initrd", "initrd"), LOAM_ERROR_INVALID);
    request.initrd.data = NULL;
    request.modules = &module;
    request.module_count = 1;
    fixture_refused_load(memory, &request, "module", "boot modules");
}

Test(boot_linux_load, keeps_the_initrd_below_initrd_addr_max)
{
    static const uint32_t limits[] = {0x5fffff, 0x600123, 0xffffffff};
    uint8_t bytes[IMAGE_BYTES], initrd[5000] = {1};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"},
                                   .initrd = {initrd, sizeof initrd, "initrd"}};
    struct fixture_ids before_ids = fixture_ids(memory);

    build_image(bytes);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct fixture_poke poke = {FIELD(initrd_addr_max), limits[i]};
        const struct boot_params *parameters;
        struct boot_state state;

        fixture_poke(bytes, &poke);
        state = load(&request);
        parameters = fixture_hva(memory, state.parameters.value, sizeof *parameters);
        cr_assert_eq(parameters->hdr.ramdisk_image % 4096, 0);
        cr_assert_eq(parameters->hdr.ramdisk_image + 0x2000,
                     limits[i] == UINT32_MAX ? FIXTURE_LOW_BYTES : ((uint64_t)limits[i] + 1) / 4096 * 4096,
                     "not as high as may be");
        fixture_release_beyond(memory, &before_ids);
    }
    fixture_poke(bytes, &(struct fixture_poke){FIELD(initrd_addr_max), 0});
    fixture_refused_load(memory, &request, "no room", "initrd_addr_max: 0x0 leaves no room");
    fixture_poke(bytes, &(struct fixture_poke){FIELD(initrd_addr_max), 0x1fff});
    cr_assert_eq(fixture_refused_load(memory, &request, "little room", "initrd"), LOAM_ERROR_EXHAUSTED);
}

/* Memory runs out at each buffer in turn: nothing is left of those before. */
Test(boot_linux_load, keeps_nothing_wherever_memory_runs_out)
{
    uint8_t bytes[IMAGE_BYTES], initrd[5000] = {1};
    struct boot_request request = {.kernel = {bytes, sizeof bytes, "good"},
                                   .initrd = {initrd, sizeof initrd, "initrd"}};
    struct loam_dma *dma = loam_memory_dma(memory);
    uint32_t refused = 0;

    build_image(bytes);
    /* all of low RAM but the kernel's place; then give back frame by frame what the rest wants */
    squat(0x100000, PREF - 0x100000);
    squat(PREF + INIT_BYTES, FIXTURE_LOW_BYTES - PREF - INIT_BYTES);
    for (uint64_t frame = 1; frame < 0xa0; frame++) {
        squat(frame << 12, 0x1000);
    }
    for (uint64_t frame = 0x10; frame < 0x30; frame++) {
        struct loam_dma_entry entry;
        struct boot_state state;
        uint32_t before = loam_dma_count(dma);

        if (boot_load(memory, &request, &state, NULL) == LOAM_OK) {
            break;
        }
        refused++;
        cr_assert_eq(loam_dma_count(dma), before);
        cr_assert_eq(loam_dma_find(dma, loam_gpa_from_u64(frame << 12), &entry), LOAM_OK);
        cr_assert_eq(loam_dma_release(dma, entry.buffer.id), LOAM_OK);
    }
    cr_assert_eq(refused, 6 + 1 + 1 + 2 + 1, "page tables, descriptors, command line, initrd, boot parameters");
}

Test(boot_linux_load, takes_memtest86_to_1_mib)
{
    struct boot_request request = {.kernel = read_memtest(),
                                   .command_line = "console=ttyS0,115200 nosmp nopause nobench"};
    struct boot_state state;
    uint64_t payload;

    if (request.kernel.data == NULL) {
        cr_skip("no " MEMTEST);
    }
    state = load(&request);
    cr_assert_eq(state.image_start.value, LOAM_MIB);
    payload = request.kernel.bytes - 3 * 512;
    cr_assert_eq(
        memcmp(fixture_hva(memory, LOAM_MIB, payload), (const uint8_t *)request.kernel.data + 3 * 512, payload), 0);
    fixture_file_free(&request.kernel);
}

Test(boot_linux_load, survives_random_mutations)
{
    struct fixture_ids before_ids = fixture_ids(memory);
    uint64_t seed = UINT64_C(0x6c696e32);
    struct random random = {seed};
    uint8_t good[IMAGE_BYTES], bytes[IMAGE_BYTES], initrd[10] = {1};
    uint32_t before = loam_dma_count(loam_memory_dma(memory)), loaded = 0, refused = 0;

    build_image(good);
    for (uint32_t i = 0; i < 5000; i++) {
        struct boot_request request = {.kernel = {bytes, sizeof bytes, "mutated"},
                                       .initrd = {initrd, sizeof initrd, "i"}};
        struct boot_state state;
        struct loam_diag diag = {0};
        enum loam_error error;

        memcpy(bytes, good, sizeof bytes);
        mutate(bytes, &random);
        error = boot_load(memory, &request, &state, &diag);
        loaded += error == LOAM_OK;
        refused += error != LOAM_OK;
        if (error != LOAM_OK) {
            fixture_check_refusal("mutated", error, &diag, "");
            cr_assert_eq(loam_dma_count(loam_memory_dma(memory)), before, "seed %" PRIu64 ", round %u", seed, i);
        }
        fixture_release_beyond(memory, &before_ids);
    }
    cr_assert(loaded > 100 && refused > 100, "seed %" PRIu64 ": %u loaded, %u refused", seed, loaded, refused);
}
