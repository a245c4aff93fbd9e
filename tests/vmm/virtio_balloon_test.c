// SPDX-License-Identifier: Apache-2.0
/* Over real guest memory, of which the host is asked what is there. */
#include "vmm/virtio_balloon.h"

#include "tests/support/waiter.h"
#include "tests/vmm/random.h"
#include "tests/vmm/virtio_station.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIZE = 16, PAGE = 4096, QUEUES = VIRTIO_BALLOON_QUEUE_COUNT };

#define MEMORY_BYTES (8 * LOAM_MIB)
#define RINGS_GPA    (2 * LOAM_MIB) /* a page for each queue */
#define NUMBERS_GPA  (2 * LOAM_MIB + 0x10000)
#define FREE_GPA     (4 * LOAM_MIB) /* from here on nobody has anything */
#define FREE_PAGE    (FREE_GPA / PAGE)
#define FREE_PAGES   ((MEMORY_BYTES - FREE_GPA) / PAGE)
#define ALL_FEATURES (VIRTIO_BALLOON_F_DEFLATE_ON_OOM | VIRTIO_BALLOON_F_REPORTING)

static struct loam_memory *memory;
static struct virtio_guest guest;
static struct virtio_station station;
static struct virtio_driver drivers[QUEUES];
static struct virtio_balloon balloon;

static struct {
    unsigned count;
    uint32_t actual;
} changes;

static void note_change(void *self, uint32_t actual_pages)
{
    cr_assert_eq(self, &changes);
    changes.count++;
    changes.actual = actual_pages;
}

/* --- The host's call ---------------------------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;
    size_t most_bytes;
    bool is_closed;
    bool is_held;
} host = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int __real_madvise(void *address, size_t bytes, int advice);
int __wrap_madvise(void *address, size_t bytes, int advice);

int __wrap_madvise(void *address, size_t bytes, int advice)
{
    if (advice == MADV_REMOVE || advice == MADV_DONTNEED) {
        pthread_mutex_lock(&host.lock);
        host.count++;
        host.most_bytes = bytes > host.most_bytes ? bytes : host.most_bytes;
        while (host.is_closed) {
            host.is_held = true;
            pthread_cond_broadcast(&host.changed);
            pthread_cond_wait(&host.changed, &host.lock);
        }
        host.is_held = false;
        pthread_mutex_unlock(&host.lock);
    }
    return __real_madvise(address, bytes, advice);
}

static void set_gate(bool is_closed)
{
    pthread_mutex_lock(&host.lock);
    host.is_closed = is_closed;
    pthread_cond_broadcast(&host.changed);
    pthread_mutex_unlock(&host.lock);
}

static void await_held(void)
{
    pthread_mutex_lock(&host.lock);
    while (!host.is_held) {
        pthread_cond_wait(&host.changed, &host.lock);
    }
    pthread_mutex_unlock(&host.lock);
}

/* --- Memory, balloon, driver --------------------------------------------------------------------------------------- */

/* false: the host has no such memory. */
static bool make_memory(const struct loam_memory_request *request)
{
    static struct loam_plan plan;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_plan_make(request, &plan, &diag), LOAM_OK, "%s", diag.text);
    if (plan.short_count > 0) {
        return false;
    }
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    virtio_guest_init_over(&guest, loam_memory_map(memory));
    return true;
}

static void bring_up(uint64_t features)
{
    struct virtqueue_config configs[QUEUES];

    for (uint32_t i = 0; i < QUEUES; i++) {
        virtio_driver_init(&drivers[i], &guest, SIZE, RINGS_GPA + UINT64_C(0x1000) * i);
        configs[i] = drivers[i].config;
    }
    virtio_station_bring_up(&station, features, configs, QUEUES);
}

/* Each byte of memory from there on is not zero, so that what is given back shows. */
static void fill(void)
{
    memset(virtio_guest_at(&guest, FREE_GPA), 0xa5, MEMORY_BYTES - FREE_GPA);
}

static void make_balloon(void)
{
    const struct virtio_balloon_config config = {
        .memory = memory, .deflate_on_oom = true, .reporting = true, .changed = note_change, .self = &changes};
    struct loam_diag diag = {0};

    virtio_station_init(&station, &balloon.mmio);
    cr_assert_eq(virtio_balloon_init(&balloon, virtio_station_irq(&station), &config, &diag), LOAM_OK, "%s", diag.text);
    bring_up(ALL_FEATURES);
    fill();
}

