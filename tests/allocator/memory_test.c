// SPDX-License-Identifier: Apache-2.0
/* The facade on the real host, behind calls that fail one after the other. */
#include "loam/memory.h"

#include "allocator/gpa_map_keeper.h"
#include "tests/allocator/host_state.h"
#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define POOL_2M "/sys/kernel/mm/hugepages/hugepages-2048kB/"

/* --- Heap that fails when told to, and is counted: linked with --wrap, since the ledger's heap is not prim's
 * ------------ */

enum { BLOCK_MAX = 4096 };

static uint32_t calloc_count, calloc_fails; /* which is to fail, counted from 1; 0: none */
static void *blocks[BLOCK_MAX];             /* live ones of calloc */

void *__real_calloc(size_t count, size_t bytes);
void __real_free(void *memory);
void *__wrap_calloc(size_t count, size_t bytes);
void __wrap_free(void *memory);

/* Put is where was was; false where it is not. */
static bool swap_block(void *was, void *is)
{
    for (uint32_t i = 0; i < BLOCK_MAX; i++) {
        if (blocks[i] == was) {
            blocks[i] = is;
            return true;
        }
    }
    return false;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *memory = ++calloc_count == calloc_fails ? NULL : __real_calloc(count, bytes);

    cr_assert(memory == NULL || swap_block(NULL, memory), "more than %d blocks", BLOCK_MAX);
    return memory;
}

void __wrap_free(void *memory)
{
    if (memory != NULL) {
        swap_block(memory, NULL);
    }
    __real_free(memory);
}

static uint32_t block_count(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < BLOCK_MAX; i++) {
        count += blocks[i] != NULL;
    }
    return count;
}

/* --- What is asked for ----------------------------------------------------------------------------------------------
 */

/* RAM on one side of the hole, and on both. */
#define SMALL_BYTES (8 * LOAM_MIB)

static struct loam_memory_request one_part(enum loam_pages pages)
{
    return (struct loam_memory_request){.bytes = SMALL_BYTES, .pages = pages, .thread_count = 2};
}

static struct loam_memory_request two_parts(enum loam_pages pages)
{
    return (struct loam_memory_request){
        .bytes = SMALL_BYTES, .low_limit_bytes = SMALL_BYTES / 2, .pages = pages, .thread_count = 2};
}

static struct loam_plan make_plan(const struct loam_memory_request *request)
{
    struct loam_plan plan;
    struct loam_diag diag = {0};
    enum loam_error error = loam_plan_make(request, &plan, &diag);

    cr_assert_eq(error, LOAM_OK, "%s", diag.text);
    return plan;
}

static struct loam_memory *create(const struct loam_plan *plan)
{
    struct loam_memory *memory;
    struct loam_diag diag = {0};
    enum loam_error error = loam_memory_create(plan, &memory, &diag);

    cr_assert_eq(error, LOAM_OK, "%s: %s", loam_error_name(error), diag.text);
    cr_assert_not_null(memory);
    return memory;
}

static void assert_valid(struct loam_memory *memory)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
}

/* A plan that must not be carried out: this error, one line, and nothing left. */
static void assert_refused(const struct loam_plan *plan, enum loam_error expected, const char *what)
{
    struct host_state before = host_state_take();
    struct loam_memory *memory = (struct loam_memory *)&before;
    struct loam_diag diag = {0};

    cr_expect_eq(loam_memory_create(plan, &memory, &diag), expected, "%s: %s: %s", what, loam_error_name(diag.error),
                 diag.text);
    cr_expect_null(memory, "%s", what);
    cr_expect_eq(diag.error, expected, "%s", what);
    cr_expect(strlen(diag.text) > 10 && strchr(diag.text, '\n') == NULL, "%s: '%s'", what, diag.text);
    cr_expect(prim_fake_clean(), "%s", what);
    cr_expect(host_state_unchanged(&before), "%s", what);
}

/* Pages from the host's pool for a test; false, and a reason, where there are none to be had. */
static bool raise_pool(struct host_setting *pool, enum loam_pages pages, uint64_t page_count)
{
    if (pages != LOAM_PAGES_1G && pages != LOAM_PAGES_2M) {
        *pool = (struct host_setting){0};
        return true;
    }
    return host_pool_raise(pool, loam_pages_bytes(pages), page_count);
}

/* --- What is made is what was planned -------------------------------------------------------------------------------
 */

static void assert_backings(struct loam_memory *memory, const struct loam_plan *plan)
{
    struct loam_backing_info info;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        cr_assert_eq(loam_memory_backing(memory, i, &info), LOAM_OK);
        cr_expect_eq(info.bytes, plan->parts[i].bytes);
        cr_expect_eq(info.gpa.value, plan->parts[i].start.value);
        cr_expect_eq(info.pages, plan->pages);
        cr_expect_eq(info.page_bytes, plan->page_bytes);
        cr_expect_eq(((uintptr_t)info.hva - info.gpa.value) % plan->page_bytes, 0, "HVA and GPA are not congruent");
    }
    cr_expect_eq(loam_memory_backing(memory, plan->part_count, &info), LOAM_ERROR_NOT_FOUND);
    cr_expect_null(info.hva);
    cr_expect_eq(info.fd, -1);
}

static void assert_regions(struct loam_memory *memory, const struct loam_plan *plan)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    struct loam_region planned[LOAM_PLAN_REGION_MAX], made;
    uint32_t count = loam_plan_regions(plan, planned);
    struct loam_backing_info info;

    cr_expect_eq(loam_gpa_view_count(view), count);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_eq(loam_gpa_view_region(view, i, &made), LOAM_OK);
        cr_assert_eq(loam_memory_backing(memory, planned[i].backing - 1, &info), LOAM_OK);
        cr_expect_eq(made.start.value, planned[i].start.value);
        cr_expect_eq(made.bytes, planned[i].bytes);
        cr_expect_eq(made.type, planned[i].type);
        cr_expect_eq(made.access, planned[i].access);
        cr_expect_eq(made.backing, planned[i].backing);
        cr_expect_eq(made.backing_offset, planned[i].backing_offset);
        cr_expect_eq(made.hva, (char *)info.hva + planned[i].backing_offset);
    }
    loam_gpa_map_release(loam_memory_map(memory), view);
}

static void assert_frames(struct loam_memory *memory, const struct loam_plan *plan)
{
    /* Of the map's tables no more are touched, unless views are held. */
    struct loam_gpa_map_config map_config = {.region_capacity = plan->request.region_capacity, .table_capacity = 4};
    struct loam_frame_stats stats = loam_frame_get_stats(loam_memory_frame(memory));
    uint64_t kept_frames = 1 + (LOAM_LEGACY_END_BYTES - LOAM_LEGACY_START_BYTES) / 4096;
    struct loam_dma_entry entry;

    cr_expect_eq(stats.section_count, plan->part_count);
    cr_expect_eq(stats.total_frames, plan->request.bytes / 4096);
    cr_expect_eq(stats.managed_frames, plan->request.bytes / 4096);
    cr_expect_eq(stats.allocated_frames, kept_frames);
    cr_expect_eq(stats.dma32_reserve_frames, plan->request.dma32_reserve_bytes / 4096);
    cr_expect_eq(stats.metadata_bytes + loam_gpa_map_bytes(&map_config), plan->metadata_bytes);
    cr_expect_geq(prim_fake_live().heap_bytes, plan->metadata_bytes);
    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), 2);
    cr_assert_eq(loam_dma_next(loam_memory_dma(memory), (loam_gpa){0}, &entry), LOAM_OK);
    cr_expect_str_eq(entry.owner, "null");
    cr_expect_eq(entry.buffer.gpa.value, 0);
    cr_expect_eq(entry.buffer.bytes, 4096);
    cr_assert_eq(loam_dma_next(loam_memory_dma(memory), loam_dma_entry_end(&entry), &entry), LOAM_OK);
    cr_expect_str_eq(entry.owner, "legacy");
    cr_expect_eq(entry.buffer.gpa.value, 640 * LOAM_KIB);
    cr_expect_eq(entry.buffer.bytes, 384 * LOAM_KIB);
}

/* All of RAM reads as zero and holds what is written. */
static void assert_ram_works(struct loam_memory *memory, const struct loam_plan *plan)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));

    for (uint32_t part = 0; part < plan->part_count; part++) {
        for (uint64_t at = 0; at < plan->parts[part].bytes; at += 4096) {
            uint64_t gpa = plan->parts[part].start.value + at, found = 1;

            cr_assert_eq(loam_gpa_view_read(view, loam_gpa_from_u64(gpa), &found, sizeof found), LOAM_OK);
            cr_assert_eq(found, 0, "GPA %#" PRIx64 " does not read as zero", gpa);
            cr_assert_eq(loam_gpa_view_write(view, loam_gpa_from_u64(gpa), &gpa, sizeof gpa), LOAM_OK);
        }
    }
    for (uint32_t part = 0; part < plan->part_count; part++) {
        for (uint64_t at = 0; at < plan->parts[part].bytes; at += 4096) {
            uint64_t gpa = plan->parts[part].start.value + at, found = 1;

            cr_assert_eq(loam_gpa_view_read(view, loam_gpa_from_u64(gpa), &found, sizeof found), LOAM_OK);
            cr_assert_eq(found, gpa, "GPA %#" PRIx64 " holds %#" PRIx64, gpa, found);
        }
    }
    loam_gpa_map_release(loam_memory_map(memory), view);
}

