// SPDX-License-Identifier: Apache-2.0
#include "vmm/tune.h"

#include "vmm/boot_file.h"
#include "vmm/boot_kind.h"
#include "vmm/vcpu.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of a Linux image's header (Linux: Documentation/arch/x86/boot.rst). */
#define HEADER_MAGIC        0x202u
#define HEADER_VERSION      0x20eu /* where the version is, less 0x200; 0: nowhere */
#define HEADER_VERSION_BASE 0x200u
#define MAGIC               "HdrS"
#define ELF_MAGIC           "\177ELF"

#define CPUID_1_ECX_XSAVE (UINT32_C(1) << 26)

#define PROBE_BYTES 4096u

/* --- Kernels ------------------------------------------------------------------------------------------------- */

static bool is_figure(char character)
{
    return character >= '0' && character <= '9';
}

/* Linux: arch/x86/boot/version.c: "6.1.192 (who@where) #1 ..."; others who use the header have their name there. */
static bool has_version(const struct boot_file *kernel)
{
    const char *data = kernel->data;
    uint16_t at;

    if (kernel->bytes < HEADER_VERSION + sizeof at || memcmp(data + HEADER_MAGIC, MAGIC, sizeof MAGIC - 1) != 0) {
        return false;
    }
    memcpy(&at, data + HEADER_VERSION, sizeof at);
    return at != 0 && loam_fits(HEADER_VERSION_BASE + (uint64_t)at, 2, kernel->bytes) &&
           is_figure(data[HEADER_VERSION_BASE + at]) &&
           (is_figure(data[HEADER_VERSION_BASE + at + 1]) || data[HEADER_VERSION_BASE + at + 1] == '.');
}

bool tune_is_linux(const struct boot_file *kernel)
{
    bool is_elf = kernel->bytes >= sizeof ELF_MAGIC && memcmp(kernel->data, ELF_MAGIC, sizeof ELF_MAGIC - 1) == 0;

    return is_elf ? boot_kind_has_banner(kernel, 0, kernel->bytes) : has_version(kernel);
}

bool tune_has_word(const char *command_line, const char *word)
{
    static const char spaces[] = " \t\n";
    size_t length = strlen(word);
    const char *at = command_line + strspn(command_line, spaces);

    while (*at != '\0') {
        size_t bytes = strcspn(at, spaces);

        if (bytes == 2 && memcmp(at, "--", 2) == 0) {
            return false;
        }
        if (bytes == length && memcmp(at, word, length) == 0) {
            return true;
        }
        at += bytes;
        at += strspn(at, spaces);
    }
    return false;
}

/* --- KVM ----------------------------------------------------------------------------------------------------- */

bool tune_declares_xsave(const struct kvm *kvm)
{
    struct vcpu_cpuid cpuid;
    bool declares = false;

    if (vcpu_cpuid_supported(kvm, &cpuid, NULL) != LOAM_OK) {
        return true;
    }
    for (uint32_t i = 0; i < cpuid.count; i++) {
        declares = declares || (cpuid.entries[i].function == 1 && (cpuid.entries[i].ecx & CPUID_1_ECX_XSAVE) != 0);
    }
    return declares;
}

/* What a try takes, all of it or nothing. */
struct probe {
    int vm_fd, vcpu_fd;
    uint8_t *page;
    struct kvm_run *run;
    size_t run_bytes;
};

static void close_probe(struct probe *probe)
{
    if (probe->run != MAP_FAILED) {
        munmap(probe->run, probe->run_bytes);
    }
    if (probe->vcpu_fd >= 0) {
        close(probe->vcpu_fd);
    }
    if (probe->vm_fd >= 0) {
        close(probe->vm_fd);
    }
    if (probe->page != MAP_FAILED) {
        munmap(probe->page, PROBE_BYTES);
    }
}

static bool open_probe(const struct kvm *kvm, struct probe *probe)
{
    struct kvm_userspace_memory_region slot = {.memory_size = PROBE_BYTES};

    *probe = (struct probe){.vm_fd = -1, .vcpu_fd = -1, .run = MAP_FAILED, .run_bytes = kvm->run_bytes};
    probe->page = mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe->page == MAP_FAILED || kvm_create_vm(kvm, &probe->vm_fd, NULL) != LOAM_OK) {
        return false;
    }
    slot.userspace_addr = (uintptr_t)probe->page;
    if (kvm_ioctl(probe->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0) {
        return false;
    }
    probe->vcpu_fd = kvm_ioctl_number(probe->vm_fd, KVM_CREATE_VCPU, 0);
    if (probe->vcpu_fd < 0) {
        return false;
    }
    probe->run = mmap(NULL, probe->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, probe->vcpu_fd, 0);
    return probe->run != MAP_FAILED;
}

/* In 32-bit code at 0: of no component, from zeros. With or without CR4.OSXSAVE, a processor is done with it at once. */
static bool load_probe(const struct probe *probe)
{
    static const uint8_t code[] = {
        0x0f, 0xae, 0x2d, 0x00, 0x04, 0x00, 0x00, /* xrstor 0x400 */
        0xf4,                                     /* hlt */
    };
    const struct boot_state boot = {.protocol = BOOT_PVH};
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    memcpy(probe->page, code, sizeof code);
    if (kvm_ioctl(probe->vcpu_fd, KVM_GET_SREGS, &sregs) < 0) {
        return false;
    }
    vcpu_boot_sregs(&boot, &sregs);
    vcpu_boot_regs(&boot, &regs);
    return kvm_ioctl(probe->vcpu_fd, KVM_SET_SREGS, &sregs) == 0 && kvm_ioctl(probe->vcpu_fd, KVM_SET_REGS, &regs) == 0;
}

bool tune_lacks_xrstor(const struct kvm *kvm)
{
    struct probe probe;
    bool lacks = false;

    if (open_probe(kvm, &probe) && load_probe(&probe)) {
        lacks = kvm_ioctl_number(probe.vcpu_fd, KVM_RUN, 0) == 0 && probe.run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
                probe.run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
    }
    close_probe(&probe);
    return lacks;
}

/* --- Both ---------------------------------------------------------------------------------------------------- */

/* In front: what follows "--" is init's, and what a kernel drops is at the end. */
static char *with_word(const char *command_line)
{
    size_t length = strlen(command_line);
    char *text = malloc(sizeof TUNE_WORD + 1 + length);

    if (text != NULL) {
        memcpy(text, TUNE_WORD, sizeof TUNE_WORD);
        if (length > 0) {
            text[sizeof TUNE_WORD - 1] = ' ';
            memcpy(text + sizeof TUNE_WORD, command_line, length + 1);
        }
    }
    return text;
}

enum loam_error tune_kernel(const struct kvm *kvm, const struct boot_file *kernel, const char *command_line,
                            enum tune_wish wish, struct tune *tune, struct loam_diag *diag)
{
    *tune = (struct tune){.state = TUNE_NEEDLESS};
    if (wish == TUNE_IGNORE || tune_has_word(command_line, TUNE_WORD) || tune_declares_xsave(kvm) ||
        !tune_is_linux(kernel) || !tune_lacks_xrstor(kvm)) {
        return LOAM_OK;
    }
    if (wish == TUNE_ASK) {
        tune->state = TUNE_LEFT_OUT;
        return LOAM_OK;
    }
    tune->command_line = with_word(command_line);
    if (tune->command_line == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "command line: no memory");
    }
    tune->state = TUNE_ADDED;
    return LOAM_OK;
}

void tune_release(struct tune *tune)
{
    free(tune->command_line);
    *tune = (struct tune){0};
}
