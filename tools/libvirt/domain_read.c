// SPDX-License-Identifier: Apache-2.0
/* From top to bottom: what is gathered while the document is walked, who takes which value, the tables of elements. */
#include "tools/libvirt/domain_read.h"

#include "tools/libvirt/domain_units.h"

#include <stdio.h>
#include <string.h>

/* A size in the making: a number and its unit, in whatever order they come. */
struct amount {
    uint64_t number, unit_bytes;
    bool is_there; /* the number, and it is one */
};

struct reading {
    struct domain *domain;
    struct domain_said said;
    struct amount amount;
    struct domain_tuning *tuned; /* those being read */
    struct domain_port *port;
};

static struct reading *reading_of(const struct xml_walk *walk)
{
    return xml_walk_context(walk);
}

/* --- Sizes --------------------------------------------------------------------------------------------------------- */

static const char *begin_amount(struct xml_walk *walk, const char *value)
{
    (void)value;
    reading_of(walk)->amount = (struct amount){.unit_bytes = LOAM_KIB};
    return NULL;
}

static const char *take_unit(struct xml_walk *walk, const char *value)
{
    struct amount *amount = &reading_of(walk)->amount;
    uint64_t bytes;

    if (!domain_units_scale(value, &bytes)) {
        return "no unit of memory: give b, KiB, MiB, GiB, KB, MB and so on";
    }
    amount->unit_bytes = bytes;
    return NULL;
}

static const char *take_amount(struct xml_walk *walk, const char *value)
{
    struct amount *amount = &reading_of(walk)->amount;

    amount->is_there = domain_units_number(value, UINT64_MAX, &amount->number);
    return amount->is_there ? NULL : "no whole number";
}

/* The bytes of what was taken, in whole pages of 4 KiB. false: more than 64 bits. */
static bool finish_amount(const struct amount *amount, uint64_t *bytes)
{
    if (__builtin_mul_overflow(amount->number, amount->unit_bytes, bytes) ||
        __builtin_add_overflow(*bytes, LOAM_FRAME_BYTES - 1, bytes)) {
        *bytes = 0;
        return false;
    }
    *bytes -= *bytes % LOAM_FRAME_BYTES;
    return true;
}

static const char too_large[] = "more bytes than 64 bits can count";

static const char *end_memory(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    (void)value;
    reading->said.memory_place = xml_walk_here(walk);
    if (reading->amount.is_there && reading->amount.number == 0) {
        return "a guest wants some";
    }
    return finish_amount(&reading->amount, &reading->said.memory_bytes) ? NULL : too_large;
}

static const char *end_current_memory(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    (void)value;
    if (!finish_amount(&reading->amount, &reading->said.current_bytes)) {
        return too_large;
    }
    if (reading->amount.is_there) {
        reading->said.current_place = xml_walk_here(walk);
    }
    return NULL;
}

/* --- Processors ---------------------------------------------------------------------------------------------------- */

static const char no_vcpus[] = "not a number of vCPUs from 1 to 1024";

static const char *take_count(const char *value, uint64_t *count)
{
    return domain_units_number(value, DOMAIN_VCPU_MAX, count) && *count > 0 ? NULL : no_vcpus;
}

static const char *take_vcpus(struct xml_walk *walk, const char *value)
{
    return take_count(value, &reading_of(walk)->said.vcpu_count);
}

static const char *take_current_vcpus(struct xml_walk *walk, const char *value)
{
    return take_count(value, &reading_of(walk)->said.current_vcpu_count);
}

static const char *end_vcpus(struct xml_walk *walk, const char *value)
{
    const struct reading *reading = reading_of(walk);

    (void)value;
    return reading->said.vcpu_count != 0 && reading->said.current_vcpu_count > reading->said.vcpu_count
               ? "more are current than there may be"
               : NULL;
}

static const char *begin_topology(struct xml_walk *walk, const char *value)
{
    (void)value;
    reading_of(walk)->said.topology_place = xml_walk_here(walk);
    return NULL;
}

