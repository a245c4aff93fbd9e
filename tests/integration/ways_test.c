// SPDX-License-Identifier: Apache-2.0
/*
 * The ways to boot, each by a guest that looks at what it is handed: multiboot 1 as ELF32, ELF64 and raw file with address
 * fields, and an ELF64 file by the 64-bit Linux protocol. PVH and Linux images have tests of their own (kernel_test,
 * memtest_test).
 */
#include "tests/integration/kernel_guests.h"
#include "tests/integration/launch.h"
#include "tests/integration/tiny_kernel.h"
#include "tests/integration/ways_guests.h"
#include "tests/vmm/elf_builder.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CODE_OFFSET 0x1000u
#define CODE_BYTES  0x1000u

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]

GUEST(multiboot);
GUEST(multiboot_addresses);
GUEST(multiboot_video);
GUEST(vmlinux);

static char folder[] = "/tmp/loam-ways-XXXXXX", kernel_path[64], initrd_path[64];
static struct process process;

static void set_up(void)
{
    static const uint32_t initrd[WAYS_INITRD_BYTES / 4] = {WAYS_INITRD_WORD};

    need_kvm();
    cr_assert_not_null(mkdtemp(folder));
    snprintf(kernel_path, sizeof kernel_path, "%s/kernel", folder);
    snprintf(initrd_path, sizeof initrd_path, "%s/initrd", folder);
    tiny_kernel_write_file(initrd_path, initrd, sizeof initrd);
}

static void tear_down(void)
{
    process_end(&process);
    unlink(kernel_path);
    unlink(initrd_path);
    rmdir(folder);
}

TestSuite(ways, .init = set_up, .fini = tear_down, .timeout = 60);

/* An ELF file whose code is loaded at GUEST_BASE and entered there, with zeros up to GUEST_SCRAP. */
static void write_elf(bool is_64, uint16_t machine, const uint8_t *code, const uint8_t *end)
{
    static uint8_t file[CODE_OFFSET + CODE_BYTES];
    const struct elf_builder_segment segment = {
        PT_LOAD, CODE_OFFSET, GUEST_BASE, (uint64_t)(end - code), GUEST_SCRAP - GUEST_BASE, 0x1000};
    const uint64_t entry = GUEST_BASE;

    cr_assert_leq((size_t)(end - code), CODE_BYTES);
    elf_builder_headers(file, is_64, &segment, 1);
    memcpy(file + offsetof(Elf64_Ehdr, e_machine), &machine, sizeof machine);
    memcpy(file + offsetof(Elf64_Ehdr, e_entry), &entry, is_64 ? 8 : 4);
    memcpy(file + CODE_OFFSET, code, (size_t)(end - code));
    tiny_kernel_write_file(kernel_path, file, CODE_OFFSET + (size_t)(end - code));
}

/* It ends with 0, says its command line, and the plan names the way. */
static void check_run(const char *way, const char *says)
{
    char *argv[] = {loam_path(), "run",       "--memory",  "16M",     "--pages",   "4K", "--kernel", kernel_path,
                    "--initrd",  initrd_path, "--cmdline", "one two", "--timeout", "30", NULL};
    char line[80];

    snprintf(line, sizeof line, "  kernel    %s\n", way);
    cr_assert_eq(process_run(&process, argv, 60000), 0, "%s: status %d: %s", way, process.status, process.err);
    cr_expect_str_eq(process.out, says, "%s", way);
    cr_expect_not_null(strstr(process.err, line), "%s: %s", way, process.err);
    process_end(&process);
}

Test(ways, multiboot_elf32)
{
    write_elf(false, EM_386, guest_multiboot, guest_multiboot_end);
    check_run("multiboot, ELF32", "kernel one two");
}

/* As compilers of 64 bits make it of 32-bit code. */
Test(ways, multiboot_elf64)
{
    write_elf(true, EM_X86_64, guest_multiboot, guest_multiboot_end);
    check_run("multiboot, ELF64", "kernel one two");
    write_elf(false, EM_X86_64, guest_multiboot, guest_multiboot_end);
    check_run("multiboot, ELF32", "kernel one two");
}

Test(ways, multiboot_address_fields)
{
    tiny_kernel_write_file(kernel_path, guest_multiboot_addresses,
                           (size_t)(guest_multiboot_addresses_end - guest_multiboot_addresses));
    check_run("multiboot, address fields", "kernel one two");
}

Test(ways, a_video_mode_is_said_to_be_none)
{
    write_elf(false, EM_386, guest_multiboot_video, guest_multiboot_video_end);
    check_run("multiboot, ELF32", "kernel one two");
    cr_assert_eq(process_run(&process,
                             (char *[]){loam_path(), "run", "-m", "16M", "-p", "4K", "--kernel", kernel_path, NULL},
                             60000),
                 13, "without a module: %d: %s", process.status, process.err);
    cr_expect_not_null(strstr(process.err, "asks for a video mode, and there is no display"), "%s", process.err);
}

Test(ways, elf64_by_the_linux_protocol)
{
    write_elf(true, EM_X86_64, guest_vmlinux, guest_vmlinux_end);
    check_run("ELF64, 64-bit Linux entry", "one two");
}

/* Said before memory is made, and by `loam plan` too. */
Test(ways, the_plan_says_the_way)
{
    write_elf(true, EM_X86_64, guest_vmlinux, guest_vmlinux_end);
    cr_assert_eq(
        process_run(&process,
                    (char *[]){loam_path(), "plan", "-m", "16M", "-p", "4K", "--json", "--kernel", kernel_path, NULL},
                    60000),
        0);
    cr_expect_not_null(strstr(process.out, "\"boot\": \"ELF64, 64-bit Linux entry\""), "%s", process.out);
    process_end(&process);
    tiny_kernel_write_file(kernel_path, "\x1f\x8b", 2);
    cr_assert_eq(process_run(&process,
                             (char *[]){loam_path(), "plan", "-m", "16M", "-p", "4K", "--kernel", kernel_path, NULL},
                             60000),
                 0);
    cr_expect_not_null(strstr(process.err, "gunzip it first"), "%s", process.err);
}
