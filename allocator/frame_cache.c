// SPDX-License-Identifier: Apache-2.0
/*
 * Caches: the public functions of loam/frame.h, from the owner's side. The other side, and why the two never meet, is in
 * frame_owner.h.
 *
 * A call is tried on the cache's own chunks first, between enter and leave. Whatever does not fit there (no room, a block
 * of somebody else's chunk, misuse, a sum that is wrong) changes nothing and takes the lock, where the same question is
 * asked again with everything at hand; so every error is found under the lock.
 */
#include "allocator/frame_block.h"
#include "allocator/frame_buddy.h"
#include "allocator/frame_chunk.h"
#include "allocator/frame_find.h"
#include "allocator/frame_lists.h"
#include "allocator/frame_lock.h"
#include "allocator/frame_owner.h"
#include "allocator/frame_search.h"
#include "loam/frame.h"

#include <string.h>

#define LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define ZONE_NONE LOAM_FRAME_ZONE_COUNT

/* --- In and out ------------------------------------------------------------------------------------------------ */

static inline struct loam_frame *allocator_of(const struct loam_frame_cache *cache)
{
    return (struct loam_frame *)((uintptr_t)cache - cache->offset_bytes);
}

/* Whether the owner may go on without the lock. */
static inline bool enter(struct loam_frame_cache *cache)
{
    frame_write(cache->busy, 1);
    /* The compiler keeps the order; the processor is made to by the barrier of whoever writes forbidden. */
    atomic_signal_fence(memory_order_seq_cst);
    /* Acquire: pairs with the release in loam_frame_owner_resume. */
    if (LIKELY(__atomic_load_n(&cache->forbidden, __ATOMIC_ACQUIRE) == FRAME_RUNNING &&
               cache->seal == frame_seal_of_cache(cache))) {
        return true;
    }
    frame_write(cache->busy, 0);
    return false;
}

static inline void leave(struct loam_frame_cache *cache)
{
    /* Release: pairs with the acquire in loam_frame_owner_stop. */
    __atomic_store_n(&cache->busy, 0, __ATOMIC_RELEASE);
}

/* The lock, as the cache's owner. NULL and *error: refused. */
static struct loam_frame *lock_as_owner(struct loam_frame_cache *cache, enum loam_error *error)
{
    struct loam_frame *frame = NULL;

    *error = LOAM_ERROR_UNINITIALISED;
    if (cache->seal == frame_seal_of_cache(cache)) {
        frame = frame_lock_to_change(allocator_of(cache));
        *error = frame == NULL ? LOAM_ERROR_CORRUPT : LOAM_OK;
    }
    if (frame != NULL && cache->forbidden == FRAME_UNUSED) {
        *error = frame_unlock(frame, LOAM_ERROR_UNINITIALISED);
        return NULL;
    }
    if (frame != NULL) {
        frame->holder = (uint32_t)cache->id + 1;
    }
    return frame;
}

/* Whose chunks serve a request: those of the highest zone that the limit allows. ZONE_NONE: the allocator decides. */
static inline uint32_t zone_for(const struct loam_frame *frame, loam_pfn limit)
{
    if (limit.value == frame->zone_end) {
        return LOAM_FRAME_ZONE_DMA32;
    }
    if (limit.value != 0 && limit.value < frame->pfn_end) {
        return ZONE_NONE;
    }
    if (frame_read(frame->top_zone) == LOAM_FRAME_ZONE_NORMAL) {
        return LOAM_FRAME_ZONE_NORMAL;
    }
    return frame->dma32_reserve_frames == 0 ? (uint32_t)LOAM_FRAME_ZONE_DMA32 : ZONE_NONE;
}

/* --- Taking from the current chunk ----------------------------------------------------------------------------- */

/* Count frames that left the current chunk, or came back. */
static inline void count_current(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint32_t zone,
                                 uint64_t change, uint64_t freed)
{
    chunk->sum ^= change;
    frame_write(chunk->free_frames, (uint16_t)(chunk->free_frames + freed));
    frame_write(cache->free_frames[zone], cache->free_frames[zone] + freed);
}

