// SPDX-License-Identifier: Apache-2.0
/* Exceptions: none is expected, so each is reported on the console and ends the machine. A broken promise is never
 * silent. */
#ifndef LOAM_GUEST_EXCEPTIONS_H
#define LOAM_GUEST_EXCEPTIONS_H

#include <stdint.h>

/*
 * Load an IDT. Before it, an exception is a triple fault, which the host sees as well. program is whose exception it is,
 * for the report; the text stays the caller's and lives on.
 */
void exceptions_install(const char *program);

/* Say what the guest is doing, for the report; text stays the caller's and lives on. */
void exceptions_context(const char *text);

/* Called by the stubs in start.S. */
_Noreturn void exception_report(uint64_t vector, uint64_t error_code, uint64_t rip, uint64_t cr2);

#endif
