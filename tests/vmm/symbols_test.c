// SPDX-License-Identifier: Apache-2.0
#include "vmm/symbols.h"

#include "tests/vmm/elf_builder.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define CODE       UINT64_C(0x80201000)
#define CODE_BYTES UINT64_C(0x1000)
#define PHYSICAL   UINT64_C(0x201000)
#define LONG_NAME  "a_name_that_is_very_long_and_goes_on_and_on_and_on_until_it_no_longer_fits_into_what_is_kept_of_it"

static const struct elf_builder_symbol symbols[] = {
    {"file.c", 0, 0, STT_FILE, STB_LOCAL, SHN_ABS},
    {"start", CODE, 0x10, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE},
    {"label", CODE + 0x20, 0, STT_NOTYPE, STB_LOCAL, ELF_BUILDER_CODE},
    {"outer", CODE + 0x100, 0x80, STT_FUNC, STB_LOCAL, ELF_BUILDER_CODE},
    {"inner", CODE + 0x140, 0x20, STT_FUNC, STB_LOCAL, ELF_BUILDER_CODE},
    {"alias", CODE + 0x200, 0x10, STT_NOTYPE, STB_GLOBAL, ELF_BUILDER_CODE},
    {"own", CODE + 0x200, 0x10, STT_FUNC, STB_LOCAL, ELF_BUILDER_CODE},
    {"known", CODE + 0x200, 0x10, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE},
    {"last", CODE + 0x200, 0x10, STT_FUNC, STB_LOCAL, ELF_BUILDER_CODE},
    {"data", CODE + 0x300, 0x10, STT_OBJECT, STB_GLOBAL, ELF_BUILDER_CODE},
    {"elsewhere", CODE + 0x300, 0x10, STT_FUNC, STB_GLOBAL, ELF_BUILDER_NAMES},
    {"absolute", CODE + 0x300, 0x10, STT_FUNC, STB_GLOBAL, SHN_ABS},
    {"b d\x1b[2J\xc3", CODE + 0x400, 0x10, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE},
    {LONG_NAME, CODE + 0x410, 0x10, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE},
    {"end", CODE + CODE_BYTES - 1, 0, STT_FUNC, STB_GLOBAL, ELF_BUILDER_CODE},
};
enum { SYMBOL_COUNT = sizeof symbols / sizeof symbols[0] };

static uint8_t bytes[8192];
static struct boot_file file;
static struct symbols_place place;

static void set_linked(bool is_64)
{
    Elf64_Phdr wide;
    Elf32_Phdr narrow;

    if (is_64) {
        memcpy(&wide, bytes + sizeof(Elf64_Ehdr), sizeof wide);
        wide.p_vaddr = CODE;
        memcpy(bytes + sizeof(Elf64_Ehdr), &wide, sizeof wide);
    } else {
        memcpy(&narrow, bytes + sizeof(Elf32_Ehdr), sizeof narrow);
        narrow.p_vaddr = (Elf32_Addr)CODE;
        memcpy(bytes + sizeof(Elf32_Ehdr), &narrow, sizeof narrow);
    }
}

static void make(bool is_64)
{
    static const struct elf_builder_segment segment = {PT_LOAD, 0, PHYSICAL, CODE_BYTES, CODE_BYTES, 4096};

    memset(bytes, 0, sizeof bytes);
    elf_builder_headers(bytes, is_64, &segment, 1);
    set_linked(is_64);
    file = (struct boot_file){bytes, elf_builder_symbols(bytes, 512, is_64, CODE, CODE_BYTES, symbols, SYMBOL_COUNT),
                              "test"};
}

/* name NULL: none. */
static void check_at(uint64_t address, const char *name, uint64_t offset)
{
    memset(&place, 'x', sizeof place);
    cr_expect_eq(symbols_find(&file, address, &place), name != NULL, "0x%lx: %s", address, place.name);
    cr_expect_str_eq(place.name, name != NULL ? name : "", "0x%lx", address);
    cr_expect_eq(place.offset, name != NULL ? offset : 0, "0x%lx: 0x%lx", address, place.offset);
}

