// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/choose.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const struct page_kind huge = {PAGE_SOURCE_POOL, 2 * MIB}, huger = {PAGE_SOURCE_POOL, GIB},
                              small = {PAGE_SOURCE_BASE, WORDS_BASE_BYTES}, thp = {PAGE_SOURCE_THP, WORDS_BASE_BYTES};

static struct choose_request request_of(uint64_t memory_bytes, struct page_kind kind)
{
    return (struct choose_request){.memory_bytes = memory_bytes, .kinds = {kind}, .kind_count = 1, .vcpu_count = 1};
}

/* A host on KVM without a node. */
static struct host_facts host_of(void)
{
    return (struct host_facts){.vcpu_max = 8,
                               .total_bytes = CAPABILITIES_UNSAID,
                               .free_bytes = CAPABILITIES_UNSAID,
                               .cached_bytes = CAPABILITIES_UNSAID,
                               .capabilities = {.says_kvm = true}};
}

static void add_node(struct host_facts *host, uint32_t id, uint64_t free_bytes, uint64_t total_pages,
                     uint64_t free_pages)
{
    host->capabilities.nodes[host->capabilities.node_count++] =
        (struct host_node){.id = id,
                           .total_bytes = 64 * GIB,
                           .free_bytes = free_bytes,
                           .pool_count = 1,
                           .pools = {{2 * MIB, total_pages, free_pages}}};
}

static struct verdict judge(const struct choose_request *request, const struct host_facts *host)
{
    struct verdict verdict;

    choose_judge(request, "test:///default", host, &verdict);
    return verdict;
}

static void expect_says(const char *text, const char *words)
{
    cr_expect_not_null(strstr(text, words), "'%s' does not say '%s'", text, words);
}

/* --- One host --------------------------------------------------------------------------------------------------- */

Test(choose, the_node_with_the_most_left)
{
    struct choose_request request = request_of(100 * MIB, huge);
    struct host_facts host = host_of();
    struct verdict verdict;

    add_node(&host, 0, 0, 100, 60);
    add_node(&host, 4, 0, 100, 90);
    verdict = judge(&request, &host);
    cr_expect(verdict.can);
    cr_expect_eq(verdict.node, 4);
    cr_expect_eq(verdict.page_count, 50);
    cr_expect_eq(verdict.left_bytes, 40 * 2 * MIB);
    cr_expect_str_eq(verdict.mend, "");
    expect_says(verdict.why, "50 pages of 2M on node 4, 40 left (80 MiB)");
}

Test(choose, the_last_page_counts)
{
    struct choose_request request = request_of(100 * MIB, huge);
    struct host_facts host = host_of();

    add_node(&host, 0, 0, 50, 50);
    cr_expect(judge(&request, &host).can);
    cr_expect_eq(judge(&request, &host).left_bytes, 0);
    host.capabilities.nodes[0].pools[0].free_count = 49;
    cr_expect_not(judge(&request, &host).can);
}

Test(choose, several_nodes_together_unless_one_is_wanted)
{
    struct choose_request request = request_of(100 * MIB, huge);
    struct host_facts host = host_of();
    struct verdict verdict;

    add_node(&host, 0, GIB, 30, 30);
    add_node(&host, 1, 0, 30, 25);
    verdict = judge(&request, &host);
    cr_expect(verdict.can);
    cr_expect_eq(verdict.node, CHOOSE_NODES_ALL);
    cr_expect_eq(verdict.left_bytes, 5 * 2 * MIB);
    request.node_strict = true;
    verdict = judge(&request, &host);
    cr_expect_not(verdict.can);
    expect_says(verdict.why, "50 pages wanted, 30 free on node 0: 20 too few");
    cr_expect_str_eq(verdict.mend, "loam host reserve 2M:50@0 --connect test:///default");
}

Test(choose, what_would_mend_it_adds_to_what_is_in_use)
{
    struct choose_request request = request_of(100 * MIB, huge);
    struct host_facts host = host_of();
    struct verdict verdict;

    add_node(&host, 2, GIB, 1000, 10);
    choose_judge(&request, "qemu+unix:///system?socket=/a'b", &host, &verdict);
    cr_expect_str_eq(verdict.mend, "loam host reserve 2M:1040@2 --connect 'qemu+unix:///system?socket=/a'\\''b'");
}

Test(choose, what_has_no_memory_behind_it_mends_nothing)
{
    struct choose_request request = request_of(100 * MIB, huge);
    struct host_facts host = host_of();

    add_node(&host, 0, 40 * 2 * MIB, 1000, 10);
    cr_expect_str_eq(judge(&request, &host).mend, "loam host reserve 2M:1040@0 --connect test:///default");
    host.capabilities.nodes[0].free_bytes--;
    cr_expect_str_eq(judge(&request, &host).mend, "give less: --memory 20M");
    host.capabilities.nodes[0].free_bytes = CAPABILITIES_UNSAID;
    cr_expect_str_eq(judge(&request, &host).mend, "give less: --memory 20M");
}

