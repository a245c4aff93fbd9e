// SPDX-License-Identifier: Apache-2.0
/* The probe, as libvirtd makes it; and that what it announces is so. */
#include "tests/emulator/emulator_run.h"
#include "vmm/emulator/line.h"
#include "vmm/emulator/probe.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct emulator_run run;
static char pid_path[96];
static pid_t pid;

static void set_up(void)
{
    emulator_run_init(&run);
    snprintf(pid_path, sizeof pid_path, "%s/pid", run.folder);
}

static void tear_down(void)
{
    unlink(pid_path);
    emulator_run_end(&run);
}

TestSuite(probe, .init = set_up, .fini = tear_down, .timeout = 60);

/* The line that libvirtd writes; returns when the first process has ended. */
static void start_probe(char *accelerator)
{
    char machine[64], qmp[160];
    char *argv[] = {emulator_path(), "-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", machine,
                    "-qmp",          qmp,  "-pidfile",        pid_path,      "-daemonize", NULL};
    FILE *file;
    int number = 0;

    snprintf(machine, sizeof machine, "none,accel=%s", accelerator);
    snprintf(qmp, sizeof qmp, "unix:%s,server=on,wait=off", run.monitor_path);
    cr_assert_eq(process_run(&run.process, argv, EMULATOR_RUN_MILLISECONDS), 0, "%s", run.process.err);
    file = fopen(pid_path, "re");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%d", &number), 1);
    cr_assert_eq(fgetc(file), '\n');
    fclose(file);
    pid = number;
    emulator_run_connect(&run);
}

/* It ends because it is hung up on, and takes its files along. */
static void end_probe(void)
{
    struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};

    cr_assert_geq(ended.fd, 0);
    emulator_run_hang_up(&run);
    cr_expect_eq(poll(&ended, 1, EMULATOR_RUN_MILLISECONDS), 1, "it lives on");
    close(ended.fd);
    cr_expect_eq(access(pid_path, F_OK), -1);
    cr_expect_eq(access(run.monitor_path, F_OK), -1, "its socket is left behind");
}

static bool has_name(const json_t *list, const char *name)
{
    const json_t *entry;
    size_t i;

    json_array_foreach(list, i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0) {
            return true;
        }
    }
    return false;
}

Test(probe, it_serves_in_the_background_until_it_is_hung_up_on)
{
    json_t *answer;

    start_probe("kvm:tcg");
    answer = emulator_run_do(&run, "query-version", NULL);
    cr_expect_geq(json_integer_value(json_object_get(json_object_get(answer, "qemu"), "major")), 5);
    json_decref(answer);
    answer = emulator_run_do(&run, "query-target", NULL);
    cr_expect_str_eq(json_string_value(json_object_get(answer, "arch")), "x86_64");
    json_decref(answer);
    end_probe();
}

Test(probe, kvm_is_there_if_it_is)
{
    bool is_there = access("/dev/kvm", R_OK | W_OK) == 0;
    json_t *answer;

    start_probe("kvm:tcg");
    answer = emulator_run_do(&run, "query-kvm", NULL);
    cr_expect_eq(json_is_true(json_object_get(answer, "present")), is_there);
    cr_expect_eq(json_is_true(json_object_get(answer, "enabled")), is_there);
    json_decref(answer);
    end_probe();
}

Test(probe, what_libvirt_looks_for_is_there_and_what_loam_lacks_is_not)
{
    static const char *const there[] = {"memory-backend-memfd", "memory-backend-file", "memory-backend-ram",
                                        "virtio-mmio",          "virtio-rng-device",   "rng-random",
                                        "isa-serial",           "kvm-accel",           "max-x86_64-cpu"};
    static const char *const absent[] = {"tcg-accel", "virtio-gpu-device", "vhost-vsock-device", "virtio-blk-pci",
                                         "q35"};
    json_t *types;

    start_probe("kvm:tcg");
    types = emulator_run_do(&run, "qom-list-types", NULL);
    for (size_t i = 0; i < sizeof there / sizeof there[0]; i++) {
        cr_expect(has_name(types, there[i]), "%s is not announced", there[i]);
    }
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        cr_expect_not(has_name(types, absent[i]), "%s is announced", absent[i]);
    }
    json_decref(types);
    emulator_run_refused(&run, "device-list-properties", json_pack("{ss}", "typename", "virtio-gpu-device"),
                         "DeviceNotFound", "virtio-gpu-device");
    end_probe();
}

Test(probe, libvirt_can_switch_the_sandbox_off)
{
    json_t *options;
    const json_t *keys;

    start_probe("kvm:tcg");
    options = emulator_run_do(&run, "query-command-line-options", NULL);
    cr_expect_eq(json_array_size(options), 1, "libvirt is told of an option that nobody has tried with it");
    cr_expect_str_eq(json_string_value(json_object_get(json_array_get(options, 0), "option")), "sandbox");
    keys = json_object_get(json_array_get(options, 0), "parameters");
    cr_expect(has_name(keys, "enable") && has_name(keys, "elevateprivileges"));
    json_decref(options);
    end_probe();
}

