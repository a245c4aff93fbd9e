// SPDX-License-Identifier: Apache-2.0
/*
 * libxml2 calls back for each element (SAX2) and keeps nothing but the names of those that are open. Frames are the open
 * elements that a table knows; below an element that is passed over or refused, elements are only counted.
 */
#include "tools/libvirt/xml_walk.h"

#include "vmm/utf8.h"

#include <inttypes.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FRAME_MAX       12u /* deeper than any table */
#define SHOWN_BYTES_MAX 48  /* of a value that is refused */

/* How often a name is among the children of an element. libxml2 has each name once: pointers are compared. */
struct kind {
    const xmlChar *prefix, *name;
    uint32_t count;
};

struct frame {
    const struct xml_walk_element *element; /* NULL: the document */
    char name[XML_WALK_NAME_MAX + 1];
    uint32_t index; /* among those of its name, from 1 */
    bool is_numbered;
    unsigned line;
    uint32_t kind_count;
    struct kind kinds[XML_WALK_KIND_MAX];
};

struct xml_walk {
    const struct xml_walk_request *request;
    struct xml_walk_refusals *refusals;
    xmlParserCtxtPtr parser;
    bool failed; /* the end cannot be reached */
    uint32_t element_count, depth;
    uint32_t passed_depth;      /* open elements from that on which is passed over; 0: none is */
    const char *attribute;      /* whose value is told; NULL: an element's text */
    const xmlChar **attributes; /* of the element that begins: five pointers for each */
    int attribute_count;
    uint32_t frame_count; /* the first is the document's */
    struct frame frames[FRAME_MAX];
    size_t text_bytes; /* of the innermost frame, as far as it fits */
    bool is_text_cut;
    char text[XML_WALK_VALUE_BYTES];
    char value[XML_WALK_VALUE_BYTES];
};

static struct frame *innermost(struct xml_walk *walk)
{
    return &walk->frames[walk->frame_count - 1];
}

static unsigned line_of(const struct xml_walk *walk)
{
    return walk->parser->input != NULL ? (unsigned)walk->parser->input->line : 0;
}

void *xml_walk_context(const struct xml_walk *walk)
{
    return walk->request->context;
}

/* --- Refusals ------------------------------------------------------------------------------------------------------ */

/* Room for one more text; NULL: none. */
static char *add_refusal(struct xml_walk_refusals *refusals)
{
    uint32_t at = refusals->count;

    refusals->count += at < UINT32_MAX;
    return at < XML_WALK_REFUSAL_MAX ? refusals->texts[at] : NULL;
}

/* A path without its numbers: what passes over all of that name. */
static void copy_unnumbered(char output[XML_WALK_PATH_BYTES], const char *path)
{
    size_t count = 0;

    for (; *path != '\0' && count < XML_WALK_PATH_BYTES - 1; path++) {
        if (*path == '[') {
            path += strcspn(path, "]");
        } else {
            output[count++] = *path;
        }
    }
    output[count] = '\0';
}

void xml_walk_refuse(struct xml_walk_refusals *refusals, const struct xml_walk_place *place, const char *format, ...)
{
    char *text = add_refusal(refusals), why[XML_WALK_REFUSAL_BYTES / 2], ignore[XML_WALK_PATH_BYTES];
    va_list arguments;

    if (text == NULL) {
        return;
    }
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    copy_unnumbered(ignore, place->path);
    snprintf(text, XML_WALK_REFUSAL_BYTES, "%.320s: line %u: %.380s: --ignore %.240s passes over it", place->path,
             place->line, why, ignore);
}

static void refuse_all(struct xml_walk_refusals *refusals, unsigned line, const char *format, va_list arguments)
{
    char *text = add_refusal(refusals);
    int used = 0;

    if (text == NULL) {
        /* The reason for an early end is told in any case. */
        text = refusals->texts[XML_WALK_REFUSAL_MAX - 1];
    }
    if (line != 0) {
        used = snprintf(text, XML_WALK_REFUSAL_BYTES, "line %u: ", line);
    }
    vsnprintf(text + used, XML_WALK_REFUSAL_BYTES - (size_t)used, format, arguments);
}

