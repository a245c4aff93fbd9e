// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/memory_files.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BYTES (UINT64_C(4) << 20)

static char folder[] = "/tmp/loam-memory-XXXXXX";
static char path[64];
static struct memory_files files;
static struct loam_diag diag;

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/ram", folder);
}

static void tear_down(void)
{
    memory_files_close(&files);
    unlink(path);
    cr_expect_eq(rmdir(folder), 0, "something is left in %s", folder);
}

TestSuite(memory_files, .init = set_up, .fini = tear_down);

static off_t size_of(int fd)
{
    struct stat status;

    cr_assert_eq(fstat(fd, &status), 0);
    return status.st_size;
}

Test(memory_files, without_one_the_request_is_as_it_was)
{
    const struct line line = {.memory = {.bytes = BYTES, .lock = true}};
    struct loam_memory_request request = line.memory;

    cr_assert_eq(memory_files_open(&line, &request, &files, &diag), LOAM_OK);
    cr_expect_eq(files.count, 0);
    cr_expect_eq(memcmp(&request, &line.memory, sizeof request), 0);
}

Test(memory_files, a_file_that_others_shall_see_has_its_name)
{
    const struct line line = {.memory = {.bytes = BYTES, .sharing = LOAM_SHARING_SHARED, .lock = true},
                              .memory_path = path};
    struct loam_memory_request request = line.memory;

    cr_assert_eq(memory_files_open(&line, &request, &files, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(access(path, F_OK), 0);
    cr_expect_eq(size_of(files.list[0].fd), (off_t)BYTES);
    cr_expect_eq(request.part_count, 1);
    cr_expect_eq(request.parts[0].adoption, LOAM_ADOPTION_FD);
    cr_expect_eq(request.parts[0].sharing, LOAM_SHARING_SHARED);
    cr_expect(request.parts[0].lock && !request.lock, "what is said of pages is said of the part");
}

Test(memory_files, all_else_leaves_no_name_behind)
{
    char *const paths[] = {folder, path};

    for (size_t i = 0; i < 2; i++) {
        const struct line line = {.memory = {.bytes = BYTES}, .memory_path = paths[i]};
        struct loam_memory_request request = line.memory;

        cr_assert_eq(memory_files_open(&line, &request, &files, &diag), LOAM_OK, "%s", diag.text);
        cr_expect_eq(size_of(files.list[0].fd), (off_t)BYTES);
        memory_files_close(&files);
        cr_expect_eq(access(path, F_OK), -1);
    }
}

Test(memory_files, each_part_has_its_own)
{
    const struct line line = {
        .memory = {.bytes = 3 * BYTES, .part_count = 2, .parts = {{.bytes = BYTES}, {.bytes = 2 * BYTES}}},
        .memory_paths = {NULL, folder}};
    struct loam_memory_request request = line.memory;

    cr_assert_eq(memory_files_open(&line, &request, &files, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(files.count, 1);
    cr_expect_eq(request.parts[0].adoption, LOAM_ADOPTION_NONE);
    cr_expect_eq(request.parts[1].adoption, LOAM_ADOPTION_FD);
    cr_expect_eq(size_of(request.parts[1].fd), (off_t)(2 * BYTES));
}

Test(memory_files, nothing_of_a_former_life_is_left)
{
    const struct line line = {.memory = {.bytes = BYTES}, .memory_path = folder};
    struct loam_memory_request request = line.memory;
    char byte = 'x';

    cr_assert_eq(memory_files_open(&line, &request, &files, &diag), LOAM_OK);
    cr_assert_eq(pwrite(files.list[0].fd, &byte, 1, 4096), 1);
    cr_assert_eq(memory_files_clear(&files, &diag), LOAM_OK);
    cr_expect_eq(size_of(files.list[0].fd), (off_t)BYTES);
    cr_assert_eq(pread(files.list[0].fd, &byte, 1, 4096), 1);
    cr_expect_eq(byte, 0);
}

Test(memory_files, a_folder_that_is_not_there_is_named)
{
    const struct line line = {.memory = {.bytes = BYTES}, .memory_path = "/nonexistent/ram"};
    struct loam_memory_request request = line.memory;

    cr_expect_eq(memory_files_open(&line, &request, &files, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "/nonexistent/ram"), "%s", diag.text);
    cr_expect_eq(files.count, 0);
}
