// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_mmio.h"

#include "tests/vmm/random.h"
#include "tests/vmm/virtio_guest.h"

#include <assert.h>
#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

enum { DEVICE_ID = 42, QUEUE_COUNT = 2, SIZE_MAX_QUEUE = 16, CONFIG_BYTES = 10 };

#define DEVICE_FEATURES UINT64_C(0x8000000300000005)

/* A device that counts what it is asked for; in use, it takes every chain and gives it back empty. */
struct probe {
    uint32_t notify_count;
    uint32_t last_queue;
    uint32_t stop_count;
    uint32_t reset_count;
    uint8_t config[CONFIG_BYTES];
};

static struct virtio_guest guest;
static struct virtio_driver driver;
static struct virtio_mmio transport;
static struct probe probe;
static bool level;
static uint32_t edge_count;

static void set_line(void *controller, unsigned int number, bool new_level)
{
    cr_assert_eq(controller, &level);
    cr_assert_eq(number, 7);
    cr_assert_neq(level, new_level, "the line is set when it changes");
    level = new_level;
    edge_count++;
}

static void probe_notify(void *self, uint32_t index)
{
    struct virtqueue *queue = virtio_mmio_queue(&transport, index);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(guest.map);
    struct loam_piece pieces[4];
    struct virtqueue_chain chain = {.pieces = pieces, .capacity = 4};
    bool pushed = false;

    cr_assert_eq(self, &probe);
    cr_assert(queue->ready, "a queue that is not ready is none of the device's business");
    probe.notify_count++;
    probe.last_queue = index;
    while (virtqueue_pop(queue, view, &chain) == LOAM_OK) {
        pushed |= virtqueue_push(queue, view, chain.head, 0) == LOAM_OK;
    }
    virtio_mmio_settle(&transport, index, view, pushed);
    loam_gpa_map_release(guest.map, view);
}

static void probe_stop(void *self, uint32_t index)
{
    cr_assert_eq(self, &probe);
    cr_assert_lt(index, QUEUE_COUNT);
    cr_assert_not(virtio_mmio_queue(&transport, index)->ready);
    probe.stop_count++;
}

static void probe_reset(void *self)
{
    cr_assert_eq(self, &probe);
    probe.reset_count++;
}

static void probe_config_read(void *self, uint32_t offset, uint8_t *data, uint32_t bytes)
{
    cr_assert_eq(self, &probe);
    cr_assert(loam_fits(offset, bytes, CONFIG_BYTES));
    memcpy(data, probe.config + offset, bytes);
}

static void probe_config_write(void *self, uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    cr_assert_eq(self, &probe);
    cr_assert(loam_fits(offset, bytes, CONFIG_BYTES));
    memcpy(probe.config + offset, data, bytes);
}

static const struct virtio_device device = {
    .self = &probe,
    .id = DEVICE_ID,
    .queue_count = QUEUE_COUNT,
    .queue_size_max = SIZE_MAX_QUEUE,
    .config_bytes = CONFIG_BYTES,
    .features = DEVICE_FEATURES & ~VIRTIO_F_VERSION_1,
    .notify = probe_notify,
    .stop = probe_stop,
    .reset = probe_reset,
    .config_read = probe_config_read,
    .config_write = probe_config_write,
};

static uint64_t access_wide(uint64_t offset, uint32_t bytes, bool is_write, uint64_t value)
{
    struct bus_access access = {.offset = offset, .bytes = bytes, .is_write = is_write, .value = value};

    virtio_mmio_access(&transport, &access);
    return access.value;
}

static uint32_t in(uint64_t offset)
{
    const uint64_t value = access_wide(offset, 4, false, UINT64_MAX);

    cr_assert_leq(value, UINT32_MAX);
    return (uint32_t)value;
}

static void out(uint64_t offset, uint32_t value)
{
    access_wide(offset, 4, true, value);
}

static void init_transport(void)
{
    const struct irq_line irq = {.set = set_line, .controller = &level, .number = 7};

    probe = (struct probe){.config = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}};
    level = false;
    edge_count = 0;
    cr_assert_eq(virtio_mmio_init(&transport, guest.map, irq, &device), LOAM_OK);
}

static void set_up(void)
{
    virtio_guest_init(&guest);
    init_transport();
}

static void tear_down(void)
{
    virtio_mmio_destroy(&transport);
    virtio_guest_destroy(&guest);
}

TestSuite(virtio_mmio, .init = set_up, .fini = tear_down);

/* --- A driver's steps (section 3.1.1) ---------------------------------------------------------------------------- */

