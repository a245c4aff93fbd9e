// SPDX-License-Identifier: Apache-2.0
#include "vmm/trace.h"

#include "tests/support/waiter.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LANES    2u
#define FOR_EVER (-1)

static char folder[] = "/tmp/loam-trace-XXXXXX";
static char path[64];
static struct trace *trace;
static struct outlet teller;
static int told_fd, stop_fd;
static struct loam_diag diag;

static void set_up(void)
{
    int fds[2];

    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/trace", folder);
    cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    told_fd = fds[0];
    cr_assert_eq(outlet_open(&teller, fds[1], "the teller", &diag), LOAM_OK);
    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void tear_down(void)
{
    trace_close(trace);
    (void)unlink(path);
    cr_expect_eq(rmdir(folder), 0);
    outlet_close(&teller);
    close(stop_fd);
}

TestSuite(trace, .init = set_up, .fini = tear_down, .timeout = 60);

static void begin(void)
{
    cr_assert_eq(trace_open(path, LANES, &teller, &trace, &diag), LOAM_OK, "%s", diag.text);
}

static void finish(void)
{
    cr_assert_eq(trace_finish(trace, -1, FOR_EVER, &diag), LOAM_OK, "%s", diag.text);
}

/* Line number of a lane. As a vCPU does, but for the guest. */
static void add(uint32_t vcpu, uint32_t number)
{
    struct trace_lane *lane = trace_lane(trace, vcpu);
    struct trace_exit exit = {.reason = KVM_EXIT_IO, .place = 0x80, .size = 4, .count = 1, .data_bytes = 4};

    trace_await_room(lane, stop_fd);
    exit.nanoseconds = trace_now(lane);
    trace_add(lane, &exit, (const uint8_t *)&number);
}

static const char *told(void)
{
    static char text[1024];
    ssize_t bytes = read(told_fd, text, sizeof text - 1);

    text[bytes > 0 ? bytes : 0] = '\0';
    return text;
}

/* --- What is read of it ------------------------------------------------------------------------------------------- */

struct reading {
    int fd;
    uint32_t counts[LANES];
    uint32_t most_late; /* lines that stand behind one of a later time */
    pthread_t thread;
};

/* Every line is whole, and each lane's are in order. */
static void *read_lines(void *self)
{
    struct reading *reading = self;
    FILE *file = fdopen(reading->fd, "r");
    json_int_t latest = 0;
    char *line = NULL;
    size_t room = 0;

    while (getline(&line, &room, file) > 0) {
        json_t *object = json_loads(line, 0, NULL);
        json_int_t vcpu, time;
        char wanted[32];

        cr_assert_not_null(object, "%s", line);
        cr_assert_eq(line[strlen(line) - 1], '\n');
        vcpu = json_integer_value(json_object_get(object, "vcpu"));
        time = json_integer_value(json_object_get(object, "time"));
        cr_assert_lt(vcpu, LANES);
        snprintf(wanted, sizeof wanted, "0x%x", reading->counts[vcpu]++);
        cr_assert_str_eq(json_string_value(json_object_get(object, "value")), wanted);
        reading->most_late += time < latest;
        latest = time > latest ? time : latest;
        json_decref(object);
    }
    free(line);
    fclose(file);
    return NULL;
}

static struct reading read_file(void)
{
    struct reading reading = {.fd = open(path, O_RDONLY | O_CLOEXEC)};

    cr_assert_geq(reading.fd, 0);
    (void)read_lines(&reading);
    return reading;
}

/* --- Lines -------------------------------------------------------------------------------------------------------- */

Test(trace, is_written_while_it_goes_on)
{
    struct reading reading;
    struct stat status = {0};

    begin();
    add(0, 0);
    add(1, 0);
    add(0, 1);
    while (status.st_size == 0) { /* nobody asks for it */
        cr_assert_eq(stat(path, &status), 0);
    }
    finish();
    reading = read_file();
    cr_expect_eq(reading.counts[0], 2);
    cr_expect_eq(reading.counts[1], 1);
    cr_expect_eq(reading.most_late, 0);
    cr_expect_str_empty(told());
}

Test(trace, of_a_guest_without_exits_is_empty)
{
    begin();
    finish();
    finish();
    cr_expect_eq(read_file().counts[0], 0);
}

#define MANY 20000u

static void *add_many(void *vcpu)
{
    for (uint32_t i = 0; i < MANY; i++) {
        add((uint32_t)(uintptr_t)vcpu, i);
    }
    return NULL;
}

static void add_many_from_all(void)
{
    pthread_t threads[LANES];

    for (uintptr_t i = 0; i < LANES; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, add_many, (void *)i), 0);
    }
    for (uint32_t i = 0; i < LANES; i++) {
        pthread_join(threads[i], NULL);
    }
}

