// SPDX-License-Identifier: Apache-2.0
/*
 * A guest for tests of a domain: it counts, listens to its power button, and does what its serial line says:
 *
 *     c   say the count               o   turn itself off (ACPI S5)
 *     e   exit port, code 0           x   exit port, code 3
 *     r   reset (i8042)               p   panic (port 0x505)
 *     t   triple fault                b   what comes after it, up to a line's end, is said back
 *     h   halt for good
 *     d   say what ACPI tells of
 *
 * It begins by saying its command line, and whether its memory is as it should be in a new life. Its balloon, if it has
 * one, is as large as it is wanted.
 */
#include "guest/guest.h"
#include "tests/emulator/balloon_driver.h"

#include <stdbool.h>

#define SERIAL_DATA        0x3f8
#define SERIAL_LINE_STATUS 0x3fd
#define SERIAL_HAS_BYTE    0x01

#define PIC_MASTER    0x20
#define PIC_SLAVE     0xa0
#define PIC_SLAVE_IRQ 2
#define PIC_VECTORS   0x20
#define PIC_END       0x20

#define BUTTON_IRQ   9
#define PM1_STATUS   0x600
#define PM1_ENABLE   0x602
#define PM1_CONTROL  0x604
#define PM1_BUTTON   0x01 /* of the register's second byte: bit 8 */
#define PM1_SLEEP_S5 0x20 /* of the second byte: SLP_EN with type 0 */

#define KEYBOARD_PORT  0x64
#define KEYBOARD_RESET 0xfe
#define PANIC_PORT     0x505
#define PANICKED       0x01

#define BALLOON_FRAME 0x800u /* 8 MiB: beyond the guest itself */
#define FOLLOW_COUNTS 256    /* how often the balloon is looked at */

#define FIRMWARE_START 0xe0000
#define FIRMWARE_END   0xe1000

#define SCRAP_GPA  0x1000000 /* 16 MiB: beyond all that a loader puts anywhere */
#define SCRAP_WORD UINT64_C(0x600d600d600d600d)

#define VECTOR_COUNT   256
#define SELECTOR_CODE  0x08
#define INTERRUPT_GATE 0x8e00

struct gate {
    uint16_t offset_low, selector, attributes, offset_middle;
    uint32_t offset_high, reserved;
};

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

static struct gate gates[VECTOR_COUNT];
static volatile bool is_pressed;
static volatile uint64_t count;

/* --- The power button --------------------------------------------------------------------------------------------- */

/* Called with what a C function may change saved. */
void on_button(void);

void on_button(void)
{
    if ((platform_in8(PM1_STATUS + 1) & PM1_BUTTON) != 0) {
        platform_out8(PM1_STATUS + 1, PM1_BUTTON);
        is_pressed = true;
    }
    platform_out8(PIC_SLAVE, PIC_END);
    platform_out8(PIC_MASTER, PIC_END);
}

extern const char button_stub[];

__asm__(".text\n"
        "button_stub:\n"
        "    pushq %rax; pushq %rcx; pushq %rdx; pushq %rsi; pushq %rdi\n"
        "    pushq %r8; pushq %r9; pushq %r10; pushq %r11\n"
        "    call on_button\n"
        "    popq %r11; popq %r10; popq %r9; popq %r8\n"
        "    popq %rdi; popq %rsi; popq %rdx; popq %rcx; popq %rax\n"
        "    iretq\n");

/* Exceptions stay those of the runtime. */
static void set_gates(void)
{
    struct table_pointer pointer = {sizeof gates - 1, (uintptr_t)gates}, runtime;
    uint64_t handler = (uintptr_t)button_stub;

    __asm__ volatile("sidt %0" : "=m"(runtime));
    memcpy(gates, (const void *)(uintptr_t)runtime.base, runtime.limit + 1u);
    gates[PIC_VECTORS + BUTTON_IRQ] = (struct gate){.offset_low = (uint16_t)handler,
                                                    .selector = SELECTOR_CODE,
                                                    .attributes = INTERRUPT_GATE,
                                                    .offset_middle = (uint16_t)(handler >> 16)};
    __asm__ volatile("lidt %0" : : "m"(pointer), "m"(gates));
}

static void set_controller(uint16_t port, uint8_t vector, uint8_t cascade, uint8_t open_irq)
{
    platform_out8(port, 0x11); /* ICW1: edge, cascaded, ICW4 follows */
    platform_out8(port + 1, vector);
    platform_out8(port + 1, cascade);
    platform_out8(port + 1, 0x01); /* ICW4: 8086 */
    platform_out8(port + 1, (uint8_t) ~(1u << open_irq));
}

