// SPDX-License-Identifier: Apache-2.0
/*
 * The network device (virtio 1.2, section 5.1) on a virtio-mmio transport: one receive queue, one transmit queue, and a
 * way outside that somebody else is.
 *
 * It carries single Ethernet frames of VIRTIO_NET_FRAME_BYTES_MIN to VIRTIO_NET_FRAME_BYTES_MAX bytes; others are
 * dropped. Nothing is offloaded, so what a driver writes to a frame's header is not looked at. Receive buffers are not
 * merged: as section 5.1.6.3.1 asks of a driver without offloads, each takes a whole frame. One that is too small comes
 * back with nothing in it, and its frame is dropped. A notification is bounded work: as many chains as the queue has
 * entries.
 *
 *     virtio_net_init -> virtio_net_connect -> { outside.send; virtio_net_receive } -> virtio_net_connect(NULL)
 *                     -> virtio_net_destroy
 *
 * Frames for a guest without a driver that runs are dropped, as by a network card that is switched off; those for a
 * driver that is short of buffers, or for a guest that stands still, stay with whoever brings them until room is
 * called.
 *
 * Threads: any; all goes by the transport's lock. Lock order as the transport's: who calls in here holds no lock that
 * outside's functions take.
 */
#ifndef LOAM_VMM_VIRTIO_NET_H
#define LOAM_VMM_VIRTIO_NET_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/irq.h"
#include "vmm/virtio_mmio.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_NET_DEVICE_ID       1u
#define VIRTIO_NET_QUEUE_SIZE_MAX  256u
#define VIRTIO_NET_MAC_BYTES       6u
#define VIRTIO_NET_CONFIG_BYTES    8u  /* MAC, status: section 5.1.4 */
#define VIRTIO_NET_HEADER_BYTES    12u /* before each frame, in both directions: section 5.1.6 */
#define VIRTIO_NET_FRAME_BYTES_MIN 14u /* an Ethernet header */
#define VIRTIO_NET_FRAME_BYTES_MAX                                                                                     \
    (14u + 4 + 1500) /* with a VLAN's tag and an MTU of 1500; the checksum is not carried */
/* Twice the queue: each of a longest chain's buffers may go across one end of a region. */
#define VIRTIO_NET_PIECE_MAX (2 * VIRTIO_NET_QUEUE_SIZE_MAX)

enum virtio_net_queue { VIRTIO_NET_RECEIVE, VIRTIO_NET_TRANSMIT, VIRTIO_NET_QUEUE_COUNT };

/* What is offered (section 5.1.3), and the status in the configuration. */
#define VIRTIO_NET_FEATURE_MAC    (UINT64_C(1) << 5)
#define VIRTIO_NET_FEATURE_STATUS (UINT64_C(1) << 16)
#define VIRTIO_NET_LINK_UP        1u

/* The way outside. Its functions are called with the transport locked: they never wait, and do not call back in. */
struct virtio_net_outside {
    void *self;
    /* A frame that the guest sends; it is the caller's again on return. false: it is lost. */
    bool (*send)(void *self, const void *frame, size_t bytes);
    /* virtio_net_receive has answered false, and it is worth while to call it again. NULL: nobody will. */
    void (*room)(void *self);
};

struct virtio_net_count {
    uint64_t frames;
    uint64_t bytes; /* of those frames, without their headers */
    uint64_t dropped_frames;
};

struct virtio_net_counts {
    struct virtio_net_count received; /* by the guest */
    struct virtio_net_count sent;     /* by the guest */
};

struct virtio_net {
    struct virtio_mmio mmio; /* for the bus: virtio_mmio_access, &net->mmio, VIRTIO_MMIO_BYTES */
    struct virtio_net_outside outside;
    struct virtio_net_counts counts;
    bool is_up;           /* the link */
    bool is_quiet;        /* the guest stands still */
    bool is_link_news;    /* the link has changed since it does */
    bool is_room_awaited; /* virtio_net_receive has answered false, and room has not been called since */
    uint8_t mac[VIRTIO_NET_MAC_BYTES];
    uint8_t frame[VIRTIO_NET_FRAME_BYTES_MAX];
    struct loam_piece pieces[VIRTIO_NET_PIECE_MAX];
};

/*
 * With the link up, and nothing outside. LOAM_ERROR_INVALID also: mac is no single station's address (all zero, or a
 * group's). Else as virtio_mmio_init.
 */
LOAM_MUST_USE enum loam_error virtio_net_init(struct virtio_net *net, struct loam_gpa_map *map, struct irq_line irq,
                                              const uint8_t mac[VIRTIO_NET_MAC_BYTES]);

/* No other thread uses the device any more. */
void virtio_net_destroy(struct virtio_net *net);

/*
 * From now on outside is the way outside; it is copied. NULL: there is none, and frames that the guest sends are
 * dropped. On return no function of the one before is being called any more.
 */
void virtio_net_connect(struct virtio_net *net, const struct virtio_net_outside *outside);

/*
 * A frame for the guest, which is the caller's again on return. true: it is done with, delivered or dropped. false: the
 * guest has no buffer for it now, or stands still: the caller tries again once outside.room is called, or lets it go.
 */
LOAM_MUST_USE bool virtio_net_receive(struct virtio_net *net, const void *frame, size_t bytes);

/* A frame for the guest that its bringer lets go is counted as dropped. */
void virtio_net_lose(struct virtio_net *net);

/*
 * The guest stands still: on return no frame is being written to its memory, and none will be, nor will its interrupt
 * line change by a frame or by the link, until virtio_net_resume. What it sends itself still goes out.
 */
void virtio_net_quiesce(struct virtio_net *net);
void virtio_net_resume(struct virtio_net *net);

/* Plug or unplug the cable: without it, frames are dropped both ways. The driver is told of a change. */
void virtio_net_set_link(struct virtio_net *net, bool is_up);

/* Since virtio_net_init, over all resets. */
void virtio_net_read_counts(struct virtio_net *net, struct virtio_net_counts *counts);

/*
 * Written down at transport index, and read again: state.h. It serves nothing meanwhile, and no vCPU runs; loading is for one that
 * was just made, with the same MAC address. Errors as virtio_mmio_load.
 */
void virtio_net_save(struct virtio_net *net, struct state_writer *writer, uint32_t index);
LOAM_MUST_USE enum loam_error virtio_net_load(struct virtio_net *net, struct state_reader *reader, uint32_t index,
                                              struct loam_diag *diag);

#endif
