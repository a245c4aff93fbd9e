// SPDX-License-Identifier: Apache-2.0
/*
 * A domain as the words of a `loam run`, and these as a line for a shell. Pure; any thread.
 */
#ifndef LOAM_LIBVIRT_DOMAIN_WORDS_H
#define LOAM_LIBVIRT_DOMAIN_WORDS_H

#include "tools/libvirt/domain_read.h"

#include <stddef.h>
#include <stdint.h>

#define DOMAIN_WORDS_MAX   64u
#define DOMAIN_WORDS_BYTES (3 * XML_WALK_VALUE_BYTES + 4096)

/* Its pointers lead into itself: it cannot be copied. */
struct domain_words {
    char *argv[DOMAIN_WORDS_MAX]; /* ends with NULL */
    uint32_t count;
    size_t used;
    char text[DOMAIN_WORDS_BYTES];
};

/* "loam", "run" and the options that a domain without refusals stands for. */
void domain_words_make(const struct domain *domain, struct domain_words *words);

/* What domain_words_shell can write at most, with a NUL. */
#define DOMAIN_WORDS_SHELL_BYTES (4 * (DOMAIN_WORDS_BYTES + XML_WALK_VALUE_BYTES) + 8 * DOMAIN_WORDS_MAX)

/*
 * The words as bash reads them back, and where the serial port goes: one line of printable ASCII and UTF-8, without its
 * end. Returns its length.
 */
size_t domain_words_shell(const struct domain_words *words, const struct domain_serial *serial,
                          char output[DOMAIN_WORDS_SHELL_BYTES]);

#endif
