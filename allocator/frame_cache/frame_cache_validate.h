// SPDX-License-Identifier: Apache-2.0
/* A lender's part of loam_frame_validate: struct frame_lender says when each is called. Private to allocator/frame_cache. */
#ifndef LOAM_FRAME_CACHE_VALIDATE_H
#define LOAM_FRAME_CACHE_VALIDATE_H

#include "allocator/frame/frame_recount.h"

LOAM_MUST_USE enum loam_error loam_frame_cache_validate_records(const struct loam_frame *frame, struct loam_diag *diag);
LOAM_MUST_USE enum loam_error loam_frame_cache_validate_hands(struct frame_recount *recount);
LOAM_MUST_USE enum loam_error loam_frame_cache_validate_chunks(struct frame_recount *recount);

#endif
