// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/domain_finish.h"

#include <inttypes.h>
#include <string.h>

static void finish_processors(const struct domain_said *said, struct domain *domain, struct xml_walk_refusals *refusals)
{
    uint64_t most = said->vcpu_count != 0 ? said->vcpu_count : 1;
    uint64_t count = said->current_vcpu_count != 0 ? said->current_vcpu_count : most;

    if (said->core_count != 0 && said->core_count != count) {
        xml_walk_refuse(refusals, &said->topology_place, "%" PRIu64 " cores, and %" PRIu64 " vCPUs", said->core_count,
                        count);
    }
    domain->vcpu_count = (uint32_t)count;
}

static void finish_total(const struct domain_said *said, struct domain *domain, struct xml_walk_refusals *refusals)
{
    uint64_t sum = 0, bytes;
    bool fits = true;

    for (uint32_t i = 0; i < said->cell_count; i++) {
        fits = fits && !__builtin_add_overflow(sum, said->cells[i].bytes, &sum);
    }
    bytes = said->memory_place.line != 0 ? said->memory_bytes : fits ? sum : 0;
    if (said->memory_place.line == 0 && bytes == 0) {
        xml_walk_refuse_all(refusals, 0, "no <memory>: a guest wants some");
    } else if (said->cell_count > 0 && (!fits || sum != bytes)) {
        xml_walk_refuse(refusals, &said->memory_place, "%" PRIu64 " KiB, and the cells have %" PRIu64, bytes / LOAM_KIB,
                        sum / LOAM_KIB);
    }
    if (bytes != 0 && said->current_place.line != 0 && said->current_bytes != bytes) {
        xml_walk_refuse(refusals, &said->current_place,
                        "%" PRIu64 " KiB, and <memory> is %" PRIu64 ": no balloon here takes the rest",
                        said->current_bytes / LOAM_KIB, bytes / LOAM_KIB);
    }
    domain->memory.bytes = bytes;
}

static void finish_backing(const struct domain_said *said, struct domain *domain, struct xml_walk_refusals *refusals)
{
    struct loam_memory_request *memory = &domain->memory;

    if (memory->sharing == LOAM_SHARING_ANY) {
        memory->sharing = said->has_memfd       ? LOAM_SHARING_SHARED
                          : said->has_anonymous ? LOAM_SHARING_PRIVATE
                                                : LOAM_SHARING_ANY;
    }
    if (memory->lock && memory->commit == LOAM_COMMIT_LAZY) {
        xml_walk_refuse(refusals, &said->allocation_place, "what is locked is there at once");
    }
    if (memory->thread_count != 0 && memory->commit != LOAM_COMMIT_POPULATE) {
        xml_walk_refuse(refusals, &said->allocation_place, "threads go with mode immediate");
    }
    memory->placement = said->tuning.placement;
    memory->node_mask = said->tuning.node_mask;
}

/* Each cell is wished for once at most, and is there; without cells there is one, 0. */
static void check_wishes(const struct domain_said *said, struct xml_walk_refusals *refusals)
{
    uint64_t there = said->cell_count == 0 ? 1 : (UINT64_C(1) << said->cell_count) - 1, seen = 0;
    bool has_rest = false;

    for (uint32_t i = 0; i < said->wish_count; i++) {
        const struct domain_page_wish *wish = &said->wishes[i];

        if ((wish->cell_mask & ~there) != 0) {
            xml_walk_refuse(refusals, &wish->place, "for a cell that is not there");
        } else if ((wish->cell_mask & seen) != 0 || (wish->cell_mask == 0 && has_rest)) {
            xml_walk_refuse(refusals, &wish->place, "a cell has one kind of pages");
        }
        seen |= wish->cell_mask;
        has_rest |= wish->cell_mask == 0;
    }
}

static enum loam_pages pages_of(const struct domain_said *said, uint64_t cell)
{
    enum loam_pages pages = said->wants_hugepages && said->wish_count == 0 ? LOAM_PAGES_2M : LOAM_PAGES_AUTO;

