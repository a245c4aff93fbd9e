// SPDX-License-Identifier: Apache-2.0
/* ELF files for tests: the PVH kernel that all hostile ones are bent from. */
#ifndef LOAM_TESTS_VMM_ELF_BUILDER_H
#define LOAM_TESTS_VMM_ELF_BUILDER_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A program header of either class. */
struct elf_builder_segment {
    uint32_t type;
    uint64_t offset;
    uint64_t address;
    uint64_t file_bytes;
    uint64_t memory_bytes;
    uint64_t align;
};

/* Write an ELF header and, right behind it, the program headers. Returns their bytes. */
size_t elf_builder_headers(uint8_t *file, bool is_64, const struct elf_builder_segment *segments, uint16_t count);

/* Write one note, its name and descriptor padded to align (4 or 8). Returns its bytes. */
size_t elf_builder_note(uint8_t *at, const char *name, uint32_t type, const void *descriptor, uint32_t descriptor_bytes,
                        size_t align);

struct elf_builder_symbol {
    const char *name;
    uint64_t value;
    uint64_t size;
    uint8_t type, binding; /* STT_, STB_ */
    uint16_t section;      /* ELF_BUILDER_CODE for what lies in the code */
};

/* Sections: none, the code, symbols and names; further ones have numbers from ELF_BUILDER_SECTIONS on. */
enum { ELF_BUILDER_CODE = 1, ELF_BUILDER_SYMBOLS, ELF_BUILDER_NAMES, ELF_BUILDER_SECTIONS };

/*
 * Write symbols, names and section headers to file + at, and name them in the ELF header that is there; code lies at
 * [code, code + code_bytes). Returns where the file ends then: 4 KiB behind at at most.
 */
size_t elf_builder_symbols(uint8_t *file, size_t at, bool is_64, uint64_t code, uint64_t code_bytes,
                           const struct elf_builder_symbol *symbols, uint32_t count);

/*
 * The good file: text and data share a frame and lie out of order in the table, data has a tail of zeros, a
 * third segment is nothing but zeros, and an unrelated note comes before the Xen one.
 */
#define ELF_GOOD_BYTES         0x680u
#define ELF_GOOD_HEADERS_BYTES 0x1c0u /* ELF header, program headers, notes */
#define ELF_GOOD_ENTRY         0x200010u
#define ELF_GOOD_TEXT          0x200000u
#define ELF_GOOD_TEXT_OFFSET   0x200u
#define ELF_GOOD_TEXT_BYTES    0x300u
#define ELF_GOOD_DATA          0x200400u
#define ELF_GOOD_DATA_OFFSET   0x500u
#define ELF_GOOD_DATA_BYTES    0x180u
#define ELF_GOOD_DATA_MEMORY   0x3000u
#define ELF_GOOD_ZEROS         0x300800u
#define ELF_GOOD_ZEROS_MEMORY  0x1000u
#define ELF_GOOD_NOTES_OFFSET  0x180u
#define ELF_GOOD_NOTES_BYTES   56u
#define ELF_GOOD_XEN_OFFSET    (ELF_GOOD_NOTES_OFFSET + 36u) /* of the Xen note's header */

enum elf_good_index {
    ELF_GOOD_INDEX_DATA,
    ELF_GOOD_INDEX_NOTES,
    ELF_GOOD_INDEX_TEXT,
    ELF_GOOD_INDEX_ZEROS,
    ELF_GOOD_INDEX_COUNT
};

void elf_builder_good(uint8_t file[ELF_GOOD_BYTES], bool is_64);

#endif
