// SPDX-License-Identifier: Apache-2.0
/* Every element that is honoured, and every refusal with its path. What XML itself can do is xml_walk_test's. */
#include "tools/libvirt/domain_read.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ELEMENTS_BYTES 16384

static struct domain domain;
static struct xml_walk_refusals refusals;

static bool read_text(const char *text)
{
    return domain_read(text, strlen(text), NULL, 0, &domain, &refusals);
}

/* A domain of these elements. */
static bool read_elements(const char *elements)
{
    char text[ELEMENTS_BYTES + sizeof "<domain type='kvm'></domain>"];

    snprintf(text, sizeof text, "<domain type='kvm'>%s</domain>", elements);
    return read_text(text);
}

#define MEMORY "<memory unit='MiB'>64</memory>"

/* One of these elements beside memory. */
static bool read_beside(const char *elements)
{
    char text[ELEMENTS_BYTES];

    snprintf(text, sizeof text, MEMORY "%s", elements);
    return read_elements(text);
}

#define TAKES(elements) cr_expect(read_beside(elements), "%s: %s", elements, refusals.texts[0])

/* --- What is honoured ---------------------------------------------------------------------------------------------- */

Test(domain_read, the_least)
{
    cr_expect(read_elements("<memory>65536</memory>"), "%s", refusals.texts[0]);
    cr_expect_eq(domain.memory.bytes, 64 * LOAM_MIB);
    cr_expect_eq(domain.memory.pages, LOAM_PAGES_AUTO);
    cr_expect_eq(domain.memory.sharing, LOAM_SHARING_ANY);
    cr_expect_eq(domain.memory.commit, LOAM_COMMIT_RESERVE);
    cr_expect_eq(domain.memory.placement, LOAM_PLACEMENT_ANY);
    cr_expect_eq(domain.memory.part_count, 0);
    cr_expect_eq(domain.vcpu_count, 1);
    cr_expect_eq(domain.serial.kind, DOMAIN_SERIAL_TERMINAL);
    cr_expect(domain.kernel[0] == '\0' && domain.initrd[0] == '\0' && domain.command_line[0] == '\0');
    cr_expect_not(domain.ends_at_reset, "libvirt's default is restart");
}

Test(domain_read, memory_in_every_unit)
{
    static const struct {
        const char *element;
        uint64_t bytes;
    } cases[] = {
        {"<memory>65536</memory>", 64 * LOAM_MIB},
        {"<memory unit='b'>67108864</memory>", 64 * LOAM_MIB},
        {"<memory unit='bytes'>67108865</memory>", 64 * LOAM_MIB + 4096},
        {"<memory unit='KB'>64000</memory>", UINT64_C(64000000)},
        {"<memory unit='k'> 65536\n</memory>", 64 * LOAM_MIB},
        {"<memory unit='MB'>64</memory>", UINT64_C(64000000)},
        {"<memory unit='M'>64</memory>", 64 * LOAM_MIB},
        {"<memory unit='GiB'>3</memory>", 3 * LOAM_GIB},
        {"<memory unit='T' dumpCore='off'>1</memory>", 1024 * LOAM_GIB},
        {"<memory unit='b'>1</memory>", 4096},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect(read_elements(cases[i].element), "%s: %s", cases[i].element, refusals.texts[0]);
        cr_expect_eq(domain.memory.bytes, cases[i].bytes, "%s: %" PRIu64, cases[i].element, domain.memory.bytes);
    }
    TAKES("<currentMemory unit='KiB'>65536</currentMemory>");
}

Test(domain_read, vcpus)
{
    TAKES("<vcpu placement='static'>3</vcpu>");
    cr_expect_eq(domain.vcpu_count, 3);
    TAKES("<vcpu current='2'>3</vcpu>");
    cr_expect_eq(domain.vcpu_count, 2);
    TAKES("<vcpu current='2'>2</vcpu>");
    cr_expect_eq(domain.vcpu_count, 2);
    TAKES("<vcpu>1024</vcpu>");
    cr_expect_eq(domain.vcpu_count, 1024);
    TAKES("<vcpu>2</vcpu><cpu mode='host-passthrough' check='none' migratable='off'><topology sockets='1' dies='1' "
          "clusters='1' cores='2' threads='1'/></cpu>");
    TAKES("<cpu mode='maximum'/>");
}

