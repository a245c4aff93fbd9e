// SPDX-License-Identifier: Apache-2.0
/* Plans against a host that is made of scripted files, and one against the real host. */
#include "allocator/host/prim.h"
#include "loam/plan.h"
#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define POOL_2M "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define POOL_1G "/sys/kernel/mm/hugepages/hugepages-1048576kB/"
#define THP     "/sys/kernel/mm/transparent_hugepage/"

#define MOUNT_V2         "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define MOUNT_V1_MEMORY  "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
#define MOUNT_V1_HUGETLB "36 31 0:33 / /sys/fs/cgroup/hugetlb rw,relatime - cgroup cgroup rw,hugetlb\n"
#define MOUNT_OTHER      "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"

/* --- The host ----------------------------------------------------------------------------------------------------- */

static void script_figure(const char *path, uint64_t value)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRIu64 "\n", value);
    prim_fake_script_text(path, text);
}

static void script_pool(const char *dir, uint64_t total, uint64_t free_pages, uint64_t promised, uint64_t surplus,
                        uint64_t surplus_limit)
{
    const char *names[] = {"nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages",
                           "nr_overcommit_hugepages"};
    uint64_t values[] = {total, free_pages, promised, surplus, surplus_limit};
    char path[128];

    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s%s", dir, names[i]);
        script_figure(path, values[i]);
    }
}

static void script_node(uint32_t node, uint64_t free_kib, uint64_t total_2m, uint64_t free_2m)
{
    char path[128], text[256];

    snprintf(path, sizeof path, "/sys/devices/system/node/node%" PRIu32 "/meminfo", node);
    snprintf(text, sizeof text,
             "Node %" PRIu32 " MemTotal:       99999999 kB\nNode %" PRIu32 " MemFree:        %" PRIu64 " kB\n", node,
             node, free_kib);
    prim_fake_script_text(path, text);
    snprintf(path, sizeof path, "/sys/devices/system/node/node%" PRIu32 "/hugepages/hugepages-2048kB/nr_hugepages",
             node);
    script_figure(path, total_2m);
    snprintf(path, sizeof path, "/sys/devices/system/node/node%" PRIu32 "/hugepages/hugepages-2048kB/free_hugepages",
             node);
    script_figure(path, free_2m);
}

static void script_available(uint64_t kib)
{
    char text[256];

    snprintf(text, sizeof text,
             "MemTotal:       99999999 kB\nMemFree:            1 kB\nMemAvailable:   %" PRIu64
             " kB\nCommitLimit:    3000000 kB\nCommitted_AS:   2900000 kB\n",
             kib);
    prim_fake_script_text("/proc/meminfo", text);
}

/* Plenty of everything, version 2 of control groups, no limit. */
static void script_rich_host(void)
{
    prim_fake_script_none();
    prim_fake_script_only(true);
    script_pool(POOL_1G, 64, 64, 0, 0, 0);
    script_pool(POOL_2M, 8192, 8192, 0, 0, 0);
    script_node(0, 64 << 20, 4096, 4096);
    script_node(1, 64 << 20, 4096, 4096);
    script_available(64 << 20);
    prim_fake_script_text(THP "enabled", "always [madvise] never\n");
    prim_fake_script_text(THP "shmem_enabled", "always within_size [advise] never deny force\n");
    prim_fake_script_text("/proc/sys/vm/overcommit_memory", "0\n");
    prim_fake_script_text("/proc/self/cgroup", "0::/user.slice/loam\n");
    prim_fake_script_text("/proc/self/mountinfo", MOUNT_OTHER MOUNT_V2);
    prim_fake_script_text("/proc/self/status", "Name:\tloam\nVmPin:\t 0 kB\nVmLck:\t    1024 kB\n");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, UINT64_MAX);
}

static struct loam_plan plan;
static struct loam_diag diag;

static enum loam_error make(const struct loam_memory_request *request)
{
    memset(&plan, 0xa5, sizeof plan);
    memset(&diag, 0, sizeof diag);
    return loam_plan_make(request, &plan, &diag);
}

/* The plan of a request that is to succeed, on whatever host was scripted. */
static void make_ok(const struct loam_memory_request *request)
{
    enum loam_error error = make(request);

    cr_assert_eq(error, LOAM_OK, "%s: %s", loam_error_name(error), diag.text);
    cr_assert_leq(plan.check_count, LOAM_PLAN_CHECK_MAX);
}

static const struct loam_plan_check *check_of(enum loam_plan_resource resource)
{
    const struct loam_plan_check *found = NULL;

    for (uint32_t i = 0; i < plan.check_count; i++) {
        if (plan.checks[i].resource == resource) {
            cr_assert_null(found, "%s is checked twice", loam_plan_resource_name(resource));
            found = &plan.checks[i];
        }
    }
    return found;
}

static void assert_check(enum loam_plan_resource resource, uint64_t wanted, uint64_t found, const char *text)
{
    const struct loam_plan_check *check = check_of(resource);
    bool in_pages = resource == LOAM_PLAN_POOL || (resource == LOAM_PLAN_NODE && strstr(text, "hugepages") != NULL);

    cr_assert_not_null(check, "%s is not checked", loam_plan_resource_name(resource));
    cr_expect_eq(check->wanted, wanted, "%s: wanted %" PRIu64, check->text, check->wanted);
    cr_expect_eq(check->found, found, "%s: found %" PRIu64, check->text, check->found);
    cr_expect_eq(check->unit_bytes, in_pages ? plan.page_bytes : 1, "%s: in %" PRIu64, check->text, check->unit_bytes);
    cr_expect_eq(check->short_fall, wanted > found, "%s", check->text);
    cr_expect_str_eq(check->text, text, "\n%s\ninstead of\n%s", check->text, text);
}

/* Of the map's 66 tables, of 1,100 rows each, 4 are counted as metadata; the rest is address space alone. */
static uint64_t untouched_bytes(void)
{
    struct loam_gpa_map_config all = {.region_capacity = 1100, .table_capacity = 66}, some = all;

    some.table_capacity = 4;
    return loam_gpa_map_bytes(&all) - loam_gpa_map_bytes(&some);
}

/* Exactly this resource falls short. */
static void assert_only_short(enum loam_plan_resource resource)
{
    const struct loam_plan_check *check = loam_plan_shortfall(&plan);

    cr_assert_eq(plan.short_count, 1, "%" PRIu32 " fall short", plan.short_count);
    cr_assert_not_null(check);
    cr_expect_eq(check->resource, resource, "%s", check->text);
}

static void assert_none_short(void)
{
    const struct loam_plan_check *check = loam_plan_shortfall(&plan);

    cr_expect_eq(plan.short_count, 0);
    cr_expect_null(check, "%s", check->text);
}

/* What ordinary memory is wanted, whatever metadata, page tables and the process take. */
static uint64_t ordinary_wanted(uint64_t page_bytes)
{
    return plan.metadata_bytes + plan.table_bytes + plan.own_bytes + page_bytes;
}

TestSuite(plan, .init = script_rich_host);

/* --- Layout ------------------------------------------------------------------------------------------------------- */

Test(plan, names_every_resource)
{
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_POOL), "pool");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_NODE), "node");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_AVAILABLE), "available");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_CGROUP), "cgroup");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_MEMLOCK), "memlock");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_FILE_SIZE), "file size");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_ADDRESS_SPACE), "address space");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_DATA_SIZE), "data size");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_THREADS), "threads");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_VCPUS), "vcpus");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_SLOTS), "slots");
    cr_expect_str_eq(loam_plan_resource_name(LOAM_PLAN_RESOURCE_COUNT), "unknown");
    cr_expect_str_eq(loam_plan_resource_name((enum loam_plan_resource) - 1), "unknown");
}

Test(plan, lays_ram_out_on_both_sides_of_the_hole)
{
    static const struct {
        uint64_t bytes, low_limit_bytes, low_bytes, high_bytes;
    } cases[] = {
        {2 * LOAM_MIB, 0, 2 * LOAM_MIB, 0},
        {64 * LOAM_MIB, 0, 64 * LOAM_MIB, 0},
        {256 * LOAM_MIB, 0, 256 * LOAM_MIB, 0},
        {3 * LOAM_GIB - 4096, 0, 3 * LOAM_GIB - 4096, 0},
        {3 * LOAM_GIB, 0, 3 * LOAM_GIB, 0},
        {3 * LOAM_GIB + 4096, 0, 3 * LOAM_GIB, 4096},
        {7 * LOAM_GIB / 2, 0, 3 * LOAM_GIB, LOAM_GIB / 2},
        {6 * LOAM_GIB, 0, 3 * LOAM_GIB, 3 * LOAM_GIB},
        {6 * LOAM_GIB, 3 * LOAM_GIB, 3 * LOAM_GIB, 3 * LOAM_GIB},
        {24 * LOAM_MIB, 12 * LOAM_MIB, 12 * LOAM_MIB, 12 * LOAM_MIB},
        {24 * LOAM_MIB, 2 * LOAM_MIB, 2 * LOAM_MIB, 22 * LOAM_MIB},
        {24 * LOAM_MIB, 24 * LOAM_MIB, 24 * LOAM_MIB, 0},
        {24 * LOAM_MIB, 2 * LOAM_GIB, 24 * LOAM_MIB, 0},
        {16384 * LOAM_GIB, 0, 3 * LOAM_GIB, 16381 * LOAM_GIB},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_memory_request request = {
            .bytes = cases[i].bytes, .low_limit_bytes = cases[i].low_limit_bytes, .pages = LOAM_PAGES_4K};

        make_ok(&request);
        cr_expect_eq(plan.part_count, cases[i].high_bytes > 0 ? 2 : 1, "case %zu", i);
        cr_expect_eq(plan.parts[0].start.value, 0, "case %zu", i);
        cr_expect_eq(plan.parts[0].bytes, cases[i].low_bytes, "case %zu", i);
        cr_expect_eq(plan.parts[1].start.value, cases[i].high_bytes > 0 ? 4 * LOAM_GIB : 0, "case %zu", i);
        cr_expect_eq(plan.parts[1].bytes, cases[i].high_bytes, "case %zu", i);
        cr_expect_eq(plan.hole_start.value, cases[i].low_bytes, "case %zu", i);
        cr_expect_eq(plan.backing_page_count, cases[i].bytes / 4096, "case %zu", i);
    }
}

Test(plan, takes_ram_to_the_last_address_and_no_further)
{
    struct loam_memory_request request = {.bytes = LOAM_GPA_END - LOAM_GIB, .pages = LOAM_PAGES_4K};

    make_ok(&request);
    cr_expect_eq(plan.parts[1].start.value + plan.parts[1].bytes, LOAM_GPA_END);
    request.bytes += 4096;
    cr_expect_eq(make(&request), LOAM_ERROR_INVALID);
    request.bytes = UINT64_MAX - 4095;
    cr_expect_eq(make(&request), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "17592186044416 MiB of RAM asked: it would end beyond the 52-bit address space: ask "
                                "for at most 4194303 GiB");
}

Test(plan, replaces_zeros_by_what_they_mean)
{
    static const struct {
        uint64_t bytes, reserve_bytes, expected_bytes;
    } cases[] = {
        {256 * LOAM_MIB, 0, 16 * LOAM_MIB}, {64 * LOAM_MIB, 0, 4 * LOAM_MIB},
        {2 * LOAM_MIB, 0, 128 * LOAM_KIB},  {2 * LOAM_MIB + 4096, 0, 128 * LOAM_KIB},
        {6 * LOAM_GIB, 0, 16 * LOAM_MIB},   {64 * LOAM_MIB, UINT64_MAX, UINT64_MAX},
        {64 * LOAM_MIB, 8192, 8192},        {64 * LOAM_MIB, 64 * LOAM_MIB, 64 * LOAM_MIB},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_memory_request request = {
            .bytes = cases[i].bytes, .dma32_reserve_bytes = cases[i].reserve_bytes, .pages = LOAM_PAGES_4K};

        make_ok(&request);
        cr_expect_eq(plan.request.dma32_reserve_bytes, cases[i].expected_bytes, "case %zu", i);
        cr_expect_eq(plan.request.low_limit_bytes, 3 * LOAM_GIB);
        cr_expect_eq(plan.request.bytes, cases[i].bytes);
    }
}

