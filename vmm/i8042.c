// SPDX-License-Identifier: Apache-2.0
#include "vmm/i8042.h"

#define STATUS               0xfdu /* all ones, but that input is taken */
#define COMMAND_OUTPUT_PORT  0xd1u
#define COMMAND_PULSE        0xf0u /* with a mask in bits 0 to 3 */
#define LINE_PROCESSOR_RESET 0x01u /* of the output port; active when clear */

void i8042_init(struct i8042 *i8042, void (*reset)(void *self), void *self)
{
    *i8042 = (struct i8042){.reset = reset, .self = self};
}

static void drive_lines(struct i8042 *i8042, uint8_t lines)
{
    if ((lines & LINE_PROCESSOR_RESET) == 0) {
        i8042->reset(i8042->self);
    }
}

void i8042_data_access(void *self, struct bus_access *access)
{
    struct i8042 *i8042 = self;

    if (!access->is_write) {
        access->value = UINT8_MAX;
    } else if (i8042->awaits_output_port) {
        i8042->awaits_output_port = false;
        drive_lines(i8042, (uint8_t)access->value);
    }
}

void i8042_status_access(void *self, struct bus_access *access)
{
    struct i8042 *i8042 = self;
    const uint8_t command = (uint8_t)access->value;

    if (!access->is_write) {
        access->value = STATUS;
        return;
    }
    i8042->awaits_output_port = command == COMMAND_OUTPUT_PORT;
    if ((command & COMMAND_PULSE) == COMMAND_PULSE) {
        drive_lines(i8042, command);
    }
}
