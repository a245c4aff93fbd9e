// SPDX-License-Identifier: Apache-2.0
#include "guest/console.h"

#include "guest/abi.h"
#include "guest/platform.h"

#include <stdbool.h>

/* 16550: line status, and its bit that says that the transmitter takes a byte. */
#define LINE_STATUS       (LOAM_ABI_PORT_SERIAL + 5)
#define TRANSMITTER_EMPTY 0x20u

/* A byte takes 87 us at 115,200 baud, a port read at least 0.5 us: far more than any UART needs. */
#define WAIT_READS_MAX 65536u

static bool gave_up;

static bool wait_for_transmitter(void)
{
    for (uint32_t i = 0; i < WAIT_READS_MAX; i++) {
        if (platform_in8(LINE_STATUS) & TRANSMITTER_EMPTY) {
            return true;
        }
    }
    return false;
}

static void put(char c)
{
    if (!gave_up && wait_for_transmitter()) {
        platform_out8(LOAM_ABI_PORT_SERIAL, (uint8_t)c);
    } else {
        gave_up = true;
    }
}

void console_text(const char *text)
{
    for (; *text != '\0'; text++) {
        put(*text);
    }
}

void console_hex(uint64_t value)
{
    uint32_t shift = 60;

    console_text("0x");
    while (shift > 0 && value >> shift == 0) {
        shift -= 4;
    }
    for (;; shift -= 4) {
        put("0123456789abcdef"[value >> shift & 15]);
        if (shift == 0) {
            return;
        }
    }
}
