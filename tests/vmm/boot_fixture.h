// SPDX-License-Identifier: Apache-2.0
/* What the tests of the loaders share: a small guest memory, exact copies of files, checks on refusals. */
#ifndef LOAM_TESTS_VMM_BOOT_FIXTURE_H
#define LOAM_TESTS_VMM_BOOT_FIXTURE_H

#include "loam/memory.h"
#include "vmm/boot.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RAM of the memory below: [0, 24 MiB) and [4 GiB, 4 GiB + 8 MiB), on 4 KiB pages found on first touch. */
#define FIXTURE_LOW_BYTES  (24 * LOAM_MIB)
#define FIXTURE_HIGH_BYTES (8 * LOAM_MIB)

/* Never fails: the test does. Destroy with loam_memory_destroy. */
struct loam_memory *fixture_memory(void);

/* The HVA of RAM; the range lies in one region, or the test fails. */
void *fixture_hva(struct loam_memory *memory, uint64_t gpa, uint64_t bytes);

#define FIXTURE_IDS_MAX 64

struct fixture_ids {
    uint32_t count;
    uint64_t ids[FIXTURE_IDS_MAX];
};

/* The buffers that there are now; and release every other. */
struct fixture_ids fixture_ids(struct loam_memory *memory);
bool fixture_ids_hold(const struct fixture_ids *ids, uint64_t id);
void fixture_release_beyond(struct loam_memory *memory, const struct fixture_ids *ids);

/* Buffers of this owner. */
uint32_t fixture_owned(struct loam_memory *memory, const char *owner);

/* A file whose bytes lie in an allocation of exactly their size, so that a sanitizer sees a read beyond them. */
struct boot_file fixture_file(const void *bytes, size_t size, const char *name);
void fixture_file_free(struct boot_file *file);

/* A change to a file: value in little-endian order. bytes 0: none. */
struct fixture_poke {
    size_t offset;
    size_t bytes;
    uint64_t value;
};

#define FIXTURE_POKE_MAX 6

/* A file that is to be refused: the good one, poked, cut to size (0: as it is). */
struct fixture_case {
    const char *name;
    const char *expected; /* what the line must contain */
    struct fixture_poke pokes[FIXTURE_POKE_MAX];
    size_t size;
};

void fixture_poke(uint8_t *file, const struct fixture_poke *poke);
void fixture_apply(uint8_t *file, size_t *size, const struct fixture_case *wanted);

/* The test fails unless error is INVALID or EXHAUSTED, and diag is one line that contains expected. */
void fixture_check_refusal(const char *name, enum loam_error error, const struct loam_diag *diag, const char *expected);

/* boot_load must refuse, leaving the ledger as it was. Returns the error. */
enum loam_error fixture_refused_load(struct loam_memory *memory, const struct boot_request *request, const char *name,
                                     const char *expected);

/* A byte of contents that can be told from its neighbours. */
static inline uint8_t fixture_byte(uint64_t offset)
{
    return (uint8_t)(offset * 167u + (offset >> 8) + 1);
}

#endif
