// SPDX-License-Identifier: Apache-2.0
#include "vmm/launch.h"

#include "guest/embedded.h"
#include "vmm/file.h"
#include "vmm/kvm.h"
#include "vmm/kvm_paging.h"
#include "vmm/platform_tables.h"
#include "vmm/sabotage.h"
#include "vmm/state_memory.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define RNG_TRANSPORT (1u << 0) /* where the machine puts virtio-rng: machine_config */
#define EXTRA_SLOTS   8         /* for the pieces that read-only ranges cut RAM into */

/*
 * What a launch takes beside its guest's memory: a thread a vCPU, one that KVM starts at the first KVM_RUN (Linux 6.14), the
 * timer's, heap.
 */
#define KVM_THREADS   1u
#define TIMER_THREADS 1u
#define PROGRAM_BYTES (2 * LOAM_MIB)
#define VCPU_BYTES    (256 * LOAM_KIB)

void launch_init(struct launch *launch, const struct launch_config *config)
{
    *launch = (struct launch){.config = *config, .order_fd = -1};
}

enum loam_error launch_ask_kvm(struct launch *launch, struct loam_diag *diag)
{
    struct kvm kvm;
    enum loam_error error = kvm_open(KVM_DEVICE, &kvm, diag);

    if (error == LOAM_OK) {
        launch->slot_limit = kvm.slot_limit;
        launch->vcpu_limit = kvm.vcpu_limit;
        kvm_close(&kvm);
    }
    return error;
}

bool launch_is_selftest(const struct launch *launch)
{
    return launch->config.kernel == NULL && launch->config.restore == NULL;
}

/* What the machine has to be is the snapshot's to say. */
static enum loam_error measure_snapshot(struct launch *launch, struct loam_diag *diag)
{
    struct launch_config *config = &launch->config;
    struct machine_shape shape;
    enum loam_error error = snapshot_open(config->restore, &launch->snapshot, diag);

    launch->state = error == LOAM_OK ? &launch->snapshot.reader : NULL;
    if (error == LOAM_OK) {
        error = machine_state_check(&launch->snapshot.reader, diag);
    }
    if (error == LOAM_OK) {
        error = machine_shape_load(&launch->snapshot.reader, &shape, diag);
    }
    if (error == LOAM_OK) {
        config->vcpu_count = shape.vcpu_count;
        config->without_rng = !shape.has_rng;
        error = state_memory_request(&launch->snapshot.reader, &config->memory, diag);
    }
    /* Pages that are there are not waited for; they are found as the guest's are brought. */
    if (config->memory.commit == LOAM_COMMIT_RESERVE && !config->memory.lock) {
        config->memory.commit = LOAM_COMMIT_LAZY;
    }
    return error;
}

enum loam_error launch_measure(struct launch *launch, struct loam_diag *diag)
{
    const struct launch_config *config = &launch->config;
    uint64_t kernel_bytes = 0, initrd_bytes = 0;
    enum loam_error error = config->restore != NULL ? measure_snapshot(launch, diag) : LOAM_OK;

    if (error == LOAM_OK && config->kernel != NULL) {
        error = file_measure(config->kernel, config->memory.bytes, &kernel_bytes, diag);
    }
    if (error == LOAM_OK && config->initrd != NULL) {
        error = file_measure(config->initrd, config->memory.bytes, &initrd_bytes, diag);
    }
    launch->file_bytes = kernel_bytes + initrd_bytes;
    return error;
}

static struct loam_memory_request request_of(const struct launch *launch)
{
    const struct launch_config *config = &launch->config;
    struct loam_memory_request request = config->memory;

    request.slot_limit = launch->slot_limit;
    request.extra_slots = EXTRA_SLOTS;
    /* Nobody but this process has business with the guest's memory, nor has who reads a core dump of it. */
    request.keep_from_children = true;
    request.keep_from_dumps = true;
    request.vcpu_limit = launch->vcpu_limit;
    request.vcpu_count = config->vcpu_count;
    request.extra_threads = config->vcpu_count + KVM_THREADS + TIMER_THREADS + config->extra_threads +
                            (config->restore != NULL ? PAGER_THREADS : 0);
    request.extra_bytes = (config->restore != NULL ? PAGER_BYTES : 0) + PROGRAM_BYTES +
                          config->vcpu_count * VCPU_BYTES + launch->file_bytes + config->extra_bytes;
    /* Nothing is plugged, and no thread has a cache; who looks at memory is a vCPU, or one of those beside them. */
    request.block_capacity = 1;
    request.cache_capacity = 1;
    request.table_capacity = config->vcpu_count + KVM_THREADS + config->extra_readers + 2;
    request.cancel = config->cancel;
    return request;
}

enum loam_error launch_plan(struct launch *launch, struct loam_diag *diag)
{
    struct loam_memory_request request = request_of(launch);

    return loam_plan_make(&request, &launch->plan, diag);
}

