// SPDX-License-Identifier: Apache-2.0
/*
 * References: userfaultfd(2), ioctl_userfaultfd(2); Linux, Documentation/admin-guide/mm/userfaultfd.rst.
 *
 * A chunk is whoever's has made it LOADING. UFFDIO_COPY wakes who waits for a page; who comes to wait for one that has come in
 * the meantime is woken by the server, which sees its message later.
 */
#include "vmm/pager.h"

#include "vmm/kick.h"
#include "vmm/resident.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Newer than Debian 12's headers (Linux 6.6, include/uapi/linux/userfaultfd.h). */
#ifndef UFFDIO_POISON
struct uffdio_poison {
    struct uffdio_range range;
    uint64_t mode;
    int64_t updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#define PAGE_BYTES        UINT64_C(4096)
#define MESSAGES          16u
#define FILLER_COUNT      (PAGER_THREADS - 1)
#define IDLE_MILLISECONDS 100 /* without a new chunk touched, that the first of them are taken to be known */
#define LEARN_MAX         50  /* such times at most */

enum chunk_state { CHUNK_ABSENT, CHUNK_LOADING, CHUNK_THERE, CHUNK_ZERO };

/* Before so many numbers of chunks. */
struct order_header {
    uint8_t magic[8];
    uint8_t id[IMAGE_ID_BYTES]; /* of the image */
    uint64_t count;
    uint64_t sum; /* of the numbers */
};

static const uint8_t order_magic[8] = "LoamOrd1";

struct pager {
    struct pager_config config;
    struct resident *resident;
    int uffd;
    int stop_fd;             /* readable: all threads leave */
    _Atomic uint8_t *states; /* enum chunk_state, by chunk */
    uint32_t *order;         /* numbers of chunks: known, or as they are learnt */
    atomic_uint_fast64_t order_count;
    bool has_order;
    uint32_t thread_count;
    struct kick_thread threads[PAGER_THREADS];
    uint8_t *buffers; /* a chunk a thread */
    uint64_t begun;
    atomic_uint_fast64_t next; /* of the fillers: of the order, and then of all */
    atomic_uint_fast64_t order_left, chunks_left, demand_count;
    atomic_uint_fast64_t order_nanoseconds, all_nanoseconds;
    uint64_t chunk_count;
    atomic_bool has_failed, must_stop;
    bool is_muted; /* by lock */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* chunks_left has become 0, or has_failed true */
};

static uint64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- userfaultfd ---------------------------------------------------------------------------------------------------- */

static enum loam_error open_uffd(struct pager *pager, struct loam_diag *diag)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS};

    pager->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (pager->uffd < 0) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED,
                         "userfaultfd: not for this user: sysctl vm.unprivileged_userfaultfd=1 allows it");
    }
    return ioctl(pager->uffd, UFFDIO_API, &api) == 0
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_NOT_FOUND, "userfaultfd: this kernel has it for no files and hugepages");
}

