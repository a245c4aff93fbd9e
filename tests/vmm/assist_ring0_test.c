// SPDX-License-Identifier: Apache-2.0
/*
 * The instructions of the assists, one at a time, at privilege level 0 of a KVM guest. With VT-x or AMD-V the processor
 * runs them itself; a KVM that emulates gives up on them, and they are assisted; either way they do what the Intel SDM
 * says, volume 2, and what user mode has of them does what it does there.
 */
#include "vmm/assist.h"

#include "tests/vmm/native_step.h"
#include "tests/vmm/ring0_station.h"
#include "tests/vmm/step_case.h"

#include <cpuid.h>
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SEED UINT64_C(0x5eed0012)

#define UNDEFINED   6
#define NO_DEVICE   7
#define NO_SEGMENT  11
#define PROTECTION  13
#define PAGE_FAULT  14
#define SIMD        19
#define FAULT_USER  4u
#define RFLAGS_RF   UINT64_C(0x10000)
#define RFLAGS_AC   UINT64_C(0x40000)
#define RFLAGS_ZF   UINT64_C(0x40)
#define MXCSR_RESET 0x1f80u

#define CR0_EM      UINT64_C(0x4)
#define CR0_TS      UINT64_C(0x8)
#define CR4_OSFXSR  UINT64_C(0x200)
#define CR4_OSXMM   UINT64_C(0x400)
#define CR4_OSXSAVE UINT64_C(0x40000)
#define CR4_SMAP    UINT64_C(0x200000)

static struct ring0_station station;
static struct step_state state;

static void set_up(void)
{
    ring0_open(&station, false);
    memset(&state, 0, sizeof state);
    state.regs.rip = STEP_CODE;
    state.regs.rbx = STEP_WRITABLE;
    state.mxcsr = MXCSR_RESET;
}

static void tear_down(void)
{
    ring0_close(&station);
}

TestSuite(assist_ring0, .init = set_up, .fini = tear_down, .timeout = 120);

/* Where an instruction has ended: state says how. */
static void run(const char *name, const uint8_t *code, size_t count)
{
    enum vcpu_event event;
    char text[4096];

    event = ring0_run(&station, code, count, &state);
    if (event != VCPU_HALTED) {
        vcpu_describe(&station.vcpu, station.map, text, sizeof text);
        cr_assert(false, "%s: event %d\n%s", name, event, text);
    }
}

#define RUN(name, ...) run(name, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* Run it again from the same place. */
#define AGAIN(name, ...)                                                                                               \
    do {                                                                                                               \
        state.regs.rip = STEP_CODE;                                                                                    \
        RUN(name, __VA_ARGS__);                                                                                        \
    } while (0)

static void check_raised(const char *name, unsigned int vector, uint32_t error_code)
{
    cr_expect_eq(state.vector, vector, "%s: exception %u wanted, %u found", name, vector, state.vector);
    cr_expect_eq(state.error_code, error_code, "%s: error code 0x%x wanted, 0x%x found", name, error_code,
                 state.error_code);
    cr_expect_eq(state.regs.rip, STEP_CODE, "%s: a fault names its own instruction, not 0x%llx", name, state.regs.rip);
}

static void check_done(const char *name, unsigned int length)
{
    cr_expect_eq(state.vector, 0, "%s: exception %u", name, state.vector);
    cr_expect_eq(state.regs.rip, STEP_CODE + length, "%s: 0x%llx", name, state.regs.rip);
}

static void put64(uint64_t gpa, uint64_t value)
{
    memcpy(ring0_ram(gpa), &value, sizeof value);
}

static uint64_t get64(uint64_t gpa)
{
    uint64_t value;

    memcpy(&value, ring0_ram(gpa), sizeof value);
    return value;
}

static uint32_t cpuid_7_ebx(void)
{
    uint32_t eax, ebx, ecx, edx;

    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 ? ebx : 0;
}

/* QEMU's TCG, which emulates AMD-V among others, differs from processors where a test says so. */
static bool is_tcg(void)
{
    uint32_t eax, signature[3];

    __cpuid(0x40000000, eax, signature[0], signature[1], signature[2]);
    return memcmp(signature, "TCGTCGTCGTCG", sizeof signature) == 0;
}

