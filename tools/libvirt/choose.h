// SPDX-License-Identifier: Apache-2.0
/*
 * Which hosts can hold a VM, which of them is best, and why the others cannot.
 *
 * A host can hold it if one of the kinds of page asked for is there in full:
 *   - a pool has so many free pages, on one node or, unless all has to come from one node, on several together;
 *   - for thp and 4K there is so much free memory, with 1/256 of it more for page tables: the process's and KVM's take
 *     1/512 each. Free is what nobody uses; what caches hold of files is named, and not counted.
 * Kinds are tried in the order in which they were asked for. Of the nodes that can, the one with the most left is taken.
 *
 * Best is the host that gives the kind asked for first; of these, one that gives it on one node; of these, one that is
 * known to have KVM; of these, the one with the most memory of that kind left; of these, the one named first.
 *
 * Pure; any thread.
 */
#ifndef LOAM_LIBVIRT_CHOOSE_H
#define LOAM_LIBVIRT_CHOOSE_H

#include "tools/libvirt/host_facts.h"
#include "tools/libvirt/words.h"

#include <stdbool.h>
#include <stdint.h>

struct choose_request {
    uint64_t memory_bytes;
    struct page_kind kinds[WORDS_PAGE_KIND_MAX];
    uint32_t kind_count;
    uint32_t vcpu_count;
    bool node_strict;    /* all of it from one node */
    bool needs_emulator; /* the first emulator of the facts, which then has one: without it there is no VM */
};

#define CHOOSE_NODES_ALL WORDS_NODE_ANY

/* What a host is worth. The texts are one line each, and hold words of the host's: see vmm/printable.h. */
struct verdict {
    bool can;
    uint32_t kind;       /* which of the request's */
    uint32_t node;       /* that has it all; CHOOSE_NODES_ALL: several together */
    uint32_t node_count; /* of the host */
    uint64_t page_count; /* of a pool; else 0 */
    uint64_t left_bytes; /* of that kind, on that node, once the VM is there */
    enum host_answer kvm;
    char why[512];
    char mend[1024]; /* what would make it fit, "": nothing that could be done from here */
};

/* Judge one host, whose URI is only for the command in mend. */
void choose_judge(const struct choose_request *request, const char *uri, const struct host_facts *facts,
                  struct verdict *verdict);

#define CHOOSE_NONE UINT32_MAX

/* The best of them, or CHOOSE_NONE. why: in what it is better than the next. */
uint32_t choose_best(const struct verdict *verdicts, uint32_t count, char *why, size_t room);

#endif
