// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "reserved.json"
#define NEW_NAME  "reserved.json.new"

/* --- The folder ------------------------------------------------------------------------------------------------- */

static bool name_folder(char *path, size_t room)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int length = -1;

    if (state != NULL && state[0] == '/') {
        length = snprintf(path, room, "%s/loam", state);
    } else if (home != NULL && home[0] == '/') {
        length = snprintf(path, room, "%s/.local/state/loam", home);
    }
    return length > 0 && (size_t)length < room;
}

/* Make it and what it lies in. */
static bool make_folder(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        bool good;

        *slash = '\0';
        good = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!good) {
            return false;
        }
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

static enum loam_error lock_folder(struct record *record, struct loam_diag *diag)
{
    if (!name_folder(record->path, sizeof record->path)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "no place to write down what is to be given back: set HOME or "
                         "XDG_STATE_HOME");
    }
    record->folder = make_folder(record->path) ? open(record->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (record->folder < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%.300s, where it is written down what is to be given back",
                         record->path);
    }
    if (flock(record->folder, LOCK_EX | LOCK_NB) == 0) {
        return LOAM_OK;
    }
    return errno == EWOULDBLOCK
               ? loam_fail(diag, LOAM_ERROR_BUSY, "another loam host reserve is at work: try again when it has ended")
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "%.300s: the lock", record->path);
}

/* --- The file --------------------------------------------------------------------------------------------------- */

static bool take_figure(const json_t *json, const char *key, uint64_t *figure)
{
    const json_t *value = json_object_get(json, key);

    *figure = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool take_entry(const json_t *json, struct record_entry *entry)
{
    uint64_t node;

    *entry = (struct record_entry){0};
    entry->is_settled = !json_is_null(json_object_get(json, "after"));
    if (!take_figure(json, "page_bytes", &entry->page_bytes) || !take_figure(json, "node", &node) ||
        !take_figure(json, "before", &entry->before) || entry->page_bytes == 0 || node >= UINT32_MAX) {
        return false;
    }
    entry->node = (uint32_t)node;
    return !entry->is_settled || take_figure(json, "after", &entry->after);
}

static bool take_entries(struct record *record, const json_t *list)
{
    record->count = 0;
    if (list == NULL) {
        return true;
    }
    if (!json_is_array(list) || json_array_size(list) > RECORD_ENTRY_MAX) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!take_entry(json_array_get(list, i), &record->entries[record->count++])) {
            return false;
        }
    }
    return true;
}

/* The whole file, to be freed; "{}" if there is none; NULL: it cannot be read. */
static char *read_file(int folder)
{
    int fd = openat(folder, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char *text = NULL;
    struct stat status;
    ssize_t got;

    if (fd < 0) {
        return errno == ENOENT ? strdup("{}") : NULL;
    }
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= RECORD_BYTES_MAX) {
        text = calloc(1, RECORD_BYTES_MAX + 1);
    } else {
        errno = EFBIG;
    }
    for (size_t have = 0; text != NULL && have < RECORD_BYTES_MAX; have += (size_t)got) {
        got = read(fd, text + have, RECORD_BYTES_MAX - have);
        if (got <= 0) {
            break;
        }
    }
    close(fd);
    return text;
}

static enum loam_error load(struct record *record, struct loam_diag *diag)
{
    char *text = read_file(record->folder);

    if (text == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%.300s/" FILE_NAME, record->path);
    }
    record->all = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    if (json_is_object(record->all) && take_entries(record, json_object_get(record->all, record->uri))) {
        return LOAM_OK;
    }
    return loam_fail(diag, LOAM_ERROR_CORRUPT,
                     "%.300s/" FILE_NAME ": not what loam host reserve writes: see what it says, and remove it",
                     record->path);
}

enum loam_error record_open(struct record *record, const char *uri, struct loam_diag *diag)
{
    enum loam_error error;
    json_t *key = json_string(uri);

    *record = (struct record){.folder = -1, .uri = uri};
    json_decref(key);
    if (key == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "--connect %.300s: not UTF-8", uri);
    }
    error = lock_folder(record, diag);
    if (error == LOAM_OK) {
        error = load(record, diag);
    }
    if (error != LOAM_OK) {
        record_close(record);
    }
    return error;
}

