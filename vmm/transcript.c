// SPDX-License-Identifier: Apache-2.0
#include "vmm/transcript.h"

#include "vmm/utf8.h"

#include <stdlib.h>
#include <string.h>

void transcript_open(struct transcript *transcript)
{
    *transcript = (struct transcript){.bytes = malloc(TRANSCRIPT_BYTES)};
}

void transcript_close(struct transcript *transcript)
{
    free(transcript->bytes);
    *transcript = (struct transcript){0};
}

static size_t kept_bytes(const struct transcript *transcript)
{
    if (transcript->bytes == NULL) {
        return 0;
    }
    return transcript->total_bytes < TRANSCRIPT_BYTES ? (size_t)transcript->total_bytes : TRANSCRIPT_BYTES;
}

uint64_t transcript_lost_bytes(const struct transcript *transcript)
{
    return transcript->total_bytes - kept_bytes(transcript);
}

void transcript_add(struct transcript *transcript, const uint8_t *bytes, size_t count)
{
    while (count > 0) {
        size_t at = (size_t)(transcript->total_bytes % TRANSCRIPT_BYTES);
        size_t part = count < TRANSCRIPT_BYTES - at ? count : TRANSCRIPT_BYTES - at;

        if (transcript->bytes != NULL) {
            memcpy(transcript->bytes + at, bytes, part);
        }
        transcript->total_bytes += part;
        bytes += part;
        count -= part;
    }
}

char *transcript_text(const struct transcript *transcript)
{
    size_t kept = kept_bytes(transcript), from = (size_t)(transcript_lost_bytes(transcript) % TRANSCRIPT_BYTES);
    size_t first = kept < TRANSCRIPT_BYTES - from ? kept : TRANSCRIPT_BYTES - from;
    uint8_t *whole = malloc(kept + 1);
    char *text = malloc(UTF8_REPAIRED_BYTES(kept));

    if (whole != NULL && text != NULL) {
        if (kept > 0) {
            memcpy(whole, transcript->bytes + from, first);
            memcpy(whole + first, transcript->bytes, kept - first);
        }
        utf8_repair(whole, kept, text);
    } else {
        free(text);
        text = NULL;
    }
    free(whole);
    return text;
}
