// SPDX-License-Identifier: Apache-2.0
/*
 * The program and the outside: pipes that nobody reads, descriptors that take nothing, terminals, jobs and signals. It
 * never hangs, loses nothing in silence, and can always be left.
 */
#include "tests/integration/launch.h"

#include "tests/integration/outside_guests.h"
#include "tests/integration/tiny_kernel.h"
#include "tests/support/sanitizer.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 60000 /* by then a program hangs */
#define PIPE_BYTES         4096

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]

GUEST(prints);
GUEST(floods);
GUEST(prints_from_two);
GUEST(counts);
GUEST(never_reads);
GUEST(echoes);
GUEST(watches_its_memory);

static char folder[] = "/tmp/loam-outside-XXXXXX";
static char kernel_path[64], mount_path[64];
static struct process process;

static void set_up(void)
{
    const struct rlimit no_core = {0, 0};

    need_kvm();
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGPIPE, SIG_IGN);
    cr_assert_not_null(mkdtemp(folder));
    snprintf(kernel_path, sizeof kernel_path, "%s/kernel", folder);
    snprintf(mount_path, sizeof mount_path, "%s/mount", folder);
}

static void tear_down(void)
{
    process_end(&process);
    unlink(kernel_path);
    rmdir(folder);
}

TestSuite(outside, .init = set_up, .fini = tear_down, .timeout = 240);

#define MAKE_KERNEL(name) tiny_kernel_write(kernel_path, "test", guest_##name, guest_##name##_end)

#define WITH_KERNEL "run", "--memory", "16M", "--pages", "4K", "--kernel", kernel_path

#define START(in, out, err, ...)                                                                                       \
    cr_assert(process_start_with(&process, (char *[]){loam_path(), __VA_ARGS__, NULL}, (const int[]){in, out, err},    \
                                 LIMIT_MILLISECONDS))

/* It ends by itself, and so. */
static void expect_end(int status, const char *says)
{
    cr_expect_eq(process_wait(&process), status, "status %d wanted, %d found: %s", status, process.status, process.err);
    cr_expect_not(process.timed_out, "it hung");
    cr_expect_not_null(strstr(process.err, says), "%s: does not say %s", process.err, says);
    process_end(&process);
}

/* --- Pipes that nobody reads -------------------------------------------------------------------------------------- */

struct ends {
    int reader, writer;
};

static struct ends make_pipe(void)
{
    int fds[2];

    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    cr_assert_geq(fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES), PIPE_BYTES);
    return (struct ends){fds[0], fds[1]};
}

static void close_pipe(const struct ends *ends)
{
    close(ends->reader);
    close(ends->writer);
}

static struct ends make_full_pipe(void)
{
    static const char block[PIPE_BYTES];
    struct ends ends = make_pipe();

    cr_assert_eq(write(ends.writer, block, sizeof block), PIPE_BYTES);
    return ends;
}

/* A page of it is taken, if only by a few bytes, and so it takes no more. */
static void await_full(int writer)
{
    struct pollfd writable = {.fd = writer, .events = POLLOUT};

    while (poll(&writable, 1, 0) != 0) {
        sched_yield();
    }
}

Test(outside, time_ends_a_guest_whose_output_nobody_reads)
{
    const struct {
        const uint8_t *code, *end;
        char *vcpus;
    } guests[] = {{guest_prints, guest_prints_end, "1"},
                  {guest_floods, guest_floods_end, "1"},
                  {guest_prints_from_two, guest_prints_from_two_end, "2"}};

    for (unsigned i = 0; i < 3; i++) {
        struct ends ends = make_full_pipe();

        tiny_kernel_write(kernel_path, "test", guests[i].code, guests[i].end);
        START(-1, ends.writer, -1, WITH_KERNEL, "--vcpus", guests[i].vcpus, "--timeout", "1");
        expect_end(3, "did not end within 1 s");
        close_pipe(&ends);
    }
}

Test(outside, a_signal_ends_a_guest_whose_output_nobody_reads)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

    MAKE_KERNEL(prints_from_two);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct ends ends = make_pipe();

        START(-1, ends.writer, -1, WITH_KERNEL, "--vcpus", "2");
        await_full(ends.writer);
        kill(process.pid, numbers[i]);
        expect_end(128 + numbers[i], "stopped by signal");
        close_pipe(&ends);
    }
}

