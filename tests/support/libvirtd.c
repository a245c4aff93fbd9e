// SPDX-License-Identifier: Apache-2.0
#include "tests/support/libvirtd.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MILLISECONDS 60000
#define STOP_MILLISECONDS  20000
#define LINE_BYTES         1024
#define OPEN_MAX           8 /* daemons of one test that are ended for it */

/* What the test says to the keeper; the answer is GOOD or BAD. */
enum order { ORDER_RESTART = 'r', ORDER_KILL = 'k', ORDER_END = 'e', GOOD = 'y', BAD = 'n' };

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- Files ------------------------------------------------------------------------------------------------------ */

__attribute__((format(printf, 3, 4))) static const char *path_of(char *path, const struct libvirtd *daemon,
                                                                 const char *format, ...)
{
    size_t length = strlen(strcpy(path, daemon->folder));
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(path + length, LIBVIRTD_PATH_MAX - length, format, arguments);
    va_end(arguments);
    return path;
}

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return good;
}

static const char *program(void)
{
    static const char *const paths[] = {"/usr/sbin/libvirtd", "/usr/local/sbin/libvirtd", "/usr/bin/libvirtd"};

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (access(paths[i], X_OK) == 0) {
            return paths[i];
        }
    }
    return NULL;
}

static uid_t owner;
static gid_t owner_group;

static int give_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return lchown(path, owner, owner_group);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    (void)remove(path);
    return 0;
}

static bool remove_tree(const char *folder)
{
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return access(folder, F_OK) != 0;
}

/* --- Its configuration ------------------------------------------------------------------------------------------ */

/* Two daemons of one host tell themselves apart by this. */
static void make_uuid(char text[40])
{
    unsigned char bytes[16] = {0};
    size_t length = 0;

    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) {
        memcpy(bytes, &(pid_t){getpid()}, sizeof(pid_t));
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        const char *dash = i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "";

        length += (size_t)snprintf(text + length, 40 - length, "%s%02x", dash, bytes[i]);
    }
}

/* A port of 127.0.0.1 that nobody has just now; 0: none. */
static unsigned find_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unsigned port = 0;

    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, bytes) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &bytes) == 0) {
        port = ntohs(address.sin_port);
    }
    if (fd >= 0) {
        close(fd);
    }
    return port;
}

static bool write_daemon_settings(struct libvirtd *daemon, const char *path, bool listens_on_tcp)
{
    unsigned port = listens_on_tcp ? find_port() : 0;
    char text[LINE_BYTES], uuid[40];
    size_t length;

    make_uuid(uuid);
    length = (size_t)snprintf(text, sizeof text,
                              "host_uuid = \"%s\"\nlog_outputs = \"3:file:%s/libvirtd.log\"\n"
                              "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nlisten_tls = 0\n",
                              uuid, daemon->folder);
    if (port != 0) {
        snprintf(text + length, sizeof text - length,
                 "listen_tcp = 1\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"%u\"\nauth_tcp = \"none\"\n", port);
        snprintf(daemon->tcp_uri, sizeof daemon->tcp_uri, "qemu+tcp://127.0.0.1:%u/%s", port,
                 daemon->kind == LIBVIRTD_SYSTEM ? "system" : "session");
    }
    return (port != 0 || !listens_on_tcp) && write_file(path, text);
}

/* Its folders below the one that was made, and what it reads. */
static bool furnish(struct libvirtd *daemon, bool listens_on_tcp)
{
    static const char *const system_folders[] = {"/etc", "/lib", "/run", "/cache", "/log", "/dev", "/lent", NULL};
    static const char *const session_folders[] = {"/run",  "/config", "/config/libvirt", "/cache", "/data",
                                                  "/home", "/dev",    "/lent",           NULL};
    bool is_system = daemon->kind == LIBVIRTD_SYSTEM;
    const char *settings = is_system ? "/etc" : "/config/libvirt";
    char path[LIBVIRTD_PATH_MAX];

    for (const char *const *folder = is_system ? system_folders : session_folders; *folder != NULL; folder++) {
        if (mkdir(path_of(path, daemon, "%s", *folder), 0755) != 0) {
            return false;
        }
    }
    /* Output of guests is written by the daemon itself, and not by a virtlogd. */
    if (!write_daemon_settings(daemon, path_of(path, daemon, "%s/libvirtd.conf", settings), listens_on_tcp) ||
        !write_file(path_of(path, daemon, "%s/qemu.conf", settings),
                    "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n")) {
        return false;
    }
    snprintf(daemon->uri, sizeof daemon->uri, "qemu+unix:///%s?socket=%s/run/%s", is_system ? "system" : "session",
             daemon->folder, is_system ? "libvirt-sock" : "libvirt/libvirt-sock");
    return is_system || chmod(path_of(path, daemon, "/run"), 0700) == 0;
}

