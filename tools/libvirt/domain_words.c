// SPDX-License-Identifier: Apache-2.0
/* Room is sized for the largest domain that domain_read answers with: 8 parts, three texts and a dozen options. */
#include "tools/libvirt/domain_words.h"

#include "vmm/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- Words --------------------------------------------------------------------------------------------------------- */

LOAM_PRINTF(2, 3)
static void add(struct domain_words *words, const char *format, ...)
{
    size_t room = sizeof words->text - words->used;
    va_list arguments;
    int count;

    va_start(arguments, format);
    count = vsnprintf(words->text + words->used, room, format, arguments);
    va_end(arguments);
    assert(count >= 0 && (size_t)count < room && words->count < DOMAIN_WORDS_MAX - 1);
    words->argv[words->count++] = words->text + words->used;
    words->argv[words->count] = NULL;
    words->used += (size_t)count + 1;
}

/* A text of options, in pieces. */
struct piece {
    char text[512];
    size_t used;
};

LOAM_PRINTF(2, 3)
static void append(struct piece *piece, const char *format, ...)
{
    size_t room = sizeof piece->text - piece->used;
    va_list arguments;
    int count;

    va_start(arguments, format);
    count = vsnprintf(piece->text + piece->used, room, format, arguments);
    va_end(arguments);
    assert(count >= 0 && (size_t)count < room);
    piece->used += (size_t)count;
}

/* In the largest unit that leaves no rest. */
static void append_bytes(struct piece *piece, uint64_t bytes)
{
    static const char units[] = "TGMK";

    for (unsigned i = 0; i < 4; i++) {
        uint64_t unit = UINT64_C(1) << (40 - 10 * i);

        if (bytes != 0 && bytes % unit == 0) {
            append(piece, "%" PRIu64 "%c", bytes / unit, units[i]);
            return;
        }
    }
    append(piece, "%" PRIu64, bytes);
}

/* "0-3+7" */
static void append_nodes(struct piece *piece, uint64_t mask)
{
    const char *between = "";

    for (unsigned first = 0; first < LOAM_NODE_COUNT_MAX; first++) {
        unsigned last = first;

        if ((mask >> first & 1) == 0) {
            continue;
        }
        while (last + 1 < LOAM_NODE_COUNT_MAX && (mask >> (last + 1) & 1) != 0) {
            last++;
        }
        append(piece, last > first ? "%s%u-%u" : "%s%u", between, first, last);
        between = "+";
        first = last;
    }
}

static void add_part(struct domain_words *words, const struct loam_backing_request *part)
{
    struct piece piece = {.used = 0};

    append(&piece, "size=");
    append_bytes(&piece, part->bytes);
    if (part->pages != LOAM_PAGES_AUTO) {
        append(&piece, ",pages=%s", loam_pages_name(part->pages));
    }
    if (part->placement != LOAM_PLACEMENT_ANY) {
        append(&piece, ",node=");
        append_nodes(&piece, part->node_mask);
        append(&piece, ",policy=%s", loam_placement_name(part->placement));
    }
    if (part->sharing != LOAM_SHARING_ANY) {
        append(&piece, ",share=%s", part->sharing == LOAM_SHARING_SHARED ? "on" : "off");
    }
    if (part->commit != LOAM_COMMIT_RESERVE) {
        append(&piece, ",populate=%s", part->commit == LOAM_COMMIT_POPULATE ? "on" : "off");
    }
    if (part->lock) {
        append(&piece, ",lock=on");
    }
    add(words, "--memory");
    add(words, "%s", piece.text);
}

/* What needs no part is said as a person would. */
static bool is_plain(const struct loam_memory_request *memory)
{
    return memory->sharing == LOAM_SHARING_ANY && memory->placement == LOAM_PLACEMENT_ANY;
}

