// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_command.h"

#include "tests/vmm/gdb_toy.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct gdb_toy toy;
static struct gdb_command command;

static void set_up(void)
{
    gdb_toy_init(&toy);
    gdb_command_init(&command, &toy.target);
}

TestSuite(gdb_command, .init = set_up, .timeout = 30);

static enum gdb_next obey(const char *text)
{
    return gdb_command_obey(&command, text, strlen(text));
}

#define EXPECT(text, expected)                                                                                         \
    do {                                                                                                               \
        cr_expect_eq(obey(text), GDB_NEXT_ANSWER, "%s", text);                                                         \
        cr_expect_str_eq(command.answer, expected, "%s: %s", text, command.answer);                                    \
        cr_expect_eq(command.answer_bytes, strlen(command.answer));                                                    \
    } while (false)

#define BAD "E16"

Test(gdb_command, what_is_not_known_has_an_empty_answer)
{
    EXPECT("", "");
    EXPECT("!", "");
    EXPECT("X0,0:", "");
    EXPECT("vMustReplyEmpty", "");
    EXPECT("qTStatus", "");
    EXPECT("QThreadEvents:1", "");
    EXPECT("Z3,1000,4", "");
    EXPECT("Z9,0,0", "");
    EXPECT("qCRC:0,1", "");
}

Test(gdb_command, tells_what_it_can)
{
    EXPECT("qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386",
           "PacketSize=4000;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+");
    cr_expect(command.tells_software && command.tells_execute);
    (void)obey("qSupported");
    cr_expect_not(command.tells_software || command.tells_execute);
    EXPECT("vCont?", "vCont;c;C;s;S");
    toy.target.has_step = false;
    EXPECT("vCont?", "vCont;c;C");
    EXPECT("qAttached", "1");
    EXPECT("qSymbol::", "OK");
    cr_expect_not(command.has_no_ack);
    EXPECT("QStartNoAckMode", "OK");
    cr_expect(command.has_no_ack);
}

/* --- The description ---------------------------------------------------------------------------------------------- */

Test(gdb_command, gives_the_description_in_pieces)
{
    size_t total, used = 0;
    const char *wanted = gdb_registers_description(&total);
    char packet[80];

    do {
        snprintf(packet, sizeof packet, "qXfer:features:read:target.xml:%zx,3e8", used);
        cr_assert_eq(obey(packet), GDB_NEXT_ANSWER);
        cr_assert_leq(used + command.answer_bytes - 1, total);
        cr_expect_arr_eq(command.answer + 1, wanted + used, command.answer_bytes - 1);
        used += command.answer_bytes - 1;
    } while (command.answer[0] == 'm');
    cr_expect_eq(command.answer[0], 'l');
    cr_expect_eq(used, total);
    EXPECT("qXfer:features:read:target.xml:ffffffff,1", BAD);
    EXPECT("qXfer:features:read:target.xml:0", BAD);
    EXPECT("qXfer:features:read:other.xml:0,100", "");
    cr_expect_eq(obey("qXfer:features:read:target.xml:0,ffffffffffffffff"), GDB_NEXT_ANSWER);
    cr_expect_eq(command.answer_bytes, total + 1);
}

/* --- Registers ---------------------------------------------------------------------------------------------------- */

Test(gdb_command, reads_and_writes_one_register)
{
    toy.registers[0].regs.rip = 0xffffffff81000010;
    EXPECT("p10", "10000081ffffffff");
    EXPECT("P0=8877665544332211", "OK");
    cr_expect_eq(toy.registers[0].regs.rax, 0x1122334455667788);
    EXPECT("p0", "8877665544332211");
    EXPECT("P12=10000000", BAD); /* another selector */
    EXPECT("P12=00000000", "OK");
    EXPECT("p47", BAD);
    EXPECT("p", BAD);
    EXPECT("p0x", BAD);
    EXPECT("P0=88", BAD);
    EXPECT("P0=887766554433221100", BAD);
    EXPECT("P0=88776655443322xx", BAD);
    toy.has_registers_refused = true;
    EXPECT("P0=0000000000000000", BAD);
}

