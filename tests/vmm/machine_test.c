// SPDX-License-Identifier: Apache-2.0
/* Whole guests, each of a few instructions (machine_guests.S), on real memory and real KVM. */
#include "vmm/machine.h"

#include "tests/support/waiter.h"
#include "tests/vmm/ioctl_fake.h"
#include "tests/vmm/machine_guests.h"
#include "tests/vmm/random.h"
#include "vmm/debug_console.h"
#include "vmm/kvm.h"
#include "vmm/stand.h"
#include "vmm/vcpu.h"
#include "vmm/virtio_rng.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A guest that does not end is a failure, and not a test that hangs. */
#define TIMEOUT_SECONDS 60

/* Sanitizers map memory of their own as they go along. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define MAPS_BY_ITSELF true
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MAPS_BY_ITSELF true
#endif
#ifndef MAPS_BY_ITSELF
#define MAPS_BY_ITSELF false
#endif

#define RAM_BYTES   (8 * LOAM_MIB)
#define GUEST_BYTES UINT64_C(0x4000) /* code, stack, tables */

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]
#define LOAD(name)  load(guest_##name, guest_##name##_end)

GUEST(exit_byte);
GUEST(exit_long);
GUEST(exit_word);
GUEST(exit_odd);
GUEST(exit_twice);
GUEST(parameters);
GUEST(parameters_long);
GUEST(serial_out);
GUEST(serial_string);
GUEST(serial_echo);
GUEST(mmio);
GUEST(mmio_long);
GUEST(readonly);
GUEST(legacy_paging);
GUEST(lost_write);
GUEST(lost_read);
GUEST(lost_straddle);
GUEST(lost_last);
GUEST(lost_code);
GUEST(lost_stack);
GUEST(lost_string_in);
GUEST(lost_string_out);
GUEST(lost_string);
GUEST(unclaimed);
GUEST(virtio_magic);
GUEST(halt);
GUEST(loop);
GUEST(triple_fault);
GUEST(no_code);
GUEST(rare_instruction);
GUEST(reset);
GUEST(flush_keyboard);
GUEST(isa_exit_byte);
GUEST(isa_exit_word);
GUEST(isa_exit_long);
GUEST(power_off);
GUEST(debug_console);
GUEST(clock);
GUEST(fw_cfg);
GUEST(reset_control);
GUEST(both_halt);
GUEST(sleeper);
GUEST(alarm);
GUEST(line_nmi);
GUEST(wake);
GUEST(woken);
GUEST(wake_and_read);
GUEST(woken_to_go);
GUEST(interrupt);
GUEST(timer);
GUEST(late);
GUEST(lines);
GUEST(count);
GUEST(sequence);
GUEST(join);
GUEST(fetch);
GUEST(ticks);
GUEST(time);
GUEST(power_button);
GUEST(panic);
GUEST(virtio_places);

/* --- A guest's world ------------------------------------------------------------------------------------------ */

static struct loam_memory *memory;
static struct machine *machine;
static struct machine_config config;
static struct boot_state boot;
static struct machine_result result;

/* What came over the serial line; posted for each call. */
static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;
static char output[256];
static size_t output_count;
static sem_t output_came;

static void keep_output(void *self, const uint8_t *bytes, size_t count)
{
    (void)self;
    pthread_mutex_lock(&output_lock);
    for (size_t i = 0; i < count && output_count + 1 < sizeof output; i++) {
        output[output_count++] = (char)bytes[i];
    }
    pthread_mutex_unlock(&output_lock);
    sem_post(&output_came);
}

static void *carve(uint64_t gpa, uint64_t bytes)
{
    struct loam_dma_request request = {.owner = "test", .bytes = bytes, .flags = LOAM_DMA_AT, .at = {gpa}};
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, &diag), LOAM_OK, "%s", diag.text);
    return buffer.hva;
}

static void set_up(void)
{
    struct loam_memory_request request = {.bytes = RAM_BYTES, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct loam_diag diag = {0};
    struct loam_plan plan;

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    ioctl_fake_reset();
    sem_init(&output_came, 0, 0);
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    boot = (struct boot_state){.protocol = BOOT_PVH, .entry = GUEST_BASE};
    config = (struct machine_config){.memory = memory, .vcpu_count = 1, .boot = &boot, .serial_output = keep_output};
}

static void tear_down(void)
{
    machine_destroy(machine);
    loam_memory_destroy(memory);
}

TestSuite(machine, .init = set_up, .fini = tear_down, .timeout = TIMEOUT_SECONDS);
TestSuite(machine_pause, .init = set_up, .fini = tear_down, .timeout = TIMEOUT_SECONDS);

static uint8_t *load(const uint8_t *code, const uint8_t *end)
{
    uint8_t *place = carve(GUEST_BASE, GUEST_BYTES);

    memcpy(place, code, (size_t)(end - code));
    return place;
}

/* 64-bit mode: the first 4 GiB mapped one to one by 2 MiB pages, and the GDT that boot_state describes. */
static void enter_long_mode(void)
{
    uint64_t *tables = carve(GUEST_BASE + GUEST_BYTES, 7 * 4096);
    uint64_t gpa = GUEST_BASE + GUEST_BYTES;
    uint64_t *pointers = tables + 512, *directories = tables + 1024, *descriptors = tables + 6 * 512;

    tables[0] = (gpa + 4096) | 3;
    for (uint64_t i = 0; i < 4; i++) {
        pointers[i] = (gpa + (2 + i) * 4096) | 3;
    }
    for (uint64_t i = 0; i < 2048; i++) {
        directories[i] = i << 21 | 0x83;
    }
    descriptors[2] = UINT64_C(0x00af9b000000ffff);
    descriptors[3] = UINT64_C(0x00cf93000000ffff);
    descriptors[4] = UINT64_C(0x00008b0000000067);
    boot.protocol = BOOT_LINUX;
    boot.page_tables = loam_gpa_from_u64(gpa);
    boot.descriptors = loam_gpa_from_u64(gpa + 6 * 4096);
    boot.descriptor_count = 6;
}

static void create(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_OK, "%s", diag.text);
}

static void start(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(machine_start(machine, &diag), LOAM_OK, "%s", diag.text);
}

static bool is_stop_readable(int milliseconds)
{
    struct pollfd stop = {.fd = machine_stop_fd(machine), .events = POLLIN};

    return poll(&stop, 1, milliseconds) == 1;
}

static void finish(enum machine_stop_reason reason)
{
    machine_wait(machine, &result);
    cr_assert_eq(result.reason, reason, "reason %d wanted, %d found\n%s", reason, result.reason, result.report);
    cr_assert(is_stop_readable(0));
    machine_destroy(machine);
    machine = NULL;
}

static void run(enum machine_stop_reason reason)
{
    create();
    start();
    finish(reason);
}

static void run_to_exit(uint32_t exit_code)
{
    run(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, exit_code, "0x%" PRIx32 " wanted, 0x%" PRIx32 " found", exit_code, result.exit_code);
}

/* --- What else is at a PC's ports --------------------------------------------------------------------------------- */

Test(machine, hands_on_what_is_said_at_the_debug_console_in_its_place)
{
    LOAD(debug_console);
    run_to_exit(0);
    cr_assert_str_eq(output, "This is it.");
}

static int of_bcd(uint8_t value)
{
    return value / 16 * 10 + value % 16;
}

Test(machine, tells_the_hosts_time_in_utc)
{
    const uint8_t *found = LOAD(clock) + (BUFFERS - GUEST_BASE);
    const time_t before = time(NULL) - 1; /* the coarse clock of time(2) may be behind */
    struct tm tm;
    time_t told;

    config.without_rng = true;
    run_to_exit(0);
    tm = (struct tm){.tm_sec = of_bcd(found[0]),
                     .tm_min = of_bcd(found[1]),
                     .tm_hour = of_bcd(found[2]),
                     .tm_mday = of_bcd(found[3]),
                     .tm_mon = of_bcd(found[4]) - 1,
                     .tm_year = of_bcd(found[6]) * 100 + of_bcd(found[5]) - 1900};
    told = timegm(&tm);
    cr_expect(before <= told && told <= time(NULL) + 1, "%ld, and it was %ld", (long)told, (long)before);
    cr_expect_eq(found[7], 0x02);
    cr_expect_eq(found[8], 0x80);
    cr_expect_eq(found[9] | found[10] << 8, 7 * 1024, "KiB from 1 MiB on");
    cr_expect_eq(found[11], 0);
}

Test(machine, tells_ram_and_processors_as_qemu_does)
{
    const uint8_t *found = LOAD(fw_cfg) + (BUFFERS - GUEST_BASE);
    uint64_t ram_bytes;

    run_to_exit(0);
    cr_expect_arr_eq(found, "QEMU", 4);
    memcpy(&ram_bytes, found + 4, sizeof ram_bytes);
    cr_expect_eq(ram_bytes, RAM_BYTES);
    cr_expect_eq(found[12] | found[13] << 8, 1);
}

/* --- Ends ------------------------------------------------------------------------------------------------------ */