static const char *take_cores(struct xml_walk *walk, const char *value)
{
    return take_count(value, &reading_of(walk)->said.core_count);
}

/* --- What memory is made of ---------------------------------------------------------------------------------------- */

static const char *begin_hugepages(struct xml_walk *walk, const char *value)
{
    (void)value;
    reading_of(walk)->said.wants_hugepages = true;
    return NULL;
}

static const char *begin_page(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    if (reading->said.wish_count == DOMAIN_PAGE_WISH_MAX) {
        return "more than 8 of them: there are no more parts of memory";
    }
    reading->said.wishes[reading->said.wish_count++] = (struct domain_page_wish){.place = xml_walk_here(walk)};
    return begin_amount(walk, value);
}

static const char *take_page_cells(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    return domain_units_set(value, &reading->said.wishes[reading->said.wish_count - 1].cell_mask)
               ? NULL
               : "no cells: give numbers from 0 to 63, such as 0, 0-1 or 0-3,^2";
}

static const char *end_page(struct xml_walk *walk, const char *value)
{
    static const enum loam_pages kinds[] = {LOAM_PAGES_1G, LOAM_PAGES_2M, LOAM_PAGES_4K};
    struct reading *reading = reading_of(walk);
    uint64_t bytes;

    (void)value;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (!__builtin_mul_overflow(reading->amount.number, reading->amount.unit_bytes, &bytes) &&
            bytes == loam_pages_bytes(kinds[i])) {
            reading->said.wishes[reading->said.wish_count - 1].pages = kinds[i];
            return NULL;
        }
    }
    return "no page of this size here: 4 KiB, 2 MiB or 1 GiB";
}

static const char *begin_locked(struct xml_walk *walk, const char *value)
{
    (void)value;
    reading_of(walk)->domain->memory.lock = true;
    return NULL;
}

static const char *take_source(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    reading->said.has_memfd = strcmp(value, "memfd") == 0;
    reading->said.has_anonymous = !reading->said.has_memfd;
    return NULL;
}

static enum loam_sharing sharing_of(const char *value)
{
    return strcmp(value, "shared") == 0 ? LOAM_SHARING_SHARED : LOAM_SHARING_PRIVATE;
}

static const char *take_access(struct xml_walk *walk, const char *value)
{
    reading_of(walk)->domain->memory.sharing = sharing_of(value);
    return NULL;
}

static const char *begin_allocation(struct xml_walk *walk, const char *value)
{
    (void)value;
    reading_of(walk)->said.allocation_place = xml_walk_here(walk);
    return NULL;
}

static const char *take_allocation(struct xml_walk *walk, const char *value)
{
    reading_of(walk)->domain->memory.commit = strcmp(value, "immediate") == 0 ? LOAM_COMMIT_POPULATE : LOAM_COMMIT_LAZY;
    return NULL;
}

static const char *take_threads(struct xml_walk *walk, const char *value)
{
    uint64_t count;

    if (!domain_units_number(value, LOAM_BACKING_THREAD_MAX, &count) || count == 0) {
        return "not a number of threads from 1 to 256";
    }
    reading_of(walk)->domain->memory.thread_count = (uint32_t)count;
    return NULL;
}

/* --- Nodes of the host --------------------------------------------------------------------------------------------- */

static const char *begin_tuning(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    (void)value;
    reading->tuned = &reading->said.tuning;
    *reading->tuned = (struct domain_tuning){.placement = LOAM_PLACEMENT_STRICT, .place = xml_walk_here(walk)};
    return NULL;
}

static const char *begin_memnode(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    (void)value;
    if (reading->said.memnode_count == LOAM_MEMORY_PART_MAX) {
        return "more than 8 of them: there are no more parts of memory";
    }
    reading->tuned = &reading->said.memnodes[reading->said.memnode_count++];
    *reading->tuned = (struct domain_tuning){.placement = LOAM_PLACEMENT_STRICT, .place = xml_walk_here(walk)};
    return NULL;
}

