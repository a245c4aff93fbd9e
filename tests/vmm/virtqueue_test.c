// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtqueue.h"

#include "tests/vmm/random.h"
#include "tests/vmm/virtio_guest.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { SIZE = 8, PIECE_MAX = 16 };

static struct virtio_guest guest;
static struct virtio_driver driver;
static struct virtqueue queue;
static struct loam_piece pieces[PIECE_MAX];
static struct virtqueue_chain chain;
static const struct loam_gpa_view *view;

static void set_up(void)
{
    virtio_guest_init(&guest);
    virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
    view = loam_gpa_map_acquire(guest.map);
    queue = (struct virtqueue){.ready = false};
    chain = (struct virtqueue_chain){.pieces = pieces, .capacity = PIECE_MAX};
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_OK);
}

static void tear_down(void)
{
    loam_gpa_map_release(guest.map, view);
    virtio_guest_destroy(&guest);
}

static enum loam_error pop(void)
{
    return virtqueue_pop(&queue, view, &chain);
}

static enum loam_error push(uint16_t head, uint32_t written_bytes)
{
    return virtqueue_push(&queue, view, head, written_bytes);
}

/*
 * A descriptor in the driver's table, and a head in its available ring: the tools of a driver that
 * misbehaves.
 */
static void put(uint16_t index, uint64_t address, uint32_t bytes, uint32_t flags, uint16_t next)
{
    virtio_guest_put_descriptor(&guest, driver.config.descriptors.value, index, address, bytes, (uint16_t)flags, next);
}

static void offer(uint16_t head)
{
    const uint64_t available = driver.config.available.value;
    const uint16_t index = virtio_guest_get_16(&guest, available + 2);

    virtio_guest_put_16(&guest, available + 4 + UINT64_C(2) * (index % driver.config.size), head);
    virtio_guest_put_16(&guest, available + 2, (uint16_t)(index + 1));
}

static void expect_broken(enum virtqueue_fault fault)
{
    const struct virtqueue before = queue;

    cr_assert_eq(pop(), LOAM_ERROR_INVALID);
    cr_assert_eq(queue.fault, fault, "%s, not %s", virtqueue_fault_name(queue.fault), virtqueue_fault_name(fault));
    cr_assert_eq(chain.readable_count + chain.writable_count, 0);
    cr_assert_eq(chain.readable_bytes + chain.writable_bytes, 0);
    cr_assert_eq(queue.next_available, before.next_available);
    cr_assert_eq(pop(), LOAM_ERROR_INVALID, "and it stays so");
    cr_assert_eq(push(0, 0), LOAM_ERROR_INVALID);
    cr_assert_not(virtqueue_interrupt_wanted(&queue, view));
    cr_assert_eq(virtio_guest_get_16(&guest, driver.config.used.value + 2), before.next_used, "nothing was pushed");
}

TestSuite(virtqueue, .init = set_up, .fini = tear_down);

/* --- What goes well --------------------------------------------------------------------------------------------- */

Test(virtqueue, hands_over_a_chain_and_gives_it_back)
{
    const struct virtio_buffer buffers[] = {
        {GUEST_HIGH + 5, 7, false}, {GUEST_LOW + 0x1000, 3, false}, {GUEST_NEXT, 4096, true}, {GUEST_HIGH, 1, true}};
    uint16_t head;
    uint32_t used, written_bytes;

    cr_assert_eq(pop(), LOAM_ERROR_NOT_FOUND);
    cr_assert(virtio_driver_add(&driver, buffers, 4, &head));
    cr_assert_eq(pop(), LOAM_OK);
    cr_assert_eq(chain.head, head);
    cr_assert_eq(chain.readable_count, 2);
    cr_assert_eq(chain.writable_count, 2);
    cr_assert_eq(chain.readable_bytes, 10);
    cr_assert_eq(chain.writable_bytes, 4097);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(pieces[i].hva, virtio_guest_at(&guest, buffers[i].gpa));
        cr_assert_eq(pieces[i].start.value, buffers[i].gpa);
        cr_assert_eq(pieces[i].bytes, buffers[i].bytes);
    }
    cr_assert_eq(pop(), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(chain.readable_count + chain.writable_count, 0);
    cr_assert_not(virtio_driver_take(&driver, &used, &written_bytes));
    cr_assert_eq(push(head, 99), LOAM_OK);
    cr_assert(virtio_driver_take(&driver, &used, &written_bytes));
    cr_assert_eq(used, head);
    cr_assert_eq(written_bytes, 99);
    cr_assert_eq(push(head, 0), LOAM_ERROR_UNINITIALISED, "nothing is popped");
}

Test(virtqueue, a_buffer_across_regions_comes_in_pieces)
{
    const struct virtio_buffer buffer = {GUEST_NEXT - 100, 300, true};
    uint16_t head;

    cr_assert(virtio_driver_add(&driver, &buffer, 1, &head));
    cr_assert_eq(pop(), LOAM_OK);
    cr_assert_eq(chain.writable_count, 2);
    cr_assert_eq(chain.writable_bytes, 300);
    cr_assert_eq(pieces[0].hva, virtio_guest_at(&guest, GUEST_NEXT - 100));
    cr_assert_eq(pieces[0].bytes, 100);
    cr_assert_eq(pieces[1].hva, virtio_guest_at(&guest, GUEST_NEXT));
    cr_assert_eq(pieces[1].bytes, 200);
}

Test(virtqueue, empty_buffers_are_none)
{
    put(0, UINT64_MAX, 0, VIRTQ_DESC_F_NEXT, 1);
    put(1, GUEST_HIGH, 5, VIRTQ_DESC_F_NEXT, 2);
    put(2, GUEST_GAP, 0, VIRTQ_DESC_F_WRITE, 0);
    offer(0);
    cr_assert_eq(pop(), LOAM_OK);
    cr_assert_eq(chain.readable_count, 1);
    cr_assert_eq(chain.writable_count, 0);
    cr_assert_eq(chain.readable_bytes, 5);
}

