// SPDX-License-Identifier: Apache-2.0
/* No text here is anybody's but this program's own: names of reasons, devices and errors need no escapes. */
#include "vmm/trace_exit.h"

#include "loam/types.h"
#include "vmm/decode.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The longest line is that of a string instruction on bytes, of each of which this is what is said. */
#define VALUE_TEXT_BYTES sizeof "\"0xff\","

static_assert(TRACE_DATA_BYTES_MAX * (VALUE_TEXT_BYTES - 1) + 1024 < TRACE_LINE_BYTES_MAX, "each line has room");

/* used < TRACE_LINE_BYTES_MAX */
struct line {
    char *text;
    size_t used;
};

/* --- From KVM ----------------------------------------------------------------------------------------------------- */

static void read_io(struct trace_exit *exit, const struct kvm_run *run, size_t run_bytes, const uint8_t **data)
{
    uint64_t offset = run->io.data_offset;
    uint64_t bytes = (uint64_t)run->io.size * run->io.count;

    exit->place = run->io.port;
    exit->size = run->io.size;
    exit->count = run->io.count;
    exit->is_write = run->io.direction == KVM_EXIT_IO_OUT;
    if (bytes <= TRACE_DATA_BYTES_MAX && loam_fits(offset, bytes, run_bytes)) {
        exit->data_bytes = (uint32_t)bytes;
        *data = (const uint8_t *)run + offset;
    }
}

static void read_mmio(struct trace_exit *exit, const struct kvm_run *run, const uint8_t **data)
{
    exit->place = run->mmio.phys_addr;
    exit->size = run->mmio.len;
    exit->count = 1;
    exit->is_write = run->mmio.is_write != 0;
    if (run->mmio.len <= sizeof run->mmio.data) {
        exit->data_bytes = run->mmio.len;
        *data = run->mmio.data;
    }
}

static void read_internal_error(struct trace_exit *exit, const struct kvm_run *run, const uint8_t **data)
{
    exit->place = run->internal.suberror;
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0 &&
        run->emulation_failure.insn_size <= sizeof run->emulation_failure.insn_bytes) {
        exit->data_bytes = run->emulation_failure.insn_size;
        *data = run->emulation_failure.insn_bytes;
    }
}

void trace_exit_read(struct trace_exit *exit, const struct kvm_run *run, size_t run_bytes, const uint8_t **data)
{
    *data = (const uint8_t *)run;
    exit->reason = run->exit_reason;
    exit->place = 0;
    exit->size = exit->count = exit->data_bytes = 0;
    exit->is_write = false;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        read_io(exit, run, run_bytes, data);
        break;
    case KVM_EXIT_MMIO:
        read_mmio(exit, run, data);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        read_internal_error(exit, run, data);
        break;
    case KVM_EXIT_DEBUG:
        exit->rip = run->debug.arch.pc;
        break;
    case KVM_EXIT_FAIL_ENTRY:
        exit->place = run->fail_entry.hardware_entry_failure_reason;
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        exit->place = run->system_event.type;
        break;
    default:
        break;
    }
}

/* --- To a line ---------------------------------------------------------------------------------------------------- */

LOAM_PRINTF(2, 3)
static void add(struct line *line, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line->text + line->used, TRACE_LINE_BYTES_MAX - line->used, format, arguments);
    va_end(arguments);
    if (length > 0) {
        line->used += (size_t)length;
    }
}

/* Little-endian, 8 bytes at most. */
static uint64_t value_at(const uint8_t *data, uint32_t bytes)
{
    uint64_t value = 0;

    memcpy(&value, data, bytes <= sizeof value ? bytes : sizeof value);
    return value;
}

static void add_values(struct line *line, const struct trace_exit *exit, const uint8_t *data)
{
    if (exit->count == 1) {
        add(line, ",\"value\":\"0x%" PRIx64 "\"", value_at(data, exit->size));
        return;
    }
    add(line, ",\"count\":%" PRIu32 ",\"values\":[", exit->count);
    for (uint32_t i = 0; i < exit->count; i++) {
        add(line, "%s\"0x%" PRIx64 "\"", i > 0 ? "," : "", value_at(data + (size_t)i * exit->size, exit->size));
    }
    add(line, "]");
}

static void add_access(struct line *line, const struct trace_exit *exit, const uint8_t *data)
{
    add(line, ",\"%s\":\"0x%" PRIx64 "\",\"size\":%" PRIu32 ",\"direction\":\"%s\"",
        exit->reason == KVM_EXIT_IO ? "port" : "address", exit->place, exit->size, exit->is_write ? "write" : "read");
    if (exit->data_bytes > 0 && exit->data_bytes == (uint64_t)exit->size * exit->count) {
        add_values(line, exit, data);
    }
    if (exit->device != NULL) {
        add(line, ",\"device\":\"%s\"", exit->device);
    } else {
        add(line, ",\"device\":null");
    }
}

static void add_assist(struct line *line, const struct trace_exit *exit)
{
    switch ((enum trace_assist)exit->assist) {
    case TRACE_ASSIST_DONE:
        add(line, ",\"assist\":\"done\"");
        break;
    case TRACE_ASSIST_RAISED:
        add(line, ",\"assist\":\"raised\",\"vector\":%u", exit->vector);
        break;
    case TRACE_ASSIST_REFUSED:
        add(line, ",\"assist\":\"refused\"");
        break;
    case TRACE_ASSIST_NONE:
        break;
    }
}

static void add_internal_error(struct line *line, const struct trace_exit *exit, const uint8_t *data)
{
    add(line, ",\"suberror\":%" PRIu64 ",\"rip\":\"0x%" PRIx64 "\"", exit->place, exit->rip);
    if (exit->data_bytes > 0) {
        add(line, ",\"instruction\":\"");
        for (uint32_t i = 0; i < exit->data_bytes; i++) {
            add(line, "%02x", data[i]);
        }
        add(line, "\"");
    }
    add_assist(line, exit);
}

static void add_details(struct line *line, const struct trace_exit *exit, const uint8_t *data)
{
    switch (exit->reason) {
    case KVM_EXIT_IO:
    case KVM_EXIT_MMIO:
        add_access(line, exit, data);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        add_internal_error(line, exit, data);
        break;
    case KVM_EXIT_DEBUG:
        add(line, ",\"rip\":\"0x%" PRIx64 "\"", exit->rip);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        add(line, ",\"hardware_reason\":\"0x%" PRIx64 "\"", exit->place);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        add(line, ",\"event\":%" PRIu64, exit->place);
        break;
    default:
        break;
    }
}

size_t trace_exit_line(const struct trace_exit *exit, const uint8_t *data, char line[TRACE_LINE_BYTES_MAX])
{
    struct line made = {.text = line};

    add(&made, "{\"time\":%" PRIu64 ",\"vcpu\":%" PRIu32 ",\"reason\":\"", exit->nanoseconds, exit->vcpu);
    if (exit->error != 0) {
        const char *name = strerrorname_np(exit->error);

        add(&made, "KVM_RUN\",\"error\":\"%s\"", name != NULL ? name : "?");
    } else {
        add(&made, "%s\"", decode_exit_name(exit->reason));
        add_details(&made, exit, data);
    }
    add(&made, "}\n");
    return made.used;
}
