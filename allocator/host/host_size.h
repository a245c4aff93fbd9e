// SPDX-License-Identifier: Apache-2.0
/* Sizes in words, for messages: one way for all of them. */
#ifndef LOAM_HOST_SIZE_H
#define LOAM_HOST_SIZE_H

#include <stdbool.h>
#include <stdint.h>

struct loam_host_size {
    char text[28];
};

/*
 * "3 GiB", "1536 MiB", "612 KiB": whole GiB where it is that; else MiB, and KiB below one, rounded up or down. What is
 * wanted is rounded up, what is found down, so that a shortfall is never told as none.
 */
struct loam_host_size loam_host_size(uint64_t bytes, bool round_up);

/* The same, without rounding: in KiB or bytes where it has to be. */
struct loam_host_size loam_host_size_exact(uint64_t bytes);

#endif
