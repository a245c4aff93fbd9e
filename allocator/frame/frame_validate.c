// SPDX-License-Identifier: Apache-2.0
/*
 * From the ground up: first what says where things lie, then each section from its lowest frame to its highest, then
 * the lists, then the sums.
 */
#include "allocator/frame/frame_validate.h"
#include "allocator/frame/frame_recount.h"

#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lend.h"
#include "allocator/frame/frame_lists.h"

#include <inttypes.h>
#include <string.h>

/* The section under way. A block is open where it goes on at the next frame. */
struct walk {
    const struct frame_section *section;
    uint64_t free_frames; /* those in lent chunks not counted */
    uint64_t free_end;    /* one above the highest free frame so far */
    bool open;
    uint64_t open_start;
    uint64_t open_end; /* 0: not known yet */
};

/* --- What says where things lie -------------------------------------------------------------------------------- */

enum loam_error loam_frame_validate_header(const struct loam_frame *frame, struct loam_diag *diag)
{
    if (frame->magic != FRAME_MAGIC || frame->version != FRAME_VERSION) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "allocator: no frame allocator here (magic 0x%" PRIx64 ")",
                         frame->magic);
    }
    if (frame->seal != frame_seal_of_allocator(frame)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "allocator: its constants were changed");
    }
    if (frame->id_top > frame->section_capacity || frame->section_count > frame->id_top ||
        frame->lender_top > frame->cache_capacity || (frame->suspect != 0 && frame->suspect != FRAME_SUSPECT)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "allocator: %u sections, %u ids, %u caches, capacity %u and %u",
                         frame->section_count, frame->id_top, frame->lender_top, frame->section_capacity,
                         frame->cache_capacity);
    }
    return loam_frame_lend_validate_records(frame, diag);
}

/* Every id below id_top is in use with its seal intact, or on the list of unused ones. */
static enum loam_error check_ids(struct frame_recount *recount)
{
    const struct loam_frame *frame = recount->frame;
    const struct frame_section *sections = frame_sections(frame);
    uint32_t used = 0, unused = 0;

    for (uint32_t id = 0; id < frame->id_top; id++) {
        if (sections[id].id != id || sections[id].used > 1 ||
            (sections[id].use != FRAME_OPEN && sections[id].use != FRAME_APART && sections[id].use != FRAME_CLOSED)) {
            return CORRUPT(recount, "section %u: its record is damaged", id);
        }
        if (sections[id].used && sections[id].seal != frame_seal_of_section(&sections[id])) {
            return CORRUPT(recount, "section %u: its constants were changed", id);
        }
        used += sections[id].used;
    }
    for (uint32_t id = frame->unused_id; id != UINT32_MAX; id = sections[id].next_unused) {
        if (id >= frame->id_top || sections[id].used || unused == frame->id_top) {
            return CORRUPT(recount, "unused section ids: id %u does not belong to them", id);
        }
        unused++;
    }
    if (used != frame->section_count || used + unused != frame->id_top) {
        return CORRUPT(recount, "sections: %u counted, %u said to be there, %u ids unused of %u", used,
                       frame->section_count, unused, frame->id_top);
    }
    return LOAM_OK;
}

static enum loam_error check_index(struct frame_recount *recount)
{
    const struct loam_frame *frame = recount->frame;
    const struct frame_index *index = frame_indexes(frame);
    uint64_t floor = 0;

    for (uint32_t n = 0; n < frame->section_count; n++) {
        const struct frame_section *section = &frame_sections(frame)[index[n].id];

        if (index[n].id >= frame->id_top || !section->used || index[n].start != section->range_start) {
            return CORRUPT(recount, "index: entry %u names section %u wrongly", n, index[n].id);
        }
        if (index[n].start < floor) {
            return CORRUPT(recount, "index: section %u starts below the end of the one before", index[n].id);
        }
        floor = section->end;
    }
    return LOAM_OK;
}

/* --- One section ----------------------------------------------------------------------------------------------- */

