// SPDX-License-Identifier: Apache-2.0
/*
 * libcapstone's other processors, which are none here. Its cs_open leads to the first function of each; the archive has each
 * in members of its own, and a linker takes no member for a name that it has already. So a program has x86's alone: 1.5 MiB
 * instead of 6.7, and at its start some 2,000 addresses to relocate instead of 77,000, which took 1 ms and 1.4 MiB of memory.
 * A library that knows further processors brings them along, and works as well.
 */
#include <capstone/capstone.h>
#include <stddef.h>

struct cs_struct;

#define ABSENT(name)                                                                                                   \
    cs_err name##_global_init(struct cs_struct *library);                                                              \
    cs_err name##_global_init(struct cs_struct *library)                                                               \
    {                                                                                                                  \
        (void)library;                                                                                                 \
        return CS_ERR_ARCH;                                                                                            \
    }                                                                                                                  \
    cs_err name##_option(struct cs_struct *library, cs_opt_type type, size_t value);                                   \
    cs_err name##_option(struct cs_struct *library, cs_opt_type type, size_t value)                                    \
    {                                                                                                                  \
        (void)library;                                                                                                 \
        (void)type;                                                                                                    \
        (void)value;                                                                                                   \
        return CS_ERR_ARCH;                                                                                            \
    }

ABSENT(AArch64)
ABSENT(ARM)
ABSENT(EVM)
ABSENT(M680X)
ABSENT(M68K)
ABSENT(Mips)
ABSENT(PPC)
ABSENT(Sparc)
ABSENT(SystemZ)
ABSENT(TMS320C64x)
ABSENT(XCore)
