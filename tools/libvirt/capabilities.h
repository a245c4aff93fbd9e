// SPDX-License-Identifier: Apache-2.0
/*
 * What libvirt's documents say of a host: nodes and pools of pages from its capabilities, and what an emulator can do from
 * its domain capabilities. Reference: https://libvirt.org/formatcaps.html, https://libvirt.org/formatdomaincaps.html.
 *
 * A document may be anybody's. It is bounded in size, depth and counts, has no document type (so no entities), and nothing
 * is fetched for it. What it does not say is CAPABILITIES_UNSAID, or an empty string.
 *
 * Threads: any, once xmlInitParser has been called.
 */
#ifndef LOAM_LIBVIRT_CAPABILITIES_H
#define LOAM_LIBVIRT_CAPABILITIES_H

#include "loam/error.h"

#include <stdbool.h>
#include <stdint.h>

#define CAPABILITIES_BYTES_MAX (4u << 20) /* no message of libvirt's is longer */
#define CAPABILITIES_UNSAID    UINT64_MAX
#define CAPABILITIES_NODE_MAX  64u
#define CAPABILITIES_POOL_MAX  8u /* of a node */

/* Hugepages of one size on one node. */
struct host_pool {
    uint64_t page_bytes;
    uint64_t total_count;
    uint64_t free_count; /* not of the document: CAPABILITIES_UNSAID */
};

struct host_node {
    uint32_t id;
    uint32_t cpu_count;
    uint64_t total_bytes; /* hugepages included */
    uint64_t free_bytes;  /* not of the document: CAPABILITIES_UNSAID */
    uint32_t pool_count;
    struct host_pool pools[CAPABILITIES_POOL_MAX];
};

struct capabilities {
    char arch[32];
    char cpu_model[64];
    bool says_kvm; /* a guest's domain type is kvm */
    uint32_t node_count;
    struct host_node nodes[CAPABILITIES_NODE_MAX];
};

struct domain_capabilities {
    char path[256];
    char type[32]; /* "kvm" */
    char machine[64];
    char arch[32];
    uint64_t vcpu_max;
    bool says_memfd; /* among the sources of memory */
};

/*
 * Read a document of virConnectGetCapabilities, or of virConnectGetDomainCapabilities. LOAM_ERROR_INVALID: it is none, or
 * goes beyond the bounds: diag says where, and the output is empty.
 */
LOAM_MUST_USE enum loam_error capabilities_read(const char *xml, struct capabilities *capabilities,
                                                struct loam_diag *diag);
LOAM_MUST_USE enum loam_error domain_capabilities_read(const char *xml, struct domain_capabilities *capabilities,
                                                       struct loam_diag *diag);

/* The node, or the node's pool; NULL: there is none. */
struct host_node *capabilities_node(struct capabilities *capabilities, uint32_t id);
struct host_pool *capabilities_pool(struct host_node *node, uint64_t page_bytes);

#endif