static void assert_plan_is_carried_out(const struct loam_memory_request *request)
{
    struct loam_plan plan = make_plan(request);
    uint64_t pool_before = 0;
    bool hugetlb = plan.pages == LOAM_PAGES_1G || plan.pages == LOAM_PAGES_2M;
    struct host_state before = host_state_take();
    struct loam_memory *memory;

    cr_assert_eq(plan.short_count, 0, "%s", plan.short_count > 0 ? loam_plan_shortfall(&plan)->text : "");
    pool_before = hugetlb ? host_pool_available(plan.page_bytes) : 0;
    memory = create(&plan);
    if (hugetlb) {
        cr_expect_eq(pool_before - host_pool_available(plan.page_bytes), plan.backing_page_count);
    }
    cr_expect_eq(memcmp(loam_memory_plan(memory), &plan, sizeof plan), 0);
    assert_backings(memory, &plan);
    assert_regions(memory, &plan);
    assert_frames(memory, &plan);
    assert_ram_works(memory, &plan);
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
    cr_expect(host_state_unchanged(&before));
}

static void assert_kind_is_carried_out(enum loam_pages pages)
{
    struct loam_memory_request small = one_part(pages), split = two_parts(pages);
    struct host_setting pool = {0};

    if (raise_pool(&pool, pages, SMALL_BYTES / loam_pages_bytes(pages))) {
        assert_plan_is_carried_out(&small);
        assert_plan_is_carried_out(&split);
    }
    host_setting_restore(&pool);
    if (pool.reason[0] != '\0') {
        cr_skip("%s", pool.reason);
    }
}

Test(memory, carries_a_plan_out_on_4k_pages)
{
    assert_kind_is_carried_out(LOAM_PAGES_4K);
}

Test(memory, carries_a_plan_out_on_transparent_hugepages)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_THP);
    struct loam_plan plan = make_plan(&request);

    if (plan.short_count > 0) {
        cr_skip("%s", loam_plan_shortfall(&plan)->text);
    }
    assert_kind_is_carried_out(LOAM_PAGES_THP);
}

Test(memory, carries_a_plan_out_on_2m_pages)
{
    assert_kind_is_carried_out(LOAM_PAGES_2M);
}

Test(memory, carries_a_plan_out_on_1g_pages)
{
    struct loam_memory_request request = {.bytes = LOAM_GIB, .pages = LOAM_PAGES_1G};
    struct host_setting pool = {0};

    if (raise_pool(&pool, LOAM_PAGES_1G, 1)) {
        assert_plan_is_carried_out(&request);
    }
    host_setting_restore(&pool);
    if (pool.reason[0] != '\0') {
        cr_skip("%s", pool.reason);
    }
}

Test(memory, carries_a_plan_out_on_whatever_the_host_has)
{
    struct loam_memory_request small = one_part(LOAM_PAGES_AUTO), split = two_parts(LOAM_PAGES_AUTO);

    assert_plan_is_carried_out(&small);
    assert_plan_is_carried_out(&split);
}

/* Every way to share, commit, bind and lock. */
Test(memory, carries_every_wish_out)
{
    for (int sharing = 0; sharing < LOAM_SHARING_COUNT; sharing++) {
        for (int commit = 0; commit < LOAM_COMMIT_COUNT; commit++) {
            struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
            struct loam_backing_info info;
            struct loam_memory *memory;
            struct loam_plan plan;

            request.sharing = (enum loam_sharing)sharing;
            request.commit = (enum loam_commit)commit;
            request.placement = LOAM_PLACEMENT_STRICT;
            request.node_mask = 1;
            request.lock = commit != LOAM_COMMIT_LAZY;
            plan = make_plan(&request);
            if (plan.short_count > 0) {
                cr_skip("%s", loam_plan_shortfall(&plan)->text);
            }
            memory = create(&plan);
            cr_assert_eq(loam_memory_backing(memory, 1, &info), LOAM_OK);
            cr_expect(sharing == LOAM_SHARING_ANY || info.sharing == request.sharing);
            cr_expect_eq(info.fd >= 0, info.sharing == LOAM_SHARING_SHARED);
            cr_expect(info.placement == LOAM_PLACEMENT_STRICT && info.node_mask == 1);
            cr_expect_eq(info.locked, request.lock);
            assert_valid(memory);
            loam_memory_destroy(memory);
            cr_expect(prim_fake_clean());
        }
    }
}

static void assert_file_name(struct loam_memory *memory, uint32_t part, const char *expected)
{
    struct loam_backing_info info;
    char link[64], name[64] = "";

    cr_assert_eq(loam_memory_backing(memory, part, &info), LOAM_OK);
    snprintf(link, sizeof link, "/proc/self/fd/%d", info.fd);
    cr_assert_gt(readlink(link, name, sizeof name - 1), 0);
    cr_expect_str_eq(name, expected);
}

/* What is not wished is not done, and what is wished is done to each part. */
Test(memory, hands_each_wish_to_each_backing)
{
    static const enum prim_kind kinds[] = {PRIM_KEEP_FROM_CHILDREN, PRIM_KEEP_FROM_DUMPS, PRIM_BIND_NODES, PRIM_LOCK,
                                           PRIM_THREAD_START};

    for (uint32_t wished = 0; wished < 2; wished++) {
        struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
        struct loam_memory *memory;
        struct loam_plan plan;

        request.commit = LOAM_COMMIT_POPULATE;
        request.keep_from_children = request.keep_from_dumps = request.lock = wished != 0;
        request.placement = wished != 0 ? LOAM_PLACEMENT_STRICT : LOAM_PLACEMENT_ANY;
        request.node_mask = wished;
        request.thread_count = 1 + wished;
        plan = make_plan(&request);
        if (plan.short_count > 0) {
            cr_skip("%s", loam_plan_shortfall(&plan)->text);
        }
        prim_fake_forget();
        memory = create(&plan);
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
            cr_expect_eq(prim_fake_call_count(kinds[i]), 2 * wished, "%s: %" PRIu32 " calls", prim_kind_name(kinds[i]),
                         prim_fake_call_count(kinds[i]));
        }
        assert_file_name(memory, 0, "/memfd:loam-low (deleted)");
        assert_file_name(memory, 1, "/memfd:loam-high (deleted)");
        loam_memory_destroy(memory);
    }
}

/* The plan knows of a control group that charges at first touch, whatever the caller asked. */
Test(memory, populates_what_is_charged_at_first_touch)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    struct loam_plan plan;

    request.commit = LOAM_COMMIT_LAZY;
    plan = make_plan(&request);
    for (uint32_t charged = 0; charged < 2; charged++) {
        struct loam_memory *memory;
        struct loam_backing_info info;

        plan.parts[0].charged_at_touch = plan.parts[1].charged_at_touch = charged != 0;
        memory = create(&plan);
        for (uint32_t part = 0; part < 2; part++) {
            cr_assert_eq(loam_memory_backing(memory, part, &info), LOAM_OK);
            cr_expect_eq(info.commit, charged != 0 ? LOAM_COMMIT_POPULATE : LOAM_COMMIT_LAZY);
            cr_expect_eq(info.populated, charged != 0);
        }
        loam_memory_destroy(memory);
    }
}

static bool asked_on_time(void *self)
{
    return *(bool *)self;
}

Test(memory, a_cancelled_creation_leaves_nothing)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    bool cancel = false;
    struct loam_plan plan;

    request.cancel = (struct loam_cancel){.asked = asked_on_time, .self = &cancel};
    plan = make_plan(&request);
    cancel = true;
    assert_refused(&plan, LOAM_ERROR_CANCELLED, "cancelled");
}

static bool asks(void *self)
{
    uint32_t *left = self;

    return (*left)-- == 0;
}

/* At every question in turn, in both parts. */
Test(memory, is_cancelled_between_any_two_pieces)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    uint32_t left = UINT32_MAX, questions;
    struct loam_memory *memory;
    struct loam_plan plan;

    request.thread_count = 1; /* two would share the questions out as it comes */
    request.cancel = (struct loam_cancel){asks, &left};
    plan = make_plan(&request);
    left = UINT32_MAX;
    memory = create(&plan);
    questions = UINT32_MAX - left;
    loam_memory_destroy(memory);
    cr_expect_gt(questions, 2 * plan.part_count);
    for (uint32_t i = 0; i < questions; i++) {
        struct loam_diag diag = {0};

        left = i;
        cr_expect_eq(loam_memory_create(&plan, &memory, &diag), LOAM_ERROR_CANCELLED, "question %" PRIu32, i);
        cr_expect_null(memory);
        cr_expect_eq(diag.error, LOAM_ERROR_CANCELLED);
        cr_expect(prim_fake_clean(), "question %" PRIu32, i);
    }
}

