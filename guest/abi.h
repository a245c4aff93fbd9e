// SPDX-License-Identifier: Apache-2.0
/*
 * What the host promises to the self-test guest, and what the guest reports back: the one header that both include.
 *
 * The host writes one page, the table, and hands its GPA over as the first PVH boot module, whose command line is
 * LOAM_ABI_MODULE. The guest checks each range from the inside, stores a result for each check in the table, and rings
 * the doorbell: a 32-bit write to an I/O port, which stops the vCPU until the host has looked. The table is guest
 * memory, so the host trusts nothing that it reads there: it fetches once, checks, uses.
 *
 * Freestanding: no library, no allocation. All integers are little-endian, all addresses guest-physical.
 */
#ifndef LOAM_GUEST_ABI_H
#define LOAM_GUEST_ABI_H

#include <stdint.h>

#define LOAM_ABI_MAGIC   UINT64_C(0x314942414d414f4c) /* "LOAMABI1" */
#define LOAM_ABI_VERSION 1u
#define LOAM_ABI_MODULE  "loam-abi"

/* I/O ports. The exit port is that of QEMU's isa-debug-exit at iobase 0xf4. */
#define LOAM_ABI_PORT_DOORBELL 0x0c10u /* 32-bit writes: LOAM_ABI_RING(event, check) */
#define LOAM_ABI_PORT_EXIT     0x00f4u /* 8- or 32-bit writes: enum loam_abi_exit; the machine stops */
#define LOAM_ABI_PORT_SERIAL   0x03f8u /* COM1, a 16550 */

/*
 * An ELF note by which a guest says what it does without; other hypervisors pass it over. Its descriptor is a 32-bit
 * word. A guest without interrupts never enables them: a VMM may leave out the interrupt controllers, whose removal
 * costs more than a short guest's whole life, and take its first HLT for its end.
 */
#define LOAM_ABI_NOTE_NAME          "Loam"
#define LOAM_ABI_NOTE_WITHOUT       1u
#define LOAM_ABI_WITHOUT_INTERRUPTS 1u

/* What stops the machine. Any other value is the guest's own failure code. */
enum loam_abi_exit {
    LOAM_ABI_EXIT_PASS = 0,
    LOAM_ABI_EXIT_FAIL = 1,
    LOAM_ABI_EXIT_NO_TABLE = 2, /* no table was handed over: another hypervisor */
};

/* The checks, by number. The guest runs them in the order of LOAM_ABI_ORDER: what reads comes before what overwrites.
 */
enum loam_abi_check {
    LOAM_ABI_CHECK_RAM,      /* every page of RAM, low and high, holds what is written at both its ends */
    LOAM_ABI_CHECK_PATTERN,  /* what the host wrote through an HVA, the guest reads at its GPA */
    LOAM_ABI_CHECK_ECHO,     /* what the guest writes at a GPA, the host reads through its HVA */
    LOAM_ABI_CHECK_ALIAS,    /* every page holds its own address after all were written */
    LOAM_ABI_CHECK_DMA32,    /* each buffer ends below 4 GiB, is zeroed, and shares no byte with another */
    LOAM_ABI_CHECK_RING,     /* a virtio-rng request comes back through rings that the host carved */
    LOAM_ABI_CHECK_READONLY, /* a write does not land, and reaches the host */
    LOAM_ABI_CHECK_HOLE,     /* reads and writes reach the host as device accesses */
    LOAM_ABI_CHECK_COUNT
};

#define LOAM_ABI_ORDER                                                                                                 \
    {                                                                                                                  \
        LOAM_ABI_CHECK_PATTERN, LOAM_ABI_CHECK_DMA32, LOAM_ABI_CHECK_ECHO, LOAM_ABI_CHECK_READONLY,                    \
            LOAM_ABI_CHECK_HOLE, LOAM_ABI_CHECK_RING, LOAM_ABI_CHECK_RAM, LOAM_ABI_CHECK_ALIAS                         \
    }

enum loam_abi_event {
    LOAM_ABI_EVENT_BEGIN, /* the check starts */
    LOAM_ABI_EVENT_STAGE, /* halfway: alias has written every page and will now read; echo has written */
    LOAM_ABI_EVENT_DONE,  /* results[check] is final; the host looks while the guest waits */
    LOAM_ABI_EVENT_END,   /* all checks are done; check is 0 */
    LOAM_ABI_EVENT_COUNT
};

