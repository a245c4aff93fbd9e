// SPDX-License-Identifier: Apache-2.0
/*
 * Parts are KVM's own structs, which never change their layout. They are read in the order in which KVM wants them, and set
 * in it again: what comes later depends on what came before (the mode of the local APIC's timer before the MSR of its deadline,
 * CR4 before XCR0, all of them before events).
 */
#include "vmm/state_vcpu.h"

#include "vmm/cpuid_name.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MSR_TSC         0x10u
#define MSR_COUNT_MAX   1024u
#define XSAVE_BYTES_MAX 65536u

/* struct kvm_msrs with room for one, and struct kvm_msr_list with room for all. */
struct one_msr {
    uint32_t count;
    uint32_t padding;
    struct kvm_msr_entry entry;
};

struct msr_list {
    uint32_t count;
    uint32_t indices[MSR_COUNT_MAX];
};

/* What is of one size on every host. */
struct parts {
    struct kvm_mp_state mp_state;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debugregs;
    struct kvm_xcrs xcrs;
    struct kvm_vcpu_events events;
    struct kvm_lapic_state lapic; /* zeros where there is none */
};

static enum loam_error failed(const struct vcpu *vcpu, const char *call, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "vCPU %" PRIu32 ": %s", vcpu->index, call);
}

struct call {
    unsigned long get, set;
    size_t offset;
    const char *name;
    bool of_apic;
};

#define CALL(part, name, is_of_apic)                                                                                   \
    {                                                                                                                  \
        KVM_GET_##name, KVM_SET_##name, offsetof(struct parts, part), #name, is_of_apic                                \
    }

/* XSAVE stands between XCRS and these: see state_vcpu_load. */
static const struct call calls_before[] = {
    CALL(mp_state, MP_STATE, true), CALL(regs, REGS, false),           CALL(sregs, SREGS, false),
    CALL(xcrs, XCRS, false),        CALL(debugregs, DEBUGREGS, false), CALL(lapic, LAPIC, true),
};
static const struct call call_last = CALL(events, VCPU_EVENTS, false);

/* --- Saving ------------------------------------------------------------------------------------------------------- */

static enum loam_error get_part(const struct vcpu *vcpu, const struct call *call, bool has_apic, struct parts *parts,
                                struct loam_diag *diag)
{
    if ((call->of_apic && !has_apic) || kvm_ioctl(vcpu->fd, call->get, (char *)parts + call->offset) == 0) {
        return LOAM_OK;
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "vCPU %" PRIu32 ": KVM_GET_%s", vcpu->index, call->name);
}

static enum loam_error put_xsave(const struct kvm *kvm, const struct vcpu *vcpu, struct state_writer *writer,
                                 struct loam_diag *diag)
{
    const uint32_t bytes = kvm->xsave_bytes;
    uint8_t *xsave = calloc(1, bytes);
    enum loam_error error = LOAM_OK;

    if (xsave == NULL ||
        kvm_ioctl(vcpu->fd, bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, xsave) < 0) {
        error = failed(vcpu, "KVM_GET_XSAVE", diag);
    } else {
        state_put_u32(writer, bytes);
        state_put(writer, xsave, bytes);
    }
    free(xsave);
    return error;
}

static enum loam_error list_msrs(const struct kvm *kvm, const struct vcpu *vcpu, struct msr_list *list,
                                 struct loam_diag *diag)
{
    list->count = MSR_COUNT_MAX;
    return kvm_ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, list) < 0 ? failed(vcpu, "KVM_GET_MSR_INDEX_LIST", diag)
                                                                : LOAM_OK;
}

/* KVM lists MSRs that it may have; those that this guest lacks it does not read. */
static enum loam_error put_msrs(const struct kvm *kvm, const struct vcpu *vcpu, struct state_writer *writer,
                                struct loam_diag *diag)
{
    struct msr_list *list = malloc(sizeof *list);
    struct kvm_msr_entry *entries = calloc(MSR_COUNT_MAX, sizeof *entries);
    enum loam_error error =
        list != NULL && entries != NULL ? list_msrs(kvm, vcpu, list, diag) : failed(vcpu, "no memory for MSRs", diag);
    uint32_t count = 0;