void xml_walk_refuse_all(struct xml_walk_refusals *refusals, unsigned line, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    refuse_all(refusals, line, format, arguments);
    va_end(arguments);
}

/* The walk ends here. */
LOAM_PRINTF(2, 3)
static void fail(struct xml_walk *walk, const char *format, ...)
{
    va_list arguments;

    if (!walk->failed) {
        va_start(arguments, format);
        refuse_all(walk->refusals, line_of(walk), format, arguments);
        va_end(arguments);
    }
    walk->failed = true;
    xmlStopParser(walk->parser);
}

/* --- Paths --------------------------------------------------------------------------------------------------------- */

static size_t append_step(char path[XML_WALK_PATH_BYTES], size_t used, const char *name, uint32_t number)
{
    int count = number != 0 ? snprintf(path + used, XML_WALK_PATH_BYTES - used, "/%s[%" PRIu32 "]", name, number)
                            : snprintf(path + used, XML_WALK_PATH_BYTES - used, "/%s", name);

    return used + (size_t)count < XML_WALK_PATH_BYTES ? used + (size_t)count : XML_WALK_PATH_BYTES - 1;
}

struct xml_walk_place xml_walk_here(const struct xml_walk *walk)
{
    struct xml_walk_place place = {.line = walk->frames[walk->frame_count - 1].line};
    size_t used = 0;

    for (uint32_t i = 1; i < walk->frame_count; i++) {
        const struct frame *frame = &walk->frames[i];

        used = append_step(place.path, used, frame->name, frame->is_numbered ? frame->index : 0);
    }
    if (walk->attribute != NULL) {
        char name[XML_WALK_NAME_MAX + 2];

        snprintf(name, sizeof name, "@%s", walk->attribute);
        append_step(place.path, used, name, 0);
    }
    return place;
}

/* The end of the step at text, which is not empty and begins after its "/"; NULL: it is no step. */
static const char *step_end(const char *text)
{
    bool is_attribute = *text == '@';
    size_t count = strcspn(text += is_attribute, "/[]@ \t\n\r");

    text += count;
    if (count == 0 || count > XML_WALK_NAME_MAX || (is_attribute && *text != '\0')) {
        return NULL;
    }
    if (*text == '[') {
        count = strspn(++text, "0123456789");
        if (count == 0 || count > 9 || *text == '0' || text[count] != ']') {
            return NULL;
        }
        text += count + 1;
    }
    return *text == '/' || *text == '\0' ? text : NULL;
}

bool xml_walk_is_path(const char *text)
{
    if (*text == '\0' || strlen(text) >= XML_WALK_IGNORE_BYTES) {
        return false;
    }
    while (text != NULL && *text == '/') {
        text = step_end(text + 1);
    }
    return text != NULL && *text == '\0';
}

/* The rest of an ignored path after the step that this name and index are; NULL: they are not it. */
static const char *match_step(const char *path, const char *name, uint32_t index)
{
    size_t count = strlen(name);

    if (*path != '/' || strncmp(path + 1, name, count) != 0) {
        return NULL;
    }
    path += 1 + count;
    if (*path == '[') {
        if (strtoul(path + 1, NULL, 10) != index) {
            return NULL;
        }
        path += strcspn(path, "]") + 1;
    }
    return *path == '/' || *path == '\0' ? path : NULL;
}

/* Whether this path names the innermost frame, or its attribute that is told. */
static bool is_named_by(const struct xml_walk *walk, const char *path)
{
    for (uint32_t i = 1; i < walk->frame_count && path != NULL; i++) {
        path = match_step(path, walk->frames[i].name, walk->frames[i].index);
    }
    if (path == NULL || walk->attribute == NULL) {
        return path != NULL && *path == '\0';
    }
    return strncmp(path, "/@", 2) == 0 && strcmp(path + 2, walk->attribute) == 0;
}

static bool is_ignored(const struct xml_walk *walk)
{
    for (size_t i = 0; i < walk->request->ignore_count; i++) {
        if (is_named_by(walk, walk->request->ignores[i])) {
            return true;
        }
    }
    return false;
}