static bool register_range(struct pager *pager, uint64_t hva, uint64_t bytes)
{
    struct uffdio_register range = {.range = {.start = hva, .len = bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};

    return ioctl(pager->uffd, UFFDIO_REGISTER, &range) == 0;
}

static void wake(struct pager *pager, uint64_t hva, uint64_t bytes)
{
    struct uffdio_range range = {.start = hva, .len = bytes};

    (void)ioctl(pager->uffd, UFFDIO_WAKE, &range);
}

/* Who touches it gets a fault. Where the kernel has no such thing, nobody is woken: who waits for it, waits for the end. */
static void poison(struct pager *pager, uint64_t hva, uint64_t bytes)
{
    struct uffdio_poison range = {.range = {.start = hva, .len = bytes}};

    (void)ioctl(pager->uffd, UFFDIO_POISON, &range);
}

/* EAGAIN: the process's memory was changing. EEXIST: a page is there already, and stays. */
static bool place(struct pager *pager, uint64_t hva, const uint8_t *bytes, uint64_t count, uint64_t page_bytes)
{
    while (count > 0) {
        struct uffdio_copy copy = {.dst = hva, .src = (uintptr_t)bytes, .len = count};
        uint64_t done;

        if (ioctl(pager->uffd, UFFDIO_COPY, &copy) == 0) {
            return true;
        }
        if (errno != EAGAIN && errno != EEXIST) {
            return false;
        }
        done = copy.copy > 0 ? (uint64_t)copy.copy : errno == EEXIST ? page_bytes : 0;
        hva += done;
        bytes += done;
        count -= done;
    }
    return true;
}

/* --- Chunks --------------------------------------------------------------------------------------------------------- */

static void tell_changed(struct pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    pthread_cond_broadcast(&pager->changed);
    pthread_mutex_unlock(&pager->lock);
}

static void fail(struct pager *pager, struct image_place spot, const struct loam_diag *diag)
{
    pthread_mutex_lock(&pager->lock);
    if (!atomic_exchange(&pager->has_failed, true) && !pager->is_muted) {
        pager->config.failed(pager->config.self, diag);
    }
    pthread_cond_broadcast(&pager->changed);
    pthread_mutex_unlock(&pager->lock);
    poison(pager, (uintptr_t)resident_hva(pager->resident, spot.gpa, spot.bytes), spot.bytes);
}

/* Whoever gives pages back to the host finds zeros there again, without the pager. */
static void unregister_chunks(struct pager *pager)
{
    const struct image *image = pager->config.image;

    for (uint64_t i = 0; i < image->chunk_count; i++) {
        const struct image_place spot = image_place(image, i);
        struct uffdio_range range = {.start = (uintptr_t)resident_hva(pager->resident, spot.gpa, spot.bytes),
                                     .len = spot.bytes};

        if (atomic_load(&pager->states[i]) == CHUNK_THERE) {
            (void)ioctl(pager->uffd, UFFDIO_UNREGISTER, &range);
        }
    }
}

static void count_loaded(struct pager *pager)
{
    if (atomic_fetch_sub(&pager->chunks_left, 1) == 1) {
        unregister_chunks(pager);
        atomic_store(&pager->all_nanoseconds, now_nanoseconds() - pager->begun);
        tell_changed(pager);
    }
}

/* Bring a chunk unless somebody has. Returns whether it was this one. */
static bool load(struct pager *pager, uint64_t index, uint8_t *buffer)
{
    const struct image_place spot = image_place(pager->config.image, index);
    uint8_t *hva = resident_hva(pager->resident, spot.gpa, spot.bytes), absent = CHUNK_ABSENT;
    struct loam_diag diag = {0};

    if (!atomic_compare_exchange_strong(&pager->states[index], &absent, CHUNK_LOADING)) {
        return false;
    }
    if (image_read(pager->config.image, index, buffer, false, &diag) != LOAM_OK) {
        fail(pager, spot, &diag);
        return false;
    }
    if (!place(pager, (uintptr_t)hva, buffer, spot.bytes, resident_page_bytes(pager->resident, spot.gpa))) {
        (void)!loam_fail(&diag, LOAM_ERROR_SYSTEM, "UFFDIO_COPY of 0x%" PRIx64 " bytes to GPA 0x%" PRIx64, spot.bytes,
                         spot.gpa);
        fail(pager, spot, &diag);
        return false;
    }
    atomic_store(&pager->states[index], CHUNK_THERE);
    count_loaded(pager);
    return true;
}

/* --- What is touched -------------------------------------------------------------------------------------------------- */

static void learn(struct pager *pager, uint64_t index)
{
    if (!pager->has_order) {
        pager->order[atomic_fetch_add(&pager->order_count, 1)] = (uint32_t)index;
    }
}

/*
 * A page of a chunk that is there was brought in the meantime, and who waits for it is woken; or it was given back to the host since,
 * and is zeros.
 */
static void give_zeros(struct pager *pager, uint64_t hva, uint64_t gpa, uint8_t *buffer)
{
    const uint64_t page_bytes = resident_page_bytes(pager->resident, gpa);

    hva = loam_align_down(hva, page_bytes);
    memset(buffer, 0, page_bytes);
    (void)place(pager, hva, buffer, page_bytes, page_bytes);
    wake(pager, hva, page_bytes);
}

static void serve_fault(struct pager *pager, uint64_t hva, uint8_t *buffer)
{
    uint64_t gpa, index;

    if (!resident_gpa(pager->resident, hva, &gpa)) {
        return;
    }
    index = image_index(pager->config.image, gpa);
    if (load(pager, index, buffer)) {
        atomic_fetch_add(&pager->demand_count, 1);
        learn(pager, index);
    } else if (atomic_load(&pager->states[index]) == CHUNK_THERE) {
        give_zeros(pager, hva, gpa, buffer);
    }
}

static void serve(void *self)
{
    struct pager *pager = self;
    struct uffd_msg messages[MESSAGES];

    while (!atomic_load(&pager->must_stop)) {
        struct pollfd fds[] = {{.fd = pager->uffd, .events = POLLIN}, {.fd = pager->stop_fd, .events = POLLIN}};
        ssize_t got;

        (void)poll(fds, 2, -1);
        got = read(pager->uffd, messages, sizeof messages);
        for (ssize_t i = 0; i * (ssize_t)sizeof messages[0] < got; i++) {
            if (messages[i].event == UFFD_EVENT_PAGEFAULT) {
                serve_fault(pager, messages[i].arg.pagefault.address, pager->buffers);
            }
        }
    }
}

/* --- Unasked ---------------------------------------------------------------------------------------------------------- */

static bool is_stopped(struct pager *pager, int milliseconds)
{
    struct pollfd stop = {.fd = pager->stop_fd, .events = POLLIN};

    return poll(&stop, 1, milliseconds) > 0 || atomic_load(&pager->must_stop);
}

/* Until the guest has all that it begins with. */
static void await_idleness(struct pager *pager)
{
    uint64_t before = UINT64_MAX;

    for (int i = 0; i < LEARN_MAX && before != atomic_load(&pager->order_count) &&
                    atomic_load(&pager->chunks_left) > 0 && !atomic_load(&pager->has_failed);
         i++) {
        before = atomic_load(&pager->order_count);
        if (is_stopped(pager, IDLE_MILLISECONDS)) {
            return;
        }
    }
}

/* Those of the order first, and then all; each filler takes the next. */
static void fill(struct pager *pager, uint8_t *buffer)
{
    const uint64_t known = pager->has_order ? atomic_load(&pager->order_count) : 0;
    const uint64_t end = known + pager->config.image->chunk_count;
    uint64_t at;

    if (!pager->has_order) {
        await_idleness(pager);
    }
    while ((at = atomic_fetch_add(&pager->next, 1)) < end && !atomic_load(&pager->has_failed) &&
           !atomic_load(&pager->must_stop)) {
        (void)load(pager, at < known ? pager->order[at] : at - known, buffer);
        if (at < known && atomic_fetch_sub(&pager->order_left, 1) == 1) {
            atomic_store(&pager->order_nanoseconds, now_nanoseconds() - pager->begun);
        }
    }
}

static void fill_first(void *self)
{
    fill(self, ((struct pager *)self)->buffers + IMAGE_CHUNK_BYTES);
}

static void fill_second(void *self)
{
    fill(self, ((struct pager *)self)->buffers + 2 * IMAGE_CHUNK_BYTES);
}

/* --- The order -------------------------------------------------------------------------------------------------------- */

static uint64_t sum_of(const uint32_t *order, uint64_t count)
{
    return XXH3_64bits(order, count * sizeof order[0]);
}

/* A file that is not one of this image's is none; it is written anew. */
static void read_order(struct pager *pager)
{
    const struct image *image = pager->config.image;
    struct order_header header;
    uint64_t count;

    if (pager->config.order_fd < 0 ||
        pread(pager->config.order_fd, &header, sizeof header, 0) != (ssize_t)sizeof header ||
        memcmp(header.magic, order_magic, sizeof order_magic) != 0 ||
        memcmp(header.id, image->id, sizeof header.id) != 0 || header.count == 0 || header.count > image->chunk_count) {
        return;
    }
    count = header.count;
    if (pread(pager->config.order_fd, pager->order, count * sizeof pager->order[0], sizeof header) !=
            (ssize_t)(count * sizeof pager->order[0]) ||
        sum_of(pager->order, count) != header.sum) {
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (pager->order[i] >= image->chunk_count) {
            return;
        }
    }
    pager->has_order = true;
    atomic_store(&pager->order_count, count);
    atomic_store(&pager->order_left, count);
}

static void write_order(const struct pager *pager)
{
    const uint64_t count = atomic_load(&pager->order_count);
    struct order_header header = {.count = count, .sum = sum_of(pager->order, count)};
    const size_t bytes = count * sizeof pager->order[0];

    if (pager->config.order_fd < 0 || pager->has_order || count == 0 || atomic_load(&pager->has_failed)) {
        return;
    }
    memcpy(header.magic, order_magic, sizeof header.magic);
    memcpy(header.id, pager->config.image->id, sizeof header.id);
    /* What is written in part has a wrong sum, and is none. */
    if (pwrite(pager->config.order_fd, pager->order, bytes, sizeof header) == (ssize_t)bytes) {
        (void)!pwrite(pager->config.order_fd, &header, sizeof header, 0);
    }
}

/* --- Lifecycle -------------------------------------------------------------------------------------------------------- */

/* Whether a chunk can be brought alone: it lies in one backing, of pages that are no larger. */
static bool is_apart(const struct pager *pager, struct image_place spot)
{
    return resident_hva(pager->resident, spot.gpa, spot.bytes) != NULL &&
           resident_page_bytes(pager->resident, spot.gpa) <= IMAGE_CHUNK_BYTES;
}

static enum loam_error check_chunks(struct pager *pager, struct loam_diag *diag)
{
    const struct image *image = pager->config.image;

    for (uint64_t i = 0; i < image->chunk_count; i++) {
        const struct image_place spot = image_place(image, i);

        if (image_is_zero(image, i)) {
            atomic_store(&pager->states[i], CHUNK_ZERO);
            continue;
        }
        if (!is_apart(pager, spot)) {
            return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                             "RAM at GPA 0x%" PRIx64 " is of pages larger than 2 MiB, or of several kinds", spot.gpa);
        }
        pager->chunk_count++;
    }
    atomic_store(&pager->chunks_left, pager->chunk_count);
    return LOAM_OK;
}