Test(outside, time_ends_a_report_that_nobody_reads)
{
    struct ends full = make_full_pipe();

    START(-1, full.writer, -1, "run", "--memory", "16M", "--pages", "4K", "--timeout", "1");
    expect_end(3, "standard output: ");
    START(-1, full.writer, -1, "run", "--json", "--memory", "16M", "--pages", "4K", "--timeout", "1");
    expect_end(3, "standard output: ");
    MAKE_KERNEL(never_reads);
    START(-1, -1, full.writer, WITH_KERNEL, "--timeout", "1");
    expect_end(3, "");
    START(-1, full.writer, full.writer, WITH_KERNEL, "--timeout", "1");
    expect_end(3, "");
    close_pipe(&full);
}

Test(outside, a_signal_ends_a_report_that_nobody_reads)
{
    struct ends full = make_full_pipe();

    MAKE_KERNEL(never_reads);
    START(-1, -1, full.writer, WITH_KERNEL);
    cr_assert(process_expect(&process, "L"));
    kill(process.pid, SIGTERM);
    expect_end(128 + SIGTERM, "");
    close_pipe(&full);
}

/* The run has ended well; its reader comes late, and finds everything. */
Test(outside, a_run_that_has_ended_waits_for_its_reader)
{
    struct ends full = make_full_pipe();
    char text[PIPE_BYTES + 1];

    START(-1, full.writer, -1, "run", "--memory", "16M", "--pages", "4K");
    close(full.writer);
    for (size_t have = 0; have < PIPE_BYTES;) {
        ssize_t got = read(full.reader, text, PIPE_BYTES - have);

        cr_assert_gt(got, 0);
        have += (size_t)got;
    }
    process.output = full.reader;
    expect_end(0, "");
}

/* --- Descriptors that take nothing, or not at once ------------------------------------------------------------------ */

static void expect_counted_bytes(void)
{
    cr_expect_eq(process.out_bytes, OUTSIDE_BYTES);
    for (size_t i = 0; i < process.out_bytes; i++) {
        cr_assert_eq((uint8_t)process.out[i], (uint8_t)i, "byte %zu", i);
    }
}

static void drain_and_expect_all(void)
{
    cr_expect_eq(process_wait(&process), 0, "status %d: %s", process.status, process.err);
    expect_counted_bytes();
    process_end(&process);
}

Test(outside, o_nonblock_set_by_others_loses_nothing)
{
    struct ends ends = make_pipe();

    MAKE_KERNEL(counts);
    cr_assert_eq(fcntl(ends.writer, F_SETFL, O_NONBLOCK), 0);
    START(-1, ends.writer, -1, WITH_KERNEL);
    await_full(ends.writer);
    close(ends.writer);
    process.output = ends.reader;
    drain_and_expect_all();
}

/* One write(2) for each byte would be as many calls as bytes. */
Test(outside, output_is_gathered)
{
    unsigned long long calls = 0;
    char path[64], line[128];
    FILE *file;

    MAKE_KERNEL(counts);
    START(-1, -1, -1, WITH_KERNEL);
    while (process_read(&process)) {
    }
    expect_counted_bytes();
    snprintf(path, sizeof path, "/proc/%d/io", (int)process.pid); /* of one that has ended, and is not waited for */
    file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        sscanf(line, "syscw: %llu", &calls);
    }
    if (file == NULL || calls == 0) {
        cr_skip_test("this system does not count calls");
    }
    fclose(file);
    cr_expect_lt(calls, OUTSIDE_BYTES / 20);
    cr_expect_eq(process_wait(&process), 0);
}

Test(outside, a_full_device_is_said_and_is_status_3)
{
    char *const commands[][6] = {{"version"},
                                 {"help"},
                                 {"--help"},
                                 {"run", "--help"},
                                 {"plan", "--help"},
                                 {"run", "--usage"},
                                 {"run", "--memory", "16M", "--pages=4K"},
                                 {"run", "--memory", "16M", "--pages=4K", "--json"},
                                 {"plan", "--memory", "16M", "--pages=4K"},
                                 {"plan", "--memory", "16M", "--pages=4K", "--json"},
                                 {"run", "--memory", "16M", "--pages=4K", "--kernel", kernel_path}};
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

    cr_assert_geq(full, 0);
    MAKE_KERNEL(echoes);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char *argv[8] = {loam_path()};

        memcpy(argv + 1, commands[i], sizeof commands[i]);
        cr_assert(process_start_with(&process, argv, (const int[]){-1, full, -1}, LIMIT_MILLISECONDS));
        (void)process_type(&process, "\n"); /* for the guest; the others do not listen */
        expect_end(3, "loam: standard output: cannot be written: No space left on device");
    }
    START(-1, -1, full, "run", "--no-such-option");
    expect_end(3, "");
    close(full);
}

