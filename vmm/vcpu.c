// SPDX-License-Identifier: Apache-2.0
/*
 * References: KVM API (Linux: Documentation/virt/kvm/api.rst); Intel SDM volume 3C, section 27.3.1 (checks on guest
 * state at VM entry); Xen docs/misc/pvh.pandoc; Linux Documentation/arch/x86/boot.rst (64-bit boot protocol).
 */
#include "vmm/vcpu.h"

#include "vmm/assist.h"
#include "vmm/boot_multiboot.h"
#include "vmm/decode.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define OPCODE_INT3 0xccu

/* The longest access of one instruction, by a vector register: it may reach into the next page. */
#define ACCESS_BYTES_MAX 64u

/* struct kvm_msrs with room for those that are set. */
struct vcpu_msrs {
    uint32_t count;
    uint32_t padding;
    struct kvm_msr_entry entries[2];
};

static_assert(offsetof(struct vcpu_msrs, entries) == sizeof(struct kvm_msrs), "laid out as KVM reads it");
static_assert(offsetof(struct vcpu_cpuid, entries) == sizeof(struct kvm_cpuid2), "laid out as KVM reads it");

/* Control registers and EFER. */
#define CR0_PE   (UINT64_C(1) << 0)
#define CR0_ET   (UINT64_C(1) << 4) /* fixed to 1 since the 80486 */
#define CR0_NE   (UINT64_C(1) << 5)
#define CR0_PG   (UINT64_C(1) << 31)
#define CR4_PAE  (UINT64_C(1) << 5)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)

#define RFLAGS_FIXED UINT64_C(2) /* bit 1 is always set, all others clear: no interrupts */

/* The GDT of boot_state. */
#define SELECTOR_CODE 0x10u
#define SELECTOR_DATA 0x18u
#define SELECTOR_TASK 0x20u

#define DESCRIPTOR_BYTES 8u

/* Segment types (Intel SDM volume 3A, sections 3.4.5.1 and 3.5), those that hardware leaves once it has loaded them. */
#define TYPE_CODE      0xbu /* execute, read, accessed */
#define TYPE_DATA      0x3u /* read, write, accessed */
#define TYPE_LDT       0x2u
#define TYPE_TASK_BUSY 0xbu /* 32-bit or 64-bit TSS */
#define TASK_LIMIT     0x67u

#define MSR_MISC_ENABLE          0x1a0u
#define MISC_ENABLE_FAST_STRINGS UINT64_C(1)
#define MSR_MTRR_DEFAULT         0x2ffu
#define MTRR_DEFAULT_WRITE_BACK  UINT64_C(0x806) /* MTRRs on, write-back where none says otherwise */

/* State after FINIT, and MXCSR after a reset (Intel SDM volume 1, sections 8.1.5 and 10.2.3). */
#define FPU_CONTROL 0x37fu
#define MXCSR_RESET 0x1f80u

/* Local APIC registers (Intel SDM volume 3A, section 11.4.1), and delivery modes of their vectors. */
#define APIC_LVT_LINT0       0x350u
#define APIC_LVT_LINT1       0x360u
#define APIC_LVT_MODE_MASK   UINT32_C(0x700)
#define APIC_LVT_MODE_EXTINT UINT32_C(0x700)
#define APIC_LVT_MODE_NMI    UINT32_C(0x400)
#define APIC_LVT_MASKED      (UINT32_C(1) << 16)

/* --- CPUID ---------------------------------------------------------------------------------------------------- */

#define CPUID_1_ECX_DEADLINE   (UINT32_C(1) << 24)
#define CPUID_1_ECX_HYPERVISOR (UINT32_C(1) << 31)
#define CPUID_1_EDX_HTT        (UINT32_C(1) << 28)

/* Leaves 0xb and 0x1f: the kind of a level, in ecx bits 8 to 15. */
#define TOPOLOGY_LEVEL_THREAD 1u
#define TOPOLOGY_LEVEL_CORE   2u

