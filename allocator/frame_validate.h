// SPDX-License-Identifier: Apache-2.0
/*
 * loam_frame_validate without the lock. Private to frame*.c.
 *
 * It trusts nothing: the figures that say where metadata lies are held against their seals before they are followed,
 * every link is checked against the bounds of what it points into, and every loop is bounded by a sealed figure.
 */
#ifndef LOAM_FRAME_VALIDATE_H
#define LOAM_FRAME_VALIDATE_H

#include "allocator/frame_layout.h"

LOAM_MUST_USE enum loam_error loam_frame_validate_locked(const struct loam_frame *frame, struct loam_diag *diag);

#endif
