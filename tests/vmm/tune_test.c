// SPDX-License-Identifier: Apache-2.0
/* What is a Linux kernel, what its command line says, and what this host's KVM lacks. */
#include "vmm/tune.h"

#include "tests/vmm/ring0_station.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
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

static void ignore_signal(int number)
{
    (void)number;
}

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
    struct tune_lacks first = tune_try(&kvm);
    unsigned int before = open_files();

    for (unsigned int i = 0; i < 20; i++) {
        struct tune_lacks again = tune_try(&kvm);

        cr_assert_eq(again.xrstor, lacks, "try %u", i);
        cr_assert_eq(again.hypercalls, first.hypercalls, "try %u", i);
    }
    cr_expect_eq(open_files(), before);
    cr_expect_not(lacks && tune_declares_xsave(&kvm));
    cr_expect(lacks || !first.hypercalls, "not asked");
}

/* Two instructions in 64-bit mode, in KVM's own way: it comes back to the first for ever, or passes. */
static bool hangs_at_hypercall(void)
{
    static const uint8_t vmcall[] = {0x0f, 0x01, 0xc1}, vmmcall[] = {0x0f, 0x01, 0xd9};
    struct step_state state = {.mxcsr = 0x1f80, .regs = {.rip = STEP_CODE, .rax = 1}};
    const struct itimerval soon = {.it_value = {.tv_usec = 200000}}, never = {0};
    const struct sigaction wake = {.sa_handler = ignore_signal};
    static struct ring0_station station;
    enum vcpu_event event;

    ring0_open(&station, false);
    ring0_map(0, RING0_WINDOW, RING0_PRESENT | RING0_WRITABLE); /* for KVM to write to */
    sigaction(SIGALRM, &wake, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    event = ring0_run(&station, __builtin_cpu_is("amd") ? vmmcall : vmcall, sizeof vmcall, &state);
    setitimer(ITIMER_REAL, &never, NULL);
    ring0_close(&station);
    return event == VCPU_INTERRUPTED;
}

Test(tune_kvm, knows_hypercalls_that_never_return)
{
    struct tune_lacks lacks = tune_try(&kvm);

    cr_expect_eq(lacks.hypercalls, lacks.xrstor && hangs_at_hypercall());
}

Test(tune_kvm, what_cannot_be_asked_is_not_lacking)
{
    const struct kvm none = {.fd = -1, .run_bytes = 4096};
    const struct tune_lacks lacks = tune_try(&none);

    cr_expect_not(lacks.xrstor);
    cr_expect_not(lacks.hypercalls);
    cr_expect(tune_declares_xsave(&none));
}

/* wanted: the words; "": none. */
static void check_words(const char *command_line, uint32_t vcpu_count, const char *wanted)
{
    char whole[64];
    struct tune tune;

    cr_assert_eq(tune_ask(&kvm, command_line, vcpu_count, TUNE_ASK, &tune, NULL), LOAM_OK);
    cr_expect_str_eq(tune.words, wanted);
    cr_expect_null(tune.command_line);
    cr_assert_eq(tune_ask(&kvm, command_line, vcpu_count, TUNE_ADD, &tune, NULL), LOAM_OK);
    cr_expect_str_eq(tune.words, wanted);
    if (wanted[0] == '\0') {
        cr_expect_null(tune.command_line);
    } else {
        snprintf(whole, sizeof whole, "%s%s%s", wanted, command_line[0] != '\0' ? " " : "", command_line);
        cr_expect_str_eq(tune.command_line, whole);
    }
    tune_release(&tune);
    cr_expect_null(tune.command_line);
    cr_assert_eq(tune_ask(&kvm, command_line, vcpu_count, TUNE_IGNORE, &tune, NULL), LOAM_OK);
    cr_expect_str_eq(tune.words, "");
}

Test(tune_kvm, tells_linux_what_kvm_lacks)
{
    const struct tune_lacks lacks = tune_try(&kvm);
    const char *both = lacks.hypercalls ? "noxsave nopv" : lacks.xrstor ? "noxsave" : "";
    const char *noxsave = lacks.xrstor ? "noxsave" : "", *nopv = lacks.hypercalls ? "nopv" : "";

    check_words("quiet noxsave", 1, "");
    check_words("quiet noxsave", 2, nopv);
    check_words("quiet nopv", 2, noxsave);
    check_words("nopv noxsave", 2, "");
    check_words("", 1, noxsave);
    check_words("", 2, both);
    check_words("quiet -- noxsave nopv", 2, both);
}