Test(plan, refuses_malformed_requests_in_one_line)
{
    static const struct loam_memory_request requests[] = {
        {0},
        {.bytes = 2 * LOAM_MIB - 4096},
        {.bytes = 2 * LOAM_MIB + 1},
        {.bytes = 64 * LOAM_MIB, .low_limit_bytes = 2 * LOAM_MIB - 4096},
        {.bytes = 64 * LOAM_MIB, .low_limit_bytes = 3 * LOAM_GIB + 4096},
        {.bytes = 64 * LOAM_MIB, .low_limit_bytes = 4 * LOAM_MIB + 512},
        {.bytes = 64 * LOAM_MIB, .low_limit_bytes = UINT64_MAX},
        {.bytes = 64 * LOAM_MIB, .pages = LOAM_PAGES_COUNT},
        {.bytes = 64 * LOAM_MIB, .pages = (enum loam_pages) - 1},
        {.bytes = 64 * LOAM_MIB, .sharing = LOAM_SHARING_COUNT},
        {.bytes = 64 * LOAM_MIB, .commit = LOAM_COMMIT_COUNT},
        {.bytes = 64 * LOAM_MIB, .node_mask = 1},
        {.bytes = 64 * LOAM_MIB, .placement = LOAM_PLACEMENT_STRICT},
        {.bytes = 64 * LOAM_MIB, .placement = LOAM_PLACEMENT_INTERLEAVE},
        {.bytes = 64 * LOAM_MIB, .placement = LOAM_PLACEMENT_PREFERRED, .node_mask = 3},
        {.bytes = 64 * LOAM_MIB, .placement = LOAM_PLACEMENT_COUNT, .node_mask = 1},
        {.bytes = 64 * LOAM_MIB, .lock = true, .commit = LOAM_COMMIT_LAZY},
        {.bytes = 64 * LOAM_MIB, .dma32_reserve_bytes = 64 * LOAM_MIB + 4096},
        {.bytes = 64 * LOAM_MIB, .dma32_reserve_bytes = 4097},
        {.bytes = 64 * LOAM_MIB, .thread_count = LOAM_BACKING_THREAD_MAX + 1},
    };
    static const struct loam_plan zero;

    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        cr_expect_eq(make(&requests[i]), LOAM_ERROR_INVALID, "request %zu", i);
        cr_expect_eq(diag.error, LOAM_ERROR_INVALID, "request %zu", i);
        cr_expect(strlen(diag.text) > 20 && strchr(diag.text, '\n') == NULL, "request %zu: '%s'", i, diag.text);
        cr_expect_eq(memcmp(&plan, &zero, sizeof plan), 0, "request %zu leaves something in the plan", i);
        cr_expect_eq(loam_plan_make(&requests[i], &plan, NULL), LOAM_ERROR_INVALID, "request %zu", i);
    }
}

Test(plan, refuses_null_and_leaves_outputs_defined)
{
    struct loam_memory_request request = {.bytes = 64 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    struct loam_region regions[LOAM_PLAN_REGION_MAX];

    cr_expect_eq(loam_plan_make(&request, NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "plan: NULL given where a request and a place for the plan are wanted");
    make_ok(&request);
    cr_expect_eq(loam_plan_regions(&plan, NULL), 0);
    cr_expect_eq(loam_plan_make(NULL, &plan, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(plan.part_count, 0);
    cr_expect_eq(loam_plan_regions(&plan, regions), 0, "of a plan that was not made");
    cr_expect_eq(loam_plan_regions(NULL, regions), 0);
    cr_expect_null(loam_plan_shortfall(NULL));
}

Test(plan, refuses_page_kinds_that_do_not_divide_ram)
{
    struct loam_memory_request request = {.bytes = 256 * LOAM_MIB, .pages = LOAM_PAGES_1G};

    cr_expect_eq(make(&request), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "pages of 1 GiB need RAM below and above the hole in multiples of 1 GiB: 256 MiB and "
                                "0 KiB asked: ask for other sizes, or for smaller pages");
    request = (struct loam_memory_request){
        .bytes = 64 * LOAM_MIB, .low_limit_bytes = 12 * LOAM_MIB + 4096, .pages = LOAM_PAGES_2M};
    cr_expect_eq(make(&request), LOAM_ERROR_INVALID);
    request.pages = LOAM_PAGES_THP;
    make_ok(&request);
    cr_expect_eq(plan.page_bytes, 2 * LOAM_MIB);
    cr_expect_eq(plan.backing_page_count, 7 + 26);
}

Test(plan, lists_the_regions)
{
    struct loam_memory_request request = {
        .bytes = 24 * LOAM_MIB, .low_limit_bytes = 12 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    static const struct loam_region expected[] = {
        {{0}, 640 * LOAM_KIB, NULL, 0, 1, LOAM_REGION_RAM, LOAM_ACCESS_WRITE, false},
        {{640 * LOAM_KIB}, 384 * LOAM_KIB, NULL, 640 * LOAM_KIB, 1, LOAM_REGION_RESERVED, LOAM_ACCESS_WRITE, false},
        {{LOAM_MIB}, 11 * LOAM_MIB, NULL, LOAM_MIB, 1, LOAM_REGION_RAM, LOAM_ACCESS_WRITE, false},
        {{4 * LOAM_GIB}, 12 * LOAM_MIB, NULL, 0, 2, LOAM_REGION_RAM, LOAM_ACCESS_WRITE, false},
    };
    struct loam_region regions[LOAM_PLAN_REGION_MAX];

    for (uint32_t part_count = 1; part_count <= 2; part_count++) {
        request.bytes = part_count * 12 * LOAM_MIB;
        make_ok(&request);
        cr_assert_eq(loam_plan_regions(&plan, regions), 2 + part_count);
        for (uint32_t i = 0; i < 2 + part_count; i++) {
            cr_expect_eq(regions[i].start.value, expected[i].start.value, "region %" PRIu32, i);
            cr_expect_eq(regions[i].bytes, expected[i].bytes, "region %" PRIu32, i);
            cr_expect_null(regions[i].hva, "region %" PRIu32, i);
            cr_expect_eq(regions[i].backing_offset, expected[i].backing_offset, "region %" PRIu32, i);
            cr_expect_eq(regions[i].backing, expected[i].backing, "region %" PRIu32, i);
            cr_expect_eq(regions[i].type, expected[i].type, "region %" PRIu32, i);
            cr_expect_eq(regions[i].access, expected[i].access, "region %" PRIu32, i);
            cr_expect_eq(regions[i].log_dirty, expected[i].log_dirty, "region %" PRIu32, i);
        }
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Whatever is asked: the parts are RAM, exactly, and the regions are the parts, exactly. */
Test(plan, covers_every_byte_of_ram_once)
{
    uint64_t state = UINT64_C(0x10a3), regions_bytes;
    struct loam_region regions[LOAM_PLAN_REGION_MAX];

    for (int round = 0; round < 2000; round++) {
        struct loam_memory_request request = {
            .bytes = 2 * LOAM_MIB + (next_random(&state) % (1 << 21)) * 4096,
            .low_limit_bytes = round % 3 == 0 ? 0 : 2 * LOAM_MIB + (next_random(&state) % 785920) * 4096,
            .pages = LOAM_PAGES_THP,
        };
        uint64_t end = 0;

        make_ok(&request);
        cr_assert_eq(plan.parts[0].bytes + plan.parts[1].bytes, request.bytes, "round %d", round);
        cr_assert_leq(plan.parts[0].bytes, plan.request.low_limit_bytes, "round %d", round);
        regions_bytes = 0;
        for (uint32_t i = 0; i < loam_plan_regions(&plan, regions); i++) {
            cr_assert_geq(regions[i].start.value, end, "round %d", round);
            end = regions[i].start.value + regions[i].bytes;
            regions_bytes += regions[i].bytes;
        }
        cr_assert_eq(regions_bytes, request.bytes, "round %d", round);
    }
}

/* --- Pools -------------------------------------------------------------------------------------------------------- */

static const struct loam_memory_request request_2m = {.bytes = 256 * LOAM_MIB, .pages = LOAM_PAGES_2M};
static const struct loam_memory_request request_4k = {.bytes = 256 * LOAM_MIB, .pages = LOAM_PAGES_4K};

Test(plan, finds_the_pool_full_enough)
{
    script_pool(POOL_2M, 512, 512, 0, 0, 0);
    make_ok(&request_2m);
    assert_none_short();
    assert_check(LOAM_PLAN_POOL, 128, 512, "pool: 128 x 2 MiB hugepages wanted, 512 free");
    cr_expect_eq(check_of(LOAM_PLAN_POOL)->unit_bytes, 2 * LOAM_MIB);
    cr_expect_eq(plan.pages, LOAM_PAGES_2M);
    cr_expect_eq(plan.backing_page_count, 128);
    cr_expect_str_empty(plan.passed_over);
    script_pool(POOL_2M, 128, 128, 0, 0, 0);
    make_ok(&request_2m);
    assert_none_short();
}

Test(plan, says_how_to_raise_the_pool)
{
    script_pool(POOL_2M, 128, 40, 0, 0, 0);
    make_ok(&request_2m);
    assert_only_short(LOAM_PLAN_POOL);
    assert_check(LOAM_PLAN_POOL, 128, 40,
                 "pool: 128 x 2 MiB hugepages wanted, 40 free: raise the pool with: echo 216 > " POOL_2M
                 "nr_hugepages");
    script_pool(POOL_2M, 0, 0, 0, 0, 0);
    make_ok(&request_2m);
    assert_check(LOAM_PLAN_POOL, 128, 0,
                 "pool: 128 x 2 MiB hugepages wanted, 0 free: raise the pool with: echo 128 > " POOL_2M "nr_hugepages");
}

Test(plan, does_not_count_promised_hugepages)
{
    script_pool(POOL_2M, 200, 200, 73, 0, 0);
    make_ok(&request_2m);
    assert_only_short(LOAM_PLAN_POOL);
    cr_expect_eq(check_of(LOAM_PLAN_POOL)->found, 127);
    script_pool(POOL_2M, 200, 200, 72, 0, 0);
    make_ok(&request_2m);
    assert_none_short();
    script_pool(POOL_2M, 200, 50, 72, 0, 0);
    make_ok(&request_2m);
    cr_expect_eq(check_of(LOAM_PLAN_POOL)->found, 0);
}

Test(plan, counts_surplus_hugepages_and_the_memory_they_are_made_of)
{
    script_pool(POOL_2M, 40, 38, 0, 10, 100);
    make_ok(&request_2m);
    assert_none_short();
    cr_expect_eq(check_of(LOAM_PLAN_POOL)->found, 38 + 90);
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(90 * 2 * LOAM_MIB));
    script_pool(POOL_2M, 40, 38, 0, 11, 100);
    make_ok(&request_2m);
    assert_only_short(LOAM_PLAN_POOL);
    cr_expect_eq(check_of(LOAM_PLAN_POOL)->found, 38 + 89);
    script_pool(POOL_2M, 40, 38, 0, 10, UINT64_MAX);
    make_ok(&request_2m);
    cr_expect_eq(check_of(LOAM_PLAN_POOL)->found, UINT64_MAX);
    assert_none_short();
}

/* Surplus pages that a kind would have taken are no charge on the kind after it. */
Test(plan, forgets_the_surplus_of_pages_passed_over)
{
    struct loam_memory_request request = {.bytes = 256 * LOAM_MIB};

    script_pool(POOL_2M, 0, 0, 0, 0, 100);
    make_ok(&request);
    cr_expect_eq(plan.pages, LOAM_PAGES_THP);
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(256 * LOAM_MIB));
}

Test(plan, tells_that_the_host_has_no_such_pages)
{
    struct loam_memory_request request = {.bytes = LOAM_GIB, .pages = LOAM_PAGES_1G};

    make_ok(&request);
    assert_check(LOAM_PLAN_POOL, 1, 64, "pool: 1 x 1 GiB hugepages wanted, 64 free");
    prim_fake_script_text_error(POOL_1G "free_hugepages", ENOENT);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_POOL);
    assert_check(LOAM_PLAN_POOL, 1, 0,
                 "pool: 1 x 1 GiB hugepages wanted, 0 free: this host has no pages of that size: choose smaller ones");
}

Test(plan, tells_that_the_kernel_joins_no_pages)
{
    static const struct {
        enum loam_sharing sharing;
        bool private_given, shared_given, short_fall;
    } cases[] = {
        {LOAM_SHARING_ANY, true, true, false},      {LOAM_SHARING_ANY, true, false, false},
        {LOAM_SHARING_ANY, false, true, false},     {LOAM_SHARING_ANY, false, false, true},
        {LOAM_SHARING_PRIVATE, true, false, false}, {LOAM_SHARING_PRIVATE, false, true, true},
        {LOAM_SHARING_SHARED, true, false, true},   {LOAM_SHARING_SHARED, false, true, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_memory_request request = {
            .bytes = 256 * LOAM_MIB, .pages = LOAM_PAGES_THP, .sharing = cases[i].sharing};

        prim_fake_script_text(THP "enabled",
                              cases[i].private_given ? "always [madvise] never\n" : "always madvise [never]\n");
        prim_fake_script_text(THP "shmem_enabled", cases[i].shared_given ? "always [advise] never deny force\n"
                                                                         : "always advise never [deny] force\n");
        make_ok(&request);
        cr_expect_eq(plan.short_count, cases[i].short_fall, "case %zu", i);
        cr_expect_eq(check_of(LOAM_PLAN_POOL) != NULL, cases[i].short_fall, "case %zu", i);
    }
}

Test(plan, says_how_to_allow_transparent_hugepages)
{
    struct loam_memory_request request = {
        .bytes = 256 * LOAM_MIB, .pages = LOAM_PAGES_THP, .sharing = LOAM_SHARING_PRIVATE};

    prim_fake_script_text(THP "enabled", "always madvise [never]\n");
    make_ok(&request);
    assert_only_short(LOAM_PLAN_POOL);
    assert_check(LOAM_PLAN_POOL, 128, 0,
                 "pool: transparent hugepages in private memory wanted, the kernel gives none: allow them with: echo "
                 "madvise > " THP "enabled");
    request.sharing = LOAM_SHARING_SHARED;
    prim_fake_script_text_error(THP "shmem_enabled", ENOENT);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_POOL);
    assert_check(LOAM_PLAN_POOL, 128, 0,
                 "pool: transparent hugepages in shared memory wanted, the kernel gives none: allow them with: echo "
                 "advise > " THP "shmem_enabled");
}

/* --- Parts -------------------------------------------------------------------------------------------------------- */

struct placed {
    uint64_t start, bytes;
    uint32_t asked;
    enum loam_pages pages;
};

static void assert_placed(const struct placed *expected, uint32_t count, uint64_t hole_start)
{
    cr_assert_eq(plan.part_count, count, "%" PRIu32 " parts", plan.part_count);
    for (uint32_t i = 0; i < count; i++) {
        const struct loam_plan_part *part = &plan.parts[i];

        cr_expect(part->start.value == expected[i].start && part->bytes == expected[i].bytes,
                  "part %" PRIu32 ": %#" PRIx64 " bytes at %#" PRIx64, i, part->bytes, part->start.value);
        cr_expect(part->asked == expected[i].asked && part->pages == expected[i].pages, "part %" PRIu32, i);
        cr_expect_eq(part->page_bytes, loam_pages_bytes(part->pages));
        cr_expect_eq(part->page_count, part->bytes / part->page_bytes);
    }
    cr_expect_eq(plan.hole_start.value, hole_start);
}

Test(plan, lays_the_largest_pages_out_first)
{
    struct loam_memory_request request = {.part_count = 3,
                                          .parts = {{.bytes = 256 * LOAM_MIB, .pages = LOAM_PAGES_4K},
                                                    {.bytes = 4 * LOAM_GIB, .pages = LOAM_PAGES_1G},
                                                    {.bytes = 64 * LOAM_MIB, .pages = LOAM_PAGES_2M}}};

    make_ok(&request);
    assert_none_short();
    assert_placed((struct placed[]){{0, 3 * LOAM_GIB, 1, LOAM_PAGES_1G},
                                    {4 * LOAM_GIB, LOAM_GIB, 1, LOAM_PAGES_1G},
                                    {5 * LOAM_GIB, 64 * LOAM_MIB, 2, LOAM_PAGES_2M},
                                    {5 * LOAM_GIB + 64 * LOAM_MIB, 256 * LOAM_MIB, 0, LOAM_PAGES_4K}},
                  4, 3 * LOAM_GIB);
    cr_expect(plan.pages == LOAM_PAGES_AUTO && plan.page_bytes == LOAM_GIB);
    cr_expect_eq(plan.backing_page_count, 4 + 32 + 65536);
    cr_expect_eq(plan.request.bytes, 4 * LOAM_GIB + 320 * LOAM_MIB);
    cr_expect_not(plan.populates);
    cr_expect(plan.parts[3].populates && !plan.parts[0].populates);
}

/* What whole pages leave below the hole, smaller ones take. */
Test(plan, fills_what_is_left_below_the_hole_with_smaller_pages)
{
    struct loam_memory_request request = {.low_limit_bytes = LOAM_GIB + 3 * LOAM_MIB + 4096,
                                          .part_count = 3,
                                          .parts = {{.bytes = 2 * LOAM_GIB, .pages = LOAM_PAGES_1G},
                                                    {.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_2M},
                                                    {.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_4K}}};

    make_ok(&request);
    assert_placed((struct placed[]){{0, LOAM_GIB, 0, LOAM_PAGES_1G},
                                    {LOAM_GIB, 2 * LOAM_MIB, 1, LOAM_PAGES_2M},
                                    {LOAM_GIB + 2 * LOAM_MIB, LOAM_MIB + 4096, 2, LOAM_PAGES_4K},
                                    {4 * LOAM_GIB, LOAM_GIB, 0, LOAM_PAGES_1G},
                                    {5 * LOAM_GIB, 2 * LOAM_MIB, 1, LOAM_PAGES_2M},
                                    {5 * LOAM_GIB + 2 * LOAM_MIB, 3 * LOAM_MIB - 4096, 2, LOAM_PAGES_4K}},
                  6, LOAM_GIB + 3 * LOAM_MIB + 4096);
}

Test(plan, a_list_of_one_is_the_ordinary_request)
{
    struct loam_memory_request ordinary = request_2m, list = {.part_count = 1};
    struct loam_plan expected;

    ordinary.lock = true;
    list.parts[0] = (struct loam_backing_request){.bytes = ordinary.bytes, .pages = LOAM_PAGES_2M, .lock = true};
    make_ok(&ordinary);
    expected = plan;
    make_ok(&list);
    cr_expect_eq(memcmp(&plan, &expected, sizeof plan), 0);
    list = plan.request;
    make_ok(&list);
    cr_expect_eq(memcmp(&plan, &expected, sizeof plan), 0, "a plan's request leads to the same plan");
}

static uint64_t count_checks(enum loam_plan_resource resource)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < plan.check_count; i++) {
        count += plan.checks[i].resource == resource;
    }
    return count;
}

static void assert_says(const char *text)
{
    bool says = false;

    for (uint32_t i = 0; i < plan.check_count; i++) {
        says = says || strncmp(plan.checks[i].text, text, strlen(text)) == 0;
    }
    cr_expect(says, "no check says: %s", text);
}

Test(plan, checks_each_kind_of_page_and_adds_the_parts_up)
{
    struct loam_memory_request request = {
        .slot_limit = 8,
        .part_count = 4,
        .parts = {{.bytes = 2 * LOAM_GIB, .pages = LOAM_PAGES_1G, .lock = true},
                  {.bytes = 8 * LOAM_MIB,
                   .pages = LOAM_PAGES_2M,
                   .placement = LOAM_PLACEMENT_STRICT,
                   .node_mask = 2,
                   .sharing = LOAM_SHARING_PRIVATE},
                  {.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_2M, .placement = LOAM_PLACEMENT_STRICT, .node_mask = 2},
                  {.bytes = 64 * LOAM_MIB,
                   .pages = LOAM_PAGES_4K,
                   .placement = LOAM_PLACEMENT_STRICT,
                   .node_mask = 1,
                   .lock = true}}};

    prim_fake_script_limit(LOAM_PRIM_LIMIT_DATA, 64 * LOAM_GIB);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_FILE_SIZE, 64 * LOAM_GIB);
    make_ok(&request);
    assert_none_short();
    cr_expect_eq(count_checks(LOAM_PLAN_POOL), 2);
    cr_expect_eq(count_checks(LOAM_PLAN_NODE), 2);
    cr_expect_eq(count_checks(LOAM_PLAN_CGROUP), 3);
    assert_says("pool: 2 x 1 GiB hugepages wanted, 64 free");
    assert_says("pool: 6 x 2 MiB hugepages wanted, 8192 free");
    assert_says("node: 6 x 2 MiB hugepages on node 1 wanted, 4096 free");
    assert_says("node: 64 MiB of ordinary memory on node 0 wanted, 64 GiB free");
    assert_says("cgroup: 12 MiB of 2 MiB hugepages wanted, no limit");
    assert_says("memlock: 2112 MiB to be locked wanted");
    assert_says("file size: 2 GiB in one file wanted");
    assert_says("slots: 4 memory slots wanted, the hypervisor has 8");
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(64 * LOAM_MIB));
    script_pool(POOL_1G, 1, 1, 0, 0, 0);
    script_pool(POOL_2M, 5, 5, 0, 0, 0);
    make_ok(&request);
    cr_expect_eq(plan.short_count, 2);
    assert_says("pool: 2 x 1 GiB hugepages wanted, 1 free: raise the pool with: echo 2 > " POOL_1G "nr_hugepages");
    assert_says("pool: 6 x 2 MiB hugepages wanted, 5 free: raise the pool with: echo 6 > " POOL_2M "nr_hugepages");
}

