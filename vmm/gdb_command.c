// SPDX-License-Identifier: Apache-2.0
/* answer_bytes <= GDB_PACKET_BYTES_MAX, and a zero stands behind them. What is asked for in a wrong form is E16, in a word EINVAL. */
#include "vmm/gdb_command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ALL         UINT32_MAX
#define UNDECIDED   0xffu
#define MEMORY_MAX  (GDB_PACKET_BYTES_MAX / 2) /* bytes of one read or write, each of two digits */
#define MONITOR_MAX 64u                        /* of a word to monitor */

/* Signals as GDB numbers them. */
#define SIGNAL_INTERRUPT 2u
#define SIGNAL_ABORT     6u
#define SIGNAL_TRAP      5u
#define SIGNAL_FAULT     11u

/* --- Out ---------------------------------------------------------------------------------------------------------- */

#define PRINTF(text, at) __attribute__((format(printf, text, at)))

PRINTF(2, 3)
static void say(struct gdb_command *command, const char *format, ...)
{
    size_t room = sizeof command->answer - command->answer_bytes;
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(command->answer + command->answer_bytes, room, format, arguments);
    va_end(arguments);
    command->answer_bytes += length > 0 && (size_t)length < room ? (size_t)length : 0;
}

static void say_bytes(struct gdb_command *command, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < count && command->answer_bytes + 2 <= GDB_PACKET_BYTES_MAX; i++) {
        command->answer[command->answer_bytes++] = digits[bytes[i] >> 4];
        command->answer[command->answer_bytes++] = digits[bytes[i] & 0xf];
    }
    command->answer[command->answer_bytes] = '\0';
}

static enum gdb_next say_error(struct gdb_command *command, int error)
{
    say(command, "E%02x", (unsigned int)error);
    return GDB_NEXT_ANSWER;
}

static enum gdb_next say_ok(struct gdb_command *command)
{
    say(command, "OK");
    return GDB_NEXT_ANSWER;
}

/* --- In ----------------------------------------------------------------------------------------------------------- */

/* What is left of a packet's text; a zero stands at end. */
struct words {
    const char *at, *end;
};

static bool take(struct words *words, const char *text)
{
    size_t length = strlen(text);

    if ((size_t)(words->end - words->at) < length || memcmp(words->at, text, length) != 0) {
        return false;
    }
    words->at += length;
    return true;
}

static bool is_done(const struct words *words)
{
    return words->at == words->end;
}

/* -1: none. */
static int digit_at(const char *at)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *found = *at != '\0' ? strchr(digits, *at) : NULL;
    int value = found != NULL ? (int)(found - digits) : -1;

    return value < 16 ? value : value - 6;
}

/* One to sixteen significant digits in base 16. */
static bool take_number(struct words *words, uint64_t *number)
{
    const char *first = words->at;

    *number = 0;
    for (int digit; (digit = digit_at(words->at)) >= 0; words->at++) {
        if (*number >> 60 != 0) {
            return false;
        }
        *number = *number << 4 | (unsigned int)digit;
    }
    return words->at > first;
}

