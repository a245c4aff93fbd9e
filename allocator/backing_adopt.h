// SPDX-License-Identifier: Apache-2.0
/*
 * Whether memory that a caller brings can back what he wants. Private to backing.c. Any thread.
 */
#ifndef LOAM_BACKING_ADOPT_H
#define LOAM_BACKING_ADOPT_H

#include "loam/backing.h"

/*
 * *pages receives what it is made of; request->pages where nothing is adopted. LOAM_ERROR_INVALID: a member has no effect,
 * or the memory is smaller, of other pages or in another place than wanted. LOAM_ERROR_SYSTEM: fd cannot be asked.
 */
LOAM_MUST_USE enum loam_error loam_backing_adopt_check(const struct loam_backing_request *request,
                                                       enum loam_pages *pages, struct loam_diag *diag);

#endif
