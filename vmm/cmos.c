// SPDX-License-Identifier: Apache-2.0
/* Register numbers and bits are those of the MC146818A data sheet, "Address map" and "Registers". */
#include "vmm/cmos.h"

#include "loam/types.h"

#include <time.h>

#define NANOSECONDS       INT64_C(1000000000)
#define UPDATE_NEAR       (INT64_C(244) * 1000) /* tBUC: how long UIP is set before an update */
#define DAY_SECONDS       INT64_C(86400)
#define ERA_DAYS          INT64_C(146097) /* 400 years, after which the calendar repeats */
#define WEEKDAY_OF_1970   4               /* Thursday, of Sunday's 0 */
#define INDEX_MASK        0x7fu
#define BASE_KIB          640u
#define SUM_FIRST         0x10u /* the checksum is of these */
#define SUM_LAST          0x2du
#define LARGE_BLOCK_BYTES (64 * LOAM_KIB)

enum {
    REGISTER_SECONDS = 0x00,
    REGISTER_MINUTES = 0x02,
    REGISTER_HOURS = 0x04,
    REGISTER_WEEKDAY = 0x06,
    REGISTER_DAY = 0x07,
    REGISTER_MONTH = 0x08,
    REGISTER_YEAR = 0x09,
    REGISTER_A = 0x0a,
    REGISTER_B = 0x0b,
    REGISTER_C = 0x0c,
    REGISTER_D = 0x0d,
    REGISTER_EQUIPMENT = 0x14,
    REGISTER_BASE_KIB = 0x15,     /* 2 bytes: memory below 1 MiB */
    REGISTER_EXTENDED_KIB = 0x17, /* 2 bytes: from 1 MiB on, below 64 MiB */
    REGISTER_SUM = 0x2e,          /* 2 bytes, the higher one first */
    REGISTER_FOUND_KIB = 0x30,    /* 2 bytes: as REGISTER_EXTENDED_KIB */
    REGISTER_LOW_BLOCKS = 0x34,   /* 2 bytes: of 64 KiB, from 16 MiB on, below the hole */
    REGISTER_HIGH_BLOCKS = 0x5b,  /* 3 bytes: of 64 KiB, from 4 GiB on */
    REGISTER_OTHER_CPUS = 0x5f
};

enum { A_UPDATE_NEAR = 0x80, A_RUNNING = 0x26 /* 32,768 Hz; 1,024 interrupts a second, if there were */ };

enum { B_24_HOURS = 0x02, B_BINARY = 0x04, B_SET = 0x80 };

enum { C_UPDATED = 0x10 };

enum { D_VALID = 0x80 };

enum { EQUIPMENT_MATH_COPROCESSOR = 0x02 };

struct date {
    int64_t year;
    int64_t month; /* 1 to 12 */
    int64_t day;   /* 1 to 31 */
};

static int64_t days_of_year(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 366 : 365;
}

static int64_t days_of_month(int64_t year, int64_t month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return days[month - 1] + (month == 2 && days_of_year(year) == 366);
}

/* gmtime_r takes a lock, and reads files about the host's time zone: nothing for a guest's access. */
static struct date date_of(int64_t days_since_1970)
{
    struct date date = {1970 + days_since_1970 / ERA_DAYS * 400, 1, 1};

    days_since_1970 %= ERA_DAYS;
    for (; days_since_1970 >= days_of_year(date.year); date.year++) {
        days_since_1970 -= days_of_year(date.year);
    }
    for (; days_since_1970 >= days_of_month(date.year, date.month); date.month++) {
        days_since_1970 -= days_of_month(date.year, date.month);
    }
    date.day += days_since_1970;
    return date;
}

static uint8_t shown(int64_t value, uint8_t status_b)
{
    return (uint8_t)((status_b & B_BINARY) != 0 ? value : value / 10 * 16 + value % 10);
}

static uint8_t shown_hour(int64_t hour, uint8_t status_b)
{
    if ((status_b & B_24_HOURS) != 0) {
        return shown(hour, status_b);
    }
    return (uint8_t)(shown((hour + 11) % 12 + 1, status_b) | (hour >= 12 ? 0x80 : 0));
}

uint8_t cmos_time_register(uint32_t number, int64_t second, uint8_t status_b)
{
    const int64_t days = second / DAY_SECONDS, of_day = second % DAY_SECONDS;
    const struct date date = date_of(days);

    switch (number) {
    case REGISTER_SECONDS:
        return shown(of_day % 60, status_b);
    case REGISTER_MINUTES:
        return shown(of_day / 60 % 60, status_b);
    case REGISTER_HOURS:
        return shown_hour(of_day / 3600, status_b);
    case REGISTER_WEEKDAY:
        return shown((days + WEEKDAY_OF_1970) % 7 + 1, status_b);
    case REGISTER_DAY:
        return shown(date.day, status_b);
    case REGISTER_MONTH:
        return shown(date.month, status_b);
    case REGISTER_YEAR:
        return shown(date.year % 100, status_b);
    default:
        return shown(date.year / 100, status_b);
    }
}

static bool is_time(uint32_t number)
{
    return number == REGISTER_SECONDS || number == REGISTER_MINUTES || number == REGISTER_HOURS ||
           (number >= REGISTER_WEEKDAY && number <= REGISTER_YEAR) || number == CMOS_CENTURY;
}