static void write_features(uint64_t features)
{
    out(VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 0);
    out(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
    out(VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 1);
    out(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
}

static void negotiate(uint64_t features)
{
    out(VIRTIO_MMIO_STATUS, 0);
    out(VIRTIO_MMIO_STATUS, 0x01);
    out(VIRTIO_MMIO_STATUS, 0x03);
    write_features(features);
    out(VIRTIO_MMIO_STATUS, 0x0b);
}

static void write_queue(uint32_t index, const struct virtqueue_config *config)
{
    out(VIRTIO_MMIO_QUEUE_SELECT, index);
    out(VIRTIO_MMIO_QUEUE_SIZE, config->size);
    out(VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW, (uint32_t)config->descriptors.value);
    out(VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH, (uint32_t)(config->descriptors.value >> 32));
    out(VIRTIO_MMIO_QUEUE_AVAILABLE_LOW, (uint32_t)config->available.value);
    out(VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH, (uint32_t)(config->available.value >> 32));
    out(VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)config->used.value);
    out(VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(config->used.value >> 32));
}

/* All steps, with queue 1's rings high up. */
static void bring_up(void)
{
    virtio_driver_init(&driver, &guest, 8, GUEST_HIGH + 0x1000);
    negotiate(VIRTIO_F_VERSION_1 | 5);
    write_queue(1, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    out(VIRTIO_MMIO_STATUS, 0x0f);
}

static void offer(void)
{
    uint16_t head;

    cr_assert(virtio_driver_add(&driver, &(struct virtio_buffer){GUEST_LOW, 16, true}, 1, &head));
}

static void break_ring(void)
{
    virtio_guest_put_16(&guest, driver.config.available.value + 2, 0x7777);
}

/* --- Registers --------------------------------------------------------------------------------------------------- */

Test(virtio_mmio, says_what_it_is)
{
    cr_assert_eq(in(VIRTIO_MMIO_MAGIC), 0x74726976);
    cr_assert_eq(in(VIRTIO_MMIO_VERSION), 2);
    cr_assert_eq(in(VIRTIO_MMIO_DEVICE_ID), DEVICE_ID);
    cr_assert_eq(in(VIRTIO_MMIO_VENDOR_ID), 0x4d414f4c);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    for (uint64_t offset = VIRTIO_MMIO_SHM_LENGTH_LOW; offset <= VIRTIO_MMIO_SHM_BASE_HIGH; offset += 4) {
        cr_assert_eq(in(offset), UINT32_MAX, "no shared memory");
    }
}

Test(virtio_mmio, offers_the_devices_features_and_version_1)
{
    static const uint32_t words[] = {(uint32_t)DEVICE_FEATURES, (uint32_t)(DEVICE_FEATURES >> 32), 0, 0};

    for (uint32_t i = 0; i < 4; i++) {
        out(VIRTIO_MMIO_DEVICE_FEATURES_SELECT, i);
        cr_assert_eq(in(VIRTIO_MMIO_DEVICE_FEATURES), words[i]);
    }
    out(VIRTIO_MMIO_DEVICE_FEATURES_SELECT, UINT32_MAX);
    cr_assert_eq(in(VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

Test(virtio_mmio, has_the_queues_that_the_device_has)
{
    static const uint32_t selects[] = {0, 1, 2, VIRTIO_MMIO_QUEUE_MAX, UINT32_MAX};

    for (size_t i = 0; i < sizeof selects / sizeof selects[0]; i++) {
        out(VIRTIO_MMIO_QUEUE_SELECT, selects[i]);
        cr_assert_eq(in(VIRTIO_MMIO_QUEUE_SIZE_MAX), selects[i] < QUEUE_COUNT ? SIZE_MAX_QUEUE : 0);
        cr_assert_eq(in(VIRTIO_MMIO_QUEUE_READY), 0);
    }
}

Test(virtio_mmio, registers_are_32_bits_wide)
{
    bring_up();
    for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset++) {
        for (uint32_t bytes = 1; bytes <= 8; bytes *= 2) {
            if (bytes != 4 || offset % 4 != 0) {
                cr_assert_eq(access_wide(offset, bytes, false, UINT64_MAX), 0, "offset 0x%" PRIx64, offset);
                access_wide(offset, bytes, true, 0);
            }
        }
    }
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0f, "no write was a reset");
    cr_assert_eq(probe.notify_count, 0);
}

Test(virtio_mmio, what_is_read_only_or_nothing_takes_no_write)
{
    bring_up();
    for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset += 4) {
        const uint32_t before = in(offset);

        switch (offset) {
        case VIRTIO_MMIO_DEVICE_FEATURES_SELECT:
        case VIRTIO_MMIO_QUEUE_SELECT:
        case VIRTIO_MMIO_QUEUE_READY:
        case VIRTIO_MMIO_QUEUE_NOTIFY:
        case VIRTIO_MMIO_STATUS:
            break;
        default:
            out(offset, 0xa5a5a5a5);
            cr_assert_eq(in(offset), before, "offset 0x%" PRIx64, offset);
        }
    }
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0f);
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_READY), 1);
}

