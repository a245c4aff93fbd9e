// SPDX-License-Identifier: Apache-2.0
/* A debugger that speaks the protocol by hand, and small guests on real memory and real KVM. */
#include "vmm/gdb.h"

#include "loam/memory.h"
#include "tests/vmm/gdb_guests.h"
#include "vmm/gdb_packet.h"
#include "vmm/gdb_vcpu.h"
#include "vmm/kvm.h"
#include "vmm/machine.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RAM_BYTES (8 * LOAM_MIB)
#define HIGH      UINT64_C(0xffffffff80000000) /* where RAM lies once more */

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]
#define PLACE(name) extern const uint8_t at_##name[]

GUEST(rounds);
GUEST(own_int3);
GUEST(spins);
GUEST(faults);
GUEST(two);
GUEST(other);
PLACE(loop);
PLACE(store);
PLACE(out);
PLACE(after_out);
PLACE(after_fwait);
PLACE(after_in);
PLACE(after_load);
PLACE(before_int3);
PLACE(spin);
PLACE(fault);
PLACE(first);
PLACE(second);

/* The linear address of a place, one to one. */
#define AT(guest, place) (GUEST_BASE + (uint64_t)(at_##place - guest_##guest))
#define AT_SECOND        (OTHER_BASE + (uint64_t)(at_second - guest_other))

static char folder[] = "/tmp/loam-gdb-XXXXXX";
static char path[64];
static struct loam_memory *memory;
static struct machine *machine;
static struct boot_state boot;
static struct machine_result result;
static struct gdb *gdb;
static struct gdb_abilities abilities;
static struct outlet teller;
static int told_fd;
static struct loam_diag diag;

/* --- A guest's world ---------------------------------------------------------------------------------------------- */

static void *carve(uint64_t gpa, uint64_t bytes)
{
    struct loam_dma_request request = {.owner = "test", .bytes = bytes, .flags = LOAM_DMA_AT, .at = {gpa}};
    struct loam_dma_buffer buffer;

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, &diag), LOAM_OK, "%s", diag.text);
    return buffer.hva;
}

/* The first 4 GiB one to one by 2 MiB pages, the first of them at HIGH too, and the GDT that boot_state describes. */
static void enter_long_mode(void)
{
    uint64_t gpa = GUEST_BASE + GUEST_BYTES;
    uint64_t *tables = carve(gpa, 8 * 4096);
    uint64_t *pointers = tables + 512, *directories = tables + 1024, *descriptors = tables + 6 * 512,
             *high = tables + 7 * 512;

    tables[0] = (gpa + 4096) | 3;
    tables[511] = (gpa + 7 * 4096) | 3;
    high[510] = (gpa + 2 * 4096) | 3;
    for (uint64_t i = 0; i < 4; i++) {
        pointers[i] = (gpa + (2 + i) * 4096) | 3;
    }
    for (uint64_t i = 0; i < 2048; i++) {
        directories[i] = i << 21 | 0x83;
    }
    descriptors[2] = UINT64_C(0x00af9b000000ffff);
    descriptors[3] = UINT64_C(0x00cf93000000ffff);
    descriptors[4] = UINT64_C(0x00008b0000000067);
    boot = (struct boot_state){.protocol = BOOT_LINUX,
                               .entry = GUEST_BASE,
                               .page_tables = loam_gpa_from_u64(gpa),
                               .descriptors = loam_gpa_from_u64(gpa + 6 * 4096),
                               .descriptor_count = 6};
}

