// SPDX-License-Identifier: Apache-2.0
#include "allocator/dma_ledger.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES ((size_t)64)

static_assert(sizeof(struct dma_slot) == 2 * LINE_BYTES && offsetof(struct loam_dma_entry, owner) + 26 <= LINE_BYTES,
              "a slot is two cache lines, of which the first has room for names of 25 characters");
static_assert(sizeof(struct dma_stripe) == 4 * LINE_BYTES, "a stripe is found by a shift");
static_assert(LOAM_GPA_END >> LOAM_FRAME_SHIFT <= DMA_INDEX_KEY_END, "the index holds every frame");
static_assert((uint64_t)DMA_LEDGER_SLOTS_MAX * DMA_LEDGER_STRIPES < UINT32_MAX, "a slot's number is half an id");

/* --- Slots; the stripe is locked ---------------------------------------------------------------------------------- */

/* Which segment has the slot with that index in its stripe; *offset is where in it. */
static unsigned segment_of(uint32_t index, uint32_t *offset)
{
    uint32_t from_first = index + DMA_LEDGER_SEGMENT_FIRST;
    unsigned top_bit = 31 - (unsigned)__builtin_clz(from_first);

    *offset = from_first - (UINT32_C(1) << top_bit);
    return top_bit - (unsigned)__builtin_ctz(DMA_LEDGER_SEGMENT_FIRST);
}

static struct dma_slot *slots_of(void *segment)
{
    return (struct dma_slot *)((char *)segment + (-(uintptr_t)segment & (LINE_BYTES - 1)));
}

static struct dma_slot *slot_at(const struct dma_stripe *stripe, uint32_t index)
{
    uint32_t offset;
    unsigned segment = segment_of(index, &offset);

    return slots_of(stripe->segments[segment]) + offset;
}

/* A slot never used before; NULL: no heap memory, or no ids. */
static struct dma_slot *make_slot(struct dma_stripe *stripe, uint32_t stripe_index)
{
    struct dma_slot *slot;
    uint32_t offset;
    unsigned segment;

    if (stripe->made == DMA_LEDGER_SLOTS_MAX) {
        return NULL;
    }
    segment = segment_of(stripe->made, &offset);
    if (stripe->segments[segment] == NULL) {
        size_t slot_count = (size_t)DMA_LEDGER_SEGMENT_FIRST << segment;

        stripe->segments[segment] = calloc(1, slot_count * sizeof *slot + LINE_BYTES);
        if (stripe->segments[segment] == NULL) {
            return NULL;
        }
    }
    slot = slots_of(stripe->segments[segment]) + offset;
    slot->entry.buffer.id = UINT64_C(1) + (uint64_t)stripe->made * DMA_LEDGER_STRIPES + stripe_index;
    /* Release: who finds the slot by its id finds its segment. */
    shared_store_release(stripe->made, stripe->made + 1);
    return slot;
}

static struct dma_slot *take_slot(struct dma_stripe *stripe, uint32_t stripe_index)
{
    struct dma_slot *slot = stripe->free;

    if (slot == NULL) {
        return make_slot(stripe, stripe_index);
    }
    stripe->free = slot->entry.buffer.hva;
    return slot;
}

/* A slot whose ids are used up is left alone for ever. */
static void give_slot(struct dma_stripe *stripe, struct dma_slot *slot)
{
    struct loam_dma_buffer *buffer = &slot->entry.buffer;
    uint64_t next_id = buffer->id + DMA_LEDGER_ID_STEP;

    buffer->bytes = 0;
    /* Relaxed: stripe_of reads the half that stays as it is. */
    shared_store(buffer->id, next_id);
    if (next_id >= DMA_LEDGER_ID_STEP) {
        buffer->hva = stripe->free;
        stripe->free = slot;
    }
}

/* Member by member: a copy in one piece would wait for what the caller has just written in smaller ones. */
static void fill_slot(struct dma_slot *slot, struct loam_dma_buffer *buffer, const char *owner, size_t length,
                      uint32_t flags)
{
    buffer->id = slot->entry.buffer.id;
    slot->entry.buffer.gpa = buffer->gpa;
    slot->entry.buffer.hva = buffer->hva;
    slot->entry.buffer.bytes = buffer->bytes;
    slot->entry.pin_count = 0;
    slot->entry.kept = (flags & LOAM_DMA_KEEP) != 0;
    slot->entry.reserved = (flags & LOAM_DMA_RESERVED) != 0;
    memcpy(slot->entry.owner, owner, length);
    slot->entry.owner[length] = 0;
}

/* --- Stripes ------------------------------------------------------------------------------------------------------ */

static void lock(struct dma_ledger *ledger, struct dma_stripe *stripe)
{
    if (!loam_lock_take(&stripe->lock)) {
        /* Relaxed: whoever changes an entry that is half changed has taken the lock after this. */
        shared_store(ledger->suspect, true);
    }
}

