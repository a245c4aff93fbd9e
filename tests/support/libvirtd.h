// SPDX-License-Identifier: Apache-2.0
/*
 * A libvirtd of a test's own: unmodified, with folders of its own for all that it reads and writes, and gone without a
 * trace when the test is, whichever way that ends.
 *
 *     libvirtd_lack -> libvirtd_start -> [libvirtd_lend, libvirtd_restart, libvirtd_kill ...] -> libvirtd_end
 *
 * Beside the daemon there is a keeper, a process that the test forks. It adopts whatever the daemon leaves behind,
 * emulators included, and when the test ends or dies (it hangs up) it ends them all, and removes the folder. A test that
 * leaves by a failed check waits for that at its process's end. Mounts are made in a namespace of the daemon's, which ends
 * with it.
 *
 * A system daemon needs root, and runs its emulators as libvirt-qemu. A session daemon is the caller's; called by root it
 * is nobody's, with the group kvm. Called by root, both see a /dev/kvm of their own that the group kvm may use, no control
 * groups and no systemd.
 *
 * Threads: one libvirtd is used by one thread.
 */
#ifndef LOAM_TEST_LIBVIRTD_H
#define LOAM_TEST_LIBVIRTD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum libvirtd_kind { LIBVIRTD_SYSTEM, LIBVIRTD_SESSION };

#define LIBVIRTD_PATH_MAX 192

struct libvirtd {
    enum libvirtd_kind kind;
    pid_t keeper;
    int control;                 /* the test's end of the line to the keeper; -1: it does not run */
    char folder[48];             /* absolute, and short: libvirt's sockets below it end at 107 bytes */
    char uri[LIBVIRTD_PATH_MAX]; /* by its UNIX socket */
    char tcp_uri[64];            /* on 127.0.0.1, if asked for; else "" */
};

/* Why there can be none here, as text for cr_skip_test; NULL: there can. */
const char *libvirtd_lack(enum libvirtd_kind kind);

/* Start one, which answers when this returns. false: it did not come up; its log is on standard error; nothing is left. */
bool libvirtd_start(struct libvirtd *daemon, enum libvirtd_kind kind, bool listens_on_tcp);

/* End the daemon alone, and start it again: its domains live on. false: it did not come up. */
bool libvirtd_restart(struct libvirtd *daemon);

/* Kill the daemon alone, as a host that goes away; libvirtd_restart brings it back. */
bool libvirtd_kill(struct libvirtd *daemon);

/*
 * Copy a file into the daemon's folder as NAME, executable if it is, so that emulators can reach it whoever they run as.
 * Its path goes to path. false: errno.
 */
bool libvirtd_lend(struct libvirtd *daemon, const char *source, const char *name, char path[LIBVIRTD_PATH_MAX]);

/* End it and all that it started, and remove its folder. Whether nothing is left. */
bool libvirtd_end(struct libvirtd *daemon);

/* The number that a running domain's emulator has as a process, or -1. */
pid_t libvirtd_emulator(const struct libvirtd *daemon, const char *domain);

#endif
