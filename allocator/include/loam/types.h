// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * The words of Loam as types: guest-physical addresses, frame numbers, and the constants that bound them.
 *
 * A GPA and a PFN are one-member structs, so that neither is mistaken for the other, for a size or for a host
 * address; they are converted only by the functions below. A host virtual address (HVA) stays a pointer: it is the
 * only kind of address that can be dereferenced. All ranges are half-open. A plain integer carries its unit in its
 * name: _bytes, _frames, _order, _count.
 *
 * Everything here is pure: any thread, no state, no allocation.
 *
 * Constants are plain literals of the type of uint64_t, which readers of headers for other languages understand.
 */
#ifndef LOAM_TYPES_H
#define LOAM_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Guest-physical address. Never holds an HVA, an I/O port or a device offset. */
typedef struct loam_gpa {
    uint64_t value;
} loam_gpa;

/** Page frame number: GPA >> frame shift. */
typedef struct loam_pfn {
    uint64_t value;
} loam_pfn;

/**
 * Widest physical address of x86-64 (Intel SDM volume 3A, section 4.1.4: MAXPHYADDR is at most 52).
 * @{
 */
#define LOAM_GPA_BITS 52
#define LOAM_GPA_END  0x10000000000000ul /**< 2^52 */
/** @} */

/**
 * log2 of a frame's bytes: 12 unless a configuration says 14 or 16.
 * @{
 */
#define LOAM_FRAME_SHIFT 12
#define LOAM_FRAME_BYTES 4096ul
/** @} */

/** First address that a 32-bit DMA engine cannot reach: the end of the DMA32 zone. */
#define LOAM_DMA32_END_BYTES 0x100000000ul

#define LOAM_KIB 1024ul       /**< bytes */
#define LOAM_MIB 1048576ul    /**< bytes */
#define LOAM_GIB 1073741824ul /**< bytes */

/** A GPA of any value; nothing is checked. */
static inline loam_gpa loam_gpa_from_u64(uint64_t value)
{
    loam_gpa made = {value};

    return made;
}

/** A frame number of any value; nothing is checked. */
static inline loam_pfn loam_pfn_from_u64(uint64_t value)
{
    loam_pfn made = {value};

    return made;
}

/** The frame that holds gpa. */
static inline loam_pfn loam_pfn_from_gpa(loam_gpa gpa, uint32_t frame_shift)
{
    loam_pfn made = {gpa.value >> frame_shift};

    return made;
}

/** The first byte of a frame. The caller keeps pfn below LOAM_GPA_END >> frame_shift. */
static inline loam_gpa loam_gpa_from_pfn(loam_pfn pfn, uint32_t frame_shift)
{
    loam_gpa made = {pfn.value << frame_shift};

    return made;
}

/** Whether [offset, offset + bytes) lies within [0, size_bytes); no sum that can wrap. */
static inline bool loam_fits(uint64_t offset, uint64_t bytes, uint64_t size_bytes)
{
    return bytes <= size_bytes && offset <= size_bytes - bytes;
}

/** Whether [start, start + bytes) is a range of guest-physical addresses: not empty, and below LOAM_GPA_END. */
static inline bool loam_gpa_range_valid(loam_gpa start, uint64_t bytes)
{
    return bytes > 0 && loam_fits(start.value, bytes, LOAM_GPA_END);
}

/** Whether exactly one bit is set. */
static inline bool loam_is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/** align is a power of two. */
static inline bool loam_is_aligned(uint64_t value, uint64_t align)
{
    return (value & (align - 1)) == 0;
}

/** align is a power of two. */
static inline uint64_t loam_align_down(uint64_t value, uint64_t align)
{
    return value & ~(align - 1);
}

/** The caller keeps value at least align below UINT64_MAX. */
static inline uint64_t loam_align_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

#ifdef __cplusplus
}
#endif

#endif
