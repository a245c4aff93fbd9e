// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/frame_play.h"
#include "tests/allocator/frame_play_choose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_MAX = FRAME_PLAY_BATCH };

/* --- Allocation ------------------------------------------------------------------------------------------------ */

static void count_answer(struct frame_play *play, enum loam_error error)
{
    play->served += error == LOAM_OK;
    play->refused += error == LOAM_ERROR_EXHAUSTED;
}

/* Add to what was wrong what was asked. */
static void tell_request(struct frame_play *play, const struct loam_frame_request *request)
{
    size_t at = strlen(play->why);

    snprintf(play->why + at, sizeof play->why - at,
             " (count 0x%llx, align 0x%llx, boundary 0x%llx, limit 0x%llx, flags 0x%x, section %u, at 0x%llx)",
             (unsigned long long)request->count_frames, (unsigned long long)request->align_frames,
             (unsigned long long)request->boundary_frames, (unsigned long long)request->limit.value, request->flags,
             request->section, (unsigned long long)request->at.value);
}

static bool turn_alloc(struct frame_play *play)
{
    struct loam_frame_request request = {.count_frames = frame_play_choose_count(play),
                                         .limit = {frame_play_choose_limit(play)}};
    struct loam_frame_block block;
    enum loam_error error;

    play->doing = "alloc";
    frame_play_choose_shape(play, &request);
    frame_play_choose_flags(play, &request);
    error = loam_frame_alloc(play->frame, &request, &block);
    count_answer(play, error);
    if (!frame_play_judged(play, frame_oracle_alloc(&play->oracle, &request, error, &block))) {
        tell_request(play, &request);
        return false;
    }
    return true;
}

static bool turn_alloc_order(struct frame_play *play)
{
    uint32_t order = frame_play_choose_order(play);
    uint64_t limit = frame_play_choose_limit(play);
    struct loam_frame_cache *cache = frame_play_choose_cache(play);
    loam_pfn start = {1};
    enum loam_error error;

    if (cache != NULL) {
        play->doing = "cache_alloc";
        error = loam_frame_cache_alloc(cache, order, pfn(limit), &start);
    } else if (limit == 0) {
        play->doing = "alloc_order";
        error = loam_frame_alloc_order(play->frame, order, &start);
    } else {
        play->doing = "alloc_order_below";
        error = loam_frame_alloc_order_below(play->frame, order, pfn(limit), &start);
    }
    count_answer(play, error);
    return frame_play_judged(play, frame_oracle_alloc_batch(&play->oracle, order, limit, error, &start, 1));
}

static bool turn_alloc_batch(struct frame_play *play)
{
    uint32_t order = frame_play_choose_order(play);
    uint64_t limit = frame_play_choose_limit(play);
    size_t count = frame_play_choose(play, frame_play_one_in(play, 3) ? BATCH_MAX + 1 : 6);
    struct loam_frame_cache *cache = frame_play_choose_cache(play);
    loam_pfn starts[BATCH_MAX];
    enum loam_error error;

    memset(starts, 1, sizeof starts);
    play->doing = cache != NULL ? "cache_alloc_batch" : "alloc_batch";
    if (cache != NULL) {
        error = loam_frame_cache_alloc_batch(cache, order, pfn(limit), starts, count);
    } else {
        error = loam_frame_alloc_batch(play->frame, order, pfn(limit), starts, count);
    }
    count_answer(play, error);
    if (error == LOAM_OK && count > 0) {
        memcpy(play->batch, starts, count * sizeof *starts);
        play->batch_count = count;
        play->batch_order = order;
    }
    return frame_play_judged(play, frame_oracle_alloc_batch(&play->oracle, order, limit, error, starts, count));
}

/* --- Freeing --------------------------------------------------------------------------------------------------- */

