// SPDX-License-Identifier: Apache-2.0
#include "loam/slots.h"

#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PAGE         UINT64_C(4096)
#define SLOT_LIMIT   24u
#define FIRST_NUMBER 7u /* the lower ones are the monitor's */
#define TABLE_ROWS   (FIRST_NUMBER + SLOT_LIMIT)
#define SEED         UINT64_C(0x510751075107)
#define NEVER        UINT32_MAX

/* --- A hypervisor ---------------------------------------------------------------------------------------------- */

/*
 * A VM as far as its slots go: a table by number, with the rules of KVM (a slot is added whole, deleted, or logged or
 * not; it overlaps no other), and calls that fail on demand. What KVM would refuse, and what it would take without doing
 * anything, ends the test.
 */
struct vm {
    struct loam_slots_row table[TABLE_ROWS];
    uint32_t call_count;
    uint32_t fail_at[2]; /* these calls fail; NEVER: none */
    uint32_t fail_count; /* and so do those after the first, as many as this says in all */
    uint32_t log_count, delete_count, add_count;
    char journal[32]; /* what the first calls were: L, D or A */
};

static bool overlaps(const struct loam_slots_row *a, const struct loam_slots_row *b)
{
    return a->bytes > 0 && b->bytes > 0 && a->start.value < b->start.value + b->bytes &&
           b->start.value < a->start.value + a->bytes;
}

static bool same_slot(const struct loam_slots_row *a, const struct loam_slots_row *b)
{
    return a->start.value == b->start.value && a->hva == b->hva && a->number == b->number &&
           a->read_only == b->read_only;
}

static bool same_row(const struct loam_slots_row *a, const struct loam_slots_row *b)
{
    return a->bytes == b->bytes && (a->bytes == 0 || (same_slot(a, b) && a->log_dirty == b->log_dirty));
}

/* Whether row may be carried out now; counts what it is, and answers its letter. */
static char check_row(struct vm *vm, const struct loam_slots_row *row)
{
    const struct loam_slots_row *there = &vm->table[row->number];

    cr_assert_eq(row->start.value % PAGE + row->bytes % PAGE + (uintptr_t)row->hva % PAGE, 0);
    if (row->bytes == 0) {
        cr_assert_gt(there->bytes, 0, "slot %u deleted and not there", row->number);
        cr_assert(same_slot(there, row), "slot %u deleted as another", row->number);
        vm->delete_count++;
        return 'D';
    }
    if (there->bytes > 0) {
        cr_assert(same_slot(there, row) && there->bytes == row->bytes, "slot %u is there and another", row->number);
        cr_assert_neq(there->log_dirty, row->log_dirty, "slot %u is there already", row->number);
        vm->log_count++;
        return 'L';
    }
    for (uint32_t i = 0; i < TABLE_ROWS; i++) {
        cr_assert_not(overlaps(row, &vm->table[i]), "slots %u and %u overlap", row->number, i);
    }
    vm->add_count++;
    return 'A';
}

static int set_row(void *self, const struct loam_slots_row *row)
{
    struct vm *vm = self;
    uint32_t call = vm->call_count++;
    char letter;

    cr_assert(row->number >= FIRST_NUMBER && row->number < TABLE_ROWS, "number %u", row->number);
    letter = check_row(vm, row);
    if (call < sizeof vm->journal - 1) {
        vm->journal[call] = letter;
    }
    if ((call >= vm->fail_at[0] && call - vm->fail_at[0] < vm->fail_count) || call == vm->fail_at[1]) {
        errno = ENOMEM;
        return -1;
    }
    vm->table[row->number] = *row;
    return 0;
}

static _Alignas(64) uint8_t map_memory[1 << 20];
static struct loam_gpa_map *map;
static struct vm vm;
static struct loam_slots *slots;

static void fail_none(void)
{
    vm.fail_at[0] = vm.fail_at[1] = NEVER;
    vm.fail_count = 1;
}

