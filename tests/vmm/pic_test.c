// SPDX-License-Identifier: Apache-2.0
/* What the data sheet says of an 8259A (231468), and what a chipset makes of two. */
#include "vmm/pic.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define SEED UINT64_C(8259)

#define EOI          0x20
#define EOI_LINE     0x60
#define ROTATE_EOI   0xa0
#define ROTATE_LINE  0xe0
#define SET_LOWEST   0xc0
#define READ_IRR     0x0a
#define READ_ISR     0x0b
#define POLL         0x0c
#define SPECIAL_MASK 0x68
#define NORMAL_MASK  0x48

static struct pic pic;

static void initialise(unsigned int chip, uint8_t base, uint8_t fourth)
{
    pic_write(&pic, chip, 0, 0x11);
    pic_write(&pic, chip, 1, base);
    pic_write(&pic, chip, 1, chip == 0 ? 0x04 : 0x02);
    pic_write(&pic, chip, 1, fourth);
}

/* As Linux does: vectors 0x30 and 0x38; here with every line open. */
static void set_up(void)
{
    pic_reset(&pic);
    initialise(0, 0x30, 0x01);
    initialise(1, 0x38, 0x01);
    pic_write(&pic, 0, 1, 0);
    pic_write(&pic, 1, 1, 0);
}

TestSuite(pic, .init = set_up, .timeout = 60);

static void pulse(unsigned int line)
{
    pic_set_line(&pic, line, true);
    pic_set_line(&pic, line, false);
}

static uint8_t in_service(unsigned int chip)
{
    pic_write(&pic, chip, 0, READ_ISR);
    return pic_read(&pic, chip, 0);
}

static uint8_t requested(unsigned int chip)
{
    pic_write(&pic, chip, 0, READ_IRR);
    return pic_read(&pic, chip, 0);
}

static void expect_vector(uint8_t vector)
{
    uint8_t found;

    cr_assert(pic_is_raised(&pic), "vector 0x%x wanted, and nothing is raised", vector);
    found = pic_acknowledge(&pic);
    cr_assert_eq(found, vector, "vector 0x%x wanted, 0x%x found", vector, found);
}

static void end(unsigned int line)
{
    if (line >= 8) {
        pic_write(&pic, 1, 0, EOI);
    }
    pic_write(&pic, 0, 0, EOI);
}

/* --- As it starts ------------------------------------------------------------------------------------------------ */

Test(pic, is_left_by_firmware_with_all_masked)
{
    pic_reset(&pic);
    for (unsigned int line = 0; line < PIC_LINES; line++) {
        pulse(line);
        cr_expect_not(pic_is_raised(&pic), "line %u", line);
        cr_expect_not(pic_is_open(&pic, line) && line != PIC_CASCADE, "line %u", line);
    }
    cr_expect_eq(pic_read(&pic, 0, 1), 0xfb);
    cr_expect_eq(pic_read(&pic, 1, 1), 0xff);
    pic_write(&pic, 0, 1, 0xfe);
    expect_vector(0x08);
}

Test(pic, takes_its_words_in_their_order_and_then_its_mask)
{
    pic_write(&pic, 0, 0, 0x11);
    pulse(0);
    cr_expect_not(pic_is_raised(&pic), "not before it is set up");
    cr_expect_not(pic_is_open(&pic, 0));
    pic_write(&pic, 0, 1, 0x47); /* the low bits of a vector are the line's */
    pic_write(&pic, 0, 1, 0x04);
    cr_expect_not(pic_is_raised(&pic));
    pic_write(&pic, 0, 1, 0x01);
    cr_expect_eq(pic_read(&pic, 0, 1), 0, "ICW1 clears the mask");
    expect_vector(0x40);
    pic_write(&pic, 0, 1, 0xa5);
    cr_expect_eq(pic_read(&pic, 0, 1), 0xa5);
}

/* Without ICW4 and alone: what is not sent is not awaited. */
Test(pic, awaits_no_more_words_than_the_first_one_says)
{
    pic_write(&pic, 0, 0, 0x12);
    pic_write(&pic, 0, 1, 0x50);
    pic_write(&pic, 0, 1, 0xfe);
    cr_expect_eq(pic_read(&pic, 0, 1), 0xfe);
    pulse(0);
    expect_vector(0x50);
    pic_write(&pic, 0, 0, 0x13);
    pic_write(&pic, 0, 1, 0x58);
    pic_write(&pic, 0, 1, 0x03); /* ICW4 */
    pic_write(&pic, 0, 1, 0xfd);
    pulse(1);
    expect_vector(0x59);
    cr_expect_eq(in_service(0), 0, "automatic end of interrupt");
    pic_write(&pic, 0, 0, 0x10);
    pic_write(&pic, 0, 1, 0x60);
    pic_write(&pic, 0, 1, 0x04); /* ICW3 */
    pic_write(&pic, 0, 1, 0xfb);
    cr_expect_eq(pic_read(&pic, 0, 1), 0xfb);
}

