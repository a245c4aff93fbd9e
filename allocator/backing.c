// SPDX-License-Identifier: Apache-2.0
/*
 * Address space of a backing, from start to end:
 *
 *     start            hva                      hva + bytes      end
 *     | guard          | memory                 | guard          |
 *
 *     hva == start + GUARD_BYTES, end == hva + bytes + GUARD_BYTES, hva == gpa modulo congruence(pages, bytes)
 *
 * It is made by reserving more than that, giving back what lies outside and what the memory will take, and mapping the
 * memory into the gap, never over anything. While the gap is open (hollow) only the guards are ours, so a failure at
 * any point is cleaned up by giving back exactly what is ours, also while other threads map.
 */
#include "loam/backing.h"

#include "allocator/backing_adopt.h"
#include "allocator/backing_cause.h"
#include "allocator/backing_placement.h"
#include "allocator/backing_populate.h"
#include "allocator/host/host.h"
#include "allocator/host/host_size.h"
#include "allocator/host/host_text.h"
#include "allocator/host/prim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD_BYTES       (64 * LOAM_KIB)
#define PLACE_ATTEMPT_MAX 16
#define UNMAP_ATTEMPT_MAX 3
#define LOCK_PIECE_BYTES  (32 * LOAM_MIB) /* milliseconds, once populated */

struct loam_backing {
    struct loam_backing_info info;
    char *start; /* NULL: no address space yet */
    char *end;
    bool hollow;
    uint32_t process;          /* that has the memory alone; 0: children have it too */
    _Atomic bool populated;    /* as info says */
    uint32_t thread_count;     /* as requested */
    struct loam_cancel cancel; /* while it is being made; nobody looks at it later */
};

static const struct page_kind {
    const char *name;
    uint64_t bytes;
    uint32_t huge_shift; /* 0: not hugetlb */
    const char *unit;    /* for messages */
} page_kinds[LOAM_PAGES_COUNT] = {
    [LOAM_PAGES_AUTO] = {"auto", 0, 0, ""},
    [LOAM_PAGES_1G] = {"1G", LOAM_GIB, 30, "1 GiB"},
    [LOAM_PAGES_2M] = {"2M", 2 * LOAM_MIB, 21, "2 MiB"},
    [LOAM_PAGES_THP] = {"thp", 2 * LOAM_MIB, 0, "2 MiB"},
    [LOAM_PAGES_4K] = {"4K", 4 * LOAM_KIB, 0, "4 KiB"},
};

const char *loam_pages_name(enum loam_pages pages)
{
    return (unsigned)pages < LOAM_PAGES_COUNT ? page_kinds[pages].name : "unknown";
}

uint64_t loam_pages_bytes(enum loam_pages pages)
{
    return (unsigned)pages < LOAM_PAGES_COUNT ? page_kinds[pages].bytes : 0;
}

const char *loam_placement_name(enum loam_placement placement)
{
    static const char *const names[LOAM_PLACEMENT_COUNT] = {[LOAM_PLACEMENT_ANY] = "any",
                                                            [LOAM_PLACEMENT_STRICT] = "strict",
                                                            [LOAM_PLACEMENT_PREFERRED] = "preferred",
                                                            [LOAM_PLACEMENT_INTERLEAVE] = "interleave"};

    return (unsigned)placement < LOAM_PLACEMENT_COUNT ? names[placement] : "unknown";
}

static bool is_hugetlb(enum loam_pages pages)
{
    return page_kinds[pages].huge_shift != 0;
}

/* What bytes and gpa must be multiples of. */
static uint64_t granule(enum loam_pages pages)
{
    return is_hugetlb(pages) ? page_kinds[pages].bytes : LOAM_FRAME_BYTES;
}

/* What HVA and GPA are equal modulo: where a huge page can lie, KVM can map it huge only if they are. */
static uint64_t congruence(enum loam_pages pages, uint64_t bytes)
{
    if (is_hugetlb(pages)) {
        return page_kinds[pages].bytes;
    }
    return bytes >= 2 * LOAM_MIB ? 2 * LOAM_MIB : LOAM_FRAME_BYTES;
}

/* --- Messages ----------------------------------------------------------------------------------------------------- */