    for (uint32_t i = 0; i < said->wish_count; i++) {
        if (said->wishes[i].cell_mask >> cell & 1) {
            return said->wishes[i].pages;
        }
        pages = said->wishes[i].cell_mask == 0 ? said->wishes[i].pages : pages;
    }
    return pages;
}

static const struct domain_tuning *tuning_of(const struct domain_said *said, uint64_t cell)
{
    for (uint32_t i = 0; i < said->memnode_count; i++) {
        if (said->memnodes[i].cell == cell) {
            return &said->memnodes[i];
        }
    }
    return &said->tuning;
}

static void check_memnodes(const struct domain_said *said, struct xml_walk_refusals *refusals)
{
    uint64_t seen = 0;

    for (uint32_t i = 0; i < said->memnode_count; i++) {
        const struct domain_tuning *node = &said->memnodes[i];

        if (!node->has_cell || node->cell >= said->cell_count) {
            xml_walk_refuse(refusals, &node->place, "for a cell that is not there");
        } else if (seen >> node->cell & 1) {
            xml_walk_refuse(refusals, &node->place, "there is one for this cell already");
        }
        seen |= UINT64_C(1) << node->cell;
    }
}

/* A part for each cell, in the order of their numbers. */
static void finish_cells(const struct domain_said *said, struct domain *domain, struct xml_walk_refusals *refusals)
{
    struct loam_memory_request *memory = &domain->memory;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < said->cell_count; i++) {
        const struct domain_cell *cell = &said->cells[i];
        const struct domain_tuning *tuning = tuning_of(said, cell->id);

        if (cell->id >= said->cell_count || (seen >> cell->id & 1)) {
            xml_walk_refuse(refusals, &cell->place, "cells are numbered from 0 on, each once");
            continue;
        }
        if (cell->processors.line != 0 && said->cell_count > 1) {
            xml_walk_refuse(refusals, &cell->processors, "no table tells the guest which vCPU is near which memory");
        }
        seen |= UINT64_C(1) << cell->id;
        memory->parts[cell->id] = (struct loam_backing_request){
            .bytes = cell->bytes,
            .pages = pages_of(said, cell->id),
            .sharing = cell->sharing != LOAM_SHARING_ANY ? cell->sharing : memory->sharing,
            .commit = memory->commit,
            .placement = tuning->placement,
            .node_mask = tuning->node_mask,
            .lock = memory->lock,
        };
    }
    memory->part_count = said->cell_count;
}

static void finish_boot(const struct domain_said *said, const struct domain *domain, struct xml_walk_refusals *refusals)
{
    if (domain->kernel[0] != '\0') {
        return;
    }
    if (domain->initrd[0] != '\0') {
        xml_walk_refuse(refusals, &said->initrd_place, "goes with <kernel>, and none is there");
    }
    if (domain->command_line[0] != '\0') {
        xml_walk_refuse(refusals, &said->command_line_place, "goes with <kernel>, and none is there");
    }
    if (said->boot_place.line != 0) {
        xml_walk_refuse(refusals, &said->boot_place, "nothing to boot from here but <kernel>");
    }
}

/* A console without a serial port stands for one; beside one it is the same, as libvirt writes it. */
static void finish_serial(const struct domain_said *said, struct domain *domain, struct xml_walk_refusals *refusals)
{
    const struct domain_serial *serial = &said->serial.serial, *console = &said->console.serial;

    if (said->serial.is_there && said->console.is_there &&
        (serial->kind != console->kind || strcmp(serial->path, console->path) != 0)) {
        xml_walk_refuse(refusals, &said->console.place, "it is the serial port, which goes elsewhere");
    }
    domain->serial = said->serial.is_there ? *serial : *console;
}

void domain_finish(const struct domain_said *said, struct domain *domain, struct xml_walk_refusals *refusals)
{
    finish_processors(said, domain, refusals);
    finish_total(said, domain, refusals);
    finish_backing(said, domain, refusals);
    check_wishes(said, refusals);
    check_memnodes(said, refusals);
    domain->memory.pages = pages_of(said, 0);
    finish_cells(said, domain, refusals);
    finish_boot(said, domain, refusals);
    finish_serial(said, domain, refusals);
}
