// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *path_from(const char *variable)
{
    char *path = getenv(variable);

    cr_assert_not_null(path, "%s is not in the environment: run the test by Bazel", variable);
    return path;
}

char *loam_path(void)
{
    return path_from("LOAM");
}

char *sabotage_path(void)
{
    return path_from("LOAM_SABOTAGE");
}

char *stop_path(void)
{
    return path_from("LOAM_STOP");
}

void need_kvm(void)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm, or no right to it");
    }
}

void need_root(void)
{
    if (geteuid() != 0) {
        cr_skip_test("root only");
    }
}

void need_file(const char *path)
{
    if (access(path, R_OK) != 0) {
        cr_skip_test("%s is not installed", path);
    }
}

static uint64_t pool_figure(unsigned kib, const char *name)
{
    uint64_t figure = 0;
    char path[128];
    FILE *file;

    snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%ukB/%s", kib, name);
    file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%" SCNu64, &figure) != 1) {
            figure = 0;
        }
        fclose(file);
    }
    return figure;
}

struct host_pools host_pools(void)
{
    return (struct host_pools){pool_figure(2048, "free_hugepages"), pool_figure(2048, "resv_hugepages"),
                               pool_figure(1048576, "free_hugepages"), pool_figure(1048576, "resv_hugepages")};
}

uint64_t free_pages(const char *pages)
{
    struct host_pools pools = host_pools();

    return strcmp(pages, "1G") == 0 ? pools.free_1g - pools.reserved_1g : pools.free_2m - pools.reserved_2m;
}

void need_pool(const char *pages, uint64_t bytes)
{
    uint64_t page_bytes = strcmp(pages, "1G") == 0 ? UINT64_C(1) << 30 : UINT64_C(1) << 21;

    if (strcmp(pages, "1G") != 0 && strcmp(pages, "2M") != 0) {
        return;
    }
    if (free_pages(pages) < bytes / page_bytes) {
        cr_skip_test("%" PRIu64 " hugepages of %s wanted, %" PRIu64 " free: tools/test raises the pool when root",
                     bytes / page_bytes, pages, free_pages(pages));
    }
}

const json_t *find_check(const json_t *root, const char *name)
{
    const json_t *checks = json_object_get(root, "checks");

    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);
        const char *found = json_string_value(json_object_get(check, "check"));

        if (found != NULL && strcmp(found, name) == 0) {
            return check;
        }
    }
    return NULL;
}
