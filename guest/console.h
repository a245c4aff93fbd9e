// SPDX-License-Identifier: Apache-2.0
/*
 * Text on COM1, for what the table cannot carry: that there is none, why a range was refused, an exception.
 * A line that nobody drains is given up after a bounded wait, and so is all that follows.
 */
#ifndef LOAM_GUEST_CONSOLE_H
#define LOAM_GUEST_CONSOLE_H

#include <stdint.h>

void console_text(const char *text);

/* 0x and the digits that are needed. */
void console_hex(uint64_t value);

#endif
