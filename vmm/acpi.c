// SPDX-License-Identifier: Apache-2.0
/*
 * References: ACPI 6.5, sections 5.2.5 (RSDP), 5.2.6 (header), 5.2.7 (RSDT), 5.2.8 (XSDT), 5.2.9 (FADT), 5.2.10 (FACS),
 * 5.2.12 (MADT); the device ids: section 5.6.7, and LNRO0005 and QEMU0001 as Linux and QEMU have them.
 */
#include "vmm/acpi.h"

#include "vmm/aml.h"
#include "vmm/machine.h"
#include "vmm/power.h"
#include "vmm/pvpanic.h"
#include "vmm/serial.h"
#include "vmm/table.h"

#include <assert.h>

#define OEM              "LOAM"
#define OEM_BYTES        6u
#define OEM_TABLE_BYTES  8u
#define OEM_REVISION     1u
#define CREATOR_REVISION 1u
#define ALIGN_BYTES      16u
#define SIGNATURE_BYTES  4u
#define LENGTH_OFFSET    4u /* in every table's header */
#define CHECKSUM_OFFSET  9u

#define RSDP_REVISION        2u
#define RSDP_OLD_BYTES       20u /* those that its first checksum is over */
#define RSDP_CHECKSUM_OFFSET 8u
#define RSDP_EXTENDED_OFFSET 32u
#define ROOT_REVISION        1u /* of RSDT and XSDT */
#define FADT_REVISION        6u
#define FADT_MINOR           5u
#define FADT_BYTES           276u
#define MADT_REVISION        5u
#define DSDT_REVISION        2u
#define FACS_VERSION         2u
#define FACS_BYTES           64u
#define FACS_ALIGN_BYTES     64u
#define FACS_VERSION_OFFSET  32u

/* FADT: offsets of what is not zero (table 5.9). */
#define FADT_FACS           36u
#define FADT_DSDT           40u
#define FADT_SCI            46u
#define FADT_EVENTS         56u
#define FADT_CONTROL        64u
#define FADT_EVENTS_LENGTH  88u
#define FADT_CONTROL_LENGTH 89u
#define FADT_LEVEL_2        96u
#define FADT_LEVEL_3        98u
#define FADT_CENTURY        108u
#define FADT_BOOT_FLAGS     109u
#define FADT_FLAGS          112u
#define FADT_RESET          116u
#define FADT_RESET_VALUE    128u
#define FADT_MINOR_VERSION  131u
#define FADT_X_DSDT         140u
#define FADT_X_EVENTS       148u
#define FADT_X_CONTROL      172u
#define FADT_SLEEP_CONTROL  244u
#define FADT_SLEEP_STATUS   256u
#define LEVEL_2_NONE        101u /* microseconds: more than 100, and 1000, say that there is no such state */
#define LEVEL_3_NONE        1001u
#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_NO_VGA         (1u << 2)
#define BOOT_NO_CMOS_CLOCK  (1u << 5)
#define FLAG_WBINVD         (1u << 0)
#define FLAG_C1             (1u << 2) /* HLT works on all processors */
#define FLAG_SLEEP_BUTTON   (1u << 5) /* is no fixed one: there is none at all */
#define FLAG_NO_CLOCK_WAKE  (1u << 6) /* no fixed status bit of the clock's alarm */
#define FLAG_RESET_REGISTER (1u << 10)
#define FLAG_HEADLESS       (1u << 12)

/* Generic address structure (section 5.2.3.2). */
#define ADDRESS_IO 1u

/* Structures of the MADT. */
#define MADT_HAS_8259     1u
#define MADT_LOCAL_APIC   0u
#define MADT_IO_APIC      1u
#define MADT_OVERRIDE     2u
#define MADT_LOCAL_NMI    4u
#define MADT_LOCAL_X2APIC 9u
#define MADT_LOCAL_X2NMI  10u
#define PROCESSOR_ENABLED 1u
#define PROCESSOR_ALL     0xffu
#define PROCESSOR_X2_ALL  UINT32_MAX
#define LOCAL_APIC_ID_END 255u /* ids from here on take the longer form */
#define NMI_INPUT         1u
#define ISA_BUS           0u
#define ISA_LINES         16u
#define LEVEL_HIGH        0xdu

#define CLOCK_PORT  0x70u
#define CLOCK_BYTES 2u

/* --- What all tables have ----------------------------------------------------------------------------------------- */

