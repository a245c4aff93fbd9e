// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/capabilities.h"

#include "tools/libvirt/words.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Documents -------------------------------------------------------------------------------------------------- */

/* Free with xmlFreeDoc. NULL: diag says why. */
static xmlDoc *read_document(const char *xml, const char *root, struct loam_diag *diag)
{
    size_t bytes = strnlen(xml, CAPABILITIES_BYTES_MAX + 1);
    xmlDoc *document;

    if (bytes > CAPABILITIES_BYTES_MAX) {
        (void)loam_fail(diag, LOAM_ERROR_INVALID, "%s: a document of more than %u bytes", root, CAPABILITIES_BYTES_MAX);
        return NULL;
    }
    if (strstr(xml, "<!DOCTYPE") != NULL) {
        (void)loam_fail(diag, LOAM_ERROR_INVALID, "%s: a document with a type of its own, which libvirt never sends",
                        root);
        return NULL;
    }
    document = xmlReadMemory(xml, (int)bytes, "libvirt.xml", "UTF-8",
                             XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOCDATA);
    if (document != NULL && document->intSubset == NULL && xmlDocGetRootElement(document) != NULL &&
        xmlStrcmp(xmlDocGetRootElement(document)->name, BAD_CAST root) == 0) {
        return document;
    }
    xmlFreeDoc(document);
    (void)loam_fail(diag, LOAM_ERROR_INVALID, "%s: libvirt's answer is no such XML document", root);
    return NULL;
}

/* The next element of that name from node on, itself included. */
static xmlNode *find(xmlNode *node, const char *name)
{
    while (node != NULL && (node->type != XML_ELEMENT_NODE || xmlStrcmp(node->name, BAD_CAST name) != 0)) {
        node = node->next;
    }
    return node;
}

static xmlNode *child(const xmlNode *node, const char *name)
{
    return node == NULL ? NULL : find(node->children, name);
}

/* Fails on what is too long for room: a word cut in the middle is another word. */
static bool copy_text(xmlChar *text, char *to, size_t room)
{
    int length = snprintf(to, room, "%s", text == NULL ? "" : (const char *)text);

    xmlFree(text);
    return length >= 0 && (size_t)length < room;
}

static bool copy_content(xmlNode *node, char *to, size_t room)
{
    return copy_text(node == NULL ? NULL : xmlNodeGetContent(node), to, room);
}

static bool copy_attribute(xmlNode *node, const char *name, char *to, size_t room)
{
    return copy_text(node == NULL ? NULL : xmlGetProp(node, BAD_CAST name), to, room);
}

static bool parse_number(const char *text, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && errno == 0 && *end == '\0';
}

static bool read_number(xmlNode *node, const char *attribute, uint64_t *number)
{
    char text[32];

    *number = 0;
    return (attribute == NULL ? copy_content(node, text, sizeof text)
                              : copy_attribute(node, attribute, text, sizeof text)) &&
           parse_number(text, number);
}

/* libvirt's units (formatdomain.html, memory): binary ones. */
static bool scale(xmlNode *node, uint64_t number, uint64_t *bytes)
{
    static const struct {
        const char *name;
        unsigned shift;
    } units[] = {{"b", 0},    {"bytes", 0}, {"k", 10}, {"KiB", 10}, {"M", 20},
                 {"MiB", 20}, {"G", 30},    {"", 10},  {"GiB", 30}, {"TiB", 40}};
    char unit[16];

    *bytes = 0;
    if (!copy_attribute(node, "unit", unit, sizeof unit)) {
        return false;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(unit, units[i].name) == 0) {
            return !__builtin_mul_overflow(number, UINT64_C(1) << units[i].shift, bytes);
        }
    }
    return false;
}

/* --- Nodes ------------------------------------------------------------------------------------------------------ */

static bool read_pool(xmlNode *pages, struct host_node *node)
{
    struct host_pool *pool = &node->pools[node->pool_count];
    uint64_t size, bytes, count;

    if (!read_number(pages, "size", &size) || !scale(pages, size, &bytes) || !read_number(pages, NULL, &count)) {
        return false;
    }
    if (bytes <= WORDS_BASE_BYTES) { /* no pool: all the memory that is in none */
        return true;
    }
    if (!words_is_pool_page(bytes) || node->pool_count == CAPABILITIES_POOL_MAX ||
        capabilities_pool(node, bytes) != NULL || __builtin_mul_overflow(bytes, count, &size)) {
        return false;
    }
    *pool = (struct host_pool){bytes, count, CAPABILITIES_UNSAID};
    node->pool_count++;
    return true;
}

static bool read_memory(xmlNode *cell, struct host_node *node)
{
    xmlNode *memory = child(cell, "memory");
    uint64_t number;

    node->total_bytes = CAPABILITIES_UNSAID;
    return memory == NULL || (read_number(memory, NULL, &number) && scale(memory, number, &node->total_bytes));
}

static uint32_t count_cpus(const xmlNode *cell)
{
    const xmlNode *cpus = child(cell, "cpus");
    uint32_t count = 0;

    for (xmlNode *cpu = child(cpus, "cpu"); cpu != NULL; cpu = find(cpu->next, "cpu")) {
        count++;
    }
    return count;
}

static enum loam_error read_cell(xmlNode *cell, struct capabilities *capabilities, struct loam_diag *diag)
{
    struct host_node node = {.free_bytes = CAPABILITIES_UNSAID, .cpu_count = count_cpus(cell)};
    uint64_t id;

