// SPDX-License-Identifier: Apache-2.0
/*
 * A program as a test runs it: started with arguments, its output gathered, its end awaited, never for longer than
 * told. Threads: one process object is used by one thread.
 */
#ifndef LOAM_TEST_PROCESS_H
#define LOAM_TEST_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESS_OUTPUT_MAX (1u << 20)

struct process {
    pid_t pid;
    int input;         /* write end of its standard input; or the terminal's master */
    int output, error; /* read ends; error is -1 on a terminal; each is -1 where there is no pipe */
    int64_t deadline;  /* in milliseconds of CLOCK_MONOTONIC */
    char *out, *err;   /* what it has written so far, NUL-terminated; freed by process_end */
    size_t out_bytes, err_bytes;
    bool timed_out;
    int status; /* exit status; 128 + N after signal N; -1 before its end */
};

/* Start argv[0] (NULL-terminated argv), with pipes. false: it could not be started. */
bool process_start(struct process *process, char *const argv[], int timeout_milliseconds);

/* The same; where one of descriptors, for 0 to 2, is not -1, the program has that instead of a pipe. */
bool process_start_with(struct process *process, char *const argv[], const int descriptors[3],
                        int timeout_milliseconds);

/* The same on a new terminal of its own: input and output are the terminal. */
bool process_start_on_terminal(struct process *process, char *const argv[], int timeout_milliseconds);

/* Wait for output and take what there is. false: nothing more will come, or time is up. */
bool process_read(struct process *process);

/* Read on until text stands in its output (out), or it ends or time is up. Returns whether text is there. */
bool process_expect(struct process *process, const char *text);

/* Write text to its input. */
bool process_type(struct process *process, const char *text);

/* Read on until it ends (killed when time is up). Returns its status. */
int process_wait(struct process *process);

/* Kill it if it runs, and free everything. */
void process_end(struct process *process);

/* Start, close its input, wait; process_end is the caller's. Returns its status, or -1. */
int process_run(struct process *process, char *const argv[], int timeout_milliseconds);

#endif