/* Bits of an APIC id that tell count vCPUs apart. */
static uint32_t id_bits(uint32_t count)
{
    uint32_t bits = 0;

    while (bits < 31 && (UINT32_C(1) << bits) < count) {
        bits++;
    }
    return bits;
}

static void adapt_features(struct kvm_cpuid_entry2 *entry, uint32_t index, uint32_t count, bool has_deadline_timer)
{
    uint32_t shown = count < 255 ? count : 255;

    entry->ebx = (entry->ebx & 0xffffu) | (shown & 0xffu) << 16 | (index & 0xffu) << 24;
    entry->ecx |= CPUID_1_ECX_HYPERVISOR | (has_deadline_timer ? CPUID_1_ECX_DEADLINE : 0);
    entry->edx = count > 1 ? entry->edx | CPUID_1_EDX_HTT : entry->edx & ~CPUID_1_EDX_HTT;
}

/* Caches: each core has its own, but for the third level, which all share. */
static void adapt_cache(struct kvm_cpuid_entry2 *entry, uint32_t count)
{
    uint32_t level = entry->eax >> 5 & 7;
    uint32_t ids = (UINT32_C(1) << id_bits(count)) - 1;

    if ((entry->eax & 0x1f) != 0) {
        entry->eax &= 0x3fffu;
        entry->eax |= (level >= 3 ? ids & 0xfff : 0) << 14 | (entry->function == 4 ? (ids & 0x3f) << 26 : 0);
    }
}

static void adapt_entry(struct kvm_cpuid_entry2 *entry, uint32_t index, uint32_t count, bool has_deadline_timer)
{
    switch (entry->function) {
    case 1:
        adapt_features(entry, index, count, has_deadline_timer);
        break;
    case 4:
    case 0x8000001d:
        adapt_cache(entry, count);
        break;
    case 0x80000008: /* AMD: cores of the package, and how many bits of the APIC id name one */
        entry->ecx = (entry->ecx & ~UINT32_C(0xf0ff)) | ((count - 1) & 0xff) | (id_bits(count) & 0xf) << 12;
        break;
    case 0x8000001e: /* AMD: APIC id, core, node */
        entry->eax = index;
        entry->ebx = index & 0xff;
        entry->ecx = 0;
        break;
    default:
        break;
    }
}

/* Take away what describes the host's own topology; an absent leaf reads as zeros. Says whether 0xb was there. */
static bool remove_topology(struct vcpu_cpuid *cpuid)
{
    bool was_there = false;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < cpuid->count; i++) {
        uint32_t function = cpuid->entries[i].function;

        was_there = was_there || function == 0xb;
        if (function != 0xb && function != 0x1f) {
            cpuid->entries[kept++] = cpuid->entries[i];
        }
    }
    cpuid->count = kept;
    return was_there;
}

static void add_topology(struct vcpu_cpuid *cpuid, uint32_t index, uint32_t count)
{
    const uint32_t levels[][3] = {
        /* bits to shift out, processors, kind */
        {0, 1, TOPOLOGY_LEVEL_THREAD},
        {id_bits(count), count, TOPOLOGY_LEVEL_CORE},
        {0, 0, 0},
    };

    for (uint32_t i = 0; i < 3 && cpuid->count < VCPU_CPUID_MAX; i++) {
        cpuid->entries[cpuid->count++] = (struct kvm_cpuid_entry2){
            .function = 0xb,
            .index = i,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = levels[i][0],
            .ebx = levels[i][1],
            .ecx = levels[i][2] << 8 | i,
            .edx = index,
        };
    }
}

enum loam_error vcpu_cpuid_supported(const struct kvm *kvm, struct vcpu_cpuid *cpuid, struct loam_diag *diag)
{
    cpuid->count = VCPU_CPUID_MAX;
    cpuid->padding = 0;
    if (kvm_ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
        cpuid->count = 0;
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_GET_SUPPORTED_CPUID: room for %u entries", VCPU_CPUID_MAX);
    }
    return LOAM_OK;
}

