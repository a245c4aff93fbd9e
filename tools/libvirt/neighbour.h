// SPDX-License-Identifier: Apache-2.0
/* The emulator that was installed with this program. Threads: any. */
#ifndef LOAM_LIBVIRT_NEIGHBOUR_H
#define LOAM_LIBVIRT_NEIGHBOUR_H

#include <stdbool.h>
#include <stddef.h>

/* The path of loam-emulator in this program's own folder. false: there is none, and path is empty. */
bool neighbour_emulator(char *path, size_t room);

#endif
