// SPDX-License-Identifier: Apache-2.0
/*
 * The witness: a guest that can tell whether it lost anything while it was saved, restored, forked or moved. It needs nothing of its
 * host but PVH's map of memory.
 *
 * It goes from page to page of all its RAM in an order that jumps about, for ever. On each page it finds what it wrote there one
 * round before, to the step: the page's address, the step (a generation), its identity, and a sum of these, at both ends of the
 * page. A page that was lost shows an older step, one from the future a later one, one of a sibling another identity, a swapped
 * one another address. In between it looks at what it left in registers of the processor and of devices, that time goes forward,
 * and has an entropy device write into its RAM through rings in it.
 *
 * COM1: a line each round; whatever is wrong, and the end, with LOAM_ABI_EXIT_FAIL. Who sends it a q has it end with
 * LOAM_ABI_EXIT_PASS.
 */
#include "guest/guest.h"
#include "guest/rng_driver.h"

#include <stddef.h>

#define ENDL       "\r\n"
#define RAM_START  UINT64_C(0x100000) /* below it lie the tables of whoever boots */
#define MAGIC      UINT64_C(0x2073736e74695721)
#define RANGE_MAX  16u
#define PAGE_END   (PLATFORM_PAGE_BYTES - 8)
#define WORD_SPLIT UINT64_C(0x9e3779b97f4a7c15)

/* Steps between two looks at registers, and at rings. */
#define LOOK_STEPS    256u
#define REQUEST_STEPS 1024u

#define RNG_REGISTERS  UINT64_C(0xd0000000) /* where Loam has virtio-mmio transport 0 */
#define RNG_QUEUE_SIZE 8u
#define RNG_BYTES      64u
#define UNTOUCHED      UINT64_C(0xa5a5a5a5a5a5a5a5)

#define SERIAL_SCRATCH 7u
#define SERIAL_STATUS  5u
#define SERIAL_READY   1u
#define CMOS_INDEX     0x70u
#define CMOS_DATA      0x71u
#define CMOS_FREE      0x40u
#define MSR_KERNEL_GS  0xc0000102u

extern const char image_start[], image_end[];

struct range {
    uint64_t start, page_count;
};

/* index runs from 0 to page_count - 1, by stride, which is prime to it: each page once a round. */
static struct {
    struct range ranges[RANGE_MAX];
    uint32_t range_count;
    uint64_t page_count;
    uint64_t stride;
    uint64_t index;
    uint64_t step; /* begun so far */
    uint64_t identity;
    uint64_t tsc;
    uint64_t round_count;
    uint64_t request_count;
    bool has_rng, is_asking;
    struct rng_driver rng;
} witness;

/* Page-aligned, and in the image, so that no page of the order is one of them. */
static struct {
    _Alignas(4096) uint8_t descriptors[16 * RNG_QUEUE_SIZE];
    _Alignas(16) uint8_t available[6 + 2 * RNG_QUEUE_SIZE];
    _Alignas(16) uint8_t used[6 + 8 * RNG_QUEUE_SIZE];
    _Alignas(64) uint64_t data[2 * RNG_BYTES / 8];
} rings;

/* --- What it says ----------------------------------------------------------------------------------------------- */

static void say_number(const char *lead, uint64_t value)
{
    console_text(lead);
    console_hex(value);
}

_Noreturn static void give_up(const char *what, uint64_t gpa, uint64_t expected, uint64_t found)
{
    console_text("witness: fail: ");
    console_text(what);
    say_number(": at ", gpa);
    say_number(" step ", witness.step);
    say_number(": ", expected);
    say_number(" expected, ", found);
    console_text(" found" ENDL);
    platform_exit(LOAM_ABI_EXIT_FAIL);
}

static void expect(const char *what, uint64_t gpa, uint64_t expected, uint64_t found)
{
    if (expected != found) {
        give_up(what, gpa, expected, found);
    }
}

/* --- RAM ---------------------------------------------------------------------------------------------------------- */

static uint64_t page_of(uint64_t index)
{
    const struct range *range = witness.ranges;

    for (; index >= range->page_count; range++) {
        index -= range->page_count;
    }
    return range->start + index * PLATFORM_PAGE_BYTES;
}

static uint64_t sum_of(uint64_t gpa, uint64_t step, uint64_t identity)
{
    return (gpa ^ step * WORD_SPLIT) + identity;
}

