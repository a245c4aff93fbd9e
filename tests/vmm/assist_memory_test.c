// SPDX-License-Identifier: Apache-2.0
/* Segments and page tables, built by hand in a small guest memory; what a walk may and may not reach. */
#include "vmm/assist_memory.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define SEED UINT64_C(0x5eed0086)

#define PAGE      UINT64_C(4096)
#define RAM_BYTES (64 * PAGE)
#define READ_ONLY (48 * PAGE) /* from here on the guest may not write */

/* Where the tables are: of each kind of paging from the top down. */
#define TABLE_4 (1 * PAGE)
#define TABLE_3 (2 * PAGE)
#define TABLE_2 (3 * PAGE)
#define TABLE_1 (4 * PAGE)

#define P  UINT64_C(0x001)
#define W  UINT64_C(0x002)
#define U  UINT64_C(0x004)
#define A  UINT64_C(0x020)
#define D  UINT64_C(0x040)
#define PS UINT64_C(0x080)
#define NX (UINT64_C(1) << 63)

#define CR0_PE   UINT64_C(0x00000001)
#define CR0_WP   UINT64_C(0x00010000)
#define CR0_AM   UINT64_C(0x00040000)
#define CR0_PG   UINT64_C(0x80000000)
#define CR4_PSE  UINT64_C(0x00000010)
#define CR4_PAE  UINT64_C(0x00000020)
#define CR4_LA57 UINT64_C(0x00001000)
#define CR4_SMEP UINT64_C(0x00100000)
#define CR4_SMAP UINT64_C(0x00200000)
#define CR4_PKE  UINT64_C(0x00400000)
#define CR4_PKS  UINT64_C(0x01000000)
#define EFER_LMA UINT64_C(0x400)
#define EFER_NXE UINT64_C(0x800)
#define AC       UINT64_C(0x40000)

static uint8_t *ram;
static void *map_memory;
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;
static struct kvm_sregs sregs;
static struct assist_memory memory;
static struct assist_span span;
static struct assist_fault fault;

static void insert(uint64_t start, uint64_t bytes, enum loam_access access)
{
    struct loam_region region = {.start = {start},
                                 .bytes = bytes,
                                 .hva = ram + start,
                                 .backing_offset = start,
                                 .type = LOAM_REGION_RAM,
                                 .access = access};

    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
}

/* Flat segments, as everybody has them; ring 0. */
static void flat(bool is_long)
{
    struct kvm_segment data = {.limit = UINT32_MAX, .type = 3, .present = 1, .s = 1, .g = 1, .db = 1};
    struct kvm_segment text = data;

    text.type = 11;
    text.l = is_long;
    text.db = !is_long;
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cs = text;
}

static void set_up(void)
{
    size_t bytes = loam_gpa_map_bytes(NULL);

    ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(ram, MAP_FAILED);
    map_memory = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    cr_assert_eq(loam_gpa_map_init(map_memory, bytes, NULL, &map), LOAM_OK);
    insert(0, READ_ONLY, LOAM_ACCESS_WRITE);
    insert(READ_ONLY, RAM_BYTES - READ_ONLY, LOAM_ACCESS_READ);
    view = loam_gpa_map_acquire(map);
    memory = (struct assist_memory){.view = view, .sregs = &sregs};
    flat(true);
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
    free(map_memory);
    munmap(ram, RAM_BYTES);
}

TestSuite(assist_memory, .init = set_up, .fini = tear_down);

static uint64_t get64(uint64_t table, uint64_t index)
{
    uint64_t entry;

    memcpy(&entry, ram + table + 8 * index, sizeof entry);
    return entry;
}

static void put64(uint64_t table, uint64_t index, uint64_t entry)
{
    memcpy(ram + table + 8 * index, &entry, sizeof entry);
}

static uint32_t get32(uint64_t table, uint64_t index)
{
    uint32_t entry;

    memcpy(&entry, ram + table + 4 * index, sizeof entry);
    return entry;
}

static void put32(uint64_t table, uint64_t index, uint32_t entry)
{
    memcpy(ram + table + 4 * index, &entry, sizeof entry);
}

/* Linear 0x7f8040201000 + n pages -> page 32 + n, by index 255, 1, 1, 1 + n. */
#define LINEAR_4 UINT64_C(0x7f8040201000)

static void four_levels(uint64_t rights)
{
    sregs.cr0 = CR0_PE | CR0_PG | CR0_WP;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LMA | EFER_NXE;
    sregs.cr3 = TABLE_4 | 0x18; /* bits that say how the table itself is cached */
    put64(TABLE_4, 255, TABLE_3 | P | W | U);
    put64(TABLE_3, 1, TABLE_2 | P | W | U);
    put64(TABLE_2, 1, TABLE_1 | P | W | U);
    for (uint64_t i = 0; i < 32; i++) {
        put64(TABLE_1, 1 + i, (32 + i) * PAGE | rights);
    }
}

