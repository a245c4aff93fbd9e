// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: a kernel file, and before it the address that is asked for: no crash, and what is answered is text. Its first
 * bytes are also an instruction.
 */
#include "vmm/disassembly.h"
#include "vmm/symbols.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

static void require_text(const char *text, size_t bytes)
{
    size_t length = strnlen(text, bytes);

    REQUIRE(length < bytes);
    for (size_t i = 0; i < length; i++) {
        REQUIRE(text[i] >= ' ' && text[i] <= '~');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct disassembly instruction;
    struct symbols_place place;
    uint64_t address;

    if (size < sizeof address) {
        return 0;
    }
    memcpy(&address, data, sizeof address);
    const struct boot_file file = {data + sizeof address, size - sizeof address, "fuzz"};

    REQUIRE(symbols_find(&file, address, &place) == (place.name[0] != '\0'));
    require_text(place.name, sizeof place.name);
    REQUIRE(disassembly_of(file.data, file.bytes, address, (enum disassembly_width)(address % 3), &instruction) ==
            (instruction.bytes > 0));
    REQUIRE(instruction.bytes <= 15);
    require_text(instruction.text, sizeof instruction.text);
    return 0;
}