static inline uint32_t find_in_word(const struct frame_map *map, uint32_t word, uint32_t order)
{
    uint64_t bits = frame_bits_starts(frame_bits_word(map, FRAME_BITS_FREE, word), order);

    return bits == 0 ? LOAM_FRAME_CHUNK_FRAMES : word * 64 + (uint32_t)__builtin_ctzll(bits);
}

/* A free block of order 0 to 8 in the current chunk; 512: none. */
static inline uint32_t find_current(const struct frame_current *current, const struct frame_map *map, uint32_t order)
{
    uint32_t found = LOAM_FRAME_CHUNK_FRAMES;

    if (order <= 6) {
        found = find_in_word(map, current->word % FRAME_MAP_WORDS, order);
    }
    return LIKELY(found < LOAM_FRAME_CHUNK_FRAMES) ? found : frame_bits_find_order(map, order);
}

static inline bool take_current(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order,
                                uint64_t *start)
{
    struct frame_current *current = &cache->current[zone][order];
    struct frame_chunk *chunk;
    struct frame_map *map;
    uint32_t found, count = 1u << order;
    uint64_t change;

    if (UNLIKELY(current->seal != frame_seal_of_current(current))) {
        return false;
    }
    chunk = frame_address(frame, current->chunk_offset_bytes);
    map = frame_address(frame, current->map_offset_bytes);
    found = find_current(current, map, order);
    if (UNLIKELY(found == LOAM_FRAME_CHUNK_FRAMES)) {
        return false;
    }
    current->word = found / 64;
    if (LIKELY(order <= 6)) {
        uint64_t mask = UINT64_MAX >> (64 - count) << (found % 64);

        change = frame_bits_set(map, found / 64, mask, mask ^ (mask >> 1 & mask));
    } else {
        change = frame_bits_take(map, found, count, true);
    }
    count_current(cache, chunk, zone, change, -(uint64_t)count);
    *start = current->base + found;
    return true;
}

/* Of order 9: a chunk that lies ready, in the section where the owner freed last. */
static inline bool take_spare(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint64_t *start)
{
    const struct frame_memo *memo = &cache->memo;
    uint64_t count = cache->spare_count[zone];
    struct frame_chunk *chunk;
    uint64_t at;

    if (count == 0 || count > FRAME_SPARE_CHUNKS || memo->seal != frame_seal_of_memo(memo)) {
        return false;
    }
    at = cache->spare[zone][count - 1];
    if (at - memo->start >= memo->count) {
        return false;
    }
    chunk = frame_address(frame, memo->chunks_offset_bytes + (int64_t)((at / LOAM_FRAME_CHUNK_FRAMES) * sizeof *chunk));
    if (chunk->owner != cache->id + 1 || chunk->state != FRAME_CHUNK_FREE) {
        return false;
    }
    cache->spare_count[zone] = count - 1;
    frame_write(chunk->state, FRAME_CHUNK_WHOLE);
    frame_write(cache->free_frames[zone], cache->free_frames[zone] - LOAM_FRAME_CHUNK_FRAMES);
    *start = at;
    return true;
}

static inline bool take_own(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order,
                            uint64_t *start)
{
    if (UNLIKELY(zone >= ZONE_NONE)) {
        return false;
    }
    return LIKELY(order < FRAME_CHUNK_ORDER) ? take_current(frame, cache, zone, order, start)
                                             : take_spare(frame, cache, zone, start);
}

/* --- A new current chunk, with the lock ------------------------------------------------------------------------ */

static void make_current(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                         uint64_t chunk, uint32_t zone, uint32_t order)
{
    struct frame_current *current = &cache->current[zone][order];
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    if (this->list != FRAME_LIST_NONE) {
        loam_frame_lists_remove(frame, section, chunk);
    }
    this->list = FRAME_LIST_CURRENT;
    *current = (struct frame_current){
        .base = frame_chunk_start(section, chunk),
        .chunk_offset_bytes = (int64_t)((uintptr_t)this - (uintptr_t)frame),
        .map_offset_bytes = (int64_t)((uintptr_t)frame_map(frame, section, chunk) - (uintptr_t)frame),
        .link = frame_link(section, chunk),
    };
    current->seal = frame_seal_of_current(current);
}

