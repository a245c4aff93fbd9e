// SPDX-License-Identifier: Apache-2.0
#include "vmm/outlet.h"

#include "tests/support/heap.h"
#include "tests/support/sanitizer.h"
#include "tests/vmm/call_gate.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PIPE_BYTES      4096
#define FOR_EVER        (-1)
#define STOP_READABLE   1
#define STOP_UNREADABLE 0

static struct outlet outlet;
static int reader, writer;

static void open_on(int fd)
{
    struct loam_diag diag = {0};

    cr_assert_eq(outlet_open(&outlet, fd, "the pipe", &diag), LOAM_OK, "%s", diag.text);
}

static void set_up(void)
{
    int fds[2];

    call_gate_reset();
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    reader = fds[0];
    writer = fds[1];
    cr_assert_geq(fcntl(writer, F_SETPIPE_SZ, PIPE_BYTES), PIPE_BYTES);
    open_on(writer);
}

static void tear_down(void)
{
    outlet_close(&outlet);
    close(reader);
    close(writer);
}

TestSuite(outlet, .init = set_up, .fini = tear_down, .timeout = 60);

static void start(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(outlet_start(&outlet, &diag), LOAM_OK, "%s", diag.text);
}

static void append(const char *text)
{
    outlet_append(&outlet, text, strlen(text));
}

/* Exactly count bytes, which come sooner or later. */
static void read_exactly(char *text, size_t count)
{
    for (size_t have = 0; have < count;) {
        ssize_t got = read(reader, text + have, count - have);

        cr_assert_gt(got, 0);
        have += (size_t)got;
    }
}

static void fill_pipe(void)
{
    static const char block[PIPE_BYTES];

    cr_assert_eq(write(writer, block, sizeof block), PIPE_BYTES);
}

static uint64_t lost(void)
{
    int error;

    return outlet_lost(&outlet, &error);
}

static int failure(void)
{
    int error;

    (void)outlet_lost(&outlet, &error);
    return error;
}

/* --- Without a thread ------------------------------------------------------------------------------------------- */

Test(outlet, not_started_it_is_written_when_the_call_returns)
{
    int queued;

    append("");
    append("abc");
    cr_assert_eq(ioctl(reader, FIONREAD, &queued), 0);
    cr_expect_eq(queued, 3);
    cr_expect_eq(outlet_waiting(&outlet), 0);
    cr_expect_eq(lost(), 0);
}

static void *read_late(void *nothing)
{
    static char block[2 * PIPE_BYTES];

    (void)nothing;
    call_gate_await(CALL_POLL); /* the writer has met the full pipe, and waits for it */
    read_exactly(block, sizeof block);
    return NULL;
}

Test(outlet, not_started_it_waits_for_room_on_a_descriptor_that_does_not)
{
    static const char block[PIPE_BYTES];
    pthread_t late;

    cr_assert_eq(fcntl(writer, F_SETFL, O_NONBLOCK), 0);
    fill_pipe();
    cr_assert_eq(pthread_create(&late, NULL, read_late, NULL), 0);
    outlet_append(&outlet, block, sizeof block);
    cr_assert_eq(pthread_join(late, NULL), 0);
    cr_expect_eq(lost(), 0);
    cr_expect_eq(call_gate_vain_polls(), 0, "it does not ask again and again");
}

Test(outlet, without_a_thread_to_be_had_it_goes_on_as_before)
{
    const struct rlimit none = {0, RLIM_INFINITY};
    struct loam_diag diag = {0};
    char text[4] = "";

    SKIP_WHERE_A_SANITIZER_MAPS();
    cr_assert_eq(setrlimit(RLIMIT_AS, &none), 0); /* no room for a stack */
    cr_expect_eq(outlet_start(&outlet, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_AS, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
    cr_expect_not_null(strstr(diag.text, "the pipe: a thread is wanted"), "%s", diag.text);
    append("abc");
    read_exactly(text, 3);
    cr_expect_str_eq(text, "abc");
}

Test(outlet, without_a_descriptor_to_be_had_it_is_not_opened)
{
    struct outlet second;
    struct loam_diag diag = {0};

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, 1024}), 0);
    cr_expect_eq(outlet_open(&second, writer, "second", &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024}), 0);
    cr_expect_not_null(strstr(diag.text, "second: eventfd"), "%s", diag.text);
}

