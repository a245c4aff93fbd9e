// SPDX-License-Identifier: Apache-2.0
/* How a vCPU starts and what an exit does on the bus; whole guests are run by machine_test. */
#include "vmm/vcpu.h"

#include "tests/vmm/ioctl_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Accesses ------------------------------------------------------------------------------------------------- */

#define RUN_BYTES  12288u
#define LOG_MAX    4096u
#define PORT       0x1234u
#define MMIO_BASE  UINT64_C(0xd0001000)
#define MMIO_BYTES UINT64_C(0x1000)

static _Alignas(4096) uint8_t run_memory[RUN_BYTES];
static struct kvm_run *const run = (struct kvm_run *)run_memory;
static struct bus bus;
static struct lost_memory lost;
static _Alignas(64) uint8_t map_memory[65536];
static struct loam_gpa_map *map;

/* RAM, memory that is read only, a device: the host memory behind them is never touched. */
#define RAM       UINT64_C(0x100000)
#define READ_ONLY UINT64_C(0x110000)
#define DEVICE    UINT64_C(0x120000)
#define EACH      UINT64_C(0x10000)
static struct bus_access log_entries[LOG_MAX];
static uint32_t log_count;

static void log_access(void *device, struct bus_access *access)
{
    (void)device;
    cr_assert_lt(log_count, LOG_MAX);
    log_entries[log_count++] = *access;
    if (!access->is_write) {
        access->value = UINT64_C(0x8877665544332211) + log_count - 1;
    }
}

static void set_up(void)
{
    const struct bus_device devices[] = {
        {.name = "port", .space = BUS_PIO, .base = PORT, .bytes = 4, .access = log_access},
        {.name = "mmio", .space = BUS_MMIO, .base = MMIO_BASE, .bytes = MMIO_BYTES, .access = log_access},
    };

    const struct loam_region regions[] = {
        {.start = {RAM}, .bytes = EACH, .hva = (void *)EACH, .access = LOAM_ACCESS_WRITE},
        {.start = {READ_ONLY}, .bytes = EACH, .hva = (void *)(4 * EACH), .access = LOAM_ACCESS_READ},
        {.start = {DEVICE}, .bytes = EACH, .type = LOAM_REGION_DEVICE},
    };

    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    for (size_t i = 0; i < sizeof regions / sizeof regions[0]; i++) {
        cr_assert_eq(loam_gpa_map_insert(map, &regions[i]), LOAM_OK);
    }
    bus_init(&bus);
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(bus_add(&bus, &devices[i]), LOAM_OK);
    }
}

static void tear_down(void)
{
    bus_destroy(&bus);
}

TestSuite(vcpu, .init = set_up, .fini = tear_down);

static void set_io(uint8_t direction, uint8_t size, uint32_t count, uint64_t data_offset)
{
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = direction;
    run->io.size = size;
    run->io.port = PORT;
    run->io.count = count;
    run->io.data_offset = data_offset;
}

static enum vcpu_event dispatch(void)
{
    log_count = 0;
    return vcpu_dispatch(run, RUN_BYTES, &bus, map, &lost);
}

Test(vcpu, hands_on_what_out_writes)
{
    for (uint8_t size = 1; size <= 4; size = (uint8_t)(size * 2)) {
        uint64_t mask = (UINT64_C(1) << (8 * size)) - 1;

        memcpy(run_memory + 4096, "\x11\x22\x33\x44", 4);
        set_io(KVM_EXIT_IO_OUT, size, 1, 4096);
        cr_assert_eq(dispatch(), VCPU_RAN);
        cr_assert_eq(log_count, 1);
        cr_assert(log_entries[0].is_write);
        cr_assert_eq(log_entries[0].bytes, size);
        cr_assert_eq(log_entries[0].value, 0x44332211 & mask);
    }
}

Test(vcpu, answers_in)
{
    memset(run_memory + 4096, 0xee, 16);
    set_io(KVM_EXIT_IO_IN, 4, 1, 4096);
    cr_assert_eq(dispatch(), VCPU_RAN);
    cr_assert_eq(memcmp(run_memory + 4096, "\x11\x22\x33\x44\xee", 5), 0);
}

