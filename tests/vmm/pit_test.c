// SPDX-License-Identifier: Apache-2.0
/* That a guest gets interrupts from it is shown by machine_test. */
#include "vmm/pit.h"

#include "tests/vmm/ioctl_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STANDING_NANOSECONDS 20000000

static struct kvm_pit_state2 state;

static void write_ports(const uint8_t (*writes)[2], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        pit_apply(&state, writes[i][0], writes[i][1]);
    }
}

Test(pit, prepares_a_channel_by_its_control_word)
{
    pit_apply(&state, 3, 0x34);
    cr_assert_eq(state.channels[0].rw_mode, 3);
    cr_assert_eq(state.channels[0].write_state, 3);
    cr_assert_eq(state.channels[0].read_state, 3);
    cr_assert_eq(state.channels[0].mode, 2);
    cr_assert_eq(state.channels[0].bcd, 0);
    pit_apply(&state, 3, 0x9f);
    cr_assert_eq(state.channels[2].rw_mode, 1);
    cr_assert_eq(state.channels[2].mode, 3, "7 means 3");
    pit_apply(&state, 3, 0x7a);
    cr_assert_eq(state.channels[1].mode, 5, "the last that there is");
    cr_assert_eq(state.channels[2].bcd, 1);
}

Test(pit, changes_nothing_where_there_is_nothing_to_latch)
{
    const struct kvm_pit_state2 before = state;

    pit_apply(&state, 3, 0x00);
    pit_apply(&state, 3, 0x80);
    pit_apply(&state, 3, 0xc2);
    pit_apply(&state, 3, 0xf4); /* there is no fourth channel */
    pit_apply(&state, 4, 0x34);
    pit_apply(&state, UINT64_MAX, 0x34);
    cr_assert_eq(memcmp(&state, &before, sizeof state), 0);
}

Test(pit, loads_counts_by_halves)
{
    const uint8_t both[][2] = {{3, 0x34}, {0, 0xa9}, {0, 0x04}};
    const uint8_t low[][2] = {{3, 0x50}, {1, 0x12}};
    const uint8_t high[][2] = {{3, 0xa0}, {2, 0x12}};

    write_ports(both, 2);
    cr_assert_neq(state.channels[0].count, 1193, "half of it is not there yet");
    write_ports(both + 2, 1);
    cr_assert_eq(state.channels[0].count, 1193);
    write_ports(both + 1, 2);
    write_ports(both + 2, 1);
    cr_assert_eq(state.channels[0].count, 1193, "a low half again, and no high one");
    write_ports(low, 2);
    cr_assert_eq(state.channels[1].count, 0x12);
    write_ports(high, 2);
    cr_assert_eq(state.channels[2].count, 0x1200);
}

/* --- With KVM ------------------------------------------------------------------------------------------------- */

static struct kvm kvm;
static struct pit pit;
static struct loam_diag failure;
static uint32_t failure_count;
static int vm_fd;

static void keep_failure(void *self, const struct loam_diag *diag)
{
    cr_assert_eq(self, &failure);
    failure = *diag;
    failure_count++;
}

static void make_vm(void)
{
    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, NULL), LOAM_OK);
    cr_assert_eq(kvm_ioctl_number(vm_fd, KVM_CREATE_IRQCHIP, 0), 0);
    pit_init(&pit, vm_fd, keep_failure, &failure);
    ioctl_fake_reset();
}

static void drop_vm(void)
{
    close(vm_fd);
    kvm_close(&kvm);
}

static void out(uint64_t offset, uint32_t bytes, uint64_t value)
{
    struct bus_access access = {.offset = offset, .bytes = bytes, .is_write = true, .value = value};

    pit_access(&pit, &access);
}

Test(pit, is_made_by_the_first_access_only)
{
    struct bus_access read = {.offset = 0, .bytes = 1, .value = UINT64_MAX};

    make_vm();
    cr_assert_neq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0, "there is none before");
    pit_access(&pit, &read);
    cr_assert_eq(read.value & 0xff, 0);
    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0);
    pit_access(&pit, &read);
    cr_assert_eq(failure_count, 0);
    drop_vm();
}

