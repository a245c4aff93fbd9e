// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line_descriptor.h"

#include <string.h>

#define FDSET_PREFIX "/dev/fdset/"

/* --- Once each ----------------------------------------------------------------------------------------------------- */

static bool is_descriptor(const struct words_word *word)
{
    return strcmp(word->key, "fd") == 0 || strncmp(word->value, FDSET_PREFIX, sizeof FDSET_PREFIX - 1) == 0;
}

/* Whether a word before this one, on the line or among its own, names the same. */
static bool is_named_before(const struct arguments *arguments, const struct argument *named, uint32_t index)
{
    const char *value = named->words.list[index].value;

    for (const struct argument *at = arguments->list; at <= named; at++) {
        uint32_t count = at == named ? index : at->words.count;

        for (uint32_t i = 0; i < count; i++) {
            if (is_descriptor(&at->words.list[i]) && strcmp(at->words.list[i].value, value) == 0) {
                return true;
            }
        }
    }
    return false;
}

static enum loam_error check_once(const struct arguments *arguments, struct loam_diag *diag)
{
    for (const struct argument *at = arguments->list; at < arguments->list + arguments->count; at++) {
        for (uint32_t i = 0; i < at->words.count; i++) {
            if (is_descriptor(&at->words.list[i]) && is_named_before(arguments, at, i)) {
                return words_refuse(&at->words, NULL, diag, "%s=%s: it is named before: give each its own",
                                    at->words.list[i].key, words_show(at->words.list[i].value).text);
            }
        }
    }
    return LOAM_OK;
}

/* --- Sets ---------------------------------------------------------------------------------------------------------- */

enum loam_error line_descriptor_read(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    enum loam_error error = check_once(arguments, diag);

    for (const struct argument *at = NULL;
         error == LOAM_OK && (at = arguments_next(arguments, "-add-fd", at)) != NULL;) {
        struct line_fdset *fdset = &line->fdsets[line->fdset_count];

        if (line->fdset_count == LINE_FDSET_MAX) {
            return words_refuse(&at->words, NULL, diag, "more than %u of them: give fewer", LINE_FDSET_MAX);
        }
        fdset->set = (uint32_t)words_number(&at->words, "set", 0);
        fdset->fd = (int)words_number(&at->words, "fd", 0);
        line->fdset_count++;
        error = words_copy(&at->words, "opaque", &fdset->opaque, diag);
    }
    return error;
}

enum loam_error line_descriptor_or_path(const struct line *line, const struct words *words, const char *key,
                                        char **path, int *fd, struct loam_diag *diag)
{
    const char *value = words_get(words, key);
    uint64_t set;

    *fd = -1;
    *path = NULL;
    if (value == NULL || strncmp(value, FDSET_PREFIX, sizeof FDSET_PREFIX - 1) != 0) {
        return words_copy(words, key, path, diag);
    }
    if (words_parse_number(value + sizeof FDSET_PREFIX - 1, INT32_MAX, &set, NULL)) {
        for (uint32_t i = 0; i < line->fdset_count; i++) {
            if (line->fdsets[i].set == set) {
                *fd = line->fdsets[i].fd;
                return LOAM_OK;
            }
        }
    }
    return words_refuse(words, key, diag, "there is no -add-fd of that set");
}