static enum loam_error bad_chunk(struct frame_recount *recount, const struct walk *walk, uint64_t chunk,
                                 const char *what)
{
    return CORRUPT(recount, "section %u, chunk %" PRIu64 " (frame 0x%" PRIx64 "): %s", walk->section->id, chunk,
                   frame_chunk_start(walk->section, chunk), what);
}

static const struct frame_chunk *chunk_at(const struct frame_recount *recount, const struct walk *walk, uint64_t chunk)
{
    return &frame_chunks(recount->frame, walk->section)[chunk];
}

/* Count frames that are free in a chunk without an owner; where it is a listed one, that too. */
static void count_free(struct frame_recount *recount, struct walk *walk, uint64_t chunk, uint64_t free_frames)
{
    const struct frame_chunk *this = chunk_at(recount, walk, chunk);
    enum loam_frame_zone zone = frame_zone(recount->frame, frame_chunk_start(walk->section, chunk));
    bool open = walk->section->use == FRAME_OPEN;

    walk->free_frames += free_frames;
    *(open ? &recount->free_frames[zone] : &recount->withheld_frames[zone]) += free_frames;
    recount->listed[zone][open ? this->released & 1 : FRAME_LISTS_WITHHELD][this->list]++;
}

/* Whether the piece lies where a piece of its order may; order is in range. */
static bool piece_placed(const struct frame_recount *recount, const struct walk *walk, uint64_t chunk, uint32_t order)
{
    const struct frame_section *section = walk->section;
    uint64_t size_chunks = frame_piece_chunks(order);
    uint64_t start = frame_chunk_start(section, chunk);

    return loam_is_aligned(section->first_chunk + chunk, size_chunks) &&
           loam_fits(chunk, size_chunks, section->chunk_count) && start >= section->start &&
           loam_fits(start, size_chunks << FRAME_CHUNK_ORDER, section->end) &&
           (start >= recount->frame->zone_end ||
            start + (size_chunks << FRAME_CHUNK_ORDER) <= recount->frame->zone_end);
}

static bool piece_unmerged(const struct frame_recount *recount, const struct walk *walk, uint64_t chunk, uint32_t order)
{
    const struct frame_section *section = walk->section;
    uint64_t number = (section->first_chunk + chunk) ^ frame_piece_chunks(order);
    uint64_t low = frame_min(number, section->first_chunk + chunk);
    uint64_t spare = recount->frame->spare[frame_zone(recount->frame, frame_chunk_start(section, chunk))];
    const struct frame_chunk *buddy;

    if (order == LOAM_FRAME_ORDER_MAX || low < section->first_chunk ||
        !piece_placed(recount, walk, low - section->first_chunk, order + 1)) {
        return false;
    }
    buddy = chunk_at(recount, walk, number - section->first_chunk);
    return buddy->state == FRAME_CHUNK_FREE && buddy->order == order && buddy->owner == 0 &&
           buddy->released == chunk_at(recount, walk, chunk)->released && spare != frame_link(section, chunk) &&
           spare != frame_link(section, number - section->first_chunk);
}

static enum loam_error check_free_piece(struct frame_recount *recount, struct walk *walk, uint64_t chunk)
{
    const struct frame_chunk *this = chunk_at(recount, walk, chunk);
    uint64_t start = frame_chunk_start(walk->section, chunk);
    uint64_t frames = frame_piece_chunks(this->order) << FRAME_CHUNK_ORDER;
    enum loam_frame_zone zone = frame_zone(recount->frame, start);

    if (walk->open) {
        return bad_chunk(recount, walk, chunk, "is free, and the block before it goes on");
    }
    if (this->list != FRAME_LIST_FREE + this->order - FRAME_CHUNK_ORDER) {
        return bad_chunk(recount, walk, chunk, "is free, and not on the list of its order");
    }
    if (piece_unmerged(recount, walk, chunk, this->order)) {
        return bad_chunk(recount, walk, chunk, "is free like its buddy, and not merged with it");
    }
    count_free(recount, walk, chunk, frames);
    walk->free_end = start + frames;
    recount->free_chunks += frame_piece_chunks(this->order);
    recount->spare_seen[zone] |= recount->frame->spare[zone] == frame_link(walk->section, chunk);
    recount->released_chunks += this->released ? frame_piece_chunks(this->order) : 0;
    return LOAM_OK;
}

