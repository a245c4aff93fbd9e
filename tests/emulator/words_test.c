// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/words.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIR_MAX 8

struct pair {
    const char *key, *value;
};

static void check_words(const char *value, bool may_be_json, const struct pair expected[PAIR_MAX])
{
    struct loam_diag diag = {0};
    struct words words;
    uint32_t count = 0;

    cr_assert_eq(words_read("-option", "first", may_be_json, value, &words, &diag), LOAM_OK, "%s: %s", value,
                 diag.text);
    for (; count < words.count && count < PAIR_MAX && expected[count].key != NULL; count++) {
        cr_expect_str_eq(words.list[count].key, expected[count].key, "%s", value);
        cr_expect_str_eq(words.list[count].value, expected[count].value, "%s", value);
    }
    cr_expect_eq(count, words.count, "%s has %" PRIu32 " words", value, words.count);
    cr_expect(count == PAIR_MAX || expected[count].key == NULL, "%s has but %" PRIu32 " words", value, words.count);
    words_release(&words);
}

static void check_no_words(const char *value, const char *text)
{
    struct loam_diag diag = {0};
    struct words words;

    cr_expect_eq(words_read("-option", "first", true, value, &words, &diag), LOAM_ERROR_INVALID, "%s is taken", value);
    cr_expect_str_eq(diag.text, text);
    cr_expect_null(words.text);
    cr_expect_null(words.list);
    cr_expect_eq(words.count, 0);
}

Test(words, keys_and_values)
{
    check_words("a", false, (struct pair[PAIR_MAX]){{"first", "a"}});
    check_words("a=b", false, (struct pair[PAIR_MAX]){{"a", "b"}});
    check_words("a,b=c,d=e=f,g", false, (struct pair[PAIR_MAX]){{"first", "a"}, {"b", "c"}, {"d", "e=f"}, {"g", "on"}});
    check_words("a=,b", false, (struct pair[PAIR_MAX]){{"a", ""}, {"b", "on"}});
    check_words("a,a,a=a", false, (struct pair[PAIR_MAX]){{"first", "a"}, {"a", "on"}, {"a", "a"}});
}

Test(words, two_commas_are_one)
{
    check_words("a,,b", false, (struct pair[PAIR_MAX]){{"first", "a,b"}});
    check_words("p=x,,y,,,,z,q=,,", false, (struct pair[PAIR_MAX]){{"p", "x,y,,z"}, {"q", ","}});
    check_words("p=x,,,q=r", false, (struct pair[PAIR_MAX]){{"p", "x,"}, {"q", "r"}});
}

Test(words, json)
{
    check_words("{}", true, (struct pair[PAIR_MAX]){{NULL, NULL}});
    check_words("{\"a\":\"b,c\",\"d\":12,\"e\":true,\"f\":false,\"g\":-1}", true,
                (struct pair[PAIR_MAX]){{"a", "b,c"}, {"d", "12"}, {"e", "on"}, {"f", "off"}, {"g", "-1"}});
    check_words("{\"cache\":{\"direct\":true,\"x\":{\"y\":\"z\"}},\"n\":[0,2],\"o\":[]}", true,
                (struct pair[PAIR_MAX]){{"cache.direct", "on"}, {"cache.x.y", "z"}, {"n", "0"}, {"n", "2"}});
    check_words("{\"d\":9223372036854775807,\"t\":\"\\u00e9\\n\"}", true,
                (struct pair[PAIR_MAX]){{"d", "9223372036854775807"}, {"t", "\xc3\xa9\n"}});
    check_words("{\"a\":1}", false, (struct pair[PAIR_MAX]){{"first", "{\"a\":1}"}});
}

Test(words, what_is_no_words)
{
    check_no_words("", "-option: a word is empty: give a value, and two commas for one in a value");
    check_no_words("a,", "-option a: a word is empty: give a value, and two commas for one in a value");
    check_no_words(",a", "-option: a word is empty: give a value, and two commas for one in a value");
    check_no_words("a,=b", "-option a: a key is empty: give key=value");
    check_no_words("{", "-option: no JSON: at byte 1: string or '}' expected near end of file");
    check_no_words("{\"a\":1,\"a\":2}", "-option: no JSON: at byte 10: duplicate object key near '\"a\"'");
    check_no_words("{\"a\":1.5}", "-option: a: neither a text, a whole number, true nor false");
    check_no_words("{\"a\":null}", "-option: a: neither a text, a whole number, true nor false");
    check_no_words("{\"a\":[[1]]}", "-option: a: neither a text, a whole number, true nor false");
    check_no_words("{\"a\":\"\\u0000\"}",
                   "-option: no JSON: at byte 13: \\u0000 is not allowed without JSON_ALLOW_NUL near '\"\\u0000\"'");
    check_no_words("{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":1}}}}}", "-option: a.b.c.d.e: more than 4 deep");
}