Test(virtqueue, buffers_may_fill_memory_to_its_last_byte)
{
    put(0, GUEST_READONLY, 0x1000, VIRTQ_DESC_F_NEXT, 1);
    put(1, GUEST_HIGH, (uint32_t)(GUEST_HIGH_END - GUEST_HIGH), VIRTQ_DESC_F_WRITE, 0);
    offer(0);
    cr_assert_eq(pop(), LOAM_OK);
    cr_assert_eq(chain.readable_bytes, 0x1000);
    cr_assert_eq(chain.writable_bytes, GUEST_HIGH_END - GUEST_HIGH);
}

Test(virtqueue, a_chain_may_have_as_many_buffers_as_the_queue_has_entries)
{
    for (uint16_t i = 0; i < (uint16_t)SIZE; i++) {
        put(i, GUEST_HIGH + i, 1, VIRTQ_DESC_F_WRITE | (i + 1 < SIZE ? VIRTQ_DESC_F_NEXT : 0u), (uint16_t)(i + 1));
    }
    offer(0);
    cr_assert_eq(pop(), LOAM_OK);
    cr_assert_eq(chain.writable_count, SIZE);
}

Test(virtqueue, interrupts_are_wanted_unless_the_driver_says_no)
{
    cr_assert(virtqueue_interrupt_wanted(&queue, view));
    virtio_guest_put_16(&guest, driver.config.available.value, VIRTQ_AVAIL_F_NO_INTERRUPT);
    cr_assert_not(virtqueue_interrupt_wanted(&queue, view));
    virtio_guest_put_16(&guest, driver.config.available.value, 0xfffe);
    cr_assert(virtqueue_interrupt_wanted(&queue, view), "flags that mean nothing");
}

Test(virtqueue, disabled_it_does_nothing_and_is_whole_again)
{
    offer(SIZE);
    expect_broken(VIRTQUEUE_FAULT_HEAD);
    virtqueue_disable(&queue);
    cr_assert_eq(pop(), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(push(0, 0), LOAM_ERROR_UNINITIALISED);
    cr_assert_not(virtqueue_interrupt_wanted(&queue, view));
    virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_OK);
    cr_assert_eq(pop(), LOAM_ERROR_NOT_FOUND);
}

/* --- What a driver may not do ----------------------------------------------------------------------------------- */

Test(virtqueue, refuses_sizes)
{
    static const uint32_t sizes[] = {0, 3, 5, 6, 7, 9, 16, 32768, 65536, 0x80000000, UINT32_MAX};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        driver.config.size = sizes[i];
        cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_ERROR_INVALID, "size %u", sizes[i]);
        cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_SIZE);
        cr_assert_not(queue.ready);
        cr_assert_eq(pop(), LOAM_ERROR_INVALID);
    }
    driver.config.size = 65536;
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, UINT32_MAX), LOAM_ERROR_INVALID);
    cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_SIZE, "whatever the device has");
}

Test(virtqueue, refuses_rings_that_are_misaligned)
{
    const struct virtqueue_config good = driver.config;

    for (uint64_t off = 1; off < 16; off++) {
        driver.config.descriptors.value = good.descriptors.value + off;
        cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_ERROR_INVALID);
        cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_ALIGNMENT);
    }
    driver.config = good;
    driver.config.available.value++;
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_ERROR_INVALID);
    cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_ALIGNMENT);
    driver.config = good;
    for (uint64_t off = 1; off < 4; off++) {
        driver.config.used.value = good.used.value + off;
        cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_ERROR_INVALID);
        cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_ALIGNMENT);
    }
}

Test(virtqueue, refuses_rings_outside_memory)
{
    static const uint64_t nowhere[] = {GUEST_GAP,         GUEST_DEVICE,   GUEST_READONLY + 0xff0,
                                       GUEST_HIGH - 16,   GUEST_HIGH_END, GUEST_HIGH_END - 16,
                                       LOAM_GPA_END - 16, LOAM_GPA_END,   UINT64_MAX - 15};
    const struct virtqueue_config good = driver.config;

    for (size_t i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
        for (uint32_t ring = 0; ring < 3; ring++) {
            loam_gpa *const rings[] = {&driver.config.descriptors, &driver.config.available, &driver.config.used};

            driver.config = good;
            rings[ring]->value = nowhere[i];
            cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_ERROR_INVALID,
                         "ring %u at 0x%" PRIx64, ring, nowhere[i]);
            cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_RING);
        }
    }
    driver.config = good;
    driver.config.used.value = GUEST_READONLY;
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_ERROR_INVALID);
    cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_RING, "the device could not write it");
    driver.config = good;
    driver.config.descriptors.value = GUEST_READONLY;
    driver.config.available.value = GUEST_READONLY + 16 * SIZE;
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_OK, "these it only reads");
}

Test(virtqueue, an_available_index_too_far_ahead)
{
    virtio_guest_put_16(&guest, driver.config.available.value + 2, SIZE + 1);
    expect_broken(VIRTQUEUE_FAULT_AVAILABLE);
}

Test(virtqueue, an_available_index_that_goes_back)
{
    virtio_guest_put_16(&guest, driver.config.available.value + 2, UINT16_MAX);
    expect_broken(VIRTQUEUE_FAULT_AVAILABLE);
}

Test(virtqueue, more_chains_than_entries_while_some_are_with_the_device)
{
    for (uint16_t i = 0; i < (uint16_t)SIZE; i++) {
        put(i, GUEST_HIGH, 1, 0, 0);
        offer(i);
    }
    cr_assert_eq(pop(), LOAM_OK);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_AVAILABLE);
}

Test(virtqueue, a_head_that_is_no_descriptor)
{
    offer(SIZE);
    expect_broken(VIRTQUEUE_FAULT_HEAD);
}

Test(virtqueue, a_successor_that_is_no_descriptor)
{
    put(0, GUEST_HIGH, 1, VIRTQ_DESC_F_NEXT, SIZE);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_NEXT);
}

