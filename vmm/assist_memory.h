// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memory as an instruction of the guest reaches it: segment, page tables, host memory.
 *
 * The walk is Loam's own, because KVM_TRANSLATE does not say whether a page may be written, and sets no dirty bit. It
 * covers flat memory without paging, 32-bit, PAE and 4-level paging. An access that is not granted is told as the
 * exception that it raises. Whatever reaches a device or no memory, stands under protection keys or 5-level paging, lies
 * in an expand-down segment, has its alignment checked, or meets an entry whose reserved bits depend on the processor is
 * refused: the caller then knows that the instruction cannot be carried out here.
 *
 * Threads: any; the view is the caller's. Page tables may change meanwhile, as they may under a processor's walk.
 */
#ifndef LOAM_VMM_ASSIST_MEMORY_H
#define LOAM_VMM_ASSIST_MEMORY_H

#include "loam/dirty.h"
#include "loam/gpa_map.h"
#include "vmm/assist_decode.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum assist_access { ASSIST_READ, ASSIST_WRITE, ASSIST_FETCH };

/* The longest operand: two pages at most. */
#define ASSIST_MEMORY_BYTES_MAX 16u

/* Exceptions (Intel SDM volume 3A, table 6-1). */
#define ASSIST_BREAKPOINT  3u
#define ASSIST_UNDEFINED   6u
#define ASSIST_NO_DEVICE   7u
#define ASSIST_NO_SEGMENT  11u
#define ASSIST_STACK_FAULT 12u
#define ASSIST_PROTECTION  13u
#define ASSIST_PAGE_FAULT  14u
#define ASSIST_FPU_ERROR   16u
#define ASSIST_SIMD_ERROR  19u

/* Of a page fault (Intel SDM volume 3A, section 4.7). */
#define ASSIST_PAGE_PRESENT  1u
#define ASSIST_PAGE_WRITE    2u
#define ASSIST_PAGE_USER     4u
#define ASSIST_PAGE_RESERVED 8u
#define ASSIST_PAGE_FETCH    16u

/*
 * Whose access it is. rflags, sregs: of the vCPU at that moment. Pages that are written, those of page tables among them,
 * are marked in dirty; NULL: nobody wants to know.
 */
struct assist_memory {
    const struct loam_gpa_view *view;
    const struct kvm_sregs *sregs;
    uint64_t rflags;
    struct loam_dirty *dirty;
};

/* What an access raises. vector 0: nothing; it is refused, since it cannot be made here. */
struct assist_fault {
    uint8_t vector; /* one that has an error code */
    uint32_t error_code;
    uint64_t address; /* of a page fault: what CR2 is to say */
};

/* An operand that was found in a view: the parts of it in one page and in the next. */
struct assist_span {
    const struct loam_gpa_view *view;
    struct loam_dirty *dirty; /* as in struct assist_memory */
    loam_gpa gpa[2];
    size_t bytes[2]; /* the second may be 0 */
};

/* In 64-bit code, as opposed to 32-bit code, also that of compatibility mode. */
bool assist_memory_is_long(const struct kvm_sregs *sregs);

/* CPL (Intel SDM volume 3A, section 5.5). */
unsigned int assist_memory_privilege(const struct kvm_sregs *sregs);

/*
 * The linear address of [offset, offset + bytes) in a segment. false, and *fault says why: the segment does not grant it,
 * it lies beyond its limit or wraps, or the address is not canonical.
 */
bool assist_memory_linear(const struct assist_memory *memory, enum assist_segment segment, uint64_t offset,
                          size_t bytes, enum assist_access access, uint64_t *linear, struct assist_fault *fault);

/*
 * Find the bytes (1 to ASSIST_MEMORY_BYTES_MAX) at a linear address, all of which grant access. Accessed and dirty bits
 * are set on the way. false: they do not, *fault says why, and *span is undefined.
 */
bool assist_memory_find(const struct assist_memory *memory, uint64_t linear, size_t bytes, enum assist_access access,
                        struct assist_span *span, struct assist_fault *fault);

/* While the view is held. Each byte is touched once, each aligned word by one access, as by loam_gpa_view_read. */
void assist_memory_load(const struct assist_span *span, void *bytes);
void assist_memory_store(const struct assist_span *span, const void *bytes);

/*
 * 16 bytes, aligned to 16 and found for writing: where they equal expected, they become desired, in one access that every
 * processor of the guest sees as one. Returns whether they did; expected is what they were. The host has CMPXCHG16B.
 */
bool assist_memory_exchange(const struct assist_span *span, uint64_t expected[2], const uint64_t desired[2]);

#endif
