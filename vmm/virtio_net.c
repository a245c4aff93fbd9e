// SPDX-License-Identifier: Apache-2.0
/*
 * No chain is kept from one call to the next: a queue may stop at any time, and nothing has to be forgotten.
 *
 * Whoever was told that there is no room is told once when that may have changed: the driver rang for the receive
 * queue, the queue stopped (so that the frame can be dropped), or the guest goes on.
 */
#include "vmm/virtio_net.h"

#include <string.h>

/* Section 5.1.6: no flags, no segmentation, and a count of one buffer, which VERSION_1 wants there in any case. */
static const uint8_t header[VIRTIO_NET_HEADER_BYTES] = {[10] = 1};

/* --- Pieces of guest memory ------------------------------------------------------------------------------------- */

/* Where in pieces a range starts and how much of it lies there; the pieces hold all of it. */
static const struct loam_piece *skip(const struct loam_piece *pieces, uint64_t *offset)
{
    while (*offset >= pieces->bytes) {
        *offset -= pieces->bytes;
        pieces++;
    }
    return pieces;
}

static size_t part(const struct loam_piece *piece, uint64_t offset, size_t bytes)
{
    const uint64_t left = piece->bytes - offset;

    return left < bytes ? (size_t)left : bytes;
}

static void gather(const struct loam_piece *pieces, uint64_t offset, uint8_t *buffer, size_t bytes)
{
    while (bytes > 0) {
        size_t now;

        pieces = skip(pieces, &offset);
        now = part(pieces, offset, bytes);
        memcpy(buffer, (const uint8_t *)pieces->hva + offset, now);
        buffer += now;
        offset += now;
        bytes -= now;
    }
}

static void scatter(const struct loam_piece *pieces, uint64_t offset, const uint8_t *buffer, size_t bytes)
{
    while (bytes > 0) {
        size_t now;

        pieces = skip(pieces, &offset);
        now = part(pieces, offset, bytes);
        memcpy((uint8_t *)pieces->hva + offset, buffer, now);
        buffer += now;
        offset += now;
        bytes -= now;
    }
}

/* --- Transmission ----------------------------------------------------------------------------------------------- */

static bool is_frame(uint64_t bytes)
{
    return bytes >= VIRTIO_NET_FRAME_BYTES_MIN && bytes <= VIRTIO_NET_FRAME_BYTES_MAX;
}

static void count(struct virtio_net_count *counted, bool is_through, uint64_t bytes)
{
    if (is_through) {
        counted->frames++;
        counted->bytes += bytes;
    } else {
        counted->dropped_frames++;
    }
}

/* Header and frame may be cut into buffers anywhere. Buffers to write are no use here. */
static void transmit(struct virtio_net *net, const struct virtqueue_chain *chain)
{
    const struct virtio_net_outside *outside = &net->outside;
    const uint64_t bytes =
        chain->readable_bytes > VIRTIO_NET_HEADER_BYTES ? chain->readable_bytes - VIRTIO_NET_HEADER_BYTES : 0;
    bool is_sent = false;

    if (net->is_up && outside->send != NULL && is_frame(bytes)) {
        gather(chain->pieces, VIRTIO_NET_HEADER_BYTES, net->frame, bytes);
        is_sent = outside->send(outside->self, net->frame, bytes);
    }
    count(&net->counts.sent, is_sent, bytes);
}

static void transmit_all(struct virtio_net *net)
{
    struct virtqueue *queue = virtio_mmio_queue(&net->mmio, VIRTIO_NET_TRANSMIT);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(net->mmio.map);
    struct virtqueue_chain chain = {.pieces = net->pieces, .capacity = VIRTIO_NET_PIECE_MAX};
    bool pushed = false;

    /* A driver that makes more available meanwhile rings again. */
    for (uint32_t i = 0; i < queue->config.size && virtqueue_pop(queue, view, &chain) == LOAM_OK; i++) {
        transmit(net, &chain);
        pushed |= virtqueue_push(queue, view, chain.head, 0) == LOAM_OK;
        virtio_mmio_wrote(&net->mmio, VIRTIO_NET_TRANSMIT, &chain);
    }
    virtio_mmio_settle(&net->mmio, VIRTIO_NET_TRANSMIT, view, pushed);
    loam_gpa_map_release(net->mmio.map, view);
}