static bool can(enum assist_access access, uint64_t linear)
{
    return assist_memory_find(&memory, linear, 8, access, &span, &fault);
}

/* --- Segments ----------------------------------------------------------------------------------------------------- */

Test(assist_memory, gives_64_bit_code_bases_of_fs_and_gs_only)
{
    uint64_t linear;

    sregs.efer = EFER_LMA;
    sregs.ds.base = sregs.ss.base = sregs.es.base = 0x1000;
    sregs.fs.base = 0x2000;
    sregs.gs.base = UINT64_C(0xffff800000000000);
    sregs.ds.limit = 0;
    cr_assert(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0x123456789, 8, ASSIST_WRITE, &linear, &fault));
    cr_assert_eq(linear, 0x123456789);
    cr_assert(assist_memory_linear(&memory, ASSIST_SEGMENT_FS, 8, 8, ASSIST_READ, &linear, &fault));
    cr_assert_eq(linear, 0x2008);
    cr_assert(assist_memory_linear(&memory, ASSIST_SEGMENT_GS, 8, 8, ASSIST_READ, &linear, &fault));
    cr_assert_eq(linear, UINT64_C(0xffff800000000008));
}

/* What the L bit of a code segment says outside of long mode is not looked at (Intel SDM volume 3A, section 3.4.5). */
Test(assist_memory, calls_code_long_in_long_mode_and_a_long_segment_only)
{
    sregs.efer = EFER_LMA;
    cr_expect(assist_memory_is_long(&sregs));
    sregs.cs.l = 0;
    cr_expect_not(assist_memory_is_long(&sregs), "compatibility mode");
    sregs.efer = EFER_NXE;
    sregs.cs.l = 1;
    cr_expect_not(assist_memory_is_long(&sregs), "protected mode");
}

Test(assist_memory, wants_canonical_addresses)
{
    static const struct {
        uint64_t offset;
        size_t bytes;
        bool is_granted;
    } cases[] = {
        {UINT64_C(0x00007ffffffffff8), 8, true},  {UINT64_C(0x00007ffffffffff8), 9, false},
        {UINT64_C(0x0000800000000000), 1, false}, {UINT64_C(0xffff7fffffffffff), 1, false},
        {UINT64_C(0xffff800000000000), 1, true},  {UINT64_C(0xfffffffffffffff8), 8, true},
        {UINT64_C(0xfffffffffffffff8), 9, false}, {UINT64_C(0x1000000000000000), 2, false},
    };
    uint64_t linear;

    sregs.efer = EFER_LMA;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert_eq(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, cases[i].offset, cases[i].bytes, ASSIST_READ,
                                          &linear, &fault),
                     cases[i].is_granted, "case %zu", i);
    }
}

Test(assist_memory, keeps_32_bit_code_to_its_limits)
{
    uint64_t linear;

    flat(false);
    sregs.es.base = 0x10000;
    sregs.es.limit = 0xfff;
    cr_assert(assist_memory_linear(&memory, ASSIST_SEGMENT_ES, 0xff8, 8, ASSIST_READ, &linear, &fault));
    cr_assert_eq(linear, 0x10ff8);
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_ES, 0xff9, 8, ASSIST_READ, &linear, &fault));
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_ES, UINT32_MAX, 8, ASSIST_READ, &linear, &fault));
    cr_assert(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0xfffffff8, 8, ASSIST_READ, &linear, &fault));
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0xfffffff9, 8, ASSIST_READ, &linear, &fault),
                  "wraps");
    sregs.ds.base = 0x1000;
    cr_assert(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0xfffff000, 8, ASSIST_READ, &linear, &fault));
    cr_assert_eq(linear, 0, "a base may wrap as a whole");
}

Test(assist_memory, keeps_32_bit_code_to_the_kind_of_its_segments)
{
    uint64_t linear;

    flat(false);
    for (uint8_t type = 0; type < 16; type++) {
        bool is_code = type >= 8, is_down = !is_code && (type & 4) != 0;

        sregs.ds.type = type;
        cr_assert_eq(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0, 1, ASSIST_READ, &linear, &fault),
                     is_code ? (type & 2) != 0 : !is_down, "type %u", type);
        cr_assert_eq(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0, 1, ASSIST_WRITE, &linear, &fault),
                     !is_code && !is_down && (type & 2) != 0, "type %u", type);
        cr_assert_eq(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0, 1, ASSIST_FETCH, &linear, &fault), is_code,
                     "type %u", type);
    }
    sregs.ds.type = 3;
    sregs.ds.unusable = 1;
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0, 1, ASSIST_READ, &linear, &fault));
    sregs.ds.unusable = 0;
    sregs.ds.present = 0;
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0, 1, ASSIST_READ, &linear, &fault));
}

/* --- Without paging ----------------------------------------------------------------------------------------------- */

