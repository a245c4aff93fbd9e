// SPDX-License-Identifier: Apache-2.0
#include "vmm/launch.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct launch launch;
static struct loam_diag diag;
static atomic_uint said_bytes, outcome_count;

static void say(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    (void)bytes;
    atomic_fetch_add(&said_bytes, (unsigned int)count);
}

static void checked(void *self, enum loam_abi_check check, const struct attest_outcome *outcome)
{
    (void)self;
    (void)check;
    atomic_fetch_add(&outcome_count, outcome != NULL ? 1u : 0u);
}

static struct launch_config config_of(const char *kernel)
{
    return (struct launch_config){
        .memory = {.bytes = 16 * LOAM_MIB, .pages = LOAM_PAGES_4K},
        .vcpu_count = 1,
        .kernel = kernel,
        .command_line = "",
        .checked = checked,
        .serial_output = say,
    };
}

static void set_up(void)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip("no /dev/kvm");
    }
    diag = (struct loam_diag){0};
}

static void tear_down(void)
{
    launch_release(&launch);
}

TestSuite(launch, .init = set_up, .fini = tear_down, .timeout = 60);

static void take(enum loam_error (*const *steps)(struct launch *launch, struct loam_diag *diag), size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(steps[i](&launch, &diag), LOAM_OK, "step %zu: %s", i, diag.text);
    }
}

static void prepare(const char *kernel)
{
    enum loam_error (*const steps[])(struct launch * launch, struct loam_diag * diag) = {launch_ask_kvm, launch_measure,
                                                                                         launch_plan, launch_read};
    const struct launch_config config = config_of(kernel);

    launch_init(&launch, &config);
    take(steps, sizeof steps / sizeof steps[0]);
}

static void live(struct machine_result *result)
{
    enum loam_error (*const steps[])(struct launch * launch,
                                     struct loam_diag * diag) = {launch_make_memory, launch_load, launch_make_machine};

    take(steps, sizeof steps / sizeof steps[0]);
    cr_assert_eq(machine_start(launch.machine, &diag), LOAM_OK, "%s", diag.text);
    machine_wait(launch.machine, result);
}

Test(launch, the_self_test_lives_as_often_as_it_is_asked_to)
{
    struct machine_result result;

    prepare(NULL);
    cr_expect_gt(launch.vcpu_limit, 0);
    cr_expect_gt(launch.slot_limit, 0);
    for (unsigned life = 1; life <= 3; life++) {
        live(&result);
        cr_expect_eq(result.reason, MACHINE_STOP_EXIT);
        cr_expect_eq(result.exit_code, LOAM_ABI_EXIT_PASS);
        cr_expect_eq(attest_passed_count(launch.attest), LOAM_ABI_CHECK_COUNT);
        cr_expect_eq(atomic_load(&outcome_count), life * LOAM_ABI_CHECK_COUNT);
        launch_end_life(&launch);
        cr_expect_null(launch.machine);
        cr_expect_null(launch.memory);
        cr_expect_null(launch.attest);
    }
}

Test(launch, a_file_that_is_not_there_fails_where_it_is_measured)
{
    const struct launch_config config = config_of("/nonexistent/kernel");

    launch_init(&launch, &config);
    cr_expect_eq(launch_measure(&launch, &diag), LOAM_ERROR_NOT_FOUND);
    cr_expect_not_null(strstr(diag.text, "/nonexistent/kernel"));
    cr_expect_eq(launch.file_bytes, 0);
}

Test(launch, a_file_that_is_no_kernel_fails_where_it_is_read)
{
    char path[] = "/tmp/loam-launch-XXXXXX";
    int fd = mkstemp(path);
    const struct launch_config config = config_of(path);

    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "no kernel", 9), 9);
    close(fd);
    launch_init(&launch, &config);
    cr_expect_eq(launch_measure(&launch, &diag), LOAM_OK);
    cr_expect_gt(launch.file_bytes, 0);
    cr_expect_eq(launch_read(&launch, &diag), LOAM_ERROR_INVALID);
    unlink(path);
}

static bool is_cancelled(void *self)
{
    return *(bool *)self;
}

Test(launch, whoever_cancels_is_heard_and_nothing_is_left)
{
    bool cancels = false;
    struct launch_config config = config_of(NULL);

    config.cancel = (struct loam_cancel){is_cancelled, &cancels};
    launch_init(&launch, &config);
    cr_assert_eq(launch_plan(&launch, &diag), LOAM_OK, "%s", diag.text);
    cancels = true;
    cr_expect_eq(launch_make_memory(&launch, &diag), LOAM_ERROR_CANCELLED);
    cr_expect_null(launch.memory);
}

Test(launch, every_reason_has_words)
{
    for (unsigned reason = 0; reason < MACHINE_STOP_COUNT; reason++) {
        cr_expect_gt(strlen(launch_stop_text((enum machine_stop_reason)reason)), 10);
    }
}
