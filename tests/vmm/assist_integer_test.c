// SPDX-License-Identifier: Apache-2.0
/* What is refused, what KVM refuses, and two vCPUs at once; assist_step_test compares with the processor. */
#include "vmm/assist_integer.h"

#include "tests/vmm/vcpu_played.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

static _Alignas(64) uint8_t map_memory[1 << 16];
static _Alignas(4096) uint8_t ram[4096];
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;
static struct assist_vcpu vcpu;

/* In 64-bit code without paging, which no processor has, and no walk asks. */
static void set_up(void)
{
    struct loam_region region = {.bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    memset(&played, 0, sizeof played);
    memset(ram, 0, sizeof ram);
    played.sregs.cr0 = 1;
    played.sregs.efer = 0x400;
    played.sregs.cs.l = 1;
    played.regs.rip = 0x1000;
    played.regs.rsi = 0x100;
    cr_assert(assist_vcpu_read(&vcpu, VCPU_PLAYED_FD, view, NULL));
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
}

TestSuite(assist_integer, .init = set_up, .fini = tear_down, .timeout = 60);

static struct assist_instruction decoded(const char *bytes, size_t count)
{
    struct assist_instruction instruction;

    cr_assert_eq(assist_decode((const uint8_t *)bytes, count, ASSIST_MODE_64, &instruction), ASSIST_DECODED);
    return instruction;
}

#define DECODED(bytes) decoded(bytes, sizeof(bytes) - 1)

Test(assist_integer, takes_no_other_instruction)
{
    struct assist_instruction jmpe = DECODED("\x0f\xb8\xc1"), cmpxchg8b = DECODED("\x0f\xc7\x0e"),
                              rdrand = DECODED("\x48\x0f\xc7\xf0"), odd = DECODED("\x66\x48\x0f\xc7\x0e");

    cr_expect_not(assist_popcnt(&vcpu, &jmpe));
    cr_expect_not(assist_cmpxchg16b(&vcpu, &cmpxchg8b));
    cr_expect_not(assist_cmpxchg16b(&vcpu, &rdrand));
    cr_expect_not(assist_cmpxchg16b(&vcpu, &odd), "a prefix that no manual gives it");
    cr_expect_eq(played.write_count, 0);
}

Test(assist_integer, nothing_is_done_where_kvm_refuses)
{
    struct assist_instruction popcnt = DECODED("\xf3\x0f\xb8\xc1"), cmpxchg = DECODED("\x48\x0f\xc7\x0e");

    played.failing = KVM_SET_REGS;
    cr_expect_not(assist_popcnt(&vcpu, &popcnt));
    cr_expect_not(assist_cmpxchg16b(&vcpu, &cmpxchg));
    cr_expect_eq(played.regs.rip, 0x1000);
}

/* Counts both halves up, by the exchange, while this thread does so too: no step is lost. */
#define STEPS 20000u

static bool exchange(uint64_t halves[2], uint64_t expected[2], const uint64_t desired[2])
{
    bool is_equal;

    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(is_equal), "+m"(*(uint64_t(*)[2])halves), "+a"(expected[0]), "+d"(expected[1])
                     : "b"(desired[0]), "c"(desired[1])
                     : "memory");
    return is_equal;
}

static void *count_up(void *word)
{
    uint64_t *halves = word, expected[2] = {0, 0};

    for (unsigned int steps = 0; steps < STEPS;) {
        const uint64_t desired[2] = {expected[0] + 1, expected[1] - 1};

        steps += exchange(halves, expected, desired);
    }
    return NULL;
}

Test(assist_integer, an_exchange_is_one_access_to_all)
{
    struct assist_instruction cmpxchg = DECODED("\xf0\x48\x0f\xc7\x0e");
    uint64_t *halves = (uint64_t *)(void *)(ram + 0x100);
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, count_up, halves), 0);
    vcpu.regs.rax = vcpu.regs.rdx = 0;
    for (unsigned int i = 0; i < STEPS; i++) {
        do {
            vcpu.regs.rbx = vcpu.regs.rax + 1;
            vcpu.regs.rcx = vcpu.regs.rdx - 1;
            cr_assert(assist_cmpxchg16b(&vcpu, &cmpxchg));
        } while ((vcpu.regs.rflags & 0x40) == 0);
    }
    pthread_join(thread, NULL);
    cr_expect_eq(halves[0], 2 * STEPS, "%lu", (unsigned long)halves[0]);
    cr_expect_eq(halves[0] + halves[1], 0);
}