/* Runs of chunks that are not zeros, as far as they follow each other in memory. */
static enum loam_error register_chunks(struct pager *pager, struct loam_diag *diag)
{
    const struct image *image = pager->config.image;
    uint64_t start = 0, end = 0;

    for (uint64_t i = 0; i <= image->chunk_count; i++) {
        const bool is_wanted = i < image->chunk_count && atomic_load(&pager->states[i]) == CHUNK_ABSENT;
        const struct image_place spot = is_wanted ? image_place(image, i) : (struct image_place){0, 0};
        const uint64_t hva = is_wanted ? (uintptr_t)resident_hva(pager->resident, spot.gpa, spot.bytes) : 0;

        if (is_wanted && hva == end) {
            end += spot.bytes;
            continue;
        }
        if (end > start && !register_range(pager, start, end - start)) {
            return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "userfaultfd: memory of this kind cannot be registered");
        }
        start = hva;
        end = hva + spot.bytes;
    }
    return LOAM_OK;
}

static enum loam_error make_room(struct pager *pager, struct loam_diag *diag)
{
    const uint64_t count = pager->config.image->chunk_count;
    void *buffers;

    pager->states = calloc(count, sizeof pager->states[0]);
    pager->order = calloc(count, sizeof pager->order[0]);
    buffers = mmap(NULL, PAGER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pager->buffers = buffers != MAP_FAILED ? buffers : NULL;
    pager->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return pager->states != NULL && pager->order != NULL && pager->buffers != NULL && pager->stop_fd >= 0
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "pager: no memory");
}