Test(virtio_mmio, refuses_devices_that_are_out_of_range)
{
    const struct irq_line irq = {.set = NULL};
    struct virtio_mmio other;
    struct virtio_device bad[8];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bad[i] = device;
    }
    bad[0].id = 0;
    bad[1].notify = NULL;
    bad[2].queue_count = VIRTIO_MMIO_QUEUE_MAX + 1;
    bad[3].queue_size_max = 0;
    bad[4].queue_size_max = 12;
    bad[5].queue_size_max = 65536;
    bad[6].config_bytes = VIRTIO_MMIO_BYTES - VIRTIO_MMIO_CONFIG + 1;
    bad[7].config_bytes = UINT32_MAX;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(virtio_mmio_init(&other, guest.map, irq, &bad[i]), LOAM_ERROR_INVALID, "device %zu", i);
        cr_assert_null(other.map);
    }
    cr_assert_eq(virtio_mmio_init(&other, NULL, irq, &device), LOAM_ERROR_INVALID);
}

Test(virtio_mmio, takes_devices_that_just_fit)
{
    const struct irq_line irq = {.set = NULL};
    struct virtio_device largest = device;
    struct virtio_mmio other;

    largest.queue_count = VIRTIO_MMIO_QUEUE_MAX;
    largest.queue_size_max = 32768;
    largest.config_bytes = VIRTIO_MMIO_BYTES - VIRTIO_MMIO_CONFIG;
    cr_assert_eq(virtio_mmio_init(&other, guest.map, irq, &largest), LOAM_OK);
    virtio_mmio_destroy(&other);
}

/* --- Features ---------------------------------------------------------------------------------------------------- */

Test(virtio_mmio, refuses_features_ok_to_a_driver_that_took_the_wrong_ones)
{
    static const struct {
        uint64_t features;
        bool good;
    } choices[] = {
        {VIRTIO_F_VERSION_1, true},
        {DEVICE_FEATURES | VIRTIO_F_VERSION_1, true},
        {VIRTIO_F_VERSION_1 | 4, true},
        {0, false},
        {5, false},
        {VIRTIO_F_VERSION_1 | 2, false},
        {VIRTIO_F_VERSION_1 | UINT64_C(1) << 62, false},
        {UINT64_MAX, false},
    };

    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        negotiate(choices[i].features);
        cr_assert_eq(in(VIRTIO_MMIO_STATUS), choices[i].good ? 0x0b : 0x03, "choice %zu", i);
        cr_assert_eq(virtio_mmio_features(&transport), choices[i].good ? choices[i].features : 0);
    }
    out(VIRTIO_MMIO_STATUS, 0x0f);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x03, "no DRIVER_OK without FEATURES_OK");
    write_features(VIRTIO_F_VERSION_1);
    out(VIRTIO_MMIO_STATUS, 0x0b);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0b, "a driver may try again");
}

Test(virtio_mmio, refuses_features_beyond_the_sixty_fourth)
{
    negotiate(0);
    out(VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 2);
    out(VIRTIO_MMIO_DRIVER_FEATURES, 0);
    write_features(VIRTIO_F_VERSION_1);
    out(VIRTIO_MMIO_STATUS, 0x0b);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0b, "taking none of them is right");
    for (uint32_t i = 0; i < 2; i++) {
        negotiate(0);
        out(VIRTIO_MMIO_DRIVER_FEATURES_SELECT, i == 0 ? 2 : UINT32_MAX);
        out(VIRTIO_MMIO_DRIVER_FEATURES, 1);
        write_features(VIRTIO_F_VERSION_1);
        out(VIRTIO_MMIO_STATUS, 0x0b);
        cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x03);
    }
    negotiate(VIRTIO_F_VERSION_1);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0b, "a reset forgets it");
}

Test(virtio_mmio, features_are_chosen_between_driver_and_features_ok)
{
    write_features(VIRTIO_F_VERSION_1);
    out(VIRTIO_MMIO_STATUS, 0x01);
    out(VIRTIO_MMIO_STATUS, 0x03);
    out(VIRTIO_MMIO_STATUS, 0x0b);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x03, "chosen too early");
    negotiate(VIRTIO_F_VERSION_1);
    write_features(VIRTIO_F_VERSION_1 | 1);
    cr_assert_eq(virtio_mmio_features(&transport), VIRTIO_F_VERSION_1, "too late");
}

