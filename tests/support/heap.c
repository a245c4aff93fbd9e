// SPDX-License-Identifier: Apache-2.0
#include "tests/support/heap.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_MAX   8192
#define GUARD_BYTES 64u
#define GUARD_BYTE  0xa5

void *__real_malloc(size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void __wrap_free(void *memory);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned char *memory; /* GUARD_BYTES more lie behind it */
    size_t bytes;
} blocks[BLOCK_MAX]; /* those in use lie below block_end */
static uint32_t block_end, block_count, call_count, failing_call;

static bool may_allocate(void)
{
    bool may;

    pthread_mutex_lock(&lock);
    may = ++call_count != failing_call;
    pthread_mutex_unlock(&lock);
    if (!may) {
        errno = ENOMEM;
    }
    return may;
}

static uint32_t find(const void *memory)
{
    uint32_t i = 0;

    while (i < block_end && blocks[i].memory != memory) {
        i++;
    }
    return i;
}

static void die(const char *why)
{
    fprintf(stderr, "heap: %s\n", why);
    abort();
}

/* A block of bytes and what guards its end. */
static void *allocate(size_t bytes)
{
    unsigned char *memory =
        may_allocate() && bytes <= SIZE_MAX - GUARD_BYTES ? __real_malloc(bytes + GUARD_BYTES) : NULL;
    uint32_t i;

    if (memory == NULL) {
        return NULL;
    }
    memset(memory + bytes, GUARD_BYTE, GUARD_BYTES);
    pthread_mutex_lock(&lock);
    i = find(NULL);
    if (i == BLOCK_MAX) {
        die("too many blocks to follow");
    }
    blocks[i].memory = memory;
    blocks[i].bytes = bytes;
    block_end += i == block_end;
    block_count++;
    pthread_mutex_unlock(&lock);
    return memory;
}

/* Returns the bytes of the block; 0 of one that a library allocated, and that is freed here. */
static size_t forget(const void *memory)
{
    size_t bytes = 0;
    uint32_t i;

    pthread_mutex_lock(&lock);
    i = find(memory);
    if (i < block_end) {
        bytes = blocks[i].bytes;
        for (uint32_t at = 0; at < GUARD_BYTES; at++) {
            if (blocks[i].memory[bytes + at] != GUARD_BYTE) {
                die("written behind the end of a block");
            }
        }
        blocks[i].memory = NULL;
        block_count--;
    }
    pthread_mutex_unlock(&lock);
    return bytes;
}

void *__wrap_malloc(size_t bytes)
{
    return allocate(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *memory = bytes == 0 || count <= SIZE_MAX / bytes ? allocate(count * bytes) : NULL;

    return memory != NULL ? memset(memory, 0, count * bytes) : NULL;
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    void *moved = allocate(bytes);

    if (moved != NULL && memory != NULL) {
        size_t old_bytes = forget(memory);

        memcpy(moved, memory, old_bytes < bytes ? old_bytes : bytes);
        __real_free(memory);
    }
    return moved;
}

void __wrap_free(void *memory)
{
    if (memory != NULL) {
        forget(memory);
    }
    __real_free(memory);
}

void heap_fail(uint32_t call)
{
    pthread_mutex_lock(&lock);
    failing_call = call;
    call_count = 0;
    pthread_mutex_unlock(&lock);
}

uint32_t heap_call_count(void)
{
    return call_count;
}

uint32_t heap_block_count(void)
{
    return block_count;
}
