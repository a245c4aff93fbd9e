// SPDX-License-Identifier: Apache-2.0
/*
 * The host against guests that lie: what rings the doorbell here is the test, and it says whatever it likes. Only what
 * the host has seen itself may pass.
 */
#include "vmm/attest.h"

#include "guest/embedded.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static struct loam_memory *memory;
static struct attest *attest;
static struct machine *machine;
static unsigned begun_count, done_count;
static uint32_t carved_before;

static void count_report(void *self, enum loam_abi_check check, const struct attest_outcome *outcome)
{
    (void)self;
    (void)check;
    begun_count += outcome == NULL;
    done_count += outcome != NULL;
}

static void drop_output(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    (void)bytes;
    (void)count;
}

static void make(void)
{
    struct loam_memory_request request = {
        .bytes = 64 * LOAM_MIB, .low_limit_bytes = 32 * LOAM_MIB, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
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
    cr_assert_eq(attest_create(memory, count_report, NULL, &attest, &diag), LOAM_OK, "%s", diag.text);
    module = attest_module(attest);
    boot.modules = &module;
    cr_assert_eq(boot_load(memory, &boot, &state, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(attest_publish(attest, &state, &diag), LOAM_OK, "%s", diag.text);
    config.memory = memory;
    config.boot = &state;
    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_OK, "%s", diag.text);
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

    cr_assert_eq(loam_gpa_view_translate(view, attest_module(attest).start, LOAM_ABI_BYTES, LOAM_ACCESS_WRITE, &hva),
                 LOAM_OK);
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
    cr_expect_eq(sum_kind(LOAM_ABI_KIND_RAM, &count), 64 * LOAM_MIB - 384 * LOAM_KIB - 8 * LOAM_KIB,
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

/* What it carved it gives back, and the read-only range is writable again. */
Test(attest, destroy_leaves_the_ledger_as_it_was)
{
    struct loam_diag diag = {0};
    uint32_t boot_count;

    machine_destroy(machine);
    machine = NULL;
    boot_count = loam_dma_count(loam_memory_dma(memory));
    attest_destroy(attest);
    attest = NULL;
    cr_expect_gt(boot_count, carved_before);
    for (uint32_t i = 0; i < loam_dma_count(loam_memory_dma(memory)); i++) {
        struct loam_dma_entry entry;

        cr_assert_eq(loam_dma_entry_at(loam_memory_dma(memory), i, &entry), LOAM_OK);
        cr_expect_null(strstr(entry.owner, "self-test"), "%s is still carved", entry.owner);
    }
    cr_expect_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
}
