// SPDX-License-Identifier: Apache-2.0
/*
 * The self-test: reads what the host promises (abi.h), checks each promise from the inside, reports.
 *
 * A check passes if it has tried something and found no error: a promise that is not made is not kept. A range that
 * is malformed, out of reach or over the guest's own memory is an error of the check that wants it, and is not touched.
 */
#include "guest/guest.h"
#include "guest/ranges.h"
#include "guest/rng_driver.h"
#include "guest/sweep.h"

#include <stddef.h>

#define DMA32_END  (UINT64_C(1) << 32)
#define WORD_BYTES UINT64_C(8)
#define ENDL       "\r\n"
#define QUEUE_MAX  32768u /* virtio 1.2, section 2.7 */
#define BYTE_RANGE UINT64_C(1)

/* guest.lds: page-aligned. */
extern const char image_start[], image_end[];

/* A check at work. result is the guest's own until it is final. */
struct run {
    struct loam_abi_table *table;
    const char *name;
    uint32_t check;
    bool is_repeat; /* the ranges are gone through once more: what was refused, or is missing, is known */
    struct loam_abi_result result;
};

/* --- Reporting ------------------------------------------------------------------------------------------------- */

static void ring_doorbell(uint32_t event, uint32_t check)
{
    platform_out32(LOAM_ABI_PORT_DOORBELL, LOAM_ABI_RING(event, check));
}

static void fail(struct run *run, uint64_t gpa, uint64_t expected, uint64_t found)
{
    if (run->result.error_count++ == 0) {
        run->result.first_gpa = gpa;
        run->result.first_expected = expected;
        run->result.first_found = found;
    }
}

static void expect(struct run *run, uint64_t gpa, uint64_t expected, uint64_t found)
{
    if (expected != found) {
        fail(run, gpa, expected, found);
    }
}

/* A range that cannot be used: the reason goes to the console, for the table has no words. */
static void refuse(struct run *run, const struct loam_abi_range *range, const char *reason)
{
    console_text("loam self-test: ");
    console_text(run->name);
    console_text(": ");
    console_hex(range->bytes);
    console_text(" bytes at ");
    console_hex(range->start);
    console_text(": ");
    console_text(reason);
    console_text(ENDL);
    fail(run, range->start, 0, range->bytes);
}

/* --- Ranges ---------------------------------------------------------------------------------------------------- */

static bool is_own(const struct run *run, const struct loam_abi_range *range)
{
    const struct loam_abi_range image = {.start = (uintptr_t)image_start,
                                         .bytes = (uintptr_t)image_end - (uintptr_t)image_start};
    const struct loam_abi_range table = {.start = (uintptr_t)run->table, .bytes = LOAM_ABI_BYTES};

    return ranges_overlap(range, &image) || ranges_overlap(range, &table);
}

/* Whether range may be touched; refused if not. */
static bool usable(struct run *run, const struct loam_abi_range *range, uint64_t align_bytes)
{
    const char *reason = NULL;

    if (!ranges_valid(range, align_bytes)) {
        reason = "empty, misaligned or beyond the address space";
    } else if (is_own(run, range)) {
        reason = "over this guest's image or the table, which are not listed as kept";
    } else if (!paging_map(range->start, range->bytes)) {
        reason = "beyond the reach of the page tables";
    }
    if (reason != NULL && !run->is_repeat) {
        refuse(run, range, reason);
    }
    return reason == NULL;
}

typedef void range_fn(struct run *run, const struct loam_abi_range *range);

/* Call visit on each usable range of a kind. None at all is an error. */
static void each_range(struct run *run, uint32_t kind, uint64_t align_bytes, range_fn *visit)
{
    uint32_t found_count = 0;

    for (uint32_t i = 0; i < run->table->range_count; i++) {
        const struct loam_abi_range *range = &run->table->ranges[i];

        if (range->kind == kind) {
            found_count++;
            if (usable(run, range, align_bytes)) {
                visit(run, range);
            }
        }
    }
    if (found_count == 0 && !run->is_repeat) {
        fail(run, 0, 1, 0);
    }
}

