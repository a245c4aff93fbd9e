// SPDX-License-Identifier: Apache-2.0
/*
 * The tables as one reads them who knows ACPI 6.5, chapter 5, and not their writer; and as ACPICA's iasl reads them, whose
 * disassembly compiles again to the same bytes.
 */
#include "vmm/acpi.h"

#include "tests/support/process.h"
#include "vmm/machine.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE               0xe0000u
#define ROOM               0x10000u
#define IASL               "iasl"
#define LIMIT_MILLISECONDS 60000
#define HEADER_BYTES       36u

static uint8_t bytes[ROOM];
static size_t whole_bytes;

static uint64_t number(const uint8_t *at, uint32_t count)
{
    uint64_t value = 0;

    while (count > 0) {
        value = value << 8 | at[--count];
    }
    return value;
}

static uint8_t sum(const uint8_t *at, size_t count)
{
    uint8_t total = 0;

    while (count > 0) {
        total = (uint8_t)(total + at[--count]);
    }
    return total;
}

static void write_tables(uint32_t vcpu_count, uint32_t transports, uint8_t century)
{
    const struct acpi_config config = {vcpu_count, transports, century};

    memset(bytes, 0xa5, sizeof bytes);
    whole_bytes = acpi_write(&config, loam_gpa_from_u64(BASE), bytes, sizeof bytes);
    cr_assert_leq(whole_bytes, sizeof bytes);
}

/* What a guest finds at gpa: count bytes that lie within the tables. */
static const uint8_t *at(uint64_t gpa, size_t count)
{
    cr_assert(gpa >= BASE && gpa - BASE <= whole_bytes && count <= whole_bytes - (gpa - BASE), "0x%" PRIx64, gpa);
    return bytes + (gpa - BASE);
}

static const uint8_t *table_at(uint64_t gpa, const char *signature)
{
    const uint8_t *table = at(gpa, HEADER_BYTES);

    cr_assert_arr_eq(table, signature, 4);
    cr_assert_eq(sum(at(gpa, number(table + 4, 4)), number(table + 4, 4)), 0, "%s", signature);
    cr_expect_arr_eq(table + 10, "LOAM  LOAM    ", 14);
    return table;
}

static const uint8_t *xsdt(void)
{
    return table_at(number(bytes + 24, 8), "XSDT");
}

static const uint8_t *fadt(void)
{
    return table_at(number(xsdt() + HEADER_BYTES, 8), "FACP");
}

static const uint8_t *madt(void)
{
    return table_at(number(xsdt() + HEADER_BYTES + 8, 8), "APIC");
}

static const uint8_t *dsdt(void)
{
    return table_at(number(fadt() + 140, 8), "DSDT");
}

static const uint8_t *facs(void)
{
    return at(number(fadt() + 36, 4), 64);
}

TestSuite(acpi, .timeout = 120);

Test(acpi, begins_with_what_points_to_all_others)
{
    const uint8_t *rsdt;

    write_tables(1, 1, 0);
    cr_expect_arr_eq(bytes, "RSD PTR ", 8);
    cr_expect_eq(sum(bytes, 20), 0);
    cr_expect_eq(sum(bytes, 36), 0);
    cr_expect_eq(bytes[15], 2);
    cr_expect_eq(number(bytes + 20, 4), 36);
    rsdt = table_at(number(bytes + 16, 4), "RSDT");
    cr_expect_eq(number(rsdt + 4, 4), HEADER_BYTES + 8);
    cr_expect_eq(number(xsdt() + 4, 4), HEADER_BYTES + 16);
    for (uint32_t i = 0; i < 2; i++) {
        cr_expect_eq(number(rsdt + HEADER_BYTES + 4 * i, 4), number(xsdt() + HEADER_BYTES + 8 * i, 8));
    }
    cr_expect_arr_eq(facs(), "FACS", 4);
    cr_expect_eq(number(facs() + 4, 4), 64);
    cr_expect_eq((facs() - bytes) % 64, 0);
    dsdt();
}