Test(choose, kinds_in_their_order)
{
    struct choose_request request = request_of(GIB, huger);
    struct host_facts host = host_of();
    struct verdict verdict;

    request.kinds[1] = huge;
    request.kinds[2] = thp;
    request.kind_count = 3;
    add_node(&host, 0, 2 * GIB, 1000, 600);
    verdict = judge(&request, &host);
    cr_expect(verdict.can);
    cr_expect_eq(verdict.kind, 1);
    host.capabilities.nodes[0].pools[0].free_count = 1;
    verdict = judge(&request, &host);
    cr_expect(verdict.can);
    cr_expect_eq(verdict.kind, 2);
    cr_expect_eq(verdict.page_count, 0);
    expect_says(verdict.why, "1 GiB of thp pages on node 0");
    host.capabilities.nodes[0].free_bytes = 0;
    verdict = judge(&request, &host);
    cr_expect_not(verdict.can);
    expect_says(verdict.why, "1G: it has no pool of such pages");
    expect_says(verdict.why, "2M: 512 pages wanted, 1 free on node 0: 511 too few");
    expect_says(verdict.why, "thp: 1.0 GiB wanted with page tables, 0 bytes free");
}

Test(choose, tables_take_their_part)
{
    struct choose_request request = request_of(256 * MIB, small);
    struct host_facts host = host_of();

    add_node(&host, 0, 257 * MIB, 0, 0);
    cr_expect(judge(&request, &host).can);
    host.capabilities.nodes[0].free_bytes--;
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "257 MiB wanted with page tables");
    cr_expect_str_eq(judge(&request, &host).mend, "give less: --memory 255M");
}

Test(choose, caches_are_named_and_not_counted)
{
    struct choose_request request = request_of(256 * MIB, small);
    struct host_facts host = host_of();

    host.cached_bytes = 4 * GIB;
    add_node(&host, 0, MIB, 0, 0);
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "4 GiB more is in caches of files");
}

Test(choose, half_a_page_is_none)
{
    struct choose_request request = request_of(3 * GIB / 2, huger);
    struct host_facts host = host_of();

    add_node(&host, 0, 64 * GIB, 1000, 1000);
    host.capabilities.nodes[0].pools[0].page_bytes = GIB;
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "1G: 1.5 GiB is no whole number of such pages");
}

Test(choose, what_is_not_said_is_no_yes)
{
    struct choose_request request = request_of(256 * MIB, huge);
    struct host_facts host = host_of();

    add_node(&host, 0, CAPABILITIES_UNSAID, 1000, CAPABILITIES_UNSAID);
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "does not say how many pages are free");
    request.kinds[0] = small;
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "does not say how much memory is free");
    host.free_bytes = GIB;
    cr_expect(judge(&request, &host).can, "of the whole it does say it");
    request.node_strict = true;
    cr_expect_not(judge(&request, &host).can);
}

Test(choose, kvm_and_vcpus_and_an_emulator)
{
    struct choose_request request = request_of(256 * MIB, huge);
    struct host_facts host = host_of();

    add_node(&host, 0, GIB, 1000, 1000);
    request.vcpu_count = 9;
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "9 vCPUs wanted, 8 at most");
    cr_expect_str_eq(judge(&request, &host).mend, "give fewer: --vcpus 8");
    host.emulator_count = 1;
    host.emulators[0] = (struct host_emulator){.can = {.type = "kvm", .vcpu_max = 64}};
    cr_expect(judge(&request, &host).can, "the emulator's own word goes first");
    host.capabilities.says_kvm = false;
    cr_expect_eq(judge(&request, &host).kvm, HOST_YES);
    strcpy(host.emulators[0].can.type, "qemu");
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "no KVM");
    strcpy(host.emulators[0].error, "it is gone");
    request.vcpu_count = 1;
    cr_expect(judge(&request, &host).can, "nobody asked for that one");
    expect_says(judge(&request, &host).why, "whether it has KVM it does not say");
    request.needs_emulator = true;
    cr_expect_not(judge(&request, &host).can);
    expect_says(judge(&request, &host).why, "it is gone");
    host.emulators[0].is_unsaid = true;
    cr_expect(judge(&request, &host).can);
}

/* --- Several ---------------------------------------------------------------------------------------------------- */

static struct verdict able(uint32_t kind, uint32_t node, enum host_answer kvm, uint64_t left_bytes)
{
    return (struct verdict){.can = true, .kind = kind, .node = node, .kvm = kvm, .left_bytes = left_bytes};
}

static void expect_best(const struct verdict *verdicts, uint32_t count, uint32_t best, const char *because)
{
    char why[256];

    cr_expect_eq(choose_best(verdicts, count, why, sizeof why), best, "%s", because);
    expect_says(why, because);
}

