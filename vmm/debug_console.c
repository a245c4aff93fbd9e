// SPDX-License-Identifier: Apache-2.0
#include "vmm/debug_console.h"

void debug_console_init(struct debug_console *console, void (*output)(void *self, const uint8_t *bytes, size_t count),
                        void *self)
{
    *console = (struct debug_console){.output = output, .self = self};
}

void debug_console_access(void *self, struct bus_access *access)
{
    struct debug_console *console = self;
    const uint8_t byte = (uint8_t)access->value;

    if (access->is_write) {
        console->output(console->self, &byte, 1);
    } else {
        access->value = DEBUG_CONSOLE_ANSWER;
    }
}
