// SPDX-License-Identifier: Apache-2.0
/*
 * What compiler and linker were told to do against mistakes, read back from the files that they made: programs and the
 * shared library in PROGRAMS, the members of the archive LIBRARY, and PROBE, which the same rules compiled.
 */
#include "tests/built/elf_image.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRAM_MAX 16u
#define NAME_MAX_   512u
#define PAGE        4096u

#ifdef HARDENING_SANITIZED
#define SKIP_IF_SANITIZED(what) cr_skip("sanitizer: %s", what)
#else
#define SKIP_IF_SANITIZED(what) (void)(what)
#endif

static const char *setting(const char *name)
{
    const char *value = getenv(name);

    cr_assert_not_null(value, "%s is not set: run by Bazel", name);
    return value;
}

/* Call check for each file that PROGRAMS names; stop at none, so that one run tells all. */
static void each_program(void (*check)(const struct elf_image *image))
{
    char *names = strdup(setting("PROGRAMS")), *rest = names;
    unsigned count = 0;

    for (char *name; (name = strsep(&rest, " ")) != NULL;) {
        struct elf_image image;

        if (*name != '\0') {
            cr_assert(elf_image_open(&image, name), "%s: no ELF file of 64 bits", name);
            check(&image);
            elf_image_close(&image);
            count++;
        }
    }
    free(names);
    cr_assert_gt(count, 4u, "PROGRAMS names %u files", count);
}

/* The same for the members of an archive. */
static void each_member(const char *variable, void (*check)(const struct elf_image *image))
{
    struct elf_archive archive;
    struct elf_image member;
    unsigned count = 0;

    cr_assert(elf_archive_open(&archive, setting(variable)), "%s: no archive", setting(variable));
    while (elf_archive_next(&archive, &member)) {
        check(&member);
        elf_image_close(&member);
        count++;
    }
    cr_expect_eq(archive.at, archive.bytes, "%s: what follows member %u is no member", setting(variable), count);
    elf_archive_close(&archive);
    cr_assert_gt(count, 0u, "%s: no members", setting(variable));
}

/* --- Programs and the shared library --------------------------------------------------------------------------------- */

static void expect_position_independent(const struct elf_image *image)
{
    cr_expect_eq(image->header->e_type, ET_DYN, "%s: bound to one address", image->name);
    if (strstr(image->name, ".so") == NULL) {
        cr_expect(elf_image_dynamic(image, DT_FLAGS_1) & DF_1_PIE, "%s: not marked as a program", image->name);
    }
    cr_expect_eq(elf_image_dynamic(image, DT_TEXTREL), 0, "%s: code is relocated", image->name);
    cr_expect_not(elf_image_dynamic(image, DT_FLAGS) & DF_TEXTREL, "%s: code is relocated", image->name);
}

Test(hardening, programs_run_at_any_address)
{
    each_program(expect_position_independent);
}

static void expect_full_relro(const struct elf_image *image)
{
    const Elf64_Phdr *relro = elf_image_segment(image, PT_GNU_RELRO);
    const Elf64_Shdr *got = elf_image_section(image, ".got");

    cr_expect_not_null(relro, "%s: no PT_GNU_RELRO", image->name);
    cr_expect(elf_image_dynamic(image, DT_FLAGS) & DF_BIND_NOW || elf_image_dynamic(image, DT_FLAGS_1) & DF_1_NOW,
              "%s: symbols are bound late", image->name);
    cr_expect_null(elf_image_section(image, ".got.plt"), "%s: a table of functions stays writable", image->name);
    if (relro != NULL && got != NULL) {
        cr_expect(relro->p_vaddr <= got->sh_addr && got->sh_addr + got->sh_size <= relro->p_vaddr + relro->p_memsz,
                  "%s: .got lies outside of PT_GNU_RELRO", image->name);
    }
}

Test(hardening, what_was_relocated_cannot_be_written)
{
    each_program(expect_full_relro);
}

