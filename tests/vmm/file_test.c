// SPDX-License-Identifier: Apache-2.0
#include "vmm/file.h"

#include "tests/support/heap.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/loam-file-XXXXXX";
static char path[64];

/* --- read(2) and fstat(2) that do as told ------------------------------------------------------------------------- */

enum { AS_IT_IS = 0, END = -1000 };

static int answers[8]; /* to one read after the other: so many bytes at most, -errno, END, or AS_IT_IS */
static size_t asked[8];
static unsigned reads;
static bool fstat_fails;

ssize_t __real_read(int fd, void *bytes, size_t count);
ssize_t __wrap_read(int fd, void *bytes, size_t count);
int __real_fstat(int fd, struct stat *status);
int __wrap_fstat(int fd, struct stat *status);

ssize_t __wrap_read(int fd, void *bytes, size_t count)
{
    int answer = answers[reads];

    asked[reads] = count;
    reads = reads < 7 ? reads + 1 : 7;
    if (answer == END) {
        return 0;
    }
    if (answer < 0) {
        errno = -answer;
        return -1;
    }
    return __real_read(fd, bytes, answer > 0 && (size_t)answer < count ? (size_t)answer : count);
}

/* What read becomes in an optimised build (_FORTIFY_SOURCE). */
ssize_t __wrap___read_chk(int fd, void *bytes, size_t count, size_t room);
ssize_t __wrap___read_chk(int fd, void *bytes, size_t count, size_t room)
{
    (void)room;
    return __wrap_read(fd, bytes, count);
}

int __wrap_fstat(int fd, struct stat *status)
{
    if (fstat_fails) {
        errno = EIO;
        return -1;
    }
    return __real_fstat(fd, status);
}

/* --- The files ---------------------------------------------------------------------------------------------------- */

static unsigned count_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static unsigned descriptors_before;
static uint32_t blocks_before;

static void make_folder(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    descriptors_before = count_descriptors();
    blocks_before = heap_block_count();
}

static void remove_folder(void)
{
    unlink(path);
    rmdir(folder);
    cr_expect_eq(count_descriptors(), descriptors_before);
    cr_expect_eq(heap_block_count(), blocks_before);
}

TestSuite(file, .init = make_folder, .fini = remove_folder);

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");

    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

/* It can be opened, and is not read. */
static void expect_unread(const char *name, uint64_t limit_bytes, enum loam_error expected, const char *says)
{
    struct boot_file file = {path, 1, path};
    struct loam_diag diag = {0};

    cr_expect_eq(file_read(name, limit_bytes, NULL, &file, &diag), expected, "%s: %s", name, diag.text);
    cr_expect_not_null(strstr(diag.text, says), "%s does not say %s", diag.text, says);
    cr_expect_null(file.data, "the output is defined on failure");
    cr_expect_eq(file.bytes, 0);
}

static void expect_refusal(const char *name, uint64_t limit_bytes, enum loam_error expected, const char *says)
{
    struct boot_file file = {path, 1, path};
    struct loam_diag diag = {0}, measured = {0};
    uint64_t bytes = 1;

    expect_unread(name, limit_bytes, expected, says);
    (void)!file_read(name, limit_bytes, NULL, &file, &diag);
    cr_expect_eq(file_measure(name, limit_bytes, &bytes, &measured), expected);
    cr_expect_str_eq(measured.text, diag.text, "both refuse alike");
    cr_expect_eq(bytes, 0);
}

Test(file, is_read_whole)
{
    struct boot_file file;

    write_file("a kernel");
    cr_assert_eq(file_read(path, 8, NULL, &file, NULL), LOAM_OK);
    cr_expect_eq(file.bytes, 8);
    cr_expect_arr_eq(file.data, "a kernel", 8);
    file_release(&file);
    cr_expect_null(file.data);
}

Test(file, is_measured)
{
    uint64_t bytes;

    write_file("a kernel");
    cr_assert_eq(file_measure(path, 8, &bytes, NULL), LOAM_OK);
    cr_expect_eq(bytes, 8);
}

/* Says so when it is asked for the third time. */
static bool third_time(void *self)
{
    unsigned *asked = self;

    return ++*asked == 3;
}

/* Two pieces are read, and no more of a file that would take minutes. */
Test(file, that_is_large_can_be_left)
{
    unsigned asked = 0;
    const struct loam_cancel cancel = {third_time, &asked};
    struct boot_file file = {path, 1, path};
    struct loam_diag diag = {0};

    write_file("");
    cr_assert_eq(truncate(path, 8 * (off_t)FILE_PIECE_BYTES), 0);
    cr_expect_eq(file_read(path, UINT64_MAX, &cancel, &file, &diag), LOAM_ERROR_CANCELLED, "%s", diag.text);
    cr_expect_eq(asked, 3);
    cr_expect_null(file.data);
    cr_expect_eq(file.bytes, 0);
}