/* What the caller brings is there: it takes page tables, and what is to be locked. */
Test(plan, takes_nothing_for_memory_that_is_adopted)
{
    int fd = memfd_create("theirs", MFD_CLOEXEC);
    struct loam_memory_request request = {.part_count = 2,
                                          .parts = {{.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_4K},
                                                    {.bytes = 4 * LOAM_GIB,
                                                     .pages = LOAM_PAGES_4K,
                                                     .adoption = LOAM_ADOPTION_FD,
                                                     .fd = fd,
                                                     .placement = LOAM_PLACEMENT_STRICT,
                                                     .node_mask = 2,
                                                     .lock = true}}};

    script_pool(POOL_2M, 0, 0, 0, 0, 0);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_FILE_SIZE, LOAM_GIB);
    cr_assert_eq(ftruncate(fd, 4 * LOAM_GIB), 0);
    make_ok(&request);
    assert_none_short();
    cr_expect_eq(count_checks(LOAM_PLAN_POOL), 0);
    cr_expect_eq(count_checks(LOAM_PLAN_NODE), 0);
    assert_says("memlock: 4 GiB to be locked wanted");
    assert_says("file size: 4 MiB in one file wanted");
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(4 * LOAM_MIB));
    cr_expect_eq(plan.parts[1].asked_offset + plan.parts[2].asked_offset, plan.parts[1].bytes);
    request.parts[1].pages = LOAM_PAGES_AUTO;
    make_ok(&request);
    cr_expect_eq(plan.parts[1].pages, LOAM_PAGES_4K, "as its file is made");
    request.parts[1].fd_offset = 4096;
    cr_expect_eq(make(&request), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, "make it larger first"), "%s", diag.text);
    request.parts[1].fd = 9999;
    cr_expect_eq(make(&request), LOAM_ERROR_SYSTEM, "the plan looks at it");
    close(fd);
}

/* Part after part, what earlier ones took is not there for later ones. */
Test(plan, chooses_the_pages_of_each_part_in_turn)
{
    struct loam_memory_request request = {.part_count = 3,
                                          .parts = {{.bytes = LOAM_GIB, .pages = LOAM_PAGES_AUTO},
                                                    {.bytes = LOAM_GIB, .pages = LOAM_PAGES_AUTO},
                                                    {.bytes = 8 * LOAM_MIB, .pages = LOAM_PAGES_AUTO}}};

    script_pool(POOL_1G, 1, 1, 0, 0, 0);
    script_pool(POOL_2M, 514, 514, 0, 0, 0);
    make_ok(&request);
    assert_none_short();
    assert_placed((struct placed[]){{0, LOAM_GIB, 0, LOAM_PAGES_1G},
                                    {LOAM_GIB, LOAM_GIB, 1, LOAM_PAGES_2M},
                                    {2 * LOAM_GIB, 8 * LOAM_MIB, 2, LOAM_PAGES_THP}},
                  3, 2 * LOAM_GIB + 8 * LOAM_MIB);
    cr_expect_str_eq(plan.passed_over,
                     "part 2, 1G: 2 x 1 GiB hugepages wanted, 1 free; part 3, 1G: a part of RAM is no "
                     "multiple of 1 GiB; part 3, 2M: 516 x 2 MiB hugepages wanted, 514 free");
    cr_expect_eq(plan.request.parts[1].pages, LOAM_PAGES_AUTO, "as asked");
}

/* Pages of 1 GiB would leave nothing at 0. */
Test(plan, leaves_ram_at_0)
{
    struct loam_memory_request request = {
        .low_limit_bytes = 512 * LOAM_MIB,
        .part_count = 2,
        .parts = {{.bytes = LOAM_GIB, .pages = LOAM_PAGES_1G}, {.bytes = LOAM_GIB, .pages = LOAM_PAGES_AUTO}}};

    make_ok(&request);
    assert_placed((struct placed[]){{0, 512 * LOAM_MIB, 1, LOAM_PAGES_2M},
                                    {4 * LOAM_GIB, LOAM_GIB, 0, LOAM_PAGES_1G},
                                    {5 * LOAM_GIB, 512 * LOAM_MIB, 1, LOAM_PAGES_2M}},
                  3, 512 * LOAM_MIB);
    request.parts[1].pages = LOAM_PAGES_1G;
    cr_expect_eq(make(&request), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text,
                     "pages of 1 GiB in all parts, and RAM below the hole up to 512 MiB: RAM has to begin at 0: "
                     "ask for a higher low limit, or for a part of smaller pages");
}

static void assert_list_refused(const struct loam_memory_request *request, const char *text)
{
    static const struct loam_plan zero;

    cr_expect_eq(make(request), LOAM_ERROR_INVALID, "%s", text);
    cr_expect_not_null(strstr(diag.text, text), "'%s' is not in: %s", text, diag.text);
    cr_expect_eq(memcmp(&plan, &zero, sizeof plan), 0);
}

Test(plan, refuses_lists_of_parts_in_one_line)
{
    const struct loam_memory_request good = {
        .part_count = 2, .parts = {{.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_2M}, {.bytes = 2 * LOAM_MIB}}};
    struct loam_memory_request bad[14];
    static const char *const says[14] = {
        "4194304 bytes of RAM asked, and 6291456 in 2 parts",
        "2 parts asked, and pages",
        "2 parts asked, and pages",
        "2 parts asked, and pages",
        "9 parts asked: ask for at most 8",
        "1 parts asked, and one more filled in",
        "part 2 of 2: 4096 bytes of RAM asked: ask for a multiple of 4 KiB, at least 2 MiB",
        "part 1 of 2: pages of 2 MiB need a multiple of 2 MiB: 5 MiB asked",
        "part 2 of 2: gpa, thread_count",
        "part 2 of 2: gpa, thread_count",
        "part 2 of 2: a name asked for private memory",
        "part 1 of 2: placement 0, node mask 0x1 asked: nodes go with a placement",
        "part 2 of 2: lock and LOAM_COMMIT_LAZY asked",
        "it would end beyond the 52-bit address space",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bad[i] = good;
    }
    bad[0].bytes = 4 * LOAM_MIB;
    bad[1].pages = LOAM_PAGES_2M;
    bad[2].lock = true;
    bad[3].placement = LOAM_PLACEMENT_STRICT;
    bad[3].node_mask = 1;
    bad[4].part_count = 9;
    bad[5].part_count = 1;
    bad[6].parts[1].bytes = 4096;
    bad[7].parts[0].bytes = 5 * LOAM_MIB;
    bad[8].parts[1].gpa.value = 4096;
    bad[9].parts[1].keep_from_dumps = true;
    bad[10].parts[1].name = "n";
    bad[10].parts[1].sharing = LOAM_SHARING_PRIVATE;
    bad[11].parts[0].node_mask = 1;
    bad[12].parts[1].lock = true;
    bad[12].parts[1].commit = LOAM_COMMIT_LAZY;
    bad[13].parts[1].bytes = bad[13].parts[0].bytes = UINT64_C(1) << 63;
    make_ok(&good);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_list_refused(&bad[i], says[i]);
    }
}