Test(virtqueue, a_chain_that_is_a_loop)
{
    put(0, GUEST_HIGH, 1, VIRTQ_DESC_F_NEXT, 1);
    put(1, GUEST_HIGH, 1, VIRTQ_DESC_F_NEXT, 0);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_LOOP);
}

Test(virtqueue, a_loop_of_empty_buffers)
{
    put(0, GUEST_HIGH, 0, VIRTQ_DESC_F_NEXT, 0);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_LOOP);
}

Test(virtqueue, an_indirect_descriptor)
{
    put(0, GUEST_HIGH, 64, VIRTQ_DESC_F_INDIRECT, 0);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_INDIRECT);
}

Test(virtqueue, a_buffer_to_read_after_one_to_write)
{
    put(0, GUEST_HIGH, 1, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 1);
    put(1, GUEST_HIGH, 1, 0, 0);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_ORDER);
}

Test(virtqueue, buffers_outside_memory)
{
    static const struct {
        uint64_t address;
        uint32_t bytes;
        uint32_t flags;
    } buffers[] = {
        {GUEST_GAP, 1, 0},
        {GUEST_READONLY, 0x1001, 0},
        {GUEST_DEVICE, 1, 0},
        {GUEST_DEVICE_END - 1, 2, VIRTQ_DESC_F_WRITE},
        {GUEST_HIGH - 1, 2, 0},
        {GUEST_HIGH_END - 1, 2, VIRTQ_DESC_F_WRITE},
        {GUEST_HIGH_END, 1, 0},
        {GUEST_HIGH, UINT32_MAX, VIRTQ_DESC_F_WRITE},
        {LOAM_GPA_END - 1, 2, 0},
        {UINT64_MAX, 1, 0},
        {UINT64_MAX, UINT32_MAX, VIRTQ_DESC_F_WRITE},
        {GUEST_READONLY, 1, VIRTQ_DESC_F_WRITE},
        {GUEST_READONLY - 1, 2, VIRTQ_DESC_F_WRITE},
    };

    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        virtio_driver_init(&driver, &guest, SIZE, GUEST_LOW);
        cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_OK);
        put(3, buffers[i].address, buffers[i].bytes, buffers[i].flags, 0);
        offer(3);
        expect_broken(VIRTQUEUE_FAULT_BUFFER);
    }
}

Test(virtqueue, buffers_in_more_pieces_than_the_device_takes)
{
    chain.capacity = 2;
    put(0, GUEST_NEXT - 1, 2, VIRTQ_DESC_F_NEXT, 1);
    put(1, GUEST_HIGH, 1, 0, 0);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_PIECES);
}

/* The page at gpa is the guest's no more, or there again. */
static void take_page(uint64_t gpa)
{
    loam_gpa_map_release(guest.map, view);
    cr_assert_eq(loam_gpa_map_remove(guest.map, loam_gpa_from_u64(gpa), 0x1000), LOAM_OK);
    view = loam_gpa_map_acquire(guest.map);
}

static void give_page(uint64_t gpa)
{
    struct loam_region region = {.start = {gpa},
                                 .bytes = 0x1000,
                                 .hva = virtio_guest_at(&guest, gpa),
                                 .type = LOAM_REGION_RAM,
                                 .access = LOAM_ACCESS_WRITE};

    loam_gpa_map_release(guest.map, view);
    cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(guest.map);
}

/* A queue with two chains on offer, one of them popped; its rings as config says. */
static void enable_at(uint64_t descriptors, uint64_t available, uint64_t used)
{
    driver.config = (struct virtqueue_config){SIZE, {descriptors}, {available}, {used}};
    virtio_guest_put_16(&guest, available, 0);
    virtio_guest_put_16(&guest, available + 2, 0);
    virtio_guest_put_16(&guest, used + 2, 0);
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, SIZE), LOAM_OK);
    put(0, GUEST_HIGH, 1, 0, 0);
    put(1, GUEST_HIGH, 1, 0, 0);
    offer(0);
    offer(1);
    cr_assert_eq(pop(), LOAM_OK);
}

/* Which of the three calls meet the missing page; each is asked of a queue that is whole. */
static void assert_broken_without(uint64_t page, bool pop_breaks, bool push_breaks, bool interrupt_breaks)
{
    const struct virtqueue whole = queue;

    take_page(page);
    cr_assert_eq(pop(), pop_breaks ? LOAM_ERROR_INVALID : LOAM_OK, "pop without the page at %#" PRIx64, page);
    cr_assert_eq(queue.fault, pop_breaks ? VIRTQUEUE_FAULT_RING : VIRTQUEUE_FAULT_NONE);
    cr_assert_eq(queue.next_available, pop_breaks ? 1 : 2);
    queue = whole;
    virtio_guest_put_16(&guest, driver.config.used.value + 2, 0);
    cr_assert_eq(push(0, 1), push_breaks ? LOAM_ERROR_INVALID : LOAM_OK, "push without the page at %#" PRIx64, page);
    cr_assert_eq(queue.fault, push_breaks ? VIRTQUEUE_FAULT_RING : VIRTQUEUE_FAULT_NONE);
    cr_assert_eq(queue.next_used, push_breaks ? 0 : 1);
    queue = whole;
    cr_assert_eq(virtqueue_interrupt_wanted(&queue, view), !interrupt_breaks, "without the page at %#" PRIx64, page);
    cr_assert_eq(queue.fault, interrupt_breaks ? VIRTQUEUE_FAULT_RING : VIRTQUEUE_FAULT_NONE);
    cr_assert_eq(virtio_guest_get_16(&guest, driver.config.used.value + 2), push_breaks ? 0 : 1,
                 "what the driver sees");
    queue = whole;
    give_page(page);
}

Test(virtqueue, each_ring_whose_memory_goes_away)
{
    const uint64_t page = 0x1000;

    enable_at(GUEST_LOW, GUEST_LOW + page, GUEST_LOW + 2 * page);
    assert_broken_without(GUEST_LOW, true, false, false);
    assert_broken_without(GUEST_LOW + page, true, false, true);
    assert_broken_without(GUEST_LOW + 2 * page, false, true, false);
    cr_assert_eq(pop(), LOAM_OK, "all there again");
    cr_assert_eq(push(1, 0), LOAM_OK);
}

