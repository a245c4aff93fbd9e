// SPDX-License-Identifier: Apache-2.0
#include "loam/dma.h"

#include "allocator/dma_ledger.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE          LOAM_FRAME_BYTES
#define SEGMENT_BYTES (DMA_LEDGER_SEGMENT_FIRST * sizeof(struct dma_slot) + 64)

/* --- Heap that fails when told to; linked with --wrap ------------------------------------------------------------ */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

static atomic_int heap_failure;          /* fails the n-th call from now; 0: none */
static _Atomic(struct dma_slot *) slots; /* the ledger's first, to set what no test has the time to count up to */

static bool heap_fails(void)
{
    bool fails = atomic_load(&heap_failure) > 0 && atomic_fetch_sub(&heap_failure, 1) == 1;

    if (fails) {
        errno = ENOMEM;
    }
    return fails;
}

void *__wrap_malloc(size_t bytes)
{
    return heap_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *memory = heap_fails() ? NULL : __real_calloc(count, bytes);

    if (bytes == SEGMENT_BYTES && memory != NULL) {
        slots = (struct dma_slot *)loam_align_up((uintptr_t)memory, 64);
    }
    return memory;
}

/* --- A guest of three sections ----------------------------------------------------------------------------------- */

/* RAM below 3 MiB, up to 4 GiB, and from there on: the latter two touch, and are two sections and two regions. */
static const struct part {
    uint64_t start;
    uint64_t frames;
} parts[] = {{LOAM_MIB, 512}, {4 * LOAM_GIB - LOAM_MIB, 256}, {4 * LOAM_GIB, 512}};

#define PART_COUNT  (sizeof parts / sizeof *parts)
#define FRAME_COUNT 1280u

static struct guest {
    struct loam_frame *frame;
    struct loam_gpa_map *map;
    struct loam_dma *dma;
    char *host[PART_COUNT];
    void *section[PART_COUNT];
} guest;

static struct loam_region region_of(size_t part)
{
    return (struct loam_region){.start = {parts[part].start},
                                .bytes = parts[part].frames * PAGE,
                                .hva = guest.host[part],
                                .backing = (uint32_t)part,
                                .type = LOAM_REGION_RAM,
                                .access = LOAM_ACCESS_WRITE};
}

static void add_part(size_t part)
{
    size_t host_bytes = parts[part].frames * PAGE;
    loam_pfn start = {parts[part].start / PAGE};
    size_t bytes = loam_frame_section_bytes(guest.frame, start, parts[part].frames);
    struct loam_region region;

    /* Host memory of two parts must not be contiguous by chance: a guard page between. */
    guest.host[part] = aligned_alloc(PAGE, host_bytes + PAGE);
    memset(guest.host[part], 0xa5, host_bytes);
    guest.section[part] = aligned_alloc(LOAM_FRAME_METADATA_ALIGN, loam_align_up(bytes, LOAM_FRAME_METADATA_ALIGN));
    region = region_of(part);
    cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
    cr_assert_eq(loam_frame_section_add(guest.frame, start, parts[part].frames, guest.section[part], bytes, NULL),
                 LOAM_OK);
}

static void set_up(void)
{
    size_t bytes = loam_align_up(loam_frame_bytes(NULL), 64);
    void *memory = aligned_alloc(64, bytes);

    cr_assert_eq(loam_frame_init(memory, bytes, NULL, &guest.frame), LOAM_OK);
    bytes = loam_gpa_map_bytes(NULL);
    memory = aligned_alloc(64, bytes);
    cr_assert_eq(loam_gpa_map_init(memory, bytes, NULL, &guest.map), LOAM_OK);
    for (size_t i = 0; i < PART_COUNT; i++) {
        add_part(i);
    }
    cr_assert_eq(loam_dma_create(guest.frame, guest.map, &guest.dma), LOAM_OK);
}

static uint64_t free_frames(void)
{
    return loam_frame_get_stats(guest.frame).free_frames;
}

static void tear_down(void)
{
    loam_dma_destroy(guest.dma);
    for (size_t i = 0; i < PART_COUNT; i++) {
        free(guest.host[i]);
        free(guest.section[i]);
    }
    free(guest.map);
    free(guest.frame);
}

TestSuite(dma, .init = set_up, .fini = tear_down);

static void assert_valid(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_dma_validate(guest.dma, &diag), LOAM_OK, "%s", diag.text);
}

/* The ledger's own. */
static struct loam_dma_entry *entry_of(struct loam_dma_buffer buffer)
{
    struct dma_slot *slot = slots;

    while (slot->entry.buffer.id != buffer.id) {
        slot++;
    }
    return &slot->entry;
}

/* Expect an error of alloc that leaves no trace. */
static void assert_refused(struct loam_dma_request request, enum loam_error expected)
{
    struct loam_dma_buffer buffer = {1, {1}, &buffer, 1};
    struct loam_diag diag = {0};
    uint64_t free_before = free_frames();
    uint32_t count = loam_dma_count(guest.dma);
    enum loam_error error;

    errno = ERANGE;
    error = loam_dma_alloc(guest.dma, &request, &buffer, &diag);
    cr_assert_eq(errno, ERANGE, "a refusal is no failure of the system");
    cr_assert_eq(diag.system_errno, 0);
    cr_assert_eq(error, expected, "%s instead of %s: %s", loam_error_name(error), loam_error_name(expected), diag.text);
    cr_assert_eq(diag.error, expected);
    cr_assert_neq(diag.text[0], 0);
    cr_assert_null(strchr(diag.text, '\n'));
    cr_assert_eq(buffer.id, 0);
    cr_assert_eq(buffer.gpa.value, 0);
    cr_assert_null(buffer.hva);
    cr_assert_eq(buffer.bytes, 0);
    cr_assert_eq(loam_dma_count(guest.dma), count);
    cr_assert_eq(free_frames(), free_before);
    cr_assert_eq(loam_dma_alloc(guest.dma, &request, &buffer, NULL), expected);
    assert_valid();
}

static struct loam_dma_buffer alloc(struct loam_dma_request request)
{
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};

    request.owner = request.owner == NULL ? "test" : request.owner;
    cr_assert_eq(loam_dma_alloc(guest.dma, &request, &buffer, &diag), LOAM_OK, "%s", diag.text);
    return buffer;
}

static bool all_bytes(const void *memory, uint64_t bytes, char value)
{
    const char *p = memory;

    return p[0] == value && memcmp(p, p + 1, bytes - 1) == 0;
}

/* xorshift64*: Vigna, 2016. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* --- Lifecycle --------------------------------------------------------------------------------------------------- */

Test(dma, create_checks_its_arguments_and_survives_a_full_heap)
{
    struct loam_dma *dma = guest.dma;

    cr_assert_eq(loam_dma_create(NULL, guest.map, &dma), LOAM_ERROR_INVALID);
    cr_assert_null(dma);
    cr_assert_eq(loam_dma_create(guest.frame, NULL, &dma), LOAM_ERROR_INVALID);
    heap_failure = 1;
    cr_assert_eq(loam_dma_create(guest.frame, guest.map, &dma), LOAM_ERROR_SYSTEM);
    cr_assert_null(dma);
    cr_assert_eq(loam_dma_destroy(NULL), 0);
}

Test(dma, destroy_counts_and_frees_what_is_left)
{
    struct loam_dma_buffer pinned = alloc((struct loam_dma_request){.bytes = 3 * PAGE});

    alloc((struct loam_dma_request){.bytes = 5 * PAGE});
    cr_assert_eq(loam_dma_pin(guest.dma, pinned.id), LOAM_OK);
    cr_assert_eq(free_frames(), FRAME_COUNT - 8);
    cr_assert_eq(loam_dma_destroy(guest.dma), 2);
    cr_assert_eq(free_frames(), FRAME_COUNT);
    cr_assert_eq(loam_dma_create(guest.frame, guest.map, &guest.dma), LOAM_OK);
    cr_assert_eq(loam_dma_count(guest.dma), 0);
}

/* --- Buffers ----------------------------------------------------------------------------------------------------- */

