// SPDX-License-Identifier: Apache-2.0
/*
 * A command line of QEMU's form, held against a table of what is known: "-name", "-name value", and no words that belong
 * to no option. Each option is there once, if the table does not say otherwise, and each id once among options of one name.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_EMULATOR_ARGUMENTS_H
#define LOAM_VMM_EMULATOR_ARGUMENTS_H

#include "loam/error.h"
#include "vmm/emulator/words.h"

#include <stdbool.h>
#include <stdint.h>

#define ARGUMENTS_MAX 256u

enum argument_form {
    ARGUMENT_ALONE, /* without a value; may be there again */
    ARGUMENT_TEXT,  /* a value that is one text, of the kind of `text` */
    ARGUMENT_WORDS, /* a value of words, which one of `types` fits */
};

/* An option that is known. */
struct argument_row {
    const char *name;  /* "-device" */
    const char *alias; /* NULL: none */
    enum argument_form form;
    bool many;             /* may be there more than once */
    bool may_be_json;      /* WORDS */
    const char *first;     /* WORDS: the key of a first word without one; NULL: none */
    const char *unique;    /* WORDS: a key whose value no two of this option have; NULL: none */
    const char *what;      /* WORDS: what the types are: "device" */
    struct words_key text; /* TEXT; its name is NULL */
    const struct words_type *types;
    uint32_t type_count;
    const char *help; /* "VALUE: text", or text */
};

struct argument_table {
    const struct argument_row *rows;
    uint32_t row_count;
};

struct argument {
    const struct argument_row *row;
    const char *value;  /* TEXT, of argv */
    struct words words; /* WORDS */
    uint32_t type;      /* WORDS: index into types */
};

struct arguments {
    uint32_t count;
    struct argument list[ARGUMENTS_MAX];
};

/* Read argv[1..]. On failure nothing is left. LOAM_ERROR_INVALID; LOAM_ERROR_SYSTEM: no memory. */
LOAM_MUST_USE enum loam_error arguments_read(int argc, char *const argv[], const struct argument_table *table,
                                             struct arguments *arguments, struct loam_diag *diag);

void arguments_release(struct arguments *arguments);

/* The next option of that name after `after` (NULL: the first of them), in the order of the line; NULL: no more. */
const struct argument *arguments_next(const struct arguments *arguments, const char *name,
                                      const struct argument *after);

/* The only option of that name; NULL: it is not there. */
const struct argument *arguments_find(const struct arguments *arguments, const char *name);

/* The option of that name whose key has this value; NULL: there is none. */
const struct argument *arguments_find_by(const struct arguments *arguments, const char *name, const char *key,
                                         const char *value);

#endif