static void end_all(void)
{
    set_gate(false);
    cr_expect(virtio_balloon_destroy(&balloon));
    virtio_station_destroy(&station);
    cr_expect_eq(loam_memory_validate(memory, NULL), LOAM_OK);
    loam_memory_destroy(memory);
}

static void set_up(void)
{
    const struct loam_memory_request request = {
        .bytes = MEMORY_BYTES, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_SHARED};

    cr_assert(make_memory(&request));
    make_balloon();
}

TestSuite(virtio_balloon, .init = set_up, .fini = end_all, .timeout = 300);

/* Suites of their own: memory as the case wants it. */
TestSuite(virtio_balloon_kinds, .timeout = 120);

static void run_over(const struct loam_memory_request *request)
{
    if (!make_memory(request)) {
        cr_skip("the host has no such memory");
    }
    make_balloon();
}

static void send(uint32_t queue, const struct virtio_buffer *buffers, uint16_t count)
{
    uint16_t head;
    uint32_t found_head, written;

    cr_assert(virtio_driver_add(&drivers[queue], buffers, count, &head));
    virtio_station_ring(&station, queue);
    virtio_station_take(&station, &drivers[queue], &found_head, &written);
    cr_assert_eq(found_head, head);
    cr_assert_eq(written, 0);
}

static void send_numbers(uint32_t queue, const uint32_t *numbers, uint32_t count)
{
    memcpy(virtio_guest_at(&guest, NUMBERS_GPA), numbers, count * sizeof numbers[0]);
    send(queue, &(struct virtio_buffer){NUMBERS_GPA, count * (uint32_t)sizeof numbers[0], false}, 1);
}

static struct virtio_balloon_stats stats(void)
{
    struct virtio_balloon_stats found;

    virtio_balloon_get_stats(&balloon, &found);
    return found;
}

/* How many of the pages from there on have memory of the host. */
static uint64_t resident(uint64_t page, uint64_t count)
{
    static unsigned char is_there[MEMORY_BYTES / PAGE];
    uint64_t found = 0;

    cr_assert_eq(mincore(virtio_guest_at(&guest, page * PAGE), count * PAGE, is_there), 0);
    for (uint64_t i = 0; i < count; i++) {
        found += is_there[i] & 1;
    }
    return found;
}

static uint8_t byte_of(uint64_t page)
{
    return *(uint8_t *)virtio_guest_at(&guest, page * PAGE + 17);
}

/* --- What it is --------------------------------------------------------------------------------------------------- */

Test(virtio_balloon, is_a_balloon_with_five_queues)
{
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_DEVICE_ID), 5);
    cr_expect_eq(virtio_station_offered(&station), VIRTIO_F_VERSION_1 | 1 << 2 | 1 << 5);
    for (uint32_t i = 0; i < QUEUES; i++) {
        virtio_station_out(&station, VIRTIO_MMIO_QUEUE_SELECT, i);
        cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_QUEUE_SIZE_MAX), VIRTIO_BALLOON_QUEUE_SIZE_MAX);
    }
    virtio_station_out(&station, VIRTIO_MMIO_QUEUE_SELECT, QUEUES);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_QUEUE_SIZE_MAX), 0);
}

Test(virtio_balloon, offers_what_it_was_given)
{
    const struct virtio_balloon_config config = {.memory = memory};

    cr_assert(virtio_balloon_destroy(&balloon));
    cr_assert_eq(virtio_balloon_init(&balloon, virtio_station_irq(&station), &config, NULL), LOAM_OK);
    cr_expect_eq(virtio_station_offered(&station), VIRTIO_F_VERSION_1);
    bring_up(0);
    virtio_station_out(&station, VIRTIO_MMIO_CONFIG + 4, 9);
    cr_expect_eq(virtio_balloon_actual(&balloon), 9, "nobody wants to know, and it is known");
    send(2, &(struct virtio_buffer){FREE_GPA, PAGE, true}, 1);
    cr_expect_eq(byte_of(FREE_PAGE), 0xa5, "reporting was not agreed upon");
    cr_expect_eq(stats().reported_pages, 0);
}

Test(virtio_balloon, without_memory_there_is_none)
{
    static struct virtio_balloon second;
    const struct virtio_balloon_config config = {.memory = NULL};
    struct loam_diag diag = {0};

    cr_expect_eq(virtio_balloon_init(&second, (struct irq_line){.set = NULL}, &config, &diag), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "balloon: the guest's memory is wanted");
}

