// SPDX-License-Identifier: Apache-2.0
/*
 * Guests that need instructions which KVM's emulator may lack. With VT-x or AMD-V the processor runs them itself, and
 * must give the same.
 */
#include "vmm/assist.h"

#include "tests/vmm/assist_guests.h"
#include "tests/vmm/random.h"
#include "vmm/machine.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_SECONDS 60
#define SEED            UINT64_C(0x5eed0085)

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]
#define LOAD(name)  load(guest_##name, guest_##name##_end)

GUEST(long);
GUEST(protected);
GUEST(short);
GUEST(short_sse);
GUEST(traps);
GUEST(unmasked);
GUEST(nowhere);

void assist_sequence(uint8_t *results);

/* --- Exits that are none of its business
 * --------------------------------------------------------------------------------- */

static struct kvm_run failed(uint32_t ndata, uint64_t flags, uint8_t size)
{
    struct kvm_run run = {.exit_reason = KVM_EXIT_INTERNAL_ERROR};

    run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.emulation_failure.ndata = ndata;
    run.emulation_failure.flags = flags;
    run.emulation_failure.insn_size = size;
    memset(run.emulation_failure.insn_bytes, 0x9b, sizeof run.emulation_failure.insn_bytes);
    return run;
}

/* No vCPU and no map: neither may be touched. */
static bool is_assisted(const struct kvm_run *run)
{
    return assist_instruction(-1, run, NULL, NULL);
}

Test(assist_exits, leaves_other_exits_alone)
{
    const uint64_t bytes = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    struct kvm_run run = failed(4, bytes, 1);

    for (uint32_t reason = 0; reason < 64; reason++) {
        run.exit_reason = reason;
        cr_assert(reason == KVM_EXIT_INTERNAL_ERROR || !is_assisted(&run), "exit %" PRIu32, reason);
    }
    run = failed(4, bytes, 1);
    run.internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
    cr_assert_not(is_assisted(&run));
    run = failed(2, bytes, 1);
    cr_assert_not(is_assisted(&run), "no room for bytes");
    run = failed(4, 0, 1);
    cr_assert_not(is_assisted(&run), "no bytes");
    run = failed(4, bytes, 0);
    cr_assert_not(is_assisted(&run), "none of them");
    for (unsigned int size = 16; size < 256; size++) {
        run = failed(4, bytes, (uint8_t)size);
        cr_assert_not(is_assisted(&run), "%u bytes", size);
    }
}

/* --- A guest's world
 * ------------------------------------------------------------------------------------------------------- */

static struct loam_memory *memory;
static struct boot_state boot;
static struct machine_result result;
static uint8_t *results;

static void *carve(uint64_t gpa, uint64_t bytes)
{
    struct loam_dma_request request = {.owner = "test", .bytes = bytes, .flags = LOAM_DMA_AT, .at = {gpa}};
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, &diag), LOAM_OK, "%s", diag.text);
    return buffer.hva;
}