static enum loam_error start_threads(struct pager *pager, struct loam_diag *diag)
{
    void (*const works[PAGER_THREADS])(void *self) = {serve, fill_first, fill_second};
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < PAGER_THREADS; i++) {
        error = kick_start(&pager->threads[i], works[i], pager, "pager", diag);
        pager->thread_count += error == LOAM_OK ? 1 : 0;
    }
    return error;
}

enum loam_error pager_create(const struct pager_config *config, struct pager **pager, struct loam_diag *diag)
{
    enum loam_error (*const steps[])(struct pager *, struct loam_diag *) = {open_uffd, make_room, check_chunks,
                                                                            register_chunks};
    struct pager *made = calloc(1, sizeof *made);
    enum loam_error error;

    *pager = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "pager");
    }
    made->config = *config;
    made->uffd = made->stop_fd = -1;
    made->begun = now_nanoseconds();
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->changed, NULL);
    error = resident_open(config->memory, &made->resident, diag);
    for (size_t i = 0; error == LOAM_OK && i < sizeof steps / sizeof steps[0]; i++) {
        error = steps[i](made, diag);
    }
    if (error == LOAM_OK) {
        read_order(made);
        error = start_threads(made, diag);
    }
    if (error != LOAM_OK) {
        pager_destroy(made);
        return error;
    }
    *pager = made;
    return LOAM_OK;
}

