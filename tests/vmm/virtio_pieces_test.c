// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_pieces.h"

#include "tests/vmm/random.h"
#include "tests/vmm/virtio_guest.h"

#include <criterion/criterion.h>
#include <string.h>

enum { PIECES = 24, ROW_BYTES = 2048, ROUNDS = 4000, SEED = 20250711 };

static struct virtio_guest guest;
static const struct loam_gpa_view *view;

static void set_up(void)
{
    virtio_guest_init(&guest);
    view = loam_gpa_map_acquire(guest.map);
}

static void tear_down(void)
{
    loam_gpa_map_release(guest.map, view);
    virtio_guest_destroy(&guest);
}

TestSuite(virtio_pieces, .init = set_up, .fini = tear_down);

/* A chain of pieces at random places in GUEST_HIGH, apart from each other, and the same bytes as a plain row. */
struct row {
    struct loam_piece pieces[PIECES];
    struct virtqueue_chain chain;
    uint8_t *at[ROW_BYTES];
    uint64_t bytes;
};

static void make_row(struct row *row, struct random *random)
{
    uint64_t gpa = GUEST_HIGH;

    memset(row, 0, sizeof *row);
    row->chain = (struct virtqueue_chain){.pieces = row->pieces, .capacity = PIECES};
    row->chain.readable_count = random_below(random, PIECES / 2);
    row->chain.writable_count = 1 + random_below(random, PIECES / 2);
    for (uint32_t i = 0; i < row->chain.readable_count + row->chain.writable_count; i++) {
        const uint64_t bytes = 1 + random_below(random, ROW_BYTES / PIECES);
        const bool is_readable = i < row->chain.readable_count;

        gpa += random_below(random, 64);
        row->pieces[i] = (struct loam_piece){{gpa}, virtio_guest_at(&guest, gpa), bytes};
        for (uint64_t j = 0; j < bytes && !is_readable; j++) {
            row->at[row->bytes++] = virtio_guest_at(&guest, gpa + j);
        }
        *(is_readable ? &row->chain.readable_bytes : &row->chain.writable_bytes) += bytes;
        gpa += bytes;
    }
}

static void check_read(const struct row *row, struct virtio_pieces *pieces, uint64_t start, uint64_t bytes)
{
    uint8_t buffer[ROW_BYTES];

    cr_assert(virtio_pieces_read(pieces, view, buffer, bytes));
    for (uint64_t i = 0; i < bytes; i++) {
        cr_assert_eq(buffer[i], *row->at[start + i]);
    }
}

static void check_write(const struct row *row, struct virtio_pieces *pieces, struct random *random, uint64_t start,
                        uint64_t bytes)
{
    uint8_t buffer[ROW_BYTES];

    for (uint64_t i = 0; i < bytes; i++) {
        buffer[i] = (uint8_t)random_u64(random);
    }
    cr_assert(virtio_pieces_write(pieces, view, buffer, bytes));
    for (uint64_t i = 0; i < bytes; i++) {
        cr_assert_eq(buffer[i], *row->at[start + i]);
    }
}

static void check_vectors(const struct row *row, const struct virtio_pieces *pieces, struct random *random,
                          uint64_t start)
{
    const uint64_t limit = random_below(random, ROW_BYTES);
    const uint32_t capacity = random_below(random, PIECES);
    struct iovec vectors[PIECES];
    const uint32_t count = virtio_pieces_vectors(pieces, limit, vectors, capacity);
    uint64_t bytes = 0;

    cr_assert_leq(count, capacity);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_gt(vectors[i].iov_len, 0);
        for (size_t j = 0; j < vectors[i].iov_len; j++) {
            cr_assert_eq((uint8_t *)vectors[i].iov_base + j, row->at[start + bytes++]);
        }
    }
    cr_assert_leq(bytes, limit);
    cr_assert(count == capacity || bytes == (limit < row->bytes - start ? limit : row->bytes - start));
}

Test(virtio_pieces, are_one_row_whatever_their_layout)
{
    static struct row row;
    struct random random = {SEED};

    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct virtio_pieces pieces;
        uint64_t start = 0;

        make_row(&row, &random);
        pieces = virtio_pieces_writable(&row.chain);
        cr_assert_eq(virtio_pieces_readable(&row.chain).left_bytes, row.chain.readable_bytes);
        cr_assert_eq(virtio_pieces_readable(&row.chain).first, row.pieces);
        while (start < row.bytes) {
            const uint64_t bytes = random_below(&random, (uint32_t)(row.bytes - start + 1));

            cr_assert_eq(pieces.left_bytes, row.bytes - start, "seed %u, round %u", SEED, round);
            check_vectors(&row, &pieces, &random, start);
            switch (random_below(&random, 3)) {
            case 0:
                check_read(&row, &pieces, start, bytes);
                break;
            case 1:
                check_write(&row, &pieces, &random, start, bytes);
                break;
            default:
                virtio_pieces_skip(&pieces, bytes);
                break;
            }
            start += bytes;
        }
        cr_assert_eq(pieces.left_bytes, 0);
    }
}

Test(virtio_pieces, no_more_than_is_left)
{
    struct loam_piece piece = {{GUEST_HIGH}, virtio_guest_at(&guest, GUEST_HIGH), 8};
    const struct virtqueue_chain chain = {.pieces = &piece, .readable_count = 1, .readable_bytes = 8};
    struct virtio_pieces pieces = virtio_pieces_readable(&chain);
    uint8_t buffer[9] = {0};

    virtio_pieces_skip(&pieces, 3);
    cr_expect_not(virtio_pieces_read(&pieces, view, buffer, 6));
    cr_expect_not(virtio_pieces_write(&pieces, view, buffer, 6));
    cr_expect_eq(pieces.left_bytes, 5);
    cr_expect(virtio_pieces_read(&pieces, view, buffer, 5));
    cr_expect(virtio_pieces_read(&pieces, view, buffer, 0));
    cr_expect_not(virtio_pieces_read(&pieces, view, buffer, 1));
    cr_expect_eq(virtio_pieces_vectors(&pieces, 100, &(struct iovec){0}, 1), 0);
}

/* What the view does not grant is refused, even where a piece says that it is there. */
Test(virtio_pieces, memory_that_is_not_the_guests)
{
    struct loam_piece pieces[] = {{{GUEST_HIGH}, virtio_guest_at(&guest, GUEST_HIGH), 4},
                                  {{GUEST_READONLY}, virtio_guest_at(&guest, GUEST_READONLY), 4}};
    const struct virtqueue_chain chain = {.pieces = pieces, .writable_count = 2, .writable_bytes = 8};
    struct virtio_pieces row = virtio_pieces_writable(&chain);
    uint8_t buffer[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    cr_expect_not(virtio_pieces_write(&row, view, buffer, 8));
    cr_expect_eq(row.left_bytes, 8);
    cr_expect_eq(*(uint8_t *)pieces[1].hva, 0);
    cr_expect(virtio_pieces_read(&row, view, buffer, 8));
    cr_expect_eq(buffer[3], 4, "the first four were written");
    pieces[1].start.value = GUEST_GAP;
    row = virtio_pieces_writable(&chain);
    cr_expect_not(virtio_pieces_read(&row, view, buffer, 8));
}