Test(virtio_mmio, a_status_that_takes_a_step_back_is_no_step)
{
    out(VIRTIO_MMIO_STATUS, 0x09);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x01, "no FEATURES_OK before DRIVER");
    out(VIRTIO_MMIO_STATUS, 0x03);
    write_features(VIRTIO_F_VERSION_1);
    out(VIRTIO_MMIO_STATUS, 0x08);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x03);
    bring_up();
    break_ring();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    out(VIRTIO_MMIO_STATUS, 0x8f);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0xcf, "NEEDS_RESET is no step of the driver's");
}

/* Which register comes first is the driver's choice. */
Test(virtio_mmio, a_write_changes_its_own_register_alone)
{
    negotiate(VIRTIO_F_VERSION_1);
    out(VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000);
    out(VIRTIO_MMIO_QUEUE_USED_HIGH, 3);
    out(VIRTIO_MMIO_QUEUE_AVAILABLE_LOW, 0x2000);
    out(VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH, 2);
    out(VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW, 0x1000);
    out(VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH, 1);
    out(VIRTIO_MMIO_QUEUE_SIZE, 8);
    cr_assert_eq(transport.configs[0].size, 8);
    cr_assert_eq(transport.configs[0].descriptors.value, UINT64_C(0x100001000));
    cr_assert_eq(transport.configs[0].available.value, UINT64_C(0x200002000));
    cr_assert_eq(transport.configs[0].used.value, UINT64_C(0x300003000));
    out(VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 1);
    out(VIRTIO_MMIO_DEVICE_FEATURES_SELECT, 0);
    cr_assert_eq(transport.driver_features_select, 1);
}

/* --- Queues and interrupts --------------------------------------------------------------------------------------- */

Test(virtio_mmio, carries_a_request_and_interrupts)
{
    uint32_t head, written_bytes;

    bring_up();
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_READY), 1);
    offer();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(probe.notify_count, 1);
    cr_assert_eq(probe.last_queue, 1);
    cr_assert(virtio_driver_take(&driver, &head, &written_bytes));
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_USED);
    cr_assert(level);
    out(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_CONFIG);
    cr_assert(level, "acknowledged another");
    out(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_USED);
    cr_assert_not(level);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), 0);

    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_not(level, "nothing was there");
    virtio_guest_put_16(&guest, driver.config.available.value, VIRTQ_AVAIL_F_NO_INTERRUPT);
    offer();
    virtio_mmio_notify(&transport, 1);
    cr_assert(virtio_driver_take(&driver, &head, &written_bytes));
    cr_assert_not(level, "the driver does not want it");
}

Test(virtio_mmio, causes_of_an_interrupt_add_up)
{
    bring_up();
    offer();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    virtio_mmio_config_changed(&transport);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_USED | VIRTIO_INTERRUPT_CONFIG);
    out(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_CONFIG);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_USED);
    cr_assert(level);
}

/* A view that stayed held would soon keep the map from any change. */
Test(virtio_mmio, a_queue_that_starts_holds_no_view)
{
    for (uint32_t i = 0; i < 64; i++) {
        bring_up();
        cr_assert_eq(loam_gpa_map_protect(guest.map, (loam_gpa){GUEST_NEXT}, 0x1000,
                                          i % 2 == 0 ? LOAM_ACCESS_READ : LOAM_ACCESS_WRITE),
                     LOAM_OK, "change %u", i);
    }
}

Test(virtio_mmio, notifications_for_nobody_are_lost)
{
    static const uint32_t queues[] = {0, 2, VIRTIO_MMIO_QUEUE_MAX, 0x10001, UINT32_MAX};

    bring_up();
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++) {
        out(VIRTIO_MMIO_QUEUE_NOTIFY, queues[i]);
        virtio_mmio_notify(&transport, queues[i]);
    }
    cr_assert_eq(probe.notify_count, 0);
    out(VIRTIO_MMIO_STATUS, 0x8f);
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(probe.notify_count, 0, "the driver has given up");
    negotiate(VIRTIO_F_VERSION_1);
    write_queue(1, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(probe.notify_count, 0, "before DRIVER_OK");
}

Test(virtio_mmio, a_queue_that_is_ready_keeps_its_configuration)
{
    const struct virtqueue_config other = {4, {GUEST_LOW}, {GUEST_LOW + 0x100}, {GUEST_LOW + 0x200}};
    uint32_t head, written_bytes;

    bring_up();
    write_queue(1, &other);
    offer();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert(virtio_driver_take(&driver, &head, &written_bytes));
    out(VIRTIO_MMIO_QUEUE_READY, 2);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    cr_assert_eq(probe.stop_count, 0);
    cr_assert_eq(transport.queues[1].next_used, 1, "and starts but once");
}

