// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants
 *   - check order_index of LOAM_ABI_ORDER is the next to begin, or has begun if is_running.
 *   - finished[c] implies that outcomes[c] is final.
 *   - while vCPUs run, all of attest from the logs on is under lock: the doorbell and the probed ranges are devices each
 *     for itself, and a check reads the logs.
 */
#include "vmm/attest.h"

#include "vmm/promises.h"
#include "vmm/sabotage.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE_BYTES UINT64_C(4096)

static const uint32_t order[LOAM_ABI_CHECK_COUNT] = LOAM_ABI_ORDER;

/* Accesses that reached the host in a range where they must. */
struct probe_log {
    pthread_mutex_t *lock; /* attest's */
    const struct loam_abi_range *range;
    uint64_t read_count;
    uint64_t write_count;
    uint64_t wrong_count; /* of another width, value or place than the guest's probes have */
};

struct attest {
    attest_report_fn *report;
    void *self;
    struct promises promises;
    pthread_mutex_t lock;
    struct probe_log readonly_log, hole_logs[2];
    uint32_t hole_count;
    uint32_t order_index;
    bool is_running;
    uint64_t begun_nanoseconds;
    bool finished[LOAM_ABI_CHECK_COUNT];
    struct attest_outcome outcomes[LOAM_ABI_CHECK_COUNT];
};

/* --- Pure helpers -------------------------------------------------------------------------------------------- */

static uint64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- The host's view of each check --------------------------------------------------------------------------- */

/* Whether the host agrees; if not, text says why. */
typedef bool host_check_fn(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes);

static bool differs(char *text, size_t bytes, const char *what, uint64_t expected, uint64_t found)
{
    snprintf(text, bytes, "host: %" PRIu64 " %s expected, guest reports %" PRIu64, expected, what, found);
    return false;
}

static bool check_ram_figures(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    uint64_t expected =
        promises_bytes(&attest->promises, LOAM_ABI_KIND_RAM) - promises_bytes(&attest->promises, LOAM_ABI_KIND_KEPT);

    return result->bytes == expected || differs(text, bytes, "bytes of RAM", expected, result->bytes);
}