/* --- CLAC and STAC ------------------------------------------------------------------------------------------- */

#define STAC 0x0f, 0x01, 0xcb
#define CLAC 0x0f, 0x01, 0xca

/* A user's page can be reached at privilege level 0 only after STAC, and CLAC ends that. */
Test(assist_ring0, clac_and_stac_guard_the_pages_of_users)
{
    if ((cpuid_7_ebx() & UINT32_C(1) << 20) == 0) {
        cr_skip("no SMAP");
    }
    station.sregs.cr4 |= CR4_SMAP;
    ring0_map(1, RING0_WINDOW + STEP_PAGE, RING0_PRESENT | RING0_WRITABLE | RING0_USER);
    put64(RING0_WINDOW + STEP_PAGE, UINT64_C(0x1122334455667788));
    state.regs.rflags = 0x8d5;
    RUN("STAC", STAC);
    check_done("STAC", 3);
    cr_expect_eq(state.regs.rflags, RFLAGS_AC | 0x8d7, "AC and no other: 0x%llx", state.regs.rflags);
    AGAIN("MOVQ after STAC", 0xf3, 0x0f, 0x7e, 0x03);
    check_done("MOVQ after STAC", 4);
    cr_expect_eq(state.registers[0][0], 0x88);
    AGAIN("CLAC", CLAC);
    check_done("CLAC", 3);
    cr_expect_eq(state.regs.rflags, 0x8d7, "0x%llx", state.regs.rflags);
    AGAIN("MOVQ after CLAC", 0xf3, 0x0f, 0x7e, 0x03);
    check_raised("MOVQ after CLAC", PAGE_FAULT, 1);
    cr_expect_eq(state.address, STEP_WRITABLE);
    state.regs.rbx = STEP_WRITABLE + 1;
    AGAIN("MOVSS after CLAC", 0xf3, 0x0f, 0x11, 0x03);
    check_raised("MOVSS after CLAC", PAGE_FAULT, 3);
    if (!is_tcg()) { /* which lets LOCK be */
        AGAIN("LOCK CLAC", 0xf0, CLAC);
        check_raised("LOCK CLAC", UNDEFINED, 0);
    }
}

/* --- XGETBV and XSETBV --------------------------------------------------------------------------------------- */

#define XGETBV 0x0f, 0x01, 0xd0
#define XSETBV 0x0f, 0x01, 0xd1

Test(assist_ring0, xgetbv_reads_what_xsetbv_has_written)
{
    uint32_t eax, ebx, ecx, edx;

    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) {
        cr_skip("no XSAVE");
    }
    state.regs.rcx = UINT64_C(0xffffffff00000000); /* ECX counts */
    RUN("XGETBV without OSXSAVE", XGETBV);
    check_raised("XGETBV without OSXSAVE", UNDEFINED, 0);
    station.sregs.cr4 |= CR4_OSXSAVE;
    AGAIN("XGETBV", XGETBV);
    check_done("XGETBV", 3);
    cr_expect_eq(state.regs.rax, 1, "x87 alone after a reset: 0x%llx", state.regs.rax);
    cr_expect_eq(state.regs.rdx, 0);
    state.regs.rax = 3;
    state.regs.rdx = 0;
    AGAIN("XSETBV", XSETBV);
    check_done("XSETBV", 3);
    state.regs.rax = state.regs.rdx = UINT64_MAX;
    AGAIN("XGETBV", XGETBV);
    check_done("XGETBV", 3);
    cr_expect_eq(state.regs.rax, 3, "0x%llx", state.regs.rax);
    cr_expect_eq(state.regs.rdx, 0);
    state.regs.rcx = 2;
    AGAIN("XGETBV of what is not there", XGETBV);
    check_raised("XGETBV of what is not there", PROTECTION, 0);
    state.regs.rcx = 0;
    state.regs.rax = 2;
    AGAIN("XSETBV without x87", XSETBV);
    check_raised("XSETBV without x87", PROTECTION, 0);
}

