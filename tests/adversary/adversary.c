// SPDX-License-Identifier: Apache-2.0
#include "tests/adversary/adversary.h"

/* In hundredths. */
static const struct {
    uint32_t share;
    void (*act)(struct adversary *self);
} actions[] = {
    {30, act_request},   {7, act_descriptor}, {6, act_ring},        {15, act_register},
    {8, act_bring_up},   {13, act_port},      {2, act_port_string}, {4, act_interrupt_controller},
    {2, act_local_apic}, {2, act_msr},        {4, act_memory},      {6, act_listen},
    {1, act_nap},
};

void adversary_step(struct adversary *self)
{
    uint32_t chance = random_below(&self->random, 100), i = 0;

    for (; chance >= actions[i].share; i++) {
        chance -= actions[i].share;
    }
    actions[i].act(self);
}
