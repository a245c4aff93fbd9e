// SPDX-License-Identifier: Apache-2.0
#include "guest/ranges.h"

#define PAGE_BYTES UINT64_C(4096)

bool ranges_valid(const struct loam_abi_range *range, uint64_t align_bytes)
{
    uint64_t misaligned = (range->start | range->bytes) & (align_bytes - 1);

    return misaligned == 0 && range->bytes > 0 && range->start <= UINT64_MAX - range->bytes;
}

bool ranges_overlap(const struct loam_abi_range *a, const struct loam_abi_range *b)
{
    return a->start < b->start + b->bytes && b->start < a->start + a->bytes;
}

/* The bytes of the pages that range touches, first and last: an end could wrap. */
struct extent {
    uint64_t first;
    uint64_t last;
};

static struct extent whole_pages(const struct loam_abi_range *range)
{
    uint64_t last = range->start + (range->bytes - 1);

    return (struct extent){range->start & ~(PAGE_BYTES - 1), last | (PAGE_BYTES - 1)};
}

/* Move start past the kept pages that it lies in, up to end. */
static uint64_t skip_kept(const struct loam_abi_table *table, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < table->range_count && start < end; i++) {
        const struct loam_abi_range *range = &table->ranges[i];
        struct extent kept;

        if (range->kind != LOAM_ABI_KIND_KEPT || !ranges_valid(range, 1)) {
            continue;
        }
        kept = whole_pages(range);
        if (kept.first <= start && start <= kept.last) {
            start = kept.last < end ? kept.last + 1 : end;
            i = UINT32_MAX; /* from the first again: one that was passed may hold the new start */
        }
    }
    return start;
}

/* Where the first kept page after start begins, or end. */
static uint64_t next_kept(const struct loam_abi_table *table, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < table->range_count; i++) {
        const struct loam_abi_range *range = &table->ranges[i];

        if (range->kind == LOAM_ABI_KIND_KEPT && ranges_valid(range, 1)) {
            uint64_t first = whole_pages(range).first;

            end = first > start && first < end ? first : end;
        }
    }
    return end;
}

static const struct loam_abi_range *ram_at(const struct loam_abi_table *table, struct ranges_cursor *cursor)
{
    for (; cursor->index < table->range_count; cursor->index++, cursor->next = 0) {
        const struct loam_abi_range *range = &table->ranges[cursor->index];

        if (range->kind == LOAM_ABI_KIND_RAM && ranges_valid(range, PAGE_BYTES)) {
            return range;
        }
    }
    return 0;
}

bool ranges_next_piece(const struct loam_abi_table *table, struct ranges_cursor *cursor, struct ranges_piece *piece)
{
    const struct loam_abi_range *range;

    while ((range = ram_at(table, cursor)) != 0) {
        uint64_t end = range->start + range->bytes;

        piece->start = skip_kept(table, cursor->next > range->start ? cursor->next : range->start, end);
        piece->end = next_kept(table, piece->start, end);
        cursor->next = piece->end;
        if (piece->start < end) {
            return true;
        }
        cursor->index++;
        cursor->next = 0;
    }
    return false;
}