/* A kernel with a 32-bit entry alone pages without long mode. */
static enum loam_error check_paging(const struct launch *launch, struct loam_diag *diag)
{
    bool is_able;
    enum loam_error error = kvm_paging_ask(&is_able, diag);

    if (error == LOAM_OK && !is_able) {
        return loam_fail(
            diag, LOAM_ERROR_NOT_FOUND,
            "kernel %s: a 32-bit kernel, which pages outside long mode, and this host's KVM, which emulates, "
            "cannot: take the 64-bit kernel, or a host with VT-x or AMD-V",
            launch->kernel.name);
    }
    return error;
}

static enum loam_error ask_tune(struct launch *launch, struct loam_diag *diag)
{
    const struct launch_config *config = &launch->config;
    struct kvm kvm;
    enum loam_error error;

    if (config->tune == TUNE_IGNORE || !tune_is_linux(&launch->kernel)) {
        return LOAM_OK;
    }
    error = kvm_open(KVM_DEVICE, &kvm, diag);
    if (error == LOAM_OK) {
        error = tune_ask(&kvm, config->command_line, config->vcpu_count, config->tune, &launch->tune, diag);
        kvm_close(&kvm);
    }
    return error;
}

enum loam_error launch_read(struct launch *launch, struct loam_diag *diag)
{
    const struct launch_config *config = &launch->config;
    enum loam_error error;

    if (config->restore != NULL) {
        return state_memory_check(&launch->snapshot.reader, &launch->plan, diag);
    }
    if (config->kernel == NULL) {
        launch->kernel = (struct boot_file){loam_guest_selftest, loam_guest_selftest_bytes, "self-test"};
        return LOAM_OK;
    }
    error = file_read(config->kernel, config->memory.bytes, &config->cancel, &launch->kernel, diag);
    if (error == LOAM_OK && config->initrd != NULL) {
        error = file_read(config->initrd, config->memory.bytes, &config->cancel, &launch->initrd, diag);
    }
    if (error == LOAM_OK) {
        error = boot_detect(&launch->kernel, &launch->way, diag);
    }
    if (error == LOAM_OK && launch->way.protocol == BOOT_LINUX_32) {
        error = check_paging(launch, diag);
    }
    return error == LOAM_OK ? ask_tune(launch, diag) : error;
}

const char *launch_command_line(const struct launch *launch)
{
    return launch->tune.command_line != NULL ? launch->tune.command_line : launch->config.command_line;
}

enum loam_error launch_make_memory(struct launch *launch, struct loam_diag *diag)
{
    enum loam_error error = loam_memory_create(&launch->plan, &launch->memory, diag);

    if (error == LOAM_OK) {
        bus_error_watch(loam_memory_map(launch->memory), &launch->config.bus_error);
    }
    return error;
}

/* *rsdp is 0 where there are none: a machine without interrupt controllers has nothing that tables could tell of. */
static enum loam_error make_tables(struct launch *launch, loam_gpa *rsdp, struct loam_diag *diag)
{
    const struct launch_config *config = &launch->config;
    const struct platform_tables_config tables = {.vcpu_count = config->vcpu_count,
                                                  .virtio_transports =
                                                      config->transports | (config->without_rng ? 0 : RNG_TRANSPORT),
                                                  .without_acpi = config->without_acpi};

    *rsdp = loam_gpa_from_u64(0);
    return config->vcpu_count == 1 && boot_is_without_interrupts(&launch->kernel)
               ? LOAM_OK
               : platform_tables_write(launch->memory, &tables, rsdp, diag);
}

static enum loam_error load_kernel(struct launch *launch, struct loam_diag *diag)
{
    struct boot_request request = {
        .kernel = launch->kernel, .initrd = launch->initrd, .command_line = launch_command_line(launch)};
    enum loam_error error = make_tables(launch, &request.rsdp, diag);

    return error == LOAM_OK ? boot_load(launch->memory, &request, &launch->boot, diag) : error;
}

static enum loam_error load_selftest(struct launch *launch, struct loam_diag *diag)
{
    struct boot_request request = {.kernel = launch->kernel, .module_count = 1};
    struct boot_module module;
    enum loam_error error =
        attest_create(launch->memory, launch->config.checked, launch->config.self, &launch->attest, diag);

    if (error != LOAM_OK) {
        return error;
    }
    module = attest_module(launch->attest);
    request.modules = &module;
    error = boot_load(launch->memory, &request, &launch->boot, diag);
    return error == LOAM_OK ? attest_publish(launch->attest, &launch->boot, diag) : error;
}

static void page_failed(void *self, const struct loam_diag *diag)
{
    struct launch *launch = self;

    bus_error_explain(diag->text);
    launch->has_lost_pages = true;
    machine_break(launch->machine, diag);
}

/* Where it cannot be written, nothing is learnt. */
static void open_order(struct launch *launch)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/order", launch->config.restore) < (int)sizeof path) {
        launch->order_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (launch->order_fd < 0) {
            launch->order_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        }
    }
}