/* --- Target and actual -------------------------------------------------------------------------------------------- */

Test(virtio_balloon, the_driver_is_told_of_the_target)
{
    const uint32_t generation = virtio_station_in(&station, VIRTIO_MMIO_CONFIG_GENERATION);

    virtio_balloon_set_target(&balloon, 700);
    cr_expect_eq(virtio_station_await(&station), VIRTIO_INTERRUPT_CONFIG);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_CONFIG), 700);
    cr_expect_neq(virtio_station_in(&station, VIRTIO_MMIO_CONFIG_GENERATION), generation);
    virtio_balloon_set_target(&balloon, 700);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_INTERRUPT_STATUS), 0, "nothing has changed");
    bring_up(0);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_CONFIG), 700, "over a reset");
    cr_expect_eq(changes.count, 0);
}

Test(virtio_balloon, the_caller_is_told_of_what_is_there)
{
    struct bus_access access = {.offset = VIRTIO_MMIO_CONFIG + 5, .bytes = 1, .is_write = true, .value = 1};

    virtio_station_out(&station, VIRTIO_MMIO_CONFIG + 4, 300);
    cr_expect_eq(changes.count, 1);
    cr_expect_eq(changes.actual, 300);
    cr_expect_eq(virtio_balloon_actual(&balloon), 300);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_CONFIG + 4), 300);
    virtio_station_out(&station, VIRTIO_MMIO_CONFIG + 4, 300);
    cr_expect_eq(changes.count, 1, "it is what it was");
    virtio_station_out(&station, VIRTIO_MMIO_CONFIG, 999);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_CONFIG), 0, "the target is not the driver's");
    cr_expect_eq(changes.count, 1);
    access = (struct bus_access){.offset = VIRTIO_MMIO_CONFIG, .bytes = 8, .is_write = true, .value = UINT64_MAX};
    virtio_mmio_access(&balloon.mmio, &access);
    cr_expect_eq(virtio_balloon_actual(&balloon), UINT32_MAX, "what a guest says is what a guest says");
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_CONFIG), 0);
    virtio_station_out(&station, VIRTIO_MMIO_STATUS, 0);
    cr_expect_eq(changes.actual, 0, "after a reset nothing is there");
    cr_expect_eq(virtio_balloon_actual(&balloon), 0);
    cr_expect_eq(changes.count, 3);
}

/* --- Giving back -------------------------------------------------------------------------------------------------- */

Test(virtio_balloon, what_is_inflated_goes_back_to_the_host)
{
    uint32_t numbers[256];
    const uint64_t before = resident(FREE_PAGE, FREE_PAGES);

    for (uint32_t i = 0; i < 256; i++) {
        numbers[i] = (uint32_t)FREE_PAGE + 2 * i; /* every other one */
    }
    send_numbers(VIRTIO_BALLOON_INFLATE, numbers, 256);
    cr_expect_eq(before, FREE_PAGES);
    cr_expect_eq(resident(FREE_PAGE, FREE_PAGES), FREE_PAGES - 256);
    cr_expect_eq(stats().inflated_pages, 256);
    cr_expect_eq(stats().given_pages, 256);
    cr_expect_eq(stats().kept_pages, 0);
    cr_expect_eq(host.count, 256);
    for (uint32_t i = 0; i < 512; i++) {
        cr_assert_eq(byte_of(FREE_PAGE + i), i % 2 == 0 ? 0 : 0xa5);
    }
    send_numbers(VIRTIO_BALLOON_DEFLATE, numbers, 256);
    cr_expect_eq(stats().deflated_pages, 256);
    cr_expect_eq(stats().given_pages, 256);
    *(uint8_t *)virtio_guest_at(&guest, FREE_GPA) = 1;
    cr_expect_eq(resident(FREE_PAGE, 1), 1, "it has memory again");
}

/* Linux names them downwards as often as upwards. */
Test(virtio_balloon, pages_side_by_side_go_back_by_one_call)
{
    uint32_t numbers[400];

    for (uint32_t i = 0; i < 100; i++) {
        numbers[i] = (uint32_t)FREE_PAGE + i;
        numbers[100 + i] = (uint32_t)FREE_PAGE + 399 - i;
        numbers[200 + i] = (uint32_t)FREE_PAGE + 500 + i;
        numbers[300 + i] = (uint32_t)FREE_PAGE + 600 + i;
    }
    send_numbers(VIRTIO_BALLOON_INFLATE, numbers, 400);
    cr_expect_eq(host.count, 3);
    cr_expect_eq(stats().given_pages, 400);
    cr_expect_eq(resident(FREE_PAGE, FREE_PAGES), FREE_PAGES - 400);
    cr_expect_eq(byte_of(FREE_PAGE + 100), 0xa5);
    cr_expect_eq(byte_of(FREE_PAGE + 299), 0xa5);
    cr_expect_eq(byte_of(FREE_PAGE + 700), 0xa5);
}

