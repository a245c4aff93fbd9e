// SPDX-License-Identifier: Apache-2.0
/* What holds for whatever line_read accepts, and for what it says of what it does not. For tests and fuzz targets. */
#ifndef LOAM_TESTS_EMULATOR_LINE_CHECK_H
#define LOAM_TESTS_EMULATOR_LINE_CHECK_H

#include "vmm/emulator/line.h"

/* What is wrong with a line that was read; NULL: nothing. */
const char *line_check(const struct line *line);

/* What is wrong with the text of a refusal; NULL: nothing. */
const char *line_check_text(const char *text);

#endif
