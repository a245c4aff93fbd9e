// SPDX-License-Identifier: Apache-2.0
#include "vmm/options.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

Test(options, bytes_with_and_without_a_unit)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"1", 1},
        {"4096", 4096},
        {"99", 99},
        {"1K", LOAM_KIB},
        {"256M", 256 * LOAM_MIB},
        {"6G", 6 * LOAM_GIB},
        {"3T", 3 * 1024 * LOAM_GIB},
        {"18446744073709551615", UINT64_MAX},
        {"16777215T", UINT64_C(16777215) << 40},
    };

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t bytes;

        errno = ERANGE; /* of an earlier call */
        cr_expect(options_parse_bytes(good[i].text, &bytes), "%s is refused", good[i].text);
        cr_expect_eq(bytes, good[i].bytes, "%s is read as %" PRIu64, good[i].text, bytes);
    }
}

Test(options, what_is_no_size_is_refused)
{
    static const char *const bad[] = {
        "",          " 1",  "+1",    "-1", "1 ", "1KB", "1k", "K", "0x1", "1.5G", "1e3", "1GiB", "18446744073709551616",
        "16777216T", "1MM", "eight",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t bytes = 1;

        cr_expect_not(options_parse_bytes(bad[i], &bytes), "%s is taken", bad[i]);
        cr_expect_eq(bytes, 0, "the output is defined on failure");
    }
}

static struct options options_of(int count, ...)
{
    char *argv[16] = {"loam run"};
    struct options options;
    va_list arguments;

    va_start(arguments, count);
    for (int i = 1; i <= count; i++) {
        argv[i] = va_arg(arguments, char *);
    }
    va_end(arguments);
    errno = ERANGE; /* of an earlier call */
    options_read(count + 1, argv, &options);
    return options;
}

Test(options, defaults)
{
    struct options options = options_of(0);

    cr_expect_eq(options.memory.bytes, 256 * LOAM_MIB);
    cr_expect_eq(options.memory.pages, LOAM_PAGES_AUTO);
    cr_expect_eq(options.memory.low_limit_bytes, 0);
    cr_expect_eq(options.vcpu_count, 1);
    cr_expect_null(options.kernel);
    cr_expect_eq(options.timeout_milliseconds, 60000);
    cr_expect_not(options.json);
}

Test(options, a_self_test_of_more_memory_has_more_time)
{
    cr_expect_eq(options_of(2, "--memory", "6G").timeout_milliseconds, 60000 + 6 * 30000);
    cr_expect_eq(options_of(4, "--memory", "6G", "--timeout", "1.5").timeout_milliseconds, 1500);
    cr_expect_eq(options_of(2, "--timeout", "0").timeout_milliseconds, 0);
    cr_expect_eq(options_of(2, "--timeout", "0.0001").timeout_milliseconds, 1);
    cr_expect_eq(options_of(2, "--kernel", "file").timeout_milliseconds, 0);
}

Test(options, every_kind_of_page)
{
    static const char *const names[] = {"auto", "1G", "2M", "thp", "4K"};

    for (unsigned i = 0; i < LOAM_PAGES_COUNT; i++) {
        cr_expect_eq(options_of(2, "--pages", names[i]).memory.pages, i);
    }
}

Test(options, the_last_of_two_stands)
{
    cr_expect_eq(options_of(4, "--pages", "2M", "--pages", "4K").memory.pages, LOAM_PAGES_4K);
}

Test(options, commit_and_place)
{
    struct options options = options_of(4, "--populate", "--node", "1", "--lock");

    cr_expect_eq(options.memory.commit, LOAM_COMMIT_POPULATE);
    cr_expect_eq(options.memory.placement, LOAM_PLACEMENT_STRICT);
    cr_expect_eq(options.memory.node_mask, 2);
    cr_expect(options.memory.lock);
}

Test(options, whether_the_command_line_stays_as_it_is)
{
    cr_expect_not(options_of(2, "--kernel", "file").without_tune);
    cr_expect(options_of(3, "--no-tune", "--kernel", "file").without_tune);
}

Test(options, what_a_reset_means)
{
    cr_expect_eq(options_of(2, "--kernel", "file").on_reset, ON_RESET_FAIL);
    cr_expect_eq(options_of(4, "--kernel", "file", "--on-reset", "fail").on_reset, ON_RESET_FAIL);
    cr_expect_eq(options_of(4, "--kernel", "file", "--on-reset", "pass").on_reset, ON_RESET_PASS);
    cr_expect_eq(options_of(4, "--on-reset", "restart", "--kernel", "file").on_reset, ON_RESET_RESTART);
}

