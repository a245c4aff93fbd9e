// SPDX-License-Identifier: Apache-2.0
/*
 * A libvirt domain, read from XML into what a run of Loam is asked for.
 *
 * Whatever in the document Loam does not do is refused by its path (xml_walk.h), and so is what contradicts itself. What
 * describes (name, title, metadata), and what is so here anyway (no USB, no balloon, an entropy source), is taken and
 * changes nothing.
 *
 * Reference: libvirt's "Domain XML format". Pure, but for the heap; any thread.
 */
#ifndef LOAM_LIBVIRT_DOMAIN_READ_H
#define LOAM_LIBVIRT_DOMAIN_READ_H

#include "tools/libvirt/domain_finish.h"
#include "tools/libvirt/xml_walk.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * Read count bytes, passing over each path of ignores (xml_walk_is_path). Whether nothing is refused: if something is,
 * refusals->count is not zero. *refusals needs no value before.
 */
bool domain_read(const char *bytes, size_t count, const char *const *ignores, size_t ignore_count,
                 struct domain *domain, struct xml_walk_refusals *refusals);

#endif
