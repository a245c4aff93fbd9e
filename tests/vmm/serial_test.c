// SPDX-License-Identifier: Apache-2.0
#include "vmm/serial.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

/* Registers, as a driver's author would name them. */
enum { RBR = 0, THR = 0, DLL = 0, IER = 1, DLM = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };
enum { IIR_NONE = 0x01, IIR_RLS = 0x06, IIR_RDA = 0x04, IIR_TIMEOUT = 0x0c, IIR_THRE = 0x02, IIR_MODEM = 0x00 };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_READY = 0x60 };
enum { MCR_OUT2 = 0x08, MCR_LOOP = 0x10, LCR_DLAB = 0x80 };

static struct serial serial;
static bool level;
static uint32_t edge_count;
static uint8_t output[1024];
static size_t output_count;

static void set_line(void *controller, unsigned int number, bool new_level)
{
    cr_assert_eq(controller, &level);
    cr_assert_eq(number, 4);
    level = new_level;
    edge_count++;
}

static void take_output(void *self, const uint8_t *bytes, size_t count)
{
    cr_assert_eq(self, output);
    cr_assert_leq(output_count + count, sizeof output);
    memcpy(output + output_count, bytes, count);
    output_count += count;
}

static uint8_t in(uint64_t offset)
{
    struct bus_access access = {.offset = offset, .bytes = 1, .value = UINT64_MAX};

    serial_access(&serial, &access);
    cr_assert_leq(access.value, 0xff);
    return (uint8_t)access.value;
}

static void out(uint64_t offset, uint8_t value)
{
    struct bus_access access = {.offset = offset, .bytes = 1, .is_write = true, .value = value};

    serial_access(&serial, &access);
}

static size_t type(const char *keys)
{
    return serial_receive(&serial, (const uint8_t *)keys, strlen(keys));
}

static void set_up(void)
{
    level = false;
    edge_count = 0;
    output_count = 0;
    serial_init(&serial, (struct irq_line){.set = set_line, .controller = &level, .number = 4}, take_output, output);
}

static void tear_down(void)
{
    serial_destroy(&serial);
}

TestSuite(serial, .init = set_up, .fini = tear_down);

Test(serial, transmits_at_once_and_is_always_ready)
{
    static const char text[] = "loam\n";

    for (size_t i = 0; i < sizeof text; i++) {
        cr_assert_eq(in(LSR), LSR_READY);
        out(THR, (uint8_t)text[i]);
        cr_assert_eq(output_count, i + 1);
    }
    cr_assert_arr_eq(output, text, sizeof text);
    cr_assert_eq(in(LSR), LSR_READY);
    cr_assert_not(level);
}

/* The probes of Linux's drivers/tty/serial/8250/8250_port.c (autoconfig and what it calls), in its order. */
Test(serial, linux_detects_a_16550a)
{
    uint8_t status;

    out(IER, 0x00);
    cr_assert_eq(in(IER)&0x0f, 0x00);
    out(IER, 0x0f);
    cr_assert_eq(in(IER)&0x0f, 0x0f);
    out(IER, 0x00);

    out(MCR, MCR_LOOP | 0x0a);
    cr_assert_eq(in(MSR)&0xf0, 0x90, "looped back, RTS shows as CTS and OUT2 as DCD");
    out(MCR, 0x00);

    out(LCR, 0xbf); /* EFR of a 16650 would be at 2 */
    out(2, 0x00);
    out(LCR, 0x00);
    out(FCR, 0x01);
    cr_assert_eq(in(IIR) >> 6, 3, "a 16550A");

    out(LCR, LCR_DLAB);
    cr_assert_neq(in(2), 0, "no 16650");
    out(LCR, 0xbf);
    cr_assert_neq(in(2), 0, "no 16650V2");
    out(LCR, 0x00);

    status = in(MCR);
    out(LCR, 0xe0);
    cr_assert_eq((in(2) ^ status) & MCR_LOOP, 0);
    out(LCR, 0x00);
    out(MCR, status ^ MCR_LOOP);
    out(LCR, 0xe0);
    status = in(2);
    out(LCR, 0x00);
    cr_assert_eq((status ^ in(MCR)) & MCR_LOOP, MCR_LOOP, "no National Super I/O, whose EXCR1 would follow MCR");
    out(MCR, 0x00);

    out(FCR, 0x01);
    cr_assert_eq(in(IIR) >> 5, 6);
    out(LCR, LCR_DLAB);
    out(FCR, 0x21);
    cr_assert_eq(in(IIR) >> 5, 6, "no 16750 with 64 bytes");
    out(LCR, 0x00);

    out(IER, 0x40);
    cr_assert_eq(in(IER), 0x00, "no XScale");

    out(SCR, 0xa5);
    cr_assert_eq(in(SCR), 0xa5);
}