static const char *take_cell_id(struct xml_walk *walk, const char *value)
{
    struct domain_tuning *tuned = reading_of(walk)->tuned;

    tuned->has_cell = domain_units_number(value, LOAM_NODE_COUNT_MAX - 1, &tuned->cell);
    return tuned->has_cell ? NULL : "no cell: give a number from 0 to 63";
}

static const char *take_mode(struct xml_walk *walk, const char *value)
{
    reading_of(walk)->tuned->placement = strcmp(value, "strict") == 0      ? LOAM_PLACEMENT_STRICT
                                         : strcmp(value, "preferred") == 0 ? LOAM_PLACEMENT_PREFERRED
                                                                           : LOAM_PLACEMENT_INTERLEAVE;
    return NULL;
}

static const char *take_nodes(struct xml_walk *walk, const char *value)
{
    return domain_units_set(value, &reading_of(walk)->tuned->node_mask)
               ? NULL
               : "no nodes: give numbers from 0 to 63, such as 0, 0-1 or 0-3,^2";
}

static const char *end_tuning(struct xml_walk *walk, const char *value)
{
    const struct domain_tuning *tuned = reading_of(walk)->tuned;

    (void)value;
    if (tuned->node_mask == 0) {
        return "a nodeset is wanted";
    }
    return tuned->placement == LOAM_PLACEMENT_PREFERRED && (tuned->node_mask & (tuned->node_mask - 1)) != 0
               ? "preferred is for one node: give one"
               : NULL;
}

/* --- Cells --------------------------------------------------------------------------------------------------------- */

static struct domain_cell *last_cell(const struct xml_walk *walk)
{
    struct reading *reading = reading_of(walk);

    return &reading->said.cells[reading->said.cell_count - 1];
}

static const char *begin_cell(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);
    uint32_t at = reading->said.cell_count;

    if (at == LOAM_MEMORY_PART_MAX) {
        return "more than 8 of them: there are no more parts of memory";
    }
    reading->said.cells[at] = (struct domain_cell){.id = at, .place = xml_walk_here(walk)};
    reading->said.cell_count++;
    return begin_amount(walk, value);
}

static const char *take_id(struct xml_walk *walk, const char *value)
{
    return domain_units_number(value, LOAM_MEMORY_PART_MAX - 1, &last_cell(walk)->id) ? NULL
                                                                                      : "not a number from 0 to 7";
}

static const char *take_processors(struct xml_walk *walk, const char *value)
{
    (void)value;
    last_cell(walk)->processors = xml_walk_here(walk);
    return NULL;
}

static const char *take_cell_access(struct xml_walk *walk, const char *value)
{
    last_cell(walk)->sharing = sharing_of(value);
    return NULL;
}

static const char *end_cell(struct xml_walk *walk, const char *value)
{
    const struct reading *reading = reading_of(walk);
    struct domain_cell *cell = last_cell(walk);

    (void)value;
    if (!finish_amount(&reading->amount, &cell->bytes)) {
        return too_large;
    }
    return cell->bytes == 0 ? "a cell without memory" : NULL;
}

/* --- What is booted ------------------------------------------------------------------------------------------------ */

static const char relative[] = "no absolute path, which libvirt wants too";

/* It fits: both have room for XML_WALK_VALUE_BYTES. */
static void copy_value(char output[XML_WALK_VALUE_BYTES], const char *value)
{
    snprintf(output, XML_WALK_VALUE_BYTES, "%s", value);
}

static const char *take_path(char path[XML_WALK_VALUE_BYTES], const char *value)
{
    if (*value != '\0' && *value != '/') {
        return relative;
    }
    copy_value(path, value);
    return NULL;
}

static const char *take_kernel(struct xml_walk *walk, const char *value)
{
    return take_path(reading_of(walk)->domain->kernel, value);
}