Test(memory, has_a_hole_and_a_legacy_window)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    static const struct loam_e820_entry expected[] = {
        {0, 640 * LOAM_KIB, LOAM_E820_RAM},
        {640 * LOAM_KIB, 384 * LOAM_KIB, LOAM_E820_RESERVED},
        {LOAM_MIB, SMALL_BYTES / 2 - LOAM_MIB, LOAM_E820_RAM},
        {4 * LOAM_GIB, SMALL_BYTES / 2, LOAM_E820_RAM},
    };
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    struct loam_e820_entry entries[8];
    struct loam_slot slots[8];
    uint32_t count;
    void *hva;

    cr_assert_eq(loam_gpa_view_e820(view, entries, 8, &count), LOAM_OK);
    cr_assert_eq(count, 4);
    for (uint32_t i = 0; i < count; i++) {
        cr_expect_eq(entries[i].start, expected[i].start, "entry %" PRIu32, i);
        cr_expect_eq(entries[i].bytes, expected[i].bytes, "entry %" PRIu32, i);
        cr_expect_eq(entries[i].type, expected[i].type, "entry %" PRIu32, i);
    }
    cr_assert_eq(loam_gpa_view_slots(view, slots, 8, &count), LOAM_OK);
    cr_expect_eq(count, plan.part_count, "the plan counts a slot a part");
    cr_expect_eq(loam_gpa_view_translate(view, plan.hole_start, 1, LOAM_ACCESS_READ, &hva), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_gpa_view_translate(view, loam_gpa_from_u64(4 * LOAM_GIB - 1), 1, LOAM_ACCESS_READ, &hva),
                 LOAM_ERROR_NOT_FOUND);
    loam_gpa_map_release(loam_memory_map(memory), view);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