/* --- INVPCID ------------------------------------------------------------------------------------------------- */

#define INVPCID 0x66, 0x0f, 0x38, 0x82, 0x03 /* rax, [rbx] */

static bool has_invpcid(void)
{
    return (cpuid_7_ebx() & UINT32_C(1) << 10) != 0;
}

/* rsi leads to the page; read, remap by a store to the entry, and read again with INVPCID between. */
Test(assist_ring0, invpcid_flushes)
{
    uint64_t entry = 0x6000 + 8 * ((STEP_WINDOW >> 12 & 511) + 1);

    if (!has_invpcid()) {
        cr_skip("no INVPCID");
    }
    for (unsigned int type = 0; type < 4; type++) {
        ring0_map(1, RING0_WINDOW + STEP_PAGE, RING0_PRESENT | RING0_WRITABLE);
        put64(RING0_WINDOW + STEP_PAGE, 0x1111);
        put64(RING0_SPARE, 0x2222);
        put64(RING0_SPARE + 0x100, 0);
        put64(RING0_SPARE + 0x108, STEP_WRITABLE);
        state.regs.rsi = STEP_WRITABLE;
        state.regs.rdi = entry;
        state.regs.rdx = RING0_SPARE | 3;
        state.regs.rbx = RING0_SPARE + 0x100;
        state.regs.rax = type;
        AGAIN("INVPCID", 0x4c, 0x8b, 0x06, 0x48, 0x89, 0x17, INVPCID, 0x4c, 0x8b, 0x0e);
        check_done("INVPCID", 14);
        cr_expect_eq(state.regs.r8, 0x1111, "type %u: 0x%llx", type, state.regs.r8);
        cr_expect_eq(state.regs.r9, 0x2222, "type %u: 0x%llx", type, state.regs.r9);
    }
}

Test(assist_ring0, invpcid_is_particular_about_its_operands)
{
    static const struct {
        uint64_t type, low, high;
        bool is_refused;
    } cases[] = {
        {0, 0, 0, false},
        {4, 0, 0, true},
        {UINT64_C(0x100000000), 0, 0, true},
        {0, 1, 0, true}, /* a PCID without CR4.PCIDE */
        {1, 1, 0, true},
        {2, 1, 0, false},
        {3, 0xfff, 0, false},
        {0, 0x1000, 0, true},
        {2, UINT64_C(0x8000000000000000), 0, true},
        {0, 0, UINT64_C(0x800000000000), true},
        {1, 0, UINT64_C(0x800000000000), false},
        {0, 0, UINT64_C(0xffff800000000000), false},
    };

    if (!has_invpcid()) {
        cr_skip("no INVPCID");
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[24];

        snprintf(name, sizeof name, "INVPCID, case %zu", i);
        put64(RING0_WINDOW + STEP_PAGE, cases[i].low);
        put64(RING0_WINDOW + STEP_PAGE + 8, cases[i].high);
        state.regs.rax = cases[i].type;
        AGAIN(name, INVPCID);
        if (cases[i].is_refused) {
            check_raised(name, PROTECTION, 0);
        } else {
            check_done(name, 5);
        }
    }
    state.regs.rbx = STEP_ABSENT - 8;
    state.regs.rax = 2;
    AGAIN("INVPCID of no page", INVPCID);
    check_raised("INVPCID of no page", PAGE_FAULT, 0);
    cr_expect_eq(state.address, STEP_ABSENT);
    AGAIN("INVPCID of a register", 0x66, 0x0f, 0x38, 0x82, 0xc3);
    check_raised("INVPCID of a register", UNDEFINED, 0);
}

/* --- INT n --------------------------------------------------------------------------------------------------- */