Test(outside, a_reader_that_is_gone_is_said_and_is_status_3)
{
    struct ends ends = make_pipe();

    MAKE_KERNEL(counts);
    START(-1, ends.writer, -1, WITH_KERNEL);
    close_pipe(&ends);
    expect_end(3, "standard output: cannot be written: Broken pipe");
}

/* The guest's log is whole up to where the file system was full. */
Test(outside, a_full_file_system_is_said_and_is_status_3)
{
    char log_path[80];
    struct stat status;
    int log, byte;

    need_root();
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mkdir(mount_path, 0700) != 0 || mount("none", mount_path, "tmpfs", 0, "size=64k") != 0) {
        rmdir(mount_path);
        cr_skip_test("no file system can be mounted here: %s", strerror(errno));
    }
    snprintf(log_path, sizeof log_path, "%s/log", mount_path);
    log = open(log_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(log, 0);
    MAKE_KERNEL(counts);
    START(-1, log, -1, WITH_KERNEL);
    expect_end(3, "standard output: cannot be written: No space left on device");
    cr_assert_eq(fstat(log, &status), 0);
    cr_expect_gt(status.st_size, 0);
    cr_expect_lt(status.st_size, OUTSIDE_BYTES);
    for (off_t i = 0; i < status.st_size; i++) {
        byte = 0;
        cr_assert_eq(pread(log, &byte, 1, i), 1);
        cr_assert_eq(byte, (int)(i & 0xff), "byte %ld", (long)i);
    }
    close(log);
    cr_expect_eq(umount(mount_path), 0);
    cr_expect_eq(rmdir(mount_path), 0);
}

/* What is opened next must not take the place of a descriptor that was closed: the RAM's would be written to. */
Test(outside, closed_descriptors_are_opened_first)
{
    static char *const redirections[] = {"<&- >&-", "<&- >&- 2>&-", ">&-", "2>&-", "<&-", ">&- 2>&-"};
    char command[256];

    MAKE_KERNEL(watches_its_memory);
    for (size_t i = 0; i < sizeof redirections / sizeof redirections[0]; i++) {
        char *argv[] = {"sh", "-c", command, loam_path(), WITH_KERNEL, NULL};

        snprintf(command, sizeof command, "exec \"$0\" \"$@\" %s", redirections[i]);
        cr_expect_eq(process_run(&process, argv, LIMIT_MILLISECONDS), 0, "%s: status %d", redirections[i],
                     process.status);
        process_end(&process);
    }
}

/* --- Input ---------------------------------------------------------------------------------------------------------- */

Test(outside, piped_input_is_kept_until_the_guest_listens)
{
    MAKE_KERNEL(echoes);
    START(-1, -1, -1, WITH_KERNEL);
    cr_assert(process_type(&process, "ABCDEF\n"));
    cr_expect_eq(process_wait(&process), 0, "%s", process.err);
    cr_expect_str_eq(process.out, ">ABCDEF\n");
}

Test(outside, much_input_arrives_whole)
{
    static char sent[12000];

    for (size_t i = 0; i < sizeof sent - 2; i++) {
        sent[i] = (char)('a' + i % 26);
    }
    sent[sizeof sent - 2] = '\n';
    MAKE_KERNEL(echoes);
    START(-1, -1, -1, WITH_KERNEL);
    cr_assert(process_type(&process, sent));
    cr_expect_eq(process_wait(&process), 0, "%s", process.err);
    cr_expect_eq(process.out_bytes, sizeof sent);
    cr_expect_str_eq(process.out + 1, sent);
}

/* --- Signals that the starter ignores ------------------------------------------------------------------------------- */

Test(outside, ignored_signals_stay_ignored)
{
    char *argv[] = {"sh", "-c", "trap '' HUP INT QUIT; exec \"$0\" \"$@\"", loam_path(), WITH_KERNEL, NULL};

    MAKE_KERNEL(echoes);
    cr_assert(process_start(&process, argv, LIMIT_MILLISECONDS));
    cr_assert(process_expect(&process, ">"));
    kill(process.pid, SIGHUP);
    kill(process.pid, SIGINT);
    kill(process.pid, SIGQUIT);
    cr_assert(process_type(&process, "still here\n"));
    cr_expect_eq(process_wait(&process), 0, "status %d", process.status);
    cr_expect_str_eq(process.out, ">still here\n");
}

