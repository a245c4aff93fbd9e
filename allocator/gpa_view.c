// SPDX-License-Identifier: Apache-2.0
/*
 * Answers from a table that its caller holds, and the tables derived from it. Nothing here writes to a table, and
 * nothing here is ordered against anything: loam_gpa_map_acquire has done that.
 */
#include "loam/gpa_map.h"

#include "allocator/gpa_view.h"

#include <assert.h>
#include <immintrin.h>
#include <stddef.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZED 1
#elif !defined(THREAD_SANITIZED)
#define THREAD_SANITIZED 0
#endif

/* --- Regions as values ----------------------------------------------------------------------------------------- */

struct loam_region loam_gpa_view_clip(const struct loam_region *region, uint64_t start, uint64_t end)
{
    uint64_t from = region->start.value > start ? region->start.value : start;
    uint64_t to = gpa_view_end_of(region) < end ? gpa_view_end_of(region) : end;
    uint64_t skipped_bytes = from - region->start.value;
    struct loam_region part = *region;

    if (from >= to) {
        return (struct loam_region){0};
    }
    part.start.value = from;
    part.bytes = to - from;
    if (gpa_view_is_memory(region)) {
        part.hva = (char *)region->hva + skipped_bytes;
        part.backing_offset += skipped_bytes;
    }
    return part;
}

/* --- Search ---------------------------------------------------------------------------------------------------- */

/*
 * The last row that starts at or below gpa, which lies in [first, first + span_bytes). The buckets leave one or two
 * candidates where regions are of like size; where they are not, binary search does the rest. The last step needs no
 * condition: where low is the only candidate, the next start (or the sentinel) lies above gpa.
 */
static inline uint32_t last_row_below(const struct loam_gpa_view *view, uint64_t gpa)
{
    const uint32_t *bucket = gpa_view_buckets(view) + ((gpa - view->first) >> view->bucket_shift);
    uint32_t low = bucket[0];
    uint32_t candidate_count = bucket[1] - low + 1;

    while (__builtin_expect(candidate_count > 2, 0)) {
        uint32_t half = candidate_count / 2;
        uint32_t upper = 0u - (uint32_t)(view->starts[low + half] <= gpa);

        /* Opaque, or clang makes a branch of it, which at random addresses is foretold wrongly every other time. */
        __asm__("" : "+r"(upper));
        low += half & upper;
        candidate_count -= half;
    }
    return low + (view->starts[low + 1] <= gpa);
}

/* The region that holds gpa; NULL if none does. */
static inline const struct loam_region *region_holding(const struct loam_gpa_view *view, uint64_t gpa)
{
    const struct loam_region *region;

    if (gpa - view->first >= view->span_bytes) {
        return NULL;
    }
    region = gpa_view_region_at(view, last_row_below(view, gpa));
    return gpa - region->start.value < region->bytes ? region : NULL;
}

uint32_t loam_gpa_view_row_holding(const struct loam_gpa_view *view, uint64_t gpa)
{
    bool found = region_holding(view, gpa) != NULL;

    return found ? last_row_below(view, gpa) : view->count;
}

/* --- Walking a range ------------------------------------------------------------------------------------------- */

struct walk {
    const struct loam_gpa_view *view;
    uint64_t at;
    uint64_t end;
    uint32_t row;
    enum loam_access access;
};

static enum loam_error walk_start(struct walk *walk, const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                  enum loam_access access)
{
    if (!gpa_view_access_valid(access) || !loam_gpa_range_valid(gpa, bytes)) {
        return LOAM_ERROR_INVALID;
    }
    *walk = (struct walk){view, gpa.value, gpa.value + bytes, loam_gpa_view_row_holding(view, gpa.value), access};
    return LOAM_OK;
}

/* The next part of the range, as far as one region reaches; only while walk->at < walk->end. */
static enum loam_error walk_next(struct walk *walk, struct loam_piece *part)
{
    const struct loam_region *region = gpa_view_region_at(walk->view, walk->row);
    struct loam_region inside;

