// SPDX-License-Identifier: Apache-2.0
/*
 * The host against guests that lie: what rings the doorbell here is the test, and it says whatever it likes. Only what
 * the host has seen itself may pass.
 */
#include "vmm/attest.h"

#include "guest/embedded.h"

#include "tests/support/heap.h"
#include "tests/support/waiter.h"
#include "vmm/sabotage.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RAM_BYTES (16 * LOAM_MIB)

static struct loam_memory *memory;
static struct attest *attest;
static struct machine *machine;
static unsigned begun_count, done_count;
static uint32_t carved_before;

/* --- What a sabotage would see: this stands in for the one that programs link --------------------------------- */

static uint32_t struck[SABOTAGE_ECHOED + 1], sabotage_end_count;
static void (*spoil_listed)(struct loam_abi_table *table); /* when the promises are published */

bool sabotage_available(void)
{
    return false;
}

bool sabotage_select(const char *name)
{
    (void)name;
    return false;
}

void sabotage_strike(enum sabotage_point point, struct loam_memory *struck_memory, struct loam_abi_table *table)
{
    cr_expect_eq(struck_memory, memory);
    struck[point]++;
    if (point == SABOTAGE_PUBLISH && spoil_listed != NULL) {
        spoil_listed(table);
    }
}

void sabotage_end(void)
{
    sabotage_end_count++;
}

/* --- The host's half, with a machine -------------------------------------------------------------------------- */

/* Where a report waits, if a test says so. */
static bool is_report_held;
static sem_t report_came, report_may_return;

static void count_report(void *self, enum loam_abi_check check, const struct attest_outcome *outcome)
{
    static const uint32_t order[] = LOAM_ABI_ORDER;

    cr_expect_eq(self, &done_count);
    cr_expect_eq(check, order[done_count]);
    cr_expect(outcome == NULL || outcome->check == check);
    begun_count += outcome == NULL;
    done_count += outcome != NULL;
    if (is_report_held) {
        sem_post(&report_came);
        sem_wait(&report_may_return);
    }
}

static void drop_output(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    (void)bytes;
    (void)count;
}

static void make_unattached(void)
{
    struct loam_memory_request request = {
        .bytes = RAM_BYTES, .low_limit_bytes = 12 * LOAM_MIB, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct boot_request boot = {.kernel = {loam_guest_selftest, loam_guest_selftest_bytes, "self-test"},
                                .module_count = 1};
    struct machine_config config = {.vcpu_count = 1, .serial_output = drop_output};
    struct loam_diag diag = {0};
    struct boot_module module;
    struct boot_state state;
    struct loam_plan plan;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm, or no right to it");
    }
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    carved_before = loam_dma_count(loam_memory_dma(memory));
    cr_assert_eq(attest_create(memory, count_report, &done_count, &attest, &diag), LOAM_OK, "%s", diag.text);
    module = attest_module(attest);
    boot.modules = &module;
    cr_assert_eq(boot_load(memory, &boot, &state, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(attest_publish(attest, &state, &diag), LOAM_OK, "%s", diag.text);
    config.memory = memory;
    config.boot = &state;
    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_OK, "%s", diag.text);
}

static void make(void)
{
    struct loam_diag diag = {0};

    make_unattached();
    cr_assert_eq(attest_attach(attest, machine, &diag), LOAM_OK, "%s", diag.text);
}

static void unmake(void)
{
    machine_destroy(machine);
    attest_destroy(attest);
    loam_memory_destroy(memory);
}

TestSuite(attest, .init = make, .fini = unmake);

static void ring_value(uint32_t value, uint32_t bytes)
{
    bus_dispatch(machine_bus(machine), BUS_PIO, LOAM_ABI_PORT_DOORBELL, &value, bytes, true);
}

static void ring(enum loam_abi_event event, uint32_t check)
{
    ring_value(LOAM_ABI_RING(event, check), 4);
}

/* The table as the guest sees it: through its GPA. */
static struct loam_abi_table *guest_table(void)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    void *hva;

    if (loam_gpa_view_translate(view, attest_module(attest).start, LOAM_ABI_BYTES, LOAM_ACCESS_WRITE, &hva) !=
        LOAM_OK) {
        cr_assert(false, "the table is no memory");
    }
    loam_gpa_map_release(map, view);
    return hva;
}

static uint64_t sum_kind(uint32_t kind, uint64_t *count)
{
    const struct loam_abi_table *table = guest_table();
    uint64_t bytes = 0;

    *count = 0;
    for (uint32_t i = 0; i < table->range_count; i++) {
        if (table->ranges[i].kind == kind) {
            bytes += table->ranges[i].bytes;
            (*count)++;
        }
    }
    return bytes;
}

