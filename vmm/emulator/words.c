// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/words.h"

#include "vmm/printable.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES_MAX 24u /* of a number of JSON, as text */
#define RANGE_MOST       63u

/* --- Texts -------------------------------------------------------------------------------------------------------- */

struct words_shown words_show(const char *text)
{
    size_t length = strnlen(text, WORDS_SHOWN_BYTES), end;
    bool cut = text[length] != '\0';
    struct words_shown shown;

    /* What has to be escaped is up to four times as long: shown, it is no longer than the rest. */
    for (end = printable_escape(text, length, shown.text); end > WORDS_SHOWN_BYTES;
         end = printable_escape(text, length, shown.text)) {
        length -= (end - WORDS_SHOWN_BYTES + 3) / 4;
        cut = true;
    }
    for (char *c = shown.text; *c != '\0'; c++) {
        *c = *c == '\n' || *c == '\t' ? ' ' : *c;
    }
    if (cut) {
        memcpy(shown.text + end, "...", sizeof "...");
    }
    return shown;
}

bool words_parse_number(const char *text, uint64_t most, uint64_t *number, const char **end)
{
    const char *at = text;

    for (*number = 0; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(*number, UINT64_C(10), number) ||
            __builtin_add_overflow(*number, (uint64_t)(*at - '0'), number)) {
            return false;
        }
    }
    if (end != NULL) {
        *end = at;
    }
    return at != text && (text[0] != '0' || at == text + 1) && *number <= most && (end != NULL || *at == '\0');
}

bool words_parse_bytes(const char *text, uint64_t unit, uint64_t *bytes)
{
    static const char letters[] = "bkmgt";
    const char *letter, *end;
    uint64_t number;

    *bytes = 0;
    if (!words_parse_number(text, UINT64_MAX, &number, &end) || (*end != '\0' && end[1] != '\0')) {
        return false;
    }
    if (*end != '\0') {
        letter = strchr(letters, *end >= 'A' && *end <= 'Z' ? *end - 'A' + 'a' : *end);
        if (letter == NULL) {
            return false;
        }
        unit = UINT64_C(1) << 10 * (letter - letters);
    }
    return !__builtin_mul_overflow(number, unit, bytes);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool words_parse_mac(const char *text, uint8_t mac[6])
{
    uint8_t all = 0;

    for (int i = 0; i < 6; i++, text += 3) {
        int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);

        if (low < 0 || text[2] != (i < 5 ? ':' : '\0')) {
            return false;
        }
        mac[i] = (uint8_t)(high << 4 | low);
        all |= mac[i];
    }
    return (mac[0] & 1) == 0 && all != 0;
}

static bool is_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    size_t i = 0;

    while (form[i] != '\0' && (form[i] == '-' ? text[i] == '-' : hex_digit(text[i]) >= 0)) {
        i++;
    }
    return form[i] == '\0' && text[i] == '\0';
}

static bool is_id(const char *text)
{
    static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._";
    char first = (char)(text[0] | 0x20);

    return first >= 'a' && first <= 'z' && strspn(text, more) == strlen(text) && strlen(text) <= WORDS_ID_BYTES_MAX;
}

/* "N" or "N-M". */
static bool parse_range(const char *text, uint64_t most, uint64_t *first, uint64_t *last)
{
    const char *end;

    if (!words_parse_number(text, most, first, &end)) {
        return false;
    }
    *last = *first;
    return *end == '\0' || (*end == '-' && words_parse_number(end + 1, most, last, NULL) && *first <= *last);
}

/* Most bytes of a TEXT. */
static uint64_t most_of(const struct words_key *key)
{
    return key->most != 0 ? key->most : WORDS_BYTES_MAX;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);

    for (const char *at = choices; length > 0 && (at = strstr(at, text)) != NULL; at++) {
        if ((at == choices || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0') &&
            strchr(text, ' ') == NULL) {
            return true;
        }
    }
    return false;
}

/* --- Kinds -------------------------------------------------------------------------------------------------------- */

