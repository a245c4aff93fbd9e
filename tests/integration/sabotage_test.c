// SPDX-License-Identifier: Apache-2.0
/* A self-test that cannot fail is worthless: each promise is broken once, and the check that must notice does. */
#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <string.h>

struct sabotage_case {
    char sabotage[16], check[16];
    bool by_guest; /* false: it happens after the guest has looked, and the host notices */
};

ParameterizedTestParameters(sabotage, is_noticed)
{
    static struct sabotage_case cases[] = {
        {"flip", "alias", true},        {"swap", "alias", true},       {"ram", "ram", true},
        {"pattern", "pattern", true},   {"echo", "echo", false},       {"dma-high", "dma32", true},
        {"dma-dirty", "dma32", true},   {"dma-shared", "dma32", true}, {"ring", "ring", true},
        {"readonly", "readonly", true}, {"hole", "hole", true},
    };

    return cr_make_param_array(struct sabotage_case, cases, sizeof cases / sizeof cases[0]);
}

/* The check that must notice fails; of the others none does, but for alias when RAM takes no writes. */
static void check_others(const json_t *root, const struct sabotage_case *sabotage)
{
    const json_t *checks = json_object_get(root, "checks");

    cr_expect_eq(json_array_size(checks), 8);
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);
        const char *name = json_string_value(json_object_get(check, "check"));

        if (strcmp(name, sabotage->check) != 0 && strcmp(sabotage->sabotage, "ram") != 0) {
            cr_expect(json_is_true(json_object_get(check, "guest")), "%s: guest fails %s", sabotage->sabotage, name);
        }
    }
}

ParameterizedTest(struct sabotage_case *sabotage, sabotage, is_noticed)
{
    struct process process;
    char *argv[] = {sabotage_path(), "run", "--json",     "--memory",         "64M", "--pages", "4K",
                    "--low-limit",   "32M", "--sabotage", sabotage->sabotage, NULL};
    const json_t *check;
    json_t *root;

    need_kvm();
    cr_assert_eq(process_run(&process, argv, 120000), 1, "exit %d: %s%s", process.status, process.out, process.err);
    root = json_loads(process.out, 0, NULL);
    check = find_check(root, sabotage->check);
    cr_assert_not_null(check, "no check %s in %s", sabotage->check, process.out);
    cr_expect_str_eq(json_string_value(json_object_get(root, "verdict")), "fail");
    cr_expect(json_is_false(json_object_get(check, sabotage->by_guest ? "guest" : "host")), "%s: %s did not notice: %s",
              sabotage->sabotage, sabotage->check, process.out);
    check_others(root, sabotage);
    json_decref(root);
    process_end(&process);
}

/* The same build without sabotage passes; and the program itself knows no such option. */
Test(sabotage, only_where_asked_for)
{
    struct process process;
    char *without[] = {sabotage_path(), "run", "--memory", "64M", "--pages", "4K", "--low-limit", "32M", NULL};
    char *program[] = {loam_path(), "run", "--sabotage", "flip", NULL};

    need_kvm();
    cr_expect_eq(process_run(&process, without, 120000), 0, "%s%s", process.out, process.err);
    process_end(&process);
    cr_expect_eq(process_run(&process, program, 10000), 2);
    process_end(&process);
}
