// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/reserve.h"

#include "tools/libvirt/capabilities.h"
#include "tools/libvirt/connection.h"

#include <errno.h>
#include <inttypes.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One request as it is carried out. */
struct reserving {
    virConnectPtr connection;
    const struct reserve_request *request;
    struct reserve_outcome *outcome;
    struct record record;
    struct capabilities host; /* as it was read last */
};

static enum loam_error read_host(struct reserving *reserving)
{
    struct loam_diag *diag = &reserving->outcome->diag;
    char *xml = virConnectGetCapabilities(reserving->connection);
    enum loam_error error;

    if (xml == NULL) {
        return connection_fail(diag, "the pools as they are now cannot be read");
    }
    error = capabilities_read(xml, &reserving->host, diag);
    free(xml);
    return error;
}

/* --- Pools ------------------------------------------------------------------------------------------------------ */

static bool is_meant(const struct pool_wish *wish, uint32_t node)
{
    return wish->node == WORDS_NODE_ANY || wish->node == node;
}

/* Pages of all nodes that are meant. false: there is no such pool. */
static bool count_pages(struct reserving *reserving, const struct pool_wish *wish, uint64_t *count)
{
    bool found = false;

    *count = 0;
    for (uint32_t i = 0; i < reserving->host.node_count; i++) {
        struct host_node *node = &reserving->host.nodes[i];
        const struct host_pool *pool = is_meant(wish, node->id) ? capabilities_pool(node, wish->page_bytes) : NULL;

        if (pool != NULL) {
            *count += pool->total_count;
            found = true;
        }
    }
    return found;
}

static enum loam_error check_wish(struct reserving *reserving, uint32_t index)
{
    const struct reserve_request *request = reserving->request;
    const struct pool_wish *wish = &request->wishes[index];
    struct loam_diag *diag = &reserving->outcome->diag;
    uint64_t count;

    if (wish->node != WORDS_NODE_ANY && capabilities_node(&reserving->host, wish->node) == NULL) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "%s: there is no node %" PRIu32 ": loam host lists them",
                         words_pool(wish).text, wish->node);
    }
    if (!count_pages(reserving, wish, &count)) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "%s: the host has no pages of that size: loam host lists them",
                         words_pool(wish).text);
    }
    for (uint32_t i = 0; i < index; i++) {
        const struct pool_wish *other = &request->wishes[i];

        if (other->page_bytes == wish->page_bytes && (is_meant(other, wish->node) || is_meant(wish, other->node))) {
            return loam_fail(diag, LOAM_ERROR_INVALID, "%s and %s are the same pool, or a part of it: give one",
                             words_pool(other).text, words_pool(wish).text);
        }
    }
    return LOAM_OK;
}

/* Set one pool; node WORDS_NODE_ANY: the host's, which the kernel spreads. Whether it was set, if not to what was asked. */
static bool set_pool(struct reserving *reserving, const struct pool_wish *wish, struct reserve_line *line)
{
    unsigned size_kib = (unsigned)(wish->page_bytes / 1024);
    unsigned long long count = wish->count;
    int node = wish->node == WORDS_NODE_ANY ? -1 : (int)wish->node;

    if (virNodeAllocPages(reserving->connection, 1, &size_kib, &count, node, 1, VIR_NODE_ALLOC_PAGES_SET) >= 0) {
        return true;
    }
    connection_last_error(line->why, sizeof line->why);
    return virGetLastError() != NULL && virGetLastError()->code == VIR_ERR_OPERATION_FAILED;
}

/* --- Reserving -------------------------------------------------------------------------------------------------- */

/* Write down what all pools that are meant have, before they change or after. */
static enum loam_error write_down(struct reserving *reserving, const struct pool_wish *wish, bool is_before)
{
    struct loam_diag *diag = &reserving->outcome->diag;

    for (uint32_t i = 0; i < reserving->host.node_count; i++) {
        struct host_node *node = &reserving->host.nodes[i];
        const struct host_pool *pool = is_meant(wish, node->id) ? capabilities_pool(node, wish->page_bytes) : NULL;

        if (pool == NULL) {
            continue;
        }
        if (!is_before) {
            record_settle(&reserving->record, wish->page_bytes, node->id, pool->total_count);
        } else if (record_begin(&reserving->record, wish->page_bytes, node->id, pool->total_count) != LOAM_OK) {
            return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                             "more than %u pools to be given back: give some back first (--give-back)",
                             RECORD_ENTRY_MAX);
        }
    }
    return record_store(&reserving->record, diag);
}

