// SPDX-License-Identifier: Apache-2.0
/*
 * Register numbers, bits and priorities are those of the PC16550D data sheet, table II and section 8.
 * Everything but the call of the output function happens under the lock.
 */
#include "vmm/serial.h"

#include <assert.h>

#define UNHEARD_MAX 16u

static_assert((SERIAL_LINE_BYTES & (SERIAL_LINE_BYTES - 1)) == 0, "an index wraps by a mask");

/* Registers: what a read, a write, and either of them with LCR.DLAB set, reaches. */
enum {
    REGISTER_DATA = 0,             /* RBR, THR; DLL */
    REGISTER_INTERRUPT_ENABLE = 1, /* IER; DLM */
    REGISTER_IDENTIFICATION = 2,   /* IIR; written: FCR */
    REGISTER_LINE_CONTROL = 3,
    REGISTER_MODEM_CONTROL = 4,
    REGISTER_LINE_STATUS = 5,
    REGISTER_MODEM_STATUS = 6,
    REGISTER_SCRATCH = 7
};

enum {
    IER_RECEIVED = 0x01,
    IER_TRANSMIT_EMPTY = 0x02,
    IER_LINE_STATUS = 0x04,
    IER_MODEM_STATUS = 0x08,
    IER_MASK = 0x0f
};

/* IIR, in descending order of priority. */
enum {
    IIR_LINE_STATUS = 0x06,
    IIR_RECEIVED = 0x04,
    IIR_TIMEOUT = 0x0c,
    IIR_TRANSMIT_EMPTY = 0x02,
    IIR_MODEM_STATUS = 0x00,
    IIR_NONE = 0x01,
    IIR_FIFO = 0xc0
};

enum { FCR_ENABLE = 0x01, FCR_CLEAR_RECEIVER = 0x02, FCR_TRIGGER_SHIFT = 6 };

enum { LCR_DIVISOR = 0x80 };

enum { MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_MASK = 0x1f };

enum { LSR_DATA_READY = 0x01, LSR_OVERRUN = 0x02, LSR_TRANSMIT_EMPTY = 0x60 };

enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_DELTA_RI = 0x04 };

static uint32_t receive_capacity(const struct serial *serial)
{
    return serial->fifo_enabled ? SERIAL_FIFO_BYTES : 1;
}

/* Bytes in the receiver at which its interrupt is due, rather than that of the timeout. */
static uint32_t receive_trigger(const struct serial *serial)
{
    static const uint8_t triggers[] = {1, 4, 8, 14};

    return serial->fifo_enabled ? triggers[serial->fifo_control >> FCR_TRIGGER_SHIFT] : 1;
}

/* Bytes of the line that the receiver has, or has as soon as others are read: none while the chip is looped back. */
static uint32_t line_shown(const struct serial *serial)
{
    return (serial->modem_control & MCR_LOOP) != 0 ? 0 : serial->line_count;
}

static uint32_t received_count(const struct serial *serial)
{
    return serial->looped_count + line_shown(serial);
}

/* IIR without its FIFO bits: the pending and enabled interrupt of the highest priority. */
static uint8_t identify(const struct serial *serial)
{
    const uint8_t enabled = serial->interrupt_enable;

    if ((enabled & IER_LINE_STATUS) != 0 && serial->line_errors != 0) {
        return IIR_LINE_STATUS;
    }
    if ((enabled & IER_RECEIVED) != 0 && received_count(serial) >= receive_trigger(serial)) {
        return IIR_RECEIVED;
    }
    if ((enabled & IER_RECEIVED) != 0 && received_count(serial) > 0) {
        return IIR_TIMEOUT;
    }
    if ((enabled & IER_TRANSMIT_EMPTY) != 0 && serial->transmit_pending) {
        return IIR_TRANSMIT_EMPTY;
    }
    if ((enabled & IER_MODEM_STATUS) != 0 && serial->modem_delta != 0) {
        return IIR_MODEM_STATUS;
    }
    return IIR_NONE;
}

/*
 * A PC connects the interrupt pin through a gate that OUT2 opens; looped back, the chip holds OUT2 inactive.
 */
