// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/words.h"

#include <criterion/criterion.h>
#include <string.h>

#define GIB (UINT64_C(1) << 30)

Test(words, bytes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"4096", 4096},
                {"4K", 4096},
                {"3M", 3 << 20},
                {"2G", 2 * GIB},
                {"1T", 1024 * GIB},
                {"18446744073709551615", UINT64_MAX},
                {"16777215T", UINT64_C(16777215) << 40}};
    static const char *const bad[] = {"",   "K",   "-1", "+1",   " 1",        "1 ",
                                      "1k", "1KK", "1Q", "0x10", "16777216T", "18446744073709551616"};
    uint64_t bytes;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cr_expect(words_parse_bytes(good[i].text, &bytes), "%s", good[i].text);
        cr_expect_eq(bytes, good[i].bytes, "%s", good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_not(words_parse_bytes(bad[i], &bytes), "%s", bad[i]);
    }
}

Test(words, kinds)
{
    struct page_kind kinds[WORDS_PAGE_KIND_MAX];
    struct loam_diag diag = {0};
    uint32_t count;

    cr_assert_eq(words_parse_kinds("2M,1G,thp,4K,64K", kinds, &count, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(count, 5);
    cr_expect_eq(kinds[0].source, PAGE_SOURCE_POOL);
    cr_expect_eq(kinds[0].page_bytes, 2 << 20);
    cr_expect_eq(kinds[1].page_bytes, GIB);
    cr_expect_eq(kinds[2].source, PAGE_SOURCE_THP);
    cr_expect_eq(kinds[3].source, PAGE_SOURCE_BASE);
    for (uint32_t i = 0; i < count; i++) {
        struct page_kind again;

        cr_expect(words_parse_kind(words_kind(&kinds[i]).text, &again));
        cr_expect_eq(again.source, kinds[i].source);
        cr_expect_eq(again.page_bytes, kinds[i].page_bytes);
    }
}

Test(words, kinds_that_are_none)
{
    static const char *const bad[] = {"",
                                      ",",
                                      "2M,",
                                      ",2M",
                                      "2M,,1G",
                                      "3M",
                                      "2M,2M",
                                      "THP",
                                      "2M,2048K",
                                      "thp,4K,4K",
                                      "1K",
                                      "0",
                                      "2T",
                                      "2M 1G",
                                      "auto",
                                      "8K,16K,32K,64K,128K,256K,512K,1M,2M",
                                      "22222222222222222222M"};
    struct page_kind kinds[WORDS_PAGE_KIND_MAX];
    uint32_t count;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct loam_diag diag = {0};

        cr_expect_eq(words_parse_kinds(bad[i], kinds, &count, &diag), LOAM_ERROR_INVALID, "%s", bad[i]);
        cr_expect_neq(diag.text[0], '\0');
    }
}

Test(words, pools)
{
    struct loam_diag diag = {0};
    struct pool_wish wish;

    cr_expect_eq(words_parse_pool("2M:512@0", &wish, &diag), LOAM_OK);
    cr_expect_eq(wish.page_bytes, 2 << 20);
    cr_expect(wish.has_count);
    cr_expect_eq(wish.count, 512);
    cr_expect_eq(wish.node, 0);
    cr_expect_str_eq(words_pool(&wish).text, "2M:512@0");
    cr_expect_eq(words_parse_pool("1G:2", &wish, &diag), LOAM_OK);
    cr_expect_eq(wish.node, WORDS_NODE_ANY);
    cr_expect_str_eq(words_pool(&wish).text, "1G:2");
    cr_expect_eq(words_parse_pool("2M@3", &wish, &diag), LOAM_OK);
    cr_expect_not(wish.has_count);
    cr_expect_str_eq(words_pool(&wish).text, "2M@3");
}

Test(words, pools_that_are_none)
{
    static const char *const bad[] = {
        "",     "2M:",   "2M:x",     "2M:5@", "2M:5@x", "2M:5@-1", "2M:5@4294967295",
        "4K:5", "thp:5", "2M:-5",    "2M5",   "3M:5",   "2M:5@0 ", "2M:18446744073709551616",
        "@0",   ":5",    "2M:5@0@1", "2M@0:5"};
    struct pool_wish wish;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct loam_diag diag = {0};

        cr_expect_eq(words_parse_pool(bad[i], &wish, &diag), LOAM_ERROR_INVALID, "%s", bad[i]);
        cr_expect_eq(wish.page_bytes, 0);
        cr_expect_not_null(strstr(diag.text, "such as 2M:512@0"), "%s", diag.text);
    }
}

Test(words, amounts)
{
    cr_expect_str_eq(words_amount(0).text, "0 bytes");
    cr_expect_str_eq(words_amount(GIB * 3 / 2).text, "1.5 GiB");
    cr_expect_str_eq(words_amount(2 * GIB).text, "2 GiB");
    cr_expect_str_eq(words_amount(UINT64_MAX).text, "16777216.0 TiB");
    cr_expect_str_eq(words_page(4096).text, "4K");
    cr_expect_str_eq(words_page(GIB * 1024).text, "1T");
    cr_expect_str_eq(words_page(1000).text, "1000");
}

Test(words, a_shell_reads_what_was_quoted)
{
    char quoted[64], small[9];

    words_quote("test:///default", quoted, sizeof quoted);
    cr_expect_str_eq(quoted, "test:///default");
    words_quote("qemu+unix:///system?socket=/a&b", quoted, sizeof quoted);
    cr_expect_str_eq(quoted, "'qemu+unix:///system?socket=/a&b'");
    words_quote("it's $HOME", quoted, sizeof quoted);
    cr_expect_str_eq(quoted, "'it'\\''s $HOME'");
    words_quote("", quoted, sizeof quoted);
    cr_expect_str_eq(quoted, "''");
    words_quote("a b c d e f", small, sizeof small);
    cr_expect_str_eq(small, "'a b'", "what has no room is cut, and the quotes are closed");
}
