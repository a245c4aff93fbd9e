// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/host_facts.h"

#include "tools/libvirt/connection.h"

#include <inttypes.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MICROVM_MACHINE "microvm"
#define STATISTIC_MAX   32

/* Once for each thing that is not said: nodes may all fail alike. */
static void note_line(struct host_facts *facts, const char *what, const char *why)
{
    for (uint32_t i = 0; i < facts->note_count; i++) {
        if (strcmp(facts->notes[i].what, what) == 0) {
            return;
        }
    }
    if (facts->note_count < HOST_FACTS_NOTE_MAX) {
        struct host_note *last = &facts->notes[facts->note_count++];

        snprintf(last->what, sizeof last->what, "%s", what);
        snprintf(last->why, sizeof last->why, "%.*s", (int)sizeof last->why - 1, why);
    }
}

static void note(struct host_facts *facts, const char *what)
{
    char why[HOST_FACTS_TEXT_BYTES];

    connection_last_error(why, sizeof why);
    note_line(facts, what, why);
}

/* A text that is the caller's to free. */
static void keep_text(char *text, char *to, size_t room)
{
    snprintf(to, room, "%s", text == NULL ? "" : text);
    free(text);
}

/* --- The daemon and its driver ---------------------------------------------------------------------------------- */

static void ask_versions(virConnectPtr connection, struct host_facts *facts)
{
    unsigned long version = 0;
    const char *driver = virConnectGetType(connection);

    snprintf(facts->driver, sizeof facts->driver, "%s", driver == NULL ? "" : driver);
    if (virConnectGetVersion(connection, &version) == 0 && version > 0) {
        facts->hypervisor_version = version;
    } else {
        note(facts, "version of the hypervisor");
    }
    if (virConnectGetLibVersion(connection, &version) == 0) {
        facts->daemon_version = version;
    } else {
        note(facts, "version of the daemon");
    }
    if (virGetVersion(&version, NULL, NULL) == 0) {
        facts->client_version = version;
    }
}

static void ask_size(virConnectPtr connection, struct host_facts *facts)
{
    virNodeInfo info;

    if (virNodeGetInfo(connection, &info) == 0) {
        facts->cpu_count = info.cpus;
        facts->total_bytes = info.memory * UINT64_C(1024);
    } else {
        note(facts, "size of the host");
    }
}

static void ask_vcpus(virConnectPtr connection, struct host_facts *facts)
{
    int most = virConnectGetMaxVcpus(connection, NULL);

    if (most > 0) {
        facts->vcpu_max = (uint64_t)most;
    } else {
        note(facts, "most vCPUs of a guest");
    }
}

/* --- Memory ----------------------------------------------------------------------------------------------------- */

static void take_statistic(const virNodeMemoryStats *statistic, struct host_facts *facts)
{
    uint64_t bytes = statistic->value * UINT64_C(1024);

    if (statistic->value >= UINT64_MAX / 1024) {
        return;
    }
    if (strcmp(statistic->field, VIR_NODE_MEMORY_STATS_TOTAL) == 0) {
        facts->total_bytes = bytes;
    } else if (strcmp(statistic->field, VIR_NODE_MEMORY_STATS_FREE) == 0) {
        facts->free_bytes = bytes;
    } else if (strcmp(statistic->field, VIR_NODE_MEMORY_STATS_CACHED) == 0) {
        facts->cached_bytes = bytes;
    }
}

/* Of the whole host; a driver without statistics may still know how much is free. */
static void ask_memory(virConnectPtr connection, struct host_facts *facts)
{
    virNodeMemoryStats statistics[STATISTIC_MAX];
    int count = 0;

    if (virNodeGetMemoryStats(connection, VIR_NODE_MEMORY_STATS_ALL_CELLS, NULL, &count, 0) == 0 && count > 0 &&
        count <= STATISTIC_MAX &&
        virNodeGetMemoryStats(connection, VIR_NODE_MEMORY_STATS_ALL_CELLS, statistics, &count, 0) == 0) {
        for (int i = 0; i < count && i < STATISTIC_MAX; i++) {
            take_statistic(&statistics[i], facts);
        }
        return;
    }
    note(facts, "memory statistics");
    unsigned long long free_bytes = virNodeGetFreeMemory(connection);

    if (free_bytes > 0) {
        facts->free_bytes = free_bytes;
    }
}