/* Errors by which the kernel says that it has too little: MADV_POPULATE_WRITE says EFAULT where a touch would be a SIGBUS. */
static bool is_shortage(int error_number)
{
    return error_number == ENOMEM || error_number == ENOSPC || error_number == EFAULT || error_number == EFBIG;
}

/* loam_fail has written an errno; a shortage is not a failure of the system. */
static enum loam_error classify(enum loam_error error, bool shortage, struct loam_diag *diag)
{
    enum loam_error classified = shortage ? LOAM_ERROR_EXHAUSTED : error;

    if (diag != NULL) {
        diag->error = classified;
    }
    return classified;
}

static struct backing_cause_wanted wanted_of(const struct loam_backing *backing, enum backing_cause_call call)
{
    return (struct backing_cause_wanted){
        .call = call,
        .bytes = backing->info.bytes,
        .page_bytes = is_hugetlb(backing->info.pages) ? backing->info.page_bytes : 0,
        .shared = backing->info.sharing == LOAM_SHARING_SHARED,
        .error_number = errno,
    };
}

/* A call on the whole backing failed, with errno, for this reason; "": nobody knows. */
static enum loam_error call_failed_for(const struct loam_backing *backing, const char *call, const char *cause,
                                       struct loam_diag *diag)
{
    bool shortage = is_shortage(errno);

    return classify(loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: %s of %s pages, %s%s%s", call,
                              loam_host_size_exact(backing->info.bytes).text, page_kinds[backing->info.pages].unit,
                              backing->info.sharing == LOAM_SHARING_SHARED ? "shared" : "private",
                              cause[0] != '\0' ? ": " : "", cause),
                    shortage, diag);
}

static enum loam_error call_failed(const struct loam_backing *backing, const char *call, struct loam_diag *diag)
{
    return call_failed_for(backing, call, "", diag);
}

/* Making the file or mapping it failed, with errno. */
static enum loam_error mapping_failed(const struct loam_backing *backing, enum backing_cause_call call,
                                      struct loam_diag *diag)
{
    struct backing_cause_wanted wanted = wanted_of(backing, call);
    bool pool_may_be_short = wanted.page_bytes != 0 && (is_shortage(errno) || errno == ENODEV || errno == EINVAL);
    int saved = errno;
    char cause[BACKING_CAUSE_MAX];

    if (pool_may_be_short && loam_backing_cause_pool(wanted.bytes, wanted.page_bytes, 0, cause)) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "%s", cause);
    }
    if (!loam_backing_cause_find(&wanted, cause) && backing->info.adoption == LOAM_ADOPTION_FD &&
        (saved == EACCES || saved == EPERM)) {
        snprintf(cause, sizeof cause, "a file that is adopted has to be open for reading and writing, and not sealed");
    }
    errno = saved;
    return call_failed_for(backing,
                           call == BACKING_CAUSE_MAP                    ? "mmap"
                           : backing->info.adoption == LOAM_ADOPTION_FD ? "dup"
                                                                        : "memfd_create",
                           cause, diag);
}

/* --- Address space ------------------------------------------------------------------------------------------------ */

/*
 * munmap fails only when it would split a mapping and the process has too many (max_map_count); others may give theirs back
 * meanwhile. errno stays.
 */
static void give_back(char *start, char *end)
{
    int saved = errno;

    if (start < end) {
        for (int i = 0; i < UNMAP_ATTEMPT_MAX && !loam_prim_unmap(start, (size_t)(end - start)); i++) {
        }
    }
    errno = saved;
}

static void give_back_all(struct loam_backing *backing)
{
    char *hva = backing->info.hva;
    /* In a child that was given the guards alone, whatever lies between them by now is somebody else's. */
    bool absent = backing->process != 0 && backing->process != loam_prim_process_id();

    if (backing->hollow || absent) {
        give_back(backing->start, hva);
        give_back(hva + backing->info.bytes, backing->end);
    } else if (backing->start != NULL) {
        give_back(backing->start, backing->end);
    }
    backing->start = NULL;
    backing->end = NULL;
    backing->hollow = false;
    backing->info.hva = NULL;
}