static bool pages_meet(const Elf64_Phdr *a, const Elf64_Phdr *b)
{
    uint64_t a_end = a->p_offset + a->p_filesz, b_end = b->p_offset + b->p_filesz;

    return a->p_offset / PAGE * PAGE < (b_end + PAGE - 1) / PAGE * PAGE &&
           b->p_offset / PAGE * PAGE < (a_end + PAGE - 1) / PAGE * PAGE;
}

/* Pages of the file are mapped whole: what shares one with code can be executed. */
static void expect_code_alone(const struct elf_image *image)
{
    unsigned code_count = 0;

    for (unsigned i = 0; i < image->header->e_phnum; i++) {
        const Elf64_Phdr *code = &image->segments[i];

        if (code->p_type != PT_LOAD || (code->p_flags & PF_X) == 0) {
            continue;
        }
        code_count++;
        for (unsigned j = 0; j < image->header->e_phnum; j++) {
            const Elf64_Phdr *other = &image->segments[j];

            cr_expect(i == j || other->p_type != PT_LOAD || !pages_meet(code, other),
                      "%s: segments %u and %u share a page, and %u is executable", image->name, i, j, i);
        }
        for (unsigned j = 1; j < image->header->e_shnum; j++) {
            const Elf64_Shdr *section = &image->sections[j];

            cr_expect((section->sh_flags & SHF_ALLOC) == 0 || (section->sh_flags & SHF_EXECINSTR) != 0 ||
                          section->sh_addr + section->sh_size <= code->p_vaddr ||
                          section->sh_addr >= code->p_vaddr + code->p_memsz,
                      "%s: %s is no code and lies in the code's segment", image->name,
                      elf_image_section_name(image, section));
        }
    }
    cr_expect_eq(code_count, 1u, "%s: %u segments of code", image->name, code_count);
}

Test(hardening, code_has_a_segment_of_its_own)
{
    each_program(expect_code_alone);
}

static void expect_no_executable_stack(const struct elf_image *image)
{
    const Elf64_Phdr *stack = elf_image_segment(image, PT_GNU_STACK);

    cr_expect_not_null(stack, "%s: no PT_GNU_STACK, so the stack is executable", image->name);
    cr_expect(stack == NULL || (stack->p_flags & PF_X) == 0, "%s: the stack is executable", image->name);
}

static void expect_note_of_no_executable_stack(const struct elf_image *image)
{
    const Elf64_Shdr *note = elf_image_section(image, ".note.GNU-stack");

    cr_expect_not_null(note, "%s: no .note.GNU-stack: who links it gets an executable stack", image->name);
    cr_expect(note == NULL || (note->sh_flags & SHF_EXECINSTR) == 0, "%s: wants an executable stack", image->name);
}

Test(hardening, the_stack_is_not_executable)
{
    each_program(expect_no_executable_stack);
    each_member("LIBRARY", expect_note_of_no_executable_stack);
}

static void expect_writable_or_executable(const struct elf_image *image)
{
    for (unsigned i = 0; i < image->header->e_phnum; i++) {
        cr_expect((image->segments[i].p_flags & (PF_W | PF_X)) != (PF_W | PF_X),
                  "%s: segment %u is writable and executable", image->name, i);
    }
    for (unsigned i = 1; i < image->header->e_shnum; i++) {
        cr_expect((image->sections[i].sh_flags & (SHF_WRITE | SHF_EXECINSTR)) != (SHF_WRITE | SHF_EXECINSTR),
                  "%s: %s is writable and executable", image->name, elf_image_section_name(image, &image->sections[i]));
    }
}

Test(hardening, nothing_is_writable_and_executable)
{
    each_program(expect_writable_or_executable);
    each_member("LIBRARY", expect_writable_or_executable);
}

static void expect_no_path_to_search(const struct elf_image *image)
{
    cr_expect_eq(elf_image_dynamic(image, DT_RPATH), 0, "%s: looks for libraries in a folder of its own", image->name);
    cr_expect_eq(elf_image_dynamic(image, DT_RUNPATH), 0, "%s: looks for libraries in a folder of its own",
                 image->name);
}