void vcpu_cpuid_adapt(struct vcpu_cpuid *cpuid, uint32_t index, uint32_t count, bool has_deadline_timer)
{
    for (uint32_t i = 0; i < cpuid->count; i++) {
        adapt_entry(&cpuid->entries[i], index, count, has_deadline_timer);
    }
    if (remove_topology(cpuid)) {
        add_topology(cpuid, index, count);
    }
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------ */

static enum loam_error failed(const struct vcpu *vcpu, const char *call, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "vCPU %" PRIu32 ": %s", vcpu->index, call);
}

/* KVM answers with how many MSRs it set: it stops at the first that it does not have. */
static enum loam_error set_msrs(struct vcpu *vcpu, struct loam_diag *diag)
{
    struct vcpu_msrs msrs = {.count = 1, .entries = {{.index = MSR_MISC_ENABLE}, {.index = MSR_MTRR_DEFAULT}}};

    if (kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &msrs) != 1) {
        return failed(vcpu, "KVM_GET_MSRS of IA32_MISC_ENABLE", diag);
    }
    msrs.count = 2;
    msrs.entries[0].data |= MISC_ENABLE_FAST_STRINGS;
    msrs.entries[1].data = MTRR_DEFAULT_WRITE_BACK;
    if (kvm_ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) != 2) {
        return failed(vcpu, "KVM_SET_MSRS of IA32_MISC_ENABLE and IA32_MTRR_DEF_TYPE", diag);
    }
    return LOAM_OK;
}

static enum loam_error open_vcpu(struct vcpu *vcpu, int vm_fd, const struct vcpu_cpuid *cpuid, struct loam_diag *diag)
{
    const size_t cpuid_bytes = offsetof(struct vcpu_cpuid, entries) + cpuid->count * sizeof cpuid->entries[0];
    void *run;

    vcpu->fd = kvm_ioctl_number(vm_fd, KVM_CREATE_VCPU, vcpu->index);
    if (vcpu->fd < 0) {
        return failed(vcpu, "KVM_CREATE_VCPU", diag);
    }
    run = mmap(NULL, vcpu->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED) {
        return failed(vcpu, "mmap of its run state", diag);
    }
    vcpu->run = run;
    vcpu->cpuid = malloc(cpuid_bytes);
    if (vcpu->cpuid == NULL) {
        return failed(vcpu, "no memory for cpuid", diag);
    }
    memcpy(vcpu->cpuid, cpuid, cpuid_bytes);
    if (kvm_ioctl_number(vcpu->fd, KVM_SET_CPUID2, (uintptr_t)cpuid) < 0) {
        return failed(vcpu, "KVM_SET_CPUID2", diag);
    }
    return set_msrs(vcpu, diag);
}

enum loam_error vcpu_create(const struct kvm *kvm, int vm_fd, uint32_t index, const struct vcpu_cpuid *cpuid,
                            struct vcpu *vcpu, struct loam_diag *diag)
{
    enum loam_error error;

    *vcpu =
        (struct vcpu){.fd = -1, .index = index, .run_bytes = kvm->run_bytes, .has_memory_fault = kvm->has_memory_fault};
    error = open_vcpu(vcpu, vm_fd, cpuid, diag);
    if (error != LOAM_OK) {
        vcpu_destroy(vcpu);
    }
    return error;
}

void vcpu_destroy(struct vcpu *vcpu)
{
    if (vcpu->run != NULL) {
        munmap(vcpu->run, vcpu->run_bytes);
    }
    if (vcpu->fd >= 0) {
        close(vcpu->fd);
    }
    free(vcpu->cpuid);
    *vcpu = (struct vcpu){.fd = -1};
}

/* --- How a guest starts --------------------------------------------------------------------------------------- */

/* Flat: base 0, limit 4 GiB - 1. In 64-bit mode code has l set, and then db must be clear. */
static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool is_long_code)
{
    return (struct kvm_segment){
        .selector = selector,
        .limit = UINT32_MAX,
        .type = type,
        .s = 1,
        .present = 1,
        .db = !is_long_code,
        .l = is_long_code,
        .g = 1,
    };
}