Test(assist_ring0, int_is_a_trap_at_its_gate)
{
    static const uint8_t vectors[] = {0x03, 0x04, 0x0d, 0x0e, 0x20, 0x80, 0xff};

    for (size_t i = 0; i < sizeof vectors; i++) {
        uint64_t rsp = UINT64_C(0x123456789abc0000) + i;
        uint64_t frame[5];

        state.regs.rflags = 0x8d5;
        state.regs.rip = STEP_CODE;
        state.regs.rsp = rsp;
        RUN("INT", 0xcd, vectors[i]);
        /* There is no error code, whatever the vector: the station takes one off. */
        memcpy(frame, ring0_ram(0xc000 - sizeof frame), sizeof frame);
        cr_expect_eq(state.vector, vectors[i]);
        cr_expect_eq(frame[0], STEP_CODE + 2, "INT 0x%x: a trap names what follows, not 0x%" PRIx64, vectors[i],
                     frame[0]);
        cr_expect_eq(frame[2], 0x8d7, "INT 0x%x: 0x%" PRIx64, vectors[i], frame[2]);
        cr_expect_eq(frame[3], rsp, "INT 0x%x", vectors[i]);
    }
}

Test(assist_ring0, int_raises_what_its_gate_says)
{
    if (is_tcg()) {
        cr_skip("QEMU counts gates of long mode twice in error codes, and lets LOCK be");
    }
    ring0_gate(0x40)[5] = 0x0e; /* not present */
    RUN("INT of a gate that is not present", 0xcd, 0x40);
    check_raised("INT of a gate that is not present", NO_SEGMENT, 0x40 * 8 + 2);
    ring0_gate(0x41)[5] = 0x85; /* a task gate, which long mode lacks */
    AGAIN("INT of no gate", 0xcd, 0x41);
    check_raised("INT of no gate", PROTECTION, 0x41 * 8 + 2);
    station.sregs.idt.limit = 0x42 * 16 + 14;
    AGAIN("INT beyond the limit", 0xcd, 0x42);
    check_raised("INT beyond the limit", PROTECTION, 0x42 * 8 + 2);
    station.sregs.idt.limit++;
    AGAIN("INT at the limit", 0xcd, 0x42);
    cr_expect_eq(state.vector, 0x42);
    AGAIN("LOCK INT", 0xf0, 0xcd, 0x42);
    check_raised("LOCK INT", UNDEFINED, 0);
}

/* --- Control registers --------------------------------------------------------------------------------------- */

struct piece {
    const char *name;
    uint8_t length, code[8];
};

static const struct piece pieces[] = {
    {"ADDSD", 4, {0xf2, 0x0f, 0x58, 0xc1}},
    {"PXOR", 4, {0x66, 0x0f, 0xef, 0x03}},
    {"MOVSS", 4, {0xf3, 0x0f, 0x10, 0x03}},
    {"MOVQ", 5, {0x66, 0x48, 0x0f, 0x6e, 0xc0}},
    {"PSRLDQ", 5, {0x66, 0x0f, 0x73, 0xd8, 0x01}},
    {"LDMXCSR", 3, {0x0f, 0xae, 0x13}},
    {"STMXCSR", 3, {0x0f, 0xae, 0x1b}},
};

Test(assist_ring0, sse_heeds_the_control_registers)
{
    const uint64_t cr0 = station.sregs.cr0, cr4 = station.sregs.cr4;

    put64(RING0_WINDOW + STEP_PAGE, MXCSR_RESET);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        const struct piece *piece = &pieces[i];

        for (unsigned int bits = 0; bits < 8; bits++) {
            unsigned int wanted = (bits & 5) != 0 ? UNDEFINED : (bits & 2) != 0 ? NO_DEVICE : 0;

            if (bits != 2 && (bits & 2) != 0 && is_tcg()) {
                continue; /* it looks at TS first */
            }
            station.sregs.cr0 = cr0 | ((bits & 1) != 0 ? CR0_EM : 0) | ((bits & 2) != 0 ? CR0_TS : 0);
            station.sregs.cr4 = cr4 & ~((bits & 4) != 0 ? CR4_OSFXSR : 0);
            state.regs.rip = STEP_CODE;
            run(piece->name, piece->code, piece->length);
            if (wanted != 0) {
                check_raised(piece->name, wanted, 0);
            } else {
                check_done(piece->name, piece->length);
            }
        }
    }
}

