// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line.h"

#include "tests/emulator/line_check.h"
#include "tests/emulator/lines.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct line read_line(const char *words)
{
    struct line_argv argv = line_argv_of(words);
    struct loam_diag diag = {0};
    struct line line;

    cr_assert_eq(line_read(argv.argc, argv.argv, &line, &diag), LOAM_OK, "%s: %s", words, diag.text);
    cr_expect_str_eq(diag.text, "");
    line_argv_release(&argv);
    cr_expect_null(line_check(&line), "%s", line_check(&line));
    return line;
}

static const char *vector(const char *name)
{
    for (size_t i = 0; i < line_vector_count; i++) {
        if (strcmp(line_vectors[i].name, name) == 0) {
            return line_vectors[i].words;
        }
    }
    cr_assert_fail("no line is named %s", name);
    return "";
}

static bool is_zero(const struct line *line)
{
    static const struct line zero;

    return memcmp(line, &zero, sizeof zero) == 0;
}

static void check_refusal(const char *words, const char *expected)
{
    struct line_argv argv = line_argv_of(words);
    struct loam_diag diag = {0};
    struct line line;

    cr_expect_eq(line_read(argv.argc, argv.argv, &line, &diag), LOAM_ERROR_INVALID, "%s is taken", words);
    cr_expect_str_eq(diag.text, expected);
    cr_expect(is_zero(&line), "%s leaves something", words);
    line_argv_release(&argv);
}

/* The least domain, with these words after it. */
static void check_more(const char *more, const char *expected)
{
    char words[8192];

    snprintf(words, sizeof words, LINES_LEAST "%s", more);
    check_refusal(words, expected);
}

Test(line, acpi_is_there_unless_it_is_switched_off)
{
    static const struct {
        const char *words;
        bool no_acpi;
    } lines[] = {
        {LINES_LEAST, false},
        {LINES_LEAST "-no-acpi", true},
        {"-machine microvm,acpi=on -accel kvm -m 64", false},
        {"-machine microvm,acpi=off -accel kvm -m 64", true},
        {"-machine microvm,acpi=on -accel kvm -m 64 -no-acpi", true},
    };

    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct line line = read_line(lines[i].words);

        cr_expect_eq(line.no_acpi, lines[i].no_acpi, "%s", lines[i].words);
        line_release(&line);
    }
}

/* --- What libvirt writes -------------------------------------------------------------------------------------------- */

static void check_common(const struct line *line)
{
    cr_expect_str_eq(line->name, "vm");
    cr_expect_str_eq(line->uuid, "68b77593-3acb-4517-befb-26404722544a");
    cr_expect(line->starts_paused && line->no_shutdown);
    cr_expect_not(line->no_reboot || line->daemonize || line->wants_help || line->wants_version);
    cr_expect_str_eq(line->kernel, "/vm/kernel");
    cr_expect_str_eq(line->append, "console=ttyS0 a,b \"q\"");
    cr_assert_eq(line->monitor_count, 1);
    cr_expect_str_eq(line->chardevs[line->monitors[0]].id, "charmonitor");
    cr_expect_eq(line->chardevs[line->monitors[0]].kind, LINE_CHARDEV_SOCKET);
    cr_expect_eq(line->chardevs[line->monitors[0]].fd, 22);
    cr_expect_null(line->chardevs[line->monitors[0]].path);
    cr_expect_null(line->qmp_path);
    cr_expect_null(line->pid_path);
}

Test(line, every_line_that_libvirt_writes)
{
    for (size_t i = 0; i < line_vector_count; i++) {
        struct line line = read_line(line_vectors[i].words);

        if (!line.is_probe) {
            check_common(&line);
        }
        line_release(&line);
        cr_expect(is_zero(&line));
    }
}

Test(line, the_least)
{
    struct line line = read_line(vector("the least"));

    cr_expect_not(line.is_probe || line.is_incoming || line.has_panic);
    cr_expect_eq(line.memory.bytes, 64 * LOAM_MIB);
    cr_expect_eq(line.vcpu_count, 1);
    cr_expect_eq(line.chardev_count, 2);
    cr_expect_eq(line.serial, 1);
    cr_expect_eq(line.chardevs[1].kind, LINE_CHARDEV_PTY);
    cr_expect_str_eq(line.serial_id, "serial0");
    cr_expect_eq(line.disk_count + line.net_count + line.fdset_count, 0);
    cr_expect_null(line.initrd);
    cr_expect_null(line.balloon_id);
    cr_expect_null(line.rng_id);
    cr_expect_null(line.rng_path);
    cr_expect_null(line.memory_path);
    cr_expect_null(line.x_pages);
    line_release(&line);
}

