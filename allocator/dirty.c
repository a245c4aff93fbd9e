// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: bits beyond page_count are clear.
 *
 * Marking releases and taking acquires, by the same word: who takes a mark sees what was written before it was made.
 */
#include "loam/dirty.h"

#include "allocator/atomic.h"

#define WORD_BITS       64u
#define PAGE_BYTES_MIN  64u
#define PAGE_SHIFT_ZERO 12u /* what page_bytes 0 means */

struct loam_dirty {
    uint64_t start; /* page number */
    uint64_t page_count;
    uint64_t word_count;
    uint32_t page_shift;
    uint32_t unused;
    _Atomic uint64_t words[];
};

/* Pages of the bitmap, numbered from its start; half-open. */
struct pages {
    uint64_t first;
    uint64_t end;
};

/* --- Making it ------------------------------------------------------------------------------------------------------ */

/* Where a bitmap for config begins and how many pages it has; false: config is invalid. */
static bool measure(const struct loam_dirty_config *config, struct loam_dirty *made)
{
    uint64_t page_bytes = config->page_bytes != 0 ? config->page_bytes : UINT64_C(1) << PAGE_SHIFT_ZERO;

    if (!loam_is_power_of_two(page_bytes) || page_bytes < PAGE_BYTES_MIN || page_bytes > LOAM_GPA_END ||
        !loam_gpa_range_valid(config->start, config->bytes) || !loam_is_aligned(config->start.value, page_bytes)) {
        return false;
    }
    made->page_shift = (uint32_t)__builtin_ctzll(page_bytes);
    made->start = config->start.value >> made->page_shift;
    made->page_count = loam_align_up(config->bytes, page_bytes) >> made->page_shift;
    made->word_count = (made->page_count + WORD_BITS - 1) / WORD_BITS;
    return true;
}

size_t loam_dirty_bytes(const struct loam_dirty_config *config)
{
    struct loam_dirty made;

    return config != NULL && measure(config, &made) ? sizeof made + made.word_count * sizeof made.words[0] : 0;
}

enum loam_error loam_dirty_init(void *memory, size_t bytes, const struct loam_dirty_config *config,
                                struct loam_dirty **dirty)
{
    size_t wanted = loam_dirty_bytes(config);
    struct loam_dirty *made = memory;

    if (dirty == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *dirty = NULL;
    if (memory == NULL || wanted == 0 || bytes < wanted || !loam_is_aligned((uintptr_t)memory, sizeof(uint64_t)) ||
        !measure(config, made)) {
        return LOAM_ERROR_INVALID;
    }
    made->unused = 0;
    for (uint64_t i = 0; i < made->word_count; i++) {
        atomic_init(&made->words[i], 0);
    }
    *dirty = made;
    return LOAM_OK;
}

/* --- Pages ----------------------------------------------------------------------------------------------------------- */

/* The bitmap's pages that the range touches. False: the range has others, too. */
static bool pages_of(const struct loam_dirty *dirty, loam_gpa start, uint64_t bytes, struct pages *pages)
{
    uint64_t first = start.value >> dirty->page_shift, last, bitmap_end = dirty->start + dirty->page_count;

    *pages = (struct pages){0, 0};
    if (bytes == 0) {
        return true;
    }
    last = (bytes - 1 <= UINT64_MAX - start.value ? start.value + (bytes - 1) : UINT64_MAX) >> dirty->page_shift;
    if (first < bitmap_end && last >= dirty->start) {
        pages->first = first > dirty->start ? first - dirty->start : 0;
        pages->end = (last < bitmap_end ? last + 1 : bitmap_end) - dirty->start;
    }
    return first >= dirty->start && last < bitmap_end;
}

/* The bits of word number index that stand for the pages; there is one at least. */
static uint64_t bits_of(uint64_t index, struct pages pages)
{
    uint64_t from = pages.first > index * WORD_BITS ? pages.first - index * WORD_BITS : 0;
    uint64_t to = pages.end < (index + 1) * WORD_BITS ? pages.end - index * WORD_BITS : WORD_BITS;

    return (UINT64_MAX >> (WORD_BITS - (to - from))) << from;
}

enum loam_error loam_dirty_mark(struct loam_dirty *dirty, loam_gpa start, uint64_t bytes)
{
    struct pages pages;
    bool whole;

    if (dirty == NULL) {
        return LOAM_ERROR_INVALID;
    }
    whole = pages_of(dirty, start, bytes, &pages);
    for (uint64_t i = pages.first / WORD_BITS; i * WORD_BITS < pages.end; i++) {
        /* Pairs with the taking of the same word. */
        shared_or_release(dirty->words[i], bits_of(i, pages));
    }
    return whole ? LOAM_OK : LOAM_ERROR_NOT_FOUND;
}

/*
 * Clear the bits and say which of them were set. Pairs with marking: what was written before is seen from here on. All
 * changes of a word are read-modify-writes, so it does not matter who changed it in between.
 */
static uint64_t take_bits(struct loam_dirty *dirty, uint64_t index, uint64_t bits)
{
    return shared_and_both(dirty->words[index], ~bits) & bits;
}

enum loam_error loam_dirty_reset(struct loam_dirty *dirty, loam_gpa start, uint64_t bytes)
{
    struct pages pages;
    bool whole;