Test(assist_memory, takes_linear_addresses_as_they_are_without_paging)
{
    uint8_t bytes[16] = {0}, found[16];

    sregs.cr0 = CR0_PE;
    flat(false);
    for (uint8_t i = 0; i < 16; i++) {
        bytes[i] = (uint8_t)(i + 1);
    }
    cr_assert(assist_memory_find(&memory, 5 * PAGE - 3, 10, ASSIST_WRITE, &span, &fault));
    cr_assert_eq(span.gpa[0].value, 5 * PAGE - 3);
    cr_assert_eq(span.bytes[0], 3);
    cr_assert_eq(span.gpa[1].value, 5 * PAGE);
    cr_assert_eq(span.bytes[1], 7);
    assist_memory_store(&span, bytes);
    cr_assert_eq(memcmp(ram + 5 * PAGE - 3, bytes, 10), 0);
    cr_assert_eq(ram[5 * PAGE + 7], 0);
    memset(found, 0, sizeof found);
    assist_memory_load(&span, found);
    cr_assert_eq(memcmp(found, bytes, 10), 0);
    cr_assert_eq(found[10], 0);
}

/* A span has two parts, whatever lies behind it. */
Test(assist_memory, copies_both_parts_and_no_third)
{
    struct {
        struct assist_span span;
        size_t behind[8];
    } found;
    uint8_t bytes[32], before[32];

    sregs.cr0 = CR0_PE;
    flat(false);
    memset(bytes, 0x11, sizeof bytes);
    memset(before, 0x11, sizeof before);
    for (size_t i = 0; i < 8; i++) {
        found.behind[i] = 8;
    }
    cr_assert(assist_memory_find(&memory, 5 * PAGE - 8, 16, ASSIST_WRITE, &found.span, &fault));
    assist_memory_load(&found.span, bytes);
    cr_expect_eq(memcmp(bytes + 16, before, 16), 0);
    memset(ram, 0x22, 4 * PAGE);
    memset(ram + 6 * PAGE, 0x22, READ_ONLY - 6 * PAGE);
    assist_memory_store(&found.span, before);
    for (uint64_t i = 0; i < READ_ONLY; i++) {
        bool stored = i >= 5 * PAGE - 8 && i < 5 * PAGE + 8;

        cr_assert_eq(ram[i], stored ? 0x11 : i < 4 * PAGE || i >= 6 * PAGE ? 0x22 : 0, "GPA %#" PRIx64, i);
    }
}

/* The second page is of another region, with host memory of its own. */
Test(assist_memory, copies_across_regions)
{
    uint8_t *other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes[16];
    struct loam_region region = {.start = {RAM_BYTES},
                                 .bytes = PAGE,
                                 .hva = other,
                                 .backing = 1,
                                 .type = LOAM_REGION_RAM,
                                 .access = LOAM_ACCESS_WRITE};

    cr_assert_neq(other, MAP_FAILED);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){READ_ONLY}, RAM_BYTES - READ_ONLY, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    loam_gpa_map_release(map, view);
    memory.view = view = loam_gpa_map_acquire(map);
    sregs.cr0 = CR0_PE;
    flat(false);
    memset(bytes, 0x77, sizeof bytes);
    cr_assert(assist_memory_find(&memory, RAM_BYTES - 6, 16, ASSIST_WRITE, &span, &fault));
    assist_memory_store(&span, bytes);
    cr_expect_eq(ram[RAM_BYTES - 7], 0);
    cr_expect_eq(ram[RAM_BYTES - 6], 0x77);
    cr_expect_eq(ram[RAM_BYTES - 1], 0x77);
    cr_expect_eq(other[0], 0x77);
    cr_expect_eq(other[9], 0x77);
    cr_expect_eq(other[10], 0);
    memset(bytes, 0, sizeof bytes);
    assist_memory_load(&span, bytes);
    cr_expect_eq(bytes[0] + bytes[15], 2 * 0x77);
    munmap(other, PAGE);
}

Test(assist_memory, reaches_plain_memory_only)
{
    sregs.cr0 = CR0_PE;
    flat(false);
    cr_assert(can(ASSIST_READ, READ_ONLY));
    cr_assert_not(can(ASSIST_WRITE, READ_ONLY));
    cr_assert_not(can(ASSIST_WRITE, READ_ONLY - 4), "its second half");
    cr_assert(can(ASSIST_READ, RAM_BYTES - 8));
    cr_assert_not(can(ASSIST_READ, RAM_BYTES - 7));
    cr_assert_not(can(ASSIST_READ, RAM_BYTES));
    cr_assert_not(assist_memory_find(&memory, 0, 0, ASSIST_READ, &span, &fault));
    cr_assert(assist_memory_find(&memory, 0, 16, ASSIST_READ, &span, &fault));
    cr_assert_not(assist_memory_find(&memory, 0, 17, ASSIST_READ, &span, &fault));
}

/* --- Four levels -------------------------------------------------------------------------------------------------- */

