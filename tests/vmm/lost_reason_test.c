// SPDX-License-Identifier: Apache-2.0
#include "vmm/lost_reason.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define RAM  UINT64_C(0x100000)

/* What madvise(2) answers; 0: the truth. */
static int refusal;

int __real_madvise(void *address, size_t bytes, int advice);
int __wrap_madvise(void *address, size_t bytes, int advice);

int __wrap_madvise(void *address, size_t bytes, int advice)
{
    if (refusal != 0) {
        errno = refusal;
        return -1;
    }
    return __real_madvise(address, bytes, advice);
}

/* Two pages, of which the host supplies the first. */
static _Alignas(64) uint8_t map_memory[65536];
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;
static void *hva;

static void set_up(void)
{
    struct loam_region region = {.start = {RAM}, .bytes = 2 * PAGE, .access = LOAM_ACCESS_WRITE};
    int fd = memfd_create("cut", MFD_CLOEXEC);

    cr_assert_eq(ftruncate(fd, PAGE), 0);
    hva = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(hva, MAP_FAILED);
    close(fd);
    region.hva = hva;
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(map);
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
    munmap(hva, 2 * PAGE);
}

TestSuite(lost_reason, .init = set_up, .fini = tear_down);

static struct loam_plan make_plan(void)
{
    struct loam_memory_request request = {.bytes = 16 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    struct loam_diag diag = {0};
    struct loam_plan plan;

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    return plan;
}

Test(lost_reason, is_explained_in_one_line)
{
    struct lost_memory lost = {.is_known = true, .gpa = {RAM + PAGE + 8}, .how = "a write of 4 bytes"};
    struct loam_plan plan = make_plan();
    char text[640];

    lost_reason(view, &plan, &lost, text, sizeof text);
    cr_expect_str_eq(text,
                     "the host does not supply guest RAM at GPA 0x101008 (a write of 4 bytes; region [0x100000, "
                     "0x102000), 4 KiB pages): Bad address, and no limit that is known here explains it: a file behind "
                     "it may have been cut (see dmesg)");
    lost.is_known = false;
    lost_reason(view, &plan, &lost, text, sizeof text);
    cr_expect_not_null(strstr(text, "does not say where"), "%s", text);
    lost = (struct lost_memory){.is_known = true, .gpa = {RAM}, .how = "where rdi points"};
    lost_reason(view, &plan, &lost, text, sizeof text);
    cr_expect_not_null(strstr(text, "(where rdi points; "), "%s", text);
    cr_expect_not_null(strstr(text, "by now it can"), "%s", text);
}

/* Whatever stands against one page more is the likely reason: here a pool that no host has. */
Test(lost_reason, what_is_short_is_named)
{
    struct lost_memory lost = {.is_known = true, .gpa = {RAM + PAGE}, .how = "a read of 1 bytes"};
    struct loam_plan plan = make_plan();
    char text[640];

    plan.parts[0].pages = LOAM_PAGES_1G;
    plan.parts[0].page_bytes = UINT64_C(64) * LOAM_GIB; /* the tables for more would be short before it */
    lost_reason(view, &plan, &lost, text, sizeof text);
    cr_expect_not_null(strstr(text, "pool: 64 x 1 GiB hugepages wanted"), "%s", text);
    cr_expect_not_null(strstr(text, "--populate takes all of it at the start"), "%s", text);
}

Test(lost_reason, hardware_that_fails_is_not_a_limit)
{
    struct lost_memory lost = {.is_known = true, .gpa = {RAM + PAGE}, .how = "a read of 1 bytes"};
    struct loam_plan plan = make_plan();
    char text[640];

    refusal = EHWPOISON;
    lost_reason(view, &plan, &lost, text, sizeof text);
    cr_expect_str_eq(text, "the host does not supply guest RAM at GPA 0x101000 (a read of 1 bytes; region [0x100000, "
                           "0x102000), 4 KiB pages): the host reports a memory error there (see dmesg): its hardware "
                           "fails");
}

/* Of two that are short the pool comes last: a page may be reserved there. */
Test(lost_reason, a_limit_comes_before_the_pool)
{
    struct lost_memory lost = {.is_known = true, .gpa = {RAM + PAGE}, .how = "a read of 1 bytes"};
    const struct rlimit limit = {LOAM_MIB, RLIM_INFINITY};
    struct loam_plan plan = make_plan();
    char text[640];

    plan.request.parts[0].sharing = LOAM_SHARING_SHARED;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    lost_reason(view, &plan, &lost, text, sizeof text);
    cr_expect_not_null(strstr(text, "): file size: 2 MiB in one file wanted"), "2 MiB of small pages: %s", text);
    plan.parts[0].pages = LOAM_PAGES_1G;
    plan.parts[0].page_bytes = 256 * LOAM_GIB;
    lost_reason(view, &plan, &lost, text, sizeof text);
    cr_expect_not_null(strstr(text, "): file size: "), "%s", text);
}