static void set_up(void)
{
    struct loam_memory_request request = {.bytes = RAM_BYTES, .pages = LOAM_PAGES_4K, .commit = LOAM_COMMIT_LAZY};
    struct loam_plan plan;
    int fds[2];

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    told_fd = fds[0];
    cr_assert_eq(outlet_open(&teller, fds[1], "the teller", &diag), LOAM_OK);
    cr_assert_eq(gdb_vcpu_try(&abilities, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    enter_long_mode();
}

static void tear_down(void)
{
    gdb_close(gdb);
    machine_destroy(machine);
    loam_memory_destroy(memory);
    rmdir(folder);
}

TestSuite(gdb, .init = set_up, .fini = tear_down, .timeout = 60);

/* QEMU's TCG, as AMD's SVM, intercepts no INT3 and loads no debug registers: KVM stops for steps alone there. */
static void need(bool has, const char *what)
{
    if (!has) {
        tear_down();
        cr_skip("this host's KVM does not stop for %s", what);
    }
}

#define NEED_SOFTWARE() need(abilities.has_software, "software breakpoints")
#define NEED_EXECUTE()  need(abilities.has_execute, "hardware breakpoints")
#define NEED_STEP()     need(abilities.has_step, "steps")

static uint8_t *load(uint64_t gpa, uint64_t bytes, const uint8_t *code, const uint8_t *end)
{
    uint8_t *at = carve(gpa, bytes);

    memcpy(at, code, (size_t)(end - code));
    return at;
}

#define LOAD(name) load(GUEST_BASE, GUEST_BYTES, guest_##name, guest_##name##_end)

/* The guest waits for its debugger. */
static void start(uint32_t vcpu_count)
{
    const struct machine_config config = {.memory = memory, .vcpu_count = vcpu_count, .boot = &boot};

    cr_assert_eq(gdb_open(path, vcpu_count, &teller, &gdb, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(machine_create(&config, &machine, &diag), LOAM_OK, "%s", diag.text);
    gdb_begin(gdb, machine, loam_memory_map(memory));
    cr_assert_eq(machine_start(machine, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(gdb_start(gdb, &diag), LOAM_OK, "%s", diag.text);
}

/* As a run ends: the machine, then what is told of it. */
static void finish(enum machine_stop_reason reason, int exit_status)
{
    machine_wait(machine, &result);
    cr_assert_eq(result.reason, reason, "reason %d wanted, %d found\n%s", reason, result.reason, result.report);
    gdb_end(gdb, exit_status);
}

/* What has been said on the console since. */
static const char *told(void)
{
    static char text[2048];
    ssize_t bytes = read(told_fd, text, sizeof text - 1);

    text[bytes > 0 ? bytes : 0] = '\0';
    return text;
}

/* The next line that is said, which comes sooner or later. */
static const char *await_told(void)
{
    struct pollfd fd = {.fd = told_fd, .events = POLLIN};

    cr_assert_eq(poll(&fd, 1, 30000), 1);
    return told();
}

/* --- A debugger --------------------------------------------------------------------------------------------------- */

static int connect_debugger(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    char sent[4096];
    size_t count = gdb_packet_write(text, strlen(text), sent);

    cr_assert_eq(send(fd, sent, count, MSG_NOSIGNAL), (ssize_t)count);
}

/* The next packet, which is acknowledged; NULL: the connection is closed. */
static const char *hear(int fd)
{
    static struct gdb_reader reader;
    enum gdb_heard heard;
    uint8_t byte;

    for (;;) {
        if (recv(fd, &byte, 1, 0) != 1) {
            return NULL;
        }
        heard = gdb_reader_take(&reader, byte);
        cr_assert(heard == GDB_HEARD_NOTHING || heard == GDB_HEARD_PACKET || heard == GDB_HEARD_ACK, "%d", heard);
        if (heard == GDB_HEARD_PACKET) {
            (void)!send(fd, "+", 1, MSG_NOSIGNAL);
            return reader.text;
        }
    }
}

#define EXPECT_HEARD(fd, expected)                                                                                     \
    do {                                                                                                               \
        const char *heard_text = hear(fd);                                                                             \
                                                                                                                       \
        cr_expect_str_eq(heard_text != NULL ? heard_text : "(closed)", expected);                                      \
    } while (false)

#define ASK(fd, text, expected)                                                                                        \
    do {                                                                                                               \
        say(fd, text);                                                                                                 \
        EXPECT_HEARD(fd, expected);                                                                                    \
    } while (false)

static uint64_t read_register(int fd, unsigned int number)
{
    char packet[16];
    const char *text;
    uint64_t value = 0;

    snprintf(packet, sizeof packet, "p%x", number);
    say(fd, packet);
    text = hear(fd);
    for (size_t i = 0; i < 8; i++) {
        unsigned int byte;

        cr_assert_eq(sscanf(text + 2 * i, "%2x", &byte), 1, "%s", text);
        value |= (uint64_t)byte << 8 * i;
    }
    return value;
}

#define RAX 0u
#define RSI 4u
#define RIP GDB_REGISTER_RIP

#define EXPECT_RIP(fd, expected)                                                                                       \
    do {                                                                                                               \
        uint64_t rip = read_register(fd, RIP);                                                                         \
                                                                                                                       \
        cr_expect_eq(rip, expected, "0x%" PRIx64 " wanted, 0x%" PRIx64 " found", (uint64_t)(expected), rip);           \
    } while (false)

/* A packet with an address in it. */
static const char *with(const char *format, uint64_t address)
{
    static char packet[128];

    snprintf(packet, sizeof packet, format, address);
    return packet;
}

/* With what a client of today says first. */
static int attach(void)
{
    int fd = connect_debugger();

    say(fd, "qSupported:swbreak+;hwbreak+");
    (void)hear(fd);
    return fd;
}

static uint32_t counter_at(uint64_t gpa)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(loam_memory_map(memory));
    uint32_t value;

    cr_assert_eq(loam_gpa_view_read(view, loam_gpa_from_u64(gpa), &value, sizeof value), LOAM_OK);
    loam_gpa_map_release(loam_memory_map(memory), view);
    return value;
}

/* --- The guest waits ---------------------------------------------------------------------------------------------- */

Test(gdb, a_guest_stands_before_its_first_instruction)
{
    int fd;

    LOAD(rounds);
    start(1);
    cr_expect_not_null(strstr(told(), "loam: --gdb: the guest waits for a debugger: gdb -ex 'target remote /tmp/"));
    fd = attach();
    ASK(fd, "?", "T05thread:1;");
    EXPECT_RIP(fd, GUEST_BASE);
    ASK(fd, "qfThreadInfo", "m1");
    ASK(fd, with("m%" PRIx64 ",2", GUEST_BASE), "31c0");
    ASK(fd, with("m%" PRIx64 ",2", HIGH + GUEST_BASE), "31c0");
    ASK(fd, with("m%" PRIx64 ",2", UINT64_C(0x900000000)), "E0e");
    ASK(fd, "Qqemu.PhyMemMode:1", "OK");
    ASK(fd, with("m%" PRIx64 ",2", HIGH + GUEST_BASE), "E0e");
    ASK(fd, with("m%" PRIx64 ",2", GUEST_BASE), "31c0");
    ASK(fd, with("m%" PRIx64 ",4", RAM_BYTES - 2), "0000");
    ASK(fd, with("m%" PRIx64 ",1", UINT64_C(0xd0000000)), "E0e"); /* a device is not read */
    ASK(fd, with("M%" PRIx64 ",4:2a000000", GUEST_COUNTER), "OK");
    cr_expect_eq(counter_at(GUEST_COUNTER), 42);
    say(fd, "c");
    finish(MACHINE_STOP_EXIT, 17);
    EXPECT_HEARD(fd, "W11");
    cr_expect_null(hear(fd));
    close(fd);
}

Test(gdb, registers_are_the_vcpus)
{
    int fd;

    LOAD(rounds);
    start(1);
    fd = attach();
    ASK(fd, "P4=0d600d6000000000", "OK");                  /* rsi */
    ASK(fd, "P28=000102030405060708090a0b0c0d0e0f", "OK"); /* xmm0 */
    ASK(fd, "p4", "0d600d6000000000");
    ASK(fd, "p28", "000102030405060708090a0b0c0d0e0f");
    ASK(fd, "P3b=0000000080ffffff", "OK"); /* k_gs_base */
    ASK(fd, "p3b", "0000000080ffffff");
    ASK(fd, "p3c", "3100008000000000"); /* cr0 as Linux finds it */
    ASK(fd, "P12=00000000", "E16");
    cr_expect_eq(read_register(fd, RSI), 0x600d600d);
    close(fd);
}

/* --- Breakpoints -------------------------------------------------------------------------------------------------- */

Test(gdb, a_software_breakpoint_stops_before_its_instruction)
{
    int fd;

    NEED_SOFTWARE();
    LOAD(rounds);
    start(1);
    fd = attach();
    ASK(fd, with("Z0,%" PRIx64 ",1", HIGH + AT(rounds, store)), "OK"); /* reached by another address */
    ASK(fd, "c", "T05thread:1;swbreak:;");
    EXPECT_RIP(fd, AT(rounds, store));
    cr_expect_eq(read_register(fd, RAX), 1);
    cr_expect_eq(counter_at(GUEST_COUNTER), 0);
    for (uint64_t round = 2; round < 5; round++) {
        ASK(fd, with("z0,%" PRIx64 ",1", HIGH + AT(rounds, store)), "OK");
        ASK(fd, "vCont;s:1", "T05thread:1;");
        EXPECT_RIP(fd, AT(rounds, out));
        ASK(fd, with("Z0,%" PRIx64 ",1", HIGH + AT(rounds, store)), "OK");
        ASK(fd, "vCont;c", "T05thread:1;swbreak:;");
        EXPECT_RIP(fd, AT(rounds, store));
        cr_expect_eq(read_register(fd, RAX), round);
    }
    ASK(fd, with("z0,%" PRIx64 ",1", HIGH + AT(rounds, store)), "OK");
    say(fd, "c");
    finish(MACHINE_STOP_EXIT, 17);
    cr_expect_eq(result.exit_code, 0x11);
    close(fd);
}

Test(gdb, a_software_breakpoint_is_an_int3_for_as_long_as_it_is_set)
{
    uint8_t *code = LOAD(rounds), *place = code + (at_store - guest_rounds), before = *place;
    int fd;

    NEED_SOFTWARE();
    start(1);
    fd = attach();
    ASK(fd, with("Z0,%" PRIx64 ",1", AT(rounds, store)), "OK");
    cr_expect_eq(*place, 0xcc);
    ASK(fd, with("Z0,%" PRIx64 ",1", HIGH + AT(rounds, store)), "OK");
    ASK(fd, with("z0,%" PRIx64 ",1", AT(rounds, store)), "OK");
    cr_expect_eq(*place, 0xcc, "the other is there still");
    ASK(fd, with("z0,%" PRIx64 ",1", HIGH + AT(rounds, store)), "OK");
    cr_expect_eq(*place, before);
    ASK(fd, with("Z0,%" PRIx64 ",1", AT(rounds, store)), "OK");
    *place = 0x90; /* the guest loads something else there */
    ASK(fd, with("z0,%" PRIx64 ",1", AT(rounds, store)), "OK");
    cr_expect_eq(*place, 0x90);
    ASK(fd, with("Z0,%" PRIx64 ",1", UINT64_C(0x900000000)), "E0e");
    ASK(fd, with("Z0,%" PRIx64 ",1", UINT64_C(0xd0000000)), "E0e");
    close(fd);
}

Test(gdb, a_hardware_breakpoint_stops_before_its_instruction)
{
    int fd;

    NEED_EXECUTE();
    LOAD(rounds);
    start(1);
    fd = attach();
    ASK(fd, with("Z1,%" PRIx64 ",1", AT(rounds, after_fwait)), "OK");
    ASK(fd, "c", "T05thread:1;hwbreak:;");
    EXPECT_RIP(fd, AT(rounds, after_fwait));
    ASK(fd, with("z1,%" PRIx64 ",1", AT(rounds, after_fwait)), "OK");
    ASK(fd, "s", "T05thread:1;");
    EXPECT_RIP(fd, AT(rounds, after_in));
    for (uint64_t i = 0; i < 4; i++) {
        ASK(fd, with("Z1,%" PRIx64 ",1", 0x1000 + i), "OK");
    }
    ASK(fd, "Z1,2000,1", "E1c");
    close(fd);
}

Test(gdb, a_watchpoint_stops_after_the_access_where_the_host_has_it)
{
    int fd;

    LOAD(rounds);
    start(1);
    fd = attach();
    (void)told();
    if (!abilities.has_watch) {
        ASK(fd, with("Z2,%" PRIx64 ",4", GUEST_COUNTER), "E26");
        cr_expect_not_null(strstr(told(), "loam: --gdb: watchpoints: this host's KVM does not stop for them"));
        ASK(fd, with("Z2,%" PRIx64 ",4", GUEST_COUNTER), "E26");
        ASK(fd, with("Z3,%" PRIx64 ",4", GUEST_COUNTER), "");
        cr_expect_str_empty(told(), "it is said once");
        close(fd);
        return;
    }
    ASK(fd, with("Z2,%" PRIx64 ",4", GUEST_COUNTER), "OK");
    ASK(fd, "c", with("T05thread:1;watch:%" PRIx64 ";", GUEST_COUNTER));
    EXPECT_RIP(fd, AT(rounds, out));
    cr_expect_eq(counter_at(GUEST_COUNTER), 1);
    ASK(fd, with("z2,%" PRIx64 ",4", GUEST_COUNTER), "OK");
    ASK(fd, with("Z4,%" PRIx64 ",4", GUEST_COUNTER), "OK");
    ASK(fd, "c", with("T05thread:1;awatch:%" PRIx64 ";", GUEST_COUNTER));
    EXPECT_RIP(fd, AT(rounds, after_load));
    close(fd);
}

/* --- Steps -------------------------------------------------------------------------------------------------------- */

/* Each is one instruction, also of those that end in an exit or are carried out for KVM. */
Test(gdb, a_step_is_one_instruction)
{
    const uint64_t places[] = {AT(rounds, loop),      AT(rounds, store),       AT(rounds, out),
                               AT(rounds, after_out), AT(rounds, after_fwait), AT(rounds, after_in),
                               AT(rounds, after_load)};
    int fd;

    NEED_STEP();
    LOAD(rounds);
    start(1);
    fd = attach();
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        ASK(fd, i % 2 == 0 ? "s" : "vCont;s:1;c", "T05thread:1;");
        EXPECT_RIP(fd, places[i]);
    }
    cr_expect_eq(read_register(fd, RAX), 1);
    close(fd);
}

Test(gdb, a_step_may_begin_elsewhere)
{
    int fd;

    NEED_STEP();
    LOAD(rounds);
    start(1);
    fd = attach();
    ASK(fd, with("s%" PRIx64, AT(rounds, after_in)), "T05thread:1;");
    EXPECT_RIP(fd, AT(rounds, after_load));
    close(fd);
}

/* --- The guest's own ---------------------------------------------------------------------------------------------- */

Test(gdb, an_int3_of_the_guests_own_is_its_own)
{
    int fd;

    NEED_SOFTWARE();
    LOAD(own_int3);
    start(1);
    fd = attach();
    ASK(fd, with("Z0,%" PRIx64 ",1", AT(own_int3, before_int3)), "OK");
    ASK(fd, "c", "T05thread:1;swbreak:;");
    ASK(fd, with("z0,%" PRIx64 ",1", AT(own_int3, before_int3)), "OK");
    ASK(fd, "s", "T05thread:1;");
    ASK(fd, with("Z0,%" PRIx64 ",1", AT(own_int3, before_int3)), "OK"); /* so that KVM looks out for INT3s */
    say(fd, "c");
    finish(MACHINE_STOP_EXIT, 0);
    cr_expect_eq(result.exit_code, 0x33, "0x%x", result.exit_code);
    close(fd);
}

Test(gdb, a_bad_end_is_shown_before_it_comes)
{
    int fd;

    LOAD(faults);
    start(1);
    fd = attach();
    ASK(fd, "c", "T0bthread:1;");
    ASK(fd, "?", "T0bthread:1;");
    say(fd, "c");
    finish(MACHINE_STOP_SHUTDOWN, 4);
    EXPECT_HEARD(fd, "W04");
    close(fd);
}

/* --- Stopping and leaving ----------------------------------------------------------------------------------------- */

static void let_run(int fd)
{
    uint32_t before = counter_at(GUEST_COUNTER);

    say(fd, "c");
    while (counter_at(GUEST_COUNTER) == before) {
    }
}

static void interrupt(int fd)
{
    cr_assert_eq(send(fd, "\x03", 1, MSG_NOSIGNAL), 1);
    EXPECT_HEARD(fd, "T02thread:1;");
}

Test(gdb, a_guest_on_its_way_is_stopped)
{
    uint32_t stopped;
    int fd;

    LOAD(spins);
    start(1);
    fd = attach();
    for (int i = 0; i < 20; i++) {
        let_run(fd);
        interrupt(fd);
        stopped = counter_at(GUEST_COUNTER);
        (void)read_register(fd, RIP);
        cr_expect_eq(counter_at(GUEST_COUNTER), stopped);
    }
    close(fd);
}

Test(gdb, one_that_detaches_leaves_a_guest_that_goes_on)
{
    int fd;

    NEED_SOFTWARE();
    LOAD(rounds);
    start(1);
    fd = attach();
    ASK(fd, with("Z0,%" PRIx64 ",1", AT(rounds, store)), "OK");
    ASK(fd, "c", "T05thread:1;swbreak:;");
    ASK(fd, "D", "OK");
    cr_expect_null(hear(fd));
    finish(MACHINE_STOP_EXIT, 0);
    cr_expect_eq(result.exit_code, 0x11);
    close(fd);
}

Test(gdb, one_that_is_lost_leaves_a_stopped_guest_stopped)
{
    uint8_t *code = LOAD(rounds);
    int fd;

    NEED_SOFTWARE();
    start(1);
    (void)told();
    fd = attach();
    ASK(fd, with("Z0,%" PRIx64 ",1", AT(rounds, store)), "OK");
    ASK(fd, "c", "T05thread:1;swbreak:;");
    close(fd);
    cr_expect_not_null(strstr(await_told(), "the debugger is gone: the guest stays stopped until another debugger"));
    cr_expect_neq(code[at_store - guest_rounds], 0xcc, "its breakpoints are gone");
    fd = attach();
    ASK(fd, "?", "T05thread:1;");
    EXPECT_RIP(fd, AT(rounds, store));
    say(fd, "c");
    finish(MACHINE_STOP_EXIT, 0);
    close(fd);
}

Test(gdb, one_that_is_lost_leaves_a_guest_on_its_way)
{
    uint32_t before;
    int fd;

    NEED_SOFTWARE();
    LOAD(spins);
    start(1);
    (void)told();
    fd = attach();
    ASK(fd, with("Z0,%" PRIx64 ",1", AT(spins, spin) + 0x100), "OK");
    let_run(fd);
    close(fd);
    cr_expect_not_null(strstr(await_told(), "the debugger is gone: the guest goes on, without its breakpoints"));
    before = counter_at(GUEST_COUNTER);
    while (counter_at(GUEST_COUNTER) == before) {
    }
    fd = attach(); /* who stops it again */
    before = counter_at(GUEST_COUNTER);
    (void)read_register(fd, RIP);
    cr_expect_eq(counter_at(GUEST_COUNTER), before);
    close(fd);
}

Test(gdb, who_does_not_keep_to_the_protocol_is_left)
{
    static const char *const junk[] = {"GET / HTTP/1.1\r\n\r\n", "$g#xx", "\x01", "$g#6", "$"};
    char longest[GDB_PACKET_BYTES_MAX + 2];
    int fd;

    LOAD(rounds);
    start(1);
    for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
        fd = connect_debugger();
        cr_assert_eq(send(fd, junk[i], strlen(junk[i]), MSG_NOSIGNAL), (ssize_t)strlen(junk[i]));
        if (i >= 3) { /* that may go on yet */
            shutdown(fd, SHUT_WR);
        }
        cr_expect_null(hear(fd));
        close(fd);
    }
    memset(longest, 'a', sizeof longest);
    longest[0] = '$';
    fd = connect_debugger();
    cr_assert_eq(send(fd, longest, sizeof longest, MSG_NOSIGNAL), sizeof longest);
    cr_expect_null(hear(fd));
    close(fd);
    fd = attach();
    EXPECT_RIP(fd, GUEST_BASE);
    close(fd);
}

Test(gdb, another_waits_until_the_first_is_gone)
{
    int first, second;

    LOAD(rounds);
    start(1);
    first = attach();
    second = connect_debugger();
    say(second, "qC");
    ASK(first, "qC", "QC1");
    close(first);
    EXPECT_HEARD(second, "QC1");
    close(second);
}

Test(gdb, can_end_the_run)
{
    int fd;

    LOAD(spins);
    start(1);
    cr_expect_not(gdb_was_killed(gdb));
    fd = attach();
    say(fd, "k");
    finish(MACHINE_STOP_REQUESTED, 0);
    cr_expect(gdb_was_killed(gdb));
    EXPECT_HEARD(fd, "W00");
    close(fd);
}

/* As at a time limit, or a signal. */
Test(gdb, a_run_that_is_ended_ends_in_whatever_state)
{
    int fd;

    LOAD(spins);
    start(1);
    fd = attach();
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED, 4);
    EXPECT_HEARD(fd, "W04");
    close(fd);
}

Test(gdb, a_run_may_end_before_anybody_has_come)
{
    LOAD(spins);
    start(1);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED, 4);
}

Test(gdb, a_run_may_end_while_its_guest_is_on_its_way)
{
    int fd;

    LOAD(spins);
    start(1);
    fd = attach();
    let_run(fd);
    machine_stop(machine);
    finish(MACHINE_STOP_REQUESTED, 130);
    EXPECT_HEARD(fd, "W82");
    close(fd);
}

Test(gdb, speaks_without_acknowledgements)
{
    char text[3] = {0};
    int fd;

    LOAD(rounds);
    start(1);
    fd = connect_debugger();
    ASK(fd, "QStartNoAckMode", "OK");
    say(fd, "qC");
    cr_expect_eq(recv(fd, text, 2, MSG_WAITALL), 2);
    cr_expect_str_eq(text, "$Q");
    close(fd);
}

/* --- Two vCPUs ---------------------------------------------------------------------------------------------------- */

static void await_other(void)
{
    while (counter_at(OTHER_COUNTER) == 0) {
    }
}

/* Both are on their way. */
static int start_two(void)
{
    int fd;

    LOAD(two);
    load(OTHER_BASE, 4096, guest_other, guest_other_end);
    start(2);
    fd = attach();
    ASK(fd, "qfThreadInfo", "m1,2");
    ASK(fd, "qThreadExtraInfo,2", "7643505520313a206e6f742073746172746564"); /* vCPU 1: not started */
    say(fd, "vCont;c");
    await_other();
    interrupt(fd);
    return fd;
}

Test(gdb, all_vcpus_stop_together)
{
    uint32_t first, second;
    int fd;

    fd = start_two();
    first = counter_at(GUEST_COUNTER);
    second = counter_at(OTHER_COUNTER);
    ASK(fd, "Hg2", "OK");
    (void)read_register(fd, RIP);
    cr_expect_eq(counter_at(GUEST_COUNTER), first);
    cr_expect_eq(counter_at(OTHER_COUNTER), second);
    if (!abilities.has_execute) {
        close(fd);
        return;
    }
    /* Not by an INT3: a KVM that emulates carries that out in real mode. */
    ASK(fd, with("Z1,%" PRIx64 ",1", AT_SECOND), "OK");
    ASK(fd, "vCont;c", "T05thread:2;hwbreak:;");
    EXPECT_RIP(fd, AT_SECOND - OTHER_BASE); /* within its segment */
    close(fd);
}

Test(gdb, one_vcpu_goes_while_the_other_stands)
{
    uint32_t first, second;
    int fd;

    NEED_STEP();
    fd = start_two();
    ASK(fd, "Hg2", "OK");
    first = counter_at(GUEST_COUNTER);
    second = counter_at(OTHER_COUNTER);
    for (int i = 0; i < 10; i++) {
        ASK(fd, "vCont;s:2", "T05thread:2;");
    }
    cr_expect_eq(counter_at(GUEST_COUNTER), first, "it was held");
    cr_expect_geq(counter_at(OTHER_COUNTER), second + 4);
    ASK(fd, "vCont;s:2;c", "T05thread:2;");
    second = counter_at(OTHER_COUNTER);
    say(fd, "vCont;c:1");
    first = counter_at(GUEST_COUNTER);
    while (counter_at(GUEST_COUNTER) == first) {
    }
    cr_expect_eq(counter_at(OTHER_COUNTER), second);
    cr_assert_eq(send(fd, "\x03", 1, MSG_NOSIGNAL), 1);
    EXPECT_HEARD(fd, "T02thread:2;");
    close(fd);
}

/* Each hits its own again and again, so that both stop at once now and then: no stop is lost, and none is told twice. */
Test(gdb, stops_of_both_vcpus_are_told_one_by_one)
{
    unsigned int heard[2] = {0};
    int fd;

    NEED_EXECUTE();
    fd = start_two();
    for (int i = 0; i < 60; i++) {
        const char *text;
        unsigned int thread;

        ASK(fd, with("Z1,%" PRIx64 ",1", AT(two, first)), "OK");
        ASK(fd, with("Z1,%" PRIx64 ",1", AT_SECOND), "OK");
        say(fd, "vCont;c");
        text = hear(fd);
        cr_assert_eq(sscanf(text, "T05thread:%x;hwbreak:;", &thread), 1, "%s", text);
        heard[thread - 1]++;
        EXPECT_RIP(fd, thread == 1 ? AT(two, first) : AT_SECOND - OTHER_BASE);
        ASK(fd, with("z1,%" PRIx64 ",1", AT(two, first)), "OK");
        ASK(fd, with("z1,%" PRIx64 ",1", AT_SECOND), "OK");
        ASK(fd, with("vCont;s:%" PRIx64, thread), with("T05thread:%" PRIx64 ";", thread));
    }
    cr_expect_gt(heard[0] + heard[1], 0);
    close(fd);
}

/* Somebody else may pause the machine, and let it go on, whatever the debugger does. */
Test(gdb, a_stop_outlasts_pauses_of_others)
{
    int fd;

    NEED_EXECUTE();
    LOAD(rounds);
    start(1);
    fd = attach();
    ASK(fd, with("Z1,%" PRIx64 ",1", AT(rounds, store)), "OK");
    ASK(fd, "c", "T05thread:1;hwbreak:;");
    machine_resume(machine);
    machine_pause(machine);
    EXPECT_RIP(fd, AT(rounds, store));
    close(fd);
}
