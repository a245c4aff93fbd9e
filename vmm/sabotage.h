// SPDX-License-Identifier: Apache-2.0
/*
 * Sabotage: promises broken on purpose, to show that the self-test notices.
 *
 * Only the test build has it (//vmm:loam_sabotage, which links sabotage.c); the program links
 * sabotage_none.c, which knows no sabotage and does nothing.
 */
#ifndef LOAM_VMM_SABOTAGE_H
#define LOAM_VMM_SABOTAGE_H

#include "guest/abi.h"
#include "loam/error.h"
#include "loam/memory.h"

#include <stdbool.h>

/* Where in the self-test, or in any run, a sabotage can strike. */
enum sabotage_point {
    SABOTAGE_PUBLISH, /* the table is written, and the guest has not started; slots are not made yet */
    SABOTAGE_ATTACH,  /* the machine is made, and the guest has not started */
    SABOTAGE_STAGE,   /* the guest has written every page in alias */
    SABOTAGE_ECHOED,  /* the guest has written its echo, and the host has not looked */
};

/* Whether this build has any sabotage: then the command line has --sabotage. */
bool sabotage_available(void);

/* Choose one by name, before the run. false: there is none of that name. */
bool sabotage_select(const char *name);

/* Strike, if the chosen one strikes here. table is NULL outside the self-test. */
void sabotage_strike(enum sabotage_point point, struct loam_memory *memory, struct loam_abi_table *table);

/* End what strikes from a thread of its own. */
void sabotage_end(void);

#endif