/* Everything that the head of plan_layout.c says, derived anew. */
static void assert_layout(const struct loam_memory_request *request, int round)
{
    uint64_t low_end = 0, high_end = 4 * LOAM_GIB, bytes_of[LOAM_MEMORY_PART_MAX] = {0}, covered = 0;
    struct loam_region regions[LOAM_PLAN_REGION_MAX];
    uint32_t region_count = loam_plan_regions(&plan, regions);

    for (uint32_t i = 0; i < plan.part_count; i++) {
        const struct loam_plan_part *part = &plan.parts[i];
        uint64_t unit = part->pages == LOAM_PAGES_THP ? 4096 : part->page_bytes;
        uint64_t *end = part->start.value < 4 * LOAM_GIB ? &low_end : &high_end;

        cr_assert(end == &high_end || high_end == 4 * LOAM_GIB, "round %d: not by address", round);
        cr_assert_eq(part->start.value, *end, "round %d: part %" PRIu32 " leaves a gap or overlaps", round, i);
        cr_assert_eq((part->start.value | part->bytes) % unit, 0, "round %d: part %" PRIu32, round, i);
        cr_assert_eq(part->pages, request->parts[part->asked].pages, "round %d", round);
        bytes_of[part->asked] += part->bytes;
        *end += part->bytes;
    }
    cr_assert(low_end == plan.hole_start.value && low_end <= plan.request.low_limit_bytes, "round %d", round);
    for (uint32_t i = 0; i < request->part_count; i++) {
        cr_assert_eq(bytes_of[i], request->parts[i].bytes, "round %d: part %" PRIu32, round, i);
    }
    for (uint32_t i = 0; i < region_count; i++) {
        const struct loam_plan_part *part = &plan.parts[regions[i].backing - 1];

        cr_assert_eq(regions[i].start.value, part->start.value + regions[i].backing_offset, "round %d", round);
        cr_assert(regions[i].backing_offset + regions[i].bytes <= part->bytes, "round %d", round);
        cr_assert(i == 0 || regions[i].start.value >= regions[i - 1].start.value + regions[i - 1].bytes);
        covered += regions[i].bytes;
    }
    cr_assert_eq(covered, plan.request.bytes, "round %d", round);
}

Test(plan, lays_out_any_list_of_parts_without_gap_or_overlap)
{
    static const enum loam_pages kinds[] = {LOAM_PAGES_1G, LOAM_PAGES_2M, LOAM_PAGES_THP, LOAM_PAGES_4K};
    uint32_t made = 0;

    srand(20260);
    for (int round = 0; round < 600; round++) {
        struct loam_memory_request request = {.part_count = 2 + (uint32_t)rand() % (LOAM_MEMORY_PART_MAX - 1)};

        request.low_limit_bytes = (512 + (uint64_t)rand() % (3 * 262144 - 511)) * 4096;
        for (uint32_t i = 0; i < request.part_count; i++) {
            enum loam_pages pages = kinds[rand() % 4];
            uint64_t unit = pages == LOAM_PAGES_THP ? 4096 : loam_pages_bytes(pages);

            request.parts[i].pages = pages;
            request.parts[i].bytes = unit * (1 + (uint64_t)rand() % 5) + (unit == 4096 ? 2 * LOAM_MIB : 0);
        }
        if (make(&request) == LOAM_OK) {
            assert_layout(&request, round);
            made++;
        } else {
            cr_assert_not_null(strstr(diag.text, "RAM has to begin at 0"), "%s", diag.text);
        }
    }
    cr_expect_gt(made, 500, "only %" PRIu32 " were laid out", made);
}

/* --- Nodes -------------------------------------------------------------------------------------------------------- */

Test(plan, holds_a_bound_plan_against_its_node)
{
    struct loam_memory_request request = request_2m;

    make_ok(&request);
    cr_expect_null(check_of(LOAM_PLAN_NODE));
    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 2;
    make_ok(&request);
    assert_none_short();
    assert_check(LOAM_PLAN_NODE, 128, 4096, "node: 128 x 2 MiB hugepages on node 1 wanted, 4096 free");
    script_node(1, 64 << 20, 130, 100);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_NODE);
    assert_check(LOAM_PLAN_NODE, 128, 100,
                 "node: 128 x 2 MiB hugepages on node 1 wanted, 100 free: raise the pool with: echo 158 > "
                 "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages");
    request.node_mask = 1;
    make_ok(&request);
    assert_none_short();
}

Test(plan, holds_each_kind_of_hugepage_against_its_node)
{
    struct loam_memory_request request = {
        .bytes = 2 * LOAM_GIB, .pages = LOAM_PAGES_1G, .placement = LOAM_PLACEMENT_STRICT, .node_mask = 1};

    script_node(0, 0, 5000, 5000);
    script_figure("/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", 4);
    script_figure("/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/free_hugepages", 1);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_NODE);
    assert_check(LOAM_PLAN_NODE, 2, 1,
                 "node: 2 x 1 GiB hugepages on node 0 wanted, 1 free: raise the pool with: echo 5 > "
                 "/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages");
}

Test(plan, holds_ordinary_pages_against_the_nodes_free_memory)
{
    struct loam_memory_request request = request_4k;

    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    script_node(0, 262144, 0, 0);
    make_ok(&request);
    assert_none_short();
    assert_check(LOAM_PLAN_NODE, 256 * LOAM_MIB, 256 * LOAM_MIB, "node: 256 MiB on node 0 wanted, 256 MiB free");
    script_node(0, 262143, 0, 0);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_NODE);
    assert_check(LOAM_PLAN_NODE, 256 * LOAM_MIB, 262143 * LOAM_KIB,
                 "node: 256 MiB on node 0 wanted, 255 MiB free: choose another node, or ask for less");
    prim_fake_script_text("/sys/devices/system/node/node0/meminfo",
                          "Node 0 MemFree: 1024 kB\nNode 0 Active(file): 2048 kB\nNode 0 Inactive(file): 4096 kB\n");
    make_ok(&request);
    cr_expect_eq(check_of(LOAM_PLAN_NODE)->found, 7 * LOAM_MIB);
    request.commit = LOAM_COMMIT_LAZY;
    make_ok(&request);
    assert_none_short();
}

Test(plan, tells_that_there_is_no_such_node)
{
    static const enum loam_pages kinds[] = {LOAM_PAGES_2M, LOAM_PAGES_4K, LOAM_PAGES_AUTO};

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct loam_memory_request request = {.bytes = 256 * LOAM_MIB,
                                              .pages = kinds[i],
                                              .placement = LOAM_PLACEMENT_STRICT,
                                              .node_mask = 1 << 7,
                                              .commit = LOAM_COMMIT_LAZY};

        make_ok(&request);
        assert_only_short(LOAM_PLAN_NODE);
        cr_expect_not_null(strstr(check_of(LOAM_PLAN_NODE)->text, "node 7 wanted"));
        cr_expect_not_null(strstr(check_of(LOAM_PLAN_NODE)->text,
                                  "there is no such node: choose one that /sys/devices/system/node/online lists"));
    }
}

Test(plan, adds_up_the_nodes_that_are_strict)
{
    struct loam_memory_request request = request_2m;

    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 3;
    script_node(0, 64 << 20, 70, 60);
    script_node(1, 64 << 20, 69, 68);
    make_ok(&request);
    assert_none_short();
    assert_check(LOAM_PLAN_NODE, 128, 128, "node: 128 x 2 MiB hugepages on nodes 0-1 wanted, 128 free");
    script_node(1, 64 << 20, 69, 67);
    make_ok(&request);
    assert_check(LOAM_PLAN_NODE, 128, 127,
                 "node: 128 x 2 MiB hugepages on nodes 0-1 wanted, 127 free: raise the pool with: echo 71 > "
                 "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages");
    request.node_mask = 5;
    make_ok(&request);
    cr_expect_not_null(strstr(check_of(LOAM_PLAN_NODE)->text, "on nodes 0,2 wanted, 0 free: there is no such node"));
}

/* Others serve where these have no more. */
Test(plan, wants_the_nodes_that_are_not_strict_to_be_there)
{
    struct loam_memory_request request = request_2m;

    request.placement = LOAM_PLACEMENT_INTERLEAVE;
    request.node_mask = 3;
    script_node(0, 0, 0, 0);
    make_ok(&request);
    assert_none_short();
    cr_expect_null(check_of(LOAM_PLAN_NODE));
    cr_expect_not(plan.populates, "a reservation will do");
    request.node_mask = UINT64_C(0x5555555555555555);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_NODE);
    cr_expect_str_eq(check_of(LOAM_PLAN_NODE)->text,
                     "node: 256 MiB on nodes of mask 0x5555555555555555 wanted (interleave): there is no such node: "
                     "choose one that /sys/devices/system/node/online lists");
    request.placement = LOAM_PLACEMENT_PREFERRED;
    request.node_mask = 1 << 7;
    make_ok(&request);
    cr_expect_not_null(strstr(check_of(LOAM_PLAN_NODE)->text, "node: 256 MiB on node 7 wanted (preferred): there is"));
}

/* --- Memory of the host ---------------------------------------------------------------------------------------------
 */

static uint64_t metadata_kib(void)
{
    return (plan.metadata_bytes + LOAM_KIB - 1) / LOAM_KIB;
}

Test(plan, holds_ordinary_memory_against_what_is_available)
{
    char text[256];

    make_ok(&request_4k);
    assert_none_short();
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(256 * LOAM_MIB));
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->found, 64 * LOAM_GIB);
    script_available(262144);
    make_ok(&request_4k);
    assert_only_short(LOAM_PLAN_AVAILABLE);
    snprintf(
        text, sizeof text,
        "available: 261 MiB of ordinary memory wanted, 256 MiB free (256 MiB of pages, 3 MiB of page tables, %" PRIu64
        " KiB of metadata, 1 MiB for the process): free memory on the host, or ask for less",
        metadata_kib());
    assert_check(LOAM_PLAN_AVAILABLE, ordinary_wanted(256 * LOAM_MIB), 256 * LOAM_MIB, text);
    script_available((ordinary_wanted(256 * LOAM_MIB) + LOAM_KIB - 1) / LOAM_KIB);
    make_ok(&request_4k);
    assert_none_short();
}

Test(plan, wants_no_ordinary_memory_for_hugepages)
{
    script_available(4096);
    make_ok(&request_2m);
    assert_none_short();
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(0));
    cr_expect_gt(plan.metadata_bytes, 0);
}

Test(plan, does_not_want_memory_that_is_left_to_first_touch)
{
    struct loam_memory_request request = request_4k;

    request.commit = LOAM_COMMIT_LAZY;
    script_available(4096);
    make_ok(&request);
    assert_none_short();
    cr_expect_not(plan.populates);
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(0));
    request.commit = LOAM_COMMIT_POPULATE;
    make_ok(&request);
    assert_only_short(LOAM_PLAN_AVAILABLE);
    cr_expect(plan.populates);
}

/* The parts of the sum, each by itself: 8 bytes a page for the host, 10 in a file's index, and what KVM keeps. */
Test(plan, counts_page_tables_and_the_process)
{
    const uint64_t frames = 256 * LOAM_MIB / 4096, upper = (1 + 1) * 4096;
    struct loam_memory_request request = request_4k;

    make_ok(&request);
    cr_expect_eq(plan.table_bytes, frames * 8 + 4096 + upper + frames * 10 + frames * 25, "%" PRIu64, plan.table_bytes);
    cr_expect_eq(plan.own_bytes, LOAM_MIB);
    request.sharing = LOAM_SHARING_PRIVATE;
    request.extra_bytes = 5 * LOAM_MIB;
    make_ok(&request);
    cr_expect_eq(plan.table_bytes, frames * 8 + 4096 + upper + frames * 25, "%" PRIu64, plan.table_bytes);
    cr_expect_eq(plan.own_bytes, 6 * LOAM_MIB);
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->wanted, ordinary_wanted(256 * LOAM_MIB));
    request.commit = LOAM_COMMIT_LAZY;
    make_ok(&request);
    cr_expect_eq(plan.table_bytes, frames * 8, "of what is left to first touch only KVM's index is there before it");
    make_ok(&request_2m);
    cr_expect_eq(plan.table_bytes, 4096 + 4096 + frames * 25, "%" PRIu64, plan.table_bytes);
    request.extra_bytes = UINT64_MAX;
    make_ok(&request);
    assert_only_short(LOAM_PLAN_AVAILABLE);
}

