// SPDX-License-Identifier: Apache-2.0
/*
 * Memory that is plugged and unplugged: the map, the frames, the ledger, the hypervisor's slots and the host's memory come
 * and go together, and a call that is refused anywhere leaves all of them as they were.
 */
#include "loam/memory.h"
#include "tests/allocator/prim_fake.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_BYTES   (8 * LOAM_MIB)
#define BLOCK_BYTES (4 * LOAM_MIB)
#define FOUR_GIB    LOAM_DMA32_END_BYTES

/* --- A hypervisor ------------------------------------------------------------------------------------------------- */

enum { ROW_MAX = 2048 };

/* As KVM has it: numbers, each with a slot or none, and no two slots overlap. fails: the call that is refused, from 1. */
static struct {
    struct loam_slots_row rows[ROW_MAX];
    uint32_t calls, fails;
} hypervisor;

static int set_row(void *self, const struct loam_slots_row *row)
{
    struct loam_slots_row *there = &hypervisor.rows[row->number];

    (void)self;
    if (++hypervisor.calls == hypervisor.fails) {
        errno = ENOSPC;
        return -1;
    }
    for (uint32_t n = 0; row->bytes > 0 && n < ROW_MAX; n++) {
        const struct loam_slots_row *other = &hypervisor.rows[n];

        cr_assert(n == row->number || other->bytes == 0 || other->start.value >= row->start.value + row->bytes ||
                      row->start.value >= other->start.value + other->bytes,
                  "slot %" PRIu32 " overlaps slot %" PRIu32, row->number, n);
    }
    cr_assert(row->bytes == 0 || there->bytes == 0, "slot %" PRIu32 " is there already", row->number);
    *there = *row;
    return 0;
}

static const struct loam_slots_row *row_at(uint64_t gpa)
{
    for (uint32_t n = 0; n < ROW_MAX; n++) {
        const struct loam_slots_row *row = &hypervisor.rows[n];

        if (gpa - row->start.value < row->bytes) {
            return row;
        }
    }
    return NULL;
}

/* --- A guest's memory --------------------------------------------------------------------------------------------- */

static struct loam_memory *memory;
static struct loam_slots *slots;
static struct prim_fake_live live; /* with the memory made, and nothing plugged */

static void update_slots(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_update_slots(memory, slots, &diag), LOAM_OK, "%s", diag.text);
}

static void make(uint32_t block_capacity)
{
    struct loam_memory_request request = {.bytes = RAM_BYTES,
                                          .low_limit_bytes = RAM_BYTES / 2,
                                          .pages = LOAM_PAGES_4K,
                                          .dma32_reserve_bytes = UINT64_MAX,
                                          .block_capacity = block_capacity};
    struct loam_slots_config config = {.set = set_row, .limit = ROW_MAX};
    struct loam_diag diag = {0};
    struct loam_plan plan;

    memset(&hypervisor, 0, sizeof hypervisor);
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_slots_create(&config, &slots, &diag), LOAM_OK, "%s", diag.text);
    update_slots();
    live = prim_fake_live();
}

static void assert_valid(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
}

/* Nothing is plugged any more: the host has all of it back. */
static void assert_as_before(const char *what)
{
    struct prim_fake_live now = prim_fake_live();

    assert_valid();
    cr_assert_eq(now.mapping_count, live.mapping_count, "%s: mappings", what);
    cr_assert_eq(now.mapped_bytes, live.mapped_bytes, "%s: bytes mapped", what);
    cr_assert_eq(now.fd_count, live.fd_count, "%s: descriptors", what);
    cr_assert_eq(now.heap_count, live.heap_count, "%s: pieces of heap", what);
    cr_assert_eq(now.thread_count, live.thread_count, "%s: threads", what);
}

static void drop(void)
{
    loam_slots_destroy(slots);
    loam_memory_destroy(memory);
    cr_assert(prim_fake_clean());
}

static enum loam_error plug_with(struct loam_plug_request request, loam_gpa *start, struct loam_diag *diag)
{
    struct loam_backing_info info;
    enum loam_error error;

    if (request.backing.bytes == 0) {
        request.backing.bytes = BLOCK_BYTES;
    }
    if (request.backing.pages == LOAM_PAGES_AUTO) {
        request.backing.pages = LOAM_PAGES_4K;
    }
    error = loam_memory_plug(memory, &request, &info, diag);
    *start = info.gpa;
    return error;
}

#define PLUG(start, ...) plug_with((struct loam_plug_request){.slots = slots, __VA_ARGS__}, start, NULL)

static enum loam_error carve(uint64_t bytes, loam_gpa at, uint32_t flags, struct loam_dma_buffer *buffer)
{
    struct loam_dma_request request = {.owner = "test", .bytes = bytes, .at = at, .flags = flags};

