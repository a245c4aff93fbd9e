// SPDX-License-Identifier: Apache-2.0
/*
 * What an exit costs, from one entry into the guest to the next: a write to a port where nobody answers. The reference is the
 * same without a trace.
 */
#include "tools/bench/bench.h"
#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/kvm.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#define EXITS       20000u
#define PAGE_BYTES  4096u
#define TSS_ADDRESS 0xfffbd000ul

/* In 32-bit protected mode, without paging, at address 0. */
static const uint8_t guest[] = {0xe6, 0x80, 0xeb, 0xfc}; /* 1: out %al, $0x80; jmp 1b */

struct world {
    struct kvm kvm;
    int vm_fd;
    void *memory;
    struct vcpu vcpu;
    struct bus bus;
    struct trace *trace; /* NULL: none */
};

static _Alignas(64) uint8_t map_memory[65536];

static void make_vm(struct world *world)
{
    struct kvm_userspace_memory_region region = {.memory_size = PAGE_BYTES};

    world->memory = bench_map(PAGE_BYTES, true);
    memcpy(world->memory, guest, sizeof guest);
    region.userspace_addr = (uintptr_t)world->memory;
    bench_expect(kvm_create_vm(&world->kvm, &world->vm_fd, NULL), "a VM");
    if (kvm_ioctl_number(world->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0 ||
        kvm_ioctl(world->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        bench_fail("a VM with a page of memory");
    }
}

static void make_vcpu(struct world *world)
{
    static struct vcpu_cpuid cpuid;
    const struct boot_state boot = {.protocol = BOOT_PVH};

    bench_expect(vcpu_cpuid_supported(&world->kvm, &cpuid, NULL), "what KVM supports");
    bench_expect(vcpu_create(&world->kvm, world->vm_fd, 0, &cpuid, &world->vcpu, NULL), "a vCPU");
    bench_expect(vcpu_boot(&world->vcpu, &boot, false, NULL), "its state");
}

static void unmake(struct world *world)
{
    vcpu_destroy(&world->vcpu);
    close(world->vm_fd);
    kvm_close(&world->kvm);
    trace_close(world->trace);
    bench_unmap(world->memory, PAGE_BYTES);
}

/* Nanoseconds that the vCPU's thread runs for each of EXITS exits. */
static double run(struct world *world, struct loam_gpa_map *map)
{
    uint64_t start;

    for (uint32_t i = 0; i < EXITS / 10; i++) {
        (void)vcpu_run(&world->vcpu, &world->bus, map);
    }
    start = bench_now();
    for (uint32_t i = 0; i < EXITS; i++) {
        if (vcpu_run(&world->vcpu, &world->bus, map) != VCPU_RAN) {
            bench_fail("an exit: the guest did not go on");
        }
    }
    return (double)(bench_now() - start) / EXITS;
}

static double round_of(const char *path)
{
    struct world world = {.trace = NULL};
    struct loam_gpa_map *map;
    struct loam_diag diag = {0};
    double figure;

    if (kvm_open(KVM_DEVICE, &world.kvm, &diag) != LOAM_OK) {
        bench_note("%s", diag.text);
        return NAN;
    }
    bench_expect(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), "a map");
    bus_init(&world.bus);
    make_vm(&world);
    make_vcpu(&world);
    if (path != NULL) {
        bench_expect(trace_open(path, 1, NULL, &world.trace, NULL), "a trace");
        vcpu_set_trace(&world.vcpu, trace_lane(world.trace, 0), -1);
    }
    figure = run(&world, map);
    unmake(&world);
    bus_destroy(&world.bus);
    return figure;
}

static double round_traced(const struct bench_case *bench)
{
    (void)bench;
    return round_of("/dev/null");
}

static double round_plain(const struct bench_case *bench)
{
    (void)bench;
    return round_of(NULL);
}

const struct bench_case exit_cases[] = {
    {.name = "vmm.exit.traced",
     .what = "an exit that is told to a trace, into /dev/null; beside one without a trace",
     .unit = "ns",
     .better = BENCH_LESS,
     .loam = round_traced,
     .reference = round_plain},
    {.name = NULL},
};
