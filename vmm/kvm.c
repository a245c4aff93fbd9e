// SPDX-License-Identifier: Apache-2.0
#include "vmm/kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The only version there is, and ever will be (KVM API, section 4.1). */
#define API_VERSION 12

/*
 * KVM API, KVM_CHECK_EXTENSION: where KVM_CAP_MAX_VCPUS and KVM_CAP_NR_MEMSLOTS are not answered. KVM_CAP_NR_VCPUS is no limit,
 * but how many processors the host has.
 */
#define VCPU_COUNT_DEFAULT 4u
#define SLOT_COUNT_DEFAULT 32u

#define CPUID_1_ECX_VMX        (1u << 5)
#define CPUID_80000001_ECX_SVM (1u << 2)

struct capability {
    unsigned long number;
    const char *name;
};

#define CAPABILITY(name)                                                                                               \
    {                                                                                                                  \
        name, #name                                                                                                    \
    }

static const struct capability needed[] = {
    CAPABILITY(KVM_CAP_USER_MEMORY),
    CAPABILITY(KVM_CAP_READONLY_MEM),
    CAPABILITY(KVM_CAP_SPLIT_IRQCHIP),
    CAPABILITY(KVM_CAP_ENABLE_CAP_VM),
    CAPABILITY(KVM_CAP_IRQ_ROUTING),
    CAPABILITY(KVM_CAP_SIGNAL_MSI),
    CAPABILITY(KVM_CAP_IMMEDIATE_EXIT),
    CAPABILITY(KVM_CAP_EXT_CPUID),
    CAPABILITY(KVM_CAP_SET_TSS_ADDR),
    CAPABILITY(KVM_CAP_SET_IDENTITY_MAP_ADDR),
    CAPABILITY(KVM_CAP_DESTROY_MEMORY_REGION_WORKS),
};

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
    int result;

    do {
        result = ioctl(fd, request, argument);
    } while (result < 0 && errno == EINTR);
    return result;
}

int kvm_ioctl_number(int fd, unsigned long request, unsigned long argument)
{
    int result;

    do {
        result = ioctl(fd, request, argument);
    } while (result < 0 && errno == EINTR);
    return result;
}

/* Whoever joins the group gains nothing where the group may not either. */
static enum loam_error refuse_rights(const char *device, struct loam_diag *diag)
{
    struct stat status;

    if (stat(device, &status) == 0 && (status.st_mode & (S_IRGRP | S_IWGRP)) != (S_IRGRP | S_IWGRP)) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED,
                         "%s: user %u may not read and write it, and nor may its group (mode %04o): as root, chgrp kvm "
                         "%s && chmod 0660 %s",
                         device, geteuid(), status.st_mode & 0777u, device, device);
    }
    return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED,
                     "%s: user %u may not read and write it: join its group (usermod -aG kvm $USER, then log in again)",
                     device, geteuid());
}

bool kvm_emulates(void)
{
    unsigned eax, ebx, ecx, edx;
    bool has_vtx = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & CPUID_1_ECX_VMX) != 0;
    bool has_svm = __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0 && (ecx & CPUID_80000001_ECX_SVM) != 0;

    return !has_vtx && !has_svm;
}

static enum loam_error open_device(const char *device, int *fd, struct loam_diag *diag)
{
    *fd = open(device, O_RDWR | O_CLOEXEC);
    if (*fd >= 0) {
        return LOAM_OK;
    }
    switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return loam_fail(
            diag, LOAM_ERROR_NOT_FOUND,
            "%s: not found: load kvm_intel or kvm_amd (modprobe), or enable virtualization in the firmware", device);
    case EACCES:
    case EPERM:
        return refuse_rights(device, diag);
    default:
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: cannot be opened", device);
    }
}

static enum loam_error check_version(const char *device, int fd, struct loam_diag *diag)
{
    int version = kvm_ioctl_number(fd, KVM_GET_API_VERSION, 0);

    if (version < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: is not KVM (KVM_GET_API_VERSION)", device);
    }
    if (version != API_VERSION) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "%s: KVM API %d wanted, %d found: use Linux 2.6.22 or newer",
                         device, API_VERSION, version);
    }
    return LOAM_OK;
}

/* What KVM answers for a capability: 0 for those that it lacks. */
static uint32_t ask(int fd, unsigned long capability)
{
    int answer = kvm_ioctl_number(fd, KVM_CHECK_EXTENSION, capability);

    return answer > 0 ? (uint32_t)answer : 0;
}

static enum loam_error check_capabilities(const char *device, int fd, struct loam_diag *diag)
{
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (ask(fd, needed[i].number) == 0) {
            return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "%s: %s wanted, and this KVM lacks it: use a newer kernel",
                             device, needed[i].name);
        }
    }
    return LOAM_OK;
}

static enum loam_error ask_figures(const char *device, struct kvm *kvm, struct loam_diag *diag)
{
    uint32_t slots = ask(kvm->fd, KVM_CAP_NR_MEMSLOTS);
    uint32_t limit = ask(kvm->fd, KVM_CAP_MAX_VCPUS);
    uint32_t xsave = ask(kvm->fd, KVM_CAP_XSAVE2);
    int run_bytes = kvm_ioctl_number(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    if (run_bytes < (int)sizeof(struct kvm_run)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: KVM_GET_VCPU_MMAP_SIZE: at least %zu bytes wanted, %d found",
                         device, sizeof(struct kvm_run), run_bytes);
    }
    kvm->run_bytes = (size_t)run_bytes;
    kvm->slot_limit = slots > 0 ? slots : SLOT_COUNT_DEFAULT;
    kvm->vcpu_limit = limit > 0 ? limit : VCPU_COUNT_DEFAULT;
    kvm->xsave_bytes = xsave > sizeof(struct kvm_xsave) ? xsave : (uint32_t)sizeof(struct kvm_xsave);
    kvm->has_memory_fault = ask(kvm->fd, KVM_CAP_MEMORY_FAULT_INFO) != 0;
    kvm->has_deadline_timer = ask(kvm->fd, KVM_CAP_TSC_DEADLINE_TIMER) != 0;
    return LOAM_OK;
}

enum loam_error kvm_open(const char *device, struct kvm *kvm, struct loam_diag *diag)
{
    enum loam_error error = open_device(device, &kvm->fd, diag);

    if (error == LOAM_OK) {
        error = check_version(device, kvm->fd, diag);
    }
    if (error == LOAM_OK) {
        error = check_capabilities(device, kvm->fd, diag);
    }
    if (error == LOAM_OK) {
        error = ask_figures(device, kvm, diag);
    }
    if (error != LOAM_OK) {
        kvm_close(kvm);
    }
    return error;
}

void kvm_close(struct kvm *kvm)
{
    if (kvm->fd >= 0) {
        close(kvm->fd);
    }
    *kvm = (struct kvm){.fd = -1};
}

enum loam_error kvm_create_vm(const struct kvm *kvm, int *vm_fd, struct loam_diag *diag)
{
    *vm_fd = kvm_ioctl_number(kvm->fd, KVM_CREATE_VM, 0);
    if (*vm_fd >= 0) {
        return LOAM_OK;
    }
    if (errno == EACCES || errno == EPERM) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "KVM_CREATE_VM: refused: run it where VMs are allowed");
    }
    if (errno == EAGAIN) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM,
                         "KVM_CREATE_VM: KVM cannot start a thread of its own: raise the limit on processes and "
                         "threads (RLIMIT_NPROC, pids.max of the control group)");
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM,
                     "KVM_CREATE_VM: failed: see the kernel log (dmesg); another hypervisor may hold the processor");
}