/* --- Terminals and jobs --------------------------------------------------------------------------------------------- */

/*
 * A shell with a terminal of its own, and the program as its job. The shell is a process of the test's that answers
 * orders: a byte comes over its socket, and one goes back when it has been obeyed; ends and stops of the job come as
 * wait statuses over another.
 */
struct job {
    int master, slave;
    struct termios before;
    pid_t shell, pid;
    int orders, statuses;
    char shown[65536];
    size_t shown_bytes;
};

enum order { ORDER_FORWARD = 'f' };

static void start_job(int slave, bool in_background, char *const argv[])
{
    setpgid(0, 0);
    if (!in_background) {
        tcsetpgrp(slave, getpid());
    }
    for (int number = 1; number < NSIG; number++) {
        signal(number, SIG_DFL);
    }
    for (int fd = 0; fd < 3; fd++) {
        dup2(slave, fd);
    }
    execv(argv[0], argv);
    _exit(127);
}

static void obey(int orders, int slave, pid_t job)
{
    char order;

    while (read(orders, &order, 1) == 1) {
        tcsetpgrp(slave, job);
        kill(-job, SIGCONT);
        if (write(orders, &order, 1) != 1) {
            return;
        }
    }
}

/* The shell's other half waits for the job, which only its parent can. */
static void be_shell(const struct job *job, int orders, int statuses, bool in_background, char *const argv[])
{
    int status;
    pid_t pid, waiter;

    setsid();
    ioctl(job->slave, TIOCSCTTY, 0);
    signal(SIGTTOU, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    pid = fork();
    if (pid == 0) {
        start_job(job->slave, in_background, argv);
    }
    setpgid(pid, pid);
    if (write(statuses, &pid, sizeof pid) != sizeof pid) {
        _exit(1);
    }
    waiter = fork();
    if (waiter == 0) {
        obey(orders, job->slave, pid);
        _exit(0);
    }
    while (waitpid(pid, &status, WUNTRACED) == pid && write(statuses, &status, sizeof status) == sizeof status) {
        if (!WIFSTOPPED(status)) {
            break;
        }
    }
    kill(waiter, SIGKILL);
    waitpid(waiter, NULL, 0);
    _exit(0);
}

static struct job job;

static void job_start(bool in_background)
{
    char *argv[] = {loam_path(), WITH_KERNEL, NULL};
    int orders[2], statuses[2];

    cr_assert_eq(openpty(&job.master, &job.slave, NULL, NULL, NULL), 0);
    cr_assert_eq(tcgetattr(job.slave, &job.before), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, orders), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, statuses), 0);
    fcntl(job.master, F_SETFD, FD_CLOEXEC);
    job.shell = fork();
    if (job.shell == 0) {
        close(orders[0]); /* so that who waits for orders ends with the test */
        close(statuses[0]);
        be_shell(&job, orders[1], statuses[1], in_background, argv);
    }
    close(orders[1]);
    close(statuses[1]);
    job.orders = orders[0];
    job.statuses = statuses[0];
    job.shown_bytes = 0;
    cr_assert_eq(read(job.statuses, &job.pid, sizeof job.pid), (ssize_t)sizeof job.pid);
}

static void job_close(void)
{
    kill(job.pid, SIGKILL);
    kill(job.shell, SIGKILL);
    waitpid(job.shell, NULL, 0);
    close(job.orders);
    close(job.statuses);
    close(job.master);
    close(job.slave);
}

static void job_await_text(const char *text)
{
    while (memmem(job.shown, job.shown_bytes, text, strlen(text)) == NULL) {
        ssize_t got = read(job.master, job.shown + job.shown_bytes, sizeof job.shown - job.shown_bytes);

        cr_assert_gt(got, 0);
        job.shown_bytes += (size_t)got;
    }
}

static int job_await_status(void)
{
    int status = -1;

    cr_assert_eq(read(job.statuses, &status, sizeof status), (ssize_t)sizeof status);
    return status;
}

static bool is_raw(void)
{
    struct termios now;

    cr_assert_eq(tcgetattr(job.slave, &now), 0);
    return (now.c_lflag & (ICANON | ECHO | ISIG)) == 0;
}

static void job_await_raw(void)
{
    while (!is_raw()) {
        sched_yield();
    }
}

static void job_type(const char *keys)
{
    cr_assert_eq(write(job.master, keys, strlen(keys)), (ssize_t)strlen(keys));
}