/* Called by root, a session is nobody's, with the group that may use KVM. */
static bool find_owner(const struct libvirtd *daemon)
{
    const struct passwd *nobody = getpwnam("nobody");
    const struct group *kvm = getgrnam("kvm");

    owner = geteuid();
    owner_group = getegid();
    if (daemon->kind == LIBVIRTD_SYSTEM || owner != 0) {
        return true;
    }
    if (nobody == NULL) {
        return false;
    }
    owner = nobody->pw_uid;
    owner_group = kvm != NULL ? kvm->gr_gid : nobody->pw_gid;
    return nftw(daemon->folder, give_one, 16, FTW_PHYS | FTW_MOUNT) == 0;
}

/* --- The process that becomes the daemon ------------------------------------------------------------------------- */

static bool bind_over(const struct libvirtd *daemon, const char *from, const char *over)
{
    char path[LIBVIRTD_PATH_MAX];

    return mount(path_of(path, daemon, "%s", from), over, NULL, MS_BIND, NULL) == 0;
}

/* A /dev/kvm that the group kvm may use, where the host's may be root's alone. */
static bool mount_kvm(const struct libvirtd *daemon)
{
    const struct group *kvm = getgrnam("kvm");
    char path[LIBVIRTD_PATH_MAX];
    struct stat status;

    if (stat("/dev/kvm", &status) != 0 || kvm == NULL) {
        return true;
    }
    if (mount("none", path_of(path, daemon, "/dev"), "tmpfs", MS_NOSUID, "mode=755") != 0 ||
        mknod(path_of(path, daemon, "/dev/kvm"), S_IFCHR | 0660, status.st_rdev) != 0) {
        return false;
    }
    return chown(path, 0, kvm->gr_gid) == 0 && chmod(path, 0660) == 0 &&
           mount(path, "/dev/kvm", NULL, MS_BIND, NULL) == 0;
}

/* No systemd (below /run) and no control groups, in which the daemon would leave folders. */
static bool mount_all(const struct libvirtd *daemon)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || !mount_kvm(daemon)) {
        return false;
    }
    while (umount2("/sys/fs/cgroup", MNT_DETACH) == 0) { /* with all that is mounted below it */
    }
    if (mount("none", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") != 0 || mkdir("/run/lock", 0) != 0 ||
        chmod("/run/lock", 01777) != 0) { /* where whoever opens a console says so */
        return false;
    }
    if (daemon->kind == LIBVIRTD_SESSION) {
        return true;
    }
    return mkdir("/run/libvirt", 0755) == 0 && bind_over(daemon, "/run", "/run/libvirt") &&
           bind_over(daemon, "/etc", "/etc/libvirt") && bind_over(daemon, "/lib", "/var/lib/libvirt") &&
           bind_over(daemon, "/cache", "/var/cache/libvirt") && bind_over(daemon, "/log", "/var/log/libvirt");
}

static bool become_owner(void)
{
    return geteuid() != 0 || owner == 0 ||
           (setgroups(0, NULL) == 0 && setresgid(owner_group, owner_group, owner_group) == 0 &&
            setresuid(owner, owner, owner) == 0);
}

