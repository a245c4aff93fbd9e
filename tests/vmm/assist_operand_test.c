// SPDX-License-Identifier: Apache-2.0
/* Which of two reasons stands where an address is wrong in more than one way; all else is compared with the processor. */
#include "vmm/assist_operand.h"

#include <criterion/criterion.h>
#include <string.h>

#define PAGE UINT64_C(4096)

static _Alignas(64) uint8_t map_memory[1 << 16];
static _Alignas(4096) uint8_t ram[2 * PAGE];
static struct loam_gpa_map *map;
static struct assist_vcpu vcpu;
static struct assist_span span;
static struct assist_fault fault;

/* In 32-bit code without paging. */
static void set_up(void)
{
    struct loam_region region = {.bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    vcpu = (struct assist_vcpu){.fd = -1, .view = loam_gpa_map_acquire(map)};
    vcpu.sregs.cr0 = 1;
    vcpu.sregs.ds = (struct kvm_segment){.limit = UINT32_MAX, .type = 3, .present = 1, .s = 1};
    vcpu.sregs.ss = vcpu.sregs.ds;
}

static void tear_down(void)
{
    loam_gpa_map_release(map, vcpu.view);
}

TestSuite(assist_operand, .init = set_up, .fini = tear_down);

static bool find(uint64_t offset, enum assist_segment segment, size_t bytes, size_t align)
{
    const struct assist_instruction instruction = {
        .has_memory = true, .segment = segment, .address_bits = 32, .base = 3, .index = ASSIST_REGISTER_NONE};
    const struct assist_operand operand = {bytes, ASSIST_WRITE, align};

    vcpu.regs.rbx = offset;
    memset(&fault, 0xee, sizeof fault);
    return assist_operand_find(&vcpu, &instruction, &operand, &span, &fault);
}

Test(assist_operand, is_found_where_it_is_aligned)
{
    for (uint64_t offset = 0; offset < 32; offset++) {
        cr_expect_eq(find(0x100 + offset, ASSIST_SEGMENT_DS, 16, 16), offset % 16 == 0);
        cr_expect_eq(fault.vector, offset % 16 == 0 ? 0 : ASSIST_PROTECTION);
        cr_expect(find(0x100 + offset, ASSIST_SEGMENT_DS, 16, 0), "any will do");
    }
    vcpu.sregs.ds.base = 8;
    cr_expect_not(find(0x100, ASSIST_SEGMENT_DS, 16, 16), "the linear address counts");
    cr_expect(find(0xf8, ASSIST_SEGMENT_DS, 16, 16));
    cr_expect_eq(span.gpa[0].value, 0x100);
}

Test(assist_operand, that_is_misaligned_is_protected_in_the_stack_too)
{
    vcpu.sregs.ss.limit = 0xfff;
    cr_expect_not(find(0xff8, ASSIST_SEGMENT_SS, 16, 0));
    cr_expect_eq(fault.vector, ASSIST_STACK_FAULT);
    cr_expect_not(find(0xff8, ASSIST_SEGMENT_SS, 16, 16));
    cr_expect_eq(fault.vector, ASSIST_PROTECTION);
}

/* Where no memory is, or what cannot be judged here, there is no fault to raise. */
Test(assist_operand, that_cannot_be_reached_is_refused)
{
    cr_expect_not(find(sizeof ram, ASSIST_SEGMENT_DS, 16, 16));
    cr_expect_eq(fault.vector, 0);
    cr_expect_not(find(UINT32_MAX - 6, ASSIST_SEGMENT_DS, 16, 16), "wraps");
    cr_expect_eq(fault.vector, 0);
}