/* 1 / 0 that is not masked: flags stand, the register does not change. */
Test(assist_ring0, sse_raises_what_is_not_masked)
{
    static const uint8_t one[8] = {0, 0, 0, 0, 0, 0, 0xf0, 0x3f};
    struct step_state native = state;

    native_step_open();
    memcpy(native_step_page(0), "\xf2\x0f\x5e\xc1", 4);
    memcpy(native.registers[0], one, sizeof one);
    native.mxcsr = MXCSR_RESET & ~0x200u;
    state = native;
    native_step(&native);
    native_step_close();
    if (native.vector != SIMD) {
        cr_skip("this processor, which is emulated, raises no #XM");
    }
    for (unsigned int has_handler = 0; has_handler < 2; has_handler++) {
        station.sregs.cr4 = (station.sregs.cr4 & ~CR4_OSXMM) | (has_handler != 0 ? CR4_OSXMM : 0);
        state.mxcsr = MXCSR_RESET & ~0x200u;
        AGAIN("DIVSD", 0xf2, 0x0f, 0x5e, 0xc1);
        check_raised("DIVSD", has_handler != 0 ? SIMD : UNDEFINED, 0);
        cr_expect_eq(state.mxcsr, (MXCSR_RESET & ~0x200u) | 4, "0x%x", state.mxcsr);
        cr_expect_eq(memcmp(state.registers[0], one, sizeof one), 0);
        cr_expect_eq(station.frame_rflags & RFLAGS_RF, RFLAGS_RF, "0x%" PRIx64, station.frame_rflags);
    }
}

/* --- All that user mode has ---------------------------------------------------------------------------------- */

static struct random random_numbers = {.state = SEED};

static void load_case(const struct step_case *made)
{
    uint64_t at = made->operand - 8 - STEP_WINDOW;

    memcpy(native_step_page(0) + (made->state.regs.rip - STEP_CODE), made->code, made->length);
    if (at >= STEP_PAGE && at <= STEP_PAGES * STEP_PAGE - sizeof made->data) {
        memcpy(native_step_page(0) + at, made->data, sizeof made->data);
    }
    memcpy(ring0_ram(RING0_WINDOW), native_step_page(0), STEP_PAGES * STEP_PAGE);
}

static const char *in_hex(const struct step_case *made)
{
    static char text[STEP_CODE_MAX * 3 + 1];

    text[0] = '\0';
    for (unsigned int i = 0; i < made->length; i++) {
        snprintf(text + 3 * i, 4, "%02x ", made->code[i]);
    }
    return text;
}

static void compare(const struct step_case *made, const struct step_state *wanted)
{
    const char *code = in_hex(made);

    state.regs.rflags &= STEP_FLAGS;
    cr_assert_eq(state.vector, wanted->vector, "%s: exception %u wanted, %u found, operand 0x%" PRIx64, code,
                 wanted->vector, state.vector, made->operand);
    cr_assert_eq(state.error_code, wanted->error_code & ~FAULT_USER, "%s: error 0x%x", code, state.error_code);
    cr_assert_eq(state.address, wanted->address, "%s: address 0x%" PRIx64, code, state.address);
    cr_assert_eq(state.mxcsr, wanted->mxcsr, "%s: MXCSR 0x%x wanted, 0x%x found", code, wanted->mxcsr, state.mxcsr);
    cr_assert_eq(memcmp(&state.regs, &wanted->regs, sizeof state.regs), 0, "%s: registers, rip 0x%llx, flags 0x%llx",
                 code, state.regs.rip, state.regs.rflags);
    for (unsigned int i = 0; i < 16; i++) {
        cr_assert_eq(memcmp(state.registers[i], wanted->registers[i], 16), 0, "%s: xmm%u", code, i);
    }
    cr_assert_eq(memcmp(ring0_ram(RING0_WINDOW + STEP_PAGE), native_step_page(1), 3 * STEP_PAGE), 0, "%s: memory",
                 code);
}

