// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: a state file and a stream, whoever has made them up, are refused or taken, and never more than they are. Bytes are read as
 * they are; and as records, and frames, whose lengths and sums are put right, so that what lies behind these is reached. What was taken
 * is driven, written down, and taken again. At the end it says how much was taken of each.
 */
#include "vmm/image.h"
#include "vmm/pit.h"
#include "vmm/platform.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/state.h"
#include "vmm/state_memory.h"
#include "vmm/transfer.h"
#include "vmm/virtio_rng.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_BYTES (4 * LOAM_MIB)

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loam_plan plan;
static struct loam_memory *memory;
static uintmax_t input_count, open_count, device_count, image_count, ledger_count, virtio_count, stream_count;

static void tell(void)
{
    fprintf(stderr,
            "state_fuzz: %ju inputs: %ju files opened, %ju devices, %ju images, %ju ledgers, %ju queues, %ju guests "
            "taken\n",
            input_count, open_count, device_count, image_count, ledger_count, virtio_count, stream_count);
}

static void make_memory(void)
{
    const struct loam_memory_request request = {
        .bytes = RAM_BYTES, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_PRIVATE, .commit = LOAM_COMMIT_LAZY};

    REQUIRE(loam_plan_make(&request, &plan, NULL) == LOAM_OK && loam_memory_create(&plan, &memory, NULL) == LOAM_OK);
}

/* --- Devices ---------------------------------------------------------------------------------------------------------- */

static void nothing(void *self)
{
    (void)self;
}

static void no_output(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    (void)bytes;
    (void)count;
}

static bool hears(void *self)
{
    (void)self;
    return true;
}

static void drive(bus_access_fn *access, void *device, uint64_t ports)
{
    for (uint64_t port = 0; port < ports; port++) {
        struct bus_access read = {.offset = port, .bytes = 1},
                          write = {.offset = port, .bytes = 1, .is_write = true, .value = 0x35};

        access(device, &read);
        access(device, &write);
    }
}

static void try_serial(struct state_reader *reader)
{
    static struct serial serial;
    const uint8_t bytes[20] = {0};

    serial_init(&serial, (struct irq_line){0}, no_output, NULL);
    if (serial_load(&serial, reader, NULL) == LOAM_OK) {
        device_count++;
        drive(serial_access, &serial, SERIAL_BYTES);
        (void)serial_receive(&serial, bytes, sizeof bytes);
    }
    serial_destroy(&serial);
}

static void try_power(struct state_reader *reader)
{
    struct power power;

    power_init(&power, (struct irq_line){0}, nothing, NULL);
    if (power_load(&power, reader, NULL) == LOAM_OK) {
        device_count++;
        drive(power_access, &power, POWER_BYTES);
    }
    power_destroy(&power);
}

static void try_platform(struct state_reader *reader)
{
    const struct platform_config config = {.plan = &plan, .vcpu_count = 1, .reset = nothing, .output = no_output};
    struct platform platform;

    platform_init(&platform, &config);
    if (platform_load(&platform, reader, NULL) == LOAM_OK) {
        device_count++;
        drive(cmos_access, &platform.cmos, CMOS_BYTES);
        drive(fw_cfg_access, &platform.fw_cfg, FW_CFG_BYTES);
    }
}

static void try_pit(struct state_reader *reader)
{
    struct pit pit;

    pit_init(&pit, (struct irq_line){0}, hears, NULL);
    pit_hold(&pit);
    if (pit_load(&pit, reader, NULL) == LOAM_OK) {
        device_count++;
        pit_go_on(&pit);
        drive(pit_access, &pit, PIT_BYTES);
        pit_catch_up(&pit);
    }
    pit_destroy(&pit);
}

