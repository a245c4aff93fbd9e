// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/probe.h"

#include "loam/version.h"
#include "vmm/emulator/line_table.h"
#include "vmm/kvm.h"

#include <stdio.h>
#include <string.h>

/* What has types of its own on the command line, and how they are called here. */
static const struct {
    const char *option;
    const char *after; /* the type's name is NAME-after */
} sources[] = {
    {"-object", ""}, {"-device", ""}, {"-cpu", "-x86_64-cpu"}, {"-accel", "-accel"}, {"-machine", "-machine"}};

#define SOURCE_COUNT (sizeof sources / sizeof sources[0])

/* The bus of virtio devices, which no option names. */
static const char *const other_types[] = {"virtio-mmio"};

#define OTHER_COUNT (sizeof other_types / sizeof other_types[0])

struct type_name {
    char text[96];
};

static struct type_name name_of(const struct words_type *type, size_t source)
{
    struct type_name name;

    snprintf(name.text, sizeof name.text, "%s%s", type->name, sources[source].after);
    return name;
}

static const struct argument_row *row_of(const char *option)
{
    const struct argument_table *table = line_table();

    for (uint32_t i = 0; i < table->row_count; i++) {
        if (strcmp(table->rows[i].name, option) == 0) {
            return &table->rows[i];
        }
    }
    return NULL;
}

json_t *probe_version(void)
{
    return json_pack("{s{sisisi}ss}", "qemu", "major", PROBE_VERSION_MAJOR, "minor", PROBE_VERSION_MINOR, "micro",
                     PROBE_VERSION_MICRO, "package", "loam " LOAM_VERSION);
}

json_t *probe_kvm(void)
{
    struct kvm kvm;
    int is_there = kvm_open(KVM_DEVICE, &kvm, NULL) == LOAM_OK;

    kvm_close(&kvm);
    return json_pack("{sbsb}", "enabled", is_there, "present", is_there);
}

json_t *probe_types(void)
{
    json_t *types = json_array();

    for (size_t source = 0; source < SOURCE_COUNT; source++) {
        const struct argument_row *row = row_of(sources[source].option);

        for (uint32_t i = 0; row != NULL && i < row->type_count; i++) {
            if (row->types[i].why == NULL) {
                json_array_append_new(types, json_pack("{ss}", "name", name_of(&row->types[i], source).text));
            }
        }
    }
    for (size_t i = 0; i < OTHER_COUNT; i++) {
        json_array_append_new(types, json_pack("{ss}", "name", other_types[i]));
    }
    return types;
}

static const char *const kind_names[] = {
    [WORDS_TEXT] = "string",   [WORDS_ID] = "string",   [WORDS_PATH] = "string", [WORDS_NUMBER] = "int",
    [WORDS_BYTES] = "int",     [WORDS_MIB] = "int",     [WORDS_RANGE] = "int",   [WORDS_SWITCH] = "bool",
    [WORDS_CHOICE] = "string", [WORDS_UUID] = "string", [WORDS_MAC] = "string",
};

static void add_property(json_t *properties, const char *name, const struct words_key *key)
{
    json_array_append_new(properties, json_pack("{ssss}", "name", name, "type", kind_names[key->kind]));
}

/* "-global TYPE.PROPERTY=VALUE": of a type that is known by its properties alone. */
static void add_globals(json_t *properties, const char *type)
{
    const struct argument_row *row = row_of("-global");
    size_t length = strlen(type);

    for (uint32_t i = 0; row != NULL && i < row->types[0].key_count; i++) {
        const struct words_key *key = &row->types[0].keys[i];

        if (strncmp(key->name, type, length) == 0 && key->name[length] == '.') {
            add_property(properties, key->name + length + 1, key);
        }
    }
}

json_t *probe_properties(const char *type)
{
    json_t *properties = json_array();
    bool is_known = false;

    for (size_t source = 0; source < SOURCE_COUNT; source++) {
        const struct argument_row *row = row_of(sources[source].option);

        for (uint32_t i = 0; row != NULL && i < row->type_count; i++) {
            const struct words_type *found = &row->types[i];
            bool is_it = found->why == NULL && strcmp(name_of(found, source).text, type) == 0;

            is_known = is_known || is_it;
            for (uint32_t j = 0; is_it && j < found->key_count; j++) {
                add_property(properties, found->keys[j].name, &found->keys[j]);
            }
        }
    }
    add_globals(properties, type);
    for (size_t i = 0; i < OTHER_COUNT; i++) {
        is_known = is_known || strcmp(type, other_types[i]) == 0;
    }
    if (!is_known && json_array_size(properties) == 0) {
        json_decref(properties);
        return NULL;
    }
    return properties;
}

/* No default-cpu-type: with one, libvirt writes a CPU model into the domain, and checks its features later. */
json_t *probe_machines(void)
{
    struct kvm kvm;
    json_int_t vcpu_limit = kvm_open(KVM_DEVICE, &kvm, NULL) == LOAM_OK ? (json_int_t)kvm.vcpu_limit : 1;

    kvm_close(&kvm);
    return json_pack("[{sssbsIsbsbsbss}]", "name", "microvm", "is-default", 1, "cpu-max", vcpu_limit,
                     "hotpluggable-cpus", 0, "numa-mem-supported", 1, "deprecated", 0, "default-ram-id", "microvm.ram");
}

json_t *probe_cpus(void)
{
    const struct argument_row *row = row_of("-cpu");
    json_t *cpus = json_array();

    for (uint32_t i = 0; row != NULL && i < row->type_count; i++) {
        json_array_append_new(cpus, json_pack("{sssss[]sbsbsb}", "name", row->types[i].name, "typename",
                                              name_of(&row->types[i], 2).text, "unavailable-features", "static", 0,
                                              "migration-safe", 0, "deprecated", 0));
    }
    return cpus;
}

json_t *probe_options(void)
{
    const struct argument_row *row = row_of("-sandbox");
    json_t *keys = json_array();

    for (uint32_t i = 0; row != NULL && i < row->types[0].key_count; i++) {
        const struct words_key *key = &row->types[0].keys[i];

        json_array_append_new(
            keys, json_pack("{ssss}", "name", key->name, "type", key->kind == WORDS_SWITCH ? "boolean" : "string"));
    }
    return json_pack("[{ssso}]", "option", "sandbox", "parameters", keys);
}