/* As the same driver sizes the FIFO and looks for bugs of the transmitter's interrupt. */
Test(serial, linux_finds_sixteen_bytes_and_no_bug)
{
    uint32_t count = 0;

    out(FCR, 0x07);
    out(MCR, MCR_LOOP);
    out(LCR, LCR_DLAB);
    out(DLL, 1);
    out(DLM, 0);
    out(LCR, 0x03);
    for (uint32_t i = 0; i < 256; i++) {
        out(THR, (uint8_t)i);
    }
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR | LSR_OE);
    while ((in(LSR)&LSR_DR) != 0) {
        cr_assert_eq(in(RBR), count);
        count++;
    }
    cr_assert_eq(count, SERIAL_FIFO_BYTES);
    cr_assert_eq(output_count, 0, "looped back, nothing goes out");
    out(MCR, MCR_OUT2);

    out(IER, 0x02);
    cr_assert_eq(in(IIR)&0x0f, IIR_THRE);
    out(IER, 0x00);
    out(IER, 0x02);
    cr_assert_eq(in(IIR)&0x0f, IIR_THRE, "again, when it is enabled again");
}

Test(serial, loopback_turns_modem_outputs_into_inputs)
{
    cr_assert_eq(in(MSR)&0xf0, 0xb0, "a terminal that is there and ready");
    for (uint8_t outputs = 0; outputs < 16; outputs++) {
        const uint8_t dtr = outputs & 1, rts = outputs >> 1 & 1, out1 = outputs >> 2 & 1, out2 = outputs >> 3;

        out(MCR, MCR_LOOP | outputs);
        cr_assert_eq(in(MCR), MCR_LOOP | outputs);
        cr_assert_eq(in(MSR)&0xf0, rts << 4 | dtr << 5 | out1 << 6 | out2 << 7, "outputs 0x%x", outputs);
    }
    out(MCR, 0xe0);
    cr_assert_eq(in(MCR), 0, "bits that are none");
    cr_assert_eq(in(MSR)&0xf0, 0xb0);
}

Test(serial, modem_changes_are_told_until_they_are_read)
{
    out(MCR, MCR_LOOP | 0x0f);
    (void)in(MSR);
    out(MCR, MCR_LOOP | 0x0f);
    cr_assert_eq(in(MSR)&0x0f, 0x00, "nothing changed");
    out(MCR, MCR_LOOP);
    cr_assert_eq(in(MSR), 0x0f, "all four went off");
    cr_assert_eq(in(MSR), 0x00, "read once");
    out(MCR, MCR_LOOP | 0x0f);
    cr_assert_eq(in(MSR), 0xfb, "the ring indicator's leading edge does not count");
    out(IER, 0x08);
    out(MCR, MCR_LOOP | 0x0e);
    cr_assert_eq(in(IIR), IIR_MODEM);
    cr_assert_eq(in(MSR), 0xd2);
    cr_assert_eq(in(IIR), IIR_NONE);
}

/* Whoever looks twice wants a byte; a driver that sets the chip up looks once. */
static void look(void)
{
    (void)in(LSR);
}

Test(serial, receives_in_order_and_takes_what_it_has_room_for)
{
    static const char digits[] = "0123456789abcdefghij";
    size_t taken = 0;

    out(FCR, 0x01);
    while (taken < SERIAL_LINE_BYTES) {
        const size_t once = type(digits);

        cr_assert_eq(once, SERIAL_LINE_BYTES - taken < 20 ? SERIAL_LINE_BYTES - taken : 20);
        taken += once;
    }
    cr_assert_eq(type("x"), 0, "full");
    look();
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR, "what was not taken is no overrun");
    for (size_t i = 0; i < 10; i++) {
        cr_assert_eq(in(RBR), digits[i]);
    }
    cr_assert_eq(type("ABCDEFGHIJKL"), 10);
    for (size_t i = 10; i < SERIAL_LINE_BYTES; i++) {
        cr_assert_eq(in(RBR), digits[i % 20], "byte %zu", i);
    }
    for (size_t i = 0; i < 10; i++) {
        cr_assert_eq(in(RBR), "ABCDEFGHIJ"[i]);
    }
    cr_assert_eq(in(LSR), LSR_READY);
    cr_assert_eq(in(RBR), 0, "an empty receiver");
}

