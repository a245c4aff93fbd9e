// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * The GPA map: the one table that says where every guest-physical byte lives.
 *
 * Rows (regions) are sorted and disjoint. A published table is immutable: a change builds a new one and publishes it
 * whole, so that a reader sees the old table or the new one and never a mixture. Neighbouring regions that continue
 * each other in every respect are joined, so that one mapping has one representation whatever the order of the changes.
 *
 * Everything that others need to know of guest memory is derived from this table: KVM's memory slots, the E820 map,
 * translation in both directions.
 *
 * Memory is the caller's (size query, then init); malloc is not called, and the system only to wait for another change
 * (allocator/host/prim.h).
 *
 * Threads: readers take a view with loam_gpa_map_acquire and give it back with loam_gpa_map_release; lookups in a view
 * wait for nobody. Changes exclude each other by an internal lock (they sleep), and never wait for readers. A view may be
 * released by another thread than the one that acquired it. loam_gpa_map_init wants the map to itself.
 *
 * LOAM_ERROR_BUSY: a change wants one table, which is neither the current one nor held. Each view keeps one table from
 * use, from the start of acquire until it is released; several of one generation keep the same. So where at most N views
 * are held or being acquired at a time, and table_capacity is N + 2 or more, no change is BUSY, however many threads
 * make them, and however many changes they make at once. With fewer tables a change is refused when all others are held;
 * it may be tried again. loam_gpa_map_translate counts only while it has to acquire a view, which it says there.
 *
 * HVAs: what a view gives as an HVA is where the host memory was mapped when the table was published. The map owns no
 * memory and keeps none alive: an HVA is good for as long as whoever mapped that memory leaves it mapped, whether or
 * not the view is still held. In a struct loam_memory that is until loam_memory_destroy, also after loam_memory_remove;
 * of a block that was plugged, until it is unplugged and every view from before is released.
 * A view that is held says what the guest was given at that moment: whoever must not touch what was taken away since
 * asks a newer one. Memory that is the caller's is unmapped only when its region is removed, every view from before is
 * released, and no hypervisor has a slot of it.
 *
 * The end: release the views, then free the map's memory; there is nothing else to destroy.
 *
 * NULL where an object or an output is wanted is LOAM_ERROR_INVALID; what cannot fail answers 0 or NULL.
 */
#ifndef LOAM_GPA_MAP_H
#define LOAM_GPA_MAP_H

#include "loam/error.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Regions start and end at multiples of it: KVM's and the processor's smallest page. */
#define LOAM_REGION_ALIGN_BYTES 4096ul

/** Opaque; lies in the memory given to loam_gpa_map_init. */
struct loam_gpa_map;

/** An immutable table; valid from acquire to release, for any number of threads at once. */
struct loam_gpa_view;

/** What is at a guest-physical address. */
enum loam_region_type {
    LOAM_REGION_RAM,      /**< E820 type 1 */
    LOAM_REGION_RESERVED, /**< memory is there, and the guest's system software shall not use it: E820 type 2 */
    LOAM_REGION_DEVICE,   /**< no memory: every access reaches the host as a device access; no slot, no E820 row */
    LOAM_REGION_TYPE_COUNT
};

/** What the guest may do. Nested: each includes those before it. */
enum loam_access { LOAM_ACCESS_NONE, LOAM_ACCESS_READ, LOAM_ACCESS_WRITE, LOAM_ACCESS_COUNT };

/** start, bytes, hva and backing_offset are multiples of LOAM_REGION_ALIGN_BYTES; hva + bytes does not wrap. */
struct loam_region {
    loam_gpa start;
    uint64_t bytes;
    void *hva;               /**< of start; NULL if and only if type is LOAM_REGION_DEVICE */
    uint64_t backing_offset; /**< of start within its backing, in bytes; 0 for a device */
    uint32_t backing; /**< the caller's number for the backing that holds it; 0: none with a number, or a device */
    enum loam_region_type type;
    enum loam_access access; /**< LOAM_ACCESS_NONE if and only if type is LOAM_REGION_DEVICE */
    bool log_dirty;          /**< the hypervisor logs which pages the guest writes; false for a device */
};

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

