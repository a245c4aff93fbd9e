// SPDX-License-Identifier: Apache-2.0
#include "loam/gpa_io.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)

enum { PAGES = 48 };

/* Guest pages 0 to 5, a hole at 6, then every other page of the host from guest page 8 on, so that each is a piece. */
static struct guest {
    struct loam_gpa_map *map;
    const struct loam_gpa_view *view;
    char *host;
    void *memory;
} guest;

static void add(uint64_t page, uint64_t pages, uint64_t host_page, enum loam_access access)
{
    struct loam_region region = {.start = {page * PAGE},
                                 .bytes = pages * PAGE,
                                 .hva = guest.host + host_page * PAGE,
                                 .type = LOAM_REGION_RAM,
                                 .access = access};

    cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
}

static void set_up(void)
{
    size_t bytes = loam_gpa_map_bytes(NULL);
    const struct loam_region device = {.start = {7 * PAGE}, .bytes = PAGE, .type = LOAM_REGION_DEVICE};

    guest.memory = aligned_alloc(64, loam_align_up(bytes, 64));
    guest.host = aligned_alloc(PAGE, PAGES * PAGE);
    memset(guest.host, 'x', PAGES * PAGE);
    cr_assert_eq(loam_gpa_map_init(guest.memory, bytes, NULL, &guest.map), LOAM_OK);
    add(0, 2, 0, LOAM_ACCESS_WRITE);
    add(2, 2, 2, LOAM_ACCESS_READ);
    add(4, 2, 8, LOAM_ACCESS_WRITE);
    cr_assert_eq(loam_gpa_map_insert(guest.map, &device), LOAM_OK);
    for (uint64_t page = 8; page < 28; page++) {
        add(page, 1, page * 2 - 8, LOAM_ACCESS_WRITE);
    }
    guest.view = loam_gpa_map_acquire(guest.map);
}

static void tear_down(void)
{
    loam_gpa_map_release(guest.map, guest.view);
    free(guest.memory);
    free(guest.host);
}

TestSuite(gpa_io, .init = set_up, .fini = tear_down);

static loam_gpa at(uint64_t gpa)
{
    return loam_gpa_from_u64(gpa);
}

static enum loam_error reach(uint64_t gpa, uint64_t bytes, enum loam_access access, uint64_t *reached)
{
    *reached = 7;
    return loam_gpa_io_reach(guest.view, at(gpa), bytes, access, reached);
}