/* VM entry wants a busy TSS, even of a guest that never switches tasks. */
static struct kvm_segment task_segment(void)
{
    return (struct kvm_segment){.selector = SELECTOR_TASK, .limit = TASK_LIMIT, .type = TYPE_TASK_BUSY, .present = 1};
}

void vcpu_boot_regs(const struct boot_state *boot, struct kvm_regs *regs)
{
    *regs = (struct kvm_regs){.rip = boot->entry, .rflags = RFLAGS_FIXED};
    switch (boot->protocol) {
    case BOOT_LINUX:
    case BOOT_LINUX_32:
        regs->rsi = boot->parameters.value;
        break;
    case BOOT_MULTIBOOT:
        regs->rax = BOOT_MULTIBOOT_MAGIC;
        regs->rbx = boot->parameters.value;
        break;
    default:
        regs->rbx = boot->parameters.value;
        break;
    }
}

void vcpu_boot_sregs(const struct boot_state *boot, struct kvm_sregs *sregs)
{
    bool is_long = boot->protocol == BOOT_LINUX;
    struct kvm_segment data = flat_segment(SELECTOR_DATA, TYPE_DATA, false);

    sregs->cs = flat_segment(SELECTOR_CODE, TYPE_CODE, is_long);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->tr = task_segment();
    sregs->ldt = (struct kvm_segment){.type = TYPE_LDT, .unusable = 1};
    /* Without a table in boot, PVH guests bring their own before they load a segment; an exception is a triple fault.
     */
    sregs->gdt = (struct kvm_dtable){0};
    sregs->idt = (struct kvm_dtable){0};
    if (boot->descriptor_count > 0) {
        sregs->gdt.base = boot->descriptors.value;
        sregs->gdt.limit = (uint16_t)(boot->descriptor_count * DESCRIPTOR_BYTES - 1);
    }
    sregs->cr0 = CR0_PE | CR0_ET | (is_long ? CR0_NE | CR0_PG : 0);
    sregs->cr2 = 0;
    sregs->cr3 = is_long ? boot->page_tables.value : 0;
    sregs->cr4 = is_long ? CR4_PAE : 0;
    sregs->cr8 = 0;
    sregs->efer = is_long ? EFER_LME | EFER_LMA : 0;
}

/* As the firmware of a PC leaves the first processor: the 8259's line at LINT0, NMI at LINT1. */
static enum loam_error wire_apic(struct vcpu *vcpu, struct loam_diag *diag)
{
    static const struct {
        uint32_t offset_bytes;
        uint32_t mode;
    } wires[] = {{APIC_LVT_LINT0, APIC_LVT_MODE_EXTINT}, {APIC_LVT_LINT1, APIC_LVT_MODE_NMI}};
    struct kvm_lapic_state apic;

    if (kvm_ioctl(vcpu->fd, KVM_GET_LAPIC, &apic) < 0) {
        return failed(vcpu, "KVM_GET_LAPIC", diag);
    }
    for (size_t i = 0; i < sizeof wires / sizeof wires[0]; i++) {
        uint32_t value;

        memcpy(&value, apic.regs + wires[i].offset_bytes, sizeof value);
        value = (value & ~(APIC_LVT_MODE_MASK | APIC_LVT_MASKED)) | wires[i].mode;
        memcpy(apic.regs + wires[i].offset_bytes, &value, sizeof value);
    }
    return kvm_ioctl(vcpu->fd, KVM_SET_LAPIC, &apic) < 0 ? failed(vcpu, "KVM_SET_LAPIC", diag) : LOAM_OK;
}

enum loam_error vcpu_boot(struct vcpu *vcpu, const struct boot_state *boot, bool has_apic, struct loam_diag *diag)
{
    struct kvm_fpu fpu = {.fcw = FPU_CONTROL, .mxcsr = MXCSR_RESET};
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0) {
        return failed(vcpu, "KVM_GET_SREGS", diag);
    }
    vcpu_boot_regs(boot, &regs);
    vcpu_boot_sregs(boot, &sregs);
    if (kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0) {
        return failed(vcpu, "KVM_SET_SREGS", diag);
    }
    if (kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0) {
        return failed(vcpu, "KVM_SET_REGS", diag);
    }
    if (kvm_ioctl(vcpu->fd, KVM_SET_FPU, &fpu) < 0) {
        return failed(vcpu, "KVM_SET_FPU", diag);
    }
    return has_apic ? wire_apic(vcpu, diag) : LOAM_OK;
}

