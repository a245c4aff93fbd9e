// SPDX-License-Identifier: Apache-2.0
/* `loam domain` as a person meets it: files, standard input, names of a daemon's domains, and what becomes of them. */
#include "tests/integration/launch.h"
#include "tests/integration/tiny_kernel.h"
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 120000

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]

GUEST(tells);
GUEST(listens);
GUEST(resets);

static char folder[] = "/tmp/loam-domain-XXXXXX";
static char xml_path[64], kernel_path[64], initrd_path[64], serial_path[64];

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(xml_path, sizeof xml_path, "%s/it.xml", folder);
    snprintf(kernel_path, sizeof kernel_path, "%s/kernel", folder);
    snprintf(initrd_path, sizeof initrd_path, "%s/initrd", folder);
    snprintf(serial_path, sizeof serial_path, "%s/serial log", folder);
    unsetenv("VIRSH_DEFAULT_CONNECT_URI");
    unsetenv("LIBVIRT_DEFAULT_URI");
}

static void tear_down(void)
{
    unlink(xml_path);
    unlink(kernel_path);
    unlink(initrd_path);
    unlink(serial_path);
    cr_expect_eq(rmdir(folder), 0, "something was left in %s", folder);
}

TestSuite(domain_run, .init = set_up, .fini = tear_down);

/* A domain of 16 MiB on 4 KiB pages, and these elements. */
static void write_domain(const char *elements)
{
    char text[4096];

    snprintf(
        text, sizeof text,
        "<domain type='kvm'><name>it</name><memory unit='MiB'>16</memory>\n<memoryBacking><hugepages><page size='4' "
        "unit='KiB'/></hugepages></memoryBacking>\n%s</domain>\n",
        elements);
    tiny_kernel_write_file(xml_path, text, strlen(text));
}

/* One that boots kernel_path. */
static void write_kernel_domain(const char *os, const char *devices)
{
    char text[2048];

    snprintf(text, sizeof text,
             "<os><type arch='x86_64' machine='microvm'>hvm</type><kernel>%s</kernel>%s</os><devices>%s</devices>",
             kernel_path, os, devices);
    write_domain(text);
}

#define DOMAIN(process, ...) run_domain(process, (char *[]){__VA_ARGS__, NULL})

/* `loam domain` with these words. */
static int run_domain(struct process *process, char *const words[])
{
    char *argv[24] = {loam_path(), "domain"};
    size_t count = 2;

    for (; *words != NULL; words++) {
        cr_assert_lt(count, sizeof argv / sizeof argv[0] - 1);
        argv[count++] = *words;
    }
    return process_run(process, argv, LIMIT_MILLISECONDS);
}

static unsigned count_lines(const char *text)
{
    unsigned count = 0;

    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

/* --- Runs ---------------------------------------------------------------------------------------------------------- */

Test(domain_run, without_a_kernel_the_self_test_passes)
{
    static const char text[] = "<domain type='kvm'><name>self</name><memory unit='MiB'>64</memory><memoryBacking>"
                               "<hugepages><page size='4' unit='KiB'/></hugepages></memoryBacking>"
                               "<os><type arch='x86_64'>hvm</type></os>"
                               "<devices><serial type='stdio'/></devices></domain>";
    struct process process;

    need_kvm();
    tiny_kernel_write_file(xml_path, text, sizeof text - 1);
    cr_expect_eq(DOMAIN(&process, "run", xml_path), 0, "%s%s", process.out, process.err);
    cr_expect_not_null(strstr(process.out, "64 MiB as 16384 x 4 KiB pages"), "%s", process.out);
    cr_expect_not_null(strstr(process.out, "8 of 8 checks, guest and host agree"), "%s", process.out);
    process_end(&process);
}

Test(domain_run, a_kernel_has_its_command_line_and_initrd)
{
    struct process process;

    need_kvm();
    tiny_kernel_write(kernel_path, "test", guest_tells, guest_tells_end);
    tiny_kernel_write_file(initrd_path, "[initrd]\n", 9);
    char os[256];

    snprintf(os, sizeof os, "<initrd>%s</initrd><cmdline>console=ttyS0 a=\"b c\" 'd' $e</cmdline>", initrd_path);
    write_kernel_domain(os, "<serial type='pty'/>");
    cr_expect_eq(DOMAIN(&process, "run", xml_path), 42, "%s", process.err);
    cr_expect_str_eq(process.out, "console=ttyS0 a=\"b c\" 'd' $e[initrd]\n");
    process_end(&process);
}

Test(domain_run, a_guest_that_resets_itself_does_as_on_reboot_says)
{
    struct process process;

    need_kvm();
    tiny_kernel_write(kernel_path, "test", guest_resets, guest_resets_end);
    write_kernel_domain("", "");
    cr_expect_eq(DOMAIN(&process, "run", xml_path), 1, "%s", process.err);
    cr_expect_not_null(strstr(process.err, "10 times in a row"), "it did not start again: %s", process.err);
    process_end(&process);
    write_kernel_domain("", "</devices><on_reboot>destroy</on_reboot><devices>");
    cr_expect_eq(DOMAIN(&process, "run", "--ignore", "/domain/devices", xml_path), 0, "%s", process.err);
    process_end(&process);
}

static size_t read_serial(char *text, size_t bytes)
{
    int fd = open(serial_path, O_RDONLY);
    ssize_t got;

    cr_assert_geq(fd, 0, "%s is not there", serial_path);
    got = read(fd, text, bytes - 1);
    close(fd);
    cr_assert_geq(got, 0);
    text[got] = '\0';
    return (size_t)got;
}

Test(domain_run, a_serial_port_that_is_a_file)
{
    char devices[256], text[256];
    struct process process;
    struct stat status;

    need_kvm();
    tiny_kernel_write(kernel_path, "test", guest_tells, guest_tells_end);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(devices, sizeof devices, "<serial type='file'><source path='%s' append='%s'/></serial>", serial_path,
                 i == 1 ? "on" : "off");
        write_kernel_domain("<cmdline>x</cmdline>", devices);
        cr_expect_eq(DOMAIN(&process, "run", xml_path), 42, "%s", process.err);
        cr_expect_str_empty(process.out);
        process_end(&process);
        read_serial(text, sizeof text);
        cr_expect_str_eq(text, i == 1 ? "xx" : "x");
    }
    cr_expect(stat(serial_path, &status) == 0 && (status.st_mode & 077) == 0, "others may read %s", serial_path);
}

