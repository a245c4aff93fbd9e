# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What tools/run and tools/test share: packages, Bazel, and hugepages lent by the host. Sourced, never run.
# Whatever it changes it says on standard error first; what it borrows it gives back.

readonly EXIT_HOST=3

# The host lacks something: one line, and the exit status that says so.
lacks() {
    echo "loam: $*" >&2
    exit "$EXIT_HOST"
}

# packages NAME...: have these Debian packages installed.
packages() {
    local missing=() name
    for name in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] ||
            missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] ||
        lacks "packages: ${missing[*]} wanted, not installed: install them with: sudo apt-get install ${missing[*]}"
    echo "packages: installing ${missing[*]}" >&2
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"; } \
        >&2 || lacks "packages: ${missing[*]} could not be installed: see the lines above"
}

# unpacked NAME: where the files of that Debian package lie, unpacked in a cache and not installed. Packages that only name
# another, as linux-image-cloud-amd64 does, are followed.
unpacked() {
    local name=$1 cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/loam/packages folder work named
    named=$(apt-cache depends --no-recommends "$name" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
    name=${named:-$name}
    folder=$cache/$name
    if [ ! -d "$folder" ]; then
        mkdir -p "$cache"
        work=$(mktemp --directory "$cache/.new-XXXXXX")
        echo "packages: unpacking $name in $folder" >&2
        (cd "$work" && apt-get download --quiet "$name" >/dev/null && dpkg-deb --extract "$name"_*.deb files) >&2 || {
            rm -rf "$work"
            lacks "packages: $name could not be had: see the lines above"
        }
        mv -T "$work/files" "$folder" 2>/dev/null || true # another was faster
        rm -rf "$work"
    fi
    echo "$folder"
}

# Debian's bazel is a launcher that looks for bazel-VERSION as .bazelversion names it, but its package has only bazel-4.
bazel_found() {
    local version
    version=$(cat .bazelversion)
    { [ -x /usr/bin/bazel-4 ] && [ ! -e "/usr/bin/bazel-$version" ]; } || return 0
    if [ -w /usr/bin ]; then
        echo "bazel: linking /usr/bin/bazel-$version to bazel-4, so that Debian's launcher finds it" >&2
        ln -s bazel-4 "/usr/bin/bazel-$version"
    else
        export USE_BAZEL_VERSION=4
    fi
}

# --- Hugepages: "lent" remembers what each pool was raised by, and pool_return gives it back on every way out. ---

declare -A lent=()

pool_file() { echo "/sys/kernel/mm/hugepages/hugepages-$(($1 / 1024))kB/nr_hugepages"; }
pool_free() {
    local folder
    folder=$(dirname "$(pool_file "$1")")
    echo $(($(cat "$folder/free_hugepages") - $(cat "$folder/resv_hugepages")))
}

# pool_raise PAGE_BYTES COUNT: have COUNT pages free in that pool, if root and if there are so many. Returns whether.
pool_raise() {
    local page_bytes=$1 wanted=$2 file free before
    file=$(pool_file "$page_bytes")
    [ -w "$file" ] || return 1
    free=$(pool_free "$page_bytes")
    [ "$free" -ge "$wanted" ] && return
    before=$(cat "$file")
    echo "hugepages: raising the pool of $((page_bytes / 1048576)) MiB pages from $before to $((before + wanted - free))" \
        "until this ends" >&2
    echo $((before + wanted - free)) >"$file" || return 1
    lent[$page_bytes]=$((${lent[$page_bytes]:-0} + $(cat "$file") - before))
    [ "$(pool_free "$page_bytes")" -ge "$wanted" ]
}

pool_return() {
    local page_bytes file left
    for page_bytes in "${!lent[@]}"; do
        [ "${lent[$page_bytes]}" -gt 0 ] || continue
        file=$(pool_file "$page_bytes")
        left=$(($(cat "$file") - lent[$page_bytes]))
        echo $((left > 0 ? left : 0)) >"$file" # somebody else may have lowered it meanwhile
        echo "hugepages: the pool of $((page_bytes / 1048576)) MiB pages is back at $(cat "$file")" >&2
        lent[$page_bytes]=0
    done
}
