// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/capabilities.h"

#include "tests/vmm/random.h"
#include "tools/libvirt/words.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB (UINT64_C(1) << 30)

/* A document beside this test, of libvirt 9.0; of the guests' machines and models some were left out. To be freed. */
static char *document(const char *name)
{
    const char *folder = getenv("DOCUMENTS");
    char path[512], *text = calloc(1, 1 << 16);
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", folder == NULL ? "tests/libvirt" : folder, name);
    file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    cr_assert_gt(fread(text, 1, (1 << 16) - 1, file), 0);
    fclose(file);
    return text;
}

Test(capabilities, one_node)
{
    char *xml = document("capabilities_one_node.xml");
    struct capabilities host;
    struct loam_diag diag = {0};

    cr_assert_eq(capabilities_read(xml, &host, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_str_eq(host.arch, "x86_64");
    cr_expect_str_eq(host.cpu_model, "kvm64");
    cr_expect(host.says_kvm);
    cr_assert_eq(host.node_count, 1);
    cr_expect_eq(host.nodes[0].id, 0);
    cr_expect_eq(host.nodes[0].cpu_count, 2);
    cr_expect_eq(host.nodes[0].free_bytes, CAPABILITIES_UNSAID);
    cr_assert_eq(host.nodes[0].pool_count, 2, "4 KiB is no pool");
    cr_expect_eq(host.nodes[0].pools[0].page_bytes, 2 << 20);
    cr_expect_eq(host.nodes[0].pools[0].total_count, 3200);
    cr_expect_eq(host.nodes[0].pools[0].free_count, CAPABILITIES_UNSAID);
    cr_expect_eq(host.nodes[0].pools[1].page_bytes, GIB);
    cr_expect_eq(host.nodes[0].pools[1].total_count, 2);
    free(xml);
}

Test(capabilities, two_nodes)
{
    char *xml = document("capabilities_two_nodes.xml");
    struct capabilities host;
    struct loam_diag diag = {0};
    struct host_node *node;

    cr_assert_eq(capabilities_read(xml, &host, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_not(host.says_kvm);
    cr_expect_eq(host.node_count, 2);
    node = capabilities_node(&host, 1);
    cr_assert_not_null(node);
    cr_expect_eq(node->total_bytes, 4 * GIB);
    cr_expect_eq(node->cpu_count, 8);
    cr_expect_eq(capabilities_pool(node, 8192)->total_count, 524288);
    cr_expect_null(capabilities_pool(node, 4096));
    cr_expect_null(capabilities_node(&host, 2));
    free(xml);
}

Test(capabilities, an_emulator)
{
    char *xml = document("domain_capabilities.xml");
    struct domain_capabilities can;
    struct loam_diag diag = {0};

    cr_assert_eq(domain_capabilities_read(xml, &can, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_str_eq(can.path, "/usr/bin/qemu-system-x86_64");
    cr_expect_str_eq(can.type, "kvm");
    cr_expect_str_eq(can.machine, "microvm");
    cr_expect_str_eq(can.arch, "x86_64");
    cr_expect_eq(can.vcpu_max, 288);
    cr_expect(can.says_memfd);
    free(xml);
}

Test(capabilities, what_is_not_said_is_not_known)
{
    struct domain_capabilities can;
    struct capabilities host;

    cr_expect_eq(capabilities_read("<capabilities/>", &host, NULL), LOAM_OK);
    cr_expect_eq(host.node_count, 0);
    cr_expect_str_eq(host.arch, "");
    cr_expect_eq(capabilities_read("<capabilities><host><topology><cells><cell id='7'/></cells></topology></host>"
                                   "</capabilities>",
                                   &host, NULL),
                 LOAM_OK);
    cr_expect_eq(host.node_count, 1);
    cr_expect_eq(host.nodes[0].id, 7);
    cr_expect_eq(host.nodes[0].total_bytes, CAPABILITIES_UNSAID);
    cr_expect_eq(domain_capabilities_read("<domainCapabilities/>", &can, NULL), LOAM_OK);
    cr_expect_eq(can.vcpu_max, CAPABILITIES_UNSAID);
    cr_expect_not(can.says_memfd);
}

#define CELLS(text) "<capabilities><host><topology><cells>" text "</cells></topology></host></capabilities>"
#define CELL(text)  CELLS("<cell id='0'>" text "</cell>")

Test(capabilities, amounts_have_units)
{
    struct capabilities host;

    cr_expect_eq(capabilities_read(CELL("<memory unit='GiB'>3</memory>"), &host, NULL), LOAM_OK);
    cr_expect_eq(host.nodes[0].total_bytes, 3 * GIB);
    cr_expect_eq(capabilities_read(CELL("<memory>1024</memory>"), &host, NULL), LOAM_OK);
    cr_expect_eq(host.nodes[0].total_bytes, 1 << 20, "KiB, where none is given");
    cr_expect_eq(capabilities_read(CELL("<pages unit='bytes' size='2097152'>5</pages>"), &host, NULL), LOAM_OK);
    cr_expect_eq(host.nodes[0].pools[0].page_bytes, 2 << 20);
}

static void check_refused_for(const char *xml, const char *reason)
{
    struct capabilities host;
    struct capabilities empty = {0};
    struct loam_diag diag = {0};

    memset(&host, 0x5a, sizeof host);
    cr_expect_eq(capabilities_read(xml, &host, &diag), LOAM_ERROR_INVALID, "%.200s", xml);
    cr_expect_not_null(strstr(diag.text, reason), "%s", diag.text);
    cr_expect_eq(memcmp(&host, &empty, sizeof host), 0, "nothing is left of it");
}

static void check_refused(const char *xml)
{
    check_refused_for(xml, "capabilities: ");
}

Test(capabilities, nonsense_is_refused)
{
    static const char *const bad[] = {
        "",
        "no document",
        "<capabilities>",
        "<domainCapabilities/>",
        "<capabilities/><capabilities/>",
        CELLS("<cell/>"),
        CELLS("<cell id=''/>"),
        CELLS("<cell id='-1'/>"),
        CELLS("<cell id='4294967295'/>"),
        CELLS("<cell id='0'/><cell id='0'/>"),
        CELL("<memory>much</memory>"),
        CELL("<memory>99999999999999999999</memory>"),
        CELL("<memory unit='TiB'>99999999999</memory>"),
        CELL("<memory unit='furlong'>1</memory>"),
        CELL("<pages size='2048'>-1</pages>"),
        CELL("<pages>1</pages>"),
        CELL("<pages size='3000'>1</pages>"),
        CELL("<pages unit='TiB' size='2'>1</pages>"),
        CELL("<pages size='2048'>18446744073709551615</pages>"),
        CELL("<pages size='2048'>1</pages><pages size='2048'>1</pages>"),
        CELL("<pages size='8'>1</pages><pages size='16'>1</pages><pages size='32'>1</pages><pages size='64'>1</pages>"
             "<pages size='128'>1</pages><pages size='256'>1</pages><pages size='512'>1</pages>"
             "<pages size='1024'>1</pages><pages size='2048'>1</pages>"),
        "<capabilities><host><cpu><arch>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</arch></cpu></host></capabilities>",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_refused(bad[i]);
    }
}

/* Entities: those that grow without end, and those that fetch. */
Test(capabilities, entities_are_refused)
{
    check_refused_for("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><capabilities>&a;</capabilities>", "a type of its own");
    check_refused_for("<!DOCTYPE x SYSTEM 'file:///etc/passwd'><capabilities/>", "a type of its own");
    check_refused("<?xml version='1.0' encoding='UTF-7'?>+ADwAIQ-DOCTYPE x+AD4-<capabilities>");
    check_refused("<capabilities>&a;</capabilities>");
}

static char *repeat(const char *head, const char *part, unsigned count, const char *tail)
{
    char *text = malloc(strlen(head) + strlen(part) * count + strlen(tail) + 1), *at = text;

    at = stpcpy(at, head);
    for (unsigned i = 0; i < count; i++) {
        at = stpcpy(at, part);
    }
    stpcpy(at, tail);
    return text;
}

Test(capabilities, size_and_depth_are_bounded)
{
    char *deep = repeat("<capabilities>", "<a>", 100000, "");
    char *large = repeat("<capabilities>", "<!-- more than anybody sends -->", 200000, "</capabilities>");
    char *many = repeat("<capabilities><host><topology><cells>", "<cell id='1'/>", 100000,
                        "</cells></topology></host></capabilities>");

    check_refused(deep);
    check_refused_for(large, "more than 4194304 bytes");
    check_refused(many);
    free(deep);
    free(large);
    free(many);
}

Test(capabilities, nodes_are_bounded)
{
    char xml[8192] = "<capabilities><host><topology><cells>";
    struct capabilities host;

    for (unsigned i = 0; i < CAPABILITIES_NODE_MAX; i++) {
        snprintf(xml + strlen(xml), 32, "<cell id='%u'/>", i * 3);
    }
    strcat(xml, "</cells></topology></host></capabilities>");
    cr_expect_eq(capabilities_read(xml, &host, NULL), LOAM_OK);
    cr_expect_eq(host.node_count, CAPABILITIES_NODE_MAX);
    strcpy(strstr(xml, "</cells>"), "<cell id='1'/></cells></topology></host></capabilities>");
    check_refused(xml);
}

/* A real document, damaged: whatever comes of it keeps within its bounds. */
Test(capabilities, damaged_documents)
{
    const uint64_t seed = 20260927;
    struct random random = {seed};
    char *xml = document("capabilities_two_nodes.xml");
    size_t length = strlen(xml);
    unsigned read = 0;

    for (unsigned round = 0; round < 3000; round++) {
        char *damaged = strdup(xml);
        struct capabilities host;

        for (uint32_t i = random_below(&random, 4); i < 4; i++) {
            damaged[random_below(&random, (uint32_t)length)] = (char)random_below(&random, 256);
        }
        if (random_one_in(&random, 8)) {
            damaged[random_below(&random, (uint32_t)length)] = '\0';
        }
        if (capabilities_read(damaged, &host, NULL) == LOAM_OK) {
            read++;
            cr_assert_leq(host.node_count, CAPABILITIES_NODE_MAX, "seed %lu, round %u", seed, round);
            for (uint32_t i = 0; i < host.node_count; i++) {
                cr_assert_leq(host.nodes[i].pool_count, CAPABILITIES_POOL_MAX, "seed %lu, round %u", seed, round);
            }
        }
        free(damaged);
    }
    cr_expect_gt(read, 100, "some damage does not matter: seed %lu", seed);
    free(xml);
}
