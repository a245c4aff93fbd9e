// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/neighbour.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool neighbour_emulator(char *path, size_t room)
{
    char self[PATH_MAX] = {0};
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = length > 0 ? strrchr(self, '/') : NULL;
    int written = -1;

    if (slash != NULL) {
        slash[1] = '\0';
        written = snprintf(path, room, "%sloam-emulator", self);
    }
    if (written > 0 && (size_t)written < room && access(path, X_OK) == 0) {
        return true;
    }
    path[0] = '\0';
    return false;
}
