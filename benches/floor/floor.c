/*
 * The floor: the least that a proxy for HTTP/1 can do on epoll, as a measure for proxies that do more.
 *
 *     floor PORT UPSTREAM_PORT        both on 127.0.0.1, one thread, until it is killed
 *
 * It relays a message as it came, and reads no more of it than where its head ends, its Content-Length and whether it
 * says `Connection: close`. Clients share the upstream connections, which stay open. Long bodies go by splice(2). It
 * changes no headers, has no limits, time-outs or retries, knows no chunked bodies, and takes only heads that arrive in
 * one piece: it is good for benches on one's own machine, and for nothing else.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 << 10, PIPE = 256 << 10, SPLICE_MIN = 32 << 10, EVENTS = 512, KEPT_MAX = 16384 };

/* One connection, of a client or to the upstream. */
struct end {
    int fd; /* -1 once it is closed */
    bool is_client;
    bool closes;      /* a client that wants no other exchange */
    bool begun;       /* an upstream's response */
    struct end *peer; /* the other end of the exchange; NULL between two exchanges */
    long left;        /* bytes of the message from this end that are not read yet */
    char *unsent;     /* what this end has not taken yet */
    size_t unsent_at, unsent_end;
    int pipe[2]; /* what was read from this end by splice, and its peer has not taken yet */
    long piped;
    struct end *next_closed;
};

static int poller;
static struct sockaddr_in upstream;
static struct end *kept[KEPT_MAX], *closed;
static int kept_count;
static char buffer[BUFFER];

static void fatal(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static struct end *open_end(int fd, bool is_client) {
    struct end *end = calloc(1, sizeof *end);
    if (!end) fatal("calloc");
    end->fd = fd, end->is_client = is_client, end->pipe[0] = end->pipe[1] = -1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = end};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) fatal("epoll_ctl");
    return end;
}

/* The memory is freed later: events that epoll has handed out already may still name it. */
static void close_end(struct end *end) {
    if (!end || end->fd < 0) return;
    close(end->fd);
    if (end->pipe[0] >= 0) close(end->pipe[0]), close(end->pipe[1]);
    free(end->unsent);
    end->fd = -1, end->unsent = NULL, end->next_closed = closed, closed = end;
    for (int i = 0; i < kept_count && !end->is_client; i++)
        if (kept[i] == end) kept[i--] = kept[--kept_count];
    if (end->peer) end->peer->peer = NULL, close_end(end->peer);
}

static struct end *connect_upstream(void) {
    if (kept_count > 0) return kept[--kept_count];
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&upstream, sizeof upstream)) fatal("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return open_end(fd, false);
}

/* How long the message is that begins in the buffer, or -1. A client's `Connection: close` is between us and it: it is
 * overwritten in the request, and the response gets one of the same length. */
static long message_length(struct end *from, size_t filled) {
    char *head_end = memmem(buffer, filled, "\r\n\r\n", 4), *line = buffer;
    long length = 0;
    if (!head_end) return -1;
    while (line < head_end && (line = memchr(line, '\n', head_end - line))) {
        line++;
        if ((*line | 0x20) != 'c') continue;
        if (!strncasecmp(line, "Content-Length:", 15)) {
            length = atol(line + 15);
        } else if (from->is_client && !strncasecmp(line, "Connection: close", 17)) {
            from->closes = true;
            memcpy(line, "X-Not-Used", 10);
        } else if (!from->is_client && from->peer->closes && !strncasecmp(line, "Connection: keep-alive", 22)) {
            memcpy(line + 12, "close     ", 10);
        }
    }
    return head_end + 4 - buffer + length;
}

static void send_or_hold(struct end *to, size_t filled) {
    ssize_t sent = send(to->fd, buffer, filled, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return close_end(to);
    size_t rest = filled - (sent > 0 ? sent : 0);
    if (rest == 0) return;
    if (!(to->unsent = malloc(rest))) fatal("malloc");
    memcpy(to->unsent, buffer + filled - rest, rest);
    to->unsent_at = 0, to->unsent_end = rest;
}

/* Whether nothing is left that `to` has to take first. */
static bool flushed(struct end *from, struct end *to) {
    while (to->unsent) {
        size_t rest = to->unsent_end - to->unsent_at;
        ssize_t sent = send(to->fd, to->unsent + to->unsent_at, rest, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) close_end(to);
        if (sent < 0) return false;
        if ((to->unsent_at += sent) == to->unsent_end) free(to->unsent), to->unsent = NULL;
    }
    while (from->piped > 0) {
        ssize_t sent = splice(from->pipe[0], NULL, to->fd, NULL, from->piped, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (sent < 0 && errno != EAGAIN) close_end(to);
        if (sent <= 0) return false;
        from->piped -= sent;
    }
    return true;
}

/* Whether there may be more to read. */
static bool splice_some(struct end *from) {
    if (from->pipe[0] < 0) {
        if (pipe2(from->pipe, O_NONBLOCK | O_CLOEXEC)) fatal("pipe2");
        fcntl(from->pipe[1], F_SETPIPE_SZ, PIPE);
    }
    ssize_t got = splice(from->fd, NULL, from->pipe[1], NULL, from->left, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) return close_end(from), false;
    from->left -= got, from->piped = got;
    return true;
}

/* As above. A read that does not fill the buffer has emptied the socket, and epoll will tell of more. */
static bool copy_some(struct end *from) {
    size_t room = from->left > 0 && from->left < BUFFER ? from->left : BUFFER;
    ssize_t got = recv(from->fd, buffer, room, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0 || (!from->is_client && !from->peer)) return close_end(from), false;
    if (from->left == 0) {
        from->left = message_length(from, got), from->begun = true;
        if (!from->peer) from->peer = connect_upstream(), from->peer->peer = from;
    }
    if (from->left < got) return close_end(from), false;
    from->left -= got;
    send_or_hold(from->peer, got);
    return from->fd >= 0 && got == (ssize_t)room;
}

static void end_exchange(struct end *from, struct end *client) {
    from->peer = client->peer = NULL, from->begun = false;
    if (client->closes) close_end(client);
    if (kept_count == KEPT_MAX) return close_end(from);
    kept[kept_count++] = from;
}

/* Relays what there is from one end, until it has no more or its peer takes no more. */
static void pump(struct end *from) {
    for (bool more = true; from->fd >= 0;) {
        struct end *to = from->peer;
        if (to && !flushed(from, to)) return;
        if (to && !from->is_client && from->begun && from->left == 0) return end_exchange(from, to);
        if (!more) return;
        more = to && from->left >= SPLICE_MIN ? splice_some(from) : copy_some(from);
    }
}

static int listen_on(int port) {
    struct sockaddr_in address = loopback(port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) fatal("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) fatal("epoll_ctl");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: floor PORT UPSTREAM_PORT\n"), 2;
    poller = epoll_create1(EPOLL_CLOEXEC);
    upstream = loopback(atoi(argv[2]));
    int listener = listen_on(atoi(argv[1]));
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (!end) {
                int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (fd >= 0) open_end(fd, true);
                continue;
            }
            bool awaited = end->unsent || (end->peer && end->peer->piped);
            if (awaited && events[i].events & EPOLLOUT) pump(end->peer);
            if (end->fd >= 0 && events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) pump(end);
        }
        for (struct end *end; (end = closed); free(end)) closed = end->next_closed;
    }
}