Test(plan, counts_fewer_tables_where_the_processor_walks_them)
{
    static const char *const switches[] = {"/sys/module/kvm_intel/parameters/ept",
                                           "/sys/module/kvm_amd/parameters/npt"};
    const uint64_t tables = 256 * LOAM_MIB / (2 * LOAM_MIB) + 1 + 1 + 1, frames = 256 * LOAM_MIB / 4096;

    for (size_t i = 0; i < 4; i++) {
        script_rich_host();
        prim_fake_script_text(switches[i / 2], i % 2 == 0 ? "Y\n" : "1\n");
        make_ok(&request_4k);
        cr_expect_eq(plan.table_bytes, tables * 4096 + frames * 10 + tables * (4096 + 256), "%" PRIu64,
                     plan.table_bytes);
        make_ok(&request_2m);
        cr_expect_eq(plan.table_bytes, 2 * 4096 + 2 * (4096 + 256), "%" PRIu64, plan.table_bytes);
        prim_fake_script_text(switches[i / 2], "N\n");
        make_ok(&request_4k);
        cr_expect_gt(plan.table_bytes, frames * 25);
    }
}

Test(plan, keeps_to_the_commit_limit_where_it_is_strict)
{
    prim_fake_script_text("/proc/sys/vm/overcommit_memory", "1\n");
    make_ok(&request_4k);
    assert_none_short();
    prim_fake_script_text("/proc/sys/vm/overcommit_memory", "2\n");
    make_ok(&request_4k);
    assert_only_short(LOAM_PLAN_AVAILABLE);
    cr_expect_eq(check_of(LOAM_PLAN_AVAILABLE)->found, 100000 * LOAM_KIB);
}

/* --- Control groups ----------------------------------------------------------------------------------------------- */

#define V2_LOAM "/sys/fs/cgroup/user.slice/loam/"
#define V2_USER "/sys/fs/cgroup/user.slice/"

static void script_limit(const char *dir, const char *limit, const char *used, uint64_t limit_bytes,
                         uint64_t used_bytes)
{
    char path[256];

    snprintf(path, sizeof path, "%s%s", dir, limit);
    script_figure(path, limit_bytes);
    snprintf(path, sizeof path, "%s%s", dir, used);
    script_figure(path, used_bytes);
}

/* Only so much room is left for request, and the file that says so is named. */
static void assert_room(const struct loam_memory_request *request, uint64_t room_bytes, const char *path)
{
    const struct loam_plan_check *check;

    make_ok(request);
    check = check_of(LOAM_PLAN_CGROUP);
    cr_assert_not_null(check);
    cr_expect_eq(check->found, room_bytes, "%" PRIu64 " instead of %" PRIu64, check->found, room_bytes);
    if (path == NULL) {
        assert_none_short();
    } else {
        assert_only_short(LOAM_PLAN_CGROUP);
        cr_expect_not_null(strstr(check->text, path), "%s: not named in: %s", path, check->text);
    }
}

Test(plan, finds_no_limit_in_groups_without_one)
{
    make_ok(&request_4k);
    assert_check(LOAM_PLAN_CGROUP, ordinary_wanted(256 * LOAM_MIB), UINT64_MAX,
                 "cgroup: 261 MiB of memory wanted, no limit");
    prim_fake_script_text(V2_LOAM "memory.max", "max\n");
    assert_room(&request_4k, UINT64_MAX, NULL);
    make_ok(&request_2m);
    assert_check(LOAM_PLAN_CGROUP, 256 * LOAM_MIB, UINT64_MAX, "cgroup: 256 MiB of hugepages wanted, no limit");
}

Test(plan, keeps_to_a_limit_of_version_2)
{
    script_limit(V2_LOAM, "memory.max", "memory.current", 300 * LOAM_MIB, 38 * LOAM_MIB);
    assert_room(&request_4k, 262 * LOAM_MIB, NULL);
    script_limit(V2_LOAM, "memory.max", "memory.current", 300 * LOAM_MIB, 100 * LOAM_MIB);
    assert_room(&request_4k, 200 * LOAM_MIB, V2_LOAM "memory.max");
    script_limit(V2_LOAM, "memory.max", "memory.current", 300 * LOAM_MIB, 400 * LOAM_MIB);
    assert_room(&request_4k, 0, V2_LOAM "memory.max");
}

Test(plan, proposes_a_limit_that_suffices)
{
    unsigned long long proposed;
    const char *command;

    script_limit(V2_LOAM, "memory.max", "memory.current", 300 * LOAM_MIB, 100 * LOAM_MIB);
    make_ok(&request_4k);
    command = strstr(check_of(LOAM_PLAN_CGROUP)->text, "raise it with: echo ");
    cr_assert_not_null(command, "%s", check_of(LOAM_PLAN_CGROUP)->text);
    cr_assert_eq(sscanf(command, "raise it with: echo %llu > " V2_LOAM "memory.max", &proposed), 1);
    script_limit(V2_LOAM, "memory.max", "memory.current", proposed, 100 * LOAM_MIB);
    make_ok(&request_4k);
    assert_none_short();
}

Test(plan, counts_cached_files_as_room)
{
    script_limit(V2_LOAM, "memory.max", "memory.current", 300 * LOAM_MIB, 288 * LOAM_MIB);
    prim_fake_script_text(V2_LOAM "memory.stat",
                          "anon 1\nfile 999999999\nshmem 5\ninactive_anon 7\nactive_anon 9\ninactive_file 209715200\n"
                          "active_file 52428800\nunevictable 0\n");
    assert_room(&request_4k, 262 * LOAM_MIB, NULL);
    prim_fake_script_text(V2_LOAM "memory.stat", "inactive_file 18446744073709551615\nactive_file 52428800\n");
    assert_room(&request_4k, 300 * LOAM_MIB, NULL);
}

Test(plan, keeps_to_the_tightest_of_nested_limits)
{
    script_limit(V2_LOAM, "memory.max", "memory.current", 1024 * LOAM_MIB, 0);
    script_limit(V2_USER, "memory.max", "memory.current", 2048 * LOAM_MIB, 2000 * LOAM_MIB);
    assert_room(&request_4k, 48 * LOAM_MIB, V2_USER "memory.max");
    script_limit(V2_LOAM, "memory.max", "memory.current", 1024 * LOAM_MIB, 976 * LOAM_MIB);
    assert_room(&request_4k, 48 * LOAM_MIB, V2_LOAM "memory.max");
    script_limit(V2_LOAM, "memory.max", "memory.current", 1024 * LOAM_MIB, 0);
    prim_fake_script_text(V2_USER "memory.max", "max\n");
    assert_room(&request_4k, 1024 * LOAM_MIB, NULL);
    script_limit("/sys/fs/cgroup/", "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, "/sys/fs/cgroup/memory.max");
}

static uint32_t count_reads(const char *path)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < prim_fake_record_count(); i++) {
        struct prim_fake_record call = prim_fake_record(i);

        count += call.kind == PRIM_READ_TEXT && strcmp(call.text, path) == 0;
    }
    return count;
}

/* However many kinds of pages are tried, and however many limits there are. */
Test(plan, finds_its_groups_once)
{
    struct loam_memory_request request = request_4k;

    request.pages = LOAM_PAGES_AUTO;
    prim_fake_forget();
    make_ok(&request);
    cr_assert_eq(count_reads("/proc/self/cgroup"), 1);
    cr_assert_eq(count_reads("/proc/self/mountinfo"), 1);
    prim_fake_forget();
    make_ok(&request);
    cr_assert_eq(count_reads("/proc/self/cgroup"), 1, "another plan looks again");
}