/* Returns what end_table wants. */
static size_t begin_table(struct table *table, const char *signature, uint32_t revision)
{
    size_t start;

    table_align(table, ALIGN_BYTES);
    start = table->used_bytes;
    table_put_text(table, signature, SIGNATURE_BYTES);
    table_put(table, 0, 4); /* length */
    table_put(table, revision, 1);
    table_put(table, 0, 1); /* checksum */
    table_put_text(table, OEM, OEM_BYTES);
    table_put_text(table, OEM, OEM_TABLE_BYTES);
    table_put(table, OEM_REVISION, 4);
    table_put_text(table, OEM, 4);
    table_put(table, CREATOR_REVISION, 4);
    return start;
}

static void end_table(struct table *table, size_t start)
{
    table_patch(table, start + LENGTH_OFFSET, table->used_bytes - start, 4);
    table_patch(table, start + CHECKSUM_OFFSET, table_checksum(table, start, table->used_bytes), 1);
}

/* --- DSDT --------------------------------------------------------------------------------------------------------- */

static void name_eisa(struct table *table, const char *id, uint32_t unique)
{
    aml_name(table, "_HID");
    aml_eisa_id(table, id);
    aml_name(table, "_UID");
    aml_integer(table, unique);
}

static void name_text(struct table *table, const char *id, uint32_t unique)
{
    aml_name(table, "_HID");
    aml_string(table, id);
    aml_name(table, "_UID");
    aml_integer(table, unique);
}

static void put_serial(struct table *table)
{
    size_t device = aml_open_device(table, "COM1");
    struct aml_resources resources;

    name_eisa(table, "PNP0501", 1);
    resources = aml_open_resources(table);
    aml_ports(table, MACHINE_SERIAL_PORT, SERIAL_BYTES);
    aml_isa_irq(table, MACHINE_SERIAL_IRQ);
    aml_close_resources(table, &resources);
    aml_close(table, device);
}

static void put_clock(struct table *table)
{
    size_t device = aml_open_device(table, "RTC");
    struct aml_resources resources;

    name_eisa(table, "PNP0B00", 0);
    resources = aml_open_resources(table);
    aml_ports(table, CLOCK_PORT, CLOCK_BYTES);
    aml_close_resources(table, &resources);
    aml_close(table, device);
}

static void put_panic_port(struct table *table)
{
    size_t device = aml_open_device(table, "PEVT");
    struct aml_resources resources;

    name_text(table, "QEMU0001", 0);
    resources = aml_open_resources(table);
    aml_ports(table, MACHINE_PANIC_PORT, PVPANIC_BYTES);
    aml_close_resources(table, &resources);
    aml_close(table, device);
}

static void put_transport(struct table *table, unsigned int transport)
{
    const char name[] = {'V', 'I', 'O', (char)('0' + transport), '\0'};
    size_t device = aml_open_device(table, name);
    struct aml_resources resources;

    static_assert(MACHINE_VIRTIO_MAX <= 10, "one digit");
    name_text(table, "LNRO0005", transport);
    resources = aml_open_resources(table);
    aml_memory(table, (uint32_t)(MACHINE_VIRTIO_BASE + transport * MACHINE_VIRTIO_BYTES), MACHINE_VIRTIO_BYTES);
    aml_interrupt(table, machine_virtio_irq(transport));
    aml_close_resources(table, &resources);
    aml_close(table, device);
}

static void put_sleep_type(struct table *table)
{
    size_t package;

    aml_name(table, "_S5");
    package = aml_open_package(table, 4);
    for (unsigned int i = 0; i < 4; i++) {
        aml_integer(table, i < 2 ? POWER_SLEEP_TYPE_OFF : 0); /* of PM1a, PM1b, and two reserved */
    }
    aml_close(table, package);
}

static size_t put_dsdt(struct table *table, const struct acpi_config *config)
{
    size_t start = begin_table(table, "DSDT", DSDT_REVISION), scope = aml_open_scope(table, "_SB");

    put_serial(table);
    if (config->century_register != 0) {
        put_clock(table);
    }
    put_panic_port(table);
    for (unsigned int i = 0; i < MACHINE_VIRTIO_MAX; i++) {
        if ((config->virtio_transports >> i & 1) != 0) {
            put_transport(table, i);
        }
    }
    aml_close(table, scope);
    put_sleep_type(table);
    end_table(table, start);
    return start;
}

/* --- FADT --------------------------------------------------------------------------------------------------------- */

