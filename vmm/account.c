// SPDX-License-Identifier: Apache-2.0
#include "vmm/account.h"

#include "vmm/advice.h"
#include "vmm/kvm.h"
#include "vmm/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 4u /* places at which nobody answered, in a line that a person reads */

/* --- What the machine says ------------------------------------------------------------------------------------------ */

/* A run that KVM ended has one vCPU to blame; what others did last says nothing. */
static bool is_to_blame(const struct machine_result *result, uint32_t vcpu)
{
    return vcpu == result->vcpu && (result->reason == MACHINE_STOP_SHUTDOWN || result->reason == MACHINE_STOP_BROKEN);
}

static bool is_asleep(const struct stand *stand)
{
    return stand->activity == STAND_HALTED || stand->activity == STAND_WAITING;
}

/* HLT may be the last instruction of its function: one that is asleep is still there. */
static void find_place(const struct boot_file *kernel, struct account_vcpu *vcpu)
{
    uint64_t behind = is_asleep(&vcpu->stand) ? 1 : 0;

    if (symbols_find(kernel, vcpu->stand.rip - behind, &vcpu->place)) {
        vcpu->place.offset += behind;
    }
}

static void ask_vcpu(struct machine *machine, uint32_t index, bool is_blamed, const struct boot_file *kernel,
                     struct account_vcpu *vcpu)
{
    struct stand *stand = &vcpu->stand;

    machine_stand(machine, index, stand);
    stand->is_triple_fault = stand->is_triple_fault && is_blamed;
    stand->lacks_instruction = stand->lacks_instruction && is_blamed;
    if (stand->activity == STAND_UNKNOWN || stand->activity == STAND_UNSTARTED || stand_is_reset(stand)) {
        return;
    }
    find_place(kernel, vcpu);
    if (!is_asleep(stand)) {
        disassembly_of(stand->code, stand->code_bytes, stand->rip, stand_width(stand), &vcpu->instruction);
    }
}

static struct bus_missed *find_alike(struct account *account, const struct bus_missed *wanted)
{
    for (uint32_t i = 0; i < account->missed_count; i++) {
        struct bus_missed *missed = &account->missed[i];

        if (missed->space == wanted->space && missed->address == wanted->address && missed->bytes == wanted->bytes &&
            missed->is_write == wanted->is_write) {
            return missed;
        }
    }
    return NULL;
}

static void ask_missed(struct machine *machine, struct account *account)
{
    struct bus_missed found[BUS_MISSED_MAX];
    uint32_t count = bus_missed(machine_bus(machine), found);

    for (uint32_t i = 0; i < count; i++) {
        struct bus_missed *alike = find_alike(account, &found[i]);

        if (alike != NULL) {
            alike->count += found[i].count;
        } else {
            account->missed[account->missed_count++] = found[i];
        }
    }
}

/* What is wrong with memory that the host does not supply has been said, and is the reason. */
static void find_advice(const struct machine_result *result, const struct loam_plan *plan, struct account *account)
{
    bool is_explained = result->reason == MACHINE_STOP_BROKEN && result->cause[0] != '\0';
    struct advice_facts facts = {
        .kvm_emulates = kvm_emulates(),
        .missed = account->missed,
        .missed_count = account->missed_count,
        .low_bytes = plan->hole_start.value,
        .high_bytes = plan->request.bytes - plan->hole_start.value,
    };

    if (result->vcpu < account->vcpu_count && is_to_blame(result, result->vcpu)) {
        const struct account_vcpu *vcpu = &account->vcpus[result->vcpu];

        facts.stand = &vcpu->stand;
        facts.instruction = vcpu->instruction.text[0] != '\0' ? &vcpu->instruction : NULL;
    }
    if (!is_explained) {
        advice_of(&facts, account->advice, sizeof account->advice);
    }
}

void account_make(struct machine *machine, const struct machine_result *result, const struct loam_plan *plan,
                  const struct boot_file *kernel, struct account *account)
{
    *account = (struct account){.vcpu_count = machine_vcpu_count(machine)};
    account->vcpus = calloc(account->vcpu_count, sizeof account->vcpus[0]);
    if (account->vcpus == NULL) {
        account->vcpu_count = 0;
    }
    for (uint32_t i = 0; i < account->vcpu_count; i++) {
        ask_vcpu(machine, i, is_to_blame(result, i), kernel, &account->vcpus[i]);
    }
    ask_missed(machine, account);
    find_advice(result, plan, account);
}

void account_release(struct account *account)
{
    free(account->vcpus);
    *account = (struct account){.vcpu_count = 0};
}

/* --- Words -------------------------------------------------------------------------------------------------------- */

const char *account_activity_name(enum stand_activity activity)
{
    static const char *const names[STAND_ACTIVITY_COUNT] = {
        [STAND_UNKNOWN] = "unknown", [STAND_RUNNING] = "running",     [STAND_WAITING] = "waiting",
        [STAND_HALTED] = "halted",   [STAND_UNSTARTED] = "unstarted",
    };

    return names[activity];
}

