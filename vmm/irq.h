// SPDX-License-Identifier: Apache-2.0
/* An interrupt line as a device sees it: it sets a level, and somebody else knows what that does. */
#ifndef LOAM_VMM_IRQ_H
#define LOAM_VMM_IRQ_H

#include <stdbool.h>
#include <stddef.h>

struct irq_line {
    void (*set)(void *controller, unsigned int number, bool level); /* NULL: not connected */
    void *controller;
    unsigned int number; /* global system interrupt */
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set != NULL) {
        line->set(line->controller, line->number, level);
    }
}

#endif
