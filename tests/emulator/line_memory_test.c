// SPDX-License-Identifier: Apache-2.0
#include "tests/emulator/lines.h"
#include "vmm/emulator/line.h"

#include <criterion/criterion.h>
#include <string.h>

#define NODE(id, more) "-object memory-backend-memfd,id=" id "," more " "

/* A line that is read, or fails the test. */
static struct line read_line(const char *words)
{
    struct line_argv argv = line_argv_of(words);
    struct loam_diag diag = {0};
    struct line line;

    cr_assert_eq(line_read(argv.argc, argv.argv, &line, &diag), LOAM_OK, "%s: %s", words, diag.text);
    line_argv_release(&argv);
    return line;
}

static struct line read_memory(const char *memory)
{
    char words[2048];

    snprintf(words, sizeof words, "-accel kvm %s", memory);
    return read_line(words);
}

static void check_refusal(const char *memory, const char *expected)
{
    struct loam_diag diag = {0};
    struct line_argv argv;
    struct line line;
    char words[2048];

    snprintf(words, sizeof words, "-accel kvm %s", memory);
    argv = line_argv_of(words);
    cr_expect_eq(line_read(argv.argc, argv.argv, &line, &diag), LOAM_ERROR_INVALID, "%s is taken", memory);
    cr_expect_str_eq(diag.text, expected);
    line_argv_release(&argv);
}

#define ONE(more) "-machine microvm,memory-backend=ram -m 64 " NODE("ram", "size=67108864" more)

Test(line_memory, without_a_backend)
{
    struct line line = read_memory("-machine microvm -m 64");

    cr_expect_eq(line.memory.bytes, 64 * LOAM_MIB);
    cr_expect_eq(line.memory.part_count, 0);
    cr_expect_eq(line.memory.pages, LOAM_PAGES_4K);
    cr_expect_eq(line.memory.commit, LOAM_COMMIT_LAZY);
    cr_expect_not(line.memory.keep_from_dumps);
    cr_expect_not(line.no_merge);
    line_release(&line);
}

Test(line_memory, units)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {
        {"64", 64 * LOAM_MIB}, {"65536k", 64 * LOAM_MIB}, {"64M", 64 * LOAM_MIB}, {"size=65536k", 64 * LOAM_MIB},
        {"2G", 2 * LOAM_GIB},  {"1t", 1024 * LOAM_GIB},   {"2", 2 * LOAM_MIB},    {"2097152b", 2 * LOAM_MIB}};
    char words[128];

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct line line;

        snprintf(words, sizeof words, "-machine microvm -m %s", sizes[i].text);
        line = read_memory(words);
        cr_expect_eq(line.memory.bytes, sizes[i].bytes, "%s", sizes[i].text);
        line_release(&line);
    }
}

Test(line_memory, every_wish_is_in_the_request)
{
    struct line line = read_memory("-machine microvm,mem-merge=off,dump-guest-core=off,memory-backend=ram -m 64 "
                                   "-overcommit mem-lock=on " NODE("ram", "hugetlb=on,hugetlbsize=2097152,share=on,"
                                                                          "prealloc=on,prealloc-threads=2,size=64M,"
                                                                          "host-nodes=0-1,host-nodes=3,policy=bind"));
    const struct loam_memory_request expected = {
        .bytes = 64 * LOAM_MIB,
        .pages = LOAM_PAGES_2M,
        .sharing = LOAM_SHARING_SHARED,
        .commit = LOAM_COMMIT_POPULATE,
        .placement = LOAM_PLACEMENT_STRICT,
        .node_mask = 0xb,
        .lock = true,
        .keep_from_dumps = true,
        .thread_count = 2,
    };

    cr_expect_eq(line.memory.bytes, expected.bytes);
    cr_expect_eq(line.memory.pages, expected.pages);
    cr_expect_eq(line.memory.sharing, expected.sharing);
    cr_expect_eq(line.memory.commit, expected.commit);
    cr_expect_eq(line.memory.placement, expected.placement);
    cr_expect_eq(line.memory.node_mask, expected.node_mask);
    cr_expect_eq(line.memory.lock, expected.lock);
    cr_expect_eq(line.memory.keep_from_dumps, expected.keep_from_dumps);
    cr_expect_eq(line.memory.thread_count, expected.thread_count);
    cr_expect_eq(line.memory.part_count, 0);
    cr_expect(line.no_merge);
    line_release(&line);
}

