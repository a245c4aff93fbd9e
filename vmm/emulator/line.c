// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line.h"

#include "vmm/emulator/arguments.h"
#include "vmm/emulator/line_chardev.h"
#include "vmm/emulator/line_descriptor.h"
#include "vmm/emulator/line_device.h"
#include "vmm/emulator/line_disk.h"
#include "vmm/emulator/line_memory.h"
#include "vmm/emulator/line_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define QMP_PREFIX "unix:"

/* --- Texts and switches --------------------------------------------------------------------------------------------- */

static bool is_there(const struct arguments *arguments, const char *name)
{
    return arguments_find(arguments, name) != NULL;
}

/* A copy of an option's value; NULL: it is not there. */
static enum loam_error copy_text(const struct arguments *arguments, const char *name, char **copy,
                                 struct loam_diag *diag)
{
    const struct argument *argument = arguments_find(arguments, name);

    *copy = argument != NULL ? words_duplicate(argument->value) : NULL;
    return argument == NULL || *copy != NULL ? LOAM_OK
                                             : loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: no memory is left for it", name);
}

static void read_switches(const struct arguments *arguments, struct line *line)
{
    const struct argument *sandbox = arguments_find(arguments, "-sandbox"), *own = arguments_find(arguments, "-x-loam");

    line->daemonize = is_there(arguments, "-daemonize");
    line->starts_paused = is_there(arguments, "-S");
    line->no_shutdown = is_there(arguments, "-no-shutdown");
    line->no_reboot = is_there(arguments, "-no-reboot");
    line->is_incoming = is_there(arguments, "-incoming");
    line->no_tune = own != NULL && !words_is_on(&own->words, "tune", true);
    line->no_sandbox = sandbox != NULL && !words_is_on(&sandbox->words, "enable", true);
}

static enum loam_error read_texts(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct {
        const char *name;
        char **copy;
    } texts[] = {
        {"-pidfile", &line->pid_path}, {"-uuid", &line->uuid},     {"-kernel", &line->kernel},
        {"-initrd", &line->initrd},    {"-append", &line->append},
    };
    enum loam_error error = LOAM_OK;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && error == LOAM_OK; i++) {
        error = copy_text(arguments, texts[i].name, texts[i].copy, diag);
    }
    return error;
}

/* "" if it was not given. */
static enum loam_error or_empty(char **text, struct loam_diag *diag)
{
    *text = *text != NULL ? *text : words_duplicate("");
    return *text != NULL ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "-name: no memory is left for it");
}

static enum loam_error read_name(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *name = arguments_find(arguments, "-name");
    enum loam_error error = name != NULL ? words_copy(&name->words, "guest", &line->name, diag) : LOAM_OK;

    if (error == LOAM_OK) {
        error = or_empty(&line->name, diag);
    }
    return error == LOAM_OK ? or_empty(&line->uuid, diag) : error;
}

static enum loam_error read_qmp(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *qmp = arguments_find(arguments, "-qmp");
    const char *address, *path;

    if (qmp == NULL) {
        return LOAM_OK;
    }
    address = words_get(&qmp->words, "address");
    path = address + sizeof QMP_PREFIX - 1;
    if (strncmp(address, QMP_PREFIX, sizeof QMP_PREFIX - 1) != 0 || *path == '\0' ||
        strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path) {
        return words_refuse(&qmp->words, NULL, diag, "not a UNIX socket: give unix:PATH, a path of 1 to %zu bytes",
                            sizeof((struct sockaddr_un *)NULL)->sun_path - 1);
    }
    line->qmp_path = words_duplicate(path);
    return line->qmp_path != NULL ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "-qmp: no memory is left for it");
}

/* --- Machine -------------------------------------------------------------------------------------------------------- */

static enum loam_error read_machine(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *machine = arguments_find(arguments, "-machine");

    if (machine == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "-machine: it is missing: give -machine microvm");
    }
    line->is_probe = machine->type == LINE_MACHINE_NONE;
    line->no_acpi = is_there(arguments, "-no-acpi") || !words_is_on(&machine->words, "acpi", true);
    if (!line->is_probe && !is_there(arguments, "-accel") && !is_there(arguments, "-enable-kvm") &&
        words_get(&machine->words, "accel") == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "-accel: it is missing, and Loam has no emulation: give -accel kvm (<domain type='kvm'>)");
    }
    return LOAM_OK;
}

