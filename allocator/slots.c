// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants of struct loam_slots:
 *   installed ascends by start, and is disjoint          count <= config.limit
 *   first_number <= number < first_number + limit        no two numbers are the same
 *
 * Numbers: a set of n slots that keeps k of the installed ones leaves at least n - k of the first n numbers unused by
 * those k, so that the new slots' numbers always lie among the first n, and n <= limit.
 *
 * The way back: each step has the row that undoes it, and steps are undone in reverse order. So the hypervisor has at any
 * moment what it had on the way there, which it has taken before.
 */
#include "loam/slots.h"

#include "allocator/host/prim.h"

#include <inttypes.h>

/* No slot's: first_number + limit <= UINT32_MAX. */
#define NUMBER_NONE UINT32_MAX

struct loam_slots {
    struct loam_slots_config config;
    struct loam_slots_row *installed; /* on the heap; NULL: none was yet */
    uint32_t count;
    bool is_lost;      /* the hypervisor may have anything */
    uint64_t revision; /* counts what was installed or deleted */
    uint64_t shown;    /* generation of the newest view that was committed */
};

/* Either has bytes 0, or both are the same slot but for log_dirty. */
struct step {
    struct loam_slots_row go;
    struct loam_slots_row back;
};

/* wanted_count <= limit; step_count <= slots->count + wanted_count */
struct loam_slots_change {
    const struct loam_slots *slots; /* only ever compared */
    uint64_t revision;
    uint64_t generation;           /* of the view that it leads to */
    struct loam_slots_row *wanted; /* on the heap; ascending */
    struct step *steps;            /* on the heap */
    uint32_t wanted_count;
    uint32_t step_count;
};

/* --- Rows and steps -------------------------------------------------------------------------------------------- */

static struct loam_slots_row row_of(const struct loam_slot *slot)
{
    return (struct loam_slots_row){
        slot->start, slot->bytes, slot->hva, NUMBER_NONE, slot->read_only, slot->log_dirty,
    };
}

static struct loam_slots_row deletion_of(struct loam_slots_row row)
{
    row.bytes = 0;
    return row;
}

/* Whether one becomes the other without being deleted: KVM changes flags in place, but not that a slot is read-only. */
static bool is_same_slot(const struct loam_slots_row *a, const struct loam_slots_row *b)
{
    return a->start.value == b->start.value && a->bytes == b->bytes && a->hva == b->hva && a->read_only == b->read_only;
}

static void add_step(struct loam_slots_change *change, struct loam_slots_row go, struct loam_slots_row back)
{
    change->steps[change->step_count++] = (struct step){go, back};
}

static bool set_row(const struct loam_slots *slots, const struct loam_slots_row *row)
{
    return slots->config.set(slots->config.self, row) == 0;
}

static const char *name_of(const struct step *step)
{
    if (step->go.bytes == 0) {
        return "delete it";
    }
    return step->back.bytes == 0 ? "add it" : "change its dirty logging";
}

static enum loam_error refused(const struct step *step, struct loam_diag *diag)
{
    const struct loam_slots_row *row = step->go.bytes > 0 ? &step->go : &step->back;

    return loam_fail(diag, LOAM_ERROR_SYSTEM,
                     "memory slot %" PRIu32 ", %" PRIu64 " bytes at GPA 0x%" PRIx64 ": the hypervisor would not %s",
                     row->number, row->bytes, row->start.value, name_of(step));
}

static enum loam_error refuse_null(struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_INVALID, "memory slots: NULL given where an object is wanted");
}

static enum loam_error refuse_lost(struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_CORRUPT,
                     "memory slots: the hypervisor refused a change, and its undoing: destroy the VM");
}

/* --- Preparing ------------------------------------------------------------------------------------------------- */

/* Room for count elements, zeroed; of one where there are none. NULL: no memory, and diag says so. */
static void *allocate(size_t count, size_t element_bytes, struct loam_diag *diag)
{
    size_t bytes = (count > 0 ? count : 1) * element_bytes;
    void *memory;

    if (!loam_prim_heap_alloc(bytes, &memory)) {
        loam_fail(diag, LOAM_ERROR_SYSTEM, "%zu bytes of heap wanted for memory slots", bytes);
    }
    return memory;
}

static enum loam_error count_wanted(const struct loam_slots *slots, const struct loam_gpa_view *view, uint32_t *count,
                                    struct loam_diag *diag)
{
    /* It has room for none, and tells how many. */
    if (loam_gpa_view_slots(view, NULL, 0, count) != LOAM_OK && *count > slots->config.limit) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                         "memory slots: %" PRIu32 " wanted, %" PRIu32 " may be used: use fewer regions", *count,
                         slots->config.limit);
    }
    return LOAM_OK;
}