static enum loam_error check_whole_piece(struct frame_recount *recount, struct walk *walk, uint64_t chunk)
{
    const struct frame_section *section = walk->section;
    const struct frame_chunk *this = chunk_at(recount, walk, chunk);
    uint64_t start = frame_chunk_start(section, chunk);
    uint64_t end = start + (frame_piece_chunks(this->order) << FRAME_CHUNK_ORDER);
    uint64_t block_start, block_end;

    if (this->before_frames > start - section->start || this->block_frames > LOAM_FRAME_COUNT_MAX ||
        !loam_fits(start - this->before_frames - section->start, this->block_frames, section->end - section->start)) {
        return bad_chunk(recount, walk, chunk, "its block leaves the section");
    }
    block_start = start - this->before_frames;
    block_end = block_start + this->block_frames;
    if ((this->list != FRAME_LIST_NONE && this->list != FRAME_LIST_KEPT) || block_end < end) {
        return bad_chunk(recount, walk, chunk, "is allocated, and its block ends inside it or it is listed as free");
    }
    if (block_start != (walk->open ? walk->open_start : start) ||
        (walk->open && walk->open_end != 0 && walk->open_end != block_end)) {
        return bad_chunk(recount, walk, chunk, "its block is not the one that the frames before it belong to");
    }
    if ((this->tag != 0 && this->tag != FRAME_YES) || (this->tag != 0 && block_end != end)) {
        return bad_chunk(recount, walk, chunk, "bears a tag that it cannot have");
    }
    recount->kept += this->list == FRAME_LIST_KEPT;
    walk->open = block_end > end;
    walk->open_start = block_start;
    walk->open_end = block_end;
    return LOAM_OK;
}

/* A lent chunk that is free, or one block. */
static enum loam_error check_lent_piece(struct frame_recount *recount, struct walk *walk, uint64_t chunk)
{
    const struct frame_chunk *this = chunk_at(recount, walk, chunk);
    enum loam_frame_zone zone = frame_zone(recount->frame, frame_chunk_start(walk->section, chunk));

    if (!piece_placed(recount, walk, chunk, FRAME_CHUNK_ORDER) || walk->open || this->order != FRAME_ORDER_LENT ||
        (this->list != FRAME_LIST_NONE && (this->list != FRAME_LIST_KEPT || this->state != FRAME_CHUNK_FREE))) {
        return bad_chunk(recount, walk, chunk, "is lent as a whole, and cannot be");
    }
    if (this->state == FRAME_CHUNK_WHOLE) {
        recount->lent_whole[this->owner - 1]++;
        return LOAM_OK;
    }
    recount->lent++;
    recount->lent_frames[zone] += LOAM_FRAME_CHUNK_FRAMES;
    return LOAM_OK;
}

static enum loam_error check_piece(struct frame_recount *recount, struct walk *walk, uint64_t chunk, uint64_t *next)
{
    const struct frame_chunk *this = chunk_at(recount, walk, chunk);

    if (this->owner != 0) {
        return check_lent_piece(recount, walk, chunk);
    }
    if (this->order < FRAME_CHUNK_ORDER || this->order > LOAM_FRAME_ORDER_MAX ||
        !piece_placed(recount, walk, chunk, this->order)) {
        return bad_chunk(recount, walk, chunk, "a piece of its order cannot lie there");
    }
    *next = chunk + frame_piece_chunks(this->order);
    for (uint64_t inner = chunk + 1; inner < *next; inner++) {
        const struct frame_chunk *part = chunk_at(recount, walk, inner);

        if (part->state != FRAME_CHUNK_INNER || part->owner != 0 || part->lock != 0) {
            return bad_chunk(recount, walk, inner, "lies inside a piece, and says otherwise");
        }
    }
    return this->state == FRAME_CHUNK_FREE ? check_free_piece(recount, walk, chunk)
                                           : check_whole_piece(recount, walk, chunk);
}