Test(domain_run, a_serial_port_that_is_nothing)
{
    struct process process;

    need_kvm();
    tiny_kernel_write(kernel_path, "test", guest_tells, guest_tells_end);
    write_kernel_domain("<cmdline>x</cmdline>", "<serial type='null'/>");
    cr_expect_eq(DOMAIN(&process, "run", xml_path), 42, "%s", process.err);
    cr_expect_str_empty(process.out);
    process_end(&process);
}

static int run_typing(const char *devices)
{
    char *argv[] = {loam_path(), "domain", "run", xml_path, NULL};
    struct process process;
    int status;

    write_kernel_domain("", devices);
    cr_assert(process_start(&process, argv, LIMIT_MILLISECONDS));
    signal(SIGPIPE, SIG_IGN); /* where nobody is typed at, the other end may be closed already */
    process_type(&process, "typed");
    status = process_wait(&process);
    process_end(&process);
    return status;
}

Test(domain_run, only_a_terminals_port_is_typed_at)
{
    char devices[256];

    need_kvm();
    tiny_kernel_write(kernel_path, "test", guest_listens, guest_listens_end);
    snprintf(devices, sizeof devices, "<serial type='file'><source path='%s'/></serial>", serial_path);
    cr_expect_eq(run_typing("<serial type='stdio'/>"), 9);
    cr_expect_eq(run_typing("<serial type='null'/>"), 0);
    cr_expect_eq(run_typing(devices), 0);
}

/* What is shown is what is run: bash runs the line, with the program in its path. */
Test(domain_run, the_line_shown_does_the_same)
{
    char devices[256], script[8192], text[256], *path = realpath(loam_path(), NULL);
    struct process process;

    need_kvm();
    tiny_kernel_write(kernel_path, "test", guest_tells, guest_tells_end);
    snprintf(devices, sizeof devices, "<serial type='file'><source path='%s'/></serial>", serial_path);
    write_kernel_domain("<cmdline>it's \"$x\"</cmdline>", devices);
    cr_expect_eq(DOMAIN(&process, "show", xml_path), 0, "%s", process.err);
    cr_expect_eq(count_lines(process.out), 1, "%s", process.out);
    cr_expect_eq(access(serial_path, F_OK), -1, "showing has made %s", serial_path);
    snprintf(script, sizeof script, "loam() { exec %s \"$@\"; }\n%s", path, process.out);
    process_end(&process);
    char *argv[] = {"/bin/bash", "-c", script, NULL};

    cr_expect_eq(process_run(&process, argv, LIMIT_MILLISECONDS), 42, "%s: %s", script, process.err);
    process_end(&process);
    read_serial(text, sizeof text);
    cr_expect_str_eq(text, "it's \"$x\"");
    free(path);
}

