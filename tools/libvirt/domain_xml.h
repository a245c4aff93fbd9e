// SPDX-License-Identifier: Apache-2.0
/*
 * The domain XML of a microVM, as libvirtd takes it for loam-emulator. Reference: https://libvirt.org/formatdomain.html.
 *
 * Whatever the caller's texts hold is escaped, or refused where XML has no form for it.
 *
 * Threads: any, once xmlInitParser has been called.
 */
#ifndef LOAM_LIBVIRT_DOMAIN_XML_H
#define LOAM_LIBVIRT_DOMAIN_XML_H

#include "loam/error.h"
#include "tools/libvirt/words.h"

#include <stdbool.h>
#include <stdint.h>

#define DOMAIN_XML_TEXT_MAX 4096u /* bytes of a name, a path or a command line */

struct domain_xml_wish {
    const char *type; /* "kvm" */
    const char *name;
    const char *emulator, *kernel; /* absolute paths on the host */
    const char *initrd;            /* NULL: none */
    const char *command_line;      /* NULL: none */
    uint64_t memory_bytes;         /* whole MiB, as libvirt counts */
    uint32_t vcpu_count;
    struct page_kind kind;
    uint32_t node; /* WORDS_NODE_ANY: wherever */
    bool node_strict;
};

/* Whether it can be one; LOAM_ERROR_INVALID: diag says what cannot. */
LOAM_MUST_USE enum loam_error domain_xml_check(const struct domain_xml_wish *wish, struct loam_diag *diag);

/* Write it to *text, to be freed with free(3). LOAM_ERROR_INVALID: as domain_xml_check; LOAM_ERROR_SYSTEM: no memory. */
LOAM_MUST_USE enum loam_error domain_xml_write(const struct domain_xml_wish *wish, char **text, struct loam_diag *diag);

#endif