/* A text of count times the same, the caller's. */
static char *repeat(const char *text, size_t count)
{
    size_t length = strlen(text);
    char *made = malloc(length * count + 1);

    for (size_t i = 0; i < count; i++) {
        memcpy(made + i * length, text, length);
    }
    made[length * count] = '\0';
    return made;
}

static enum loam_error read_text(char *text, struct loam_diag *diag)
{
    struct words words;
    enum loam_error error = words_read("-option", "first", true, text, &words, diag);

    words_release(&words);
    free(text);
    return error;
}

Test(words, limits)
{
    struct loam_diag diag = {0};
    char key[256];

    cr_expect_eq(read_text(repeat("x", WORDS_BYTES_MAX), &diag), LOAM_OK);
    cr_expect_eq(read_text(repeat("x", WORDS_BYTES_MAX + 1), &diag), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "-option: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...: more "
                                "than 65536 bytes: give less");
    for (size_t extra = 0; extra < 2; extra++) {
        char *many = repeat("k=v,", WORDS_COUNT_MAX + extra);

        many[strlen(many) - 1] = '\0';
        cr_expect_eq(read_text(many, &diag), extra == 0 ? LOAM_OK : LOAM_ERROR_INVALID);
    }
    cr_expect_str_eq(diag.text, "-option: more than 64 words: give fewer");
    for (size_t extra = 0; extra < 2; extra++) {
        char *long_key = repeat("k", WORDS_KEY_BYTES_MAX + extra);

        snprintf(key, sizeof key, "%s=v", long_key);
        cr_expect_eq(read_text(strdup(key), &diag), extra == 0 ? LOAM_OK : LOAM_ERROR_INVALID);
        snprintf(key, sizeof key, "{\"%s\":1}", long_key);
        cr_expect_eq(read_text(strdup(key), &diag), extra == 0 ? LOAM_OK : LOAM_ERROR_INVALID);
        free(long_key);
    }
    cr_expect_str_eq(diag.text,
                     "-option: kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk: a key has at "
                     "most 63 bytes");
}

/* As many words as there may be, each as long as JSON can make it: room is kept for all. */
Test(words, json_of_the_most_and_longest_words)
{
    char *long_key = repeat("k", WORDS_KEY_BYTES_MAX - 5), *text = malloc(WORDS_COUNT_MAX * 128);
    struct loam_diag diag = {0};
    size_t used = (size_t)sprintf(text, "{\"%s\":{", long_key);

    for (unsigned i = 0; i < WORDS_COUNT_MAX; i++) {
        used += (size_t)sprintf(text + used, "%s\"%04u\":-9223372036854775808", i == 0 ? "" : ",", i);
    }
    sprintf(text + used, "}}");
    cr_expect_eq(read_text(text, &diag), LOAM_OK, "%s", diag.text);
    free(long_key);
}

Test(words, a_deep_document_is_refused)
{
    char *open = repeat("{\"a\":", 10000), *text = malloc(60000);
    struct loam_diag diag = {0};

    sprintf(text, "%s1%s", open, "}");
    cr_expect_eq(read_text(text, &diag), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, "maximum parsing depth reached"));
    free(open);
}

/* --- Kinds -------------------------------------------------------------------------------------------------------- */

static void check_kind(const struct words_key *key, const char *const *good, const char *const *bad)
{
    struct loam_diag diag = {0};

    for (; *good != NULL; good++) {
        cr_expect_eq(words_fit_value("", key, *good, &diag), LOAM_OK, "%s: %s", *good, diag.text);
    }
    for (; *bad != NULL; bad++) {
        cr_expect_eq(words_fit_value("", key, *bad, &diag), LOAM_ERROR_INVALID, "%s is taken", *bad);
    }
}

