// SPDX-License-Identifier: Apache-2.0
/*
 * The self-test guest against hosts that lie: the real guest runs in a real machine, and what its table lists is changed
 * before it starts. Its own result says what it found, and where. What the host would say of it is attest_test's.
 */
#include "guest/embedded.h"
#include "vmm/machine.h"
#include "vmm/promises.h"
#include "vmm/sabotage.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define PAGE    UINT64_C(4096)
#define LOW_END (8 * LOAM_MIB) /* and 2 MiB from 4 GiB up */

static struct loam_memory *memory;
static struct promises promises;
static char console[8192];
static size_t console_bytes;
static struct machine_result result;
static struct loam_abi_table *table; /* as the guest left it */

/* promises.c asks for these. */
void sabotage_strike(enum sabotage_point point, struct loam_memory *struck, struct loam_abi_table *listed)
{
    (void)point;
    (void)struck;
    (void)listed;
}

static void gather(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    for (size_t i = 0; i < count && console_bytes < sizeof console - 1; i++) {
        console[console_bytes++] = (char)bytes[i];
    }
    console[console_bytes] = '\0';
}

/* The host's part of the doorbell, of the read-only range and of the holes. */
static struct {
    uint32_t events[LOAM_ABI_EVENT_COUNT];
    void (*at_stage)(uint32_t check);
    uint64_t hole_xor;
    uint32_t hole_reads, hole_writes, readonly_writes;
} host;

static void doorbell(void *device, struct bus_access *access)
{
    uint32_t event = (uint32_t)access->value >> 8;

    (void)device;
    if (access->is_write && access->bytes == 4 && event < LOAM_ABI_EVENT_COUNT) {
        host.events[event]++;
        if (event == LOAM_ABI_EVENT_STAGE && host.at_stage != NULL) {
            host.at_stage(access->value & 0xff);
        }
    }
}

static void hole(void *device, struct bus_access *access)
{
    const struct loam_abi_range *range = device;

    if (!access->is_write) {
        access->value = loam_abi_pattern(range->argument, range->start + access->offset) ^ host.hole_xor;
    }
    host.hole_reads += !access->is_write;
    host.hole_writes += access->is_write && access->value == LOAM_ABI_PROBE_VALUE;
}

static void readonly(void *device, struct bus_access *access)
{
    (void)device;
    host.readonly_writes += access->is_write && access->value == LOAM_ABI_PROBE_VALUE;
}

static struct loam_abi_range *find(struct loam_abi_table *in, uint32_t kind)
{
    for (uint32_t i = 0; i < in->range_count; i++) {
        if (in->ranges[i].kind == kind) {
            return &in->ranges[i];
        }
    }
    cr_assert(false, "kind %u has no range", kind);
    return NULL;
}

static uint64_t *word_at(uint64_t gpa)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    void *hva;

    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){gpa}, 8, LOAM_ACCESS_READ, &hva), LOAM_OK);
    loam_gpa_map_release(map, view);
    return hva;
}

static void add_device(struct machine *machine, const char *name, enum bus_space space, uint64_t base, uint64_t bytes,
                       bus_access_fn *access, void *device)
{
    cr_assert_eq(
        bus_add(machine_bus(machine),
                &(struct bus_device){
                    .name = name, .space = space, .base = base, .bytes = bytes, .access = access, .device = device}),
        LOAM_OK);
}