    return loam_dma_alloc(loam_memory_dma(memory), &request, buffer, NULL);
}

/* Whether the map has all of the block, as RAM. */
static bool is_mapped(loam_gpa start, uint64_t bytes)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    void *hva;
    bool mapped = loam_gpa_view_translate(view, start, bytes, LOAM_ACCESS_WRITE, &hva) == LOAM_OK;

    loam_gpa_map_release(loam_memory_map(memory), view);
    return mapped;
}

static void start_default(void)
{
    make(0);
}

TestSuite(memory_plug, .init = start_default, .fini = drop, .timeout = 120);
TestSuite(memory_plug_bare, .timeout = 300);

/* --- What comes --------------------------------------------------------------------------------------------------- */

Test(memory_plug, comes_behind_what_is_there_in_map_slots_and_frames)
{
    struct loam_frame_stats stats;
    loam_gpa first, second;

    cr_assert_eq(PLUG(&first), LOAM_OK);
    cr_assert_eq(PLUG(&second), LOAM_OK);
    cr_expect_eq(first.value, FOUR_GIB + 128 * LOAM_MIB);
    cr_expect_eq(second.value, FOUR_GIB + 256 * LOAM_MIB);
    cr_assert(is_mapped(first, BLOCK_BYTES));
    cr_assert_not_null(row_at(second.value + BLOCK_BYTES - 1));
    cr_expect_eq(row_at(second.value)->bytes, BLOCK_BYTES);
    stats = loam_frame_get_stats(loam_memory_frame(memory));
    cr_expect_eq(stats.managed_frames, (RAM_BYTES + 2 * BLOCK_BYTES) / 4096);
    cr_expect_eq(stats.withheld_frames, 2 * BLOCK_BYTES / 4096);
    assert_valid();
}