Test(line, a_probe)
{
    struct line line = read_line(vector("probe"));

    cr_expect(line.is_probe && line.daemonize && line.starts_paused);
    cr_expect_str_eq(line.qmp_path, "/vm/qmp.monitor");
    cr_expect_str_eq(line.pid_path, "/vm/qmp.pid");
    cr_expect_str_eq(line.name, "");
    cr_expect_str_eq(line.uuid, "");
    cr_expect_eq(line.serial, -1);
    line_release(&line);
    line = read_line("-machine none,accel=tcg -qmp unix:q,server=on,wait=off");
    cr_expect(line.is_probe);
    line_release(&line);
}

Test(line, help_and_version)
{
    static const char *const helps[] = {"-h", "-help", "--help", "-m 64 -h"};
    static const char *const versions[] = {"-version", "--version"};
    struct line line;

    for (size_t i = 0; i < sizeof helps / sizeof helps[0]; i++) {
        line = read_line(helps[i]);
        cr_expect(line.wants_help && !line.wants_version);
        line_release(&line);
    }
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        line = read_line(versions[i]);
        cr_expect(line.wants_version && !line.wants_help);
        line_release(&line);
    }
}

Test(line, help_names_every_option)
{
    char text[8192] = "";
    FILE *file = fmemopen(text, sizeof text, "w");

    cr_expect(line_print_help(file));
    fclose(file);
    cr_expect_not_null(strstr(text, "\n  -device DEVICE,KEY=VALUE: isa-serial, "));
    cr_expect_not_null(strstr(text, "\n  -nodefaults: no effect"));
    file = fopen("/dev/full", "w");
    setbuf(file, NULL);
    cr_expect_not(line_print_help(file));
    fclose(file);
}

Test(line, processors)
{
    struct line line = read_line(vector("topology"));

    cr_expect_eq(line.vcpu_count, 8);
    line_release(&line);
    line = read_line(LINES_LEAST);
    cr_expect_eq(line.vcpu_count, 1);
    line_release(&line);
    line = read_line(LINES_LEAST "-smp cpus=1024,maxcpus=1024");
    cr_expect_eq(line.vcpu_count, 1024);
    line_release(&line);
}

Test(line, ways_to_say_kvm)
{
    static const char *const ways[] = {"-machine microvm -m 64 -accel kvm", "-M microvm -m 64 -enable-kvm",
                                       "-machine type=microvm,accel=kvm -m 64", "-machine microvm,accel=kvm:tcg -m 64"};

    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct line line = read_line(ways[i]);

        cr_expect_not(line.is_probe);
        line_release(&line);
    }
}

Test(line, a_guest_that_comes)
{
    struct line line = read_line(vector("incoming"));

    cr_expect(line.is_incoming);
    line_release(&line);
    line = read_line(vector("initrd"));
    cr_expect_str_eq(line.initrd, "/vm/initrd");
    line_release(&line);
    line = read_line(LINES_LEAST "-no-reboot -kernel k -append -S");
    cr_expect(line.no_reboot && !line.starts_paused);
    cr_expect_str_eq(line.append, "-S");
    line_release(&line);
}

/* --- Character devices ---------------------------------------------------------------------------------------------- */

static void check_serial(const char *name, struct line_chardev expected)
{
    struct line line = read_line(vector(name));
    const struct line_chardev *chardev = &line.chardevs[line.serial];

    cr_expect_str_eq(chardev->id, "charserial0");
    cr_expect_eq(chardev->kind, expected.kind, "%s", name);
    cr_expect_eq(chardev->fd, expected.fd, "%s", name);
    cr_expect_eq(chardev->append, expected.append, "%s", name);
    cr_expect_eq(chardev->log_fd, expected.log_fd, "%s", name);
    cr_expect_eq(chardev->log_append, expected.log_append, "%s", name);
    cr_expect_str_eq(chardev->path != NULL ? chardev->path : "", expected.path);
    cr_expect_str_eq(chardev->log_path != NULL ? chardev->log_path : "", expected.log_path);
    line_release(&line);
}

Test(line, serial_ports_of_each_kind)
{
    check_serial("the least", (struct line_chardev){NULL, LINE_CHARDEV_PTY, "", -1, false, "", -1, false});
    check_serial("null", (struct line_chardev){NULL, LINE_CHARDEV_NULL, "", -1, false, "", -1, false});
    check_serial("stdio", (struct line_chardev){NULL, LINE_CHARDEV_STDIO, "", -1, false, "", -1, false});
    check_serial("file by descriptor", (struct line_chardev){NULL, LINE_CHARDEV_FILE, "", 23, true, "", -1, false});
    check_serial("file by path",
                 (struct line_chardev){NULL, LINE_CHARDEV_FILE, "/vm/ser,ial.log", -1, false, "", -1, false});
    check_serial("log by descriptor", (struct line_chardev){NULL, LINE_CHARDEV_PTY, "", -1, false, "", 23, true});
    check_serial("log by path", (struct line_chardev){NULL, LINE_CHARDEV_PTY, "", -1, false, "/vm/c.log", -1, false});
    check_serial("socket by descriptor",
                 (struct line_chardev){NULL, LINE_CHARDEV_SOCKET, "", 23, false, "", -1, false});
    check_serial("socket by path",
                 (struct line_chardev){NULL, LINE_CHARDEV_SOCKET, "/vm/s.sock", -1, false, "", -1, false});
}

