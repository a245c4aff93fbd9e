// SPDX-License-Identifier: Apache-2.0
/*
 * QEMU's command line, as libvirt writes it for a machine "microvm", read into what Loam is asked for.
 *
 * Every option, key and value is known and honoured, known and without meaning here (such as -nodefaults), or refused by
 * name in one line: "-device virtio-gpu-device: no such device here: ...". README.md lists them, and line_table.c is the
 * list. Nothing is opened, mapped or changed. The words may be anybody's: lengths and counts are bounded. No descriptor is
 * named twice, none is 0 to 2, and no /dev/fdset/N serves two.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_EMULATOR_LINE_H
#define LOAM_VMM_EMULATOR_LINE_H

#include "loam/error.h"
#include "loam/plan.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define LINE_CHARDEV_MAX 8u
#define LINE_DISK_MAX    4u
#define LINE_NET_MAX     2u
#define LINE_FDSET_MAX   8u

enum line_chardev_kind {
    LINE_CHARDEV_PTY,
    LINE_CHARDEV_FILE,   /* path, or fd of an fdset; append */
    LINE_CHARDEV_SOCKET, /* UNIX: a listening socket at fd or to be made at path */
    LINE_CHARDEV_STDIO,
    LINE_CHARDEV_NULL,
};

struct line_chardev {
    char *id;
    enum line_chardev_kind kind;
    char *path;     /* NULL: fd */
    int fd;         /* inherited; -1: path */
    bool append;    /* FILE: else it is emptied first */
    char *log_path; /* logfile=, which all output goes to as well; NULL: none */
    int log_fd;     /* of an fdset; -1 */
    bool log_append;
};

struct line_disk {
    char *id;      /* of the device */
    char *node;    /* what the device names as drive= */
    char *storage; /* and the node of the file below it: the same if there is one only */
    char *path;    /* of the raw file or block device; NULL: fd */
    int fd;        /* of an fdset; -1 */
    char *serial;  /* NULL: none */
    bool read_only;
    bool direct;        /* cache.direct: O_DIRECT */
    bool no_flush;      /* cache.no-flush */
    bool discard;       /* discard=unmap */
    bool write_through; /* write-cache=off: what is written is on the disk before the guest is told so */
};

enum line_net_kind { LINE_NET_USER, LINE_NET_TAP };

struct line_net {
    char *id;
    enum line_net_kind kind;
    int fd; /* TAP: inherited */
    uint8_t mac[6];
};

struct line_fdset {
    uint32_t set;
    int fd;
    char *opaque; /* NULL: none */
};

struct line {
    /* --- The probe: -machine none ------------------------------------------------------------------------------- */
    bool is_probe;
    bool wants_version; /* -version */
    bool wants_help;    /* -help */
    bool daemonize;
    char *pid_path; /* -pidfile; NULL: none */
    char *qmp_path; /* -qmp unix:PATH,server=on,wait=off; NULL: none */

    /* --- A domain ----------------------------------------------------------------------------------------------- */
    char *name;         /* -name guest=; "" if not given */
    char *uuid;         /* "" if not given */
    bool starts_paused; /* -S */
    bool no_shutdown, no_reboot;
    bool no_sandbox;  /* -sandbox off: the process keeps its rights while the guest runs */
    bool is_incoming; /* -incoming defer */
    /*
     * One backend is the request itself, several are its parts, by nodeid; limits are the caller's. Where no huge pages are
     * asked for, nor pages= below, memory is of 4 KiB pages: what is set aside in the host's pools is for those that ask
     * for it. See line_memory_thp. What is not prealloc=on, locked or of huge pages is LAZY: libvirt's mode='ondemand'.
     */
    struct loam_memory_request memory;
    /*
     * memory-backend-file's folder or file; NULL: none. The caller opens it. Pages are AUTO: those of the file. Sharing is
     * ANY where nobody else shall see what is in it, as in a file without a name.
     */
    char *memory_path;
    char *memory_paths[LOAM_MEMORY_PART_MAX]; /* of each part instead, if there are parts */
    bool no_merge;                            /* mem-merge=off */
    bool no_acpi;                             /* -no-acpi, or acpi=off: the guest finds an MP table alone */
    uint32_t vcpu_count;
    char *kernel, *initrd, *append; /* NULL: none */
    struct line_fdset fdsets[LINE_FDSET_MAX];
    uint32_t fdset_count;
    struct line_chardev chardevs[LINE_CHARDEV_MAX];
    uint32_t chardev_count;
    int monitors[2]; /* chardevs that speak QMP */
    uint32_t monitor_count;
    int serial;      /* the chardev of COM1; -1: none */
    char *serial_id; /* of the device; NULL */
    struct line_disk disks[LINE_DISK_MAX];
    uint32_t disk_count;
    struct line_net nets[LINE_NET_MAX];
    uint32_t net_count;
    char *balloon_id; /* NULL: none */
    bool balloon_deflates_on_oom, balloon_reports_free;
    char *rng_id;   /* NULL: none */
    char *rng_path; /* /dev/urandom or /dev/random */
    bool has_panic; /* pvpanic */
    /* --- Loam's own, by <qemu:arg>: -x-loam KEY=VALUE ------------------------------------------------------------ */
    bool no_tune;  /* tune=off: a Linux kernel's command line stays as it is, whatever this KVM lacks */
    char *x_pages; /* pages=: as loam run --pages, and in memory already; NULL */
};

/*
 * Read argv[1..]. On success *line is the caller's, to be released by line_release. LOAM_ERROR_INVALID: diag says in one
 * line which option, what of it, and what is possible; LOAM_ERROR_SYSTEM: no memory. Nothing is left to be released then.
 */
LOAM_MUST_USE enum loam_error line_read(int argc, char *const argv[], struct line *line, struct loam_diag *diag);

void line_release(struct line *line);

/*
 * *thp is line->memory with THP in place of 4 KiB pages where nobody said which: to be planned first, since not every host
 * gives them. false: nothing would be different, and *thp is zero.
 */
bool line_memory_thp(const struct line *line, struct loam_memory_request *thp);

/* What -help prints: a line for each option. false: it could not be written. */
bool line_print_help(FILE *file);

#endif
