// SPDX-License-Identifier: Apache-2.0
#include "vmm/tune.h"

#include "vmm/boot_file.h"
#include "vmm/boot_kind.h"
#include "vmm/vcpu.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of a Linux image's header (Linux: Documentation/arch/x86/boot.rst). */
#define HEADER_MAGIC        0x202u
#define HEADER_VERSION      0x20eu /* where the version is, less 0x200; 0: nowhere */
#define HEADER_VERSION_BASE 0x200u
#define MAGIC               "HdrS"
#define ELF_MAGIC           "\177ELF"

#define CPUID_1_ECX_XSAVE (UINT32_C(1) << 26)

#define PROBE_BYTES  4096u
#define XRSTOR_AT    0x100u
#define HYPERCALL_AT 0x200u

/* Linux 5.19; numbers of KVM's API (Documentation/virt/kvm/api.rst, section 7.33). */
#ifndef KVM_CAP_DISABLE_QUIRKS2
#define KVM_CAP_DISABLE_QUIRKS2 213
#endif
#define QUIRK_FIX_HYPERCALL (1u << 5) /* KVM_X86_QUIRK_FIX_HYPERCALL_INSN */

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

/* Enter the code at rip, in 32-bit mode. false: KVM refuses. */
static bool run_probe(const struct probe *probe, uint64_t rip)
{
    const struct boot_state boot = {.protocol = BOOT_PVH, .entry = rip};
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    if (kvm_ioctl(probe->vcpu_fd, KVM_GET_SREGS, &sregs) < 0) {
        return false;
    }
    vcpu_boot_sregs(&boot, &sregs);
    vcpu_boot_regs(&boot, &regs);
    return kvm_ioctl(probe->vcpu_fd, KVM_SET_SREGS, &sregs) == 0 &&
           kvm_ioctl(probe->vcpu_fd, KVM_SET_REGS, &regs) == 0 && kvm_ioctl_number(probe->vcpu_fd, KVM_RUN, 0) == 0;
}

/* Of no component, from zeros. With or without CR4.OSXSAVE, a processor is done with it at once. */
static bool lacks_xrstor(const struct probe *probe)
{
    static const uint8_t code[] = {
        0x0f, 0xae, 0x2d, 0x00, 0x04, 0x00, 0x00, /* xrstor 0x400 */
        0xf4,                                     /* hlt */
    };

    memcpy(probe->page + XRSTOR_AT, code, sizeof code);
    return run_probe(probe, XRSTOR_AT) && probe->run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
           probe->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
}

/*
 * KVM's emulator puts the processor's own instruction in the place of another's, and comes back to it for ever, since its own
 * is emulated too. Kept from that, it raises #UD, which ends this guest.
 */
static bool lacks_hypercalls(const struct probe *probe)
{
    static const uint8_t vmcall[] = {0x0f, 0x01, 0xc1, 0xf4}, vmmcall[] = {0x0f, 0x01, 0xd9, 0xf4};
    struct kvm_enable_cap quirk = {.cap = KVM_CAP_DISABLE_QUIRKS2, .args = {QUIRK_FIX_HYPERCALL}};

    if (kvm_ioctl(probe->vm_fd, KVM_ENABLE_CAP, &quirk) < 0) {
        return false;
    }
    memcpy(probe->page + HYPERCALL_AT, __builtin_cpu_is("amd") ? vmmcall : vmcall, sizeof vmcall);
    return run_probe(probe, HYPERCALL_AT) && probe->run->exit_reason == KVM_EXIT_SHUTDOWN;
}

struct tune_lacks tune_try(const struct kvm *kvm)
{
    struct tune_lacks lacks = {0};
    struct probe probe;

    if (open_probe(kvm, &probe)) {
        lacks.xrstor = lacks_xrstor(&probe);
        lacks.hypercalls = lacks.xrstor && lacks_hypercalls(&probe);
    }
    close_probe(&probe);
    return lacks;
}

/* --- Both ---------------------------------------------------------------------------------------------------- */

/* In front: what follows "--" is init's, and what a kernel drops is at the end. */
static char *with_words(const char *words, const char *command_line)
{
    size_t bytes = strlen(words) + 1 + strlen(command_line) + 1;
    char *text = malloc(bytes);

    if (text != NULL) {
        snprintf(text, bytes, "%s%s%s", words, command_line[0] != '\0' ? " " : "", command_line);
    }
    return text;
}

enum loam_error tune_ask(const struct kvm *kvm, const char *command_line, uint32_t vcpu_count, enum tune_wish wish,
                         struct tune *tune, struct loam_diag *diag)
{
    bool wants_noxsave = !tune_has_word(command_line, TUNE_NOXSAVE);
    bool wants_nopv = vcpu_count > 1 && !tune_has_word(command_line, TUNE_NOPV);

    *tune = (struct tune){0};
    if (wish == TUNE_IGNORE || (!wants_noxsave && !wants_nopv) || tune_declares_xsave(kvm)) {
        return LOAM_OK;
    }
    tune->lacks = tune_try(kvm);
    tune->lacks.xrstor = tune->lacks.xrstor && wants_noxsave;
    tune->lacks.hypercalls = tune->lacks.hypercalls && wants_nopv;
    snprintf(tune->words, sizeof tune->words, "%s%s%s", tune->lacks.xrstor ? TUNE_NOXSAVE : "",
             tune->lacks.xrstor && tune->lacks.hypercalls ? " " : "", tune->lacks.hypercalls ? TUNE_NOPV : "");
    if (wish == TUNE_ADD && tune->words[0] != '\0') {
        tune->command_line = with_words(tune->words, command_line);
        if (tune->command_line == NULL) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "command line: no memory");
        }
    }
    return LOAM_OK;
}

const char *tune_lacks_text(const struct tune_lacks *lacks)
{
    if (!lacks->hypercalls) {
        return "XRSTOR";
    }
    return lacks->xrstor ? "XRSTOR and hypercalls" : "hypercalls";
}

void tune_release(struct tune *tune)
{
    free(tune->command_line);
    *tune = (struct tune){0};
}
