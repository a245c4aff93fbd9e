// SPDX-License-Identifier: Apache-2.0
#include "tests/emulator/lines.h"

#include <stdlib.h>
#include <string.h>

#define MEMFD            "-object memory-backend-memfd,id=microvm.ram,"
#define MEMORY(backend)  LINES_WITH_MEMORY(LINES_MICROVM, "-m 64 " backend " " LINES_ONE_CPU)
#define MACHINE(machine) LINES_WITH_MEMORY("-machine microvm,usb=off," machine " -accel kvm ", LINES_RAM LINES_ONE_CPU)
#define CPU(cpu)         LINES_WITH_MEMORY(LINES_MICROVM cpu " ", LINES_RAM LINES_ONE_CPU)
#define SERIAL(chardev)  LINES_WITH(chardev " " LINES_ISA_SERIAL)
#define DEVICE(device)   LINES_WITH(LINES_SERIAL device " ")

#define STORAGE(keys)                                                                                                  \
    "-blockdev {\"driver\":\"file\",\"filename\":\"/vm/disk.img\"," keys                                               \
    "\"auto-read-only\":true,\"discard\":\"unmap\"} "
#define FORMAT(keys)                                                                                                   \
    "-blockdev {\"node-name\":\"libvirt-1-format\"," keys "\"driver\":\"raw\",\"file\":\"libvirt-1-storage\"} "
#define NODE                     "\"node-name\":\"libvirt-1-storage\","
#define CACHED(direct, no_flush) "\"cache\":{\"direct\":" direct ",\"no-flush\":" no_flush "},"
#define BLK                      "-device virtio-blk-device,drive=libvirt-1-format,id=virtio-disk0,bootindex=1"

/* In JSON, as libvirt writes it for an emulator with a schema. */
#define JSON_MEMFD  "-object {\"qom-type\":\"memory-backend-memfd\",\"id\":\"microvm.ram\","
#define JSON_SERIAL "-device {\"driver\":\"isa-serial\",\"chardev\":\"charserial0\",\"id\":\"serial0\",\"index\":0} "

