// SPDX-License-Identifier: Apache-2.0
/* What one client of the QMP server can have at most: its memory and its descriptors are bounded by these. */
#ifndef LOAM_VMM_QMP_LIMITS_H
#define LOAM_VMM_QMP_LIMITS_H

#define QMP_CLIENT_MAX        16u        /* at once; another is hung up on */
#define QMP_LINE_BYTES_MAX    (1u << 20) /* of one command */
#define QMP_DEPTH_MAX         64u        /* objects and arrays within each other in one command */
#define QMP_TOKEN_MAX         (1u << 16) /* brackets, commas and colons of one command: what it becomes in memory */
#define QMP_WAITING_BYTES_MAX (4u << 20) /* to one client that does not read */
#define QMP_DESCRIPTOR_MAX    16u        /* of one client that no command has taken yet; others are closed */

#endif
