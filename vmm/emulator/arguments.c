// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/arguments.h"

#include <stdio.h>
#include <string.h>

/* QEMU takes "--name" for "-name". */
static const struct argument_row *find_row(const struct argument_table *table, const char *name)
{
    name += name[0] == '-' && name[1] == '-';
    for (uint32_t i = 0; i < table->row_count; i++) {
        const struct argument_row *row = &table->rows[i];

        if (strcmp(row->name, name) == 0 || (row->alias != NULL && strcmp(row->alias, name) == 0)) {
            return row;
        }
    }
    return NULL;
}

static enum loam_error check_unique(const struct arguments *arguments, const struct argument *added,
                                    struct loam_diag *diag)
{
    const char *key = added->row->unique, *value;

    if (key == NULL || (value = words_get(&added->words, key)) == NULL ||
        arguments_find_by(arguments, added->row->name, key, value) == added) {
        return LOAM_OK;
    }
    return words_refuse(&added->words, NULL, diag, "another %s has %s=%s: give each its own", added->row->name, key,
                        words_show(value).text);
}

static enum loam_error read_value(const struct arguments *arguments, struct argument *argument, const char *value,
                                  struct loam_diag *diag)
{
    const struct argument_row *row = argument->row;
    enum loam_error error;

    if (row->form == ARGUMENT_TEXT) {
        char lead[64];

        argument->value = value;
        snprintf(lead, sizeof lead, "%s ", row->name);
        return words_fit_value(lead, &row->text, value, diag);
    }
    error = words_read(row->name, row->first, row->may_be_json, value, &argument->words, diag);
    if (error == LOAM_OK) {
        error = words_fit(&argument->words, row->what, row->types, row->type_count, &argument->type, diag);
    }
    return error == LOAM_OK ? check_unique(arguments, argument, diag) : error;
}

/* Read the option at argv[*index], and go on to the next one. */
static enum loam_error read_option(int argc, char *const argv[], int *index, const struct argument_table *table,
                                   struct arguments *arguments, struct loam_diag *diag)
{
    const char *name = argv[(*index)++];
    const struct argument_row *row = find_row(table, name);
    struct argument *argument;

    if (row == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: not an option here: -help lists those there are",
                         words_show(name).text);
    }
    if (arguments->count == ARGUMENTS_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: more than %u options: give fewer", row->name, ARGUMENTS_MAX);
    }
    if (row->form != ARGUMENT_ALONE && !row->many && arguments_find(arguments, row->name) != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: it is there twice: give it once", row->name);
    }
    argument = &arguments->list[arguments->count++];
    *argument = (struct argument){.row = row};
    if (row->form == ARGUMENT_ALONE) {
        return LOAM_OK;
    }
    return *index < argc ? read_value(arguments, argument, argv[(*index)++], diag)
                         : loam_fail(diag, LOAM_ERROR_INVALID, "%s: its value is missing", row->name);
}

enum loam_error arguments_read(int argc, char *const argv[], const struct argument_table *table,
                               struct arguments *arguments, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    int index = 1;

    arguments->count = 0;
    while (index < argc && error == LOAM_OK) {
        error = read_option(argc, argv, &index, table, arguments, diag);
    }
    if (error != LOAM_OK) {
        arguments_release(arguments);
    }
    return error;
}

void arguments_release(struct arguments *arguments)
{
    for (uint32_t i = 0; i < arguments->count; i++) {
        words_release(&arguments->list[i].words);
    }
    arguments->count = 0;
}

const struct argument *arguments_next(const struct arguments *arguments, const char *name, const struct argument *after)
{
    for (const struct argument *at = after != NULL ? after + 1 : arguments->list;
         at < arguments->list + arguments->count; at++) {
        if (strcmp(at->row->name, name) == 0) {
            return at;
        }
    }
    return NULL;
}

const struct argument *arguments_find(const struct arguments *arguments, const char *name)
{
    return arguments_next(arguments, name, NULL);
}

const struct argument *arguments_find_by(const struct arguments *arguments, const char *name, const char *key,
                                         const char *value)
{
    const struct argument *at = NULL;

    while ((at = arguments_next(arguments, name, at)) != NULL) {
        if (words_is(&at->words, key, value)) {
            return at;
        }
    }
    return NULL;
}
