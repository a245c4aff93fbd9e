// SPDX-License-Identifier: Apache-2.0
/* Documents walked along small tables, and hostile ones with what they may cost. */
#include "tools/libvirt/xml_walk.h"

#include "tests/support/sanitizer.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- A table, and what it takes ------------------------------------------------------------------------------------ */

static char told[4096];

static void note(const char *format, ...) LOAM_PRINTF(1, 2);
static void note(const char *format, ...)
{
    size_t used = strlen(told);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(told + used, sizeof told - used, format, arguments);
    va_end(arguments);
}

static const char *take_any(struct xml_walk *walk, const char *value)
{
    struct xml_walk_place place = xml_walk_here(walk);

    cr_assert_str_eq(xml_walk_context(walk), "context");
    note("%s:%u=%.20s;", place.path, place.line, value);
    return strcmp(value, "bad") == 0 ? "it is bad" : NULL;
}

static const char *begin_any(struct xml_walk *walk, const char *value)
{
    const char *found = xml_walk_peek(walk, "kind");

    cr_assert_null(value);
    note("<%s %.20s;", xml_walk_here(walk).path, found != NULL ? found : "-");
    return found != NULL && strcmp(found, "bad") == 0 ? "no such kind" : NULL;
}

static const char *end_any(struct xml_walk *walk, const char *value)
{
    cr_assert_null(value);
    note(">%s;", xml_walk_here(walk).path);
    return NULL;
}

static const struct xml_walk_attribute attributes[] = {
    {"kind", NULL, take_any, NULL}, {"way", "up|down", NULL, "only up or down"}, {"free", NULL, NULL, NULL}, {0}};

static const struct xml_walk_element item_children[] = {{"note", .take = take_any}, {0}};

static const struct xml_walk_element list_children[] = {
    {"item", .repeats = true, .begin = begin_any, .end = end_any, .attributes = attributes, .children = item_children},
    {"lone", .attributes = attributes},
    {"gone", .why = "no such thing here"},
    {0}};

static const struct xml_walk_element children[] = {{"list", .is_list = true, .children = list_children},
                                                   {"text", .take = take_any, .attributes = attributes},
                                                   {"choice", .values = "one|two|", .why = "only one or two"},
                                                   {"page", .repeats = true},
                                                   {"free", .is_free = true},
                                                   {0}};

static const struct xml_walk_element root = {"root", .children = children, .attributes = attributes};

static struct xml_walk_refusals refusals;
static const char *ignores[8];
static size_t ignore_count;

static bool walk_bytes(const char *bytes, size_t count)
{
    const struct xml_walk_request request = {bytes, count, &root, ignores, ignore_count, "context"};

    refusals.count = 0;
    told[0] = '\0';
    return xml_walk_run(&request, &refusals);
}

static bool walk(const char *text)
{
    return walk_bytes(text, strlen(text));
}

/* Each document is refused with these lines, which a "\n" ends, and is walked to its end. */
static void expect_refused(const char *text, const char *lines)
{
    char all[8192] = "";

    cr_expect(walk(text), "%s: ended at %s", text, refusals.texts[0]);
    for (uint32_t i = 0; i < refusals.count && i < XML_WALK_REFUSAL_MAX; i++) {
        strcat(strcat(all, refusals.texts[i]), "\n");
    }
    cr_expect_str_eq(all, lines, "%s: %s", text, all);
}

/* --- What is taken ------------------------------------------------------------------------------------------------- */

Test(xml_walk, everything_is_told_in_its_order_with_its_place)
{
    cr_expect(walk("<?xml version='1.0' encoding='utf-8'?>\n<!-- a --><root>\n<list>\n"
                   "<item way='up' kind='k'><note>\n a <![CDATA[<b>]]>&amp;&#65; \n</note></item>\n<?p i?>"
                   "<item/></list><text>x<!-- in -->y</text><choice> two </choice><choice2/></root>\n"));
    cr_expect_str_eq(told, "</root/list/item[1] k;/root/list/item[1]/@kind:4=k;/root/list/item[1]/note:4=a <b>&A;"
                           ">/root/list/item[1];</root/list/item[2] -;>/root/list/item[2];/root/text:7=xy;");
    cr_expect_eq(refusals.count, 1);
    cr_expect_str_eq(refusals.texts[0],
                     "/root/choice2: line 7: not honoured here: --ignore /root/choice2 passes over it");
}