Test(machine, stops_with_the_byte_written_to_the_exit_port)
{
    LOAD(exit_byte);
    run_to_exit(0x2a);
    cr_assert_eq(result.vcpu, 0);
    cr_assert_eq(result.exit_count, 1);
    cr_assert_str_empty(result.report);
}

Test(machine, stops_with_the_long_word_written_to_the_exit_port)
{
    LOAD(exit_long);
    run_to_exit(0x12345678);
}

Test(machine, stops_with_the_word_written_to_the_exit_port)
{
    LOAD(exit_word);
    run_to_exit(0x1234);
}

Test(machine, stops_for_no_other_access_to_the_exit_port)
{
    LOAD(exit_odd);
    run_to_exit(7);
}

Test(machine, keeps_the_first_reason)
{
    LOAD(exit_twice);
    create();
    start();
    cr_assert(is_stop_readable(-1));
    machine_stop(machine);
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 3);
}

Test(machine, resets_through_the_keyboard_controller)
{
    LOAD(reset);
    run(MACHINE_STOP_RESET);
}

Test(machine, stops_with_what_is_written_where_qemu_has_its_exit_port)
{
    LOAD(isa_exit_byte);
    run_to_exit(0x78);
}

Test(machine, stops_with_the_word_written_where_qemu_has_its_exit_port)
{
    LOAD(isa_exit_word);
    run_to_exit(0x5678);
}

Test(machine, stops_with_the_long_word_written_where_qemu_has_its_exit_port)
{
    LOAD(isa_exit_long);
    run_to_exit(0x12345678);
}

Test(machine, turns_itself_off_without_a_look_at_tables)
{
    LOAD(power_off);
    run(MACHINE_STOP_POWER_OFF);
}

/* Linux gives up once it has read 16 bytes and there is another. */
Test(machine, has_a_keyboard_controller_that_no_driver_waits_for)
{
    LOAD(flush_keyboard);
    run_to_exit(17);
}

/* As Linux does it: which kind of reset first, and that reads back as nothing asked; then the reset. */
Test(machine, resets_through_the_reset_control_register)
{
    LOAD(reset_control);
    run(MACHINE_STOP_RESET);
}

Test(machine, reports_a_triple_fault)
{
    LOAD(triple_fault);
    run(MACHINE_STOP_SHUTDOWN);
    cr_assert_not_null(strstr(result.report, "vCPU 0: KVM_EXIT_SHUTDOWN (8)\ntriple fault"), "%s", result.report);
    /* SVM leaves no register of the guest behind after a shutdown. */
    if (strstr(result.report, "rip 000000000000fff0") == NULL) {
        cr_assert_not_null(strstr(result.report, "rax 00000000deadbeef"), "%s", result.report);
        cr_assert_not_null(strstr(result.report, "rsi 00000000600d600d"), "%s", result.report);
        cr_assert_not_null(strstr(result.report, "cs  0010 base 0000000000000000 limit ffffffff"), "%s", result.report);
        cr_assert_not_null(strstr(result.report, "60 b8 ef be ad de | 0f 0b"), "%s", result.report);
    }
}

/* Emulators fetch no code from devices: VT-x, SVM and software alike give an emulation failure. */
Test(machine, reports_code_that_cannot_be_fetched)
{
    LOAD(no_code);
    run(MACHINE_STOP_BROKEN);
    cr_assert_not_null(strstr(result.report, "KVM_EXIT_INTERNAL_ERROR (17), sub-error 1"), "%s", result.report);
    cr_assert_not_null(strstr(result.report, "rip 00000000e0000000"), "%s", result.report);
    cr_assert_not_null(strstr(result.report, "rsi 00000000600d600d"), "%s", result.report);
    cr_assert_not_null(strstr(result.report, "code ?? ?? ?? ?? ?? ?? ?? ?? | ??"), "%s", result.report);
}

/* With hardware virtualization the processor carries it out; a KVM that emulates everything may lack it. */
Test(machine, reports_an_instruction_that_the_emulator_lacks)
{
    LOAD(rare_instruction);
    create();
    start();
    machine_wait(machine, &result);
    if (result.reason == MACHINE_STOP_BROKEN) {
        cr_assert_not_null(strstr(result.report, "lacks the instruction at RIP (0f fc c0"), "%s", result.report);
        cr_assert_not_null(strstr(result.report, "be 0d 60 0d 60 | 0f fc c0 b0 00 e6 f4"), "%s", result.report);
    } else {
        cr_assert_eq(result.reason, MACHINE_STOP_EXIT, "%s", result.report);
        cr_assert_eq(result.exit_code, 0);
    }
}

/* A KVM that emulates everything lacks it, and says so by a triple fault: advice.h tells it by this. */
Test(machine, stands_where_it_turned_paging_on_if_this_kvm_has_none)
{
    LOAD(legacy_paging);
    carve(READONLY_PAGE, 4096);
    create();
    start();
    machine_wait(machine, &result);
    if (result.reason == MACHINE_STOP_SHUTDOWN) {
        struct stand stand;

        machine_stand(machine, 0, &stand);
        cr_assert(stand.is_triple_fault);
        cr_assert_arr_eq(stand.code, "\x0f\x22\xc0", 3,
                         "it is at MOV CR0, and a fault of its tables would be behind it");
    } else {
        cr_assert_eq(result.reason, MACHINE_STOP_EXIT, "%s", result.report);
        cr_assert_eq(result.exit_code, 0);
    }
}

static bool has_vcpus(uint32_t count)
{
    struct kvm kvm;
    bool has = kvm_open(KVM_DEVICE, &kvm, NULL) == LOAM_OK && kvm.vcpu_limit >= count;

    kvm_close(&kvm);
    return has;
}

/* The guest says a character before it goes to sleep or round in circles: then it is asked to stop. */
static void stop_once_it_runs(void)
{
    create();
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    cr_assert_not(is_stop_readable(0));
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine, stops_a_guest_that_sleeps)
{
    LOAD(halt);
    stop_once_it_runs();
}

/* Once it has come to its HLT, which is right behind the character that it says. */
Test(machine, says_that_a_guest_waits_in_vain)
{
    bool was_said = false;

    LOAD(halt);
    for (uint32_t i = 0; i < 1000 && !was_said; i++) {
        stop_once_it_runs();
        was_said = strstr(result.cause, "halted for good: HLT with interrupts off, at 0x2000") != NULL;
    }
    cr_assert(was_said, "%s", result.cause);
    if (has_vcpus(2)) {
        config.vcpu_count = 2;
        for (was_said = false; !was_said;) {
            stop_once_it_runs();
            was_said = result.cause[0] != '\0';
        }
    }
}

/* Nobody asks it to stop, and there is no time limit. */
static void finish_at_rest(const char *cause)
{
    while (!is_stop_readable(machine_look(machine))) {
    }
    finish(MACHINE_STOP_HALT);
    cr_assert_not_null(strstr(result.cause, cause), "%s", result.cause);
}

Test(machine, ends_once_nothing_can_wake_it)
{
    LOAD(halt);
    create();
    start();
    finish_at_rest("the guest is halted for good: HLT with interrupts off, at 0x2000");
    cr_assert_eq(result.vcpu, 0);
}

static void need_two_vcpus(void)
{
    if (!has_vcpus(2)) {
        cr_skip("this KVM has one vCPU a VM");
    }
    config.vcpu_count = 2;
}

Test(machine, ends_though_a_second_vcpu_was_never_started)
{
    need_two_vcpus();
    LOAD(halt);
    create();
    start();
    finish_at_rest("HLT with interrupts off on 1 of its vCPUs, and 1 never started: nothing can wake it");
}

Test(machine, ends_once_nothing_can_wake_either_vcpu)
{
    need_two_vcpus();
    LOAD(both_halt);
    memcpy(carve(START_PAGE, 4096), guest_sleeper, (size_t)(guest_sleeper_end - guest_sleeper));
    create();
    start();
    finish_at_rest("HLT with interrupts off on each of its 2 vCPUs: nothing can wake it");
    cr_assert_str_eq(output, "!2");
}

/* Turns of the lookout, each of which may be a look: until there have been so many. */
static void look_at(uint32_t look_count)
{
    for (uint32_t looks = 0; looks < look_count;) {
        uint32_t before = ioctl_fake_count();

        cr_assert_not(is_stop_readable(machine_look(machine)));
        looks += ioctl_fake_count() > before;
    }
}

/* One vCPU waits for an interrupt, by which it will wake the other, which nothing else can. */
Test(machine, is_looked_at_and_wakes_its_second_vcpu)
{
    struct irq_line line;

    need_two_vcpus();
    LOAD(alarm);
    memcpy(carve(START_PAGE, 4096), guest_sleeper, (size_t)(guest_sleeper_end - guest_sleeper));
    create();
    line = machine_irq(machine, MACHINE_SERIAL_IRQ);
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    look_at(4);
    irq_set(&line, true);
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0x66);
    cr_assert_eq(result.vcpu, 1);
}