Test(vcpu, carries_out_string_accesses_in_order)
{
    for (uint32_t i = 0; i < 1000; i++) {
        uint16_t word = (uint16_t)(i * 7);

        memcpy(run_memory + 4096 + 2 * i, &word, 2);
    }
    set_io(KVM_EXIT_IO_OUT, 2, 1000, 4096);
    cr_assert_eq(dispatch(), VCPU_RAN);
    cr_assert_eq(log_count, 1000);
    for (uint32_t i = 0; i < 1000; i++) {
        cr_assert_eq(log_entries[i].value, (uint16_t)(i * 7));
    }
    set_io(KVM_EXIT_IO_IN, 4, 3, 4096);
    cr_assert_eq(dispatch(), VCPU_RAN);
    cr_assert_eq(memcmp(run_memory + 4096, "\x11\x22\x33\x44\x12\x22\x33\x44\x13\x22\x33\x44", 12), 0);
}

Test(vcpu, takes_data_up_to_the_end_of_the_run_state_and_no_further)
{
    set_io(KVM_EXIT_IO_OUT, 4, 2, RUN_BYTES - 8);
    cr_assert_eq(dispatch(), VCPU_RAN);
    cr_assert_eq(log_count, 2);
    set_io(KVM_EXIT_IO_OUT, 4, 2, RUN_BYTES - 7);
    cr_assert_eq(dispatch(), VCPU_BROKEN);
    set_io(KVM_EXIT_IO_OUT, 4, 3, RUN_BYTES - 8);
    cr_assert_eq(dispatch(), VCPU_BROKEN);
    set_io(KVM_EXIT_IO_OUT, 4, UINT32_MAX, 4096);
    cr_assert_eq(dispatch(), VCPU_BROKEN);
    set_io(KVM_EXIT_IO_OUT, 4, (UINT32_C(1) << 30) + 1, 4096);
    cr_assert_eq(dispatch(), VCPU_BROKEN, "in 32 bits that would be 4 bytes");
    set_io(KVM_EXIT_IO_OUT, 4, 1, UINT64_MAX - 1);
    cr_assert_eq(dispatch(), VCPU_BROKEN);
    cr_assert_eq(log_count, 0, "a refused access reaches no device");
}

Test(vcpu, refuses_sizes_that_no_port_has)
{
    const uint8_t sizes[] = {0, 3, 5, 8, 255};

    for (size_t i = 0; i < sizeof sizes; i++) {
        set_io(KVM_EXIT_IO_OUT, sizes[i], 1, 4096);
        cr_assert_eq(dispatch(), VCPU_BROKEN);
    }
}

static void set_mmio(uint64_t address, uint32_t bytes, bool is_write)
{
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = address;
    run->mmio.len = bytes;
    run->mmio.is_write = is_write;
}

