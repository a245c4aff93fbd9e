// SPDX-License-Identifier: Apache-2.0
/*
 * For the keeper of a map's backings: whoever knows what lives in their memory, and so alone may take rows of theirs out
 * of the map, or put them in. To everyone else the map refuses both; any other row, and loam_gpa_map_protect, are left
 * to all.
 *
 * Private to the allocator; implemented in gpa_map.c.
 */
#ifndef LOAM_GPA_MAP_KEEPER_H
#define LOAM_GPA_MAP_KEEPER_H

#include "loam/gpa_map.h"

/* From here on rows whose backing is 1 to backing_count are the keeper's. Before other threads use the map. */
void loam_gpa_map_keep(struct loam_gpa_map *map, uint32_t backing_count);

/* As loam_gpa_map_insert and loam_gpa_map_remove, for the keeper's rows too. */
LOAM_MUST_USE enum loam_error loam_gpa_map_keeper_insert(struct loam_gpa_map *map, const struct loam_region *region);
LOAM_MUST_USE enum loam_error loam_gpa_map_keeper_remove(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes);

#endif
