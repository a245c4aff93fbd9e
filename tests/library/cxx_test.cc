// SPDX-License-Identifier: Apache-2.0
/* The library as a C++ program finds it: every public header, every exported function by address, and the facade in use. */
#include "loam/backing.h"
#include "loam/dirty.h"
#include "loam/dma.h"
#include "loam/error.h"
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "loam/gpa_io.h"
#include "loam/gpa_map.h"
#include "loam/kvm.h"
#include "loam/memory.h"
#include "loam/plan.h"
#include "loam/slab.h"
#include "loam/slots.h"
#include "loam/types.h"
#include "loam/version.h"

#include <criterion/criterion.h>
#include <cstring>
#include <memory>
#include <type_traits>

namespace
{

struct Destroy {
    void operator()(loam_memory *memory) const
    {
        loam_memory_destroy(memory);
    }
};
using Memory = std::unique_ptr<loam_memory, Destroy>;

Memory make_memory()
{
    loam_memory_request request = {};
    loam_memory *memory = nullptr;
    loam_diag diag = {};
    loam_plan plan;

    request.bytes = 16 * LOAM_MIB;
    request.low_limit_bytes = 8 * LOAM_MIB;
    request.pages = LOAM_PAGES_4K;
    request.commit = LOAM_COMMIT_LAZY;
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    return Memory(memory);
}

/* One element a function that the shared library exports: libloam.lds, which a test holds against the headers. */
void (*const functions[])() = {
#define EXPORTED(name) reinterpret_cast<void (*)()>(name),
#include "tests/library/exported.inc"
#undef EXPORTED
};

} // namespace

Test(cxx, every_function_has_the_name_that_c_gives_it)
{
    cr_assert_gt(sizeof functions / sizeof *functions, 100u);
    for (void (*function)() : functions) {
        cr_expect(function != nullptr);
    }
}

Test(cxx, constants_have_the_type_of_what_they_bound)
{
    static_assert(std::is_same<decltype(LOAM_GPA_END), uint64_t>::value, "a GPA is 64 bits wide");
    static_assert(std::is_same<decltype(LOAM_GIB), uint64_t>::value, "sizes are 64 bits wide");
    static_assert(sizeof(loam_gpa) == sizeof(uint64_t) && std::is_trivial<loam_gpa>::value, "passed as an integer");
    static_assert(LOAM_GPA_END == uint64_t(1) << LOAM_GPA_BITS, "one says the other");
    static_assert(LOAM_FRAME_BYTES == uint64_t(1) << LOAM_FRAME_SHIFT, "one says the other");
    static_assert(LOAM_FRAME_COUNT_MAX == uint64_t(1) << LOAM_FRAME_ORDER_MAX, "one says the other");
    static_assert(LOAM_MIB == 1024 * LOAM_KIB && LOAM_GIB == 1024 * LOAM_MIB, "one says the other");
    cr_assert_eq(loam_gpa_from_pfn(loam_pfn_from_u64(3), LOAM_FRAME_SHIFT).value, 3 * LOAM_FRAME_BYTES);
}

Test(cxx, rings_are_carved_and_found_in_the_map)
{
    Memory memory = make_memory();
    loam_dma *dma = loam_memory_dma(memory.get());
    loam_gpa_map *map = loam_memory_map(memory.get());
    loam_virtqueue_layout layout = {};
    loam_virtqueue_rings rings = {};
    loam_dma_entry entry = {};
    void *hva = nullptr;

    cr_assert_eq(loam_virtqueue_get_layout(256, &layout), LOAM_OK);
    cr_assert_eq(loam_dma_alloc_virtqueue(dma, "rings", 256, loam_gpa_from_u64(LOAM_DMA32_END_BYTES), &rings, nullptr),
                 LOAM_OK);
    cr_assert_eq(rings.used.value - rings.descriptors.value, layout.used_offset_bytes);
    cr_assert_lt(rings.buffer.gpa.value, LOAM_DMA32_END_BYTES);

    const loam_gpa_view *view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_translate(view, rings.used, 4, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
    cr_assert_eq(hva, static_cast<char *>(rings.buffer.hva) + layout.used_offset_bytes);
    cr_assert_eq(loam_gpa_map_release(map, view), LOAM_OK);

    cr_assert_eq(loam_dma_find(dma, rings.used, &entry), LOAM_OK);
    cr_assert_str_eq(entry.owner, "rings");
    cr_assert_eq(loam_dma_release(dma, rings.buffer.id), LOAM_OK);
}

Test(cxx, frames_come_and_go_with_and_without_a_cache)
{
    Memory memory = make_memory();
    loam_frame *frame = loam_memory_frame(memory.get());
    const uint64_t before = loam_frame_get_stats(frame).free_frames;
    loam_frame_cache *cache = nullptr;
    loam_frame_block block = {};
    loam_frame_request request = {};
    loam_pfn start = {};

    request.count_frames = 3;
    cr_assert_eq(loam_frame_alloc(frame, &request, &block), LOAM_OK);
    cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_OK);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, loam_pfn{0}, &start), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, before - 4);
    cr_assert_eq(loam_frame_cache_free(cache, start, 1), LOAM_OK);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, block.start, 3), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, before);
    cr_assert_eq(loam_frame_get_fragmentation(frame).free_frames, before);
}

Test(cxx, slots_are_set_by_a_lambda)
{
    Memory memory = make_memory();
    loam_gpa_map *map = loam_memory_map(memory.get());
    const loam_gpa_view *view = loam_gpa_map_acquire(map);
    uint64_t bytes = 0;
    loam_slots_config config = {};
    loam_slots *slots = nullptr;

    config.set = [](void *self, const loam_slots_row *row) {
        *static_cast<uint64_t *>(self) += row->bytes;
        return 0;
    };
    config.self = &bytes;
    config.limit = 8;
    cr_assert_eq(loam_slots_create(&config, &slots, nullptr), LOAM_OK);
    cr_assert_eq(loam_slots_update(slots, view, nullptr), LOAM_OK);
    cr_assert_eq(bytes, 16 * LOAM_MIB);
    cr_assert_eq(loam_gpa_map_release(map, view), LOAM_OK);
    loam_slots_destroy(slots);
}

Test(cxx, headers_and_library_are_of_one_version)
{
    cr_assert_str_eq(loam_version(), LOAM_VERSION);
}

Test(cxx, a_refusal_says_why)
{
    loam_memory_request request = {};
    loam_diag diag = {};
    loam_plan plan;

    request.bytes = 1;
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_ERROR_INVALID);
    cr_assert_neq(std::strlen(diag.text), 0u);
    cr_assert_str_eq(loam_error_name(diag.error), "invalid argument");
}