    if (walk->row >= walk->view->count || region->start.value > walk->at || !gpa_view_is_memory(region)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if (region->access < walk->access) {
        return LOAM_ERROR_NOT_PERMITTED;
    }
    inside = loam_gpa_view_clip(region, walk->at, walk->end);
    *part = (struct loam_piece){inside.start, inside.hva, inside.bytes};
    walk->at = gpa_view_end_of(&inside);
    walk->row++;
    return LOAM_OK;
}

/* Whether all of a range may be accessed; on LOAM_OK, *walk stands at its start again. */
static enum loam_error walk_checked(struct walk *walk, const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                    enum loam_access access)
{
    struct loam_piece part;
    struct walk ahead;
    enum loam_error error = walk_start(walk, view, gpa, bytes, access);

    for (ahead = *walk; error == LOAM_OK && ahead.at < ahead.end;) {
        error = walk_next(&ahead, &part);
    }
    return error;
}

/* --- Words of guest memory --------------------------------------------------------------------------------------- */

/* Whatever order is wanted: on x86-64 the strongest load is a plain MOV, and a store with release is one too. */
static inline uint64_t load_word(const void *hva, uint64_t word_bytes)
{
    switch (word_bytes) {
    case 8:
        return shared_load_ordered(*(const uint64_t *)hva);
    case 4:
        return shared_load_ordered(*(const uint32_t *)hva);
    case 2:
        return shared_load_ordered(*(const uint16_t *)hva);
    default:
        return shared_load_ordered(*(const uint8_t *)hva);
    }
}

static inline void store_word(void *hva, uint64_t word_bytes, uint64_t word)
{
    switch (word_bytes) {
    case 8:
        shared_store_release(*(uint64_t *)hva, word);
        break;
    case 4:
        shared_store_release(*(uint32_t *)hva, (uint32_t)word);
        break;
    case 2:
        shared_store_release(*(uint16_t *)hva, (uint16_t)word);
        break;
    default:
        shared_store_release(*(uint8_t *)hva, (uint8_t)word);
        break;
    }
}

/* The largest naturally aligned word that starts at guest and lies in the range. bytes_left is not 0. */
static uint64_t word_bytes_at(const char *guest, uint64_t bytes_left)
{
    uint64_t word_bytes = sizeof(uint64_t);

    while (word_bytes > bytes_left || !loam_is_aligned((uintptr_t)guest, word_bytes)) {
        word_bytes /= 2;
    }
    return word_bytes;
}

/* In the largest words that guest memory holds. A word's low bytes come first, in the buffer too. */
static void words_from_guest(char *to, const char *guest, uint64_t bytes)
{
    uint64_t at = 0;

    while (at < bytes) {
        uint64_t word_bytes = word_bytes_at(guest + at, bytes - at);

        if (word_bytes == sizeof(uint64_t)) {
            for (; bytes - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
                uint64_t word = load_word(guest + at, sizeof word);

                memcpy(to + at, &word, sizeof word);
            }
        } else {
            uint64_t word = load_word(guest + at, word_bytes);

            memcpy(to + at, &word, word_bytes);
            at += word_bytes;
        }
    }
}

static void words_to_guest(char *guest, const char *from, uint64_t bytes)
{
    uint64_t at = 0;

    while (at < bytes) {
        uint64_t word_bytes = word_bytes_at(guest + at, bytes - at);

        if (word_bytes == sizeof(uint64_t)) {
            for (; bytes - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
                uint64_t word;

                memcpy(&word, from + at, sizeof word);
                store_word(guest + at, sizeof word, word);
            }
        } else {
            uint64_t word = 0;

            memcpy(&word, from + at, word_bytes);
            store_word(guest + at, word_bytes, word);
            at += word_bytes;
        }
    }
}

/* --- Blocks of guest memory -------------------------------------------------------------------------------------- */

/*
 * A block is loaded and stored by one instruction, which a processor that has AVX carries out as one access (Intel SDM,
 * volume 3A, section "Guaranteed Atomic Operations"; AMD64 APM, volume 2, section 7.3.2 "Access Atomicity"). volatile, so
 * that the compiler neither divides nor repeats it.
 */
typedef volatile __m128i guest_block;

#define BLOCK_BYTES 16u
#define GROUP_BYTES (UINT64_C(4) * BLOCK_BYTES)
#define BLOCKS_FROM (2 * GROUP_BYTES) /* fewer bytes go in words */

static_assert(sizeof(guest_block) == BLOCK_BYTES, "a block is one register");

/* ThreadSanitizer takes a block for plain memory, which nobody may change meanwhile: it gets words. */
static bool has_blocks(void)
{
    return !THREAD_SANITIZED && __builtin_cpu_supports("avx");
}

/* How many bytes to copy before the first block; all where there are to be none. */
static uint64_t bytes_before_blocks(const char *guest, uint64_t bytes)
{
    return bytes >= BLOCKS_FROM && has_blocks() ? -(uintptr_t)guest % BLOCK_BYTES : bytes;
}

/*
 * Groups of blocks, aligned to one in guest memory. All of a group is loaded before any is stored: a load that follows a
 * store waits until the processor knows that the two do not meet, and the copy takes twice as long.
 */
static void blocks_from_guest(char *to, const char *guest, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += GROUP_BYTES) {
        const guest_block *blocks = (const void *)(guest + at);
        __m128i first = blocks[0], second = blocks[1], third = blocks[2], fourth = blocks[3];
        __m128i *places = (void *)(to + at);

        _mm_storeu_si128(places, first);
        _mm_storeu_si128(places + 1, second);
        _mm_storeu_si128(places + 2, third);
        _mm_storeu_si128(places + 3, fourth);
    }
}

