// SPDX-License-Identifier: Apache-2.0
#include "tests/built/elf_image.h"

#include <ar.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Files ----------------------------------------------------------------------------------------------------------- */

static unsigned char *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    unsigned char *memory = NULL;
    long end;

    if (file == NULL) {
        return NULL;
    }
    if (fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0) {
        *bytes = (size_t)end;
        memory = malloc(*bytes);
        if (memory != NULL && fread(memory, 1, *bytes, file) != *bytes) {
            free(memory);
            memory = NULL;
        }
    }
    fclose(file);
    return memory;
}

const void *elf_image_bytes(const struct elf_image *image, uint64_t offset, uint64_t bytes)
{
    cr_assert(bytes <= image->bytes && offset <= image->bytes - bytes, "%s: ends early", image->name);
    return image->start + offset;
}

static bool find_tables(struct elf_image *image)
{
    if (image->bytes < sizeof *image->header || memcmp(image->start, ELFMAG, SELFMAG) != 0 ||
        image->start[EI_CLASS] != ELFCLASS64) {
        return false;
    }
    image->header = (const Elf64_Ehdr *)image->start;
    image->segments = elf_image_bytes(image, image->header->e_phoff, image->header->e_phnum * sizeof(Elf64_Phdr));
    image->sections = elf_image_bytes(image, image->header->e_shoff, image->header->e_shnum * sizeof(Elf64_Shdr));
    return true;
}

bool elf_image_open(struct elf_image *image, const char *path)
{
    *image = (struct elf_image){0};
    snprintf(image->name, sizeof image->name, "%s", path);
    image->memory = read_file(path, &image->bytes);
    image->start = image->memory;
    if (image->memory == NULL || !find_tables(image)) {
        elf_image_close(image);
        return false;
    }
    return true;
}

void elf_image_close(struct elf_image *image)
{
    free(image->memory);
    image->memory = NULL;
}

/* --- Segments, sections, the dynamic section ------------------------------------------------------------------------- */

const Elf64_Phdr *elf_image_segment(const struct elf_image *image, uint32_t type)
{
    for (unsigned i = 0; i < image->header->e_phnum; i++) {
        if (image->segments[i].p_type == type) {
            return &image->segments[i];
        }
    }
    return NULL;
}

static const char *text_at(const struct elf_image *image, const Elf64_Shdr *table, uint64_t offset)
{
    const char *text = elf_image_bytes(image, table->sh_offset, table->sh_size);

    cr_assert(offset < table->sh_size && memchr(text + offset, '\0', table->sh_size - offset) != NULL);
    return text + offset;
}

const char *elf_image_section_name(const struct elf_image *image, const Elf64_Shdr *section)
{
    cr_assert_lt(image->header->e_shstrndx, image->header->e_shnum);
    return text_at(image, &image->sections[image->header->e_shstrndx], section->sh_name);
}

const Elf64_Shdr *elf_image_section(const struct elf_image *image, const char *name)
{
    for (unsigned i = 1; i < image->header->e_shnum; i++) {
        if (strcmp(elf_image_section_name(image, &image->sections[i]), name) == 0) {
            return &image->sections[i];
        }
    }
    return NULL;
}

uint64_t elf_image_dynamic(const struct elf_image *image, int64_t tag)
{
    const Elf64_Phdr *segment = elf_image_segment(image, PT_DYNAMIC);
    const Elf64_Dyn *entries;

    if (segment == NULL) {
        return 0;
    }
    entries = elf_image_bytes(image, segment->p_offset, segment->p_filesz);
    for (size_t i = 0; i < segment->p_filesz / sizeof *entries && entries[i].d_tag != DT_NULL; i++) {
        if (entries[i].d_tag == tag) {
            return tag == DT_TEXTREL ? 1 : entries[i].d_un.d_val; /* DT_TEXTREL has no value */
        }
    }
    return 0;
}

/* --- Symbols --------------------------------------------------------------------------------------------------------- */

static const Elf64_Shdr *section_of_type(const struct elf_image *image, uint32_t type)
{
    for (unsigned i = 1; i < image->header->e_shnum; i++) {
        if (image->sections[i].sh_type == type) {
            return &image->sections[i];
        }
    }
    return NULL;
}

/* Index 0 stands for no symbol. */
static const Elf64_Sym *next_symbol(const struct elf_image *image, uint32_t type, unsigned *at)
{
    const Elf64_Shdr *table = section_of_type(image, type);
    const Elf64_Sym *symbols;

    if (table == NULL) {
        return NULL;
    }
    symbols = elf_image_bytes(image, table->sh_offset, table->sh_size);
    return ++*at < table->sh_size / sizeof *symbols ? &symbols[*at] : NULL;
}

