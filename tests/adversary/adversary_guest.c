// SPDX-License-Identifier: Apache-2.0
/*
 * The adversary itself: seed and steps on its command line, "SEED STEPS" in decimal. Both processors take their steps at once;
 * REPORTS times on the way they meet, and the first says how far they are. In the end it says what it has reached, looks
 * at what no device was told of, and turns the machine off.
 */
#include "tests/adversary/adversary.h"

#define REPORTS 16u

#define SERIAL        0x3f8u
#define CANARY_WORD   UINT64_C(0xca9a12deadbeef01)
#define CANARY_STRIDE 0x800u

#define SLEEP_PORT 0x605u /* the second byte of PM1_CNT */
#define SLEEP_S5   0x20u

static volatile uint64_t arrived[ADVERSARY_COUNT];
static volatile bool is_second_there;
static uint64_t seed, steps;
extern const char image_start[];

#define CODE_WORDS 512u

/* --- Text: the serial port is put in order before, and is left alone meanwhile ------------------------------------------- */

static void say(const char *name, uint64_t value)
{
    console_text(name);
    console_hex(value);
}

static void restore_serial(void)
{
    platform_out8(SERIAL + 3, 0x03); /* 8 bits; no divisor */
    platform_out8(SERIAL + 1, 0x00); /* no interrupts */
    platform_out8(SERIAL + 2, 0x01); /* FIFOs */
    platform_out8(SERIAL + 4, 0x00); /* no loop */
    console_text("\r\n");
}

_Noreturn static void give_up(const char *why, uint64_t at, uint64_t more)
{
    restore_serial();
    say(why, at);
    say(", ", more);
    console_text("\r\n");
    platform_exit(LOAM_ABI_EXIT_FAIL);
}

void cpu_fault(uint64_t rip, uint64_t address, uint64_t error_code)
{
    say("error code ", error_code);
    give_up("fault at RIP, CR2 ", rip, address);
}

/* --- What no device was told of -------------------------------------------------------------------------------------------- */

static uint64_t code_sum(void)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < CODE_WORDS; i++) {
        sum = (sum << 1 | sum >> 63) ^ platform_load64((uintptr_t)image_start + 8 * i);
    }
    return sum;
}

static void set_canaries(void)
{
    for (uint64_t gpa = CANARY_START; gpa < TABLES_START; gpa += CANARY_STRIDE) {
        platform_store64(gpa, CANARY_WORD ^ gpa);
    }
}

static void check_canaries(void)
{
    for (uint64_t gpa = CANARY_START; gpa < TABLES_START; gpa += CANARY_STRIDE) {
        if (platform_load64(gpa) != (CANARY_WORD ^ gpa)) {
            give_up("a canary is dead: ", gpa, platform_load64(gpa));
        }
    }
}

/* --- Steps ------------------------------------------------------------------------------------------------------------------ */

static void meet(uint32_t number)
{
    uint64_t here = arrived[number] + 1;

    arrived[number] = here;
    while (arrived[1 - number] < here) {
        platform_pause();
    }
}

static void run(uint32_t number)
{
    struct adversary self = {.random = {seed * ADVERSARY_COUNT + number}, .number = number};

    for (uint32_t report = 1; report <= REPORTS; report++) {
        for (uint64_t i = 0; i < steps / ADVERSARY_COUNT / REPORTS; i++) {
            adversary_step(&self);
        }
        meet(number);
        if (number == 0) {
            restore_serial();
            say("adversary: report ", report);
            console_text("\r\n");
        }
        meet(number);
    }
}

void second_main(void)
{
    cpu_load_gates();
    is_second_there = true;
    run(1);
    platform_halt();
}

/* --- Begin and end ------------------------------------------------------------------------------------------------------------ */

static uint64_t number_at(const char **text)
{
    uint64_t value = 0;

    for (; **text >= '0' && **text <= '9'; ++*text) {
        value = 10 * value + (uint64_t)(**text - '0');
    }
    *text += **text == ' ';
    return value;
}

static void read_command_line(uint64_t start_info)
{
    const struct pvh_start_info *info = (const struct pvh_start_info *)(uintptr_t)start_info;
    const char *text = (const char *)(uintptr_t)info->command_line;

    seed = number_at(&text);
    steps = number_at(&text);
    if (steps == 0) {
        give_up("no steps: seed ", seed, steps);
    }
}

static void say_reached(void)
{
    say("adversary: reached interrupts ", cpu_interrupts);
    say(" refusals ", cpu_refusals);
    say(" net ", virtio_completed(DEVICE_NET));
    say(" disk ", virtio_completed(DEVICE_DISK));
    say(" rng ", virtio_completed(DEVICE_RNG));
    say(" balloon ", virtio_completed(DEVICE_BALLOON));
    console_text(" end\r\n");
}

void guest_main(uint64_t start_info)
{
    uint64_t sum = code_sum();

    exceptions_install("adversary");
    if (!pvh_valid(start_info)) {
        platform_exit(LOAM_ABI_EXIT_FAIL);
    }
    read_command_line(start_info);
    paging_init();
    (void)paging_map(UINT64_C(0xc0000000), UINT64_C(0x40000000));
    set_canaries();
    say("adversary: devices ", virtio_find());
    console_text("\r\n");
    cpu_load_gates();
    cpu_start_second();
    while (!is_second_there) {
        platform_pause();
    }
    run(0);
    check_canaries();
    if (code_sum() != sum) {
        give_up("the code has changed: ", code_sum(), sum);
    }
    say_reached();
    platform_out8(SLEEP_PORT, SLEEP_S5);
    platform_halt();
}