/* Call visit on each piece of RAM that is not kept. RAM that is malformed, or none at all, is an error. */
static void each_piece(struct run *run, range_fn *visit)
{
    struct ranges_cursor cursor = {0};
    struct ranges_piece piece;
    bool found = false;

    for (uint32_t i = 0; i < run->table->range_count; i++) {
        const struct loam_abi_range *range = &run->table->ranges[i];

        if (range->kind == LOAM_ABI_KIND_RAM && !ranges_valid(range, PLATFORM_PAGE_BYTES) && !run->is_repeat) {
            refuse(run, range, "no range of whole pages");
        }
    }
    while (ranges_next_piece(run->table, &cursor, &piece)) {
        struct loam_abi_range range = {.start = piece.start, .bytes = piece.end - piece.start};

        found = true;
        if (usable(run, &range, PLATFORM_PAGE_BYTES)) {
            visit(run, &range);
        }
    }
    if (!found && !run->is_repeat) {
        fail(run, 0, 1, 0);
    }
}

static void count_range(struct run *run, const struct loam_abi_range *range)
{
    run->result.item_count++;
    run->result.bytes += range->bytes;
}

static void count_pages(struct run *run, const struct loam_abi_range *range)
{
    run->result.item_count += range->bytes / PLATFORM_PAGE_BYTES;
    run->result.bytes += range->bytes;
}

/* --- ram ------------------------------------------------------------------------------------------------------- */

/* A 4-byte end of a page. */
static void check_end(struct run *run, uint64_t gpa, uint32_t value)
{
    platform_store32(gpa, value);
    expect(run, gpa, value, platform_load32(gpa));
}

/* The seams of [gpa, end), one by one, to find which page is to blame. The value is that of the whole block. */
static void check_seams(struct run *run, uint64_t gpa, uint64_t end)
{
    uint64_t value = sweep_seam_value(gpa);

    for (; gpa < end; gpa += PLATFORM_PAGE_BYTES) {
        uint64_t found;

        platform_store64(gpa - 4, value);
        found = platform_load64(gpa - 4);
        expect(run, gpa - 4, value & UINT32_MAX, found & UINT32_MAX);
        expect(run, gpa, value >> 32, found >> 32);
    }
}

/* Seams lie where two pages of the piece meet; at its own ends half of one is left. */
static void ram_piece(struct run *run, const struct loam_abi_range *range)
{
    uint64_t end = range->start + range->bytes;
    uint64_t gpa = range->start + PLATFORM_PAGE_BYTES;
    uint64_t blocks_end = gpa + (end - gpa) / SWEEP_BYTES * SWEEP_BYTES;

    check_end(run, range->start, (uint32_t)(sweep_seam_value(range->start) >> 32));
    while ((gpa = sweep_seams(gpa, blocks_end)) < blocks_end) {
        uint64_t error_count = run->result.error_count;

        check_seams(run, gpa, gpa + SWEEP_BYTES);
        if (run->result.error_count == error_count) {
            fail(run, gpa, 0, 0); /* it was there, and has gone */
        }
        gpa += SWEEP_BYTES;
    }
    check_seams(run, gpa, end);
    check_end(run, end - 4, (uint32_t)sweep_seam_value(end));
    count_pages(run, range);
}

static void check_ram(struct run *run)
{
    each_piece(run, ram_piece);
}

/* --- alias, and the stamps of dma32 ---------------------------------------------------------------------------- */

static void write_own(struct run *run, const struct loam_abi_range *range)
{
    (void)run;
    sweep_write_own(range->start, range->start + range->bytes);
}