/* --- Where a domain comes from ------------------------------------------------------------------------------------- */

Test(domain_run, standard_input)
{
    char *argv[] = {"/bin/bash", "-c", "\"$0\" domain run --show - <\"$1\"", loam_path(), xml_path, NULL};
    struct process process;

    write_domain("");
    cr_expect_eq(process_run(&process, argv, LIMIT_MILLISECONDS), 0, "%s", process.err);
    cr_expect_str_eq(process.out, "loam run --memory 16M --pages 4K --vcpus 1\n");
    process_end(&process);
}

Test(domain_run, a_file_as_long_as_it_may_be)
{
    static char text[(1 << 20) + 2];
    struct process process;

    memset(text, ' ', sizeof text - 1);
    memcpy(text, "<domain><memory>65536</memory>", 30);
    memcpy(text + (1 << 20) - 9, "</domain>", 9);
    tiny_kernel_write_file(xml_path, text, 1 << 20);
    cr_expect_eq(DOMAIN(&process, "show", xml_path), 0, "%s", process.err);
    cr_expect_str_eq(process.out, "loam run --memory 64M --vcpus 1\n");
    process_end(&process);
    tiny_kernel_write_file(xml_path, text, (1 << 20) + 1);
    cr_expect_eq(DOMAIN(&process, "show", xml_path), 2);
    cr_expect_str_eq(process.err, "loam domain: more than 1048576 bytes: no domain is so long\n");
    process_end(&process);
}

Test(domain_run, the_test_drivers_domain_is_refused_by_paths)
{
    static const char *const says[] = {
        "loam domain: /domain/@type: line 1: 'test': KVM is all there is here: only kvm: --ignore /domain/@type ",
        "loam domain: /domain/os/type/@arch: line ",
        "loam domain: /domain/devices/disk[1]: line ",
        "loam domain: /domain/devices/interface[1]: line ",
        "loam domain: /domain/currentMemory: line ",
    };
    struct process process;

    cr_expect_eq(DOMAIN(&process, "run", "--connect", "test:///default", "test"), 2);
    cr_expect_str_empty(process.out);
    for (size_t i = 0; i < sizeof says / sizeof says[0]; i++) {
        cr_expect_not_null(strstr(process.err, says[i]), "no '%s' in %s", says[i], process.err);
    }
    process_end(&process);
    cr_expect_eq(DOMAIN(&process, "show", "-c", "test:///default", "test", "--ignore", "/domain/@type", "--ignore",
                        "/domain/devices", "--ignore", "/domain/os", "--ignore", "/domain/currentMemory"),
                 0, "%s", process.err);
    cr_expect_str_eq(process.out, "loam run --memory 8G --vcpus 2\n");
    process_end(&process);
}

/* The test driver reads its domains from a file: one that can be run. */
Test(domain_run, a_name_is_run)
{
    static const char text[] =
        "<node><domain type='test'><name>self.xml</name><memory unit='MiB'>64</memory><memoryBacking><hugepages>"
        "<page size='4' unit='KiB'/></hugepages></memoryBacking><os><type "
        "arch='x86_64'>hvm</type></os></domain></node>";
    char uri[96];
    struct process process;

    need_kvm();
    tiny_kernel_write_file(xml_path, text, sizeof text - 1);
    snprintf(uri, sizeof uri, "test://%s", xml_path);
    cr_expect_eq(DOMAIN(&process, "run", "--connect", uri, "self.xml", "--ignore", "/domain/@type", "--ignore",
                        "/domain/os/boot"),
                 0, "%s%s", process.out, process.err);
    cr_expect_not_null(strstr(process.out, "8 of 8 checks, guest and host agree"), "%s", process.out);
    process_end(&process);
}

Test(domain_run, a_daemon_as_virsh_finds_it)
{
    struct process process;

    setenv("LIBVIRT_DEFAULT_URI", "test:///default", 1);
    cr_expect_eq(DOMAIN(&process, "show", "test"), 2);
    cr_expect_not_null(strstr(process.err, "'test': KVM is all there is here"), "%s", process.err);
    process_end(&process);
    setenv("VIRSH_DEFAULT_CONNECT_URI", "test:///no/such/file", 1);
    cr_expect_eq(DOMAIN(&process, "show", "test"), 3);
    cr_expect_not_null(strstr(process.err, "/no/such/file"), "%s", process.err);
    process_end(&process);
}

/* --- Mistakes ------------------------------------------------------------------------------------------------------ */

struct mistake {
    char words[6][48];
    char says[96];
    int status;
};

