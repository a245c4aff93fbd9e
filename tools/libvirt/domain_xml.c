// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/domain_xml.h"

#include <errno.h>
#include <inttypes.h>
#include <libxml/chvalid.h>
#include <libxml/xmlstring.h>
#include <libxml/xmlwriter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QEMU_NAMESPACE "http://libvirt.org/schemas/domain/qemu/1.0"
#define MIB            (UINT64_C(1) << 20)

/* --- What XML and libvirt have no form for ---------------------------------------------------------------------- */

/* One line of characters that XML 1.0 has. */
static bool is_line(const char *text)
{
    size_t left = strnlen(text, DOMAIN_XML_TEXT_MAX + 1);

    if (left > DOMAIN_XML_TEXT_MAX || !xmlCheckUTF8(BAD_CAST text)) {
        return false;
    }
    while (left > 0) {
        int bytes = (int)left, character = xmlGetUTF8Char(BAD_CAST text, &bytes);

        if (character < ' ' || !xmlIsCharQ((unsigned)character)) {
            return false;
        }
        text += bytes;
        left -= (size_t)bytes;
    }
    return true;
}

static enum loam_error check_line(const char *what, const char *text, struct loam_diag *diag)
{
    return text == NULL || is_line(text)
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID, "%s %.*s: not one line of UTF-8 of at most %u bytes", what,
                           (int)(strcspn(text, "\n") < 200 ? strcspn(text, "\n") : 200), text, DOMAIN_XML_TEXT_MAX);
}

static enum loam_error check_path(const char *what, const char *path, struct loam_diag *diag)
{
    if (path == NULL || path[0] == '/') {
        return check_line(what, path, diag);
    }
    return loam_fail(diag, LOAM_ERROR_INVALID, "%s %.200s: a path on the host: give it from / on", what, path);
}

static enum loam_error check_name(const char *name, struct loam_diag *diag)
{
    if (name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "--name %.200s: a name without / is wanted", name);
    }
    return check_line("--name", name, diag);
}

enum loam_error domain_xml_check(const struct domain_xml_wish *wish, struct loam_diag *diag)
{
    enum loam_error error = check_name(wish->name, diag);

    error = error != LOAM_OK ? error : check_path("--emulator", wish->emulator, diag);
    error = error != LOAM_OK ? error : check_path("--kernel", wish->kernel, diag);
    error = error != LOAM_OK ? error : check_path("--initrd", wish->initrd, diag);
    error = error != LOAM_OK ? error : check_line("--append", wish->command_line, diag);
    if (error == LOAM_OK && (wish->memory_bytes == 0 || wish->memory_bytes % MIB != 0)) {
        error = loam_fail(diag, LOAM_ERROR_INVALID, "--memory: %" PRIu64 " bytes: libvirt counts whole MiB",
                          wish->memory_bytes);
    }
    return error;
}

/* --- Writing ---------------------------------------------------------------------------------------------------- */

/* The first failure stays; what follows it writes nothing. */
struct writing {
    xmlTextWriter *writer;
    bool failed;
};

static void begin(struct writing *writing, const char *element)
{
    writing->failed = writing->failed || xmlTextWriterStartElement(writing->writer, BAD_CAST element) < 0;
}

static void end(struct writing *writing)
{
    writing->failed = writing->failed || xmlTextWriterEndElement(writing->writer) < 0;
}

static void attribute(struct writing *writing, const char *name, const char *value)
{
    writing->failed =
        writing->failed || xmlTextWriterWriteAttribute(writing->writer, BAD_CAST name, BAD_CAST value) < 0;
}

static void content(struct writing *writing, const char *element, const char *text)
{
    writing->failed =
        writing->failed || xmlTextWriterWriteElement(writing->writer, BAD_CAST element, BAD_CAST text) < 0;
}

/* An element of one attribute. */
static void mark(struct writing *writing, const char *element, const char *name, const char *value)
{
    begin(writing, element);
    attribute(writing, name, value);
    end(writing);
}

static void number(struct writing *writing, const char *element, const char *unit, uint64_t value)
{
    char digits[24];

    snprintf(digits, sizeof digits, "%" PRIu64, value);
    begin(writing, element);
    if (unit != NULL) {
        attribute(writing, "unit", unit);
    }
    writing->failed = writing->failed || xmlTextWriterWriteString(writing->writer, BAD_CAST digits) < 0;
    end(writing);
}