Test(memory_plug, serves_only_who_asks_for_it)
{
    struct loam_dma_buffer buffer, within;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    while (carve(4096, (loam_gpa){0}, 0, &buffer) == LOAM_OK) {
        cr_assert_lt(buffer.gpa.value, start.value);
    }
    cr_assert_eq(carve(8192, start, LOAM_DMA_IN, &within), LOAM_OK);
    cr_assert_lt(within.gpa.value - start.value, BLOCK_BYTES);
    memset(within.hva, 0x5a, within.bytes);
    cr_assert_eq(carve(4096, (loam_gpa){start.value}, LOAM_DMA_AT, &buffer), LOAM_OK);
    cr_assert_eq(carve(BLOCK_BYTES, start, LOAM_DMA_IN, &buffer), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(carve(4096, (loam_gpa){start.value + BLOCK_BYTES}, LOAM_DMA_IN, &buffer), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(carve(4096, start, LOAM_DMA_IN | LOAM_DMA_AT, &buffer), LOAM_ERROR_INVALID);
    assert_valid();
}

Test(memory_plug, serves_everybody_if_it_is_open)
{
    struct loam_dma_buffer buffer;
    loam_gpa start;

    cr_assert_eq(PLUG(&start, .open = true), LOAM_OK);
    cr_assert_eq(carve(BLOCK_BYTES, (loam_gpa){0}, 0, &buffer), LOAM_OK);
    cr_assert_eq(buffer.gpa.value, start.value);
}

Test(memory_plug, goes_where_it_is_asked_to)
{
    struct loam_backing_info info;
    struct loam_share shares[8];
    uint32_t count;
    loam_gpa start;

    cr_assert_eq(PLUG(&start, .backing = {.gpa = {64 * LOAM_GIB}, .sharing = LOAM_SHARING_SHARED}), LOAM_OK);
    cr_expect_eq(start.value, 64 * LOAM_GIB);
    cr_assert_eq(loam_memory_backing(memory, 2, &info), LOAM_OK);
    cr_expect_eq(info.gpa.value, start.value);
    cr_expect_eq(((uintptr_t)info.hva ^ start.value) % (2 * LOAM_MIB), 0);
    cr_assert_eq(loam_memory_shares(memory, shares, 8, &count), LOAM_OK);
    cr_assert_eq(count, 3);
    cr_expect_eq(shares[2].fd, info.fd);
    cr_expect_geq(info.fd, 0);
}

Test(memory_plug, may_be_memory_of_somebody_else)
{
    int fd = memfd_create("theirs", MFD_CLOEXEC);
    struct loam_share shares[8];
    uint64_t given;
    uint32_t count;
    loam_gpa start;

    cr_assert_eq(ftruncate(fd, (off_t)(3 * BLOCK_BYTES)), 0);
    cr_assert_eq(pwrite(fd, "hello", 6, (off_t)BLOCK_BYTES), 6);
    cr_assert_eq(
        PLUG(&start, .open = true, .backing = {.adoption = LOAM_ADOPTION_FD, .fd = fd, .fd_offset = BLOCK_BYTES}),
        LOAM_OK);
    cr_assert_eq(loam_memory_shares(memory, shares, 8, &count), LOAM_OK);
    cr_expect_eq(shares[count - 1].start.value, start.value);
    cr_expect_eq(shares[count - 1].backing_offset, BLOCK_BYTES, "from there a peer maps it");
    cr_expect_str_eq(shares[count - 1].hva, "hello");
    cr_expect_eq(loam_memory_reclaim(memory, BLOCK_BYTES, &given, NULL), LOAM_OK);
    cr_expect_str_eq(shares[count - 1].hva, "hello", "it is not the library's to give back");
    assert_valid();
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    close(fd);
    assert_as_before("adopted");
}

Test(memory_plug, what_cannot_be_is_refused_in_one_line)
{
    const struct {
        struct loam_backing_request backing;
        enum loam_error error;
        const char *says;
    } cases[] = {
        {{.gpa = {FOUR_GIB - BLOCK_BYTES}}, LOAM_ERROR_INVALID, "from 4 GiB up"},
        {{.gpa = {LOAM_GPA_END - 4096}}, LOAM_ERROR_INVALID, "from 4 GiB up"},
        {{.gpa = {FOUR_GIB}}, LOAM_ERROR_OVERLAP, "something is there already"},
        {{.gpa = {FOUR_GIB + RAM_BYTES / 2 - 4096}}, LOAM_ERROR_OVERLAP, "something is there already"},
        {{.bytes = 4095}, LOAM_ERROR_INVALID, "4 KiB"},
        {{.gpa = {FOUR_GIB + 4097}}, LOAM_ERROR_OVERLAP, "already"},
        {{.gpa = {5 * LOAM_GIB + 1}}, LOAM_ERROR_INVALID, "4 KiB"},
        {{.pages = LOAM_PAGES_COUNT}, LOAM_ERROR_INVALID, "pages 5"},
    };
    loam_gpa start;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_diag diag = {0};

        cr_expect_eq(plug_with((struct loam_plug_request){.backing = cases[i].backing, .slots = slots}, &start, &diag),
                     cases[i].error, "%zu: %s", i, diag.text);
        cr_expect(strstr(diag.text, cases[i].says) != NULL, "%zu: '%s'", i, diag.text);
        cr_expect(strchr(diag.text, '\n') == NULL);
        assert_as_before(cases[i].says);
    }
    cr_expect_eq(loam_memory_plug(NULL, &(struct loam_plug_request){0}, NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_memory_plug(memory, NULL, NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_memory_unplug(NULL, start, NULL, NULL), LOAM_ERROR_INVALID);
}

/* A device's region in the map is in the way too, and is seen when the table is prepared. */
Test(memory_plug, does_not_cover_a_device)
{
    struct loam_region device = {.start = {8 * LOAM_GIB}, .bytes = 4096, .type = LOAM_REGION_DEVICE};
    struct loam_diag diag = {0};
    loam_gpa start;

    cr_assert_eq(loam_gpa_map_insert(loam_memory_map(memory), &device), LOAM_OK);
    cr_assert_eq(
        plug_with((struct loam_plug_request){.backing = {.gpa = {8 * LOAM_GIB}}, .slots = slots}, &start, &diag),
        LOAM_ERROR_OVERLAP);
    cr_expect(strstr(diag.text, "something is there already") != NULL, "'%s'", diag.text);
    assert_as_before("a device");
    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_expect_gt(start.value, 8 * LOAM_GIB);
}

/* --- What goes ---------------------------------------------------------------------------------------------------- */

Test(memory_plug, goes_whole)
{
    loam_gpa start, again;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    cr_assert_not(is_mapped(start, 4096));
    cr_assert_null(row_at(start.value));
    assert_as_before("unplug");
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(PLUG(&again), LOAM_OK);
    cr_assert_eq(again.value, start.value);
}

Test(memory_plug, stays_under_a_buffer_which_is_named)
{
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};
    char place[32];
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(carve(12288, start, LOAM_DMA_IN, &buffer), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, &diag), LOAM_ERROR_BUSY);
    snprintf(place, sizeof place, "%#" PRIx64, buffer.gpa.value);
    cr_expect(strstr(diag.text, "\"test\"") != NULL && strstr(diag.text, place) != NULL, "'%s'", diag.text);
    cr_assert(is_mapped(start, BLOCK_BYTES));
    cr_assert_not_null(row_at(start.value));
    assert_valid();
    cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer.id), LOAM_OK);
    cr_assert_eq(carve(4096, start, LOAM_DMA_IN, &buffer), LOAM_OK, "it is used as before");
    cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer.id), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    assert_as_before("unplug");
}

