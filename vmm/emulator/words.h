// SPDX-License-Identifier: Apache-2.0
/*
 * The value of one option of QEMU's command line, as words: "first,key=value,key=value", where two commas are one comma
 * of a value and a key alone is key=on; or a JSON object, whose members are read into the same words: {"cache":{"direct":
 * true},"host-nodes":[0,1]} is cache.direct=on,host-nodes=0,host-nodes=1.
 *
 * words_read takes a value apart, words_fit holds it against what is known, and what is asked for after that is there and
 * of its kind. A value may be anybody's: lengths, counts and depths are bounded.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_EMULATOR_WORDS_H
#define LOAM_VMM_EMULATOR_WORDS_H

#include "loam/error.h"

#include <stdbool.h>
#include <stdint.h>

#define WORDS_BYTES_MAX      65536u /* of a value */
#define WORDS_COUNT_MAX      64u    /* of a value */
#define WORDS_KEY_BYTES_MAX  63u
#define WORDS_DEPTH_MAX      4u /* of JSON within JSON */
#define WORDS_ID_BYTES_MAX   127u
#define WORDS_PATH_BYTES_MAX 4095u

struct words_word {
    const char *key;
    const char *value;
};

/* One option and its value. */
struct words {
    const char *option; /* "-device"; the caller's */
    const char *first;  /* the key of a first word without one; the caller's */
    uint32_t count;
    struct words_word *list;
    char *text; /* which the words lie in */
};

enum words_kind {
    WORDS_TEXT,   /* of `least` to `most` bytes; most 0: WORDS_BYTES_MAX */
    WORDS_ID,     /* a letter, then letters, digits, '-', '.' and '_' */
    WORDS_PATH,   /* not empty, of at most WORDS_PATH_BYTES_MAX bytes */
    WORDS_NUMBER, /* decimal, from least to most, without leading zeros */
    WORDS_BYTES,  /* a size: a number with an optional k, M, G or T (binary) */
    WORDS_MIB,    /* as BYTES; without a letter in MiB */
    WORDS_RANGE,  /* "N" or "N-M", both up to `most`, which is 63 at most */
    WORDS_SWITCH, /* on or off */
    WORDS_CHOICE, /* one of choices */
    WORDS_UUID,
    WORDS_MAC, /* of one device, so no multicast address */
};

/* A key that is known. */
struct words_key {
    const char *name;
    enum words_kind kind;
    const char *choices; /* CHOICE: with a space between */
    uint64_t least, most;
    bool needed;
    bool many;       /* may be there more than once */
    const char *why; /* why it can be nothing else; NULL: that is plain */
};

/* What the first word can be, and which keys go with it. */
struct words_type {
    const char *name; /* NULL: the first word is a key like others */
    const struct words_key *keys;
    uint32_t key_count;
    const char *why; /* known, and not to be had: what to do; NULL: to be had */
};

/*
 * Take value apart. first: the key of a first word without one; NULL: such a word is a key like others. may_be_json: a value
 * that begins with '{' is JSON. On failure nothing is left. LOAM_ERROR_INVALID; LOAM_ERROR_SYSTEM: no memory.
 */
LOAM_MUST_USE enum loam_error words_read(const char *option, const char *first, bool may_be_json, const char *value,
                                         struct words *words, struct loam_diag *diag);

/* Of zero: nothing. */
void words_release(struct words *words);

/*
 * Whether the words are those of one of the types, each key known, once, and of its kind. *type is its index. what: what
 * the types are, "device". LOAM_ERROR_INVALID: diag says which word it is, and what is possible.
 */
LOAM_MUST_USE enum loam_error words_fit(const struct words *words, const char *what, const struct words_type *types,
                                        uint32_t type_count, uint32_t *type, struct loam_diag *diag);

/* Whether a text is of the key's kind. LOAM_ERROR_INVALID: diag says why not, after `lead`, which is printed as it is. */
LOAM_MUST_USE enum loam_error words_fit_value(const char *lead, const struct words_key *key, const char *value,
                                              struct loam_diag *diag);

/* --- What the words say, once they fit ---------------------------------------------------------------------------- */

/* NULL: the key is not there. The words'. */
const char *words_get(const struct words *words, const char *key);

bool words_is_on(const struct words *words, const char *key, bool otherwise);
bool words_is(const struct words *words, const char *key, const char *value);

/* NUMBER, BYTES or MIB. */
uint64_t words_number(const struct words *words, const char *key, uint64_t otherwise);

/* RANGE: a bit for each number of all words of that key. */
uint64_t words_mask(const struct words *words, const char *key);

/* A copy of the value, the caller's; NULL: the key is not there. LOAM_ERROR_SYSTEM: no memory. */
LOAM_MUST_USE enum loam_error words_copy(const struct words *words, const char *key, char **copy,
                                         struct loam_diag *diag);

/* A copy, the caller's; NULL: no memory. */
char *words_duplicate(const char *text);

/* --- Refusals ----------------------------------------------------------------------------------------------------- */

#define WORDS_SHOWN_BYTES 64u /* of a text that is longer, escapes included, that much is shown */

/* Somebody's text as a part of one line: short, and nothing in it that a terminal obeys. */
struct words_shown {
    char text[WORDS_SHOWN_BYTES * 4 + 4];
};

struct words_shown words_show(const char *text);

/*
 * "-device virtio-blk-device,id=disk0: drive=x: TEXT", or without key= if key is NULL or not there. Returns
 * LOAM_ERROR_INVALID.
 */
LOAM_PRINTF(4, 5)
enum loam_error words_refuse(const struct words *words, const char *key, struct loam_diag *diag, const char *format,
                             ...);

/* Bytes of "64", "64k", "64M", "64G" or "64T", capital or not; without a letter it counts unit bytes. false: no such. */
bool words_parse_bytes(const char *text, uint64_t unit, uint64_t *bytes);

/* A decimal number without sign or leading zeros, up to most, which *end follows (NULL: nothing may). */
bool words_parse_number(const char *text, uint64_t most, uint64_t *number, const char **end);

/* Six bytes of "52:54:00:12:34:56". */
bool words_parse_mac(const char *text, uint8_t mac[6]);

#endif