/* The current chunk has no block of the order: it goes among the others. */
static void put_current_aside(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order)
{
    uint64_t link = cache->current[zone][order].link;
    struct frame_section *section;

    if (cache->current[zone][order].seal == 0) {
        return;
    }
    loam_frame_chunk_from_link(frame, link, &section);
    if (section != NULL) {
        loam_frame_owner_put_aside(frame, section, (uint32_t)link);
    }
}

/* A chunk out of the buddy, the cache's from now on: partly used if it is to be, else spare. */
static bool adopt_piece(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, bool partial,
                        struct frame_section **section, uint64_t *chunk)
{
    if (!loam_frame_search_piece(frame, zone, section, chunk)) {
        return false;
    }
    loam_frame_buddy_take_one(frame, *section, *chunk);
    if (frame_read(frame->damaged)) {
        return false;
    }
    if (partial) {
        loam_frame_chunk_make_partial(frame, *section, *chunk);
    }
    loam_frame_owner_adopt(frame, cache, *section, *chunk);
    return !frame_read(frame->damaged);
}

/* A spare chunk of the cache becomes partly used. */
static bool open_spare(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone,
                       struct frame_section **section, uint64_t *chunk)
{
    uint64_t start;

    if (cache->spare_count[zone] == 0 || cache->spare_count[zone] > FRAME_SPARE_CHUNKS) {
        return false;
    }
    start = cache->spare[zone][--cache->spare_count[zone]];
    *section = loam_frame_section_from_pfn(frame, start);
    if (*section == NULL) {
        loam_frame_damage(frame);
        return false;
    }
    *chunk = frame_chunk_index(*section, start);
    loam_frame_chunk_make_partial(frame, *section, *chunk);
    frame_chunks(frame, *section)[*chunk].entered = 0;
    return true;
}

/*
 * Have a block of the order in the current chunk: the fullest that will do of the cache's own, then of the allocator's,
 * then a chunk that is wholly free.
 */
static bool refill(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order)
{
    struct frame_section *section;
    uint64_t chunk;

    put_current_aside(frame, cache, zone, order);
    if (loam_frame_search_lists(frame, &cache->lists[zone], order, &section, &chunk)) {
        make_current(frame, cache, section, chunk, zone, order);
    } else if (loam_frame_search_chunk(frame, zone, order, &section, &chunk)) {
        loam_frame_owner_adopt(frame, cache, section, chunk);
        if (!frame_read(frame->damaged)) {
            make_current(frame, cache, section, chunk, zone, order);
        }
    } else if (open_spare(frame, cache, zone, &section, &chunk) ||
               adopt_piece(frame, cache, zone, true, &section, &chunk)) {
        make_current(frame, cache, section, chunk, zone, order);
    } else {
        return false;
    }
    return !frame_read(frame->damaged);
}

/* The section in which pfn lies is where the owner works. */
static void remember(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t pfn)
{
    const struct frame_section *section = loam_frame_section_from_pfn(frame, pfn);
    struct frame_memo *memo = &cache->memo;

    if (section == NULL) {
        return;
    }
    *memo = (struct frame_memo){
        .start = section->start,
        .count = section->end - section->start,
        .chunks_offset_bytes =
            section->metadata_offset_bytes - (int64_t)(section->first_chunk * sizeof(struct frame_chunk)),
        .maps_offset_bytes = section->metadata_offset_bytes + (int64_t)frame_chunks_bytes(section->chunk_count) -
                             (int64_t)(section->first_chunk * sizeof(struct frame_map)),
        .id = section->id,
    };
    memo->seal = frame_seal_of_memo(memo);
}

/* With the lock: refill and take, or ask the allocator. */
static enum loam_error alloc_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                    loam_pfn limit, uint64_t *start)
{
    struct loam_frame_request request = frame_request_of_order(order, limit);
    uint32_t zone = zone_for(frame, limit);
    struct frame_section *section;
    struct loam_frame_block block;
    enum loam_error error;
    uint64_t chunk;