/* Copy what view shows into rows without a number. */
static enum loam_error load_wanted(const struct loam_gpa_view *view, struct loam_slots_change *change,
                                   struct loam_diag *diag)
{
    struct loam_slot *slots = allocate(change->wanted_count, sizeof *slots, diag);
    enum loam_error error = LOAM_ERROR_SYSTEM;

    if (slots != NULL) {
        change->wanted = allocate(change->wanted_count, sizeof *change->wanted, diag);
    }
    if (change->wanted != NULL) {
        error = loam_gpa_view_slots(view, slots, change->wanted_count, &change->wanted_count);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < change->wanted_count; i++) {
        change->wanted[i] = row_of(&slots[i]);
    }
    loam_prim_heap_free(slots);
    return error;
}

/* The wanted row that is the same slot as old, from the one at *from on, which old's start moves forward; NULL: none. */
static struct loam_slots_row *find_wanted(const struct loam_slots_change *change, const struct loam_slots_row *old,
                                          uint32_t *from)
{
    while (*from < change->wanted_count && change->wanted[*from].start.value < old->start.value) {
        ++*from;
    }
    return *from < change->wanted_count && is_same_slot(&change->wanted[*from], old) ? &change->wanted[*from] : NULL;
}

/* What stays keeps its number. Its logging is first: that may want memory, and the guest lacks nothing yet. */
static void keep_same(const struct loam_slots *slots, struct loam_slots_change *change)
{
    uint32_t from = 0;

    for (uint32_t i = 0; i < slots->count; i++) {
        const struct loam_slots_row *old = &slots->installed[i];
        struct loam_slots_row *kept = find_wanted(change, old, &from);

        if (kept != NULL) {
            kept->number = old->number;
            if (kept->log_dirty != old->log_dirty) {
                add_step(change, *kept, *old);
            }
        }
    }
}

static void delete_gone(const struct loam_slots *slots, struct loam_slots_change *change)
{
    uint32_t from = 0;

    for (uint32_t i = 0; i < slots->count; i++) {
        const struct loam_slots_row *old = &slots->installed[i];

        if (find_wanted(change, old, &from) == NULL) {
            add_step(change, deletion_of(*old), *old);
        }
    }
}

/* used has wanted_count members, all false. */
static void add_new(struct loam_slots_change *change, uint32_t first_number, bool *used)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < change->wanted_count; i++) {
        if (change->wanted[i].number != NUMBER_NONE && change->wanted[i].number - first_number < change->wanted_count) {
            used[change->wanted[i].number - first_number] = true;
        }
    }
    for (uint32_t i = 0; i < change->wanted_count; i++) {
        struct loam_slots_row *row = &change->wanted[i];

        if (row->number == NUMBER_NONE) {
            while (used[next]) {
                next++;
            }
            row->number = first_number + next++;
            add_step(change, *row, deletion_of(*row));
        }
    }
}

static enum loam_error plan_steps(const struct loam_slots *slots, struct loam_slots_change *change,
                                  struct loam_diag *diag)
{
    bool *used = allocate(change->wanted_count, sizeof *used, diag);

    if (used == NULL) {
        return LOAM_ERROR_SYSTEM;
    }
    change->steps = allocate((size_t)slots->count + change->wanted_count, sizeof *change->steps, diag);
    if (change->steps != NULL) {
        keep_same(slots, change);
        delete_gone(slots, change);
        add_new(change, slots->config.first_number, used);
    }
    loam_prim_heap_free(used);
    return change->steps != NULL ? LOAM_OK : LOAM_ERROR_SYSTEM;
}

static enum loam_error prepare(const struct loam_slots *slots, const struct loam_gpa_view *view,
                               struct loam_slots_change *change, struct loam_diag *diag)
{
    enum loam_error error = load_wanted(view, change, diag);

    return error == LOAM_OK ? plan_steps(slots, change, diag) : error;
}

/* --- Committing ------------------------------------------------------------------------------------------------ */

static bool go_back(const struct loam_slots *slots, const struct loam_slots_change *change, uint32_t done)
{
    while (done > 0) {
        /* What is refused may be in the way of what follows: no more is asked. */
        if (!set_row(slots, &change->steps[--done].back)) {
            return false;
        }
    }
    return true;
}

static enum loam_error carry_out(struct loam_slots *slots, const struct loam_slots_change *change,
                                 struct loam_diag *diag)
{
    for (uint32_t i = 0; i < change->step_count; i++) {
        if (!set_row(slots, &change->steps[i].go)) {
            enum loam_error error = refused(&change->steps[i], diag);

            slots->is_lost = !go_back(slots, change, i);
            return slots->is_lost ? refuse_lost(diag) : error;
        }
    }
    return LOAM_OK;
}

static enum loam_error commit(struct loam_slots *slots, struct loam_slots_change *change, struct loam_diag *diag)
{
    enum loam_error error;

