// SPDX-License-Identifier: Apache-2.0
/* Every file of the corpus, in the everyday run and by any compiler; and that each way to boot is among what is loaded. */
#include "tests/fuzz/boot_play.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CORPUS "tests/fuzz/boot_corpus"

static const char *const ways[] = {
    "PVH, ELF64",
    "PVH, ELF32",
    "multiboot, ELF64",
    "multiboot, ELF32",
    "multiboot, address fields",
    "ELF64, 64-bit Linux entry",
    "Linux image, 64-bit entry",
    "Linux image, 32-bit entry",
};

enum { WAY_COUNT = sizeof ways / sizeof ways[0] };

static const char *play(const char *name)
{
    static uint8_t data[1 << 16];
    char path[PATH_MAX];
    FILE *file;
    size_t size;

    snprintf(path, sizeof path, CORPUS "/%s", name);
    file = fopen(path, "rb");
    cr_assert_not_null(file, "%s: cannot be opened", path);
    size = fread(data, 1, sizeof data, file);
    fclose(file);
    cr_assert(size > 0 && size < sizeof data, "%s: empty, or too long", path);
    return boot_play(data, size);
}

Test(boot_corpus, every_file_is_as_promised_and_every_way_is_loaded)
{
    DIR *directory = opendir(CORPUS);
    const struct dirent *entry;
    bool is_loaded[WAY_COUNT] = {false};

    cr_assert_not_null(directory, CORPUS ": run from the root of the repository");
    while ((entry = readdir(directory)) != NULL) {
        const char *way = entry->d_name[0] != '.' ? play(entry->d_name) : NULL;

        for (size_t i = 0; way != NULL && i < WAY_COUNT; i++) {
            is_loaded[i] = is_loaded[i] || strcmp(way, ways[i]) == 0;
        }
    }
    closedir(directory);
    for (size_t i = 0; i < WAY_COUNT; i++) {
        cr_expect(is_loaded[i], "%s: no file of the corpus is loaded so", ways[i]);
    }
}
