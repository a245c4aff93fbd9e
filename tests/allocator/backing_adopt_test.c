// SPDX-License-Identifier: Apache-2.0
/* Memory that a caller brings: it backs a guest as it is, and stays its owner's. */
#include "loam/backing.h"
#include "tests/allocator/host_state.h"
#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BYTES (4 * LOAM_MIB)

TestSuite(backing_adopt, .timeout = 60);

/* A memfd of so many bytes; each page starts with its number. */
static int make_file(uint64_t bytes, unsigned int flags)
{
    int fd = memfd_create("test", MFD_CLOEXEC | flags);

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
    for (uint64_t page = 0; flags == 0 && page < bytes / 4096; page++) {
        cr_assert_eq(pwrite(fd, &page, sizeof page, (off_t)(page * 4096)), (ssize_t)sizeof page);
    }
    return fd;
}

static uint64_t number_at(int fd, uint64_t offset)
{
    uint64_t number;

    cr_assert_eq(pread(fd, &number, sizeof number, (off_t)offset), (ssize_t)sizeof number);
    return number;
}

static struct loam_backing *adopt(struct loam_backing_request request)
{
    struct loam_diag diag = {0};
    struct loam_backing *backing;

    cr_assert_eq(loam_backing_create(&request, &backing, &diag), LOAM_OK, "%s", diag.text);
    return backing;
}

static void assert_refused(struct loam_backing_request request, enum loam_error expected, const char *says)
{
    struct loam_backing *backing = (struct loam_backing *)&request;
    struct loam_diag diag = {0};

    cr_expect_eq(loam_backing_create(&request, &backing, &diag), expected, "%s: %s", says, diag.text);
    cr_expect_null(backing);
    cr_expect(strstr(diag.text, says) != NULL && strchr(diag.text, '\n') == NULL, "'%s' says no '%s'", diag.text, says);
    cr_expect(prim_fake_clean(), "%s", says);
}

/* --- Files -------------------------------------------------------------------------------------------------------- */