Test(virtio_balloon, what_is_reported_goes_back_whichever_number_the_queue_has)
{
    for (uint32_t queue = VIRTIO_BALLOON_REPORT_FIRST; queue < QUEUES; queue++) {
        const uint64_t gpa = FREE_GPA + UINT64_C(0x100000) * (queue - VIRTIO_BALLOON_REPORT_FIRST);
        const struct virtio_buffer buffers[] = {
            {gpa, 0x10000, true}, {gpa + 0x20000 - 1, 3 * PAGE, true}, {gpa + 0x40000, PAGE - 1, true}};

        send(queue, buffers, 3);
        cr_expect_eq(resident(gpa / PAGE, 256), 256 - 16 - 2);
        cr_expect_eq(byte_of((gpa + 0x1f000) / PAGE), 0xa5);
        cr_expect_eq(byte_of((gpa + 0x40000) / PAGE), 0xa5);
    }
    cr_expect_eq(stats().reported_pages, 54);
    cr_expect_eq(stats().given_pages, 54);
    cr_expect_eq(stats().inflated_pages, 0);
}

static struct loam_dma_buffer carve(uint64_t gpa, uint64_t bytes)
{
    const struct loam_dma_request request = {
        .owner = "device", .bytes = bytes, .at = {gpa}, .flags = LOAM_DMA_AT | LOAM_DMA_NO_ZERO};
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, &diag), LOAM_OK, "%s", diag.text);
    return buffer;
}

Test(virtio_balloon, pinned_buffers_stay)
{
    const struct loam_dma_buffer one = carve(FREE_GPA + 4 * PAGE, 2 * PAGE);
    const struct loam_dma_buffer other = carve(FREE_GPA + 8 * PAGE, 4 * PAGE);

    cr_assert_eq(loam_dma_pin(loam_memory_dma(memory), one.id), LOAM_OK);
    cr_assert_eq(loam_dma_pin(loam_memory_dma(memory), other.id), LOAM_OK);
    send(4, &(struct virtio_buffer){FREE_GPA, 10 * PAGE, true}, 1);
    cr_expect_eq(stats().given_pages, 6);
    cr_expect_eq(stats().kept_pages, 4);
    for (uint32_t i = 0; i < 12; i++) {
        cr_expect_eq(byte_of(FREE_PAGE + i), i < 4 || i == 6 || i == 7 ? 0 : 0xa5, "page %u", i);
    }
    send_numbers(VIRTIO_BALLOON_INFLATE, (uint32_t[]){FREE_PAGE + 9, FREE_PAGE + 5}, 2);
    cr_expect_eq(stats().given_pages, 6);
    cr_assert_eq(loam_dma_unpin(loam_memory_dma(memory), one.id), LOAM_OK);
    send_numbers(VIRTIO_BALLOON_INFLATE, (uint32_t[]){FREE_PAGE + 9, FREE_PAGE + 5}, 2);
    cr_expect_eq(stats().given_pages, 7, "what is carved and not pinned is the guest's");
    cr_expect_eq(byte_of(FREE_PAGE + 5), 0);
    cr_assert_eq(loam_dma_unpin(loam_memory_dma(memory), other.id), LOAM_OK);
}

