// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/record.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define URI  "qemu:///system"
#define PAGE (UINT64_C(2) << 20)

static char home[] = "/tmp/loam-record.XXXXXX";
static char path[128];

static void make_home(void)
{
    cr_assert_not_null(mkdtemp(home));
    setenv("XDG_STATE_HOME", home, 1);
    snprintf(path, sizeof path, "%s/loam/reserved.json", home);
}

static void remove_home(void)
{
    char folder[128];

    unlink(path);
    snprintf(folder, sizeof folder, "%s/loam", home);
    rmdir(folder);
    cr_expect_eq(rmdir(home), 0, "something is left in %s", home);
}

TestSuite(record, .init = make_home, .fini = remove_home);

static struct record open_record(const char *uri)
{
    struct record record;
    struct loam_diag diag = {0};

    cr_assert_eq(record_open(&record, uri, &diag), LOAM_OK, "%s", diag.text);
    return record;
}

static void write_text(const char *text)
{
    struct record record;
    FILE *file;

    unlink(path);
    record = open_record(URI); /* which makes the folder */
    record_close(&record);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

Test(record, what_was_stored_is_there)
{
    struct record record = open_record(URI);

    cr_expect_eq(record.count, 0);
    cr_expect_eq(record_begin(&record, PAGE, 0, 10), LOAM_OK);
    cr_expect_eq(record_begin(&record, PAGE, 1, 20), LOAM_OK);
    record_settle(&record, PAGE, 0, 512);
    cr_expect_eq(record_store(&record, NULL), LOAM_OK);
    record_close(&record);
    record = open_record("test:///default");
    cr_expect_eq(record.count, 0, "by URI");
    cr_expect_eq(record_begin(&record, PAGE, 0, 1), LOAM_OK);
    cr_expect_eq(record_store(&record, NULL), LOAM_OK);
    record_close(&record);
    record = open_record(URI);
    cr_assert_eq(record.count, 2);
    cr_expect_eq(record.entries[0].before, 10);
    cr_expect_eq(record.entries[0].after, 512);
    cr_expect(record.entries[0].is_settled);
    cr_expect_eq(record.entries[1].node, 1);
    cr_expect_not(record.entries[1].is_settled);
    record_drop(&record, 0);
    record_drop(&record, 0);
    cr_expect_eq(record_store(&record, NULL), LOAM_OK);
    record_close(&record);
    record = open_record("test:///default");
    cr_expect_eq(record.count, 1, "another's stays");
    record.count = 0;
    cr_expect_eq(record_store(&record, NULL), LOAM_OK);
    cr_expect_eq(access(path, F_OK), -1, "nothing is to be given back, so there is no file");
    cr_expect_eq(record_store(&record, NULL), LOAM_OK);
    record_close(&record);
}

Test(record, one_at_a_time)
{
    struct record record = open_record(URI), other;
    struct loam_diag diag = {0};

    cr_expect_eq(record_open(&other, URI, &diag), LOAM_ERROR_BUSY);
    cr_expect_not_null(strstr(diag.text, "try again"));
    record_close(&record);
    other = open_record(URI);
    record_close(&other);
}

Test(record, a_file_of_others_is_refused)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{\"qemu:///system\": 5}",
        "{\"qemu:///system\": [5]}",
        "{\"qemu:///system\": [{}]}",
        "{\"qemu:///system\": [{\"page_bytes\": 0, \"node\": 0, \"before\": 0, \"after\": 1}]}",
        "{\"qemu:///system\": [{\"page_bytes\": 4096, \"node\": -1, \"before\": 0, \"after\": 1}]}",
        "{\"qemu:///system\": [{\"page_bytes\": 4096, \"node\": 4294967295, \"before\": 0, \"after\": 1}]}",
        "{\"qemu:///system\": [{\"page_bytes\": 4096, \"node\": 0, \"before\": \"0\", \"after\": 1}]}",
        "{\"qemu:///system\": [{\"page_bytes\": 4096, \"node\": 0, \"before\": 0}]}",
        "{\"a\": [], \"a\": []}",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct loam_diag diag = {0};
        struct record record;

        write_text(bad[i]);
        cr_expect_eq(record_open(&record, URI, &diag), LOAM_ERROR_CORRUPT, "%s", bad[i]);
        cr_expect_not_null(strstr(diag.text, path), "%s", diag.text);
        cr_expect_eq(access(path, F_OK), 0, "it is not ours to remove");
    }
}