static void unlock(struct dma_stripe *stripe)
{
    loam_lock_give(&stripe->lock);
}

bool loam_dma_ledger_suspect(const struct dma_ledger *ledger)
{
    return shared_load(ledger->suspect);
}

static uint32_t stripe_index_of(uint64_t id)
{
    return ((uint32_t)id - 1) % DMA_LEDGER_STRIPES;
}

/* Relaxed: what of an id says which stripe it is never changes. */
static struct dma_stripe *stripe_of(struct dma_ledger *ledger, const struct loam_dma_entry *entry)
{
    return &ledger->stripes[stripe_index_of(shared_load(entry->buffer.id))];
}

static uint64_t key_of(loam_gpa gpa)
{
    return gpa.value >> LOAM_FRAME_SHIFT;
}

/* The slot that an id is of, where there is one: needs no lock. */
static inline struct dma_slot *slot_of_id(const struct dma_stripe *stripe, uint64_t id)
{
    uint32_t index = ((uint32_t)id - 1) / DMA_LEDGER_STRIPES;

    /* Acquire: pairs with the release in make_slot. */
    return index < shared_load_acquire(stripe->made) ? slot_at(stripe, index) : NULL;
}

/* Whether it has the entry with that id; its stripe is held. */
static bool has_entry(const struct dma_slot *slot, uint64_t id)
{
    return slot != NULL && slot->entry.buffer.id == id && slot->entry.buffer.bytes != 0;
}

/* --- Entries ------------------------------------------------------------------------------------------------------ */

enum loam_error loam_dma_ledger_enter(struct dma_ledger *ledger, struct loam_dma_buffer *buffer, const char *owner,
                                      size_t length, uint32_t flags)
{
    uint32_t stripe_index = loam_lock_self % DMA_LEDGER_STRIPES; /* threads started one after another: each its own */
    struct dma_stripe *stripe = &ledger->stripes[stripe_index];
    dma_index_place *place = loam_dma_index_place(&ledger->index, key_of(buffer->gpa));
    enum loam_error error = LOAM_ERROR_CORRUPT;

    if (place == NULL) {
        return LOAM_ERROR_SYSTEM;
    }
    lock(ledger, stripe);
    if (!loam_dma_ledger_suspect(ledger)) {
        struct dma_slot *slot = take_slot(stripe, stripe_index);

        error = slot != NULL ? LOAM_OK : LOAM_ERROR_SYSTEM;
        if (slot != NULL) {
            fill_slot(slot, buffer, owner, length, flags);
            stripe->count++;
            /* Release: who finds the slot sees in its id which stripe it is of, and takes the lock for the rest. */
            shared_store_release(*place, slot);
        }
    }
    unlock(stripe);
    return error;
}

enum loam_error loam_dma_ledger_take(struct dma_ledger *ledger, uint64_t id, struct loam_dma_entry **entry)
{
    struct dma_stripe *stripe = &ledger->stripes[stripe_index_of(id)];
    struct dma_slot *slot = slot_of_id(stripe, id);
    enum loam_error error;

    __builtin_prefetch(slot, 1); /* of many it is far away: come while the lock does */
    lock(ledger, stripe);
    if (!loam_dma_ledger_suspect(ledger) && has_entry(slot, id)) {
        *entry = &slot->entry;
        return LOAM_OK;
    }
    error = loam_dma_ledger_suspect(ledger) ? LOAM_ERROR_CORRUPT : LOAM_ERROR_NOT_FOUND;
    unlock(stripe);
    *entry = NULL;
    return error;
}

void loam_dma_ledger_give(struct dma_ledger *ledger, const struct loam_dma_entry *entry)
{
    unlock(stripe_of(ledger, entry));
}

void loam_dma_ledger_strike(struct dma_ledger *ledger, struct loam_dma_entry *entry)
{
    struct dma_stripe *stripe = stripe_of(ledger, entry);

    give_slot(stripe, (struct dma_slot *)entry);
    stripe->count--;
    unlock(stripe);
}

/* --- In order of GPA ---------------------------------------------------------------------------------------------- */

/* Whether the slot, whose stripe is held, has an entry that starts at key; else the index has it there from before. */
static bool starts_at(const struct dma_slot *slot, uint64_t key)
{
    return slot->entry.buffer.bytes != 0 && key_of(slot->entry.buffer.gpa) == key;
}

struct loam_dma_entry *loam_dma_ledger_held_next(const struct dma_ledger *ledger, loam_gpa gpa)
{
    struct dma_slot *slot;

    for (uint64_t key = key_of(gpa); (slot = loam_dma_index_next(&ledger->index, &key)) != NULL; key++) {
        if (starts_at(slot, key)) {
            return &slot->entry;
        }
    }
    return NULL;
}

enum loam_error loam_dma_ledger_next(struct dma_ledger *ledger, loam_gpa gpa, struct loam_dma_entry *entry)
{
    uint64_t key = key_of(gpa);
    struct dma_slot *slot;
    bool found = false;

