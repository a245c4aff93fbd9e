// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp_split.h"

#include "tests/support/heap.h"
#include "vmm/qmp_limits.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct qmp_split split;
static uint32_t blocks_before;

static void set_up(void)
{
    blocks_before = heap_block_count();
    qmp_split_init(&split);
}

static void tear_down(void)
{
    qmp_split_end(&split);
    cr_expect_eq(heap_block_count(), blocks_before, "all memory is back");
}

TestSuite(qmp_split, .init = set_up, .fini = tear_down, .timeout = 60);

/* What is found, each in parentheses: the text, or ! and a letter. '#' at a text's beginning makes it nonsense. */
static void run(const char *bytes, size_t step, char *log)
{
    static const char letters[] = {
        [QMP_SPLIT_LONG] = 'L', [QMP_SPLIT_DEEP] = 'D', [QMP_SPLIT_MANY] = 'M', [QMP_SPLIT_NO_MEMORY] = 'N'};
    size_t count = strlen(bytes);

    *log = '\0';
    while (count > 0) {
        enum qmp_split_found found;
        size_t used = qmp_split_take(&split, bytes, count < step ? count : step, &found);

        cr_assert_leq(used, count < step ? count : step);
        cr_assert(used > 0);
        cr_assert(found != QMP_SPLIT_NOTHING || used == (count < step ? count : step), "it stops without a reason");
        bytes += used;
        count -= used;
        if (found == QMP_SPLIT_TEXT) {
            log += sprintf(log, "(%.*s)", (int)split.bytes, split.text);
            if (split.text[0] == '#') {
                qmp_split_skip_line(&split);
            }
        } else if (found > QMP_SPLIT_PASSED) {
            log += sprintf(log, "(!%c)", letters[found]);
        }
    }
}

Test(qmp_split, a_text_ends_with_its_brackets_or_with_its_line)
{
    static const struct {
        const char *bytes, *found;
    } cases[] = {
        {"", ""},
        {" \r\n\t\n", ""},
        {"{}\n", "({})"},
        {"{}", "({})"},
        {"{\"a\": [1, {}]} ", "({\"a\": [1, {}]})"},
        {"{}{} [{}]\r\n{}\n", "({})({})([{}])({})"},
        {"{\"}\": \"]\\\"}\"}{}", "({\"}\": \"]\\\"}\"})({})"},
        {"{\"\\\\\"}{}", "({\"\\\\\"})({})"},
        {"{\"a\":\n{}}\n{}", "({\"a\":)({})(})({})"},
        {"{\"a\n{}", "({\"a)({})"},
        {"{\"a\\\n\"{}\n{}", "({\"a\\)(\"{})({})"},
        {"1\n", "(1)"},
        {"1", ""},
        {"one {} two\n{}", "(one {})(two)({})"},
        {"}]\n{}", "(}])({})"},
        {"{]{}\n", "({])({})"},
        {"#{}{}{}\n{}", "(#{})({})"},
        {"#\n{}", "(#)({})"},
        {"#\r\n{}", "(#\r)({})"},
        {"#{} \n\n {}{}", "(#{})({})({})"},
        {"\x01\xff\n{}", "(\x01\xff)({})"},
    };
    char log[512];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t step = 1; step <= 16; step++) {
            qmp_split_end(&split);
            run(cases[i].bytes, step, log);
            cr_expect_str_eq(log, cases[i].found, "case %zu by %zu: %s", i, step, log);
        }
    }
}

Test(qmp_split, a_zero_byte_is_a_byte_like_others)
{
    static const char bytes[] = "{\0}";
    enum qmp_split_found found;

    cr_expect_eq(qmp_split_take(&split, bytes, sizeof bytes - 1, &found), 3);
    cr_expect_eq(found, QMP_SPLIT_TEXT);
    cr_expect_eq(split.bytes, 3);
}

/* A text of bytes in all, brackets and quotes included. */
static char *long_text(size_t bytes)
{
    char *text = malloc(bytes + 1);

    cr_assert_not_null(text);
    memset(text, 'x', bytes);
    memcpy(text, "[\"", 2);
    memcpy(text + bytes - 2, "\"]", 3);
    return text;
}

