// SPDX-License-Identifier: Apache-2.0
/*
 * What the data sheet says of an 8254's counters (231164): its figures, which give count and output clock by clock; and a
 * model that is stepped at every clock, as the chip is.
 */
#include "vmm/pit_counter.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>

#define SEED UINT64_C(8254)

#define LOW_ONLY 0x10
#define BOTH     0x30
#define MODE(n)  ((n) << 1)
#define DECIMAL  1

static struct pit_counter counter;
static int64_t now;

static void set_up(void)
{
    pit_counter_reset(&counter, true);
    now = 1000;
}

TestSuite(pit_counter, .init = set_up, .timeout = 60);

static void program(uint8_t word, uint32_t count)
{
    pit_counter_control(&counter, word);
    pit_counter_write(&counter, now, (uint8_t)count);
    if ((word & BOTH) == BOTH) {
        pit_counter_write(&counter, now, (uint8_t)(count >> 8));
    }
}

static uint32_t read_both(void)
{
    uint32_t low;

    pit_counter_latch(&counter, now);
    low = pit_counter_read(&counter, now);
    return low | (uint32_t)pit_counter_read(&counter, now) << 8;
}

/* Counts of the low byte and outputs (a letter above the space is high) of the clocks that come, as in the data sheet's figures. */
static void expect_figure(const char *outputs, const char *counts)
{
    for (size_t i = 0; outputs[i] != '\0'; i++) {
        uint8_t count, wanted = (uint8_t)(counts[i] >= 'A' ? 0xf0 + counts[i] - 'A' + 10 : counts[i] - '0');

        now++;
        pit_counter_latch(&counter, now);
        count = pit_counter_read(&counter, now);
        cr_expect_eq(pit_counter_out(&counter, now), outputs[i] == '-', "output after %zu of %s", i + 1, outputs);
        cr_expect(counts[i] == '?' || count == wanted, "count after %zu of %s: 0x%x", i + 1, counts, count);
    }
}

/* --- The figures ------------------------------------------------------------------------------------------------- */

Test(pit_counter, counts_to_its_end_in_mode_0)
{
    pit_counter_control(&counter, LOW_ONLY | MODE(0));
    cr_expect_not(pit_counter_out(&counter, now));
    pit_counter_write(&counter, now, 4);
    cr_expect_not(pit_counter_out(&counter, now));
    expect_figure("____---", "43210FE");
    pit_counter_write(&counter, now, 3);
    expect_figure("___--", "3210F");
}

Test(pit_counter, stands_still_in_mode_0_while_its_gate_is_closed)
{
    program(LOW_ONLY | MODE(0), 3);
    expect_figure("__", "32");
    pit_counter_set_gate(&counter, now, false);
    expect_figure("___", "222");
    pit_counter_set_gate(&counter, now, true);
    expect_figure("_--", "10F");
}

/* Loaded all the same, so that there is no clock for it afterwards. */
Test(pit_counter, is_loaded_in_mode_0_while_its_gate_is_closed)
{
    pit_counter_set_gate(&counter, now, false);
    program(LOW_ONLY | MODE(0), 2);
    expect_figure("__", "22");
    pit_counter_set_gate(&counter, now, true);
    expect_figure("_--", "10F");
}

Test(pit_counter, stops_in_mode_0_between_two_bytes)
{
    program(BOTH | MODE(0), 2);
    now += 3;
    cr_expect(pit_counter_out(&counter, now));
    pit_counter_write(&counter, now, 1);
    cr_expect_not(pit_counter_out(&counter, now));
    now += 100;
    cr_expect_not(pit_counter_out(&counter, now));
    pit_counter_write(&counter, now, 1); /* 257 */
    now += 257;
    cr_expect_not(pit_counter_out(&counter, now));
    now++;
    cr_expect(pit_counter_out(&counter, now));
}