Test(hardening, libraries_are_looked_for_where_the_system_has_them)
{
    SKIP_IF_SANITIZED("its runtime lies in a folder of the compiler's");
    each_program(expect_no_path_to_search);
}

/* --- What only the objects show -------------------------------------------------------------------------------------- */

static unsigned guarded_count, checked_count;

/* Functions of the C library that check bounds are called __NAME_chk. */
static void count_guards(const struct elf_image *image)
{
    const Elf64_Sym *symbol;
    unsigned at = 0;

    while ((symbol = elf_image_symbol(image, &at)) != NULL) {
        const char *name = elf_image_symbol_name(image, symbol);
        size_t length = strlen(name);

        if (symbol->st_shndx == SHN_UNDEF && strcmp(name, "__stack_chk_fail") == 0) {
            guarded_count++;
        } else if (symbol->st_shndx == SHN_UNDEF && strncmp(name, "__", 2) == 0 && length > 4 &&
                   strcmp(name + length - 4, "_chk") == 0) {
            checked_count++;
        }
    }
}

Test(hardening, stacks_are_guarded)
{
    each_member("LIBRARY", count_guards);
    cr_expect_gt(guarded_count, 0u, "no member of the archive guards its stack");
}

/* The code of a function of PROBE. */
static const unsigned char *probe_code(const struct elf_image *image, const char *name, size_t *bytes)
{
    const Elf64_Sym *symbol;
    unsigned at = 0;

    while ((symbol = elf_image_symbol(image, &at)) != NULL) {
        if (strcmp(elf_image_symbol_name(image, symbol), name) == 0) {
            *bytes = symbol->st_size;
            return elf_image_bytes(image, image->sections[symbol->st_shndx].sh_offset + symbol->st_value, *bytes);
        }
    }
    return NULL;
}

/* Whether the function of PROBE has a call of the symbol: a relocation in its code. */
static bool probe_calls(const struct elf_image *image, const char *function, const char *called)
{
    size_t bytes = 0;
    const unsigned char *code = probe_code(image, function, &bytes);
    bool found = false;

    cr_assert_not_null(code, "%s: no function %s", image->name, function);
    for (unsigned i = 1; i < image->header->e_shnum; i++) {
        const Elf64_Shdr *section = &image->sections[i];
        const Elf64_Rela *relocations = elf_image_bytes(image, section->sh_offset, section->sh_size);

        for (size_t j = 0; section->sh_type == SHT_RELA && j < section->sh_size / sizeof *relocations; j++) {
            uint64_t start = image->sections[section->sh_info].sh_offset + relocations[j].r_offset;
            uint64_t offset = (uint64_t)(code - image->start);

            found = found || (start >= offset && start - offset < bytes &&
                              strcmp(elf_image_symbol_name_at(image, ELF64_R_SYM(relocations[j].r_info)), called) == 0);
        }
    }
    return found;
}

static void expect_probe_guarded(const struct elf_image *image)
{
    cr_expect(probe_calls(image, "hardening_probe_address_leaves", "__stack_chk_fail"),
              "a local whose address leaves is not guarded: -fstack-protector-strong is not in force");
}

Test(hardening, every_stack_with_something_to_overrun_is_guarded)
{
    each_member("PROBE", expect_probe_guarded);
}

static void expect_probe_checked(const struct elf_image *image)
{
    cr_expect(probe_calls(image, "hardening_probe_copy_into_array", "__memcpy_chk"), "_FORTIFY_SOURCE is not in force");
    cr_expect(probe_calls(image, "hardening_probe_copy", "__memcpy_chk"), "_FORTIFY_SOURCE is below 3");
}

Test(hardening, bounds_are_checked_by_the_c_library)
{
    SKIP_IF_SANITIZED("it checks bounds itself");
#ifndef __OPTIMIZE__
    cr_skip("build: bounds are checked in optimised builds: run with -c opt");
#endif
    each_member("PROBE", expect_probe_checked);
    each_member("LIBRARY", count_guards);
    cr_expect_gt(checked_count, 0u, "no member of the archive checks bounds");
}

