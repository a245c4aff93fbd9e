// SPDX-License-Identifier: Apache-2.0
/* line_read on a heap that fails: an error, and nothing left. */
#include "tests/emulator/lines.h"
#include "tests/support/heap.h"
#include "vmm/emulator/line.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Allocation number `call` fails. false: there were not so many. */
static bool read_failing(const struct line_vector *vector, struct line_argv *argv, uint32_t call)
{
    static const struct line zero;
    uint32_t blocks = heap_block_count();
    struct loam_diag diag = {0};
    struct line line;
    enum loam_error error;

    heap_fail(call);
    error = line_read(argv->argc, argv->argv, &line, &diag);
    heap_fail(0);
    if (error == LOAM_OK) {
        line_release(&line);
        cr_assert_eq(heap_block_count(), blocks, "%s", vector->name);
        return false;
    }
    cr_assert_eq(error, LOAM_ERROR_SYSTEM, "%s, allocation %" PRIu32 ": %s", vector->name, call, diag.text);
    cr_assert_eq(diag.system_errno, ENOMEM, "%s, allocation %" PRIu32, vector->name, call);
    cr_assert_eq(heap_block_count(), blocks, "%s, allocation %" PRIu32, vector->name, call);
    cr_assert_eq(memcmp(&line, &zero, sizeof line), 0, "%s, allocation %" PRIu32, vector->name, call);
    return true;
}

Test(line_heap, each_allocation_fails_once)
{
    for (size_t i = 0; i < line_vector_count; i++) {
        struct line_argv argv = line_argv_of(line_vectors[i].words);
        uint32_t call = 1;

        while (read_failing(&line_vectors[i], &argv, call)) {
            call++;
        }
        cr_expect_gt(call, 5);
        line_argv_release(&argv);
    }
}

/* A refusal gives back as much. */
Test(line_heap, nothing_is_left_of_a_line_that_is_refused)
{
    static const char *const ends[] = {"-device virtio-gpu-device",
                                       "-kernel",
                                       "-append x,y -append z",
                                       "-object memory-backend-ram,id=more,size=64M",
                                       "-blockdev {",
                                       "-netdev user,id=n"};
    char words[8192];

    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        uint32_t blocks = heap_block_count();
        struct line_argv argv;
        struct line line;

        snprintf(words, sizeof words, "%s %s", line_vectors[0].words, ends[i]);
        argv = line_argv_of(words);
        cr_expect_eq(line_read(argv.argc, argv.argv, &line, NULL), LOAM_ERROR_INVALID, "%s", ends[i]);
        line_argv_release(&argv);
        cr_expect_eq(heap_block_count(), blocks, "%s", ends[i]);
    }
}