Test(choose, the_best_and_why)
{
    const struct verdict none = {0};
    const struct verdict kind[] = {able(1, 0, HOST_YES, 9 * GIB), able(0, CHOOSE_NODES_ALL, HOST_UNSAID, 0)};
    const struct verdict node[] = {able(0, CHOOSE_NODES_ALL, HOST_YES, 9 * GIB), able(0, 5, HOST_UNSAID, 0)};
    const struct verdict kvm[] = {able(0, 0, HOST_UNSAID, 9 * GIB), able(0, 0, HOST_YES, 0)};
    const struct verdict left[] = {able(0, 0, HOST_YES, GIB), none, able(0, 3, HOST_YES, 2 * GIB)};
    const struct verdict alike[] = {none, able(0, 0, HOST_YES, GIB), able(0, 1, HOST_YES, GIB)};
    const struct verdict alone[] = {none, able(0, 0, HOST_YES, GIB), none};

    expect_best(kind, 2, 1, "kind of page that was named before");
    expect_best(node, 2, 1, "all of it on one node");
    expect_best(kvm, 2, 1, "known to have KVM");
    expect_best(left, 3, 2, "2 GiB of such pages left, the next one 1 GiB");
    expect_best(alike, 3, 1, "named before the next one, which is as good");
    expect_best(alone, 3, 1, "no other can hold it");
    expect_best(&none, 1, CHOOSE_NONE, "");
    expect_best(NULL, 0, CHOOSE_NONE, "");
}

/* --- Against a second opinion ----------------------------------------------------------------------------------- */

/* Whether it fits, by the header's words and no more. */
static bool fits(const struct choose_request *request, const struct host_facts *host, const struct page_kind *kind)
{
    uint64_t most = 0, all = 0, wanted = request->memory_bytes + request->memory_bytes / 256;

    if (kind->source == PAGE_SOURCE_POOL) {
        wanted = request->memory_bytes / kind->page_bytes;
        if (request->memory_bytes % kind->page_bytes != 0) {
            return false;
        }
    }
    for (uint32_t i = 0; i < host->capabilities.node_count; i++) {
        const struct host_node *node = &host->capabilities.nodes[i];
        uint64_t figure = kind->source == PAGE_SOURCE_POOL ? node->pools[0].free_count : node->free_bytes;

        figure = kind->source == PAGE_SOURCE_POOL && kind->page_bytes != 2 * MIB ? 0 : figure;
        most = figure > most ? figure : most;
        all += figure;
    }
    return wanted <= (request->node_strict ? most : all);
}

static void check_mend(const struct choose_request *request, struct host_facts *host, const char *mend, uint64_t seed)
{
    const char *at = strstr(mend, "reserve 2M:");
    struct choose_request less = *request;
    uint64_t count;
    unsigned node;

    if (sscanf(mend, "give less: --memory %" SCNu64 "M", &less.memory_bytes) == 1) {
        less.memory_bytes *= MIB;
        cr_expect_lt(less.memory_bytes, request->memory_bytes);
        cr_expect(judge(&less, host).can, "less does not fit either: %s: seed %" PRIu64, mend, seed);
    }
    if (at == NULL || sscanf(at, "reserve 2M:%" SCNu64 "@%u", &count, &node) != 2) {
        return;
    }
    struct host_node *grown = capabilities_node(&host->capabilities, node);
    uint64_t more = count - grown->pools[0].total_count;

    cr_assert_leq(more * 2 * MIB, grown->free_bytes, "seed %" PRIu64, seed);
    grown->pools[0].free_count += more;
    grown->pools[0].total_count += more;
    grown->free_bytes -= more * 2 * MIB;
    cr_expect(judge(request, host).can, "what was to mend it does not: %s: seed %" PRIu64, mend, seed);
}

Test(choose, random_hosts)
{
    const uint64_t first_seed = 77;

    for (uint64_t seed = first_seed; seed < first_seed + 20000; seed++) {
        struct random random = {seed};
        static const struct page_kind kinds[] = {
            {PAGE_SOURCE_POOL, 2 * MIB}, {PAGE_SOURCE_POOL, GIB}, {PAGE_SOURCE_THP, 4096}, {PAGE_SOURCE_BASE, 4096}};
        struct choose_request request = request_of((1 + random_below(&random, 60)) * MIB, huge);
        struct host_facts host = host_of();
        struct verdict verdict;
        uint32_t expected = 0;

        request.node_strict = random_one_in(&random, 2);
        request.kind_count = 1 + random_below(&random, 3);
        for (uint32_t i = 0; i < request.kind_count; i++) {
            request.kinds[i] = kinds[(seed + i) % 4];
        }
        for (uint32_t i = random_below(&random, 4); i > 0; i--) {
            uint32_t pages = random_below(&random, 24);

            add_node(&host, i * 2, random_below(&random, 40) * MIB, pages + random_below(&random, 3), pages);
        }
        verdict = judge(&request, &host);
        while (expected < request.kind_count && !fits(&request, &host, &request.kinds[expected])) {
            expected++;
        }
        if (host.capabilities.node_count > 0) {
            cr_assert_eq(verdict.can, expected < request.kind_count, "seed %" PRIu64 ": %s", seed, verdict.why);
            cr_assert(!verdict.can || verdict.kind == expected, "seed %" PRIu64 ": %s", seed, verdict.why);
        }
        cr_assert_neq(verdict.why[0], '\0');
        check_mend(&request, &host, verdict.mend, seed);
    }
}