static bool free_place(struct frame_play *play, struct frame_play_place place)
{
    struct loam_frame_cache *cache = frame_play_choose_cache(play);
    enum loam_error error;

    play->doing = cache != NULL ? "cache_free" : "free";
    if (cache != NULL) {
        error = loam_frame_cache_free(cache, pfn(place.start), place.count);
    } else {
        error = loam_frame_free(play->frame, pfn(place.start), place.count);
    }
    return frame_play_judged(play, frame_oracle_free(&play->oracle, place.start, place.count, error));
}

static bool free_place_released(struct frame_play *play, struct frame_play_place place)
{
    enum loam_error error = loam_frame_free_released(play->frame, pfn(place.start), place.count);

    play->doing = "free_released";
    return frame_play_judged(play, frame_oracle_free_released(&play->oracle, place.start, place.count, error));
}

/* Blocks of one order, side by side or wherever they are, and now and then one at fault among them. */
static size_t choose_batch(struct frame_play *play, uint32_t order, loam_pfn *starts)
{
    size_t tries = frame_play_choose(play, BATCH_MAX), count = 0;
    bool ascending = frame_play_one_in(play, 3);
    struct frame_play_place place = frame_play_choose_block(play);

    for (size_t i = 0; i < tries; i++) {
        bool fresh = place.count == UINT64_C(1) << order;

        for (size_t k = 0; k < count; k++) {
            fresh &= starts[k].value != place.start;
        }
        if (fresh || frame_play_one_in(play, 200)) {
            starts[count++] = pfn(place.start);
        }
        if (ascending) {
            uint64_t next = place.start + (place.count == 0 ? 1 : place.count);

            place.count = frame_oracle_block(&play->oracle, next, &place.start);
            place.start = place.count == 0 ? next : place.start;
        } else {
            place = frame_play_choose_block(play);
        }
    }
    return count;
}

static bool free_batch(struct frame_play *play, uint32_t order, const loam_pfn *starts, size_t count)
{
    struct loam_frame_cache *cache = frame_play_choose_cache(play);
    size_t done_count = SIZE_MAX;
    enum loam_error error;

    play->doing = cache != NULL ? "cache_free_batch" : "free_batch";
    if (cache != NULL) {
        error = loam_frame_cache_free_batch(cache, order, starts, count, &done_count);
    } else {
        error = loam_frame_free_batch(play->frame, order, starts, count, &done_count);
    }
    return frame_play_judged(play, frame_oracle_free_batch(&play->oracle, order, starts, count, error, done_count));
}

/* What came as a batch goes as a batch, if nobody has freed part of it; or what stands somewhere. */
static bool turn_free_batch(struct frame_play *play)
{
    struct frame_play_place first = frame_play_choose_block(play);
    bool natural = loam_is_power_of_two(first.count) && first.count <= LOAM_FRAME_COUNT_MAX;
    uint32_t order = natural ? (uint32_t)__builtin_ctzll(first.count) : (uint32_t)frame_play_choose(play, 24);
    loam_pfn starts[BATCH_MAX];
    size_t count = play->batch_count;

    if (count > 0 && frame_play_one_in(play, 2)) {
        play->batch_count = 0;
        return free_batch(play, play->batch_order, play->batch, count);
    }
    count = choose_batch(play, order, starts);
    return free_batch(play, order, starts, count);
}

static bool turn_free(struct frame_play *play)
{
    struct frame_play_place place = frame_play_choose_block(play);

    /* Whole chunks, and what begins like them. */
    if (place.start % LOAM_FRAME_CHUNK_FRAMES == 0 && frame_play_one_in(play, 2)) {
        return free_place_released(play, place);
    }
    return free_place(play, place);
}

static bool turn_misuse(struct frame_play *play)
{
    struct frame_play_place place = frame_play_choose_wrong(play);

    return frame_play_one_in(play, 8) ? free_place_released(play, place) : free_place(play, place);
}

/* --- Blocks that change ---------------------------------------------------------------------------------------- */