Test(dma, a_buffer_is_whole_zeroed_frames_at_one_gpa_and_hva)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE + 1, .owner = "two pages"});
    const struct loam_gpa_view *view = loam_gpa_map_acquire(guest.map);
    struct loam_dma_entry entry;
    void *hva;

    cr_assert_neq(buffer.id, 0);
    cr_assert_eq(buffer.bytes, 2 * PAGE);
    cr_assert_eq(loam_gpa_view_translate(view, buffer.gpa, buffer.bytes, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
    loam_gpa_map_release(guest.map, view);
    cr_assert_eq(hva, buffer.hva);
    cr_assert(all_bytes(buffer.hva, buffer.bytes, 0));
    cr_assert_eq(free_frames(), FRAME_COUNT - 2);
    cr_assert_eq(loam_dma_find(guest.dma, (loam_gpa){buffer.gpa.value + buffer.bytes - 1}, &entry), LOAM_OK);
    cr_assert_str_eq(entry.owner, "two pages");
    cr_assert_eq(entry.pin_count, 0);
    cr_assert_eq(entry.buffer.id, buffer.id);
    cr_assert_eq(loam_dma_find(guest.dma, (loam_gpa){buffer.gpa.value + buffer.bytes}, &entry), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_dma_find(guest.dma, (loam_gpa){buffer.gpa.value - 1}, &entry), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(entry.buffer.id, 0);
    assert_valid();
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(free_frames(), FRAME_COUNT);
}

Test(dma, only_the_buffer_is_zeroed_and_only_if_wanted)
{
    struct loam_dma_buffer buffer =
        alloc((struct loam_dma_request){.bytes = 2 * PAGE, .at = {LOAM_MIB + PAGE}, .flags = LOAM_DMA_AT});

    cr_assert_eq(buffer.hva, guest.host[0] + PAGE);
    cr_assert(all_bytes(guest.host[0], PAGE, (char)0xa5));
    cr_assert(all_bytes(guest.host[0] + PAGE, 2 * PAGE, 0));
    cr_assert(all_bytes(guest.host[0] + 3 * PAGE, PAGE, (char)0xa5));
    buffer = alloc(
        (struct loam_dma_request){.bytes = PAGE, .at = {LOAM_MIB + 3 * PAGE}, .flags = LOAM_DMA_AT | LOAM_DMA_NO_ZERO});
    cr_assert(all_bytes(buffer.hva, PAGE, (char)0xa5));
}

Test(dma, malformed_requests_are_refused)
{
    const struct loam_dma_request good = {.owner = "x", .bytes = PAGE};
    char name[LOAM_DMA_OWNER_MAX + 2], *unterminated = malloc(LOAM_DMA_OWNER_MAX + 1);
    struct loam_dma_request bad;

#define BAD(member, value)                                                                                             \
    bad = good;                                                                                                        \
    bad.member = value;                                                                                                \
    assert_refused(bad, LOAM_ERROR_INVALID)
    memset(name, 'n', sizeof name);
    memset(unterminated, 'n', LOAM_DMA_OWNER_MAX + 1);
    name[LOAM_DMA_OWNER_MAX + 1] = '\0';
    BAD(owner, NULL);
    BAD(owner, "");
    BAD(owner, name);
    BAD(owner, unterminated);
    BAD(owner, "two\nlines");
    BAD(owner, "\xff");
    BAD(owner, "\x7f");
    BAD(bytes, 0);
    BAD(bytes, 4 * LOAM_GIB + 1);
    BAD(bytes, UINT64_MAX);
    BAD(align_bytes, 3);
    BAD(align_bytes, 3 * PAGE);
    BAD(align_bytes, 8 * LOAM_GIB);
    BAD(align_bytes, UINT64_C(1) << 63);
    BAD(boundary_bytes, PAGE / 2);
    BAD(boundary_bytes, 3 * PAGE);
    BAD(flags, 1u << 5);
    BAD(flags, LOAM_DMA_AT | LOAM_DMA_IN);
    BAD(at.value, LOAM_MIB);
    BAD(at.value, 1);
    BAD(flags, UINT32_MAX);
#undef BAD
    bad = (struct loam_dma_request){.owner = "x", .bytes = PAGE, .flags = LOAM_DMA_AT, .at = {LOAM_MIB + 8}};
    assert_refused(bad, LOAM_ERROR_INVALID);
    bad.at.value = LOAM_GPA_END;
    assert_refused(bad, LOAM_ERROR_INVALID);
    bad.at.value = UINT64_MAX - PAGE + 1;
    assert_refused(bad, LOAM_ERROR_INVALID);
    bad.at.value = LOAM_MIB + PAGE;
    bad.align_bytes = 2 * PAGE;
    assert_refused(bad, LOAM_ERROR_INVALID);
    bad.align_bytes = 0;
    bad.limit.value = LOAM_MIB + 2 * PAGE - 1;
    assert_refused(bad, LOAM_ERROR_INVALID);
    bad.limit.value = 1;
    assert_refused(bad, LOAM_ERROR_INVALID);
    bad.limit.value = 0;
    bad.bytes = bad.boundary_bytes = 2 * PAGE;
    assert_refused(bad, LOAM_ERROR_INVALID);
    cr_assert_eq(loam_dma_count(guest.dma), 0);
    free(unterminated);
}

Test(dma, owners_of_one_and_of_63_characters_are_kept_whole)
{
    char name[LOAM_DMA_OWNER_MAX + 1];
    struct loam_dma_entry entry;

    memset(name, '~', sizeof name);
    name[LOAM_DMA_OWNER_MAX] = '\0';
    alloc((struct loam_dma_request){.owner = name, .bytes = 1, .at = {LOAM_MIB}, .flags = LOAM_DMA_AT});
    alloc((struct loam_dma_request){.owner = " ", .bytes = 1, .at = {LOAM_MIB + PAGE}, .flags = LOAM_DMA_AT});
    cr_assert_eq(loam_dma_next(guest.dma, (loam_gpa){0}, &entry), LOAM_OK);
    cr_assert_str_eq(entry.owner, name);
    cr_assert_eq(loam_dma_next(guest.dma, loam_dma_entry_end(&entry), &entry), LOAM_OK);
    cr_assert_str_eq(entry.owner, " ");
    cr_assert_eq(loam_dma_next(guest.dma, loam_dma_entry_end(&entry), &entry), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(entry.owner[0], 0);
}

Test(dma, places_that_are_taken_or_no_ram)
{
    struct loam_dma_request request = {
        .owner = "here", .bytes = 2 * PAGE, .at = {LOAM_MIB + PAGE}, .flags = LOAM_DMA_AT};
    struct loam_dma_buffer buffer = alloc(request);
    struct loam_diag diag = {0};
    loam_pfn frame;

    cr_assert_eq(buffer.gpa.value, LOAM_MIB + PAGE);
    for (uint64_t i = 0; i <= 2; i++) {
        request.at.value = LOAM_MIB + i * PAGE;
        assert_refused(request, LOAM_ERROR_BUSY);
    }
    cr_assert_eq(loam_dma_alloc(guest.dma, &request, &buffer, &diag), LOAM_ERROR_BUSY);
    cr_assert_not_null(strstr(diag.text, "taken by \"here\" at GPA 0x101000"), "%s", diag.text);
    request.at.value = LOAM_MIB - PAGE;
    assert_refused(request, LOAM_ERROR_NOT_FOUND);
    request.at.value = 3 * LOAM_MIB - PAGE;
    assert_refused(request, LOAM_ERROR_NOT_FOUND);
    request.at.value = 4 * LOAM_GIB - PAGE;
    assert_refused(request, LOAM_ERROR_NOT_FOUND); /* two sections: no block spans them */
    cr_assert_eq(loam_frame_alloc_order(guest.frame, 0, &frame), LOAM_OK);
    request.at.value = frame.value * PAGE;
    request.bytes = PAGE;
    assert_refused(request, LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_free(guest.frame, frame, 1), LOAM_OK);
}

static struct loam_dma_request here(uint64_t at, uint64_t bytes)
{
    return (struct loam_dma_request){.owner = "x", .bytes = bytes, .at = {at}, .flags = LOAM_DMA_AT};
}

static void assert_says(struct loam_dma_request request, const char *text)
{
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};

    cr_expect_neq(loam_dma_alloc(guest.dma, &request, &buffer, &diag), LOAM_OK);
    cr_expect_str_eq(diag.text, text);
}

Test(dma, every_refusal_says_what_is_wrong)
{
    struct loam_dma_request all = here(LOAM_MIB + 8 * PAGE, PAGE);
    loam_pfn frame;
    char text[256];

    alloc((struct loam_dma_request){.owner = "rings", .bytes = PAGE, .at = {LOAM_MIB}, .flags = LOAM_DMA_AT});
    cr_assert_eq(loam_gpa_map_protect(guest.map, (loam_gpa){LOAM_MIB + PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(loam_frame_alloc_order(guest.frame, 0, &frame), LOAM_OK);
    assert_says(here(LOAM_MIB, PAGE),
                "dma buffer \"x\": 4096 bytes, at GPA 0x100000: taken by \"rings\" at GPA 0x100000: "
                "release it or choose another place");
    alloc(
        (struct loam_dma_request){.owner = "later", .bytes = PAGE, .at = {3 * LOAM_MIB - PAGE}, .flags = LOAM_DMA_AT});
    assert_says(here(3 * LOAM_MIB - 3 * PAGE, 3 * PAGE),
                "dma buffer \"x\": 12288 bytes, at GPA 0x2fd000: taken by \"later\" at GPA 0x2ff000: "
                "release it or choose another place");
    snprintf(text, sizeof text,
             "dma buffer \"x\": 4096 bytes, at GPA %#" PRIx64
             ": taken by a block outside the ledger: choose another place",
             frame.value * PAGE);
    assert_says(here(frame.value * PAGE, PAGE), text);
    assert_says(here(8 * LOAM_MIB, PAGE),
                "dma buffer \"x\": 4096 bytes, at GPA 0x800000: not all of that is RAM in one piece");
    assert_says(here(LOAM_MIB + PAGE, PAGE), "dma buffer \"x\": 4096 bytes, at GPA 0x101000: the frames found are not "
                                             "writable memory in one region of the GPA map, or are closed to buffers");
    all.align_bytes = 16 * PAGE;
    all.boundary_bytes = 32 * PAGE;
    all.limit.value = 2 * LOAM_MIB;
    assert_says(all,
                "dma buffer \"x\": 4096 bytes, aligned to 0x10000, crossing no multiple of 0x20000, ending at or "
                "below GPA 0x200000, at GPA 0x108000: the place contradicts the alignment, the boundary or the limit");
    assert_says((struct loam_dma_request){.owner = "x", .bytes = 4 * LOAM_MIB},
                "dma buffer \"x\": 4194304 bytes: no free range fits: release buffers, ask for less or give the guest "
                "more RAM");
    assert_says(
        (struct loam_dma_request){.owner = "x", .bytes = PAGE, .at = {LOAM_MIB}},
        "dma buffer \"x\" of 4096 bytes: a place is named in at, which counts only with the flag LOAM_DMA_AT or "
        "LOAM_DMA_IN: set one, or leave at 0");
    assert_says((struct loam_dma_request){.owner = "\n", .bytes = PAGE},
                "dma buffer \"?\" of 4096 bytes: the owner's name has to be 1 to 63 printable ASCII characters");
    assert_says((struct loam_dma_request){.owner = "x"},
                "dma buffer \"x\" of 0 bytes: the size has to be from 1 byte to 2^20 frames");
    assert_says((struct loam_dma_request){.owner = "x", .bytes = 1, .align_bytes = 3},
                "dma buffer \"x\" of 1 bytes: the alignment has to be a power of two up to 4 GiB");
    assert_says((struct loam_dma_request){.owner = "x", .bytes = 2, .boundary_bytes = 1},
                "dma buffer \"x\" of 2 bytes: the boundary has to be a power of two and at least the size");
    assert_says((struct loam_dma_request){.owner = "x", .bytes = 1, .flags = 32},
                "dma buffer \"x\" of 1 bytes: a flag is not known");
    assert_says(here(LOAM_MIB + 8, 1), "dma buffer \"x\" of 1 bytes: the place has to be a multiple of the frame size");
    heap_failure = 1;
    assert_says(
        here(4 * LOAM_GIB + LOAM_MIB, PAGE),
        "dma buffer \"x\": 4096 bytes, at GPA 0x100100000: heap memory for the ledger wanted: Cannot allocate memory");
}

static void *freeze_and_die(void *frame)
{
    loam_frame_freeze(frame);
    return NULL;
}

/* What neither the caller nor the heap is to blame for is not called a lack of memory. */
Test(dma, a_suspect_frame_allocator_is_no_lack_of_memory)
{
    struct loam_dma_request request = {.owner = "x", .bytes = PAGE};
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, freeze_and_die, guest.frame), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    /* Takes the lock over. */
    (void)loam_frame_get_stats(guest.frame);
    errno = ERANGE;
    cr_assert_eq(loam_dma_alloc(guest.dma, &request, &buffer, &diag), LOAM_ERROR_CORRUPT, "%s", diag.text);
    cr_assert_eq(errno, ERANGE);
    cr_assert_eq(diag.system_errno, 0);
    cr_assert_str_eq(diag.text,
                     "dma buffer \"x\": 4096 bytes: the frame allocator says corrupt: loam_frame_validate knows more");
}

Test(dma, limits_are_rounded_down_and_hold)
{
    struct loam_dma_request request = {.owner = "low", .bytes = PAGE, .limit = {LOAM_DMA32_END_BYTES}};
    struct loam_dma_buffer buffer;

    for (uint32_t i = 0; i < 768; i++) {
        buffer = alloc(request);
        cr_assert_leq(buffer.gpa.value + buffer.bytes, LOAM_DMA32_END_BYTES);
    }
    assert_refused(request, LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(free_frames(), 512);
    request.limit.value = UINT64_MAX;
    buffer = alloc(request);
    cr_assert_geq(buffer.gpa.value, LOAM_DMA32_END_BYTES);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_OK);
    request.limit.value = 4 * LOAM_GIB + PAGE;
    buffer = alloc(request);
    cr_assert_eq(buffer.gpa.value, 4 * LOAM_GIB);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_OK);
    request.limit.value--;
    assert_refused(request, LOAM_ERROR_EXHAUSTED);
    request.limit.value = 1; /* less than a frame is not "none" */
    assert_refused(request, LOAM_ERROR_EXHAUSTED);
    request.limit.value = PAGE;
    request.bytes = PAGE + 1;
    assert_refused(request, LOAM_ERROR_EXHAUSTED);
}

Test(dma, alignment_and_boundary_hold)
{
    /* A page in front, so that nothing is aligned by chance. */
    alloc((struct loam_dma_request){.bytes = PAGE, .at = {LOAM_MIB}, .flags = LOAM_DMA_AT});
    for (uint64_t align = 1; align <= LOAM_MIB; align *= 2) {
        struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE, .align_bytes = align});

        cr_assert_eq(buffer.gpa.value % align, 0);
    }
    for (uint64_t boundary = 4 * PAGE; boundary <= LOAM_MIB / 4; boundary *= 2) {
        struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = 3 * PAGE, .boundary_bytes = boundary});

        cr_assert_eq(buffer.gpa.value / boundary, (buffer.gpa.value + buffer.bytes - 1) / boundary);
    }
    /* Below a frame the boundary says nothing: what was asked for starts the frame. */
    cr_assert_eq(alloc((struct loam_dma_request){.bytes = 512, .boundary_bytes = 512}).bytes, PAGE);
    assert_valid();
}