static void expect_register(size_t offset, uint64_t port, uint32_t bits, uint32_t access)
{
    const uint8_t *address = fadt() + offset;

    cr_expect_eq(address[0], 1, "I/O ports");
    cr_expect_eq(address[1], bits);
    cr_expect_eq(address[2], 0);
    cr_expect_eq(address[3], access);
    cr_expect_eq(number(address + 4, 8), port);
}

Test(acpi, has_fixed_hardware_and_registers_for_sleep_and_reset)
{
    write_tables(1, 1, 0);
    cr_expect_eq(number(fadt() + 4, 4), 276);
    cr_expect_eq(fadt()[8], 6);
    cr_expect_eq(fadt()[131], 5, "6.5");
    cr_expect_eq(number(fadt() + 46, 2), 9, "SCI");
    cr_expect_eq(number(fadt() + 48, 4), 0, "SMI_CMD: there is no other mode");
    cr_expect_eq(number(fadt() + 56, 4), 0x600);
    cr_expect_eq(number(fadt() + 64, 4), 0x604);
    cr_expect_eq(fadt()[88], 4);
    cr_expect_eq(fadt()[89], 2);
    cr_expect_eq(number(fadt() + 40, 4), number(fadt() + 140, 8));
    /* WBINVD, C1, no sleep button, no alarm that wakes, reset register, headless; the power button is fixed hardware. */
    cr_expect_eq(number(fadt() + 112, 4), 1u << 0 | 1u << 2 | 1u << 5 | 1u << 6 | 1u << 10 | 1u << 12);
    expect_register(116, 0xcf9, 8, 1);
    cr_expect_eq(fadt()[128], 6);
    expect_register(148, 0x600, 32, 2);
    expect_register(172, 0x604, 16, 2);
    expect_register(244, 0x608, 8, 1);
    expect_register(256, 0x60c, 8, 1);
}

Test(acpi, tells_of_a_clock_only_where_there_is_one)
{
    write_tables(1, 1, 0);
    cr_expect_eq(number(fadt() + 109, 2), 1u << 0 | 1u << 2 | 1u << 5, "no 8042, no VGA, no CMOS clock");
    cr_expect_eq(fadt()[108], 0);
    cr_expect_null(memmem(dsdt(), number(dsdt() + 4, 4), "RTC_", 4));
    write_tables(1, 1, 0x32);
    cr_expect_eq(number(fadt() + 109, 2), 1u << 0 | 1u << 2);
    cr_expect_eq(fadt()[108], 0x32);
    cr_expect_not_null(memmem(dsdt(), number(dsdt() + 4, 4), "RTC_", 4));
}

struct found {
    uint32_t processors, io_apics, overrides, nmis;
};

static void read_structure(const uint8_t *structure, struct found *found)
{
    switch (structure[0]) {
    case 0:
        cr_expect_eq(structure[1], 8);
        cr_expect_eq(structure[2], found->processors);
        cr_expect_eq(structure[3], found->processors);
        cr_expect_eq(number(structure + 4, 4), 1, "enabled");
        cr_expect_lt(found->processors++, 255);
        break;
    case 9:
        cr_expect_eq(structure[1], 16);
        cr_expect_eq(number(structure + 4, 4), found->processors);
        cr_expect_eq(number(structure + 8, 4), 1);
        cr_expect_eq(number(structure + 12, 4), found->processors);
        cr_expect_geq(found->processors++, 255);
        break;
    case 1:
        cr_expect_eq(structure[1], 12);
        cr_expect_eq(number(structure + 4, 4), 0xfec00000);
        cr_expect_eq(number(structure + 8, 4), 0);
        found->io_apics++;
        break;
    case 2:
        cr_expect_eq(structure[1], 10);
        cr_expect_eq(structure[3], number(structure + 4, 4), "a line keeps its number");
        cr_expect_eq(number(structure + 8, 2), 0xd, "a level, high");
        cr_expect(machine_line_is_level(structure[3]));
        found->overrides++;
        break;
    case 4:
    case 10:
        cr_expect_eq(structure[1], structure[0] == 4 ? 6 : 12);
        cr_expect_eq(structure[structure[0] == 4 ? 5 : 8], 1, "LINT1");
        found->nmis++;
        break;
    default:
        cr_assert_fail("structure %u", structure[0]);
    }
}