/* Interrupts are off, and this line brings none. */
Test(machine, is_looked_at_and_can_be_woken_by_an_nmi)
{
    struct irq_line line;

    LOAD(line_nmi);
    create();
    line = machine_irq(machine, MACHINE_SERIAL_IRQ);
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    look_at(4);
    irq_set(&line, true);
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0x22);
}

/* Where the host is so busy that it finds no processor, it is looked at too: turns without a look are what counts. */
Test(machine, is_not_disturbed_while_it_runs)
{
    LOAD(loop);
    create();
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    for (uint32_t quiet = 0; quiet < 20;) {
        uint32_t before = ioctl_fake_count();

        cr_assert_not(is_stop_readable(machine_look(machine)));
        quiet += ioctl_fake_count() == before;
    }
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

static void stop_after_looks(void)
{
    create();
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    look_at(4);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine, is_looked_at_and_waits_for_an_interrupt)
{
    LOAD(interrupt);
    stop_after_looks();
}

/* Without interrupt controllers nothing can wake it: its sleep is its end. */
Test(machine, ends_with_a_halt_where_there_are_no_interrupts)
{
    LOAD(halt);
    boot.without_interrupts = true;
    run(MACHINE_STOP_HALT);
}

/* A second vCPU is started by interrupts, whatever the guest says. */
Test(machine, keeps_interrupts_for_two_vcpus)
{
    LOAD(halt);
    boot.without_interrupts = true;
    config.vcpu_count = 2;
    stop_once_it_runs();
}

Test(machine, connects_no_lines_where_there_are_no_interrupts)
{
    LOAD(halt);
    boot.without_interrupts = true;
    create();
    cr_assert_null(machine_irq(machine, MACHINE_SERIAL_IRQ).set);
    start();
    finish(MACHINE_STOP_HALT);
}

Test(machine, stops_a_guest_that_goes_round_in_circles)
{
    LOAD(loop);
    stop_once_it_runs();
    cr_assert_str_empty(result.cause);
}

/* At a moment of its own each time: before the thread is there, before KVM_RUN, in it. */
Test(machine, stops_whenever_it_is_asked)
{
    LOAD(loop);
    for (uint32_t i = 0; i < 60; i++) {
        create();
        start();
        for (volatile uint32_t wait = 0; wait < i * i * 20; wait++) {
        }
        machine_stop(machine);
        finish(MACHINE_STOP_REQUESTED);
    }
}

static void stop_machine(void)
{
    machine_stop(machine);
}

/* The one moment that a signal alone would miss: the vCPU has seen no end, and is about to enter the guest. */
Test(machine, stops_between_its_last_look_and_the_guest)
{
    LOAD(loop);
    create();
    ioctl_fake_before_run(stop_machine);
    start();
    finish(MACHINE_STOP_REQUESTED);
    cr_assert_eq(result.exit_count, 0);
}

Test(machine, stops_before_it_starts)
{
    LOAD(loop);
    create();
    machine_stop(machine);
    cr_assert(is_stop_readable(0));
    start();
    finish(MACHINE_STOP_REQUESTED);
    cr_assert_eq(result.exit_count, 0);
}

Test(machine, is_destroyed_while_it_runs)
{
    LOAD(loop);
    create();
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
}

/* --- How guests start ------------------------------------------------------------------------------------------ */

Test(machine, hands_a_pvh_guest_its_parameters)
{
    uint8_t *parameters = carve(READONLY_PAGE, 4096);

    LOAD(parameters);
    parameters[0] = 0x77;
    boot.parameters = loam_gpa_from_u64(READONLY_PAGE);
    run_to_exit(0x77);
}

Test(machine, hands_a_64_bit_guest_its_parameters)
{
    uint8_t *parameters = carve(READONLY_PAGE, 4096);

    LOAD(parameters_long);
    enter_long_mode();
    parameters[0] = 0x66;
    boot.parameters = loam_gpa_from_u64(READONLY_PAGE);
    run_to_exit(0x66);
}

Test(machine, lets_the_second_vcpu_wait)
{
    if (!has_vcpus(2)) {
        cr_skip("KVM recommends one vCPU");
    }
    config.vcpu_count = 2;
    LOAD(exit_byte);
    run_to_exit(0x2a);
    cr_assert_eq(result.vcpu, 0);
    cr_assert_eq(result.exit_count, 1, "the other one has done nothing");
}

Test(machine, starts_the_second_vcpu_when_the_first_says_so)
{
    if (!has_vcpus(2)) {
        cr_skip("KVM recommends one vCPU");
    }
    config.vcpu_count = 2;
    LOAD(wake);
    memcpy(carve(START_PAGE, 4096), guest_woken, (size_t)(guest_woken_end - guest_woken));
    run_to_exit(0x55);
    cr_assert_eq(result.vcpu, 1);
}

static sem_t was_entered, may_leave;

static void wait_in_access(void *device, struct bus_access *access)
{
    (void)device;
    access->value = 0;
    sem_post(&was_entered);
    sem_wait(&may_leave);
}

/* The first vCPU waits in a device; the second speaks and ends the run, at two others, before that one lets go. */
Test(machine, a_device_that_waits_holds_up_no_other)
{
    const struct bus_device device = {"waits", BUS_MMIO, TEST_DEVICE, 4096, wait_in_access, NULL};
    volatile uint8_t *start_page;
    bool has_ended;

    if (!has_vcpus(2)) {
        cr_skip("KVM recommends one vCPU");
    }
    sem_init(&was_entered, 0, 0);
    sem_init(&may_leave, 0, 0);
    config.vcpu_count = 2;
    LOAD(wake_and_read);
    start_page = carve(START_PAGE, 4096);
    memcpy((uint8_t *)start_page, guest_woken_to_go, (size_t)(guest_woken_to_go_end - guest_woken_to_go));
    create();
    cr_assert_eq(bus_add(machine_bus(machine), &device), LOAM_OK);
    start();
    sem_wait(&was_entered);
    start_page[4095] = 1;
    has_ended = is_stop_readable(10000);
    sem_post(&may_leave);
    cr_assert(has_ended, "the second vCPU waits for the first one's device");
    finish(MACHINE_STOP_EXIT);
    cr_expect_eq(result.exit_code, 0x55);
    cr_expect_eq(result.vcpu, 1);
    cr_expect_str_eq(output, "!");
}

static void wait_in_output(void *self, const uint8_t *bytes, size_t count)
{
    keep_output(self, bytes, count);
    sem_post(&was_entered);
    sem_wait(&may_leave);
}

/* self: the port */
static void say_at(void *self)
{
    uint8_t byte = 'L';

    cr_assert(bus_dispatch(machine_bus(machine), BUS_PIO, (uintptr_t)self, &byte, 1, true));
}

/* They are devices each for itself, and whoever hears them hears one at a time. */
Test(machine, the_debug_console_waits_for_the_serial_lines_output)
{
    struct waiter first, second;

    sem_init(&was_entered, 0, 0);
    sem_init(&may_leave, 0, 0);
    config.serial_output = wait_in_output;
    create();
    waiter_start(&first, say_at, (void *)(uintptr_t)MACHINE_SERIAL_PORT);
    sem_wait(&was_entered);
    waiter_start(&second, say_at, (void *)(uintptr_t)DEBUG_CONSOLE_PORT);
    cr_expect(waiter_sleeps(&second));
    cr_expect_str_eq(output, "L");
    sem_post(&may_leave);
    sem_post(&may_leave);
    waiter_join(&first);
    waiter_join(&second);
    cr_expect_str_eq(output, "LL");
}

Test(machine, has_no_place_for_devices_once_it_runs)
{
    const struct bus_device device = {"late", BUS_MMIO, TEST_DEVICE, 4096, wait_in_access, NULL};

    LOAD(loop);
    create();
    start();
    cr_expect_eq(bus_add(machine_bus(machine), &device), LOAM_ERROR_BUSY);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

/* --- The serial line -------------------------------------------------------------------------------------------- */

Test(machine, hands_on_what_the_guest_says)
{
    LOAD(serial_out);
    run_to_exit(0);
    cr_assert_str_eq(output, "Loam");
}

Test(machine, hands_on_what_a_string_instruction_says)
{
    LOAD(serial_string);
    run_to_exit(0);
    cr_assert_str_eq(output, "The quick brown fox jumps over the lazy dog.");
}

Test(machine, hands_the_guest_what_is_typed)
{
    const char *typed = "What is typed comes back, a hundred characters and more, so that the receiver is full for a "
                        "while and the rest waits: q";
    size_t length = strlen(typed), sent = 0;

    LOAD(serial_echo);
    create();
    start();
    while (sent < length) {
        sent += machine_serial_input(machine, (const uint8_t *)typed + sent, length - sent);
    }
    finish(MACHINE_STOP_EXIT);
    cr_assert_str_eq(output, typed);
}

/* --- Device memory ---------------------------------------------------------------------------------------------- */

#define ACCESS_MAX 16u

static struct bus_access accesses[ACCESS_MAX];
static uint32_t access_count;

static void log_access(void *device, struct bus_access *access)
{
    (void)device;
    cr_assert_lt(access_count, ACCESS_MAX);
    if (!access->is_write) {
        access->value = UINT64_C(0x8877665544332211);
    }
    accesses[access_count++] = *access;
}

static void add_test_device(uint64_t base)
{
    struct bus_device device = {.name = "test", .space = BUS_MMIO, .base = base, .bytes = 4096, .access = log_access};

    cr_assert_eq(bus_add(machine_bus(machine), &device), LOAM_OK);
}

static void check_access(uint32_t index, uint64_t offset, uint32_t bytes, bool is_write)
{
    uint64_t mask = bytes == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * bytes)) - 1;

    cr_assert_eq(accesses[index].offset, offset);
    cr_assert_eq(accesses[index].bytes, bytes);
    cr_assert_eq(accesses[index].is_write, is_write);
    cr_assert_eq(accesses[index].value & mask, UINT64_C(0x8877665544332211) & mask);
}

