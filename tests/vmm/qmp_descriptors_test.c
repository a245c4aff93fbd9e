// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp_descriptors.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int make(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    cr_assert_geq(fd, 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

Test(qmp_descriptors, they_are_taken_in_the_order_in_which_they_came)
{
    struct qmp_descriptors held = {0};
    int first = make(), second = make();

    cr_expect_eq(qmp_descriptors_take(&held), -1);
    qmp_descriptors_hold(&held, first, 10);
    qmp_descriptors_hold(&held, second, 10);
    cr_expect_eq(qmp_descriptors_take(&held), first);
    cr_expect_eq(qmp_descriptors_take(&held), second);
    cr_expect_eq(qmp_descriptors_take(&held), -1);
    cr_expect(is_open(first) && is_open(second), "they are the caller's");
}

Test(qmp_descriptors, those_whose_end_has_passed_are_closed)
{
    struct qmp_descriptors held = {0};
    int fds[3];

    for (unsigned i = 0; i < 3; i++) {
        fds[i] = make();
        qmp_descriptors_hold(&held, fds[i], 10 + i);
    }
    qmp_descriptors_close(&held, 9);
    cr_expect(is_open(fds[0]));
    qmp_descriptors_close(&held, 11);
    cr_expect(!is_open(fds[0]) && !is_open(fds[1]) && is_open(fds[2]));
    cr_expect_eq(qmp_descriptors_take(&held), fds[2]);
}

Test(qmp_descriptors, what_finds_no_room_is_closed)
{
    struct qmp_descriptors held = {0};
    int last = -1;

    for (unsigned i = 0; i < QMP_DESCRIPTOR_MAX; i++) {
        last = make();
        qmp_descriptors_hold(&held, last, 0);
    }
    cr_expect(is_open(last));
    last = make();
    qmp_descriptors_hold(&held, last, 0);
    cr_expect_not(is_open(last));
    cr_expect_eq(held.count, QMP_DESCRIPTOR_MAX);
    qmp_descriptors_close(&held, UINT64_MAX);
    cr_expect_eq(held.count, 0);
}