/* All that is left, as count bytes of two digits each. */
static bool take_bytes(struct words *words, uint8_t *bytes, size_t count)
{
    if ((size_t)(words->end - words->at) != 2 * count) {
        return false;
    }
    for (size_t i = 0; i < count; i++, words->at += 2) {
        int high = digit_at(words->at), low = digit_at(words->at + 1);

        if (high < 0 || low < 0) {
            return false;
        }
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* A thread's number as a vCPU's; ALL: all of them, or any. false: there is none, or it is no number. */
static bool take_thread(const struct gdb_command *command, struct words *words, uint32_t *vcpu)
{
    uint64_t number;

    *vcpu = ALL;
    if (take(words, "-1")) {
        return true;
    }
    if (!take_number(words, &number) || number > command->target->vcpu_count) {
        return false;
    }
    *vcpu = number == 0 ? ALL : (uint32_t)number - 1;
    return true;
}

/* --- Registers ---------------------------------------------------------------------------------------------------- */

static bool read_registers(const struct gdb_command *command, struct gdb_registers *registers)
{
    return command->target->read_registers(command->target->self, command->vcpu, registers);
}

static enum gdb_next write_registers(struct gdb_command *command, const struct gdb_registers *before,
                                     const struct gdb_registers *registers)
{
    return command->target->write_registers(command->target->self, command->vcpu, before, registers)
               ? say_ok(command)
               : say_error(command, EINVAL);
}

static enum gdb_next obey_g(struct gdb_command *command)
{
    struct gdb_registers registers;
    uint8_t bytes[GDB_REGISTER_BYTES_MAX];

    if (!read_registers(command, &registers)) {
        return say_error(command, EIO);
    }
    for (unsigned int i = 0; i < GDB_REGISTER_COUNT; i++) {
        say_bytes(command, bytes, gdb_register_read(&registers, i, bytes));
    }
    return GDB_NEXT_ANSWER;
}

static size_t all_register_bytes(void)
{
    size_t bytes = 0;

    for (unsigned int i = 0; i < GDB_REGISTER_COUNT; i++) {
        bytes += gdb_register_bytes(i);
    }
    return bytes;
}

static enum gdb_next obey_G(struct gdb_command *command, struct words *words)
{
    uint8_t bytes[GDB_REGISTERS_BYTES_MAX];
    struct gdb_registers before, registers;
    size_t at = 0;

    if (!take_bytes(words, bytes, all_register_bytes())) {
        return say_error(command, EINVAL);
    }
    if (!read_registers(command, &before)) {
        return say_error(command, EIO);
    }
    registers = before;
    for (unsigned int i = 0; i < GDB_REGISTER_COUNT; at += gdb_register_bytes(i), i++) {
        if (!gdb_register_write(&registers, i, bytes + at)) {
            return say_error(command, EINVAL);
        }
    }
    return write_registers(command, &before, &registers);
}

static bool take_register(struct words *words, unsigned int *number)
{
    uint64_t wanted;

    if (!take_number(words, &wanted) || wanted >= GDB_REGISTER_COUNT) {
        return false;
    }
    *number = (unsigned int)wanted;
    return true;
}

static enum gdb_next obey_p(struct gdb_command *command, struct words *words)
{
    struct gdb_registers registers;
    uint8_t bytes[GDB_REGISTER_BYTES_MAX];
    unsigned int number;

    if (!take_register(words, &number) || !is_done(words)) {
        return say_error(command, EINVAL);
    }
    if (!read_registers(command, &registers)) {
        return say_error(command, EIO);
    }
    say_bytes(command, bytes, gdb_register_read(&registers, number, bytes));
    return GDB_NEXT_ANSWER;
}

static enum gdb_next obey_P(struct gdb_command *command, struct words *words)
{
    struct gdb_registers before, registers;
    uint8_t bytes[GDB_REGISTER_BYTES_MAX];
    unsigned int number;

    if (!take_register(words, &number) || !take(words, "=") || !take_bytes(words, bytes, gdb_register_bytes(number))) {
        return say_error(command, EINVAL);
    }
    if (!read_registers(command, &before)) {
        return say_error(command, EIO);
    }
    registers = before;
    return gdb_register_write(&registers, number, bytes) ? write_registers(command, &before, &registers)
                                                         : say_error(command, EINVAL);
}

/* --- Memory ------------------------------------------------------------------------------------------------------- */

static bool take_range(struct words *words, uint64_t *address, uint64_t *bytes)
{
    return take_number(words, address) && take(words, ",") && take_number(words, bytes);
}

/* Fewer bytes than asked for are an answer, too. */
static enum gdb_next obey_m(struct gdb_command *command, struct words *words)
{
    const struct gdb_target *target = command->target;
    uint8_t bytes[MEMORY_MAX];
    uint64_t address, count;
    size_t got;

    if (!take_range(words, &address, &count) || !is_done(words) || count == 0) {
        return say_error(command, EINVAL);
    }
    got = target->read_memory(target->self, command->vcpu, command->is_physical, address, bytes,
                              count < sizeof bytes ? (size_t)count : sizeof bytes);
    if (got == 0) {
        return say_error(command, EFAULT);
    }
    say_bytes(command, bytes, got);
    return GDB_NEXT_ANSWER;
}

static enum gdb_next obey_M(struct gdb_command *command, struct words *words)
{
    const struct gdb_target *target = command->target;
    uint8_t bytes[MEMORY_MAX];
    uint64_t address, count;

    if (!take_range(words, &address, &count) || !take(words, ":") || count > sizeof bytes ||
        !take_bytes(words, bytes, (size_t)count)) {
        return say_error(command, EINVAL);
    }
    return target->write_memory(target->self, command->vcpu, command->is_physical, address, bytes, (size_t)count) ==
                   count
               ? say_ok(command)
               : say_error(command, EFAULT);
}

/* --- Breakpoints -------------------------------------------------------------------------------------------------- */

/* false: it is no kind that there is. */
static bool take_point(struct words *words, enum gdb_point_kind *kind, uint64_t *address, uint32_t *bytes)
{
    static const struct {
        const char *word;
        enum gdb_point_kind kind;
    } kinds[] = {
        {"0,", GDB_POINT_SOFTWARE}, {"1,", GDB_POINT_EXECUTE}, {"2,", GDB_POINT_WRITE}, {"4,", GDB_POINT_ACCESS}};
    uint64_t size;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (take(words, kinds[i].word)) {
            *kind = kinds[i].kind;
            *bytes = 0;
            if (take_range(words, address, &size) && is_done(words) && size <= UINT32_MAX) {
                *bytes = (uint32_t)size;
            }
            return true;
        }
    }
    return false;
}

static enum gdb_next say_inserted(struct gdb_command *command, enum gdb_insert result)
{
    switch (result) {
    case GDB_INSERT_DONE:
        return say_ok(command);
    case GDB_INSERT_NO_MEMORY:
        return say_error(command, EFAULT);
    case GDB_INSERT_NO_ROOM:
        return say_error(command, ENOSPC);
    case GDB_INSERT_ABSENT:
    default:
        return say_error(command, ENOSYS);
    }
}

/*
 * A processor cannot watch for reads alone (Z3): no answer says that there is no such command, and GDB takes Z4 instead.
 * Conditions and commands behind a breakpoint are not among what was offered.
 */
static enum gdb_next obey_z(struct gdb_command *command, struct words *words, bool is_insert)
{
    const struct gdb_target *target = command->target;
    enum gdb_point_kind kind;
    uint64_t address;
    uint32_t bytes;

    if (!take_point(words, &kind, &address, &bytes)) {
        return GDB_NEXT_ANSWER;
    }
    if (bytes == 0 || (kind > GDB_POINT_EXECUTE && !gdb_points_can_hold(kind, address, bytes))) {
        return say_error(command, EINVAL);
    }
    if (!is_insert) {
        target->remove(target->self, kind, address, bytes);
        return say_ok(command);
    }
    return say_inserted(command, target->insert(target->self, command->vcpu, kind, address, bytes));
}

/* --- Going on ----------------------------------------------------------------------------------------------------- */

static enum gdb_next refuse_step(struct gdb_command *command)
{
    return say_error(command, ENOSYS);
}

/* c, s, and with a signal, of which there are none in a guest: C, S. */
static enum gdb_next obey_c(struct gdb_command *command, struct words *words, bool is_step, bool has_signal)
{
    uint32_t chosen = is_step && command->step_vcpu == ALL ? command->vcpu : command->step_vcpu;
    struct gdb_registers before, registers;
    uint64_t number;

    if (is_step && !command->target->has_step) {
        return refuse_step(command);
    }
    if (has_signal && (!take_number(words, &number) || (!is_done(words) && !take(words, ";")))) {
        return say_error(command, EINVAL);
    }
    if (!is_done(words)) {
        if (!take_number(words, &number) || !is_done(words)) {
            return say_error(command, EINVAL);
        }
        if (!read_registers(command, &before)) {
            return say_error(command, EIO);
        }
        registers = before;
        registers.regs.rip = number;
        if (!command->target->write_registers(command->target->self, command->vcpu, &before, &registers)) {
            return say_error(command, EINVAL);
        }
    }
    memset(command->actions, command->step_vcpu == ALL ? GDB_ACTION_GO : GDB_ACTION_HOLD, sizeof command->actions);
    if (chosen != ALL) {
        command->actions[chosen] = is_step ? GDB_ACTION_STEP : GDB_ACTION_GO;
    }
    return GDB_NEXT_RUN;
}

/* One action of vCont, and for whom. false: it is none. */
static bool take_action(const struct gdb_command *command, struct words *words, uint8_t *action, uint32_t *vcpu)
{
    uint64_t signal;

    *vcpu = ALL;
    if (!take(words, ";")) {
        return false;
    }
    if (take(words, "C")) {
        *action = GDB_ACTION_GO;
    } else if (take(words, "S")) {
        *action = GDB_ACTION_STEP;
    } else if (take(words, "c")) {
        *action = GDB_ACTION_GO;
        return !take(words, ":") || take_thread(command, words, vcpu);
    } else if (take(words, "s")) {
        *action = GDB_ACTION_STEP;
        return !take(words, ":") || take_thread(command, words, vcpu);
    } else {
        return false;
    }
    return take_number(words, &signal) && (!take(words, ":") || take_thread(command, words, vcpu));
}

/* The first action that names a thread counts for it. */
static void apply(struct gdb_command *command, uint8_t action, uint32_t vcpu)
{
    for (uint32_t i = 0; i < command->target->vcpu_count; i++) {
        if ((vcpu == ALL || vcpu == i) && command->actions[i] == UNDECIDED) {
            command->actions[i] = action;
        }
    }
}

static enum gdb_next obey_vcont(struct gdb_command *command, struct words *words)
{
    bool has_any = false;
    uint32_t vcpu;
    uint8_t action;

    memset(command->actions, UNDECIDED, sizeof command->actions);
    while (!is_done(words)) {
        if (!take_action(command, words, &action, &vcpu)) {
            return say_error(command, EINVAL);
        }
        if (action == GDB_ACTION_STEP && !command->target->has_step) {
            return refuse_step(command);
        }
        apply(command, action, vcpu);
    }
    for (uint32_t i = 0; i < command->target->vcpu_count; i++) {
        command->actions[i] = command->actions[i] == UNDECIDED ? GDB_ACTION_HOLD : command->actions[i];
        has_any = has_any || command->actions[i] != GDB_ACTION_HOLD;
    }
    return has_any ? GDB_NEXT_RUN : say_error(command, EINVAL);
}

static enum gdb_next obey_v(struct gdb_command *command, struct words *words)
{
    if (take(words, "Cont?")) {
        say(command, "vCont;c;C%s", command->target->has_step ? ";s;S" : "");
    } else if (take(words, "Cont")) {
        return obey_vcont(command, words);
    } else if (take(words, "Kill;")) {
        say(command, "OK");
        return GDB_NEXT_KILL;
    }
    return GDB_NEXT_ANSWER;
}

/* --- Threads ------------------------------------------------------------------------------------------------------ */

/* Any thread is the one that is looked at already. */
static enum gdb_next obey_H(struct gdb_command *command, struct words *words)
{
    bool is_general = take(words, "g");
    uint32_t vcpu;

    if ((!is_general && !take(words, "c")) || !take_thread(command, words, &vcpu) || !is_done(words)) {
        return say_error(command, EINVAL);
    }
    if (!is_general) {
        command->step_vcpu = vcpu;
    } else if (vcpu != ALL) {
        command->vcpu = vcpu;
    }
    return say_ok(command);
}

static enum gdb_next obey_T(struct gdb_command *command, struct words *words)
{
    uint32_t vcpu;

    return take_thread(command, words, &vcpu) && vcpu != ALL && is_done(words) ? say_ok(command)
                                                                               : say_error(command, ESRCH);
}

static void say_threads(struct gdb_command *command)
{
    for (uint32_t i = 0; i < command->target->vcpu_count; i++) {
        say(command, "%s%" PRIx32, i == 0 ? "m" : ",", i + 1);
    }
}

static enum gdb_next say_thread(struct gdb_command *command, struct words *words)
{
    char text[128], whole[192];
    uint32_t vcpu;

    if (!take_thread(command, words, &vcpu) || vcpu == ALL) {
        return say_error(command, ESRCH);
    }
    command->target->describe(command->target->self, vcpu, text, sizeof text);
    snprintf(whole, sizeof whole, "vCPU %" PRIu32 ": %s", vcpu, text);
    say_bytes(command, (const uint8_t *)whole, strlen(whole));
    return GDB_NEXT_ANSWER;
}

/* --- Questions ---------------------------------------------------------------------------------------------------- */

static bool has_word(const struct words *words, const char *word)
{
    return strstr(words->at, word) != NULL;
}

static enum gdb_next say_supported(struct gdb_command *command, const struct words *words)
{
    command->tells_software = has_word(words, "swbreak+");
    command->tells_execute = has_word(words, "hwbreak+");
    say(command, "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+",
        GDB_PACKET_BYTES_MAX);
    return GDB_NEXT_ANSWER;
}

/* A piece of the description: m, or l where it is the last. */
static enum gdb_next say_description(struct gdb_command *command, struct words *words)
{
    size_t total, room = GDB_PACKET_BYTES_MAX - 1;
    const char *text = gdb_registers_description(&total);
    uint64_t offset, count;

    if (!take_range(words, &offset, &count) || !is_done(words) || offset > total) {
        return say_error(command, EINVAL);
    }
    count = count < room ? count : room;
    count = count < total - offset ? count : total - offset;
    say(command, "%s%.*s", offset + count == total ? "l" : "m", (int)count, text + offset);
    return GDB_NEXT_ANSWER;
}

static enum gdb_next say_to_person(struct gdb_command *command, const char *text)
{
    say_bytes(command, (const uint8_t *)text, strlen(text));
    return GDB_NEXT_ANSWER;
}

/* What a person types behind "monitor". */
static enum gdb_next obey_monitor(struct gdb_command *command, struct words *words)
{
    char text[MONITOR_MAX + 1] = {0};
    size_t count = (size_t)(words->end - words->at) / 2;

    if (count > MONITOR_MAX || !take_bytes(words, (uint8_t *)text, count)) {
        return say_error(command, EINVAL);
    }
    if (strcmp(text, "phys on") == 0 || strcmp(text, "phys off") == 0) {
        command->is_physical = strcmp(text, "phys on") == 0;
    } else if (strcmp(text, "phys") != 0) {
        return say_to_person(command, "phys [on|off]: addresses of memory are guest-physical, or by the page tables\n");
    }
    return say_to_person(command, command->is_physical ? "addresses are guest-physical\n"
                                                       : "addresses are by the vCPU's page tables\n");
}

static enum gdb_next obey_q(struct gdb_command *command, struct words *words)
{
    if (take(words, "Supported")) {
        return say_supported(command, words);
    }
    if (take(words, "Xfer:features:read:target.xml:")) {
        return say_description(command, words);
    }
    if (take(words, "ThreadExtraInfo,")) {
        return say_thread(command, words);
    }
    if (take(words, "Rcmd,")) {
        return obey_monitor(command, words);
    }
    if (take(words, "fThreadInfo")) {
        say_threads(command);
    } else if (take(words, "sThreadInfo")) {
        say(command, "l");
    } else if (take(words, "Attached")) {
        say(command, "1"); /* so that GDB lets the guest go on when it leaves */
    } else if (take(words, "Symbol::")) {
        say(command, "OK"); /* there is no symbol that this would ask for */
    } else if (take(words, "qemu.PhyMemMode")) {
        say(command, "%d", command->is_physical);
    } else if (take(words, "C") && is_done(words)) {
        say(command, "QC%" PRIx32, command->vcpu + 1);
    }
    return GDB_NEXT_ANSWER;
}

static enum gdb_next obey_Q(struct gdb_command *command, struct words *words)
{
    if (take(words, "StartNoAckMode")) {
        command->has_no_ack = true;
        say(command, "OK");
    } else if (take(words, "qemu.PhyMemMode:")) {
        bool is_on = take(words, "1");

        if (!is_on && !take(words, "0")) {
            return say_error(command, EINVAL);
        }
        command->is_physical = is_on;
        say(command, "OK");
    }
    return GDB_NEXT_ANSWER;
}

/* --- Stops -------------------------------------------------------------------------------------------------------- */

static void say_reason(struct gdb_command *command)
{
    const struct gdb_stop *stop = &command->stop;

    switch (stop->reason) {
    case GDB_STOP_SOFTWARE:
        say(command, "%s", command->tells_software ? "swbreak:;" : "");
        break;
    case GDB_STOP_EXECUTE:
        say(command, "%s", command->tells_execute ? "hwbreak:;" : "");
        break;
    case GDB_STOP_WRITE:
        say(command, "watch:%" PRIx64 ";", stop->address);
        break;
    case GDB_STOP_ACCESS:
        say(command, "awatch:%" PRIx64 ";", stop->address);
        break;
    default:
        break;
    }
}

static unsigned int signal_of(enum gdb_stop_reason reason)
{
    switch (reason) {
    case GDB_STOP_INTERRUPT:
        return SIGNAL_INTERRUPT;
    case GDB_STOP_FAULT:
        return SIGNAL_FAULT;
    case GDB_STOP_ABORT:
        return SIGNAL_ABORT;
    default:
        return SIGNAL_TRAP;
    }
}

static enum gdb_next say_stop(struct gdb_command *command)
{
    say(command, "T%02xthread:%" PRIx32 ";", signal_of(command->stop.reason), command->stop.vcpu + 1);
    say_reason(command);
    return GDB_NEXT_ANSWER;
}

static void begin_answer(struct gdb_command *command)
{
    command->answer_bytes = 0;
    command->answer[0] = '\0';
}

void gdb_command_init(struct gdb_command *command, const struct gdb_target *target)
{
    *command = (struct gdb_command){.target = target, .step_vcpu = ALL};
}

void gdb_command_tell_stop(struct gdb_command *command, const struct gdb_stop *stop)
{
    begin_answer(command);
    command->stop = *stop;
    command->vcpu = stop->vcpu;
    (void)say_stop(command);
}

void gdb_command_tell_end(struct gdb_command *command, int exit_status)
{
    begin_answer(command);
    say(command, "W%02x", (unsigned int)exit_status & 0xff);
}

/* --- A packet ----------------------------------------------------------------------------------------------------- */

/* What is not known has an empty answer. */
enum gdb_next gdb_command_obey(struct gdb_command *command, const char *text, size_t count)
{
    struct words words = {text + (count > 0), text + count};

    begin_answer(command);
    switch (count > 0 ? text[0] : '\0') {
    case '?':
        return say_stop(command);
    case 'g':
        return obey_g(command);
    case 'G':
        return obey_G(command, &words);
    case 'p':
        return obey_p(command, &words);
    case 'P':
        return obey_P(command, &words);
    case 'm':
        return obey_m(command, &words);
    case 'M':
        return obey_M(command, &words);
    case 'Z':
    case 'z':
        return obey_z(command, &words, text[0] == 'Z');
    case 'c':
    case 's':
        return obey_c(command, &words, text[0] == 's', false);
    case 'C':
    case 'S':
        return obey_c(command, &words, text[0] == 'S', true);
    case 'H':
        return obey_H(command, &words);
    case 'T':
        return obey_T(command, &words);
    case 'D':
        say(command, "OK");
        return GDB_NEXT_DETACH;
    case 'k':
        return GDB_NEXT_KILL;
    case 'v':
        return obey_v(command, &words);
    case 'q':
        return obey_q(command, &words);
    case 'Q':
        return obey_Q(command, &words);
    default:
        return GDB_NEXT_ANSWER;
    }
}
