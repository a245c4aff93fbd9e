// SPDX-License-Identifier: Apache-2.0
/*
 * The words in which hosts, pages and pools are spoken of on the command line, and figures as text.
 *
 * Pure; any thread.
 */
#ifndef LOAM_LIBVIRT_WORDS_H
#define LOAM_LIBVIRT_WORDS_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORDS_NODE_ANY      UINT32_MAX
#define WORDS_BASE_BYTES    UINT64_C(4096)
#define WORDS_PAGE_KIND_MAX 8u

/* What a guest's memory may be made of. */
enum page_source {
    PAGE_SOURCE_POOL, /* hugepages out of a pool */
    PAGE_SOURCE_THP,  /* ordinary memory that the kernel may join to huge pages */
    PAGE_SOURCE_BASE, /* ordinary memory */
};

struct page_kind {
    enum page_source source;
    uint64_t page_bytes; /* of one page of a pool; else WORDS_BASE_BYTES */
};

/* "2M:512@0": so many pages, of one node or, with WORDS_NODE_ANY, of the host. */
struct pool_wish {
    uint64_t page_bytes;
    uint64_t count;
    bool has_count;
    uint32_t node;
};

/* A text as a value. */
struct word {
    char text[48];
};

/* Bytes from a number with an optional suffix K, M, G or T (binary). false: no such number, or beyond 64 bits. */
bool words_parse_bytes(const char *text, uint64_t *bytes);

/* Whether a pool's pages can be of that size: a power of two from 8K to 1T. */
bool words_is_pool_page(uint64_t bytes);

/* "thp", "4K", or the size of a pool's pages such as 2M. */
bool words_parse_kind(const char *text, struct page_kind *kind);

/* Kinds with commas between, each once, WORDS_PAGE_KIND_MAX at most. LOAM_ERROR_INVALID: diag says which is wrong. */
LOAM_MUST_USE enum loam_error words_parse_kinds(const char *text, struct page_kind kinds[WORDS_PAGE_KIND_MAX],
                                                uint32_t *count, struct loam_diag *diag);

/* SIZE[:COUNT][@NODE]. LOAM_ERROR_INVALID: diag says what is wrong. */
LOAM_MUST_USE enum loam_error words_parse_pool(const char *text, struct pool_wish *wish, struct loam_diag *diag);

/* "2M", as words_parse_kind reads it. */
struct word words_page(uint64_t page_bytes);
struct word words_kind(const struct page_kind *kind);

/* "2M:512@0", as words_parse_pool reads it. */
struct word words_pool(const struct pool_wish *wish);

/* Bytes as a person says them: "2 GiB", "6.7 GiB". */
struct word words_amount(uint64_t bytes);

/*
 * text within single quotes for a shell, if it needs any; cut, never unquoted, where room has no space for it all. Control
 * characters stay: see vmm/printable.h.
 */
void words_quote(const char *text, char *quoted, size_t room);

#endif