Test(pic, is_set_up_anew_with_nothing_left_of_before)
{
    pulse(1);
    expect_vector(0x31);
    pulse(4);
    pic_set_line(&pic, 5, true);
    pic_write(&pic, 0, 0, SPECIAL_MASK);
    pic_write(&pic, 0, 0, SET_LOWEST | 3);
    initialise(0, 0x70, 0x01);
    cr_expect_eq(in_service(0), 0);
    cr_expect_eq(requested(0), 0, "a line that is high already has to rise again");
    pic_set_line(&pic, 5, false);
    pic_set_line(&pic, 5, true);
    pulse(4);
    expect_vector(0x74);
}

/* --- Edges and levels ------------------------------------------------------------------------------------------- */

Test(pic, gives_each_line_its_vector)
{
    for (unsigned int line = 0; line < PIC_LINES; line++) {
        if (line == PIC_CASCADE) {
            pulse(line);
            cr_expect_not(pic_is_raised(&pic));
            continue;
        }
        pulse(line);
        expect_vector((uint8_t)(0x30 + line));
        cr_expect_eq(in_service(0), line < 8 ? 1u << line : 1u << PIC_CASCADE);
        cr_expect_eq(in_service(1), line < 8 ? 0 : 1u << (line - 8));
        cr_expect_not(pic_is_raised(&pic));
        end(line);
        cr_expect_eq(in_service(0), 0);
        cr_expect_eq(in_service(1), 0);
    }
    pulse(16);
    cr_expect_not(pic_is_raised(&pic));
    cr_expect_not(pic_is_open(&pic, 16));
}

Test(pic, keeps_an_edge_until_it_is_acknowledged_and_no_longer)
{
    pic_set_line(&pic, 4, true);
    cr_expect_eq(requested(0), 0x10);
    expect_vector(0x34);
    cr_expect_eq(requested(0), 0);
    end(4);
    cr_expect_not(pic_is_raised(&pic), "one edge, one interrupt");
    pic_set_line(&pic, 4, true);
    cr_expect_not(pic_is_raised(&pic), "no edge");
    pic_set_line(&pic, 4, false);
    pic_set_line(&pic, 4, true);
    pic_set_line(&pic, 4, false);
    expect_vector(0x34);
}

Test(pic, keeps_an_edge_that_came_while_it_was_masked)
{
    pic_write(&pic, 0, 1, 0x10);
    pulse(4);
    cr_expect_not(pic_is_raised(&pic));
    cr_expect_not(pic_is_open(&pic, 4));
    cr_expect_eq(requested(0), 0x10);
    pic_write(&pic, 0, 1, 0);
    cr_expect(pic_is_open(&pic, 4));
    expect_vector(0x34);
}

Test(pic, raises_a_level_for_as_long_as_it_is_high)
{
    pic_write_trigger(&pic, 0, 0xff);
    pic_write_trigger(&pic, 1, 0xff);
    cr_expect_eq(pic_read_trigger(&pic, 0), 0xf8, "edges for good: timer, keyboard, cascade");
    cr_expect_eq(pic_read_trigger(&pic, 1), 0xde, "and the clock, and the FPU");
    for (unsigned int line = 5; line <= 11; line += 6) {
        pic_set_line(&pic, line, true);
        for (uint32_t i = 0; i < 3; i++) {
            expect_vector((uint8_t)(0x30 + line));
            cr_expect_not(pic_is_raised(&pic), "it is in service");
            end(line);
            cr_expect(pic_is_raised(&pic), "it is high still");
        }
        pic_set_line(&pic, line, false);
        cr_expect_not(pic_is_raised(&pic));
        cr_expect_eq(pic_acknowledge(&pic), 0x37, "spurious");
        cr_expect_eq(in_service(0), 0);
    }
}