Test(backing_adopt, a_file_is_seen_from_its_offset_on_and_stays)
{
    int fd = make_file(3 * BYTES, 0);
    struct loam_backing *backing = adopt((struct loam_backing_request){
        .bytes = BYTES, .gpa = {LOAM_GIB}, .adoption = LOAM_ADOPTION_FD, .fd = fd, .fd_offset = BYTES});
    struct loam_backing_info info = loam_backing_get_info(backing);

    cr_expect_eq(info.adoption, LOAM_ADOPTION_FD);
    cr_expect_eq(info.pages, LOAM_PAGES_4K);
    cr_expect_eq(info.sharing, LOAM_SHARING_SHARED);
    cr_expect_eq(info.fd_offset, BYTES);
    cr_expect_neq(info.fd, fd);
    cr_expect_eq(fcntl(info.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    cr_expect_eq(((uintptr_t)info.hva ^ info.gpa.value) % (2 * LOAM_MIB), 0);
    for (uint64_t page = 0; page < BYTES / 4096; page++) {
        cr_assert_eq(*(uint64_t *)((char *)info.hva + page * 4096), BYTES / 4096 + page);
    }
    *(uint64_t *)info.hva = 77;
    loam_backing_destroy(backing);
    cr_expect(prim_fake_clean());
    cr_expect_eq(number_at(fd, BYTES), 77, "what the guest wrote is the owner's");
    cr_expect_eq(number_at(fd, 2 * BYTES), 2 * BYTES / 4096);
    close(fd);
}

Test(backing_adopt, the_callers_descriptor_may_be_closed_at_once)
{
    int fd = make_file(BYTES, 0);
    struct loam_backing *backing =
        adopt((struct loam_backing_request){.bytes = BYTES, .adoption = LOAM_ADOPTION_FD, .fd = fd});

    close(fd);
    cr_expect_eq(number_at(loam_backing_get_info(backing).fd, 4096), 1);
    loam_backing_destroy(backing);
}

Test(backing_adopt, two_backings_of_a_file_are_one_memory)
{
    int fd = make_file(BYTES, 0);
    struct loam_backing_request request = {.bytes = BYTES, .adoption = LOAM_ADOPTION_FD, .fd = fd};
    struct loam_backing *first = adopt(request), *second = adopt(request);

    memcpy(loam_backing_get_info(first).hva, "shared", 7);
    cr_expect_str_eq(loam_backing_get_info(second).hva, "shared");
    loam_backing_destroy(first);
    loam_backing_destroy(second);
    close(fd);
}

Test(backing_adopt, a_file_of_hugepages_says_what_it_is_made_of)
{
    struct host_setting pool = {0};
    struct loam_backing *backing;
    struct loam_backing_info info;
    int fd;

    if (!host_pool_raise(&pool, 2 * LOAM_MIB, 2)) {
        cr_skip("%s", pool.reason);
    }
    fd = make_file(BYTES, MFD_HUGETLB | 21 << MAP_HUGE_SHIFT);
    backing = adopt((struct loam_backing_request){.bytes = BYTES, .adoption = LOAM_ADOPTION_FD, .fd = fd});
    info = loam_backing_get_info(backing);
    cr_expect_eq(info.pages, LOAM_PAGES_2M);
    cr_expect_eq(info.page_bytes, 2 * LOAM_MIB);
    memset(info.hva, 1, BYTES);
    loam_backing_destroy(backing);
    assert_refused(
        (struct loam_backing_request){.bytes = BYTES, .adoption = LOAM_ADOPTION_FD, .fd = fd, .pages = LOAM_PAGES_4K},
        LOAM_ERROR_INVALID, "ask for AUTO");
    assert_refused(
        (struct loam_backing_request){.bytes = BYTES / 4, .adoption = LOAM_ADOPTION_FD, .fd = fd, .fd_offset = 4096},
        LOAM_ERROR_INVALID, "multiples of 2");
    close(fd);
    host_setting_restore(&pool);
}

Test(backing_adopt, what_a_file_cannot_be_is_refused)
{
    int fd = make_file(BYTES, 0);
    struct loam_backing_request good = {.bytes = BYTES, .adoption = LOAM_ADOPTION_FD, .fd = fd}, bad;
    char path[64];
    int reader;

    bad = good;
    bad.fd_offset = 4096;
    assert_refused(bad, LOAM_ERROR_INVALID, "its file has 0x400000: make it larger first");
    bad.fd_offset = UINT64_MAX - 4095;
    assert_refused(bad, LOAM_ERROR_INVALID, "make it larger first");
    bad.fd_offset = 1;
    assert_refused(bad, LOAM_ERROR_INVALID, "multiples of 4");
    bad = good;
    bad.fd = 9999;
    assert_refused(bad, LOAM_ERROR_SYSTEM, "fstat of descriptor 9999");
    bad = good;
    bad.name = "x";
    assert_refused(bad, LOAM_ERROR_INVALID, "no new name");
    bad = good;
    bad.sharing = LOAM_SHARING_PRIVATE;
    assert_refused(bad, LOAM_ERROR_INVALID, "is shared");
    bad = good;
    bad.hva = &bad;
    assert_refused(bad, LOAM_ERROR_INVALID, "no hva");
    bad = good;
    bad.pages = LOAM_PAGES_2M;
    assert_refused(bad, LOAM_ERROR_INVALID, "ask for AUTO");
    bad = good;
    bad.adoption = LOAM_ADOPTION_COUNT;
    assert_refused(bad, LOAM_ERROR_INVALID, "none of that number");
    bad.adoption = LOAM_ADOPTION_NONE;
    assert_refused(bad, LOAM_ERROR_INVALID, "set adoption");
    bad.fd = 0;
    bad.hva = &bad;
    assert_refused(bad, LOAM_ERROR_INVALID, "set adoption");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    reader = open(path, O_RDONLY | O_CLOEXEC);
    bad = good;
    bad.fd = reader;
    assert_refused(bad, LOAM_ERROR_SYSTEM, "Permission denied");
    close(reader);
    close(fd);
}

Test(backing_adopt, what_is_adopted_is_not_given_back)
{
    int fd = make_file(BYTES, 0);
    struct loam_backing *backing =
        adopt((struct loam_backing_request){.bytes = BYTES, .adoption = LOAM_ADOPTION_FD, .fd = fd});
    struct loam_diag diag = {0};

    cr_expect_eq(loam_backing_release(backing, 0, BYTES, &diag), LOAM_ERROR_NOT_PERMITTED);
    cr_expect(strstr(diag.text, "its owner's") != NULL, "'%s'", diag.text);
    cr_expect_eq(number_at(fd, 4096), 1);
    loam_backing_destroy(backing);
    close(fd);
}

Test(backing_adopt, a_call_that_fails_leaves_nothing)
{
    int fd = make_file(BYTES, 0);
    struct loam_backing_request request = {
        .bytes = BYTES, .adoption = LOAM_ADOPTION_FD, .fd = fd, .lock = true, .keep_from_dumps = true};

    for (uint32_t n = 1;; n++) {
        struct loam_backing *backing;
        enum loam_error error;
        uint32_t failed;

        prim_fake_fail(PRIM_ANY, n, 1, ENOMEM);
        error = loam_backing_create(&request, &backing, NULL);
        failed = prim_fake_failed_count();
        prim_fake_fail_none();
        loam_backing_destroy(backing);
        cr_assert(prim_fake_clean(), "call %u", n);
        cr_assert_eq(number_at(fd, BYTES - 4096), BYTES / 4096 - 1);
        if (failed == 0) {
            cr_assert_eq(error, LOAM_OK);
            cr_assert_gt(n, 5);
            break;
        }
    }
    close(fd);
}

/* --- Mappings ------------------------------------------------------------------------------------------------------ */

Test(backing_adopt, a_mapping_is_taken_as_it_is_and_stays)
{
    char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct loam_backing *backing =
        adopt((struct loam_backing_request){.bytes = BYTES, .adoption = LOAM_ADOPTION_MAPPING, .hva = memory});
    struct loam_backing_info info = loam_backing_get_info(backing);

    cr_expect_eq(info.hva, memory);
    cr_expect_eq(info.fd, -1);
    cr_expect_eq(info.sharing, LOAM_SHARING_PRIVATE);
    cr_expect_eq(info.pages, LOAM_PAGES_4K);
    strcpy(memory, "the owner's");
    cr_expect_eq(loam_backing_release(backing, 0, BYTES, NULL), LOAM_ERROR_NOT_PERMITTED);
    loam_backing_destroy(backing);
    cr_expect(prim_fake_clean());
    cr_expect_str_eq(memory, "the owner's");
    munmap(memory, BYTES);
}

Test(backing_adopt, what_a_mapping_cannot_be_is_refused)
{
    char *memory = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct loam_backing_request good = {.bytes = BYTES, .adoption = LOAM_ADOPTION_MAPPING, .hva = memory}, bad;

    bad = good;
    bad.hva = NULL;
    assert_refused(bad, LOAM_ERROR_INVALID, "congruent");
    bad.hva = memory + 1;
    assert_refused(bad, LOAM_ERROR_INVALID, "congruent");
    bad.hva = (void *)(UINTPTR_MAX - BYTES + 1);
    assert_refused(bad, LOAM_ERROR_INVALID, "congruent");
    bad = good;
    bad.hva = (void *)(((uintptr_t)memory + 2 * LOAM_MIB - 1) / (2 * LOAM_MIB) * (2 * LOAM_MIB) + 4096);
    bad.pages = LOAM_PAGES_2M;
    assert_refused(bad, LOAM_ERROR_INVALID, "congruent modulo 2");
    bad = good;
    bad.lock = true;
    assert_refused(bad, LOAM_ERROR_INVALID, "as it is");
    bad = good;
    bad.keep_from_children = true;
    assert_refused(bad, LOAM_ERROR_INVALID, "as it is");
    bad = good;
    bad.keep_from_dumps = true;
    assert_refused(bad, LOAM_ERROR_INVALID, "as it is");
    bad = good;
    bad.thread_count = 1;
    assert_refused(bad, LOAM_ERROR_INVALID, "as it is");
    bad = good;
    bad.placement = LOAM_PLACEMENT_STRICT;
    bad.node_mask = 1;
    assert_refused(bad, LOAM_ERROR_INVALID, "as it is");
    bad = good;
    bad.fd = 1;
    assert_refused(bad, LOAM_ERROR_INVALID, "as it is");
    bad = good;
    bad.commit = LOAM_COMMIT_LAZY;
    assert_refused(bad, LOAM_ERROR_INVALID, "as it is");
    munmap(memory, 2 * BYTES);
}