static void claim(uint32_t check, uint64_t item_count, uint64_t bytes)
{
    guest_table()->results[check] =
        (struct loam_abi_result){.status = LOAM_ABI_STATUS_PASS, .item_count = item_count, .bytes = bytes};
}

static const uint32_t order[] = LOAM_ABI_ORDER;

Test(attest, the_table_is_whole)
{
    const struct loam_abi_table *table = guest_table();
    uint64_t count;

    cr_expect_eq(table->magic, LOAM_ABI_MAGIC);
    cr_expect_eq(table->version, LOAM_ABI_VERSION);
    for (uint32_t kind = LOAM_ABI_KIND_RAM; kind < LOAM_ABI_KIND_COUNT; kind++) {
        cr_expect_gt(sum_kind(kind, &count), 0, "no range of kind %u", kind);
    }
    cr_expect_eq(sum_kind(LOAM_ABI_KIND_RAM, &count), RAM_BYTES - 384 * LOAM_KIB - 8 * LOAM_KIB,
                 "RAM is all but the legacy window and the read-only range");
}

Test(attest, a_guest_that_claims_all_and_has_done_nothing)
{
    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        claim(order[i], 8, 4096);
        ring(LOAM_ABI_EVENT_BEGIN, order[i]);
        ring(LOAM_ABI_EVENT_DONE, order[i]);
    }
    cr_expect_eq(done_count, LOAM_ABI_CHECK_COUNT);
    cr_expect_eq(attest_passed_count(attest), 0);
}

/* Right figures do not help where the host looks for itself. */
Test(attest, a_guest_that_knows_the_figures)
{
    uint64_t kept_count, count, ram = sum_kind(LOAM_ABI_KIND_RAM, &count) - sum_kind(LOAM_ABI_KIND_KEPT, &kept_count);

    claim(LOAM_ABI_CHECK_RAM, ram / 4096, ram);
    claim(LOAM_ABI_CHECK_ALIAS, ram / 4096, ram);
    claim(LOAM_ABI_CHECK_ECHO, 0, sum_kind(LOAM_ABI_KIND_ECHO, &count));
    guest_table()->results[LOAM_ABI_CHECK_ECHO].item_count = count;
    claim(LOAM_ABI_CHECK_RING, 2, 64);
    claim(LOAM_ABI_CHECK_READONLY, LOAM_ABI_PROBE_COUNT, 8192);
    claim(LOAM_ABI_CHECK_HOLE, 2 * LOAM_ABI_PROBE_COUNT, 8192);
    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        ring(LOAM_ABI_EVENT_BEGIN, order[i]);
        ring(LOAM_ABI_EVENT_DONE, order[i]);
    }
    cr_expect(attest_outcome(attest, LOAM_ABI_CHECK_RAM)->host_passed, "only the guest can see this one");
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_ALIAS)->host_passed);
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_ECHO)->host_passed);
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_RING)->host_passed);
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_READONLY)->host_passed);
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_HOLE)->host_passed);
}

Test(attest, events_out_of_order_are_nothing)
{
    claim(order[0], 1, 1);
    ring(LOAM_ABI_EVENT_DONE, order[0]);                          /* without a beginning */
    ring(LOAM_ABI_EVENT_BEGIN, order[1]);                         /* not the next */
    ring(LOAM_ABI_EVENT_BEGIN, LOAM_ABI_CHECK_COUNT);             /* no check */
    ring(LOAM_ABI_EVENT_COUNT, order[0]);                         /* no event */
    ring_value(LOAM_ABI_RING(LOAM_ABI_EVENT_BEGIN, order[0]), 2); /* too narrow */
    cr_expect_eq(begun_count + done_count, 0);
    ring(LOAM_ABI_EVENT_BEGIN, order[0]);
    ring(LOAM_ABI_EVENT_BEGIN, order[0]);
    ring(LOAM_ABI_EVENT_DONE, order[1]);
    cr_expect_eq(begun_count, 1);
    cr_expect_eq(done_count, 0);
    ring(LOAM_ABI_EVENT_DONE, order[0]);
    ring(LOAM_ABI_EVENT_DONE, order[0]);
    cr_expect_eq(done_count, 1, "a check is reported once");
    for (uint32_t value = 0; value < 0x10000; value++) {
        if (value != LOAM_ABI_RING(LOAM_ABI_EVENT_BEGIN, order[1])) {
            ring_value(value, 4);
        }
    }
    cr_expect_eq(begun_count, 1);
    cr_expect_null(attest_outcome(attest, order[1]));
}