Test(assist_memory, walks_four_levels)
{
    four_levels(P | W | U);
    cr_assert(can(ASSIST_READ, LINEAR_4 + 0x123));
    cr_assert_eq(span.gpa[0].value, 32 * PAGE + 0x123);
    cr_assert_eq(get64(TABLE_4, 255), TABLE_3 | P | W | U | A);
    cr_assert_eq(get64(TABLE_3, 1), TABLE_2 | P | W | U | A);
    cr_assert_eq(get64(TABLE_2, 1), TABLE_1 | P | W | U | A);
    cr_assert_eq(get64(TABLE_1, 1), 32 * PAGE | P | W | U | A, "accessed, not dirty");
    cr_assert_eq(get64(TABLE_1, 2), 33 * PAGE | P | W | U);
    cr_assert(can(ASSIST_WRITE, LINEAR_4 + PAGE - 4));
    cr_assert_eq(get64(TABLE_1, 1), 32 * PAGE | P | W | U | A | D);
    cr_assert_eq(get64(TABLE_1, 2), 33 * PAGE | P | W | U | A | D, "the second page, too");
    cr_assert_eq(get64(TABLE_2, 1), TABLE_1 | P | W | U | A);
}

Test(assist_memory, walks_the_upper_half_of_the_addresses)
{
    four_levels(P | W);
    put64(TABLE_4, 257, TABLE_3 | P | W);
    cr_assert(can(ASSIST_READ, UINT64_C(0xffff808040201000)), "index 257, 1, 1, 1");
    cr_assert_eq(span.gpa[0].value, 32 * PAGE);
}

Test(assist_memory, finds_pages_that_are_not_neighbours)
{
    four_levels(P | W);
    put64(TABLE_1, 2, 40 * PAGE | P | W);
    cr_assert(can(ASSIST_WRITE, LINEAR_4 + PAGE - 4));
    cr_assert_eq(span.gpa[0].value, 33 * PAGE - 4);
    cr_assert_eq(span.gpa[1].value, 40 * PAGE);
    put64(TABLE_1, 2, 0);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4 + PAGE - 4));
    cr_assert(can(ASSIST_WRITE, LINEAR_4 + PAGE - 8));
}

Test(assist_memory, walks_large_pages)
{
    four_levels(P | W);
    put64(TABLE_2, 1, P | W | PS);
    cr_assert(can(ASSIST_WRITE, LINEAR_4 - PAGE + 0x7008));
    cr_assert_eq(span.gpa[0].value, 0x7008);
    cr_assert_eq(get64(TABLE_2, 1), P | W | PS | A | D);
    put64(TABLE_2, 1, 0x1000 | P | W | PS);
    cr_assert(can(ASSIST_WRITE, LINEAR_4), "bit 12 is the memory type");
    put64(TABLE_2, 1, 0x2000 | P | W | PS);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4), "reserved");
    put64(TABLE_3, 1, P | W | PS);
    cr_assert(can(ASSIST_READ, (LINEAR_4 & ~UINT64_C(0x3fffffff)) + 0x8010));
    cr_assert_eq(span.gpa[0].value, 0x8010);
    put64(TABLE_4, 255, P | W | PS);
    cr_assert_not(can(ASSIST_READ, LINEAR_4), "reserved");
}

/* Each level by itself takes the right away from all. */
Test(assist_memory, grants_what_all_levels_grant)
{
    static const struct {
        uint64_t table, index;
    } levels[] = {{TABLE_4, 255}, {TABLE_3, 1}, {TABLE_2, 1}, {TABLE_1, 1}};

    for (size_t i = 0; i < 4; i++) {
        uint64_t entry;

        four_levels(P | W | U);
        entry = get64(levels[i].table, levels[i].index);
        put64(levels[i].table, levels[i].index, entry & ~P);
        cr_assert_not(can(ASSIST_READ, LINEAR_4));
        put64(levels[i].table, levels[i].index, entry & ~W);
        cr_assert(can(ASSIST_READ, LINEAR_4));
        cr_assert_not(can(ASSIST_WRITE, LINEAR_4));
        sregs.cr0 &= ~CR0_WP;
        cr_assert(can(ASSIST_WRITE, LINEAR_4), "a supervisor without WP");
        sregs.ss.dpl = 3;
        cr_assert_not(can(ASSIST_WRITE, LINEAR_4), "no user");
        put64(levels[i].table, levels[i].index, entry & ~U);
        cr_assert_not(can(ASSIST_READ, LINEAR_4));
        put64(levels[i].table, levels[i].index, entry);
        cr_assert(can(ASSIST_WRITE, LINEAR_4));
        sregs.ss.dpl = 0;
        put64(levels[i].table, levels[i].index, entry | NX);
        cr_assert(can(ASSIST_READ, LINEAR_4));
        cr_assert_not(can(ASSIST_FETCH, LINEAR_4));
        sregs.efer &= ~EFER_NXE;
        cr_assert_not(can(ASSIST_READ, LINEAR_4), "reserved without NXE");
    }
}