Test(virtio_mmio, a_queue_can_be_stopped_and_set_up_anew)
{
    uint32_t head, written_bytes;

    bring_up();
    offer();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    out(VIRTIO_MMIO_QUEUE_READY, 0);
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_READY), 0);
    cr_assert_eq(probe.stop_count, 1);
    out(VIRTIO_MMIO_QUEUE_READY, 0);
    cr_assert_eq(probe.stop_count, 1, "stopped already");
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(probe.notify_count, 1);
    virtio_driver_init(&driver, &guest, 2, GUEST_LOW + 0x800);
    write_queue(1, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    offer();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert(virtio_driver_take(&driver, &head, &written_bytes));
}

Test(virtio_mmio, queues_are_set_up_after_features_ok)
{
    virtio_driver_init(&driver, &guest, 8, GUEST_HIGH);
    out(VIRTIO_MMIO_STATUS, 0x01);
    out(VIRTIO_MMIO_STATUS, 0x03);
    write_queue(1, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_READY), 0);
    cr_assert_eq(transport.configs[1].size, 0);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x03);
    negotiate(VIRTIO_F_VERSION_1);
    write_queue(QUEUE_COUNT, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    out(VIRTIO_MMIO_QUEUE_READY, 0);
    write_queue(UINT32_MAX, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0b, "queues that are none take no write");
}

Test(virtio_mmio, a_queue_set_up_wrong_needs_a_reset)
{
    virtio_driver_init(&driver, &guest, 8, GUEST_HIGH);
    driver.config.size = 2 * SIZE_MAX_QUEUE;
    negotiate(VIRTIO_F_VERSION_1);
    write_queue(1, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_READY), 0);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x4b);
    cr_assert_not(level, "DRIVER_OK is not set: nobody to tell");
    out(VIRTIO_MMIO_STATUS, 0x0f);
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(probe.notify_count, 0);
    bring_up();
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0f);
}

Test(virtio_mmio, a_broken_queue_needs_a_reset_and_is_left_alone)
{
    bring_up();
    break_ring();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x4f);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_CONFIG);
    cr_assert(level);
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(probe.notify_count, 1);
    out(VIRTIO_MMIO_STATUS, 0x0f);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x4f, "it is not for the driver to clear");
    out(VIRTIO_MMIO_QUEUE_READY, 0);
    write_queue(0, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    cr_assert_eq(in(VIRTIO_MMIO_QUEUE_READY), 0);
    out(VIRTIO_MMIO_STATUS, 0);
    cr_assert_not(level);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0);
    bring_up();
    offer();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_USED);
}

Test(virtio_mmio, a_reset_forgets_everything)
{
    struct virtio_mmio fresh;

    bring_up();
    offer();
    out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    out(VIRTIO_MMIO_DEVICE_FEATURES_SELECT, 1);
    cr_assert(level);
    probe.reset_count = 0;
    out(VIRTIO_MMIO_STATUS, 0);
    cr_assert_eq(probe.reset_count, 1);
    cr_assert_eq(probe.stop_count, 1, "the queue that was ready");
    cr_assert_not(level);
    cr_assert_eq(virtio_mmio_features(&transport), 0);
    cr_assert_eq(virtio_mmio_init(&fresh, guest.map, transport.irq, &device), LOAM_OK);
    cr_assert_eq(fresh.status, transport.status);
    cr_assert_eq(fresh.interrupt_status, transport.interrupt_status);
    cr_assert_eq(fresh.device_features_select, transport.device_features_select);
    cr_assert_eq(fresh.driver_features_select, transport.driver_features_select);
    cr_assert_eq(fresh.driver_features, transport.driver_features);
    cr_assert_eq(fresh.queue_select, transport.queue_select);
    for (uint32_t i = 0; i < VIRTIO_MMIO_QUEUE_MAX; i++) {
        cr_assert_eq(transport.configs[i].size, 0);
        cr_assert_eq(transport.configs[i].used.value, 0);
        cr_assert_not(transport.queues[i].ready);
        cr_assert_eq(transport.queues[i].next_used, 0);
    }
    virtio_mmio_destroy(&fresh);
}

/* --- The device's configuration ---------------------------------------------------------------------------------- */

Test(virtio_mmio, configuration_is_read_at_any_width)
{
    for (uint64_t offset = 0; offset < 24; offset++) {
        for (uint32_t bytes = 1; bytes <= 8; bytes *= 2) {
            uint64_t expected = 0;

            for (uint64_t i = 0; i < bytes && offset + i < CONFIG_BYTES; i++) {
                expected |= (offset + i + 1) << (8 * i);
            }
            cr_assert_eq(access_wide(VIRTIO_MMIO_CONFIG + offset, bytes, false, UINT64_MAX), expected);
        }
    }
    cr_assert_eq(access_wide(VIRTIO_MMIO_BYTES - 8, 8, false, UINT64_MAX), 0);
}

