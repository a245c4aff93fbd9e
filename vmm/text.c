// SPDX-License-Identifier: Apache-2.0
#include "vmm/text.h"

#include <stdarg.h>
#include <stdio.h>

struct text text_in(char *data, size_t bytes)
{
    data[0] = '\0';
    return (struct text){.data = data, .bytes = bytes};
}

void text_put(struct text *text, const char *format, ...)
{
    size_t room = text->bytes - text->used;
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text->data + text->used, room, format, arguments);
    va_end(arguments);
    if (length > 0) {
        text->used += (size_t)length < room ? (size_t)length : room - 1;
    }
}