/* Make everything as loam does, let spoil change the guest's table, and run the guest to its end. */
static void run_guest(void (*spoil)(struct loam_abi_table *table), uint32_t module_count)
{
    struct loam_memory_request request = {.bytes = LOW_END + 2 * LOAM_MIB,
                                          .low_limit_bytes = LOW_END,
                                          .pages = LOAM_PAGES_4K,
                                          .commit = LOAM_COMMIT_LAZY};
    struct boot_module module;
    struct boot_request boot = {.kernel = {loam_guest_selftest, loam_guest_selftest_bytes, "self-test"},
                                .modules = &module,
                                .module_count = module_count};
    struct boot_state state;
    struct machine_config config = {.vcpu_count = 1, .boot = &state, .serial_output = gather};
    struct loam_diag diag = {0};
    struct machine *machine;
    struct loam_plan plan;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm, or no right to it");
    }
    memset(&host.events, 0, sizeof host.events);
    host.hole_reads = host.hole_writes = host.readonly_writes = 0;
    console_bytes = 0;
    console[0] = '\0';
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(promises_make(&promises, memory, &diag), LOAM_OK, "%s", diag.text);
    module = (struct boot_module){promises.table.gpa, LOAM_ABI_BYTES, LOAM_ABI_MODULE};
    cr_assert_eq(boot_load(memory, &boot, &state, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(promises_publish(&promises, &state, &diag), LOAM_OK, "%s", diag.text);
    table = promises.table.hva;
    if (spoil != NULL) {
        spoil(table);
    }
    config.memory = memory;
    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_OK, "%s", diag.text);
    add_device(machine, "doorbell", BUS_PIO, LOAM_ABI_PORT_DOORBELL, 4, doorbell, NULL);
    for (uint32_t i = 0; i < promises.listed.range_count; i++) {
        struct loam_abi_range *range = &promises.listed.ranges[i];

        if (range->kind == LOAM_ABI_KIND_HOLE) {
            add_device(machine, "hole", BUS_MMIO, range->start, range->bytes, hole, range);
        } else if (range->kind == LOAM_ABI_KIND_READONLY) {
            add_device(machine, "read-only", BUS_MMIO, range->start, range->bytes, readonly, range);
        }
    }
    cr_assert_eq(machine_start(machine, &diag), LOAM_OK, "%s", diag.text);
    machine_wait(machine, &result);
    machine_destroy(machine);
    cr_assert_eq(result.reason, MACHINE_STOP_EXIT, "%s%s", result.cause, result.report);
}

static void end(void)
{
    promises_release(&promises);
    loam_memory_destroy(memory);
}

/* --- What is as promised ---------------------------------------------------------------------------------------- */

Test(guest, tells_how_much_it_checked)
{
    static const struct {
        uint64_t items, bytes;
    } expected[] = {
        [LOAM_ABI_CHECK_PATTERN] = {12, 12 * PAGE}, [LOAM_ABI_CHECK_ECHO] = {6, 6 * PAGE},
        [LOAM_ABI_CHECK_DMA32] = {6, 27 * PAGE},    [LOAM_ABI_CHECK_RING] = {2, 128},
        [LOAM_ABI_CHECK_READONLY] = {8, 2 * PAGE},  [LOAM_ABI_CHECK_HOLE] = {16, 128},
    };
    uint64_t ram;

    run_guest(NULL, 1);
    ram = promises_bytes(&promises, LOAM_ABI_KIND_RAM) - promises_bytes(&promises, LOAM_ABI_KIND_KEPT);
    cr_expect_eq(result.exit_code, LOAM_ABI_EXIT_PASS, "%s", console);
    for (uint32_t check = 0; check < LOAM_ABI_CHECK_COUNT; check++) {
        bool is_all = check == LOAM_ABI_CHECK_RAM || check == LOAM_ABI_CHECK_ALIAS;

        cr_expect_eq(table->results[check].status, LOAM_ABI_STATUS_PASS, "check %u", check);
        cr_expect_eq(table->results[check].error_count, 0);
        cr_expect_eq(table->results[check].item_count, is_all ? ram / PAGE : expected[check].items, "check %u", check);
        cr_expect_eq(table->results[check].bytes, is_all ? ram : expected[check].bytes, "check %u", check);
    }
    cr_expect_eq(host.events[LOAM_ABI_EVENT_BEGIN], LOAM_ABI_CHECK_COUNT);
    cr_expect_eq(host.events[LOAM_ABI_EVENT_DONE], LOAM_ABI_CHECK_COUNT);
    cr_expect_eq(host.events[LOAM_ABI_EVENT_STAGE], 2);
    cr_expect_eq(host.events[LOAM_ABI_EVENT_END], 1);
    cr_expect_eq(host.hole_reads, 16);
    cr_expect_eq(host.hole_writes, 16);
    cr_expect_eq(host.readonly_writes, 8);
    cr_expect_str_eq(console, "");
    end();
}