Test(domain_read, what_memory_is_made_of)
{
    TAKES("<memoryBacking><hugepages/></memoryBacking>");
    cr_expect_eq(domain.memory.pages, LOAM_PAGES_2M);
    TAKES("<memoryBacking><hugepages><page size='2048'/></hugepages></memoryBacking>");
    cr_expect_eq(domain.memory.pages, LOAM_PAGES_2M);
    TAKES("<memoryBacking><hugepages><page unit='G' size='1' nodeset='0'/></hugepages></memoryBacking>");
    cr_expect_eq(domain.memory.pages, LOAM_PAGES_1G);
    TAKES("<memoryBacking><hugepages><page size='4096' unit='b'/></hugepages></memoryBacking>");
    cr_expect_eq(domain.memory.pages, LOAM_PAGES_4K);
    TAKES("<memoryBacking><nosharepages/><discard/></memoryBacking>");
    cr_expect_not(domain.memory.lock);
    TAKES("<memoryBacking><locked/></memoryBacking>");
    cr_expect(domain.memory.lock);
    TAKES("<memoryBacking><allocation mode='immediate' threads='256'/></memoryBacking>");
    cr_expect_eq(domain.memory.commit, LOAM_COMMIT_POPULATE);
    cr_expect_eq(domain.memory.thread_count, 256);
    TAKES("<memoryBacking><allocation mode='ondemand'/></memoryBacking>");
    cr_expect_eq(domain.memory.commit, LOAM_COMMIT_LAZY);
}

Test(domain_read, whom_memory_is_shared_with)
{
    static const struct {
        const char *elements;
        enum loam_sharing sharing;
    } cases[] = {
        {"", LOAM_SHARING_ANY},
        {"<source type='memfd'/>", LOAM_SHARING_SHARED},
        {"<source type='anonymous'/>", LOAM_SHARING_PRIVATE},
        {"<access mode='shared'/>", LOAM_SHARING_SHARED},
        {"<access mode='private'/>", LOAM_SHARING_PRIVATE},
        {"<source type='memfd'/><access mode='private'/>", LOAM_SHARING_PRIVATE},
        {"<access mode='shared'/><source type='anonymous'/>", LOAM_SHARING_SHARED},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];

        snprintf(text, sizeof text, "<memoryBacking>%s</memoryBacking>", cases[i].elements);
        TAKES(text);
        cr_expect_eq(domain.memory.sharing, cases[i].sharing, "%s: %d", text, domain.memory.sharing);
    }
}

Test(domain_read, nodes_of_the_host)
{
    TAKES("<numatune><memory mode='strict' nodeset='0-3,^2' placement='static'/></numatune>");
    cr_expect(domain.memory.placement == LOAM_PLACEMENT_STRICT && domain.memory.node_mask == 0xb);
    TAKES("<numatune><memory nodeset='1'/></numatune>");
    cr_expect(domain.memory.placement == LOAM_PLACEMENT_STRICT && domain.memory.node_mask == 2);
    TAKES("<numatune><memory mode='preferred' nodeset='63'/></numatune>");
    cr_expect(domain.memory.placement == LOAM_PLACEMENT_PREFERRED && domain.memory.node_mask == UINT64_C(1) << 63);
    TAKES("<numatune><memory mode='interleave' nodeset='0,2'/></numatune>");
    cr_expect(domain.memory.placement == LOAM_PLACEMENT_INTERLEAVE && domain.memory.node_mask == 5);
}

Test(domain_read, cells_are_parts_of_memory)
{
    const struct loam_backing_request *parts = domain.memory.parts;

    TAKES(
        "<memoryBacking><hugepages><page size='1' unit='G' nodeset='1'/><page size='2' unit='M'/></hugepages>"
        "<access mode='shared'/><allocation mode='immediate'/></memoryBacking>"
        "<numatune><memory mode='strict' nodeset='0'/><memnode cellid='1' mode='preferred' nodeset='2'/></numatune>"
        "<cpu><numa><cell id='2' memory='16' unit='MiB' memAccess='private'/><cell id='0' memory='16384' discard='no'/>"
        "<cell id='1' unit='MiB' memory='32'/></numa></cpu>");
    cr_assert_eq(domain.memory.part_count, 3);
    cr_expect(parts[0].bytes == 16 * LOAM_MIB && parts[0].pages == LOAM_PAGES_2M);
    cr_expect(parts[0].placement == LOAM_PLACEMENT_STRICT && parts[0].node_mask == 1);
    cr_expect(parts[0].sharing == LOAM_SHARING_SHARED && parts[0].commit == LOAM_COMMIT_POPULATE && !parts[0].lock);
    cr_expect(parts[1].bytes == 32 * LOAM_MIB && parts[1].pages == LOAM_PAGES_1G);
    cr_expect(parts[1].placement == LOAM_PLACEMENT_PREFERRED && parts[1].node_mask == 4);
    cr_expect(parts[2].bytes == 16 * LOAM_MIB && parts[2].pages == LOAM_PAGES_2M);
    cr_expect(parts[2].sharing == LOAM_SHARING_PRIVATE);
    cr_expect(read_elements("<memoryBacking><locked/></memoryBacking>"
                            "<cpu><numa><cell cpus='0' memory='65536'/></numa></cpu>"),
              "%s", refusals.texts[0]);
    cr_expect(domain.memory.part_count == 1 && domain.memory.bytes == 64 * LOAM_MIB && parts[0].lock);
    cr_expect_eq(parts[0].pages, LOAM_PAGES_AUTO);
    TAKES("<memoryBacking><hugepages><page size='2' unit='M' nodeset='0'/></hugepages></memoryBacking>"
          "<cpu><numa><cell memory='32768'/><cell memory='32768'/></numa></cpu>");
    cr_expect(parts[0].pages == LOAM_PAGES_2M && parts[1].pages == LOAM_PAGES_AUTO);
}

