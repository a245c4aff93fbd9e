// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/ring0_station.h"

#include "loam/kvm.h"
#include "loam/slots.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Guest-physical, and linear too: the first 2 MiB are mapped where they are. */
#define TABLES     UINT64_C(0x1000) /* PML4; PDPT and PD of the first 2 MiB; PDPT, PD and PT of the window */
#define GDT        UINT64_C(0x8000)
#define TSS        UINT64_C(0x9000)
#define IDT        UINT64_C(0xa000)
#define STACK      UINT64_C(0xc000) /* its top, for every exception */
#define HANDLERS   UINT64_C(0xd000)
#define HANDLER(n) (HANDLERS + 16 * (n))

#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TASK 0x20
#define TSS_BYTES     0x68
#define TSS_IST1      0x24
#define HLT           0xf4
#define RUNS_MAX      20

#define IMAGE_MXCSR      24
#define IMAGE_REGISTERS  160
#define IMAGE_COMPONENTS 512

static _Alignas(4096) uint8_t ram[RING0_RAM_BYTES];
static _Alignas(64) uint8_t map_memory[1 << 16];
static struct kvm kvm;
static struct loam_slots *slots;

uint8_t *ring0_ram(uint64_t gpa)
{
    return ram + gpa;
}

static void put64(uint64_t gpa, uint64_t value)
{
    memcpy(ram + gpa, &value, sizeof value);
}

uint8_t *ring0_gate(unsigned int vector)
{
    return ram + IDT + 16 * vector;
}

void ring0_map(unsigned int n, uint64_t gpa, unsigned int rights)
{
    put64(TABLES + 5 * STEP_PAGE + 8 * ((STEP_WINDOW >> 12 & 511) + n), gpa | rights);
}

static void fill_tables(void)
{
    static const unsigned int rights[STEP_PAGES] = {1, 3, 3, 1};

    put64(TABLES, (TABLES + STEP_PAGE) | 7);
    put64(TABLES + STEP_PAGE, (TABLES + 2 * STEP_PAGE) | 7);
    put64(TABLES + 2 * STEP_PAGE, 0x83);
    put64(TABLES + 8 * (STEP_WINDOW >> 39 & 511), (TABLES + 3 * STEP_PAGE) | 7);
    put64(TABLES + 3 * STEP_PAGE + 8 * (STEP_WINDOW >> 30 & 511), (TABLES + 4 * STEP_PAGE) | 7);
    put64(TABLES + 4 * STEP_PAGE + 8 * (STEP_WINDOW >> 21 & 511), (TABLES + 5 * STEP_PAGE) | 7);
    for (unsigned int i = 0; i < STEP_PAGES; i++) {
        ring0_map(i, RING0_WINDOW + i * STEP_PAGE, rights[i]);
    }
}

static void fill_descriptors(void)
{
    put64(GDT + SELECTOR_CODE, UINT64_C(0x00af9b000000ffff));
    put64(GDT + SELECTOR_DATA, UINT64_C(0x00cf93000000ffff));
    put64(GDT + SELECTOR_TASK, UINT64_C(0x00008b0000000067) | TSS << 16);
    put64(TSS + TSS_IST1, STACK);
    for (unsigned int i = 0; i < 256; i++) {
        put64(IDT + 16 * i, (HANDLER(i) & 0xffff) | SELECTOR_CODE << 16 | UINT64_C(0x8e01) << 32);
        put64(IDT + 16 * i + 8, 0);
        ram[HANDLER(i)] = HLT;
    }
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool is_code)
{
    return (struct kvm_segment){.selector = selector,
                                .limit = UINT32_MAX,
                                .type = type,
                                .s = 1,
                                .present = 1,
                                .db = !is_code,
                                .l = is_code,
                                .g = 1};
}

static void fill_sregs(struct kvm_sregs *sregs)
{
    sregs->cs = segment(SELECTOR_CODE, 11, true);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment(SELECTOR_DATA, 3, false);
    sregs->tr =
        (struct kvm_segment){.base = TSS, .limit = TSS_BYTES - 1, .selector = SELECTOR_TASK, .type = 11, .present = 1};
    sregs->ldt = (struct kvm_segment){.type = 2, .unusable = 1};
    sregs->gdt = (struct kvm_dtable){.base = GDT, .limit = SELECTOR_TASK + 15};
    sregs->idt = (struct kvm_dtable){.base = IDT, .limit = 0xfff};
    sregs->cr0 = 0x80010033; /* PG WP NE ET MP PE */
    sregs->cr2 = 0;
    sregs->cr3 = TABLES;
    sregs->cr4 = 0x6a0; /* OSXMMEXCPT OSFXSR PGE PAE */
    sregs->efer = 0x500;
}

static void make_map(struct ring0_station *station, bool is_logged)
{
    const struct loam_slots_config config = {loam_kvm_set_slot, &station->vm_fd, 8, 0};
    struct loam_region region = {
        .bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE, .log_dirty = is_logged};
    const struct loam_gpa_view *view;

    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &station->map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(station->map, &region), LOAM_OK);
    cr_assert_eq(loam_slots_create(&config, &slots, NULL), LOAM_OK);
    view = loam_gpa_map_acquire(station->map);
    cr_assert_eq(loam_slots_update(slots, view, NULL), LOAM_OK);
    loam_gpa_map_release(station->map, view);
}