/* Whoever the map says may read or write there must not be answered like one who touches a hole. */
Test(vcpu, answers_no_access_to_ram_like_one_to_a_device)
{
    static const struct {
        uint64_t address;
        uint32_t bytes;
        bool is_write;
        uint64_t lost; /* 0: a device access */
    } cases[] = {
        {RAM, 4, true, RAM},
        {RAM, 4, false, RAM},
        {RAM + 0x7ff, 1, true, RAM + 0x7ff},
        {RAM - 1, 1, true, 0},
        {RAM - 1, 2, true, RAM},
        {RAM - 7, 8, false, RAM},
        {RAM - 8, 8, false, 0},
        {READ_ONLY - 1, 1, true, READ_ONLY - 1},
        {READ_ONLY - 1, 2, true, READ_ONLY - 1},
        {READ_ONLY, 4, true, 0},
        {READ_ONLY, 4, false, READ_ONLY},
        {DEVICE - 1, 8, true, 0},
        {DEVICE - 1, 8, false, DEVICE - 1},
        {DEVICE, 8, true, 0},
        {DEVICE, 8, false, 0},
        {DEVICE + EACH, 8, true, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum vcpu_event wanted = cases[i].lost != 0 ? VCPU_LOST_MEMORY : VCPU_RAN;

        set_mmio(cases[i].address, cases[i].bytes, cases[i].is_write);
        cr_expect_eq(dispatch(), wanted, "case %zu", i);
        cr_expect_eq(lost.is_known, cases[i].lost != 0, "case %zu", i);
        if (cases[i].lost != 0) {
            cr_expect_eq(lost.gpa.value, cases[i].lost, "case %zu: 0x%" PRIx64, i, lost.gpa.value);
            cr_expect_eq(strncmp(lost.how, cases[i].is_write ? "a write of" : "a read of", 9), 0, "%s", lost.how);
        }
    }
}

/* --- KVM_RUN's errors ----------------------------------------------------------------------------------------- */

static enum vcpu_event fail_run(struct vcpu *vcpu, int error)
{
    ioctl_fake_reset();
    ioctl_fake_fail_runs(1, error);
    return vcpu_run(vcpu, &bus, map);
}

/* KVM says which memory only if it says that it does. */
Test(vcpu, takes_the_address_from_a_memory_fault)
{
    const struct kvm_memory_fault fault = {.flags = KVM_MEMORY_FAULT_PRIVATE, .gpa = RAM + 5, .size = 4096};
    struct vcpu vcpu = {.fd = -1, .run = run, .run_bytes = RUN_BYTES};

    run->exit_reason = KVM_EXIT_MEMORY_FAULT;
    memcpy(run->padding, &fault, sizeof fault);
    cr_assert_eq(fail_run(&vcpu, EFAULT), VCPU_LOST_MEMORY);
    cr_assert_not(vcpu.lost.is_known);
    vcpu.has_memory_fault = true;
    cr_assert_eq(fail_run(&vcpu, EFAULT), VCPU_LOST_MEMORY);
    cr_assert(vcpu.lost.is_known);
    cr_assert_eq(vcpu.lost.gpa.value, RAM + 5);
    cr_assert_str_eq(vcpu.lost.how, "KVM_EXIT_MEMORY_FAULT, as private memory");
    cr_assert_eq(fail_run(&vcpu, EHWPOISON), VCPU_LOST_MEMORY);
    cr_assert(vcpu.lost.is_known);
    run->exit_reason = KVM_EXIT_MMIO;
    cr_assert_eq(fail_run(&vcpu, EFAULT), VCPU_LOST_MEMORY);
    cr_assert_not(vcpu.lost.is_known, "what an exit before it has left says nothing");
}

Test(vcpu, knows_what_other_errors_mean)
{
    struct vcpu vcpu = {.fd = -1, .run = run, .run_bytes = RUN_BYTES};

    cr_assert_eq(fail_run(&vcpu, EINTR), VCPU_INTERRUPTED);
    cr_assert_eq(fail_run(&vcpu, ENOMEM), VCPU_BROKEN);
    cr_assert_eq(fail_run(&vcpu, EINVAL), VCPU_BROKEN);
}

/* One that waits for INIT and SIPI is woken with EAGAIN, as often as whoever wakes it likes. */
Test(vcpu, may_be_woken_without_end_while_it_waits_to_be_started)
{
    struct loam_diag diag = {0};
    struct vcpu vcpus[2];
    struct vcpu_cpuid cpuid;
    struct kvm kvm;
    int vm_fd;

    ioctl_fake_reset();
    if (kvm_open(KVM_DEVICE, &kvm, &diag) != LOAM_OK || kvm.vcpu_limit < 2) {
        cr_skip("no KVM with two vCPUs: %s", diag.text);
    }
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_ioctl_number(vm_fd, KVM_CREATE_IRQCHIP, 0), 0);
    cr_assert_eq(vcpu_cpuid_supported(&kvm, &cpuid, &diag), LOAM_OK, "%s", diag.text);
    for (uint32_t i = 0; i < 2; i++) {
        cr_assert_eq(vcpu_create(&kvm, vm_fd, i, &cpuid, &vcpus[i], &diag), LOAM_OK, "%s", diag.text);
    }
    for (uint32_t i = 0; i < 3 * VCPU_STALL_MAX; i++) {
        cr_assert_eq(fail_run(&vcpus[1], EAGAIN), VCPU_RAN, "round %" PRIu32, i);
    }
    for (uint32_t i = 0; i < VCPU_STALL_MAX; i++) {
        cr_assert_eq(fail_run(&vcpus[0], EAGAIN), VCPU_RAN, "round %" PRIu32, i);
    }
    cr_assert_eq(fail_run(&vcpus[0], EAGAIN), VCPU_BROKEN, "the first may run, and cannot");
    for (uint32_t i = 0; i < 2; i++) {
        vcpu_destroy(&vcpus[i]);
    }
    close(vm_fd);
    kvm_close(&kvm);
}

