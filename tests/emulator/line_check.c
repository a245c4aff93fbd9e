// SPDX-License-Identifier: Apache-2.0
#include "tests/emulator/line_check.h"

#include <string.h>

#define FD_MAX (LINE_FDSET_MAX + LINE_CHARDEV_MAX + LINE_NET_MAX)

static const char *check_counts(const struct line *line)
{
    return line->chardev_count > LINE_CHARDEV_MAX                       ? "too many chardevs"
           : line->fdset_count > LINE_FDSET_MAX                         ? "too many sets"
           : line->disk_count > LINE_DISK_MAX                           ? "too many disks"
           : line->net_count > LINE_NET_MAX                             ? "too many networks"
           : line->monitor_count > 2                                    ? "too many monitors"
           : line->memory.part_count > LOAM_MEMORY_PART_MAX             ? "too many parts"
           : line->memory.part_count == 1                               ? "one part, which is not the request itself"
           : line->memory.thread_count > LOAM_BACKING_THREAD_MAX        ? "too many threads"
           : line->vcpu_count > 1024                                    ? "too many processors"
           : line->serial < -1 || line->serial >= (int)LINE_CHARDEV_MAX ? "no such chardev"
           : line->name == NULL || line->uuid == NULL                   ? "no name"
                                                                        : NULL;
}

/* A descriptor has a place here once: of a set, of a chardev that has no set, of a network. */
static const char *check_descriptors(const struct line *line)
{
    int fds[FD_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < line->fdset_count; i++) {
        fds[count++] = line->fdsets[i].fd;
    }
    for (uint32_t i = 0; i < line->chardev_count; i++) {
        if (line->chardevs[i].kind == LINE_CHARDEV_SOCKET && line->chardevs[i].path == NULL) {
            fds[count++] = line->chardevs[i].fd;
        }
    }
    for (uint32_t i = 0; i < line->net_count; i++) {
        if (line->nets[i].kind == LINE_NET_TAP) {
            fds[count++] = line->nets[i].fd;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (fds[i] < 3 || fds[i] == fds[j]) {
                return "a descriptor is there twice, or is a standard one";
            }
        }
    }
    return NULL;
}

static const char *check_devices(const struct line *line)
{
    for (uint32_t i = 0; i < line->chardev_count; i++) {
        const struct line_chardev *chardev = &line->chardevs[i];
        bool has_place = chardev->kind == LINE_CHARDEV_FILE || chardev->kind == LINE_CHARDEV_SOCKET;

        if (chardev->id == NULL || has_place != ((chardev->path != NULL) != (chardev->fd >= 0))) {
            return "a chardev without an id or a place, or with both a path and a descriptor";
        }
    }
    for (uint32_t i = 0; i < line->monitor_count; i++) {
        if ((uint32_t)line->monitors[i] >= line->chardev_count || line->monitors[i] == line->serial ||
            line->chardevs[line->monitors[i]].kind != LINE_CHARDEV_SOCKET) {
            return "a monitor on no socket of its own";
        }
    }
    for (uint32_t i = 0; i < line->disk_count; i++) {
        const struct line_disk *disk = &line->disks[i];

        if (disk->id == NULL || disk->node == NULL || disk->storage == NULL ||
            (disk->path != NULL) == (disk->fd >= 0)) {
            return "a disk without an id, a node or a file";
        }
    }
    return line->serial >= (int)line->chardev_count ? "no such chardev" : NULL;
}

static const char *check_memory(const struct line *line)
{
    const struct loam_memory_request *memory = &line->memory;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < memory->part_count; i++) {
        sum += memory->parts[i].bytes;
    }
    return line->is_probe || line->wants_help || line->wants_version               ? NULL
           : memory->bytes < 2 * LOAM_MIB || memory->bytes % LOAM_FRAME_BYTES != 0 ? "no whole frames of RAM"
           : memory->part_count > 0 && sum != memory->bytes                        ? "parts that are not the sum"
           : line->vcpu_count == 0                                                 ? "no processor"
                                                                                   : NULL;
}

const char *line_check(const struct line *line)
{
    static const char *(*const checks[])(const struct line *) = {check_counts, check_descriptors, check_devices,
                                                                 check_memory};

    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        const char *fault = checks[i](line);

        if (fault != NULL) {
            return fault;
        }
    }
    return NULL;
}

const char *line_check_text(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            return "a control character";
        }
    }
    return text[0] == '\0' ? "no text" : strchr(text, ':') == NULL ? "nothing is named" : NULL;
}