static enum loam_error reserve_pool(struct reserving *reserving, const struct pool_wish *wish)
{
    struct reserve_line *line = &reserving->outcome->lines[reserving->outcome->count];
    enum loam_error error = read_host(reserving);

    *line = (struct reserve_line){.pool = *wish};
    if (error != LOAM_OK) {
        return error;
    }
    count_pages(reserving, wish, &line->had);
    error = write_down(reserving, wish, true);
    if (error != LOAM_OK) {
        return error;
    }
    line->is_in_use = set_pool(reserving, wish, line);
    error = read_host(reserving);
    if (error != LOAM_OK) {
        return error; /* the record says that a change was under way, and --give-back will see to it */
    }
    count_pages(reserving, wish, &line->got);
    line->is_in_use = line->is_in_use && line->got > wish->count;
    reserving->outcome->count++;
    return write_down(reserving, wish, false);
}

static enum loam_error reserve_all(struct reserving *reserving)
{
    const struct reserve_request *request = reserving->request;
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < request->count; i++) {
        struct pool_wish wish = request->wishes[i];

        if (wish.node == WORDS_NODE_ANY && reserving->host.node_count == 1) {
            wish.node = reserving->host.nodes[0].id;
        }
        error = reserve_pool(reserving, &wish);
    }
    return error;
}

/* --- Giving back ------------------------------------------------------------------------------------------------ */

static bool is_asked_for(const struct reserve_request *request, const struct record_entry *entry)
{
    for (uint32_t i = 0; i < request->count; i++) {
        if (request->wishes[i].page_bytes == entry->page_bytes && is_meant(&request->wishes[i], entry->node)) {
            return true;
        }
    }
    return request->count == 0;
}

/* The entry goes if the pool was set; what libvirt refused stays to be given back. */
static enum loam_error return_pool(struct reserving *reserving, uint32_t index)
{
    struct record_entry *entry = &reserving->record.entries[index];
    struct reserve_line *line = &reserving->outcome->lines[reserving->outcome->count];
    enum loam_error error = read_host(reserving);
    bool was_set;

    *line = (struct reserve_line){.pool = {entry->page_bytes, 0, true, entry->node}};
    if (error != LOAM_OK) {
        return error;
    }
    count_pages(reserving, &line->pool, &line->had);
    line->pool.count = record_target(entry, line->had);
    was_set = line->pool.count == line->had || set_pool(reserving, &line->pool, line);
    error = read_host(reserving);
    if (error != LOAM_OK) {
        return error;
    }
    count_pages(reserving, &line->pool, &line->got);
    line->is_in_use = was_set && line->got > line->pool.count;
    reserving->outcome->count++;
    if (was_set && line->got >= line->pool.count) {
        record_drop(&reserving->record, index);
    } else {
        entry->before = line->pool.count;
        record_settle(&reserving->record, entry->page_bytes, entry->node, line->got);
    }
    return record_store(&reserving->record, &reserving->outcome->diag);
}

/* The last first, as it is with anything that lies on something else. */
static enum loam_error return_all(struct reserving *reserving)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = reserving->record.count; error == LOAM_OK && i > 0; i--) {
        if (is_asked_for(reserving->request, &reserving->record.entries[i - 1])) {
            error = return_pool(reserving, i - 1);
        }
    }
    return error;
}

void reserve_run(virConnectPtr connection, const struct reserve_request *request, struct reserve_outcome *outcome)
{
    struct reserving reserving = {.connection = connection, .request = request, .outcome = outcome};
    enum loam_error error;

    *outcome = (struct reserve_outcome){0};
    error = read_host(&reserving);
    for (uint32_t i = 0; error == LOAM_OK && i < request->count; i++) {
        error = check_wish(&reserving, i);
    }
    if (error == LOAM_OK) {
        error = record_open(&reserving.record, request->uri, &outcome->diag);
    }
    if (error == LOAM_OK) {
        error = request->give_back ? return_all(&reserving) : reserve_all(&reserving);
        record_close(&reserving.record);
    }
    outcome->diag.error = error;
}

bool reserve_is_met(const struct reserve_line *line)
{
    return line->got == line->pool.count || line->is_in_use;
}
