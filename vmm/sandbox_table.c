// SPDX-License-Identifier: Apache-2.0
#include "vmm/sandbox_table.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define VCPU  SANDBOX_VCPU
#define REST  (SANDBOX_REST | SANDBOX_ANEW | SANDBOX_DEBUGGER | CTL)
#define GDB   (SANDBOX_DEBUGGER | SANDBOX_CONTROL)
#define ANEW  (SANDBOX_ANEW | CTL)
#define DOM   (SANDBOX_DOMAIN | SANDBOX_NETWORK)
#define NET   SANDBOX_NETWORK
#define CTL   (SANDBOX_CONTROL | DOM)
#define BOTH  (VCPU | REST)
#define TOOLS SANDBOX_SANITIZER

#define ANY                                                                                                            \
    {                                                                                                                  \
        0, 0, 0                                                                                                        \
    }
#define ARGUMENT(index, mask, value)                                                                                   \
    {                                                                                                                  \
        index, mask, value                                                                                             \
    }

/* The second argument of ioctl(2), all of its 32 bits. */
#define REQUEST(number) ARGUMENT(1, UINT32_MAX, (uint32_t)(number))

/* All requests of one kind, whatever their number, size and direction (asm-generic/ioctl.h: _IOC_TYPE). */
#define REQUESTS_OF(type) ARGUMENT(1, 0xff00, (type) << 8)

