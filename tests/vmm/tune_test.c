// SPDX-License-Identifier: Apache-2.0
/* What is a Linux kernel, what its command line says, and what this host's KVM lacks. */
#include "vmm/tune.h"

#include "tests/vmm/ring0_station.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IMAGE_BYTES 0x400u

static char image[IMAGE_BYTES];

static struct boot_file file_of(const void *data, size_t bytes)
{
    return (struct boot_file){data, bytes, "kernel"};
}

/* A Linux image whose header leads to text, as far as it fits, at 0x200 + offset. */
static struct boot_file linux_image(uint16_t offset, const char *text)
{
    memset(image, 0, sizeof image);
    memcpy(image + 0x202, "HdrS", 4);
    memcpy(image + 0x20e, &offset, sizeof offset);
    for (size_t i = 0; text[i] != '\0' && 0x200u + offset + i < sizeof image; i++) {
        image[0x200 + offset + i] = text[i];
    }
    return file_of(image, sizeof image);
}

static bool is_linux_image(uint16_t offset, const char *text)
{
    const struct boot_file file = linux_image(offset, text);

    return tune_is_linux(&file);
}

Test(tune, knows_linux_by_its_version)
{
    cr_expect(is_linux_image(0x100, "6.1.192 (who@where) #1"));
    cr_expect(is_linux_image(0x100, "10.0"));
    cr_expect_not(is_linux_image(0x100, "Memtest86+ v6.10"));
    cr_expect_not(is_linux_image(0x100, "6-in-1"));
    cr_expect_not(is_linux_image(0, "6.1"), "no version");
    cr_expect(is_linux_image(IMAGE_BYTES - 0x202, "6.1"), "the last two bytes");
    cr_expect_not(is_linux_image(IMAGE_BYTES - 0x201, "6.1"), "beyond the end");
    cr_expect_not(is_linux_image(0xffff, "6.1"));
    for (size_t bytes = 0; bytes < 0x210; bytes++) {
        const struct boot_file whole = linux_image(0x100, "6.1");
        char *copy = malloc(bytes + 1);
        const struct boot_file cut = file_of(memcpy(copy, whole.data, bytes), bytes);

        cr_expect_not(tune_is_linux(&cut), "%zu bytes", bytes);
        free(copy);
    }
}

Test(tune, knows_linux_by_its_banner)
{
    char elf[200] = "\177ELF";
    const struct boot_file file = file_of(elf, sizeof elf);

    cr_expect_not(tune_is_linux(&file));
    memcpy(elf + 100, "Linux version 6.1.192", 21);
    cr_expect(tune_is_linux(&file));
    elf[114] = '%'; /* what prints the banner is not the banner */
    cr_expect_not(tune_is_linux(&file));
}

Test(tune, finds_a_word_that_stands_by_itself)
{
    cr_expect(tune_has_word("noxsave", "noxsave"));
    cr_expect(tune_has_word(" panic=-1\tnoxsave  quiet", "noxsave"));
    cr_expect(tune_has_word("noxsave -- noxsave", "noxsave"));
    cr_expect_not(tune_has_word("", "noxsave"));
    cr_expect_not(tune_has_word("noxsaves xnoxsave noxsav noxsave=1", "noxsave"));
    cr_expect_not(tune_has_word("quiet -- noxsave", "noxsave"), "that is for init");
    cr_expect(tune_has_word("--quiet noxsave", "noxsave"));
}

/* --- KVM ----------------------------------------------------------------------------------------------------- */

static struct kvm kvm;

static void open_kvm(void)
{
    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
}

static void shut_kvm(void)
{
    kvm_close(&kvm);
}

TestSuite(tune_kvm, .init = open_kvm, .fini = shut_kvm);

static unsigned int open_files(void)
{
    unsigned int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

/* The same in another guest, of 64 bits: KVM cannot go on. */
static bool ends_at_xrstor(void)
{
    static const uint8_t code[] = {0x0f, 0xae, 0x2b}; /* xrstor [rbx] */
    struct step_state state = {.mxcsr = 0x1f80, .regs = {.rip = STEP_CODE, .rbx = STEP_WRITABLE}};
    static struct ring0_station station;
    bool ends;

    ring0_open(&station, false);
    ends = ring0_run(&station, code, sizeof code, &state) == VCPU_BROKEN;
    ring0_close(&station);
    return ends;
}

/* A KVM that says that guests have XSAVE has XRSTOR; and a try leaves nothing behind. */
Test(tune_kvm, asks_by_trying)
{
    bool lacks = ends_at_xrstor();
    unsigned int before = open_files();

    for (unsigned int i = 0; i < 20; i++) {
        cr_assert_eq(tune_lacks_xrstor(&kvm), lacks, "try %u", i);
    }
    cr_expect_eq(open_files(), before);
    cr_expect_not(lacks && tune_declares_xsave(&kvm));
}

Test(tune_kvm, what_cannot_be_asked_is_not_lacking)
{
    const struct kvm none = {.fd = -1, .run_bytes = 4096};

    cr_expect_not(tune_lacks_xrstor(&none));
    cr_expect(tune_declares_xsave(&none));
}

static enum tune_state state_of(const struct boot_file *kernel, const char *command_line, enum tune_wish wish,
                                const char *wanted)
{
    struct tune tune;
    enum tune_state state;

    cr_assert_eq(tune_kernel(&kvm, kernel, command_line, wish, &tune, NULL), LOAM_OK);
    state = tune.state;
    cr_expect_eq(tune.command_line != NULL, state == TUNE_ADDED);
    if (state == TUNE_ADDED) {
        cr_expect_str_eq(tune.command_line, wanted);
    }
    tune_release(&tune);
    cr_expect_null(tune.command_line);
    return state;
}

Test(tune_kvm, tells_linux_what_kvm_lacks)
{
    const bool lacks = tune_lacks_xrstor(&kvm);
    struct boot_file kernel = linux_image(0x100, "Memtest86+");

    cr_expect_eq(state_of(&kernel, "", TUNE_ADD, NULL), TUNE_NEEDLESS, "no Linux");
    kernel = linux_image(0x100, "6.1.192");
    cr_expect_eq(state_of(&kernel, "quiet noxsave", TUNE_ADD, NULL), TUNE_NEEDLESS, "told already");
    cr_expect_eq(state_of(&kernel, "quiet", TUNE_IGNORE, NULL), TUNE_NEEDLESS);
    cr_expect_eq(state_of(&kernel, "quiet", TUNE_ASK, NULL), lacks ? TUNE_LEFT_OUT : TUNE_NEEDLESS);
    cr_expect_eq(state_of(&kernel, "", TUNE_ADD, "noxsave"), lacks ? TUNE_ADDED : TUNE_NEEDLESS);
    cr_expect_eq(state_of(&kernel, "quiet -- noxsave", TUNE_ADD, "noxsave quiet -- noxsave"),
                 lacks ? TUNE_ADDED : TUNE_NEEDLESS);
}