Test(xml_walk, what_is_free_may_hold_anything)
{
    expect_refused("<root free='x' xmlns:q='urn:q'><free a='b' q:c='d'>text<list><deep/></list></free></root>", "");
    cr_expect_str_empty(told);
}

Test(xml_walk, a_byte_order_mark_is_no_text)
{
    expect_refused("\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?><root/>", "");
    expect_refused("\xef\xbb\xbf<root/>", "");
}

/* --- What is refused ----------------------------------------------------------------------------------------------- */

Test(xml_walk, what_no_table_has)
{
    expect_refused("<root>\n\n<list other='1'><x><y z='1'/></x><x/></list></root>",
                   "/root/list/@other: line 3: not honoured here: --ignore /root/list/@other passes over it\n"
                   "/root/list/x[1]: line 3: not honoured here: --ignore /root/list/x passes over it\n"
                   "/root/list/x[2]: line 3: not honoured here: --ignore /root/list/x passes over it\n");
    expect_refused("<root xmlns:q='urn:q' q:a='1'><q:text/><text xmlns='urn:q'/></root>",
                   "/root/@q:a: line 1: not honoured here: --ignore /root/@q:a passes over it\n"
                   "/root/q:text: line 1: not honoured here: --ignore /root/q:text passes over it\n"
                   "/root/text: line 1: not honoured here: --ignore /root/text passes over it\n");
    expect_refused("<root xmlns:q='urn:q'><q:text/><text/><q:text/></root>",
                   "/root/q:text: line 1: not honoured here: --ignore /root/q:text passes over it\n"
                   "/root/q:text[2]: line 1: not honoured here: --ignore /root/q:text passes over it\n");
}

Test(xml_walk, what_a_table_has_a_reason_against)
{
    expect_refused("<root><list><gone a='b'><c/></gone>\n<gone/></list></root>",
                   "/root/list/gone[1]: line 1: no such thing here: --ignore /root/list/gone passes over it\n"
                   "/root/list/gone[2]: line 2: no such thing here: --ignore /root/list/gone passes over it\n");
}

Test(xml_walk, values)
{
    expect_refused("<root way='left'><choice>three</choice><text kind='bad'>bad</text></root>",
                   "/root/@way: line 1: 'left': only up or down: --ignore /root/@way passes over it\n"
                   "/root/choice: line 1: 'three': only one or two: --ignore /root/choice passes over it\n"
                   "/root/text/@kind: line 1: 'bad': it is bad: --ignore /root/text/@kind passes over it\n"
                   "/root/text: line 1: 'bad': it is bad: --ignore /root/text passes over it\n");
    expect_refused("<root><choice/></root>", "");
    expect_refused("<root way='up|down'/>",
                   "/root/@way: line 1: 'up|down': only up or down: --ignore /root/@way passes over it\n");
    expect_refused("<root way='u'/>", "/root/@way: line 1: 'u': only up or down: --ignore /root/@way passes over it\n");
    expect_refused("<root way=''/>", "/root/@way: line 1: '': only up or down: --ignore /root/@way passes over it\n");
}

Test(xml_walk, a_value_is_shown_as_far_as_a_line_has_room)
{
    expect_refused("<root way='1234567890123456789012345678901234567890123456\xc3\xa4\xc3\xa4\xc3\xa4'/>",
                   "/root/@way: line 1: '1234567890123456789012345678901234567890123456\xc3\xa4...': only up or down: "
                   "--ignore /root/@way passes over it\n");
    expect_refused("<root way='12345678901234567890123456789012345678901234567\xc3\xa4'/>",
                   "/root/@way: line 1: '12345678901234567890123456789012345678901234567...': only up or down: "
                   "--ignore /root/@way passes over it\n");
}

