// SPDX-License-Identifier: Apache-2.0
/*
 * The beginning and the end of a slab allocator: sizes, init, attach, trim, destroy.
 */
#include "allocator/slab/slab_pool.h"

#include <inttypes.h>
#include <string.h>

#define SLAB_CAPACITY_DEFAULT  1024u
#define CACHE_CAPACITY_DEFAULT 4u

/* --- Sizes ------------------------------------------------------------------------------------------------------- */

/* The whole slabs of a window. */
static struct loam_slab_view view_of(const struct loam_slab_window *window)
{
    uint64_t start = loam_align_up(window->start.value, LOAM_SLAB_BYTES);
    uint64_t end = loam_align_down(window->start.value + window->bytes, LOAM_SLAB_BYTES);

    return (struct loam_slab_view){
        .start = start,
        .bytes = end > start ? end - start : 0,
        .hva = (uintptr_t)window->hva + (start - window->start.value),
    };
}

static bool windows_valid(const struct loam_slab_config *config)
{
    if (config->window_count == 0 || config->window_count > LOAM_SLAB_WINDOW_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < config->window_count; i++) {
        const struct loam_slab_window *window = &config->windows[i];

        if (!loam_gpa_range_valid(window->start, window->bytes) || view_of(window).bytes == 0) {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            const struct loam_slab_window *other = &config->windows[j];

            if (window->start.value < other->start.value + other->bytes &&
                other->start.value < window->start.value + window->bytes) {
                return false;
            }
        }
    }
    for (uint32_t i = config->window_count; i < LOAM_SLAB_WINDOW_MAX; i++) {
        if (config->windows[i].start.value != 0 || config->windows[i].bytes != 0 || config->windows[i].hva != NULL) {
            return false; /* it would have no effect */
        }
    }
    return true;
}

/* What config amounts to; .bytes is 0 if it is invalid. */
static struct slab_sealed layout_of(const struct loam_slab_config *config)
{
    struct slab_sealed sealed = {.magic = SLAB_MAGIC};

    if (config == NULL || config->slab_capacity > LOAM_SLAB_CAPACITY_MAX ||
        config->cache_capacity > LOAM_SLAB_CACHE_MAX ||
        (config->limit.value != 0 && config->limit.value < LOAM_SLAB_BYTES) || !windows_valid(config)) {
        return sealed;
    }
    sealed.limit = config->limit.value;
    sealed.unit_capacity = config->slab_capacity != 0 ? config->slab_capacity : SLAB_CAPACITY_DEFAULT;
    sealed.cache_capacity = config->cache_capacity != 0 ? config->cache_capacity : CACHE_CAPACITY_DEFAULT;
    sealed.window_count = config->window_count;
    for (uint32_t i = 0; i < config->window_count; i++) {
        sealed.windows[i] = (struct sealed_window){config->windows[i].start.value, config->windows[i].bytes};
        sealed.table_count += view_of(&config->windows[i]).bytes >> SLAB_SHIFT;
    }
    sealed.caches_offset = sizeof(struct loam_slab_shared);
    sealed.units_offset = sealed.caches_offset + sealed.cache_capacity * sizeof(struct loam_slab_cache);
    sealed.table_offset = sealed.units_offset + (sealed.unit_capacity + UINT64_C(1)) * sizeof(struct slab_unit);
    sealed.bytes = sealed.table_offset + loam_align_up(sealed.table_count * sizeof(uint32_t), LOAM_SLAB_METADATA_ALIGN);
    return sealed;
}

/* FNV-1a over all that stands before sum. */
static uint64_t sum_of(const struct slab_sealed *sealed)
{
    const unsigned char *bytes = (const unsigned char *)sealed;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < offsetof(struct slab_sealed, sum); i++) {
        sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return sum;
}

bool loam_slab_pool_sealed(const struct loam_slab_shared *shared)
{
    return shared->sealed.magic == SLAB_MAGIC && shared->sealed.sum == sum_of(&shared->sealed);
}