/* --- Accesses to device memory -------------------------------------------------------------------------------- */

/* An odd number of bytes arrives in parts that are powers of two, ascending, and none is lost or touched twice. */
Test(vcpu, cuts_writes_to_device_memory_into_powers_of_two)
{
    const uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    for (uint32_t length = 1; length <= 8; length++) {
        uint64_t next = 0x10;

        memcpy(run->mmio.data, bytes, 8);
        set_mmio(MMIO_BASE + 0x10, length, true);
        cr_assert_eq(dispatch(), VCPU_RAN);
        for (uint32_t i = 0; i < log_count; i++) {
            cr_assert_eq(log_entries[i].offset, next);
            cr_assert_eq(log_entries[i].value & 0xff, bytes[next - 0x10]);
            next += log_entries[i].bytes;
        }
        cr_assert_eq(next, 0x10 + length);
        cr_assert_eq(log_count, (uint32_t)__builtin_popcount(length));
    }
}

Test(vcpu, answers_reads_of_device_memory_of_any_length)
{
    for (uint32_t length = 1; length <= 8; length++) {
        memset(run->mmio.data, 0xee, 8);
        set_mmio(MMIO_BASE, length, false);
        cr_assert_eq(dispatch(), VCPU_RAN);
        cr_assert_eq(run->mmio.data[0], 0x11);
        cr_assert_neq(run->mmio.data[length - 1], 0xee);
        cr_assert(length == 8 || run->mmio.data[length] == 0xee);
    }
}

Test(vcpu, answers_with_ones_where_no_device_is)
{
    memset(run->mmio.data, 0, 8);
    set_mmio(UINT64_C(0x123456789), 7, false);
    cr_assert_eq(dispatch(), VCPU_RAN);
    cr_assert_eq(memcmp(run->mmio.data, "\xff\xff\xff\xff\xff\xff\xff\0", 8), 0);
    cr_assert_eq(log_count, 0);
}

Test(vcpu, refuses_lengths_that_no_access_has)
{
    const uint32_t lengths[] = {0, 9, 255, UINT32_MAX};

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        set_mmio(MMIO_BASE, lengths[i], true);
        cr_assert_eq(dispatch(), VCPU_BROKEN);
    }
    set_mmio(UINT64_MAX - 3, 8, true);
    cr_assert_eq(dispatch(), VCPU_BROKEN);
}

