// SPDX-License-Identifier: Apache-2.0
/* Each case is a child that enters the sandbox, which nobody leaves, and does one thing there. */
#include "vmm/sandbox.h"

#include "tests/support/sanitizer.h"
#include "vmm/sandbox_table.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a BUILD file: whether the table's rows for sanitizers are in the filters; 0 for who looks at this file alone. */
#ifndef LOAM_SANITIZED
#define LOAM_SANITIZED 0
#endif

#define SKIP_WHERE_A_SANITIZER_HAS_ROWS()                                                                              \
    do {                                                                                                               \
        if (LOAM_SANITIZED) {                                                                                          \
            cr_skip("a sanitizer's calls are allowed in this build");                                                  \
        }                                                                                                              \
    } while (0)

enum place { IN_REST, IN_ANEW, IN_DEBUGGER, IN_DOMAIN, IN_NETWORK, IN_VCPU };

/* 0: as it should be. What is forbidden does not return. */
typedef int act_fn(void);

struct act {
    const char *name;
    act_fn *act;
};

static bool enter(enum place place)
{
    const char *const paths[] = {"/tmp/loam-sandbox-test"};
    const struct sandbox_needs needs = {.makes_machines = place == IN_ANEW,
                                        .has_debugger = place == IN_DEBUGGER,
                                        .is_domain = place == IN_DOMAIN || place == IN_NETWORK,
                                        .has_network = place == IN_NETWORK,
                                        .paths = paths,
                                        .path_count = place == IN_DEBUGGER || place == IN_DOMAIN};

    return sandbox_enter(&needs, NULL) == LOAM_OK && (place != IN_VCPU || sandbox_enter_vcpu(NULL) == LOAM_OK);
}

