// SPDX-License-Identifier: Apache-2.0
/*
 * All that a guest of one's own is written with: write-your-own.md.
 *
 * start.S calls guest_main once, on the first vCPU: in 64-bit mode at ring 0, interrupts off, the first GiB of memory
 * mapped one to one and writable, a stack of 16 KiB, no IDT, BSS zeroed by the loader. SSE and x87 are not set up.
 */
#ifndef LOAM_GUEST_GUEST_H
#define LOAM_GUEST_GUEST_H

#include "guest/abi.h"
#include "guest/console.h"
#include "guest/exceptions.h"
#include "guest/memory.h"
#include "guest/paging.h"
#include "guest/platform.h"
#include "guest/pvh.h"

/* The guest's own. start_info is the GPA of the PVH start info: hostile until pvh_valid says that it is one. */
_Noreturn void guest_main(uint64_t start_info);

#endif
