// SPDX-License-Identifier: Apache-2.0
/*
 * A file of the ELF format for 64 bits, and the members of an archive, read as they lie in the file. Built by the same
 * run that reads them, so only what would make a test look past the end of a file is checked, and ends the test.
 */
#ifndef TESTS_BUILT_ELF_IMAGE_H
#define TESTS_BUILT_ELF_IMAGE_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf_image {
    char name[512];
    const unsigned char *start;
    size_t bytes;
    const Elf64_Ehdr *header;
    const Elf64_Phdr *segments; /* header->e_phnum of them */
    const Elf64_Shdr *sections; /* header->e_shnum of them */
    void *memory;               /* owned */
};

/* false: no file, or not of this format. */
bool elf_image_open(struct elf_image *image, const char *path);
void elf_image_close(struct elf_image *image);

/* Bytes of the file at that offset. */
const void *elf_image_bytes(const struct elf_image *image, uint64_t offset, uint64_t bytes);

/* The first of its type, of its name; NULL: none. */
const Elf64_Phdr *elf_image_segment(const struct elf_image *image, uint32_t type);
const Elf64_Shdr *elf_image_section(const struct elf_image *image, const char *name);
const char *elf_image_section_name(const struct elf_image *image, const Elf64_Shdr *section);

/* The value of an entry of the dynamic section; 0: none. */
uint64_t elf_image_dynamic(const struct elf_image *image, int64_t tag);

/* Step through the symbols from *at == 0 on; NULL: no more. */
const Elf64_Sym *elf_image_symbol(const struct elf_image *image, unsigned *at);
const char *elf_image_symbol_name(const struct elf_image *image, const Elf64_Sym *symbol);
const char *elf_image_symbol_name_at(const struct elf_image *image, uint64_t index);

/* The same for those that others can link to at run time. */
const Elf64_Sym *elf_image_dynamic_symbol(const struct elf_image *image, unsigned *at);
const char *elf_image_dynamic_name(const struct elf_image *image, const Elf64_Sym *symbol);

/* GNU_PROPERTY_X86_FEATURE_1_*: what an object says that it can run with. */
uint32_t elf_image_x86_features(const struct elf_image *image);

/* An archive as ar(1) writes it. */
struct elf_archive {
    unsigned char *memory;
    size_t bytes, at;
    const char *long_names;
};

bool elf_archive_open(struct elf_archive *archive, const char *path);

/* Its next member that is an object, to be closed; false: no more. */
bool elf_archive_next(struct elf_archive *archive, struct elf_image *member);
void elf_archive_close(struct elf_archive *archive);

#endif