Test(domain_read, what_is_booted)
{
    TAKES("<os><type arch='x86_64' machine='microvm'>hvm</type><kernel>/boot/k</kernel><initrd>/boot/i</initrd>"
          "<cmdline>\n console=ttyS0 quoted=\"a,b\" &lt;end&gt; </cmdline><boot dev='hd'/></os>");
    cr_expect_str_eq(domain.kernel, "/boot/k");
    cr_expect_str_eq(domain.initrd, "/boot/i");
    cr_expect_str_eq(domain.command_line, "console=ttyS0 quoted=\"a,b\" <end>");
    TAKES("<os><type>hvm</type><kernel/><initrd/><cmdline/></os>");
    cr_expect_str_empty(domain.kernel);
}

Test(domain_read, what_becomes_of_it)
{
    TAKES("<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>");
    cr_expect_not(domain.ends_at_reset);
    TAKES("<on_reboot>destroy</on_reboot>");
    cr_expect(domain.ends_at_reset);
}

Test(domain_read, the_serial_port)
{
    static const struct {
        const char *elements;
        enum domain_serial_kind kind;
        const char *path;
        bool append;
    } cases[] = {
        {"<serial type='pty'/>", DOMAIN_SERIAL_TERMINAL, "", false},
        {"<serial type='pty'><source path='/dev/pts/3'/><target type='isa-serial' port='0'><model name='isa-serial'/>"
         "</target><alias name='serial0'/></serial>",
         DOMAIN_SERIAL_TERMINAL, "", false},
        {"<serial type='stdio'/>", DOMAIN_SERIAL_TERMINAL, "", false},
        {"<serial type='null'/>", DOMAIN_SERIAL_NULL, "", false},
        {"<serial type='file'><source path='/a b'/><target port='0'/></serial>", DOMAIN_SERIAL_FILE, "/a b", false},
        {"<serial type='file'><source append='on' path='/a'/></serial>", DOMAIN_SERIAL_FILE, "/a", true},
        {"<serial type='file'><source append='off' path='/a'/></serial>", DOMAIN_SERIAL_FILE, "/a", false},
        {"<console type='null'><target type='serial' port='0'/></console>", DOMAIN_SERIAL_NULL, "", false},
        {"<console type='file'><source path='/c' append='on'/></console>", DOMAIN_SERIAL_FILE, "/c", true},
        {"<console type='pty' tty='/dev/pts/3'><target type='serial' port='0'/></console><serial type='pty'/>",
         DOMAIN_SERIAL_TERMINAL, "", false},
        {"<serial type='file'><source path='/s' append='on'/></serial>"
         "<console type='file'><source path='/s'/></console>",
         DOMAIN_SERIAL_FILE, "/s", true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];

        snprintf(text, sizeof text, "<devices>%s</devices>", cases[i].elements);
        TAKES(text);
        cr_expect(domain.serial.kind == cases[i].kind && strcmp(domain.serial.path, cases[i].path) == 0 &&
                      domain.serial.append == cases[i].append,
                  "%s: %d %s %d", text, domain.serial.kind, domain.serial.path, domain.serial.append);
    }
}

Test(domain_read, what_changes_nothing)
{
    cr_expect(
        read_text("<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>" MEMORY
                  "<name>\xc3\xa4</name><uuid>no uuid</uuid><title>t</title><description>d</description>"
                  "<metadata><x:y xmlns:x='urn:x' a='b'>z</x:y></metadata><features><acpi/><apic/><pae/></features>"
                  "<clock offset='utc'/><pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='no'/></pm>"
                  "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>"
                  "<controller type='usb' index='0' model='none'/><memballoon model='none'/>"
                  "<audio id='1' type='none'/><input type='mouse' bus='ps2'/><input type='keyboard' "
                  "bus='ps2'/><rng model='virtio'><backend model='random'>/dev/urandom</backend>"
                  "<address type='virtio-mmio'/><alias name='rng0'/></rng></devices></domain>"),
        "%s", refusals.texts[0]);
}

/* --- What is refused ----------------------------------------------------------------------------------------------- */

