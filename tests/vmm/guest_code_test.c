// SPDX-License-Identifier: Apache-2.0
#include "vmm/guest_code.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

enum { VCPU_FD = 1000, PAGE = 4096 };

static struct {
    uint64_t pages[2][2]; /* linear and guest-physical; others are not mapped */
    uint32_t count;       /* of translations */
    bool is_failing;
} vcpu;

int ioctl(int fd, unsigned long request, ...)
{
    struct kvm_translation *translation;
    va_list arguments;

    va_start(arguments, request);
    translation = va_arg(arguments, void *);
    va_end(arguments);
    cr_assert_eq(fd, VCPU_FD);
    cr_assert_eq(request, KVM_TRANSLATE);
    vcpu.count++;
    translation->valid = 0;
    for (uint32_t i = 0; i < 2; i++) {
        if (vcpu.pages[i][0] == translation->linear_address) {
            translation->physical_address = vcpu.pages[i][1];
            translation->valid = 1;
        }
    }
    errno = EIO;
    return vcpu.is_failing ? -1 : 0;
}

static _Alignas(64) uint8_t map_memory[1 << 16];
static _Alignas(PAGE) uint8_t ram[2 * PAGE];
static struct loam_gpa_map *map;
static const struct loam_gpa_view *view;

/* Two pages that follow each other, in the other order in RAM. */
static void set_up(void)
{
    const struct loam_gpa_map_config config = {.region_capacity = 4};
    struct loam_region region = {
        .start = {0x8000}, .bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_READ};

    for (uint32_t i = 0; i < sizeof ram; i++) {
        ram[i] = (uint8_t)i;
    }
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, &config, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    memcpy(vcpu.pages, (uint64_t[2][2]){{0x2000, 0x9000}, {0x3000, 0x8000}}, sizeof vcpu.pages);
    vcpu.count = 0;
    vcpu.is_failing = false;
}

static void tear_down(void)
{
    loam_gpa_map_release(map, view);
}

TestSuite(guest_code, .init = set_up, .fini = tear_down);

Test(guest_code, is_read_page_by_page)
{
    static const uint8_t wanted[] = {0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, 0, 1, 2, 3};
    struct guest_code code = guest_code_of(VCPU_FD, view);
    uint8_t bytes[sizeof wanted] = {0};

    cr_assert_eq(guest_code_read(&code, 0x2ffa, bytes, sizeof bytes), sizeof bytes);
    cr_expect_arr_eq(bytes, wanted, sizeof bytes);
    cr_expect_eq(vcpu.count, 2, "one translation for each page");
}

Test(guest_code, ends_where_nothing_is)
{
    struct guest_code code = guest_code_of(VCPU_FD, view);
    uint8_t bytes[15] = {0}, byte;

    cr_expect_eq(guest_code_read(&code, 0x3ffc, bytes, sizeof bytes), 4, "no page is mapped there");
    vcpu.pages[1][1] = 0x20000; /* to where no memory is */
    code = guest_code_of(VCPU_FD, view);
    cr_expect_eq(guest_code_read(&code, 0x2ffa, bytes, sizeof bytes), 6);
    cr_expect_not(guest_code_byte(&code, UINT64_MAX, &byte));
    vcpu.is_failing = true;
    code = guest_code_of(VCPU_FD, view);
    cr_expect_eq(guest_code_read(&code, 0x2000, bytes, sizeof bytes), 0);
}
