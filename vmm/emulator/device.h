// SPDX-License-Identifier: Apache-2.0
/* One virtio device over a domain's lives: what every kind of them does. Threads: as devices.h says. */
#ifndef LOAM_VMM_EMULATOR_DEVICE_H
#define LOAM_VMM_EMULATOR_DEVICE_H

#include "loam/error.h"
#include "vmm/launch.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct device_operations {
    const char *type; /* on the command line */
    /* Make it at a transport of a machine that has not been started. What is there on failure, detach takes away. */
    enum loam_error (*attach)(void *self, struct launch *launch, unsigned int transport, struct loam_diag *diag);
    /* Of a machine that has stopped; nothing of what is not attached. false: it is in a call that does not return. */
    bool (*detach)(void *self);
    /* Return when it is not at the guest's memory; resume lets it. Nothing of what is not attached. */
    void (*quiesce)(void *self);
    void (*resume)(void *self);
    /* Written down, and read again (state.h), at the transport where it is attached; it is quiet, and no vCPU runs. */
    void (*save)(void *self, struct state_writer *writer);
    enum loam_error (*load)(void *self, struct state_reader *reader, struct loam_diag *diag);
    /* It is detached. */
    void (*close)(void *self);
};

struct device {
    const struct device_operations *operations;
    void *self;
    const char *id;
};

/* Where devices tell what they do: from any thread; data becomes its own. */
struct device_news {
    void (*event)(void *self, const char *name, json_t *data);
    void *self;
};

#endif