/* --- With its thread -------------------------------------------------------------------------------------------- */

Test(outlet, what_is_appended_comes_out_in_order)
{
    char text[10];

    append("012");
    start();
    append("345");
    append("6");
    append("789");
    read_exactly(text, sizeof text);
    cr_expect_arr_eq(text, "0123456789", sizeof text);
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    cr_expect_eq(outlet_waiting(&outlet), 0);
}

/* The thread waits, and is told of each byte. */
Test(outlet, a_byte_comes_out_though_no_other_follows)
{
    char byte;

    start();
    for (unsigned i = 0; i < 50; i++) {
        outlet_append(&outlet, "x", 1);
        read_exactly(&byte, 1);
    }
}

static int64_t now_microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Bytes that follow each other faster than OUTLET_QUIET_MICROSECONDS, for far longer than OUTLET_GATHER_MICROSECONDS. */
Test(outlet, a_trickle_is_gathered_but_not_for_ever)
{
    enum { BYTES = 1000, PACE_MICROSECONDS = 200 };

    start();
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER), "a drain's hurry is over when it ends");
    for (unsigned i = 0; i < BYTES; i++) {
        int64_t next = now_microseconds() + PACE_MICROSECONDS;

        outlet_append(&outlet, "x", 1);
        while (now_microseconds() < next) {
        }
    }
    cr_expect_geq(call_gate_count(CALL_WRITE), 10);
    cr_expect_leq(call_gate_count(CALL_WRITE), BYTES / 2);
}

Test(outlet, single_bytes_are_gathered)
{
    enum { BYTES = 140000 };
    static char text[BYTES];
    pid_t child = fork();
    ssize_t got;

    cr_assert_geq(child, 0);
    if (child == 0) {
        close(writer);
        while ((got = read(reader, text, sizeof text)) > 0) {
        }
        _exit(0);
    }
    start();
    for (unsigned i = 0; i < BYTES; i++) {
        outlet_append(&outlet, "x", 1);
    }
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    cr_expect_lt(call_gate_count(CALL_WRITE), BYTES / 20, "%u calls", call_gate_count(CALL_WRITE));
    cr_expect_eq(lost(), 0);
}

Test(outlet, what_comes_out_ends_where_it_should)
{
    static char text[PIPE_BYTES + 100];
    int queued;

    start();
    outlet_append(&outlet, text, sizeof text);
    read_exactly(text, sizeof text);
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    cr_assert_eq(ioctl(reader, FIONREAD, &queued), 0);
    cr_expect_eq(queued, 0, "%d bytes more", queued);
}

/* One page is in the pipe, more waits; whoever appends does not wait, and no byte is lost. */
Test(outlet, nobody_waits_who_appends)
{
    static char text[PIPE_BYTES];
    enum { BLOCKS = 64 };

    start();
    for (unsigned i = 0; i < BLOCKS; i++) {
        memset(text, (int)i, sizeof text);
        outlet_append(&outlet, text, sizeof text);
    }
    cr_expect_geq(outlet_waiting(&outlet), (BLOCKS - 2) * sizeof text);
    for (unsigned i = 0; i < BLOCKS; i++) {
        read_exactly(text, sizeof text);
        for (size_t k = 0; k < sizeof text; k++) {
            cr_assert_eq(text[k], (char)i, "block %u, byte %zu", i, k);
        }
    }
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    cr_expect_eq(lost(), 0);
}