/* Each page of a large frame is touched by an OR of 0 (gcc) or a store of 0 (clang) at the stack pointer. */
static void expect_probe_touches_each_page(const struct elf_image *image)
{
    static const unsigned char by_or[] = {0x48, 0x83, 0x0c, 0x24, 0x00},
                               by_store[] = {0x48, 0xc7, 0x04, 0x24, 0, 0, 0, 0};
    size_t bytes = 0;
    const unsigned char *code = probe_code(image, "hardening_probe_large_frame", &bytes);

    cr_assert_not_null(code);
    cr_expect(memmem(code, bytes, by_or, sizeof by_or) != NULL ||
                  memmem(code, bytes, by_store, sizeof by_store) != NULL,
              "a large frame jumps over pages: -fstack-clash-protection is not in force");
}

Test(hardening, a_large_frame_cannot_jump_over_the_guard_page)
{
    each_member("PROBE", expect_probe_touches_each_page);
}

static void expect_shadow_stack(const struct elf_image *image)
{
    cr_expect(elf_image_x86_features(image) & GNU_PROPERTY_X86_FEATURE_1_SHSTK,
              "%s: does not say that it runs with a shadow stack, so no program with it can", image->name);
}

Test(hardening, the_library_can_run_with_a_shadow_stack)
{
    each_member("LIBRARY", expect_shadow_stack);
}

/* --- Names ----------------------------------------------------------------------------------------------------------- */

static bool is_external(const Elf64_Sym *symbol)
{
    unsigned char binding = ELF64_ST_BIND(symbol->st_info), visibility = ELF64_ST_VISIBILITY(symbol->st_other);

    return symbol->st_shndx != SHN_UNDEF && (binding == STB_GLOBAL || binding == STB_WEAK) &&
           (visibility == STV_DEFAULT || visibility == STV_PROTECTED);
}

static void expect_prefixes(const struct elf_image *image)
{
    const Elf64_Sym *symbol;
    unsigned at = 0;

    while ((symbol = elf_image_symbol(image, &at)) != NULL) {
        const char *name = elf_image_symbol_name(image, symbol);

        cr_expect(!is_external(symbol) || strncmp(name, "loam_", 5) == 0,
                  "%s: the name %s is external and does not begin with loam_", image->name, name);
    }
}

Test(hardening, every_external_name_of_the_archive_begins_with_loam)
{
    SKIP_IF_SANITIZED("it adds names of its own");
    each_member("LIBRARY", expect_prefixes);
}

/* Names that begin with an underscore are the compiler's; pthread_atfork is in a part of the C library that is linked into
   every program. What else a member leaves undefined is another member's, or the C library has it. */
static void expect_c_library_alone(const struct elf_image *image)
{
    void *c_library = dlopen("libc.so.6", RTLD_NOW);
    const Elf64_Sym *symbol;
    unsigned at = 0;

    cr_assert_not_null(c_library);
    while ((symbol = elf_image_symbol(image, &at)) != NULL) {
        const char *name = elf_image_symbol_name(image, symbol);

        cr_expect(symbol->st_shndx != SHN_UNDEF || *name == '\0' || *name == '_' || strncmp(name, "loam_", 5) == 0 ||
                      strcmp(name, "pthread_atfork") == 0 || dlsym(c_library, name) != NULL,
                  "%s: the name %s is neither Loam's nor the C library's", image->name, name);
    }
    dlclose(c_library);
}

Test(hardening, the_archive_wants_nothing_but_the_c_library)
{
    SKIP_IF_SANITIZED("it adds names of its own");
    each_member("LIBRARY", expect_c_library_alone);
}

/* Names, each followed by a newline. */
struct names {
    char text[64u << 10];
    size_t used;
};

static void names_add(struct names *names, const char *name, size_t length)
{
    cr_assert_lt(names->used + length + 2, sizeof names->text);
    memcpy(names->text + names->used, name, length);
    names->used += length;
    memcpy(names->text + names->used, "\n", 2);
    names->used++;
}

