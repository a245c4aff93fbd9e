// SPDX-License-Identifier: Apache-2.0
/*
 * vCPU threads come here by debugger_stopped alone. They read the points and is_attached, which change only while the machine is
 * paused; each writes its own pending stop, which is read while it is paused.
 *
 * A vCPU that has stopped is held (struct vcpu, is_held) until it is told to go on: a pause that somebody else makes and
 * takes back does not let it.
 */
#include "vmm/gdb.h"

#include "vmm/decode.h"
#include "vmm/gdb_client.h"
#include "vmm/gdb_command.h"
#include "vmm/gdb_memory.h"
#include "vmm/gdb_points.h"
#include "vmm/gdb_vcpu.h"
#include "vmm/kick.h"
#include "vmm/listener.h"
#include "vmm/printable.h"
#include "vmm/vcpu.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DR6_STEP UINT64_C(0x4000)

/* A vCPU's, that no client has been told of. */
struct pending {
    bool is_there;
    struct gdb_stop stop;
};

struct gdb {
    struct listener listener;
    struct outlet *teller;
    struct machine *machine;
    struct loam_gpa_map *map;
    struct gdb_abilities abilities;
    int news_fd; /* an eventfd: a vCPU has stopped */
    int quit_fd; /* an eventfd: the end */
    struct kick_thread thread;
    bool has_thread;
    atomic_int exit_status; /* from gdb_end on */
    atomic_bool is_killed;
    bool is_attached;        /* there is a client */
    bool is_running;         /* the guest is, as far as this is concerned */
    bool is_over;            /* the machine has ended: no client is listened to any more */
    bool has_said_absent[4]; /* by enum gdb_point_kind */
    struct gdb_points points;
    struct gdb_target target;
    struct gdb_client client;
    struct gdb_command command;
    struct pending pending[];
};

LOAM_PRINTF(2, 3)
static void tell(struct gdb *gdb, const char *format, ...)
{
    char text[512], whole[sizeof text + 16], shown[sizeof whole * PRINTABLE_GROWTH + 1];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(whole, sizeof whole, "loam: --gdb: %s\n", text);
    if (gdb->teller != NULL) {
        outlet_append(gdb->teller, shown, printable_escape(whole, strlen(whole), shown));
    }
}

static int vcpu_fd(const struct gdb *gdb, uint32_t vcpu)
{
    return machine_vcpu(gdb->machine, vcpu)->fd;
}

/* --- A vCPU stops: on its own thread ------------------------------------------------------------------------------ */

/* An INT3 of the debugger's lies at pc, a linear address. */
static bool is_own_int3(const struct gdb *gdb, const struct vcpu *vcpu, uint64_t pc)
{
    loam_gpa gpa;

    return gdb_vcpu_translate(vcpu->fd, pc, &gpa) && gdb_points_at(&gdb->points, gpa) != NULL;
}

static bool judge_int3(const struct gdb *gdb, const struct vcpu *vcpu, uint64_t pc, struct gdb_stop *stop)
{
    stop->reason = GDB_STOP_SOFTWARE;
    return is_own_int3(gdb, vcpu, pc);
}

/* DR6 may name registers that are not in use. What was watched is told before a step, and that before what comes next. */
static bool judge_dr6(const struct gdb *gdb, const struct vcpu *vcpu, uint64_t dr6, struct gdb_stop *stop)
{
    bool has_execute = false;

    for (uint32_t i = 0; i < GDB_HARDWARE_MAX; i++) {
        const struct gdb_point *point = (dr6 >> i & 1) != 0 ? gdb_points_in_register(&gdb->points, i) : NULL;

        if (point != NULL && point->kind != GDB_POINT_EXECUTE) {
            stop->reason = point->kind == GDB_POINT_WRITE ? GDB_STOP_WRITE : GDB_STOP_ACCESS;
            stop->address = point->address;
            return true;
        }
        has_execute = has_execute || point != NULL;
    }
    if ((dr6 & DR6_STEP) != 0 && vcpu->is_stepping) {
        stop->reason = GDB_STOP_STEP;
        return true;
    }
    stop->reason = GDB_STOP_EXECUTE;
    return has_execute;
}