    if (dirty == NULL) {
        return LOAM_ERROR_INVALID;
    }
    whole = pages_of(dirty, start, bytes, &pages);
    for (uint64_t i = pages.first / WORD_BITS; i * WORD_BITS < pages.end; i++) {
        take_bits(dirty, i, bits_of(i, pages));
    }
    return whole ? LOAM_OK : LOAM_ERROR_NOT_FOUND;
}

/* --- Questions ------------------------------------------------------------------------------------------------------- */

bool loam_dirty_test(const struct loam_dirty *dirty, loam_gpa gpa)
{
    struct pages pages;

    return dirty != NULL && pages_of(dirty, gpa, 1, &pages) &&
           (shared_load(dirty->words[pages.first / WORD_BITS]) >> pages.first % WORD_BITS & 1) != 0;
}

uint64_t loam_dirty_count(const struct loam_dirty *dirty)
{
    uint64_t count = 0;

    for (uint64_t i = 0; dirty != NULL && i < dirty->word_count; i++) {
        count += (uint64_t)__builtin_popcountll(shared_load(dirty->words[i]));
    }
    return count;
}

/* --- Taking ---------------------------------------------------------------------------------------------------------- */

/* The first marked page at or after page; page_count: none. */
static uint64_t next_marked(const struct loam_dirty *dirty, uint64_t page)
{
    uint64_t marked;

    for (uint64_t i = page / WORD_BITS; i < dirty->word_count; i++) {
        marked = shared_load(dirty->words[i]);
        if (i == page / WORD_BITS) {
            marked &= UINT64_MAX << page % WORD_BITS;
        }
        if (marked != 0) {
            return i * WORD_BITS + (uint64_t)__builtin_ctzll(marked);
        }
    }
    return dirty->page_count;
}

/* Take marked pages from page on, as many as follow each other within its word, before end; which may be none by now. */
static uint64_t take_run_in_word(struct loam_dirty *dirty, uint64_t page, uint64_t end)
{
    uint64_t index = page / WORD_BITS, shift = page % WORD_BITS, marked = shared_load(dirty->words[index]) >> shift;
    uint64_t run = marked == UINT64_MAX ? WORD_BITS : (uint64_t)__builtin_ctzll(~marked), taken;

    run = run < end - page ? run : end - page;
    if (run == 0) {
        return 0;
    }
    taken = take_bits(dirty, index, bits_of(index, (struct pages){page, page + run})) >> shift;
    if (taken == UINT64_MAX >> (WORD_BITS - run)) {
        return run;
    }
    /* Others take too: of what they left, the first run is this caller's, and what follows is marked again, as marking does. */
    run = (uint64_t)__builtin_ctzll(~taken);
    shared_or_release(dirty->words[index], taken >> run << run << shift);
    return run;
}

static uint64_t take_run(struct loam_dirty *dirty, uint64_t page, uint64_t end)
{
    uint64_t taken, run = 0;

    do {
        taken = take_run_in_word(dirty, page + run, end);
        run += taken;
    } while (taken > 0 && (page + run) % WORD_BITS == 0 && page + run < end);
    return run;
}

enum loam_error loam_dirty_take(struct loam_dirty *dirty, loam_gpa from, uint64_t limit_bytes, loam_gpa *start,
                                uint64_t *bytes)
{
    uint64_t page, end, limit, run = 0;

    if (start == NULL || bytes == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *start = loam_gpa_from_u64(0);
    *bytes = 0;
    if (dirty == NULL) {
        return LOAM_ERROR_INVALID;
    }
    page = from.value >> dirty->page_shift;
    page = page > dirty->start ? page - dirty->start : 0;
    limit = limit_bytes != 0 ? ((limit_bytes - 1) >> dirty->page_shift) + 1 : dirty->page_count;
    while (run == 0 && page < dirty->page_count && (page = next_marked(dirty, page)) < dirty->page_count) {
        end = limit < dirty->page_count - page ? page + limit : dirty->page_count;
        run = take_run(dirty, page, end);
        page += run == 0; /* another took it meanwhile */
    }
    if (run == 0) {
        return LOAM_ERROR_NOT_FOUND;
    }
    *start = loam_gpa_from_u64((dirty->start + page) << dirty->page_shift);
    *bytes = run << dirty->page_shift;
    return LOAM_OK;
}

enum loam_error loam_dirty_take_all(struct loam_dirty *dirty, uint64_t *words, uint64_t word_count)
{
    if (dirty == NULL || words == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (word_count < dirty->word_count) {
        return LOAM_ERROR_EXHAUSTED;
    }
    for (uint64_t i = 0; i < dirty->word_count; i++) {
        words[i] = take_bits(dirty, i, UINT64_MAX);
    }
    return LOAM_OK;
}