Test(virtio_mmio, configuration_is_written_once_features_are_settled)
{
    static const uint8_t before[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    static const uint8_t after[] = {0x88, 0x77, 3, 0x66, 5, 6, 7, 8, 0xdd, 0xcc};

    access_wide(VIRTIO_MMIO_CONFIG, 8, true, 0);
    cr_assert_arr_eq(probe.config, before, CONFIG_BYTES);
    negotiate(VIRTIO_F_VERSION_1);
    access_wide(VIRTIO_MMIO_CONFIG, 2, true, 0x7788);
    access_wide(VIRTIO_MMIO_CONFIG + 3, 1, true, 0x66);
    access_wide(VIRTIO_MMIO_CONFIG + 8, 4, true, 0xaabbccdd);
    access_wide(VIRTIO_MMIO_CONFIG + 10, 1, true, 0xff);
    access_wide(VIRTIO_MMIO_CONFIG + 4000, 8, true, 0xff);
    cr_assert_arr_eq(probe.config, after, CONFIG_BYTES);
    out(VIRTIO_MMIO_STATUS, 0x8b);
    access_wide(VIRTIO_MMIO_CONFIG, 8, true, 0);
    cr_assert_arr_eq(probe.config, after, CONFIG_BYTES);
}

Test(virtio_mmio, a_device_without_functions_of_its_own)
{
    const struct virtio_device bare = {
        .self = &probe, .id = 1, .queue_count = 2, .queue_size_max = 16, .config_bytes = 8, .notify = probe_notify};

    virtio_mmio_destroy(&transport);
    cr_assert_eq(virtio_mmio_init(&transport, guest.map, (struct irq_line){.set = NULL}, &bare), LOAM_OK);
    virtio_driver_init(&driver, &guest, 8, GUEST_HIGH + 0x1000);
    negotiate(VIRTIO_F_VERSION_1);
    write_queue(1, &driver.config);
    out(VIRTIO_MMIO_QUEUE_READY, 1);
    access_wide(VIRTIO_MMIO_CONFIG, 8, true, 0);
    cr_assert_eq(access_wide(VIRTIO_MMIO_CONFIG, 8, false, UINT64_MAX), 0);
    out(VIRTIO_MMIO_STATUS, 0);
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0);
}

Test(virtio_mmio, a_change_of_the_configuration_is_told_while_the_driver_works)
{
    const uint32_t before = in(VIRTIO_MMIO_CONFIG_GENERATION);

    virtio_mmio_lock(&transport);
    virtio_mmio_config_changed(&transport);
    virtio_mmio_unlock(&transport);
    cr_assert_eq(in(VIRTIO_MMIO_CONFIG_GENERATION), before + 1);
    cr_assert_not(level);
    bring_up();
    virtio_mmio_lock(&transport);
    virtio_mmio_config_changed(&transport);
    virtio_mmio_unlock(&transport);
    cr_assert_eq(in(VIRTIO_MMIO_CONFIG_GENERATION), before + 2);
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_CONFIG);
}

/* --- Every short sequence ---------------------------------------------------------------------------------------- */

enum action {
    ACTION_RESET,
    ACTION_ACKNOWLEDGE,
    ACTION_DRIVER,
    ACTION_FEATURES_GOOD,
    ACTION_FEATURES_BAD,
    ACTION_FEATURES_OK,
    ACTION_DRIVER_OK,
    ACTION_FAILED,
    ACTION_LESS,      /* a status that takes steps back, though not all */
    ACTION_QUEUE,     /* the rings, set up well */
    ACTION_QUEUE_BAD, /* a size too large */
    ACTION_READY,
    ACTION_NOT_READY,
    ACTION_NOTIFY,
    ACTION_BREAK, /* the guest spoils its ring, and rings */
    ACTION_ACK,
    ACTION_COUNT
};

/* What the specification makes of it, one flag for each thing that can be so. */
struct model {
    bool acknowledge, driver, features_ok, driver_ok, failed, needs_reset;
    bool features_good, queue_good, ready, broken_ring;
    uint32_t size;
    uint32_t interrupts;
    uint32_t notify_count;
};

static uint32_t model_status(const struct model *model)
{
    return (model->acknowledge ? 1u : 0) | (model->driver ? 2u : 0) | (model->driver_ok ? 4u : 0) |
           (model->features_ok ? 8u : 0) | (model->needs_reset ? 0x40u : 0) | (model->failed ? 0x80u : 0);
}

