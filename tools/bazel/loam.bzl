"""One module = one header, one .c, one test, one target: the rules that all packages use."""

WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wundef",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
]

# Link options of a program that needs no library at run time; a sanitizer needs its own.
STATIC = select({
    "//:sanitized": [],
    "//conditions:default": ["-static"],
})

def loam_module(name, srcs = None, hdrs = None, copts = [], visibility = ["//:__subpackages__"], **kwargs):
    """A module: NAME.c and NAME.h unless it says otherwise."""
    native.cc_library(
        name = name,
        srcs = [name + ".c"] if srcs == None else srcs,
        hdrs = [name + ".h"] if hdrs == None else hdrs,
        copts = WARNINGS + copts,
        # Whole modules, in whatever order the linker meets them: a shared library exports what nothing in it uses.
        alwayslink = True,
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
        copts = WARNINGS + copts,
        # Criterion finds its cases in a section that nobody refers to.
        linkopts = linkopts + ["-Wl,--no-gc-sections"],
        env = dict(HEAP_FILL, **env),
        linkstatic = True,
        **kwargs
    )