/* --- One promise that is broken --------------------------------------------------------------------------------- */

static struct {
    uint64_t gpa;
} wanted; /* the first error */

static void flip(uint64_t gpa)
{
    *word_at(gpa) ^= UINT64_C(1) << 40;
    wanted.gpa = gpa;
}

static struct loam_abi_range last(struct loam_abi_table *of, uint32_t kind)
{
    struct loam_abi_range found = {0};

    for (uint32_t i = 0; i < of->range_count; i++) {
        found = of->ranges[i].kind == kind ? of->ranges[i] : found;
    }
    return found;
}

static void flip_first_pattern(struct loam_abi_table *of)
{
    flip(find(of, LOAM_ABI_KIND_PATTERN)->start);
}

static void flip_last_pattern(struct loam_abi_table *of)
{
    struct loam_abi_range range = last(of, LOAM_ABI_KIND_PATTERN);

    flip(range.start + range.bytes - 8);
}

static void flip_readonly(struct loam_abi_table *of)
{
    struct loam_abi_range range = last(of, LOAM_ABI_KIND_READONLY);

    flip(range.start + range.bytes - 8);
}

static void dirty_first_dma32(struct loam_abi_table *of)
{
    flip(find(of, LOAM_ABI_KIND_DMA32)->start);
}

static void dirty_last_dma32(struct loam_abi_table *of)
{
    struct loam_abi_range range = last(of, LOAM_ABI_KIND_DMA32);

    flip(range.start + range.bytes - 8);
}

static void list_dma32_over_ring(struct loam_abi_table *of)
{
    struct loam_abi_range *buffer = find(of, LOAM_ABI_KIND_DMA32);

    buffer->start = find(of, LOAM_ABI_KIND_RING_DATA)->start;
    wanted.gpa = buffer->start;
}

/* All three rings lie in its page. */
static void list_dma32_over_rings(struct loam_abi_table *of)
{
    struct loam_abi_range *buffer = find(of, LOAM_ABI_KIND_DMA32);

    buffer->start = loam_align_down(find(of, LOAM_ABI_KIND_DESCRIPTORS)->start, PAGE);
    wanted.gpa = buffer->start;
}

static void list_dma32_twice(struct loam_abi_table *of)
{
    struct loam_abi_range *buffer = find(of, LOAM_ABI_KIND_DMA32), *next = buffer + 1;

    cr_assert_eq(next->kind, LOAM_ABI_KIND_DMA32);
    next->start = buffer->start;
    next->bytes = buffer->bytes;
    wanted.gpa = buffer->start;
}

static void list_dma32_across_4_gib(struct loam_abi_table *of)
{
    struct loam_abi_range *buffer = find(of, LOAM_ABI_KIND_DMA32);

    buffer->start = 4 * LOAM_GIB;
    wanted.gpa = buffer->start;
}

static void list_ring_data_above_4_gib(struct loam_abi_table *of)
{
    struct loam_abi_range *data = find(of, LOAM_ABI_KIND_RING_DATA);

    data->start = 4 * LOAM_GIB + LOAM_MIB;
    wanted.gpa = data->start;
}

static void change_argument(struct loam_abi_table *of, uint32_t kind, uint64_t argument)
{
    find(of, kind)->argument = argument;
    wanted.gpa = find(of, kind)->start;
}

static void expect_another_pattern_in_the_hole(struct loam_abi_table *of)
{
    change_argument(of, LOAM_ABI_KIND_HOLE, 1);
}

