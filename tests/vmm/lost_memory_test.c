// SPDX-License-Identifier: Apache-2.0
#include "vmm/lost_memory.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE      UINT64_C(4096)
#define RAM       UINT64_C(0x100000)
#define RAM_PAGES UINT64_C(10000) /* more than are asked about at once */
#define CUT_AT    UINT64_C(9000)  /* pages of the file */

static _Alignas(64) uint8_t map_memory[65536];
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;
static uint8_t *hva;

static void set_up(void)
{
    struct loam_region region = {.start = {RAM}, .bytes = RAM_PAGES * PAGE, .access = LOAM_ACCESS_WRITE};
    struct loam_region device = {.start = {0xd0000000}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};
    int fd = memfd_create("cut", MFD_CLOEXEC);

    cr_assert_eq(ftruncate(fd, (off_t)(CUT_AT * PAGE)), 0);
    hva = mmap(NULL, RAM_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(hva, MAP_FAILED);
    close(fd);
    region.hva = hva;
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &device), LOAM_OK);
    view = loam_gpa_map_acquire(map);
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
    cr_expect_eq(munmap(hva, RAM_PAGES * PAGE), 0);
}

TestSuite(lost_memory, .init = set_up, .fini = tear_down);

static bool is_lost(uint64_t gpa)
{
    return lost_memory_ask(view, loam_gpa_from_u64(gpa)) != 0;
}

Test(lost_memory, a_page_is_lost_where_the_host_has_none)
{
    cr_expect_not(is_lost(RAM));
    cr_expect_not(is_lost(RAM + CUT_AT * PAGE - 1));
    cr_expect(is_lost(RAM + CUT_AT * PAGE));
    cr_expect(is_lost(RAM + RAM_PAGES * PAGE - 1));
    cr_expect_not(is_lost(RAM - 1), "a hole has none to lose");
    cr_expect_not(is_lost(0xd0000000), "nor has a device");
}

/* Asking populates, and what was written stays. */
Test(lost_memory, asking_changes_nothing_that_a_guest_sees)
{
    hva[5] = 77;
    cr_expect_not(is_lost(RAM));
    cr_expect_eq(hva[5], 77);
}

Test(lost_memory, the_first_that_is_missing_is_found)
{
    loam_gpa gpa;

    memset(hva, 1, CUT_AT * PAGE);
    cr_assert(lost_memory_find(view, &gpa));
    cr_assert_eq(gpa.value, RAM + CUT_AT * PAGE, "0x%" PRIx64, gpa.value);
}

/* Up to 8 pages that nobody has touched yet are tried on the way, and no more: RAM may be large. */
Test(lost_memory, pages_that_nobody_touched_do_not_hide_it)
{
    loam_gpa gpa;

    memset(hva, 1, (CUT_AT - 7) * PAGE);
    cr_assert(lost_memory_find(view, &gpa));
    cr_assert_eq(gpa.value, RAM + CUT_AT * PAGE);
    cr_assert_eq(madvise(hva, CUT_AT * PAGE, MADV_REMOVE), 0);
    memset(hva, 1, (CUT_AT - 8) * PAGE);
    cr_assert_not(lost_memory_find(view, &gpa));
    cr_assert_eq(gpa.value, 0);
}

/* --- One access --------------------------------------------------------------------------------------------------- */

/* What lost_memory_contradicts says; *lost is UINT64_MAX where it denies. */
static uint64_t contradicted(uint64_t gpa, uint32_t bytes, bool is_write)
{
    loam_gpa lost;

    return lost_memory_contradicts(view, loam_gpa_from_u64(gpa), bytes, is_write, &lost) ? lost.value : UINT64_MAX;
}

#define END (RAM + RAM_PAGES * PAGE)

Test(lost_memory, an_access_that_the_map_grants_is_no_device_s)
{
    for (int is_write = 0; is_write < 2; is_write++) {
        cr_expect_eq(contradicted(RAM + 5, 4, is_write), RAM + 5);
        cr_expect_eq(contradicted(RAM - 1, 1, is_write), UINT64_MAX, "a hole");
        cr_expect_eq(contradicted(RAM - 8, 8, is_write), UINT64_MAX, "up to the region");
        cr_expect_eq(contradicted(RAM - 4, 8, is_write), RAM, "its second half");
        cr_expect_eq(contradicted(END - 4, 8, is_write), END - 4, "its first half");
        cr_expect_eq(contradicted(END, 8, is_write), UINT64_MAX);
        cr_expect_eq(contradicted(0xd0000000, 4, is_write), UINT64_MAX, "a device");
        cr_expect_eq(contradicted(0xd0000000 - 4, 8, is_write), UINT64_MAX);
    }
}

/* Only writes to it are a device's. */
Test(lost_memory, read_only_memory_is_read)
{
    cr_assert_eq(loam_gpa_map_protect(map, loam_gpa_from_u64(RAM), PAGE, LOAM_ACCESS_READ), LOAM_OK);
    loam_gpa_map_release(map, view);
    view = loam_gpa_map_acquire(map);
    cr_expect_eq(contradicted(RAM, 4, false), RAM);
    cr_expect_eq(contradicted(RAM, 4, true), UINT64_MAX);
    cr_expect_eq(contradicted(RAM + PAGE - 4, 8, true), RAM + PAGE);
    cr_expect_not(is_lost(RAM), "it is asked for by reading");
}

/* A file without a page at the front, in a region of two. */
Test(lost_memory, devices_and_regions_in_front_do_not_hide_it)
{
    struct loam_region device = {.start = {0}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};
    loam_gpa gpa;

    cr_assert_eq(loam_gpa_map_insert(map, &device), LOAM_OK);
    loam_gpa_map_release(map, view);
    view = loam_gpa_map_acquire(map);
    memset(hva, 1, CUT_AT * PAGE);
    cr_assert(lost_memory_find(view, &gpa));
    cr_expect_eq(gpa.value, RAM + CUT_AT * PAGE);
    cr_expect_not(is_lost(0));
}