Test(pit_counter, is_low_once_from_its_trigger_on_in_mode_1)
{
    pit_counter_set_gate(&counter, now, false);
    program(LOW_ONLY | MODE(1), 3);
    expect_figure("---", "???");
    pit_counter_set_gate(&counter, now, true);
    cr_expect(pit_counter_out(&counter, now));
    expect_figure("___--", "3210F");
    pit_counter_set_gate(&counter, now, false);
    pit_counter_set_gate(&counter, now, true);
    expect_figure("__", "32");
    pit_counter_set_gate(&counter, now, false);
    pit_counter_set_gate(&counter, now, true); /* again, before its end */
    expect_figure("___-", "3210");
    pit_counter_write(&counter, now, 2);
    expect_figure("--", "FE");
    pit_counter_set_gate(&counter, now, false);
    pit_counter_set_gate(&counter, now, true);
    expect_figure("__--", "210F");
}

Test(pit_counter, is_low_for_one_clock_in_mode_2)
{
    program(LOW_ONLY | MODE(2), 3);
    cr_expect(pit_counter_out(&counter, now));
    expect_figure("--_--_--", "32132132");
    pit_counter_set_gate(&counter, now, false);
    expect_figure("--", "22");
    pit_counter_set_gate(&counter, now, true);
    expect_figure("--_--_", "321321");
}

/* The gate closes while the output is low: high at once. */
Test(pit_counter, is_high_in_mode_2_while_its_gate_is_closed)
{
    program(LOW_ONLY | MODE(2), 3);
    expect_figure("--_", "321");
    pit_counter_set_gate(&counter, now, false);
    cr_expect(pit_counter_out(&counter, now));
}

Test(pit_counter, takes_a_new_count_at_the_end_of_a_cycle_in_mode_2)
{
    program(LOW_ONLY | MODE(2), 4);
    expect_figure("--", "43");
    pit_counter_write(&counter, now, 5);
    expect_figure("-_----_", "2154321");
    pit_counter_write(&counter, now, 3);
    pit_counter_write(&counter, now, 2);
    expect_figure("-_-_", "2121");
}

Test(pit_counter, gives_a_square_wave_in_mode_3)
{
    program(LOW_ONLY | MODE(3), 4);
    expect_figure("--__--__", "42424242");
    program(LOW_ONLY | MODE(3), 5);
    expect_figure("---__---__", "4204242042");
    pit_counter_set_gate(&counter, now, false);
    expect_figure("--", "22");
    pit_counter_set_gate(&counter, now, true);
    expect_figure("---__", "42042");
}

Test(pit_counter, takes_a_new_count_at_the_end_of_a_half_in_mode_3)
{
    program(LOW_ONLY | MODE(3), 8);
    expect_figure("--", "86");
    pit_counter_write(&counter, now, 4);
    expect_figure("--__--__", "42424242");
    pit_counter_write(&counter, now, 6); /* in the low half, which ends the cycle */
    expect_figure("---___", "642642");
    expect_figure("---_", "6426");
    pit_counter_write(&counter, now, 4);
    expect_figure("__--__", "424242");
}

Test(pit_counter, is_low_for_one_clock_at_the_end_in_mode_4)
{
    program(LOW_ONLY | MODE(4), 3);
    cr_expect(pit_counter_out(&counter, now));
    expect_figure("---_--", "3210FE");
    pit_counter_write(&counter, now, 3);
    expect_figure("--", "32");
    pit_counter_set_gate(&counter, now, false);
    expect_figure("--", "22");
    pit_counter_set_gate(&counter, now, true);
    expect_figure("-_--", "10FE");
    pit_counter_write(&counter, now, 3);
    expect_figure("--", "32");
    pit_counter_write(&counter, now, 2); /* again, before its end */
    expect_figure("--_-", "210F");
}

Test(pit_counter, strobes_from_its_trigger_on_in_mode_5)
{
    pit_counter_set_gate(&counter, now, false);
    program(LOW_ONLY | MODE(5), 3);
    expect_figure("-----", "?????");
    pit_counter_set_gate(&counter, now, true);
    expect_figure("---_--", "3210FE");
    pit_counter_set_gate(&counter, now, false);
    expect_figure("--", "DC");
    pit_counter_set_gate(&counter, now, true);
    expect_figure("---_-", "3210F");
}

Test(pit_counter, is_high_in_every_mode_but_0_before_it_has_a_count)
{
    for (uint8_t mode = 0; mode < 8; mode++) {
        int64_t when;

        pit_counter_control(&counter, (uint8_t)(BOTH | MODE(mode)));
        cr_expect_eq(pit_counter_out(&counter, now), mode != 0, "mode %d", mode);
        cr_expect_eq(counter.mode, mode < 6 ? mode : mode - 4, "mode %d", mode);
        cr_expect_not(pit_counter_next_rise(&counter, now, &when));
    }
}