static bool is_kept(const struct cmos *cmos)
{
    return (cmos->registers[REGISTER_B] & B_SET) != 0;
}

static int64_t second_shown(const struct cmos *cmos)
{
    return is_kept(cmos) ? cmos->kept_second : cmos->now() / NANOSECONDS;
}

static uint8_t read_status_a(const struct cmos *cmos)
{
    const bool is_near = !is_kept(cmos) && cmos->now() % NANOSECONDS >= NANOSECONDS - UPDATE_NEAR;

    return (uint8_t)(cmos->registers[REGISTER_A] | (is_near ? A_UPDATE_NEAR : 0));
}

static uint8_t read_status_c(struct cmos *cmos)
{
    const int64_t second = second_shown(cmos);
    const bool is_new = second != cmos->told_second;

    cmos->told_second = second;
    return is_new ? C_UPDATED : 0;
}

static uint8_t read_register(struct cmos *cmos)
{
    if (is_time(cmos->index)) {
        return cmos_time_register(cmos->index, second_shown(cmos), cmos->registers[REGISTER_B]);
    }
    switch (cmos->index) {
    case REGISTER_A:
        return read_status_a(cmos);
    case REGISTER_C:
        return read_status_c(cmos);
    default:
        return cmos->registers[cmos->index];
    }
}

static void write_register(struct cmos *cmos, uint8_t value)
{
    if (is_time(cmos->index) || cmos->index == REGISTER_C || cmos->index == REGISTER_D) {
        return;
    }
    if (cmos->index == REGISTER_A) {
        value &= (uint8_t)~A_UPDATE_NEAR;
    }
    if (cmos->index == REGISTER_B && !is_kept(cmos)) {
        cmos->kept_second = cmos->now() / NANOSECONDS;
    }
    cmos->registers[cmos->index] = value;
}

static void access_port(struct cmos *cmos, uint64_t port, bool is_write, uint8_t *value)
{
    if (is_write && port == 0) {
        cmos->index = *value & INDEX_MASK;
    } else if (is_write) {
        write_register(cmos, *value);
    } else {
        *value = port == 0 ? UINT8_MAX : read_register(cmos);
    }
}

void cmos_access(void *cmos, struct bus_access *access)
{
    uint64_t answer = 0;

    for (uint32_t i = 0; i < access->bytes && access->offset + i < CMOS_BYTES; i++) {
        uint8_t value = (uint8_t)(access->value >> (8 * i));

        access_port(cmos, access->offset + i, access->is_write, &value);
        answer |= (uint64_t)value << (8 * i);
    }
    if (!access->is_write) {
        access->value = answer;
    }
}

static int64_t host_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * NANOSECONDS + now.tv_nsec;
}

/* The lowest byte first; what is too much for them shows as the most they can say. */
static void put(struct cmos *cmos, uint32_t number, uint32_t bytes, uint64_t value)
{
    const uint64_t most = (UINT64_C(1) << 8 * bytes) - 1;

    for (uint32_t i = 0; i < bytes; i++) {
        cmos->registers[number + i] = (uint8_t)((value < most ? value : most) >> (8 * i));
    }
}

static uint64_t beyond(uint64_t bytes, uint64_t start)
{
    return bytes > start ? bytes - start : 0;
}

static void put_sizes(struct cmos *cmos, const struct cmos_config *config)
{
    const uint64_t extended_kib = beyond(config->low_bytes, LOAM_MIB) / LOAM_KIB;

    put(cmos, REGISTER_BASE_KIB, 2, BASE_KIB);
    put(cmos, REGISTER_EXTENDED_KIB, 2, extended_kib);
    put(cmos, REGISTER_FOUND_KIB, 2, extended_kib);
    put(cmos, REGISTER_LOW_BLOCKS, 2, beyond(config->low_bytes, 16 * LOAM_MIB) / LARGE_BLOCK_BYTES);
    put(cmos, REGISTER_HIGH_BLOCKS, 3, config->high_bytes / LARGE_BLOCK_BYTES);
    put(cmos, REGISTER_OTHER_CPUS, 1, config->vcpu_count - 1);
}

static void put_sum(struct cmos *cmos)
{
    uint32_t sum = 0;

    for (uint32_t i = SUM_FIRST; i <= SUM_LAST; i++) {
        sum += cmos->registers[i];
    }
    cmos->registers[REGISTER_SUM] = (uint8_t)(sum >> 8);
    cmos->registers[REGISTER_SUM + 1] = (uint8_t)sum;
}

void cmos_init(struct cmos *cmos, const struct cmos_config *config)
{
    *cmos = (struct cmos){.now = config->now != NULL ? config->now : host_now};
    cmos->registers[REGISTER_A] = A_RUNNING;
    cmos->registers[REGISTER_B] = B_24_HOURS;
    cmos->registers[REGISTER_D] = D_VALID;
    cmos->registers[REGISTER_EQUIPMENT] = EQUIPMENT_MATH_COPROCESSOR;
    put_sizes(cmos, config);
    put_sum(cmos);
    cmos->told_second = cmos->now() / NANOSECONDS;
}
