// SPDX-License-Identifier: Apache-2.0
/*
 * Numbers: a set of n slots that keeps k of the installed ones leaves at least n - k of the numbers 0 to n - 1 unused
 * by those k, so that the new slots' numbers always lie below n, and n <= limit.
 */
#include "vmm/slots.h"

#include <inttypes.h>
#include <stdlib.h>

static struct kvm_userspace_memory_region region_of(const struct slots_entry *entry)
{
    return (struct kvm_userspace_memory_region){
        .slot = entry->number,
        .flags = entry->slot.read_only ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = entry->slot.start.value,
        .memory_size = entry->slot.bytes,
        .userspace_addr = (uintptr_t)entry->slot.hva,
    };
}

static bool is_same_slot(const struct loam_slot *a, const struct loam_slot *b)
{
    return a->start.value == b->start.value && a->bytes == b->bytes && a->hva == b->hva && a->read_only == b->read_only;
}

static bool install(const struct slots *slots, const struct slots_entry *entry)
{
    struct kvm_userspace_memory_region region = region_of(entry);

    return slots->set(slots->self, &region) == 0;
}

/* KVM deletes a slot that is given no bytes (KVM API, section 4.35). */
static bool uninstall(const struct slots *slots, const struct slots_entry *entry)
{
    struct kvm_userspace_memory_region region = region_of(entry);

    region.memory_size = 0;
    return slots->set(slots->self, &region) == 0;
}

static enum loam_error refused(const struct slots_entry *entry, const char *what, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_SYSTEM,
                     "KVM_SET_USER_MEMORY_REGION: slot %" PRIu32 ", %" PRIu64 " bytes at GPA 0x%" PRIx64
                     ": KVM would not %s it",
                     entry->number, entry->slot.bytes, entry->slot.start.value, what);
}

/* Copy what view shows into entries on the heap, all new. */
static enum loam_error load_wanted(const struct loam_gpa_view *view, uint32_t limit, struct slots_change *change,
                                   struct loam_diag *diag)
{
    struct loam_slot *wanted;
    uint32_t count;
    enum loam_error error;

    /* It has room for none, and tells how many. */
    if (loam_gpa_view_slots(view, NULL, 0, &count) != LOAM_OK && count > limit) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                         "memory slots: %" PRIu32 " wanted, KVM offers %" PRIu32 ": use fewer regions", count, limit);
    }
    wanted = calloc((size_t)count + 1, sizeof *wanted);
    change->wanted = calloc((size_t)count + 1, sizeof *change->wanted);
    if (wanted == NULL || change->wanted == NULL) {
        error = loam_fail(diag, LOAM_ERROR_SYSTEM, "memory slots: no memory for %" PRIu32 " of them", count);
    } else {
        error = loam_gpa_view_slots(view, wanted, count, &change->wanted_count);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < change->wanted_count; i++) {
        change->wanted[i] = (struct slots_entry){.slot = wanted[i], .is_new = true};
    }
    free(wanted);
    return error;
}

/* Two ascending lists, walked side by side: what is in both keeps its number, what is only installed is gone. */
static void match_installed(const struct slots *slots, struct slots_change *change)
{
    uint32_t w = 0;

    for (uint32_t i = 0; i < slots->count; i++) {
        const struct slots_entry *old = &slots->installed[i];

        while (w < change->wanted_count && change->wanted[w].slot.start.value < old->slot.start.value) {
            w++;
        }
        if (w < change->wanted_count && is_same_slot(&change->wanted[w].slot, &old->slot)) {
            change->wanted[w] = *old;
        } else {
            change->gone[change->gone_count++] = *old;
        }
    }
}

/* used has wanted_count members, all false. */
static void number_new(struct slots_change *change, bool *used)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < change->wanted_count; i++) {
        if (!change->wanted[i].is_new && change->wanted[i].number < change->wanted_count) {
            used[change->wanted[i].number] = true;
        }
    }
    for (uint32_t i = 0; i < change->wanted_count; i++) {
        if (change->wanted[i].is_new) {
            while (used[next]) {
                next++;
            }
            change->wanted[i].number = next++;
        }
    }
}

/* Add again what was deleted. */
static bool restore_gone(const struct slots *slots, const struct slots_change *change, uint32_t count)
{
    bool is_restored = true;

    for (uint32_t i = 0; i < count; i++) {
        is_restored = install(slots, &change->gone[i]) && is_restored;
    }
    return is_restored;
}