static struct mistake mistakes[] = {
    {{""}, "loam domain: no command: give run or show", 2},
    {{"fly"}, "loam domain: fly: give run or show", 2},
    {{"run"}, "loam domain run: no domain: give a FILE.xml, - or a NAME", 2},
    {{"show", "a.xml", "b.xml"}, "loam domain show: b.xml: one domain at a time: a.xml was given already", 2},
    {{"run", "--ignore", "devices", "a.xml"}, "loam domain run: --ignore devices: not a path: give one such as", 2},
    {{"run", "--ignore", "/domain/\033[2J/", "a.xml"}, "--ignore /domain/\\x1b[2J/: not a path", 2},
    {{"run", "--colour", "a.xml"}, "loam domain run: unrecognized option '--colour'", 2},
    {{"run", "/no/such/file.xml"}, "loam domain: /no/such/file.xml: No such file or directory", 2},
    {{"run", "/no\033[2J"}, "loam domain: /no\\x1b[2J: No such file or directory", 2},
    {{"run", "/"}, "loam domain: /: Is a directory", 2},
    {{"run", "/dev/null"}, "loam domain: empty: no XML", 2},
    {{"run", "/dev/zero"}, "loam domain: more than 1048576 bytes: no domain is so long", 2},
    {{"run", "-c", "test:///default", "nobody"}, "nobody", 2},
    {{"run", "-c", "test:///default", "/etc/passwd"}, "/etc/passwd", 2},
    {{"run", "-c", "no:///such", "test"}, "loam domain: no:///such: ", 3},
};

Test(domain_run, a_mistake_gets_one_line)
{
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        char *words[8] = {NULL};
        struct process process;

        for (unsigned k = 0; k < 6 && mistakes[i].words[k][0] != '\0'; k++) {
            words[k] = mistakes[i].words[k];
        }
        cr_expect_eq(run_domain(&process, words), mistakes[i].status, "%zu: %d: %s", i, process.status, process.err);
        cr_expect_str_empty(process.out);
        cr_expect(count_lines(process.err) == 1 || strstr(process.err, "unrecognized") != NULL, "%s", process.err);
        cr_expect_eq(strncmp(process.err, "loam domain", 11), 0, "%s", process.err);
        cr_expect_not_null(strstr(process.err, mistakes[i].says), "%s: does not say %s", process.err, mistakes[i].says);
        process_end(&process);
    }
}

/* Names in a file are anybody's: none reaches a terminal as it is. */
Test(domain_run, what_a_file_says_is_made_fit_to_be_shown)
{
    struct process process;

    write_domain("<on_crash>\xc2\x9b"
                 "2J</on_crash>");
    cr_expect_eq(DOMAIN(&process, "run", xml_path), 2);
    cr_expect_not_null(strstr(process.err, "'\\xc2\\x9b2J'"), "%s", process.err);
    cr_expect_null(strstr(process.err, "\xc2\x9b"), "%s", process.err);
    process_end(&process);
}

Test(domain_run, many_refusals_are_counted)
{
    char text[4096] = "<devices>";
    struct process process;

    for (unsigned i = 0; i < 40; i++) {
        strcat(text, "<disk/>");
    }
    write_domain(strcat(text, "</devices>"));
    cr_expect_eq(DOMAIN(&process, "run", xml_path), 2);
    cr_expect_eq(count_lines(process.err), 33, "%s", process.err);
    cr_expect_not_null(strstr(process.err, "\nloam domain: and 8 more\n"), "%s", process.err);
    process_end(&process);
    cr_expect_eq(DOMAIN(&process, "show", xml_path, "--ignore", "/domain/devices/disk"), 0, "%s", process.err);
    process_end(&process);
}

Test(domain_run, a_serial_file_that_cannot_be_opened)
{
    char devices[256];
    struct process process;

    snprintf(devices, sizeof devices, "<serial type='file'><source path='%s/no/log'/></serial>", folder);
    write_kernel_domain("", devices);
    cr_expect_eq(DOMAIN(&process, "run", xml_path), 3);
    cr_expect_not_null(strstr(process.err, "/no/log: No such file or directory\n"), "%s", process.err);
    process_end(&process);
}

Test(domain_run, the_help_says_it_all)
{
    struct process process;

    cr_expect_eq(DOMAIN(&process, "--help"), 0);
    cr_expect_str_empty(process.err);
    cr_expect_not_null(strstr(process.out, "Usage: loam domain run [OPTION...] FILE.xml|-|NAME"), "%s", process.out);
    process_end(&process);
    cr_expect_eq(DOMAIN(&process, "show", "--help"), 0);
    cr_expect_not_null(strstr(process.out, "--ignore=PATH"), "%s", process.out);
    process_end(&process);
}