static void check_names(void)
{
    char cut[SYMBOLS_NAME_BYTES] = {0};

    check_at(CODE, "start", 0);
    check_at(CODE + 0xf, "start", 0xf);
    check_at(CODE + 0x10, NULL, 0);
    check_at(CODE + 0x1f, NULL, 0);
    check_at(CODE + 0x20, "label", 0);
    check_at(CODE + 0xff, "label", 0xdf);
    check_at(CODE + 0x100, "outer", 0);
    check_at(CODE + 0x140, "inner", 0);
    check_at(CODE + 0x160, "outer", 0x60);
    check_at(CODE + 0x180, "label", 0x160);
    check_at(CODE + 0x205, "known", 5);
    check_at(CODE + 0x305, "label", 0x2e5);
    check_at(CODE + 0x400, "b?d?[2J?", 0);
    memcpy(cut, LONG_NAME, sizeof cut - 1);
    check_at(CODE + 0x410, cut, 0);
    check_at(CODE + CODE_BYTES - 1, "end", 0);
    check_at(CODE + CODE_BYTES, NULL, 0);
    check_at(CODE - 1, NULL, 0);
    check_at(0, NULL, 0);
    check_at(UINT64_MAX, NULL, 0);
}

Test(symbols, finds_the_function_that_an_address_lies_in)
{
    make(true);
    check_names();
    make(false);
    check_names();
}

/* A kernel that has not mapped itself to its place yet. */
Test(symbols, finds_what_runs_where_it_was_loaded)
{
    for (int is_64 = 0; is_64 < 2; is_64++) {
        make(is_64 != 0);
        check_at(PHYSICAL + 0x105, "outer", 5);
        check_at(PHYSICAL - 1, NULL, 0);
        check_at(PHYSICAL + CODE_BYTES, NULL, 0);
    }
}

Test(symbols, has_nothing_to_say_of_other_files)
{
    static const struct boot_file none = {"", 0, "none"}, text = {"#!/bin/sh\nsleep 1000000000000000000", 35, "text"};

    cr_expect_not(symbols_find(&none, CODE, &place));
    cr_expect_not(symbols_find(&text, CODE, &place));
    make(true);
    bytes[EI_DATA] = ELFDATA2MSB;
    check_at(CODE, NULL, 0);
    make(true);
    bytes[offsetof(Elf64_Ehdr, e_machine)] = EM_ARM;
    check_at(CODE, NULL, 0);
    make(true);
    bytes[EI_CLASS] = 3;
    check_at(CODE, NULL, 0);
    make(true);
    bytes[offsetof(Elf64_Ehdr, e_shentsize)] = 63;
    check_at(CODE, NULL, 0);
    make(true);
    bytes[offsetof(Elf64_Ehdr, e_shnum)] = ELF_BUILDER_SYMBOLS; /* stripped of them */
    check_at(CODE, NULL, 0);
    make(true);
    bytes[offsetof(Elf64_Ehdr, e_shnum)] = ELF_BUILDER_NAMES; /* and of their names */
    check_at(CODE, NULL, 0);
}

/* Wherever it is cut, in memory of its own, so that who reads on is found out. */
Test(symbols, reads_no_further_than_the_file_goes)
{
    for (int is_64 = 0; is_64 < 2; is_64++) {
        size_t whole;

        make(is_64 != 0);
        whole = file.bytes;
        for (size_t i = 0; i < whole; i++) {
            uint8_t *copy = malloc(i + 1);

            memcpy(copy, bytes, i);
            file = (struct boot_file){copy, i, "cut"};
            symbols_find(&file, CODE + 0x205, &place);
            cr_expect_lt(strlen(place.name), SYMBOLS_NAME_BYTES);
            free(copy);
        }
    }
}

Test(symbols, bears_any_number_in_any_field)
{
    struct random random = {20261};

    for (uint32_t i = 0; i < 200000; i++) {
        make(i % 2 == 0);
        for (uint32_t changes = 1 + random_below(&random, 4); changes > 0; changes--) {
            bytes[random_below(&random, (uint32_t)file.bytes)] = (uint8_t)random_u64(&random);
        }
        if (symbols_find(&file, CODE + random_below(&random, CODE_BYTES), &place)) {
            cr_assert_neq(strlen(place.name), 0);
            cr_assert_lt(strlen(place.name), SYMBOLS_NAME_BYTES);
        } else {
            cr_assert_str_empty(place.name);
        }
    }
}