static void queue_of_no_entries(struct loam_abi_table *of)
{
    change_argument(of, LOAM_ABI_KIND_DESCRIPTORS, 0);
}

static void queue_of_three_entries(struct loam_abi_table *of)
{
    change_argument(of, LOAM_ABI_KIND_DESCRIPTORS, 3);
}

static void queue_larger_than_its_room(struct loam_abi_table *of)
{
    change_argument(of, LOAM_ABI_KIND_DESCRIPTORS, 16);
}

static void shorten(struct loam_abi_table *of, uint32_t kind)
{
    find(of, kind)->bytes--;
    wanted.gpa = find(of, kind)->start;
}

static void available_ring_too_short(struct loam_abi_table *of)
{
    shorten(of, LOAM_ABI_KIND_AVAILABLE);
}

static void used_ring_too_short(struct loam_abi_table *of)
{
    shorten(of, LOAM_ABI_KIND_USED);
}

static void ring_data_too_short(struct loam_abi_table *of)
{
    find(of, LOAM_ABI_KIND_RING_DATA)->bytes = 255;
    wanted.gpa = find(of, LOAM_ABI_KIND_RING_DATA)->start;
}

static void used_ring_misaligned(struct loam_abi_table *of)
{
    find(of, LOAM_ABI_KIND_USED)->start += 2;
    wanted.gpa = find(of, LOAM_ABI_KIND_USED)->start;
}

static void two_used_rings(struct loam_abi_table *of)
{
    of->ranges[of->range_count] = *find(of, LOAM_ABI_KIND_USED);
    wanted.gpa = of->ranges[of->range_count++].start;
}

static void no_device(struct loam_abi_table *of)
{
    find(of, LOAM_ABI_KIND_VIRTIO_RNG)->start += MACHINE_VIRTIO_BYTES;
    wanted.gpa = find(of, LOAM_ABI_KIND_VIRTIO_RNG)->start;
}

static void leave_out(struct loam_abi_table *of, uint32_t kind)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < of->range_count; i++) {
        if (of->ranges[i].kind != kind) {
            of->ranges[kept++] = of->ranges[i];
        }
    }
    of->range_count = kept;
    wanted.gpa = 0;
}

static void no_pattern(struct loam_abi_table *of)
{
    leave_out(of, LOAM_ABI_KIND_PATTERN);
}

static void no_used_ring(struct loam_abi_table *of)
{
    leave_out(of, LOAM_ABI_KIND_USED);
}

static void move_echo(struct loam_abi_table *of, uint64_t start, uint64_t bytes)
{
    struct loam_abi_range *echo = find(of, LOAM_ABI_KIND_ECHO);

    echo->start = start;
    echo->bytes = bytes;
    wanted.gpa = start;
}

static void echo_of_no_bytes(struct loam_abi_table *of)
{
    move_echo(of, 2 * LOAM_MIB, 0);
}

static void echo_misaligned(struct loam_abi_table *of)
{
    move_echo(of, 2 * LOAM_MIB + 4, 16);
}

static void echo_over_the_image(struct loam_abi_table *of)
{
    move_echo(of, find(of, LOAM_ABI_KIND_KEPT)->start, 8);
}

static void echo_over_the_table(struct loam_abi_table *of)
{
    move_echo(of, promises.table.gpa.value + PAGE - 8, 8);
}

static void echo_out_of_reach(struct loam_abi_table *of)
{
    move_echo(of, 512 * LOAM_GIB, 8);
}

static void echo_that_wraps(struct loam_abi_table *of)
{
    move_echo(of, UINT64_MAX - 7, 16);
}

static void ram_not_of_whole_pages(struct loam_abi_table *of)
{
    find(of, LOAM_ABI_KIND_RAM)->bytes -= 8;
    wanted.gpa = find(of, LOAM_ABI_KIND_RAM)->start;
}