/* Rings that go over the end of a page: one field is there, and the next is not. */
Test(virtqueue, each_field_whose_memory_goes_away)
{
    const uint64_t page = 0x1000;

    enable_at(GUEST_LOW + page - 16, GUEST_HIGH + page - 4, GUEST_HIGH + 8 * page - 4);
    assert_broken_without(GUEST_LOW, false, false, false);            /* descriptor 0, popped before */
    assert_broken_without(GUEST_LOW + page, true, false, false);      /* descriptor 1 */
    assert_broken_without(GUEST_HIGH + page, true, false, false);     /* the available ring's entries */
    assert_broken_without(GUEST_HIGH + 7 * page, false, true, false); /* the used index */
    assert_broken_without(GUEST_HIGH + 8 * page, false, true, false); /* the used entries */
    enable_at(GUEST_LOW, GUEST_LOW + page, GUEST_HIGH + 8 * page - 8);
    assert_broken_without(GUEST_HIGH + 8 * page, false, true, false); /* an entry's length, and not its id */
}

/* --- The driver's flag and the device's index ------------------------------------------------------------------- */

/*
 * Section 2.7.7.2: the driver allows interrupts, then looks whether something was used meanwhile; the device tells what
 * was used, then looks whether interrupts are allowed. Without a full barrier between the two, both can miss the other,
 * and nobody wakes the driver. That takes luck to see with two threads, and more than luck in a build that is not
 * optimised, where a hundred stores lie between the two. So the device runs one instruction at a time: once the index is
 * written the flag's page is out of reach, and when the flag is read all the same, a barrier has to have been passed.
 */
#define TRAP UINT64_C(0x100)

static uint8_t *flag_page;
static volatile sig_atomic_t index_written, barrier_passed, barrier_passed_at_flag;

/* MFENCE, a LOCK prefix, or XCHG with memory (Intel SDM volume 3A, section 8.2.5). */
static bool is_barrier(const uint8_t *code)
{
    const uint8_t *opcode = (code[0] & 0xf0) == 0x40 ? code + 1 : code; /* REX */

    return (code[0] == 0x0f && code[1] == 0xae && code[2] == 0xf0) || code[0] == 0xf0 ||
           ((opcode[0] == 0x86 || opcode[0] == 0x87) && opcode[1] < 0xc0);
}

static void step(int signal_number, siginfo_t *info, void *context)
{
    const uint8_t *code = (const uint8_t *)(uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

    if (index_written != 0) {
        barrier_passed |= is_barrier(code);
    } else if (virtio_guest_get_16(&guest, driver.config.used.value + 2) == 1) {
        index_written = 1;
        mprotect(flag_page, 0x1000, PROT_NONE);
        barrier_passed = is_barrier(code);
    }
    (void)signal_number;
    (void)info;
}

static void meet_flag(int signal_number, siginfo_t *info, void *context)
{
    barrier_passed_at_flag = (uint8_t *)info->si_addr == flag_page ? 1 + barrier_passed : 0;
    mprotect(flag_page, 0x1000, PROT_READ | PROT_WRITE);
    (void)signal_number;
    (void)context;
}

Test(virtqueue, a_full_barrier_lies_between_the_used_index_and_the_drivers_flag)
{
    struct sigaction stepping = {.sa_sigaction = step, .sa_flags = SA_SIGINFO};
    struct sigaction meeting = {.sa_sigaction = meet_flag, .sa_flags = SA_SIGINFO};
    enum loam_error error;
    bool wanted;

    enable_at(GUEST_LOW, GUEST_LOW + 0x1000, GUEST_LOW + 0x2000);
    flag_page = virtio_guest_at(&guest, driver.config.available.value);
    cr_assert_eq(sigaction(SIGTRAP, &stepping, NULL), 0);
    cr_assert_eq(sigaction(SIGSEGV, &meeting, NULL), 0);
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | TRAP);
    error = push(0, 0);
    wanted = virtqueue_interrupt_wanted(&queue, view);
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~TRAP);
    cr_assert_eq(error, LOAM_OK);
    cr_assert(wanted);
    cr_assert(index_written);
    cr_assert_neq(barrier_passed_at_flag, 0, "the flag was not looked at after the index was written");
    cr_assert_eq(barrier_passed_at_flag, 2, "no barrier lies between the index and the flag");
}

Test(virtqueue, every_fault_has_a_name_of_its_own)
{
    for (uint32_t i = 0; i < VIRTQUEUE_FAULT_COUNT; i++) {
        for (uint32_t j = 0; j < i; j++) {
            cr_assert_str_neq(virtqueue_fault_name(i), virtqueue_fault_name(j));
        }
    }
    cr_assert_str_eq(virtqueue_fault_name(VIRTQUEUE_FAULT_COUNT), "unknown");
    cr_assert_str_eq(virtqueue_fault_name((enum virtqueue_fault)UINT32_MAX), "unknown");
}

/* --- The longest queue ------------------------------------------------------------------------------------------ */

/* 4 GiB for a buffer and the rings: address space alone, of which little is touched. */
enum { LONG_BYTES = 1 << 20 };

static struct loam_gpa_map *long_map(void *memory, size_t bytes, void *rings)
{
    struct loam_gpa_map *map;

    cr_assert_eq(loam_gpa_map_init(memory, bytes, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &(struct loam_region){.bytes = LONG_BYTES,
                                                                .hva = rings,
                                                                .type = LOAM_REGION_RAM,
                                                                .access = LOAM_ACCESS_WRITE}),
                 LOAM_OK);
    return map;
}