/* --- Running -------------------------------------------------------------------------------------------------- */

/* String instructions give many elements with one exit; all go to the same port, in order. */
static enum vcpu_event dispatch_io(struct kvm_run *run, size_t run_bytes, struct bus *bus)
{
    uint16_t port = run->io.port;
    uint32_t bytes = run->io.size;
    uint32_t count = run->io.count;
    uint64_t offset = run->io.data_offset;
    bool is_write = run->io.direction == KVM_EXIT_IO_OUT;
    uint8_t *data = (uint8_t *)run;

    if ((bytes != 1 && bytes != 2 && bytes != 4) || !loam_fits(offset, (uint64_t)bytes * count, run_bytes)) {
        return VCPU_BROKEN;
    }
    for (uint32_t i = 0; i < count; i++) {
        bus_dispatch(bus, BUS_PIO, port, data + offset + (uint64_t)i * bytes, bytes, is_write);
    }
    return VCPU_RAN;
}

/* The largest power of two up to bytes, 1 to 8. */
static uint32_t part_bytes(uint32_t bytes)
{
    return bytes >= 8 ? 8 : bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1;
}

static bool is_lost_memory(struct loam_gpa_map *map, uint64_t address, uint32_t bytes, bool is_write,
                           struct lost_memory *lost)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);

    *lost = (struct lost_memory){0};
    lost->is_known = lost_memory_contradicts(view, loam_gpa_from_u64(address), bytes, is_write, &lost->gpa);
    loam_gpa_map_release(map, view);
    snprintf(lost->how, sizeof lost->how, "a %s of %" PRIu32 " bytes", is_write ? "write" : "read", bytes);
    return lost->is_known;
}

/* An access that crosses a page comes in two parts of any length; the bus wants powers of two. */
static enum vcpu_event dispatch_mmio(struct kvm_run *run, struct bus *bus, struct loam_gpa_map *map,
                                     struct lost_memory *lost)
{
    uint64_t address = run->mmio.phys_addr;
    uint32_t bytes = run->mmio.len;
    bool is_write = run->mmio.is_write != 0;

    if (bytes == 0 || bytes > sizeof run->mmio.data || !loam_fits(address, bytes, LOAM_GPA_END)) {
        return VCPU_BROKEN;
    }
    if (is_lost_memory(map, address, bytes, is_write, lost)) {
        return VCPU_LOST_MEMORY;
    }
    for (uint32_t done = 0, part; done < bytes; done += part) {
        part = part_bytes(bytes - done);
        bus_dispatch(bus, BUS_MMIO, address + done, run->mmio.data + done, part, is_write);
    }
    return VCPU_RAN;
}

static enum vcpu_event system_event(const struct kvm_run *run)
{
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        return VCPU_SHUTDOWN;
    case KVM_SYSTEM_EVENT_RESET:
        return VCPU_RESET;
    default:
        return VCPU_BROKEN;
    }
}

enum vcpu_event vcpu_dispatch(struct kvm_run *run, size_t run_bytes, struct bus *bus, struct loam_gpa_map *map,
                              struct lost_memory *lost)
{
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        return dispatch_io(run, run_bytes, bus);
    case KVM_EXIT_MMIO:
        return dispatch_mmio(run, bus, map, lost);
    case KVM_EXIT_HLT: /* with interrupt controllers in the kernel, KVM waits there itself */
        return VCPU_HALTED;
    case KVM_EXIT_SHUTDOWN:
        return VCPU_SHUTDOWN;
    case KVM_EXIT_SYSTEM_EVENT:
        return system_event(run);
    case KVM_EXIT_DEBUG:
        return VCPU_DEBUG;
    case KVM_EXIT_IOAPIC_EOI:
        return VCPU_END_OF_INTERRUPT;
    case KVM_EXIT_INTR:
    case KVM_EXIT_NMI:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return VCPU_RAN;
    default:
        return VCPU_BROKEN;
    }
}