Test(gdb_command, reads_and_writes_all_registers)
{
    char packet[2 * GDB_REGISTERS_BYTES_MAX + 2] = "G";

    toy.registers[0].regs.rbx = 0x42;
    cr_assert_eq(obey("g"), GDB_NEXT_ANSWER);
    cr_expect_eq(strncmp(command.answer + 16, "4200000000000000", 16), 0);
    cr_assert_lt(command.answer_bytes, sizeof packet - 1);
    strcpy(packet + 1, command.answer);
    packet[1] = '7';
    EXPECT(packet, "OK");
    cr_expect_eq(toy.registers[0].regs.rax, 0x70);
    cr_expect_eq(toy.registers[0].regs.rbx, 0x42);
    packet[strlen(packet) - 1] = '\0';
    EXPECT(packet, BAD);
    EXPECT("G", BAD);
}

Test(gdb_command, registers_that_cannot_be_had_are_an_error)
{
    EXPECT("Hg3", "OK");
    EXPECT("g", "E05");
    EXPECT("p0", "E05");
    EXPECT("P0=0000000000000000", "E05");
    EXPECT("c1000", "E05");
}

/* --- Memory ------------------------------------------------------------------------------------------------------- */

Test(gdb_command, reads_memory)
{
    memcpy(toy.memory + 0x10, "\xde\xad\xbe\xef", 4);
    EXPECT("mffffffff80000010,4", "deadbeef");
    EXPECT("m10,4", "E0e");
    EXPECT("mffffffff80003ffe,8", "0000"); /* as far as it goes */
    EXPECT("mffffffff80004000,1", "E0e");
    EXPECT("m0,0", BAD);
    EXPECT("m0", BAD);
    EXPECT("m0,", BAD);
    EXPECT("m,1", BAD);
    EXPECT("m0,1,", BAD);
    EXPECT("m11112222333344445,1", BAD);
    cr_expect_eq(obey("mffffffff80000000,ffffffffffffffff"), GDB_NEXT_ANSWER);
    cr_expect_eq(command.answer_bytes, GDB_PACKET_BYTES_MAX);
}

Test(gdb_command, writes_memory)
{
    EXPECT("Mffffffff80000020,3:aBcDeF", "OK");
    cr_expect_arr_eq(toy.memory + 0x20, "\xab\xcd\xef", 4);
    EXPECT("Mffffffff80000020,0:", "OK");
    EXPECT("Mffffffff80000020,3:abcd", BAD);
    EXPECT("Mffffffff80000020,3:abcdefab", BAD);
    EXPECT("Mffffffff80000020,3", BAD);
    EXPECT("M0,ffffffffffffffff:00", BAD);
    EXPECT("M0,1:00", "E0e");
    EXPECT("Mffffffff80003fff,2:0000", "E0e");
}

Test(gdb_command, reaches_memory_by_physical_addresses)
{
    toy.memory[0x30] = 0x99;
    EXPECT("qqemu.PhyMemMode", "0");
    EXPECT("Qqemu.PhyMemMode:1", "OK");
    EXPECT("qqemu.PhyMemMode", "1");
    EXPECT("m30,1", "99");
    EXPECT("M31,1:55", "OK");
    EXPECT("mffffffff80000031,1", "E0e");
    EXPECT("Qqemu.PhyMemMode:0", "OK");
    EXPECT("mffffffff80000031,1", "55");
    EXPECT("Qqemu.PhyMemMode:2", BAD);
}

static const char *monitor(const char *words)
{
    static char said[200];
    char packet[200] = "qRcmd,";

    for (size_t i = 0; words[i] != '\0'; i++) {
        snprintf(packet + strlen(packet), 3, "%02x", (unsigned char)words[i]);
    }
    cr_assert_eq(obey(packet), GDB_NEXT_ANSWER);
    for (size_t i = 0; i < command.answer_bytes / 2; i++) {
        unsigned int byte;

        cr_assert_eq(sscanf(command.answer + 2 * i, "%2x", &byte), 1);
        said[i] = (char)byte;
        said[i + 1] = '\0';
    }
    return said;
}