Test(dma, requests_that_no_free_range_fits)
{
    assert_refused((struct loam_dma_request){.owner = "big", .bytes = 513 * PAGE}, LOAM_ERROR_EXHAUSTED);
    assert_refused((struct loam_dma_request){.owner = "big", .bytes = 4 * LOAM_GIB}, LOAM_ERROR_EXHAUSTED);
    assert_refused(
        (struct loam_dma_request){.owner = "x", .bytes = PAGE, .align_bytes = 4 * LOAM_GIB, .limit = {1 << 30}},
        LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(alloc((struct loam_dma_request){.bytes = PAGE, .align_bytes = 4 * LOAM_GIB}).gpa.value, 4 * LOAM_GIB);
}

Test(dma, frames_that_the_map_does_not_let_write_are_given_back)
{
    struct loam_dma_request request = {.owner = "x", .bytes = PAGE, .at = {LOAM_MIB + PAGE}, .flags = LOAM_DMA_AT};

    cr_assert_eq(loam_gpa_map_protect(guest.map, request.at, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    assert_refused(request, LOAM_ERROR_NOT_PERMITTED);
    cr_assert(all_bytes(guest.host[0] + PAGE, PAGE, (char)0xa5));
    request.at.value = LOAM_MIB;
    request.bytes = 2 * PAGE;
    assert_refused(request, LOAM_ERROR_NOT_PERMITTED);
    cr_assert(all_bytes(guest.host[0], PAGE, (char)0xa5));
    cr_assert_eq(loam_gpa_map_remove(guest.map, (loam_gpa){LOAM_MIB + PAGE}, PAGE), LOAM_OK);
    assert_refused(request, LOAM_ERROR_NOT_PERMITTED);
}

struct supplier {
    enum loam_error answer;
    unsigned asked_count;
    loam_gpa gpa;
    uint64_t bytes;
};

static enum loam_error supply(void *self, loam_gpa gpa, uint64_t bytes, struct loam_diag *diag)
{
    struct supplier *supplier = self;

    supplier->asked_count++;
    supplier->gpa = gpa;
    supplier->bytes = bytes;
    errno = ENOMEM;
    return supplier->answer == LOAM_OK ? LOAM_OK : loam_fail(diag, supplier->answer, "the host has none");
}

/* The one whole chunk of the highest part, without memory behind it. */
static void release_last_part(void)
{
    struct loam_frame_request request = {.count_frames = 512, .at = {4 * LOAM_GIB / PAGE}, .flags = LOAM_FRAME_AT};
    struct loam_frame_block block;

    cr_assert_eq(loam_frame_alloc(guest.frame, &request, &block), LOAM_OK);
    cr_assert_eq(loam_frame_free_released(guest.frame, block.start, 512), LOAM_OK);
}

Test(dma, frames_without_memory_are_left_alone_where_nobody_supplies_any)
{
    struct loam_dma_request wanted = {.owner = "o", .bytes = 512 * PAGE, .align_bytes = 512 * PAGE};
    struct loam_dma_buffer buffer;

    release_last_part();
    cr_expect_eq(loam_dma_alloc(guest.dma, &wanted, &buffer, NULL), LOAM_ERROR_EXHAUSTED);
    loam_dma_set_supply(NULL, (struct loam_dma_supply){.populate = supply});
}

Test(dma, frames_without_memory_get_it_before_their_buffer_is_seen)
{
    struct supplier supplier = {.answer = LOAM_ERROR_SYSTEM};
    struct loam_dma_request wanted = {.owner = "o", .bytes = 512 * PAGE, .align_bytes = 512 * PAGE};
    uint64_t free_frames = loam_frame_get_stats(guest.frame).free_frames;
    struct loam_dma_buffer buffer = {.id = 7};
    struct loam_diag diag = {0};

    release_last_part();
    loam_dma_set_supply(guest.dma, (struct loam_dma_supply){.populate = supply, .self = &supplier});
    cr_expect_eq(loam_dma_alloc(guest.dma, &wanted, &buffer, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_str_eq(diag.text,
                     "dma buffer \"o\": 2097152 bytes, aligned to 0x200000: the host has none: Cannot allocate memory");
    cr_expect_eq(diag.system_errno, ENOMEM);
    cr_expect_eq(buffer.id, 0);
    cr_expect_eq(loam_frame_get_stats(guest.frame).free_frames, free_frames);
    cr_expect_eq(loam_frame_get_stats(guest.frame).released_chunks, 1, "it is as it was");
    supplier.answer = LOAM_OK;
    cr_assert_eq(loam_dma_alloc(guest.dma, &wanted, &buffer, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(supplier.asked_count, 2);
    cr_expect_eq(supplier.gpa.value, 4 * LOAM_GIB);
    cr_expect_eq(supplier.bytes, 512 * PAGE);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_OK);
    cr_expect_eq(loam_frame_get_stats(guest.frame).released_chunks, 0);
    cr_assert_eq(loam_dma_alloc(guest.dma, &wanted, &buffer, NULL), LOAM_OK);
    cr_expect_eq(supplier.asked_count, 2, "who has memory is not given it again");
}

Test(dma, a_full_heap_leaves_nothing_behind)
{
    struct loam_dma_request request = {.owner = "x", .bytes = PAGE};
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};
    int failures = 0;

    for (int n = 1; n < 10; n++) {
        loam_dma_destroy(guest.dma);
        cr_assert_eq(loam_dma_create(guest.frame, guest.map, &guest.dma), LOAM_OK);
        heap_failure = n;
        if (loam_dma_alloc(guest.dma, &request, &buffer, &diag) == LOAM_OK) {
            break;
        }
        cr_assert_eq(heap_failure, 0);
        cr_assert_eq(diag.error, LOAM_ERROR_SYSTEM);
        cr_assert_eq(diag.system_errno, ENOMEM);
        cr_assert_eq(buffer.id, 0);
        cr_assert_eq(free_frames(), FRAME_COUNT);
        cr_assert_eq(loam_dma_count(guest.dma), 0);
        failures++;
    }
    heap_failure = 0;
    cr_assert_eq(failures, DMA_INDEX_LEVELS + 1, "the index and the entry");
    cr_assert_eq(loam_dma_count(guest.dma), 1);
    assert_valid();
}

/* --- Release and pins -------------------------------------------------------------------------------------------- */

Test(dma, pins_nest_and_release_refuses_what_is_pinned)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE});
    struct loam_dma_entry entry;

    cr_assert_eq(loam_dma_unpin(guest.dma, buffer.id), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_dma_next(guest.dma, (loam_gpa){0}, &entry), LOAM_OK);
    cr_assert_eq(entry.pin_count, 2);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_dma_unpin(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_dma_unpin(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_dma_unpin(guest.dma, buffer.id), LOAM_ERROR_INVALID);
    cr_assert_eq(free_frames(), FRAME_COUNT - 1);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(free_frames(), FRAME_COUNT);
}

Test(dma, what_is_kept_is_not_released)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE, .flags = LOAM_DMA_KEEP});
    struct loam_dma_entry entry;

    cr_assert_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_dma_unpin(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_dma_next(guest.dma, (loam_gpa){0}, &entry), LOAM_OK);
    cr_assert(entry.kept);
    cr_assert_eq(free_frames(), FRAME_COUNT - 1);
    assert_valid();
    alloc((struct loam_dma_request){.bytes = PAGE});
    cr_assert_eq(loam_dma_find(guest.dma, alloc((struct loam_dma_request){.bytes = PAGE}).gpa, &entry), LOAM_OK);
    cr_assert_not(entry.kept);
    cr_assert_eq(loam_dma_destroy(guest.dma), 3);
    cr_assert_eq(free_frames(), FRAME_COUNT);
    guest.dma = NULL;
}

/* Bytes of the guest's memory that its E820 map gives as reserved. */
static uint64_t e820_reserved_bytes(void)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(guest.map);
    struct loam_e820_entry entries[16];
    uint64_t bytes = 0;
    uint32_t count;

    cr_assert_eq(loam_gpa_view_e820(view, entries, 16, &count), LOAM_OK);
    loam_gpa_map_release(guest.map, view);
    for (uint32_t i = 0; i < count; i++) {
        bytes += entries[i].type == LOAM_E820_RESERVED ? entries[i].bytes : 0;
    }
    return bytes;
}

Test(dma, what_is_reserved_is_so_in_the_e820_map_until_it_is_released)
{
    const struct loam_dma_request tables = {.bytes = 3 * PAGE, .flags = LOAM_DMA_RESERVED};
    struct loam_dma_buffer first = alloc(tables), second = alloc(tables);
    struct loam_dma_entry entry;

    cr_assert(all_bytes(first.hva, first.bytes, 0));
    cr_assert_eq(e820_reserved_bytes(), 6 * PAGE);
    cr_assert_eq(loam_dma_find(guest.dma, first.gpa, &entry), LOAM_OK);
    cr_assert(entry.reserved);
    cr_assert_eq(loam_dma_find(guest.dma, alloc((struct loam_dma_request){.bytes = PAGE}).gpa, &entry), LOAM_OK);
    cr_assert_not(entry.reserved);
    assert_valid();
    cr_assert_eq(loam_dma_release(guest.dma, first.id), LOAM_OK);
    cr_assert_eq(e820_reserved_bytes(), 3 * PAGE);
    assert_valid();
    cr_assert_eq(loam_dma_pin(guest.dma, second.id), LOAM_OK);
    cr_assert_eq(loam_dma_release(guest.dma, second.id), LOAM_ERROR_BUSY);
    cr_assert_eq(e820_reserved_bytes(), 3 * PAGE);
    cr_assert_eq(loam_dma_destroy(guest.dma), 2);
    guest.dma = NULL;
    cr_assert_eq(e820_reserved_bytes(), 0, "what outlives the ledger is RAM");
    cr_assert_eq(free_frames(), FRAME_COUNT);
}

