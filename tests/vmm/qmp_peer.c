// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/qmp_peer.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

bool qmp_peer_send(int fd, const char *bytes, size_t count, const int *descriptors, size_t descriptor_count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(QMP_PEER_DESCRIPTOR_MAX * sizeof(int))] = {0};
    struct iovec part = {(char *)bytes, count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (descriptor_count > 0) {
        struct cmsghdr *header = (struct cmsghdr *)control;

        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(descriptor_count * sizeof(int));
        *header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(descriptor_count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(header), descriptors, descriptor_count * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)count;
}

size_t qmp_peer_receive(int fd, char *text, size_t room)
{
    size_t have = 0;
    ssize_t got;

    while (have < room - 1 && (got = recv(fd, text + have, room - 1 - have, MSG_DONTWAIT)) > 0) {
        have += (size_t)got;
    }
    text[have] = '\0';
    return have;
}

bool qmp_peer_is_hung_up(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);

    return got == 0 || (got < 0 && errno != EAGAIN);
}

unsigned qmp_peer_count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    while (directory != NULL && readdir(directory) != NULL) {
        count++;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}

int qmp_peer_file(const char *text)
{
    int fd = memfd_create("qmp", MFD_CLOEXEC);

    if (fd >= 0 && pwrite(fd, text, strlen(text), 0) != (ssize_t)strlen(text)) {
        close(fd);
        return -1;
    }
    return fd;
}
