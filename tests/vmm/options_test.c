// SPDX-License-Identifier: Apache-2.0
#include "vmm/options.h"

#include <criterion/criterion.h>
#include <inttypes.h>

Test(options, bytes_with_and_without_a_unit)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"1", 1},
        {"4096", 4096},
        {"1K", LOAM_KIB},
        {"256M", 256 * LOAM_MIB},
        {"6G", 6 * LOAM_GIB},
        {"3T", 3 * 1024 * LOAM_GIB},
        {"18446744073709551615", UINT64_MAX},
        {"16777215T", UINT64_C(16777215) << 40},
    };

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t bytes;

        cr_expect(options_parse_bytes(good[i].text, &bytes), "%s is refused", good[i].text);
        cr_expect_eq(bytes, good[i].bytes, "%s is read as %" PRIu64, good[i].text, bytes);
    }
}

Test(options, what_is_no_size_is_refused)
{
    static const char *const bad[] = {
        "",          " 1",  "+1",    "-1", "1 ", "1KB", "1k", "K", "0x1", "1.5G", "1e3", "1GiB", "18446744073709551616",
        "16777216T", "1MM", "eight",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t bytes = 1;

        cr_expect_not(options_parse_bytes(bad[i], &bytes), "%s is taken", bad[i]);
        cr_expect_eq(bytes, 0, "the output is defined on failure");
    }
}

static struct options read(int count, ...)
{
    char *argv[16] = {"loam run"};
    struct options options;
    va_list arguments;

    va_start(arguments, count);
    for (int i = 1; i <= count; i++) {
        argv[i] = va_arg(arguments, char *);
    }
    va_end(arguments);
    options_read(count + 1, argv, &options);
    return options;
}

Test(options, defaults)
{
    struct options options = read(0);

    cr_expect_eq(options.memory.bytes, 256 * LOAM_MIB);
    cr_expect_eq(options.memory.pages, LOAM_PAGES_AUTO);
    cr_expect_eq(options.memory.low_limit_bytes, 0);
    cr_expect_eq(options.vcpu_count, 1);
    cr_expect_null(options.kernel);
    cr_expect_eq(options.timeout_milliseconds, 60000);
    cr_expect_not(options.json);
}

Test(options, a_self_test_of_more_memory_has_more_time)
{
    cr_expect_eq(read(2, "--memory", "6G").timeout_milliseconds, 60000 + 6 * 30000);
    cr_expect_eq(read(4, "--memory", "6G", "--timeout", "1.5").timeout_milliseconds, 1500);
    cr_expect_eq(read(2, "--timeout", "0").timeout_milliseconds, 0);
    cr_expect_eq(read(2, "--timeout", "0.0001").timeout_milliseconds, 1);
    cr_expect_eq(read(2, "--kernel", "file").timeout_milliseconds, 0);
}

Test(options, every_kind_of_page)
{
    static const char *const names[] = {"auto", "1G", "2M", "thp", "4K"};

    for (unsigned i = 0; i < LOAM_PAGES_COUNT; i++) {
        cr_expect_eq(read(2, "--pages", names[i]).memory.pages, i);
    }
}

Test(options, the_last_of_two_stands)
{
    cr_expect_eq(read(4, "--pages", "2M", "--pages", "4K").memory.pages, LOAM_PAGES_4K);
}

Test(options, commit_and_place)
{
    struct options options = read(4, "--populate", "--node", "1", "--lock");

    cr_expect_eq(options.memory.commit, LOAM_COMMIT_POPULATE);
    cr_expect(options.memory.bind_node);
    cr_expect_eq(options.memory.node, 1);
    cr_expect(options.memory.lock);
}

Test(options, what_a_reset_means)
{
    cr_expect_eq(read(2, "--kernel", "file").on_reset, ON_RESET_FAIL);
    cr_expect_eq(read(4, "--kernel", "file", "--on-reset", "fail").on_reset, ON_RESET_FAIL);
    cr_expect_eq(read(4, "--kernel", "file", "--on-reset", "pass").on_reset, ON_RESET_PASS);
    cr_expect_eq(read(4, "--on-reset", "restart", "--kernel", "file").on_reset, ON_RESET_RESTART);
}

Test(options, another_meaning_of_a_reset_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    read(4, "--kernel", "file", "--on-reset", "ignore");
}

Test(options, a_reset_without_a_kernel_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    read(2, "--on-reset", "fail");
}

/* The statuses that mean something else, and those of signals, are never a guest's. */
Test(options, a_guests_code_as_exit_status)
{
    for (uint32_t code = 0; code < 1000; code++) {
        int wanted = code == 0 ? 0 : code >= 5 && code <= 123 ? (int)code : 1;

        cr_expect_eq(options_exit_status(code), wanted, "code %" PRIu32, code);
    }
    cr_expect_eq(options_exit_status(256 + 42), 1);
    cr_expect_eq(options_exit_status(UINT32_C(0x80000000)), 1);
    cr_expect_eq(options_exit_status(UINT32_MAX), 1);
}

Test(options, bad_usage_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    read(2, "--memory", "much");
}

Test(options, an_unknown_option_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    read(1, "--no-such-option");
}

Test(options, sabotage_is_no_option_of_the_program, .exit_code = EXIT_CODE_USAGE)
{
    read(2, "--sabotage", "flip");
}