Test(options, another_meaning_of_a_reset_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    options_of(4, "--kernel", "file", "--on-reset", "ignore");
}

Test(options, a_reset_without_a_kernel_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    options_of(2, "--on-reset", "fail");
}

/* Whoever debugs takes his time. */
Test(options, where_a_debugger_comes_to)
{
    cr_expect_null(options_of(0).gdb);
    cr_expect_str_eq(options_of(2, "--gdb", "socket").gdb, "socket");
    cr_expect_eq(options_of(2, "--gdb", "1234").timeout_milliseconds, 0);
    cr_expect_eq(options_of(4, "--gdb", "1234", "--timeout", "5").timeout_milliseconds, 5000);
}

Test(options, a_debugger_of_a_guest_that_restarts_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    options_of(6, "--gdb", "1234", "--kernel", "file", "--on-reset", "restart");
}

Test(options, where_exits_are_told)
{
    cr_expect_null(options_of(0).trace);
    cr_expect_str_eq(options_of(2, "--trace", "./-").trace, "./-");
}

/* The statuses that mean something else, and those of signals, are never a guest's. */
Test(options, a_guests_code_as_exit_status)
{
    for (uint32_t code = 0; code < 1000; code++) {
        int wanted = code == 0 ? 0 : code >= 5 && code <= 123 ? (int)code : 1;

        cr_expect_eq(options_exit_status(code), wanted, "code %" PRIu32, code);
    }
    cr_expect_eq(options_exit_status(256 + 42), 1);
    cr_expect_eq(options_exit_status(UINT32_C(0x80000000)), 1);
    cr_expect_eq(options_exit_status(UINT32_MAX), 1);
}

Test(options, bad_usage_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    options_of(2, "--memory", "much");
}

Test(options, an_unknown_option_ends_with_2, .exit_code = EXIT_CODE_USAGE)
{
    options_of(1, "--no-such-option");
}

Test(options, sabotage_is_no_option_of_the_program, .exit_code = EXIT_CODE_USAGE)
{
    options_of(2, "--sabotage", "flip");
}

Test(options, every_value_arrives)
{
    struct options options = options_of(11, "--kernel", "k", "--initrd", "i", "--cmdline", "c", "--low-limit", "8M",
                                        "--vcpus", "1024", "--json");

    cr_expect_str_eq(options.kernel, "k");
    cr_expect_str_eq(options.initrd, "i");
    cr_expect_str_eq(options.command_line, "c");
    cr_expect_eq(options.memory.low_limit_bytes, 8 * LOAM_MIB);
    cr_expect_eq(options.vcpu_count, 1024);
    cr_expect(options.json);
    cr_expect_eq(options.memory.thread_count, 0);
    cr_expect_eq(options_of(2, "--populate-threads", "256").memory.thread_count, 256);
    options = options_of(3, "--lazy", "--node", "63");
    cr_expect_eq(options.memory.commit, LOAM_COMMIT_LAZY);
    cr_expect_eq(options.memory.node_mask, UINT64_C(1) << 63);
    cr_expect_str_empty(options.command_line);
    cr_expect_null(options.initrd);
    cr_expect_eq(options_of(2, "--vcpus", "9").vcpu_count, 9);
    cr_expect_eq(options_of(2, "--timeout", "0.001").timeout_milliseconds, 1);
    cr_expect_eq(options_of(2, "--timeout", "31536000").timeout_milliseconds, UINT64_C(31536000000));
}

/* --- All pairs of options ----------------------------------------------------------------------------------------- */

/* Every option of the program with a value that it takes. Who adds an option adds it here, and says what pairs mean. */
/* --- Parts -------------------------------------------------------------------------------------------------------- */