Test(assist_memory, keeps_users_from_executing_data)
{
    four_levels(P | W | U | NX);
    sregs.ss.dpl = 3;
    cr_expect(can(ASSIST_READ, LINEAR_4));
    cr_expect(can(ASSIST_WRITE, LINEAR_4));
    cr_expect_not(can(ASSIST_FETCH, LINEAR_4));
}

Test(assist_memory, has_no_data_only_without_nxe)
{
    four_levels(P | W);
    sregs.efer = EFER_LMA;
    cr_expect(can(ASSIST_READ, LINEAR_4));
    cr_expect(can(ASSIST_FETCH, LINEAR_4));
}

/* A page is the user's if every level says so; the upper levels are as good as always marked as the user's. */
Test(assist_memory, lets_supervisors_have_their_pages_below_entries_of_the_user)
{
    four_levels(P | W);
    sregs.cr4 |= CR4_SMAP | CR4_SMEP;
    cr_expect(can(ASSIST_READ, LINEAR_4));
    cr_expect(can(ASSIST_WRITE, LINEAR_4));
    cr_expect(can(ASSIST_FETCH, LINEAR_4));
}

Test(assist_memory, keeps_supervisors_from_what_is_the_users)
{
    four_levels(P | W | U);
    sregs.cr4 |= CR4_SMAP;
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
    cr_assert(can(ASSIST_FETCH, LINEAR_4));
    memory.rflags = ~AC;
    cr_assert_not(can(ASSIST_READ, LINEAR_4), "AC alone says otherwise");
    memory.rflags = AC;
    cr_assert(can(ASSIST_READ, LINEAR_4));
    sregs.cr4 |= CR4_SMEP;
    cr_assert_not(can(ASSIST_FETCH, LINEAR_4));
    sregs.ss.dpl = 3;
    cr_assert(can(ASSIST_FETCH, LINEAR_4));
}

Test(assist_memory, refuses_what_it_does_not_check)
{
    four_levels(P | W | U);
    sregs.cr4 |= CR4_LA57;
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
    sregs.cr4 = CR4_PAE | CR4_PKE;
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
    sregs.cr4 = CR4_PAE | CR4_PKS;
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
}

/* Alignment is checked for users, with AM and AC both set, and not of instructions. */
Test(assist_memory, refuses_where_alignment_is_checked)
{
    four_levels(P | W | U);
    for (unsigned int i = 0; i < 8; i++) {
        sregs.ss.dpl = (i & 1) != 0 ? 3 : 0;
        sregs.cr0 = CR0_PE | CR0_PG | ((i & 2) != 0 ? CR0_AM : 0);
        memory.rflags = (i & 4) != 0 ? AC : ~AC;
        cr_expect_eq(can(ASSIST_READ, LINEAR_4), i != 7, "case %u", i);
        cr_expect(can(ASSIST_FETCH, LINEAR_4), "case %u", i);
    }
}

/* A read leaves no mark where it is refused, and none on a table that the guest may not write. */
Test(assist_memory, marks_nothing_that_is_refused)
{
    four_levels(P | U);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4));
    cr_assert_eq(get64(TABLE_1, 1), 32 * PAGE | P | U);
    sregs.cr3 = READ_ONLY;
    memcpy(ram + READ_ONLY, ram + TABLE_4, PAGE);
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
}

/* --- Two and three levels ----------------------------------------------------------------------------------------- */

Test(assist_memory, walks_two_levels)
{
    flat(false);
    sregs.cr0 = CR0_PE | CR0_PG;
    sregs.cr4 = CR4_PSE;
    sregs.cr3 = TABLE_4;
    put32(TABLE_4, 3, (uint32_t)(TABLE_3 | P | W));
    put32(TABLE_3, 5, (uint32_t)(33 * PAGE | P | W));
    cr_assert(can(ASSIST_WRITE, 3u << 22 | 5u << 12 | 0x10));
    cr_assert_eq(span.gpa[0].value, 33 * PAGE + 0x10);
    cr_assert_eq(get32(TABLE_4, 3), TABLE_3 | P | W | A);
    cr_assert_eq(get32(TABLE_3, 5), 33 * PAGE | P | W | A | D);
    put32(TABLE_4, 3, (uint32_t)(P | W | PS));
    cr_assert(can(ASSIST_READ, 3u << 22 | 7u << 12));
    cr_assert_eq(span.gpa[0].value, 7 * PAGE);
    put32(TABLE_4, 3, (uint32_t)(0x2000 | P | W | PS));
    cr_assert_not(can(ASSIST_READ, 3u << 22), "more than 32 bits of address");
    sregs.cr4 = 0;
    put32(TABLE_4, 3, (uint32_t)(TABLE_3 | P | W | PS));
    cr_assert(can(ASSIST_READ, 3u << 22 | 5u << 12), "no large page without PSE");
    cr_assert_eq(span.gpa[0].value, 33 * PAGE);
}