static bool is_of_kind(const struct words_key *key, const char *value)
{
    uint64_t number, last;
    uint8_t mac[6];

    switch (key->kind) {
    case WORDS_TEXT:
        return strlen(value) >= key->least && strlen(value) <= most_of(key);
    case WORDS_ID:
        return is_id(value);
    case WORDS_PATH:
        return value[0] != '\0' && strlen(value) <= WORDS_PATH_BYTES_MAX;
    case WORDS_NUMBER:
        return words_parse_number(value, key->most, &number, NULL) && number >= key->least;
    case WORDS_BYTES:
        return words_parse_bytes(value, 1, &number);
    case WORDS_MIB:
        return words_parse_bytes(value, UINT64_C(1) << 20, &number);
    case WORDS_RANGE:
        return parse_range(value, key->most < RANGE_MOST ? key->most : RANGE_MOST, &number, &last);
    case WORDS_SWITCH:
        return strcmp(value, "on") == 0 || strcmp(value, "off") == 0;
    case WORDS_CHOICE:
        return is_choice(key->choices, value);
    case WORDS_UUID:
        return is_uuid(value);
    case WORDS_MAC:
        return words_parse_mac(value, mac);
    default:
        return false;
    }
}

/* What would do, as text. */
static void describe(const struct words_key *key, char *text, size_t bytes)
{
    switch (key->kind) {
    case WORDS_TEXT:
        snprintf(text, bytes, "a text of %ju to %ju bytes", (uintmax_t)key->least, (uintmax_t)most_of(key));
        break;
    case WORDS_ID:
        snprintf(text, bytes, "a letter, then letters, digits, '-', '.' and '_', at most %u", WORDS_ID_BYTES_MAX);
        break;
    case WORDS_PATH:
        snprintf(text, bytes, "a path of 1 to %u bytes", WORDS_PATH_BYTES_MAX);
        break;
    case WORDS_NUMBER:
        snprintf(text, bytes, "a number from %ju to %ju", (uintmax_t)key->least, (uintmax_t)key->most);
        break;
    case WORDS_RANGE:
        snprintf(text, bytes, "a number from 0 to %ju, or two as in 0-1", (uintmax_t)key->most);
        break;
    case WORDS_SWITCH:
        snprintf(text, bytes, "on or off");
        break;
    case WORDS_CHOICE:
        snprintf(text, bytes, "%s", key->choices);
        for (char *c = strchr(text, ' '); c != NULL; c = strchr(c, ' ')) {
            *c = '|';
        }
        break;
    case WORDS_UUID:
        snprintf(text, bytes, "a UUID");
        break;
    case WORDS_MAC:
        snprintf(text, bytes, "the address of one device, such as 52:54:00:12:34:56");
        break;
    default:
        snprintf(text, bytes, "a size: a number, with k, M, G or T if it is not in %s",
                 key->kind == WORDS_MIB ? "MiB" : "bytes");
        break;
    }
}

enum loam_error words_fit_value(const char *lead, const struct words_key *key, const char *value,
                                struct loam_diag *diag)
{
    bool is_named = key->name != NULL;
    char possible[128];

    if (is_of_kind(key, value)) {
        return LOAM_OK;
    }
    describe(key, possible, sizeof possible);
    return loam_fail(diag, LOAM_ERROR_INVALID, "%s%s%s%s: %s%sgive %s%s%s", lead, is_named ? key->name : "",
                     is_named ? "=" : "", words_show(value).text, key->why != NULL ? key->why : "",
                     key->why != NULL ? ": " : "", is_named ? key->name : "", is_named ? "=" : "", possible);
}

/* --- Refusals ----------------------------------------------------------------------------------------------------- */

/* "-device virtio-blk-device,id=disk0". */
struct lead {
    char text[600];
};

static struct lead lead_of(const struct words *words)
{
    const char *type = words->first != NULL ? words_get(words, words->first) : NULL;
    const char *id = words_get(words, "id");
    struct lead lead;

    id = id != NULL ? id : words_get(words, "node-name");
    snprintf(lead.text, sizeof lead.text, "%s%s%s%s%s", words->option, type != NULL ? " " : "",
             type != NULL ? words_show(type).text : "",
             id == NULL     ? ""
             : type != NULL ? ",id="
                            : " id=",
             id != NULL ? words_show(id).text : "");
    return lead;
}

enum loam_error words_refuse(const struct words *words, const char *key, struct loam_diag *diag, const char *format,
                             ...)
{
    const char *value = key != NULL ? words_get(words, key) : NULL;
    char text[384];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (value == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: %s", lead_of(words).text, text);
    }
    return loam_fail(diag, LOAM_ERROR_INVALID, "%s: %s=%s: %s", lead_of(words).text, key, words_show(value).text, text);
}

