// SPDX-License-Identifier: Apache-2.0
#include "loam/gpa_io.h"

#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
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

/* --- Files ------------------------------------------------------------------------------------------------------- */

enum { FILE_BYTES = 24 * 4096 };

/* Byte n of every file here. */
static char byte_of(uint64_t n)
{
    return (char)(n * 31 + n / 4096);
}

static int make_file(uint64_t bytes)
{
    static char text[FILE_BYTES];
    int fd = memfd_create("file", MFD_CLOEXEC);

    for (uint64_t i = 0; i < bytes; i++) {
        text[i] = byte_of(i);
    }
    cr_assert_eq(write(fd, text, bytes), (ssize_t)bytes);
    cr_assert_eq(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

/* Whether the guest has bytes of the file's, from offset on. */
static bool guest_has(uint64_t gpa, uint64_t bytes, uint64_t offset)
{
    static char found[FILE_BYTES];

    cr_assert_eq(loam_gpa_view_read(guest.view, at(gpa), found, bytes), LOAM_OK);
    for (uint64_t i = 0; i < bytes; i++) {
        if (found[i] != byte_of(offset + i)) {
            return false;
        }
    }
    return true;
}

static enum loam_error from_fd(uint64_t gpa, uint64_t bytes, int fd, int64_t offset, uint64_t *done)
{
    *done = 7;
    return loam_gpa_io_read_from_fd(guest.view, at(gpa), bytes, fd, offset, done);
}

static enum loam_error to_fd(uint64_t gpa, uint64_t bytes, int fd, int64_t offset, uint64_t *done)
{
    *done = 7;
    return loam_gpa_io_write_to_fd(guest.view, at(gpa), bytes, fd, offset, done);
}

Test(gpa_io, a_file_is_read_across_pieces_to_its_end)
{
    int fd = make_file(10 * PAGE + 5);
    uint64_t done;

    cr_expect_eq(from_fd(8 * PAGE + 3, 4 * PAGE, fd, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 4 * PAGE);
    cr_expect(guest_has(8 * PAGE + 3, done, 0));
    cr_expect_eq(guest.host[8 * PAGE + 2], 'x', "not before gpa");
    cr_expect_eq(lseek(fd, 0, SEEK_CUR), 4 * (off_t)PAGE, "the position moves on");
    cr_expect_eq(from_fd(8 * PAGE, 20 * PAGE, fd, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 6 * PAGE + 5, "up to the file's end");
    cr_expect(guest_has(8 * PAGE, done, 4 * PAGE));
    cr_expect_eq(from_fd(8 * PAGE, PAGE, fd, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 0, "it has ended");
    cr_expect_eq(from_fd(9 * PAGE, 3 * PAGE, fd, 17, &done), LOAM_OK);
    cr_expect(done == 3 * PAGE && guest_has(9 * PAGE, done, 17));
    cr_expect_eq(lseek(fd, 0, SEEK_CUR), 10 * (off_t)PAGE + 5, "an offset leaves the position alone");
    close(fd);
}

Test(gpa_io, a_file_is_written_across_pieces)
{
    int from = make_file(FILE_BYTES), to = memfd_create("to", MFD_CLOEXEC);
    uint64_t done;
    char byte;

    cr_assert_eq(from_fd(8 * PAGE, 20 * PAGE, from, 0, &done), LOAM_OK);
    cr_expect_eq(to_fd(8 * PAGE + 1, 6 * PAGE, to, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 6 * PAGE);
    cr_expect_eq(to_fd(9 * PAGE, 2 * PAGE, to, 7 * PAGE, &done), LOAM_OK, "beyond its end");
    cr_expect_eq(lseek(to, 0, SEEK_END), 9 * (off_t)PAGE);
    for (uint64_t i = 0; i < 9 * PAGE; i++) {
        char expected = i < 6 * PAGE ? byte_of(i + 1) : i < 7 * PAGE ? 0 : byte_of(i - 6 * PAGE);

        cr_assert(pread(to, &byte, 1, (off_t)i) == 1 && byte == expected, "byte %lu", i);
    }
    close(from);
    close(to);
}

/* A descriptor keeps what has no place in the guest. */
Test(gpa_io, files_go_as_far_as_memory_grants)
{
    int fd = make_file(FILE_BYTES), to = memfd_create("to", MFD_CLOEXEC);
    uint64_t done;

    cr_expect_eq(from_fd(PAGE, 5 * PAGE, fd, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, PAGE, "up to what may not be written");
    cr_expect_eq(guest.host[2 * PAGE], 'x');
    cr_expect_eq(lseek(fd, 0, SEEK_CUR), (off_t)PAGE);
    cr_expect_eq(from_fd(5 * PAGE, 5 * PAGE, fd, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, PAGE, "up to the hole");
    cr_expect_eq(from_fd(2 * PAGE, 1, fd, 0, &done), LOAM_ERROR_NOT_PERMITTED);
    cr_expect_eq(done, 0);
    cr_expect_eq(from_fd(6 * PAGE, 1, fd, 0, &done), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(from_fd(7 * PAGE, 1, fd, 0, &done), LOAM_ERROR_NOT_FOUND, "a device");
    cr_expect_eq(to_fd(PAGE, 9 * PAGE, to, 0, &done), LOAM_OK);
    cr_expect_eq(done, 5 * PAGE, "what may be read may be written to a file");
    cr_expect_eq(to_fd(6 * PAGE, 1, to, 0, &done), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(lseek(fd, 0, SEEK_CUR), 2 * (off_t)PAGE);
    close(fd);
    close(to);
}

Test(gpa_io, what_is_no_question_of_files_is_refused)
{
    int fd = make_file(PAGE);
    uint64_t done;

    cr_expect_eq(from_fd(6 * PAGE, 0, -1, LOAM_GPA_IO_POSITION, &done), LOAM_OK, "zero bytes");
    cr_expect_eq(done, 0);
    cr_expect_eq(from_fd(0, 1, fd, -2, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(done, 0);
    cr_expect_eq(to_fd(0, 1, fd, INT64_MIN, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_read_from_fd(NULL, at(0), 1, fd, 0, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_io_write_to_fd(guest.view, at(0), 1, fd, 0, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(from_fd(0, 1, -1, LOAM_GPA_IO_POSITION, &done), LOAM_ERROR_SYSTEM);
    cr_expect_eq(errno, EBADF);
    cr_expect_eq(from_fd(0, 2 * PAGE, fd, INT64_MAX, &done), LOAM_ERROR_SYSTEM, "no offset wraps");
    cr_expect_eq(errno, EINVAL);
    cr_expect_eq(prim_fake_call_count(PRIM_READ_VECTORS), 2);
    cr_expect_eq(prim_fake_call_count(PRIM_WRITE_VECTORS), 0);
    close(fd);
}

Test(gpa_io, what_would_block_is_busy_if_nothing_came)
{
    static char text[FILE_BYTES];
    uint64_t done, room;
    int ends[2];

    cr_assert_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    cr_expect_eq(from_fd(8 * PAGE, PAGE, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_ERROR_BUSY);
    cr_expect_eq(errno, EAGAIN);
    cr_expect_eq(done, 0);
    cr_assert_eq(write(ends[1], "some", 4), 4);
    cr_expect_eq(from_fd(9 * PAGE - 2, PAGE, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 4);
    cr_expect(memcmp(guest.host + 9 * PAGE - 2, "so", 2) == 0 && memcmp(guest.host + 10 * PAGE, "me", 2) == 0);
    cr_expect_eq(from_fd(8 * PAGE, 1, ends[0], 0, &done), LOAM_ERROR_SYSTEM, "a pipe has no offsets");
    cr_expect_eq(errno, ESPIPE);
    room = (uint64_t)fcntl(ends[1], F_SETPIPE_SZ, 4 * PAGE);
    cr_expect_eq(to_fd(8 * PAGE, 20 * PAGE, ends[1], LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, room, "as much as has room");
    cr_expect_eq(to_fd(8 * PAGE, 1, ends[1], LOAM_GPA_IO_POSITION, &done), LOAM_ERROR_BUSY);
    cr_expect_eq(read(ends[0], text, sizeof text), (ssize_t)room);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    cr_expect_eq(to_fd(8 * PAGE, 1, ends[1], LOAM_GPA_IO_POSITION, &done), LOAM_ERROR_SYSTEM);
    cr_expect_eq(errno, EPIPE);
    close(ends[1]);
}

/* In crumbs, so that every read is short. */
static void *feed(void *fd)
{
    int to = *(int *)fd;
    char crumb[97];
    size_t length;

    for (uint64_t sent = 0; sent < FILE_BYTES - 4096; sent += length) {
        length = sent % 96 + 1;
        length = length < FILE_BYTES - 4096 - sent ? length : FILE_BYTES - 4096 - sent;
        for (uint64_t i = 0; i < length; i++) {
            crumb[i] = byte_of(sent + i);
        }
        if (write(to, crumb, length) != (ssize_t)length) {
            abort();
        }
    }
    shutdown(to, SHUT_WR);
    return NULL;
}

Test(gpa_io, a_stream_that_comes_in_crumbs_is_read_to_its_end)
{
    pthread_t feeder;
    uint64_t done;
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(pthread_create(&feeder, NULL, feed, &ends[1]), 0);
    cr_expect_eq(from_fd(8 * PAGE, 19 * PAGE, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 19 * PAGE, "it blocks until all is there");
    cr_expect(guest_has(8 * PAGE, done, 0));
    cr_expect_eq(from_fd(8 * PAGE + 9, 8 * PAGE, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 4 * PAGE, "until the other side has ended");
    cr_expect(guest_has(8 * PAGE + 9, done, 19 * PAGE));
    pthread_join(feeder, NULL);
    close(ends[0]);
    close(ends[1]);
}

/* Each call fails in turn, and what those before it moved is said. */
Test(gpa_io, an_error_after_some_says_how_many)
{
    static const int errors[] = {EIO, EFAULT, ENOSPC};
    uint64_t done;
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    for (uint32_t n = 1; n <= 4; n++) {
        for (size_t e = 0; e < sizeof errors / sizeof *errors; e++) {
            /* A packet ends a read; four of them are four calls. */
            for (int i = 0; i < 4; i++) {
                cr_assert_eq(write(ends[1], "packet", 6), 6);
            }
            prim_fake_fail(PRIM_READ_VECTORS, n, 1, errors[e]);
            cr_expect_eq(from_fd(9 * PAGE - 5, 24, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_ERROR_SYSTEM);
            cr_expect_eq(errno, errors[e]);
            cr_expect_eq(done, (n - 1) * 6);
            cr_assert_eq(prim_fake_failed_count(), 1);
            prim_fake_fail_none();
            cr_expect_eq(from_fd(9 * PAGE - 5, 24 - done, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_OK);
        }
    }
    prim_fake_fail(PRIM_READ_VECTORS, 2, 1, EAGAIN);
    cr_assert_eq(write(ends[1], "packet", 6), 6);
    cr_expect_eq(from_fd(8 * PAGE, 24, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 6);
    prim_fake_fail(PRIM_WRITE_VECTORS, 1, 1, ENOSPC);
    cr_expect_eq(to_fd(8 * PAGE, 24, ends[0], LOAM_GPA_IO_POSITION, &done), LOAM_ERROR_SYSTEM);
    cr_expect(errno == ENOSPC && done == 0);
    close(ends[0]);
    close(ends[1]);
}

Test(gpa_io, an_interrupted_call_is_made_again)
{
    int fd = make_file(4 * PAGE);
    uint64_t done;

    prim_fake_fail(PRIM_READ_VECTORS, 1, 2000, EINTR);
    cr_expect_eq(from_fd(8 * PAGE, 3 * PAGE, fd, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, 3 * PAGE);
    cr_expect(guest_has(8 * PAGE, done, 0));
    cr_expect_eq(prim_fake_failed_count(), 2000);
    prim_fake_fail(PRIM_WRITE_VECTORS, 1, 1, EINTR);
    cr_expect_eq(to_fd(8 * PAGE, 3 * PAGE, fd, 0, &done), LOAM_OK);
    cr_expect(done == 3 * PAGE && prim_fake_failed_count() == 1);
    prim_fake_fail_none();
    close(fd);
}

/* Host memory that cannot be had, as behind a file that was cut: the kernel says so, where a copy would be killed. */
Test(gpa_io, memory_that_is_not_there_is_an_error_of_the_system)
{
    int file = memfd_create("cut", MFD_CLOEXEC), fd = make_file(4 * PAGE);
    char *cut;
    struct loam_region region = {.start = {64 * PAGE}, .bytes = 2 * PAGE, .type = LOAM_REGION_RAM};
    uint64_t done;

    cr_assert_eq(ftruncate(file, 2 * (off_t)PAGE), 0);
    cut = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    region.hva = cut;
    region.access = LOAM_ACCESS_WRITE;
    cr_assert_eq(loam_gpa_map_insert(guest.map, &region), LOAM_OK);
    loam_gpa_map_release(guest.map, guest.view);
    guest.view = loam_gpa_map_acquire(guest.map);
    cr_assert_eq(ftruncate(file, (off_t)PAGE), 0);
    cr_expect_eq(from_fd(64 * PAGE, 2 * PAGE, fd, LOAM_GPA_IO_POSITION, &done), LOAM_ERROR_SYSTEM);
    cr_expect_eq(errno, EFAULT);
    cr_expect_eq(done, PAGE);
    cr_expect_eq(memcmp(cut, "\0\x1f\x3e", 3), 0);
    munmap(cut, 2 * PAGE);
    close(file);
    close(fd);
}

/* More pieces than one call takes. */
Test(gpa_io, a_thousand_pieces_go_in_several_calls)
{
    enum { MANY = 1000 };
    const struct loam_gpa_map_config config = {.region_capacity = MANY};
    char *host = aligned_alloc(PAGE, 2 * MANY * PAGE), *text = malloc(MANY * PAGE);
    void *memory = aligned_alloc(64, loam_align_up(loam_gpa_map_bytes(&config), 64));
    int fd = memfd_create("file", MFD_CLOEXEC);
    const struct loam_gpa_view *view;
    struct loam_gpa_map *map;
    uint64_t done;

    memset(host, 'x', 2 * MANY * PAGE);
    cr_assert_eq(loam_gpa_map_init(memory, loam_gpa_map_bytes(&config), &config, &map), LOAM_OK);
    for (uint64_t page = 0; page < MANY; page++) {
        struct loam_region region = {.start = {page * PAGE}, .bytes = PAGE, .hva = host + 2 * page * PAGE};

        region.access = LOAM_ACCESS_WRITE;
        cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
        memset(text + page * PAGE, (int)(page % 251), PAGE);
    }
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(pwrite(fd, text, MANY * PAGE, 0), MANY * (ssize_t)PAGE);
    cr_expect_eq(loam_gpa_io_read_from_fd(view, at(0), MANY * PAGE, fd, 0, &done), LOAM_OK);
    cr_expect_eq(done, MANY * PAGE);
    cr_expect_eq(prim_fake_call_count(PRIM_READ_VECTORS), 4);
    for (uint64_t page = 0; page < MANY; page++) {
        cr_assert_eq(memcmp(host + 2 * page * PAGE, text + page * PAGE, PAGE), 0);
        cr_assert_eq(host[(2 * page + 1) * PAGE], 'x');
    }
    cr_assert_eq(ftruncate(fd, 0), 0);
    cr_expect_eq(loam_gpa_io_write_to_fd(view, at(5), MANY * PAGE - 5, fd, LOAM_GPA_IO_POSITION, &done), LOAM_OK);
    cr_expect_eq(done, MANY * PAGE - 5);
    memset(host, 0, MANY * PAGE);
    cr_assert_eq(pread(fd, host, MANY * PAGE, 0), MANY * (ssize_t)PAGE - 5);
    cr_expect_eq(memcmp(host, text + 5, MANY * PAGE - 5), 0);
    loam_gpa_map_release(map, view);
    close(fd);
    free(memory);
    free(text);
    free(host);
}