/* --- Reads and writes ------------------------------------------------------------------------------------------- */

Test(pit_counter, takes_0_for_the_most_there_is)
{
    int64_t when;

    program(BOTH | MODE(2), 0);
    now++;
    cr_expect_eq(read_both(), 0, "65,536");
    now++;
    cr_expect_eq(read_both(), 65535);
    cr_expect(pit_counter_next_rise(&counter, now, &when));
    cr_expect_eq(when, 1001 + 65536);
    program(BOTH | MODE(2) | DECIMAL, 0);
    now++;
    cr_expect_eq(read_both(), 0, "10,000");
    now++;
    cr_expect_eq(read_both(), 0x9999);
    cr_expect(pit_counter_next_rise(&counter, now, &when));
    cr_expect_eq(when, 1003 + 10000);
}

Test(pit_counter, counts_in_decimal)
{
    program(BOTH | MODE(0) | DECIMAL, 0x1001);
    now += 3;
    cr_expect_eq(read_both(), 0x0999);
    now += 1000;
    cr_expect_eq(read_both(), 0x9999);
    cr_expect(pit_counter_out(&counter, now));
}

Test(pit_counter, reads_and_writes_the_bytes_that_it_was_told)
{
    program(0x20 | MODE(0), 0x12); /* high alone */
    now += 2;
    cr_expect_eq(pit_counter_read(&counter, now), 0x11);
    cr_expect_eq(pit_counter_read(&counter, now), 0x11);
    now += 0x1200;
    cr_expect(pit_counter_out(&counter, now));
    program(LOW_ONLY | MODE(0), 0x12);
    now++;
    cr_expect_eq(pit_counter_read(&counter, now), 0x12);
    cr_expect_eq(pit_counter_read(&counter, now), 0x12);
    program(BOTH | MODE(0), 0x1234);
    now++;
    cr_expect_eq(pit_counter_read(&counter, now), 0x34);
    cr_expect_eq(pit_counter_read(&counter, now), 0x12);
    cr_expect_eq(pit_counter_read(&counter, now), 0x34);
    now += 0x100;
    cr_expect_eq(pit_counter_read(&counter, now), 0x11, "it is not latched, and goes on");
    pit_counter_read(&counter, now);
    pit_counter_control(&counter, BOTH | MODE(0));
    pit_counter_write(&counter, now, 0x78);
    pit_counter_control(&counter, BOTH | MODE(0)); /* begins anew, with the low byte */
    pit_counter_write(&counter, now, 0x34);
    pit_counter_write(&counter, now, 0x12);
    now++;
    cr_expect_eq(pit_counter_read(&counter, now), 0x34);
}

Test(pit_counter, keeps_what_was_latched_until_it_is_read)
{
    program(BOTH | MODE(2), 0x1234);
    now++;
    pit_counter_latch(&counter, now);
    now += 0x105;
    pit_counter_latch(&counter, now); /* once is enough */
    cr_expect_eq(pit_counter_read(&counter, now), 0x34);
    cr_expect_eq(pit_counter_read(&counter, now), 0x12);
    cr_expect_eq(pit_counter_read(&counter, now), 0x2f, "and then what it is");
    cr_expect_eq(pit_counter_read(&counter, now), 0x11);
    pit_counter_latch(&counter, now);
    pit_counter_control(&counter, LOW_ONLY | MODE(2));
    pit_counter_write(&counter, now, 9);
    now++;
    cr_expect_eq(pit_counter_read(&counter, now), 9, "a control word lets it go");
}

Test(pit_counter, gives_its_status_before_its_count)
{
    program(BOTH | MODE(2), 0x1234);
    pit_counter_latch_status(&counter, now);
    now++;
    pit_counter_latch_status(&counter, now); /* no effect: it is kept already */
    pit_counter_latch(&counter, now);
    cr_expect_eq(pit_counter_read(&counter, now), PIT_STATUS_OUT | PIT_STATUS_NULL | 0x34);
    cr_expect_eq(pit_counter_read(&counter, now), 0x34);
    cr_expect_eq(pit_counter_read(&counter, now), 0x12);
    pit_counter_latch_status(&counter, now);
    cr_expect_eq(pit_counter_read(&counter, now), PIT_STATUS_OUT | 0x34, "it counts what was written");
}

