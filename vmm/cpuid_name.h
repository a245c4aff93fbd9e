// SPDX-License-Identifier: Apache-2.0
/*
 * Features of a processor as cpuid tells of them, by the names of Linux (/proc/cpuinfo) and, where it has none, by leaf, register
 * and bit. Source: Intel SDM volume 2A, CPUID; AMD manual volume 3, appendix E; KVM CPUID bits (Linux:
 * Documentation/virt/kvm/x86/cpuid.rst).
 *
 * Pure.
 */
#ifndef LOAM_VMM_CPUID_NAME_H
#define LOAM_VMM_CPUID_NAME_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#define CPUID_NAME_BYTES 256u

/* Whether a feature that wanted has is missing in found; name says which, up to as many as there is room for. */
bool cpuid_name_lacking(const struct kvm_cpuid_entry2 *wanted, uint32_t wanted_count,
                        const struct kvm_cpuid_entry2 *found, uint32_t found_count, char name[CPUID_NAME_BYTES]);

#endif
