// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/fdsets.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct fdsets fdsets;
static struct loam_diag diag;

static int make_fd(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    cr_assert_geq(fd, 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void set_up(void)
{
    const struct line line = {.fdset_count = 0};

    cr_assert_eq(fdsets_init(&fdsets, &line, NULL), LOAM_OK);
}

static void tear_down(void)
{
    fdsets_close(&fdsets);
}

TestSuite(fdsets, .init = set_up, .fini = tear_down);

Test(fdsets, those_of_the_command_line_are_there_and_closed_at_the_end)
{
    int fd = fcntl(make_fd(), F_DUPFD, 3);
    struct line line = {.fdset_count = 1, .fdsets = {{.set = 7, .fd = fd, .opaque = "serial0-source"}}};
    json_t *sets, *expected;

    cr_assert_eq(fdsets_init(&fdsets, &line, NULL), LOAM_OK);
    cr_expect_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    sets = fdsets_json(&fdsets);
    expected = json_pack("[{sis[{siss}]}]", "fdset-id", 7, "fds", "fd", fd, "opaque", "serial0-source");
    cr_expect(json_equal(sets, expected));
    json_decref(sets);
    json_decref(expected);
    fdsets_close(&fdsets);
    cr_expect_not(is_open(fd));
}

Test(fdsets, what_was_not_inherited_is_refused_and_stays_open)
{
    int own = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct line line = {.fdset_count = 1, .fdsets = {{.set = 0, .fd = own}}};
    char expected[32];

    snprintf(expected, sizeof expected, "fd=%d", own);
    cr_expect_eq(fdsets_init(&fdsets, &line, &diag), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, expected), "%s", diag.text);
    fdsets_close(&fdsets);
    cr_expect(is_open(own));
    close(own);
    cr_expect_eq(fdsets_init(&fdsets, &line, &diag), LOAM_ERROR_INVALID);
}

Test(fdsets, a_new_set_has_a_number_that_is_free)
{
    int64_t first = -1, second = -1, named = 1, third = -1;

    cr_assert_eq(fdsets_add(&fdsets, make_fd(), &named, "", &diag), LOAM_OK);
    cr_assert_eq(fdsets_add(&fdsets, make_fd(), &first, "", &diag), LOAM_OK);
    cr_assert_eq(fdsets_add(&fdsets, make_fd(), &second, "", &diag), LOAM_OK);
    cr_expect_eq(first, 0);
    cr_expect_eq(second, 2);
    cr_assert_eq(fdsets_remove(&fdsets, 0, -1, &diag), LOAM_OK);
    cr_assert_eq(fdsets_add(&fdsets, make_fd(), &third, "", &diag), LOAM_OK);
    cr_expect_eq(third, 0);
    first = -2;
    cr_expect_eq(fdsets_add(&fdsets, 0, &first, "", &diag), LOAM_ERROR_INVALID);
}

Test(fdsets, one_of_a_set_is_removed_or_all)
{
    int64_t set = 3;
    int fds[] = {make_fd(), make_fd(), make_fd()};

    for (int i = 0; i < 3; i++) {
        cr_assert_eq(fdsets_add(&fdsets, fds[i], &set, "", &diag), LOAM_OK);
    }
    cr_expect_eq(fdsets_remove(&fdsets, 3, fds[1], &diag), LOAM_OK);
    cr_expect(is_open(fds[0]) && !is_open(fds[1]) && is_open(fds[2]));
    cr_expect_eq(fdsets_remove(&fdsets, 3, fds[1], &diag), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(fdsets_remove(&fdsets, 3, -1, &diag), LOAM_OK);
    cr_expect_not(is_open(fds[0]) || is_open(fds[2]));
    cr_expect_eq(fdsets_remove(&fdsets, 3, -1, &diag), LOAM_ERROR_NOT_FOUND);
}

Test(fdsets, a_name_is_given_anew_and_taken_once)
{
    int first = make_fd(), second = make_fd();
    json_t *sets;

    cr_assert_eq(fdsets_name(&fdsets, first, "migrate", &diag), LOAM_OK);
    cr_assert_eq(fdsets_name(&fdsets, second, "migrate", &diag), LOAM_OK);
    cr_expect_not(is_open(first));
    sets = fdsets_json(&fdsets);
    cr_expect_eq(json_array_size(sets), 0, "what has a name is in no set");
    json_decref(sets);
    cr_expect_eq(fdsets_take(&fdsets, "migrate"), second);
    cr_expect_eq(fdsets_take(&fdsets, "migrate"), -1);
    close(second);
}

Test(fdsets, there_is_an_end_to_what_is_kept)
{
    char text[FDSETS_TEXT_BYTES_MAX + 2];
    int64_t set = 0;
    int fd = make_fd();

    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    cr_expect_eq(fdsets_name(&fdsets, fd, text, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(fdsets_add(&fdsets, fd, &set, text, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(fdsets.count, 0);
    for (uint32_t i = 0; i < FDSETS_MAX; i++) {
        cr_assert_eq(fdsets_add(&fdsets, make_fd(), &set, text + 1, &diag), LOAM_OK);
    }
    cr_expect_eq(fdsets_add(&fdsets, fd, &set, "", &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(fdsets_name(&fdsets, fd, "one more", &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect(is_open(fd), "what is refused stays its owner's");
    close(fd);
}