static enum loam_error read_smp(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *smp = arguments_find(arguments, "-smp");

    line->vcpu_count = smp != NULL ? (uint32_t)words_number(&smp->words, "cpus", 1) : 1;
    if (smp == NULL || words_number(&smp->words, "maxcpus", line->vcpu_count) == line->vcpu_count) {
        return LOAM_OK;
    }
    return words_refuse(&smp->words, "maxcpus", diag, "processors are all there from the start: give maxcpus=%u",
                        line->vcpu_count);
}

static enum loam_error check_kernel(const struct line *line, struct loam_diag *diag)
{
    if (line->kernel == NULL && (line->initrd != NULL || line->append != NULL)) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: it goes with -kernel FILE only: give both",
                         line->initrd != NULL ? "-initrd" : "-append");
    }
    return LOAM_OK;
}

static enum loam_error read_domain(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    static enum loam_error (*const steps[])(const struct arguments *, struct line *, struct loam_diag *) = {
        read_smp, line_memory_read, line_descriptor_read, line_chardev_read, line_disk_read, line_device_read,
    };
    enum loam_error error = check_kernel(line, diag);

    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && error == LOAM_OK; i++) {
        error = steps[i](arguments, line, diag);
    }
    return error;
}

/* --- The line ------------------------------------------------------------------------------------------------------- */

static enum loam_error read_all(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    enum loam_error error;

    line->serial = -1;
    line->wants_help = is_there(arguments, "-help");
    line->wants_version = is_there(arguments, "-version");
    if (line->wants_help || line->wants_version) {
        return read_name(arguments, line, diag);
    }
    read_switches(arguments, line);
    error = read_texts(arguments, line, diag);
    if (error == LOAM_OK) {
        error = read_name(arguments, line, diag);
    }
    if (error == LOAM_OK) {
        error = read_qmp(arguments, line, diag);
    }
    if (error == LOAM_OK) {
        error = read_machine(arguments, line, diag);
    }
    return error == LOAM_OK && !line->is_probe ? read_domain(arguments, line, diag) : error;
}

enum loam_error line_read(int argc, char *const argv[], struct line *line, struct loam_diag *diag)
{
    struct arguments *arguments = malloc(sizeof *arguments);
    enum loam_error error;

    *line = (struct line){0};
    if (arguments == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "no memory is left to read the command line");
    }
    error = arguments_read(argc, argv, line_table(), arguments, diag);
    if (error == LOAM_OK) {
        error = read_all(arguments, line, diag);
        arguments_release(arguments);
    }
    free(arguments);
    if (error != LOAM_OK) {
        line_release(line);
    }
    return error;
}

static void release_devices(struct line *line)
{
    for (uint32_t i = 0; i < LINE_FDSET_MAX; i++) {
        free(line->fdsets[i].opaque);
    }
    for (uint32_t i = 0; i < LINE_CHARDEV_MAX; i++) {
        free(line->chardevs[i].id);
        free(line->chardevs[i].path);
        free(line->chardevs[i].log_path);
    }
    for (uint32_t i = 0; i < LINE_DISK_MAX; i++) {
        free(line->disks[i].id);
        free(line->disks[i].node);
        free(line->disks[i].storage);
        free(line->disks[i].path);
        free(line->disks[i].serial);
    }
    for (uint32_t i = 0; i < LINE_NET_MAX; i++) {
        free(line->nets[i].id);
    }
}

void line_release(struct line *line)
{
    char *const texts[] = {line->pid_path, line->qmp_path, line->name,      line->uuid,      line->memory_path,
                           line->kernel,   line->initrd,   line->append,    line->serial_id, line->rng_id,
                           line->rng_path, line->x_pages,  line->balloon_id};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        free(texts[i]);
    }
    for (uint32_t i = 0; i < LOAM_MEMORY_PART_MAX; i++) {
        free(line->memory_paths[i]);
    }
    release_devices(line);
    *line = (struct line){0};
}

bool line_print_help(FILE *file)
{
    const struct argument_table *table = line_table();

    for (uint32_t i = 0; i < table->row_count; i++) {
        if (fprintf(file, "  %s%s%s\n", table->rows[i].name, table->rows[i].form == ARGUMENT_ALONE ? ": " : " ",
                    table->rows[i].help) < 0) {
            return false;
        }
    }
    return true;
}