Test(virtqueue, the_longest_queue_works_to_its_last_entry)
{
    const size_t map_bytes = loam_gpa_map_bytes(NULL);
    const uint32_t size = VIRTQUEUE_SIZE_MAX;
    const struct virtqueue_config config = {
        .size = size, .descriptors = {0}, .available = {16 * size}, .used = {20 * size}};
    void *map_memory = aligned_alloc(64, loam_align_up(map_bytes, 64));
    uint8_t *rings = aligned_alloc(4096, LONG_BYTES);
    uint16_t *available = (uint16_t *)(void *)(rings + config.available.value);
    struct loam_gpa_map *map = long_map(map_memory, map_bytes, rings);
    const struct loam_gpa_view *long_view = loam_gpa_map_acquire(map);

    memset(rings, 0, LONG_BYTES);
    cr_assert_eq(virtqueue_enable(&queue, long_view, &config, size), LOAM_OK);
    for (uint32_t i = 0; i < size; i++) {
        available[2 + i] = (uint16_t)i;
    }
    for (uint32_t round = 1; round <= 4; round++) {
        available[1] = (uint16_t)(round * size);
        for (uint32_t i = 0; i < size; i++) {
            cr_assert_eq(virtqueue_pop(&queue, long_view, &chain), LOAM_OK);
            cr_assert_eq(chain.head, i);
        }
        cr_assert_eq(virtqueue_pop(&queue, long_view, &chain), LOAM_ERROR_NOT_FOUND);
        for (uint32_t i = 0; i < size; i++) {
            cr_assert_eq(virtqueue_push(&queue, long_view, (uint16_t)i, i), LOAM_OK);
        }
    }
    available[1]++;
    cr_assert_eq(virtqueue_pop(&queue, long_view, &chain), LOAM_OK);
    available[1] = (uint16_t)(available[1] + size);
    cr_assert_eq(virtqueue_pop(&queue, long_view, &chain), LOAM_ERROR_INVALID);
    cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_AVAILABLE);
    loam_gpa_map_release(map, long_view);
    free(map_memory);
    free(rings);
}

/* Memory for the sum of lengths alone: no byte of it is touched. */
Test(virtqueue, buffers_of_more_than_4_gib_together)
{
    static uint8_t nothing[1];
    const struct loam_region region = {.start = {UINT64_C(1) << 40},
                                       .bytes = UINT64_C(1) << 32,
                                       .hva = (void *)loam_align_up((uintptr_t)nothing, 4096),
                                       .backing = 2,
                                       .type = LOAM_REGION_RAM,
                                       .access = LOAM_ACCESS_WRITE};

    loam_gpa_map_release(guest.map, view);
    cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(guest.map);
    put(0, region.start.value, UINT32_MAX, VIRTQ_DESC_F_NEXT, 1);
    put(1, region.start.value, 1, VIRTQ_DESC_F_WRITE, 0);
    offer(0);
    cr_assert_eq(pop(), LOAM_OK, "4 GiB exactly");
    cr_assert_eq(chain.readable_bytes + chain.writable_bytes, VIRTQUEUE_BYTES_MAX);
    put(1, region.start.value, 2, VIRTQ_DESC_F_WRITE, 0);
    offer(0);
    expect_broken(VIRTQUEUE_FAULT_LENGTH);
}

/* --- Against a correct driver ----------------------------------------------------------------------------------- */

/* What the driver asked for under each head: it is answered with the sum of what it wrote, in every byte. */
struct request {
    struct virtio_buffer buffers[4];
    uint16_t count;
    uint8_t sum;
    uint64_t writable_bytes;
};

static struct request requests[GUEST_QUEUE_SIZE_MAX];

static void fill_request(struct random *random, struct request *request, uint16_t id)
{
    const uint32_t readable_count = random_below(random, 3);

    request->count = (uint16_t)(1 + readable_count);
    request->sum = 0;
    request->writable_bytes = 0;
    for (uint32_t i = 0; i < request->count; i++) {
        struct virtio_buffer *buffer = &request->buffers[i];
        const uint64_t slot = (UINT64_C(4) * id + i) * 24; /* of 96 KiB: each request has its own place */

        *buffer = (struct virtio_buffer){GUEST_HIGH + 0x8000 + slot, 1 + random_below(random, 24), i == readable_count};
        for (uint32_t j = 0; j < buffer->bytes; j++) {
            const uint8_t byte = (uint8_t)random_u64(random);

            *(uint8_t *)virtio_guest_at(&guest, buffer->gpa + j) = byte;
            request->sum = (uint8_t)(request->sum + (buffer->writable ? 0 : byte));
        }
        request->writable_bytes += buffer->writable ? buffer->bytes : 0;
    }
}

static bool submit(struct random *random)
{
    struct request request;
    uint16_t head;

    /* The head that the driver will give to it is the last one it takes off its stack. */
    if (driver.free_count < 3) {
        return false;
    }
    fill_request(random, &request, driver.free[driver.free_count - 1]);
    cr_assert(virtio_driver_add(&driver, request.buffers, request.count, &head));
    requests[head] = request;
    return true;
}

static void serve(const struct virtqueue_chain *served)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < served->readable_count; i++) {
        for (uint64_t j = 0; j < served->pieces[i].bytes; j++) {
            sum = (uint8_t)(sum + ((uint8_t *)served->pieces[i].hva)[j]);
        }
    }
    for (uint32_t i = served->readable_count; i < served->readable_count + served->writable_count; i++) {
        memset(served->pieces[i].hva, sum, served->pieces[i].bytes);
    }
    cr_assert_eq(push(served->head, (uint32_t)served->writable_bytes), LOAM_OK);
}

static void check_answer(void)
{
    uint32_t head, written_bytes;
    const struct virtio_buffer *answer;

    cr_assert(virtio_driver_take(&driver, &head, &written_bytes));
    answer = &requests[head].buffers[requests[head].count - 1];
    cr_assert_eq(written_bytes, requests[head].writable_bytes);
    for (uint32_t i = 0; i < answer->bytes; i++) {
        cr_assert_eq(*(uint8_t *)virtio_guest_at(&guest, answer->gpa + i), requests[head].sum);
    }
}

enum { KEPT_MAX = 32 };