/* Give back [start, new_start) and [new_end, end). */
static bool trim(struct loam_backing *backing, char *new_start, char *new_end)
{
    if (backing->start < new_start && !loam_prim_unmap(backing->start, (size_t)(new_start - backing->start))) {
        return false;
    }
    backing->start = new_start;
    if (new_end < backing->end && !loam_prim_unmap(new_end, (size_t)(backing->end - new_end))) {
        return false;
    }
    backing->end = new_end;
    return true;
}

/* Two guards, and between them a gap for the memory at a congruent address. bytes is below 2^52, so no sum wraps. */
static bool open_gap(struct loam_backing *backing)
{
    uint64_t bytes = backing->info.bytes;
    uint64_t align = congruence(backing->info.pages, bytes);
    uint64_t span_bytes = bytes + 2 * GUARD_BYTES + align;
    void *reserved;
    char *hva;

    if (!loam_prim_reserve(span_bytes, &reserved)) {
        return false;
    }
    backing->start = reserved;
    backing->end = backing->start + span_bytes;
    hva = backing->start + GUARD_BYTES;
    hva += (backing->info.gpa.value - (uintptr_t)hva) & (align - 1);
    if (!trim(backing, hva - GUARD_BYTES, hva + bytes + GUARD_BYTES) || !loam_prim_unmap(hva, bytes)) {
        return false;
    }
    backing->info.hva = hva;
    backing->hollow = true;
    return true;
}

static bool fill_gap(struct loam_backing *backing)
{
    struct loam_backing_info *info = &backing->info;
    uint32_t huge_shift = page_kinds[info->pages].huge_shift;
    bool no_reserve = huge_shift == 0 && info->commit == LOAM_COMMIT_LAZY;

    if (info->sharing == LOAM_SHARING_SHARED) {
        backing->hollow = !loam_prim_map_fd(info->hva, info->bytes, info->fd, (off_t)info->fd_offset);
    } else {
        backing->hollow = !loam_prim_map_anonymous(info->hva, info->bytes, huge_shift, no_reserve);
    }
    return !backing->hollow;
}

/* EEXIST: another thread has mapped into the gap, which was anybody's: look for another place. */
static bool map_memory(struct loam_backing *backing)
{
    for (int i = 0; i < PLACE_ATTEMPT_MAX; i++) {
        bool placed = open_gap(backing);

        if (placed && fill_gap(backing)) {
            return true;
        }
        give_back_all(backing);
        if (!placed || errno != EEXIST) {
            return false;
        }
    }
    return false;
}

/* --- Populating --------------------------------------------------------------------------------------------------- */

/* One line for all parts that failed, which names the lowest. A known reason stands in place of the errno's text. */
static enum loam_error populate_failed(const struct loam_backing *backing, uint64_t offset, uint64_t bytes,
                                       const struct backing_populate_result *result, struct loam_diag *diag)
{
    uint64_t at = offset + result->first_failed_offset;
    char cause[BACKING_CAUSE_MAX];
    struct backing_cause_wanted wanted;
    bool known;

    errno = result->error_number;
    wanted = wanted_of(backing, BACKING_CAUSE_POPULATE);
    known = is_shortage(errno) && loam_backing_cause_find(&wanted, cause);
    return classify(loam_fail(diag, known ? LOAM_ERROR_EXHAUSTED : LOAM_ERROR_SYSTEM,
                              "populate: %s of %s pages: %" PRIu64 " of %" PRIu64
                              " parts failed, the first at HVA %p, GPA %#" PRIx64 "%s%s",
                              loam_host_size_exact(bytes).text, page_kinds[backing->info.pages].unit,
                              result->failed_count, result->part_count, (void *)((char *)backing->info.hva + at),
                              backing->info.gpa.value + at, known ? ": " : "", known ? cause : ""),
                    is_shortage(result->error_number), diag);
}

static enum loam_error cancelled(struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_CANCELLED, "cancelled by the caller; everything is given back");
}

static bool is_cancelled(const struct loam_backing *backing)
{
    return backing->cancel.asked != NULL && backing->cancel.asked(backing->cancel.self);
}