Test(acpi, lists_all_processors_and_lines)
{
    static const uint32_t counts[] = {1, 2, 64, 255, 256, 1024};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct found found = {0};
        uint64_t end;

        write_tables(counts[i], 1, 0);
        end = number(madt() + 4, 4);
        cr_expect_eq(number(madt() + 36, 4), 0xfee00000);
        cr_expect_eq(number(madt() + 40, 4), 1, "there are 8259As");
        for (uint64_t offset = 44; offset < end; offset += madt()[offset + 1]) {
            cr_assert_gt(madt()[offset + 1], 0);
            cr_assert_leq(madt()[offset + 1], end - offset);
            read_structure(madt() + offset, &found);
        }
        cr_expect_eq(found.processors, counts[i]);
        cr_expect_eq(found.io_apics, 1);
        cr_expect_eq(found.overrides, MACHINE_VIRTIO_MAX + 1);
        cr_expect_eq(found.nmis, counts[i] > 255 ? 2 : 1);
    }
}

Test(acpi, writes_no_further_than_its_room)
{
    const struct acpi_config config = {2, 0xff, 0x32};

    write_tables(2, 0xff, 0x32);
    for (size_t room = 0, whole = whole_bytes; room < whole; room++) {
        memset(bytes, 0xa5, sizeof bytes);
        cr_assert_eq(acpi_write(&config, loam_gpa_from_u64(BASE), bytes, room), whole);
        for (size_t i = room; i < whole + 16; i++) {
            cr_assert_eq(bytes[i], 0xa5, "room for %zu, byte %zu", room, i);
        }
    }
}

/* --- ACPICA ------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/loam-acpi-XXXXXX";

static void make_folder(void)
{
    struct process iasl;

    cr_assert_not_null(mkdtemp(folder));
    if (process_run(&iasl, (char *[]){IASL, "-v", NULL}, LIMIT_MILLISECONDS) != 0) {
        process_end(&iasl);
        rmdir(folder);
        cr_skip_test("no %s on PATH: install acpica-tools", IASL);
    }
    process_end(&iasl);
}

static void remove_folder(void)
{
    DIR *entries = opendir(folder);
    char path[300];

    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (entries != NULL) {
        closedir(entries);
    }
    rmdir(folder);
}

/* What it prints of a problem is a line with one of these words, but for those that count none. */
static void run_iasl(char *const argv[], const char *what)
{
    static const char *const words[] = {"Warning", "Error", "Remark"};
    struct process iasl;
    int status = process_run(&iasl, argv, LIMIT_MILLISECONDS);

    cr_expect_eq(status, 0, "%s: status %d: %s%s", what, status, iasl.out, iasl.err);
    for (char *line = strtok(iasl.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        bool is_count = strstr(line, "0 Errors, 0 Warnings, 0 Remarks") != NULL;

        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            cr_expect(is_count || strstr(line, words[i]) == NULL, "%s: %s", what, line);
        }
    }
    cr_expect_eq(iasl.err_bytes == 0 || strstr(iasl.err, "Warning") == NULL, true, "%s: %s", what, iasl.err);
    process_end(&iasl);
}

/* The file's bytes, freed by the caller. */
static uint8_t *read_file(const char *path, size_t *count)
{
    FILE *file = fopen(path, "rb");
    uint8_t *contents = malloc(ROOM);

    cr_assert(file != NULL && contents != NULL, "%s", path);
    *count = fread(contents, 1, ROOM, file);
    fclose(file);
    return contents;
}