const struct line_vector line_vectors[] = {
    {"the least", LINES_WITH(LINES_SERIAL)},
    {"no serial port", LINES_WITH("")},
    /* Memory. */
    {"huge pages", MEMORY(MEMFD "hugetlb=on,hugetlbsize=2097152,prealloc=on,size=67108864")},
    {"huge pages of 1 GiB",
     LINES_WITH_MEMORY(LINES_MICROVM, "-m 2048 " MEMFD
                                      "hugetlb=on,hugetlbsize=1073741824,prealloc=on,size=2147483648 " LINES_ONE_CPU)},
    {"every wish",
     LINES_WITH_MEMORY(
         "-machine microvm,usb=off,dump-guest-core=off,mem-merge=off,memory-backend=microvm.ram -accel kvm ",
         "-m 64 " MEMFD "hugetlb=on,hugetlbsize=2097152,share=on,prealloc=on,prealloc-threads=2,"
         "size=67108864,host-nodes=0,policy=bind -overcommit mem-lock=on -smp 2,sockets=2,cores=1,threads=1 ")},
    {"memfd", MEMORY(MEMFD "size=67108864")},
    {"memfd, shared", MEMORY(MEMFD "share=on,size=67108864")},
    {"memfd, private", MEMORY(MEMFD "share=off,size=67108864")},
    {"immediate", MEMORY("-object memory-backend-ram,id=microvm.ram,prealloc=on,size=67108864")},
    {"immediate, threads",
     MEMORY("-object memory-backend-ram,id=microvm.ram,prealloc=on,prealloc-threads=3,size=67108864")},
    {"file", MEMORY("-object memory-backend-file,id=microvm.ram,mem-path=/vm/ram/microvm.ram,size=67108864")},
    {"file, discarded",
     MEMORY("-object memory-backend-file,id=microvm.ram,mem-path=/vm/ram/microvm.ram,discard-data=on,"
            "share=on,size=67108864")},
    {"dumped", MACHINE("dump-guest-core=on,memory-backend=microvm.ram")},
    {"strict", MEMORY(MEMFD "size=67108864,host-nodes=0,policy=bind")},
    {"preferred", MEMORY(MEMFD "size=67108864,host-nodes=0,policy=preferred")},
    {"interleave", MEMORY(MEMFD "size=67108864,host-nodes=0,policy=interleave")},
    {"cells",
     LINES_WITH_MEMORY(
         "-machine microvm,usb=off,dump-guest-core=off -accel kvm -cpu host,migratable=on ",
         "-m 96 -overcommit mem-lock=off -smp 4,sockets=4,cores=1,threads=1 "
         "-object memory-backend-memfd,id=ram-node0,hugetlb=on,hugetlbsize=2097152,prealloc=on,size=67108864 "
         "-numa node,nodeid=0,cpus=0-1,memdev=ram-node0 "
         "-object memory-backend-memfd,id=ram-node1,hugetlb=on,hugetlbsize=2097152,share=on,prealloc=on,size=33554432 "
         "-numa node,nodeid=1,cpus=2-3,memdev=ram-node1 ")},
    {"cells, plain", LINES_WITH_MEMORY("-machine microvm,usb=off,dump-guest-core=off -accel kvm ",
                                       "-m 96 -overcommit mem-lock=off -smp 2,sockets=2,cores=1,threads=1 "
                                       "-object memory-backend-ram,id=ram-node0,size=67108864 "
                                       "-numa node,nodeid=0,cpus=0,memdev=ram-node0 "
                                       "-object memory-backend-ram,id=ram-node1,size=33554432 "
                                       "-numa node,nodeid=1,cpus=1,memdev=ram-node1 ")},
    /* Processors and clocks. */
    {"cpu host", CPU("-cpu host,migratable=on")},
    {"cpu max", CPU("-cpu max")},
    {"topology", LINES_WITH_MEMORY(LINES_MICROVM "-cpu host,migratable=on ",
                                   LINES_RAM "-overcommit mem-lock=off -smp 8,sockets=2,cores=2,threads=2 ")},
    {"timers", DEVICE("-no-hpet")},
    {"power", DEVICE("-global PIIX4_PM.disable_s3=1 -global PIIX4_PM.disable_s4=1")},
    {"initrd", DEVICE("-initrd /vm/initrd")},
    {"incoming", DEVICE("-incoming defer")},
    /* Serial ports. */
    {"file by descriptor", SERIAL("-add-fd set=0,fd=23,opaque=serial0-source "
                                  "-chardev file,id=charserial0,path=/dev/fdset/0,append=on")},
    {"file by path", SERIAL("-chardev file,id=charserial0,path=/vm/ser,,ial.log")},
    {"log by descriptor", SERIAL("-add-fd set=0,fd=23,opaque=serial0-log "
                                 "-chardev pty,id=charserial0,logfile=/dev/fdset/0,logappend=on")},
    {"log by path", SERIAL("-chardev pty,id=charserial0,logfile=/vm/c.log,logappend=off")},
    {"socket by descriptor", SERIAL("-chardev socket,id=charserial0,fd=23,server=on,wait=off")},
    {"socket by path", SERIAL("-chardev socket,id=charserial0,path=/vm/s.sock,server=on,wait=off")},
    {"null", SERIAL("-chardev null,id=charserial0")},
    {"stdio", SERIAL("-chardev stdio,id=charserial0")},
    /* Disks. */
    {"disk", DEVICE(STORAGE(NODE) FORMAT("\"read-only\":false,") BLK)},
    {"disk, uncached", DEVICE(STORAGE(NODE CACHED("true", "false"))
                                  FORMAT("\"read-only\":false," CACHED("true", "false")) BLK ",write-cache=on")},
    {"disk, unsafe", DEVICE(STORAGE(NODE CACHED("false", "true")) FORMAT("\"read-only\":false," CACHED("false", "true"))
                                BLK ",write-cache=on")},
    {"disk, written through", DEVICE(STORAGE("\"aio\":\"native\"," NODE CACHED("true", "false")) FORMAT(
                                  "\"read-only\":false," CACHED("true", "false")) BLK ",write-cache=off")},
    {"disk, read-only", DEVICE(STORAGE(NODE) FORMAT("\"read-only\":true,\"discard\":\"unmap\",") BLK ",serial=abc123")},
    {"block device", DEVICE("-blockdev {\"driver\":\"host_device\",\"filename\":\"/dev/vdz\"," NODE
                            "\"auto-read-only\":true,\"discard\":\"unmap\"} " FORMAT("\"read-only\":false,") BLK)},
    {"two disks",
     DEVICE(
         "-blockdev {\"driver\":\"file\",\"filename\":\"/vm/a.img\",\"node-name\":\"libvirt-2-storage\","
         "\"auto-read-only\":true,\"discard\":\"unmap\"} "
         "-blockdev {\"node-name\":\"libvirt-2-format\",\"read-only\":false,\"driver\":\"raw\","
         "\"file\":\"libvirt-2-storage\"} "
         "-device virtio-blk-device,drive=libvirt-2-format,id=virtio-disk0,bootindex=1 "
         "-blockdev {\"driver\":\"file\",\"filename\":\"/vm/b,c.img\",\"node-name\":\"libvirt-1-storage\","
         "\"cache\":{\"direct\":true,\"no-flush\":false},\"auto-read-only\":true,\"discard\":\"unmap\"} " //
         FORMAT("\"read-only\":false," CACHED(
             "true",
             "false")) "-device virtio-blk-device,share-rw=on,drive=libvirt-1-format,id=virtio-disk1,write-cache=on")},
    /* Other devices. */
    {"net, user", DEVICE("-netdev user,id=hostnet0 "
                         "-device virtio-net-device,netdev=hostnet0,id=net0,mac=52:54:00:aa:bb:cc")},
    {"net, tap", DEVICE("-netdev tap,fd=25,id=hostnet0 "
                        "-device virtio-net-device,netdev=hostnet0,id=net0,mac=52:54:00:aa:bb:cd")},
    {"rng",
     DEVICE("-object rng-random,id=objrng0,filename=/dev/urandom -device virtio-rng-device,rng=objrng0,id=rng0")},
    {"balloon", DEVICE("-device virtio-balloon-device,id=balloon0")},
    {"balloon, every wish",
     DEVICE("-device virtio-balloon-device,id=balloon0,deflate-on-oom=on,free-page-reporting=on")},
    {"panic", DEVICE("-device pvpanic")},
    {"panic, address", DEVICE("-device pvpanic,ioport=1285")},
    {"own option", LINES_WITH(LINES_SERIAL) " -x-loam pages=2M"},
    /* JSON. */
    {"JSON: every wish",
     LINES_START "-machine microvm,usb=off,dump-guest-core=off,mem-merge=off,memory-backend=microvm.ram -accel kvm "
                 "-m 64 " JSON_MEMFD "\"hugetlb\":true,\"hugetlbsize\":2097152,\"share\":true,"
                 "\"x-use-canonical-path-for-ramblock-id\":false,\"prealloc\":true,\"prealloc-threads\":2,"
                 "\"size\":67108864,\"host-nodes\":[0],\"policy\":\"bind\"} -overcommit mem-lock=on "
                 "-smp 2,sockets=2,cores=1,threads=1 " LINES_MIDDLE
                 "-chardev pty,id=charserial0 " JSON_SERIAL LINES_AUDIO LINES_END},
    {"JSON: devices",
     LINES_WITH("-chardev pty,id=charserial0 " JSON_SERIAL STORAGE(NODE) FORMAT(
         "\"read-only\":true,\"discard\":\"unmap\",") "-device "
                                                      "{\"driver\":\"virtio-blk-device\",\"drive\":\"libvirt-1-"
                                                      "format\",\"id\":\"virtio-disk0\","
                                                      "\"bootindex\":1,\"write-cache\":\"on\",\"serial\":\"abc123\"} "
                                                      "-netdev {\"type\":\"user\",\"id\":\"hostnet0\"} "
                                                      "-device "
                                                      "{\"driver\":\"virtio-net-device\",\"netdev\":\"hostnet0\","
                                                      "\"id\":\"net0\","
                                                      "\"mac\":\"52:54:00:aa:bb:cc\"} "
                                                      "-device "
                                                      "{\"driver\":\"virtio-balloon-device\",\"id\":\"balloon0\","
                                                      "\"deflate-on-oom\":true,"
                                                      "\"free-page-reporting\":true} "
                                                      "-object "
                                                      "{\"qom-type\":\"rng-random\",\"id\":\"objrng0\",\"filename\":\"/"
                                                      "dev/random\"} "
                                                      "-device "
                                                      "{\"driver\":\"virtio-rng-device\",\"rng\":\"objrng0\",\"id\":"
                                                      "\"rng0\"} "
                                                      "-device {\"driver\":\"pvpanic\",\"ioport\":1285} ")},
    {"probe", "-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg "
              "-qmp unix:/vm/qmp.monitor,server=on,wait=off -pidfile /vm/qmp.pid -daemonize"},
};

const size_t line_vector_count = sizeof line_vectors / sizeof line_vectors[0];

struct line_argv line_argv_of(const char *words)
{
    static char program[] = "loam-emulator";
    struct line_argv argv = {.argc = 1, .argv = {program}, .text = strdup(words)};

    for (char *word = strtok(argv.text, " "); word != NULL && argv.argc < LINES_ARGUMENT_MAX;
         word = strtok(NULL, " ")) {
        for (char *c = word; *c != '\0'; c++) {
            *c = *c == LINES_SPACE ? ' ' : *c;
        }
        argv.argv[argv.argc++] = word;
    }
    return argv;
}

void line_argv_release(struct line_argv *argv)
{
    free(argv->text);
    *argv = (struct line_argv){0};
}
