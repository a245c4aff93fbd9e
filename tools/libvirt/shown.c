// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/shown.h"

#include "vmm/printable.h"
#include "vmm/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_LOST 3 /* what was printed could not be written */

struct shown shown_line(const char *text)
{
    size_t left = strnlen(text, SHOWN_BYTES), length = 0;
    bool is_cut = text[left] != '\0';
    struct shown shown;

    /* Line feed and tab are for texts of several lines. */
    for (size_t part; left > 0; text += part, left -= part) {
        part = strcspn(text, "\n\t");
        if (part == 0) {
            part = 1;
            length += (size_t)snprintf(shown.text + length, 5, "\\x%02x", (unsigned char)*text);
        } else {
            part = part < left ? part : left;
            length += printable_escape(text, part, shown.text + length);
        }
    }
    snprintf(shown.text + length, 4, "%s", is_cut ? "..." : "");
    return shown;
}

struct word shown_count(uint64_t count)
{
    struct word word = {"unknown"};

    if (count != UINT64_MAX) {
        snprintf(word.text, sizeof word.text, "%" PRIu64, count);
    }
    return word;
}

struct word shown_amount(uint64_t bytes)
{
    return bytes == UINT64_MAX ? (struct word){"unknown"} : words_amount(bytes);
}

json_t *shown_json_text(const char *text)
{
    char *repaired = text[0] == '\0' ? NULL : malloc(UTF8_REPAIRED_BYTES(strlen(text)));
    json_t *json = NULL;

    if (repaired != NULL) {
        utf8_repair(text, strlen(text), repaired);
        json = json_string(repaired);
        free(repaired);
    }
    return json == NULL ? json_null() : json;
}

json_t *shown_json_figure(uint64_t figure)
{
    return figure > INT64_MAX ? json_null() : json_integer((json_int_t)figure);
}

int shown_finish(json_t *object, int status)
{
    bool good = true;

    if (object != NULL) {
        good = json_dumpf(object, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF;
        json_decref(object);
    }
    if (good && fflush(stdout) == 0 && !ferror(stdout)) {
        return status;
    }
    fprintf(stderr, "loam: standard output: what was printed could not be written: %s\n", strerror(errno));
    return STATUS_LOST;
}