Test(plan, keeps_to_a_limit_of_version_1)
{
    prim_fake_script_text("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/c\n");
    prim_fake_script_text("/proc/self/mountinfo", MOUNT_OTHER MOUNT_V1_MEMORY);
    script_limit("/sys/fs/cgroup/memory/a/b/", "memory.limit_in_bytes", "memory.usage_in_bytes",
                 UINT64_C(9223372036854771712), 1);
    assert_room(&request_4k, UINT64_MAX, NULL);
    script_figure("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", UINT64_C(1) << 62);
    assert_room(&request_4k, UINT64_MAX, NULL);
    script_figure("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", (UINT64_C(1) << 62) - 1);
    assert_room(&request_4k, (UINT64_C(1) << 62) - 2, NULL);
    script_limit("/sys/fs/cgroup/memory/a/", "memory.limit_in_bytes", "memory.usage_in_bytes", 100 * LOAM_MIB,
                 30 * LOAM_MIB);
    assert_room(&request_4k, 70 * LOAM_MIB, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes");
    prim_fake_script_text("/sys/fs/cgroup/memory/a/memory.stat",
                          "inactive_file 1\nactive_file 1\ntotal_inactive_file 1048576\ntotal_active_file 2097152\n");
    assert_room(&request_4k, 73 * LOAM_MIB, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes");
}

/* Both versions at once: memory under version 1, hugetlb under version 2, and the other way round. */
Test(plan, keeps_to_the_limits_of_a_hybrid_host)
{
    prim_fake_script_text("/proc/self/cgroup", "4:memory:/a\n3:hugetlb:/h\n0::/b\n");
    prim_fake_script_text("/proc/self/mountinfo", MOUNT_V1_MEMORY MOUNT_OTHER
                          "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" MOUNT_V1_HUGETLB);
    script_limit("/sys/fs/cgroup/memory/a/", "memory.limit_in_bytes", "memory.usage_in_bytes", 200 * LOAM_MIB, 0);
    assert_room(&request_4k, 200 * LOAM_MIB, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes");
    script_limit("/sys/fs/cgroup/unified/b/", "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, "/sys/fs/cgroup/unified/b/memory.max");
    script_limit("/sys/fs/cgroup/unified/b/", "hugetlb.2MB.max", "hugetlb.2MB.current", 128 * LOAM_MIB, 0);
    assert_room(&request_2m, 128 * LOAM_MIB, "/sys/fs/cgroup/unified/b/hugetlb.2MB.max");
    script_limit("/sys/fs/cgroup/hugetlb/h/", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.usage_in_bytes", 64 * LOAM_MIB,
                 0);
    assert_room(&request_2m, 64 * LOAM_MIB, "/sys/fs/cgroup/hugetlb/h/hugetlb.2MB.limit_in_bytes");
}

Test(plan, keeps_to_each_limit_on_hugepages)
{
    static const struct {
        const char *limit, *used;
        enum loam_pages pages;
    } cases[] = {
        {"hugetlb.2MB.max", "hugetlb.2MB.current", LOAM_PAGES_2M},
        {"hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.current", LOAM_PAGES_2M},
        {"hugetlb.1GB.max", "hugetlb.1GB.current", LOAM_PAGES_1G},
        {"hugetlb.1GB.rsvd.max", "hugetlb.1GB.rsvd.current", LOAM_PAGES_1G},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_memory_request request = {.bytes = 2 * LOAM_GIB, .pages = cases[i].pages};
        char path[128];

        script_rich_host();
        script_limit(V2_LOAM, cases[i].limit, cases[i].used, 3 * LOAM_GIB, LOAM_GIB);
        assert_room(&request, 2 * LOAM_GIB, NULL);
        script_limit(V2_LOAM, cases[i].limit, cases[i].used, 3 * LOAM_GIB, 2 * LOAM_GIB);
        snprintf(path, sizeof path, V2_LOAM "%s", cases[i].limit);
        assert_room(&request, LOAM_GIB, path);
        request.pages = cases[i].pages == LOAM_PAGES_1G ? LOAM_PAGES_2M : LOAM_PAGES_1G;
        assert_room(&request, UINT64_MAX, NULL);
    }
}

Test(plan, keeps_to_each_limit_on_hugepages_of_version_1)
{
    static const struct {
        const char *limit, *used;
        enum loam_pages pages;
    } cases[] = {
        {"hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.usage_in_bytes", LOAM_PAGES_2M},
        {"hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.usage_in_bytes", LOAM_PAGES_2M},
        {"hugetlb.1GB.limit_in_bytes", "hugetlb.1GB.usage_in_bytes", LOAM_PAGES_1G},
        {"hugetlb.1GB.rsvd.limit_in_bytes", "hugetlb.1GB.rsvd.usage_in_bytes", LOAM_PAGES_1G},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_memory_request request = {.bytes = 2 * LOAM_GIB, .pages = cases[i].pages};
        char path[128];

        script_rich_host();
        prim_fake_script_text("/proc/self/cgroup", "3:hugetlb:/\n");
        prim_fake_script_text("/proc/self/mountinfo", MOUNT_V1_HUGETLB);
        script_limit("/sys/fs/cgroup/hugetlb/", cases[i].limit, cases[i].used, 3 * LOAM_GIB, 2 * LOAM_GIB);
        snprintf(path, sizeof path, "/sys/fs/cgroup/hugetlb/%s", cases[i].limit);
        assert_room(&request, LOAM_GIB, path);
    }
}

/* Hugepages are no memory to the memory controller, unless it was told so; metadata is. */
Test(plan, charges_hugepages_where_the_kernel_does)
{
    script_limit(V2_LOAM, "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_2m, UINT64_MAX, NULL);
    prim_fake_script_text("/proc/self/mountinfo",
                          "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_hugetlb_accounting\n");
    assert_room(&request_2m, 100 * LOAM_MIB, V2_LOAM "memory.max");
    cr_expect_eq(check_of(LOAM_PLAN_CGROUP)->wanted, ordinary_wanted(256 * LOAM_MIB));
    script_pool(POOL_2M, 0, 0, 0, 0, 128);
    make_ok(&request_2m);
    cr_expect_eq(check_of(LOAM_PLAN_CGROUP)->wanted, ordinary_wanted(256 * LOAM_MIB), "surplus pages counted twice");
    prim_fake_script_text("/proc/self/mountinfo", MOUNT_V2);
    script_pool(POOL_2M, 128, 128, 0, 0, 0);
    script_limit(V2_LOAM, "memory.max", "memory.current", 4096, 0);
    assert_room(&request_2m, 4096, V2_LOAM "memory.max");
    cr_expect_eq(check_of(LOAM_PLAN_CGROUP)->wanted, ordinary_wanted(0));
}

/* A container sees its own group as the mount's root, or a path from outside that its mount does not show. */
Test(plan, finds_groups_from_within_containers)
{
    prim_fake_script_text("/proc/self/cgroup", "0::/docker/0123/inner\n");
    prim_fake_script_text("/proc/self/mountinfo", "31 23 0:28 /docker/0123 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    script_limit("/sys/fs/cgroup/inner/", "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, "/sys/fs/cgroup/inner/memory.max");

    script_rich_host();
    script_limit("/sys/fs/cgroup/", "memory.max", "memory.current", 90 * LOAM_MIB, 0);
    script_limit("/sys/fs/cgroup/../../other/", "memory.max", "memory.current", 4096, 0);
    for (int i = 0; i < 5; i++) {
        static const char *const groups[] = {"0::/docker/0123\n", "0::/dock\n", "0::/../../other\n", "0::/\n",
                                             "0::/elsewhere\n"};
        static const char *const roots[] = {"/docker/0123", "/docker/0123", "/", "/", "/elsew"};
        char mount[128];

        prim_fake_script_text("/proc/self/cgroup", groups[i]);
        snprintf(mount, sizeof mount, "31 23 0:28 %s /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", roots[i]);
        prim_fake_script_text("/proc/self/mountinfo", mount);
        assert_room(&request_4k, 90 * LOAM_MIB, "/sys/fs/cgroup/memory.max");
    }
    prim_fake_script_text("/sys/fs/cgroup/memory.max", "many\n");
    cr_expect_eq(make(&request_4k), LOAM_ERROR_SYSTEM, "a limit that makes no sense is an error there, too");
}

Test(plan, prefers_the_mount_that_shows_the_group)
{
    prim_fake_script_text("/proc/self/cgroup", "7::/none\n0::/user.slice/loam\n");
    prim_fake_script_text("/proc/self/mountinfo", "30 23 0:28 /other /run/other rw - cgroup2 cgroup2 rw\n" MOUNT_V2
                                                  "33 23 0:28 /another /run/another rw - cgroup2 cgroup2 rw\n");
    script_limit("/run/other/", "memory.max", "memory.current", 4096, 0);
    script_limit("/run/another/", "memory.max", "memory.current", 4096, 0);
    script_limit(V2_LOAM, "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, V2_LOAM "memory.max");
}

/* A group that is the mount's root itself is shown, too. */
Test(plan, keeps_to_the_mount_whose_root_is_the_group)
{
    static const char *const groups[] = {"0::/docker/0123\n", "0::/\n"}, *const roots[] = {"/docker/0123", "/"};

    script_limit("/run/another/", "memory.max", "memory.current", 4096, 0);
    script_limit("/sys/fs/cgroup/", "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    for (size_t i = 0; i < 2; i++) {
        char mounts[256];

        snprintf(mounts, sizeof mounts,
                 "31 23 0:28 %s /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
                 "33 23 0:28 /another /run/another rw - cgroup2 cgroup2 rw\n",
                 roots[i]);
        prim_fake_script_text("/proc/self/cgroup", groups[i]);
        prim_fake_script_text("/proc/self/mountinfo", mounts);
        assert_room(&request_4k, 100 * LOAM_MIB, "/sys/fs/cgroup/memory.max");
    }
}

/* What does not fit a path is no folder that could be read; nothing is cut off until it fits. */
Test(plan, finds_no_limit_below_a_mount_point_beyond_all_paths)
{
    char mounts[6000];
    int used = snprintf(mounts, sizeof mounts, "31 23 0:28 / /");

    memset(mounts + used, 'x', 5000);
    snprintf(mounts + used + 5000, sizeof mounts - (size_t)used - 5000, " rw - cgroup2 cgroup2 rw\n");
    prim_fake_script_text("/proc/self/mountinfo", mounts);
    script_limit("/user.slice/loam/", "memory.max", "memory.current", 4096, 0);
    script_limit("/", "memory.max", "memory.current", 4096, 0);
    assert_room(&request_4k, UINT64_MAX, NULL);
    prim_fake_script_text("/proc/self/mountinfo", MOUNT_OTHER);
    assert_room(&request_4k, UINT64_MAX, NULL);
}

Test(plan, keeps_to_the_limit_above_a_group_beyond_all_paths)
{
    script_limit("/sys/fs/cgroup/", "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    for (size_t length = 4050; length < 4100; length++) {
        char groups[4200] = "0::/";

        memset(groups + 4, 'x', length);
        strcpy(groups + 4 + length, "\n");
        prim_fake_script_text("/proc/self/cgroup", groups);
        assert_room(&request_4k, 100 * LOAM_MIB, "/sys/fs/cgroup/memory.max");
    }
}

/* Three octal digits that make a byte; anything else stands for itself. */
Test(plan, reads_every_escaped_byte_and_nothing_else)
{
    static const struct {
        const char *written, *meant;
    } cases[] = {
        {"/a\\011b", "/a\tb"},    {"/a\\377b", "/a\377b"},  {"/a\\170b", "/axb"},     {"/a\\470b", "/a\\470b"},
        {"/a\\081b", "/a\\081b"}, {"/a\\018b", "/a\\018b"}, {"/a\\/00b", "/a\\/00b"}, {"/a\\0/0b", "/a\\0/0b"},
        {"/a\\00/b", "/a\\00/b"}, {"/a\\04", "/a\\04"},     {"/a\\0601", "/a01"},
    };

    prim_fake_script_text("/proc/self/cgroup", "0::/\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128];

        snprintf(text, sizeof text, "31 23 0:28 / %s rw - cgroup2 cgroup2 rw\n", cases[i].written);
        prim_fake_script_text("/proc/self/mountinfo", text);
        snprintf(text, sizeof text, "%s/", cases[i].meant);
        script_limit(text, "memory.max", "memory.current", 100 * LOAM_MIB, 0);
        make_ok(&request_4k);
        cr_expect_eq(check_of(LOAM_PLAN_CGROUP)->found, 100 * LOAM_MIB, "%s is not read as %s", cases[i].written,
                     cases[i].meant);
    }
}

Test(plan, reads_escaped_mount_points)
{
    prim_fake_script_text("/proc/self/mountinfo", "31 23 0:28 / /my\\040groups\\134x rw - cgroup2 cgroup2 rw\n");
    prim_fake_script_text("/proc/self/cgroup", "0::/a b:c\n");
    script_limit("/my groups\\x/a b:c/", "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, "/my groups\\x/a b:c/memory.max");
}

Test(plan, describes_a_group_whose_name_is_too_long_to_print)
{
    char group[512] = "0::/", path[600] = "/sys/fs/cgroup/";

    memset(group + 4, 'x', 400);
    strcpy(group + 404, "\n");
    memset(path + 15, 'x', 400);
    strcpy(path + 415, "/");
    prim_fake_script_text("/proc/self/cgroup", group);
    script_limit("/sys/fs/cgroup/", "memory.max", "memory.current", LOAM_GIB, 0);
    strcpy(path + 416, "memory.max");
    prim_fake_script_text(path, "104857600\n");
    assert_room(&request_4k, 100 * LOAM_MIB, "raise the limit of this process's control group to ");
}

/* Whatever stands in the lists of mounts and groups, a plan comes of it. */
Test(plan, survives_lists_that_make_no_sense)
{
    static const char *const texts[] = {"",
                                        "\n",
                                        "\n\n\n",
                                        ":",
                                        "0",
                                        "0:",
                                        "0::",
                                        "0::\n",
                                        "0::relative\n",
                                        "4:memory\n",
                                        "- - - - - -",
                                        "1 2 3 / /x rw - cgroup2",
                                        "1 2 3  - cgroup2 cgroup2 rw\n",
                                        "31 23 0:28 / /sys/fs/cgroup rw cgroup2 cgroup2 rw\n",
                                        "     \\\\\\",
                                        "1 2 3 / \\0 rw - cgroup2 x rw\n",
                                        "0::/..\n",
                                        "0::/a/../b\n",
                                        "0::////\n",
                                        "1 2 3 / relative rw - cgroup2 x rw\n",
                                        "1 2 3 / / rw - cgroup2 x rw\n"};
    size_t count = sizeof texts / sizeof texts[0];

    for (size_t i = 0; i <= count; i++) {
        for (size_t j = 0; j <= count; j++) {
            prim_fake_script_text("/proc/self/cgroup", i < count ? texts[i] : "0::/a/b\n");
            prim_fake_script_text("/proc/self/mountinfo", j < count ? texts[j] : MOUNT_V2);
            make_ok(&request_4k);
            cr_expect(prim_fake_clean());
        }
    }
}

Test(plan, reads_long_lists_of_mounts)
{
    enum { LINE_COUNT = 4000 };
    size_t used = 0;
    static char text[LINE_COUNT * 64 + sizeof MOUNT_V2];

    for (int i = 0; i < LINE_COUNT; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%d 1 0:9 / /mnt/%d rw - tmpfs tmpfs rw\n", i, i);
    }
    snprintf(text + used, sizeof text - used, "%s", MOUNT_V2);
    prim_fake_script_text("/proc/self/mountinfo", text);
    script_limit(V2_LOAM, "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, V2_LOAM "memory.max");
}

/* Beyond 8 MiB of mounts somebody is mistaken, and there is no telling what is missed. */
Test(plan, reads_lists_up_to_their_limit)
{
    enum { BYTES = 8 << 20 };
    char *text = malloc(BYTES + 1);

    cr_assert_not_null(text);
    memset(text, 'x', BYTES);
    strcpy(text + BYTES - sizeof MOUNT_V2, "\n" MOUNT_V2);
    cr_assert_eq(strlen(text), BYTES);
    prim_fake_script_text("/proc/self/mountinfo", text + 1);
    script_limit(V2_LOAM, "memory.max", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, V2_LOAM "memory.max");
    prim_fake_script_text("/proc/self/mountinfo", text);
    cr_expect_eq(make(&request_4k), LOAM_ERROR_SYSTEM);
    cr_expect_eq(diag.system_errno, EFBIG);
    cr_expect_not_null(strstr(diag.text, "/proc/self/mountinfo"), "%s", diag.text);
    free(text);
}

/* A file that is not there, or not for us to read, says nothing. Any other failure is one. */
Test(plan, tells_a_file_that_is_not_there_from_one_that_cannot_be_read)
{
    static const int absent[] = {ENOENT, ENOTDIR, ENODEV, EACCES, EPERM, EOPNOTSUPP};
    static const int failed[] = {EIO, EINTR, ENOMEM, EFBIG, EISDIR};
    static const char *const paths[] = {"/proc/self/mountinfo", V2_LOAM "memory.max"};

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        for (size_t j = 0; j < sizeof absent / sizeof absent[0]; j++) {
            prim_fake_script_text_error(paths[i], absent[j]);
            assert_room(&request_4k, UINT64_MAX, NULL);
        }
        for (size_t j = 0; j < sizeof failed / sizeof failed[0]; j++) {
            prim_fake_script_text_error(paths[i], failed[j]);
            cr_expect_eq(make(&request_4k), LOAM_ERROR_SYSTEM, "%s: %s", paths[i], strerror(failed[j]));
            cr_expect_eq(diag.system_errno, failed[j], "%s: %s", paths[i], diag.text);
        }
        prim_fake_script_text(paths[i], MOUNT_V2);
    }
}

/* --- Locking and slots -------------------------------------------------------------------------------------------- */

Test(plan, holds_a_locked_plan_against_the_limit)
{
    struct loam_memory_request request = request_2m;

    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 0);
    make_ok(&request);
    cr_expect_null(check_of(LOAM_PLAN_MEMLOCK));
    request.lock = true;
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, UINT64_MAX);
    make_ok(&request);
    assert_check(LOAM_PLAN_MEMLOCK, 256 * LOAM_MIB, UINT64_MAX, "memlock: 256 MiB to be locked wanted, no limit");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 257 * LOAM_MIB);
    make_ok(&request);
    assert_none_short();
    assert_check(LOAM_PLAN_MEMLOCK, 256 * LOAM_MIB, 256 * LOAM_MIB,
                 "memlock: 256 MiB to be locked wanted, 256 MiB allowed");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, 8 * LOAM_MIB);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_MEMLOCK);
    assert_check(LOAM_PLAN_MEMLOCK, 256 * LOAM_MIB, 7 * LOAM_MIB,
                 "memlock: 256 MiB to be locked wanted, 7 MiB allowed: raise the limit with: ulimit -l 263168");
    prim_fake_script_limit_error(LOAM_PRIM_LIMIT_LOCKED, EPERM);
    cr_expect_eq(make(&request), LOAM_ERROR_SYSTEM);
}

Test(plan, holds_slots_against_what_the_hypervisor_has)
{
    struct loam_memory_request request = {
        .bytes = 24 * LOAM_MIB, .low_limit_bytes = 12 * LOAM_MIB, .pages = LOAM_PAGES_4K, .extra_slots = 3};

    make_ok(&request);
    cr_expect_null(check_of(LOAM_PLAN_SLOTS));
    request.slot_limit = 5;
    make_ok(&request);
    assert_none_short();
    assert_check(LOAM_PLAN_SLOTS, 5, 5, "slots: 5 memory slots wanted, the hypervisor has 5");
    request.slot_limit = 4;
    make_ok(&request);
    assert_only_short(LOAM_PLAN_SLOTS);
    assert_check(LOAM_PLAN_SLOTS, 5, 4,
                 "slots: 5 memory slots wanted, the hypervisor has 4: ask for fewer beyond those of the RAM");
    request.bytes = 12 * LOAM_MIB;
    make_ok(&request);
    assert_none_short();
    request.extra_slots = UINT32_MAX;
    make_ok(&request);
    cr_expect_eq(check_of(LOAM_PLAN_SLOTS)->wanted, UINT64_C(0x100000000));
}

/* --- Limits of the process ---------------------------------------------------------------------------------------- */

Test(plan, holds_shared_memory_against_the_size_of_a_file)
{
    struct loam_memory_request request = {
        .bytes = 24 * LOAM_MIB, .low_limit_bytes = 8 * LOAM_MIB, .pages = LOAM_PAGES_4K};

    make_ok(&request);
    cr_expect_null(check_of(LOAM_PLAN_FILE_SIZE), "without a limit there is nothing to say");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_FILE_SIZE, 16 * LOAM_MIB);
    make_ok(&request);
    assert_none_short();
    assert_check(LOAM_PLAN_FILE_SIZE, 16 * LOAM_MIB, 16 * LOAM_MIB,
                 "file size: 16 MiB in one file wanted, 16 MiB allowed");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_FILE_SIZE, 16 * LOAM_MIB - 1);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_FILE_SIZE);
    assert_check(LOAM_PLAN_FILE_SIZE, 16 * LOAM_MIB, 16 * LOAM_MIB - 1,
                 "file size: 16 MiB in one file wanted, 15 MiB allowed: raise the limit with: ulimit -f 16384");
    request.sharing = LOAM_SHARING_PRIVATE;
    make_ok(&request);
    cr_expect_null(check_of(LOAM_PLAN_FILE_SIZE), "private memory is no file");
    request.sharing = LOAM_SHARING_ANY;
    request.pages = LOAM_PAGES_THP;
    make_ok(&request);
    assert_only_short(LOAM_PLAN_FILE_SIZE);
    prim_fake_script_text(THP "shmem_enabled", "always advise [never] deny force\n");
    make_ok(&request);
    assert_none_short();
    prim_fake_script_limit_error(LOAM_PRIM_LIMIT_FILE_SIZE, EPERM);
    request.pages = LOAM_PAGES_4K;
    cr_expect_eq(make(&request), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "RLIMIT_FSIZE"), "%s", diag.text);
}