Test(assist_memory, walks_three_levels)
{
    flat(false);
    sregs.cr0 = CR0_PE | CR0_PG;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_NXE;
    sregs.cr3 = TABLE_4 + 0x20;
    put64(TABLE_4 + 0x20, 3, TABLE_3 | P);
    put64(TABLE_3, 1, TABLE_2 | P | W | U);
    put64(TABLE_2, 9, 34 * PAGE | P | W | U);
    cr_assert(can(ASSIST_WRITE, UINT64_C(3) << 30 | 1u << 21 | 9u << 12 | 0x20));
    cr_assert_eq(span.gpa[0].value, 34 * PAGE + 0x20);
    cr_assert_eq(get64(TABLE_4 + 0x20, 3), TABLE_3 | P, "the first level has neither rights nor marks");
    cr_assert_eq(get64(TABLE_3, 1), TABLE_2 | P | W | U | A);
    cr_assert_eq(get64(TABLE_2, 9), 34 * PAGE | P | W | U | A | D);
    put64(TABLE_3, 1, P | W | PS);
    cr_assert(can(ASSIST_READ, UINT64_C(3) << 30 | 1u << 21 | 0x9008));
    cr_assert_eq(span.gpa[0].value, 0x9008);
    put64(TABLE_4 + 0x20, 3, TABLE_3 | P | PS);
    cr_assert_not(can(ASSIST_READ, UINT64_C(3) << 30), "reserved");
}

/* --- What is raised ---------------------------------------------------------------------------------------------- */

static void check_fault(unsigned int vector, uint32_t error_code, uint64_t address)
{
    cr_expect_eq(fault.vector, vector, "exception %u wanted, %u found", vector, fault.vector);
    cr_expect_eq(fault.error_code, error_code, "error 0x%x wanted, 0x%x found", error_code, fault.error_code);
    cr_expect_eq(fault.address, address, "address 0x%" PRIx64, fault.address);
}

/* Intel SDM volume 3A, section 4.7. */
Test(assist_memory, tells_page_faults)
{
    four_levels(P | W | U);
    put64(TABLE_1, 2, 0);
    cr_assert_not(can(ASSIST_READ, LINEAR_4 + PAGE));
    check_fault(14, 0, LINEAR_4 + PAGE);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4 + PAGE - 3));
    check_fault(14, 2, LINEAR_4 + PAGE);
    put64(TABLE_2, 1, 0);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4 + 5));
    check_fault(14, 2, LINEAR_4 + 5);
    four_levels(P);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4));
    check_fault(14, 3, LINEAR_4);
    sregs.ss.dpl = 3;
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
    check_fault(14, 5, LINEAR_4);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4));
    check_fault(14, 7, LINEAR_4);
    four_levels(P | U | NX);
    cr_assert_not(can(ASSIST_FETCH, LINEAR_4));
    check_fault(14, 0x15, LINEAR_4);
    cr_assert(can(ASSIST_READ, LINEAR_4));
    check_fault(0, 0, 0);
}

Test(assist_memory, tells_reserved_bits_that_all_processors_reserve)
{
    four_levels(P | W);
    put64(TABLE_2, 1, 0x2000 | P | W | PS);
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
    check_fault(14, 9, LINEAR_4);
    put64(TABLE_4, 255, P | W | PS);
    cr_assert_not(can(ASSIST_WRITE, LINEAR_4));
    check_fault(14, 11, LINEAR_4);
    four_levels(P | W | NX);
    sregs.efer = EFER_LMA;
    cr_assert_not(can(ASSIST_READ, LINEAR_4));
    check_fault(14, 9, LINEAR_4);
    put64(TABLE_1, 1, UINT64_C(1) << 51 | P | W);
    cr_assert_not(can(ASSIST_READ, LINEAR_4), "an address that only some have");
    check_fault(0, 0, 0);
}

/* A fetch is told apart only where it can be forbidden. */
Test(assist_memory, tells_fetches_where_processors_do)
{
    four_levels(P | W);
    put64(TABLE_1, 1, 0);
    sregs.efer = EFER_LMA;
    cr_assert_not(can(ASSIST_FETCH, LINEAR_4));
    check_fault(14, 0, LINEAR_4);
    sregs.cr4 |= CR4_SMEP;
    cr_assert_not(can(ASSIST_FETCH, LINEAR_4));
    check_fault(14, 0x10, LINEAR_4);
    sregs.cr4 &= ~CR4_SMEP;
    sregs.efer |= EFER_NXE;
    cr_assert_not(can(ASSIST_FETCH, LINEAR_4));
    check_fault(14, 0x10, LINEAR_4);
}