static void listen_to_button(void)
{
    set_gates();
    set_controller(PIC_MASTER, PIC_VECTORS, 1u << PIC_SLAVE_IRQ, PIC_SLAVE_IRQ);
    set_controller(PIC_SLAVE, PIC_VECTORS + 8, PIC_SLAVE_IRQ, BUTTON_IRQ - 8);
    platform_out8(0x4d1, 1u << (BUTTON_IRQ - 8)); /* ELCR: a level */
    platform_out8(PM1_ENABLE + 1, PM1_BUTTON);
    __asm__ volatile("sti");
}

/* --- What it says --------------------------------------------------------------------------------------------------- */

static void say(const char *text)
{
    console_text(text);
    console_text("\r\n");
}

static void greet(uint64_t start_info)
{
    const struct pvh_start_info *info = (const struct pvh_start_info *)(uintptr_t)start_info;

    console_text("domain guest: ");
    say(info->command_line != 0 ? (const char *)(uintptr_t)info->command_line : "");
    say(platform_load64(SCRAP_GPA) == 0 ? "fresh memory" : "stale memory");
    platform_store64(SCRAP_GPA, SCRAP_WORD);
}

static uint8_t read_byte(void)
{
    while ((platform_in8(SERIAL_LINE_STATUS) & SERIAL_HAS_BYTE) == 0) {
        platform_pause();
    }
    return platform_in8(SERIAL_DATA);
}

static void say_back(void)
{
    char text[2] = {0};

    for (text[0] = (char)read_byte(); text[0] != '\n'; text[0] = (char)read_byte()) {
        console_text(text);
    }
    say("");
}

static bool is_text(uint64_t gpa, const char *text)
{
    for (; *text != '\0'; text++, gpa++) {
        if (platform_load8(gpa) != (uint8_t)*text) {
            return false;
        }
    }
    return true;
}

/* As many devices as there are of their names, in all that firmware may have left. */
static void say_devices(void)
{
    uint64_t root = 0, devices = 0;

    for (uint64_t gpa = FIRMWARE_START; gpa < FIRMWARE_END; gpa++) {
        root += gpa % 16 == 0 && is_text(gpa, "RSD PTR ");
        devices += is_text(gpa, "LNRO0005");
    }
    say(root == 1 ? "ACPI" : "no ACPI");
    console_text("devices ");
    console_hex(devices);
    say("");
}

/* --- What it does ----------------------------------------------------------------------------------------------------- */

static void turn_off(void)
{
    platform_out8(PM1_CONTROL + 1, PM1_SLEEP_S5);
}

static void fault(void)
{
    struct table_pointer none = {0, 0};

    __asm__ volatile("lidt %0\n\tud2" : : "m"(none));
}

static void halt(void)
{
    for (;;) {
        __asm__ volatile("cli\n\thlt");
    }
}

static void obey(uint8_t command)
{
    switch (command) {
    case 'b':
        say_back();
        break;
    case 'd':
        say_devices();
        break;
    case 'c':
        console_text("count ");
        console_hex(count);
        say("");
        break;
    case 'e':
        platform_exit(LOAM_ABI_EXIT_PASS);
    case 'h':
        halt();
        break;
    case 'x':
        platform_exit(3);
    case 'o':
        turn_off();
        break;
    case 'p':
        platform_out8(PANIC_PORT, PANICKED);
        break;
    case 'r':
        platform_out8(KEYBOARD_PORT, KEYBOARD_RESET);
        break;
    case 't':
        fault();
        break;
    default:
        break;
    }
}

_Noreturn void guest_main(uint64_t start_info)
{
    bool has_balloon;

    exceptions_install("domain guest");
    if (!pvh_valid(start_info)) {
        platform_exit(LOAM_ABI_EXIT_FAIL);
    }
    greet(start_info);
    listen_to_button();
    has_balloon = balloon_start(BALLOON_FRAME);
    say("ready");
    for (;; count++) {
        if ((platform_in8(SERIAL_LINE_STATUS) & SERIAL_HAS_BYTE) != 0) {
            obey(platform_in8(SERIAL_DATA));
        }
        if (has_balloon && count % FOLLOW_COUNTS == 0 && balloon_follow()) {
            say("balloon");
        }
        if (is_pressed) {
            say("button");
            turn_off();
        }
    }
}
