// SPDX-License-Identifier: Apache-2.0
/*
 * Threads that stay when what they do comes and goes: who pins one to a processor, or knows it by its id, finds the same
 * thread after a machine has been replaced by another.
 *
 *     lasting_create -> { lasting_start ... work returns ... lasting_join } ... -> lasting_destroy
 *
 * Each is a thread as kick.h makes them. Threads: one member is started and joined by one thread at a time; lasting_thread
 * from any.
 */
#ifndef LOAM_VMM_LASTING_H
#define LOAM_VMM_LASTING_H

#include "loam/error.h"

#include <stdint.h>
#include <sys/types.h>

/* Opaque. */
struct lasting;

/*
 * count threads; each is called before, its number from 0, and after, 15 characters in all at most. LOAM_ERROR_SYSTEM,
 * and there are none.
 */
LOAM_MUST_USE enum loam_error lasting_create(uint32_t count, const char *before, const char *after,
                                             struct lasting **lasting, struct loam_diag *diag);

/* What they did has been joined. NULL is allowed. */
void lasting_destroy(struct lasting *lasting);

uint32_t lasting_count(const struct lasting *lasting);

/* As gettid(2) gives it; member below lasting_count. */
pid_t lasting_thread(const struct lasting *lasting, uint32_t member);

/* Have a member that does nothing run work(self). */
void lasting_start(struct lasting *lasting, uint32_t member, void (*work)(void *self), void *self);

/* Wait until its work has returned. No effect on one that does nothing. */
void lasting_join(struct lasting *lasting, uint32_t member);

#endif
