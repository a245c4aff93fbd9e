// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/device_net.h"

#include "vmm/emulator/net_tap.h"
#include "vmm/emulator/net_user.h"
#include "vmm/virtio_net.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct card {
    const struct line_net *line;
    bool is_attached;
    unsigned int transport; /* likewise */
    struct net_tap *tap;    /* NULL: none */
    struct net_user *user;  /* NULL: none */
    struct virtio_net net;  /* if attached */
};

static enum loam_error connect_card(struct card *card, struct loam_diag *diag)
{
    struct loam_diag why = {0};
    enum loam_error error = card->line->kind == LINE_NET_TAP
                                ? net_tap_open(card->line->fd, &card->net, &card->tap, &why)
                                : net_user_open(&card->net, &card->user, &why);

    return error == LOAM_OK ? LOAM_OK : loam_fail(diag, LOAM_ERROR_INVALID, "network %s: %s", card->line->id, why.text);
}

static enum loam_error attach(void *self, struct launch *launch, unsigned int transport, struct loam_diag *diag)
{
    struct card *card = self;
    struct irq_line irq = machine_irq(launch->machine, machine_virtio_irq(transport));
    enum loam_error error = virtio_net_init(&card->net, loam_memory_map(launch->memory), irq, card->line->mac);

    if (error != LOAM_OK) {
        return loam_fail(diag, error, "network %s: cannot be set up with its MAC address", card->line->id);
    }
    card->is_attached = true;
    card->transport = transport;
    error = machine_add_virtio(launch->machine, transport, card->line->id, &card->net.mmio, diag);
    return error == LOAM_OK ? connect_card(card, diag) : error;
}

static bool detach(void *self)
{
    struct card *card = self;

    net_tap_close(card->tap);
    net_user_close(card->user);
    card->tap = NULL;
    card->user = NULL;
    if (card->is_attached) {
        virtio_net_destroy(&card->net);
        card->is_attached = false;
    }
    return true;
}

static void quiesce(void *self)
{
    struct card *card = self;

    if (card->is_attached) {
        virtio_net_quiesce(&card->net);
    }
}

static void resume(void *self)
{
    struct card *card = self;

    if (card->is_attached) {
        virtio_net_resume(&card->net);
    }
}

static void save(void *self, struct state_writer *writer)
{
    struct card *card = self;

    virtio_net_save(&card->net, writer, card->transport);
}

static enum loam_error load(void *self, struct state_reader *reader, struct loam_diag *diag)
{
    struct card *card = self;
    enum loam_error error = virtio_net_load(&card->net, reader, card->transport, diag);

    if (error == LOAM_OK) {
        virtio_mmio_replay(&card->net.mmio);
    }
    return error;
}

static void close_card(void *self)
{
    struct card *card = self;

    if (card->line->kind == LINE_NET_TAP) {
        close(card->line->fd);
    }
    free(card);
}

enum loam_error device_net_open(const struct line_net *line, struct device *device, struct loam_diag *diag)
{
    static const struct device_operations operations = {
        "virtio-net-device", attach, detach, quiesce, resume, save, load, close_card};
    struct card *card = calloc(1, sizeof *card);

    if (card == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network %s", line->id);
    }
    card->line = line;
    if (line->kind == LINE_NET_TAP) {
        (void)fcntl(line->fd, F_SETFD, FD_CLOEXEC);
    }
    *device = (struct device){&operations, card, line->id};
    return LOAM_OK;
}
