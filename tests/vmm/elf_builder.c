// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/elf_builder.h"

#include "tests/vmm/boot_fixture.h"

#include <string.h>

static size_t headers_64(uint8_t *file, const struct elf_builder_segment *segments, uint16_t count)
{
    Elf64_Ehdr header = {.e_type = ET_EXEC,
                         .e_machine = EM_X86_64,
                         .e_version = EV_CURRENT,
                         .e_phoff = sizeof header,
                         .e_ehsize = sizeof header,
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = count};

    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    memcpy(file, &header, sizeof header);
    for (uint16_t i = 0; i < count; i++) {
        const struct elf_builder_segment *s = &segments[i];
        Elf64_Phdr p = {.p_type = s->type,
                        .p_offset = s->offset,
                        .p_paddr = s->address,
                        .p_filesz = s->file_bytes,
                        .p_memsz = s->memory_bytes,
                        .p_align = s->align};

        memcpy(file + sizeof header + i * sizeof p, &p, sizeof p);
    }
    return sizeof header + count * sizeof(Elf64_Phdr);
}

static size_t headers_32(uint8_t *file, const struct elf_builder_segment *segments, uint16_t count)
{
    Elf32_Ehdr header = {.e_type = ET_EXEC,
                         .e_machine = EM_386,
                         .e_version = EV_CURRENT,
                         .e_phoff = sizeof header,
                         .e_ehsize = sizeof header,
                         .e_phentsize = sizeof(Elf32_Phdr),
                         .e_phnum = count};

    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS32;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    memcpy(file, &header, sizeof header);
    for (uint16_t i = 0; i < count; i++) {
        const struct elf_builder_segment *s = &segments[i];
        Elf32_Phdr p = {.p_type = s->type,
                        .p_offset = (Elf32_Off)s->offset,
                        .p_paddr = (Elf32_Addr)s->address,
                        .p_filesz = (Elf32_Word)s->file_bytes,
                        .p_memsz = (Elf32_Word)s->memory_bytes,
                        .p_align = (Elf32_Word)s->align};

        memcpy(file + sizeof header + i * sizeof p, &p, sizeof p);
    }
    return sizeof header + count * sizeof(Elf32_Phdr);
}

size_t elf_builder_headers(uint8_t *file, bool is_64, const struct elf_builder_segment *segments, uint16_t count)
{
    return is_64 ? headers_64(file, segments, count) : headers_32(file, segments, count);
}

size_t elf_builder_note(uint8_t *at, const char *name, uint32_t type, const void *descriptor, uint32_t descriptor_bytes,
                        size_t align)
{
    Elf64_Nhdr header = {(uint32_t)strlen(name) + 1, descriptor_bytes, type};
    size_t descriptor_offset = (sizeof header + header.n_namesz + align - 1) / align * align;

    memcpy(at, &header, sizeof header);
    memcpy(at + sizeof header, name, header.n_namesz);
    memcpy(at + descriptor_offset, descriptor, descriptor_bytes);
    return (descriptor_offset + descriptor_bytes + align - 1) / align * align;
}

/* Returns its bytes. */
static size_t put_symbol(uint8_t *at, bool is_64, const struct elf_builder_symbol *symbol, uint32_t name)
{
    Elf64_Sym wide = {.st_name = name,
                      .st_info = (uint8_t)ELF64_ST_INFO(symbol->binding, symbol->type),
                      .st_shndx = symbol->section,
                      .st_value = symbol->value,
                      .st_size = symbol->size};
    Elf32_Sym narrow = {.st_name = name,
                        .st_value = (Elf32_Addr)symbol->value,
                        .st_size = (Elf32_Word)symbol->size,
                        .st_info = wide.st_info,
                        .st_shndx = symbol->section};

    memcpy(at, is_64 ? (const void *)&wide : (const void *)&narrow, is_64 ? sizeof wide : sizeof narrow);
    return is_64 ? sizeof wide : sizeof narrow;
}

static size_t put_section(uint8_t *at, bool is_64, const Elf64_Shdr *wide)
{
    Elf32_Shdr narrow = {.sh_type = wide->sh_type,
                         .sh_flags = (Elf32_Word)wide->sh_flags,
                         .sh_addr = (Elf32_Addr)wide->sh_addr,
                         .sh_offset = (Elf32_Off)wide->sh_offset,
                         .sh_size = (Elf32_Word)wide->sh_size,
                         .sh_link = wide->sh_link};

    memcpy(at, is_64 ? (const void *)wide : (const void *)&narrow, is_64 ? sizeof *wide : sizeof narrow);
    return is_64 ? sizeof *wide : sizeof narrow;
}

