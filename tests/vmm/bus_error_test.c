// SPDX-License-Identifier: Apache-2.0
/* Each end is a process of its own. */
#include "vmm/bus_error.h"

#include "tests/vmm/call_gate.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define RAM       UINT64_C(0x40000000)
#define RAM_BYTES UINT64_C(0x4000)
#define STATUS    14

/* AddressSanitizer asks for its options by this name: without them the signals of faults would be its own. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "handle_segv=0:handle_sigbus=0:handle_abort=0";
}

static _Alignas(64) uint8_t map_memory[65536];
static struct loam_gpa_map *map;
static uint8_t *ram, *other; /* of files that are too short */

static uint8_t *map_cut_file(void)
{
    int fd = memfd_create("cut", MFD_CLOEXEC);
    void *hva = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    cr_assert_neq(hva, MAP_FAILED);
    close(fd);
    return hva;
}

static void set_up(void)
{
    struct loam_region region = {.start = {RAM}, .bytes = RAM_BYTES, .access = LOAM_ACCESS_WRITE};

    region.hva = ram = map_cut_file();
    other = map_cut_file();
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
}

static void tear_down(void)
{
    munmap(ram, RAM_BYTES);
    munmap(other, RAM_BYTES);
}

TestSuite(bus_error, .init = set_up, .fini = tear_down);

static void clean_up(void)
{
    (void)!write(STDERR_FILENO, "cleaned up\n", 11);
}

static void touch(volatile uint8_t *byte)
{
    *byte = 1;
}

/* What a child that does so says on both of its outputs, and its status as of wait(2). */
static int end_of(void (*act)(void), bool json, char out[1024], char err[1024])
{
    const struct bus_error_end end = {.clean_up = clean_up, .json = json, .exit_status = STATUS};
    int pipes[2][2], status;
    char *texts[] = {out, err};
    pid_t child;

    cr_assert_eq(pipe(pipes[0]) | pipe(pipes[1]), 0);
    child = fork();
    if (child == 0) {
        dup2(pipes[0][1], STDOUT_FILENO);
        dup2(pipes[1][1], STDERR_FILENO);
        bus_error_watch(map, &end);
        act();
        _exit(77);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    for (int i = 0; i < 2; i++) {
        ssize_t got;

        close(pipes[i][1]);
        got = read(pipes[i][0], texts[i], 1023);
        texts[i][got > 0 ? got : 0] = '\0';
        close(pipes[i][0]);
    }
    return status;
}

static void touch_ram(void)
{
    touch(ram + 0x1234);
}

#define REASON                                                                                                         \
    "the host does not supply guest RAM at GPA 0x40001234 (touched by Loam itself; region [0x40000000, 0x40004000)): " \
    "a limit on hugepages or memory was lowered (hugetlb.*.max or memory.max of the control group), or the pool is "   \
    "drained: raise it, or take all memory at the start with --populate"

Test(bus_error, memory_of_the_guest_ends_the_process_with_one_line)
{
    char out[1024], err[1024];
    int status = end_of(touch_ram, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    cr_assert_str_empty(out);
    cr_assert_str_eq(err, "cleaned up\nloam: " REASON "\n");
}

Test(bus_error, json_says_the_same)
{
    char out[1024], err[1024];
    int status = end_of(touch_ram, true, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    cr_assert_str_eq(out, "{\"error\": \"" REASON "\", \"exit\": 14}\n");
}

static void touch_last_byte(void)
{
    touch(ram + RAM_BYTES - 1);
}

Test(bus_error, the_last_byte_of_a_region_is_memory_of_the_guest)
{
    char out[1024], err[1024];
    int status = end_of(touch_last_byte, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    cr_assert_not_null(strstr(err, "at GPA 0x40003fff ("), "%s", err);
}

static void touch_other(void)
{
    touch(other);
}

static void send_one(void)
{
    raise(SIGBUS);
}

static void touch_after_forget(void)
{
    bus_error_forget();
    bus_error_forget();
    touch(ram);
}

/* What had it before: here the default, which ends the process by the signal. */
Test(bus_error, others_go_to_whoever_had_them)
{
    void (*const acts[])(void) = {touch_other, send_one, touch_after_forget};

    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        char out[1024], err[1024];
        int status = end_of(acts[i], false, out, err);

        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "act %zu: status 0x%x", i, status);
        cr_assert_str_eq(err, acts[i] == touch_after_forget ? "" : "cleaned up\n");
    }
}

/* As the kernel sends it: only to itself may a process say so. */
static void report_bad_memory(int code)
{
    siginfo_t info = {.si_signo = SIGBUS, .si_code = code};

    info.si_addr = ram + 0x2345;
    syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info);
}

static void meet_bad_memory(void)
{
    report_bad_memory(BUS_MCEERR_AR);
}

static void meet_an_odd_address(void)
{
    report_bad_memory(BUS_ADRALN);
}

/* kill(2) tells of its sender where others tell of an address. */
static void be_sent_one_by_kill(void)
{
    report_bad_memory(SI_USER);
}

Test(bus_error, what_kill_sends_tells_of_no_memory)
{
    char out[1024], err[1024];
    int status = end_of(be_sent_one_by_kill, false, out, err);

    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status 0x%x", status);
    cr_assert_str_eq(err, "cleaned up\n");
}

static void hear_of_bad_memory(void)
{
    report_bad_memory(BUS_MCEERR_AO);
}

Test(bus_error, hardware_that_fails_is_told_from_a_limit)
{
    void (*const acts[])(void) = {meet_bad_memory, hear_of_bad_memory};

    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        char out[1024], err[1024];
        int status = end_of(acts[i], false, out, err);

        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
        cr_assert_not_null(strstr(err, "GPA 0x40002345 (touched by Loam itself; region [0x40000000, 0x40004000)): it "
                                       "reports a memory error there"),
                           "%s", err);
    }
}