/* A status that is none, or a pass with errors, is a failure. */
Test(attest, a_result_that_contradicts_itself)
{
    guest_table()->results[order[0]] = (struct loam_abi_result){.status = 0xffffffff};
    ring(LOAM_ABI_EVENT_BEGIN, order[0]);
    ring(LOAM_ABI_EVENT_DONE, order[0]);
    cr_expect_not(attest_outcome(attest, order[0])->guest_passed);
    guest_table()->results[order[1]] = (struct loam_abi_result){.status = LOAM_ABI_STATUS_PASS, .error_count = 1};
    ring(LOAM_ABI_EVENT_BEGIN, order[1]);
    ring(LOAM_ABI_EVENT_DONE, order[1]);
    cr_expect_not(attest_outcome(attest, order[1])->guest_passed);
}

/* The guest's copy of the promises is its own: what it writes there moves nothing on the host. */
Test(attest, a_guest_that_rewrites_its_table)
{
    memset(guest_table()->ranges, 0xff, sizeof guest_table()->ranges);
    guest_table()->range_count = 0xffffffff;
    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        claim(order[i], 0, 0);
        ring(LOAM_ABI_EVENT_BEGIN, order[i]);
        ring(LOAM_ABI_EVENT_DONE, order[i]);
    }
    cr_expect_eq(attest_passed_count(attest), 0);
}

Test(attest, probes_of_wrong_width_value_or_place_are_counted_wrong)
{
    const struct loam_abi_table *table = guest_table();
    uint64_t value = LOAM_ABI_PROBE_VALUE;

    for (uint32_t i = 0; i < table->range_count; i++) {
        const struct loam_abi_range *range = &table->ranges[i];

        for (uint32_t probe = 0; range->kind == LOAM_ABI_KIND_READONLY && probe < LOAM_ABI_PROBE_COUNT; probe++) {
            bus_dispatch(machine_bus(machine), BUS_MMIO, loam_abi_probe(range, probe) + (probe == 3), &value, 4, true);
        }
    }
    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        claim(order[i], 8, 4096);
        ring(LOAM_ABI_EVENT_BEGIN, order[i]);
        ring(LOAM_ABI_EVENT_DONE, order[i]);
    }
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_READONLY)->host_passed);
    cr_expect_not_null(strstr(attest_outcome(attest, LOAM_ABI_CHECK_READONLY)->text, "8 of them wrong"), "%s",
                       attest_outcome(attest, LOAM_ABI_CHECK_READONLY)->text);
}

static void ring_first(void *self)
{
    (void)self;
    ring(LOAM_ABI_EVENT_BEGIN, order[0]);
}

static void probe_first(void *self)
{
    const struct loam_abi_table *table = self;
    uint64_t value = LOAM_ABI_PROBE_VALUE;

    for (uint32_t i = 0; i < table->range_count; i++) {
        if (table->ranges[i].kind == LOAM_ABI_KIND_HOLE || table->ranges[i].kind == LOAM_ABI_KIND_READONLY) {
            bus_dispatch(machine_bus(machine), BUS_MMIO, table->ranges[i].start, &value, 8, true);
            return;
        }
    }
}

/* They are devices each for itself on the bus, and a check reads what was probed. */
Test(attest, a_probe_waits_for_a_check)
{
    struct waiter bell, probe;

    sem_init(&report_came, 0, 0);
    sem_init(&report_may_return, 0, 0);
    is_report_held = true;
    waiter_start(&bell, ring_first, NULL);
    sem_wait(&report_came);
    waiter_start(&probe, probe_first, guest_table());
    cr_expect(waiter_sleeps(&probe));
    sem_post(&report_may_return);
    waiter_join(&bell);
    waiter_join(&probe);
    cr_expect_eq(begun_count, 1);
}

/* --- A guest that does all of it ------------------------------------------------------------------------------ */

static uint64_t *word_at(uint64_t gpa)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    void *hva;

    if (loam_gpa_view_translate(view, (loam_gpa){gpa}, 8, LOAM_ACCESS_READ, &hva) != LOAM_OK) {
        cr_assert(false, "GPA 0x%" PRIx64 " is no memory", gpa);
    }
    loam_gpa_map_release(map, view);
    return hva;
}

static void access_word(uint64_t gpa, uint64_t value, bool is_write)
{
    cr_assert(bus_dispatch(machine_bus(machine), BUS_MMIO, gpa, &value, 8, is_write));
}

