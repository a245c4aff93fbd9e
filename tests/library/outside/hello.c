// SPDX-License-Identifier: Apache-2.0
#include "guest/guest.h"

_Noreturn void guest_main(uint64_t start_info)
{
    exceptions_install("hello");
    paging_init();
    if (!pvh_valid(start_info)) {
        console_text("hello: no PVH start info where EBX pointed\r\n");
        platform_exit(LOAM_ABI_EXIT_FAIL);
    }
    console_text("hello from a guest at ");
    console_hex((uintptr_t)guest_main);
    console_text("\r\n");
    platform_exit(LOAM_ABI_EXIT_PASS);
}