/* A memfd, so that a pool needs no mount; shared, as devices outside the emulator want it. */
static void write_backing(struct writing *writing, const struct page_kind *kind)
{
    begin(writing, "memoryBacking");
    if (kind->source == PAGE_SOURCE_POOL) {
        char kib[24];

        snprintf(kib, sizeof kib, "%" PRIu64, kind->page_bytes / 1024);
        begin(writing, "hugepages");
        begin(writing, "page");
        attribute(writing, "size", kib);
        attribute(writing, "unit", "KiB");
        end(writing);
        end(writing);
    }
    mark(writing, "source", "type", "memfd");
    mark(writing, "access", "mode", "shared");
    end(writing);
}

static void write_node(struct writing *writing, const struct domain_xml_wish *wish)
{
    char node[16];

    if (wish->node == WORDS_NODE_ANY) {
        return;
    }
    snprintf(node, sizeof node, "%" PRIu32, wish->node);
    begin(writing, "numatune");
    begin(writing, "memory");
    attribute(writing, "mode", wish->node_strict ? "strict" : "preferred");
    attribute(writing, "nodeset", node);
    end(writing);
    end(writing);
}

static void write_boot(struct writing *writing, const struct domain_xml_wish *wish)
{
    begin(writing, "os");
    begin(writing, "type");
    attribute(writing, "machine", "microvm");
    writing->failed = writing->failed || xmlTextWriterWriteString(writing->writer, BAD_CAST "hvm") < 0;
    end(writing);
    content(writing, "kernel", wish->kernel);
    if (wish->initrd != NULL) {
        content(writing, "initrd", wish->initrd);
    }
    if (wish->command_line != NULL) {
        content(writing, "cmdline", wish->command_line);
    }
    end(writing);
}

/* USB and a balloon are said to be absent, or libvirt looks for a PCI bus to put them on. */
static void write_devices(struct writing *writing, const char *emulator)
{
    begin(writing, "devices");
    content(writing, "emulator", emulator);
    begin(writing, "controller");
    attribute(writing, "type", "usb");
    attribute(writing, "model", "none");
    end(writing);
    mark(writing, "memballoon", "model", "none");
    begin(writing, "serial");
    attribute(writing, "type", "pty");
    mark(writing, "target", "port", "0");
    end(writing);
    begin(writing, "console");
    attribute(writing, "type", "pty");
    begin(writing, "target");
    attribute(writing, "type", "serial");
    attribute(writing, "port", "0");
    end(writing);
    end(writing);
    end(writing);
}

/* libvirt has no word for transparent huge pages: Loam's own. */
static void write_own_words(struct writing *writing, const struct page_kind *kind)
{
    if (kind->source == PAGE_SOURCE_THP) {
        begin(writing, "qemu:commandline");
        mark(writing, "qemu:arg", "value", "-x-loam");
        mark(writing, "qemu:arg", "value", "pages=thp");
        end(writing);
    }
}

static void write_domain(struct writing *writing, const struct domain_xml_wish *wish)
{
    writing->failed = writing->failed || xmlTextWriterSetIndent(writing->writer, 1) < 0;
    begin(writing, "domain");
    attribute(writing, "type", wish->type);
    if (wish->kind.source == PAGE_SOURCE_THP) {
        attribute(writing, "xmlns:qemu", QEMU_NAMESPACE);
    }
    content(writing, "name", wish->name);
    number(writing, "memory", "MiB", wish->memory_bytes / MIB);
    number(writing, "vcpu", NULL, wish->vcpu_count);
    write_backing(writing, &wish->kind);
    write_node(writing, wish);
    write_boot(writing, wish);
    write_devices(writing, wish->emulator);
    write_own_words(writing, &wish->kind);
    end(writing);
}

enum loam_error domain_xml_write(const struct domain_xml_wish *wish, char **text, struct loam_diag *diag)
{
    enum loam_error error = domain_xml_check(wish, diag);
    xmlBuffer *buffer = error == LOAM_OK ? xmlBufferCreate() : NULL;
    struct writing writing = {.writer = buffer == NULL ? NULL : xmlNewTextWriterMemory(buffer, 0)};

    *text = NULL;
    if (writing.writer != NULL) {
        write_domain(&writing, wish);
        writing.failed = writing.failed || xmlTextWriterFlush(writing.writer) < 0;
        xmlFreeTextWriter(writing.writer);
        *text = writing.failed ? NULL : strdup((const char *)xmlBufferContent(buffer));
    }
    xmlBufferFree(buffer);
    if (error == LOAM_OK && *text == NULL) {
        errno = ENOMEM;
        error = loam_fail(diag, LOAM_ERROR_SYSTEM, "the domain's XML");
    }
    return error;
}