Test(vcpu, knows_what_each_exit_asks_for)
{
    const struct {
        uint32_t reason;
        enum vcpu_event event;
    } cases[] = {{KVM_EXIT_INTR, VCPU_RAN},          {KVM_EXIT_IRQ_WINDOW_OPEN, VCPU_RAN},
                 {KVM_EXIT_NMI, VCPU_RAN},           {KVM_EXIT_SHUTDOWN, VCPU_SHUTDOWN},
                 {KVM_EXIT_FAIL_ENTRY, VCPU_BROKEN}, {KVM_EXIT_INTERNAL_ERROR, VCPU_BROKEN},
                 {KVM_EXIT_UNKNOWN, VCPU_BROKEN},    {KVM_EXIT_HLT, VCPU_HALTED},
                 {KVM_EXIT_DEBUG, VCPU_DEBUG},       {KVM_EXIT_MEMORY_FAULT, VCPU_BROKEN},
                 {UINT32_MAX, VCPU_BROKEN}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run->exit_reason = cases[i].reason;
        cr_assert_eq(dispatch(), cases[i].event, "exit %" PRIu32, cases[i].reason);
    }
    run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
    run->system_event.type = KVM_SYSTEM_EVENT_RESET;
    cr_assert_eq(dispatch(), VCPU_RESET);
    run->system_event.type = KVM_SYSTEM_EVENT_SHUTDOWN;
    cr_assert_eq(dispatch(), VCPU_SHUTDOWN);
    run->system_event.type = KVM_SYSTEM_EVENT_CRASH;
    cr_assert_eq(dispatch(), VCPU_BROKEN);
}

/* --- The first state, by VT-x's rules ---------------------------------------------------------------------------- */

#define CR0_MUST (UINT64_C(1) << 4)

static void check_usable(const struct kvm_segment *segment)
{
    cr_assert_eq(segment->unusable, 0);
    cr_assert_eq(segment->present, 1);
    /* Any of limit bits 0 to 11 clear: g clear; any of 20 to 31 set: g set. */
    cr_assert(segment->g == 0 || (segment->limit & 0xfff) == 0xfff);
    cr_assert(segment->g == 1 || (segment->limit & 0xfff00000) == 0);
}

/* Intel SDM volume 3C, section 27.3.1.2 (checks on guest segment registers), for a guest not in virtual-8086 mode. */
static void check_segments(const struct kvm_sregs *sregs, bool is_long)
{
    const struct kvm_segment *data[] = {&sregs->ss, &sregs->ds, &sregs->es, &sregs->fs, &sregs->gs};

    check_usable(&sregs->cs);
    cr_assert_eq(sregs->cs.s, 1);
    cr_assert(sregs->cs.type == 9 || sregs->cs.type == 11);
    cr_assert_eq(sregs->cs.dpl, sregs->ss.dpl);
    cr_assert_eq(sregs->cs.selector & 3, sregs->ss.selector & 3);
    cr_assert_eq(sregs->cs.base >> 32, 0);
    cr_assert_eq(sregs->cs.l, is_long);
    cr_assert_not(sregs->cs.l && sregs->cs.db, "64-bit code has a default size of its own");
    for (size_t i = 0; i < 5; i++) {
        check_usable(data[i]);
        cr_assert_eq(data[i]->s, 1);
        cr_assert_eq(data[i]->type & 1, 1, "accessed");
        cr_assert(data[i] != &sregs->ss || data[i]->type == 3 || data[i]->type == 7);
        cr_assert_geq(data[i]->dpl, data[i]->selector & 3u);
    }
    check_usable(&sregs->tr);
    cr_assert_eq(sregs->tr.s, 0);
    cr_assert(sregs->tr.type == 11 || (!is_long && sregs->tr.type == 3), "busy");
    cr_assert_eq(sregs->tr.selector & 4, 0, "from the GDT");
    cr_assert_eq(sregs->ldt.unusable, 1);
}

/* Section 27.3.1.1, control registers and EFER; bits fixed to 1 that KVM does not care for itself. */
static void check_control(const struct kvm_sregs *sregs, bool is_long)
{
    bool has_paging = (sregs->cr0 >> 31 & 1) != 0, has_protection = (sregs->cr0 & 1) != 0;
    bool is_lma = (sregs->efer >> 10 & 1) != 0, is_lme = (sregs->efer >> 8 & 1) != 0;

    cr_assert(has_protection || !has_paging);
    cr_assert_eq(sregs->cr0 & CR0_MUST, CR0_MUST);
    cr_assert_eq(is_lma, is_long);
    cr_assert_eq(is_lma, is_lme && has_paging);
    cr_assert(!is_long || (sregs->cr4 >> 5 & 1) != 0, "IA-32e mode wants PAE");
    cr_assert_eq(sregs->cr3 & 0xfff, 0);
    cr_assert_eq(sregs->cr3 >> 52, 0);
}