/* A register at a port, in accesses of so many bytes: 1 or 2. */
static void patch_register(struct table *table, size_t offset, uint16_t port, uint32_t bytes, uint32_t access_bytes)
{
    table_patch(table, offset, ADDRESS_IO, 1);
    table_patch(table, offset + 1, UINT64_C(8) * bytes, 1);
    table_patch(table, offset + 3, access_bytes, 1); /* 1 and 2 stand for themselves */
    table_patch(table, offset + 4, port, 8);
}

/* fadt: where it begins. */
static void patch_events(struct table *table, size_t fadt)
{
    const uint16_t control = MACHINE_POWER_PORT + POWER_CONTROL_OFFSET;

    table_patch(table, fadt + FADT_SCI, MACHINE_POWER_IRQ, 2);
    table_patch(table, fadt + FADT_EVENTS, MACHINE_POWER_PORT, 4);
    table_patch(table, fadt + FADT_CONTROL, control, 4);
    table_patch(table, fadt + FADT_EVENTS_LENGTH, POWER_EVENT_BYTES, 1);
    table_patch(table, fadt + FADT_CONTROL_LENGTH, POWER_CONTROL_BYTES, 1);
    patch_register(table, fadt + FADT_X_EVENTS, MACHINE_POWER_PORT, POWER_EVENT_BYTES, 2);
    patch_register(table, fadt + FADT_X_CONTROL, control, POWER_CONTROL_BYTES, 2);
}

static void patch_reset_and_sleep(struct table *table, size_t fadt)
{
    patch_register(table, fadt + FADT_RESET, MACHINE_RESET_PORT, 1, 1);
    table_patch(table, fadt + FADT_RESET_VALUE, MACHINE_RESET_VALUE, 1);
    patch_register(table, fadt + FADT_SLEEP_CONTROL, MACHINE_POWER_PORT + POWER_SLEEP_CONTROL_OFFSET, 1, 1);
    patch_register(table, fadt + FADT_SLEEP_STATUS, MACHINE_POWER_PORT + POWER_SLEEP_STATUS_OFFSET, 1, 1);
}

static size_t put_fadt(struct table *table, const struct acpi_config *config, uint64_t facs, uint64_t dsdt)
{
    const uint32_t boot_flags =
        BOOT_LEGACY_DEVICES | BOOT_NO_VGA | (config->century_register == 0 ? BOOT_NO_CMOS_CLOCK : 0);
    const uint32_t flags =
        FLAG_WBINVD | FLAG_C1 | FLAG_SLEEP_BUTTON | FLAG_NO_CLOCK_WAKE | FLAG_RESET_REGISTER | FLAG_HEADLESS;
    size_t start = begin_table(table, "FACP", FADT_REVISION);

    table_put_zeros(table, FADT_BYTES - (table->used_bytes - start));
    table_patch(table, start + FADT_FACS, facs, 4);
    table_patch(table, start + FADT_DSDT, dsdt, 4);
    table_patch(table, start + FADT_X_DSDT, dsdt, 8);
    table_patch(table, start + FADT_LEVEL_2, LEVEL_2_NONE, 2);
    table_patch(table, start + FADT_LEVEL_3, LEVEL_3_NONE, 2);
    table_patch(table, start + FADT_CENTURY, config->century_register, 1);
    table_patch(table, start + FADT_BOOT_FLAGS, boot_flags, 2);
    table_patch(table, start + FADT_FLAGS, flags, 4);
    table_patch(table, start + FADT_MINOR_VERSION, FADT_MINOR, 1);
    patch_events(table, start);
    patch_reset_and_sleep(table, start);
    end_table(table, start);
    return start;
}

/* It has no checksum: the guest writes to it. */
static size_t put_facs(struct table *table)
{
    size_t start;

    table_align(table, FACS_ALIGN_BYTES);
    start = table->used_bytes;
    table_put_text(table, "FACS", SIGNATURE_BYTES);
    table_put(table, FACS_BYTES, 4);
    table_put_zeros(table, FACS_BYTES - (table->used_bytes - start));
    table_patch(table, start + FACS_VERSION_OFFSET, FACS_VERSION, 1);
    return start;
}

/* --- MADT --------------------------------------------------------------------------------------------------------- */

static void begin_structure(struct table *table, uint32_t type, uint32_t bytes)
{
    table_put(table, type, 1);
    table_put(table, bytes, 1);
}

