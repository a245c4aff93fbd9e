// SPDX-License-Identifier: Apache-2.0
#include "vmm/advice.h"

#include "loam/types.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CR0_PE   (UINT64_C(1) << 0)
#define CR0_PG   (UINT64_C(1) << 31)
#define EFER_LME (UINT64_C(1) << 8)

/* From here on a PC has devices, and no kernel looks for RAM. */
#define DEVICES_START (3 * LOAM_GIB)

/* More RAM is asked for in these steps once a power of two would be too much. */
#define LARGE_STEP (512 * LOAM_MIB)

struct reason {
    bool (*fits)(const struct advice_facts *facts);
    void (*tell)(const struct advice_facts *facts, char *text, size_t bytes);
};

/* --- Instructions ------------------------------------------------------------------------------------------------- */

static const struct {
    const char *instruction, *word;
} linux_words[] = {
    {"xsave", "noxsave"},
    {"xsave64", "noxsave"},
    {"xsavec", "noxsave"},
    {"xsavec64", "noxsave"},
    {"xsaveopt", "noxsave"},
    {"xsaveopt64", "noxsave"},
    {"xsaves", "noxsave"},
    {"xsaves64", "noxsave"},
    {"xrstor", "noxsave"},
    {"xrstor64", "noxsave"},
    {"xrstors", "noxsave"},
    {"xrstors64", "noxsave"},
    {"xgetbv", "noxsave"},
    {"xsetbv", "noxsave"},
    {"clac", "clearcpuid=308"},
    {"stac", "clearcpuid=308"},
    {"popcnt", "clearcpuid=151"},
    {"cmpxchg16b", "clearcpuid=141"},
    {"rdfsbase", "clearcpuid=288"},
    {"rdgsbase", "clearcpuid=288"},
    {"wrfsbase", "clearcpuid=288"},
    {"wrgsbase", "clearcpuid=288"},
    {"invpcid", "nopcid noinvpcid"},
    {"vmcall", "nopv"},
    {"vmmcall", "nopv"},
};

const char *advice_linux_word(const char *instruction)
{
    for (size_t i = 0; i < sizeof linux_words / sizeof linux_words[0]; i++) {
        if (strcmp(linux_words[i].instruction, instruction) == 0) {
            return linux_words[i].word;
        }
    }
    return NULL;
}

/* "XRSTOR64", as manuals write it. */
struct name {
    char text[DISASSEMBLY_NAME_BYTES];
};

static struct name name_of(const struct disassembly *instruction)
{
    struct name name;
    size_t length = 0;

    for (; instruction->name[length] != '\0'; length++) {
        name.text[length] = (char)toupper((unsigned char)instruction->name[length]);
    }
    name.text[length] = '\0';
    return name;
}

static bool lacks_known(const struct advice_facts *facts)
{
    return facts->stand != NULL && facts->stand->lacks_instruction && facts->instruction != NULL;
}

static void tell_lacking(const struct advice_facts *facts, char *text, size_t bytes)
{
    const char *word = advice_linux_word(facts->instruction->name);
    struct name name = name_of(facts->instruction);

    if (word != NULL) {
        snprintf(text, bytes, "its emulator lacks %s: a Linux kernel leaves it out with %s on its command line",
                 name.text, word);
    } else if (facts->kvm_emulates) {
        snprintf(text, bytes,
                 "its emulator lacks %s, and there is no hardware virtualization under it: a host with VT-x or AMD-V "
                 "carries it out",
                 name.text);
    } else {
        snprintf(text, bytes, "its emulator lacks %s, which it meets at devices and in real mode only", name.text);
    }
}

static bool lacks_code(const struct advice_facts *facts)
{
    return facts->stand != NULL && facts->stand->lacks_instruction && facts->stand->code_bytes == 0;
}

static void tell_no_code(const struct advice_facts *facts, char *text, size_t bytes)
{
    snprintf(text, bytes, "the guest went to 0x%" PRIx64 ", where there is no code", facts->stand->rip);
}

/* --- Triple faults ------------------------------------------------------------------------------------------------ */