/** How large a map may grow; zero members mean what their comment says. */
struct loam_gpa_map_config {
    uint32_t region_capacity; /**< regions a table can hold; 0: 64 */
    uint32_t table_capacity;  /**< N + 2 for N views held at a time, see above; 2 to 4096; 0: 4 */
};

/**
 * Bytes that loam_gpa_map_init wants; 0 if config is invalid. NULL: all zero. About 80 for each region and table. Init
 * writes a few hundred of them, and the rest is written as it is needed: memory that is zero on demand, as from mmap(2),
 * takes no more pages than the regions and the views that there are at a time.
 */
size_t loam_gpa_map_bytes(const struct loam_gpa_map_config *config);

/**
 * Make an empty map in memory (aligned to 64), which stays the caller's until no call uses the map any more.
 * *map is NULL on failure. LOAM_ERROR_INVALID: config, alignment, or too few bytes.
 */
LOAM_MUST_USE enum loam_error loam_gpa_map_init(void *memory, size_t bytes, const struct loam_gpa_map_config *config,
                                                struct loam_gpa_map **map);

/* --- Changes --------------------------------------------------------------------------------------------------- */

/**
 * Add a region. LOAM_ERROR_INVALID: range empty, misaligned, beyond LOAM_GPA_END, or members that contradict each
 * other. LOAM_ERROR_OVERLAP: part of the range is there already. LOAM_ERROR_EXHAUSTED: more rows than region_capacity.
 * LOAM_ERROR_BUSY: readers hold every other table. LOAM_ERROR_NOT_PERMITTED: in the map of a struct loam_memory,
 * backing is a number that one of its backings has or may come to have; those above LOAM_FRAME_SECTION_MAX never are.
 */
LOAM_MUST_USE enum loam_error loam_gpa_map_insert(struct loam_gpa_map *map, const struct loam_region *region);

/**
 * Remove a range; regions that reach beyond it are split. LOAM_ERROR_NOT_FOUND: part of the range is not in the map.
 * LOAM_ERROR_NOT_PERMITTED: in the map of a struct loam_memory, part of the range is its RAM, and only
 * loam_memory_remove knows whether it is in use. Else as loam_gpa_map_insert.
 */
LOAM_MUST_USE enum loam_error loam_gpa_map_remove(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes);

/**
 * Give a range of memory another access; regions that reach beyond it are split. LOAM_ERROR_INVALID also: access is
 * LOAM_ACCESS_NONE, or the range holds a device. Else as loam_gpa_map_remove.
 */
LOAM_MUST_USE enum loam_error loam_gpa_map_protect(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes,
                                                   enum loam_access access);

/** What a change does. */
enum loam_change_kind {
    LOAM_CHANGE_INSERT,  /**< as loam_gpa_map_insert, with all of region */
    LOAM_CHANGE_REMOVE,  /**< as loam_gpa_map_remove, with region's start and bytes */
    LOAM_CHANGE_PROTECT, /**< as loam_gpa_map_protect, with region's start, bytes and access */
    LOAM_CHANGE_RETYPE,  /**< the same for its type, LOAM_REGION_RAM or LOAM_REGION_RESERVED */
    LOAM_CHANGE_LOG,     /**< the same for its log_dirty */
    LOAM_CHANGE_COUNT
};

/** One of several changes. */
struct loam_gpa_change {
    enum loam_change_kind kind;
    struct loam_region region; /**< what the kind does not name counts for nothing */
};

/**
 * Make all changes, one after the other, or none, and publish once: a reader sees the table before the first or the table
 * after the last. So a range that becomes something else is at no moment without memory. Each has the errors of the call
 * that it stands for, judged by what those before it have left. *refused (NULL: not wanted) is the index of the change
 * that failed; count on LOAM_OK, on LOAM_ERROR_BUSY, and where map or changes are NULL. count 0: LOAM_OK, and nothing is
 * published.
 */
