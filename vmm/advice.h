// SPDX-License-Identifier: Apache-2.0
/*
 * Advice: why a guest came to a bad end, as far as what is known of it points to a reason, and what would avoid it, in half a
 * sentence that goes on from how it ended.
 *
 * A table of reasons is gone through from the surest to the vaguest, and the first that fits is told. The words of Linux's
 * command line are those of 6.1 (Documentation/admin-guide/kernel-parameters.txt; numbers of clearcpuid:
 * arch/x86/include/asm/cpufeatures.h).
 *
 * Pure; any thread.
 */
#ifndef LOAM_VMM_ADVICE_H
#define LOAM_VMM_ADVICE_H

#include "vmm/bus.h"
#include "vmm/disassembly.h"
#include "vmm/stand.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is known. */
struct advice_facts {
    const struct stand *stand;             /* of the vCPU that ended the run; NULL: none did */
    const struct disassembly *instruction; /* at stand->rip; NULL: it is none that is known */
    bool kvm_emulates;
    const struct bus_missed *missed; /* missed_count places at which nobody answered */
    uint32_t missed_count;
    uint64_t low_bytes;  /* RAM from 0 up to the hole */
    uint64_t high_bytes; /* RAM from 4 GiB on */
};

/* As snprintf; an empty text where nothing fits. */
void advice_of(const struct advice_facts *facts, char *text, size_t bytes);

/* The word by which Linux does without an instruction, by the name of struct disassembly; NULL: none is known. */
const char *advice_linux_word(const char *instruction);

#endif
