// SPDX-License-Identifier: Apache-2.0
#include "vmm/run_socket.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTION     "--control"
#define LINE_BYTES 65536u

/* What the process was told, its words apart by zeros. Returns how many bytes. */
static size_t read_line(const char *process, char line[LINE_BYTES])
{
    char name[64];
    ssize_t got = -1;
    int fd;

    snprintf(name, sizeof name, "/proc/%.20s/cmdline", process);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        got = read(fd, line, LINE_BYTES - 1);
        close(fd);
    }
    line[got > 0 ? got : 0] = '\0';
    return got > 0 ? (size_t)got : 0;
}

/* "--control PATH" or "--control=PATH"; NULL: neither. */
static const char *find_path(const char *line, size_t bytes)
{
    const size_t length = strlen(OPTION);

    for (const char *word = line; word < line + bytes; word += strlen(word) + 1) {
        if (strncmp(word, OPTION, length) == 0 && word[length] == '=') {
            return word + length + 1;
        }
        if (strcmp(word, OPTION) == 0 && word + length + 1 < line + bytes) {
            return word + length + 1;
        }
    }
    return NULL;
}

static bool is_number(const char *where)
{
    return where[0] != '\0' && strspn(where, "0123456789") == strlen(where);
}

enum loam_error run_socket_find(const char *where, char path[RUN_SOCKET_BYTES], struct loam_diag *diag)
{
    char *line = is_number(where) ? malloc(LINE_BYTES) : NULL;
    const char *found = where;
    int length;

    if (line != NULL) {
        found = find_path(line, read_line(where, line));
    }
    if (found == NULL) {
        free(line);
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "process %s: there is none, or it is no run that listens: begin it with loam run --control "
                         "SOCKET",
                         where);
    }
    length = line != NULL && found[0] != '/' ? snprintf(path, RUN_SOCKET_BYTES, "/proc/%.20s/cwd/%s", where, found)
                                             : snprintf(path, RUN_SOCKET_BYTES, "%s", found);
    free(line);
    return length < (int)RUN_SOCKET_BYTES ? LOAM_OK
                                          : loam_fail(diag, LOAM_ERROR_INVALID, "%s: its path is too long", where);
}