/* --- Values -------------------------------------------------------------------------------------------------------- */

static bool is_among(const char *values, const char *value)
{
    size_t count = strlen(value);

    for (;; values++) {
        size_t length = strcspn(values, "|");

        if (length == count && strncmp(values, value, count) == 0) {
            return true;
        }
        values += length;
        if (*values == '\0') {
            return false;
        }
    }
}

/* Shorten a value that is shown, between two characters. */
static const char *shown(const char *value, char output[SHOWN_BYTES_MAX + 4])
{
    size_t count = strlen(value);

    if (count <= SHOWN_BYTES_MAX) {
        return value;
    }
    for (count = SHOWN_BYTES_MAX; count > 0 && ((unsigned char)value[count] & 0xc0) == 0x80; count--) {
    }
    snprintf(output, SHOWN_BYTES_MAX + 4, "%.*s...", (int)count, value);
    return output;
}

/* What a table says of values, and what is told one. */
struct judge {
    const char *values, *why;
    xml_walk_take *take;
};

static void tell(struct xml_walk *walk, const struct judge *judge, const char *value)
{
    bool is_other = judge->values != NULL && !is_among(judge->values, value);
    const char *why = is_other ? judge->why : judge->take != NULL ? judge->take(walk, value) : NULL;
    char room[SHOWN_BYTES_MAX + 4];

    if (is_other || why != NULL) {
        struct xml_walk_place place = xml_walk_here(walk);

        xml_walk_refuse(walk->refusals, &place, "'%s': %s", shown(value, room), why);
    }
}

static void refuse_here(struct xml_walk *walk, const char *why)
{
    struct xml_walk_place place = xml_walk_here(walk);

    xml_walk_refuse(walk->refusals, &place, "%s", why);
}

/* --- Attributes ---------------------------------------------------------------------------------------------------- */

/* "prefix:name" as it is written. Whether it fits. */
static bool join_name(char output[XML_WALK_NAME_MAX + 1], const xmlChar *prefix, const xmlChar *name)
{
    int count = snprintf(output, XML_WALK_NAME_MAX + 1, "%s%s%s", prefix != NULL ? (const char *)prefix : "",
                         prefix != NULL ? ":" : "", (const char *)name);

    return count >= 0 && (unsigned)count <= XML_WALK_NAME_MAX;
}

static const struct xml_walk_attribute *find_attribute(const struct xml_walk_attribute *row, const char *name)
{
    while (row != NULL && row->name != NULL && strcmp(row->name, name) != 0) {
        row++;
    }
    return row != NULL && row->name != NULL ? row : NULL;
}

static void walk_attribute(struct xml_walk *walk, const xmlChar *value, size_t count)
{
    const struct xml_walk_attribute *row = find_attribute(innermost(walk)->element->attributes, walk->attribute);

    if (is_ignored(walk)) {
        return;
    }
    if (row == NULL) {
        refuse_here(walk, "not honoured here");
    } else if (count >= sizeof walk->value) {
        refuse_here(walk, "longer than 4095 bytes");
    } else {
        memcpy(walk->value, value, count);
        walk->value[count] = '\0';
        tell(walk, &(struct judge){row->values, row->why, row->take}, walk->value);
    }
}

/* libxml2's five pointers: name, prefix, namespace, begin and end of the value. */
static const xmlChar **attribute_at(const struct xml_walk *walk, int i)
{
    return &walk->attributes[(ptrdiff_t)i * 5];
}

static void walk_attributes(struct xml_walk *walk)
{
    for (int i = 0; i < walk->attribute_count && !walk->failed; i++) {
        const xmlChar **attribute = attribute_at(walk, i);
        char name[XML_WALK_NAME_MAX + 1];

        if (!join_name(name, attribute[1], attribute[0])) {
            fail(walk, "an attribute has a name of more than %u bytes", XML_WALK_NAME_MAX);
        } else {
            walk->attribute = name;
            walk_attribute(walk, attribute[3], (size_t)(attribute[4] - attribute[3]));
        }
        walk->attribute = NULL;
    }
}

