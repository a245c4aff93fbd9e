// SPDX-License-Identifier: Apache-2.0
/*
 * Reference: Intel SDM volume 3A, chapters 3 (segments) and 4 (paging).
 *
 * An entry is read, judged, and only then marked as accessed or dirty, by a compare-and-exchange, as a processor does:
 * an entry that has changed meanwhile is not marked, and the walk starts again.
 */
#include "vmm/assist_memory.h"

#define PAGE_SHIFT 12u
#define PAGE_BYTES (UINT64_C(1) << PAGE_SHIFT)

#define CR0_AM   (UINT64_C(1) << 18)
#define CR0_WP   (UINT64_C(1) << 16)
#define CR0_PG   (UINT64_C(1) << 31)
#define CR4_PSE  (UINT64_C(1) << 4)
#define CR4_PAE  (UINT64_C(1) << 5)
#define CR4_LA57 (UINT64_C(1) << 12)
#define CR4_SMEP (UINT64_C(1) << 20)
#define CR4_SMAP (UINT64_C(1) << 21)
#define CR4_PKE  (UINT64_C(1) << 22)
#define CR4_PKS  (UINT64_C(1) << 24)
#define EFER_LMA (UINT64_C(1) << 10)
#define EFER_NXE (UINT64_C(1) << 11)

#define RFLAGS_AC (UINT64_C(1) << 18)

#define ENTRY_PRESENT  (UINT64_C(1) << 0)
#define ENTRY_WRITABLE (UINT64_C(1) << 1)
#define ENTRY_USER     (UINT64_C(1) << 2)
#define ENTRY_ACCESSED (UINT64_C(1) << 5)
#define ENTRY_DIRTY    (UINT64_C(1) << 6)
#define ENTRY_LARGE    (UINT64_C(1) << 7)
#define ENTRY_NX       (UINT64_C(1) << 63) /* there is none in an entry of 32 bits */
#define ENTRY_ADDRESS  UINT64_C(0x000ffffffffff000)

/* The attribute of a large page that lies where the others' addresses begin. */
#define ENTRY_LARGE_PAT (UINT64_C(1) << 12)

/* Segment types of data and code (Intel SDM volume 3A, section 3.4.5.1). */
#define TYPE_CODE        8u
#define TYPE_EXPAND_DOWN 4u /* of data */
#define TYPE_WRITABLE    2u /* of data; of code: readable */

#define WALK_TRIES 16u /* against a guest that changes its tables under the walk for ever */

#define LEVELS_MAX 4u

/* One level of page tables: the bits of a linear address that it translates. */
struct level {
    uint8_t shift, bits;
    bool has_large; /* an entry may map a page of its own */
    bool has_rights;
};

struct paging {
    struct level levels[LEVELS_MAX];
    uint8_t level_count;
    uint8_t entry_bytes;
    uint64_t root;
};

/* What all levels together grant. */
struct rights {
    bool is_writable, is_user, is_executable;
};

enum walk { WALK_DONE, WALK_REFUSED, WALK_FAULT, WALK_AGAIN };

/* What one entry says. */
enum entry_state { ENTRY_GOOD, ENTRY_ABSENT, ENTRY_RESERVED, ENTRY_UNKNOWN };

/* --- Segments ------------------------------------------------------------------------------------------------ */

bool assist_memory_is_long(const struct kvm_sregs *sregs)
{
    return (sregs->efer & EFER_LMA) != 0 && sregs->cs.l != 0;
}

unsigned int assist_memory_privilege(const struct kvm_sregs *sregs)
{
    return sregs->ss.dpl;
}