Test(memory_plug, drains_while_it_is_closed)
{
    struct loam_frame_section section;
    struct loam_dma_buffer buffer, other;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(carve(4096, start, LOAM_DMA_IN, &buffer), LOAM_OK);
    cr_assert_eq(loam_frame_section_find(loam_memory_frame(memory), loam_pfn_from_gpa(start, 12), &section), LOAM_OK);
    cr_assert_eq(loam_frame_section_set_use(loam_memory_frame(memory), section.id, LOAM_FRAME_USE_CLOSED), LOAM_OK);
    cr_assert_eq(carve(4096, start, LOAM_DMA_IN, &other), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_ERROR_BUSY);
    cr_assert_eq(carve(4096, start, LOAM_DMA_IN, &other), LOAM_ERROR_NOT_PERMITTED, "it stays closed");
    cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer.id), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    assert_as_before("unplug");
}

Test(memory_plug, without_a_place_left_at_the_top_it_is_exhausted)
{
    struct loam_region device = {.start = {LOAM_GPA_END - LOAM_MIB}, .bytes = LOAM_MIB, .type = LOAM_REGION_DEVICE};
    struct loam_diag diag = {0};
    loam_gpa start;

    cr_assert_eq(loam_gpa_map_insert(loam_memory_map(memory), &device), LOAM_OK);
    cr_expect_eq(plug_with((struct loam_plug_request){.slots = slots}, &start, &diag), LOAM_ERROR_EXHAUSTED, "%s",
                 diag.text);
}

Test(memory_plug, what_is_of_the_plan_stays)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_unplug(memory, (loam_gpa){0}, slots, &diag), LOAM_ERROR_NOT_PERMITTED);
    cr_expect(strstr(diag.text, "loam_memory_remove") != NULL, "'%s'", diag.text);
    cr_assert_eq(loam_memory_unplug(memory, (loam_gpa){FOUR_GIB}, slots, &diag), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_memory_unplug(memory, (loam_gpa){FOUR_GIB + 4096}, slots, &diag), LOAM_ERROR_NOT_FOUND);
    assert_as_before("refused");
}

Test(memory_plug, a_view_from_before_keeps_its_memory_and_not_the_guests)
{
    struct loam_diag diag = {0};
    const struct loam_gpa_view *view;
    loam_gpa start, other;
    void *hva;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    view = loam_gpa_map_acquire(loam_memory_map(memory));
    cr_assert_eq(loam_gpa_view_translate(view, start, BLOCK_BYTES, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, &diag), LOAM_ERROR_BUSY);
    cr_expect(strstr(diag.text, "unplug again") != NULL, "'%s'", diag.text);
    memset(hva, 1, BLOCK_BYTES);
    cr_assert_not(is_mapped(start, 4096));
    cr_assert_null(row_at(start.value));
    assert_valid();
    cr_assert_eq(PLUG(&other), LOAM_OK);
    cr_assert_neq(other.value, start.value);
    cr_assert_eq(loam_memory_unplug(memory, other, slots, NULL), LOAM_ERROR_BUSY);
    loam_gpa_map_release(loam_memory_map(memory), view);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, other, slots, NULL), LOAM_OK);
    assert_as_before("unplug");
}

Test(memory_plug, a_view_from_after_keeps_nothing)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    struct loam_region device = {.start = {FOUR_GIB / 2}, .bytes = 4096, .type = LOAM_REGION_DEVICE};
    const struct loam_gpa_view *before, *after;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    before = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_ERROR_BUSY);
    after = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_map_insert(map, &device), LOAM_OK);
    loam_gpa_map_release(map, before);
    cr_expect_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    loam_gpa_map_release(map, after);
}

/* Who switches dirty logging may hold an older view while another thread unplugs, and show it later. */
Test(memory_plug, an_older_view_that_is_shown_again_is_refused)
{
    struct loam_diag diag = {0};
    const struct loam_gpa_view *view;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    view = loam_gpa_map_acquire(loam_memory_map(memory));
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_slots_update(slots, view, &diag), LOAM_ERROR_INVALID);
    cr_expect(strstr(diag.text, "acquire a newer one") != NULL, "'%s'", diag.text);
    cr_assert_null(row_at(start.value));
    loam_gpa_map_release(loam_memory_map(memory), view);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    assert_as_before("unplug");
}

