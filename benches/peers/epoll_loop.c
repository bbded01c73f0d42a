/* What two processes can do at most: a bare epoll loop each on a shared listening socket. It takes a
 * request for whole that came in one piece, looks at its path, the end of its head, its Content-Length and
 * "Connection: close", and parses nothing else.
 *
 * Usage: epoll_loop PORT [PATH FILE]...: answers requests for a PATH with the bytes of FILE and the present
 * date, all others with hello world. Ends on SIGTERM, and its workers with it. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 2, EVENTS = 64, ANSWERS = 16 };

static void check(int bad, const char *what) {
  if (bad) { perror(what); exit(1); }
}

struct answer {
  const char *path;
  char *bytes, *date; /* the date's place within the bytes */
  size_t size;
  time_t made;
};

/* Hello world to a connection that is kept, to one that is not, then those of the arguments. */
static struct answer answers[ANSWERS];
static int answer_count = 2;

/* What a slow client has yet to take, by descriptor. */
static struct { const char *bytes; size_t size; } *rest;

static void add_date(struct answer *answer) {
  answer->date = strstr(answer->bytes, "\r\nDate: ");
  check(!answer->date, "an answer without a date");
  answer->date += strlen("\r\nDate: ");
}

static void make_hello(int last) {
  struct answer *answer = &answers[last];
  check(asprintf(&answer->bytes,
                 "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n"
                 "Content-Length: 14\r\nConnection: %s\r\n\r\nHello, World!\n",
                 last ? "close" : "keep-alive") < 0, "asprintf");
  answer->size = strlen(answer->bytes);
  add_date(answer);
}

static void load(const char *path, const char *file) {
  struct answer *answer = &answers[answer_count++];
  struct stat stat;
  int fd = open(file, O_RDONLY);
  check(fd < 0 || fstat(fd, &stat) < 0, file);
  answer->path = path;
  answer->size = stat.st_size;
  answer->bytes = calloc(1, answer->size + 1);
  check(read(fd, answer->bytes, answer->size) != stat.st_size, file);
  close(fd);
  add_date(answer);
}

/* Whether the request's target is the path, or that and a query. */
static int asks_for(const char *request, const char *path) {
  const char *target = strchr(request, ' ');
  size_t size = strlen(path);
  return target && !strncmp(target + 1, path, size) && strchr(" ?", target[1 + size]);
}

static struct answer *choose(const char *request) {
  struct answer *chosen = &answers[strstr(request, "Connection: close") != NULL];
  for (int i = 2; i < answer_count; i++)
    if (asks_for(request, answers[i].path)) chosen = &answers[i];
  time_t now = time(NULL);
  if (chosen->made != now) {
    char date[64];
    struct tm parts;
    size_t size = strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
    memcpy(chosen->date, date, size);
    chosen->made = now;
  }
  return chosen;
}

/* Sends what is left for the connection; returns 0 if that failed. */
static int go_on(int epoll, int fd) {
  ssize_t sent = send(fd, rest[fd].bytes, rest[fd].size, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) return 0;
  if (sent < 0) sent = 0;
  rest[fd].bytes += sent;
  rest[fd].size -= sent;
  struct epoll_event event = {.events = rest[fd].size ? EPOLLOUT : EPOLLIN, .data.fd = fd};
  return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0;
}

/* Answers one request; returns 0 when the connection is to be closed. */
static int answer(int epoll, int fd) {
  if (rest[fd].size) return go_on(epoll, fd);
  char request[8192];
  ssize_t size = recv(fd, request, sizeof request - 1, 0);
  if (size < 0) return errno == EAGAIN;
  request[size] = 0;
  char *end = strstr(request, "\r\n\r\n");
  if (!end) return 0;
  const char *length = strstr(request, "\r\nContent-Length: ");
  size_t body = length && length < end ? strtoul(length + strlen("\r\nContent-Length: "), NULL, 10) : 0;
  if (end + 4 + body != request + size) return 0;
  struct answer *chosen = choose(request);
  ssize_t sent = send(fd, chosen->bytes, chosen->size, MSG_NOSIGNAL);
  if (sent == (ssize_t)chosen->size) return chosen != &answers[1];
  if (sent < 0 && errno != EAGAIN) return 0;
  if (sent < 0) sent = 0;
  rest[fd].bytes = chosen->bytes + sent;
  rest[fd].size = chosen->size - sent;
  return go_on(epoll, fd);
}

static void watch(int epoll, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0, "epoll_ctl");
}

static void work(int listener) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int epoll = epoll_create1(EPOLL_CLOEXEC), on = 1;
  watch(epoll, listener, EPOLLIN | EPOLLEXCLUSIVE);
  for (;;) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd != listener) {
        if (!answer(epoll, fd)) close(fd);
        continue;
      }
      fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) continue;
      rest[fd].size = 0;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      watch(epoll, fd, EPOLLIN);
    }
  }
}

static void stop(int signal) { (void)signal; _exit(0); }

int main(int argc, char **argv) {
  if (argc < 2 || argc % 2 || (argc - 2) / 2 > ANSWERS - 2) {
    fprintf(stderr, "usage: epoll_loop PORT [PATH FILE]...\n");
    return 1;
  }
  make_hello(0);
  make_hello(1);
  for (int i = 2; i < argc; i += 2) load(argv[i], argv[i + 1]);
  struct rlimit descriptors;
  check(getrlimit(RLIMIT_NOFILE, &descriptors) < 0, "getrlimit");
  rest = calloc(descriptors.rlim_cur, sizeof *rest);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  check(bind(listener, (struct sockaddr *)&address, sizeof address) < 0, "bind");
  check(listen(listener, 1024) < 0, "listen");
  for (int i = 0; i < WORKERS; i++)
    if (fork() == 0) work(listener);
  signal(SIGTERM, stop);
  for (;;) pause();
}