Test(plan, holds_all_it_maps_against_the_address_space)
{
    struct loam_memory_request request = request_4k;
    uint64_t wanted, used = 5 * LOAM_MIB;
    char mend[64];

    prim_fake_script_text("/proc/self/status", "VmPeak:\t 9999 kB\nVmSize:\t    5120 kB\nVmLck:\t 0 kB\n");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_ADDRESS_SPACE, LOAM_GIB);
    request.extra_threads = 2;
    request.extra_bytes = 7 * LOAM_MIB;
    make_ok(&request);
    assert_none_short();
    wanted = check_of(LOAM_PLAN_ADDRESS_SPACE)->wanted;
    cr_expect_eq(check_of(LOAM_PLAN_ADDRESS_SPACE)->found, LOAM_GIB - used);
    cr_expect_eq(wanted, 256 * LOAM_MIB + 128 * LOAM_KIB + 2 * LOAM_MIB + untouched_bytes() + plan.metadata_bytes +
                             plan.own_bytes + 16 * LOAM_MIB);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_ADDRESS_SPACE, wanted + used);
    make_ok(&request);
    assert_none_short();
    prim_fake_script_limit(LOAM_PRIM_LIMIT_ADDRESS_SPACE, wanted + used - 1);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_ADDRESS_SPACE);
    snprintf(mend, sizeof mend, "raise the limit with: ulimit -v %" PRIu64, (wanted + used + 1023) / 1024);
    cr_expect_not_null(strstr(check_of(LOAM_PLAN_ADDRESS_SPACE)->text, mend), "%s instead of: %s", mend,
                       check_of(LOAM_PLAN_ADDRESS_SPACE)->text);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_STACK, LOAM_MIB);
    make_ok(&request);
    assert_none_short();
    cr_expect_eq(check_of(LOAM_PLAN_ADDRESS_SPACE)->wanted, wanted - 14 * LOAM_MIB);
}

Test(plan, holds_private_memory_against_the_size_of_data)
{
    struct loam_memory_request request = request_4k;

    prim_fake_script_text("/proc/self/status", "VmLck:\t 0 kB\nVmData:\t 1024 kB\n");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_DATA, 256 * LOAM_MIB);
    make_ok(&request);
    assert_none_short();
    cr_expect_eq(check_of(LOAM_PLAN_DATA_SIZE)->wanted, untouched_bytes() + plan.metadata_bytes + plan.own_bytes);
    cr_expect_eq(check_of(LOAM_PLAN_DATA_SIZE)->found, 255 * LOAM_MIB);
    request.sharing = LOAM_SHARING_PRIVATE;
    make_ok(&request);
    assert_only_short(LOAM_PLAN_DATA_SIZE);
    cr_expect_eq(check_of(LOAM_PLAN_DATA_SIZE)->wanted,
                 256 * LOAM_MIB + untouched_bytes() + plan.metadata_bytes + plan.own_bytes);
    cr_expect_not_null(strstr(check_of(LOAM_PLAN_DATA_SIZE)->text, "raise the limit with: ulimit -d "));
}

/* --- Threads and vCPUs -------------------------------------------------------------------------------------------- */

Test(plan, holds_threads_against_the_limit_of_the_user)
{
    struct loam_memory_request request = request_4k;

    request.extra_threads = 3;
    make_ok(&request);
    cr_expect_null(check_of(LOAM_PLAN_THREADS));
    prim_fake_script_text("/proc/loadavg", "0.00 0.00 0.00 1/90 4711\n");
    prim_fake_script_limit(LOAM_PRIM_LIMIT_THREADS, 93);
    make_ok(&request);
    assert_check(LOAM_PLAN_THREADS, 3, 3, "threads: 3 beside this one wanted, 3 left of RLIMIT_NPROC");
    cr_expect_eq(prim_fake_call_count(PRIM_USER_THREADS), 0, "one user's are not counted where all users' are few");
    prim_fake_script_user_threads(4);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_THREADS, 7);
    make_ok(&request);
    assert_none_short();
    cr_expect_eq(prim_fake_call_count(PRIM_USER_THREADS), 1);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_THREADS, 6);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_THREADS);
    assert_check(LOAM_PLAN_THREADS, 3, 2,
                 "threads: 3 beside this one wanted, 2 left of RLIMIT_NPROC: raise the limit with: ulimit -u 7");
    prim_fake_script_text("/proc/loadavg", "nonsense\n");
    cr_expect_eq(make(&request), LOAM_ERROR_SYSTEM);
}

Test(plan, counts_workers_that_were_asked_for)
{
    struct loam_memory_request request = request_4k;

    prim_fake_script_user_threads(4);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_THREADS, 8);
    request.extra_threads = 2;
    make_ok(&request);
    cr_expect_eq(check_of(LOAM_PLAN_THREADS)->wanted, 2, "Loam's own choice of workers does without them");
    request.extra_threads = 0;
    request.thread_count = 2;
    make_ok(&request);
    cr_expect_eq(check_of(LOAM_PLAN_THREADS)->wanted, 1, "two workers are one beside the calling thread");
    request.extra_threads = 2;
    request.thread_count = 6;
    make_ok(&request);
    assert_only_short(LOAM_PLAN_THREADS);
    cr_expect_eq(check_of(LOAM_PLAN_THREADS)->wanted, 5, "five workers beside the calling thread, before the caller's");
    request.commit = LOAM_COMMIT_LAZY;
    make_ok(&request);
    assert_none_short();
}

Test(plan, holds_threads_against_the_limit_of_a_group)
{
    struct loam_memory_request request = request_4k;

    request.extra_threads = 3;
    script_limit(V2_USER, "pids.max", "pids.current", 10, 8);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_THREADS);
    assert_check(
        LOAM_PLAN_THREADS, 3, 2,
        "threads: 3 beside this one wanted, 2 left of the control group's pids.max: raise it with: echo 11 > " V2_USER
        "pids.max");
    script_limit(V2_USER, "pids.max", "pids.current", 11, 8);
    make_ok(&request);
    assert_none_short();
    prim_fake_script_text("/proc/self/cgroup", "8:pids:/p\n");
    prim_fake_script_text("/proc/self/mountinfo", "36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
    script_limit("/sys/fs/cgroup/pids/p/", "pids.max", "pids.current", 2, 1);
    make_ok(&request);
    assert_only_short(LOAM_PLAN_THREADS);
    cr_expect_eq(check_of(LOAM_PLAN_THREADS)->found, 1);
}

/* Where both leave as much, what is said of the limit and how to raise it are of the same one. */
Test(plan, names_one_limit_where_two_leave_as_much)
{
    struct loam_memory_request request = request_4k;

    request.extra_threads = 3;
    prim_fake_script_text("/proc/loadavg", "0.00 0.00 0.00 1/90 4711\n");
    prim_fake_script_user_threads(4);
    prim_fake_script_limit(LOAM_PRIM_LIMIT_THREADS, 6);
    script_limit(V2_USER, "pids.max", "pids.current", 10, 8);
    make_ok(&request);
    assert_check(LOAM_PLAN_THREADS, 3, 2,
                 "threads: 3 beside this one wanted, 2 left of RLIMIT_NPROC: raise the limit with: ulimit -u 7");
}

/* A size that is refused is said to the last byte, in the largest unit that shows it. */
Test(plan, says_refused_sizes_exactly)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {LOAM_MIB, "low limit of 1 MiB asked"},
        {LOAM_MIB + 4096, "low limit of 1028 KiB asked"},
        {4 * LOAM_MIB + 512, "low limit of 4194816 bytes asked"},
        {4 * LOAM_GIB, "low limit of 4 GiB asked"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_memory_request request = {.bytes = 64 * LOAM_MIB, .low_limit_bytes = cases[i].bytes};
        struct loam_diag said = {0};
        struct loam_plan unused;

        cr_expect_eq(loam_plan_make(&request, &unused, &said), LOAM_ERROR_INVALID);
        cr_expect_not_null(strstr(said.text, cases[i].text), "%s", said.text);
    }
}

Test(plan, holds_vcpus_against_what_the_hypervisor_has)
{
    struct loam_memory_request request = request_4k;

    request.vcpu_count = 4;
    make_ok(&request);
    cr_expect_null(check_of(LOAM_PLAN_VCPUS));
    request.vcpu_limit = 4;
    make_ok(&request);
    assert_none_short();
    assert_check(LOAM_PLAN_VCPUS, 4, 4, "vcpus: 4 vCPUs wanted, the hypervisor has 4");
    request.vcpu_limit = 3;
    make_ok(&request);
    assert_only_short(LOAM_PLAN_VCPUS);
    assert_check(LOAM_PLAN_VCPUS, 4, 3, "vcpus: 4 vCPUs wanted, the hypervisor has 3: ask for fewer");
}

/* --- What is reserved, and charged only at first touch ------------------------------------------------------------- */

Test(plan, counts_hugepages_that_others_have_reserved_and_not_touched)
{
    script_limit(V2_LOAM, "hugetlb.2MB.max", "hugetlb.2MB.current", 300 * LOAM_MIB, 0);
    assert_room(&request_2m, 300 * LOAM_MIB, NULL);
    script_figure(V2_LOAM "hugetlb.2MB.rsvd.current", 44 * LOAM_MIB);
    assert_room(&request_2m, 256 * LOAM_MIB, NULL);
    script_figure(V2_LOAM "hugetlb.2MB.rsvd.current", 46 * LOAM_MIB);
    assert_room(&request_2m, 254 * LOAM_MIB, V2_LOAM "hugetlb.2MB.max");
    script_figure(V2_LOAM "hugetlb.2MB.current", 60 * LOAM_MIB);
    assert_room(&request_2m, 240 * LOAM_MIB, V2_LOAM "hugetlb.2MB.max");
    script_rich_host();
    prim_fake_script_text("/proc/self/cgroup", "3:hugetlb:/\n");
    prim_fake_script_text("/proc/self/mountinfo", MOUNT_V1_HUGETLB);
    script_limit("/sys/fs/cgroup/hugetlb/", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.usage_in_bytes", 300 * LOAM_MIB,
                 0);
    script_figure("/sys/fs/cgroup/hugetlb/hugetlb.2MB.rsvd.usage_in_bytes", 100 * LOAM_MIB);
    assert_room(&request_2m, 200 * LOAM_MIB, "/sys/fs/cgroup/hugetlb/hugetlb.2MB.limit_in_bytes");
}

