// SPDX-License-Identifier: Apache-2.0
#include "guest/paging.h"

#include "guest/platform.h"

#define GIB_SHIFT  30
#define ENTRIES    512u
#define PTE_TABLE  UINT64_C(0x03) /* present, writable */
#define PTE_PAGE   UINT64_C(0x83) /* and a page of its own: PS */
#define PAGE_2M    (UINT64_C(1) << 21)
#define TABLES_MAX 63u /* and the first GiB's: 64 GiB */

#define CPUID_FEATURES  UINT32_C(0x80000001)
#define EDX_PAGES_OF_1G (UINT32_C(1) << 26)

extern volatile uint64_t page_directory_pointers[ENTRIES];

static uint64_t tables[TABLES_MAX][ENTRIES] __attribute__((aligned(4096)));
static uint32_t table_count;
static bool has_pages_of_1g;

/*
 * CPUID alone is not to be trusted: a KVM with shadow paging has no pages of 1 GiB, but where it cannot intercept
 * CPUID, the guest sees the machine's own answer. So one is tried, on the last entry, over the first GiB, which is
 * there.
 */
void paging_init(void)
{
    uint64_t last = ENTRIES - 1;

    if ((platform_cpuid_edx(CPUID_FEATURES) & EDX_PAGES_OF_1G) == 0) {
        return;
    }
    page_directory_pointers[last] = PTE_PAGE;
    has_pages_of_1g = platform_probe((last << GIB_SHIFT) + (uintptr_t)tables);
    page_directory_pointers[last] = 0;
    platform_flush_translations();
}

static bool map_gib(uint64_t index)
{
    uint64_t *entries, address = index << GIB_SHIFT;

    if (page_directory_pointers[index] != 0) {
        return true;
    }
    if (has_pages_of_1g) {
        page_directory_pointers[index] = address | PTE_PAGE;
        return true;
    }
    if (table_count == TABLES_MAX) {
        return false;
    }
    entries = tables[table_count++];
    for (uint32_t i = 0; i < ENTRIES; i++, address += PAGE_2M) {
        entries[i] = address | PTE_PAGE;
    }
    platform_store_barrier();
    page_directory_pointers[index] = (uintptr_t)entries | PTE_TABLE;
    return true;
}

bool paging_map(uint64_t start, uint64_t bytes)
{
    uint64_t last = start + (bytes - 1);
    bool mapped = bytes > 0 && last >= start && last >> GIB_SHIFT < ENTRIES;

    for (uint64_t i = start >> GIB_SHIFT; mapped && i <= last >> GIB_SHIFT; i++) {
        mapped = map_gib(i);
    }
    return mapped;
}