void pager_mute(struct pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    pager->is_muted = true;
    pthread_mutex_unlock(&pager->lock);
}

void pager_destroy(struct pager *pager)
{
    if (pager == NULL) {
        return;
    }
    atomic_store(&pager->must_stop, true);
    if (pager->stop_fd >= 0) {
        (void)eventfd_write(pager->stop_fd, 1);
    }
    for (uint32_t i = 0; i < pager->thread_count; i++) {
        kick_join(&pager->threads[i]);
    }
    if (pager->thread_count == PAGER_THREADS) {
        write_order(pager);
    }
    if (pager->uffd >= 0) {
        close(pager->uffd);
    }
    if (pager->stop_fd >= 0) {
        close(pager->stop_fd);
    }
    if (pager->buffers != NULL) {
        munmap(pager->buffers, PAGER_BYTES);
    }
    if (pager->resident != NULL) {
        resident_close(pager->resident);
    }
    free(pager->order);
    free((void *)pager->states);
    pthread_cond_destroy(&pager->changed);
    pthread_mutex_destroy(&pager->lock);
    free(pager);
}

bool pager_wait(struct pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    while (atomic_load(&pager->chunks_left) > 0 && !atomic_load(&pager->has_failed)) {
        pthread_cond_wait(&pager->changed, &pager->lock);
    }
    pthread_mutex_unlock(&pager->lock);
    return !atomic_load(&pager->has_failed);
}

void pager_get_figures(const struct pager *pager, struct pager_figures *figures)
{
    *figures = (struct pager_figures){.has_order = pager->has_order,
                                      .is_done = atomic_load(&pager->chunks_left) == 0,
                                      .chunk_count = pager->chunk_count,
                                      .order_count = atomic_load(&pager->order_count),
                                      .demand_count = atomic_load(&pager->demand_count),
                                      .order_nanoseconds = atomic_load(&pager->order_nanoseconds),
                                      .all_nanoseconds = atomic_load(&pager->all_nanoseconds)};
}