Test(gdb_command, obeys_a_person)
{
    cr_expect_str_eq(monitor("phys"), "addresses are by the vCPU's page tables\n");
    cr_expect_str_eq(monitor("phys on"), "addresses are guest-physical\n");
    cr_expect(command.is_physical);
    cr_expect_str_eq(monitor("phys off"), "addresses are by the vCPU's page tables\n");
    cr_expect_not(command.is_physical);
    cr_expect_not_null(strstr(monitor("help"), "phys [on|off]"));
    EXPECT("qRcmd,7", BAD);
    EXPECT("qRcmd,7x", BAD);
    EXPECT("qRcmd,7070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070"
           "70707070707070707070707070707070707070707070707070707070707070",
           BAD);
}

/* --- Breakpoints -------------------------------------------------------------------------------------------------- */

Test(gdb_command, sets_and_clears_breakpoints)
{
    toy.has_watch = true;
    EXPECT("Z0,ffffffff80000100,1", "OK");
    EXPECT("Z1,1000,1", "OK");
    EXPECT("Z2,1000,8", "OK");
    EXPECT("Z4,1002,2", "OK");
    cr_expect_eq(toy.points.count, 4);
    EXPECT("Z0,1000,1", "E0e");
    EXPECT("Z1,1001,1", "OK");
    EXPECT("Z1,1002,1", "E1c");
    EXPECT("z1,1001,1", "OK");
    EXPECT("z1,1001,1", "OK");
    EXPECT("z2,1000,8", "OK");
    cr_expect_eq(toy.points.count, 3);
    EXPECT("Z2,1001,8", BAD);
    EXPECT("Z2,1000,3", BAD);
    EXPECT("Z0,1000", BAD);
    EXPECT("Z0,ffffffff80000100,1;X1,22", BAD);
    EXPECT("Z2,1000,100000001", BAD);
}

Test(gdb_command, says_that_this_host_has_no_watchpoints)
{
    EXPECT("Z2,1000,8", "E26");
    EXPECT("Z4,1000,8", "E26");
    EXPECT("z2,1000,8", "OK");
}

/* --- Going on ----------------------------------------------------------------------------------------------------- */

