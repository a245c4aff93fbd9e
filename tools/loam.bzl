"""Rules for who builds on Loam: guests of one's own, and tests that run guests on microVMs."""

load("//tools/bazel:loam.bzl", "WARNINGS")

# --- Guests ----------------------------------------------------------------------------------------------------------
#
# They are built by the compiler alone, not by cc_binary: options for the host's programs, a sanitizer's above all, do not
# reach them. Nor does hardening: there is no thread block for a stack's guard, no C library to check bounds or to end in,
# no loader to relocate, and a boot loader puts them where they are linked.

_GUEST_COPTS = WARNINGS + [
    "-m64",
    "-std=c17",
    "-O2",
    "-g",
    "-ffreestanding",
    "-ffunction-sections",
    "-fno-asynchronous-unwind-tables",
    "-fno-delete-null-pointer-checks",  # a page at address 0 is RAM
    "-fno-pic",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-mcmodel=small",
    "-mgeneral-regs-only",  # no SSE: weak hosts do not emulate it
    "-mno-red-zone",
    "-Wno-unused-command-line-argument",  # clang says so of what only its other half uses
]

_GUEST_LINKOPTS = [
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,--gc-sections",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
]

_RUNTIME = str(Label("//guest:runtime"))
_HEADERS = str(Label("//guest:headers"))
_SCRIPT = str(Label("//guest:guest.lds"))
_WERROR = str(Label("//:werror"))

def loam_guest_binary(name, srcs, hdrs = [], copts = [], interrupts = False, runtime = True, strip = False, **kwargs):
    """A freestanding guest: NAME.elf, for any hypervisor that boots PVH. See guest/write-your-own.md.

    Args:
      name: of the target; the file is NAME.elf.
      srcs: C and assembler (.S); one of them defines guest_main (guest/guest.h).
      hdrs: what they include beside the headers of //guest, which is found as "guest/NAME.h".
      copts: further options for the compiler.
      interrupts: whether it ever enables them. Without, the VMM gives it no interrupt controllers, and its first HLT is
        its end.
      runtime: link start.S and the rest of //guest:runtime, of which only what is called stays in; else srcs define start.
      strip: leave out symbols and debugging information.
      **kwargs: as of any rule: visibility, testonly, tags.
    """
    command = ["$(CC)"] + _GUEST_COPTS + _GUEST_LINKOPTS + (["-DLOAM_GUEST_INTERRUPTS"] if interrupts else []) + copts + [
        "-iquote .",
        "-iquote $$(dirname $(location %s))/.." % _SCRIPT,
        "-Wl,-T,$(location %s)" % _SCRIPT,
    ] + (["-s"] if strip else [])
    inputs = ["$(locations %s)" % src for src in srcs + ([_RUNTIME] if runtime else [])]
    native.genrule(
        name = name,
        srcs = srcs + hdrs + [_HEADERS, _SCRIPT] + ([_RUNTIME] if runtime else []),
        outs = [name + ".elf"],
        cmd = " ".join(command) + select({
            _WERROR: " -Werror",
            "//conditions:default": "",
        }) + " -o $@ " + " ".join(inputs),
        executable = True,
        message = "Building the guest",
        toolchains = ["@bazel_tools//tools/cpp:current_cc_toolchain"],
        **kwargs
    )

# --- Tests on microVMs -----------------------------------------------------------------------------------------------

def loam_vm_test(
        name,
        kernel,
        memory = "256M",
        pages = "auto",
        vcpus = 1,
        cmdline = "",
        initrd = None,
        expect = 0,
        timeout = 60,
        env = {},
        **kwargs):
    """A test that launches a microVM and judges how it ends and what it says on its serial console.

    Tests that run at once share the host's pools of hugepages: pages = "auto" falls back to smaller pages when they are
    short; a size that is named is waited for, as long as timeout.

    A host without /dev/kvm fails the test; with --test_env=LOAM_VM_TEST_WITHOUT_KVM=skip it passes there, and says so.

    Args:
      name: of the target.
      kernel: a PVH ELF file (loam_guest_binary) or a Linux image.
      memory: of the guest; K, M, G and T are binary.
      pages: "1G", "2M", "thp", "4K" or "auto".
      vcpus: virtual processors.
      cmdline: command line for the kernel.
      initrd: initial RAM disk for the kernel, or None.
      expect: a number: the exit status of `loam run`, which for 0, 1 and 5 to 123 is what the guest wrote to its exit port.
        A string: an extended regular expression that a line of the serial console matches; the status is 0 then.
      timeout: seconds that the guest may take; populating its memory counts.
      env: more environment for the test.
      **kwargs: as of any test: size, tags, visibility, flaky.
    """
    loam = str(Label("//vmm:loam"))
    native.sh_test(
        name = name,
        srcs = [str(Label("//tools:vm_test.sh"))],
        data = [kernel, loam] + ([initrd] if initrd else []),
        env = dict({
            "LOAM_VM_TEST_PROGRAM": "$(rootpath %s)" % loam,
            "LOAM_VM_TEST_KERNEL": "$(rootpath %s)" % kernel,
            "LOAM_VM_TEST_INITRD": "$(rootpath %s)" % initrd if initrd else "",
            "LOAM_VM_TEST_CMDLINE": cmdline.replace("$", "$$"),
            "LOAM_VM_TEST_MEMORY": memory,
            "LOAM_VM_TEST_PAGES": pages,
            "LOAM_VM_TEST_VCPUS": str(vcpus),
            "LOAM_VM_TEST_STATUS": str(expect) if type(expect) == "int" else "0",
            "LOAM_VM_TEST_SERIAL": "" if type(expect) == "int" else expect.replace("$", "$$"),
            "LOAM_VM_TEST_TIMEOUT": str(timeout),
        }, **env),
        timeout = _bazel_timeout(2 * timeout + 5),
        **kwargs
    )

def _bazel_timeout(seconds):
    for name, most in [("short", 60), ("moderate", 300), ("long", 900)]:
        if seconds <= most:
            return name
    return "eternal"
