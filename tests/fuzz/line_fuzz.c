// SPDX-License-Identifier: Apache-2.0
/* libFuzzer: the file's lines are the words of a command line. It is read or refused, and what is accepted is within bounds. */
#include "tests/emulator/line_check.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

/* The first word is the program's. What is behind a zero byte in a line is not seen. */
static int split(char *text, size_t size, char *argv[WORD_MAX + 1])
{
    static char program[] = "loam-emulator";
    int argc = 1;

    argv[0] = program;
    text[size] = '\0';
    for (char *word = text, *end; word < text + size && argc < WORD_MAX; word = end + 1) {
        end = memchr(word, '\n', (size_t)(text + size - word));
        end = end != NULL ? end : text + size;
        *end = '\0';
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return argc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *argv[WORD_MAX + 1];
    struct loam_diag diag = {0};
    struct line line;

    REQUIRE(text != NULL);
    memcpy(text, data, size);
    if (line_read(split(text, size, argv), argv, &line, &diag) == LOAM_OK) {
        REQUIRE(line_check(&line) == NULL);
        line_release(&line);
    } else {
        REQUIRE(diag.error == LOAM_ERROR_INVALID && line_check_text(diag.text) == NULL);
    }
    free(text);
    return 0;
}
