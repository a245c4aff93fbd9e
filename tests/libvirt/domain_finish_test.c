// SPDX-License-Identifier: Apache-2.0
/* What all that is said means together, beyond what a document in domain_read_test shows. */
#include "tools/libvirt/domain_finish.h"

#include <criterion/criterion.h>
#include <string.h>

static struct domain_said said;
static struct domain domain;
static struct xml_walk_refusals refusals;

static void set_up(void)
{
    said = (struct domain_said){.memory_bytes = 64 * LOAM_MIB, .memory_place = {1, "/domain/memory"}};
    domain = (struct domain){0};
    refusals.count = 0;
}

TestSuite(domain_finish, .init = set_up);

static uint32_t finish(void)
{
    refusals.count = 0;
    domain_finish(&said, &domain, &refusals);
    return refusals.count;
}

Test(domain_finish, what_is_not_said_has_its_default)
{
    cr_expect_eq(finish(), 0);
    cr_expect_eq(domain.memory.bytes, 64 * LOAM_MIB);
    cr_expect_eq(domain.vcpu_count, 1);
    cr_expect_eq(domain.memory.part_count, 0);
    cr_expect_eq(domain.memory.pages, LOAM_PAGES_AUTO);
    cr_expect_eq(domain.serial.kind, DOMAIN_SERIAL_TERMINAL);
}

Test(domain_finish, what_was_refused_while_it_was_read_is_not_refused_again)
{
    said.memory_bytes = 0;
    said.current_bytes = LOAM_MIB;
    said.current_place.line = 2;
    cr_expect_eq(finish(), 0, "%s", refusals.texts[0]);
}

Test(domain_finish, cells_fill_their_parts_whatever_their_order)
{
    said.memory_bytes = 36 * LOAM_MIB;
    said.cell_count = LOAM_MEMORY_PART_MAX;
    for (uint32_t i = 0; i < LOAM_MEMORY_PART_MAX; i++) {
        uint64_t id = (i * 3 + 1) % LOAM_MEMORY_PART_MAX;

        said.cells[i] = (struct domain_cell){.id = id, .bytes = (id + 1) * LOAM_MIB};
    }
    said.wish_count = 2;
    said.wishes[0] = (struct domain_page_wish){.pages = LOAM_PAGES_1G, .cell_mask = 0x81};
    said.wishes[1] = (struct domain_page_wish){.pages = LOAM_PAGES_4K};
    said.memnode_count = 1;
    said.memnodes[0] =
        (struct domain_tuning){.placement = LOAM_PLACEMENT_STRICT, .node_mask = 2, .cell = 7, .has_cell = true};
    cr_expect_eq(finish(), 0, "%s", refusals.texts[0]);
    cr_assert_eq(domain.memory.part_count, LOAM_MEMORY_PART_MAX);
    for (uint32_t i = 0; i < LOAM_MEMORY_PART_MAX; i++) {
        const struct loam_backing_request *part = &domain.memory.parts[i];

        cr_expect_eq(part->bytes, (i + 1) * LOAM_MIB);
        cr_expect_eq(part->pages, i == 0 || i == 7 ? LOAM_PAGES_1G : LOAM_PAGES_4K);
        cr_expect_eq(part->placement, i == 7 ? LOAM_PLACEMENT_STRICT : LOAM_PLACEMENT_ANY);
    }
    said.cells[3].id = 0;
    cr_expect_eq(finish(), 1);
    said.wishes[1].cell_mask = 0x180;
    cr_expect_eq(finish(), 2, "cell 8 is none");
    said.wishes[1].cell_mask = 0x80;
    cr_expect_eq(finish(), 2, "cell 7 has its pages already");
}

Test(domain_finish, a_sum_beyond_64_bits_is_no_memory)
{
    said.cell_count = 2;
    said.cells[0] = (struct domain_cell){.id = 0, .bytes = UINT64_MAX - 4095};
    said.cells[1] = (struct domain_cell){.id = 1, .bytes = 64 * LOAM_MIB + 4096};
    cr_expect_eq(finish(), 1, "a sum that wraps round to what <memory> says is taken");
    said.cell_count = 3;
    said.cells[1].bytes = 32 * LOAM_MIB + 4096;
    said.cells[2] = (struct domain_cell){.id = 2, .bytes = 32 * LOAM_MIB};
    cr_expect_eq(finish(), 1, "it wraps round before the last");
    said.memory_place.line = 0;
    cr_expect_eq(finish(), 1);
    cr_expect_str_eq(refusals.texts[0], "no <memory>: a guest wants some");
}

Test(domain_finish, cores_are_those_that_start)
{
    said.vcpu_count = 4;
    said.core_count = 4;
    said.topology_place.line = 3;
    cr_expect_eq(finish(), 0);
    said.current_vcpu_count = 2;
    cr_expect_eq(finish(), 1);
    said.core_count = 2;
    cr_expect_eq(finish(), 0);
    cr_expect_eq(domain.vcpu_count, 2);
}

Test(domain_finish, a_serial_port_comes_before_its_console)
{
    said.console = (struct domain_port){.is_there = true, .serial = {.kind = DOMAIN_SERIAL_NULL}};
    cr_expect_eq(finish(), 0);
    cr_expect_eq(domain.serial.kind, DOMAIN_SERIAL_NULL);
    said.serial = (struct domain_port){.is_there = true, .serial = {.kind = DOMAIN_SERIAL_FILE, .path = "/s"}};
    cr_expect_eq(finish(), 1);
    said.console.serial = (struct domain_serial){.kind = DOMAIN_SERIAL_FILE, .path = "/s", .append = true};
    cr_expect_eq(finish(), 0);
    cr_expect(domain.serial.kind == DOMAIN_SERIAL_FILE && !domain.serial.append);
}
