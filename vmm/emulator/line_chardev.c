// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line_chardev.h"

#include "vmm/emulator/line_descriptor.h"
#include "vmm/emulator/line_table.h"

#include <string.h>

/* --- Chardevs ------------------------------------------------------------------------------------------------------ */

static enum loam_error read_socket(const struct words *words, struct line_chardev *chardev, struct loam_diag *diag)
{
    chardev->fd = words_get(words, "fd") != NULL ? (int)words_number(words, "fd", 0) : -1;
    if ((chardev->fd < 0) == (words_get(words, "path") == NULL)) {
        return words_refuse(words, NULL, diag, "%s: UNIX sockets alone are served: give path= or fd=",
                            chardev->fd < 0 ? "neither path= nor fd=" : "path= and fd=");
    }
    return words_copy(words, "path", &chardev->path, diag);
}

static enum loam_error read_log(const struct line *line, const struct words *words, struct line_chardev *chardev,
                                struct loam_diag *diag)
{
    chardev->log_append = words_is_on(words, "logappend", false);
    if (words_get(words, "logfile") == NULL && words_get(words, "logappend") != NULL) {
        return words_refuse(words, "logappend", diag, "it goes with logfile= only: give both");
    }
    return line_descriptor_or_path(line, words, "logfile", &chardev->log_path, &chardev->log_fd, diag);
}

static enum loam_error read_chardev(const struct argument *argument, const struct line *line,
                                    struct line_chardev *chardev, struct loam_diag *diag)
{
    const struct words *words = &argument->words;
    enum loam_error error = words_copy(words, "id", &chardev->id, diag);

    chardev->kind = (enum line_chardev_kind)argument->type;
    chardev->fd = chardev->log_fd = -1;
    chardev->append = words_is_on(words, "append", false);
    if (error == LOAM_OK && chardev->kind == LINE_CHARDEV_SOCKET) {
        error = read_socket(words, chardev, diag);
    } else if (error == LOAM_OK && chardev->kind == LINE_CHARDEV_FILE) {
        error = line_descriptor_or_path(line, words, "path", &chardev->path, &chardev->fd, diag);
    }
    return error == LOAM_OK ? read_log(line, words, chardev, diag) : error;
}

static enum loam_error read_chardevs(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    bool has_stdio = false;

    for (const struct argument *at = NULL;
         error == LOAM_OK && (at = arguments_next(arguments, "-chardev", at)) != NULL;) {
        if (line->chardev_count == LINE_CHARDEV_MAX) {
            return words_refuse(&at->words, NULL, diag, "more than %u of them: give fewer", LINE_CHARDEV_MAX);
        }
        if (at->type == LINE_CHARDEV_STDIO && has_stdio) {
            return words_refuse(&at->words, NULL, diag, "another one has standard input: give one");
        }
        has_stdio |= at->type == LINE_CHARDEV_STDIO;
        error = read_chardev(at, line, &line->chardevs[line->chardev_count++], diag);
    }
    return error;
}

/* --- Who has them --------------------------------------------------------------------------------------------------- */

static bool is_monitor(const struct line *line, int chardev)
{
    for (uint32_t i = 0; i < line->monitor_count; i++) {
        if (line->monitors[i] == chardev) {
            return true;
        }
    }
    return false;
}

/* The chardev that words name. */
static enum loam_error take(const struct line *line, const struct words *words, int *index, struct loam_diag *diag)
{
    const char *id = words_get(words, "chardev");

    for (*index = 0; (uint32_t)*index < line->chardev_count; ++*index) {
        if (strcmp(line->chardevs[*index].id, id) == 0) {
            return !is_monitor(line, *index)
                       ? LOAM_OK
                       : words_refuse(words, "chardev", diag, "another has it already: give each its own -chardev");
        }
    }
    return words_refuse(words, "chardev", diag, "there is no -chardev of that id");
}

static enum loam_error read_monitors(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const uint32_t most = sizeof line->monitors / sizeof line->monitors[0];
    enum loam_error error = LOAM_OK;
    int index;

    for (const struct argument *at = NULL; error == LOAM_OK && (at = arguments_next(arguments, "-mon", at)) != NULL;) {
        if (line->monitor_count == most) {
            return words_refuse(&at->words, NULL, diag, "more than %u of them: give fewer", most);
        }
        error = take(line, &at->words, &index, diag);
        if (error == LOAM_OK && line->chardevs[index].kind != LINE_CHARDEV_SOCKET) {
            error = words_refuse(&at->words, "chardev", diag, "monitors are sockets: give -chardev socket");
        }
        if (error == LOAM_OK) {
            line->monitors[line->monitor_count++] = index;
        }
    }
    return error;
}

static enum loam_error read_serial(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *serial = line_next_of(arguments, "-device", LINE_DEVICE_SERIAL, NULL);
    enum loam_error error;
    int index;

    if (serial == NULL) {
        return LOAM_OK;
    }
    if (line_next_of(arguments, "-device", LINE_DEVICE_SERIAL, serial) != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "-device isa-serial: there is one serial port: give one");
    }
    error = take(line, &serial->words, &index, diag);
    if (error != LOAM_OK) {
        return error;
    }
    line->serial = index;
    return words_copy(&serial->words, "id", &line->serial_id, diag);
}

enum loam_error line_chardev_read(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    enum loam_error error = read_chardevs(arguments, line, diag);

    if (error == LOAM_OK) {
        error = read_monitors(arguments, line, diag);
    }
    return error == LOAM_OK ? read_serial(arguments, line, diag) : error;
}
