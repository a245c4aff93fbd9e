// SPDX-License-Identifier: Apache-2.0
#include "vmm/panic_line.h"

#include <criterion/criterion.h>
#include <string.h>

static struct panic_line line;

static void say(const char *text)
{
    panic_line_add(&line, (const uint8_t *)text, strlen(text));
}

Test(panic_line, keeps_the_first_line_from_the_phrase_on)
{
    say("[    1.0] Run /init as init process\n[    1.1] Kernel panic - not syncing: VFS: no root\r\n");
    cr_expect_str_eq(panic_line_text(&line), "Kernel panic - not syncing: VFS: no root");
    say("CPU: 0\n---[ end Kernel panic - not syncing: another ]---\n");
    cr_expect_str_eq(panic_line_text(&line), "Kernel panic - not syncing: VFS: no root");
}

Test(panic_line, comes_in_any_pieces)
{
    const char *text = "KKernel Kernel pKernel panic - not syncing: so\n";

    for (const char *at = text; *at != '\0'; at++) {
        panic_line_add(&line, (const uint8_t *)at, 1);
    }
    cr_expect_str_eq(panic_line_text(&line), "Kernel panic - not syncing: so");
}

Test(panic_line, is_told_before_its_end_has_come)
{
    say("Kernel panic - not syncin");
    cr_expect_str_empty(panic_line_text(&line));
    say("g");
    cr_expect_str_eq(panic_line_text(&line), "Kernel panic - not syncing");
    say(": why");
    cr_expect_str_eq(panic_line_text(&line), "Kernel panic - not syncing: why");
}

Test(panic_line, is_nothing_else)
{
    say("kernel panic - not syncing: no\nKernel panic\n - not syncing\nKernel  panic - not syncing\n");
    cr_expect_str_empty(panic_line_text(&line));
}

Test(panic_line, is_cut_where_it_is_too_long)
{
    char text[2 * PANIC_LINE_BYTES];

    memset(text, 'x', sizeof text);
    say("Kernel panic - not syncing: ");
    panic_line_add(&line, (const uint8_t *)text, sizeof text);
    cr_expect_eq(strlen(panic_line_text(&line)), PANIC_LINE_BYTES);
    cr_expect_eq(panic_line_text(&line)[PANIC_LINE_BYTES - 1], 'x');
    say("more");
    cr_expect_eq(strlen(panic_line_text(&line)), PANIC_LINE_BYTES);
}
