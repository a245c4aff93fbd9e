// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that goes to another process, or comes from one, by a thread that sends or receives it (transfer.h), one step at a time.
 *
 *     move_send -> [move_fd readable] -> move_turn: MEMORY_SENT -> the guest stands -> move_send_rest -> move_turn: REST_SENT
 *               -> move_finish -> move_turn: SENT
 *     move_receive -> [move_fd readable] -> move_turn: RECEIVED -> move_take
 *     or move_turn: FAILED, after any of them; move_cancel makes it so
 *
 * A guest that runs is sent in rounds: all of its memory, then what it has written meanwhile, until what is left would take no longer
 * than it may stand. One that writes faster than the stream takes it is given up, with a word, after MOVE_ROUND_MAX.
 *
 * Threads: one, the domain's owner's; move_json from it too.
 */
#ifndef LOAM_VMM_EMULATOR_MOVE_H
#define LOAM_VMM_EMULATOR_MOVE_H

#include "loam/dirty.h"
#include "loam/error.h"
#include "vmm/kick.h"
#include "vmm/transfer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* As QEMU's query-migrate has them. */
enum move_status {
    MOVE_NONE,
    MOVE_ACTIVE,
    MOVE_PRE_SWITCHOVER,
    MOVE_DEVICE,
    MOVE_COMPLETED,
    MOVE_FAILED,
    MOVE_CANCELLED,
    MOVE_STATUS_COUNT
};

/* "none", "active", "pre-switchover", ... */
const char *move_status_name(enum move_status status);

#define MOVE_ROUND_MAX 30u

enum move_news {
    MOVE_NEWS_NONE,
    MOVE_NEWS_MEMORY_SENT,
    MOVE_NEWS_REST_SENT,
    MOVE_NEWS_SENT,
    MOVE_NEWS_RECEIVED,
    MOVE_NEWS_FAILED
};

struct move {
    enum move_status status; /* the owner sets it */
    int done_fd;             /* an eventfd: the thread's step is done */
    int fd;                  /* of the stream, or of the socket to which it will come; -1 */
    bool is_listening;       /* fd is such a socket */
    char path[108];          /* of that, which goes once somebody has come; "": none */
    bool awaits_word;
    bool is_live;                   /* it runs while its memory is sent */
    uint32_t downtime_milliseconds; /* for which it may stand at the end, then */
    atomic_uint round_count;
    struct loam_dirty *pending; /* pages that have to be sent again, in pending_memory */
    void *pending_memory;       /* heap */
    bool has_thread;
    enum move_news step; /* what the thread tells of once it is done */
    struct kick_thread thread;
    atomic_bool must_end;
    struct transfer_progress progress;
    struct snapshot_source source; /* of who sends */
    struct loam_memory *memory;    /* of who receives */
    struct transfer_state received;
    enum loam_error error; /* the thread's, until it is joined */
    struct loam_diag diag;
    int64_t begun_milliseconds, stood_milliseconds, ended_milliseconds; /* 0: not yet */
};

/* LOAM_ERROR_SYSTEM, and there is nothing to end. */
LOAM_MUST_USE enum loam_error move_init(struct move *move, struct loam_diag *diag);

/* What is under way is called off, and waited for: there is no news of it. */
void move_abort(struct move *move);

/* The same, for good. */
void move_end(struct move *move);

/* Nothing is under way. */
bool move_is_idle(const struct move *move);

/*
 * Send plan and memory to fd, which becomes the move's. source outlives it. is_live: it runs meanwhile, and is to stand no longer
 * than downtime_milliseconds afterwards.
 */
LOAM_MUST_USE enum loam_error move_send(struct move *move, int fd, const struct snapshot_source *source, bool is_live,
                                        uint32_t downtime_milliseconds, struct loam_diag *diag);

/* What was written since. After MEMORY_SENT; the machine stands, and its devices are at rest. */
LOAM_MUST_USE enum loam_error move_send_rest(struct move *move, struct loam_diag *diag);

/* Send the rest, and wait until the other end has it, if awaits_word. After REST_SENT. */
LOAM_MUST_USE enum loam_error move_finish(struct move *move, bool awaits_word, struct loam_diag *diag);

/*
 * Receive into memory from where uri says: fd:N, which was inherited, unix:PATH or tcp:HOST:PORT (numbers, HOST in brackets if it
 * is one of IPv6), where somebody can connect when this returns. LOAM_ERROR_INVALID: it is none of these.
 */
LOAM_MUST_USE enum loam_error move_receive(struct move *move, const char *uri, struct loam_memory *memory,
                                           struct loam_diag *diag);

/* After RECEIVED: the other end hears that the guest is here. */
LOAM_MUST_USE enum loam_error move_give_word(struct move *move, struct loam_diag *diag);

/* The machine that came: the move's until move_end. */
struct state_reader *move_received(struct move *move);

/* FAILED will follow, if the thread is at something; else it is called off by then. */
void move_cancel(struct move *move);

int move_fd(const struct move *move);

/* What the thread has come to, and why in diag. The stream is closed after FAILED and SENT. */
enum move_news move_turn(struct move *move, struct loam_diag *diag);

/* As QEMU's query-migrate answers. error: why it failed; NULL: it has not. */
json_t *move_json(const struct move *move, const char *error);

#endif
