// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/subject.h"

#include <stdlib.h>

#define CACHES 2u /* thread_bench.c's */

static uint32_t section_count(const struct subject_sections *sections)
{
    return sections->count == 0 ? 1 : sections->count;
}

/* In a random order. */
static void each_section(const struct subject_sections *sections, struct subject *subject,
                         void (*add)(struct subject *subject, const struct subject_sections *sections, uint64_t start,
                                     uint32_t index))
{
    uint32_t count = section_count(sections);
    uint32_t *order = calloc(count, sizeof *order);
    struct bench_random random = {1};

    bench_random_order(&random, order, count);
    for (uint32_t i = 0; i < count; i++) {
        add(subject, sections, sections->start_frame + order[i] * sections->every_frames, i);
    }
    free(order);
}

/* --- Loam ------------------------------------------------------------------------------------------------------ */

static struct loam_frame_config config_of(const struct subject_sections *sections)
{
    return (struct loam_frame_config){.section_capacity = section_count(sections),
                                      .cache_capacity = CACHES,
                                      .dma32_reserve_frames = sections->reserve_frames};
}

static size_t aligned(size_t bytes)
{
    return loam_align_up(bytes, LOAM_FRAME_METADATA_ALIGN);
}

/* Alike for all sections: they start and end at multiples of a chunk. */
static size_t section_bytes(const struct loam_frame *frame, const struct subject_sections *sections)
{
    return aligned(loam_frame_section_bytes(frame, (loam_pfn){sections->start_frame}, sections->frames));
}

static void add_loam(struct subject *subject, const struct subject_sections *sections, uint64_t start, uint32_t index)
{
    struct loam_frame_config config = config_of(sections);
    size_t bytes = section_bytes(subject->frame, sections);
    char *metadata = (char *)subject->memory + aligned(loam_frame_bytes(&config)) + index * bytes;

    bench_expect(loam_frame_section_add(subject->frame, (loam_pfn){start}, sections->frames, metadata, bytes, NULL),
                 "a section");
}

void subject_make_loam(struct subject *subject, const struct subject_sections *sections)
{
    struct loam_frame_config config = config_of(sections);
    size_t bytes = aligned(loam_frame_bytes(&config));

    bench_barrier_init();
    *subject = (struct subject){.memory = bench_map(bytes, true)};
    bench_expect(loam_frame_init(subject->memory, bytes, &config, &subject->frame), "an allocator");
    subject->bytes = bytes + section_bytes(subject->frame, sections) * section_count(sections);
    bench_unmap(subject->memory, bytes);
    subject->memory = bench_map(subject->bytes, true);
    bench_expect(loam_frame_init(subject->memory, bytes, &config, &subject->frame), "an allocator");
    each_section(sections, subject, add_loam);
    bench_expect(loam_frame_cache_make(subject->frame, &subject->cache), "a cache");
}

/* --- The reference --------------------------------------------------------------------------------------------- */

static size_t seed_bytes(const struct subject_sections *sections)
{
    return seed_record_bytes(sections->frames * SEED_FRAME_BYTES);
}

static void add_seed(struct subject *subject, const struct subject_sections *sections, uint64_t start, uint32_t index)
{
    struct seed_section *section = (struct seed_section *)subject->memory + index;
    char *records = (char *)((struct seed_section *)subject->memory + section_count(sections));
    struct seed_layout layout = seed_layout_out_of_band(start * SEED_FRAME_BYTES, sections->frames * SEED_FRAME_BYTES);

    if (sections->in_prefix) {
        bench_expect(seed_layout_in_prefix(layout.region_start, layout.region_bytes, &layout),
                     "the reference's layout");
    }
    bench_expect(seed_section_add(&subject->seed, section, &layout,
                                  (struct seed_record *)(records + index * seed_bytes(sections)), seed_bytes(sections)),
                 "the reference's section");
}

void subject_make_seed(struct subject *subject, const struct subject_sections *sections)
{
    *subject = (struct subject){0};
    subject->bytes = section_count(sections) * (sizeof(struct seed_section) + seed_bytes(sections));
    subject->memory = bench_map(subject->bytes, true);
    seed_init(&subject->seed);
    each_section(sections, subject, add_seed);
}

void subject_unmake(struct subject *subject)
{
    bench_unmap(subject->memory, subject->bytes);
    *subject = (struct subject){0};
}