/* Slots that were not told of the unplugging are, before the memory goes. */
Test(memory_plug, the_second_call_has_the_slots_go_too)
{
    const struct loam_gpa_view *view;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    view = loam_gpa_map_acquire(loam_memory_map(memory));
    cr_assert_eq(loam_memory_unplug(memory, start, NULL, NULL), LOAM_ERROR_BUSY);
    cr_assert_not_null(row_at(start.value), "nobody told the hypervisor");
    loam_gpa_map_release(loam_memory_map(memory), view);
    hypervisor.fails = hypervisor.calls + 1;
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_ERROR_SYSTEM);
    cr_assert_not_null(row_at(start.value));
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    cr_assert_null(row_at(start.value));
    assert_as_before("unplug");
}

Test(memory_plug, goes_with_the_memory_if_nobody_unplugs_it)
{
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(PLUG(&start, .backing = {.sharing = LOAM_SHARING_PRIVATE}), LOAM_OK);
}

/* --- Other calls on it -------------------------------------------------------------------------------------------- */

Test(memory_plug, its_rows_may_be_cut_before_it_goes)
{
    struct loam_dma_buffer buffer;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), start, 4096, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(carve(4096, start, LOAM_DMA_IN | LOAM_DMA_RESERVED, &buffer), LOAM_OK);
    cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer.id), LOAM_OK);
    update_slots();
    assert_valid();
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    assert_as_before("unplug");
}

Test(memory_plug, part_of_it_can_be_removed_and_then_it_stays)
{
    loam_gpa start;
    struct loam_diag diag = {0};

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(loam_memory_remove(memory, start, 4096, &diag), LOAM_OK, "%s", diag.text);
    update_slots();
    cr_assert_eq(loam_memory_unplug(memory, start, slots, &diag), LOAM_ERROR_BUSY);
    cr_expect(strstr(diag.text, "taken away by loam_memory_remove") != NULL, "'%s'", diag.text);
    assert_valid();
}

Test(memory_plug, stays_under_frames_that_no_ledger_has)
{
    struct loam_frame_request request = {.count_frames = 1, .flags = LOAM_FRAME_AT};
    struct loam_dma_buffer behind;
    struct loam_frame_block frames;
    struct loam_diag diag = {0};
    loam_gpa start, next;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(PLUG(&next), LOAM_OK);
    cr_assert_eq(carve(4096, next, LOAM_DMA_IN, &behind), LOAM_OK);
    request.at = loam_pfn_from_gpa(start, LOAM_FRAME_SHIFT);
    cr_assert_eq(loam_frame_alloc(loam_memory_frame(memory), &request, &frames), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, &diag), LOAM_ERROR_BUSY);
    cr_expect(strstr(diag.text, "past the ledger") != NULL, "'%s' names a buffer of another block", diag.text);
    cr_assert_eq(loam_frame_free(loam_memory_frame(memory), frames.start, 1), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
}

Test(memory_plug, of_1_gib_it_comes_at_a_multiple_of_that)
{
    struct loam_plug_request request = {
        .backing = {.bytes = LOAM_GIB, .pages = LOAM_PAGES_AUTO, .commit = LOAM_COMMIT_LAZY}};
    struct loam_backing_info info;
    struct prim_fake_record last = {0};

    prim_fake_forget();
    cr_assert_eq(loam_memory_plug(memory, &request, &info, NULL), LOAM_OK);
    cr_expect_eq(info.gpa.value, 5 * LOAM_GIB, "pages of 1 GiB might have been there");
    for (uint32_t i = 0; i < prim_fake_record_count(); i++) {
        last = prim_fake_record(i).kind == PRIM_MEMFD ? prim_fake_record(i) : last;
    }
    cr_expect_str_eq(last.text, "loam-plugged");
    cr_assert_eq(loam_memory_unplug(memory, info.gpa, NULL, NULL), LOAM_OK);
}

Test(memory_plug, what_is_free_of_it_is_given_back_to_the_host_and_is_there_again)
{
    struct loam_dma_buffer buffer;
    uint64_t given;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(loam_memory_reclaim(memory, BLOCK_BYTES, &given, NULL), LOAM_OK);
    cr_assert_eq(given, BLOCK_BYTES);
    cr_assert_eq(carve(BLOCK_BYTES, start, LOAM_DMA_IN, &buffer), LOAM_OK);
    memset(buffer.hva, 1, buffer.bytes);
    cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer.id), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    assert_as_before("unplug");
}

/* Whether the block's frames have no memory behind them any more. */
static bool is_released(loam_gpa start)
{
    struct loam_frame_request request = {
        .count_frames = 1, .flags = LOAM_FRAME_AT | LOAM_FRAME_RELEASED, .at = {start.value >> LOAM_FRAME_SHIFT}};
    struct loam_frame_block block;

    return loam_frame_alloc(loam_memory_frame(memory), &request, &block) == LOAM_OK;
}

