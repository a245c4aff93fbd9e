// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/arguments.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct words_key cat_keys[] = {{.name = "id", .kind = WORDS_ID}};

static const struct words_type cats[] = {{"cat", cat_keys, 1, NULL}, {"lion", cat_keys, 1, NULL}};

static const struct argument_row rows[] = {
    {.name = "-still", .alias = "-s"},
    {.name = "-say",
     .form = ARGUMENT_TEXT,
     .text = {.kind = WORDS_CHOICE, .choices = "meow purr", .why = "it is a cat"}},
    {.name = "-cat",
     .form = ARGUMENT_WORDS,
     .many = true,
     .first = "kind",
     .unique = "id",
     .what = "cat",
     .types = cats,
     .type_count = 2},
    {.name = "-one",
     .form = ARGUMENT_WORDS,
     .may_be_json = true,
     .first = "kind",
     .what = "cat",
     .types = cats,
     .type_count = 2},
};

static const struct argument_table table = {rows, 4};

/* Which the caller releases. */
static struct arguments *read_arguments(int argc, char *argv[], enum loam_error expected, const char *text)
{
    struct arguments *arguments = malloc(sizeof *arguments);
    struct loam_diag diag = {0};

    cr_expect_eq(arguments_read(argc, argv, &table, arguments, &diag), expected, "%s", diag.text);
    cr_expect_str_eq(diag.text, text);
    return arguments;
}

static void release(struct arguments *arguments)
{
    arguments_release(arguments);
    cr_expect_eq(arguments->count, 0);
    free(arguments);
}

#define WORDS(...)                                                                                                     \
    (char *[])                                                                                                         \
    {                                                                                                                  \
        "program", __VA_ARGS__                                                                                         \
    }
#define COUNT(...)         (int)(sizeof(WORDS(__VA_ARGS__)) / sizeof(char *))
#define REFUSED(text, ...) release(read_arguments(COUNT(__VA_ARGS__), WORDS(__VA_ARGS__), LOAM_ERROR_INVALID, text))

Test(arguments, each_form)
{
    char *argv[] = {"program", "-cat", "cat,id=a", "--still", "-say", "purr", "-s", "-cat", "lion,id=b"};
    struct arguments *arguments = read_arguments(9, argv, LOAM_OK, "");
    const struct argument *cat = arguments_next(arguments, "-cat", NULL);

    cr_expect_eq(arguments->count, 5);
    cr_expect_not_null(arguments_find(arguments, "-still"));
    cr_expect_null(arguments_find(arguments, "-one"));
    cr_expect_str_eq(arguments_find(arguments, "-say")->value, "purr");
    cr_expect_eq(cat->type, 0);
    cr_expect_eq(arguments_find_by(arguments, "-cat", "id", "a"), cat);
    cat = arguments_next(arguments, "-cat", cat);
    cr_expect_eq(cat->type, 1);
    cr_expect_str_eq(words_get(&cat->words, "id"), "b");
    cr_expect_eq(arguments_find_by(arguments, "-cat", "id", "b"), cat);
    cr_expect_null(arguments_find_by(arguments, "-cat", "id", "c"));
    cr_expect_null(arguments_next(arguments, "-cat", cat));
    release(arguments);
}

Test(arguments, json_where_it_may_be)
{
    char *argv[] = {"program", "-one", "{\"kind\":\"lion\"}"};
    struct arguments *arguments = read_arguments(3, argv, LOAM_OK, "");

    cr_expect_eq(arguments_find(arguments, "-one")->type, 1);
    release(arguments);
    REFUSED("-cat {\"kind\":\"lion\"}: no such cat here: there are cat and lion", "-cat", "{\"kind\":\"lion\"}");
}

Test(arguments, nothing_is_fine)
{
    char *argv[] = {"program"};

    release(read_arguments(1, argv, LOAM_OK, ""));
    release(read_arguments(0, argv, LOAM_OK, ""));
}

Test(arguments, refusals)
{
    REFUSED("-dog: not an option here: -help lists those there are", "-dog");
    REFUSED("cat: not an option here: -help lists those there are", "cat");
    REFUSED(": not an option here: -help lists those there are", "");
    REFUSED("---still: not an option here: -help lists those there are", "---still");
    REFUSED("-say: its value is missing", "-say");
    REFUSED("-cat: its value is missing", "-still", "-cat");
    REFUSED("-say bark: it is a cat: give meow|purr", "-say", "bark");
    REFUSED("-say -still: it is a cat: give meow|purr", "-say", "-still");
    REFUSED("-say: it is there twice: give it once", "-say", "meow", "-say", "meow");
    REFUSED("-one: it is there twice: give it once", "-one", "cat", "-one", "lion");
    REFUSED("-cat lion,id=a: another -cat has id=a: give each its own", "-cat", "cat,id=a", "-cat", "lion,id=a");
    REFUSED("-cat cat: more=on: no such key here: known is id", "-cat", "cat,id=b", "-cat", "cat,more");
    REFUSED("a b\\x1b: not an option here: -help lists those there are", "a\nb\x1b");
}

Test(arguments, as_many_as_there_may_be)
{
    char *argv[ARGUMENTS_MAX + 2];

    for (size_t i = 0; i < sizeof argv / sizeof argv[0]; i++) {
        argv[i] = "-still";
    }
    release(read_arguments(ARGUMENTS_MAX + 1, argv, LOAM_OK, ""));
    release(read_arguments(ARGUMENTS_MAX + 2, argv, LOAM_ERROR_INVALID, "-still: more than 256 options: give fewer"));
}
