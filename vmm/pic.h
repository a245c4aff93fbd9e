// SPDX-License-Identifier: Apache-2.0
/*
 * Two 8259As as a PC has them: the second one's output is the first one's input 2, and each line is an edge or a level as
 * the chipset's registers beside them say (Intel 8259A data sheet, 231468; ICH9 data sheet, 316972, sections 5.8 and 13.4).
 *
 * A request by an edge is kept until it is acknowledged, although its line fall before: on the chip it would become a
 * spurious interrupt, because there the processor answers within a microsecond, which a virtual one may not.
 *
 * What is not modelled: vectors for an 8080, a chip without a second one, and ICW1's choice of edge or level for a whole chip,
 * which chipsets ignore as well.
 *
 * The state is plain, and no number in it leads outside it, whatever it is. Threads: the caller's lock; pure but for *pic.
 */
#ifndef LOAM_VMM_PIC_H
#define LOAM_VMM_PIC_H

#include <stdbool.h>
#include <stdint.h>

#define PIC_CHIPS   2u
#define PIC_LINES   16u /* of both: chip n has 8 n to 8 n + 7 */
#define PIC_CASCADE 2u  /* no device's */

/* Where a PC has them: of each chip two ports, and the pair of registers that tell edges from levels. */
#define PIC_FIRST_PORT   0x20u
#define PIC_SECOND_PORT  0xa0u
#define PIC_TRIGGER_PORT 0x4d0u
#define PIC_BYTES        2u

struct pic_chip {
    uint8_t lines;            /* that are high */
    uint8_t latched;          /* edges that came and were not acknowledged */
    uint8_t in_service;       /* ISR */
    uint8_t mask;             /* IMR */
    uint8_t levels;           /* lines that are levels, of all else edges are kept */
    uint8_t base;             /* vector of line 0, a multiple of 8 */
    uint8_t lowest;           /* the line of the lowest priority */
    uint8_t awaited_word;     /* the ICW that is to come: 2, 3 or 4; 0: none */
    bool is_single;           /* ICW1: no ICW3 comes */
    bool has_fourth_word;     /* ICW1: ICW4 comes */
    bool ends_by_itself;      /* automatic end of interrupt */
    bool rotates_by_itself;   /* with it */
    bool has_special_mask;    /* masked lines in service hold up no others */
    bool is_specially_nested; /* the second chip in service does not hold up itself */
    bool shows_in_service;    /* reads of the command port: ISR instead of IRR */
    bool is_polled;           /* the next read acknowledges */
};

struct pic {
    struct pic_chip chips[PIC_CHIPS];
};

/* As a PC's firmware leaves them to a kernel: vectors 0x08 and 0x70, all lines edges, and masked but for the cascade. */
void pic_reset(struct pic *pic);

/* Line 0 to 15; no effect on the cascade, nor beyond. */
void pic_set_line(struct pic *pic, unsigned int line, bool is_high);

/* The output, to the processor. */
bool pic_is_raised(const struct pic *pic);

/* The processor takes the interrupt: its vector. A request that is gone is line 7, spurious, which is not in service. */
uint8_t pic_acknowledge(struct pic *pic);

/* The vector of line, which is below PIC_LINES. */
uint8_t pic_vector(const struct pic *pic, unsigned int line);

/* Whether a request of line would be raised, now or after others. */
bool pic_is_open(const struct pic *pic, unsigned int line);

/* Ports of chip 0 or 1: offset 0 or 1. A read may be a poll, and acknowledge. */
uint8_t pic_read(struct pic *pic, unsigned int chip, unsigned int offset);
void pic_write(struct pic *pic, unsigned int chip, unsigned int offset, uint8_t value);

/* The lines of chip 0 or 1 that are levels: 1 in a bit. Lines 0, 1, 2, 8 and 13 are edges always. */
uint8_t pic_read_trigger(const struct pic *pic, unsigned int chip);
void pic_write_trigger(struct pic *pic, unsigned int chip, uint8_t value);

#endif