Test(outlet, o_nonblock_loses_nothing)
{
    static char text[16 * PIPE_BYTES];

    cr_assert_eq(fcntl(writer, F_SETFL, O_NONBLOCK), 0);
    start();
    outlet_append(&outlet, text, sizeof text);
    call_gate_await(CALL_POLL); /* the pipe was full */
    read_exactly(text, sizeof text);
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    cr_expect_eq(lost(), 0);
    cr_expect_eq(fcntl(writer, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "what others have set stays");
}

/* --- Waiting ---------------------------------------------------------------------------------------------------- */

static void *wait_for_room(void *stop_fd)
{
    outlet_wait_room(&outlet, *(int *)stop_fd);
    return NULL;
}

Test(outlet, below_its_mark_nobody_waits)
{
    fill_pipe();
    start();
    for (unsigned i = 0; i < OUTLET_HIGH_BYTES; i++) {
        outlet_append(&outlet, "x", 1);
    }
    outlet_wait_room(&outlet, -1);
    cr_expect_eq(outlet_waiting(&outlet), OUTLET_HIGH_BYTES);
}

static void append_too_much(void)
{
    static const char block[OUTLET_HIGH_BYTES + 1];

    fill_pipe();
    start();
    outlet_append(&outlet, block, sizeof block);
}

Test(outlet, above_it_one_waits_until_there_is_room)
{
    static char text[OUTLET_HIGH_BYTES];
    pthread_t waiter;
    int none = -1;

    append_too_much();
    cr_expect_not(outlet_drain(&outlet, -1, 0), "its mark is forgotten when it ends");
    cr_assert_eq(pthread_create(&waiter, NULL, wait_for_room, &none), 0);
    call_gate_await(CALL_POLL);
    read_exactly(text, 2 * PIPE_BYTES);
    cr_assert_eq(pthread_join(waiter, NULL), 0);
    cr_expect_leq(outlet_waiting(&outlet), OUTLET_HIGH_BYTES);
    cr_expect_eq(call_gate_vain_polls(), 0, "it waits in one call");
}

Test(outlet, above_it_one_waits_no_longer_than_the_run)
{
    int stop_fd = eventfd(STOP_UNREADABLE, EFD_CLOEXEC);
    pthread_t waiter;

    append_too_much();
    cr_assert_eq(pthread_create(&waiter, NULL, wait_for_room, &stop_fd), 0);
    call_gate_await(CALL_POLL);
    cr_assert_eq(eventfd_write(stop_fd, 1), 0);
    cr_assert_eq(pthread_join(waiter, NULL), 0);
    cr_expect_gt(outlet_waiting(&outlet), OUTLET_HIGH_BYTES);
    close(stop_fd);
}

Test(outlet, draining_ends_by_its_descriptor_and_by_its_time)
{
    int stop_fd = eventfd(STOP_READABLE, EFD_CLOEXEC);

    append_too_much();
    cr_expect_not(outlet_drain(&outlet, stop_fd, FOR_EVER));
    cr_expect_not(outlet_drain(&outlet, -1, 0));
    cr_expect_not(outlet_drain(&outlet, -1, 10));
    cr_expect_gt(outlet_waiting(&outlet), OUTLET_HIGH_BYTES, "nothing is lost by it");
    cr_expect_eq(lost(), 0);
    close(stop_fd);
}

/* --- The end ---------------------------------------------------------------------------------------------------- */

Test(outlet, stopping_ends_a_write_that_has_begun_and_counts_what_is_lost)
{
    append_too_much();
    call_gate_await(CALL_WRITE);
    outlet_stop(&outlet);
    cr_expect_not(outlet.is_abandoned, "the thread is still in its call");
    cr_expect_eq(lost(), OUTLET_HIGH_BYTES + 1);
    cr_expect_eq(failure(), 0, "nobody read it, and nothing failed");
    cr_expect_eq(outlet_waiting(&outlet), 0);
    append("and");
    cr_expect_eq(lost(), OUTLET_HIGH_BYTES + 4);
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER), "nothing waits");
}

static void *stop(void *nothing)
{
    (void)nothing;
    outlet_stop(&outlet);
    return NULL;
}

