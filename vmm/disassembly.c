// SPDX-License-Identifier: Apache-2.0
#include "vmm/disassembly.h"

#include <capstone/capstone.h>
#include <stdio.h>
#include <string.h>

#define INSTRUCTION_BYTES_MAX 15u

/* What the library writes before an instruction's name. */
static const char *const prefixes[] = {"lock ",  "rep ",     "repe ", "repne ",    "repz ",
                                       "repnz ", "notrack ", "bnd ",  "xacquire ", "xrelease "};

static const char *without_prefixes(const char *name)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0];) {
        size_t length = strlen(prefixes[i]);

        if (strncmp(name, prefixes[i], length) == 0) {
            name += length;
            i = 0;
        } else {
            i++;
        }
    }
    return name;
}

static cs_mode mode_of(enum disassembly_width width)
{
    static const cs_mode modes[] = {
        [DISASSEMBLY_16] = CS_MODE_16, [DISASSEMBLY_32] = CS_MODE_32, [DISASSEMBLY_64] = CS_MODE_64};

    return modes[width];
}

static void take(const cs_insn *found, struct disassembly *disassembly)
{
    snprintf(disassembly->name, sizeof disassembly->name, "%s", without_prefixes(found->mnemonic));
    snprintf(disassembly->text, sizeof disassembly->text, "%s%s%s", found->mnemonic,
             found->op_str[0] != '\0' ? " " : "", found->op_str);
    disassembly->bytes = found->size;
}

bool disassembly_of(const uint8_t *code, size_t count, uint64_t address, enum disassembly_width width,
                    struct disassembly *disassembly)
{
    cs_insn *found = NULL;
    size_t found_count;
    csh handle;

    *disassembly = (struct disassembly){.bytes = 0};
    if (cs_open(CS_ARCH_X86, mode_of(width), &handle) != CS_ERR_OK) {
        return false;
    }
    count = count < INSTRUCTION_BYTES_MAX ? count : INSTRUCTION_BYTES_MAX;
    found_count = cs_disasm(handle, code, count, address, 1, &found);
    if (found_count > 0) {
        take(&found[0], disassembly);
        cs_free(found, found_count);
    }
    cs_close(&handle);
    return found_count > 0;
}