static bool is_in(uint32_t kind, uint64_t gpa)
{
    const struct loam_abi_table *table = guest_table();

    for (uint32_t i = 0; i < table->range_count; i++) {
        const struct loam_abi_range *range = &table->ranges[i];

        if (range->kind == kind && gpa >= range->start && gpa - range->start < range->bytes) {
            return true;
        }
    }
    return false;
}

static void do_alias(const struct loam_abi_range *range)
{
    for (uint64_t gpa = range->start; gpa < range->start + range->bytes; gpa += 4096) {
        if (!is_in(LOAM_ABI_KIND_KEPT, gpa)) {
            *word_at(gpa) = gpa;
        }
    }
}

static void do_echo(const struct loam_abi_range *range)
{
    for (uint64_t gpa = range->start; gpa < range->start + range->bytes; gpa += 8) {
        *word_at(gpa) = loam_abi_pattern(range->argument, gpa);
    }
}

static void do_readonly(const struct loam_abi_range *range)
{
    for (uint32_t i = 0; i < LOAM_ABI_PROBE_COUNT; i++) {
        access_word(loam_abi_probe(range, i), LOAM_ABI_PROBE_VALUE, true);
    }
}

static void do_hole(const struct loam_abi_range *range)
{
    do_readonly(range);
    for (uint32_t i = 0; i < LOAM_ABI_PROBE_COUNT; i++) {
        uint64_t gpa = loam_abi_probe(range, i), value = 0;

        cr_assert(bus_dispatch(machine_bus(machine), BUS_MMIO, gpa, &value, 8, false));
        cr_expect_eq(value, loam_abi_pattern(range->argument, gpa));
    }
}

/* What the guest does for one check to the ranges of its kind. */
static void do_check(uint32_t check)
{
    static const struct {
        uint32_t kind;
        void (*act)(const struct loam_abi_range *range);
    } acts[LOAM_ABI_CHECK_COUNT] = {[LOAM_ABI_CHECK_ALIAS] = {LOAM_ABI_KIND_RAM, do_alias},
                                    [LOAM_ABI_CHECK_ECHO] = {LOAM_ABI_KIND_ECHO, do_echo},
                                    [LOAM_ABI_CHECK_READONLY] = {LOAM_ABI_KIND_READONLY, do_readonly},
                                    [LOAM_ABI_CHECK_HOLE] = {LOAM_ABI_KIND_HOLE, do_hole}};
    const struct loam_abi_table *table = guest_table();

    for (uint32_t i = 0; i < table->range_count && acts[check].act != NULL; i++) {
        if (table->ranges[i].kind == acts[check].kind) {
            acts[check].act(&table->ranges[i]);
        }
    }
}

static struct loam_abi_range first(uint32_t kind, uint32_t index)
{
    const struct loam_abi_table *table = guest_table();

    for (uint32_t i = 0; i < table->range_count; i++) {
        if (table->ranges[i].kind == kind && index-- == 0) {
            return table->ranges[i];
        }
    }
    cr_assert(false, "kind %u has no such range", kind);
    return (struct loam_abi_range){0};
}

static void claim_rightly(uint32_t check)
{
    static const uint32_t kinds[] = {[LOAM_ABI_CHECK_PATTERN] = LOAM_ABI_KIND_PATTERN,
                                     [LOAM_ABI_CHECK_ECHO] = LOAM_ABI_KIND_ECHO,
                                     [LOAM_ABI_CHECK_DMA32] = LOAM_ABI_KIND_DMA32};
    uint64_t count, bytes;

    if (check == LOAM_ABI_CHECK_RAM || check == LOAM_ABI_CHECK_ALIAS) {
        bytes = sum_kind(LOAM_ABI_KIND_RAM, &count);
        bytes -= sum_kind(LOAM_ABI_KIND_KEPT, &count);
        claim(check, bytes / 4096, bytes);
    } else if (check == LOAM_ABI_CHECK_RING) {
        ((uint16_t *)word_at(first(LOAM_ABI_KIND_USED, 0).start))[1] = 2;
        claim(check, 2, 64);
    } else if (check == LOAM_ABI_CHECK_READONLY || check == LOAM_ABI_CHECK_HOLE) {
        claim(check, 8, 0);
    } else {
        bytes = sum_kind(kinds[check], &count);
        claim(check, count, bytes);
    }
}

