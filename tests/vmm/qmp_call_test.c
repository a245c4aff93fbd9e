// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp_call.h"

#include "tests/support/heap.h"
#include "vmm/qmp_descriptors.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static unsigned act_count;

static void echo(void *self, struct qmp_call *call)
{
    (void)self;
    act_count++;
    call->answer = json_deep_copy(call->arguments);
}

static void do_nothing(void *self, struct qmp_call *call)
{
    *(unsigned *)self += json_object_size(call->arguments) == 0;
}

static void fail(void *self, struct qmp_call *call)
{
    const char *text = json_string_value(json_object_get(call->arguments, "text"));

    (void)self;
    call->answer = json_pack("{ss}", "an answer", "that is dropped");
    qmp_refuse(call, QMP_DEVICE_NOT_FOUND, "no such thing: %s", text != NULL ? text : "\xff");
}

static void answer_badly(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = json_array();
    json_array_append_new(call->answer, json_string_nocheck("\xff"));
}

static void take(void *self, struct qmp_call *call)
{
    int fd = qmp_take_descriptor(call);

    (void)self;
    call->answer = json_boolean(fd >= 0);
    if (fd >= 0) {
        close(fd);
    }
}

static const struct qmp_command commands[] = {
    {"echo", echo}, {"nothing", do_nothing}, {"fail", fail}, {"bad", answer_badly}, {"take", take}};
static unsigned nothing_count;
static uint32_t blocks_before;
static struct qmp_descriptors descriptors;
static struct qmp_session session;

/* The library's memory is the test's, so that it is counted and fails with the rest. */
static void *allocate(size_t bytes)
{
    return malloc(bytes);
}

static void give_back(void *memory)
{
    free(memory);
}

static void set_up(void)
{
    json_set_alloc_funcs(allocate, give_back);
    blocks_before = heap_block_count();
    session = (struct qmp_session){.commands = commands,
                                   .command_count = sizeof commands / sizeof commands[0],
                                   .self = &nothing_count,
                                   .is_ready = true,
                                   .descriptors = &descriptors};
}

static void tear_down(void)
{
    cr_expect_eq(heap_block_count(), blocks_before, "memory is left");
}

TestSuite(qmp_call, .init = set_up, .fini = tear_down, .timeout = 60);

static void expect_reply(const char *text, const char *reply)
{
    bool is_json;
    char *line = qmp_call_text(&session, text, strlen(text), &is_json);

    cr_assert_not_null(line, "%s", text);
    cr_expect_str_eq(line, reply, "%s: %s", text, line);
    cr_expect_eq(is_json, strstr(reply, "JSON parse error") == NULL, "%s", text);
    free(line);
}

#define ERROR(class, text) "{\"error\": {\"class\": \"" class "\", \"desc\": \"" text "\"}}"
#define GENERIC(text)      ERROR("GenericError", text)
#define OK                 "{\"return\": {}}"

Test(qmp_call, commands_are_carried_out)
{
    expect_reply("{\"execute\":\"nothing\"}", OK);
    expect_reply("{\"arguments\":{},\"execute\":\"nothing\"}\r", OK);
    cr_expect_eq(nothing_count, 2);
    expect_reply("{\"execute\":\"echo\",\"id\":[1,{}],\"arguments\":{\"a\":\"\\u00e9\",\"b\":null}}",
                 "{\"return\": {\"a\": \"\\u00E9\", \"b\": null}, \"id\": [1, {}]}");
    expect_reply("{\"execute\":\"bad\",\"id\":1}",
                 "{\"error\": {\"class\": \"GenericError\", \"desc\": \"it is done, but its "
                 "answer cannot be written as JSON\"}, \"id\": 1}");
}

Test(qmp_call, a_command_that_fails_says_why)
{
    char text[4000] = "{\"execute\":\"fail\",\"arguments\":{\"text\":\"x", *line;
    bool is_json;

    expect_reply("{\"execute\":\"fail\",\"arguments\":{\"text\":\"it\"},\"id\":null}",
                 "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no such thing: it\"}, \"id\": null}");
    expect_reply("{\"execute\":\"fail\"}", ERROR("DeviceNotFound", "no such thing: \\uFFFD"));
    for (unsigned i = 0; i < 1000; i++) {
        strcat(text, "\xc3\xa9");
    }
    strcat(text, "\"}}");
    line = qmp_call_text(&session, text, strlen(text), &is_json);
    cr_assert_not_null(line, "a text cut within a character is still told");
    cr_expect_not_null(strstr(line, "\\uFFFD"));
    free(line);
}

