// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp_descriptors.h"

#include <string.h>
#include <unistd.h>

void qmp_descriptors_hold(struct qmp_descriptors *descriptors, int fd, uint64_t end)
{
    if (descriptors->count == QMP_DESCRIPTOR_MAX) {
        close(fd);
        return;
    }
    descriptors->held[descriptors->count].fd = fd;
    descriptors->held[descriptors->count].end = end;
    descriptors->count++;
}

int qmp_descriptors_take(struct qmp_descriptors *descriptors)
{
    int fd = -1;

    if (descriptors->count > 0) {
        fd = descriptors->held[0].fd;
        descriptors->count--;
        memmove(descriptors->held, descriptors->held + 1, descriptors->count * sizeof descriptors->held[0]);
    }
    return fd;
}

void qmp_descriptors_close(struct qmp_descriptors *descriptors, uint64_t end)
{
    while (descriptors->count > 0 && descriptors->held[0].end <= end) {
        close(qmp_descriptors_take(descriptors));
    }
}
