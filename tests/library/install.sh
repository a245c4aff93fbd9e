#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install what was built into an empty folder, and use it as somebody would who has nothing else: install.sh CASE.
# Status 77: what the case needs is not installed.
set -euo pipefail

readonly root=$PWD
work=$(mktemp --directory "${TEST_TMPDIR:-/tmp}/install.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

needs() {
    command -v "$1" >/dev/null || {
        echo "$1: not installed"
        exit 77
    }
}

# The only word that the compilers get of where Loam lies.
prefix=$work/usr
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
"$root/tools/install" --built "$prefix"

read -r -d '' program <<'END' || true
#include <loam/memory.h>
#include <loam/version.h>
#include <stdio.h>

int main(void)
{
    struct loam_virtqueue_layout layout;

    if (loam_virtqueue_get_layout(256, &layout) != LOAM_OK) {
        return 1;
    }
    return printf("%s %lu\n", loam_version(), (unsigned long)layout.bytes) < 0;
}
END
answer="$(sed -n 's/^#define LOAM_VERSION  *"\(.*\)"$/\1/p' "$root/allocator/include/loam/version.h") 6670"

readonly answer

expect() { [ "$1" = "$2" ] || { echo "found '$1', wanted '$2'"; exit 1; }; }
fails() { if "$@"; then echo "$*: did not fail"; exit 1; fi; }

c_shared() {
    needs pkg-config
    echo "$program" >it.c
    # shellcheck disable=SC2046
    cc -std=c11 -Wall -Werror it.c -o it $(pkg-config --cflags --libs loam)
    expect "$(./it)" "$answer"
    readelf --dynamic it | grep -q 'NEEDED.*\[libloam.so.0\]'
}

c_static() {
    needs pkg-config
    echo "$program" >it.c
    rm "$prefix"/lib/libloam.so*
    # shellcheck disable=SC2046
    cc -std=gnu99 it.c -o it $(pkg-config --static --cflags --libs loam)
    expect "$(./it)" "$answer"
}

cxx_shared() {
    needs pkg-config
    echo "$program" >it.cc
    # shellcheck disable=SC2046
    c++ -std=c++11 -Wall -Werror it.cc -o it $(pkg-config --cflags --libs loam)
    expect "$(./it)" "$answer"
}

cmake_finds() {
    needs cmake
    echo "$program" >it.c
    cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.10)
project(it C)
find_package(Loam 0.1 REQUIRED)
add_executable(shared it.c)
target_link_libraries(shared Loam::loam)
add_executable(static it.c)
target_link_libraries(static Loam::static)
END
    cmake -S . -B build -DCMAKE_PREFIX_PATH="$prefix" >log || { cat log; exit 1; }
    cmake --build build >log || { cat log; exit 1; }
    expect "$(build/shared)" "$answer"
    expect "$(build/static)" "$answer"
}

cmake_refuses_another_version() {
    needs cmake
    printf '%s\n' 'cmake_minimum_required(VERSION 3.10)' 'project(it C)' 'find_package(Loam 0.2 REQUIRED)' >CMakeLists.txt
    fails cmake -S . -B build -DCMAKE_PREFIX_PATH="$prefix" >log 2>&1
    grep -q 'considered but not accepted' log
}

rust_links() {
    needs rustc
    cat >it.rs <<'END'
#[repr(C)]
#[derive(Default)]
struct Layout { descriptors: u64, available: u64, used: u64, bytes: u64 }
#[link(name = "loam")]
extern "C" {
    fn loam_version() -> *const std::os::raw::c_char;
    fn loam_virtqueue_get_layout(size: u32, layout: *mut Layout) -> u32;
}
fn main() {
    let mut layout = Layout::default();
    let version = unsafe { std::ffi::CStr::from_ptr(loam_version()) };
    assert_eq!(unsafe { loam_virtqueue_get_layout(256, &mut layout) }, 0);
    println!("{} {}", version.to_str().unwrap(), layout.bytes);
}
END
    rustc -L "$prefix/lib" it.rs -o it
    expect "$(./it)" "$answer"
}

library_needs_libc_alone() {
    expect "$(readelf --dynamic "$prefix/lib/libloam.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" libloam.so.0
    expect "$(readelf --dynamic "$prefix/lib/libloam.so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' |
        grep -v '^ld-linux' | tr '\n' ' ')" 'libc.so.6 '
}

# The options that a command's help lists.
options_of() {
    "$prefix/bin/loam" "$1" --help | grep -oE -- '^ +(-[a-z?], )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+' |
        grep -v -e --usage | sort -u
}

pages_read_without_a_warning() {
    local page command option
    needs man
    for page in man1/loam.1 man1/loam-run.1 man1/loam-emulator.1 man1/loam-domain.1 man1/loam-host.1 man1/loam-place.1 man3/libloam.3; do
        expect "$(man --warnings -E UTF-8 -l "$prefix/share/man/$page" 2>&1 >/dev/null)" ''
    done
    for command in run domain host place; do
        options_of "$command" >options
        while read -r option; do
            [ "$option" = --help ] ||
                grep -qE -- "(Fl|,) -${option#--}( |$)" "$prefix/share/man/man1/loam-$command.1" ||
                { echo "$command $option has no line"; exit 1; }
        done <options
    done
}

completion_offers() {
    # shellcheck disable=SC1091
    source "$prefix/share/bash-completion/completions/loam"
    complete_line() {
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="${line-$*}" COMPREPLY=()
        COMP_POINT=${#COMP_LINE}
        _loam && echo "${COMPREPLY[*]}"
    }
    expect "$(complete_line loam r)" run
    expect "$(complete_line loam run --pag)" --pages
    expect "$(complete_line loam run --pages '')" '1G 2M thp 4K auto'
    expect "$(complete_line loam run --on-reset = re)" restart
    expect "$(line='loam run --memory size=1G,pa' complete_line loam run --memory size = 1G,pa)" '1G,pages='
    expect "$(line='loam run --memory size=1G,pages=t' complete_line loam run --memory size = 1G,pages = t)" thp
    expect "$(complete_line loam place --pages 2M,t)" 2M,thp
    expect "$(complete_line loam host res)" reserve
    for command in run host place; do
        options_of "$command" >options
        complete_line loam "$command" -- | tr ' ' '\n' | sort -u >offered
        diff options offered
    done
    expect "$(complete_line loam domain s)" show
    options_of domain >options
    complete_line loam domain run -- | tr ' ' '\n' | sort -u >offered
    diff options offered
}

destdir_is_no_part_of_what_is_said() {
    DESTDIR=$work/image "$root/tools/install" --built /opt/loam
    test -x image/opt/loam/bin/loam
    test -x image/opt/loam/bin/loam-emulator
    image/opt/loam/bin/loam emulator -version | grep -q '^loam-emulator '
    fails grep -rqI "$work" image
    grep -q '^prefix=/opt/loam$' image/opt/loam/lib/pkgconfig/loam.pc
}

bad_paths_are_refused() {
    fails "$root/tools/install" --built relative 2>log
    grep -q "PREFIX is 'relative'" log
    fails "$root/tools/install" 2>log
    grep -q '0 paths given' log
}

"$1"