Test(qmp_call, what_is_no_command_is_refused)
{
    static const char *const cases[][2] = {
        {"1", GENERIC("QMP input must be a JSON object")},
        {"[{}]", GENERIC("QMP input must be a JSON object")},
        {"\"echo\"", GENERIC("QMP input must be a JSON object")},
        {"{}", GENERIC("QMP input lacks member 'execute'")},
        {"{\"arguments\":{}}", GENERIC("QMP input lacks member 'execute'")},
        {"{\"execute\":1}", GENERIC("QMP input member 'execute' must be a string")},
        {"{\"execute\":\"echo\",\"arguments\":[]}", GENERIC("QMP input member 'arguments' must be an object")},
        {"{\"execute\":\"echo\",\"arguments\":null}", GENERIC("QMP input member 'arguments' must be an object")},
        {"{\"execute\":\"echo\",\"more\":1}", GENERIC("QMP input member 'more' is unexpected")},
        {"{\"exec-oob\":\"echo\"}", GENERIC("QMP input member 'exec-oob' is unexpected")},
        {"{\"execute\":\"ech\"}", ERROR("CommandNotFound", "The command ech has not been found")},
        {"{\"execute\":\"\"}", ERROR("CommandNotFound", "The command  has not been found")},
        {"{\"execute\":\"qmp_capabilities\"}",
         ERROR("CommandNotFound", "Capabilities negotiation is already complete, command ignored")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_reply(cases[i][0], cases[i][1]);
    }
    expect_reply(
        "{\"id\":7,\"more\":1}",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"QMP input member 'more' is unexpected\"}, \"id\": 7}");
    cr_expect_eq(act_count, 0);
}

Test(qmp_call, what_is_no_json_is_said_to_be_none)
{
    static const char *const texts[] = {
        "",
        "hello",
        "{]",
        "{\"execute\":\"echo\"",
        "{\"execute\":\"echo\",}",
        "{'execute':'echo'}",
        "{\"execute\":\"echo\",\"execute\":\"echo\"}",
        "{\"execute\":\"echo\",\"id\":99999999999999999999}",
        "{\"execute\":\"echo\",\"id\":1e999}",
        "{\"execute\":\"ech\xff\"}",
        "{\"execute\":\"echo\\u0000\"}",
        "{\"execute\":\"echo\"}{",
        "{\"execute\":\"a\tb\"}",
    };

    const char *start = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error, ";

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        bool is_json;
        char *line = qmp_call_text(&session, texts[i], strlen(texts[i]), &is_json);

        cr_assert_not_null(line);
        cr_expect(!is_json && strncmp(line, start, strlen(start)) == 0, "%s: %s", texts[i], line);
        free(line);
    }
    cr_expect_eq(act_count, 0);
}

Test(qmp_call, nothing_goes_before_capabilities)
{
    static const char *const refused[][2] = {
        {"{\"execute\":\"echo\"}",
         ERROR("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")},
        {"{\"execute\":\"nonsense\"}",
         ERROR("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")},
        {"{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}",
         GENERIC("capability 'oob' cannot be enabled: none is offered")},
        {"{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[1]}}",
         GENERIC("capability '(no string)' cannot be enabled: none is offered")},
        {"{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":\"oob\"}}",
         GENERIC("Invalid parameter type for 'enable', expected: array")},
        {"{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enabel\":[]}}",
         GENERIC("Parameter 'enabel' is unexpected")},
        {"{\"execute\":\"qmp_capabilities\",\"x\":1}", GENERIC("QMP input member 'x' is unexpected")},
    };
    static const char *const accepted[] = {
        "{\"execute\":\"qmp_capabilities\"}",
        "{\"execute\":\"qmp_capabilities\",\"arguments\":{}}",
        "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[]}}",
    };

    session.is_ready = false;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        expect_reply(refused[i][0], refused[i][1]);
        cr_expect_not(session.is_ready);
    }
    cr_expect_eq(act_count, 0);
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        session.is_ready = false;
        expect_reply(accepted[i], OK);
        cr_expect(session.is_ready);
    }
    expect_reply("{\"execute\":\"echo\"}", OK);
}

Test(qmp_call, a_descriptor_is_the_command_s_that_takes_it)
{
    qmp_descriptors_hold(&descriptors, eventfd(0, EFD_CLOEXEC), 0);
    expect_reply("{\"execute\":\"take\"}", "{\"return\": true}");
    expect_reply("{\"execute\":\"take\"}", "{\"return\": false}");
}

/* --- Without memory ------------------------------------------------------------------------------------------------ */

/* Each block fails once. There is a reply, which is whole, or there is none; and nothing is left. */
Test(qmp_call, without_memory_there_is_a_whole_reply_or_none)
{
    static const char text[] = "{\"execute\":\"echo\",\"id\":[1],\"arguments\":{\"a\":[\"text\",1.5,{}]}}";
    bool is_over = false;

    for (uint32_t call = 1; !is_over; call++) {
        json_t *reply;
        bool is_json;
        char *line;

        heap_fail(call);
        line = qmp_call_text(&session, text, sizeof text - 1, &is_json);
        is_over = heap_call_count() < call;
        heap_fail(0);
        reply = line != NULL ? json_loads(line, JSON_REJECT_DUPLICATES, NULL) : NULL;
        cr_assert(line == NULL || json_object_size(reply) == (is_json ? 2 : 1), "block %u: %s", call, line);
        cr_assert(!is_over || json_object_get(reply, "return") != NULL, "%s", line);
        free(line);
        json_decref(reply);
        cr_assert_eq(heap_block_count(), blocks_before, "block %u", call);
    }
}