struct refused {
    const char *elements, *path, *says;
};

/* Each has just this refusal. The last part of a path, without its index, is what is to be passed over. */
static const struct refused refused[] = {
    {MEMORY "<iothreads>1</iothreads>", "/domain/iothreads", "no threads of this kind here"},
    {MEMORY "<genid/>", "/domain/genid", "not honoured here"},
    {MEMORY "<maxMemory slots='1'>1</maxMemory>", "/domain/maxMemory", "no memory is plugged here"},
    {MEMORY "<vcpus><vcpu id='0'/></vcpus>", "/domain/vcpus", "no vCPU is plugged here"},
    {MEMORY "<cputune><vcpupin vcpu='0'/></cputune>", "/domain/cputune", "no vCPU is pinned or weighed here"},
    {MEMORY "<memtune/>", "/domain/memtune", "no control group is made here"},
    {MEMORY "<blkiotune/>", "/domain/blkiotune", "no control group is made here"},
    {MEMORY "<resource/>", "/domain/resource", "no control group is made here"},
    {MEMORY "<seclabel/>", "/domain/seclabel", "no labels are set here"},
    {MEMORY "<sysinfo/>", "/domain/sysinfo", "no such tables here"},
    {MEMORY "<memory>1</memory>", "/domain/memory[2]", "there is one already"},
    {"<memory unit='ZiB'>1</memory>", "/domain/memory/@unit",
     "'ZiB': no unit of memory: give b, KiB, MiB, GiB, KB, MB and so on"},
    {"<memory>much</memory>", "/domain/memory", "'much': no whole number"},
    {"<memory>-1</memory>", "/domain/memory", "'-1': no whole number"},
    {"<memory/>", "/domain/memory", "'': no whole number"},
    {"<memory>0</memory>", "/domain/memory", "a guest wants some"},
    {"<memory unit='EiB'>16</memory>", "/domain/memory", "more bytes than 64 bits can count"},
    {"<memory unit='b'>18446744073709551615</memory>", "/domain/memory", "more bytes than 64 bits can count"},
    {"<memory dumpCore='on'>65536</memory>", "/domain/memory/@dumpCore", "'on': a guest's memory is in no dump here"},
    {MEMORY "<currentMemory>1024</currentMemory>", "/domain/currentMemory",
     "1024 KiB, and <memory> is 65536: no balloon here takes the rest"},
    {MEMORY "<currentMemory>x</currentMemory>", "/domain/currentMemory", "'x': no whole number"},
    {MEMORY "<currentMemory unit='EiB'>99</currentMemory>", "/domain/currentMemory",
     "more bytes than 64 bits can count"},
    {MEMORY "<vcpu>0</vcpu>", "/domain/vcpu", "'0': not a number of vCPUs from 1 to 1024"},
    {MEMORY "<vcpu>1025</vcpu>", "/domain/vcpu", "'1025': not a number of vCPUs from 1 to 1024"},
    {MEMORY "<vcpu current='3'>2</vcpu>", "/domain/vcpu", "more are current than there may be"},
    {MEMORY "<vcpu current='0'>2</vcpu>", "/domain/vcpu/@current", "'0': not a number of vCPUs from 1 to 1024"},
    {MEMORY "<vcpu placement='auto'>2</vcpu>", "/domain/vcpu/@placement",
     "'auto': nobody places vCPUs here: only static"},
    {MEMORY "<vcpu cpuset='0-1'>2</vcpu>", "/domain/vcpu/@cpuset", "not honoured here"},
    {MEMORY "<memoryBacking><hugepages><page size='64' unit='KiB'/></hugepages></memoryBacking>",
     "/domain/memoryBacking/hugepages/page[1]", "no page of this size here: 4 KiB, 2 MiB or 1 GiB"},
    {MEMORY "<memoryBacking><hugepages><page size='17179869184' unit='GiB'/></hugepages></memoryBacking>",
     "/domain/memoryBacking/hugepages/page[1]", "no page of this size here: 4 KiB, 2 MiB or 1 GiB"},
    {MEMORY "<memoryBacking><hugepages><page size='2048' nodeset='x'/></hugepages></memoryBacking>",
     "/domain/memoryBacking/hugepages/page[1]/@nodeset",
     "'x': no cells: give numbers from 0 to 63, such as 0, 0-1 or 0-3,^2"},
    {MEMORY "<memoryBacking><hugepages><page size='2048' nodeset='0-1'/></hugepages></memoryBacking>",
     "/domain/memoryBacking/hugepages/page[1]", "for a cell that is not there"},
    {MEMORY "<memoryBacking><hugepages><page size='2048'/><page size='4'/></hugepages></memoryBacking>",
     "/domain/memoryBacking/hugepages/page[2]", "a cell has one kind of pages"},
    {MEMORY "<memoryBacking><hugepages><page size='4' nodeset='0'/><page size='4' nodeset='0'/></hugepages>"
            "</memoryBacking>",
     "/domain/memoryBacking/hugepages/page[2]", "a cell has one kind of pages"},
    {MEMORY "<memoryBacking><source type='file'/></memoryBacking>", "/domain/memoryBacking/source/@type",
     "'file': no such memory here: memfd or anonymous"},
    {MEMORY "<memoryBacking><access mode='rw'/></memoryBacking>", "/domain/memoryBacking/access/@mode",
     "'rw': shared or private"},
    {MEMORY "<memoryBacking><allocation mode='later'/></memoryBacking>", "/domain/memoryBacking/allocation/@mode",
     "'later': immediate or ondemand"},
    {MEMORY "<memoryBacking><allocation threads='2'/></memoryBacking>", "/domain/memoryBacking/allocation",
     "threads go with mode immediate"},
    {MEMORY "<memoryBacking><allocation mode='immediate' threads='257'/></memoryBacking>",
     "/domain/memoryBacking/allocation/@threads", "'257': not a number of threads from 1 to 256"},
    {MEMORY "<memoryBacking><locked/><allocation mode='ondemand'/></memoryBacking>", "/domain/memoryBacking/allocation",
     "what is locked is there at once"},
    {MEMORY "<numatune><memory mode='restrictive' nodeset='0'/></numatune>", "/domain/numatune/memory/@mode",
     "'restrictive': no such policy here: strict, preferred or interleave"},
    {MEMORY "<numatune><memory mode='strict'/></numatune>", "/domain/numatune/memory", "a nodeset is wanted"},
    {MEMORY "<numatune><memory nodeset='0' placement='auto'/></numatune>", "/domain/numatune/memory/@placement",
     "'auto': nobody chooses nodes here: only static"},
    {MEMORY "<numatune><memory mode='preferred' nodeset='0-1'/></numatune>", "/domain/numatune/memory",
     "preferred is for one node: give one"},
    {MEMORY "<numatune><memnode cellid='0' nodeset='0'/></numatune>", "/domain/numatune/memnode[1]",
     "for a cell that is not there"},
    {MEMORY "<numatune><memnode nodeset='0'/></numatune><cpu><numa><cell memory='65536'/></numa></cpu>",
     "/domain/numatune/memnode[1]", "for a cell that is not there"},
    {MEMORY "<numatune><memnode cellid='0' nodeset='0'/><memnode cellid='0' nodeset='0'/></numatune>"
            "<cpu><numa><cell memory='65536'/></numa></cpu>",
     "/domain/numatune/memnode[2]", "there is one for this cell already"},
    {MEMORY "<cpu><numa><cell id='1' memory='65536'/></numa></cpu>", "/domain/cpu/numa/cell[1]",
     "cells are numbered from 0 on, each once"},
    {MEMORY "<cpu><numa><cell id='0' memory='32768'/><cell id='0' memory='32768'/></numa></cpu>",
     "/domain/cpu/numa/cell[2]", "cells are numbered from 0 on, each once"},
    {MEMORY "<cpu><numa><cell id='8' memory='65536'/></numa></cpu>", "/domain/cpu/numa/cell[1]/@id",
     "'8': not a number from 0 to 7"},
    {MEMORY "<cpu><numa><cell memory='32768'/></numa></cpu>", "/domain/memory", "65536 KiB, and the cells have 32768"},
    {"<cpu><numa><cell memory='0'/><cell memory='4'/></numa></cpu>", "/domain/cpu/numa/cell[1]",
     "a cell without memory"},
    {MEMORY "<cpu><numa><cell memory='32768'/><cell memory='32768' cpus='0'/></numa></cpu>",
     "/domain/cpu/numa/cell[2]/@cpus", "no table tells the guest which vCPU is near which memory"},
    {MEMORY "<cpu><numa><cell memory='65536'><distances/></cell></numa></cpu>", "/domain/cpu/numa/cell[1]/distances",
     "not honoured here"},
    {MEMORY "<cpu mode='host-model'/>", "/domain/cpu/@mode",
     "'host-model': the processor is the host's: only host-passthrough or maximum"},
    {MEMORY "<cpu migratable='maybe'/>", "/domain/cpu/@migratable", "'maybe': on or off"},
    {MEMORY "<cpu><model>Opteron</model></cpu>", "/domain/cpu/model", "not honoured here"},
    {MEMORY "<cpu><topology sockets='2' cores='1' threads='1'/></cpu>", "/domain/cpu/topology/@sockets",
     "'2': the guest sees one socket of single-threaded cores: only 1"},
    {MEMORY "<vcpu>4</vcpu><cpu><topology sockets='1' cores='2' threads='1'/></cpu>", "/domain/cpu/topology",
     "2 cores, and 4 vCPUs"},
    {MEMORY "<os><type>xen</type></os>", "/domain/os/type", "'xen': no such machine here: only hvm"},
    {MEMORY "<os><type arch='i686'>hvm</type></os>", "/domain/os/type/@arch",
     "'i686': no such processor here: only x86_64"},
    {MEMORY "<os><type machine='pc-q35-7.2'>hvm</type></os>", "/domain/os/type/@machine",
     "'pc-q35-7.2': no such machine here: only microvm"},
    {MEMORY "<os firmware='efi'/>", "/domain/os/@firmware", "not honoured here"},
    {MEMORY "<os><loader>/x</loader></os>", "/domain/os/loader", "no firmware here: only <kernel>"},
    {MEMORY "<os><kernel>boot/k</kernel></os>", "/domain/os/kernel",
     "'boot/k': no absolute path, which libvirt wants too"},
    {MEMORY "<os><initrd>/i</initrd></os>", "/domain/os/initrd", "goes with <kernel>, and none is there"},
    {MEMORY "<os><cmdline>c</cmdline></os>", "/domain/os/cmdline", "goes with <kernel>, and none is there"},
    {MEMORY "<os><boot dev='hd'/><boot dev='network'/></os>", "/domain/os/boot[1]",
     "nothing to boot from here but <kernel>"},
    {MEMORY "<features><hyperv/></features>", "/domain/features/hyperv", "not honoured here"},
    {MEMORY "<on_poweroff>restart</on_poweroff>", "/domain/on_poweroff",
     "'restart': a guest that ends is gone here: only destroy"},
    {MEMORY "<on_reboot>preserve</on_reboot>", "/domain/on_reboot", "'preserve': restart or destroy"},
    {MEMORY "<on_crash>coredump-destroy</on_crash>", "/domain/on_crash",
     "'coredump-destroy': a guest that crashes is gone here: only destroy"},
    {MEMORY "<clock offset='localtime'/>", "/domain/clock/@offset",
     "'localtime': no clock of another time here: only utc"},
    {MEMORY "<clock offset='utc'><timer name='hpet'/></clock>", "/domain/clock/timer", "not honoured here"},
    {MEMORY "<pm><suspend-to-mem enabled='yes'/></pm>", "/domain/pm/suspend-to-mem/@enabled",
     "'yes': a guest never sleeps here: only no"},
    {MEMORY "<devices><disk type='file'><source file='/x'/></disk></devices>", "/domain/devices/disk[1]",
     "no disk here"},
    {MEMORY "<devices><interface/></devices>", "/domain/devices/interface[1]", "no network device here"},
    {MEMORY "<devices><filesystem/></devices>", "/domain/devices/filesystem[1]", "no file system of the host's here"},
    {MEMORY "<devices><input/></devices>", "/domain/devices/input[1]",
     "no keyboard, mouse or tablet here: only what libvirt adds itself, on bus ps2"},
    {MEMORY "<devices><input type='tablet' bus='ps2'/></devices>", "/domain/devices/input[1]",
     "no keyboard, mouse or tablet here: only what libvirt adds itself, on bus ps2"},
    {MEMORY "<devices><input type='mouse' bus='virtio'/></devices>", "/domain/devices/input[1]",
     "no keyboard, mouse or tablet here: only what libvirt adds itself, on bus ps2"},
    {MEMORY "<devices><graphics/></devices>", "/domain/devices/graphics[1]", "no screen here"},
    {MEMORY "<devices><video/></devices>", "/domain/devices/video[1]", "no screen here"},
    {MEMORY "<devices><sound/></devices>", "/domain/devices/sound[1]", "no sound here"},
    {MEMORY "<devices><parallel/></devices>", "/domain/devices/parallel[1]", "no parallel port here"},
    {MEMORY "<devices><channel/></devices>", "/domain/devices/channel[1]", "no channel here"},
    {MEMORY "<devices><hostdev/></devices>", "/domain/devices/hostdev[1]", "no device of the host's is handed on here"},
    {MEMORY "<devices><redirdev/></devices>", "/domain/devices/redirdev[1]", "no device is handed on here"},
    {MEMORY "<devices><tpm/></devices>", "/domain/devices/tpm[1]", "no TPM here"},
    {MEMORY "<devices><watchdog/></devices>", "/domain/devices/watchdog[1]", "no watchdog here"},
    {MEMORY "<devices><panic/></devices>", "/domain/devices/panic[1]", "no panic device here"},
    {MEMORY "<devices><shmem/></devices>", "/domain/devices/shmem[1]", "no shared memory device here"},
    {MEMORY "<devices><memory/></devices>", "/domain/devices/memory[1]", "no memory is plugged here"},
    {MEMORY "<devices><vsock/></devices>", "/domain/devices/vsock[1]", "no sockets to the host here"},
    {MEMORY "<devices><iommu/></devices>", "/domain/devices/iommu[1]", "no IOMMU here"},
    {MEMORY "<devices><smartcard/></devices>", "/domain/devices/smartcard[1]", "not honoured here"},
    {MEMORY "<devices><controller type='usb'/></devices>", "/domain/devices/controller[1]",
     "no such controller here: only type usb, model none"},
    {MEMORY "<devices><controller type='pci' model='none'/></devices>", "/domain/devices/controller[1]",
     "no such controller here: only type usb, model none"},
    {MEMORY "<devices><memballoon model='virtio'><address type='pci'/></memballoon></devices>",
     "/domain/devices/memballoon[1]", "no balloon here: only model none"},
    {MEMORY "<devices><audio id='1' type='pulse'/></devices>", "/domain/devices/audio[1]",
     "no sound here: only type none"},
    {MEMORY "<devices><rng model='x'/></devices>", "/domain/devices/rng[1]",
     "no such entropy source here: only model virtio"},
    {MEMORY "<devices><rng model='virtio'/><rng model='virtio'/></devices>", "/domain/devices/rng[2]",
     "there is one already"},
    {MEMORY "<devices><rng model='virtio'><rate bytes='1'/></rng></devices>", "/domain/devices/rng[1]/rate",
     "not honoured here"},
    {MEMORY "<devices><rng model='virtio'><backend model='egd'/></rng></devices>",
     "/domain/devices/rng[1]/backend/@model", "'egd': the kernel's own generator is all there is: random"},
    {MEMORY "<devices><rng model='virtio'><backend model='random'>/dev/hwrng</backend></rng></devices>",
     "/domain/devices/rng[1]/backend", "'/dev/hwrng': the kernel's own generator is all there is: /dev/urandom"},
    {MEMORY "<devices><rng model='virtio'><address type='pci'/></rng></devices>",
     "/domain/devices/rng[1]/address/@type", "'pci': no such bus here: only virtio-mmio"},
    {MEMORY "<devices><serial type='tcp'/></devices>", "/domain/devices/serial[1]",
     "no port of this type here: pty, stdio, file or null"},
    {MEMORY "<devices><serial/></devices>", "/domain/devices/serial[1]",
     "no port of this type here: pty, stdio, file or null"},
    {MEMORY "<devices><serial type='pty'/><serial type='pty'/></devices>", "/domain/devices/serial[2]",
     "there is one already"},
    {MEMORY "<devices><serial type='file'/></devices>", "/domain/devices/serial[1]",
     "a file wants a <source path='...'/>"},
    {MEMORY "<devices><serial type='pty'><target port='1'/></serial></devices>",
     "/domain/devices/serial[1]/target/@port", "'1': one serial port is all there is: only 0"},
    {MEMORY "<devices><serial type='pty'><target type='usb-serial'/></serial></devices>",
     "/domain/devices/serial[1]/target/@type", "'usb-serial': no such port here: only the first serial port"},
    {MEMORY "<devices><serial type='pty'><log file='/x'/></serial></devices>", "/domain/devices/serial[1]/log",
     "not honoured here"},
    {MEMORY "<devices><console type='pty'><target type='virtio'/></console></devices>",
     "/domain/devices/console[1]/target/@type", "'virtio': no such port here: only the first serial port"},
    {MEMORY "<devices><serial type='pty'/><console type='null'/></devices>", "/domain/devices/console[1]",
     "it is the serial port, which goes elsewhere"},
    {MEMORY "<devices><serial type='file'><source path='/a'/></serial><console type='file'><source path='/b'/>"
            "</console></devices>",
     "/domain/devices/console[1]", "it is the serial port, which goes elsewhere"},
    {MEMORY "<x:commandline xmlns:x='urn:x'/>", "/domain/x:commandline", "not honoured here"},
};