static void job_bring_forward(void)
{
    char order = ORDER_FORWARD;

    cr_assert_eq(write(job.orders, &order, 1), 1);
    cr_assert_eq(read(job.orders, &order, 1), 1);
}

/* As a shell does when it takes the terminal back. */
static void make_sane(void)
{
    cr_assert_eq(tcsetattr(job.slave, TCSANOW, &job.before), 0);
}

static void expect_left(void)
{
    int status = job_await_status();

    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
    cr_expect_not(is_raw(), "the terminal is as before");
    job_close();
}

static void start_in_foreground(void)
{
    MAKE_KERNEL(never_reads);
    job_start(false);
    job_await_text("L");
    job_await_raw();
}

Test(outside, control_a_x_leaves_whatever_keys_wait, .timeout = 60)
{
    static const unsigned counts[] = {0, 1, 2, 20, 600};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        start_in_foreground();
        for (unsigned k = 0; k < counts[i]; k++) {
            job_type("k");
        }
        job_type("\001x");
        expect_left();
    }
}

/* A key that comes meanwhile is answered afterwards. */
Test(outside, control_a_p_pauses_and_goes_on, .timeout = 60)
{
    struct pollfd shown;

    MAKE_KERNEL(echoes);
    job_start(false);
    job_await_text(">");
    job_await_raw();
    shown = (struct pollfd){.fd = job.master, .events = POLLIN};
    job_type("\001p");
    job_await_text("the guest is paused: Ctrl-a p lets it go on\r\r\n");
    job_type("!");
    cr_expect_eq(poll(&shown, 1, 300), 0, "the guest answers");
    job_type("\001p");
    job_await_text("the guest goes on\r\r\n");
    job_await_text("!");
    job_type("\n");
    expect_left();
}

/* Stopped by a signal that can be seen, or by one that cannot; the shell may have taken the terminal back, or not. */
static void stop_and_go_on(int number, bool shell_takes_terminal)
{
    int status;

    start_in_foreground();
    kill(job.pid, number);
    status = job_await_status();
    cr_assert(WIFSTOPPED(status) && WSTOPSIG(status) == number, "status 0x%x", (unsigned)status);
    cr_expect(number == SIGSTOP || !is_raw(), "the terminal is given back before the stop");
    if (shell_takes_terminal) {
        make_sane();
    }
    job_bring_forward();
    job_await_raw();
    job_type("\001x");
    expect_left();
}

Test(outside, stopped_and_continued_the_terminal_is_raw_again, .timeout = 60)
{
    stop_and_go_on(SIGSTOP, true);
    stop_and_go_on(SIGTSTP, true);
    stop_and_go_on(SIGTSTP, false);
}

Test(outside, brought_forward_keys_reach_it, .timeout = 60)
{
    MAKE_KERNEL(never_reads);
    job_start(true);
    job_await_text("L");
    cr_expect_not(is_raw(), "a job in the background leaves the terminal alone");
    job_bring_forward();
    job_await_raw();
    job_type("\001x");
    expect_left();
}

Test(outside, whatever_ends_it_the_terminal_is_restored, .timeout = 120)
{
    static const int numbers[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT, SIGUSR1,   SIGUSR2, SIGALRM,
                                  SIGXCPU, SIGSEGV, SIGABRT, SIGBUS,  SIGVTALRM, SIGPIPE};

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        bool is_orderly = i < 3;
        int status;

        if (SANITIZER_MAPS && (numbers[i] == SIGSEGV || numbers[i] == SIGBUS)) {
            continue; /* the sanitizer's own */
        }
        start_in_foreground();
        kill(job.pid, numbers[i]);
        status = job_await_status();
        cr_expect(is_orderly ? WIFEXITED(status) && WEXITSTATUS(status) == 128 + numbers[i]
                             : WIFSIGNALED(status) && WTERMSIG(status) == numbers[i],
                  "signal %d: status 0x%x", numbers[i], (unsigned)status);
        cr_expect_not(is_raw(), "left raw by signal %d", numbers[i]);
        job_close();
    }
}

/* The index-th thread of the running process; 0: it has fewer. */
static pid_t thread_at(size_t index)
{
    char path[64];
    const struct dirent *entry = NULL;
    DIR *directory;
    pid_t thread = 0;

    snprintf(path, sizeof path, "/proc/%d/task", job.pid);
    directory = opendir(path);
    cr_assert_not_null(directory, "%s", path);
    for (size_t i = 0; i <= index && (entry = readdir(directory)) != NULL;) {
        i += entry->d_name[0] != '.';
    }
    thread = entry != NULL ? (pid_t)strtol(entry->d_name, NULL, 10) : 0;
    closedir(directory);
    return thread;
}