static void ram_that_is_the_image(struct loam_abi_table *of)
{
    for (uint32_t i = 0; i < of->range_count; i++) {
        if (of->ranges[i].kind == LOAM_ABI_KIND_KEPT && of->ranges[i].start == LOAM_MIB) {
            of->ranges[i].start = 2 * LOAM_MIB;
        }
    }
    wanted.gpa = LOAM_MIB;
}

/* Each broken promise fails its own check, and the guest says where; the run ends with failure. */
Test(guest, tells_where_a_promise_is_broken)
{
    static const struct {
        void (*spoil)(struct loam_abi_table *table);
        uint32_t check;
        const char *text;               /* on the console: what a table has no words for */
        uint64_t expected, error_count; /* 0: whatever there is */
    } cases[] = {
        {flip_first_pattern, LOAM_ABI_CHECK_PATTERN, "", 0, 0},
        {flip_last_pattern, LOAM_ABI_CHECK_PATTERN, "", 0, 0},
        {no_pattern, LOAM_ABI_CHECK_PATTERN, "", 0, 0},
        {flip_readonly, LOAM_ABI_CHECK_READONLY, "", 0, 0},
        {dirty_first_dma32, LOAM_ABI_CHECK_DMA32, "", 0, 0},
        {dirty_last_dma32, LOAM_ABI_CHECK_DMA32, "", 0, 0},
        {list_dma32_over_ring, LOAM_ABI_CHECK_DMA32, "", 0, 0},
        {list_dma32_over_rings, LOAM_ABI_CHECK_DMA32, "", 0, 3},
        {list_dma32_twice, LOAM_ABI_CHECK_DMA32, "", 0, 2},
        {list_dma32_across_4_gib, LOAM_ABI_CHECK_DMA32, "", 4 * LOAM_GIB, 0},
        {expect_another_pattern_in_the_hole, LOAM_ABI_CHECK_HOLE, "", 0, 0},
        {list_ring_data_above_4_gib, LOAM_ABI_CHECK_RING, "", 4 * LOAM_GIB, 0},
        {queue_of_no_entries, LOAM_ABI_CHECK_RING, "ring: 0x80 bytes at 0x", 0, 0},
        {queue_of_three_entries, LOAM_ABI_CHECK_RING, "its argument is no queue size", 0, 0},
        {queue_larger_than_its_room, LOAM_ABI_CHECK_RING, "or one that it has no room for\r\n", 0, 0},
        {available_ring_too_short, LOAM_ABI_CHECK_RING, "too small or misaligned for its part of the queue\r\n", 0, 0},
        {used_ring_too_short, LOAM_ABI_CHECK_RING, "too small or misaligned for its part of the queue\r\n", 0, 0},
        {ring_data_too_short, LOAM_ABI_CHECK_RING, "ring: 0xff bytes at 0x", 0, 0},
        {used_ring_misaligned, LOAM_ABI_CHECK_RING, "too small or misaligned for its part of the queue\r\n", 0, 0},
        {two_used_rings, LOAM_ABI_CHECK_RING, "one more of its kind than a queue has\r\n", 0, 0},
        {no_used_ring, LOAM_ABI_CHECK_RING, "", 0, 0},
        {no_device, LOAM_ABI_CHECK_RING, "", 0, 0},
        {echo_of_no_bytes, LOAM_ABI_CHECK_ECHO, "echo: 0x0 bytes at 0x200000: empty, misaligned or beyond", 0, 0},
        {echo_misaligned, LOAM_ABI_CHECK_ECHO, "echo: 0x10 bytes at 0x200004: empty, misaligned or beyond", 0, 0},
        {echo_that_wraps, LOAM_ABI_CHECK_ECHO, "at 0xfffffffffffffff8: empty, misaligned or beyond", 0, 0},
        {echo_over_the_image, LOAM_ABI_CHECK_ECHO, "over this guest's image or the table", 0, 0},
        {echo_over_the_table, LOAM_ABI_CHECK_ECHO, "over this guest's image or the table", 0, 0},
        {echo_out_of_reach, LOAM_ABI_CHECK_ECHO, "at 0x8000000000: beyond the reach of the page tables\r\n", 0, 0},
        {ram_not_of_whole_pages, LOAM_ABI_CHECK_RAM, "no range of whole pages\r\n", 0, 0},
        {ram_that_is_the_image, LOAM_ABI_CHECK_RAM, "over this guest's image or the table", 0, 0},
    };

    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct loam_abi_result *found;

        run_guest(cases[i].spoil, 1);
        found = &table->results[cases[i].check];
        cr_expect_eq(result.exit_code, LOAM_ABI_EXIT_FAIL, "case %u", i);
        cr_expect_eq(found->status, LOAM_ABI_STATUS_FAIL, "case %u", i);
        cr_expect_geq(found->error_count, 1, "case %u", i);
        cr_expect(cases[i].error_count == 0 || cases[i].error_count == found->error_count,
                  "case %u: %" PRIu64 " errors", i, found->error_count);
        cr_expect(cases[i].expected == 0 || cases[i].expected == found->first_expected, "case %u", i);
        cr_expect_eq(found->first_gpa, wanted.gpa, "case %u: 0x%" PRIx64 " wanted, 0x%" PRIx64 " found", i, wanted.gpa,
                     found->first_gpa);
        cr_expect(found->first_expected != found->first_found || cases[i].spoil == echo_of_no_bytes, "case %u", i);
        cr_expect_not_null(strstr(console, cases[i].text), "case %u: %s", i, console);
        cr_expect(cases[i].text[0] != '\0' || console[0] == '\0', "case %u: %s", i, console);
        for (uint32_t check = 0; check < LOAM_ABI_CHECK_COUNT; check++) {
            /* What is listed wrongly may lie over what another check looks at; what comes before may not. */
            if (check == LOAM_ABI_CHECK_HOLE) {
                cr_expect_eq(table->results[check].status == LOAM_ABI_STATUS_FAIL, check == cases[i].check);
            }
        }
        end();
    }
}

