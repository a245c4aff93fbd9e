// SPDX-License-Identifier: Apache-2.0
/*
 * Run when Loam is built: the table as filters of the kernel's, by libseccomp, written as C to standard output.
 *
 *     sandbox_compile [--sanitizer]
 */
#include "vmm/sandbox_table.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned int who;
} filters[] = {{"vcpu", SANDBOX_VCPU},         {"rest", SANDBOX_REST},     {"anew", SANDBOX_ANEW},
               {"debugger", SANDBOX_DEBUGGER}, {"domain", SANDBOX_DOMAIN}, {"network", SANDBOX_NETWORK},
               {"control", SANDBOX_CONTROL}};

static void fail(const char *what, int error)
{
    fprintf(stderr, "sandbox_compile: %s: %s\n", what, strerror(error < 0 ? -error : error));
    exit(1);
}

static void add_rule(scmp_filter_ctx context, const struct sandbox_rule *rule)
{
    const struct sandbox_argument *argument = &rule->argument;
    int number = seccomp_syscall_resolve_name(rule->call), error;
    struct scmp_arg_cmp condition = SCMP_CMP64(argument->index, SCMP_CMP_MASKED_EQ, argument->mask, argument->value);

    if (number == __NR_SCMP_ERROR) {
        fail(rule->call, ENOSYS);
    }
    error = seccomp_rule_add_array(context, SCMP_ACT_ALLOW, number, argument->mask != 0 ? 1 : 0, &condition);
    if (error != 0 && error != -EEXIST) {
        fail(rule->call, error);
    }
}

/* clone3(2) keeps its flags where no filter sees them: the C library falls back to clone(2). */
static scmp_filter_ctx compile(unsigned int who)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int error;

    if (context == NULL) {
        fail("seccomp_init", ENOMEM);
    }
    error = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: each call of a guest's passes here */
    if (error == 0) {
        error = seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    }
    if (error != 0) {
        fail("clone3", error);
    }
    for (size_t i = 0; i < sandbox_rule_count; i++) {
        if ((sandbox_rules[i].who & who) != 0) {
            add_rule(context, &sandbox_rules[i]);
        }
    }
    return context;
}

static void print_filter(const char *name, scmp_filter_ctx context)
{
    int fd = memfd_create("filter", 0);
    struct sock_filter instruction;
    int error = fd < 0 ? errno : -seccomp_export_bpf(context, fd);

    if (error != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        fail(name, error);
    }
    printf("\nstatic const struct sock_filter %s[] = {\n", name);
    while (read(fd, &instruction, sizeof instruction) == sizeof instruction) {
        printf("    {0x%x, %u, %u, 0x%x},\n", instruction.code, instruction.jt, instruction.jf, instruction.k);
    }
    printf("};\nconst struct sandbox_filter sandbox_filter_%s = {%s, sizeof %s / sizeof %s[0]};\n", name, name, name,
           name);
    close(fd);
}

int main(int argc, char *argv[])
{
    bool has_sanitizer = argc > 1 && strcmp(argv[1], "--sanitizer") == 0;

    puts("#include \"vmm/sandbox_filters.h\"");
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        scmp_filter_ctx context = compile(filters[i].who | (has_sanitizer ? SANDBOX_SANITIZER : 0));

        print_filter(filters[i].name, context);
        seccomp_release(context);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