static enum qmp_split_found first_found(const char *bytes, size_t step)
{
    enum qmp_split_found found = QMP_SPLIT_NOTHING;

    for (size_t at = 0, count = strlen(bytes); at < count && found == QMP_SPLIT_NOTHING;) {
        at += qmp_split_take(&split, bytes + at, count - at < step ? count - at : step, &found);
    }
    return found;
}

Test(qmp_split, the_longest_text_and_one_byte_more)
{
    char log[64];

    for (size_t step = 1; step <= 3 * QMP_LINE_BYTES_MAX; step = step * 37 + 4059) {
        char *text = long_text(QMP_LINE_BYTES_MAX);

        cr_expect_eq(first_found(text, step), QMP_SPLIT_TEXT, "by %zu", step);
        cr_expect_eq(split.bytes, QMP_LINE_BYTES_MAX);
        cr_expect_arr_eq(split.text, text, QMP_LINE_BYTES_MAX);
        free(text);
        text = long_text(QMP_LINE_BYTES_MAX + 1);
        cr_expect_eq(first_found(text, step), QMP_SPLIT_LONG, "by %zu", step);
        free(text);
        run("{} {}\n{}", step, log);
        cr_expect_str_eq(log, "({})", "its line is passed over, by %zu", step);
    }
}

Test(qmp_split, a_line_of_the_longest_length_may_end)
{
    char *text = long_text(QMP_LINE_BYTES_MAX + 1);

    text[0] = 'x';
    text[QMP_LINE_BYTES_MAX] = '\n';
    cr_expect_eq(first_found(text, 5000), QMP_SPLIT_TEXT);
    free(text);
}

Test(qmp_split, the_deepest_text_and_one_level_more)
{
    char text[2 * QMP_DEPTH_MAX + 16], log[2 * QMP_DEPTH_MAX + 32];

    memset(text, '[', QMP_DEPTH_MAX);
    memset(text + QMP_DEPTH_MAX, ']', QMP_DEPTH_MAX);
    strcpy(text + 2 * QMP_DEPTH_MAX, "\n");
    cr_expect_eq(first_found(text, sizeof text), QMP_SPLIT_TEXT);
    memset(text, '[', QMP_DEPTH_MAX + 1);
    strcpy(text + QMP_DEPTH_MAX + 1, "{}{}\n{}");
    run(text, sizeof text, log);
    cr_expect_str_eq(log, "(!D)({})");
}

Test(qmp_split, the_most_tokens_and_one_more)
{
    char *text = long_text(QMP_TOKEN_MAX + 8);

    memset(text, ',', QMP_TOKEN_MAX + 8);
    text[0] = '[';
    strcpy(text + QMP_TOKEN_MAX - 1, "]");
    cr_expect_eq(first_found(text, 5000), QMP_SPLIT_TEXT);
    strcpy(text + QMP_TOKEN_MAX - 1, ",]");
    cr_expect_eq(first_found(text, 5000), QMP_SPLIT_MANY);
    free(text);
}

Test(qmp_split, brackets_in_strings_are_not_counted)
{
    char *text = long_text(QMP_TOKEN_MAX + 8);

    memset(text + 2, '[', QMP_TOKEN_MAX + 4);
    cr_expect_eq(first_found(text, 5000), QMP_SPLIT_TEXT);
    free(text);
}

Test(qmp_split, without_memory_a_text_is_lost_and_its_line_and_no_other)
{
    char log[64];

    for (unsigned i = 0; i < 2; i++) {
        qmp_split_end(&split);
        heap_fail(1);
        run(i == 0 ? "{} {}\n{}" : "x\n{}", 64, log);
        cr_expect_str_eq(log, "(!N)({})", "%s", log);
    }
}

Test(qmp_split, room_of_a_long_text_is_given_back)
{
    char *text = long_text(QMP_LINE_BYTES_MAX);
    enum qmp_split_found found;

    cr_expect_eq(first_found(text, 4096), QMP_SPLIT_TEXT);
    cr_expect_eq(split.room, QMP_LINE_BYTES_MAX);
    (void)qmp_split_take(&split, " ", 1, &found);
    cr_expect_eq(split.room, 0);
    free(text);
}