static const char *take_initrd(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    reading->said.initrd_place = xml_walk_here(walk);
    return take_path(reading->domain->initrd, value);
}

static const char *take_command_line(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    reading->said.command_line_place = xml_walk_here(walk);
    copy_value(reading->domain->command_line, value);
    return NULL;
}

static const char *begin_boot(struct xml_walk *walk, const char *value)
{
    struct reading *reading = reading_of(walk);

    (void)value;
    if (reading->said.boot_place.line == 0) {
        reading->said.boot_place = xml_walk_here(walk);
    }
    return NULL;
}

static const char *take_on_reboot(struct xml_walk *walk, const char *value)
{
    reading_of(walk)->domain->ends_at_reset = strcmp(value, "destroy") == 0;
    return NULL;
}

/* --- Devices ------------------------------------------------------------------------------------------------------- */

static bool has(struct xml_walk *walk, const char *attribute, const char *value)
{
    const char *found = xml_walk_peek(walk, attribute);

    return found != NULL && strcmp(found, value) == 0;
}

static const char *begin_controller(struct xml_walk *walk, const char *value)
{
    (void)value;
    return has(walk, "type", "usb") && has(walk, "model", "none")
               ? NULL
               : "no such controller here: only type usb, model none";
}

static const char *begin_balloon(struct xml_walk *walk, const char *value)
{
    (void)value;
    return has(walk, "model", "none") ? NULL : "no balloon here: only model none";
}

static const char *begin_audio(struct xml_walk *walk, const char *value)
{
    (void)value;
    return has(walk, "type", "none") ? NULL : "no sound here: only type none";
}

/* libvirt writes these two into every domain of a PC, and asks no emulator for them. */
static const char *begin_input(struct xml_walk *walk, const char *value)
{
    (void)value;
    return has(walk, "bus", "ps2") && (has(walk, "type", "mouse") || has(walk, "type", "keyboard"))
               ? NULL
               : "no keyboard, mouse or tablet here: only what libvirt adds itself, on bus ps2";
}

static const char *begin_rng(struct xml_walk *walk, const char *value)
{
    (void)value;
    return has(walk, "model", "virtio") ? NULL : "no such entropy source here: only model virtio";
}

static const char *begin_port(struct xml_walk *walk, struct domain_port *port)
{
    bool is_file = has(walk, "type", "file"), is_null = has(walk, "type", "null");

    if (!is_file && !is_null && !has(walk, "type", "pty") && !has(walk, "type", "stdio")) {
        return "no port of this type here: pty, stdio, file or null";
    }
    *port = (struct domain_port){.is_there = true,
                                 .serial.kind = is_file   ? DOMAIN_SERIAL_FILE
                                                : is_null ? DOMAIN_SERIAL_NULL
                                                          : DOMAIN_SERIAL_TERMINAL,
                                 .place = xml_walk_here(walk)};
    reading_of(walk)->port = port;
    return NULL;
}

static const char *begin_serial(struct xml_walk *walk, const char *value)
{
    (void)value;
    return begin_port(walk, &reading_of(walk)->said.serial);
}

static const char *begin_console(struct xml_walk *walk, const char *value)
{
    (void)value;
    return begin_port(walk, &reading_of(walk)->said.console);
}

static const char *take_port_path(struct xml_walk *walk, const char *value)
{
    struct domain_serial *serial = &reading_of(walk)->port->serial;

    return serial->kind == DOMAIN_SERIAL_FILE ? take_path(serial->path, value) : NULL;
}

static const char *take_append(struct xml_walk *walk, const char *value)
{
    reading_of(walk)->port->serial.append = strcmp(value, "on") == 0;
    return NULL;
}

static const char *end_port(struct xml_walk *walk, const char *value)
{
    const struct domain_serial *serial = &reading_of(walk)->port->serial;

    (void)value;
    return serial->kind == DOMAIN_SERIAL_FILE && serial->path[0] == '\0' ? "a file wants a <source path='...'/>" : NULL;
}

