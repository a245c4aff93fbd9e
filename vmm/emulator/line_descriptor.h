// SPDX-License-Identifier: Apache-2.0
/*
 * Descriptors that the caller inherits: -add-fd, fd=N, and paths that are /dev/fdset/N. Whoever is given one will close
 * it, so each is given once.
 */
#ifndef LOAM_VMM_EMULATOR_LINE_DESCRIPTOR_H
#define LOAM_VMM_EMULATOR_LINE_DESCRIPTOR_H

#include "vmm/emulator/arguments.h"
#include "vmm/emulator/line.h"

/* Fill in the line's fdsets, and see that no descriptor and no set of them is named twice. */
LOAM_MUST_USE enum loam_error line_descriptor_read(const struct arguments *arguments, struct line *line,
                                                   struct loam_diag *diag);

/* What a key names: *path, the caller's, and *fd -1, or *path NULL and the descriptor of a set. Without the key neither. */
LOAM_MUST_USE enum loam_error line_descriptor_or_path(const struct line *line, const struct words *words,
                                                      const char *key, char **path, int *fd, struct loam_diag *diag);

#endif