static enum loam_error populate(struct loam_backing *backing, uint64_t offset, uint64_t bytes, struct loam_diag *diag)
{
    struct backing_populate_result result = loam_backing_populate_range(&(struct backing_populate_range){
        .start = (char *)backing->info.hva + offset,
        .bytes = bytes,
        .page_bytes = backing->info.page_bytes,
        .thread_count = backing->thread_count,
        .cancel = backing->cancel,
    });

    if (result.cancelled) {
        return cancelled(diag);
    }
    return result.failed_count == 0 ? LOAM_OK : populate_failed(backing, offset, bytes, &result, diag);
}

/* --- The steps of create ------------------------------------------------------------------------------------------ */

/* A switch that cannot be read allows nothing. */
static bool thp_allowed(bool shared)
{
    bool given;

    return loam_host_thp(shared, &given, NULL) == LOAM_OK && given;
}

static enum loam_error thp_refused(const struct loam_backing *backing, enum loam_sharing wanted, struct loam_diag *diag)
{
    bool shared = wanted == LOAM_SHARING_SHARED;

    return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                     "transparent huge pages: %s wanted, %s, switched off on this host: allow them with: echo %s > %s",
                     loam_host_size_exact(backing->info.bytes).text, shared ? "shared" : "private",
                     shared ? "advise" : "madvise", shared ? LOAM_HOST_THP_SHARED : LOAM_HOST_THP_PRIVATE);
}

/*
 * The kernel joins pages of a file only where address and file offset are congruent modulo 2 MiB: an unaligned GPA is
 * better served by anonymous memory.
 */
static enum loam_error choose_thp_sharing(struct loam_backing *backing, enum loam_sharing wanted,
                                          struct loam_diag *diag)
{
    bool aligned = loam_is_aligned(backing->info.gpa.value, page_kinds[LOAM_PAGES_THP].bytes);
    bool shared = wanted != LOAM_SHARING_PRIVATE && (aligned || wanted == LOAM_SHARING_SHARED) && thp_allowed(true);
    bool private = !shared && wanted != LOAM_SHARING_SHARED && thp_allowed(false);

    if (!shared && !private) {
        return thp_refused(backing, wanted, diag);
    }
    backing->info.sharing = shared ? LOAM_SHARING_SHARED : LOAM_SHARING_PRIVATE;
    return LOAM_OK;
}

static enum loam_error choose_sharing(struct loam_backing *backing, enum loam_sharing wanted, struct loam_diag *diag)
{
    if (backing->info.adoption == LOAM_ADOPTION_FD) {
        backing->info.sharing = LOAM_SHARING_SHARED;
        return LOAM_OK;
    }
    if (backing->info.pages == LOAM_PAGES_THP) {
        return choose_thp_sharing(backing, wanted, diag);
    }
    backing->info.sharing = wanted == LOAM_SHARING_PRIVATE ? LOAM_SHARING_PRIVATE : LOAM_SHARING_SHARED;
    return LOAM_OK;
}

/* The file that is mapped: the caller's, by a descriptor of our own, or a new one. */
static bool open_file(struct loam_backing_info *info, const struct loam_backing_request *request)
{
    uint32_t huge_shift = page_kinds[info->pages].huge_shift;

    info->fd_offset = request->fd_offset;
    return info->adoption == LOAM_ADOPTION_FD
               ? loam_prim_duplicate(request->fd, &info->fd)
               : loam_prim_memfd(request->name != NULL ? request->name : "loam", huge_shift, info->bytes, &info->fd);
}

static enum loam_error map(struct loam_backing *backing, const struct loam_backing_request *request,
                           struct loam_diag *diag)
{
    struct loam_backing_info *info = &backing->info;

    if (info->sharing == LOAM_SHARING_SHARED && !open_file(info, request)) {
        return mapping_failed(backing, BACKING_CAUSE_FILE, diag);
    }
    return map_memory(backing) ? LOAM_OK : mapping_failed(backing, BACKING_CAUSE_MAP, diag);
}

/* A kernel built without transparent huge pages refuses the advice to have none (EINVAL), and has none. */
static enum loam_error advise(struct loam_backing *backing, struct loam_diag *diag)
{
    bool huge = backing->info.pages == LOAM_PAGES_THP;

