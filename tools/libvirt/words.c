// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES_MAX (UINT64_C(1) << 40)

/* --- Reading ---------------------------------------------------------------------------------------------------- */

/* A decimal number at *text, which then points behind it. */
static bool take_number(const char **text, uint64_t *number)
{
    char *end;

    *number = 0;
    if (**text < '0' || **text > '9') {
        return false;
    }
    errno = 0;
    *number = strtoull(*text, &end, 10);
    *text = end;
    return errno == 0;
}

/* A size at *text, which then points behind it. */
static bool take_bytes(const char **text, uint64_t *bytes)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    uint64_t number;

    *bytes = 0;
    if (!take_number(text, &number)) {
        return false;
    }
    suffix = **text == '\0' ? NULL : strchr(suffixes, **text);
    *text += suffix != NULL;
    return !__builtin_mul_overflow(number, UINT64_C(1) << (suffix == NULL ? 0 : 10 * (suffix - suffixes + 1)), bytes);
}

bool words_parse_bytes(const char *text, uint64_t *bytes)
{
    return take_bytes(&text, bytes) && *text == '\0';
}

bool words_is_pool_page(uint64_t bytes)
{
    return bytes > WORDS_BASE_BYTES && bytes <= PAGE_BYTES_MAX && (bytes & (bytes - 1)) == 0;
}

bool words_parse_kind(const char *text, struct page_kind *kind)
{
    *kind = (struct page_kind){PAGE_SOURCE_THP, WORDS_BASE_BYTES};
    if (strcmp(text, "thp") == 0) {
        return true;
    }
    kind->source = PAGE_SOURCE_BASE;
    if (!words_parse_bytes(text, &kind->page_bytes)) {
        return false;
    }
    if (kind->page_bytes == WORDS_BASE_BYTES) {
        return true;
    }
    kind->source = PAGE_SOURCE_POOL;
    return words_is_pool_page(kind->page_bytes);
}

static bool is_among(const struct page_kind *kind, const struct page_kind *kinds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (kinds[i].source == kind->source && kinds[i].page_bytes == kind->page_bytes) {
            return true;
        }
    }
    return false;
}

enum loam_error words_parse_kinds(const char *text, struct page_kind kinds[WORDS_PAGE_KIND_MAX], uint32_t *count,
                                  struct loam_diag *diag)
{
    *count = 0;
    for (bool more = true; more;) {
        size_t length = strcspn(text, ",");
        char word[16] = {0};

        if (*count == WORDS_PAGE_KIND_MAX) {
            return loam_fail(diag, LOAM_ERROR_INVALID, "more than %u kinds of page: give fewer", WORDS_PAGE_KIND_MAX);
        }
        memcpy(word, text, length < sizeof word ? length : sizeof word - 1);
        if (length >= sizeof word || !words_parse_kind(word, &kinds[*count])) {
            return loam_fail(diag, LOAM_ERROR_INVALID,
                             "%s: no such kind of page: give 2M, 1G or another size of huge pages, thp or 4K", word);
        }
        if (is_among(&kinds[*count], kinds, *count)) {
            return loam_fail(diag, LOAM_ERROR_INVALID, "%s: there twice: give it once", word);
        }
        ++*count;
        more = text[length] == ',';
        text += length + more;
    }
    return LOAM_OK;
}

enum loam_error words_parse_pool(const char *text, struct pool_wish *wish, struct loam_diag *diag)
{
    const char *at = text;
    uint64_t node = WORDS_NODE_ANY;
    bool good;

    *wish = (struct pool_wish){.node = WORDS_NODE_ANY};
    good = take_bytes(&at, &wish->page_bytes) && words_is_pool_page(wish->page_bytes);
    if (good && *at == ':') {
        at++;
        wish->has_count = true;
        good = take_number(&at, &wish->count);
    }
    if (good && *at == '@') {
        at++;
        good = take_number(&at, &node) && node < WORDS_NODE_ANY;
    }
    wish->node = (uint32_t)node;
    if (good && *at == '\0') {
        return LOAM_OK;
    }
    *wish = (struct pool_wish){0};
    return loam_fail(diag, LOAM_ERROR_INVALID,
                     "%s: not a pool: give SIZE:COUNT or SIZE:COUNT@NODE, such as 2M:512@0 for 512 pages of 2 MiB on "
                     "node 0",
                     text);
}

/* --- Saying ----------------------------------------------------------------------------------------------------- */

struct word words_page(uint64_t page_bytes)
{
    static const char suffixes[] = "KMGT";
    struct word word;
    unsigned unit = 0;

    while (unit < 4 && page_bytes >= 1024 && page_bytes % 1024 == 0) {
        page_bytes /= 1024;
        unit++;
    }
    snprintf(word.text, sizeof word.text, "%" PRIu64 "%.*s", page_bytes, unit > 0, unit > 0 ? suffixes + unit - 1 : "");
    return word;
}

struct word words_kind(const struct page_kind *kind)
{
    return kind->source == PAGE_SOURCE_THP ? (struct word){"thp"} : words_page(kind->page_bytes);
}

struct word words_pool(const struct pool_wish *wish)
{
    struct word word;
    size_t length;

    snprintf(word.text, sizeof word.text, "%s", words_page(wish->page_bytes).text);
    length = strlen(word.text);
    if (wish->has_count) {
        snprintf(word.text + length, sizeof word.text - length, ":%" PRIu64, wish->count);
        length = strlen(word.text);
    }
    if (wish->node != WORDS_NODE_ANY) {
        snprintf(word.text + length, sizeof word.text - length, "@%" PRIu32, wish->node);
    }
    return word;
}

struct word words_amount(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    struct word word;
    unsigned unit = 0;

    while (unit + 1 < sizeof units / sizeof units[0] && bytes >> 10 * unit >= 1024) {
        unit++;
    }
    if (bytes % (UINT64_C(1) << 10 * unit) == 0) {
        snprintf(word.text, sizeof word.text, "%" PRIu64 " %s", bytes >> 10 * unit, units[unit]);
    } else {
        snprintf(word.text, sizeof word.text, "%.1f %s", (double)bytes / (double)(UINT64_C(1) << 10 * unit),
                 units[unit]);
    }
    return word;
}

void words_quote(const char *text, char *quoted, size_t room)
{
    static const char harmless[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
    size_t length = 0;

    if (*text != '\0' && strspn(text, harmless) == strlen(text)) {
        snprintf(quoted, room, "%s", text);
        return;
    }
    if (room < 8) {
        snprintf(quoted, room, "%s", "");
        return;
    }
    quoted[length++] = '\'';
    for (; *text != '\0' && length + 6 <= room; text++) {
        if (*text == '\'') {
            memcpy(quoted + length, "'\\''", 4);
            length += 4;
        } else {
            quoted[length++] = *text;
        }
    }
    quoted[length++] = '\'';
    quoted[length] = '\0';
}
