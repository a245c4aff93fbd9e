// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_registers.h"

#include "loam/error.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- The XSAVE image (Intel SDM volume 1, sections 10.5.1 and 13.4) ------------------------------------------------ */

#define XSAVE_CONTROL    0u
#define XSAVE_STATUS     2u
#define XSAVE_TAGS       4u /* a bit a physical register: 1: it holds something */
#define XSAVE_OPCODE     6u
#define XSAVE_IP         8u /* 8 bytes, and so has XSAVE_DP */
#define XSAVE_DP         16u
#define XSAVE_MXCSR      24u
#define XSAVE_STACK      32u
#define XSAVE_XMM        160u
#define XSAVE_COMPONENTS 512u
#define XSAVE_SLOT_BYTES 16u

#define COMPONENT_X87 UINT64_C(1)
#define COMPONENT_SSE UINT64_C(2)
#define COMPONENT_AVX UINT64_C(4) /* MXCSR is of both */

#define CONTROL_RESET UINT16_C(0x37f)
#define MXCSR_RESET   UINT32_C(0x1f80)

#define X87_BYTES 10u

/* Tags of FSAVE, two bits a physical register (Intel SDM volume 1, section 8.1.7). */
enum tag { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

/* --- Numbers ------------------------------------------------------------------------------------------------------ */

enum number {
    FIRST_ST = 24,
    FIRST_CONTROL = 32, /* in the order of enum control */
    FIRST_XMM = 40,
    MXCSR = 56,
    FIRST_SEGMENT = 57,
    FIRST_SYSTEM = 59,
};

enum control { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP };

/* How a register is shown, and where it lies if it is one number in struct gdb_registers; held_bytes 0: it is none. */
struct place {
    const char *name, *type;
    uint16_t offset;
    uint8_t held_bytes;
    uint8_t shown_bytes;
    bool is_fixed;
};

#define AT(member) offsetof(struct gdb_registers, member)
#define GENERAL(name)                                                                                                  \
    {                                                                                                                  \
#name, "int64", AT(regs.name), 8, 8, false                                                                     \
    }
#define SELECTOR(name)                                                                                                 \
    {                                                                                                                  \
#name, "int32", AT(sregs.name.selector), 2, 4, true                                                            \
    }
#define SYSTEM(name, member)                                                                                           \
    {                                                                                                                  \
        name, "int64", AT(sregs.member), 8, 8, false                                                                   \
    }
#define LIMIT(name, member)                                                                                            \
    {                                                                                                                  \
        name, "int32", AT(sregs.member), 2, 4, false                                                                   \
    }
#define IN_IMAGE(name, type)                                                                                           \
    {                                                                                                                  \
        name, type, 0, 0, 0, false                                                                                     \
    }
#define ST(name)      IN_IMAGE(name, "i387_ext")
#define CONTROL(name) IN_IMAGE(name, "int")
#define XMM(name)     IN_IMAGE(name, "vec128")

static const struct place places[GDB_REGISTER_COUNT] = {
    GENERAL(rax),
    GENERAL(rbx),
    GENERAL(rcx),
    GENERAL(rdx),
    GENERAL(rsi),
    GENERAL(rdi),
    {"rbp", "data_ptr", AT(regs.rbp), 8, 8, false},
    {"rsp", "data_ptr", AT(regs.rsp), 8, 8, false},
    GENERAL(r8),
    GENERAL(r9),
    GENERAL(r10),
    GENERAL(r11),
    GENERAL(r12),
    GENERAL(r13),
    GENERAL(r14),
    GENERAL(r15),
    {"rip", "code_ptr", AT(regs.rip), 8, 8, false},
    {"eflags", "i386_eflags", AT(regs.rflags), 4, 4, false},
    SELECTOR(cs),
    SELECTOR(ss),
    SELECTOR(ds),
    SELECTOR(es),
    SELECTOR(fs),
    SELECTOR(gs),
    [FIRST_ST] = ST("st0"),
    ST("st1"),
    ST("st2"),
    ST("st3"),
    ST("st4"),
    ST("st5"),
    ST("st6"),
    ST("st7"),
    [FIRST_CONTROL] = CONTROL("fctrl"),
    CONTROL("fstat"),
    CONTROL("ftag"),
    CONTROL("fiseg"),
    CONTROL("fioff"),
    CONTROL("foseg"),
    CONTROL("fooff"),
    CONTROL("fop"),
    [FIRST_XMM] = XMM("xmm0"),
    XMM("xmm1"),
    XMM("xmm2"),
    XMM("xmm3"),
    XMM("xmm4"),
    XMM("xmm5"),
    XMM("xmm6"),
    XMM("xmm7"),
    XMM("xmm8"),
    XMM("xmm9"),
    XMM("xmm10"),
    XMM("xmm11"),
    XMM("xmm12"),
    XMM("xmm13"),
    XMM("xmm14"),
    XMM("xmm15"),
    [MXCSR] = IN_IMAGE("mxcsr", "i386_mxcsr"),
    [FIRST_SEGMENT] = SYSTEM("fs_base", fs.base),
    SYSTEM("gs_base", gs.base),
    [FIRST_SYSTEM] = {"k_gs_base", "int64", AT(kernel_gs_base), 8, 8, false},
    SYSTEM("cr0", cr0),
    SYSTEM("cr2", cr2),
    SYSTEM("cr3", cr3),
    SYSTEM("cr4", cr4),
    SYSTEM("cr8", cr8),
    SYSTEM("efer", efer),
    SYSTEM("gdt_base", gdt.base),
    LIMIT("gdt_limit", gdt.limit),
    SYSTEM("idt_base", idt.base),
    LIMIT("idt_limit", idt.limit),
    SELECTOR(tr),
};

static_assert(sizeof(struct gdb_registers) <= UINT16_MAX, "offsets fit");

static bool is_control(unsigned int number)
{
    return number >= FIRST_CONTROL && number < FIRST_XMM;
}

size_t gdb_register_bytes(unsigned int number)
{
    if (number >= GDB_REGISTER_COUNT) {
        return 0;
    }
    if (places[number].held_bytes > 0) {
        return places[number].shown_bytes;
    }
    if (number < FIRST_CONTROL) {
        return X87_BYTES;
    }
    return number < FIRST_XMM || number == MXCSR ? 4 : XSAVE_SLOT_BYTES;
}

/* --- What GDB is told --------------------------------------------------------------------------------------------- */

struct flag {
    const char *name;
    unsigned int bit;
};

static const struct flag eflags[] = {
    {"CF", 0},  {"PF", 2},  {"AF", 4},  {"ZF", 6},  {"SF", 7},  {"TF", 8},   {"IF", 9},   {"DF", 10},
    {"OF", 11}, {"NT", 14}, {"RF", 16}, {"VM", 17}, {"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21},
};
static const struct flag mxcsr_flags[] = {
    {"IE", 0}, {"DE", 1}, {"ZE", 2}, {"OE", 3},  {"UE", 4},  {"PE", 5},  {"DAZ", 6},
    {"IM", 7}, {"DM", 8}, {"ZM", 9}, {"OM", 10}, {"UM", 11}, {"PM", 12}, {"FZ", 15},
};

static const char vectors[] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>\n"
                              "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\n"
                              "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>\n"
                              "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\n"
                              "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>\n"
                              "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\n"
                              "<union id=\"vec128\">\n"
                              "<field name=\"v4_float\" type=\"v4f\"/>\n"
                              "<field name=\"v2_double\" type=\"v2d\"/>\n"
                              "<field name=\"v16_int8\" type=\"v16i8\"/>\n"
                              "<field name=\"v8_int16\" type=\"v8i16\"/>\n"
                              "<field name=\"v4_int32\" type=\"v4i32\"/>\n"
                              "<field name=\"v2_int64\" type=\"v2i64\"/>\n"
                              "<field name=\"uint128\" type=\"uint128\"/>\n"
                              "</union>\n";

/* Made once. */
static struct {
    pthread_once_t once;
    char text[GDB_DESCRIPTION_BYTES_MAX];
    size_t used;
} description = {.once = PTHREAD_ONCE_INIT};

LOAM_PRINTF(1, 2)
static void tell(const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length =
        vsnprintf(description.text + description.used, sizeof description.text - description.used, format, arguments);
    va_end(arguments);
    description.used += (size_t)length;
    assert(description.used < sizeof description.text);
}

static void tell_flags(const char *id, const struct flag *flags, size_t count)
{
    tell("<flags id=\"%s\" size=\"4\">\n", id);
    for (size_t i = 0; i < count; i++) {
        tell("<field name=\"%s\" start=\"%u\" end=\"%u\"/>\n", flags[i].name, flags[i].bit, flags[i].bit);
    }
    tell("</flags>\n");
}

static void tell_registers(unsigned int from, unsigned int to)
{
    for (unsigned int i = from; i < to; i++) {
        tell("<reg name=\"%s\" bitsize=\"%zu\" type=\"%s\"%s/>\n", places[i].name, 8 * gdb_register_bytes(i),
             places[i].type, is_control(i) ? " group=\"float\"" : "");
    }
    tell("</feature>\n");
}

static void describe(void)
{
    tell("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n"
         "<architecture>i386:x86-64</architecture>\n<feature name=\"org.gnu.gdb.i386.core\">\n");
    tell_flags("i386_eflags", eflags, sizeof eflags / sizeof eflags[0]);
    tell_registers(0, FIRST_XMM);
    tell("<feature name=\"org.gnu.gdb.i386.sse\">\n%s", vectors);
    tell_flags("i386_mxcsr", mxcsr_flags, sizeof mxcsr_flags / sizeof mxcsr_flags[0]);
    tell_registers(FIRST_XMM, FIRST_SEGMENT);
    tell("<feature name=\"org.gnu.gdb.i386.segments\">\n");
    tell_registers(FIRST_SEGMENT, FIRST_SYSTEM);
    tell("<feature name=\"org.loam.system\">\n");
    tell_registers(FIRST_SYSTEM, GDB_REGISTER_COUNT);
    tell("</target>\n");
}

const char *gdb_registers_description(size_t *bytes)
{
    pthread_once(&description.once, describe);
    *bytes = description.used;
    return description.text;
}

/* --- x87 and SSE -------------------------------------------------------------------------------------------------- */

static uint64_t components(const struct gdb_registers *registers)
{
    uint64_t value;

    memcpy(&value, registers->xsave + XSAVE_COMPONENTS, sizeof value);
    return value;
}

static uint16_t half_at(const uint8_t *image, size_t offset)
{
    uint16_t value;

    memcpy(&value, image + offset, sizeof value);
    return value;
}

/*
 * What a component that is not marked holds counts for nothing: it is in its initial state (Intel SDM volume 1, section
 * 13.6). Make image say so in words.
 */
static void settle_image(struct gdb_registers *registers, uint64_t wanted)
{
    uint8_t *image = registers->xsave;
    uint64_t marked = components(registers);
    const uint16_t control = CONTROL_RESET;
    const uint32_t mxcsr = MXCSR_RESET;

    if ((wanted & ~marked & COMPONENT_X87) != 0) {
        memset(image, 0, XSAVE_MXCSR);
        memset(image + XSAVE_STACK, 0, XSAVE_XMM - XSAVE_STACK);
        memcpy(image + XSAVE_CONTROL, &control, sizeof control);
    }
    if ((wanted & ~marked & COMPONENT_SSE) != 0) {
        memset(image + XSAVE_XMM, 0, (size_t)16 * XSAVE_SLOT_BYTES);
        if ((marked & COMPONENT_AVX) == 0) {
            memcpy(image + XSAVE_MXCSR, &mxcsr, sizeof mxcsr);
        }
    }
    marked |= wanted;
    memcpy(image + XSAVE_COMPONENTS, &marked, sizeof marked);
}

/* Of ST(index), by what it holds (Intel SDM volume 1, section 8.2.2). */
static enum tag tag_of(const uint8_t *value)
{
    uint16_t exponent = half_at(value, 8) & 0x7fff;
    uint64_t fraction;

    memcpy(&fraction, value, sizeof fraction);
    if (exponent == 0) {
        return fraction == 0 ? TAG_ZERO : TAG_SPECIAL;
    }
    return exponent == 0x7fff || fraction >> 63 == 0 ? TAG_SPECIAL : TAG_VALID;
}

static uint16_t full_tags(const uint8_t *image)
{
    unsigned int top = half_at(image, XSAVE_STATUS) >> 11 & 7;
    unsigned int tags = 0;

    for (unsigned int physical = 0; physical < 8; physical++) {
        unsigned int index = (physical - top) & 7;
        enum tag tag = (image[XSAVE_TAGS] >> physical & 1) == 0
                           ? TAG_EMPTY
                           : tag_of(image + XSAVE_STACK + (size_t)index * XSAVE_SLOT_BYTES);

        tags |= (unsigned int)tag << 2 * physical;
    }
    return (uint16_t)tags;
}

static uint8_t short_tags(uint16_t tags)
{
    unsigned int made = 0;

    for (unsigned int physical = 0; physical < 8; physical++) {
        made |= ((tags >> 2 * physical & 3) != TAG_EMPTY ? 1u : 0) << physical;
    }
    return (uint8_t)made;
}

static uint32_t read_control(const uint8_t *image, enum control control)
{
    uint32_t value = 0;

    switch (control) {
    case FCTRL:
        return half_at(image, XSAVE_CONTROL);
    case FSTAT:
        return half_at(image, XSAVE_STATUS);
    case FTAG:
        return full_tags(image);
    case FISEG:
        return half_at(image, XSAVE_IP + 4);
    case FIOFF:
        memcpy(&value, image + XSAVE_IP, sizeof value);
        return value;
    case FOSEG:
        return half_at(image, XSAVE_DP + 4);
    case FOOFF:
        memcpy(&value, image + XSAVE_DP, sizeof value);
        return value;
    case FOP:
        return half_at(image, XSAVE_OPCODE);
    }
    return 0;
}

static void write_control(uint8_t *image, enum control control, const uint8_t *bytes)
{
    static const struct {
        uint8_t offset, bytes;
    } fields[] = {
        [FCTRL] = {XSAVE_CONTROL, 2}, [FSTAT] = {XSAVE_STATUS, 2}, [FTAG] = {0, 0},         [FISEG] = {XSAVE_IP + 4, 2},
        [FIOFF] = {XSAVE_IP, 4},      [FOSEG] = {XSAVE_DP + 4, 2}, [FOOFF] = {XSAVE_DP, 4}, [FOP] = {XSAVE_OPCODE, 2},
    };

    if (control == FTAG) {
        image[XSAVE_TAGS] = short_tags(half_at(bytes, 0));
    } else {
        memcpy(image + fields[control].offset, bytes, fields[control].bytes);
    }
}

/* Where a register lies whose bytes in the image are those that are shown. */
static size_t image_offset(unsigned int number)
{
    if (number == MXCSR) {
        return XSAVE_MXCSR;
    }
    return number < FIRST_CONTROL ? XSAVE_STACK + (size_t)(number - FIRST_ST) * XSAVE_SLOT_BYTES
                                  : XSAVE_XMM + (size_t)(number - FIRST_XMM) * XSAVE_SLOT_BYTES;
}

static uint64_t component_of(unsigned int number)
{
    return number < FIRST_XMM ? COMPONENT_X87 : COMPONENT_SSE;
}

/* --- One register ------------------------------------------------------------------------------------------------- */

size_t gdb_register_read(const struct gdb_registers *registers, unsigned int number,
                         uint8_t bytes[GDB_REGISTER_BYTES_MAX])
{
    const struct place *place = &places[number];
    size_t count = gdb_register_bytes(number);
    struct gdb_registers settled;

    memset(bytes, 0, count);
    if (place->held_bytes > 0) {
        memcpy(bytes, (const uint8_t *)registers + place->offset, place->held_bytes);
        return count;
    }
    settled = *registers;
    settle_image(&settled, component_of(number));
    if (is_control(number)) {
        uint32_t value = read_control(settled.xsave, (enum control)(number - FIRST_CONTROL));

        memcpy(bytes, &value, sizeof value);
    } else {
        memcpy(bytes, settled.xsave + image_offset(number), count);
    }
    return count;
}

/* What does not fit into what is held is dropped, as a processor drops it. */
static bool write_place(struct gdb_registers *registers, const struct place *place, const uint8_t *bytes)
{
    uint8_t *held = (uint8_t *)registers + place->offset;

    if (place->is_fixed) {
        return memcmp(held, bytes, place->held_bytes) == 0;
    }
    memcpy(held, bytes, place->held_bytes);
    return true;
}

bool gdb_register_write(struct gdb_registers *registers, unsigned int number, const uint8_t *bytes)
{
    uint8_t now[GDB_REGISTER_BYTES_MAX];
    size_t count;

    if (places[number].held_bytes > 0) {
        return write_place(registers, &places[number], bytes);
    }
    count = gdb_register_read(registers, number, now);
    if (memcmp(now, bytes, count) == 0) {
        return true; /* a component in its initial state stays there */
    }
    settle_image(registers, component_of(number));
    if (is_control(number)) {
        write_control(registers->xsave, (enum control)(number - FIRST_CONTROL), bytes);
    } else {
        memcpy(registers->xsave + image_offset(number), bytes, count);
    }
    return true;
}