static void check_own(struct run *run, const struct loam_abi_range *range)
{
    uint64_t gpa = range->start, end = range->start + range->bytes;

    while ((gpa = sweep_check_own(gpa, end)) < end) {
        fail(run, gpa, gpa, platform_load64(gpa));
        gpa += PLATFORM_PAGE_BYTES;
    }
}

static void alias_piece(struct run *run, const struct loam_abi_range *range)
{
    check_own(run, range);
    count_pages(run, range);
}

static void check_alias(struct run *run)
{
    each_piece(run, write_own);
    ring_doorbell(LOAM_ABI_EVENT_STAGE, run->check);
    run->is_repeat = true;
    each_piece(run, alias_piece);
}

/* --- pattern, echo --------------------------------------------------------------------------------------------- */

static void compare_pattern(struct run *run, const struct loam_abi_range *range)
{
    uint64_t seed = range->argument, end = range->start + range->bytes;

    for (uint64_t gpa = range->start; gpa < end; gpa += WORD_BYTES) {
        expect(run, gpa, loam_abi_pattern(seed, gpa), platform_load64(gpa));
    }
    count_range(run, range);
}

static void check_pattern(struct run *run)
{
    each_range(run, LOAM_ABI_KIND_PATTERN, WORD_BYTES, compare_pattern);
}

static void write_pattern(struct run *run, const struct loam_abi_range *range)
{
    uint64_t seed = range->argument, end = range->start + range->bytes;

    for (uint64_t gpa = range->start; gpa < end; gpa += WORD_BYTES) {
        platform_store64(gpa, loam_abi_pattern(seed, gpa));
    }
    count_range(run, range);
}

static void check_echo(struct run *run)
{
    each_range(run, LOAM_ABI_KIND_ECHO, WORD_BYTES, write_pattern);
    ring_doorbell(LOAM_ABI_EVENT_STAGE, run->check);
}

/* --- dma32 ----------------------------------------------------------------------------------------------------- */

static bool is_carved(const struct loam_abi_range *range)
{
    return (range->kind == LOAM_ABI_KIND_DMA32 || range->kind == LOAM_ABI_KIND_DESCRIPTORS ||
            range->kind == LOAM_ABI_KIND_AVAILABLE || range->kind == LOAM_ABI_KIND_USED ||
            range->kind == LOAM_ABI_KIND_RING_DATA) &&
           ranges_valid(range, BYTE_RANGE);
}

/* By the numbers: buffer shares no byte with another carved range. Every pair of buffers is met from both sides. */
static void expect_disjoint(struct run *run, const struct loam_abi_range *buffer)
{
    for (uint32_t i = 0; i < run->table->range_count; i++) {
        const struct loam_abi_range *other = &run->table->ranges[i];

        if (other != buffer && is_carved(other) && ranges_overlap(buffer, other)) {
            fail(run, buffer->start, 0, other->start);
        }
    }
}

/* One error a page: a buffer full of rubbish is one page after another, not a million words. */
static void expect_zero(struct run *run, const struct loam_abi_range *buffer)
{
    uint64_t gpa = buffer->start, end = buffer->start + buffer->bytes;

    while (gpa < end && (gpa = sweep_zero(gpa, end)) < end) {
        fail(run, gpa, 0, platform_load64(gpa));
        gpa = (gpa & ~(PLATFORM_PAGE_BYTES - 1)) + PLATFORM_PAGE_BYTES;
    }
}

static void dma32_buffer(struct run *run, const struct loam_abi_range *buffer)
{
    if (buffer->start + buffer->bytes > DMA32_END) {
        fail(run, buffer->start, DMA32_END, buffer->start + buffer->bytes);
    }
    expect_disjoint(run, buffer);
    expect_zero(run, buffer);
    count_range(run, buffer);
}

/* By the contents: once each page of each buffer has been stamped, each still has its own stamp. */
static void check_dma32(struct run *run)
{
    each_range(run, LOAM_ABI_KIND_DMA32, PLATFORM_PAGE_BYTES, dma32_buffer);
    run->is_repeat = true;
    each_range(run, LOAM_ABI_KIND_DMA32, PLATFORM_PAGE_BYTES, write_own);
    each_range(run, LOAM_ABI_KIND_DMA32, PLATFORM_PAGE_BYTES, check_own);
}

