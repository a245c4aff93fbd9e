// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/devices.h"

#include "vmm/emulator/device_balloon.h"
#include "vmm/emulator/device_disk.h"
#include "vmm/emulator/device_net.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What Linux calls a virtio-mmio device that nothing else tells it of (Documentation/admin-guide/kernel-parameters.txt). */
#define WORD_KEY    "virtio_mmio.device="
#define WORD_FORMAT WORD_KEY "4K@0x%lx:%u"
#define WORD_BYTES  64

#define DEVICE_MAX (LINE_DISK_MAX + LINE_NET_MAX + 1)

struct devices {
    const struct line *line;
    char *command_line;
    unsigned int first; /* transport of list[0] */
    uint32_t count;
    struct device list[DEVICE_MAX]; /* disks, networks, balloon */
    struct device *balloon;         /* in list; NULL: none */
    bool is_stuck;                  /* a thread was left behind, and what it uses */
};

/* --- Opening --------------------------------------------------------------------------------------------------------- */

static enum loam_error make_command_line(struct devices *devices, struct loam_diag *diag)
{
    const char *asked = devices->line->append != NULL ? devices->line->append : "";
    bool is_told = strstr(asked, WORD_KEY) != NULL;
    unsigned int transport_count = devices->first + devices->count;
    size_t room = strlen(asked) + 1 + (size_t)transport_count * WORD_BYTES, length;

    if (transport_count > MACHINE_VIRTIO_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "virtio devices: %u wanted, and there is room for %u",
                         transport_count, MACHINE_VIRTIO_MAX);
    }
    devices->command_line = malloc(room);
    if (devices->command_line == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "command line");
    }
    length = (size_t)snprintf(devices->command_line, room, "%s", asked);
    for (unsigned int i = 0; !is_told && i < transport_count; i++) {
        length +=
            (size_t)snprintf(devices->command_line + length, room - length, "%s" WORD_FORMAT, length == 0 ? "" : " ",
                             MACHINE_VIRTIO_BASE + i * MACHINE_VIRTIO_BYTES, machine_virtio_irq(i));
    }
    return LOAM_OK;
}

static enum loam_error open_all(struct devices *devices, const struct device_news *news, struct loam_diag *diag)
{
    const struct line *line = devices->line;
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < line->disk_count; i++) {
        error = device_disk_open(&line->disks[i], &devices->list[devices->count], diag);
        devices->count += error == LOAM_OK ? 1 : 0;
    }
    for (uint32_t i = 0; error == LOAM_OK && i < line->net_count; i++) {
        error = device_net_open(&line->nets[i], &devices->list[devices->count], diag);
        devices->count += error == LOAM_OK ? 1 : 0;
    }
    if (error == LOAM_OK && line->balloon_id != NULL) {
        error = device_balloon_open(line, news, &devices->list[devices->count], diag);
        devices->balloon = error == LOAM_OK ? &devices->list[devices->count++] : NULL;
    }
    return error == LOAM_OK ? make_command_line(devices, diag) : error;
}

bool devices_has_rng(const struct line *line)
{
    return line->rng_id != NULL || line->kernel == NULL;
}

enum loam_error devices_open(const struct line *line, const struct device_news *news, struct devices **devices,
                             struct loam_diag *diag)
{
    struct devices *made = calloc(1, sizeof *made);
    enum loam_error error;

    *devices = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "devices");
    }
    made->line = line;
    made->first = devices_has_rng(line) ? 1 : 0;
    error = open_all(made, news, diag);
    if (error != LOAM_OK) {
        devices_close(made);
        return error;
    }
    *devices = made;
    return LOAM_OK;
}

void devices_close(struct devices *devices)
{
    if (devices == NULL) {
        return;
    }
    for (uint32_t i = 0; i < devices->count; i++) {
        devices->list[i].operations->close(devices->list[i].self);
    }
    free(devices->command_line);
    free(devices);
}

const char *devices_command_line(const struct devices *devices)
{
    return devices->command_line;
}

uint32_t devices_transports(const struct devices *devices)
{
    return ((1u << devices->count) - 1) << devices->first;
}

uint32_t devices_thread_count(const struct devices *devices)
{
    return devices->count;
}

/* --- On a machine ------------------------------------------------------------------------------------------------------ */

