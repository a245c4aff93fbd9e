// SPDX-License-Identifier: Apache-2.0
#include "allocator/backing_pool.h"

#include "allocator/prim.h"
#include "loam/backing.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FOLDER_BYTES 128

static_assert(FOLDER_BYTES + 32 <= BACKING_POOL_PATH_BYTES, "a folder and a file in it");

static bool read_number(const char *path, uint64_t *value)
{
    char text[64];
    char *end = text;

    *value = 0;
    if (!loam_prim_read_text(path, text, sizeof text)) {
        return false;
    }
    *value = strtoull(text, &end, 10);
    return end != text;
}

/* The folder of a pool's figures: the host's, or one node's part. */
static void pool_folder(char folder[FOLDER_BYTES], uint64_t page_bytes, int32_t node)
{
    uint64_t kib = page_bytes / LOAM_KIB;

    if (node == LOAM_NODE_ANY) {
        snprintf(folder, FOLDER_BYTES, "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB", kib);
    } else {
        snprintf(folder, FOLDER_BYTES, "/sys/devices/system/node/node%" PRId32 "/hugepages/hugepages-%" PRIu64 "kB",
                 node, kib);
    }
}

bool loam_backing_pool_read(uint64_t page_bytes, int32_t node, struct backing_pool *pool)
{
    char folder[FOLDER_BYTES], path[BACKING_POOL_PATH_BYTES];
    uint64_t free_pages, reserved = 0;

    pool_folder(folder, page_bytes, node);
    snprintf(pool->total_path, sizeof pool->total_path, "%s/nr_hugepages", folder);
    snprintf(path, sizeof path, "%s/free_hugepages", folder);
    if (!read_number(pool->total_path, &pool->total) || !read_number(path, &free_pages)) {
        return false;
    }
    snprintf(path, sizeof path, "%s/resv_hugepages", folder);
    if (node == LOAM_NODE_ANY && !read_number(path, &reserved)) {
        return false;
    }
    pool->available = free_pages > reserved ? free_pages - reserved : 0;
    return true;
}