/* --- ring ------------------------------------------------------------------------------------------------------ */

/* Each request has PART_BYTES of the data buffer, asks for the first half, and the rest has to stay as it was. */
#define REQUEST_COUNT 2u
#define REQUEST_BYTES UINT64_C(64)
#define PART_BYTES    (2 * REQUEST_BYTES)
#define UNTOUCHED     UINT8_C(0xa5)

/* The one range of a kind, usable, at least minimum_bytes long and below 4 GiB; NULL, with an error, if there is none.
 */
static const struct loam_abi_range *ring_part(struct run *run, uint32_t kind, uint64_t align_bytes,
                                              uint64_t minimum_bytes)
{
    const struct loam_abi_range *part = NULL;

    for (uint32_t i = 0; i < run->table->range_count; i++) {
        const struct loam_abi_range *range = &run->table->ranges[i];

        if (range->kind == kind && part != NULL) {
            refuse(run, range, "one more of its kind than a queue has");
            return NULL;
        }
        part = range->kind == kind ? range : part;
    }
    if (part == NULL) {
        fail(run, 0, kind, 0);
        return NULL;
    }
    if (part->bytes < minimum_bytes || (part->start & (align_bytes - 1)) != 0) {
        refuse(run, part, "too small or misaligned for its part of the queue");
        return NULL;
    }
    if (!usable(run, part, BYTE_RANGE)) {
        return NULL;
    }
    if (part->start + part->bytes > DMA32_END) {
        fail(run, part->start, DMA32_END, part->start + part->bytes);
    }
    return part;
}

/* Sizes and alignments: virtio 1.2, section 2.7. */
static bool ring_parts(struct run *run, struct rng_driver *driver, uint64_t *data)
{
    const struct loam_abi_range *registers = ring_part(run, LOAM_ABI_KIND_VIRTIO_RNG, 4, 0x100);
    const struct loam_abi_range *descriptors = ring_part(run, LOAM_ABI_KIND_DESCRIPTORS, 16, 16);
    const struct loam_abi_range *buffer = ring_part(run, LOAM_ABI_KIND_RING_DATA, 1, REQUEST_COUNT * PART_BYTES);
    const struct loam_abi_range *available, *used;
    uint64_t size = descriptors == NULL ? 0 : descriptors->argument;

    if (registers == NULL || descriptors == NULL || buffer == NULL) {
        return false;
    }
    if (size == 0 || size > QUEUE_MAX || (size & (size - 1)) != 0 || descriptors->bytes < 16 * size) {
        refuse(run, descriptors, "its argument is no queue size, or one that it has no room for");
        return false;
    }
    available = ring_part(run, LOAM_ABI_KIND_AVAILABLE, 2, 6 + 2 * size);
    used = ring_part(run, LOAM_ABI_KIND_USED, 4, 6 + 8 * size);
    if (available == NULL || used == NULL) {
        return false;
    }
    *driver = (struct rng_driver){.registers = registers->start,
                                  .descriptors = descriptors->start,
                                  .available = available->start,
                                  .used = used->start,
                                  .queue_size = (uint32_t)size};
    *data = buffer->start;
    return true;
}

static void fill_bytes(uint64_t gpa, uint64_t bytes, uint8_t value)
{
    for (uint64_t i = 0; i < bytes; i++) {
        platform_store8(gpa + i, value);
    }
}

static void expect_bytes(struct run *run, uint64_t gpa, uint64_t bytes, uint8_t value)
{
    for (uint64_t i = 0; i < bytes; i++) {
        expect(run, gpa + i, value, platform_load8(gpa + i));
    }
}

