// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Memory that a test leaves behind is freed after it. */
static void *kept[2100];
static size_t kept_count;

void *keep(void *memory)
{
    cr_assert_not_null(memory);
    cr_assert_lt(kept_count, sizeof kept / sizeof kept[0]);
    kept[kept_count++] = memory;
    return memory;
}

void free_kept(void)
{
    while (kept_count > 0) {
        free(kept[--kept_count]);
    }
}

void *metadata_alloc(size_t bytes)
{
    void *memory = aligned_alloc(LOAM_FRAME_METADATA_ALIGN, (bytes + 63) / 64 * 64);

    cr_assert_not_null(memory);
    memset(memory, 0xa5, (bytes + 63) / 64 * 64);
    return memory;
}

struct loam_frame *make(const struct loam_frame_config *config)
{
    size_t bytes = loam_frame_bytes(config);
    struct loam_frame *frame;

    cr_assert_eq(loam_frame_init(keep(metadata_alloc(bytes)), bytes, config, &frame), LOAM_OK);
    return frame;
}

uint32_t add(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    size_t bytes = loam_frame_section_bytes(frame, pfn(start), count);
    uint32_t section;

    cr_assert_eq(loam_frame_section_add(frame, pfn(start), count, keep(metadata_alloc(bytes)), bytes, &section),
                 LOAM_OK);
    return section;
}

struct loam_frame *make_with(uint64_t start, uint64_t count)
{
    struct loam_frame *frame = make(NULL);

    add(frame, start, count);
    return frame;
}

void assert_valid(const struct loam_frame *frame)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_frame_validate(frame, &diag), LOAM_OK, "%s", diag.text);
}