Test(machine, hands_accesses_of_each_size_to_a_device)
{
    LOAD(mmio);
    create();
    add_test_device(TEST_DEVICE);
    start();
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(access_count, 6);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t bytes = 1u << i;

        check_access(2 * i, bytes, bytes, false);
        check_access(2 * i + 1, bytes * 0x11, bytes, true);
    }
}

Test(machine, hands_accesses_of_8_bytes_to_a_device)
{
    LOAD(mmio_long);
    enter_long_mode();
    create();
    add_test_device(TEST_DEVICE);
    start();
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(access_count, 2);
    check_access(0, 8, 8, false);
    check_access(1, 0x88, 8, true);
}

Test(machine, turns_a_write_to_read_only_memory_into_a_device_access)
{
    uint32_t *page = carve(READONLY_PAGE, 4096);

    page[0] = 0x5a5a5a5a;
    LOAD(readonly);
    cr_assert_eq(loam_gpa_map_protect(loam_memory_map(memory), (loam_gpa){READONLY_PAGE}, 4096, LOAM_ACCESS_READ),
                 LOAM_OK);
    create();
    add_test_device(READONLY_PAGE);
    start();
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0x5a5a5a5a, "the guest reads what was there");
    cr_assert_eq(page[0], 0x5a5a5a5a);
    cr_assert_eq(access_count, 1);
    cr_assert(accesses[0].is_write);
    cr_assert_eq(accesses[0].bytes, 4);
    cr_assert_eq(accesses[0].value, 0xa5a5a5a5);
}

Test(machine, answers_with_ones_where_nothing_is)
{
    LOAD(unclaimed);
    run_to_exit(UINT32_MAX);
}

Test(machine, has_a_virtio_transport)
{
    LOAD(virtio_magic);
    run_to_exit(0x74726976);
}

Test(machine, keeps_its_devices_addresses_in_the_map_while_it_is_there)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view;
    struct loam_region region;

    create();
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){MACHINE_VIRTIO_BASE}, &region), LOAM_OK);
    loam_gpa_map_release(map, view);
    cr_assert_eq(region.type, LOAM_REGION_DEVICE);
    cr_assert_eq(region.bytes, MACHINE_VIRTIO_MAX * MACHINE_VIRTIO_BYTES);
    machine_destroy(machine);
    machine = NULL;
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){MACHINE_VIRTIO_BASE}, &region), LOAM_ERROR_NOT_FOUND);
    loam_gpa_map_release(map, view);
}

static void add_rng(struct virtio_rng *rng, unsigned int transport, enum loam_error wanted)
{
    struct loam_diag diag = {0};
    enum loam_error error;

    cr_assert_eq(virtio_rng_init(rng, loam_memory_map(memory), machine_irq(machine, 0), NULL, NULL), LOAM_OK);
    error = machine_add_virtio(machine, transport, "mine", &rng->mmio, &diag);
    cr_assert_eq(error, wanted, "%s", diag.text);
    cr_assert_eq(error == LOAM_OK, diag.text[0] == '\0');
    cr_assert(error == LOAM_OK || strstr(diag.text, "mine") != NULL, "%s", diag.text);
    if (error != LOAM_OK) {
        virtio_rng_destroy(rng);
    }
}

Test(machine, has_its_own_device_at_the_first_transport_alone)
{
    LOAD(virtio_places);
    run_to_exit(0x01);
    config.without_rng = true;
    run_to_exit(0x00);
}

Test(machine, takes_a_device_at_each_transport)
{
    static struct virtio_rng rngs[MACHINE_VIRTIO_MAX], refused;

    LOAD(virtio_places);
    config.without_rng = true;
    create();
    for (unsigned int i = 0; i < MACHINE_VIRTIO_MAX; i += i == 3 ? 2 : 1) {
        add_rng(&rngs[i], i, LOAM_OK);
        add_rng(&refused, i, LOAM_ERROR_OVERLAP);
    }
    add_rng(&refused, MACHINE_VIRTIO_MAX, LOAM_ERROR_INVALID);
    add_rng(&refused, UINT32_MAX, LOAM_ERROR_INVALID);
    start();
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0xef, "0x%" PRIx32, result.exit_code);
    for (unsigned int i = 0; i < MACHINE_VIRTIO_MAX; i += i == 3 ? 2 : 1) {
        virtio_rng_destroy(&rngs[i]);
    }
}

Test(machine, keeps_the_first_transport_for_its_own_device)
{
    struct virtio_rng refused;

    create();
    add_rng(&refused, 0, LOAM_ERROR_OVERLAP);
}

/* The timer, the keyboard, the cascade, the serial line, the clock, the button and the FPU have theirs. */
Test(machine, gives_each_transport_a_line_of_its_own)
{
    const uint32_t others =
        1u << 0 | 1u << 1 | 1u << 2 | 1u << MACHINE_SERIAL_IRQ | 1u << 8 | 1u << MACHINE_POWER_IRQ | 1u << 13;
    uint32_t taken = others;

    for (unsigned int i = 0; i < MACHINE_VIRTIO_MAX; i++) {
        unsigned int number = machine_virtio_irq(i);

        cr_assert_lt(number, 16);
        cr_assert_eq(taken & 1u << number, 0, "line %u of transport %u is another's", number, i);
        taken |= 1u << number;
    }
    cr_assert_eq(machine_virtio_irq(0), 5);
}

/* --- Memory that the host does not supply ------------------------------------------------------------------------- */

/* A file behind the RAM that is too short: what a page of it does when it is touched is what a limit does to one. */
static int cut_fd = -1;
static void *cut_hva;

static void add_lost_ram(enum loam_access granted)
{
    struct loam_region region = {.start = {LOST_RAM},
                                 .bytes = LOST_BYTES,
                                 .backing = LOAM_FRAME_SECTION_MAX + 1,
                                 .type = LOAM_REGION_RAM,
                                 .access = granted};

    cut_fd = memfd_create("cut", MFD_CLOEXEC);
    cr_assert_geq(cut_fd, 0);
    cut_hva = mmap(NULL, LOST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, cut_fd, 0);
    cr_assert_neq(cut_hva, MAP_FAILED);
    region.hva = cut_hva;
    cr_assert_eq(loam_gpa_map_insert(loam_memory_map(memory), &region), LOAM_OK);
}

static void drop_lost_ram(void)
{
    cr_assert_eq(loam_gpa_map_remove(loam_memory_map(memory), (loam_gpa){LOST_RAM}, LOST_BYTES), LOAM_OK);
    munmap(cut_hva, LOST_BYTES);
    close(cut_fd);
}

static void check_cause(const char *wanted)
{
    cr_expect_not_null(strstr(result.cause, wanted), "%s wanted, found: %s", wanted, result.cause);
    cr_expect_null(strchr(result.cause, '\n'), "%s", result.cause);
}

#define EXPECT_LOST(name)                                                                                              \
    Test(machine, breaks_when_ram_is_missing_##name)                                                                   \
    {                                                                                                                  \
        LOAD(name);                                                                                                    \
        add_lost_ram(LOAM_ACCESS_WRITE);                                                                               \
        run(MACHINE_STOP_BROKEN);                                                                                      \
        check_cause("the host does not supply guest RAM at GPA 0x80");                                                 \
        check_cause("region [0x800000, 0x802000)");                                                                    \
        cr_assert_str_not_empty(result.report);                                                                        \
        cr_assert_eq(output_count, 0, "the guest got nothing out of it");                                              \
        drop_lost_ram();                                                                                               \
    }

EXPECT_LOST(lost_write)
EXPECT_LOST(lost_read)
EXPECT_LOST(lost_straddle)
EXPECT_LOST(lost_last)
EXPECT_LOST(lost_code)
EXPECT_LOST(lost_stack)
EXPECT_LOST(lost_string_in)
EXPECT_LOST(lost_string_out)
EXPECT_LOST(lost_string)

/* Read-only memory is no exception when it is read. */
Test(machine, breaks_when_read_only_ram_is_missing)
{
    LOAD(lost_read);
    add_lost_ram(LOAM_ACCESS_READ);
    run(MACHINE_STOP_BROKEN);
    check_cause("the host does not supply guest RAM at GPA 0x800000");
    drop_lost_ram();
}

/* --- KVM_RUN that fails ------------------------------------------------------------------------------------------- */

Test(machine, goes_on_when_kvm_run_says_again_for_a_while)
{
    LOAD(exit_byte);
    create();
    ioctl_fake_fail_runs(VCPU_STALL_MAX, EAGAIN);
    start();
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0x2a);
    cr_assert_str_empty(result.cause);
}