/* What the guest could not overwrite, it cannot lose. */
Test(virtio_balloon, what_is_no_ram_of_the_guests_stays)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_dma_request acpi = {.owner = "acpi",
                                          .bytes = PAGE,
                                          .at = {FREE_GPA + 20 * PAGE},
                                          .flags = LOAM_DMA_AT | LOAM_DMA_NO_ZERO | LOAM_DMA_RESERVED};
    const struct loam_region device = {.start = {MEMORY_BYTES + PAGE}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};
    const struct loam_region own = {.start = {MEMORY_BYTES + 2 * PAGE},
                                    .bytes = PAGE,
                                    .hva = virtio_guest_at(&guest, FREE_GPA + 30 * PAGE),
                                    .type = LOAM_REGION_RAM,
                                    .access = LOAM_ACCESS_WRITE};
    struct loam_dma_buffer buffer;
    const uint32_t numbers[] = {FREE_PAGE + 10,
                                FREE_PAGE + 20,
                                MEMORY_BYTES / PAGE,
                                MEMORY_BYTES / PAGE + 1,
                                MEMORY_BYTES / PAGE + 2,
                                UINT32_MAX,
                                0xa0,
                                0x80000,
                                FREE_PAGE + 11};

    cr_assert_eq(loam_gpa_map_protect(map, loam_gpa_from_u64(FREE_GPA + 10 * PAGE), PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &acpi, &buffer, NULL), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &device), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &own), LOAM_OK);
    memset(virtio_guest_at(&guest, 0xa0000), 0xa5, PAGE);
    send_numbers(VIRTIO_BALLOON_INFLATE, numbers, sizeof numbers / sizeof numbers[0]);
    cr_expect_eq(stats().given_pages, 1);
    cr_expect_eq(stats().kept_pages, 8);
    cr_expect_eq(byte_of(FREE_PAGE + 10), 0xa5);
    cr_expect_eq(byte_of(FREE_PAGE + 11), 0);
    cr_expect_eq(byte_of(FREE_PAGE + 20), 0xa5);
    cr_expect_eq(byte_of(FREE_PAGE + 30), 0xa5);
    cr_expect_eq(byte_of(0xa0), 0xa5);
    send(4, &(struct virtio_buffer){FREE_GPA + 19 * PAGE, PAGE, true}, 1);
    cr_expect_eq(byte_of(FREE_PAGE + 19), 0);
    cr_assert_eq(loam_gpa_map_remove(map, own.start, PAGE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, loam_gpa_from_u64(FREE_GPA + 10 * PAGE), PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
}

/* A run that goes from RAM over a hole, and comes to an end beyond all memory. */
Test(virtio_balloon, a_run_may_go_anywhere)
{
    uint32_t numbers[512];

    for (uint32_t i = 0; i < 512; i++) {
        numbers[i] = (uint32_t)(MEMORY_BYTES / PAGE) - 256 + i;
    }
    send_numbers(VIRTIO_BALLOON_INFLATE, numbers, 512);
    cr_expect_eq(stats().given_pages, 256);
    cr_expect_eq(stats().kept_pages, 256);
    cr_expect_eq(resident(FREE_PAGE, FREE_PAGES), FREE_PAGES - 256);
}

Test(virtio_balloon, one_chain_is_bounded_work)
{
    struct virtio_buffer buffers[2];

    for (uint32_t i = 0; i < 0x1000; i++) {
        ((uint32_t *)virtio_guest_at(&guest, NUMBERS_GPA))[i] = (uint32_t)FREE_PAGE + (i % 2 == 0 ? 0 : 5);
    }
    for (uint32_t i = 0; i < 2; i++) {
        buffers[i] = (struct virtio_buffer){NUMBERS_GPA, 0x4000, false};
    }
    send(VIRTIO_BALLOON_INFLATE, buffers, 2);
    cr_expect_eq(host.count, VIRTIO_BALLOON_CHAIN_PAGES);
    cr_expect_eq(stats().inflated_pages, 2 * 0x1000);
    cr_expect_eq(stats().given_pages, VIRTIO_BALLOON_CHAIN_PAGES);
    cr_expect_eq(stats().kept_pages, 2 * 0x1000 - VIRTIO_BALLOON_CHAIN_PAGES);
}

Test(virtio_balloon, chains_that_make_no_sense_come_back)
{
    const struct virtio_buffer odd[] = {{NUMBERS_GPA, 3, false}, {NUMBERS_GPA + 0x100, 4, false}};

    *(uint32_t *)virtio_guest_at(&guest, NUMBERS_GPA) = FREE_PAGE;
    *(uint8_t *)virtio_guest_at(&guest, NUMBERS_GPA + 0x100) = 0;
    send(VIRTIO_BALLOON_INFLATE, &(struct virtio_buffer){NUMBERS_GPA, 3, false}, 1);
    send(VIRTIO_BALLOON_INFLATE, &(struct virtio_buffer){FREE_GPA, PAGE, true}, 1);
    send(VIRTIO_BALLOON_DEFLATE, &(struct virtio_buffer){FREE_GPA, PAGE, true}, 1);
    send(4, &(struct virtio_buffer){NUMBERS_GPA, 4, false}, 1);
    cr_expect_eq(stats().given_pages, 0);
    cr_expect_eq(byte_of(FREE_PAGE), 0xa5);
    send(VIRTIO_BALLOON_INFLATE, odd, 2);
    cr_expect_eq(stats().given_pages, 1, "one number over two buffers, and three bytes of another");
    cr_expect_eq(byte_of(FREE_PAGE), 0);
    cr_expect_eq(virtio_station_in(&station, VIRTIO_MMIO_STATUS), 0x0f);
}

/* --- Resets and pauses -------------------------------------------------------------------------------------------- */

static void reset(void *self)
{
    virtio_station_out(self, VIRTIO_MMIO_STATUS, 0);
}

Test(virtio_balloon, a_reset_waits_for_one_call_and_drops_the_rest)
{
    uint32_t numbers[64];
    struct waiter waiter;
    uint16_t head;

    for (uint32_t i = 0; i < 64; i++) {
        numbers[i] = (uint32_t)FREE_PAGE + 2 * i;
    }
    memcpy(virtio_guest_at(&guest, NUMBERS_GPA), numbers, sizeof numbers);
    set_gate(true);
    cr_assert(virtio_driver_add(&drivers[0], &(struct virtio_buffer){NUMBERS_GPA, sizeof numbers, false}, 1, &head));
    virtio_station_ring(&station, 0);
    await_held();
    waiter_start(&waiter, reset, &station);
    cr_expect(waiter_sleeps(&waiter));
    while (!virtio_worker_must_stop(&balloon.worker)) {
        sched_yield();
    }
    set_gate(false);
    waiter_join(&waiter);
    cr_expect_eq(virtio_guest_get_16(&guest, drivers[0].config.used.value + 2), 0);
    cr_expect_eq(stats().given_pages, 1);
    cr_expect_eq(stats().kept_pages, 63);
}

Test(virtio_balloon, nothing_is_given_back_while_quiesced)
{
    uint16_t head;
    uint32_t found, written;

    *(uint32_t *)virtio_guest_at(&guest, NUMBERS_GPA) = FREE_PAGE;
    virtio_balloon_quiesce(&balloon);
    cr_assert(virtio_driver_add(&drivers[0], &(struct virtio_buffer){NUMBERS_GPA, 4, false}, 1, &head));
    virtio_station_ring(&station, 0);
    for (int i = 0; i < 200; i++) {
        sched_yield();
    }
    cr_expect_eq(byte_of(FREE_PAGE), 0xa5);
    virtio_balloon_resume(&balloon);
    virtio_station_take(&station, &drivers[0], &found, &written);
    cr_expect_eq(byte_of(FREE_PAGE), 0);
}

/* --- Kinds of memory ---------------------------------------------------------------------------------------------- */

/* Inflate and report: what is there afterwards, of 64 pages? */
static void expect_given(uint64_t given)
{
    uint32_t numbers[32];

    for (uint32_t i = 0; i < 32; i++) {
        numbers[i] = (uint32_t)FREE_PAGE + i;
    }
    send_numbers(VIRTIO_BALLOON_INFLATE, numbers, 32);
    send(4, &(struct virtio_buffer){FREE_GPA + 32 * PAGE, 32 * PAGE, true}, 1);
    cr_expect_eq(stats().given_pages, given);
    cr_expect_eq(stats().kept_pages, 64 - given);
    for (uint32_t i = 0; i < 65; i++) {
        cr_assert_eq(byte_of(FREE_PAGE + i), i < given ? 0 : 0xa5, "page %u", i);
    }
    memset(virtio_guest_at(&guest, FREE_GPA), 0x11, 64 * PAGE);
}

Test(virtio_balloon_kinds, private_memory)
{
    const struct loam_memory_request request = {
        .bytes = MEMORY_BYTES, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_PRIVATE};

    run_over(&request);
    expect_given(64);
    end_all();
}

Test(virtio_balloon_kinds, memory_that_comes_when_it_is_touched)
{
    const struct loam_memory_request request = {
        .bytes = MEMORY_BYTES, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_SHARED, .commit = LOAM_COMMIT_LAZY};

    run_over(&request);
    expect_given(64);
    end_all();
}

Test(virtio_balloon_kinds, transparent_huge_pages)
{
    const struct loam_memory_request request = {
        .bytes = MEMORY_BYTES, .pages = LOAM_PAGES_THP, .sharing = LOAM_SHARING_PRIVATE};

    run_over(&request);
    expect_given(64);
    end_all();
}

/* With the pool empty, a guest that touched what was given back would end by SIGBUS. */
Test(virtio_balloon_kinds, hugetlb_pages_stay)
{
    const struct loam_memory_request request = {.bytes = MEMORY_BYTES, .pages = LOAM_PAGES_2M};

    run_over(&request);
    expect_given(0);
    send(4, &(struct virtio_buffer){FREE_GPA, 2 * LOAM_MIB, true}, 1);
    cr_expect_eq(stats().given_pages, 0, "a whole one neither");
    end_all();
}

Test(virtio_balloon_kinds, locked_memory_stays)
{
    const struct loam_memory_request request = {.bytes = MEMORY_BYTES, .pages = LOAM_PAGES_4K, .lock = true};

    run_over(&request);
    expect_given(0);
    cr_expect_eq(host.count, 0);
    end_all();
}

/* As -overcommit mem-lock has it: of which the backing knows nothing, but the kernel does. */
Test(virtio_balloon_kinds, memory_of_a_locked_process_stays)
{
    const struct loam_memory_request request = {
        .bytes = MEMORY_BYTES, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_SHARED};
    void *hva;

    if (!make_memory(&request)) {
        cr_skip("the host has no such memory");
    }
    hva = virtio_guest_at(&guest, 0);
    if (syscall(SYS_mlock, hva, MEMORY_BYTES) != 0) { /* past sanitizers, which lock nothing */
        loam_memory_destroy(memory);
        cr_skip("the memory cannot be locked: %s", strerror(errno));
    }
    make_balloon();
    expect_given(0);
    end_all();
}

Test(virtio_balloon_kinds, adopted_memory_stays)
{
    const int fd = memfd_create("owners", MFD_CLOEXEC);
    const struct loam_memory_request request = {
        .bytes = MEMORY_BYTES,
        .part_count = 1,
        .parts = {{.bytes = MEMORY_BYTES, .pages = LOAM_PAGES_4K, .adoption = LOAM_ADOPTION_FD, .fd = fd}},
    };

    cr_assert_eq(ftruncate(fd, MEMORY_BYTES), 0);
    run_over(&request);
    expect_given(0);
    cr_expect_eq(host.count, 0);
    end_all();
    close(fd);
}

/* --- Random chains, against a model ------------------------------------------------------------------------------- */

enum { ROUNDS = 5000, SEED = 20250714 };

static bool model_given[MEMORY_BYTES / PAGE];

static uint32_t random_page(struct random *random)
{
    static const uint32_t odd[] = {UINT32_MAX, UINT32_MAX - 1, MEMORY_BYTES / PAGE, MEMORY_BYTES / PAGE - 1, 0xc0000};

    return random_one_in(random, 16) ? odd[random_below(random, 5)]
                                     : (uint32_t)FREE_PAGE + random_below(random, FREE_PAGES);
}

static void note_given(uint64_t page)
{
    if (page < MEMORY_BYTES / PAGE) {
        model_given[page] = true;
    }
}

static void inflate_random(struct random *random)
{
    uint32_t numbers[64];
    const uint32_t count = 1 + random_below(random, 64);

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t step = random_below(random, 3);

        numbers[i] = i == 0 || step == 0 ? random_page(random) : numbers[i - 1] + (step == 1 ? 1 : UINT32_MAX);
        if (numbers[i] < FREE_PAGE) {
            numbers[i] = FREE_PAGE;
        }
        note_given(numbers[i]);
    }
    send_numbers(VIRTIO_BALLOON_INFLATE, numbers, count);
}

