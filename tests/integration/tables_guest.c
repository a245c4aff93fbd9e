// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that looks for the tables of firmware as a kernel does that is told nothing, holds them against their checksums, and
 * does with what they say as its command line wants:
 *
 *     look    says where they are: code 0 if both kinds are there, 5 if neither is
 *     start   starts every other processor that the MADT names by INIT and SIPI, one after the other
 *     off     turns itself off by PM1_CNT            sleep   by the sleep control register
 *     reset   resets itself by the reset register
 *
 * Tables: ACPI 6.5, section 5.2; MultiProcessor Specification 1.4, chapter 4. INIT and SIPI: SDM volume 3A, section 9.4.4.
 */
#include "guest/guest.h"

#include <stdbool.h>

#define SCAN_START 0xe0000u
#define SCAN_MP    0xf0000u
#define SCAN_END   0x100000u

#define HEADER_BYTES       36u
#define FADT_CONTROL       64u
#define FADT_RESET         116u
#define FADT_RESET_VALUE   128u
#define FADT_X_DSDT        140u
#define FADT_SLEEP_CONTROL 244u
#define ADDRESS_PORT       4u    /* in a generic address structure */
#define SLEEP_S5           0x20u /* SLP_EN with type 0: in the second byte of PM1_CNT, and in the sleep control register */

#define APIC_COMMAND      0x300u
#define APIC_COMMAND_HIGH 0x310u
#define COMMAND_INIT      0x4500u
#define COMMAND_START     0x4600u
#define COMMAND_PENDING   0x1000u

#define START_PAGE 0x8u /* where others start: 0x8000 */
#define START_FLAG 0x8800u

enum { CODE_NOTHING = 5, CODE_BROKEN = 6, CODE_USAGE = 7 };

struct tables {
    uint64_t rsdp, fadt, madt, mp;
};

/* movb $1, START_FLAG; then halted for good. In real mode, with CS's base at the page: DS is 0. */
static const uint8_t start_code[] = {0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xc6, 0x06, 0x00, 0x88, 0x01, 0xf4, 0xeb, 0xfd};

static void say(const char *name, uint64_t value)
{
    console_text(name);
    console_hex(value);
    console_text("\r\n");
}

_Noreturn static void give_up(const char *why)
{
    say(why, 0);
    platform_exit(CODE_BROKEN);
}

/* --- Bytes -------------------------------------------------------------------------------------------------------- */

static bool is_text(uint64_t gpa, const char *text)
{
    for (; *text != '\0'; text++, gpa++) {
        if (platform_load8(gpa) != (uint8_t)*text) {
            return false;
        }
    }
    return true;
}

static bool adds_up(uint64_t gpa, uint64_t bytes)
{
    uint8_t sum = 0;

    for (uint64_t i = 0; i < bytes; i++) {
        sum = (uint8_t)(sum + platform_load8(gpa + i));
    }
    return sum == 0;
}

static uint64_t scan(const char *signature, uint64_t gpa)
{
    while (gpa < SCAN_END && !is_text(gpa, signature)) {
        gpa += 16;
    }
    return gpa < SCAN_END ? gpa : 0;
}

/* --- Tables ------------------------------------------------------------------------------------------------------- */

static void check_table(uint64_t gpa)
{
    if (!adds_up(gpa, platform_load32(gpa + 4))) {
        give_up("a table does not add up: ");
    }
}

static void read_acpi(struct tables *tables)
{
    uint64_t xsdt = platform_load64(tables->rsdp + 24);

    if (!adds_up(tables->rsdp, 20) || !adds_up(tables->rsdp, 36) || !is_text(xsdt, "XSDT")) {
        give_up("RSDP: ");
    }
    check_table(xsdt);
    for (uint64_t at = xsdt + HEADER_BYTES; at < xsdt + platform_load32(xsdt + 4); at += 8) {
        uint64_t gpa = platform_load64(at);

        check_table(gpa);
        tables->fadt = is_text(gpa, "FACP") ? gpa : tables->fadt;
        tables->madt = is_text(gpa, "APIC") ? gpa : tables->madt;
    }
    if (tables->fadt == 0 || tables->madt == 0) {
        give_up("FADT or MADT: ");
    }
    check_table(platform_load64(tables->fadt + FADT_X_DSDT));
}