/* What another process is sent, and finds at its end of the descriptor. */
Test(memory, is_shared_in_a_row_a_part)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    struct loam_plan plan;
    struct loam_memory *memory;
    struct loam_share shares[4];
    char there;
    uint32_t count;

    request.sharing = LOAM_SHARING_SHARED;
    plan = make_plan(&request);
    memory = create(&plan);
    cr_assert_eq(loam_memory_shares(memory, shares, 4, &count), LOAM_OK);
    cr_assert_eq(count, 2, "the legacy window costs none");
    for (uint32_t i = 0; i < count; i++) {
        cr_expect_eq(shares[i].start.value, plan.parts[i].start.value);
        cr_expect_eq(shares[i].bytes, plan.parts[i].bytes);
        *((char *)shares[i].hva + 5 * 4096 + i) = (char)('a' + i);
        cr_assert_eq(pread(shares[i].fd, &there, 1, (off_t)(shares[i].backing_offset + 5 * 4096 + i)), 1);
        cr_expect_eq(there, 'a' + (char)i);
    }
    loam_memory_destroy(memory);
    request.sharing = LOAM_SHARING_PRIVATE;
    plan = make_plan(&request);
    memory = create(&plan);
    cr_assert_eq(loam_memory_shares(memory, shares, 4, &count), LOAM_OK);
    cr_expect_eq(shares[0].fd, -1);
    cr_expect_eq(shares[1].fd, -1);
    loam_memory_destroy(memory);
    count = 7;
    cr_expect_eq(loam_memory_shares(NULL, shares, 4, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(count, 0);
    cr_expect(prim_fake_clean());
}

/* 6 MiB of somebody else's file, 2 MiB of them below the hole, beside 2 MiB of the library's. */
Test(memory, a_part_may_be_memory_of_somebody_else)
{
    struct host_state before = host_state_take();
    int fd = memfd_create("theirs", MFD_CLOEXEC);
    struct loam_memory_request request = {.low_limit_bytes = 4 * LOAM_MIB,
                                          .part_count = 2,
                                          .parts = {{.bytes = 2 * LOAM_MIB, .pages = LOAM_PAGES_4K},
                                                    {.bytes = 6 * LOAM_MIB,
                                                     .pages = LOAM_PAGES_4K,
                                                     .adoption = LOAM_ADOPTION_FD,
                                                     .fd = fd,
                                                     .fd_offset = 4096}}};
    struct loam_memory *memory;
    struct loam_share shares[4];
    struct loam_plan plan;
    uint32_t count;

    cr_assert_eq(ftruncate(fd, 6 * LOAM_MIB + 4096), 0);
    cr_assert_eq(pwrite(fd, "low", 4, 4096), 4);
    cr_assert_eq(pwrite(fd, "high", 5, 4096 + 2 * LOAM_MIB), 5);
    plan = make_plan(&request);
    cr_expect_eq(plan.part_count, 3);
    memory = create(&plan);
    assert_valid(memory);
    cr_assert_eq(loam_memory_shares(memory, shares, 4, &count), LOAM_OK);
    cr_assert_eq(count, 3);
    cr_expect_eq(shares[1].start.value, 2 * LOAM_MIB);
    cr_expect_eq(shares[1].backing_offset, 4096);
    cr_expect_str_eq(shares[1].hva, "low");
    cr_expect_eq(shares[2].start.value, 4 * LOAM_GIB);
    cr_expect_eq(shares[2].backing_offset, 4096 + 2 * LOAM_MIB);
    cr_expect_str_eq(shares[2].hva, "high");
    loam_memory_destroy(memory);
    close(fd);
    cr_expect(prim_fake_clean());
    cr_expect(host_state_unchanged(&before));
}

Test(memory, gives_its_e820_map_in_rows)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    unsigned char rows[4 * LOAM_E820_ROW_BYTES + 1];
    uint64_t start, bytes;
    uint32_t count, type;

    memset(rows, 0xa5, sizeof rows);
    cr_assert_eq(loam_memory_e820(memory, rows, sizeof rows - 1, &count), LOAM_OK);
    cr_assert_eq(count, 4);
    cr_expect_eq(rows[sizeof rows - 1], 0xa5);
    memcpy(&start, rows + 3 * LOAM_E820_ROW_BYTES, sizeof start);
    memcpy(&bytes, rows + 3 * LOAM_E820_ROW_BYTES + 8, sizeof bytes);
    memcpy(&type, rows + LOAM_E820_ROW_BYTES + 16, sizeof type);
    cr_expect_eq(start, LOAM_DMA32_END_BYTES);
    cr_expect_eq(bytes, SMALL_BYTES / 2);
    cr_expect_eq(type, LOAM_E820_RESERVED, "the legacy window");
    cr_expect_eq(loam_memory_e820(memory, rows, sizeof rows - 2, &count), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(count, 4);
    prim_fake_fail(PRIM_HEAP_ALLOC, 1, 1, ENOMEM);
    cr_expect_eq(loam_memory_e820(memory, rows, sizeof rows, &count), LOAM_ERROR_SYSTEM);
    prim_fake_fail_none();
    cr_expect_eq(count, 0);
    cr_expect_eq(loam_memory_e820(NULL, rows, sizeof rows, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_memory_e820(memory, NULL, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_memory_update_slots(memory, NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_memory_update_slots(NULL, NULL, NULL), LOAM_ERROR_INVALID);
    loam_memory_destroy(memory);
}

Test(memory, hands_out_neither_the_null_frame_nor_the_legacy_window)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_dma_request wanted = {.owner = "all", .bytes = 4096, .limit = {LOAM_DMA32_END_BYTES}};
    struct loam_dma_buffer buffer;
    uint64_t count = 0;

    while (loam_dma_alloc(loam_memory_dma(memory), &wanted, &buffer, NULL) == LOAM_OK) {
        cr_assert(buffer.gpa.value != 0 &&
                  (buffer.gpa.value < LOAM_LEGACY_START_BYTES || buffer.gpa.value >= LOAM_LEGACY_END_BYTES));
        count++;
    }
    cr_expect_eq(count, SMALL_BYTES / 4096 - 1 - 96);
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

Test(memory, stays_valid_under_random_carving)
{
    enum { LIVE_MAX = 64, ROUNDS = 4000 };
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_dma_buffer live[LIVE_MAX] = {{0}};
    uint64_t state = UINT64_C(0x5eed10a3);

    for (int round = 0; round < ROUNDS; round++) {
        struct loam_dma_buffer *slot = &live[next_random(&state) % LIVE_MAX];
        struct loam_dma_request wanted = {.owner = "random",
                                          .bytes = 1 + next_random(&state) % (128 * LOAM_KIB),
                                          .align_bytes = UINT64_C(4096) << next_random(&state) % 5,
                                          .limit = {next_random(&state) % 2 ? LOAM_DMA32_END_BYTES : 0}};
        enum loam_error error;

        if (slot->id != 0) {
            cr_assert_eq(loam_dma_release(loam_memory_dma(memory), slot->id), LOAM_OK, "round %d", round);
            *slot = (struct loam_dma_buffer){0};
            continue;
        }
        error = loam_dma_alloc(loam_memory_dma(memory), &wanted, slot, NULL);
        cr_assert(error == LOAM_OK || error == LOAM_ERROR_EXHAUSTED, "round %d: %s", round, loam_error_name(error));
        if (round % 50 == 0) {
            assert_valid(memory);
        }
    }
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

/* A zeroed member is the ordinary one: such a region is the caller's own. */
Test(memory, takes_a_region_without_a_backing_for_the_callers)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_backing_info info;
    struct loam_region region;

    cr_assert_eq(loam_memory_backing(memory, 0, &info), LOAM_OK);
    region = (struct loam_region){
        .start = {LOAM_DMA32_END_BYTES}, .bytes = 4096, .hva = info.hva, .access = LOAM_ACCESS_WRITE};
    cr_assert_eq(loam_gpa_map_insert(loam_memory_map(memory), &region), LOAM_OK);
    assert_valid(memory);
    loam_memory_destroy(memory);
}

/* --- What is left zero ------------------------------------------------------------------------------------------------ */

/* Each makes what it can of a request that is zero but for what has no default, and takes it back. */

static enum loam_error zero_memory(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_memory_request request = {.bytes = SMALL_BYTES};
    enum loam_error error;
    struct loam_plan plan;

    error = loam_plan_make(&request, &plan, diag);
    if (error == LOAM_OK && plan.request.parts[0].placement != LOAM_PLACEMENT_ANY) {
        return LOAM_ERROR_CORRUPT;
    }
    (void)memory;
    return error;
}

static enum loam_error zero_backing(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_backing_request request = {.bytes = SMALL_BYTES};
    struct loam_backing *backing;
    enum loam_error error = loam_backing_create(&request, &backing, diag);
    bool ordinary = loam_backing_get_info(backing).node_mask == 0 && !loam_backing_get_info(backing).locked;

    loam_backing_destroy(backing);
    (void)memory;
    return error == LOAM_OK && !ordinary ? LOAM_ERROR_CORRUPT : error;
}

static enum loam_error zero_dma(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_dma_request request = {.owner = "zero", .bytes = 1};
    struct loam_dma_buffer buffer;
    enum loam_error error = loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, diag);

    return error == LOAM_OK ? loam_dma_release(loam_memory_dma(memory), buffer.id) : error;
}

static enum loam_error zero_frame(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_frame_request request = {.count_frames = 1};
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(loam_memory_frame(memory), &request, &block);

    (void)diag;
    return error == LOAM_OK ? loam_frame_free(loam_memory_frame(memory), block.start, 1) : error;
}

static enum loam_error zero_region(struct loam_memory *memory, struct loam_diag *diag)
{
    struct loam_backing_info info;
    struct loam_region region = {.start = {8 * LOAM_GIB}, .bytes = 4096, .access = LOAM_ACCESS_WRITE};
    enum loam_error error = loam_memory_backing(memory, 0, &info);

    region.hva = info.hva;
    error = error == LOAM_OK ? loam_gpa_map_insert(loam_memory_map(memory), &region) : error;
    error = error == LOAM_OK ? loam_memory_validate(memory, diag) : error;
    return error == LOAM_OK ? loam_gpa_map_remove(loam_memory_map(memory), region.start, region.bytes) : error;
}

static enum loam_error zero_configs(struct loam_memory *memory, struct loam_diag *diag)
{
    const struct loam_frame_config frame = {0};
    const struct loam_gpa_map_config map = {0};

    (void)memory;
    (void)diag;
    return loam_frame_bytes(&frame) == loam_frame_bytes(NULL) && loam_gpa_map_bytes(&map) == loam_gpa_map_bytes(NULL)
               ? LOAM_OK
               : LOAM_ERROR_INVALID;
}

Test(memory, what_is_left_zero_is_the_ordinary_thing)
{
    static const struct {
        const char *what;
        enum loam_error (*use)(struct loam_memory *, struct loam_diag *);
    } uses[] = {{"memory request", zero_memory}, {"backing request", zero_backing}, {"dma request", zero_dma},
                {"frame request", zero_frame},   {"region", zero_region},           {"configs", zero_configs}};
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);

    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        struct loam_diag diag = {0};
        enum loam_error error = uses[i].use(memory, &diag);

        cr_expect_eq(error, LOAM_OK, "%s: %s: %s", uses[i].what, loam_error_name(error), diag.text);
        assert_valid(memory);
    }
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

/* --- Careless callers ------------------------------------------------------------------------------------------------ */

Test(memory, null_is_refused_and_outputs_are_defined)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = (struct loam_memory *)&plan;
    struct loam_backing_info info = {.bytes = 1};
    struct loam_diag diag = {0};

    cr_expect_eq(loam_memory_create(NULL, &memory, &diag), LOAM_ERROR_INVALID);
    cr_expect_null(memory);
    cr_expect_str_eq(diag.text, "memory: NULL given where a plan and a place for it are wanted");
    cr_expect_eq(loam_memory_create(&plan, NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_null(loam_memory_frame(NULL));
    cr_expect_null(loam_memory_map(NULL));
    cr_expect_null(loam_memory_dma(NULL));
    cr_expect_null(loam_memory_plan(NULL));
    cr_expect_eq(loam_memory_backing(NULL, 0, &info), LOAM_ERROR_INVALID);
    cr_expect_eq(info.bytes, 0);
    cr_expect_eq(info.fd, -1);
    cr_expect_eq(loam_memory_validate(NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_memory_remove(NULL, (loam_gpa){LOAM_MIB}, 4096, &diag), LOAM_ERROR_INVALID);
    loam_memory_destroy(NULL);
    memory = create(&plan);
    cr_expect_eq(loam_memory_backing(memory, 0, NULL), LOAM_ERROR_INVALID);
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

/* --- Taking RAM away ------------------------------------------------------------------------------------------------ */

static void assert_not_removed(struct loam_memory *memory, uint64_t start, uint64_t bytes, enum loam_error expected,
                               const char *text)
{
    uint64_t free_frames = loam_frame_get_stats(loam_memory_frame(memory)).free_frames;
    struct loam_diag diag = {0};

    errno = ERANGE;
    cr_expect_eq(loam_memory_remove(memory, loam_gpa_from_u64(start), bytes, &diag), expected, "%s", diag.text);
    cr_expect_eq(diag.error, expected);
    cr_expect_eq(diag.system_errno, 0);
    cr_expect_eq(errno, ERANGE);
    cr_expect_str_eq(diag.text, text);
    cr_expect_eq(loam_memory_remove(memory, loam_gpa_from_u64(start), bytes, NULL), expected);
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).free_frames, free_frames);
    assert_valid(memory);
}

static bool is_mapped(struct loam_memory *memory, uint64_t gpa)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    struct loam_region region;
    bool mapped = loam_gpa_view_find(view, loam_gpa_from_u64(gpa), &region) == LOAM_OK;

    loam_gpa_map_release(loam_memory_map(memory), view);
    return mapped;
}

Test(memory, ram_is_removed_only_where_nothing_lives)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_dma *dma = loam_memory_dma(memory);
    struct loam_frame *frame = loam_memory_frame(memory);
    struct loam_dma_request wanted = {.owner = "live ring", .bytes = 65536, .at = {2 * LOAM_MIB}, .flags = LOAM_DMA_AT};
    struct loam_dma_buffer buffer, other;
    struct loam_frame_block block;
    struct loam_diag diag = {0};
    uint64_t free_frames;

    cr_assert_eq(loam_dma_alloc(dma, &wanted, &buffer, &diag), LOAM_OK, "%s", diag.text);
    assert_not_removed(memory, 2 * LOAM_MIB + 4096, 4096, LOAM_ERROR_BUSY,
                       "0x1000 bytes at GPA 0x201000 to be removed: a buffer of \"live ring\", 0x10000 bytes at GPA "
                       "0x200000, lies there: release it first");
    assert_not_removed(memory, 2 * LOAM_MIB - 4096, 8192, LOAM_ERROR_BUSY,
                       "0x2000 bytes at GPA 0x1ff000 to be removed: a buffer of \"live ring\", 0x10000 bytes at GPA "
                       "0x200000, lies there: release it first");
    assert_not_removed(
        memory, 0, 4096, LOAM_ERROR_BUSY,
        "0x1000 bytes at GPA 0 to be removed: a buffer of \"null\", 0x1000 bytes at GPA 0, lies there: it "
        "is never released");
    assert_not_removed(memory, 0, 0, LOAM_ERROR_INVALID,
                       "0 bytes at GPA 0 to be removed: ask for multiples of 4 KiB, at least one");
    assert_not_removed(memory, 4096, 4097, LOAM_ERROR_INVALID,
                       "0x1001 bytes at GPA 0x1000 to be removed: ask for multiples of 4 KiB, at least one");
    assert_not_removed(
        memory, UINT64_MAX - 4095, 8192, LOAM_ERROR_INVALID,
        "0x2000 bytes at GPA 0xfffffffffffff000 to be removed: ask for multiples of 4 KiB, at least one");
    assert_not_removed(memory, SMALL_BYTES / 2 - 4096, 8192, LOAM_ERROR_NOT_FOUND,
                       "0x2000 bytes at GPA 0x3ff000 to be removed: not all of that is RAM of one part");
    free_frames = loam_frame_get_stats(frame).free_frames;
    cr_assert_eq(loam_memory_remove(memory, loam_gpa_from_u64(3 * LOAM_MIB), LOAM_MIB, &diag), LOAM_OK, "%s",
                 diag.text);
    cr_expect_eq(loam_frame_get_stats(frame).free_frames, free_frames - 256);
    cr_expect(!is_mapped(memory, 3 * LOAM_MIB) && !is_mapped(memory, 4 * LOAM_MIB - 1));
    cr_expect(is_mapped(memory, 3 * LOAM_MIB - 1));
    assert_valid(memory);
    assert_not_removed(memory, 3 * LOAM_MIB, LOAM_MIB, LOAM_ERROR_NOT_FOUND,
                       "0x100000 bytes at GPA 0x300000 to be removed: not all of that is RAM of one part");
    wanted.at.value = 3 * LOAM_MIB;
    cr_expect_eq(loam_dma_alloc(dma, &wanted, &other, NULL), LOAM_ERROR_BUSY, "what is gone is not carved");
    cr_assert_eq(loam_frame_alloc(frame,
                                  &(struct loam_frame_request){
                                      .count_frames = 1, .flags = LOAM_FRAME_AT, .at = {LOAM_DMA32_END_BYTES / 4096}},
                                  &block),
                 LOAM_OK);
    assert_not_removed(
        memory, LOAM_DMA32_END_BYTES, SMALL_BYTES / 2, LOAM_ERROR_BUSY,
        "0x400000 bytes at GPA 0x100000000 to be removed: frames of it are allocated past the ledger: free "
        "them first");
    cr_assert_eq(loam_frame_free(frame, block.start, 1), LOAM_OK);
    cr_assert_eq(loam_memory_remove(memory, loam_gpa_from_u64(LOAM_DMA32_END_BYTES), SMALL_BYTES / 2, &diag), LOAM_OK);
    cr_assert_eq(loam_dma_release(dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_memory_remove(memory, buffer.gpa, buffer.bytes, &diag), LOAM_OK, "%s", diag.text);
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

/* --- Memory that is given back to the host ------------------------------------------------------------------------ */

static uint64_t present_bytes(struct loam_memory *memory)
{
    static unsigned char present[SMALL_BYTES / 4096];
    uint64_t bytes = 0;
    struct loam_backing_info info;

    for (uint32_t i = 0; loam_memory_backing(memory, i, &info) == LOAM_OK; i++) {
        cr_assert_eq(mincore(info.hva, info.bytes, present), 0);
        for (uint64_t page = 0; page < info.bytes / 4096; page++) {
            bytes += (present[page] & 1) * UINT64_C(4096);
        }
    }
    return bytes;
}

static struct loam_memory *create_populated(enum loam_pages pages, enum loam_sharing sharing)
{
    struct loam_memory_request request = two_parts(pages);

    request.sharing = sharing;
    request.commit = LOAM_COMMIT_POPULATE;

    struct loam_plan plan = make_plan(&request);

    return create(&plan);
}

static void assert_reclaims(struct loam_memory *memory, uint64_t bytes, uint64_t expected)
{
    struct loam_diag diag = {0};
    uint64_t given = 1;

    cr_expect_eq(loam_memory_reclaim(memory, bytes, &given, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(given, expected, "%#" PRIx64 " of %#" PRIx64, given, bytes);
    assert_valid(memory);
}

/* Of 8 MiB, the first 2 hold what is kept; a buffer stands in the last. */
static void give_and_take(enum loam_sharing sharing)
{
    struct loam_memory *memory = create_populated(LOAM_PAGES_4K, sharing);
    struct loam_dma *dma = loam_memory_dma(memory);
    struct loam_dma_request wanted = {.owner = "stays", .bytes = 4096};
    struct loam_dma_buffer stays, back;
    struct loam_backing_info info;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_dma_alloc(dma, &wanted, &stays, NULL), LOAM_OK);
    memset(stays.hva, 7, 4096);
    assert_reclaims(memory, 2 * LOAM_MIB - 1, 0);
    cr_expect_eq(present_bytes(memory), SMALL_BYTES);
    assert_reclaims(memory, 4 * LOAM_MIB - 1, 2 * LOAM_MIB);
    cr_expect_eq(present_bytes(memory), SMALL_BYTES - 2 * LOAM_MIB);
    assert_reclaims(memory, UINT64_MAX, 2 * LOAM_MIB);
    assert_reclaims(memory, UINT64_MAX, 0);
    cr_expect_eq(present_bytes(memory), SMALL_BYTES - 4 * LOAM_MIB);
    cr_expect_eq(*(char *)stays.hva, 7);
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).released_chunks, 2);
    cr_assert_eq(loam_memory_backing(memory, 0, &info), LOAM_OK);
    cr_expect_not(info.populated, "not all of it is there");
    wanted.bytes = 2 * LOAM_MIB;
    wanted.align_bytes = 2 * LOAM_MIB;
    wanted.flags = LOAM_DMA_NO_ZERO;
    prim_fake_forget();
    cr_assert_eq(loam_dma_alloc(dma, &wanted, &back, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_gt(prim_fake_call_count(PRIM_POPULATE), 0);
    cr_expect_eq(present_bytes(memory), SMALL_BYTES - 2 * LOAM_MIB);
    cr_assert_eq(loam_dma_release(dma, back.id), LOAM_OK);
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).released_chunks, 1, "it has memory, and keeps it");
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

Test(memory, free_memory_is_given_back_and_is_there_again_when_it_is_carved)
{
    give_and_take(LOAM_SHARING_SHARED);
    give_and_take(LOAM_SHARING_PRIVATE);
}

Test(memory, a_small_buffer_in_memory_that_was_given_back_is_there)
{
    struct loam_memory *memory = create_populated(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    struct loam_dma_request wanted = {.owner = "small", .bytes = 4096, .flags = LOAM_DMA_AT};
    struct loam_dma_buffer buffer, beside;

    wanted.at.value = LOAM_DMA32_END_BYTES + LOAM_MIB;
    assert_reclaims(memory, UINT64_MAX, 6 * LOAM_MIB);
    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &wanted, &buffer, NULL), LOAM_OK);
    cr_expect_eq(*(char *)buffer.hva, 0);
    cr_expect_eq(present_bytes(memory), 4 * LOAM_MIB, "its chunk is there");
    prim_fake_forget();
    wanted.at.value += 4096;
    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &wanted, &beside, NULL), LOAM_OK);
    cr_expect_eq(prim_fake_call_count(PRIM_POPULATE), 0, "once is enough");
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

Test(memory, a_host_that_has_no_memory_left_takes_nothing_away)
{
    struct loam_memory *memory = create_populated(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    struct loam_dma_request wanted = {.owner = "much", .bytes = 4 * LOAM_MIB};
    struct loam_dma_buffer buffer = {.id = 1};
    struct loam_frame_stats before, after;
    struct loam_diag diag = {0};

    assert_reclaims(memory, UINT64_MAX, 6 * LOAM_MIB);
    before = loam_frame_get_stats(loam_memory_frame(memory));
    prim_fake_fail(PRIM_POPULATE, 1, 1, ENOMEM);
    cr_expect_eq(loam_dma_alloc(loam_memory_dma(memory), &wanted, &buffer, &diag), LOAM_ERROR_EXHAUSTED, "%s",
                 diag.text);
    cr_expect_not_null(strstr(diag.text, "much"), "%s", diag.text);
    cr_expect_eq(buffer.id, 0);
    after = loam_frame_get_stats(loam_memory_frame(memory));
    cr_expect_eq(after.free_frames, before.free_frames);
    cr_expect_eq(after.released_chunks, before.released_chunks);
    cr_expect_eq(loam_dma_alloc(loam_memory_dma(memory), &wanted, &buffer, &diag), LOAM_OK, "%s", diag.text);
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

Test(memory, what_the_host_does_not_take_back_stays)
{
    struct loam_memory *memory = create_populated(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
    uint64_t given = 0, free_frames = loam_frame_get_stats(loam_memory_frame(memory)).free_frames;
    struct loam_diag diag = {0};

    prim_fake_fail(PRIM_DISCARD, 2, 1, EIO);
    cr_expect_eq(loam_memory_reclaim(memory, UINT64_MAX, &given, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_eq(diag.system_errno, EIO);
    cr_expect_not_null(strstr(diag.text, "2 MiB of 4K pages to be given back at GPA 0x200000"), "%s", diag.text);
    cr_expect_eq(given, 4 * LOAM_MIB);
    cr_expect_eq(present_bytes(memory), SMALL_BYTES - 4 * LOAM_MIB);
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).free_frames, free_frames);
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).released_chunks, 2);
    assert_reclaims(memory, UINT64_MAX, 2 * LOAM_MIB);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

Test(memory, locked_memory_is_not_given_back)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    uint64_t given = 1;

    request.lock = true;

    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);

    cr_expect_eq(loam_memory_reclaim(memory, UINT64_MAX, &given, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(given, 0);
    cr_expect_eq(present_bytes(memory), SMALL_BYTES);
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).released_chunks, 0);
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect_eq(loam_memory_reclaim(NULL, 1, &given, NULL), LOAM_ERROR_INVALID);
}

static void reclaim_from_pool(enum loam_pages pages, uint64_t bytes, uint64_t expected)
{
    struct host_setting pool = {0};
    uint64_t page_bytes = loam_pages_bytes(pages), given;

    if (!host_pool_raise(&pool, page_bytes, bytes / page_bytes)) {
        cr_skip("%s", pool.reason);
    }

    struct loam_memory_request request = {.bytes = bytes, .pages = pages, .commit = LOAM_COMMIT_POPULATE};
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_backing_info info;
    struct stat status;

    cr_assert_eq(loam_memory_backing(memory, 0, &info), LOAM_OK);
    cr_expect_eq(loam_memory_reclaim(memory, bytes, &given, NULL), LOAM_OK);
    cr_expect_eq(given, expected);
    cr_assert_eq(fstat(info.fd, &status), 0);
    cr_expect_eq((uint64_t)status.st_blocks * 512, bytes - expected);
    loam_memory_destroy(memory);
    host_setting_restore(&pool);
}

Test(memory, hugepages_go_back_to_their_pool)
{
    reclaim_from_pool(LOAM_PAGES_2M, 8 * LOAM_MIB, 6 * LOAM_MIB);
}

Test(memory, of_1g_pages_whole_ones_are_given_back)
{
    reclaim_from_pool(LOAM_PAGES_1G, 2 * LOAM_GIB, LOAM_GIB);
}

/* A buffer that ends or begins where the range does lies beside it, and holds nothing of it. */
Test(memory, only_a_buffer_within_is_said_to_hold_a_range)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_frame *frame = loam_memory_frame(memory);
    struct loam_frame_request taken = {.count_frames = 1, .flags = LOAM_FRAME_AT, .at = {2 * LOAM_MIB / 4096}};
    struct loam_frame_block block;
    struct loam_diag diag = {0};

    for (uint64_t side = 0; side < 2; side++) {
        struct loam_dma_request beside = {.owner = side == 0 ? "below" : "above",
                                          .bytes = 4096,
                                          .at = {2 * LOAM_MIB - 4096 + side * 8192},
                                          .flags = LOAM_DMA_AT};
        struct loam_dma_buffer buffer;

        cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &beside, &buffer, &diag), LOAM_OK, "%s", diag.text);
    }
    cr_assert_eq(loam_frame_alloc(frame, &taken, &block), LOAM_OK);
    assert_not_removed(memory, 2 * LOAM_MIB, 4096, LOAM_ERROR_BUSY,
                       "0x1000 bytes at GPA 0x200000 to be removed: frames of it are allocated past the ledger: free "
                       "them first");
    assert_not_removed(memory, 2 * LOAM_MIB, 8192, LOAM_ERROR_BUSY,
                       "0x2000 bytes at GPA 0x200000 to be removed: a buffer of \"above\", 0x1000 bytes at GPA "
                       "0x201000, lies there: release it first");
    cr_assert_eq(loam_frame_free(frame, block.start, 1), LOAM_OK);
    loam_memory_destroy(memory);
}

