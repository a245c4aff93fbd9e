// SPDX-License-Identifier: Apache-2.0
#include "vmm/kvm.h"

#include "loam/gpa_map.h"
#include "loam/kvm.h"
#include "loam/memory.h"
#include "loam/slots.h"
#include "tests/vmm/ioctl_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEED_KVM()                                                                                                     \
    do {                                                                                                               \
        if (access(KVM_DEVICE, R_OK | W_OK) != 0) {                                                                    \
            cr_skip("no access to " KVM_DEVICE);                                                                       \
        }                                                                                                              \
    } while (0)

/* The lowest free descriptor: the same before and after what leaves none behind. */
static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    close(fd);
    return fd;
}

TestSuite(kvm, .init = ioctl_fake_reset);

Test(kvm, opens_and_answers_figures)
{
    struct loam_diag diag = {0};
    struct kvm kvm;

    NEED_KVM();
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_geq(kvm.slot_limit, 32);
    cr_assert_geq(kvm.vcpu_limit, 1);
    cr_assert_geq(kvm.run_bytes, sizeof(struct kvm_run));
    cr_assert_eq(fcntl(kvm.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    cr_assert_eq(fcntl(kvm.fd, F_GETFL) & O_ACCMODE, O_RDWR);
    kvm_close(&kvm);
    cr_assert_eq(kvm.fd, -1);
    kvm_close(&kvm);
}

Test(kvm, makes_a_vm)
{
    struct loam_diag diag = {0};
    struct kvm kvm;
    int vm_fd, before = next_fd();

    NEED_KVM();
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(fcntl(vm_fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(vm_fd);
    kvm_close(&kvm);
    cr_assert_eq(next_fd(), before);
}

/* A signal's arrival is no failure, and an errno left over from before is none either. */
Test(kvm, asks_again_after_a_signal)
{
    NEED_KVM();
    for (int as_number = 0; as_number < 2; as_number++) {
        int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);

        for (int interrupted = 0; interrupted < 2; interrupted++) {
            ioctl_fake_reset();
            ioctl_fake_fail(interrupted ? 0 : UINT32_MAX, EINTR);
            errno = EINTR;
            cr_assert_eq(as_number ? kvm_ioctl_number(fd, KVM_GET_API_VERSION, 0)
                                   : kvm_ioctl(fd, KVM_GET_API_VERSION, NULL),
                         12);
            cr_assert_eq(ioctl_fake_count(), (interrupted ? 2u : 1u));
        }
        ioctl_fake_reset();
        ioctl_fake_fail(0, EIO);
        cr_assert_eq(
            as_number ? kvm_ioctl_number(fd, KVM_GET_API_VERSION, 0) : kvm_ioctl(fd, KVM_GET_API_VERSION, NULL), -1);
        cr_assert_eq(errno, EIO);
        cr_assert_eq(ioctl_fake_count(), 1);
        ioctl_fake_reset();
        ioctl_fake_answer(KVM_GET_API_VERSION, 0, 0);
        errno = EINTR;
        cr_assert_eq(
            as_number ? kvm_ioctl_number(fd, KVM_GET_API_VERSION, 0) : kvm_ioctl(fd, KVM_GET_API_VERSION, NULL), 0);
        close(fd);
    }
}

/* Whoever starts the program without a standard input gets it for KVM's descriptor, or a VM's. */
Test(kvm, descriptor_0_is_one_like_any_other)
{
    struct kvm first, second;
    int vm_fd;

    NEED_KVM();
    close(STDIN_FILENO);
    cr_assert_eq(kvm_open(KVM_DEVICE, &first, NULL), LOAM_OK);
    cr_assert_eq(first.fd, STDIN_FILENO);
    cr_assert_eq(kvm_open(KVM_DEVICE, &second, NULL), LOAM_OK);
    kvm_close(&first);
    cr_assert_eq(fcntl(STDIN_FILENO, F_GETFD), -1, "it was not closed");
    cr_assert_eq(kvm_create_vm(&second, &vm_fd, NULL), LOAM_OK);
    cr_assert_eq(vm_fd, STDIN_FILENO);
    close(vm_fd);
    kvm_close(&second);
}

Test(kvm, says_when_a_vm_is_refused)
{
    const struct {
        int system_errno;
        enum loam_error error;
    } cases[] = {{EPERM, LOAM_ERROR_NOT_PERMITTED},
                 {EACCES, LOAM_ERROR_NOT_PERMITTED},
                 {ENOMEM, LOAM_ERROR_SYSTEM},
                 {EBUSY, LOAM_ERROR_SYSTEM}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_diag diag = {0};
        struct kvm kvm = {.fd = -1};
        int vm_fd = 7;

        ioctl_fake_reset();
        ioctl_fake_fail(0, cases[i].system_errno);
        cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, &diag), cases[i].error);
        cr_assert_eq(vm_fd, -1);
        cr_assert_not_null(strstr(diag.text, "KVM_CREATE_VM"));
    }
}

Test(kvm, names_what_mends_a_missing_device)
{
    struct loam_diag diag = {0};
    struct kvm kvm;

    cr_assert_eq(kvm_open("/dev/no-such-kvm", &kvm, &diag), LOAM_ERROR_NOT_FOUND);
    cr_assert_str_eq(diag.text, "/dev/no-such-kvm: not found: load kvm_intel or kvm_amd (modprobe), or enable "
                                "virtualization in the firmware");
    cr_assert_eq(kvm.fd, -1);
}

Test(kvm, refuses_what_is_not_kvm)
{
    struct loam_diag diag = {0};
    struct kvm kvm;
    int before = next_fd();

    cr_assert_eq(kvm_open("/dev/null", &kvm, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(diag.system_errno, ENOTTY);
    cr_assert_not_null(strstr(diag.text, "/dev/null: is not KVM"));
    cr_assert_eq(kvm.fd, -1);
    cr_assert_eq(next_fd(), before);
}

Test(kvm, says_when_a_device_cannot_be_opened)
{
    struct loam_diag diag = {0};
    struct kvm kvm;

    cr_assert_eq(kvm_open("/", &kvm, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(diag.system_errno, EISDIR);
    cr_assert_eq(kvm.fd, -1);
}

/*
 * Without a superuser's rights, which go past a file's mode. Another user's id would not do: where tests run, there may
 * be no other. Exits 0 if the refusal is as it should be.
 */
static int open_without_rights(const char *path, const char *mend)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    struct loam_diag diag = {0};
    struct kvm kvm;

    if (syscall(SYS_capset, &header, none) != 0) {
        return 2;
    }
    if (kvm_open(path, &kvm, &diag) != LOAM_ERROR_NOT_PERMITTED || kvm.fd != -1) {
        return 3;
    }
    return strstr(diag.text, mend) != NULL && strchr(diag.text, '\n') == NULL ? 0 : 4;
}

static void check_missing_right(mode_t mode, const char *mend)
{
    char path[] = "/tmp/loam-kvm-test-XXXXXX";
    int status, fd = mkstemp(path);
    pid_t child;

    cr_assert_geq(fd, 0);
    cr_assert_eq(fchmod(fd, mode), 0);
    close(fd);
    child = fork();
    if (child == 0) {
        _exit(open_without_rights(path, mend));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    unlink(path);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "mode %04o: the child says %d", mode, WEXITSTATUS(status));
}

Test(kvm, names_what_mends_a_missing_right)
{
    check_missing_right(0060, "usermod -aG kvm $USER");
    check_missing_right(0, "(mode 0000): as root, chgrp kvm /tmp/loam-kvm-test-");
}

Test(kvm, refuses_another_version)
{
    static const int versions[] = {0, 11, 13};

    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        struct loam_diag diag = {0};
        char expected[64];
        struct kvm kvm;

        ioctl_fake_answer(KVM_GET_API_VERSION, 0, versions[i]);
        snprintf(expected, sizeof expected, "KVM API 12 wanted, %d found", versions[i]);
        cr_assert_eq(kvm_open("/dev/null", &kvm, &diag), LOAM_ERROR_NOT_FOUND);
        cr_assert_not_null(strstr(diag.text, expected), "%s", diag.text);
        cr_assert_eq(kvm.fd, -1);
    }
}

Test(kvm, names_each_capability_that_is_missing)
{
    const struct {
        unsigned long number;
        const char *name;
    } cases[] = {
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
        {KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"},
        {KVM_CAP_ENABLE_CAP_VM, "KVM_CAP_ENABLE_CAP_VM"},
        {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
        {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
        {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
        {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
        {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
        {KVM_CAP_SET_IDENTITY_MAP_ADDR, "IDENTITY_MAP"},
        {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"},
    };
    int before = next_fd();

    NEED_KVM();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_diag diag = {0};
        struct kvm kvm;

        ioctl_fake_answer(KVM_CHECK_EXTENSION, cases[i].number, i % 2 == 0 ? 0 : -1);
        cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_ERROR_NOT_FOUND, "%s", cases[i].name);
        cr_assert_not_null(strstr(diag.text, cases[i].name), "%s", diag.text);
        cr_assert_eq(next_fd(), before);
    }
}

Test(kvm, takes_the_figures_that_kvm_answers)
{
    struct kvm kvm;

    NEED_KVM();
    ioctl_fake_answer(KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS, 1);
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm.slot_limit, 1);
    kvm_close(&kvm);
    ioctl_fake_answer(KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS, 5000);
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm.vcpu_limit, 5000, "more than the host has processors");
    kvm_close(&kvm);
    for (int has = 0; has < 2; has++) {
        ioctl_fake_answer(KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER, has);
        cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
        cr_assert_eq(kvm.has_deadline_timer, has == 1);
        kvm_close(&kvm);
    }
    ioctl_fake_answer(KVM_GET_VCPU_MMAP_SIZE, 0, (int)sizeof(struct kvm_run));
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm.run_bytes, sizeof(struct kvm_run));
    kvm_close(&kvm);
}

Test(kvm, assumes_what_the_specification_says_where_figures_are_missing)
{
    struct kvm kvm;

    NEED_KVM();
    ioctl_fake_answer(KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS, 0);
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm.slot_limit, 32);
    kvm_close(&kvm);
    ioctl_fake_answer(KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS, 0);
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm.vcpu_limit, 4);
    kvm_close(&kvm);
}

Test(kvm, refuses_a_run_state_that_is_too_small)
{
    struct loam_diag diag = {0};
    struct kvm kvm;

    NEED_KVM();
    ioctl_fake_answer(KVM_GET_VCPU_MMAP_SIZE, 0, (int)sizeof(struct kvm_run) - 1);
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_not_null(strstr(diag.text, "KVM_GET_VCPU_MMAP_SIZE"));
}

/* --- Slots ------------------------------------------------------------------------------------------------------- */

#define PAGE       UINT64_C(4096)
#define SLOT_PAGES 16u

/* A VM without vCPUs, and a map with one region of host memory. */
struct shown {
    _Alignas(64) uint8_t map_memory[1 << 16];
    struct loam_gpa_map *map;
    struct loam_slots *slots;
    void *hva;
    struct kvm kvm;
    int vm_fd;
};

static void start_shown(struct shown *shown)
{
    struct loam_region region = {.bytes = SLOT_PAGES * PAGE, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};
    struct loam_slots_config config = {loam_kvm_set_slot, &shown->vm_fd, 0, 3};
    struct loam_diag diag = {0};

    region.hva = mmap(NULL, region.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(region.hva, MAP_FAILED);
    shown->hva = region.hva;
    cr_assert_eq(loam_gpa_map_init(shown->map_memory, sizeof shown->map_memory, NULL, &shown->map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(shown->map, &region), LOAM_OK);
    cr_assert_eq(kvm_open(KVM_DEVICE, &shown->kvm, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_create_vm(&shown->kvm, &shown->vm_fd, &diag), LOAM_OK, "%s", diag.text);
    config.limit = shown->kvm.slot_limit - config.first_number;
    cr_assert_eq(loam_slots_create(&config, &shown->slots, &diag), LOAM_OK, "%s", diag.text);
}

static void end_shown(struct shown *shown)
{
    loam_slots_destroy(shown->slots);
    close(shown->vm_fd);
    kvm_close(&shown->kvm);
    munmap(shown->hva, SLOT_PAGES * PAGE);
}

static void show(struct shown *shown)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(shown->map);
    struct loam_diag diag = {0};

    cr_assert_eq(loam_slots_update(shown->slots, view, &diag), LOAM_OK, "%s", diag.text);
    loam_gpa_map_release(shown->map, view);
}

/* KVM takes what the library sends, and refuses what it should not be sent. */
Test(kvm, understands_slots)
{
    static struct shown shown;
    struct loam_slots_row row;
    struct loam_diag diag = {0};

    NEED_KVM();
    start_shown(&shown);
    for (uint64_t page = 0; page < SLOT_PAGES; page += 2) {
        show(&shown);
        cr_assert_eq(loam_gpa_map_protect(shown.map, (loam_gpa){page * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    }
    cr_assert_eq(loam_slots_count(shown.slots), SLOT_PAGES - 2);
    cr_assert_eq(loam_slots_at(shown.slots, 1, &row), LOAM_OK);
    row.number = shown.kvm.slot_limit - 1;
    cr_assert_eq(loam_kvm_set_slot(&shown.vm_fd, &row), -1);
    cr_assert_eq(errno, EEXIST, "it overlaps");
    row.bytes = 0;
    cr_assert_eq(loam_kvm_set_slot(&shown.vm_fd, &row), -1);
    cr_assert_eq(errno, EINVAL, "it is not there");
    row.number = shown.kvm.slot_limit;
    cr_assert_eq(loam_kvm_set_slot(&shown.vm_fd, &row), -1);
    cr_assert_eq(errno, EINVAL, "there is no such number");
    cr_assert_eq(loam_slots_clear(shown.slots, &diag), LOAM_OK, "%s", diag.text);
    end_shown(&shown);
}

/* Which pages of a slot were written, a bit each. False: KVM does not log it. */
static bool fetch_log(const struct shown *shown, uint32_t number, uint64_t *written)
{
    struct kvm_dirty_log log = {.slot = number, .dirty_bitmap = written};

    *written = 0;
    return kvm_ioctl(shown->vm_fd, KVM_GET_DIRTY_LOG, &log) == 0;
}

Test(kvm, logs_the_slots_that_are_to_be)
{
    static struct shown shown;
    struct loam_gpa_change change = {LOAM_CHANGE_LOG, {.bytes = SLOT_PAGES * PAGE}};
    struct loam_slots_row row;
    uint64_t written;

    NEED_KVM();
    start_shown(&shown);
    show(&shown);
    cr_assert_eq(loam_slots_at(shown.slots, 0, &row), LOAM_OK);
    cr_assert_eq(row.number, 3);
    cr_assert_not(fetch_log(&shown, row.number, &written));
    for (int logged = 1; logged >= 0; logged--) {
        uint32_t before = ioctl_fake_count();

        change.region.log_dirty = logged == 1;
        cr_assert_eq(loam_gpa_map_change(shown.map, &change, 1, NULL), LOAM_OK);
        show(&shown);
        cr_assert_eq(ioctl_fake_count() - before, 1, "in place");
        cr_assert_eq(fetch_log(&shown, row.number, &written), logged == 1);
    }
    end_shown(&shown);
}

/* Real mode: a byte to page 3, another to page 9, and the end. */
static const uint8_t writer[] = {0xc6, 0x06, 0x00, 0x30, 0x01, 0xc6, 0x06, 0x00, 0x90, 0x01, 0xf4};

static void run_writer(const struct shown *shown)
{
    int vcpu_fd = kvm_ioctl_number(shown->vm_fd, KVM_CREATE_VCPU, 0);
    struct kvm_run *run = mmap(NULL, shown->kvm.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    struct kvm_regs registers = {.rip = PAGE, .rflags = 2};
    struct kvm_sregs sregs;

    cr_assert_neq((void *)run, MAP_FAILED);
    memcpy((uint8_t *)shown->hva + PAGE, writer, sizeof writer);
    cr_assert_eq(kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs), 0);
    sregs.cs.base = sregs.cs.selector = 0;
    cr_assert_eq(kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs), 0);
    cr_assert_eq(kvm_ioctl(vcpu_fd, KVM_SET_REGS, &registers), 0);
    cr_assert_eq(kvm_ioctl_number(vcpu_fd, KVM_RUN, 0), 0);
    cr_assert_eq(run->exit_reason, KVM_EXIT_MMIO, "page 9 is read-only");
    cr_assert_eq(run->mmio.phys_addr, 9 * PAGE);
    cr_assert_eq(kvm_ioctl_number(vcpu_fd, KVM_RUN, 0), 0);
    cr_assert_eq(run->exit_reason, KVM_EXIT_HLT);
    munmap(run, shown->kvm.run_bytes);
    close(vcpu_fd);
}

Test(kvm, logs_what_a_guest_writes_and_keeps_what_it_may_not_write)
{
    static struct shown shown;
    const struct loam_gpa_change changes[] = {
        {LOAM_CHANGE_LOG, {.start = {2 * PAGE}, .bytes = 6 * PAGE, .log_dirty = true}},
        {LOAM_CHANGE_PROTECT, {.start = {8 * PAGE}, .bytes = 8 * PAGE, .access = LOAM_ACCESS_READ}},
    };
    struct loam_slots_row row;
    uint64_t written;

    NEED_KVM();
    start_shown(&shown);
    cr_assert_eq(loam_gpa_map_change(shown.map, changes, 2, NULL), LOAM_OK);
    show(&shown);
    run_writer(&shown);
    cr_assert_eq(loam_slots_count(shown.slots), 3);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(loam_slots_at(shown.slots, i, &row), LOAM_OK);
        cr_assert_eq(fetch_log(&shown, row.number, &written), i == 1, "slot %u", row.number);
        cr_assert_eq(written, i == 1 ? UINT64_C(1) << (3 - 2) : 0, "page 3, which is the second of its slot");
    }
    cr_assert_eq(((const uint8_t *)shown.hva)[3 * PAGE], 1);
    cr_assert_eq(((const uint8_t *)shown.hva)[9 * PAGE], 0);
    end_shown(&shown);
}

/* What is plugged is a slot of KVM's as soon as the call returns, and none once it is unplugged. */
Test(kvm, has_a_slot_for_what_is_plugged)
{
    struct loam_memory_request request = {.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    struct loam_plug_request more = {.backing = {.bytes = 2 * LOAM_MIB, .pages = LOAM_PAGES_4K}};
    struct loam_slots_row row = {.bytes = PAGE, .number = 100};
    static struct shown shown;
    struct loam_backing_info plugged;
    struct loam_memory *memory;
    struct loam_diag diag = {0};
    struct loam_plan plan;

    NEED_KVM();
    start_shown(&shown);
    more.slots = shown.slots;
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_plug(memory, &more, &plugged, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_slots_count(shown.slots), 2);
    row.start = plugged.gpa;
    row.hva = shown.hva;
    cr_assert_eq(loam_kvm_set_slot(&shown.vm_fd, &row), -1);
    cr_assert_eq(errno, EEXIST, "KVM has one there");
    cr_assert_eq(loam_memory_unplug(memory, plugged.gpa, shown.slots, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_slots_count(shown.slots), 1);
    cr_assert_eq(loam_kvm_set_slot(&shown.vm_fd, &row), 0, "KVM has none there");
    row.bytes = 0;
    cr_assert_eq(loam_kvm_set_slot(&shown.vm_fd, &row), 0);
    cr_assert_eq(loam_slots_clear(shown.slots, &diag), LOAM_OK, "%s", diag.text);
    loam_memory_destroy(memory);
    end_shown(&shown);
}
