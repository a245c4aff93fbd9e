// SPDX-License-Identifier: Apache-2.0
/*
 * Snapshots that are wrong in one place, and right by all their sums: the guest that goes on from them, the witness, says so each time.
 * What nobody could see from outside, it sees from inside.
 */
#include "tests/integration/launch.h"

#include "vmm/image.h"
#include "vmm/snapshot.h"
#include "vmm/state.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MILLISECONDS 60000
#define PAGE_BYTES   UINT64_C(4096)
#define HIGH         UINT64_C(0x100000000) /* all pages from here on are the witness's */

static char directory[64], socket_path[96], first[96], second[96];

static void run_to_end(char *const argv[])
{
    struct process process;

    cr_assert_eq(process_run(&process, argv, MILLISECONDS), 0, "%s%s", process.out, process.err);
    process_end(&process);
}

/* Two snapshots of one guest, the second a difference, a round later. */
static void set_up(void)
{
    struct process run;

    need_kvm();
    strcpy(directory, "/tmp/loam-sabotage-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(socket_path, sizeof socket_path, "%s/control", directory);
    snprintf(first, sizeof first, "%s/first", directory);
    snprintf(second, sizeof second, "%s/second", directory);

    char *start[] = {
        loam_path(), "run",       "--kernel", getenv("LOAM_WITNESS"), "-m", "16M", "--low-limit", "8M", "-p", "4K",
        "--control", socket_path, NULL};
    char *track[] = {loam_path(), "snapshot", "--track", socket_path, first, NULL};
    char *differ[] = {loam_path(), "snapshot", "--parent", first, socket_path, second, NULL};

    cr_assert(process_start(&run, start, MILLISECONDS));
    cr_assert(process_expect(&run, "round 0x2 "), "%s%s", run.out, run.err);
    run_to_end(track);
    cr_assert(process_expect(&run, "round 0x4 "), "%s%s", run.out, run.err);
    run_to_end(differ);
    kill(run.pid, SIGTERM);
    (void)process_wait(&run);
    process_end(&run);
}

static void tear_down(void)
{
    char *argv[] = {"/bin/rm", "-rf", directory, NULL};

    run_to_end(argv);
}

TestSuite(snapshot_sabotage, .init = set_up, .fini = tear_down, .timeout = 120);

/* --- A snapshot, written anew ----------------------------------------------------------------------------------------- */

/* What a sabotage changes: the image, whose file it may write to, and the payloads of other records. */
typedef void strike_fn(struct image *image, uint32_t kind, uint8_t *payload, size_t count);

static void put_record(struct state_writer *writer, const struct state_record *record, struct image *image,
                       strike_fn *strike)
{
    uint8_t *payload = malloc(record->count + 1);

    memcpy(payload, record->bytes, record->count);
    strike(image, record->kind, payload, record->count);
    if (record->kind == STATE_MEMORY) {
        image_save(image, writer);
    } else {
        state_begin(writer, (enum state_kind)record->kind, record->index);
        state_put(writer, payload, record->count);
        state_end(writer);
    }
    free(payload);
}

static void strike_at(const char *path, strike_fn *strike)
{
    char name[128];
    struct snapshot snapshot;
    struct state_writer writer;
    struct loam_diag diag = {0};
    int fd;

    cr_assert_eq(snapshot_open(path, &snapshot, &diag), LOAM_OK, "%s", diag.text);
    snprintf(name, sizeof name, "%s/memory", path);
    snapshot.image.fd = open(name, O_RDWR | O_CLOEXEC);
    cr_assert_geq(snapshot.image.fd, 0);
    state_writer_init(&writer);
    for (uint32_t i = 0; i < snapshot.reader.record_count; i++) {
        put_record(&writer, &snapshot.reader.records[i], &snapshot.image, strike);
    }
    cr_assert_eq(state_finish(&writer, &diag), LOAM_OK, "%s", diag.text);
    snprintf(name, sizeof name, "%s/state", path);
    fd = open(name, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(write(fd, writer.bytes, writer.count), (ssize_t)writer.count);
    close(fd);
    close(snapshot.image.fd);
    state_writer_release(&writer);
    snapshot_close(&snapshot);
}

/* The witness finds it, with these words, or none of it where words are NULL. */
static void expect_found(const char *path, const char *words)
{
    char *argv[] = {loam_path(), "run", "--restore", (char *)path, "--timeout", "30", NULL};
    struct process run;

    cr_assert(process_start(&run, argv, MILLISECONDS));
    if (words == NULL) {
        cr_assert(process_expect(&run, "witness: round"), "%s%s", run.out, run.err);
        cr_assert(process_expect(&run, "requests"), "%s%s", run.out, run.err);
        cr_assert(process_type(&run, "q"));
    }
    cr_expect_eq(process_wait(&run), words == NULL ? 0 : 1, "%s%s", run.out, run.err);
    cr_expect(words == NULL || strstr(run.out, words) != NULL, "%s: %s%s", words, run.out, run.err);
    process_end(&run);
}

/* --- What is struck ----------------------------------------------------------------------------------------------------- */

static uint8_t buffer[IMAGE_CHUNK_BYTES];

static void strike_nothing(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    (void)image;
    (void)kind;
    (void)payload;
    (void)count;
}

Test(snapshot_sabotage, nothing)
{
    strike_at(second, strike_nothing);
    expect_found(second, NULL);
    expect_found(first, NULL);
}

static void read_page(const struct image *image, uint64_t gpa, uint8_t page[PAGE_BYTES])
{
    cr_assert_eq(pread(image->fd, page, PAGE_BYTES, (off_t)gpa), (ssize_t)PAGE_BYTES);
}

static void write_page(struct image *image, uint64_t gpa, const uint8_t page[PAGE_BYTES])
{
    const struct image_page patched = {gpa, page};

    cr_assert_eq(image_patch(image, &patched, 1, buffer, NULL), LOAM_OK);
}

/* A page that was written is not in the difference: what is there is older. */
static void drop_page(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    struct image_chunk *chunk = &image->chunks[image_index(image, HIGH)];
    uint8_t page[PAGE_BYTES];

    (void)payload;
    (void)count;
    if (kind == STATE_MEMORY) {
        cr_assert_eq(chunk->pages[0] & 0x60, 0x60, "a round has written to all of them");
        chunk->pages[0] &= ~UINT64_C(0x20);
        read_page(image, HIGH + 6 * PAGE_BYTES, page);
        write_page(image, HIGH + 6 * PAGE_BYTES, page); /* the sum is right again */
    }
}

Test(snapshot_sabotage, a_dirty_page_that_is_dropped)
{
    strike_at(second, drop_page);
    expect_found(second, "witness: fail: generation");
}

static void swap_pages(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    const uint64_t one = HIGH + 9 * PAGE_BYTES, other = HIGH + 700 * PAGE_BYTES;
    uint8_t pages[2][PAGE_BYTES];

    (void)payload;
    (void)count;
    if (kind == STATE_MEMORY) {
        read_page(image, one, pages[0]);
        read_page(image, other, pages[1]);
        write_page(image, one, pages[1]);
        write_page(image, other, pages[0]);
    }
}

Test(snapshot_sabotage, a_swapped_pair)
{
    strike_at(first, swap_pages);
    expect_found(first, "witness: fail: page");
}

static void flip_bit(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    uint8_t page[PAGE_BYTES];

    (void)payload;
    (void)count;
    if (kind == STATE_MEMORY) {
        read_page(image, HIGH + 33 * PAGE_BYTES, page);
        page[PAGE_BYTES - 3] ^= 1;
        write_page(image, HIGH + 33 * PAGE_BYTES, page);
    }
}

Test(snapshot_sabotage, a_bit_of_a_page)
{
    strike_at(first, flip_bit);
    expect_found(first, "witness: fail: end of page");
}

static void clear_page(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    const uint8_t page[PAGE_BYTES] = {0};

    (void)payload;
    (void)count;
    if (kind == STATE_MEMORY) {
        write_page(image, HIGH + 44 * PAGE_BYTES, page);
    }
}

Test(snapshot_sabotage, zeros_instead_of_a_page)
{
    strike_at(first, clear_page);
    expect_found(first, "witness: fail: page");
}

/* --- State of the machine ------------------------------------------------------------------------------------------------ */

#define SCRATCH_OFFSET   9u           /* in record serial: behind three bools and six registers */
#define CMOS_OFFSET      (1u + 0x40u) /* in record platform: behind the index */
#define NEXT_USED_OFFSET 102u /* in record virtio: behind the transport's fields, and of the queue all but this */
#define MSR_KERNEL_GS    UINT32_C(0xc0000102)

static void change_scratch(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    (void)image;
    cr_assert(kind != STATE_SERIAL || count > SCRATCH_OFFSET);
    payload[kind == STATE_SERIAL ? SCRATCH_OFFSET : count] ^= kind == STATE_SERIAL ? 1 : 0;
}

Test(snapshot_sabotage, a_byte_of_the_serial_port)
{
    strike_at(first, change_scratch);
    expect_found(first, "witness: fail: serial port");
}

static void change_cmos(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    (void)image;
    (void)count;
    if (kind == STATE_PLATFORM) {
        payload[CMOS_OFFSET] ^= 0x80;
    }
}

Test(snapshot_sabotage, a_byte_of_the_cmos)
{
    strike_at(first, change_cmos);
    expect_found(first, "witness: fail: CMOS");
}

static void change_queue(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    (void)image;
    cr_assert(kind != STATE_VIRTIO || count == NEXT_USED_OFFSET + 2);
    if (kind == STATE_VIRTIO) {
        payload[NEXT_USED_OFFSET]++;
    }
}

Test(snapshot_sabotage, a_byte_of_a_queue)
{
    strike_at(first, change_queue);
    expect_found(first, "witness: fail: ring");
}

static void change_msr(struct image *image, uint32_t kind, uint8_t *payload, size_t count)
{
    const uint32_t wanted[2] = {MSR_KERNEL_GS, 0};
    bool is_found = false;

    (void)image;
    for (size_t i = 0; kind == STATE_VCPU && i + 16 <= count; i++) {
        if (memcmp(payload + i, wanted, sizeof wanted) == 0) {
            payload[i + 8] ^= 1;
            is_found = true;
        }
    }
    cr_assert(kind != STATE_VCPU || is_found);
}

Test(snapshot_sabotage, a_bit_of_a_register)
{
    strike_at(first, change_msr);
    expect_found(first, "witness: fail: MSR");
}