/* Frames outside the section are used and last; a frame that is not the last of its block is followed by a used one. */
static const char *check_bits(const struct walk *walk, const struct frame_map *map, uint32_t from, uint32_t to)
{
    uint64_t carry = walk->open;

    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        uint64_t used = frame_bits_word(map, FRAME_BITS_USED, word);
        uint64_t goes_on = used & ~map->word[word].last;
        uint64_t managed = 0;

        if (from < word * UINT64_C(64) + 64 && to > word * UINT64_C(64)) {
            uint32_t low = (uint32_t)frame_max(from, word * UINT64_C(64));

            managed = frame_bits_mask(word, low, to - low);
        }
        if ((~managed & ~(map->word[word].allocated & map->word[word].last)) != 0) {
            return "a frame beyond the section's end is not marked so";
        }
        if (((goes_on << 1 | carry) & ~(used & managed)) != 0) {
            return "a block goes on in a frame that is free or beyond the section's end";
        }
        carry = goes_on >> 63;
    }
    return NULL;
}

static const char *check_filing(const struct frame_chunk *this, const struct frame_map *map)
{
    uint32_t none = this->owner != 0 ? FRAME_LIST_FULL : FRAME_LIST_NONE;
    uint32_t free_frames = frame_free_frames(this);

    if (this->owner != 0 && this->list == FRAME_LIST_CURRENT) {
        return NULL;
    }
    /* Where others freed, its borrower has not filed it anew. */
    if (this->owner != 0 && this->freed_chunk != 0) {
        return this->list <= FRAME_LIST_FULL ? NULL : "is on a list that is not its own";
    }
    if (free_frames == LOAM_FRAME_CHUNK_FRAMES && this->owner == 0) {
        return "is wholly free, and not in the buddy";
    }
    if (this->fit >= FRAME_FITS ||
        (this->fit < FRAME_FITS - 1 && frame_bits_find_order(map, this->fit + 1u) < LOAM_FRAME_CHUNK_FRAMES)) {
        return "holds a larger free block than it is filed under";
    }
    return this->list == (free_frames > 0 ? frame_partial_list(free_frames, this->fit) : none)
               ? NULL
               : "is on a list that is not its own";
}

static const char *check_partial_fields(const struct frame_chunk *this, const struct frame_map *map)
{
    if (frame_bits_count(map) != this->count) {
        return "its count of free frames, blocks and tags is not what its bitmaps say";
    }
    return check_filing(this, map);
}

static uint8_t crossed_by(const struct frame_map *map, bool entered)
{
    const struct frame_word *top = &map->word[FRAME_MAP_WORDS - 1];

    return (uint8_t)((entered ? FRAME_ENTERED : 0) | ((top->allocated & ~top->last) >> 63 != 0 ? FRAME_LEFT : 0));
}

static void count_partial(struct frame_recount *recount, struct walk *walk, uint64_t chunk)
{
    const struct frame_chunk *this = chunk_at(recount, walk, chunk);
    const struct frame_map *map = frame_map(recount->frame, walk->section, chunk);
    uint64_t base = frame_chunk_start(walk->section, chunk);
    enum loam_frame_zone zone = frame_zone(recount->frame, base);

    if (this->owner != 0) {
        recount->lent++;
        recount->lent_frames[zone] += frame_free_frames(this);
    } else if (frame_free_frames(this) > 0) {
        count_free(recount, walk, chunk, frame_free_frames(this));
        walk->free_end = base + frame_bits_previous_end(map, FRAME_BITS_FREE, LOAM_FRAME_CHUNK_FRAMES);
    }
}

