// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/linux_boot.h"

#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUILD_MILLISECONDS 20000
#define ARGUMENT_MAX       32u

/* What tools/kernel/build has made of one kind. */
struct files {
    char vmlinux[256], image[256], initrd[256];
};

static char without_notes[] = "/tmp/loam-linux-XXXXXX";
static bool is_copied;

void linux_boot_need_long(void)
{
    if (getenv("LOAM_TEST_LONG") == NULL) {
        cr_skip_test("it takes long: tools/test --all runs it, or bazel test --test_env=LOAM_TEST_LONG=1");
    }
}

bool linux_boot_has_user_mode(void)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    bool is_hardware = false;
    char line[8192];

    cr_assert_not_null(file);
    while (!is_hardware && fgets(line, sizeof line, file) != NULL) {
        is_hardware = strncmp(line, "flags", 5) == 0 && (strstr(line, " vmx") != NULL || strstr(line, " svm") != NULL);
    }
    fclose(file);
    return is_hardware;
}

static void find_in_folder(const char *folder, const char *kind, struct files *files)
{
    snprintf(files->vmlinux, sizeof files->vmlinux, "%s/%s/vmlinux", folder, kind);
    snprintf(files->image, sizeof files->image, "%s/%s/bzImage", folder, kind);
    snprintf(files->initrd, sizeof files->initrd, "%s/%s/initrd", folder, kind);
}

static void find_in_cache(const char *kind, struct files *files)
{
    char *build = getenv("LOAM_KERNEL_BUILD"), reason[160];
    struct process process;
    int status, count;

    cr_assert_not_null(build, "LOAM_KERNEL_BUILD is not in the environment: run the test by Bazel");
    status = process_run(&process, (char *[]){build, "--cached", (char *)kind, NULL}, BUILD_MILLISECONDS);
    count = sscanf(process.out, "%255s %255s %255s", files->vmlinux, files->image, files->initrd);
    snprintf(reason, sizeof reason, "%.*s", (int)strcspn(process.err, "\n"), process.err);
    process_end(&process);
    if (status == 1) {
        cr_skip_test("%s", reason);
    }
    cr_assert(status == 0 && count == 3, "%s: status %d, %d paths: %s", build, status, count, reason);
}

/* The file as a linker makes it without notes: no program header says where they are. */
static void forget_notes(uint8_t *file, size_t bytes)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
    Elf64_Phdr *segments = (Elf64_Phdr *)(file + header->e_phoff);

    cr_assert_leq(header->e_phoff + header->e_phnum * sizeof *segments, bytes);
    for (unsigned int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_NOTE) {
            segments[i].p_type = PT_NULL;
        }
    }
}

static void copy_without_notes(const char *path)
{
    int source = open(path, O_RDONLY | O_CLOEXEC), copy = mkstemp(without_notes);
    struct stat status;
    size_t bytes;
    uint8_t *file;

    is_copied = copy >= 0;
    cr_assert(source >= 0 && is_copied && fstat(source, &status) == 0, "%s", path);
    bytes = (size_t)status.st_size;
    file = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, source, 0);
    cr_assert(file != MAP_FAILED);
    forget_notes(file, bytes);
    cr_assert_eq(write(copy, file, bytes), (ssize_t)bytes);
    munmap(file, bytes);
    close(source);
    close(copy);
}

static void find_files(const char *kind, struct files *files)
{
    const char *folder = getenv("LOAM_KERNELS");

    if (folder != NULL) {
        find_in_folder(folder, kind, files);
    } else {
        find_in_cache(kind, files);
    }
}

static char *kernel_of(const struct linux_boot *boot, struct files *files)
{
    switch (boot->way) {
    case LINUX_BY_IMAGE:
        return files->image;
    case LINUX_BY_ELF64:
        copy_without_notes(files->vmlinux);
        return without_notes;
    default:
        return files->vmlinux;
    }
}

void linux_boot_start(const struct linux_boot *boot, struct process *process)
{
    char *argv[ARGUMENT_MAX] = {boot->program != NULL ? (char *)boot->program : loam_path(), "run", "--pages", "4K"};
    char command_line[512];
    struct files files;
    size_t count = 4;

    need_kvm();
    find_files(boot->kind, &files);
    snprintf(command_line, sizeof command_line, "console=ttyS0 panic=-1 " LINUX_BOOT_WORDS " %s", boot->words);
    argv[count++] = "--kernel";
    argv[count++] = kernel_of(boot, &files);
    argv[count++] = "--cmdline";
    argv[count++] = command_line;
    if (!boot->without_initrd) {
        argv[count++] = "--initrd";
        argv[count++] = files.initrd;
    }
    for (size_t i = 0; boot->options[i] != NULL; i++) {
        argv[count++] = (char *)boot->options[i];
    }
    cr_assert(process_start(process, argv, LINUX_BOOT_MILLISECONDS));
}

int linux_boot_run(const struct linux_boot *boot, struct process *process)
{
    linux_boot_start(boot, process);
    close(process->input);
    process->input = -1;
    return process_wait(process);
}

void linux_boot_end(struct process *process)
{
    process_end(process);
    if (is_copied) {
        unlink(without_notes);
    }
}
