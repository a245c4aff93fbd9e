// SPDX-License-Identifier: Apache-2.0
/*
 * loam_frame_validate without the lock. Private to frame*.c.
 *
 * It trusts nothing: the figures that say where metadata lies are held against a sum over them before they are followed,
 * every link is checked against the bounds of what it points into, and every loop is bounded by one of those figures.
 */
#ifndef LOAM_FRAME_VALIDATE_H
#define LOAM_FRAME_VALIDATE_H

#include "allocator/frame/frame_layout.h"

/* What must be in order before lenders can be stopped, and the lock given up in the ordinary way. */
LOAM_MUST_USE enum loam_error loam_frame_validate_header(const struct loam_frame *frame, struct loam_diag *diag);

/* All the rest; lenders are stopped. */
LOAM_MUST_USE enum loam_error loam_frame_validate_locked(struct loam_frame *frame, struct loam_diag *diag);

#endif