static bool is_null(void)
{
    pit_counter_latch_status(&counter, now);
    return (pit_counter_read(&counter, now) & PIT_STATUS_NULL) != 0;
}

Test(pit_counter, says_whether_it_counts_what_was_written)
{
    pit_counter_control(&counter, LOW_ONLY | MODE(2));
    cr_expect(is_null());
    pit_counter_write(&counter, now, 4);
    cr_expect(is_null());
    now++;
    cr_expect_not(is_null());
    pit_counter_write(&counter, now, 5);
    now += 3;
    cr_expect(is_null());
    now++;
    cr_expect_not(is_null());
    pit_counter_set_gate(&counter, now, false);
    pit_counter_control(&counter, LOW_ONLY | MODE(1));
    pit_counter_write(&counter, now, 5);
    now += 10;
    cr_expect(is_null());
    pit_counter_set_gate(&counter, now, true);
    cr_expect(is_null());
    now++;
    cr_expect_not(is_null());
}

Test(pit_counter, says_when_its_output_rises)
{
    int64_t when;

    program(LOW_ONLY | MODE(0), 4);
    cr_expect(pit_counter_next_rise(&counter, now, &when));
    cr_expect_eq(when, now + 5);
    cr_expect_not(pit_counter_next_rise(&counter, when, &when), "once");
    program(LOW_ONLY | MODE(4), 4);
    cr_expect(pit_counter_next_rise(&counter, now, &when));
    cr_expect_eq(when, now + 6, "at the end of the strobe");
    cr_expect_not(pit_counter_next_rise(&counter, when, &when));
    program(LOW_ONLY | MODE(2), 4);
    pit_counter_set_gate(&counter, now, false);
    cr_expect_not(pit_counter_next_rise(&counter, now, &when));
    pit_counter_set_gate(&counter, now, true);
    for (uint8_t mode = 2; mode <= 3; mode++) { /* a count that is none, and of which an interrupt a clock would come */
        program((uint8_t)(LOW_ONLY | MODE(mode)), 1);
        cr_expect_not(pit_counter_next_rise(&counter, now, &when));
    }
}

/* --- Anything at all -------------------------------------------------------------------------------------------- */

/* The chip as its data sheet tells of it: stepped clock by clock. */
struct chip {
    uint8_t mode, access;
    bool gate, out, has_written, is_to_be_loaded, is_armed, is_running, is_shot;
    uint32_t written, count, half_extra;
    bool awaits_high;
    uint8_t low;
};

static struct chip chip;

static void chip_control(uint8_t word)
{
    chip = (struct chip){.mode = word >> 1 & 7, .access = word >> 4 & 3, .gate = chip.gate};
    chip.out = chip.mode != 0;
}

static void chip_write(uint8_t value)
{
    uint32_t bits;

    if (chip.access == 3 && !chip.awaits_high) {
        chip.low = value;
        chip.awaits_high = true;
        if (chip.mode == 0) {
            chip.out = false;
            chip.is_running = chip.is_to_be_loaded = false;
        }
        return;
    }
    bits = chip.access == 3 ? chip.low | (uint32_t)value << 8 : chip.access == 2 ? (uint32_t)value << 8 : value;
    chip.awaits_high = false;
    chip.written = bits != 0 ? bits : 65536;
    chip.has_written = true;
    if (chip.mode == 0) {
        chip.out = false;
    }
    if (chip.mode == 0 || chip.mode == 4) {
        chip.is_to_be_loaded = true;
    } else if (chip.mode == 2 || chip.mode == 3) {
        chip.is_to_be_loaded = chip.is_to_be_loaded || !chip.is_running;
    }
}

static void chip_gate(bool is_open)
{
    bool rises = is_open && !chip.gate;

    chip.gate = is_open;
    if ((chip.mode == 1 || chip.mode == 5) && rises && chip.has_written) {
        chip.is_to_be_loaded = true;
    }
    if (chip.mode == 2 || chip.mode == 3) {
        chip.out = chip.out || !is_open;
        chip.is_to_be_loaded = chip.is_to_be_loaded || (rises && chip.is_running);
    }
}

