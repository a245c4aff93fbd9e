// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/line_device.h"

#include "vmm/emulator/line_table.h"

#include <string.h>

/* --- Networks ------------------------------------------------------------------------------------------------------ */

static enum loam_error find_netdev(const struct arguments *arguments, const struct argument *device,
                                   const struct argument **netdev, struct loam_diag *diag)
{
    const char *id = words_get(&device->words, "netdev");

    *netdev = arguments_find_by(arguments, "-netdev", "id", id);
    if (*netdev == NULL) {
        return words_refuse(&device->words, "netdev", diag, "there is no -netdev of that id");
    }
    return arguments_find_by(arguments, "-device", "netdev", id) == device
               ? LOAM_OK
               : words_refuse(&device->words, "netdev", diag, "another device has it: give each its own -netdev");
}

static enum loam_error add_net(const struct arguments *arguments, const struct argument *device, struct line *line,
                               struct loam_diag *diag)
{
    struct line_net *net = &line->nets[line->net_count];
    const struct argument *netdev;
    enum loam_error error = find_netdev(arguments, device, &netdev, diag);

    if (error != LOAM_OK) {
        return error;
    }
    line->net_count++;
    net->kind = netdev->type == LINE_NETDEV_TAP ? LINE_NET_TAP : LINE_NET_USER;
    net->fd = net->kind == LINE_NET_TAP ? (int)words_number(&netdev->words, "fd", 0) : -1;
    words_parse_mac(words_get(&device->words, "mac"), net->mac);
    return words_copy(&device->words, "id", &net->id, diag);
}

static enum loam_error read_nets(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (const struct argument *at = NULL;
         error == LOAM_OK && (at = line_next_of(arguments, "-device", LINE_DEVICE_NET, at)) != NULL;) {
        error = line->net_count < LINE_NET_MAX
                    ? add_net(arguments, at, line, diag)
                    : words_refuse(&at->words, NULL, diag, "more than %u of them: give fewer", LINE_NET_MAX);
    }
    for (const struct argument *at = NULL;
         error == LOAM_OK && (at = arguments_next(arguments, "-netdev", at)) != NULL;) {
        if (arguments_find_by(arguments, "-device", "netdev", words_get(&at->words, "id")) == NULL) {
            error = words_refuse(&at->words, NULL, diag,
                                 "no -device virtio-net-device names it: give one, or leave it out");
        }
    }
    return error;
}

/* --- One of each --------------------------------------------------------------------------------------------------- */

/* NULL: there is none. */
static enum loam_error find_only(const struct arguments *arguments, uint32_t type, const struct argument **device,
                                 struct loam_diag *diag)
{
    *device = line_next_of(arguments, "-device", type, NULL);
    return *device == NULL || line_next_of(arguments, "-device", type, *device) == NULL
               ? LOAM_OK
               : words_refuse(&(*device)->words, NULL, diag, "there can be one: give one");
}

/* Of which getrandom(2) is another name. */
static bool is_kernels_own(const char *path)
{
    return strcmp(path, "/dev/urandom") == 0 || strcmp(path, "/dev/random") == 0;
}

static enum loam_error read_rng(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *device, *object;
    enum loam_error error = find_only(arguments, LINE_DEVICE_RNG, &device, diag);

    if (error != LOAM_OK || device == NULL) {
        return error;
    }
    object = arguments_find_by(arguments, "-object", "id", words_get(&device->words, "rng"));
    if (object == NULL || object->type != LINE_OBJECT_RNG_RANDOM) {
        return words_refuse(&device->words, "rng", diag, "there is no -object rng-random of that id");
    }
    if (!is_kernels_own(words_get(&object->words, "filename"))) {
        return words_refuse(&object->words, "filename", diag,
                            "the kernel's own generator is all there is: give /dev/urandom");
    }
    error = words_copy(&device->words, "id", &line->rng_id, diag);
    return error == LOAM_OK ? words_copy(&object->words, "filename", &line->rng_path, diag) : error;
}

static enum loam_error read_balloon(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *device;
    enum loam_error error = find_only(arguments, LINE_DEVICE_BALLOON, &device, diag);

    if (error != LOAM_OK || device == NULL) {
        return error;
    }
    line->balloon_deflates_on_oom = words_is_on(&device->words, "deflate-on-oom", false);
    line->balloon_reports_free = words_is_on(&device->words, "free-page-reporting", false);
    return words_copy(&device->words, "id", &line->balloon_id, diag);
}

static enum loam_error read_panic(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    const struct argument *device;
    enum loam_error error = find_only(arguments, LINE_DEVICE_PANIC, &device, diag);

    line->has_panic = device != NULL;
    return error;
}

enum loam_error line_device_read(const struct arguments *arguments, struct line *line, struct loam_diag *diag)
{
    enum loam_error error = read_nets(arguments, line, diag);

    if (error == LOAM_OK) {
        error = read_rng(arguments, line, diag);
    }
    if (error == LOAM_OK) {
        error = read_balloon(arguments, line, diag);
    }
    return error == LOAM_OK ? read_panic(arguments, line, diag) : error;
}