Test(options, memory_in_parts)
{
    char first[] = "size=1G,pages=1G,node=0", second[] = "size=256M,pages=4K,share=off,populate=on,lock=on";
    struct options options = options_of(7, "--memory", first, "-m", second,
                                        "--memory=size=2M,populate=off,share=on,"
                                        "node=0-1+3,policy=interleave",
                                        "--low-limit", "2G");
    const struct loam_backing_request *parts = options.memory.parts;

    cr_assert_eq(options.memory.part_count, 3);
    cr_expect_eq(options.memory.bytes, LOAM_GIB + 258 * LOAM_MIB);
    cr_expect_eq(options.memory.low_limit_bytes, 2 * LOAM_GIB);
    cr_expect(parts[0].bytes == LOAM_GIB && parts[0].pages == LOAM_PAGES_1G);
    cr_expect(parts[0].placement == LOAM_PLACEMENT_STRICT && parts[0].node_mask == 1, "strict, unless said otherwise");
    cr_expect(parts[0].sharing == LOAM_SHARING_ANY && parts[0].commit == LOAM_COMMIT_RESERVE && !parts[0].lock);
    cr_expect(parts[1].bytes == 256 * LOAM_MIB && parts[1].pages == LOAM_PAGES_4K && parts[1].lock);
    cr_expect(parts[1].sharing == LOAM_SHARING_PRIVATE && parts[1].commit == LOAM_COMMIT_POPULATE);
    cr_expect(parts[1].placement == LOAM_PLACEMENT_ANY && parts[1].node_mask == 0);
    cr_expect(parts[2].sharing == LOAM_SHARING_SHARED && parts[2].commit == LOAM_COMMIT_LAZY);
    cr_expect(parts[2].placement == LOAM_PLACEMENT_INTERLEAVE && parts[2].node_mask == 0xb);
    cr_expect_eq(options.timeout_milliseconds, 90000, "30 s more for a GiB");
    cr_expect_str_eq(first, "size=1G,pages=1G,node=0", "argv stays as it is");
    options = options_of(2, "-m", "size=2M,node=0-63,policy=strict");
    cr_expect_eq(options.memory.parts[0].node_mask, UINT64_MAX);
    options = options_of(2, "-m", "size=2M,node=63,policy=preferred");
    cr_expect_eq(options.memory.parts[0].node_mask, UINT64_C(1) << 63);
}

Test(options, a_user_has_a_group)
{
    struct options options = options_of(2, "--uid", "5");

    cr_expect(options.privilege.has_uid && options.privilege.uid == 5);
    cr_expect(options.privilege.has_gid && options.privilege.gid == 5);
    options = options_of(4, "--gid", "6", "--uid", "5");
    cr_expect(options.privilege.uid == 5 && options.privilege.gid == 6);
    options = options_of(2, "--gid", "6");
    cr_expect(!options.privilege.has_uid && options.privilege.has_gid);
}

static const struct {
    const char *name;
    char *words[2]; /* the second NULL: it takes none */
} all_options[] = {
    {"memory", {"--memory", "64M"}},
    {"pages", {"--pages", "2M"}},
    {"low-limit", {"--low-limit", "8M"}},
    {"populate", {"--populate"}},
    {"lazy", {"--lazy"}},
    {"node", {"--node", "0"}},
    {"lock", {"--lock"}},
    {"populate-threads", {"--populate-threads", "2"}},
    {"vcpus", {"--vcpus", "2"}},
    {"kernel", {"--kernel", "file"}},
    {"initrd", {"--initrd", "file"}},
    {"cmdline", {"--cmdline", "text"}},
    {"no-tune", {"--no-tune"}},
    {"restore", {"--restore", "dir"}},
    {"clock", {"--clock", "jumps"}},
    {"timeout", {"--timeout", "5"}},
    {"on-reset", {"--on-reset", "pass"}},
    {"uid", {"--uid", "5"}},
    {"gid", {"--gid", "6"}},
    {"no-sandbox", {"--no-sandbox"}},
    {"trace", {"--trace", "file"}},
    {"gdb", {"--gdb", "1234"}},
    {"control", {"--control", "path"}},
    {"json", {"--json"}},
};

enum { OPTION_COUNT = sizeof all_options / sizeof all_options[0] };

/* What a pair is: refused by name, or explained in the help; all others have nothing to do with each other. */
static const char *const refused_pairs[][2] = {{"populate", "lazy"},  {"lock", "lazy"},         {"restore", "kernel"},
                                               {"restore", "memory"}, {"restore", "low-limit"}, {"restore", "vcpus"}};
