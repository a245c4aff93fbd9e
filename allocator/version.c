// SPDX-License-Identifier: Apache-2.0
#include "loam/version.h"

const char *loam_version(void)
{
    return LOAM_VERSION;
}
