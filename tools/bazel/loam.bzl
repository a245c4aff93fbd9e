"""One module = one header, one .c, one test, one target: the rules that all packages use."""

# That a warning is an error is Loam's own affair: .bazelrc says so, which another workspace does not read.
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wundef",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
]

STANDARD = [
    "-std=c17",
    "-D_GNU_SOURCE",
]

FORTIFY = [
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=3",
]

# What the compiler does against mistakes that are still there, for C and assembler of the host. The guests are without:
# they are freestanding, see //guest. Of what else compilers offer, tried and left out: branch tracking and variables
# that begin as zero cost the allocator's shortest calls instructions, and the latter hides mistakes from valgrind.
HARDENING = [
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-fcf-protection=return",
] + select({
    # Bounds checked by the C library want an optimiser, and stand in the way of a sanitizer's own checks.
    "//:sanitized": [],
    "//:optimised": FORTIFY,
    "//:sanitized_optimised": [],
    "//conditions:default": [],
})

COPTS = STANDARD + WARNINGS + HARDENING

# Nothing writable is executable, no data lies in the code's segment, and what is relocated is read-only once it is. The
# linker is named because gold, which Bazel prefers, has no separate-code.
LINKOPTS = [
    "-fuse-ld=bfd",
    "-Wl,-z,relro",
    "-Wl,-z,now",
    "-Wl,-z,noexecstack",
    "-Wl,-z,separate-code",
    "-Wl,--as-needed",
]

# A program that needs no library at run time; a sanitizer needs its own.
STATIC_PIE = select({
    "//:sanitized": ["-pie"],
    "//conditions:default": ["-static-pie"],
})

def loam_module(
        name,
        srcs = None,
        hdrs = None,
        copts = [],
        alwayslink = True,
        visibility = ["//:__subpackages__"],
        **kwargs):
    """A module: NAME.c and NAME.h unless it says otherwise."""
    native.cc_library(
        name = name,
        srcs = [name + ".c"] if srcs == None else srcs,
        hdrs = [name + ".h"] if hdrs == None else hdrs,
        copts = COPTS + copts,
        # Whole modules, in whatever order the linker meets them: a shared library exports what nothing in it uses.
        alwayslink = alwayslink,
        linkstatic = True,
        visibility = visibility,
        **kwargs
    )

# Fresh heap memory is full of this byte, and so is what was freed: nothing passes because memory happens to be zero.
HEAP_FILL = {"MALLOC_PERTURB_": "165"}

def loam_test(name, srcs = None, deps = [], copts = [], linkopts = [], env = {}, **kwargs):
    """A Criterion test: NAME.c, linked with the project's test main."""
    native.cc_test(
        name = name,
        srcs = [name + ".c"] if srcs == None else srcs,
        deps = deps + ["//tests/support:main"],
        copts = COPTS + copts,
        # Criterion finds its cases in a section that nobody refers to.
        linkopts = linkopts + ["-Wl,--no-gc-sections"],
        env = dict(HEAP_FILL, **env),
        linkstatic = True,
        **kwargs
    )

def loam_binary(name, copts = [], linkopts = [], static = False, linkshared = False, **kwargs):
    """A program, or a shared library if linkshared. A static one needs no library at run time."""
    native.cc_binary(
        name = name,
        copts = COPTS + copts,
        features = ["-supports_start_end_lib"],  # of gold alone
        linkopts = LINKOPTS + linkopts + ([] if linkshared else STATIC_PIE if static else ["-pie"]),
        linkshared = linkshared,
        **kwargs
    )
