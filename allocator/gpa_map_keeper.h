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

/*
 * A change in two steps, for what has to be done elsewhere before it can be seen: prepared, it is *view, which nobody else
 * has and whose hold nobody releases; then it is published, which cannot fail, or abandoned. Between the two every other
 * change waits, so the thread makes none itself. Errors as loam_gpa_map_change, of one change; nothing is prepared then.
 */
LOAM_MUST_USE enum loam_error loam_gpa_map_keeper_prepare(struct loam_gpa_map *map,
                                                          const struct loam_gpa_change *change,
                                                          const struct loam_gpa_view **view);
void loam_gpa_map_keeper_publish(struct loam_gpa_map *map, const struct loam_gpa_view *view);
void loam_gpa_map_keeper_abandon(struct loam_gpa_map *map);

/*
 * Whether nobody holds a view from before the given generation, so that nobody goes by what the change took away that led
 * to it. False also while a thread acquires a view: ask again.
 */
LOAM_MUST_USE bool loam_gpa_map_keeper_settled(struct loam_gpa_map *map, uint64_t generation);

#endif