Test(line, sets_of_descriptors)
{
    struct line line = read_line(vector("file by descriptor"));

    cr_assert_eq(line.fdset_count, 1);
    cr_expect_eq(line.fdsets[0].set, 0);
    cr_expect_eq(line.fdsets[0].fd, 23);
    cr_expect_str_eq(line.fdsets[0].opaque, "serial0-source");
    line_release(&line);
    line = read_line(LINES_LEAST "-chardev file,id=a,path=/dev/fdset/7 -add-fd fd=3,set=7");
    cr_expect_eq(line.chardevs[0].fd, 3, "the order does not matter");
    cr_expect_null(line.fdsets[0].opaque);
    line_release(&line);
}

Test(line, a_domain_without_a_serial_port)
{
    struct line line = read_line(vector("no serial port"));

    cr_expect_eq(line.serial, -1);
    cr_expect_null(line.serial_id);
    line_release(&line);
}

Test(line, refusals_of_character_devices)
{
    check_more("-chardev udp,id=a,port=1", "-chardev udp,id=a: no such character device here: there are pty, file, "
                                           "socket, stdio and null");
    check_more("-chardev pty", "-chardev pty: id= is missing");
    check_more("-chardev pty,id=a,mux=on", "-chardev pty,id=a: mux=on: no such key here: known are id, logfile and "
                                           "logappend");
    check_more("-chardev file,id=a", "-chardev file,id=a: path= is missing");
    check_more("-chardev file,id=a,path=/dev/fdset/0",
               "-chardev file,id=a: path=/dev/fdset/0: there is no -add-fd of that set");
    check_more("-chardev file,id=a,path=/dev/fdset/00 -add-fd set=0,fd=3",
               "-chardev file,id=a: path=/dev/fdset/00: there is no -add-fd of that set");
    check_more("-chardev pty,id=a,logappend=on",
               "-chardev pty,id=a: logappend=on: it goes with logfile= only: give both");
    check_more("-chardev socket,id=a,server=on,wait=off",
               "-chardev socket,id=a: neither path= nor fd=: UNIX sockets alone are served: give path= or fd=");
    check_more("-chardev socket,id=a,path=b,fd=3,server=on,wait=off",
               "-chardev socket,id=a: path= and fd=: UNIX sockets alone are served: give path= or fd=");
    check_more("-chardev socket,id=a,path=b,server=off,wait=off",
               "-chardev socket,id=a: server=off: who wants it connects to it: give server=on");
    check_more("-chardev socket,id=a,path=b,server=on", "-chardev socket,id=a: wait= is missing");
    check_more("-chardev socket,id=a,path=b,server=on,wait=on",
               "-chardev socket,id=a: wait=on: the guest waits for nobody: give wait=off");
    check_more(
        "-chardev socket,id=a,host=127.0.0.1,port=5000,telnet=on,server=on,wait=off",
        "-chardev socket,id=a: host=127.0.0.1: no such key here: known are id, path, fd, server, wait, logfile and "
        "logappend");
    check_more("-chardev socket,id=a,fd=2,server=on,wait=off",
               "-chardev socket,id=a: fd=2: give fd=a number from 3 to 2147483647");
    check_more("-chardev stdio,id=a -chardev stdio,id=b",
               "-chardev stdio,id=b: another one has standard input: give one");
    check_more("-chardev pty,id=a -chardev null,id=a",
               "-chardev null,id=a: another -chardev has id=a: give each its own");
    check_more("-mon chardev=a,mode=control", "-mon a: chardev=a: there is no -chardev of that id");
    check_more("-chardev pty,id=a -mon chardev=a,mode=control",
               "-mon a: chardev=a: monitors are sockets: give -chardev socket");
    check_more("-chardev pty,id=a -mon chardev=a", "-mon a: mode= is missing");
    check_more("-chardev pty,id=a -mon a,mode=readline",
               "-mon a: mode=readline: monitors speak QMP alone: give mode=control");
    check_more("-device isa-serial,chardev=a", "-device isa-serial: chardev=a: there is no -chardev of that id");
    check_more("-chardev null,id=a -device isa-serial,chardev=a,index=1",
               "-device isa-serial: index=1: there is one serial port: give index=0");
    check_more("-chardev null,id=a -chardev null,id=b -device isa-serial,chardev=a -device isa-serial,chardev=b",
               "-device isa-serial: there is one serial port: give one");
    check_more("-chardev socket,id=a,fd=3,server=on,wait=off -mon a,mode=control -device isa-serial,chardev=a",
               "-device isa-serial: chardev=a: another has it already: give each its own -chardev");
}

