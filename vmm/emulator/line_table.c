// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line_table.h"

#include "loam/backing.h"
#include "vmm/emulator/line.h"

#include <string.h>

#define COUNT(array)     ((uint32_t)(sizeof(array) / sizeof(array)[0]))
#define TYPE(name, keys) (name), (keys), COUNT(keys), NULL
#define TYPES(list)      .types = (list), .type_count = COUNT(list)
#define PLAIN(keys)      .types = (const struct words_type[]){{TYPE(NULL, keys)}}, .type_count = 1

#define SWITCH(key)                .name = (key), .kind = WORDS_SWITCH
#define ID(key)                    .name = (key), .kind = WORDS_ID
#define PATH(key)                  .name = (key), .kind = WORDS_PATH
#define BYTES(key)                 .name = (key), .kind = WORDS_BYTES
#define TEXT(key, bytes)           .name = (key), .kind = WORDS_TEXT, .least = 1, .most = (bytes)
#define NUMBER(key, from, to)      .name = (key), .kind = WORDS_NUMBER, .least = (from), .most = (to)
#define CHOICE(key, values)        .name = (key), .kind = WORDS_CHOICE, .choices = (values)
#define ONLY(key, values, because) .name = (key), .kind = WORDS_CHOICE, .choices = (values), .why = (because)
#define NEEDED                     .needed = true
#define DESCRIPTOR(key)            NUMBER(key, 3, INT32_MAX)

/* --- Machine ------------------------------------------------------------------------------------------------------ */

static const struct words_key none_keys[] = {{CHOICE("accel", "kvm kvm:tcg tcg")}};

static const struct words_key microvm_keys[] = {
    {ONLY("accel", "kvm kvm:tcg", "Loam has no emulation")},
    {ID("memory-backend")},
    {SWITCH("dump-guest-core")},
    {SWITCH("mem-merge")},
    {ONLY("kernel_irqchip", "on split", "local APICs are the kernel's")},
    {ONLY("kernel-irqchip", "on split", "local APICs are the kernel's")},
    {SWITCH("acpi")},
    {ONLY("usb", "off", "there is no USB")},
    {ONLY("graphics", "off", "there are no displays")},
    {ONLY("pcie", "off", "there is no PCI")},
    {ONLY("hpet", "off", "there is no HPET")},
    {ONLY("smm", "off", "there is no system management mode")},
    {ONLY("vmport", "off", "there is no such port")},
};

static const struct words_type machines[] = {
    [LINE_MACHINE_NONE] = {TYPE("none", none_keys)},
    [LINE_MACHINE_MICROVM] = {TYPE("microvm", microvm_keys)},
};

static const struct words_type accelerators[] = {
    {.name = "kvm"},
    {.name = "tcg", .why = "Loam has no emulation: give -accel kvm (<domain type='kvm'>)"},
};

static const struct words_key cpu_keys[] = {{SWITCH("migratable")}};

static const struct words_type cpus[] = {{TYPE("host", cpu_keys)}, {TYPE("max", cpu_keys)}};

static const struct words_key smp_keys[] = {
    {NUMBER("cpus", 1, LINE_VCPU_MAX), NEEDED}, {NUMBER("maxcpus", 1, LINE_VCPU_MAX)},
    {NUMBER("sockets", 1, LINE_VCPU_MAX)}, /* no effect from here on: the guest is told of no topology */
    {NUMBER("dies", 1, LINE_VCPU_MAX)},         {NUMBER("clusters", 1, LINE_VCPU_MAX)},
    {NUMBER("cores", 1, LINE_VCPU_MAX)},        {NUMBER("threads", 1, LINE_VCPU_MAX)},
};

static const struct words_key name_keys[] = {
    {TEXT("guest", 255)},
    {SWITCH("debug-threads")}, /* no effect: threads always have names */
    {TEXT("process", 255)},
};

static const struct words_key rtc_keys[] = {
    {ONLY("base", "utc", "there is no real-time clock")},
    {ONLY("clock", "host", "there is no real-time clock")},
    {CHOICE("driftfix", "none slew")},
};

static const struct words_key boot_keys[] = {{SWITCH("strict")},
                                             {ONLY("menu", "off", "a kernel is booted, and no firmware")}};

static const struct words_key overcommit_keys[] = {
    {SWITCH("mem-lock")},
    {ONLY("cpu-pm", "off", "a guest that waits gives its processor back")},
};

