// SPDX-License-Identifier: Apache-2.0
/* A guest writes to a known set of pages, and devices to others: the harvest is exactly that, and each page is told of once. */
#include "vmm/write_log.h"

#include "tests/vmm/random.h"
#include "vmm/kvm.h"
#include "vmm/machine.h"
#include "vmm/vcpu.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define SEED       UINT64_C(44)
#define PAGE_BYTES UINT64_C(4096)
#define RAM_BYTES  (24 * LOAM_MIB)
#define LOW_BYTES  (8 * LOAM_MIB)
#define CODE       UINT64_C(0x10000)
#define LIST       UINT64_C(0x20000)
#define HIGH       (4 * LOAM_GIB)

/* Without paging, so that there are no page tables whose bits KVM sets: store to each address of the list, then end. */
static const uint8_t code[] = {
    0xbe, 0x00, 0x00, 0x02, 0x00, /* mov esi, LIST */
    0x8b, 0x3e,                   /* mov edi, [esi] */
    0x85, 0xff,                   /* test edi, edi */
    0x74, 0x07,                   /* jz end */
    0x89, 0x07,                   /* mov [edi], eax */
    0x83, 0xc6, 0x04,             /* add esi, 4 */
    0xeb, 0xf3,                   /* jmp back */
    0xb0, 0x00, 0xe6, 0xf4, 0xf4, /* end: mov al, 0; out 0xf4, al; hlt */
};

static struct loam_plan plan;
static struct loam_memory *memory;
static struct machine *machine;
static uint8_t told[(HIGH + RAM_BYTES) / PAGE_BYTES]; /* how often each page was */

static void put(uint64_t gpa, const void *bytes, size_t count)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));

    cr_assert_eq(loam_gpa_view_write(view, loam_gpa_from_u64(gpa), bytes, count), LOAM_OK);
    loam_gpa_map_release(loam_memory_map(memory), view);
}

static void set_up(void)
{
    const struct loam_memory_request request = {
        .bytes = RAM_BYTES, .low_limit_bytes = LOW_BYTES, .pages = LOAM_PAGES_4K};
    const struct boot_state boot = {.protocol = BOOT_PVH, .entry = CODE, .without_interrupts = true};
    const struct machine_config config = {.vcpu_count = 1, .boot = &boot};
    struct machine_config made = config;
    struct loam_diag diag = {0};

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    put(CODE, code, sizeof code);
    made.memory = memory;
    cr_assert_eq(machine_create(&made, &machine, &diag), LOAM_OK, "%s", diag.text);
}

static void tear_down(void)
{
    machine_destroy(machine);
    loam_memory_destroy(memory);
}

TestSuite(write_log, .init = set_up, .fini = tear_down, .timeout = 60);

static enum loam_error tell(void *self, uint64_t gpa, uint64_t bytes, struct loam_diag *diag)
{
    (void)self;
    (void)diag;
    cr_assert_eq(gpa % PAGE_BYTES, 0);
    cr_assert_eq(bytes % PAGE_BYTES, 0);
    for (uint64_t page = gpa / PAGE_BYTES; page < (gpa + bytes) / PAGE_BYTES; page++) {
        told[page]++;
    }
    return LOAM_OK;
}

static uint64_t harvest(void)
{
    struct loam_diag diag = {0};
    uint64_t count;

    memset(told, 0, sizeof told);
    cr_assert_eq(machine_log_harvest(machine, tell, NULL, &count, &diag), LOAM_OK, "%s", diag.text);
    return count;
}

static void start_log(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(machine_log_start(machine, &diag), LOAM_OK, "%s", diag.text);
}

/* To its end. */
static void run_guest(void)
{
    struct pollfd stop = {.fd = machine_stop_fd(machine), .events = POLLIN};
    struct machine_result result;
    struct loam_diag diag = {0};

    cr_assert_eq(machine_start(machine, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(poll(&stop, 1, 30000), 1);
    machine_wait(machine, &result);
    cr_assert_eq(result.reason, MACHINE_STOP_EXIT, "%s%s", result.cause, result.report);
}

/* Pages from 1 MiB up to the hole. */
static uint32_t choose(uint32_t *list, bool *chosen)
{
    struct random random = {SEED};
    uint32_t count = 0;

    for (; count < 500; count++) {
        uint64_t page = LOAM_MIB / PAGE_BYTES + random_below(&random, (LOW_BYTES - LOAM_MIB) / PAGE_BYTES);

        list[count] = (uint32_t)(page * PAGE_BYTES + random_below(&random, 1000) * 4);
        chosen[page] = true;
    }
    list[count] = 0;
    return count;
}

Test(write_log, tells_of_what_was_written_and_of_nothing_else)
{
    static bool chosen[(HIGH + RAM_BYTES) / PAGE_BYTES];
    uint32_t list[501], count = choose(list, chosen);

    put(LIST, list, (count + 1) * sizeof list[0]);
    start_log();
    cr_expect_eq(harvest(), 0, "nothing has run");
    run_guest();
    cr_expect_gt(harvest(), 0);
    for (uint64_t page = 0; page < sizeof told; page++) {
        cr_assert_eq(told[page], chosen[page], "page %" PRIu64 ", seed %" PRIu64, page, SEED);
    }
    cr_expect_eq(harvest(), 0, "each is told of once");
    machine_log_stop(machine);
}

/* What devices write, on either side of the hole, KVM does not see. */
Test(write_log, tells_of_what_devices_mark)
{
    struct loam_dirty *dirty = machine_vcpu(machine, 0)->dirty;

    (void)loam_dirty_mark(dirty, loam_gpa_from_u64(5 * PAGE_BYTES), 1);
    start_log();
    cr_expect_eq(harvest(), 0, "what was marked before is of no interest");
    (void)loam_dirty_mark(dirty, loam_gpa_from_u64(LOW_BYTES - 1), 1);
    (void)loam_dirty_mark(dirty, loam_gpa_from_u64(HIGH + 7 * PAGE_BYTES + 4000), 200);
    cr_expect_eq(harvest(), 3);
    cr_expect(told[LOW_BYTES / PAGE_BYTES - 1] == 1 && told[HIGH / PAGE_BYTES + 7] == 1 &&
              told[HIGH / PAGE_BYTES + 8] == 1);
    cr_expect_eq(harvest(), 0);
    machine_log_stop(machine);
}

/* On and off again, and slots are as they were. */
Test(write_log, leaves_no_trace)
{
    const struct loam_gpa_view *view;
    struct loam_region region;

    for (int i = 0; i < 5; i++) {
        start_log();
        machine_log_stop(machine);
    }
    machine_log_stop(machine);
    view = loam_gpa_map_acquire(loam_memory_map(memory));
    for (uint32_t i = 0; loam_gpa_view_region(view, i, &region) == LOAM_OK; i++) {
        cr_expect_not(region.log_dirty);
    }
    loam_gpa_map_release(loam_memory_map(memory), view);
    run_guest();
}