/*
 * A vCPU that waits for INIT and SIPI returns with EAGAIN whenever it is woken. One that may run does so when KVM could not
 * start a thread of its own, which may pass.
 */
static enum vcpu_event try_again(struct vcpu *vcpu)
{
    const struct timespec pause = {.tv_nsec = VCPU_STALL_MILLISECONDS * 1000000L};
    struct kvm_mp_state state;

    if (kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) == 0 && state.mp_state != KVM_MP_STATE_RUNNABLE) {
        return VCPU_RAN;
    }
    if (++vcpu->stalls > VCPU_STALL_MAX) {
        return VCPU_BROKEN;
    }
    if (vcpu->stalls > 1) {
        nanosleep(&pause, NULL); /* a signal ends it, as it ends KVM_RUN */
    }
    return VCPU_RAN;
}

/* KVM says which memory, if it has the capability for it, in an exit beside the error (KVM API, section 5). */
static enum vcpu_event memory_fault(struct vcpu *vcpu)
{
    struct kvm_memory_fault fault;

    vcpu->lost = (struct lost_memory){0};
    if (vcpu->has_memory_fault && vcpu->run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
        memcpy(&fault, vcpu->run->padding, sizeof fault);
        vcpu->lost.is_known = fault.gpa < LOAM_GPA_END;
        vcpu->lost.gpa = loam_gpa_from_u64(fault.gpa);
        snprintf(vcpu->lost.how, sizeof vcpu->lost.how, "KVM_EXIT_MEMORY_FAULT%s",
                 (fault.flags & KVM_MEMORY_FAULT_PRIVATE) != 0 ? ", as private memory" : "");
    }
    return VCPU_LOST_MEMORY;
}

static enum vcpu_event carry_out(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map, bool *is_assisted)
{
    *is_assisted = assist_instruction(vcpu->fd, vcpu->run, map, vcpu->dirty);
    return *is_assisted ? VCPU_RAN : vcpu_dispatch(vcpu->run, vcpu->run_bytes, bus, map, &vcpu->lost);
}

/* --- Told to a trace ---------------------------------------------------------------------------------------------- */

/* What an assist has done besides. */
static void ask_for_exception(const struct vcpu *vcpu, struct trace_exit *exit)
{
    struct kvm_vcpu_events events;

    if (kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) == 0 &&
        (events.exception.injected != 0 || events.exception.pending != 0)) {
        exit->assist = TRACE_ASSIST_RAISED;
        exit->vector = events.exception.nr;
    }
}

/* Of an exit that has been carried out. */
static void tell(const struct vcpu *vcpu, const struct bus *bus, struct trace_exit *exit)
{
    const uint8_t *data;

    trace_exit_read(exit, vcpu->run, vcpu->run_bytes, &data);
    if (exit->reason == KVM_EXIT_IO) {
        exit->device = bus_device_name(bus, BUS_PIO, exit->place, exit->size);
    } else if (exit->reason == KVM_EXIT_MMIO) {
        exit->device = bus_device_name(bus, BUS_MMIO, exit->place, part_bytes(exit->size));
    }
    trace_add(vcpu->trace, exit, data);
}

static enum vcpu_event carry_out_told(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map, bool *is_assisted)
{
    struct trace_exit exit = {.nanoseconds = trace_now(vcpu->trace)};
    bool is_error = vcpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR;
    struct kvm_regs regs;
    enum vcpu_event event;

    if (is_error && kvm_ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0) {
        exit.rip = regs.rip;
    }
    event = carry_out(vcpu, bus, map, is_assisted);
    if (is_error) {
        exit.assist = *is_assisted ? TRACE_ASSIST_DONE : TRACE_ASSIST_REFUSED;
    }
    if (*is_assisted) {
        ask_for_exception(vcpu, &exit);
    }
    tell(vcpu, bus, &exit);
    return event;
}

