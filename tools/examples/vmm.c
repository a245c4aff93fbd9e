// SPDX-License-Identifier: Apache-2.0
/* A hypervisor in a hundred lines: plan, memory, slots, a guest that fills a ring below 4 GiB, an orderly end. */
#include "loam/kvm.h"
#include "loam/memory.h"
#include "loam/slots.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define TSS_ADDRESS 0xfffbd000 /* three pages in the hole, which some of Intel's processors need */

enum { PORT_SERIAL = 0x3f8, CODE = 8, DATA = 16, CR0_PE = 1, EXIT_HOST = 3 };

/* 32-bit code: make a descriptor available in the ring at EBX (virtio 1.2, section 2.7.6), say so on COM1, stop. */
static const unsigned char guest_code[] = {
    0x66, 0xc7, 0x43, 0x02, 0x01, 0x00, /* movw $1, 2(%ebx) */
    0x66, 0xba, 0xf8, 0x03,             /* movw $0x3f8, %dx */
    0xb0, 'L',  0xee, 0xf4,             /* movb $'L', %al; outb %al, %dx; hlt */
};

/* Flat 32-bit protected mode without paging (SDM volume 3A, section 3.4.5). */
static bool set_registers(int vcpu, loam_gpa rip, loam_gpa rbx)
{
    struct kvm_segment flat = {.limit = UINT32_MAX, .selector = DATA, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_regs registers = {.rip = rip.value, .rbx = rbx.value, .rflags = 2};
    struct kvm_sregs sregs;

    if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0) {
        return false;
    }
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.cs = flat;
    sregs.cs.selector = CODE;
    sregs.cs.type = 11;
    sregs.cr0 |= CR0_PE;
    return ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0 && ioctl(vcpu, KVM_SET_REGS, &registers) == 0;
}

/* Until the guest halts; what it says on COM1 goes to standard output. */
static bool run_guest(int vcpu, const struct kvm_run *run)
{
    while (ioctl(vcpu, KVM_RUN, 0) == 0 || errno == EINTR) {
        if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_SERIAL) {
            fwrite((const char *)run + run->io.data_offset, run->io.size, run->io.count, stdout);
        } else if (run->exit_reason == KVM_EXIT_HLT) {
            return true;
        } else if (run->exit_reason != KVM_EXIT_INTR) {
            return warnx("exit reason %u", run->exit_reason), false;
        }
    }
    return warn("KVM_RUN"), false;
}

int main(void)
{
    const loam_gpa below_4_gib = loam_gpa_from_u64(LOAM_DMA32_END_BYTES); /* the guest has 32 bits */
    struct loam_memory_request request = {.bytes = 64 * LOAM_MIB, .low_limit_bytes = 32 * LOAM_MIB};
    struct loam_dma_request code_request = {.owner = "guest code", .bytes = sizeof guest_code, .limit = below_4_gib};
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = ioctl(kvm, KVM_CREATE_VM, 0), status = EXIT_HOST;
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0), slot_limit = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
    size_t run_bytes = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct loam_slots_config slots_config = {loam_kvm_set_slot, &vm, (uint32_t)slot_limit, 0};
    struct loam_virtqueue_rings rings;
    struct loam_memory *memory = NULL;
    struct loam_slots *slots = NULL;
    struct loam_dma_buffer code;
    struct loam_diag diag = {0};
    struct loam_plan plan;
    bool is_shown;

    if (run == MAP_FAILED || slot_limit <= 0) {
        errx(EXIT_HOST, "/dev/kvm: %s", kvm < 0 ? "not there, or not ours" : "gives no machine");
    }
    request.slot_limit = (uint32_t)slot_limit;
    if (loam_plan_make(&request, &plan, &diag) != LOAM_OK || loam_memory_create(&plan, &memory, &diag) != LOAM_OK ||
        loam_dma_alloc(loam_memory_dma(memory), &code_request, &code, &diag) != LOAM_OK ||
        loam_dma_alloc_virtqueue(loam_memory_dma(memory), "guest rings", 256, below_4_gib, &rings, &diag) != LOAM_OK ||
        loam_slots_create(&slots_config, &slots, &diag) != LOAM_OK) {
        loam_memory_destroy(memory);
        errx(EXIT_HOST, "%s", diag.text);
    }
    memcpy(code.hva, guest_code, sizeof guest_code);
    is_shown = loam_memory_update_slots(memory, slots, &diag) == LOAM_OK;
    if (is_shown && ioctl(vm, KVM_SET_TSS_ADDR, TSS_ADDRESS) == 0 && set_registers(vcpu, code.gpa, rings.available) &&
        run_guest(vcpu, run)) {
        const uint16_t *available = rings.available_hva;

        printf("\n%u descriptor available in the ring at GPA %#" PRIx64 "\n", available[1], rings.available.value);
        status = available[1] == 1 ? 0 : 1;
    } else {
        warnx("the guest did not run to its end%s%s", is_shown ? "" : ": ", diag.text);
    }
    munmap(run, run_bytes);
    close(vcpu);
    close(vm); /* the slots go with it, and only then the memory */
    close(kvm);
    loam_slots_destroy(slots);
    loam_memory_destroy(memory);
    return status;
}