/* The child's wait status. */
static int run_in(enum place place, act_fn *act)
{
    const struct rlimit no_core = {0, 0};
    int status;
    pid_t child = fork();

    if (child == 0) {
        setrlimit(RLIMIT_CORE, &no_core);
        _exit(enter(place) ? act() : 99);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return status;
}

static void expect_killed(enum place place, const struct act *act)
{
    int status = run_in(place, act->act);

    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s: wait status %#x", act->name, (unsigned)status);
}

static void expect_done(enum place place, const struct act *act)
{
    int status = run_in(place, act->act);

    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status %#x", act->name, (unsigned)status);
}

/* --- What is forbidden ------------------------------------------------------------------------------------------- */

static int start_program(void)
{
    return execl("/bin/true", "true", NULL);
}

static int start_process(void)
{
    return (int)syscall(SYS_fork);
}

static int clone_process(void)
{
    return (int)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static int open_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int connect_socket(void)
{
    return connect(0, NULL, 0);
}

static int trace_another(void)
{
    return (int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static int signal_another(void)
{
    return kill(1, 0);
}

static int write_file(void)
{
    return open("/tmp/loam-sandbox-test", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static int open_for_both(void)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int remove_file(void)
{
    return unlink("/tmp/loam-sandbox-test");
}

static int map_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

static int allow_code(void)
{
    static char page[4096] __attribute__((aligned(4096)));

    return mprotect(page, sizeof page, PROT_READ | PROT_EXEC);
}

static int type_for_the_terminal(void)
{
    return ioctl(0, TIOCSTI, "x");
}

static int set_a_limit(void)
{
    const struct rlimit none = {0, 0};

    return setrlimit(RLIMIT_NOFILE, &none);
}

static int become_another(void)
{
    return setuid(65534);
}

static int load_bpf(void)
{
    return (int)syscall(SYS_bpf, 0, NULL, 0);
}

static int use_io_uring(void)
{
    return (int)syscall(SYS_io_uring_setup, 1, NULL);
}

static int make_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static const struct act forbidden[] = {
    {"execve", start_program},  {"fork", start_process},          {"clone", clone_process},
    {"socket", open_socket},    {"connect", connect_socket},      {"ptrace", trace_another},
    {"kill", signal_another},   {"open to write", write_file},    {"unlink", remove_file},
    {"mmap of code", map_code}, {"mprotect of code", allow_code}, {"TIOCSTI", type_for_the_terminal},
    {"setrlimit", set_a_limit}, {"setuid", become_another},       {"bpf", load_bpf},
    {"io_uring", use_io_uring}, {"unshare", make_namespace},
};

Test(sandbox, a_forbidden_call_ends_the_process)
{
    SKIP_WHERE_A_SANITIZER_HAS_ROWS();
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        expect_killed(IN_REST, &forbidden[i]);
        expect_killed(IN_VCPU, &forbidden[i]);
    }
    expect_killed(IN_REST, &(struct act){"open to read and write", open_for_both});
    expect_killed(IN_ANEW, &forbidden[0]);
    expect_killed(IN_ANEW, &(struct act){"socket", open_socket});
    expect_killed(IN_ANEW, &(struct act){"open to write", write_file});
}

Test(sandbox, a_domain_has_no_more_than_it_needs)
{
    SKIP_WHERE_A_SANITIZER_HAS_ROWS();
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        bool is_sockets = forbidden[i].act == open_socket || forbidden[i].act == connect_socket;
        bool is_left =
            forbidden[i].act == remove_file || forbidden[i].act == start_process || forbidden[i].act == clone_process;

        if (!is_left) {
            expect_killed(IN_DOMAIN, &forbidden[i]);
        }
        if (!is_left && !is_sockets) {
            expect_killed(IN_NETWORK, &forbidden[i]);
        }
    }
}

/* --- What a vCPU's thread has not -------------------------------------------------------------------------------- */

static int accept_a_debugger(void)
{
    return accept4(-1, NULL, NULL, 0) < 0 && errno == EBADF ? 0 : 1;
}

static int set_terminal(void)
{
    char state[64] = {0};

    return ioctl(-1, TCSETSW, state) < 0 && errno == EBADF ? 0 : 1;
}

static int make_machine(void)
{
    return ioctl(-1, _IO(0xae, 0x01), 0) < 0 && errno == EBADF ? 0 : 1;
}

static int take_a_filter(void)
{
    return syscall(SYS_seccomp, 1000, 0, NULL) < 0 && errno == EINVAL ? 0 : 1;
}

static const struct act of_the_rest[] = {
    {"TCSETSW", set_terminal},
    {"KVM_CREATE_VM", make_machine},
    {"seccomp", take_a_filter},
};

Test(sandbox, a_vcpu_has_less)
{
    SKIP_WHERE_A_SANITIZER_HAS_ROWS();
    for (size_t i = 0; i < sizeof of_the_rest / sizeof of_the_rest[0]; i++) {
        expect_done(IN_REST, &of_the_rest[i]);
        expect_killed(IN_VCPU, &of_the_rest[i]);
    }
    expect_done(IN_DEBUGGER, &(struct act){"accept4", accept_a_debugger});
    expect_killed(IN_REST, &(struct act){"accept4", accept_a_debugger});
    expect_killed(IN_VCPU, &(struct act){"accept4", accept_a_debugger});
}

/* --- What is left ------------------------------------------------------------------------------------------------ */

static void *return_nothing(void *self)
{
    return self;
}

static int start_thread(void)
{
    pthread_t thread;

    return pthread_create(&thread, NULL, return_nothing, NULL) == 0 && pthread_join(thread, NULL) == 0 ? 0 : 1;
}

static int read_proc(void)
{
    char byte;
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);

    return fd >= 0 && read(fd, &byte, 1) == 1 && close(fd) == 0 ? 0 : 1;
}

static int print(void)
{
    return write(STDERR_FILENO, "", 0) == 0 ? 0 : 1;
}

static int run_a_vcpu(void)
{
    return ioctl(-1, _IO(0xae, 0x80), 0) < 0 && errno == EBADF ? 0 : 1;
}

static int make_memory(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    return fd >= 0 && ftruncate(fd, 4096) == 0 && close(fd) == 0 ? 0 : 1;
}

static int open_kvm(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    return fd >= 0 || errno == ENOENT || errno == EACCES ? 0 : 1;
}

Test(sandbox, what_a_run_needs_is_left)
{
    static const struct act both[] = {{"read /proc", read_proc}, {"print", print}, {"KVM_RUN", run_a_vcpu}};

    for (size_t i = 0; i < sizeof both / sizeof both[0]; i++) {
        expect_done(IN_REST, &both[i]);
        expect_done(IN_VCPU, &both[i]);
        expect_done(IN_ANEW, &both[i]);
    }
    if (!SANITIZER_THREADS) { /* ThreadSanitizer wants none after a fork */
        expect_done(IN_REST, &(struct act){"a thread", start_thread});
    }
    expect_done(IN_ANEW, &(struct act){"memory", make_memory});
    expect_done(IN_ANEW, &(struct act){"/dev/kvm", open_kvm});
}

/* --- Landlock ---------------------------------------------------------------------------------------------------- */

static int open_refused(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);

    return fd < 0 && errno == EACCES ? 0 : 1;
}

static int read_passwords(void)
{
    return open_refused("/etc/passwd", O_RDONLY);
}

static int open_another_device(void)
{
    return open_refused("/dev/zero", O_RDWR);
}

Test(sandbox, files_are_out_of_reach)
{
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 0) {
        cr_skip("this kernel has no Landlock: %s", strerror(errno));
    }
    expect_done(IN_REST, &(struct act){"/etc/passwd", read_passwords});
    expect_done(IN_VCPU, &(struct act){"/etc/passwd", read_passwords});
    expect_done(IN_ANEW, &(struct act){"/dev/zero", open_another_device});
}

/* --- All threads ------------------------------------------------------------------------------------------------- */

static atomic_bool is_in;

static void *open_socket_once_in(void *self)
{
    (void)self;
    while (!atomic_load(&is_in)) {
        sched_yield();
    }
    return (void *)(intptr_t)open_socket();
}

/* Before fork, threads of a test would be gone: this one is the child's. */
static int call_from_an_earlier_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, open_socket_once_in, NULL) != 0 || !enter(IN_REST)) {
        return 1;
    }
    atomic_store(&is_in, true);
    pthread_join(thread, NULL);
    return 2;
}

Test(sandbox, threads_that_began_before_are_held_too)
{
    const struct rlimit no_core = {0, 0};
    int status;
    pid_t child;

    SKIP_WHERE_A_SANITIZER_HAS_ROWS();
    child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &no_core);
        _exit(call_from_an_earlier_thread());
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "wait status %#x", (unsigned)status);
}

/* --- The table --------------------------------------------------------------------------------------------------- */

Test(sandbox, each_row_has_a_reason)
{
    for (size_t i = 0; i < sandbox_rule_count; i++) {
        const struct sandbox_rule *rule = &sandbox_rules[i];

        cr_expect(rule->reason != NULL && rule->reason[0] != '\0', "%s", rule->call);
        cr_expect(rule->who != 0 && rule->argument.index < 6, "%s", rule->call);
        cr_expect_eq(rule->argument.value & ~rule->argument.mask, 0, "%s: a value beyond its mask never comes",
                     rule->call);
        for (size_t j = 0; j < i; j++) {
            const struct sandbox_rule *other = &sandbox_rules[j];

            cr_expect(strcmp(rule->call, other->call) != 0 || (rule->who & other->who) == 0 ||
                          memcmp(&rule->argument, &other->argument, sizeof rule->argument) != 0,
                      "%s is there twice", rule->call);
        }
    }
}
