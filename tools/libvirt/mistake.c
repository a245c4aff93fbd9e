// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/mistake.h"

#include "tools/libvirt/shown.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_USAGE 2

/* What argp says meanwhile; stream is NULL but while options are read. */
static struct {
    FILE *stream, *standard_error;
    char *text;
    size_t bytes;
    const char *name; /* with which its first line begins */
    bool as_json;
} said;

void mistake_stop_listening(void)
{
    if (said.stream != NULL) {
        stderr = said.standard_error;
        fclose(said.stream);
        said.stream = NULL;
        free(said.text);
        said.text = NULL;
    }
}

static void print_object(const char *line, json_t *object, int status)
{
    object = object == NULL ? json_object() : object;
    json_object_set_new(object, "error", shown_json_text(line));
    json_object_set_new(object, "exit", json_integer(status));
    (void)shown_finish(object, status);
}

/* Line by line, so that each is one. */
static void print_lines(char *text)
{
    for (char *next; *text != '\0'; text = next) {
        next = text + strcspn(text, "\n");
        if (*next != '\0') {
            *next++ = '\0';
        }
        fprintf(stderr, "%s\n", shown_line(text).text);
    }
}

/* argp ends the process when it meets a mistake. */
static void tell(void)
{
    if (said.stream == NULL) {
        return;
    }
    fflush(said.stream);
    stderr = said.standard_error;
    if (said.text == NULL || said.text[0] == '\0') {
        return;
    }
    print_lines(said.text);
    if (said.as_json) {
        const char *line = said.text;

        line += strncmp(line, said.name, strlen(said.name)) == 0 ? strlen(said.name) : 0;
        print_object(line + strspn(line, ": "), NULL, STATUS_USAGE);
    }
}

void mistake_listen(int argc, char *const argv[])
{
    FILE *stream = atexit(tell) == 0 ? open_memstream(&said.text, &said.bytes) : NULL;

    said.name = argv[0];
    said.standard_error = stderr;
    for (int i = 1; i < argc; i++) {
        said.as_json = said.as_json || strcmp(argv[i], "--json") == 0;
    }
    if (stream != NULL) {
        said.stream = stderr = stream;
    }
}

int mistake_say(const char *name, bool as_json, json_t *object, int status, const char *format, ...)
{
    char line[SHOWN_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s: %s\n", name, shown_line(line).text);
    if (as_json) {
        print_object(line, object, status);
    } else {
        json_decref(object);
    }
    return status;
}

void mistake_open_standard(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}