Test(xml_walk, values_as_long_as_they_may_be)
{
    char text[3 * XML_WALK_VALUE_BYTES], value[XML_WALK_VALUE_BYTES + 1] = "";

    memset(value, 'v', XML_WALK_VALUE_BYTES - 1);
    snprintf(text, sizeof text, "<root><text kind='%s'> %s </text></root>", value, value);
    expect_refused(text, "");
    strcat(value, "v");
    snprintf(text, sizeof text, "<root><text kind='%s'> %s </text></root>", value, value);
    expect_refused(text, "/root/text/@kind: line 1: longer than 4095 bytes: --ignore /root/text/@kind passes over it\n"
                         "/root/text: line 1: longer than 4095 bytes: --ignore /root/text passes over it\n");
}

Test(xml_walk, text_where_none_belongs)
{
    expect_refused("<root>\n one <list>two</list> three </root>",
                   "/root: line 1: no text is wanted here: --ignore /root passes over it\n"
                   "/root/list: line 2: no text is wanted here: --ignore /root/list passes over it\n"
                   "/root: line 1: no text is wanted here: --ignore /root passes over it\n");
}

Test(xml_walk, one_where_there_is_one_already)
{
    expect_refused("<root><text>a</text><page/><page/><text>b</text><list><lone/><lone/></list></root>",
                   "/root/text[2]: line 1: there is one already: --ignore /root/text passes over it\n"
                   "/root/list/lone[2]: line 1: there is one already: --ignore /root/list/lone passes over it\n");
    cr_expect_str_eq(told, "/root/text:1=a;");
}

Test(xml_walk, what_does_not_begin_is_passed_over)
{
    expect_refused("<root><list><item kind='bad' other='x'><note>n</note></item></list></root>",
                   "/root/list/item[1]: line 1: no such kind: --ignore /root/list/item passes over it\n");
    cr_expect_str_eq(told, "</root/list/item[1] bad;");
}

Test(xml_walk, all_are_counted_and_the_first_are_told)
{
    char text[8192] = "<root>";

    for (unsigned i = 0; i < XML_WALK_REFUSAL_MAX + 8; i++) {
        strcat(text, "<x/>");
    }
    cr_expect(walk(strcat(text, "</root>")));
    cr_expect_eq(refusals.count, XML_WALK_REFUSAL_MAX + 8);
    cr_expect_str_eq(refusals.texts[XML_WALK_REFUSAL_MAX - 1],
                     "/root/x[32]: line 1: not honoured here: --ignore /root/x passes over it");
    text[strlen(text) - 1] = '\0';
    cr_expect_not(walk(text), "an unfinished document has an end");
    cr_expect_eq(refusals.count, XML_WALK_REFUSAL_MAX + 9);
    cr_expect_not_null(strstr(refusals.texts[XML_WALK_REFUSAL_MAX - 1], "no XML"), "why it ended is not told: %s",
                       refusals.texts[XML_WALK_REFUSAL_MAX - 1]);
}

/* --- What is passed over ------------------------------------------------------------------------------------------- */

static const char many[] =
    "<root way='x'><list a='1'><item kind='1'/><gone/><item kind='2' b='2'><note>bad</note></item>"
    "<gone/></list><text kind='bad'>t</text></root>";

struct passing {
    char ignores[4][40];
    char refused[8][40]; /* the paths */
};