static enum loam_error check_partial(struct frame_recount *recount, struct walk *walk, uint64_t chunk)
{
    const struct frame_section *section = walk->section;
    const struct frame_chunk *this = chunk_at(recount, walk, chunk);
    const struct frame_map *map = frame_map(recount->frame, section, chunk);
    uint64_t base = frame_chunk_start(section, chunk);
    uint32_t from = (uint32_t)(frame_max(section->start, base) - base);
    uint32_t to = (uint32_t)(frame_min(section->end, base + LOAM_FRAME_CHUNK_FRAMES) - base);
    uint32_t first_last = frame_bits_next(map, FRAME_BITS_LAST, 0);
    bool entered = walk->open;
    const char *what = check_bits(walk, map, from, to);

    if (what == NULL && this->owner != 0 && this->crossed != crossed_by(map, entered)) {
        what = "a block goes on into it, or not, other than its lender believes";
    }
    if (what == NULL) {
        what = check_partial_fields(this, map);
    }
    if (what == NULL && to - from == LOAM_FRAME_CHUNK_FRAMES && frame_free_frames(this) == 0 &&
        first_last >= LOAM_FRAME_CHUNK_FRAMES - 1) {
        what = "one block covers it, and it is not kept as whole";
    }
    if (what == NULL && walk->open && walk->open_end != 0 && walk->open_end != base + first_last + 1) {
        what = "a block ends elsewhere than it said in the chunk before";
    }
    if (what != NULL) {
        return bad_chunk(recount, walk, chunk, what);
    }
    walk->open = frame_bits_at(map, FRAME_BITS_USED, LOAM_FRAME_CHUNK_FRAMES - 1) &&
                 !frame_bits_at(map, FRAME_BITS_LAST, LOAM_FRAME_CHUNK_FRAMES - 1);
    walk->open_start = base + frame_bits_previous_end(map, FRAME_BITS_ENDS, LOAM_FRAME_CHUNK_FRAMES);
    walk->open_end = 0;
    count_partial(recount, walk, chunk);
    return LOAM_OK;
}

static bool kind_valid(const struct frame_recount *recount, const struct frame_section *section,
                       const struct frame_chunk *chunk)
{
    const struct loam_frame *frame = recount->frame;

    if (chunk->state == FRAME_CHUNK_INNER) {
        return true;
    }
    if (chunk->released != 0 && (chunk->released != FRAME_YES || chunk->owner != 0 || frame->released_ever != 1)) {
        return false;
    }
    if (chunk->owner != 0 && section->use != FRAME_OPEN) {
        return false;
    }
    return (chunk->lock == FRAME_LOCK_FREE || (chunk->lock == FRAME_LOCK_OWNERS && chunk->owner != 0)) &&
           chunk->owner <= frame->lender_top;
}

/* A thread that died with the allocator's lock may have left a chunk's behind. */
static void give_locks_up(const struct frame_recount *recount, const struct frame_section *section)
{
    for (uint64_t chunk = 0; recount->frame->suspect != 0 && chunk < section->chunk_count; chunk++) {
        struct frame_chunk *this = &frame_chunks(recount->frame, section)[chunk];

        this->lock = this->lock == FRAME_LOCK_HELD ? FRAME_LOCK_FREE : this->lock;
    }
}

static enum loam_error check_section(struct frame_recount *recount, const struct frame_section *section)
{
    struct walk walk = {.section = section};
    enum loam_error error = LOAM_OK;
    uint64_t next;