static void model_notify(struct model *model)
{
    if (!model->ready || !model->driver_ok || model->failed || model->needs_reset) {
        return;
    }
    model->notify_count++;
    if (model->broken_ring) {
        model->needs_reset = true;
        model->interrupts |= VIRTIO_INTERRUPT_CONFIG;
    }
}

static void model_act(struct model *model, enum action action)
{
    const bool works = model->features_ok && !model->failed && !model->needs_reset;

    switch (action) {
    case ACTION_RESET:
        *model = (struct model){.notify_count = model->notify_count, .broken_ring = model->broken_ring};
        break;
    case ACTION_ACKNOWLEDGE:
        model->acknowledge = true;
        break;
    case ACTION_DRIVER:
        model->driver |= model->acknowledge;
        break;
    case ACTION_FEATURES_GOOD:
    case ACTION_FEATURES_BAD:
        if (model->driver && !model->features_ok && !model->failed && !model->needs_reset) {
            model->features_good = action == ACTION_FEATURES_GOOD;
        }
        break;
    case ACTION_FEATURES_OK:
        model->features_ok |= model->driver && model->features_good;
        break;
    case ACTION_DRIVER_OK:
        model->driver_ok |= model->features_ok;
        break;
    case ACTION_FAILED:
        model->failed = true;
        break;
    case ACTION_QUEUE:
    case ACTION_QUEUE_BAD:
        if (works && !model->ready) {
            model->queue_good = action == ACTION_QUEUE;
        }
        break;
    case ACTION_READY:
        if (works && !model->ready) {
            model->ready = model->queue_good;
            model->needs_reset = !model->queue_good;
            model->interrupts |= model->needs_reset && model->driver_ok ? VIRTIO_INTERRUPT_CONFIG : 0;
        }
        break;
    case ACTION_NOT_READY:
        model->ready = false;
        break;
    case ACTION_BREAK:
        model->broken_ring = true;
        model_notify(model);
        break;
    case ACTION_NOTIFY:
        model_notify(model);
        break;
    case ACTION_ACK:
        model->interrupts = 0;
        break;
    default:
        break;
    }
}

/* A driver adds its bit to the status that it reads, as Linux does. */
static void add_status(uint32_t bit)
{
    out(VIRTIO_MMIO_STATUS, in(VIRTIO_MMIO_STATUS) | bit);
}

