// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/choose.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TABLES_SHARE 256u /* of the memory that they map */

/* What one kind of page comes to on a host. */
struct supply {
    uint64_t best_free, all_free; /* pages of a pool, else bytes; on one node, and on all */
    uint32_t best_node;
    bool is_said; /* by one node at least */
    bool is_pool_there;
};

/* One fitting way, or the shortfall in words. */
struct trial {
    const struct choose_request *request;
    const struct host_facts *facts;
    const char *uri;
    struct verdict *verdict;
    uint64_t *less_bytes; /* the most memory that would have fitted */
};

#define MIB (UINT64_C(1) << 20)

LOAM_PRINTF(2, 3)
static void add_why(struct verdict *verdict, const char *format, ...)
{
    size_t length = strlen(verdict->why);
    va_list arguments;

    if (length > 0) {
        snprintf(verdict->why + length, sizeof verdict->why - length, "; ");
        length = strlen(verdict->why);
    }
    va_start(arguments, format);
    vsnprintf(verdict->why + length, sizeof verdict->why - length, format, arguments);
    va_end(arguments);
}

/* The first that is found stands: kinds are tried in the order of the wish. */
LOAM_PRINTF(2, 3)
static void mend_by(struct verdict *verdict, const char *format, ...)
{
    va_list arguments;

    if (verdict->mend[0] == '\0') {
        va_start(arguments, format);
        vsnprintf(verdict->mend, sizeof verdict->mend, format, arguments);
        va_end(arguments);
    }
}

/* --- What there is ---------------------------------------------------------------------------------------------- */

static const struct host_pool *pool_of(const struct host_node *node, uint64_t page_bytes)
{
    for (uint32_t i = 0; i < node->pool_count; i++) {
        if (node->pools[i].page_bytes == page_bytes) {
            return &node->pools[i];
        }
    }
    return NULL;
}

static void count_in(struct supply *supply, const struct host_node *node, uint64_t free_figure)
{
    if (free_figure == CAPABILITIES_UNSAID) {
        return;
    }
    if (!supply->is_said || free_figure > supply->best_free) {
        supply->best_free = free_figure;
        supply->best_node = node->id;
    }
    supply->is_said = true;
    if (__builtin_add_overflow(supply->all_free, free_figure, &supply->all_free)) {
        supply->all_free = UINT64_MAX;
    }
}

static struct supply supply_of_pool(const struct host_facts *facts, uint64_t page_bytes)
{
    struct supply supply = {.best_node = CHOOSE_NODES_ALL};

    for (uint32_t i = 0; i < facts->capabilities.node_count; i++) {
        const struct host_node *node = &facts->capabilities.nodes[i];
        const struct host_pool *pool = pool_of(node, page_bytes);

        if (pool != NULL) {
            supply.is_pool_there = true;
            count_in(&supply, node, pool->free_count);
        }
    }
    return supply;
}

/* A driver that tells of no nodes may still tell of the whole. */
static struct supply supply_of_memory(const struct host_facts *facts)
{
    struct supply supply = {.best_node = CHOOSE_NODES_ALL};

    for (uint32_t i = 0; i < facts->capabilities.node_count; i++) {
        count_in(&supply, &facts->capabilities.nodes[i], facts->capabilities.nodes[i].free_bytes);
    }
    if (!supply.is_said && facts->free_bytes != CAPABILITIES_UNSAID) {
        supply.is_said = true;
        supply.all_free = facts->free_bytes;
    }
    return supply;
}

/* --- What would mend it ----------------------------------------------------------------------------------------- */

static uint64_t free_bytes_of(const struct host_node *node)
{
    return node->free_bytes == CAPABILITIES_UNSAID ? 0 : node->free_bytes;
}

/* Whether so many pages more than are free can be made of the node's free memory. */
static bool can_grow(const struct host_node *node, const struct host_pool *pool, uint64_t wanted)
{
    uint64_t bytes;

    return pool != NULL && pool->free_count < wanted &&
           !__builtin_mul_overflow(wanted - pool->free_count, pool->page_bytes, &bytes) && bytes <= free_bytes_of(node);
}

