// SPDX-License-Identifier: Apache-2.0
/*
 * The floor under every VMM: a guest of 128 MiB that prints one byte and stops, by bare ioctls and with nothing around
 * them. With the word "irqchip" it has KVM's interrupt controllers. It shares no code with Loam, and checks no more than that a
 * call succeeded.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUEST_BYTES (128ul << 20)
#define CODE_GPA    0x100000u

/* mov dx, 0x3f8; mov al, 'L'; out dx, al; xor eax, eax; out 0xf4, al; hlt */
static const uint8_t code[] = {0x66, 0xba, 0xf8, 0x03, 0xb0, 'L', 0xee, 0x31, 0xc0, 0xe6, 0xf4, 0xf4};

static int failed(const char *call)
{
    perror(call);
    return 1;
}

static struct kvm_segment flat(uint8_t type)
{
    return (struct kvm_segment){
        .limit = 0xffffffff, .selector = type == 11 ? 0x10 : 0x18, .type = type, .present = 1, .db = 1, .s = 1, .g = 1};
}

static int set_registers(int vcpu)
{
    struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2};
    struct kvm_sregs sregs;

    if (ioctl(vcpu, KVM_GET_SREGS, &sregs) != 0) {
        return -1;
    }
    sregs.cs = flat(11);
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = flat(3);
    sregs.cr0 |= 1;
    return ioctl(vcpu, KVM_SET_SREGS, &sregs) != 0 || ioctl(vcpu, KVM_SET_REGS, &regs) != 0 ? -1 : 0;
}

static int run(int vcpu, struct kvm_run *shared)
{
    while (ioctl(vcpu, KVM_RUN, 0) == 0 && shared->exit_reason == KVM_EXIT_IO) {
        const uint8_t *byte = (const uint8_t *)shared + shared->io.data_offset;

        if (shared->io.port == 0xf4) {
            return *byte;
        }
        if (write(STDOUT_FILENO, byte, 1) != 1) {
            return failed("write");
        }
    }
    return failed("KVM_RUN");
}

int main(int argc, char *argv[])
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = ioctl(kvm, KVM_CREATE_VM, 0);
    int huge = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT;
    uint8_t *memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, huge, -1, 0);
    struct kvm_userspace_memory_region slot = {.memory_size = GUEST_BYTES, .userspace_addr = (uintptr_t)memory};

    if (vm < 0 || memory == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) != 0) {
        return failed("memory");
    }
    if (argc > 1 && strcmp(argv[1], "irqchip") == 0 && ioctl(vm, KVM_CREATE_IRQCHIP, 0) != 0) {
        return failed("irqchip");
    }
    memcpy(memory + CODE_GPA, code, sizeof code);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0), bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *shared = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

    if (vcpu < 0 || shared == MAP_FAILED || set_registers(vcpu) != 0) {
        return failed("vcpu");
    }
    return run(vcpu, shared);
}