static bool judge_exit(const struct gdb *gdb, const struct vcpu *vcpu, struct gdb_stop *stop)
{
    const struct kvm_debug_exit_arch *exit = &vcpu->run->debug.arch;

    return exit->exception == 3 ? judge_int3(gdb, vcpu, exit->pc, stop) : judge_dr6(gdb, vcpu, exit->dr6, stop);
}

/* Whether it is the debugger's, and what it is. */
static bool judge(const struct gdb *gdb, const struct vcpu *vcpu, struct gdb_stop *stop)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    switch (vcpu->stop) {
    case VCPU_STOP_EXIT:
        return judge_exit(gdb, vcpu, stop);
    case VCPU_STOP_INT3:
        return kvm_ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 && kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0 &&
               judge_int3(gdb, vcpu, decode_linear_rip(&regs, &sregs), stop);
    case VCPU_STOP_STEP:
    default:
        stop->reason = GDB_STOP_STEP;
        return true;
    }
}

/* What the guest does to itself: its own INT3, its own trap flag. */
static void give_to_guest(const struct gdb *gdb, const struct vcpu *vcpu)
{
    if (vcpu->stop == VCPU_STOP_EXIT) {
        (void)gdb_vcpu_pass(vcpu->fd, vcpu->run, &gdb->points, vcpu->is_stepping, &gdb->abilities);
    }
}

static bool debugger_stopped(void *self, struct vcpu *vcpu, bool is_end)
{
    struct gdb *gdb = self;
    struct pending *pending = &gdb->pending[vcpu->index];
    struct gdb_stop stop = {.vcpu = vcpu->index};

    if (is_end) {
        stop.reason = vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN ? GDB_STOP_FAULT : GDB_STOP_ABORT;
    }
    if ((is_end && !gdb->is_attached) || (!is_end && !judge(gdb, vcpu, &stop))) {
        give_to_guest(gdb, vcpu);
        return false;
    }
    *pending = (struct pending){true, stop};
    (void)eventfd_write(gdb->news_fd, 1);
    return true;
}

/* --- What a client asks of a guest that stands still -------------------------------------------------------------- */

static bool read_registers(void *self, uint32_t vcpu, struct gdb_registers *registers)
{
    return gdb_vcpu_read(vcpu_fd(self, vcpu), registers);
}

static bool write_registers(void *self, uint32_t vcpu, const struct gdb_registers *before,
                            const struct gdb_registers *registers)
{
    return gdb_vcpu_write(vcpu_fd(self, vcpu), before, registers);
}

static struct gdb_memory memory_of(const struct gdb *gdb, uint32_t vcpu, bool is_physical)
{
    return (struct gdb_memory){.map = gdb->map,
                               .dirty = machine_dirty(gdb->machine),
                               .vcpu_fd = vcpu_fd(gdb, vcpu),
                               .is_physical = is_physical};
}

static size_t read_memory(void *self, uint32_t vcpu, bool is_physical, uint64_t address, uint8_t *bytes, size_t count)
{
    const struct gdb_memory memory = memory_of(self, vcpu, is_physical);

    return gdb_memory_read(&memory, address, bytes, count);
}

static size_t write_memory(void *self, uint32_t vcpu, bool is_physical, uint64_t address, const uint8_t *bytes,
                           size_t count)
{
    const struct gdb_memory memory = memory_of(self, vcpu, is_physical);

    return gdb_memory_write(&memory, address, bytes, count);
}

/* Physical: where an INT3 lies does not depend on page tables any more. */
static struct gdb_memory physical_memory(const struct gdb *gdb)
{
    return memory_of(gdb, 0, true);
}

static enum gdb_insert insert_int3(struct gdb *gdb, uint32_t vcpu, struct gdb_point *point)
{
    static const uint8_t int3 = GDB_INT3;
    const struct gdb_memory linear = memory_of(gdb, vcpu, false), physical = physical_memory(gdb);
    const struct gdb_point *twin;

