// SPDX-License-Identifier: Apache-2.0
/*
 * A guest's code as its vCPU would fetch it: bytes at linear addresses, by the guest's own page tables, out of memory that the
 * host supplies. What is mapped nowhere, or to where no memory is, is not there.
 *
 * Threads: the vCPU's, or any while it is not in KVM_RUN.
 */
#ifndef LOAM_VMM_GUEST_CODE_H
#define LOAM_VMM_GUEST_CODE_H

#include "loam/gpa_map.h"
#include "vmm/kvm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Made by guest_code_of; remembers one page's translation. */
struct guest_code {
    int vcpu_fd;
    const struct loam_gpa_view *view; /* outlives this */
    struct kvm_translation page;
};

struct guest_code guest_code_of(int vcpu_fd, const struct loam_gpa_view *view);

/* false: it is not there. */
bool guest_code_byte(struct guest_code *code, uint64_t linear, uint8_t *byte);

/* From linear on, up to count bytes, as far as they are there one after the other. Returns how many. */
uint32_t guest_code_read(struct guest_code *code, uint64_t linear, uint8_t *bytes, uint32_t count);

#endif