static void blocks_to_guest(char *guest, const char *from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += GROUP_BYTES) {
        const __m128i *places = (const void *)(from + at);
        __m128i first = _mm_loadu_si128(places), second = _mm_loadu_si128(places + 1);
        __m128i third = _mm_loadu_si128(places + 2), fourth = _mm_loadu_si128(places + 3);
        guest_block *blocks = (void *)(guest + at);

        blocks[0] = first;
        blocks[1] = second;
        blocks[2] = third;
        blocks[3] = fourth;
    }
}

/*
 * Words up to an aligned block, groups of blocks, words. No value of 1, 2, 4 or 8 bytes that is aligned reaches across
 * an end of a block; so each that is all in the range is part of one access and never torn.
 */
static __attribute__((noinline)) void copy_from_guest(char *to, const char *guest, uint64_t bytes)
{
    uint64_t head = bytes_before_blocks(guest, bytes), end = bytes - (bytes - head) % GROUP_BYTES;

    words_from_guest(to, guest, head);
    blocks_from_guest(to + head, guest + head, end - head);
    words_from_guest(to + end, guest + end, bytes - end);
}

static __attribute__((noinline)) void copy_to_guest(char *guest, const char *from, uint64_t bytes)
{
    uint64_t head = bytes_before_blocks(guest, bytes), end = bytes - (bytes - head) % GROUP_BYTES;

    words_to_guest(guest, from, head);
    blocks_to_guest(guest + head, from + head, end - head);
    words_to_guest(guest + end, from + end, bytes - end);
}

/* Whether all that is to be copied is one word of 8 bytes, as a descriptor's address is. */
static bool is_one_word(const void *hva, uint64_t bytes)
{
    return bytes == sizeof(uint64_t) && loam_is_aligned((uintptr_t)hva, sizeof(uint64_t));
}

static bool host_contiguous(const void *hva, uint64_t bytes, const void *next)
{
    return (uintptr_t)hva + bytes == (uintptr_t)next;
}

/* --- Views ----------------------------------------------------------------------------------------------------- */

uint64_t loam_gpa_view_generation(const struct loam_gpa_view *view)
{
    return view != NULL ? view->generation : 0;
}

uint32_t loam_gpa_view_count(const struct loam_gpa_view *view)
{
    return view != NULL ? view->count : 0;
}

enum loam_error loam_gpa_view_region(const struct loam_gpa_view *view, uint32_t index, struct loam_region *region)
{
    bool found = view != NULL && index < view->count;

    if (region == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *region = found ? *gpa_view_region_at(view, index) : (struct loam_region){0};
    return found ? LOAM_OK : view != NULL ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_INVALID;
}

enum loam_error loam_gpa_view_find(const struct loam_gpa_view *view, loam_gpa gpa, struct loam_region *region)
{
    const struct loam_region *found = view != NULL ? region_holding(view, gpa.value) : NULL;