static void become_daemon(const struct libvirtd *daemon)
{
    static const char *const names[] = {"HOME=%s/home", "XDG_RUNTIME_DIR=%s/run", "XDG_CONFIG_HOME=%s/config",
                                        "XDG_CACHE_HOME=%s/cache", "XDG_DATA_HOME=%s/data"};
    char variables[5][LIBVIRTD_PATH_MAX], pid_path[LIBVIRTD_PATH_MAX];
    char *environment[8] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"};
    char *argv[] = {
        (char *)program(), "--daemon", "--pid-file", pid_path, daemon->tcp_uri[0] ? "--listen" : NULL, NULL};
    sigset_t none;

    for (size_t i = 0; daemon->kind == LIBVIRTD_SESSION && i < 5; i++) {
        snprintf(variables[i], sizeof variables[i], names[i], daemon->folder);
        environment[2 + i] = variables[i];
    }
    path_of(pid_path, daemon, "/%s", daemon->kind == LIBVIRTD_SYSTEM ? "pid" : "home/pid");
    for (int number = 1; number < NSIG; number++) {
        signal(number, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if ((geteuid() == 0 && !mount_all(daemon)) || !become_owner() || chdir(daemon->folder) != 0) {
        _exit(126);
    }
    execve(argv[0], argv, environment);
    _exit(127);
}

/* --- The keeper -------------------------------------------------------------------------------------------------- */

static struct {
    struct libvirtd *daemon;
    int control, signals;
    pid_t starter; /* the daemon's first process, which ends when the daemon answers */
    int starter_status;
} keeper;

/* Whoever has ended is taken note of at once: libvirtd waits for its emulators to be gone. */
static void reap(void)
{
    struct signalfd_siginfo information;
    int status;
    pid_t pid;

    while (read(keeper.signals, &information, sizeof information) > 0) {
    }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == keeper.starter) {
            keeper.starter = 0;
            keeper.starter_status = status;
        }
    }
}

/* Reap until something has ended, or time is up. */
static bool await_child(int64_t deadline)
{
    struct pollfd child = {.fd = keeper.signals, .events = POLLIN};
    int64_t left = deadline - now_milliseconds();
    bool good = left > 0 && poll(&child, 1, (int)left) > 0;

    reap();
    return good;
}

static bool bring_up(void)
{
    int64_t deadline = now_milliseconds() + START_MILLISECONDS;

    keeper.starter_status = -1;
    keeper.starter = fork();
    if (keeper.starter == 0) {
        become_daemon(keeper.daemon);
    }
    while (keeper.starter > 0 && await_child(deadline)) {
    }
    return keeper.starter == 0 && WIFEXITED(keeper.starter_status) && WEXITSTATUS(keeper.starter_status) == 0;
}

static pid_t read_pid(const char *path)
{
    FILE *file = fopen(path, "re");
    int pid = -1;

    if (file != NULL) {
        pid = fscanf(file, "%d", &pid) == 1 ? pid : -1;
        fclose(file);
    }
    return pid;
}

static pid_t daemon_pid(void)
{
    char path[LIBVIRTD_PATH_MAX];

    return read_pid(path_of(path, keeper.daemon, "/%s", keeper.daemon->kind == LIBVIRTD_SYSTEM ? "pid" : "home/pid"));
}

/* A child of this process? Whoever starts a process that it does not wait for leaves it to the keeper. */
static pid_t parent_of(pid_t pid)
{
    char path[32], text[512], *end;
    int parent = -1;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file != NULL) {
        end = fgets(text, sizeof text, file) == NULL ? NULL : strrchr(text, ')');
        if (end != NULL && sscanf(end, ") %*c %d", &parent) != 1) {
            parent = -1;
        }
        fclose(file);
    }
    return parent;
}

/* Signal the daemon, and wait for its end. */
static bool take_down(int number, int64_t patience_milliseconds)
{
    int64_t deadline = now_milliseconds() + patience_milliseconds;
    pid_t pid = daemon_pid();

    if (pid <= 0 || parent_of(pid) != getpid()) {
        return true;
    }
    kill(pid, number);
    while (parent_of(pid) == getpid() && await_child(deadline)) {
    }
    return parent_of(pid) != getpid();
}

static void kill_children(void)
{
    DIR *processes = opendir("/proc");

    for (const struct dirent *entry; processes != NULL && (entry = readdir(processes)) != NULL;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (pid > 0 && parent_of(pid) == getpid()) {
            kill(pid, SIGKILL);
        }
    }
    if (processes != NULL) {
        closedir(processes);
    }
}

/* A child's children become the keeper's when it dies: so until there are none. */
static bool kill_descendants(void)
{
    int64_t deadline = now_milliseconds() + STOP_MILLISECONDS;

    for (;;) {
        kill_children();
        reap();
        if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD) {
            return true;
        }
        if (!await_child(deadline)) {
            return false;
        }
    }
}