Test(trace, loses_no_line_of_any_lane)
{
    struct reading reading;

    begin();
    add_many_from_all();
    finish();
    reading = read_file();
    cr_expect_eq(reading.counts[0], MANY);
    cr_expect_eq(reading.counts[1], MANY);
}

/* Reading a line takes longer than telling it. */
Test(trace, loses_no_line_where_its_reader_is_slow)
{
    struct reading reading = {.counts = {0}};

    cr_assert_eq(mkfifo(path, 0600), 0);
    reading.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    cr_assert_eq(fcntl(reading.fd, F_SETFL, 0), 0);
    begin();
    cr_assert_eq(pthread_create(&reading.thread, NULL, read_lines, &reading), 0);
    add_many_from_all();
    finish();
    trace_close(trace);
    trace = NULL;
    pthread_join(reading.thread, NULL);
    cr_expect_eq(reading.counts[0], MANY);
    cr_expect_eq(reading.counts[1], MANY);
}

/* --- Readers who do not read -------------------------------------------------------------------------------------- */

static int fifo_reader;

static void begin_unread(void)
{
    cr_assert_eq(mkfifo(path, 0600), 0);
    fifo_reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    cr_assert_geq(fifo_reader, 0);
    begin();
}

static struct waiter adder;
static atomic_bool is_enough;
static uint32_t number; /* of the lines that the adder has added */

static void add_until_enough(void *unused)
{
    (void)unused;
    while (!atomic_load(&is_enough)) {
        add(0, number++);
    }
}

/* The FIFO is full, the writer waits for its reader, and the adder for the writer. */
static void begin_stuck(void)
{
    int queued = 0;

    begin_unread();
    waiter_start(&adder, add_until_enough, NULL);
    while (queued < fcntl(fifo_reader, F_GETPIPE_SZ) - 4096) {
        cr_assert_eq(ioctl(fifo_reader, FIONREAD, &queued), 0);
    }
    cr_expect(waiter_polls(&adder));
    atomic_store(&is_enough, true);
}

static void read_to_the_end(struct reading *reading)
{
    cr_assert_eq(fcntl(fifo_reader, F_SETFL, 0), 0);
    reading->fd = fifo_reader;
    cr_assert_eq(pthread_create(&reading->thread, NULL, read_lines, reading), 0);
    finish();
    trace_close(trace);
    trace = NULL;
    pthread_join(reading->thread, NULL);
}

/* As a pause does: whoever waits comes back, and there is room still for what is to come of it then. */
Test(trace, a_lane_without_room_waits_until_it_is_told_to_stop)
{
    struct reading reading = {.counts = {0}};

    begin_stuck();
    add(1, 0); /* another's lane has room */
    eventfd_write(stop_fd, 1);
    waiter_join(&adder);
    for (uint32_t i = 0; i < 500; i++) {
        add(0, number++);
    }
    read_to_the_end(&reading);
    cr_expect_eq(reading.counts[0], number);
    cr_expect_eq(reading.counts[1], 1);
}

Test(trace, a_lane_without_room_goes_on_when_it_is_read)
{
    struct reading reading = {.counts = {0}};

    begin_stuck();
    cr_assert_eq(fcntl(fifo_reader, F_SETFL, 0), 0);
    reading.fd = fifo_reader;
    cr_assert_eq(pthread_create(&reading.thread, NULL, read_lines, &reading), 0);
    waiter_join(&adder);
    finish();
    trace_close(trace);
    trace = NULL;
    pthread_join(reading.thread, NULL);
    cr_expect_eq(reading.counts[0], number);
}

Test(trace, a_lane_without_room_goes_on_when_its_reader_is_gone)
{
    begin_stuck();
    close(fifo_reader);
    waiter_join(&adder);
    cr_expect_eq(trace_finish(trace, -1, FOR_EVER, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "Broken pipe"), "%s", diag.text);
}