/* --- A guest that does not listen yet -------------------------------------------------------------------------- */

/* What Linux's serial8250_do_startup does to a 16550A, up to and without the interrupt that it enables at the end. */
static void start_up_as_linux(void)
{
    out(FCR, 0x01);
    out(FCR, 0x07);
    out(FCR, 0x00);
    cr_assert_eq(in(LSR), LSR_READY);
    cr_assert_eq(in(RBR), 0);
    (void)in(IIR);
    (void)in(MSR);
    out(LCR, 0x03);
    out(MCR, MCR_OUT2);
    out(IER, 0x02);
    cr_assert_eq(in(LSR), LSR_READY);
    (void)in(IIR);
    out(IER, 0x00);
    cr_assert_eq(in(LSR), LSR_READY);
    cr_assert_eq(in(RBR), 0);
    (void)in(IIR);
    (void)in(MSR);
}

/* The console's way to print before that: a byte, and LSR until the transmitter is empty. */
static void print_as_early_linux(const char *text)
{
    for (; *text != '\0'; text++) {
        out(THR, (uint8_t)*text);
        (void)in(LSR);
    }
}

Test(serial, linux_gets_every_byte_that_was_sent_before_it_listens)
{
    cr_assert_eq(type("ABCDEF"), 6);
    print_as_early_linux("Linux version 6.1\n");
    for (unsigned opened = 0; opened < 2 * SERIAL_FIFO_BYTES; opened++) {
        start_up_as_linux();
        cr_assert_not(level);
        out(IER, 0x05);
        cr_assert(level, "start-up %u: what was sent is still there", opened);
        out(IER, 0x00);
    }
    out(FCR, 0x81);
    out(IER, 0x05);
    for (unsigned i = 0; i < 6; i++) {
        cr_assert_neq(in(IIR), 0xc0 | IIR_NONE);
        cr_assert_eq(in(LSR), LSR_READY | LSR_DR);
        cr_assert_eq(in(RBR), "ABCDEF"[i]);
    }
    cr_assert_eq(in(LSR), LSR_READY);
}

/* FIFOs on, a prompt, and then LSR until there is something. */
Test(serial, a_guest_that_polls_gets_every_byte_that_was_sent_before)
{
    cr_assert_eq(type("ABC"), 3);
    out(FCR, 0x07);
    out(THR, '>');
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(in(LSR), LSR_READY | LSR_DR);
        cr_assert_eq(in(RBR), "ABC"[i]);
        out(THR, (uint8_t) "ABC"[i]);
    }
    cr_assert_eq(in(LSR), LSR_READY);
}

Test(serial, a_guest_that_polls_straight_after_setting_up)
{
    cr_assert_eq(type("A"), 1);
    out(FCR, 0x07);
    cr_assert_eq(in(LSR), LSR_READY, "once may be to clear it");
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR, "twice is not");
    cr_assert_eq(in(RBR), 'A');
}

Test(serial, a_guest_that_reads_without_asking)
{
    cr_assert_eq(type("AB"), 2);
    out(FCR, 0x07);
    cr_assert_eq(in(RBR), 0, "once may be to clear it");
    cr_assert_eq(in(RBR), 'A', "twice is not");
    cr_assert_eq(in(RBR), 'B');
}

/* Clearing loses what was looped back, and nothing of the line, though it was seen. */
Test(serial, a_guest_that_sets_up_after_it_has_seen_something)
{
    cr_assert_eq(type("AB"), 2);
    look();
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR);
    out(FCR, 0x07);
    look();
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR);
    cr_assert_eq(in(RBR), 'A');
    out(FCR, 0x00);
    look();
    cr_assert_eq(in(RBR), 0);
    cr_assert_eq(in(RBR), 'B');
}

/* A guest that sets RTS before each look, as one with flow control does, is taken at its word in the end. */
Test(serial, a_guest_that_always_looks_straight_after_a_write)
{
    unsigned looks = 1;

    cr_assert_eq(type("A"), 1);
    for (out(MCR, 0x02); (in(LSR)&LSR_DR) == 0 && looks < 100; looks++) {
        out(MCR, 0x02);
    }
    cr_assert_lt(looks, 100);
    cr_assert_eq(in(RBR), 'A');
}