/* --- Reception -------------------------------------------------------------------------------------------------- */

static void give_room(struct virtio_net *net)
{
    if (net->is_room_awaited && !net->is_quiet) {
        net->is_room_awaited = false;
        if (net->outside.room != NULL) {
            net->outside.room(net->outside.self);
        }
    }
}

/* There is a driver, and the device works. */
static bool is_running(const struct virtio_net *net)
{
    const uint32_t stopped = VIRTIO_STATUS_FAILED | VIRTIO_STATUS_NEEDS_RESET;

    return (net->mmio.status & (VIRTIO_STATUS_DRIVER_OK | stopped)) == VIRTIO_STATUS_DRIVER_OK;
}

/* Into the chain's buffers to write, which may be cut anywhere. Returns the bytes written: none if it does not fit. */
static uint32_t fill(const struct virtqueue_chain *chain, const uint8_t *frame, size_t bytes)
{
    const struct loam_piece *pieces = chain->pieces + chain->readable_count;

    if (chain->writable_bytes < VIRTIO_NET_HEADER_BYTES + bytes) {
        return 0;
    }
    scatter(pieces, 0, header, sizeof header);
    scatter(pieces, sizeof header, frame, bytes);
    return (uint32_t)(sizeof header + bytes);
}

/* As virtio_net_receive, for a driver that runs; a queue that it has not set up is one that drops. */
static bool deliver(struct virtio_net *net, const uint8_t *frame, size_t bytes)
{
    struct virtqueue *queue = virtio_mmio_queue(&net->mmio, VIRTIO_NET_RECEIVE);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(net->mmio.map);
    struct virtqueue_chain chain = {.pieces = net->pieces, .capacity = VIRTIO_NET_PIECE_MAX};
    const enum loam_error error = virtqueue_pop(queue, view, &chain);
    uint32_t filled = 0;
    bool pushed = false;

    if (error == LOAM_OK) {
        filled = fill(&chain, frame, bytes);
        pushed = virtqueue_push(queue, view, chain.head, filled) == LOAM_OK;
        virtio_mmio_wrote(&net->mmio, VIRTIO_NET_RECEIVE, &chain);
    }
    if (error != LOAM_ERROR_NOT_FOUND) {
        count(&net->counts.received, pushed && filled > 0, bytes);
        virtio_mmio_settle(&net->mmio, VIRTIO_NET_RECEIVE, view, pushed);
    }
    loam_gpa_map_release(net->mmio.map, view);
    return error != LOAM_ERROR_NOT_FOUND;
}

/* --- The device ------------------------------------------------------------------------------------------------- */

static void notify(void *self, uint32_t queue)
{
    struct virtio_net *net = self;

    if (queue == VIRTIO_NET_TRANSMIT) {
        transmit_all(net);
    } else {
        give_room(net);
    }
}

static void stop(void *self, uint32_t queue)
{
    if (queue == VIRTIO_NET_RECEIVE) {
        give_room(self);
    }
}

static void config_read(void *self, uint32_t offset, uint8_t *data, uint32_t bytes)
{
    const struct virtio_net *net = self;
    uint8_t config[VIRTIO_NET_CONFIG_BYTES] = {0};

    memcpy(config, net->mac, sizeof net->mac);
    config[VIRTIO_NET_MAC_BYTES] = net->is_up ? VIRTIO_NET_LINK_UP : 0;
    memcpy(data, config + offset, bytes);
}

static bool is_station(const uint8_t mac[VIRTIO_NET_MAC_BYTES])
{
    static const uint8_t nobody[VIRTIO_NET_MAC_BYTES];

    return (mac[0] & 1) == 0 && memcmp(mac, nobody, sizeof nobody) != 0;
}

/* --- Public ----------------------------------------------------------------------------------------------------- */