static const struct boot_state pvh = {.protocol = BOOT_PVH, .entry = 0x100000, .parameters = {0x9000}};
static const struct boot_state linux_state = {.protocol = BOOT_LINUX,
                                              .entry = 0x200000,
                                              .parameters = {0x9000},
                                              .page_tables = {0xa000},
                                              .descriptors = {0xb000},
                                              .descriptor_count = 6};

Test(vcpu, starts_a_pvh_guest_as_its_protocol_says)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs = {.apic_base = 0xfee00900};

    vcpu_boot_regs(&pvh, &regs);
    cr_assert_eq(regs.rip, 0x100000);
    cr_assert_eq(regs.rbx, 0x9000);
    cr_assert_eq(regs.rflags, 2);
    vcpu_boot_sregs(&pvh, &sregs);
    check_segments(&sregs, false);
    check_control(&sregs, false);
    cr_assert_eq(sregs.cr0 & ~UINT64_C(0x10), 1, "protection, and nothing else but what is fixed");
    cr_assert_eq(sregs.cr4, 0);
    cr_assert_eq(sregs.efer, 0);
    cr_assert_eq(sregs.cs.base, 0);
    cr_assert_eq(sregs.cs.limit, UINT32_MAX);
    cr_assert_eq(sregs.cs.db, 1);
    cr_assert_eq(sregs.ss.limit, UINT32_MAX);
    cr_assert_eq(sregs.tr.limit, 0x67);
    cr_assert_eq(sregs.apic_base, 0xfee00900, "KVM's own");
}

Test(vcpu, starts_linux_as_its_64_bit_protocol_says)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs = {.apic_base = 0xfee00900};

    vcpu_boot_regs(&linux_state, &regs);
    cr_assert_eq(regs.rip, 0x200000);
    cr_assert_eq(regs.rsi, 0x9000);
    cr_assert_eq(regs.rflags & 0x200, 0, "interrupts are off");
    vcpu_boot_sregs(&linux_state, &sregs);
    check_segments(&sregs, true);
    check_control(&sregs, true);
    cr_assert_eq(sregs.cr3, 0xa000);
    cr_assert_eq(sregs.cs.selector, 0x10);
    cr_assert_eq(sregs.ds.selector, 0x18);
    cr_assert_eq(sregs.es.selector, 0x18);
    cr_assert_eq(sregs.ss.selector, 0x18);
    cr_assert_eq(sregs.gdt.base, 0xb000);
    cr_assert_eq(sregs.gdt.limit, 47);
}

/* --- CPUID ---------------------------------------------------------------------------------------------------- */

static struct vcpu_cpuid cpuid;

static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
    const struct kvm_cpuid_entry2 *found = NULL;

    for (uint32_t i = 0; i < cpuid.count; i++) {
        if (cpuid.entries[i].function == function && cpuid.entries[i].index == index) {
            cr_assert_null(found, "leaf 0x%" PRIx32 " is there twice", function);
            found = &cpuid.entries[i];
        }
    }
    return found;
}

static void fill_cpuid(void)
{
    cpuid = (struct vcpu_cpuid){
        .count = 7,
        .entries =
            {
                {.function = 0, .eax = 0x1f},
                {.function = 1, .ebx = 0xff100800, .edx = 1},
                {.function = 4, .index = 2, .eax = 0xfc00c143},
                {.function = 0xb, .index = 0, .eax = 9, .edx = 77},
                {.function = 0x1f, .index = 0, .ebx = 9},
                {.function = 0x80000008, .ecx = 0x700f},
                {.function = 0x8000001e, .eax = 9, .ebx = 9, .ecx = 9},
            },
    };
}