/* Only the receiver's interrupt says that a guest listens. */
Test(serial, a_guest_that_enables_another_interrupt_before_each_look)
{
    unsigned looks = 1;

    cr_assert_eq(type("A"), 1);
    for (out(IER, 0x02); (in(LSR)&LSR_DR) == 0 && looks < 100; looks++) {
        out(IER, 0x00);
        out(IER, 0x02);
    }
    cr_assert_lt(looks, 100);
}

Test(serial, without_fifo_it_holds_one_byte)
{
    cr_assert_eq(type("ab"), 2);
    cr_assert_eq(in(IIR), IIR_NONE, "no FIFO bits");
    out(IER, 0x01);
    cr_assert_eq(in(IIR), IIR_RDA);
    cr_assert_eq(in(RBR), 'a');
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR, "the other arrives once there is room");
    cr_assert_eq(in(RBR), 'b');
    cr_assert_eq(in(LSR), LSR_READY);

    out(MCR, MCR_LOOP);
    out(THR, 'x');
    out(THR, 'y');
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR | LSR_OE);
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR, "reading it clears the error");
    cr_assert_eq(in(RBR), 'y', "the later byte takes the place of the one before");
}

Test(serial, with_fifo_an_overrun_loses_the_later_byte)
{
    out(FCR, 0x01);
    out(IER, 0x04);
    out(MCR, MCR_LOOP);
    for (uint8_t i = 0; i < SERIAL_FIFO_BYTES; i++) {
        out(THR, i);
    }
    cr_assert_eq(in(IIR)&0x0f, IIR_NONE);
    out(THR, 0xee);
    cr_assert_eq(in(IIR)&0x0f, IIR_RLS);
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR | LSR_OE);
    cr_assert_eq(in(IIR)&0x0f, IIR_NONE);
    for (uint8_t i = 0; i < SERIAL_FIFO_BYTES; i++) {
        cr_assert_eq(in(RBR), i);
    }
    cr_assert_eq(in(LSR), LSR_READY);
}

Test(serial, looped_back_it_hears_nothing_from_outside)
{
    out(MCR, MCR_LOOP);
    cr_assert_eq(type("a"), 1);
    look();
    cr_assert_eq(in(LSR), LSR_READY);
    cr_assert_eq(in(RBR), 0);
    out(THR, 'x');
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR);
    out(MCR, 0);
    cr_assert_eq(in(RBR), 'x', "what was looped back came first");
    cr_assert_eq(in(RBR), 'a');
}

Test(serial, the_trigger_decides_between_data_and_timeout)
{
    static const uint8_t triggers[] = {1, 4, 8, 14};

    out(MCR, MCR_OUT2);
    out(IER, 0x01);
    for (uint32_t i = 0; i < 4; i++) {
        out(FCR, (uint8_t)(0x03 | i << 6));
        cr_assert_eq(in(IIR), 0xc0 | IIR_NONE);
        cr_assert_not(level);
        for (uint32_t count = 1; count <= SERIAL_FIFO_BYTES; count++) {
            cr_assert_eq(type("k"), 1);
            cr_assert_eq(in(IIR), 0xc0 | (count >= triggers[i] ? IIR_RDA : IIR_TIMEOUT), "trigger %u, %u bytes",
                         triggers[i], count);
            cr_assert(level, "neither way a byte waits unseen");
        }
        for (uint32_t count = SERIAL_FIFO_BYTES; count > 0; count--) {
            cr_assert_eq(in(IIR), 0xc0 | (count >= triggers[i] ? IIR_RDA : IIR_TIMEOUT));
            (void)in(RBR);
        }
        cr_assert_not(level);
    }
}

Test(serial, the_transmitters_interrupt_is_seen_once)
{
    out(MCR, MCR_OUT2);
    out(IER, 0x02);
    cr_assert(level);
    cr_assert_eq(in(IIR), IIR_THRE);
    cr_assert_not(level, "reading IIR clears it");
    cr_assert_eq(in(IIR), IIR_NONE);
    out(IER, 0x02);
    cr_assert_not(level, "enabled already");
    out(THR, 'x');
    cr_assert(level, "empty again");
    out(IER, 0x00);
    cr_assert_not(level);
    cr_assert_eq(in(IIR), IIR_NONE);
}

