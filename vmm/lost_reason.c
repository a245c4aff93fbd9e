// SPDX-License-Identifier: Apache-2.0
#include "vmm/lost_reason.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The resource that is short for one page more; the pool last, since a page may be reserved there. NULL: none. */
static const struct loam_plan_check *find_shortage(const struct loam_plan *plan)
{
    const struct loam_plan_check *pool = NULL;

    for (uint32_t i = 0; i < plan->check_count; i++) {
        const struct loam_plan_check *check = &plan->checks[i];

        if (check->short_fall && check->resource != LOAM_PLAN_POOL && check->resource != LOAM_PLAN_NODE) {
            return check;
        }
        pool = check->short_fall ? check : pool;
    }
    return pool;
}

/* One page more of the kind that the part is made of, from where it comes. */
static bool plan_one_more(const struct loam_plan *plan, const struct loam_plan_part *part, struct loam_plan *more)
{
    const struct loam_backing_request *asked = &plan->request.parts[part->asked];
    struct loam_memory_request request = {
        .bytes = part->page_bytes > 2 * LOAM_MIB ? part->page_bytes : 2 * LOAM_MIB,
        .pages = part->pages,
        .sharing = asked->sharing,
        .commit = LOAM_COMMIT_POPULATE,
        .placement = asked->placement,
        .node_mask = asked->node_mask,
        .dma32_reserve_bytes = UINT64_MAX,
    };

    return loam_plan_make(&request, more, NULL) == LOAM_OK;
}

static void explain_error(const struct loam_plan *plan, const struct loam_plan_part *part, int error, char *text,
                          size_t bytes)
{
    const struct loam_plan_check *shortage = NULL;
    struct loam_plan more;

    if (error == EHWPOISON) {
        snprintf(text, bytes, "the host reports a memory error there (see dmesg): its hardware fails");
        return;
    }
    if (plan_one_more(plan, part, &more)) {
        shortage = find_shortage(&more);
    }
    if (shortage != NULL) {
        snprintf(text, bytes, "%s; --populate takes all of it at the start", shortage->text);
    } else if (error == 0) {
        snprintf(text, bytes,
                 "by now it can: a limit, or what others took, stood against it for a moment; --populate takes all of "
                 "it at the start");
    } else {
        snprintf(text, bytes,
                 "%s, and no limit that is known here explains it: a file behind it may have been cut (see dmesg)",
                 strerror(error));
    }
}

void lost_reason(const struct loam_gpa_view *view, const struct loam_plan *plan, const struct lost_memory *lost,
                 char *text, size_t bytes)
{
    const struct loam_plan_part *part = &plan->parts[0];
    struct loam_region region = {0};
    char why[sizeof plan->checks[0].text + 64];

    if (!lost->is_known || loam_gpa_view_find(view, lost->gpa, &region) != LOAM_OK) {
        explain_error(plan, part, 0, why, sizeof why);
        snprintf(text, bytes,
                 "KVM could not reach guest RAM (EFAULT), and does not say where; the host did not supply a page: %s",
                 why);
        return;
    }
    if (region.backing != 0 && region.backing <= plan->part_count) {
        part = &plan->parts[region.backing - 1];
    }
    explain_error(plan, part, lost_memory_ask(view, lost->gpa), why, sizeof why);
    snprintf(text, bytes,
             "the host does not supply guest RAM at GPA 0x%" PRIx64 " (%s; region [0x%" PRIx64 ", 0x%" PRIx64
             "), %" PRIu64 " KiB pages): %s",
             lost->gpa.value, lost->how, region.start.value, region.start.value + region.bytes,
             part->page_bytes / LOAM_KIB, why);
}