#define TEXTS(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(words, kinds)
{
    char *longest = repeat("i", WORDS_ID_BYTES_MAX), *longer = repeat("i", WORDS_ID_BYTES_MAX + 1);
    char *path = repeat("p", WORDS_PATH_BYTES_MAX), *longer_path = repeat("p", WORDS_PATH_BYTES_MAX + 1);

    check_kind(&(struct words_key){.kind = WORDS_TEXT, .least = 1, .most = 3}, TEXTS("a", "abc"), TEXTS("", "abcd"));
    check_kind(&(struct words_key){.kind = WORDS_TEXT}, TEXTS("", "a"), TEXTS(NULL));
    check_kind(&(struct words_key){.kind = WORDS_ID}, TEXTS("a", "Z", "libvirt-1_x.y", longest),
               TEXTS("", "1a", "-a", "a b", "a/b", "\xc3\xa9", longer));
    check_kind(&(struct words_key){.kind = WORDS_PATH}, TEXTS("/", "a b", path), TEXTS("", longer_path));
    check_kind(&(struct words_key){.kind = WORDS_NUMBER, .least = 3, .most = 12}, TEXTS("3", "12"),
               TEXTS("", "2", "13", "-3", "+3", "03", "3 ", " 3", "0x3", "4294967299", "18446744073709551619"));
    check_kind(&(struct words_key){.kind = WORDS_NUMBER, .most = UINT64_MAX}, TEXTS("0", "18446744073709551615"),
               TEXTS("18446744073709551616", "99999999999999999999"));
    check_kind(&(struct words_key){.kind = WORDS_BYTES}, TEXTS("0", "1k", "1K", "3m", "3G", "16777215T", "7b"),
               TEXTS("", "k", "1kB", "1e3", "1p", "16777216T", "-1", "1 k", "1\x80"));
    check_kind(&(struct words_key){.kind = WORDS_MIB}, TEXTS("1", "17592186044415"), TEXTS("17592186044416", ""));
    check_kind(&(struct words_key){.kind = WORDS_RANGE, .most = 63}, TEXTS("0", "63", "0-63", "5-5"),
               TEXTS("", "64", "0-64", "2-1", "1-", "-1", "1-2-3", "1,2"));
    check_kind(&(struct words_key){.kind = WORDS_SWITCH}, TEXTS("on", "off"), TEXTS("", "ON", "yes", "onn", "o"));
    check_kind(&(struct words_key){.kind = WORDS_CHOICE, .choices = "one two three"}, TEXTS("one", "two", "three"),
               TEXTS("", "on", "ne", "one two", " ", "tw", "e", "wo", "four"));
    check_kind(&(struct words_key){.kind = WORDS_UUID}, TEXTS("68b77593-3acb-4517-befb-26404722544A"),
               TEXTS("", "68b77593-3acb-4517-befb-26404722544", "68b77593-3acb-4517-befb-26404722544aa",
                     "68b775933acb-4517-befb-264047-22544a", "g8b77593-3acb-4517-befb-26404722544a"));
    check_kind(&(struct words_key){.kind = WORDS_MAC}, TEXTS("52:54:00:aa:BB:cc", "02:00:00:00:00:00"),
               TEXTS("", "52:54:00:aa:bb", "52:54:00:aa:bb:cc:", "52-54-00-aa-bb-cc", "00:00:00:00:00:00",
                     "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "52:54:00:aa:bb:c", "5"));
    free(longest);
    free(longer);
    free(path);
    free(longer_path);
}

/* --- What is known ------------------------------------------------------------------------------------------------ */

static const struct words_key cat_keys[] = {
    {.name = "id", .kind = WORDS_ID, .needed = true},
    {.name = "lives", .kind = WORDS_NUMBER, .least = 1, .most = 9},
    {.name = "toy", .kind = WORDS_TEXT, .least = 1, .many = true},
    {.name = "bark", .kind = WORDS_CHOICE, .choices = "off", .why = "cats do not"},
};

static const struct words_type animals[] = {
    {"cat", cat_keys, 4, NULL}, {"fish", NULL, 0, NULL}, {"dog", NULL, 0, "dogs are let out: give a cat"}};

static void check_fit(const char *value, const char *expected)
{
    struct loam_diag diag = {0};
    struct words words;
    enum loam_error error;
    uint32_t type;

    cr_assert_eq(words_read("-animal", "kind", true, value, &words, &diag), LOAM_OK, "%s", diag.text);
    error = words_fit(&words, "animal", animals, 3, &type, &diag);
    cr_expect_eq(error, expected == NULL ? LOAM_OK : LOAM_ERROR_INVALID, "%s: %s", value, diag.text);
    cr_expect_str_eq(diag.text, expected == NULL ? "" : expected);
    words_release(&words);
}

Test(words, what_is_known_fits)
{
    check_fit("cat,id=a", NULL);
    check_fit("id=a,kind=cat,lives=9,toy=x,toy=y,bark=off", NULL);
    check_fit("{\"kind\":\"cat\",\"id\":\"a\",\"lives\":9,\"toy\":[\"x\",\"y\"]}", NULL);
    check_fit("fish", NULL);
}

Test(words, what_is_not_known_is_refused_by_name)
{
    check_fit("cow,id=a", "-animal cow,id=a: no such animal here: there are cat and fish");
    check_fit("id=a", "-animal id=a: not said which animal here: there are cat and fish");
    check_fit("dog", "-animal dog: dogs are let out: give a cat");
    check_fit("cat", "-animal cat: id= is missing");
    check_fit("cat,id=a,wings=2", "-animal cat,id=a: wings=2: no such key here: known are id, lives, toy and bark");
    check_fit("fish,id=a", "-animal fish,id=a: id=a: no such key here: it has none");
    check_fit("cat,id=a,id=a", "-animal cat,id=a: id= is there twice: give it once");
    check_fit("cat,kind=cat,id=a", "-animal cat,id=a: kind= is there twice: give it once");
    check_fit("cat,id=a,lives=10", "-animal cat,id=a: lives=10: give lives=a number from 1 to 9");
    check_fit("cat,id=a,bark=on", "-animal cat,id=a: bark=on: cats do not: give bark=off");
    check_fit("cat,id=a\nb\x1b[2J",
              "-animal cat,id=a b\\x1b[2J: id=a b\\x1b[2J: give id=a letter, then letters, digits, "
              "'-', '.' and '_', at most 127");
}

Test(words, what_they_say)
{
    struct words words;
    char *copy;

    cr_assert_eq(words_read("-animal", "kind", false, "cat,n=12k,on=on,r=0-1,r=63,r=5", &words, NULL), LOAM_OK);
    cr_expect_str_eq(words_get(&words, "kind"), "cat");
    cr_expect_null(words_get(&words, "kin"));
    cr_expect(words_is(&words, "kind", "cat"));
    cr_expect_not(words_is(&words, "kind", "ca"));
    cr_expect_not(words_is(&words, "none", "cat"));
    cr_expect_eq(words_number(&words, "n", 1), 12 * 1024);
    cr_expect_eq(words_number(&words, "none", 7), 7);
    cr_expect(words_is_on(&words, "on", false));
    cr_expect(words_is_on(&words, "none", true));
    cr_expect_not(words_is_on(&words, "none", false));
    cr_expect_eq(words_mask(&words, "r"), UINT64_C(1) << 63 | 0x23);
    cr_expect_eq(words_mask(&words, "none"), 0);
    cr_expect_eq(words_copy(&words, "kind", &copy, NULL), LOAM_OK);
    words_release(&words);
    cr_expect_str_eq(copy, "cat");
    free(copy);
}

Test(words, a_refusal_is_one_line_that_a_terminal_survives)
{
    struct loam_diag diag = {0};
    struct words words;

    cr_assert_eq(words_read("-animal", "kind", false, "c\nat,x=\x1b]0;\x07\t\xff", &words, NULL), LOAM_OK);
    cr_expect_eq(words_refuse(&words, "x", &diag, "no"), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "-animal c at: x=\\x1b]0;\\x07 \\xff: no");
    words_release(&words);
}

/* A line of two such texts still has its end. */
Test(words, what_is_escaped_is_shown_as_short_as_the_rest)
{
    static const char text[] = "\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17";
    struct words_shown shown = words_show(text);

    cr_expect_eq(strlen(shown.text), WORDS_SHOWN_BYTES + 3, "%s", shown.text);
    cr_expect_str_eq(shown.text + WORDS_SHOWN_BYTES, "...");
    cr_expect_eq(strncmp(shown.text, "\\x01\\x02", 8), 0, "%s", shown.text);
}
