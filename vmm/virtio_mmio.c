// SPDX-License-Identifier: Apache-2.0
/*
 * A driver's write that the specification forbids at that moment changes nothing. What it does allow depends
 * on three conditions, each one function here: negotiating, configurable, running.
 */
#include "vmm/virtio_mmio.h"

#include <stddef.h>
#include <string.h>

/* What a driver may set; DEVICE_NEEDS_RESET is the device's alone. */
#define DRIVER_STATUS                                                                                                  \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FEATURES_OK |          \
     VIRTIO_STATUS_FAILED)
#define STOPPED_STATUS (VIRTIO_STATUS_FAILED | VIRTIO_STATUS_NEEDS_RESET)

/* --- Conditions ---------------------------------------------------------------------------------------------- */

static bool status_is(const struct virtio_mmio *transport, uint32_t set, uint32_t clear)
{
    return (transport->status & (set | clear)) == set;
}

/* The driver may choose features. */
static bool negotiating(const struct virtio_mmio *transport)
{
    return status_is(transport, VIRTIO_STATUS_DRIVER, VIRTIO_STATUS_FEATURES_OK | STOPPED_STATUS);
}

/* The driver may set up queues and write the device's configuration. */
static bool configurable(const struct virtio_mmio *transport)
{
    return status_is(transport, VIRTIO_STATUS_FEATURES_OK, STOPPED_STATUS);
}

/* The device works. */
static bool running(const struct virtio_mmio *transport)
{
    return status_is(transport, VIRTIO_STATUS_DRIVER_OK, STOPPED_STATUS);
}

static uint64_t offered_features(const struct virtio_mmio *transport)
{
    return transport->device.features | VIRTIO_F_VERSION_1;
}

static bool features_acceptable(const struct virtio_mmio *transport)
{
    const uint64_t taken = transport->driver_features;

    return !transport->driver_features_beyond && (taken & ~offered_features(transport)) == 0 &&
           (taken & VIRTIO_F_VERSION_1) != 0;
}

/* --- Interrupts ---------------------------------------------------------------------------------------------- */

static void set_interrupts(struct virtio_mmio *transport, uint32_t status)
{
    const bool before = transport->interrupt_status != 0;
    const bool after = status != 0;

    transport->interrupt_status = status;
    if (before != after) {
        irq_set(&transport->irq, after);
    }
}

static void raise_interrupt(struct virtio_mmio *transport, uint32_t cause)
{
    set_interrupts(transport, transport->interrupt_status | cause);
}

/* Section 2.1.2: the driver is told if it has set DRIVER_OK. */
static void need_reset(struct virtio_mmio *transport)
{
    transport->status |= VIRTIO_STATUS_NEEDS_RESET;
    if ((transport->status & VIRTIO_STATUS_DRIVER_OK) != 0) {
        raise_interrupt(transport, VIRTIO_INTERRUPT_CONFIG);
    }
}

/* --- Queues -------------------------------------------------------------------------------------------------- */

static bool queue_selected(const struct virtio_mmio *transport)
{
    return transport->queue_select < transport->device.queue_count;
}

/* What the driver may write now of the selected queue's configuration; NULL: nothing. */
static struct virtqueue_config *writable_config(struct virtio_mmio *transport)
{
    const uint32_t index = transport->queue_select;

    if (!queue_selected(transport) || !configurable(transport) || transport->queues[index].ready) {
        return NULL;
    }
    return &transport->configs[index];
}

static void stop_queue(struct virtio_mmio *transport, uint32_t index)
{
    const bool was_ready = transport->queues[index].ready;

    virtqueue_disable(&transport->queues[index]);
    if (was_ready && transport->device.stop != NULL) {
        transport->device.stop(transport->device.self, index);
    }
}

static void start_queue(struct virtio_mmio *transport)
{
    const struct virtqueue_config *config = writable_config(transport);
    const struct loam_gpa_view *view;

    if (config == NULL) {
        return;
    }
    view = loam_gpa_map_acquire(transport->map);
    if (virtqueue_enable(&transport->queues[transport->queue_select], view, config, transport->device.queue_size_max) !=
        LOAM_OK) {
        need_reset(transport);
    }
    loam_gpa_map_release(transport->map, view);
}