static void tell_failure(const struct vcpu *vcpu)
{
    if (vcpu->trace != NULL) {
        const struct trace_exit exit = {.nanoseconds = trace_now(vcpu->trace), .error = vcpu->run_errno};

        trace_add(vcpu->trace, &exit, NULL);
    }
}

/* --- Shown to a debugger ------------------------------------------------------------------------------------------ */

static bool is_int3(const struct kvm_run *run)
{
    return run->exit_reason == KVM_EXIT_INTERNAL_ERROR && run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
           run->emulation_failure.ndata >= 3 &&
           (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0 &&
           run->emulation_failure.insn_size > 0 && run->emulation_failure.insn_bytes[0] == OPCODE_INT3;
}

static void tell_shown(const struct vcpu *vcpu, const struct bus *bus)
{
    if (vcpu->trace != NULL) {
        struct trace_exit exit = {.nanoseconds = trace_now(vcpu->trace)};

        tell(vcpu, bus, &exit);
    }
}

static enum vcpu_event stop_for(struct vcpu *vcpu, enum vcpu_stop stop)
{
    vcpu->stop = stop;
    vcpu->has_half_step = false;
    return VCPU_DEBUG;
}

/*
 * While it steps: an instruction that ended in an exit is done when KVM_RUN has completed it, of which a KVM that emulates
 * does not always tell. So the next KVM_RUN does that, and nothing more.
 */
static enum vcpu_event step_on(struct vcpu *vcpu, enum vcpu_event event, bool is_assisted)
{
    if (event == VCPU_RAN && is_assisted) {
        return stop_for(vcpu, VCPU_STOP_STEP);
    }
    if (event == VCPU_RAN) {
        vcpu->has_half_step = true;
        vcpu_request_exit(vcpu);
    }
    return event;
}

static enum vcpu_event carry_out_observed(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map)
{
    bool is_shown = vcpu->is_debugged && is_int3(vcpu->run);
    bool is_assisted = false;
    enum vcpu_event event;

    if (is_shown) {
        tell_shown(vcpu, bus);
        return stop_for(vcpu, VCPU_STOP_INT3);
    }
    event =
        vcpu->trace != NULL ? carry_out_told(vcpu, bus, map, &is_assisted) : carry_out(vcpu, bus, map, &is_assisted);
    if (event == VCPU_DEBUG) {
        return stop_for(vcpu, VCPU_STOP_EXIT);
    }
    return vcpu->is_stepping ? step_on(vcpu, event, is_assisted) : event;
}

void vcpu_set_trace(struct vcpu *vcpu, struct trace_lane *lane, int stop_fd)
{
    vcpu->trace = lane;
    vcpu->trace_stop_fd = stop_fd;
    vcpu->is_observed = lane != NULL || vcpu->is_debugged;
}

void vcpu_set_debug(struct vcpu *vcpu, bool is_debugged, bool is_stepping)
{
    vcpu->is_debugged = is_debugged;
    vcpu->is_stepping = is_stepping;
    vcpu->has_half_step = false;
    vcpu->is_observed = vcpu->trace != NULL || is_debugged;
}

enum vcpu_event vcpu_pass_debug(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map)
{
    bool is_assisted;

    return vcpu->stop == VCPU_STOP_INT3 ? carry_out(vcpu, bus, map, &is_assisted) : VCPU_RAN; /* told already */
}

/* --- The run loop ------------------------------------------------------------------------------------------------- */

/* is_observed is a constant: where nobody looks on there is nothing of it. */
static inline enum vcpu_event enter(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map,
                                    const bool is_observed)
{
    int result = ioctl(vcpu->fd, KVM_RUN, 0);
    bool is_assisted;

    vcpu->run_errno = result < 0 ? errno : 0;
    switch (vcpu->run_errno) {
    case 0:
        vcpu->stalls = 0;
        vcpu->exit_count++;
        return is_observed ? carry_out_observed(vcpu, bus, map) : carry_out(vcpu, bus, map, &is_assisted);
    case EINTR:
        return is_observed && vcpu->has_half_step ? stop_for(vcpu, VCPU_STOP_STEP) : VCPU_INTERRUPTED;
    case EAGAIN:
        return try_again(vcpu);
    case EFAULT:
    case EHWPOISON:
        tell_failure(vcpu);
        return memory_fault(vcpu);
    default:
        tell_failure(vcpu);
        return VCPU_BROKEN;
    }
}

enum vcpu_event vcpu_run(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map)
{
    if (__builtin_expect(vcpu->is_observed, false)) {
        if (vcpu->trace != NULL) {
            trace_await_room(vcpu->trace, vcpu->trace_stop_fd);
        }
        return enter(vcpu, bus, map, true);
    }
    return enter(vcpu, bus, map, false);
}

/* --- What came to a bad end ------------------------------------------------------------------------------------- */

static bool is_lost_at(const struct vcpu *vcpu, const struct loam_gpa_view *view, uint64_t linear, loam_gpa *gpa)
{
    struct kvm_translation translation = {.linear_address = linear};

    if (kvm_ioctl(vcpu->fd, KVM_TRANSLATE, &translation) < 0 || translation.valid == 0) {
        return false;
    }
    *gpa = loam_gpa_from_u64(translation.physical_address);
    return lost_memory_ask(view, *gpa) != 0;
}

bool vcpu_find_lost(const struct vcpu *vcpu, const struct loam_gpa_view *view, struct lost_memory *lost)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    *lost = (struct lost_memory){0};
    if (kvm_ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0) {
        return false;
    }
    const struct {
        const char *name;
        uint64_t linear;
    } places[] = {
        {"rip", decode_linear_rip(&regs, &sregs)},
        {"rdi", regs.rdi},
        {"rsi", regs.rsi},
        {"rsp", regs.rsp},
        {"rsp, less a push,", regs.rsp - 1},
        {"rax", regs.rax},
        {"rbx", regs.rbx},
        {"rcx", regs.rcx},
        {"rdx", regs.rdx},
        {"rbp", regs.rbp},
        {"r8", regs.r8},
        {"r9", regs.r9},
        {"r10", regs.r10},
        {"r11", regs.r11},
        {"r12", regs.r12},
        {"r13", regs.r13},
        {"r14", regs.r14},
        {"r15", regs.r15},
        {"cr2", sregs.cr2}, /* of an earlier fault, where the guest was not told of this one */
        {"the IDT", sregs.idt.base},
        {"the GDT", sregs.gdt.base},
    };

    for (size_t i = 0; !lost->is_known && i < sizeof places / sizeof places[0]; i++) {
        if (places[i].linear + ACCESS_BYTES_MAX < LOAM_FRAME_BYTES + ACCESS_BYTES_MAX) {
            continue; /* a number rather than an address, below 0 too */
        }
        lost->is_known = is_lost_at(vcpu, view, places[i].linear, &lost->gpa) ||
                         is_lost_at(vcpu, view, places[i].linear + ACCESS_BYTES_MAX - 1, &lost->gpa);
        snprintf(lost->how, sizeof lost->how, "where %s points", places[i].name);
    }
    if (!lost->is_known) {
        lost->gpa = loam_gpa_from_u64(sregs.cr3 & ~(LOAM_FRAME_BYTES - 1));
        lost->is_known = (sregs.cr0 & CR0_PG) != 0 && lost_memory_ask(view, lost->gpa) != 0;
        snprintf(lost->how, sizeof lost->how, "where cr3 points");
    }
    return lost->is_known;
}

void vcpu_request_exit(struct vcpu *vcpu)
{
    /* KVM reads it when KVM_RUN starts; sequentially consistent, for callers that decide next whether to send a signal.
     */
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

void vcpu_withdraw_exit(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

size_t vcpu_describe(const struct vcpu *vcpu, struct loam_gpa_map *map, char *text, size_t bytes)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    struct decode_subject subject = {
        .vcpu = vcpu->index,
        .vcpu_fd = vcpu->fd,
        .run = vcpu->run,
        .run_errno = vcpu->run_errno,
        .view = view,
    };
    size_t length = decode_exit(&subject, text, bytes);

    loam_gpa_map_release(map, view);
    return length;
}