    for (uint32_t i = 0; error == LOAM_OK && i < list->count; i++) {
        struct one_msr msr = {.count = 1, .entry = {.index = list->indices[i]}};

        if (list->indices[i] != MSR_TSC && kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &msr) == 1) {
            entries[count++] = msr.entry;
        }
    }
    if (error == LOAM_OK) {
        state_put_u32(writer, count);
        state_put(writer, entries, count * sizeof *entries);
    }
    free(entries);
    free(list);
    return error;
}

/* What the guest's TSC was when its clocks were held. */
static enum loam_error put_tsc(const struct vcpu *vcpu, uint64_t tsc_shift, struct state_writer *writer,
                               struct loam_diag *diag)
{
    struct one_msr msr = {.count = 1, .entry = {.index = MSR_TSC}};
    int khz = kvm_ioctl_number(vcpu->fd, KVM_GET_TSC_KHZ, 0);

    if (kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &msr) != 1) {
        return failed(vcpu, "KVM_GET_MSRS of IA32_TIME_STAMP_COUNTER", diag);
    }
    state_put_u64(writer, msr.entry.data - tsc_shift);
    state_put_u32(writer, khz > 0 ? (uint32_t)khz : 0);
    return LOAM_OK;
}

/* As it was told: KVM_GET_CPUID2 may say what the guest sees of the processor besides. */
static void put_cpuid(const struct vcpu *vcpu, struct state_writer *writer)
{
    state_put_u32(writer, vcpu->cpuid->count);
    state_put(writer, vcpu->cpuid->entries, vcpu->cpuid->count * sizeof vcpu->cpuid->entries[0]);
}

enum loam_error state_vcpu_save(const struct kvm *kvm, const struct vcpu *vcpu, bool has_apic, uint64_t tsc_shift,
                                struct state_writer *writer, struct loam_diag *diag)
{
    struct parts parts = {.mp_state = {.mp_state = KVM_MP_STATE_RUNNABLE}};
    enum loam_error error;

    state_begin(writer, STATE_VCPU, vcpu->index);
    put_cpuid(vcpu, writer);
    error = put_tsc(vcpu, tsc_shift, writer, diag);
    for (size_t i = 0; error == LOAM_OK && i < sizeof calls_before / sizeof calls_before[0]; i++) {
        error = get_part(vcpu, &calls_before[i], has_apic, &parts, diag);
    }
    if (error == LOAM_OK) {
        error = get_part(vcpu, &call_last, has_apic, &parts, diag);
    }
    state_put(writer, &parts, sizeof parts);
    if (error == LOAM_OK) {
        error = put_xsave(kvm, vcpu, writer, diag);
    }
    if (error == LOAM_OK) {
        error = put_msrs(kvm, vcpu, writer, diag);
    }
    state_end(writer);
    return error;
}

/* --- What cpuid says ------------------------------------------------------------------------------------------------ */

static enum loam_error take_cpuid(struct state_record *record, struct vcpu_cpuid *cpuid, struct loam_diag *diag)
{
    *cpuid = (struct vcpu_cpuid){.count = state_take_u32(record)};
    if (cpuid->count > VCPU_CPUID_MAX) {
        return state_refuse(record, diag, "%" PRIu32 " entries of cpuid, at most %u", cpuid->count, VCPU_CPUID_MAX);
    }
    state_take(record, cpuid->entries, cpuid->count * sizeof cpuid->entries[0]);
    return record->is_short ? state_refuse(record, diag, "it is too short: %zu bytes", record->count) : LOAM_OK;
}