    if (!gdb_memory_find(&linear, point->address, &point->gpa) ||
        gdb_memory_read(&physical, point->gpa.value, &point->original, 1) != 1) {
        return GDB_INSERT_NO_MEMORY;
    }
    twin = gdb_points_at(&gdb->points, point->gpa);
    point->original = twin != NULL ? twin->original : point->original;
    if (!gdb_points_add(&gdb->points, point)) {
        return GDB_INSERT_NO_ROOM;
    }
    if (gdb_memory_write(&physical, point->gpa.value, &int3, 1) != 1) {
        gdb_points_remove(&gdb->points, &gdb->points.points[gdb->points.count - 1]);
        return GDB_INSERT_NO_MEMORY;
    }
    return GDB_INSERT_DONE;
}

static bool has_ability(const struct gdb *gdb, enum gdb_point_kind kind)
{
    switch (kind) {
    case GDB_POINT_SOFTWARE:
        return gdb->abilities.has_software;
    case GDB_POINT_EXECUTE:
        return gdb->abilities.has_execute;
    default:
        return gdb->abilities.has_watch;
    }
}

static enum gdb_insert say_absent(struct gdb *gdb, enum gdb_point_kind kind)
{
    static const char *const names[] = {"software breakpoints", "hardware breakpoints", "watchpoints", "watchpoints"};

    if (!gdb->has_said_absent[kind]) {
        gdb->has_said_absent[kind] = true;
        tell(gdb, "%s: this host's KVM does not stop for them: use %s", names[kind],
             kind == GDB_POINT_SOFTWARE  ? "hbreak"
             : kind == GDB_POINT_EXECUTE ? "break"
                                         : "breakpoints, or \"set can-use-hw-watchpoints 0\", which steps");
    }
    return GDB_INSERT_ABSENT;
}

static enum gdb_insert insert(void *self, uint32_t vcpu, enum gdb_point_kind kind, uint64_t address, uint32_t bytes)
{
    struct gdb *gdb = self;
    struct gdb_point point = {.kind = kind, .address = address, .bytes = bytes};

    if (gdb_points_find(&gdb->points, kind, address, bytes) != NULL) {
        return GDB_INSERT_DONE;
    }
    if (!has_ability(gdb, kind)) {
        return say_absent(gdb, kind);
    }
    if (kind == GDB_POINT_SOFTWARE) {
        return insert_int3(gdb, vcpu, &point);
    }
    return gdb_points_add(&gdb->points, &point) ? GDB_INSERT_DONE : GDB_INSERT_NO_ROOM;
}

/* An INT3 that the guest has overwritten since is not put back. */
static void remove_point(struct gdb *gdb, const struct gdb_point *point)
{
    const struct gdb_memory physical = physical_memory(gdb);
    const struct gdb_point gone = *point;
    uint8_t now;

    gdb_points_remove(&gdb->points, point);
    if (gone.kind == GDB_POINT_SOFTWARE && gdb_points_at(&gdb->points, gone.gpa) == NULL &&
        gdb_memory_read(&physical, gone.gpa.value, &now, 1) == 1 && now == GDB_INT3) {
        (void)gdb_memory_write(&physical, gone.gpa.value, &gone.original, 1);
    }
}

static void remove_one(void *self, enum gdb_point_kind kind, uint64_t address, uint32_t bytes)
{
    struct gdb *gdb = self;
    const struct gdb_point *point = gdb_points_find(&gdb->points, kind, address, bytes);

    if (point != NULL) {
        remove_point(gdb, point);
    }
}

static void remove_all(struct gdb *gdb)
{
    while (gdb->points.count > 0) {
        remove_point(gdb, &gdb->points.points[gdb->points.count - 1]);
    }
}

static void describe(void *self, uint32_t vcpu, char *text, size_t bytes)
{
    struct kvm_mp_state state;
    const char *words = "running";

    if (kvm_ioctl(vcpu_fd(self, vcpu), KVM_GET_MP_STATE, &state) < 0) {
        words = "?";
    } else if (state.mp_state == KVM_MP_STATE_HALTED) {
        words = "halted";
    } else if (state.mp_state == KVM_MP_STATE_UNINITIALIZED || state.mp_state == KVM_MP_STATE_INIT_RECEIVED) {
        words = "not started";
    }
    snprintf(text, bytes, "%s", words);
}