    if (zone < ZONE_NONE && order < LOAM_FRAME_CACHE_ORDERS) {
        loam_frame_owner_collect(frame, cache);
        if (order < FRAME_CHUNK_ORDER
                ? refill(frame, cache, zone, order)
                : cache->spare_count[zone] > 0 || adopt_piece(frame, cache, zone, false, &section, &chunk)) {
            if (order == FRAME_CHUNK_ORDER) {
                remember(frame, cache, cache->spare[zone][(cache->spare_count[zone] - 1) % FRAME_SPARE_CHUNKS]);
            }
            if (take_own(frame, cache, zone, order, start)) {
                return LOAM_OK;
            }
            loam_frame_damage(frame);
            return LOAM_ERROR_CORRUPT;
        }
    }
    error = loam_frame_block_alloc(frame, &request, &block);
    *start = block.start.value;
    return error;
}

enum loam_error loam_frame_cache_alloc(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit, loam_pfn *start)
{
    struct loam_frame *frame;
    enum loam_error error;
    uint64_t at = 0;

    if (LIKELY(order < LOAM_FRAME_CACHE_ORDERS) && LIKELY(enter(cache))) {
        bool taken;

        frame = allocator_of(cache);
        taken = take_own(frame, cache, zone_for(frame, limit), order, &at);
        leave(cache);
        if (LIKELY(taken)) {
            *start = loam_pfn_from_u64(at);
            return LOAM_OK;
        }
    }
    *start = loam_pfn_from_u64(0);
    frame = lock_as_owner(cache, &error);
    if (frame == NULL) {
        return error;
    }
    error = frame_unlock(frame, alloc_locked(frame, cache, order, limit, &at));
    *start = loam_pfn_from_u64(error == LOAM_OK ? at : 0);
    return error;
}

/* --- Giving back ----------------------------------------------------------------------------------------------- */

/* The chunk of pfn, if it is the cache's own and in the section of the memo; NULL: not here. */
static inline struct frame_chunk *own_chunk(struct loam_frame *frame, const struct loam_frame_cache *cache,
                                            uint64_t pfn, struct frame_map **map)
{
    const struct frame_memo *memo = &cache->memo;
    int64_t number = (int64_t)(pfn / LOAM_FRAME_CHUNK_FRAMES);
    struct frame_chunk *chunk;

    if (UNLIKELY(pfn - memo->start >= memo->count || memo->seal != frame_seal_of_memo(memo))) {
        return NULL;
    }
    chunk = frame_address(frame, memo->chunks_offset_bytes + number * (int64_t)sizeof *chunk);
    *map = frame_address(frame, memo->maps_offset_bytes + number * (int64_t)sizeof **map);
    return LIKELY(frame_read(chunk->owner) == cache->id + 1) ? chunk : NULL;
}

/* Whether others returned the block at offset already, as far as can be told here. */
static inline bool returned_here(const struct loam_frame_cache *cache, const struct frame_chunk *chunk, uint32_t offset)
{
    uint32_t slot = frame_read(chunk->slot);

    return UNLIKELY(slot != 0) &&
           (slot > FRAME_RETURNED ||
            ((frame_read(cache->returned[slot - 1].starts[offset / 64]) >> (offset % 64)) & 1) != 0);
}

/* Free a block in a partly used chunk that is not current, and file it anew. */
static bool give_aside(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_chunk *chunk,
                       uint64_t start, uint32_t count, uint32_t zone)
{
    const struct frame_section *section = &frame_sections(frame)[cache->memo.id];
    uint64_t index = frame_chunk_index(section, start);

    if (&frame_chunks(frame, section)[index] != chunk || chunk->list >= FRAME_LISTS ||
        (chunk->free_frames + count >= LOAM_FRAME_CHUNK_FRAMES && cache->spare_count[zone] >= FRAME_SPARE_CHUNKS)) {
        return false;
    }
    if (loam_frame_chunk_release_part(frame, section, index, frame_offset(start), count)) {
        chunk->order = FRAME_CHUNK_ORDER;
        frame_write(chunk->state, FRAME_CHUNK_FREE);
        cache->spare[zone][cache->spare_count[zone]++] = loam_align_down(start, LOAM_FRAME_CHUNK_FRAMES);
    }
    frame_write(cache->free_frames[zone], cache->free_frames[zone] + count);
    return true;
}

