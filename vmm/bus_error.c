// SPDX-License-Identifier: Apache-2.0
/*
 * The handler runs between any two instructions: it calls only what is async-signal-safe, and a lookup in the GPA map,
 * which takes no lock.
 */
#include "vmm/bus_error.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_MILLISECONDS 1000

static struct loam_gpa_map *_Atomic watched;
static struct bus_error_end ending; /* complete before watched is set */
static struct sigaction before;
static char explained[512]; /* why; complete before is_explained is true */
static atomic_bool is_explaining, is_explained;

/* --- Text without stdio ------------------------------------------------------------------------------------------- */

/* All of text from used on is 0. */
struct line {
    char text[512];
    size_t used;
};

static void put(struct line *line, const char *text)
{
    while (*text != '\0' && line->used + 1 < sizeof line->text) {
        line->text[line->used++] = *text++;
    }
}

static void put_number(struct line *line, uint64_t value, unsigned int base)
{
    char digits[24];
    size_t at = sizeof digits - 1;

    digits[at] = '\0';
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    put(line, base == 16 ? "0x" : "");
    put(line, digits + at);
}

/* Of whoever does not read what was written before, only so much is expected. A line is less than PIPE_BUF. */
static void write_line(int fd, const struct line *line)
{
    struct pollfd reader = {.fd = fd, .events = POLLOUT};
    int ready;

    do {
        ready = poll(&reader, 1, PATIENCE_MILLISECONDS);
    } while (ready < 0 && errno == EINTR);
    if (ready > 0) {
        (void)!write(fd, line->text, line->used);
    }
}

/* --- The signal ---------------------------------------------------------------------------------------------------- */

static bool find(const struct loam_gpa_view *view, const void *hva, loam_gpa *gpa, struct loam_region *region)
{
    return loam_gpa_view_gpa_from_hva(view, hva, 1, gpa) == LOAM_OK &&
           loam_gpa_view_find(view, *gpa, region) == LOAM_OK;
}

static void put_reason(struct line *line, loam_gpa gpa, const struct loam_region *region, int code)
{
    if (atomic_load(&is_explained)) {
        put(line, explained);
        return;
    }
    put(line, "the host does not supply guest RAM at GPA ");
    put_number(line, gpa.value, 16);
    put(line, " (touched by Loam itself; region [");
    put_number(line, region->start.value, 16);
    put(line, ", ");
    put_number(line, region->start.value + region->bytes, 16);
    put(line, code == BUS_MCEERR_AR || code == BUS_MCEERR_AO
                  ? ")): it reports a memory error there (see dmesg): its hardware fails"
                  : ")): a limit on hugepages or memory was lowered (hugetlb.*.max or memory.max of the control "
                    "group), or the pool is drained: raise it, or take all memory at the start with --populate");
}

static void say(loam_gpa gpa, const struct loam_region *region, int code)
{
    struct line reason = {.used = 0}, line = {.used = 0};

    put_reason(&reason, gpa, region, code);
    put(&line, "loam: ");
    put(&line, reason.text);
    put(&line, "\n");
    write_line(STDERR_FILENO, &line);
    if (ending.json) {
        line = (struct line){.used = 0};
        put(&line, "{\"error\": \"");
        put(&line, reason.text);
        put(&line, "\", \"exit\": ");
        put_number(&line, (uint64_t)ending.exit_status, 10);
        put(&line, "}\n");
        write_line(STDOUT_FILENO, &line);
    }
}

/* Of several threads that meet it, the first speaks; the others wait for the end. */
static void end_process(loam_gpa gpa, const struct loam_region *region, int code)
{
    static atomic_flag is_ending = ATOMIC_FLAG_INIT;

    while (atomic_flag_test_and_set(&is_ending)) {
        pause();
    }
    if (ending.clean_up != NULL) {
        ending.clean_up();
    }
    say(gpa, region, code);
    _exit(ending.exit_status);
}

static void handle(int number, siginfo_t *info, void *context)
{
    struct loam_gpa_map *map = atomic_load(&watched);
    const int saved = errno;
    struct loam_region region;
    loam_gpa gpa;

    (void)context;
    if (map != NULL && info->si_code > 0) {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
        bool is_ours = find(view, info->si_addr, &gpa, &region);

        loam_gpa_map_release(map, view);
        if (is_ours) {
            end_process(gpa, &region, info->si_code);
        }
    }
    if (ending.clean_up != NULL) {
        ending.clean_up();
    }
    /* Somebody else's: once the handler returns, the access comes again; what kill(2) sent does not, and is sent anew. */
    sigaction(number, &before, NULL);
    if (info->si_code <= 0) {
        raise(number);
    }
    errno = saved;
}

void bus_error_watch(struct loam_gpa_map *map, const struct bus_error_end *end)
{
    const struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};

    ending = *end;
    if (atomic_load(&watched) == NULL) {
        sigaction(SIGBUS, &action, &before);
    }
    atomic_store(&watched, map);
}

void bus_error_explain(const char *reason)
{
    if (!atomic_exchange(&is_explaining, true)) {
        strncpy(explained, reason, sizeof explained - 1);
        atomic_store(&is_explained, true);
    }
}

void bus_error_forget(void)
{
    if (atomic_exchange(&watched, NULL) != NULL) {
        sigaction(SIGBUS, &before, NULL);
    }
}