/* All checks in order; before the end of check number spoiled, spoil has its turn. */
static void behave_but(uint32_t spoiled, void (*spoil)(void))
{
    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        ring(LOAM_ABI_EVENT_BEGIN, order[i]);
        do_check(order[i]);
        claim_rightly(order[i]);
        if (spoil != NULL && order[i] == spoiled) {
            spoil();
        }
        ring(LOAM_ABI_EVENT_DONE, order[i]);
    }
}

static uint64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

Test(attest, a_guest_that_does_all_of_it_passes)
{
    static const char *const names[] = {
        [LOAM_ABI_CHECK_PATTERN] = "pattern",   [LOAM_ABI_CHECK_DMA32] = "dma32", [LOAM_ABI_CHECK_ECHO] = "echo",
        [LOAM_ABI_CHECK_READONLY] = "readonly", [LOAM_ABI_CHECK_HOLE] = "hole",   [LOAM_ABI_CHECK_RING] = "ring",
        [LOAM_ABI_CHECK_RAM] = "ram",           [LOAM_ABI_CHECK_ALIAS] = "alias",
    };
    static const char *const texts[] = {
        [LOAM_ABI_CHECK_PATTERN] = "12 ranges", [LOAM_ABI_CHECK_DMA32] = "6 buffers",
        [LOAM_ABI_CHECK_ECHO] = "6 ranges",     [LOAM_ABI_CHECK_READONLY] = "8 probes",
        [LOAM_ABI_CHECK_HOLE] = "8 probes",     [LOAM_ABI_CHECK_RING] = "2 requests",
        [LOAM_ABI_CHECK_RAM] = " pages",        [LOAM_ABI_CHECK_ALIAS] = " pages",
    };

    uint64_t elapsed = now_nanoseconds(), sum = 0;

    behave_but(0, NULL);
    elapsed = now_nanoseconds() - elapsed;
    for (uint32_t check = 0; check < LOAM_ABI_CHECK_COUNT; check++) {
        const struct attest_outcome *outcome = attest_outcome(attest, check);

        cr_assert_not_null(outcome, "check %u", check);
        cr_expect(outcome->guest_passed && outcome->host_passed, "%s: %s", attest_check_name(check), outcome->text);
        cr_expect_not_null(strstr(outcome->text, texts[check]), "%s", outcome->text);
        cr_expect_str_eq(attest_check_name(check), names[check]);
        sum += outcome->nanoseconds;
    }
    cr_expect(sum > 0 && sum <= elapsed, "%" PRIu64 " of %" PRIu64 " ns", sum, elapsed);
    cr_expect_eq(attest_passed_count(attest), LOAM_ABI_CHECK_COUNT);
    cr_expect_null(attest_outcome(attest, LOAM_ABI_CHECK_COUNT));
    cr_expect_str_eq(attest_check_name(LOAM_ABI_CHECK_COUNT), "unknown");
}

static struct loam_abi_result *result_now(void)
{
    return &guest_table()->results[order[done_count]];
}

static void count_one_more(void)
{
    result_now()->item_count++;
}

static void count_none(void)
{
    struct loam_abi_range used = first(LOAM_ABI_KIND_USED, 0);

    result_now()->item_count = 0;
    ((uint16_t *)word_at(used.start))[1] = 0;
}

static void claim_a_byte_less(void)
{
    result_now()->bytes--;
}

static void report_failure(void)
{
    *result_now() = (struct loam_abi_result){.status = LOAM_ABI_STATUS_FAIL,
                                             .item_count = result_now()->item_count,
                                             .bytes = result_now()->bytes,
                                             .error_count = 3,
                                             .first_gpa = 0x1000,
                                             .first_expected = 0x22,
                                             .first_found = 0x33};
}

static void flip_first_word(uint32_t kind, uint32_t index)
{
    *word_at(first(kind, index).start) ^= 1;
}

static void flip_last_word(uint32_t kind, uint32_t index)
{
    struct loam_abi_range range = first(kind, index);

    *word_at(range.start + range.bytes - 8) ^= 1;
}

static void flip_pattern_start(void)
{
    flip_first_word(LOAM_ABI_KIND_PATTERN, 0);
}

static void flip_pattern_end(void)
{
    flip_last_word(LOAM_ABI_KIND_PATTERN, 11);
}

static void flip_echo_start(void)
{
    flip_first_word(LOAM_ABI_KIND_ECHO, 0);
}

static void flip_echo_end(void)
{
    flip_last_word(LOAM_ABI_KIND_ECHO, 5);
}

static void flip_readonly_end(void)
{
    flip_last_word(LOAM_ABI_KIND_READONLY, 0);
}

static void write_readonly_again(void)
{
    access_word(first(LOAM_ABI_KIND_READONLY, 0).start, LOAM_ABI_PROBE_VALUE, true);
}

