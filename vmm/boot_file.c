// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_file.h"

#include "loam/types.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES 160

bool boot_file_read(const struct boot_file *file, uint64_t offset, void *target, size_t bytes)
{
    if (!loam_fits(offset, bytes, file->bytes)) {
        return false;
    }
    if (bytes > 0) {
        memcpy(target, (const uint8_t *)file->data + offset, bytes);
    }
    return true;
}

static void printable_name(const char *name, char target[NAME_BYTES])
{
    snprintf(target, NAME_BYTES, "%s", name != NULL ? name : "(unnamed)");
    for (char *c = target; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            *c = '?';
        }
    }
}

enum loam_error boot_file_refuse(const struct boot_file *file, struct loam_diag *diag, const char *format, ...)
{
    char name[NAME_BYTES], reason[sizeof diag->text];
    va_list arguments;

    printable_name(file->name, name);
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return loam_fail(diag, LOAM_ERROR_INVALID, "kernel %s: %s", name, reason);
}
