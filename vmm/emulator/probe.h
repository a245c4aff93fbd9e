// SPDX-License-Identifier: Apache-2.0
/*
 * What the emulator announces of itself, so that libvirt refuses by itself what a domain asks for in vain. Types and their
 * properties are those of the table that the command line is read by (line_table.h): what is announced is honoured.
 *
 * Each returns a new reference; NULL: no memory. Threads: any.
 */
#ifndef LOAM_VMM_EMULATOR_PROBE_H
#define LOAM_VMM_EMULATOR_PROBE_H

#include <jansson.h>

/* The version of QEMU whose protocol this is. */
#define PROBE_VERSION_MAJOR 7
#define PROBE_VERSION_MINOR 2
#define PROBE_VERSION_MICRO 0

json_t *probe_version(void);

/* Whether /dev/kvm is there and serves. */
json_t *probe_kvm(void);

/* qom-list-types */
json_t *probe_types(void);

/* device-list-properties, qom-list-properties; NULL also: there is no such type. */
json_t *probe_properties(const char *type);

/* The one machine, with as many vCPUs as KVM allows; without KVM none can be said, and 1 is. */
json_t *probe_machines(void);

json_t *probe_cpus(void);

/* query-command-line-options: -sandbox alone, so that libvirt's seccomp_sandbox reaches it. */
json_t *probe_options(void);

#endif