LOAM_MUST_USE enum loam_error loam_gpa_map_change(struct loam_gpa_map *map, const struct loam_gpa_change *changes,
                                                  uint32_t count, uint32_t *refused);

/* --- Views ----------------------------------------------------------------------------------------------------- */

/** The table of this moment. Never fails (NULL of NULL); hold it for one piece of work, then release it. */
const struct loam_gpa_view *loam_gpa_map_acquire(struct loam_gpa_map *map);

/**
 * view comes from loam_gpa_map_acquire on the same map, and is released once. LOAM_ERROR_INVALID: it is no table of the
 * map, or nobody holds it, so that it was released before; nothing has changed then. What cannot be seen is a release
 * too many of a table that others hold.
 */
enum loam_error loam_gpa_map_release(struct loam_gpa_map *map, const struct loam_gpa_view *view);

/** Counts publications, from 0 for the empty map. Two views with the same generation are the same table. */
uint64_t loam_gpa_view_generation(const struct loam_gpa_view *view);

/**
 * The same of the map as it is, without a view: as long as it is that of a view that was held, all that the view said is
 * so, but for a change under way. Writes nothing, so threads that ask it again and again do not slow each other. 0: NULL.
 */
uint64_t loam_gpa_map_generation(const struct loam_gpa_map *map);

/**
 * As loam_gpa_view_translate in the table of this moment, in one call: for a device that wants one address. Holds
 * nothing and writes nothing that others read, so it keeps no change from being made, and threads do not slow each
 * other; only after a change has come in between four times in a row does it acquire a view for the moment.
 *
 * No view says what *hva was good for. It is good as long as the memory stays mapped: see HVAs above. In a struct
 * loam_memory that is until the end, but for memory that was added to a guest that runs: that is until it is taken away
 * again. Where another thread may do that meanwhile, acquire a view, translate in it, and hold it until the last access:
 * memory is not unmapped while a view from before is held.
 */
LOAM_MUST_USE enum loam_error loam_gpa_map_translate(struct loam_gpa_map *map, loam_gpa gpa, uint64_t bytes,
                                                     enum loam_access access, void **hva);

/** How many regions the table has. */
uint32_t loam_gpa_view_count(const struct loam_gpa_view *view);

/** The index-th region in ascending order. LOAM_ERROR_NOT_FOUND: index >= loam_gpa_view_count. */
LOAM_MUST_USE enum loam_error loam_gpa_view_region(const struct loam_gpa_view *view, uint32_t index,
                                                   struct loam_region *region);

/** The region that holds gpa. LOAM_ERROR_NOT_FOUND: none. */
LOAM_MUST_USE enum loam_error loam_gpa_view_find(const struct loam_gpa_view *view, loam_gpa gpa,
                                                 struct loam_region *region);

/**
 * The HVA of [gpa, gpa + bytes), all of which lies in one region that grants access (READ or WRITE: what the guest may
 * do, for a device that acts for the guest). *hva is NULL on failure.
 * LOAM_ERROR_INVALID: empty, or no range of GPAs. LOAM_ERROR_NOT_FOUND: gpa lies in no region, or in a device.
 * LOAM_ERROR_NOT_PERMITTED: the region grants less. LOAM_ERROR_OVERLAP: the range goes on beyond its region: ask
 * loam_gpa_view_pieces.
 */
LOAM_MUST_USE enum loam_error loam_gpa_view_translate(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                      enum loam_access access, void **hva);

/** A part of a range that lies in one stretch of host memory. */
struct loam_piece {
    loam_gpa start;
    void *hva;
    uint64_t bytes;
};

/**
 * The same range as pieces in ascending order, contiguous ones joined; their bytes add up to the whole of it.
 * *count (0 on any other failure) receives how many there are, also when capacity is too small for them
 * (LOAM_ERROR_EXHAUSTED; pieces holds the first of them then). Errors else as translate: if any byte is missing or
 * grants less, there are no pieces.
 */
