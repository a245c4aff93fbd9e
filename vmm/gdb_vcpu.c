// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_vcpu.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux 5.15, and Debian 12's headers. */
#ifndef KVM_GUESTDBG_BLOCKIRQ
#define KVM_GUESTDBG_BLOCKIRQ 0x00100000
#endif
#ifndef KVM_CAP_SET_GUEST_DEBUG2
#define KVM_CAP_SET_GUEST_DEBUG2 195
#endif

#define MSR_KERNEL_GS_BASE 0xc0000102u

#define VECTOR_DEBUG      1u
#define VECTOR_BREAKPOINT 3u

#define DR6_OF_EXCEPTION UINT64_C(0xe00f) /* B0 to B3, BD, BS, BT */

/* struct kvm_msrs with room for one. */
struct one_msr {
    uint32_t count;
    uint32_t padding;
    struct kvm_msr_entry entry;
};

static_assert(sizeof(struct kvm_xsave) == GDB_XSAVE_BYTES, "laid out as KVM reads it");

/* --- Registers ---------------------------------------------------------------------------------------------------- */

bool gdb_vcpu_read(int fd, struct gdb_registers *registers)
{
    struct one_msr msr = {.count = 1, .entry = {.index = MSR_KERNEL_GS_BASE}};

    if (kvm_ioctl(fd, KVM_GET_REGS, &registers->regs) < 0 || kvm_ioctl(fd, KVM_GET_SREGS, &registers->sregs) < 0 ||
        kvm_ioctl(fd, KVM_GET_XSAVE, registers->xsave) < 0) {
        return false;
    }
    registers->kernel_gs_base = kvm_ioctl(fd, KVM_GET_MSRS, &msr) == 1 ? msr.entry.data : 0;
    return true;
}

/* Each call has effects of its own, such as to forget an exception that is on its way: what is as it was is left alone. */
bool gdb_vcpu_write(int fd, const struct gdb_registers *before, const struct gdb_registers *registers)
{
    struct one_msr msr = {.count = 1, .entry = {.index = MSR_KERNEL_GS_BASE, .data = registers->kernel_gs_base}};

    if (memcmp(&before->sregs, &registers->sregs, sizeof before->sregs) != 0 &&
        kvm_ioctl_number(fd, KVM_SET_SREGS, (uintptr_t)&registers->sregs) < 0) {
        return false;
    }
    if (memcmp(&before->regs, &registers->regs, sizeof before->regs) != 0 &&
        kvm_ioctl_number(fd, KVM_SET_REGS, (uintptr_t)&registers->regs) < 0) {
        return false;
    }
    if (memcmp(before->xsave, registers->xsave, sizeof before->xsave) != 0 &&
        kvm_ioctl_number(fd, KVM_SET_XSAVE, (uintptr_t)registers->xsave) < 0) {
        return false;
    }
    return before->kernel_gs_base == registers->kernel_gs_base || kvm_ioctl(fd, KVM_SET_MSRS, &msr) == 1;
}

bool gdb_vcpu_translate(int fd, uint64_t linear, loam_gpa *gpa)
{
    struct kvm_translation translation = {.linear_address = linear};

    if (kvm_ioctl(fd, KVM_TRANSLATE, &translation) < 0 || translation.valid == 0 ||
        translation.physical_address >= LOAM_GPA_END) {
        return false;
    }
    *gpa = loam_gpa_from_u64(translation.physical_address);
    return true;
}

/* --- Stops -------------------------------------------------------------------------------------------------------- */

static bool has_software(const struct gdb_points *points)
{
    bool has = false;

    for (uint32_t i = 0; i < points->count; i++) {
        has = has || points->points[i].kind == GDB_POINT_SOFTWARE;
    }
    return has;
}

static struct kvm_guest_debug debug_of(const struct gdb_points *points, bool is_stepping,
                                       const struct gdb_abilities *abilities)
{
    struct kvm_guest_debug debug = {.control = 0};
    uint64_t registers[8];

    if (gdb_points_registers(points, registers)) {
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        memcpy(debug.arch.debugreg, registers, sizeof registers);
    }
    if (has_software(points)) {
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    }
    if (is_stepping) {
        debug.control |=
            KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | (abilities->has_quiet_step ? KVM_GUESTDBG_BLOCKIRQ : 0);
    }
    return debug;
}