    while (!found && (slot = loam_dma_index_next(&ledger->index, &key)) != NULL) {
        struct dma_stripe *stripe = stripe_of(ledger, &slot->entry);

        lock(ledger, stripe);
        found = starts_at(slot, key);
        if (found) {
            *entry = slot->entry;
        } else if (!loam_dma_ledger_suspect(ledger)) {
            loam_dma_index_take_out(&ledger->index, key, slot);
        } else {
            key++;
        }
        unlock(stripe);
    }
    return found ? LOAM_OK : LOAM_ERROR_NOT_FOUND;
}

/* --- All of it ---------------------------------------------------------------------------------------------------- */

uint32_t loam_dma_ledger_count(struct dma_ledger *ledger)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < DMA_LEDGER_STRIPES; i++) {
        lock(ledger, &ledger->stripes[i]);
        count += ledger->stripes[i].count;
        unlock(&ledger->stripes[i]);
    }
    return count;
}

void loam_dma_ledger_take_all(struct dma_ledger *ledger)
{
    for (uint32_t i = 0; i < DMA_LEDGER_STRIPES; i++) {
        lock(ledger, &ledger->stripes[i]);
    }
}

void loam_dma_ledger_give_all(struct dma_ledger *ledger, bool in_order)
{
    if (in_order) {
        /* Relaxed: every lock is held. */
        shared_store(ledger->suspect, false);
    }
    for (uint32_t i = DMA_LEDGER_STRIPES; i-- > 0;) {
        unlock(&ledger->stripes[i]);
    }
}

void loam_dma_ledger_give_all_after_fork(struct dma_ledger *ledger)
{
    for (uint32_t i = DMA_LEDGER_STRIPES; i-- > 0;) {
        loam_lock_give_after_fork(&ledger->stripes[i].lock);
    }
}

/* Whether the index has the slot, which has an entry, where that starts. */
static bool is_filed(const struct dma_ledger *ledger, const struct dma_slot *slot)
{
    uint64_t start = key_of(slot->entry.buffer.gpa), key = start;

    return loam_dma_index_next(&ledger->index, &key) == slot && key == start;
}

/* The entry of the slot that the index has at key, against the entry before it, NULL if there is none. */
static enum loam_error validate_entry(const struct dma_ledger *ledger, uint64_t key, const struct dma_slot *slot,
                                      const struct loam_dma_entry *before, struct loam_diag *diag)
{
    const struct loam_dma_buffer *buffer = &slot->entry.buffer;

    if (!is_filed(ledger, slot)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT,
                         "dma ledger: \"%s\" at GPA %#" PRIx64 " is filed under GPA %#" PRIx64, slot->entry.owner,
                         buffer->gpa.value, key << LOAM_FRAME_SHIFT);
    }
    if (before != NULL && before->buffer.gpa.value + before->buffer.bytes > buffer->gpa.value) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "dma ledger: \"%s\" at GPA %#" PRIx64 " overlaps \"%s\"",
                         slot->entry.owner, buffer->gpa.value, before->owner);
    }
    if (slot_of_id(&ledger->stripes[stripe_index_of(buffer->id)], buffer->id) != slot) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "dma ledger: \"%s\" is not found by its id %" PRIu64,
                         slot->entry.owner, buffer->id);
    }
    return LOAM_OK;
}

enum loam_error loam_dma_ledger_validate(const struct dma_ledger *ledger, struct loam_diag *diag)
{
    const struct loam_dma_entry *before = NULL;
    const struct dma_slot *slot;
    uint32_t filed = 0, counted = 0;

    for (uint64_t key = 0; (slot = loam_dma_index_next(&ledger->index, &key)) != NULL; key++) {
        enum loam_error error;

        if (slot->entry.buffer.bytes == 0 || (!starts_at(slot, key) && is_filed(ledger, slot))) {
            continue; /* from before */
        }
        error = validate_entry(ledger, key, slot, before, diag);
        if (error != LOAM_OK) {
            return error;
        }
        before = &slot->entry;
        filed++;
    }
    for (uint32_t i = 0; i < DMA_LEDGER_STRIPES; i++) {
        counted += ledger->stripes[i].count;
    }
    return filed == counted ? LOAM_OK
                            : loam_fail(diag, LOAM_ERROR_CORRUPT,
                                        "dma ledger: %" PRIu32 " entries are found by GPA, and %" PRIu32 " are counted",
                                        filed, counted);
}

void loam_dma_ledger_clear(struct dma_ledger *ledger)
{
    loam_dma_index_clear(&ledger->index);
    for (uint32_t i = 0; i < DMA_LEDGER_STRIPES; i++) {
        for (unsigned segment = 0; segment < DMA_LEDGER_SEGMENTS; segment++) {
            free(ledger->stripes[i].segments[segment]);
        }
        ledger->stripes[i] = (struct dma_stripe){0};
    }
}
