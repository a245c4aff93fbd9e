// SPDX-License-Identifier: Apache-2.0
/*
 * Input 2 of the first chip is the second one's output, at every moment: connect() makes it so after each change of the
 * second. It counts as a level, which it is: it falls with the request behind it.
 */
#include "vmm/pic.h"

#define LINES_OF_CHIP 8u
#define SPURIOUS_LINE 7u
#define FIRST_BASE    0x08u
#define SECOND_BASE   0x70u

/* Initialisation words, bits of the first and of the fourth. */
#define WORD_1          0x10u
#define WORD_1_FOURTH   0x01u
#define WORD_1_SINGLE   0x02u
#define WORD_2_BASE     0xf8u
#define WORD_4_AUTO_END 0x02u
#define WORD_4_NESTED   0x10u

/* Operation word 2: what to do in bits 5 to 7, the line in 0 to 2. */
#define COMMAND_STOP_ROTATING  0u
#define COMMAND_END            1u
#define COMMAND_END_LINE       3u
#define COMMAND_START_ROTATING 4u
#define COMMAND_ROTATE_END     5u
#define COMMAND_SET_LOWEST     6u
#define COMMAND_ROTATE_LINE    7u

/* Operation word 3. */
#define WORD_3          0x08u
#define WORD_3_SHOWS    0x01u /* in service, with WORD_3_SHOW */
#define WORD_3_SHOW     0x02u
#define WORD_3_POLL     0x04u
#define WORD_3_MASK     0x20u /* special mask mode, with WORD_3_SET_MASK */
#define WORD_3_SET_MASK 0x40u

#define POLL_PENDING 0x80u

static const uint8_t trigger_masks[PIC_CHIPS] = {0xf8, 0xde};

static uint8_t bit(unsigned int line)
{
    return (uint8_t)(1u << line);
}

/* --- One chip --------------------------------------------------------------------------------------------------- */

static uint8_t requests(const struct pic_chip *chip)
{
    return (uint8_t)((chip->latched & ~chip->levels) | (chip->lines & chip->levels));
}

/* How many lines come before line: 0 for that of the highest priority. */
static unsigned int rank(const struct pic_chip *chip, unsigned int line)
{
    return (line - chip->lowest - 1u) % LINES_OF_CHIP;
}

/* The line of the highest priority of a set; LINES_OF_CHIP: it is empty. */
static unsigned int first_of(const struct pic_chip *chip, uint8_t set)
{
    for (unsigned int i = 1; i <= LINES_OF_CHIP; i++) {
        unsigned int line = (chip->lowest + i) % LINES_OF_CHIP;

        if ((set & bit(line)) != 0) {
            return line;
        }
    }
    return LINES_OF_CHIP;
}

/* Those in service that hold up others, and that an end without a number ends. */
static uint8_t holding(const struct pic_chip *chip)
{
    return (uint8_t)(chip->in_service & (chip->has_special_mask ? ~chip->mask : 0xff));
}

/* The line that the chip raises its output for; LINES_OF_CHIP: none. */
static unsigned int due_line(const struct pic_chip *chip)
{
    unsigned int line = first_of(chip, requests(chip) & (uint8_t)~chip->mask);
    unsigned int held_by = first_of(chip, holding(chip));

    if (line == LINES_OF_CHIP || chip->awaited_word != 0) {
        return LINES_OF_CHIP;
    }
    if (held_by == LINES_OF_CHIP || rank(chip, line) < rank(chip, held_by)) {
        return line;
    }
    return line == held_by && line == PIC_CASCADE && chip->is_specially_nested ? line : LINES_OF_CHIP;
}

static unsigned int take(struct pic_chip *chip)
{
    unsigned int line = due_line(chip);

    if (line == LINES_OF_CHIP) {
        return SPURIOUS_LINE;
    }
    chip->latched &= (uint8_t)~bit(line);
    if (!chip->ends_by_itself) {
        chip->in_service |= bit(line);
    } else if (chip->rotates_by_itself) {
        chip->lowest = (uint8_t)line;
    }
    return line;
}

static void set_input(struct pic_chip *chip, unsigned int line, bool is_high)
{
    if (!is_high) {
        chip->lines &= (uint8_t)~bit(line);
        return;
    }
    if (((chip->lines | chip->levels) & bit(line)) == 0) {
        chip->latched |= bit(line);
    }
    chip->lines |= bit(line);
}

/* Whatever the chip is told, it is told anew; the lines are what they are. */
static void begin(struct pic_chip *chip, uint8_t word)
{
    *chip = (struct pic_chip){.lines = chip->lines,
                              .levels = chip->levels,
                              .base = chip->base,
                              .lowest = LINES_OF_CHIP - 1,
                              .awaited_word = 2,
                              .is_single = (word & WORD_1_SINGLE) != 0,
                              .has_fourth_word = (word & WORD_1_FOURTH) != 0};
}

static void take_word(struct pic_chip *chip, uint8_t value)
{
    const uint8_t fourth = chip->has_fourth_word ? 4 : 0;

    switch (chip->awaited_word) {
    case 2:
        chip->base = value & WORD_2_BASE;
        chip->awaited_word = chip->is_single ? fourth : 3;
        break;
    case 3: /* where the second chip is: as on any PC */
        chip->awaited_word = fourth;
        break;
    case 4:
        chip->ends_by_itself = (value & WORD_4_AUTO_END) != 0;
        chip->is_specially_nested = (value & WORD_4_NESTED) != 0;
        chip->awaited_word = 0;
        break;
    default:
        chip->mask = value;
        break;
    }
}