LOAM_MUST_USE enum loam_error loam_gpa_view_pieces(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                   enum loam_access access, struct loam_piece *pieces,
                                                   uint32_t capacity, uint32_t *count);

/**
 * Reverse lookup: the GPA of [hva, hva + bytes), all of which lies in one region. O(regions). Where two regions map the
 * same host memory, the lower GPA is given. *gpa is 0 on failure. LOAM_ERROR_INVALID: bytes is 0.
 * LOAM_ERROR_NOT_FOUND: no region holds all of it.
 */
LOAM_MUST_USE enum loam_error loam_gpa_view_gpa_from_hva(const struct loam_gpa_view *view, const void *hva,
                                                         uint64_t bytes, loam_gpa *gpa);

/**
 * Copy between guest memory and a buffer, across regions. Each byte of guest memory is touched once; a guest that runs
 * may change it meanwhile. Every value of 1, 2, 4 or 8 bytes that is aligned to its size in guest memory, and lies
 * wholly in the range, is copied in one access: half of an old and half of a new one are never seen, neither here nor
 * by the guest. In which order the values are copied is not said, and nothing else is ordered by it: see the loads and
 * stores below. Errors as loam_gpa_view_pieces; nothing is copied then, and buffer is as it was.
 * @{
 */
LOAM_MUST_USE enum loam_error loam_gpa_view_read(const struct loam_gpa_view *view, loam_gpa gpa, void *buffer,
                                                 uint64_t bytes);
LOAM_MUST_USE enum loam_error loam_gpa_view_write(const struct loam_gpa_view *view, loam_gpa gpa, const void *buffer,
                                                  uint64_t bytes);
/** @} */

/* --- Words that are shared with a guest that runs ---------------------------------------------------------------- */

/** As C11's memory orders, which the other side, a processor of the guest, keeps by its own means. */
enum loam_order {
    LOAM_ORDER_RELAXED, /**< one access, and no more */
    LOAM_ORDER_ACQUIRE, /**< a load: what this thread does after it comes after it */
    LOAM_ORDER_RELEASE, /**< a store: what this thread did before it comes before it */
    LOAM_ORDER_SEQ_CST, /**< either, and all of this order are in one order: a load after a store does not pass it */
    LOAM_ORDER_COUNT
};

/**
 * Load or store one word at gpa, aligned to its size, by one access. *value is 0 on failure.
 * LOAM_ERROR_INVALID: gpa is misaligned or no GPA, or order is none for a load (RELEASE) or a store (ACQUIRE).
 * LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_PERMITTED: as loam_gpa_view_translate; a store wants LOAM_ACCESS_WRITE, a load
 * LOAM_ACCESS_READ. A word never crosses regions. O(log regions) as any translation; waits for nobody.
 * @{
 */
LOAM_MUST_USE enum loam_error loam_gpa_view_load8(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                                  uint8_t *value);
LOAM_MUST_USE enum loam_error loam_gpa_view_load16(const struct loam_gpa_view *view, loam_gpa gpa,
                                                   enum loam_order order, uint16_t *value);
LOAM_MUST_USE enum loam_error loam_gpa_view_load32(const struct loam_gpa_view *view, loam_gpa gpa,
                                                   enum loam_order order, uint32_t *value);
LOAM_MUST_USE enum loam_error loam_gpa_view_load64(const struct loam_gpa_view *view, loam_gpa gpa,
                                                   enum loam_order order, uint64_t *value);
LOAM_MUST_USE enum loam_error loam_gpa_view_store8(const struct loam_gpa_view *view, loam_gpa gpa,
                                                   enum loam_order order, uint8_t value);
LOAM_MUST_USE enum loam_error loam_gpa_view_store16(const struct loam_gpa_view *view, loam_gpa gpa,
                                                    enum loam_order order, uint16_t value);
LOAM_MUST_USE enum loam_error loam_gpa_view_store32(const struct loam_gpa_view *view, loam_gpa gpa,
                                                    enum loam_order order, uint32_t value);
LOAM_MUST_USE enum loam_error loam_gpa_view_store64(const struct loam_gpa_view *view, loam_gpa gpa,
                                                    enum loam_order order, uint64_t value);
