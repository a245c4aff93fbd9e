// SPDX-License-Identifier: Apache-2.0
/*
 * The commands of GDB's remote serial protocol: one packet's text in, its answer out, and what the guest is to do. What a
 * guest is stands behind struct gdb_target: this knows nothing of KVM.
 *
 * Threads of the protocol are vCPUs: thread n is vCPU n - 1.
 *
 * Source: Debugging with GDB, appendix E ("Packets", "Stop Reply Packets", "General Query Packets"); QEMU's documentation of
 * its own packets (docs/system/gdb.rst: Qqemu.PhyMemMode). Threads: one at a time.
 */
#ifndef LOAM_VMM_GDB_COMMAND_H
#define LOAM_VMM_GDB_COMMAND_H

#include "vmm/gdb_packet.h"
#include "vmm/gdb_points.h"
#include "vmm/gdb_registers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_THREAD_MAX 1024u

/* What became of a breakpoint that was to be set. */
enum gdb_insert {
    GDB_INSERT_DONE,
    GDB_INSERT_NO_MEMORY, /* nothing lies there, or it may not be written */
    GDB_INSERT_NO_ROOM,
    GDB_INSERT_ABSENT, /* this host has no such thing */
};

/* A guest that stands still. vcpu is below vcpu_count. */
struct gdb_target {
    uint32_t vcpu_count; /* 1 to GDB_THREAD_MAX */
    bool (*read_registers)(void *self, uint32_t vcpu, struct gdb_registers *registers);
    bool (*write_registers)(void *self, uint32_t vcpu, const struct gdb_registers *before,
                            const struct gdb_registers *registers);
    /* Return how many of count bytes could be had, from the first on. */
    size_t (*read_memory)(void *self, uint32_t vcpu, bool is_physical, uint64_t address, uint8_t *bytes, size_t count);
    size_t (*write_memory)(void *self, uint32_t vcpu, bool is_physical, uint64_t address, const uint8_t *bytes,
                           size_t count);
    enum gdb_insert (*insert)(void *self, uint32_t vcpu, enum gdb_point_kind kind, uint64_t address, uint32_t bytes);
    void (*remove)(void *self, enum gdb_point_kind kind, uint64_t address, uint32_t bytes);
    /* In a few words what vcpu does. */
    void (*describe)(void *self, uint32_t vcpu, char *text, size_t bytes);
    bool has_step;
    void *self;
};

/* Why the guest stands still. */
enum gdb_stop_reason {
    GDB_STOP_ATTACHED,
    GDB_STOP_INTERRUPT,
    GDB_STOP_STEP,
    GDB_STOP_SOFTWARE,
    GDB_STOP_EXECUTE,
    GDB_STOP_WRITE, /* address is what was watched */
    GDB_STOP_ACCESS,
    GDB_STOP_FAULT, /* it is about to end: a triple fault */
    GDB_STOP_ABORT, /* it is about to end otherwise */
};

struct gdb_stop {
    enum gdb_stop_reason reason;
    uint32_t vcpu;
    uint64_t address;
};

/* What the client wants next. */
enum gdb_next {
    GDB_NEXT_ANSWER, /* the answer is to be sent, and no more */
    GDB_NEXT_RUN,    /* no answer now: actions says what each vCPU is to do, and the answer is the next stop */
    GDB_NEXT_DETACH, /* the answer, and then the guest goes on without a debugger */
    GDB_NEXT_KILL,   /* the answer, if there is one, and the run ends */
};

enum gdb_action { GDB_ACTION_HOLD, GDB_ACTION_GO, GDB_ACTION_STEP };

/* One client's state. */
struct gdb_command {
    const struct gdb_target *target;
    uint32_t vcpu;      /* that commands are about (Hg) */
    uint32_t step_vcpu; /* that s and c are about (Hc); UINT32_MAX: all */
    struct gdb_stop stop;
    bool is_physical;
    bool has_no_ack; /* from the answer to QStartNoAckMode on, no acknowledgement is sent or awaited */
    bool tells_software, tells_execute; /* the client knows of swbreak, hwbreak */
    uint8_t actions[GDB_THREAD_MAX];    /* enum gdb_action; after GDB_NEXT_RUN */
    char answer[GDB_PACKET_BYTES_MAX + 1];
    size_t answer_bytes;
};

/* A client has come, and the guest stands still. */
void gdb_command_init(struct gdb_command *command, const struct gdb_target *target);

/* Obey a packet of count bytes, with a zero behind them; any bytes. The answer is in answer. */
enum gdb_next gdb_command_obey(struct gdb_command *command, const char *text, size_t count);

/* The guest has stopped: what the client is told is in answer. */
void gdb_command_tell_stop(struct gdb_command *command, const struct gdb_stop *stop);

/* The guest is gone, and the run ends with this status. */
void gdb_command_tell_end(struct gdb_command *command, int exit_status);

#endif