/* The map of the suite has four tables: one view of each of the last three leaves none to write. */
static void hold_every_other_table(const struct loam_gpa_view *views[3])
{
    loam_gpa gpa = {LOAM_MIB};

    for (int i = 0; i < 3; i++) {
        views[i] = loam_gpa_map_acquire(guest.map);
        cr_assert_eq(loam_gpa_map_protect(guest.map, gpa, PAGE, i % 2 == 0 ? LOAM_ACCESS_READ : LOAM_ACCESS_WRITE),
                     LOAM_OK);
    }
}

Test(dma, a_map_that_cannot_say_that_it_is_reserved_refuses)
{
    struct loam_dma_request request = {.owner = "tables", .bytes = PAGE, .limit = {LOAM_DMA32_END_BYTES}};
    const struct loam_gpa_view *views[3];
    struct loam_dma_buffer kept, ignored;
    struct loam_diag diag = {0};

    request.flags = LOAM_DMA_RESERVED;
    kept = alloc(request);
    hold_every_other_table(views);
    assert_refused(request, LOAM_ERROR_BUSY);
    cr_assert_eq(loam_dma_alloc(guest.dma, &request, &ignored, &diag), LOAM_ERROR_BUSY);
    cr_assert_str_eq(diag.text,
                     "dma buffer \"tables\": 4096 bytes, ending at or below GPA 0x100000000: readers hold every other "
                     "table of the GPA map, which has to say that it is reserved: try again");
    cr_assert_eq(loam_dma_release(guest.dma, kept.id), LOAM_ERROR_BUSY);
    cr_assert_eq(e820_reserved_bytes(), 2 * PAGE, "the buffer, and the page that may not be written");
    assert_valid();
    for (int i = 0; i < 3; i++) {
        loam_gpa_map_release(guest.map, views[i]);
    }
    cr_assert_eq(loam_dma_release(guest.dma, kept.id), LOAM_OK);
    cr_assert_eq(e820_reserved_bytes(), PAGE);
    assert_valid();
}

Test(dma, pins_end_at_uint32_max)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE});
    struct loam_dma_entry *entry = entry_of(buffer);

    entry->pin_count = UINT32_MAX - 1;
    cr_assert_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_OK);
    cr_assert_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(entry->pin_count, UINT32_MAX);
}

Test(dma, ids_that_are_none_any_more_or_never_were)
{
    struct loam_dma_buffer first = alloc((struct loam_dma_request){.bytes = PAGE});
    struct loam_dma_buffer second = alloc((struct loam_dma_request){.bytes = PAGE});
    const uint64_t none[] = {0, first.id, second.id + 1, UINT64_MAX};

    cr_assert_eq(loam_dma_release(guest.dma, first.id), LOAM_OK);
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(loam_dma_release(guest.dma, none[i]), LOAM_ERROR_NOT_FOUND);
        cr_assert_eq(loam_dma_pin(guest.dma, none[i]), LOAM_ERROR_NOT_FOUND);
        cr_assert_eq(loam_dma_unpin(guest.dma, none[i]), LOAM_ERROR_NOT_FOUND);
    }
    cr_assert_eq(loam_dma_release(guest.dma, second.id), LOAM_OK);
    second = alloc((struct loam_dma_request){.bytes = PAGE});
    for (size_t i = 0; i < 4; i++) {
        cr_assert_neq(second.id, none[i] - (i == 2));
    }
}

/* --- The lock's holder died -------------------------------------------------------------------------------------- */

static void *take_the_lock(void *unused)
{
    loam_dma_freeze(guest.dma);
    return unused;
}

static void die_with_the_lock(void)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, take_the_lock, NULL), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

enum change { PIN, UNPIN, RELEASE, ALLOC, CHANGE_COUNT };

static enum loam_error make(enum change change, uint64_t id)
{
    struct loam_dma_request request = {.owner = "x", .bytes = PAGE};
    struct loam_dma_buffer buffer;

    switch (change) {
    case PIN:
        return loam_dma_pin(guest.dma, id);
    case UNPIN:
        return loam_dma_unpin(guest.dma, id);
    case RELEASE:
        return loam_dma_release(guest.dma, id);
    default:
        return loam_dma_alloc(guest.dma, &request, &buffer, NULL);
    }
}

Test(dma, after_a_holder_died_nothing_changes_until_all_was_found_in_order)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE});

    for (enum change change = PIN; change < CHANGE_COUNT; change++) {
        die_with_the_lock();
        cr_expect_eq(make(change, buffer.id), LOAM_ERROR_CORRUPT, "change %d", change);
        cr_expect_eq(make(change, buffer.id), LOAM_ERROR_CORRUPT, "change %d", change);
        assert_valid();
        cr_expect_eq(make(change, buffer.id), LOAM_OK, "change %d", change);
    }
    cr_expect_eq(free_frames(), FRAME_COUNT - 1);
}

Test(dma, whoever_meets_the_dead_holder_keeps_it_in_mind)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE, .owner = "first"});
    struct loam_dma_request taken = {.owner = "x", .bytes = PAGE, .at = buffer.gpa, .flags = LOAM_DMA_AT};
    struct loam_dma_entry entry;

    for (int i = 0; i < 4; i++) {
        die_with_the_lock();
        switch (i) {
        case 0:
            cr_expect_eq(loam_dma_alloc(guest.dma, &taken, &(struct loam_dma_buffer){0}, NULL), LOAM_ERROR_BUSY);
            break;
        case 1:
            cr_expect_eq(loam_dma_count(guest.dma), 1);
            break;
        case 2:
            cr_expect_eq(loam_dma_next(guest.dma, (loam_gpa){0}, &entry), LOAM_OK);
            break;
        default:
            cr_expect_eq(loam_dma_find(guest.dma, buffer.gpa, &entry), LOAM_OK);
        }
        cr_expect_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_ERROR_CORRUPT, "look %d", i);
        assert_valid();
    }
}

/* A ledger that is damaged stays suspect, whoever looks and however often. */
Test(dma, a_damaged_ledger_stays_suspect)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){.bytes = PAGE});
    struct loam_dma_entry *entry = entry_of(buffer);

    die_with_the_lock();
    entry->buffer.id = 0;
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(loam_dma_validate(guest.dma, NULL), LOAM_ERROR_CORRUPT);
        cr_expect_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_ERROR_CORRUPT);
    }
    entry->buffer.id = buffer.id;
    assert_valid();
    cr_expect_eq(loam_dma_pin(guest.dma, buffer.id), LOAM_OK);
}

/* --- Careless callers -------------------------------------------------------------------------------------------- */