    if (is_hugetlb(backing->info.pages) || backing->info.adoption != LOAM_ADOPTION_NONE ||
        loam_prim_advise_huge(backing->info.hva, backing->info.bytes, huge) || (!huge && errno == EINVAL)) {
        return LOAM_OK;
    }
    return call_failed(backing, huge ? "madvise(MADV_HUGEPAGE)" : "madvise(MADV_NOHUGEPAGE)", diag);
}

/* Before anything is in it. */
static enum loam_error keep(struct loam_backing *backing, const struct loam_backing_request *request,
                            struct loam_diag *diag)
{
    const struct loam_backing_info *info = &backing->info;

    if (request->keep_from_dumps && !loam_prim_keep_from_dumps(info->hva, info->bytes)) {
        return call_failed(backing, "madvise(MADV_DONTDUMP)", diag);
    }
    if (request->keep_from_children) {
        if (!loam_prim_keep_from_children(info->hva, info->bytes)) {
            return call_failed(backing, "madvise(MADV_DONTFORK)", diag);
        }
        backing->process = loam_prim_process_id();
    }
    return LOAM_OK;
}

/* The nodes' part of the pool; where it cannot be read, populating tells. Only the strict have to have it. */
static enum loam_error check_node_pool(const struct loam_backing *backing, struct loam_diag *diag)
{
    const struct loam_backing_info *info = &backing->info;
    char cause[BACKING_CAUSE_MAX];

    return is_hugetlb(info->pages) && info->placement == LOAM_PLACEMENT_STRICT &&
                   loam_backing_cause_pool(info->bytes, info->page_bytes, info->node_mask, cause)
               ? loam_fail(diag, LOAM_ERROR_EXHAUSTED, "%s", cause)
               : LOAM_OK;
}

static enum loam_error node_missing(uint64_t node_mask, struct loam_diag *diag)
{
    char nodes[64];

    if (!loam_prim_read_text("/sys/devices/system/node/has_memory", nodes, sizeof nodes)) {
        snprintf(nodes, sizeof nodes, "unknown");
    }
    return loam_fail(diag, LOAM_ERROR_INVALID, "%s wanted: the nodes with memory are %.*s",
                     loam_host_nodes_name(node_mask).text, (int)strcspn(nodes, "\n"), nodes);
}

/* ENOSYS: the kernel knows no nodes, so all memory is on node 0. */
static enum loam_error bind_to(struct loam_backing *backing, uint64_t node_mask, struct loam_diag *diag)
{
    static const enum loam_prim_policy policies[LOAM_PLACEMENT_COUNT] = {
        [LOAM_PLACEMENT_STRICT] = LOAM_PRIM_POLICY_BIND,
        [LOAM_PLACEMENT_PREFERRED] = LOAM_PRIM_POLICY_PREFERRED,
        [LOAM_PLACEMENT_INTERLEAVE] = LOAM_PRIM_POLICY_INTERLEAVE};
    struct loam_backing_info *info = &backing->info;

    if (loam_prim_bind_nodes(info->hva, info->bytes, policies[info->placement], node_mask) ||
        (errno == ENOSYS && node_mask == 1)) {
        return LOAM_OK;
    }
    return errno == EINVAL ? node_missing(node_mask, diag) : call_failed(backing, "mbind", diag);
}

/* Of several nodes the kernel leaves out those that it lacks; so each is asked for alone first. */
static enum loam_error bind(struct loam_backing *backing, struct loam_diag *diag)
{
    uint64_t node_mask = backing->info.node_mask;
    bool several = (node_mask & (node_mask - 1)) != 0;
    enum loam_error error = LOAM_OK;

    for (uint64_t left = several ? node_mask : 0; left != 0 && error == LOAM_OK; left &= left - 1) {
        error = bind_to(backing, left & -left, diag);
    }
    if (error == LOAM_OK && node_mask != 0) {
        error = bind_to(backing, node_mask, diag);
    }
    return error == LOAM_OK ? check_node_pool(backing, diag) : error;
}

/*
 * Ordinary memory that is not there is not refused when it is populated: the kernel kills a process to get it. So ask first.
 * Where the figure cannot be read, go on.
 */