static const struct words_key msg_keys[] = {{SWITCH("timestamp")}, {SWITCH("guest-name")}};

/* What QEMU's filter takes away by these three, Loam's does anyway. */
#define DENIED(key)                                                                                                    \
    {                                                                                                                  \
        ONLY(key, "deny", "no guest needs it")                                                                         \
    }

static const struct words_key sandbox_keys[] = {
    {SWITCH("enable")}, DENIED("obsolete"), DENIED("elevateprivileges"), DENIED("spawn"), DENIED("resourcecontrol")};

static const struct words_key global_keys[] = {{NUMBER("PIIX4_PM.disable_s3", 0, 1)},
                                               {NUMBER("PIIX4_PM.disable_s4", 0, 1)}};

/* --- Memory ------------------------------------------------------------------------------------------------------- */

static const struct words_key size_keys[] = {{.name = "size", .kind = WORDS_MIB, .needed = true}};

#define MEMORY_KEYS                                                                                                    \
    {ID("id"), NEEDED}, {.name = "size", .kind = WORDS_BYTES, .needed = true}, {SWITCH("share")},                      \
        {SWITCH("prealloc")}, {NUMBER("prealloc-threads", 1, LOAM_BACKING_THREAD_MAX)},                                \
        {.name = "host-nodes", .kind = WORDS_RANGE, .most = LOAM_NODE_COUNT_MAX - 1, .many = true},                    \
        {CHOICE("policy", "default bind preferred interleave")}, {SWITCH("reserve")}, {SWITCH("merge")},               \
        {SWITCH("dump")},                                                                                              \
    {                                                                                                                  \
        SWITCH("x-use-canonical-path-for-ramblock-id")                                                                 \
    }

static const struct words_key ram_keys[] = {MEMORY_KEYS};

static const struct words_key memfd_keys[] = {MEMORY_KEYS, {SWITCH("hugetlb")}, {BYTES("hugetlbsize")}};

static const struct words_key file_keys[] = {
    MEMORY_KEYS,
    {PATH("mem-path"), NEEDED},
    {SWITCH("discard-data")}, /* no effect: what a file of ours held is gone with it */
};

static const struct words_key random_keys[] = {{ID("id"), NEEDED}, {PATH("filename"), NEEDED}};

/* No effect: nothing here is encrypted. */
static const struct words_key secret_keys[] = {{ID("id"), NEEDED}, {CHOICE("format", "raw base64")}, {PATH("file")}};

static const struct words_type objects[] = {
    [LINE_OBJECT_MEMORY_RAM] = {TYPE("memory-backend-ram", ram_keys)},
    [LINE_OBJECT_MEMORY_MEMFD] = {TYPE("memory-backend-memfd", memfd_keys)},
    [LINE_OBJECT_MEMORY_FILE] = {TYPE("memory-backend-file", file_keys)},
    [LINE_OBJECT_RNG_RANDOM] = {TYPE("rng-random", random_keys)},
    [LINE_OBJECT_SECRET] = {TYPE("secret", secret_keys)},
};

static const struct words_key node_keys[] = {
    {NUMBER("nodeid", 0, LOAM_MEMORY_PART_MAX - 1), NEEDED},
    {TEXT("cpus", 32), .many = true}, /* no effect: the guest is told of no nodes */
    {ID("memdev"), NEEDED},
};

static const struct words_type numa[] = {
    {TYPE("node", node_keys)},
    {.name = "dist", .why = "the guest is told of no nodes, and so of no distances: leave <distances> out"},
    {.name = "cpu", .why = "the guest is told of no nodes: give -numa node,nodeid=N,memdev=ID alone"},
    {.name = "hmat-lb", .why = "the guest is told of no nodes: leave <interconnects> out"},
    {.name = "hmat-cache", .why = "the guest is told of no nodes: leave <cache> out"},
};

/* --- Character devices -------------------------------------------------------------------------------------------- */

#define LOG_KEYS                                                                                                       \
    {PATH("logfile")},                                                                                                 \
    {                                                                                                                  \
        SWITCH("logappend")                                                                                            \
    }

static const struct words_key plain_keys[] = {{ID("id"), NEEDED}, LOG_KEYS};

static const struct words_key stdio_keys[] = {{ID("id"), NEEDED}, {SWITCH("signal")}, LOG_KEYS};