static const struct kvm_segment *segment_of(const struct kvm_sregs *sregs, enum assist_segment segment)
{
    switch (segment) {
    case ASSIST_SEGMENT_ES:
        return &sregs->es;
    case ASSIST_SEGMENT_CS:
        return &sregs->cs;
    case ASSIST_SEGMENT_SS:
        return &sregs->ss;
    case ASSIST_SEGMENT_FS:
        return &sregs->fs;
    case ASSIST_SEGMENT_GS:
        return &sregs->gs;
    case ASSIST_SEGMENT_DS:
    case ASSIST_SEGMENT_COUNT:
    default:
        return &sregs->ds;
    }
}

static bool is_canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

static bool is_expand_down(const struct kvm_segment *segment)
{
    return segment->s != 0 && (segment->type & (TYPE_CODE | TYPE_EXPAND_DOWN)) == TYPE_EXPAND_DOWN;
}

static bool segment_grants(const struct kvm_segment *segment, enum assist_access access)
{
    bool is_code = (segment->type & TYPE_CODE) != 0;

    if (segment->unusable != 0 || segment->present == 0 || segment->s == 0) {
        return false;
    }
    switch (access) {
    case ASSIST_READ:
        return !is_code || (segment->type & TYPE_WRITABLE) != 0;
    case ASSIST_WRITE:
        return !is_code && (segment->type & TYPE_WRITABLE) != 0;
    case ASSIST_FETCH:
        return is_code;
    }
    return false;
}

static bool is_linear_long(const struct kvm_segment *found, enum assist_segment segment, uint64_t offset, size_t bytes,
                           uint64_t *linear)
{
    bool has_base = segment == ASSIST_SEGMENT_FS || segment == ASSIST_SEGMENT_GS;

    *linear = offset + (has_base ? found->base : 0);
    return is_canonical(*linear) && is_canonical(*linear + bytes - 1) && *linear + bytes - 1 >= *linear;
}

bool assist_memory_linear(const struct assist_memory *memory, enum assist_segment segment, uint64_t offset,
                          size_t bytes, enum assist_access access, uint64_t *linear, struct assist_fault *fault)
{
    const struct kvm_segment *found = segment_of(memory->sregs, segment);

    *fault = (struct assist_fault){.vector = segment == ASSIST_SEGMENT_SS ? ASSIST_STACK_FAULT : ASSIST_PROTECTION};
    if (assist_memory_is_long(memory->sregs)) {
        return is_linear_long(found, segment, offset, bytes, linear);
    }
    *linear = (found->base + offset) & UINT32_MAX;
    if (!segment_grants(found, access)) {
        fault->vector = ASSIST_PROTECTION;
        return false;
    }
    if (!loam_fits(offset, bytes, (uint64_t)UINT32_MAX + 1) || is_expand_down(found) ||
        !loam_fits(*linear, bytes, (uint64_t)UINT32_MAX + 1)) {
        fault->vector = 0; /* processors differ where an operand wraps */
        return false;
    }
    return loam_fits(offset, bytes, (uint64_t)found->limit + 1);
}

/* --- Paging -------------------------------------------------------------------------------------------------- */

static struct paging paging_of(const struct kvm_sregs *sregs)
{
    if ((sregs->efer & EFER_LMA) != 0) {
        return (struct paging){
            .levels = {{39, 9, false, true}, {30, 9, true, true}, {21, 9, true, true}, {12, 9, false, true}},
            .level_count = 4,
            .entry_bytes = 8,
            .root = sregs->cr3 & ENTRY_ADDRESS};
    }
    if ((sregs->cr4 & CR4_PAE) != 0) {
        return (struct paging){.levels = {{30, 2, false, false}, {21, 9, true, true}, {12, 9, false, true}},
                               .level_count = 3,
                               .entry_bytes = 8,
                               .root = sregs->cr3 & UINT64_C(0xffffffe0)};
    }
    return (struct paging){.levels = {{22, 10, (sregs->cr4 & CR4_PSE) != 0, true}, {12, 10, false, true}},
                           .level_count = 2,
                           .entry_bytes = 4,
                           .root = sregs->cr3 & UINT64_C(0xfffff000)};
}