size_t loam_slab_bytes(const struct loam_slab_config *config)
{
    return layout_of(config).bytes;
}

/* --- Handles ----------------------------------------------------------------------------------------------------- */

static void open_handle(struct loam_slab_shared *shared, const struct loam_slab_config *config,
                        struct loam_frame *frame, struct loam_slab *slab)
{
    uint64_t first = 0;

    *slab = (struct loam_slab){
        .shared = shared, .frame = frame, .frame_shift = loam_frame_shift(frame), .window_count = config->window_count};
    for (uint32_t i = 0; i < config->window_count; i++) {
        slab->windows[i] = view_of(&config->windows[i]);
        slab->windows[i].first = first;
        first += slab->windows[i].bytes >> SLAB_SHIFT;
    }
}

enum loam_error loam_slab_init(void *memory, size_t bytes, const struct loam_slab_config *config,
                               struct loam_frame *frame, struct loam_slab *slab)
{
    struct slab_sealed sealed = layout_of(config);
    struct loam_slab_shared *shared = memory;

    if (slab == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *slab = (struct loam_slab){0};
    if (memory == NULL || frame == NULL || sealed.bytes == 0 || bytes < sealed.bytes ||
        !loam_is_aligned((uintptr_t)memory, LOAM_SLAB_METADATA_ALIGN)) {
        return LOAM_ERROR_INVALID;
    }
    sealed.frame_shift = loam_frame_shift(frame);
    sealed.sum = sum_of(&sealed);
    /* Units stay untouched until they are used; the first is nobody's. */
    memset(shared, 0, sealed.units_offset);
    memset((char *)memory + sealed.units_offset, 0, sizeof(struct slab_unit));
    memset((char *)memory + sealed.table_offset, 0, sealed.bytes - sealed.table_offset);
    shared->sealed = sealed;
    shared->unit_top = 1;
    shared_store(slab_units(shared)[SLAB_UNIT_NONE].key, SLAB_KEY_NONE);
    /* What a cache without a held word takes for its F: all free, so that nothing can be freed there. */
    shared_store(slab_units(shared)[SLAB_UNIT_NONE].free[0], UINT64_MAX);
    open_handle(shared, config, frame, slab);
    return LOAM_OK;
}

/* Whether config's windows and figures are those of init. */
static bool same_config(const struct slab_sealed *sealed, const struct loam_slab_config *config)
{
    struct slab_sealed wanted = layout_of(config);

    return wanted.bytes == sealed->bytes && wanted.limit == sealed->limit &&
           wanted.unit_capacity == sealed->unit_capacity && wanted.cache_capacity == sealed->cache_capacity &&
           wanted.window_count == sealed->window_count &&
           memcmp(wanted.windows, sealed->windows, sizeof wanted.windows) == 0;
}

enum loam_error loam_slab_attach(void *memory, size_t bytes, const struct loam_slab_config *config,
                                 struct loam_frame *frame, struct loam_slab *slab, struct loam_diag *diag)
{
    struct loam_slab_shared *shared = memory;

    if (slab != NULL) {
        *slab = (struct loam_slab){0};
    }
    if (memory == NULL || frame == NULL || slab == NULL ||
        !loam_is_aligned((uintptr_t)memory, LOAM_SLAB_METADATA_ALIGN) || bytes < sizeof *shared) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "slab: attach wants memory aligned to %u bytes, at least %zu of them, and a frame allocator: "
                         "got %zu bytes at %p",
                         LOAM_SLAB_METADATA_ALIGN, sizeof *shared, bytes, memory);
    }
    if ((shared->sealed.magic ^ SLAB_MAGIC) << 8 != 0) {
        return loam_fail(diag, LOAM_ERROR_UNINITIALISED, "slab: no slab allocator at %p: init it first", memory);
    }
    if (shared->sealed.magic != SLAB_MAGIC) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "slab: the layout at %p is of version '%c', wanted '%c': init again",
                         memory, (int)(shared->sealed.magic >> 56), (int)(SLAB_MAGIC >> 56));
    }
    if (!loam_slab_pool_sealed(shared)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "slab: the constants at %p do not match their sum", memory);
    }
    if (bytes < shared->sealed.bytes) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "slab: %zu bytes given, the allocator has %" PRIu64, bytes,
                         shared->sealed.bytes);
    }
    if (!same_config(&shared->sealed, config) || loam_frame_shift(frame) != shared->sealed.frame_shift) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "slab: windows, limit, capacities or frame size differ from those of init: give the same");
    }
    open_handle(shared, config, frame, slab);
    return LOAM_OK;
}

