// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * How Loam's libraries report: one small enum by value, and, where a person will read of it, one line of text.
 *
 * Every call that can fail returns enum loam_error and must not be ignored. Its outputs are defined on failure too:
 * zero or NULL unless the call says otherwise. A refused call has changed nothing.
 *
 * Calls that meet the system take a struct loam_diag, which may be NULL: it receives the errno at once, and a line that
 * says what was asked, what was found and what to do.
 */
#ifndef LOAM_ERROR_H
#define LOAM_ERROR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOAM_MUST_USE         __attribute__((warn_unused_result)) /**< an error that nobody looks at is a warning */
#define LOAM_PRINTF(text, at) __attribute__((format(printf, text, at))) /**< as printf(3) */

/** Every failure there is; a function lists those that it has, and what each means there. */
enum loam_error {
    LOAM_OK = 0,
    LOAM_ERROR_INVALID,       /**< an argument is malformed or out of range */
    LOAM_ERROR_OVERLAP,       /**< a range meets one that is already there, or goes on beyond the one it lies in */
    LOAM_ERROR_NOT_FOUND,     /**< no such range, frame, section or buffer */
    LOAM_ERROR_EXHAUSTED,     /**< well formed, and nothing is left that serves it */
    LOAM_ERROR_UNINITIALISED, /**< the object was never initialised, or is not one */
    LOAM_ERROR_BUSY,          /**< in use: pinned, allocated, or read by another */
    LOAM_ERROR_NOT_PERMITTED, /**< the access or the caller lacks the right */
    LOAM_ERROR_CORRUPT,       /**< the object's own memory contradicts itself */
    LOAM_ERROR_SYSTEM,        /**< a system call failed: see loam_diag.system_errno */
    LOAM_ERROR_CANCELLED,     /**< the caller's struct loam_cancel said so; everything has been given back */
    LOAM_ERROR_COUNT
};

/** A static string such as "exhausted"; "unknown" for a value that is no enum loam_error. Any thread. */
const char *loam_error_name(enum loam_error error);

/** Why a call failed. Written only on failure; start it as {0}. */
struct loam_diag {
    enum loam_error error;
    int system_errno; /**< 0 where no system call failed */
    char text[512];   /**< one line, no newline at its end */
};

/**
 * Write error and a line into diag (NULL: nothing is written), and return error, so that a failure is one statement.
 * With LOAM_ERROR_SYSTEM, errno is captured first and its text is appended to the line. A line too long is cut.
 */
LOAM_PRINTF(3, 4)
enum loam_error loam_fail(struct loam_diag *diag, enum loam_error error, const char *format, ...);

#ifdef __cplusplus
}
#endif

#endif
