// SPDX-License-Identifier: Apache-2.0
/*
 * An XML document that nobody vouches for, walked once along tables that say which elements and attributes there may be.
 *
 * What a table does not hold, or holds with a reason against it, is refused by its path, its line and the word that passes
 * over it: "/domain/devices/interface[1]: line 31: no network device here: --ignore /domain/devices/interface passes over
 * it". All refusals are gathered, XML_WALK_REFUSAL_MAX as texts.
 *
 * No tree is built. No entity is replaced but the five that XML itself has, nothing is fetched, a DOCTYPE ends the walk
 * where it begins, and so does whatever exceeds the limits below: time and memory are bounded by them. Texts hold what
 * the document holds: they are shown through vmm/printable.h.
 *
 * Threads: any, a walk is its caller's.
 */
#ifndef LOAM_LIBVIRT_XML_WALK_H
#define LOAM_LIBVIRT_XML_WALK_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XML_WALK_BYTES_MAX   (1u << 20)
#define XML_WALK_ELEMENT_MAX 10000u
#define XML_WALK_DEPTH_MAX   64u
#define XML_WALK_NAME_MAX    64u    /* bytes of a name, prefix and all */
#define XML_WALK_KIND_MAX    64u    /* names among the children of one element */
#define XML_WALK_EQUALS_MAX  16384u /* "=" in all: libxml2 compares each attribute of an element with all before it */
#define XML_WALK_VALUE_BYTES 4096u  /* of an attribute, or an element's text without blanks around it, with a NUL */
#define XML_WALK_PATH_BYTES  512u

#define XML_WALK_REFUSAL_MAX   32u
#define XML_WALK_REFUSAL_BYTES 1024u

#define XML_WALK_IGNORE_BYTES 256u /* a path to be passed over, with a NUL */

struct xml_walk;

/*
 * Told a value, or with NULL that an element begins or ends. NULL: taken, else why not, in words that live as long as
 * the walk.
 */
typedef const char *xml_walk_take(struct xml_walk *walk, const char *value);

struct xml_walk_attribute {
    const char *name;    /* NULL ends the table */
    const char *values;  /* "one|other": no value but these; NULL: any */
    xml_walk_take *take; /* NULL: the value changes nothing */
    const char *why;     /* of all other values */
};

struct xml_walk_element {
    const char *name;                            /* NULL ends the table */
    const struct xml_walk_attribute *attributes; /* NULL: none */
    const struct xml_walk_element *children;     /* NULL: none */
    const char *values;                          /* of its text, as above; NULL without take: no text */
    xml_walk_take *take;                         /* of its text */
    xml_walk_take *begin;                        /* its attributes come after it; refused, it is passed over */
    xml_walk_take *end;
    const char *why; /* of all other texts; without values: why there is no such element here */
    bool repeats;    /* there may be several: paths number them */
    bool is_list;    /* paths number its children */
    bool is_free;    /* whatever is in it, attributes, text and elements, changes nothing */
};

struct xml_walk_refusals {
    uint32_t count; /* more than XML_WALK_REFUSAL_MAX: the first have texts */
    char texts[XML_WALK_REFUSAL_MAX][XML_WALK_REFUSAL_BYTES];
};

/* Where something stands: to be refused later. */
struct xml_walk_place {
    unsigned line; /* where its start tag ends; 0: nowhere */
    char path[XML_WALK_PATH_BYTES];
};

struct xml_walk_request {
    const char *bytes;
    size_t count;
    const struct xml_walk_element *root;
    const char *const *ignores; /* each xml_walk_is_path */
    size_t ignore_count;
    void *context;
};

/*
 * Walk it, adding to *refusals. Whether its end was reached: if not, the last refusal says why. What is passed over is as
 * if it were not there.
 */
bool xml_walk_run(const struct xml_walk_request *request, struct xml_walk_refusals *refusals);

/* --- For those who take -------------------------------------------------------------------------------------------- */

void *xml_walk_context(const struct xml_walk *walk);

/* Where the value is that is told. */
struct xml_walk_place xml_walk_here(const struct xml_walk *walk);

/*
 * While an element begins: the value of its attribute of that name, until the next is asked for; NULL: there is none, it
 * is passed over, or it is too long.
 */
const char *xml_walk_peek(struct xml_walk *walk, const char *name);

/* Refuse what stands at place. */
LOAM_PRINTF(3, 4)
void xml_walk_refuse(struct xml_walk_refusals *refusals, const struct xml_walk_place *place, const char *format, ...);

/* Refuse the whole document; line 0: none. */
LOAM_PRINTF(3, 4)
void xml_walk_refuse_all(struct xml_walk_refusals *refusals, unsigned line, const char *format, ...);

/* --- Paths --------------------------------------------------------------------------------------------------------- */

/*
 * Whether it is a path as XPath writes it, of steps /NAME, /NAME[N] and at last /@NAME, to name what is passed over: with
 * an index that element alone, without one all of the name; and whatever is below.
 */
bool xml_walk_is_path(const char *text);

#endif