static void set_up(void)
{
    struct loam_memory_request request = {.bytes = 8 * LOAM_MIB, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct loam_diag diag = {0};
    struct loam_plan plan;

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    boot = (struct boot_state){.protocol = BOOT_PVH, .entry = GUEST_BASE};
    results = carve(RESULTS_BASE, RESULTS_BYTES);
}

static void tear_down(void)
{
    loam_memory_destroy(memory);
}

TestSuite(assist, .init = set_up, .fini = tear_down, .timeout = TIMEOUT_SECONDS);

static void load(const uint8_t *code, const uint8_t *end)
{
    cr_assert_leq((size_t)(end - code), GUEST_BYTES);
    memcpy(carve(GUEST_BASE, GUEST_BYTES), code, (size_t)(end - code));
}

/* 64-bit mode: 4 KiB pages for the first 4 MiB, so that one access can need two of them, and a GDT as boot_state has
 * it. */
static uint64_t *enter_long_mode(void)
{
    uint64_t gpa = GUEST_BASE + GUEST_BYTES, *tables = carve(gpa, 6 * 4096), *pages = tables + 4 * 512;
    uint64_t *descriptors = tables + 3 * 512;

    tables[0] = (gpa + 4096) | 3;
    tables[512] = (gpa + 8192) | 3;
    for (uint64_t i = 0; i < 2; i++) {
        tables[1024 + i] = (gpa + (4 + i) * 4096) | 3;
    }
    for (uint64_t i = 0; i < 1024; i++) {
        pages[i] = i << 12 | 3;
    }
    descriptors[2] = UINT64_C(0x00af9b000000ffff);
    descriptors[3] = UINT64_C(0x00cf93000000ffff);
    descriptors[4] = UINT64_C(0x00008b0000000067);
    boot.protocol = BOOT_LINUX;
    boot.page_tables = loam_gpa_from_u64(gpa);
    boot.descriptors = loam_gpa_from_u64(gpa + 3 * 4096);
    boot.descriptor_count = 6;
    return pages;
}

/* Pages that the machine itself writes for the guest. */
static struct loam_dirty *dirty;

static void run(void)
{
    struct machine_config config = {.memory = memory, .vcpu_count = 1, .boot = &boot, .dirty = dirty};
    struct loam_diag diag = {0};
    struct machine *machine;

    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(machine_start(machine, &diag), LOAM_OK, "%s", diag.text);
    machine_wait(machine, &result);
    machine_destroy(machine);
}

static void open_dirty(void)
{
    static const struct loam_dirty_config config = {.bytes = 8 * LOAM_MIB};
    static _Alignas(8) uint8_t bits[4096];

    cr_assert_eq(loam_dirty_init(bits, sizeof bits, &config, &dirty), LOAM_OK);
}

static void run_to_exit(void)
{
    run();
    cr_assert_eq(result.reason, MACHINE_STOP_EXIT, "reason %d\n%s", result.reason, result.report);
    cr_assert_eq(result.exit_code, 0);
}

/* --- Guests
 * -------------------------------------------------------------------------------------------------------------- */

/* The same code, run here and there. */
Test(assist, gives_a_64_bit_guest_what_the_processor_gives)
{
    uint8_t *wanted = aligned_alloc(4096, RESULTS_BYTES);

    cr_assert_not_null(wanted);
    memset(wanted, 0, RESULTS_BYTES);
    assist_sequence(wanted);
    LOAD(long);
    (void)enter_long_mode();
    run_to_exit();
    for (size_t i = 0; i < RESULTS_BYTES; i++) {
        cr_assert_eq(results[i], wanted[i], "result %zu, byte %zu: 0x%02x wanted, 0x%02x found", i / 16, i % 16,
                     wanted[i], results[i]);
    }
    cr_assert_neq(wanted[4096 - 3] | wanted[4096 - 2], 0, "the last results are there");
    free(wanted);
}

/* A page that may not be written is written by nobody. */
Test(assist, keeps_to_the_guests_page_tables)
{
    uint64_t *pages;

    LOAD(protected);
    pages = enter_long_mode();
    run_to_exit();
    cr_assert_eq(results[7], 0x3f);
    pages[RESULTS_BASE >> 12] &= ~UINT64_C(2);
    memset(results, 0xee, RESULTS_BYTES);
    run();
    cr_assert(result.reason == MACHINE_STOP_SHUTDOWN || result.reason == MACHINE_STOP_BROKEN, "%s", result.report);
    cr_assert_eq(results[7], 0xee);
}

Test(assist, calculates_for_a_32_bit_guest)
{
    struct {
        int32_t product, gap;
        int64_t difference;
        float one;
        int16_t pi, gap2;
        uint16_t status, gap3;
    } found;

    LOAD(short);
    run_to_exit();
    memcpy(&found, results, sizeof found);
    cr_assert_eq(found.product, 6 * -7);
    cr_assert_eq(found.difference, 1000 - 6, "%" PRId64, found.difference);
    cr_assert_eq(found.one, 1.0f);
    cr_assert_eq(found.pi, 3);
    cr_assert_eq(found.status, 0x0020, "inexact, and the stack is empty: 0x%04x", found.status);
}

Test(assist, calculates_by_sse_for_a_32_bit_guest)
{
    struct {
        double product;
        int32_t integer, sums[2], bits, bits_of_word;
        uint32_t mxcsr;
        uint8_t is_above;
    } found;
    int32_t across[2];

    LOAD(short_sse);
    open_dirty();
    run_to_exit();
    /* Where KVM leaves nothing to assist, it comes back for the exit port alone. */
    cr_expect_eq(loam_dirty_test(dirty, loam_gpa_from_u64(RESULTS_BASE)), result.exit_count > 3);
    memcpy(&found, results, sizeof found);
    memcpy(across, results + 4093, sizeof across);
    cr_assert_eq(found.product, -10.5);
    cr_assert_eq(found.integer, -10);
    cr_assert_eq(found.sums[0], -10 + 3);
    cr_assert_eq(found.sums[1], -10 + 4);
    cr_assert_eq(found.bits, 12);
    cr_assert_eq(found.bits_of_word, 4, "%d", found.bits_of_word);
    cr_assert_eq(found.mxcsr, 0x1fa0, "inexact: 0x%x", found.mxcsr);
    cr_assert_eq(found.is_above, 1);
    cr_assert_eq(across[0], -10 + 0x0f0f1111);
    cr_assert_eq(across[1], -10 + 2);
}

/* FLDCW sums up what it no longer masks; QEMU's TCG, as a processor, leaves that out. */
static bool processor_sums_up(void)
{
    const uint16_t unmasked = 0x37b;
    uint16_t status;

    __asm__ volatile("fninit\n fld1\n fldz\n fdivrp\n fldcw %1\n fnstsw %0\n fnclex\n fninit"
                     : "=m"(status)
                     : "m"(unmasked));
    return (status & 0x80) != 0;
}

Test(assist, raises_the_exceptions_that_are_due)
{
    static const uint8_t wanted[] = {
        64,   0xa6,       /* INT 64 */
        3,    0xa0,       /* INT3 */
        0xa1, 7,    0xa2, /* WAIT without and with MP */
        7,    0xa3,       /* FLD1 */
        0x04, 0x84,       /* the status after a masked division by 0, and after its mask has gone */
        16,   0xa4,       /* WAIT */
        16,   0xa5,       /* FLD1 */
    };
    const size_t before_sum = 10; /* steps before the 0x84, from which on the others follow */
    const size_t count = processor_sums_up() ? sizeof wanted : before_sum;

    LOAD(traps);
    run_to_exit();
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(results[i], wanted[i], "step %zu: 0x%02x wanted, 0x%02x found", i, wanted[i], results[i]);
    }
    cr_assert(count < sizeof wanted || results[sizeof wanted] == 0);
}