static void read_readonly(void)
{
    access_word(first(LOAM_ABI_KIND_READONLY, 0).start, 0, false);
}

static void read_first_hole_again(void)
{
    access_word(first(LOAM_ABI_KIND_HOLE, 0).start, 0, false);
}

static void write_second_hole_again(void)
{
    access_word(first(LOAM_ABI_KIND_HOLE, 1).start, LOAM_ABI_PROBE_VALUE, true);
}

static void read_hole_narrow(void)
{
    uint32_t value;

    cr_assert(bus_dispatch(machine_bus(machine), BUS_MMIO, first(LOAM_ABI_KIND_HOLE, 0).start, &value, 4, false));
}

static void write_hole_another_value(void)
{
    access_word(first(LOAM_ABI_KIND_HOLE, 0).start, 1, true);
}

static void write_hole_elsewhere(void)
{
    access_word(first(LOAM_ABI_KIND_HOLE, 0).start + 8, LOAM_ABI_PROBE_VALUE, true);
}

/* Whatever one check lacks, that check fails, on the side that sees it, and no other. */
Test(attest, a_guest_that_does_all_but_one_thing)
{
    static const struct {
        uint32_t check;
        void (*spoil)(void);
        const char *text;
        bool guest_fails;
    } cases[] = {
        {LOAM_ABI_CHECK_PATTERN, count_one_more, "host: 12 ranges expected, guest reports 13", false},
        {LOAM_ABI_CHECK_PATTERN, claim_a_byte_less, "host: 12 ranges", false},
        {LOAM_ABI_CHECK_PATTERN, flip_pattern_start, "host: at GPA 0x28000 ", false},
        {LOAM_ABI_CHECK_PATTERN, flip_pattern_end, "host: at GPA 0x1003ffff8 ", false},
        {LOAM_ABI_CHECK_PATTERN, report_failure, "guest: 3 errors, first at GPA 0x1000: 0x22 expected, 0x33 found",
         true},
        {LOAM_ABI_CHECK_DMA32, count_one_more, "host: 6 buffers expected, guest reports 7", false},
        {LOAM_ABI_CHECK_ECHO, flip_echo_start, "host: at GPA 0x14000 ", false},
        {LOAM_ABI_CHECK_ECHO, flip_echo_end, "host: at GPA 0x100280ff8 ", false},
        {LOAM_ABI_CHECK_READONLY, flip_readonly_end, "host: at GPA ", false},
        {LOAM_ABI_CHECK_READONLY, write_readonly_again, "0 reads and 8 writes expected, 0 and 9 arrived, 0 of", false},
        {LOAM_ABI_CHECK_READONLY, read_readonly, "0 reads and 8 writes expected, 1 and 8 arrived, 0 of", false},
        {LOAM_ABI_CHECK_HOLE, read_first_hole_again, "8 reads and 8 writes expected, 9 and 8 arrived", false},
        {LOAM_ABI_CHECK_HOLE, write_second_hole_again, "8 reads and 8 writes expected, 8 and 9 arrived", false},
        {LOAM_ABI_CHECK_HOLE, read_hole_narrow, "9 and 8 arrived, 1 of them wrong", false},
        {LOAM_ABI_CHECK_HOLE, write_hole_another_value, "8 and 9 arrived, 1 of them wrong", false},
        {LOAM_ABI_CHECK_HOLE, write_hole_elsewhere, "8 and 9 arrived, 1 of them wrong", false},
        {LOAM_ABI_CHECK_RING, count_one_more, "host: 2 requests answered expected, guest reports 3", false},
        {LOAM_ABI_CHECK_RING, count_none, "host: 0 requests answered", false},
        {LOAM_ABI_CHECK_RAM, claim_a_byte_less, " bytes of RAM expected", false},
        {LOAM_ABI_CHECK_ALIAS, claim_a_byte_less, " bytes of RAM expected", false},
    };

    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct attest_outcome *outcome;

        behave_but(cases[i].check, cases[i].spoil);
        outcome = attest_outcome(attest, cases[i].check);
        cr_assert_not_null(outcome);
        cr_expect_eq(outcome->guest_passed, !cases[i].guest_fails, "case %u: %s", i, outcome->text);
        cr_expect_eq(outcome->host_passed, cases[i].guest_fails, "case %u: %s", i, outcome->text);
        cr_expect_not_null(strstr(outcome->text, cases[i].text), "case %u: %s", i, outcome->text);
        cr_expect_eq(attest_passed_count(attest), LOAM_ABI_CHECK_COUNT - 1, "case %u", i);
        unmake();
        begun_count = done_count = 0;
        make();
    }
}

