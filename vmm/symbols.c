// SPDX-License-Identifier: Apache-2.0
/*
 * Both classes are read into one form. What a header says is checked against the file when something is read by it, and
 * never before: boot_file_read is the one bound.
 */
#include "vmm/symbols.h"

#include "loam/types.h"
#include "vmm/boot_file.h"

#include <elf.h>
#include <string.h>

/* Members that are alike in name and differ in width, from one class to the other. */
#define TAKE(target, source, member) ((target).member = (source).member)

struct elf {
    const struct boot_file *file;
    bool is_64;
    Elf64_Ehdr header;
};

/* The best so far. */
struct search {
    const struct elf *elf;
    uint64_t address;
    uint16_t section; /* that address lies in */
    Elf64_Shdr names;
    bool has_found;
    Elf64_Sym found;
};

/* --- Headers ------------------------------------------------------------------------------------------------------ */

static bool read_header_32(const struct boot_file *file, Elf64_Ehdr *header)
{
    Elf32_Ehdr narrow;

    if (!boot_file_read(file, 0, &narrow, sizeof narrow)) {
        return false;
    }
    TAKE(*header, narrow, e_machine);
    TAKE(*header, narrow, e_phoff);
    TAKE(*header, narrow, e_phnum);
    TAKE(*header, narrow, e_phentsize);
    TAKE(*header, narrow, e_shoff);
    TAKE(*header, narrow, e_shnum);
    TAKE(*header, narrow, e_shentsize);
    return header->e_phentsize == sizeof(Elf32_Phdr) && header->e_shentsize == sizeof(Elf32_Shdr);
}

static bool read_header_64(const struct boot_file *file, Elf64_Ehdr *header)
{
    return boot_file_read(file, 0, header, sizeof *header) && header->e_phentsize == sizeof(Elf64_Phdr) &&
           header->e_shentsize == sizeof(Elf64_Shdr);
}

static bool open_elf(const struct boot_file *file, struct elf *elf)
{
    unsigned char ident[EI_NIDENT];

    *elf = (struct elf){.file = file};
    if (!boot_file_read(file, 0, ident, sizeof ident) || memcmp(ident, ELFMAG, SELFMAG) != 0 ||
        ident[EI_DATA] != ELFDATA2LSB || (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64)) {
        return false;
    }
    elf->is_64 = ident[EI_CLASS] == ELFCLASS64;
    return (elf->is_64 ? read_header_64(file, &elf->header) : read_header_32(file, &elf->header)) &&
           (elf->header.e_machine == EM_X86_64 || elf->header.e_machine == EM_386 || elf->header.e_machine == EM_IAMCU);
}

/* Where entry index of a table is. false: beyond what can be counted. */
static bool entry_offset(uint64_t table_offset, uint32_t index, uint64_t entry_bytes, uint64_t *offset)
{
    return !__builtin_add_overflow(table_offset, index * entry_bytes, offset);
}

static bool read_section(const struct elf *elf, uint16_t index, Elf64_Shdr *section)
{
    Elf32_Shdr narrow;
    uint64_t offset;

    if (!entry_offset(elf->header.e_shoff, index, elf->header.e_shentsize, &offset)) {
        return false;
    }
    if (elf->is_64) {
        return boot_file_read(elf->file, offset, section, sizeof *section);
    }
    if (!boot_file_read(elf->file, offset, &narrow, sizeof narrow)) {
        return false;
    }
    TAKE(*section, narrow, sh_type);
    TAKE(*section, narrow, sh_flags);
    TAKE(*section, narrow, sh_addr);
    TAKE(*section, narrow, sh_offset);
    TAKE(*section, narrow, sh_size);
    TAKE(*section, narrow, sh_link);
    return true;
}

static bool read_segment(const struct elf *elf, uint16_t index, Elf64_Phdr *segment)
{
    Elf32_Phdr narrow;
    uint64_t offset;

    if (!entry_offset(elf->header.e_phoff, index, elf->header.e_phentsize, &offset)) {
        return false;
    }
    if (elf->is_64) {
        return boot_file_read(elf->file, offset, segment, sizeof *segment);
    }
    if (!boot_file_read(elf->file, offset, &narrow, sizeof narrow)) {
        return false;
    }
    TAKE(*segment, narrow, p_type);
    TAKE(*segment, narrow, p_vaddr);
    TAKE(*segment, narrow, p_paddr);
    TAKE(*segment, narrow, p_memsz);
    return true;
}

static bool read_symbol(const struct elf *elf, const Elf64_Shdr *table, uint32_t index, Elf64_Sym *symbol)
{
    const uint64_t bytes = elf->is_64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
    uint64_t offset;
    Elf32_Sym narrow;

    if (!loam_fits(index * bytes, bytes, table->sh_size) || !entry_offset(table->sh_offset, index, bytes, &offset)) {
        return false;
    }
    if (elf->is_64) {
        return boot_file_read(elf->file, offset, symbol, sizeof *symbol);
    }
    if (!boot_file_read(elf->file, offset, &narrow, sizeof narrow)) {
        return false;
    }
    TAKE(*symbol, narrow, st_name);
    TAKE(*symbol, narrow, st_value);
    TAKE(*symbol, narrow, st_size);
    TAKE(*symbol, narrow, st_info);
    TAKE(*symbol, narrow, st_shndx);
    return true;
}