static const struct words_key chardev_file_keys[] = {
    {ID("id"), NEEDED}, {PATH("path"), NEEDED}, {SWITCH("append")}, LOG_KEYS};

static const struct words_key socket_keys[] = {
    {ID("id"), NEEDED},
    {TEXT("path", 107)},
    {DESCRIPTOR("fd")},
    {ONLY("server", "on", "who wants it connects to it"), NEEDED},
    {ONLY("wait", "off", "the guest waits for nobody"), NEEDED},
    LOG_KEYS,
};

static const struct words_type chardevs[] = {
    [LINE_CHARDEV_PTY] = {TYPE("pty", plain_keys)},        [LINE_CHARDEV_FILE] = {TYPE("file", chardev_file_keys)},
    [LINE_CHARDEV_SOCKET] = {TYPE("socket", socket_keys)}, [LINE_CHARDEV_STDIO] = {TYPE("stdio", stdio_keys)},
    [LINE_CHARDEV_NULL] = {TYPE("null", plain_keys)},
};

static const struct words_key mon_keys[] = {
    {ID("chardev"), NEEDED},
    {ID("id")},
    {ONLY("mode", "control", "monitors speak QMP alone"), NEEDED},
    {SWITCH("pretty")},
};

static const struct words_key qmp_keys[] = {
    {.name = "address", .kind = WORDS_TEXT, .most = 255, .needed = true},
    {ONLY("server", "on", "who wants it connects to it"), NEEDED},
    {ONLY("wait", "off", "the guest waits for nobody"), NEEDED},
};

static const struct words_key fdset_keys[] = {
    {NUMBER("set", 0, INT32_MAX), NEEDED},
    {DESCRIPTOR("fd"), NEEDED},
    {TEXT("opaque", 255)},
};

/* --- Disks -------------------------------------------------------------------------------------------------------- */

#define NODE_KEYS                                                                                                      \
    {ID("node-name"), NEEDED}, {SWITCH("read-only")}, {SWITCH("auto-read-only")}, {SWITCH("cache.direct")},            \
        {SWITCH("cache.no-flush")}, {CHOICE("discard", "unmap ignore")},                                               \
    {                                                                                                                  \
        ONLY("detect-zeroes", "off", "zeros are written as they come")                                                 \
    }

/* Of the last two: no effect. */
static const struct words_key storage_keys[] = {
    NODE_KEYS,
    {PATH("filename"), NEEDED},
    {CHOICE("aio", "threads native io_uring")},
    {CHOICE("locking", "off auto")},
};

static const struct words_key raw_keys[] = {NODE_KEYS, {ID("file"), NEEDED}};

static const struct words_type blockdevs[] = {
    [LINE_BLOCKDEV_FILE] = {TYPE("file", storage_keys)},
    [LINE_BLOCKDEV_HOST_DEVICE] = {TYPE("host_device", storage_keys)},
    [LINE_BLOCKDEV_RAW] = {TYPE("raw", raw_keys)},
};

/* --- Devices ------------------------------------------------------------------------------------------------------ */

static const struct words_key serial_keys[] = {
    {ID("chardev"), NEEDED},
    {ID("id")},
    {ONLY("index", "0", "there is one serial port")},
};

static const struct words_key blk_keys[] = {
    {ID("drive"), NEEDED},
    {ID("id"), NEEDED},
    {NUMBER("bootindex", 0, INT32_MAX)}, /* no effect: a kernel is booted */
    {CHOICE("write-cache", "on auto off")},
    {SWITCH("share-rw")}, /* no effect: files are not locked */
    {TEXT("serial", 20)},
    {ONLY("logical_block_size", "512", "blocks have 512 bytes")},
    {ONLY("physical_block_size", "512", "blocks have 512 bytes")},
    {ONLY("werror", "report", "the guest is told of each error")},
    {ONLY("rerror", "report", "the guest is told of each error")},
};

static const struct words_key net_keys[] = {
    {ID("netdev"), NEEDED},
    {ID("id"), NEEDED},
    {.name = "mac", .kind = WORDS_MAC, .needed = true},
    {NUMBER("bootindex", 0, INT32_MAX)}, /* no effect: a kernel is booted */
};

static const struct words_key rng_keys[] = {{ID("rng"), NEEDED}, {ID("id"), NEEDED}};