/* --- The tables ---------------------------------------------------------------------------------------------------- */

/* clang-format off */
#define ATTRIBUTES (const struct xml_walk_attribute[])
#define ELEMENTS   (const struct xml_walk_element[])
#define END        {0}

static const struct xml_walk_attribute amount_attributes[] = {{"unit", NULL, take_unit, NULL}, END};

static const struct xml_walk_attribute memory_attributes[] = {
    {"unit", NULL, take_unit, NULL},
    {"dumpCore", "off", NULL, "a guest's memory is in no dump here"},
    END};

static const struct xml_walk_attribute vcpu_attributes[] = {
    {"placement", "static", NULL, "nobody places vCPUs here: only static"},
    {"current", NULL, take_current_vcpus, NULL},
    END};

static const struct xml_walk_attribute allocation_attributes[] = {
    {"mode", "immediate|ondemand", take_allocation, "immediate or ondemand"},
    {"threads", NULL, take_threads, NULL},
    END};

static const struct xml_walk_element backing_children[] = {
    {"hugepages", .begin = begin_hugepages, .children = ELEMENTS{
        {"page", .repeats = true, .begin = begin_page, .end = end_page, .attributes = ATTRIBUTES{
            {"size", NULL, take_amount, NULL},
            {"unit", NULL, take_unit, NULL},
            {"nodeset", NULL, take_page_cells, NULL},
            END}},
        END}},
    {.name = "nosharepages"}, /* pages of equal contents are never joined here */
    {"locked", .begin = begin_locked},
    {.name = "discard"}, /* what memory held is gone with it */
    {"source", .attributes = ATTRIBUTES{
        {"type", "memfd|anonymous", take_source, "no such memory here: memfd or anonymous"},
        END}},
    {"access", .attributes = ATTRIBUTES{
        {"mode", "shared|private", take_access, "shared or private"},
        END}},
    {"allocation", .begin = begin_allocation, .attributes = allocation_attributes},
    END};

#define MODES "strict|preferred|interleave", take_mode, "no such policy here: strict, preferred or interleave"

static const struct xml_walk_element tuning_children[] = {
    {"memory", .begin = begin_tuning, .end = end_tuning, .attributes = ATTRIBUTES{
        {"mode", MODES},
        {"nodeset", NULL, take_nodes, NULL},
        {"placement", "static", NULL, "nobody chooses nodes here: only static"},
        END}},
    {"memnode", .repeats = true, .begin = begin_memnode, .end = end_tuning, .attributes = ATTRIBUTES{
        {"cellid", NULL, take_cell_id, NULL},
        {"mode", MODES},
        {"nodeset", NULL, take_nodes, NULL},
        END}},
    END};

static const struct xml_walk_attribute cell_attributes[] = {
    {"id", NULL, take_id, NULL},
    {"cpus", NULL, take_processors, NULL},
    {"memory", NULL, take_amount, NULL},
    {"unit", NULL, take_unit, NULL},
    {"memAccess", "shared|private", take_cell_access, "shared or private"},
    {"discard", "yes|no", NULL, "yes or no"},
    END};

static const char one_socket[] = "the guest sees one socket of single-threaded cores: only 1";

static const struct xml_walk_element cpu_children[] = {
    {"numa", .children = ELEMENTS{
        {"cell", .repeats = true, .begin = begin_cell, .end = end_cell, .attributes = cell_attributes},
        END}},
    {"topology", .begin = begin_topology, .attributes = ATTRIBUTES{
        {"sockets", "1", NULL, one_socket},
        {"dies", "1", NULL, one_socket},
        {"clusters", "1", NULL, one_socket},
        {"cores", NULL, take_cores, NULL},
        {"threads", "1", NULL, one_socket},
        END}},
    END};

