// SPDX-License-Identifier: Apache-2.0
#include "guest/rng_driver.h"

#include "guest/platform.h"

/* Registers of virtio-mmio: virtio 1.2, section 4.2.2. */
enum {
    REGISTER_MAGIC = 0x000,
    REGISTER_VERSION = 0x004,
    REGISTER_DEVICE = 0x008,
    REGISTER_DEVICE_FEATURES = 0x010,
    REGISTER_DEVICE_FEATURES_SELECT = 0x014,
    REGISTER_DRIVER_FEATURES = 0x020,
    REGISTER_DRIVER_FEATURES_SELECT = 0x024,
    REGISTER_QUEUE_SELECT = 0x030,
    REGISTER_QUEUE_SIZE_MAX = 0x034,
    REGISTER_QUEUE_SIZE = 0x038,
    REGISTER_QUEUE_READY = 0x044,
    REGISTER_QUEUE_NOTIFY = 0x050,
    REGISTER_INTERRUPT_STATUS = 0x060,
    REGISTER_INTERRUPT_ACKNOWLEDGE = 0x064,
    REGISTER_STATUS = 0x070,
    REGISTER_DESCRIPTORS = 0x080,
    REGISTER_AVAILABLE = 0x090,
    REGISTER_USED = 0x0a0,
};

#define MAGIC          0x74726976u /* "virt" */
#define VERSION_MODERN 2u
#define DEVICE_ENTROPY 4u

#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER      2u
#define STATUS_DRIVER_OK   4u
#define STATUS_FEATURES_OK 8u

#define FEATURE_WORD_VERSION_1 1u /* bit 32: bit 0 of word 1 */
#define FEATURE_VERSION_1      1u

#define INTERRUPT_USED_BUFFER 1u
#define DESCRIPTOR_WRITE      2u /* the device writes */

/* Each poll reads a register, so it costs an exit: 0.1 s at the very least, 1.5 s where instructions are emulated. */
#define POLLS_MAX 100000u

static uint32_t get(const struct rng_driver *driver, uint32_t offset)
{
    return platform_load32(driver->registers + offset);
}

static void set(const struct rng_driver *driver, uint32_t offset, uint32_t value)
{
    platform_store32(driver->registers + offset, value);
}

static void set_address(const struct rng_driver *driver, uint32_t offset, uint64_t gpa)
{
    set(driver, offset, (uint32_t)gpa);
    set(driver, offset + 4, (uint32_t)(gpa >> 32));
}

static bool expect(struct rng_fault *fault, uint64_t gpa, uint64_t expected, uint64_t found)
{
    *fault = (struct rng_fault){gpa, expected, found};
    return expected == found;
}

static bool expect_register(const struct rng_driver *driver, struct rng_fault *fault, uint32_t offset,
                            uint32_t expected)
{
    return expect(fault, driver->registers + offset, expected, get(driver, offset));
}

/* Wait until (register & mask) == value. */
static bool wait_register(const struct rng_driver *driver, struct rng_fault *fault, uint32_t offset, uint32_t mask,
                          uint32_t value)
{
    uint32_t found = get(driver, offset);

    for (uint32_t i = 0; i < POLLS_MAX && (found & mask) != value; i++) {
        platform_pause();
        found = get(driver, offset);
    }
    return expect(fault, driver->registers + offset, value, found & mask);
}

static bool identify(const struct rng_driver *driver, struct rng_fault *fault)
{
    return expect_register(driver, fault, REGISTER_MAGIC, MAGIC) &&
           expect_register(driver, fault, REGISTER_VERSION, VERSION_MODERN) &&
           expect_register(driver, fault, REGISTER_DEVICE, DEVICE_ENTROPY);
}

/* Section 3.1.1, steps 1 to 6: of all features take VERSION_1, which a modern device must offer. */
static bool negotiate(const struct rng_driver *driver, struct rng_fault *fault)
{
    uint32_t status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;

    set(driver, REGISTER_STATUS, 0);
    if (!wait_register(driver, fault, REGISTER_STATUS, UINT32_MAX, 0)) {
        return false;
    }
    set(driver, REGISTER_STATUS, STATUS_ACKNOWLEDGE);
    set(driver, REGISTER_STATUS, status);
    set(driver, REGISTER_DEVICE_FEATURES_SELECT, FEATURE_WORD_VERSION_1);
    if (!expect(fault, driver->registers + REGISTER_DEVICE_FEATURES, FEATURE_VERSION_1,
                get(driver, REGISTER_DEVICE_FEATURES) & FEATURE_VERSION_1)) {
        return false;
    }
    set(driver, REGISTER_DRIVER_FEATURES_SELECT, 0);
    set(driver, REGISTER_DRIVER_FEATURES, 0);
    set(driver, REGISTER_DRIVER_FEATURES_SELECT, FEATURE_WORD_VERSION_1);
    set(driver, REGISTER_DRIVER_FEATURES, FEATURE_VERSION_1);
    status |= STATUS_FEATURES_OK;
    set(driver, REGISTER_STATUS, status);
    return expect_register(driver, fault, REGISTER_STATUS, status);
}