Test(pic, forgets_edges_of_a_line_that_becomes_a_level)
{
    pulse(5);
    pic_write_trigger(&pic, 0, 0x20);
    cr_expect_not(pic_is_raised(&pic));
    pic_set_line(&pic, 5, true);
    pic_write_trigger(&pic, 0, 0);
    cr_expect_not(pic_is_raised(&pic), "high is no edge");
}

Test(pic, is_told_of_a_request_that_is_gone_by_line_7)
{
    cr_expect_eq(pic_acknowledge(&pic), 0x37);
    cr_expect_eq(in_service(0), 0);
    pulse(7);
    expect_vector(0x37);
    cr_expect_eq(in_service(0), 0x80, "which is how a driver tells");
}

/* --- Priority --------------------------------------------------------------------------------------------------- */

Test(pic, nests_by_priority)
{
    pulse(4);
    expect_vector(0x34);
    pulse(6);
    cr_expect_not(pic_is_raised(&pic));
    pulse(4);
    cr_expect_not(pic_is_raised(&pic), "nor the same again");
    pulse(9);
    expect_vector(0x39);
    pulse(12);
    cr_expect_not(pic_is_raised(&pic));
    pulse(1);
    expect_vector(0x31);
    cr_expect_eq(in_service(0), 0x16);
    pic_write(&pic, 0, 0, EOI);
    cr_expect_eq(in_service(0), 0x14, "the highest of those in service");
    end(9);
    expect_vector(0x3c);
    end(12);
    end(4);
    expect_vector(0x34);
    end(4);
    expect_vector(0x36);
    end(6);
    end(6);
    cr_expect_not(pic_is_raised(&pic));
}

Test(pic, ends_the_line_that_it_is_told_to)
{
    pulse(5);
    expect_vector(0x35);
    pulse(3);
    expect_vector(0x33);
    pic_write(&pic, 0, 0, EOI_LINE | 5);
    cr_expect_eq(in_service(0), 0x08);
    pic_write(&pic, 0, 0, 0x40); /* no operation */
    cr_expect_eq(in_service(0), 0x08);
}

Test(pic, rotates_priorities)
{
    pulse(2 + 2);
    expect_vector(0x34);
    pic_write(&pic, 0, 0, ROTATE_EOI); /* 4 is the lowest now, 5 the highest */
    pulse(3);
    pulse(4);
    pulse(5);
    expect_vector(0x35);
    pic_write(&pic, 0, 0, EOI);
    expect_vector(0x33);
    pic_write(&pic, 0, 0, ROTATE_LINE | 3); /* and now 4 */
    pulse(5);
    expect_vector(0x34);
    pic_write(&pic, 0, 0, EOI);
    expect_vector(0x35);
    pic_write(&pic, 0, 0, EOI);
    pic_write(&pic, 0, 0, SET_LOWEST | 0);
    pulse(0);
    pulse(7);
    expect_vector(0x37);
}

Test(pic, rotates_by_itself_where_it_ends_by_itself)
{
    initialise(0, 0x30, 0x03);
    pic_write(&pic, 0, 0, 0x80);
    pulse(1);
    expect_vector(0x31);
    pulse(1);
    pulse(7);
    expect_vector(0x37);
    expect_vector(0x31);
    pic_write(&pic, 0, 0, 0x00);
    pulse(4);
    expect_vector(0x34);
    pulse(0);
    pulse(3);
    expect_vector(0x33);
}

Test(pic, is_held_up_by_no_masked_line_in_special_mask_mode)
{
    pulse(3);
    expect_vector(0x33);
    pic_write(&pic, 0, 1, 0x08);
    pulse(5);
    cr_expect_not(pic_is_raised(&pic));
    pic_write(&pic, 0, 0, SPECIAL_MASK);
    expect_vector(0x35);
    pic_write(&pic, 0, 0, EOI);
    cr_expect_eq(in_service(0), 0x08);
    pic_write(&pic, 0, 0, EOI);
    cr_expect_eq(in_service(0), 0x08, "an end without a number ends no masked line");
    pic_write(&pic, 0, 0, NORMAL_MASK);
    pulse(5);
    cr_expect_not(pic_is_raised(&pic));
    pic_write(&pic, 0, 0, EOI);
    expect_vector(0x35);
}

