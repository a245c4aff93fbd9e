// SPDX-License-Identifier: Apache-2.0
/*
 * What every way to boot has in common: a file in memory, what goes with it, and the state in which the
 * first vCPU starts.
 *
 * A file is hostile: its length is the only thing known of it. Everything it needs in guest memory is
 * carved through loam_memory_dma, so it is in the ledger with an owner and can collide with nothing.
 *
 * Where things go: a kernel's segments where the file wants them. All else, that is initrd, command line, tables and
 * parameters, as high as whoever reads it can reach, and above 1 MiB: kernels need memory below it for themselves (the
 * trampoline that starts further processors, real-mode calls). Only when nothing is free above 1 MiB is it taken from
 * below.
 */
#ifndef LOAM_VMM_BOOT_H
#define LOAM_VMM_BOOT_H

#include "loam/error.h"
#include "loam/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file's bytes, read-only, owned by the caller. */
struct boot_file {
    const void *data;
    size_t bytes;
    const char *name; /* for messages */
};

enum boot_protocol {
    BOOT_PVH,       /* 32-bit protected mode, paging off; ebx -> hvm_start_info (Xen: docs/misc/pvh.pandoc) */
    BOOT_LINUX,     /* 64-bit long mode; rsi -> boot_params (Linux: Documentation/arch/x86/boot.rst) */
    BOOT_LINUX_32,  /* as PVH; esi -> boot_params, and the kernel turns paging on outside long mode */
    BOOT_MULTIBOOT, /* as PVH; eax 0x2badb002, ebx -> multiboot information (Multiboot 0.6.96, section 3.2) */
    BOOT_PROTOCOL_COUNT
};

/* A PVH boot module that is already in guest memory. */
struct boot_module {
    loam_gpa start;
    uint64_t bytes;
    const char *command_line; /* NULL: none */
};

/* What is booted. */
struct boot_request {
    struct boot_file kernel;
    struct boot_file initrd;           /* data NULL: none */
    const char *command_line;          /* NULL: empty */
    const struct boot_module *modules; /* PVH and multiboot only, before the initrd */
    uint32_t module_count;
    loam_gpa rsdp; /* ACPI's root pointer, in guest memory already; 0: there are no tables */
};

/*
 * Where the first vCPU starts.
 *
 * The descriptors are a GDT: null, null, code 0x10 (of 64 bits for BOOT_LINUX), data 0x18, TSS 0x20. A TSS descriptor of long mode
 * takes two entries, so there are six. Code and data are marked accessed and the TSS busy; it lies in the
 * same frame, 64 bytes from the GDT's start, 104 bytes long.
 */
struct boot_state {
    enum boot_protocol protocol;
    uint64_t entry;             /* instruction pointer */
    loam_gpa parameters;        /* hvm_start_info or boot_params */
    loam_gpa page_tables;       /* the PML4, which maps the first 4 GiB one to one; BOOT_LINUX only */
    loam_gpa descriptors;       /* of the GDT; BOOT_LINUX and BOOT_LINUX_32 only */
    uint32_t descriptor_count;  /* of 8 bytes: the GDT's limit is 8 * descriptor_count - 1 */
    bool without_interrupts;    /* the guest says that it never enables them (guest/abi.h) */
    bool wants_video;           /* it asks for a video mode, and there is none */
    uint32_t command_line_kept; /* characters: all, or as many as the kernel is known to keep */
    loam_gpa image_start;       /* the kernel's own range: from its lowest frame to the end of its highest */
    uint64_t image_bytes;
};

/* How a kernel is booted, and what of it said so. */
struct boot_way {
    enum boot_protocol protocol;
    const char *text; /* "multiboot, ELF32"; static */
};

/*
 * Find out how the kernel wants to be booted, and check its headers. Needs no guest memory. Of several ways the first of
 * these is taken: PVH (an ELF file with its note), multiboot 1 (ELF, or address fields), the 64-bit Linux protocol (an ELF64
 * file, at e_entry, as Firecracker enters it), a Linux image at its 64-bit entry, or at its 32-bit one.
 * LOAM_ERROR_INVALID: it is none of these, or malformed; diag says what was found instead, and what can be done.
 */
LOAM_MUST_USE enum loam_error boot_detect(const struct boot_file *kernel, struct boot_way *way, struct loam_diag *diag);

/* Whether the kernel, which boot_detect has passed, says that it never enables interrupts (guest/abi.h). */
bool boot_is_without_interrupts(const struct boot_file *kernel);

/*
 * Check everything, then load. *state is zero on failure, and whatever was carved is released again.
 * LOAM_ERROR_INVALID: the file or the request is malformed, or the file wants memory where there is none;
 * LOAM_ERROR_EXHAUSTED: it does not fit, or its place is taken. LOAM_ERROR_SYSTEM: a call failed. diag says
 * which field of the file, or which range.
 */
LOAM_MUST_USE enum loam_error boot_load(struct loam_memory *memory, const struct boot_request *request,
                                        struct boot_state *state, struct loam_diag *diag);

#endif
