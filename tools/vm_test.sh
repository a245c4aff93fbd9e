#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What loam_vm_test (loam.bzl) runs: launch the guest that its environment names, judge its end and its serial console.
set -u

serial=$(mktemp) && errors=$(mktemp) || exit
trap 'rm -f "$serial" "$errors"' EXIT

fail() {
    echo "loam_vm_test: $*" >&2
    exit 1
}

launch() {
    set -- --kernel "$LOAM_VM_TEST_KERNEL" --timeout "$LOAM_VM_TEST_TIMEOUT" --memory "$LOAM_VM_TEST_MEMORY" \
        --pages "$LOAM_VM_TEST_PAGES" --vcpus "$LOAM_VM_TEST_VCPUS"
    [ -z "$LOAM_VM_TEST_INITRD" ] || set -- "$@" --initrd "$LOAM_VM_TEST_INITRD"
    [ -z "$LOAM_VM_TEST_CMDLINE" ] || set -- "$@" --cmdline "$LOAM_VM_TEST_CMDLINE"
    "$LOAM_VM_TEST_PROGRAM" run "$@" </dev/null >"$serial" 2>"$errors"
}

# Status 3 is what the host lacks.
short_of_hugepages() {
    [ "$status" -eq 3 ] && grep -q '^loam: .*hugepages.* wanted, .* free' "$errors"
}

if [ ! -e /dev/kvm ] && [ "${LOAM_VM_TEST_WITHOUT_KVM-}" = skip ]; then
    echo "loam_vm_test: skipped: no /dev/kvm"
    exit 0
fi

# Hugepages come back when another test ends, which nobody announces.
end=$(($(date +%s) + LOAM_VM_TEST_TIMEOUT))
while launch; status=$?; short_of_hugepages; do
    [ "$(date +%s)" -lt "$end" ] || fail "waited $LOAM_VM_TEST_TIMEOUT s for hugepages: $(sed -n 's/^loam: //p' "$errors")"
    sleep 0.2
done

if [ "$status" -ne "$LOAM_VM_TEST_STATUS" ]; then
    cat "$serial"
    fail "exit status $LOAM_VM_TEST_STATUS wanted, $status found: $(sed -n 's/^loam: //p' "$errors")"
fi
if [ -n "$LOAM_VM_TEST_SERIAL" ] && ! tr -d '\r' <"$serial" | grep -qE -e "$LOAM_VM_TEST_SERIAL"; then
    cat "$serial"
    fail "no line of the serial console matches: $LOAM_VM_TEST_SERIAL"
fi
cat "$serial"
