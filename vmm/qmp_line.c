// SPDX-License-Identifier: Apache-2.0
/* json_object_set_new uses its value up in any case, takes NULL for a failure, and does nothing to an object that is NULL. */
#include "vmm/qmp_line.h"

#include "vmm/json_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROOM_LEAST_BYTES 256u

/* The same object with one member more. NULL: one of the two is missing, and both are used up. */
static json_t *with(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *object_of(const char *key, json_t *value)
{
    return with(json_object(), key, value);
}

struct text {
    char *bytes;
    size_t count, room;
    bool has_failed;
};

static bool make_room(struct text *text, size_t count)
{
    size_t room = text->room != 0 ? text->room : ROOM_LEAST_BYTES;
    char *bytes;

    while (room - text->count <= count) { /* and a zero byte */
        room *= 2;
    }
    if (room != text->room) {
        bytes = realloc(text->bytes, room);
        if (bytes == NULL) {
            return false;
        }
        text->bytes = bytes;
        text->room = room;
    }
    return true;
}

/* Once it fails it fails: jansson (2.14) goes on where a member's name could not be appended. */
static int append(const char *bytes, size_t count, void *into)
{
    struct text *text = into;

    text->has_failed = text->has_failed || !make_room(text, count);
    if (text->has_failed) {
        return -1;
    }
    memcpy(text->bytes + text->count, bytes, count);
    text->count += count;
    text->bytes[text->count] = '\0';
    return 0;
}

/* Root is used up. */
static char *line_of(json_t *root)
{
    struct text text = {0};

    if (json_dump_callback(root, append, &text, JSON_ENSURE_ASCII) != 0) {
        free(text.bytes);
        text.bytes = NULL;
    }
    json_decref(root);
    return text.bytes;
}

static char *reply_line(json_t *reply, json_t *id)
{
    return line_of(id != NULL ? with(reply, "id", json_incref(id)) : reply);
}

static json_t *now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    return json_pack("{sIsI}", "seconds", (json_int_t)time.tv_sec, "microseconds", (json_int_t)(time.tv_nsec / 1000));
}

char *qmp_line_greeting(int major, int minor, int micro, const char *package)
{
    json_t *numbers = json_pack("{sisisi}", "micro", micro, "minor", minor, "major", major);
    json_t *named = with(object_of("qemu", numbers), "package", json_text(package));

    return line_of(object_of("QMP", with(object_of("version", named), "capabilities", json_array())));
}

char *qmp_line_event(const char *name, json_t *data)
{
    json_t *event = with(object_of("timestamp", now()), "event", json_text(name));
    char *line = data != NULL ? line_of(with(json_copy(event), "data", data)) : NULL;

    if (line == NULL) {
        return line_of(event);
    }
    json_decref(event);
    return line;
}

char *qmp_line_answer(json_t *answer, json_t *id)
{
    return reply_line(object_of("return", answer != NULL ? answer : json_object()), id);
}

char *qmp_line_error(enum qmp_error_class error_class, const char *text, json_t *id)
{
    static const char *const names[QMP_ERROR_CLASS_COUNT] = {
        [QMP_GENERIC_ERROR] = "GenericError",        [QMP_COMMAND_NOT_FOUND] = "CommandNotFound",
        [QMP_DEVICE_NOT_ACTIVE] = "DeviceNotActive", [QMP_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [QMP_KVM_MISSING_CAP] = "KVMMissingCap",
    };
    json_t *error = with(object_of("class", json_string(names[error_class])), "desc", json_text(text));

    return reply_line(object_of("error", error), id);
}