enum loam_error state_vcpu_cpuid(struct state_reader *reader, uint32_t index, struct vcpu_cpuid *cpuid,
                                 struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_VCPU, index, &record, diag);

    return error == LOAM_OK ? take_cpuid(record, cpuid, diag) : error;
}

enum loam_error state_vcpu_check(const struct kvm *kvm, struct state_reader *reader, uint32_t index,
                                 struct loam_diag *diag)
{
    struct vcpu_cpuid told, supported;
    char lacking[CPUID_NAME_BYTES];
    enum loam_error error = state_vcpu_cpuid(reader, index, &told, diag);

    if (error == LOAM_OK) {
        error = vcpu_cpuid_supported(kvm, &supported, diag);
    }
    if (error == LOAM_OK && cpuid_name_lacking(told.entries, told.count, supported.entries, supported.count, lacking)) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "state: vCPU %" PRIu32 " was told of %s, which this host's processor or KVM lacks: restore it "
                         "on a host that has it",
                         index, lacking);
    }
    return error;
}

/* --- Loading -------------------------------------------------------------------------------------------------------- */

/* A processor without XSAVE has no XCR0, and KVM takes none for it. */
static bool is_absent(const struct call *call, bool has_apic, const struct parts *parts)
{
    return (call->of_apic && !has_apic) || (call->set == KVM_SET_XCRS && parts->xcrs.nr_xcrs == 0);
}

static enum loam_error set_part(const struct vcpu *vcpu, const struct call *call, bool has_apic, struct parts *parts,
                                struct loam_diag *diag)
{
    if (is_absent(call, has_apic, parts) || kvm_ioctl(vcpu->fd, call->set, (char *)parts + call->offset) == 0) {
        return LOAM_OK;
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "vCPU %" PRIu32 ": KVM_SET_%s", vcpu->index, call->name);
}

static enum loam_error load_xsave(const struct kvm *kvm, const struct vcpu *vcpu, struct state_record *record,
                                  struct loam_diag *diag)
{
    const uint32_t bytes = state_take_u32(record);
    const size_t room = kvm->xsave_bytes > bytes ? kvm->xsave_bytes : bytes;
    enum loam_error error = LOAM_OK;
    uint8_t *xsave;

    if (bytes < sizeof(struct kvm_xsave) || bytes > XSAVE_BYTES_MAX) {
        return state_refuse(record, diag, "%" PRIu32 " bytes of XSAVE, %zu to %u", bytes, sizeof(struct kvm_xsave),
                            XSAVE_BYTES_MAX);
    }
    if (bytes > kvm->xsave_bytes) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "state: vCPU %" PRIu32 ": %" PRIu32 " bytes of XSAVE, and this host's KVM takes %" PRIu32
                         ": restore it on a host whose processor has as much",
                         vcpu->index, bytes, kvm->xsave_bytes);
    }
    xsave = calloc(1, room);
    if (xsave == NULL) {
        return failed(vcpu, "no memory for XSAVE", diag);
    }
    state_take(record, xsave, bytes);
    if (kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, xsave) < 0) {
        error = failed(vcpu, "KVM_SET_XSAVE", diag);
    }
    free(xsave);
    return error;
}

/* One that KVM does not take, but has already, is no loss. */
static enum loam_error load_msr(const struct vcpu *vcpu, const struct kvm_msr_entry *entry, struct loam_diag *diag)
{
    struct one_msr msr = {.count = 1, .entry = {.index = entry->index, .data = entry->data}};

    if (kvm_ioctl(vcpu->fd, KVM_SET_MSRS, &msr) == 1) {
        return LOAM_OK;
    }
    msr.entry.data = 0;
    if ((kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &msr) == 1 && msr.entry.data == entry->data) || entry->data == 0) {
        return LOAM_OK;
    }
    return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                     "state: vCPU %" PRIu32 ": MSR 0x%" PRIx32 " was 0x%llx, and this host's KVM does not take that",
                     vcpu->index, entry->index, (unsigned long long)entry->data);
}