const char *xml_walk_peek(struct xml_walk *walk, const char *name)
{
    const char *found = NULL;

    walk->attribute = name;
    for (int i = 0; i < walk->attribute_count && found == NULL && !is_ignored(walk); i++) {
        const xmlChar **attribute = attribute_at(walk, i);
        size_t count = (size_t)(attribute[4] - attribute[3]);

        if (attribute[1] == NULL && strcmp((const char *)attribute[0], name) == 0 && count < sizeof walk->value) {
            memcpy(walk->value, attribute[3], count);
            walk->value[count] = '\0';
            found = walk->value;
        }
    }
    walk->attribute = NULL;
    return found;
}

/* --- Elements ------------------------------------------------------------------------------------------------------ */

/* Which of its name it is below the innermost frame; 0: there are too many names. */
static uint32_t count_kind(struct frame *parent, const xmlChar *prefix, const xmlChar *name)
{
    uint32_t i = 0;

    while (i < parent->kind_count && (parent->kinds[i].name != name || parent->kinds[i].prefix != prefix)) {
        i++;
    }
    if (i == XML_WALK_KIND_MAX) {
        return 0;
    }
    if (i == parent->kind_count) {
        parent->kinds[i] = (struct kind){prefix, name, 0};
        parent->kind_count++;
    }
    return ++parent->kinds[i].count;
}

static const struct xml_walk_element *find_element(const struct xml_walk_element *row, const char *name)
{
    while (row != NULL && row->name != NULL && strcmp(row->name, name) != 0) {
        row++;
    }
    return row != NULL && row->name != NULL ? row : NULL;
}

/* The frame of an element that begins, which no table may know. false: the walk has failed. */
static bool push_frame(struct xml_walk *walk, const xmlChar *prefix, const xmlChar *name, bool is_foreign)
{
    struct frame *parent = innermost(walk), *frame = parent + 1;
    const struct xml_walk_element *above = parent->element;
    bool is_root = walk->frame_count == 1;

    if (walk->frame_count == FRAME_MAX || !join_name(frame->name, prefix, name)) {
        fail(walk, "an element has a name of more than %u bytes", XML_WALK_NAME_MAX);
        return false;
    }
    frame->index = count_kind(parent, prefix, name);
    if (frame->index == 0) {
        fail(walk, "more than %u kinds of elements stand in one", XML_WALK_KIND_MAX);
        return false;
    }
    if (is_foreign || (is_root && strcmp(frame->name, walk->request->root->name) != 0)) {
        frame->element = NULL;
    } else {
        frame->element = is_root ? walk->request->root : find_element(above->children, frame->name);
    }
    frame->is_numbered =
        frame->index > 1 || (above != NULL && above->is_list) || (frame->element != NULL && frame->element->repeats);
    frame->line = line_of(walk);
    frame->kind_count = 0;
    walk->frame_count++;
    return true;
}

/* Why an element of this kind cannot be here; NULL: it can. */
static const char *judge_frame(struct xml_walk *walk, const struct frame *frame)
{
    const struct xml_walk_element *element = frame->element;

    if (element == NULL) {
        return "not honoured here";
    }
    if (element->why != NULL && element->values == NULL) {
        return element->why;
    }
    if (frame->index > 1 && !element->repeats) {
        return "there is one already";
    }
    return element->begin != NULL ? element->begin(walk, NULL) : NULL;
}

static void trim_text(struct xml_walk *walk)
{
    while (walk->text_bytes > 0 && strchr(" \t\n\r", walk->text[walk->text_bytes - 1]) != NULL) {
        walk->text_bytes--;
    }
    walk->text[walk->text_bytes] = '\0';
}

static void end_text(struct xml_walk *walk, const struct xml_walk_element *element)
{
    trim_text(walk);
    if (walk->is_text_cut) {
        refuse_here(walk, "longer than 4095 bytes");
    } else if (element->values != NULL || element->take != NULL) {
        tell(walk, &(struct judge){element->values, element->why, element->take}, walk->text);
    } else if (walk->text_bytes > 0) {
        refuse_here(walk, "no text is wanted here");
    }
    walk->text_bytes = 0;
    walk->is_text_cut = false;
}