Test(memory_plug, the_highest_memory_is_given_back_first)
{
    uint64_t given;
    loam_gpa high, low;

    cr_assert_eq(PLUG(&high, .backing = {.gpa = {4 * FOUR_GIB}}), LOAM_OK);
    cr_assert_eq(PLUG(&low, .backing = {.gpa = {2 * FOUR_GIB}}), LOAM_OK);
    cr_assert_eq(loam_memory_reclaim(memory, BLOCK_BYTES, &given, NULL), LOAM_OK);
    cr_assert_eq(given, BLOCK_BYTES);
    cr_expect_not(is_released(low));
    cr_expect(is_released(high));
}

Test(memory_plug, a_locked_block_keeps_no_other_from_being_given_back)
{
    struct loam_diag diag = {0};
    uint64_t given;
    loam_gpa start;

    cr_assert_eq(PLUG(&start), LOAM_OK);
    cr_assert_eq(PLUG(&start, .backing = {.lock = true}), LOAM_OK);
    cr_expect_eq(loam_memory_reclaim(memory, BLOCK_BYTES, &given, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(given, BLOCK_BYTES);
}

/* --- What fails --------------------------------------------------------------------------------------------------- */

/* Whether the slots are what they were with RAM alone, or with the block as well. */
static void assert_slots(loam_gpa start, bool plugged)
{
    cr_assert_eq(row_at(start.value) != NULL, plugged);
    cr_assert_not_null(row_at(0));
    cr_assert_not_null(row_at(FOUR_GIB));
    cr_assert_eq(loam_slots_count(slots), plugged ? 3 : 2);
}

static void fail_each_call(const struct loam_backing_request *backing)
{
    static const int errors[] = {ENOMEM, EINVAL};

    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        for (uint32_t n = 1;; n++) {
            uint32_t failed;
            enum loam_error error;
            loam_gpa start;

            prim_fake_fail(PRIM_ANY, n, 1, errors[e]);
            error = PLUG(&start, .backing = *backing);
            failed = prim_fake_failed_count();
            prim_fake_fail_none();
            if (error == LOAM_OK) {
                assert_slots(start, true);
                cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
            }
            assert_as_before("a call of plug failed");
            if (failed == 0) {
                cr_assert_gt(n, 5);
                break;
            }
        }
    }
}

Test(memory_plug, a_call_that_fails_while_it_comes_leaves_all_as_it_was)
{
    fail_each_call(&(struct loam_backing_request){.sharing = LOAM_SHARING_SHARED, .lock = true});
    fail_each_call(&(struct loam_backing_request){.sharing = LOAM_SHARING_PRIVATE, .keep_from_dumps = true});
}

Test(memory_plug, a_call_that_fails_while_it_goes_leaves_nothing)
{
    for (uint32_t n = 1;; n++) {
        uint32_t failed;
        enum loam_error error;
        loam_gpa start;

        cr_assert_eq(PLUG(&start), LOAM_OK);
        prim_fake_fail(PRIM_ANY, n, 1, ENOMEM);
        error = loam_memory_unplug(memory, start, slots, NULL);
        failed = prim_fake_failed_count();
        prim_fake_fail_none();
        assert_slots(start, error != LOAM_OK);
        assert_valid();
        if (error != LOAM_OK) {
            cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
        }
        assert_as_before("a call of unplug failed");
        if (failed == 0) {
            break;
        }
    }
}

Test(memory_plug, a_slot_that_is_refused_leaves_all_as_it_was)
{
    struct loam_dma_buffer buffer;
    loam_gpa start;

    hypervisor.calls = 0;
    hypervisor.fails = 1;
    cr_assert_eq(PLUG(&start), LOAM_ERROR_SYSTEM);
    assert_slots((loam_gpa){FOUR_GIB + 128 * LOAM_MIB}, false);
    assert_as_before("the hypervisor refused");
    cr_assert_eq(PLUG(&start), LOAM_OK);
    hypervisor.fails = hypervisor.calls + 1;
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_ERROR_SYSTEM);
    assert_slots(start, true);
    cr_assert(is_mapped(start, BLOCK_BYTES));
    cr_assert_eq(carve(4096, start, LOAM_DMA_IN, &buffer), LOAM_OK);
    cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer.id), LOAM_OK);
    cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    assert_as_before("unplug");
}