static bool give_whole(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t start, uint64_t count,
                       uint32_t zone)
{
    if (chunk->state != FRAME_CHUNK_WHOLE || frame_offset(start) != 0 || count != LOAM_FRAME_CHUNK_FRAMES ||
        cache->spare_count[zone] >= FRAME_SPARE_CHUNKS || returned_here(cache, chunk, 0)) {
        return false;
    }
    frame_write(chunk->state, FRAME_CHUNK_FREE);
    chunk->order = FRAME_CHUNK_ORDER;
    chunk->list = FRAME_LIST_NONE;
    cache->spare[zone][cache->spare_count[zone]++] = start;
    frame_write(cache->free_frames[zone], cache->free_frames[zone] + count);
    return true;
}

static inline bool give_own(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t start, uint64_t count)
{
    struct frame_map *map;
    struct frame_chunk *chunk = own_chunk(frame, cache, start, &map);
    uint32_t offset = frame_offset(start), zone = frame_zone(frame, start);

    if (UNLIKELY(chunk == NULL || count - 1 >= LOAM_FRAME_CHUNK_FRAMES - offset)) {
        return false;
    }
    if (UNLIKELY(chunk->state != FRAME_CHUNK_PARTIAL)) {
        return give_whole(cache, chunk, start, count, zone);
    }
    if (UNLIKELY(!frame_bits_is_block(map, offset, (uint32_t)count, chunk->entered != 0) ||
                 returned_here(cache, chunk, offset))) {
        return false;
    }
    if (chunk->list == FRAME_LIST_CURRENT) {
        count_current(cache, chunk, zone, frame_bits_release(map, offset, (uint32_t)count), count);
        return true;
    }
    return give_aside(frame, cache, chunk, start, (uint32_t)count, zone);
}

enum loam_error loam_frame_cache_free(struct loam_frame_cache *cache, loam_pfn start, uint64_t count_frames)
{
    struct loam_frame *frame;
    enum loam_error error;

    if (LIKELY(enter(cache))) {
        bool given = give_own(allocator_of(cache), cache, start.value, count_frames);

        leave(cache);
        if (LIKELY(given)) {
            return LOAM_OK;
        }
    }
    frame = lock_as_owner(cache, &error);
    if (frame == NULL) {
        return error;
    }
    remember(frame, cache, start.value);
    return frame_unlock(frame, loam_frame_block_free(frame, start.value, count_frames));
}

/* --- Batches --------------------------------------------------------------------------------------------------- */

/* As many single frames as the current chunk has, up to count. */
static inline size_t take_singles(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone,
                                  loam_pfn *starts, size_t count)
{
    struct frame_current *current = &cache->current[zone][0];
    struct frame_chunk *chunk;
    struct frame_map *map;
    size_t done = 0;

    if (current->seal != frame_seal_of_current(current)) {
        return 0;
    }
    chunk = frame_address(frame, current->chunk_offset_bytes);
    map = frame_address(frame, current->map_offset_bytes);
    for (uint32_t n = 0; n < FRAME_MAP_WORDS && done < count; n++) {
        uint32_t word = (uint32_t)(current->word + n) % FRAME_MAP_WORDS;
        uint64_t bits = frame_bits_word(map, FRAME_BITS_FREE, word), taken = bits;
        uint64_t base = current->base + word * 64;
        size_t before = done;

        if (bits == UINT64_MAX && count - done >= 64) {
            for (uint32_t bit = 0; bit < 64; bit++) {
                starts[done + bit] = loam_pfn_from_u64(base + bit);
            }
            done += 64;
        } else {
            for (; bits != 0 && done < count; bits &= bits - 1) {
                starts[done++] = loam_pfn_from_u64(base + (uint32_t)__builtin_ctzll(bits));
            }
            taken ^= bits;
        }
        if (done != before) {
            count_current(cache, chunk, zone, frame_bits_set(map, word, taken, taken), -(uint64_t)(done - before));
        }
    }
    return done;
}