const char *account_mode_name(enum stand_mode mode)
{
    static const char *const names[STAND_MODE_COUNT] = {
        [STAND_REAL] = "real",
        [STAND_VIRTUAL_8086] = "virtual-8086",
        [STAND_PROTECTED_16] = "16-bit protected",
        [STAND_PROTECTED] = "protected",
        [STAND_COMPATIBILITY] = "compatibility",
        [STAND_LONG] = "long",
    };

    return names[mode];
}

const char *account_paging_name(enum stand_paging paging)
{
    static const char *const names[STAND_PAGING_COUNT] = {
        [STAND_PAGING_NONE] = "none", [STAND_PAGING_32] = "32-bit", [STAND_PAGING_PAE] = "PAE",
        [STAND_PAGING_4] = "4-level", [STAND_PAGING_5] = "5-level",
    };

    return names[paging];
}

/* --- Lines -------------------------------------------------------------------------------------------------------- */

void account_place(const struct account_vcpu *vcpu, char *text, size_t bytes)
{
    struct text out = text_in(text, bytes);

    if (vcpu->place.name[0] != '\0') {
        text_put(&out, "%s+0x%" PRIx64, vcpu->place.name, vcpu->place.offset);
    }
}

static void put_where(struct text *text, const struct account_vcpu *vcpu)
{
    char place[ACCOUNT_LINE_BYTES];

    account_place(vcpu, place, sizeof place);
    text_put(text, " at 0x%" PRIx64, vcpu->stand.rip);
    if (place[0] != '\0') {
        text_put(text, " (%s)", place);
    }
    if (vcpu->instruction.text[0] != '\0') {
        text_put(text, ", %s", vcpu->instruction.text);
    }
}

static void put_mode(struct text *text, const struct stand *stand)
{
    text_put(text, ", in %s mode", account_mode_name(stand->mode));
    if (stand->paging == STAND_PAGING_NONE) {
        text_put(text, " without paging");
    } else {
        text_put(text, " with %s paging", account_paging_name(stand->paging));
    }
}

void account_vcpu_line(const struct account *account, uint32_t index, char *text, size_t bytes)
{
    static const char *const verbs[STAND_ACTIVITY_COUNT] = {
        [STAND_RUNNING] = "stood",
        [STAND_WAITING] = "waited for an interrupt",
        [STAND_HALTED] = "was halted with interrupts off",
    };
    const struct account_vcpu *vcpu = &account->vcpus[index];
    struct text out = text_in(text, bytes);

    text_put(&out, "vCPU %" PRIu32, index);
    if (vcpu->stand.activity == STAND_UNKNOWN) {
        text_put(&out, " stood where KVM does not say");
    } else if (vcpu->stand.activity == STAND_UNSTARTED) {
        text_put(&out, " was never started");
    } else if (stand_is_reset(&vcpu->stand)) {
        text_put(&out, " was reset: this processor keeps nothing of a guest that ends in a triple fault");
    } else {
        text_put(&out, " %s", verbs[vcpu->stand.activity]);
        put_where(&out, vcpu);
        put_mode(&out, &vcpu->stand);
    }
}

/* "port 0xe9 (23 writes of 1 byte, the last 0x21)" */
static void put_missed(struct text *text, const struct bus_missed *missed)
{
    const char *kind = missed->is_write ? "write" : "read";

    text_put(text, "%s 0x%" PRIx64 " (", missed->space == BUS_PIO ? "port" : "address", missed->address);
    if (missed->count == 1) {
        text_put(text, "a %s", kind);
    } else {
        text_put(text, "%" PRIu64 " %ss", missed->count, kind);
    }
    text_put(text, " of %" PRIu32 " byte%s", missed->bytes, missed->bytes == 1 ? "" : "s");
    if (missed->is_write) {
        text_put(text, "%s 0x%" PRIx64, missed->count == 1 ? ":" : ", the last", missed->value);
    }
    text_put(text, ")");
}

void account_missed_line(const struct account *account, char *text, size_t bytes)
{
    struct text out = text_in(text, bytes);

    for (uint32_t i = 0; i < account->missed_count && i < SHOWN_MAX; i++) {
        text_put(&out, i == 0 ? "nobody answered at " : ", ");
        put_missed(&out, &account->missed[i]);
    }
    if (account->missed_count > SHOWN_MAX) {
        text_put(&out, ", and before that elsewhere");
    }
}

void account_print(const struct account *account, FILE *out)
{
    char line[ACCOUNT_LINE_BYTES];

    for (uint32_t i = 0; i < account->vcpu_count; i++) {
        account_vcpu_line(account, i, line, sizeof line);
        fprintf(out, "%s\n", line);
    }
    account_missed_line(account, line, sizeof line);
    if (line[0] != '\0') {
        fprintf(out, "%s\n", line);
    }
}

void account_end(const struct account *account, const char *end, char *text, size_t bytes)
{
    struct text out = text_in(text, bytes);

    text_put(&out, "%s", end);
    if (account->advice[0] != '\0') {
        text_put(&out, ": %s", account->advice);
    }
}