Test(memory_plug, more_slots_than_there_can_be_leave_all_as_it_was)
{
    struct loam_slots_config config = {.set = set_row, .limit = 2};
    struct loam_diag diag = {0};
    struct loam_slots *few;
    loam_gpa start;

    cr_assert_eq(loam_slots_create(&config, &few, NULL), LOAM_OK);
    live = prim_fake_live();
    cr_assert_eq(plug_with((struct loam_plug_request){.slots = few}, &start, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect(strlen(diag.text) > 10, "'%s'", diag.text);
    assert_as_before("too few slots");
    loam_slots_destroy(few);
}

Test(memory_plug_bare, as_many_blocks_as_asked_and_no_more)
{
    loam_gpa starts[3], more;
    struct loam_diag diag = {0};

    make(3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(PLUG(&starts[i]), LOAM_OK);
    }
    cr_assert_eq(plug_with((struct loam_plug_request){.slots = slots}, &more, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect(strstr(diag.text, "unplug some") != NULL, "'%s'", diag.text);
    cr_assert_eq(loam_memory_unplug(memory, starts[1], slots, NULL), LOAM_OK);
    cr_assert_eq(PLUG(&more), LOAM_OK);
    assert_valid();
    drop();
}

Test(memory_plug_bare, a_thousand_blocks_by_default)
{
    enum { COUNT = 1000 };
    static loam_gpa starts[COUNT];
    struct loam_backing_request lazy = {.bytes = LOAM_FRAME_BYTES, .commit = LOAM_COMMIT_LAZY};
    loam_gpa more;

    make(0);
    for (uint32_t i = 0; i < COUNT; i++) {
        cr_assert_eq(PLUG(&starts[i], .backing = lazy), LOAM_OK, "block %" PRIu32, i);
    }
    cr_assert_eq(PLUG(&more, .backing = lazy), LOAM_ERROR_EXHAUSTED);
    assert_valid();
    for (uint32_t i = 0; i < COUNT; i++) {
        cr_assert_eq(loam_memory_unplug(memory, starts[i * 7 % COUNT], slots, NULL), LOAM_OK);
    }
    assert_as_before("a thousand");
    drop();
}

/* --- At random ---------------------------------------------------------------------------------------------------- */

enum { RANDOM_BLOCKS = 12, RANDOM_BUFFERS = 24, TURNS = 3000 };

static struct {
    loam_gpa start; /* 0: none */
    uint64_t bytes;
} plugged[RANDOM_BLOCKS];

static struct loam_dma_buffer carved[RANDOM_BUFFERS]; /* id 0: none */

static bool is_held(uint32_t block)
{
    bool held = false;

    for (uint32_t i = 0; i < RANDOM_BUFFERS; i++) {
        held |= carved[i].id != 0 && carved[i].gpa.value - plugged[block].start.value < plugged[block].bytes;
    }
    return held;
}

static void turn_block(struct random *random)
{
    uint32_t i = random_below(random, RANDOM_BLOCKS);

    if (plugged[i].start.value == 0) {
        plugged[i].bytes = (1 + random_below(random, 300)) * 4096;
        cr_assert_eq(PLUG(&plugged[i].start, .open = random_one_in(random, 2),
                          .backing = {.bytes = plugged[i].bytes, .commit = LOAM_COMMIT_LAZY}),
                     LOAM_OK);
        return;
    }
    cr_assert_eq(loam_memory_unplug(memory, plugged[i].start, slots, NULL), is_held(i) ? LOAM_ERROR_BUSY : LOAM_OK);
    plugged[i].start.value = is_held(i) ? plugged[i].start.value : 0;
}

static void turn_buffer(struct random *random)
{
    struct loam_dma_buffer *buffer = &carved[random_below(random, RANDOM_BUFFERS)];
    uint32_t block = random_below(random, RANDOM_BLOCKS);
    bool within = plugged[block].start.value != 0 && random_one_in(random, 2);
    enum loam_error error;

    if (buffer->id != 0) {
        cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer->id), LOAM_OK);
        buffer->id = 0;
        return;
    }
    error = carve((1 + random_below(random, 8)) * 4096, within ? plugged[block].start : (loam_gpa){0},
                  within ? LOAM_DMA_IN : 0, buffer);
    cr_assert(error == LOAM_OK || (within && error == LOAM_ERROR_EXHAUSTED), "%s", loam_error_name(error));
    cr_assert(error != LOAM_OK || !within || buffer->gpa.value - plugged[block].start.value < plugged[block].bytes);
}

Test(memory_plug, whatever_comes_and_goes_map_slots_and_frames_agree)
{
    struct random random = {.state = 20261127};

    for (uint32_t turn = 0; turn < TURNS; turn++) {
        (random_one_in(&random, 3) ? turn_block : turn_buffer)(&random);
        for (uint32_t i = 0; i < RANDOM_BLOCKS; i++) {
            cr_assert(plugged[i].start.value == 0 || row_at(plugged[i].start.value) != NULL, "turn %" PRIu32, turn);
        }
        if (turn % 50 == 0) {
            assert_valid();
        }
    }
    for (uint32_t i = 0; i < RANDOM_BUFFERS; i++) {
        cr_assert(carved[i].id == 0 || loam_dma_release(loam_memory_dma(memory), carved[i].id) == LOAM_OK);
        carved[i].id = 0;
    }
    for (uint32_t i = 0; i < RANDOM_BLOCKS; i++) {
        cr_assert(plugged[i].start.value == 0 || loam_memory_unplug(memory, plugged[i].start, slots, NULL) == LOAM_OK);
    }
    assert_as_before("the end");
}

/* --- Threads ------------------------------------------------------------------------------------------------------ */

enum { READERS = 2, PLUGS = 300 };

static atomic_bool enough;

/* Whoever holds a view uses what it said, whatever is unplugged meanwhile. */
static void *read_on(void *argument)
{
    uint64_t *hits = argument;

    while (!atomic_load(&enough)) {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
        struct loam_region last;

        cr_assert_eq(loam_gpa_view_region(view, loam_gpa_view_count(view) - 1, &last), LOAM_OK);
        *hits += *(volatile char *)last.hva == 0 && last.start.value > FOUR_GIB;
        loam_gpa_map_release(loam_memory_map(memory), view);
    }
    return NULL;
}

static void *carve_on(void *argument)
{
    uint64_t *hits = argument;

    while (!atomic_load(&enough)) {
        struct loam_dma_buffer buffer;

        /* Zeroing would race with who reads. */
        if (carve(4096, (loam_gpa){0}, LOAM_DMA_NO_ZERO, &buffer) == LOAM_OK) {
            *hits += buffer.gpa.value > FOUR_GIB + RAM_BYTES;
            cr_assert_eq(loam_dma_release(loam_memory_dma(memory), buffer.id), LOAM_OK);
        }
    }
    return NULL;
}

Test(memory_plug, readers_and_carvers_go_on_while_it_comes_and_goes)
{
    pthread_t threads[READERS + 1];
    uint64_t hits[READERS + 1] = {0};
    uint32_t refused = 0;

    for (int i = 0; i <= READERS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, i < READERS ? read_on : carve_on, &hits[i]), 0);
    }
    for (int i = 0; i < PLUGS; i++) {
        enum loam_error error;
        loam_gpa start;

        cr_assert_eq(PLUG(&start, .open = true, .backing = {.bytes = 2 * LOAM_MIB, .commit = LOAM_COMMIT_LAZY}),
                     LOAM_OK);
        while ((error = loam_memory_unplug(memory, start, slots, NULL)) == LOAM_ERROR_BUSY) {
            refused++;
        }
        cr_assert_eq(error, LOAM_OK);
    }
    atomic_store(&enough, true);
    for (int i = 0; i <= READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_log_info("%" PRIu64 " reads of plugged memory, %" PRIu64 " buffers there, %" PRIu32 " refusals",
                hits[0] + hits[1], hits[READERS], refused);
    assert_as_before("threads");
}

/* Whoever asks what there is finds no half of a block, whatever comes and goes. */
static void *ask_on(void *argument)
{
    uint64_t *hits = argument;

    while (!atomic_load(&enough)) {
        struct loam_share shares[8] = {0};
        struct loam_backing_info info;
        struct loam_diag diag = {0};
        uint32_t count;

        *hits += loam_memory_backing(memory, 2, &info) == LOAM_OK;
        cr_assert_eq(loam_memory_shares(memory, shares, 8, &count), LOAM_OK);
        for (uint32_t i = 0; i < count; i++) {
            cr_assert_geq(shares[i].fd, 0, "GPA %#" PRIx64, shares[i].start.value);
        }
        cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
    }
    return NULL;
}

Test(memory_plug, who_asks_meanwhile_finds_whole_blocks)
{
    pthread_t threads[READERS];
    uint64_t hits[READERS] = {0};

    for (int i = 0; i < READERS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, ask_on, &hits[i]), 0);
    }
    for (int i = 0; i < PLUGS; i++) {
        loam_gpa start;

        cr_assert_eq(PLUG(&start, .open = true, .backing = {.bytes = 2 * LOAM_MIB, .sharing = LOAM_SHARING_SHARED}),
                     LOAM_OK);
        cr_assert_eq(loam_memory_unplug(memory, start, slots, NULL), LOAM_OK);
    }
    atomic_store(&enough, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_as_before("threads");
}
