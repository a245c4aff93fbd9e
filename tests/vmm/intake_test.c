// SPDX-License-Identifier: Apache-2.0
#include "vmm/intake.h"

#include "tests/support/sanitizer.h"
#include "tests/vmm/call_gate.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct intake intake;
static int reader, writer;
static unsigned descriptors_before;

static unsigned count_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void set_up(void)
{
    int fds[2];

    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    reader = fds[0];
    writer = fds[1];
    descriptors_before = count_descriptors();
    cr_assert_eq(intake_open(&intake, reader, NULL), LOAM_OK);
    call_gate_reset();
}

static void tear_down(void)
{
    intake_close(&intake);
    cr_expect_eq(count_descriptors(), descriptors_before);
    close(reader);
    close(writer);
}

TestSuite(intake, .init = set_up, .fini = tear_down, .timeout = 60);

static void await_readable(void)
{
    struct pollfd readable = {.fd = intake_poll_fd(&intake), .events = POLLIN};

    cr_assert_eq(poll(&readable, 1, -1), 1);
}

/* As a caller does it: poll, take, until there is an answer. */
static ssize_t take(uint8_t bytes[INTAKE_BYTES])
{
    ssize_t got;

    do {
        await_readable();
        got = intake_take(&intake, bytes);
    } while (got < 0 && errno == EAGAIN);
    return got;
}

Test(intake, reads_what_comes_and_the_end)
{
    uint8_t bytes[INTAKE_BYTES];

    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(write(writer, "abc", 3), 3);
        cr_assert_eq(take(bytes), 3);
        cr_expect_arr_eq(bytes, "abc", 3);
    }
    close(writer);
    cr_expect_eq(take(bytes), 0);
    writer = open("/dev/null", O_WRONLY | O_CLOEXEC);
}

Test(intake, reads_no_more_than_fits_at_once)
{
    uint8_t bytes[INTAKE_BYTES], sent[2 * INTAKE_BYTES];

    for (size_t i = 0; i < sizeof sent; i++) {
        sent[i] = (uint8_t)(i * 7);
    }
    cr_assert_eq(write(writer, sent, sizeof sent), (ssize_t)sizeof sent);
    for (size_t half = 0; half < 2; half++) {
        cr_assert_eq(take(bytes), INTAKE_BYTES);
        cr_expect_arr_eq(bytes, sent + half * INTAKE_BYTES, INTAKE_BYTES);
    }
}

/* Between poll and read somebody else takes the bytes: the read waits, its caller does not. */
Test(intake, bytes_that_others_take_do_not_hold_the_caller)
{
    uint8_t bytes[INTAKE_BYTES];
    char stolen;

    cr_assert_eq(write(writer, "x", 1), 1);
    await_readable();
    cr_assert_eq(read(reader, &stolen, 1), 1);
    cr_expect_eq(intake_take(&intake, bytes), -1);
    cr_expect_eq(errno, EAGAIN);
    cr_expect_neq(intake_poll_fd(&intake), reader, "the read's own end is awaited now");
    cr_expect_eq(intake_take(&intake, bytes), -1, "asked again, there is no second read");
    cr_expect_eq(errno, EAGAIN);
    cr_assert_eq(write(writer, "y", 1), 1);
    cr_assert_eq(take(bytes), 1);
    cr_expect_eq(bytes[0], 'y');
}

static void *close_intake(void *nothing)
{
    (void)nothing;
    intake_close(&intake);
    return NULL;
}

/* The read is at the door when it is called back, and the first kick is spent before it begins. */
Test(intake, closing_ends_a_read_that_waits)
{
    uint8_t bytes[INTAKE_BYTES];
    pthread_t closer;

    call_gate_close(CALL_READ, reader);
    cr_expect_eq(intake_take(&intake, bytes), -1);
    call_gate_await_held();
    cr_assert_eq(pthread_create(&closer, NULL, close_intake, NULL), 0);
    call_gate_await_signal();
    call_gate_open();
    cr_assert_eq(pthread_join(closer, NULL), 0);
    cr_expect_eq(count_descriptors(), descriptors_before);
    cr_assert_eq(intake_open(&intake, reader, NULL), LOAM_OK);
}

