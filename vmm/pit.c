// SPDX-License-Identifier: Apache-2.0
/* Intel 8254 data sheet (231164), control word format; KVM API, sections 4.71 and 4.72 (KVM_GET_PIT2, KVM_SET_PIT2). */
#include "vmm/pit.h"

#include <time.h>

#define CHANNEL_COUNT 3u
#define CONTROL_PORT  3u

/* Control word: channel in bits 6 and 7 (3: read back), access in 4 and 5 (0: latch), mode in 1 to 3, BCD in 0. */
#define ACCESS_LATCH 0u
#define ACCESS_HIGH  2u
#define ACCESS_BOTH  3u
#define MODE_MAX     5u /* 6 and 7 mean 2 and 3 */
#define MODE_RATE    2u
#define MODE_SQUARE  3u

/* Port B: bit 0 gates channel 2. */
#define SPEAKER_GATE 1u

void pit_init(struct pit *pit, int vm_fd, pit_failed_fn *failed, void *self)
{
    *pit = (struct pit){.vm_fd = vm_fd, .failed = failed, .self = self};
}

static void apply_control(struct kvm_pit_state2 *state, uint8_t value)
{
    uint8_t channel = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;

    /* To latch what does not count yet changes nothing that can be seen. */
    if (channel >= CHANNEL_COUNT || access == ACCESS_LATCH) {
        return;
    }
    state->channels[channel].rw_mode = access;
    state->channels[channel].read_state = access;
    state->channels[channel].write_state = access;
    state->channels[channel].mode = mode > MODE_MAX ? mode - 4 : mode;
    state->channels[channel].bcd = value & 1;
}

/* A count of which half has come waits for the other; 0 stands for 65,536. */
static void apply_count(struct kvm_pit_channel_state *channel, uint8_t value)
{
    switch (channel->write_state) {
    case ACCESS_BOTH:
        channel->write_latch = value;
        channel->write_state = ACCESS_BOTH + 1;
        break;
    case ACCESS_BOTH + 1:
        channel->count = (uint32_t)(channel->write_latch | value << 8);
        channel->write_state = ACCESS_BOTH;
        break;
    case ACCESS_HIGH:
        channel->count = (uint32_t)value << 8;
        break;
    default:
        channel->count = value;
        break;
    }
}

void pit_apply(struct kvm_pit_state2 *state, uint64_t offset, uint8_t value)
{
    if (offset == CONTROL_PORT) {
        apply_control(state, value);
    } else if (offset < CHANNEL_COUNT) {
        apply_count(&state->channels[offset], value);
    }
}

static enum loam_error make(struct pit *pit, struct loam_diag *diag)
{
    struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};

    if (pit->is_made) {
        return LOAM_OK;
    }
    if (kvm_ioctl(pit->vm_fd, KVM_CREATE_PIT2, &config) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_CREATE_PIT2");
    }
    pit->is_made = true;
    return LOAM_OK;
}

static enum loam_error exchange(const struct pit *pit, uint64_t port, uint8_t value, struct loam_diag *diag)
{
    struct kvm_pit_state2 state = {.flags = 0};

    if (kvm_ioctl(pit->vm_fd, KVM_GET_PIT2, &state) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_GET_PIT2");
    }
    if (port == PIT_SPEAKER_PORT) {
        state.channels[CHANNEL_COUNT - 1].gate = value & SPEAKER_GATE;
    } else {
        pit_apply(&state, port - PIT_PORT, value);
    }
    if (kvm_ioctl(pit->vm_fd, KVM_SET_PIT2, &state) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "KVM_SET_PIT2");
    }
    return LOAM_OK;
}

/*
 * Bytes of a wide access go to ports one after the other, as on the PC's bus. A new PIT reads as zeros. An access that
 * another vCPU began before the PIT was made comes here as well.
 */
static void carry_out(struct pit *pit, uint64_t port, struct bus_access *access)
{
    struct loam_diag diag = {0};
    enum loam_error error = make(pit, &diag);

    for (uint32_t i = 0; access->is_write && error == LOAM_OK && i < access->bytes; i++) {
        error = exchange(pit, port + i, (uint8_t)(access->value >> (8 * i)), &diag);
    }
    if (error != LOAM_OK) {
        pit->failed(pit->self, &diag);
    }
    if (!access->is_write) {
        access->value = 0;
    }
}

void pit_access(void *pit, struct bus_access *access)
{
    carry_out(pit, PIT_PORT + access->offset, access);
}

void pit_speaker_access(void *pit, struct bus_access *access)
{
    carry_out(pit, PIT_SPEAKER_PORT, access);
}

static int64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void pit_hold(struct pit *pit)
{
    const struct kvm_pit_channel_state *ticking = &pit->held.channels[0];

    pit->held_nanoseconds = now_nanoseconds();
    pit->is_held = pit->is_made && kvm_ioctl(pit->vm_fd, KVM_GET_PIT2, &pit->held) == 0 &&
                   (ticking->mode == MODE_RATE || ticking->mode == MODE_SQUARE);
}

/* KVM loads channel 0 with its count, and forgets what ticks it owes; the others it takes as they are. */
void pit_go_on(struct pit *pit)
{
    if (!pit->is_held) {
        return;
    }
    for (uint32_t i = 1; i < CHANNEL_COUNT; i++) {
        pit->held.channels[i].count_load_time += now_nanoseconds() - pit->held_nanoseconds;
    }
    (void)kvm_ioctl(pit->vm_fd, KVM_SET_PIT2, &pit->held);
    pit->is_held = false;
}