Test(line, no_descriptor_is_given_twice)
{
    check_more("-add-fd set=0,fd=5 -add-fd set=1,fd=5", "-add-fd: fd=5: it is named before: give each its own");
    check_more("-add-fd set=0,fd=5 -add-fd set=0,fd=6", "-add-fd: another -add-fd has set=0: give each its own");
    check_more("-add-fd set=0,fd=5 -chardev socket,id=a,fd=5,server=on,wait=off",
               "-chardev socket,id=a: fd=5: it is named before: give each its own");
    check_more("-add-fd set=0,fd=5 -netdev tap,id=a,fd=5",
               "-netdev tap,id=a: fd=5: it is named before: give each its own");
    check_more("-add-fd set=0,fd=5 -chardev file,id=a,path=/dev/fdset/0 -chardev file,id=b,path=/dev/fdset/0",
               "-chardev file,id=b: path=/dev/fdset/0: it is named before: give each its own");
    check_more("-add-fd set=0,fd=5 -chardev file,id=a,path=/dev/fdset/0,logfile=/dev/fdset/0",
               "-chardev file,id=a: logfile=/dev/fdset/0: it is named before: give each its own");
    check_more("-add-fd set=0,fd=2", "-add-fd: fd=2: give fd=a number from 3 to 2147483647");
    check_more("-add-fd set=0,fd=2147483648", "-add-fd: fd=2147483648: give fd=a number from 3 to 2147483647");
}

/* --- Disks ---------------------------------------------------------------------------------------------------------- */

static void check_disk(const struct line_disk *disk, struct line_disk expected)
{
    cr_expect_str_eq(disk->id, expected.id);
    cr_expect_str_eq(disk->node, expected.node);
    cr_expect_str_eq(disk->storage, expected.storage);
    cr_expect_str_eq(disk->path != NULL ? disk->path : "", expected.path);
    cr_expect_eq(disk->fd, expected.fd);
    cr_expect_str_eq(disk->serial != NULL ? disk->serial : "", expected.serial);
    cr_expect_eq(disk->read_only, expected.read_only);
    cr_expect_eq(disk->direct, expected.direct);
    cr_expect_eq(disk->no_flush, expected.no_flush);
    cr_expect_eq(disk->discard, expected.discard);
    cr_expect_eq(disk->write_through, expected.write_through);
}

static void check_only_disk(const char *name, struct line_disk expected)
{
    struct line line = read_line(vector(name));

    expected.id = "virtio-disk0";
    expected.node = "libvirt-1-format";
    expected.storage = "libvirt-1-storage";
    expected.path = expected.path != NULL ? expected.path : "/vm/disk.img";
    expected.serial = expected.serial != NULL ? expected.serial : "";
    expected.fd = -1;
    cr_assert_eq(line.disk_count, 1);
    check_disk(&line.disks[0], expected);
    line_release(&line);
}

Test(line, disks)
{
    struct line line;

    check_only_disk("disk", (struct line_disk){0});
    check_only_disk("disk, uncached", (struct line_disk){.direct = true});
    check_only_disk("disk, unsafe", (struct line_disk){.no_flush = true});
    check_only_disk("disk, written through", (struct line_disk){.direct = true, .write_through = true});
    check_only_disk("disk, read-only", (struct line_disk){.read_only = true, .discard = true, .serial = "abc123"});
    check_only_disk("block device", (struct line_disk){.path = "/dev/vdz"});
    line = read_line(vector("two disks"));
    cr_assert_eq(line.disk_count, 2);
    check_disk(&line.disks[0], (struct line_disk){"virtio-disk0", "libvirt-2-format", "libvirt-2-storage", "/vm/a.img",
                                                  .fd = -1, .serial = ""});
    check_disk(&line.disks[1], (struct line_disk){"virtio-disk1", "libvirt-1-format", "libvirt-1-storage",
                                                  "/vm/b,c.img", .serial = "", .fd = -1, .direct = true});
    line_release(&line);
}

Test(line, a_disk_without_a_format_and_by_descriptor)
{
    struct line line =
        read_line(LINES_LEAST "-device virtio-blk-device,drive=s,id=d -add-fd set=1,fd=9 "
                              "-blockdev file,node-name=s,filename=/dev/fdset/1,read-only=on,cache.direct=on");

    cr_assert_eq(line.disk_count, 1);
    check_disk(&line.disks[0],
               (struct line_disk){"d", "s", "s", "", .fd = 9, .serial = "", .read_only = true, .direct = true});
    line_release(&line);
}

#define FILE_NODE "-blockdev file,node-name=s,filename=f "
#define RAW_NODE  "-blockdev raw,node-name=r,file=s "
#define DISK      "-device virtio-blk-device,id=d,drive="

