// SPDX-License-Identifier: Apache-2.0
/*
 * Slabs as wholes: made of frames, given back, kept, left without an owner and taken up again; and the taking back of
 * what others freed. Private to slab*.c.
 *
 * A function whose comment says "locked" wants the lock held. One that takes a cache is for its owner.
 */
#ifndef LOAM_SLAB_POOL_H
#define LOAM_SLAB_POOL_H

#include "allocator/slab/slab_layout.h"

/* The lock: held for a bounded number of steps, but for walks over all units where a comment says so. */
void loam_slab_pool_lock(struct loam_slab_shared *shared);
void loam_slab_pool_unlock(struct loam_slab_shared *shared);

/* Whether the constants are those of a slab allocator, and undamaged. */
bool loam_slab_pool_sealed(const struct loam_slab_shared *shared);

/*
 * F of a word, and H if it is the held one, as of one moment: objects go from one to the other, so both are looked at until
 * the owner has not changed its held word meanwhile. Any thread.
 */
void loam_slab_pool_look(const struct loam_slab_shared *shared, struct slab_unit *head, uint32_t word, uint64_t *free,
                         uint64_t *held);

/*
 * Take back what others freed: R goes to F. What is free already, since two freed it at the same moment, is dropped.
 * Returns how many objects. No word of the slab is held. By the owner; locked if there is none.
 */
uint32_t loam_slab_pool_collect(const struct loam_slab_shared *shared, struct slab_unit *head);

/* Lists of slabs; by who owns the list. */
void loam_slab_pool_push(struct slab_unit *units, struct slab_list *list, uint32_t slab);
void loam_slab_pool_unlink(struct slab_unit *units, struct slab_list *list, uint32_t slab);

/*
 * A slab of the class for the cache: one without an owner, the one kept, or a new one. Its state is still to be set.
 * LOAM_ERROR_EXHAUSTED, LOAM_ERROR_NOT_FOUND, LOAM_ERROR_CORRUPT: as loam_slab_alloc. *slab is SLAB_UNIT_NONE on failure.
 */
enum loam_error loam_slab_pool_acquire(const struct loam_slab *slab, uint32_t class, uint32_t owner,
                                       uint32_t *slab_index);

/* Give up an empty slab that is on no list: it is kept, or its frames go back. */
void loam_slab_pool_retire(const struct loam_slab *slab, uint32_t slab_index);

/* Give up a slab that is on no list and in no inbox, with what is live in it. */
void loam_slab_pool_abandon(const struct loam_slab *slab, uint32_t slab_index);

/*
 * Free the object of a slab that has no owner, whose bit is bit of word. False: the slab has one by now, and nothing is
 * done; else *error is LOAM_OK, or LOAM_ERROR_INVALID if it is free already.
 */
bool loam_slab_pool_free_unowned(const struct loam_slab *slab, uint32_t slab_index, uint64_t key, uint32_t word,
                                 uint64_t bit, enum loam_error *error);

/* Somebody freed into the slab while it lost its owner: see that what is free and empty is found. */
void loam_slab_pool_settle(const struct loam_slab *slab, uint32_t slab_index);

/* Give the frames of the slabs kept back; the number of slabs. */
uint32_t loam_slab_pool_trim(const struct loam_slab *slab);

#endif