/* The node that needs the fewest pages more, out of those that have the memory for them. */
static const struct host_node *node_to_grow(const struct host_facts *facts, uint64_t page_bytes, uint64_t wanted)
{
    const struct host_node *best = NULL;

    for (uint32_t i = 0; i < facts->capabilities.node_count; i++) {
        const struct host_node *node = &facts->capabilities.nodes[i];
        const struct host_pool *pool = pool_of(node, page_bytes);

        if (can_grow(node, pool, wanted) &&
            (best == NULL || pool->free_count > pool_of(best, page_bytes)->free_count)) {
            best = node;
        }
    }
    return best;
}

static void would_fit(const struct trial *trial, uint64_t bytes)
{
    *trial->less_bytes = bytes > *trial->less_bytes ? bytes : *trial->less_bytes;
}

static void mend_pool(const struct trial *trial, uint64_t page_bytes, uint64_t wanted)
{
    const struct host_node *node = node_to_grow(trial->facts, page_bytes, wanted);
    struct pool_wish wish = {.page_bytes = page_bytes, .has_count = true};
    char quoted[sizeof trial->verdict->mend - 128];
    const struct host_pool *pool;

    if (node == NULL) {
        return;
    }
    pool = pool_of(node, page_bytes);
    wish.node = node->id;
    if (__builtin_add_overflow(pool->total_count, wanted - pool->free_count, &wish.count)) {
        return;
    }
    words_quote(trial->uri, quoted, sizeof quoted);
    mend_by(trial->verdict, "loam host reserve %s --connect %s", words_pool(&wish).text, quoted);
}

/* --- One kind of page ------------------------------------------------------------------------------------------- */

/* figure and unit are of the supply: pages, or bytes. Whether it is enough, and where. */
static bool settle(const struct trial *trial, const struct supply *supply, uint64_t wanted, uint64_t unit_bytes)
{
    struct verdict *verdict = trial->verdict;
    bool one_node = supply->best_free >= wanted && supply->best_node != CHOOSE_NODES_ALL;
    uint64_t figure = one_node ? supply->best_free : supply->all_free;

    if (!supply->is_said || figure < wanted || (!one_node && trial->request->node_strict)) {
        return false;
    }
    verdict->can = true;
    verdict->node = one_node ? supply->best_node : CHOOSE_NODES_ALL;
    if (__builtin_mul_overflow(figure - wanted, unit_bytes, &verdict->left_bytes)) {
        verdict->left_bytes = UINT64_MAX;
    }
    return true;
}

struct place {
    char text[48];
};

static struct place place_of(const struct verdict *verdict)
{
    struct place place;

    if (verdict->node == CHOOSE_NODES_ALL) {
        snprintf(place.text, sizeof place.text, verdict->node_count > 1 ? "on several nodes together" : "on the host");
    } else {
        snprintf(place.text, sizeof place.text, "on node %" PRIu32, verdict->node);
    }
    return place;
}

/* "96 free on node 0", and of all, if that would do but for --node-strict. */
static void say_short_pool(const struct trial *trial, const struct supply *supply, struct word word, uint64_t wanted)
{
    if (!supply->is_pool_there) {
        add_why(trial->verdict, "%s: it has no pool of such pages", word.text);
    } else if (!supply->is_said) {
        add_why(trial->verdict, "%s: it does not say how many pages are free", word.text);
    } else if (trial->request->node_strict || trial->verdict->node_count <= 1) {
        add_why(trial->verdict,
                "%s: %" PRIu64 " pages wanted, %" PRIu64 " free on node %" PRIu32 ": %" PRIu64 " too few", word.text,
                wanted, supply->best_free, supply->best_node, wanted - supply->best_free);
    } else {
        add_why(trial->verdict, "%s: %" PRIu64 " pages wanted, %" PRIu64 " free on all nodes: %" PRIu64 " too few",
                word.text, wanted, supply->all_free, wanted - supply->all_free);
    }
}

