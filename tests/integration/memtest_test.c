// SPDX-License-Identifier: Apache-2.0
/*
 * A stranger's guest: memtest86+ 6.10 as Debian ships it, on the serial line.
 *
 * It writes its screen every two seconds at most, and only where one of its tests goes on: a short test may come and go
 * between two screens. So what is asked of a screen is what stays.
 */
#include "tests/integration/launch.h"
#include "tests/support/screen.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>

#define MEMTEST "/boot/memtest86+x64.bin"

/* Where every instruction is emulated, the first test takes 25 seconds on an idle machine. */
#define TIMEOUT_MILLISECONDS 240000

/* The last page of RAM, where the sabotage strikes: 12 MiB from 4 GiB on. */
#define STUCK_ADDRESS "100bff800"
#define STUCK_VALUE   "0000010100bff800"

static struct process process;
static struct screen screen;
static size_t shown;  /* bytes of its output that the screen has been given */
static size_t marked; /* at some moment; marked <= shown */

static void set_up(void)
{
    need_file(MEMTEST);
    need_kvm();
    screen_init(&screen);
    shown = 0;
}

static void tear_down(void)
{
    process_end(&process);
}

TestSuite(memtest, .init = set_up, .fini = tear_down);

/* More of the output, on the screen. */
static bool update_screen(void)
{
    bool is_more = process_read(&process);

    screen_write(&screen, process.out + shown, process.out_bytes - shown);
    shown = process.out_bytes;
    return is_more;
}

static void print_screen(void)
{
    for (unsigned int row = 0; row < SCREEN_ROWS; row++) {
        fprintf(stderr, "|%s|\n", screen.rows[row]);
    }
    fprintf(stderr, "%s\n", process.err);
}

/* Read on until is_there. */
static void await(bool (*is_there)(void), const char *what)
{
    while (!is_there()) {
        if (!update_screen()) {
            print_screen();
            cr_assert_fail("%s: never seen", what);
        }
    }
}

/* The number that follows label on the screen; -1: there is none. */
static int number_after(const char *label)
{
    const char *row = screen_find(&screen, label);
    int number = -1;

    if (row != NULL) {
        sscanf(strstr(row, label) + strlen(label), "%d", &number);
    }
    return number;
}

static bool is_past_first_test(void)
{
    return number_after("Test #") > 0;
}

/* Since marked, the row of figures has come whole once more: each screen ends its status with it. */
static bool is_redrawn(void)
{
    static const char label[] = "Errors:";
    const char *found = strstr(process.out + marked, label);

    return found != NULL && strchr(found, '\033') != NULL;
}

static bool has_error(void)
{
    return number_after("Errors:") > 0;
}

static bool has_error_row(void)
{
    return screen_find(&screen, STUCK_VALUE) != NULL;
}

static bool has_settings(void)
{
    return screen_find(&screen, "Settings:") != NULL && screen_find(&screen, "<F10> Exit menu") != NULL;
}

static bool has_range(void)
{
    return screen_find(&screen, "Current range: 0KB - 4.01GB") != NULL;
}

static bool is_testing(void)
{
    return screen_find(&screen, "Memtest86+ v") != NULL && number_after("Test #") >= 0 && number_after("Errors:") >= 0;
}

static char *pages_at_hand(void)
{
    return free_pages("2M") >= 12 ? "2M" : "4K";
}

static void start_on_pipes(char *program, char *command_line, char *sabotage)
{
    char *argv[] = {program,
                    "run",
                    "--memory",
                    "24M",
                    "--low-limit",
                    "12M",
                    "--pages",
                    pages_at_hand(),
                    "--kernel",
                    MEMTEST,
                    "--cmdline",
                    command_line,
                    sabotage == NULL ? NULL : "--sabotage",
                    sabotage,
                    NULL};

    cr_assert(process_start(&process, argv, TIMEOUT_MILLISECONDS));
}

static void stop_by_signal(void)
{
    kill(process.pid, SIGTERM);
    cr_assert_eq(process_wait(&process), 128 + SIGTERM, "exit %d: %s", process.status, process.err);
}

/* 24 MiB less what memtest86+ leaves to the PC below 1 MiB: more than either side of the hole has. */
Test(memtest, passes_its_first_test_over_both_sides_of_the_hole)
{
    start_on_pipes(loam_path(), "console=ttyS0,115200 nosmp nopause nobench", NULL);
    await(is_past_first_test, "a test after the first");
    marked = shown;
    await(is_redrawn, "the figures after the first test");
    cr_expect_eq(number_after("Errors:"), 0);
    cr_expect_not_null(screen_find(&screen, " of 23.6MB]"));
    cr_expect_not_null(screen_find(&screen, "Memory  :   24MB"));
    stop_by_signal();
}

/* The error lies above 4 GiB, so that memory there is what it tests. */
Test(memtest, counts_an_error_where_a_bit_is_stuck)
{
    start_on_pipes(sabotage_path(), "console=ttyS0,115200 nosmp nopause nobench nobigstatus", "stuck");
    await(has_error, "an error counted");
    await(has_error_row, "the stuck bit in what was found");
    cr_expect_not_null(screen_find(&screen, STUCK_ADDRESS));
    stop_by_signal();
}

static void check_terminal(const struct termios *before)
{
    struct termios now;

    /* The terminal's master shows the state of the other side. */
    cr_assert_eq(tcgetattr(process.input, &now), 0);
    cr_expect_eq(now.c_lflag, before->c_lflag, "0x%x wanted, 0x%x found", before->c_lflag, now.c_lflag);
    cr_expect_eq(now.c_iflag, before->c_iflag, "0x%x wanted, 0x%x found", before->c_iflag, now.c_iflag);
    cr_expect_eq(now.c_oflag, before->c_oflag, "0x%x wanted, 0x%x found", before->c_oflag, now.c_oflag);
}

/* Without nopause it waits for a key before it starts: F1 leads to its settings, and there F2 to the range it will
 * test. */
Test(memtest, shows_its_screen_live_and_takes_keys_on_a_terminal)
{
    char *argv[] = {loam_path(),   "run",   "--memory",  "24M",
                    "--low-limit", "12M",   "--pages",   pages_at_hand(),
                    "--kernel",    MEMTEST, "--cmdline", "console=ttyS0,115200 nosmp nobench",
                    NULL};
    struct termios before, raw;

    cr_assert(process_start_on_terminal(&process, argv, TIMEOUT_MILLISECONDS));
    cr_assert_eq(tcgetattr(process.input, &before), 0);
    cr_assert(before.c_lflag & ECHO);
    cr_assert(process_expect(&process, "\033[2J"), "its screen: %s", process.out);
    cr_assert_eq(tcgetattr(process.input, &raw), 0);
    cr_expect_eq(raw.c_lflag & (ECHO | ICANON | ISIG), 0, "raw while the guest has the terminal");
    cr_assert(process_type(&process, "1"));
    await(has_settings, "its settings");
    cr_assert(process_type(&process, "2"));
    await(has_range, "the range it will test");
    cr_assert(process_type(&process, "00\r"));
    await(is_testing, "its tests");
    cr_assert(process_type(&process, "\001x"));
    cr_expect_eq(process_wait(&process), 0, "exit %d: %s", process.status, process.out);
    check_terminal(&before);
}