/* Two levels: bits of a large page's address, and PAE's first level, are refused without a word on why. */
Test(assist_memory, tells_no_fault_that_depends_on_the_processor)
{
    flat(false);
    sregs.cr0 = CR0_PE | CR0_PG;
    sregs.cr4 = CR4_PSE;
    sregs.cr3 = TABLE_4;
    put32(TABLE_4, 0, (uint32_t)(0x2000 | P | W | PS));
    cr_assert_not(can(ASSIST_READ, 0x1000));
    check_fault(0, 0, 0);
    put32(TABLE_4, 0, 0);
    cr_assert_not(can(ASSIST_READ, 0x1000));
    check_fault(14, 0, 0x1000);
    sregs.cr4 = CR4_PAE;
    cr_assert_not(can(ASSIST_READ, 0x1000));
    check_fault(0, 0, 0);
    four_levels(P | W);
    cr_assert_not(can(ASSIST_READ, LINEAR_4 + 32 * PAGE));
    sregs.cr3 = RAM_BYTES;
    cr_assert_not(can(ASSIST_READ, LINEAR_4), "no table");
    check_fault(0, 0, 0);
    sregs.cr3 = TABLE_4;
    put64(TABLE_1, 1, RAM_BYTES | P | W);
    cr_assert_not(can(ASSIST_READ, LINEAR_4), "no memory");
    check_fault(0, 0, 0);
}

Test(assist_memory, tells_what_segments_raise)
{
    const uint64_t hole = UINT64_C(0x800000000000);
    uint64_t linear;

    sregs.efer = EFER_LMA;
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, hole, 1, ASSIST_READ, &linear, &fault));
    check_fault(13, 0, 0);
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_SS, hole, 1, ASSIST_READ, &linear, &fault));
    check_fault(12, 0, 0);
    flat(false);
    sregs.ss.limit = sregs.ds.limit = 0xff;
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_SS, 0xff, 2, ASSIST_READ, &linear, &fault));
    check_fault(12, 0, 0);
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0xff, 2, ASSIST_READ, &linear, &fault));
    check_fault(13, 0, 0);
    sregs.ss.type = 1;
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_SS, 0, 1, ASSIST_WRITE, &linear, &fault));
    check_fault(13, 0, 0);
    sregs.ds.type = 7;
    cr_assert_not(assist_memory_linear(&memory, ASSIST_SEGMENT_DS, 0x1000, 1, ASSIST_WRITE, &linear, &fault));
    check_fault(0, 0, 0);
}

/* --- What is written --------------------------------------------------------------------------------------------- */

static _Alignas(8) uint8_t dirty_memory[4096];

static void open_dirty(void)
{
    const struct loam_dirty_config config = {.bytes = RAM_BYTES};

    cr_assert_eq(loam_dirty_init(dirty_memory, sizeof dirty_memory, &config, &memory.dirty), LOAM_OK);
}

static bool is_dirty(uint64_t gpa)
{
    return loam_dirty_test(memory.dirty, loam_gpa_from_u64(gpa));
}

/* Marks of the walk are writes themselves; those that stand already are not made again. */
Test(assist_memory, marks_pages_that_are_written)
{
    uint8_t bytes[16] = {0};

    four_levels(P | W | A | D);
    open_dirty();
    cr_assert(can(ASSIST_READ, LINEAR_4));
    cr_expect(is_dirty(TABLE_4));
    cr_expect(is_dirty(TABLE_2));
    cr_expect_not(is_dirty(TABLE_1), "nothing was to be marked there");
    cr_assert_eq(loam_dirty_count(memory.dirty), 3);
    cr_assert(can(ASSIST_WRITE, LINEAR_4 + PAGE - 4));
    cr_assert_eq(loam_dirty_count(memory.dirty), 3, "found is not written");
    assist_memory_load(&span, bytes);
    cr_assert_eq(loam_dirty_count(memory.dirty), 3);
    assist_memory_store(&span, bytes);
    cr_expect(is_dirty(32 * PAGE));
    cr_expect(is_dirty(33 * PAGE), "the second page, too");
    cr_assert_eq(loam_dirty_count(memory.dirty), 5);
}

Test(assist_memory, exchanges_what_is_equal)
{
    uint64_t expected[2] = {1, 2};
    const uint64_t desired[2] = {3, 4};

    sregs.cr0 = CR0_PE;
    flat(false);
    open_dirty();
    put64(5 * PAGE, 0, 1);
    put64(5 * PAGE, 1, 9);
    cr_assert(assist_memory_find(&memory, 5 * PAGE, 16, ASSIST_WRITE, &span, &fault));
    cr_expect_not(assist_memory_exchange(&span, expected, desired));
    cr_expect_eq(expected[0], 1);
    cr_expect_eq(expected[1], 9);
    cr_expect(assist_memory_exchange(&span, expected, desired));
    cr_expect_eq(get64(5 * PAGE, 0), 3);
    cr_expect_eq(get64(5 * PAGE, 1), 4);
    cr_expect(is_dirty(5 * PAGE));
    cr_expect_eq(loam_dirty_count(memory.dirty), 1);
}

/* --- Hostile ------------------------------------------------------------------------------------------------------ */

/*
 * A guest that changes an entry between any two instructions of the walk: the processor's trap flag makes it so. It
 * counts in bits that no walk judges, so that no value comes back, and gives up after a while, so that a walk without end
 * is one that succeeds.
 */
#define TRAP        UINT64_C(0x100)
#define CHANGES_MAX 100000u /* or as many as the test says */
#define IGNORED     (UINT64_C(1) << 52)

