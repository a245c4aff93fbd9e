// SPDX-License-Identifier: Apache-2.0
#include "vmm/trace_ring.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

static struct trace_ring ring;
static uint8_t bytes[TRACE_RING_BYTES];

static void set_up(void)
{
    cr_assert(trace_ring_init(&ring));
}

static void tear_down(void)
{
    trace_ring_destroy(&ring);
}

TestSuite(trace_ring, .init = set_up, .fini = tear_down, .timeout = 60);

Test(trace_ring, holds_as_much_as_it_says)
{
    memset(bytes, 7, sizeof bytes);
    cr_expect_eq(trace_ring_free(&ring), TRACE_RING_BYTES);
    cr_expect_eq(trace_ring_used(&ring), 0);
    cr_expect(trace_ring_put(&ring, "head", 4, bytes, TRACE_RING_BYTES - 4));
    cr_expect_eq(trace_ring_free(&ring), 0);
    cr_expect_eq(trace_ring_used(&ring), TRACE_RING_BYTES);
    cr_expect_not(trace_ring_put(&ring, "x", 1, NULL, 0));
    trace_ring_drop(&ring, 4);
    cr_expect_not(trace_ring_put(&ring, "head", 4, "x", 1), "all of it or nothing");
    cr_expect_eq(trace_ring_used(&ring), TRACE_RING_BYTES - 4);
    cr_expect(trace_ring_put(&ring, "tail", 4, NULL, 0));
    trace_ring_look(&ring, TRACE_RING_BYTES - 4, bytes, 4);
    cr_expect_arr_eq(bytes, "tail", 4);
}

Test(trace_ring, keeps_what_crosses_its_end)
{
    memset(bytes, 0, sizeof bytes);
    cr_assert(trace_ring_put(&ring, bytes, TRACE_RING_BYTES - 3, NULL, 0));
    trace_ring_drop(&ring, TRACE_RING_BYTES - 3);
    cr_assert(trace_ring_put(&ring, "ab", 2, "cdef", 4));
    cr_assert(trace_ring_put(&ring, "gh", 2, "", 0));
    trace_ring_look(&ring, 1, bytes, 7);
    cr_expect_arr_eq(bytes, "bcdefgh", 7);
}

#define RECORDS 50000u

struct head {
    uint32_t number, bytes;
};

static void *put_records(void *unused)
{
    static uint8_t body[4000];
    struct random random = {.state = 1};

    (void)unused;
    for (uint32_t i = 0; i < RECORDS; i++) {
        struct head head = {i, random_below(&random, sizeof body)};

        memset(body, (int)(i & 0xff), head.bytes);
        while (!trace_ring_put(&ring, &head, sizeof head, body, head.bytes)) {
            sched_yield();
        }
    }
    return NULL;
}

Test(trace_ring, hands_over_whole_records_in_their_order)
{
    pthread_t writer;
    struct head head;

    cr_assert_eq(pthread_create(&writer, NULL, put_records, NULL), 0);
    for (uint32_t i = 0; i < RECORDS; i++) {
        while (trace_ring_used(&ring) == 0) { /* without a pause: what is half there is to be seen */
        }
        trace_ring_look(&ring, 0, &head, sizeof head);
        cr_assert_eq(head.number, i);
        cr_assert_leq(sizeof head + head.bytes, trace_ring_used(&ring));
        trace_ring_look(&ring, sizeof head, bytes, head.bytes);
        for (uint32_t j = 0; j < head.bytes; j++) {
            cr_assert_eq(bytes[j], (uint8_t)i);
        }
        trace_ring_drop(&ring, sizeof head + head.bytes);
    }
    pthread_join(writer, NULL);
}