/* Whether a thread of the running process does not hear a signal. */
static bool blocks(pid_t thread, int number)
{
    char path[64], line[128];
    unsigned long long blocked = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/task/%d/status", job.pid, thread);
    file = fopen(path, "re");
    cr_assert_not_null(file, "%s", path);
    while (fgets(line, sizeof line, file) != NULL) {
        (void)sscanf(line, "SigBlk: %llx", &blocked);
    }
    fclose(file);
    return (blocked >> (number - 1) & 1) != 0;
}

/* The kernel hands a signal to any thread; a vCPU's may do less than others. */
Test(outside, whichever_thread_it_ends_the_terminal_is_restored, .timeout = 120)
{
    size_t index = 0;

    for (bool has_thread = true; has_thread; index++) {
        pid_t thread;
        int status;

        start_in_foreground();
        thread = thread_at(index);
        has_thread = thread > 0;
        syscall(SYS_tgkill, job.pid, has_thread && !blocks(thread, SIGABRT) ? thread : job.pid, SIGABRT);
        status = job_await_status();
        cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "thread %zu: status 0x%x", index,
                  (unsigned)status);
        cr_expect_not(is_raw(), "left raw by thread %zu", index);
        job_close();
    }
    cr_expect_gt(index, 2, "the vCPU's thread was not among them");
}

/* --- The sandbox -------------------------------------------------------------------------------------------------- */

/* Of each thread of the running process, in /proc: a line "NAME:\tVALUE". -1: there is none. */
static long status_of(const char *thread, const char *name)
{
    char path[128], line[256];
    long value = -1;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/task/%s/status", process.pid, thread);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
            value = strtol(line + strlen(name) + 1, NULL, 10);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return value;
}

struct threads {
    uint32_t count;
    uint32_t filters[3]; /* threads that have so many, 2 or more */
    uint32_t unprivileged;
};

static struct threads count_threads(uid_t uid)
{
    struct threads threads = {.count = 0};
    char path[64];
    const struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof path, "/proc/%d/task", process.pid);
    tasks = opendir(path);
    cr_assert_not_null(tasks);
    while ((entry = readdir(tasks)) != NULL) {
        long filters = entry->d_name[0] != '.' ? status_of(entry->d_name, "Seccomp_filters") : -1;

        if (entry->d_name[0] != '.') {
            threads.count++;
            threads.filters[filters < 0 ? 0 : filters > 2 ? 2 : filters]++;
            threads.unprivileged += status_of(entry->d_name, "Uid") == (long)uid;
        }
    }
    closedir(tasks);
    return threads;
}

Test(outside, every_thread_is_in_the_sandbox)
{
    struct threads threads;

    MAKE_KERNEL(never_reads);
    START(-1, -1, -1, WITH_KERNEL, "--vcpus", "2");
    cr_assert(process_expect(&process, "L"));
    threads = count_threads(geteuid());
    cr_expect_gt(threads.count, 3);
    cr_expect_geq(threads.filters[2], 2, "%u threads have two filters: both vCPUs, and what KVM starts for them",
                  threads.filters[2]);
    cr_expect_eq(threads.filters[0], 0, "%u threads of %u have none", threads.filters[0], threads.count);
    kill(process.pid, SIGTERM);
    expect_end(128 + SIGTERM, "stopped by signal 15");
}

Test(outside, without_the_sandbox_is_said)
{
    struct threads threads;

    MAKE_KERNEL(never_reads);
    START(-1, -1, -1, WITH_KERNEL, "--no-sandbox");
    cr_assert(process_expect(&process, "L"));
    threads = count_threads(geteuid());
    cr_expect_eq(threads.filters[0], threads.count);
    kill(process.pid, SIGTERM);
    expect_end(128 + SIGTERM, "--no-sandbox: a guest that takes over this process has its user's rights");
}

Test(outside, root_is_dropped)
{
    struct threads threads;

    need_root();
    MAKE_KERNEL(never_reads);
    START(-1, -1, -1, WITH_KERNEL, "--uid", "65534");
    cr_assert(process_expect(&process, "L"));
    threads = count_threads(65534);
    cr_expect_eq(threads.unprivileged, threads.count);
    kill(process.pid, SIGTERM);
    expect_end(128 + SIGTERM, "stopped by signal 15");
}