void ring0_open(struct ring0_station *station, bool is_logged)
{
    struct loam_diag diag = {0};
    struct vcpu_cpuid cpuid;

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    memset(ram, 0, sizeof ram);
    fill_tables();
    fill_descriptors();
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_create_vm(&kvm, &station->vm_fd, &diag), LOAM_OK, "%s", diag.text);
    make_map(station, is_logged);
    cr_assert_eq(vcpu_cpuid_supported(&kvm, &cpuid, &diag), LOAM_OK, "%s", diag.text);
    vcpu_cpuid_adapt(&cpuid, 0, 1, false);
    cr_assert_eq(vcpu_create(&kvm, station->vm_fd, 0, &cpuid, &station->vcpu, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_ioctl(station->vcpu.fd, KVM_GET_SREGS, &station->sregs), 0);
    fill_sregs(&station->sregs);
    bus_init(&station->bus);
}

void ring0_close(struct ring0_station *station)
{
    vcpu_destroy(&station->vcpu);
    bus_destroy(&station->bus);
    loam_slots_destroy(slots);
    close(station->vm_fd);
    kvm_close(&kvm);
}

/* --- A run --------------------------------------------------------------------------------------------------- */

static void move_fpu(struct ring0_station *station, struct step_state *state, bool is_in)
{
    struct kvm_xsave xsave;
    uint8_t *image = (uint8_t *)&xsave;

    cr_assert_eq(kvm_ioctl(station->vcpu.fd, KVM_GET_XSAVE, &xsave), 0);
    if (is_in) {
        memcpy(image + IMAGE_MXCSR, &state->mxcsr, sizeof state->mxcsr);
        memcpy(image + IMAGE_REGISTERS, state->registers, sizeof state->registers);
        image[IMAGE_COMPONENTS] |= 2;
        cr_assert_eq(kvm_ioctl(station->vcpu.fd, KVM_SET_XSAVE, &xsave), 0, "MXCSR 0x%x", state->mxcsr);
    } else {
        memcpy(&state->mxcsr, image + IMAGE_MXCSR, sizeof state->mxcsr);
        memcpy(state->registers, image + IMAGE_REGISTERS, sizeof state->registers);
    }
}

static void enter(struct ring0_station *station, struct step_state *state)
{
    struct kvm_regs regs = state->regs;

    regs.rflags |= 2;
    cr_assert_eq(kvm_ioctl(station->vcpu.fd, KVM_SET_SREGS, &station->sregs), 0);
    cr_assert_eq(kvm_ioctl(station->vcpu.fd, KVM_SET_REGS, &regs), 0);
    move_fpu(station, state, true);
}

static bool has_error_code(unsigned int vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

/* regs are those in the handler, behind its HLT: what it was given is on the stack. */
static void read_exception(struct ring0_station *station, const struct kvm_sregs *sregs, struct step_state *state)
{
    uint64_t frame[6];
    unsigned int skipped;

    state->vector = (uint8_t)((state->regs.rip - 1 - HANDLERS) / 16);
    skipped = has_error_code(state->vector) ? 1 : 0;
    memcpy(frame, ram + state->regs.rsp, sizeof frame);
    state->error_code = skipped != 0 ? (uint32_t)frame[0] : 0;
    state->address = state->vector == 14 ? sregs->cr2 : 0;
    state->regs.rip = frame[skipped];
    station->frame_rflags = frame[skipped + 2];
    state->regs.rflags = frame[skipped + 2];
    state->regs.rsp = frame[skipped + 3];
}

static void leave(struct ring0_station *station, struct step_state *state)
{
    struct kvm_sregs sregs;

    cr_assert_eq(kvm_ioctl(station->vcpu.fd, KVM_GET_REGS, &state->regs), 0);
    cr_assert_eq(kvm_ioctl(station->vcpu.fd, KVM_GET_SREGS, &sregs), 0);
    state->vector = 0;
    state->error_code = 0;
    state->address = 0;
    if (state->regs.rip - 1 >= HANDLERS && state->regs.rip - 1 < HANDLER(256)) {
        read_exception(station, &sregs, state);
    } else {
        state->regs.rip--; /* the HLT */
    }
    move_fpu(station, state, false);
}

enum vcpu_event ring0_run(struct ring0_station *station, const uint8_t *code, size_t count, struct step_state *state)
{
    uint64_t at = RING0_WINDOW + (state->regs.rip - STEP_WINDOW);
    enum vcpu_event event = VCPU_RAN;

    memcpy(ram + at, code, count);
    ram[at + count] = HLT;
    enter(station, state);
    station->exits = 0;
    while (event == VCPU_RAN && station->exits < RUNS_MAX) {
        event = vcpu_run(&station->vcpu, &station->bus, station->map);
        station->exits += event == VCPU_RAN;
    }
    leave(station, state);
    return event;
}
