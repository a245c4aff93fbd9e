// SPDX-License-Identifier: Apache-2.0
#include "vmm/slots.h"

#include "tests/support/heap.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE       UINT64_C(4096)
#define SLOT_LIMIT 24u
#define SEED       UINT64_C(0x510751075107)

/*
 * A VM as far as its slots go: a table by number, with the rules of KVM (a slot is added whole or deleted, and overlaps
 * no other), and a call that fails on demand.
 */
struct fake_vm {
    struct kvm_userspace_memory_region table[SLOT_LIMIT];
    uint32_t call_count;
    uint32_t fail_at;    /* this call fails; UINT32_MAX: none */
    uint32_t fail_count; /* and so do those after it, as many as this says in all */
};

static bool overlaps(const struct kvm_userspace_memory_region *a, const struct kvm_userspace_memory_region *b)
{
    return a->memory_size > 0 && b->memory_size > 0 && a->guest_phys_addr < b->guest_phys_addr + b->memory_size &&
           b->guest_phys_addr < a->guest_phys_addr + a->memory_size;
}

static int fake_set(void *self, const struct kvm_userspace_memory_region *region)
{
    struct fake_vm *vm = self;
    uint32_t call = vm->call_count++;

    if (call >= vm->fail_at && call - vm->fail_at < vm->fail_count) {
        errno = ENOMEM;
        return -1;
    }
    cr_assert_lt(region->slot, SLOT_LIMIT);
    cr_assert_eq(region->flags & ~(uint32_t)KVM_MEM_READONLY, 0);
    cr_assert_eq(region->guest_phys_addr % PAGE + region->memory_size % PAGE + region->userspace_addr % PAGE, 0);
    if (region->memory_size == 0) {
        cr_assert_gt(vm->table[region->slot].memory_size, 0, "slot %u deleted and not there", region->slot);
    } else {
        cr_assert_eq(vm->table[region->slot].memory_size, 0, "slot %u added and there already", region->slot);
    }
    for (uint32_t i = 0; i < SLOT_LIMIT; i++) {
        cr_assert_not(overlaps(region, &vm->table[i]), "slots %u and %u overlap", region->slot, i);
    }
    vm->table[region->slot] = *region;
    return 0;
}

static _Alignas(64) uint8_t map_memory[1 << 20];
static struct loam_gpa_map *map;
static struct fake_vm vm;
static struct slots slots;

static void set_up(void)
{
    const struct loam_gpa_map_config config = {.region_capacity = 128};

    cr_assert_leq(loam_gpa_map_bytes(&config), sizeof map_memory);
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, &config, &map), LOAM_OK);
    vm = (struct fake_vm){.fail_at = UINT32_MAX, .fail_count = 1};
    slots_init(&slots, fake_set, &vm, SLOT_LIMIT);
}

static void tear_down(void)
{
    slots_destroy(&slots);
}

TestSuite(slots, .init = set_up, .fini = tear_down);

/* Host memory is never touched: each GPA has a host address of its own. */
static void *hva_of(uint64_t gpa)
{
    return (void *)(uintptr_t)(UINT64_C(0x100000000000) + gpa * 2);
}

static enum loam_error insert(uint64_t gpa, uint64_t bytes, enum loam_access access)
{
    struct loam_region region = {
        .start = {gpa}, .bytes = bytes, .hva = hva_of(gpa), .type = LOAM_REGION_RAM, .access = access};

    return loam_gpa_map_insert(map, &region);
}

static enum loam_error update(struct loam_diag *diag)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    enum loam_error error = slots_update(&slots, view, diag);

    loam_gpa_map_release(map, view);
    return error;
}

/* What the VM has against what the map says, page by page over the few pages that the tests use. */
static void check_page(const struct loam_gpa_view *view, uint64_t gpa)
{
    const struct kvm_userspace_memory_region *found = NULL;
    struct loam_region region;
    bool is_memory = loam_gpa_view_find(view, (loam_gpa){gpa}, &region) == LOAM_OK && region.type != LOAM_REGION_DEVICE;

    for (uint32_t i = 0; i < SLOT_LIMIT; i++) {
        const struct kvm_userspace_memory_region *row = &vm.table[i];

        if (row->memory_size > 0 && gpa >= row->guest_phys_addr && gpa - row->guest_phys_addr < row->memory_size) {
            found = row;
        }
    }
    cr_assert_eq(found != NULL, is_memory, "GPA 0x%" PRIx64, gpa);
    if (is_memory) {
        uint64_t hva = found->userspace_addr + (gpa - found->guest_phys_addr);

        cr_assert_eq(hva, (uintptr_t)region.hva + (gpa - region.start.value));
        cr_assert_eq((found->flags & KVM_MEM_READONLY) != 0, region.access != LOAM_ACCESS_WRITE);
    }
}