static const struct words_key balloon_keys[] = {
    {ID("id"), NEEDED}, {SWITCH("deflate-on-oom")}, {SWITCH("free-page-reporting")}};

static const struct words_key panic_keys[] = {{ID("id")}, {ONLY("ioport", "1285", "its port is 0x505")}};

static const struct words_type devices[] = {
    [LINE_DEVICE_SERIAL] = {TYPE("isa-serial", serial_keys)},
    [LINE_DEVICE_BLK] = {TYPE("virtio-blk-device", blk_keys)},
    [LINE_DEVICE_NET] = {TYPE("virtio-net-device", net_keys)},
    [LINE_DEVICE_RNG] = {TYPE("virtio-rng-device", rng_keys)},
    [LINE_DEVICE_BALLOON] = {TYPE("virtio-balloon-device", balloon_keys)},
    [LINE_DEVICE_PANIC] = {TYPE("pvpanic", panic_keys)},
};

static const struct words_key user_keys[] = {{ID("id"), NEEDED}};

static const struct words_key tap_keys[] = {
    {ID("id"), NEEDED},
    {DESCRIPTOR("fd"), NEEDED},
    {ONLY("vhost", "off", "packets go through this process")},
};

static const struct words_type netdevs[] = {
    [LINE_NETDEV_USER] = {TYPE("user", user_keys)},
    [LINE_NETDEV_TAP] = {TYPE("tap", tap_keys)},
};

static const struct words_key audio_keys[] = {{ID("id"), NEEDED}};

static const struct words_type audiodevs[] = {{TYPE("none", audio_keys)}};

static const struct words_key loam_keys[] = {{CHOICE("pages", "auto 1G 2M thp 4K")}, {SWITCH("tune")}};

/* --- Options ------------------------------------------------------------------------------------------------------ */

#define ALONE(option, help_text) .name = (option), .form = ARGUMENT_ALONE, .help = (help_text)
#define TEXT_OF(option, words_kind, help_text)                                                                         \
    .name = (option), .form = ARGUMENT_TEXT, .text = {.kind = (words_kind)}, .help = (help_text)
#define TEXT_ONLY(option, value, because, help_text)                                                                   \
    .name = (option), .form = ARGUMENT_TEXT, .text = {ONLY(NULL, value, because)}, .help = (help_text)
#define WORDS(option, first_key, help_text)                                                                            \
    .name = (option), .form = ARGUMENT_WORDS, .first = (first_key), .help = (help_text)
#define MANY(key) .many = true, .unique = (key)

