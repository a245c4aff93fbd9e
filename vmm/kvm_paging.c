// SPDX-License-Identifier: Apache-2.0
/* References: Intel SDM volume 3A, section 4.3 (32-bit paging); KVM API, section 4.41 (KVM_SET_TSS_ADDR). */
#include "vmm/kvm_paging.h"

#include "loam/types.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_BYTES  (4 * LOAM_FRAME_BYTES)
#define CODE_ADDRESS  0x1000u
#define TABLE_ADDRESS 0x2000u
#define LARGE_PAGE    0x83u /* present, writable, 4 MiB; from 0 on */
#define TSS_ADDRESS   0xfffbd000ul
#define ANSWER_PORT   0xf4u
#define EXITS_MAX     8u

static const uint8_t code[] = {
    0xb8, 0x00,        0x20, 0x00, 0x00, /* mov eax, TABLE_ADDRESS */
    0x0f, 0x22,        0xd8,             /* mov cr3, eax */
    0x0f, 0x20,        0xe0,             /* mov eax, cr4 */
    0x83, 0xc8,        0x10,             /* or eax, PSE */
    0x0f, 0x22,        0xe0,             /* mov cr4, eax */
    0x0f, 0x20,        0xc0,             /* mov eax, cr0 */
    0x0d, 0x00,        0x00, 0x00, 0x80, /* or eax, PG */
    0x0f, 0x22,        0xc0,             /* mov cr0, eax */
    0xe6, ANSWER_PORT,                   /* out ANSWER_PORT, al */
    0xf4,                                /* hlt */
};

/* Descriptors of -1 and memory of MAP_FAILED are not there yet. */
struct probe {
    struct kvm kvm;
    int vm_fd, vcpu_fd;
    uint8_t *memory;
    struct kvm_run *run;
};

static enum loam_error failed(const char *what, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "paging outside long mode: %s", what);
}

static enum loam_error make_memory(struct probe *probe, struct loam_diag *diag)
{
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_BYTES};
    const uint32_t entry = LARGE_PAGE;

    probe->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe->memory == MAP_FAILED) {
        return failed("mmap", diag);
    }
    memcpy(probe->memory + CODE_ADDRESS, code, sizeof code);
    memcpy(probe->memory + TABLE_ADDRESS, &entry, sizeof entry);
    region.userspace_addr = (uintptr_t)probe->memory;
    if (kvm_ioctl_number(probe->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0 ||
        kvm_ioctl(probe->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        return failed("KVM_SET_USER_MEMORY_REGION", diag);
    }
    return LOAM_OK;
}

static enum loam_error make_vcpu(struct probe *probe, struct loam_diag *diag)
{
    const struct boot_state boot = {.protocol = BOOT_PVH, .entry = CODE_ADDRESS};
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    probe->vcpu_fd = kvm_ioctl_number(probe->vm_fd, KVM_CREATE_VCPU, 0);
    if (probe->vcpu_fd < 0) {
        return failed("KVM_CREATE_VCPU", diag);
    }
    probe->run = mmap(NULL, probe->kvm.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, probe->vcpu_fd, 0);
    if (probe->run == MAP_FAILED) {
        return failed("mmap of a vCPU", diag);
    }
    if (kvm_ioctl(probe->vcpu_fd, KVM_GET_SREGS, &sregs) < 0) {
        return failed("KVM_GET_SREGS", diag);
    }
    vcpu_boot_regs(&boot, &regs);
    vcpu_boot_sregs(&boot, &sregs);
    if (kvm_ioctl(probe->vcpu_fd, KVM_SET_SREGS, &sregs) < 0 || kvm_ioctl(probe->vcpu_fd, KVM_SET_REGS, &regs) < 0) {
        return failed("KVM_SET_SREGS", diag);
    }
    return LOAM_OK;
}

/* Whether the code came as far as its answer; it ends in some other exit if it did not. */
static bool answers(const struct probe *probe)
{
    for (uint32_t i = 0; i < EXITS_MAX; i++) {
        if (ioctl(probe->vcpu_fd, KVM_RUN, 0) == 0) {
            return probe->run->exit_reason == KVM_EXIT_IO && probe->run->io.port == ANSWER_PORT;
        }
        if (errno != EINTR && errno != EAGAIN) {
            return false;
        }
    }
    return false;
}

static void end(struct probe *probe)
{
    if (probe->run != MAP_FAILED) {
        munmap(probe->run, probe->kvm.run_bytes);
    }
    if (probe->vcpu_fd >= 0) {
        close(probe->vcpu_fd);
    }
    if (probe->vm_fd >= 0) {
        close(probe->vm_fd);
    }
    if (probe->memory != MAP_FAILED) {
        munmap(probe->memory, MEMORY_BYTES);
    }
    kvm_close(&probe->kvm);
}

enum loam_error kvm_paging_ask(bool *is_able, struct loam_diag *diag)
{
    struct probe probe = {.vm_fd = -1, .vcpu_fd = -1, .memory = MAP_FAILED, .run = MAP_FAILED};
    enum loam_error error = kvm_open(KVM_DEVICE, &probe.kvm, diag);

    *is_able = false;
    if (error != LOAM_OK) {
        return error;
    }
    error = kvm_create_vm(&probe.kvm, &probe.vm_fd, diag);
    if (error == LOAM_OK) {
        error = make_memory(&probe, diag);
    }
    if (error == LOAM_OK) {
        error = make_vcpu(&probe, diag);
    }
    *is_able = error == LOAM_OK && answers(&probe);
    end(&probe);
    return error;
}
