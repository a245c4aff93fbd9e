// SPDX-License-Identifier: Apache-2.0
/* `loam run --trace FILE`: what stands in the file, and what becomes of a run whose trace cannot be written. */
#include "tests/integration/launch.h"

#include "tests/integration/tiny_kernel.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 60000

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]

GUEST(accesses);
GUEST(babbles);
GUEST(writes_much);

static char folder[] = "/tmp/loam-trace-XXXXXX";
static char kernel_path[64], trace_path[64];
static struct process process;

static void set_up(void)
{
    need_kvm();
    cr_assert_not_null(mkdtemp(folder));
    snprintf(kernel_path, sizeof kernel_path, "%s/kernel", folder);
    snprintf(trace_path, sizeof trace_path, "%s/trace", folder);
}

static void tear_down(void)
{
    process_end(&process);
    unlink(kernel_path);
    unlink(trace_path);
    rmdir(folder);
}

TestSuite(trace_run, .init = set_up, .fini = tear_down, .timeout = 120);

#define MAKE_KERNEL(name) tiny_kernel_write(kernel_path, "test", guest_##name, guest_##name##_end)

#define RUN(path, ...)                                                                                                 \
    process_run(                                                                                                       \
        &process,                                                                                                      \
        (char *[]){loam_path(), "run", "--memory", "16M", "--pages", "4K", "--trace", path, __VA_ARGS__, NULL},        \
        LIMIT_MILLISECONDS)

/* The next line of a file as an object, without its time; NULL: there is none. */
static json_t *next_line(FILE *file)
{
    char line[4096];
    json_t *object;

    if (fgets(line, sizeof line, file) == NULL) {
        return NULL;
    }
    object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(object, "%s", line);
    cr_assert(json_is_integer(json_object_get(object, "time")), "%s", line);
    json_object_del(object, "time");
    return object;
}

static FILE *open_lines(void)
{
    FILE *file = fopen(trace_path, "r");

    cr_assert_not_null(file);
    return file;
}

static void expect_line(FILE *file, const char *expected)
{
    json_t *object = next_line(file);
    char *found = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;

    cr_expect_str_eq(found != NULL ? found : "(none)", expected);
    free(found);
    json_decref(object);
}

#define IO   "{\"vcpu\":0,\"reason\":\"KVM_EXIT_IO\",\"port\":"
#define MMIO "{\"vcpu\":0,\"reason\":\"KVM_EXIT_MMIO\",\"address\":"

/* A processor carries FWAIT out; a KVM that emulates gives it up, and is assisted. */
static void expect_assist_or_none(FILE *file)
{
    long before = ftell(file);
    json_t *object = next_line(file);

    if (strcmp(json_string_value(json_object_get(object, "reason")), "KVM_EXIT_INTERNAL_ERROR") == 0) {
        const char *code = json_string_value(json_object_get(object, "instruction"));
        const char *rip = json_string_value(json_object_get(object, "rip"));

        cr_expect_eq(strncmp(code, "9b31c0e7f4", 10), 0, "%s", code);
        cr_expect_eq(strncmp(rip, "0x2000", 6), 0, "%s", rip);
        cr_expect_str_eq(json_string_value(json_object_get(object, "assist")), "done");
    } else {
        fseek(file, before, SEEK_SET);
    }
    json_decref(object);
}

Test(trace_run, tells_each_exit_of_a_guest)
{
    FILE *file;

    MAKE_KERNEL(accesses);
    cr_assert_eq(RUN(trace_path, "--kernel", kernel_path), 0, "%s", process.err);
    cr_expect_str_eq(process.out, "Loam");
    file = open_lines();
    expect_line(file, IO "\"0x3f8\",\"size\":1,\"direction\":\"write\",\"value\":\"0x4c\",\"device\":\"serial\"}");
    for (unsigned i = 0; i < 3; i++) { /* KVM gives OUTS up one by one, and INS by as many as there is room for */
        static const char *const values[] = {"0x6f", "0x61", "0x6d"};
        char line[256];

        snprintf(line, sizeof line,
                 IO "\"0x3f8\",\"size\":1,\"direction\":\"write\",\"value\":\"%s\",\"device\":\"serial\"}", values[i]);
        expect_line(file, line);
    }
    expect_line(file, IO "\"0x81\",\"size\":2,\"direction\":\"read\",\"count\":3,"
                         "\"values\":[\"0xffff\",\"0xffff\",\"0xffff\"],\"device\":null}");
    expect_line(file, IO "\"0xed\",\"size\":2,\"direction\":\"read\",\"value\":\"0xffff\",\"device\":null}");
    expect_line(file,
                MMIO "\"0xe0000010\",\"size\":4,\"direction\":\"write\",\"value\":\"0x12345678\",\"device\":null}");
    expect_line(file, MMIO "\"0xe0000012\",\"size\":1,\"direction\":\"read\",\"value\":\"0xff\",\"device\":null}");
    expect_line(file, MMIO "\"0xd0000000\",\"size\":4,\"direction\":\"read\",\"value\":\"0x74726976\","
                           "\"device\":\"virtio-rng\"}");
    expect_assist_or_none(file);
    expect_line(file, IO "\"0xf4\",\"size\":4,\"direction\":\"write\",\"value\":\"0x0\",\"device\":\"exit\"}");
    cr_expect_null(next_line(file));
    fclose(file);
}