static void set_up(void)
{
    const struct loam_gpa_map_config map_config = {.region_capacity = 128};
    const struct loam_slots_config config = {set_row, &vm, SLOT_LIMIT, FIRST_NUMBER};

    cr_assert_leq(loam_gpa_map_bytes(&map_config), sizeof map_memory);
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, &map_config, &map), LOAM_OK);
    vm = (struct vm){0};
    fail_none();
    cr_assert_eq(loam_slots_create(&config, &slots, NULL), LOAM_OK);
}

static void tear_down(void)
{
    prim_fake_fail_none();
    loam_slots_destroy(slots);
    cr_assert(prim_fake_clean());
}

TestSuite(slots, .init = set_up, .fini = tear_down);

/* --- The map, and what the hypervisor has of it ------------------------------------------------------------------ */

/* Host memory is never touched: each GPA has a host address of its own, and neighbours continue each other. */
static void *hva_of(uint64_t gpa)
{
    return (void *)(uintptr_t)(UINT64_C(0x100000000000) + gpa);
}

static enum loam_error insert(uint64_t gpa, uint64_t bytes, enum loam_access access)
{
    struct loam_region region = {.start = {gpa},
                                 .bytes = bytes,
                                 .hva = hva_of(gpa),
                                 .backing_offset = gpa,
                                 .type = LOAM_REGION_RAM,
                                 .access = access};

    return loam_gpa_map_insert(map, &region);
}

static enum loam_error change_log(uint64_t gpa, uint64_t bytes, bool log_dirty)
{
    struct loam_gpa_change change = {LOAM_CHANGE_LOG, {.start = {gpa}, .bytes = bytes, .log_dirty = log_dirty}};

    return loam_gpa_map_change(map, &change, 1, NULL);
}

static enum loam_error update(struct loam_diag *diag)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    enum loam_error error = loam_slots_update(slots, view, diag);

    loam_gpa_map_release(map, view);
    return error;
}

static struct loam_slots_change *prepare(void)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    struct loam_slots_change *change;

    cr_assert_eq(loam_slots_prepare(slots, view, &change, NULL), LOAM_OK);
    loam_gpa_map_release(map, view);
    return change;
}

static void check_page(const struct loam_gpa_view *view, uint64_t gpa)
{
    const struct loam_slots_row *found = NULL;
    struct loam_region region;
    bool is_memory = loam_gpa_view_find(view, (loam_gpa){gpa}, &region) == LOAM_OK && region.type != LOAM_REGION_DEVICE;

    for (uint32_t i = 0; i < TABLE_ROWS; i++) {
        if (gpa - vm.table[i].start.value < vm.table[i].bytes) {
            found = &vm.table[i];
        }
    }
    cr_assert_eq(found != NULL, is_memory, "GPA 0x%" PRIx64, gpa);
    if (is_memory) {
        cr_assert_eq((uintptr_t)found->hva + (gpa - found->start.value),
                     (uintptr_t)region.hva + (gpa - region.start.value));
        cr_assert_eq(found->read_only, region.access != LOAM_ACCESS_WRITE);
        cr_assert_eq(found->log_dirty, region.log_dirty);
    }
}

/* What the VM has against what the map says, page by page over the few pages that the tests use. */
static void check_vm(uint64_t pages)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);

    for (uint64_t page = 0; page < pages; page++) {
        check_page(view, page * PAGE);
    }
    loam_gpa_map_release(map, view);
}

/* What the module says is installed, against what the VM has. */
static void check_installed(void)
{
    struct loam_slots_row row;
    uint32_t count = 0;
    uint64_t end = 0;

    for (uint32_t i = 0; i < TABLE_ROWS; i++) {
        count += vm.table[i].bytes > 0;
    }
    cr_assert_eq(loam_slots_count(slots), count);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_eq(loam_slots_at(slots, i, &row), LOAM_OK);
        cr_assert(same_row(&row, &vm.table[row.number]), "index %u, number %u", i, row.number);
        cr_assert_geq(row.start.value, end);
        end = row.start.value + row.bytes;
    }
    cr_assert_eq(loam_slots_at(slots, count, &row), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(row.bytes, 0);
}