/* The path without indices. */
static const char *unnumbered(const char *path)
{
    static char output[256];
    size_t count = 0;

    for (; *path != '\0'; path++) {
        if (*path == '[') {
            path = strchr(path, ']');
        } else {
            output[count++] = *path;
        }
    }
    output[count] = '\0';
    return output;
}

Test(domain_read, each_refusal_has_its_path_and_its_words)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char expected[1024];

        snprintf(expected, sizeof expected, "%s: line 1: %s: --ignore %s passes over it", refused[i].path,
                 refused[i].says, unnumbered(refused[i].path));
        cr_expect_not(read_elements(refused[i].elements), "%s is taken", refused[i].elements);
        cr_expect(refusals.count == 1 && strcmp(refusals.texts[0], expected) == 0, "%s: %u: %s, and %s",
                  refused[i].elements, refusals.count, refusals.texts[0], refusals.texts[1]);
    }
}

/* What a refusal says can be done, helps; but for memory, without which there is no domain. */
Test(domain_read, what_is_passed_over_is_refused_no_more)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char text[4096], numbered[256];
        const char *ignores[] = {numbered};
        bool has_cells = strstr(refused[i].elements, "<cell ") != NULL &&
                         strncmp(refused[i].path, "/domain/cpu/numa/cell[", 22) != 0;
        bool has_memory = strstr(refused[i].elements, "<memory") == refused[i].elements &&
                          strcmp(unnumbered(refused[i].path), "/domain/memory") != 0;
        bool lacks = !has_memory && !has_cells;

        strcpy(numbered, unnumbered(refused[i].path));
        snprintf(text, sizeof text, "<domain type='kvm'>%s</domain>", refused[i].elements);
        cr_expect(domain_read(text, strlen(text), ignores, 1, &domain, &refusals) != lacks, "%s: %s",
                  refused[i].elements, refusals.texts[0]);
        cr_expect(!lacks || strcmp(refusals.texts[0], "no <memory>: a guest wants some") == 0, "%s: %s",
                  refused[i].elements, refusals.texts[0]);
    }
}