static void name_sections(uint8_t *file, bool is_64, size_t offset)
{
    Elf64_Ehdr wide;
    Elf32_Ehdr narrow;

    memcpy(&wide, file, sizeof wide);
    memcpy(&narrow, file, sizeof narrow);
    wide.e_shoff = offset;
    narrow.e_shoff = (Elf32_Off)offset;
    wide.e_shnum = narrow.e_shnum = ELF_BUILDER_SECTIONS;
    wide.e_shentsize = sizeof(Elf64_Shdr);
    narrow.e_shentsize = sizeof(Elf32_Shdr);
    memcpy(file, is_64 ? (const void *)&wide : (const void *)&narrow, is_64 ? sizeof wide : sizeof narrow);
}

size_t elf_builder_symbols(uint8_t *file, size_t at, bool is_64, uint64_t code, uint64_t code_bytes,
                           const struct elf_builder_symbol *symbols, uint32_t count)
{
    Elf64_Shdr sections[ELF_BUILDER_SECTIONS] = {
        [ELF_BUILDER_CODE] = {.sh_type = SHT_PROGBITS,
                              .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
                              .sh_addr = code,
                              .sh_size = code_bytes},
        [ELF_BUILDER_SYMBOLS] = {.sh_type = SHT_SYMTAB, .sh_offset = at, .sh_link = ELF_BUILDER_NAMES},
        [ELF_BUILDER_NAMES] = {.sh_type = SHT_STRTAB},
    };
    const struct elf_builder_symbol none = {.name = ""};
    uint32_t name = 1;

    at += put_symbol(file + at, is_64, &none, 0);
    for (uint32_t i = 0; i < count; i++) {
        at += put_symbol(file + at, is_64, &symbols[i], name);
        name += (uint32_t)strlen(symbols[i].name) + 1;
    }
    sections[ELF_BUILDER_SYMBOLS].sh_size = at - sections[ELF_BUILDER_SYMBOLS].sh_offset;
    sections[ELF_BUILDER_NAMES].sh_offset = at;
    sections[ELF_BUILDER_NAMES].sh_size = name;
    file[at++] = 0;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(file + at, symbols[i].name, strlen(symbols[i].name) + 1);
        at += strlen(symbols[i].name) + 1;
    }
    name_sections(file, is_64, at);
    for (uint32_t i = 0; i < ELF_BUILDER_SECTIONS; i++) {
        at += put_section(file + at, is_64, &sections[i]);
    }
    return at;
}

void elf_builder_good(uint8_t file[ELF_GOOD_BYTES], bool is_64)
{
    static const struct elf_builder_segment segments[ELF_GOOD_INDEX_COUNT] = {
        [ELF_GOOD_INDEX_DATA] = {PT_LOAD, ELF_GOOD_DATA_OFFSET, ELF_GOOD_DATA, ELF_GOOD_DATA_BYTES,
                                 ELF_GOOD_DATA_MEMORY, 0x1000},
        [ELF_GOOD_INDEX_NOTES] = {PT_NOTE, ELF_GOOD_NOTES_OFFSET, 0, ELF_GOOD_NOTES_BYTES, ELF_GOOD_NOTES_BYTES, 4},
        [ELF_GOOD_INDEX_TEXT] = {PT_LOAD, ELF_GOOD_TEXT_OFFSET, ELF_GOOD_TEXT, ELF_GOOD_TEXT_BYTES, ELF_GOOD_TEXT_BYTES,
                                 0x1000},
        [ELF_GOOD_INDEX_ZEROS] = {PT_LOAD, 0x10000, ELF_GOOD_ZEROS, 0, ELF_GOOD_ZEROS_MEMORY, 0x1000},
    };
    uint8_t *notes = file + ELF_GOOD_NOTES_OFFSET;
    uint32_t entry = ELF_GOOD_ENTRY;

    memset(file, 0, ELF_GOOD_TEXT_OFFSET);
    for (size_t i = ELF_GOOD_TEXT_OFFSET; i < ELF_GOOD_BYTES; i++) {
        file[i] = fixture_byte(i);
    }
    elf_builder_headers(file, is_64, segments, ELF_GOOD_INDEX_COUNT);
    notes += elf_builder_note(notes, "GNU", 3, "twenty bytes of hash", 20, 4);
    elf_builder_note(notes, "Xen", 18, &entry, sizeof entry, 4);
}
