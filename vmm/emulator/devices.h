// SPDX-License-Identifier: Apache-2.0
/*
 * A domain's virtio devices over its lives: what they stand on (files of disks, the way to a network) is opened once, the
 * devices themselves are made for each machine anew. Transport 0 is virtio-rng's where there is one; disks, networks and
 * the balloon follow in this order.
 *
 *     devices_open -> { devices_attach -> [quiesce, resume] -> machine_stop, machine_wait -> devices_detach } -> devices_close
 *
 * Threads: the domain's owner's. Attach and detach may be another's meanwhile; who asks then, but for quiesce and resume,
 * is answered.
 */
#ifndef LOAM_VMM_EMULATOR_DEVICES_H
#define LOAM_VMM_EMULATOR_DEVICES_H

#include "loam/error.h"
#include "vmm/emulator/device.h"
#include "vmm/emulator/line.h"
#include "vmm/launch.h"

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Opaque. */
struct devices;

/*
 * line outlives the devices. LOAM_ERROR_INVALID, LOAM_ERROR_SYSTEM: diag names the device and what is wrong with it.
 */
LOAM_MUST_USE enum loam_error devices_open(const struct line *line, const struct device_news *news,
                                           struct devices **devices, struct loam_diag *diag);

/* They are detached. NULL is allowed. */
void devices_close(struct devices *devices);

/*
 * The kernel's command line: what was asked for, and for Linux without ACPI, which has nothing else to find them by, a word for each
 * device, unless it has such words already. The devices'.
 */
const char *devices_command_line(const struct devices *devices);

/* Whether transport 0 is virtio-rng's: one was asked for, or the guest is the self-test, which attests it. */
bool devices_has_rng(const struct line *line);

/* At which transports they will be attached: launch_config. */
uint32_t devices_transports(const struct devices *devices);

/* Threads of their own while they are attached. */
uint32_t devices_thread_count(const struct devices *devices);

/* Make them, on a machine that has not been started. */
LOAM_MUST_USE enum loam_error devices_attach(struct devices *devices, struct launch *launch, struct loam_diag *diag);

/*
 * Of a machine that has stopped, or none; NULL is allowed. false: the thread of one is in a call that does not return;
 * the machine and the guest's memory have to stay.
 */
bool devices_detach(struct devices *devices);

/* Return when no device is at the guest's memory; none is until devices_resume. */
void devices_quiesce(struct devices *devices);
void devices_resume(struct devices *devices);

/* Written down, and read again: state.h. They are attached and quiet, and no vCPU runs. */
void devices_save(const struct devices *devices, struct state_writer *writer);
LOAM_MUST_USE enum loam_error devices_load(const struct devices *devices, struct state_reader *reader,
                                           struct loam_diag *diag);

/* What the guest has of its memory, and shall have; false: there is no balloon. */
bool devices_balloon(struct devices *devices, uint64_t *bytes);
bool devices_set_balloon(struct devices *devices, uint64_t bytes);

/* As chardev_poll and chardev_turn, without input. */
#define DEVICES_POLL_MAX 1u
size_t devices_poll(struct devices *devices, struct pollfd fds[DEVICES_POLL_MAX], int *timeout_milliseconds);
void devices_turn(struct devices *devices);

/*
 * As QEMU's query-block, query-named-block-nodes and query-blockstats have them, and the names of all devices as qom-list
 * has them. New references.
 */
json_t *devices_block(const struct devices *devices);
json_t *devices_block_nodes(const struct devices *devices);
json_t *devices_block_stats(const struct devices *devices, bool by_node);
json_t *devices_list(const struct devices *devices);

#endif
