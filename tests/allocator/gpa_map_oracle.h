// SPDX-License-Identifier: Apache-2.0
/*
 * A GPA map that is too simple to be wrong: one record a page, and every answer found by looking at pages one after the
 * other. It covers two windows of guest-physical addresses, the lowest pages and the highest; whatever lies between
 * is not there.
 *
 * Threads: one. It owns nothing but itself.
 */
#ifndef LOAM_GPA_MAP_ORACLE_H
#define LOAM_GPA_MAP_ORACLE_H

#include "loam/gpa_map.h"

#define ORACLE_WINDOW_PAGES 256u
#define ORACLE_PAGES        (2 * ORACLE_WINDOW_PAGES) /* more regions than this there cannot be */
#define ORACLE_PAGE_BYTES   UINT64_C(4096)

struct oracle_page {
    bool present;
    enum loam_region_type type;
    enum loam_access access;
    bool log_dirty;
    uintptr_t hva;
    uint64_t backing_offset;
    uint32_t backing;
};

struct oracle {
    struct oracle_page pages[ORACLE_PAGES];
};

loam_gpa oracle_gpa(uint32_t page);

/* Changes; capacity is the most regions that are allowed. busy: no table is free. */
enum loam_error oracle_insert(struct oracle *oracle, const struct loam_region *region, uint32_t capacity, bool busy);
enum loam_error oracle_remove(struct oracle *oracle, loam_gpa start, uint64_t bytes, uint32_t capacity, bool busy);
enum loam_error oracle_protect(struct oracle *oracle, loam_gpa start, uint64_t bytes, enum loam_access access,
                               uint32_t capacity, bool busy);

enum loam_error oracle_retype(struct oracle *oracle, loam_gpa start, uint64_t bytes, enum loam_region_type type,
                              uint32_t capacity, bool busy);
enum loam_error oracle_log(struct oracle *oracle, loam_gpa start, uint64_t bytes, bool log_dirty, uint32_t capacity,
                           bool busy);

/* Well-formed changes, all or none. */
enum loam_error oracle_change(struct oracle *oracle, const struct loam_gpa_change *changes, uint32_t count,
                              uint32_t capacity, bool busy, uint32_t *refused);

/* Answers. Arrays hold ORACLE_PAGES elements. */
uint32_t oracle_regions(const struct oracle *oracle, struct loam_region *regions);
enum loam_error oracle_find(const struct oracle *oracle, loam_gpa gpa, struct loam_region *region);
enum loam_error oracle_translate(const struct oracle *oracle, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                                 void **hva);
enum loam_error oracle_pieces(const struct oracle *oracle, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                              struct loam_piece *pieces, uint32_t *count);
enum loam_error oracle_gpa_from_hva(const struct oracle *oracle, const void *hva, uint64_t bytes, loam_gpa *gpa);
uint32_t oracle_slots(const struct oracle *oracle, struct loam_slot *slots);
uint32_t oracle_shares(const struct oracle *oracle, const int *fds, uint32_t fd_count, struct loam_share *shares);
uint32_t oracle_e820(const struct oracle *oracle, struct loam_e820_entry *entries);

#endif
