// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/virtio_station.h"

static void set_line(void *controller, unsigned int number, bool level)
{
    struct virtio_station *station = controller;

    (void)number;
    pthread_mutex_lock(&station->lock);
    station->level = level;
    pthread_cond_broadcast(&station->raised);
    pthread_mutex_unlock(&station->lock);
}

void virtio_station_init(struct virtio_station *station, struct virtio_mmio *mmio)
{
    *station = (struct virtio_station){.mmio = mmio};
    pthread_mutex_init(&station->lock, NULL);
    pthread_cond_init(&station->raised, NULL);
}

void virtio_station_destroy(struct virtio_station *station)
{
    pthread_cond_destroy(&station->raised);
    pthread_mutex_destroy(&station->lock);
}

struct irq_line virtio_station_irq(struct virtio_station *station)
{
    return (struct irq_line){.set = set_line, .controller = station};
}

void virtio_station_out(const struct virtio_station *station, uint64_t offset, uint32_t value)
{
    struct bus_access access = {.offset = offset, .bytes = 4, .is_write = true, .value = value};

    virtio_mmio_access(station->mmio, &access);
}

uint32_t virtio_station_in(const struct virtio_station *station, uint64_t offset)
{
    struct bus_access access = {.offset = offset, .bytes = 4};

    virtio_mmio_access(station->mmio, &access);
    return (uint32_t)access.value;
}

uint64_t virtio_station_offered(const struct virtio_station *station)
{
    uint64_t features;

    virtio_station_out(station, VIRTIO_MMIO_DEVICE_FEATURES_SELECT, 1);
    features = (uint64_t)virtio_station_in(station, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
    virtio_station_out(station, VIRTIO_MMIO_DEVICE_FEATURES_SELECT, 0);
    return features | virtio_station_in(station, VIRTIO_MMIO_DEVICE_FEATURES);
}

static void set_up_queue(const struct virtio_station *station, uint32_t queue, const struct virtqueue_config *config)
{
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_SELECT, queue);
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_SIZE, config->size);
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW, (uint32_t)config->descriptors.value);
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH, (uint32_t)(config->descriptors.value >> 32));
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_AVAILABLE_LOW, (uint32_t)config->available.value);
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH, (uint32_t)(config->available.value >> 32));
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)config->used.value);
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(config->used.value >> 32));
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_READY, 1);
}

void virtio_station_bring_up(const struct virtio_station *station, uint64_t features,
                             const struct virtqueue_config *configs, uint32_t count)
{
    const uint32_t early = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

    virtio_station_out(station, VIRTIO_MMIO_STATUS, 0);
    virtio_station_out(station, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE);
    virtio_station_out(station, VIRTIO_MMIO_STATUS, early);
    features |= VIRTIO_F_VERSION_1;
    virtio_station_out(station, VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 0);
    virtio_station_out(station, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
    virtio_station_out(station, VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 1);
    virtio_station_out(station, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
    virtio_station_out(station, VIRTIO_MMIO_STATUS, early | VIRTIO_STATUS_FEATURES_OK);
    for (uint32_t i = 0; i < count; i++) {
        if (configs[i].size > 0) {
            set_up_queue(station, i, &configs[i]);
        }
    }
    virtio_station_out(station, VIRTIO_MMIO_STATUS, early | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK);
}

void virtio_station_ring(const struct virtio_station *station, uint32_t queue)
{
    virtio_station_out(station, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

uint32_t virtio_station_await(struct virtio_station *station)
{
    uint32_t status;

    pthread_mutex_lock(&station->lock);
    while (!station->level) {
        pthread_cond_wait(&station->raised, &station->lock);
    }
    pthread_mutex_unlock(&station->lock);
    status = virtio_station_in(station, VIRTIO_MMIO_INTERRUPT_STATUS);
    virtio_station_out(station, VIRTIO_MMIO_INTERRUPT_ACK, status);
    return status;
}

void virtio_station_take(struct virtio_station *station, struct virtio_driver *driver, uint32_t *head,
                         uint32_t *written_bytes)
{
    while (!virtio_driver_take(driver, head, written_bytes)) {
        (void)virtio_station_await(station);
    }
}