/* What comes of a vCPU that may not wait any more has room; and where it has not, it does wait a little. */
Test(trace, a_full_lane_loses_a_line_at_last_and_says_so)
{
    struct reading reading = {.counts = {0}};
    const struct trace_lane *lane;
    uint64_t before, after;

    begin_unread();
    lane = trace_lane(trace, 0);
    eventfd_write(stop_fd, 1);
    do {
        before = trace_now(lane);
        add(0, number++);
        after = trace_now(lane);
    } while (after - before < UINT64_C(2000000000));
    cr_expect_gt(number, TRACE_RING_BYTES / (sizeof(struct trace_exit) + sizeof number));
    cr_assert_eq(fcntl(fifo_reader, F_SETFL, 0), 0);
    reading.fd = fifo_reader;
    cr_assert_eq(pthread_create(&reading.thread, NULL, read_lines, &reading), 0);
    cr_expect_eq(trace_finish(trace, -1, FOR_EVER, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "lines are missing: nobody reads it"), "%s", diag.text);
    trace_close(trace);
    trace = NULL;
    pthread_join(reading.thread, NULL);
    cr_expect_eq(reading.counts[0], number - 1);
}

Test(trace, an_end_that_nobody_reads_is_waited_for_no_longer_than_told)
{
    begin_unread();
    for (uint32_t i = 0; i < 2000; i++) {
        add(0, i);
    }
    cr_expect_eq(trace_finish(trace, -1, 10, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "lines are missing"), "%s", diag.text);
    cr_expect_not_null(strstr(diag.text, path), "%s", diag.text);
    close(fifo_reader);
}

Test(trace, an_end_that_nobody_reads_is_not_waited_for_after_a_signal)
{
    begin_unread();
    for (uint32_t i = 0; i < 2000; i++) {
        add(0, i);
    }
    eventfd_write(stop_fd, 1);
    cr_expect_eq(trace_finish(trace, stop_fd, FOR_EVER, &diag), LOAM_ERROR_SYSTEM);
    close(fifo_reader);
}

/* --- Writes that fail --------------------------------------------------------------------------------------------- */

Test(trace, says_at_once_that_it_cannot_be_written)
{
    const char *said = "";

    snprintf(path, sizeof path, "/dev/full");
    begin();
    add(0, 0);
    while (said[0] == '\0') {
        said = told();
    }
    cr_expect_str_eq(said,
                     "loam: --trace /dev/full: cannot be written: No space left on device: what comes from here on "
                     "is lost\n");
    for (uint32_t i = 0; i < MANY; i++) { /* and nobody waits */
        add(1, i);
    }
    cr_expect_eq(trace_finish(trace, -1, FOR_EVER, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_str_eq(diag.text, "--trace /dev/full: lines are missing: write: No space left on device");
    snprintf(path, sizeof path, "%s/trace", folder);
}

/* A file may grow no further, which raises a signal that would end the process. */
Test(trace, keeps_whole_lines_up_to_where_it_failed)
{
    const struct rlimit limit = {100000, 100000};
    struct reading reading = {.counts = {0}};
    char *text, *end;
    int fd;

    begin();
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (uint32_t i = 0; i < 5000; i++) {
        add(0, i);
    }
    cr_expect_eq(trace_finish(trace, -1, FOR_EVER, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "File too large"), "%s", diag.text);
    fd = open(path, O_RDWR | O_CLOEXEC);
    text = calloc(1, limit.rlim_cur + 1);
    cr_assert_eq(read(fd, text, limit.rlim_cur), (ssize_t)limit.rlim_cur);
    end = strrchr(text, '\n') + 1;
    cr_assert_eq(ftruncate(fd, end - text), 0); /* but for the last line */
    reading.fd = fd;
    lseek(fd, 0, SEEK_SET);
    (void)read_lines(&reading);
    cr_expect_gt(reading.counts[0], 500);
    free(text);
}

Test(trace, of_a_file_that_cannot_be_had_is_none)
{
    snprintf(path, sizeof path, "%s/none/trace", folder);
    cr_expect_eq(trace_open(path, LANES, &teller, &trace, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_null(trace);
}