Test(line, refusals_of_disks)
{
    check_more(DISK "r", "-device virtio-blk-device,id=d: drive=r: there is no -blockdev of that node-name");
    check_more(RAW_NODE DISK "r", "-blockdev raw,id=r: file=s: there is no -blockdev of driver file or host_device of "
                                  "that node-name");
    check_more("-blockdev raw,node-name=r,file=r " DISK "r",
               "-blockdev raw,id=r: file=r: there is no -blockdev of driver file or host_device of that node-name");
    check_more(FILE_NODE, "-blockdev file,id=s: no -device virtio-blk-device names it: give one, or leave it out");
    check_more(FILE_NODE DISK "s -device virtio-blk-device,id=e,drive=s",
               "-device virtio-blk-device,id=e: drive=s: another disk has it, or the file below it: give each its own");
    check_more(FILE_NODE RAW_NODE DISK "r -device virtio-blk-device,id=e,drive=s",
               "-device virtio-blk-device,id=e: drive=s: another disk has it, or the file below it: give each its own");
    check_more(FILE_NODE DISK "s " DISK "s",
               "-device virtio-blk-device,id=d: another -device has id=d: give each its own");
    check_more(FILE_NODE "-blockdev qcow2,node-name=r,file=s " DISK "r",
               "-blockdev qcow2,id=r: no such driver here: there are file, host_device and raw");
    check_more(FILE_NODE "-blockdev raw,node-name=r,file=s,offset=512 " DISK "r",
               "-blockdev raw,id=r: offset=512: no such key here: known are node-name, read-only, auto-read-only, "
               "cache.direct, cache.no-flush, discard, detect-zeroes and file");
    check_more("-blockdev {\"driver\":\"nbd\",\"server\":{\"type\":\"inet\"},\"node-name\":\"n\"}",
               "-blockdev nbd,id=n: no such driver here: there are file, host_device and raw");
    check_more(
        FILE_NODE DISK "s,iothread=i",
        "-device virtio-blk-device,id=d: iothread=i: no such key here: known are drive, id, bootindex, write-cache, "
        "share-rw, serial, logical_block_size, physical_block_size, werror and rerror");
    check_more(FILE_NODE DISK "s,serial=123456789012345678901",
               "-device virtio-blk-device,id=d: serial=123456789012345678901: give serial=a text of 1 to 20 bytes");
    check_more(FILE_NODE DISK "s,logical_block_size=4096",
               "-device virtio-blk-device,id=d: logical_block_size=4096: blocks have 512 bytes: give "
               "logical_block_size=512");
    check_more(FILE_NODE DISK "s,werror=stop",
               "-device virtio-blk-device,id=d: werror=stop: the guest is told of each error: give werror=report");
}

/* --- Other devices -------------------------------------------------------------------------------------------------- */

Test(line, networks)
{
    static const uint8_t mac[6] = {0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc};
    struct line line = read_line(vector("net, user"));

    cr_assert_eq(line.net_count, 1);
    cr_expect_str_eq(line.nets[0].id, "net0");
    cr_expect_eq(line.nets[0].kind, LINE_NET_USER);
    cr_expect_eq(line.nets[0].fd, -1);
    cr_expect_arr_eq(line.nets[0].mac, mac, sizeof mac);
    line_release(&line);
    line = read_line(vector("net, tap"));
    cr_assert_eq(line.net_count, 1);
    cr_expect_eq(line.nets[0].kind, LINE_NET_TAP);
    cr_expect_eq(line.nets[0].fd, 25);
    cr_expect_eq(line.nets[0].mac[5], 0xcd);
    line_release(&line);
}

Test(line, one_of_each)
{
    struct line line = read_line(vector("rng"));

    cr_expect_str_eq(line.rng_id, "rng0");
    cr_expect_str_eq(line.rng_path, "/dev/urandom");
    line_release(&line);
    line = read_line(vector("balloon"));
    cr_expect_str_eq(line.balloon_id, "balloon0");
    cr_expect_not(line.balloon_deflates_on_oom || line.balloon_reports_free);
    line_release(&line);
    line = read_line(vector("balloon, every wish"));
    cr_expect(line.balloon_deflates_on_oom && line.balloon_reports_free);
    line_release(&line);
    line = read_line(vector("panic, address"));
    cr_expect(line.has_panic);
    line_release(&line);
}

Test(line, devices_in_json)
{
    struct line line = read_line(vector("JSON: devices"));

    check_disk(&line.disks[0],
               (struct line_disk){"virtio-disk0", "libvirt-1-format", "libvirt-1-storage", "/vm/disk.img", .fd = -1,
                                  .serial = "abc123", .read_only = true, .discard = true});
    cr_expect_eq(line.net_count, 1);
    cr_expect_eq(line.serial, 1);
    cr_expect_str_eq(line.balloon_id, "balloon0");
    cr_expect(line.balloon_deflates_on_oom && line.balloon_reports_free);
    cr_expect_str_eq(line.rng_path, "/dev/random");
    cr_expect(line.has_panic);
    line_release(&line);
}

#define NETDEV "-netdev user,id=n "
#define NET    "-device virtio-net-device,id=d,netdev=n,mac=52:54:00:aa:bb:cc "