static bool turn_grow(struct frame_play *play)
{
    struct frame_play_place place =
        frame_play_one_in(play, 16) ? frame_play_choose_wrong(play) : frame_play_choose_block(play);
    uint64_t new_count =
        frame_play_one_in(play, 16) ? frame_play_choose(play, UINT64_MAX) : place.count + frame_play_choose_count(play);
    uint32_t flags = 9;
    enum loam_error error = loam_frame_grow(play->frame, pfn(place.start), place.count, new_count, &flags);

    play->doing = "grow";
    return frame_play_judged(play, frame_oracle_grow(&play->oracle, place.start, place.count, new_count, error, flags));
}

static bool turn_trim(struct frame_play *play)
{
    struct frame_play_place place =
        frame_play_one_in(play, 16) ? frame_play_choose_wrong(play) : frame_play_choose_block(play);
    uint64_t new_count =
        frame_play_one_in(play, 16) ? frame_play_choose(play, UINT64_MAX) : frame_play_choose(play, place.count + 1);
    enum loam_error error = loam_frame_trim(play->frame, pfn(place.start), place.count, new_count);

    play->doing = "trim";
    return frame_play_judged(play, frame_oracle_trim(&play->oracle, place.start, place.count, new_count, error));
}

static bool turn_split(struct frame_play *play)
{
    struct frame_play_place place =
        frame_play_one_in(play, 16) ? frame_play_choose_wrong(play) : frame_play_choose_block(play);
    uint64_t first =
        frame_play_one_in(play, 16) ? frame_play_choose(play, UINT64_MAX) : frame_play_choose(play, place.count + 1);
    enum loam_error error = loam_frame_split(play->frame, pfn(place.start), place.count, first);

    play->doing = "split";
    return frame_play_judged(play, frame_oracle_split(&play->oracle, place.start, place.count, first, error));
}

static bool turn_set_backed(struct frame_play *play)
{
    struct frame_play_place place =
        frame_play_one_in(play, 8) ? frame_play_choose_wrong(play) : frame_play_choose_block(play);
    enum loam_error error = loam_frame_set_backed(play->frame, pfn(place.start), place.count);

    play->doing = "set_backed";
    return frame_play_judged(play, frame_oracle_set_backed(&play->oracle, place.start, place.count, error));
}

static bool turn_tag(struct frame_play *play)
{
    uint64_t start = frame_play_one_in(play, 4) ? frame_play_choose_pfn(play) : frame_play_choose_block(play).start;
    enum loam_frame_tag tag = (enum loam_frame_tag)frame_play_choose(play, 3);
    enum loam_error error = loam_frame_tag_set(play->frame, pfn(start), tag);

    play->doing = "tag_set";
    return frame_play_judged(play, frame_oracle_tag(&play->oracle, start, tag, error));
}

/* --- Questions ------------------------------------------------------------------------------------------------- */

/* A line, whole or cut, that does not go beyond its buffer. */
static bool ask_describe(struct frame_play *play)
{
    uint64_t at = frame_play_choose_pfn(play), bytes = frame_play_choose(play, 160);
    char text[162];
    size_t whole;

    play->doing = "describe";
    memset(text, '\n', sizeof text - 1);
    text[161] = '\0';
    whole = loam_frame_describe(play->frame, pfn(at), text, bytes);
    if (whole == 0 || text[bytes] != '\n' ||
        (bytes > 0 && strcspn(text, "\n") != (whole < bytes ? whole : bytes - 1))) {
        return frame_play_judged(play, frame_oracle_wrong(&play->oracle, "the length of a line", whole, bytes));
    }
    return true;
}

static bool ask_check(struct frame_play *play)
{
    struct frame_play_place place =
        frame_play_one_in(play, 2) ? frame_play_choose_wrong(play) : frame_play_choose_block(play);
    struct loam_diag diag = {0};
    enum loam_error error = loam_frame_check(play->frame, pfn(place.start), place.count, &diag);

    play->doing = "check";
    if (diag.error != error || (error == LOAM_OK) != (diag.text[0] == '\0')) {
        return frame_play_judged(
            play, frame_oracle_wrong(&play->oracle, "what diag says, and the answer", diag.error, error));
    }
    return frame_play_judged(play, frame_oracle_check(&play->oracle, place.start, place.count, error));
}

