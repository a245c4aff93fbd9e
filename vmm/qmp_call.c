// SPDX-License-Identifier: Apache-2.0
/* Texts of errors are QEMU's where it has them: people search for them. */
#include "vmm/qmp_call.h"

#include "vmm/qmp_descriptors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- Replies ------------------------------------------------------------------------------------------------------ */

/* id: NULL if there is none. The call's answer is used up. */
static char *reply_line(struct qmp_call *call, json_t *id)
{
    if (!call->is_refused) {
        char *line = qmp_line_answer(call->answer, id);

        call->answer = NULL;
        if (line != NULL) {
            return line;
        }
        qmp_refuse(call, QMP_GENERIC_ERROR, "it is done, but its answer cannot be written as JSON");
    }
    json_decref(call->answer);
    return qmp_line_error(call->error_class, call->error, id);
}

/* --- Capabilities -------------------------------------------------------------------------------------------------- */

/* None is offered, so none can be enabled. */
static void check_capabilities(struct qmp_call *call)
{
    json_t *enable = json_object_get(call->arguments, "enable");
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)call->arguments, key, value)
    {
        if (value != enable) {
            qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter '%s' is unexpected", key);
            return;
        }
    }
    if (enable != NULL && !json_is_array(enable)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "Invalid parameter type for 'enable', expected: array");
    } else if (json_array_size(enable) > 0) {
        const char *name = json_string_value(json_array_get(enable, 0));

        qmp_refuse(call, QMP_GENERIC_ERROR, "capability '%s' cannot be enabled: none is offered",
                   name != NULL ? name : "(no string)");
    }
}

static void negotiate(struct qmp_session *session, struct qmp_call *call)
{
    if (session->is_ready) {
        qmp_refuse(call, QMP_COMMAND_NOT_FOUND, "Capabilities negotiation is already complete, command ignored");
        return;
    }
    check_capabilities(call);
    session->is_ready = !call->is_refused;
}

/* --- Commands ------------------------------------------------------------------------------------------------------ */

static const struct qmp_command *find_command(const struct qmp_session *session, const char *name)
{
    for (size_t i = 0; i < session->command_count; i++) {
        if (strcmp(session->commands[i].name, name) == 0) {
            return &session->commands[i];
        }
    }
    return NULL;
}

static void act(struct qmp_session *session, const char *name, struct qmp_call *call)
{
    const struct qmp_command *command = find_command(session, name);

    if (strcmp(name, "qmp_capabilities") == 0) {
        negotiate(session, call);
    } else if (!session->is_ready) {
        qmp_refuse(call, QMP_COMMAND_NOT_FOUND, "Expecting capabilities negotiation with 'qmp_capabilities'");
    } else if (command == NULL) {
        qmp_refuse(call, QMP_COMMAND_NOT_FOUND, "The command %s has not been found", name);
    } else {
        command->act(session->self, call);
    }
}

static void check_member(const char *key, const json_t *value, struct qmp_call *call)
{
    if (strcmp(key, "execute") == 0) {
        if (!json_is_string(value)) {
            qmp_refuse(call, QMP_GENERIC_ERROR, "QMP input member 'execute' must be a string");
        }
    } else if (strcmp(key, "arguments") == 0) {
        if (!json_is_object(value)) {
            qmp_refuse(call, QMP_GENERIC_ERROR, "QMP input member 'arguments' must be an object");
        }
    } else if (strcmp(key, "id") != 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "QMP input member '%s' is unexpected", key);
    }
}

/* Whether it is a command, with nothing else in it. */
static bool check_request(json_t *request, struct qmp_call *call)
{
    const char *key;
    json_t *value;

    if (!json_is_object(request)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "QMP input must be a JSON object");
        return false;
    }
    json_object_foreach(request, key, value)
    {
        check_member(key, value, call);
        if (call->is_refused) {
            return false;
        }
    }
    if (json_object_get(request, "execute") == NULL) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "QMP input lacks member 'execute'");
    }
    return !call->is_refused;
}

static void carry_out(struct qmp_session *session, json_t *request, struct qmp_call *call)
{
    json_t *arguments;

    if (!check_request(request, call)) {
        return;
    }
    arguments = json_object_get(request, "arguments");
    arguments = arguments != NULL ? json_incref(arguments) : json_object();
    if (arguments == NULL) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "no memory is left to carry it out");
        return;
    }
    call->arguments = arguments;
    act(session, json_string_value(json_object_get(request, "execute")), call);
    json_decref(arguments);
}

/* --- Public -------------------------------------------------------------------------------------------------------- */

char *qmp_call_text(struct qmp_session *session, const char *text, size_t bytes, bool *is_json)
{
    struct qmp_call call = {.descriptors = session->descriptors};
    json_error_t error;
    json_t *request = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    char *line;

    *is_json = request != NULL;
    if (request != NULL) {
        carry_out(session, request, &call);
    } else {
        qmp_refuse(&call, QMP_GENERIC_ERROR, "JSON parse error, %s",
                   error.text[0] != '\0' ? error.text : "no memory is left to read it");
    }
    line = reply_line(&call, json_object_get(request, "id"));
    json_decref(request);
    return line;
}

void qmp_refuse(struct qmp_call *call, enum qmp_error_class error_class, const char *format, ...)
{
    va_list arguments;

    call->is_refused = true;
    call->error_class = error_class;
    va_start(arguments, format);
    vsnprintf(call->error, sizeof call->error, format, arguments);
    va_end(arguments);
}

int qmp_take_descriptor(struct qmp_call *call)
{
    return qmp_descriptors_take(call->descriptors);
}