static void end(struct pic_chip *chip, unsigned int line, bool rotates)
{
    if (line == LINES_OF_CHIP) {
        return;
    }
    chip->in_service &= (uint8_t)~bit(line);
    if (rotates) {
        chip->lowest = (uint8_t)line;
    }
}

static void command(struct pic_chip *chip, uint8_t value)
{
    const unsigned int line = value % LINES_OF_CHIP;

    switch (value >> 5) {
    case COMMAND_STOP_ROTATING:
    case COMMAND_START_ROTATING:
        chip->rotates_by_itself = value >> 5 == COMMAND_START_ROTATING;
        break;
    case COMMAND_END:
    case COMMAND_ROTATE_END:
        end(chip, first_of(chip, holding(chip)), value >> 5 == COMMAND_ROTATE_END);
        break;
    case COMMAND_END_LINE:
    case COMMAND_ROTATE_LINE:
        end(chip, line, value >> 5 == COMMAND_ROTATE_LINE);
        break;
    case COMMAND_SET_LOWEST:
        chip->lowest = (uint8_t)line;
        break;
    default:
        break;
    }
}

static void choose(struct pic_chip *chip, uint8_t value)
{
    if ((value & WORD_3_SET_MASK) != 0) {
        chip->has_special_mask = (value & WORD_3_MASK) != 0;
    }
    if ((value & WORD_3_SHOW) != 0) {
        chip->shows_in_service = (value & WORD_3_SHOWS) != 0;
    }
    chip->is_polled = (value & WORD_3_POLL) != 0;
}

static void write_chip(struct pic_chip *chip, unsigned int offset, uint8_t value)
{
    if (offset != 0) {
        take_word(chip, value);
    } else if ((value & WORD_1) != 0) {
        begin(chip, value);
    } else if ((value & WORD_3) != 0) {
        choose(chip, value);
    } else {
        command(chip, value);
    }
}

static uint8_t poll_chip(struct pic_chip *chip)
{
    const bool is_due = due_line(chip) != LINES_OF_CHIP;

    chip->is_polled = false;
    return is_due ? (uint8_t)(POLL_PENDING | take(chip)) : 0;
}

static uint8_t read_chip(struct pic_chip *chip, unsigned int offset)
{
    if (chip->is_polled) {
        return poll_chip(chip);
    }
    if (offset != 0) {
        return chip->mask;
    }
    return chip->shows_in_service ? chip->in_service : requests(chip);
}

/* --- Both ------------------------------------------------------------------------------------------------------- */

static void connect(struct pic *pic)
{
    set_input(&pic->chips[0], PIC_CASCADE, due_line(&pic->chips[1]) != LINES_OF_CHIP);
}

void pic_reset(struct pic *pic)
{
    *pic = (struct pic){
        .chips = {{.base = FIRST_BASE, .mask = (uint8_t)~bit(PIC_CASCADE)}, {.base = SECOND_BASE, .mask = 0xff}}};
    for (unsigned int i = 0; i < PIC_CHIPS; i++) {
        pic->chips[i].lowest = LINES_OF_CHIP - 1;
    }
    pic->chips[0].levels = bit(PIC_CASCADE);
}

void pic_set_line(struct pic *pic, unsigned int line, bool is_high)
{
    if (line < PIC_LINES && line != PIC_CASCADE) {
        set_input(&pic->chips[line / LINES_OF_CHIP], line % LINES_OF_CHIP, is_high);
        connect(pic);
    }
}

bool pic_is_raised(const struct pic *pic)
{
    return due_line(&pic->chips[0]) != LINES_OF_CHIP;
}

uint8_t pic_acknowledge(struct pic *pic)
{
    struct pic_chip *chip = &pic->chips[0];
    unsigned int line = take(chip);

    if (line == PIC_CASCADE) {
        chip = &pic->chips[1];
        line = take(chip);
        connect(pic);
    }
    return (uint8_t)(chip->base | line);
}

uint8_t pic_vector(const struct pic *pic, unsigned int line)
{
    return (uint8_t)(pic->chips[line / LINES_OF_CHIP % PIC_CHIPS].base | line % LINES_OF_CHIP);
}

bool pic_is_open(const struct pic *pic, unsigned int line)
{
    const struct pic_chip *chip = &pic->chips[line / LINES_OF_CHIP % PIC_CHIPS];
    const bool is_passed_on = chip == &pic->chips[0] || (pic->chips[0].mask & bit(PIC_CASCADE)) == 0;

    return line < PIC_LINES && chip->awaited_word == 0 && (chip->mask & bit(line % LINES_OF_CHIP)) == 0 && is_passed_on;
}

uint8_t pic_read(struct pic *pic, unsigned int chip, unsigned int offset)
{
    uint8_t value = read_chip(&pic->chips[chip % PIC_CHIPS], offset);

    connect(pic);
    return value;
}

void pic_write(struct pic *pic, unsigned int chip, unsigned int offset, uint8_t value)
{
    write_chip(&pic->chips[chip % PIC_CHIPS], offset, value);
    connect(pic);
}

uint8_t pic_read_trigger(const struct pic *pic, unsigned int chip)
{
    return pic->chips[chip % PIC_CHIPS].levels & trigger_masks[chip % PIC_CHIPS];
}

void pic_write_trigger(struct pic *pic, unsigned int chip, uint8_t value)
{
    struct pic_chip *written = &pic->chips[chip % PIC_CHIPS];

    written->levels =
        (uint8_t)((value & trigger_masks[chip % PIC_CHIPS]) | (chip % PIC_CHIPS == 0 ? bit(PIC_CASCADE) : 0));
    written->latched &= (uint8_t)~written->levels;
    connect(pic);
}