/* The thread has looked whether it is to leave, and is about to call write(2), when the first kick comes, and is spent. */
Test(outlet, a_kick_that_comes_before_the_call_is_followed_by_another)
{
    pthread_t stopper;

    fill_pipe();
    start();
    call_gate_close(CALL_WRITE, writer);
    append("x");
    call_gate_await_held();
    cr_assert_eq(pthread_create(&stopper, NULL, stop, NULL), 0);
    call_gate_await_signal();
    call_gate_open();
    cr_assert_eq(pthread_join(stopper, NULL), 0);
    cr_expect_not(outlet.is_abandoned, "the thread is still in its call");
    cr_expect_eq(lost(), 1);
}

/* As a file system that hangs: what the thread uses must stay. */
Test(outlet, a_write_that_does_not_end_is_left_behind)
{
    start();
    call_gate_close(CALL_WRITE, writer);
    append("x");
    call_gate_await_held();
    outlet_close(&outlet);
    cr_expect(outlet.is_abandoned);
    cr_expect_eq(lost(), 1);
    cr_expect_eq(fcntl(outlet.low_fd, F_GETFD), FD_CLOEXEC, "its descriptor is open");
    call_gate_open();
    while (!atomic_load(&outlet.thread.left)) {
        sched_yield();
    }
    outlet.is_abandoned = false;
}

Test(outlet, a_full_device_is_told_at_once_and_everything_counted)
{
    const char *expected = "loam: the full one: cannot be written: No space left on device: what comes from here on is "
                           "lost\n";
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), error;
    struct outlet second;
    char told[512] = "";

    cr_assert_geq(full, 0);
    cr_assert_eq(outlet_open(&second, full, "the full one", NULL), LOAM_OK);
    second.teller = &outlet;
    cr_assert_eq(outlet_start(&second, NULL), LOAM_OK);
    outlet_append(&second, "abc", 3);
    read_exactly(told, strlen(expected));
    cr_expect_str_eq(told, expected);
    outlet_append(&second, "defg", 4);
    cr_expect(outlet_drain(&second, -1, FOR_EVER));
    cr_expect_eq(outlet_lost(&second, &error), 7);
    cr_expect_eq(error, ENOSPC);
    outlet_close(&second);
    close(full);
}

Test(outlet, a_reader_that_is_gone_is_no_signal)
{
    outlet.teller = &outlet;
    close(reader);
    start();
    append("abc");
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    cr_expect_eq(failure(), EPIPE);
    cr_expect_eq(lost(), 3);
    reader = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* What is short is the stack's memory, not threads. */
Test(outlet, no_room_for_the_stack_is_told_as_such)
{
    struct rlimit before, small;
    struct loam_diag diag = {0};
    enum loam_error error;

    SKIP_WHERE_A_SANITIZER_MAPS();
    cr_assert_eq(getrlimit(RLIMIT_DATA, &before), 0);
    small = (struct rlimit){1, before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_DATA, &small), 0);
    error = outlet_start(&outlet, &diag);
    cr_assert_eq(setrlimit(RLIMIT_DATA, &before), 0);
    cr_expect_eq(error, LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "no room for its stack of "), "%s", diag.text);
    start();
}

/* By the caller himself, whose signals are not blocked. */
Test(outlet, not_started_a_reader_that_is_gone_is_no_signal)
{
    int error;

    close(reader);
    reader = -1;
    append("ab");
    cr_expect_eq(outlet_lost(&outlet, &error), 2);
    cr_expect_eq(error, EPIPE);
}