Test(line, refusals_of_devices)
{
    check_more("-device virtio-gpu-device,id=v",
               "-device virtio-gpu-device,id=v: no such device here: there are isa-serial, virtio-blk-device, "
               "virtio-net-device, virtio-rng-device, virtio-balloon-device and pvpanic");
    check_more("-device {\"driver\":\"ib700\",\"id\":\"w\"}",
               "-device ib700,id=w: no such device here: there are isa-serial, virtio-blk-device, virtio-net-device, "
               "virtio-rng-device, virtio-balloon-device and pvpanic");
    check_more(NET, "-device virtio-net-device,id=d: netdev=n: there is no -netdev of that id");
    check_more(NETDEV, "-netdev user,id=n: no -device virtio-net-device names it: give one, or leave it out");
    check_more(NETDEV NET "-device virtio-net-device,id=e,netdev=n,mac=52:54:00:aa:bb:cd",
               "-device virtio-net-device,id=e: netdev=n: another device has it: give each its own -netdev");
    check_more(NETDEV "-device virtio-net-device,id=d,netdev=n", "-device virtio-net-device,id=d: mac= is missing");
    check_more(NETDEV "-device virtio-net-device,id=d,netdev=n,mac=01:00:00:00:00:00",
               "-device virtio-net-device,id=d: mac=01:00:00:00:00:00: give mac=the address of one device, such as "
               "52:54:00:12:34:56");
    check_more(NETDEV "-device virtio-net-device,id=d,netdev=n,mac=52:54:00:aa:bb:cc,mq=on",
               "-device virtio-net-device,id=d: mq=on: no such key here: known are netdev, id, mac and bootindex");
    check_more("-netdev tap,id=n", "-netdev tap,id=n: fd= is missing");
    check_more("-netdev tap,id=n,fd=3,vhost=on",
               "-netdev tap,id=n: vhost=on: packets go through this process: give vhost=off");
    check_more("-netdev socket,id=n", "-netdev socket,id=n: no such network here: there are user and tap");
    check_more("-device virtio-rng-device,rng=r,id=d",
               "-device virtio-rng-device,id=d: rng=r: there is no -object rng-random of that id");
    check_more("-object rng-random,id=r,filename=/dev/hwrng -device virtio-rng-device,rng=r,id=d",
               "-object rng-random,id=r: filename=/dev/hwrng: the kernel's own generator is all there is: give "
               "/dev/urandom");
    check_more("-object rng-random,id=r,filename=f -device virtio-rng-device,rng=r,id=d,max-bytes=1024,period=1000",
               "-device virtio-rng-device,id=d: max-bytes=1024: no such key here: known are rng and id");
    check_more("-object rng-builtin,id=r",
               "-object rng-builtin,id=r: no such object here: there are memory-backend-ram, "
               "memory-backend-memfd, memory-backend-file, rng-random and secret");
    check_more("-device virtio-balloon-device,id=a -device virtio-balloon-device,id=b",
               "-device virtio-balloon-device,id=a: there can be one: give one");
    check_more("-device pvpanic,ioport=1286", "-device pvpanic: ioport=1286: its port is 0x505: give ioport=1285");
    check_more("-device pvpanic -device pvpanic", "-device pvpanic: there can be one: give one");
}

/* --- Machine, and what is not there ----------------------------------------------------------------------------------- */

Test(line, refusals_of_machines)
{
    check_refusal("-m 64", "-machine: it is missing: give -machine microvm");
    check_refusal("-machine q35 -m 64", "-machine q35: no such machine here: there are none and microvm");
    check_refusal("-machine pc-q35-7.2,usb=off",
                  "-machine pc-q35-7.2: no such machine here: there are none and microvm");
    check_refusal("-machine microvm -m 64",
                  "-accel: it is missing, and Loam has no emulation: give -accel kvm (<domain "
                  "type='kvm'>)");
    check_refusal("-machine microvm -accel tcg",
                  "-accel tcg: Loam has no emulation: give -accel kvm (<domain type='kvm'>)");
    check_refusal("-machine microvm,accel=tcg", "-machine microvm: accel=tcg: Loam has no emulation: give "
                                                "accel=kvm|kvm:tcg");
    check_refusal("-machine microvm,usb=on", "-machine microvm: usb=on: there is no USB: give usb=off");
    check_refusal("-machine microvm,kernel_irqchip=off",
                  "-machine microvm: kernel_irqchip=off: local APICs are the kernel's: give "
                  "kernel_irqchip=on|split");
    check_refusal("-machine microvm,hmat=on",
                  "-machine microvm: hmat=on: no such key here: known are accel, memory-backend, dump-guest-core, "
                  "mem-merge, kernel_irqchip, kernel-irqchip, acpi, usb, graphics, pcie, hpet, smm and vmport");
    check_refusal("-machine microvm -machine microvm", "-machine: it is there twice: give it once");
    check_more("-cpu qemu64,kvm=off", "-cpu qemu64: no such CPU model here: there are host and max");
    check_more("-cpu host,migratable=on,pmu=off", "-cpu host: pmu=off: no such key here: known is migratable");
    check_more("-smp 2,maxcpus=4", "-smp 2: maxcpus=4: processors are all there from the start: give maxcpus=2");
    check_more("-smp 0", "-smp 0: cpus=0: give cpus=a number from 1 to 1024");
    check_more("-smp 1025", "-smp 1025: cpus=1025: give cpus=a number from 1 to 1024");
    check_more("-smp sockets=2", "-smp: cpus= is missing");
    check_more("-overcommit cpu-pm=on",
               "-overcommit: cpu-pm=on: a guest that waits gives its processor back: give cpu-pm=off");
}