/* As many lines as exits are counted, in each of two lives. */
static json_int_t count_lines(void)
{
    FILE *file = open_lines();
    json_int_t count = 0;

    for (json_t *object; (object = next_line(file)) != NULL; count++) {
        json_decref(object);
    }
    fclose(file);
    return count;
}

Test(trace_run, has_a_line_for_each_exit_that_is_counted)
{
    json_t *root;

    for (int i = 0; i < 2; i++) { /* the second finds the first's file */
        cr_assert_eq(RUN(trace_path, "--vcpus", "2", "--json"), 0, "%s", process.err);
        root = json_loads(process.out, 0, NULL);
        cr_expect_eq(count_lines(), json_integer_value(json_object_get(json_object_get(root, "stop"), "exits")));
        json_decref(root);
        process_end(&process);
    }
}

static void *read_fifo(void *lines)
{
    FILE *file = open_lines();
    char line[4096];

    while (fgets(line, sizeof line, file) != NULL) {
        ++*(unsigned *)lines;
    }
    fclose(file);
    return NULL;
}

Test(trace_run, goes_through_a_fifo_to_a_program_that_reads)
{
    pthread_t reader;
    unsigned lines = 0;
    int opened;

    MAKE_KERNEL(writes_much);
    cr_assert_eq(mkfifo(trace_path, 0600), 0);
    opened = open(trace_path, O_RDWR | O_CLOEXEC); /* so that neither waits for the other */
    cr_assert_eq(pthread_create(&reader, NULL, read_fifo, &lines), 0);
    cr_expect_eq(RUN(trace_path, "--kernel", kernel_path), 0, "%s", process.err);
    close(opened);
    pthread_join(reader, NULL);
    cr_expect_eq(lines, 20001);
}

/* A guest that waits for its reader is ended by its time as any other; and the run does not wait for him either. */
Test(trace_run, whose_reader_does_not_read_ends_at_its_time)
{
    int reader;

    MAKE_KERNEL(babbles);
    cr_assert_eq(mkfifo(trace_path, 0600), 0);
    reader = open(trace_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    cr_expect_eq(RUN(trace_path, "--kernel", kernel_path, "--timeout", "2"), 3, "%s", process.err);
    cr_expect_not(process.timed_out);
    cr_expect_not_null(strstr(process.err, "did not end within 2 s"), "%s", process.err);
    cr_expect_not_null(strstr(process.err, "lines are missing: nobody reads it"), "%s", process.err);
    close(reader);
}

Test(trace_run, that_cannot_be_written_is_no_pass)
{
    MAKE_KERNEL(accesses);
    cr_expect_eq(RUN("/dev/full", "--kernel", kernel_path), 3, "%s", process.err);
    cr_expect_str_eq(process.out, "Loam", "the guest goes on");
    cr_expect_not_null(strstr(process.err, "loam: --trace /dev/full: cannot be written: No space left on device: "
                                           "what comes from here on is lost\n"),
                       "%s", process.err);
    cr_expect_not_null(strstr(process.err, "loam: --trace /dev/full: lines are missing: write: No space left on"), "%s",
                       process.err);
}

Test(trace_run, into_what_is_no_trace_is_refused_before_all_else)
{
    json_t *root;

    MAKE_KERNEL(accesses);
    cr_expect_eq(RUN(kernel_path, "--kernel", kernel_path, "--json"), 2, "%s", process.err);
    root = json_loads(process.out, 0, NULL);
    cr_expect_not_null(strstr(json_string_value(json_object_get(root, "error")), "something else than a trace"));
    json_decref(root);
    process_end(&process);
    cr_expect_eq(RUN("/dev/null", "--kernel", kernel_path), 0, "the kernel is still there: %s", process.err);
}