Test(serial, identifies_causes_by_priority)
{
    out(FCR, 0x41); /* trigger 4 */
    out(MCR, MCR_LOOP);
    (void)in(MSR);
    out(MCR, MCR_LOOP | 0x02);
    for (uint32_t i = 0; i <= SERIAL_FIFO_BYTES; i++) {
        out(THR, 'x');
    }
    out(IER, 0x0f);
    cr_assert_eq(in(IIR)&0x0f, IIR_RLS);
    (void)in(LSR);
    for (uint32_t count = SERIAL_FIFO_BYTES; count >= 4; count--) {
        cr_assert_eq(in(IIR)&0x0f, IIR_RDA);
        (void)in(RBR);
    }
    for (uint32_t count = 3; count > 0; count--) {
        cr_assert_eq(in(IIR)&0x0f, IIR_TIMEOUT);
        (void)in(RBR);
    }
    cr_assert_eq(in(IIR)&0x0f, IIR_THRE);
    cr_assert_eq(in(IIR)&0x0f, IIR_MODEM);
    (void)in(MSR);
    cr_assert_eq(in(IIR)&0x0f, IIR_NONE);
}

/* All four are pending; only the one that is enabled is told. */
Test(serial, each_cause_has_an_enable_of_its_own)
{
    static const struct {
        uint8_t enable, cause;
    } causes[] = {{0x04, IIR_RLS}, {0x01, IIR_RDA}, {0x08, IIR_MODEM}, {0x02, IIR_THRE}};

    out(MCR, MCR_LOOP);
    (void)in(MSR);
    out(MCR, MCR_LOOP | 0x02);
    out(THR, 'x');
    out(THR, 'y');
    for (size_t i = 0; i < sizeof causes / sizeof causes[0]; i++) {
        out(IER, causes[i].enable);
        cr_assert_eq(in(IIR), causes[i].cause, "enable 0x%x", causes[i].enable);
    }
}

Test(serial, reading_an_empty_receiver_takes_nothing)
{
    out(IER, 0x01);
    cr_assert_eq(in(RBR), 0);
    cr_assert_eq(in(RBR), 0);
    cr_assert_eq(type("a"), 1);
    cr_assert_eq(in(LSR), LSR_READY | LSR_DR);
    cr_assert_eq(in(RBR), 'a');
    cr_assert_eq(in(LSR), LSR_READY);
}

Test(serial, what_is_not_enabled_does_not_interrupt)
{
    out(FCR, 0x01);
    out(MCR, MCR_OUT2);
    cr_assert_eq(type("abc"), 3);
    out(THR, 'x');
    cr_assert_eq(in(IIR), 0xc0 | IIR_NONE);
    cr_assert_eq(edge_count, 0);
    out(IER, 0x01);
    cr_assert_eq(edge_count, 1);
}

Test(serial, out2_opens_the_way_for_interrupts)
{
    out(IER, 0x01);
    cr_assert_eq(type("a"), 1);
    cr_assert_not(level);
    cr_assert_eq(in(IIR), IIR_RDA, "pending, though nobody is told");
    out(MCR, MCR_OUT2);
    cr_assert(level);
    out(MCR, MCR_OUT2 | MCR_LOOP);
    cr_assert_not(level, "looped back, OUT2 is held inactive");
    out(MCR, MCR_OUT2);
    cr_assert(level);
    (void)in(RBR);
    cr_assert_not(level);
    cr_assert_eq(edge_count, 4, "the line is set when it changes, and not else");
}

Test(serial, divisor_latches_stand_before_data_and_interrupt_enable)
{
    out(IER, 0x05);
    out(LCR, LCR_DLAB | 0x03);
    out(DLL, 0x0c);
    out(DLM, 0x01);
    cr_assert_eq(in(DLL), 0x0c);
    cr_assert_eq(in(DLM), 0x01);
    cr_assert_eq(in(LCR), LCR_DLAB | 0x03);
    out(LCR, 0x03);
    cr_assert_eq(in(IER), 0x05);
    cr_assert_eq(in(RBR), 0);
    cr_assert_eq(output_count, 0);
}

Test(serial, fifo_control_clears_the_receiver)
{
    static const struct {
        uint8_t before, value;
        bool clears;
    } writes[] = {{0x01, 0x01, false}, {0x01, 0x05, false}, {0x01, 0x03, true},
                  {0x01, 0xc2, true},  {0x00, 0x01, true},  {0x00, 0x02, false}};

    out(MCR, MCR_LOOP);
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        out(FCR, 0x00);
        out(FCR, 0x01);
        out(FCR, writes[i].before);
        out(THR, 'a');
        cr_assert_eq(in(LSR)&LSR_DR, LSR_DR);
        out(FCR, writes[i].value);
        cr_assert_eq((in(LSR)&LSR_DR) == 0, writes[i].clears, "FCR 0x%x after 0x%x", writes[i].value, writes[i].before);
    }
    out(FCR, 0xc2);
    cr_assert_eq(in(IIR), IIR_NONE);
    out(FCR, 0x01);
    out(IER, 0x01);
    out(THR, 'a');
    cr_assert_eq(in(IIR), 0xc0 | IIR_RDA, "the trigger of 14 was not programmed, since bit 0 was clear");
}