static void update_irq(struct serial *serial)
{
    const bool open = (serial->modem_control & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    const bool level = open && identify(serial) != IIR_NONE;

    if (level != serial->irq_level) {
        serial->irq_level = level;
        irq_set(&serial->irq, level);
    }
}

/* What waits on the line arrives after it. */
static void clear_receiver(struct serial *serial)
{
    serial->looped_first = 0;
    serial->looped_count = 0;
}

/* A byte comes back: with the FIFO full, it is lost; without a FIFO, it takes the place of the one before. */
static void loop_back(struct serial *serial, uint8_t byte)
{
    if (serial->looped_count == receive_capacity(serial)) {
        serial->line_errors |= LSR_OVERRUN;
        if (!serial->fifo_enabled) {
            serial->looped[serial->looped_first] = byte;
        }
        return;
    }
    serial->looped[(serial->looped_first + serial->looped_count) % SERIAL_FIFO_BYTES] = byte;
    serial->looped_count++;
}

static uint8_t take_looped(struct serial *serial)
{
    const uint8_t byte = serial->looped[serial->looped_first];

    serial->looped_first = (serial->looped_first + 1) % SERIAL_FIFO_BYTES;
    serial->looped_count--;
    return byte;
}

static uint8_t take_from_line(struct serial *serial)
{
    const uint8_t byte = serial->line[serial->line_first];

    serial->line_first = (serial->line_first + 1) % SERIAL_LINE_BYTES;
    serial->line_count--;
    return byte;
}

/*
 * Whether a look at the receiver is one of a guest that listens; looks_so: what it did just before says so. Drivers that
 * set the chip up look a few times without.
 */
static bool listens(struct serial *serial, bool looks_so)
{
    if (looks_so || (serial->interrupt_enable & IER_RECEIVED) != 0 || serial->unheard_count >= UNHEARD_MAX) {
        serial->unheard_count = 0;
        return true;
    }
    serial->unheard_count++;
    return false;
}

static uint8_t read_received(struct serial *serial)
{
    const bool is_heard = listens(serial, serial->intent == SERIAL_READS);

    serial->intent = SERIAL_READS;
    if (serial->looped_count > 0) {
        return take_looped(serial);
    }
    return is_heard && line_shown(serial) > 0 ? take_from_line(serial) : 0;
}

/* MSR bits 4-7: a terminal that is there and ready; looped back, MCR's own outputs: RTS, DTR, OUT1, OUT2. */
static uint8_t modem_lines(const struct serial *serial)
{
    const uint32_t control = serial->modem_control;

    if ((control & MCR_LOOP) == 0) {
        return MSR_CTS | MSR_DSR | MSR_DCD;
    }
    return (uint8_t)((control & 0x02) << 3 | (control & 0x01) << 5 | (control & 0x0c) << 4);
}

static void write_modem_control(struct serial *serial, uint8_t value)
{
    const uint8_t before = modem_lines(serial);
    uint8_t after, changed;

    serial->modem_control = value & MCR_MASK;
    after = modem_lines(serial);
    changed = (before ^ after) >> 4;
    if ((after & MSR_RI) != 0) {
        changed &= (uint8_t)~MSR_DELTA_RI; /* of the ring indicator, only the trailing edge counts */
    }
    serial->modem_delta |= changed;
}

static void write_fifo_control(struct serial *serial, uint8_t value)
{
    const bool enabled = (value & FCR_ENABLE) != 0;

    if (enabled != serial->fifo_enabled || (enabled && (value & FCR_CLEAR_RECEIVER) != 0)) {
        clear_receiver(serial);
    }
    serial->fifo_enabled = enabled;
    serial->fifo_control = value;
}

/* Drivers rely on an interrupt at the moment when they enable that of an empty transmitter. */
static void write_interrupt_enable(struct serial *serial, uint8_t value)
{
    const uint8_t raised = value & (uint8_t)~serial->interrupt_enable;

    if ((raised & IER_TRANSMIT_EMPTY) != 0) {
        serial->transmit_pending = true;
    }
    if ((raised & IER_RECEIVED) != 0) {
        serial->unheard_count = 0;
    }
    serial->interrupt_enable = value & IER_MASK;
}

/* Returns whether the byte goes out on the line. */
static bool transmit(struct serial *serial, uint8_t byte)
{
    const bool looped = (serial->modem_control & MCR_LOOP) != 0;

    if (looped) {
        loop_back(serial, byte);
    }
    serial->transmit_pending = true;
    return !looped;
}

static uint8_t read_identification(struct serial *serial)
{
    const uint8_t cause = identify(serial);

    if (cause == IIR_TRANSMIT_EMPTY) {
        serial->transmit_pending = false;
    }
    return cause | (serial->fifo_enabled ? IIR_FIFO : 0);
}

static uint8_t read_line_status(struct serial *serial)
{
    const uint8_t errors = serial->line_errors;
    const bool is_heard = listens(serial, serial->intent != SERIAL_SETS_UP);
    const bool ready = is_heard ? received_count(serial) > 0 : serial->looped_count > 0;

    serial->line_errors = 0;
    serial->intent = ready ? SERIAL_READS : SERIAL_WORKS;
    return errors | LSR_TRANSMIT_EMPTY | (ready ? LSR_DATA_READY : 0);
}

static uint8_t read_modem_status(struct serial *serial)
{
    const uint8_t delta = serial->modem_delta;

    serial->modem_delta = 0;
    return modem_lines(serial) | delta;
}

static uint8_t read_register(struct serial *serial, uint64_t number)
{
    const bool divisor = (serial->line_control & LCR_DIVISOR) != 0;

    switch (number) {
    case REGISTER_DATA:
        return divisor ? serial->divisor[0] : read_received(serial);
    case REGISTER_INTERRUPT_ENABLE:
        return divisor ? serial->divisor[1] : serial->interrupt_enable;
    case REGISTER_IDENTIFICATION:
        return read_identification(serial);
    case REGISTER_LINE_CONTROL:
        return serial->line_control;
    case REGISTER_MODEM_CONTROL:
        return serial->modem_control;
    case REGISTER_LINE_STATUS:
        return read_line_status(serial);
    case REGISTER_MODEM_STATUS:
        return read_modem_status(serial);
    case REGISTER_SCRATCH:
        return serial->scratch;
    default:
        return 0xff;
    }
}

/* Returns whether value goes out on the line. */
static bool write_register(struct serial *serial, uint64_t number, uint8_t value)
{
    const bool divisor = (serial->line_control & LCR_DIVISOR) != 0;

    switch (number) {
    case REGISTER_DATA:
        if (!divisor) {
            return transmit(serial, value);
        }
        serial->divisor[0] = value;
        break;
    case REGISTER_INTERRUPT_ENABLE:
        if (divisor) {
            serial->divisor[1] = value;
        } else {
            write_interrupt_enable(serial, value);
        }
        break;
    case REGISTER_IDENTIFICATION:
        write_fifo_control(serial, value);
        break;
    case REGISTER_LINE_CONTROL:
        serial->line_control = value;
        break;
    case REGISTER_MODEM_CONTROL:
        write_modem_control(serial, value);
        break;
    case REGISTER_SCRATCH:
        serial->scratch = value;
        break;
    default: /* LSR and MSR: writing them is for the factory's tests */
        break;
    }
    return false;
}

/* LSR and RBR set it themselves. A word to the line, or a look at something else, is work. */
static enum serial_intent intent_of(const struct serial *serial, uint64_t number, bool is_write)
{
    const bool divisor = (serial->line_control & LCR_DIVISOR) != 0;

    if (!is_write) {
        return number == REGISTER_LINE_STATUS || (number == REGISTER_DATA && !divisor) ? serial->intent : SERIAL_WORKS;
    }
    return (number == REGISTER_DATA && !divisor) || number >= REGISTER_LINE_STATUS ? SERIAL_WORKS : SERIAL_SETS_UP;
}

static uint8_t access_read(struct serial *serial, uint64_t number)
{
    uint8_t value;

    pthread_mutex_lock(&serial->lock);
    serial->intent = intent_of(serial, number, false);
    value = read_register(serial, number);
    update_irq(serial);
    pthread_mutex_unlock(&serial->lock);
    return value;
}

static void access_write(struct serial *serial, uint64_t number, uint8_t value)
{
    bool goes_out;

    pthread_mutex_lock(&serial->lock);
    serial->intent = intent_of(serial, number, true);
    goes_out = write_register(serial, number, value);
    update_irq(serial);
    pthread_mutex_unlock(&serial->lock);
    if (goes_out && serial->output != NULL) {
        serial->output(serial->self, &value, 1);
    }
}

void serial_init(struct serial *serial, struct irq_line irq, serial_output_fn *output, void *self)
{
    *serial = (struct serial){.irq = irq, .output = output, .self = self};
    pthread_mutex_init(&serial->lock, NULL);
}

void serial_destroy(struct serial *serial)
{
    pthread_mutex_destroy(&serial->lock);
}

void serial_access(void *serial, struct bus_access *access)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < access->bytes && i < 8; i++) {
        if (access->is_write) {
            access_write(serial, access->offset + i, (uint8_t)(access->value >> (8 * i)));
        } else {
            value |= (uint64_t)access_read(serial, access->offset + i) << (8 * i);
        }
    }
    if (!access->is_write) {
        access->value = value;
    }
}