Test(domain_read, another_type_of_domain)
{
    cr_expect_not(read_text("<domain type='test'>" MEMORY "</domain>"));
    cr_expect_str_eq(refusals.texts[0], "/domain/@type: line 1: 'test': KVM is all there is here: only kvm: "
                                        "--ignore /domain/@type passes over it");
    cr_expect_eq(refusals.count, 1);
}

Test(domain_read, more_parts_than_there_can_be)
{
    char text[4096] = "<numatune>";

    for (unsigned i = 0; i < 9; i++) {
        strcat(text, "<memnode cellid='0' nodeset='0'/>");
    }
    strcat(text, "</numatune><cpu><numa>");
    for (unsigned i = 0; i < 9; i++) {
        strcat(text, "<cell memory='4096'/>");
    }
    strcat(text, "</numa></cpu><memoryBacking><hugepages>");
    for (unsigned i = 0; i < 9; i++) {
        snprintf(text + strlen(text), 64, "<page size='4' nodeset='%u'/>", i % 8);
    }
    cr_expect_not(read_elements(strcat(text, "</hugepages></memoryBacking>")));
    for (unsigned i = 0; i < 3; i++) {
        cr_expect_not_null(strstr(refusals.texts[i], "[9]: line 1: more than 8 of them: there are no more parts"), "%s",
                           refusals.texts[i]);
    }
    cr_expect_eq(domain.memory.part_count, 8);
}