Test(bus_error, any_reason_of_the_kernel_s_is_told)
{
    char out[1024], err[1024];
    int status = end_of(meet_an_odd_address, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    cr_assert_not_null(strstr(err, "): a limit on hugepages"), "%s", err);
}

static void touch_without_clean_up(void)
{
    bus_error_watch(map, &(struct bus_error_end){.exit_status = STATUS});
    touch(ram);
}

Test(bus_error, cleaning_up_is_not_needed)
{
    char out[1024], err[1024];
    int status = end_of(touch_without_clean_up, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
}

static atomic_int second_thread; /* its number */

static void *touch_as_second(void *nothing)
{
    sigset_t bus_error; /* blocked in the handler that started this thread */

    sigemptyset(&bus_error);
    sigaddset(&bus_error, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &bus_error, NULL);
    atomic_store(&second_thread, (int)gettid());
    touch(ram);
    return nothing;
}

/* Whether that thread is in pause(2). */
static bool pauses(int thread)
{
    char name[64], text[16] = "";
    int fd;

    snprintf(name, sizeof name, "/proc/self/task/%d/syscall", thread);
    fd = open(name, O_RDONLY);
    (void)!read(fd, text, sizeof text - 1);
    close(fd);
    return atoi(text) == SYS_pause;
}

/* The first that ends lets a second thread meet the same, and goes on when that waits. */
static void clean_up_beside_a_second(void)
{
    static atomic_bool has_begun;
    pthread_t thread;

    if (atomic_exchange(&has_begun, true)) {
        clean_up();
        return;
    }
    if (pthread_create(&thread, NULL, touch_as_second, NULL) != 0) {
        _exit(78);
    }
    while (atomic_load(&second_thread) == 0 || !pauses(atomic_load(&second_thread))) {
        sched_yield();
    }
}

static void touch_twice(void)
{
    const struct bus_error_end end = {.clean_up = clean_up_beside_a_second, .exit_status = STATUS};

    bus_error_watch(map, &end);
    touch(ram);
}

Test(bus_error, of_two_threads_one_speaks, .timeout = 60)
{
    char out[1024], err[1024];
    int status = end_of(touch_twice, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    cr_assert_eq(strncmp(err, "loam: ", 6), 0, "%s", err);
    cr_assert_eq(strchr(err, '\n'), err + strlen(err) - 1, "%s", err);
}

static void mend(int number)
{
    (void)number;
    (void)mmap(other, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Their handler mends it: the access succeeds, errno is as it was, and the map can be changed. */
static void go_on_after_their_handler(void)
{
    struct loam_region device = {.start = {0xd0000000}, .bytes = 0x1000, .type = LOAM_REGION_DEVICE};
    loam_gpa start = device.start;

    bus_error_forget();
    signal(SIGBUS, mend);
    bus_error_watch(map, &(struct bus_error_end){.exit_status = STATUS});
    errno = ERANGE;
    touch(other);
    if (errno == ERANGE && loam_gpa_map_insert(map, &device) == LOAM_OK &&
        loam_gpa_map_remove(map, start, device.bytes) == LOAM_OK) {
        _exit(6);
    }
}

Test(bus_error, whoever_mends_it_goes_on, .timeout = 60)
{
    char out[1024], err[1024];
    int status = end_of(go_on_after_their_handler, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 6, "status 0x%x", status);
}

static void exit_5(int number)
{
    (void)number;
    _exit(5);
}

static void touch_other_with_a_handler_of_theirs(void)
{
    bus_error_forget();
    signal(SIGBUS, exit_5);
    bus_error_watch(map, &(struct bus_error_end){.exit_status = STATUS});
    touch(other);
}

Test(bus_error, others_go_to_their_own_handler)
{
    char out[1024], err[1024];
    int status = end_of(touch_other_with_a_handler_of_theirs, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 5, "status 0x%x", status);
}

/* Whoever has it after the first bus_error_forget keeps it. */
static void forget_beside_a_handler_of_theirs(void)
{
    bus_error_forget();
    signal(SIGBUS, exit_5);
    bus_error_forget();
    touch(ram);
}

Test(bus_error, forgotten_it_is_forgotten_once)
{
    char out[1024], err[1024];
    int status = end_of(forget_beside_a_handler_of_theirs, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 5, "status 0x%x", status);
}

static void *fail_held_poll(void *error)
{
    call_gate_await_held();
    call_gate_fail(*(int *)error);
    call_gate_open();
    return NULL;
}

static void touch_with_poll_failing(int error)
{
    pthread_t thread;

    call_gate_reset();
    call_gate_close(CALL_POLL, -1);
    if (pthread_create(&thread, NULL, fail_held_poll, &error) == 0) {
        touch(ram);
    }
}

static void touch_with_poll_interrupted(void)
{
    touch_with_poll_failing(EINTR);
}

static void touch_with_poll_refused(void)
{
    touch_with_poll_failing(ENOMEM);
}

Test(bus_error, an_interrupted_wait_for_the_reader_goes_on, .timeout = 60)
{
    char out[1024], err[1024];
    int status = end_of(touch_with_poll_interrupted, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    cr_assert_not_null(strstr(err, "\nloam: the host does not supply"), "%s", err);
}

/* It might wait for ever. */
Test(bus_error, without_knowing_that_there_is_room_nothing_is_written, .timeout = 60)
{
    char out[1024], err[1024];
    int status = end_of(touch_with_poll_refused, false, out, err);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    cr_assert_str_eq(err, "cleaned up\n");
}

/* Nobody reads what was written before: the process ends all the same. */
static void fill_error_and_touch(void)
{
    static const char bytes[4096];

    fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK);
    while (write(STDERR_FILENO, bytes, sizeof bytes) > 0) {
    }
    fcntl(STDERR_FILENO, F_SETFL, 0);
    touch(ram);
}

static void clean_up_in_silence(void)
{
}

Test(bus_error, a_full_pipe_does_not_hold_it_up, .timeout = 60)
{
    const struct bus_error_end end = {.clean_up = clean_up_in_silence, .exit_status = STATUS};
    int ends[2], status;
    pid_t child;

    cr_assert_eq(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        bus_error_watch(map, &end);
        fill_error_and_touch();
        _exit(77);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == STATUS, "status 0x%x", status);
    close(ends[0]);
    close(ends[1]);
}

/* A second map takes the place of the first. */
static void touch_second(void)
{
    struct loam_gpa_map *empty;
    static _Alignas(64) uint8_t memory[65536];

    if (loam_gpa_map_init(memory, sizeof memory, NULL, &empty) == LOAM_OK) {
        bus_error_watch(empty, &(struct bus_error_end){.exit_status = STATUS});
        touch(ram);
    }
}

Test(bus_error, the_last_map_counts)
{
    char out[1024], err[1024];
    int status = end_of(touch_second, false, out, err);

    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status 0x%x", status);
}