Test(outlet, not_started_a_limit_on_file_sizes_is_no_signal)
{
    const struct rlimit limit = {1, 1};
    char path[] = "/tmp/loam-outlet-XXXXXX";
    int file = mkstemp(path), error;
    sigset_t mask;

    cr_assert_geq(file, 0);
    unlink(path);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    outlet_close(&outlet);
    open_on(file);
    append("ab");
    cr_expect_eq(outlet_lost(&outlet, &error), 1, "what fits is written");
    cr_expect_eq(error, EFBIG);
    cr_assert_eq(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    cr_expect_not(sigismember(&mask, SIGXFSZ), "the mask is as it was");
    outlet_close(&outlet);
    close(file);
    open_on(writer);
}

Test(outlet, after_a_failure_half_way_nothing_waits)
{
    static char text[3 * PIPE_BYTES];

    start();
    outlet_append(&outlet, text, sizeof text);
    read_exactly(text, PIPE_BYTES);
    close(reader);
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    cr_expect_eq(outlet_waiting(&outlet), 0);
    cr_expect(lost() == PIPE_BYTES || lost() == 2 * PIPE_BYTES, "%llu", (unsigned long long)lost());
    reader = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

Test(outlet, waits_for_nobody_after_a_failure)
{
    close(reader);
    start();
    append("abc");
    cr_expect(outlet_drain(&outlet, -1, FOR_EVER));
    for (unsigned i = 0; i < 100; i++) {
        static const char block[OUTLET_HIGH_BYTES];

        outlet_append(&outlet, block, sizeof block);
        outlet_wait_room(&outlet, -1);
    }
    cr_expect_eq(lost(), 3 + 100 * (uint64_t)OUTLET_HIGH_BYTES);
    reader = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

Test(outlet, nothing_is_left)
{
    const unsigned before = count_descriptors();
    const uint32_t blocks_before = heap_block_count();
    struct outlet second;

    cr_assert_eq(outlet_open(&second, writer, "second", NULL), LOAM_OK);
    cr_assert_eq(outlet_start(&second, NULL), LOAM_OK);
    cr_expect_eq(fcntl(second.low_fd, F_GETFD), FD_CLOEXEC);
    for (unsigned i = 0; i < 2; i++) { /* once each of its buffers */
        outlet_append(&second, "abc", 3);
        cr_expect(outlet_drain(&second, -1, FOR_EVER));
    }
    outlet_close(&second);
    cr_expect_eq(count_descriptors(), before);
    cr_expect_eq(heap_block_count(), blocks_before);
    cr_expect_eq(fcntl(writer, F_GETFD), FD_CLOEXEC, "the descriptor is the caller's");
}

/* What finds no memory is lost and counted, and what comes later is taken again. */
Test(outlet, without_memory_bytes_are_lost_and_counted)
{
    static char large[2 * OUTLET_FLUSH_BYTES];

    heap_fail(1);
    append("abc");
    cr_expect_eq(lost(), 3);
    append("de");
    cr_expect_eq(lost(), 3);
    append("fg"); /* now both buffers are there */
    heap_fail(1);
    outlet_append(&outlet, large, sizeof large);
    cr_expect_eq(lost(), 3 + sizeof large);
    append("hi");
    read_exactly(large, 6);
    cr_expect_arr_eq(large, "defghi", 6);
}

/* --- Streams ---------------------------------------------------------------------------------------------------- */

Test(outlet, text_for_people_has_no_control_bytes)
{
    const char *expected = "loam: no\\x1b[31mfile\\xff: 7\nplain\n";
    FILE *stream = outlet_text_stream(&outlet);
    char text[64] = "";

    cr_assert_not_null(stream);
    fprintf(stream, "loam: %s: %d\n", "no\033[31mfile\xff", 7);
    fputs("plain\n", stream);
    read_exactly(text, strlen(expected));
    cr_expect_str_eq(text, expected);
    fclose(stream);
}

Test(outlet, a_raw_stream_is_as_it_is)
{
    FILE *stream = outlet_raw_stream(&outlet);
    char text[8] = "";

    cr_assert_not_null(stream);
    fputs("\033[K\xff", stream);
    fclose(stream);
    read_exactly(text, 4);
    cr_expect_str_eq(text, "\033[K\xff");
}

Test(outlet, a_text_without_memory_is_the_stream_s_error)
{
    FILE *stream = outlet_text_stream(&outlet);
    uint32_t before = heap_block_count();

    cr_assert_not_null(stream);
    heap_fail(1);
    cr_expect_eq(fputs("\a", stream), EOF);
    cr_expect(ferror(stream));
    clearerr(stream);
    cr_expect_geq(fputs("\a", stream), 0);
    cr_expect_eq(heap_block_count(), before + 1, "the outlet's own block stays, and no other");
    fclose(stream);
}