    if (!read_number(cell, "id", &id) || id >= WORDS_NODE_ANY) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "capabilities: cell %u has no number", capabilities->node_count + 1);
    }
    node.id = (uint32_t)id;
    if (capabilities->node_count == CAPABILITIES_NODE_MAX || capabilities_node(capabilities, node.id) != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "capabilities: node %u is there twice, or one of more than %u",
                         node.id, CAPABILITIES_NODE_MAX);
    }
    if (!read_memory(cell, &node)) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "capabilities: the memory of node %u is no amount", node.id);
    }
    for (xmlNode *pages = child(cell, "pages"); pages != NULL; pages = find(pages->next, "pages")) {
        if (!read_pool(pages, &node)) {
            return loam_fail(diag, LOAM_ERROR_INVALID,
                             "capabilities: pages of node %u are no pool, or there are more "
                             "than %u",
                             node.id, CAPABILITIES_POOL_MAX);
        }
    }
    capabilities->nodes[capabilities->node_count++] = node;
    return LOAM_OK;
}

static enum loam_error read_cells(const xmlNode *host, struct capabilities *capabilities, struct loam_diag *diag)
{
    const xmlNode *cells = child(child(host, "topology"), "cells");

    for (xmlNode *cell = child(cells, "cell"); cell != NULL; cell = find(cell->next, "cell")) {
        enum loam_error error = read_cell(cell, capabilities, diag);

        if (error != LOAM_OK) {
            return error;
        }
    }
    return LOAM_OK;
}

/* --- All of it -------------------------------------------------------------------------------------------------- */

static bool has_kvm(const xmlNode *root)
{
    for (xmlNode *guest = child(root, "guest"); guest != NULL; guest = find(guest->next, "guest")) {
        const xmlNode *arch = child(guest, "arch");

        for (xmlNode *domain = child(arch, "domain"); domain != NULL; domain = find(domain->next, "domain")) {
            char type[8];

            if (copy_attribute(domain, "type", type, sizeof type) && strcmp(type, "kvm") == 0) {
                return true;
            }
        }
    }
    return false;
}

enum loam_error capabilities_read(const char *xml, struct capabilities *capabilities, struct loam_diag *diag)
{
    xmlDoc *document = read_document(xml, "capabilities", diag);
    enum loam_error error = LOAM_ERROR_INVALID;

    *capabilities = (struct capabilities){0};
    if (document != NULL) {
        const xmlNode *root = xmlDocGetRootElement(document), *cpu = child(child(root, "host"), "cpu");

        error = read_cells(child(root, "host"), capabilities, diag);
        if (error == LOAM_OK &&
            (!copy_content(child(cpu, "arch"), capabilities->arch, sizeof capabilities->arch) ||
             !copy_content(child(cpu, "model"), capabilities->cpu_model, sizeof capabilities->cpu_model))) {
            error = loam_fail(diag, LOAM_ERROR_INVALID, "capabilities: the processor's name is too long");
        }
        capabilities->says_kvm = has_kvm(root);
        xmlFreeDoc(document);
    }
    if (error != LOAM_OK) {
        *capabilities = (struct capabilities){0};
    }
    return error;
}

static bool has_memfd(const xmlNode *root)
{
    const xmlNode *backing = child(root, "memoryBacking");

    for (xmlNode *source = child(backing, "enum"); source != NULL; source = find(source->next, "enum")) {
        for (xmlNode *value = child(source, "value"); value != NULL; value = find(value->next, "value")) {
            char word[8];

            if (copy_content(value, word, sizeof word) && strcmp(word, "memfd") == 0) {
                return true;
            }
        }
    }
    return false;
}

/* Whether all words have room. */
static bool read_emulator(const xmlNode *root, struct domain_capabilities *to)
{
    to->says_memfd = has_memfd(root);
    if (!read_number(child(root, "vcpu"), "max", &to->vcpu_max)) {
        to->vcpu_max = CAPABILITIES_UNSAID;
    }
    return copy_content(child(root, "path"), to->path, sizeof to->path) &&
           copy_content(child(root, "domain"), to->type, sizeof to->type) &&
           copy_content(child(root, "machine"), to->machine, sizeof to->machine) &&
           copy_content(child(root, "arch"), to->arch, sizeof to->arch);
}

enum loam_error domain_capabilities_read(const char *xml, struct domain_capabilities *capabilities,
                                         struct loam_diag *diag)
{
    xmlDoc *document = read_document(xml, "domainCapabilities", diag);
    enum loam_error error = LOAM_ERROR_INVALID;

    *capabilities = (struct domain_capabilities){0};
    if (document != NULL) {
        error = read_emulator(xmlDocGetRootElement(document), capabilities)
                    ? LOAM_OK
                    : loam_fail(diag, LOAM_ERROR_INVALID, "domainCapabilities: a path or a name is too long");
        xmlFreeDoc(document);
    }
    if (error != LOAM_OK) {
        *capabilities = (struct domain_capabilities){0};
    }
    return error;
}

struct host_node *capabilities_node(struct capabilities *capabilities, uint32_t id)
{
    for (uint32_t i = 0; i < capabilities->node_count; i++) {
        if (capabilities->nodes[i].id == id) {
            return &capabilities->nodes[i];
        }
    }
    return NULL;
}

struct host_pool *capabilities_pool(struct host_node *node, uint64_t page_bytes)
{
    for (uint32_t i = 0; i < node->pool_count; i++) {
        if (node->pools[i].page_bytes == page_bytes) {
            return &node->pools[i];
        }
    }
    return NULL;
}
