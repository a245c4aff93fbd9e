// SPDX-License-Identifier: Apache-2.0
/* Every program of the corpus, in the everyday run and by any compiler. */
#include "tests/fuzz/frame_fuzz.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>

#define CORPUS "tests/fuzz/frame_corpus"

static void run_file(const char *name)
{
    static uint8_t data[1 << 16];
    char path[PATH_MAX];
    const char *why;
    FILE *file;
    size_t size;

    snprintf(path, sizeof path, CORPUS "/%s", name);
    file = fopen(path, "rb");
    cr_assert_not_null(file, "%s: cannot be opened", path);
    size = fread(data, 1, sizeof data, file);
    fclose(file);
    cr_assert(size > 0 && size < sizeof data, "%s: empty, or too long", path);
    why = frame_fuzz_run(data, size);
    cr_assert_null(why, "%s: %s", path, why);
}

Test(frame_corpus, every_program_is_answered_as_the_oracle_allows)
{
    DIR *directory = opendir(CORPUS);
    const struct dirent *entry;
    int files = 0;

    cr_assert_not_null(directory, CORPUS ": run from the root of the repository");
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') {
            run_file(entry->d_name);
            files++;
        }
    }
    closedir(directory);
    cr_assert_gt(files, 50, "only %d programs", files);
}