/* Pages of the pool that would have done, on one node or on all. */
static uint64_t fitting_bytes(const struct trial *trial, const struct supply *supply, uint64_t page_bytes)
{
    uint64_t pages = trial->request->node_strict ? supply->best_free : supply->all_free, bytes;

    return supply->is_said && !__builtin_mul_overflow(pages, page_bytes, &bytes) ? bytes : 0;
}

static bool try_pool(const struct trial *trial, const struct page_kind *kind)
{
    struct supply supply = supply_of_pool(trial->facts, kind->page_bytes);
    uint64_t wanted = trial->request->memory_bytes / kind->page_bytes;
    struct word word = words_kind(kind);

    if (trial->request->memory_bytes % kind->page_bytes != 0) {
        add_why(trial->verdict, "%s: %s is no whole number of such pages", word.text,
                words_amount(trial->request->memory_bytes).text);
        return false;
    }
    if (!settle(trial, &supply, wanted, kind->page_bytes)) {
        say_short_pool(trial, &supply, word, wanted);
        mend_pool(trial, kind->page_bytes, wanted);
        would_fit(trial, fitting_bytes(trial, &supply, kind->page_bytes));
        return false;
    }
    trial->verdict->page_count = wanted;
    trial->verdict->why[0] = '\0';
    add_why(trial->verdict, "%" PRIu64 " pages of %s %s, %" PRIu64 " left (%s)", wanted, word.text,
            place_of(trial->verdict).text, trial->verdict->left_bytes / kind->page_bytes,
            words_amount(trial->verdict->left_bytes).text);
    return true;
}

static void say_short_memory(const struct trial *trial, const struct supply *supply, struct word word, uint64_t wanted)
{
    uint64_t free_bytes = trial->request->node_strict ? supply->best_free : supply->all_free;
    const char *where = trial->request->node_strict ? " on one node" : "";

    if (!supply->is_said) {
        add_why(trial->verdict, "%s: it does not say how much memory is free", word.text);
        return;
    }
    if (trial->request->node_strict && supply->best_node == CHOOSE_NODES_ALL) {
        add_why(trial->verdict, "%s: it does not say how much memory of which node is free", word.text);
        return;
    }
    add_why(trial->verdict, "%s: %s wanted with page tables, %s free%s: %s too little", word.text,
            words_amount(wanted).text, words_amount(free_bytes).text, where, words_amount(wanted - free_bytes).text);
    if (trial->facts->cached_bytes != CAPABILITIES_UNSAID) {
        add_why(trial->verdict, "%s more is in caches of files", words_amount(trial->facts->cached_bytes).text);
    }
    would_fit(trial, free_bytes / (TABLES_SHARE + 1) * TABLES_SHARE);
}

static bool try_memory(const struct trial *trial, const struct page_kind *kind)
{
    struct supply supply = supply_of_memory(trial->facts);
    struct word word = words_kind(kind);
    uint64_t wanted;

    if (__builtin_add_overflow(trial->request->memory_bytes, trial->request->memory_bytes / TABLES_SHARE, &wanted)) {
        wanted = UINT64_MAX;
    }
    if (!settle(trial, &supply, wanted, 1)) {
        say_short_memory(trial, &supply, word, wanted);
        return false;
    }
    trial->verdict->why[0] = '\0';
    add_why(trial->verdict, "%s of %s pages %s, %s left", words_amount(trial->request->memory_bytes).text, word.text,
            place_of(trial->verdict).text, words_amount(trial->verdict->left_bytes).text);
    return true;
}

/* --- A host ----------------------------------------------------------------------------------------------------- */

/* The most vCPUs that are said: the emulator's own word goes first. */
static uint64_t vcpu_max(const struct host_facts *facts)
{
    if (facts->emulator_count > 0 && facts->emulators[0].error[0] == '\0' &&
        facts->emulators[0].can.vcpu_max != CAPABILITIES_UNSAID) {
        return facts->emulators[0].can.vcpu_max;
    }
    return facts->vcpu_max;
}