static void ask_free_pages(virConnectPtr connection, struct host_node *node, struct host_facts *facts)
{
    unsigned sizes_kib[CAPABILITIES_POOL_MAX];
    unsigned long long counts[CAPABILITIES_POOL_MAX];

    for (uint32_t i = 0; i < node->pool_count; i++) {
        sizes_kib[i] = (unsigned)(node->pools[i].page_bytes / 1024);
        counts[i] = CAPABILITIES_UNSAID;
    }
    if (node->pool_count == 0) {
        return;
    }
    if (virNodeGetFreePages(connection, node->pool_count, sizes_kib, (int)node->id, 1, counts, 0) < 0) {
        note(facts, "free hugepages");
        return;
    }
    for (uint32_t i = 0; i < node->pool_count; i++) {
        node->pools[i].free_count = counts[i];
    }
}

static void ask_nodes(virConnectPtr connection, struct host_facts *facts)
{
    for (uint32_t i = 0; i < facts->capabilities.node_count; i++) {
        struct host_node *node = &facts->capabilities.nodes[i];
        unsigned long long free_bytes;

        if (virNodeGetCellsFreeMemory(connection, &free_bytes, (int)node->id, 1) == 1) {
            node->free_bytes = free_bytes;
        } else {
            note(facts, "free memory of nodes");
        }
        ask_free_pages(connection, node, facts);
    }
}

static void ask_capabilities(virConnectPtr connection, struct host_facts *facts)
{
    char *xml = virConnectGetCapabilities(connection);
    struct loam_diag diag = {0};

    if (xml == NULL) {
        note(facts, "nodes and pools");
    } else if (capabilities_read(xml, &facts->capabilities, &diag) != LOAM_OK) {
        note_line(facts, "nodes and pools", diag.text);
    }
    free(xml);
}

/* --- Emulators -------------------------------------------------------------------------------------------------- */

/* An emulator of its own path is asked for the machine that Loam has; libvirt's choice for whichever it takes. */
static void ask_emulator(virConnectPtr connection, const char *path, struct host_emulator *emulator)
{
    struct loam_diag diag = {0};
    char *xml;

    snprintf(emulator->asked, sizeof emulator->asked, "%s", path == NULL ? "" : path);
    xml = virConnectGetDomainCapabilities(connection, path, NULL, path == NULL ? NULL : MICROVM_MACHINE, NULL, 0);
    if (xml == NULL) {
        connection_last_error(emulator->error, sizeof emulator->error);
        emulator->is_unsaid = virGetLastError() != NULL && virGetLastError()->code == VIR_ERR_NO_SUPPORT;
    } else if (domain_capabilities_read(xml, &emulator->can, &diag) != LOAM_OK) {
        snprintf(emulator->error, sizeof emulator->error, "%.*s", (int)sizeof emulator->error - 1, diag.text);
    }
    free(xml);
}

/* --- All of it -------------------------------------------------------------------------------------------------- */

void host_facts_collect(virConnectPtr connection, const struct host_facts_request *request, struct host_facts *facts)
{
    *facts = (struct host_facts){.hypervisor_version = CAPABILITIES_UNSAID,
                                 .daemon_version = CAPABILITIES_UNSAID,
                                 .client_version = CAPABILITIES_UNSAID,
                                 .vcpu_max = CAPABILITIES_UNSAID,
                                 .cpu_count = CAPABILITIES_UNSAID,
                                 .total_bytes = CAPABILITIES_UNSAID,
                                 .free_bytes = CAPABILITIES_UNSAID,
                                 .cached_bytes = CAPABILITIES_UNSAID};
    keep_text(virConnectGetHostname(connection), facts->hostname, sizeof facts->hostname);
    ask_capabilities(connection, facts);
    ask_versions(connection, facts);
    ask_size(connection, facts);
    ask_vcpus(connection, facts);
    ask_memory(connection, facts);
    ask_nodes(connection, facts);
    for (uint32_t i = 0; i < request->emulator_count && i < HOST_FACTS_EMULATOR_MAX; i++) {
        ask_emulator(connection, request->emulators[i], &facts->emulators[facts->emulator_count++]);
    }
}

enum host_answer host_facts_kvm(const struct host_facts *facts)
{
    enum host_answer answer = facts->capabilities.says_kvm ? HOST_YES : HOST_UNSAID;

    for (uint32_t i = 0; i < facts->emulator_count; i++) {
        const struct host_emulator *emulator = &facts->emulators[i];

        if (emulator->error[0] == '\0' && strcmp(emulator->can.type, "kvm") == 0) {
            return HOST_YES;
        }
        if (emulator->error[0] == '\0' && answer == HOST_UNSAID) {
            answer = HOST_NO;
        }
    }
    return answer;
}

struct host_version host_facts_version(uint64_t version)
{
    struct host_version text = {"unknown"};

    if (version != CAPABILITIES_UNSAID) {
        snprintf(text.text, sizeof text.text, "%" PRIu64 ".%" PRIu64 ".%" PRIu64, version / 1000000,
                 version / 1000 % 1000, version % 1000);
    }
    return text;
}