/* A limit anywhere up to the root, however wide; not one on reservations, which cannot run short later. */
Test(plan, populates_where_touching_is_what_is_charged)
{
    static const struct {
        const char *dir, *limit, *used;
        bool populates;
    } cases[] = {
        {V2_LOAM, "hugetlb.2MB.max", "hugetlb.2MB.current", true},
        {V2_USER, "hugetlb.2MB.max", "hugetlb.2MB.current", true},
        {V2_LOAM, "hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.current", false},
        {V2_LOAM, "hugetlb.1GB.max", "hugetlb.1GB.current", false},
        {V2_LOAM, "memory.max", "memory.current", false},
    };
    static const enum loam_commit commits[] = {LOAM_COMMIT_RESERVE, LOAM_COMMIT_LAZY};

    make_ok(&request_2m);
    cr_expect_not(plan.populates);
    cr_expect_not(plan.charged_at_touch);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t j = 0; j < 2; j++) {
            struct loam_memory_request request = request_2m;

            script_rich_host();
            script_limit(cases[i].dir, cases[i].limit, cases[i].used, LOAM_GIB, 0);
            request.commit = commits[j];
            make_ok(&request);
            cr_expect_eq(plan.populates, cases[i].populates, "%s%s", cases[i].dir, cases[i].limit);
            cr_expect_eq(plan.charged_at_touch, cases[i].populates, "%s%s", cases[i].dir, cases[i].limit);
        }
    }
}

/* Version 2's brake is as good as a limit, and so is version 1's limit on memory and swap together. */
Test(plan, keeps_to_limits_beside_the_hard_one)
{
    script_limit(V2_LOAM, "memory.high", "memory.current", 100 * LOAM_MIB, 0);
    assert_room(&request_4k, 100 * LOAM_MIB, V2_LOAM "memory.high");
    script_rich_host();
    prim_fake_script_text("/proc/self/cgroup", "4:memory:/a\n");
    prim_fake_script_text("/proc/self/mountinfo", MOUNT_V1_MEMORY);
    script_limit("/sys/fs/cgroup/memory/a/", "memory.limit_in_bytes", "memory.usage_in_bytes", LOAM_GIB, 0);
    script_limit("/sys/fs/cgroup/memory/a/", "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes", LOAM_GIB,
                 900 * LOAM_MIB);
    assert_room(&request_4k, 124 * LOAM_MIB, "/sys/fs/cgroup/memory/a/memory.memsw.limit_in_bytes");
}

Test(plan, says_the_parts_of_what_a_group_is_charged)
{
    struct loam_memory_request request = request_4k;
    char text[256];

    script_limit(V2_LOAM, "memory.max", "memory.current", 300 * LOAM_MIB, 100 * LOAM_MIB);
    make_ok(&request);
    snprintf(text, sizeof text,
             "261 MiB of memory wanted, 200 MiB left of the limit (256 MiB of pages, 3 MiB of page tables, %" PRIu64
             " KiB of metadata, 1 MiB for the process): raise it with: echo ",
             metadata_kib());
    cr_expect_not_null(strstr(check_of(LOAM_PLAN_CGROUP)->text, text), "%s", check_of(LOAM_PLAN_CGROUP)->text);
    request.commit = LOAM_COMMIT_LAZY;
    make_ok(&request);
    assert_none_short();
    cr_expect_not_null(strstr(check_of(LOAM_PLAN_CGROUP)->text, "(beyond it a touch of RAM kills; "), "%s",
                       check_of(LOAM_PLAN_CGROUP)->text);
    script_limit(V2_LOAM, "memory.max", "memory.current", LOAM_GIB, 0);
    make_ok(&request);
    cr_expect_null(strstr(check_of(LOAM_PLAN_CGROUP)->text, "kills"));
}

/* --- Cancelling ---------------------------------------------------------------------------------------------------- */

static uint32_t asked_count, asked_limit;

static bool asked(void *self)
{
    cr_expect_eq(self, &asked_count);
    return asked_count++ == asked_limit;
}

Test(plan, ends_when_it_is_told_to)
{
    struct loam_memory_request request = {.bytes = 2 * LOAM_GIB, .cancel = {asked, &asked_count}};

    asked_limit = UINT32_MAX;
    make_ok(&request);
    cr_expect_gt(asked_count, 3);
    for (asked_limit = asked_count; asked_limit-- > 0;) {
        asked_count = 0;
        cr_expect_eq(make(&request), LOAM_ERROR_CANCELLED, "%" PRIu32, asked_limit);
        cr_expect_eq(plan.check_count, 0);
        cr_expect(prim_fake_clean());
    }
}

/* --- AUTO --------------------------------------------------------------------------------------------------------- */

static void assert_auto(uint64_t bytes, enum loam_pages expected, const char *passed_over)
{
    struct loam_memory_request request = {.bytes = bytes};

    make_ok(&request);
    cr_expect_eq(plan.pages, expected, "%s", loam_pages_name(plan.pages));
    cr_expect_eq(plan.page_bytes, loam_pages_bytes(expected));
    cr_expect_eq(plan.request.pages, LOAM_PAGES_AUTO);
    cr_expect_str_eq(plan.passed_over, passed_over, "\n%s\ninstead of\n%s", plan.passed_over, passed_over);
}

Test(plan, takes_the_largest_pages_that_divide)
{
    assert_auto(2 * LOAM_GIB, LOAM_PAGES_1G, "");
    assert_auto(256 * LOAM_MIB, LOAM_PAGES_2M, "1G: a part of RAM is no multiple of 1 GiB");
    assert_auto(2 * LOAM_MIB + 4096, LOAM_PAGES_4K,
                "1G: a part of RAM is no multiple of 1 GiB; 2M: a part of RAM is no multiple of 2 MiB; thp: a part of "
                "RAM is no multiple of 2 MiB");
    assert_none_short();
}

Test(plan, falls_back_when_pools_are_empty)
{
    script_pool(POOL_1G, 0, 0, 0, 0, 0);
    assert_auto(2 * LOAM_GIB, LOAM_PAGES_2M, "1G: 2 x 1 GiB hugepages wanted, 0 free");
    script_pool(POOL_2M, 1000, 1000, 0, 0, 0);
    assert_auto(2 * LOAM_GIB, LOAM_PAGES_THP,
                "1G: 2 x 1 GiB hugepages wanted, 0 free; 2M: 1024 x 2 MiB hugepages wanted, 1000 free");
    assert_none_short();
    prim_fake_script_text(THP "enabled", "always madvise [never]\n");
    prim_fake_script_text(THP "shmem_enabled", "always within_size advise [never] deny force\n");
    assert_auto(
        2 * LOAM_GIB, LOAM_PAGES_4K,
        "1G: 2 x 1 GiB hugepages wanted, 0 free; 2M: 1024 x 2 MiB hugepages wanted, 1000 free; thp: transparent "
        "hugepages wanted, the kernel gives none");
    assert_none_short();
}

Test(plan, falls_back_when_anything_else_is_short)
{
    script_limit(V2_LOAM, "hugetlb.1GB.max", "hugetlb.1GB.current", LOAM_GIB, 0);
    assert_auto(2 * LOAM_GIB, LOAM_PAGES_2M, "1G: 2 GiB of hugepages wanted, 1 GiB left of the limit");
    script_limit(V2_LOAM, "hugetlb.2MB.max", "hugetlb.2MB.current", 0, 0);
    assert_auto(2 * LOAM_GIB, LOAM_PAGES_THP,
                "1G: 2 GiB of hugepages wanted, 1 GiB left of the limit; 2M: 2 GiB of hugepages wanted, 0 KiB left of "
                "the limit");
}

Test(plan, ends_at_4k_when_nothing_fits)
{
    script_pool(POOL_1G, 0, 0, 0, 0, 0);
    script_pool(POOL_2M, 0, 0, 0, 0, 0);
    script_available(1024);
    assert_auto(2 * LOAM_GIB, LOAM_PAGES_4K,
                "1G: 2 x 1 GiB hugepages wanted, 0 free; 2M: 1024 x 2 MiB hugepages wanted, 0 free; thp: 2072 MiB of "
                "ordinary memory wanted, 1 MiB free");
    assert_only_short(LOAM_PLAN_AVAILABLE);
    cr_expect_not_null(check_of(LOAM_PLAN_CGROUP));
}

/* --- Figures that are none ---------------------------------------------------------------------------------------- */

Test(plan, refuses_figures_that_are_none)
{
    static const char *const paths[] = {
        POOL_2M "free_hugepages",
        POOL_2M "resv_hugepages",
        POOL_2M "nr_hugepages",
        POOL_2M "surplus_hugepages",
        POOL_2M "nr_overcommit_hugepages",
        "/proc/meminfo",
        "/proc/sys/vm/overcommit_memory",
        "/sys/devices/system/node/node0/meminfo",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages",
        V2_LOAM "memory.max",
        V2_LOAM "memory.current",
        V2_USER "hugetlb.2MB.max",
        "/proc/self/status",
    };
    static const char *const texts[] = {
        "",
        "\n",
        "many\n",
        "-1\n",
        "12x\n",
        " 7\n",
        "0x10\n",
        "18446744073709551616\n",
        "99999999999999999999999999\n",
        "MemAvailable: lots\nNode 0 MemFree: -4 kB\nVmLck:\tx kB\n",
        ("MemAvailable: 18446744073709551615 kB\nNode 0 MemFree: 99999999999999999999 kB\n"
         "VmLck: 18014398509481984 kB\n")};
    struct loam_memory_request request = request_2m;

    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    request.lock = true;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        for (size_t j = 0; j < sizeof texts / sizeof texts[0]; j++) {
            bool is_status = strcmp(paths[i], "/proc/self/status") == 0;

            script_rich_host();
            prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, LOAM_GIB);
            script_limit(V2_LOAM, "memory.max", "memory.current", LOAM_GIB, 0);
            prim_fake_script_text(paths[i], texts[j]);
            /* A process without the line has locked nothing. */
            cr_expect_eq(make(&request), is_status && strstr(texts[j], "VmLck") == NULL ? LOAM_OK : LOAM_ERROR_SYSTEM,
                         "%s: '%s': %s", paths[i], texts[j], diag.text);
            if (diag.error != LOAM_OK) {
                cr_expect_not_null(strstr(diag.text, paths[i]), "%s: not named in: %s", paths[i], diag.text);
                cr_expect_eq(plan.check_count, 0);
            }
            cr_expect(prim_fake_clean());
        }
    }
}

/* --- The calls ---------------------------------------------------------------------------------------------------- */

static void assert_every_call_that_fails_is_reported(const struct loam_memory_request *request)
{
    uint32_t n = 1;

    for (;; n++) {
        script_rich_host();
        prim_fake_script_limit(LOAM_PRIM_LIMIT_LOCKED, LOAM_GIB);
        prim_fake_fail(PRIM_ANY, n, 1, EIO);
        enum loam_error error = make(request);

        cr_expect(prim_fake_clean(), "call %" PRIu32, n);
        if (prim_fake_failed_count() == 0) {
            cr_expect_eq(error, LOAM_OK);
            break;
        }
        cr_expect_eq(error, LOAM_ERROR_SYSTEM, "call %" PRIu32, n);
        cr_expect_eq(diag.system_errno, EIO, "call %" PRIu32 ": %s", n, diag.text);
        cr_expect_eq(plan.part_count, 0);
    }
    cr_expect_gt(n, 20, "only %" PRIu32 " calls", n);
}

Test(plan, reports_every_call_that_fails)
{
    struct loam_memory_request request = request_2m;

    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    request.lock = true;
    request.slot_limit = 8;
    for (size_t i = 0; i < 3; i++) {
        static const enum loam_pages kinds[] = {LOAM_PAGES_AUTO, LOAM_PAGES_THP, LOAM_PAGES_4K};

        request.pages = kinds[i];
        assert_every_call_that_fails_is_reported(&request);
    }
}

Test(plan, maps_nothing_and_changes_nothing)
{
    static const enum loam_pages kinds[] = {LOAM_PAGES_AUTO, LOAM_PAGES_1G, LOAM_PAGES_2M, LOAM_PAGES_THP,
                                            LOAM_PAGES_4K};

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct loam_memory_request request = {.bytes = 2 * LOAM_GIB,
                                              .pages = kinds[i],
                                              .lock = true,
                                              .placement = LOAM_PLACEMENT_STRICT,
                                              .node_mask = 1,
                                              .slot_limit = 1};

        make_ok(&request);
    }
    for (uint32_t i = 0; i < prim_fake_record_count(); i++) {
        enum prim_kind kind = prim_fake_record(i).kind;

        cr_expect(kind == PRIM_READ_TEXT || kind == PRIM_LIMIT || kind == PRIM_USER_THREADS ||
                      kind == PRIM_HEAP_ALLOC || kind == PRIM_HEAP_FREE,
                  "%s", prim_kind_name(kind));
    }
    cr_expect_gt(prim_fake_call_count(PRIM_READ_TEXT), 0);
    cr_expect(prim_fake_clean());
}

Test(plan, plans_on_the_real_host)
{
    struct loam_memory_request request = {.bytes = 16 * LOAM_MIB, .low_limit_bytes = 8 * LOAM_MIB};

    prim_fake_script_none();
    prim_fake_script_only(false);
    make_ok(&request);
    cr_expect_neq(plan.pages, LOAM_PAGES_AUTO);
    for (uint32_t i = 0; i < plan.check_count; i++) {
        cr_log_info("%s", plan.checks[i].text);
    }
    assert_none_short();
    request.placement = LOAM_PLACEMENT_STRICT;
    request.node_mask = 1;
    make_ok(&request);
    assert_none_short();
    cr_expect(prim_fake_clean());
}