static void write_page(uint64_t gpa, uint64_t step)
{
    platform_store64(gpa, gpa ^ MAGIC);
    platform_store64(gpa + 8, step);
    platform_store64(gpa + 16, witness.identity);
    platform_store64(gpa + 24, sum_of(gpa, step, witness.identity));
    platform_store64(gpa + PAGE_END, step);
}

static void check_page(uint64_t gpa, uint64_t step)
{
    uint64_t identity = platform_load64(gpa + 16);

    expect("page", gpa, gpa ^ MAGIC, platform_load64(gpa));
    expect("generation", gpa + 8, step, platform_load64(gpa + 8));
    expect("identity", gpa + 16, witness.identity, identity);
    expect("sum", gpa + 24, sum_of(gpa, step, identity), platform_load64(gpa + 24));
    expect("end of page", gpa + PAGE_END, step, platform_load64(gpa + PAGE_END));
}

/* [start, end) without the image, in whole pages. */
static void add_range(uint64_t start, uint64_t end)
{
    const uint64_t image_first = (uintptr_t)image_start, image_last = (uintptr_t)image_end;

    start = start < RAM_START ? RAM_START : (start + PLATFORM_PAGE_BYTES - 1) & ~(PLATFORM_PAGE_BYTES - 1);
    end &= ~(PLATFORM_PAGE_BYTES - 1);
    if (start < image_last && end > image_first) {
        if (start < image_first) {
            add_range(start, image_first);
        }
        start = image_last;
    }
    if (start < end && witness.range_count < RANGE_MAX && paging_map(start, end - start)) {
        witness.ranges[witness.range_count++] = (struct range){start, (end - start) / PLATFORM_PAGE_BYTES};
        witness.page_count += (end - start) / PLATFORM_PAGE_BYTES;
    }
}

static uint64_t common_divisor(uint64_t one, uint64_t other)
{
    while (other != 0) {
        uint64_t rest = one % other;

        one = other;
        other = rest;
    }
    return one;
}

/* About the golden section, so that pages follow each other far apart. */
static void choose_order(void)
{
    witness.stride = witness.page_count * 5 / 8 + 1;
    while (common_divisor(witness.stride, witness.page_count) != 1) {
        witness.stride++;
    }
}

static void find_memory(uint64_t start_info)
{
    const struct pvh_memory *entries;
    uint32_t count = pvh_memory_map(start_info, &entries);

    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].type == PVH_MEMORY_RAM) {
            add_range(entries[i].start, entries[i].start + entries[i].bytes);
        }
    }
    if (witness.page_count < 2) {
        give_up("memory map", start_info, 2, witness.page_count);
    }
    choose_order();
}

static void advance(void)
{
    witness.index += witness.stride;
    witness.index -= witness.index >= witness.page_count ? witness.page_count : 0;
    witness.step++;
}

/* --- Registers ---------------------------------------------------------------------------------------------------- */

static uint64_t read_tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static uint64_t read_msr(uint32_t number)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
    return (uint64_t)high << 32 | low;
}