/* Section 4.2.3.2. */
static bool hand_over_queue(const struct rng_driver *driver, struct rng_fault *fault)
{
    uint32_t size_max;

    set(driver, REGISTER_QUEUE_SELECT, 0);
    if (!expect_register(driver, fault, REGISTER_QUEUE_READY, 0)) {
        return false;
    }
    size_max = get(driver, REGISTER_QUEUE_SIZE_MAX);
    if (size_max < driver->queue_size) {
        return expect(fault, driver->registers + REGISTER_QUEUE_SIZE_MAX, driver->queue_size, size_max);
    }
    set(driver, REGISTER_QUEUE_SIZE, driver->queue_size);
    set_address(driver, REGISTER_DESCRIPTORS, driver->descriptors);
    set_address(driver, REGISTER_AVAILABLE, driver->available);
    set_address(driver, REGISTER_USED, driver->used);
    set(driver, REGISTER_QUEUE_READY, 1);
    return expect_register(driver, fault, REGISTER_QUEUE_READY, 1);
}

/* Section 3.1.1, steps 7 and 8. */
bool rng_start(struct rng_driver *driver, struct rng_fault *fault)
{
    uint32_t status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

    driver->request_count = 0;
    if (!identify(driver, fault) || !negotiate(driver, fault) || !hand_over_queue(driver, fault)) {
        return false;
    }
    set(driver, REGISTER_STATUS, status);
    return expect_register(driver, fault, REGISTER_STATUS, status);
}

/* Descriptor, ring entry, index, notification, in this order (section 2.7.13). */
static void submit(const struct rng_driver *driver, uint16_t slot, uint64_t gpa, uint32_t bytes)
{
    uint64_t descriptor = driver->descriptors + UINT64_C(16) * slot;

    platform_store64(descriptor, gpa);
    platform_store32(descriptor + 8, bytes);
    platform_store16(descriptor + 12, DESCRIPTOR_WRITE);
    platform_store16(descriptor + 14, 0);
    platform_store16(driver->available + 4 + UINT64_C(2) * slot, slot);
    platform_store_barrier();
    platform_store16(driver->available + 2, (uint16_t)(driver->request_count + 1));
    platform_store_barrier();
    set(driver, REGISTER_QUEUE_NOTIFY, 0);
}

/* The device first publishes the buffer, then raises the interrupt (section 2.7.8): seen the one, the other is there.
 */
static bool complete(struct rng_driver *driver, struct rng_fault *fault)
{
    uint16_t count = (uint16_t)(driver->request_count + 1);

    if (!wait_register(driver, fault, REGISTER_INTERRUPT_STATUS, INTERRUPT_USED_BUFFER, INTERRUPT_USED_BUFFER)) {
        return false;
    }
    set(driver, REGISTER_INTERRUPT_ACKNOWLEDGE, INTERRUPT_USED_BUFFER);
    if (!expect_register(driver, fault, REGISTER_INTERRUPT_STATUS, 0) ||
        !expect(fault, driver->used + 2, count, platform_load16(driver->used + 2))) {
        return false;
    }
    driver->request_count = count;
    return true;
}

static uint16_t slot_of(const struct rng_driver *driver)
{
    return (uint16_t)(driver->request_count & (driver->queue_size - 1));
}

void rng_submit(const struct rng_driver *driver, uint64_t gpa, uint32_t bytes)
{
    submit(driver, slot_of(driver), gpa, bytes);
}

bool rng_complete(struct rng_driver *driver, uint32_t bytes, uint32_t *written, struct rng_fault *fault)
{
    uint16_t slot = slot_of(driver);
    uint64_t entry = driver->used + 4 + UINT64_C(8) * slot;

    if (!complete(driver, fault) || !expect(fault, entry, slot, platform_load32(entry))) {
        return false;
    }
    *written = platform_load32(entry + 4);
    if (*written == 0 || *written > bytes) {
        return expect(fault, entry + 4, bytes, *written);
    }
    return true;
}

bool rng_request(struct rng_driver *driver, uint64_t gpa, uint32_t bytes, uint32_t *written, struct rng_fault *fault)
{
    rng_submit(driver, gpa, bytes);
    return rng_complete(driver, bytes, written, fault);
}

void rng_stop(const struct rng_driver *driver)
{
    set(driver, REGISTER_STATUS, 0);
}
