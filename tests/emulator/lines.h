// SPDX-License-Identifier: Apache-2.0
/* Command lines as libvirt 9.0 writes them, with other names and paths, and what shorter ones are made of. For tests. */
#ifndef LOAM_TESTS_EMULATOR_LINES_H
#define LOAM_TESTS_EMULATOR_LINES_H

#include <stddef.h>

/* Words have one space between them; a '~' is a space within a word. */
#define LINES_SPACE '~'

/* What libvirt puts before, between and after what differs from domain to domain. */
#define LINES_SECRET  "-object secret,id=masterKey0,format=raw,file=/vm/master-key.aes "
#define LINES_START   "-name guest=vm,debug-threads=on -S " LINES_SECRET
#define LINES_MICROVM "-machine microvm,usb=off,dump-guest-core=off,memory-backend=microvm.ram -accel kvm "
#define LINES_MONITOR                                                                                                  \
    "-chardev socket,id=charmonitor,fd=22,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control "
#define LINES_UUID "-uuid 68b77593-3acb-4517-befb-26404722544a "
#define LINES_MIDDLE                                                                                                   \
    LINES_UUID "-display none -no-user-config -nodefaults " LINES_MONITOR                                              \
               "-rtc base=utc -no-shutdown -no-acpi -boot strict=on -kernel /vm/kernel "                               \
               "-append console=ttyS0~a,b~\"q\" "
#define LINES_ONE_CPU    "-overcommit mem-lock=off -smp 1,sockets=1,cores=1,threads=1 "
#define LINES_RAM        "-m 64 -object memory-backend-ram,id=microvm.ram,size=67108864 "
#define LINES_SERIAL     "-chardev pty,id=charserial0 " LINES_ISA_SERIAL
#define LINES_ISA_SERIAL "-device isa-serial,chardev=charserial0,id=serial0,index=0 "
#define LINES_AUDIO      "-audiodev {\"id\":\"audio1\",\"driver\":\"none\"} "
#define LINES_END        "-msg timestamp=on"

/* A domain with this memory, processors included; one with these devices; the least there is. */
#define LINES_WITH_MEMORY(machine, memory) LINES_START machine memory LINES_MIDDLE LINES_SERIAL LINES_AUDIO LINES_END
#define LINES_WITH(devices)                LINES_START LINES_MICROVM LINES_RAM LINES_ONE_CPU LINES_MIDDLE devices LINES_AUDIO LINES_END
#define LINES_LEAST                        "-machine microvm -accel kvm -m 64 "

struct line_vector {
    const char *name;
    const char *words;
};

/* All that Loam runs, in both forms: key=value, and JSON. */
extern const struct line_vector line_vectors[];
extern const size_t line_vector_count;

#define LINES_ARGUMENT_MAX 300

/* A line as main has it. */
struct line_argv {
    int argc;
    char *argv[LINES_ARGUMENT_MAX + 1];
    char *text;
};

/* The caller's, to be released; argv[0] is "loam-emulator". */
struct line_argv line_argv_of(const char *words);
void line_argv_release(struct line_argv *argv);

#endif