Test(line_memory, json_says_the_same)
{
    struct line words = read_memory(ONE(",share=off,prealloc=on,host-nodes=0-1,host-nodes=3,policy=interleave"));
    struct line json =
        read_memory("-machine microvm,memory-backend=ram -m 64 "
                    "-object {\"qom-type\":\"memory-backend-memfd\",\"id\":\"ram\",\"size\":67108864,\"share\":false,"
                    "\"prealloc\":true,\"host-nodes\":[0,1,3],\"policy\":\"interleave\"}");

    cr_expect_eq(memcmp(&words.memory, &json.memory, sizeof words.memory), 0);
    cr_expect_eq(json.memory.node_mask, 0xb);
    cr_expect_eq(json.memory.placement, LOAM_PLACEMENT_INTERLEAVE);
    cr_expect_eq(json.memory.sharing, LOAM_SHARING_PRIVATE);
    line_release(&words);
    line_release(&json);
}

Test(line_memory, when_it_is_taken)
{
    static const struct {
        const char *memory;
        enum loam_commit commit;
        bool lock;
    } cases[] = {
        {ONE(""), LOAM_COMMIT_LAZY, false},
        {ONE(",prealloc=off"), LOAM_COMMIT_LAZY, false},
        {ONE(",prealloc=on"), LOAM_COMMIT_POPULATE, false},
        {ONE(",reserve=on"), LOAM_COMMIT_RESERVE, false},
        {ONE(",reserve=off"), LOAM_COMMIT_LAZY, false},
        {ONE(",hugetlb=on,hugetlbsize=2097152"), LOAM_COMMIT_RESERVE, false},
        {ONE("") "-overcommit mem-lock=on", LOAM_COMMIT_RESERVE, true},
        {ONE(",prealloc=on") "-overcommit mem-lock=on", LOAM_COMMIT_POPULATE, true},
        {"-machine microvm -m 64 -overcommit mem-lock=on", LOAM_COMMIT_RESERVE, true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct line line = read_memory(cases[i].memory);

        cr_expect_eq(line.memory.commit, cases[i].commit, "%s", cases[i].memory);
        cr_expect_eq(line.memory.lock, cases[i].lock, "%s", cases[i].memory);
        line_release(&line);
    }
}

Test(line_memory, nodes_are_parts_in_the_order_of_their_numbers)
{
    struct line line = read_memory(
        "-machine microvm,dump-guest-core=off -m 1120 -overcommit mem-lock=on "
        "-numa node,nodeid=2,memdev=c " NODE("a", "size=64M,share=on,prealloc=on,prealloc-threads=2")
            NODE("b", "size=32M,hugetlb=on,hugetlbsize=2M,prealloc=on,prealloc-threads=5,host-nodes=1,policy=preferred")
                NODE("c", "size=1G,hugetlb=on,hugetlbsize=1G") "-numa node,nodeid=0,cpus=0,cpus=2-3,memdev=b "
                                                               "-numa node,nodeid=1,cpus=1,memdev=a");

    cr_assert_eq(line.memory.part_count, 3);
    cr_expect_eq(line.memory.bytes, 1120 * LOAM_MIB);
    cr_expect_eq(line.memory.thread_count, 5);
    cr_expect(line.memory.keep_from_dumps);
    cr_expect_not(line.memory.lock);
    cr_expect_eq(line.memory.parts[0].bytes, 32 * LOAM_MIB);
    cr_expect_eq(line.memory.parts[0].pages, LOAM_PAGES_2M);
    cr_expect_eq(line.memory.parts[0].placement, LOAM_PLACEMENT_PREFERRED);
    cr_expect_eq(line.memory.parts[0].node_mask, 2);
    cr_expect_eq(line.memory.parts[1].bytes, 64 * LOAM_MIB);
    cr_expect_eq(line.memory.parts[1].sharing, LOAM_SHARING_SHARED);
    cr_expect_eq(line.memory.parts[1].pages, LOAM_PAGES_4K);
    cr_expect_eq(line.memory.parts[2].bytes, LOAM_GIB);
    cr_expect_eq(line.memory.parts[2].pages, LOAM_PAGES_1G);
    for (int i = 0; i < 3; i++) {
        cr_expect(line.memory.parts[i].lock);
    }
    line_release(&line);
}

Test(line_memory, files)
{
    struct line line =
        read_memory("-machine microvm,memory-backend=ram -m 64 -object "
                    "memory-backend-file,id=ram,mem-path=/huge,,pages,share=off,discard-data=on,size=64M");

    cr_expect_str_eq(line.memory_path, "/huge,pages");
    cr_expect_eq(line.memory.pages, LOAM_PAGES_AUTO);
    cr_expect_eq(line.memory.sharing, LOAM_SHARING_ANY);
    line_release(&line);
    line = read_memory("-machine microvm -m 96 -object memory-backend-file,id=a,mem-path=/a,share=on,size=64M "
                       "-object memory-backend-ram,id=b,size=32M -numa node,nodeid=0,memdev=b "
                       "-numa node,nodeid=1,memdev=a");
    cr_expect_null(line.memory_path);
    cr_expect_null(line.memory_paths[0]);
    cr_expect_str_eq(line.memory_paths[1], "/a");
    cr_expect_eq(line.memory.parts[1].sharing, LOAM_SHARING_SHARED);
    line_release(&line);
}

Test(line_memory, pages_of_loams_own_option)
{
    static const char *const names[] = {"auto", "1G", "2M", "thp", "4K"};
    char words[128];

    for (unsigned i = 0; i < LOAM_PAGES_COUNT; i++) {
        struct loam_memory_request thp;
        struct line line;

        snprintf(words, sizeof words, "-machine microvm -m 1G -x-loam pages=%s", names[i]);
        line = read_memory(words);
        cr_expect_eq(line.memory.pages, i);
        cr_expect_str_eq(line.x_pages, names[i]);
        cr_expect_not(line_memory_thp(&line, &thp), "it was said which");
        line_release(&line);
    }
}

Test(line_memory, thp_in_place_of_small_pages)
{
    struct line line = read_memory(ONE(",share=on"));
    struct loam_memory_request thp;

    cr_expect(line_memory_thp(&line, &thp));
    cr_expect_eq(thp.pages, LOAM_PAGES_THP);
    cr_expect_eq(thp.sharing, LOAM_SHARING_SHARED);
    line_release(&line);
    line = read_memory(ONE(",hugetlb=on,hugetlbsize=2M"));
    cr_expect_not(line_memory_thp(&line, &thp));
    line_release(&line);
    line = read_memory("-machine microvm -m 96 " NODE("a", "size=64M,hugetlb=on,hugetlbsize=2M")
                           NODE("b", "size=32M") "-numa node,nodeid=0,memdev=a -numa node,nodeid=1,memdev=b");
    cr_expect(line_memory_thp(&line, &thp));
    cr_expect_eq(thp.parts[0].pages, LOAM_PAGES_2M);
    cr_expect_eq(thp.parts[1].pages, LOAM_PAGES_THP);
    cr_expect_eq(line.memory.parts[1].pages, LOAM_PAGES_4K);
    line_release(&line);
}

/* What is read contradicts nothing that the plan knows of. Nodes but 0 may not be there. */
Test(line_memory, every_request_can_be_planned)
{
    for (size_t i = 0; i < line_vector_count; i++) {
        struct line line = read_line(line_vectors[i].words);
        struct loam_diag diag = {0};
        struct loam_plan plan;

        if (!line.is_probe) {
            cr_expect_eq(loam_plan_make(&line.memory, &plan, &diag), LOAM_OK, "%s: %s", line_vectors[i].name,
                         diag.text);
            cr_expect_eq(plan.request.bytes, line.memory.bytes);
        }
        line_release(&line);
    }
}

#define RAM "-object memory-backend-memfd,id=ram: "

Test(line_memory, refusals_of_a_backend)
{
    check_refusal(ONE(",hugetlb=on,hugetlbsize=4194304"),
                  RAM "hugetlbsize=4194304: huge pages have 2 MiB or 1 GiB: give hugetlbsize=2097152 or "
                      "hugetlbsize=1073741824");
    check_refusal(ONE(",hugetlb=on"), RAM "hugetlb=on: huge pages have 2 MiB or 1 GiB: give hugetlbsize=2097152 or "
                                          "hugetlbsize=1073741824");
    check_refusal(ONE(",hugetlbsize=2097152"), RAM "hugetlbsize=2097152: it goes with hugetlb=on only: give both");
    check_refusal(ONE(",hugetlb=on,hugetlbsize=1G"), RAM
                  "size=67108864: 0 pages of 1073741824 bytes and 67108864 bytes: give whole pages, or smaller ones");
    check_refusal("-machine microvm,memory-backend=ram -m 64 " NODE("ram", "size=67108865"),
                  RAM "size=67108865: 16384 pages of 4096 bytes and 1 bytes: give whole pages");
    check_refusal("-machine microvm,memory-backend=ram -m 1 " NODE("ram", "size=1M"),
                  RAM "size=1M: RAM has at least 2097152 bytes (2 MiB): give more");
    check_refusal("-machine microvm,memory-backend=ram -m 64 " NODE("ram", "share=on"), RAM "size= is missing");
    check_refusal(ONE(",host-nodes=0"),
                  RAM "host-nodes=0: host-nodes=N goes with policy=bind|preferred|interleave only: give both");
    check_refusal(ONE(",policy=bind"),
                  RAM "policy=bind: host-nodes=N goes with policy=bind|preferred|interleave only: give both");
    check_refusal(ONE(",policy=default,host-nodes=1"),
                  RAM "host-nodes=1: host-nodes=N goes with policy=bind|preferred|interleave only: give both");
    check_refusal(ONE(",policy=preferred,host-nodes=0-1"), RAM "policy=preferred: 2 nodes: give one with host-nodes=N");
    check_refusal(ONE(",policy=bind,host-nodes=64"),
                  RAM "host-nodes=64: give host-nodes=a number from 0 to 63, or two as in 0-1");
    check_refusal(ONE(",policy=bind,host-nodes=3-1"),
                  RAM "host-nodes=3-1: give host-nodes=a number from 0 to 63, or two as in 0-1");
    check_refusal(ONE(",prealloc-threads=2"), RAM "prealloc-threads=2: it goes with prealloc=on only: give both");
    check_refusal(ONE(",prealloc=on,prealloc-threads=257"),
                  RAM "prealloc-threads=257: give prealloc-threads=a number from 1 to 256");
    check_refusal(ONE(",reserve=off,prealloc=on"),
                  RAM "reserve=off: prealloc=on takes all memory at once: give one of them");
    check_refusal(ONE(",reserve=off") "-overcommit mem-lock=on",
                  RAM "reserve=off: -overcommit mem-lock=on contradicts it (what is locked is populated): give one of "
                      "them");
    check_refusal(ONE(",reserve=off,hugetlb=on,hugetlbsize=2M"),
                  RAM "reserve=off: huge pages are always reserved here: give reserve=on");
    check_refusal(ONE(",share=yes"), RAM "share=yes: give share=on or off");
}

Test(line_memory, refusals_of_how_backends_go_together)
{
    check_refusal("-machine microvm", "-m: it is missing: give -m SIZE in MiB");
    check_refusal("-machine microvm -m 1", "-m 1: 1048576 bytes: RAM is at least 2 MiB, and whole pages of 4096 bytes: "
                                           "give such");
    check_refusal("-machine microvm -m 3 -x-loam pages=2M",
                  "-m 3: 3145728 bytes: RAM is at least 2 MiB, and whole pages of 2097152 bytes: give such");
    check_refusal("-machine microvm -m 64,slots=4,maxmem=256M", "-m 64: slots=4: no such key here: known is size");
    check_refusal("-machine microvm -m 64X",
                  "-m 64X: size=64X: give size=a size: a number, with k, M, G or T if it is not in MiB");
    check_refusal("-machine microvm,memory-backend=ram -m 65 " NODE("ram", "size=64M"),
                  "-m 65: 68157440 bytes, and the memory backends have 67108864: give them the same");
    check_refusal("-machine microvm,memory-backend=rom -m 64 " NODE("ram", "size=64M"),
                  "-machine microvm: memory-backend=rom: there is no -object memory-backend-... of that id");
    check_refusal("-machine microvm,memory-backend=masterKey0 -m 64 " LINES_SECRET,
                  "-machine microvm: memory-backend=masterKey0: there is no -object memory-backend-... of that id");
    check_refusal("-machine microvm -m 64 " NODE("ram", "size=64M"),
                  RAM "nothing names it: give -machine microvm,memory-backend=ram or -numa node,memdev=ram");
    check_refusal(
        "-machine microvm,memory-backend=ram -m 64 " NODE("ram", "size=64M") NODE("more", "size=64M"),
        "-object memory-backend-memfd,id=more: nothing names it: give -machine microvm,memory-backend=more or "
        "-numa node,memdev=more");
    check_refusal("-machine microvm,memory-backend=ram -m 64 " NODE("ram", "size=64M") NODE("ram", "size=64M"),
                  RAM "another -object has id=ram: give each its own");
    check_refusal(ONE("") "-numa node,nodeid=0,memdev=ram",
                  "-machine microvm: memory-backend=ram: -numa node,memdev=ID says where RAM is: give one of them");
    check_refusal("-machine microvm -m 64 " NODE("ram", "size=64M") "-numa node,nodeid=1,memdev=ram",
                  "-numa node: 1 nodes, and none has nodeid=0: number them from 0");
    check_refusal("-machine microvm -m 64 -numa node,nodeid=0,memdev=ram",
                  "-numa node: memdev=ram: there is no -object memory-backend-... of that id");
    check_refusal("-machine microvm -m 64 " NODE("ram", "size=64M") "-numa node,nodeid=0,memdev=ram "
                                                                    "-numa node,nodeid=1,memdev=ram",
                  "-numa node: memdev=ram: another node has it: give each its own");
    check_refusal("-machine microvm -m 64 -numa node,nodeid=0,memdev=a -numa node,nodeid=0,memdev=b",
                  "-numa node: another -numa has nodeid=0: give each its own");
    check_refusal("-machine microvm -m 64 -numa dist,src=0,dst=1,val=20",
                  "-numa dist: the guest is told of no nodes, and so of no distances: leave <distances> out");
    check_refusal("-machine microvm -m 64 -numa node,nodeid=8,memdev=a",
                  "-numa node: nodeid=8: give nodeid=a number from 0 to 7");
    check_refusal(
        "-machine microvm -m 96 " NODE("a", "size=64M,dump=off")
            NODE("b", "size=32M") "-numa node,nodeid=0,memdev=a -numa node,nodeid=1,memdev=b",
        "-object memory-backend-memfd,id=b: merge= and dump= are for all RAM here: give each backend the same");
    check_refusal("-machine microvm -m 96 " NODE("a", "size=16777215T")
                      NODE("b", "size=16777215T") "-numa node,nodeid=0,memdev=a -numa node,nodeid=1,memdev=b",
                  "-m 96: the memory backends are more than 64 bits of bytes: give less");
    check_refusal(ONE(",hugetlb=on,hugetlbsize=2M") "-x-loam pages=thp",
                  "-x-loam: pages=thp: -object memory-backend-memfd,id=ram says what RAM is made of: give one of them");
    check_refusal(ONE("") "-x-loam pages=3M", "-x-loam: pages=3M: give pages=auto|1G|2M|thp|4K");
    check_refusal(ONE("") "-x-loam colour=red", "-x-loam: colour=red: no such key here: known are pages and tune");
}