Test(dma, null_is_refused_and_outputs_are_defined)
{
    struct loam_dma_request request = {.owner = "x", .bytes = PAGE};
    struct loam_virtqueue_rings rings = {.queue_size = 1};
    struct loam_virtqueue_layout layout;
    struct loam_dma_buffer buffer = {.id = 1};
    struct loam_dma_entry entry = {.pin_count = 1};
    struct loam_diag diag = {0};

    cr_expect_eq(loam_dma_create(guest.frame, guest.map, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_alloc(NULL, &request, &buffer, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(buffer.id, 0);
    cr_expect_str_eq(diag.text, "dma buffer: NULL given where a ledger, a request and a place are wanted");
    buffer.id = 1;
    cr_expect_eq(loam_dma_alloc(guest.dma, NULL, &buffer, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(buffer.id, 0);
    cr_expect_eq(loam_dma_alloc(guest.dma, &request, NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_release(NULL, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_pin(NULL, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_unpin(NULL, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_virtqueue_get_layout(8, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_virtqueue_get_layout(0, &layout), LOAM_ERROR_INVALID);
    cr_expect_eq(layout.bytes, 0);
    cr_expect_eq(loam_dma_alloc_virtqueue(NULL, "x", 8, (loam_gpa){0}, &rings, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(rings.queue_size, 0);
    cr_expect_eq(loam_dma_alloc_virtqueue(guest.dma, "x", 8, (loam_gpa){0}, NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_alloc_virtqueue(guest.dma, NULL, 8, (loam_gpa){0}, &rings, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_count(NULL), 0);
    cr_expect_eq(loam_dma_next(NULL, (loam_gpa){0}, &entry), LOAM_ERROR_INVALID);
    cr_expect_eq(entry.pin_count, 0);
    cr_expect_eq(loam_dma_next(guest.dma, (loam_gpa){0}, NULL), LOAM_ERROR_INVALID);
    entry.pin_count = 1;
    cr_expect_eq(loam_dma_find(NULL, (loam_gpa){LOAM_MIB}, &entry), LOAM_ERROR_INVALID);
    cr_expect_eq(entry.pin_count, 0);
    cr_expect_eq(loam_dma_find(guest.dma, (loam_gpa){LOAM_MIB}, NULL), LOAM_ERROR_INVALID);
    loam_dma_freeze(NULL);
    loam_dma_thaw(NULL);
    cr_expect_eq(loam_dma_validate(NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_count(guest.dma), 0);
    cr_expect_eq(free_frames(), FRAME_COUNT);
    assert_valid();
}

/* --- Where a buffer lies --------------------------------------------------------------------------------------------- */

/* A buffer that is not zeroed may be placed without a look at the map: but only where that has not changed. */
static enum loam_error carve_dirty(struct loam_dma *dma, uint64_t gpa, struct loam_dma_buffer *buffer)
{
    struct loam_dma_request request = here(gpa, PAGE);

    request.flags |= LOAM_DMA_NO_ZERO;
    return loam_dma_alloc(dma, &request, buffer, NULL);
}

Test(dma, a_buffer_lies_where_the_map_has_it_now)
{
    struct loam_region moved = {.start = {2 * LOAM_MIB},
                                .bytes = 2 * PAGE,
                                .hva = guest.host[0],
                                .type = LOAM_REGION_RAM,
                                .access = LOAM_ACCESS_WRITE};
    struct loam_dma_buffer buffer;

    for (uint64_t i = 0; i < 2; i++) {
        cr_assert_eq(carve_dirty(guest.dma, LOAM_MIB + i * PAGE, &buffer), LOAM_OK);
        cr_expect_eq(buffer.hva, guest.host[0] + i * PAGE);
    }
    cr_assert_eq(carve_dirty(guest.dma, 3 * LOAM_MIB - PAGE, &buffer), LOAM_OK);
    cr_expect_eq(buffer.hva, guest.host[0] + 2 * LOAM_MIB - PAGE, "the last of the region");
    cr_assert_eq(carve_dirty(guest.dma, 4 * LOAM_GIB - LOAM_MIB, &buffer), LOAM_OK);
    cr_expect_eq(buffer.hva, guest.host[1], "another region");
    cr_assert_eq(carve_dirty(guest.dma, LOAM_MIB + 2 * PAGE, &buffer), LOAM_OK);
    cr_expect_eq(buffer.hva, guest.host[0] + 2 * PAGE, "and back");
    buffer = alloc(here(LOAM_MIB + 3 * PAGE, PAGE));
    cr_expect(all_bytes(buffer.hva, PAGE, 0), "who wants it zeroed has it zeroed");
    cr_assert_eq(loam_gpa_map_remove(guest.map, moved.start, moved.bytes), LOAM_OK);
    cr_expect_eq(carve_dirty(guest.dma, 2 * LOAM_MIB, &buffer), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_gpa_map_insert(guest.map, &moved), LOAM_OK);
    cr_assert_eq(carve_dirty(guest.dma, 2 * LOAM_MIB, &buffer), LOAM_OK);
    cr_expect_eq(buffer.hva, guest.host[0], "elsewhere");
    cr_assert_eq(loam_gpa_map_protect(guest.map, moved.start, moved.bytes, LOAM_ACCESS_READ), LOAM_OK);
    cr_expect_eq(carve_dirty(guest.dma, 2 * LOAM_MIB + PAGE, &buffer), LOAM_ERROR_NOT_PERMITTED);
}

/* Two maps that have changed equally often, and a buffer that reaches over the end of a region. */
Test(dma, what_one_ledger_saw_is_not_so_in_another)
{
    struct loam_region region = region_of(0);
    struct loam_dma_request reaching = here(LOAM_MIB + PAGE, 2 * PAGE);
    struct loam_gpa_map *map;
    struct loam_dma_buffer buffer;
    struct loam_dma *other;
    void *memory = aligned_alloc(64, loam_gpa_map_bytes(NULL));

    cr_assert_eq(loam_gpa_map_init(memory, loam_gpa_map_bytes(NULL), NULL, &map), LOAM_OK);
    region.hva = guest.host[1];
    region.bytes = 2 * PAGE;
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    for (uint64_t i = 1; i < PART_COUNT; i++) {
        struct loam_region device = {.start = {i * 8 * LOAM_GIB}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};

        cr_assert_eq(loam_gpa_map_insert(map, &device), LOAM_OK);
    }
    cr_assert_eq(loam_gpa_map_generation(map), loam_gpa_map_generation(guest.map));
    cr_assert_eq(loam_dma_create(guest.frame, map, &other), LOAM_OK);
    cr_assert_eq(carve_dirty(guest.dma, LOAM_MIB + 3 * PAGE, &buffer), LOAM_OK);
    cr_assert_eq(carve_dirty(other, LOAM_MIB, &buffer), LOAM_OK);
    cr_expect_eq(buffer.hva, guest.host[1]);
    reaching.flags |= LOAM_DMA_NO_ZERO;
    cr_expect_eq(loam_dma_alloc(other, &reaching, &buffer, NULL), LOAM_ERROR_NOT_PERMITTED);
    cr_expect_eq(loam_dma_destroy(other), 1);
    free(map);
}

/* --- Virtqueues -------------------------------------------------------------------------------------------------- */

/* Virtio 1.2, section 2.7.2: the legacy formula's parts, with the alignments of the table in section 2.7. */
static uint64_t round_up(uint64_t value, uint64_t align)
{
    while (value % align != 0) {
        value++;
    }
    return value;
}

/* The structures as sections 2.7.5, 2.7.6 and 2.7.8 declare them, for one element; both rings end with a 16-bit event.
 */
struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct used_element {
    uint32_t id;
    uint32_t length;
};

Test(dma, virtqueue_layouts_are_those_of_the_specification)
{
    struct loam_virtqueue_layout layout;

    for (uint32_t size = 0; size <= 2 * LOAM_VIRTQUEUE_SIZE_MAX; size++) {
        bool valid = size == 1 << 0 || size == 1 << 1 || size == 1 << 2 || size == 1 << 3 || size == 1 << 4 ||
                     size == 1 << 5 || size == 1 << 6 || size == 1 << 7 || size == 1 << 8 || size == 1 << 9 ||
                     size == 1 << 10 || size == 1 << 11 || size == 1 << 12 || size == 1 << 13 || size == 1 << 14 ||
                     size == 1 << 15;
        uint64_t available = round_up(sizeof(struct descriptor) * size, 2);
        uint64_t used = round_up(available + sizeof(uint16_t) * (2 + size + 1), 4);
        uint64_t end = used + sizeof(uint16_t) * 2 + sizeof(struct used_element) * size + sizeof(uint16_t);

        cr_assert_eq(loam_virtqueue_get_layout(size, &layout), valid ? LOAM_OK : LOAM_ERROR_INVALID, "size %u", size);
        cr_assert_eq(layout.descriptors_offset_bytes, 0);
        cr_assert_eq(layout.available_offset_bytes, valid ? available : 0, "size %u", size);
        cr_assert_eq(layout.used_offset_bytes, valid ? used : 0, "size %u", size);
        cr_assert_eq(layout.bytes, valid ? end : 0, "size %u", size);
    }
    cr_assert_eq(loam_virtqueue_get_layout(UINT32_MAX, &layout), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_virtqueue_get_layout(1u << 31, &layout), LOAM_ERROR_INVALID);
}

Test(dma, rings_of_every_size_are_carved_below_the_limit)
{
    for (uint32_t size = 1; size <= LOAM_VIRTQUEUE_SIZE_MAX; size *= 2) {
        struct loam_virtqueue_layout layout;
        struct loam_virtqueue_rings rings;

        cr_assert_eq(loam_virtqueue_get_layout(size, &layout), LOAM_OK);
        cr_assert_eq(loam_dma_alloc_virtqueue(guest.dma, "rings", size, (loam_gpa){LOAM_DMA32_END_BYTES}, &rings, NULL),
                     LOAM_OK);
        cr_assert_eq(rings.queue_size, size);
        cr_assert_eq(rings.descriptors.value % 16, 0);
        cr_assert_eq(rings.available.value % 2, 0);
        cr_assert_eq(rings.used.value % 4, 0);
        cr_assert_eq(rings.descriptors.value, rings.buffer.gpa.value + layout.descriptors_offset_bytes);
        cr_assert_eq(rings.available.value, rings.buffer.gpa.value + layout.available_offset_bytes);
        cr_assert_eq(rings.used.value, rings.buffer.gpa.value + layout.used_offset_bytes);
        cr_assert_eq(rings.descriptors_hva, (char *)rings.buffer.hva + layout.descriptors_offset_bytes);
        cr_assert_eq(rings.available_hva, (char *)rings.buffer.hva + layout.available_offset_bytes);
        cr_assert_eq(rings.used_hva, (char *)rings.buffer.hva + layout.used_offset_bytes);
        cr_assert_geq(rings.buffer.bytes, layout.bytes);
        cr_assert_leq(rings.buffer.gpa.value + rings.buffer.bytes, LOAM_DMA32_END_BYTES);
        cr_assert(all_bytes(rings.buffer.hva, rings.buffer.bytes, 0));
        cr_assert_eq(loam_dma_release(guest.dma, rings.buffer.id), LOAM_OK);
    }
}

Test(dma, rings_are_refused_for_a_bad_size_owner_or_limit)
{
    struct loam_virtqueue_rings rings;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_dma_alloc_virtqueue(guest.dma, "x", 3, (loam_gpa){0}, &rings, &diag), LOAM_ERROR_INVALID);
    cr_assert_eq(rings.queue_size, 0);
    cr_assert_eq(diag.error, LOAM_ERROR_INVALID);
    cr_assert_eq(loam_dma_alloc_virtqueue(guest.dma, NULL, 3, (loam_gpa){0}, &rings, &diag), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_dma_alloc_virtqueue(guest.dma, NULL, 4, (loam_gpa){0}, &rings, &diag), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_dma_alloc_virtqueue(guest.dma, "x", 4, (loam_gpa){LOAM_MIB}, &rings, &diag),
                 LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(rings.queue_size, 0);
    cr_assert_eq(rings.used.value, 0);
    cr_assert_null(rings.used_hva);
    cr_assert_eq(rings.buffer.id, 0);
    cr_assert_eq(free_frames(), FRAME_COUNT);
}

/* --- Ranges ------------------------------------------------------------------------------------------------------ */

enum { RANGES = 12, RUNS = 16 };

static enum loam_error alloc_ranges(const struct loam_dma_range *ranges, uint32_t count, uint32_t flags,
                                    struct loam_dma_buffer *buffers, uint32_t capacity, uint32_t *found)
{
    const struct loam_dma_ranges wanted = {.owner = "ranges", .ranges = ranges, .range_count = count, .flags = flags};
    struct loam_diag diag = {0};
    enum loam_error error;

    memset(buffers, 0x5a, capacity * sizeof *buffers);
    *found = 77;
    error = loam_dma_alloc_ranges(guest.dma, &wanted, buffers, capacity, found, &diag);
    cr_assert_eq(diag.error, error, "%s", diag.text);
    cr_assert_eq(diag.text[0] == '\0', error == LOAM_OK);
    for (uint32_t i = 0; error != LOAM_OK && i < capacity; i++) {
        cr_assert(buffers[i].id == 0 && buffers[i].gpa.value == 0 && buffers[i].hva == NULL && buffers[i].bytes == 0);
    }
    assert_valid();
    return error;
}

/* As the segments of a small kernel lie: text, and data that begins in the frame where text ends. */
Test(dma, ranges_that_share_a_frame_are_one_buffer)
{
    static const struct loam_dma_range ranges[] = {
        {{LOAM_MIB + 9 * PAGE}, 1},              /* apart */
        {{LOAM_MIB + 2 * PAGE + 100}, 3 * PAGE}, /* ends in frame 5, with 100 bytes */
        {{LOAM_MIB + 5 * PAGE + 100}, PAGE},     /* from there on */
        {{LOAM_MIB + 7 * PAGE}, PAGE},           /* follows frame 6 */
        {{LOAM_MIB + 3 * PAGE}, 8},              /* within another */
    };
    struct loam_dma_buffer buffers[2];
    struct loam_dma_entry entry;
    uint32_t count;

    cr_assert_eq(alloc_ranges(ranges, 5, 0, buffers, 2, &count), LOAM_OK);
    cr_assert_eq(count, 2);
    cr_expect(buffers[0].gpa.value == LOAM_MIB + 2 * PAGE && buffers[0].bytes == 6 * PAGE);
    cr_expect(buffers[1].gpa.value == LOAM_MIB + 9 * PAGE && buffers[1].bytes == PAGE);
    cr_expect_eq(buffers[0].hva, guest.host[0] + 2 * PAGE);
    cr_expect(all_bytes(buffers[0].hva, buffers[0].bytes, 0) && all_bytes(buffers[1].hva, PAGE, 0));
    cr_expect(all_bytes(guest.host[0] + 8 * PAGE, PAGE, (char)0xa5), "what lies between is left alone");
    cr_expect_eq(free_frames(), FRAME_COUNT - 7);
    cr_assert_eq(loam_dma_find(guest.dma, (loam_gpa){LOAM_MIB + 7 * PAGE}, &entry), LOAM_OK);
    cr_expect_str_eq(entry.owner, "ranges");
    cr_expect_eq(entry.buffer.id, buffers[0].id);
    cr_expect_eq(loam_dma_release(guest.dma, buffers[0].id), LOAM_OK);
    cr_expect_eq(loam_dma_release(guest.dma, buffers[1].id), LOAM_OK);
    memset(guest.host[0], 0xa5, 10 * PAGE);
    cr_assert_eq(alloc_ranges(ranges, 2, LOAM_DMA_NO_ZERO | LOAM_DMA_KEEP, buffers, 2, &count), LOAM_OK);
    cr_expect(all_bytes(buffers[0].hva, buffers[0].bytes, (char)0xa5), "not zeroed if not wanted");
    cr_expect_eq(loam_dma_release(guest.dma, buffers[0].id), LOAM_ERROR_NOT_PERMITTED, "kept");
}

Test(dma, no_ranges_are_no_buffers)
{
    struct loam_dma_buffer buffers[1];
    uint32_t count;

    cr_assert_eq(alloc_ranges(NULL, 0, 0, buffers, 1, &count), LOAM_OK);
    cr_assert_eq(count, 0);
}

Test(dma, malformed_ranges_are_refused)
{
    static const struct loam_dma_range good = {{LOAM_MIB}, PAGE};
    static const struct loam_dma_range bad[] = {
        {{LOAM_MIB}, 0}, {{LOAM_GPA_END}, 1}, {{LOAM_GPA_END - 1}, 2}, {{UINT64_MAX}, 2}, {{0}, UINT64_MAX}};
    struct loam_dma_ranges wanted = {.owner = "x", .ranges = &good, .range_count = 1};
    struct loam_dma_buffer buffers[2];
    uint32_t count;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct loam_dma_range ranges[] = {good, bad[i]};

        cr_expect_eq(alloc_ranges(ranges, 2, 0, buffers, 2, &count), LOAM_ERROR_INVALID, "%zu", i);
        cr_expect_eq(count, 0);
    }
    cr_expect_eq(alloc_ranges(&good, 1, LOAM_DMA_RESERVED, buffers, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(alloc_ranges(&good, 1, LOAM_DMA_AT, buffers, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(alloc_ranges(NULL, 1, 0, buffers, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_alloc_ranges(NULL, &wanted, buffers, 1, &count, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_alloc_ranges(guest.dma, NULL, buffers, 1, &count, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_alloc_ranges(guest.dma, &wanted, NULL, 1, &count, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dma_alloc_ranges(guest.dma, &wanted, buffers, 1, NULL, NULL), LOAM_ERROR_INVALID);
    wanted.owner = "two\nlines";
    cr_expect_eq(loam_dma_alloc_ranges(guest.dma, &wanted, buffers, 1, &count, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(free_frames(), FRAME_COUNT);
}

/* A later run that cannot be had gives back those before it, kept ones too. */
Test(dma, ranges_are_carved_all_or_none)
{
    const struct loam_dma_range ranges[] = {
        {{LOAM_MIB + 4 * PAGE}, 1}, {{LOAM_MIB}, 1}, {{LOAM_MIB + 2 * PAGE}, 1}, {{3 * LOAM_MIB}, 1}};
    struct loam_dma_buffer buffers[4];
    struct loam_dma_buffer taken =
        alloc((struct loam_dma_request){.bytes = PAGE, .at = ranges[0].start, .flags = LOAM_DMA_AT});
    struct loam_dma_range across = {{4 * LOAM_GIB - 1}, 2};
    uint32_t count;

    cr_expect_eq(alloc_ranges(ranges, 3, LOAM_DMA_KEEP, buffers, 4, &count), LOAM_ERROR_BUSY);
    cr_expect_eq(count, 0);
    cr_expect_eq(free_frames(), FRAME_COUNT - 1);
    cr_assert_eq(loam_dma_release(guest.dma, taken.id), LOAM_OK);
    cr_expect_eq(alloc_ranges(ranges, 4, 0, buffers, 4, &count), LOAM_ERROR_NOT_FOUND, "beyond the RAM");
    cr_expect_eq(alloc_ranges(&across, 1, 0, buffers, 4, &count), LOAM_ERROR_NOT_FOUND, "in two sections");
    cr_expect_eq(alloc_ranges(ranges, 3, 0, buffers, 2, &count), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(count, 3, "how many have to have room");
    cr_expect_eq(free_frames(), FRAME_COUNT);
}

/* Each call for heap fails in turn; the second run is far from the first, so that the ledger wants more for it. */
Test(dma, ranges_leave_nothing_wherever_the_heap_runs_out)
{
    const struct loam_dma_range ranges[] = {{{4 * LOAM_GIB}, 1}, {{LOAM_MIB}, 1}};
    struct loam_dma_buffer buffers[2];
    uint32_t count;
    int n = 1;

    for (;; n++) {
        loam_dma_destroy(guest.dma);
        cr_assert_eq(loam_dma_create(guest.frame, guest.map, &guest.dma), LOAM_OK);
        heap_failure = n;
        if (alloc_ranges(ranges, 2, LOAM_DMA_KEEP, buffers, 2, &count) == LOAM_OK) {
            break;
        }
        cr_assert_eq(free_frames(), FRAME_COUNT);
        cr_assert_eq(loam_dma_count(guest.dma), 0);
    }
    heap_failure = 0;
    cr_expect_gt(n, 3, "both runs met a heap that was full: %d", n);
    cr_expect_eq(loam_dma_count(guest.dma), 2);
}

/* Held against a flag a frame. */
static void try_ranges(uint64_t *random)
{
    bool wanted[513] = {false};
    struct loam_dma_range ranges[RANGES];
    struct loam_dma_buffer buffers[RUNS];
    uint32_t count, range_count = (uint32_t)(next_random(random) % RANGES + 1), runs = 0;

    for (uint32_t i = 0; i < range_count; i++) {
        uint64_t start = next_random(random) % (500 * PAGE), bytes = next_random(random) % (12 * PAGE) + 1;

        ranges[i] = (struct loam_dma_range){{LOAM_MIB + start}, bytes};
        for (uint64_t frame = start / PAGE; frame <= (start + bytes - 1) / PAGE; frame++) {
            wanted[frame] = true;
        }
    }
    cr_assert_eq(alloc_ranges(ranges, range_count, LOAM_DMA_NO_ZERO, buffers, RUNS, &count), LOAM_OK);
    for (uint64_t frame = 0, length; frame < 512; frame += length + 1) {
        for (length = 0; wanted[frame + length]; length++) {
        }
        if (length > 0) {
            cr_assert_lt(runs, count);
            cr_assert_eq(buffers[runs].gpa.value, LOAM_MIB + frame * PAGE);
            cr_assert_eq(buffers[runs].bytes, length * PAGE);
            cr_assert_eq(loam_dma_release(guest.dma, buffers[runs++].id), LOAM_OK);
        }
    }
    cr_assert_eq(runs, count);
}

Test(dma, random_ranges_are_carved_as_their_union)
{
    uint64_t random = 20261127;

    for (int i = 0; i < 2000; i++) {
        try_ranges(&random);
    }
    cr_assert_eq(free_frames(), FRAME_COUNT);
}

/* --- Validate ---------------------------------------------------------------------------------------------------- */

/* The whole text, in which "%p" stands for a pointer. */
__attribute__((format(printf, 1, 2))) static void assert_corrupt(const char *format, ...)
{
    struct loam_diag diag = {0};
    char expected[sizeof diag.text];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(expected, sizeof expected, format, arguments);
    va_end(arguments);
    errno = ERANGE;
    cr_assert_eq(loam_dma_validate(guest.dma, &diag), LOAM_ERROR_CORRUPT);
    cr_assert_str_eq(diag.text, expected);
    cr_assert_eq(errno, ERANGE);
}

Test(dma, validate_sees_frames_freed_past_the_ledger)
{
    struct loam_dma_buffer buffer = alloc((struct loam_dma_request){
        .owner = "victim", .bytes = 2 * PAGE, .at = {LOAM_MIB + 2 * PAGE}, .flags = LOAM_DMA_AT});
    loam_pfn start = {buffer.gpa.value / PAGE}, again;

    cr_assert_eq(loam_frame_free(guest.frame, start, 2), LOAM_OK);
    assert_corrupt("dma ledger: \"victim\" has 8192 bytes at GPA 0x102000, but frame 0x102 is free in section 0");
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_ERROR_CORRUPT);
    cr_assert_eq(loam_dma_count(guest.dma), 1);
    cr_assert_eq(loam_frame_alloc(guest.frame,
                                  &(struct loam_frame_request){.count_frames = 1, .flags = LOAM_FRAME_AT, .at = start},
                                  &(struct loam_frame_block){0}),
                 LOAM_OK);
    assert_corrupt("dma ledger: \"victim\" has 8192 bytes at GPA 0x102000, but frame 0x102 starts the allocated block "
                   "[0x102, 0x103) of section 0");
    cr_assert_eq(loam_frame_free(guest.frame, start, 1), LOAM_OK);
    again = start;
    cr_assert_eq(loam_frame_alloc(guest.frame,
                                  &(struct loam_frame_request){.count_frames = 2, .flags = LOAM_FRAME_AT, .at = again},
                                  &(struct loam_frame_block){0}),
                 LOAM_OK);
    assert_valid();
    cr_assert_eq(loam_dma_release(guest.dma, buffer.id), LOAM_OK);
}

Test(dma, validate_holds_the_ledger_against_the_map)
{
    static const char ledger[] = "dma ledger: \"victim\" has 8192 bytes at GPA 0x100000 and HVA ";
    struct loam_region region = region_of(0);

    alloc((struct loam_dma_request){.owner = "victim", .bytes = 2 * PAGE, .at = {LOAM_MIB}, .flags = LOAM_DMA_AT});
    cr_assert_eq(loam_gpa_map_protect(guest.map, region.start, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    assert_valid(); /* the guest may not write it now, and it lies where it lay */
    cr_assert_eq(loam_gpa_map_protect(guest.map, region.start, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    cr_assert_eq(loam_gpa_map_remove(guest.map, (loam_gpa){LOAM_MIB + PAGE}, PAGE), LOAM_OK);
    assert_corrupt("%s%p, but the GPA map has them at %p, in 0 pieces", ledger, (void *)guest.host[0], NULL);
    region.start.value += PAGE;
    region.bytes = PAGE;
    cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
    assert_corrupt("%s%p, but the GPA map has them at %p, in 2 pieces", ledger, (void *)guest.host[0],
                   (void *)guest.host[0]);
    cr_assert_eq(loam_gpa_map_remove(guest.map, (loam_gpa){LOAM_MIB}, 2 * PAGE), LOAM_OK);
    region.start.value = LOAM_MIB;
    region.bytes = 2 * PAGE;
    region.hva = guest.host[0] + PAGE;
    cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
    assert_corrupt("%s%p, but the GPA map has them at %p, in 1 pieces", ledger, (void *)guest.host[0],
                   (void *)(guest.host[0] + PAGE));
}

Test(dma, validate_holds_ids_and_order_against_each_other)
{
    struct loam_dma_buffer first =
        alloc((struct loam_dma_request){.owner = "first", .bytes = PAGE, .at = {LOAM_MIB}, .flags = LOAM_DMA_AT});
    struct loam_dma_buffer second = alloc(
        (struct loam_dma_request){.owner = "second", .bytes = PAGE, .at = {LOAM_MIB + PAGE}, .flags = LOAM_DMA_AT});
    struct loam_dma_entry *entry = entry_of(second);
    const uint64_t bad_ids[] = {0, first.id, second.id + DMA_LEDGER_STRIPES, UINT64_MAX};

    for (size_t i = 0; i < 4; i++) {
        entry->buffer.id = bad_ids[i];
        assert_corrupt("dma ledger: \"second\" is not found by its id %" PRIu64, bad_ids[i]);
    }
    entry->buffer.id = second.id;
    assert_valid();
    entry->buffer.gpa = first.gpa;
    assert_corrupt("dma ledger: \"second\" at GPA 0x100000 is filed under GPA 0x101000");
    entry->buffer.gpa = second.gpa;
    entry_of(first)->buffer.bytes++;
    assert_corrupt("dma ledger: \"second\" at GPA 0x101000 overlaps \"first\"");
    entry_of(first)->buffer.bytes--;
    assert_valid();
}

/* --- Caches ------------------------------------------------------------------------------------------------------ */

/* Enough where one thread at a time owns a cache and nobody else calls. */
static bool no_barrier(void)
{
    return true;
}

static struct loam_frame_cache *make_cache(void)
{
    struct loam_frame_cache *cache;

    loam_frame_set_barrier(no_barrier);
    cr_assert_eq(loam_frame_cache_make(guest.frame, &cache), LOAM_OK);
    return cache;
}

static uint64_t cached_frames(void)
{
    return loam_frame_get_stats(guest.frame).cached_frames;
}

Test(dma, small_buffers_come_from_a_cache_and_go_back)
{
    struct loam_frame_cache *cache = make_cache();

    for (uint64_t frames = 1; frames <= 256; frames *= 2) {
        struct loam_dma_buffer buffer =
            alloc((struct loam_dma_request){.bytes = frames * PAGE, .align_bytes = frames * PAGE, .cache = cache});
        uint64_t cached = cached_frames();

        cr_expect_gt(cached, 0, "%lu frames", frames);
        cr_expect_eq(buffer.gpa.value % (frames * PAGE), 0);
        cr_expect(all_bytes(buffer.hva, buffer.bytes, 0));
        cr_expect_eq(free_frames(), FRAME_COUNT - frames);
        assert_valid();
        cr_assert_eq(loam_dma_release_into(guest.dma, buffer.id, cache), LOAM_OK);
        cr_expect_eq(cached_frames(), cached + frames, "%lu frames", frames);
        cr_expect_eq(loam_dma_release_into(guest.dma, buffer.id, cache), LOAM_ERROR_NOT_FOUND);
        cr_assert_eq(loam_frame_cache_drain(cache), LOAM_OK);
        cr_expect_eq(cached_frames(), 0);
    }
    cr_expect_eq(free_frames(), FRAME_COUNT);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
}

Test(dma, a_cache_keeps_to_the_limit)
{
    struct loam_frame_cache *cache = make_cache();
    struct loam_dma_buffer buffer =
        alloc((struct loam_dma_request){.bytes = PAGE, .limit = {LOAM_DMA32_END_BYTES}, .cache = cache});

    cr_expect_leq(buffer.gpa.value + PAGE, LOAM_DMA32_END_BYTES);
    cr_expect_gt(cached_frames(), 0);
    buffer = alloc((struct loam_dma_request){.bytes = PAGE, .limit = {LOAM_MIB + PAGE}, .cache = cache});
    cr_expect_eq(buffer.gpa.value, LOAM_MIB);
    assert_refused((struct loam_dma_request){.owner = "x", .bytes = PAGE, .limit = {PAGE - 1}, .cache = cache},
                   LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
}

/* A cache has blocks of 2^n frames, aligned to their size, wherever they happen to lie. */
Test(dma, what_no_cache_has_comes_from_the_allocator)
{
    struct loam_frame_cache *cache = make_cache();
    const struct loam_dma_request requests[] = {
        {.bytes = 3 * PAGE, .cache = cache},
        {.bytes = PAGE, .align_bytes = 2 * PAGE, .cache = cache},
        {.bytes = PAGE, .at = {LOAM_MIB + 5 * PAGE}, .flags = LOAM_DMA_AT, .cache = cache},
    };

    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        struct loam_dma_buffer buffer = alloc(requests[i]);

        cr_expect_eq(cached_frames(), 0, "request %zu", i);
        cr_expect(requests[i].at.value == 0 || buffer.gpa.value == requests[i].at.value);
        cr_expect_eq(loam_dma_release_into(guest.dma, buffer.id, cache), LOAM_OK);
    }
    cr_expect_eq(free_frames(), FRAME_COUNT);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
}

Test(dma, an_odd_place_does_where_a_cache_has_no_aligned_one)
{
    struct loam_frame_cache *cache = make_cache();
    struct loam_dma_request pair = {.bytes = 2 * PAGE, .cache = cache};
    struct loam_dma_entry entry;

    for (uint64_t i = 0; i < FRAME_COUNT; i++) {
        alloc((struct loam_dma_request){.bytes = PAGE});
    }
    for (uint64_t i = 1; i <= 2; i++) {
        cr_assert_eq(loam_dma_find(guest.dma, (loam_gpa){LOAM_MIB + i * PAGE}, &entry), LOAM_OK);
        cr_assert_eq(loam_dma_release(guest.dma, entry.buffer.id), LOAM_OK);
    }
    cr_expect_eq(alloc(pair).gpa.value, LOAM_MIB + PAGE);
    cr_expect_eq(free_frames(), 0);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
}

/* --- Against a naive list ---------------------------------------------------------------------------------------- */

#define STEP_COUNT 200000u
#define LIST_MAX   FRAME_COUNT

struct naive_buffer {
    uint64_t id;
    uint64_t gpa;
    uint64_t frames;
    uint32_t pins;
    char *hva;
    char owner[8];
};

/* One run: the list, in no order, and what each frame is used for. */
struct trial {
    uint64_t random;
    uint64_t step;
    struct loam_frame_cache *cache;
    uint32_t id_count;
    uint32_t count;
    uint32_t refused[LOAM_ERROR_COUNT];
    struct naive_buffer list[LIST_MAX];
    bool used[PART_COUNT][512];
    uint64_t ids[STEP_COUNT]; /* all that were ever given */
};

#define SEED                           UINT64_C(0x10a3d3adbeef)
#define TRIAL_ASSERT(trial, condition) cr_assert(condition, "seed %#lx, step %lu", SEED, (trial)->step)

static uint64_t below(struct trial *trial, uint64_t end)
{
    return next_random(&trial->random) % end;
}

/* The part that holds all of the frames from gpa on; PART_COUNT if none does. */
static size_t part_of(uint64_t gpa, uint64_t frames)
{
    for (size_t i = 0; i < PART_COUNT; i++) {
        if (gpa >= parts[i].start && gpa + frames * PAGE <= parts[i].start + parts[i].frames * PAGE) {
            return i;
        }
    }
    return PART_COUNT;
}

static bool any_used(const struct trial *trial, size_t part, uint64_t gpa, uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        if (trial->used[part][(gpa - parts[part].start) / PAGE + i]) {
            return true;
        }
    }
    return false;
}

/* Whether a block from gpa on would keep to the request. */
static bool keeps_to(const struct loam_dma_request *request, uint64_t gpa, uint64_t frames)
{
    return (request->align_bytes == 0 || gpa % request->align_bytes == 0) &&
           (request->boundary_bytes < PAGE ||
            gpa / request->boundary_bytes == (gpa + frames * PAGE - 1) / request->boundary_bytes) &&
           (request->limit.value == 0 || gpa + frames * PAGE <= request->limit.value);
}

/* What alloc has to answer: tried frame by frame. */
static enum loam_error expect(const struct trial *trial, const struct loam_dma_request *request, uint64_t frames)
{
    if ((request->flags & LOAM_DMA_AT) != 0) {
        size_t part = part_of(request->at.value, frames);

        if (!keeps_to(request, request->at.value, frames)) {
            return LOAM_ERROR_INVALID;
        }
        if (part == PART_COUNT) {
            return LOAM_ERROR_NOT_FOUND;
        }
        return any_used(trial, part, request->at.value, frames) ? LOAM_ERROR_BUSY : LOAM_OK;
    }
    for (size_t part = 0; part < PART_COUNT; part++) {
        for (uint64_t i = 0; i + frames <= parts[part].frames; i++) {
            uint64_t gpa = parts[part].start + i * PAGE;

            if (keeps_to(request, gpa, frames) && !any_used(trial, part, gpa, frames)) {
                return LOAM_OK;
            }
        }
    }
    return LOAM_ERROR_EXHAUSTED;
}

static struct loam_dma_request random_request(struct trial *trial)
{
    struct loam_dma_request request = {.bytes = 1 + below(trial, below(trial, 8) == 0 ? 40 * PAGE : 4 * PAGE)};
    const struct part *part = &parts[below(trial, PART_COUNT)];

    if (below(trial, 4) == 0) {
        request.align_bytes = UINT64_C(1) << below(trial, 20);
    }
    if (below(trial, 4) == 0) {
        for (request.boundary_bytes = PAGE >> below(trial, 3); request.boundary_bytes < request.bytes;) {
            request.boundary_bytes *= 2;
        }
    }
    if (below(trial, 3) == 0) {
        request.limit.value = part->start + below(trial, part->frames * PAGE);
    }
    if (below(trial, 4) == 0) {
        request.flags |= LOAM_DMA_AT;
        request.at.value = part->start + below(trial, part->frames) * PAGE;
    }
    if (below(trial, 2) == 0) {
        request.cache = trial->cache;
    }
    return request;
}

static void mark(struct trial *trial, const struct naive_buffer *buffer, bool used)
{
    size_t part = part_of(buffer->gpa, buffer->frames);

    for (uint64_t i = 0; i < buffer->frames; i++) {
        trial->used[part][(buffer->gpa - parts[part].start) / PAGE + i] = used;
    }
}

/* The buffer's first and last words hold its id, so that one that is handed out twice shows. */
static void check_new(struct trial *trial, const struct loam_dma_request *request, uint64_t frames,
                      const struct loam_dma_buffer *buffer)
{
    size_t part = part_of(buffer->gpa.value, frames);
    struct naive_buffer *added = &trial->list[trial->count++];

    TRIAL_ASSERT(trial, buffer->bytes == frames * PAGE && part < PART_COUNT);
    TRIAL_ASSERT(trial, keeps_to(request, buffer->gpa.value, frames));
    TRIAL_ASSERT(trial, !any_used(trial, part, buffer->gpa.value, frames));
    TRIAL_ASSERT(trial, buffer->hva == guest.host[part] + (buffer->gpa.value - parts[part].start));
    TRIAL_ASSERT(trial, all_bytes(buffer->hva, buffer->bytes, 0));
    TRIAL_ASSERT(trial, buffer->id != 0);
    trial->ids[trial->id_count++] = buffer->id;
    *added = (struct naive_buffer){buffer->id, buffer->gpa.value, frames, 0, buffer->hva, ""};
    memcpy(added->owner, request->owner, strlen(request->owner));
    memset(buffer->hva, 0xff, buffer->bytes);
    memcpy(buffer->hva, &buffer->id, 8);
    memcpy((char *)buffer->hva + buffer->bytes - 8, &buffer->id, 8);
    mark(trial, added, true);
}

static void try_alloc(struct trial *trial)
{
    struct loam_dma_request request = random_request(trial);
    uint64_t frames = (request.bytes + PAGE - 1) / PAGE;
    enum loam_error expected = expect(trial, &request, frames);
    struct loam_dma_buffer buffer;
    char owner[8];

    snprintf(owner, sizeof owner, "%lu", below(trial, 1000000));
    request.owner = owner;
    trial->refused[expected]++;
    TRIAL_ASSERT(trial, loam_dma_alloc(guest.dma, &request, &buffer, NULL) == expected);
    if (expected == LOAM_OK) {
        check_new(trial, &request, frames, &buffer);
    } else {
        TRIAL_ASSERT(trial, buffer.id == 0 && buffer.hva == NULL);
    }
}

/* An id, in most cases of a buffer that is there; which, or NULL. */
static struct naive_buffer *random_buffer(struct trial *trial, uint64_t *id)
{
    *id = trial->id_count > 0 ? trial->ids[below(trial, trial->id_count)] : below(trial, 3);
    if (trial->count > 0 && below(trial, 8) != 0) {
        *id = trial->list[below(trial, trial->count)].id;
    }
    for (uint32_t i = 0; i < trial->count; i++) {
        if (trial->list[i].id == *id) {
            return &trial->list[i];
        }
    }
    return NULL;
}

static void try_release(struct trial *trial)
{
    uint64_t id;
    struct naive_buffer *buffer = random_buffer(trial, &id);
    enum loam_error expected = buffer == NULL ? LOAM_ERROR_NOT_FOUND : buffer->pins != 0 ? LOAM_ERROR_BUSY : LOAM_OK;

    if (expected == LOAM_OK) {
        TRIAL_ASSERT(trial, memcmp(buffer->hva, &id, 8) == 0);
        TRIAL_ASSERT(trial, memcmp(buffer->hva + buffer->frames * PAGE - 8, &id, 8) == 0);
        mark(trial, buffer, false);
        *buffer = trial->list[--trial->count];
    }
    TRIAL_ASSERT(trial, loam_dma_release_into(guest.dma, id, below(trial, 2) == 0 ? trial->cache : NULL) == expected);
}

static void try_pin(struct trial *trial, bool pin)
{
    uint64_t id;
    struct naive_buffer *buffer = random_buffer(trial, &id);
    enum loam_error expected = buffer == NULL              ? LOAM_ERROR_NOT_FOUND
                               : !pin && buffer->pins == 0 ? LOAM_ERROR_INVALID
                                                           : LOAM_OK;

    TRIAL_ASSERT(trial, (pin ? loam_dma_pin(guest.dma, id) : loam_dma_unpin(guest.dma, id)) == expected);
    if (expected == LOAM_OK) {
        buffer->pins += pin ? 1u : UINT32_MAX;
    }
}

static void check_entry(struct trial *trial, const struct loam_dma_entry *entry)
{
    const struct naive_buffer *buffer = NULL;

    for (uint32_t i = 0; i < trial->count; i++) {
        buffer = trial->list[i].id == entry->buffer.id ? &trial->list[i] : buffer;
    }
    TRIAL_ASSERT(trial, buffer != NULL);
    TRIAL_ASSERT(trial, entry->buffer.gpa.value == buffer->gpa && entry->buffer.bytes == buffer->frames * PAGE);
    TRIAL_ASSERT(trial, entry->buffer.hva == buffer->hva && entry->pin_count == buffer->pins);
    TRIAL_ASSERT(trial, strcmp(entry->owner, buffer->owner) == 0);
}

static void try_find(struct trial *trial)
{
    const struct part *part = &parts[below(trial, PART_COUNT)];
    uint64_t gpa = part->start + below(trial, part->frames * PAGE);
    bool used = any_used(trial, (size_t)(part - parts), gpa - gpa % PAGE, 1);
    struct loam_dma_entry entry;

    TRIAL_ASSERT(trial, loam_dma_find(guest.dma, (loam_gpa){gpa}, &entry) == (used ? LOAM_OK : LOAM_ERROR_NOT_FOUND));
    if (used) {
        TRIAL_ASSERT(trial, loam_fits(gpa - entry.buffer.gpa.value, 1, entry.buffer.bytes));
        check_entry(trial, &entry);
    }
}

/* All of the ledger. */
static void check_ledger(struct trial *trial)
{
    struct loam_dma_entry entry;
    uint32_t count = 0;

    TRIAL_ASSERT(trial, loam_dma_count(guest.dma) == trial->count);
    for (loam_gpa at = {0}; loam_dma_next(guest.dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        TRIAL_ASSERT(trial, entry.buffer.gpa.value >= at.value);
        check_entry(trial, &entry);
        count++;
    }
    TRIAL_ASSERT(trial, count == trial->count);
    assert_valid();
}

static int compare_ids(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

    return (a > b) - (a < b);
}

static void check_ids(struct trial *trial)
{
    qsort(trial->ids, trial->id_count, sizeof *trial->ids, compare_ids);
    for (uint32_t i = 1; i < trial->id_count; i++) {
        TRIAL_ASSERT(trial, trial->ids[i] != trial->ids[i - 1]);
    }
}

Test(dma, agrees_with_a_naive_list_over_random_operations, .timeout = 300)
{
    struct trial *trial = calloc(1, sizeof *trial);

    trial->random = SEED;
    trial->cache = make_cache();
    for (trial->step = 0; trial->step < STEP_COUNT; trial->step++) {
        uint64_t dice = below(trial, 100);

        /* The tide: by turns more is taken than given back, and less. */
        if (dice < (trial->step / 2000 % 2 == 0 ? 45u : 20u)) {
            try_alloc(trial);
        } else if (dice < 65) {
            try_release(trial);
        } else if (dice < 85) {
            try_pin(trial, dice < 71);
        } else {
            try_find(trial);
        }
        if (trial->step % 256 == 0) {
            check_ledger(trial);
        }
    }
    check_ledger(trial);
    TRIAL_ASSERT(trial, trial->refused[LOAM_OK] > STEP_COUNT / 20 && trial->refused[LOAM_ERROR_EXHAUSTED] > 1000);
    TRIAL_ASSERT(trial, trial->refused[LOAM_ERROR_BUSY] > 1000 && trial->refused[LOAM_ERROR_INVALID] > 1000);
    check_ids(trial);
    cr_assert_eq(loam_frame_cache_destroy(trial->cache), LOAM_OK);
    free(trial);
}

/* --- Threads ----------------------------------------------------------------------------------------------------- */

static atomic_ulong wrong;
static atomic_bool stop;

static void *carve_and_release(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    char owner[32];

    snprintf(owner, sizeof owner, "thread %lu", random);
    for (uint32_t i = 0; i < 10000; i++) {
        struct loam_dma_request request = {.owner = owner, .bytes = 1 + next_random(&random) % (8 * PAGE)};
        struct loam_dma_buffer buffer;
        struct loam_dma_entry entry;

        if (loam_dma_alloc(guest.dma, &request, &buffer, NULL) != LOAM_OK) {
            atomic_fetch_add(&wrong, 1);
            continue;
        }
        atomic_fetch_add(&wrong, !all_bytes(buffer.hva, buffer.bytes, 0));
        memset(buffer.hva, (int)(uintptr_t)argument, buffer.bytes);
        atomic_fetch_add(&wrong, loam_dma_pin(guest.dma, buffer.id) != LOAM_OK);
        atomic_fetch_add(&wrong, loam_dma_find(guest.dma, buffer.gpa, &entry) != LOAM_OK ||
                                     strcmp(entry.owner, owner) != 0 || entry.pin_count != 1);
        atomic_fetch_add(&wrong, loam_dma_release(guest.dma, buffer.id) != LOAM_ERROR_BUSY);
        atomic_fetch_add(&wrong, loam_dma_unpin(guest.dma, buffer.id) != LOAM_OK);
        atomic_fetch_add(&wrong, !all_bytes(buffer.hva, buffer.bytes, (char)(uintptr_t)argument));
        atomic_fetch_add(&wrong, loam_dma_release(guest.dma, buffer.id) != LOAM_OK);
    }
    return NULL;
}

static void *look_on(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop)) {
        struct loam_dma_entry entry;

        atomic_fetch_add(&wrong, loam_dma_validate(guest.dma, NULL) != LOAM_OK);
        atomic_fetch_add(&wrong, loam_dma_count(guest.dma) > 3);
        for (loam_gpa at = {0}; loam_dma_next(guest.dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
            /* A buffer carved since may hold at. */
            atomic_fetch_add(&wrong, loam_dma_entry_end(&entry).value <= at.value);
            atomic_fetch_add(&wrong, strncmp(entry.owner, "thread ", 7) != 0);
        }
    }
    return NULL;
}

/* The map changes elsewhere: views come and go under the ledger. */
static void *change_map(void *argument)
{
    const struct loam_region device = {.start = {8 * LOAM_GIB}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};

    (void)argument;
    while (!atomic_load(&stop)) {
        while (loam_gpa_map_insert(guest.map, &device) == LOAM_ERROR_BUSY) {
        }
        while (loam_gpa_map_remove(guest.map, device.start, device.bytes) == LOAM_ERROR_BUSY) {
        }
    }
    return NULL;
}

Test(dma, threads_carve_and_release_while_others_look, .timeout = 300)
{
    pthread_t carvers[3], others[2];

    cr_assert_eq(pthread_create(&others[0], NULL, look_on, NULL), 0);
    cr_assert_eq(pthread_create(&others[1], NULL, change_map, NULL), 0);
    for (uintptr_t i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&carvers[i], NULL, carve_and_release, (void *)(i + 1)), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        pthread_join(carvers[i], NULL);
    }
    atomic_store(&stop, true);
    pthread_join(others[0], NULL);
    pthread_join(others[1], NULL);
    cr_assert_eq(atomic_load(&wrong), 0);
    cr_assert_eq(loam_dma_count(guest.dma), 0);
    cr_assert_eq(free_frames(), FRAME_COUNT);
    cr_assert_eq(loam_frame_validate(guest.frame, NULL), LOAM_OK);
}