static const struct xml_walk_attribute cpu_attributes[] = {
    {"mode", "host-passthrough|maximum", NULL, "the processor is the host's: only host-passthrough or maximum"},
    {"check", "none", NULL, "nothing is checked here: only none"},
    {"migratable", "on|off", NULL, "on or off"}, /* libvirt's own default is on, and nothing migrates here */
    END};

static const struct xml_walk_element os_children[] = {
    {"type", .values = "hvm", .why = "no such machine here: only hvm", .attributes = ATTRIBUTES{
        {"arch", "x86_64", NULL, "no such processor here: only x86_64"},
        {"machine", "microvm", NULL, "no such machine here: only microvm"},
        END}},
    {"kernel", .take = take_kernel},
    {"initrd", .take = take_initrd},
    {"cmdline", .take = take_command_line},
    {"boot", .repeats = true, .begin = begin_boot, .attributes = ATTRIBUTES{{"dev", NULL, NULL, NULL}, END}},
    {"loader", .why = "no firmware here: only <kernel>"},
    {"nvram", .why = "no firmware here: only <kernel>"},
    END};

static const struct xml_walk_element port_children[] = {
    {"source", .attributes = ATTRIBUTES{
        {"path", NULL, take_port_path, NULL},
        {"append", "on|off", take_append, "on or off"},
        END}},
    {"target", .attributes = ATTRIBUTES{
        {"port", "0", NULL, "one serial port is all there is: only 0"},
        {"type", "isa-serial|serial", NULL, "no such port here: only the first serial port"},
        END},
     .children = ELEMENTS{
        {"model", .attributes = ATTRIBUTES{{"name", "isa-serial", NULL, "no such port here: only isa-serial"}, END}},
        END}},
    {"alias", .is_free = true},
    END};

/* Of a console, tty is what libvirt found out. */
static const struct xml_walk_attribute port_attributes[] = {
    {"type", NULL, NULL, NULL}, {"tty", NULL, NULL, NULL}, END};

static const struct xml_walk_attribute mmio_attributes[] = {
    {"type", "virtio-mmio", NULL, "no such bus here: only virtio-mmio"}, END};

static const struct xml_walk_element rng_children[] = {
    {"backend", .values = "/dev/urandom|/dev/random|", .why = "the kernel's own generator is all there is: /dev/urandom",
     .attributes = ATTRIBUTES{{"model", "random", NULL, "the kernel's own generator is all there is: random"}, END}},
    {"address", .attributes = mmio_attributes},
    {"alias", .is_free = true},
    END};

static const struct xml_walk_element device_rows[] = {
    {"emulator", .is_free = true},
    {"serial", .begin = begin_serial, .end = end_port, .attributes = port_attributes, .children = port_children},
    {"console", .begin = begin_console, .end = end_port, .attributes = port_attributes, .children = port_children},
    {"rng", .begin = begin_rng, .attributes = ATTRIBUTES{{"model", NULL, NULL, NULL}, END}, .children = rng_children},
    {"controller", .repeats = true, .begin = begin_controller, .attributes = ATTRIBUTES{
        {"type", NULL, NULL, NULL}, {"index", NULL, NULL, NULL}, {"model", NULL, NULL, NULL}, END},
     .children = ELEMENTS{{"alias", .is_free = true}, END}},
    {"memballoon", .begin = begin_balloon, .attributes = ATTRIBUTES{{"model", NULL, NULL, NULL}, END},
     .children = ELEMENTS{{"alias", .is_free = true}, END}},
    {"audio", .begin = begin_audio, .attributes = ATTRIBUTES{{"id", NULL, NULL, NULL}, {"type", NULL, NULL, NULL}, END}},
    {"input", .repeats = true, .begin = begin_input, .attributes = ATTRIBUTES{
        {"type", NULL, NULL, NULL}, {"bus", NULL, NULL, NULL}, END}, .children = ELEMENTS{{"alias", .is_free = true}, END}},
    {"disk", .why = "no disk here"},
    {"filesystem", .why = "no file system of the host's here"},
    {"interface", .why = "no network device here"},
    {"graphics", .why = "no screen here"},
    {"video", .why = "no screen here"},
    {"sound", .why = "no sound here"},
    {"parallel", .why = "no parallel port here"},
    {"channel", .why = "no channel here"},
    {"hostdev", .why = "no device of the host's is handed on here"},
    {"redirdev", .why = "no device is handed on here"},
    {"tpm", .why = "no TPM here"},
    {"watchdog", .why = "no watchdog here"},
    {"panic", .why = "no panic device here"},
    {"shmem", .why = "no shared memory device here"},
    {"memory", .why = "no memory is plugged here"},
    {"vsock", .why = "no sockets to the host here"},
    {"iommu", .why = "no IOMMU here"},
    END};