static const struct argument_row rows[] = {
    {.name = "-help", .alias = "-h", .form = ARGUMENT_ALONE, .help = "print this"},
    {ALONE("-version", "print what this is")},
    {WORDS("-machine", "type", "TYPE,KEY=VALUE: none, to be asked what there is, or microvm, to run a guest"),
     .alias = "-M", .what = "machine", TYPES(machines)},
    {WORDS("-accel", "accel", "kvm: the only one"), .what = "accelerator", TYPES(accelerators)},
    {ALONE("-enable-kvm", "as -accel kvm")},
    {WORDS("-cpu", "model", "host or max: the host's own, unchanged"), .what = "CPU model", TYPES(cpus)},
    {WORDS("-smp", "cpus", "N: virtual processors; sockets=, cores= and the like have no effect"), PLAIN(smp_keys)},
    {WORDS("-m", "size", "SIZE: all RAM; M unless it says k, G or T"), PLAIN(size_keys)},
    {WORDS("-object", "qom-type",
           "TYPE,id=ID,KEY=VALUE: memory-backend-ram, -memfd, -file; rng-random; secret (no effect)"),
     .what = "object", MANY("id"), .may_be_json = true, TYPES(objects)},
    {WORDS("-numa", "type", "node,nodeid=N,memdev=ID: RAM in parts, by nodeid; the guest is told of no nodes"),
     .what = "kind", MANY("nodeid"), TYPES(numa)},
    {WORDS("-overcommit", NULL, "mem-lock=on|off: lock all RAM"), PLAIN(overcommit_keys)},
    {TEXT_OF("-kernel", WORDS_PATH, "FILE: an ELF file (PVH, multiboot, 64-bit) or a Linux image")},
    {TEXT_OF("-initrd", WORDS_PATH, "FILE: the kernel's initial RAM disk")},
    {TEXT_OF("-append", WORDS_TEXT, "TEXT: the kernel's command line")},
    {WORDS("-add-fd", NULL, "set=N,fd=N,opaque=TEXT: an inherited descriptor, to be named as /dev/fdset/N"),
     MANY("set"), PLAIN(fdset_keys)},
    {WORDS("-chardev", "backend", "KIND,id=ID,KEY=VALUE: pty, file, socket (UNIX, listening), stdio, null"),
     .what = "character device", MANY("id"), .may_be_json = true, TYPES(chardevs)},
    {WORDS("-mon", "chardev", "ID,mode=control: QMP there"), MANY("chardev"), PLAIN(mon_keys)},
    {WORDS("-qmp", "address", "unix:PATH,server=on,wait=off: QMP at a socket made there"), PLAIN(qmp_keys)},
    {WORDS("-blockdev", "driver", "DRIVER,node-name=ID,KEY=VALUE: file, host_device, and raw above them"),
     .what = "driver", MANY("node-name"), .may_be_json = true, TYPES(blockdevs)},
    {WORDS("-netdev", "type", "user,id=ID or tap,id=ID,fd=N"), .what = "network", MANY("id"), .may_be_json = true,
     TYPES(netdevs)},
    {WORDS("-device", "driver",
           "DEVICE,KEY=VALUE: isa-serial, virtio-blk-device, virtio-net-device, virtio-rng-device, "
           "virtio-balloon-device, pvpanic"),
     .what = "device", MANY("id"), .may_be_json = true, TYPES(devices)},
    {WORDS("-name", "guest", "NAME: of the guest"), PLAIN(name_keys)},
    {TEXT_OF("-uuid", WORDS_UUID, "UUID: of the guest")},
    {ALONE("-S", "wait for QMP's cont before the guest starts")},
    {ALONE("-no-shutdown", "stay when the guest shuts down")},
    {ALONE("-no-reboot", "a guest that resets itself shuts down")},
    {TEXT_ONLY("-incoming", "defer", "a guest comes by QMP's migrate-incoming",
               "defer: wait for QMP's migrate-incoming")},
    {ALONE("-daemonize", "go on in the background once QMP can be reached")},
    {TEXT_OF("-pidfile", WORDS_PATH, "FILE: write the process's number there")},
    {WORDS("-x-loam", NULL,
           "pages=auto|1G|2M|thp|4K: what RAM is made of where no huge pages are asked for; tune=off: a Linux kernel's "
           "command line is left as it is"),
     PLAIN(loam_keys)},
    {TEXT_ONLY("-display", "none", "there are no displays", "none: no effect")},
    {TEXT_ONLY("-vga", "none", "there are no displays", "none: no effect")},
    {ALONE("-nographic", "no effect")},
    {ALONE("-no-user-config", "no effect: no files of options are read")},
    {ALONE("-nodefaults", "no effect: there are no devices but those named")},
    {ALONE("-no-acpi", "the guest finds an MP table, and no ACPI tables")},
    {ALONE("-no-hpet", "no effect: there is no HPET")},
    {WORDS("-rtc", NULL, "base=utc: no effect: there is no real-time clock"), PLAIN(rtc_keys)},
    {WORDS("-boot", NULL, "strict=on: no effect: a kernel is booted"), PLAIN(boot_keys)},
    {WORDS("-msg", NULL, "timestamp=on: no effect"), PLAIN(msg_keys)},
    {WORDS("-sandbox", "enable", "on (so it is anyway), off: the process keeps its rights while the guest runs"),
     PLAIN(sandbox_keys)},
    {WORDS("-global", NULL, "PIIX4_PM.disable_s3=1, PIIX4_PM.disable_s4=1: no effect: there is no such device"),
     .many = true, PLAIN(global_keys)},
    {WORDS("-audiodev", "driver", "none,id=ID: no effect"), .what = "sound", MANY("id"), .may_be_json = true,
     TYPES(audiodevs)},
};

const struct argument_table *line_table(void)
{
    static const struct argument_table table = {rows, COUNT(rows)};

    return &table;
}

const struct argument *line_next_of(const struct arguments *arguments, const char *name, uint32_t type,
                                    const struct argument *after)
{
    do {
        after = arguments_next(arguments, name, after);
    } while (after != NULL && after->type != type);
    return after;
}
