// SPDX-License-Identifier: Apache-2.0
/*
 * The contents of a guest's RAM in a file: a byte at its GPA, so that map, slots, shares and file speak of the same offsets.
 * Pages that hold nothing but zeros are holes.
 *
 * RAM is cut into chunks of 2 MiB at multiples of that, in the order of their GPAs; the last of a range may be shorter. What
 * is known of each stands in the state file (record memory): whether it is all zeros, in this file, or as in the image's parent.
 * Of one that is in this file, which of its pages are: the others are zeros or, in an image that has a parent, as they are there;
 * and a sum of the bytes of its pages, begun from its GPA, so that neither a changed bit nor a swapped page passes.
 *
 *     image_write -> image_save             memory to a file, and what is known of it to the state
 *     image_load -> image_read ...          and back
 *
 * Threads: image_write starts some, and joins them; image_read from any number at once; all else from one.
 */
#ifndef LOAM_VMM_IMAGE_H
#define LOAM_VMM_IMAGE_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/state.h"
#include "vmm/state_memory.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_CHUNK_BYTES (UINT64_C(2) << 20)
#define IMAGE_CHUNK_PAGES 512u
#define IMAGE_ID_BYTES    16u
#define IMAGE_NAME_BYTES  4096u

enum image_kind {
    IMAGE_ZERO, /* all zeros */
    IMAGE_HERE, /* those of its pages that chunk.pages names are in this image's file; the others are zeros, or the parent's */
    IMAGE_PARENT, /* as in the parent */
    IMAGE_KIND_COUNT
};

/* page n: bit n % 64 of pages[n / 64] */
struct image_chunk {
    uint64_t sum; /* of its pages; 0 with IMAGE_ZERO and IMAGE_PARENT */
    uint64_t pages[IMAGE_CHUNK_PAGES / 64];
    uint8_t kind; /* enum image_kind */
};

struct image {
    uint8_t id[IMAGE_ID_BYTES];         /* random: of this image alone */
    uint8_t parent_id[IMAGE_ID_BYTES];  /* zeros: it has none */
    char parent_name[IMAGE_NAME_BYTES]; /* the parent's directory, from this image's own; "": it has none */
    uint32_t range_count;
    struct state_range ranges[STATE_RANGE_MAX];
    uint64_t chunk_count;
    struct image_chunk *chunks; /* heap */
    int fd;                     /* the caller's, which outlives the image */
    struct image *parent;       /* likewise; NULL: it has none */
};

/* Where a chunk lies. index is below chunk_count. */
struct image_place {
    uint64_t gpa;
    uint64_t bytes;
};
struct image_place image_place(const struct image *image, uint64_t index);

/* The chunk that holds gpa, which lies in RAM. */
uint64_t image_index(const struct image *image, uint64_t gpa);

bool image_has_parent(const struct image *image);

/*
 * An image of a plan's RAM, of which every chunk is zero, with an id of its own. fd: of its file. LOAM_ERROR_SYSTEM: no memory, and
 * there is nothing to release.
 */
LOAM_MUST_USE enum loam_error image_init(struct image *image, const struct loam_plan *plan, int fd,
                                         struct loam_diag *diag);

/* Every chunk of an image that was initialised is as in its parent, of which this is known. */
void image_set_parent(struct image *image, const uint8_t id[IMAGE_ID_BYTES], const char *name);

/* The file, which is empty, is as long as it has to be: what image_write does first. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error image_make_file(const struct image *image, struct loam_diag *diag);

void image_release(struct image *image);

struct image_tally {
    uint64_t written_bytes; /* to the file */
    uint64_t zero_bytes;    /* that were looked at, and are holes */
};

/*
 * All of memory into the image's file, which is empty, by up to thread_count threads (0: as many as processors, up to
 * four). What is written to memory meanwhile is in the file or is not, and its sum is that of the file. LOAM_ERROR_SYSTEM: the file cannot be written, or there is no memory.
 * LOAM_ERROR_CANCELLED: *must_end (NULL: never) has become true.
 */
LOAM_MUST_USE enum loam_error image_write(struct image *image, struct loam_memory *memory, const atomic_bool *must_end,
                                          uint32_t thread_count, struct image_tally *tally, struct loam_diag *diag);

/* A page of RAM, and what it is now. */
struct image_page {
    uint64_t gpa;
    const uint8_t *bytes;
};

/*
 * Pages of one chunk, after image_write or image_make_file, are these: up to IMAGE_CHUNK_PAGES of them, in ascending order. buffer: of
 * IMAGE_CHUNK_BYTES. The file is open for reading too. Errors as image_write.
 */
LOAM_MUST_USE enum loam_error image_patch(struct image *image, const struct image_page *pages, uint32_t count,
                                          uint8_t *buffer, struct loam_diag *diag);

/* Record memory. */
void image_save(const struct image *image, struct state_writer *writer);

/*
 * What is known of an image, out of record memory. fd as in image_init; parent is the caller's to find. Errors of the record;
 * there is nothing to release then.
 */
LOAM_MUST_USE enum loam_error image_load(struct image *image, struct state_reader *reader, int fd,
                                         struct loam_diag *diag);

/* Whether the file is as long as it was. LOAM_ERROR_INVALID: it was cut. */
LOAM_MUST_USE enum loam_error image_check_file(const struct image *image, struct loam_diag *diag);

/*
 * The bytes of a chunk, checked, into place.bytes bytes at to, which hold zeros if is_zero says so. LOAM_ERROR_INVALID: the sum
 * is wrong, or the file is cut; what is at to is worth nothing. LOAM_ERROR_SYSTEM: it cannot be read. diag names file and GPA.
 */
LOAM_MUST_USE enum loam_error image_read(const struct image *image, uint64_t index, void *to, bool is_zero,
                                         struct loam_diag *diag);

/* Whether the chunk is zeros, through all parents. */
bool image_is_zero(const struct image *image, uint64_t index);

/* Every chunk that is not zero into fresh memory, by threads as image_write has them. Errors as image_read. */
LOAM_MUST_USE enum loam_error image_restore(const struct image *image, struct loam_memory *memory,
                                            uint32_t thread_count, struct loam_diag *diag);

#endif