static void count_one(void)
{
    struct loam_abi_range used = first(LOAM_ABI_KIND_USED, 0);

    result_now()->item_count = 1;
    ((uint16_t *)word_at(used.start))[1] = 1;
}

Test(attest, one_request_through_the_ring_is_enough)
{
    behave_but(LOAM_ABI_CHECK_RING, count_one);
    cr_expect_eq(attest_passed_count(attest), LOAM_ABI_CHECK_COUNT);
}

Test(attest, a_sabotage_may_strike_at_each_point_once)
{
    cr_expect_eq(struck[SABOTAGE_PUBLISH], 1);
    cr_expect_eq(struck[SABOTAGE_ATTACH], 1);
    behave_but(0, NULL);
    cr_expect_eq(struck[SABOTAGE_ECHOED], 1);
    cr_expect_eq(struck[SABOTAGE_STAGE], 0, "the guest did not ring for it");
    unmake();
    cr_expect_eq(sabotage_end_count, 1);
    begun_count = done_count = 0;
    make();
}

Test(attest, the_stage_is_rung_within_alias_alone)
{
    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        ring(LOAM_ABI_EVENT_STAGE, order[i]);
        ring(LOAM_ABI_EVENT_BEGIN, order[i]);
        cr_expect_eq(struck[SABOTAGE_STAGE], 0);
        ring(LOAM_ABI_EVENT_STAGE, order[i]);
        cr_expect_eq(struck[SABOTAGE_STAGE], order[i] == LOAM_ABI_CHECK_ALIAS);
        ring(LOAM_ABI_EVENT_DONE, order[i]);
    }
}

static struct loam_abi_range *find_listed(struct loam_abi_table *table, uint32_t kind)
{
    for (uint32_t i = 0; i < table->range_count; i++) {
        if (table->ranges[i].kind == kind) {
            return &table->ranges[i];
        }
    }
    cr_assert(false, "kind %u has no range", kind);
    return NULL;
}

static void list_a_buffer_across_4_gib(struct loam_abi_table *table)
{
    struct loam_abi_range *range = find_listed(table, LOAM_ABI_KIND_DMA32);

    range->start = 4 * LOAM_GIB - range->bytes + 4096;
}

static void list_ram_beyond_its_end(struct loam_abi_table *table)
{
    find_listed(table, LOAM_ABI_KIND_RAM)->bytes += 4096;
}

/* What the host itself listed wrongly, the host finds: the guest could only agree. */
Test(attest, a_promise_that_the_host_cannot_keep)
{
    unmake();
    spoil_listed = list_a_buffer_across_4_gib;
    make();
    behave_but(0, NULL);
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_DMA32)->host_passed);
    cr_expect_not_null(strstr(attest_outcome(attest, LOAM_ABI_CHECK_DMA32)->text, "does not end below 4 GiB"));
    unmake();
    spoil_listed = list_ram_beyond_its_end;
    begun_count = done_count = 0;
    make();
    behave_but(0, NULL);
    cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_ALIAS)->host_passed);
    cr_expect_not_null(
        strstr(attest_outcome(attest, LOAM_ABI_CHECK_ALIAS)->text, "host: RAM at GPA 0x0 is not all there"));
}

static uint64_t aliased_page;

static void alias_page(void)
{
    *word_at(aliased_page) ^= 0x1000;
}

/* One page that holds another's address: at each end of RAM and beside what the guest keeps. */
Test(attest, the_host_looks_at_every_page_of_ram_for_aliases)
{
    uint64_t pages[32], count, page_count = 0;
    const struct loam_abi_table *table = guest_table();

    for (uint32_t i = 0; i < table->range_count; i++) {
        const struct loam_abi_range *range = &table->ranges[i];
        uint64_t after = range->start + range->bytes;

        if (range->kind == LOAM_ABI_KIND_RAM) {
            pages[page_count++] = range->start;
            pages[page_count++] = after - 4096;
        } else if (range->kind == LOAM_ABI_KIND_KEPT) {
            pages[page_count++] = range->start - 4096;
            pages[page_count++] = after;
            pages[page_count++] = after + 4096;
        }
    }
    sum_kind(LOAM_ABI_KIND_KEPT, &count);
    cr_assert_eq(count, 2);
    for (uint64_t i = 0; i < page_count; i++) {
        char expected[64];

        if (is_in(LOAM_ABI_KIND_KEPT, pages[i]) || !is_in(LOAM_ABI_KIND_RAM, pages[i])) {
            continue;
        }
        aliased_page = pages[i];
        behave_but(LOAM_ABI_CHECK_ALIAS, alias_page);
        snprintf(expected, sizeof expected, "host: the page at GPA 0x%" PRIx64 " holds 0x%" PRIx64, pages[i],
                 pages[i] ^ 0x1000);
        cr_expect_str_eq(attest_outcome(attest, LOAM_ABI_CHECK_ALIAS)->text, expected);
        cr_expect_not(attest_outcome(attest, LOAM_ABI_CHECK_ALIAS)->host_passed);
        unmake();
        begun_count = done_count = 0;
        make();
    }
}

