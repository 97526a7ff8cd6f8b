/* Streams answers over HTTP, each token at its due time: epoll, one timerfd, a heap of streams.
 *
 * Run as `timerfd_server HEAD ROLE TOKEN END PORT` it shows the least that a paced stream can cost
 * on this machine, and how late the machine itself lets a token be. HEAD are the response's status and headers; ROLE, TOKEN and END are the events, each
 * sent as one HTTP chunk in one write. Of a request it reads X-TTFT-MS, X-ITL-MS and
 * X-OUTPUT-LENGTH; a GET is answered with an empty 200. It closes the connection after an answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STREAMS = 1 << 16, MAX_REQUEST = 4096, MAX_EVENT = 4096, NS_PER_S = 1000000000 };

struct stream {
    int fd;
    int tokens_left;
    int begun; /* the role has been sent */
    int64_t due_ns, itl_ns;
    size_t got; /* bytes of the request */
    char request[MAX_REQUEST + 1];
};

struct chunk {
    size_t size;
    char bytes[2 * MAX_EVENT + 64];
};

static struct stream *heap[MAX_STREAMS];
static int heap_size, poller;
static struct chunk head, first, token, end;

static void check(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)NS_PER_S + now.tv_nsec;
}

static void append_chunk(struct chunk *to, const char *event) {
    if (strlen(event) > MAX_EVENT) {
        fprintf(stderr, "an event has more than %d bytes\n", MAX_EVENT);
        exit(1);
    }
    to->size += sprintf(to->bytes + to->size, "%zx\r\n%s\r\n", strlen(event), event);
}

static void push(struct stream *stream) {
    int at = heap_size++;
    while (at && heap[(at - 1) / 2]->due_ns > stream->due_ns) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = stream;
}

/* Put a stream in the place of the earliest, which has left or is itself due later now. */
static void sink(struct stream *stream) {
    int at = 0;
    for (int child; (child = 2 * at + 1) < heap_size; at = child) {
        if (child + 1 < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns)
            child++;
        if (heap[child]->due_ns >= stream->due_ns)
            break;
        heap[at] = heap[child];
    }
    heap[at] = stream;
}

static void drop(struct stream *stream) {
    close(stream->fd);
    free(stream);
}

static int send_chunk(struct stream *stream, const struct chunk *chunk) {
    return write(stream->fd, chunk->bytes, chunk->size) == (ssize_t)chunk->size;
}

/* Send the earliest stream's next token; a stream that ends or is not read leaves the heap. */
static void step(void) {
    struct stream *stream = heap[0];
    int sent = send_chunk(stream, stream->begun ? &token : &first);
    stream->begun = 1;
    stream->due_ns += stream->itl_ns;
    if (sent && --stream->tokens_left > 0) {
        sink(stream);
        return;
    }
    if (sent)
        send_chunk(stream, &end);
    if (--heap_size)
        sink(heap[heap_size]);
    drop(stream);
}

static double header(const struct stream *stream, const char *name) {
    const char *found = strcasestr(stream->request, name);
    return found ? strtod(found + strlen(name), NULL) : 0;
}

/* Read what has come; with a whole request the stream goes to the heap, with none it ends. */
static void read_request(struct stream *stream, int64_t ns) {
    ssize_t more = read(stream->fd, stream->request + stream->got, MAX_REQUEST - stream->got);
    if (more <= 0) {
        drop(stream);
        return;
    }
    stream->got += more;
    stream->request[stream->got] = 0;
    const char *body = strstr(stream->request, "\r\n\r\n");
    size_t length = header(stream, "\ncontent-length:");
    if (!body || stream->got < (size_t)(body + 4 - stream->request) + length)
        return;
    if (!strncmp(stream->request, "GET ", 4) || heap_size == MAX_STREAMS) {
        dprintf(stream->fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        drop(stream);
        return;
    }
    stream->tokens_left = header(stream, "\nx-output-length:");
    stream->itl_ns = header(stream, "\nx-itl-ms:") * 1e6;
    stream->due_ns = ns + (int64_t)(header(stream, "\nx-ttft-ms:") * 1e6);
    epoll_ctl(poller, EPOLL_CTL_DEL, stream->fd, NULL);
    send_chunk(stream, &head);
    push(stream);
}

static void watch(int fd, void *data) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = data};
    check(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static void accept_stream(int listener) {
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct stream *stream = calloc(1, sizeof *stream);
    stream->fd = fd;
    watch(fd, stream);
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(listener, 4096), "listen");
    return listener;
}

int main(int count, char **words) {
    check(count == 6 ? 0 : -1, "timerfd_server HEAD ROLE TOKEN END PORT");
    signal(SIGPIPE, SIG_IGN);
    head.size = sprintf(head.bytes, "%.*s", MAX_EVENT, words[1]);
    append_chunk(&first, words[2]);
    append_chunk(&first, words[3]);
    append_chunk(&token, words[3]);
    append_chunk(&end, words[4]);
    end.size += sprintf(end.bytes + end.size, "0\r\n\r\n");
    poller = epoll_create1(0);
    int listener = listen_on(atoi(words[5])), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    watch(listener, &listener);
    watch(timer, &timer);
    for (struct epoll_event events[256];;) {
        struct itimerspec next = {0}; /* setting it clears the expiry that it woke us with */
        if (heap_size) {
            next.it_value.tv_sec = heap[0]->due_ns / NS_PER_S;
            next.it_value.tv_nsec = heap[0]->due_ns % NS_PER_S;
        }
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &next, NULL);
        int ready = epoll_wait(poller, events, 256, -1);
        for (int64_t ns = now_ns(); heap_size && heap[0]->due_ns <= ns;)
            step();
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &listener)
                accept_stream(listener);
            else if (events[i].data.ptr != &timer)
                read_request(events[i].data.ptr, now_ns());
        }
    }
}