/* The processor leaves the exception pending; an assist stops there, and says at what. */
Test(assist, stops_at_what_it_cannot_do_exactly)
{
    LOAD(unmasked);
    run();
    if (result.reason == MACHINE_STOP_BROKEN) {
        cr_assert_not_null(strstr(result.report, "lacks the instruction at RIP (de f9"), "%s", result.report);
    } else {
        cr_assert_eq(result.reason, MACHINE_STOP_EXIT, "%s", result.report);
    }
}

Test(assist, reaches_no_device)
{
    LOAD(nowhere);
    run();
    cr_assert_eq(result.reason, MACHINE_STOP_BROKEN, "no emulator loads x87 operands from devices");
}

static uint8_t *put_x87(struct random *random, uint8_t *at)
{
    *at++ = (uint8_t)(0xd8 + random_below(random, 8));
    *at++ = (uint8_t)(random_one_in(random, 8) ? random_u64(random) : 0xc0 | random_u64(random));
    return at;
}

/* SSE and the others behind 0x0f, mostly between registers; also with prefixes that do not belong there. */
static uint8_t *put_0f(struct random *random, uint8_t *at)
{
    static const uint8_t prefixes[] = {0x66, 0xf2, 0xf3, 0xf0, 0x2e, 0x67};
    static const uint8_t opcodes[] = {0x01, 0xae, 0xb8, 0xc7, 0x2a, 0x2c, 0x6e, 0x7e, 0xc2, 0xc6};

    while (random_one_in(random, 2)) {
        *at++ = prefixes[random_below(random, random_one_in(random, 8) ? 6 : 3)];
    }
    *at++ = 0x0f;
    *at++ = random_one_in(random, 3) ? opcodes[random_below(random, sizeof opcodes)]
                                     : (uint8_t)(0x50 + random_below(random, 0x27));
    *at++ = (uint8_t)(random_one_in(random, 16) ? random_u64(random) : 0xc0 | random_u64(random));
    return at;
}

/* Whatever stands where the guest's code is said to be: it ends, or it is stopped, and the host goes on. */
static void check_random_code(uint8_t *(*put)(struct random *random, uint8_t *at))
{
    struct random random = {.state = SEED};
    uint8_t *code = carve(GUEST_BASE, GUEST_BYTES);

    for (unsigned int round = 0; round < 20; round++) {
        static const uint8_t enable[] = {0x0f, 0x20, 0xe0, 0x0d, 0, 6, 0, 0, 0x0f, 0x22, 0xe0}; /* CR4 |= 0x600 */
        uint8_t *at = code + sizeof enable;

        memset(code, 0xf4, GUEST_BYTES);
        memcpy(code, enable, sizeof enable);
        while (at < code + 2048) {
            at = put(&random, at);
        }
        memcpy(code + 2080, "\xb0\x00\xe6\xf4", 4);
        run();
        cr_assert(result.reason == MACHINE_STOP_EXIT || result.reason == MACHINE_STOP_SHUTDOWN ||
                      result.reason == MACHINE_STOP_BROKEN || result.reason == MACHINE_STOP_HALT,
                  "reason %d, seed 0x%" PRIx64, result.reason, SEED);
    }
}

Test(assist, survives_random_x87_code, .timeout = TIMEOUT_SECONDS)
{
    check_random_code(put_x87);
}

Test(assist, survives_random_code_of_sse, .timeout = TIMEOUT_SECONDS)
{
    check_random_code(put_0f);
}