static bool ask_section(struct frame_play *play)
{
    uint64_t at = frame_play_choose_pfn(play);
    struct loam_frame_section section;
    enum loam_error error = loam_frame_section_find(play->frame, pfn(at), &section);

    play->doing = "section_find";
    return frame_play_judged(play, frame_oracle_section(&play->oracle, at, error, &section));
}

static bool ask_stats(struct frame_play *play)
{
    struct loam_frame_stats stats = loam_frame_get_stats(play->frame);

    play->doing = "stats";
    return frame_play_judged(play, frame_oracle_stats(&play->oracle, &stats));
}

static bool ask_fragmentation(struct frame_play *play)
{
    struct loam_frame_fragmentation fragmentation = loam_frame_get_fragmentation(play->frame);

    play->doing = "fragmentation";
    return frame_play_judged(play, frame_oracle_fragmentation(&play->oracle, &fragmentation));
}

static bool ask_pressure(struct frame_play *play)
{
    enum loam_frame_zone zone = (enum loam_frame_zone)frame_play_choose(play, LOAM_FRAME_ZONE_COUNT);

    play->doing = "pressure";
    return frame_play_judged(play, frame_oracle_pressure(&play->oracle, zone, loam_frame_pressure(play->frame, zone)));
}

static bool ask_next_free(struct frame_play *play)
{
    uint64_t from = frame_play_choose_pfn(play);
    struct loam_frame_range range;
    enum loam_error error = loam_frame_next_free(play->frame, pfn(from), &range);

    play->doing = "next_free";
    return frame_play_judged(play, frame_oracle_next_free(&play->oracle, from, error, &range));
}

static bool ask_next_free_chunks(struct frame_play *play)
{
    uint64_t from = frame_play_choose_pfn(play);
    struct loam_frame_range range;
    bool released = false;
    enum loam_error error = loam_frame_next_free_chunks(play->frame, pfn(from), &range, &released);

    play->doing = "next_free_chunks";
    return frame_play_judged(play, frame_oracle_next_free_chunks(&play->oracle, from, error, &range, released));
}

static bool ask_largest_free(struct frame_play *play)
{
    uint64_t limit = frame_play_choose_limit(play);
    struct loam_frame_range range;
    enum loam_error error = loam_frame_largest_free(play->frame, pfn(limit), &range);

    play->doing = "largest_free";
    return frame_play_judged(play, frame_oracle_largest_free(&play->oracle, limit, error, &range));
}

static bool ask_query(struct frame_play *play)
{
    uint64_t at = frame_play_choose_pfn(play);
    struct loam_frame_info info = loam_frame_query(play->frame, pfn(at));

    play->doing = "query";
    return frame_play_judged(play, frame_oracle_query(&play->oracle, at, &info));
}

static bool turn_question(struct frame_play *play)
{
    static bool (*const questions[])(struct frame_play *) = {
        ask_query,
        ask_query,
        ask_query,
        ask_check,
        ask_check,
        ask_describe,
        ask_section,
        ask_stats,
        ask_pressure,
        ask_next_free,
        ask_fragmentation,
        ask_next_free,
        ask_next_free_chunks,
        ask_largest_free,
    };

    return questions[frame_play_choose(play, sizeof questions / sizeof questions[0])](play);
}

/* --- A turn ---------------------------------------------------------------------------------------------------- */