static void check_case(const struct step_opcode *opcode, enum step_place place)
{
    struct step_case made;
    struct step_state wanted;

    step_case_make(&random_numbers, opcode, place, &made);
    made.state.mxcsr |= MXCSR_RESET; /* what is not masked has a test of its own */
    load_case(&made);
    wanted = state = made.state;
    native_step(&wanted);
    if (place == STEP_PLACE_NOT_CANONICAL && is_tcg()) {
        return; /* it finds no page there in user mode */
    }
    run(in_hex(&made), made.code, made.length);
    compare(&made, &wanted);
}

/* Also those that KVM's emulator has: a guest does not know whose they are. */
static const struct {
    uint8_t prefix, first, last;
    bool has_memory, has_register, has_immediate;
} rows[] = {
    {0x00, 0x10, 0x11, true, true, false},  {0x66, 0x10, 0x11, true, true, false},
    {0xf3, 0x10, 0x11, true, true, false},  {0xf2, 0x10, 0x11, true, true, false},
    {0x00, 0x12, 0x12, true, true, false},  {0x66, 0x12, 0x13, true, false, false},
    {0x00, 0x13, 0x13, true, false, false}, {0x00, 0x14, 0x16, true, true, false},
    {0x66, 0x14, 0x15, true, true, false},  {0x66, 0x16, 0x17, true, false, false},
    {0x00, 0x28, 0x29, true, true, false},  {0x66, 0x28, 0x29, true, true, false},
    {0xf3, 0x2a, 0x2a, true, true, false},  {0xf2, 0x2a, 0x2a, true, true, false},
    {0xf3, 0x2c, 0x2d, true, true, false},  {0xf2, 0x2c, 0x2d, true, true, false},
    {0x00, 0x2e, 0x2f, true, true, false},  {0x66, 0x2e, 0x2f, true, true, false},
    {0x00, 0x50, 0x50, false, true, false}, {0x66, 0x50, 0x50, false, true, false},
    {0x00, 0x51, 0x5f, true, true, false},  {0x66, 0x54, 0x5f, true, true, false},
    {0xf3, 0x51, 0x53, true, true, false},  {0xf3, 0x58, 0x5f, true, true, false},
    {0xf2, 0x58, 0x5a, true, true, false},  {0xf2, 0x5c, 0x5f, true, true, false},
    {0x66, 0x60, 0x6f, true, true, false},  {0xf3, 0x6f, 0x6f, true, true, false},
    {0x66, 0x70, 0x70, true, true, true},   {0xf3, 0x70, 0x70, true, true, true},
    {0xf2, 0x70, 0x70, true, true, true},   {0x66, 0x74, 0x76, true, true, false},
    {0x66, 0x7e, 0x7f, true, true, false},  {0xf3, 0x7e, 0x7f, true, true, false},
    {0x00, 0xc2, 0xc2, true, true, true},   {0x66, 0xc2, 0xc2, true, true, true},
    {0xf3, 0xc2, 0xc2, true, true, true},   {0xf2, 0xc2, 0xc2, true, true, true},
    {0x66, 0xc4, 0xc4, true, true, true},   {0x66, 0xc5, 0xc5, false, true, true},
    {0x00, 0xc6, 0xc6, true, true, true},   {0x66, 0xc6, 0xc6, true, true, true},
    {0x66, 0xd1, 0xd6, true, true, false},  {0x66, 0xd7, 0xd7, false, true, false},
    {0x66, 0xd8, 0xe6, true, true, false},  {0xf3, 0xe6, 0xe6, true, true, false},
    {0xf2, 0xe6, 0xe6, true, true, false},  {0x66, 0xe8, 0xef, true, true, false},
    {0x66, 0xf1, 0xf6, true, true, false},  {0x66, 0xf8, 0xfe, true, true, false},
    {0xf3, 0xb8, 0xb8, true, true, false},
};

/* A move of 16 bytes that KVM's emulator makes itself writes the first of two pages although it faults on the second. */
static unsigned int places(const struct step_opcode *opcode)
{
    unsigned int number = opcode->opcode[1];
    bool is_scalar = opcode->prefixes[0] == 0xf2 || opcode->prefixes[0] == 0xf3;
    bool is_kvms = ((number == 0x10 || number == 0x11) && !is_scalar) || number == 0x28 || number == 0x29 ||
                   number == 0x6f || number == 0x7f;

    return is_kvms ? STEP_PLACE_ANY + 1 : STEP_PLACE_COUNT;
}