/* --- The end ----------------------------------------------------------------------------------------------------- */

/* The lowest slab without an owner in which an object is live; SLAB_KEY_NONE if there is none. All caches are gone. */
static uint64_t lowest_live(const struct loam_slab *slab)
{
    const struct slab_unit *units = slab_units(slab->shared);
    uint64_t lowest = SLAB_KEY_NONE;

    for (uint32_t i = 1; i < slab->shared->unit_top; i++) {
        uint64_t key = shared_load(units[i].key);

        if (shared_load(units[i].kind) == SLAB_UNIT_HEAD && slab_used_of(&units[i]) > 0 && key < lowest) {
            lowest = key;
        }
    }
    return lowest;
}

/* The first live object of the slab whose key is key. */
static uint64_t first_live(const struct loam_slab *slab, uint64_t key)
{
    struct slab_unit *units = slab_units(slab->shared);
    uint32_t class = (uint32_t)(key & SLAB_CLASS_MASK), word = 0;
    struct slab_unit *head =
        &units[shared_load(*slab_table_entry(slab, slab_window(slab, slab_key_gpa(key)), slab_key_gpa(key)))];
    uint64_t live;

    do {
        live =
            ~shared_load(slab_word_unit(units, head, word)->free[word % SLAB_UNIT_WORDS]) & slab_class_word_mask(class);
    } while (live == 0 && ++word < slab_class_words(class));
    if (live == 0) {
        return slab_key_gpa(key);
    }
    return slab_key_gpa(key) + ((word * UINT64_C(64) + (unsigned)__builtin_ctzll(live)) << slab_class_shift(class));
}

enum loam_error loam_slab_destroy(struct loam_slab *slab, loam_gpa *blocker)
{
    struct loam_slab_shared *shared = slab != NULL ? slab->shared : NULL;
    uint64_t key;

    if (blocker != NULL) {
        *blocker = loam_gpa_from_u64(0);
    }
    if (shared == NULL) {
        return slab == NULL ? LOAM_ERROR_INVALID : LOAM_ERROR_UNINITIALISED;
    }
    for (uint32_t id = 1; id <= shared->sealed.cache_capacity; id++) {
        if (shared_load(slab_cache_at(shared, id)->id) != 0) {
            return LOAM_ERROR_BUSY;
        }
    }
    for (uint32_t i = 1; i < shared->unit_top; i++) {
        loam_slab_pool_settle(slab, i);
    }
    key = lowest_live(slab);
    if (key != SLAB_KEY_NONE) {
        if (blocker != NULL) {
            *blocker = loam_gpa_from_u64(first_live(slab, key));
        }
        return LOAM_ERROR_BUSY;
    }
    loam_slab_pool_trim(slab);
    shared->sealed.magic = 0;
    *slab = (struct loam_slab){0};
    return LOAM_OK;
}

void loam_slab_freeze(struct loam_slab *slab)
{
    if (slab != NULL && slab->shared != NULL) {
        loam_slab_pool_lock(slab->shared);
    }
}

void loam_slab_thaw(struct loam_slab *slab)
{
    if (slab != NULL && slab->shared != NULL) {
        loam_lock_give_after_fork(&slab->shared->lock);
    }
}

enum loam_error loam_slab_trim(struct loam_slab *slab)
{
    if (slab == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (slab->shared == NULL) {
        return LOAM_ERROR_UNINITIALISED;
    }
    loam_slab_pool_trim(slab);
    return LOAM_OK;
}
