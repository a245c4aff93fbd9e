// SPDX-License-Identifier: Apache-2.0
/*
 * A domain: one guest as libvirt sees it, over as many lives as its resets give it, with its serial line and its devices.
 *
 *     domain_create -> domain_make -> domain_go -> { poll, with what domain_poll names; domain_turn; commands } until domain_is_over
 *                   -> domain_destroy
 *
 * What ends a life, and what becomes of the domain then:
 *
 *     exit port 0, ACPI S5              SHUTDOWN guest-shutdown, then as the action of a shutdown says
 *     i8042 or port 0xcf9               RESET guest-reset, a new life; or with -no-reboot SHUTDOWN guest-reset
 *     panic port                        GUEST_PANICKED, then as the action of a panic says
 *     exit port but 0, failed self-test, triple fault, HLT for good, too many resets in a row:    as a panic
 *     KVM cannot go on                  as a panic, with the state "internal-error"
 *
 * Whatever is not as it should be is told on standard error in one line.
 *
 * A reset makes a new life on a thread of its own, on fresh memory, and takes as long as making memory does; commands are
 * served meanwhile. vCPU threads stay the same over all lives.
 *
 * Threads: one, the creator's, from which events come too.
 */
#ifndef LOAM_VMM_EMULATOR_DOMAIN_H
#define LOAM_VMM_EMULATOR_DOMAIN_H

#include "loam/error.h"
#include "vmm/emulator/chardev.h"
#include "vmm/emulator/devices.h"
#include "vmm/emulator/line.h"
#include "vmm/launch.h"

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DOMAIN_POLL_MAX (2 + DEVICES_POLL_MAX + LINE_CHARDEV_MAX * CHARDEV_POLL_MAX)

/* Opaque. */
struct domain;

enum domain_state {
    DOMAIN_PRELAUNCH, /* it has not begun its life */
    DOMAIN_INMIGRATE, /* nor has it come yet */
    DOMAIN_RUNNING,
    DOMAIN_PAUSED,
    DOMAIN_POSTMIGRATE, /* it has gone to another process, and stands here as it went */
    /* These three have ended their life: a reset gives them another. */
    DOMAIN_SHUTDOWN,
    DOMAIN_PANICKED,
    DOMAIN_BROKEN,
    DOMAIN_STATE_COUNT
};

/* As QMP calls it: "prelaunch", "inmigrate", "running", "paused", "postmigrate", "shutdown", "guest-panicked", "internal-error". */
const char *domain_state_name(enum domain_state state);

struct domain_config {
    const struct line *line; /* outlives the domain */
    int end_fd;              /* readable when the process is told to end: memory is made no further then */
    struct device_news news; /* also of the domain's own events */
    /* Before any of the guest's instructions, but after it has come: what is not needed any more is given up. */
    enum loam_error (*confine)(void *self, struct loam_diag *diag);
    void *confine_self;
};

/*
 * Open all that the guest's lives need, so that a process which is confined from then on can make them. diag says which of
 * its wishes, and what falls short. LOAM_ERROR_CANCELLED: end_fd.
 */
LOAM_MUST_USE enum loam_error domain_create(const struct domain_config *config, struct domain **domain,
                                            struct loam_diag *diag);

/*
 * The first life, up to vCPU threads that stand before their first instruction, or up to the memory of a guest that comes by
 * domain_migrate_incoming. Once. Errors as above.
 */
LOAM_MUST_USE enum loam_error domain_make(struct domain *domain, struct loam_diag *diag);

/* Begin, unless the command line wants it to wait for domain_cont. */
void domain_go(struct domain *domain);

/* NULL is allowed. false: a disk's file or the like does not answer, and the caller has to end the process. */
bool domain_destroy(struct domain *domain);

/* As chardev_poll, of all that the domain waits for. */
size_t domain_poll(struct domain *domain, struct pollfd fds[DOMAIN_POLL_MAX], int *timeout_milliseconds);

/* Do what there is to do, without waiting. */
void domain_turn(struct domain *domain);

/* Whether the process is to end, and how. */
bool domain_is_over(const struct domain *domain, int *exit_status);

/* --- Commands ---------------------------------------------------------------------------------------------------- */

/* LOAM_ERROR_NOT_PERMITTED: the life has ended. */
LOAM_MUST_USE enum loam_error domain_cont(struct domain *domain, struct loam_diag *diag);

void domain_stop(struct domain *domain);

/* Another life; a domain that does not run does not run then either. RESET tells when it is there. */
void domain_reset(struct domain *domain);

void domain_press_power(struct domain *domain);

/* The process is to end, for a reason that SHUTDOWN gives: "host-signal", "host-qmp-quit". */
void domain_end(struct domain *domain, const char *reason);

/*
 * What becomes of a domain whose guest resets ("reset", "shutdown"), shuts down ("poweroff", "pause") or panics ("pause",
 * "shutdown", "exit-failure"); NULL: as before. LOAM_ERROR_INVALID: diag names what is possible, and nothing has changed.
 */
LOAM_MUST_USE enum loam_error domain_set_action(struct domain *domain, const char *reboot, const char *shutdown,
                                                const char *panic, struct loam_diag *diag);

/* --- Migration --------------------------------------------------------------------------------------------------- */

/*
 * Send the guest to fd, which becomes the domain's: its memory, in rounds while it runs, and then the rest, for which it stands, and
 * which waits for domain_migrate_continue if it is to. LOAM_ERROR_NOT_PERMITTED: there is none
 * that could be sent; LOAM_ERROR_BUSY: one is sent already.
 */
LOAM_MUST_USE enum loam_error domain_migrate(struct domain *domain, int fd, struct loam_diag *diag);
LOAM_MUST_USE enum loam_error domain_migrate_continue(struct domain *domain, struct loam_diag *diag);

/* The guest goes on here, if it ran. No effect if none is sent. */
void domain_migrate_cancel(struct domain *domain);

/* Of a domain that was begun with -incoming defer: as move_receive. */
LOAM_MUST_USE enum loam_error domain_migrate_incoming(struct domain *domain, const char *uri, struct loam_diag *diag);

/* How, as QEMU's capabilities of these names have it; from the next one on. */
struct domain_migration {
    bool has_events;                /* MIGRATION tells how far it is */
    bool pauses_before_switchover;  /* see above */
    bool has_return_path;           /* who sends keeps the guest until who receives has it, and says so */
    uint32_t downtime_milliseconds; /* for which a guest that ran may stand; 0: 300 */
};
void domain_set_migration(struct domain *domain, const struct domain_migration *how);

/* As QEMU's query-migrate. */
json_t *domain_migration(const struct domain *domain);

/* --- Queries ----------------------------------------------------------------------------------------------------- */

enum domain_state domain_state(const struct domain *domain);
const struct line *domain_line(const struct domain *domain);

/* The guest's memory and machine; NULL while a new life is made. */
struct launch *domain_launch(struct domain *domain);

struct devices *domain_devices(struct domain *domain);

pid_t domain_vcpu_thread(const struct domain *domain, uint32_t vcpu);

/* chardev_filename of the command line's chardev of that index; NULL: it is a monitor. */
const char *domain_chardev_filename(const struct domain *domain, uint32_t index);

#endif