Test(file, of_one_byte)
{
    struct boot_file file;

    write_file("k");
    cr_assert_eq(file_read(path, 1, NULL, &file, NULL), LOAM_OK);
    cr_expect_eq(file.bytes, 1);
    cr_expect_str_eq(file.name, path);
    file_release(&file);
}

Test(file, is_read_in_pieces_and_after_an_interruption)
{
    static const size_t wanted[] = {8, 5, 5, 4};
    struct boot_file file;

    write_file("a kernel");
    memcpy(answers, (const int[]){3, -EINTR, 1}, 3 * sizeof answers[0]);
    cr_assert_eq(file_read(path, 8, NULL, &file, NULL), LOAM_OK);
    cr_expect_arr_eq(file.data, "a kernel", 8);
    cr_expect_eq(reads, 4);
    cr_expect_arr_eq(asked, wanted, sizeof wanted, "no more is read than there is room for");
    file_release(&file);
}

Test(file, that_cannot_be_read)
{
    write_file("a kernel");
    memcpy(answers, (const int[]){3, -EIO}, 2 * sizeof answers[0]);
    expect_unread(path, 8, LOAM_ERROR_SYSTEM, "cannot be read");
    cr_expect_eq(reads, 2);
}

Test(file, that_is_cut_short_meanwhile)
{
    write_file("a kernel");
    memcpy(answers, (const int[]){3, END}, 2 * sizeof answers[0]);
    expect_unread(path, 8, LOAM_ERROR_INVALID, "cut short");
}

Test(file, of_unknown_size)
{
    write_file("a kernel");
    fstat_fails = true;
    expect_refusal(path, 8, LOAM_ERROR_SYSTEM, "its size cannot be read");
    fstat_fails = false;
}

Test(file, for_which_there_is_no_memory)
{
    write_file("a kernel");
    heap_fail(1);
    expect_unread(path, 8, LOAM_ERROR_SYSTEM, "8 bytes of memory");
}

Test(file, that_is_a_link_to_itself)
{
    cr_assert_eq(symlink(path, path), 0);
    expect_refusal(path, 8, LOAM_ERROR_SYSTEM, "cannot be opened");
}

Test(file, that_is_missing)
{
    expect_refusal(path, 8, LOAM_ERROR_NOT_FOUND, "no such file");
    expect_refusal("/dev/null/file", 8, LOAM_ERROR_NOT_FOUND, "no such file");
}

/* What is wrong is told, however long the name is that it is said of. */
Test(file, with_a_long_name)
{
    char name[3000];

    memset(name, '/', sizeof name);
    strcpy(name + sizeof name - sizeof "/end/none", "/end/none");
    expect_refusal(name, 8, LOAM_ERROR_NOT_FOUND, "/end/none: no such file: check the path");
    memset(name, 'a', sizeof name - sizeof "/end/none");
    expect_refusal(name, 8, LOAM_ERROR_SYSTEM, "/end/none: cannot be opened: File name too long");
}

Test(file, that_is_no_file)
{
    expect_refusal(folder, 8, LOAM_ERROR_INVALID, "no regular file");
    expect_refusal("/dev/zero", 8, LOAM_ERROR_INVALID, "no regular file");
}

/* A FIFO without a writer must not hang the program. */
Test(file, that_is_a_fifo)
{
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refusal(path, 8, LOAM_ERROR_INVALID, "no regular file");
}

Test(file, that_is_empty)
{
    write_file("");
    expect_refusal(path, 8, LOAM_ERROR_INVALID, "empty");
}

Test(file, larger_than_the_guest)
{
    write_file("nine bytes");
    expect_refusal(path, 9, LOAM_ERROR_INVALID, "10 bytes do not fit a guest of 9 bytes");
}

Test(file, without_permission)
{
    if (geteuid() != 0) {
        cr_skip_test("root only: it becomes somebody else");
    }
    write_file("secret");
    cr_assert_eq(chmod(path, 0600), 0);
    cr_assert_eq(chmod(folder, 0755), 0);
    cr_assert_eq(seteuid(65534), 0);
    expect_refusal(path, 8, LOAM_ERROR_NOT_PERMITTED, "no permission");
    cr_assert_eq(seteuid(0), 0);
}