/* More than the frame allocator gives in one block: all of it goes, or none. */
Test(memory, a_range_of_several_blocks_is_removed_whole)
{
    const uint64_t block_bytes = LOAM_FRAME_COUNT_MAX * LOAM_FRAME_BYTES, high = LOAM_DMA32_END_BYTES;
    struct loam_memory_request request = {
        .bytes = 3 * LOAM_GIB + 2 * block_bytes, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_frame *frame = loam_memory_frame(memory);
    uint64_t free_frames = loam_frame_get_stats(frame).free_frames;
    struct loam_frame_request taken = {
        .count_frames = 1, .flags = LOAM_FRAME_AT, .at = {(high + block_bytes) / LOAM_FRAME_BYTES + 5}};
    struct loam_frame_block block;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_frame_alloc(frame, &taken, &block), LOAM_OK);
    assert_not_removed(memory, high, 2 * block_bytes, LOAM_ERROR_BUSY,
                       "0x200000000 bytes at GPA 0x100000000 to be removed: frames of it are allocated past the "
                       "ledger: free them first");
    cr_expect_eq(loam_frame_get_stats(frame).free_frames, free_frames - 1);
    cr_assert_eq(loam_frame_free(frame, block.start, 1), LOAM_OK);
    cr_assert_eq(loam_memory_remove(memory, loam_gpa_from_u64(high), 2 * block_bytes, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(loam_frame_get_stats(frame).free_frames, free_frames - 2 * LOAM_FRAME_COUNT_MAX);
    assert_valid(memory);
    loam_memory_destroy(memory);
}

/* Past the facade there is no way either: neither under a buffer nor under frames that could become one. */
Test(memory, its_map_refuses_to_remove_ram)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_gpa_map *map = loam_memory_map(memory);
    struct loam_region forged = {.start = {8 * LOAM_GIB}, .bytes = 4096, .hva = memory, .access = LOAM_ACCESS_WRITE};
    struct loam_region device = {.start = {8 * LOAM_MIB}, .bytes = 4096, .type = LOAM_REGION_DEVICE};

    forged.hva = (void *)(uintptr_t)loam_align_down((uintptr_t)memory, 4096);
    for (uint64_t part = 0; part < 2; part++) {
        uint64_t start = part * LOAM_DMA32_END_BYTES;

        cr_expect_eq(loam_gpa_map_remove(map, loam_gpa_from_u64(start), 4096), LOAM_ERROR_NOT_PERMITTED);
        cr_expect_eq(loam_gpa_map_remove(map, loam_gpa_from_u64(start), SMALL_BYTES / 2), LOAM_ERROR_NOT_PERMITTED);
        forged.backing = (uint32_t)part + 1;
        cr_expect_eq(loam_gpa_map_insert(map, &forged), LOAM_ERROR_NOT_PERMITTED);
    }
    assert_valid(memory);
    forged.backing = 0;
    cr_expect_eq(loam_gpa_map_insert(map, &device), LOAM_OK, "what is the caller's own comes and goes");
    cr_expect_eq(loam_gpa_map_remove(map, device.start, device.bytes), LOAM_OK);
    cr_expect_eq(loam_gpa_map_insert(map, &forged), LOAM_OK);
    cr_expect_eq(loam_gpa_map_remove(map, forged.start, forged.bytes), LOAM_OK);
    loam_memory_destroy(memory);
}

/* The map has four tables, so the fourth view held is one too many; and rows end at 64. */
Test(memory, a_map_that_refuses_gives_the_frames_back)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan;
    struct loam_memory *memory;
    struct loam_gpa_map *map;
    const struct loam_gpa_view *views[4];
    struct loam_diag diag = {0};
    uint32_t removed = 0;

    request.region_capacity = 64;
    request.table_capacity = 4;
    plan = make_plan(&request);
    memory = create(&plan);
    map = loam_memory_map(memory);
    for (uint32_t i = 0; i < 4; i++) {
        views[i] = loam_gpa_map_acquire(map);
        if (i < 3) {
            cr_assert_eq(loam_memory_remove(memory, loam_gpa_from_u64(LOAM_MIB + 8192 * i), 4096, &diag), LOAM_OK);
        }
    }
    assert_not_removed(
        memory, 2 * LOAM_MIB, 4096, LOAM_ERROR_BUSY,
        "0x1000 bytes at GPA 0x200000 to be removed: readers hold every other table of the map: try again");
    for (uint32_t i = 0; i < 4; i++) {
        loam_gpa_map_release(map, views[i]);
    }
    while (loam_memory_remove(memory, loam_gpa_from_u64(2 * LOAM_MIB + 8192 * removed), 4096, &diag) == LOAM_OK) {
        removed++;
    }
    cr_expect_eq(diag.error, LOAM_ERROR_EXHAUSTED);
    cr_expect_gt(removed, 50);
    assert_valid(memory);
    loam_memory_destroy(memory);
}