static uint64_t *changed; /* the entry, or two of 32 bits of which it is the first */
static uint64_t change_step;
static uint32_t change_count, changes_max;

static void change(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;

    (void)signal_number;
    (void)info;
    *changed += change_step;
    if (++change_count == changes_max) {
        interrupted->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP;
    }
}

static bool can_while_entry_changes(enum assist_access access, uint64_t linear, uint64_t entry_gpa, uint64_t step)
{
    struct sigaction action = {.sa_sigaction = change, .sa_flags = SA_SIGINFO};
    bool result;

    changed = (uint64_t *)(void *)(ram + entry_gpa);
    change_step = step;
    change_count = 0;
    sigemptyset(&action.sa_mask);
    cr_assert_eq(sigaction(SIGTRAP, &action, NULL), 0);
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | TRAP);
    result = can(access, linear);
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~TRAP);
    cr_assert_gt(change_count, 0, "the processor does not trap");
    return result;
}

Test(assist_memory, gives_up_on_an_entry_that_changes_for_ever)
{
    changes_max = CHANGES_MAX;
    four_levels(P | W);
    cr_expect_not(can_while_entry_changes(ASSIST_WRITE, LINEAR_4, TABLE_1 + 8, IGNORED));
    cr_expect_lt(change_count, CHANGES_MAX);
    cr_expect_eq(get64(TABLE_1, 1) & (A | D), 0, "what has changed is not marked");
    put64(TABLE_1, 1, 32 * PAGE | P | W | A | D);
    cr_expect(can_while_entry_changes(ASSIST_WRITE, LINEAR_4, TABLE_1 + 8, IGNORED), "nothing is to be marked");
}

/* Whenever in the first walk, or in the next few, the guest comes to rest: there is one more try. */
Test(assist_memory, walks_again_where_an_entry_has_changed)
{
    for (changes_max = 1; changes_max < 300; changes_max += 7) {
        four_levels(P | W);
        cr_expect(can_while_entry_changes(ASSIST_READ, LINEAR_4, TABLE_4 + 255 * 8, IGNORED), "%u changes",
                  changes_max);
        cr_expect_eq(get64(TABLE_4, 255) & A, A);
    }
}

Test(assist_memory, gives_up_on_a_short_entry_that_changes_for_ever)
{
    changes_max = CHANGES_MAX;
    flat(false);
    sregs.cr0 = CR0_PE | CR0_PG;
    sregs.cr3 = TABLE_4;
    put32(TABLE_4, 0, (uint32_t)(TABLE_3 | P | W));
    put32(TABLE_3, 4, (uint32_t)(33 * PAGE | P | W));
    cr_expect(can_while_entry_changes(ASSIST_WRITE, 4 * PAGE, TABLE_3 + 16, PAGE << 32), "its neighbour");
    put32(TABLE_3, 4, (uint32_t)(33 * PAGE | P | W));
    cr_expect_not(can_while_entry_changes(ASSIST_WRITE, 4 * PAGE, TABLE_3 + 16, PAGE));
    cr_expect_eq(get32(TABLE_3, 4) & (A | D), 0);
}

/* Tables of random entries, also such as lead to themselves: no walk leaves guest memory, and whatever it finds is
 * there. */
Test(assist_memory, survives_random_tables)
{
    struct random random = {.state = SEED};
    uint32_t found = 0;

    four_levels(P | W);
    for (uint32_t round = 0; round < 2000; round++) {
        for (uint64_t i = 0; i < 8 * 512; i++) {
            uint64_t entry = random_u64(&random) & (NX | (RAM_BYTES * 2 - 1));

            put64(0, i, random_one_in(&random, 20) ? random_u64(&random) : entry | (random_one_in(&random, 8) ? 0 : P));
        }
        sregs.cr3 = random_below(&random, 8) * PAGE;
        sregs.cr4 = random_one_in(&random, 3) ? 0 : CR4_PAE;
        sregs.efer = sregs.cr4 != 0 && random_one_in(&random, 2) ? EFER_LMA | EFER_NXE : EFER_NXE;
        for (uint32_t i = 0; i < 64; i++) {
            enum assist_access access = (enum assist_access)random_below(&random, 3);
            uint64_t linear = sregs.efer & EFER_LMA ? random_u64(&random) >> 17 : (uint32_t)random_u64(&random);
            size_t bytes = 1 + random_below(&random, 16);

            if (assist_memory_find(&memory, linear, bytes, access, &span, &fault)) {
                found++;
                cr_assert_eq(span.bytes[0] + span.bytes[1], bytes);
                for (int part = 0; part < 2 && span.bytes[part] > 0; part++) {
                    cr_assert(loam_fits(span.gpa[part].value, span.bytes[part], RAM_BYTES));
                }
            }
        }
    }
    cr_assert_gt(found, 100, "%" PRIu32 " found, seed 0x%" PRIx64, found, SEED);
}
