// SPDX-License-Identifier: Apache-2.0
#include "vmm/trace_exit.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

/* A vCPU's mapping: struct kvm_run, and a page of data behind it. */
static union {
    struct kvm_run run;
    uint8_t bytes[2 * 4096];
} shared;

static struct trace_exit exit_told;
static char text[TRACE_LINE_BYTES_MAX];

static void set_up(void)
{
    memset(&shared, 0, sizeof shared);
    exit_told = (struct trace_exit){.nanoseconds = 123456789012, .vcpu = 3};
}

TestSuite(trace_exit, .init = set_up, .timeout = 30);

/* The line, as a reader of JSON takes it. */
static json_t *line_of(const uint8_t *data)
{
    size_t length = trace_exit_line(&exit_told, data, text);
    json_error_t error;
    json_t *line;

    cr_assert_lt(length, TRACE_LINE_BYTES_MAX);
    cr_assert_eq(memchr(text, '\n', length), text + length - 1, "one newline, at the end");
    line = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(line, "%s: %.*s", error.text, (int)length, text);
    return line;
}

static json_t *read_line(void)
{
    const uint8_t *data;

    trace_exit_read(&exit_told, &shared.run, sizeof shared, &data);
    return line_of(data);
}

/* What stands in a line after its time. */
#define CHECK_LINE(expected)                                                                                           \
    do {                                                                                                               \
        json_t *line = read_line();                                                                                    \
        char *found, *end;                                                                                             \
                                                                                                                       \
        cr_expect_eq(json_integer_value(json_object_get(line, "time")), 123456789012);                                 \
        json_object_del(line, "time");                                                                                 \
        found = json_dumps(line, JSON_COMPACT | JSON_PRESERVE_ORDER);                                                  \
        end = found + strlen("{\"vcpu\":3,\"reason\":");                                                               \
        cr_expect_str_eq(end, expected);                                                                               \
        free(found);                                                                                                   \
        json_decref(line);                                                                                             \
    } while (false)

static void set_io(uint8_t direction, uint16_t port, uint8_t size, uint32_t count, const void *data)
{
    shared.run.exit_reason = KVM_EXIT_IO;
    shared.run.io.direction = direction;
    shared.run.io.port = port;
    shared.run.io.size = size;
    shared.run.io.count = count;
    shared.run.io.data_offset = 4096;
    memcpy(shared.bytes + 4096, data, (size_t)size * count);
}

Test(trace_exit, tells_an_access_to_a_port)
{
    set_io(KVM_EXIT_IO_OUT, 0x3f8, 1, 1, "L");
    exit_told.device = "serial";
    CHECK_LINE("\"KVM_EXIT_IO\",\"port\":\"0x3f8\",\"size\":1,\"direction\":\"write\",\"value\":\"0x4c\","
               "\"device\":\"serial\"}");
    exit_told.device = NULL;
    set_io(KVM_EXIT_IO_IN, 0xcf8, 4, 1, "\xff\xff\xff\x80");
    CHECK_LINE("\"KVM_EXIT_IO\",\"port\":\"0xcf8\",\"size\":4,\"direction\":\"read\",\"value\":\"0x80ffffff\","
               "\"device\":null}");
}

Test(trace_exit, tells_every_element_of_a_string)
{
    set_io(KVM_EXIT_IO_OUT, 0x1f0, 2, 3, "\x01\x00\xff\xff\x34\x12");
    CHECK_LINE("\"KVM_EXIT_IO\",\"port\":\"0x1f0\",\"size\":2,\"direction\":\"write\",\"count\":3,"
               "\"values\":[\"0x1\",\"0xffff\",\"0x1234\"],\"device\":null}");
}

Test(trace_exit, has_room_for_the_longest_string)
{
    static uint8_t data[TRACE_DATA_BYTES_MAX];
    json_t *line;

    memset(data, 0xff, sizeof data);
    set_io(KVM_EXIT_IO_OUT, 0xffff, 1, sizeof data, data);
    exit_told.nanoseconds = INT64_MAX;
    exit_told.vcpu = UINT32_MAX;
    exit_told.device = "a device whose name is longer than that of any that there are";
    line = read_line();
    cr_expect_eq(json_array_size(json_object_get(line, "values")), sizeof data);
    json_decref(line);
}

