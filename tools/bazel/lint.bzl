"""clang-tidy and clang-format as build actions, whose logs //tests/lint reads: only what changed is checked again."""

LINT = select({
    "//:lint": True,
    "//conditions:default": False,
})

def _run(ctx, tool, log, command, inputs):
    """The log: "off", "missing TOOL", or lines "checked FILE" and what the tool has to say of them."""
    if not ctx.attr.enabled:
        ctx.actions.write(log, "off\n")
        return
    ctx.actions.run_shell(
        outputs = [log],
        inputs = inputs,
        command = """
            if ! command -v {tool} >/dev/null; then echo "missing {tool}" >{log}; exit; fi
            {command} 2>&1 | sed "s|$PWD/||g" >{log}
        """.format(tool = tool, log = log.path, command = command),
        mnemonic = "Lint",
        progress_message = tool + " " + log.short_path,
        use_default_shell_env = True,
    )

def _lint_impl(ctx):
    own = [file for file in ctx.files.srcs + ctx.files.hdrs if file.is_source and file.extension in ["c", "h", "cc"]]
    contexts = [dep[CcInfo].compilation_context for dep in ctx.attr.deps if CcInfo in dep]
    headers = depset(own + ctx.files.headers, transitive = [context.headers for context in contexts])
    include = depset(transitive = [context.includes for context in contexts]).to_list()
    logs = []
    for file in own:
        if file.extension != "c":
            continue
        log = ctx.actions.declare_file("{}/{}.tidy".format(ctx.label.name, file.basename))
        _run(
            ctx,
            "clang-tidy-14",
            log,
            "{{ echo checked {file}; clang-tidy-14 --quiet {file} -- {options}; }}".format(
                file = file.path,
                options = " ".join(
                    (["-include tools/bazel/lint.h"] if file.basename != "error.c" else []) +
                    ["-std=c17", "-D_GNU_SOURCE", "-iquote .", "-iquote " + ctx.bin_dir.path, "-Iallocator/include"] +
                    ["-I" + path for path in include] +
                    ["-isystem /usr/include/libxml2"] +
                    ["'-D{}'".format(define) for define in ctx.attr.local_defines],
                ),
            ),
            depset(ctx.files.tidy, transitive = [headers]),
        )
        logs.append(log)
    if own:
        log = ctx.actions.declare_file(ctx.label.name + "/format")
        paths = " ".join([file.path for file in own])
        _run(
            ctx,
            "clang-format-14",
            log,
            "{ printf 'checked %s\\n' " + paths + "; clang-format-14 --dry-run -Werror " + paths + "; }",
            own + ctx.files.format,
        )
        logs.append(log)
    return [DefaultInfo(files = depset(logs), runfiles = ctx.runfiles(logs))]

def _lint_each_impl(ctx):
    logs = []
    for file in ctx.files.srcs:
        for name, command in ctx.attr.commands.items():
            log = ctx.actions.declare_file("{}/{}.{}".format(ctx.label.name, file.short_path.replace("/", "_"), name.replace(" ", "_")))
            _run(
                ctx,
                name.split(" ")[0],
                log,
                "{ echo checked " + file.path + "; " + command.format(file.path) + "; }",
                ctx.files.srcs + ctx.files.data,
            )
            logs.append(log)
    return [DefaultInfo(files = depset(logs), runfiles = ctx.runfiles(logs))]

# Each file under each of the commands, in which {} is the file, and whose names start with their program.
lint_each = rule(
    implementation = _lint_each_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True),
        "data": attr.label_list(allow_files = True),
        "commands": attr.string_dict(),
        "enabled": attr.bool(),
    },
)

_lint = rule(
    implementation = _lint_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True),
        "hdrs": attr.label_list(allow_files = True),
        "deps": attr.label_list(allow_files = True),  # a linker script is one
        "local_defines": attr.string_list(),
        "enabled": attr.bool(),
        "headers": attr.label_list(allow_files = True, default = ["//allocator:public_headers", "//guest:headers", "//tools/bazel:lint.h"]),
        "tidy": attr.label_list(allow_files = True, default = ["//:.clang-tidy", "//:tests/.clang-tidy", "//tools/bench:.clang-tidy"]),
        "format": attr.label_list(allow_files = True, default = ["//:.clang-format"]),
    },
)

def lint(srcs = [], hdrs = []):
    """Check the sources of all targets above this call in a BUILD file, and srcs and hdrs that none of them names."""
    names = []
    rules = native.existing_rules()
    for name in sorted(rules):
        if rules[name]["kind"] in ["cc_binary", "cc_library", "cc_test"]:
            names.append(name + ".lint")
            _lint(
                name = name + ".lint",
                testonly = True,
                srcs = rules[name]["srcs"],
                hdrs = rules[name].get("hdrs", []),
                deps = rules[name]["deps"],
                local_defines = rules[name]["local_defines"],
                enabled = LINT,
            )
    if srcs or hdrs:
        names.append("others.lint")
        _lint(
            name = "others.lint",
            testonly = True,
            srcs = srcs,
            hdrs = hdrs,
            enabled = LINT,
        )
    native.filegroup(
        name = "lint",
        testonly = True,
        srcs = names,
        visibility = ["//tests/lint:__pkg__"],
    )