Test(machine, ends_when_kvm_run_says_again_for_ever)
{
    LOAD(exit_byte);
    create();
    ioctl_fake_fail_runs(UINT32_MAX, EAGAIN);
    start();
    finish(MACHINE_STOP_BROKEN);
    cr_assert_eq(UINT32_MAX - ioctl_fake_runs_left(), VCPU_STALL_MAX + 1);
    check_cause("RLIMIT_NPROC");
    check_cause("pids.max");
}

/* Even while it is tried again and again, a stop is obeyed. */
Test(machine, stops_while_kvm_run_says_again)
{
    LOAD(exit_byte);
    create();
    ioctl_fake_before_run(stop_machine);
    ioctl_fake_fail_runs(UINT32_MAX, EAGAIN);
    start();
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine, says_in_one_line_why_kvm_run_failed)
{
    static const struct {
        int error;
        const char *says;
    } errors[] = {{ENOMEM, "memory.max"},
                  {ENOSYS, "seccomp"},
                  {EPERM, "seccomp"},
                  {EINVAL, "state to be impossible"},
                  {EIO, "the VM is dead"},
                  {ENXIO, "dmesg"},
                  {EFAULT, "does not say where"},
                  {EHWPOISON, "does not say where"}};

    LOAD(exit_byte);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        create();
        ioctl_fake_fail_runs(1, errors[i].error);
        start();
        finish(MACHINE_STOP_BROKEN);
        check_cause(errors[i].says);
        cr_assert_str_not_empty(result.report);
    }
}

/* --- What a guest counts ------------------------------------------------------------------------------------------ */

static volatile uint32_t *counters; /* the guest's, at COUNTERS */
static volatile uint32_t *buffers;

static void find_counters(uint8_t *place)
{
    counters = (volatile uint32_t *)(place + (COUNTERS - GUEST_BASE));
    buffers = (volatile uint32_t *)(place + (BUFFERS - GUEST_BASE));
}

static int64_t now_microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Time in which a guest that runs does something that shows. */
static void let_pass(int64_t microseconds)
{
    int64_t end = now_microseconds() + microseconds;

    while (now_microseconds() < end) {
    }
}

/* Bounded by the test's own time. */
static void await_change(volatile uint32_t *counter)
{
    uint32_t before = *counter;

    while (*counter == before) {
        cr_assert_not(is_stop_readable(0), "it has stopped by itself");
    }
}

/* --- Interrupts ------------------------------------------------------------------------------------------------- */

Test(machine, interrupts_a_guest_that_sleeps)
{
    struct irq_line line;

    LOAD(interrupt);
    create();
    line = machine_irq(machine, 4);
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    irq_set(&line, true);
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0x24);
}

Test(machine, has_a_timer)
{
    LOAD(timer);
    run_to_exit(0x20);
}

Test(machine, says_that_an_interrupt_cannot_be_had)
{
    LOAD(timer);
    create();
    ioctl_fake_refuse_all(KVM_INTERRUPT, EIO);
    start();
    finish(MACHINE_STOP_BROKEN);
    cr_assert_str_eq(result.report, "interrupts: KVM_INTERRUPT: Input/output error\n");
}

static void raise_late(bool is_masked)
{
    struct irq_line line;
    volatile uint8_t *flags;

    find_counters(LOAD(late));
    flags = (volatile uint8_t *)counters;
    flags[1] = is_masked;
    create();
    line = machine_irq(machine, 4);
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    irq_set(&line, true);
    cr_assert_not(is_stop_readable(20));
    flags[0] = 1;
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0x24);
}

Test(machine, keeps_an_interrupt_until_the_guest_lets_it)
{
    raise_late(false);
}

Test(machine, keeps_an_interrupt_until_the_local_apic_lets_it)
{
    raise_late(true);
}

/* --- The I/O APIC ------------------------------------------------------------------------------------------------ */

#define LINE_LEVEL 0x8000u

static struct irq_line tested_line;
static pthread_mutex_t tested_lock = PTHREAD_MUTEX_INITIALIZER; /* of the line and what is known of it */
static bool is_line_high;
static uint32_t line_falls_at; /* the interrupt, within which it falls */
static atomic_uint fall_count;

static void lower_line(void *self, struct bus_access *access)
{
    (void)self;
    pthread_mutex_lock(&tested_lock);
    if (is_line_high && access->value >= line_falls_at) {
        is_line_high = false;
        irq_set(&tested_line, false);
        atomic_fetch_add(&fall_count, 1);
    }
    pthread_mutex_unlock(&tested_lock);
}

static void raise_line(uint32_t falls_at)
{
    pthread_mutex_lock(&tested_lock);
    line_falls_at = falls_at;
    is_line_high = true;
    irq_set(&tested_line, true);
    pthread_mutex_unlock(&tested_lock);
}

static void begin_anew(void)
{
    machine_destroy(machine);
    machine = NULL;
    loam_memory_destroy(memory);
    set_up();
}

static void start_lines_with(bus_access_fn *access, unsigned int line, unsigned int pin, uint32_t entry)
{
    const struct bus_device device = {
        .name = "test port", .space = BUS_PIO, .base = TEST_PORT, .bytes = 4, .access = access};

    find_counters(LOAD(lines));
    counters[2] = 0x10 + 2 * pin;
    counters[3] = entry | 0x2a;
    atomic_store(&fall_count, 0);
    create();
    cr_assert_eq(bus_add(machine_bus(machine), &device), LOAM_OK);
    tested_line = machine_irq(machine, line);
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
}

/* The guest has been told of so many, and its device has had its part of them. */
static void await_falls(uint32_t count)
{
    while (atomic_load(&fall_count) < count) {
        cr_assert_not(is_stop_readable(0), "%s", result.report);
    }
}

static void start_lines(unsigned int line, unsigned int pin, uint32_t entry)
{
    start_lines_with(lower_line, line, pin, entry);
}

/*
 * A KVM that emulates everything may end an interrupt by itself before its handler runs: a level is sent again then, and that
 * interrupt finds nothing to do.
 */
static bool is_ended_by_the_guest(void)
{
    return (counters[1] >> 10 & 1) != 0;
}

/* As many as there are, and no more. */
static void await_count(uint32_t count)
{
    while (counters[0] < count) {
        cr_assert_not(is_stop_readable(1), "%s", result.report);
    }
    let_pass(2000);
    cr_assert(counters[0] == count || !is_ended_by_the_guest(), "%" PRIu32 " wanted, %" PRIu32 " found", count,
              counters[0]);
}

Test(machine, interrupts_again_by_a_level_that_was_ended_and_is_high_still)
{
    static const unsigned int lines[] = {10, 23};

    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        start_lines(lines[i], lines[i], LINE_LEVEL);
        let_pass(2000);
        cr_assert_eq(counters[0], 0);
        raise_line(5);
        await_falls(1);
        await_count(5);
        raise_line(0);
        await_falls(2);
        await_count(6);
        begin_anew();
    }
}

Test(machine, interrupts_once_by_an_edge)
{
    start_lines(10, 10, 0);
    for (uint32_t i = 1; i <= 20; i++) {
        irq_set(&tested_line, true);
        await_count(i);
        cr_assert_eq(counters[0], i);
        irq_set(&tested_line, false);
    }
}

/* A level that rises and falls a thousand times: nothing is left in service, nothing is lost. */
Test(machine, interrupts_by_every_level)
{
    start_lines(5, 5, LINE_LEVEL);
    for (uint32_t i = 1; i <= 1000; i++) {
        raise_line(0);
        await_falls(i);
    }
    await_count(1000);
}

/* As firmware leaves it: 18.2 times a second, wherever a table says that it is. */
Test(machine, has_a_timer_that_ticks_from_the_start)
{
    for (unsigned int pin = 0; pin <= 2; pin += 2) {
        int64_t begin;

        start_lines(0, pin, 0);
        await_change(counters);
        begin = now_microseconds();
        await_change(counters);
        await_change(counters);
        cr_assert_geq(now_microseconds() - begin, 54925, "two more, one period at least");
        begin_anew();
    }
}

#define TICK_MICROSECONDS 54926
#define TICKS_MISSED      6
#define TICKS_BEFORE      3

static _Atomic int64_t hold_up_end; /* of the guest, within an access */

static void hold_up(void *self, struct bus_access *access)
{
    (void)self;
    if (access->value == TICKS_BEFORE) {
        let_pass(TICKS_MISSED * TICK_MICROSECONDS);
        atomic_store(&hold_up_end, now_microseconds());
    }
}