Test(assist_ring0, sse_does_what_it_does_in_user_mode)
{
    uint32_t count = 0;

    native_step_open();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (unsigned int opcode = rows[i].first; opcode <= rows[i].last; opcode++) {
            struct step_opcode wanted = {.prefixes = {rows[i].prefix},
                                         .opcode = {0x0f, (uint8_t)opcode},
                                         .opcode_bytes = 2,
                                         .has_immediate = rows[i].has_immediate,
                                         .reg = -1,
                                         .is_wide = -1};

            for (unsigned int k = 0; k < 2 && rows[i].has_register; k++, count++) {
                check_case(&wanted, STEP_PLACE_ANY);
            }
            wanted.has_memory = true;
            for (unsigned int k = 0; k < places(&wanted) && rows[i].has_memory; k++, count++) {
                check_case(&wanted, (enum step_place)k);
            }
        }
    }
    native_step_close();
    cr_assert_gt(count, 1000);
}

Test(assist_ring0, shifts_and_cmpxchg16b_do_what_they_do_in_user_mode)
{
    static const uint8_t shifts[][2] = {{0x71, 2}, {0x71, 4}, {0x71, 6}, {0x72, 2}, {0x72, 4},
                                        {0x72, 6}, {0x73, 2}, {0x73, 3}, {0x73, 6}, {0x73, 7}};
    struct step_opcode opcode = {.opcode_bytes = 2, .is_wide = -1};

    native_step_open();
    opcode.prefixes[0] = 0x66;
    opcode.has_immediate = true;
    for (size_t i = 0; i < 4 * sizeof shifts / sizeof shifts[0]; i++) {
        memcpy(opcode.opcode, (const uint8_t[]){0x0f, shifts[i / 4][0]}, 2);
        opcode.reg = shifts[i / 4][1];
        check_case(&opcode, STEP_PLACE_ANY);
    }
    opcode =
        (struct step_opcode){.opcode = {0x0f, 0xc7}, .opcode_bytes = 2, .reg = 1, .is_wide = 1, .has_memory = true};
    for (unsigned int i = 0; i < 20 * STEP_PLACE_NOT_CANONICAL;
         i++) { /* KVM's emulator looks at such addresses first */
        opcode.prefixes[0] = (i & 1) != 0 ? 0xf0 : 0;
        check_case(&opcode, (enum step_place)(i % STEP_PLACE_NOT_CANONICAL));
    }
    opcode = (struct step_opcode){.opcode = {0x0f, 0xae}, .opcode_bytes = 2, .is_wide = -1, .has_memory = true};
    for (unsigned int i = 0; i < 20 * STEP_PLACE_COUNT; i++) {
        opcode.reg = 2 + (int)(i & 1);
        check_case(&opcode, (enum step_place)(i % STEP_PLACE_COUNT));
    }
    native_step_close();
}

/* What is found equal is exchanged, and ZF tells. */
Test(assist_ring0, cmpxchg16b_exchanges_what_is_equal)
{
    put64(RING0_WINDOW + STEP_PAGE, 1);
    put64(RING0_WINDOW + STEP_PAGE + 8, 2);
    state.regs.rsi = STEP_WRITABLE;
    state.regs.rax = 1;
    state.regs.rdx = 2;
    state.regs.rbx = 3;
    state.regs.rcx = 4;
    state.regs.rflags = 0x895;
    RUN("LOCK CMPXCHG16B", 0xf0, 0x48, 0x0f, 0xc7, 0x0e);
    check_done("LOCK CMPXCHG16B", 5);
    cr_expect_eq(state.regs.rflags, 0x8d7, "ZF and no other: 0x%llx", state.regs.rflags);
    cr_expect_eq(get64(RING0_WINDOW + STEP_PAGE), 3);
    cr_expect_eq(get64(RING0_WINDOW + STEP_PAGE + 8), 4);
    cr_expect_eq(state.regs.rax, 1);
    AGAIN("CMPXCHG16B", 0x48, 0x0f, 0xc7, 0x0e);
    check_done("CMPXCHG16B", 4);
    cr_expect_eq(state.regs.rflags, 0x897, "0x%llx", state.regs.rflags);
    cr_expect_eq(state.regs.rax, 3);
    cr_expect_eq(state.regs.rdx, 4);
    state.regs.rsi = STEP_WRITABLE + 8;
    AGAIN("CMPXCHG16B, not aligned", 0x48, 0x0f, 0xc7, 0x0e);
    check_raised("CMPXCHG16B, not aligned", PROTECTION, 0);
}