/* --- key=value ---------------------------------------------------------------------------------------------------- */

static enum loam_error add(struct words *words, const char *key, const char *value, struct loam_diag *diag)
{
    if (strnlen(key, WORDS_KEY_BYTES_MAX + 1) > WORDS_KEY_BYTES_MAX) {
        return words_refuse(words, NULL, diag, "%s: a key has at most %u bytes", words_show(key).text,
                            WORDS_KEY_BYTES_MAX);
    }
    if (words->count == WORDS_COUNT_MAX) {
        return words_refuse(words, NULL, diag, "more than %u words: give fewer", WORDS_COUNT_MAX);
    }
    words->list[words->count++] = (struct words_word){key, value};
    return LOAM_OK;
}

/* Move one word, its doubled commas as one, to *output, which goes on behind it. Returns the comma or the end behind it. */
static const char *move_word(const char *value, char **output)
{
    while (*value != '\0' && (value[0] != ',' || value[1] == ',')) {
        value += *value == ',';
        *(*output)++ = *value++;
    }
    *(*output)++ = '\0';
    return value;
}

static enum loam_error add_pair(struct words *words, char *word, struct loam_diag *diag)
{
    static const char on[] = "on";
    char *equals = strchr(word, '=');

    if (*word == '\0' || equals == word) {
        return words_refuse(words, NULL, diag, "%s",
                            *word == '\0' ? "a word is empty: give a value, and two commas for one in a value"
                                          : "a key is empty: give key=value");
    }
    if (equals != NULL) {
        *equals = '\0';
        return add(words, word, equals + 1, diag);
    }
    return words->first != NULL && words->count == 0 ? add(words, words->first, word, diag)
                                                     : add(words, word, on, diag);
}

static enum loam_error read_pairs(struct words *words, const char *value, struct loam_diag *diag)
{
    char *next = words->text;

    for (;; value++) {
        char *word = next;
        enum loam_error error;

        value = move_word(value, &next);
        error = add_pair(words, word, diag);
        if (error != LOAM_OK || *value == '\0') {
            return error;
        }
    }
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

/* Where texts go: room for all that the JSON text held, and for a number and a key for each word. */
struct room {
    char *next;
    size_t bytes;
};

static char *keep(struct room *room, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *kept = room->next;

    if (bytes > room->bytes) {
        return NULL;
    }
    memcpy(kept, text, bytes);
    room->next += bytes;
    room->bytes -= bytes;
    return kept;
}

static enum loam_error add_scalar(struct words *words, struct room *room, const char *key, const json_t *value,
                                  struct loam_diag *diag)
{
    char number[NUMBER_BYTES_MAX];
    const char *text = NULL;
    char *kept_key, *kept;

    if (json_is_string(value)) {
        text = json_string_value(value);
    } else if (json_is_boolean(value)) {
        text = json_is_true(value) ? "on" : "off";
    } else if (json_is_integer(value)) {
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        text = number;
    }
    if (text == NULL) {
        return words_refuse(words, NULL, diag, "%s: neither a text, a whole number, true nor false",
                            words_show(key).text);
    }
    kept_key = keep(room, key);
    kept = kept_key != NULL ? keep(room, text) : NULL;
    return kept != NULL ? add(words, kept_key, kept, diag)
                        : words_refuse(words, NULL, diag, "more than %u words: give fewer", WORDS_COUNT_MAX);
}

static enum loam_error add_json(struct words *words, struct room *room, const char *key, const json_t *value,
                                unsigned depth, struct loam_diag *diag);

static enum loam_error add_members(struct words *words, struct room *room, const char *key, const json_t *object,
                                   unsigned depth, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (void *at = json_object_iter((json_t *)(uintptr_t)object); at != NULL && error == LOAM_OK;
         at = json_object_iter_next((json_t *)(uintptr_t)object, at)) {
        char path[WORDS_KEY_BYTES_MAX + 2]; /* one more than is allowed, so that what is cut is still too long */

        snprintf(path, sizeof path, "%s%s%s", key, *key != '\0' ? "." : "", json_object_iter_key(at));
        error = strlen(path) > WORDS_KEY_BYTES_MAX
                    ? words_refuse(words, NULL, diag, "%s: a key has at most %u bytes", words_show(path).text,
                                   WORDS_KEY_BYTES_MAX)
                    : add_json(words, room, path, json_object_iter_value(at), depth + 1, diag);
    }
    return error;
}

static enum loam_error add_json(struct words *words, struct room *room, const char *key, const json_t *value,
                                unsigned depth, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    if (depth > WORDS_DEPTH_MAX) {
        return words_refuse(words, NULL, diag, "%s: more than %u deep", words_show(key).text, WORDS_DEPTH_MAX);
    }
    if (json_is_object(value)) {
        return add_members(words, room, key, value, depth, diag);
    }
    if (!json_is_array(value)) {
        return add_scalar(words, room, key, value, diag);
    }
    for (size_t i = 0; i < json_array_size(value) && error == LOAM_OK; i++) {
        error = add_scalar(words, room, key, json_array_get(value, i), diag);
    }
    return error;
}

static enum loam_error read_json(struct words *words, size_t text_bytes, const char *value, struct loam_diag *diag)
{
    struct room room = {words->text, text_bytes};
    json_error_t fault;
    json_t *object = json_loads(value, JSON_REJECT_DUPLICATES, &fault);
    enum loam_error error;