ParameterizedTestParameters(xml_walk, passing_over)
{
    static struct passing cases[] = {
        {{""},
         {"/root/@way", "/root/list/@a", "/root/list/gone[1]", "/root/list/item[2]/@b", "/root/list/item[2]/note",
          "/root/list/gone[2]", "/root/text/@kind"}},
        {{"/root"}, {""}},
        {{"/root[2]"},
         {"/root/@way", "/root/list/@a", "/root/list/gone[1]", "/root/list/item[2]/@b", "/root/list/item[2]/note",
          "/root/list/gone[2]", "/root/text/@kind"}},
        {{"/root/list"}, {"/root/@way", "/root/text/@kind"}},
        {{"/root[1]/list[1]", "/root/@way"}, {"/root/text/@kind"}},
        {{"/root/list/gone", "/root/list/item"}, {"/root/@way", "/root/list/@a", "/root/text/@kind"}},
        {{"/root/list/gone[2]", "/root/list/item[1]"},
         {"/root/@way", "/root/list/@a", "/root/list/gone[1]", "/root/list/item[2]/@b", "/root/list/item[2]/note",
          "/root/text/@kind"}},
        {{"/root/list/item[2]/note", "/root/list/item/@b", "/root/text/@kind", "/root/list/@a"},
         {"/root/@way", "/root/list/gone[1]", "/root/list/gone[2]"}},
        {{"/root/lis", "/root/listing", "/list", "/root/@wa"},
         {"/root/@way", "/root/list/@a", "/root/list/gone[1]", "/root/list/item[2]/@b", "/root/list/item[2]/note",
          "/root/list/gone[2]", "/root/text/@kind"}},
    };

    return cr_make_param_array(struct passing, cases, sizeof cases / sizeof cases[0]);
}

ParameterizedTest(struct passing *passing, xml_walk, passing_over)
{
    uint32_t count = 0;

    for (ignore_count = 0; ignore_count < 4 && passing->ignores[ignore_count][0] != '\0'; ignore_count++) {
        ignores[ignore_count] = passing->ignores[ignore_count];
        cr_assert(xml_walk_is_path(ignores[ignore_count]));
    }
    cr_expect(walk(many));
    while (count < 8 && passing->refused[count][0] != '\0') {
        size_t length = strlen(passing->refused[count]);

        cr_expect(count < refusals.count && strncmp(refusals.texts[count], passing->refused[count], length) == 0 &&
                      refusals.texts[count][length] == ':',
                  "--ignore %s: %s, where %s was wanted", passing->ignores[0], refusals.texts[count],
                  passing->refused[count]);
        count++;
    }
    cr_expect_eq(refusals.count, count, "--ignore %s: %u refused", passing->ignores[0], refusals.count);
}

Test(xml_walk, what_is_passed_over_is_not_there)
{
    ignores[0] = "/root/list/item/@kind";
    ignores[1] = "/root/text";
    ignore_count = 2;
    expect_refused("<root><list><item kind='bad'/></list><text>a</text><text>b</text></root>", "");
    cr_expect_str_eq(told, "</root/list/item[1] -;>/root/list/item[1];");
}

Test(xml_walk, paths)
{
    static const char *const good[] = {"/a",        "/a/b[1]/c",  "/a[999999999]", "/a/@b",
                                       "/q:a/@q:b", "/a.b/c-d_e", "/\xc3\xa4"};
    static const char *const bad[] = {
        "",     "/",      "a",     "a/b",   "//a", "/a/",  "/a//b", "/a[0]",  "/a[01]",   "/a[]",           "/a[",
        "/a[1", "/a[1]b", "/a[x]", "/@a/b", "/@",  "/a@b", "/a b",  "/a[-1]", "/a[1][2]", "/a[1234567890]", "/a]"};
    char text[512] = "/";

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cr_expect(xml_walk_is_path(good[i]), "%s", good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_not(xml_walk_is_path(bad[i]), "%s", bad[i]);
    }
    memset(text + 1, 'a', XML_WALK_NAME_MAX);
    cr_expect(xml_walk_is_path(text));
    text[1 + XML_WALK_NAME_MAX] = 'a';
    cr_expect_not(xml_walk_is_path(text));
    memset(text, 0, sizeof text);
    for (unsigned i = 0; i < XML_WALK_IGNORE_BYTES / 2; i++) {
        strcat(text, "/a");
    }
    cr_expect_not(xml_walk_is_path(text), "a path of %zu bytes", strlen(text));
    cr_expect(xml_walk_is_path(text + 2));
}

/* --- Hostile documents --------------------------------------------------------------------------------------------- */

/* What any of them may cost: seconds of a processor, and resident memory beyond the test's own. */
#define COST_SECONDS (SANITIZER_MAPS || SANITIZER_THREADS ? 20 : 2)
#define COST_KIB     (8 * 1024)

struct hostile {
    char name[24];
    void (*write)(FILE *stream);
    char says[112]; /* of the last refusal; "": none, and its end is reached */
};