    if (slots->is_lost) {
        return refuse_lost(diag);
    }
    if (change->slots != slots || change->revision != slots->revision) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "memory slots: a change that was prepared for others than are installed: prepare it again");
    }
    error = carry_out(slots, change, diag);
    if (error == LOAM_OK) {
        loam_prim_heap_free(slots->installed);
        slots->installed = change->wanted;
        slots->count = change->wanted_count;
        slots->revision++;
        slots->shown = change->generation;
        change->wanted = NULL;
    }
    return error;
}

/* --- Public ---------------------------------------------------------------------------------------------------- */

enum loam_error loam_slots_create(const struct loam_slots_config *config, struct loam_slots **slots,
                                  struct loam_diag *diag)
{
    if (slots == NULL) {
        return refuse_null(diag);
    }
    *slots = NULL;
    if (config == NULL || config->set == NULL) {
        return refuse_null(diag);
    }
    if (config->limit == 0 || config->limit > UINT32_MAX - config->first_number) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "memory slots: %" PRIu32 " wanted from number %" PRIu32
                         " on: at least 1, with numbers below %" PRIu32,
                         config->limit, config->first_number, NUMBER_NONE);
    }
    *slots = allocate(1, sizeof **slots, diag);
    if (*slots == NULL) {
        return LOAM_ERROR_SYSTEM;
    }
    (*slots)->config = *config;
    return LOAM_OK;
}

void loam_slots_destroy(struct loam_slots *slots)
{
    if (slots != NULL) {
        loam_prim_heap_free(slots->installed);
        loam_prim_heap_free(slots);
    }
}

enum loam_error loam_slots_prepare(const struct loam_slots *slots, const struct loam_gpa_view *view,
                                   struct loam_slots_change **change, struct loam_diag *diag)
{
    enum loam_error error;
    uint32_t count;

    if (change == NULL) {
        return refuse_null(diag);
    }
    *change = NULL;
    if (slots == NULL || view == NULL) {
        return refuse_null(diag);
    }
    if (slots->is_lost) {
        return refuse_lost(diag);
    }
    if (loam_gpa_view_generation(view) < slots->shown) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "memory slots: a view of generation %" PRIu64 " to be shown, and %" PRIu64
                         " was: acquire a newer one",
                         loam_gpa_view_generation(view), slots->shown);
    }
    error = count_wanted(slots, view, &count, diag);
    if (error != LOAM_OK) {
        return error;
    }
    *change = allocate(1, sizeof **change, diag);
    if (*change == NULL) {
        return LOAM_ERROR_SYSTEM;
    }
    **change = (struct loam_slots_change){.slots = slots,
                                          .revision = slots->revision,
                                          .generation = loam_gpa_view_generation(view),
                                          .wanted_count = count};
    error = prepare(slots, view, *change, diag);
    if (error != LOAM_OK) {
        loam_slots_abandon(change);
    }
    return error;
}

enum loam_error loam_slots_commit(struct loam_slots *slots, struct loam_slots_change **change, struct loam_diag *diag)
{
    enum loam_error error;

    if (slots == NULL || change == NULL || *change == NULL) {
        error = refuse_null(diag);
    } else {
        error = commit(slots, *change, diag);
    }
    loam_slots_abandon(change);
    return error;
}

void loam_slots_abandon(struct loam_slots_change **change)
{
    if (change != NULL && *change != NULL) {
        loam_prim_heap_free((*change)->wanted);
        loam_prim_heap_free((*change)->steps);
        loam_prim_heap_free(*change);
        *change = NULL;
    }
}

enum loam_error loam_slots_update(struct loam_slots *slots, const struct loam_gpa_view *view, struct loam_diag *diag)
{
    struct loam_slots_change *change;
    enum loam_error error = loam_slots_prepare(slots, view, &change, diag);

    return error == LOAM_OK ? loam_slots_commit(slots, &change, diag) : error;
}

enum loam_error loam_slots_clear(struct loam_slots *slots, struct loam_diag *diag)
{
    if (slots == NULL) {
        return refuse_null(diag);
    }
    if (slots->is_lost) {
        return refuse_lost(diag);
    }
    while (slots->count > 0) {
        struct loam_slots_row last = slots->installed[slots->count - 1];
        struct step step = {deletion_of(last), last};

        if (!set_row(slots, &step.go)) {
            return refused(&step, diag);
        }
        slots->count--;
        slots->revision++;
    }
    slots->shown = 0;
    return LOAM_OK;
}

uint32_t loam_slots_count(const struct loam_slots *slots)
{
    return slots != NULL ? slots->count : 0;
}

enum loam_error loam_slots_at(const struct loam_slots *slots, uint32_t index, struct loam_slots_row *row)
{
    if (row == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *row = (struct loam_slots_row){0};
    if (slots == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (index >= slots->count) {
        return LOAM_ERROR_NOT_FOUND;
    }
    *row = slots->installed[index];
    return LOAM_OK;
}