static enum loam_error check_available(const struct loam_backing *backing, bool lock, struct loam_diag *diag)
{
    uint64_t available, swap = 0;

    /* What is adopted may be there. */
    if (is_hugetlb(backing->info.pages) || backing->info.adoption != LOAM_ADOPTION_NONE ||
        loam_host_available(&available, NULL) != LOAM_OK || (!lock && loam_host_swap(&swap, NULL) != LOAM_OK)) {
        return LOAM_OK;
    }
    available = loam_add_capped(available, swap);
    if (available >= backing->info.bytes) {
        return LOAM_OK;
    }
    return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                     "memory: %s of %s pages wanted, %" PRIu64 " MiB available: ask for less, or free some",
                     loam_host_size_exact(backing->info.bytes).text, page_kinds[backing->info.pages].unit,
                     available / LOAM_MIB);
}

static enum loam_error must_populate(const struct loam_backing_info *info, bool lock, bool *must,
                                     struct loam_diag *diag)
{
    *must = lock || info->commit == LOAM_COMMIT_POPULATE ||
            (is_hugetlb(info->pages) ? info->placement == LOAM_PLACEMENT_STRICT : info->commit == LOAM_COMMIT_RESERVE);
    return *must || !is_hugetlb(info->pages) ? LOAM_OK : loam_backing_charged_at_touch(info->page_bytes, must, diag);
}

static enum loam_error commit(struct loam_backing *backing, bool lock, struct loam_diag *diag)
{
    bool must;
    enum loam_error error = must_populate(&backing->info, lock, &must, diag);

    if (error != LOAM_OK || !must) {
        return error;
    }
    error = check_available(backing, lock, diag);
    if (error == LOAM_OK) {
        error = populate(backing, 0, backing->info.bytes, diag);
    }
    backing->populated = error == LOAM_OK;
    return error;
}

/* mlock(2) says EPERM, ENOMEM or EAGAIN when the limit does not allow it. */
static enum loam_error lock_failed(const struct loam_backing *backing, struct loam_diag *diag)
{
    struct backing_cause_wanted wanted = wanted_of(backing, BACKING_CAUSE_LOCK);
    bool may_be_limit = errno == EPERM || errno == ENOMEM || errno == EAGAIN;
    char cause[BACKING_CAUSE_MAX];

    if (!may_be_limit || !loam_backing_cause_find(&wanted, cause)) {
        return call_failed(backing, "mlock", diag);
    }
    return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "mlock: %s wanted, %s", loam_host_size_exact(wanted.bytes).text,
                     cause);
}

static enum loam_error lock_memory(struct loam_backing *backing, struct loam_diag *diag)
{
    const struct loam_backing_info *info = &backing->info;
    uint64_t piece = info->page_bytes > LOCK_PIECE_BYTES ? info->page_bytes : LOCK_PIECE_BYTES;

    for (uint64_t offset = 0; offset < info->bytes; offset += piece) {
        uint64_t rest = info->bytes - offset;

        if (is_cancelled(backing)) {
            return cancelled(diag);
        }
        if (!loam_prim_lock((char *)info->hva + offset, rest < piece ? rest : piece)) {
            return lock_failed(backing, diag);
        }
    }
    backing->info.locked = true;
    return LOAM_OK;
}

static enum loam_error build(struct loam_backing *backing, const struct loam_backing_request *request,
                             struct loam_diag *diag)
{
    enum loam_error error = is_cancelled(backing) ? cancelled(diag) : choose_sharing(backing, request->sharing, diag);

    if (error == LOAM_OK) {
        error = map(backing, request, diag);
    }
    if (error == LOAM_OK) {
        error = advise(backing, diag);
    }
    if (error == LOAM_OK) {
        error = keep(backing, request, diag);
    }
    if (error == LOAM_OK) {
        error = bind(backing, diag);
    }
    if (error == LOAM_OK) {
        error = commit(backing, request->lock, diag);
    }
    if (error == LOAM_OK && request->lock) {
        error = lock_memory(backing, diag);
    }
    backing->cancel = (struct loam_cancel){0};
    return error;
}

/* --- Create ------------------------------------------------------------------------------------------------------- */