    if (region == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *region = found != NULL ? *found : (struct loam_region){0};
    return found != NULL ? LOAM_OK : view != NULL ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_INVALID;
}

static __attribute__((noinline)) enum loam_error refuse_null(void **hva)
{
    if (hva != NULL) {
        *hva = NULL;
    }
    return LOAM_ERROR_INVALID;
}

enum loam_error loam_gpa_view_why_not(struct gpa_view_spot spot, loam_gpa gpa, uint64_t bytes, enum loam_access access)
{
    if (!gpa_view_access_valid(access) || !loam_gpa_range_valid(gpa, bytes)) {
        return LOAM_ERROR_INVALID;
    }
    if (spot.bytes == 0 || spot.access == LOAM_ACCESS_NONE) {
        return LOAM_ERROR_NOT_FOUND;
    }
    return spot.access < (uint32_t)access ? LOAM_ERROR_NOT_PERMITTED : LOAM_ERROR_OVERLAP;
}

static __attribute__((noinline)) enum loam_error refuse(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                        enum loam_access access, void **hva)
{
    const struct loam_region *region = region_holding(view, gpa.value);
    struct gpa_view_spot spot = {0};

    if (region != NULL) {
        spot = (struct gpa_view_spot){region->start.value, region->bytes, region->hva, (uint32_t)region->access};
    }
    *hva = NULL;
    return loam_gpa_view_why_not(spot, gpa, bytes, access);
}

static __attribute__((noinline)) enum loam_error
translate_by_search(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes, enum loam_access access, void **hva)
{
    if (gpa.value - view->first < view->span_bytes) {
        const struct loam_region *region = gpa_view_region_at(view, last_row_below(view, gpa.value));

        if (gpa_view_allows(region->start.value, region->bytes, (uint32_t)region->access, gpa.value, bytes, access)) {
            *hva = (char *)region->hva + (gpa.value - region->start.value);
            return LOAM_OK;
        }
    }
    return refuse(view, gpa, bytes, access, hva);
}

/* gpa_view_allows, of the likely region; written out, since compilers load what they pass before they compare. */
static inline bool likely_allows(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                 enum loam_access access)
{
    return __builtin_expect(bytes - 1 < view->likely_bytes, 1) &&
           __builtin_expect(gpa.value - view->likely_start <= view->likely_bytes - bytes, 1) &&
           __builtin_expect((uint32_t)access - 1 < view->likely_access, 1);
}

static inline char *likely_hva_of(const struct loam_gpa_view *view, loam_gpa gpa)
{
    return view->likely_hva + (gpa.value - view->likely_start);
}

static inline enum loam_error translate(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                        enum loam_access access, void **hva)
{
    if (likely_allows(view, gpa, bytes, access)) {
        *hva = likely_hva_of(view, gpa);
        return LOAM_OK;
    }
    return translate_by_search(view, gpa, bytes, access, hva);
}

/* Its first way, of a likely region, fills one line of the instruction cache. */
__attribute__((aligned(GPA_VIEW_CACHE_LINE_BYTES))) enum loam_error
loam_gpa_view_translate(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                        void **hva)
{
    return __builtin_expect(view != NULL && hva != NULL, 1) ? translate(view, gpa, bytes, access, hva)
                                                            : refuse_null(hva);
}

enum loam_error loam_gpa_view_pieces(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                     enum loam_access access, struct loam_piece *pieces, uint32_t capacity,
                                     uint32_t *count)
{
    struct loam_piece piece = {0}, part;
    struct walk walk;
    enum loam_error error;

    if (count == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *count = 0;
    if (view == NULL || (pieces == NULL && capacity > 0)) {
        return LOAM_ERROR_INVALID;
    }
    error = walk_checked(&walk, view, gpa, bytes, access);
    while (error == LOAM_OK && walk.at < walk.end) {
        error = walk_next(&walk, &part);
        if (*count > 0 && host_contiguous(piece.hva, piece.bytes, part.hva)) {
            piece.bytes += part.bytes;
        } else {
            piece = part;
            ++*count;
        }
        if (*count <= capacity) {
            pieces[*count - 1] = piece;
        }
    }
    return error == LOAM_OK && *count > capacity ? LOAM_ERROR_EXHAUSTED : error;
}

enum loam_error loam_gpa_view_gpa_from_hva(const struct loam_gpa_view *view, const void *hva, uint64_t bytes,
                                           loam_gpa *gpa)
{
    if (gpa == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *gpa = (loam_gpa){0};
    if (view == NULL || bytes == 0) {
        return LOAM_ERROR_INVALID;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        const struct loam_region *region = gpa_view_region_at(view, i);
        /* Below the region this wraps, to more than any region's bytes: the map refuses what wraps. */
        uint64_t offset_bytes = (uintptr_t)hva - (uintptr_t)region->hva;

        if (gpa_view_is_memory(region) && loam_fits(offset_bytes, bytes, region->bytes)) {
            gpa->value = region->start.value + offset_bytes;
            return LOAM_OK;
        }
    }
    return LOAM_ERROR_NOT_FOUND;
}

/* --- Guest memory itself ----------------------------------------------------------------------------------------- */

/* Both copy part for part of a range, and the parts' ends are at multiples of 4096: so no aligned word is in two. */
/* Of a range that is not all in the likely region. */
static __attribute__((noinline)) enum loam_error read_by_search(const struct loam_gpa_view *view, loam_gpa gpa,
                                                                void *buffer, uint64_t bytes)
{
    struct loam_piece part;
    struct walk walk;
    enum loam_error error;
    void *hva;

    if (translate_by_search(view, gpa, bytes, LOAM_ACCESS_READ, &hva) == LOAM_OK) {
        copy_from_guest(buffer, hva, bytes);
        return LOAM_OK;
    }
    error = walk_checked(&walk, view, gpa, bytes, LOAM_ACCESS_READ);
    while (error == LOAM_OK && walk.at < walk.end && (error = walk_next(&walk, &part)) == LOAM_OK) {
        copy_from_guest((char *)buffer + (part.start.value - gpa.value), part.hva, part.bytes);
    }
    return error;
}

static __attribute__((noinline)) enum loam_error write_by_search(const struct loam_gpa_view *view, loam_gpa gpa,
                                                                 const void *buffer, uint64_t bytes)
{
    struct loam_piece part;
    struct walk walk;
    enum loam_error error;
    void *hva;

    if (translate_by_search(view, gpa, bytes, LOAM_ACCESS_WRITE, &hva) == LOAM_OK) {
        copy_to_guest(hva, buffer, bytes);
        return LOAM_OK;
    }
    error = walk_checked(&walk, view, gpa, bytes, LOAM_ACCESS_WRITE);
    while (error == LOAM_OK && walk.at < walk.end && (error = walk_next(&walk, &part)) == LOAM_OK) {
        copy_to_guest(part.hva, (const char *)buffer + (part.start.value - gpa.value), part.bytes);
    }
    return error;
}

enum loam_error loam_gpa_view_read(const struct loam_gpa_view *view, loam_gpa gpa, void *buffer, uint64_t bytes)
{
    char *place;

    if (view == NULL || buffer == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!likely_allows(view, gpa, bytes, LOAM_ACCESS_READ)) {
        return read_by_search(view, gpa, buffer, bytes);
    }
    place = likely_hva_of(view, gpa);
    if (is_one_word(place, bytes)) {
        uint64_t word = load_word(place, sizeof word);

        memcpy(buffer, &word, sizeof word);
        return LOAM_OK;
    }
    copy_from_guest(buffer, place, bytes);
    return LOAM_OK;
}

enum loam_error loam_gpa_view_write(const struct loam_gpa_view *view, loam_gpa gpa, const void *buffer, uint64_t bytes)
{
    char *place;

    if (view == NULL || buffer == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!likely_allows(view, gpa, bytes, LOAM_ACCESS_WRITE)) {
        return write_by_search(view, gpa, buffer, bytes);
    }
    place = likely_hva_of(view, gpa);
    if (is_one_word(place, bytes)) {
        uint64_t word;

        memcpy(&word, buffer, sizeof word);
        store_word(place, sizeof word, word);
        return LOAM_OK;
    }
    copy_to_guest(place, buffer, bytes);
    return LOAM_OK;
}

static enum loam_error load(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order, uint64_t word_bytes,
                            uint64_t *word)
{
    bool order_valid = order == LOAM_ORDER_RELAXED || order == LOAM_ORDER_ACQUIRE || order == LOAM_ORDER_SEQ_CST;
    enum loam_error error = LOAM_ERROR_INVALID;
    void *hva;

    if (order_valid && loam_is_aligned(gpa.value, word_bytes)) {
        error = loam_gpa_view_translate(view, gpa, word_bytes, LOAM_ACCESS_READ, &hva);
    }
    *word = error == LOAM_OK ? load_word(hva, word_bytes) : 0;
    return error;
}

static enum loam_error store(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order, uint64_t word_bytes,
                             uint64_t word)
{
    bool order_valid = order == LOAM_ORDER_RELAXED || order == LOAM_ORDER_RELEASE || order == LOAM_ORDER_SEQ_CST;
    enum loam_error error = LOAM_ERROR_INVALID;
    void *hva;

    if (order_valid && loam_is_aligned(gpa.value, word_bytes)) {
        error = loam_gpa_view_translate(view, gpa, word_bytes, LOAM_ACCESS_WRITE, &hva);
    }
    if (error != LOAM_OK) {
        return error;
    }
    store_word(hva, word_bytes, word);
    if (order == LOAM_ORDER_SEQ_CST) {
        /* No later load of this thread is made before the store is seen by all. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    return LOAM_OK;
}

enum loam_error loam_gpa_view_load8(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                    uint8_t *value)
{
    enum loam_error error;
    uint64_t word;

    if (value == NULL) {
        return LOAM_ERROR_INVALID;
    }
    error = load(view, gpa, order, sizeof *value, &word);
    *value = (uint8_t)word;
    return error;
}

enum loam_error loam_gpa_view_load16(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                     uint16_t *value)
{
    enum loam_error error;
    uint64_t word;

    if (value == NULL) {
        return LOAM_ERROR_INVALID;
    }
    error = load(view, gpa, order, sizeof *value, &word);
    *value = (uint16_t)word;
    return error;
}

enum loam_error loam_gpa_view_load32(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                     uint32_t *value)
{
    enum loam_error error;
    uint64_t word;

    if (value == NULL) {
        return LOAM_ERROR_INVALID;
    }
    error = load(view, gpa, order, sizeof *value, &word);
    *value = (uint32_t)word;
    return error;
}

enum loam_error loam_gpa_view_load64(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                     uint64_t *value)
{
    return value != NULL ? load(view, gpa, order, sizeof *value, value) : LOAM_ERROR_INVALID;
}

enum loam_error loam_gpa_view_store8(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                     uint8_t value)
{
    return store(view, gpa, order, sizeof value, value);
}

enum loam_error loam_gpa_view_store16(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                      uint16_t value)
{
    return store(view, gpa, order, sizeof value, value);
}

enum loam_error loam_gpa_view_store32(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                      uint32_t value)
{
    return store(view, gpa, order, sizeof value, value);
}

enum loam_error loam_gpa_view_store64(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_order order,
                                      uint64_t value)
{
    return store(view, gpa, order, sizeof value, value);
}

/* --- Derived tables -------------------------------------------------------------------------------------------- */

/* Whether region can lie in the same slot, which ends where region starts in the guest or before. */
static bool slot_continues(const struct loam_slot *slot, const struct loam_region *region)
{
    return slot->start.value + slot->bytes == region->start.value &&
           host_contiguous(slot->hva, slot->bytes, region->hva) &&
           slot->read_only == (region->access != LOAM_ACCESS_WRITE) && slot->log_dirty == region->log_dirty;
}

enum loam_error loam_gpa_view_slots(const struct loam_gpa_view *view, struct loam_slot *slots, uint32_t capacity,
                                    uint32_t *count)
{
    struct loam_slot slot = {0};

    if (count == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *count = 0;
    if (view == NULL || (slots == NULL && capacity > 0)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        const struct loam_region *region = gpa_view_region_at(view, i);

        if (!gpa_view_is_memory(region)) {
            continue;
        }
        if (*count > 0 && slot_continues(&slot, region)) {
            slot.bytes += region->bytes;
        } else {
            slot = (struct loam_slot){region->start, region->bytes, region->hva, region->access != LOAM_ACCESS_WRITE,
                                      region->log_dirty};
            ++*count;
        }
        if (*count <= capacity) {
            slots[*count - 1] = slot;
        }
    }
    return *count > capacity ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

/* Whether region goes on where share ends, in the guest, in host memory and in the backing. */
static bool share_continues(const struct loam_share *share, const struct loam_region *region)
{
    return share->start.value + share->bytes == region->start.value &&
           host_contiguous(share->hva, share->bytes, region->hva) && share->backing == region->backing &&
           share->backing_offset + share->bytes == region->backing_offset &&
           share->read_only == (region->access != LOAM_ACCESS_WRITE);
}

static struct loam_share share_of(const struct loam_region *region, const int *fds, uint32_t fd_count)
{
    return (struct loam_share){.start = region->start,
                               .bytes = region->bytes,
                               .hva = region->hva,
                               .backing_offset = region->backing_offset,
                               .backing = region->backing,
                               .fd = region->backing - 1 < fd_count ? fds[region->backing - 1] : -1,
                               .read_only = region->access != LOAM_ACCESS_WRITE};
}

enum loam_error loam_gpa_view_shares(const struct loam_gpa_view *view, const int *fds, uint32_t fd_count,
                                     struct loam_share *shares, uint32_t capacity, uint32_t *count)
{
    struct loam_share share = {0};

    if (count == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *count = 0;
    if (view == NULL || (shares == NULL && capacity > 0) || (fds == NULL && fd_count > 0)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        const struct loam_region *region = gpa_view_region_at(view, i);

        if (!gpa_view_is_memory(region)) {
            continue;
        }
        if (*count > 0 && share_continues(&share, region)) {
            share.bytes += region->bytes;
        } else {
            share = share_of(region, fds, fd_count);
            ++*count;
        }
        if (*count <= capacity) {
            shares[*count - 1] = share;
        }
    }
    return *count > capacity ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

static uint32_t e820_type(const struct loam_region *region)
{
    return region->type == LOAM_REGION_RAM && region->access == LOAM_ACCESS_WRITE ? LOAM_E820_RAM : LOAM_E820_RESERVED;
}

enum loam_error loam_gpa_view_e820(const struct loam_gpa_view *view, struct loam_e820_entry *entries, uint32_t capacity,
                                   uint32_t *count)
{
    struct loam_e820_entry entry = {0};

    if (count == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *count = 0;
    if (view == NULL || (entries == NULL && capacity > 0)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        const struct loam_region *region = gpa_view_region_at(view, i);

        if (!gpa_view_is_memory(region)) {
            continue;
        }
        if (*count > 0 && entry.start + entry.bytes == region->start.value && entry.type == e820_type(region)) {
            entry.bytes += region->bytes;
        } else {
            entry = (struct loam_e820_entry){region->start.value, region->bytes, e820_type(region)};
            ++*count;
        }
        if (*count <= capacity) {
            entries[*count - 1] = entry;
        }
    }
    return *count > capacity ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

static_assert(offsetof(struct loam_e820_entry, bytes) == 8 && offsetof(struct loam_e820_entry, type) == 16 &&
                  sizeof(uint32_t) + 16 == LOAM_E820_ROW_BYTES,
              "an entry begins as a row does");

enum loam_error loam_e820_write(const struct loam_e820_entry *entries, uint32_t count, void *rows, uint64_t room_bytes)
{
    uint8_t *row = rows;

    if (count > 0 && (entries == NULL || rows == NULL)) {
        return LOAM_ERROR_INVALID;
    }
    if ((uint64_t)count * LOAM_E820_ROW_BYTES > room_bytes) {
        return LOAM_ERROR_EXHAUSTED;
    }
    for (uint32_t i = 0; i < count; i++, row += LOAM_E820_ROW_BYTES) {
        /* Little-endian, as every host of Loam is. */
        memcpy(row, &entries[i], LOAM_E820_ROW_BYTES);
    }
    return LOAM_OK;
}