static const char *const explained_pairs[][2] = {
    {"lock", "populate"},
    {"lazy", "pages"},
    {"lazy", "node"},
    {"node", "pages"},
    {"low-limit", "memory"},
    {"json", "kernel"},
    {"timeout", "populate"},
    {"timeout", "on-reset"},
    {"timeout", "memory"},
    {"vcpus", "kernel"},
    {"lazy", "populate-threads"},
    {"uid", "gid"},
    {"trace", "timeout"},
    {"timeout", "gdb"},
    {"no-tune", "cmdline"},
    {"restore", "populate"},
    {"restore", "pages"},
};
/* The first goes with the second only. */
static const char *const needs[][2] = {
    {"initrd", "kernel"}, {"cmdline", "kernel"}, {"on-reset", "kernel"}, {"no-tune", "kernel"}, {"clock", "restore"}};

/* What options_read prints and ends with, in a process of its own; 0 also when it returns. */
static int ending(char *argv[], int count, char *text, size_t bytes)
{
    int pipes[2], status;
    size_t used = 0;
    ssize_t got;
    pid_t child;

    cr_assert_eq(pipe(pipes), 0);
    child = fork();
    if (child == 0) {
        struct options options;

        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        options_read(count, argv, &options);
        _exit(0);
    }
    cr_assert_gt(child, 0);
    close(pipes[1]);
    while ((got = read(pipes[0], text + used, bytes - 1 - used)) > 0) {
        used += (size_t)got;
    }
    text[used] = '\0';
    close(pipes[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Each is refused, and these words end a line of the text. */
Test(options, values_that_are_none)
{
    static const struct {
        char *words[2];
        const char *says;
    } cases[] = {
        {{"--vcpus", "0"}, "--vcpus 0: not a number from 1 to 1024\n"},
        {{"--vcpus", "1025"}, "--vcpus 1025: not a number from 1 to 1024\n"},
        {{"--vcpus", "2x"}, "--vcpus 2x: not a number from 1 to 1024\n"},
        {{"--vcpus", "-1"}, "--vcpus -1: not a number from 1 to 1024\n"},
        {{"--vcpus", "+1"}, "--vcpus +1: not a number from 1 to 1024\n"},
        {{"--vcpus", ":"}, "--vcpus :: not a number from 1 to 1024\n"},
        {{"--vcpus", "99999999999999999999"}, "not a number from 1 to 1024\n"},
        {{"--vcpus", ""}, "--vcpus : not a number from 1 to 1024\n"},
        {{"--populate-threads", "0"}, "--populate-threads 0: not a number from 1 to 256\n"},
        {{"--populate-threads", "257"}, "--populate-threads 257: not a number from 1 to 256\n"},
        {{"--node", "64"}, "--node 64: not a number from 0 to 63\n"},
        {{"--timeout", ""}, "--timeout : not a number of seconds from 0 to 31536000\n"},
        {{"--timeout", "5s"}, "--timeout 5s: not a number of seconds from 0 to 31536000\n"},
        {{"--timeout", "-1"}, "--timeout -1: not a number of seconds from 0 to 31536000\n"},
        {{"--timeout", "nan"}, "--timeout nan: not a number of seconds from 0 to 31536000\n"},
        {{"--timeout", "31536001"}, "--timeout 31536001: not a number of seconds from 0 to 31536000\n"},
        {{"--pages", "3M"}, "--pages 3M: no such kind of page: give 1G, 2M, thp, 4K or auto\n"},
        {{"--on-reset", "ignore"}, "--on-reset ignore: give fail, pass or restart\n"},
        {{"--low-limit", "0"}, "--low-limit 0: RAM has to begin at 0: give 2M or more\n"},
        {{"--low-limit", "much"}, "--low-limit much: not a size: give a number with K, M, G or T, such as 256M\n"},
        {{"--memory", "much"}, "--memory much: not a size: give a number with K, M, G or T, such as 256M\n"},
        {{"--lock", "--lazy"},
         "--lock and --lazy contradict each other (what is locked is populated): give one of them\n"},
        {{"--no-tune", NULL}, "--no-tune goes with --kernel FILE only: it is of its command line\n"},
        {{"--on-reset", "fail"}, "--on-reset goes with --kernel FILE only: the self-test never resets itself\n"},
        {{"--trace", "-"}, "--trace -: give the name of a file, or of a FIFO that somebody reads\n"},
        {{"--trace", ""}, "--trace : give the name of a file, or of a FIFO that somebody reads\n"},
        {{"file", NULL}, "file: not an option\n"},
        {{"--memory", NULL}, "requires an argument\n"},
        {{"--node", NULL}, "requires an argument\n"},
        {{"--memory", "size=much"}, "--memory size=much: give size= a number with K, M, G or T, such as 256M\n"},
        {{"--memory", "size"}, "--memory size: not a size: give a number with K, M, G or T, such as 256M\n"},
        {{"--memory", "pages=1G"}, "--memory pages=1G: give it a size, such as size=1G\n"},
        {{"--memory", "size=1G,pages=3M"}, "pages=3M: give pages= 1G, 2M, thp, 4K or auto\n"},
        {{"--memory", "size=1G,pages"}, "--memory size=1G,pages: give pages= 1G, 2M, thp, 4K or auto\n"},
        {{"--memory", "size=1G,node=64"}, "give node= numbers from 0 to 63, such as 0, 0-1 or 0+2\n"},
        {{"--memory", "size=1G,node=2-1"}, "give node= numbers from 0 to 63, such as 0, 0-1 or 0+2\n"},
        {{"--memory", "size=1G,node=1+"}, "give node= numbers from 0 to 63, such as 0, 0-1 or 0+2\n"},
        {{"--memory", "size=1G,node=99999999999999999999"}, "give node= numbers from 0 to 63, such as 0, 0-1 or 0+2\n"},
        {{"--memory", "size=1G,policy=strict"}, "policy= goes with node= only: give both\n"},
        {{"--memory", "size=1G,node=0,policy=any"}, "give policy= strict, preferred or interleave\n"},
        {{"--memory", "size=1G,node=0-1,policy=preferred"}, "policy=preferred is for one node: give one\n"},
        {{"--memory", "size=1G,share=yes"}, "give share= on or off\n"},
        {{"--memory", "size=1G,populate=1"}, "give populate= on or off\n"},
        {{"--memory", "size=1G,lock=on,populate=off"},
         "lock=on and populate=off contradict each other (what is locked is populated): give one of them\n"},
        {{"--memory", "size=1G,pages=2M,size=2G"}, "a key is there twice: give it once\n"},
        {{"--memory", "size=1G,colour=red"}, "the keys are size, pages, node, policy, share, populate and lock\n"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *argv[] = {"loam run", cases[i].words[0], cases[i].words[1], NULL}, text[4096];

        cr_expect_eq(ending(argv, cases[i].words[1] != NULL ? 3 : 2, text, sizeof text), EXIT_CODE_USAGE, "%s",
                     cases[i].says);
        cr_expect_not_null(strstr(text, cases[i].says), "'%s' is not in: %s", cases[i].says, text);
    }
}

/* Parts say it for themselves. */
Test(options, parts_and_the_options_of_all_memory_contradict_each_other)
{
    static char *const others[][2] = {{"--pages", "2M"}, {"--node", "0"}, {"--lazy"}, {"--populate"}, {"--lock"}};
    char *both[] = {"loam run", "--memory", "1G", "--memory", "size=1G", NULL}, *many[20] = {"loam run"}, text[4096];

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char *argv[] = {"loam run", "--memory=size=1G", others[i][0], others[i][1], NULL}, expected[128];

        snprintf(expected, sizeof expected,
                 "%s and --memory size=SIZE,... contradict each other: each part says it for itself\n", others[i][0]);
        cr_expect_eq(ending(argv, others[i][1] != NULL ? 4 : 3, text, sizeof text), EXIT_CODE_USAGE);
        cr_expect_not_null(strstr(text, expected), "'%s' is not in: %s", expected, text);
    }
    cr_expect_eq(ending(both, 5, text, sizeof text), EXIT_CODE_USAGE);
    cr_expect_not_null(strstr(text, "give all RAM in parts, or none\n"), "%s", text);
    for (int i = 1; i < 19; i += 2) {
        many[i] = "--memory";
        many[i + 1] = "size=2M";
    }
    cr_expect_eq(ending(many, 17, text, sizeof text), 0);
    cr_expect_eq(ending(many, 19, text, sizeof text), EXIT_CODE_USAGE);
    cr_expect_not_null(strstr(text, "--memory size=2M: more than 8 parts: give fewer\n"), "%s", text);
}

/* Memory, machine, run. */
static unsigned group_of(const char *line)
{
    unsigned i = 0;

    while (i < OPTION_COUNT && (strncmp(line, all_options[i].name, strlen(all_options[i].name)) != 0 ||
                                strchr("= \n", line[strlen(all_options[i].name)]) == NULL)) {
        i++;
    }
    return i <= 7 ? 1 : i <= 14 ? 2 : 3;
}

static bool lists(const char *const pairs[][2], size_t count, const char *a, const char *b)
{
    for (size_t i = 0; i < count; i++) {
        if ((strcmp(pairs[i][0], a) == 0 && strcmp(pairs[i][1], b) == 0) ||
            (strcmp(pairs[i][0], b) == 0 && strcmp(pairs[i][1], a) == 0)) {
            return true;
        }
    }
    return false;
}

/* What the option goes with only, and the other is not; NULL: nothing. */
static const char *lacking(const char *name, const char *other)
{
    for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
        if (strcmp(needs[i][0], name) == 0 && strcmp(needs[i][1], other) != 0) {
            return needs[i][1];
        }
    }
    return NULL;
}

/* Of what one of them lacks there is a word. */
static bool says_lack(const char *text, const char *name, const char *wanted)
{
    char words[64];

    snprintf(words, sizeof words, "%s goes with --%s", name, wanted != NULL ? wanted : "");
    return wanted != NULL && strstr(text, words) != NULL;
}

static void check_pair(unsigned a, unsigned b)
{
    char *argv[8] = {"loam plan"}, text[4096], name[2][32];
    bool refused =
        lists(refused_pairs, sizeof refused_pairs / sizeof refused_pairs[0], all_options[a].name, all_options[b].name);
    const char *wanted[2] = {lacking(all_options[a].name, all_options[b].name),
                             lacking(all_options[b].name, all_options[a].name)};
    bool lacks = wanted[0] != NULL || wanted[1] != NULL;
    int count = 1, status;

    for (unsigned i = 0; i < 4; i++) {
        char *word = all_options[i < 2 ? a : b].words[i % 2];

        if (word != NULL) {
            argv[count++] = word;
        }
    }
    snprintf(name[0], sizeof name[0], "--%s", all_options[a].name);
    snprintf(name[1], sizeof name[1], "--%s", all_options[b].name);
    status = ending(argv, count, text, sizeof text);
    cr_expect_eq(status, refused || lacks ? EXIT_CODE_USAGE : 0, "%s %s: %d: %s", name[0], name[1], status, text);
    if (refused) {
        cr_expect(strstr(text, name[0]) != NULL && strstr(text, name[1]) != NULL && strstr(text, "contradict") != NULL,
                  "%s %s: %s", name[0], name[1], text);
    } else if (lacks) {
        cr_expect(says_lack(text, name[0], wanted[0]) || says_lack(text, name[1], wanted[1]), "%s %s: %s", name[0],
                  name[1], text);
    } else {
        cr_expect_str_empty(text, "%s %s: %s", name[0], name[1], text);
    }
}

Test(options, every_pair_is_refused_by_name_or_taken)
{
    for (unsigned a = 0; a < OPTION_COUNT; a++) {
        for (unsigned b = 0; b < OPTION_COUNT; b++) {
            if (a != b) {
                check_pair(a, b);
            }
        }
    }
}

Test(options, the_help_knows_every_option_and_explains_pairs)
{
    char *argv[] = {"loam run", "--help", NULL}, text[16384], line[64];
    unsigned listed = 0, group = 1;

    cr_assert_eq(ending(argv, 2, text, sizeof text), 0);
    for (size_t i = 0; i < sizeof explained_pairs / sizeof explained_pairs[0]; i++) {
        snprintf(line, sizeof line, "  --%s and --%s: ", explained_pairs[i][0], explained_pairs[i][1]);
        cr_expect_not_null(strstr(text, line), "no line '%s' in %s", line, text);
    }
    for (const char *at = text; (at = strstr(at, "\n")) != NULL; at++) {
        const char *option = strstr(at + 1, "--"), *end = strchr(at + 1, '\n');
        bool heads = option != NULL && end != NULL && option < end && option - at == 7 && strncmp(at + 1, "  ", 2) == 0;

        if (heads && strncmp(option, "--help", 6) != 0 && strncmp(option, "--usage", 7) != 0) {
            listed++;
            cr_expect_geq(group_of(option + 2), group, "%.20s stands among others", option);
            group = group_of(option + 2);
        }
    }
    cr_expect_eq(listed, OPTION_COUNT, "%u options in the help, %d in the table of this test", listed, OPTION_COUNT);
}