static enum loam_error change_map(void)
{
    static bool is_read_only;

    is_read_only = !is_read_only;
    return loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){4 * LOAM_GIB}, 4096,
                                is_read_only ? LOAM_ACCESS_READ : LOAM_ACCESS_WRITE);
}

/* How often the map can be changed while each table before is held: less often if a view is held already. */
static uint32_t spare_tables(void)
{
    const struct loam_gpa_view *views[96];
    uint32_t count = 0;

    cr_assert_eq(change_map(), LOAM_OK);
    do {
        cr_assert_lt(count, 96);
        views[count++] = loam_gpa_map_acquire(loam_memory_map(memory));
    } while (change_map() == LOAM_OK);
    for (uint32_t i = 0; i < count; i++) {
        loam_gpa_map_release(loam_memory_map(memory), views[i]);
    }
    return count;
}

Test(attest, no_check_keeps_a_view)
{
    uint32_t before = spare_tables();

    behave_but(0, NULL);
    cr_expect_eq(spare_tables(), before);
}

/* --- What fails ----------------------------------------------------------------------------------------------- */

Test(attest, without_memory_nothing_is_made)
{
    struct loam_diag diag = {0};
    struct attest *other = attest;
    uint32_t blocks = heap_block_count(), carved = loam_dma_count(loam_memory_dma(memory));

    heap_fail(1);
    cr_expect_eq(attest_create(memory, count_report, NULL, &other, &diag), LOAM_ERROR_SYSTEM);
    heap_fail(0);
    cr_expect_null(other);
    cr_expect_str_not_empty(diag.text);
    cr_expect_eq(heap_block_count(), blocks);
    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), carved);
}

Test(attest, says_when_its_devices_find_no_place)
{
    struct loam_diag diag = {0};

    cr_expect_eq(attest_attach(attest, machine, &diag), LOAM_ERROR_OVERLAP, "they are there already");
    cr_expect_not_null(strstr(diag.text, "its devices find no place on the bus"), "%s", diag.text);
}

static void answer_nothing(void *device, struct bus_access *access)
{
    (void)device;
    (void)access;
}

/* Each of them by itself: the doorbell, and the first and the last range that is probed. */
Test(attest, says_when_one_of_its_devices_finds_no_place)
{
    const uint64_t bases[] = {LOAM_ABI_PORT_DOORBELL, first(LOAM_ABI_KIND_READONLY, 0).start,
                              first(LOAM_ABI_KIND_HOLE, 1).start};

    for (uint32_t i = 0; i < 3; i++) {
        struct bus_device taken = {.name = "taken",
                                   .space = i == 0 ? BUS_PIO : BUS_MMIO,
                                   .base = bases[i],
                                   .bytes = 1,
                                   .access = answer_nothing};
        struct loam_diag diag = {0};

        unmake();
        make_unattached();
        cr_assert_eq(bus_add(machine_bus(machine), &taken), LOAM_OK);
        cr_expect_eq(attest_attach(attest, machine, &diag), LOAM_ERROR_OVERLAP, "device %u", i);
    }
}

/* What it carved it gives back, and the read-only range is writable again. */
Test(attest, destroy_leaves_the_ledger_as_it_was)
{
    struct loam_diag diag = {0};
    struct loam_dma_entry entry;
    uint32_t boot_count;

    machine_destroy(machine);
    machine = NULL;
    boot_count = loam_dma_count(loam_memory_dma(memory));
    attest_destroy(attest);
    attest = NULL;
    cr_expect_gt(boot_count, carved_before);
    for (loam_gpa at = {0}; loam_dma_next(loam_memory_dma(memory), at, &entry) == LOAM_OK;
         at = loam_dma_entry_end(&entry)) {
        cr_expect_null(strstr(entry.owner, "self-test"), "%s is still carved", entry.owner);
    }
    cr_expect_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
}
