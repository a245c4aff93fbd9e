// SPDX-License-Identifier: Apache-2.0
/*
 * Put before every source that clang-tidy reads. It sees one source at a time, and so cannot know that loam_fail returns
 * the error that it was given.
 */
#ifndef TOOLS_BAZEL_LINT_H
#define TOOLS_BAZEL_LINT_H

#include "loam/error.h"

#define loam_fail(diag, error, ...) (loam_fail(diag, error, __VA_ARGS__), (error))

#endif
