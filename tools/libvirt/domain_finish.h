// SPDX-License-Identifier: Apache-2.0
/*
 * What a libvirt domain says value by value, and what all of it together means for a run of Loam. What contradicts itself is
 * refused at its place. Pure; any thread.
 */
#ifndef LOAM_LIBVIRT_DOMAIN_FINISH_H
#define LOAM_LIBVIRT_DOMAIN_FINISH_H

#include "loam/plan.h"
#include "tools/libvirt/xml_walk.h"

#include <stdbool.h>
#include <stdint.h>

#define DOMAIN_VCPU_MAX      1024u
#define DOMAIN_PAGE_WISH_MAX 8u

enum domain_serial_kind {
    DOMAIN_SERIAL_TERMINAL, /* pty, stdio, or none: the program's own standard input and output */
    DOMAIN_SERIAL_FILE,
    DOMAIN_SERIAL_NULL,
};

struct domain_serial {
    enum domain_serial_kind kind;
    char path[XML_WALK_VALUE_BYTES]; /* FILE: absolute */
    bool append;                     /* FILE: else it is emptied first */
};

struct domain {
    /* bytes and, as they are said, pages, sharing, commit, placement, node_mask, lock, thread_count; with cells, parts. */
    struct loam_memory_request memory;
    uint32_t vcpu_count;
    char kernel[XML_WALK_VALUE_BYTES], initrd[XML_WALK_VALUE_BYTES]; /* absolute paths; "": none */
    char command_line[XML_WALK_VALUE_BYTES];
    bool ends_at_reset; /* else a guest that resets itself starts again */
    struct domain_serial serial;
};

/* --- What is said -------------------------------------------------------------------------------------------------- */

/* Nodes of the host that memory is to come from. ANY: nothing is said. */
struct domain_tuning {
    enum loam_placement placement;
    uint64_t node_mask;
    uint64_t cell; /* of <memnode> */
    bool has_cell;
    struct xml_walk_place place;
};

/* <page> */
struct domain_page_wish {
    enum loam_pages pages;
    uint64_t cell_mask; /* 0: all that no other is for */
    struct xml_walk_place place;
};

/* <cell> of the guest's NUMA */
struct domain_cell {
    uint64_t id, bytes;
    enum loam_sharing sharing;
    struct xml_walk_place place, processors; /* line 0: none are named */
};

/* <serial>, <console> */
struct domain_port {
    bool is_there;
    struct domain_serial serial;
    struct xml_walk_place place;
};

/* Zero is what is not said; a place then has line 0. */
struct domain_said {
    uint64_t memory_bytes, current_bytes;
    struct xml_walk_place memory_place, current_place;
    uint64_t vcpu_count, current_vcpu_count, core_count;
    struct xml_walk_place topology_place;
    bool wants_hugepages, has_memfd, has_anonymous;
    uint32_t wish_count;
    struct domain_page_wish wishes[DOMAIN_PAGE_WISH_MAX];
    struct xml_walk_place allocation_place;
    struct domain_tuning tuning;
    uint32_t memnode_count;
    struct domain_tuning memnodes[LOAM_MEMORY_PART_MAX];
    uint32_t cell_count;
    struct domain_cell cells[LOAM_MEMORY_PART_MAX];
    struct xml_walk_place initrd_place, command_line_place, boot_place;
    struct domain_port serial, console;
};

/*
 * Complete *domain, whose texts, ends_at_reset and memory's lock, sharing, commit and thread_count are there as they are
 * said, by the rest; add to *refusals what does not go together.
 */
void domain_finish(const struct domain_said *said, struct domain *domain, struct xml_walk_refusals *refusals);

#endif