Test(gpa_io, reaches_as_far_as_memory_grants)
{
    uint64_t reached;

    cr_expect_eq(reach(0, 10 * PAGE, LOAM_ACCESS_READ, &reached), LOAM_OK);
    cr_expect_eq(reached, 6 * PAGE, "up to the hole");
    cr_expect_eq(reach(100, 10 * PAGE, LOAM_ACCESS_WRITE, &reached), LOAM_OK);
    cr_expect_eq(reached, 2 * PAGE - 100, "up to what may not be written");
    cr_expect_eq(reach(100, 50, LOAM_ACCESS_WRITE, &reached), LOAM_OK);
    cr_expect_eq(reached, 50);
    cr_expect_eq(reach(27 * PAGE, UINT64_MAX, LOAM_ACCESS_READ, &reached), LOAM_OK);
    cr_expect_eq(reached, PAGE, "the last page");
    cr_expect_eq(reach(2 * PAGE, 1, LOAM_ACCESS_WRITE, &reached), LOAM_ERROR_NOT_PERMITTED);
    cr_expect_eq(reached, 0);
    cr_expect_eq(reach(6 * PAGE, 1, LOAM_ACCESS_READ, &reached), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(reach(7 * PAGE, 1, LOAM_ACCESS_READ, &reached), LOAM_ERROR_NOT_FOUND, "a device");
    cr_expect_eq(reach(UINT64_MAX, 2, LOAM_ACCESS_READ, &reached), LOAM_ERROR_INVALID);
    cr_expect_eq(reach(0, 1, LOAM_ACCESS_NONE, &reached), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_reach(NULL, at(0), 1, LOAM_ACCESS_READ, &reached), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_reach(guest.view, at(0), 1, LOAM_ACCESS_READ, NULL), LOAM_ERROR_INVALID);
}

Test(gpa_io, a_region_at_the_very_top_ends_there)
{
    uint64_t reached;

    add((LOAM_GPA_END / PAGE) - 1, 1, 47, LOAM_ACCESS_WRITE);
    loam_gpa_map_release(guest.map, guest.view);
    guest.view = loam_gpa_map_acquire(guest.map);
    cr_expect_eq(reach(LOAM_GPA_END - 5, UINT64_MAX, LOAM_ACCESS_READ, &reached), LOAM_OK);
    cr_expect_eq(reached, 5);
}

Test(gpa_io, zero_bytes_are_no_matter_where)
{
    uint64_t count64 = 7;
    uint32_t count = 7;

    cr_expect_eq(loam_gpa_io_reach(guest.view, at(6 * PAGE), 0, LOAM_ACCESS_READ, &count64), LOAM_OK);
    cr_expect_eq(count64, 0);
    cr_expect_eq(loam_gpa_io_vectors(guest.view, at(UINT64_MAX), 0, LOAM_ACCESS_WRITE, NULL, 0, &count), LOAM_OK);
    cr_expect_eq(count, 0);
    cr_expect_eq(loam_gpa_io_read_some(guest.view, at(6 * PAGE), NULL, 0, &count64), LOAM_OK);
    cr_expect_eq(loam_gpa_io_write_some(guest.view, at(2 * PAGE), NULL, 0, &count64), LOAM_OK);
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(0), NULL, 0, &count64), LOAM_ERROR_EXHAUSTED,
                 "no room for a NUL");
    cr_expect_eq(count64, 0);
}

