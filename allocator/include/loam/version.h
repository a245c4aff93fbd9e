// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Which Loam this is. Below 1.0 a minor version may change any interface, and CHANGES.md says how; a patch changes none.
 */
#ifndef LOAM_VERSION_H
#define LOAM_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Of the headers.
 * @{
 */
#define LOAM_VERSION_MAJOR 0
#define LOAM_VERSION_MINOR 1
#define LOAM_VERSION_PATCH 0
#define LOAM_VERSION       "0.1.0"
/** @} */

/** Of the library that the program runs with: a static string as LOAM_VERSION. Any thread. */
const char *loam_version(void);

#ifdef __cplusplus
}
#endif

#endif
