// SPDX-License-Identifier: Apache-2.0
/*
 * COM1: a 16550A (National Semiconductor PC16550D), as far as software can tell it from one.
 *
 * The line is infinitely fast: a transmitted byte is gone at once, so the transmitter is always empty, and
 * the receiver's character timeout is over as soon as a byte is in. What is not modelled: the effect of word length,
 * parity and speed, and a break.
 *
 * The other end of the line waits for a guest that listens, so that nothing that is sent is lost on the way. What
 * arrives is kept beside the FIFO and shows in it, as far as it has room, once the guest listens; it is gone when the
 * guest has read it. A guest listens while it has enabled the interrupt of received data, and when it looks for a byte:
 * in LSR or, without asking there, in RBR twice running. A driver that sets the chip up does not: it clears the FIFO, and
 * reads LSR or RBR once, straight after a write to another register, to clear what may be there. Neither loses a byte of
 * the line; a guest that does so again and again, and never anything else, listens all the same. Looped back, the FIFO holds what the guest sends itself, and clearing and overrun are as on the chip.
 *
 * Threads: serial_access comes from vCPU threads, one at a time (the bus sees to that), serial_receive from
 * any other thread beside it. The output callback is called by serial_access without the serial's lock; the
 * interrupt line is set under it.
 */
#ifndef LOAM_VMM_SERIAL_H
#define LOAM_VMM_SERIAL_H

#include "loam/error.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/state.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIAL_BYTES      8u /* I/O ports */
#define SERIAL_FIFO_BYTES 16u
#define SERIAL_LINE_BYTES 4096u /* that wait on the line; a power of two */

/* What the guest transmits. */
typedef void serial_output_fn(void *self, const uint8_t *bytes, size_t count);

/* What the guest did last with the registers, as far as it shows what it wants of the receiver. */
enum serial_intent {
    SERIAL_SETS_UP, /* wrote a register that sets the chip up; as after a reset */
    SERIAL_WORKS,   /* anything else */
    SERIAL_READS,   /* read RBR, or was shown by LSR that there is something */
};

/* looped_count <= (fifo_enabled ? SERIAL_FIFO_BYTES : 1), line_count <= SERIAL_LINE_BYTES */
struct serial {
    pthread_mutex_t lock;
    struct irq_line irq;
    serial_output_fn *output;
    void *self;
    bool irq_level;
    bool fifo_enabled;
    bool transmit_pending; /* the transmitter-empty interrupt: raised and not yet seen */
    uint8_t interrupt_enable;
    uint8_t fifo_control;
    uint8_t line_control;
    uint8_t modem_control;
    uint8_t modem_delta; /* MSR bits 0-3: what changed since MSR was read */
    uint8_t line_errors; /* LSR bits 1-4, until LSR is read */
    uint8_t scratch;
    uint8_t divisor[2];
    enum serial_intent intent;
    uint32_t unheard_count;            /* looks that were not taken for listening, since the guest last listened */
    uint8_t looped[SERIAL_FIFO_BYTES]; /* in the FIFO before what is on the line */
    uint32_t looped_first;
    uint32_t looped_count;
    uint8_t line[SERIAL_LINE_BYTES]; /* arrived, and not yet read */
    uint32_t line_first;
    uint32_t line_count;
};

/* As after a reset. output NULL: what is transmitted is lost. */
void serial_init(struct serial *serial, struct irq_line irq, serial_output_fn *output, void *self);

/* No other thread uses the serial any more. */
void serial_destroy(struct serial *serial);

/*
 * A bus_access_fn for SERIAL_BYTES ports. An access of several bytes is one of a byte for each port, in
 * ascending order.
 */
void serial_access(void *serial, struct bus_access *access);

/*
 * Bytes arrive on the line. Returns how many were taken: as many as the line has room for; the caller offers the rest
 * again later, so that nothing typed is lost. Any thread.
 */
size_t serial_receive(struct serial *serial, const uint8_t *bytes, size_t count);

/* Written down, and read again: state.h. While no vCPU runs; loading is for one that was just made. Errors as state_take_fields. */
void serial_save(struct serial *serial, struct state_writer *writer);
LOAM_MUST_USE enum loam_error serial_load(struct serial *serial, struct state_reader *reader, struct loam_diag *diag);

#endif