Test(vcpu, tells_each_vcpu_its_own_id)
{
    fill_cpuid();
    for (uint32_t index = 0; index < 6; index++) {
        vcpu_cpuid_adapt(&cpuid, index, 6, index % 2 == 1);
        cr_assert_eq(leaf(1, 0)->ebx, index << 24 | 6 << 16 | 0x0800);
        cr_assert_eq(leaf(1, 0)->ecx >> 31, 1, "hypervisor");
        cr_assert_eq(leaf(1, 0)->edx, 1u | 1u << 28);
        cr_assert_eq(leaf(0xb, 0)->edx, index);
        cr_assert_eq(leaf(0xb, 1)->edx, index);
        cr_assert_eq(leaf(0x8000001e, 0)->eax, index);
    }
    cr_assert_eq(leaf(1, 0)->ecx >> 24 & 1, 1, "the deadline timer, once there is one");
}

Test(vcpu, shows_one_socket_of_cores)
{
    fill_cpuid();
    vcpu_cpuid_adapt(&cpuid, 0, 6, false);
    cr_assert_eq(leaf(0xb, 0)->ebx, 1);
    cr_assert_eq(leaf(0xb, 0)->ecx, 1 << 8);
    cr_assert_eq(leaf(0xb, 1)->eax, 3);
    cr_assert_eq(leaf(0xb, 1)->ebx, 6);
    cr_assert_eq(leaf(0xb, 1)->ecx, 2 << 8 | 1);
    cr_assert_eq(leaf(0xb, 2)->ebx, 0);
    cr_assert_null(leaf(0x1f, 0), "the host's dies are not the guest's");
    cr_assert_eq(leaf(4, 2)->eax, 7u << 26 | 0x143, "level 2 is each core's own");
    cr_assert_eq(leaf(0x80000008, 0)->ecx, 0x3005);
    vcpu_cpuid_adapt(&cpuid, 0, 1, false);
    cr_assert_eq(leaf(1, 0)->edx, 1, "one vCPU has no siblings");
    cr_assert_eq(leaf(1, 0)->ecx >> 24 & 1, 0);
}

Test(vcpu, keeps_to_the_room_for_leaves)
{
    cpuid.count = VCPU_CPUID_MAX;
    for (uint32_t i = 0; i < VCPU_CPUID_MAX; i++) {
        cpuid.entries[i] = (struct kvm_cpuid_entry2){.function = i == 9 ? 0xb : 0x40000000 + i};
    }
    vcpu_cpuid_adapt(&cpuid, 0, 2, false);
    cr_assert_eq(cpuid.count, VCPU_CPUID_MAX);
    cr_assert_not_null(leaf(0xb, 0));
}

/* --- With KVM ------------------------------------------------------------------------------------------------- */

static struct kvm kvm;
static struct vcpu vcpus[2];
static int vm_fd;