static void add_plain(struct domain_words *words, const struct loam_memory_request *memory)
{
    struct piece piece = {.used = 0};

    append_bytes(&piece, memory->bytes);
    add(words, "--memory");
    add(words, "%s", piece.text);
    if (memory->pages != LOAM_PAGES_AUTO) {
        add(words, "--pages");
        add(words, "%s", loam_pages_name(memory->pages));
    }
    if (memory->commit != LOAM_COMMIT_RESERVE) {
        add(words, memory->commit == LOAM_COMMIT_POPULATE ? "--populate" : "--lazy");
    }
    if (memory->lock) {
        add(words, "--lock");
    }
}

static void add_memory(struct domain_words *words, const struct loam_memory_request *memory)
{
    const struct loam_backing_request whole = {
        .bytes = memory->bytes,
        .pages = memory->pages,
        .sharing = memory->sharing,
        .commit = memory->commit,
        .placement = memory->placement,
        .node_mask = memory->node_mask,
        .lock = memory->lock,
    };

    if (memory->part_count == 0 && is_plain(memory)) {
        add_plain(words, memory);
    } else if (memory->part_count == 0) {
        add_part(words, &whole);
    }
    for (uint32_t i = 0; i < memory->part_count; i++) {
        add_part(words, &memory->parts[i]);
    }
    if (memory->thread_count != 0) {
        add(words, "--populate-threads");
        add(words, "%" PRIu32, memory->thread_count);
    }
}

static void add_option(struct domain_words *words, const char *name, const char *value)
{
    if (value[0] != '\0') {
        add(words, "%s", name);
        add(words, "%s", value);
    }
}

void domain_words_make(const struct domain *domain, struct domain_words *words)
{
    words->count = 0;
    words->used = 0;
    add(words, "loam");
    add(words, "run");
    add_memory(words, &domain->memory);
    add(words, "--vcpus");
    add(words, "%" PRIu32, domain->vcpu_count);
    add_option(words, "--kernel", domain->kernel);
    add_option(words, "--initrd", domain->initrd);
    add_option(words, "--cmdline", domain->command_line);
    if (domain->kernel[0] != '\0') {
        add_option(words, "--on-reset", domain->ends_at_reset ? "pass" : "restart");
    }
}

/* --- A line for a shell -------------------------------------------------------------------------------------------- */

/* Neither a control character (C0, DEL, C1) nor broken. */
static bool is_shown(const char *text, size_t count)
{
    bool good;

    for (size_t at = 0, step; at < count; at += step) {
        unsigned char byte = (unsigned char)text[at];

        step = utf8_measure(text + at, count - at, &good);
        if (!good || byte < ' ' || byte == 0x7f || (byte == 0xc2 && (unsigned char)text[at + 1] < 0xa0)) {
            return false;
        }
    }
    return true;
}

/* 'text' */
static char *quote(char *output, const char *text)
{
    *output++ = '\'';
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            output = stpcpy(output, "'\\''");
        } else {
            *output++ = *text;
        }
    }
    *output++ = '\'';
    return output;
}

/* $'text', with \NNN for what cannot be shown or has a meaning. */
static char *escape(char *output, const char *text)
{
    output = stpcpy(output, "$'");
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte < ' ' || byte >= 0x7f || byte == '\'' || byte == '\\') {
            output += sprintf(output, "\\%03o", byte);
        } else {
            *output++ = *text;
        }
    }
    *output++ = '\'';
    return output;
}

static char *put_word(char *output, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%";
    size_t count = strlen(text);

    if (count > 0 && strspn(text, plain) == count) {
        return stpcpy(output, text);
    }
    return is_shown(text, count) ? quote(output, text) : escape(output, text);
}

size_t domain_words_shell(const struct domain_words *words, const struct domain_serial *serial,
                          char output[DOMAIN_WORDS_SHELL_BYTES])
{
    char *at = output;

    for (uint32_t i = 0; i < words->count; i++) {
        at = stpcpy(at, i > 0 ? " " : "");
        at = put_word(at, words->argv[i]);
    }
    if (serial->kind != DOMAIN_SERIAL_TERMINAL) {
        at = stpcpy(at, serial->append ? " </dev/null >>" : " </dev/null >");
        at = put_word(at, serial->kind == DOMAIN_SERIAL_FILE ? serial->path : "/dev/null");
    }
    *at = '\0';
    return (size_t)(at - output);
}