/* --- Looking for a name ------------------------------------------------------------------------------------------- */

/* Index 0 is none. */
static bool find_code(const struct elf *elf, uint64_t address, uint16_t *index)
{
    Elf64_Shdr section;

    for (uint16_t i = 1; i < elf->header.e_shnum && read_section(elf, i, &section); i++) {
        if ((section.sh_flags & SHF_EXECINSTR) != 0 && address >= section.sh_addr &&
            address - section.sh_addr < section.sh_size) {
            *index = i;
            return true;
        }
    }
    return false;
}

static bool find_table(const struct elf *elf, Elf64_Shdr *table, Elf64_Shdr *names)
{
    for (uint16_t i = 1; i < elf->header.e_shnum && read_section(elf, i, table); i++) {
        if (table->sh_type == SHT_SYMTAB) {
            return table->sh_link < elf->header.e_shnum && read_section(elf, (uint16_t)table->sh_link, names);
        }
    }
    return false;
}

static bool holds(const struct search *search, const Elf64_Sym *symbol)
{
    unsigned type = ELF64_ST_TYPE(symbol->st_info);

    return symbol->st_shndx == search->section && symbol->st_name != 0 &&
           (type == STT_FUNC || type == STT_NOTYPE || type == STT_GNU_IFUNC) && symbol->st_value <= search->address &&
           (symbol->st_size == 0 || search->address - symbol->st_value < symbol->st_size);
}

/* Of several names for one place, a function's before a label's, and one that other files know before one's own. */
static unsigned rank(const Elf64_Sym *symbol)
{
    return 2u * (ELF64_ST_TYPE(symbol->st_info) != STT_NOTYPE) + (ELF64_ST_BIND(symbol->st_info) == STB_GLOBAL);
}

static void consider(struct search *search, const Elf64_Sym *symbol)
{
    const Elf64_Sym *found = &search->found;

    if (holds(search, symbol) && (!search->has_found || symbol->st_value > found->st_value ||
                                  (symbol->st_value == found->st_value && rank(symbol) > rank(found)))) {
        search->found = *symbol;
        search->has_found = true;
    }
}

/* false: the name ends there, or the file does. */
static bool read_character(const struct search *search, uint64_t at, char *c)
{
    uint64_t offset;

    return loam_fits(at, 1, search->names.sh_size) && !__builtin_add_overflow(search->names.sh_offset, at, &offset) &&
           boot_file_read(search->elf->file, offset, c, 1) && *c != '\0';
}

static void read_name(const struct search *search, char name[SYMBOLS_NAME_BYTES])
{
    uint32_t length = 0;
    char c;

    while (length < SYMBOLS_NAME_BYTES - 1 && read_character(search, (uint64_t)search->found.st_name + length, &c)) {
        bool is_printable = c > ' ' && c < 0x7f;

        name[length++] = is_printable ? c : '?';
    }
    name[length] = '\0';
}

static bool find_linked(const struct elf *elf, uint64_t address, struct symbols_place *place)
{
    struct search search = {.elf = elf, .address = address};
    Elf64_Shdr table;
    Elf64_Sym symbol;

    if (!find_code(elf, address, &search.section) || !find_table(elf, &table, &search.names)) {
        return false;
    }
    for (uint32_t i = 1; i < SYMBOLS_MAX && read_symbol(elf, &table, i, &symbol); i++) {
        consider(&search, &symbol);
    }
    if (!search.has_found) {
        return false;
    }
    read_name(&search, place->name);
    place->offset = address - search.found.st_value;
    return place->name[0] != '\0';
}

/* Where what lies at a physical address was linked to. */
static bool is_loaded_at(const struct elf *elf, uint64_t physical, uint64_t *linked)
{
    Elf64_Phdr segment;

    for (uint16_t i = 0; i < elf->header.e_phnum && read_segment(elf, i, &segment); i++) {
        if (segment.p_type == PT_LOAD && segment.p_paddr != segment.p_vaddr && physical >= segment.p_paddr &&
            physical - segment.p_paddr < segment.p_memsz) {
            *linked = segment.p_vaddr + (physical - segment.p_paddr);
            return true;
        }
    }
    return false;
}

bool symbols_find(const struct boot_file *file, uint64_t address, struct symbols_place *place)
{
    struct elf elf;
    uint64_t linked;
    bool is_found;

    *place = (struct symbols_place){.offset = 0};
    is_found = open_elf(file, &elf) && (find_linked(&elf, address, place) ||
                                        (is_loaded_at(&elf, address, &linked) && find_linked(&elf, linked, place)));
    if (!is_found) {
        *place = (struct symbols_place){.offset = 0};
    }
    return is_found;
}