static void write_queue_ready(struct virtio_mmio *transport, uint32_t value)
{
    if (value == 1) {
        start_queue(transport);
    } else if (value == 0 && queue_selected(transport)) {
        stop_queue(transport, transport->queue_select);
    }
}

static void notify_queue(struct virtio_mmio *transport, uint32_t queue)
{
    if (running(transport) && queue < transport->device.queue_count && transport->queues[queue].ready) {
        transport->device.notify(transport->device.self, queue);
    }
}

/* --- Status -------------------------------------------------------------------------------------------------- */

static void reset(struct virtio_mmio *transport)
{
    for (uint32_t i = 0; i < transport->device.queue_count; i++) {
        stop_queue(transport, i);
        transport->configs[i] = (struct virtqueue_config){.size = 0};
    }
    transport->status = 0;
    transport->device_features_select = 0;
    transport->driver_features_select = 0;
    transport->queue_select = 0;
    transport->driver_features = 0;
    transport->driver_features_beyond = false;
    set_interrupts(transport, 0);
    if (transport->device.reset != NULL) {
        transport->device.reset(transport->device.self);
    }
}

/*
 * Section 3.1.1: each step wants the one before it; a step that is refused is not set. Steps are taken back
 * by a reset only.
 */
static void write_status(struct virtio_mmio *transport, uint32_t value)
{
    uint32_t status = transport->status | (value & DRIVER_STATUS);

    if (value == 0) {
        reset(transport);
        return;
    }
    if ((transport->status & DRIVER_STATUS & ~value) != 0) {
        return;
    }
    if ((status & VIRTIO_STATUS_ACKNOWLEDGE) == 0) {
        status &= ~VIRTIO_STATUS_DRIVER;
    }
    if (!features_acceptable(transport)) { /* they are chosen after DRIVER alone, so this wants it too */
        status &= ~VIRTIO_STATUS_FEATURES_OK;
    }
    if ((status & VIRTIO_STATUS_FEATURES_OK) == 0) {
        status &= ~VIRTIO_STATUS_DRIVER_OK;
    }
    transport->status = status;
}

static void write_driver_features(struct virtio_mmio *transport, uint32_t value)
{
    const uint32_t select = transport->driver_features_select;

    if (!negotiating(transport)) {
        return;
    }
    if (select < 2) {
        const uint32_t shift = 32 * select;

        transport->driver_features &= ~((uint64_t)UINT32_MAX << shift);
        transport->driver_features |= (uint64_t)value << shift;
    } else if (value != 0) {
        transport->driver_features_beyond = true;
    }
}

/* --- Registers ----------------------------------------------------------------------------------------------- */

static uint32_t read_device_features(const struct virtio_mmio *transport)
{
    const uint32_t select = transport->device_features_select;

    return select < 2 ? (uint32_t)(offered_features(transport) >> (32 * select)) : 0;
}

static uint32_t read_register(const struct virtio_mmio *transport, uint64_t offset)
{
    switch (offset) {
    case VIRTIO_MMIO_MAGIC:
        return VIRTIO_MMIO_MAGIC_VALUE;
    case VIRTIO_MMIO_VERSION:
        return VIRTIO_MMIO_VERSION_VALUE;
    case VIRTIO_MMIO_DEVICE_ID:
        return transport->device.id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VIRTIO_MMIO_VENDOR_VALUE;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return read_device_features(transport);
    case VIRTIO_MMIO_QUEUE_SIZE_MAX:
        return queue_selected(transport) ? transport->device.queue_size_max : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue_selected(transport) && transport->queues[transport->queue_select].ready;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return transport->interrupt_status;
    case VIRTIO_MMIO_STATUS:
        return transport->status;
    case VIRTIO_MMIO_SHM_LENGTH_LOW: /* section 4.2.2: all ones say that there is no such shared memory */
    case VIRTIO_MMIO_SHM_LENGTH_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX;
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return transport->config_generation;
    default:
        return 0;
    }
}