static const char *name_of(const struct elf_image *image, uint32_t type, const Elf64_Sym *symbol)
{
    return text_at(image, &image->sections[section_of_type(image, type)->sh_link], symbol->st_name);
}

const Elf64_Sym *elf_image_symbol(const struct elf_image *image, unsigned *at)
{
    return next_symbol(image, SHT_SYMTAB, at);
}

const char *elf_image_symbol_name(const struct elf_image *image, const Elf64_Sym *symbol)
{
    return name_of(image, SHT_SYMTAB, symbol);
}

const char *elf_image_symbol_name_at(const struct elf_image *image, uint64_t index)
{
    unsigned before = (unsigned)index - 1;
    const Elf64_Sym *symbol = index == 0 ? NULL : next_symbol(image, SHT_SYMTAB, &before);

    return symbol == NULL ? "" : elf_image_symbol_name(image, symbol);
}

const Elf64_Sym *elf_image_dynamic_symbol(const struct elf_image *image, unsigned *at)
{
    return next_symbol(image, SHT_DYNSYM, at);
}

const char *elf_image_dynamic_name(const struct elf_image *image, const Elf64_Sym *symbol)
{
    return name_of(image, SHT_DYNSYM, symbol);
}

/* --- .note.gnu.property ---------------------------------------------------------------------------------------------- */

/* The note has a name of 4 bytes; its properties are a type, a size, and data padded to 8. */
uint32_t elf_image_x86_features(const struct elf_image *image)
{
    const Elf64_Shdr *section = elf_image_section(image, ".note.gnu.property");
    const Elf64_Nhdr *note = section == NULL ? NULL : elf_image_bytes(image, section->sh_offset, section->sh_size);
    const uint32_t *property;
    size_t words;

    if (note == NULL || note->n_type != NT_GNU_PROPERTY_TYPE_0 || note->n_namesz != 4) {
        return 0;
    }
    property = (const uint32_t *)(note + 1) + 1;
    words = note->n_descsz / sizeof *property;
    for (size_t i = 0; i + 2 < words; i += 2 + (property[i + 1] + 7) / 8 * 2) {
        if (property[i] == GNU_PROPERTY_X86_FEATURE_1_AND) {
            return property[i + 2];
        }
    }
    return 0;
}

/* --- Archives -------------------------------------------------------------------------------------------------------- */

bool elf_archive_open(struct elf_archive *archive, const char *path)
{
    *archive = (struct elf_archive){.at = SARMAG};
    archive->memory = read_file(path, &archive->bytes);
    if (archive->memory == NULL || archive->bytes < SARMAG || memcmp(archive->memory, ARMAG, SARMAG) != 0) {
        elf_archive_close(archive);
        return false;
    }
    return true;
}

void elf_archive_close(struct elf_archive *archive)
{
    free(archive->memory);
    archive->memory = NULL;
}

/* "NAME/" where it is short, "/OFFSET" into the member "//" where it is long; a slash ends it there too. */
static void name_member(const struct elf_archive *archive, const struct ar_hdr *header, struct elf_image *member)
{
    const char *name = header->ar_name;

    if (name[0] == '/' && archive->long_names != NULL) {
        name = archive->long_names + strtoul(name + 1, NULL, 10);
    }
    snprintf(member->name, sizeof member->name, "%.*s", (int)strcspn(name, "/"), name);
}

/* An archive aligns its members by 2, the tables in them want 8. */
static void take_member(const struct elf_archive *archive, const struct ar_hdr *header, size_t bytes,
                        struct elf_image *member)
{
    *member = (struct elf_image){.memory = malloc(bytes), .bytes = bytes};
    name_member(archive, header, member);
    cr_assert_not_null(member->memory);
    memcpy(member->memory, header + 1, bytes);
    member->start = member->memory;
    cr_assert(find_tables(member), "%s: no object", member->name);
}

bool elf_archive_next(struct elf_archive *archive, struct elf_image *member)
{
    while (archive->at + sizeof(struct ar_hdr) <= archive->bytes) {
        const struct ar_hdr *header = (const struct ar_hdr *)(archive->memory + archive->at);
        size_t bytes = strtoul(header->ar_size, NULL, 10);

        if (memcmp(header->ar_fmag, ARFMAG, sizeof header->ar_fmag) != 0 ||
            bytes > archive->bytes - archive->at - sizeof *header) {
            return false;
        }
        archive->at += sizeof *header + bytes + bytes % 2;
        if (strncmp(header->ar_name, "//", 2) == 0) {
            archive->long_names = (const char *)(header + 1);
        } else if (strncmp(header->ar_name, "/ ", 2) != 0) {
            take_member(archive, header, bytes, member);
            return true;
        }
    }
    return false;
}