Test(probe, the_properties_that_switch_something_on_are_there)
{
    static const char *const properties[][2] = {
        {"memory-backend-memfd", "hugetlb"},
        {"memory-backend-file", "prealloc-threads"},
        {"virtio-balloon-device", "deflate-on-oom"},
        {"virtio-balloon-device", "free-page-reporting"},
        {"PIIX4_PM", "disable_s3"},
        {"PIIX4_PM", "disable_s4"},
    };

    start_probe("kvm:tcg");
    for (size_t i = 0; i < sizeof properties / sizeof properties[0]; i++) {
        json_t *list = emulator_run_do(&run, "qom-list-properties", json_pack("{ss}", "typename", properties[i][0]));

        cr_expect(has_name(list, properties[i][1]), "%s of %s is not announced", properties[i][1], properties[i][0]);
        json_decref(list);
    }
    end_probe();
}

Test(probe, there_is_one_machine_and_no_default_cpu)
{
    json_t *machines;
    const json_t *machine;

    start_probe("kvm:tcg");
    machines = emulator_run_do(&run, "query-machines", NULL);
    cr_assert_eq(json_array_size(machines), 1);
    machine = json_array_get(machines, 0);
    cr_expect_str_eq(json_string_value(json_object_get(machine, "name")), "microvm");
    cr_expect_str_eq(json_string_value(json_object_get(machine, "default-ram-id")), "microvm.ram");
    cr_expect_geq(json_integer_value(json_object_get(machine, "cpu-max")), 1);
    cr_expect_null(json_object_get(machine, "default-cpu-type"), "libvirt would write a CPU model into the domain");
    json_decref(machines);
    end_probe();
}

/* --- What is announced is answered ------------------------------------------------------------------------------------ */

/* Every command gets an answer, whatever it is, but never that there is none such. */
static void expect_answered(void)
{
    json_t *commands = emulator_run_do(&run, "query-commands", NULL);
    const json_t *entry;
    size_t i;

    cr_expect_gt(json_array_size(commands), 30);
    json_array_foreach(commands, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        json_t *reply, *error;

        if (strcmp(name, "quit") == 0) {
            continue; /* the last word, see below */
        }
        reply = emulator_run_ask(&run, name, NULL);
        error = json_object_get(reply, "error");
        cr_expect(json_object_get(reply, "return") != NULL || error != NULL, "%s: neither answer nor error", name);
        /* qmp_capabilities has been said: that it comes too late is QEMU's own way of refusing it. */
        if (strcmp(name, "qmp_capabilities") != 0 && error != NULL) {
            cr_expect_str_neq(json_string_value(json_object_get(error, "class")), "CommandNotFound", "%s", name);
        }
        json_decref(reply);
    }
    emulator_run_refused(&run, "query-tpm-models", NULL, "CommandNotFound", "query-tpm-models");
    emulator_run_refused(&run, "inject-nmi", NULL, "CommandNotFound", "inject-nmi");
    json_decref(commands);
}

Test(probe, every_command_that_is_announced_is_answered_by_a_probe)
{
    start_probe("kvm:tcg");
    expect_answered();
    emulator_run_refused(&run, "quit", NULL, "GenericError", "no guest");
    end_probe();
}

Test(probe, every_command_that_is_announced_is_answered_by_a_domain)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip("no /dev/kvm");
    }
    emulator_run_guest(&run, "-no-shutdown", NULL);
    expect_answered();
    json_decref(emulator_run_do(&run, "quit", NULL));
    cr_expect_eq(process_wait(&run.process), 0);
}

/* --- What is announced is honoured ------------------------------------------------------------------------------------ */

/* How a type is written on the command line, with all that it needs; further options go before it. */
static const struct {
    const char *type, *option, *value, *before[8];
} ways[] = {
    {"memory-backend-ram", "-object", "memory-backend-ram,id=microvm.ram,size=64M", {0}},
    {"memory-backend-memfd", "-object", "memory-backend-memfd,id=microvm.ram,size=64M", {0}},
    {"memory-backend-file", "-object", "memory-backend-file,id=microvm.ram,size=64M,mem-path=/dev/shm", {0}},
    {"rng-random", "-object", "rng-random,id=r,filename=/dev/urandom", {0}},
    {"secret", "-object", "secret,id=s,file=/dev/null", {0}},
    {"isa-serial", "-device", "isa-serial,chardev=c", {"-chardev", "null,id=c"}},
    {"virtio-blk-device",
     "-device",
     "virtio-blk-device,drive=n,id=d",
     {"-blockdev", "file,node-name=s,filename=/dev/null", "-blockdev", "raw,node-name=n,file=s"}},
    {"virtio-net-device", "-device", "virtio-net-device,netdev=n,id=d,mac=52:54:00:00:00:01", {"-netdev", "user,id=n"}},
    {"virtio-rng-device",
     "-device",
     "virtio-rng-device,rng=r,id=d",
     {"-object", "rng-random,id=r,filename=/dev/urandom"}},
    {"virtio-balloon-device", "-device", "virtio-balloon-device,id=d", {0}},
    {"pvpanic", "-device", "pvpanic", {0}},
    {"host-x86_64-cpu", "-cpu", "host", {0}},
    {"max-x86_64-cpu", "-cpu", "max", {0}},
    {"kvm-accel", "-accel", "kvm", {0}},
    {"microvm-machine", "-machine", "microvm", {0}},
    {"none-machine", "-machine", "none", {0}},
};