static void report_random(struct random *random)
{
    struct virtio_buffer buffers[8];
    const uint16_t count = (uint16_t)(1 + random_below(random, 8));

    for (uint16_t i = 0; i < count; i++) {
        const uint64_t bytes = 1 + random_below(random, 20 * PAGE);
        const uint64_t gpa = FREE_GPA + random_below(random, (uint32_t)(MEMORY_BYTES - FREE_GPA - bytes));

        buffers[i] = (struct virtio_buffer){gpa, (uint32_t)bytes, true};
    }
    send(VIRTIO_BALLOON_REPORT_FIRST + random_below(random, 3), buffers, count);
    for (uint16_t i = 0; i < count; i++) {
        for (uint64_t page = buffers[i].gpa / PAGE; page < (buffers[i].gpa + buffers[i].bytes + PAGE - 1) / PAGE;
             page++) {
            if (page * PAGE >= buffers[i].gpa && (page + 1) * PAGE <= buffers[i].gpa + buffers[i].bytes) {
                note_given(page);
            }
        }
    }
}

Test(virtio_balloon, random_chains_give_back_what_a_model_says)
{
    struct random random = {SEED};
    uint8_t *bytes = virtio_guest_at(&guest, 0); /* in one piece */

    for (uint32_t round = 0; round < ROUNDS; round++) {
        memset(model_given, 0, sizeof model_given);
        if (random_one_in(&random, 2)) {
            inflate_random(&random);
        } else {
            report_random(&random);
        }
        for (uint64_t page = FREE_PAGE; page < MEMORY_BYTES / PAGE; page++) {
            const uint8_t expected = model_given[page] ? 0 : 0xa5;

            if (bytes[page * PAGE + 17] != expected) {
                cr_assert_fail("seed %u, round %u, page %#lx", SEED, round, page);
            }
            bytes[page * PAGE + 17] = 0xa5;
        }
    }
    cr_expect_eq(stats().given_pages + stats().kept_pages, stats().inflated_pages + stats().reported_pages);
    cr_expect_gt(stats().given_pages, ROUNDS);
    cr_expect_gt(stats().kept_pages, ROUNDS / 16);
}