Test(memory, what_is_loams_is_not_released)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_dma *dma = loam_memory_dma(memory);
    struct loam_dma_entry entry;

    for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        cr_expect_str_eq(entry.owner, at.value == 0 ? "null" : "legacy");
        cr_expect_eq(loam_dma_release(dma, entry.buffer.id), LOAM_ERROR_NOT_PERMITTED);
    }
    cr_expect_eq(loam_dma_count(dma), 2);
    loam_memory_destroy(memory);
}

/* A region that points beside its backing is what validation is for. */
Test(memory, notices_a_region_beside_its_backing)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_gpa_map *map = loam_memory_map(memory);
    struct loam_diag diag = {0};
    struct loam_backing_info info;
    struct loam_region region;

    cr_assert_eq(loam_memory_backing(memory, 0, &info), LOAM_OK);
    cr_assert_eq(loam_gpa_map_keeper_remove(map, loam_gpa_from_u64(2 * LOAM_MIB), 4096), LOAM_OK);
    assert_valid(memory);
    region = (struct loam_region){.start = {2 * LOAM_MIB},
                                  .bytes = 4096,
                                  .hva = (char *)info.hva + 3 * LOAM_MIB,
                                  .backing_offset = 2 * LOAM_MIB,
                                  .backing = 1,
                                  .access = LOAM_ACCESS_WRITE};
    cr_assert_eq(loam_gpa_map_keeper_insert(map, &region), LOAM_OK);
    cr_expect_eq(loam_memory_validate(memory, &diag), LOAM_ERROR_CORRUPT);
    cr_expect_str_eq(diag.text, "the region at GPA 0x200000 does not lie in backing 1");
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

