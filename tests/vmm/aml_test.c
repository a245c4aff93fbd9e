// SPDX-License-Identifier: Apache-2.0
/* Bytes as ACPI 6.5, sections 20.2 and 6.4, has them. That a whole table is right, acpi_test asks iasl. */
#include "vmm/aml.h"

#include <criterion/criterion.h>
#include <string.h>

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__})
#define EXPECT(...)                                                                                                    \
    do {                                                                                                               \
        cr_expect_eq(table.used_bytes, sizeof BYTES(__VA_ARGS__));                                                     \
        cr_expect_arr_eq(bytes, BYTES(__VA_ARGS__), sizeof BYTES(__VA_ARGS__));                                        \
        table_init(&table, bytes, sizeof bytes);                                                                       \
    } while (0)

static struct table table;
static uint8_t bytes[UINT32_C(1) << 21];

static void set_up(void)
{
    table_init(&table, bytes, sizeof bytes);
}

TestSuite(aml, .init = set_up, .timeout = 60);

Test(aml, has_the_shortest_form_of_an_integer)
{
    aml_integer(&table, 0);
    aml_integer(&table, 1);
    aml_integer(&table, 2);
    aml_integer(&table, 0xff);
    EXPECT(0x00, 0x01, 0x0a, 0x02, 0x0a, 0xff);
    aml_integer(&table, 0x100);
    aml_integer(&table, 0xffff);
    EXPECT(0x0b, 0x00, 0x01, 0x0b, 0xff, 0xff);
    aml_integer(&table, 0x10000);
    aml_integer(&table, UINT32_MAX);
    EXPECT(0x0c, 0x00, 0x00, 0x01, 0x00, 0x0c, 0xff, 0xff, 0xff, 0xff);
    aml_integer(&table, UINT64_C(0x100000000));
    EXPECT(0x0e, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00);
}

Test(aml, has_names_of_four_characters)
{
    aml_name(&table, "_HID");
    aml_name(&table, "RTC");
    EXPECT(0x08, '_', 'H', 'I', 'D', 0x08, 'R', 'T', 'C', '_');
}

Test(aml, has_ids_and_strings)
{
    aml_eisa_id(&table, "PNP0501");
    EXPECT(0x0c, 0x41, 0xd0, 0x05, 0x01);
    aml_eisa_id(&table, "PNP0C0F");
    EXPECT(0x0c, 0x41, 0xd0, 0x0c, 0x0f);
    aml_string(&table, "LNRO");
    EXPECT(0x0d, 'L', 'N', 'R', 'O', 0);
}

Test(aml, has_objects_that_know_their_length)
{
    size_t scope = aml_open_scope(&table, "_SB"), device = aml_open_device(&table, "COM1"), package;

    aml_close(&table, device);
    package = aml_open_package(&table, 2);
    aml_integer(&table, 5);
    aml_integer(&table, 0);
    aml_close(&table, package);
    aml_close(&table, scope);
    EXPECT(0x10, 18, '_', 'S', 'B', '_', 0x5b, 0x82, 5, 'C', 'O', 'M', '1', 0x12, 5, 2, 0x0a, 5, 0);
}

/* Each length at which the form changes, and one to each side: what it says is what there is. */
Test(aml, has_lengths_of_one_to_four_bytes)
{
    static const struct {
        size_t content;
        uint8_t length[4];
        size_t length_bytes;
    } cases[] = {
        {0, {1}, 1},
        {62, {63}, 1},
        {63, {0x41, 0x04}, 2},
        {64, {0x42, 0x04}, 2},
        {0xffd, {0x4f, 0xff}, 2},
        {0xffe, {0x81, 0x00, 0x01}, 3},
        {0xffffc, {0x8f, 0xff, 0xff}, 3},
        {0xffffd, {0xc1, 0x00, 0x00, 0x01}, 4},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t opened;

        table_init(&table, bytes, sizeof bytes);
        table_put(&table, 0x12, 1);
        opened = table.used_bytes;
        table_put_zeros(&table, cases[i].content);
        aml_close(&table, opened);
        cr_expect_eq(table.used_bytes, 1 + cases[i].length_bytes + cases[i].content, "%zu", cases[i].content);
        cr_expect_arr_eq(bytes + 1, cases[i].length, cases[i].length_bytes, "%zu", cases[i].content);
    }
}

Test(aml, says_where_devices_are)
{
    struct aml_resources resources = aml_open_resources(&table);

    aml_ports(&table, 0x3f8, 8);
    aml_isa_irq(&table, 4);
    aml_memory(&table, 0xd0001000, 0x1000);
    aml_interrupt(&table, 15);
    aml_close_resources(&table, &resources);
    EXPECT(0x08, '_', 'C', 'R', 'S', 0x11, 37, 0x0a, 34,         /* a buffer of 34 bytes */
           0x47, 1, 0xf8, 0x03, 0xf8, 0x03, 1, 8,                /* ports */
           0x22, 0x10, 0x00,                                     /* line 4 */
           0x86, 9, 0, 1, 0, 0x10, 0x00, 0xd0, 0x00, 0x10, 0, 0, /* memory that can be written */
           0x89, 6, 0, 1, 1, 15, 0, 0, 0,                        /* a level, asserted high, consumed */
           0x79, 0);
}