static void write_msr(uint32_t number, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t read_cr2(void)
{
    uint64_t value;

    __asm__ volatile("movq %%cr2, %0" : "=r"(value));
    return value;
}

static void write_cr2(uint64_t value)
{
    __asm__ volatile("movq %0, %%cr2" : : "r"(value));
}

static uint8_t read_cmos(void)
{
    platform_out8(CMOS_INDEX, CMOS_FREE);
    return platform_in8(CMOS_DATA);
}

static void leave_marks(uint64_t step)
{
    write_msr(MSR_KERNEL_GS, step);
    write_cr2(step);
    platform_out8(LOAM_ABI_PORT_SERIAL + SERIAL_SCRATCH, (uint8_t)(step / LOOK_STEPS));
    platform_out8(CMOS_INDEX, CMOS_FREE);
    platform_out8(CMOS_DATA, (uint8_t) ~(step / LOOK_STEPS));
}

static void find_marks(uint64_t step)
{
    uint64_t tsc = read_tsc();

    expect("MSR", MSR_KERNEL_GS, step, read_msr(MSR_KERNEL_GS));
    expect("CR2", 2, step, read_cr2());
    expect("serial port", LOAM_ABI_PORT_SERIAL + SERIAL_SCRATCH, (uint8_t)(step / LOOK_STEPS),
           platform_in8(LOAM_ABI_PORT_SERIAL + SERIAL_SCRATCH));
    expect("CMOS", CMOS_FREE, (uint8_t) ~(step / LOOK_STEPS), read_cmos());
    if (tsc < witness.tsc) {
        give_up("time goes backward", 0, witness.tsc, tsc);
    }
    witness.tsc = tsc;
}

/* --- Rings -------------------------------------------------------------------------------------------------------- */

static void check_rng(bool is_well, const struct rng_fault *fault)
{
    if (!is_well) {
        give_up("ring", fault->gpa, fault->expected, fault->found);
    }
}

static void start_rng(void)
{
    struct rng_fault fault;

    witness.rng = (struct rng_driver){.registers = RNG_REGISTERS,
                                      .descriptors = (uintptr_t)rings.descriptors,
                                      .available = (uintptr_t)rings.available,
                                      .used = (uintptr_t)rings.used,
                                      .queue_size = RNG_QUEUE_SIZE};
    witness.has_rng = paging_map(RNG_REGISTERS, PLATFORM_PAGE_BYTES) && rng_start(&witness.rng, &fault);
}

/* The first half is the device's to write. */
static void ask(void)
{
    for (uint32_t i = 0; i < sizeof rings.data / sizeof rings.data[0]; i++) {
        platform_store64((uintptr_t)&rings.data[i], UNTOUCHED);
    }
    rng_submit(&witness.rng, (uintptr_t)rings.data, RNG_BYTES);
    witness.is_asking = true;
}

static void take_answer(void)
{
    struct rng_fault fault;
    uint32_t written;

    check_rng(rng_complete(&witness.rng, RNG_BYTES, &written, &fault), &fault);
    expect("entropy", (uintptr_t)rings.data, RNG_BYTES, written);
    for (uint32_t i = 0; i < sizeof rings.data / sizeof rings.data[0]; i++) {
        uint64_t gpa = (uintptr_t)&rings.data[i];

        if ((platform_load64(gpa) == UNTOUCHED) != (i >= RNG_BYTES / 8)) {
            give_up("entropy", gpa, UNTOUCHED, platform_load64(gpa));
        }
    }
    witness.is_asking = false;
    witness.request_count++;
}

/* --- The order ---------------------------------------------------------------------------------------------------- */

static bool is_told_to_end(void)
{
    return (platform_in8(LOAM_ABI_PORT_SERIAL + SERIAL_STATUS) & SERIAL_READY) != 0 &&
           platform_in8(LOAM_ABI_PORT_SERIAL) == 'q';
}

static void look_about(void)
{
    if (witness.step % LOOK_STEPS == 0) {
        if (witness.step > LOOK_STEPS) {
            find_marks(witness.step - LOOK_STEPS);
        }
        leave_marks(witness.step);
    }
    if (witness.has_rng && witness.step % REQUEST_STEPS == 0) {
        ask();
    } else if (witness.is_asking && witness.step % REQUEST_STEPS == REQUEST_STEPS / 2) {
        take_answer();
    }
}

static void go_round(void)
{
    for (uint64_t i = 0; i < witness.page_count; i++) {
        uint64_t gpa = page_of(witness.index);

        if (witness.step >= witness.page_count) {
            check_page(gpa, witness.step - witness.page_count);
        }
        write_page(gpa, witness.step);
        advance();
        look_about();
    }
}

_Noreturn void guest_main(uint64_t start_info)
{
    exceptions_install("witness");
    paging_init();
    if (!pvh_valid(start_info)) {
        give_up("no PVH start info where EBX points", start_info, PVH_MAGIC, 0);
    }
    find_memory(start_info);
    start_rng();
    say_number("witness: pages ", witness.page_count);
    console_text(witness.has_rng ? ", entropy" ENDL : ENDL);
    while (!is_told_to_end()) {
        go_round();
        witness.round_count++;
        say_number("witness: round ", witness.round_count);
        say_number(" requests ", witness.request_count);
        console_text(ENDL);
    }
    say_number("witness: pass: rounds ", witness.round_count);
    console_text(ENDL);
    platform_exit(LOAM_ABI_EXIT_PASS);
}
