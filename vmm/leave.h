// SPDX-License-Identifier: Apache-2.0
/*
 * The end of a process that is told to end while it holds much memory in small pages.
 *
 * The kernel takes a process's memory back before its parent hears of the end, and for 4 KiB pages that takes a sixth of
 * a second a GiB. Who is told to end shall end at once: so a second process is left behind, which shares this one's
 * memory (clone(2), CLONE_VM) and nothing else. It ends when the last thread of this one has ended (pidfd_open(2)), and
 * the kernel takes the memory back in its name. It is gone as soon as the memory is.
 */
#ifndef LOAM_VMM_LEAVE_H
#define LOAM_VMM_LEAVE_H

/*
 * End this process with exit_status, at once; nothing is flushed. Where no process can be left behind (RLIMIT_NPROC,
 * pids.max), its memory is taken back first. Any thread, once; the others are ended.
 */
_Noreturn void leave(int exit_status);

#endif