static void set_half(loam_gpa *address, bool high, uint32_t value)
{
    const uint32_t shift = high ? 32 : 0;

    address->value = (address->value & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)value << shift;
}

static void write_queue_config(struct virtio_mmio *transport, uint64_t offset, uint32_t value)
{
    struct virtqueue_config *config = writable_config(transport);

    if (config == NULL) {
        return;
    }
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_SIZE:
        config->size = value;
        break;
    case VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW:
    case VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH:
        set_half(&config->descriptors, offset == VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAILABLE_LOW:
    case VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH:
        set_half(&config->available, offset == VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_half(&config->used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
        break;
    default:
        break;
    }
}

static void write_register(struct virtio_mmio *transport, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SELECT:
        transport->device_features_select = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SELECT:
        transport->driver_features_select = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        write_driver_features(transport, value);
        break;
    case VIRTIO_MMIO_QUEUE_SELECT:
        transport->queue_select = value;
        break;
    case VIRTIO_MMIO_QUEUE_READY:
        write_queue_ready(transport, value);
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        notify_queue(transport, value);
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        set_interrupts(transport, transport->interrupt_status & ~value);
        break;
    case VIRTIO_MMIO_STATUS:
        write_status(transport, value);
        break;
    default:
        write_queue_config(transport, offset, value);
        break;
    }
}

static void access_register(struct virtio_mmio *transport, struct bus_access *access)
{
    const bool whole = access->bytes == 4; /* at an offset between two registers there is none */

    if (!access->is_write) {
        access->value = whole ? read_register(transport, access->offset) : 0;
    } else if (whole) {
        write_register(transport, access->offset, (uint32_t)access->value);
    }
}

/* --- The device's configuration ------------------------------------------------------------------------------ */

/* Beyond config_bytes, reads give zero and writes are lost. */
static void access_config(struct virtio_mmio *transport, struct bus_access *access)
{
    const struct virtio_device *device = &transport->device;
    const uint64_t offset = access->offset - VIRTIO_MMIO_CONFIG;
    const uint64_t left = offset < device->config_bytes ? device->config_bytes - offset : 0;
    const uint32_t bytes = (uint32_t)(access->bytes < left ? access->bytes : left);
    uint8_t data[sizeof access->value] = {0};

    if (!access->is_write) {
        if (bytes > 0 && device->config_read != NULL) {
            device->config_read(device->self, (uint32_t)offset, data, bytes);
        }
        memcpy(&access->value, data, sizeof data);
    } else if (bytes > 0 && device->config_write != NULL && configurable(transport)) {
        memcpy(data, &access->value, sizeof data);
        device->config_write(device->self, (uint32_t)offset, data, bytes);
    }
}

/* --- Public -------------------------------------------------------------------------------------------------- */

static bool device_valid(const struct virtio_device *device)
{
    return device->id != 0 && device->notify != NULL && device->queue_count <= VIRTIO_MMIO_QUEUE_MAX &&
           loam_is_power_of_two(device->queue_size_max) && device->queue_size_max <= VIRTQUEUE_SIZE_MAX &&
           device->config_bytes <= VIRTIO_MMIO_BYTES - VIRTIO_MMIO_CONFIG;
}

enum loam_error virtio_mmio_init(struct virtio_mmio *transport, struct loam_gpa_map *map, struct irq_line irq,
                                 const struct virtio_device *device)
{
    *transport = (struct virtio_mmio){.status = 0};
    if (map == NULL || !device_valid(device)) {
        return LOAM_ERROR_INVALID;
    }
    transport->map = map;
    transport->irq = irq;
    transport->device = *device;
    pthread_mutex_init(&transport->lock, NULL);
    return LOAM_OK;
}

void virtio_mmio_destroy(struct virtio_mmio *transport)
{
    pthread_mutex_destroy(&transport->lock);
}

void virtio_mmio_access(void *transport, struct bus_access *access)
{
    virtio_mmio_lock(transport);
    if (access->offset < VIRTIO_MMIO_CONFIG) {
        access_register(transport, access);
    } else {
        access_config(transport, access);
    }
    virtio_mmio_unlock(transport);
}

void virtio_mmio_notify(struct virtio_mmio *transport, uint32_t queue)
{
    virtio_mmio_lock(transport);
    notify_queue(transport, queue);
    virtio_mmio_unlock(transport);
}

void virtio_mmio_lock(struct virtio_mmio *transport)
{
    pthread_mutex_lock(&transport->lock);
}

void virtio_mmio_unlock(struct virtio_mmio *transport)
{
    pthread_mutex_unlock(&transport->lock);
}

struct virtqueue *virtio_mmio_queue(struct virtio_mmio *transport, uint32_t index)
{
    return &transport->queues[index];
}

uint64_t virtio_mmio_features(const struct virtio_mmio *transport)
{
    return (transport->status & VIRTIO_STATUS_FEATURES_OK) != 0 ? transport->driver_features : 0;
}

void virtio_mmio_settle(struct virtio_mmio *transport, uint32_t queue, const struct loam_gpa_view *view, bool pushed)
{
    struct virtqueue *settled = &transport->queues[queue];

    if (pushed && virtqueue_interrupt_wanted(settled, view)) {
        raise_interrupt(transport, VIRTIO_INTERRUPT_USED);
    }
    if (settled->fault != VIRTQUEUE_FAULT_NONE) {
        need_reset(transport);
    }
}

/* Section 2.7.8: flags, index, and 8 bytes an entry; and the event behind them. */
static uint64_t used_bytes(const struct virtqueue_config *config)
{
    return UINT64_C(6) + UINT64_C(8) * config->size;
}

void virtio_mmio_wrote(const struct virtio_mmio *transport, uint32_t queue, const struct virtqueue_chain *chain)
{
    const struct virtqueue_config *config = &transport->queues[queue].config;
    const struct loam_piece *pieces = chain->pieces + chain->readable_count;

    if (transport->dirty == NULL) {
        return;
    }
    for (uint32_t i = 0; i < chain->writable_count; i++) {
        (void)loam_dirty_mark(transport->dirty, pieces[i].start, pieces[i].bytes);
    }
    (void)loam_dirty_mark(transport->dirty, config->used, used_bytes(config));
}

void virtio_mmio_config_changed(struct virtio_mmio *transport)
{
    transport->config_generation++;
    if (running(transport)) {
        raise_interrupt(transport, VIRTIO_INTERRUPT_CONFIG);
    }
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

#define INTERRUPTS (VIRTIO_INTERRUPT_USED | VIRTIO_INTERRUPT_CONFIG)

static const struct state_field fields[] = {
    STATE_FIELD(struct virtio_mmio, device.id, UINT32_MAX),
    STATE_FIELD(struct virtio_mmio, device.queue_count, VIRTIO_MMIO_QUEUE_MAX),
    STATE_FIELD(struct virtio_mmio, status, DRIVER_STATUS | VIRTIO_STATUS_NEEDS_RESET),
    STATE_FIELD(struct virtio_mmio, interrupt_status, INTERRUPTS),
    STATE_ANY(struct virtio_mmio, config_generation),
    STATE_ANY(struct virtio_mmio, device_features_select),
    STATE_ANY(struct virtio_mmio, driver_features_select),
    STATE_ANY(struct virtio_mmio, queue_select),
    STATE_ANY(struct virtio_mmio, driver_features),
    STATE_BOOL(struct virtio_mmio, driver_features_beyond),
};

static const struct state_field config_fields[] = {
    STATE_ANY(struct virtqueue_config, size),
    STATE_ANY(struct virtqueue_config, descriptors.value),
    STATE_ANY(struct virtqueue_config, available.value),
    STATE_ANY(struct virtqueue_config, used.value),
};

static const struct state_field queue_fields[] = {
    STATE_BOOL(struct virtqueue, ready),
    STATE_FIELD(struct virtqueue, fault, VIRTQUEUE_FAULT_COUNT - 1),
    STATE_ANY(struct virtqueue, next_used),
};

void virtio_mmio_save(struct virtio_mmio *transport, struct state_writer *writer, uint32_t index)
{
    virtio_mmio_lock(transport);
    state_begin(writer, STATE_VIRTIO, index);
    state_put_fields(writer, STATE_FIELDS(fields), transport);
    for (uint32_t i = 0; i < transport->device.queue_count; i++) {
        state_put_fields(writer, STATE_FIELDS(config_fields), &transport->configs[i]);
        state_put_fields(writer, STATE_FIELDS(config_fields), &transport->queues[i].config);
        state_put_fields(writer, STATE_FIELDS(queue_fields), &transport->queues[i]);
    }
    state_end(writer);
    virtio_mmio_unlock(transport);
}

/* One that was ready has rings in this machine's memory too, or the driver is told that it has to begin anew. */
static enum loam_error take_queue(struct virtio_mmio *transport, struct state_record *record, uint32_t index,
                                  const struct loam_gpa_view *view, struct loam_diag *diag)
{
    struct virtqueue taken = {.ready = false};
    struct virtqueue *queue = &transport->queues[index];
    enum loam_error error = state_take_fields(record, STATE_FIELDS(config_fields), &transport->configs[index], diag);

    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(config_fields), &taken.config, diag);
    }
    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(queue_fields), &taken, diag);
    }
    if (error != LOAM_OK || !taken.ready) {
        queue->fault = taken.fault;
        return error;
    }
    if (virtqueue_enable(queue, view, &taken.config, transport->device.queue_size_max) != LOAM_OK) {
        return state_refuse(record, diag, "the rings of queue %u cannot be used: %s", index,
                            virtqueue_fault_name(queue->fault));
    }
    queue->fault = taken.fault;
    queue->next_available = queue->next_used = taken.next_used;
    return LOAM_OK;
}

