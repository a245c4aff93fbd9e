// SPDX-License-Identifier: Apache-2.0
#include "allocator/host/host_text.h"

#include "allocator/host/prim.h"

#include <errno.h>
#include <string.h>

/* Lists that grow with the host: mounts, mappings and control groups. A container host has thousands of mounts. */
#define LIST_START_BYTES ((size_t)16 << 10)
#define LIST_MAX_BYTES   ((size_t)8 << 20)

bool loam_host_text_absent(int read_errno)
{
    return read_errno == ENOENT || read_errno == ENOTDIR || read_errno == ENODEV || read_errno == EACCES ||
           read_errno == EPERM || read_errno == EOPNOTSUPP;
}

enum loam_error loam_host_text_file(const char *path, char *text, size_t bytes, bool *present, struct loam_diag *diag)
{
    *present = loam_prim_read_text(path, text, bytes);
    return *present || loam_host_text_absent(errno) ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "reading %s", path);
}

enum loam_error loam_host_text_list(const char *path, char **text, struct loam_diag *diag)
{
    int saved_errno;

    *text = NULL;
    for (size_t bytes = LIST_START_BYTES; bytes <= LIST_MAX_BYTES; bytes *= 2) {
        void *memory;

        if (!loam_prim_heap_alloc(bytes, &memory)) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "%zu bytes of heap to read %s", bytes, path);
        }
        if (loam_prim_read_text(path, (char *)memory, bytes) || loam_host_text_absent(errno)) {
            *text = (char *)memory;
            return LOAM_OK;
        }
        saved_errno = errno;
        loam_prim_heap_free(memory);
        errno = saved_errno;
        if (errno != EFBIG) {
            break;
        }
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "reading %s", path);
}

enum loam_error loam_host_text_malformed(const char *path, struct loam_diag *diag)
{
    errno = EBADMSG;
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s holds no figure that makes sense", path);
}

bool loam_host_text_parse(const char *text, uint64_t *value)
{
    uint64_t parsed = 0;
    size_t i = 0;

    while (text[i] >= '0' && text[i] <= '9') {
        if (__builtin_mul_overflow(parsed, 10u, &parsed) ||
            __builtin_add_overflow(parsed, (uint64_t)(text[i] - '0'), &parsed)) {
            return false;
        }
        i++;
    }
    *value = parsed;
    return i > 0 && (text[i] == '\0' || text[i] == '\n' || text[i] == ' ');
}

enum loam_error loam_host_text_figure(const char *path, uint64_t *value, bool *present, struct loam_diag *diag)
{
    char text[LOAM_HOST_TEXT_FIGURE_MAX];
    enum loam_error error = loam_host_text_file(path, text, sizeof text, present, diag);

    *value = 0;
    if (error == LOAM_OK && *present && !loam_host_text_parse(text, value)) {
        error = loam_host_text_malformed(path, diag);
    }
    return error;
}

/* Where the figure after label stands, at the start of a line or after a blank. NULL: nowhere. */
static const char *find_label(const char *text, const char *label)
{
    const char *found = text;

    while ((found = strstr(found, label)) != NULL) {
        if (found == text || found[-1] == '\n' || found[-1] == ' ') {
            found += strlen(label);
            return found + strspn(found, " \t");
        }
        found++;
    }
    return NULL;
}

enum loam_error loam_host_text_labelled(const char *path, const char *text, const char *label, uint64_t unit_bytes,
                                        bool needed, uint64_t *bytes, struct loam_diag *diag)
{
    const char *figure = find_label(text, label);

    *bytes = 0;
    if (figure == NULL ? needed
                       : !loam_host_text_parse(figure, bytes) || __builtin_mul_overflow(*bytes, unit_bytes, bytes)) {
        *bytes = 0;
        return loam_host_text_malformed(path, diag);
    }
    return LOAM_OK;
}