Test(line, refusals_of_what_is_not_there)
{
    check_more("-rtc base=localtime", "-rtc: base=localtime: there is no real-time clock: give base=utc");
    check_more("-boot menu=on,strict=on", "-boot: menu=on: a kernel is booted, and no firmware: give menu=off");
    check_more("-sandbox on,spawn=allow", "-sandbox on: spawn=allow: no guest needs it: give spawn=deny");
    check_more("-global kvm-pit.lost_tick_policy=delay",
               "-global: kvm-pit.lost_tick_policy=delay: no such key here: known are PIIX4_PM.disable_s3 and "
               "PIIX4_PM.disable_s4");
    check_more("-display gtk", "-display gtk: there are no displays: give none");
    check_more("-vga std", "-vga std: there are no displays: give none");
    check_more("-vnc :0", "-vnc: not an option here: -help lists those there are");
    check_more("disk.img", "disk.img: not an option here: -help lists those there are");
    check_more("-fsdev local,id=f", "-fsdev: not an option here: -help lists those there are");
    check_more("-incoming tcp:0:4444", "-incoming tcp:0:4444: a guest comes by QMP's migrate-incoming: give defer");
    check_more("-audiodev {\"id\":\"a\",\"driver\":\"alsa\"}",
               "-audiodev alsa,id=a: no such sound here: there is none");
    check_more("-object iothread,id=i", "-object iothread,id=i: no such object here: there are memory-backend-ram, "
                                        "memory-backend-memfd, memory-backend-file, rng-random and secret");
    check_more("-initrd i", "-initrd: it goes with -kernel FILE only: give both");
    check_more("-append a", "-append: it goes with -kernel FILE only: give both");
    check_more("-uuid 1", "-uuid 1: give a UUID");
    check_more("-kernel", "-kernel: its value is missing");
    check_more("-qmp tcp:localhost:4444,server=on,wait=off",
               "-qmp tcp:localhost:4444: not a UNIX socket: give unix:PATH, a path of 1 to 107 bytes");
    check_more("-qmp unix:,server=on,wait=off",
               "-qmp unix:: not a UNIX socket: give unix:PATH, a path of 1 to 107 bytes");
    check_more("-qmp unix:a", "-qmp unix:a: server= is missing");
}

/* --- Limits ----------------------------------------------------------------------------------------------------------- */

/* The least domain, and count times `each`, in which two %u stand for the number. */
static char *line_of(const char *before, const char *each, uint32_t count)
{
    size_t bytes = strlen(LINES_LEAST) + strlen(before) + count * (strlen(each) + 32) + 1;
    char *words = malloc(bytes);
    size_t used = (size_t)snprintf(words, bytes, LINES_LEAST "%s ", before);

    for (uint32_t i = 0; i < count; i++) {
        char number[16];

        snprintf(number, sizeof number, "%u", 100 + i);
        for (const char *c = each; *c != '\0'; c++) {
            used += (size_t)snprintf(words + used, bytes - used, *c == '#' ? "%s" : "%.1s", *c == '#' ? number : c);
        }
    }
    return words;
}

static void check_limit(const char *before, const char *each, uint32_t most, const char *expected)
{
    char *words = line_of(before, each, most), *more = line_of(before, each, most + 1);
    struct line line = read_line(words);

    line_release(&line);
    check_refusal(more, expected);
    free(words);
    free(more);
}

Test(line, limits)
{
    check_limit("", "-chardev null,id=c# ", LINE_CHARDEV_MAX, "-chardev null,id=c108: more than 8 of them: give fewer");
    check_limit("", "-add-fd set=#,fd=# ", LINE_FDSET_MAX, "-add-fd: more than 8 of them: give fewer");
    check_limit("", "-blockdev file,node-name=s#,filename=f -device virtio-blk-device,id=d#,drive=s# ", LINE_DISK_MAX,
                "-device virtio-blk-device,id=d104: more than 4 of them: give fewer");
    check_limit("", "-netdev user,id=n# -device virtio-net-device,id=d#,netdev=n#,mac=52:54:00:00:00:01 ", LINE_NET_MAX,
                "-device virtio-net-device,id=d102: more than 2 of them: give fewer");
    check_limit("", "-chardev socket,id=c#,fd=#,server=on,wait=off -mon c#,mode=control ", 2,
                "-mon c102: more than 2 of them: give fewer");
}