static void write_times(FILE *stream, unsigned count, const char *text)
{
    for (unsigned i = 0; i < count; i++) {
        fputs(text, stream);
    }
}

static void write_nodes(FILE *stream)
{
    fputs("<root>", stream);
    write_times(stream, 250000, "<x/>");
    fputs("</root>", stream);
}

static void write_passed_nodes(FILE *stream)
{
    fputs("<root><free>", stream);
    write_times(stream, 250000, "<x/>");
    fputs("</free></root>", stream);
}

static void write_million_nodes(FILE *stream)
{
    fputs("<root>", stream);
    write_times(stream, 1000000, "<x/>");
    fputs("</root>", stream);
}

static void write_laughs(FILE *stream)
{
    fputs("<!DOCTYPE root [<!ENTITY l0 'lol'>", stream);
    for (unsigned i = 1; i < 10; i++) {
        fprintf(stream, "<!ENTITY l%u '", i);
        for (unsigned k = 0; k < 10; k++) {
            fprintf(stream, "&l%u;", i - 1);
        }
        fputs("'>", stream);
    }
    fputs("]><root><text>&l9;</text></root>", stream);
}

static void write_quadratic(FILE *stream)
{
    fputs("<!DOCTYPE root [<!ENTITY a '", stream);
    write_times(stream, 50000, "aaaaaaaaaa");
    fputs("'>]><root><text>", stream);
    write_times(stream, 100000, "&a;");
    fputs("</text></root>", stream);
}

static void write_external(FILE *stream)
{
    fputs("<!DOCTYPE root [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><root><text>&e;</text></root>", stream);
}

static void write_parameter(FILE *stream)
{
    fputs("<!DOCTYPE root SYSTEM 'http://127.0.0.1:9/x.dtd' [<!ENTITY % p SYSTEM 'file:///dev/zero'>%p;]><root/>",
          stream);
}

static void write_undefined(FILE *stream)
{
    fputs("<root><text>&e;</text></root>", stream);
}

static void write_deep(FILE *stream)
{
    write_times(stream, 1, "<root><free>");
    write_times(stream, 100000, "<x>");
}

static void write_deep_enough(FILE *stream)
{
    fputs("<root><free>", stream);
    write_times(stream, XML_WALK_DEPTH_MAX - 2, "<x>");
    write_times(stream, XML_WALK_DEPTH_MAX - 2, "</x>");
    fputs("</free></root>", stream);
}

static void write_huge_attribute(FILE *stream)
{
    fputs("<root><text kind='", stream);
    write_times(stream, 100000, "0123456789");
    fputs("'/></root>", stream);
}

static void write_attributes(FILE *stream)
{
    fputs("<root><text", stream);
    for (unsigned i = 0; i < 80000; i++) {
        fprintf(stream, " a%u=''", i);
    }
    fputs("/></root>", stream);
}

/* As many as are let through, in one element. */
static void write_most_attributes(FILE *stream)
{
    fputs("<root><free", stream);
    for (unsigned i = 0; i < XML_WALK_EQUALS_MAX; i++) {
        fprintf(stream, " a%u=''", i);
    }
    fputs("/></root>", stream);
}

static void write_refused_attributes(FILE *stream)
{
    fputs("<root><text", stream);
    for (unsigned i = 0; i < XML_WALK_EQUALS_MAX; i++) {
        fprintf(stream, " a%u=''", i);
    }
    fputs("/>\n</roo>", stream);
}

/* Each name of an attribute is looked up among all namespaces. */
static void write_namespaces(FILE *stream)
{
    fputs("<root><free", stream);
    for (unsigned i = 0; i < XML_WALK_EQUALS_MAX / 2; i++) {
        fprintf(stream, " xmlns:n%u='u%u'", i, i);
    }
    for (unsigned i = 0; i < XML_WALK_EQUALS_MAX / 2; i++) {
        fprintf(stream, " n%u:a=''", i);
    }
    fputs("/></root>", stream);
}

static void write_text(FILE *stream)
{
    fputs("<root><text>", stream);
    write_times(stream, 100000, "0123456789");
    fputs("</text></root>", stream);
}