const struct sandbox_rule sandbox_rules[] = {
    /* The guest. */
    {"ioctl", VCPU, REQUEST(KVM_RUN), "the guest"},
    {"ioctl", VCPU, REQUEST(KVM_GET_REGS), "what an assist reads, and a report"},
    {"ioctl", VCPU, REQUEST(KVM_SET_REGS), "an instruction that was carried out"},
    {"ioctl", VCPU, REQUEST(KVM_GET_SREGS), "as KVM_GET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_SET_SREGS), "likewise: of an instruction that changes a control register"},
    {"ioctl", VCPU, REQUEST(KVM_GET_FPU), "as KVM_GET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_SET_FPU), "as KVM_SET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_GET_XSAVE), "as KVM_GET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_SET_XSAVE), "as KVM_SET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_GET_XCRS), "as KVM_GET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_SET_XCRS), "as KVM_SET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_GET_MSRS), "as KVM_GET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_SET_MSRS), "as KVM_SET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_GET_VCPU_EVENTS), "as KVM_GET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_SET_VCPU_EVENTS), "an instruction that raises an exception"},
    {"ioctl", VCPU, REQUEST(KVM_GET_DEBUGREGS), "as KVM_GET_REGS"},
    {"ioctl", VCPU, REQUEST(KVM_GET_MP_STATE), "whether the vCPU is halted"},
    {"ioctl", VCPU, REQUEST(KVM_GET_LAPIC), "whether anything can wake it"},
    {"ioctl", VCPU, REQUEST(KVM_TRANSLATE), "an address in a report"},
    {"ioctl", VCPU, REQUEST(KVM_INTERRUPT), "an interrupt of a controller outside KVM"},
    {"ioctl", VCPU, REQUEST(KVM_NMI), "an interrupt that cannot be masked"},
    {"ioctl", VCPU, REQUEST(KVM_SET_GUEST_DEBUG), "a debugger's breakpoints"},
    {"ioctl", VCPU, REQUEST(KVM_IRQ_LINE), "a device's interrupt"},
    {"ioctl", VCPU, REQUEST(KVM_SIGNAL_MSI), "likewise"},
    {"ioctl", VCPU, REQUEST(KVM_SET_GSI_ROUTING), "an interrupt controller that the guest has programmed"},
    {"ioctl", VCPU, REQUEST(KVM_CREATE_PIT2), "a PIT is made when the guest first touches it"},
    {"ioctl", VCPU, REQUEST(KVM_GET_PIT2), "what that touch reads"},
    {"ioctl", VCPU, REQUEST(KVM_SET_PIT2), "what it writes"},
    {"ioctl", REST, REQUESTS_OF(KVMIO), "a vCPU's calls, for they pass this filter too; pause and end of a machine"},

    /* Bytes to and from descriptors that were opened before. */
    {"read", BOTH, ANY, "keys, signals, events"},
    {"write", BOTH, ANY, "the console, the report, events"},
    {"readv", REST, ANY, "as read"},
    {"writev", REST, ANY, "as write"},
    {"pread64", REST, ANY, "a file that was opened before"},
    {"pwrite64", REST, ANY, "likewise"},
    {"lseek", BOTH, ANY, "streams of the C library"},
    {"close", BOTH, ANY, "what was open"},
    {"fstat", BOTH, ANY, "streams of the C library"},
    {"newfstatat", BOTH, ANY, "likewise; where a limit of the host's stands"},
    {"fcntl", BOTH, ANY, "whether a descriptor waits"},
    {"poll", BOTH, ANY, "signals, the end of the machine, keys, a reader that is slow"},
    {"ppoll", BOTH, ANY, "likewise"},
    {"signalfd4", REST, ANY, "which signals end the run"},
    {"eventfd2", REST, ANY, "how threads of a device are called"},
    {"timerfd_create", REST, ANY, "clocks of devices"},
    {"timerfd_settime", BOTH, ANY, "likewise"},
    {"ioctl", BOTH, REQUEST(TCGETS), "the terminal's state"},
    {"ioctl", BOTH, REQUEST(TCSETS), "it is as it was afterwards, whichever thread a signal ends"},
    {"ioctl", REST, REQUEST(TCSETSW), "likewise"},
    {"ioctl", REST, REQUEST(TCSETSF), "likewise"},
    {"getpgrp", REST, ANY, "whether this process is in the foreground"},
    {"getpgid", REST, ANY, "likewise"},
    {"ioctl", REST, REQUEST(TIOCGPGRP), "likewise"},
    {"ioctl", REST, REQUEST(TIOCGWINSZ), "streams of the C library"},

    /* What a report reads: Landlock leaves /proc and /sys alone to be read. */
    {"openat", BOTH, ARGUMENT(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
     "limits of the host, to explain memory that is missing"},
    {"readlink", BOTH, ANY, "likewise"},
    {"readlinkat", BOTH, ANY, "likewise"},
    {"getuid", BOTH, ANY, "whose limits they are"},
    {"geteuid", BOTH, ANY, "likewise"},
    {"getdents64", BOTH, ANY, "nodes and pools of hugepages"},

    /* A debugger's socket, which listens since before the guest began. */
    {"accept4", GDB | DOM, ANY, "the debugger comes; a client of QMP or of the console"},
    {"recvfrom", GDB | DOM, ANY, "what it asks"},
    {"sendto", GDB | DOM, ANY, "what it is told"},
    {"shutdown", GDB, ANY, "it goes"},
    {"setsockopt", GDB, ANY, "small packets are not held back"},
    {"unlink", GDB | DOM, ANY, "its socket goes with the run; Landlock leaves no other folder"},

    /* A libvirt domain: disks, QMP, a network of the guest's own. */
    {"preadv", DOM, ANY, "a disk"},
    {"preadv2", DOM, ANY, "likewise"},
    {"pwritev", DOM, ANY, "likewise"},
    {"pwritev2", DOM, ANY, "likewise"},
    {"fdatasync", DOM, ANY, "a disk's flush"},
    {"fsync", DOM, ANY, "likewise"},
    {"ioctl", DOM, REQUEST(BLKGETSIZE64), "a disk that is a block device"},
    {"ioctl", DOM, REQUEST(BLKSSZGET), "likewise"},
    {"ioctl", DOM, REQUEST(TUNGETIFF), "a network that is a TAP device"},
    {"ioctl", DOM, REQUEST(TUNSETOFFLOAD), "likewise"},
    {"ioctl", DOM, REQUEST(TUNSETVNETHDRSZ), "likewise"},
    {"getsockopt", CTL, ANY, "what a descriptor that was handed over is"},
    {"recvmsg", CTL, ANY, "a client of QMP, with descriptors"},
    {"sendmsg", CTL, ANY, "what it is told"},
    {"dup", CTL, ANY, "descriptors that it gave"},
    {"dup2", DOM, ANY, "a process that goes on in the background"},
    {"epoll_wait", CTL, ANY, "clients"},
    {"epoll_ctl", CTL, ANY, "likewise"},
    {"epoll_create1", CTL, ANY, "likewise"},
    {"socket", NET, ANY, "a connection of the guest's"},
    {"socketpair", NET, ANY, "likewise"},
    {"connect", NET, ANY, "likewise"},
    {"bind", NET, ANY, "likewise"},
    {"listen", NET, ANY, "likewise"},
    {"accept", NET, ANY, "likewise"},
    {"shutdown", NET, ANY, "its end"},
    {"setsockopt", NET, ANY, "its properties"},
    {"getsockname", NET, ANY, "its address"},
    {"getpeername", NET, ANY, "likewise"},
    {"ioctl", NET, REQUEST(FIONREAD), "how much there is to read"},
    {"ioctl", NET, REQUEST(FIONBIO), "it does not wait"},
    {"stat", NET, ANY, "whether the host has other name servers now"},
    {"uname", NET, ANY, "likewise"},

    /* Memory. */
    {"mmap", BOTH, ARGUMENT(2, PROT_EXEC, 0), "heap, stacks, guest memory; never code"},
    {"mprotect", BOTH, ARGUMENT(2, PROT_EXEC, 0), "guards of stacks; never code"},
    {"munmap", BOTH, ANY, "their end"},
    {"mremap", BOTH, ANY, "a heap that grows"},
    {"brk", BOTH, ANY, "likewise"},
    {"madvise", BOTH, ANY, "stacks that end, pages given back"},
    {"mincore", BOTH, ANY, "which memory is missing"},
    {"sysinfo", BOTH, ANY, "qsort(3) asks how much memory there is"},
    {"ioctl", REST, REQUESTS_OF(UFFDIO), "pages of a guest that is restored are brought"},
    {"membarrier", BOTH, ANY, "readers of the map, and caches of frames"},

    /* Threads, who are this process's own. */
    {"clone", REST, ARGUMENT(0, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND),
     "vCPUs' threads, and those of devices: threads and no processes"},
    {"set_robust_list", BOTH, ANY, "a thread begins"},
    {"rseq", BOTH, ANY, "likewise"},
    {"gettid", BOTH, ANY, "likewise"},
    {"prctl", BOTH, ARGUMENT(0, UINT32_MAX, PR_SET_NAME), "likewise"},
    {"prctl", REST, ARGUMENT(0, UINT32_MAX, PR_GET_TIMERSLACK), "the thread of the timer is exact"},
    {"prctl", REST, ARGUMENT(0, UINT32_MAX, PR_SET_TIMERSLACK), "likewise"},
    {"seccomp", REST, ANY, "a vCPU's thread takes its own filter"},
    {"sched_getaffinity", BOTH, ANY, "how large its stack may be"},
    {"prlimit64", BOTH, ARGUMENT(2, UINT64_MAX, 0), "likewise; limits are read, and not set"},
    {"futex", BOTH, ANY, "locks, and waiting for threads"},
    {"sched_yield", BOTH, ANY, "likewise"},
    {"getpid", BOTH, ANY, "a kick goes to this process"},
    {"tgkill", BOTH, ANY, "a kick calls a thread back"},
    {"exit", BOTH, ANY, "the end of a thread"},
    {"exit_group", BOTH, ANY, "the end of the process"},

    /* Signals and time. */
    {"rt_sigaction", BOTH, ANY, "what a signal does, and abort(3)"},
    {"rt_sigprocmask", BOTH, ANY, "which signals a thread hears"},
    {"rt_sigreturn", BOTH, ANY, "the end of a handler"},
    {"rt_sigpending", REST, ANY, "a signal that came last"},
    {"sigaltstack", BOTH, ANY, "memory that is missing is told of on a stack of its own"},
    {"restart_syscall", BOTH, ANY, "the kernel goes on after a stop"},
    {"clock_gettime", BOTH, ANY, "where the clock cannot be read without the kernel"},
    {"gettimeofday", BOTH, ANY, "likewise"},
    {"time", BOTH, ANY, "likewise"},
    {"clock_nanosleep", BOTH, ANY, "short waits"},
    {"nanosleep", BOTH, ANY, "likewise"},
    {"getrandom", BOTH, ANY, "the guest's entropy, and the heap's"},

    /* Another machine on fresh memory. */
    {"openat", ANEW, ARGUMENT(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDWR), "/dev/kvm; Landlock leaves no other"},
    {"memfd_create", ANEW, ANY, "guest memory"},
    {"ftruncate", ANEW, ANY, "its size"},
    {"fallocate", ANEW, ANY, "its pages"},
    {"mbind", ANEW, ANY, "its nodes"},
    {"get_mempolicy", ANEW, ANY, "likewise"},
    {"mlock", ANEW, ANY, "memory that is locked"},
    {"mlock2", ANEW, ANY, "likewise"},
    {"statfs", ANEW, ANY, "what kind a file is of"},
    {"fstatfs", ANEW, ANY, "likewise"},
    {"access", ANEW, ANY, "what the host has"},
    {"faccessat", ANEW, ANY, "likewise"},
    {"clone", ANEW, ARGUMENT(0, CLONE_THREAD, 0), "small pages are given back by a process that is left behind"},
    {"wait4", ANEW, ANY, "likewise"},
    {"setsid", ANEW, ANY, "likewise"},

    /* Sanitizers. */
    {"mmap", TOOLS, ANY, "shadow memory"},
    {"mprotect", TOOLS, ANY, "likewise"},
    {"mlock", TOOLS, ANY, "likewise"},
    {"openat", TOOLS, ANY, "the program's own map, and the report"},
    {"open", TOOLS, ANY, "likewise"},
    {"clone", TOOLS, ANY, "the search for leaks"},
    {"ptrace", TOOLS, ANY, "likewise"},
    {"prctl", TOOLS, ANY, "likewise"},
    {"wait4", TOOLS, ANY, "likewise"},
    {"kill", TOOLS, ANY, "likewise"},
    {"process_vm_readv", TOOLS, ANY, "likewise"},
    {"pipe2", TOOLS, ANY, "whether an address can be read"},
    {"pipe", TOOLS, ANY, "likewise"},
    {"stat", TOOLS, ANY, "the report"},
    {"lstat", TOOLS, ANY, "likewise"},
    {"unlink", TOOLS, ANY, "likewise"},
    {"fork", TOOLS, ANY, "names for a report, by a program of their own"},
    {"execve", TOOLS, ANY, "likewise"},
    {"readlink", TOOLS, ANY, "likewise"},
    {"getppid", TOOLS, ANY, "the search for leaks"},
    {"getdents", TOOLS, ANY, "likewise"},
    {"getrusage", TOOLS, ANY, "likewise"},
    {"getrlimit", TOOLS, ANY, "likewise"},
    {"setrlimit", TOOLS, ANY, "likewise"},
    {"prlimit64", TOOLS, ANY, "likewise"},
    {"dup", TOOLS, ANY, "the report"},
    {"dup2", TOOLS, ANY, "likewise"},
    {"uname", TOOLS, ANY, "what the kernel is"},
    {"arch_prctl", TOOLS, ANY, "the thread that searches for leaks"},
    {"personality", TOOLS, ANY, "likewise"},
};

const size_t sandbox_rule_count = sizeof sandbox_rules / sizeof sandbox_rules[0];