static char obey(char order)
{
    switch (order) {
    case ORDER_KILL:
        return take_down(SIGKILL, STOP_MILLISECONDS) ? GOOD : BAD;
    case ORDER_RESTART:
        return take_down(SIGTERM, STOP_MILLISECONDS) && bring_up() ? GOOD : BAD;
    default:
        return BAD;
    }
}

/* Until the test says that it is over (true), or hangs up. */
static bool serve(void)
{
    for (char order = bring_up() ? GOOD : BAD; order != ORDER_END;) {
        struct pollfd ends[] = {{.fd = keeper.control, .events = POLLIN}, {.fd = keeper.signals, .events = POLLIN}};

        if (send(keeper.control, &order, 1, MSG_NOSIGNAL) != 1) {
            return false;
        }
        do {
            reap();
            if (poll(ends, 2, -1) < 0) {
                ends[0].revents = 0;
            }
        } while (ends[0].revents == 0);
        if (read(keeper.control, &order, 1) != 1) {
            return false;
        }
        order = order == ORDER_END ? order : obey(order);
    }
    return true;
}

static void print_log(const struct libvirtd *daemon)
{
    char path[LIBVIRTD_PATH_MAX], line[LINE_BYTES];
    FILE *log = fopen(path_of(path, daemon, "/libvirtd.log"), "re");

    while (log != NULL && fgets(line, sizeof line, log) != NULL) {
        fputs(line, stderr);
    }
    if (log != NULL) {
        fclose(log);
    }
}

/* Nothing of the test's is held, but the line to it; signals for its group are for others. */
static void keep(struct libvirtd *daemon, int control)
{
    int null = open("/dev/null", O_RDWR);
    sigset_t child;
    char last;

    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "libvirtd-keeper");
    for (int number = 1; number < NSIG; number++) {
        signal(number, number == SIGCHLD ? SIG_DFL : SIG_IGN);
    }
    for (int fd = 0; fd < 3; fd++) {
        dup2(null, fd);
    }
    dup2(control, 3); /* which null may have been */
    syscall(SYS_close_range, 4, ~0u, 0);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_SETMASK, &child, NULL);
    keeper.daemon = daemon;
    keeper.control = 3;
    keeper.signals = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
    fcntl(3, F_SETFD, FD_CLOEXEC);
    if (serve()) {
        (void)take_down(SIGTERM, STOP_MILLISECONDS / 2);
    } /* else whoever ran the test may kill this process at any moment: there is no time for farewells */
    last = kill_descendants() && remove_tree(daemon->folder) ? GOOD : BAD;
    (void)send(3, &last, 1, MSG_NOSIGNAL);
    _exit(0);
}

/* --- What tests call --------------------------------------------------------------------------------------------- */