size_t serial_receive(struct serial *serial, const uint8_t *bytes, size_t count)
{
    size_t taken = 0;

    pthread_mutex_lock(&serial->lock);
    while (taken < count && serial->line_count < SERIAL_LINE_BYTES) {
        serial->line[(serial->line_first + serial->line_count) % SERIAL_LINE_BYTES] = bytes[taken++];
        serial->line_count++;
    }
    update_irq(serial);
    pthread_mutex_unlock(&serial->lock);
    return taken;
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

static const struct state_field fields[] = {
    STATE_BOOL(struct serial, irq_level),
    STATE_BOOL(struct serial, fifo_enabled),
    STATE_BOOL(struct serial, transmit_pending),
    STATE_ANY(struct serial, interrupt_enable),
    STATE_ANY(struct serial, fifo_control),
    STATE_ANY(struct serial, line_control),
    STATE_ANY(struct serial, modem_control),
    STATE_ANY(struct serial, modem_delta),
    STATE_ANY(struct serial, line_errors),
    STATE_ANY(struct serial, scratch),
    STATE_ARRAY(struct serial, divisor, UINT64_MAX),
    STATE_FIELD(struct serial, intent, SERIAL_READS),
    STATE_FIELD(struct serial, unheard_count, UNHEARD_MAX),
    STATE_ARRAY(struct serial, looped, UINT64_MAX),
    STATE_FIELD(struct serial, looped_first, SERIAL_FIFO_BYTES - 1),
    STATE_FIELD(struct serial, looped_count, SERIAL_FIFO_BYTES),
    STATE_FIELD(struct serial, line_count, SERIAL_LINE_BYTES),
};

/* What waits on the line lies behind its fields, from its first byte on. */
void serial_save(struct serial *serial, struct state_writer *writer)
{
    pthread_mutex_lock(&serial->lock);
    state_begin(writer, STATE_SERIAL, 0);
    state_put_fields(writer, STATE_FIELDS(fields), serial);
    for (uint32_t i = 0; i < serial->line_count; i++) {
        state_put(writer, &serial->line[(serial->line_first + i) % SERIAL_LINE_BYTES], 1);
    }
    state_end(writer);
    pthread_mutex_unlock(&serial->lock);
}

enum loam_error serial_load(struct serial *serial, struct state_reader *reader, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_SERIAL, 0, &record, diag);

    if (error == LOAM_OK) {
        error = state_take_fields(record, STATE_FIELDS(fields), serial, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    if (serial->looped_count > receive_capacity(serial)) {
        return state_refuse(record, diag, "looped_count is %u, at most %u", serial->looped_count,
                            receive_capacity(serial));
    }
    serial->line_first = 0;
    state_take(record, serial->line, serial->line_count);
    return state_done(record, diag);
}
