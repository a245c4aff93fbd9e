// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memory as an instruction of the guest reaches it: segment, page tables, host memory.
 *
 * The walk is Loam's own, because KVM_TRANSLATE does not say whether a page may be written, and sets no dirty bit. It
 * covers flat memory without paging, 32-bit, PAE and 4-level paging. Whatever would raise an exception, reaches a
 * device, or stands under protection keys or 5-level paging is refused: the caller then knows that the instruction
 * cannot be carried out here.
 *
 * Threads: any; the view is the caller's. Page tables may change meanwhile, as they may under a processor's walk.
 */
#ifndef LOAM_VMM_ASSIST_MEMORY_H
#define LOAM_VMM_ASSIST_MEMORY_H

#include "loam/gpa_map.h"
#include "vmm/assist_decode.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum assist_access { ASSIST_READ, ASSIST_WRITE, ASSIST_FETCH };

/* The longest operand: two pages at most. */
#define ASSIST_MEMORY_BYTES_MAX 16u

/* Whose access it is. rflags, sregs: of the vCPU at that moment. */
struct assist_memory {
    const struct loam_gpa_view *view;
    const struct kvm_sregs *sregs;
    uint64_t rflags;
};

/* An operand that was found in a view: the parts of it in one page and in the next. */
struct assist_span {
    const struct loam_gpa_view *view;
    loam_gpa gpa[2];
    size_t bytes[2]; /* the second may be 0 */
};

/* In 64-bit code, as opposed to 32-bit code, also that of compatibility mode. */
bool assist_memory_is_long(const struct kvm_sregs *sregs);

/* CPL (Intel SDM volume 3A, section 5.5). */
unsigned int assist_memory_privilege(const struct kvm_sregs *sregs);

/*
 * The linear address of [offset, offset + bytes) in a segment. false: the segment does not grant it, it lies beyond its
 * limit or wraps, or the address is not canonical.
 */
bool assist_memory_linear(const struct assist_memory *memory, enum assist_segment segment, uint64_t offset,
                          size_t bytes, enum assist_access access, uint64_t *linear);

/*
 * Find the bytes (1 to ASSIST_MEMORY_BYTES_MAX) at a linear address, all of which grant access. Accessed and dirty bits
 * are set on the way. false: they do not, and *span is undefined.
 */
bool assist_memory_find(const struct assist_memory *memory, uint64_t linear, size_t bytes, enum assist_access access,
                        struct assist_span *span);

/* While the view is held. Each byte is touched once, each aligned word by one access, as by loam_gpa_view_read. */
void assist_memory_load(const struct assist_span *span, void *bytes);
void assist_memory_store(const struct assist_span *span, const void *bytes);

#endif
