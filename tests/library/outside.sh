#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build on Loam from a Bazel workspace that is not Loam's: outside.sh CASE.
# Status 77: what the case needs is not installed.
set -euo pipefail

root=$(dirname "$(readlink --canonicalize WORKSPACE)")
readonly root
work=$(mktemp --directory "${TEST_TMPDIR:-/tmp}/outside.XXXXXX")

needs() {
    command -v "$1" >/dev/null || {
        echo "$1: not installed"
        exit 77
    }
}
expect() { [ "$1" = "$2" ] || { echo "found '$1', wanted '$2'"; exit 1; }; }

# All cases build in one place. What Bazel would download without asking comes from Loam's stubs, since there may be no
# network here; nothing in the workspace names them.
startup=(--nohome_rc "--output_user_root=${TEST_TMPDIR:-$work}/bazel" --max_idle_secs=60)
outside() {
    local command=$1
    shift
    bazel "${startup[@]}" "$command" --color=no --curses=no --noshow_progress --symlink_prefix="$work/bazel-" \
        --override_repository=rules_cc="$root/tools/bazel/rules_cc" \
        --override_repository=rules_java="$root/tools/bazel/rules_java" \
        --override_repository=remote_coverage_tools="$root/tools/bazel/remote_coverage_tools" \
        --disk_cache="${TEST_TMPDIR:-$work}/cache" "$@"
}

needs bazel
cp --recursive "$root"/tests/library/outside/. "$work"
trap 'cd "$work"; bazel "${startup[@]}" shutdown; chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
sed -i "s|path = .*|path = \"$root\",|" WORKSPACE

a_program_links() {
    outside build //:use
    expect "$(bazel-bin/use)" "2 MiB by loam $(sed -n 's/^#define LOAM_VERSION  *"\(.*\)"$/\1/p' \
        "$root/allocator/include/loam/version.h")"
}

library_and_program_build() {
    outside build @loam//allocator:loam @loam//vmm:loam
    bazel-bin/external/loam/vmm/loam version
}

a_warning_is_no_error() {
    outside build --copt=-Wpadded @loam//allocator:loam 2>&1 | tee log
    grep -q 'warning: .*padd' log
}

a_guest_boots() {
    needs qemu-system-x86_64
    outside build //:hello
    qemu-system-x86_64 -M microvm -accel tcg -m 64M -display none -serial stdio -no-reboot \
        -device isa-debug-exit,iobase=0xf4,iosize=0x4 -kernel bazel-bin/hello.elf </dev/null >said && status=0 || status=$?
    expect "$status" 1
    grep -q '^hello from a guest at 0x1' said
}

guests_are_judged() {
    [ -e /dev/kvm ] || { echo "no /dev/kvm"; exit 77; }
    outside test //...
    for name in hello_is_silent hello_ends_badly; do
        if outside test "//:$name" >log 2>&1; then echo "$name passed"; exit 1; fi
        grep -q 'loam_vm_test: .* wanted\|loam_vm_test: no line' "bazel-testlogs/$name/test.log"
    done
}

without_kvm_a_test_fails_or_says_that_it_was_skipped() {
    [ ! -e /dev/kvm ] || { echo "there is a /dev/kvm"; exit 77; }
    if outside test //:hello_speaks >log 2>&1; then echo "passed without /dev/kvm"; exit 1; fi
    grep -q '/dev/kvm: not found' bazel-testlogs/hello_speaks/test.log
    outside test --test_env=LOAM_VM_TEST_WITHOUT_KVM=skip //...
    grep -q 'skipped: no /dev/kvm' bazel-testlogs/hello_speaks/test.log
}

"$1"
