// SPDX-License-Identifier: Apache-2.0
/* That a map which is not the plan's is told from one that is. */
#include "tests/integration/e820.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>

/* 32 MiB on either side of the hole. */
#define PLAN "{\"plan\": {\"parts\": [{\"gpa\": 0, \"bytes\": 33554432}, {\"gpa\": 4294967296, \"bytes\": 33554432}]}}"

#define LOW   "[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable\n"
#define PC    "[    0.000000] BIOS-e820: [mem 0x00000000000a0000-0x00000000000fffff] reserved\n"
#define MAIN  "[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x0000000001ffffff] usable\n"
#define UPPER "[    0.000000] BIOS-e820: [mem 0x0000000100000000-0x0000000101ffffff] usable\n"

struct e820_case {
    char log[400], differs[80];
};

ParameterizedTestParameters(e820, is_held_against_the_plan)
{
    static struct e820_case cases[] = {
        {LOW PC MAIN UPPER, ""},
        {LOW PC "BIOS-e820: [mem 0x0000000000100000-0x0000000001ffdfff] usable\n"
                "BIOS-e820: [mem 0x0000000001ffe000-0x0000000001ffffff] ACPI data\n" UPPER,
         ""},
        /* A page of RAM that no entry has; a bank that is missing. */
        {LOW PC "BIOS-e820: [mem 0x0000000000100000-0x0000000001ffefff] usable\n" UPPER,
         "part 0 of the plan is not all in the map"},
        {LOW PC MAIN, "part 1 of the plan is not all in the map"},
        /* RAM beyond the plan's. */
        {LOW PC MAIN "BIOS-e820: [mem 0x0000000100000000-0x0000000102000fff] usable\n",
         "66719744 bytes are usable, 66715648 of them planned"},
        /* The PC's own taken for RAM; too much held back. */
        {"BIOS-e820: [mem 0x0000000000000000-0x0000000001ffffff] usable\n" UPPER, "0 bytes of the plan are not usable"},
        {LOW PC "BIOS-e820: [mem 0x0000000000100000-0x0000000001ffcfff] usable\n"
                "BIOS-e820: [mem 0x0000000001ffd000-0x0000000001ffffff] reserved\n" UPPER,
         "405504 bytes of the plan are not usable"},
        {"", "part 0 of the plan is not all in the map"},
    };

    return cr_make_param_array(struct e820_case, cases, sizeof cases / sizeof cases[0]);
}

ParameterizedTest(struct e820_case *one, e820, is_held_against_the_plan)
{
    json_t *plan = json_loads(PLAN, 0, NULL);
    const char *differs;
    struct e820 map;

    e820_read(one->log, &map);
    differs = e820_differs(&map, plan, 8192);
    cr_expect_str_eq(differs == NULL ? "" : differs, one->differs);
    json_decref(plan);
}

/* More than it has room for, and lines that are none. */
Test(e820, reads_what_it_has_room_for)
{
    static char log[8192];
    struct e820 map;
    size_t used = 0;

    for (unsigned int i = 0; i < E820_ENTRY_MAX + 8; i++) {
        used += (size_t)snprintf(log + used, sizeof log - used,
                                 "BIOS-e820: [mem oops\nBIOS-e820: [mem 0x%x-0x%x] usable\n", i * 16, i * 16 + 15);
    }
    e820_read(log, &map);
    cr_expect_eq(map.count, E820_ENTRY_MAX);
    cr_expect_eq(e820_bytes(&map, 8, 40, false), 32u);
    cr_expect_eq(e820_bytes(&map, 0, UINT64_MAX, true), E820_ENTRY_MAX * 16);
}