    if (object == NULL) {
        return words_refuse(words, NULL, diag, "no JSON: at byte %d: %s", fault.position, words_show(fault.text).text);
    }
    error = add_json(words, &room, "", object, 0, diag);
    json_decref(object);
    return error;
}

/* --- Reading ------------------------------------------------------------------------------------------------------ */

enum loam_error words_read(const char *option, const char *first, bool may_be_json, const char *value,
                           struct words *words, struct loam_diag *diag)
{
    size_t bytes = strnlen(value, WORDS_BYTES_MAX + 1), text_bytes;
    bool is_json = may_be_json && *value == '{';
    enum loam_error error;

    *words = (struct words){.option = option, .first = first};
    if (bytes > WORDS_BYTES_MAX) {
        return words_refuse(words, NULL, diag, "%s: more than %u bytes: give less", words_show(value).text,
                            WORDS_BYTES_MAX);
    }
    text_bytes = bytes + 1 + (is_json ? WORDS_COUNT_MAX * (NUMBER_BYTES_MAX + WORDS_KEY_BYTES_MAX + 2) : 0);
    words->text = malloc(text_bytes);
    words->list = malloc(WORDS_COUNT_MAX * sizeof *words->list);
    if (words->text == NULL || words->list == NULL) {
        error = loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: no memory is left to read it", option);
    } else {
        error = is_json ? read_json(words, text_bytes, value, diag) : read_pairs(words, value, diag);
    }
    if (error != LOAM_OK) {
        words_release(words);
    }
    return error;
}

void words_release(struct words *words)
{
    free(words->text);
    free(words->list);
    *words = (struct words){0};
}

/* --- What is known ------------------------------------------------------------------------------------------------ */

/* "a, b and c" into text. */
static void list_names(const char *const *names, uint32_t count, char *text, size_t bytes)
{
    size_t used = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < count && used < bytes; i++) {
        const char *before = i == 0 ? "" : i + 1 < count ? ", " : " and ";

        used += (size_t)snprintf(text + used, bytes - used, "%s%s", before, names[i]);
    }
}

static enum loam_error find_type(const struct words *words, const char *what, const struct words_type *types,
                                 uint32_t type_count, uint32_t *type, struct loam_diag *diag)
{
    const char *name = words->first != NULL ? words_get(words, words->first) : NULL;
    const char *names[32] = {NULL};
    uint32_t count = 0;
    char known[320];

    for (*type = 0; *type < type_count; ++*type) {
        if (types[*type].name == NULL || (name != NULL && strcmp(types[*type].name, name) == 0)) {
            return types[*type].why == NULL ? LOAM_OK : words_refuse(words, NULL, diag, "%s", types[*type].why);
        }
    }
    for (uint32_t i = 0; i < type_count && count < sizeof names / sizeof names[0]; i++) {
        if (types[i].why == NULL) {
            names[count++] = types[i].name;
        }
    }
    list_names(names, count, known, sizeof known);
    return words_refuse(words, NULL, diag, "%s %s here: there %s %s", name != NULL ? "no such" : "not said which", what,
                        count == 1 ? "is" : "are", known);
}