static void try_virtio(struct state_reader *reader)
{
    static struct virtio_rng rng;

    REQUIRE(virtio_rng_init(&rng, loam_memory_map(memory), (struct irq_line){0}, NULL, NULL) == LOAM_OK);
    if (virtio_mmio_load(&rng.mmio, reader, 0, NULL) == LOAM_OK) {
        virtio_count++;
        virtio_mmio_replay(&rng.mmio);
        drive(virtio_mmio_access, &rng.mmio, 0x100);
    }
    virtio_rng_destroy(&rng);
}

static void try_image(struct state_reader *reader)
{
    struct image image;

    if (image_load(&image, reader, -1, NULL) == LOAM_OK) {
        image_count++;
        for (uint64_t i = 0; i < image.chunk_count && i < 8; i++) {
            const struct image_place place = image_place(&image, i);

            REQUIRE(image_index(&image, place.gpa) == i && place.bytes <= IMAGE_CHUNK_BYTES);
        }
        image_release(&image);
    }
}

/* Whatever it says, memory is consistent afterwards. */
static void try_memory(struct state_reader *reader)
{
    struct loam_memory *fresh;

    if (!state_has(reader, STATE_LEDGER, 0) || loam_memory_create(&plan, &fresh, NULL) != LOAM_OK) {
        return;
    }
    ledger_count += state_memory_load(fresh, reader, NULL) == LOAM_OK;
    REQUIRE(loam_memory_validate(fresh, NULL) == LOAM_OK);
    loam_memory_destroy(fresh);
}

static void try_file(const uint8_t *bytes, size_t count)
{
    struct state_reader reader;

    if (state_open(&reader, bytes, count, NULL) == LOAM_OK) {
        open_count++;
        try_serial(&reader);
        try_power(&reader);
        try_platform(&reader);
        try_pit(&reader);
        try_virtio(&reader);
        try_image(&reader);
        try_memory(&reader);
        (void)!state_all_done(&reader, NULL);
        state_close(&reader);
    }
}

/* --- Records out of bytes ------------------------------------------------------------------------------------------------ */

/* Kind, index, length, payload; what is missing reads as zeros, where a record is too short, because its length is. */
static void try_records(const uint8_t *data, size_t size)
{
    struct state_writer writer;

    state_writer_init(&writer);
    while (size >= 3) {
        const enum state_kind kind = 1 + data[0] % (STATE_KIND_COUNT - 1);
        const size_t wanted = data[2] == 255 ? 4096 : data[2], here = size - 3 < wanted ? size - 3 : wanted;

        state_begin(&writer, kind, data[1] % 2);
        if (kind == STATE_LEDGER && here > 100) {
            state_memory_save_plan(&plan, &writer); /* as bytes of no meaning */
        }
        state_put(&writer, data + 3, here);
        state_end(&writer);
        data += 3 + here;
        size -= 3 + here;
    }
    state_begin(&writer, STATE_PLAN, 7);
    state_end(&writer);
    if (state_finish(&writer, NULL) == LOAM_OK) {
        try_file(writer.bytes, writer.count);
    }
    state_writer_release(&writer);
}

/* --- A true file, and what is wrong with it ---------------------------------------------------------------------------- */

static void write_true_file(struct state_writer *writer)
{
    static struct serial serial;
    static struct virtio_rng rng;
    const struct platform_config config = {.plan = &plan, .vcpu_count = 1, .reset = nothing, .output = no_output};
    struct power power;
    struct platform platform;
    struct pit pit;
    struct image image;

    serial_init(&serial, (struct irq_line){0}, no_output, NULL);
    power_init(&power, (struct irq_line){0}, nothing, NULL);
    platform_init(&platform, &config);
    pit_init(&pit, (struct irq_line){0}, hears, NULL);
    pit_hold(&pit);
    REQUIRE(virtio_rng_init(&rng, loam_memory_map(memory), (struct irq_line){0}, NULL, NULL) == LOAM_OK &&
            image_init(&image, &plan, -1, NULL) == LOAM_OK);
    state_memory_save_plan(&plan, writer);
    state_memory_save(memory, writer);
    image_save(&image, writer);
    serial_save(&serial, writer);
    power_save(&power, writer);
    platform_save(&platform, writer);
    pit_save(&pit, writer);
    virtio_mmio_save(&rng.mmio, writer, 0);
    image_release(&image);
    virtio_rng_destroy(&rng);
    pit_destroy(&pit);
    power_destroy(&power);
    serial_destroy(&serial);
}