/* A value that a property has; others are on, where they are a switch, and 1 where they are a number. */
static const char *const samples[][2] = {
    {"policy", "bind,host-nodes=0"},
    {"host-nodes", "0,policy=bind"},
    {"hugetlbsize", "2M,hugetlb=on"},
    {"hugetlb", "on,hugetlbsize=2M"},
    {"memory-backend", "microvm.ram"},
    {"accel", "kvm"},
    {"kernel_irqchip", "on"},
    {"kernel-irqchip", "on"},
    {"usb", "off"},
    {"graphics", "off"},
    {"pcie", "off"},
    {"hpet", "off"},
    {"smm", "off"},
    {"vmport", "off"},
    {"format", "raw"},
    {"id", "i"},
    {"index", "0"},
    {"write-cache", "on"},
    {"serial", "abc"},
    {"logical_block_size", "512"},
    {"physical_block_size", "512"},
    {"werror", "report"},
    {"rerror", "report"},
    {"ioport", "1285"},
    {"prealloc-threads", "1,prealloc=on"},
    {"file", "/dev/null"},
};

static const char *sample_of(const json_t *property)
{
    const char *name = json_string_value(json_object_get(property, "name"));
    const char *type = json_string_value(json_object_get(property, "type"));

    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        if (strcmp(samples[i][0], name) == 0) {
            return samples[i][1];
        }
    }
    return strcmp(type, "bool") == 0 ? "on" : "1";
}

/* A word of it has this key already. */
static bool has_key(const char *value, const char *key)
{
    char word[128];

    snprintf(word, sizeof word, ",%s=", key);
    return strstr(value, word) != NULL;
}

static size_t append(char *argv[], size_t count, const char *option, const char *value)
{
    argv[count] = (char *)option;
    argv[count + 1] = (char *)value;
    return count + 2;
}

/* The option among all that a line has to have beside it. */
static void expect_honoured(size_t way, const char *value)
{
    const char *option = ways[way].option;
    bool is_machine = strcmp(option, "-machine") == 0, is_none = is_machine && strncmp(value, "none", 4) == 0;
    bool names_memory = strstr(value, "microvm.ram") != NULL;
    char *argv[32] = {"loam-emulator"};
    size_t count = 1;
    struct loam_diag diag = {0};
    struct line line;

    for (size_t i = 0; ways[way].before[i] != NULL; i += 2) {
        count = append(argv, count, ways[way].before[i], ways[way].before[i + 1]);
    }
    if (!is_machine) {
        count = append(argv, count, "-machine", names_memory ? "microvm,memory-backend=microvm.ram" : "microvm");
    } else if (names_memory) {
        count = append(argv, count, "-object", "memory-backend-ram,id=microvm.ram,size=64M");
    }
    count = is_none ? append(argv, count, "-qmp", "unix:/tmp/x,server=on,wait=off") : append(argv, count, "-m", "64");
    if (!is_none && strcmp(option, "-accel") != 0 && strstr(value, "accel=") == NULL) {
        count = append(argv, count, "-accel", "kvm");
    }
    count = append(argv, count, option, value);
    if (line_read((int)count, argv, &line, &diag) == LOAM_OK) {
        line_release(&line);
    } else {
        cr_expect(false, "%s %s: %s", option, value, diag.text);
    }
}

static size_t way_of(const char *type)
{
    size_t way = 0;

    while (way < sizeof ways / sizeof ways[0] && strcmp(ways[way].type, type) != 0) {
        way++;
    }
    cr_assert_lt(way, sizeof ways / sizeof ways[0], "%s is announced, and nobody knows how to ask for it", type);
    return way;
}

Test(probe, every_property_that_is_announced_is_honoured)
{
    json_t *types = probe_types();
    const json_t *entry, *property;
    size_t i, j, tried = 0;

    json_array_foreach(types, i, entry)
    {
        const char *type = json_string_value(json_object_get(entry, "name"));
        size_t way;
        json_t *properties;

        if (strcmp(type, "virtio-mmio") == 0) {
            continue; /* a bus, with no words of its own */
        }
        way = way_of(type);
        expect_honoured(way, ways[way].value);
        properties = probe_properties(type);
        json_array_foreach(properties, j, property)
        {
            const char *name = json_string_value(json_object_get(property, "name"));
            char value[512];

            snprintf(value, sizeof value, "%s,%s=%s", ways[way].value, name, sample_of(property));
            if (!has_key(ways[way].value, name)) {
                expect_honoured(way, value);
                tried++;
            }
        }
        json_decref(properties);
    }
    json_decref(types);
    cr_expect_gt(tried, 40);
}