/* Text before an element in one that has none. */
static void end_stray_text(struct xml_walk *walk)
{
    const struct xml_walk_element *element = innermost(walk)->element;

    if (walk->text_bytes > 0 && element != NULL && element->values == NULL && element->take == NULL) {
        end_text(walk, element);
    }
}

/* The element that has just begun, and all that is in it, is only counted. */
static void pass_over(struct xml_walk *walk)
{
    walk->frame_count--;
    walk->passed_depth = 1;
}

static void begin_element(struct xml_walk *walk)
{
    const struct frame *frame = innermost(walk);
    const char *why;

    if (frame->element == NULL && walk->frame_count == 2) {
        fail(walk, "<%s> where <%s>, without a namespace, was wanted", frame->name, walk->request->root->name);
        return;
    }
    why = is_ignored(walk) ? NULL : judge_frame(walk, frame);
    if (why != NULL) {
        refuse_here(walk, why);
    }
    if (why != NULL || is_ignored(walk) || frame->element->is_free) {
        pass_over(walk);
        return;
    }
    walk->text_bytes = 0;
    walk->is_text_cut = false;
    walk_attributes(walk);
}

static void end_element(struct xml_walk *walk)
{
    const struct xml_walk_element *element = innermost(walk)->element;
    const char *why;

    end_text(walk, element);
    why = element->end != NULL ? element->end(walk, NULL) : NULL;
    if (why != NULL) {
        refuse_here(walk, why);
    }
    walk->frame_count--;
}

/* --- What libxml2 calls -------------------------------------------------------------------------------------------- */

/* NOLINTNEXTLINE(readability-non-const-parameter) libxml2's type */
static void on_start(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *space, int space_count,
                     const xmlChar **spaces, int count, int default_count, const xmlChar **attributes)
{
    struct xml_walk *walk = context;

    (void)space_count;
    (void)spaces;
    (void)default_count;
    if (walk->failed) {
        return;
    }
    walk->depth++;
    if (++walk->element_count > XML_WALK_ELEMENT_MAX) {
        fail(walk, "more than %u elements", XML_WALK_ELEMENT_MAX);
    } else if (walk->depth > XML_WALK_DEPTH_MAX) {
        fail(walk, "elements in elements deeper than %u", XML_WALK_DEPTH_MAX);
    } else if (walk->passed_depth > 0) {
        walk->passed_depth++;
    } else {
        end_stray_text(walk);
        if (push_frame(walk, prefix, name, prefix == NULL && space != NULL)) {
            walk->attributes = attributes;
            walk->attribute_count = count;
            begin_element(walk);
        }
    }
}

static void on_end(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *space)
{
    struct xml_walk *walk = context;

    (void)name;
    (void)prefix;
    (void)space;
    if (walk->failed) {
        return;
    }
    walk->depth--;
    if (walk->passed_depth > 0) {
        walk->passed_depth--;
    } else {
        end_element(walk);
    }
}

static void on_text(void *context, const xmlChar *text, int count)
{
    struct xml_walk *walk = context;

    if (walk->failed || walk->passed_depth > 0) {
        return;
    }
    for (int i = 0; i < count; i++) {
        bool is_blank = strchr(" \t\n\r", text[i]) != NULL;

        if (walk->text_bytes == 0 && is_blank) {
            continue;
        }
        if (walk->text_bytes < sizeof walk->text - 1) {
            walk->text[walk->text_bytes++] = (char)text[i];
        } else {
            walk->is_text_cut |= !is_blank;
        }
    }
}

static void on_doctype(void *context, const xmlChar *name, const xmlChar *public_id, const xmlChar *system_id)
{
    (void)name;
    (void)public_id;
    (void)system_id;
    fail(context, "a DOCTYPE: no document type is read here: take it out");
}

static void on_error(void *context, xmlErrorPtr error)
{
    struct xml_walk *walk = context;
    const char *message = error->message != NULL ? error->message : "unknown error";

    if (error->level == XML_ERR_FATAL) {
        fail(walk, "no XML: %.*s", (int)strcspn(message, "\n"), message);
    }
}

/* --- The document -------------------------------------------------------------------------------------------------- */

