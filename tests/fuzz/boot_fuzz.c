// SPDX-License-Identifier: Apache-2.0
/* libFuzzer: whatever the file holds, it is inspected and loaded without a crash, and what is promised of both is so. */
#include "tests/fuzz/boot_play.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t file_count, loaded_count;

static void tell(void)
{
    fprintf(stderr, "boot_fuzz: %ju files, %ju of them loaded\n", (uintmax_t)file_count, (uintmax_t)loaded_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (file_count++ == 0 && atexit(tell) != 0) {
        abort();
    }
    loaded_count += boot_play(data, size) != NULL;
    return 0;
}