/* --- Going on, and stopping --------------------------------------------------------------------------------------- */

/* A breakpoint is met again; what was watched, stepped over, or is about to end, would not be. */
static bool is_lasting(const struct pending *pending)
{
    return pending->is_there && pending->stop.reason != GDB_STOP_SOFTWARE && pending->stop.reason != GDB_STOP_EXECUTE;
}

/* The stop to tell of now; the others stay. A step comes first, because its client waits for it. NULL: there is none. */
static struct pending *first_pending(struct gdb *gdb)
{
    struct pending *found = NULL;

    for (uint32_t i = 0; i < gdb->target.vcpu_count; i++) {
        struct pending *pending = &gdb->pending[i];

        if (pending->is_there && (found == NULL || pending->stop.reason == GDB_STOP_STEP)) {
            found = pending;
        }
    }
    return found;
}

static void forget_breakpoints(struct gdb *gdb)
{
    for (uint32_t i = 0; i < gdb->target.vcpu_count; i++) {
        gdb->pending[i].is_there = is_lasting(&gdb->pending[i]);
    }
}

static void say_answer(struct gdb *gdb)
{
    gdb_client_say(&gdb->client, gdb->command.answer, gdb->command.answer_bytes);
}

/* false: the machine is at its end, where nobody has anything to do with a vCPU any more but its own thread. */
static bool pause_guest(struct gdb *gdb)
{
    machine_pause(gdb->machine);
    gdb->is_over = !machine_is_pausing(gdb->machine);
    return !gdb->is_over;
}

/* The guest stands still. */
static void tell_stop(struct gdb *gdb, const struct gdb_stop *stop)
{
    gdb->is_running = false;
    gdb_command_tell_stop(&gdb->command, stop);
    say_answer(gdb);
}

/* Each vCPU as it is to go on, with registers as they are now. false: KVM refuses. */
static bool set_vcpu(struct gdb *gdb, uint32_t index, enum gdb_action action)
{
    struct vcpu *vcpu = machine_vcpu(gdb->machine, index);

    vcpu->is_held = action == GDB_ACTION_HOLD;
    vcpu_set_debug(vcpu, true, action == GDB_ACTION_STEP);
    return gdb_vcpu_arm(vcpu->fd, &gdb->points, action == GDB_ACTION_STEP, &gdb->abilities);
}

static void go_on(struct gdb *gdb)
{
    struct pending *pending;
    bool is_set = true;

    forget_breakpoints(gdb);
    pending = first_pending(gdb);
    if (pending != NULL) {
        pending->is_there = false;
        tell_stop(gdb, &pending->stop);
        return;
    }
    for (uint32_t i = 0; i < gdb->target.vcpu_count; i++) {
        is_set = set_vcpu(gdb, i, (enum gdb_action)gdb->command.actions[i]) && is_set;
    }
    if (!is_set) {
        gdb_client_say(&gdb->client, "E16", 3);
        return;
    }
    gdb->is_running = true;
    machine_resume(gdb->machine);
}

/* Without a client: nothing of it is left in the guest. It stands still. */
static void let_loose(struct gdb *gdb)
{
    remove_all(gdb);
    for (uint32_t i = 0; i < gdb->target.vcpu_count; i++) {
        struct vcpu *vcpu = machine_vcpu(gdb->machine, i);

        gdb->pending[i].is_there = false;
        gdb_vcpu_disarm(vcpu->fd);
        vcpu_set_debug(vcpu, false, false);
        vcpu->is_held = false;
    }
    gdb->is_attached = false;
    gdb_client_end(&gdb->client);
}

static void detach(struct gdb *gdb)
{
    let_loose(gdb);
    gdb->is_running = true;
    machine_resume(gdb->machine);
}