/* A device that keeps several chains and gives them back in any order. */
static void run_driver(uint32_t size, uint64_t rings, uint32_t request_count)
{
    struct random random = {size + rings};
    struct loam_piece kept_pieces[KEPT_MAX][4];
    struct virtqueue_chain kept[KEPT_MAX];
    uint32_t kept_count = 0, submitted = 0, answered = 0;

    virtio_driver_init(&driver, &guest, size, rings);
    cr_assert_eq(virtqueue_enable(&queue, view, &driver.config, size), LOAM_OK);
    while (answered < request_count) {
        const uint32_t what = random_below(&random, 3);

        if (what == 0 && submitted < request_count) {
            submitted += submit(&random);
        } else if (what == 1 && kept_count < KEPT_MAX) {
            struct virtqueue_chain *next = &kept[kept_count];

            *next = (struct virtqueue_chain){.pieces = kept_pieces[kept_count], .capacity = 4};
            kept_count += virtqueue_pop(&queue, view, next) == LOAM_OK;
        } else if (kept_count > 0) {
            const uint32_t which = random_below(&random, kept_count);

            serve(&kept[which]);
            check_answer();
            answered++;
            kept_count--;
            memcpy(kept_pieces[which], kept_pieces[kept_count], sizeof kept_pieces[which]);
            kept[which] = kept[kept_count];
            kept[which].pieces = kept_pieces[which];
        }
        cr_assert_eq(queue.fault, VIRTQUEUE_FAULT_NONE, "%s", virtqueue_fault_name(queue.fault));
    }
    cr_assert_eq(driver.free_count, size);
}

Test(virtqueue, serves_a_correct_driver_beyond_the_indexes_wrap)
{
    run_driver(4, GUEST_LOW, 70000);
    run_driver(64, GUEST_LOW, 70000);
    run_driver(1024, GUEST_HIGH, 70000);
}

Test(virtqueue, serves_rings_that_go_across_regions)
{
    const uint64_t bytes = 16 * 16 + 6 + 2 * 16 + 2 + 6 + 8 * 16;

    for (uint64_t start = loam_align_down(GUEST_NEXT - bytes, 16); start <= GUEST_NEXT; start += 16) {
        run_driver(16, start, 200);
    }
}

/* --- Against a hostile one --------------------------------------------------------------------------------------- */

/*
 * The oracle: works on a shadow of guest memory, byte by byte and page by page, and knows nothing of the map.
 * Whatever the queue writes, the oracle writes to the shadow; at the end the two are alike, canaries and all.
 */
enum { FUZZ_SIZE_MAX = 8, FUZZ_PIECE_MAX = 10, FUZZ_ROUNDS = 200000, WRITE_MAX = 512 };

struct oracle_buffer {
    uint64_t gpa;
    uint32_t bytes;
    bool writable;
};

struct oracle {
    uint8_t *shadow;
    struct virtqueue_config config;
    uint32_t popped; /* modulo 2^16 */
    uint32_t pushed;
    uint32_t kept;
    /* The chain popped last. */
    enum virtqueue_fault fault;
    bool none;
    uint16_t head;
    uint32_t count;
    uint32_t piece_count;
    struct oracle_buffer buffers[FUZZ_SIZE_MAX];
};

static struct oracle oracle;
static uint32_t oracle_chain_count;
static struct random fuzz;

static uint64_t shadow_get(uint64_t gpa, uint32_t bytes)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < bytes; i++) {
        value |= (uint64_t)oracle.shadow[virtio_guest_offset(gpa + i, false)] << (8 * i);
    }
    return value;
}

static void shadow_put(uint64_t gpa, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        oracle.shadow[virtio_guest_offset(gpa + i, true)] = (uint8_t)(value >> (8 * i));
    }
}

/* The guest itself writes: to both. */
static void both_put(uint64_t gpa, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        const ptrdiff_t offset = virtio_guest_offset(gpa + i, false);

        guest.arena[offset] = (uint8_t)(value >> (8 * i));
        oracle.shadow[offset] = guest.arena[offset];
    }
}

static uint64_t page_rest(uint64_t gpa, uint64_t bytes)
{
    const uint64_t rest = 4096 - gpa % 4096;

    return bytes < rest ? bytes : rest;
}

/* How many pieces a range has in host memory; 0: part of it is missing. */
static uint32_t oracle_pieces(uint64_t gpa, uint64_t bytes, bool write)
{
    ptrdiff_t continued = -1;
    uint32_t count = 0;

    while (bytes > 0) {
        const uint64_t part = page_rest(gpa, bytes);
        const ptrdiff_t offset = virtio_guest_offset(gpa, write);

        if (offset < 0) {
            return 0;
        }
        count += offset != continued;
        continued = offset + (ptrdiff_t)part;
        gpa += part;
        bytes -= part;
    }
    return count;
}

static enum virtqueue_fault oracle_config(const struct virtqueue_config *config)
{
    const uint32_t size = config->size;

    if (size != 1 && size != 2 && size != 4 && size != 8) {
        return VIRTQUEUE_FAULT_SIZE;
    }
    if (config->descriptors.value % 16 != 0 || config->available.value % 2 != 0 || config->used.value % 4 != 0) {
        return VIRTQUEUE_FAULT_ALIGNMENT;
    }
    if (oracle_pieces(config->descriptors.value, 16 * size, false) == 0 ||
        oracle_pieces(config->available.value, 6 + 2 * size, false) == 0 ||
        oracle_pieces(config->used.value, 6 + 8 * size, true) == 0) {
        return VIRTQUEUE_FAULT_RING;
    }
    return VIRTQUEUE_FAULT_NONE;
}

/* One descriptor at the end of the chain. */
static enum virtqueue_fault oracle_descriptor(uint64_t at, uint64_t total)
{
    const struct oracle_buffer buffer = {shadow_get(at, 8), (uint32_t)shadow_get(at + 8, 4),
                                         (shadow_get(at + 12, 2) & 2) != 0};
    const uint32_t found = oracle_pieces(buffer.gpa, buffer.bytes, buffer.writable);