    give_locks_up(recount, section);
    for (uint64_t chunk = 0; error == LOAM_OK && chunk < section->chunk_count; chunk = next) {
        const struct frame_chunk *this = chunk_at(recount, &walk, chunk);
        uint8_t state = this->state;

        recount->freed += state != FRAME_CHUNK_INNER && this->owner != 0 && this->freed_chunk != 0;
        next = chunk + 1;
        if (!kind_valid(recount, section, this)) {
            error =
                bad_chunk(recount, &walk, chunk, "whom it is lent to, its lock, or whether it is released, cannot be");
        } else if (state == FRAME_CHUNK_PARTIAL) {
            error = check_partial(recount, &walk, chunk);
        } else if (state == FRAME_CHUNK_FREE || state == FRAME_CHUNK_WHOLE) {
            error = check_piece(recount, &walk, chunk, &next);
        } else {
            error = bad_chunk(recount, &walk, chunk, "belongs to no piece");
        }
    }
    if (error != LOAM_OK) {
        return error;
    }
    if (walk.open) {
        return CORRUPT(recount, "section %u: its last block goes on beyond its end", section->id);
    }
    if (walk.free_frames != section->free_frames) {
        return CORRUPT(recount, "section %u: %" PRIu64 " frames are free, its counter says %" PRIu64, section->id,
                       walk.free_frames, section->free_frames);
    }
    if (walk.free_end > section->free_top || section->free_top > section->end) {
        return CORRUPT(recount, "section %u: a frame is free above free_top 0x%" PRIx64, section->id,
                       section->free_top);
    }
    return LOAM_OK;
}

/* --- Lists and sums -------------------------------------------------------------------------------------------- */

bool loam_frame_validate_link(const struct frame_recount *recount, uint64_t link)
{
    const struct frame_section *section = loam_frame_spot_section(recount->frame, link >> 32);

    return section != NULL && (uint32_t)link < section->chunk_count;
}

/* Whether link points to a chunk that is on the list, behind previous. */
static const struct frame_chunk *follow(const struct frame_recount *recount, const struct frame_lists *lists,
                                        uint32_t list, uint32_t owner, uint64_t link, uint64_t previous)
{
    const struct frame_chunk *this;
    struct frame_spot spot;

    if (!loam_frame_validate_link(recount, link)) {
        return NULL;
    }
    spot = frame_spot_from_link(recount->frame, link);
    this = spot.chunk;
    if (this->state != (list < FRAME_LIST_FREE ? FRAME_CHUNK_PARTIAL : FRAME_CHUNK_FREE) || this->list != list ||
        frame_chunk_previous(this) != previous || this->owner != owner ||
        (owner == 0 && frame_lists_of(recount->frame, &spot) != lists)) {
        return NULL;
    }
    return this;
}

enum loam_error loam_frame_validate_list(struct frame_recount *recount, const struct frame_lists *lists, uint32_t list,
                                         uint32_t owner, uint64_t most, uint64_t *steps)
{
    uint64_t link = lists->head[list], previous = FRAME_LINK_NONE;
    bool marked = (lists->mask[list / 64] >> (list % 64)) & 1;

    *steps = 0;
    if (marked != (link != FRAME_LINK_NONE)) {
        return CORRUPT(recount, "list %u: the mask says that it is %s", list, marked ? "not empty" : "empty");
    }
    while (link != FRAME_LINK_NONE) {
        const struct frame_chunk *this = follow(recount, lists, list, owner, link, previous);

        if (this == NULL || ++*steps > most) {
            return CORRUPT(recount, "list %u: link 0x%" PRIx64 " does not belong to it", list, link);
        }
        previous = link;
        link = frame_chunk_next(this);
    }
    return LOAM_OK;
}

bool loam_frame_validate_made(const struct frame_spot *spot, const struct frame_window *window, uint32_t order)
{
    struct frame_word bits;
    uint64_t made;

    if (window->made == 0) {
        return (window->ready | window->back | window->base) == 0;
    }
    if (order >= FRAME_WINDOWS || (window->made & ~frame_bits_starts(UINT64_MAX, order)) != 0 ||
        window->base - spot->start >= LOAM_FRAME_CHUNK_FRAMES || window->base % 64 != 0) {
        return false;
    }
    bits = frame_bits_read(spot->map, frame_offset(window->base) / 64);
    made = frame_spread(window->made, order);
    return (window->ready & window->back) == 0 && ((window->ready | window->back) & ~window->made) == 0 &&
           (bits.allocated & made) == made && (bits.last & made) == frame_ends(window->made, order);
}

/* --- The front ------------------------------------------------------------------------------------------------- */

static enum loam_error check_front_window(struct frame_recount *recount, uint32_t zone, uint32_t order)
{
    const struct frame_window *window = &recount->frame->front.window[order][zone];
    bool live = (recount->frame->front.live >> (order * LOAM_FRAME_ZONE_COUNT + zone)) & 1;
    struct frame_spot spot;

