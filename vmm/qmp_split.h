// SPDX-License-Identifier: Apache-2.0
/*
 * Where one JSON text ends and the next begins, in bytes that come in pieces of any size and may be anything.
 *
 *     qmp_split_init -> [bytes] qmp_split_take ... -> qmp_split_end
 *
 * A text ends where its outermost bracket closes, or with its line, whichever is first: several stand on one line, the
 * last needs no line end, and none goes on beyond its line. What is in between is for a parser to say; when it finds
 * nonsense, the rest of the line is passed over (qmp_split_skip_line). Bytes, depth and tokens are those of qmp_limits.h,
 * so that a parser which recurses, and allocates for each token, does so within bounds.
 *
 * Threads: one object is used by one.
 */
#ifndef LOAM_VMM_QMP_SPLIT_H
#define LOAM_VMM_QMP_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum qmp_split_found {
    QMP_SPLIT_NOTHING,   /* all bytes were taken, and no text is whole */
    QMP_SPLIT_TEXT,      /* one is: text and bytes, until the next call */
    QMP_SPLIT_PASSED,    /* a line that was to be passed over has ended */
    QMP_SPLIT_LONG,      /* this one, and those below: there is none, and its line is passed over */
    QMP_SPLIT_DEEP,      /* more than QMP_DEPTH_MAX */
    QMP_SPLIT_MANY,      /* more than QMP_TOKEN_MAX */
    QMP_SPLIT_NO_MEMORY, /* to keep it */
};

struct qmp_split {
    char *text; /* without a zero byte at its end */
    size_t bytes, room;
    uint32_t depth, token_count;
    bool has_begun, is_whole, ended_line;
    bool in_string, is_escaped;
    bool skips; /* to the end of the line */
};

void qmp_split_init(struct qmp_split *split);
void qmp_split_end(struct qmp_split *split);

/* Take bytes until something is found. Returns how many were taken: all, if nothing was. */
size_t qmp_split_take(struct qmp_split *split, const char *bytes, size_t count, enum qmp_split_found *found);

/* If a text was found last, it is nonsense: pass over the rest of its line. */
void qmp_split_skip_line(struct qmp_split *split);

/* Whether the byte may stand between texts. */
static inline bool qmp_split_is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

#endif