/* Frames that are freed past the ledger: every part is asked, and the one that knows says so. */
Test(memory, notices_a_ledger_without_frames)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    struct loam_memory *memory = create(&plan);
    struct loam_dma_request wanted = {.owner = "robbed", .bytes = 4096};
    struct loam_diag diag = {0};
    struct loam_dma_buffer buffer;

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &wanted, &buffer, &diag), LOAM_OK, "%s", diag.text);
    assert_valid(memory);
    cr_assert_eq(loam_frame_free(loam_memory_frame(memory), loam_pfn_from_gpa(buffer.gpa, LOAM_FRAME_SHIFT), 1),
                 LOAM_OK);
    cr_expect_eq(loam_memory_validate(memory, &diag), LOAM_ERROR_CORRUPT);
    cr_expect_not_null(strstr(diag.text, "robbed"), "%s", diag.text);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
}

Test(memory, keeps_the_reserve_that_was_asked)
{
    static const uint64_t asked_bytes[] = {4096, SMALL_BYTES, UINT64_MAX},
                          expected_frames[] = {1, SMALL_BYTES / 4096, 0};

    for (size_t i = 0; i < 3; i++) {
        struct loam_memory_request request = one_part(LOAM_PAGES_4K);
        struct loam_memory *memory;
        struct loam_plan plan;

        request.dma32_reserve_bytes = asked_bytes[i];
        plan = make_plan(&request);
        memory = create(&plan);
        cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).dma32_reserve_frames, expected_frames[i],
                     "case %zu", i);
        loam_memory_destroy(memory);
    }
    cr_expect(prim_fake_clean());
}

Test(memory, destroys_nothing_where_there_is_nothing)
{
    loam_memory_destroy(NULL);
    cr_expect_eq(prim_fake_record_count(), 0);
}

/* --- Plans that are refused -----------------------------------------------------------------------------------------
 */

Test(memory, refuses_a_plan_that_falls_short)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_4K);
    struct loam_plan plan;

    request.slot_limit = 1;
    request.extra_slots = 1;
    plan = make_plan(&request);
    cr_assert_eq(plan.short_count, 1);
    assert_refused(&plan, LOAM_ERROR_EXHAUSTED, "short plan");
    cr_expect_eq(prim_fake_call_count(PRIM_RESERVE), 0, "something was mapped");
    memset(loam_plan_shortfall(&plan) == NULL ? plan.passed_over : plan.checks[plan.check_count - 1].text, 'x',
           sizeof plan.checks[0].text);
    assert_refused(&plan, LOAM_ERROR_EXHAUSTED, "short plan without an end to its text");
}

Test(memory, refuses_a_plan_that_was_edited)
{
    enum { EDIT_COUNT = 24 };
    struct loam_memory_request one = one_part(LOAM_PAGES_4K), two = two_parts(LOAM_PAGES_AUTO);

    for (int edit = 0; edit < EDIT_COUNT; edit++) {
        struct loam_plan plan = make_plan(edit % 2 == 0 ? &one : &two);
        char what[32];

        snprintf(what, sizeof what, "edit %d", edit);
        switch (edit / 2) {
        case 0:
            plan.request.bytes += 4096;
            break;
        case 1:
            plan.request.low_limit_bytes = 0;
            break;
        case 2:
            plan.request.dma32_reserve_bytes = 0;
            break;
        case 3:
            plan.pages = LOAM_PAGES_1G;
            break;
        case 4:
            plan.pages = LOAM_PAGES_AUTO;
            plan.page_bytes = 0;
            plan.backing_page_count = 0;
            break;
        case 5:
            plan.part_count = edit % 2 == 0 ? UINT32_MAX : 0;
            break;
        case 6:
            plan.parts[0].bytes -= 4096;
            break;
        case 7:
            plan.parts[1].start.value += 4096;
            break;
        case 8:
            plan.hole_start.value++;
            break;
        case 9:
            plan.backing_page_count--;
            break;
        case 10:
            plan.metadata_bytes++;
            break;
        case 11:
            plan.parts[0].pages = LOAM_PAGES_AUTO;
            break;
        case 12:
            plan.parts[0].asked = UINT32_MAX;
            break;
        case 13:
            plan.request.part_count = 0;
            break;
        case 14:
            plan = (struct loam_plan){.check_count = UINT32_MAX, .pages = LOAM_PAGES_COUNT};
            break;
        }
        assert_refused(&plan, LOAM_ERROR_INVALID, what);
    }
    cr_expect_eq(prim_fake_call_count(PRIM_RESERVE), 0, "something was mapped");
}

/* --- Memory of several kinds -------------------------------------------------------------------------------------- */

static void assert_piece(struct loam_memory *memory, uint64_t gpa, uint64_t bytes, uint32_t expected)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    struct loam_piece pieces[4];
    uint32_t count = 0;

    cr_expect_eq(loam_gpa_view_pieces(view, loam_gpa_from_u64(gpa), bytes, LOAM_ACCESS_WRITE, pieces, 4, &count),
                 LOAM_OK);
    cr_expect_eq(count, expected, "%" PRIu32 " pieces at %#" PRIx64, count, gpa);
    loam_gpa_map_release(loam_memory_map(memory), view);
}

/* 8 MiB of 2 MiB pages and 6 MiB + 4 KiB of small ones around a hole that begins at 6 MiB + 4 KiB. */
static struct loam_memory_request mixed(void)
{
    return (struct loam_memory_request){
        .low_limit_bytes = 10 * LOAM_MIB + 4096,
        .keep_from_dumps = true,
        .part_count = 3,
        .parts = {{.bytes = 4 * LOAM_MIB + 4096, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_PRIVATE},
                  {.bytes = 8 * LOAM_MIB,
                   .pages = LOAM_PAGES_2M,
                   .sharing = LOAM_SHARING_SHARED,
                   .placement = LOAM_PLACEMENT_PREFERRED,
                   .node_mask = 1,
                   .name = "large"},
                  {.bytes = 2 * LOAM_MIB, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_SHARED, .lock = true}}};
}

static void assert_mixed_backings(struct loam_memory *memory, const struct loam_plan *plan)
{
    struct loam_share shares[LOAM_PLAN_REGION_MAX];
    struct loam_backing_info info;
    uint32_t count;

    cr_assert_eq(loam_memory_shares(memory, shares, LOAM_PLAN_REGION_MAX, &count), LOAM_OK);
    cr_assert_eq(count, plan->part_count);
    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct loam_backing_request *asked = &plan->request.parts[plan->parts[i].asked];

        cr_assert_eq(loam_memory_backing(memory, i, &info), LOAM_OK);
        cr_expect(info.gpa.value == plan->parts[i].start.value && info.bytes == plan->parts[i].bytes);
        cr_expect(info.pages == plan->parts[i].pages && info.sharing == asked->sharing);
        cr_expect(info.placement == asked->placement && info.node_mask == asked->node_mask);
        cr_expect_eq(info.locked, asked->lock);
        cr_expect_eq(((uintptr_t)info.hva - info.gpa.value) % info.page_bytes, 0);
        cr_expect_eq(shares[i].fd, info.fd, "part %" PRIu32, i);
        cr_expect_eq(info.fd >= 0, asked->sharing == LOAM_SHARING_SHARED);
        cr_expect_eq(shares[i].start.value, info.gpa.value);
    }
}