static void read_mp(const struct tables *tables)
{
    uint64_t table = platform_load32(tables->mp + 4);

    if (!adds_up(tables->mp, 16) || !is_text(table, "PCMP") || !adds_up(table, platform_load16(table + 4))) {
        give_up("MP table: ");
    }
}

/* Entries of the MP table come in the order of their kinds: processors first. */
static uint64_t count_mp(const struct tables *tables)
{
    uint64_t at = platform_load32(tables->mp + 4) + UINT64_C(44), count = 0;

    for (; platform_load8(at) == 0; at += 20) {
        count++;
    }
    return count;
}

/* --- Processors --------------------------------------------------------------------------------------------------- */

static void command(uint64_t apic, uint8_t id, uint32_t value)
{
    platform_store32(apic + APIC_COMMAND_HIGH, (uint32_t)id << 24);
    platform_store32(apic + APIC_COMMAND, value);
    while ((platform_load32(apic + APIC_COMMAND) & COMMAND_PENDING) != 0) {
        platform_pause();
    }
}

/* Returns when it runs. */
static void start(uint64_t apic, uint8_t id)
{
    platform_store8(START_FLAG, 0);
    command(apic, id, COMMAND_INIT);
    command(apic, id, COMMAND_START | START_PAGE);
    while (platform_load8(START_FLAG) == 0) {
        platform_pause();
    }
}

static uint64_t start_others(const struct tables *tables)
{
    uint64_t apic = platform_load32(tables->madt + HEADER_BYTES), count = 0;
    uint64_t end = tables->madt + platform_load32(tables->madt + 4);
    uint8_t self;

    if (!paging_map(apic, PLATFORM_PAGE_BYTES)) {
        give_up("local APIC: ");
    }
    self = (uint8_t)(platform_load32(apic + 0x20) >> 24);
    memcpy((void *)(uintptr_t)(START_PAGE << 12), start_code, sizeof start_code);
    for (uint64_t at = tables->madt + 44; at < end; at += platform_load8(at + 1)) {
        if (platform_load8(at) != 0) {
            continue;
        }
        count++;
        if (platform_load8(at + 3) != self) {
            start(apic, platform_load8(at + 3));
        }
    }
    return count;
}

/* --- What is wanted ----------------------------------------------------------------------------------------------- */

static uint16_t port_of(const struct tables *tables, uint64_t offset)
{
    return (uint16_t)platform_load64(tables->fadt + offset + ADDRESS_PORT);
}

static void obey(uint64_t line, const struct tables *tables)
{
    if (is_text(line, "look")) {
        say("RSDP ", tables->rsdp);
        say("MP ", tables->mp);
        platform_exit(tables->rsdp != 0 && tables->mp != 0 ? LOAM_ABI_EXIT_PASS : CODE_NOTHING);
    } else if (is_text(line, "start")) {
        say("MADT runs ", start_others(tables));
        say("MP names ", count_mp(tables));
        platform_exit(LOAM_ABI_EXIT_PASS);
    } else if (is_text(line, "off")) {
        platform_out8((uint16_t)(platform_load32(tables->fadt + FADT_CONTROL) + 1), SLEEP_S5);
    } else if (is_text(line, "sleep")) {
        platform_out8(port_of(tables, FADT_SLEEP_CONTROL), SLEEP_S5);
    } else if (is_text(line, "reset")) {
        platform_out8(port_of(tables, FADT_RESET), platform_load8(tables->fadt + FADT_RESET_VALUE));
    }
    platform_exit(CODE_USAGE);
}

_Noreturn void guest_main(uint64_t start_info)
{
    struct tables tables = {.rsdp = scan("RSD PTR ", SCAN_START), .mp = scan("_MP_", SCAN_MP)};

    exceptions_install("tables");
    paging_init();
    if (!pvh_valid(start_info)) {
        give_up("start info: ");
    }
    if (tables.rsdp != 0) {
        read_acpi(&tables);
    }
    if (tables.mp != 0) {
        read_mp(&tables);
    }
    obey(((const struct pvh_start_info *)(uintptr_t)start_info)->command_line, &tables);
    platform_halt();
}