static enum loam_error check_choices(const struct loam_backing_request *request, struct loam_diag *diag)
{
    const char *fault;

    if ((unsigned)request->pages >= LOAM_PAGES_COUNT || (unsigned)request->sharing >= LOAM_SHARING_COUNT ||
        (unsigned)request->commit >= LOAM_COMMIT_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: pages %d, sharing %d, commit %d: one is no value of its enum", (int)request->pages,
                         (int)request->sharing, (int)request->commit);
    }
    fault = loam_backing_placement_fault(request->placement, request->node_mask);
    if (fault != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "backing: placement %d, node mask %#" PRIx64 " wanted: %s",
                         (int)request->placement, request->node_mask, fault);
    }
    if (request->lock && request->commit == LOAM_COMMIT_LAZY) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: lock and LOAM_COMMIT_LAZY wanted: what is locked is populated: ask for one of them");
    }
    if (request->name != NULL && request->sharing == LOAM_SHARING_PRIVATE) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: a name wanted for private memory: only a memfd has one: leave it NULL");
    }
    if (request->thread_count > LOAM_BACKING_THREAD_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "backing: %" PRIu32 " threads wanted: at most %d",
                         request->thread_count, LOAM_BACKING_THREAD_MAX);
    }
    if (request->name != NULL &&
        strnlen(request->name, LOAM_BACKING_NAME_BYTES_MAX + 1) > LOAM_BACKING_NAME_BYTES_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "backing: a name of more than %d bytes",
                         LOAM_BACKING_NAME_BYTES_MAX);
    }
    return LOAM_OK;
}

static enum loam_error check_request(const struct loam_backing_request *request, struct loam_diag *diag)
{
    enum loam_error error = check_choices(request, diag);
    uint64_t unit;

    if (error != LOAM_OK) {
        return error;
    }
    if (!loam_gpa_range_valid(request->gpa, request->bytes)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: %#" PRIx64 " bytes at GPA %#" PRIx64 ": empty, or beyond 2^%d", request->bytes,
                         request->gpa.value, LOAM_GPA_BITS);
    }
    unit = request->pages == LOAM_PAGES_AUTO ? LOAM_FRAME_BYTES : granule(request->pages);
    if (!loam_is_aligned(request->bytes, unit) || !loam_is_aligned(request->gpa.value, unit)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: %#" PRIx64 " bytes at GPA %#" PRIx64 ": both must be multiples of %s",
                         request->bytes, request->gpa.value, loam_host_size_exact(unit).text);
    }
    return LOAM_OK;
}

/* A mapping is taken as it is. */
static enum loam_error take_mapping(struct loam_backing *backing, const struct loam_backing_request *request)
{
    backing->info.hva = request->hva;
    backing->info.sharing = LOAM_SHARING_PRIVATE;
    return LOAM_OK;
}

static enum loam_error create_kind(const struct loam_backing_request *request, enum loam_pages pages,
                                   struct loam_backing **backing, struct loam_diag *diag)
{
    struct loam_backing *made;
    enum loam_error error;
    void *memory;

    if (!loam_prim_heap_alloc(sizeof *made, &memory)) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "heap: %zu bytes wanted for a backing", sizeof *made);
    }
    made = memory;
    made->thread_count = request->thread_count;
    made->cancel = request->cancel;
    made->info = (struct loam_backing_info){
        .bytes = request->bytes,
        .gpa = request->gpa,
        .pages = pages,
        .commit = request->commit,
        .page_bytes = page_kinds[pages].bytes,
        .placement = request->placement,
        .node_mask = request->node_mask,
        .fd = -1,
        .adoption = request->adoption,
    };
    error = request->adoption == LOAM_ADOPTION_MAPPING ? take_mapping(made, request) : build(made, request, diag);
    if (error != LOAM_OK) {
        loam_backing_destroy(made);
        return error;
    }
    *backing = made;
    return LOAM_OK;
}

/* diag is written only when the last kind fails too. 4 KiB pages fit every request, so one kind at least is tried. */
static enum loam_error create_auto(const struct loam_backing_request *request, struct loam_backing **backing,
                                   struct loam_diag *diag)
{
    enum loam_error error = LOAM_ERROR_INVALID;
    struct loam_diag last = {0};