Test(domain_read, cells_of_more_bytes_than_can_be_counted)
{
    cr_expect_not(read_beside("<cpu><numa><cell memory='15' unit='EiB'/><cell memory='1' unit='EiB'/></numa></cpu>"));
    cr_expect_not_null(strstr(refusals.texts[0], "/domain/memory: "), "%s", refusals.texts[0]);
    cr_expect_not(read_elements("<cpu><numa><cell memory='15' unit='EiB'/><cell memory='1' unit='EiB'/></numa></cpu>"));
    cr_expect_str_eq(refusals.texts[0], "no <memory>: a guest wants some");
    cr_expect_not(read_beside("<cpu><numa><cell memory='16' unit='EiB'/></numa></cpu>"));
    cr_expect_not_null(strstr(refusals.texts[0], "/domain/cpu/numa/cell[1]: line 1: more bytes than"), "%s",
                       refusals.texts[0]);
}

Test(domain_read, all_is_refused_at_once)
{
    cr_expect_not(read_text("<domain type='kvm'>\n" MEMORY "\n<devices>\n<interface type='user'>\n<mac/></interface>\n"
                            "<disk/>\n<interface/></devices>\n<vcpu>x</vcpu></domain>"));
    cr_assert_eq(refusals.count, 4);
    cr_expect_str_eq(refusals.texts[0], "/domain/devices/interface[1]: line 4: no network device here: "
                                        "--ignore /domain/devices/interface passes over it");
    cr_expect_str_eq(refusals.texts[2], "/domain/devices/interface[2]: line 7: no network device here: "
                                        "--ignore /domain/devices/interface passes over it");
}

Test(domain_read, no_document)
{
    cr_expect_not(read_text("memory=64M"));
    cr_expect_not_null(strstr(refusals.texts[0], "line 1: no XML"), "%s", refusals.texts[0]);
    cr_expect_not(read_text("<domain type='kvm'>" MEMORY));
    cr_expect_eq(refusals.count, 1, "%s", refusals.texts[0]);
    cr_expect_not(read_text("<domain/>"));
    cr_expect_str_eq(refusals.texts[0], "no <memory>: a guest wants some");
}