const char *libvirtd_lack(enum libvirtd_kind kind)
{
    static const char *const folders[] = {"/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"};
    int status = 0;
    pid_t pid;

    if (program() == NULL) {
        return "libvirtd is not installed";
    }
    if (kind == LIBVIRTD_SYSTEM && geteuid() != 0) {
        return "a libvirtd of the system's kind needs root";
    }
    for (size_t i = 0; kind == LIBVIRTD_SYSTEM && i < sizeof folders / sizeof folders[0]; i++) {
        if (access(folders[i], F_OK) != 0) {
            return "libvirtd is not installed as its package does: a folder of its own is missing";
        }
    }
    if (geteuid() != 0) {
        return NULL;
    }
    pid = fork();
    if (pid == 0) {
        _exit(unshare(CLONE_NEWNS) != 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        return "no mount namespace can be made here";
    }
    return NULL;
}

/* The keeper's answer, within so long. */
static bool await_answer(const struct libvirtd *daemon, int64_t patience_milliseconds)
{
    struct pollfd answer = {.fd = daemon->control, .events = POLLIN};
    char what = BAD;

    return poll(&answer, 1, (int)patience_milliseconds) == 1 && read(daemon->control, &what, 1) == 1 && what == GOOD;
}

static bool give_order(struct libvirtd *daemon, char order)
{
    return send(daemon->control, &order, 1, MSG_NOSIGNAL) == 1 &&
           await_answer(daemon, START_MILLISECONDS + STOP_MILLISECONDS);
}

/*
 * Daemons of this process that were not ended: a check that fails leaves the test without doing so. What runs the tests
 * may kill whatever outlives them, keepers too, so they are waited for at the process's end.
 */
static struct {
    pid_t process, keeper;
    int control;
} open_daemons[OPEN_MAX];

static void end_open_daemons(void)
{
    for (size_t i = 0; i < OPEN_MAX; i++) {
        if (open_daemons[i].process == getpid()) {
            close(open_daemons[i].control);
            waitpid(open_daemons[i].keeper, NULL, 0);
        }
    }
}

static void note_open(const struct libvirtd *daemon)
{
    static bool is_registered;
    size_t i = 0;

    while (i < OPEN_MAX && open_daemons[i].process == getpid()) {
        i++;
    }
    if (i < OPEN_MAX) {
        open_daemons[i].process = getpid();
        open_daemons[i].keeper = daemon->keeper;
        open_daemons[i].control = daemon->control;
    }
    is_registered = is_registered || atexit(end_open_daemons) == 0;
}

static void forget_open(const struct libvirtd *daemon)
{
    for (size_t i = 0; i < OPEN_MAX; i++) {
        if (open_daemons[i].keeper == daemon->keeper) {
            open_daemons[i].process = 0;
        }
    }
}

bool libvirtd_start(struct libvirtd *daemon, enum libvirtd_kind kind, bool listens_on_tcp)
{
    int ends[2] = {-1, -1};

    *daemon = (struct libvirtd){.kind = kind, .control = -1, .folder = "/tmp/loam-lv.XXXXXX"};
    if (mkdtemp(daemon->folder) == NULL) {
        return false;
    }
    if (chmod(daemon->folder, 0755) == 0 && furnish(daemon, listens_on_tcp) && find_owner(daemon) &&
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
        daemon->keeper = fork();
        if (daemon->keeper == 0) {
            keep(daemon, ends[1]);
        }
        close(ends[1]);
        daemon->control = ends[0];
        if (daemon->keeper > 0 && await_answer(daemon, START_MILLISECONDS)) {
            note_open(daemon);
            return true;
        }
        print_log(daemon);
    }
    (void)libvirtd_end(daemon);
    return false;
}

bool libvirtd_restart(struct libvirtd *daemon)
{
    return give_order(daemon, ORDER_RESTART);
}

bool libvirtd_kill(struct libvirtd *daemon)
{
    return give_order(daemon, ORDER_KILL);
}

bool libvirtd_end(struct libvirtd *daemon)
{
    bool good = true;

    forget_open(daemon);
    if (daemon->keeper > 0) {
        good = give_order(daemon, ORDER_END);
        close(daemon->control); /* should it still be at work, it hears of it */
        waitpid(daemon->keeper, NULL, 0);
    } else if (daemon->folder[0] != '\0') {
        good = remove_tree(daemon->folder);
    }
    *daemon = (struct libvirtd){.control = -1};
    return good;
}

bool libvirtd_lend(struct libvirtd *daemon, const char *source, const char *name, char path[LIBVIRTD_PATH_MAX])
{
    struct stat status = {0};
    int from = open(source, O_RDONLY | O_CLOEXEC), to = -1;
    ssize_t got = 1;

    path_of(path, daemon, "/lent/%s", name);
    if (from >= 0 && fstat(from, &status) == 0) {
        to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    }
    for (char bytes[65536]; to >= 0 && got > 0;) {
        got = read(from, bytes, sizeof bytes);
        if (got > 0 && write(to, bytes, (size_t)got) != got) {
            got = -1;
        }
    }
    if (to >= 0) {
        got = fchmod(to, (status.st_mode & 0111) != 0 ? 0755 : 0644) == 0 ? got : -1;
        close(to);
    }
    if (from >= 0) {
        close(from);
    }
    return to >= 0 && got == 0;
}

pid_t libvirtd_emulator(const struct libvirtd *daemon, const char *domain)
{
    char path[LIBVIRTD_PATH_MAX];

    return read_pid(path_of(
        path, daemon, daemon->kind == LIBVIRTD_SYSTEM ? "/run/qemu/%s.pid" : "/run/libvirt/qemu/run/%s.pid", domain));
}