/* It runs on as soon as it is let, and has what ticks it missed at once, not by and by. */
Test(machine, gives_a_guest_that_was_held_up_the_ticks_that_it_missed)
{
    atomic_store(&hold_up_end, 0);
    start_lines_with(hold_up, 0, 2, 0);
    while (counters[0] < TICKS_BEFORE + TICKS_MISSED) {
        cr_assert_not(is_stop_readable(0), "%s", result.report);
    }
    cr_assert_neq(atomic_load(&hold_up_end), 0);
    cr_assert_lt(now_microseconds() - atomic_load(&hold_up_end), TICKS_MISSED / 2 * TICK_MICROSECONDS);
}

/* --- Power and panic -------------------------------------------------------------------------------------------- */

Test(machine, is_turned_off_by_a_guest_that_heeds_the_button)
{
    LOAD(power_button);
    create();
    cr_assert_not(machine_press_power(machine), "nobody listens yet");
    machine_destroy(machine);
    create();
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    cr_assert(machine_press_power(machine));
    finish(MACHINE_STOP_POWER_OFF);
}

Test(machine, tells_of_a_button_that_was_pressed_before_the_guest_listened)
{
    LOAD(power_button);
    create();
    cr_assert_not(machine_press_power(machine));
    start();
    finish(MACHINE_STOP_POWER_OFF);
}

Test(machine, tells_of_a_button_that_was_pressed_during_a_pause)
{
    LOAD(power_button);
    create();
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    machine_pause(machine);
    cr_assert(machine_press_power(machine));
    cr_assert_not(is_stop_readable(20));
    machine_resume(machine);
    finish(MACHINE_STOP_POWER_OFF);
}

Test(machine, stops_when_the_guest_says_that_it_has_panicked)
{
    LOAD(panic);
    run(MACHINE_STOP_PANIC);
    cr_assert_eq(result.exit_code, 5);
    cr_assert_str_empty(result.cause);
}

/* --- Pauses ------------------------------------------------------------------------------------------------------ */

#define PAUSE_COUNT 200u
#define PAUSE_SEED  UINT64_C(0x5eed0f9a05e5)

static bool is_pause_readable(void)
{
    struct pollfd pause = {.fd = machine_pause_fd(machine), .events = POLLIN};

    return poll(&pause, 1, 0) == 1;
}

static void check_paused(bool is_paused)
{
    cr_assert_eq(machine_is_pausing(machine), is_paused);
    cr_assert_eq(is_pause_readable(), is_paused);
}

/* While it is paused, each of count counters stands. */
static void check_standing(uint32_t count, int64_t microseconds)
{
    uint32_t before[4];

    for (uint32_t i = 0; i < count; i++) {
        before[i] = counters[i];
    }
    let_pass(microseconds);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_eq(counters[i], before[i], "counter %" PRIu32 " went on", i);
    }
}

/* What is asked for while it is held happens afterwards; a look at it (machine_look) is no end of that either. */
Test(machine_pause, is_held_whoever_lets_it_go_on)
{
    find_counters(LOAD(count));
    create();
    start();
    await_change(counters);
    for (uint32_t i = 0; i < 4; i++) {
        const bool stood = i % 2 == 1, is_to_stand = i / 2 == 1;

        if (stood) {
            machine_pause(machine);
        }
        cr_assert(machine_hold(machine));
        machine_resume(machine);
        (void)machine_look(machine);
        check_paused(true);
        check_standing(1, 2000);
        if (is_to_stand) {
            machine_pause(machine);
        }
        machine_let_go(machine);
        check_paused(is_to_stand);
        machine_resume(machine);
        await_change(counters);
    }
    machine_pause(machine);
    cr_assert(machine_hold(machine));
    machine_let_go(machine);
    check_paused(true);
    machine_stop(machine);
    cr_assert_not(machine_hold(machine), "it has stopped");
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine_pause, stands_still_and_goes_on_from_there)
{
    find_counters(LOAD(count));
    create();
    start();
    check_paused(false);
    await_change(counters);
    for (uint32_t i = 0; i < 20; i++) {
        machine_pause(machine);
        check_paused(true);
        check_standing(1, 2000);
        machine_resume(machine);
        check_paused(false);
        await_change(counters);
    }
    machine_stop(machine);
    cr_assert(is_pause_readable(), "who waits for a pause is woken by the end");
    finish(MACHINE_STOP_REQUESTED);
}

/* Numbers that the device has handed out to a vCPU and taken from it. */
struct numbers {
    uint32_t next, wrong_count;
};

static struct numbers numbers[2];
static atomic_uint access_total;
static atomic_bool is_entry_forbidden;
static atomic_uint forbidden_count;

static void count_numbers(struct numbers *of, struct bus_access *access)
{
    uint32_t mask = access->bytes == 4 ? UINT32_MAX : 0xffff;

    atomic_fetch_add(&access_total, 1);
    if (atomic_load(&is_entry_forbidden)) {
        atomic_fetch_add(&forbidden_count, 1);
    }
    if (access->is_write) {
        of->wrong_count += ((uint32_t)access->value & mask) != (of->next & mask);
    } else {
        access->value = of->next & mask;
    }
    of->next++;
}

static void count_memory(void *device, struct bus_access *access)
{
    (void)device;
    count_numbers(&numbers[access->offset >> 13 & 1], access);
}

static void count_port(void *device, struct bus_access *access)
{
    (void)device;
    count_numbers(&numbers[access->offset >> 2 & 1], access);
}

static void add_counting_devices(bus_access_fn *memory_access, bus_access_fn *port_access)
{
    const struct bus_device devices[] = {
        {.name = "test", .space = BUS_MMIO, .base = TEST_DEVICE, .bytes = 0x4000, .access = memory_access},
        {.name = "test port", .space = BUS_PIO, .base = TEST_PORT, .bytes = 8, .access = port_access}};

    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        cr_assert_eq(bus_add(machine_bus(machine), &devices[i]), LOAM_OK);
    }
}

static void start_sequence(uint32_t vcpu_count)
{
    find_counters(LOAD(sequence));
    memcpy(carve(START_PAGE, 4096), guest_join, (size_t)(guest_join_end - guest_join));
    config.vcpu_count = vcpu_count;
    create();
    add_counting_devices(count_memory, count_port);
    start();
    for (uint32_t i = 0; i < vcpu_count; i++) {
        await_change(&counters[i]);
    }
}

static void pause_sequence(uint32_t vcpu_count, struct random *random)
{
    uint32_t before;

    let_pass((int64_t)random_below(random, 2000));
    machine_pause(machine);
    atomic_store(&is_entry_forbidden, true);
    before = atomic_load(&access_total);
    check_standing(vcpu_count, (int64_t)random_below(random, 500));
    cr_assert_eq(atomic_load(&access_total), before);
    atomic_store(&is_entry_forbidden, false);
    machine_resume(machine);
    for (uint32_t i = 0; i < vcpu_count; i++) {
        await_change(&counters[i]);
    }
}

static void check_sequence(uint32_t vcpu_count)
{
    struct random random = {PAUSE_SEED};

    start_sequence(vcpu_count);
    for (uint32_t i = 0; i < PAUSE_COUNT; i++) {
        pause_sequence(vcpu_count, &random);
    }
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
    for (uint32_t i = 0; i < vcpu_count; i++) {
        cr_assert_eq(numbers[i].wrong_count, 0, "vCPU %" PRIu32 ", seed 0x%" PRIx64, i, PAUSE_SEED);
    }
    cr_assert_eq(atomic_load(&forbidden_count), 0, "seed 0x%" PRIx64, PAUSE_SEED);
}

Test(machine_pause, loses_and_doubles_no_access)
{
    if (!has_vcpus(2)) {
        cr_skip("this KVM has one vCPU a VM");
    }
    check_sequence(2);
}

/* Each access waits for the pause to begin: it is always under way then. */
static sem_t access_came;

static void await_pausing(void *device, struct bus_access *access)
{
    (void)device;
    sem_post(&access_came);
    while (!machine_is_pausing(machine) && !is_stop_readable(0)) {
    }
    count_numbers(&numbers[0], access);
}