Test(pic, lets_the_second_chip_interrupt_itself_where_it_is_specially_nested)
{
    pulse(12);
    expect_vector(0x3c);
    pulse(9);
    cr_expect_not(pic_is_raised(&pic), "the second chip is in service at the first");
    end(9);
    expect_vector(0x39);
    end(9);
    initialise(0, 0x30, 0x11);
    pulse(12);
    expect_vector(0x3c);
    pulse(9);
    pulse(3);
    expect_vector(0x39);
    cr_expect_not(pic_is_raised(&pic), "3 comes after both");
}

/* --- Polls ------------------------------------------------------------------------------------------------------ */

Test(pic, answers_polls)
{
    pic_write(&pic, 0, 0, POLL);
    cr_expect_eq(pic_read(&pic, 0, 0) & 0x80, 0);
    pulse(4);
    pic_write(&pic, 0, 0, POLL);
    cr_expect_eq(pic_read(&pic, 0, 0) & 0x87, 0x84);
    cr_expect_eq(in_service(0), 0x10);
    cr_expect_not(pic_is_raised(&pic));
    end(4);
    pulse(10);
    pic_write(&pic, 0, 0, POLL);
    cr_expect_eq(pic_read(&pic, 0, 1) & 0x87, 0x82, "from either port");
    pic_write(&pic, 1, 0, POLL);
    cr_expect_eq(pic_read(&pic, 1, 0) & 0x87, 0x82);
    cr_expect_eq(in_service(1), 0x04);
    cr_expect_eq(pic_read(&pic, 0, 1), 0, "a poll is one read");
}

Test(pic, passes_on_lines_of_the_second_chip_while_the_cascade_is_open)
{
    cr_expect(pic_is_open(&pic, 9));
    pic_write(&pic, 0, 1, 0x04);
    cr_expect_not(pic_is_open(&pic, 9));
    pulse(9);
    cr_expect_not(pic_is_raised(&pic));
    pic_write(&pic, 1, 1, 0x02);
    pic_write(&pic, 0, 1, 0);
    cr_expect_not(pic_is_raised(&pic), "masked meanwhile");
    cr_expect_not(pic_is_open(&pic, 9));
    pic_write(&pic, 1, 1, 0);
    expect_vector(0x39);
}

/* --- Anything at all -------------------------------------------------------------------------------------------- */

/* Whatever it is told: what is raised has a vector of a line that is open, and then is in service; nothing goes astray. */
Test(pic, gives_only_vectors_of_lines_that_are_open)
{
    struct random random = {SEED};

    for (uint32_t i = 0; i < 200000; i++) {
        uint64_t chosen = random_u64(&random);
        unsigned int chip = chosen & 1, line = chosen >> 1 & 15;
        uint8_t value = (uint8_t)(chosen >> 16);

        switch (chosen >> 8 & 7) {
        case 0:
        case 1:
        case 2:
            pic_set_line(&pic, line, (value & 1) != 0);
            break;
        case 3:
            pic_write(&pic, chip, value >> 7, value);
            break;
        case 4:
            (void)pic_read(&pic, chip, value & 1);
            break;
        case 5:
            pic_write_trigger(&pic, chip, value);
            break;
        default:
            if (pic_is_raised(&pic)) {
                struct pic before = pic;
                uint8_t vector = pic_acknowledge(&pic);
                bool is_second = (pic.chips[1].base | (vector & 7)) == vector && pic_is_open(&before, 8 + (vector & 7));

                cr_assert(is_second ||
                              ((pic.chips[0].base | (vector & 7)) == vector && pic_is_open(&before, vector & 7)),
                          "vector 0x%x in round %" PRIu32 " of seed %" PRIu64, vector, i, SEED);
            }
            break;
        }
    }
}

/* A state that somebody else wrote. */
Test(pic, stays_within_itself_whatever_its_state)
{
    struct random random = {SEED};

    for (uint32_t i = 0; i < 20000; i++) {
        uint8_t *bytes = (uint8_t *)pic.chips;

        for (size_t k = 0; k < sizeof pic.chips; k++) {
            bytes[k] = (uint8_t)(random_u64(&random) >> 24);
        }
        for (unsigned int chip = 0; chip < PIC_CHIPS; chip++) { /* what is a truth value stays one */
            struct pic_chip *odd = &pic.chips[chip];

            memset(&odd->is_single, (int)(i & 1), sizeof *odd - offsetof(struct pic_chip, is_single));
        }
        pic_set_line(&pic, i % PIC_LINES, true);
        (void)pic_acknowledge(&pic);
        (void)pic_read(&pic, i & 1, 0);
        pic_write(&pic, i & 1, i >> 1 & 1, (uint8_t)i);
    }
}
