// SPDX-License-Identifier: Apache-2.0
/*
 * Descriptors that came over a stream of bytes, until somebody takes them or what they came with has passed.
 * Threads: one object is used by one.
 */
#ifndef LOAM_VMM_QMP_DESCRIPTORS_H
#define LOAM_VMM_QMP_DESCRIPTORS_H

#include "vmm/qmp_limits.h"

#include <stdint.h>

/* In the order in which they came; empty as {0}. */
struct qmp_descriptors {
    struct {
        int fd;
        uint64_t end; /* the text that it came with ends here in the stream, or later: they do not fall */
    } held[QMP_DESCRIPTOR_MAX];
    uint32_t count;
};

/* fd becomes theirs, and is closed if there are too many. end is not below that of the last. */
void qmp_descriptors_hold(struct qmp_descriptors *descriptors, int fd, uint64_t end);

/* The first, which becomes the caller's. -1: there is none. */
int qmp_descriptors_take(struct qmp_descriptors *descriptors);

/* The text that ends here has been dealt with: close those that came with it or before. */
void qmp_descriptors_close(struct qmp_descriptors *descriptors, uint64_t end);

#endif