Test(serial, status_registers_are_not_written)
{
    out(LSR, 0xff);
    out(MSR, 0xff);
    cr_assert_eq(in(LSR), LSR_READY);
    cr_assert_eq(in(MSR), 0xb0);
}

Test(serial, a_wide_access_is_one_for_each_port)
{
    struct bus_access access = {.offset = DLL, .bytes = 2, .is_write = true, .value = 0x0c01};

    out(LCR, LCR_DLAB);
    serial_access(&serial, &access);
    cr_assert_eq(in(DLL), 0x01);
    cr_assert_eq(in(DLM), 0x0c);
    out(LCR, 0x00);
    out(SCR, 0x77);
    access = (struct bus_access){.offset = LCR, .bytes = 4, .value = UINT64_MAX};
    serial_access(&serial, &access);
    cr_assert_eq(access.value, 0xb0600000);
    access = (struct bus_access){.offset = 0, .bytes = 8, .value = UINT64_MAX};
    serial_access(&serial, &access);
    cr_assert_eq(access.value, UINT64_C(0x77b0600000010000));
    access = (struct bus_access){.offset = 7, .bytes = 8, .value = UINT64_MAX};
    serial_access(&serial, &access);
    cr_assert_eq(access.value, UINT64_C(0xffffffffffffff77), "ports that are none");
}

static void echo(void *self, const uint8_t *bytes, size_t count)
{
    cr_assert_eq(serial_receive(self, bytes, count), count);
}

Test(serial, output_may_come_back_as_input_at_once)
{
    serial_destroy(&serial);
    serial_init(&serial, (struct irq_line){.set = NULL}, echo, &serial);
    out(FCR, 0x01);
    out(MCR, MCR_OUT2);
    out(IER, 0x01);
    out(THR, 'q');
    cr_assert_eq(in(RBR), 'q');
    serial_destroy(&serial);
    serial_init(&serial, (struct irq_line){.set = NULL}, NULL, NULL);
    out(THR, 'q');
}

/* Whatever is written, the line follows the gate and IIR, and the receiver keeps within its bounds. */
Test(serial, random_accesses_keep_the_line_true)
{
    struct random random = {20240602};

    for (uint32_t step = 0; step < 500000; step++) {
        struct bus_access access = {.offset = random_below(&random, SERIAL_BYTES),
                                    .bytes = 1u << random_below(&random, 4),
                                    .is_write = random_one_in(&random, 2),
                                    .value = random_u64(&random)};
        uint8_t bytes[32] = {0};
        bool gate;

        serial_access(&serial, &access);
        if (random_one_in(&random, 4)) {
            cr_assert_leq(serial_receive(&serial, bytes, random_below(&random, sizeof bytes)), sizeof bytes);
        }
        output_count = 0;
        cr_assert_leq(serial.looped_count, serial.fifo_enabled ? SERIAL_FIFO_BYTES : 1u);
        cr_assert_leq(serial.line_count, SERIAL_LINE_BYTES);
        gate = (in(MCR) & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
        cr_assert(gate || !level, "step %u: the gate is closed", step);
        if (gate) {
            const bool was = level;

            cr_assert_eq((in(IIR)&0x0f) != IIR_NONE, was, "step %u", step);
        }
    }
}

enum { STREAM_BYTES = 20000 };

static void *keep_typing(void *nothing)
{
    size_t sent = 0;

    (void)nothing;
    while (sent < STREAM_BYTES) {
        const uint8_t byte = (uint8_t)(sent * 7);

        sent += serial_receive(&serial, &byte, 1);
    }
    return NULL;
}

Test(serial, two_threads_lose_no_byte)
{
    pthread_t typist;

    out(FCR, 0x01);
    out(IER, 0x01);
    out(MCR, MCR_OUT2);
    cr_assert_eq(pthread_create(&typist, NULL, keep_typing, NULL), 0);
    for (size_t got = 0; got < STREAM_BYTES;) {
        if ((in(LSR)&LSR_DR) != 0) {
            cr_assert_eq(in(RBR), (uint8_t)(got * 7), "byte %zu", got);
            got++;
        }
    }
    cr_assert_eq(pthread_join(typist, NULL), 0);
    cr_assert_not(level);
}
