#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the public headers promise, held against what was built and what is written: interface.sh CASE.
# Status 77: what the case needs is not installed.
set -euo pipefail

work=$(mktemp --directory "${TEST_TMPDIR:-/tmp}/interface.XXXXXX")
trap 'rm -rf "$work"' EXIT

needs() {
    command -v "$1" >/dev/null || {
        echo "$1: not installed"
        exit 77
    }
}

fails() {
    if "$@"; then
        echo "$*: did not fail"
        exit 1
    fi
}

compare() {
    abidiff --headers-dir2 allocator/include --drop-private-types --exported-interfaces-only allocator/libloam.abi "$1"
}

abi_is_as_written() {
    needs abidiff
    compare allocator/libloam.debug.so || {
        echo "the library is not what allocator/libloam.abi says: if that is meant, run tools/abi, and say it in CHANGES.md"
        exit 1
    }
}

# The same comparison sees a member that is gone, and a function.
a_change_is_noticed() {
    needs abidiff
    sed -e '/var-decl name=.used_offset_bytes/d' allocator/libloam.abi >"$work/libloam.abi"
    fails abidiff "$work/libloam.abi" allocator/libloam.abi >"$work/log"
    grep -q used_offset_bytes "$work/log"
    sed -e '/elf-symbol name=.loam_version/d' allocator/libloam.abi >"$work/libloam.abi"
    fails abidiff "$work/libloam.abi" allocator/libloam.abi >"$work/log"
    grep -q loam_version "$work/log"
}

pages_are_made_without_a_warning() {
    needs doxygen
    tools/docs "$work/docs"
    grep -q 'loam_memory_create' "$work/docs/html/memory_8h.html"
}

an_undocumented_function_is_noticed() {
    needs doxygen
    cp --recursive --dereference tools allocator "$work"
    chmod --recursive u+w "$work"
    echo 'void loam_unheard_of(void);' >>"$work/allocator/include/loam/version.h"
    fails "$work/tools/docs" "$work/docs" 2>"$work/log"
    grep -q 'loam_unheard_of.*not documented' "$work/log"
}

"$1"