enum loam_error devices_attach(struct devices *devices, struct launch *launch, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < devices->count; i++) {
        error = devices->list[i].operations->attach(devices->list[i].self, launch, devices->first + i, diag);
    }
    return error;
}

bool devices_detach(struct devices *devices)
{
    for (uint32_t i = 0; devices != NULL && i < devices->count; i++) {
        devices->is_stuck = !devices->list[i].operations->detach(devices->list[i].self) || devices->is_stuck;
    }
    return devices == NULL || !devices->is_stuck;
}

void devices_quiesce(struct devices *devices)
{
    for (uint32_t i = 0; i < devices->count; i++) {
        devices->list[i].operations->quiesce(devices->list[i].self);
    }
}

void devices_resume(struct devices *devices)
{
    for (uint32_t i = 0; i < devices->count; i++) {
        devices->list[i].operations->resume(devices->list[i].self);
    }
}

void devices_save(const struct devices *devices, struct state_writer *writer)
{
    for (uint32_t i = 0; i < devices->count; i++) {
        devices->list[i].operations->save(devices->list[i].self, writer);
    }
}

enum loam_error devices_load(const struct devices *devices, struct state_reader *reader, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < devices->count; i++) {
        error = devices->list[i].operations->load(devices->list[i].self, reader, diag);
    }
    return error;
}

bool devices_balloon(struct devices *devices, uint64_t *bytes)
{
    *bytes = devices->balloon != NULL ? device_balloon_bytes(devices->balloon) : 0;
    return devices->balloon != NULL;
}

bool devices_set_balloon(struct devices *devices, uint64_t bytes)
{
    if (devices->balloon != NULL) {
        device_balloon_set(devices->balloon, bytes);
    }
    return devices->balloon != NULL;
}

size_t devices_poll(struct devices *devices, struct pollfd fds[DEVICES_POLL_MAX], int *timeout_milliseconds)
{
    return devices->balloon != NULL ? device_balloon_poll(devices->balloon, fds, timeout_milliseconds) : 0;
}

void devices_turn(struct devices *devices)
{
    if (devices->balloon != NULL) {
        device_balloon_turn(devices->balloon);
    }
}

/* --- In words of QMP ------------------------------------------------------------------------------------------------------ */

json_t *devices_block(const struct devices *devices)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < devices->line->disk_count; i++) {
        json_array_append_new(rows, device_disk_block(&devices->list[i]));
    }
    return rows;
}

/* A disk's own node, and that of the file below it, which may be one. */
static bool has_storage(const struct line_disk *line)
{
    return strcmp(line->node, line->storage) != 0;
}

json_t *devices_block_nodes(const struct devices *devices)
{
    json_t *nodes = json_array();

    for (uint32_t i = 0; i < devices->line->disk_count; i++) {
        json_array_append_new(nodes, device_disk_node(&devices->list[i], false));
        if (has_storage(&devices->line->disks[i])) {
            json_array_append_new(nodes, device_disk_node(&devices->list[i], true));
        }
    }
    return nodes;
}

static json_t *node_stats(const struct device *device, const char *node)
{
    return json_pack("{ssso}", "node-name", node, "stats", device_disk_stats(device));
}

json_t *devices_block_stats(const struct devices *devices, bool by_node)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < devices->line->disk_count; i++) {
        const struct line_disk *line = &devices->line->disks[i];
        json_t *row = node_stats(&devices->list[i], line->node);

        if (!by_node) {
            json_t *block = device_disk_block(&devices->list[i]);

            json_object_set_new(row, "device", json_string(""));
            json_object_set(row, "qdev", json_object_get(block, "qdev"));
            json_decref(block);
        }
        json_array_append_new(rows, row);
        if (by_node && has_storage(line)) {
            json_array_append_new(rows, node_stats(&devices->list[i], line->storage));
        }
    }
    return rows;
}

static void list_one(json_t *list, const char *id, const char *type)
{
    char child[64];

    if (id != NULL) {
        snprintf(child, sizeof child, "child<%s>", type);
        json_array_append_new(list, json_pack("{ssss}", "name", id, "type", child));
    }
}

json_t *devices_list(const struct devices *devices)
{
    json_t *list = json_array();

    list_one(list, devices->line->serial_id, "isa-serial");
    list_one(list, devices->line->rng_id, "virtio-rng-device");
    for (uint32_t i = 0; i < devices->count; i++) {
        list_one(list, devices->list[i].id, devices->list[i].operations->type);
    }
    return list;
}
