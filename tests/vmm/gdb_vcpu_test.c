// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_vcpu.h"

#include "tests/vmm/ioctl_fake.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_BYTES 0x10000u
#define TABLES       0x4000u
#define HIGH         UINT64_C(0xffffffff80000000)

static struct kvm kvm;
static int vm_fd, fd = -1;
static uint8_t *memory;
static struct gdb_registers before, after, found;
static struct loam_diag diag;

static void set_up(void)
{
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_BYTES};

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    ioctl_fake_reset();
    memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    region.userspace_addr = (uintptr_t)memory;
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &region), 0);
    fd = kvm_ioctl_number(vm_fd, KVM_CREATE_VCPU, 0);
    cr_assert_geq(fd, 0);
}

static void tear_down(void)
{
    close(fd);
    close(vm_fd);
    kvm_close(&kvm);
    munmap(memory, MEMORY_BYTES);
}

TestSuite(gdb_vcpu, .init = set_up, .fini = tear_down, .timeout = 60);

/* --- Registers ---------------------------------------------------------------------------------------------------- */

static void read_before(void)
{
    cr_assert(gdb_vcpu_read(fd, &before));
    after = before;
}

Test(gdb_vcpu, what_is_written_is_read)
{
    static const uint8_t xmm[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

    read_before();
    after.regs.rax = 0x1122334455667788;
    after.regs.rip = 0x1000;
    after.sregs.cr2 = 0xdead000;
    after.sregs.fs.base = 0x7000;
    after.kernel_gs_base = HIGH;
    cr_expect(gdb_register_write(&after, 40, xmm));
    cr_expect(gdb_vcpu_write(fd, &before, &after));
    cr_expect(gdb_vcpu_read(fd, &found));
    cr_expect_eq(found.regs.rax, 0x1122334455667788);
    cr_expect_eq(found.regs.rip, 0x1000);
    cr_expect_eq(found.sregs.cr2, 0xdead000);
    cr_expect_eq(found.sregs.fs.base, 0x7000);
    cr_expect_eq(found.kernel_gs_base, HIGH);
    cr_expect_arr_eq(found.xsave + 160, xmm, sizeof xmm);
}

/* Each call forgets something of a vCPU: KVM_SET_REGS an exception that is on its way. */
Test(gdb_vcpu, what_is_as_it_was_is_not_written)
{
    read_before();
    ioctl_fake_reset();
    cr_expect(gdb_vcpu_write(fd, &before, &after));
    cr_expect_eq(ioctl_fake_count(), 0);
    after.regs.rbx = 1;
    cr_expect(gdb_vcpu_write(fd, &before, &after));
    cr_expect_eq(ioctl_fake_count(), 1);
}

Test(gdb_vcpu, what_kvm_refuses_is_told)
{
    for (uint32_t i = 0; i < 3; i++) {
        ioctl_fake_reset();
        ioctl_fake_fail(i, EINVAL);
        cr_expect_not(gdb_vcpu_read(fd, &before));
    }
    ioctl_fake_reset();
    read_before();
    after.regs.rax++;
    after.sregs.cr2++;
    after.kernel_gs_base++;
    after.xsave[160]++;
    for (uint32_t i = 0; i < 4; i++) {
        ioctl_fake_reset();
        ioctl_fake_fail(i, EINVAL);
        cr_expect_not(gdb_vcpu_write(fd, &before, &after), "call %u", i);
        cr_expect_neq(ioctl_fake_failed_request(), 0);
    }
}

/* --- Addresses ---------------------------------------------------------------------------------------------------- */

/* The first 2 MiB one to one, and once more at HIGH. */
static void turn_on_paging(void)
{
    uint64_t *tables = (uint64_t *)(void *)(memory + TABLES);

    tables[0] = tables[511] = (TABLES + 0x1000) | 3;
    tables[512] = tables[512 + 510] = (TABLES + 0x2000) | 3;
    tables[1024] = 0x83;
    read_before();
    after.sregs.cr3 = TABLES;
    after.sregs.cr4 = 0x20;
    after.sregs.efer = 0x500;
    after.sregs.cr0 = 0x80000031;
    after.sregs.cs.l = 1;
    after.sregs.cs.db = 0;
    cr_assert(gdb_vcpu_write(fd, &before, &after));
}

Test(gdb_vcpu, a_linear_address_is_found_by_the_page_tables)
{
    loam_gpa gpa;

    cr_expect(gdb_vcpu_translate(fd, 0x1234, &gpa), "without paging it is what it is");
    cr_expect_eq(gpa.value, 0x1234);
    turn_on_paging();
    cr_expect(gdb_vcpu_translate(fd, HIGH + 0x1234, &gpa));
    cr_expect_eq(gpa.value, 0x1234);
    cr_expect(gdb_vcpu_translate(fd, 0x1fffff, &gpa));
    cr_expect_eq(gpa.value, 0x1fffff);
    cr_expect_not(gdb_vcpu_translate(fd, 0x200000, &gpa));
    cr_expect_not(gdb_vcpu_translate(fd, UINT64_C(0x1122334455667788), &gpa));
}

/* --- Stops -------------------------------------------------------------------------------------------------------- */

static unsigned int count_descriptors(void)
{
    DIR *list = opendir("/proc/self/fd");
    unsigned int count = 0;

    while (readdir(list) != NULL) {
        count++;
    }
    closedir(list);
    return count;
}

/* Every KVM that was tried steps; what else there is, its user is told. */
Test(gdb_vcpu, what_the_host_has_is_found_out)
{
    struct gdb_abilities abilities;
    unsigned int before_count = count_descriptors();

    cr_assert_eq(gdb_vcpu_try(&abilities, &diag), LOAM_OK, "%s", diag.text);
    cr_expect(abilities.has_step);
    cr_expect_eq(count_descriptors(), before_count);
    fprintf(stderr, "software %d, execute %d, watch %d, quiet step %d\n", abilities.has_software, abilities.has_execute,
            abilities.has_watch, abilities.has_quiet_step);
}

/* Whatever KVM refuses on the way, there is an answer, and nothing is left behind. */
Test(gdb_vcpu, where_kvm_refuses_there_is_none)
{
    unsigned int before_count = count_descriptors();
    uint32_t calls;

    ioctl_fake_reset();
    cr_assert_eq(gdb_vcpu_try(&(struct gdb_abilities){0}, &diag), LOAM_OK);
    calls = ioctl_fake_count();
    for (uint32_t i = 0; i < calls; i++) {
        struct gdb_abilities abilities;

        ioctl_fake_reset();
        ioctl_fake_fail(i, EINVAL);
        if (gdb_vcpu_try(&abilities, &diag) == LOAM_OK && ioctl_fake_failed_request() == KVM_CREATE_VM) {
            cr_expect_not(abilities.has_step || abilities.has_software || abilities.has_execute);
        }
        cr_expect_eq(count_descriptors(), before_count, "call %u", i);
    }
    ioctl_fake_reset();
    ioctl_fake_answer(KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG, 0);
    {
        struct gdb_abilities abilities;

        cr_expect_eq(gdb_vcpu_try(&abilities, &diag), LOAM_OK);
        cr_expect_not(abilities.has_step || abilities.has_software || abilities.has_execute || abilities.has_watch);
    }
}

Test(gdb_vcpu, is_armed_and_disarmed)
{
    const struct gdb_abilities abilities = {.has_step = true};
    struct gdb_points points = {.count = 0};

    cr_expect(gdb_points_add(&points, &(struct gdb_point){.kind = GDB_POINT_EXECUTE, .address = 0x1000, .bytes = 1}));
    cr_expect(gdb_points_add(&points, &(struct gdb_point){.kind = GDB_POINT_SOFTWARE, .address = 0x1000}));
    cr_expect(gdb_vcpu_arm(fd, &points, true, &abilities));
    gdb_vcpu_disarm(fd);
    ioctl_fake_reset();
    ioctl_fake_fail(0, EINVAL);
    cr_expect_not(gdb_vcpu_arm(fd, &points, false, &abilities));
}