/* The general register that MOV CR0 reads, by its number (Intel SDM volume 2B, MOV - Move to/from Control Registers). */
static uint64_t general_register(const struct kvm_regs *regs, unsigned number)
{
    const uint64_t values[] = {regs->rax, regs->rcx, regs->rdx, regs->rbx, regs->rsp, regs->rbp, regs->rsi, regs->rdi};

    return values[number];
}

/*
 * It is about to turn paging on outside long mode, by a value with which no processor finds fault: what fault there is then
 * comes after the instruction, and not at it.
 */
static bool turns_legacy_paging_on(const struct advice_facts *facts)
{
    const struct stand *stand = facts->stand;
    uint64_t value;

    if (!facts->kvm_emulates || stand == NULL || !stand->is_triple_fault || (stand->sregs.cr0 & CR0_PG) != 0 ||
        (stand->sregs.efer & EFER_LME) != 0 || stand->code_bytes < 3 || stand->code[0] != 0x0f ||
        stand->code[1] != 0x22 || (stand->code[2] & 0x38) != 0) {
        return false;
    }
    value = general_register(&stand->regs, stand->code[2] & 7u);
    return (value & CR0_PG) != 0 && (value & CR0_PE) != 0;
}

static void tell_legacy_paging(const struct advice_facts *facts, char *text, size_t bytes)
{
    (void)facts;
    snprintf(
        text, bytes,
        "it turned paging on outside long mode, which this KVM, without hardware virtualization under it, does not "
        "have: use a 64-bit guest, or a host with VT-x or AMD-V");
}

static bool has_no_handlers(const struct advice_facts *facts)
{
    const struct stand *stand = facts->stand;

    return stand != NULL && stand->is_triple_fault && !stand_is_reset(stand) && stand->mode != STAND_REAL &&
           stand->sregs.idt.limit == 0;
}

static void tell_no_handlers(const struct advice_facts *facts, char *text, size_t bytes)
{
    snprintf(text, bytes, "an exception came%s%s, and the guest has no handlers yet: its IDT is empty",
             facts->instruction != NULL ? " at " : "",
             facts->instruction != NULL ? name_of(facts->instruction).text : "");
}

/* --- Memory ------------------------------------------------------------------------------------------------------- */

static bool seeks_ram(const struct advice_facts *facts, uint64_t address)
{
    return address >= facts->low_bytes && address < DEVICES_START;
}

/* Where the guest seems to have looked for RAM last: behind what it has, and before where devices are. 0: nowhere. */
static uint64_t past_ram(const struct advice_facts *facts)
{
    if (lacks_code(facts) && seeks_ram(facts, facts->stand->rip)) {
        return facts->stand->rip;
    }
    for (uint32_t i = 0; i < facts->missed_count; i++) {
        if (facts->missed[i].space == BUS_MMIO && seeks_ram(facts, facts->missed[i].address)) {
            return facts->missed[i].address;
        }
    }
    return 0;
}

static bool is_past_ram(const struct advice_facts *facts)
{
    return past_ram(facts) != 0;
}

/* A round figure above address. */
static uint64_t enough(uint64_t address)
{
    uint64_t bytes = LOAM_MIB;

    while (bytes <= address && bytes < LOAM_GIB) {
        bytes *= 2;
    }
    return bytes > address ? bytes : loam_align_up(address + 1, LARGE_STEP);
}

static void tell_past_ram(const struct advice_facts *facts, char *text, size_t bytes)
{
    uint64_t address = past_ram(facts);

    snprintf(text, bytes,
             "it reached for 0x%" PRIx64 ", where no RAM is: if it needs some there, raise --%s to %" PRIu64 "M",
             address, facts->high_bytes > 0 ? "low-limit" : "memory", enough(address) / LOAM_MIB);
}

static const struct reason reasons[] = {
    {turns_legacy_paging_on, tell_legacy_paging},
    {lacks_known, tell_lacking},
    {is_past_ram, tell_past_ram},
    {lacks_code, tell_no_code},
    {has_no_handlers, tell_no_handlers},
};

void advice_of(const struct advice_facts *facts, char *text, size_t bytes)
{
    text[0] = '\0';
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].fits(facts)) {
            reasons[i].tell(facts, text, bytes);
            return;
        }
    }
}