/* Beside who made it: the compiler says that it did, in 8 bytes of the header, and so has another checksum. */
static void expect_same(const uint8_t *table, size_t count, const char *path, bool has_header)
{
    size_t again_count;
    uint8_t *again = read_file(path, &again_count);

    cr_assert_eq(again_count, count, "%s: %zu bytes, and it was %zu", path, again_count, count);
    for (size_t i = 0; i < count; i++) {
        bool is_makers = has_header && (i == 9 || (i >= 28 && i < 36));

        cr_expect(is_makers || again[i] == table[i], "%s: byte %zu", path, i);
    }
    free(again);
}

static void disassemble_and_compile(const char *name, const uint8_t *table, size_t count, bool has_header)
{
    char binary[64], source[64], prefix[64], again[80];
    FILE *file;

    snprintf(binary, sizeof binary, "%s/%s.dat", folder, name);
    snprintf(source, sizeof source, "%s/%s.dsl", folder, name);
    snprintf(prefix, sizeof prefix, "%s/%s-again", folder, name);
    snprintf(again, sizeof again, "%s/%s-again.aml", folder, name);
    file = fopen(binary, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(table, 1, count, file), count);
    fclose(file);
    run_iasl((char *[]){IASL, "-d", binary, NULL}, name);
    run_iasl((char *[]){IASL, "-p", prefix, source, NULL}, name);
    expect_same(table, count, again, has_header);
}

/* But the RSDP, which iasl compiles and does not read. */
static void disassemble_all(uint32_t vcpu_count, uint32_t transports, uint8_t century)
{
    write_tables(vcpu_count, transports, century);
    disassemble_and_compile("rsdt", table_at(number(bytes + 16, 4), "RSDT"), HEADER_BYTES + 8, true);
    disassemble_and_compile("xsdt", xsdt(), number(xsdt() + 4, 4), true);
    disassemble_and_compile("facp", fadt(), number(fadt() + 4, 4), true);
    disassemble_and_compile("facs", facs(), 64, false);
    disassemble_and_compile("apic", madt(), number(madt() + 4, 4), true);
    disassemble_and_compile("dsdt", dsdt(), number(dsdt() + 4, 4), true);
}

TestSuite(acpica, .init = make_folder, .fini = remove_folder, .timeout = 300);

Test(acpica, understands_the_tables_of_few)
{
    disassemble_all(1, 0, 0);
}

Test(acpica, understands_the_tables_of_many)
{
    disassemble_all(300, 0xff, 0x32);
}

/* As source: what the devices are, where, and by which interrupt they are heard. */
Test(acpica, reads_the_devices)
{
    static const char *const lines[] = {
        "Device (COM1)",
        "Name (_HID, EisaId (\"PNP0501\")",
        "IRQNoFlags ()\n                    {4}",
        "Device (RTC)",
        "Device (PEVT)",
        "\"QEMU0001\"",
        "Device (VIO0)",
        "0xD0000000,",
        "Device (VIO7)",
        "0xD0007000,",
        "0x0000000F,",
        "Name (_S5, Package (0x04)",
    };
    char path[64];
    uint8_t *source;
    size_t count;

    write_tables(2, 1u << 0 | 1u << 7, 0x32);
    disassemble_and_compile("dsdt", dsdt(), number(dsdt() + 4, 4), true);
    snprintf(path, sizeof path, "%s/dsdt.dsl", folder);
    source = read_file(path, &count);
    cr_assert_lt(count, ROOM);
    source[count] = '\0';
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        cr_expect_not_null(strstr((char *)source, lines[i]), "%s\n%s", lines[i], source);
    }
    cr_expect_null(strstr((char *)source, "Device (VIO1)"));
    free(source);
}