    if (!live && memcmp(window, &frame_window_none, sizeof *window) == 0) {
        return LOAM_OK;
    }
    if (live && loam_frame_validate_link(recount, window->link)) {
        spot = frame_spot_from_link(recount->frame, window->link);
        if (spot.chunk->state == FRAME_CHUNK_PARTIAL && spot.chunk->owner == 0 && !spot.chunk->released &&
            spot.zone == zone && window->made != 0 && loam_frame_validate_made(&spot, window, order)) {
            recount->free_frames[zone] += (uint64_t)__builtin_popcountll(window->ready | window->back) << order;
            return LOAM_OK;
        }
    }
    return CORRUPT(recount, "front, zone %u, order %u: what it takes from is not a chunk's", zone, order);
}

static enum loam_error check_front_chunks(struct frame_recount *recount, uint32_t zone)
{
    const struct frame_front *front = &recount->frame->front;

    if (front->chunk_count[zone] > FRAME_KEPT_CHUNKS ||
        (front->chunk_count[zone] > 0 && (front->live >> (FRAME_WINDOWS * LOAM_FRAME_ZONE_COUNT + zone) & 1) == 0)) {
        return CORRUPT(recount, "front, zone %u: its count of chunks cannot be", zone);
    }
    for (uint32_t n = 0; n < front->chunk_count[zone]; n++) {
        uint64_t start = front->chunk[zone][n].start;
        bool again = false;
        struct frame_spot spot;

        for (uint32_t before = 0; before < n; before++) {
            again |= front->chunk[zone][before].start == start;
        }
        if (again || !frame_spot_find(recount->frame, start, &spot) || spot.start != start ||
            front->chunk[zone][n].link != frame_spot_link(&spot) ||
            frame_address(recount->frame, front->chunk[zone][n].chunk_offset_bytes) != spot.chunk) {
            return CORRUPT(recount, "front, zone %u: a chunk of it is none, or there twice", zone);
        }
        if (spot.chunk->list != FRAME_LIST_KEPT || spot.chunk->state != FRAME_CHUNK_WHOLE || spot.zone != zone ||
            spot.chunk->owner != 0 || spot.chunk->block_frames != LOAM_FRAME_CHUNK_FRAMES) {
            return CORRUPT(recount, "front, zone %u: a chunk of it is another's", zone);
        }
        recount->kept--;
        recount->free_frames[zone] += LOAM_FRAME_CHUNK_FRAMES;
    }
    return LOAM_OK;
}

/* The sections are counted. */
static enum loam_error check_front(struct frame_recount *recount)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t zone = 0; error == LOAM_OK && zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        for (uint32_t order = 0; error == LOAM_OK && order < FRAME_WINDOWS; order++) {
            error = check_front_window(recount, zone, order);
        }
        if (error == LOAM_OK) {
            error = check_front_chunks(recount, zone);
        }
    }
    if (error == LOAM_OK &&
        (recount->kept != 0 || recount->frame->front.live >> ((FRAME_WINDOWS + 1) * LOAM_FRAME_ZONE_COUNT) != 0)) {
        error = CORRUPT(recount, "front: it does not hold what says that it is there");
    }
    return error;
}

/* --- Zones ----------------------------------------------------------------------------------------------------- */

static enum loam_error check_lists(struct frame_recount *recount, uint32_t zone, uint32_t which)
{
    const struct frame_lists *lists = &recount->frame->lists[zone][which];
    enum loam_error error = LOAM_OK;
    uint64_t steps;

    if (lists->mask[1] >> FRAME_BIG_ORDERS != 0) {
        return CORRUPT(recount, "zone %u: the mask marks lists that do not exist", zone);
    }
    for (uint32_t list = 0; error == LOAM_OK && list < FRAME_LISTS; list++) {
        uint64_t listed = recount->listed[zone][which][list];

        error = loam_frame_validate_list(recount, lists, list, 0, listed, &steps);
        if (error == LOAM_OK && steps != listed) {
            error = CORRUPT(recount, "zone %u, list %u: holds %" PRIu64 " chunks, %" PRIu64 " say that they are on it",
                            zone, list, steps, listed);
        }
    }
    return error;
}