static enum loam_error refuse_key(const struct words *words, const struct words_word *word,
                                  const struct words_type *type, struct loam_diag *diag)
{
    const char *names[WORDS_COUNT_MAX] = {NULL};
    char known[320];

    for (uint32_t i = 0; i < type->key_count; i++) {
        names[i] = type->keys[i].name;
    }
    list_names(names, type->key_count, known, sizeof known);
    if (type->key_count == 0) {
        return words_refuse(words, NULL, diag, "%s=%s: no such key here: it has none", words_show(word->key).text,
                            words_show(word->value).text);
    }
    return words_refuse(words, NULL, diag, "%s=%s: no such key here: known %s %s", words_show(word->key).text,
                        words_show(word->value).text, type->key_count == 1 ? "is" : "are", known);
}

static const struct words_key *find_key(const struct words_type *type, const char *name)
{
    for (uint32_t i = 0; i < type->key_count; i++) {
        if (strcmp(type->keys[i].name, name) == 0) {
            return &type->keys[i];
        }
    }
    return NULL;
}

static bool is_there_before(const struct words *words, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++) {
        if (strcmp(words->list[i].key, words->list[index].key) == 0) {
            return true;
        }
    }
    return false;
}

static enum loam_error fit_word(const struct words *words, uint32_t index, const struct words_type *type,
                                struct loam_diag *diag)
{
    const struct words_word *word = &words->list[index];
    bool is_type = type->name != NULL && strcmp(word->key, words->first) == 0;
    const struct words_key *key = is_type ? NULL : find_key(type, word->key);
    char lead[sizeof(struct lead) + 2];

    if (!is_type && key == NULL) {
        return refuse_key(words, word, type, diag);
    }
    if ((is_type || !key->many) && is_there_before(words, index)) {
        return words_refuse(words, NULL, diag, "%s= is there twice: give it once", word->key);
    }
    snprintf(lead, sizeof lead, "%s: ", lead_of(words).text);
    return is_type ? LOAM_OK : words_fit_value(lead, key, word->value, diag);
}

enum loam_error words_fit(const struct words *words, const char *what, const struct words_type *types,
                          uint32_t type_count, uint32_t *type, struct loam_diag *diag)
{
    enum loam_error error = find_type(words, what, types, type_count, type, diag);

    for (uint32_t i = 0; error == LOAM_OK && i < words->count; i++) {
        error = fit_word(words, i, &types[*type], diag);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < types[*type].key_count; i++) {
        const struct words_key *key = &types[*type].keys[i];

        if (key->needed && words_get(words, key->name) == NULL) {
            error = words_refuse(words, NULL, diag, "%s= is missing", key->name);
        }
    }
    return error;
}

/* --- What the words say ------------------------------------------------------------------------------------------- */

const char *words_get(const struct words *words, const char *key)
{
    for (uint32_t i = 0; i < words->count; i++) {
        if (strcmp(words->list[i].key, key) == 0) {
            return words->list[i].value;
        }
    }
    return NULL;
}

bool words_is(const struct words *words, const char *key, const char *value)
{
    const char *found = words_get(words, key);

    return found != NULL && strcmp(found, value) == 0;
}

bool words_is_on(const struct words *words, const char *key, bool otherwise)
{
    const char *value = words_get(words, key);

    return value != NULL ? strcmp(value, "on") == 0 : otherwise;
}

uint64_t words_number(const struct words *words, const char *key, uint64_t otherwise)
{
    const char *value = words_get(words, key);
    uint64_t number;

    return value != NULL && words_parse_bytes(value, 1, &number) ? number : otherwise;
}

uint64_t words_mask(const struct words *words, const char *key)
{
    uint64_t mask = 0, first, last;

    for (uint32_t i = 0; i < words->count; i++) {
        if (strcmp(words->list[i].key, key) == 0 && parse_range(words->list[i].value, RANGE_MOST, &first, &last)) {
            mask |= UINT64_MAX << first & UINT64_MAX >> (RANGE_MOST - last);
        }
    }
    return mask;
}

char *words_duplicate(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);

    return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}

enum loam_error words_copy(const struct words *words, const char *key, char **copy, struct loam_diag *diag)
{
    const char *value = words_get(words, key);

    *copy = value != NULL ? words_duplicate(value) : NULL;
    return value == NULL || *copy != NULL
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: no memory is left for %s=", words->option, key);
}
