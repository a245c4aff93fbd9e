// SPDX-License-Identifier: Apache-2.0
#include "vmm/kvm_paging.h"

#include "vmm/kvm.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static unsigned count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned count = 0;

    cr_assert_not_null(folder);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* kvm-intel and kvm-amd page by the processor, wherever code may run in 32 bits; what emulates is known by having neither. */
static bool has_hardware(void)
{
    return access("/sys/module/kvm_intel", F_OK) == 0 || access("/sys/module/kvm_amd", F_OK) == 0;
}

Test(kvm_paging, what_the_host_can_is_told)
{
    struct loam_diag diag = {0};
    bool is_able, again;
    unsigned before;

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no " KVM_DEVICE);
    }
    before = count_descriptors();
    cr_assert_eq(kvm_paging_ask(&is_able, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(kvm_paging_ask(&again, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(is_able, again);
    cr_expect(is_able || !has_hardware(), "the processor can");
    cr_expect_eq(count_descriptors(), before, "nothing is left open");
}