/* Delete again what was added, before the entry at end. */
static bool withdraw_new(const struct slots *slots, const struct slots_change *change, uint32_t end)
{
    bool is_withdrawn = true;

    for (uint32_t i = 0; i < end; i++) {
        if (change->wanted[i].is_new) {
            is_withdrawn = uninstall(slots, &change->wanted[i]) && is_withdrawn;
        }
    }
    return is_withdrawn;
}

static enum loam_error delete_gone(const struct slots *slots, const struct slots_change *change, struct loam_diag *diag)
{
    for (uint32_t i = 0; i < change->gone_count; i++) {
        if (!uninstall(slots, &change->gone[i])) {
            enum loam_error error = refused(&change->gone[i], "delete", diag);

            return restore_gone(slots, change, i) ? error : LOAM_ERROR_CORRUPT;
        }
    }
    return LOAM_OK;
}

static enum loam_error add_new(const struct slots *slots, const struct slots_change *change, struct loam_diag *diag)
{
    for (uint32_t i = 0; i < change->wanted_count; i++) {
        if (change->wanted[i].is_new && !install(slots, &change->wanted[i])) {
            enum loam_error error = refused(&change->wanted[i], "add", diag);
            bool is_restored = withdraw_new(slots, change, i) && restore_gone(slots, change, change->gone_count);

            return is_restored ? error : LOAM_ERROR_CORRUPT;
        }
    }
    return LOAM_OK;
}

int slots_set_in_vm(void *self, const struct kvm_userspace_memory_region *region)
{
    return kvm_ioctl_number(*(const int *)self, KVM_SET_USER_MEMORY_REGION, (uintptr_t)region);
}

void slots_init(struct slots *slots, slots_set_fn *set, void *self, uint32_t limit)
{
    *slots = (struct slots){.set = set, .self = self, .limit = limit};
}

void slots_destroy(struct slots *slots)
{
    free(slots->installed);
    slots->installed = NULL;
    slots->count = 0;
}

enum loam_error slots_prepare(const struct slots *slots, const struct loam_gpa_view *view, struct slots_change *change,
                              struct loam_diag *diag)
{
    bool *used = NULL;
    enum loam_error error;

    *change = (struct slots_change){0};
    error = load_wanted(view, slots->limit, change, diag);
    if (error == LOAM_OK) {
        used = calloc((size_t)change->wanted_count + 1, sizeof *used);
        change->gone = calloc((size_t)slots->count + 1, sizeof *change->gone);
        if (used == NULL || change->gone == NULL) {
            error = loam_fail(diag, LOAM_ERROR_SYSTEM, "memory slots: no memory to change them");
        }
    }
    if (error == LOAM_OK) {
        match_installed(slots, change);
        number_new(change, used);
    } else {
        slots_abandon(change);
    }
    free(used);
    return error;
}

enum loam_error slots_commit(struct slots *slots, struct slots_change *change, struct loam_diag *diag)
{
    enum loam_error error = delete_gone(slots, change, diag);

    if (error == LOAM_OK) {
        error = add_new(slots, change, diag);
    }
    if (error == LOAM_OK) {
        for (uint32_t i = 0; i < change->wanted_count; i++) {
            change->wanted[i].is_new = false;
        }
        free(slots->installed);
        slots->installed = change->wanted;
        slots->count = change->wanted_count;
        change->wanted = NULL;
    } else if (error == LOAM_ERROR_CORRUPT) {
        loam_fail(diag, error, "memory slots: KVM refused a change, and its undoing: destroy the VM");
    }
    slots_abandon(change);
    return error;
}

void slots_abandon(struct slots_change *change)
{
    free(change->gone);
    free(change->wanted);
    *change = (struct slots_change){0};
}

enum loam_error slots_update(struct slots *slots, const struct loam_gpa_view *view, struct loam_diag *diag)
{
    struct slots_change change;
    enum loam_error error = slots_prepare(slots, view, &change, diag);

    return error == LOAM_OK ? slots_commit(slots, &change, diag) : error;
}

enum loam_error slots_clear(struct slots *slots, struct loam_diag *diag)
{
    while (slots->count > 0) {
        if (!uninstall(slots, &slots->installed[slots->count - 1])) {
            return refused(&slots->installed[slots->count - 1], "delete", diag);
        }
        slots->count--;
    }
    return LOAM_OK;
}