enum loam_error virtio_net_init(struct virtio_net *net, struct loam_gpa_map *map, struct irq_line irq,
                                const uint8_t mac[VIRTIO_NET_MAC_BYTES])
{
    const struct virtio_device device = {
        .self = net,
        .id = VIRTIO_NET_DEVICE_ID,
        .queue_count = VIRTIO_NET_QUEUE_COUNT,
        .queue_size_max = VIRTIO_NET_QUEUE_SIZE_MAX,
        .config_bytes = VIRTIO_NET_CONFIG_BYTES,
        .features = VIRTIO_NET_FEATURE_MAC | VIRTIO_NET_FEATURE_STATUS,
        .notify = notify,
        .stop = stop,
        .config_read = config_read,
    };

    *net = (struct virtio_net){.is_up = true};
    if (!is_station(mac)) {
        return LOAM_ERROR_INVALID;
    }
    memcpy(net->mac, mac, sizeof net->mac);
    return virtio_mmio_init(&net->mmio, map, irq, &device);
}

void virtio_net_destroy(struct virtio_net *net)
{
    virtio_mmio_destroy(&net->mmio);
}

void virtio_net_connect(struct virtio_net *net, const struct virtio_net_outside *outside)
{
    virtio_mmio_lock(&net->mmio);
    net->outside = outside != NULL ? *outside : (struct virtio_net_outside){.self = NULL};
    net->is_room_awaited = false;
    virtio_mmio_unlock(&net->mmio);
}

bool virtio_net_receive(struct virtio_net *net, const void *frame, size_t bytes)
{
    bool is_done = true;

    virtio_mmio_lock(&net->mmio);
    if (!is_frame(bytes) || !net->is_up || !is_running(net)) {
        count(&net->counts.received, false, bytes);
    } else {
        is_done = !net->is_quiet && deliver(net, frame, bytes);
    }
    net->is_room_awaited |= !is_done;
    virtio_mmio_unlock(&net->mmio);
    return is_done;
}

void virtio_net_lose(struct virtio_net *net)
{
    virtio_mmio_lock(&net->mmio);
    count(&net->counts.received, false, 0);
    virtio_mmio_unlock(&net->mmio);
}

void virtio_net_quiesce(struct virtio_net *net)
{
    virtio_mmio_lock(&net->mmio);
    net->is_quiet = true;
    virtio_mmio_unlock(&net->mmio);
}

void virtio_net_resume(struct virtio_net *net)
{
    virtio_mmio_lock(&net->mmio);
    net->is_quiet = false;
    if (net->is_link_news) {
        net->is_link_news = false;
        virtio_mmio_config_changed(&net->mmio);
    }
    give_room(net);
    virtio_mmio_unlock(&net->mmio);
}

void virtio_net_set_link(struct virtio_net *net, bool is_up)
{
    virtio_mmio_lock(&net->mmio);
    if (net->is_up != is_up) {
        net->is_up = is_up;
        net->is_link_news = net->is_quiet;
        if (!net->is_quiet) {
            virtio_mmio_config_changed(&net->mmio);
        }
        give_room(net);
    }
    virtio_mmio_unlock(&net->mmio);
}

void virtio_net_read_counts(struct virtio_net *net, struct virtio_net_counts *counts)
{
    virtio_mmio_lock(&net->mmio);
    *counts = net->counts;
    virtio_mmio_unlock(&net->mmio);
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

static const struct state_field state_fields[] = {
    STATE_BOOL(struct virtio_net, is_up),
    STATE_ARRAY(struct virtio_net, mac, UINT64_MAX),
};

void virtio_net_save(struct virtio_net *net, struct state_writer *writer, uint32_t index)
{
    virtio_mmio_save(&net->mmio, writer, index);
    state_begin(writer, STATE_VIRTIO_NET, index);
    state_put_fields(writer, STATE_FIELDS(state_fields), net);
    state_end(writer);
}

enum loam_error virtio_net_load(struct virtio_net *net, struct state_reader *reader, uint32_t index,
                                struct loam_diag *diag)
{
    uint8_t mac[VIRTIO_NET_MAC_BYTES];
    struct state_record *record;
    enum loam_error error = virtio_mmio_load(&net->mmio, reader, index, diag);

    memcpy(mac, net->mac, sizeof mac);
    if (error == LOAM_OK) {
        error = state_find(reader, STATE_VIRTIO_NET, index, &record, diag);
    }
    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(state_fields), net, diag);
    }
    if (error == LOAM_OK && memcmp(mac, net->mac, sizeof mac) != 0) {
        return state_refuse(record, diag, "its MAC address is another than that of the network here");
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}