static bool all_equal(uint64_t gpa, uint64_t bytes, uint8_t value)
{
    uint64_t i = 0;

    while (i < bytes && platform_load8(gpa + i) == value) {
        i++;
    }
    return i == bytes;
}

static bool same_bytes(uint64_t a, uint64_t b, uint64_t bytes)
{
    uint64_t i = 0;

    while (i < bytes && platform_load8(a + i) == platform_load8(b + i)) {
        i++;
    }
    return i == bytes;
}

/* Random: not all zero, not left as it was, and the second answer is not the first again. */
static void judge_answers(struct run *run, uint64_t data, const uint32_t *written)
{
    for (uint32_t i = 0; i < REQUEST_COUNT; i++) {
        uint64_t part = data + i * PART_BYTES;

        if (all_equal(part, written[i], 0) || all_equal(part, written[i], UNTOUCHED)) {
            fail(run, part, 0, platform_load8(part));
        }
        expect_bytes(run, part + written[i], PART_BYTES - written[i], UNTOUCHED);
        run->result.bytes += written[i];
    }
    if (same_bytes(data, data + PART_BYTES, written[0] < written[1] ? written[0] : written[1])) {
        fail(run, data + PART_BYTES, 0, platform_load64(data + PART_BYTES));
    }
}

static void check_ring(struct run *run)
{
    struct rng_driver driver;
    struct rng_fault fault;
    uint32_t written[REQUEST_COUNT];
    uint64_t data;
    bool answered;

    if (!ring_parts(run, &driver, &data)) {
        return;
    }
    fill_bytes(data, REQUEST_COUNT * PART_BYTES, UNTOUCHED);
    answered = rng_start(&driver, &fault);
    for (uint32_t i = 0; answered && i < REQUEST_COUNT; i++) {
        answered = rng_request(&driver, data + i * PART_BYTES, REQUEST_BYTES, &written[i], &fault);
        run->result.item_count += answered;
    }
    if (answered) {
        judge_answers(run, data, written);
    } else {
        fail(run, fault.gpa, fault.expected, fault.found);
    }
    rng_stop(&driver); /* ram and alias overwrite the rings */
}

/* --- readonly, hole -------------------------------------------------------------------------------------------- */

static void readonly_range(struct run *run, const struct loam_abi_range *range)
{
    uint64_t item_count = run->result.item_count;

    compare_pattern(run, range);
    for (uint32_t i = 0; i < LOAM_ABI_PROBE_COUNT; i++) {
        uint64_t gpa = loam_abi_probe(range, i);

        platform_store64(gpa, LOAM_ABI_PROBE_VALUE);
        expect(run, gpa, loam_abi_pattern(range->argument, gpa), platform_load64(gpa));
    }
    run->result.item_count = item_count + LOAM_ABI_PROBE_COUNT;
}

static void check_readonly(struct run *run)
{
    each_range(run, LOAM_ABI_KIND_READONLY, WORD_BYTES, readonly_range);
}

static void hole_range(struct run *run, const struct loam_abi_range *range)
{
    for (uint32_t i = 0; i < LOAM_ABI_PROBE_COUNT; i++) {
        uint64_t gpa = loam_abi_probe(range, i);

        expect(run, gpa, loam_abi_pattern(range->argument, gpa), platform_load64(gpa));
        platform_store64(gpa, LOAM_ABI_PROBE_VALUE);
        run->result.bytes += WORD_BYTES;
    }
    run->result.item_count += LOAM_ABI_PROBE_COUNT;
}

static void check_hole(struct run *run)
{
    each_range(run, LOAM_ABI_KIND_HOLE, WORD_BYTES, hole_range);
}