/* --- Hostile rings ------------------------------------------------------------------------------------------------ */

enum { RING_ROUNDS = 4000, RING_SEED = 20250715 };

static void spoil(struct random *random, const struct virtqueue_config *config)
{
    static const uint64_t places[] = {FREE_GPA, NUMBERS_GPA, 0x90000, 0xa0000, MEMORY_BYTES - 8, UINT64_MAX - 8};

    for (uint32_t i = 0; i < config->size; i++) {
        const uint32_t flags = random_one_in(random, 64) ? (uint32_t)random_u64(random) : 2u * random_below(random, 2);

        virtio_guest_put_descriptor(&guest, config->descriptors.value, (uint16_t)i,
                                    places[random_below(random, random_one_in(random, 32) ? 6 : 4)],
                                    random_one_in(random, 128) ? (uint32_t)random_u64(random)
                                                               : random_below(random, 2 * PAGE),
                                    (uint16_t)(flags | (random_one_in(random, 3) ? VIRTQ_DESC_F_NEXT : 0)),
                                    (uint16_t)random_below(random, config->size + random_one_in(random, 64)));
        virtio_guest_put_16(&guest, config->available.value + 4 + UINT64_C(2) * i,
                            (uint16_t)random_below(random, config->size + random_one_in(random, 64)));
    }
}