#define LOAM_ABI_RING(event, check) ((uint32_t)(event) << 8 | (uint32_t)(check))

/* What a range of the table is. argument and count are 0 where nothing is said. */
enum loam_abi_kind {
    LOAM_ABI_KIND_RAM = 1,     /* all writable RAM; together they are what ram and alias cover */
    LOAM_ABI_KIND_KEPT,        /* part of RAM that the guest needs itself, and ram and alias leave out: image, table */
    LOAM_ABI_KIND_PATTERN,     /* the host has filled it: argument is the seed */
    LOAM_ABI_KIND_ECHO,        /* the guest fills it: argument is the seed */
    LOAM_ABI_KIND_DMA32,       /* a zeroed buffer below 4 GiB */
    LOAM_ABI_KIND_DESCRIPTORS, /* the virtqueue's descriptor table; argument is the queue size */
    LOAM_ABI_KIND_AVAILABLE,   /* its available ring */
    LOAM_ABI_KIND_USED,        /* its used ring */
    LOAM_ABI_KIND_RING_DATA,   /* the buffer for the device to write to */
    LOAM_ABI_KIND_VIRTIO_RNG,  /* the registers of a virtio-mmio transport with an entropy device behind it */
    LOAM_ABI_KIND_READONLY,    /* the host has filled it with a pattern, argument its seed; writes do not land */
    LOAM_ABI_KIND_HOLE,        /* no memory: an aligned 8-byte read gives the pattern of argument, its seed */
    LOAM_ABI_KIND_COUNT
};

struct loam_abi_range {
    uint64_t start;
    uint64_t bytes;
    uint64_t argument;
    uint32_t kind;
    uint32_t reserved;
};

enum loam_abi_status {
    LOAM_ABI_STATUS_NONE, /* not run */
    LOAM_ABI_STATUS_PASS,
    LOAM_ABI_STATUS_FAIL,
    LOAM_ABI_STATUS_COUNT
};

/* One check's result. first_* describe the first error, and are 0 without one. */
struct loam_abi_result {
    uint32_t status;
    uint32_t reserved;
    uint64_t item_count; /* ram, alias: pages; pattern, echo, dma32: ranges; ring: requests; else accesses tried */
    uint64_t bytes;      /* bytes that the check vouches for */
    uint64_t error_count;
    uint64_t first_gpa;
    uint64_t first_expected;
    uint64_t first_found;
};

#define LOAM_ABI_RANGE_MAX 96u
#define LOAM_ABI_BYTES     4096u

struct loam_abi_table {
    uint64_t magic;
    uint32_t version;
    uint32_t range_count;
    uint64_t reserved[2];
    struct loam_abi_range ranges[LOAM_ABI_RANGE_MAX];
    struct loam_abi_result results[LOAM_ABI_CHECK_COUNT];
};

_Static_assert(sizeof(struct loam_abi_range) == 32, "laid out alike on both sides");
_Static_assert(sizeof(struct loam_abi_result) == 56, "laid out alike on both sides");
_Static_assert(sizeof(struct loam_abi_table) <= LOAM_ABI_BYTES, "one page");

/* How many times each access check tries: read-only and hole ranges are each probed at so many places, evenly spread.
 */
#define LOAM_ABI_PROBE_COUNT 8u

/* What the guest writes where a write must not land. */
#define LOAM_ABI_PROBE_VALUE UINT64_C(0x10ad10ad10ad10ad)

/* Where probe index (0 to LOAM_ABI_PROBE_COUNT - 1) touches a range: 8 bytes at a multiple of 8. */
static inline uint64_t loam_abi_probe(const struct loam_abi_range *range, uint32_t index)
{
    return range->start + (range->bytes / LOAM_ABI_PROBE_COUNT & ~UINT64_C(7)) * index;
}

/*
 * The word that belongs at gpa, a multiple of 8: no two words of a range are alike, so that swapped pages and stuck
 * bits both show (the finaliser of splitmix64; Steele, Lea and Flood, OOPSLA 2014).
 */
static inline uint64_t loam_abi_pattern(uint64_t seed, uint64_t gpa)
{
    uint64_t x = seed + gpa * UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

#endif
