// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp_split.h"

#include "vmm/qmp_limits.h"

#include <stdlib.h>
#include <string.h>

#define ROOM_LEAST_BYTES 256u
#define ROOM_KEPT_BYTES  (64u << 10) /* more is given back when its text is done with */

/* The next text begins with nothing but, perhaps, the room of the last. */
static void forget(struct qmp_split *split)
{
    const bool keeps = split->room <= ROOM_KEPT_BYTES;

    if (!keeps) {
        free(split->text);
    }
    *split =
        (struct qmp_split){.text = keeps ? split->text : NULL, .room = keeps ? split->room : 0, .skips = split->skips};
}

static bool append(struct qmp_split *split, const char *bytes, size_t count)
{
    size_t room = split->room != 0 ? split->room : ROOM_LEAST_BYTES;
    char *text;

    if (count == 0) {
        return true;
    }
    while (room < split->bytes + count) {
        room *= 2; /* both are at most QMP_LINE_BYTES_MAX */
    }
    if (room != split->room) {
        text = realloc(split->text, room);
        if (text == NULL) {
            return false;
        }
        split->text = text;
        split->room = room;
    }
    memcpy(split->text + split->bytes, bytes, count);
    split->bytes += count;
    return true;
}

static void step_in_string(struct qmp_split *split, char byte)
{
    if (split->is_escaped) {
        split->is_escaped = false;
    } else if (byte == '\\') {
        split->is_escaped = true;
    } else if (byte == '"') {
        split->in_string = false;
    }
}

static enum qmp_split_found open_bracket(struct qmp_split *split)
{
    split->depth++;
    return split->depth > QMP_DEPTH_MAX ? QMP_SPLIT_DEEP : QMP_SPLIT_NOTHING;
}

/* One that closes what was never opened is left to the parser, when the line is whole. */
static enum qmp_split_found close_bracket(struct qmp_split *split)
{
    if (split->depth == 0) {
        return QMP_SPLIT_NOTHING;
    }
    split->depth--;
    return split->depth == 0 ? QMP_SPLIT_TEXT : QMP_SPLIT_NOTHING;
}

static enum qmp_split_found step_in_structure(struct qmp_split *split, char byte)
{
    if (byte == '"') {
        split->in_string = true;
        return QMP_SPLIT_NOTHING;
    }
    if (byte == '\0' || strchr("{}[],:", byte) == NULL) {
        return QMP_SPLIT_NOTHING;
    }
    if (split->token_count == QMP_TOKEN_MAX) {
        return QMP_SPLIT_MANY;
    }
    split->token_count++;
    switch (byte) {
    case '{':
    case '[':
        return open_bracket(split);
    case '}':
    case ']':
        return close_bracket(split);
    default:
        return QMP_SPLIT_NOTHING;
    }
}

/* One byte of a text that has begun, and is `bytes` long already. */
static enum qmp_split_found step(struct qmp_split *split, char byte, size_t bytes)
{
    if (byte == '\n') {
        split->ended_line = true;
        return QMP_SPLIT_TEXT;
    }
    if (bytes == QMP_LINE_BYTES_MAX) {
        return QMP_SPLIT_LONG;
    }
    if (split->in_string) {
        step_in_string(split, byte);
        return QMP_SPLIT_NOTHING;
    }
    return step_in_structure(split, byte);
}

/* How many bytes belong to the line that is nonsense. */
static size_t pass_line(struct qmp_split *split, const char *bytes, size_t count, enum qmp_split_found *found)
{
    const char *end = memchr(bytes, '\n', count);

    split->skips = end == NULL;
    *found = end != NULL ? QMP_SPLIT_PASSED : QMP_SPLIT_NOTHING;
    return end != NULL ? (size_t)(end - bytes) + 1 : count;
}

static size_t count_blanks(const char *bytes, size_t count)
{
    size_t at = 0;

    while (at < count && qmp_split_is_blank(bytes[at])) {
        at++;
    }
    return at;
}

void qmp_split_init(struct qmp_split *split)
{
    *split = (struct qmp_split){0};
}

void qmp_split_end(struct qmp_split *split)
{
    free(split->text);
    qmp_split_init(split);
}

size_t qmp_split_take(struct qmp_split *split, const char *bytes, size_t count, enum qmp_split_found *found)
{
    size_t from, at;

    *found = QMP_SPLIT_NOTHING;
    if (split->is_whole) {
        forget(split);
    }
    if (split->skips) {
        return pass_line(split, bytes, count, found);
    }
    from = at = split->has_begun ? 0 : count_blanks(bytes, count);
    split->has_begun |= at < count;
    while (at < count && *found == QMP_SPLIT_NOTHING) {
        *found = step(split, bytes[at], split->bytes + (at - from));
        at++;
    }
    if (*found <= QMP_SPLIT_TEXT && !append(split, bytes + from, at - from - split->ended_line)) {
        *found = QMP_SPLIT_NO_MEMORY;
    }
    split->is_whole = *found == QMP_SPLIT_TEXT;
    if (*found > QMP_SPLIT_TEXT) {
        split->skips = !split->ended_line;
        forget(split);
    }
    return at;
}

void qmp_split_skip_line(struct qmp_split *split)
{
    if (split->is_whole) {
        split->skips = !split->ended_line;
    }
}