Test(record, more_than_it_holds)
{
    struct record record = open_record(URI);

    for (uint32_t i = 0; i < RECORD_ENTRY_MAX; i++) {
        cr_expect_eq(record_begin(&record, PAGE, i, 0), LOAM_OK);
    }
    cr_expect_eq(record_begin(&record, PAGE, RECORD_ENTRY_MAX, 0), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(record_begin(&record, PAGE, 5, 0), LOAM_OK, "one that is there has its place");
    record_close(&record);
}

Test(record, no_place_for_it)
{
    struct loam_diag diag = {0};
    struct record record;

    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    cr_expect_eq(record_open(&record, URI, &diag), LOAM_ERROR_INVALID);
    setenv("XDG_STATE_HOME", "/proc/none", 1);
    cr_expect_eq(record_open(&record, URI, &diag), LOAM_ERROR_SYSTEM);
    setenv("XDG_STATE_HOME", "", 1);
    setenv("HOME", "/dev/null", 1);
    cr_expect_eq(record_open(&record, URI, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_eq(record_open(&record, "\xff", &diag), LOAM_ERROR_INVALID);
}

/* A symbolic link in place of the file leads nowhere. */
Test(record, a_link_is_not_followed)
{
    struct loam_diag diag = {0};
    struct record record;

    char other[sizeof path + 8];

    write_text("{}");
    snprintf(other, sizeof other, "%s.other", path);
    cr_assert_eq(rename(path, other), 0);
    cr_assert_eq(symlink(other, path), 0);
    cr_expect_eq(record_open(&record, URI, &diag), LOAM_ERROR_SYSTEM);
    unlink(path);
    cr_assert_eq(symlink("/dev/zero", path), 0);
    cr_expect_eq(record_open(&record, URI, &diag), LOAM_ERROR_SYSTEM);
    unlink(other);
}

/* --- What a return leads to -------------------------------------------------------------------------------------- */

static uint64_t target(uint64_t before, uint64_t after, uint64_t now)
{
    return record_target(&(struct record_entry){PAGE, 0, before, after, true}, now);
}

Test(record, a_return_takes_away_what_was_added)
{
    cr_expect_eq(target(0, 512, 512), 0);
    cr_expect_eq(target(100, 512, 512), 100);
    cr_expect_eq(target(100, 512, 600), 188, "88 are somebody else's");
    cr_expect_eq(target(100, 512, 100), 100, "given back already, or the host was started anew");
    cr_expect_eq(target(100, 512, 300), 100);
    cr_expect_eq(target(100, 512, 20), 20, "what others took away is not put back");
    cr_expect_eq(record_target(&(struct record_entry){PAGE, 0, 100, 0, false}, 512), 100, "it died before it knew");
}

Test(record, a_return_puts_back_what_was_taken)
{
    cr_expect_eq(target(512, 100, 100), 512);
    cr_expect_eq(target(512, 100, 50), 462);
    cr_expect_eq(target(512, 100, 512), 512);
    cr_expect_eq(target(512, 100, 300), 512);
    cr_expect_eq(target(512, 100, 600), 600);
    cr_expect_eq(target(UINT64_MAX, 0, 0), UINT64_MAX);
    cr_expect_eq(target(UINT64_MAX - 1, 5, 4), UINT64_MAX - 2);
}

/* Any number of reserves, then a return: all is as before, and what others did meanwhile stays. */
Test(record, random_reserves_and_one_return)
{
    for (uint64_t seed = 1; seed <= 5000; seed++) {
        struct random random = {seed};
        struct record record = {.folder = -1};
        uint64_t pool = random_below(&random, 1000), others = pool;

        for (uint32_t i = random_below(&random, 6); i > 0; i--) {
            if (random_one_in(&random, 3)) {
                uint32_t more = random_below(&random, 50);

                pool += more;
                others += more;
            }
            cr_assert_eq(record_begin(&record, PAGE, 0, pool), LOAM_OK);
            pool = others + random_below(&random, 1000); /* a reserve sets it to anything from there up */
            record_settle(&record, PAGE, 0, pool);
        }
        if (record.count > 0) {
            pool = record_target(&record.entries[0], pool);
        }
        cr_assert_eq(pool, others, "seed %" PRIu64 ": %" PRIu64 " and not %" PRIu64, seed, pool, others);
    }
}