static enum loam_error check_zone(struct frame_recount *recount, uint32_t zone)
{
    const struct loam_frame *frame = recount->frame;
    enum loam_error error = LOAM_OK;

    if (frame->spare[zone] != FRAME_LINK_NONE && !recount->spare_seen[zone]) {
        return CORRUPT(recount, "zone %u: its spare piece 0x%" PRIx64 " is none", zone, frame->spare[zone]);
    }
    for (uint32_t which = 0; error == LOAM_OK && which < FRAME_LISTS_COUNT; which++) {
        error = check_lists(recount, zone, which);
    }
    if (error == LOAM_OK &&
        (frame->free_frames[zone] < frame->watermarks[zone].low_frames
             ? frame->pressure[zone] != 1
             : frame->pressure[zone] > 1 ||
                   (frame->pressure[zone] == 1 && frame->free_frames[zone] >= frame->watermarks[zone].high_frames))) {
        error = CORRUPT(recount, "zone %u: its pressure is not what its watermarks say", zone);
    }
    if (error == LOAM_OK && recount->free_frames[zone] != frame->free_frames[zone]) {
        error = CORRUPT(recount, "zone %u: %" PRIu64 " frames are free, its counter says %" PRIu64, zone,
                        recount->free_frames[zone], frame->free_frames[zone]);
    }
    if (error == LOAM_OK && recount->withheld_frames[zone] != frame->withheld_frames[zone]) {
        error = CORRUPT(recount, "zone %u: %" PRIu64 " free frames are withheld, its counter says %" PRIu64, zone,
                        recount->withheld_frames[zone], frame->withheld_frames[zone]);
    }
    return error;
}

static bool zones_remembered(const struct loam_frame *frame)
{
    uint64_t end = 0;

    for (uint32_t n = 0; n < frame->section_count; n++) {
        const struct frame_section *section = frame_spot_indexed(frame, n);

        end = section->use == FRAME_OPEN ? section->end : end;
    }
    return frame->open_end == end &&
           frame->top_zone == (end > frame->zone_end ? LOAM_FRAME_ZONE_NORMAL : LOAM_FRAME_ZONE_DMA32);
}

enum loam_error loam_frame_validate_locked(struct loam_frame *frame, struct loam_diag *diag)
{
    struct frame_recount recount = {.frame = frame, .diag = diag};
    enum loam_error error = check_ids(&recount);

    if (error == LOAM_OK) {
        error = check_index(&recount);
    }
    if (error == LOAM_OK) {
        error = loam_frame_lend_validate_hands(&recount);
    }
    for (uint32_t n = 0; error == LOAM_OK && n < frame->section_count; n++) {
        error = check_section(&recount, &frame_sections(frame)[frame_indexes(frame)[n].id]);
    }
    if (error == LOAM_OK) {
        error = check_front(&recount);
    }
    for (uint32_t zone = 0; error == LOAM_OK && zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        error = check_zone(&recount, zone);
    }
    if (error == LOAM_OK) {
        error = loam_frame_lend_validate_chunks(&recount);
    }
    if (error == LOAM_OK &&
        (recount.free_chunks != frame->free_chunks || recount.released_chunks != frame->released_chunks)) {
        error = CORRUPT(&recount,
                        "allocator: %" PRIu64 " chunks are free, %" PRIu64
                        " of them released, its counters say %" PRIu64 " and %" PRIu64,
                        recount.free_chunks, recount.released_chunks, frame->free_chunks, frame->released_chunks);
    }
    if (error == LOAM_OK && (frame->released_ever > 1 || !zones_remembered(frame))) {
        error = CORRUPT(&recount, "allocator: what it remembers of its zones is wrong");
    }
    return error;
}
