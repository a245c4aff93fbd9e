// SPDX-License-Identifier: Apache-2.0
/*
 * What a host says of itself through libvirt, gathered into a value without a pointer, so that it can be handed from one
 * process to another by memory that both share.
 *
 * What a host does not say is CAPABILITIES_UNSAID or an empty text, never a guess; why it does not is kept in a note.
 */
#ifndef LOAM_LIBVIRT_HOST_FACTS_H
#define LOAM_LIBVIRT_HOST_FACTS_H

#include "tools/libvirt/capabilities.h"

#include <libvirt/libvirt.h>
#include <stdbool.h>
#include <stdint.h>

#define HOST_FACTS_EMULATOR_MAX 2u
#define HOST_FACTS_NOTE_MAX     8u
#define HOST_FACTS_TEXT_BYTES   256u

enum host_answer { HOST_NO, HOST_YES, HOST_UNSAID };

/* One emulator, as it was asked for. */
struct host_emulator {
    char asked[HOST_FACTS_TEXT_BYTES]; /* "": whichever libvirt takes */
    char error[HOST_FACTS_TEXT_BYTES]; /* "": there is an answer: */
    bool is_unsaid;                    /* the driver answers no such question: error says so */
    struct domain_capabilities can;
};

/* What is not said, and libvirt's line on why. */
struct host_note {
    char what[32];
    char why[HOST_FACTS_TEXT_BYTES];
};

struct host_facts {
    char hostname[HOST_FACTS_TEXT_BYTES];
    char driver[32];                                             /* "QEMU" */
    uint64_t hypervisor_version, daemon_version, client_version; /* 1000000 * major + 1000 * minor + release */
    uint64_t cpu_count;
    uint64_t vcpu_max; /* of any guest of this driver */
    uint64_t total_bytes, free_bytes;
    uint64_t cached_bytes; /* of files, which the kernel gives up for others */
    bool is_read_only;     /* the connection, for want of rights */
    struct capabilities capabilities;
    uint32_t emulator_count;
    struct host_emulator emulators[HOST_FACTS_EMULATOR_MAX];
    uint32_t note_count;
    struct host_note notes[HOST_FACTS_NOTE_MAX];
};

/* Which emulators are asked about, by their paths there; NULL: whichever libvirt takes. */
struct host_facts_request {
    uint32_t emulator_count;
    const char *emulators[HOST_FACTS_EMULATOR_MAX];
};

/* Ask all of it. It always ends with facts: what failed is a note. Calls libvirt: see connection.h. */
void host_facts_collect(virConnectPtr connection, const struct host_facts_request *request, struct host_facts *facts);

/* Whether guests run on KVM there. Pure. */
enum host_answer host_facts_kvm(const struct host_facts *facts);

/* "7.2.22" of a version as libvirt writes it. Pure. */
struct host_version {
    char text[48];
};
struct host_version host_facts_version(uint64_t version);

#endif