/* --- What changes under way ------------------------------------------------------------------------------------- */

static void flip_at_stage(uint32_t check)
{
    if (check == LOAM_ABI_CHECK_ALIAS) {
        *word_at(wanted.gpa) ^= PAGE;
    }
}

/* Pages at both ends of each range of RAM, and one in the midst of it. */
static uint32_t pages_of_ram(uint64_t *pages)
{
    uint32_t count = 0;

    run_guest(NULL, 1);
    for (uint32_t i = 0; i < promises.listed.range_count; i++) {
        const struct loam_abi_range *range = &promises.listed.ranges[i];
        uint64_t places[] = {0, range->bytes / 2, range->bytes - PAGE};

        for (uint32_t k = 0; k < 3 && range->kind == LOAM_ABI_KIND_RAM; k++) {
            uint64_t gpa = loam_align_down(range->start + places[k], PAGE);

            if (promises_skip_kept(&promises, gpa) == gpa) {
                pages[count++] = gpa;
            }
        }
    }
    end();
    return count;
}

Test(guest, finds_any_page_that_loses_its_own_address)
{
    uint64_t pages[3 * LOAM_ABI_RANGE_MAX];
    uint32_t page_count = pages_of_ram(pages);

    cr_assert_geq(page_count, 6);
    host.at_stage = flip_at_stage;
    for (uint32_t i = 0; i < page_count; i++) {
        const struct loam_abi_result *found;

        wanted.gpa = pages[i];
        run_guest(NULL, 1);
        found = &table->results[LOAM_ABI_CHECK_ALIAS];
        cr_expect_eq(found->status, LOAM_ABI_STATUS_FAIL, "page 0x%" PRIx64, pages[i]);
        cr_expect_eq(found->error_count, 1);
        cr_expect_eq(found->first_gpa, pages[i], "0x%" PRIx64 " found", found->first_gpa);
        cr_expect_eq(found->first_expected, pages[i]);
        cr_expect_eq(found->first_found, pages[i] ^ PAGE);
        end();
    }
}

