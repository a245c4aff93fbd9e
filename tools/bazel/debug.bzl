"""A target as it is with debugging information, whatever the rest of the build is made with."""

def _with_symbols_impl(_settings, _attr):
    return {
        "//command_line_option:compilation_mode": "fastbuild",
        "//command_line_option:copt": ["-g"],
        "//command_line_option:linkopt": [],
        "//command_line_option:strip": "never",
    }

_with_symbols = transition(
    implementation = _with_symbols_impl,
    inputs = [],
    outputs = [
        "//command_line_option:compilation_mode",
        "//command_line_option:copt",
        "//command_line_option:linkopt",
        "//command_line_option:strip",
    ],
)

def _debug_impl(ctx):
    file = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [file],
        inputs = ctx.files.target,
        command = "cp {} {}".format(ctx.files.target[0].path, file.path),
    )
    return [DefaultInfo(files = depset([file]), runfiles = ctx.runfiles([file]))]

# The file of target, under this rule's name.
debug = rule(
    implementation = _debug_impl,
    attrs = {
        "target": attr.label(cfg = _with_symbols, allow_single_file = True),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
)