/* Mode 3 counts clocks of its half; the other modes what is left. */
static void chip_load(void)
{
    chip.is_to_be_loaded = false;
    chip.is_running = chip.is_armed = true;
    chip.count = chip.written;
    if (chip.mode == 3) {
        chip.out = true;
        chip.count = (chip.written + 1) / 2;
    }
    if (chip.mode == 1) {
        chip.out = false;
    } else if (chip.mode >= 4) {
        chip.out = true;
    }
}

static void chip_count_square(void)
{
    if (--chip.count == 0) {
        chip.out = !chip.out || chip.written == 1;
        chip.count = chip.out ? (chip.written + 1) / 2 : chip.written / 2;
    }
}

static void chip_clock(void)
{
    bool is_stopping = chip.mode != 1 && chip.mode != 5;

    if (chip.is_to_be_loaded && (chip.gate || chip.mode != 3) && (chip.gate || chip.mode != 2)) {
        chip_load();
        return;
    }
    if (!chip.is_running || (is_stopping && !chip.gate)) {
        return;
    }
    if (chip.mode == 3) {
        chip_count_square();
        return;
    }
    chip.count = (chip.count - 1) & 0xffff;
    if (chip.mode == 2) {
        if (chip.count == 0) {
            chip.count = chip.written;
        }
        chip.out = chip.count != 1;
        return;
    }
    if (chip.mode == 4 || chip.mode == 5) {
        chip.out = !(chip.is_armed && chip.count == 0);
    } else if (chip.is_armed && chip.count == 0) {
        chip.out = true;
    }
    chip.is_armed = chip.is_armed && chip.count != 0;
}

static void do_both(struct random *random)
{
    uint8_t value = (uint8_t)(random_one_in(random, 4) ? random_below(random, 256) : 1 + random_below(random, 9));

    switch (random_below(random, 8)) {
    case 0:
        value = (uint8_t)(random_below(random, 6) << 1 | 0x10u << random_below(random, 2));
        pit_counter_control(&counter, value);
        chip_control(value);
        break;
    case 1:
        value = (uint8_t)(random_below(random, 6) << 1 | 0x30);
        pit_counter_control(&counter, value);
        chip_control(value);
        break;
    case 2:
    case 3:
        value |= chip.mode >= 4 && !chip.out; /* not within a strobe, of which the data sheet does not tell */
        pit_counter_set_gate(&counter, now, value % 2 != 0);
        chip_gate(value % 2 != 0);
        break;
    default:
        value = value == 1 && (chip.mode == 2 || chip.mode == 3) ? 2 : value; /* 1 is no period */
        pit_counter_write(&counter, now, value);
        chip_write(value);
        break;
    }
}

static int64_t foretell(void)
{
    int64_t when;

    return pit_counter_next_rise(&counter, now, &when) ? when : INT64_MAX;
}

/* A rise is foretold when something is written, or by the one before it, and not again. */
Test(pit_counter, does_as_the_chip_does_clock_by_clock)
{
    struct random random = {SEED};
    int64_t foretold = INT64_MAX;
    uint32_t risen = 0;

    chip_gate(true);
    chip_control(0x30);
    pit_counter_control(&counter, 0x30);
    for (uint32_t i = 0; i < 2000000; i++) {
        bool was_high;

        if (random_one_in(&random, 12)) {
            do_both(&random);
            foretold = foretell();
            cr_assert_eq(pit_counter_out(&counter, now), chip.out, "before clock %" PRIu32 ", mode %d", i, chip.mode);
        }
        was_high = chip.out;
        chip_clock();
        now++;
        cr_assert_eq(pit_counter_out(&counter, now), chip.out, "clock %" PRIu32 " of seed %" PRIu64 ": mode %d", i,
                     SEED, chip.mode);
        cr_assert_eq(chip.out && !was_high, now == foretold, "clock %" PRIu32 ": mode %d, a rise", i, chip.mode);
        if (now == foretold) {
            foretold = foretell();
            risen++;
        }
    }
    cr_assert_gt(risen, 10000);
}