static uint64_t frozen;

static void freeze(struct loam_abi_table *of)
{
    (void)of;
    cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){frozen}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
}

/* A page that takes no writes fails at its start and at its end, wherever it lies in its piece. */
Test(guest, finds_any_page_that_takes_no_writes)
{
    static const uint64_t pages[] = {0, 640 * LOAM_KIB - PAGE, 3 * LOAM_MIB, LOW_END - PAGE};

    for (uint32_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        const struct loam_abi_result *found;

        frozen = pages[i];
        run_guest(freeze, 1);
        found = &table->results[LOAM_ABI_CHECK_RAM];
        cr_expect_eq(found->status, LOAM_ABI_STATUS_FAIL, "page 0x%" PRIx64, pages[i]);
        cr_expect_eq(found->error_count, 2, "page 0x%" PRIx64 ": %" PRIu64, pages[i], found->error_count);
        cr_expect_eq(found->first_gpa & ~(PAGE - 1), pages[i], "0x%" PRIx64 " found", found->first_gpa);
        cr_expect_eq(table->results[LOAM_ABI_CHECK_ALIAS].error_count, pages[i] != 0,
                     "page 0 holds its own address, 0");
        cr_expect_eq(table->results[LOAM_ABI_CHECK_ALIAS].first_gpa, pages[i]);
        end();
    }
}

/* --- No table, or none that can be used ------------------------------------------------------------------------- */

static void other_magic(struct loam_abi_table *of)
{
    of->magic++;
}

static void other_version(struct loam_abi_table *of)
{
    of->version++;
}

static void one_range_too_many(struct loam_abi_table *of)
{
    while (of->range_count <= LOAM_ABI_RANGE_MAX) {
        of->ranges[of->range_count % LOAM_ABI_RANGE_MAX] = of->ranges[0];
        of->range_count++;
    }
}

static void range_of_kind_0(struct loam_abi_table *of)
{
    of->ranges[0].kind = 0;
}

static void range_of_no_kind(struct loam_abi_table *of)
{
    of->ranges[of->range_count - 1].kind = LOAM_ABI_KIND_COUNT;
}

static void kept_range_that_wraps(struct loam_abi_table *of)
{
    find(of, LOAM_ABI_KIND_KEPT)->start = UINT64_MAX;
}

Test(guest, gives_up_without_a_table_that_it_can_use)
{
    static const struct {
        void (*spoil)(struct loam_abi_table *table);
        uint32_t module_count, exit_code;
        const char *text;
    } cases[] = {
        {NULL, 0, LOAM_ABI_EXIT_NO_TABLE, "loam self-test: no host table was given: nothing to attest\r\n"},
        {other_magic, 1, LOAM_ABI_EXIT_FAIL, "loam self-test: the host table is of another version, or none\r\n"},
        {other_version, 1, LOAM_ABI_EXIT_FAIL, "loam self-test: the host table is of another version, or none\r\n"},
        {one_range_too_many, 1, LOAM_ABI_EXIT_FAIL, "lists more ranges than it holds, or one of no kind\r\n"},
        {range_of_kind_0, 1, LOAM_ABI_EXIT_FAIL, "lists more ranges than it holds, or one of no kind\r\n"},
        {range_of_no_kind, 1, LOAM_ABI_EXIT_FAIL, "lists more ranges than it holds, or one of no kind\r\n"},
        {kept_range_that_wraps, 1, LOAM_ABI_EXIT_FAIL, "lists more ranges than it holds, or one of no kind\r\n"},
    };

    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run_guest(cases[i].spoil, cases[i].module_count);
        cr_expect_eq(result.exit_code, cases[i].exit_code, "case %u", i);
        cr_expect_not_null(strstr(console, cases[i].text), "case %u: %s", i, console);
        cr_expect_eq(host.events[LOAM_ABI_EVENT_BEGIN], 0, "case %u", i);
        end();
    }
}