static const struct xml_walk_attribute no_attributes[] = {{"enabled", "no", NULL, "a guest never sleeps here: only no"}, END};

static const struct xml_walk_element domain_children[] = {
    {"name", .is_free = true},
    {"uuid", .is_free = true},
    {"title", .is_free = true},
    {"description", .is_free = true},
    {"metadata", .is_free = true},
    {"memory", .begin = begin_amount, .take = take_amount, .end = end_memory, .attributes = memory_attributes},
    {"currentMemory", .begin = begin_amount, .take = take_amount, .end = end_current_memory,
     .attributes = amount_attributes},
    {"vcpu", .take = take_vcpus, .end = end_vcpus, .attributes = vcpu_attributes},
    {"memoryBacking", .children = backing_children},
    {"numatune", .children = tuning_children},
    {"cpu", .attributes = cpu_attributes, .children = cpu_children},
    {"os", .children = os_children},
    {"features", .children = ELEMENTS{
        {.name = "apic"},
        {.name = "pae"},
        {.name = "acpi"},
        END}},
    {"on_poweroff", .values = "destroy", .why = "a guest that ends is gone here: only destroy"},
    {"on_reboot", .values = "restart|destroy", .take = take_on_reboot, .why = "restart or destroy"},
    {"on_crash", .values = "destroy", .why = "a guest that crashes is gone here: only destroy"},
    {"clock", .attributes = ATTRIBUTES{{"offset", "utc", NULL, "no clock of another time here: only utc"}, END}},
    {"pm", .children = ELEMENTS{
        {"suspend-to-mem", .attributes = no_attributes},
        {"suspend-to-disk", .attributes = no_attributes},
        END}},
    {"devices", .is_list = true, .children = device_rows},
    {"maxMemory", .why = "no memory is plugged here"},
    {"vcpus", .why = "no vCPU is plugged here"},
    {"cputune", .why = "no vCPU is pinned or weighed here"},
    {"memtune", .why = "no control group is made here"},
    {"blkiotune", .why = "no control group is made here"},
    {"resource", .why = "no control group is made here"},
    {"iothreads", .why = "no threads of this kind here"},
    {"seclabel", .why = "no labels are set here"},
    {"sysinfo", .why = "no such tables here"},
    END};

static const struct xml_walk_element root = {
    "domain", .children = domain_children, .attributes = ATTRIBUTES{
        {"type", "kvm", NULL, "KVM is all there is here: only kvm"},
        {"id", NULL, NULL, NULL},
        END}};
/* clang-format on */

bool domain_read(const char *bytes, size_t count, const char *const *ignores, size_t ignore_count,
                 struct domain *domain, struct xml_walk_refusals *refusals)
{
    struct reading reading = {.domain = domain};
    struct xml_walk_request request = {.bytes = bytes,
                                       .count = count,
                                       .root = &root,
                                       .ignores = ignores,
                                       .ignore_count = ignore_count,
                                       .context = &reading};

    *domain = (struct domain){0};
    refusals->count = 0;
    if (xml_walk_run(&request, refusals)) {
        domain_finish(&reading.said, domain, refusals);
    }
    return refusals->count == 0;
}
