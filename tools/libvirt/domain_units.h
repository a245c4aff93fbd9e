// SPDX-License-Identifier: Apache-2.0
/*
 * Values as libvirt writes them: sizes with units, numbers, lists of nodes.
 *
 * Reference: libvirt's "Domain XML format". Pure; any thread. Outputs are zero where false is returned.
 */
#ifndef LOAM_LIBVIRT_DOMAIN_UNITS_H
#define LOAM_LIBVIRT_DOMAIN_UNITS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The bytes of a unit, whatever its case: b, byte and bytes; k, KiB, M, MiB and so on to EiB are powers of 1024; KB, MB and
 * so on powers of 1000. false: no such unit.
 */
bool domain_units_scale(const char *unit, uint64_t *bytes);

/* A decimal number without a sign, alone, of at most `most`. */
bool domain_units_number(const char *text, uint64_t most, uint64_t *number);

/* A set of numbers from 0 to 63 as a bit mask: "0-3,^2,8". What a "^" takes away has to stand after it. */
bool domain_units_set(const char *text, uint64_t *mask);

#endif