    if ((shadow_get(at + 12, 2) & 4) != 0) {
        return VIRTQUEUE_FAULT_INDIRECT;
    }
    if (!buffer.writable && oracle.count > 0 && oracle.buffers[oracle.count - 1].writable) {
        return VIRTQUEUE_FAULT_ORDER;
    }
    if (total + buffer.bytes > UINT64_C(0x100000000)) {
        return VIRTQUEUE_FAULT_LENGTH;
    }
    if (buffer.bytes == 0) {
        return VIRTQUEUE_FAULT_NONE;
    }
    if (found == 0) {
        return VIRTQUEUE_FAULT_BUFFER;
    }
    if (oracle.piece_count + found > FUZZ_PIECE_MAX) {
        return VIRTQUEUE_FAULT_PIECES;
    }
    oracle.piece_count += found;
    oracle.buffers[oracle.count++] = buffer;
    return VIRTQUEUE_FAULT_NONE;
}

static enum virtqueue_fault oracle_walk(void)
{
    uint64_t next = oracle.head;
    uint64_t total = 0;

    for (uint32_t i = 0; i < oracle.config.size; i++) {
        const uint64_t at = oracle.config.descriptors.value + 16 * next;
        enum virtqueue_fault fault;

        if (next >= oracle.config.size) {
            return VIRTQUEUE_FAULT_NEXT;
        }
        fault = oracle_descriptor(at, total);
        if (fault != VIRTQUEUE_FAULT_NONE || (shadow_get(at + 12, 2) & 1) == 0) {
            return fault;
        }
        total += shadow_get(at + 8, 4);
        next = shadow_get(at + 14, 2);
    }
    return VIRTQUEUE_FAULT_LOOP;
}

static void oracle_pop(void)
{
    const uint64_t available = oracle.config.available.value;
    const uint32_t outstanding = (uint32_t)(shadow_get(available + 2, 2) - oracle.pushed) & 0xffff;

    oracle.count = 0;
    oracle.piece_count = 0;
    oracle.none = outstanding == oracle.kept;
    if (outstanding < oracle.kept || outstanding > oracle.config.size) {
        oracle.fault = VIRTQUEUE_FAULT_AVAILABLE;
    } else if (!oracle.none) {
        oracle.head = (uint16_t)shadow_get(available + 4 + 2 * (oracle.popped % oracle.config.size), 2);
        oracle.fault = oracle.head < oracle.config.size ? oracle_walk() : VIRTQUEUE_FAULT_HEAD;
        oracle.popped += oracle.fault == VIRTQUEUE_FAULT_NONE;
        oracle.kept += oracle.fault == VIRTQUEUE_FAULT_NONE;
        oracle_chain_count += oracle.fault == VIRTQUEUE_FAULT_NONE;
    }
}

static void check_pieces(uint32_t round)
{
    uint32_t piece = 0;
    uint64_t done = 0; /* of that piece */

    for (uint32_t i = 0; i < oracle.count; i++) {
        const struct oracle_buffer *buffer = &oracle.buffers[i];
        uint64_t part;

        for (uint64_t at = 0; at < buffer->bytes; at += part) {
            const ptrdiff_t offset = virtio_guest_offset(buffer->gpa + at, buffer->writable);

            cr_assert_lt(piece, oracle.piece_count);
            cr_assert_eq((uint8_t *)pieces[piece].hva + done, guest.arena + offset, "round %u", round);
            cr_assert_eq(pieces[piece].start.value + done, buffer->gpa + at, "round %u", round);
            cr_assert_eq(piece >= chain.readable_count, buffer->writable, "round %u", round);
            part = page_rest(buffer->gpa + at, buffer->bytes - at);
            done += part;
            cr_assert_leq(done, pieces[piece].bytes);
            if (done == pieces[piece].bytes) {
                piece++;
                done = 0;
            }
        }
    }
    cr_assert_eq(chain.readable_count + chain.writable_count, oracle.piece_count);
    cr_assert_eq(piece, oracle.piece_count);
}

/* The device writes the chain's first bytes and the last one of each piece; the oracle does so by address. */
static void write_chain(uint8_t byte)
{
    for (uint32_t i = chain.readable_count; i < chain.readable_count + chain.writable_count; i++) {
        const uint64_t bytes = pieces[i].bytes < WRITE_MAX ? pieces[i].bytes : WRITE_MAX;

        memset(pieces[i].hva, byte, bytes);
        ((uint8_t *)pieces[i].hva)[pieces[i].bytes - 1] = byte;
        for (uint64_t j = 0; j < bytes; j++) {
            shadow_put(pieces[i].start.value + j, byte, 1);
        }
        shadow_put(pieces[i].start.value + pieces[i].bytes - 1, byte, 1);
    }
}

static void fuzz_pop(uint32_t round)
{
    const enum loam_error error = virtqueue_pop(&queue, view, &chain);

    oracle_pop();
    cr_assert_eq(queue.fault, oracle.fault, "seed 20240603, round %u: %s, not %s", round,
                 virtqueue_fault_name(queue.fault), virtqueue_fault_name(oracle.fault));
    if (oracle.fault != VIRTQUEUE_FAULT_NONE) {
        cr_assert_eq(error, LOAM_ERROR_INVALID);
        return;
    }
    cr_assert_eq(error, oracle.none ? LOAM_ERROR_NOT_FOUND : LOAM_OK, "round %u", round);
    if (!oracle.none) {
        cr_assert_eq(chain.head, oracle.head);
        check_pieces(round);
        write_chain((uint8_t)random_u64(&fuzz));
    }
}

static void fuzz_push(void)
{
    const uint16_t head = (uint16_t)random_u64(&fuzz);
    const uint32_t written_bytes = (uint32_t)random_u64(&fuzz);
    const uint64_t entry = oracle.config.used.value + 4 + 8 * (oracle.pushed % oracle.config.size);
    const enum loam_error error = push(head, written_bytes);

    cr_assert_eq(error, oracle.kept > 0 ? LOAM_OK : LOAM_ERROR_UNINITIALISED);
    if (error == LOAM_OK) {
        oracle.kept--;
        oracle.pushed++;
        shadow_put(entry, head, 4);
        shadow_put(entry + 4, written_bytes, 4);
        shadow_put(oracle.config.used.value + 2, oracle.pushed & 0xffff, 2);
    }
}