/** @} */

/* --- Derived tables -------------------------------------------------------------------------------------------- */

/** A KVM memory slot to be (KVM API, section 4.35 KVM_SET_USER_MEMORY_REGION). */
struct loam_slot {
    loam_gpa start;
    uint64_t bytes;
    void *hva;
    bool read_only;
    bool log_dirty; /**< as in struct loam_region */
};

/** The fewest slots that show the guest this table. *count and LOAM_ERROR_EXHAUSTED as loam_gpa_view_pieces. */
LOAM_MUST_USE enum loam_error loam_gpa_view_slots(const struct loam_gpa_view *view, struct loam_slot *slots,
                                                  uint32_t capacity, uint32_t *count);

/**
 * A stretch of guest memory as another consumer takes it: a row of vhost-user's memory table (VHOST_USER_SET_MEM_TABLE),
 * a range for VFIO to map (VFIO_IOMMU_MAP_DMA), a piece of a snapshot.
 */
struct loam_share {
    loam_gpa start;
    uint64_t bytes;
    void *hva;
    uint64_t backing_offset; /**< of start within its backing, and its descriptor, in bytes */
    uint32_t backing;        /**< as in struct loam_region */
    int fd;                  /**< of the backing, and its owner's; -1: none was named */
    bool read_only;          /**< to the guest */
};

/**
 * The fewest rows that hand on all memory of this table: joined as far as they continue each other in the guest, in host
 * memory and in the backing, whatever their types are, and logged or not. fds[n - 1] is the descriptor of backing n, for
 * n from 1 to fd_count. *count and LOAM_ERROR_EXHAUSTED as loam_gpa_view_pieces.
 */
LOAM_MUST_USE enum loam_error loam_gpa_view_shares(const struct loam_gpa_view *view, const int *fds, uint32_t fd_count,
                                                   struct loam_share *shares, uint32_t capacity, uint32_t *count);

/** A row of the E820 map (ACPI specification 6.5, section 15.1, table 15.4). */
struct loam_e820_entry {
    uint64_t start;
    uint64_t bytes;
    uint32_t type;
};

#define LOAM_E820_RAM      1u /**< the guest may use it */
#define LOAM_E820_RESERVED 2u /**< the guest leaves it alone */

/**
 * The E820 map: writable RAM as type 1; reserved regions and memory that the guest may not write as type 2; neighbours
 * of one type joined. *count and LOAM_ERROR_EXHAUSTED as loam_gpa_view_pieces.
 */
LOAM_MUST_USE enum loam_error loam_gpa_view_e820(const struct loam_gpa_view *view, struct loam_e820_entry *entries,
                                                 uint32_t capacity, uint32_t *count);

/** What a row of the E820 map takes where firmware and Linux's boot_params hold it: there is no room between two. */
#define LOAM_E820_ROW_BYTES 20u

/**
 * Write entries as such rows, one behind the other: start in 8 bytes, bytes in 8, type in 4, little-endian. room_bytes is
 * what there is at rows, which may lie at any address. LOAM_ERROR_EXHAUSTED: it is too little, and nothing is written.
 */
LOAM_MUST_USE enum loam_error loam_e820_write(const struct loam_e820_entry *entries, uint32_t count, void *rows,
                                              uint64_t room_bytes);

/** Check order, disjointness, alignment, joining and reader counts. LOAM_ERROR_CORRUPT: diag says what disagrees. */
LOAM_MUST_USE enum loam_error loam_gpa_map_validate(struct loam_gpa_map *map, struct loam_diag *diag);

/**
 * For who forks with a map in private memory while other threads change it: freeze before fork(2), thaw after it, in the
 * parent and in the child. Views that other threads held stay held in the child's copy: each costs it a table.
 * @{
 */
void loam_gpa_map_freeze(struct loam_gpa_map *map);
void loam_gpa_map_thaw(struct loam_gpa_map *map);
/** @} */

#ifdef __cplusplus
}
#endif

#endif
