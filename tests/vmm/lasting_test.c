// SPDX-License-Identifier: Apache-2.0
#include "vmm/lasting.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MEMBERS 3u

static struct lasting *lasting;
static struct loam_diag diag;

struct visit {
    pid_t thread;
    unsigned count;
};

static void note_thread(void *self)
{
    struct visit *visit = self;

    visit->thread = gettid();
    visit->count++;
}

static void set_up(void)
{
    diag = (struct loam_diag){0};
    cr_assert_eq(lasting_create(MEMBERS, "CPU ", "/KVM", &lasting, &diag), LOAM_OK, "%s", diag.text);
}

static void tear_down(void)
{
    lasting_destroy(lasting);
}

TestSuite(lasting, .init = set_up, .fini = tear_down, .timeout = 30);

Test(lasting, each_member_is_the_same_thread_each_time)
{
    struct visit visits[MEMBERS] = {0};

    for (unsigned round = 1; round <= 100; round++) {
        for (uint32_t i = 0; i < MEMBERS; i++) {
            lasting_start(lasting, i, note_thread, &visits[i]);
        }
        for (uint32_t i = 0; i < MEMBERS; i++) {
            lasting_join(lasting, i);
            cr_assert_eq(visits[i].thread, lasting_thread(lasting, i));
            cr_assert_eq(visits[i].count, round);
        }
    }
    cr_expect_neq(lasting_thread(lasting, 0), lasting_thread(lasting, 1));
    cr_expect_neq(lasting_thread(lasting, 0), getpid());
}

Test(lasting, threads_bear_their_names)
{
    for (uint32_t i = 0; i < lasting_count(lasting); i++) {
        char path[64], name[32] = "", expected[32];
        FILE *file;

        snprintf(path, sizeof path, "/proc/self/task/%d/comm", lasting_thread(lasting, i));
        snprintf(expected, sizeof expected, "CPU %u/KVM\n", i);
        file = fopen(path, "re");
        cr_assert_not_null(file);
        cr_expect_not_null(fgets(name, sizeof name, file));
        cr_expect_str_eq(name, expected);
        fclose(file);
    }
    cr_expect_eq(lasting_count(lasting), MEMBERS);
}

struct gate {
    int ends[2];
    atomic_bool is_passed;
};

static void pass(void *self)
{
    struct gate *gate = self;

    char byte;

    atomic_store(&gate->is_passed, read(gate->ends[0], &byte, 1) == 1);
}

Test(lasting, a_member_that_is_at_work_holds_up_no_other)
{
    struct gate gate = {0};
    struct visit visit = {0};

    cr_assert_eq(pipe2(gate.ends, O_CLOEXEC), 0);
    lasting_start(lasting, 0, pass, &gate);
    lasting_start(lasting, 1, note_thread, &visit);
    lasting_join(lasting, 1);
    cr_expect_eq(visit.count, 1);
    cr_expect_not(atomic_load(&gate.is_passed));
    cr_assert_eq(write(gate.ends[1], "", 1), 1);
    lasting_join(lasting, 0);
    cr_expect(atomic_load(&gate.is_passed), "joining did not wait for the work's end");
    close(gate.ends[0]);
    close(gate.ends[1]);
}

Test(lasting, who_does_nothing_is_joined_at_once)
{
    lasting_join(lasting, 2);
}

Test(lasting, none_is_allowed)
{
    struct lasting *empty;

    cr_assert_eq(lasting_create(0, "", "", &empty, &diag), LOAM_OK);
    cr_expect_eq(lasting_count(empty), 0);
    lasting_destroy(empty);
    lasting_destroy(NULL);
}