Test(memory, of_several_kinds_is_carried_out_part_by_part)
{
    struct loam_memory_request request = mixed();
    struct host_setting pool = {0};
    struct loam_memory *memory;
    uint64_t pool_before;
    struct loam_plan plan;

    if (!raise_pool(&pool, LOAM_PAGES_2M, 4)) {
        cr_skip("%s", pool.reason);
    }
    plan = make_plan(&request);
    cr_assert_eq(plan.short_count, 0, "%s", plan.short_count > 0 ? loam_plan_shortfall(&plan)->text : "");
    cr_assert_eq(plan.part_count, 4);
    pool_before = host_pool_available(2 * LOAM_MIB);
    memory = create(&plan);
    cr_expect_eq(pool_before - host_pool_available(2 * LOAM_MIB), 4);
    assert_mixed_backings(memory, &plan);
    assert_file_name(memory, 0, "/memfd:large (deleted)");
    assert_file_name(memory, 3, "/memfd:loam-high (deleted)");
    assert_piece(memory, 8 * LOAM_MIB - 4096, 8192, 2);
    assert_piece(memory, 4 * LOAM_GIB + 2 * LOAM_MIB - 4096, 8192, 2);
    assert_valid(memory);
    loam_memory_destroy(memory);
    cr_expect(prim_fake_clean());
    cr_expect_eq(host_pool_available(2 * LOAM_MIB), pool_before);
    host_setting_restore(&pool);
}

/* The pool was full enough when the plan was made. */
Test(memory, refuses_a_plan_gone_stale)
{
    uint64_t pages = host_pool_available(2 * LOAM_MIB) + 4;
    struct loam_memory_request request = {.bytes = pages * 2 * LOAM_MIB, .pages = LOAM_PAGES_2M};
    struct loam_plan plan;

    for (uint32_t turn = 0; turn < 2; turn++) {
        prim_fake_script_text(POOL_2M "free_hugepages", "1000000\n");
        prim_fake_script_text(POOL_2M "resv_hugepages", "0\n");
        plan = make_plan(&request);
        prim_fake_script_none();
        cr_assert_eq(plan.short_count, 0);
        assert_refused(&plan, LOAM_ERROR_EXHAUSTED, "stale plan");
        request.low_limit_bytes = 4 * LOAM_MIB; /* two parts, the first of which the pool can serve */
    }
}

Test(memory, refuses_a_plan_whose_pool_was_shrunk)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_2M);
    uint64_t pages = host_pool_available(2 * LOAM_MIB) + SMALL_BYTES / (2 * LOAM_MIB);
    struct host_setting pool = {0};
    struct loam_plan plan;
    bool raised = host_pool_raise(&pool, 2 * LOAM_MIB, pages);

    request.bytes = pages * 2 * LOAM_MIB;
    plan = make_plan(&request);
    host_setting_restore(&pool);
    if (!raised) {
        cr_skip("%s", pool.reason);
    }
    cr_expect_eq(plan.short_count, 0);
    assert_refused(&plan, LOAM_ERROR_EXHAUSTED, "pool shrunk");
}

/* --- Every call failed once
 * ------------------------------------------------------------------------------------------- */

static enum prim_kind kind_failed(void)
{
    for (uint32_t i = 0; i < prim_fake_record_count(); i++) {
        if (prim_fake_record(i).on_purpose) {
            return prim_fake_record(i).kind;
        }
    }
    return PRIM_ANY;
}

/* Calls without which memory can be made all the same: workers that others stand in for, figures that only forewarn. */
static bool can_do_without(enum prim_kind kind)
{
    return kind == PRIM_THREAD_START || kind == PRIM_READ_TEXT;
}

/* Fail the n-th call of creation; false when creation needs fewer. */
static bool fail_call(const struct loam_plan *plan, uint32_t n, int error_number)
{
    struct host_state before = host_state_take();
    struct loam_diag diag = {0};
    struct loam_memory *memory;
    enum loam_error error;
    bool failed;

    prim_fake_forget();
    prim_fake_fail(PRIM_ANY, n, 1, error_number);
    error = loam_memory_create(plan, &memory, &diag);
    failed = prim_fake_failed_count() > 0;
    prim_fake_fail_none();
    if (error == LOAM_OK) {
        cr_expect(!failed || can_do_without(kind_failed()), "call %" PRIu32 " (%s) failed and nobody says so", n,
                  prim_kind_name(kind_failed()));
        assert_valid(memory);
    } else {
        cr_expect(failed, "call %" PRIu32 ": %s", n, diag.text);
        cr_expect_null(memory);
        cr_expect_eq(diag.error, error, "call %" PRIu32, n);
        cr_expect(strlen(diag.text) > 10 && strchr(diag.text, '\n') == NULL, "call %" PRIu32 ": '%s'", n, diag.text);
    }
    loam_memory_destroy(memory);
    cr_assert(prim_fake_clean(), "call %" PRIu32 " leaks", n);
    cr_assert(host_state_unchanged(&before), "call %" PRIu32 " leaks", n);
    return failed;
}

static void fail_every_call(const struct loam_memory_request *request)
{
    static const int errors[] = {ENOMEM, EIO, EPERM};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct loam_plan plan = make_plan(request);
        uint32_t n = 1;

        cr_assert_eq(plan.short_count, 0, "%s", plan.short_count > 0 ? loam_plan_shortfall(&plan)->text : "");
        while (fail_call(&plan, n, errors[i])) {
            n++;
        }
        cr_expect_gt(n, 10, "creation makes only %" PRIu32 " calls", n);
    }
}

static void fail_every_call_of_kind(enum loam_pages pages, enum loam_sharing sharing)
{
    struct loam_memory_request small = one_part(pages), split = two_parts(pages);
    struct host_setting pool = {0};

    small.sharing = sharing;
    split.sharing = sharing;
    split.placement = LOAM_PLACEMENT_STRICT;
    split.node_mask = 1;
    split.lock = true;
    split.commit = LOAM_COMMIT_POPULATE;
    if (raise_pool(&pool, pages, SMALL_BYTES / loam_pages_bytes(pages))) {
        fail_every_call(&small);
        fail_every_call(&split);
    }
    host_setting_restore(&pool);
    if (pool.reason[0] != '\0') {
        cr_skip("%s", pool.reason);
    }
}

Test(memory, of_several_kinds_leaks_nothing_when_calls_fail)
{
    struct loam_memory_request request = mixed();
    struct host_setting pool = {0};

    if (!raise_pool(&pool, LOAM_PAGES_2M, 4)) {
        cr_skip("%s", pool.reason);
    }
    fail_every_call(&request);
    host_setting_restore(&pool);
}

Test(memory, leaks_nothing_when_calls_fail_shared_4k)
{
    fail_every_call_of_kind(LOAM_PAGES_4K, LOAM_SHARING_SHARED);
}

Test(memory, leaks_nothing_when_calls_fail_private_4k)
{
    fail_every_call_of_kind(LOAM_PAGES_4K, LOAM_SHARING_PRIVATE);
}

Test(memory, leaks_nothing_when_calls_fail_thp)
{
    struct loam_memory_request request = one_part(LOAM_PAGES_THP);
    struct loam_plan plan = make_plan(&request);

    if (plan.short_count > 0) {
        cr_skip("%s", loam_plan_shortfall(&plan)->text);
    }
    fail_every_call_of_kind(LOAM_PAGES_THP, LOAM_SHARING_ANY);
}

Test(memory, leaks_nothing_when_calls_fail_shared_2m)
{
    fail_every_call_of_kind(LOAM_PAGES_2M, LOAM_SHARING_SHARED);
}

Test(memory, leaks_nothing_when_calls_fail_private_2m)
{
    fail_every_call_of_kind(LOAM_PAGES_2M, LOAM_SHARING_PRIVATE);
}

Test(memory, leaks_nothing_when_the_heap_is_exhausted)
{
    struct loam_memory_request request = two_parts(LOAM_PAGES_4K);
    struct loam_plan plan = make_plan(&request);
    enum loam_error error = LOAM_ERROR_SYSTEM;
    uint32_t n;

    for (n = 1; error != LOAM_OK; n++) {
        struct host_state before = host_state_take();
        uint32_t blocks_before = block_count();
        struct loam_diag diag = {0};
        struct loam_memory *memory;

        calloc_count = 0;
        calloc_fails = n;
        errno = ENOMEM;
        error = loam_memory_create(&plan, &memory, &diag);
        calloc_fails = 0;
        cr_assert_eq(error == LOAM_OK, calloc_count < n, "heap call %" PRIu32 ": %s", n, loam_error_name(error));
        cr_expect(error == LOAM_OK || (memory == NULL && diag.error == error && diag.text[0] != '\0'),
                  "heap call %" PRIu32, n);
        loam_memory_destroy(memory);
        cr_assert(prim_fake_clean(), "heap call %" PRIu32, n);
        cr_assert_eq(block_count(), blocks_before, "heap call %" PRIu32 " leaks", n);
        cr_assert(host_state_unchanged(&before), "heap call %" PRIu32, n);
    }
    cr_expect_gt(n, 10, "creation takes only %" PRIu32 " blocks", n);
}