/* The guest is as it was: on its way, or stopped. */
static void lose_client(struct gdb *gdb, const char *why)
{
    bool was_running = gdb->is_running;

    if (!pause_guest(gdb)) {
        return;
    }
    let_loose(gdb);
    if (was_running) {
        tell(gdb, "%s: the guest goes on, without its breakpoints", why);
        machine_resume(gdb->machine);
    } else {
        tell(gdb, "%s: the guest stays stopped until another debugger comes to %s", why, gdb->listener.name);
    }
}

static void stop_guest(struct gdb *gdb, enum gdb_stop_reason reason)
{
    struct pending *pending;

    if (!pause_guest(gdb)) {
        return;
    }
    pending = first_pending(gdb); /* it came first */
    if (pending != NULL) {
        pending->is_there = false;
        tell_stop(gdb, &pending->stop);
    } else {
        tell_stop(gdb, &(struct gdb_stop){.reason = reason, .vcpu = gdb->command.vcpu});
    }
}

/* A vCPU has stopped; all stop. */
static void take_news(struct gdb *gdb)
{
    struct pending *pending;
    eventfd_t count;

    (void)eventfd_read(gdb->news_fd, &count);
    if (!gdb->is_running || !pause_guest(gdb)) {
        return; /* the client is told when it lets the guest go on */
    }
    pending = first_pending(gdb);
    if (pending != NULL) {
        pending->is_there = false;
        tell_stop(gdb, &pending->stop);
    } else {
        machine_resume(gdb->machine); /* it was told of already */
    }
}

/* --- Clients ------------------------------------------------------------------------------------------------------ */

static void kill_guest(struct gdb *gdb)
{
    atomic_store(&gdb->is_killed, true);
    machine_stop(gdb->machine);
}

static void obey(struct gdb *gdb)
{
    enum gdb_next next = gdb_command_obey(&gdb->command, gdb->client.reader.text, gdb->client.reader.count);

    if (next == GDB_NEXT_RUN) {
        go_on(gdb);
        return;
    }
    if (next != GDB_NEXT_KILL || gdb->command.answer_bytes > 0) {
        say_answer(gdb);
    }
    gdb->client.has_no_ack = gdb->command.has_no_ack;
    if (next == GDB_NEXT_DETACH) {
        detach(gdb);
    } else if (next == GDB_NEXT_KILL) {
        kill_guest(gdb);
    }
}

/* While the guest is on its way it can be stopped, and nothing is answered. */
static void hear(struct gdb *gdb, enum gdb_heard heard)
{
    if (heard == GDB_HEARD_INTERRUPT && gdb->is_running) {
        stop_guest(gdb, GDB_STOP_INTERRUPT);
    } else if (heard == GDB_HEARD_PACKET && !gdb->is_running) {
        obey(gdb);
    } else if (heard == GDB_HEARD_JUNK) {
        lose_client(gdb, "what came is no packet of the protocol, and the connection was closed");
    } else if (heard == GDB_HEARD_TOO_LONG) {
        lose_client(gdb, "a packet was longer than was agreed, and the connection was closed");
    }
}

static void serve_client(struct gdb *gdb)
{
    enum gdb_heard heard;

    if (!gdb_client_receive(&gdb->client)) {
        lose_client(gdb, "the debugger is gone");
        return;
    }
    while (gdb->is_attached && !gdb->is_over && !gdb->client.is_gone &&
           (heard = gdb_client_next(&gdb->client)) != GDB_HEARD_NOTHING) {
        hear(gdb, heard);
    }
    if (gdb->is_attached && !gdb->is_over && gdb->client.is_gone) {
        lose_client(gdb, "the debugger is gone");
    }
}

static void welcome(struct gdb *gdb)
{
    int fd = listener_accept(&gdb->listener);

    if (fd < 0) {
        return;
    }
    if (!pause_guest(gdb)) {
        close(fd);
        return;
    }
    gdb->is_running = false;
    gdb->is_attached = true;
    gdb_client_init(&gdb->client, fd, gdb->quit_fd);
    gdb_command_init(&gdb->command, &gdb->target);
}