/* The encoding that an XML declaration at the beginning names, if it is none that is read here; NULL otherwise. */
static const char *other_encoding(const char *bytes, size_t count, char output[SHOWN_BYTES_MAX + 1])
{
    char head[256];
    const char *at;
    size_t length;

    length = count < sizeof head - 1 ? count : sizeof head - 1;
    memcpy(head, bytes, length);
    head[length] = '\0';
    at = strncmp(head, "\xef\xbb\xbf", 3) == 0 ? head + 3 : head;
    if (strncmp(at, "<?xml", 5) != 0) {
        return NULL;
    }
    head[strlen(head) - strlen(at) + strcspn(at, ">")] = '\0';
    at = strstr(at, "encoding");
    if (at == NULL) {
        return NULL;
    }
    at += strcspn(at, "'\"");
    at += *at != '\0';
    snprintf(output, SHOWN_BYTES_MAX + 1, "%.*s", (int)strcspn(at, "'\""), at);
    return strcasecmp(output, "UTF-8") == 0 || strcasecmp(output, "US-ASCII") == 0 ? NULL : output;
}

/* What libxml2 is not given at all. Whether there is nothing of that kind. */
static bool check_bytes(const struct xml_walk_request *request, struct xml_walk_refusals *refusals)
{
    unsigned line = 1, equals = 0;
    char encoding[SHOWN_BYTES_MAX + 1];
    bool good = true;

    if (request->count == 0 || request->count > XML_WALK_BYTES_MAX) {
        xml_walk_refuse_all(refusals, 0,
                            request->count == 0 ? "empty: no XML" : "more than %u bytes: no domain is so long",
                            XML_WALK_BYTES_MAX);
        return false;
    }
    for (size_t at = 0; at < request->count && good;
         at += utf8_measure(request->bytes + at, request->count - at, &good)) {
        line += request->bytes[at] == '\n';
        equals += request->bytes[at] == '=';
    }
    if (!good || memchr(request->bytes, '\0', request->count) != NULL) {
        xml_walk_refuse_all(refusals, line, "not UTF-8, which is the only encoding here: convert it");
        return false;
    }
    if (equals > XML_WALK_EQUALS_MAX) {
        xml_walk_refuse_all(refusals, 0, "more than %u '=': no domain has so many attributes", XML_WALK_EQUALS_MAX);
        return false;
    }
    if (other_encoding(request->bytes, request->count, encoding) != NULL) {
        xml_walk_refuse_all(refusals, 1, "encoding '%s': UTF-8 is the only one here: convert it", encoding);
        return false;
    }
    return true;
}

static void parse(struct xml_walk *walk)
{
    *walk->parser->sax = (xmlSAXHandler){
        .initialized = XML_SAX2_MAGIC,
        .internalSubset = on_doctype,
        .startElementNs = on_start,
        .endElementNs = on_end,
        .characters = on_text,
        .ignorableWhitespace = on_text,
        .cdataBlock = on_text,
        .serror = on_error,
    };
    walk->parser->userData = walk;
    xmlCtxtUseOptions(walk->parser, XML_PARSE_NONET | XML_PARSE_IGNORE_ENC);
    if (xmlParseDocument(walk->parser) != 0 || !walk->parser->wellFormed) {
        fail(walk, "no XML");
    }
}

bool xml_walk_run(const struct xml_walk_request *request, struct xml_walk_refusals *refusals)
{
    struct xml_walk *walk = NULL;
    bool reached = false;

    if (!check_bytes(request, refusals)) {
        return false;
    }
    walk = calloc(1, sizeof *walk);
    if (walk != NULL) {
        *walk = (struct xml_walk){.request = request, .refusals = refusals, .frame_count = 1};
        walk->parser = xmlCreateMemoryParserCtxt(request->bytes, (int)request->count);
    }
    if (walk == NULL || walk->parser == NULL) {
        xml_walk_refuse_all(refusals, 0, "no memory is left to read it");
    } else {
        parse(walk);
        reached = !walk->failed;
        xmlFreeParserCtxt(walk->parser);
    }
    free(walk);
    return reached;
}