/* --- The dirty log ------------------------------------------------------------------------------------------- */

#define LOG_WORDS (RING0_RAM_BYTES / STEP_PAGE / 64)

/* Which pages KVM says have been written, and those of its bitmap that the host has; both are clear afterwards. */
static void harvest(struct loam_dirty *dirty, uint64_t words[LOG_WORDS])
{
    uint64_t own[LOG_WORDS];
    struct kvm_dirty_log log = {.dirty_bitmap = words};

    memset(words, 0, LOG_WORDS * sizeof words[0]);
    cr_assert_eq(kvm_ioctl(station.vm_fd, KVM_GET_DIRTY_LOG, &log), 0);
    cr_assert_eq(loam_dirty_take_all(dirty, own, LOG_WORDS), LOAM_OK);
    for (size_t i = 0; i < LOG_WORDS; i++) {
        words[i] |= own[i];
    }
}

static bool has_page(const uint64_t words[LOG_WORDS], uint64_t gpa)
{
    return (words[gpa / STEP_PAGE / 64] >> (gpa / STEP_PAGE % 64) & 1) != 0;
}

/* A store across two pages, by MOVQ; one of x87; CMPXCHG16B; and the page table whose dirty bits they set. */
Test(assist_ring0, stores_are_in_the_dirty_log)
{
    static const struct piece stores[] = {{"MOVQ", 4, {0x66, 0x0f, 0xd6, 0x03}},
                                          {"FNSTCW", 2, {0xd9, 0x3b}},
                                          {"CMPXCHG16B", 5, {0xf0, 0x48, 0x0f, 0xc7, 0x0e}},
                                          {"STMXCSR", 3, {0x0f, 0xae, 0x1b}}};
    const struct loam_dirty_config config = {.bytes = RING0_RAM_BYTES};
    static _Alignas(8) uint8_t memory[4096];
    uint64_t words[LOG_WORDS];

    ring0_close(&station);
    ring0_open(&station, true);
    cr_assert_leq(loam_dirty_bytes(&config), sizeof memory);
    cr_assert_eq(loam_dirty_init(memory, sizeof memory, &config, &station.vcpu.dirty), LOAM_OK);
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++) {
        harvest(station.vcpu.dirty, words);
        ring0_map(1, RING0_WINDOW + STEP_PAGE, RING0_PRESENT | RING0_WRITABLE);
        ring0_map(2, RING0_WINDOW + 2 * STEP_PAGE, RING0_PRESENT | RING0_WRITABLE);
        state.regs.rbx = STEP_WRITABLE + STEP_PAGE - 1;
        state.regs.rsi = STEP_WRITABLE + STEP_PAGE;
        state.regs.rip = STEP_CODE;
        run(stores[i].name, stores[i].code, stores[i].length);
        check_done(stores[i].name, stores[i].length);
        harvest(station.vcpu.dirty, words);
        cr_expect_eq(has_page(words, RING0_WINDOW + STEP_PAGE), i != 2, "%s: first page", stores[i].name);
        cr_expect(has_page(words, RING0_WINDOW + 2 * STEP_PAGE), "%s: second page", stores[i].name);
        cr_expect_not(has_page(words, RING0_WINDOW + 3 * STEP_PAGE), "%s: third page", stores[i].name);
        cr_expect(has_page(words, 0x6000), "%s: page table", stores[i].name);
    }
}