/* --- All of it ------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*check)(struct run *run);
} checks[LOAM_ABI_CHECK_COUNT] = {
    [LOAM_ABI_CHECK_RAM] = {"ram", check_ram},
    [LOAM_ABI_CHECK_PATTERN] = {"pattern", check_pattern},
    [LOAM_ABI_CHECK_ECHO] = {"echo", check_echo},
    [LOAM_ABI_CHECK_ALIAS] = {"alias", check_alias},
    [LOAM_ABI_CHECK_DMA32] = {"dma32", check_dma32},
    [LOAM_ABI_CHECK_RING] = {"ring", check_ring},
    [LOAM_ABI_CHECK_READONLY] = {"readonly", check_readonly},
    [LOAM_ABI_CHECK_HOLE] = {"hole", check_hole},
};

/* Run one check; returns whether it passed. The status is stored last: it says that the rest is final. */
static bool run_check(struct loam_abi_table *table, uint32_t check)
{
    struct run run = {.table = table, .name = checks[check].name, .check = check};
    struct loam_abi_result *result = &table->results[check];
    bool passed;

    exceptions_context(run.name);
    ring_doorbell(LOAM_ABI_EVENT_BEGIN, check);
    checks[check].check(&run);
    passed = run.result.error_count == 0 && run.result.item_count > 0;
    *result = run.result;
    platform_store_barrier();
    result->status = passed ? LOAM_ABI_STATUS_PASS : LOAM_ABI_STATUS_FAIL;
    ring_doorbell(LOAM_ABI_EVENT_DONE, check);
    return passed;
}

_Noreturn static void give_up(const char *reason, uint32_t code)
{
    console_text("loam self-test: ");
    console_text(reason);
    console_text(ENDL);
    platform_exit(code);
}

static bool ranges_known(const struct loam_abi_table *table)
{
    for (uint32_t i = 0; i < table->range_count; i++) {
        if (table->ranges[i].kind == 0 || table->ranges[i].kind >= LOAM_ABI_KIND_COUNT ||
            (table->ranges[i].kind == LOAM_ABI_KIND_KEPT && !ranges_valid(&table->ranges[i], BYTE_RANGE))) {
            return false;
        }
    }
    return true;
}

/* The table that the host handed over, with every member that others are read by checked; gives up without one. */
static struct loam_abi_table *find_table(uint64_t start_info)
{
    struct loam_abi_table *table;
    struct pvh_module module;

    if (!pvh_valid(start_info)) {
        give_up("no PVH start info where EBX points", LOAM_ABI_EXIT_FAIL);
    }
    if (!pvh_find_module(start_info, LOAM_ABI_MODULE, &module)) {
        give_up("no host table was given: nothing to attest", LOAM_ABI_EXIT_NO_TABLE);
    }
    if (module.bytes < sizeof *table || (module.start & (PLATFORM_PAGE_BYTES - 1)) != 0 ||
        !paging_map(module.start, LOAM_ABI_BYTES)) {
        give_up("the host table is too short, misaligned or out of reach", LOAM_ABI_EXIT_FAIL);
    }
    table = (struct loam_abi_table *)(uintptr_t)module.start;
    if (table->magic != LOAM_ABI_MAGIC || table->version != LOAM_ABI_VERSION) {
        give_up("the host table is of another version, or none", LOAM_ABI_EXIT_FAIL);
    }
    if (table->range_count > LOAM_ABI_RANGE_MAX || !ranges_known(table)) {
        give_up("the host table lists more ranges than it holds, or one of no kind", LOAM_ABI_EXIT_FAIL);
    }
    return table;
}

_Noreturn void guest_main(uint64_t start_info)
{
    static const uint8_t order[] = LOAM_ABI_ORDER;
    struct loam_abi_table *table;
    bool passed = true;

    exceptions_install("loam self-test");
    paging_init();
    table = find_table(start_info);
    for (uint32_t i = 0; i < sizeof order; i++) {
        passed = run_check(table, order[i]) && passed;
    }
    ring_doorbell(LOAM_ABI_EVENT_END, 0);
    platform_exit(passed ? LOAM_ABI_EXIT_PASS : LOAM_ABI_EXIT_FAIL);
}