/* What no memory mends. */
static bool is_host_good(const struct trial *trial)
{
    const struct host_emulator *emulator = &trial->facts->emulators[0];
    uint64_t most = vcpu_max(trial->facts);

    if (trial->request->needs_emulator && emulator->error[0] != '\0' && !emulator->is_unsaid) {
        add_why(trial->verdict, "%s is no emulator there: %.200s", emulator->asked, emulator->error);
    } else if (trial->verdict->kvm == HOST_NO) {
        add_why(trial->verdict, "it has no KVM: guests of %s would be emulated", emulator->can.path);
        mend_by(trial->verdict, "have /dev/kvm there, readable and writable for the emulator's user");
    } else if (most < trial->request->vcpu_count) {
        add_why(trial->verdict, "%" PRIu32 " vCPUs wanted, %" PRIu64 " at most there", trial->request->vcpu_count,
                most);
        mend_by(trial->verdict, "give fewer: --vcpus %" PRIu64, most);
    } else {
        return true;
    }
    return false;
}

void choose_judge(const struct choose_request *request, const char *uri, const struct host_facts *facts,
                  struct verdict *verdict)
{
    uint64_t less_bytes = 0;
    const struct trial trial = {request, facts, uri, verdict, &less_bytes};

    *verdict = (struct verdict){
        .node = CHOOSE_NODES_ALL, .node_count = facts->capabilities.node_count, .kvm = host_facts_kvm(facts)};
    for (uint32_t i = 0; is_host_good(&trial) && !verdict->can && i < request->kind_count; i++) {
        const struct page_kind *kind = &request->kinds[i];

        verdict->kind = i;
        (void)(kind->source == PAGE_SOURCE_POOL ? try_pool(&trial, kind) : try_memory(&trial, kind));
    }
    if (!verdict->can) {
        if (less_bytes >= MIB) {
            mend_by(verdict, "give less: --memory %" PRIu64 "M", less_bytes / MIB);
        }
        return;
    }
    verdict->mend[0] = '\0';
    if (verdict->kvm == HOST_UNSAID) {
        add_why(verdict, "whether it has KVM it does not say");
    }
}

/* --- The best --------------------------------------------------------------------------------------------------- */

/* Whether one beats other, which was named before it or after; why then says in what. */
static bool beats(const struct verdict *one, const struct verdict *other, char *why, size_t room)
{
    bool on_one_node = one->node != CHOOSE_NODES_ALL, other_on_one_node = other->node != CHOOSE_NODES_ALL;

    if (one->kind != other->kind) {
        snprintf(why, room, "it gives the kind of page that was named before the next one's");
        return one->kind < other->kind;
    }
    if (on_one_node != other_on_one_node) {
        snprintf(why, room, "it has all of it on one node");
        return on_one_node;
    }
    if ((one->kvm == HOST_YES) != (other->kvm == HOST_YES)) {
        snprintf(why, room, "it is known to have KVM");
        return one->kvm == HOST_YES;
    }
    if (one->left_bytes != other->left_bytes) {
        snprintf(why, room, "it has %s of such pages left, the next one %s", words_amount(one->left_bytes).text,
                 words_amount(other->left_bytes).text);
        return one->left_bytes > other->left_bytes;
    }
    snprintf(why, room, "it was named before the next one, which is as good");
    return false;
}

/* The best but for one that is passed over. */
static uint32_t find_best(const struct verdict *verdicts, uint32_t count, uint32_t passed_over)
{
    uint32_t best = CHOOSE_NONE;
    char why[128];

    for (uint32_t i = 0; i < count; i++) {
        if (i != passed_over && verdicts[i].can &&
            (best == CHOOSE_NONE || beats(&verdicts[i], &verdicts[best], why, sizeof why))) {
            best = i;
        }
    }
    return best;
}

uint32_t choose_best(const struct verdict *verdicts, uint32_t count, char *why, size_t room)
{
    uint32_t best = find_best(verdicts, count, CHOOSE_NONE), next;

    snprintf(why, room, "%s", "");
    if (best == CHOOSE_NONE) {
        return best;
    }
    next = find_best(verdicts, count, best);
    if (next == CHOOSE_NONE) {
        snprintf(why, room, "no other can hold it");
    } else {
        (void)beats(&verdicts[best], &verdicts[next], why, room);
    }
    return best;
}
