// SPDX-License-Identifier: Apache-2.0
#include "vmm/platform_tables.h"

#include "loam/dma.h"
#include "loam/gpa_map.h"
#include "loam/plan.h"

#include <criterion/criterion.h>
#include <string.h>

static struct loam_memory *memory;
static struct loam_diag diag;

static void set_up(void)
{
    const struct loam_memory_request request = {.bytes = 2 * LOAM_MIB, .pages = LOAM_PAGES_4K};
    struct loam_plan plan;

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
}

static void tear_down(void)
{
    loam_memory_destroy(memory);
}

TestSuite(platform_tables, .init = set_up, .fini = tear_down, .timeout = 60);

static uint8_t *hva(uint64_t gpa, uint64_t bytes)
{
    void *found;

    cr_assert_eq(
        loam_gpa_map_translate(loam_memory_map(memory), loam_gpa_from_u64(gpa), bytes, LOAM_ACCESS_READ, &found),
        LOAM_OK);
    return found;
}

/* Of what scans for it: every 16 bytes. */
static uint64_t scan(const char *signature, size_t bytes, uint64_t start)
{
    for (uint64_t gpa = start; gpa < 0x100000; gpa += 16) {
        if (memcmp(hva(gpa, bytes), signature, bytes) == 0) {
            return gpa;
        }
    }
    return 0;
}

/* All that they lie in is held by the ledger, and reserved. */
static void expect_reserved(uint64_t gpa)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    struct loam_dma_entry entry;
    struct loam_region region;

    cr_expect_eq(loam_dma_find(loam_memory_dma(memory), loam_gpa_from_u64(gpa), &entry), LOAM_OK);
    cr_expect(entry.kept);
    cr_expect_eq(loam_gpa_view_find(view, loam_gpa_from_u64(gpa), &region), LOAM_OK);
    cr_expect_eq(region.type, LOAM_REGION_RESERVED);
    loam_gpa_map_release(loam_memory_map(memory), view);
}

static loam_gpa write_tables(uint32_t vcpu_count, bool without_acpi)
{
    const struct platform_tables_config config = {vcpu_count, 1, without_acpi};
    loam_gpa rsdp = {1};

    cr_assert_eq(platform_tables_write(memory, &config, &rsdp, &diag), LOAM_OK, "%s", diag.text);
    return rsdp;
}

Test(platform_tables, are_found_by_who_scans)
{
    loam_gpa rsdp = write_tables(1024, false);

    cr_expect_eq(rsdp.value, scan("RSD PTR ", 8, 0xe0000));
    cr_expect_neq(rsdp.value, 0);
    cr_expect_neq(scan("_MP_", 4, 0xf0000), 0);
    expect_reserved(rsdp.value);
    expect_reserved(scan("_MP_", 4, 0xf0000));
}

Test(platform_tables, leave_the_e820_map_as_the_plan_has_it)
{
    uint8_t before[8 * LOAM_E820_ROW_BYTES] = {0}, after[8 * LOAM_E820_ROW_BYTES] = {0};
    uint32_t rows_before, rows_after;

    cr_assert_eq(loam_memory_e820(memory, before, sizeof before, &rows_before), LOAM_OK);
    write_tables(2, false);
    cr_assert_eq(loam_memory_e820(memory, after, sizeof after, &rows_after), LOAM_OK);
    cr_expect_eq(rows_before, rows_after);
    cr_expect_arr_eq(before, after, sizeof before);
    cr_expect_eq(loam_dma_count(loam_memory_dma(memory)), 2);
}

/* Memory that had another guest may have its tables as well. */
Test(platform_tables, are_none_of_acpi_if_so_asked)
{
    write_tables(2, false);
    cr_expect_eq(write_tables(2, true).value, 0);
    cr_expect_eq(scan("RSD PTR ", 8, 0xe0000), 0);
    cr_expect_neq(scan("_MP_", 4, 0xf0000), 0);
}

/* The map says where the window's memory is, and that the guest may write it. */
Test(platform_tables, are_refused_where_there_is_no_memory)
{
    const struct platform_tables_config config = {.vcpu_count = 1};
    loam_gpa window = loam_gpa_from_u64(LOAM_LEGACY_START_BYTES), rsdp = {1};
    uint64_t bytes = LOAM_LEGACY_END_BYTES - LOAM_LEGACY_START_BYTES;

    cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), window, bytes, LOAM_ACCESS_READ), LOAM_OK);
    cr_expect_eq(platform_tables_write(memory, &config, &rsdp, &diag), LOAM_ERROR_NOT_PERMITTED);
    cr_expect_eq(rsdp.value, 0);
    cr_expect_not_null(strstr(diag.text, "[0xe0000, 0x100000)"), "%s", diag.text);
}

Test(platform_tables, say_when_there_are_too_many_vcpus)
{
    const struct platform_tables_config config = {.vcpu_count = 5000};
    loam_gpa rsdp = {1};

    cr_expect_eq(platform_tables_write(memory, &config, &rsdp, &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(rsdp.value, 0);
    cr_expect_not_null(strstr(diag.text, "5000 vCPUs"), "%s", diag.text);
}