/* KVM gives no such sizes; nothing is read that is not there. */
Test(trace_exit, tells_no_values_that_lie_nowhere)
{
    set_io(KVM_EXIT_IO_OUT, 0x80, 4, 1024, memset(text, 7, 4096));
    shared.run.io.count = 1025;
    CHECK_LINE("\"KVM_EXIT_IO\",\"port\":\"0x80\",\"size\":4,\"direction\":\"write\",\"device\":null}");
    shared.run.io.count = 1;
    shared.run.io.data_offset = sizeof shared - 3;
    CHECK_LINE("\"KVM_EXIT_IO\",\"port\":\"0x80\",\"size\":4,\"direction\":\"write\",\"device\":null}");
}

Test(trace_exit, tells_an_access_to_device_memory)
{
    shared.run.exit_reason = KVM_EXIT_MMIO;
    shared.run.mmio.phys_addr = 0xfffffffff8;
    shared.run.mmio.len = 8;
    shared.run.mmio.is_write = 1;
    memcpy(shared.run.mmio.data, "\xef\xcd\xab\x89\x67\x45\x23\xf1", 8);
    exit_told.device = "virtio-rng";
    CHECK_LINE("\"KVM_EXIT_MMIO\",\"address\":\"0xfffffffff8\",\"size\":8,\"direction\":\"write\","
               "\"value\":\"0xf123456789abcdef\",\"device\":\"virtio-rng\"}");
    shared.run.mmio.len = 3;
    shared.run.mmio.is_write = 0;
    CHECK_LINE("\"KVM_EXIT_MMIO\",\"address\":\"0xfffffffff8\",\"size\":3,\"direction\":\"read\","
               "\"value\":\"0xabcdef\",\"device\":\"virtio-rng\"}");
}

static void set_emulation_failure(const void *code, uint8_t bytes)
{
    shared.run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    shared.run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    shared.run.emulation_failure.ndata = 4;
    shared.run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    shared.run.emulation_failure.insn_size = bytes;
    memcpy(shared.run.emulation_failure.insn_bytes, code, bytes);
    exit_told.rip = 0xffffffff81000000;
}

Test(trace_exit, tells_what_an_assist_did)
{
    set_emulation_failure("\x9b\x90", 2);
    exit_told.assist = TRACE_ASSIST_DONE;
    CHECK_LINE("\"KVM_EXIT_INTERNAL_ERROR\",\"suberror\":1,\"rip\":\"0xffffffff81000000\",\"instruction\":\"9b90\","
               "\"assist\":\"done\"}");
    exit_told.assist = TRACE_ASSIST_RAISED;
    exit_told.vector = 3;
    CHECK_LINE("\"KVM_EXIT_INTERNAL_ERROR\",\"suberror\":1,\"rip\":\"0xffffffff81000000\",\"instruction\":\"9b90\","
               "\"assist\":\"raised\",\"vector\":3}");
    exit_told.assist = TRACE_ASSIST_REFUSED;
    shared.run.emulation_failure.insn_size = 200;
    CHECK_LINE("\"KVM_EXIT_INTERNAL_ERROR\",\"suberror\":1,\"rip\":\"0xffffffff81000000\",\"assist\":\"refused\"}");
}

Test(trace_exit, tells_what_else_there_is_to_a_reason)
{
    shared.run.exit_reason = KVM_EXIT_DEBUG;
    shared.run.debug.arch.pc = 0x1000;
    CHECK_LINE("\"KVM_EXIT_DEBUG\",\"rip\":\"0x1000\"}");
    memset(&shared, 0, sizeof shared);
    shared.run.exit_reason = KVM_EXIT_FAIL_ENTRY;
    shared.run.fail_entry.hardware_entry_failure_reason = 0x80000021;
    CHECK_LINE("\"KVM_EXIT_FAIL_ENTRY\",\"hardware_reason\":\"0x80000021\"}");
    memset(&shared, 0, sizeof shared);
    shared.run.exit_reason = KVM_EXIT_SYSTEM_EVENT;
    shared.run.system_event.type = KVM_SYSTEM_EVENT_RESET;
    CHECK_LINE("\"KVM_EXIT_SYSTEM_EVENT\",\"event\":2}");
    shared.run.exit_reason = KVM_EXIT_HLT;
    CHECK_LINE("\"KVM_EXIT_HLT\"}");
    shared.run.exit_reason = 12345;
    CHECK_LINE("\"KVM_EXIT_?\"}");
}

Test(trace_exit, tells_why_kvm_run_failed)
{
    json_t *line;

    exit_told.error = EFAULT;
    line = line_of(NULL);
    cr_expect_str_eq(json_string_value(json_object_get(line, "reason")), "KVM_RUN");
    cr_expect_str_eq(json_string_value(json_object_get(line, "error")), "EFAULT");
    json_decref(line);
}