static enum loam_error load_msrs(const struct vcpu *vcpu, struct state_record *record, struct loam_diag *diag)
{
    const uint32_t count = state_take_u32(record);
    struct kvm_msr_entry entry;
    enum loam_error error = LOAM_OK;

    if (count > MSR_COUNT_MAX) {
        return state_refuse(record, diag, "%" PRIu32 " MSRs, at most %u", count, MSR_COUNT_MAX);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        state_take(record, &entry, sizeof entry);
        error = record->is_short ? state_refuse(record, diag, "it is too short: %zu bytes", record->count)
                                 : load_msr(vcpu, &entry, diag);
    }
    return error;
}

/* Ticks of a TSC in that time. */
static uint64_t leap(uint64_t nanoseconds, uint32_t khz)
{
    return nanoseconds / 1000000 * khz + nanoseconds % 1000000 * khz / 1000000;
}

/* By its offset where the host's is known, so that the TSCs of all vCPUs stay as far from each other as they were. */
static enum loam_error load_tsc(const struct vcpu *vcpu, uint64_t tsc, uint32_t khz, uint64_t host_tsc,
                                struct loam_diag *diag)
{
    uint64_t offset = tsc - host_tsc;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    struct one_msr msr = {.count = 1, .entry = {.index = MSR_TSC, .data = tsc}};
    int own = kvm_ioctl_number(vcpu->fd, KVM_GET_TSC_KHZ, 0);

    if (khz != 0 && own > 0 && (uint32_t)own != khz && kvm_ioctl_number(vcpu->fd, KVM_SET_TSC_KHZ, khz) < 0) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "state: vCPU %" PRIu32 ": a TSC of %" PRIu32
                         " kHz wanted, and this host's is of %d, which its "
                         "KVM cannot scale",
                         vcpu->index, khz, own);
    }
    if (host_tsc != 0 && (khz == 0 || (uint32_t)own == khz) &&
        kvm_ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attribute) == 0) {
        return LOAM_OK;
    }
    return kvm_ioctl(vcpu->fd, KVM_SET_MSRS, &msr) == 1 ? LOAM_OK
                                                        : failed(vcpu, "KVM_SET_MSRS of IA32_TIME_STAMP_COUNTER", diag);
}

static enum loam_error load_parts(const struct kvm *kvm, const struct vcpu *vcpu, bool has_apic,
                                  struct state_record *record, struct loam_diag *diag)
{
    struct parts parts;
    enum loam_error error = LOAM_OK;

    state_take(record, &parts, sizeof parts);
    if (record->is_short) {
        return state_refuse(record, diag, "it is too short: %zu bytes", record->count);
    }
    for (size_t i = 0; error == LOAM_OK && i < sizeof calls_before / sizeof calls_before[0]; i++) {
        error = set_part(vcpu, &calls_before[i], has_apic, &parts, diag);
    }
    if (error == LOAM_OK) {
        error = load_xsave(kvm, vcpu, record, diag);
    }
    if (error == LOAM_OK) {
        error = load_msrs(vcpu, record, diag);
    }
    return error == LOAM_OK ? set_part(vcpu, &call_last, has_apic, &parts, diag) : error;
}

enum loam_error state_vcpu_load(const struct kvm *kvm, const struct vcpu *vcpu, bool has_apic,
                                const struct guest_clock_base *base, struct state_reader *reader,
                                struct loam_diag *diag)
{
    struct vcpu_cpuid cpuid;
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_VCPU, vcpu->index, &record, diag);
    uint64_t tsc;
    uint32_t khz;

    if (error == LOAM_OK) {
        error = take_cpuid(record, &cpuid, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    tsc = state_take_u64(record);
    khz = state_take_u32(record);
    error = load_tsc(vcpu, tsc + leap(base->jump_nanoseconds, khz), khz, base->host_tsc, diag);
    if (error == LOAM_OK) {
        error = load_parts(kvm, vcpu, has_apic, record, diag);
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}