static json_t *json_of_entry(const struct record_entry *entry)
{
    return json_pack("{sIsIsIso}", "page_bytes", (json_int_t)entry->page_bytes, "node", (json_int_t)entry->node,
                     "before", (json_int_t)entry->before, "after",
                     entry->is_settled ? json_integer((json_int_t)entry->after) : json_null());
}

static bool put_entries(struct record *record)
{
    json_t *list = json_array();
    bool good = list != NULL;

    for (uint32_t i = 0; good && i < record->count; i++) {
        good = json_array_append_new(list, json_of_entry(&record->entries[i])) == 0;
    }
    if (record->count == 0) {
        json_decref(list);
        (void)json_object_del(record->all, record->uri); /* it may not be there */
        return good;
    }
    return json_object_set_new(record->all, record->uri, list) == 0 && good;
}

static bool write_all(int fd, const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        ssize_t put = write(fd, text, left);

        if (put < 0 && errno != EINTR) {
            return false;
        }
        text += put > 0 ? put : 0;
        left -= put > 0 ? (size_t)put : 0;
    }
    return fsync(fd) == 0;
}

/* A new file beside the old one, whole before it takes its place. */
static bool replace_file(const struct record *record, const char *text)
{
    int fd = openat(record->folder, NEW_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool good = fd >= 0 && write_all(fd, text);

    if (fd >= 0) {
        close(fd);
    }
    good = good && renameat(record->folder, NEW_NAME, record->folder, FILE_NAME) == 0 && fsync(record->folder) == 0;
    if (!good) {
        int why = errno;

        unlinkat(record->folder, NEW_NAME, 0);
        errno = why;
    }
    return good;
}

enum loam_error record_store(struct record *record, struct loam_diag *diag)
{
    char *text = put_entries(record) ? json_dumps(record->all, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    bool good;

    if (text == NULL) {
        errno = ENOMEM;
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%.300s/" FILE_NAME, record->path);
    }
    good = json_object_size(record->all) > 0 ? replace_file(record, text)
                                             : unlinkat(record->folder, FILE_NAME, 0) == 0 || errno == ENOENT;
    free(text);
    return good ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "%.300s/" FILE_NAME, record->path);
}

void record_close(struct record *record)
{
    if (record->folder >= 0) {
        close(record->folder); /* and with it the lock */
    }
    json_decref(record->all);
    *record = (struct record){.folder = -1};
}

/* --- Entries ---------------------------------------------------------------------------------------------------- */

static struct record_entry *find(struct record *record, uint64_t page_bytes, uint32_t node)
{
    for (uint32_t i = 0; i < record->count; i++) {
        if (record->entries[i].page_bytes == page_bytes && record->entries[i].node == node) {
            return &record->entries[i];
        }
    }
    return NULL;
}

enum loam_error record_begin(struct record *record, uint64_t page_bytes, uint32_t node, uint64_t now)
{
    struct record_entry *entry = find(record, page_bytes, node);

    if (entry == NULL && record->count == RECORD_ENTRY_MAX) {
        return LOAM_ERROR_EXHAUSTED;
    }
    if (entry == NULL) {
        record->entries[record->count++] = (struct record_entry){page_bytes, node, now, 0, false};
        return LOAM_OK;
    }
    /* From here on, before is where a return would lead now. */
    entry->before = record_target(entry, now);
    entry->is_settled = false;
    return LOAM_OK;
}

void record_settle(struct record *record, uint64_t page_bytes, uint32_t node, uint64_t now)
{
    struct record_entry *entry = find(record, page_bytes, node);

    if (entry == NULL) {
        return;
    }
    entry->after = now;
    entry->is_settled = true;
    if (entry->after == entry->before) {
        record_drop(record, (uint32_t)(entry - record->entries));
    }
}

uint64_t record_target(const struct record_entry *entry, uint64_t now)
{
    if (!entry->is_settled) {
        return entry->before;
    }
    if (entry->after >= entry->before) {
        return now >= entry->after ? now - (entry->after - entry->before) : now < entry->before ? now : entry->before;
    }
    if (now > entry->after) {
        return now > entry->before ? now : entry->before;
    }
    return now > UINT64_MAX - (entry->before - entry->after) ? now : now + (entry->before - entry->after);
}

void record_drop(struct record *record, uint32_t index)
{
    record->count--;
    memmove(&record->entries[index], &record->entries[index + 1], (record->count - index) * sizeof record->entries[0]);
}