/* As it is touched, where the kernel has something to that end. */
static enum loam_error bring_memory(struct launch *launch, struct loam_diag *diag)
{
    const struct pager_config config = {.image = &launch->snapshot.image,
                                        .memory = launch->memory,
                                        .order_fd = launch->order_fd,
                                        .failed = page_failed,
                                        .self = launch};
    struct loam_diag why = {0};
    enum loam_error error;

    if (launch->config.memory.commit != LOAM_COMMIT_LAZY) {
        return image_restore(&launch->snapshot.image, launch->memory, 0, diag);
    }
    error = pager_create(&config, &launch->pager, &why);
    if (error == LOAM_ERROR_NOT_PERMITTED || error == LOAM_ERROR_NOT_FOUND) {
        snprintf(launch->without_pager, sizeof launch->without_pager, "%s", why.text);
        return image_restore(&launch->snapshot.image, launch->memory, 0, diag);
    }
    return error == LOAM_OK ? LOAM_OK : loam_fail(diag, error, "%s", why.text);
}

static enum loam_error load_snapshot(struct launch *launch, struct loam_diag *diag)
{
    return state_memory_load(launch->memory, &launch->snapshot.reader, diag);
}

bool launch_settle(struct launch *launch)
{
    return launch->pager == NULL || pager_wait(launch->pager);
}

enum loam_error launch_load(struct launch *launch, struct loam_diag *diag)
{
    if (launch->config.restore != NULL) {
        return load_snapshot(launch, diag);
    }
    return launch->config.kernel != NULL ? load_kernel(launch, diag) : load_selftest(launch, diag);
}

enum loam_error launch_make_machine(struct launch *launch, struct loam_diag *diag)
{
    const struct launch_config *config = &launch->config;
    struct machine_config machine = {.memory = launch->memory,
                                     .vcpu_count = config->vcpu_count,
                                     .boot = launch->state == NULL ? &launch->boot : NULL,
                                     .state = launch->state,
                                     .without_rng = config->without_rng,
                                     .threads = config->threads,
                                     .vcpu_begins = config->vcpu_begins,
                                     .trace = config->trace,
                                     .serial_output = config->serial_output,
                                     .serial_pace = config->serial_pace,
                                     .serial_self = config->self};
    enum loam_error error = machine_create(&machine, &launch->machine, diag);

    if (error == LOAM_OK && launch->attest != NULL) {
        error = attest_attach(launch->attest, launch->machine, diag);
    } else if (error == LOAM_OK) {
        sabotage_strike(SABOTAGE_ATTACH, launch->memory, NULL);
    }
    if (error == LOAM_OK && launch->state != NULL) {
        machine_pause(launch->machine);
    }
    if (error == LOAM_OK && config->restore != NULL) {
        open_order(launch);
        error = bring_memory(launch, diag);
    }
    return error;
}

enum loam_error launch_make_going(struct launch *launch,
                                  enum loam_error (*load)(void *self, struct state_reader *reader,
                                                          struct loam_diag *diag),
                                  void *self, struct loam_diag *diag)
{
    struct state_reader *reader = launch->state;
    enum loam_error error = machine_load(launch->machine, reader, launch->config.jump, diag);

    if (error == LOAM_OK && load != NULL) {
        error = load(self, reader, diag);
    }
    if (error == LOAM_OK) {
        error = state_all_done(reader, diag);
    }
    launch->state = NULL;
    if (error == LOAM_OK) {
        machine_replay(launch->machine);
    }
    return error;
}

const char *launch_stop_text(enum machine_stop_reason reason)
{
    switch (reason) {
    case MACHINE_STOP_EXIT:
        return "the guest stopped itself";
    case MACHINE_STOP_POWER_OFF:
        return "the guest turned itself off";
    case MACHINE_STOP_PANIC:
        return "the guest has panicked";
    case MACHINE_STOP_RESET:
        return "the guest reset itself";
    case MACHINE_STOP_HALT:
        return "the guest halted, and has no interrupts to wake it";
    case MACHINE_STOP_SHUTDOWN:
        return "the guest ended in a triple fault";
    default:
        return "KVM could not go on";
    }
}

void launch_end_life(struct launch *launch)
{
    if (launch->pager != NULL) {
        pager_mute(launch->pager);
    }
    machine_destroy(launch->machine);
    launch->machine = NULL;
    pager_destroy(launch->pager);
    launch->pager = NULL;
    if (launch->order_fd >= 0) {
        close(launch->order_fd);
        launch->order_fd = -1;
    }
    attest_destroy(launch->attest);
    launch->attest = NULL;
    bus_error_forget();
    loam_memory_destroy(launch->memory);
    launch->memory = NULL;
}

void launch_release(struct launch *launch)
{
    launch_end_life(launch);
    if (launch->config.kernel != NULL) {
        file_release(&launch->kernel);
    }
    file_release(&launch->initrd);
    snapshot_close(&launch->snapshot);
    tune_release(&launch->tune);
}