static void await_idle(void)
{
    bool is_idle = false;

    while (!is_idle) {
        virtio_mmio_lock(&balloon.mmio);
        is_idle = balloon.worker.rung == 0 && !balloon.worker.is_serving;
        virtio_mmio_unlock(&balloon.mmio);
        sched_yield();
    }
}

Test(virtio_balloon, hostile_rings_lose_nothing_but_the_guests_own)
{
    struct random random = {RING_SEED};
    uint32_t reset_count = 0;

    memset(virtio_guest_at(&guest, 0xa0000), 0x5a, 0x60000);
    for (uint32_t round = 0; round < RING_ROUNDS; round++) {
        const uint32_t queue = random_below(&random, QUEUES);

        if (virtio_station_in(&station, VIRTIO_MMIO_STATUS) != 0x0f || random_one_in(&random, 256)) {
            bring_up(ALL_FEATURES);
            reset_count++;
        }
        for (uint32_t i = 0; i < 64; i++) {
            ((uint32_t *)virtio_guest_at(&guest, NUMBERS_GPA))[i] =
                random_one_in(&random, 2) ? 0xa0 + random_below(&random, 0x60) : random_page(&random);
        }
        spoil(&random, &drivers[queue].config);
        virtio_guest_put_16(&guest, drivers[queue].config.available.value + 2,
                            (uint16_t)(balloon.mmio.queues[queue].next_available + random_below(&random, SIZE + 1)));
        virtio_station_ring(&station, queue);
        await_idle();
        virtio_station_out(&station, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
    }
    for (uint64_t gpa = 0xa0000; gpa < 0x100000; gpa += 64) {
        cr_assert_eq(*(uint8_t *)virtio_guest_at(&guest, gpa), 0x5a, "GPA %#lx", gpa);
    }
    cr_expect_gt(reset_count, RING_ROUNDS / 64);
    cr_expect_gt(stats().given_pages, RING_ROUNDS / 4);
    cr_expect_gt(stats().kept_pages, RING_ROUNDS / 4);
}