static bool names_hold(const struct names *names, const char *name, size_t length)
{
    for (const char *at = names->text; (at = memmem(at, strlen(at), name, length)) != NULL; at += length) {
        if ((at == names->text || at[-1] == '\n') && at[length] == '\n') {
            return true;
        }
    }
    return false;
}

static void expect_held(const struct names *names, const struct names *all, const char *what)
{
    for (const char *at = names->text; *at != '\0'; at += strcspn(at, "\n") + 1) {
        size_t length = strcspn(at, "\n");

        cr_expect(names_hold(all, at, length), "%.*s %s", (int)length, at, what);
    }
}

/* Blank out comments and lines for the preprocessor. */
static void blank_what_is_no_code(char *text)
{
    bool line_start = true;

    for (char *at = text; *at != '\0'; at++) {
        char *end = at;

        if (strncmp(at, "/*", 2) == 0) {
            end = strstr(at, "*/");
            cr_assert_not_null(end);
            end += 2;
        } else if (strncmp(at, "//", 2) == 0 || (*at == '#' && line_start)) {
            end = at + strcspn(at, "\n");
            while (end[-1] == '\\') {
                end += 1 + strcspn(end + 1, "\n");
            }
        }
        line_start = *at == '\n' || (line_start && isspace((unsigned char)*at));
        if (end > at) {
            memset(at, ' ', (size_t)(end - at));
            at = end - 1;
        }
    }
}

/* The function that [start, end), a declaration outside of all braces, declares for others to call. */
static void add_declared(struct names *names, const char *start, const char *end)
{
    while (start < end && isspace((unsigned char)*start)) {
        start++;
    }
    if (strncmp(start, "static", 6) == 0 || strncmp(start, "typedef", 7) == 0) {
        return;
    }
    for (const char *at = start; at < end; at++) {
        size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

        if (strncmp(at, "loam_", 5) == 0 && at[length] == '(') {
            names_add(names, at, length);
            return;
        }
        at += length;
    }
}

static void add_declared_in(struct names *names, const char *path)
{
    static char text[256u << 10];
    const char *start = text;
    unsigned depth = 0;
    FILE *file = fopen(path, "r");
    size_t bytes;

    cr_assert_not_null(file, "%s", path);
    bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    cr_assert_lt(bytes, sizeof text - 1, "%s: longer than this test reads", path);
    text[bytes] = '\0';
    blank_what_is_no_code(text);
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '{' && depth == 0 && memmem(start, (size_t)(at - start), "extern \"C\"", 10) != NULL) {
            start = at + 1; /* its declarations are outside of all braces as the others are */
        } else if (*at == '{') {
            depth++;
        } else if (*at == '}' && depth > 0 && --depth == 0 && strchr(start, '(') < at) {
            start = at + 1; /* a function's body: no semicolon ends it */
        } else if (*at == ';' && depth == 0) {
            add_declared(names, start, at);
            start = at + 1;
        }
    }
}

Test(hardening, the_shared_library_exports_what_the_headers_declare_and_no_more)
{
    static struct names exported, declared;
    char *headers, *rest;
    struct elf_image image;
    const Elf64_Sym *symbol;
    unsigned at = 0;

    SKIP_IF_SANITIZED("it adds names of its own");
    headers = rest = strdup(setting("HEADERS"));
    for (char *path; (path = strsep(&rest, " ")) != NULL;) {
        if (*path != '\0') {
            add_declared_in(&declared, path);
        }
    }
    free(headers);
    cr_assert(elf_image_open(&image, setting("SHARED_LIBRARY")));
    while ((symbol = elf_image_dynamic_symbol(&image, &at)) != NULL) {
        if (is_external(symbol)) {
            names_add(&exported, elf_image_dynamic_name(&image, symbol),
                      strlen(elf_image_dynamic_name(&image, symbol)));
        }
    }
    elf_image_close(&image);
    cr_expect(names_hold(&declared, "loam_memory_create", 18) && names_hold(&declared, "loam_fail", 9));
    expect_held(&exported, &declared, "is exported, and no public header declares it");
    expect_held(&declared, &exported, "is declared, and not exported: name it in allocator/libloam.lds");
}