static void act(enum action action)
{
    struct virtqueue_config config = driver.config;

    switch (action) {
    case ACTION_RESET:
        out(VIRTIO_MMIO_STATUS, 0);
        break;
    case ACTION_ACKNOWLEDGE:
        add_status(VIRTIO_STATUS_ACKNOWLEDGE);
        break;
    case ACTION_DRIVER:
        add_status(VIRTIO_STATUS_DRIVER);
        break;
    case ACTION_FEATURES_GOOD:
        write_features(VIRTIO_F_VERSION_1 | 1);
        break;
    case ACTION_FEATURES_BAD:
        write_features(VIRTIO_F_VERSION_1 | 2);
        break;
    case ACTION_FEATURES_OK:
        add_status(VIRTIO_STATUS_FEATURES_OK);
        break;
    case ACTION_DRIVER_OK:
        add_status(VIRTIO_STATUS_DRIVER_OK);
        break;
    case ACTION_FAILED:
        add_status(VIRTIO_STATUS_FAILED);
        break;
    case ACTION_LESS: /* 0x20 is no bit of the driver's: without any that are, it is no step and no reset */
        out(VIRTIO_MMIO_STATUS, 0x20);
        break;
    case ACTION_QUEUE:
        write_queue(1, &config);
        break;
    case ACTION_QUEUE_BAD:
        config.size = 64;
        write_queue(1, &config);
        break;
    case ACTION_READY:
    case ACTION_NOT_READY:
        out(VIRTIO_MMIO_QUEUE_SELECT, 1);
        out(VIRTIO_MMIO_QUEUE_READY, action == ACTION_READY);
        break;
    case ACTION_BREAK:
        break_ring();
        out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
        break;
    case ACTION_NOTIFY:
        out(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
        break;
    default:
        out(VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
        break;
    }
}

static void check_model(const struct model *model, uint64_t sequence)
{
    cr_assert_eq(in(VIRTIO_MMIO_STATUS), model_status(model), "sequence 0x%" PRIx64 ": 0x%x, not 0x%x", sequence,
                 in(VIRTIO_MMIO_STATUS), model_status(model));
    cr_assert_eq(in(VIRTIO_MMIO_INTERRUPT_STATUS), model->interrupts, "sequence 0x%" PRIx64, sequence);
    cr_assert_eq(level, model->interrupts != 0, "sequence 0x%" PRIx64, sequence);
    cr_assert_eq(transport.queues[1].ready, model->ready, "sequence 0x%" PRIx64, sequence);
    cr_assert_eq(probe.notify_count, model->notify_count, "sequence 0x%" PRIx64, sequence);
}

/* sequence: one action in every 4 bits, the first one lowest. */
static void run_sequence(uint64_t sequence, uint32_t length, const enum action *prefix, uint32_t prefix_count)
{
    struct model model = {.acknowledge = false};

    out(VIRTIO_MMIO_STATUS, 0);
    virtio_guest_put_16(&guest, driver.config.available.value + 2, 0);
    probe.notify_count = 0;
    for (uint32_t i = 0; i < prefix_count + length; i++) {
        const enum action action =
            i < prefix_count ? prefix[i] : (enum action)(sequence >> (4 * (i - prefix_count)) & 15);

        act(action);
        model_act(&model, action);
        check_model(&model, sequence);
    }
}

static_assert(ACTION_COUNT == 16, "an action is 4 bits of a sequence");

/* From the start, and from every step of a driver that does it right. */
Test(virtio_mmio, every_short_sequence_agrees_with_the_specification)
{
    static const enum action right[] = {ACTION_ACKNOWLEDGE, ACTION_DRIVER, ACTION_FEATURES_GOOD, ACTION_FEATURES_OK,
                                        ACTION_QUEUE,       ACTION_READY,  ACTION_DRIVER_OK};
    enum { LENGTH = 4 };

    virtio_driver_init(&driver, &guest, 8, GUEST_HIGH);
    for (uint32_t steps = 0; steps <= sizeof right / sizeof right[0]; steps++) {
        for (uint64_t sequence = 0; sequence < UINT64_C(1) << (4 * LENGTH); sequence++) {
            run_sequence(sequence, LENGTH, right, steps);
        }
    }
}

/* --- Anything at all --------------------------------------------------------------------------------------------- */

Test(virtio_mmio, random_accesses_keep_the_invariants)
{
    static const uint64_t values[] = {0, 1, 2, 3, 4, 8, 0xb, 0xf, 0x80, 16, (uint32_t)GUEST_HIGH, 0x1000, UINT64_MAX};
    struct random random = {20240604};

    for (uint32_t step = 0; step < 500000; step++) {
        const uint64_t offset = random_below(&random, random_one_in(&random, 4) ? VIRTIO_MMIO_BYTES - 8 : 0x110);
        const uint64_t value = random_one_in(&random, 4)
                                   ? random_u64(&random)
                                   : values[random_below(&random, sizeof values / sizeof values[0])];
        const uint32_t bytes = random_one_in(&random, 8) ? 1u << random_below(&random, 4) : 4;

        if (random_one_in(&random, 64)) {
            bring_up();
        }
        access_wide(bytes == 4 ? offset & ~UINT64_C(3) : offset, bytes, random_one_in(&random, 2), value);
        cr_assert_eq(level, transport.interrupt_status != 0, "step %u", step);
        cr_assert_eq(transport.status & ~0xcfu, 0, "step %u", step);
        for (uint32_t i = 0; i < VIRTIO_MMIO_QUEUE_MAX; i++) {
            cr_assert(!transport.queues[i].ready || (transport.status & VIRTIO_STATUS_FEATURES_OK) != 0);
            cr_assert(!transport.queues[i].ready || i < QUEUE_COUNT);
        }
    }
}

/* Registers from one thread, ring after ring from another, as an ioeventfd would have it. */
static void *keep_ringing(void *nothing)
{
    for (uint32_t i = 0; i < 20000; i++) {
        virtio_mmio_notify(&transport, i % 3);
    }
    return nothing;
}

Test(virtio_mmio, rings_from_another_thread)
{
    pthread_t ringer;

    cr_assert_eq(pthread_create(&ringer, NULL, keep_ringing, NULL), 0);
    for (uint32_t i = 0; i < 500; i++) {
        virtio_mmio_lock(&transport);
        virtio_driver_init(&driver, &guest, 8, GUEST_HIGH + 0x1000);
        virtio_mmio_unlock(&transport);
        negotiate(VIRTIO_F_VERSION_1);
        write_queue(1, &driver.config);
        out(VIRTIO_MMIO_QUEUE_READY, 1);
        out(VIRTIO_MMIO_STATUS, 0x0f);
        cr_assert_eq(in(VIRTIO_MMIO_STATUS), 0x0f);
        out(VIRTIO_MMIO_STATUS, 0);
    }
    cr_assert_eq(pthread_join(ringer, NULL), 0);
}
