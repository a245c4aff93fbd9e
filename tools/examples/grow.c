// SPDX-License-Identifier: Apache-2.0
/* RAM in two parts, more of it while the guest runs, the rows that a peer maps, and less of it again. */
#include "loam/memory.h"

#include <inttypes.h>
#include <stdio.h>

/* In place of loam_kvm_set_slot (loam/kvm.h), which hands the row to KVM. */
static int say_slot(void *self, const struct loam_slots_row *row)
{
    (void)self;
    printf("slot %" PRIu32 ": %" PRIu64 " MiB at GPA %#" PRIx64 "\n", row->number, row->bytes / LOAM_MIB,
           row->start.value);
    return 0;
}

int main(void)
{
    struct loam_memory_request request = {
        .part_count = 2,
        .parts = {{.bytes = 32 * LOAM_MIB, .pages = LOAM_PAGES_AUTO}, {.bytes = 8 * LOAM_MIB, .pages = LOAM_PAGES_4K}}};
    struct loam_slots_config config = {say_slot, NULL, 16, 0};
    struct loam_plug_request more = {.backing = {.bytes = 16 * LOAM_MIB, .pages = LOAM_PAGES_4K}};
    struct loam_share shares[8];
    struct loam_backing_info plugged;
    struct loam_memory *memory = NULL;
    struct loam_slots *slots = NULL;
    struct loam_diag diag = {0};
    struct loam_plan plan;
    uint32_t share_count = 0;
    enum loam_error error = loam_plan_make(&request, &plan, &diag);

    if (error == LOAM_OK && (error = loam_memory_create(&plan, &memory, &diag)) == LOAM_OK &&
        (error = loam_slots_create(&config, &slots, &diag)) == LOAM_OK &&
        (error = loam_memory_update_slots(memory, slots, &diag)) == LOAM_OK) {
        more.slots = slots;
        error = loam_memory_plug(memory, &more, &plugged, &diag);
    }
    if (error == LOAM_OK && (error = loam_memory_shares(memory, shares, 8, &share_count)) == LOAM_OK) {
        printf("%" PRIu32 " rows for a peer\n", share_count);
        error = loam_memory_unplug(memory, plugged.gpa, slots, &diag);
    }
    if (error != LOAM_OK) {
        fprintf(stderr, "grow: %s\n", diag.text);
    }
    loam_slots_destroy(slots);
    loam_memory_destroy(memory);
    return error == LOAM_OK ? 0 : 1;
}
