// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Slots of KVM, for programs that have the kernel's header: the callback that loam/slots.h wants. Nothing else of the
 * library needs this header, and it needs nothing of the library's code.
 *
 *     struct loam_slots_config config = {loam_kvm_set_slot, &vm_fd, limit, 0};   with the limit of KVM_CAP_NR_MEMSLOTS
 */
#ifndef LOAM_KVM_H
#define LOAM_KVM_H

#include "loam/slots.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * KVM_SET_USER_MEMORY_REGION (KVM API, section 4.35), once more when a signal interrupted it. self is an int: the VM's
 * descriptor. 0, or -1 with errno set. Any thread.
 */
static inline int loam_kvm_set_slot(void *self, const struct loam_slots_row *row)
{
    struct kvm_userspace_memory_region region;
    int result;

    region.slot = row->number;
    region.flags = 0;
    region.flags |= row->read_only ? KVM_MEM_READONLY : 0u;
    region.flags |= row->log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0u;
    region.guest_phys_addr = row->start.value;
    region.memory_size = row->bytes;
    region.userspace_addr = (uintptr_t)row->hva;
    do {
        result = ioctl(*(const int *)self, KVM_SET_USER_MEMORY_REGION, &region);
    } while (result < 0 && errno == EINTR);
    return result;
}

#ifdef __cplusplus
}
#endif

#endif