/* A signal that is no end interrupts a read, which begins again. */
Test(intake, an_interrupted_read_goes_on)
{
    uint8_t bytes[INTAKE_BYTES];

    call_gate_close(CALL_READ, reader);
    cr_expect_eq(intake_take(&intake, bytes), -1);
    call_gate_await_held();
    call_gate_fail(EINTR);
    call_gate_open();
    cr_assert_eq(write(writer, "abc", 3), 3);
    cr_expect_eq(take(bytes), 3);
}

Test(intake, without_a_thread_to_be_had_nothing_can_be_read)
{
    const struct rlimit none = {0, RLIM_INFINITY};
    uint8_t bytes[INTAKE_BYTES];

    SKIP_WHERE_A_SANITIZER_MAPS();
    cr_assert_eq(setrlimit(RLIMIT_AS, &none), 0); /* no room for a stack */
    cr_expect_eq(intake_take(&intake, bytes), -1);
    cr_expect_eq(errno, ENOMEM, "%s", strerror(errno));
    cr_expect_eq(intake_poll_fd(&intake), reader);
    cr_assert_eq(setrlimit(RLIMIT_AS, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
    cr_assert_eq(write(writer, "a", 1), 1);
    cr_expect_eq(take(bytes), 1);
}

Test(intake, without_a_descriptor_to_be_had_it_is_not_opened)
{
    struct intake second;
    struct loam_diag diag = {0};

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, 1024}), 0);
    cr_expect_eq(intake_open(&second, reader, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024}), 0);
    cr_expect_not_null(strstr(diag.text, "input: eventfd"), "%s", diag.text);
}

/* As a file system that hangs: what the read uses must stay. */
Test(intake, a_read_that_does_not_end_is_left_behind)
{
    uint8_t bytes[INTAKE_BYTES];

    call_gate_close(CALL_READ, reader);
    cr_expect_eq(intake_take(&intake, bytes), -1);
    call_gate_await_held();
    intake_close(&intake);
    cr_expect_eq(fcntl(intake.done_fd, F_GETFD), FD_CLOEXEC, "its descriptor is open");
    call_gate_fail(EIO);
    call_gate_open();
    while (!atomic_load(&intake.thread.left)) {
        sched_yield();
    }
    close(intake.done_fd);
    cr_assert_eq(intake_open(&intake, reader, NULL), LOAM_OK);
}

/* What a process started meanwhile must not have. */
Test(intake, its_descriptor_is_closed_on_exec)
{
    cr_expect_eq(fcntl(intake.done_fd, F_GETFD), FD_CLOEXEC);
}

Test(intake, an_error_is_told)
{
    uint8_t bytes[INTAKE_BYTES];

    intake_close(&intake);
    cr_assert_eq(intake_open(&intake, writer, NULL), LOAM_OK);
    cr_assert_eq(intake_take(&intake, bytes), -1);
    cr_expect_eq(take(bytes), -1);
    cr_expect_eq(errno, EBADF);
}

Test(intake, a_regular_file_needs_no_thread)
{
    char path[] = "/tmp/loam-intake-XXXXXX";
    int file = mkstemp(path);
    uint8_t bytes[INTAKE_BYTES];

    cr_assert_geq(file, 0);
    unlink(path);
    cr_assert_eq(pwrite(file, "abc", 3, 0), 3);
    intake_close(&intake);
    cr_assert_eq(intake_open(&intake, file, NULL), LOAM_OK);
    cr_expect_eq(intake_take(&intake, bytes), 3);
    cr_expect_eq(intake_take(&intake, bytes), 0);
    cr_expect_not(intake.has_thread);
    close(file);
}

Test(intake, the_null_device_needs_no_thread)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    uint8_t bytes[INTAKE_BYTES];

    intake_close(&intake);
    cr_assert_eq(intake_open(&intake, null, NULL), LOAM_OK);
    cr_expect_eq(intake_take(&intake, bytes), 0);
    cr_expect_not(intake.has_thread);
    intake_close(&intake);
    cr_assert_eq(intake_open(&intake, zero, NULL), LOAM_OK);
    cr_expect_eq(intake_take(&intake, bytes), -1, "of another device nobody knows");
    cr_expect(intake.has_thread);
    close(null);
    close(zero);
}