/* As many blocks as can be had without the lock. */
static size_t take_many(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order, loam_pfn limit,
                        loam_pfn *starts, size_t count)
{
    uint32_t zone = zone_for(frame, limit);
    size_t done = 0;

    if (zone >= ZONE_NONE) {
        return 0;
    }
    if (order == 0) {
        return take_singles(frame, cache, zone, starts, count);
    }
    while (done < count && take_own(frame, cache, zone, order, &starts[done].value)) {
        done++;
    }
    return done;
}

static enum loam_error alloc_batch_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                          loam_pfn limit, loam_pfn *starts, size_t count, size_t done)
{
    struct frame_pressure pressure = loam_frame_chunk_pressure(frame);
    enum loam_error error = LOAM_OK;

    while (done < count && error == LOAM_OK) {
        error = alloc_locked(frame, cache, order, limit, &starts[done].value);
        if (error == LOAM_OK) {
            done++;
            done += take_many(frame, cache, order, limit, starts + done, count - done);
        }
    }
    if (error != LOAM_OK) {
        loam_frame_block_free_again(frame, order, starts, done);
        loam_frame_chunk_reset_pressure(frame, pressure);
    }
    return error;
}

enum loam_error loam_frame_cache_alloc_batch(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit,
                                             loam_pfn *starts, size_t count)
{
    struct loam_frame *frame;
    enum loam_error error;
    size_t done = 0;

    if (order < LOAM_FRAME_CACHE_ORDERS && enter(cache)) {
        done = take_many(allocator_of(cache), cache, order, limit, starts, count);
        leave(cache);
        if (LIKELY(done == count)) {
            return LOAM_OK;
        }
    }
    frame = lock_as_owner(cache, &error);
    if (frame != NULL) {
        if (order > LOAM_FRAME_ORDER_MAX) {
            error = frame_unlock(frame, LOAM_ERROR_INVALID);
        } else {
            error = frame_unlock(frame, alloc_batch_locked(frame, cache, order, limit, starts, count, done));
        }
    }
    for (size_t n = 0; n < count && error != LOAM_OK; n++) {
        starts[n] = loam_pfn_from_u64(0);
    }
    return error;
}

/* How many of the frames follow each other from the first on, within one word of a bitmap. */
static inline uint32_t run_of(const loam_pfn *starts, size_t count)
{
    uint64_t first = starts[0].value;
    uint32_t room = (uint32_t)frame_min(64 - first % 64, count), run = 1;

    if (room == 64) {
        uint64_t differs = 0;

        for (uint32_t n = 0; n < 64; n++) {
            differs |= starts[n].value ^ (first + n);
        }
        if (differs == 0) {
            return 64;
        }
    }
    while (run < room && starts[run].value == first + run) {
        run++;
    }
    return run;
}

/* Free a run of single frames in the current chunk; false: they are not all that, or lie elsewhere. */
static inline bool give_run(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t start, uint32_t run)
{
    struct frame_map *map;
    struct frame_chunk *chunk = own_chunk(frame, cache, start, &map);
    uint32_t offset = frame_offset(start), word = offset / 64;
    uint64_t mask = UINT64_MAX >> (64 - run) << (offset % 64);
    struct frame_word bits;

    if (chunk == NULL || run > cache->memo.count - (start - cache->memo.start) || chunk->state != FRAME_CHUNK_PARTIAL ||
        chunk->list != FRAME_LIST_CURRENT || frame_read(chunk->slot) != 0) {
        return false;
    }
    bits = frame_bits_read(map, word);
    /* Each is a block of one frame, untagged; and the first is no tail of a longer one. */
    if ((bits.allocated & bits.last & mask) != mask ||
        (offset == 0 ? chunk->entered != 0 : !frame_bits_at(map, FRAME_BITS_ENDS, offset - 1))) {
        return false;
    }
    count_current(cache, chunk, frame_zone(frame, start), frame_bits_clear(map, word, mask), run);
    return true;
}