static void check_vm(uint64_t pages)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);

    for (uint64_t page = 0; page < pages; page++) {
        check_page(view, page * PAGE);
    }
    loam_gpa_map_release(map, view);
}

static void check_installed(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SLOT_LIMIT; i++) {
        count += vm.table[i].memory_size > 0;
    }
    cr_assert_eq(slots.count, count);
    for (uint32_t i = 0; i < slots.count; i++) {
        const struct slots_entry *entry = &slots.installed[i];

        cr_assert_not(entry->is_new);
        cr_assert_eq(vm.table[entry->number].guest_phys_addr, entry->slot.start.value);
        cr_assert_eq(vm.table[entry->number].memory_size, entry->slot.bytes);
        cr_assert(i == 0 || slots.installed[i - 1].slot.start.value < entry->slot.start.value);
    }
}

Test(slots, installs_what_a_view_shows)
{
    struct loam_diag diag = {0};

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(6 * PAGE, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(update(&diag), LOAM_OK, "%s", diag.text);
    check_vm(8);
    check_installed();
    cr_assert_eq(slots.count, 2);
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
    cr_assert_eq(insert(0, 8 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){2 * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    check_vm(10);
    check_installed();
    cr_assert_eq(slots.count, 3);
    for (uint32_t i = 0; i < slots.count; i++) {
        cr_assert_lt(slots.installed[i].number, 3);
    }
}

Test(slots, shows_no_slot_where_a_device_is)
{
    struct loam_region device = {.start = {4 * PAGE}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &device), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    check_vm(8);
    cr_assert_eq(slots.count, 1);
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
    cr_assert_not_null(strstr(diag.text, "25 wanted, KVM offers 24"), "%s", diag.text);
    cr_assert_eq(slots.count, SLOT_LIMIT);
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

Test(slots, without_memory_to_prepare_with_nothing_changes)
{
    uint32_t before, call_count;

    cr_assert_eq(insert(0, 4 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(insert(6 * PAGE, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    before = heap_block_count();
    call_count = vm.call_count;
    for (uint32_t failing = 1; failing <= 4; failing++) {
        struct loam_diag diag = {0};
        enum loam_error error;

        heap_fail(failing);
        error = update(&diag);
        cr_expect_geq(heap_call_count(), failing, "there is no allocation number %" PRIu32, failing);
        heap_fail(0);
        cr_expect_eq(error, LOAM_ERROR_SYSTEM, "allocation %" PRIu32, failing);
        cr_expect_not_null(strstr(diag.text, "no memory"), "allocation %" PRIu32 ": %s", failing, diag.text);
        cr_expect_eq(heap_block_count(), before, "allocation %" PRIu32, failing);
        cr_expect_eq(vm.call_count, call_count);
        cr_expect_eq(slots.count, 1);
        check_installed();
    }
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_expect_eq(heap_call_count(), 4, "an allocation is not tried above");
    cr_expect_eq(heap_block_count(), before, "the new set in place of the old one, and no more");
    slots_destroy(&slots);
    cr_expect_eq(heap_block_count(), before - 1);
    cr_expect_eq(slots.count, 0);
    check_vm(10);
}

Test(slots, abandons_without_a_call)
{
    const struct loam_gpa_view *view;
    struct slots_change change;

    cr_assert_eq(insert(0, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(slots_prepare(&slots, view, &change, NULL), LOAM_OK);
    loam_gpa_map_release(map, view);
    cr_assert_eq(change.wanted_count, 1);
    slots_abandon(&change);
    cr_assert_eq(vm.call_count, 0);
    cr_assert_null(change.wanted);
}

Test(slots, clears)
{
    struct loam_diag diag = {0};

    cr_assert_eq(insert(0, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(insert(2 * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    vm.fail_at = vm.call_count + 1;
    cr_assert_eq(slots_clear(&slots, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(diag.system_errno, ENOMEM);
    cr_assert_not_null(strstr(diag.text, "slot 0, 4096 bytes at GPA 0x0: KVM would not delete it"), "%s", diag.text);
    cr_assert_eq(slots.count, 1);
    check_installed();
    cr_assert_eq(slots_clear(&slots, &diag), LOAM_OK);
    cr_assert_eq(slots.count, 0);
    check_installed();
}

/* A page or a few of the first 32: put there, taken away, or protected; refusals do not matter here. */
static void change_map(struct random *random)
{
    uint64_t gpa = random_below(random, 32) * PAGE, bytes = (1 + random_below(random, 4)) * PAGE;
    enum loam_access access = random_one_in(random, 3) ? LOAM_ACCESS_READ : LOAM_ACCESS_WRITE;
    enum loam_error error;

    switch (random_below(random, 3)) {
    case 0:
        error = insert(gpa, bytes, access);
        break;
    case 1:
        error = loam_gpa_map_remove(map, (loam_gpa){gpa}, bytes);
        break;
    default:
        error = loam_gpa_map_protect(map, (loam_gpa){gpa}, bytes, access);
        break;
    }
    cr_assert(error == LOAM_OK || error == LOAM_ERROR_OVERLAP || error == LOAM_ERROR_NOT_FOUND);
}

Test(slots, follows_any_change_of_the_map)
{
    struct random random = {SEED};

    for (uint32_t step = 0; step < 20000; step++) {
        struct loam_diag diag = {0};
        enum loam_error error;

        change_map(&random);
        error = update(&diag);
        cr_assert_eq(error, LOAM_OK, "seed 0x%" PRIx64 " step %" PRIu32 ": %s", SEED, step, diag.text);
        check_vm(40);
        check_installed();
    }
}

Test(slots, restores_the_old_set_whichever_call_fails)
{
    struct random random = {SEED + 1};
    uint32_t failure_count = 0;

    for (uint32_t step = 0; step < 5000; step++) {
        struct fake_vm before = vm;
        struct loam_diag diag = {0};
        enum loam_error error;

        for (uint32_t i = 0; i < 3; i++) {
            change_map(&random);
        }
        vm.fail_at = vm.call_count + random_below(&random, 6);
        error = update(&diag);
        vm.fail_at = UINT32_MAX;
        if (error != LOAM_OK) {
            cr_assert_not_null(strstr(diag.text, "KVM would not "), "%s", diag.text);
            cr_assert_eq(error, LOAM_ERROR_SYSTEM, "seed 0x%" PRIx64 " step %" PRIu32, SEED + 1, step);
            check_installed();
            for (uint32_t i = 0; i < SLOT_LIMIT; i++) {
                bool is_there = vm.table[i].memory_size > 0 || before.table[i].memory_size > 0;

                cr_assert(!is_there || memcmp(&vm.table[i], &before.table[i], sizeof vm.table[i]) == 0);
            }
            failure_count++;
        }
        cr_assert_eq(update(NULL), LOAM_OK);
        check_vm(40);
    }
    cr_assert_gt(failure_count, 500, "only %" PRIu32 " failures", failure_count);
}

Test(slots, says_when_even_the_old_set_is_refused)
{
    struct loam_diag diag = {0};

    cr_assert_eq(insert(0, 2 * PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){0}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    vm.fail_at = vm.call_count + 1;
    vm.fail_count = UINT32_MAX;
    cr_assert_eq(update(&diag), LOAM_ERROR_CORRUPT);
    cr_assert_not_null(strstr(diag.text, "destroy the VM"));
}

/* One step back that fails is enough, whichever it is: those after it may well succeed. */
Test(slots, says_when_one_old_slot_is_not_restored)
{
    for (uint64_t i = 0; i < 3; i++) {
        cr_assert_eq(insert(2 * i * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    }
    cr_assert_eq(update(NULL), LOAM_OK);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){2 * PAGE}, PAGE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){4 * PAGE}, PAGE), LOAM_OK);
    vm.fail_at = vm.call_count + 2;
    vm.fail_count = 2; /* the third is not deleted, the first not added again, the second is */
    cr_assert_eq(update(NULL), LOAM_ERROR_CORRUPT);
}

Test(slots, says_when_one_new_slot_is_not_withdrawn)
{
    for (uint64_t i = 0; i < 3; i++) {
        cr_assert_eq(insert(2 * i * PAGE, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    }
    vm.fail_at = vm.call_count + 2;
    vm.fail_count = 2; /* the third is not added, the first not deleted again, the second is */
    cr_assert_eq(update(NULL), LOAM_ERROR_CORRUPT);
}

/* The real thing: KVM takes what the module sends, and refuses what it should not be sent. */
Test(slots, is_understood_by_kvm)
{
    struct loam_diag diag = {0};
    struct loam_region region = {.bytes = 16 * PAGE, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};
    struct slots real;
    struct kvm kvm;
    int vm_fd;
    const struct loam_gpa_view *view;

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    region.hva = mmap(NULL, region.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, &diag), LOAM_OK, "%s", diag.text);
    slots_init(&real, slots_set_in_vm, &vm_fd, kvm.slot_limit);
    for (uint64_t page = 0; page < 16; page += 2) {
        view = loam_gpa_map_acquire(map);
        cr_assert_eq(slots_update(&real, view, &diag), LOAM_OK, "%s", diag.text);
        loam_gpa_map_release(map, view);
        cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){page * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    }
    cr_assert_eq(slots_clear(&real, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(slots_set_in_vm(&vm_fd, &(struct kvm_userspace_memory_region){.slot = kvm.slot_limit}), -1);
    cr_assert_eq(errno, EINVAL);
    slots_destroy(&real);
    close(vm_fd);
    kvm_close(&kvm);
    munmap(region.hva, region.bytes);
}
