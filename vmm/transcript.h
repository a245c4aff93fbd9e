// SPDX-License-Identifier: Apache-2.0
/*
 * What a guest has said on its serial line, kept for the report: the last TRANSCRIPT_BYTES of it, since what matters
 * stands at the end.
 *
 * Threads: one at a time; on a run's end, after the vCPU threads have been joined.
 */
#ifndef LOAM_VMM_TRANSCRIPT_H
#define LOAM_VMM_TRANSCRIPT_H

#include <stddef.h>
#include <stdint.h>

#define TRANSCRIPT_BYTES ((size_t)256 * 1024)

/* bytes is a ring that total_bytes have gone through; NULL: nothing is kept. Starts as {0}. */
struct transcript {
    uint64_t total_bytes;
    uint8_t *bytes;
};

/* No memory: then nothing is kept, and total_bytes counts on. */
void transcript_open(struct transcript *transcript);
void transcript_close(struct transcript *transcript);

void transcript_add(struct transcript *transcript, const uint8_t *bytes, size_t count);

/* Bytes at the beginning that are not kept. */
uint64_t transcript_lost_bytes(const struct transcript *transcript);

/* What is kept, as UTF-8 (utf8.h). The caller's, to be freed with free; NULL: no memory. */
char *transcript_text(const struct transcript *transcript);

#endif