static bool is_vm(const struct vm *other)
{
    bool same = true;

    for (uint32_t i = 0; i < TABLE_ROWS; i++) {
        same = same && same_row(&vm.table[i], &other->table[i]);
    }
    return same;
}

/* --- What becomes of a view -------------------------------------------------------------------------------------- */

Test(slots, installs_what_a_view_shows)
{
    struct loam_diag diag = {0};

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(6 * PAGE, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(update(&diag), LOAM_OK, "%s", diag.text);
    check_vm(8);
    check_installed();
    cr_assert_eq(loam_slots_count(slots), 2);
}

Test(slots, leaves_alone_what_stays)
{
    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(6 * PAGE, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(vm.call_count, 2);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(vm.call_count, 2, "an equal view is no change");
    cr_assert_eq(insert(8 * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(vm.call_count, 3, "one more region is one more call");
    check_vm(10);
}

Test(slots, deletes_before_it_adds_and_uses_numbers_again)
{
    struct loam_slots_row row;

    cr_assert_eq(insert(0, 8 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){2 * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    check_vm(10);
    check_installed();
    cr_assert_eq(loam_slots_count(slots), 3);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(loam_slots_at(slots, i, &row), LOAM_OK);
        cr_assert_lt(row.number, FIRST_NUMBER + 3);
    }
}

Test(slots, takes_the_lowest_numbers_from_the_first_on)
{
    struct loam_slots_row row;

    for (uint64_t i = 0; i < SLOT_LIMIT; i++) {
        cr_assert_eq(insert(2 * i * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    }
    cr_assert_eq(update(NULL), LOAM_OK);
    for (uint32_t i = 0; i < SLOT_LIMIT; i++) {
        cr_assert_eq(loam_slots_at(slots, i, &row), LOAM_OK);
        cr_assert_eq(row.number, FIRST_NUMBER + i);
    }
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){6 * PAGE}, PAGE), LOAM_OK);
    cr_assert_eq(insert(64 * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_slots_at(slots, SLOT_LIMIT - 1, &row), LOAM_OK);
    cr_assert_eq(row.number, FIRST_NUMBER + 3, "the one that was given back");
    check_installed();
}

Test(slots, shows_no_slot_where_a_device_is)
{
    struct loam_region device = {.start = {4 * PAGE}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &device), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    check_vm(8);
    cr_assert_eq(loam_slots_count(slots), 1);
}

Test(slots, refuses_more_than_there_are)
{
    struct loam_diag diag = {0};

    for (uint64_t i = 0; i <= SLOT_LIMIT; i++) {
        if (i == SLOT_LIMIT) {
            cr_assert_eq(update(&diag), LOAM_OK, "%s", diag.text);
        }
        cr_assert_eq(insert(2 * i * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    }
    cr_assert_eq(update(&diag), LOAM_ERROR_EXHAUSTED);
    cr_assert_str_eq(diag.text, "memory slots: 25 wanted, 24 may be used: use fewer regions");
    cr_assert_eq(loam_slots_count(slots), SLOT_LIMIT);
    check_installed();
}

/* The same guest addresses on other host memory are another slot: KVM would go on with the old one. */
Test(slots, replaces_a_slot_whose_host_memory_moved)
{
    struct loam_region moved = {
        .bytes = 4 * PAGE, .hva = hva_of(64 * PAGE), .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, 4 * PAGE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &moved), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    check_vm(8);
    check_installed();
}

/* --- Dirty logging ----------------------------------------------------------------------------------------------- */

Test(slots, switches_logging_in_place)
{
    struct loam_slots_row before, after;

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(8 * PAGE, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_slots_at(slots, 1, &before), LOAM_OK);
    for (int logged = 1; logged >= 0; logged--) {
        vm.log_count = vm.call_count = 0;
        cr_assert_eq(change_log(8 * PAGE, 4 * PAGE, logged == 1), LOAM_OK);
        cr_assert_eq(update(NULL), LOAM_OK);
        cr_assert_eq(vm.call_count, 1, "one call, and no other slot is touched");
        cr_assert_eq(vm.log_count, 1);
        cr_assert_eq(loam_slots_at(slots, 1, &after), LOAM_OK);
        cr_assert(same_slot(&before, &after) && before.bytes == after.bytes);
        cr_assert_eq(after.log_dirty, logged == 1);
        check_vm(16);
        check_installed();
    }
}

Test(slots, logging_of_a_part_makes_slots_of_it)
{
    cr_assert_eq(insert(0, 8 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(change_log(2 * PAGE, PAGE, true), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_slots_count(slots), 3);
    check_vm(8);
    check_installed();
    cr_assert_eq(change_log(0, 8 * PAGE, true), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_slots_count(slots), 1, "and one again");
    check_vm(8);
    check_installed();
}

/* What becomes read-only is deleted and added, whether it is logged or not: KVM refuses it in place. */
Test(slots, other_access_is_another_slot)
{
    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(change_log(0, 4 * PAGE, true), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){0}, 4 * PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(vm.delete_count, 1);
    cr_assert_eq(vm.log_count, 0);
    check_vm(4);
    check_installed();
}

/* --- What is refused --------------------------------------------------------------------------------------------- */

Test(slots, create_checks_its_config)
{
    struct loam_slots *made = slots;
    struct loam_diag diag = {0};
    const struct loam_slots_config bad[] = {
        {NULL, &vm, 1, 0}, {set_row, &vm, 0, 0}, {set_row, &vm, 2, UINT32_MAX - 1}, {set_row, &vm, UINT32_MAX, 1}};
    const struct loam_slots_config most = {set_row, &vm, UINT32_MAX - 1, 1};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(loam_slots_create(&bad[i], &made, &diag), LOAM_ERROR_INVALID, "config %zu", i);
        cr_expect_null(made);
        cr_expect_neq(diag.text[0], 0);
    }
    cr_expect_eq(loam_slots_create(NULL, &made, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_create(&most, NULL, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_slots_create(&most, &made, NULL), LOAM_OK);
    loam_slots_destroy(made);
    prim_fake_fail(PRIM_HEAP_ALLOC, 1, 1, ENOMEM);
    cr_expect_eq(loam_slots_create(&most, &made, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_null(made);
    cr_expect_eq(diag.system_errno, ENOMEM);
}

Test(slots, null_is_refused)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    struct loam_slots_change *change = prepare(), *none = NULL;
    struct loam_diag diag = {0};
    struct loam_slots_row row;

    cr_expect_eq(loam_slots_prepare(slots, view, NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_prepare(NULL, view, &none, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_prepare(slots, NULL, &none, NULL), LOAM_ERROR_INVALID);
    cr_expect_null(none);
    cr_expect_eq(loam_slots_commit(slots, NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_commit(slots, &none, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_commit(NULL, &change, NULL), LOAM_ERROR_INVALID);
    cr_expect_null(change, "gone, whatever came of it");
    cr_expect_eq(loam_slots_update(NULL, view, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_update(slots, NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_clear(NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_count(NULL), 0);
    cr_expect_eq(loam_slots_at(NULL, 0, &row), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_slots_at(slots, 0, NULL), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "memory slots: NULL given where an object is wanted");
    loam_slots_abandon(NULL);
    loam_slots_abandon(&none);
    loam_slots_destroy(NULL);
    loam_gpa_map_release(map, view);
    cr_expect_eq(vm.call_count, 0);
}

Test(slots, a_change_is_for_what_is_installed_when_it_is_prepared)
{
    const struct loam_slots_config config = {set_row, &vm, SLOT_LIMIT, FIRST_NUMBER};
    struct loam_slots_change *change, *second;
    struct loam_slots *other;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_slots_create(&config, &other, NULL), LOAM_OK);
    cr_assert_eq(insert(0, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    change = prepare();
    cr_expect_eq(loam_slots_commit(other, &change, NULL), LOAM_ERROR_INVALID);
    cr_expect_null(change);
    change = prepare();
    second = prepare();
    cr_expect_eq(loam_slots_commit(slots, &second, NULL), LOAM_OK);
    cr_expect_eq(loam_slots_commit(slots, &change, &diag), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, "prepare it again"), "%s", diag.text);
    change = prepare();
    cr_expect_eq(loam_slots_clear(slots, NULL), LOAM_OK);
    cr_expect_eq(loam_slots_commit(slots, &change, NULL), LOAM_ERROR_INVALID, "what it keeps is gone");
    check_installed();
    loam_slots_destroy(other);
}

Test(slots, without_memory_to_prepare_with_nothing_changes)
{
    const uint32_t before = prim_fake_live().heap_count + 1; /* and what will be installed */
    uint32_t allocation = 1;

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(insert(6 * PAGE, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    for (;; allocation++) {
        struct loam_diag diag = {0};
        enum loam_error error;

        prim_fake_fail(PRIM_HEAP_ALLOC, allocation, 1, ENOMEM);
        error = update(&diag);
        cr_expect_eq(prim_fake_live().heap_count, before, "allocation %" PRIu32, allocation);
        check_installed();
        if (prim_fake_failed_count() == 0) {
            cr_expect_eq(error, LOAM_OK);
            break;
        }
        cr_expect_eq(error, LOAM_ERROR_SYSTEM, "allocation %" PRIu32, allocation);
        cr_expect_eq(diag.system_errno, ENOMEM);
        cr_expect_not_null(strstr(diag.text, "heap wanted for memory slots"), "%s", diag.text);
        cr_expect_eq(vm.call_count, 1, "the hypervisor is not asked");
    }
    cr_expect_eq(allocation, 6, "five allocations were refused");
    check_vm(10);
}

Test(slots, commits_without_memory)
{
    struct loam_slots_change *change;

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    change = prepare();
    prim_fake_fail(PRIM_HEAP_ALLOC, 1, UINT32_MAX, ENOMEM);
    cr_expect_eq(loam_slots_commit(slots, &change, NULL), LOAM_OK);
    cr_expect_null(change);
    cr_expect_eq(prim_fake_failed_count(), 0);
    check_vm(8);
}

Test(slots, abandons_without_a_call)
{
    struct loam_slots_change *change;

    cr_assert_eq(insert(0, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    change = prepare();
    cr_assert_not_null(change);
    loam_slots_abandon(&change);
    cr_assert_null(change);
    cr_assert_eq(vm.call_count, 0);
    cr_assert_eq(loam_slots_count(slots), 0);
}

Test(slots, clears)
{
    struct loam_diag diag = {0};

    cr_assert_eq(insert(0, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(2 * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    vm.fail_at[0] = vm.call_count + 1;
    cr_assert_eq(loam_slots_clear(slots, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(diag.system_errno, ENOMEM);
    cr_assert_not_null(strstr(diag.text, "memory slot 7, 4096 bytes at GPA 0x0: the hypervisor would not delete it: "),
                       "%s", diag.text);
    cr_assert_eq(loam_slots_count(slots), 1);
    check_installed();
    cr_assert_eq(loam_slots_clear(slots, &diag), LOAM_OK);
    cr_assert_eq(loam_slots_count(slots), 0);
    check_installed();
    cr_assert_eq(update(NULL), LOAM_OK);
    check_vm(4);
}

/* --- The way back ------------------------------------------------------------------------------------------------ */

#define PASSAGE_CALLS 7u

/* From four slots to five: two logged or not, two deleted, three added, where the deleted ones were. */
static void start_passage(void)
{
    tear_down();
    set_up();
    cr_assert_eq(insert(0, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(2 * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(4 * PAGE, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(10 * PAGE, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(change_log(2 * PAGE, PAGE, true), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(change_log(0, PAGE, true), LOAM_OK);
    cr_assert_eq(change_log(2 * PAGE, PAGE, false), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){6 * PAGE}, 2 * PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){10 * PAGE}, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    vm.call_count = 0;
    memset(vm.journal, 0, sizeof vm.journal);
}

Test(slots, logging_goes_first_then_deletions_then_additions)
{
    start_passage();
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_expect_str_eq(vm.journal, "LLDDAAA");
    check_vm(16);
    check_installed();
}

Test(slots, goes_back_from_every_call)
{
    static const char *const reasons[PASSAGE_CALLS] = {
        "memory slot 7, 4096 bytes at GPA 0x0: the hypervisor would not change its dirty logging",
        "memory slot 8, 4096 bytes at GPA 0x2000: the hypervisor would not change its dirty logging",
        "memory slot 9, 16384 bytes at GPA 0x4000: the hypervisor would not delete it",
        "memory slot 10, 4096 bytes at GPA 0xa000: the hypervisor would not delete it",
        "memory slot 9, 8192 bytes at GPA 0x4000: the hypervisor would not add it",
        "memory slot 10, 8192 bytes at GPA 0x6000: the hypervisor would not add it",
        "memory slot 11, 4096 bytes at GPA 0xa000: the hypervisor would not add it",
    };

    for (uint32_t call = 0; call < PASSAGE_CALLS; call++) {
        struct loam_diag diag = {0};
        struct vm before;

        start_passage();
        before = vm;
        vm.fail_at[0] = call;
        cr_assert_eq(update(&diag), LOAM_ERROR_SYSTEM, "call %" PRIu32, call);
        cr_expect_eq(diag.system_errno, ENOMEM);
        cr_expect_eq(strncmp(diag.text, reasons[call], strlen(reasons[call])), 0, "%s", diag.text);
        cr_expect_eq(vm.call_count, 2 * call + 1, "each call before it is undone, by one");
        cr_assert(is_vm(&before), "call %" PRIu32, call);
        check_installed();
        fail_none();
        cr_assert_eq(update(NULL), LOAM_OK, "and it may be tried again");
        check_vm(16);
        check_installed();
    }
    start_passage();
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_expect_eq(vm.call_count, PASSAGE_CALLS, "a call is not tried above");
}

/* Any step back that is refused is enough: the next is not asked, though it would be taken. */
Test(slots, says_when_the_way_back_is_refused)
{
    for (uint32_t call = 1; call < PASSAGE_CALLS; call++) {
        for (uint32_t back = call + 1; back <= 2 * call; back++) {
            struct loam_diag diag = {0};

            start_passage();
            vm.fail_at[0] = call;
            vm.fail_at[1] = back;
            cr_assert_eq(update(&diag), LOAM_ERROR_CORRUPT, "calls %" PRIu32 " and %" PRIu32, call, back);
            cr_expect_eq(diag.error, LOAM_ERROR_CORRUPT);
            cr_expect_not_null(strstr(diag.text, "destroy the VM"), "%s", diag.text);
            cr_expect_eq(vm.call_count, back + 1);
        }
    }
}

Test(slots, once_lost_nothing_is_asked_any_more)
{
    const struct loam_gpa_view *view;
    struct loam_slots_change *change, *second;
    struct loam_diag diag = {0};

    start_passage();
    change = prepare();
    second = prepare();
    vm.fail_at[0] = 1;
    vm.fail_count = 2;
    cr_assert_eq(loam_slots_commit(slots, &change, NULL), LOAM_ERROR_CORRUPT);
    cr_assert_null(change);
    fail_none();
    view = loam_gpa_map_acquire(map);
    cr_expect_eq(loam_slots_prepare(slots, view, &change, &diag), LOAM_ERROR_CORRUPT);
    cr_expect_null(change);
    cr_expect_not_null(strstr(diag.text, "destroy the VM"), "%s", diag.text);
    cr_expect_eq(loam_slots_commit(slots, &second, NULL), LOAM_ERROR_CORRUPT);
    cr_expect_null(second);
    cr_expect_eq(loam_slots_update(slots, view, NULL), LOAM_ERROR_CORRUPT);
    cr_expect_eq(loam_slots_clear(slots, NULL), LOAM_ERROR_CORRUPT);
    cr_expect_eq(loam_slots_count(slots), 4, "as many as there were");
    cr_expect_eq(vm.call_count, 3);
    loam_gpa_map_release(map, view);
}

/* --- At random --------------------------------------------------------------------------------------------------- */

/* xorshift64*: Vigna, 2016. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* A page or a few of the first 32: put there, taken away, protected or logged; refusals do not matter here. */
static void change_map(uint64_t *random)
{
    uint64_t gpa = next_random(random) % 32 * PAGE, bytes = (1 + next_random(random) % 4) * PAGE;
    enum loam_access access = next_random(random) % 3 == 0 ? LOAM_ACCESS_READ : LOAM_ACCESS_WRITE;
    enum loam_error error;

    switch (next_random(random) % 4) {
    case 0:
        error = insert(gpa, bytes, access);
        break;
    case 1:
        error = loam_gpa_map_remove(map, (loam_gpa){gpa}, bytes);
        break;
    case 2:
        error = change_log(gpa, bytes, next_random(random) % 2 == 0);
        break;
    default:
        error = loam_gpa_map_protect(map, (loam_gpa){gpa}, bytes, access);
        break;
    }
    cr_assert(error == LOAM_OK || error == LOAM_ERROR_OVERLAP || error == LOAM_ERROR_NOT_FOUND);
}

/* Now and then a whole slot is logged, or not any more. */
static void change_logging(uint64_t *random)
{
    uint32_t count = loam_slots_count(slots);
    struct loam_slots_row row;

    if (count > 0 && next_random(random) % 4 == 0) {
        cr_assert_eq(loam_slots_at(slots, (uint32_t)(next_random(random) % count), &row), LOAM_OK);
        (void)!change_log(row.start.value, row.bytes, !row.log_dirty);
    }
}

Test(slots, follows_any_change_of_the_map)
{
    uint64_t random = SEED;

    for (uint32_t step = 0; step < 20000; step++) {
        struct loam_diag diag = {0};
        enum loam_error error;

        change_map(&random);
        change_logging(&random);
        error = update(&diag);
        cr_assert(error == LOAM_OK || error == LOAM_ERROR_EXHAUSTED, "seed 0x%" PRIx64 " step %" PRIu32 ": %s", SEED,
                  step, diag.text);
        check_installed();
        if (error == LOAM_OK) {
            check_vm(40);
        }
    }
    cr_assert_gt(vm.log_count, 1000);
    cr_assert_gt(vm.delete_count, 1000);
}

Test(slots, restores_the_old_set_whichever_call_fails)
{
    uint64_t random = SEED + 1;
    uint32_t failure_count = 0;

    for (uint32_t step = 0; step < 5000; step++) {
        struct loam_diag diag = {0};
        enum loam_error error;
        struct vm before;

        for (uint32_t i = 0; i < 3; i++) {
            change_map(&random);
            change_logging(&random);
        }
        before = vm;
        vm.fail_at[0] = vm.call_count + (uint32_t)(next_random(&random) % 6);
        error = update(&diag);
        fail_none();
        if (error == LOAM_ERROR_SYSTEM) {
            cr_assert_not_null(strstr(diag.text, "the hypervisor would not "), "%s", diag.text);
            failure_count++;
        }
        if (error != LOAM_OK) {
            cr_assert_neq(error, LOAM_ERROR_CORRUPT, "seed 0x%" PRIx64 " step %" PRIu32, SEED + 1, step);
            cr_assert(is_vm(&before), "seed 0x%" PRIx64 " step %" PRIu32, SEED + 1, step);
            check_installed();
        }
        if (update(NULL) == LOAM_OK) {
            check_vm(40);
        }
    }
    cr_assert_gt(failure_count, 500, "only %" PRIu32 " failures", failure_count);
}