static void make_vcpus(void)
{
    struct loam_diag diag = {0};

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_ioctl_number(vm_fd, KVM_CREATE_IRQCHIP, 0), 0);
    cr_assert_eq(vcpu_cpuid_supported(&kvm, &cpuid, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_not_null(leaf(1, 0));
    for (uint32_t i = 0; i < 2 && i < kvm.vcpu_limit; i++) {
        vcpu_cpuid_adapt(&cpuid, i, 2, kvm.has_deadline_timer);
        cr_assert_eq(vcpu_create(&kvm, vm_fd, i, &cpuid, &vcpus[i], &diag), LOAM_OK, "%s", diag.text);
    }
}

static void drop_vcpus(void)
{
    for (uint32_t i = 0; i < 2 && i < kvm.vcpu_limit; i++) {
        vcpu_destroy(&vcpus[i]);
        cr_assert_eq(vcpus[i].fd, -1);
        cr_assert_null(vcpus[i].run);
        vcpu_destroy(&vcpus[i]);
    }
    close(vm_fd);
    kvm_close(&kvm);
}

static void check_boot(const struct boot_state *boot)
{
    struct loam_diag diag = {0};
    struct kvm_sregs wanted, found;
    struct kvm_regs regs;

    cr_assert_eq(vcpu_boot(&vcpus[0], boot, true, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_ioctl(vcpus[0].fd, KVM_GET_SREGS, &found), 0);
    wanted = found;
    vcpu_boot_sregs(boot, &wanted);
    cr_assert_eq(found.cr0, wanted.cr0);
    cr_assert_eq(found.cr3, wanted.cr3);
    cr_assert_eq(found.cr4, wanted.cr4);
    cr_assert_eq(found.efer, wanted.efer);
    check_segments(&found, boot->protocol == BOOT_LINUX);
    cr_assert_eq(kvm_ioctl(vcpus[0].fd, KVM_GET_REGS, &regs), 0);
    cr_assert_eq(regs.rip, boot->entry);
}

Test(vcpu, boots_as_kvm_reads_it_back)
{
    make_vcpus();
    check_boot(&pvh);
    check_boot(&linux_state);
    drop_vcpus();
}

Test(vcpu, wires_the_apic_and_sets_the_floating_point_unit)
{
    struct loam_diag diag = {0};
    struct kvm_lapic_state apic;
    struct kvm_fpu fpu;
    uint32_t lint0, lint1;

    make_vcpus();
    cr_assert_eq(vcpu_boot(&vcpus[0], &pvh, true, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_ioctl(vcpus[0].fd, KVM_GET_LAPIC, &apic), 0);
    memcpy(&lint0, apic.regs + 0x350, 4);
    memcpy(&lint1, apic.regs + 0x360, 4);
    cr_assert_eq(lint0 & 0x10700, 0x700, "ExtINT, not masked");
    cr_assert_eq(lint1 & 0x10700, 0x400, "NMI, not masked");
    cr_assert_eq(kvm_ioctl(vcpus[0].fd, KVM_GET_FPU, &fpu), 0);
    cr_assert_eq(fpu.fcw, 0x37f);
    drop_vcpus();
}

Test(vcpu, lets_the_first_run_and_the_others_wait)
{
    struct kvm_mp_state state;

    make_vcpus();
    cr_assert_eq(kvm_ioctl(vcpus[0].fd, KVM_GET_MP_STATE, &state), 0);
    cr_assert_eq(state.mp_state, KVM_MP_STATE_RUNNABLE);
    if (kvm.vcpu_limit >= 2) {
        cr_assert_eq(kvm_ioctl(vcpus[1].fd, KVM_GET_MP_STATE, &state), 0);
        cr_assert_eq(state.mp_state, KVM_MP_STATE_UNINITIALIZED);
    }
    drop_vcpus();
}

Test(vcpu, does_not_enter_once_an_exit_is_requested)
{
    make_vcpus();
    for (uint32_t i = 0; i < 2 && i < kvm.vcpu_limit; i++) {
        vcpu_request_exit(&vcpus[i]);
        cr_assert_eq(vcpu_run(&vcpus[i], &bus, NULL), VCPU_INTERRUPTED);
        cr_assert_eq(vcpu_run(&vcpus[i], &bus, NULL), VCPU_INTERRUPTED, "the request stands");
        cr_assert_eq(vcpus[i].exit_count, 0);
        vcpu_withdraw_exit(&vcpus[i]);
        cr_assert_eq(vcpus[i].run->immediate_exit, 0);
    }
    drop_vcpus();
}

Test(vcpu, leaves_nothing_of_a_vcpu_that_kvm_refuses)
{
    struct loam_diag diag = {0};
    struct vcpu again;

    make_vcpus();
    cr_assert_eq(vcpu_create(&kvm, vm_fd, 0, &cpuid, &again, &diag), LOAM_ERROR_SYSTEM, "it is there already");
    cr_assert_not_null(strstr(diag.text, "vCPU 0: KVM_CREATE_VCPU: "), "%s", diag.text);
    cr_assert_eq(again.fd, -1);
    cr_assert_null(again.run);
    drop_vcpus();
}