/* What the device has handed out is in the guest's memory when it stands, of an access in two parts both. */
Test(machine_pause, completes_an_access_that_is_under_way)
{
    find_counters(LOAD(fetch));
    sem_init(&access_came, 0, 0);
    create();
    add_counting_devices(await_pausing, await_pausing);
    start();
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t next = numbers[0].next;

        cr_assert_eq(sem_wait(&access_came), 0);
        machine_pause(machine);
        if (next % 3 == 0) {
            cr_assert_eq(numbers[0].next, next + 1);
            cr_assert_eq(buffers[0], next, "%" PRIu32 " was handed out, %" PRIu32 " has come", next, buffers[0]);
        } else {
            cr_assert_eq(numbers[0].next, next + 2);
            cr_assert_eq(buffers[1], next | (next + 1) << 16);
            cr_assert_eq(sem_trywait(&access_came), 0, "of its second part");
        }
        machine_resume(machine);
    }
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine_pause, is_the_same_twice)
{
    find_counters(LOAD(count));
    create();
    start();
    await_change(counters);
    machine_resume(machine);
    check_paused(false);
    machine_pause(machine);
    machine_pause(machine);
    check_paused(true);
    check_standing(1, 2000);
    machine_resume(machine);
    check_paused(false);
    machine_resume(machine);
    await_change(counters);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine_pause, comes_before_the_first_instruction)
{
    find_counters(LOAD(count));
    create();
    machine_pause(machine);
    check_paused(true);
    start();
    cr_assert_gt(machine_vcpu_thread(machine, 0), 0);
    check_standing(1, 20000);
    cr_assert_eq(counters[0], 0);
    cr_assert_eq(output_count, 0);
    machine_resume(machine);
    await_change(counters);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine_pause, that_is_over_before_the_start_was_none)
{
    find_counters(LOAD(count));
    create();
    machine_pause(machine);
    machine_resume(machine);
    start();
    await_change(counters);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine_pause, ends_with_a_stop)
{
    find_counters(LOAD(count));
    create();
    start();
    await_change(counters);
    machine_pause(machine);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine_pause, that_was_never_started_ends_with_a_stop)
{
    find_counters(LOAD(count));
    create();
    machine_pause(machine);
    machine_stop(machine);
    start();
    finish(MACHINE_STOP_REQUESTED);
    cr_assert_eq(result.exit_count, 0);
}

Test(machine_pause, does_not_hold_up_the_destruction)
{
    find_counters(LOAD(count));
    create();
    start();
    await_change(counters);
    machine_pause(machine);
}

Test(machine_pause, is_none_of_a_machine_that_has_stopped)
{
    LOAD(exit_byte);
    create();
    start();
    cr_assert(is_stop_readable(-1));
    machine_pause(machine);
    cr_assert_not(machine_is_pausing(machine));
    machine_resume(machine);
    cr_assert(is_pause_readable());
    finish(MACHINE_STOP_EXIT);
}

static void *stop_later(void *microseconds)
{
    let_pass((int64_t)(uintptr_t)microseconds);
    machine_stop(machine);
    return NULL;
}

/* At a moment of its own each time: before a pause, while vCPUs are being parked, while they rest, when they go on. */
Test(machine_pause, meets_a_stop_at_any_moment)
{
    struct random random = {PAUSE_SEED};

    find_counters(LOAD(count));
    config.vcpu_count = has_vcpus(2) ? 2 : 1;
    for (uint32_t i = 0; i < 100; i++) {
        pthread_t thread;

        create();
        start();
        cr_assert_eq(pthread_create(&thread, NULL, stop_later, (void *)(uintptr_t)random_below(&random, 1000)), 0);
        while (!is_stop_readable(0)) {
            machine_pause(machine);
            machine_resume(machine);
        }
        machine_pause(machine);
        pthread_join(thread, NULL);
        finish(MACHINE_STOP_REQUESTED);
    }
}

/* Which would have ended the run, had it been a look. */
Test(machine_pause, is_no_look_and_looks_do_not_disturb_it)
{
    LOAD(halt);
    create();
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    let_pass(20000); /* for its HLT; where it has not come to it yet, this shows nothing */
    for (uint32_t i = 0; i < 20; i++) {
        machine_pause(machine);
        machine_look(machine);
        cr_assert_not(is_stop_readable(1));
        machine_resume(machine);
        cr_assert_not(is_stop_readable(1));
    }
    finish_at_rest("halted for good");
}

Test(machine_pause, keeps_an_interrupt_for_a_guest_that_sleeps)
{
    struct irq_line line;

    LOAD(interrupt);
    create();
    line = machine_irq(machine, 4);
    start();
    cr_assert_eq(sem_wait(&output_came), 0);
    machine_pause(machine);
    irq_set(&line, true);
    cr_assert_not(is_stop_readable(20));
    machine_resume(machine);
    finish(MACHINE_STOP_EXIT);
    cr_assert_eq(result.exit_code, 0x24);
}

Test(machine_pause, parks_a_vcpu_that_was_never_woken)
{
    if (!has_vcpus(2)) {
        cr_skip("this KVM has one vCPU a VM");
    }
    find_counters(LOAD(count));
    config.vcpu_count = 2;
    create();
    start();
    await_change(counters);
    for (uint32_t i = 0; i < 50; i++) {
        machine_pause(machine);
        check_standing(2, 100);
        machine_resume(machine);
        await_change(counters);
    }
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
    cr_assert_eq(result.exit_count, 1, "a character and no more");
}

static sem_t pace_came;

/* A reader that reads nothing; it is told of a pause as soon as there is one, or by the descriptor. */
static bool is_told_at_once;

static void pace_until_pause(void *self)
{
    struct pollfd pause = {.fd = machine_pause_fd(machine), .events = POLLIN};

    (void)self;
    sem_post(&pace_came);
    while (is_told_at_once && !machine_is_pausing(machine) && !is_stop_readable(0)) {
    }
    while (!is_told_at_once && poll(&pause, 1, -1) < 0) { /* the kick */
    }
}

static void pause_one_that_waits_for_a_reader(void)
{
    find_counters(LOAD(count));
    sem_init(&pace_came, 0, 0);
    config.serial_pace = pace_until_pause;
    create();
    start();
    for (uint32_t i = 0; i < 200; i++) {
        cr_assert_eq(sem_wait(&pace_came), 0);
        machine_pause(machine);
        check_paused(true);
        check_standing(1, i % 10 == 0 ? 500 : 0);
        machine_resume(machine);
    }
    cr_assert_eq(sem_wait(&pace_came), 0);
    cr_assert_eq(counters[0], 0, "nobody has read what it said");
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED);
}

Test(machine_pause, parks_a_vcpu_that_waits_for_a_reader_and_has_it_wait_again)
{
    pause_one_that_waits_for_a_reader();
}

Test(machine_pause, parks_a_vcpu_that_hears_of_a_pause_before_it_is_called_back)
{
    is_told_at_once = true;
    pause_one_that_waits_for_a_reader();
}

/* --- Clocks ------------------------------------------------------------------------------------------------------ */

#define STANDING_MICROSECONDS 400000

/* A thousand ticks a second, and none of those that it would have got. */
Test(machine_pause, owes_the_guest_no_ticks)
{
    uint32_t before;

    find_counters(LOAD(ticks));
    create();
    start();
    await_change(counters);
    await_change(counters);
    machine_pause(machine);
    before = counters[0];
    let_pass(STANDING_MICROSECONDS);
    machine_resume(machine);
    for (int64_t end = now_microseconds() + STANDING_MICROSECONDS / 4; now_microseconds() < end;) {
    }
    machine_pause(machine);
    cr_assert_leq(counters[0] - before, STANDING_MICROSECONDS / 2000, "%" PRIu32 " ticks", counters[0] - before);
    cr_assert_gt(counters[0], before);
}

/* Whether KVM shifts a TSC when it is told to, and says what the host's is: an emulation may do neither. */
static bool has_tsc_offset(void)
{
    uint64_t offset = UINT64_C(1) << 40, found = 0;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    struct kvm kvm;
    int vm_fd, vcpu_fd, flags;
    bool has;

    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    flags = kvm_ioctl_number(kvm.fd, KVM_CHECK_EXTENSION, KVM_CAP_ADJUST_CLOCK);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, NULL), LOAM_OK);
    vcpu_fd = kvm_ioctl_number(vm_fd, KVM_CREATE_VCPU, 0);
    has = kvm_ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute) == 0;
    attribute.addr = (uintptr_t)&found;
    has = has && kvm_ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute) == 0 && found == offset;
    close(vcpu_fd);
    close(vm_fd);
    kvm_close(&kvm);
    return has && flags > 0 && (flags & KVM_CLOCK_HOST_TSC) != 0;
}

/* As the guest last read it, while it does not run. */
static uint64_t guest_tsc(void)
{
    return counters[2] | (uint64_t)counters[3] << 32;
}

Test(machine_pause, holds_the_tsc)
{
    uint64_t before, second;

    if (!has_tsc_offset()) {
        cr_skip("this KVM shifts no TSC");
    }
    find_counters(LOAD(time));
    create();
    start();
    await_change(counters);
    await_change(counters);
    machine_pause(machine);
    before = guest_tsc();
    machine_resume(machine);
    let_pass(STANDING_MICROSECONDS);
    machine_pause(machine);
    second = guest_tsc() - before; /* in which it ran */
    cr_assert_gt(second, 0);
    before = guest_tsc();
    let_pass(STANDING_MICROSECONDS);
    machine_resume(machine);
    await_change(counters);
    await_change(counters);
    await_change(counters);
    machine_pause(machine);
    cr_assert_gt(guest_tsc(), before, "time does not run backwards");
    cr_assert_lt(guest_tsc() - before, second / 2);
}

/* --- Threads ----------------------------------------------------------------------------------------------------- */

static bool has_task(pid_t thread)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/self/task/%d", (int)thread);
    return access(path, F_OK) == 0;
}