    for (int i = LOAM_PAGES_1G; i <= LOAM_PAGES_4K && *backing == NULL && error != LOAM_ERROR_CANCELLED; i++) {
        if (loam_is_aligned(request->bytes, page_kinds[i].bytes) &&
            loam_is_aligned(request->gpa.value, page_kinds[i].bytes)) {
            error = create_kind(request, (enum loam_pages)i, backing, &last);
        }
    }
    if (error != LOAM_OK && diag != NULL) {
        *diag = last;
    }
    return error;
}

enum loam_error loam_backing_create(const struct loam_backing_request *request, struct loam_backing **backing,
                                    struct loam_diag *diag)
{
    enum loam_pages pages;
    enum loam_error error;

    if (backing != NULL) {
        *backing = NULL;
    }
    if (request == NULL || backing == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "backing: NULL given where a request and a place for it are wanted");
    }
    error = check_request(request, diag);
    if (error != LOAM_OK || (error = loam_backing_adopt_check(request, &pages, diag)) != LOAM_OK) {
        return error;
    }
    if (request->adoption != LOAM_ADOPTION_NONE) {
        return create_kind(request, pages, backing, diag);
    }
    return request->pages == LOAM_PAGES_AUTO ? create_auto(request, backing, diag)
                                             : create_kind(request, request->pages, backing, diag);
}

void loam_backing_destroy(struct loam_backing *backing)
{
    if (backing == NULL) {
        return;
    }
    give_back_all(backing);
    if (backing->info.fd >= 0) {
        loam_prim_close(backing->info.fd); /* the descriptor is gone whatever it returns */
    }
    loam_prim_heap_free(backing);
}

struct loam_backing_info loam_backing_get_info(const struct loam_backing *backing)
{
    struct loam_backing_info info = {.fd = -1};

    if (backing != NULL) {
        info = backing->info;
        info.populated = backing->populated;
    }
    return info;
}

static enum loam_error check_range(const struct loam_backing *backing, const char *what, uint64_t offset_bytes,
                                   uint64_t bytes, struct loam_diag *diag)
{
    uint64_t unit;

    if (backing == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: NULL given where a backing is wanted", what);
    }
    unit = granule(backing->info.pages);
    if (bytes == 0 || !loam_fits(offset_bytes, bytes, backing->info.bytes) || !loam_is_aligned(offset_bytes, unit) ||
        !loam_is_aligned(bytes, unit)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%s: %#" PRIx64 " bytes from %#" PRIx64 " on: not in %#" PRIx64
                         " bytes, or no multiples of %s",
                         what, bytes, offset_bytes, backing->info.bytes, loam_host_size_exact(unit).text);
    }
    return LOAM_OK;
}

enum loam_error loam_backing_populate(struct loam_backing *backing, uint64_t offset_bytes, uint64_t bytes,
                                      struct loam_diag *diag)
{
    enum loam_error error = check_range(backing, "populate", offset_bytes, bytes, diag);

    if (error == LOAM_OK) {
        error = populate(backing, offset_bytes, bytes, diag);
    }
    if (error == LOAM_OK && bytes == backing->info.bytes) {
        backing->populated = true;
    }
    return error;
}

enum loam_error loam_backing_release(struct loam_backing *backing, uint64_t offset_bytes, uint64_t bytes,
                                     struct loam_diag *diag)
{
    enum loam_error error = check_range(backing, "release", offset_bytes, bytes, diag);

    if (error != LOAM_OK) {
        return error;
    }
    if (backing->info.locked) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "release: the memory is locked: it stays");
    }
    if (backing->info.adoption != LOAM_ADOPTION_NONE) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED,
                         "release: the memory was adopted: it is its owner's to give back");
    }
    backing->populated = false;
    if (!loam_prim_discard((char *)backing->info.hva + offset_bytes, bytes,
                           backing->info.sharing == LOAM_SHARING_SHARED)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "madvise: %s of %s pages to be given back at GPA %#" PRIx64,
                         loam_host_size_exact(bytes).text, loam_pages_name(backing->info.pages),
                         backing->info.gpa.value + offset_bytes);
    }
    return LOAM_OK;
}