static void put_processor(struct table *table, uint32_t id)
{
    if (id < LOCAL_APIC_ID_END) {
        begin_structure(table, MADT_LOCAL_APIC, 8);
        table_put(table, id, 1); /* its UID */
        table_put(table, id, 1);
        table_put(table, PROCESSOR_ENABLED, 4);
    } else {
        begin_structure(table, MADT_LOCAL_X2APIC, 16);
        table_put(table, 0, 2);
        table_put(table, id, 4);
        table_put(table, PROCESSOR_ENABLED, 4);
        table_put(table, id, 4);
    }
}

/* Line n is interrupt n in any case; what is overridden is that it is an edge. */
static void put_overrides(struct table *table)
{
    for (unsigned int line = 0; line < ISA_LINES; line++) {
        if (machine_line_is_level(line)) {
            begin_structure(table, MADT_OVERRIDE, 10);
            table_put(table, ISA_BUS, 1);
            table_put(table, line, 1);
            table_put(table, line, 4);
            table_put(table, LEVEL_HIGH, 2);
        }
    }
}

static void put_nmi(struct table *table, uint32_t vcpu_count)
{
    begin_structure(table, MADT_LOCAL_NMI, 6);
    table_put(table, PROCESSOR_ALL, 1);
    table_put(table, 0, 2);
    table_put(table, NMI_INPUT, 1);
    if (vcpu_count > LOCAL_APIC_ID_END) {
        begin_structure(table, MADT_LOCAL_X2NMI, 12);
        table_put(table, 0, 2);
        table_put(table, PROCESSOR_X2_ALL, 4);
        table_put(table, NMI_INPUT, 1);
        table_put(table, 0, 3);
    }
}

static size_t put_madt(struct table *table, uint32_t vcpu_count)
{
    size_t start = begin_table(table, "APIC", MADT_REVISION);

    table_put(table, MACHINE_LOCAL_APIC_BASE, 4);
    table_put(table, MADT_HAS_8259, 4);
    for (uint32_t i = 0; i < vcpu_count; i++) {
        put_processor(table, i);
    }
    begin_structure(table, MADT_IO_APIC, 12);
    table_put(table, MACHINE_IO_APIC_ID, 1);
    table_put(table, 0, 1);
    table_put(table, MACHINE_IO_APIC_BASE, 4);
    table_put(table, 0, 4); /* the number of its first line */
    put_overrides(table);
    put_nmi(table, vcpu_count);
    end_table(table, start);
    return start;
}

/* --- What points to them ------------------------------------------------------------------------------------------ */

static size_t put_root(struct table *table, const char *signature, uint32_t address_bytes, uint64_t fadt, uint64_t madt)
{
    size_t start = begin_table(table, signature, ROOT_REVISION);

    table_put(table, fadt, address_bytes);
    table_put(table, madt, address_bytes);
    end_table(table, start);
    return start;
}

static void put_rsdp(struct table *table, uint64_t rsdt, uint64_t xsdt)
{
    table_put_text(table, "RSD PTR ", RSDP_CHECKSUM_OFFSET);
    table_put(table, 0, 1); /* checksum */
    table_put_text(table, OEM, OEM_BYTES);
    table_put(table, RSDP_REVISION, 1);
    table_put(table, rsdt, 4);
    table_put(table, ACPI_RSDP_BYTES, 4);
    table_put(table, xsdt, 8);
    table_put_zeros(table, 4); /* extended checksum, and reserved bytes */
    table_patch(table, RSDP_CHECKSUM_OFFSET, table_checksum(table, 0, RSDP_OLD_BYTES), 1);
    table_patch(table, RSDP_EXTENDED_OFFSET, table_checksum(table, 0, ACPI_RSDP_BYTES), 1);
}

/* The RSDP is the first and is written last. */
size_t acpi_write(const struct acpi_config *config, loam_gpa gpa, void *bytes, size_t room_bytes)
{
    struct table table, rsdp;
    uint64_t facs, dsdt, fadt, madt, rsdt, xsdt;

    table_init(&table, bytes, room_bytes);
    table_put_zeros(&table, ACPI_RSDP_BYTES);
    facs = gpa.value + put_facs(&table);
    dsdt = gpa.value + put_dsdt(&table, config);
    fadt = gpa.value + put_fadt(&table, config, facs, dsdt);
    madt = gpa.value + put_madt(&table, config->vcpu_count);
    rsdt = gpa.value + put_root(&table, "RSDT", 4, fadt, madt);
    xsdt = gpa.value + put_root(&table, "XSDT", 8, fadt, madt);
    table_init(&rsdp, bytes, room_bytes);
    put_rsdp(&rsdp, rsdt, xsdt);
    return table.used_bytes;
}