static enum loam_error check_device(const struct virtio_mmio *transport, const struct state_record *record, uint32_t id,
                                    uint32_t queue_count, struct loam_diag *diag)
{
    if (transport->device.id != id || transport->device.queue_count != queue_count) {
        return state_refuse(record, diag, "virtio device %u with %u queues wanted there, and %u with %u found here", id,
                            queue_count, transport->device.id, transport->device.queue_count);
    }
    if ((transport->status & VIRTIO_STATUS_FEATURES_OK) != 0 && !features_acceptable(transport)) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "state: virtio device %u: its driver uses features 0x%llx, of which 0x%llx are not offered "
                         "here: give the device what it had",
                         id, (unsigned long long)transport->driver_features,
                         (unsigned long long)(transport->driver_features & ~offered_features(transport)));
    }
    return LOAM_OK;
}

enum loam_error virtio_mmio_load(struct virtio_mmio *transport, struct state_reader *reader, uint32_t index,
                                 struct loam_diag *diag)
{
    const struct virtio_device device = transport->device;
    const struct loam_gpa_view *view;
    struct state_record *record;
    struct virtio_device taken;
    enum loam_error error = state_find(reader, STATE_VIRTIO, index, &record, diag);

    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(fields), transport, diag);
        taken = transport->device;
        transport->device = device;
    }
    if (error == LOAM_OK) {
        error = check_device(transport, record, taken.id, taken.queue_count, diag);
    }
    view = loam_gpa_map_acquire(transport->map);
    for (uint32_t i = 0; error == LOAM_OK && i < device.queue_count; i++) {
        error = take_queue(transport, record, i, view, diag);
    }
    loam_gpa_map_release(transport->map, view);
    return error == LOAM_OK ? state_done(record, diag) : error;
}

void virtio_mmio_replay(struct virtio_mmio *transport)
{
    for (uint32_t i = 0; i < transport->device.queue_count; i++) {
        virtio_mmio_notify(transport, i);
    }
}