/* Each four bytes: what is to be the byte at which offset behind the header; the sum is put right. */
static void try_mutated(const uint8_t *data, size_t size)
{
    struct state_writer writer;
    uint64_t sum = 0;

    state_writer_init(&writer);
    write_true_file(&writer);
    REQUIRE(state_finish(&writer, NULL) == LOAM_OK);
    for (; size >= 4; data += 4, size -= 4) {
        const size_t at = data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16;

        writer.bytes[STATE_HEADER_BYTES + at % (writer.count - STATE_HEADER_BYTES)] = data[3];
    }
    memcpy(writer.bytes + STATE_HEADER_BYTES - sizeof sum, &sum, sizeof sum);
    sum = XXH3_64bits(writer.bytes, writer.count);
    memcpy(writer.bytes + STATE_HEADER_BYTES - sizeof sum, &sum, sizeof sum);
    try_file(writer.bytes, writer.count);
    state_writer_release(&writer);
}

/* --- A stream out of bytes --------------------------------------------------------------------------------------------------- */

struct frame {
    uint8_t magic[4];
    uint32_t kind;
    uint64_t gpa, bytes, sum;
};

static void put_frame(int fd, uint32_t kind, uint64_t gpa, const void *bytes, uint64_t count, bool has_body)
{
    struct frame frame = {"LoMv", kind, gpa, count, XXH3_64bits_withSeed(bytes, has_body ? count : 0, gpa)};

    (void)!write(fd, &frame, sizeof frame);
    (void)!write(fd, bytes, has_body ? count : 0);
}

static void put_plan(int fd, uint32_t kind)
{
    struct state_writer writer;

    state_writer_init(&writer);
    state_memory_save_plan(&plan, &writer);
    REQUIRE(state_finish(&writer, NULL) == LOAM_OK);
    put_frame(fd, kind, 0, writer.bytes, writer.count, true);
    state_writer_release(&writer);
}

static void try_stream(const uint8_t *data, size_t size)
{
    static uint8_t page[8192];
    struct transfer_progress progress = {0};
    struct transfer transfer = {.fd = memfd_create("stream", MFD_CLOEXEC), .progress = &progress};
    struct transfer_state state;

    if (size > 0 && data[0] % 4 != 0) {
        put_frame(transfer.fd, 1, TRANSFER_VERSION, "", 0, true);
        put_plan(transfer.fd, 2);
        for (data++, size--; size >= 4; data += 4, size -= 4) {
            const uint64_t gpa = ((uint64_t)data[1] << 12 | (data[2] & 1) * 8) * (data[2] > 250 ? 1u << 20 : 1);
            const uint64_t count = data[3] < 8 ? data[3] * 4096u % 12288 : data[3] * 8u;
            const uint32_t kind = data[0] % 7;

            memset(page, data[3], sizeof page);
            put_frame(transfer.fd, kind, gpa, page, count < sizeof page ? count : sizeof page, kind != 4);
        }
        put_plan(transfer.fd, 5); /* as the state of a machine of nothing */
    }
    (void)!write(transfer.fd, data, size);
    REQUIRE(lseek(transfer.fd, 0, SEEK_SET) == 0);
    if (transfer_receive(&transfer, memory, &state, NULL) == LOAM_OK) {
        stream_count++;
        transfer_state_release(&state);
    }
    close(transfer.fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (input_count++ == 0) {
        make_memory();
        REQUIRE(atexit(tell) == 0);
    }
    if (size > 0) {
        try_file(data + 1, size - 1);
        try_records(data, size);
        try_mutated(data + 1, size - 1);
        try_stream(data, size);
    }
    return 0;
}