bool frame_play_turn(struct frame_play *play, uint64_t fill_percent)
{
    static bool (*const changes[])(struct frame_play *) = {turn_grow,       turn_grow, turn_trim,  turn_split,
                                                           turn_set_backed, turn_tag,  turn_misuse};
    static bool (*const fills[])(struct frame_play *) = {turn_alloc, turn_alloc, turn_alloc_order, turn_alloc_order,
                                                         turn_alloc_batch};

    if (frame_play_choose(play, 4) > 0) {
        if (frame_play_choose(play, 100) < fill_percent) {
            return fills[frame_play_choose(play, sizeof fills / sizeof fills[0])](play);
        }
        return frame_play_one_in(play, 4) ? turn_free_batch(play) : turn_free(play);
    }
    if (frame_play_choose(play, 4) > 0) {
        return changes[frame_play_choose(play, sizeof changes / sizeof changes[0])](play);
    }
    return turn_question(play);
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

static char *slot_memory(struct frame_play *play, uint32_t slot)
{
    return play->arena + play->arena_bytes - (size_t)FRAME_PLAY_SLOT_BYTES * (FRAME_PLAY_SECTIONS - slot);
}

static bool add(struct frame_play *play, uint64_t start, uint64_t count)
{
    uint32_t slot = 0, section = 0;
    enum loam_error error;

    play->doing = "section_add";
    while (slot < FRAME_PLAY_SECTIONS - 1 && play->slot_used[slot]) {
        slot++;
    }
    if (loam_frame_section_bytes(play->frame, pfn(start), count) > FRAME_PLAY_SLOT_BYTES) {
        return frame_play_judged(play, frame_oracle_wrong(&play->oracle, "more metadata than expected", start, count));
    }
    error = loam_frame_section_add(play->frame, pfn(start), count, slot_memory(play, slot), FRAME_PLAY_SLOT_BYTES,
                                   &section);
    if (!frame_play_judged(play, frame_oracle_add(&play->oracle, start, count, error, section))) {
        return false;
    }
    if (error == LOAM_OK) {
        play->slot_used[slot] = true;
        play->slot_of_section[section] = slot;
    }
    return true;
}

static bool remove_section(struct frame_play *play, uint32_t section)
{
    loam_pfn blocker = {1};
    enum loam_error error = loam_frame_section_remove(play->frame, section, &blocker);

    play->doing = "section_remove";
    if (!frame_play_judged(play, frame_oracle_remove(&play->oracle, section, error, blocker))) {
        return false;
    }
    if (error == LOAM_OK) {
        uint32_t slot = play->slot_of_section[section];

        memset(slot_memory(play, slot), 0xdb, FRAME_PLAY_SLOT_BYTES);
        play->slot_used[slot] = false;
    }
    return true;
}

/* Free whatever stands in a section, so that it can go. */
static bool empty(struct frame_play *play, uint32_t section)
{
    const struct frame_oracle_section *this = &play->oracle.sections[section];

    for (uint64_t n = 0; this->used && n < this->count; n++) {
        struct frame_play_place place;

        place.count = frame_oracle_block(&play->oracle, this->start + n, &place.start);
        if (place.count > 0 && !free_place(play, place)) {
            return false;
        }
    }
    return true;
}

static bool set_use(struct frame_play *play, uint32_t section, enum loam_frame_use use)
{
    enum loam_error error = loam_frame_section_set_use(play->frame, section, use);

    play->doing = "section_set_use";
    return frame_play_judged(play, frame_oracle_set_use(&play->oracle, section, use, error));
}

bool frame_play_section(struct frame_play *play)
{
    const struct loam_frame_range *range = &play->geometry->sections[frame_play_choose(play, FRAME_PLAY_SECTIONS)];
    uint64_t choice = frame_play_choose(play, 12);

    if (choice < 2 && !empty(play, (uint32_t)frame_play_choose(play, FRAME_PLAY_SECTIONS))) {
        return false;
    }
    if (choice < 4) {
        return remove_section(play, (uint32_t)frame_play_choose(play, FRAME_PLAY_SECTIONS + 1));
    }
    if (choice >= 8) {
        return set_use(play, (uint32_t)frame_play_choose(play, FRAME_PLAY_SECTIONS + 1),
                       (enum loam_frame_use)frame_play_choose(play, LOAM_FRAME_USE_COUNT + 1));
    }
    if (choice < 7) {
        return add(play, range->start.value, range->count_frames);
    }
    return add(play, frame_play_choose_pfn(play), frame_play_choose(play, 900));
}

/* --- Caches ---------------------------------------------------------------------------------------------------- */

static void note_drained(struct frame_play *play, uint32_t i)
{
    bool used = false;

    play->cache_used[i] = play->caches[i] != NULL && frame_oracle_whole_chunk_taken(&play->oracle);
    for (uint32_t k = 0; k < FRAME_PLAY_CACHES; k++) {
        used |= play->cache_used[k];
    }
    if (!used) {
        frame_oracle_caches_drained(&play->oracle);
    }
}

static bool make_cache(struct frame_play *play, uint32_t i)
{
    struct loam_frame_cache *cache = NULL;
    enum loam_error error = loam_frame_cache_make(play->frame, &cache);

    play->doing = "cache_make";
    if ((cache != NULL) != (error == LOAM_OK)) {
        return frame_play_judged(play,
                                 frame_oracle_wrong(&play->oracle, "a cache with an error, or none without", error, i));
    }
    if (error == LOAM_OK) {
        play->caches[i] = cache;
        play->cache_used[i] = play->oracle.caches_hold || frame_oracle_whole_chunk_taken(&play->oracle);
        play->oracle.caches_hold |= play->cache_used[i];
    }
    return frame_play_judged(play, frame_oracle_cache_make(&play->oracle, error));
}

/* What a destroyed cache answers, before its place is used again. */
static bool use_destroyed(struct frame_play *play, struct loam_frame_cache *cache)
{
    uint32_t order = (uint32_t)frame_play_choose(play, LOAM_FRAME_CACHE_ORDERS);
    struct frame_play_place place = frame_play_choose_block(play);
    loam_pfn start = {1};
    enum loam_error error;

    play->doing = "destroyed cache";
    switch (frame_play_choose(play, 4)) {
    case 0:
        error = loam_frame_cache_alloc(cache, order, pfn(0), &start);
        break;
    case 1:
        error = loam_frame_cache_free(cache, pfn(place.start), place.count);
        break;
    case 2:
        error = loam_frame_cache_drain(cache);
        break;
    default:
        error = loam_frame_cache_destroy(cache);
        break;
    }
    return frame_play_judged(play, frame_oracle_same(&play->oracle, error, LOAM_ERROR_UNINITIALISED));
}

static bool destroy_cache(struct frame_play *play, uint32_t i)
{
    struct loam_frame_cache *cache = play->caches[i];
    enum loam_error error = loam_frame_cache_destroy(cache);

    play->doing = "cache_destroy";
    if (!frame_play_judged(play, frame_oracle_cache_destroy(&play->oracle, true, error))) {
        return false;
    }
    play->caches[i] = NULL;
    note_drained(play, i);
    return use_destroyed(play, cache);
}

bool frame_play_cache(struct frame_play *play)
{
    uint32_t i = (uint32_t)frame_play_choose(play, FRAME_PLAY_CACHES);
    uint64_t choice = frame_play_choose(play, 8);
    enum loam_error error;

    play->favourite = i;
    if (play->caches[i] == NULL) {
        return play->geometry->cache_count == 0 || make_cache(play, i);
    }
    if (choice == 0) {
        return destroy_cache(play, i);
    }
    play->doing = "cache_drain";
    error = loam_frame_cache_drain(play->caches[i]);
    note_drained(play, i);
    return frame_play_judged(play, frame_oracle_same(&play->oracle, error, LOAM_OK));
}

/* --- The whole ------------------------------------------------------------------------------------------------- */

static bool query_cached(void *context, uint64_t at)
{
    const struct frame_play *play = context;

    return loam_frame_query(play->frame, pfn(at)).cached;
}

/* Only one thread is here. */
static bool pass_no_barrier(void)
{
    return true;
}

bool frame_play_make(struct frame_play *play, const struct frame_play_geometry *geometry)
{
    struct loam_frame_config config = geometry->config;
    size_t bytes;

    config.section_capacity = FRAME_PLAY_SECTIONS;
    config.cache_capacity = geometry->cache_count;
    bytes = (loam_frame_bytes(&config) + LOAM_FRAME_METADATA_ALIGN - 1) / LOAM_FRAME_METADATA_ALIGN *
            LOAM_FRAME_METADATA_ALIGN;
    play->geometry = geometry;
    play->arena_bytes = bytes + FRAME_PLAY_SLOT_BYTES * FRAME_PLAY_SECTIONS;
    play->arena = aligned_alloc(LOAM_FRAME_METADATA_ALIGN, play->arena_bytes);
    memset(play->arena, 0xa5, play->arena_bytes);
    frame_oracle_init(&play->oracle, &config);
    play->oracle.cached = query_cached;
    play->oracle.context = play;
    loam_frame_set_barrier(pass_no_barrier);
    play->doing = "init";
    if (!frame_play_judged(
            play,
            frame_oracle_same(&play->oracle, loam_frame_init(play->arena, bytes, &config, &play->frame), LOAM_OK))) {
        return false;
    }
    for (uint32_t i = 0; i < FRAME_PLAY_SECTIONS; i++) {
        if (geometry->sections[i].count_frames != 0 &&
            !add(play, geometry->sections[i].start.value, geometry->sections[i].count_frames)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < geometry->cache_count; i++) {
        if (!make_cache(play, i)) {
            return false;
        }
    }
    return true;
}

void frame_play_drop(struct frame_play *play)
{
    frame_oracle_destroy(&play->oracle);
    free(play->arena);
}

bool frame_play_validate(struct frame_play *play)
{
    struct loam_diag diag = {0};

    if (loam_frame_validate(play->frame, &diag) != LOAM_OK) {
        snprintf(play->why, sizeof play->why, "%s: validate, after %s: %s", play->geometry->name, play->doing,
                 diag.text);
        return false;
    }
    return ask_stats(play);
}

bool frame_play_move(struct frame_play *play)
{
    char *arena = aligned_alloc(LOAM_FRAME_METADATA_ALIGN, play->arena_bytes), *old = play->arena;
    struct loam_diag diag = {0};
    enum loam_error error;

    play->doing = "attach";
    memcpy(arena, old, play->arena_bytes);
    memset(old, 0xee, play->arena_bytes);
    play->arena = arena;
    for (uint32_t i = 0; i < FRAME_PLAY_CACHES; i++) {
        if (play->caches[i] != NULL) {
            play->caches[i] = (struct loam_frame_cache *)(arena + ((char *)play->caches[i] - old));
        }
    }
    free(old);
    error = loam_frame_attach(arena, play->arena_bytes, &play->frame, &diag);
    return frame_play_judged(play, frame_oracle_same(&play->oracle, error, LOAM_OK)) &&
           play->frame == (struct loam_frame *)arena;
}

bool frame_play_end(struct frame_play *play)
{
    for (uint32_t i = 0; i < FRAME_PLAY_SECTIONS; i++) {
        if (!empty(play, i)) {
            return false;
        }
    }
    if (!frame_play_validate(play)) {
        return false;
    }
    for (uint32_t i = 0; i < FRAME_PLAY_CACHES; i++) {
        if (play->caches[i] != NULL && !destroy_cache(play, i)) {
            return false;
        }
    }
    if (!frame_play_validate(play) || !ask_fragmentation(play)) {
        return false;
    }
    for (uint32_t i = 0; i < FRAME_PLAY_SECTIONS; i++) {
        if (!remove_section(play, i)) {
            return false;
        }
    }
    return frame_play_validate(play);
}
