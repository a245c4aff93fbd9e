// SPDX-License-Identifier: Apache-2.0
/* The filters that sandbox_compile made of the table, as seccomp(2) takes them. */
#ifndef LOAM_VMM_SANDBOX_FILTERS_H
#define LOAM_VMM_SANDBOX_FILTERS_H

#include <linux/filter.h>
#include <stddef.h>

struct sandbox_filter {
    const struct sock_filter *instructions;
    size_t count;
};

extern const struct sandbox_filter sandbox_filter_vcpu, sandbox_filter_rest, sandbox_filter_anew,
    sandbox_filter_debugger, sandbox_filter_domain, sandbox_filter_network, sandbox_filter_control;

#endif
