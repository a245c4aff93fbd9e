// SPDX-License-Identifier: Apache-2.0
/*
 * Guests of Debian's packages, as they come. tools/test unpacks the packages in a cache; memtest86+ has a test of its own.
 */
#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRUB_LIMIT_MILLISECONDS 20000

static struct process process;

static void tear_down(void)
{
    process_end(&process);
}

TestSuite(packages, .init = need_kvm, .fini = tear_down);

/* GRUB's image for PVH looks for Xen, says at port 0xe9 that there is none, and halts with interrupts off. */
Test(packages, grub_is_heard_and_its_halt_is_seen, .timeout = 60)
{
    const char *cache = getenv("XDG_CACHE_HOME");
    char path[512];

    snprintf(path, sizeof path, "%s/loam/packages/grub-xen-host/usr/lib/grub-xen/grub-i386-xen_pvh.bin",
             cache != NULL ? cache : "/nowhere");
    need_file(path);
    cr_assert_eq(process_run(&process,
                             (char *[]){loam_path(), "run", "--memory", "64M", "--pages", "4K", "--timeout", "10",
                                        "--kernel", path, NULL},
                             GRUB_LIMIT_MILLISECONDS),
                 4, "status %d: %s", process.status, process.err);
    cr_expect_not_null(strstr(process.out, "Found no Xen signature!"), "%s", process.out);
    cr_expect_not_null(strstr(process.err, "loam: the guest is halted for good: HLT with interrupts off"), "%s",
                       process.err);
}
