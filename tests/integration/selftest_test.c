// SPDX-License-Identifier: Apache-2.0
/* The self-test microVM, launched as a person launches it, at the sizes and on the pages that matter. */
#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#define MIB 1048576u

struct launch_case {
    char memory[16], pages[8], low_limit[8];
    uint64_t bytes;
    unsigned part_count;
};

static json_int_t bytes_of(const json_t *root, const char *name)
{
    return json_integer_value(json_object_get(find_check(root, name), "bytes"));
}

/* All RAM but the legacy window (384 KiB), the read-only range (8 KiB) and what the guest keeps of it (below 4 MiB). */
static void check_ram(const json_t *root, uint64_t bytes)
{
    json_int_t most = (json_int_t)(bytes - 384 * 1024 - 8192), least = most - 4 * (json_int_t)MIB;

    cr_expect(bytes_of(root, "ram") <= most && bytes_of(root, "ram") >= least, "ram covers %lld of %lld bytes",
              (long long)bytes_of(root, "ram"), (long long)most);
    cr_expect_eq(bytes_of(root, "ram"), bytes_of(root, "alias"));
}

static void check_launch(const struct launch_case *launch)
{
    struct host_pools before = host_pools(), after;
    struct process process;
    char *argv[] = {loam_path(),
                    "run",
                    "--json",
                    "--memory",
                    (char *)launch->memory,
                    "--pages",
                    (char *)launch->pages,
                    "--low-limit",
                    (char *)launch->low_limit,
                    NULL};
    json_t *root;

    need_kvm();
    need_pool(launch->pages, launch->bytes);
    cr_assert_eq(process_run(&process, argv, 600000), 0, "exit %d: %s", process.status, process.err);
    root = json_loads(process.out, 0, NULL);
    cr_assert_not_null(root, "no JSON: %s", process.out);
    cr_expect_str_eq(json_string_value(json_object_get(root, "verdict")), "pass");
    cr_expect_eq(json_array_size(json_object_get(root, "checks")), 8);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "plan"), "pages")), launch->pages);
    cr_expect_eq(json_array_size(json_object_get(json_object_get(root, "plan"), "parts")), launch->part_count);
    check_ram(root, launch->bytes);
    json_decref(root);
    process_end(&process);
    after = host_pools();
    cr_expect_arr_eq(&before, &after, sizeof before, "hugepages were not given back");
}

ParameterizedTestParameters(selftest, everyday)
{
    static struct launch_case launches[] = {
        {"64M", "4K", "3G", 64 * MIB, 1},        {"64M", "thp", "3G", 64 * MIB, 1},
        {"64M", "2M", "32M", 64 * MIB, 2},       {"64M", "4K", "2M", 64 * MIB, 2},
        {"65540K", "4K", "3G", 65540 * 1024, 1}, {"256M", "2M", "3G", 256 * MIB, 1},
        {"256M", "thp", "128M", 256 * MIB, 2},
    };

    return cr_make_param_array(struct launch_case, launches, sizeof launches / sizeof launches[0]);
}

ParameterizedTest(struct launch_case *launch, selftest, everyday)
{
    check_launch(launch);
}

ParameterizedTestParameters(selftest, around_the_hole)
{
    static struct launch_case launches[] = {
        {"3584M", "2M", "3G", 3584ull * MIB, 2},
        {"6G", "2M", "3G", 6144ull * MIB, 2},
        {"2G", "1G", "1G", 2048ull * MIB, 2},
    };

    return cr_make_param_array(struct launch_case, launches, sizeof launches / sizeof launches[0]);
}

ParameterizedTest(struct launch_case *launch, selftest, around_the_hole)
{
    check_launch(launch);
}

/* auto takes the largest kind that the host can give, and says so. */
Test(selftest, auto_says_what_it_got)
{
    struct process process;
    char *argv[] = {loam_path(), "run", "--json", "--memory", "64M", NULL};
    const char *pages;
    json_t *root;

    need_kvm();
    cr_assert_eq(process_run(&process, argv, 120000), 0, "exit %d: %s", process.status, process.err);
    root = json_loads(process.out, 0, NULL);
    pages = json_string_value(json_object_get(json_object_get(root, "plan"), "pages"));
    cr_assert_not_null(pages);
    cr_expect_str_eq(pages, free_pages("2M") * 2 >= 64 ? "2M" : "thp");
    json_decref(root);
    process_end(&process);
}

/* More processors than one: the others wait for a start that the self-test does not give them. */
Test(selftest, two_vcpus)
{
    struct process process;
    char *argv[] = {loam_path(), "run", "--json", "--memory", "64M", "--pages", "4K", "--vcpus", "2", NULL};

    need_kvm();
    cr_expect_eq(process_run(&process, argv, 120000), 0, "exit %d: %s", process.status, process.err);
    process_end(&process);
}

/* RAM of three kinds, of which the guest sees no seam: one range on each side of the hole. */
Test(selftest, memory_in_parts)
{
    struct process process;
    char *argv[] = {loam_path(),
                    "run",
                    "--json",
                    "--memory",
                    "size=32M,pages=2M",
                    "--memory",
                    "size=24M,pages=4K,policy=interleave,node=0",
                    "--memory",
                    "size=4M,pages=4K,share=off",
                    "--low-limit",
                    "16M",
                    NULL};
    json_t *root;

    need_kvm();
    need_pool("2M", 32 * MIB);
    cr_assert_eq(process_run(&process, argv, 120000), 0, "exit %d: %s", process.status, process.err);
    root = json_loads(process.out, 0, NULL);
    cr_assert_not_null(root, "no JSON: %s", process.out);
    cr_expect_str_eq(json_string_value(json_object_get(root, "verdict")), "pass");
    cr_expect_eq(json_array_size(json_object_get(json_object_get(root, "plan"), "parts")), 4);
    check_ram(root, 60 * MIB);
    json_decref(root);
    process_end(&process);
}
