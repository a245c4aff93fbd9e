// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line_disk.h"

#include "vmm/emulator/line_descriptor.h"
#include "vmm/emulator/line_table.h"

#include <string.h>

/* A disk's nodes: the one that the device names, and the one of the file, which may be the same. */
struct nodes {
    const struct argument *top, *storage;
};

/* --- Nodes --------------------------------------------------------------------------------------------------------- */

static enum loam_error find_nodes(const struct arguments *arguments, const struct words *device, struct nodes *nodes,
                                  struct loam_diag *diag)
{
    const struct words *top;

    nodes->top = nodes->storage = arguments_find_by(arguments, "-blockdev", "node-name", words_get(device, "drive"));
    if (nodes->top == NULL) {
        return words_refuse(device, "drive", diag, "there is no -blockdev of that node-name");
    }
    if (nodes->top->type != LINE_BLOCKDEV_RAW) {
        return LOAM_OK;
    }
    top = &nodes->top->words;
    nodes->storage = arguments_find_by(arguments, "-blockdev", "node-name", words_get(top, "file"));
    return nodes->storage != NULL && nodes->storage->type != LINE_BLOCKDEV_RAW
               ? LOAM_OK
               : words_refuse(top, "file", diag,
                              "there is no -blockdev of driver file or host_device of that node-name");
}

static const char *name_of(const struct argument *node)
{
    return words_get(&node->words, "node-name");
}

/* Each node is of one disk. */
static enum loam_error check_nodes(const struct line *line, const struct nodes *nodes, const struct words *device,
                                   struct loam_diag *diag)
{
    for (uint32_t i = 0; i < line->disk_count; i++) {
        if (strcmp(line->disks[i].node, name_of(nodes->top)) == 0 ||
            strcmp(line->disks[i].storage, name_of(nodes->storage)) == 0) {
            return words_refuse(device, "drive", diag, "another disk has it, or the file below it: give each its own");
        }
    }
    return LOAM_OK;
}

static bool is_used(const struct line *line, const char *name)
{
    for (uint32_t i = 0; i < line->disk_count; i++) {
        if (strcmp(line->disks[i].node, name) == 0 || strcmp(line->disks[i].storage, name) == 0) {
            return true;
        }
    }
    return false;
}

/* --- Disks --------------------------------------------------------------------------------------------------------- */

static void read_flags(const struct nodes *nodes, const struct words *device, struct line_disk *disk)
{
    const struct words *top = &nodes->top->words, *storage = &nodes->storage->words;

    disk->read_only = words_is_on(top, "read-only", false) || words_is_on(storage, "read-only", false);
    disk->direct = words_is_on(storage, "cache.direct", false);
    disk->no_flush = words_is_on(top, "cache.no-flush", false) || words_is_on(storage, "cache.no-flush", false);
    disk->discard = words_is(top, "discard", "unmap") && words_is(storage, "discard", "unmap");
    disk->write_through = words_is(device, "write-cache", "off");
}

static enum loam_error read_disk(const struct argument *argument, const struct nodes *nodes, const struct line *line,
                                 struct line_disk *disk, struct loam_diag *diag)
{
    enum loam_error error = words_copy(&argument->words, "id", &disk->id, diag);

    if (error == LOAM_OK) {
        error = words_copy(&nodes->top->words, "node-name", &disk->node, diag);
    }
    if (error == LOAM_OK) {
        error = words_copy(&nodes->storage->words, "node-name", &disk->storage, diag);
    }
    if (error == LOAM_OK) {
        error = words_copy(&argument->words, "serial", &disk->serial, diag);
    }
    if (error == LOAM_OK) {
        error = line_descriptor_or_path(line, &nodes->storage->words, "filename", &disk->path, &disk->fd, diag);
    }
    read_flags(nodes, &argument->words, disk);
    return error;
}

static enum loam_error add_disk(const struct arguments *arguments, const struct argument *argument, struct line *line,
                                struct loam_diag *diag)
{
    struct nodes nodes;
    enum loam_error error = find_nodes(arguments, &argument->words, &nodes, diag);

    if (error == LOAM_OK) {
        error = check_nodes(line, &nodes, &argument->words, diag);
    }
    return error == LOAM_OK ? read_disk(argument, &nodes, line, &line->disks[line->disk_count++], diag) : error;
}

enum loam_error line_disk_read(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (const struct argument *at = NULL;
         error == LOAM_OK && (at = line_next_of(arguments, "-device", LINE_DEVICE_BLK, at)) != NULL;) {
        error = line->disk_count < LINE_DISK_MAX
                    ? add_disk(arguments, at, line, diag)
                    : words_refuse(&at->words, NULL, diag, "more than %u of them: give fewer", LINE_DISK_MAX);
    }
    for (const struct argument *at = NULL;
         error == LOAM_OK && (at = arguments_next(arguments, "-blockdev", at)) != NULL;) {
        if (!is_used(line, name_of(at))) {
            error = words_refuse(&at->words, NULL, diag,
                                 "no -device virtio-blk-device names it: give one, or leave it out");
        }
    }
    return error;
}