Test(line, lengths)
{
    char path[200], words[400];
    struct line line;

    for (int extra = 0; extra < 2; extra++) {
        snprintf(path, sizeof path, "%0*d", 107 + extra, 1);
        snprintf(words, sizeof words, "-machine none -qmp unix:%s,server=on,wait=off", path);
        if (extra == 0) {
            line = read_line(words);
            cr_expect_str_eq(line.qmp_path, path);
            line_release(&line);
        } else {
            check_refusal(words, "-qmp unix:00000000000000000000000000000000000000000000000000000000000...: not a UNIX "
                                 "socket: give unix:PATH, a path of 1 to 107 bytes");
        }
    }
}

/* --- Lines that nobody wrote -------------------------------------------------------------------------------------------- */

#define MUTATION_COUNT 20000u
#define MUTATION_SEED  UINT64_C(0x6c696e65)

static void leave_out(struct line_argv *argv, uint32_t at, uint32_t count)
{
    for (; count > 0 && argv->argc > 1 && (int)at < argv->argc; count--) {
        argv->argc--;
        memmove(&argv->argv[at], &argv->argv[at + 1], (size_t)(argv->argc - (int)at) * sizeof argv->argv[0]);
    }
}

static void repeat(struct line_argv *argv, uint32_t at)
{
    if (argv->argc < LINES_ARGUMENT_MAX) {
        memmove(&argv->argv[at + 1], &argv->argv[at], (size_t)(argv->argc - (int)at) * sizeof argv->argv[0]);
        argv->argc++;
    }
}

/* A byte of a word becomes another, or goes, or is the last. */
static void change_word(char *word, struct random *random)
{
    static const char bytes[] = ",=:{}\"[]-./0123459akKMGT~\x01\xff\t\n";
    size_t length = strlen(word), place = length > 0 ? random_below(random, (uint32_t)length) : 0;

    switch (length > 0 ? random_below(random, 4) : 4) {
    case 0:
        word[place] = '\0';
        break;
    case 1:
        memmove(&word[place], &word[place + 1], length - place);
        break;
    case 2:
        word[place] = bytes[random_below(random, sizeof bytes - 1)];
        break;
    case 3:
        word[place] = (char)('0' + random_below(random, 10));
        break;
    default:
        break;
    }
}

/* One change to the line. */
static void mutate(struct line_argv *argv, struct random *random)
{
    uint32_t count = (uint32_t)argv->argc - 1, at = 1 + random_below(random, count),
             other = 1 + random_below(random, count);
    char *word = argv->argv[at];

    switch (random_below(random, 7)) {
    case 0:
        leave_out(argv, at, 1);
        break;
    case 1: /* an option with its value, as often as not */
        leave_out(argv, at, 2);
        break;
    case 2:
        repeat(argv, at);
        break;
    case 3:
        argv->argv[at] = argv->argv[other];
        argv->argv[other] = word;
        break;
    case 4: /* the end of another word */
        argv->argv[at] = argv->argv[other] + random_below(random, (uint32_t)strlen(argv->argv[other]) + 1);
        break;
    default:
        change_word(word, random);
        break;
    }
}

Test(line, changed_lines_are_read_or_refused, .timeout = 300)
{
    struct random random = {MUTATION_SEED};
    uint32_t read_count = 0, refused_count = 0;

    for (uint32_t i = 0; i < MUTATION_COUNT; i++) {
        struct line_argv argv = line_argv_of(line_vectors[random_below(&random, (uint32_t)line_vector_count)].words);
        struct loam_diag diag = {0};
        struct line line;

        for (uint32_t n = random_one_in(&random, 4) ? 3 : 1; n > 0 && argv.argc > 1; n--) {
            mutate(&argv, &random);
        }
        if (line_read(argv.argc, argv.argv, &line, &diag) == LOAM_OK) {
            cr_assert_null(line_check(&line), "seed %#jx, line %u: %s", (uintmax_t)MUTATION_SEED, i, line_check(&line));
            line_release(&line);
            read_count++;
        } else {
            cr_assert_eq(diag.error, LOAM_ERROR_INVALID, "seed %#jx, line %u", (uintmax_t)MUTATION_SEED, i);
            cr_assert_null(line_check_text(diag.text), "seed %#jx, line %u: %s: %s", (uintmax_t)MUTATION_SEED, i,
                           line_check_text(diag.text), diag.text);
            cr_assert(is_zero(&line), "seed %#jx, line %u", (uintmax_t)MUTATION_SEED, i);
            refused_count++;
        }
        line_argv_release(&argv);
    }
    cr_expect_gt(read_count, MUTATION_COUNT / 20, "%u are read", read_count);
    cr_expect_gt(refused_count, MUTATION_COUNT / 4, "%u are refused", refused_count);
}