bool gdb_vcpu_arm(int fd, const struct gdb_points *points, bool is_stepping, const struct gdb_abilities *abilities)
{
    struct kvm_guest_debug debug = debug_of(points, is_stepping, abilities);

    return kvm_ioctl(fd, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

void gdb_vcpu_disarm(int fd)
{
    struct kvm_guest_debug debug = {.control = 0};

    (void)kvm_ioctl(fd, KVM_SET_GUEST_DEBUG, &debug);
}

/* A handler of the guest's reads DR6 for what happened. */
static void tell_guest(int fd, uint64_t dr6)
{
    struct kvm_debugregs registers;

    if (kvm_ioctl(fd, KVM_GET_DEBUGREGS, &registers) == 0) {
        registers.dr6 |= dr6 & DR6_OF_EXCEPTION;
        (void)kvm_ioctl(fd, KVM_SET_DEBUGREGS, &registers);
    }
}

bool gdb_vcpu_pass(int fd, const struct kvm_run *run, const struct gdb_points *points, bool is_stepping,
                   const struct gdb_abilities *abilities)
{
    struct kvm_guest_debug debug = debug_of(points, is_stepping, abilities);

    if (run->debug.arch.exception == VECTOR_BREAKPOINT) {
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP;
    } else {
        tell_guest(fd, run->debug.arch.dr6);
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB;
    }
    return kvm_ioctl(fd, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

/* --- Found out by trying ------------------------------------------------------------------------------------------ */

#define PAGE_BYTES   4096u
#define CODE_ADDRESS 0x100u
#define DATA_ADDRESS 0x800u
#define TSS_ADDRESS  0xfffbd000ul /* KVM's own; no RAM is there */

/* What is tried is at the second instruction, and a HLT ends it where nothing else does. */
static const uint8_t code[] = {
    0x90,                         /* nop */
    0xa3, 0x00, 0x08, 0x00, 0x00, /* mov %eax, DATA_ADDRESS */
    0xf4,                         /* hlt */
    0xf4,
};
static const uint8_t code_int3[] = {0x90, GDB_INT3, 0xf4, 0xf4};

struct trial {
    int vm_fd, vcpu_fd;
    void *memory;
    struct kvm_run *run;
    size_t run_bytes;
};

static void close_trial(struct trial *trial)
{
    if (trial->run != NULL) {
        munmap(trial->run, trial->run_bytes);
    }
    if (trial->vcpu_fd >= 0) {
        close(trial->vcpu_fd);
    }
    if (trial->vm_fd >= 0) {
        close(trial->vm_fd);
    }
    if (trial->memory != NULL) {
        munmap(trial->memory, PAGE_BYTES);
    }
}

static void *map_shared(int fd, size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

    return at == MAP_FAILED ? NULL : at;
}

static bool open_trial(const struct kvm *kvm, struct trial *trial)
{
    struct kvm_userspace_memory_region region = {.memory_size = PAGE_BYTES};

    *trial = (struct trial){.vm_fd = -1, .vcpu_fd = -1, .run_bytes = kvm->run_bytes};
    trial->memory = map_shared(-1, PAGE_BYTES);
    region.userspace_addr = (uintptr_t)trial->memory;
    if (trial->memory == NULL || kvm_create_vm(kvm, &trial->vm_fd, NULL) != LOAM_OK ||
        kvm_ioctl_number(trial->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0 ||
        kvm_ioctl(trial->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        return false;
    }
    trial->vcpu_fd = kvm_ioctl_number(trial->vm_fd, KVM_CREATE_VCPU, 0);
    trial->run = trial->vcpu_fd >= 0 ? map_shared(trial->vcpu_fd, trial->run_bytes) : NULL;
    return trial->run != NULL;
}

static struct kvm_segment flat(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){
        .selector = selector, .limit = UINT32_MAX, .type = type, .s = 1, .present = 1, .db = 1, .g = 1};
}

/* 32-bit protected mode without paging, as PVH guests start: a processor can run that by itself. */
static bool set_state(const struct trial *trial, const uint8_t *instructions, size_t bytes)
{
    struct kvm_regs regs = {.rip = CODE_ADDRESS, .rflags = 2};
    struct kvm_sregs sregs;

    memset(trial->memory, 0, PAGE_BYTES);
    memcpy((uint8_t *)trial->memory + CODE_ADDRESS, instructions, bytes);
    if (kvm_ioctl(trial->vcpu_fd, KVM_GET_SREGS, &sregs) < 0) {
        return false;
    }
    sregs.cs = flat(0x10, 0xb);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat(0x18, 0x3);
    sregs.tr = (struct kvm_segment){.selector = 0x20, .limit = 0x67, .type = 0xb, .present = 1};
    sregs.ldt = (struct kvm_segment){.type = 0x2, .unusable = 1};
    sregs.idt = (struct kvm_dtable){.limit = 0}; /* what nobody intercepts ends it */
    sregs.cr0 = 0x11;
    sregs.cr3 = sregs.cr4 = sregs.efer = 0;
    return kvm_ioctl(trial->vcpu_fd, KVM_SET_SREGS, &sregs) == 0 && kvm_ioctl(trial->vcpu_fd, KVM_SET_REGS, &regs) == 0;
}

static bool run_trial(const struct trial *trial)
{
    return kvm_ioctl_number(trial->vcpu_fd, KVM_RUN, 0) == 0;
}

static bool is_debug_exit(const struct trial *trial, uint32_t vector, uint64_t pc)
{
    return trial->run->exit_reason == KVM_EXIT_DEBUG && trial->run->debug.arch.exception == vector &&
           trial->run->debug.arch.pc == pc;
}

static bool try_step(const struct trial *trial, const struct gdb_abilities *abilities)
{
    const struct gdb_points none = {.count = 0};

    return set_state(trial, code, sizeof code) && gdb_vcpu_arm(trial->vcpu_fd, &none, true, abilities) &&
           run_trial(trial) && is_debug_exit(trial, VECTOR_DEBUG, CODE_ADDRESS + 1);
}

static bool try_point(const struct trial *trial, enum gdb_point_kind kind, uint64_t address, uint64_t pc)
{
    const struct gdb_abilities none = {.has_step = false};
    struct gdb_points points = {.count = 0};

    return gdb_points_add(&points, &(struct gdb_point){.kind = kind, .address = address, .bytes = 1}) &&
           set_state(trial, code, sizeof code) && gdb_vcpu_arm(trial->vcpu_fd, &points, false, &none) &&
           run_trial(trial) && is_debug_exit(trial, VECTOR_DEBUG, pc);
}

/* Either exit will do: of a KVM that gives INT3 up, the caller sees that, and where. */
static bool try_int3(const struct trial *trial)
{
    const struct gdb_abilities none = {.has_step = false};
    const struct gdb_points points = {.count = 1, .points = {{.kind = GDB_POINT_SOFTWARE}}};

    return set_state(trial, code_int3, sizeof code_int3) && gdb_vcpu_arm(trial->vcpu_fd, &points, false, &none) &&
           run_trial(trial) &&
           (is_debug_exit(trial, VECTOR_BREAKPOINT, CODE_ADDRESS + 1) ||
            (trial->run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
             trial->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION));
}

enum loam_error gdb_vcpu_try(struct gdb_abilities *abilities, struct loam_diag *diag)
{
    struct trial trial;
    struct kvm kvm;
    enum loam_error error = kvm_open(KVM_DEVICE, &kvm, diag);
    int flags;

    *abilities = (struct gdb_abilities){.has_step = false};
    if (error != LOAM_OK) {
        return error;
    }
    flags = kvm_ioctl_number(kvm.fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);
    if (open_trial(&kvm, &trial) && kvm_ioctl_number(kvm.fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG) > 0) {
        abilities->has_quiet_step = flags > 0 && (flags & KVM_GUESTDBG_BLOCKIRQ) != 0;
        abilities->has_step = try_step(&trial, abilities);
        abilities->has_execute = try_point(&trial, GDB_POINT_EXECUTE, CODE_ADDRESS + 1, CODE_ADDRESS + 1);
        abilities->has_watch = try_point(&trial, GDB_POINT_WRITE, DATA_ADDRESS, CODE_ADDRESS + 6);
        abilities->has_software = try_int3(&trial); /* last: it may end in a triple fault */
    }
    close_trial(&trial);
    kvm_close(&kvm);
    return LOAM_OK;
}
