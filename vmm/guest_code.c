// SPDX-License-Identifier: Apache-2.0
#include "vmm/guest_code.h"

#include "vmm/lost_memory.h"

/* Translation holds for one of them. */
#define PAGE_BYTES UINT64_C(4096)

struct guest_code guest_code_of(int vcpu_fd, const struct loam_gpa_view *view)
{
    /* No page has this address, so that the first byte is translated. */
    return (struct guest_code){.vcpu_fd = vcpu_fd, .view = view, .page = {.linear_address = UINT64_MAX}};
}

static void translate(struct guest_code *code, uint64_t page)
{
    code->page = (struct kvm_translation){.linear_address = page};
    if (kvm_ioctl(code->vcpu_fd, KVM_TRANSLATE, &code->page) < 0 ||
        lost_memory_ask(code->view, loam_gpa_from_u64(code->page.physical_address)) != 0) {
        code->page.valid = 0;
    }
    code->page.linear_address = page;
}

bool guest_code_byte(struct guest_code *code, uint64_t linear, uint8_t *byte)
{
    uint64_t page = linear & ~(PAGE_BYTES - 1);

    if (code->page.linear_address != page) {
        translate(code, page);
    }
    return code->page.valid != 0 &&
           loam_gpa_view_read(code->view, loam_gpa_from_u64(code->page.physical_address + (linear & (PAGE_BYTES - 1))),
                              byte, 1) == LOAM_OK;
}

uint32_t guest_code_read(struct guest_code *code, uint64_t linear, uint8_t *bytes, uint32_t count)
{
    uint32_t done = 0;

    while (done < count && guest_code_byte(code, linear + done, &bytes[done])) {
        done++;
    }
    return done;
}
