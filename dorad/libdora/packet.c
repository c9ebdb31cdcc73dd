/* Packets: one JSON object with descriptors each; see dorad/node/protocol.py. */

#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_PACKET (1 << 16)
#define MAX_LARGE (1 << 26)

#ifndef F_SEAL_WRITE
#define F_GET_SEALS 1034
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#define F_SEAL_WRITE 8
#endif

char *read_sealed(int descriptor, size_t limit, size_t *size)
{
    const int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int seals = fcntl(descriptor, F_GET_SEALS);
    struct stat status;
    /* Only of sealed memory: its bytes never change meanwhile, and reading never blocks. */
    if (seals < 0 || (seals & sealed) != sealed || fstat(descriptor, &status) < 0 ||
        (uint64_t)status.st_size > limit)
        return NULL;
    char *text = must(malloc((size_t)status.st_size + 1));
    size_t done = 0;
    while (done < (size_t)status.st_size) {
        ssize_t got = pread(descriptor, text + done, (size_t)status.st_size - done, (off_t)done);
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    text[done] = 0;
    *size = done;
    return text;
}

static void close_all(struct packet *packet)
{
    for (int at = 0; at < packet->count; at++)
        close(packet->descriptors[at]);
    packet->count = 0;
}

void packet_free(struct packet *packet)
{
    close_all(packet);
    json_free(&packet->arena);
}

bool packet_take(struct packet *packet, int *descriptors, int count)
{
    if (packet->count != count)
        return false;
    memcpy(descriptors, packet->descriptors, (size_t)count * sizeof *descriptors);
    packet->count = 0;
    return true;
}

static void take_descriptors(struct packet *packet, struct msghdr *message)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL;
         each = CMSG_NXTHDR(message, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
            continue;
        int count = (int)((each->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int at = 0; at < count; at++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(each) + (size_t)at * sizeof(int), sizeof descriptor);
            if (packet->count < MAX_DESCRIPTORS)
                packet->descriptors[packet->count++] = descriptor;
            else
                close(descriptor);
        }
    }
}

static bool read_fields(struct packet *packet, const char *text, size_t size)
{
    packet->fields = json_read(&packet->arena, text, size);
    packet->kind = json_string(packet->fields, "t");
    return packet->kind != NULL;
}

/* Read the content of a packet that lies in a file. */
static bool read_large(struct packet *packet)
{
    if (packet->count == 0)
        return false;
    int content = packet->descriptors[--packet->count];
    size_t size;
    char *text = read_sealed(content, MAX_LARGE, &size);
    close(content);
    bool done = text != NULL && read_fields(packet, text, size);
    free(text);
    return done;
}

int packet_receive(int socket, struct packet *packet, int flags)
{
    static _Thread_local char data[MAX_PACKET + 1];
    union {
        char room[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec into = {data, sizeof data};
    struct msghdr message = {
        .msg_iov = &into,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof control.room,
    };
    *packet = (struct packet){0};
    ssize_t size;
    do
        size = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return -1;
    take_descriptors(packet, &message);
    if (size == 0) {
        close_all(packet);
        return 0;
    }
    bool whole = !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && size <= MAX_PACKET &&
                 read_fields(packet, data, (size_t)size);
    if (whole && json_true(packet->fields, "large"))
        whole = read_large(packet);
    if (!whole) {
        packet_free(packet);
        fail(message.msg_flags & MSG_CTRUNC
                 ? "descriptors were lost: this process has too many files open (see `ulimit -n`)"
                 : "the daemon sent a packet that is not valid");
        errno = EPROTO;
        return -1;
    }
    return 1;
}

int packet_send(int socket, const char *text, size_t size)
{
    ssize_t sent;
    do
        sent = send(socket, text, size, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}