static void write_references(FILE *stream)
{
    fputs("<root><text>", stream);
    write_times(stream, 180000, "&#65;");
    fputs("</text></root>", stream);
}

static void write_comment(FILE *stream)
{
    fputs("<root><!--", stream);
    write_times(stream, 100000, " - a < b ");
    fputs("--></root>", stream);
}

static void write_sections(FILE *stream)
{
    fputs("<root><free>", stream);
    write_times(stream, 60000, "<![CDATA[<]]>");
    fputs("</free></root>", stream);
}

static void write_kinds(FILE *stream)
{
    fputs("<root>", stream);
    for (unsigned i = 0; i < 9000; i++) {
        fprintf(stream, "<x%u/>", i);
    }
    fputs("</root>", stream);
}

static void write_name(FILE *stream)
{
    fputs("<root><", stream);
    write_times(stream, 45000, "a");
    fputs("/></root>", stream);
}

static void write_attribute_name(FILE *stream)
{
    fputs("<root ", stream);
    write_times(stream, XML_WALK_NAME_MAX + 1, "a");
    fputs("='1'/>", stream);
}

static void write_latin(FILE *stream)
{
    fputs("<?xml version='1.0' encoding='ISO-8859-1'?><root/>", stream);
}

static void write_no_utf8(FILE *stream)
{
    fputs("<root>\n<free>\xff</free></root>", stream);
}

static void write_overlong(FILE *stream)
{
    fputs("<root><free>\xc0\xbc</free></root>", stream);
}

static void write_utf16(FILE *stream)
{
    static const char text[] = "\xff\xfe<\0r\0/\0>\0";

    fwrite(text, 1, sizeof text - 1, stream);
}

static void write_zero(FILE *stream)
{
    fwrite("<root>\0</root>", 1, 14, stream);
}

static void write_nothing(FILE *stream)
{
    (void)stream;
}

static void write_blanks(FILE *stream)
{
    fputs(" \n ", stream);
}

static void write_other_root(FILE *stream)
{
    fputs("<network/>", stream);
}

static void write_root_of_a_space(FILE *stream)
{
    fputs("<root xmlns='urn:x'/>", stream);
}

static void write_two_roots(FILE *stream)
{
    fputs("<root/><root/>", stream);
}

static void write_mismatch(FILE *stream)
{
    fputs("<root>\n<list>\n</text></root>", stream);
}

static void write_escape(FILE *stream)
{
    fputs("<root>\x1b[2J</root>", stream);
}

static void write_include(FILE *stream)
{
    fputs("<root xmlns:xi='http://www.w3.org/2001/XInclude'><xi:include href='/etc/passwd'/></root>", stream);
}