static uint64_t entry_read(const void *hva, uint8_t bytes)
{
    /* Relaxed: the guest orders its tables by its own means. */
    return bytes == 8 ? __atomic_load_n((const uint64_t *)hva, __ATOMIC_RELAXED)
                      : __atomic_load_n((const uint32_t *)hva, __ATOMIC_RELAXED);
}

static bool entry_exchange(void *hva, uint8_t bytes, uint64_t entry, uint64_t marks)
{
    uint32_t entry32 = (uint32_t)entry;

    return bytes == 8 ? __atomic_compare_exchange_n((uint64_t *)hva, &entry, entry | marks, false, __ATOMIC_RELAXED,
                                                    __ATOMIC_RELAXED)
                      : __atomic_compare_exchange_n((uint32_t *)hva, &entry32, (uint32_t)(entry | marks), false,
                                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* false: the entry is not what was read any more. */
static bool entry_mark(const struct assist_memory *memory, loam_gpa place, void *hva, uint8_t bytes, uint64_t entry,
                       uint64_t marks)
{
    if ((entry & marks) == marks) {
        return true;
    }
    if (!entry_exchange(hva, bytes, entry, marks)) {
        return false;
    }
    if (memory->dirty != NULL) {
        (void)loam_dirty_mark(memory->dirty, place, bytes);
    }
    return true;
}

/*
 * Reserved bits that every processor reserves. Address bits beyond the processor's lead nowhere later; those of a large
 * page of 32-bit paging are address bits where the processor has more than 32.
 */
static enum entry_state entry_judge(const struct assist_memory *memory, const struct paging *paging,
                                    const struct level *level, uint64_t entry)
{
    bool is_large = level->shift > PAGE_SHIFT && (entry & ENTRY_LARGE) != 0;
    uint64_t low = (UINT64_C(1) << level->shift) - 1;
    enum entry_state reserved = paging->entry_bytes == 8 && level->has_rights ? ENTRY_RESERVED : ENTRY_UNKNOWN;

    /* Entries without rights are PAE's first level, which a processor reads when CR3 is loaded, and not later. */
    if ((entry & ENTRY_PRESENT) == 0) {
        return level->has_rights ? ENTRY_ABSENT : ENTRY_UNKNOWN;
    }
    if ((entry & ENTRY_NX) != 0 && (memory->sregs->efer & EFER_NXE) == 0) {
        return reserved;
    }
    if (!is_large) {
        return ENTRY_GOOD;
    }
    /* Without PSE the bit of a 32-bit entry is ignored; elsewhere it is reserved where no page can be. */
    if (!level->has_large) {
        return paging->entry_bytes == 4 ? ENTRY_GOOD : reserved;
    }
    return (entry & low & ENTRY_ADDRESS & ~ENTRY_LARGE_PAT) == 0 ? ENTRY_GOOD : reserved;
}

/* Which bits stand in a page fault's error code whatever came of the walk. */
static uint32_t access_code(const struct kvm_sregs *sregs, enum assist_access access)
{
    bool tells_fetches = (sregs->cr4 & CR4_SMEP) != 0 || ((sregs->efer & EFER_NXE) != 0 && (sregs->cr4 & CR4_PAE) != 0);

    return (access == ASSIST_WRITE ? ASSIST_PAGE_WRITE : 0) |
           (assist_memory_privilege(sregs) == 3 ? ASSIST_PAGE_USER : 0) |
           (access == ASSIST_FETCH && tells_fetches ? ASSIST_PAGE_FETCH : 0);
}

static enum walk page_fault(const struct assist_memory *memory, uint64_t linear, enum assist_access access,
                            uint32_t reason, struct assist_fault *fault)
{
    *fault = (struct assist_fault){
        .vector = ASSIST_PAGE_FAULT, .error_code = reason | access_code(memory->sregs, access), .address = linear};
    return WALK_FAULT;
}

static bool rights_grant(const struct assist_memory *memory, const struct rights *rights, enum assist_access access)
{
    const struct kvm_sregs *sregs = memory->sregs;

    if (assist_memory_privilege(sregs) == 3) {
        return rights->is_user && (access != ASSIST_WRITE || rights->is_writable) &&
               (access != ASSIST_FETCH || rights->is_executable);
    }
    if (access == ASSIST_FETCH) {
        return rights->is_executable && !(rights->is_user && (sregs->cr4 & CR4_SMEP) != 0);
    }
    if (rights->is_user && (sregs->cr4 & CR4_SMAP) != 0 && (memory->rflags & RFLAGS_AC) == 0) {
        return false;
    }
    return access != ASSIST_WRITE || rights->is_writable || (sregs->cr0 & CR0_WP) == 0;
}

static enum walk entry_fault(const struct assist_memory *memory, uint64_t linear, enum assist_access access,
                             enum entry_state state, struct assist_fault *fault)
{
    switch (state) {
    case ENTRY_ABSENT:
        return page_fault(memory, linear, access, 0, fault);
    case ENTRY_RESERVED:
        return page_fault(memory, linear, access, ASSIST_PAGE_PRESENT | ASSIST_PAGE_RESERVED, fault);
    default:
        return WALK_REFUSED;
    }
}

static void join_rights(struct rights *rights, uint64_t entry)
{
    rights->is_writable &= (entry & ENTRY_WRITABLE) != 0;
    rights->is_user &= (entry & ENTRY_USER) != 0;
    rights->is_executable &= (entry & ENTRY_NX) == 0;
}

static enum walk walk_once(const struct assist_memory *memory, const struct paging *paging, uint64_t linear,
                           enum assist_access access, loam_gpa *gpa, struct assist_fault *fault)
{
    struct rights rights = {true, true, true};
    uint64_t table = paging->root;

    for (unsigned int i = 0; i < paging->level_count; i++) {
        const struct level *level = &paging->levels[i];
        uint64_t index = linear >> level->shift & ((UINT64_C(1) << level->bits) - 1);
        uint64_t low = (UINT64_C(1) << level->shift) - 1, entry, marks = ENTRY_ACCESSED;
        loam_gpa place = loam_gpa_from_u64(table + index * paging->entry_bytes);
        enum entry_state state;
        bool is_last;
        void *hva;

        if (loam_gpa_view_translate(memory->view, place, paging->entry_bytes, LOAM_ACCESS_WRITE, &hva) != LOAM_OK) {
            return WALK_REFUSED;
        }
        entry = entry_read(hva, paging->entry_bytes);
        state = entry_judge(memory, paging, level, entry);
        if (state != ENTRY_GOOD) {
            return entry_fault(memory, linear, access, state, fault);
        }
        if (level->has_rights) {
            join_rights(&rights, entry);
        }
        is_last = level->shift == PAGE_SHIFT || (level->has_large && (entry & ENTRY_LARGE) != 0);
        if (is_last && !rights_grant(memory, &rights, access)) {
            return page_fault(memory, linear, access, ASSIST_PAGE_PRESENT, fault);
        }
        marks |= is_last && access == ASSIST_WRITE ? ENTRY_DIRTY : 0;
        if (level->has_rights && !entry_mark(memory, place, hva, paging->entry_bytes, entry, marks)) {
            return WALK_AGAIN;
        }
        table = entry & ENTRY_ADDRESS;
        if (is_last) {
            *gpa = loam_gpa_from_u64((table & ~low) | (linear & low));
            return WALK_DONE;
        }
    }
    return WALK_REFUSED;
}

static bool walk(const struct assist_memory *memory, uint64_t linear, enum assist_access access, loam_gpa *gpa,
                 struct assist_fault *fault)
{
    struct paging paging = paging_of(memory->sregs);
    enum walk result = WALK_AGAIN;

    *fault = (struct assist_fault){0};
    if ((memory->sregs->cr0 & CR0_PG) == 0) {
        *gpa = loam_gpa_from_u64(linear);
        return true;
    }
    if ((memory->sregs->cr4 & (CR4_LA57 | CR4_PKE | CR4_PKS)) != 0) {
        return false;
    }
    for (unsigned int i = 0; result == WALK_AGAIN && i < WALK_TRIES; i++) {
        result = walk_once(memory, &paging, linear, access, gpa, fault);
    }
    return result == WALK_DONE;
}

/* #AC may be due, which depends on the operand's type. */
static bool checks_alignment(const struct assist_memory *memory)
{
    return assist_memory_privilege(memory->sregs) == 3 && (memory->sregs->cr0 & CR0_AM) != 0 &&
           (memory->rflags & RFLAGS_AC) != 0;
}

bool assist_memory_find(const struct assist_memory *memory, uint64_t linear, size_t bytes, enum assist_access access,
                        struct assist_span *span, struct assist_fault *fault)
{
    enum loam_access wanted = access == ASSIST_WRITE ? LOAM_ACCESS_WRITE : LOAM_ACCESS_READ;
    size_t room = (size_t)(PAGE_BYTES - (linear & (PAGE_BYTES - 1)));
    size_t done = 0;

    *fault = (struct assist_fault){0};
    if (bytes == 0 || bytes > ASSIST_MEMORY_BYTES_MAX || (access != ASSIST_FETCH && checks_alignment(memory))) {
        return false;
    }
    *span = (struct assist_span){.view = memory->view,
                                 .dirty = memory->dirty,
                                 .bytes = {bytes < room ? bytes : room, bytes < room ? 0 : bytes - room}};
    for (unsigned int i = 0; i < 2 && span->bytes[i] > 0; i++) {
        void *hva;

        if (!walk(memory, linear + done, access, &span->gpa[i], fault) ||
            loam_gpa_view_translate(memory->view, span->gpa[i], span->bytes[i], wanted, &hva) != LOAM_OK) {
            return false;
        }
        done += span->bytes[i];
    }
    return true;
}

void assist_memory_load(const struct assist_span *span, void *bytes)
{
    size_t done = 0;

    for (unsigned int i = 0; i < 2 && span->bytes[i] > 0; i++) {
        /* Found in this very view, which does not change. */
        enum loam_error ignored = loam_gpa_view_read(span->view, span->gpa[i], (uint8_t *)bytes + done, span->bytes[i]);

        (void)ignored;
        done += span->bytes[i];
    }
}

static void mark_written(const struct assist_span *span)
{
    for (unsigned int i = 0; i < 2 && span->bytes[i] > 0 && span->dirty != NULL; i++) {
        (void)loam_dirty_mark(span->dirty, span->gpa[i], span->bytes[i]);
    }
}

void assist_memory_store(const struct assist_span *span, const void *bytes)
{
    size_t done = 0;

    for (unsigned int i = 0; i < 2 && span->bytes[i] > 0; i++) {
        enum loam_error ignored =
            loam_gpa_view_write(span->view, span->gpa[i], (const uint8_t *)bytes + done, span->bytes[i]);

        (void)ignored;
        done += span->bytes[i];
    }
    mark_written(span);
}

bool assist_memory_exchange(const struct assist_span *span, uint64_t expected[2], const uint64_t desired[2])
{
    bool is_equal = false;
    void *hva;

    if (loam_gpa_view_translate(span->view, span->gpa[0], 16, LOAM_ACCESS_WRITE, &hva) == LOAM_OK) {
        __asm__ volatile("lock cmpxchg16b %1"
                         : "=@ccz"(is_equal), "+m"(*(uint64_t(*)[2])hva), "+a"(expected[0]), "+d"(expected[1])
                         : "b"(desired[0]), "c"(desired[1])
                         : "memory");
        mark_written(span);
    }
    return is_equal;
}
