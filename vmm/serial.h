// SPDX-License-Identifier: Apache-2.0
/*
 * COM1: a 16550A (National Semiconductor PC16550D), as far as software can tell it from one.
 *
 * The line is infinitely fast: a transmitted byte is gone at once, so the transmitter is always empty, and
 * the receiver's character timeout is over as soon as a byte is in. The FIFO of the receiver is real. What is
 * not modelled: the effect of word length, parity and speed, and a break.
 *
 * Threads: serial_access comes from vCPU threads, one at a time (the bus sees to that), serial_receive from
 * any other thread beside it. The output callback is called by serial_access without the serial's lock; the
 * interrupt line is set under it.
 */
#ifndef LOAM_VMM_SERIAL_H
#define LOAM_VMM_SERIAL_H

#include "vmm/bus.h"
#include "vmm/irq.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIAL_BYTES      8u /* I/O ports */
#define SERIAL_FIFO_BYTES 16u

/* What the guest transmits. */
typedef void serial_output_fn(void *self, const uint8_t *bytes, size_t count);

/* received_count <= (fifo_enabled ? SERIAL_FIFO_BYTES : 1) */
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
    uint8_t received[SERIAL_FIFO_BYTES];
    uint32_t received_first;
    uint32_t received_count;
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
 * Bytes arrive on the line. Returns how many were taken: as many as the receiver has room for, none while it
 * is looped back; the caller offers the rest again later, so that nothing typed is lost. Any thread.
 */
size_t serial_receive(struct serial *serial, const uint8_t *bytes, size_t count);

#endif