static void serve(void *self)
{
    struct gdb *gdb = self;
    struct pollfd fds[3] = {{.fd = gdb->quit_fd, .events = POLLIN}};

    while (fds[0].revents == 0) {
        fds[1] = (struct pollfd){.fd = gdb->is_over ? -1 : gdb->news_fd, .events = POLLIN};
        fds[2] = (struct pollfd){.fd = gdb->is_attached ? gdb->client.fd : gdb->listener.fd, .events = POLLIN};
        fds[2].fd = gdb->is_over ? -1 : fds[2].fd;
        if (poll(fds, 3, -1) < 0) {
            fds[0].revents = 0; /* a signal */
            continue;
        }
        if (fds[1].revents != 0) {
            take_news(gdb);
        }
        if (fds[2].revents != 0 && gdb->is_attached) {
            serve_client(gdb);
        } else if (fds[2].revents != 0) {
            welcome(gdb);
        }
    }
    if (gdb->is_attached) {
        gdb_command_tell_end(&gdb->command, atomic_load(&gdb->exit_status));
        say_answer(gdb);
    }
}

/* --- Lifecycle ---------------------------------------------------------------------------------------------------- */

static enum loam_error furnish(struct gdb *gdb, const char *where, struct loam_diag *diag)
{
    enum loam_error error = listener_open("--gdb", where, &gdb->listener, diag);

    if (error == LOAM_OK) {
        error = gdb_vcpu_try(&gdb->abilities, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    gdb->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    gdb->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return gdb->news_fd >= 0 && gdb->quit_fd >= 0 ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "--gdb: eventfd");
}

enum loam_error gdb_open(const char *where, uint32_t vcpu_count, struct outlet *teller, struct gdb **gdb,
                         struct loam_diag *diag)
{
    struct gdb *made = calloc(1, sizeof *made + vcpu_count * sizeof made->pending[0]);
    enum loam_error error;

    *gdb = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "--gdb: no memory");
    }
    made->teller = teller;
    made->listener.fd = made->client.fd = made->news_fd = made->quit_fd = -1;
    error = furnish(made, where, diag);
    if (error != LOAM_OK) {
        gdb_close(made);
        return error;
    }
    made->target = (struct gdb_target){
        .vcpu_count = vcpu_count,
        .read_registers = read_registers,
        .write_registers = write_registers,
        .read_memory = read_memory,
        .write_memory = write_memory,
        .insert = insert,
        .remove = remove_one,
        .describe = describe,
        .has_step = made->abilities.has_step,
        .self = made,
    };
    *gdb = made;
    return LOAM_OK;
}

void gdb_begin(struct gdb *gdb, struct machine *machine, struct loam_gpa_map *map)
{
    gdb->machine = machine;
    gdb->map = map;
    machine_set_debugger(machine, &(struct machine_debugger){debugger_stopped, gdb});
    machine_pause(machine);
    tell(gdb, "the guest waits for a debugger: gdb -ex 'target remote %s'", gdb->listener.name);
}

enum loam_error gdb_start(struct gdb *gdb, struct loam_diag *diag)
{
    enum loam_error error = kick_start(&gdb->thread, serve, gdb, "--gdb", diag);

    gdb->has_thread = error == LOAM_OK;
    return error;
}

void gdb_end(struct gdb *gdb, int exit_status)
{
    if (gdb->has_thread) {
        atomic_store(&gdb->exit_status, exit_status); /* the thread reads it when the descriptor below is readable */
        (void)eventfd_write(gdb->quit_fd, 1);
        kick_join(&gdb->thread);
        gdb->has_thread = false;
        gdb_client_end(&gdb->client);
    }
}

bool gdb_was_killed(const struct gdb *gdb)
{
    return gdb != NULL && atomic_load(&gdb->is_killed);
}

void gdb_close(struct gdb *gdb)
{
    if (gdb == NULL) {
        return;
    }
    gdb_end(gdb, 0);
    listener_close(&gdb->listener);
    if (gdb->news_fd >= 0) {
        close(gdb->news_fd);
    }
    if (gdb->quit_fd >= 0) {
        close(gdb->quit_fd);
    }
    free(gdb);
}