#define EXPECT_ACTIONS(text, first, second, third)                                                                     \
    do {                                                                                                               \
        cr_expect_eq(obey(text), GDB_NEXT_RUN, "%s", text);                                                            \
        cr_expect_eq(command.actions[0], GDB_ACTION_##first, "%s", text);                                              \
        cr_expect_eq(command.actions[1], GDB_ACTION_##second, "%s", text);                                             \
        cr_expect_eq(command.actions[2], GDB_ACTION_##third, "%s", text);                                              \
    } while (false)

Test(gdb_command, lets_each_vcpu_go_on_as_told)
{
    EXPECT_ACTIONS("vCont;c", GO, GO, GO);
    EXPECT_ACTIONS("vCont;s:2;c", GO, STEP, GO);
    EXPECT_ACTIONS("vCont;s:1", STEP, HOLD, HOLD);
    EXPECT_ACTIONS("vCont;c:3;s:1;C05", STEP, GO, GO);
    EXPECT_ACTIONS("vCont;S05:2;c:-1", GO, STEP, GO);
    EXPECT_ACTIONS("vCont;c:1;s:1", GO, HOLD, HOLD);
    EXPECT("vCont", BAD);
    EXPECT("vCont;", BAD);
    EXPECT("vCont;t", BAD);
    EXPECT("vCont;c:4", BAD);
    EXPECT("vCont;c:x", BAD);
    EXPECT("vCont;C", BAD);
    EXPECT("vContx", BAD);
}

Test(gdb_command, lets_it_go_on_by_the_old_commands)
{
    EXPECT_ACTIONS("c", GO, GO, GO);
    EXPECT_ACTIONS("s", STEP, GO, GO);
    EXPECT("Hg2", "OK");
    EXPECT_ACTIONS("s", GO, STEP, GO);
    EXPECT("Hc3", "OK");
    EXPECT_ACTIONS("c", HOLD, HOLD, GO);
    EXPECT_ACTIONS("s", HOLD, HOLD, STEP);
    EXPECT("Hc-1", "OK");
    EXPECT_ACTIONS("C05", GO, GO, GO);
    EXPECT_ACTIONS("S05;ffffffff81000000", GO, STEP, GO);
    cr_expect_eq(toy.registers[1].regs.rip, 0xffffffff81000000);
    EXPECT_ACTIONS("c1234", GO, GO, GO);
    cr_expect_eq(toy.registers[1].regs.rip, 0x1234);
    EXPECT("cx", BAD);
    EXPECT("c12x", BAD);
    EXPECT("C", BAD);
    EXPECT("Cxx", BAD);
    EXPECT("C05x", BAD);
}

Test(gdb_command, takes_no_step_where_the_host_takes_none)
{
    toy.target.has_step = false;
    EXPECT("s", "E26");
    EXPECT("vCont;s:1;c", "E26");
    EXPECT_ACTIONS("vCont;c", GO, GO, GO);
}

Test(gdb_command, ends)
{
    cr_expect_eq(obey("D"), GDB_NEXT_DETACH);
    cr_expect_str_eq(command.answer, "OK");
    cr_expect_eq(obey("k"), GDB_NEXT_KILL);
    cr_expect_str_eq(command.answer, "");
    cr_expect_eq(obey("vKill;1"), GDB_NEXT_KILL);
    cr_expect_str_eq(command.answer, "OK");
    gdb_command_tell_end(&command, 130);
    cr_expect_str_eq(command.answer, "W82");
}

/* --- Threads ------------------------------------------------------------------------------------------------------ */

Test(gdb_command, has_a_thread_for_each_vcpu)
{
    EXPECT("qfThreadInfo", "m1,2,3");
    EXPECT("qsThreadInfo", "l");
    EXPECT("qC", "QC1");
    EXPECT("T3", "OK");
    EXPECT("T4", "E03");
    EXPECT("T0", "E03");
    EXPECT("T-1", "E03");
    EXPECT("qThreadExtraInfo,2", "76435055203"
                                 "13a20746f79"); /* vCPU 1: toy */
    EXPECT("qThreadExtraInfo,4", "E03");
    EXPECT("Hg2", "OK");
    EXPECT("qC", "QC2");
    EXPECT("p0", "0100000000000000");
    EXPECT("Hg0", "OK");
    EXPECT("qC", "QC2");
    EXPECT("Hg4", BAD);
    EXPECT("Hx1", BAD);
    EXPECT("Hg", BAD);
    EXPECT("Hg1x", BAD);
}

/* --- Stops -------------------------------------------------------------------------------------------------------- */

static const char *told(enum gdb_stop_reason reason)
{
    gdb_command_tell_stop(&command, &(struct gdb_stop){reason, 1, 0xffffffff80001000});
    return command.answer;
}

Test(gdb_command, tells_why_the_guest_has_stopped)
{
    EXPECT("?", "T05thread:1;");
    cr_expect_str_eq(told(GDB_STOP_INTERRUPT), "T02thread:2;");
    EXPECT("?", "T02thread:2;");
    EXPECT("qC", "QC2");
    cr_expect_str_eq(told(GDB_STOP_STEP), "T05thread:2;");
    cr_expect_str_eq(told(GDB_STOP_SOFTWARE), "T05thread:2;");
    cr_expect_str_eq(told(GDB_STOP_EXECUTE), "T05thread:2;");
    (void)obey("qSupported:swbreak+;hwbreak+");
    cr_expect_str_eq(told(GDB_STOP_SOFTWARE), "T05thread:2;swbreak:;");
    cr_expect_str_eq(told(GDB_STOP_EXECUTE), "T05thread:2;hwbreak:;");
    cr_expect_str_eq(told(GDB_STOP_WRITE), "T05thread:2;watch:ffffffff80001000;");
    cr_expect_str_eq(told(GDB_STOP_ACCESS), "T05thread:2;awatch:ffffffff80001000;");
    cr_expect_str_eq(told(GDB_STOP_FAULT), "T0bthread:2;");
    cr_expect_str_eq(told(GDB_STOP_ABORT), "T06thread:2;");
}

/* Text that has a zero in it is no longer than it says. */
Test(gdb_command, takes_any_bytes)
{
    cr_expect_eq(gdb_command_obey(&command, "m0,4\0", 5), GDB_NEXT_ANSWER);
    cr_expect_str_eq(command.answer, BAD);
    cr_expect_eq(gdb_command_obey(&command, "\0g", 2), GDB_NEXT_ANSWER);
    cr_expect_str_eq(command.answer, "");
    cr_expect_eq(gdb_command_obey(&command, "qRcmd,\0\0", 8), GDB_NEXT_ANSWER);
    cr_expect_str_eq(command.answer, BAD);
}