/* Addresses near everything that is special. */
static uint64_t fuzz_address(void)
{
    static const uint64_t edges[] = {GUEST_LOW,  GUEST_NEXT,     GUEST_READONLY, GUEST_GAP,  GUEST_DEVICE,
                                     GUEST_HIGH, GUEST_HIGH_END, LOAM_GPA_END,   UINT64_MAX, GUEST_HIGH + 0x9000};

    switch (random_below(&fuzz, 16)) {
    case 0:
        return random_u64(&fuzz);
    case 1:
    case 2:
    case 3:
        return edges[random_below(&fuzz, sizeof edges / sizeof edges[0])] + random_below(&fuzz, 65) - 32;
    case 4:
    case 5:
        return GUEST_LOW + random_below(&fuzz, 0x7000);
    default:
        return GUEST_HIGH + random_below(&fuzz, 0x1f000);
    }
}

static uint32_t fuzz_bytes(void)
{
    switch (random_below(&fuzz, 16)) {
    case 0:
        return (uint32_t)random_u64(&fuzz);
    case 1:
        return 0;
    case 2:
        return random_below(&fuzz, 0x20001);
    case 3:
        return random_one_in(&fuzz, 4) ? UINT32_MAX - random_below(&fuzz, 300) : 16;
    default:
        return 1 + random_below(&fuzz, 300);
    }
}

static void fuzz_config(void)
{
    static const uint32_t sizes[] = {1, 2, 4, 8, 8, 8, 4, 8};
    struct virtqueue_config config = {.size = sizes[random_below(&fuzz, 8)],
                                      .descriptors = {fuzz_address() & ~UINT64_C(15)},
                                      .available = {fuzz_address() & ~UINT64_C(1)},
                                      .used = {fuzz_address() & ~UINT64_C(3)}};

    if (random_one_in(&fuzz, 16)) {
        config.size = random_below(&fuzz, 17);
    }
    if (random_one_in(&fuzz, 16)) {
        config.descriptors.value |= random_below(&fuzz, 16);
        config.available.value |= random_below(&fuzz, 2);
        config.used.value |= random_below(&fuzz, 4);
    }
    oracle.config = config;
    oracle.popped = oracle.pushed = oracle.kept = 0;
    oracle.fault = oracle_config(&config);
    cr_assert_eq(virtqueue_enable(&queue, view, &config, FUZZ_SIZE_MAX),
                 oracle.fault == VIRTQUEUE_FAULT_NONE ? LOAM_OK : LOAM_ERROR_INVALID);
    cr_assert_eq(queue.fault, oracle.fault, "%s, not %s", virtqueue_fault_name(queue.fault),
                 virtqueue_fault_name(oracle.fault));
}

/* A driver that mostly does the right thing, and now and then anything. */
static void fuzz_rings(void)
{
    const uint32_t size = oracle.config.size;
    const bool write = random_one_in(&fuzz, 2);

    for (uint32_t i = 0; i < size; i++) {
        const uint64_t at = oracle.config.descriptors.value + 16 * i;
        const uint32_t flags = (random_one_in(&fuzz, 3) ? VIRTQ_DESC_F_NEXT : 0) |
                               (write != random_one_in(&fuzz, 12) ? VIRTQ_DESC_F_WRITE : 0);

        both_put(at, fuzz_address(), 8);
        both_put(at + 8, fuzz_bytes(), 4);
        both_put(at + 12, random_one_in(&fuzz, 64) ? random_u64(&fuzz) : flags, 2);
        both_put(at + 14, random_one_in(&fuzz, 64) ? random_u64(&fuzz) : random_below(&fuzz, size), 2);
        both_put(oracle.config.available.value + 4 + 2 * i,
                 random_one_in(&fuzz, 128) ? random_u64(&fuzz) : random_below(&fuzz, size), 2);
    }
    both_put(oracle.config.available.value + 2,
             random_one_in(&fuzz, 64) ? random_u64(&fuzz) : oracle.popped + random_below(&fuzz, size - oracle.kept + 1),
             2);
    both_put(oracle.config.available.value, random_u64(&fuzz), 2);
}

static void fuzz_round(uint32_t round)
{
    if (oracle.fault != VIRTQUEUE_FAULT_NONE || random_one_in(&fuzz, 256)) {
        fuzz_config();
    }
    if (oracle.fault == VIRTQUEUE_FAULT_NONE) {
        fuzz_rings();
    }
    for (uint32_t i = random_below(&fuzz, 8); i > 0 && oracle.fault == VIRTQUEUE_FAULT_NONE; i--) {
        if (random_one_in(&fuzz, 3)) {
            fuzz_push();
        } else {
            fuzz_pop(round);
        }
    }
}

Test(virtqueue, hostile_rings_agree_with_an_oracle_and_nothing_else_is_written)
{
    uint32_t faults[VIRTQUEUE_FAULT_COUNT] = {0};

    fuzz.state = 20240603;
    chain.capacity = FUZZ_PIECE_MAX;
    oracle = (struct oracle){.shadow = malloc(guest.arena_bytes), .fault = VIRTQUEUE_FAULT_SIZE};
    cr_assert_not_null(oracle.shadow);
    memcpy(oracle.shadow, guest.arena, guest.arena_bytes);
    for (uint32_t round = 1; round <= FUZZ_ROUNDS; round++) {
        fuzz_round(round);
        faults[oracle.fault]++;
        if (round % 16 == 0) {
            cr_assert_eq(memcmp(guest.arena, oracle.shadow, guest.arena_bytes), 0, "seed 20240603, by round %u", round);
        }
    }
    for (uint32_t fault = 0; fault < VIRTQUEUE_FAULT_COUNT; fault++) {
        cr_assert_gt(faults[fault], 20, "%s was hardly met", virtqueue_fault_name(fault));
    }
    cr_assert_gt(oracle_chain_count, FUZZ_ROUNDS / 4);
    free(oracle.shadow);
}
