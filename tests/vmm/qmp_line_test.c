// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp_line.h"

#include "tests/support/heap.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t blocks_before;

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
}

static void tear_down(void)
{
    heap_fail(0);
    cr_expect_eq(heap_block_count(), blocks_before, "all memory is back");
}

TestSuite(qmp_line, .init = set_up, .fini = tear_down, .timeout = 60);

static void expect_line(char *line, const char *expected)
{
    cr_assert_not_null(line);
    cr_expect_str_eq(line, expected, "%s", line);
    free(line);
}

Test(qmp_line, the_greeting_is_as_the_protocol_has_it)
{
    expect_line(
        qmp_line_greeting(7, 2, 1, "loam"),
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 1, \"minor\": 2, \"major\": 7}, \"package\": \"loam\"}, "
        "\"capabilities\": []}}");
}

Test(qmp_line, an_answer_carries_any_id_back)
{
    static const char *const ids[] = {
        "1",    "-9223372036854775808",      "1.5", "\"libvirt-1\"", "null", "[1]", "{\"a\": {\"b\": []}}",
        "true", "\"\\u00E9\\uD83D\\uDE00\"", "\"\""};
    char expected[128];

    expect_line(qmp_line_answer(NULL, NULL), "{\"return\": {}}");
    expect_line(qmp_line_answer(json_pack("[i]", 7), NULL), "{\"return\": [7]}");
    expect_line(qmp_line_answer(json_null(), NULL), "{\"return\": null}");
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        json_t *id = json_loads(ids[i], JSON_DECODE_ANY, NULL);

        cr_assert_not_null(id, "%s", ids[i]);
        snprintf(expected, sizeof expected, "{\"return\": {}, \"id\": %s}", ids[i]);
        expect_line(qmp_line_answer(json_object(), id), expected);
        json_decref(id);
    }
}

Test(qmp_line, an_error_has_a_class_and_a_text)
{
    static const char *const names[QMP_ERROR_CLASS_COUNT] = {"GenericError", "CommandNotFound", "DeviceNotActive",
                                                             "DeviceNotFound", "KVMMissingCap"};
    json_t *id = json_integer(3);
    char expected[128];

    for (unsigned i = 0; i < QMP_ERROR_CLASS_COUNT; i++) {
        snprintf(expected, sizeof expected, "{\"error\": {\"class\": \"%s\", \"desc\": \"why\"}, \"id\": 3}", names[i]);
        expect_line(qmp_line_error((enum qmp_error_class)i, "why", id), expected);
    }
    expect_line(qmp_line_error(QMP_GENERIC_ERROR, "caf\xc3\xa9 \xff\n", NULL),
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"caf\\u00E9 \\uFFFD\\n\"}}");
    json_decref(id);
}

static json_t *read_event(char *line)
{
    json_t *event = json_loads(line, 0, NULL);

    cr_assert_not_null(event, "%s", line);
    free(line);
    return event;
}

Test(qmp_line, an_event_has_the_time)
{
    time_t before = time(NULL);
    json_t *event = read_event(qmp_line_event("STOP", NULL));
    json_int_t seconds, microseconds;

    cr_assert_eq(json_unpack(event, "{s{sIsI!}s:s!}", "timestamp", "seconds", &seconds, "microseconds", &microseconds,
                             "event", &(const char *){NULL}),
                 0);
    cr_expect(seconds >= before && seconds <= time(NULL));
    cr_expect(microseconds >= 0 && microseconds < 1000000);
    json_decref(event);
    event = read_event(qmp_line_event("SHUTDOWN", json_pack("{sb}", "guest", 1)));
    cr_expect_str_eq(json_string_value(json_object_get(event, "event")), "SHUTDOWN");
    cr_expect(json_is_true(json_object_get(json_object_get(event, "data"), "guest")));
    json_decref(event);
}

static json_t *broken(void)
{
    json_t *object = json_object();

    cr_assert_eq(json_object_set_new(object, "text", json_string_nocheck("\xff")), 0);
    return object;
}

Test(qmp_line, what_cannot_be_written_is_no_answer_and_no_reason_to_hide_an_event)
{
    json_t *event = read_event(qmp_line_event("RESET", broken()));

    cr_expect_str_eq(json_string_value(json_object_get(event, "event")), "RESET");
    cr_expect_null(json_object_get(event, "data"));
    json_decref(event);
    cr_expect_null(qmp_line_answer(broken(), NULL));
}

/* Each call without one of the blocks it asks for, one after the other: nothing, and nothing left; or less, but whole. */
Test(qmp_line, without_memory_there_is_no_line)
{
    json_t *id = json_string("id");
    char key[400] = "";

    memset(key, 'k', sizeof key - 1); /* the line grows in the middle of it */
    for (unsigned kind = 0; kind < 4; kind++) {
        bool is_over = false;

        for (uint32_t call = 1; !is_over; call++) {
            json_t *data = json_pack("{si}", key, 1);
            char *line = NULL;

            heap_fail(call);
            switch (kind) {
            case 0:
                line = qmp_line_greeting(1, 2, 3, "package");
                break;
            case 1:
                line = qmp_line_event("EVENT", json_incref(data));
                break;
            case 2:
                line = qmp_line_answer(json_incref(data), id);
                break;
            default:
                line = qmp_line_error(QMP_GENERIC_ERROR, "text", id);
                break;
            }
            is_over = heap_call_count() < call;
            heap_fail(0);
            cr_assert(line != NULL || !is_over, "kind %u", kind);
            cr_assert(line == NULL || is_over || kind == 1, "kind %u: %s", kind, line);
            cr_expect(line == NULL || strstr(line, "data") == NULL || strstr(line, key) != NULL, "%s", line);
            cr_expect_eq(data->refcount, 1);
            json_decref(data);
            free(line);
        }
    }
    json_decref(id);
}
