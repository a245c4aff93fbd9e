// SPDX-License-Identifier: Apache-2.0
#include "vmm/cpuid_name.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum reg { EAX, EBX, ECX, EDX };

static const char *const register_names[] = {[EAX] = "EAX", [EBX] = "EBX", [ECX] = "ECX", [EDX] = "EDX"};

/* Words of features, and of their bits those that this VMM sets itself or that tell of no feature. */
static const struct word {
    uint32_t function, index;
    enum reg reg;
    uint32_t passed_over;
} words[] = {
    {0x1, 0, ECX,
     UINT32_C(1) << 3 | UINT32_C(1) << 24 | UINT32_C(1) << 27 |
         UINT32_C(1) << 31},          /* MONITOR, deadline, OSXSAVE, hypervisor */
    {0x1, 0, EDX, UINT32_C(1) << 28}, /* HTT */
    {0x6, 0, EAX, 0},
    {0x7, 0, EBX, 0},
    {0x7, 0, ECX, UINT32_C(1) << 4}, /* OSPKE */
    {0x7, 0, EDX, 0},
    {0x7, 1, EAX, 0},
    {0x7, 1, EDX, 0},
    {0xd, 0, EAX, 0},
    {0xd, 1, EAX, 0},
    {0x40000001, 0, EAX, 0},
    {0x80000001, 0, ECX, UINT32_C(1) << 1}, /* CMP_LEGACY */
    {0x80000001, 0, EDX, 0},
    {0x80000008, 0, EBX, 0},
    {0x80000021, 0, EAX, 0},
};

static const struct feature {
    uint32_t function, index;
    enum reg reg;
    uint32_t bit;
    const char *name;
} features[] = {
    {0x1, 0, ECX, 0, "sse3"},
    {0x1, 0, ECX, 1, "pclmulqdq"},
    {0x1, 0, ECX, 9, "ssse3"},
    {0x1, 0, ECX, 12, "fma"},
    {0x1, 0, ECX, 13, "cx16"},
    {0x1, 0, ECX, 17, "pcid"},
    {0x1, 0, ECX, 19, "sse4_1"},
    {0x1, 0, ECX, 20, "sse4_2"},
    {0x1, 0, ECX, 21, "x2apic"},
    {0x1, 0, ECX, 22, "movbe"},
    {0x1, 0, ECX, 23, "popcnt"},
    {0x1, 0, ECX, 25, "aes"},
    {0x1, 0, ECX, 26, "xsave"},
    {0x1, 0, ECX, 28, "avx"},
    {0x1, 0, ECX, 29, "f16c"},
    {0x1, 0, ECX, 30, "rdrand"},
    {0x7, 0, EBX, 0, "fsgsbase"},
    {0x7, 0, EBX, 3, "bmi1"},
    {0x7, 0, EBX, 4, "hle"},
    {0x7, 0, EBX, 5, "avx2"},
    {0x7, 0, EBX, 7, "smep"},
    {0x7, 0, EBX, 8, "bmi2"},
    {0x7, 0, EBX, 9, "erms"},
    {0x7, 0, EBX, 10, "invpcid"},
    {0x7, 0, EBX, 11, "rtm"},
    {0x7, 0, EBX, 16, "avx512f"},
    {0x7, 0, EBX, 17, "avx512dq"},
    {0x7, 0, EBX, 18, "rdseed"},
    {0x7, 0, EBX, 19, "adx"},
    {0x7, 0, EBX, 20, "smap"},
    {0x7, 0, EBX, 23, "clflushopt"},
    {0x7, 0, EBX, 24, "clwb"},
    {0x7, 0, EBX, 28, "avx512cd"},
    {0x7, 0, EBX, 29, "sha_ni"},
    {0x7, 0, EBX, 30, "avx512bw"},
    {0x7, 0, EBX, 31, "avx512vl"},
    {0x7, 0, ECX, 2, "umip"},
    {0x7, 0, ECX, 3, "pku"},
    {0x7, 0, ECX, 8, "gfni"},
    {0x7, 0, ECX, 9, "vaes"},
    {0x7, 0, ECX, 10, "vpclmulqdq"},
    {0x7, 0, ECX, 11, "avx512_vnni"},
    {0x7, 0, ECX, 16, "la57"},
    {0x7, 0, ECX, 22, "rdpid"},
    {0x7, 0, EDX, 4, "fsrm"},
    {0x7, 0, EDX, 22, "amx_bf16"},
    {0x7, 0, EDX, 23, "avx512_fp16"},
    {0x7, 0, EDX, 24, "amx_tile"},
    {0x7, 0, EDX, 25, "amx_int8"},
    {0x7, 0, EDX, 26, "spec_ctrl"},
    {0x7, 0, EDX, 31, "ssbd"},
    {0xd, 1, EAX, 0, "xsaveopt"},
    {0xd, 1, EAX, 1, "xsavec"},
    {0xd, 1, EAX, 3, "xsaves"},
    {0x80000001, 0, ECX, 5, "abm"},
    {0x80000001, 0, ECX, 6, "sse4a"},
    {0x80000001, 0, EDX, 20, "nx"},
    {0x80000001, 0, EDX, 26, "pdpe1gb"},
    {0x80000001, 0, EDX, 27, "rdtscp"},
    {0x80000001, 0, EDX, 29, "lm"},
    {0x40000001, 0, EAX, 3, "kvmclock"},
    {0x40000001, 0, EAX, 5, "kvm_steal_time"},
};

static uint32_t value_of(const struct kvm_cpuid_entry2 *entry, enum reg reg)
{
    switch (reg) {
    case EAX:
        return entry->eax;
    case EBX:
        return entry->ebx;
    case ECX:
        return entry->ecx;
    default:
        return entry->edx;
    }
}

/* A leaf that is not there reads as zeros. */
static uint32_t find(const struct kvm_cpuid_entry2 *entries, uint32_t count, const struct word *word)
{
    for (uint32_t i = 0; i < count; i++) {
        bool is_index = (entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) == 0 || entries[i].index == word->index;

        if (entries[i].function == word->function && is_index) {
            return value_of(&entries[i], word->reg);
        }
    }
    return 0;
}

static void name_bit(const struct word *word, uint32_t bit, char text[64])
{
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        const struct feature *feature = &features[i];

        if (feature->function == word->function && feature->index == word->index && feature->reg == word->reg &&
            feature->bit == bit) {
            snprintf(text, 64, "%s", feature->name);
            return;
        }
    }
    snprintf(text, 64, "bit %" PRIu32 " of %s in CPUID leaf 0x%" PRIx32 ".%" PRIu32, bit, register_names[word->reg],
             word->function, word->index);
}

static void add_names(const struct word *word, uint32_t bits, char name[CPUID_NAME_BYTES])
{
    for (; bits != 0; bits &= bits - 1) {
        size_t length = strlen(name);
        char text[64];

        name_bit(word, (uint32_t)__builtin_ctz(bits), text);
        if (length + strlen(text) + 3 < CPUID_NAME_BYTES) {
            snprintf(name + length, CPUID_NAME_BYTES - length, "%s%s", length == 0 ? "" : ", ", text);
        }
    }
}

bool cpuid_name_lacking(const struct kvm_cpuid_entry2 *wanted, uint32_t wanted_count,
                        const struct kvm_cpuid_entry2 *found, uint32_t found_count, char name[CPUID_NAME_BYTES])
{
    name[0] = '\0';
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        uint32_t has = find(found, found_count, &words[i]) | words[i].passed_over;

        add_names(&words[i], find(wanted, wanted_count, &words[i]) & ~has, name);
    }
    return name[0] != '\0';
}