/* Compare [start, start + bytes) with the pattern of seed, through the HVA. */
static bool holds_pattern(struct attest *attest, const struct loam_abi_range *range, char *text, size_t bytes)
{
    struct loam_gpa_map *map = loam_memory_map(attest->promises.memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    bool holds = true;

    for (uint64_t offset = 0; offset < range->bytes && holds; offset += sizeof(uint64_t)) {
        uint64_t gpa = range->start + offset, expected = loam_abi_pattern(range->argument, gpa), found = 0;

        holds = loam_gpa_view_load64(view, (loam_gpa){gpa}, LOAM_ORDER_ACQUIRE, &found) == LOAM_OK && found == expected;
        if (!holds) {
            snprintf(text, bytes, "host: at GPA 0x%" PRIx64 " 0x%016" PRIx64 " expected, 0x%016" PRIx64 " found", gpa,
                     expected, found);
        }
    }
    loam_gpa_map_release(map, view);
    return holds;
}

static bool check_patterns(struct attest *attest, uint32_t kind, const struct loam_abi_result *result, char *text,
                           size_t bytes)
{
    uint64_t count = promises_count(&attest->promises, kind);

    if (result->item_count != count || result->bytes != promises_bytes(&attest->promises, kind)) {
        return differs(text, bytes, "ranges", count, result->item_count);
    }
    for (uint32_t i = 0; i < attest->promises.listed.range_count; i++) {
        const struct loam_abi_range *range = &attest->promises.listed.ranges[i];

        if (range->kind == kind && !holds_pattern(attest, range, text, bytes)) {
            return false;
        }
    }
    return true;
}

static bool check_pattern(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    return check_patterns(attest, LOAM_ABI_KIND_PATTERN, result, text, bytes);
}

static bool check_echo(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    sabotage_strike(SABOTAGE_ECHOED, attest->promises.memory, &attest->promises.listed);
    return check_patterns(attest, LOAM_ABI_KIND_ECHO, result, text, bytes);
}

/* Every page of [start, end), which is in one region, holds its own address, seen through its HVA. */
static bool pages_are_aliased(struct attest *attest, const struct loam_region *region, uint64_t start, uint64_t end,
                              char *text, size_t bytes)
{
    for (uint64_t gpa = promises_skip_kept(&attest->promises, start); gpa < end;
         gpa = promises_skip_kept(&attest->promises, gpa + PAGE_BYTES)) {
        uint64_t found = *(const volatile uint64_t *)((const char *)region->hva + (gpa - region->start.value));

        if (found != gpa) {
            snprintf(text, bytes, "host: the page at GPA 0x%" PRIx64 " holds 0x%" PRIx64, gpa, found);
            return false;
        }
    }
    return true;
}

/* RAM that goes on where other memory backs it is one range to the guest; what is no RAM is none of it. */
static bool range_is_aliased(struct attest *attest, const struct loam_gpa_view *view,
                             const struct loam_abi_range *range, char *text, size_t bytes)
{
    uint64_t end = range->start + range->bytes, next;
    struct loam_region region;

    for (uint64_t gpa = range->start; gpa < end; gpa = next) {
        if (loam_gpa_view_find(view, (loam_gpa){gpa}, &region) != LOAM_OK || region.type != LOAM_REGION_RAM ||
            region.access != LOAM_ACCESS_WRITE) {
            snprintf(text, bytes, "host: RAM at GPA 0x%" PRIx64 " is not all there", range->start);
            return false;
        }
        next = region.start.value + region.bytes < end ? region.start.value + region.bytes : end;
        if (!pages_are_aliased(attest, &region, gpa, next, text, bytes)) {
            return false;
        }
    }
    return true;
}

static bool check_alias(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    struct loam_gpa_map *map = loam_memory_map(attest->promises.memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    bool agrees = check_ram_figures(attest, result, text, bytes);

    for (uint32_t i = 0; i < attest->promises.listed.range_count && agrees; i++) {
        const struct loam_abi_range *range = &attest->promises.listed.ranges[i];

        agrees = range->kind != LOAM_ABI_KIND_RAM || range_is_aliased(attest, view, range, text, bytes);
    }
    loam_gpa_map_release(map, view);
    return agrees;
}

static bool check_dma32(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    uint64_t count = promises_count(&attest->promises, LOAM_ABI_KIND_DMA32);

    for (uint32_t i = 0; i < attest->promises.listed.range_count; i++) {
        const struct loam_abi_range *range = &attest->promises.listed.ranges[i];

        if (range->kind == LOAM_ABI_KIND_DMA32 && !loam_fits(range->start, range->bytes, LOAM_DMA32_END_BYTES)) {
            snprintf(text, bytes, "host: the buffer at GPA 0x%" PRIx64 " does not end below 4 GiB", range->start);
            return false;
        }
    }
    return result->item_count == count || differs(text, bytes, "buffers", count, result->item_count);
}

/* The used ring's index counts what the device has answered (virtio 1.2, section 2.7.8). */
static bool check_ring(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    const struct loam_abi_range *used = promises_find(&attest->promises, LOAM_ABI_KIND_USED);
    struct loam_gpa_map *map = loam_memory_map(attest->promises.memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    uint16_t index;
    enum loam_error error =
        loam_gpa_view_load16(view, (loam_gpa){used->start + sizeof index}, LOAM_ORDER_ACQUIRE, &index);

    loam_gpa_map_release(map, view);
    return (error == LOAM_OK && result->item_count > 0 && index == result->item_count) ||
           differs(text, bytes, "requests answered", index, result->item_count);
}

static bool check_log(const struct probe_log *log, uint64_t read_count, char *text, size_t bytes)
{
    if (log->read_count == read_count && log->write_count == LOAM_ABI_PROBE_COUNT && log->wrong_count == 0) {
        return true;
    }
    snprintf(text, bytes,
             "host: at GPA 0x%" PRIx64 " %" PRIu64 " reads and %u writes expected, %" PRIu64 " and %" PRIu64
             " arrived, %" PRIu64 " of them wrong",
             log->range->start, read_count, LOAM_ABI_PROBE_COUNT, log->read_count, log->write_count, log->wrong_count);
    return false;
}

static bool check_readonly(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    (void)result;
    return check_log(&attest->readonly_log, 0, text, bytes) &&
           holds_pattern(attest, attest->readonly_log.range, text, bytes);
}

static bool check_hole(struct attest *attest, const struct loam_abi_result *result, char *text, size_t bytes)
{
    (void)result;
    for (uint32_t i = 0; i < attest->hole_count; i++) {
        if (!check_log(&attest->hole_logs[i], LOAM_ABI_PROBE_COUNT, text, bytes)) {
            return false;
        }
    }
    return true;
}

static const struct {
    const char *name, *items;
    host_check_fn *host_check;
} checks[LOAM_ABI_CHECK_COUNT] = {
    [LOAM_ABI_CHECK_RAM] = {"ram", "pages", check_ram_figures},
    [LOAM_ABI_CHECK_PATTERN] = {"pattern", "ranges", check_pattern},
    [LOAM_ABI_CHECK_ECHO] = {"echo", "ranges", check_echo},
    [LOAM_ABI_CHECK_ALIAS] = {"alias", "pages", check_alias},
    [LOAM_ABI_CHECK_DMA32] = {"dma32", "buffers", check_dma32},
    [LOAM_ABI_CHECK_RING] = {"ring", "requests", check_ring},
    [LOAM_ABI_CHECK_READONLY] = {"readonly", "probes", check_readonly},
    [LOAM_ABI_CHECK_HOLE] = {"hole", "probes", check_hole},
};

const char *attest_check_name(enum loam_abi_check check)
{
    return (unsigned)check < LOAM_ABI_CHECK_COUNT ? checks[check].name : "unknown";
}

/* --- The doorbell -------------------------------------------------------------------------------------------- */

static void describe_guest_failure(const struct loam_abi_result *result, char *text, size_t bytes)
{
    snprintf(text, bytes,
             "guest: %" PRIu64 " errors, first at GPA 0x%" PRIx64 ": 0x%" PRIx64 " expected, 0x%" PRIx64 " found",
             result->error_count, result->first_gpa, result->first_expected, result->first_found);
}

/* The result as the guest left it, fetched once. */
static struct loam_abi_result fetch_result(const struct attest *attest, enum loam_abi_check check)
{
    const struct loam_abi_table *table = attest->promises.table.hva;
    struct loam_abi_result result;

    memcpy(&result, &table->results[check], sizeof result);
    atomic_signal_fence(memory_order_seq_cst); /* from here on the copy is looked at, and nothing else */
    return result;
}

static void finish(struct attest *attest, enum loam_abi_check check)
{
    struct attest_outcome *outcome = &attest->outcomes[check];

    outcome->check = check;
    outcome->nanoseconds = now_nanoseconds() - attest->begun_nanoseconds;
    outcome->result = fetch_result(attest, check);
    outcome->guest_passed = outcome->result.status == LOAM_ABI_STATUS_PASS && outcome->result.error_count == 0;
    outcome->host_passed = checks[check].host_check(attest, &outcome->result, outcome->text, sizeof outcome->text);
    if (!outcome->guest_passed) {
        describe_guest_failure(&outcome->result, outcome->text, sizeof outcome->text);
    } else if (outcome->host_passed) {
        snprintf(outcome->text, sizeof outcome->text, "%" PRIu64 " %s", outcome->result.item_count,
                 checks[check].items);
    }
    attest->finished[check] = true;
    attest->is_running = false;
    attest->order_index++;
    attest->report(attest->self, check, outcome);
}

/* Events out of order, and values that are no event, are the guest's own loss: what it leaves out has failed.
 */
static void take_event(struct attest *attest, uint32_t event, uint32_t check)
{
    bool is_next = attest->order_index < LOAM_ABI_CHECK_COUNT && check == order[attest->order_index];

    if (event == LOAM_ABI_EVENT_BEGIN && is_next && !attest->is_running) {
        attest->is_running = true;
        attest->begun_nanoseconds = now_nanoseconds();
        attest->report(attest->self, check, NULL);
    } else if (event == LOAM_ABI_EVENT_STAGE && is_next && attest->is_running) {
        if (check == LOAM_ABI_CHECK_ALIAS) {
            sabotage_strike(SABOTAGE_STAGE, attest->promises.memory, &attest->promises.listed);
        }
    } else if (event == LOAM_ABI_EVENT_DONE && is_next && attest->is_running) {
        finish(attest, check);
    }
}

static void doorbell(void *device, struct bus_access *access)
{
    struct attest *attest = device;

    if (access->is_write && access->bytes == 4 && access->offset == 0) {
        pthread_mutex_lock(&attest->lock);
        take_event(attest, (uint32_t)(access->value >> 8), access->value & 0xff);
        pthread_mutex_unlock(&attest->lock);
    }
}

/* Answers reads of a hole with its pattern; counts what arrives. A read-only range's reads never come here.
 */
static void probe(void *device, struct bus_access *access)
{
    struct probe_log *log = device;
    uint64_t gpa = log->range->start + access->offset, step = log->range->bytes / LOAM_ABI_PROBE_COUNT & ~UINT64_C(7);
    bool is_right = access->bytes == 8 && access->offset % step == 0;

    pthread_mutex_lock(log->lock);
    if (access->is_write) {
        is_right = is_right && access->value == LOAM_ABI_PROBE_VALUE;
        log->write_count++;
    } else {
        access->value = loam_abi_pattern(log->range->argument, gpa);
        log->read_count++;
    }
    log->wrong_count += !is_right;
    pthread_mutex_unlock(log->lock);
}

/* --- Public -------------------------------------------------------------------------------------------------- */

enum loam_error attest_create(struct loam_memory *memory, attest_report_fn *report, void *self, struct attest **created,
                              struct loam_diag *diag)
{
    struct attest *attest = calloc(1, sizeof *attest);
    enum loam_error error;

    *created = NULL;
    if (attest == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "self-test: %zu bytes of memory", sizeof *attest);
    }
    attest->report = report;
    attest->self = self;
    error = promises_make(&attest->promises, memory, diag);
    if (error != LOAM_OK) {
        free(attest);
        return error;
    }
    pthread_mutex_init(&attest->lock, NULL);
    *created = attest;
    return LOAM_OK;
}

void attest_destroy(struct attest *attest)
{
    if (attest != NULL) {
        sabotage_end();
        promises_release(&attest->promises);
        pthread_mutex_destroy(&attest->lock);
        free(attest);
    }
}

struct boot_module attest_module(const struct attest *attest)
{
    return (struct boot_module){attest->promises.table.gpa, LOAM_ABI_BYTES, LOAM_ABI_MODULE};
}

enum loam_error attest_publish(struct attest *attest, const struct boot_state *boot, struct loam_diag *diag)
{
    return promises_publish(&attest->promises, boot, diag);
}

static enum loam_error attach_log(struct attest *attest, struct machine *machine, struct probe_log *log,
                                  const char *name, const struct loam_abi_range *range)
{
    struct bus_device device = {
        .name = name, .space = BUS_MMIO, .base = range->start, .bytes = range->bytes, .access = probe, .device = log};

    log->lock = &attest->lock;
    log->range = range;
    return bus_add(machine_bus(machine), &device);
}

enum loam_error attest_attach(struct attest *attest, struct machine *machine, struct loam_diag *diag)
{
    struct bus_device bell = {.name = "self-test doorbell",
                              .space = BUS_PIO,
                              .base = LOAM_ABI_PORT_DOORBELL,
                              .bytes = 4,
                              .access = doorbell,
                              .device = attest};
    enum loam_error error = bus_add(machine_bus(machine), &bell);

    for (uint32_t i = 0; i < attest->promises.listed.range_count && error == LOAM_OK; i++) {
        const struct loam_abi_range *range = &attest->promises.listed.ranges[i];

        if (range->kind == LOAM_ABI_KIND_READONLY) {
            error = attach_log(attest, machine, &attest->readonly_log, "self-test read-only", range);
        } else if (range->kind == LOAM_ABI_KIND_HOLE) {
            error = attach_log(attest, machine, &attest->hole_logs[attest->hole_count++], "self-test hole", range);
        }
    }
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "self-test: its devices find no place on the bus: %s", loam_error_name(error));
    }
    sabotage_strike(SABOTAGE_ATTACH, attest->promises.memory, &attest->promises.listed);
    return LOAM_OK;
}

uint32_t attest_passed_count(const struct attest *attest)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < LOAM_ABI_CHECK_COUNT; i++) {
        count += attest->finished[i] && attest->outcomes[i].guest_passed && attest->outcomes[i].host_passed;
    }
    return count;
}

const struct attest_outcome *attest_outcome(const struct attest *attest, enum loam_abi_check check)
{
    return (unsigned)check < LOAM_ABI_CHECK_COUNT && attest->finished[check] ? &attest->outcomes[check] : NULL;
}