/* Bytes of a wide write go to one port after the other, and those beyond its width nowhere; a read changes nothing. */
Test(pit, carries_out_each_byte_of_an_access)
{
    struct bus_access read = {.offset = 0, .bytes = 4, .value = UINT64_MAX};

    make_vm();
    out(3, 1, 0xdeadbe10); /* channels 0 to 2: low halves alone */
    out(3, 1, 0x50);
    out(3, 1, 0x90);
    out(0, 4, 0x54332211); /* the control word for channel 1 comes last, and clears nothing */
    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0);
    cr_assert_eq(state.channels[0].count, 0x11);
    cr_assert_eq(state.channels[1].count, 0x22);
    cr_assert_eq(state.channels[2].count, 0x33);
    cr_assert_eq(state.channels[1].mode, 2);
    out(0, 1, 0x9944);
    pit_access(&pit, &read);
    cr_assert_eq(read.value, 0);
    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0);
    cr_assert_eq(state.channels[0].count, 0x44);
    cr_assert_eq(state.channels[1].count, 0x22);
    cr_assert_eq(failure_count, 0);
    drop_vm();
}

Test(pit, carries_out_accesses_on_kvms_own)
{
    struct bus_access speaker = {.bytes = 1, .is_write = true, .value = 3};

    make_vm();
    out(3, 1, 0x34);
    out(0, 1, 1193 & 0xff);
    out(0, 1, 1193 >> 8);
    pit_speaker_access(&pit, &speaker);
    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0);
    cr_assert_eq(state.channels[0].mode, 2);
    cr_assert_eq(state.channels[0].count, 1193);
    cr_assert_eq(state.channels[2].gate, 1);
    speaker.value = 2;
    pit_speaker_access(&pit, &speaker);
    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0);
    cr_assert_eq(state.channels[2].gate, 0);
    cr_assert_eq(failure_count, 0);
    drop_vm();
}

/* --- Standing still --------------------------------------------------------------------------------------------- */

/* A channel that KVM does not load anew is younger by so much: what it has counted is what it had counted. */
static void stand(int64_t *loaded_before, int64_t *loaded_after)
{
    const struct timespec start = {.tv_nsec = 0};
    struct timespec now = start;

    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0);
    *loaded_before = state.channels[2].count_load_time;
    pit_hold(&pit);
    for (int64_t end = -1; end < 0 || (int64_t)now.tv_sec * 1000000000 + now.tv_nsec < end;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        end = end < 0 ? (int64_t)now.tv_sec * 1000000000 + now.tv_nsec + STANDING_NANOSECONDS : end;
    }
    pit_go_on(&pit);
    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0);
    *loaded_after = state.channels[2].count_load_time;
}

Test(pit, stands_still_where_it_ticks)
{
    const uint8_t ticking[] = {0x34, 0x36}; /* rate, square wave */
    int64_t before, after;

    make_vm();
    for (size_t i = 0; i < sizeof ticking; i++) {
        out(3, 1, ticking[i]);
        out(0, 1, 0xff);
        out(0, 1, 0xff);
        stand(&before, &after);
        cr_assert_geq(after - before, STANDING_NANOSECONDS);
        cr_assert_lt(after - before, 10 * STANDING_NANOSECONDS);
        cr_assert_eq(state.channels[0].count, 0xffff);
        cr_assert_eq(state.channels[0].mode, 2 + i);
    }
    drop_vm();
}

/* It would count down once more. */
Test(pit, goes_on_where_it_counts_down_once)
{
    int64_t before, after;

    make_vm();
    out(3, 1, 0x00);
    stand(&before, &after);
    cr_assert_eq(after, before, "nothing was begun");
    out(3, 1, 0x30);
    out(0, 1, 0xff);
    out(0, 1, 0xff);
    stand(&before, &after);
    cr_assert_eq(after, before);
    drop_vm();
}

Test(pit, has_nothing_to_hold_before_it_is_made)
{
    make_vm();
    pit_hold(&pit);
    pit_go_on(&pit);
    cr_assert_neq(kvm_ioctl(vm_fd, KVM_GET_PIT2, &state), 0, "there is none");
    cr_assert_eq(ioctl_fake_count(), 1);
    drop_vm();
}

Test(pit, says_which_request_failed)
{
    static const char *const names[] = {"KVM_CREATE_PIT2: ", "KVM_GET_PIT2: ", "KVM_SET_PIT2: "};

    make_vm();
    for (uint32_t i = 0; i < 3; i++) {
        failure = (struct loam_diag){0};
        ioctl_fake_reset();
        ioctl_fake_fail(i == 0 ? 0 : pit.is_made ? i - 1 : i, EIO);
        out(3, 1, 0x34);
        cr_assert_eq(failure.system_errno, EIO);
        cr_assert_eq(strncmp(failure.text, names[i], strlen(names[i])), 0, "%s", failure.text);
    }
    drop_vm();
}