/* More pieces than are asked for at a time, held against one by one. */
Test(gpa_io, vectors_are_the_pieces_however_many)
{
    struct loam_piece pieces[32];
    struct iovec vectors[32];
    uint32_t count, piece_count;

    for (uint64_t pages = 1; pages <= 20; pages++) {
        for (uint32_t capacity = 0; capacity <= 21; capacity++) {
            uint64_t bytes = pages * PAGE - 10;
            enum loam_error error = capacity < pages ? LOAM_ERROR_EXHAUSTED : LOAM_OK;

            memset(vectors, 0, sizeof vectors);
            cr_assert_eq(
                loam_gpa_view_pieces(guest.view, at(8 * PAGE + 7), bytes, LOAM_ACCESS_WRITE, pieces, 32, &piece_count),
                LOAM_OK);
            cr_assert_eq(piece_count, pages);
            cr_assert_eq(
                loam_gpa_io_vectors(guest.view, at(8 * PAGE + 7), bytes, LOAM_ACCESS_WRITE, vectors, capacity, &count),
                error);
            cr_assert_eq(count, pages);
            for (uint32_t i = 0; i < 32; i++) {
                bool there = i < count && i < capacity;

                cr_assert_eq(vectors[i].iov_base, there ? pieces[i].hva : NULL);
                cr_assert_eq(vectors[i].iov_len, there ? pieces[i].bytes : 0);
            }
        }
    }
    cr_expect_eq(loam_gpa_io_vectors(guest.view, at(0), 7 * PAGE, LOAM_ACCESS_READ, vectors, 32, &count),
                 LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(count, 0);
    cr_expect_eq(loam_gpa_io_vectors(guest.view, at(0), 1, LOAM_ACCESS_READ, NULL, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_vectors(NULL, at(0), 1, LOAM_ACCESS_READ, vectors, 1, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_vectors(guest.view, at(0), 1, LOAM_ACCESS_READ, vectors, 1, NULL), LOAM_ERROR_INVALID);
}

/* What a system call reads by them is what the guest has, in its order. */
Test(gpa_io, a_pipe_takes_vectors)
{
    struct iovec vectors[4];
    char found[2 * PAGE];
    uint32_t count;
    int ends[2];

    memset(guest.host + 10 * PAGE, 'b', PAGE);
    memset(guest.host + 8 * PAGE, 'a', PAGE);
    cr_assert_eq(loam_gpa_io_vectors(guest.view, at(8 * PAGE), 2 * PAGE, LOAM_ACCESS_READ, vectors, 4, &count),
                 LOAM_OK);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(writev(ends[1], vectors, (int)count), 2 * PAGE);
    cr_assert_eq(read(ends[0], found, sizeof found), 2 * PAGE);
    cr_expect(found[0] == 'a' && found[PAGE - 1] == 'a' && found[PAGE] == 'b' && found[2 * PAGE - 1] == 'b');
    close(ends[0]);
    close(ends[1]);
}

Test(gpa_io, some_bytes_are_copied_and_counted)
{
    static char buffer[16 * PAGE];
    uint64_t done = 7;

    cr_expect_eq(loam_gpa_io_read_some(guest.view, at(5 * PAGE), buffer, 2 * PAGE, &done), LOAM_OK);
    cr_expect_eq(done, PAGE);
    cr_expect(buffer[0] == 'x' && buffer[PAGE - 1] == 'x' && buffer[PAGE] == 0);
    memset(buffer, 'w', sizeof buffer);
    cr_expect_eq(loam_gpa_io_write_some(guest.view, at(PAGE), buffer, 4 * PAGE, &done), LOAM_OK);
    cr_expect_eq(done, PAGE, "up to what may not be written");
    cr_expect(guest.host[PAGE] == 'w' && guest.host[2 * PAGE - 1] == 'w' && guest.host[2 * PAGE] == 'x');
    cr_expect_eq(loam_gpa_io_write_some(guest.view, at(2 * PAGE), buffer, 1, &done), LOAM_ERROR_NOT_PERMITTED);
    cr_expect_eq(done, 0);
    cr_expect_eq(loam_gpa_io_read_some(guest.view, at(6 * PAGE), buffer, 1, &done), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_gpa_io_read_some(guest.view, at(0), NULL, 1, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(done, 0);
    cr_expect_eq(loam_gpa_io_write_some(NULL, at(0), buffer, 1, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_write_some(guest.view, at(0), buffer, 1, NULL), LOAM_ERROR_INVALID);
}

Test(gpa_io, strings_are_bounded_by_room_and_by_memory)
{
    char text[64];
    uint64_t length = 7;

    memcpy(guest.host + 4 * PAGE - 3, "abc", 3);
    memcpy(guest.host + 8 * PAGE, "def", 4);
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(4 * PAGE - 3), text, sizeof text, &length), LOAM_OK);
    cr_expect_str_eq(text, "abcdef", "across regions");
    cr_expect_eq(length, 6);
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(4 * PAGE - 3), text, 7, &length), LOAM_OK,
                 "the NUL is the last");
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(4 * PAGE - 3), text, 6, &length), LOAM_ERROR_EXHAUSTED);
    cr_expect_str_empty(text);
    cr_expect_eq(length, 0);
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(6 * PAGE - 8), text, sizeof text, &length),
                 LOAM_ERROR_EXHAUSTED, "memory ends before the string does");
    memset(text, 'q', sizeof text);
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(6 * PAGE), text, sizeof text, &length), LOAM_ERROR_NOT_FOUND);
    cr_expect_str_empty(text);
    length = 7;
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(0), NULL, 1, &length), LOAM_ERROR_INVALID);
    cr_expect_eq(length, 0);
    cr_expect_eq(loam_gpa_io_read_string(guest.view, at(0), text, 1, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_read_string(NULL, at(0), text, 1, &length), LOAM_ERROR_INVALID);
}