Test(machine, names_the_threads_of_its_vcpus)
{
    pid_t threads[2];

    LOAD(halt);
    config.vcpu_count = has_vcpus(2) ? 2 : 1;
    create();
    cr_assert_eq(machine_vcpu_thread(machine, 0), 0);
    start();
    for (uint32_t i = 0; i < config.vcpu_count; i++) {
        threads[i] = machine_vcpu_thread(machine, i);
        cr_assert_neq(threads[i], getpid());
        cr_assert(has_task(threads[i]), "thread %d", (int)threads[i]);
        cr_assert(i == 0 || threads[0] != threads[1]);
    }
    cr_assert_eq(machine_vcpu_thread(machine, config.vcpu_count), 0);
    machine_stop(machine);
    machine_wait(machine, &result);
    for (uint32_t i = 0; i < config.vcpu_count; i++) {
        cr_assert_eq(machine_vcpu_thread(machine, i), 0);
    }
}

/* --- What can go wrong ------------------------------------------------------------------------------------------ */

Test(machine, refuses_what_makes_no_machine)
{
    struct machine_config bad[] = {config, config, config, config};
    struct boot_state bad_boot = {.protocol = BOOT_PROTOCOL_COUNT};

    bad[0].memory = NULL;
    bad[1].boot = NULL;
    bad[2].vcpu_count = 0;
    bad[3].boot = &bad_boot;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct loam_diag diag = {0};

        machine = (struct machine *)&config;
        cr_assert_eq(machine_create(&bad[i], &machine, &diag), LOAM_ERROR_INVALID);
        cr_assert_null(machine);
        cr_assert_str_not_empty(diag.text);
    }
}

Test(machine, refuses_more_vcpus_than_kvm_allows)
{
    struct loam_diag diag = {0};

    config.vcpu_count = 1u << 20;
    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_ERROR_EXHAUSTED);
    cr_assert_not_null(strstr(diag.text, "1048576 wanted, KVM has at most"), "%s", diag.text);
    cr_assert_null(strstr(diag.text, "at most 0 "), "%s", diag.text);
}

Test(machine, refuses_memory_where_its_devices_are)
{
    struct loam_region region = {.start = {MACHINE_VIRTIO_BASE + (MACHINE_VIRTIO_MAX - 1) * MACHINE_VIRTIO_BYTES},
                                 .bytes = 4096,
                                 .type = LOAM_REGION_DEVICE,
                                 .access = LOAM_ACCESS_NONE};
    struct loam_diag diag = {0};

    cr_assert_eq(loam_gpa_map_insert(loam_memory_map(memory), &region), LOAM_OK);
    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_ERROR_OVERLAP);
    cr_assert_not_null(strstr(diag.text, "0xd0000000"), "%s", diag.text);
    cr_assert_eq(loam_gpa_map_remove(loam_memory_map(memory), region.start, region.bytes), LOAM_OK,
                 "it is the caller's, and stays");
}

static uint32_t count_entries(const char *directory)
{
    DIR *entries = opendir(directory);
    uint32_t count = 0;

    cr_assert_not_null(entries);
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count;
}

/* Mappings by what they map: of KVM, and all. Stacks of ended threads are kept by the C library, and are the same each
 * time. */
static uint32_t count_maps(const char *what)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    uint32_t count = 0;

    cr_assert_not_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        count += strstr(line, what) != NULL;
    }
    fclose(maps);
    return count;
}

struct footprint {
    uint32_t fds, threads, maps, kvm_maps, regions;
};

static struct footprint measure(void)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    struct footprint footprint = {
        .fds = count_entries("/proc/self/fd"),
        .threads = count_entries("/proc/self/task"),
        .maps = count_maps(""),
        .kvm_maps = count_maps("kvm"),
        .regions = loam_gpa_view_count(view),
    };

    loam_gpa_map_release(map, view);
    return footprint;
}

static void check_footprint(const struct footprint *before)
{
    struct footprint now = measure();

    cr_assert_eq(now.fds, before->fds, "%" PRIu32 " descriptors before, %" PRIu32 " now", before->fds, now.fds);
    cr_assert_eq(now.threads, before->threads);
    cr_assert_eq(now.kvm_maps, 0);
    cr_assert_eq(now.regions, before->regions);
    if (!MAPS_BY_ITSELF) {
        cr_assert_leq(now.maps, before->maps, "%" PRIu32 " mappings before, %" PRIu32 " now", before->maps, now.maps);
    }
}

Test(machine, leaves_nothing_behind)
{
    struct footprint before;

    LOAD(exit_byte);
    run_to_exit(0x2a);
    before = measure();
    for (uint32_t i = 0; i < 50; i++) {
        run_to_exit(0x2a);
        check_footprint(&before);
    }
}

/* How a refusal names a request. */
static const char *name_of(unsigned long request)
{
    static const struct {
        unsigned long request;
        const char *name;
    } names[] = {
        {KVM_GET_API_VERSION, "KVM_GET_API_VERSION"},
        {KVM_CHECK_EXTENSION, "KVM_CAP_"},
        {KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE"},
        {KVM_CREATE_VM, "KVM_CREATE_VM"},
        {KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR"},
        {KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR"},
        {KVM_SET_USER_MEMORY_REGION, "slot"},
        {KVM_ENABLE_CAP, "KVM_ENABLE_CAP"},
        {KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID"},
        {KVM_CREATE_VCPU, "KVM_CREATE_VCPU"},
        {KVM_SET_CPUID2, "KVM_SET_CPUID2"},
        {KVM_GET_MSRS, "KVM_GET_MSRS"},
        {KVM_SET_MSRS, "KVM_SET_MSRS"},
        {KVM_GET_SREGS, "KVM_GET_SREGS"},
        {KVM_SET_SREGS, "KVM_SET_SREGS"},
        {KVM_SET_REGS, "KVM_SET_REGS"},
        {KVM_SET_FPU, "KVM_SET_FPU"},
        {KVM_GET_LAPIC, "KVM_GET_LAPIC"},
        {KVM_SET_LAPIC, "KVM_SET_LAPIC"},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].request == request) {
            return names[i].name;
        }
    }
    cr_assert_fail("request 0x%lx is new here: say how its refusal names it", request);
    return NULL;
}

/* Figures that have a default where KVM does not answer, and what a guest can do without. */
static bool may_fail(unsigned long request, unsigned long argument)
{
    static const unsigned long capabilities[] = {KVM_CAP_NR_MEMSLOTS,       KVM_CAP_NR_VCPUS,
                                                 KVM_CAP_MAX_VCPUS,         KVM_CAP_TSC_DEADLINE_TIMER,
                                                 KVM_CAP_MEMORY_FAULT_INFO, KVM_CAP_XSAVE2};

    for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++) {
        if (request == KVM_CHECK_EXTENSION && argument == capabilities[i]) {
            return true;
        }
    }
    return false;
}

/* A failure of any other is a refusal that names it. */
static void check_failure(enum loam_error error, const struct loam_diag *diag)
{
    unsigned long request = ioctl_fake_failed_request(), argument = ioctl_fake_failed_argument();

    cr_assert_neq(request, 0);
    cr_assert_eq(error == LOAM_OK, may_fail(request, argument), "request 0x%lx of 0x%lx: %s", request, argument,
                 diag->text);
    if (error != LOAM_OK) {
        cr_assert_null(machine);
        cr_assert_not_null(strstr(diag->text, name_of(request)), "request 0x%lx: %s", request, diag->text);
        cr_assert_null(strchr(diag->text, '\n'));
    }
    machine_destroy(machine);
    machine = NULL;
}

/* KVM_GET_MSRS and KVM_SET_MSRS answer with how many they have done. */
Test(machine, refuses_a_kvm_that_does_part_of_what_is_asked)
{
    static const struct {
        unsigned long request;
        int answer;
        const char *name;
    } answers[] = {
        {KVM_GET_MSRS, 0, "KVM_GET_MSRS"}, {KVM_SET_MSRS, 0, "KVM_SET_MSRS"}, {KVM_SET_MSRS, 1, "KVM_SET_MSRS"}};

    LOAD(exit_byte);
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct loam_diag diag = {0};

        ioctl_fake_answer_all(answers[i].request, answers[i].answer);
        cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_ERROR_SYSTEM);
        cr_assert_not_null(strstr(diag.text, answers[i].name), "%s", diag.text);
    }
}

/* Each of KVM's requests fails once: creation fails, says why, and leaves nothing; the next one works. */
Test(machine, leaves_nothing_behind_whichever_request_fails)
{
    struct footprint before;
    uint32_t request_count;

    LOAD(exit_byte);
    run_to_exit(0x2a);
    before = measure();
    ioctl_fake_reset();
    create();
    request_count = ioctl_fake_count();
    machine_destroy(machine);
    cr_assert_gt(request_count, 20);
    for (uint32_t i = 0; i < request_count; i++) {
        struct loam_diag diag = {0};
        enum loam_error error;

        ioctl_fake_reset();
        ioctl_fake_fail(i, ENOSPC);
        error = machine_create(&config, &machine, &diag);
        check_failure(error, &diag);
        check_footprint(&before);
    }
    ioctl_fake_reset();
    run_to_exit(0x2a);
}