static const struct hostile hostiles[] = {
    {"nodes", write_nodes, "line 1: more than 10000 elements"},
    {"passed nodes", write_passed_nodes, "line 1: more than 10000 elements"},
    {"a million nodes", write_million_nodes, "more than 1048576 bytes: no domain is so long"},
    {"billion laughs", write_laughs, "line 1: a DOCTYPE: no document type is read here: take it out"},
    {"quadratic blowup", write_quadratic, "line 1: a DOCTYPE: no document type is read here: take it out"},
    {"external entity", write_external, "line 1: a DOCTYPE: no document type is read here: take it out"},
    {"parameter entity", write_parameter, "line 1: a DOCTYPE: no document type is read here: take it out"},
    {"undefined entity", write_undefined, "line 1: no XML: Entity 'e' not defined"},
    {"deep", write_deep, "line 1: elements in elements deeper than 64"},
    {"deep enough", write_deep_enough, ""},
    {"huge attribute", write_huge_attribute,
     "/root/text/@kind: line 1: longer than 4095 bytes: --ignore /root/text/@kind passes over it"},
    {"attributes", write_attributes, "more than 16384 '=': no domain has so many attributes"},
    {"most attributes", write_most_attributes, ""},
    {"refused attributes", write_refused_attributes,
     "line 2: no XML: Opening and ending tag mismatch: root line 1 and roo"},
    {"namespaces", write_namespaces, ""},
    {"text", write_text, "/root/text: line 1: longer than 4095 bytes: --ignore /root/text passes over it"},
    {"references", write_references, "/root/text: line 1: longer than 4095 bytes: --ignore /root/text passes over it"},
    {"comment", write_comment, ""},
    {"sections", write_sections, ""},
    {"kinds", write_kinds, "line 1: more than 64 kinds of elements stand in one"},
    {"name", write_name, "line 1: an element has a name of more than 64 bytes"},
    {"attribute's name", write_attribute_name, "line 1: an attribute has a name of more than 64 bytes"},
    {"latin", write_latin, "line 1: encoding 'ISO-8859-1': UTF-8 is the only one here: convert it"},
    {"no UTF-8", write_no_utf8, "line 2: not UTF-8, which is the only encoding here: convert it"},
    {"overlong", write_overlong, "line 1: not UTF-8, which is the only encoding here: convert it"},
    {"UTF-16", write_utf16, "line 1: not UTF-8, which is the only encoding here: convert it"},
    {"zero", write_zero, "line 1: not UTF-8, which is the only encoding here: convert it"},
    {"nothing", write_nothing, "empty: no XML"},
    {"blanks", write_blanks, "line 2: no XML: Start tag expected, '<' not found"},
    {"other root", write_other_root, "line 1: <network> where <root>, without a namespace, was wanted"},
    {"root of a space", write_root_of_a_space, "line 1: <root> where <root>, without a namespace, was wanted"},
    {"two roots", write_two_roots, "line 1: no XML: Extra content at the end of the document"},
    {"mismatch", write_mismatch, "line 3: no XML: Opening and ending tag mismatch: list line 2 and text"},
    {"escape", write_escape, "line 1: no XML: PCDATA invalid Char value 27"},
    {"include", write_include, "/root/xi:include: line 1: not honoured here: --ignore /root/xi:include passes over it"},
};

/* Their numbers: Criterion makes parameters in another process, whose functions lie elsewhere. */
ParameterizedTestParameters(xml_walk, hostile)
{
    static unsigned numbers[sizeof hostiles / sizeof hostiles[0]];

    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        numbers[i] = i;
    }
    return cr_make_param_array(unsigned, numbers, sizeof numbers / sizeof numbers[0]);
}

/* In a process of its own: 0, or what was wrong is printed. */
static int walk_hostile(const struct hostile *hostile, const char *bytes, size_t count)
{
    bool reached = walk_bytes(bytes, count);
    uint32_t last = refusals.count > XML_WALK_REFUSAL_MAX ? XML_WALK_REFUSAL_MAX : refusals.count;
    const char *says = last == 0 ? "" : refusals.texts[last - 1];

    if (strcmp(says, hostile->says) == 0 && reached == (says[0] == '\0' || says[0] == '/')) {
        return 0;
    }
    fprintf(stderr, "%s: reached %d, %s\n", hostile->name, reached, says);
    return 1;
}

static long resident_kib(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

ParameterizedTest(unsigned *number, xml_walk, hostile)
{
    const struct hostile *hostile = &hostiles[*number];
    const struct rlimit seconds = {COST_SECONDS, COST_SECONDS + 1};
    char *bytes = NULL;
    size_t count = 0;
    FILE *stream = open_memstream(&bytes, &count);
    struct rusage usage;
    int status;
    pid_t child;

    hostile->write(stream);
    fclose(stream);
    child = fork();
    if (child == 0) {
        long before = resident_kib();
        int failed;

        setrlimit(RLIMIT_CPU, &seconds);
        failed = walk_hostile(hostile, bytes, count);
        if (!SANITIZER_MAPS && resident_kib() - before > COST_KIB) {
            fprintf(stderr, "%s: %ld KiB\n", hostile->name, resident_kib() - before);
            failed = 2;
        }
        _exit(failed);
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(wait4(child, &status, 0, &usage), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: %#x after %ld.%06ld s", hostile->name,
              (unsigned)status, usage.ru_utime.tv_sec, usage.ru_utime.tv_usec);
    free(bytes);
}