/* As many as can be freed without the lock. */
static size_t give_many(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                        const loam_pfn *starts, size_t count)
{
    size_t done = 0;

    while (done < count) {
        uint32_t run = order == 0 ? run_of(starts + done, count - done) : 1;

        if (run > 1 && give_run(frame, cache, starts[done].value, run)) {
            done += run;
        } else if (give_own(frame, cache, starts[done].value, UINT64_C(1) << order)) {
            done++;
        } else {
            break;
        }
    }
    return done;
}

enum loam_error loam_frame_cache_free_batch(struct loam_frame_cache *cache, uint32_t order, const loam_pfn *starts,
                                            size_t count, size_t *done_count)
{
    struct loam_frame *frame;
    enum loam_error error;
    size_t done = 0;

    if (order <= FRAME_CHUNK_ORDER && enter(cache)) {
        done = give_many(allocator_of(cache), cache, order, starts, count);
        leave(cache);
    }
    *done_count = done;
    if (LIKELY(done == count && count != 0)) {
        return LOAM_OK;
    }
    frame = lock_as_owner(cache, &error);
    if (frame == NULL) {
        return error;
    }
    error = order > LOAM_FRAME_ORDER_MAX ? LOAM_ERROR_INVALID : LOAM_OK;
    while (error == LOAM_OK && done < count) {
        if (done == *done_count) {
            remember(frame, cache, starts[done].value);
        }
        error = loam_frame_block_free(frame, starts[done].value, UINT64_C(1) << order);
        done += error == LOAM_OK;
    }
    *done_count = done;
    return frame_unlock(frame, error);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

static void init_cache(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t id)
{
    memset(cache, 0, sizeof *cache);
    cache->id = id;
    cache->offset_bytes = (uint64_t)((uintptr_t)cache - (uintptr_t)frame);
    cache->seal = frame_seal_of_cache(cache);
    loam_frame_lists_init(&cache->lists[LOAM_FRAME_ZONE_DMA32]);
    loam_frame_lists_init(&cache->lists[LOAM_FRAME_ZONE_NORMAL]);
    for (uint32_t n = 0; n < FRAME_RETURNED; n++) {
        cache->returned[n].link = FRAME_LINK_NONE;
    }
}

enum loam_error loam_frame_cache_make(struct loam_frame *frame, struct loam_frame_cache **cache)
{
    uint32_t id = 0;

    *cache = NULL;
    if (!loam_frame_owner_barrier_set()) {
        return LOAM_ERROR_UNINITIALISED;
    }
    if (frame_lock_to_change(frame) == NULL) {
        return LOAM_ERROR_CORRUPT;
    }
    while (id < frame->cache_capacity && frame_caches(frame)[id].forbidden != FRAME_UNUSED) {
        id++;
    }
    if (id == frame->cache_capacity) {
        return frame_unlock(frame, LOAM_ERROR_EXHAUSTED);
    }
    *cache = &frame_caches(frame)[id];
    init_cache(frame, *cache, id);
    frame->cache_top = (uint32_t)frame_max(frame->cache_top, id + 1);
    return frame_unlock(frame, LOAM_OK);
}

enum loam_error loam_frame_cache_drain(struct loam_frame_cache *cache)
{
    struct loam_frame *frame;
    enum loam_error error = LOAM_ERROR_UNINITIALISED;

    if (cache->seal != frame_seal_of_cache(cache)) {
        return error;
    }
    frame = frame_lock_to_change(allocator_of(cache));
    if (frame == NULL) {
        return LOAM_ERROR_CORRUPT;
    }
    if (cache->forbidden != FRAME_UNUSED && loam_frame_owner_drain(frame, cache)) {
        error = LOAM_OK;
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_cache_destroy(struct loam_frame_cache *cache)
{
    struct loam_frame *frame;
    enum loam_error error = LOAM_ERROR_UNINITIALISED;

    if (cache->seal != frame_seal_of_cache(cache)) {
        return error;
    }
    frame = frame_lock_to_change(allocator_of(cache));
    if (frame == NULL) {
        return LOAM_ERROR_CORRUPT;
    }
    if (cache->forbidden != FRAME_UNUSED && loam_frame_owner_drain(frame, cache)) {
        frame_write(cache->forbidden, FRAME_UNUSED);
        error = LOAM_OK;
    }
    return frame_unlock(frame, error);
}
